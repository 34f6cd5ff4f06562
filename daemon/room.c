/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Room, theory. A request fails at a wall; what others hold and do not use, or have beyond their
 * share, would move it.
 *
 * WANTING. Who fails wants room, for WANT_NS after each failure: for what it asked, and for some
 * more, not to fail with each block anew. A request may wait WAIT_NS for what others give, then no
 * other one for WANT_NS.
 *
 * IDLE memory is for whoever wants it. Each tenant that could help is pressed: its clients give
 * back what is idle when they next come by (pressure_seq), what they have not cut is taken
 * (search.c), and of the segments that are empty then as many retire as are needed, the smallest
 * that suffices, or the largest first. What a tenant was promised stays its own. Who sleeps and has
 * given nothing since it was rung is rung again after twice the time, up to WANT_NS.
 *
 * SHARES. Who wants room demands it for DEMAND_NS. As long as anybody demands, all are measured by
 * their shares (share.c): who has more is told so (pressure.c), and nobody is granted a segment,
 * nor units of one that is free as a whole, that leaves less than their share to others. Who has
 * its share already presses others once a second only: they would have empty pools all the time.
 *
 * HIGH and lowered MAX. Who is above gives up its own: its clients are pressed, its empty segments
 * retire. SOFT memory of who is above these, or above its share while others want, empties segments
 * by itself (soft.c).
 *
 * COST. While room is wanted: every PUMP_NS a walk over all segments of all tenants, the shares, a
 * walk more for each of the few for whom is chosen then, and 2 ms of search in one of the heaps
 * that are pressed. While somebody is above its limits the same at each tick at which it has
 * changed.
 */
#include "daemon/room.h"

#include "daemon/event.h"
#include "daemon/memory.h"
#include "daemon/pressure.h"
#include "daemon/retire.h"
#include "daemon/search.h"
#include "daemon/share.h"
#include "daemon/soft.h"
#include "daemon/yield.h"
#include "daemon/zombie.h"

#define WAIT_NS     100000000ull
#define WANT_NS     1000000000ull
#define PUMP_NS     5000000ull
#define DEMAND_NS   300000000ull
#define TICKET_NS   1500000000ull /* longer than from one look to the next; ticket.c */
#define ROOM_MIN    MIB(4)
#define WANTING_MAX 8u /* for whom is chosen at a time */

/* ---- shares ---- */

static bool demands(const struct tenant *t)
{
    return t->core->now_ns < t->room.demand_until_ns;
}

/* True: it was something else before. */
static bool say(struct share *s, uint64_t use_bytes, uint64_t want_bytes, uint64_t need_bytes,
                bool is_deaf)
{
    uint64_t stuck_bytes = is_deaf ? use_bytes : 0;
    bool is_new = s->use_bytes != use_bytes || s->want_bytes != want_bytes ||
                  s->need_bytes != need_bytes || s->stuck_bytes != stuck_bytes;
    s->stuck_bytes = stuck_bytes;
    s->use_bytes = use_bytes;
    s->want_bytes = want_bytes;
    s->need_bytes = need_bytes;
    return is_new;
}

/* Most requests that are refused change nothing. */
static void find_shares(struct core *core)
{
    const struct ledger *l = &core->ledger;
    bool is_new = core->shared_limits != l->n_limits || core->shared_orphaned != l->orphaned_bytes;
    for (uint32_t i = 0; i < core->n_tenants; i++) {
        struct tenant *t = core->tenants[i];
        uint64_t use_bytes = t->budget.charged_bytes - yield_bytes(t, retire_could);
        is_new |= say(&t->budget.share, use_bytes, demands(t) ? t->room.room_bytes : 0,
                      demands(t) ? t->room.need_bytes : 0, t->pressure.is_deaf);
    }
    core->shared_limits = l->n_limits;
    core->shared_orphaned = l->orphaned_bytes;
    if (is_new)
        share_all(&core->ledger);
}

static bool is_scarce(const struct core *core)
{
    return core->now_ns < core->scarce_until_ns;
}

/* But for what is too little to be worth it. */
static bool has_its_share(const struct tenant *t)
{
    const struct share *s = &t->budget.share;
    return s->use_bytes + s->fair_bytes / SHARE_SLACK >= s->fair_bytes;
}

/* For more than it needs: not for each block anew, and to have its share after a few times. */
static uint64_t room_for(const struct tenant *to, uint64_t need_bytes)
{
    uint64_t has_bytes = to->budget.charged_bytes;
    uint64_t more_bytes = demands(to) && !has_its_share(to) ? has_bytes : has_bytes / 4;
    return MAX(MAX(need_bytes, ROOM_MIN), more_bytes);
}

static bool others_want(const struct tenant *t)
{
    const struct core *core = t->core;
    bool any = false;
    for (uint32_t i = 0; is_scarce(core) && i < core->n_tenants; i++)
        any |= core->tenants[i] != t && demands(core->tenants[i]);
    return any;
}

/* The shares as if it wanted so much. false: no others want anything. */
static bool find_reach(struct tenant *t, uint64_t need_bytes)
{
    struct room saved = t->room;
    if (!others_want(t))
        return false;
    if (!demands(t) || saved.need_bytes != need_bytes) {
        t->room.demand_until_ns = t->core->now_ns + 1;
        t->room.room_bytes = MAX(saved.room_bytes, room_for(t, need_bytes));
        t->room.need_bytes = need_bytes;
    }
    find_shares(t->core);
    t->room = saved;
    return true;
}

/* Of its reach, beyond what it has or uses. */
static uint64_t reach_left(const struct tenant *t, uint64_t has_bytes)
{
    uint64_t reach_bytes = t->budget.share.reach_bytes;
    return reach_bytes == UINT64_MAX ? reach_bytes : reach_bytes - MIN(reach_bytes, has_bytes);
}

uint64_t room_left(struct tenant *t, uint64_t need_bytes)
{
    if (!find_reach(t, need_bytes))
        return UINT64_MAX;
    return reach_left(t, t->budget.charged_bytes);
}

uint64_t room_use_left(struct tenant *t, uint64_t need_bytes)
{
    if (!find_reach(t, need_bytes))
        return UINT64_MAX;
    return reach_left(t, t->budget.share.use_bytes);
}

/* ---- segments ---- */

/* What `to` still needs of others, beyond what is on its way. */
static uint64_t shortage(const struct tenant *to)
{
    uint64_t left = MIN(budget_left(&to->budget), budget_capacity_left(&to->budget));
    uint64_t coming = to->core->yielding_bytes + to->core->retiring_bytes;
    uint64_t reach = to->budget.share.reach_bytes, has = to->budget.share.use_bytes;
    uint64_t room = MIN(to->room.room_bytes, reach - MIN(reach, has));
    return room - MIN(room, left + coming);
}

/* Would its memory help, and is it not what it has been promised? */
static bool may_help(const struct tenant *t, const struct tenant *to)
{
    if (!t->is_open || t == to)
        return t->is_open;
    uint64_t need = to->room.room_bytes;
    bool is_capacity = budget_capacity_left(&to->budget) < need;
    bool is_group = budget_left(&to->budget) < need && budget_shares_wall(&t->budget, &to->budget);
    return (is_capacity || is_group) && budget_spare(&t->budget, &to->budget) > 0;
}

static void choose_for(const struct tenant *to)
{
    struct tenant *owner;
    struct seg *best;
    uint64_t need;
    while ((need = shortage(to)) > 0 && (best = yield_find(to, may_help, retire_may, need, &owner)))
        retire_begin(owner, best);
}

static bool is_itself(const struct tenant *t, const struct tenant *to)
{
    return t == to && t->is_open;
}

static bool is_going(const struct seg *seg)
{
    return seg->is_retiring && !seg->is_late;
}

static bool is_late(const struct seg *seg)
{
    return seg->is_late;
}

/* It is to have so much less: what is free, and then what is soft, unless somebody sleeps on what
 * went before. */
static void choose_own(struct tenant *t, uint64_t over_bytes)
{
    struct tenant *owner;
    struct seg *best;
    uint64_t going;
    while (over_bytes > (going = yield_bytes(t, is_going))) {
        best = yield_find(t, is_itself, retire_may, over_bytes - going, &owner);
        if (best) {
            retire_begin(owner, best);
            continue;
        }
        int r = yield_bytes(t, is_late) > 0 ? -ENOENT : soft_take_segment(t);
        if (r == -EINPROGRESS)
            room_look_at(t->core, t->core->now_ns);
        if (r < 0)
            return;
    }
}

/* ---- pressing ---- */

static const struct client nobody;

/* Who has nothing to give is not kept awake for it. */
static void ring(struct tenant *t)
{
    struct room *r = &t->room;
    uint64_t now_ns = t->core->now_ns;
    if (r->n_rung_changes != t->n_changes || now_ns >= r->ring_at_ns + WANT_NS)
        r->ring_wait_ns = WAIT_NS;
    else if (now_ns < r->ring_at_ns)
        return;
    r->ring_at_ns = now_ns + r->ring_wait_ns;
    r->ring_wait_ns = MIN(2 * r->ring_wait_ns, WANT_NS);
    r->n_rung_changes = t->n_changes;
    event_ring(t);
}

static void press(struct tenant *t)
{
    struct control_header *h = &t->control->header;
    if (t->core->now_ns < t->room.pressed_until_ns)
        return;
    t->room.pressed_until_ns = t->core->now_ns + WAIT_NS;
    t->room.round = search_begin(t);
    __atomic_store_n(&h->pressure_seq, h->pressure_seq + 1, __ATOMIC_RELEASE);
    ring(t);
}

/* Its own tenant's clients are not pressed: what they have not cut has been taken already. False:
 * there are no others. */
static bool press_others(struct tenant *to)
{
    const struct core *core = to->core;
    bool any = false;
    if (core->now_ns < to->room.press_again_ns)
        return true;
    for (uint32_t i = 0; i < core->n_tenants; i++) {
        struct tenant *t = core->tenants[i];
        if (t == to || !may_help(t, to))
            continue;
        press(t);
        any = true;
    }
    if (any)
        to->room.press_again_ns = core->now_ns + (has_its_share(to) ? WANT_NS : WAIT_NS);
    return any;
}

/* In one heap a turn: 2 ms. */
static bool search(struct tenant *t)
{
    if (t->core->now_ns >= t->room.pressed_until_ns || t->search.n_rounds >= t->room.round)
        return false;
    while (t->search.n_rounds < t->room.round && search_step(t, &nobody))
        ;
    return true;
}

/* ---- the request ---- */

/* Of retired segments that somebody may map yet: it may come back. */
static uint64_t limbo_bytes(const struct tenant *t)
{
    uint64_t bytes = 0;
    for (uint32_t slot = 0; slot < t->n_slots; slot++)
        bytes += t->is_limbo[slot] ? t->books->segment[slot].size_bytes : 0; /* 0 inside of one */
    return bytes;
}

/* Retiring, perhaps. */
static bool is_free(const struct seg *seg)
{
    return seg_n_free(seg) == seg_usable(seg);
}

/* What it could have at most, if all others gave all they have. */
static uint64_t most_for(struct tenant *to)
{
    struct budget *b = &to->budget;
    uint64_t own_bytes = b->total_bytes - yield_bytes(to, is_free) - limbo_bytes(to);
    return MIN(budget_ceiling(b), b->limits.max_bytes - MIN(b->limits.max_bytes, own_bytes));
}

static void want(struct tenant *t, uint64_t need_bytes, uint64_t most_bytes)
{
    struct room *r = &t->room;
    uint64_t before_bytes = demands(t) ? r->room_bytes : 0, now_ns = t->core->now_ns;
    r->room_bytes = MAX(before_bytes, MIN(room_for(t, need_bytes), most_bytes));
    r->need_bytes = need_bytes;
    r->wanted_until_ns = now_ns + WANT_NS;
    r->demand_until_ns = now_ns + (t->tickets.n_waiting > 0 ? TICKET_NS : DEMAND_NS);
    t->core->scarce_until_ns = MAX(t->core->scarce_until_ns, r->demand_until_ns);
    room_look_at(t->core, t->core->now_ns + PUMP_NS);
}

/* Returns what those who want and have less than their share miss. */
static uint64_t share_out(struct core *core)
{
    if (is_scarce(core))
        find_shares(core);
    core->told_ns = core->now_ns;
    return pressure_tell(core, is_scarce(core));
}

/* What it may not use any more makes way for what it may have. */
static void replace_own(struct tenant *t, uint64_t need_bytes)
{
    uint64_t bytes = t->budget.charged_bytes + need_bytes,
             reach_bytes = t->budget.share.reach_bytes;
    if (t->room.is_shared_out && bytes > reach_bytes)
        choose_own(t, bytes - reach_bytes);
}

/* Until when may a request wait? 0: it may not. A promise is kept at the latest when a segment that
 * goes for it is late. */
static uint64_t wait_until(struct tenant *to, const struct client *asking, uint64_t need_bytes)
{
    uint64_t now_ns = to->core->now_ns;
    bool may_come = press_others(to) || retire_others_map(to, asking) || limbo_bytes(to) > 0;
    if (share_is_promised(&to->budget.share, need_bytes) && yield_bytes(to, is_going) > 0)
        return now_ns + RETIRE_LATE_NS + 2 * PUMP_NS;
    return may_come && now_ns >= to->room.wait_again_ns ? now_ns + WAIT_NS : 0;
}

bool room_wanted(const struct client *asking, uint64_t n_units)
{
    struct tenant *to = asking->tenant;
    struct room *r = &to->room;
    uint64_t now_ns = to->core->now_ns, need_bytes = n_units * UNIT_BYTES;
    uint64_t most_bytes = most_for(to);
    if (to->core->is_stopping || need_bytes > most_bytes)
        return false;
    want(to, need_bytes, most_bytes);
    if (now_ns >= to->core->told_ns + PUMP_NS)
        (void)share_out(to->core);
    else /* all are told in the loop: many may be refused in one turn */
        find_shares(to->core);
    replace_own(to, need_bytes);
    choose_for(to);
    uint64_t until_ns = wait_until(to, asking, need_bytes);
    if (r->wait_until_ns == 0 && until_ns > 0) {
        r->wait_until_ns = until_ns;
        r->wait_again_ns = until_ns + WANT_NS;
    }
    return now_ns < r->wait_until_ns;
}

void room_satisfied(struct tenant *t)
{
    struct room *r = &t->room;
    if (t->n_waiters > 0 || t->tickets.n_waiting > 0)
        return;
    r->wanted_until_ns = r->demand_until_ns = r->wait_until_ns = r->need_bytes = 0;
}

/* ---- in the loop ---- */

/* Who waited for it is tried for the last time. */
static void end_wait(struct tenant *t)
{
    memory_wake(t);
    t->room.wait_until_ns = 0;
}

/* False: it wants nothing of others. */
static bool pump_wanting(struct tenant *t, bool chooses)
{
    struct room *r = &t->room;
    uint64_t now_ns = t->core->now_ns;
    if (r->wait_until_ns > 0 && now_ns >= r->wait_until_ns)
        end_wait(t);
    if (r->wanted_until_ns == 0)
        return false;
    if (now_ns >= r->wanted_until_ns) {
        r->wanted_until_ns = r->need_bytes = 0;
        return false;
    }
    if (chooses) {
        (void)press_others(t);
        choose_for(t);
    }
    if (r->wait_until_ns > 0)
        room_look_at(t->core, r->wait_until_ns);
    return true;
}

/* Returns the bytes of segments that could go. */
static uint64_t pump_giving(struct core *core)
{
    uint64_t n_bytes = 0;
    bool has_searched = false, has_waiters = false;
    for (uint32_t i = 0; i < core->n_tenants; i++) {
        struct tenant *t = core->tenants[(core->room_next + i) % core->n_tenants];
        if (!t->is_open)
            continue;
        retire_finish(t);
        has_searched = has_searched || search(t);
        has_waiters |= t->room.wait_until_ns > 0;
        n_bytes += yield_bytes(t, retire_may);
    }
    if (has_waiters && core->zombies)
        zombie_sweep(core);
    return n_bytes;
}

/* It is above a limit of its own. */
static void relieve(struct tenant *t)
{
    if (t->pressure.is_news && t->room.pressed_changes_plus_1 != t->n_changes + 1) {
        press(t);
        t->room.pressed_changes_plus_1 = t->n_changes + 1; /* in vain, if it stays so */
    }
    if (t->core->now_ns < t->room.pressed_until_ns)
        room_look_at(t->core, t->core->now_ns + PUMP_NS);
    choose_own(t, t->pressure.limit_bytes);
}

/* Those above their limits; those above their shares, as long as others miss so much: each of these
 * may miss too little for a segment to go for its sake. */
static void give_up(struct core *core, uint64_t missing_bytes)
{
    for (uint32_t i = 0; i < core->n_tenants; i++) {
        struct tenant *t = core->tenants[(core->room_next + i) % core->n_tenants];
        uint64_t has_bytes = t->budget.charged_bytes, fair_bytes = t->budget.share.fair_bytes;
        if (!t->is_open)
            continue;
        if (t->pressure.limit_bytes > 0)
            relieve(t);
        if (has_bytes > fair_bytes && core->yielding_bytes + core->retiring_bytes < missing_bytes)
            choose_own(t, has_bytes - fair_bytes);
    }
}

void room_pump(struct core *core)
{
    uint32_t n_wanting = 0, next = core->room_next;
    core->room_at_ns = UINT64_MAX;
    uint64_t n_bytes = pump_giving(core);
    give_up(core, share_out(core));
    if (is_scarce(core))
        room_look_at(core, core->now_ns + PUMP_NS);
    for (uint32_t i = 0; i < core->n_tenants; i++) {
        uint32_t at = (next + i) % core->n_tenants;
        bool chooses = n_bytes > 0 && n_wanting < WANTING_MAX;
        if (!core->tenants[at]->is_open || !pump_wanting(core->tenants[at], chooses))
            continue;
        if (chooses)
            core->room_next = at + 1;
        n_wanting++;
    }
    if (n_wanting > 0) {
        core->room_next++;
        room_look_at(core, core->now_ns + PUMP_NS);
    }
}

void room_tick(struct tenant *t)
{
    if (t->n_ticks > 0 && t->pressure.level != PRESSURE_NONE)
        room_look_at(t->core, t->core->now_ns);
}
