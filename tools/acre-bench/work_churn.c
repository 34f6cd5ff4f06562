/* SPDX-License-Identifier: Apache-2.0 */
/*
 * work_churn.c - a server at work: sizes.h's mixture, and two kinds of lifetimes. Of eight new
 * blocks, seven replace the oldest of 1,024 short-lived ones (a request's), one replaces any of
 * 30,000 long-lived ones (a cache's). Each page of a block is written once. Each thread has blocks
 * of its own.
 *
 * churn-huge is the same with shared huge pages in Acre: mimalloc takes anonymous ones by itself,
 * and a working set of 13 MB is seen through 7 entries of the translation cache instead of 3,000.
 */
#include "workload.h"

#include <string.h>
#include <sys/mman.h>

#include "crew.h"
#include "random.h"
#include "say.h"
#include "sizes.h"

#define N_YOUNG 1024u
#define N_OLD   30000u
#define WARM_UP 400000u

struct churn {
    uint64_t seed, step;
    void *young[N_YOUNG], *old[N_OLD];
    uint32_t sizes[SIZES_N];
};

BENCH_INLINE void churn(struct mem mem, enum mem_kind kind, void *arg, uint64_t n)
{
    struct churn *c = arg;
    uint64_t seed = c->seed, step = c->step;
    for (uint64_t end = step + n; step < end; step++) {
        bool is_old = step % 8 == 0;
        void **slot = is_old ? &c->old[random_below(&seed, N_OLD)] : &c->young[step % N_YOUNG];
        uint32_t size = c->sizes[step & SIZES_MASK];
        mem_free(mem, kind, *slot);
        *slot = mem_alloc(mem, kind, size);
        mem_touch(*slot, size);
    }
    c->seed = seed;
    c->step = step;
}
HEAP_LOOP(churn)

static struct churn *churn_new(unsigned thread)
{
    struct churn *c = mmap(NULL, sizeof(*c), PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (c == MAP_FAILED)
        give_up("no memory for the load's own table");
    c->seed = thread + 1;
    sizes_draw(c->sizes, thread + 1, true);
    return c;
}

static void run_churn(const struct child *child, unsigned case_idx)
{
    static struct crew crew;
    struct mem mem = mem_open(child->kind, child->socket, 512 << 20);
    unsigned n_threads = case_idx + 1;
    for (unsigned i = 0; i < n_threads; i++)
        crew.members[i] =
            (struct crew_member){.loop = churn_loops[child->kind], .arg = churn_new(i)};
    crew_start(&crew, mem, n_threads);
    crew_loop(mem, &crew, child->is_quick ? WARM_UP / 10 : WARM_UP);
    measure_steady(child, ROUNDS_THREADS, work_churn.cases[case_idx], crew_loop, mem, &crew, 1);
}

const struct workload work_churn = {
    .name = "churn",
    .about = "a server's mixture of sizes and lifetimes; per free and alloc of a thread",
    .cases = {"1 thread", "2 threads"},
    .peers = PEERS_MALLOC,
    .run = run_churn,
};

const struct workload work_churn_huge = {
    .name = "churn-huge",
    .about = "the same, with shared huge pages in Acre",
    .cases = {"1 thread", "2 threads"},
    .peers = PEERS_MALLOC,
    .fresh_daemon = true,
    .huge_pages = true,
    .run = run_churn,
};
