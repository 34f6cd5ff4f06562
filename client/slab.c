/* SPDX-License-Identifier: Apache-2.0 */
/*
 * slab.c - where free blocks come from when stack and mask are empty.
 *
 * MODEL. A bin (one class of one thread) has a ring of slabs that it holds: the unit entries of
 * each name the cache's token. Refilling goes, in this order, and each step is bounded:
 *   1. the next window of the current slab           at most 120 windows (57 for the largest map of
 * a busy slab)
 *   2. own slabs with a hint, from the probe on      32 hint bytes; each hit is one slab's map
 *   3. a fresh slab from the process's pool          one buddy operation
 *   4. own slabs without trusting hints              64 maps, the probe goes round: a lost hint
 * only delays
 *   5. slabs of caches whose thread has ended        moved whole
 *   6. the daemon                                    one request, with the deadline
 *   7. before ENOMEM is said: all own maps, empty slabs back to the pool, smaller slabs
 *
 * INVARIANTS. Windows are scanned, and slabs given back, only while stack and mask of their bin are
 * empty (so no block is known twice, and none that is about to be tagged is lost). A slab's map is
 * zero before its entries say U_SLAB (release): whoever finds a block through the entry finds a
 * valid tag.
 *
 * GIVING BACK. A sweep (daemon) compares-and-swaps a dead id to 0 in maps of U_SLAB units:
 * reformatting under it would expose user data to it. So: entry = U_RELEASING, fence, look at
 * sweep_seq; odd: put U_SLAB back and keep the slab. The sweeper: sweep_seq odd, fence, read
 * entries. One of the two sees the other (Dekker). An empty slab stays empty: only its holder
 * allocates.
 *
 * A KILL anywhere: entries of a dead client are judged by the daemon from the map alone: any tag
 * left, the slab is parked, else its units are free. U_CUT without a map is free.
 */
#include <string.h>

#if defined(__SSE2__) && !defined(__SANITIZE_THREAD__)
#include <emmintrin.h>
#endif

#include "client/heap.h"

#define WINDOW       64u
#define HINT_PROBES  32u
#define BLIND_PROBES 64u

/* ---- a window of tags as a mask: bit i set if tag i is 0, for the first n of them ---- */

#if defined(__SSE2__) && !defined(__SANITIZE_THREAD__)
static uint64_t scan16(const __m128i *v)
{
    __m128i zero = _mm_setzero_si128();
    __m128i lo = _mm_cmpeq_epi16(_mm_load_si128(v), zero);
    __m128i hi = _mm_cmpeq_epi16(_mm_load_si128(v + 1), zero);
    return (uint64_t)(unsigned)_mm_movemask_epi8(_mm_packs_epi16(lo, hi));
}

/* Also looks at what lies behind the map, other threads' bytes maybe, and forgets it. */
static uint64_t window_scan(const _Atomic tag_t *tags, uint32_t n)
{
    const __m128i *v = (const __m128i *)(const void *)tags;
    uint64_t mask = scan16(v) | scan16(v + 2) << 16 | scan16(v + 4) << 32 | scan16(v + 6) << 48;
    atomic_thread_fence(memory_order_acquire);
    return n >= WINDOW ? mask : mask & ((1ull << n) - 1);
}
#else
static uint64_t window_scan(const _Atomic tag_t *tags, uint32_t n)
{
    uint64_t mask = 0;

    for (unsigned i = 0; i < MIN(n, WINDOW); i++)
        mask |= (uint64_t)(atomic_load_explicit(&tags[i], memory_order_acquire) == 0) << i;
    return mask;
}
#endif

static uint64_t window_valid(uint32_t idx, uint32_t n_blocks)
{
    return n_blocks - idx >= WINDOW ? UINT64_MAX : (1ull << (n_blocks - idx)) - 1;
}

static _Atomic tag_t *slab_map(const struct slab *s)
{
    return (_Atomic tag_t *)(void *)s->head;
}

static bool slab_is_empty(const struct slab *s)
{
    uint32_t n = geo_infos[s->geo].n_blocks;

    for (uint32_t idx = 0; idx < n; idx += WINDOW) {
        uint64_t valid = window_valid(idx, n);
        if (window_scan(slab_map(s) + idx, n - idx) != valid)
            return false;
    }
    return true;
}

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
    if (!bin->cur)
        return false;
    const struct geo *geo = &geo_table[bin->cur->geo];
    uint32_t n = geo_infos[bin->cur->geo].n_blocks;
    while (bin->next_idx < n) {
        uint32_t idx = bin->next_idx;
        bin->next_idx += WINDOW;
        bin->mask = window_scan(slab_map(bin->cur) + idx, n - idx);
        if (bin->mask != 0) {
            bin->block_bytes = geo->size;
            bin->win_tag = slab_map(bin->cur) + idx;
            bin->win_block = bin->cur->head + geo->first + (size_t)idx * geo->size;
            return true;
        }
    }
    return false;
}

/* Makes a slab the current one and looks at it from its start. Clear, fence, scan: pairs with
 * acre_free()'s hint. */
static bool slab_open(struct bin *bin, struct slab *s)
{
    acre_assert(stack_is_empty(bin) && bin->mask == 0);
    bin->cur = s;
    bin->next_idx = 0;
    atomic_store_explicit(s->hint, 0, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst);
    return bin_next_window(bin);
}

static bool bin_probe(struct bin *bin, uint32_t n_max, bool blind)
{
    for (uint32_t i = MIN(bin->n_slabs, n_max); i > 0; i--) {
        struct slab *s = bin->probe;
        bin->probe = s->next;
        if ((blind || atomic_load_explicit(s->hint, memory_order_relaxed) != 0) &&
            slab_open(bin, s))
            return true;
    }
    return false;
}

/* ---- slabs come and go ---- */

/* Entries of all the slab's units. Inside first, head last: a reader that believes the head finds
 * the rest. */
static void slab_write_entries(struct slab *s, enum unit_state state, uint32_t token)
{
    for (unsigned i = 1u << geo_infos[s->geo].order; i-- > 0;)
        atomic_store_explicit(&s->entries[i], unit_entry_slab(state, s->geo, i, token),
                              memory_order_release);
}

static struct slab *slab_record(struct acre_heap *heap, uint32_t unit, unsigned geo)
{
    struct process *p = heap->process;

    pthread_mutex_lock(&p->pool_lock);
    struct slab *s = p->spare_slabs;
    if (s)
        p->spare_slabs = s->next;
    else
        s = arena_take(heap, sizeof(*s), 16);
    pthread_mutex_unlock(&p->pool_lock);
    if (s)
        *s = (struct slab){.head = heap->base + ((uint64_t)unit << UNIT_SHIFT),
                           .entries = heap_entry(heap, unit),
                           .hint = heap_hint(heap, unit),
                           .geo = (uint8_t)geo};
    return s;
}

static void slab_forget(struct acre_heap *heap, struct slab *s)
{
    pthread_mutex_lock(&heap->process->pool_lock);
    s->next = heap->process->spare_slabs;
    heap->process->spare_slabs = s;
    pthread_mutex_unlock(&heap->process->pool_lock);
}

/* From here on the slab is the cache's; looks for a free block in it. */
static bool bin_add(struct cache *cache, struct bin *bin, struct slab *s)
{
    slab_write_entries(s, U_SLAB, cache->token);
    ring_add(bin, s);
    return slab_open(bin, s);
}

/* Cuts a fresh slab of 2^order units out of the pool. */
static bool bin_add_fresh(struct acre_heap *heap, struct cache *cache, unsigned class_idx,
                          unsigned order)
{
    struct bin *bin = &cache->bins[class_idx];
    uint32_t unit = pool_take(heap, order);
    if (unit == BUDDY_NONE)
        return false;
    unsigned geo = geo_of(class_idx, order);
    struct slab *s = slab_record(heap, unit, geo);
    if (!s) {
        pool_give(heap, unit, 1u << order);
        return false;
    }
    memset(s->head, 0, geo_infos[geo].n_blocks * sizeof(tag_t));
    return bin_add(cache, bin, s);
}

/* A slab that the daemon handed over: its maker has died, its blocks live on. */
static bool bin_add_parked(struct acre_heap *heap, struct cache *cache, unsigned class_idx,
                           uint32_t unit)
{
    struct bin *bin = &cache->bins[class_idx];
    uint64_t entry = atomic_load(heap_entry(heap, unit));
    unsigned geo = unit_entry_geo(entry);

    if (unit_entry_state(entry) != U_PARKED || geo_infos[geo].n_blocks == 0 ||
        geo_infos[geo].class_idx != class_idx)
        return false;
    struct slab *s = slab_record(heap, unit, geo);
    return s && bin_add(cache, bin, s);
}

/* Gives an empty slab's units back, unless a sweep runs. */
static bool slab_release(struct acre_heap *heap, struct cache *cache, struct bin *bin,
                         struct slab *s)
{
    uint32_t unit = (uint32_t)((uint64_t)(s->head - heap->base) >> UNIT_SHIFT);

    atomic_store(&s->entries[0], unit_entry_slab(U_RELEASING, s->geo, 0, cache->token));
    atomic_thread_fence(memory_order_seq_cst); /* pairs with the daemon's sweep */
    if (__atomic_load_n(&heap->control->header.sweep_seq, __ATOMIC_SEQ_CST) & 1) {
        atomic_store(&s->entries[0], unit_entry_slab(U_SLAB, s->geo, 0, cache->token));
        return false;
    }
    ring_remove(bin, s);
    pool_give(heap, unit, 1u << geo_infos[s->geo].order);
    slab_forget(heap, s);
    return true;
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
        bin->next_idx = geo_infos[s->geo].n_blocks;
}

void cache_release_empty(struct acre_heap *heap, struct cache *cache)
{
    large_release_kept(heap, cache);
    for (unsigned c = 0; c < N_CLASSES; c++) {
        struct bin *bin = &cache->bins[c];
        bin_forget(bin);
        struct slab *s = bin->cur;
        for (uint32_t i = bin->n_slabs; i > 0; i--) {
            struct slab *next = s->next;
            if (slab_is_empty(s))
                slab_release(heap, cache, bin, s);
            s = next;
        }
        if (bin->cur)
            bin->next_idx = geo_infos[bin->cur->geo].n_blocks;
    }
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
        slab_write_entries(s, U_SLAB, to->token);
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

/* Asks the daemon, and cuts what came. */
static int bin_grow(struct acre_heap *heap, struct cache *cache, unsigned class_idx, unsigned order)
{
    for (unsigned tries = 0; tries < 4; tries++) {
        uint32_t slab_unit = BUDDY_NONE;
        int r = pool_grow(heap, order, class_idx + 1, &slab_unit);
        if (r < 0)
            return r;
        if (slab_unit != BUDDY_NONE ? bin_add_parked(heap, cache, class_idx, slab_unit)
                                    : bin_add_fresh(heap, cache, class_idx, order))
            return 0;
        /* Another thread or the daemon took it meanwhile. */
    }
    return fail(ENOMEM, "granted units were taken back %d times in a row", 4);
}

/* Step 7: nothing is left but to look everywhere. */
static int bin_last_resort(struct acre_heap *heap, struct cache *cache, unsigned class_idx)
{
    struct bin *bin = &cache->bins[class_idx];

    if (bin_probe(bin, bin->n_slabs, true))
        return 0;
    cache_release_empty(heap, cache);
    cache_release_idle(heap);
    for (unsigned order = bin_order(bin, class_idx) + 1; order-- > class_order_min[class_idx];)
        if (bin_add_fresh(heap, cache, class_idx, order))
            return 0;
    return bin_grow(heap, cache, class_idx, class_order_min[class_idx]);
}

int bin_refill(struct acre_heap *heap, struct cache *cache, unsigned class_idx)
{
    struct bin *bin = &cache->bins[class_idx];
    unsigned order = bin_order(bin, class_idx);

    if (bin_next_window(bin) || bin_probe(bin, HINT_PROBES, false) ||
        bin_add_fresh(heap, cache, class_idx, order) || bin_probe(bin, BLIND_PROBES, true))
        return 0;
    if (cache_inherit(heap, cache, class_idx) && bin_probe(bin, bin->n_slabs, false))
        return 0;
    int r = bin_grow(heap, cache, class_idx, order);
    return r == -ENOMEM ? bin_last_resort(heap, cache, class_idx) : r;
}
