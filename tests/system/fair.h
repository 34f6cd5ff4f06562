/* SPDX-License-Identifier: Apache-2.0 */
/* fair.h - what the parts of test_fair.c tell each other: tenants and their limits, the clients at
 * work on them (fair_crew.c), and the observer (fair_watch.c). */
#ifndef ACRE_TESTS_FAIR_H
#define ACRE_TESTS_FAIR_H

#include <inttypes.h>
#include <stdatomic.h>
#include <time.h>

#include "shm/layout.h"
#include "tests/system/harness.h"
#include "tests/unit/fair_share.h"
#include "tests/unit/fair_share.h"

#define FAIR_TENANTS_MAX 200u
#define FAIR_GROUPS_MAX  10u
#define FAIR_CLIENTS     2u /* of a tenant, at most */
#define FAIR_BLOCK_BYTES (256ull << 10)
#define FAIR_SLACK_BYTES ((64ull << 10) + FAIR_BLOCK_BYTES) /* no segment is smaller; and a block */

/* One process, in memory that it shares with the driver. What is counted is so over all deaths. */
struct fair_client {
    /* Said to it. */
    _Atomic uint64_t wanted_bytes;
    _Atomic bool is_to_sleep, is_to_end;
    /* Said by it. */
    _Atomic bool is_ready, is_asleep;
    _Atomic uint64_t held_bytes, n_turns, n_refused, n_given, n_unanswered;
};

struct fair_tenant {
    struct fair_node *node;
    uint32_t n_clients;
    bool is_mixed; /* blocks of all sizes */
    struct fair_client *clients;
    const struct control *control;
    uint64_t asleep_bytes; /* what it had when one fell asleep */
};

struct fair {
    uint64_t capacity_bytes;
    uint32_t n_tenants, n_groups;
    struct fair_node nodes[FAIR_GROUPS_MAX + FAIR_TENANTS_MAX]; /* groups first */
    struct fair_tenant tenants[FAIR_TENANTS_MAX];
    unsigned n_failed;
};
extern struct fair fair;

/* Says what is wrong, and goes on. */
__attribute__((format(printf, 1, 2))) void fair_fail(const char *format, ...);

/* A client's life; arg is a struct fair_work. */
struct fair_work {
    struct fair_tenant *tenant;
    struct fair_client *self;
    uint64_t seed;
};
bool fair_work(void *arg);

/* From now on the observer looks; all tenants have had a client. */
void fair_watch_begin(void);
/* What must be so at every moment. Called often. limits_seq: of changes of limits; odd: while they
 * change. */
void fair_watch(uint32_t limits_seq);
/* How often that was seen. */
uint64_t fair_n_watched(void);

static inline uint64_t fair_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

#endif
