/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reaper, theory.
 *
 * BELLS say when to ask, never that somebody is dead: the socket's hang-up, the pidfd, a Detach. A
 * client that has rung is asked by its life page in a worker, at most ASKS_MAX pages of a tenant in
 * one job and one such job of a tenant at a time: pages that take long (160 ms each, if a hostile
 * client pins them) delay their own tenant only. Those that attach have a job of their own, or they
 * would wait for the dead: to seal the page of a process that ran on another CPU, the kernel waits
 * for all CPUs. While the page is mapped the question is repeated, with 10 ms to 1 s between.
 *
 * DEATH, in this order:
 *   1. proof: the seal holds (or, for pages sealed against us, the pidfd says so).
 *   2. loop: control gen = 0, books say DIES. Nobody can give to it any more.
 *   3. worker: one sweep for all that are dying (sweep.c). Their tags are 0 then.
 *   4. loop: each unit that the books give to the dead: a slab with a living tag in it, or a large
 *      block with one, becomes an orphan; all else is free.
 *   5. the id goes to the end of the queue, the control page and the books forget it.
 *
 * A daemon killed in between finds DIES in the books and begins again at 3; every step is
 * idempotent.
 *
 * COST. 1 and 2: microseconds. 3: a scan of the tenant's owner maps, once for all that died
 * meanwhile. 4: the dead client's own units (its holdings say where), not the heap's. Each slab's
 * map is read once more, so that 100,000 slabs are 100 ms, and 2,400 clients that held nothing
 * are 20: a burial stops after BURIAL_STEPS and goes on when the others had their turn. The next
 * sweep waits for it.
 */
#include "daemon/reaper.h"

#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>

#include "daemon/attach.h"
#include "daemon/deposit.h"
#include "daemon/memory.h"
#include "daemon/session.h"
#include "daemon/grant.h"
#include "daemon/kept.h"
#include "daemon/life.h"
#include "daemon/log.h"
#include "daemon/machine.h"
#include "daemon/sweep.h"

#define ASKS_MAX        64u
#define ASK_WAIT_NS_MIN 10000000ull
#define ASK_WAIT_NS_MAX 1000000000ull
#define BELLS_MAX       64
#define BURIAL_STEPS    65536u /* a unit is one, a slab's map SLAB_STEPS: 2 ms */
#define SLAB_STEPS      32u
#define BORROWED_MAX    256u /* a quarter of the descriptors that are in reserve */
#define CLIENT_STEPS    256u /* three descriptors, and a word to the keeper */

struct ask {
    struct client *client; /* or */
    struct attach *attach;
    int life_fd, pidfd;
    pid_t pid;
    enum life_answer answer;
    /* of a new client */
    const struct core *core; /* else NULL */
    uint32_t life_no;
    bool has_magic, other_cgroup, is_not_kept;
};

struct ask_job {
    struct job job;
    struct tenant *tenant;
    bool is_heap_first; /* the heap is kept with its first client */
    int heap_error;
    uint32_t n;
    struct ask asks[ASKS_MAX];
};

/* ---- bells ---- */

void reaper_ring(struct client *c)
{
    struct tenant *t = c->tenant;
    if (c->state != CLIENT_LIVES)
        return;
    if (!c->has_rung)
        TAILQ_INSERT_TAIL(&t->rang, c, in_queue);
    c->has_rung = true;
    c->ask_wait_ns = ASK_WAIT_NS_MIN;
    c->ask_at_ns = t->rang_due_ns = t->core->now_ns;
    reaper_pump(t);
}

void reaper_bells(struct core *core, uint64_t now_ns)
{
    struct epoll_event events[BELLS_MAX];
    core->now_ns = now_ns;
    int n = epoll_wait(core->bell_fd, events, BELLS_MAX, 0);
    for (int i = 0; i < n; i++) {
        struct client *c = events[i].data.ptr;
        /* It stays readable for ever: once is enough. */
        (void)epoll_ctl(core->bell_fd, EPOLL_CTL_DEL, c->pidfd, NULL);
        reaper_ring(c);
    }
}

/* ---- asking ---- */

static void ask_work(struct job *job)
{
    struct ask_job *j = (struct ask_job *)job;
    if (j->is_heap_first)
        j->heap_error = deposit_heap(j->tenant);
    for (uint32_t i = 0; i < j->n; i++) {
        struct ask *a = &j->asks[i];
        if (a->core && life_fix_size(a->life_fd) < 0)
            continue; /* as if it were not mapped */
        a->answer = life_ask(a->life_fd);
        if (a->answer == LIFE_SILENT && life_process_gone(a->pidfd))
            a->answer = LIFE_GONE;
        if (!a->attach)
            continue;
        a->has_magic = life_has_magic(a->life_fd);
        if (a->core && a->answer == LIFE_ALIVE && a->has_magic)
            a->is_not_kept =
                kept_put(a->core, (struct kept){KEPT_LIFE, a->life_no, 0}, a->life_fd) < 0;
        a->other_cgroup = machine_other_memory_cgroup(a->pid);
    }
}

static void die(struct client *c)
{
    struct tenant *t = c->tenant;
    struct session *s = c->session;
    acre_assert(c->state == CLIENT_LIVES && c->has_rung);
    c->state = CLIENT_DYING;
    t->n_changes++;
    ticket_forget_client(c);
    books_set_client_state(t->books, c->id, BOOKS_CLIENT_DIES);
    /* Pairs with who gives: it reads gen, then stores the tag. Who has read it before this is seen
     * by the sweep, whose membarrier comes after this, or by the next one. */
    __atomic_store_n(&t->control->client[c->id].gen, 0, __ATOMIC_SEQ_CST);
    TAILQ_REMOVE(&t->rang, c, in_queue);
    TAILQ_INSERT_TAIL(&t->dying, c, in_queue);
    if (s && s->wait != WAIT_DETACH)
        session_abandon(s); /* a connection that outlived its client */
}

void reaper_restore_dying(struct client *c)
{
    struct tenant *t = c->tenant;
    TAILQ_INSERT_TAIL(&t->rang, c, in_queue);
    c->has_rung = true;
    die(c);
    reaper_pump(t);
}

static void take_answer(struct client *c, enum life_answer answer)
{
    c->is_asked = false;
    if (c->state != CLIENT_LIVES || !c->has_rung)
        return;
    if (answer == LIFE_SILENT && c->pidfd < 0 && !c->session)
        answer = LIFE_GONE; /* sealed against us and hung up: nothing else will ever tell */
    if (answer == LIFE_GONE) {
        die(c);
        return;
    }
    c->ask_at_ns = c->tenant->core->now_ns + c->ask_wait_ns;
    c->ask_wait_ns = MIN(2 * c->ask_wait_ns, ASK_WAIT_NS_MAX);
    c->tenant->rang_due_ns = MIN(c->tenant->rang_due_ns, c->ask_at_ns);
}

static void attaches_done(struct core *core, struct job *job)
{
    struct ask_job *j = (struct ask_job *)job;
    struct tenant *t = j->tenant;
    t->n_jobs--;
    t->is_asking_new = false;
    t->is_kept |= j->is_heap_first && j->heap_error == 0;
    for (uint32_t i = 0; i < j->n; i++) {
        struct ask *a = &j->asks[i];
        TAILQ_REMOVE(&t->attaches, a->attach, in_queue);
        attach_answer(core, a->attach,
                      a->is_not_kept || j->heap_error < 0       ? -EIO
                      : a->answer == LIFE_ALIVE && a->has_magic ? 0
                                                                : -EPROTO,
                      a->other_cgroup);
    }
    free(j);
    reaper_pump(t);
}

static void rang_done(struct core *core, struct job *job)
{
    struct ask_job *j = (struct ask_job *)job;
    struct tenant *t = j->tenant;
    (void)core;
    t->n_jobs--;
    t->is_asking = false;
    for (uint32_t i = 0; i < j->n; i++)
        take_answer(j->asks[i].client, j->asks[i].answer);
    free(j);
    memory_wake(t);
    reaper_pump(t);
}

static void add_attach(struct ask_job *j, struct attach *a)
{
    struct ask *ask = &j->asks[j->n++];
    *ask = (struct ask){.attach = a, .life_fd = a->life_fd, .pidfd = -1};
    ask->answer = LIFE_GONE;
    ask->pid = a->session->creds.pid;
    ask->core = a->resume == 0 ? a->tenant->core : NULL;
    ask->life_no = a->life_no;
    a->is_asked = true;
}

static struct ask_job *new_asks(struct tenant *t, void (*done)(struct core *core, struct job *job))
{
    struct ask_job *j = calloc(1, sizeof(*j));
    if (!j)
        return NULL; /* again at the next event or deadline */
    j->job = (struct job){ask_work, done};
    j->tenant = t;
    return j;
}

/* A copy for the job, of the client that it wants to be again: which may die meanwhile. Few at a
 * time, since all clients of a daemon that was killed come at once. */
static bool borrow_page(struct attach *a)
{
    struct core *core = a->tenant->core;
    const struct client *c = client_find(a->tenant, a->resume);
    if (!c)
        return true; /* no page: no answer */
    if (core->n_borrowed == BORROWED_MAX)
        return false;
    a->life_fd = fcntl(c->life_fd, F_DUPFD_CLOEXEC, 0);
    core->n_borrowed += a->life_fd >= 0;
    return a->life_fd >= 0;
}

/* True: they are asked now. */
static bool submit_asks(struct tenant *t, struct ask_job *j)
{
    if (j->n == 0) {
        free(j);
        return false;
    }
    t->n_jobs++;
    core_submit(t->core, &j->job);
    return true;
}

static void pump_attaches(struct tenant *t)
{
    struct attach *a;
    if (t->is_asking_new || TAILQ_EMPTY(&t->attaches))
        return;
    struct ask_job *j = new_asks(t, attaches_done);
    if (!j)
        return;
    TAILQ_FOREACH (a, &t->attaches, in_queue) {
        if (j->n == ASKS_MAX || (a->resume != 0 && !borrow_page(a)))
            break;
        add_attach(j, a);
    }
    j->is_heap_first = !t->is_kept;
    t->is_asking_new = submit_asks(t, j);
}

static void pump_rang(struct tenant *t)
{
    struct client *c;
    if (t->is_asking || t->rang_due_ns > t->core->now_ns)
        return;
    struct ask_job *j = new_asks(t, rang_done);
    if (!j)
        return;
    t->rang_due_ns = UINT64_MAX;
    TAILQ_FOREACH (c, &t->rang, in_queue) {
        if (j->n == ASKS_MAX) { /* of the others nothing is known */
            t->rang_due_ns = t->core->now_ns;
            break;
        }
        if (c->ask_at_ns > t->core->now_ns) {
            t->rang_due_ns = MIN(t->rang_due_ns, c->ask_at_ns);
            continue;
        }
        c->is_asked = true;
        j->asks[j->n++] = (struct ask){.client = c, .life_fd = c->life_fd, .pidfd = c->pidfd};
    }
    t->is_asking = submit_asks(t, j);
}

void reaper_ask_attach(struct attach *attach)
{
    TAILQ_INSERT_TAIL(&attach->tenant->attaches, attach, in_queue);
    reaper_pump(attach->tenant);
}

void reaper_forget_attach(struct attach *a)
{
    struct core *core = a->tenant->core;
    a->session = NULL;
    if (a->is_asked)
        return;
    TAILQ_REMOVE(&a->tenant->attaches, a, in_queue); /* not asked: not kept either */
    if (a->resume == 0)
        user_drop(&core->users, a->uid, USER_LIVES);
    core->io.close_foreign(core->io.ctx, a->life_fd, NOBODY_UID);
    free(a);
}

/* ---- after the sweep ---- */

/* If a slab or large block with somebody's blocks in it begins at unit: keeps it for them. A soft
 * block whose tag is 0 may be pinned: soft.c has looked at it before, or will. Returns its units,
 * else 0. */
static uint32_t keep_for_others(struct client *c, struct seg *seg, uint32_t unit, uint32_t *steps)
{
    struct tenant *t = c->tenant;
    uint64_t entry = seg_entry(seg, unit);
    unsigned state = unit_entry_state(entry), geo = 0;
    uint32_t n, n_live = 0;
    if (state == U_LARGE) {
        n = unit_entry_large_units(entry);
    } else if ((state == U_SLAB || state == U_PARKED || state == U_RELEASING) &&
               unit_entry_back(entry) == 0 && geo_infos[unit_entry_geo(entry)].n_blocks > 0 &&
               seg->n_slots == 1) {
        geo = unit_entry_geo(entry);
        n = 1u << geo_infos[geo].order;
        *steps += SLAB_STEPS;
    } else {
        return 0;
    }
    if (!seg_contains(seg, unit, n) || !tenant_all_owned(t, seg, unit, n, c->id))
        return 0;
    if (state == U_LARGE)
        n_live = seg_large_tag(seg, unit, entry) != TAG_FREE || unit_entry_is_soft(entry);
    else if (seg_read_tags(seg, unit, geo, t->core->tags, &n_live) < 0)
        n_live = 1; /* unreadable: nothing of others may be lost */
    if (n_live == 0)
        return 0;
    orphan_adopt(t, seg, unit, n, geo, c->id);
    return n;
}

static void reap_span(struct client *c, struct seg *seg, uint32_t *steps)
{
    if (keep_for_others(c, seg, seg->shape.n_meta, steps) == 0)
        tenant_take_back(c->tenant, seg, seg->shape.n_meta, seg->span_units, c->id);
}

/* All that the dead client holds in one segment, as far as the steps go; runs are given back as a
 * whole. */
static void reap_seg(struct client *c, struct seg *seg, uint32_t lo, uint32_t hi, uint32_t *steps)
{
    struct tenant *t = c->tenant;
    uint32_t run = lo, n_run = 0, u = lo;
    while (u < hi && (*steps)++ < BURIAL_STEPS) {
        bool owned = tenant_owner(t, seg, u) == c->id;
        uint32_t n_kept = owned ? keep_for_others(c, seg, u, steps) : 0;
        if (owned && n_kept == 0) {
            run = n_run == 0 ? u : run;
            n_run++;
            u++;
            continue;
        }
        if (n_run > 0)
            tenant_take_back(t, seg, run, n_run, c->id);
        n_run = 0;
        u = n_kept > 0 ? u + n_kept : books_next_owned(t->books, seg->slot, u, hi, c->id);
    }
    if (n_run > 0)
        tenant_take_back(t, seg, run, n_run, c->id);
}

static void reap_units(struct client *c, uint32_t *steps)
{
    while (c->n_holdings > 0 && *steps < BURIAL_STEPS) {
        struct holding h = c->holdings[0];
        struct seg *seg = c->tenant->segs[h.slot];
        if (seg->buddy)
            reap_seg(c, seg, h.lo, h.hi, steps);
        else
            reap_span(c, seg, steps);
        acre_assert(*steps >= BURIAL_STEPS || c->n_holdings == 0 || c->holdings[0].slot != h.slot);
    }
}

static void bury(struct client *c)
{
    struct tenant *t = c->tenant;
    struct session *s = c->session;
    TAILQ_REMOVE(&t->dying, c, in_queue);
    if (s)
        s->client = NULL;
    client_remove(c);
    if (s && s->wait == WAIT_DETACH)
        session_done(s);
}

/* The swept ones, as far as the steps go. They stand before those that have died since. */
static void pump_burial(struct tenant *t)
{
    struct client *c;
    uint32_t steps = 0;
    if (!t->is_burying || !soft_collect_swept(t))
        return;
    while ((c = TAILQ_FIRST(&t->dying)) && c->state == CLIENT_SWEEPING) {
        reap_units(c, &steps);
        if (c->n_holdings > 0 || steps >= BURIAL_STEPS)
            return; /* to be continued */
        acre_assert(c->n_units == 0);
        bury(c);
        steps += CLIENT_STEPS;
    }
    t->is_burying = t->is_sweeping = false;
    memory_wake(t);
}

/* What they waited for is done, or is to be done again. */
static void publishers_go_on(struct tenant *t, bool again)
{
    struct session *s, *next;
    for (s = TAILQ_FIRST(&t->core->publishing); s; s = next) {
        next = TAILQ_NEXT(s, in_waiters);
        if (!s->client->publishing || s->client->tenant != t)
            continue;
        s->client->publishing = false;
        if (again) {
            t->wants_publish = true;
        } else {
            session_stop_waiting(s);
            session_done(s);
        }
    }
}

static void sweep_again(struct tenant *t)
{
    struct client *c;
    TAILQ_FOREACH (c, &t->dying, in_queue)
        c->state = CLIENT_DYING;
    publishers_go_on(t, true);
    t->is_sweeping = false; /* reaper_deadline() says when */
}

static void sweep_done(struct tenant *t, const struct sweep_found *found)
{
    for (uint32_t i = 0; i < found->n; i++)
        grant_free_swept(t, found->large_offs[i]);
    if (found->error < 0) {
        sweep_again(t);
        return;
    }
    soft_swept(t, found->large_offs, found->n);
    publishers_go_on(t, false);
    t->is_burying = true;
    pump_burial(t);
    reaper_pump(t);
}

static void make_plan(struct tenant *t, struct sweep_plan *plan)
{
    struct client *c;
    struct session *s;
    tag_t id;
    /* Who gives looks whether the receiver lives, then stores: perhaps after its sweep. */
    for (uint32_t i = 0; (id = client_table_resting(&t->clients, i)) != 0; i++)
        plan->action[id] = SWEEP_FREE;
    TAILQ_FOREACH (c, &t->dying, in_queue) {
        c->state = CLIENT_SWEEPING;
        plan->action[c->id] = SWEEP_FREE;
        plan->lives[plan->n_lives++] = (struct sweep_life){c->id, c->life_fd};
    }
    TAILQ_FOREACH (s, &t->core->publishing, in_waiters) {
        if (s->client->tenant != t || s->client->state != CLIENT_LIVES)
            continue;
        s->client->publishing = true;
        plan->action[s->client->id] = SWEEP_PUBLISH;
    }
}

static void pump_sweep(struct tenant *t)
{
    const struct client *c;
    if (t->is_sweeping || (TAILQ_EMPTY(&t->dying) && !t->wants_publish))
        return;
    size_t n_dying = 0;
    TAILQ_FOREACH (c, &t->dying, in_queue)
        n_dying++;
    struct sweep_plan *plan = calloc(1, sizeof(*plan) + n_dying * sizeof(plan->lives[0]));
    if (!plan)
        return;
    make_plan(t, plan);
    if (sweep_start(t, plan, sweep_done) < 0) {
        free(plan); /* the clients stay marked: the next pass takes them */
        return;
    }
    t->is_sweeping = true;
    t->wants_publish = false;
}

void reaper_publish(struct tenant *t)
{
    t->wants_publish = true;
    reaper_pump(t);
}

void reaper_pump(struct tenant *t)
{
    if (!t->is_open || t->core->is_stopping)
        return;
    pump_attaches(t);
    pump_rang(t);
    pump_sweep(t);
}

void reaper_tick(struct tenant *t)
{
    if (!t->core->is_stopping)
        pump_burial(t);
    reaper_pump(t);
}

uint64_t reaper_deadline(const struct tenant *t)
{
    uint64_t deadline_ns = UINT64_MAX;
    if (!t->is_open)
        return UINT64_MAX;
    if (!t->is_asking)
        deadline_ns = t->rang_due_ns;
    if (t->is_burying)
        return t->core->now_ns;
    /* There was no memory or no descriptor to begin. */
    if ((!t->is_sweeping && (!TAILQ_EMPTY(&t->dying) || t->wants_publish)) ||
        (!t->is_asking_new && !TAILQ_EMPTY(&t->attaches)))
        deadline_ns = MIN(deadline_ns, t->core->now_ns + ASK_WAIT_NS_MIN);
    return deadline_ns;
}
