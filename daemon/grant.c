/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Grants, theory.
 *
 * HOW MUCH. A client that holds h units gets about h/2 + 4 more, as one span: 4 units (32 KiB) at
 * first, so that hundreds of small clients fit into a small heap; half of what it has later, so
 * that a growing client asks O(log n) times; at most 512 (4 MiB: a copy-free round trip every 4 MiB
 * is noise), and at most a 16th of what the tenant has left, so that the last memory is not locked
 * up in one client's reserve. Never less than what was asked.
 *
 * SOFT blocks get segments of their own, so that these can go as a whole when others need memory;
 * what finds no room otherwise is put beside the others.
 *
 * PREPARED. What a grant would take is also what prepare.c has made pages for: grant_ahead() asks
 * the same functions, and lets go.
 *
 * FROM WHERE. 1. a parked slab of the class asked for. 2. free spans of existing segments, the
 * wanted size first, then smaller ones. 3. a new segment, for which what is only ready makes room
 * (yield.c), and which is kept before anything of it is granted (deposit.c). 4. what nobody uses:
 * empty orphans, large blocks whose freer died before it told, and units that others were granted
 * but have not cut (search.c). Above its high 4. comes before 3.
 *
 * TAKING BACK. A granted unit that its client has not cut says U_UNCUT. The client takes it by CAS
 * U_UNCUT -> U_CUT, the daemon by CAS U_UNCUT -> U_FREE: one wins, and the loser finds out. A
 * client may so be told of a run that is no longer its own when it looks.
 *
 * ORDER. Books first (owner = id), then the entries, then the reply. A unit that comes back:
 * entries U_FREE, then books, then the buddy. Owner and entry disagree in between for the loop
 * alone: clients believe entries, the daemon believes books.
 *
 * COST. A grow out of existing segments is a few bitmap scans per segment and one store of 2 + 8
 * bytes for each unit.
 */
#include "daemon/grant.h"

#include "daemon/deposit.h"
#include "daemon/retire.h"
#include "daemon/room.h"
#include "daemon/search.h"
#include "daemon/segments.h"
#include "daemon/share.h"
#include "daemon/soft.h"
#include "daemon/yield.h"

#define GROW_FIRST_UNITS 4u
#define GROW_UNITS_MAX   (1u << GRANT_ORDER_MAX)
#define ALIGN_ORDER_MAX                                                                            \
    16u /* 512 MiB: an aligned run of it still lies inside a slot, behind the tables */

struct want {
    const struct client *client;
    uint32_t n_units;            /* at least; exactly, if exact */
    unsigned align_order, order; /* not exact: a span of 2^order is wanted, 2^order_min is needed */
    unsigned order_min;
    uint64_t use_left_bytes; /* and 1: room_use_left(), or 0 if nobody knows yet */
    bool exact;
    bool soft;
    bool may_mix;  /* a segment of the other kind will do, too */
    bool ahead;    /* for its pages only */
    bool may_stay; /* what is retiring will do, too */
};

static unsigned log2_floor(uint64_t n)
{
    return 63u - (unsigned)__builtin_clzll(n | 1);
}

static int make_want(const struct tenant *t, const struct client *c, const struct msg_request *req,
                     struct want *ret)
{
    uint32_t n = req->grow.n_units;
    if (n == 0 || req->grow.align_order > 63 || req->grow.class_plus_1 > N_CLASSES)
        return -EINVAL;
    if (n >= HEAP_UNITS || req->grow.align_order > ALIGN_ORDER_MAX)
        return -ENOMEM;
    ret->client = c;
    ret->n_units = n;
    ret->align_order = req->grow.align_order;
    ret->soft = req->grow.soft;
    /* A span of more than half a slot would want a slot without tables. */
    ret->exact = req->grow.exact || n > SLOT_UNITS / 2;
    ret->order_min = MAX(log2_ceil_u64(n), ret->align_order);
    uint64_t left = (budget_left(&t->budget) + t->budget.charged_bytes) / UNIT_BYTES;
    left -= MIN(left, t->granted_units);
    uint64_t target = MIN(MIN(c->n_units / 2 + GROW_FIRST_UNITS, GROW_UNITS_MAX), left / 16);
    ret->order = MAX(log2_floor(target), ret->order_min);
    return 0;
}

bool grant_needs(uint32_t n_units, uint32_t align_order, bool exact, uint32_t *ret_n,
                 unsigned *ret_align_order)
{
    if (n_units >= HEAP_UNITS || align_order > ALIGN_ORDER_MAX)
        return false;
    bool is_exact = exact || n_units > SLOT_UNITS / 2;
    unsigned order = is_exact ? 0 : MAX(log2_ceil_u64(n_units), align_order);
    *ret_n = is_exact ? n_units : 1u << order;
    *ret_align_order = is_exact ? align_order : order;
    return true;
}

/* However large the segment is. But one of which the client could let go is replaced (room.c). */
static bool is_promised(const struct tenant *t, const struct seg *seg, const struct want *want)
{
    return share_is_promised(&t->budget.share, want->n_units * UNIT_BYTES) &&
           retire_maps(want->client, seg);
}

/* What is late goes nowhere: it counts as used already (room.c). The share moves a little with
 * everything that others do: a segment that was made for all of it is not to go for that. */
static bool may_use_whole(struct tenant *t, const struct seg *seg, struct want *want)
{
    uint64_t size_bytes = seg->shape.size_bytes;
    if (want->use_left_bytes == 0) {
        uint64_t left_bytes = room_use_left(t, want->n_units * UNIT_BYTES);
        want->use_left_bytes = 1 + MIN(left_bytes, HEAP_BYTES);
    }
    return seg->is_late || size_bytes - size_bytes / SHARE_SLACK < want->use_left_bytes ||
           is_promised(t, seg, want);
}

static bool hold_from(struct tenant *t, struct seg *seg, struct want *want, unsigned order,
                      struct grant *ret)
{
    uint32_t unit, n = want->exact ? want->n_units : 1u << order;
    if (seg->is_soft != want->soft && !want->may_mix)
        return false;
    if (seg_n_free(seg) < n || (!seg->is_kept && !want->ahead) ||
        (seg->is_retiring && (!want->may_stay || seg->n_letting_go > 0)))
        return false;
    if (seg->is_known && !want->ahead && seg_n_free(seg) == seg_usable(seg) &&
        !may_use_whole(t, seg, want))
        return false;
    unit = want->exact ? seg_hold_run(seg, n, want->align_order) : seg_hold_span(seg, order);
    if (unit == BUDDY_NONE)
        return false;
    *ret = (struct grant){.seg = seg, .unit = unit, .n_units = n};
    return true;
}

static bool hold_order(struct tenant *t, struct want *want, unsigned order, struct grant *ret)
{
    for (uint32_t slot = 0; slot < t->n_slots; slot++)
        if (t->segs[slot] && hold_from(t, t->segs[slot], want, order, ret))
            return true;
    return false;
}

static bool hold_existing(struct tenant *t, struct want *want, struct grant *ret)
{
    if (want->exact)
        return hold_order(t, want, 0, ret);
    for (unsigned order = want->order + 1; order-- > want->order_min;)
        if (hold_order(t, want, order, ret))
            return true;
    return false;
}

/* Rather than a new one. */
static bool hold_retiring(struct tenant *t, const struct want *want, struct grant *ret)
{
    struct want any = *want;
    any.may_stay = true;
    if (t->n_retiring == 0 || !hold_existing(t, &any, ret))
        return false;
    if (ret->seg->is_retiring)
        retire_not(t, ret->seg);
    return true;
}

uint32_t grant_ahead(struct tenant *t, unsigned order, uint64_t n_units, struct grant *ret_grants,
                     uint32_t n_max)
{
    struct want want = {.n_units = 1, .order = order, .ahead = true};
    uint32_t n = 0;
    for (uint64_t sum = 0; n < n_max && sum < n_units; n++) {
        if (!hold_existing(t, &want, &ret_grants[n]))
            break;
        sum += ret_grants[n].n_units;
        want.order = log2_floor(ret_grants[n].n_units); /* larger ones there are no more */
    }
    for (uint32_t i = 0; i < n; i++)
        seg_let_go(ret_grants[i].seg, ret_grants[i].unit, ret_grants[i].n_units);
    return n;
}

/* -EINPROGRESS: one is on its way. Else what make_room() is asked about. */
static int make_new(struct tenant *t, uint32_t n, unsigned align, bool is_soft)
{
    if (t->deposit_error < 0 && t->is_waking)
        return t->deposit_error;
    int r = 0;
    if (t->n_unkept > 0)
        deposit_again(t);
    else
        r = segments_add(t, n, align, is_soft);
    if (r < 0)
        return r;
    return t->n_depositing > 0 ? -EINPROGRESS : t->deposit_error; /* no memory for a job */
}

static bool is_free(const struct seg *seg)
{
    return seg_n_free(seg) == seg_usable(seg);
}

/* Makes free segments out of soft ones, until another of n_units could come instead (room.c). */
static int free_segments(struct tenant *t, uint64_t n_units, struct rounds *rounds)
{
    int r = rounds->no_segments ? -ENOENT : 0;
    while (r == 0 && budget_left(&t->budget) + yield_bytes(t, is_free) < n_units * UNIT_BYTES)
        r = soft_take_segment(t);
    rounds->no_segments |= r == -ENOENT;
    return r == -EINPROGRESS ? r : -ENOMEM;
}

/* Out of its own soft memory: what is the oldest, if little is wanted; then what lies side by side;
 * then whole segments, in whose place one of n_units may come. -ENOMEM: nothing fits yet. */
static int hold_soft(struct tenant *t, struct want *want, uint64_t n_units, struct rounds *rounds,
                     struct grant *ret)
{
    uint32_t n = want->exact ? want->n_units : 1u << want->order_min;
    unsigned align = want->exact ? want->align_order : want->order_min;
    uint64_t bytes = 0;
    int r = n > GROW_UNITS_MAX ? 0 : soft_take(t, n * UNIT_BYTES, rounds, &bytes);
    if (bytes > 0 && hold_existing(t, want, ret))
        return 0;
    if (r == 0)
        r = soft_take_piece(t, n + (1ull << align) - 1, rounds, &bytes);
    if (bytes > 0 && hold_existing(t, want, ret))
        return 0;
    return r < 0 ? r : free_segments(t, n_units, rounds);
}

/* Of a segment that make_new() could not make. 0: it is not needed. -EINPROGRESS: room is on its
 * way. */
static int make_room(struct tenant *t, const struct client *c, struct want *want, uint64_t n_units,
                     int error, struct rounds *rounds, struct grant *ret)
{
    bool is_own = error == -EDQUOT || budget_left(&t->budget) < n_units * UNIT_BYTES;
    int r = -ENOMEM;
    t->room.is_shared_out = error == -EDQUOT;
    if (error != -ENOMEM && error != -ENOSPC && error != -EDQUOT)
        return error;
    if (error != -EDQUOT && yield_room(t, n_units))
        return -EINPROGRESS;
    if (is_own)
        r = hold_soft(t, want, n_units, rounds, ret);
    if (r != -ENOMEM)
        return r;
    if (room_wanted(c, n_units))
        return -EINPROGRESS;
    if (!is_own)
        r = hold_soft(t, want, n_units, rounds, ret);
    if (r != -ENOMEM)
        return r;
    if (!is_own && room_wanted(c, n_units)) /* segments are free now, perhaps */
        return -EINPROGRESS;
    return error == -EDQUOT ? -ENOMEM : error;
}

/* ---- what nobody uses ---- */

/* The freed large block with its head at unit comes back, if it is one. */
static int free_large_at(struct tenant *t, struct seg *seg, uint32_t unit)
{
    if (unit >= seg->shape.n_table)
        return -EINVAL;
    tag_t owner = tenant_owner(t, seg, unit);
    uint64_t entry = seg_entry(seg, unit);
    uint32_t n = unit_entry_large_units(entry);
    if (owner == OWNER_NONE || unit_entry_state(entry) != U_LARGE || !seg_contains(seg, unit, n) ||
        !tenant_all_owned(t, seg, unit, n, owner) ||
        (owner == OWNER_ORPHAN && !orphan_is_large(t, seg, unit, n)))
        return -EINVAL;
    /* The head is written after its tag, and who holds the units never makes that 0: tag 0 under
     * U_LARGE is a block that another client freed, and stays so. A block marked LARGE_KEPT is
     * whoever's takes the mark away. */
    if (unit_entry_is_soft(entry) || seg_large_tag(seg, unit, entry) != TAG_FREE ||
        !seg_cas_entry(seg, unit, entry, unit_entry_plain(U_FREE, 0)))
        return -EINVAL;
    if (owner == OWNER_ORPHAN)
        orphan_forget(t, seg, unit);
    tenant_take_back(t, seg, unit, n, owner);
    return 0;
}

int grant_free_large(struct tenant *t, uint64_t off)
{
    uint32_t unit;
    struct seg *seg = tenant_locate(t, off, false, &unit);
    return seg ? free_large_at(t, seg, unit) : -EINVAL;
}

void grant_free_swept(struct tenant *t, uint64_t off)
{
    uint32_t unit;
    struct seg *seg = tenant_locate(t, off, false, &unit);
    if (seg && tenant_owner(t, seg, unit) != OWNER_ORPHAN)
        (void)free_large_at(t, seg, unit);
}

/* ---- the requests ---- */

/* Out of what nobody uses: until the want is met, or the round is over. */
static int hold_searched(struct tenant *t, const struct client *c, struct want *want,
                         struct rounds *rounds, struct grant *ret)
{
    if (rounds->search == 0)
        rounds->search = search_begin(t);
    while (t->search.n_rounds < rounds->search) {
        uint64_t granted_units = t->granted_units;
        if (!search_step(t, c))
            return -EINPROGRESS;
        if (t->granted_units < granted_units && hold_existing(t, want, ret))
            return 0;
    }
    return -ENOMEM;
}

/* Nothing that is free will do. */
static int hold_new(struct tenant *t, const struct client *c, struct want *want,
                    struct rounds *rounds, struct grant *ret)
{
    int searched = -ENOMEM;
    if (budget_high_left(&t->budget) < want->n_units * UNIT_BYTES) /* first its own */
        searched = hold_searched(t, c, want, rounds, ret);
    if (searched != -ENOMEM)
        return searched;
    uint32_t n = want->exact ? want->n_units : 1u << want->order_min;
    unsigned align = want->exact ? want->align_order : want->order_min;
    int r = make_new(t, n, align, want->soft);
    want->may_mix = true;
    if (r != -EINPROGRESS && hold_existing(t, want, ret))
        return 0;
    if (r != -EINPROGRESS)
        r = make_room(t, c, want, segments_units_for(n, align), r, rounds, ret);
    if (r == 0 || r == -EINPROGRESS)
        return r;
    searched = hold_searched(t, c, want, rounds, ret);
    return searched == 0 || searched == -EINPROGRESS || r == -ENOSPC ? searched : r;
}

int grant_grow(struct tenant *t, struct client *c, const struct msg_request *req,
               struct rounds *rounds, struct grant *ret)
{
    struct want want = {0};
    int r = make_want(t, c, req, &want);
    if (r < 0)
        return r;
    struct orphan o;
    if (req->grow.class_plus_1 > 0 && orphan_grant(t, c, req->grow.class_plus_1 - 1, &o)) {
        *ret = (struct grant){t->segs[o.slot], o.unit, o.n_units, true, false};
        return 0;
    }
    if (!hold_existing(t, &want, ret) && !hold_retiring(t, &want, ret)) {
        r = hold_new(t, c, &want, rounds, ret);
        if (r < 0)
            return r;
    }
    ret->prepared = seg_commit(ret->seg, ret->unit, ret->n_units);
    tenant_assign(t, ret->seg, ret->unit, ret->n_units, OWNER_NONE, c->id);
    seg_store_plain(ret->seg, ret->unit, ret->n_units, U_UNCUT, holder_token(c->id, 0));
    return 0;
}

/* Those of [unit, unit + n) that are the client's. */
static void take_back_own(struct tenant *t, struct client *c, struct seg *seg, uint32_t unit,
                          uint32_t n)
{
    uint32_t end = unit + n, from = unit, len;
    if (!seg->buddy) {
        if (tenant_all_owned(t, seg, unit, n, c->id))
            tenant_take_back(t, seg, unit, n, c->id);
        return;
    }
    while ((from = books_next_owned(t->books, seg->slot, from, end, c->id)) < end) {
        for (len = 1; from + len < end && tenant_owner(t, seg, from + len) == c->id;)
            len++;
        tenant_take_back(t, seg, from, len, c->id);
        from += len;
    }
}

/* Its client may have asked once more meanwhile, and all of it been taken back, and granted. */
void grant_undo(struct tenant *t, struct client *c, const struct grant *grant)
{
    search_take_run(t, grant->seg, grant->unit, grant->n_units, c->id);
}

int grant_release(struct tenant *t, struct client *c, const struct msg_run *run)
{
    uint32_t unit, n = run->n_units;
    struct seg *seg = tenant_locate(t, run->off, false, &unit);
    if (!seg || !seg_contains(seg, unit, n))
        return -EINVAL;
    if (tenant_all_owned(t, seg, unit, n, c->id)) {
        tenant_take_back(t, seg, unit, n, c->id);
        return 0;
    }
    take_back_own(t, c, seg, unit, n); /* repeated, perhaps: a daemon was killed at half of it */
    return -EINVAL;
}
