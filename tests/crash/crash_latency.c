/* SPDX-License-Identifier: Apache-2.0 */
/* ctest-timeout: 120 */
/*
 * How long does a death hold memory back? A client owns all of a heap of MAX_MIB and is killed; the
 * survivor asks for a megabyte until it gets one, a little pause between. Printed: the median time
 * from SIGKILL to that megabyte; from SIGKILL to the hang-up of a socket that the victim had, which
 * is the kernel's part: it takes the victim's mappings apart first; and, of other rounds in which a
 * thread watches it, what the sweep took for how much owner map. Asserted: that the memory comes,
 * and that all comes back.
 *
 * Usage: crash-latency [ROUNDS [thp]]    thp: huge pages, if the system allows them
 */
#include "proto/wire.h"
#include "tests/crash/stage.h"

#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <time.h>

#define MAX_MIB        64u
#define ROUNDS_DEFAULT 5u
#define ROUNDS_MAX     200u
#define WAIT_NS        20000000000ull
#define PAUSE_US       20u

static struct world world;
static struct nursery nursery;
static int ends[2]; /* of a socket: victims send by the second one */

/* The nursery has the one that is to be sent; what is received is the driver's copy of a new pair's
 * other end. */
static bool send_own_end(void)
{
    int pair[2];
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
    CHECK(wire_send(ends[1], "end", 3, pair[1]) == 0);
    return close(pair[1]) == 0; /* and pair[0] ends with this process */
}

static int take_end(void)
{
    char buf[WIRE_PACKET_MAX];
    size_t n;
    int fd = -1;
    return wire_recv(ends[0], buf, &n, &fd) < 0 ? -1 : fd;
}

/* How much a victim has: its blocks' number is told in handed[0]. */
static bool own_all(size_t size)
{
    struct acre_heap *heap;
    acre_off n = 0;

    CHECK(acre_open(&heap, stage->socket, WORLD_TENANT) == 0);
    for (char *block; (block = acre_alloc(heap, size)); n++)
        *block = 1;
    stage->handed[0] = n;
    CHECK(send_own_end());
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

enum what { BACK, HANGUP, SWEEP, WHATS };

struct times {
    uint64_t ns[WHATS][ROUNDS_MAX], n_blocks;
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

static void wait_hangup(int sock)
{
    struct pollfd p = {.fd = sock};

    (void)poll(&p, 1, (int)(WAIT_NS / 1000000));
}

static bool one_round(struct times *t, enum what what)
{
    pthread_t watcher;
    uint64_t *ret_ns = &t->ns[what][t->n];
    void *block = NULL;

    stage->tid = 0;
    pid_t pid = nursery_fork(&nursery);
    CHECK(pid > 0);
    if (!wait_owner())
        return false;
    int sock = take_end();
    CHECK(sock >= 0 && !acre_alloc(world.heap, 1 << 20) && errno == ENOMEM);
    CHECK(what != SWEEP || pthread_create(&watcher, NULL, watch_sweep, ret_ns) == 0);
    uint64_t from_ns = now_ns();
    CHECK(kill(pid, SIGKILL) == 0);
    if (what == HANGUP) {
        wait_hangup(sock);
        *ret_ns = now_ns() - from_ns;
    }
    while (!(block = acre_alloc(world.heap, 1 << 20)) && now_ns() - from_ns < WAIT_NS)
        usleep(PAUSE_US);
    if (what == BACK)
        *ret_ns = now_ns() - from_ns;
    CHECK(block);
    CHECK(what != SWEEP || pthread_join(watcher, NULL) == 0);
    close(sock);
    acre_free(world.heap, block);
    t->n_blocks = stage->handed[0];
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
    for (; t.n < n_rounds; t.n++)
        for (enum what what = BACK; what < WHATS; what++)
            if (!one_round(&t, what))
                return false;
    double back_ms = (double)median(t.ns[BACK], t.n) / 1e6;
    double hangup_ms = (double)median(t.ns[HANGUP], t.n) / 1e6;
    double sweep_ms = (double)median(t.ns[SWEEP], t.n) / 1e6;
    double map_kb = (double)t.n_blocks * sizeof(tag_t) / 1e3;
    printf("%8llu blocks of %7zu bytes: back after %6.2f ms; hang-up after %6.2f ms; ",
           (unsigned long long)t.n_blocks, size, back_ms, hangup_ms);
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
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
        return 1;
    nursery_start(&nursery, victim);
    bool ok = world_up(&world, MAX_MIB, argc > 2 ? argv[2] : "4k");
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
