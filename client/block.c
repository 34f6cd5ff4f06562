/* SPDX-License-Identifier: Apache-2.0 */
/* block.c - what is at an address? Unhurried. */
#include "client/block.h"

/* The tag of a kept block, whose own one is that of its last owner. Never written: it is 0. */
static _Atomic tag_t tag_of_kept;

static struct block find_large(const struct acre_heap *heap, struct block b, uint32_t unit)
{
    if (b.off & (UNIT_BYTES - 1))
        return b;
    b.fault = BLOCK_OK;
    b.large = true;
    b.n_units = unit_entry_large_units(b.entry);
    b.usable = (size_t)b.n_units << UNIT_SHIFT;
    b.tag = b.entry & LARGE_KEPT ? &tag_of_kept : heap_large_tag(heap, unit);
    return b;
}

struct block block_find(const struct acre_heap *heap, const void *address)
{
    struct block b = {.fault = BLOCK_FOREIGN,
                      .off = (uint64_t)((uintptr_t)address - (uintptr_t)heap->base)};
    struct small_block small = {0};

    if (b.off >= HEAP_BYTES)
        return b;
    b.fault = BLOCK_INTERIOR;
    bool is_small = small_find(heap, address, &small);
    b.entry = small.entry;
    if (is_small)
        return (struct block){
            .off = b.off, .entry = small.entry, .usable = small.geo->size, .tag = small.tag};
    if (unit_entry_state(b.entry) == U_LARGE)
        return find_large(heap, b, (uint32_t)small.unit);
    return b;
}

size_t acre_usable_size(struct acre_heap *heap, const void *block)
{
    return block ? block_find(heap, block).usable : 0;
}

acre_off acre_offset(struct acre_heap *heap, const void *block)
{
    uint64_t off = (uint64_t)((uintptr_t)block - (uintptr_t)heap->base);
    return block && off < HEAP_BYTES ? off : 0;
}

void *acre_pointer(struct acre_heap *heap, acre_off off)
{
    unsigned slot = (unsigned)(off >> SLOT_SHIFT);

    if (UNLIKELY(off == 0))
        return NULL;
    if (UNLIKELY(slot >= HEAP_SLOTS)) {
        errno = -fail(EINVAL, "offset 0x%llx is beyond the heap's %llu GiB",
                      (unsigned long long)off, HEAP_BYTES >> 30);
        return NULL;
    }
    uint64_t bytes = atomic_load_explicit(&heap->slot_bytes[slot], memory_order_acquire);
    if (UNLIKELY((off & (SLOT_BYTES - 1)) >= bytes)) {
        int r = bytes ? fail(EINVAL, "offset 0x%llx is beyond the end of its segment",
                             (unsigned long long)off)
                      : map_slot(heap, slot);
        if (r == 0)
            return acre_pointer(heap, off);
        errno = r == -ENOENT ? EINVAL : -r; /* no segment there */
        return NULL;
    }
    return heap->base + off;
}
