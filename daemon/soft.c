/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Soft blocks, theory. What a pin is and why it holds stands in client/soft.c: here is the other
 * side.
 *
 * TAKE. Least recently used first. All that may be worth it are marked (entry SOFT -> TAKING, by
 * CAS), then one fence, then the lines of all clients that pin are read once, then each that is in
 * none becomes U_FREE, by CAS from TAKING: which fails if somebody has pinned it since. The others
 * are SOFT again. A kill in between leaves marks: whoever pins takes them away, and the next take
 * goes on from there.
 *
 * FREED blocks (tag 0) need no mark, as no pin of them can succeed any more: the lines are read
 * after the tag. They come by name (MSG_SOFT), with their owner's death (reaper.c), and else are
 * found by the search. Whose block is pinned then stays, as an orphan if its client has died.
 *
 * ORDER. By the time of the last pin in milliseconds, as the clients noted it, in classes of a 16th
 * of that age. It is a hint: who forges it keeps or loses memory of its own tenant only.
 *
 * WHOSE. A tenant's request that finds no room takes soft memory of its own tenant: before others
 * are asked if it is at its max or beyond its share, else after (grant.c). Little is taken from the
 * oldest. A large run is taken where the blocks side by side are the least and the oldest; if there
 * is no such place whole segments go, in whose place another one may come. Who has more than its
 * limits, or than its share while others have less, loses whole segments (room.c).
 *
 * TURNS. A heap may have millions of blocks: all is done in steps, as many a turn as the search has
 * (search.h). What is under way is the heap's, not a request's: whoever comes next goes on with it.
 * So the ages are counted once for a PARTth of all blocks to be taken, and a request waits for the
 * end of the first round that began after it came.
 *
 * INVARIANTS. Only this file makes entries TAKING, and none is when it returns. A soft block is
 * freed only after a look at all lines that came after its mark, or its 0.
 *
 * COST. 1 GiB, 131,072 entries: 1 ms to count, or to find a place in. A look: a pread of 3 KB for
 * each client that pins, 0.5 us, or 3 if there are thousands; one look a turn. To give TAKEN_MAX
 * blocks back: about 1 ms. Nothing where nobody has ever pinned.
 */
#include "daemon/soft.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/memory.h"
#include "daemon/search.h"
#include "daemon/session.h"
#include "daemon/tenant.h"

#define TAKEN_MAX 8192u /* blocks at a time */
#define PART      16u
#define AGE_SUBS  16u
#define LOOK_NS   20000000ull
#define AGES      (29u * AGE_SUBS)

/* What things cost, in steps of the search: 30 ns. */
#define WALK_UNITS  8u  /* entries walked over: one step */
#define LINES_STEPS 64u /* the lines of a client */
#define TAKE_STEPS  4u  /* a block */

struct soft_block {
    struct seg *seg;
    uint32_t unit, n_units;
    uint64_t entry;
    tag_t owner;
};

/* ---- lines ---- */

void soft_deinit(struct soft *soft)
{
    free(soft->pins);
    free(soft->is_pinned);
    free(soft->swept);
    free(soft->take.bytes);
    *soft = (struct soft){0};
}

void soft_pins(struct client *c, bool pins)
{
    if (c->pins == pins)
        return;
    c->pins = pins;
    c->tenant->books->client[c->id].pins = pins;
    c->tenant->soft.n_pinning += pins ? 1u : -1u;
    c->tenant->soft.is_used |= pins;
}

static int make_room(struct soft *soft)
{
    if (!soft->is_pinned)
        soft->is_pinned = calloc(HEAP_UNITS / 64, sizeof(*soft->is_pinned));
    if (soft->room - soft->n_pins < PINS) {
        uint32_t room = 2 * soft->room + PINS;
        uint32_t *more = reallocarray(soft->pins, room, sizeof(*more));
        if (!more)
            return -ENOMEM;
        soft->pins = more;
        soft->room = room;
    }
    return soft->is_pinned ? 0 : -ENOMEM;
}

static int read_lines(struct soft *soft, const struct client *c)
{
    uint32_t lines[PINS] = {0}; /* and so they stay if the client has made the page short */
    if (pread(c->life_fd, lines, sizeof(lines), offsetof(struct life_page, pins)) < 0)
        return -errno;
    int r = make_room(soft);
    for (uint32_t i = 0; r == 0 && i < PINS; i++) {
        if (lines[i] == 0 || lines[i] >= HEAP_UNITS)
            continue;
        soft->pins[soft->n_pins++] = lines[i];
        soft->is_pinned[lines[i] / 64] |= 1ull << lines[i] % 64;
    }
    return r;
}

/* Of blocks whose mark was set, or whose tag was 0, before: who has them pinned? */
static void look(struct tenant *t)
{
    struct soft *soft = &t->soft;
    for (uint32_t i = 0; i < soft->n_pins; i++)
        soft->is_pinned[soft->pins[i] / 64] = 0;
    soft->n_pins = 0;
    soft->is_blind = false;
    soft->looked_ns = t->core->now_ns;
    if (soft->n_pinning == 0)
        return;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    for (uint32_t id = 1; id < t->clients.next_fresh && !soft->is_blind; id++) {
        const struct client *c = t->clients.by_id[id];
        if (c && c->pins && c->state == CLIENT_LIVES)
            soft->is_blind = read_lines(soft, c) < 0;
    }
    search_spend(t, (uint64_t)soft->n_pinning * LINES_STEPS + soft->n_pins / 4);
}

/* To choose by: else old blocks that are pinned would be chosen again and again. */
static void look_for_choice(struct tenant *t)
{
    if (t->core->now_ns >= t->soft.looked_ns + LOOK_NS)
        look(t);
}

static bool is_pinned(const struct tenant *t, const struct seg *seg, uint32_t unit)
{
    const struct soft *soft = &t->soft;
    uint32_t key = seg->slot * SLOT_UNITS + unit;
    return soft->is_blind || (soft->n_pins > 0 && (soft->is_pinned[key / 64] >> key % 64 & 1) != 0);
}

/* ---- blocks ---- */

/* Is there one, as far as the books agree? */
static bool find(const struct tenant *t, struct seg *seg, uint32_t unit, struct soft_block *ret)
{
    uint64_t entry = seg_entry(seg, unit);
    uint32_t n = unit_entry_large_units(entry);
    if (!unit_entry_is_soft(entry) || !seg_contains(seg, unit, n))
        return false;
    tag_t owner = tenant_owner(t, seg, unit);
    if (owner == OWNER_NONE || !tenant_all_owned(t, seg, unit, n, owner) ||
        (owner == OWNER_ORPHAN && !orphan_is_run(t, seg, unit, n)))
        return false;
    *ret = (struct soft_block){seg, unit, n, entry, owner};
    return true;
}

static bool is_freed(const struct soft_block *b)
{
    return seg_large_tag(b->seg, b->unit, b->entry) == TAG_FREE;
}

/* Blocks side by side come back as one run. */
struct back {
    struct soft_block run; /* its entries are free; n_units 0: none */
    uint64_t bytes;
};

static void give_run(struct tenant *t, struct back *back)
{
    struct soft_block *run = &back->run;
    if (run->n_units > 0)
        tenant_take_back(t, run->seg, run->unit, run->n_units, run->owner);
    run->n_units = 0;
}

/* What entries say may overlap: the books are asked again, when those before are in them. Nothing,
 * if somebody has changed the entry. */
static void give_back(struct tenant *t, struct back *back, const struct soft_block *b)
{
    struct soft_block *run = &back->run;
    bool goes_on = run->n_units > 0 && run->seg == b->seg && run->owner == b->owner &&
                   run->unit + run->n_units == b->unit;
    if (!goes_on)
        give_run(t, back);
    if (!tenant_all_owned(t, b->seg, b->unit, b->n_units, b->owner) ||
        !seg_cas_entry(b->seg, b->unit, b->entry, unit_entry_plain(U_FREE, 0)))
        return;
    back->bytes += b->n_units * UNIT_BYTES;
    if (b->owner == OWNER_ORPHAN)
        orphan_forget(t, b->seg, b->unit);
    if (goes_on)
        run->n_units += b->n_units;
    else
        *run = *b;
}

static uint64_t give_end(struct tenant *t, struct back *back)
{
    give_run(t, back);
    return back->bytes;
}

static struct soft_block *reserve(uint32_t n)
{
    return malloc(MAX(n, 1u) * sizeof(struct soft_block));
}

/* ---- freed ones ---- */

/* Those with tag 0 were in the list before the look. */
static void collect(struct tenant *t, const struct soft_block *blocks, uint32_t n)
{
    struct back back = {0};
    if (n == 0)
        return;
    look(t);
    for (uint32_t i = 0; i < n; i++)
        if (!is_pinned(t, blocks[i].seg, blocks[i].unit))
            give_back(t, &back, &blocks[i]);
    (void)give_end(t, &back);
}

void soft_collect(struct tenant *t, struct seg *seg)
{
    struct soft_block *blocks = t->soft.is_used ? reserve(TAKEN_MAX) : NULL;
    uint32_t n = 0;
    for (uint32_t u = seg->shape.n_meta; blocks && u < seg->shape.n_table && n < TAKEN_MAX; u++)
        if (find(t, seg, u, &blocks[n])) {
            u += blocks[n].n_units - 1;
            n += is_freed(&blocks[n]);
        }
    collect(t, blocks, n);
    free(blocks);
}

/* Returns how many such there were at these foreign offsets. */
static uint32_t collect_at(struct tenant *t, const uint64_t *offs, uint32_t n_offs)
{
    struct soft_block *blocks = t->soft.is_used && n_offs > 0 ? reserve(n_offs) : NULL;
    uint32_t n = 0, unit;
    for (uint32_t i = 0; blocks && i < n_offs; i++) {
        struct seg *seg = tenant_locate(t, offs[i], false, &unit);
        n += seg && unit < seg->shape.n_table && find(t, seg, unit, &blocks[n]) &&
             is_freed(&blocks[n]);
    }
    collect(t, blocks, n);
    free(blocks);
    return n;
}

/* Without memory for them they are found when somebody needs memory. */
void soft_swept(struct tenant *t, const uint64_t *offs, uint32_t n_offs)
{
    struct soft *soft = &t->soft;
    uint64_t *swept = soft->is_used && n_offs > 0 ? malloc(n_offs * sizeof(*offs)) : NULL;
    if (swept)
        memcpy(swept, offs, n_offs * sizeof(*offs));
    free(soft->swept);
    soft->swept = swept;
    soft->n_swept = swept ? n_offs : 0;
}

bool soft_collect_swept(struct tenant *t)
{
    struct soft *soft = &t->soft;
    uint32_t n = MIN(soft->n_swept, TAKEN_MAX);
    if (n > 0)
        (void)collect_at(t, soft->swept + soft->n_swept - n, n);
    soft->n_swept -= n;
    if (soft->n_swept > 0)
        return false;
    free(soft->swept);
    soft->swept = NULL;
    return true;
}

void soft_request(struct core *core, struct session *s, const struct msg_request *req)
{
    struct tenant *t = s->client->tenant;
    soft_pins(s->client, true);
    uint32_t n = collect_at(t, req->soft.offs, req->soft.n);
    session_ok(core, s);
    if (n > 0)
        memory_wake(t);
}

/* ---- least recently used ---- */

static uint32_t now_ms(const struct tenant *t)
{
    return (uint32_t)(t->core->now_ns / 1000000);
}

/* How long before that time, in classes of a 16th. */
static uint32_t age_class(const struct seg *seg, uint32_t unit, uint32_t since_ms)
{
    const struct soft_unit *soft = segment_soft(seg->base, &seg->shape) + unit;
    uint32_t age_ms = since_ms - __atomic_load_n(&soft->used_ms, __ATOMIC_RELAXED);
    if (age_ms >= 1u << 31) /* after it */
        age_ms = 0;
    if (age_ms < AGE_SUBS)
        return age_ms;
    uint32_t shift = 31u - (uint32_t)__builtin_clz(age_ms) - 4u;
    return (shift << 4) + (age_ms >> shift);
}

/* Those to be taken. */
struct taken {
    struct soft_block *blocks;
    uint32_t n;
};

/* The units of the block there, if its entry says that it is one: the books are asked only of what
 * is to be taken. Else 0. In line: loops over millions call it. */
static inline uint32_t units_of(const struct seg *seg, uint32_t unit)
{
    const uint64_t *entries = segment_entries(seg->base, &seg->shape);
    uint64_t entry = __atomic_load_n(&entries[unit], __ATOMIC_RELAXED);
    uint32_t n = unit_entry_large_units(entry);
    return unit_entry_is_soft(entry) && seg_contains(seg, unit, n) ? n : 0;
}

static void mark(struct taken *taken, struct tenant *t, struct seg *seg, uint32_t unit)
{
    struct soft_block *b = &taken->blocks[taken->n];
    acre_assert(taken->n < TAKEN_MAX);
    if (!find(t, seg, unit, b) || (!(b->entry & LARGE_TAKING) &&
                                   !seg_cas_entry(seg, unit, b->entry, b->entry | LARGE_TAKING)))
        return;
    b->entry |= LARGE_TAKING;
    taken->n++;
}

/* Those from unit on that are so old or older. Returns where it has stopped. */
static uint32_t mark_from(struct taken *taken, struct tenant *t, struct seg *seg, uint32_t unit,
                          uint32_t end)
{
    uint32_t n;
    for (; unit < end && taken->n < TAKEN_MAX; unit += MAX(n, 1u))
        if ((n = units_of(seg, unit)) > 0 && !is_pinned(t, seg, unit))
            mark(taken, t, seg, unit);
    return MIN(unit, end);
}

/* Some are pinned by now, perhaps. Returns the bytes of the others. */
static uint64_t take_marked(struct tenant *t, const struct taken *taken)
{
    struct back back = {0};
    if (taken->n == 0)
        return 0;
    look(t);
    search_spend(t, (uint64_t)taken->n * TAKE_STEPS);
    for (uint32_t i = 0; i < taken->n; i++) {
        const struct soft_block *b = &taken->blocks[i];
        if (is_pinned(t, b->seg, b->unit))
            (void)seg_cas_entry(b->seg, b->unit, b->entry, b->entry & ~LARGE_TAKING);
        else
            give_back(t, &back, b);
    }
    return give_end(t, &back);
}

static bool begin_take(struct tenant *t)
{
    struct soft_take *take = &t->soft.take;
    if (!take->bytes && !(take->bytes = calloc(AGES, sizeof(*take->bytes))))
        return false;
    memset(take->bytes, 0, AGES * sizeof(*take->bytes));
    look_for_choice(t);
    take->is_on = true;
    take->is_counted = false;
    take->slot = take->unit = 0;
    take->all_bytes = 0;
    take->since_ms = now_ms(t);
    return true;
}

static void end_take(struct soft_take *take)
{
    take->is_on = false;
    take->n_rounds++;
}

static void count_seg(struct tenant *t, struct seg *seg)
{
    struct soft_take *take = &t->soft.take;
    uint32_t n, n_seen = 0;
    for (uint32_t u = seg->shape.n_meta; u < seg->shape.n_table; u += MAX(n, 1u), n_seen++) {
        n = units_of(seg, u);
        if (n == 0 || is_pinned(t, seg, u))
            continue;
        take->all_bytes += n * UNIT_BYTES;
        take->bytes[age_class(seg, u, take->since_ms)] += n * UNIT_BYTES;
    }
    search_spend(t, n_seen / WALK_UNITS);
}

static void choose_age(struct soft_take *take, uint64_t need_bytes)
{
    uint32_t age = AGES - 1;
    while (age > 0 && take->bytes[age] < need_bytes)
        need_bytes -= take->bytes[age--];
    take->oldest = age;
    take->rest_bytes = need_bytes;
}

static bool is_old(struct soft_take *take, const struct seg *seg, uint32_t unit, uint32_t n_units)
{
    uint32_t age = age_class(seg, unit, take->since_ms);
    if (age < take->oldest || (age == take->oldest && take->rest_bytes == 0))
        return false;
    if (age == take->oldest)
        take->rest_bytes -= MIN(take->rest_bytes, n_units * UNIT_BYTES);
    return true;
}

/* In one segment, from where it goes on. False: it has not come to the end. */
static bool mark_old(struct tenant *t, struct seg *seg, struct taken *taken)
{
    struct soft_take *take = &t->soft.take;
    uint32_t u = MAX(take->unit, seg->shape.n_meta), n, n_seen = 0;
    for (; u < seg->shape.n_table && taken->n < TAKEN_MAX; u += MAX(n, 1u), n_seen++)
        if ((n = units_of(seg, u)) > 0 && !is_pinned(t, seg, u) && is_old(take, seg, u, n))
            mark(taken, t, seg, u);
    search_spend(t, n_seen / WALK_UNITS);
    take->unit = u;
    return u >= seg->shape.n_table;
}

/* Some of those that are old enough. */
static uint64_t take_old(struct tenant *t)
{
    struct soft_take *take = &t->soft.take;
    struct taken taken = {.blocks = reserve(TAKEN_MAX)};
    while (taken.blocks && take->slot < t->n_slots && search_has_steps(t)) {
        if (t->segs[take->slot] && !mark_old(t, t->segs[take->slot], &taken))
            break;
        take->slot++;
        take->unit = 0;
    }
    uint64_t bytes = take_marked(t, &taken);
    if (!taken.blocks || take->slot >= t->n_slots)
        end_take(take);
    free(taken.blocks);
    return bytes;
}

/* A segment is counted, or a part is taken. */
static uint64_t step_take(struct tenant *t, uint64_t need_bytes)
{
    struct soft_take *take = &t->soft.take;
    if (!take->is_on && !begin_take(t)) {
        take->n_rounds++;
        return 0;
    }
    if (take->is_counted)
        return take_old(t);
    if (take->slot < t->n_slots) {
        if (t->segs[take->slot])
            count_seg(t, t->segs[take->slot]);
        take->slot++;
        return 0;
    }
    take->is_counted = true;
    take->slot = 0;
    if (take->all_bytes == 0)
        end_take(take);
    else
        choose_age(take, MIN(MAX(need_bytes, take->all_bytes / PART), take->all_bytes));
    return 0;
}

static uint64_t round_begin(uint64_t n_rounds, bool is_on)
{
    return n_rounds + (is_on ? 2 : 1);
}

int soft_take(struct tenant *t, uint64_t need_bytes, struct rounds *rounds, uint64_t *ret_bytes)
{
    struct soft_take *take = &t->soft.take;
    *ret_bytes = 0;
    if (!t->soft.is_used)
        return 0;
    if (rounds->take == 0)
        rounds->take = round_begin(take->n_rounds, take->is_on);
    while (*ret_bytes < need_bytes && take->n_rounds < rounds->take) {
        if (!search_has_steps(t))
            return -EINPROGRESS;
        *ret_bytes += step_take(t, need_bytes - *ret_bytes);
    }
    return 0;
}

/* ---- a whole segment ---- */

/* Its age, on average, if there is nothing in it but soft blocks that may be taken; else -1. */
static int age_of(struct tenant *t, struct seg *seg)
{
    uint64_t ages = 0;
    uint32_t n_units = 0, n;
    search_spend(t, seg->shape.n_table / WALK_UNITS);
    for (uint32_t u = seg->shape.n_meta; u < seg->shape.n_table; u += MAX(n, 1u)) {
        n = units_of(seg, u);
        if (n == 0)
            continue;
        if (is_pinned(t, seg, u))
            return -1;
        ages += (uint64_t)n * age_class(seg, u, now_ms(t));
        n_units += n;
    }
    return n_units == 0 || n_units != seg_usable(seg) - seg_n_free(seg) ? -1
                                                                        : (int)(ages / n_units);
}

static void step_segments(struct tenant *t)
{
    struct soft_segments *s = &t->soft.segments;
    struct seg *seg = t->segs[s->slot];
    int age = seg && seg->is_kept && !seg->is_retiring ? age_of(t, seg) : -1;
    if (age > s->best_age) {
        s->best_slot = s->slot;
        s->best_age = age;
    }
    s->slot++;
}

/* -EINPROGRESS: not yet; -ENOENT: there is none. */
static int find_oldest(struct tenant *t)
{
    struct soft_segments *s = &t->soft.segments;
    if (s->is_found)
        return 0;
    if (s->slot == 0) {
        look_for_choice(t);
        s->best_age = -1;
    }
    for (; s->slot < t->n_slots; step_segments(t))
        if (!search_has_steps(t))
            return -EINPROGRESS;
    s->slot = 0;
    s->is_found = s->best_age >= 0;
    return s->is_found ? 0 : -ENOENT;
}

/* 0: nothing there can be taken any more. */
static uint64_t take_some_of(struct tenant *t, struct seg *seg)
{
    struct taken taken = {.blocks = reserve(TAKEN_MAX)};
    if (taken.blocks)
        (void)mark_from(&taken, t, seg, seg->shape.n_meta, seg->shape.n_table);
    uint64_t bytes = take_marked(t, &taken);
    search_spend(t, seg->shape.n_table / WALK_UNITS);
    free(taken.blocks);
    return bytes;
}

int soft_take_segment(struct tenant *t)
{
    struct soft_segments *s = &t->soft.segments;
    int r = t->soft.is_used ? find_oldest(t) : -ENOENT;
    while (r == 0) {
        struct seg *seg = t->segs[s->best_slot];
        if (!search_has_steps(t))
            return -EINPROGRESS;
        uint64_t bytes = seg ? take_some_of(t, seg) : 0;
        s->is_found = bytes > 0 && seg_n_free(seg) < seg_usable(seg);
        if (bytes > 0 && !s->is_found)
            return 0;
        r = s->is_found ? 0 : find_oldest(t);
    }
    return r;
}

/* ---- in one piece ---- */

/* The free units from unit on, or the block there, up to *ret_n. UINT64_MAX: it is neither. */
static uint64_t cost_of(struct tenant *t, struct seg *seg, uint32_t unit, uint32_t *ret_n)
{
    uint32_t free_at, n_free, n = units_of(seg, unit);
    *ret_n = MAX(n, 1u);
    if (n > 0)
        return is_pinned(t, seg, unit) ? UINT64_MAX
                                       : (uint64_t)n * (AGES - age_class(seg, unit, now_ms(t)));
    if (!buddy_next_free_run(seg->buddy, unit, &free_at, &n_free) || free_at > unit)
        return UINT64_MAX;
    *ret_n = n_free;
    return 0;
}

/* Two ends that move through the segment; what leaves at the low one is looked at again. */
static void find_piece(struct tenant *t, struct seg *seg, uint32_t n_units, struct soft_piece *best)
{
    uint32_t low = seg->shape.n_meta, high = low, n;
    uint64_t cost = 0, more;
    search_spend(t, 2 * seg->shape.n_table / WALK_UNITS);
    while (high < seg->shape.n_units) {
        more = cost_of(t, seg, high, &n);
        high += n;
        cost += more;
        if (more == UINT64_MAX) {
            low = high;
            cost = 0;
            continue;
        }
        while (high - low >= n_units) {
            if (best->n_units == 0 || cost < best->cost)
                *best = (struct soft_piece){seg->slot, low, high - low, cost};
            uint64_t less = cost_of(t, seg, low, &n);
            if (less == UINT64_MAX || high - low < n) /* changed meanwhile */
                return;
            low += n;
            cost -= MIN(cost, less);
        }
    }
}

static bool may_have_piece(const struct seg *seg)
{
    return seg && seg->buddy && seg->is_kept && !seg->is_retiring;
}

/* Some of what is left of it. */
static uint64_t take_piece(struct tenant *t)
{
    struct soft_pieces *p = &t->soft.pieces;
    struct soft_piece *best = &p->best;
    struct seg *seg = best->n_units > 0 ? t->segs[best->slot] : NULL;
    struct taken taken = {.blocks = may_have_piece(seg) ? reserve(TAKEN_MAX) : NULL};
    uint64_t bytes = 0;
    uint32_t end = best->unit + best->n_units, at = end;
    if (taken.blocks && end <= seg->shape.n_table) {
        at = mark_from(&taken, t, seg, best->unit, end);
        bytes = take_marked(t, &taken);
    }
    free(taken.blocks);
    best->unit = at;
    best->n_units = end - at;
    p->is_on = best->n_units > 0;
    p->n_rounds += !p->is_on;
    return bytes;
}

/* A segment is looked at, or a part of the best piece is taken. */
static uint64_t step_pieces(struct tenant *t, uint32_t n_units)
{
    struct soft_pieces *p = &t->soft.pieces;
    if (!p->is_on) {
        *p = (struct soft_pieces){.is_on = true, .n_rounds = p->n_rounds, .n_units = n_units};
        look_for_choice(t);
        return 0;
    }
    if (p->is_found)
        return take_piece(t);
    if (p->slot < t->n_slots && may_have_piece(t->segs[p->slot]))
        find_piece(t, t->segs[p->slot], p->n_units, &p->best);
    p->is_found = ++p->slot >= t->n_slots;
    return 0;
}

int soft_take_piece(struct tenant *t, uint64_t n_units, struct rounds *rounds, uint64_t *ret_bytes)
{
    struct soft_pieces *p = &t->soft.pieces;
    *ret_bytes = 0;
    if (n_units > SLOT_UNITS || !t->soft.is_used)
        return 0;
    if (rounds->piece == 0)
        rounds->piece = round_begin(p->n_rounds, p->is_on);
    while (p->n_rounds < rounds->piece) {
        if (!search_has_steps(t))
            return -EINPROGRESS;
        *ret_bytes += step_pieces(t, (uint32_t)n_units);
    }
    return 0;
}
