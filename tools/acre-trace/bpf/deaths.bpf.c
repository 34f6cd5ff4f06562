/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* deaths.bpf.c - the end of each process: its last thread's. */
#include "common.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct signal_struct {
    struct {
        int counter;
    } live;
    int group_exit_code;
};
struct task_struct {
    int tgid;
    int exit_code;
    struct signal_struct *signal;
};
#pragma clang attribute pop

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 1 << 18);
} events SEC(".maps");

__u64 n_lost;

SEC("raw_tp/sched_process_exit")
int process_exit(struct bpf_raw_tracepoint_args *ctx)
{
    struct task_struct *task = (void *)ctx->args[0];

    if (BPF_CORE_READ(task, signal, live.counter) != 0)
        return 0;
    struct death_event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
    if (!e) {
        __sync_fetch_and_add(&n_lost, 1);
        return 0;
    }
    __u32 group = BPF_CORE_READ(task, signal, group_exit_code);
    e->at_ns = bpf_ktime_get_ns();
    e->pid = BPF_CORE_READ(task, tgid);
    e->exit_code = group ? group : (__u32)BPF_CORE_READ(task, exit_code);
    bpf_get_current_comm(e->comm, sizeof(e->comm));
    bpf_ringbuf_submit(e, 0);
    return 0;
}
