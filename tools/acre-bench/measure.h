/* SPDX-License-Identifier: Apache-2.0 */
/* measure.h - in a child: clocks, the processor's counter, and the result on its way to the
 * parent. */
#ifndef BENCH_MEASURE_H
#define BENCH_MEASURE_H

#include <stdbool.h>
#include <stdint.h>

#include "peers.h"

struct child {
    enum peer_idx peer;
    enum mem_kind kind;
    const char *socket;
    bool is_quick;
};

/* CLOCK_MONOTONIC in ns. */
uint64_t now_ns(void);

/* Sorts the values. */
double median_of(double *values, unsigned n);

/* Tells the parent one figure. instructions < 0: not counted. */
void report(const char *metric, const char *unit, double value, double instructions);

/*
 * The cost of one step of a load that can go on for ever: finds how many steps take a round, runs
 * the rounds, and reports the median round. What comes before the first is warm-up. ops: a step's
 * operations.
 *
 * Rounds are many and shorter than the scheduler's slices (3 ms), so that on a busy machine most of
 * them are not interrupted; but rounds of several threads begin and end with wake-ups of 50 us,
 * which they must be long enough to hide.
 */
struct rounds {
    unsigned n;
    uint64_t ns;
};
#define ROUNDS_ALONE   ((struct rounds){31, 1000000})
#define ROUNDS_THREADS ((struct rounds){9, 6000000})
#define ROUNDS_N_MAX   31

void measure_steady(const struct child *child, struct rounds rounds, const char *metric,
                    heap_loop *loop, struct mem mem, void *arg, double ops);

/* The processor's count of this process's own instructions, threads included; < 0: no counter. */
struct counter {
    int fd;
};
struct counter counter_open(void);
double counter_read(const struct counter *counter);
void counter_close(struct counter *counter);

/* After attaching, for loads about fresh memory: until Acre's daemon has prepared as much as it is
 * to keep ready, some seconds at most. */
void settle(const struct child *child);

/* Pins the calling thread to the n-th processor that this process may use; nothing if there are
 * fewer. */
void pin_to(unsigned n);

#endif
