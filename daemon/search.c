/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The search, theory.
 *
 * Who would be refused waits until all that nobody uses has been looked for once since it asked.
 * That is a round, in three parts, from the cheap to what hurts others:
 *   1. orphans: empty slabs and large blocks that belong to the daemon. Each slab's map is read.
 *   2. large blocks whose freer died between tag and message: their owner may live and not know; and
 *      soft blocks that were freed while somebody had them pinned.
 *   3. units that others were granted and have not cut; not of who has a ticket (ticket.c) that was
 *      served just now.
 * After each step the caller tries again, so that a round stops where the want is met. Whoever
 * comes later goes on where it stopped, and waits for the end of the next whole round.
 *
 * COST. A round over 100,000 orphans is 80 ms. It is walked in steps, and one request, or one turn
 * for all who wait, takes steps until TURN_STEPS are used up (2 ms). Then is_hungry says that
 * somebody waits for the next turn.
 *
 * Not while a sweep runs: an empty slab could be somebody's data before the sweep has read it.
 */
#include "daemon/search.h"

#include "daemon/grant.h"
#include "daemon/soft.h"

#define TURN_STEPS   65536
#define ORPHAN_STEPS 32 /* a step is a unit looked at */
#define ORPHANS_MAX  256u

static void collect_large(struct tenant *t, struct seg *seg)
{
    for (uint32_t u = seg->shape.n_meta; u < seg->shape.n_table; u++) {
        tag_t owner = tenant_owner(t, seg, u);
        if (owner != OWNER_NONE && owner != OWNER_ORPHAN &&
            unit_entry_state(seg_entry(seg, u)) == U_LARGE)
            (void)grant_free_large(t, seg_off(seg, u));
    }
}

static void take_if_uncut(struct tenant *t, struct seg *seg, uint32_t unit, tag_t owner)
{
    uint64_t entry = seg_entry(seg, unit);
    if (unit_entry_state(entry) != U_UNCUT ||
        !seg_cas_entry(seg, unit, entry, unit_entry_plain(U_FREE, 0)))
        return;
    uint32_t n = seg->buddy ? 1 : seg->span_units;
    tenant_assign(t, seg, unit, n, owner, OWNER_NONE);
    seg_give(seg, unit, n);
}

static void collect_uncut(struct tenant *t, struct seg *seg, const struct client *asking)
{
    for (uint32_t u = seg->shape.n_meta; u < seg->shape.n_table; u++) {
        tag_t owner = tenant_owner(t, seg, u);
        if (owner != OWNER_NONE && owner != OWNER_ORPHAN && owner != asking->id &&
            t->clients.by_id[owner]->shielded_ns <= t->core->now_ns)
            take_if_uncut(t, seg, u, owner);
    }
}

/* A slab of the dead that was handed over, and not begun on: its head is still as orphan_grant()
 * has left it. */
static void take_if_parked(struct tenant *t, struct seg *seg, uint32_t unit, tag_t owner)
{
    uint64_t entry = seg_entry(seg, unit);
    unsigned geo = unit_entry_geo(entry);
    uint32_t n = 1u << geo_infos[geo].order;
    if (entry != unit_entry_slab(U_PARKED, geo, 0, holder_token(owner, 0)) ||
        geo_infos[geo].n_blocks == 0 || !seg_contains(seg, unit, n) ||
        !tenant_all_owned(t, seg, unit, n, owner) ||
        !seg_cas_entry(seg, unit, entry, unit_entry_slab(U_PARKED, geo, 0, HOLDER_NOBODY)))
        return;
    orphan_adopt(t, seg, unit, n, geo, owner);
}

void search_take_run(struct tenant *t, struct seg *seg, uint32_t unit, uint32_t n, tag_t of)
{
    for (uint32_t u = unit; u < MIN(unit + n, seg->shape.n_table); u++)
        if (tenant_owner(t, seg, u) == of) {
            take_if_parked(t, seg, u, of);
            take_if_uncut(t, seg, u, of);
        }
}

void search_take_unknown(struct tenant *t, const struct client *of)
{
    for (uint32_t i = of->n_holdings; i-- > 0;) { /* one that goes is replaced by the last */
        struct holding h = of->holdings[i];
        search_take_run(t, t->segs[h.slot], h.lo, h.hi - h.lo, of->id);
    }
}

/* The next slot of parts 2 and 3. */
static void step_slot(struct tenant *t, const struct client *asking)
{
    struct search *s = &t->search;
    uint32_t slot = s->slot++;
    struct seg *seg = t->segs[slot % t->n_slots];
    if (!seg)
        return;
    s->steps_left -= (int64_t)seg->shape.n_table;
    if (slot < t->n_slots) {
        collect_large(t, seg);
        soft_collect(t, seg);
    } else {
        collect_uncut(t, seg, asking);
    }
}

uint64_t search_begin(const struct tenant *t)
{
    bool is_on = t->search.slot > 0 || t->search.orphan.list > 0 || t->search.orphan.i > 0;
    return t->search.n_rounds + (is_on ? 2 : 1);
}

bool search_has_steps(struct tenant *t)
{
    struct search *s = &t->search;
    if (s->turn_ns != t->core->now_ns)
        s->steps_left = TURN_STEPS;
    s->turn_ns = t->core->now_ns;
    s->is_hungry |= s->steps_left <= 0;
    return s->steps_left > 0;
}

void search_spend(struct tenant *t, uint64_t n_steps)
{
    t->search.steps_left -= (int64_t)n_steps;
}

bool search_step(struct tenant *t, const struct client *asking)
{
    struct search *s = &t->search;
    if (t->is_sweeping)
        return false; /* its end wakes who waits */
    if (!search_has_steps(t))
        return false;
    if (s->orphan.list < ARRAY_LEN(t->orphans.list)) {
        s->steps_left -= ORPHAN_STEPS * (int64_t)orphans_collect(t, &s->orphan, true, ORPHANS_MAX);
        return true;
    }
    if (s->slot < 2 * t->n_slots)
        step_slot(t, asking);
    if (s->slot < 2 * t->n_slots)
        return true;
    s->n_rounds++;
    s->slot = 0;
    s->orphan = (struct orphan_place){0};
    return true;
}
