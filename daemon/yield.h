/* SPDX-License-Identifier: Apache-2.0 */
/* yield.h - what is only ready goes for whoever needs its room. Theory in yield.c. */
#ifndef ACRE_DAEMON_YIELD_H
#define ACRE_DAEMON_YIELD_H

#include "daemon/tenant.h"

/* A segment of n_units is wanted, and max, the capacity or the slots leave no room. true: there
 * will be, or may be; memory_wake_all() follows. false: what is only ready would not help. */
bool yield_room(struct tenant *tenant, uint64_t n_units);

/* Of the tenant's segments that could go. */
uint64_t yield_idle_bytes(const struct tenant *tenant);

/* Of two segments: does the first meet the need better? The smallest that suffices does, else the
 * largest. */
bool yield_is_better(const struct seg *seg, const struct seg *than, uint64_t need_bytes);
/* One that no client maps: its pages go in a worker, then its charge, when nobody maps it. false: no
 * memory for a job. */
bool yield_send_away(struct tenant *tenant, struct seg *seg);

#endif
