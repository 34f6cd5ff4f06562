/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lua.h - Lua states (5.1 and later) whose memory is an Acre heap.
 *
 *     lua_State *L = lua_newstate(acre_lua_alloc, heap);
 *
 * The heap is the caller's. It stays open until lua_close() has come back; one heap may serve many
 * states. When it is full, Lua collects its garbage, tries again, and then raises "not enough
 * memory" (LUA_ERRMEM), which lua_pcall() catches; a state without one calls its panic function.
 */
#ifndef ACRE_ADAPTERS_LUA_H
#define ACRE_ADAPTERS_LUA_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A lua_Alloc; heap is the struct acre_heap to take the memory from. Lua calls it, nobody else. */
void *acre_lua_alloc(void *heap, void *block, size_t old_size, size_t new_size);

#ifdef __cplusplus
}
#endif

#endif
