/* SPDX-License-Identifier: Apache-2.0 */
/* soak.h - what the processes of hostile_soak.c share, and those of them that mean well. */
#ifndef ACRE_TESTS_SOAK_H
#define ACRE_TESTS_SOAK_H

#include "tests/misuse/hostile.h"

#define SOAK_GOODS  2u
#define SOAK_SLOTS  256u
#define SOAK_BUSY   32u
#define LATE_NS     10000000u
#define BUSY_NS     5000000u
#define TIMES_STEPS 16u /* to a doubling: 6 % */
#define TIMES_MAX   (40u * TIMES_STEPS)

/* How long something took, so many times. */
struct times {
    uint64_t n, n_late, max_ns;
    uint32_t counts[TIMES_MAX];
};
void times_add(struct times *times, uint64_t ns);
/* At most so much for this share of all, in [0, 1]. */
double times_ms(const struct times *times, double share);

/* A request that took longer than BUSY_NS without what its two ends waited for a CPU. */
struct soak_busy {
    uint64_t at_ns, took_ns;
    uint64_t loop_ran_ns, loop_waited_ns, probe_waited_ns; /* meanwhile */
    bool is_status;
};

struct soak_worker {
    uint32_t is_held, has_failed;
    uint64_t held_bytes, n_rounds; /* while it is held: its own live bytes; or granted ones */
};

struct soak {
    pid_t worker; /* the daemon's */
    uint32_t stop, hold;
    uint64_t seed, began_ns;
    struct soak_worker goods[SOAK_GOODS], probe;
    uint64_t board[SOAK_SLOTS], board_bytes;
    struct times raw, own, echo; /* of the probe's requests; of two processes without a daemon */
    uint32_t n_busy;
    struct soak_busy busy[SOAK_BUSY];
    uint64_t n_deaths;
    struct hostile_orders orders;
};
static_assert(sizeof(struct soak) <= 65536, "shared_page()");

extern struct soak *soak;

/* Until soak->stop; held as long as soak->hold. */
bool soak_good(void *arg); /* its struct soak_worker */
bool soak_probe(void *arg);
bool soak_echo(void *arg);
/* Not killed by the alarm of child_start(). */
pid_t soak_start(bool (*fn)(void *arg), void *arg);
/* True: it was held, and begins again. */
bool soak_is_held(struct soak_worker *worker, uint64_t held_bytes);

#endif
