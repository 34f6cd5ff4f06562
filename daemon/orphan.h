/* SPDX-License-Identifier: Apache-2.0 */
/*
 * orphan.h - what dead clients left to the heap: slabs with blocks of others or of the heap in
 * them, and large blocks.
 *
 * The books say OWNER_ORPHAN, the unit entries U_PARKED (or U_LARGE); the lists here are derived.
 * Nobody allocates from an orphan, so that its tags only go to 0: an empty one goes free, a slab
 * with free blocks is granted to who asks for its class.
 */
#ifndef ACRE_DAEMON_ORPHAN_H
#define ACRE_DAEMON_ORPHAN_H

#include "shm/base.h"
#include "shm/layout.h"
#include "shm/sizeclass.h"

struct tenant;
struct client;
struct seg;

struct orphan {
    uint32_t slot, unit, n_units;
    uint32_t geo; /* 0: a large block */
};

struct orphan_list {
    struct orphan *at;
    uint32_t n, room;
    uint32_t next; /* where the next scan begins */
};

#define ORPHANS_LARGE N_CLASSES /* index of the list of large blocks */

/* How far a walk over all orphans has come; {0} at its beginning, list is beyond the last at its
 * end. */
struct orphan_place {
    uint32_t list, i;
};

struct orphans {
    struct orphan_list list[N_CLASSES + 1];
    uint32_t n;
};

void orphans_deinit(struct orphans *orphans);

/* One of which the books tell already. */
void orphan_restore(struct tenant *tenant, struct seg *seg, uint32_t unit, uint32_t n_units,
                    unsigned geo);
/* The run, a dead client's with blocks in it, becomes the daemon's. geo 0: large. */
void orphan_adopt(struct tenant *tenant, struct seg *seg, uint32_t unit, uint32_t n_units,
                  unsigned geo, tag_t from);

/* A parked slab of the class with a free block goes to the client; false if there is none. */
bool orphan_grant(struct tenant *tenant, struct client *client, unsigned class_idx,
                  struct orphan *ret_orphan);

/* Frees those that are empty. all: looks at every one; else only at those that say by a hint that
 * something was freed. Not while a sweep runs: an empty slab could be somebody's data before the
 * sweep has read it. Stops after max maps of slabs; returns how many it has read. */
uint32_t orphans_collect(struct tenant *tenant, struct orphan_place *place, bool all, uint32_t max);

/* Is [unit, unit + n), all of which is the daemon's, one orphan? Several side by side have one
 * owner in the books, too. */
bool orphan_is_run(const struct tenant *tenant, const struct seg *seg, uint32_t unit, uint32_t n);
/* Is there a large orphan of exactly this run? */
bool orphan_is_large(struct tenant *tenant, const struct seg *seg, uint32_t unit, uint32_t n);
/* The one that begins there was freed, or taken: it is no more. */
void orphan_forget(struct tenant *tenant, const struct seg *seg, uint32_t unit);

#endif
