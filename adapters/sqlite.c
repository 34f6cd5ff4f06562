/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SQLite rounds each request up by xRoundup(), allocates that many bytes, and books what xSize()
 * says of them. It leaves a block alone if its new size, rounded up, is its size. So xRoundup()
 * knows Acre's steps: 16 bytes, then four to each doubling, then 8 KiB. Where they were wrong they
 * would cost some moves, and nothing else.
 */
#include "adapters/sqlite.h"

#include <acre.h>
#include <errno.h>
#include <limits.h>
#include <sqlite3.h>

#define FINE_MAX  128
#define SMALL_MAX 32768
#define UNIT      8192

static struct acre_heap *the_heap; /* SQLite's own initialization comes after it */

static void *heap_malloc(int size)
{
    return acre_alloc(the_heap, (size_t)size);
}

static void heap_free(void *block)
{
    acre_free(the_heap, block);
}

static void *heap_realloc(void *block, int size)
{
    return acre_realloc(the_heap, block, (size_t)size);
}

static int heap_size(void *block)
{
    return (int)acre_usable_size(the_heap, block);
}

static int step_of(int size)
{
    if (size <= FINE_MAX)
        return 16;
    if (size > SMALL_MAX)
        return UNIT;
    return 1 << (29 - __builtin_clz((unsigned)size - 1)); /* a quarter of the power below */
}

static int heap_roundup(int size)
{
    int step = step_of(size);

    return size > INT_MAX - UNIT ? size : (size + step - 1) & -step;
}

static int heap_init(void *heap)
{
    return heap ? SQLITE_OK : SQLITE_NOMEM;
}

static void heap_shutdown(void *heap)
{
    (void)heap;
}

static int configure(sqlite3_mem_methods *methods)
{
    return sqlite3_config(SQLITE_CONFIG_MALLOC, methods) == SQLITE_OK ? 0 : -EBUSY;
}

int acre_sqlite_use(struct acre_heap *heap)
{
    static sqlite3_mem_methods before;
    sqlite3_mem_methods methods = {.xMalloc = heap_malloc,
                                   .xFree = heap_free,
                                   .xRealloc = heap_realloc,
                                   .xSize = heap_size,
                                   .xRoundup = heap_roundup,
                                   .xInit = heap_init,
                                   .xShutdown = heap_shutdown,
                                   .pAppData = heap};

    if (!before.xMalloc && sqlite3_config(SQLITE_CONFIG_GETMALLOC, &before) != SQLITE_OK)
        return -EBUSY;
    int r = configure(heap ? &methods : &before);
    if (r == 0)
        the_heap = heap;
    return r;
}
