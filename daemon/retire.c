/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Retiring, theory. A segment that a client maps cannot be taken from it: one that is stopped would
 * write there when it goes on. So it stays charged as long as anybody maps it, and clients are
 * asked to let go.
 *
 * MODEL. A segment of which no unit is anybody's
 *   STAYS     until its room is needed elsewhere (room.c);
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
 * KILLS. RETIRING and letting_go are in the books before a client is told, RETIRED before the slot
 * is empty for clients. Who maps what is not: the next daemon takes it that all do, and tells all.
 *
 * SLEEPERS are rung (event.c), at each tick for RING_NS: those who have let go are woken, too. Who
 * does not come by all the same keeps what it maps, and nobody else waits for that: what has been
 * retiring for RETIRE_LATE_NS is not counted on any more.
 *
 * COST. A word and a bit per client and segment.
 */
#include "daemon/retire.h"

#include "daemon/event.h"
#include "daemon/room.h"
#include "daemon/session.h"
#include "daemon/yield.h"
#include "daemon/zombie.h"

#define AGAIN_NS 5000000ull
#define RING_NS  10000000000ull

/* ---- who maps what ---- */

static bool maps(const struct client *c, uint32_t slot)
{
    return c->maps[slot / 64] >> slot % 64 & 1;
}

bool retire_maps(const struct client *c, const struct seg *seg)
{
    return maps(c, seg->slot);
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
        room_look_at(c->tenant->core, c->tenant->core->now_ns);
}

void retire_forget(struct client *c)
{
    struct tenant *t = c->tenant;
    for (uint32_t slot = 0; slot < t->n_slots; slot++)
        if (t->segs[slot])
            let_go(c, t->segs[slot]);
}

/* ---- there and back ---- */

bool retire_may(const struct seg *seg)
{
    return seg->is_known && seg->is_kept && !seg->is_retiring && seg_n_free(seg) == seg_usable(seg);
}

static void count_up(struct tenant *t)
{
    struct control_header *h = &t->control->header;
    __atomic_store_n(&h->retire_seq, h->retire_seq + 1, __ATOMIC_RELEASE);
}

static void tell_all(struct tenant *t)
{
    count_up(t);
    event_ring(t);
}

static void count_retiring(struct tenant *t, const struct seg *seg, bool comes)
{
    uint64_t bytes = seg->is_late ? 0 : seg->shape.size_bytes;
    t->n_retiring += comes ? 1u : -1u;
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

bool retire_could(const struct seg *seg)
{
    return seg->is_kept && !seg->is_late && seg_n_free(seg) == seg_usable(seg);
}

void retire_begin(struct tenant *t, struct seg *seg)
{
    acre_assert(retire_may(seg));
    set_retiring(t, seg, true);
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
    if (seg->is_late || t->core->now_ns < seg->retiring_since_ns + RETIRE_LATE_NS)
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

void retire_finish(struct tenant *t)
{
    for (uint32_t slot = 0; slot < t->n_slots && t->n_retiring > 0; slot++) {
        struct seg *seg = t->segs[slot];
        if (!seg || !seg->is_retiring)
            continue;
        if (seg->n_mappers > 0 || seg->n_letting_go > 0) {
            note_late(t, seg);
            continue;
        }
        if (!send_away(t, seg)) {
            room_look_at(t->core, t->core->now_ns + AGAIN_NS);
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

bool retire_others_map(const struct tenant *t, const struct client *asking)
{
    for (uint32_t slot = 0; slot < t->n_slots; slot++) {
        const struct seg *seg = t->segs[slot];
        if (seg && seg->is_retiring && !maps(asking, slot))
            return true;
    }
    return false;
}

/* Who has not come by then has been rung in vain. */
static bool may_be_heard(const struct tenant *t)
{
    for (uint32_t slot = 0; slot < t->n_slots; slot++)
        if (t->segs[slot] && t->segs[slot]->is_retiring &&
            t->core->now_ns < t->segs[slot]->retiring_since_ns + RING_NS)
            return true;
    return false;
}

void retire_tick(struct tenant *t)
{
    if (t->n_retiring == 0)
        return;
    count_up(t);
    if (may_be_heard(t))
        event_ring(t);
    room_look_at(t->core, t->core->now_ns);
}
