/* SPDX-License-Identifier: Apache-2.0 */
/*
 * large.c - blocks above 64 KiB: runs of whole units, with their owner tag in the segment's tag
 * table.
 *
 * MODEL. The head's entry is U_LARGE with the number of units and the client whose units they are,
 * the holder; all others are U_CUT. The tag is set before the entry says U_LARGE. A block that its
 * holder has freed may be kept for a while by the thread that freed it, entry and all, marked
 * LARGE_KEPT: using it again touches two words, not its units.
 *
 * ALLOC   kept: entry U_LARGE|KEPT -> U_CUT by CAS, else units U_CUT from pool or daemon; then
 *         tag = owner -> entry = U_LARGE (the commit)
 * FREE    by the holder: entry U_LARGE -> U_LARGE|KEPT (noted in the thread's cache) or U_CUT, by
 *         CAS (the commit). By another client: tag = 0 (the commit), and the daemon is told, and
 *         verifies.
 * EVICT   entry U_LARGE|KEPT -> U_CUT by CAS -> units back to the pool or the daemon
 * RESIZE  by the holder, where the block lies: units behind it U_UNCUT -> U_CUT, then entry =
 * U_LARGE with more units (the commit); or the entry with fewer units (the commit), then the rest
 *         U_CUT -> U_UNCUT. Killed between the two: U_CUT units of a dead client.
 *
 * The daemon, when memory is short, takes freed blocks back, by CAS: those marked, and those with
 * tag 0. So the holder leaves the tag alone: were it 0 for a moment between two lives of the block,
 * with the same entry, the daemon could see the entry of the first life, that 0, and take the
 * second life's block. A thread's note may be stale (taken back, perhaps granted to us again and
 * live, perhaps kept by another thread): the mark in the entry decides, since whoever takes it away
 * owns the units.
 *
 * A KILL before the commit: U_CUT units of a dead client. After a free's commit: U_LARGE|KEPT or
 * U_CUT of a dead client, or U_LARGE with tag 0, found by the daemon.
 *
 * COST. Kept: one CAS for each of alloc and free, at most KEPT_MAX notes looked at. Up to
 * POOL_LARGE_UNITS from the pool, one CAS a unit; above, one request to the daemon.
 */
#include <string.h>

#include "client/block.h"

#define POOL_LARGE_UNITS 256u /* 2 MiB: half of what the pool keeps */
#define TRIES_MAX        3u
#define ALIGN_ORDER_MAX  (SLOT_SHIFT - UNIT_SHIFT - 1)

static uint32_t take_from_pool(struct acre_heap *heap, uint32_t n_units, enum pool_kind kind)
{
    unsigned order = log2_ceil_u64(n_units);
    uint32_t unit = pool_take(heap, order, kind);

    if (unit != BUDDY_NONE && n_units < 1u << order)
        pool_give(heap, unit + n_units, (1u << order) - n_units);
    return unit;
}

static int find_units(struct acre_heap *heap, uint32_t n_units, unsigned align_order,
                      enum pool_kind kind, uint32_t *ret_unit, enum trace_cause *ret_cause)
{
    struct cache *cache = cache_here(heap);
    int r = attach_ensure(heap);

    if (cache)
        cache->n_refills++;
    if (r < 0)
        return r;
    heed(heap, cache);
    if (n_units <= POOL_LARGE_UNITS && align_order <= log2_ceil_u64(n_units)) {
        *ret_unit = take_from_pool(heap, n_units, kind);
        if (*ret_unit == BUDDY_NONE)
            *ret_cause = TRACE_DAEMON;
        if (*ret_unit == BUDDY_NONE &&
            (r = pool_grow(heap, log2_ceil_u64(n_units), kind, 0, NULL)) == 0)
            *ret_unit = take_from_pool(heap, n_units, kind);
        if (*ret_unit != BUDDY_NONE)
            return 0;
        if (r < 0 && r != -ENOMEM)
            return r;
    }
    *ret_cause = TRACE_DAEMON;
    r = pool_grow_exact(heap, n_units, align_order, kind, ret_unit);
    if (r == -ENOMEM) /* what this process hoards may be what is missing */
        (void)heap_trim(heap, false);
    for (unsigned i = 0; r == -ENOMEM && (i == 0 || is_to_heed(heap)) && i < TRIES_MAX; i++) {
        heed(heap, cache); /* and what it maps */
        r = pool_grow_exact(heap, n_units, align_order, kind, ret_unit);
    }
    return r;
}

static int take_units(struct acre_heap *heap, uint32_t n_units, unsigned align_order,
                      enum pool_kind kind, uint32_t *ret_unit)
{
    enum trace_cause cause = TRACE_EXTENT;

    PROBE(slow__begin);
    int r = find_units(heap, n_units, align_order, kind, ret_unit, &cause);
    PROBE(slow__end, (uint64_t)n_units << UNIT_SHIFT, cause, -r);
    return r;
}

/* ---- blocks that a thread keeps ---- */

static uint64_t entry_kept(const struct acre_heap *heap, struct kept k)
{
    return unit_entry_large(k.n_units, self_id(heap)) | LARGE_KEPT;
}

/* The mark goes, and with it everybody else's claim. False: the note was stale. */
static bool kept_claim(struct acre_heap *heap, struct kept k)
{
    uint64_t expected = entry_kept(heap, k);

    return atomic_compare_exchange_strong(heap_entry(heap, k.unit), &expected,
                                          unit_entry_plain(U_CUT, holder_token(self_id(heap), 0)));
}

static struct kept kept_remove(struct cache *cache, uint32_t i)
{
    struct kept k = cache->kept[i];

    cache->n_kept--;
    cache->kept_units -= k.n_units;
    memmove(&cache->kept[i], &cache->kept[i + 1], (cache->n_kept - i) * sizeof(k));
    return k;
}

static void units_give(struct acre_heap *heap, uint32_t unit, uint32_t n_units)
{
    heed(heap, NULL);
    if (n_units <= POOL_LARGE_UNITS)
        pool_give(heap, unit, n_units);
    else
        pool_release(heap, unit, n_units);
}

static void kept_evict_oldest(struct acre_heap *heap, struct cache *cache)
{
    struct kept k = kept_remove(cache, 0);

    if (kept_claim(heap, k))
        units_give(heap, k.unit, k.n_units);
}

void large_release_kept(struct acre_heap *heap, struct cache *cache)
{
    while (cache->n_kept > 0)
        kept_evict_oldest(heap, cache);
}

/* The youngest that fits without wasting more than an eighth. */
static bool kept_take(struct acre_heap *heap, uint32_t n_units, size_t align, struct kept *ret)
{
    struct cache *cache = cache_here(heap);

    for (uint32_t i = cache ? cache->n_kept : 0; i-- > 0;) {
        const struct kept *k = &cache->kept[i];
        if (k->n_units < n_units || k->n_units > n_units + n_units / 8 ||
            ((uint64_t)k->unit << UNIT_SHIFT) % align != 0)
            continue;
        const struct kept taken = kept_remove(cache, i);
        if (!kept_claim(heap, taken))
            continue; /* a stale note says nothing about the run that is taken instead */
        *ret = taken;
        return true;
    }
    return false;
}

/* False: the block is the caller's to give back. */
static bool kept_add(struct acre_heap *heap, struct kept k, uint64_t entry)
{
    struct cache *cache = cache_here(heap);

    if (!cache || cache->token == 0)
        cache = cache_acquire(heap);
    if (!cache || k.n_units > KEPT_UNITS_MAX)
        return false;
    while (cache->n_kept == KEPT_MAX || cache->kept_units + k.n_units > KEPT_UNITS_MAX)
        kept_evict_oldest(heap, cache);
    /* Failing: somebody else has freed it at this instant. */
    if (atomic_compare_exchange_strong(heap_entry(heap, k.unit), &entry, entry_kept(heap, k))) {
        cache->kept[cache->n_kept++] = k;
        cache->kept_units += k.n_units;
    }
    return true;
}

/* ---- alloc and free ---- */

static void *large_commit(struct acre_heap *heap, struct kept run, bool heap_owned)
{
    atomic_store_explicit(heap_large_tag(heap, run.unit), heap_owned ? TAG_HEAP : self_id(heap),
                          memory_order_relaxed);
    atomic_store_explicit(heap_entry(heap, run.unit), unit_entry_large(run.n_units, self_id(heap)),
                          memory_order_release);
    return heap->base + ((uint64_t)run.unit << UNIT_SHIFT);
}

int large_units(struct acre_heap *heap, size_t size, size_t align, enum pool_kind kind,
                struct kept *ret_run)
{
    unsigned align_order = align <= UNIT_BYTES ? 0 : log2_ceil_u64(align) - UNIT_SHIFT;
    uint64_t n_units = units_of(size);

    if (n_units >= HEAP_UNITS || align_order > ALIGN_ORDER_MAX)
        return fail(ENOMEM, "%zu bytes aligned to %zu cannot be had: a heap has %llu GiB", size,
                    align, HEAP_BYTES >> 30);
    ret_run->n_units = (uint32_t)n_units;
    if (kind == POOL_HARD && kept_take(heap, (uint32_t)n_units, align, ret_run))
        return 0;
    return take_units(heap, (uint32_t)n_units, align_order, kind, &ret_run->unit);
}

void *large_alloc(struct acre_heap *heap, size_t size, size_t align, bool heap_owned)
{
    struct kept run;
    int saved_errno = errno, r = large_units(heap, size, align, POOL_HARD, &run);

    if (r < 0) {
        errno = -r;
        return NULL;
    }
    errno = saved_errno;
    return large_commit(heap, run, heap_owned);
}

void *large_alloc_granted(struct acre_heap *heap, uint32_t unit, uint32_t n_units)
{
    return large_commit(heap, (struct kept){unit, n_units}, false);
}

bool large_resize(struct acre_heap *heap, const struct block *b, size_t size)
{
    uint32_t unit = (uint32_t)(b->off >> UNIT_SHIFT), n = (uint32_t)units_of(size);
    tag_t self = self_id(heap);
    uint64_t expected = b->entry;
    int saved_errno = errno;

    /* Not in a segment that spans slots: it holds one block, of one size. Nor an orphan. */
    if (size <= SMALL_MAX_BYTES || size > SLOT_BYTES || self == 0 ||
        unit_entry_large_holder(b->entry) != self ||
        pool_table_units(heap, unit, b->n_units) != b->n_units)
        return false;
    if (n == b->n_units)
        return true;
    if (n > b->n_units && !pool_take_at(heap, unit + b->n_units, n - b->n_units))
        return false;
    /* Failing: somebody has freed it meanwhile, which the application should not. */
    bool is_done = atomic_compare_exchange_strong(heap_entry(heap, unit), &expected,
                                                  unit_entry_large(n, self));
    if (is_done && n < b->n_units)
        units_give(heap, unit + n, b->n_units - n);
    else if (!is_done && n > b->n_units)
        pool_give(heap, unit + b->n_units, n - b->n_units);
    errno = saved_errno;
    return is_done;
}

void large_free(struct acre_heap *heap, const struct block *b)
{
    struct kept run = {(uint32_t)(b->off >> UNIT_SHIFT), b->n_units};
    uint64_t entry = b->entry;
    tag_t self = self_id(heap);

    if (self == 0 || unit_entry_large_holder(entry) != self) {
        struct msg_request req = {.op = MSG_FREE_LARGE, .free_large = {.off = b->off}};
        struct msg_reply reply;
        atomic_store_explicit(b->tag, TAG_FREE, memory_order_release);
        /* Should this fail, the daemon finds the block by itself: U_LARGE with tag 0. */
        (void)heap_call(heap, &req, &reply);
        return;
    }
    if (kept_add(heap, run, entry))
        return;
    if (atomic_compare_exchange_strong(heap_entry(heap, run.unit), &entry,
                                       unit_entry_plain(U_CUT, holder_token(self, 0))))
        units_give(heap, run.unit, run.n_units);
}
