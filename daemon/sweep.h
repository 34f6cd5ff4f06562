/* SPDX-License-Identifier: Apache-2.0 */
/* sweep.h - one pass over all owner maps of a heap, in a worker: tags of the dead to 0, tags of
 * publishers to the heap. */
#ifndef ACRE_DAEMON_SWEEP_H
#define ACRE_DAEMON_SWEEP_H

#include "daemon/tenant.h"

enum sweep_action { SWEEP_KEEP = 0, SWEEP_FREE = 1, SWEEP_PUBLISH = 2 };

struct sweep_found {
    int error; /* tags may be left as they were: once more */
    /* Large blocks whose tag the pass has made 0: their holder may live and not know. */
    uint64_t *large_offs;
    uint32_t n, room;
};

/* What to do about each tag. Blocks that a dead client was linking are published if their slot
 * names them (client/link.c), the others freed: its life page says which. */
struct sweep_life {
    tag_t id;
    int fd; /* the client keeps it open */
};
struct sweep_plan {
    uint8_t action[CLIENT_IDS];
    uint32_t n_lives;
    struct sweep_life lives[]; /* of those that are dying */
};

/* Takes the plan (malloc'ed). done is called in the loop. -ENOMEM: nothing has happened. */
int sweep_start(struct tenant *tenant, struct sweep_plan *plan,
                void (*done)(struct tenant *tenant, const struct sweep_found *found));

#endif
