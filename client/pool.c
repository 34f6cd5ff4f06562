/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pool.c - units that the daemon has granted to this process and that no slab or large block has
 * been cut from.
 *
 * MODEL. One private buddy allocator per slot says which granted units are free; the unit table
 * says U_UNCUT with the process's token for the same units. The table is the truth: the daemon may
 * take any U_UNCUT unit back at any time, by compare-and-swap to U_FREE, e.g. from a process that
 * sleeps. So a unit is ours only after our own CAS U_UNCUT -> U_CUT.
 *
 * INVARIANTS (pool_lock)
 *  1. free in the buddy  =>  U_UNCUT with our token, or taken back by the daemon since we looked
 * (and perhaps granted to us again since, by a grant that we learned of first).
 *  2. A unit that turned out to be taken back stays "taken" in the buddy until it is granted again.
 *  3. Units that come into the pool may be free in the buddy already (taken back and granted again
 * before we noticed): skipped.
 *
 * LATE. A grant whose call had timed out, or whose segment could not be mapped, is ours all the
 * same: it is noted and taken in before the daemon is asked for more. A return whose call failed
 * may still be executed: its units are never used again, unless the daemon grants them anew.
 *
 * PREPARED grants have all their pages already. Mapping them at once costs 0.2 us a page, where a
 * fault for each costs 0.64 (huge pages: 13 ns); so the whole run is mapped before it is used. That
 * is at most 0.2 ms for a grant to the pool (4 MiB), and for a large block of its own as much as
 * touching every third page of it. Failing does not matter: the faults come one by one then.
 *
 * A KILL leaves U_CUT or U_UNCUT units under our id in the daemon's books: they come back by these
 * books alone.
 *
 * SURPLUS. Above a limit half of it goes back, the largest spans first: they are what others can
 * use. 4 MiB is the limit of who holds little. Where large blocks come and go, that made two
 * requests of every block, since the spans that had just gone were what came next: so who asks for
 * what it has sent back doubles its limit, up to a quarter of what it holds; who sends back twice
 * without asking in between halves it again. (churn, 1 and 2 threads: 1.35 and 1.67 of the best
 * peer's time without this, 1.07 and 1.13 with it; with an eighth two thirds of the requests stay.)
 * The daemon can still have all of it, see MODEL.
 *
 * COST. One CAS a unit when a slab is cut (1 to 64), nothing on the fast path. A surplus goes in
 * one request of at most MSG_RUNS_MAX runs.
 */
#include <string.h>
#include <sys/mman.h>

#include "client/heap.h"

#define POOL_KEEP_MAX                                                                              \
    512u /* 4 MiB: the daemon's largest grant, so that one grant is not sent back at once */

static uint64_t uncut(const struct acre_heap *heap)
{
    return unit_entry_plain(U_UNCUT, holder_token(self_id(heap), 0));
}

static uint64_t cut(const struct acre_heap *heap)
{
    return unit_entry_plain(U_CUT, holder_token(self_id(heap), 0));
}

/* Entries of [unit, unit + n) that exist: a segment beyond a slot has a table for its first unit
 * only. */
uint32_t pool_table_units(const struct acre_heap *heap, uint32_t unit, uint32_t n_units)
{
    uint64_t tables = atomic_load(&heap->slot_tables[unit / SLOT_UNITS]);
    uint32_t n_table = slot_n_table(tables), first = unit % SLOT_UNITS;
    return first >= n_table ? 0 : MIN(n_units, n_table - first);
}

static void store_entries(struct acre_heap *heap, uint32_t unit, uint32_t n_units, uint64_t entry)
{
    _Atomic uint64_t *e = heap_entry(heap, unit);

    for (uint32_t i = pool_table_units(heap, unit, n_units); i-- > 0;)
        atomic_store_explicit(&e[i], entry, memory_order_release);
}

/* U_UNCUT -> U_CUT for all; on the first that is no longer ours: *ret_lost, and those before it are
 * U_UNCUT again. */
static bool claim(struct acre_heap *heap, uint32_t unit, uint32_t n_units, uint32_t *ret_lost)
{
    _Atomic uint64_t *e = heap_entry(heap, unit);
    uint32_t n = pool_table_units(heap, unit, n_units);

    for (uint32_t i = 0; i < n; i++) {
        uint64_t expected = uncut(heap);
        if (!atomic_compare_exchange_strong(&e[i], &expected, cut(heap))) {
            store_entries(heap, unit, i, uncut(heap));
            *ret_lost = i;
            return false;
        }
    }
    return true;
}

/* A claim of units that were out of the buddy has failed at `lost`: the others go back, each to be
 * claimed again on its own. pool_lock held. */
static void put_back_but(struct acre_heap *heap, uint32_t unit, uint32_t n_units, uint32_t lost)
{
    struct buddy *b = heap->buddies[unit / SLOT_UNITS];
    uint32_t first = unit % SLOT_UNITS;

    if (lost > 0)
        buddy_give(b, first, lost);
    if (lost + 1 < n_units)
        buddy_give(b, first + lost + 1, n_units - lost - 1);
    heap->process->pool_units += n_units - 1;
}

static uint32_t take_from_slot(struct acre_heap *heap, unsigned slot, unsigned order)
{
    struct buddy *b = heap->buddies[slot];
    uint32_t n = 1u << order, lost;

    for (;;) {
        uint32_t first = buddy_take(b, order);
        if (first == BUDDY_NONE)
            return BUDDY_NONE;
        heap->process->pool_units -= n;
        if (claim(heap, slot * SLOT_UNITS + first, n, &lost))
            return slot * SLOT_UNITS + first;
        put_back_but(heap, slot * SLOT_UNITS + first, n, lost);
    }
}

static enum pool_kind slot_kind(const struct acre_heap *heap, unsigned slot)
{
    return heap->control->segment[slot].is_soft ? POOL_SOFT : POOL_HARD;
}

static enum pool_kind other_kind(enum pool_kind kind)
{
    return kind == POOL_HARD ? POOL_SOFT : POOL_HARD;
}

/* Does the pool have units there, for such blocks? */
static bool is_for(const struct acre_heap *heap, unsigned slot, enum pool_kind kind)
{
    return heap->buddies[slot] && slot_kind(heap, slot) == kind;
}

/* pool_lock held. */
static uint32_t pool_take_locked(struct acre_heap *heap, unsigned order, enum pool_kind kind)
{
    for (unsigned slot = 0; slot < HEAP_SLOTS && heap->process->pool_units >= 1u << order; slot++) {
        uint32_t unit = is_for(heap, slot, kind) ? take_from_slot(heap, slot, order) : BUDDY_NONE;
        if (unit != BUDDY_NONE)
            return unit;
    }
    return BUDDY_NONE;
}

uint32_t pool_take(struct acre_heap *heap, unsigned order, enum pool_kind kind)
{
    pthread_mutex_lock(&heap->process->pool_lock);
    uint32_t unit = pool_take_locked(heap, order, kind);
    if (unit == BUDDY_NONE && heap->process->mixes[kind])
        unit = pool_take_locked(heap, order, other_kind(kind));
    pthread_mutex_unlock(&heap->process->pool_lock);
    return unit;
}

bool pool_take_at(struct acre_heap *heap, uint32_t unit, uint32_t n_units)
{
    uint32_t first = unit % SLOT_UNITS, lost;
    bool is_taken = false;

    pthread_mutex_lock(&heap->process->pool_lock);
    struct buddy *b = heap->buddies[unit / SLOT_UNITS];
    if (b && first != 0 && pool_table_units(heap, unit, n_units) == n_units &&
        buddy_take_at(b, first, n_units)) {
        heap->process->pool_units -= n_units;
        is_taken = claim(heap, unit, n_units, &lost);
        if (!is_taken)
            put_back_but(heap, unit, n_units, lost);
    }
    pthread_mutex_unlock(&heap->process->pool_lock);
    return is_taken;
}

/* The slot's buddy, made when first needed: all its units are taken then. NULL: no memory.
 * pool_lock held. */
static struct buddy *slot_buddy(struct acre_heap *heap, unsigned slot)
{
    struct buddy **b = &heap->buddies[slot];

    if (!*b)
        (void)buddy_new(b, slot_n_table(atomic_load(&heap->slot_tables[slot])));
    return *b;
}

/* Into the buddy go units whose entries are U_UNCUT, if they are ours: those that are not are found
 * out when they are claimed. Returns how many units the pool has then; 0: there is no memory to
 * remember them. */
static uint32_t pool_put(struct acre_heap *heap, uint32_t unit, uint32_t n_units)
{
    uint32_t first = unit % SLOT_UNITS, end = first + n_units, pool_units = 0, free_at, n_free;

    pthread_mutex_lock(&heap->process->pool_lock);
    struct buddy *b = slot_buddy(heap, unit / SLOT_UNITS);
    for (uint32_t u = first; b && u < end; u = free_at + n_free) {
        if (!buddy_next_free_run(b, u, &free_at, &n_free) || free_at >= end) {
            free_at = end;
            n_free = 0;
        }
        if (u == free_at)
            continue;
        buddy_give(b, u, free_at - u);
        heap->process->pool_units += free_at - u;
    }
    if (b)
        pool_units = heap->process->pool_units;
    pthread_mutex_unlock(&heap->process->pool_lock);
    return pool_units;
}

/* Are there too many, and how many to keep then? The second time in a row, without a grow in
 * between, fewer are too many. */
static bool has_surplus(struct acre_heap *heap, uint32_t *ret_keep_units)
{
    struct process *p = heap->process;

    pthread_mutex_lock(&p->pool_lock);
    uint32_t limit_units = POOL_KEEP_MAX + p->keep_more, keep_units = limit_units / 2;
    bool has = p->pool_units > limit_units;
    if (has && p->n_sent_back > 0)
        p->keep_more = MAX(keep_units, POOL_KEEP_MAX) - POOL_KEEP_MAX;
    if (has)
        p->n_sent_back += p->pool_units - keep_units;
    pthread_mutex_unlock(&p->pool_lock);
    *ret_keep_units = keep_units;
    return has;
}

/* What is asked for has been sent back: it should have been kept. */
static void keep_more(struct acre_heap *heap, uint32_t n_units)
{
    struct process *p = heap->process;
    uint64_t held_units = heap->control->client[self_id(heap)].granted_bytes / UNIT_BYTES;

    pthread_mutex_lock(&p->pool_lock);
    if (p->n_sent_back >= n_units)
        p->keep_more = (uint32_t)MIN(POOL_KEEP_MAX + 2 * p->keep_more, held_units / 4);
    p->n_sent_back = 0;
    pthread_mutex_unlock(&p->pool_lock);
}

void pool_give(struct acre_heap *heap, uint32_t unit, uint32_t n_units)
{
    store_entries(heap, unit, n_units, uncut(heap));
    uint32_t pool_units = pool_put(heap, unit, n_units), keep_units;

    if (pool_units == 0)
        pool_release(heap, unit, n_units);
    else if (pool_units > POOL_KEEP_MAX && has_surplus(heap, &keep_units))
        (void)pool_trim(heap, keep_units);
}

/* ---- grants ---- */

/* Is this a grant that can be meant? */
static bool run_is_valid(const struct msg_run *run, uint32_t n_min)
{
    return run->off % UNIT_BYTES == 0 && run->n_units >= n_min && run->n_units <= HEAP_UNITS &&
           (run->off >> UNIT_SHIFT) + run->n_units <= HEAP_UNITS;
}

static uint32_t run_unit(const struct msg_run *run)
{
    return (uint32_t)(run->off >> UNIT_SHIFT);
}

static int release_locked(struct acre_heap *heap, const struct msg_run *runs, uint32_t n_runs)
{
    struct msg_request req = {.op = MSG_RELEASE, .release = {.n_runs = n_runs}};
    struct msg_reply reply;

    memcpy(req.release.runs, runs, n_runs * sizeof(*runs));
    return conn_call(heap, &req, -1, &reply, NULL);
}

/* Takes in the grants that came late; what cannot be mapped now stays noted. conn_lock held. */
static int accept_late(struct acre_heap *heap)
{
    struct process *p = heap->process;

    while (p->n_late > 0) {
        struct msg_run run = p->late[p->n_late - 1];
        uint32_t unit = run_unit(&run), lost;
        bool is_valid = run_is_valid(&run, 1);
        int r = is_valid ? map_slot_locked(heap, unit / SLOT_UNITS) : 0;
        if (r == -ENOENT) /* taken back, and its segment retired */
            is_valid = false;
        else if (r < 0)
            return r;
        p->n_late--;
        if (!is_valid)
            continue;
        if (pool_table_units(heap, unit, run.n_units) == run.n_units)
            (void)pool_put(heap, unit, run.n_units);
        else if (claim(heap, unit, run.n_units, &lost)) /* a segment of its own */
            (void)release_locked(heap, &run, 1);
    }
    return 0;
}

void pool_forget_slot(struct acre_heap *heap, unsigned slot)
{
    struct process *p = heap->process;

    for (uint32_t i = p->n_late; i-- > 0;)
        if (p->late[i].off >> SLOT_SHIFT == slot)
            p->late[i] = p->late[--p->n_late];
    pthread_mutex_lock(&p->pool_lock);
    struct buddy *b = heap->buddies[slot];
    if (b)
        p->pool_units -= buddy_n_free(b);
    heap->buddies[slot] = NULL; /* first: a child that is forked now frees what it finds */
    pthread_mutex_unlock(&p->pool_lock);
    buddy_free(b);
}

static void map_prepared(struct acre_heap *heap, const struct msg_reply *reply)
{
    const struct msg_run *run = &reply->grow.run;
    int saved_errno = errno;

    if (reply->grow.prepared)
        (void)madvise(heap->base + run->off, (size_t)run->n_units << UNIT_SHIFT,
                      MADV_POPULATE_READ);
    errno = saved_errno;
}

/* A Grow, or a Wait that has not been granted perhaps: then the reply is empty. */
static int request_units(struct acre_heap *heap, const struct msg_request *req, uint32_t n_units,
                         struct msg_reply *ret_reply)
{
    const struct msg_run *run = &ret_reply->grow.run;
    struct process *p = heap->process;
    int r = accept_late(heap);

    if (r == 0)
        r = conn_call(heap, req, -1, ret_reply, NULL);
    if (r < 0 || (req->op == MSG_WAIT && ret_reply->op == MSG_NONE))
        return r;
    /* A parked slab comes as large as it is: its first holder may have needed a smaller one. */
    if (!run_is_valid(run, ret_reply->grow.slab ? 1 : n_units))
        return fail(EPROTO, "the daemon granted %u units at 0x%llx", run->n_units,
                    (unsigned long long)run->off);
    PROBE(grow, (uint64_t)run->n_units << UNIT_SHIFT, heap->heap_id);
    r = map_slot_locked(heap, run_unit(run) / SLOT_UNITS);
    if (r == -ENOENT) /* and its segment is retiring: who cannot do without asks again */
        return fail(ENOMEM, "the daemon took the granted units back under pressure");
    if (r < 0 && !ret_reply->grow.slab && p->n_late < ARRAY_LEN(p->late))
        p->late[p->n_late++] = *run;
    return r;
}

static void note_kind(struct acre_heap *heap, unsigned slot, enum pool_kind kind)
{
    pthread_mutex_lock(&heap->process->pool_lock);
    heap->process->mixes[kind] = slot_kind(heap, slot) != kind;
    pthread_mutex_unlock(&heap->process->pool_lock);
}

/* What came to the pool, or is a parked slab. Before it could be mapped here, its segment may have
 * retired, and a smaller one come in its place. */
static int accept_span(struct acre_heap *heap, const struct msg_reply *reply, enum pool_kind kind,
                       uint32_t *ret_slab)
{
    const struct msg_run *run = &reply->grow.run;
    if (pool_table_units(heap, run_unit(run), run->n_units) < run->n_units)
        return fail(ENOMEM, "the daemon took the granted units back under pressure");
    map_prepared(heap, reply);
    if (reply->grow.slab && ret_slab)
        *ret_slab = run_unit(run);
    else if (pool_put(heap, run_unit(run), run->n_units) == 0)
        return fail(ENOMEM, "no private memory left for the unit pool");
    else
        note_kind(heap, run_unit(run) / SLOT_UNITS, kind);
    return 0;
}

static bool pool_has(struct acre_heap *heap, unsigned order, enum pool_kind kind)
{
    bool has = false;

    pthread_mutex_lock(&heap->process->pool_lock);
    for (unsigned slot = 0; slot < HEAP_SLOTS && !has; slot++)
        has = (is_for(heap, slot, kind) ||
               (heap->process->mixes[kind] && is_for(heap, slot, other_kind(kind)))) &&
              buddy_largest_order(heap->buddies[slot]) >= (int)order;
    pthread_mutex_unlock(&heap->process->pool_lock);
    return has;
}

int pool_grow(struct acre_heap *heap, unsigned order, enum pool_kind kind, unsigned class_plus_1,
              uint32_t *ret_slab)
{
    struct msg_request req = {.op = MSG_GROW,
                              .grow = {.n_units = 1u << order,
                                       .align_order = order,
                                       .soft = kind == POOL_SOFT,
                                       .class_plus_1 = class_plus_1}};
    struct msg_reply reply;
    int r = conn_enter(heap);

    if (r < 0)
        return r;
    r = accept_late(heap);
    if (r == 0 && !pool_has(heap, order, kind)) { /* else another thread was faster */
        keep_more(heap, 1u << order);
        r = request_units(heap, &req, 1u << order, &reply);
        if (r == 0)
            r = accept_span(heap, &reply, kind, ret_slab);
    }
    conn_leave(heap);
    return r;
}

/* A run for one large block. False: the daemon has taken some of it back. */
static bool accept_exact(struct acre_heap *heap, const struct msg_reply *reply, uint32_t n_units)
{
    uint32_t unit = run_unit(&reply->grow.run), lost;

    if (claim(heap, unit, n_units, &lost)) {
        map_prepared(heap, reply);
        return true;
    }
    if (pool_table_units(heap, unit, n_units) == n_units) /* the others are still ours */
        (void)pool_put(heap, unit, n_units);
    return false;
}

int pool_grow_exact(struct acre_heap *heap, uint32_t n_units, unsigned align_order,
                    enum pool_kind kind, uint32_t *ret_unit)
{
    struct msg_request req = {.op = MSG_GROW,
                              .grow = {.n_units = n_units,
                                       .align_order = align_order,
                                       .exact = true,
                                       .soft = kind == POOL_SOFT}};
    struct msg_reply reply;
    int r = conn_enter(heap);

    if (r < 0)
        return r;
    r = request_units(heap, &req, n_units, &reply);
    conn_leave(heap);
    if (r < 0)
        return r;
    *ret_unit = run_unit(&reply.grow.run);
    if (accept_exact(heap, &reply, n_units))
        return 0;
    return fail(ENOMEM, "the daemon took the granted units back under pressure");
}

int pool_wait(struct acre_heap *heap, const struct msg_request *req, uint32_t *ret_unit)
{
    struct msg_reply reply;
    uint32_t n_units = req->wait.n_units;
    int r = conn_enter(heap);

    if (r < 0)
        return r;
    *ret_unit = BUDDY_NONE;
    r = request_units(heap, req, n_units, &reply);
    bool is_granted = r == 0 && reply.op == MSG_GROW;
    if (is_granted && !req->wait.exact)
        r = accept_span(heap, &reply, POOL_HARD, ret_unit);
    conn_leave(heap);
    if (is_granted && req->wait.exact && accept_exact(heap, &reply, n_units))
        *ret_unit = run_unit(&reply.grow.run);
    return r == 0 ? is_granted : r;
}

/* ---- giving back ---- */

static int request_release(struct acre_heap *heap, const struct msg_run *runs, uint32_t n_runs)
{
    int r = conn_enter(heap);

    if (r < 0)
        return r;
    r = release_locked(heap, runs, n_runs);
    conn_leave(heap);
    return r;
}

/* So that nothing is taken out of the pool for a daemon that is not there. */
static int look_for_daemon(struct acre_heap *heap)
{
    int r = conn_enter(heap);

    if (r < 0)
        return r;
    r = conn_ensure(heap);
    if (r == 0)
        r = accept_late(heap);
    conn_leave(heap);
    return r;
}

void pool_release(struct acre_heap *heap, uint32_t unit, uint32_t n_units)
{
    struct msg_run run = {.off = (uint64_t)unit << UNIT_SHIFT, .n_units = n_units};

    /* If the daemon cannot be reached the units stay ours in its books, until this process ends. */
    (void)request_release(heap, &run, 1);
}

/* Takes the largest free spans out of the pool until keep_units are left. */
static uint32_t collect_surplus(struct acre_heap *heap, uint32_t keep_units, struct msg_run *runs)
{
    struct process *p = heap->process;
    uint32_t n_runs = 0;

    pthread_mutex_lock(&p->pool_lock);
    for (unsigned slot = HEAP_SLOTS; slot-- > 0 && p->pool_units > keep_units;) {
        int order;
        while (heap->buddies[slot] && p->pool_units > keep_units && n_runs < MSG_RUNS_MAX &&
               (order = buddy_largest_order(heap->buddies[slot])) >= 0) {
            uint32_t surplus = p->pool_units - keep_units;
            order = MIN(order, 63 - __builtin_clzll(surplus));
            uint32_t unit = take_from_slot(heap, slot, (unsigned)order);
            if (unit != BUDDY_NONE)
                runs[n_runs++] = (struct msg_run){(uint64_t)unit << UNIT_SHIFT, 1u << order};
        }
    }
    pthread_mutex_unlock(&p->pool_lock);
    return n_runs;
}

int pool_trim(struct acre_heap *heap, uint32_t keep_units)
{
    struct msg_run runs[MSG_RUNS_MAX];
    uint32_t n_runs;
    int saved_errno = errno, r = look_for_daemon(heap);

    /* Should it fail, nothing goes back into the pool: the daemon may still execute it. */
    while (r == 0 && (n_runs = collect_surplus(heap, keep_units, runs)) > 0)
        r = request_release(heap, runs, n_runs);
    errno = saved_errno;
    return r;
}

int heap_trim(struct acre_heap *heap, bool punch)
{
    struct cache *cache = cache_here(heap);

    if (self_id(heap) == 0) /* a forked child that has not attached holds nothing */
        return 0;
    soft_tell_freed(heap);
    if (cache && cache->token != 0)
        cache_trim(heap, cache, punch);
    cache_trim_idle(heap, punch);
    return pool_trim(heap, 0);
}

int acre_trim(struct acre_heap *heap)
{
    int saved_errno = errno, r = heap_trim(heap, true);

    heed(heap, NULL);
    errno = saved_errno;
    return r;
}
