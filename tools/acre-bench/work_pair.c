/* SPDX-License-Identifier: Apache-2.0 */
/*
 * work_pair.c - the shortest paths. pair: one block is allocated and freed again, over and over.
 * batch: 1,000 blocks of 64 bytes are allocated, then freed in that order, in reverse, or in a
 * random order that stays the same. Blocks of 64 KiB and more are touched, a store to each page;
 * smaller ones are not, so that the calls alone are seen.
 */
#include "workload.h"

#include "random.h"

#define BATCH      1000u
#define BATCH_SIZE 64u

BENCH_INLINE void pair(struct mem mem, enum mem_kind kind, void *arg, uint64_t n)
{
    size_t size = *(const size_t *)arg;
    for (uint64_t i = 0; i < n; i++) {
        void *block = mem_alloc(mem, kind, size);
        mem_use(block);
        mem_free(mem, kind, block);
    }
}
HEAP_LOOP(pair)

BENCH_INLINE void pair_touched(struct mem mem, enum mem_kind kind, void *arg, uint64_t n)
{
    size_t size = *(const size_t *)arg;
    for (uint64_t i = 0; i < n; i++) {
        void *block = mem_alloc(mem, kind, size);
        mem_touch(block, size);
        mem_free(mem, kind, block);
    }
}
HEAP_LOOP(pair_touched)

static void run_pair(const struct child *child, unsigned case_idx)
{
    static const size_t sizes[] = {16, 64, 256, 1024, 4096, 16384, 65536, 1 << 20};
    size_t size = sizes[case_idx];
    struct mem mem = mem_open(child->kind, child->socket, 64 << 20);
    heap_loop *const *loops = size < 65536 ? pair_loops : pair_touched_loops;
    measure_steady(child, ROUNDS_ALONE, work_pair.cases[case_idx], loops[child->kind], mem, &size,
                   1);
    mem_close(mem);
}

const struct workload work_pair = {
    .name = "pair",
    .about = "alloc and free of one block; 64 KiB and 1 MiB are touched",
    .cases = {"16 B", "64 B", "256 B", "1 KiB", "4 KiB", "16 KiB", "64 KiB", "1 MiB"},
    .peers = PEERS_MALLOC | PEER_BIT(PEER_BOOST),
    .run = run_pair,
};

struct batch {
    void *blocks[BATCH];
    uint32_t order[BATCH]; /* in which they are freed */
};

BENCH_INLINE void batch(struct mem mem, enum mem_kind kind, void *arg, uint64_t n)
{
    struct batch *b = arg;
    for (uint64_t i = 0; i < n; i++) {
        for (unsigned k = 0; k < BATCH; k++)
            b->blocks[k] = mem_alloc(mem, kind, BATCH_SIZE);
        for (unsigned k = 0; k < BATCH; k++)
            mem_free(mem, kind, b->blocks[b->order[k]]);
    }
}
HEAP_LOOP(batch)

static void shuffle(uint32_t *order, uint32_t n)
{
    uint64_t seed = 1;
    for (uint32_t i = n; i > 1; i--) {
        uint32_t k = random_below(&seed, i), one = order[i - 1];
        order[i - 1] = order[k];
        order[k] = one;
    }
}

static void run_batch(const struct child *child, unsigned case_idx)
{
    static struct batch b;
    bool reverse = case_idx == 1, any = case_idx == 2;
    for (uint32_t i = 0; i < BATCH; i++)
        b.order[i] = reverse ? BATCH - 1 - i : i;
    if (any)
        shuffle(b.order, BATCH);
    struct mem mem = mem_open(child->kind, child->socket, 64 << 20);
    measure_steady(child, ROUNDS_ALONE, work_batch.cases[case_idx], batch_loops[child->kind], mem,
                   &b, BATCH);
    mem_close(mem);
}

const struct workload work_batch = {
    .name = "batch",
    .about = "1,000 blocks of 64 B, then freed; per alloc and free",
    .cases = {"in order", "reverse", "random"},
    .peers = PEERS_MALLOC | PEER_BIT(PEER_BOOST),
    .run = run_batch,
};
