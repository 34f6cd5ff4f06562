/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bin.c - where free blocks come from when stack and mask are empty.
 *
 * MODEL. A bin (one class of one thread) has a ring of slabs that it holds: the unit entries of
 * each name the cache's token. Refilling goes, in this order, and each step is bounded:
 *   1. the next window of the current slab           at most 120 windows (57 for a busy slab's map)
 *   2. own slabs with a hint, from the probe on      32 hint bytes; each hit is one slab's map
 *   3. a fresh slab from the process's pool          one buddy operation, one CAS a unit (<= 64)
 *   4. own slabs without trusting hints              64 maps, in turn: a lost hint only delays
 *   5. slabs of caches whose thread has ended        moved whole
 *   6. the daemon                                    one request, with the deadline
 *   7. before ENOMEM is said: all own maps, empty slabs back to the pool, smaller slabs
 *
 * INVARIANT. Windows are scanned, and slabs given back, only while stack and mask of their bin are
 * empty: so no block is known twice, and none that is about to be tagged is lost.
 *
 * RESERVING (acre_reserve) is refilling in advance: stack and mask are forgotten, then all free
 * blocks of own slabs, and then of fresh ones, go onto the stack, which is made as large as it must
 * be; and their pages are touched. So the allocations that follow pop, and nothing else.
 */
#include "client/slab.h"

#include <sys/mman.h>

#define HINT_PROBES  32u
#define BLIND_PROBES 64u
#define STACK_MAX    (1u << 20) /* up to there a stack at least doubles when it grows */

/* ---- the ring ---- */

static void ring_add(struct bin *bin, struct slab *s)
{
    if (!bin->cur) {
        s->next = s->prev = s;
        bin->cur = bin->probe = s;
    } else {
        s->prev = bin->probe->prev;
        s->next = bin->probe;
        s->prev->next = s->next->prev = s;
    }
    bin->n_slabs++;
}

static void ring_remove(struct bin *bin, struct slab *s)
{
    acre_assert(bin->n_slabs > 0);
    s->prev->next = s->next;
    s->next->prev = s->prev;
    bin->n_slabs--;
    if (bin->probe == s)
        bin->probe = s->next;
    if (bin->cur == s)
        bin->cur = s->next;
    if (bin->n_slabs == 0)
        bin->cur = bin->probe = NULL;
}

/* ---- windows ---- */

/* The current slab's next window with a free block. */
static bool bin_next_window(struct bin *bin)
{
    const struct slab *s = bin->cur;

    while (s && bin->next_idx < slab_n_blocks(s)) {
        uint32_t idx = bin->next_idx;
        bin->next_idx += WINDOW;
        bin->mask = slab_scan(s, idx);
        if (bin->mask != 0) {
            bin->block_bytes = geo_table[s->geo].size;
            bin->win_tag = slab_tag(s, idx);
            bin->win_block = slab_block(s, idx);
            return true;
        }
    }
    return false;
}

/* Makes a slab the current one and looks at it from its start. */
static bool bin_open(struct bin *bin, struct slab *s)
{
    acre_assert(stack_is_empty(bin) && bin->mask == 0);
    bin->cur = s;
    bin->next_idx = 0;
    slab_clear_hint(s);
    return bin_next_window(bin);
}

static bool bin_probe(struct bin *bin, uint32_t n_max, bool blind)
{
    for (uint32_t i = MIN(bin->n_slabs, n_max); i > 0; i--) {
        struct slab *s = bin->probe;
        bin->probe = s->next;
        if ((blind || atomic_load_explicit(s->hint, memory_order_relaxed) != 0) && bin_open(bin, s))
            return true;
    }
    return false;
}

/* ---- slabs come and go ---- */

/* Makes the pages of [from, from + bytes) be there, as far as that can be had. */
static void populate(void *from, size_t bytes)
{
#ifdef MADV_POPULATE_WRITE
    uintptr_t page = (uintptr_t)from & ~(uintptr_t)(PAGE_BYTES - 1);
    int saved_errno = errno;
    (void)madvise((void *)page, (uintptr_t)from + bytes - page, MADV_POPULATE_WRITE);
    errno = saved_errno;
#else
    (void)from;
    (void)bytes;
#endif
}

/* A free shall not be the first to touch a page of the stack: there is room for one more slab's
 * blocks. The first slab's are left to it: a bin that stays small stays cheap. */
static void bin_hold(struct cache *cache, struct bin *bin, struct slab *s)
{
    uint32_t capacity = (uint32_t)(bin->limit - bin->bottom), n = slab_n_blocks(s);

    slab_hold(s, cache->token);
    ring_add(bin, s);
    uint32_t from = bin->n_slabs == 2 ? 0 : (bin->n_slabs - 1) * n, end = bin->n_slabs * n;
    if (bin->n_slabs > 1 && from < capacity)
        populate(bin->bottom + from, (MIN(end, capacity) - from) * sizeof(*bin->bottom));
}

/* Stack and mask are only knowledge: forgotten, with a hint that there is something to find. */
static void bin_forget(struct bin *bin)
{
    struct slab *s = bin->cur;

    bin->top = bin->bottom;
    bin->mask = 0;
    for (uint32_t i = bin->n_slabs; i > 0; i--, s = s->next)
        atomic_store_explicit(s->hint, 1, memory_order_relaxed);
    if (s)
        bin->next_idx = slab_n_blocks(s);
}

static void bin_release(struct acre_heap *heap, struct cache *cache, struct bin *bin,
                        struct slab *s)
{
    ring_remove(bin, s);
    if (!slab_release(heap, s, cache->token))
        ring_add(bin, s);
}

/* Stack and mask are forgotten, empty slabs go, and if asked for free pages of the others. */
static void bin_trim(struct acre_heap *heap, struct cache *cache, struct bin *bin, bool punch)
{
    bin_forget(bin);
    struct slab *s = bin->cur;
    for (uint32_t i = bin->n_slabs; i > 0; i--) {
        struct slab *next = s->next;
        if (slab_is_empty(s))
            bin_release(heap, cache, bin, s);
        else if (punch)
            slab_punch_free(s);
        s = next;
    }
    if (bin->cur)
        bin->next_idx = slab_n_blocks(bin->cur);
}

void cache_trim(struct acre_heap *heap, struct cache *cache, bool punch)
{
    large_release_kept(heap, cache);
    for (unsigned c = 0; c < N_CLASSES; c++)
        bin_trim(heap, cache, &cache->bins[c], punch);
}

/* Slabs of an ended thread's bin become this cache's. Caller owns both caches. */
static bool bin_move(struct cache *to, struct cache *from, unsigned class_idx)
{
    struct bin *dst = &to->bins[class_idx], *src = &from->bins[class_idx];

    bin_forget(src);
    if (!src->cur)
        return false;
    while (src->cur) {
        struct slab *s = src->cur;
        ring_remove(src, s);
        slab_hold(s, to->token);
        ring_add(dst, s);
    }
    return true;
}

bool cache_inherit(struct acre_heap *heap, struct cache *cache, unsigned class_idx)
{
    bool any = false;

    pthread_mutex_lock(&heap->process->pool_lock);
    for (struct cache *c = heap->process->caches; c; c = c->next)
        if (!c->busy)
            any |= bin_move(cache, c, class_idx);
    pthread_mutex_unlock(&heap->process->pool_lock);
    return any;
}

/* ---- refilling ---- */

static unsigned bin_order(const struct bin *bin, unsigned class_idx)
{
    return MIN((unsigned)class_order_max[class_idx], class_order_min[class_idx] + bin->n_slabs);
}

/* A fresh slab from the pool, or NULL. */
static struct slab *bin_cut(struct acre_heap *heap, struct cache *cache, unsigned class_idx,
                            unsigned order)
{
    struct slab *s = slab_cut(heap, class_idx, order);

    if (s)
        bin_hold(cache, &cache->bins[class_idx], s);
    return s;
}

static bool bin_open_fresh(struct acre_heap *heap, struct cache *cache, unsigned class_idx,
                           unsigned order)
{
    struct slab *s = bin_cut(heap, cache, class_idx, order);

    return s && bin_open(&cache->bins[class_idx], s);
}

#define TAKEN_TRIES 4u

static int taken_back(void)
{
    return fail(ENOMEM, "granted units were taken back %u times in a row", TAKEN_TRIES);
}

/* Holds a parked slab, or a fresh one out of the pool. NULL: another thread or the daemon took it
 * meanwhile. */
static struct slab *bin_hold_granted(struct acre_heap *heap, struct cache *cache,
                                     unsigned class_idx, unsigned order, uint32_t parked)
{
    struct slab *s = parked == BUDDY_NONE ? slab_cut(heap, class_idx, order)
                                          : slab_adopt(heap, class_idx, parked, cache->token);

    if (s)
        bin_hold(cache, &cache->bins[class_idx], s);
    return s;
}

bool bin_refill_granted(struct acre_heap *heap, struct cache *cache, unsigned class_idx,
                        uint32_t parked)
{
    struct slab *s = bin_hold_granted(heap, cache, class_idx, class_order_min[class_idx], parked);

    cache->n_refills++;
    return s && bin_open(&cache->bins[class_idx], s);
}

/* Asks the daemon, and holds what came: a fresh slab or a dead client's, which may be full; or
 * NULL. */
static int bin_grow(struct acre_heap *heap, struct cache *cache, unsigned class_idx, unsigned order,
                    struct slab **ret_slab)
{
    uint32_t parked = BUDDY_NONE;
    int r = pool_grow(heap, order, POOL_HARD, class_idx + 1, &parked);

    if (r < 0)
        return r;
    *ret_slab = bin_hold_granted(heap, cache, class_idx, order, parked);
    return 0;
}

static int bin_open_grown(struct acre_heap *heap, struct cache *cache, unsigned class_idx,
                          unsigned order)
{
    for (unsigned tries = 0; tries < TAKEN_TRIES; tries++) {
        struct slab *s;
        int r = bin_grow(heap, cache, class_idx, order, &s);
        if (r < 0 || (s && bin_open(&cache->bins[class_idx], s)))
            return r;
    }
    return taken_back();
}

/* Step 7: nothing is left but to look everywhere. */
static int bin_last_resort(struct acre_heap *heap, struct cache *cache, unsigned class_idx)
{
    struct bin *bin = &cache->bins[class_idx];

    if (bin_probe(bin, bin->n_slabs, true))
        return 0;
    cache_trim(heap, cache, false);
    cache_trim_idle(heap, false);
    heed(heap, cache);
    for (unsigned order = bin_order(bin, class_idx) + 1; order-- > class_order_min[class_idx];)
        if (bin_open_fresh(heap, cache, class_idx, order))
            return 0;
    return bin_open_grown(heap, cache, class_idx, class_order_min[class_idx]);
}

static int refill(struct acre_heap *heap, struct cache *cache, unsigned class_idx,
                  enum trace_cause *ret_cause)
{
    struct bin *bin = &cache->bins[class_idx];

    heed(heap, cache);
    unsigned order = bin_order(bin, class_idx);
    cache->n_refills++;
    *ret_cause = TRACE_WINDOW;
    if (bin_next_window(bin))
        return 0;
    *ret_cause = TRACE_SLAB;
    if (bin_probe(bin, HINT_PROBES, false))
        return 0;
    *ret_cause = TRACE_EXTENT;
    if (bin_open_fresh(heap, cache, class_idx, order))
        return 0;
    *ret_cause = TRACE_SLAB;
    if (bin_probe(bin, BLIND_PROBES, true) ||
        (cache_inherit(heap, cache, class_idx) && bin_probe(bin, bin->n_slabs, false)))
        return 0;
    *ret_cause = TRACE_DAEMON;
    int r = bin_open_grown(heap, cache, class_idx, order);
    return r == -ENOMEM ? bin_last_resort(heap, cache, class_idx) : r;
}

int bin_refill(struct acre_heap *heap, struct cache *cache, unsigned class_idx)
{
    enum trace_cause cause;

    PROBE(slow__begin);
    int r = refill(heap, cache, class_idx, &cause);
    PROBE(slow__end, (uint64_t)class_bytes[class_idx], cause, -r);
    return r;
}

/* ---- reserving ---- */

/* A larger stack, which replaces the other for good. False: no private memory. */
static bool stack_enlarge(struct acre_heap *heap, struct bin *bin, uint32_t n_blocks)
{
    uint32_t capacity = (uint32_t)(bin->limit - bin->bottom);

    if (n_blocks <= capacity)
        return true;
    n_blocks = MAX(n_blocks, MIN(2 * capacity, STACK_MAX)); /* the old one is lost: seldom, then */
    pthread_mutex_lock(&heap->process->pool_lock);
    struct free_block *stack = arena_take(heap, n_blocks * sizeof(*stack), 64);
    pthread_mutex_unlock(&heap->process->pool_lock);
    if (!stack)
        return false;
    acre_assert(stack_is_empty(bin));
    bin->top = bin->bottom = stack;
    bin->limit = stack + n_blocks;
    return true;
}

/* All free blocks of a slab that is not on the stack yet; what does not fit is found by a scan. The
 * first block is pushed last. */
static void stack_fill_from(struct bin *bin, struct slab *s)
{
    slab_clear_hint(s);
    for (uint32_t idx = (slab_n_blocks(s) - 1) & ~(WINDOW - 1);; idx -= WINDOW) {
        for (uint64_t mask = slab_scan(s, idx); mask != 0;) {
            uint32_t i = 63u - (uint32_t)__builtin_clzll(mask);
            mask &= ~(1ull << i);
            if (stack_is_full(bin)) {
                atomic_store_explicit(s->hint, 1, memory_order_relaxed);
                return;
            }
            *bin->top++ = (struct free_block){slab_block(s, idx + i), slab_tag(s, idx + i)};
        }
        if (idx == 0)
            return;
    }
}

int bin_reserve(struct acre_heap *heap, struct cache *cache, unsigned class_idx, uint32_t n_blocks)
{
    struct bin *bin = &cache->bins[class_idx];
    unsigned n_taken = 0;

    bin_forget(bin);
    if (!stack_enlarge(heap, bin, n_blocks))
        return fail(ENOMEM, "no private memory to note %u blocks", n_blocks);
    struct slab *s = bin->cur;
    for (uint32_t i = bin->n_slabs; i > 0; i--, s = s->next) {
        stack_fill_from(bin, s);
        populate(s->head, UNIT_BYTES << geo_infos[s->geo].order);
    }
    while ((uint32_t)(bin->top - bin->bottom) < n_blocks) {
        unsigned order = bin_order(bin, class_idx);
        int r = 0;
        s = bin_cut(heap, cache, class_idx, order);
        if (!s)
            r = bin_grow(heap, cache, class_idx, order, &s);
        if (r < 0)
            return r;
        if (!s && ++n_taken == TAKEN_TRIES)
            return taken_back();
        if (!s)
            continue;
        stack_fill_from(bin, s);
        populate(s->head, UNIT_BYTES << geo_infos[s->geo].order);
    }
    return 0;
}
