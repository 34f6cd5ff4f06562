/* SPDX-License-Identifier: Apache-2.0 */
/*
 * alloc.c - the two fast paths, and what is built from them.
 *
 * MODEL. The owner tag of a block is the only truth (DESIGN.md section 5): 0 free, else the owner.
 * A thread cache knows, per class, free blocks of slabs that it holds from two sources: a stack of
 * blocks that this thread freed lately (address and tag's address, so that neither has to be
 * computed from the other), and a 64-block window of one slab as a bit mask.
 *
 * INVARIANTS
 *  1. Every block on the stack or in the mask has tag 0 and lies in a slab whose holder token is
 * this cache's. Only the holder turns 0 into an id, so tag 0 stays until this thread takes the
 * block.
 *  2. A block is never on the stack and in the mask at once: windows are scanned only when both are
 * empty (bin.c).
 *  3. Alloc commits with one store (tag = owner), free with one store (tag = 0). Everything else is
 * private and derived.
 *
 * A KILL before the commit: it never happened (block still free / still owned and swept with its
 * owner). After: it did. A kill between the 0 and the hint, or with blocks on the stack, forgets
 * only hints: whoever holds the slab next scans it anew.
 *
 * ORDER. free: the 0 is stored with release (the freer's last accesses come before it), the hint
 * after it. The scan that finds the 0 has acquire. Alloc's own store needs none: nobody else may
 * write that tag before the block has been passed on.
 *
 * COST. No system call, no lock prefix, no lock; a test single-steps both paths and looks. After
 * fork or close the thread's cache is not believed (serial, or token 0): the slow path finds out.
 */
#include <string.h>

#include "client/block.h"

#define RESERVE_MAX (1u << 24) /* notes of 16 bytes in 256 MiB of private memory */

static inline void tag_commit(_Atomic tag_t *tag, tag_t owner)
{
    atomic_store_explicit(tag, owner, memory_order_relaxed);
}

/* The stack is not empty. */
static inline void *bin_pop_stack(struct bin *bin, tag_t owner)
{
    const struct free_block *f = --bin->top;
    tag_commit(f->tag, owner);
    return f->block;
}

/* The mask is not 0. */
static inline void *bin_pop_mask(struct bin *bin, tag_t owner)
{
    size_t i = (size_t)__builtin_ctzll(bin->mask);
    bin->mask &= bin->mask - 1;
    tag_commit(bin->win_tag + i, owner);
    return bin->win_block + i * bin->block_bytes;
}

static inline void bin_push(struct bin *bin, void *block, _Atomic tag_t *tag)
{
    *bin->top++ = (struct free_block){block, tag};
}

static __attribute__((noinline)) void *small_alloc_slow(struct acre_heap *heap, unsigned class_idx,
                                                        bool heap_owned)
{
    struct cache *cache = cache_here(heap);

    if (!cache || cache->token == 0)
        cache = cache_acquire(heap);
    if (!cache)
        return NULL;
    for (;;) {
        struct bin *bin = &cache->bins[class_idx];
        tag_t owner = heap_owned ? TAG_HEAP : cache->id;
        if (!stack_is_empty(bin))
            return bin_pop_stack(bin, owner);
        if (bin->mask != 0)
            return bin_pop_mask(bin, owner);
        int r = bin_refill(heap, cache, class_idx);
        if (r < 0) {
            errno = -r;
            return NULL;
        }
    }
}

static inline struct bin *bin_at(struct cache *cache, unsigned class_off)
{
    return (struct bin *)(void *)((char *)cache->bins + class_off);
}

static inline void *small_alloc(struct acre_heap *heap, unsigned class_off)
{
    if (LIKELY(tls_last.serial == heap->serial)) {
        struct cache *cache = tls_last.cache;
        struct bin *bin = bin_at(cache, class_off);
        if (LIKELY(!stack_is_empty(bin)))
            return bin_pop_stack(bin, cache->id);
        if (LIKELY(bin->mask != 0))
            return bin_pop_mask(bin, cache->id);
    }
    return small_alloc_slow(heap, class_off / CLASS_STEP, false);
}

/* Apart, so that the path of small blocks needs no registers for it. */
static __attribute__((noinline)) void *alloc_beyond_table(struct acre_heap *heap, size_t size)
{
    if (UNLIKELY(size > SMALL_MAX_BYTES))
        return large_alloc(heap, size, 1, false);
    return small_alloc(heap, class_of_size((uint32_t)size) * CLASS_STEP);
}

void *acre_alloc(struct acre_heap *heap, size_t size)
{
    if (UNLIKELY(size > CLASS_TABLE_BYTES))
        return alloc_beyond_table(heap, size);
    return small_alloc(heap, heap->class_table[(size + 15) >> 4]);
}

/* Everything that the fast path did not take: NULL, large blocks, misuse. Keeps errno. */
static __attribute__((noinline)) void free_slow(struct acre_heap *heap, void *address)
{
    int saved_errno = errno;

    if (!address)
        return;
    struct block b = block_find(heap, address);
    if (heap->is_read_only) { /* which finds no blocks */
        misuse_report(heap, "acre_free", ACRE_MISUSE_READ_ONLY, address);
    } else if (b.fault) {
        misuse_report(heap, "acre_free",
                      b.fault == BLOCK_FOREIGN ? ACRE_MISUSE_FOREIGN : ACRE_MISUSE_INTERIOR,
                      address);
    } else if (!b.large || atomic_load_explicit(b.tag, memory_order_relaxed) == TAG_FREE) {
        /* A small block was free when the fast path looked, even if it has an owner again by
         * now. */
        misuse_report(heap, "acre_free", ACRE_MISUSE_DOUBLE_FREE, address);
    } else if (unit_entry_is_soft(b.entry)) {
        soft_free(heap, &b);
    } else {
        large_free(heap, &b);
    }
    errno = saved_errno;
}

/* What follows the 0 when the block is not pushed: a hint for the slab's holder, stored
 * unconditionally, since testing the byte first could lose it (DESIGN.md section 13). Pairs with
 * slab_open(). */
static inline void free_hint(const struct acre_heap *heap, void *address, uint64_t entry)
{
    uint64_t unit = (uint64_t)((char *)address - heap->base) >> UNIT_SHIFT;

    atomic_store_explicit(heap_hint(heap, (uint32_t)unit) - unit_entry_back(entry), 1,
                          memory_order_release);
}

/* This thread used another heap last: look for its cache of this one. The tag is 0 already. */
static __attribute__((noinline)) void free_other_heap(struct acre_heap *heap, void *address,
                                                      uint64_t entry, _Atomic tag_t *tag)
{
    struct cache *cache = cache_here(heap);
    struct bin *bin = cache ? &cache->bins[geo_class(unit_entry_geo(entry))] : NULL;

    if (bin && unit_entry_holder(entry) == cache->token && !stack_is_full(bin))
        bin_push(bin, address, tag);
    else
        free_hint(heap, address, entry);
}

void acre_free(struct acre_heap *heap, void *address)
{
    struct small_block b;

    if (UNLIKELY(!small_find(heap, address, &b) ||
                 atomic_load_explicit(b.tag, memory_order_relaxed) == TAG_FREE)) {
        free_slow(heap, address);
        return;
    }
    atomic_store_explicit(b.tag, TAG_FREE, memory_order_release);

    if (LIKELY(tls_last.key == (heap->serial | unit_entry_holder(b.entry)))) {
        struct bin *bin = bin_at(tls_last.cache, b.geo->class_off);
        if (LIKELY(!stack_is_full(bin))) {
            bin_push(bin, address, b.tag);
            return;
        }
    }
    if (LIKELY(tls_last.serial == heap->serial))
        free_hint(heap, address, b.entry);
    else
        free_other_heap(heap, address, b.entry, b.tag);
}

/* Smallest class whose blocks hold size bytes at this alignment; N_CLASSES if none. */
static unsigned class_aligned(size_t size, size_t align)
{
    if (MAX(size, align) > SMALL_MAX_BYTES || align > SLAB_ALIGN_MAX)
        return N_CLASSES;
    unsigned c = class_of_size((uint32_t)MAX(size, align));
    while (c < N_CLASSES && class_align(c) < align)
        c++;
    return c;
}

void *acre_allocx(struct acre_heap *heap, size_t size, size_t align, unsigned flags)
{
    bool heap_owned = flags & ACRE_HEAP_OWNED;
    void *block = NULL;

    if ((align != 0 && !is_pow2_u64(align)) ||
        (flags & ~(ACRE_ZERO | ACRE_HEAP_OWNED | ACRE_SOFT)) != 0) {
        errno = -fail(EINVAL, "acre_allocx: alignment %zu or flags 0x%x are invalid", align, flags);
        return NULL;
    }
    unsigned class_idx = class_aligned(size, align ? align : 1);
    if (flags & ACRE_SOFT) {
        block = soft_alloc(heap, size, align ? align : 1, heap_owned);
    } else if (class_idx == N_CLASSES) {
        block = large_alloc(heap, size, align ? align : 1, heap_owned);
    } else {
        block = heap_owned ? small_alloc_slow(heap, class_idx, true)
                           : small_alloc(heap, class_idx * CLASS_STEP);
    }
    if (block && (flags & ACRE_ZERO))
        memset(block, 0, size);
    return block;
}

int acre_reserve(struct acre_heap *heap, size_t size, size_t n_blocks)
{
    if (size > SMALL_MAX_BYTES || n_blocks > RESERVE_MAX)
        return fail(EINVAL, "acre_reserve: %zu blocks of %zu bytes; at most %u of %u bytes",
                    n_blocks, size, RESERVE_MAX, SMALL_MAX_BYTES);
    struct cache *cache = cache_here(heap);
    int saved_errno = errno;

    if (!cache || cache->token == 0)
        cache = cache_acquire(heap);
    int r = cache ? bin_reserve(heap, cache, class_of_size((uint32_t)size), (uint32_t)n_blocks)
                  : -errno;
    errno = saved_errno;
    return r;
}

uint64_t acre_refills(struct acre_heap *heap)
{
    const struct cache *cache = cache_here(heap);

    return cache ? cache->n_refills : 0;
}

void *acre_calloc(struct acre_heap *heap, size_t n, size_t size)
{
    size_t bytes;

    if (__builtin_mul_overflow(n, size, &bytes)) {
        errno = -fail(ENOMEM, "acre_calloc: %zu times %zu bytes overflow", n, size);
        return NULL;
    }
    return acre_allocx(heap, bytes, 0, ACRE_ZERO);
}

void *acre_aligned_alloc(struct acre_heap *heap, size_t align, size_t size)
{
    if (align == 0) {
        errno = -fail(EINVAL, "acre_aligned_alloc: alignment 0 is no power of two");
        return NULL;
    }
    return acre_allocx(heap, size, align, 0);
}

/* A new size stays in place if the block would not be much too large for it, or can be made to
 * fit. */
static bool realloc_in_place(struct acre_heap *heap, const struct block *b, size_t size)
{
    if (b->large && large_resize(heap, b, size))
        return true;
    return size <= b->usable && (size >= b->usable / 2 || b->usable <= 64);
}

/* The copy is published last, if it is to be: killed while it copies, this client leaves nothing
 * behind; and the block may have been published meanwhile (acre_publish_all()). */
static void *realloc_move(struct acre_heap *heap, void *address, const struct block *b, size_t size)
{
    void *moved = acre_alloc(heap, size);

    if (moved) {
        memcpy(moved, address, MIN(size, b->usable));
        if (atomic_load_explicit(b->tag, memory_order_acquire) == TAG_HEAP)
            (void)acre_publish(heap, moved);
        acre_free(heap, address);
    }
    return moved;
}

void *acre_realloc(struct acre_heap *heap, void *address, size_t size)
{
    if (!address)
        return acre_alloc(heap, size);
    if (size == 0) {
        errno = -fail(EINVAL, "acre_realloc: size 0; acre_free() frees");
        return NULL;
    }
    struct block b = block_find(heap, address);
    tag_t tag = b.fault ? TAG_FREE : atomic_load_explicit(b.tag, memory_order_relaxed);
    if (heap->is_read_only) {
        errno = -fail_read_only(heap);
        return NULL;
    }
    if (tag == TAG_FREE) {
        misuse_report(heap, "acre_realloc",
                      b.fault == BLOCK_OK        ? ACRE_MISUSE_DOUBLE_FREE
                      : b.fault == BLOCK_FOREIGN ? ACRE_MISUSE_FOREIGN
                                                 : ACRE_MISUSE_INTERIOR,
                      address);
        errno = -fail(EINVAL, "acre_realloc: %p is no live block of the heap", address);
        return NULL;
    }
    if (tag != TAG_HEAP && tag != self_id(heap)) {
        errno = -fail(EPERM, "acre_realloc: the block at %p belongs to client %u", address, tag);
        return NULL;
    }
    if (b.large && unit_entry_is_soft(b.entry)) {
        errno = -fail(EINVAL, "acre_realloc: %p is a soft block", address);
        return NULL;
    }
    if (realloc_in_place(heap, &b, size))
        return address;
    return realloc_move(heap, address, &b, size);
}
