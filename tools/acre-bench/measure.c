/* SPDX-License-Identifier: Apache-2.0 */
#include "measure.h"

#include <assert.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "resident.h"
#include "say.h"

#define WARM_UP      5        /* rounds */
#define SETTLE_NS    10000000 /* between two looks */
#define SETTLE_LOOKS 500

uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void report(const char *metric, const char *unit, double value, double instructions)
{
    printf("%s\t%s\t%.9g\t%.9g\n", metric, unit, value, instructions);
}

struct counter counter_open(void)
{
    struct perf_event_attr attr = {.type = PERF_TYPE_HARDWARE,
                                   .size = sizeof(attr),
                                   .config = PERF_COUNT_HW_INSTRUCTIONS,
                                   .exclude_kernel = 1,
                                   .exclude_hv = 1,
                                   .inherit = 1};
    long fd = syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
    return (struct counter){(int)fd};
}

double counter_read(const struct counter *counter)
{
    uint64_t count;
    if (counter->fd < 0 || read(counter->fd, &count, sizeof(count)) != (ssize_t)sizeof(count))
        return -1;
    return (double)count;
}

void counter_close(struct counter *counter)
{
    if (counter->fd >= 0)
        close(counter->fd);
}

void pin_to(unsigned n)
{
    cpu_set_t allowed, one;
    CPU_ZERO(&one);
    if (sched_getaffinity(0, sizeof(allowed), &allowed) < 0)
        return;
    for (unsigned cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &allowed) || n-- > 0)
            continue;
        CPU_SET(cpu, &one);
        sched_setaffinity(0, sizeof(one), &one);
        return;
    }
}

void settle(const struct child *child)
{
    struct timespec pause = {.tv_nsec = SETTLE_NS};
    for (unsigned i = 0; child->kind == MEM_ACRE && i < SETTLE_LOOKS; i++) {
        if (resident_is_prepared(child))
            return;
        nanosleep(&pause, NULL);
    }
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double median_of(double *values, unsigned n)
{
    qsort(values, n, sizeof(*values), compare);
    return values[n / 2];
}

/* The shortest of three, as the first steps meet empty caches and the daemon, and any may be
 * interrupted: a round must not be too short because of that. */
static uint64_t shortest_ns(heap_loop *loop, struct mem mem, void *arg, uint64_t n)
{
    uint64_t least = UINT64_MAX;
    for (unsigned i = 0; i < 3; i++) {
        uint64_t begin = now_ns();
        loop(mem, arg, n);
        uint64_t ns = now_ns() - begin;
        least = ns < least ? ns : least;
    }
    return least;
}

static uint64_t steps_for(heap_loop *loop, struct mem mem, void *arg, uint64_t wanted_ns)
{
    for (uint64_t n = 1;; n *= 2) {
        uint64_t ns = shortest_ns(loop, mem, arg, n);
        if (ns >= wanted_ns / 2)
            return n * wanted_ns / (ns + 1) + 1;
    }
}

void measure_steady(const struct child *child, struct rounds rounds, const char *metric,
                    heap_loop *loop, struct mem mem, void *arg, double ops)
{
    double ns[ROUNDS_N_MAX], instructions[ROUNDS_N_MAX];
    assert(rounds.n <= ROUNDS_N_MAX);
    uint64_t n = steps_for(loop, mem, arg, child->is_quick ? rounds.ns / 4 : rounds.ns);
    loop(mem, arg, child->is_quick ? n : n * WARM_UP);
    struct counter counter = counter_open();
    for (unsigned i = 0; i < rounds.n; i++) {
        double count = counter_read(&counter);
        uint64_t begin = now_ns();
        loop(mem, arg, n);
        ns[i] = (double)(now_ns() - begin) / ((double)n * ops);
        instructions[i] = (counter_read(&counter) - count) / ((double)n * ops);
    }
    double median = median_of(ns, rounds.n), counted = median_of(instructions, rounds.n);
    report(metric, "ns", median, counter.fd < 0 ? -1 : counted);
    counter_close(&counter);
}
