/* SPDX-License-Identifier: Apache-2.0 */
/* sweep.h - one pass over all owner maps of a heap, in a worker: tags of the dead to 0, tags of
 * publishers to the heap. */
#ifndef ACRE_DAEMON_SWEEP_H
#define ACRE_DAEMON_SWEEP_H

#include "daemon/tenant.h"

enum sweep_action { SWEEP_KEEP = 0, SWEEP_FREE = 1, SWEEP_PUBLISH = 2 };

/* Large blocks whose tag the pass has made 0: their holder may live and not know. */
struct sweep_found {
    uint64_t *large_offs;
    uint32_t n, room;
};

/* Takes CLIENT_IDS actions by id (malloc'ed). done is called in the loop. -ENOMEM: nothing has
 * happened. */
int sweep_start(struct tenant *tenant, uint8_t *actions,
                void (*done)(struct tenant *tenant, const struct sweep_found *found));

#endif
