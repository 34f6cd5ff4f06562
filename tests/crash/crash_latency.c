/* SPDX-License-Identifier: Apache-2.0 */
/* ctest-timeout: 120 */
/*
 * How long does a death hold memory back? A client owns all of a heap of MAX_MIB and is killed; the
 * survivor asks for a megabyte until it gets one. Printed: the median time from SIGKILL to that
 * megabyte, and what the sweep took for how much owner map. Asserted: that it comes, and that all
 * comes back.
 *
 * Usage: crash-latency [ROUNDS]
 */
#include "tests/crash/stage.h"

#include <pthread.h>
#include <time.h>

#define MAX_MIB        64u
#define ROUNDS_DEFAULT 5u
#define ROUNDS_MAX     200u
#define WAIT_NS        20000000000ull

static struct world world;
static struct nursery nursery;

/* How much a victim has: its blocks' number is told in handed[0]. */
static bool own_all(size_t size)
{
    struct acre_heap *heap;
    acre_off n = 0;

    CHECK(acre_open(&heap, stage->socket, WORLD_TENANT) == 0);
    for (char *block; (block = acre_alloc(heap, size)); n++)
        *block = 1;
    stage->handed[0] = n;
    __atomic_store_n(&stage->tid, 1, __ATOMIC_RELEASE);
    for (;;)
        pause();
}

static void victim(void)
{
    if (!own_all(stage->op))
        __atomic_store_n(&stage->has_failed, 1, __ATOMIC_RELEASE);
}

static uint64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

/* From an even sweep_seq over an odd one to the next even one, as a spinning thread sees it. */
static void *watch_sweep(void *arg)
{
    const uint32_t *seq = &world.control->header.sweep_seq;
    uint32_t before = __atomic_load_n(seq, __ATOMIC_ACQUIRE);
    uint64_t from_ns = now_ns(), odd_ns = 0;

    while (now_ns() - from_ns < WAIT_NS) {
        uint32_t now = __atomic_load_n(seq, __ATOMIC_ACQUIRE);
        if (now - before >= 2)
            break;
        if (now != before && odd_ns == 0)
            odd_ns = now_ns();
    }
    *(uint64_t *)arg = odd_ns ? now_ns() - odd_ns : 0;
    return NULL;
}

struct times {
    uint64_t back_ns[ROUNDS_MAX], sweep_ns[ROUNDS_MAX], n_blocks;
    unsigned n;
};

static bool wait_owner(void)
{
    uint64_t from_ns = now_ns();

    while (!__atomic_load_n(&stage->tid, __ATOMIC_ACQUIRE)) {
        CHECK(!stage->has_failed && now_ns() - from_ns < 3 * WAIT_NS);
        usleep(1000);
    }
    return true;
}

static bool one_round(struct times *t)
{
    pthread_t watcher;

    stage->tid = 0;
    pid_t pid = nursery_fork(&nursery);
    CHECK(pid > 0);
    if (!wait_owner())
        return false;
    CHECK(!acre_alloc(world.heap, 1 << 20) && errno == ENOMEM);
    CHECK(pthread_create(&watcher, NULL, watch_sweep, &t->sweep_ns[t->n]) == 0);
    uint64_t from_ns = now_ns();
    void *block = NULL;
    CHECK(kill(pid, SIGKILL) == 0);
    while (!(block = acre_alloc(world.heap, 1 << 20)) && now_ns() - from_ns < WAIT_NS)
        ;
    t->back_ns[t->n] = now_ns() - from_ns;
    CHECK(block);
    CHECK(pthread_join(watcher, NULL) == 0);
    acre_free(world.heap, block);
    t->n_blocks = stage->handed[0];
    t->n++;
    return world_settle(&world) && world_check(&world);
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static uint64_t median(uint64_t *values, unsigned n)
{
    qsort(values, n, sizeof(*values), by_value);
    return values[n / 2];
}

static bool measure(size_t size, unsigned n_rounds)
{
    struct times t = {.n = 0};

    stage->op = (unsigned)size;
    while (t.n < n_rounds)
        if (!one_round(&t))
            return false;
    double back_ms = (double)median(t.back_ns, t.n) / 1e6;
    double sweep_ms = (double)median(t.sweep_ns, t.n) / 1e6;
    double map_kb = (double)t.n_blocks * sizeof(tag_t) / 1e3;
    printf("%8llu blocks of %7zu bytes: back after %6.2f ms; ", (unsigned long long)t.n_blocks,
           size, back_ms);
    if (sweep_ms > 0)
        printf("sweep %6.2f ms for %7.1f KB of owner map, %.1f ns a block\n", sweep_ms, map_kb,
               sweep_ms * 1e6 / (double)t.n_blocks);
    else
        printf("the sweep was too short to be seen\n");
    return true;
}

int main(int argc, char **argv)
{
    static const size_t sizes[] = {16, 256, 4096, 65536, 1 << 20};
    unsigned n_rounds = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 0) : ROUNDS_DEFAULT;

    n_rounds = MIN(MAX(n_rounds, 1u), ROUNDS_MAX);
    stage = shared_page(sizeof(*stage));
    nursery_start(&nursery, victim);
    bool ok = world_up(&world, MAX_MIB);
    memcpy(stage->socket, world.daemon.socket, sizeof(stage->socket));
    for (unsigned i = 0; ok && i < ARRAY_LEN(sizes); i++)
        ok = measure(sizes[i], n_rounds);
    ok = ok && world_is_full_size(&world) && world_check(&world) && world_down(&world);
    if (!ok) {
        fprintf(stderr, "FAILED: %s\n", world.why[0] ? world.why : "see above");
        world_abandon(&world);
    }
    nursery_stop(&nursery);
    return !ok;
}
