/* SPDX-License-Identifier: Apache-2.0 */
/*
 * work_fresh.c - memory that nobody has touched before: allocated, never freed, and each 4 KiB page
 * written once, in a fresh process. Cases "page" hold Acre (blocks of 1 MiB) against what the
 * kernel takes for anonymous memory without huge pages; the others hold allocations of one size
 * against other allocators, which may use what pages they like. The last is four million small
 * blocks.
 *
 * Acre's daemon is a new one for each process, or it would hand out pages that an earlier one has
 * touched. Its tenant has enough memory kept ready. The process attaches and then waits until the
 * daemon says that it is (settle()), as a service does between its start and its first request:
 * preparing memory takes time off the user's path, not no time.
 *
 * fresh-page-huge and fresh-huge are the same with shared huge pages: shmem_enabled is set to
 * "advise" meanwhile, and the tenant asks for them.
 */
#include "workload.h"

#include <sys/mman.h>

#include "say.h"

#define TOTAL       (256ul << 20)
#define TOTAL_QUICK (32ul << 20)
#define SMALL_N     4000000ul
#define SMALL_SIZE  112u

struct fresh {
    size_t size;
    uint64_t ns;
};

BENCH_INLINE void fresh(struct mem mem, enum mem_kind kind, void *arg, uint64_t n)
{
    struct fresh *f = arg;
    uint64_t begin = now_ns();
    for (uint64_t i = 0; i < n; i++)
        mem_touch(mem_alloc(mem, kind, f->size), f->size);
    f->ns = now_ns() - begin;
}
HEAP_LOOP(fresh)

static double kernel_ns(size_t bytes)
{
    void *range = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (range == MAP_FAILED || madvise(range, bytes, MADV_NOHUGEPAGE))
        give_up("no anonymous memory without huge pages");
    uint64_t begin = now_ns();
    mem_touch(range, bytes);
    return (double)(now_ns() - begin);
}

static void report_pages(const struct child *child, const char *metric, size_t size)
{
    size_t total = child->is_quick ? TOTAL_QUICK : TOTAL;
    double ns;
    if (child->kind == MEM_NONE) {
        ns = kernel_ns(total);
    } else {
        struct fresh f = {.size = size};
        struct mem mem = mem_open(child->kind, child->socket, 0);
        settle(child);
        fresh_loops[child->kind](mem, &f, total / size);
        ns = (double)f.ns;
    }
    report(metric, "ns", ns / (double)(total / 4096), -1);
}

static void report_small(const struct child *child, const char *metric)
{
    struct fresh f = {.size = SMALL_SIZE};
    uint64_t n = child->is_quick ? SMALL_N / 10 : SMALL_N;
    struct mem mem = mem_open(child->kind, child->socket, 0);
    settle(child);
    fresh_loops[child->kind](mem, &f, n);
    report(metric, "ns", (double)f.ns / (double)n, -1);
}

static void run_page(const struct child *child, unsigned case_idx)
{
    (void)case_idx;
    report_pages(child, "page", 1 << 20);
}

static void run_fresh(const struct child *child, unsigned case_idx)
{
    static const size_t sizes[] = {64 << 10, 1 << 20, 32 << 20, SMALL_SIZE};
    if (sizes[case_idx] == SMALL_SIZE)
        report_small(child, work_fresh.cases[case_idx]);
    else
        report_pages(child, work_fresh.cases[case_idx], sizes[case_idx]);
}

static void run_fresh_huge(const struct child *child, unsigned case_idx)
{
    report_small(child, work_fresh_huge.cases[case_idx]);
}

const struct workload work_page = {
    .name = "fresh-page",
    .about = "first touch of new memory, against anonymous memory; per 4 KiB page",
    .cases = {"page"},
    .peers = PEER_BIT(PEER_KERNEL),
    .fresh_daemon = true,
    .ready = true,
    .run = run_page,
};

const struct workload work_page_huge = {
    .name = "fresh-page-huge",
    .about = "the same, with shared huge pages in Acre",
    .cases = {"page"},
    .peers = PEER_BIT(PEER_KERNEL),
    .fresh_daemon = true,
    .ready = true,
    .huge_pages = true,
    .run = run_page,
};

const struct workload work_fresh = {
    .name = "fresh",
    .about = "blocks never freed, each page written once; per page, small ones per block",
    .cases = {"64 KiB", "1 MiB", "32 MiB", "4,000,000 x 112 B"},
    .peers = PEERS_MALLOC,
    .fresh_daemon = true,
    .ready = true,
    .run = run_fresh,
};

const struct workload work_fresh_huge = {
    .name = "fresh-huge",
    .about = "small blocks never freed, with shared huge pages in Acre; per block",
    .cases = {"4,000,000 x 112 B"},
    .peers = PEERS_MALLOC,
    .fresh_daemon = true,
    .ready = true,
    .huge_pages = true,
    .run = run_fresh_huge,
};
