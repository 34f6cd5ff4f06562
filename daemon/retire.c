/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Retiring, theory. A segment that a client maps cannot be taken from it: one that is stopped would
 * write there when it goes on. So it stays charged as long as anybody maps it, and clients are
 * asked to let go.
 *
 * MODEL. A segment of which no unit is anybody's
 *   STAYS     until somebody's request fails at a wall that its going would move;
 *   RETIRING  the control page says so, and nothing is granted from it. Each client that maps it
 *             asks (Retire), unmaps, and says that it has. Does its own tenant need it first, then
 *             it stays after all; but not while one is between question and word (letting_go):
 *             blocks that were cut there meanwhile would vanish under that one's other threads.
 *   RETIRED   no client maps it: its pages go, in a worker. The slot stays empty, and its tenant
 *             charged, until the kernel says that nobody maps the file (zombie.c): not even a forked
 *             child that has never attached. Clients' words alone prove nothing, they only say when
 *             it is worth asking. Then the slot may hold another segment.
 * A segment without a unit of anybody's has no live block, no slab and no block kept by a thread:
 * what still looks there are late hints and stale notes, for which the client leaves pages of zeroes
 * (client/retire.c).
 *
 * ROOM. A request that fails may wait WAIT_NS for what others give, then no other one for WANT_NS;
 * and for so long after each the room is wanted. Meanwhile each tenant that could help is pressed:
 * its clients give back what is idle when they next come by (pressure_seq), what they have not cut
 * is taken (search.c), and of the segments that are empty then as many retire as are needed, the
 * smallest that suffices, or the largest first.
 *
 * KILLS. RETIRING and letting_go are in the books before a client is told, RETIRED before the slot
 * is empty for clients. Who maps what is not: the next daemon takes it that all do, and tells all.
 *
 * SLEEPERS are rung (event.c). Who does not come by all the same keeps what it maps, and nobody else
 * waits for that: what has been retiring for WANT_NS is not counted on any more.
 *
 * COST. While room is wanted: every PUMP_NS a walk over all segments of all tenants, one more for
 * each of the few for whom is chosen then, and 2 ms of search in one of the heaps that are
 * pressed.
 */
#include "daemon/retire.h"

#include "daemon/event.h"
#include "daemon/memory.h"
#include "daemon/search.h"
#include "daemon/session.h"
#include "daemon/yield.h"
#include "daemon/zombie.h"

#define WAIT_NS     100000000ull
#define WANT_NS     1000000000ull
#define PUMP_NS     5000000ull
#define ROOM_MIN    MIB(4)
#define WANTING_MAX 8u /* for whom is chosen at a time */

/* ---- who maps what ---- */

static bool maps(const struct client *c, uint32_t slot)
{
    return c->maps[slot / 64] >> slot % 64 & 1;
}

static void pump_at(struct core *core, uint64_t at_ns)
{
    core->retire_at_ns = MIN(core->retire_at_ns, at_ns);
}

void retire_mapped(struct client *c, struct seg *seg)
{
    seg->n_mappers += !maps(c, seg->slot);
    c->maps[seg->slot / 64] |= 1ull << seg->slot % 64;
}

static void set_letting_go(struct client *c, struct seg *seg, bool lets_go)
{
    c->letting_go = lets_go ? seg->slot + 1 : 0;
    c->tenant->books->client[c->id].letting_go = c->letting_go;
    seg->n_letting_go = lets_go ? seg->n_letting_go + 1 : seg->n_letting_go - 1;
}

static void let_go(struct client *c, struct seg *seg)
{
    if (maps(c, seg->slot))
        seg->n_mappers--;
    c->maps[seg->slot / 64] &= ~(1ull << seg->slot % 64);
    if (c->letting_go == seg->slot + 1)
        set_letting_go(c, seg, false);
    if (seg->is_retiring)
        pump_at(c->tenant->core, c->tenant->core->now_ns);
}

void retire_forget(struct client *c)
{
    struct tenant *t = c->tenant;
    for (uint32_t slot = 0; slot < t->n_slots; slot++)
        if (t->segs[slot])
            let_go(c, t->segs[slot]);
}

/* ---- there and back ---- */

static void tell_all(struct tenant *t)
{
    struct control_header *h = &t->control->header;
    __atomic_store_n(&h->retire_seq, h->retire_seq + 1, __ATOMIC_RELEASE);
    event_ring(t);
}

static void count_retiring(struct tenant *t, const struct seg *seg, bool comes)
{
    uint64_t bytes = seg->is_late ? 0 : seg->shape.size_bytes;
    t->retire.n_retiring += comes ? 1u : -1u;
    t->core->retiring_bytes += comes ? bytes : -bytes;
}

static void set_retiring(struct tenant *t, struct seg *seg, bool is_retiring)
{
    count_retiring(t, seg, is_retiring);
    seg->is_retiring = is_retiring;
    seg->is_late = false;
    seg->retiring_since_ns = t->core->now_ns;
    t->books->segment[seg->slot].retire = is_retiring ? SEGMENT_RETIRING : SEGMENT_STAYS;
    t->control->segment[seg->slot].retire = t->books->segment[seg->slot].retire;
    tell_all(t);
}

void retire_not(struct tenant *t, struct seg *seg)
{
    acre_assert(seg->is_retiring && seg->n_letting_go == 0);
    set_retiring(t, seg, false);
}

static void restore_letting_go(struct tenant *t, struct client *c)
{
    uint32_t slot = t->books->client[c->id].letting_go - 1;
    struct seg *seg = slot < t->n_slots ? t->segs[slot] : NULL;
    if (seg && seg->is_retiring)
        set_letting_go(c, seg, true);
    else
        t->books->client[c->id].letting_go = 0;
}

void retire_restored(struct tenant *t)
{
    for (uint32_t slot = 0; slot < t->n_slots; slot++) {
        struct seg *seg = t->segs[slot];
        if (!seg || !seg->is_known)
            continue;
        if (t->books->segment[slot].retire == SEGMENT_RETIRING &&
            seg_n_free(seg) == seg_usable(seg))
            set_retiring(t, seg, true);
        for (uint32_t id = 1; id < t->clients.next_fresh; id++)
            if (t->clients.by_id[id])
                retire_mapped(t->clients.by_id[id], seg);
    }
    for (uint32_t id = 1; id < t->clients.next_fresh; id++)
        if (t->clients.by_id[id])
            restore_letting_go(t, t->clients.by_id[id]);
    tell_all(t);
}

/* Somebody who maps it sleeps, or does not want to: others are asked for theirs instead. */
static void note_late(struct tenant *t, struct seg *seg)
{
    if (seg->is_late || t->core->now_ns < seg->retiring_since_ns + WANT_NS)
        return;
    seg->is_late = true;
    t->core->retiring_bytes -= seg->shape.size_bytes;
}

/* False: not now. */
static bool send_away(struct tenant *t, struct seg *seg)
{
    if (t->n_jobs > 0) /* one of them may use it */
        return false;
    count_retiring(t, seg, false);
    if (yield_send_away(t, seg))
        return true;
    count_retiring(t, seg, true);
    return false;
}

static void finish(struct tenant *t)
{
    for (uint32_t slot = 0; slot < t->n_slots && t->retire.n_retiring > 0; slot++) {
        struct seg *seg = t->segs[slot];
        if (!seg || !seg->is_retiring)
            continue;
        if (seg->n_mappers > 0 || seg->n_letting_go > 0) {
            note_late(t, seg);
            continue;
        }
        if (!send_away(t, seg)) {
            pump_at(t->core, t->core->now_ns + PUMP_NS);
            return;
        }
        tell_all(t);
    }
}

/* ---- the request ---- */

void retire_request(struct core *core, struct session *s, const struct msg_request *req)
{
    struct client *c = s->client;
    struct tenant *t = c->tenant;
    uint32_t slot = req->retire.slot;
    struct seg *seg = slot < t->n_slots ? t->segs[slot] : NULL;
    if (req->retire.done) {
        if (seg)
            let_go(c, seg);
        session_ok(core, s);
        if (slot < HEAP_SLOTS && t->is_limbo[slot]) /* of what it has inherited */
            zombie_sweep(core);
        return;
    }
    if (!seg || !seg->is_retiring) {
        session_fail(core, s, -EAGAIN, "no segment in slot %u is retiring", slot);
        return;
    }
    if (c->letting_go != 0 && c->letting_go != slot + 1) {
        session_fail(core, s, -EBUSY, "the client is still letting go of segment %u",
                     c->letting_go - 1);
        return;
    }
    if (c->letting_go == 0)
        set_letting_go(c, seg, true);
    session_ok(core, s);
}

/* ---- room ---- */

static bool is_empty(const struct seg *seg)
{
    return seg->is_known && seg->is_kept && !seg->is_retiring && seg_n_free(seg) == seg_usable(seg);
}

/* What `to` still needs of others, beyond what is on its way. */
static uint64_t shortage(const struct tenant *to)
{
    uint64_t left = MIN(budget_left(&to->budget), budget_capacity_left(&to->budget));
    uint64_t coming = to->core->yielding_bytes + to->core->retiring_bytes;
    return to->retire.room_bytes - MIN(to->retire.room_bytes, left + coming);
}

/* Would its memory help, and is it not what it has been promised? */
static bool may_help(const struct tenant *t, const struct tenant *to)
{
    if (!t->is_open || t == to)
        return t->is_open;
    uint64_t need = to->retire.room_bytes;
    bool is_capacity = budget_capacity_left(&to->budget) < need;
    bool is_group = budget_left(&to->budget) < need && budget_shares_wall(&t->budget, &to->budget);
    return (is_capacity || is_group) && budget_spare(&t->budget, &to->budget) > 0;
}

static void choose_for(const struct tenant *to)
{
    struct tenant *owner;
    struct seg *best;
    uint64_t need;
    while ((need = shortage(to)) > 0 && (best = yield_find(to, may_help, is_empty, need, &owner)))
        set_retiring(owner, best, true);
}

static const struct client nobody;

static void press(struct tenant *t)
{
    struct control_header *h = &t->control->header;
    t->retire.pressed_until_ns = t->core->now_ns + WAIT_NS;
    t->retire.round = search_begin(t);
    __atomic_store_n(&h->pressure_seq, h->pressure_seq + 1, __ATOMIC_RELEASE);
    event_ring(t);
}

/* The asking client waits, and cannot let go meanwhile: it does when it has been refused, and asks
 * again (client/large.c). */
static bool others_map(const struct tenant *t, const struct client *asking)
{
    for (uint32_t slot = 0; slot < t->n_slots; slot++) {
        const struct seg *seg = t->segs[slot];
        if (seg && seg->is_retiring && !maps(asking, slot))
            return true;
    }
    return false;
}

/* Its own tenant's clients are not pressed: what they have not cut has been taken already. False:
 * there are no others. */
static bool press_others(struct tenant *to)
{
    const struct core *core = to->core;
    bool any = false;
    if (core->now_ns < to->retire.press_again_ns)
        return true;
    for (uint32_t i = 0; i < core->n_tenants; i++) {
        struct tenant *t = core->tenants[i];
        if (t == to || !may_help(t, to))
            continue;
        if (t->retire.pressed_until_ns <= core->now_ns)
            press(t);
        any = true;
    }
    if (any)
        to->retire.press_again_ns = core->now_ns + WAIT_NS;
    return any;
}

/* Of retired segments that somebody may map yet: it may come back. */
static uint64_t limbo_bytes(const struct tenant *t)
{
    uint64_t bytes = 0;
    for (uint32_t slot = 0; slot < t->n_slots; slot++)
        bytes += t->is_limbo[slot] ? t->books->segment[slot].size_bytes : 0; /* 0 inside of one */
    return bytes;
}

/* What it could have at most, if all others gave all they have. */
static uint64_t most_for(struct tenant *to)
{
    struct budget *b = &to->budget;
    uint64_t own_bytes = b->total_bytes - yield_bytes(to, is_empty) - limbo_bytes(to);
    return MIN(budget_ceiling(b), b->max_bytes - MIN(b->max_bytes, own_bytes));
}

/* Not for each block anew. */
static uint64_t room_for(const struct tenant *to, uint64_t n_units, uint64_t most_bytes)
{
    uint64_t bytes = MAX(MAX(n_units * UNIT_BYTES, ROOM_MIN), to->budget.charged_bytes / 4);
    return MIN(bytes, most_bytes);
}

bool retire_room(const struct client *asking, uint64_t n_units)
{
    struct tenant *to = asking->tenant;
    struct retire *r = &to->retire;
    uint64_t now_ns = to->core->now_ns;
    uint64_t most_bytes = most_for(to);
    if (to->core->is_stopping || n_units * UNIT_BYTES > most_bytes)
        return false;
    r->room_bytes = MAX(r->room_bytes, room_for(to, n_units, most_bytes));
    r->wanted_until_ns = now_ns + WANT_NS;
    choose_for(to);
    bool may_come = press_others(to) || others_map(to, asking) || limbo_bytes(to) > 0;
    pump_at(to->core, now_ns + PUMP_NS);
    if (r->wait_until_ns == 0 && may_come && now_ns >= r->wait_again_ns) {
        r->wait_until_ns = now_ns + WAIT_NS;
        r->wait_again_ns = r->wait_until_ns + WANT_NS;
    }
    return now_ns < r->wait_until_ns;
}

void retire_satisfied(struct tenant *t)
{
    struct retire *r = &t->retire;
    if (t->n_waiters == 0 && t->tickets.n_waiting == 0)
        r->wanted_until_ns = r->wait_until_ns = r->room_bytes = 0;
}

/* ---- in the loop ---- */

/* Who waited for it is tried for the last time. */
static void end_wait(struct tenant *t)
{
    memory_wake(t);
    t->retire.wait_until_ns = 0;
}

/* False: it wants nothing of others. */
static bool pump_wanting(struct tenant *t, bool chooses)
{
    struct retire *r = &t->retire;
    uint64_t now_ns = t->core->now_ns;
    if (r->wait_until_ns > 0 && now_ns >= r->wait_until_ns)
        end_wait(t);
    if (r->wanted_until_ns == 0)
        return false;
    if (now_ns >= r->wanted_until_ns) {
        r->wanted_until_ns = r->room_bytes = 0;
        return false;
    }
    if (chooses) {
        (void)press_others(t);
        choose_for(t);
    }
    if (r->wait_until_ns > 0)
        pump_at(t->core, r->wait_until_ns);
    return true;
}

/* In one heap a turn: 2 ms. */
static bool search(struct tenant *t)
{
    if (t->core->now_ns >= t->retire.pressed_until_ns || t->search.n_rounds >= t->retire.round)
        return false;
    while (t->search.n_rounds < t->retire.round && search_step(t, &nobody))
        ;
    return true;
}

void retire_pump(struct core *core)
{
    uint64_t n_bytes = 0;
    uint32_t n_wanting = 0, next = core->retire_next;
    bool has_searched = false, has_waiters = false;
    core->retire_at_ns = UINT64_MAX;
    for (uint32_t i = 0; i < core->n_tenants; i++) {
        struct tenant *t = core->tenants[(next + i) % core->n_tenants];
        if (!t->is_open)
            continue;
        finish(t);
        has_searched = has_searched || search(t);
        has_waiters |= t->retire.wait_until_ns > 0;
        n_bytes += yield_bytes(t, is_empty);
    }
    if (has_waiters && core->zombies)
        zombie_sweep(core);
    for (uint32_t i = 0; i < core->n_tenants; i++) {
        uint32_t at = (next + i) % core->n_tenants;
        bool chooses = n_bytes > 0 && n_wanting < WANTING_MAX;
        if (!core->tenants[at]->is_open || !pump_wanting(core->tenants[at], chooses))
            continue;
        if (chooses)
            core->retire_next = at + 1;
        n_wanting++;
    }
    if (n_wanting > 0) {
        core->retire_next++;
        pump_at(core, core->now_ns + PUMP_NS);
    }
}

void retire_tick(struct tenant *t)
{
    if (t->retire.n_retiring == 0)
        return;
    tell_all(t);
    pump_at(t->core, t->core->now_ns);
}
