/* SPDX-License-Identifier: Apache-2.0 */
/*
 * work_tail.c - how long the slow ones take. 50,000 blocks of sizes.h's mixture (without the large
 * ones) are allocated, then one at random is replaced, 450,000 times; each call is timed by itself
 * with the processor's time stamp. The growth at the beginning counts: first touches by the
 * allocator itself are part of a tail, those of the caller are made outside of the times.
 *
 * The clock's own cost (row "clock") is in each figure and is not subtracted: ratios of medians
 * lean towards 1, those of tails hardly. A tail holds what else the machine did in those moments;
 * max is shown, never judged.
 *
 * "reserved" is the same after acre_reserve() of as many blocks of each class as will live at once,
 * which a rehearsal without blocks has found out; "slow paths" is how many allocations then had to
 * look for a block all the same.
 */
#include "workload.h"

#include <stdio.h>
#include <sys/mman.h>
#if defined(__x86_64__)
#include <x86intrin.h>
#endif

#include "random.h"
#include "say.h"
#include "sizes.h"

#define N_LIVE  50000u
#define N_STEPS 450000u
#define N_QUICK 50000u

struct tail {
    void *live[N_LIVE];
    uint32_t sizes[SIZES_N];
    uint64_t seed;
    uint32_t n_allocs, n_frees, n_steps;
    uint32_t allocs[N_LIVE + N_STEPS], frees[N_STEPS], clock[N_LIVE]; /* ticks */
};

BENCH_INLINE uint64_t ticks(void)
{
#if defined(__x86_64__)
    unsigned cpu;
    uint64_t t = __rdtscp(&cpu); /* waits for what came before */
    _mm_lfence();                /* what comes after waits for it */
    return t;
#else
    return now_ns();
#endif
}

/* Nothing here lasts longer than 2^32 ticks but a stopped process. */
BENCH_INLINE uint32_t ticks_since(uint64_t begin)
{
    uint64_t n = ticks() - begin;
    return n < UINT32_MAX ? (uint32_t)n : UINT32_MAX;
}

BENCH_INLINE void put(struct mem mem, enum mem_kind kind, struct tail *t, void **slot)
{
    uint32_t size = t->sizes[t->n_allocs & SIZES_MASK];
    uint64_t begin = ticks();
    *slot = mem_alloc(mem, kind, size);
    t->allocs[t->n_allocs++] = ticks_since(begin);
    mem_touch(*slot, size);
}

BENCH_INLINE void drop(struct mem mem, enum mem_kind kind, struct tail *t, void *block)
{
    uint64_t begin = ticks();
    mem_free(mem, kind, block);
    t->frees[t->n_frees++] = ticks_since(begin);
}

BENCH_INLINE void tail(struct mem mem, enum mem_kind kind, void *arg, uint64_t n)
{
    struct tail *t = arg;
    for (uint32_t i = 0; i < N_LIVE; i++)
        put(mem, kind, t, &t->live[i]);
    for (uint64_t i = 0; i < n; i++) {
        void **slot = &t->live[random_below(&t->seed, N_LIVE)];
        drop(mem, kind, t, *slot);
        put(mem, kind, t, slot);
    }
    for (uint32_t i = 0; i < N_LIVE; i++)
        t->clock[i] = ticks_since(ticks());
}
HEAP_LOOP(tail)

/* ---- what will be needed ---- */

#define ROUNDED_MAX (65536u / 16)

struct demand {
    uint32_t live[ROUNDED_MAX + 1], most[ROUNDED_MAX + 1]; /* by the block's size / 16 */
};

static uint32_t rounded(struct mem mem, uint32_t size)
{
    void *block = acre_alloc(mem.heap, size);
    uint32_t usable = (uint32_t)acre_usable_size(mem.heap, block);
    acre_free(mem.heap, block);
    return usable / 16;
}

static void demand_add(struct demand *d, uint32_t at)
{
    if (++d->live[at] > d->most[at])
        d->most[at] = d->live[at];
}

/* The steps of tail(), with numbers for blocks. */
static void rehearse(struct mem mem, const struct tail *t, uint64_t n, struct demand *d)
{
    static uint16_t live[N_LIVE];
    uint64_t seed = t->seed;
    uint32_t n_allocs = 0;
    for (uint32_t i = 0; i < N_LIVE; i++)
        demand_add(d, live[i] = (uint16_t)rounded(mem, t->sizes[n_allocs++ & SIZES_MASK]));
    for (uint64_t i = 0; i < n; i++) {
        uint16_t *slot = &live[random_below(&seed, N_LIVE)];
        d->live[*slot]--;
        demand_add(d, *slot = (uint16_t)rounded(mem, t->sizes[n_allocs++ & SIZES_MASK]));
    }
}

static void reserve(struct mem mem, const struct tail *t, uint64_t n)
{
    static struct demand d;
    rehearse(mem, t, n, &d);
    for (uint32_t at = 1; at <= ROUNDED_MAX; at++)
        if (d.most[at] > 0 && acre_reserve(mem.heap, at * 16, d.most[at]) < 0)
            give_up("cannot reserve: %s", acre_last_error());
}

/* ---- figures ---- */

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void report_tail(const char *what, uint32_t *values, uint32_t n, double ns_per_tick)
{
    static const struct {
        const char *name;
        double part;
    } marks[] = {{"p50", 0.5}, {"p99", 0.99}, {"p99.9", 0.999}, {"p99.99", 0.9999}, {"max", 1}};
    char metric[32];
    qsort(values, n, sizeof(*values), compare);
    for (unsigned i = 0; i < sizeof(marks) / sizeof(marks[0]); i++) {
        snprintf(metric, sizeof(metric), "%s %s", what, marks[i].name);
        report(metric, "ns", values[(uint32_t)(marks[i].part * (n - 1))] * ns_per_tick, -1);
    }
}

static void run_tail(const struct child *child, unsigned case_idx)
{
    bool is_reserved = case_idx == 1;
    uint64_t n = child->is_quick ? N_QUICK : N_STEPS;
    if (is_reserved && child->kind != MEM_ACRE)
        return;
    struct tail *t = mmap(NULL, sizeof(*t), PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (t == MAP_FAILED)
        give_up("no memory for the load's own table");
    sizes_draw(t->sizes, 1, false);
    t->seed = 1;
    struct mem mem = mem_open(child->kind, child->socket, 256 << 20);
    settle(child);
    if (is_reserved)
        reserve(mem, t, n);
    uint64_t refills = is_reserved ? acre_refills(mem.heap) : 0;
    uint64_t begin_ns = now_ns(), begin = ticks();
    tail_loops[child->kind](mem, t, n);
    double ns_per_tick = (double)(now_ns() - begin_ns) / (double)(ticks() - begin);
    if (is_reserved)
        report("slow paths", "calls", (double)(acre_refills(mem.heap) - refills), -1);
    report_tail(is_reserved ? "reserved malloc" : "malloc", t->allocs, t->n_allocs, ns_per_tick);
    report_tail(is_reserved ? "reserved free" : "free", t->frees, t->n_frees, ns_per_tick);
    if (is_reserved)
        return;
    qsort(t->clock, N_LIVE, sizeof(*t->clock), compare);
    report("clock", "ns", t->clock[N_LIVE / 2] * ns_per_tick, -1);
}

const struct workload work_tail = {
    .name = "tail",
    .about = "each call timed by itself, growth, then a mixture; Acre: memory ready, huge pages",
    .cases = {"mixed", "mixed, reserved"},
    .peers = PEERS_MALLOC,
    .fresh_daemon = true,
    .huge_pages = true,
    .ready = true,
    .run = run_tail,
};
