/* SPDX-License-Identifier: Apache-2.0 */
/*
 * work_soft.c - soft memory. What a use costs: pin and unpin one of a thousand blocks. How fast
 * 1 GiB comes back: a tenant that is full of soft blocks, each written and used once, gets 1 GiB of
 * other blocks, of 1 MiB each; and one that has 2 GiB of them in a process that sleeps in poll()
 * loses a half of it to another tenant, which asks for 1 GiB in blocks of 16 MiB.
 */
#include "workload.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "random.h"
#include "say.h"

#define MIB(n) ((size_t)(n) << 20)
#define PINNED 1024u
#define PINS_N 1000000u
#define FULL   MIB(1100) /* of 1200: see daemon.c */
#define BACK   MIB(1024)
#define OTHERS  MIB(16)
#define LOSES  MIB(2048)

static struct acre_heap *open_tenant(const struct child *child, const char *tenant)
{
    struct acre_heap *heap;
    if (acre_open(&heap, child->socket, tenant))
        give_up("cannot open %s: %s", tenant, acre_last_error());
    return heap;
}

static void *take(void *block)
{
    if (!block)
        give_up("no memory: %s", acre_last_error());
    return block;
}

static acre_soft put(struct acre_heap *heap, size_t size)
{
    void *block = take(acre_allocx(heap, size, 0, ACRE_SOFT | ACRE_HEAP_OWNED));
    acre_soft name = acre_soft_of(heap, block);
    memset(block, 1, size);
    acre_unpin(heap, block);
    return name;
}

static void time_pins(const struct child *child, const char *metric)
{
    static acre_soft names[PINNED];
    struct acre_heap *heap = open_tenant(child, "soft/one");
    uint64_t rng = 1, n = child->is_quick ? PINS_N / 100 : PINS_N;
    for (unsigned i = 0; i < PINNED; i++)
        names[i] = put(heap, 4096);
    uint64_t begin = now_ns();
    for (uint64_t i = 0; i < n; i++)
        acre_unpin(heap, take(acre_pin(heap, names[random_next(&rng) % PINNED])));
    report(metric, "ns", (double)(now_ns() - begin) / (double)n, -1);
    acre_close(heap);
}

static void time_own(const struct child *child, const char *metric, size_t size)
{
    struct acre_heap *heap = open_tenant(child, "soft/one");
    for (size_t sum = 0; sum < FULL; sum += size)
        (void)put(heap, size);
    uint64_t begin = now_ns();
    for (size_t sum = 0; sum < BACK; sum += MIB(1))
        (void)take(acre_alloc(heap, MIB(1)));
    report(metric, "ms", (double)(now_ns() - begin) / 1e6, -1);
    acre_close(heap);
}

static _Noreturn void be_cache(const struct child *child, const int is_full[2])
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    struct acre_heap *heap = open_tenant(child, "soft/cache");
    for (size_t sum = 0; sum < LOSES; sum += MIB(1) / 16)
        (void)put(heap, MIB(1) / 16);
    struct pollfd fd = {.fd = acre_fd(heap), .events = POLLIN};
    if (write(is_full[1], "", 1) != 1)
        _exit(1);
    while (poll(&fd, 1, -1) >= 0)
        (void)acre_dispatch(heap);
    _exit(0);
}

static void time_others(const struct child *child, const char *metric)
{
    int is_full[2];
    char c;
    if (pipe(is_full) < 0)
        give_up("no pipe");
    pid_t pid = fork();
    if (pid == 0)
        be_cache(child, is_full);
    close(is_full[1]);
    if (pid < 0 || read(is_full[0], &c, 1) != 1)
        give_up("no process with a cache");
    struct acre_heap *heap = open_tenant(child, "soft/other");
    uint64_t begin = now_ns();
    for (size_t sum = 0; sum < BACK; sum += OTHERS)
        (void)take(acre_alloc_wait(heap, OTHERS, 20000));
    report(metric, "ms", (double)(now_ns() - begin) / 1e6, -1);
    acre_close(heap);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static void run_soft(const struct child *child, unsigned case_idx)
{
    static const size_t sizes[] = {0, 8192, MIB(1) / 16, MIB(1)};
    const char *metric = work_soft.cases[case_idx];
    if (case_idx == 0)
        time_pins(child, metric);
    else if (case_idx < 4)
        time_own(child, metric, sizes[case_idx]);
    else
        time_others(child, metric);
}

const struct workload work_soft = {
    .name = "soft",
    .about = "pin and unpin a soft block; until 1 GiB of them has come back",
    .cases = {"pin, unpin", "1 GiB of 8 KiB", "1 GiB of 64 KiB", "1 GiB of 1 MiB",
              "1 GiB, another's"},
    .fresh_daemon = true,
    .run = run_soft,
};
