/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What lua_Alloc asks for beyond realloc(): size 0 frees, also nothing at all, which Lua does for
 * each table without an array; a new block comes with a kind of object for its old size; and
 * shrinking never fails, for which the block as it is will do.
 */
#include "adapters/lua.h"

#include <acre.h>

void *acre_lua_alloc(void *heap, void *block, size_t old_size, size_t new_size)
{
    if (new_size == 0) {
        if (block)
            acre_free(heap, block);
        return NULL;
    }
    if (!block)
        return acre_alloc(heap, new_size);
    void *moved = acre_realloc(heap, block, new_size);
    return moved || new_size > old_size ? moved : block;
}
