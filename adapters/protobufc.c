/* SPDX-License-Identifier: Apache-2.0 */
#include "adapters/protobufc.h"

#include <acre.h>

static void *heap_alloc(void *heap, size_t size)
{
    return acre_alloc(heap, size);
}

static void heap_free(void *heap, void *block)
{
    acre_free(heap, block);
}

ProtobufCAllocator acre_protobufc_allocator(struct acre_heap *heap)
{
    return (ProtobufCAllocator){.alloc = heap_alloc, .free = heap_free, .allocator_data = heap};
}
