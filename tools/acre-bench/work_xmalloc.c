/* SPDX-License-Identifier: Apache-2.0 */
/*
 * work_xmalloc.c - one thread only allocates, another only frees, after the description of Lever
 * and Boreham's test in "malloc() performance in a multithreaded Linux environment" (2000):
 * batches of 4,096 blocks of 64 bytes, filled, go through a bounded queue under a mutex. A step is
 * a batch.
 */
#include "workload.h"

#include <pthread.h>
#include <string.h>

#include "crew.h"

#define PER_BATCH  4096u
#define BLOCK_SIZE 64u
#define QUEUED_MAX 8u

struct queue {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint64_t n_put, n_taken; /* batches; each side's own place lies between the two */
    void *batches[QUEUED_MAX][PER_BATCH];
};

/* Waits for room, or for a batch; where the next one lies. */
static void **wait_for_place(struct queue *q, bool to_put)
{
    pthread_mutex_lock(&q->lock);
    while (to_put ? q->n_put - q->n_taken == QUEUED_MAX : q->n_put == q->n_taken)
        pthread_cond_wait(&q->changed, &q->lock);
    uint64_t place = to_put ? q->n_put : q->n_taken;
    pthread_mutex_unlock(&q->lock);
    return q->batches[place % QUEUED_MAX];
}

static void pass_on(struct queue *q, uint64_t *counter)
{
    pthread_mutex_lock(&q->lock);
    ++*counter;
    pthread_cond_signal(&q->changed);
    pthread_mutex_unlock(&q->lock);
}

BENCH_INLINE void allocate(struct mem mem, enum mem_kind kind, void *arg, uint64_t n)
{
    struct queue *q = arg;
    for (uint64_t i = 0; i < n; i++) {
        void **batch = wait_for_place(q, true);
        for (unsigned k = 0; k < PER_BATCH; k++) {
            batch[k] = mem_alloc(mem, kind, BLOCK_SIZE);
            memset(batch[k], (int)k, BLOCK_SIZE);
        }
        pass_on(q, &q->n_put);
    }
}
HEAP_LOOP(allocate)

BENCH_INLINE void release(struct mem mem, enum mem_kind kind, void *arg, uint64_t n)
{
    struct queue *q = arg;
    for (uint64_t i = 0; i < n; i++) {
        void **batch = wait_for_place(q, false);
        for (unsigned k = 0; k < PER_BATCH; k++)
            mem_free(mem, kind, batch[k]);
        pass_on(q, &q->n_taken);
    }
}
HEAP_LOOP(release)

static void run_xmalloc(const struct child *child, unsigned case_idx)
{
    static struct queue q = {.lock = PTHREAD_MUTEX_INITIALIZER,
                             .changed = PTHREAD_COND_INITIALIZER};
    static struct crew crew;
    struct mem mem = mem_open(child->kind, child->socket, 256 << 20);
    crew.members[0] = (struct crew_member){.loop = allocate_loops[child->kind], .arg = &q};
    crew.members[1] = (struct crew_member){.loop = release_loops[child->kind], .arg = &q};
    crew_start(&crew, mem, 2);
    crew_loop(mem, &crew, 2 * QUEUED_MAX);
    measure_steady(child, ROUNDS_THREADS, work_xmalloc.cases[case_idx], crew_loop, mem, &crew,
                   PER_BATCH);
}

const struct workload work_xmalloc = {
    .name = "xmalloc",
    .about = "one thread allocates batches, another frees them; per block",
    .cases = {"2 threads"},
    .peers = PEERS_MALLOC,
    .run = run_xmalloc,
};
