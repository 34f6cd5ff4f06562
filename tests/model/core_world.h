/* SPDX-License-Identifier: Apache-2.0 */
/*
 * core_world.h - one daemon's core after the other, and what outlives them: the descriptor store,
 * the clients' pages, the clock.
 *
 * All that happens to a core is a call. A call can be made whole, or in a child that dies at its
 * k-th store (core_trap.h), or that comes to its end and dies then; what the child has told until
 * then (to the store, to peers) has been told, what it has written into shared memory is there, and
 * the next core has to cope.
 */
#ifndef ACRE_TESTS_CORE_WORLD_H
#define ACRE_TESTS_CORE_WORLD_H

#include "daemon/kept.h"
#include "daemon/store.h"
#include "daemon/tenant.h"
#include "tests/unit/fake_core.h"

#define WORLD_TENANTS 3u
#define WORLD_JOBS    512u
#define WORLD_KEPT    1024u
#define SECOND        1000000000ull

enum call_kind {
    CALL_REQUEST, /* of a peer, which connects first if it is new */
    CALL_HANGUP,
    CALL_WORK, /* a job's part in the worker */
    CALL_DONE, /* its part in the loop, after the other */
    CALL_TICK,
    CALL_RESTORE, /* a new core takes over; whole only if the one before has gone */
    CALL_KINDS
};

struct call {
    enum call_kind kind;
    struct fake *fake;
    bool is_new;
    struct msg_request req;
    int fd; /* with the request; the call's */
    uint32_t job;
};

struct world_job {
    struct job *job;
    bool has_worked;
};

struct world {
    struct core core;
    bool is_up;
    uint64_t now_ns, capacity_bytes;
    struct tenant_wish wishes[WORLD_TENANTS];
    struct world_job jobs[WORLD_JOBS];
    uint32_t n_jobs;
    struct store_item kept[WORLD_KEPT];
    uint32_t n_kept;
    uint32_t n_deaths, n_kills, n_events; /* n_kills: of these deaths in the middle of a call */
};

extern struct world world;
extern const char *const world_names[WORLD_TENANTS];

/* With a core that has never been another. capacity and wishes are set. */
void world_begin(void);
/* No sessions, no jobs. */
void world_end(void);

void world_call(const struct call *call);
/* The core dies at the k-th event of the call, or after it. Sessions and jobs are no more. Returns
 * how many events there were; at least k: it was killed. */
uint32_t world_call_killed(const struct call *call, uint32_t k);
/* The core dies between two calls. */
void world_die(void);

/* NULL: there is no core. */
struct tenant *world_tenant(uint32_t i);
/* What a kept descriptor is, or -1. Its owner is the store. */
int world_kept(struct kept kept);
/* The number of a tenant's heap according to the kept books, whose descriptor this is; -1: there is
 * none. */
int world_books(uint32_t i, uint32_t *ret_heap_no);

#endif
