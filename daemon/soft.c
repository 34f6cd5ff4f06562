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
 * are asked if it is at its max or beyond its share, else after (grant.c). At least a PARTth of
 * all that there is at a time: each look costs two walks over the heap's entries. If what came
 * back then is in pieces too small, the run is taken whose blocks are the least and the oldest.
 * Who has more than its limits, or than its share while others have less, loses whole segments
 * (room.c).
 *
 * INVARIANTS. Only this file makes entries TAKING, and none is when it returns. A soft block is
 * freed only after a look at all lines that came after its mark, or its 0.
 *
 * COST. A take: two walks over entries (1 GiB: 131,072 words), a pread of 3 KB for each client that
 * pins, twice; then what TAKEN_MAX blocks cost to be given back, about 1 ms. Nothing where nobody
 * has ever pinned.
 */
#include "daemon/soft.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/memory.h"
#include "daemon/session.h"
#include "daemon/tenant.h"

#define TAKEN_MAX 8192u /* blocks at a time */
#define PART      16u
#define AGE_SUBS  16u
#define AGES      (29u * AGE_SUBS)

struct soft_block {
    struct seg *seg;
    uint32_t unit, n_units;
    uint64_t entry;
    tag_t owner;
};

/* ---- lines ---- */

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

void soft_deinit(struct soft *soft)
{
    free(soft->pins);
    free(soft->swept);
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

static int read_lines(struct soft *soft, const struct client *c)
{
    uint32_t lines[PINS] = {0}; /* and so they stay if the client has made the page short */
    if (pread(c->life_fd, lines, sizeof(lines), offsetof(struct life_page, pins)) < 0)
        return -errno;
    uint32_t *more = reallocarray(soft->pins, soft->n_pins + PINS, sizeof(*more));
    if (!more)
        return -ENOMEM;
    soft->pins = more;
    for (uint32_t i = 0; i < PINS; i++)
        if (lines[i] != 0)
            soft->pins[soft->n_pins++] = lines[i];
    return 0;
}

/* Of blocks whose mark was set, or whose tag was 0, before: who has them pinned? */
static void look(struct tenant *t)
{
    struct soft *soft = &t->soft;
    soft->n_pins = 0;
    soft->is_blind = false;
    if (soft->n_pinning == 0)
        return;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    for (uint32_t id = 1; id < t->clients.next_fresh && !soft->is_blind; id++) {
        const struct client *c = t->clients.by_id[id];
        if (c && c->pins && c->state == CLIENT_LIVES)
            soft->is_blind = read_lines(soft, c) < 0;
    }
    if (soft->n_pins > 1)
        qsort(soft->pins, soft->n_pins, sizeof(*soft->pins), compare);
}

static bool is_pinned(const struct tenant *t, const struct seg *seg, uint32_t unit)
{
    const struct soft *soft = &t->soft;
    uint32_t key = seg->slot * SLOT_UNITS + unit;
    return soft->is_blind || (soft->n_pins > 0 && bsearch(&key, soft->pins, soft->n_pins,
                                                          sizeof(key), compare) != NULL);
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
    bool had_orphans;
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
    back->had_orphans |= b->owner == OWNER_ORPHAN;
    if (goes_on)
        run->n_units += b->n_units;
    else
        *run = *b;
}

static uint64_t give_end(struct tenant *t, struct back *back)
{
    give_run(t, back);
    if (back->had_orphans)
        orphans_forget_taken(t);
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

/* How long ago, in classes of a 16th. */
static uint32_t age_class(const struct tenant *t, const struct seg *seg, uint32_t unit)
{
    const struct soft_unit *soft = segment_soft(seg->base, &seg->shape) + unit;
    uint32_t now_ms = (uint32_t)(t->core->now_ns / 1000000);
    uint32_t age_ms = now_ms - __atomic_load_n(&soft->used_ms, __ATOMIC_RELAXED);
    if (age_ms >= 1u << 31) /* our clock is a little behind */
        age_ms = 0;
    if (age_ms < AGE_SUBS)
        return age_ms;
    uint32_t shift = 31u - (uint32_t)__builtin_clz(age_ms) - 4u;
    return (shift << 4) + (age_ms >> shift);
}

struct take {
    struct soft_block *blocks; /* those to be taken */
    uint32_t n;
    uint64_t all_bytes, bytes[AGES];
    uint32_t oldest;     /* ages above this are taken as a whole */
    uint64_t rest_bytes; /* of this one */
};

typedef void (*soft_fn)(struct take *take, struct tenant *t, struct seg *seg, uint32_t unit,
                        uint32_t n_units);

/* What the entries say: the books are asked only of what is to be taken. */
static void walk_seg(struct tenant *t, struct seg *seg, soft_fn fn, struct take *take)
{
    const uint64_t *entries = segment_entries(seg->base, &seg->shape);
    for (uint32_t u = seg->shape.n_meta; u < seg->shape.n_table; u++) {
        uint64_t entry = __atomic_load_n(&entries[u], __ATOMIC_RELAXED);
        uint32_t n = unit_entry_large_units(entry);
        if (!unit_entry_is_soft(entry) || !seg_contains(seg, u, n) || is_pinned(t, seg, u))
            continue;
        fn(take, t, seg, u, n);
        u += n - 1;
    }
}

static void walk(struct tenant *t, soft_fn fn, struct take *take)
{
    for (uint32_t slot = 0; slot < t->n_slots; slot++)
        if (t->segs[slot])
            walk_seg(t, t->segs[slot], fn, take);
}

static void count(struct take *take, struct tenant *t, struct seg *seg, uint32_t unit,
                  uint32_t n_units)
{
    uint64_t bytes = n_units * UNIT_BYTES;
    take->all_bytes += bytes;
    take->bytes[age_class(t, seg, unit)] += bytes;
}

static void choose_age(struct take *take, uint64_t need_bytes)
{
    uint32_t age = AGES - 1;
    while (age > 0 && take->bytes[age] < need_bytes)
        need_bytes -= take->bytes[age--];
    take->oldest = age;
    take->rest_bytes = need_bytes;
}

static void mark(struct take *take, struct tenant *t, struct seg *seg, uint32_t unit,
                 uint32_t n_units)
{
    struct soft_block *b = &take->blocks[take->n];
    (void)n_units;
    if (take->n == TAKEN_MAX || !find(t, seg, unit, b) ||
        (!(b->entry & LARGE_TAKING) &&
         !seg_cas_entry(seg, unit, b->entry, b->entry | LARGE_TAKING)))
        return;
    b->entry |= LARGE_TAKING;
    take->n++;
}

static void mark_old(struct take *take, struct tenant *t, struct seg *seg, uint32_t unit,
                     uint32_t n_units)
{
    uint32_t age = age_class(t, seg, unit);
    if (age < take->oldest || (age == take->oldest && take->rest_bytes == 0))
        return;
    if (age == take->oldest)
        take->rest_bytes -= MIN(take->rest_bytes, n_units * UNIT_BYTES);
    mark(take, t, seg, unit, n_units);
}

/* Some are pinned by now, perhaps. Returns the bytes of the others. */
static uint64_t take_marked(struct tenant *t, struct take *take)
{
    struct back back = {0};
    look(t);
    for (uint32_t i = 0; i < take->n; i++) {
        const struct soft_block *b = &take->blocks[i];
        if (is_pinned(t, b->seg, b->unit))
            (void)seg_cas_entry(b->seg, b->unit, b->entry, b->entry & ~LARGE_TAKING);
        else
            give_back(t, &back, b);
    }
    return give_end(t, &back);
}

/* Pins of long ago: else old blocks that are pinned would be chosen again and again. */
static bool begin(struct tenant *t, struct take *ret)
{
    *ret = (struct take){.blocks = t->soft.is_used ? reserve(TAKEN_MAX) : NULL};
    if (ret->blocks)
        look(t);
    return ret->blocks != NULL;
}

uint64_t soft_take(struct tenant *t, uint64_t need_bytes)
{
    struct take take;
    uint64_t bytes = 0;
    if (!begin(t, &take))
        return 0;
    walk(t, count, &take);
    if (take.all_bytes > 0) {
        choose_age(&take, MIN(MAX(need_bytes, take.all_bytes / PART), take.all_bytes));
        walk(t, mark_old, &take);
        bytes = take_marked(t, &take);
    }
    free(take.blocks);
    return bytes;
}

/* ---- a whole segment ---- */

/* Its age, on average, if there is nothing in it but soft blocks that may be taken; else -1. */
static int age_of(struct tenant *t, struct seg *seg)
{
    struct soft_block b;
    uint64_t ages = 0;
    uint32_t n_units = 0;
    for (uint32_t u = seg->shape.n_meta; u < seg->shape.n_table; u++) {
        if (tenant_owner(t, seg, u) == OWNER_NONE)
            continue;
        if (!find(t, seg, u, &b) || is_pinned(t, seg, u))
            return -1;
        ages += (uint64_t)b.n_units * age_class(t, seg, u);
        n_units += b.n_units;
        u += b.n_units - 1;
    }
    return n_units == 0 ? -1 : (int)(ages / n_units);
}

static struct seg *find_oldest(struct tenant *t)
{
    struct seg *best = NULL;
    int best_age = -1;
    for (uint32_t slot = 0; slot < t->n_slots; slot++) {
        struct seg *seg = t->segs[slot];
        int age = seg && seg->is_kept && !seg->is_retiring ? age_of(t, seg) : -1;
        if (age > best_age) {
            best = seg;
            best_age = age;
        }
    }
    return best;
}

bool soft_take_segment(struct tenant *t)
{
    struct take take;
    if (!begin(t, &take))
        return false;
    struct seg *seg = find_oldest(t);
    if (seg)
        walk_seg(t, seg, mark, &take);
    if (take.n > 0)
        (void)take_marked(t, &take);
    free(take.blocks);
    return seg && seg_n_free(seg) == seg_usable(seg);
}

/* ---- in one piece ---- */

/* Units of a segment that are free, or of soft blocks that may be taken: what it costs to have
 * them. */
struct piece {
    struct seg *seg;
    uint32_t unit, n_units; /* n_units 0: none */
    uint64_t cost;
};

/* The free units from unit on, or the block there, up to *ret_n. UINT64_MAX: it is neither. */
static uint64_t cost_of(struct tenant *t, struct seg *seg, uint32_t unit, uint32_t *ret_n)
{
    struct soft_block b;
    uint32_t free_at, n_free;
    *ret_n = 1;
    if (find(t, seg, unit, &b)) {
        *ret_n = b.n_units;
        return is_pinned(t, seg, unit) ? UINT64_MAX
                                       : (uint64_t)b.n_units * (AGES - age_class(t, seg, unit));
    }
    if (!buddy_next_free_run(seg->buddy, unit, &free_at, &n_free) || free_at > unit)
        return UINT64_MAX;
    *ret_n = n_free;
    return 0;
}

/* Two ends that move through the segment; what leaves at the low one is looked at again. */
static void find_piece(struct tenant *t, struct seg *seg, uint32_t n_units, struct piece *best)
{
    uint32_t low = seg->shape.n_meta, high = low, n;
    uint64_t cost = 0, more;
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
                *best = (struct piece){seg, low, high - low, cost};
            uint64_t less = cost_of(t, seg, low, &n);
            if (less == UINT64_MAX || high - low < n) /* changed meanwhile */
                return;
            low += n;
            cost -= MIN(cost, less);
        }
    }
}

uint64_t soft_take_piece(struct tenant *t, uint64_t n_units)
{
    struct take take;
    struct piece best = {0};
    struct soft_block b;
    uint64_t bytes = 0;
    if (n_units > SLOT_UNITS || !begin(t, &take))
        return 0;
    for (uint32_t slot = 0; slot < t->n_slots; slot++) {
        struct seg *seg = t->segs[slot];
        if (seg && seg->buddy && seg->is_kept && !seg->is_retiring)
            find_piece(t, seg, (uint32_t)n_units, &best);
    }
    for (uint32_t u = best.unit; u < best.unit + best.n_units; u++)
        if (find(t, best.seg, u, &b)) {
            u += b.n_units - 1;
            mark(&take, t, best.seg, b.unit, b.n_units);
        }
    if (take.n > 0)
        bytes = take_marked(t, &take);
    free(take.blocks);
    return bytes;
}
