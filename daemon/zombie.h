/* SPDX-License-Identifier: Apache-2.0 */
/*
 * zombie.h - segments of dropped heaps. Somebody may still map one, so that its size stays charged
 * to the capacity until the kernel says that nobody does: a write lease on the daemon's own
 * description is refused while any other exists.
 */
#ifndef ACRE_DAEMON_ZOMBIE_H
#define ACRE_DAEMON_ZOMBIE_H

#include "daemon/core.h"
#include "daemon/kept.h"

struct zombie {
    struct zombie *next;
    struct kept kept;
    struct budget *budget; /* whose it was; NULL: an earlier daemon's */
    int fd;
    uint64_t size_bytes;
};

/* Its pages stay as long as somebody maps it. kept: by what name, KEPT_NOT if it is not. Takes fd;
 * the bytes are charged as orphaned, of that budget or (NULL) of nobody's. Tries at once. */
void zombie_bury(struct core *core, struct budget *budget, struct kept kept, int fd,
                 uint64_t size_bytes);
/* Of that budget: each costs a descriptor here and one at the keeper. */
uint32_t zombie_count(const struct core *core, const struct budget *budget);
/* Asks again; the bytes of those that nobody maps are refunded. */
void zombie_sweep(struct core *core);
/* At the end of the daemon: refunds without asking. */
void zombie_deinit(struct core *core);

#endif
