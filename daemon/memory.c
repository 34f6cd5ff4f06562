/* SPDX-License-Identifier: Apache-2.0 */
/* memory.c - requests for memory: granted, refused, or waiting for what may come back. See
 * memory.h. */
#include "daemon/memory.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#include "daemon/grant.h"
#include "daemon/prepare.h"
#include "daemon/room.h"
#include "daemon/search.h"
#include "daemon/session.h"
#include "daemon/tenant.h"
#include "daemon/ticket.h"

#define KIB_PER_UNIT       ((uint64_t)(UNIT_BYTES / 1024))
#define WAKES_MAX          16u /* of a tenant in one turn: the first fit in a fragmented heap is 0.5 ms */
#define RELEASE_STEPS      ((uint32_t)SLOT_UNITS)             /* units in one turn: 0.5 ms */
#define POPULATE_UNITS_MAX ((uint32_t)(MIB(16) / UNIT_BYTES)) /* 15 ms */

static void reply_grant(struct core *core, struct session *s, const struct grant *g)
{
    struct msg_reply reply;
    reply_of(&reply, MSG_GROW);
    reply.grow.run = (struct msg_run){seg_off(g->seg, g->unit), g->n_units};
    reply.grow.slab = g->slab;
    reply.grow.head_slot = g->seg->slot;
    reply.grow.prepared = g->prepared;
    session_reply(core, s, &reply, -1);
}

/* The client's cgroup would pay for pages that it touches first, and be killed at its limit: so
 * they are there before it knows. A tenant's grants take turns in one worker, some pages each: a
 * large one delays neither the small ones nor the other tenants. */
struct populate_job {
    struct job job;
    TAILQ_ENTRY(populate_job) in_queue;
    struct tenant *tenant;
    uint64_t client; /* handle: it may be gone when the job is done */
    struct session *session;
    struct grant grant;
    bool huge;       /* pages */
    uint32_t n_done; /* units */
    int fd, error;
};

static void populate_work(struct job *job)
{
    struct populate_job *j = (struct populate_job *)job;
    uint32_t n = MIN(j->grant.n_units - j->n_done, POPULATE_UNITS_MAX);
    uint32_t unit = j->grant.unit + j->n_done;
    if (j->huge) /* fallocate() asks for none */
        j->error = prepare_pages(j->fd, unit, n, true);
    else if (fallocate(j->fd, 0, (off_t)unit << UNIT_SHIFT, (off_t)n << UNIT_SHIFT) < 0)
        j->error = -errno;
    j->n_done += n;
}

static void pump_populates(struct tenant *t)
{
    struct populate_job *j = TAILQ_FIRST(&t->populates);
    if (!j)
        return;
    t->n_jobs++;
    core_submit(t->core, &j->job);
}

/* Its pages are there, or cannot be had, or nobody waits for them any more. */
static void finish_populate(struct core *core, struct populate_job *j, struct client *c,
                            struct session *s)
{
    if (c && j->error < 0)
        grant_undo(j->tenant, c, &j->grant);
    if (s && j->error < 0)
        session_fail(core, s, -ENOMEM, "the machine cannot back %u units: %s", j->grant.n_units,
                     strerror(-j->error));
    else if (s)
        reply_grant(core, s, &j->grant);
    free(j);
}

static void populate_done(struct core *core, struct job *job)
{
    struct populate_job *j = (struct populate_job *)job;
    struct tenant *t = j->tenant;
    struct client *c = client_find(t, j->client);
    struct session *s = c ? c->session : NULL;
    bool is_wanted = s && s == j->session && s->wait == WAIT_POPULATE;
    t->n_jobs--;
    TAILQ_REMOVE(&t->populates, j, in_queue);
    if (is_wanted && j->error == 0 && j->n_done < j->grant.n_units)
        TAILQ_INSERT_TAIL(&t->populates, j, in_queue);
    else
        finish_populate(core, j, c, is_wanted ? s : NULL);
    while (core->is_stopping && (j = TAILQ_FIRST(&t->populates))) {
        TAILQ_REMOVE(&t->populates, j, in_queue);
        free(j);
    }
    pump_populates(t);
    prepare_pump(t);
}

static bool populate(struct core *core, struct session *s, const struct grant *g)
{
    struct populate_job *j = calloc(1, sizeof(*j));
    struct client *c = s->client;
    struct tenant *t = c->tenant;
    bool is_first = TAILQ_EMPTY(&t->populates);
    (void)core;
    if (!j)
        return false;
    *j = (struct populate_job){.job = {populate_work, populate_done},
                               .tenant = t,
                               .client = client_handle(c->id, c->gen),
                               .session = s,
                               .grant = *g,
                               .huge = t->pages == PAGES_THP,
                               .fd = g->seg->fd};
    s->wait = WAIT_POPULATE;
    TAILQ_INSERT_TAIL(&t->populates, j, in_queue);
    if (is_first)
        pump_populates(t);
    return true;
}

/* The wall that is nearest: its tenant's own, a group's above it, or the machine's. */
void memory_name_wall(const struct tenant *t, char *ret, size_t n)
{
    const struct ledger *ledger = &t->core->ledger;
    uint64_t left_bytes = budget_left(&t->budget);
    uint64_t promised_bytes = ledger_left(ledger) - budget_capacity_left(&t->budget);
    const struct budget *b = &t->budget;
    if (t->room.is_shared_out && b->share.is_too_large) { /* a share is of what it demands */
        (void)snprintf(ret, n, "others want memory, too, and leave it %" PRIu64 " KiB in all",
                       MIN(b->share.reach_bytes, b->limits.max_bytes) / 1024);
        return;
    }
    if (t->room.is_shared_out) {
        (void)snprintf(ret, n, "others want memory, too, and its share is %" PRIu64 " KiB",
                       t->budget.share.fair_bytes / 1024);
        return;
    }
    if (budget_capacity_left(b) < left_bytes) {
        (void)snprintf(ret, n,
                       "all tenants have %" PRIu64 " KiB of the capacity's %" PRIu64
                       " KiB, %" PRIu64 " KiB are promised to others",
                       ledger->charged_bytes / 1024, ledger->capacity_bytes / 1024,
                       promised_bytes / 1024);
        return;
    }
    while (b->parent && budget_left(b->parent) <= left_bytes)
        b = b->parent;
    (void)snprintf(ret, n, "%s has %" PRIu64 " KiB of its max of %" PRIu64 " KiB",
                   b == &t->budget ? "it" : "its group", b->total_bytes / 1024,
                   b->limits.max_bytes / 1024);
}

static void hold_off(struct core *core, struct session *s, const struct msg_request *req)
{
    const struct tenant *t = s->client->tenant;
    session_fail(core, s, -ENOMEM,
                 "%" PRIu64
                 " KiB asked: what comes back to tenant \"%s\" is for the %u who wait for "
                 "memory, the first of them for %" PRIu64 " KiB",
                 req->grow.n_units * KIB_PER_UNIT, t->name, t->tickets.n_waiting,
                 TAILQ_FIRST(&t->tickets.line)->n_units * KIB_PER_UNIT);
}

/* What would help. */
static const char *advice(const struct tenant *t)
{
    const struct budget *b = &t->budget;
    if (t->room.is_shared_out)
        return "more weight would help, or others that give back";
    if (budget_capacity_left(b) < budget_left(b))
        return "more capacity would help, or others that give back";
    return "a higher max would help, or blocks freed";
}

static void refuse_memory(struct core *core, struct session *s, const struct msg_request *req)
{
    const struct tenant *t = s->client->tenant;
    char wall[MSG_WALL_BYTES];
    memory_name_wall(t, wall, sizeof(wall));
    session_fail(core, s, -ENOMEM,
                 "%" PRIu64 " KiB asked in one piece: tenant \"%s\" uses %" PRIu64 " of %" PRIu64
                 " KiB in segments; %s; %s",
                 req->grow.n_units * KIB_PER_UNIT, t->name, t->granted_units * KIB_PER_UNIT,
                 t->budget.charged_bytes / 1024, wall, advice(t));
}

/* Is something under way that may give memory back? */
static bool may_come_back(const struct tenant *t)
{
    return t->is_sweeping || t->is_punching || !TAILQ_EMPTY(&t->dying) ||
           (t->is_asking && !TAILQ_EMPTY(&t->rang));
}

/* The pages of what comes next are made only when this one is on its way. */
void memory_give(struct core *core, struct session *s, const struct msg_request *req,
                 const struct grant *g)
{
    struct tenant *t = s->client->tenant;
    if (!s->client->populate || !populate(core, s, g))
        reply_grant(core, s, g);
    if (!g->slab)
        prepare_granted(t, g->n_units, req->grow.exact);
    prepare_pump(t);
}

void memory_grow(struct core *core, struct session *s, const struct msg_request *req)
{
    struct grant g = {0};
    struct tenant *t = s->client->tenant;
    if (req->grow.again && s->is_resumed)
        search_take_unknown(t, s->client);
    s->is_resumed = false;
    if (ticket_holds_off(t, req->grow.n_units)) {
        hold_off(core, s, req);
        return;
    }
    if (ticket_is_coming(t)) {
        session_wait_memory(s, req);
        return;
    }
    uint64_t charged_bytes = t->budget.charged_bytes;
    int r = grant_grow(t, s->client, req, &s->rounds, &g);
    if (t->budget.charged_bytes > charged_bytes)
        ticket_overtaken(t, (uint32_t)((t->budget.charged_bytes - charged_bytes) / UNIT_BYTES));
    if (r == 0) {
        ticket_overtaken(t, g.n_units);
        room_satisfied(t);
        memory_give(core, s, req, &g);
    } else if (r == -EINPROGRESS || (r == -ENOMEM && may_come_back(t))) {
        session_wait_memory(s, req);
    } else if (r == -ENOMEM) {
        refuse_memory(core, s, req);
    } else {
        session_fail(core, s, r, "%u units of alignment order %u cannot be granted: %s",
                     req->grow.n_units, req->grow.align_order, strerror(-r));
    }
}

/* Who waits on joins the queue's end again: each is tried once. */
void memory_wake_more(struct tenant *t)
{
    t->n_to_wake = MIN(t->n_to_wake, t->n_waiters);
    for (unsigned i = 0; i < WAKES_MAX && t->n_to_wake > 0; i++, t->n_to_wake--) {
        struct session *s = TAILQ_FIRST(&t->waiters);
        struct msg_request req = s->request;
        session_stop_waiting(s);
        t->is_waking = true;
        memory_grow(t->core, s, &req);
        t->is_waking = false;
    }
}

void memory_wake(struct tenant *t)
{
    ticket_wake(t);
    t->n_to_wake = t->n_waiters;
    memory_wake_more(t);
}

void memory_wake_all(struct core *core)
{
    ticket_wake_all(core);
    for (uint32_t i = 0; i < core->n_tenants; i++)
        if (core->tenants[i]->n_waiters > 0)
            memory_wake(core->tenants[i]);
}

/* Some runs: what a packet can name, all units of a heap 64 times, would take the loop 40 ms. */
static void release(struct core *core, struct session *s)
{
    const struct msg_request *req = &s->request;
    struct tenant *t = s->client->tenant;
    for (uint32_t steps = 0; s->n_released < req->release.n_runs && steps < RELEASE_STEPS;) {
        const struct msg_run *run = &req->release.runs[s->n_released++];
        int r = grant_release(t, s->client, run);
        s->release_error = r < 0 ? r : s->release_error;
        steps += MIN(run->n_units, RELEASE_STEPS);
    }
    if (s->n_released < req->release.n_runs)
        session_wait_release(s);
    else if (s->release_error < 0)
        session_fail(core, s, s->release_error,
                     "some of the %u runs given back are not the client's", req->release.n_runs);
    else
        session_ok(core, s);
    memory_wake(t);
}

void memory_release(struct core *core, struct session *s, const struct msg_request *req)
{
    s->request = *req;
    s->n_released = 0;
    s->release_error = 0;
    release(core, s);
}

void memory_release_more(struct core *core)
{
    struct session *s = TAILQ_FIRST(&core->releasing); /* one: they take turns */
    if (!s)
        return;
    session_stop_waiting(s);
    release(core, s);
}

void memory_free_large(struct core *core, struct session *s, const struct msg_request *req)
{
    struct tenant *t = s->client->tenant;
    int r = grant_free_large(t, req->free_large.off);
    if (r < 0)
        session_fail(core, s, r, "there is no freed large block at offset %" PRIx64,
                     req->free_large.off);
    else
        session_ok(core, s);
    memory_wake(t);
}
