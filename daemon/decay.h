/* SPDX-License-Identifier: Apache-2.0 */
/* decay.h - free units give their pages back to the system when they have stayed free from one tick
 * to the next. */
#ifndef ACRE_DAEMON_DECAY_H
#define ACRE_DAEMON_DECAY_H

#include "daemon/tenant.h"

#define DECAY_TICK_NS 1000000000ull

/* One tick: punches what is stale, in a worker; marks what is dirty now. */
void decay_tick(struct tenant *tenant);

#endif
