/* SPDX-License-Identifier: Apache-2.0 */
/* real_lua.c - a script as scripts are: trees, closures, coroutines, strings that grow, tables as
 * arrays and by key, little arithmetic. */
#include "real.h"

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#include "adapters/lua.h"
#include "say.h"

static const char script[] =
    "local scale, sum = ..., 0\n"
    "local function tree(depth)\n"
    "  if depth == 0 then return {} end\n"
    "  return {tree(depth - 1), tree(depth - 1)}\n"
    "end\n"
    "local function count(t) return t[1] and 1 + count(t[1]) + count(t[2]) or 1 end\n"
    "local kept = tree(10)\n"
    "for i = 1, 15 * scale do sum = sum + count(tree(8)) end\n"
    "sum = sum + count(kept)\n"
    /* queens: a closure and a small table for each try */
    "local function queens(n)\n"
    "  local found, rows = 0, {}\n"
    "  local function free(row, col)\n"
    "    for r = 1, row - 1 do\n"
    "      local c = rows[r].col\n"
    "      if c == col or c - col == r - row or c - col == row - r then return false end\n"
    "    end\n"
    "    return true\n"
    "  end\n"
    "  local function place(row)\n"
    "    if row > n then found = found + 1 return end\n"
    "    for col = 1, n do\n"
    "      if free(row, col) then\n"
    "        rows[row] = {col = col, undo = function() rows[row] = nil end}\n"
    "        place(row + 1)\n"
    "        rows[row].undo()\n"
    "      end\n"
    "    end\n"
    "  end\n"
    "  place(1)\n"
    "  return found\n"
    "end\n"
    "for i = 1, 3 * scale do sum = sum + queens(6) end\n"
    /* text: made, split, counted, sorted, joined */
    "for i = 1, 5 * scale do\n"
    "  local line, words, keys = {}, {}, {}\n"
    "  for k = 1, 1000 do line[k] = ('word%d'):format(k * 7919 * i % 701) end\n"
    "  local text = table.concat(line, ' ')\n"
    "  for w in text:gmatch('%w+') do words[w] = (words[w] or 0) + 1 end\n"
    "  for w in pairs(words) do keys[#keys + 1] = w:upper() end\n"
    "  table.sort(keys)\n"
    "  local out = ''\n"
    "  for k = 1, 100 do out = out .. keys[k] .. ';' end\n"
    "  sum = sum + #keys + #out\n"
    "end\n"
    /* records that pass through a pipe of coroutines */
    "local function source(n) return coroutine.wrap(function()\n"
    "  for k = 1, n do coroutine.yield({id = k, name = 'n' .. k, tags = {k, k + 1}}) end\n"
    "end) end\n"
    "local function even(from) return coroutine.wrap(function()\n"
    "  for r in from do if r.id % 2 == 0 then coroutine.yield(r) end end\n"
    "end) end\n"
    "local last = {}\n"
    "for i = 1, 5 * scale do\n"
    "  for r in even(source(1000)) do last[r.id % 97 + 1] = r sum = sum + r.tags[2] end\n"
    "end\n"
    "return sum\n";

static lua_State *state_new(struct mem mem)
{
    lua_State *L = mem.kind == MEM_ACRE ? lua_newstate(acre_lua_alloc, mem.heap) : luaL_newstate();
    if (!L)
        give_up("no Lua state");
    luaL_openlibs(L);
    return L;
}

void real_lua(struct mem mem, unsigned scale)
{
    lua_State *L = state_new(mem);
    if (luaL_loadstring(L, script) != LUA_OK)
        give_up("Lua: %s", lua_tostring(L, -1));
    lua_pushinteger(L, scale);
    if (lua_pcall(L, 1, 1, 0) != LUA_OK)
        give_up("Lua: %s", lua_tostring(L, -1));
    if (lua_tointeger(L, -1) <= 0)
        give_up("Lua: nothing came out");
    lua_close(L);
}
