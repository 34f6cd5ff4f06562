/* SPDX-License-Identifier: Apache-2.0 */
/* room.h - memory that others do not use, or have too much of, for who wants it. Theory in
 * room.c. */
#ifndef ACRE_DAEMON_ROOM_H
#define ACRE_DAEMON_ROOM_H

#include "daemon/tenant.h"

/* The client wants a segment of n_units, and max, the capacity, its share or the slots leave no
 * room. true: others have been asked for what they do not use, and the answer may still come;
 * memory_wake() follows then or at the end of the time for it. */
bool room_wanted(const struct client *client, uint64_t n_units);
/* It got what it asked for. */
void room_satisfied(struct tenant *tenant);

/* What the tenant may have more now, that needs so much in one piece: as long as others want
 * memory, too, no more than its share leaves. UINT64_MAX: nobody is short. */
uint64_t room_left(struct tenant *tenant, uint64_t need_bytes);

/* Likewise, what of its segments that are free as a whole it may use: while others want memory, too,
 * the rest is theirs. */
uint64_t room_use_left(struct tenant *tenant, uint64_t need_bytes);

/* No later than then. */
static inline void room_look_at(struct core *core, uint64_t at_ns)
{
    core->room_at_ns = MIN(core->room_at_ns, at_ns);
}
/* At core->room_at_ns, in the loop. */
void room_pump(struct core *core);
/* Who has too much may have given some. */
void room_tick(struct tenant *tenant);

#endif
