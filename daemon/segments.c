/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The segments of a heap, theory.
 *
 * MODEL. Each begins in the first slot of the heap that is free with those that follow it. It is
 * charged to its tenant as a whole before it is made. It is *new* until it is kept for the next
 * daemon (deposit.c); *known* from when a client hears of it. Who may map a known one cannot be told
 * for sure: when it goes (retire.c), its slots stay taken and its bytes charged, in *limbo*, until
 * that is proven over (zombie.c). One that nobody knew goes at once (yield.c), its slots with it.
 *
 * SIZES. First 4 MiB, then always as much again as there is: few slots for a large heap, little
 * waste for a small one. Max is the tenant's own and may be used up to the last unit; of the
 * capacity a new segment takes at most half of what is left, or what it needs: the last segments of
 * one tenant must not shut out the others. And at most a 16th of what would be the tenant's share
 * if all who have something wanted more: what comes back comes as whole segments.
 *
 * A KILL of the daemon: the books say of each slot whether it has a segment, of what size, known and
 * retired or not. A new one is not in the books before it is kept, and not granted from.
 */
#include "daemon/segments.h"

#include <string.h>
#include <sys/stat.h>

#include "daemon/deposit.h"
#include "daemon/kept.h"
#include "daemon/room.h"
#include "daemon/share.h"
#include "daemon/zombie.h"

#define SEG_FIRST_UNITS  (MIB(4) / UNIT_BYTES)
#define SEG_UNITS_MIN    8u
#define SEG_PARTS        16u /* of a share */
#define SEG_SCARCE_UNITS (MIB(1) / UNIT_BYTES)

/* ---- a new one ---- */

uint64_t segments_units_for(uint32_t n, unsigned align_order)
{
    uint64_t align = 1ull << align_order, n_meta = 1, total;
    for (;;) {
        total = MAX(round_up_u64(n_meta, align) + n, SEG_UNITS_MIN);
        if (total > SLOT_UNITS)
            break;
        uint32_t got = segment_shape((uint32_t)total).n_meta;
        if (got <= n_meta)
            return total;
        n_meta = got;
    }
    /* Beyond a slot: the meta units, then the block. Other alignments cannot be had. */
    return align_order == 0 ? MAX((uint64_t)n + SEGMENT_SPAN_META, SLOT_UNITS + 1) : UINT64_MAX;
}

/* A few units more than it needs can cost a segment one more unit for its tables, which moves an
 * aligned run by its alignment. */
static bool run_fits(uint64_t n_units, uint32_t n, unsigned align_order)
{
    uint32_t n_meta = segment_shape((uint32_t)n_units).n_meta;
    return round_up_u64(n_meta, 1ull << align_order) + n <= n_units;
}

/* As much again as there is; but a part only of what the tenant would have to share with others, if
 * that is enough for some of what is asked: the last of a segment may be too little for another. */
static uint64_t next_units(const struct tenant *t, uint64_t need, bool is_scarce)
{
    uint64_t want = MAX(SEG_FIRST_UNITS, t->budget.charged_bytes / UNIT_BYTES);
    if (t->n_slots > HEAP_SLOTS / 2)
        return MIN(want, SLOT_UNITS);
    uint64_t part = share_at_least(&t->budget) / SEG_PARTS / UNIT_BYTES;
    uint64_t least = is_scarce ? SEG_SCARCE_UNITS : MAX(SEG_FIRST_UNITS, 8 * need);
    return MIN(MIN(want, SLOT_UNITS), MAX(part, least));
}

/* How large to make it, at least `need` units; 0: there is no room, or (*ret_is_shared) others
 * want it, too. */
static uint64_t choose_units(struct tenant *t, uint64_t need, uint32_t n, unsigned align_order,
                             bool *ret_is_shared)
{
    uint64_t max_left = budget_left(&t->budget) / UNIT_BYTES;
    uint64_t cap_left = budget_capacity_left(&t->budget) / UNIT_BYTES;
    *ret_is_shared = false;
    if (need > max_left || need > cap_left)
        return 0;
    uint64_t share_left = room_left(t, need * UNIT_BYTES) / UNIT_BYTES;
    bool is_scarce = share_left < cap_left;
    *ret_is_shared = need > share_left || (is_scarce && share_left < SEG_UNITS_MIN);
    if (*ret_is_shared)
        return 0;
    if (need > SLOT_UNITS)
        return need;
    cap_left = MIN(cap_left, share_left);
    uint64_t want = MIN(next_units(t, need, is_scarce), MAX(cap_left / 2, SEG_FIRST_UNITS));
    want = MAX(want, need);
    want = MIN(MIN(want, max_left), cap_left);
    if (max_left - want < SEG_UNITS_MIN &&
        max_left <= cap_left) /* no rest that is too small to be used */
        want = MIN(max_left, SLOT_UNITS);
    if (want < SEG_UNITS_MIN)
        return 0;
    return run_fits(want, n, align_order) ? want : need;
}

/* The first of so many free ones in a row. */
static uint32_t find_slots(const struct tenant *t, uint64_t n_units)
{
    uint32_t from = 0, slot = 0;
    uint64_t n = (n_units + SLOT_UNITS - 1) / SLOT_UNITS;
    while (slot < t->n_slots && slot - from < n)
        if (t->segs[slot])
            slot = from = slot + t->segs[slot]->n_slots;
        else if (t->is_limbo[slot])
            from = ++slot;
        else
            slot++;
    return from;
}

bool segments_have_slots(const struct tenant *t, uint64_t n_units)
{
    return (n_units + SLOT_UNITS - 1) / SLOT_UNITS <= HEAP_SLOTS - find_slots(t, n_units);
}

void segments_tell(const struct tenant *t, struct seg *seg)
{
    t->books->segment[seg->slot].is_known = 1;
    seg->is_known = true;
}

static void list_seg(struct tenant *t, const struct seg *seg)
{
    struct control *c = t->control;
    for (uint32_t k = 0; k < seg->n_slots; k++) {
        c->segment[seg->slot + k].head_slot = seg->slot;
        c->segment[seg->slot + k].n_slots = seg->n_slots;
        c->segment[seg->slot + k].retire = SEGMENT_STAYS;
        c->segment[seg->slot + k].is_soft = seg->is_soft;
    }
    __atomic_store_n(&c->segment[seg->slot].size_bytes, seg->shape.size_bytes, __ATOMIC_RELEASE);
    c->header.sealed_bytes = t->budget.charged_bytes;
    __atomic_store_n(&c->header.n_slots, t->n_slots, __ATOMIC_RELEASE);
}

static void add_seg(struct tenant *t, struct seg *seg)
{
    seg->page_units = t->pages == PAGES_THP ? HUGE_UNITS : 1;
    t->segs[seg->slot] = seg;
    t->n_slots = MAX(t->n_slots, seg->slot + seg->n_slots);
}

int segments_add(struct tenant *t, uint32_t n, unsigned align_order, bool is_soft)
{
    struct seg *seg;
    uint64_t need = segments_units_for(n, align_order);
    if (need > HEAP_UNITS)
        return -ENOMEM;
    bool is_shared;
    uint64_t n_units = choose_units(t, need, n, align_order, &is_shared);
    if (n_units == 0)
        return is_shared ? -EDQUOT : -ENOMEM;
    /* Those of dropped heaps have no slots any more, but their descriptors. */
    if (!segments_have_slots(t, n_units) || zombie_count(t->core, &t->budget) >= HEAP_SLOTS)
        return -ENOSPC;
    int r = budget_charge(&t->budget, n_units * UNIT_BYTES);
    acre_assert(r == 0);
    if (budget_high_left(&t->budget) == 0)
        room_look_at(t->core, t->core->now_ns);
    r = seg_new(&seg, "acre-segment", find_slots(t, n_units), t->heap_id, (uint32_t)n_units);
    if (r < 0) {
        budget_refund(&t->budget, n_units * UNIT_BYTES);
        return r;
    }
    seg->is_soft = is_soft;
    add_seg(t, seg);
    t->n_changes++;
    list_seg(t, seg);
    t->n_unkept++;
    deposit_seg(t, seg);
    return 0;
}

void segments_enter(struct tenant *t, struct seg *seg)
{
    acre_assert(!seg->is_kept && !seg->is_known);
    books_set_segment(t->books, seg->slot, seg->shape.size_bytes, seg->n_slots);
    seg->is_kept = true;
    t->n_unkept--;
}

int segments_restore(struct tenant *t, uint32_t slot, int fd)
{
    struct seg *seg;
    uint64_t size_bytes = t->books->segment[slot].size_bytes;
    int r = seg_restore(&seg, fd, slot, size_bytes);
    if (r < 0)
        return r;
    budget_restore(&t->budget, size_bytes);
    seg->span_units = t->books->segment[slot].span_units;
    seg->is_known = t->books->segment[slot].is_known;
    seg->is_soft = t->control->segment[slot].is_soft; /* somebody may have scribbled: a hint */
    seg->is_kept = true;
    add_seg(t, seg);
    list_seg(t, seg);
    return 0;
}

int segments_restore_limbo(struct tenant *t, uint32_t slot, int fd)
{
    const struct books_segment *b = &t->books->segment[slot];
    struct stat st;
    uint64_t n_slots = (b->size_bytes + SLOT_BYTES - 1) >> SLOT_SHIFT;
    if (fstat(fd, &st) < 0 || (uint64_t)st.st_size != b->size_bytes || b->n_slots != n_slots ||
        n_slots > HEAP_SLOTS - slot)
        return -EPROTO;
    memset(&t->is_limbo[slot], true, n_slots);
    t->n_slots = MAX(t->n_slots, slot + (uint32_t)n_slots);
    budget_restore(&t->budget, b->size_bytes);
    t->control->segment[slot] =
        (struct control_segment){b->size_bytes, slot, b->n_slots, SEGMENT_RETIRED, false};
    zombie_bury(t->core, &t->budget, (struct kept){KEPT_SEGMENT, t->heap_no, slot}, fd,
                b->size_bytes);
    return 0;
}

/* ---- one that goes ---- */

static void cut_slots(struct tenant *t)
{
    while (t->n_slots > 0 && !tenant_seg(t, t->n_slots - 1) && !t->is_limbo[t->n_slots - 1])
        t->n_slots--;
    __atomic_store_n(&t->control->header.n_slots, t->n_slots, __ATOMIC_RELEASE);
}

/* No client knows it. */
static void drop_unknown(struct tenant *t, const struct seg *seg)
{
    if (seg->is_kept)
        books_set_segment(t->books, seg->slot, 0, 0);
    else
        t->n_unkept--;
    kept_drop(t->core, (struct kept){KEPT_SEGMENT, t->heap_no,
                                     seg->slot}); /* the name may be needed again */
    __atomic_store_n(&t->control->segment[seg->slot].size_bytes, 0, __ATOMIC_RELEASE);
    budget_orphan(&t->budget, seg->shape.size_bytes);
    t->control->header.sealed_bytes = t->budget.charged_bytes;
}

int segments_drop(struct tenant *t, struct seg *seg, struct kept *ret_kept)
{
    uint32_t slot = seg->slot;
    int fd;
    acre_assert(t->segs[slot] == seg && seg->n_mappers == 0 && seg->n_letting_go == 0);
    acre_assert(seg->is_kept || t->n_depositing == 0);
    t->n_changes++;
    *ret_kept = (struct kept){0};
    if (seg->is_known) {
        t->books->segment[slot].retire = SEGMENT_RETIRED;
        t->control->segment[slot].retire = SEGMENT_RETIRED;
        memset(&t->is_limbo[slot], true, seg->n_slots);
        *ret_kept = (struct kept){KEPT_SEGMENT, t->heap_no, slot};
    } else {
        drop_unknown(t, seg);
    }
    t->segs[slot] = NULL;
    seg_free(seg, &fd);
    cut_slots(t);
    return fd;
}

void segments_free_slots(struct tenant *t, uint32_t slot)
{
    struct books_segment *b = &t->books->segment[slot];
    acre_assert(t->is_limbo[slot] && b->retire == SEGMENT_RETIRED);
    t->n_changes++;
    memset(&t->is_limbo[slot], false, b->n_slots);
    budget_refund(&t->budget, b->size_bytes);
    if (t->pressure.level != PRESSURE_NONE)
        room_look_at(t->core, t->core->now_ns);
    t->control->segment[slot].retire = SEGMENT_STAYS;
    __atomic_store_n(&t->control->segment[slot].size_bytes, 0, __ATOMIC_RELEASE);
    t->control->header.sealed_bytes = t->budget.charged_bytes;
    books_set_segment(t->books, slot, 0, 0);
    cut_slots(t);
}
