/* SPDX-License-Identifier: Apache-2.0 */
/*
 * core_trap.h - kills this process at its k-th store to shared memory.
 *
 * What is mapped shared and writable from here on is write-protected. A store faults, is counted,
 * is let through by one single step (the processor's trap flag), and the page is protected again.
 * So every instruction that stores is one event, and the k-th one does not happen. The other ways
 * in which a step reaches the world are events too: trap_event().
 */
#ifndef ACRE_TESTS_CORE_TRAP_H
#define ACRE_TESTS_CORE_TRAP_H

#include "shm/base.h"

#define TRAP_KILLED 77 /* exit status */

/* Is it known here how? Else there are no such deaths. */
bool trap_possible(void);
/* In a child that was made for it. *n_events is counted up and outlives it. */
void trap_begin(uint32_t kill_at, volatile uint32_t *n_events);
/* A mapping from before. */
void trap_protect(void *base, size_t bytes);
/* Something is about to be told; nothing unless trap_begin() was. */
void trap_event(void);

#endif
