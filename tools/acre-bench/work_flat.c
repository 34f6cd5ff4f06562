/* SPDX-License-Identifier: Apache-2.0 */
/*
 * work_flat.c - does it stay as fast when the heap is large? The heap is first filled with
 * sizes.h's mixture up to 64 MiB or 4 GiB live; then a pair of 64 bytes, a replacement at random
 * among the most recent 100,000 blocks (so that the caller's own cache misses are the same), and,
 * in Acre, an allocation that asks the daemon. Compare the two rows of one kind.
 */
#include "workload.h"

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "random.h"
#include "say.h"
#include "sizes.h"

#define RECENT     100000u
#define GROW_SIZE  (5ul << 20)
#define GROW_CALLS 41u

struct flat {
    uint64_t seed, step;
    void *recent[RECENT];
    uint32_t sizes[SIZES_N];
};

BENCH_INLINE void flat_pair(struct mem mem, enum mem_kind kind, void *arg, uint64_t n)
{
    (void)arg;
    for (uint64_t i = 0; i < n; i++) {
        void *block = mem_alloc(mem, kind, 64);
        mem_use(block);
        mem_free(mem, kind, block);
    }
}
HEAP_LOOP(flat_pair)

BENCH_INLINE void flat_churn(struct mem mem, enum mem_kind kind, void *arg, uint64_t n)
{
    struct flat *f = arg;
    for (uint64_t i = 0; i < n; i++) {
        void **slot = &f->recent[random_below(&f->seed, RECENT)];
        uint32_t size = f->sizes[f->step++ & SIZES_MASK];
        mem_free(mem, kind, *slot);
        *slot = mem_alloc(mem, kind, size);
        mem_touch(*slot, size);
    }
}
HEAP_LOOP(flat_churn)

/* Blocks that fall out of `recent` stay allocated for ever. */
BENCH_INLINE void fill(struct mem mem, enum mem_kind kind, void *arg, uint64_t n_bytes)
{
    struct flat *f = arg;
    for (uint64_t live = 0; live < n_bytes || f->step < RECENT; f->step++) {
        uint32_t size = f->sizes[f->step & SIZES_MASK];
        void *block = mem_alloc(mem, kind, size);
        mem_touch(block, size);
        f->recent[f->step % RECENT] = block;
        live += size;
    }
}
HEAP_LOOP(fill)

static void report_grow(struct mem mem, const char *live)
{
    double ns[GROW_CALLS];
    char metric[48];
    for (unsigned i = 0; i < GROW_CALLS; i++) {
        uint64_t begin = now_ns();
        mem_use(mem_alloc(mem, MEM_ACRE, GROW_SIZE));
        ns[i] = (double)(now_ns() - begin);
    }
    snprintf(metric, sizeof(metric), "grow, %s", live);
    report(metric, "ns", median_of(ns, GROW_CALLS), -1);
}

static void run_flat(const struct child *child, unsigned case_idx)
{
    static const uint64_t live[] = {64ul << 20, 4ul << 30};
    uint64_t machine = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    if (live[case_idx] > machine / 4) /* the private daemon gives half of it */
        return;
    struct flat *f = mmap(NULL, sizeof(*f), PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (f == MAP_FAILED)
        give_up("no memory for the load's own table");
    sizes_draw(f->sizes, 1, true);
    f->seed = 1;
    pin_to(0); /* the scheduler's choice alone is worth 34 or 250 us to grow */
    struct mem mem = mem_open(child->kind, child->socket, 0);
    fill_loops[child->kind](mem, f, live[case_idx] / (child->is_quick ? 64 : 1));
    char metric[48];
    snprintf(metric, sizeof(metric), "pair, %s", work_flat.cases[case_idx]);
    measure_steady(child, ROUNDS_ALONE, metric, flat_pair_loops[child->kind], mem, f, 1);
    snprintf(metric, sizeof(metric), "churn, %s", work_flat.cases[case_idx]);
    measure_steady(child, ROUNDS_ALONE, metric, flat_churn_loops[child->kind], mem, f, 1);
    if (child->kind != MEM_ACRE)
        return;
    settle(child); /* the pages that the daemon makes ahead are not what is measured */
    report_grow(mem, work_flat.cases[case_idx]);
}

const struct workload work_flat = {
    .name = "flat",
    .about = "pair, churn and grow in a heap of 64 MiB and of 4 GiB, huge pages; 3 alternations",
    .cases = {"64 MiB live", "4 GiB live"},
    .peers = PEER_BIT(PEER_MIMALLOC),
    .fresh_daemon = true,
    .huge_pages = true,
    .pinned_daemon = true,
    .runs_max = 3,
    .run = run_flat,
};
