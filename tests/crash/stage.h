/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stage.h - what the driver and its victims tell each other, in a page that they share, and the
 * nursery: a small process that forks victims, so that each begins as a process that has never
 * heard of the heap.
 */
#ifndef ACRE_TESTS_CRASH_STAGE_H
#define ACRE_TESTS_CRASH_STAGE_H

#include "tests/crash/world.h"

#define STAGE_TRACKED_MAX 16u

struct stage {
    char socket[96];
    unsigned op;    /* index of the operation */
    bool is_leaver; /* the process is to run the operation's leaver, and to exit */
    acre_client survivor;
    struct tracked tracked[STAGE_TRACKED_MAX];
    unsigned n_tracked;
    acre_off handed[4]; /* the survivor's and the leaver's blocks, for the victim */
    /* By the victim; atomic. */
    uint32_t tid, pid; /* of the task that is to die, when it is ready */
    uint32_t has_failed, has_left;
    /* By the driver; atomic. */
    uint32_t go;
};

extern struct stage *stage; /* the same in all processes */

/* This block's contents count from now on; see struct tracked. */
void stage_track(acre_off off, size_t bytes, enum whose before, enum whose after);

struct nursery {
    pid_t pid;
    int to, from; /* pipes */
};

/* main: what a victim does. */
void nursery_start(struct nursery *n, void (*victim)(void));
/* A new process in a group of its own; its id, 0 on failure. */
pid_t nursery_fork(struct nursery *n);
void nursery_stop(struct nursery *n);

#endif
