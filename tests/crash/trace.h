/* SPDX-License-Identifier: Apache-2.0 */
/*
 * trace.h - drives another task instruction by instruction.
 *
 * A task is seized, let run to a marker, recorded once step by step, and in later lives brought to
 * its k-th instruction again. Stepping there from the start would cost k steps for each k; instead
 * a hardware breakpoint stands at the latest instruction at or before k that the recording met for
 * the first time there, and only the rest is stepped: nearly linear in all. A life that takes
 * another way than the recorded one ends at some other instruction, which is as good a place to
 * die.
 */
#ifndef ACRE_TESTS_CRASH_TRACE_H
#define ACRE_TESTS_CRASH_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define TRACE_MAX 200000u

struct trace {
    uint32_t n;        /* instructions; pc[n] is where the task stands after the last */
    uint64_t *pc;      /* of the k-th, before it runs */
    uint32_t *anchor;  /* the latest one at or before k that was new there */
    uint8_t *is_point; /* something shared, or a system call: worth a death before and after it */
    uint32_t first_point, last_point; /* k of the instruction */
    bool from_start;                  /* no breakpoints */
};

enum trace_end {
    TRACE_THERE, /* stands at its k-th instruction */
    TRACE_ENDED, /* its operation was over before */
    TRACE_LOST,  /* ended, or stuck */
};

/* 0, or the negative errno of a kernel that lets nobody trace. */
int trace_probe(void);

void trace_init(struct trace *t);
void trace_deinit(struct trace *t);

/* The task dies with this process from here on. */
bool trace_seize(pid_t tid);
/* Waits for its marker, and passes it. */
bool trace_wait_marker(pid_t tid);
/* From there to trace_end_marker or the task's end; changed() is asked after each step. */
bool trace_record(struct trace *t, pid_t tid, bool (*changed)(void *ctx), void *ctx);
enum trace_end trace_go(const struct trace *t, pid_t tid, uint32_t k);
/* Tracer and task on one CPU, where a step costs a third; then the tracer anywhere. */
void trace_share_cpu(pid_t tid);
void trace_leave_cpu(void);
/* After a SIGKILL. */
void trace_reap(pid_t tid);

/* "function file:line (object+0x123)" of an address in this process's image. */
void trace_name(uint64_t pc, char *ret, size_t n);

/* A trap; what lies between is traced. */
void trace_begin_marker(void);
void trace_end_marker(void);

#endif
