/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* latency.bpf.c - begin and end of slow paths and requests, which nest on a thread. */
#include "common.h"

#include <bpf/usdt.bpf.h>

#define DEPTH_MAX 8u /* a wait, in it a slow path, in it a request, and so on; 2^n */

struct open_pairs {
    __u32 depth;
    __u64 at_ns[DEPTH_MAX];
};

/* A thread that dies between the two leaves its line behind: the oldest goes. */
struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, 16384);
    __type(key, __u32);
    __type(value, struct open_pairs);
} open_of SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, LATENCY_ROWS);
    __type(key, __u32);
    __type(value, struct latency_row);
} rows SEC(".maps");

static __always_inline int begin(void)
{
    static const struct open_pairs none;
    __u32 tid = this_tid();
    struct open_pairs *p = bpf_map_lookup_elem(&open_of, &tid);

    if (!p) {
        bpf_map_update_elem(&open_of, &tid, &none, BPF_NOEXIST);
        p = bpf_map_lookup_elem(&open_of, &tid);
    }
    if (!p)
        return 0;
    p->at_ns[p->depth++ % DEPTH_MAX] = bpf_ktime_get_ns();
    return 0;
}

/* Four to each doubling; latency.c has the way back. */
static __always_inline __u32 bucket_of(__u64 ns)
{
    __u32 log2 = 0;

    if (ns < LATENCY_SUB)
        return (__u32)ns;
    for (__u32 step = 32; step > 0; step /= 2)
        if (ns >> (log2 + step))
            log2 += step;
    return log2 * LATENCY_SUB - LATENCY_SUB + ((ns >> (log2 - 2)) & (LATENCY_SUB - 1));
}

static __always_inline int end(__u32 row_idx, bool failed)
{
    __u64 now_ns = bpf_ktime_get_ns();
    __u32 tid = this_tid();
    struct open_pairs *p = bpf_map_lookup_elem(&open_of, &tid);

    if (!p || p->depth == 0) /* begun before anybody looked */
        return 0;
    __u64 ns = now_ns - p->at_ns[--p->depth % DEPTH_MAX];
    struct latency_row *row = bpf_map_lookup_elem(&rows, &row_idx);
    if (!row)
        return 0;
    __u32 bucket = bucket_of(ns);
    row->n++;
    row->n_failed += failed;
    row->total_ns += ns;
    if (ns > row->max_ns)
        row->max_ns = ns;
    if (bucket < LATENCY_BUCKETS)
        row->buckets[bucket]++;
    return 0;
}

SEC("usdt")
int BPF_USDT(slow_begin)
{
    return begin();
}

SEC("usdt")
int BPF_USDT(slow_end, __u64 bytes, __u32 cause, int error)
{
    return end(cause < TRACE_CAUSES ? cause : 0, error != 0);
}

SEC("usdt")
int BPF_USDT(request_begin)
{
    return begin();
}

SEC("usdt")
int BPF_USDT(request_end, __u32 op, int error)
{
    return end(TRACE_CAUSES + (op < LATENCY_REQUESTS ? op : 0), error != 0);
}
