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

/* Might the tenant give something for `to`; might the segment go? */
typedef bool (*yield_tenant_fn)(const struct tenant *tenant, const struct tenant *to);
typedef bool (*yield_seg_fn)(const struct seg *seg);

/* Of all such segments of all such tenants the smallest that meets the need, else the largest; NULL:
 * there is none. */
struct seg *yield_find(const struct tenant *to, yield_tenant_fn may_give, yield_seg_fn may_go,
                       uint64_t need_bytes, struct tenant **ret_owner);
/* Of such segments of the tenant. */
uint64_t yield_bytes(const struct tenant *tenant, yield_seg_fn may_go);
/* One that no client maps: its pages go in a worker, then its charge, when nobody maps it. false: no
 * memory for a job. */
bool yield_send_away(struct tenant *tenant, struct seg *seg);

#endif
