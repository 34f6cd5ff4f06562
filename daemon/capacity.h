/* SPDX-License-Identifier: Apache-2.0 */
/* capacity.h - what of the machine's memory the tenants may have, now. Theory in capacity.c. */
#ifndef ACRE_DAEMON_CAPACITY_H
#define ACRE_DAEMON_CAPACITY_H

#include "shm/base.h"

struct core;

#define CAPACITY_LOOK_NS 5000000000u

struct capacity {
    uint64_t asked_bytes; /* 0: half of what there is */
    bool is_of_default;   /* no tenant was named: "default" has all of it */
    const char *root;     /* of the files to look at: "", but for tests */
    uint64_t look_at_ns;  /* UINT64_MAX: never, or somebody is looking */
};

/* What was asked for, as far as memory_bytes can back it. */
uint64_t capacity_backed(uint64_t asked_bytes, uint64_t memory_bytes);

/* From now on, every CAPACITY_LOOK_NS. */
void capacity_watch(struct core *core);
/* look_at_ns has come. */
void capacity_look(struct core *core);
/* Tells it to the ledger, to who waits, and to the heaps. */
void capacity_set(struct core *core, uint64_t capacity_bytes);

#endif
