/* SPDX-License-Identifier: Apache-2.0 */
/* events.h - what the programs in the kernel (bpf/) and acre-trace tell each other. */
#ifndef ACRE_TRACE_EVENTS_H
#define ACRE_TRACE_EVENTS_H

#include <linux/types.h>

#include "shm/trace.h"

#define TRACE_COMM   16
#define TRACE_FRAMES 32

/* ---- latency: an array of these, by cause, and behind those by request ---- */

#define LATENCY_REQUESTS 32 /* enum msg_op is less */
#define LATENCY_ROWS     (TRACE_CAUSES + LATENCY_REQUESTS)
#define LATENCY_SUB      4 /* buckets to each doubling */
#define LATENCY_BUCKETS  160

struct latency_row {
    __u64 n, n_failed, total_ns, max_ns;
    __u64 buckets[LATENCY_BUCKETS]; /* [0, 4) singly, then four to each doubling */
};

/* ---- stacks ---- */

/* The callers, innermost first; 0 ends them. */
struct trace_stack {
    __u64 ip[TRACE_FRAMES];
};

struct growth_event {
    __u64 bytes;
    __u32 pid;
    char comm[TRACE_COMM];
    struct trace_stack stack;
};

/* ---- leaks: sampled blocks that nobody has freed ---- */

struct leak_key {
    __u64 heap_id, off; /* the same in all processes */
};

struct leak_block {
    __u64 bytes, weight_bytes; /* asked for; what the sample stands for */
    __u64 at_ns;
    __u32 pid, pad;
    char comm[TRACE_COMM];
    struct trace_stack stack;
};

/* ---- faults ---- */

struct fault_key {
    __u64 inode; /* of the segment */
    __u32 pid, pad;
};

struct fault_row {
    __u64 n_read, n_write;
    char comm[TRACE_COMM];
};

/* ---- deaths ---- */

struct death_event {
    __u64 at_ns;
    __u32 pid, exit_code; /* as wait(2) says it */
    char comm[TRACE_COMM];
};

#endif
