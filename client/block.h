/* SPDX-License-Identifier: Apache-2.0 */
/* block.h - what is at an address? For small blocks in a handful of instructions, inline; for all
 * others in block.c. Any address is allowed: what is no block is found out. */
#ifndef ACRE_CLIENT_BLOCK_H
#define ACRE_CLIENT_BLOCK_H

#include "client/heap.h"

/* A small block, live or free. */
struct small_block {
    _Atomic tag_t *tag;
    const struct geo *geo;
    uint64_t entry; /* of its unit */
    uint64_t unit;
};

/* False: no small block begins there. Divides by multiplication: see sizeclass.h. */
static inline bool small_find(const struct acre_heap *heap, const void *address,
                              struct small_block *ret)
{
    uintptr_t at = (uintptr_t)address;

    ret->unit = (at - (uintptr_t)heap->base) >> UNIT_SHIFT;
    if (UNLIKELY(ret->unit >= HEAP_UNITS))
        return false;
    ret->entry = atomic_load_explicit(heap_entry(heap, (uint32_t)ret->unit), memory_order_acquire);
    ret->geo = &heap->geo_table[unit_entry_geo(ret->entry)]; /* no slab: limit 0, so no block */
    uint32_t in_slab = (uint32_t)at & ret->geo->mask; /* a slab is a span: aligned to its size */
    uint32_t d = in_slab - ret->geo->first;
    uint32_t idx;
    if (UNLIKELY(d >= ret->geo->limit || !block_idx(d, ret->geo->recip, &idx)))
        return false;
    ret->tag = (_Atomic tag_t *)(at - in_slab) + idx;
    return true;
}

enum block_fault { BLOCK_OK = 0, BLOCK_FOREIGN, BLOCK_INTERIOR };
struct block {
    enum block_fault fault;
    bool large;
    uint32_t n_units; /* large */
    uint64_t entry, off;
    size_t usable;
    _Atomic tag_t *tag;
};
struct block block_find(const struct acre_heap *heap, const void *address);

/* ---- owner.c ---- */
/* The tag of a block of any kind that is this client's; else NULL and the error (0 if the heap has
 * it). */
_Atomic tag_t *own_tag_slow(struct acre_heap *heap, const void *block, int *ret_r);

#endif
