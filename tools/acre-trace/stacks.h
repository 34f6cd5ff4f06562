/* SPDX-License-Identifier: Apache-2.0 */
/* stacks.h - names for the addresses in a process's stack (elfutils' libdwfl). */
#ifndef ACRE_TRACE_STACKS_H
#define ACRE_TRACE_STACKS_H

#include <sys/types.h>

#include "events.h"
#include "shm/base.h"

struct stacks;

struct stacks *stacks_new(void);
void stacks_free(struct stacks *stacks);

/* Reads what the process maps, while it lives: its names outlast it. */
void stacks_learn(struct stacks *stacks, pid_t pid);

/* From the outermost caller to the innermost, a ';' between two, as flame graphs want it. What lies
 * in libacre is one frame. The caller frees it; NULL: no memory. */
char *stacks_folded(struct stacks *stacks, pid_t pid, const struct trace_stack *stack);
/* From the innermost, each on a line behind the indentation, with file and line if they are known. */
char *stacks_listed(struct stacks *stacks, pid_t pid, const struct trace_stack *stack,
                    const char *indent);

#endif
