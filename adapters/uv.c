/* SPDX-License-Identifier: Apache-2.0 */
/* libuv asks for no block of 0 bytes and resizes none to that, so acre_realloc() serves as it
 * is. */
#include "adapters/uv.h"

#include <acre.h>
#include <stdlib.h>
#include <uv.h>

static struct acre_heap *the_heap;

static void *heap_malloc(size_t size)
{
    return acre_alloc(the_heap, size);
}

static void *heap_realloc(void *block, size_t size)
{
    return acre_realloc(the_heap, block, size);
}

static void *heap_calloc(size_t n, size_t size)
{
    return acre_calloc(the_heap, n, size);
}

static void heap_free(void *block)
{
    acre_free(the_heap, block);
}

int acre_uv_use(struct acre_heap *heap)
{
    the_heap = heap;
    return heap ? uv_replace_allocator(heap_malloc, heap_realloc, heap_calloc, heap_free)
                : uv_replace_allocator(malloc, realloc, calloc, free);
}
