/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* growth.bpf.c - each grant of units, with the stack that asked. */
#include "common.h"

#include <bpf/usdt.bpf.h>

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 1 << 22);
} events SEC(".maps");

__u64 n_lost; /* the ring was full */

SEC("usdt")
int BPF_USDT(grow, __u64 bytes)
{
    struct growth_event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);

    if (!e) {
        __sync_fetch_and_add(&n_lost, 1);
        return 0;
    }
    __builtin_memset(&e->stack, 0, sizeof(e->stack));
    e->bytes = bytes;
    e->pid = this_pid();
    bpf_get_current_comm(e->comm, sizeof(e->comm));
    (void)bpf_get_stack(ctx, e->stack.ip, sizeof(e->stack.ip), BPF_F_USER_STACK);
    bpf_ringbuf_submit(e, 0);
    return 0;
}
