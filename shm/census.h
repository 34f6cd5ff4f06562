/* SPDX-License-Identifier: Apache-2.0 */
/*
 * census.h - walks a segment's owner maps: who holds what. Used by the daemon's sweep and by
 * whoever looks.
 *
 * Reads by pread into private buffers (a mapped read would refill punched holes and could be
 * changed under the reader's hands): each entry is copied once and checked; nonsense is skipped and
 * counted in n_bad. Stops nobody; a census of a running heap is a blurred picture, of a resting
 * heap it is exact.
 */
#ifndef ACRE_SHM_CENSUS_H
#define ACRE_SHM_CENSUS_H

#include "shm/base.h"
#include "shm/layout.h"
#include "shm/segment.h"
#include "shm/sizeclass.h"

/* One slab or large block. tags: private copy; for a large block one tag. No two overlap, but that
 * of a slab on its way back (U_RELEASING) there may be others already. */
struct census_item {
    uint32_t unit, n_units; /* in the segment */
    enum unit_state state;  /* U_SLAB, U_PARKED, U_LARGE; U_RELEASING: never write there, it may be
                               another's by now */
    unsigned geo;           /* 0: large */
    uint32_t holder;        /* token; of a large block: whose units they are, index 0 */
    const tag_t *tags;
    uint32_t n_tags;
    uint64_t tags_off; /* of tags[0], in bytes from the segment's start */
    uint64_t block_bytes;
};

/* Called for each; a return other than 0 ends the walk and is returned. */
typedef int (*census_fn)(void *ctx, const struct census_item *item);

/* n_bad (may be NULL): entries that make no sense (foreign state, out of range, overlapping). 0,
 * what fn returned, or a negative errno of pread. */
int census_walk(int fd, const struct segment_shape *shape, census_fn fn, void *ctx,
                uint64_t *ret_n_bad);

/* The same walk for who wants every unit of [from, to), none of them inside of an item that began
 * before: called in their order, after the item was made that begins there. item: the one that the
 * unit lies in, or NULL; of a slab on its way back the head alone does. A large block that is kept
 * (LARGE_KEPT) is an item here. Holes are not passed over: what is not there is U_FREE. */
typedef int (*census_unit_fn)(void *ctx, uint32_t unit, uint64_t entry,
                              const struct census_item *item);
int census_walk_units(int fd, const struct segment_shape *shape, uint32_t from, uint32_t to,
                      census_unit_fn fn, void *ctx);

/* Sums. by_id: CLIENT_IDS elements, indexed by tag ([0] unused, [65535] the heap). */
struct census_owner {
    uint64_t live_bytes, live_blocks;
};
struct census_class {
    uint64_t slabs, live_blocks, free_blocks;
};
struct census {
    uint64_t live_bytes, live_blocks;
    uint64_t large_blocks, large_bytes;
    uint64_t n_bad;
    struct census_class classes[N_CLASSES];
    struct census_owner *by_id; /* calloc(CLIENT_IDS), census_deinit() frees */
};
int census_init(struct census *census);
void census_deinit(struct census *census);
void census_add_item(struct census *census, const struct census_item *item);
int census_add_segment(struct census *census, int fd, const struct segment_shape *shape);

#endif
