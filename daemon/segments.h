/* SPDX-License-Identifier: Apache-2.0 */
/* segments.h - the segments of a tenant's heap come and go. Theory in segments.c. */
#ifndef ACRE_DAEMON_SEGMENTS_H
#define ACRE_DAEMON_SEGMENTS_H

#include "daemon/tenant.h"

/*
 * A new segment in which a run of n units aligned to 2^align_order fits, and which is being kept
 * (deposit.h). -ENOMEM: max or capacity leaves no room; -EDQUOT: others want it, too, and are to
 * have it; -ENOSPC: no slot; -EMFILE and others: the system refused.
 */
int segments_add(struct tenant *tenant, uint32_t n, unsigned align_order, bool is_soft);

/* Units that segments_add() needs for that at least; more than HEAP_UNITS: it cannot be had. */
uint64_t segments_units_for(uint32_t n, unsigned align_order);
/* Are there slots in a row for so many? */
bool segments_have_slots(const struct tenant *tenant, uint64_t n_units);
/* It is kept: from now on it is in the books, and may be granted from. */
void segments_enter(struct tenant *tenant, struct seg *seg);
/* A client is about to hear of it. */
void segments_tell(const struct tenant *tenant, struct seg *seg);
/* A segment that no client maps goes; its descriptor is the caller's. Has no client known it, then
 * its charge is nobody's. Else the tenant stays charged, the slot taken and *ret_kept kept, until
 * segments_free_slots(). */
int segments_drop(struct tenant *tenant, struct seg *seg, struct kept *ret_kept);
void segments_free_slots(struct tenant *tenant, uint32_t slot);

/* The segment of which the books tell at this slot; fd is its own on success. */
int segments_restore(struct tenant *tenant, uint32_t slot, int fd);
/* One that has been retired: it is charged as long as somebody maps it. fd is taken. */
int segments_restore_limbo(struct tenant *tenant, uint32_t slot, int fd);

#endif
