/* SPDX-License-Identifier: Apache-2.0 */
/*
 * large.c - blocks above 32 KiB: runs of whole units, with their owner tag in the segment's tag
 * table.
 *
 * MODEL. The head's entry is U_LARGE with the number of units and the client whose units they are;
 * all others are U_CUT. The tag is set before the entry says U_LARGE, so U_LARGE with tag 0 means
 * one thing: freed, units not yet returned.
 *
 * ALLOC   units U_CUT -> tag = owner -> entry = U_LARGE (the commit)
 * FREE    tag = 0 (the commit) -> entry U_LARGE -> U_CUT by CAS -> units back to the pool or the
 * daemon. The CAS, because the daemon, when memory is short, returns the units of freed blocks
 * itself. Another client's block: the daemon is told, and verifies.
 *
 * A KILL before the commit: U_CUT units of a dead client. After a free's commit: U_LARGE with tag
 * 0, found by the daemon.
 *
 * COST. Up to POOL_LARGE_UNITS from the pool, without the daemon; above, one request. A block's
 * units are claimed one CAS each.
 */
#include "client/heap.h"

#define POOL_LARGE_UNITS 64u /* 512 KiB */
#define ALIGN_ORDER_MAX  (SLOT_SHIFT - UNIT_SHIFT - 1)

static uint32_t take_from_pool(struct acre_heap *heap, uint32_t n_units)
{
    unsigned order = log2_ceil_u64(n_units);
    uint32_t unit = pool_take(heap, order);

    if (unit != BUDDY_NONE && n_units < 1u << order)
        pool_give(heap, unit + n_units, (1u << order) - n_units);
    return unit;
}

static int take_units(struct acre_heap *heap, uint32_t n_units, unsigned align_order,
                      uint32_t *ret_unit)
{
    int r = attach_ensure(heap);

    if (r < 0)
        return r;
    if (n_units <= POOL_LARGE_UNITS && align_order <= log2_ceil_u64(n_units)) {
        *ret_unit = take_from_pool(heap, n_units);
        if (*ret_unit == BUDDY_NONE && pool_grow(heap, log2_ceil_u64(n_units), 0, NULL) == 0)
            *ret_unit = take_from_pool(heap, n_units);
        if (*ret_unit != BUDDY_NONE)
            return 0;
    }
    r = pool_grow_exact(heap, n_units, align_order, ret_unit);
    if (r != -ENOMEM)
        return r;
    /* What this process hoards may be what is missing. */
    (void)acre_trim(heap);
    return pool_grow_exact(heap, n_units, align_order, ret_unit);
}

void *large_alloc(struct acre_heap *heap, size_t size, size_t align, bool heap_owned)
{
    unsigned align_order = align <= UNIT_BYTES ? 0 : log2_ceil_u64(align) - UNIT_SHIFT;
    uint64_t n_units = size == 0 ? 1 : (size >> UNIT_SHIFT) + (size % UNIT_BYTES != 0);
    int saved_errno = errno, r;
    uint32_t unit;

    if (n_units >= HEAP_UNITS || align_order > ALIGN_ORDER_MAX)
        r = fail(ENOMEM, "%zu bytes aligned to %zu cannot be had: a heap has %llu GiB", size, align,
                 HEAP_BYTES >> 30);
    else
        r = take_units(heap, (uint32_t)n_units, align_order, &unit);
    if (r < 0) {
        errno = -r;
        return NULL;
    }
    unsigned slot = unit / SLOT_UNITS;
    uint64_t tables = atomic_load_explicit(&heap->slots[slot].tables, memory_order_relaxed);
    atomic_store_explicit(heap_tags(heap, slot, tables) + unit % SLOT_UNITS,
                          heap_owned ? TAG_HEAP : self_id(heap), memory_order_relaxed);
    atomic_store_explicit(heap_entries(heap, slot) + unit % SLOT_UNITS,
                          unit_entry_large((uint32_t)n_units, self_id(heap)), memory_order_release);
    errno = saved_errno;
    return heap->base + ((uint64_t)unit << UNIT_SHIFT);
}

void large_free_units(struct acre_heap *heap, uint64_t off, uint64_t entry)
{
    uint32_t unit = (uint32_t)(off >> UNIT_SHIFT), n_units = unit_entry_large_units(entry);
    tag_t self = self_id(heap);
    _Atomic uint64_t *e = heap_entries(heap, unit / SLOT_UNITS) + unit % SLOT_UNITS;

    if (self == 0 || unit_entry_large_holder(entry) != self) {
        struct msg_request req = {.op = MSG_FREE_LARGE, .free_large = {.off = off}};
        struct msg_reply reply;
        /* Should this fail, the daemon finds the block by itself: U_LARGE with tag 0. */
        (void)heap_call(heap, &req, &reply);
        return;
    }
    if (!atomic_compare_exchange_strong(e, &entry, unit_entry_plain(U_CUT, holder_token(self, 0))))
        return;
    if (n_units <= POOL_LARGE_UNITS)
        pool_give(heap, unit, n_units);
    else
        pool_release(heap, unit, n_units);
}
