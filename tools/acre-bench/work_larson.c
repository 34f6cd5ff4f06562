/* SPDX-License-Identifier: Apache-2.0 */
/*
 * work_larson.c - threads that replace each other, after Larson and Krishnan, "Memory allocation
 * for long-running server applications" (1998). Each of two lanes has 5,000 blocks of 8 to 1,000
 * bytes. A thread frees and allocates at random places 50,000 times, then starts its successor,
 * which goes on with the same blocks, and ends: blocks are freed by other threads than allocated
 * them. A step is one generation of both lanes.
 */
#include "workload.h"

#include <pthread.h>
#include <semaphore.h>

#include "random.h"
#include "say.h"

#define LANES       2u
#define BLOCKS      5000u
#define REPLACED    50000u
#define SIZE_LOWEST 8u
#define SIZE_RANGE  993u

struct lane {
    struct mem mem;
    void *blocks[BLOCKS];
    uint64_t seed, n_left; /* generations */
    sem_t done;
};

BENCH_INLINE void replace(struct mem mem, enum mem_kind kind, void *arg, uint64_t n)
{
    struct lane *lane = arg;
    uint64_t seed = lane->seed;
    for (uint64_t i = 0; i < n; i++) {
        void **slot = &lane->blocks[random_below(&seed, BLOCKS)];
        size_t size = SIZE_LOWEST + random_below(&seed, SIZE_RANGE);
        mem_free(mem, kind, *slot);
        *slot = mem_alloc(mem, kind, size);
        mem_touch(*slot, 1);
    }
    lane->seed = seed;
}
HEAP_LOOP(replace)

static void start(struct lane *lane);

static void *generation(void *arg)
{
    struct lane *lane = arg;
    replace_loops[lane->mem.kind](lane->mem, lane, REPLACED);
    if (--lane->n_left)
        start(lane);
    else
        sem_post(&lane->done);
    return NULL;
}

static void start(struct lane *lane)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, generation, lane) || pthread_detach(thread))
        give_up("cannot start a thread");
}

static void larson(struct mem mem, void *arg, uint64_t n)
{
    struct lane *lanes = arg;
    (void)mem;
    for (unsigned i = 0; i < LANES; i++) {
        lanes[i].n_left = n;
        start(&lanes[i]);
    }
    for (unsigned i = 0; i < LANES; i++)
        while (sem_wait(&lanes[i].done) < 0)
            ;
}

static void run_larson(const struct child *child, unsigned case_idx)
{
    static struct lane lanes[LANES];
    struct mem mem = mem_open(child->kind, child->socket, 64 << 20);
    for (unsigned i = 0; i < LANES; i++) {
        lanes[i].mem = mem;
        lanes[i].seed = i + 1;
        sem_init(&lanes[i].done, 0, 0);
    }
    larson(mem, lanes, 2);
    measure_steady(child, ROUNDS_THREADS, work_larson.cases[case_idx], larson, mem, lanes,
                   REPLACED);
}

const struct workload work_larson = {
    .name = "larson",
    .about = "threads replace each other and go on with their predecessor's blocks; per free and "
             "alloc of a thread",
    .cases = {"2 threads"},
    .peers = PEERS_MALLOC,
    .run = run_larson,
};
