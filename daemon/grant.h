/* SPDX-License-Identifier: Apache-2.0 */
/* grant.h - units from the heap to clients and back. Theory in grant.c. */
#ifndef ACRE_DAEMON_GRANT_H
#define ACRE_DAEMON_GRANT_H

#include "daemon/tenant.h"
#include "proto/msg.h"

#define GRANT_ORDER_MAX 9u /* 4 MiB; grant.c */

struct grant {
    struct seg *seg;
    uint32_t unit, n_units;
    bool slab;
    bool prepared; /* all pages are there */
};

/* 0; -EINVAL nonsense; -ENOMEM neither max nor capacity, nor what others do not use, leave it;
 * -EINPROGRESS: what others do not use is still looked for, or on its way. Others of the system.
 * *rounds: {0} at the first try, kept for the next ones. */
int grant_grow(struct tenant *tenant, struct client *client, const struct msg_request *req,
               struct rounds *rounds, struct grant *ret_grant);
/* Of how many units, aligned, a segment must have room for that. False: none can. */
bool grant_needs(uint32_t n_units, uint32_t align_order, bool exact, uint32_t *ret_n,
                 unsigned *ret_align_order);
/* Undoes a grant that has not been told. */
void grant_undo(struct tenant *tenant, struct client *client, const struct grant *grant);

/* What the next grants of 2^order units, or of less where there is no more, would be, in their
 * order, out of the segments that there are: until they sum up to n_units, at most n_max of them.
 * Nothing is taken. Returns how many. */
uint32_t grant_ahead(struct tenant *tenant, unsigned order, uint64_t n_units,
                     struct grant *ret_grants, uint32_t n_max);

/* What of the run is the client's comes back; -EINVAL if not all of it was. */
int grant_release(struct tenant *tenant, struct client *client, const struct msg_run *run);

/* A large block whose tag is 0, whoever held it. -EINVAL if it is none. */
int grant_free_large(struct tenant *tenant, uint64_t off);
/* The same after a sweep, for one of very many: of orphans the next collection takes all at once,
 * where this would look for each. */
void grant_free_swept(struct tenant *tenant, uint64_t off);

#endif
