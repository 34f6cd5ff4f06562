/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Yielding, theory. `ready` is a wish, a grant is a need. Segments that were cut for `ready` take
 * of max, of their groups' max and of the capacity what a grant may want: of another tenant, or of
 * their own, if it is a block that none of them holds.
 *
 * WHICH. Those that no client knows: nothing of them was ever granted, nor mapped. Nobody may write
 * there, so that they can go while the heap lives, and their slots can be used again. Who looks may
 * have one mapped: its charge stays until that has been proven over (zombie.c). What a client maps
 * is asked for, and takes time: retire.c. Of several the smallest that suffices goes, else the
 * largest first; none if all together would not do.
 *
 * ORDER. The segment leaves its tenant at once; a worker frees its pages (130 us a MiB); then the
 * charge comes back, and who waits tries again. A tenant whose pages are being made or punched, or
 * whose segments are being kept just now yields when that job is done. Who has yielded takes for
 * `ready` no more than is left for others then (prepare.c): so a tenant that grows takes ready memory
 * away once for each segment, of which there are log2 of its size and 16 to its share (segments.c).
 *
 * COST. All slots of all tenants, once for each segment that goes; only where else the answer was
 * no.
 */
#include "daemon/yield.h"

#include <fcntl.h>

#include "daemon/memory.h"
#include "daemon/prepare.h"
#include "daemon/segments.h"
#include "daemon/zombie.h"

struct yield_job {
    struct job job;
    struct budget *budget; /* whose it was */
    struct kept kept;
    int fd;
    uint64_t size_bytes;
};

static void yield_work(struct job *job)
{
    struct yield_job *j = (struct yield_job *)job;
    (void)fallocate(j->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)j->size_bytes);
}

static void yield_done(struct core *core, struct job *job)
{
    struct yield_job *j = (struct yield_job *)job;
    core->yielding_bytes -= j->size_bytes;
    zombie_bury(core, j->budget, j->kept, j->fd, j->size_bytes);
    free(j);
    memory_wake_all(core);
}

bool yield_send_away(struct tenant *t, struct seg *seg)
{
    struct yield_job *j = malloc(sizeof(*j));
    if (!j)
        return false;
    *j = (struct yield_job){
        .job = {yield_work, yield_done}, .budget = &t->budget, .size_bytes = seg->shape.size_bytes};
    j->fd = segments_drop(t, seg, &j->kept);
    t->core->yielding_bytes += j->size_bytes;
    t->prepare.has_yielded = true; /* or it would have as much ready again */
    core_submit(t->core, &j->job);
    return true;
}

/* ---- which ---- */

static bool is_busy(const struct tenant *t)
{
    return t->prepare.is_running || t->is_punching || t->n_depositing > 0;
}

uint64_t yield_bytes(const struct tenant *t, yield_seg_fn may_go)
{
    uint64_t bytes = 0;
    for (uint32_t slot = 0; slot < t->n_slots; slot++)
        if (t->segs[slot] && may_go(t->segs[slot]))
            bytes += t->segs[slot]->shape.size_bytes;
    return bytes;
}

static bool is_better(const struct seg *seg, const struct seg *than, uint64_t need_bytes)
{
    uint64_t a = seg->shape.size_bytes, b = than->shape.size_bytes;
    return a < need_bytes ? a > b : b < need_bytes || a < b;
}

struct seg *yield_find(const struct tenant *to, yield_tenant_fn may_give, yield_seg_fn may_go,
                       uint64_t need_bytes, struct tenant **ret_owner)
{
    struct seg *best = NULL;
    for (uint32_t i = 0; i < to->core->n_tenants; i++) {
        struct tenant *t = to->core->tenants[i];
        uint32_t n_slots = may_give(t, to) ? t->n_slots : 0;
        for (uint32_t slot = 0; slot < n_slots; slot++) {
            struct seg *seg = t->segs[slot];
            if (!seg || !may_go(seg) || (best && !is_better(seg, best, need_bytes)))
                continue;
            best = seg;
            *ret_owner = t;
        }
    }
    return best;
}

static bool is_unknown(const struct seg *seg)
{
    return !seg->is_known;
}

uint64_t yield_idle_bytes(const struct tenant *t)
{
    return yield_bytes(t, is_unknown);
}

/* Others get nothing of what t was promised. */
static bool may_yield(const struct tenant *t, const struct tenant *to)
{
    return !is_busy(t) && budget_spare(&t->budget, &to->budget) > 0;
}

static bool may_yield_to_itself(const struct tenant *t, const struct tenant *to)
{
    return t == to && may_yield(t, to);
}

/* Which have a wall in common. */
static bool may_yield_to_its_groups(const struct tenant *t, const struct tenant *to)
{
    return (t == to || budget_shares_wall(&t->budget, &to->budget)) && may_yield(t, to);
}

/* The best one goes. */
static bool yield_best(const struct tenant *to, yield_tenant_fn may_give, uint64_t need_bytes)
{
    struct tenant *owner;
    struct seg *best = yield_find(to, may_give, is_unknown, need_bytes, &owner);
    return best && yield_send_away(owner, best);
}

/* If all of them gave back what is idle? */
static bool would_suffice(struct core *core, const struct tenant *t, uint64_t need_bytes)
{
    for (uint32_t i = 0; i < core->n_tenants; i++)
        budget_refund(&core->tenants[i]->budget, yield_idle_bytes(core->tenants[i]));
    bool is_enough = need_bytes <= budget_left(&t->budget) &&
                     need_bytes <= budget_capacity_left(&t->budget) + core->yielding_bytes;
    for (uint32_t i = 0; i < core->n_tenants; i++)
        budget_restore(&core->tenants[i]->budget, yield_idle_bytes(core->tenants[i]));
    return is_enough;
}

static bool is_coming(const struct core *core, const struct tenant *to)
{
    for (uint32_t i = 0; i < core->n_tenants; i++) {
        const struct tenant *t = core->tenants[i];
        if (is_busy(t) && yield_idle_bytes(t) > 0 && budget_spare(&t->budget, &to->budget) > 0)
            return true;
    }
    return core->yielding_bytes > 0;
}

/* Below the walls, where the room is free at once; its own first, of which it needs slots, too. */
static void yield_below_walls(struct tenant *t, uint64_t n_units)
{
    uint64_t need = n_units * UNIT_BYTES, left;
    while ((left = budget_left(&t->budget)) < need || !segments_have_slots(t, n_units))
        if (!yield_best(t, may_yield_to_itself, need - MIN(need, left)))
            break;
    while ((left = budget_left(&t->budget)) < need)
        if (!yield_best(t, may_yield_to_its_groups, need - left))
            break;
}

bool yield_room(struct tenant *t, uint64_t n_units)
{
    struct core *core = t->core;
    uint64_t need = n_units * UNIT_BYTES, left = budget_capacity_left(&t->budget);
    if (core->is_stopping || !would_suffice(core, t, need))
        return false;
    yield_below_walls(t, n_units);
    while (need > left + core->yielding_bytes)
        if (!yield_best(t, may_yield, need - left - core->yielding_bytes))
            break;
    for (uint32_t i = 0; i < core->n_tenants; i++)
        prepare_pump(core->tenants[i]); /* counts anew what is prepared */
    return is_coming(core, t);
}
