/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preparing, theory. The first touch of a new shared page costs 890 ns, of one that is there 640;
 * if the client maps a whole grant of such pages at once, 196, and 13 with huge pages. So a worker
 * makes the pages of what will be granted next, as grant_ahead() names it.
 *
 * MODEL. A job maps its runs for itself and populates them for writing, which changes no content:
 * units may be granted, used and freed meanwhile, they stay in the buddy allocator, and nobody
 * waits. Only punching keeps out of its way (seg.c: warm, busy). fallocate() would leave the
 * zeroing to the client.
 *   ready   the first `ready` bytes, as the administrator wishes: from the first client on, with
 *           segments made for it within max and capacity, which yield to any grant (yield.c), and
 *           never punched (decay.c). Filled again when half of it is used, or at the next tick: a
 *           worker that makes pages as fast as they are taken slows down who takes them. What
 *           clients gave back mostly has its pages: completed without haste, RENEWS_PER_TICK jobs a
 *           tick, or who takes and gives the same units all the time would keep a worker busy.
 *   demand  as much as was granted lately (halved each tick, over after five), out of the segments
 * that there are: at most 64 MiB and a 32nd of what the tenant has. Nothing below 256 MiB, since
 * what is granted and never touched then has pages too: 40 % more for a heap of 64 MiB, 3 % for one
 * of 1 GiB. Exact runs do not count: one large block says nothing about the next, and what it took
 * of these pages is not made again. Not used, it decays. All tenants together: 5 % of the capacity.
 *
 * INVARIANTS. 1. One job of a tenant at a time, of about JOB_UNITS_MAX; none without clients, nor
 * while a grant waits for its pages. 2. Nothing is punched and prepared in turns: decay spares
 * (prepare_spare()) what the same list names, which is not asked while units are out of the
 * allocator to be punched; and demand ends by itself.
 *
 * COST. A look holds and lets go at most AHEAD_MAX spans, 0.1 us each. For demand: once for each
 * job, and after one that found nothing when JOB_UNITS_MAX more were granted. For ready: once for
 * each job, and after one that found nothing when half of what was warm then is used: so often only
 * as this can be halved. For both: at a tick. A job is 1 to 4 ms of a worker. What is ready in more
 * than AHEAD_MAX pieces stays ready, but is not made so.
 */
#include "daemon/prepare.h"

#include <string.h>
#include <sys/mman.h>

#include "daemon/grant.h"
#include "daemon/log.h"
#include "daemon/memory.h"
#include "daemon/segments.h"
#include "daemon/yield.h"

#define RUNS_MAX        32u
#define JOB_UNITS_MAX   ((uint32_t)(MIB(4) / UNIT_BYTES))
#define AHEAD_MAX       1024u /* 4 GiB where memory is in one piece */
#define SEGS_MAX        8u    /* 4 GiB, 1 ms */
#define RENEWS_PER_TICK 16u
#define DEMAND_MAX      (MIB(64) / UNIT_BYTES)
#define DEMAND_FROM     (MIB(256) / UNIT_BYTES)
#define HUGE_BYTES      (HUGE_UNITS * UNIT_BYTES)
#define STEP_BYTES      HUGE_BYTES /* 0.5 ms, in which nobody else here can map anything */

struct prepare_run {
    struct seg *seg;
    int fd;
    uint32_t unit, n;
};

struct prepare_job {
    struct job job;
    struct tenant *tenant;
    bool huge;
    int error;
    uint32_t n_runs, n_units;
    struct prepare_run runs[RUNS_MAX];
};

/* ---- in the worker ---- */

/* A huge page can only be mapped where the address is as even as the offset. */
static char *map_run(int fd, uint64_t off, size_t bytes, char *all, bool huge)
{
    char *at = all;
    if (huge)
        at = (char *)round_up_u64((uintptr_t)all, HUGE_BYTES) + off % HUGE_BYTES;
    return mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, (off_t)off);
}

int prepare_pages(int fd, uint32_t unit, uint32_t n, bool huge)
{
    size_t bytes = (size_t)n << UNIT_SHIFT, all_bytes = bytes + (huge ? 2 * HUGE_BYTES : 0);
    char *all =
        mmap(NULL, all_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (all == MAP_FAILED)
        return -errno;
    char *at = map_run(fd, (uint64_t)unit << UNIT_SHIFT, bytes, all, huge);
    int error = at == MAP_FAILED ? -errno : 0;
    if (error == 0 && huge)
        (void)madvise(at, bytes, MADV_HUGEPAGE);
    for (size_t done = 0; error == 0 && done < bytes; done += STEP_BYTES)
        if (madvise(at + done, MIN(bytes - done, STEP_BYTES), MADV_POPULATE_WRITE) < 0)
            error = -errno;
    (void)munmap(all, all_bytes);
    return error;
}

static void prepare_work(struct job *job)
{
    struct prepare_job *j = (struct prepare_job *)job;
    for (uint32_t i = 0; j->error == 0 && i < j->n_runs; i++)
        j->error = prepare_pages(j->runs[i].fd, j->runs[i].unit, j->runs[i].n, j->huge);
}

/* ---- how much ---- */

static uint64_t sum_units(const struct tenant *t, uint32_t (*count)(const struct seg *))
{
    uint64_t n = 0;
    for (uint32_t slot = 0; slot < t->n_slots; slot++)
        n += t->segs[slot] && t->segs[slot]->buddy ? count(t->segs[slot]) : 0;
    return n;
}

static uint32_t count_warm(const struct seg *seg)
{
    return seg->n_warm;
}

static uint32_t count_free(const struct seg *seg)
{
    return seg->is_soft ? 0 : seg_n_free(seg);
}

static uint64_t demand_of(const struct tenant *t)
{
    return t->granted_units < DEMAND_FROM ? 0 : MIN(t->prepare.demand_units, t->granted_units / 32);
}

/* ---- which ---- */

static void add_run(struct prepare_job *j, struct seg *seg, uint32_t unit, uint32_t n)
{
    n = MIN(n, JOB_UNITS_MAX - j->n_units);
    if (j->huge) { /* whole pages, but for the tables */
        uint32_t first = unit / HUGE_UNITS * HUGE_UNITS;
        uint32_t end = MIN((uint32_t)round_up_u64(unit + n, HUGE_UNITS), first + JOB_UNITS_MAX);
        unit = MAX(first, seg->shape.n_meta);
        n = MIN(end, seg->shape.n_units) - unit;
    }
    seg_begin_warming(seg, unit, n);
    j->runs[j->n_runs++] = (struct prepare_run){seg, seg->fd, unit, n};
    j->n_units += n;
}

/* Clean (or dirty) units among the first n_units that will be granted. */
static void add_cold(struct tenant *t, struct prepare_job *j, unsigned order, uint64_t n_units,
                     bool dirty)
{
    struct grant ahead[AHEAD_MAX];
    uint32_t n_ahead = grant_ahead(t, order, n_units, ahead, AHEAD_MAX), unit, n;
    for (uint32_t i = 0; i < n_ahead; i++) {
        const struct grant *g = &ahead[i];
        uint32_t from = g->unit, end = g->unit + g->n_units;
        while (from < end && seg_find_cold(g->seg, from, end - from, dirty, &unit, &n)) {
            if (j->n_runs == RUNS_MAX || j->n_units >= JOB_UNITS_MAX)
                return;
            add_run(j, g->seg, unit, n);
            from = unit + n;
        }
    }
}

/* Of the capacity, in units. Who had to yield once leaves as much as it takes, or it would make
 * pages for others to throw away again and again. */
static uint64_t room_of(const struct tenant *t)
{
    uint64_t left = budget_capacity_left(&t->budget);
    left = MIN(left, budget_high_left(&t->budget));
    if (t->core->yielding_bytes > 0) /* that is for who waits */
        return 0;
    if (t->prepare.has_yielded)
        left = (left - MIN(left, yield_idle_bytes(t))) / 2;
    return left < MIB(4) && t->prepare.has_yielded ? 0 : left / UNIT_BYTES;
}

/* Until `ready` bytes are free: an 8th, then as much again as there is. The first grants take the
 * first segment, and the others can yield. */
static bool make_seg(struct tenant *t)
{
    uint64_t n_free = sum_units(t, count_free), room = room_of(t);
    if (n_free >= t->ready_units || room == 0)
        return false;
    uint64_t piece = MIN(MAX(n_free, t->ready_units / 8 + 1), MIN(room, SLOT_UNITS / 2));
    uint32_t n = (uint32_t)MIN(t->ready_units - n_free, piece);
    if (t->pages == PAGES_THP)
        n = (uint32_t)round_up_u64(n, HUGE_UNITS);
    int r = segments_add(t, n, 0, false);
    for (; r == -ENOMEM && n > 1; r = segments_add(t, n, 0, false))
        n /= 2;
    return r == 0;
}

/* All at once: what is made first would be other units than what is ready in the end. */
static void make_room(struct tenant *t)
{
    for (unsigned i = 0; i < SEGS_MAX && make_seg(t); i++)
        ;
}

static void choose_demand(struct tenant *t, struct prepare_job *j, uint64_t n_warm)
{
    uint64_t demand = demand_of(t);
    if (n_warm < t->ready_units + demand)
        add_cold(t, j, t->prepare.order, demand, false);
    if (j->n_runs == 0)
        t->prepare.n_until_look = JOB_UNITS_MAX;
}

static void choose_ready(struct tenant *t, struct prepare_job *j, uint64_t n_warm)
{
    struct prepare *p = &t->prepare;
    p->is_resting = false;
    if (n_warm < t->ready_units) {
        make_room(t);
        add_cold(t, j, GRANT_ORDER_MAX, t->ready_units, false);
        if (j->n_runs == 0 && p->n_renews > 0) {
            add_cold(t, j, GRANT_ORDER_MAX, t->ready_units, true);
            p->n_renews--;
        }
    }
    if (j->n_runs > 0)
        return;
    p->is_resting = true;
    p->n_rest_units = n_warm / 2;
}

/* ---- in the loop ---- */

static void prepare_done(struct core *core, struct job *job)
{
    struct prepare_job *j = (struct prepare_job *)job;
    struct tenant *t = j->tenant;
    for (uint32_t i = 0; i < j->n_runs; i++)
        seg_end_warming(j->runs[i].seg, j->runs[i].unit, j->runs[i].n, j->error == 0);
    if (j->error < 0 && !t->prepare.is_failing)
        log_line(LOG_WARNING, "tenant %s: memory cannot be prepared: %s", t->name,
                 strerror(-j->error));
    t->prepare.is_failing = t->prepare.is_blocked = j->error < 0;
    t->prepare.is_running = false;
    t->n_jobs--;
    if (j->error == 0) /* else only when something else has changed */
        tenant_changed(t);
    free(j);
    memory_wake_all(core);
    prepare_pump(t);
}

static bool wants_demand(const struct tenant *t)
{
    return t->prepare.n_until_look == 0 && demand_of(t) > 0;
}

static bool wants_ready(const struct tenant *t, uint64_t n_warm)
{
    const struct prepare *p = &t->prepare;
    return t->ready_units > 0 && (!p->is_resting || n_warm < p->n_rest_units);
}

static bool may_begin(const struct tenant *t, uint64_t n_warm)
{
    const struct prepare *p = &t->prepare;
    return !p->is_running && !p->is_blocked && !t->is_punching && t->clients.n > 0 &&
           TAILQ_EMPTY(&t->populates) && !t->core->is_stopping &&
           (wants_demand(t) || wants_ready(t, n_warm));
}

void prepare_pump(struct tenant *t)
{
    if (!t->is_open)
        return;
    uint64_t n_warm = sum_units(t, count_warm);
    t->control->header.prepared_bytes = n_warm * UNIT_BYTES;
    if (!may_begin(t, n_warm))
        return;
    struct prepare_job *j = calloc(1, sizeof(*j));
    if (!j)
        return;
    *j = (struct prepare_job){
        .job = {prepare_work, prepare_done}, .tenant = t, .huge = t->pages == PAGES_THP};
    t->prepare.n_looks++;
    if (wants_demand(t))
        choose_demand(t, j, n_warm);
    if (j->n_runs == 0 && wants_ready(t, n_warm))
        choose_ready(t, j, n_warm);
    if (j->n_runs == 0) {
        free(j);
        return;
    }
    t->prepare.is_running = true;
    t->n_jobs++;
    core_submit(t->core, &j->job);
}

void prepare_granted(struct tenant *t, uint32_t n, bool exact)
{
    struct prepare *p = &t->prepare;
    p->n_until_look -= MIN(n, p->n_until_look);
    if (exact)
        p->demand_units -= MIN(n, p->demand_units);
    if (exact || t->granted_units < DEMAND_FROM)
        return;
    p->order = (unsigned)log2_ceil_u64(n);
    p->demand_units = MIN(p->demand_units + n, DEMAND_MAX);
}

void prepare_tick(struct tenant *t)
{
    struct prepare *p = &t->prepare;
    if (p->demand_units > 0)
        tenant_changed(t); /* what it does not spare any more decays */
    p->demand_units = p->demand_units > JOB_UNITS_MAX ? p->demand_units / 2 : 0;
    p->n_renews = RENEWS_PER_TICK;
    p->n_until_look = 0;
    p->is_blocked = p->is_resting = false;
    prepare_pump(t);
}

static void spare(struct tenant *t, unsigned order, uint64_t n_units)
{
    struct grant ahead[AHEAD_MAX];
    uint32_t n = n_units > 0 ? grant_ahead(t, order, n_units, ahead, AHEAD_MAX) : 0;
    for (uint32_t i = 0; i < n; i++)
        seg_unmark_stale(ahead[i].seg, ahead[i].unit, ahead[i].n_units);
}

void prepare_spare(struct tenant *t)
{
    spare(t, GRANT_ORDER_MAX, t->ready_units);
    spare(t, t->prepare.order, demand_of(t));
}
