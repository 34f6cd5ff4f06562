/* SPDX-License-Identifier: Apache-2.0 */
/*
 * work_sh.c - after what is published about MicroQuill's sh6bench and sh8bench: sizes from 1 to
 * 1,000 bytes, small ones much more often; some blocks are freed last-allocated-first, others in
 * the order of allocation; in sh8 some are freed by another thread than allocated them.
 *
 * Here: a buffer of 5,000 pointers is filled up, 5,000 allocations at the first time, 4,000 later.
 * Then a fifth of it, another one each time, is kept; what lies above is freed from the end, what
 * lies below from the beginning. In sh8 each of two threads instead hands two fifths to the other,
 * which frees them in order, and frees three fifths itself from the end. A step is one filling.
 */
#include "workload.h"

#include <pthread.h>
#include <string.h>

#include "crew.h"
#include "random.h"

#define BUFFER     5000u
#define FIFTH      (BUFFER / 5)
#define SIZES      8192u
#define QUEUED_MAX 4u

/* Buffers on their way to one thread. */
struct inbox {
    pthread_mutex_t lock;
    unsigned n;
    void *buffers[QUEUED_MAX][2 * FIFTH];
};

struct filler {
    void *blocks[BUFFER], *foreign[2 * FIFTH];
    unsigned kept; /* where the kept fifth begins */
    unsigned at;   /* in sizes */
    uint16_t sizes[SIZES];
    struct inbox inbox, *outbox;
};

/* Half of all up to 32 bytes, a quarter up to 125, the rest evenly up to 1,000. */
static void draw_sizes(struct filler *f, uint64_t seed)
{
    for (unsigned i = 0; i < SIZES; i++) {
        uint32_t which = random_below(&seed, 4);
        uint32_t most = which < 2 ? 32 : which == 2 ? 125 : 1000;
        f->sizes[i] = (uint16_t)(1 + random_below(&seed, most));
    }
}

BENCH_INLINE void fill(struct mem mem, enum mem_kind kind, struct filler *f)
{
    for (unsigned i = 0; i < BUFFER; i++) {
        if (f->blocks[i])
            continue;
        unsigned size = f->sizes[f->at++ % SIZES];
        f->blocks[i] = mem_alloc(mem, kind, size);
        memset(f->blocks[i], 0, size < 8 ? 1 : 8);
    }
}

BENCH_INLINE void drop(struct mem mem, enum mem_kind kind, void **slot)
{
    mem_free(mem, kind, *slot);
    *slot = NULL;
}

BENCH_INLINE void sh6(struct mem mem, enum mem_kind kind, void *arg, uint64_t n)
{
    struct filler *f = arg;
    for (uint64_t step = 0; step < n; step++) {
        fill(mem, kind, f);
        f->kept = (f->kept + FIFTH) % BUFFER;
        for (unsigned i = BUFFER; i > f->kept + FIFTH; i--)
            drop(mem, kind, &f->blocks[i - 1]);
        for (unsigned i = 0; i < f->kept; i++)
            drop(mem, kind, &f->blocks[i]);
    }
}
HEAP_LOOP(sh6)

/* Copies out the oldest buffer that has come in; false: none. */
static bool take_in(struct inbox *inbox, void **buffer)
{
    pthread_mutex_lock(&inbox->lock);
    bool any = inbox->n > 0;
    if (any) {
        memcpy(buffer, inbox->buffers[0], sizeof(inbox->buffers[0]));
        inbox->n--;
        memmove(inbox->buffers[0], inbox->buffers[1], inbox->n * sizeof(inbox->buffers[0]));
    }
    pthread_mutex_unlock(&inbox->lock);
    return any;
}

/* false: the other thread is far behind. */
static bool send_out(struct inbox *outbox, void **buffer)
{
    pthread_mutex_lock(&outbox->lock);
    bool fits = outbox->n < QUEUED_MAX;
    if (fits)
        memcpy(outbox->buffers[outbox->n++], buffer, sizeof(outbox->buffers[0]));
    pthread_mutex_unlock(&outbox->lock);
    return fits;
}

BENCH_INLINE void sh8(struct mem mem, enum mem_kind kind, void *arg, uint64_t n)
{
    struct filler *f = arg;
    for (uint64_t step = 0; step < n; step++) {
        fill(mem, kind, f);
        for (unsigned i = BUFFER; i > 2 * FIFTH; i--)
            drop(mem, kind, &f->blocks[i - 1]);
        if (send_out(f->outbox, f->blocks))
            memset(f->blocks, 0, 2 * FIFTH * sizeof(f->blocks[0]));
        while (take_in(&f->inbox, f->foreign))
            for (unsigned i = 0; i < 2 * FIFTH; i++)
                drop(mem, kind, &f->foreign[i]);
    }
}
HEAP_LOOP(sh8)

static struct filler fillers[2];

static void set_up(void)
{
    for (unsigned i = 0; i < 2; i++) {
        draw_sizes(&fillers[i], i + 1);
        pthread_mutex_init(&fillers[i].inbox.lock, NULL);
        fillers[i].outbox = &fillers[1 - i].inbox;
    }
}

static void run_sh6(const struct child *child, unsigned case_idx)
{
    struct mem mem = mem_open(child->kind, child->socket, 64 << 20);
    set_up();
    sh6_loops[child->kind](mem, &fillers[0], 20);
    measure_steady(child, ROUNDS_ALONE, work_sh6.cases[case_idx], sh6_loops[child->kind], mem,
                   &fillers[0], BUFFER - FIFTH);
}

static void run_sh8(const struct child *child, unsigned case_idx)
{
    static struct crew crew;
    struct mem mem = mem_open(child->kind, child->socket, 64 << 20);
    set_up();
    for (unsigned i = 0; i < 2; i++)
        crew.members[i] = (struct crew_member){.loop = sh8_loops[child->kind], .arg = &fillers[i]};
    crew_start(&crew, mem, 2);
    crew_loop(mem, &crew, 20);
    measure_steady(child, ROUNDS_THREADS, work_sh8.cases[case_idx], crew_loop, mem, &crew, BUFFER);
}

const struct workload work_sh6 = {
    .name = "sh6",
    .about = "buffers of small blocks, freed in both orders; per alloc and free",
    .cases = {"1 thread"},
    .peers = PEERS_MALLOC,
    .run = run_sh6,
};

const struct workload work_sh8 = {
    .name = "sh8",
    .about = "the same in two threads that free each other's blocks; per alloc and free of a "
             "thread",
    .cases = {"2 threads"},
    .peers = PEERS_MALLOC,
    .run = run_sh8,
};
