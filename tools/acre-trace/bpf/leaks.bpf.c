/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * leaks.bpf.c - a sample of allocations, until somebody frees them.
 *
 * An allocation is sampled when so many bytes have been allocated on its CPU since the last one;
 * how many is drawn anew each time, so that no rhythm of the program is blind to it. Between entry
 * and return it stands in `pending`; then in `blocks`, under a name that all processes share.
 */
#include "common.h"

const volatile __u64 every_bytes = 1; /* 1: all blocks */

struct pending {
    __u64 heap, bytes, weight_bytes;
    __u32 depth; /* public functions call each other */
    struct trace_stack stack;
};

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, 16384);
    __type(key, __u32);
    __type(value, struct pending);
} pending SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 65536);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, struct leak_key);
    __type(value, struct leak_block);
} blocks SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __s64);
} until_next SEC(".maps");

/* Too large for the stack of a program. */
struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct pending);
} scratch_pending SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct leak_block);
} scratch_block SEC(".maps");

__u64 n_sampled, n_freed, n_lost; /* lost: blocks is full */

static __always_inline bool is_due(__u64 bytes)
{
    __u32 zero = 0;
    __s64 *left = bpf_map_lookup_elem(&until_next, &zero);

    if (every_bytes <= 1)
        return true;
    if (!left)
        return false;
    *left -= (__s64)bytes;
    if (*left >= 0)
        return false;
    /* Uniform in [0, 2 every): every on average. */
    *left = (__s64)(((__u64)bpf_get_prandom_u32() * 2 * every_bytes) >> 32);
    return true;
}

SEC("uprobe")
int alloc_entry(struct pt_regs *ctx)
{
    __u32 zero = 0, tid = this_tid();
    struct pending *p = bpf_map_lookup_elem(&pending, &tid);
    __u64 bytes = PT_REGS_PARM2(ctx);

    if (p) {
        p->depth++;
        return 0;
    }
    if (!is_due(bytes))
        return 0;
    p = bpf_map_lookup_elem(&scratch_pending, &zero);
    if (!p)
        return 0;
    __builtin_memset(&p->stack, 0, sizeof(p->stack));
    p->heap = PT_REGS_PARM1(ctx);
    p->bytes = bytes;
    p->weight_bytes = bytes > every_bytes ? bytes : every_bytes;
    if (every_bytes <= 1)
        p->weight_bytes = bytes;
    p->depth = 1;
    stack_at_entry(ctx, &p->stack);
    bpf_map_update_elem(&pending, &tid, p, BPF_ANY);
    return 0;
}

static __always_inline bool key_of(struct leak_key *key, __u64 heap, __u64 address)
{
    __u64 base = 0;

    key->heap_id = 0;
    if (bpf_probe_read_user(&base, sizeof(base), (void *)(heap + TRACE_BASE_OFF)) < 0 ||
        bpf_probe_read_user(&key->heap_id, sizeof(key->heap_id),
                            (void *)(heap + TRACE_HEAP_ID_OFF)) < 0)
        return false;
    key->off = address - base;
    return true;
}

SEC("uretprobe")
int alloc_return(struct pt_regs *ctx)
{
    __u32 zero = 0, tid = this_tid();
    struct pending *p = bpf_map_lookup_elem(&pending, &tid);
    __u64 address = PT_REGS_RC(ctx);
    struct leak_key key;

    if (!p || --p->depth > 0)
        return 0;
    struct leak_block *b = bpf_map_lookup_elem(&scratch_block, &zero);
    if (b && address != 0 && key_of(&key, p->heap, address)) {
        b->bytes = p->bytes;
        b->weight_bytes = p->weight_bytes;
        b->at_ns = bpf_ktime_get_ns();
        b->pid = this_pid();
        bpf_get_current_comm(b->comm, sizeof(b->comm));
        b->stack = p->stack;
        __sync_fetch_and_add(&n_sampled, 1);
        if (bpf_map_update_elem(&blocks, &key, b, BPF_ANY) < 0)
            __sync_fetch_and_add(&n_lost, 1);
    }
    bpf_map_delete_elem(&pending, &tid);
    return 0;
}

/* By anybody, in whatever process. A block that was not sampled is not found. */
SEC("uprobe")
int free_entry(struct pt_regs *ctx)
{
    struct leak_key key;

    if (PT_REGS_PARM2(ctx) != 0 && key_of(&key, PT_REGS_PARM1(ctx), PT_REGS_PARM2(ctx)) &&
        bpf_map_delete_elem(&blocks, &key) == 0)
        __sync_fetch_and_add(&n_freed, 1);
    return 0;
}
