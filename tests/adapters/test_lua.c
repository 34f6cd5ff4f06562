/* SPDX-License-Identifier: Apache-2.0 */
/* Lua on a heap: the same answers, all blocks given back, and a full heap is an error to catch.
 * ctest-labels: valgrind */
#include "tests/system/harness.h"

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#include "adapters/lua.h"

/* Returns one string that depends on all that it did. */
static const char script[] =
    "local out = {}\n"
    "local function say(...) out[#out + 1] = table.concat({...}, ' ') end\n"
    /* strings: short ones and long ones, buffers that grow */
    "local words = {}\n"
    "for i = 1, 2000 do words[i] = ('w%d'):format(i * 7919 % 2003) end\n"
    "local text = table.concat(words, ',')\n"
    "say(#text, #text:upper():rep(20), (text:gsub('w(%d)', '<%1>')):sub(1, 40))\n"
    "local grown = ''\n"
    "for i = 1, 500 do grown = grown .. i end\n"
    "say(#grown, grown:sub(-9))\n"
    /* tables: arrays and hashes that grow and are emptied again */
    "local count = {}\n"
    "for w in text:gmatch('%w+') do count[w] = (count[w] or 0) + 1 end\n"
    "local keys = {}\n"
    "for k in pairs(count) do keys[#keys + 1] = k end\n"
    "table.sort(keys)\n"
    "say(#keys, keys[1], keys[#keys])\n"
    "for i = #keys, 1, -1 do count[keys[i]], keys[i] = nil, nil end\n"
    "for i = 1, 100 do keys[i] = i end\n"
    "say(#keys, next(count) == nil and 'empty' or 'left')\n"
    /* objects that end: finalizers, weak tables */
    "local ended, weak = 0, setmetatable({}, {__mode = 'v'})\n"
    "for i = 1, 300 do\n"
    "  weak[i] = setmetatable({}, {__gc = function() ended = ended + 1 end})\n"
    "end\n"
    "collectgarbage() collectgarbage()\n"
    "say(ended, #weak)\n"
    /* coroutines: stacks that grow, closed and abandoned */
    "local function depth(n) if n == 0 then coroutine.yield('deep') end\n"
    "  return 1 + (n > 0 and depth(n - 1) or 0) end\n"
    "for i = 1, 20 do\n"
    "  local co = coroutine.create(depth)\n"
    "  local _, at = coroutine.resume(co, i * 300)\n"
    "  if i % 2 == 0 then say(at, select(2, coroutine.resume(co))) end\n"
    "end\n"
    /* errors: through functions, with objects, with a traceback */
    "say(select(2, pcall(error, {code = 42})).code)\n"
    "say((select(2, pcall(function() local x = nil; return x.y end))))\n"
    "say(#select(2, xpcall(depth, debug.traceback, 'x')) > 20 and 'traced' or 'not')\n"
    "say(tostring(load('this is not Lua')), #string.dump(depth) > 50 and 'dumped' or 'not')\n"
    "return table.concat(out, '|')\n";

static bool run(lua_State *L, const char *text)
{
    lua_settop(L, 0);
    return luaL_loadstring(L, text) == LUA_OK && lua_pcall(L, 0, 1, 0) == LUA_OK;
}

static lua_State *on_heap(struct acre_heap *heap)
{
    lua_State *L = lua_newstate(acre_lua_alloc, heap);

    assert_non_null(L);
    luaL_openlibs(L);
    return L;
}

static void a_script_answers_as_on_malloc_and_leaves_nothing(void **state)
{
    struct acre_heap *heap = heap_open(&the_daemon, "default");
    lua_State *L = luaL_newstate();

    (void)state;
    assert_non_null(L);
    luaL_openlibs(L);
    assert_true(run(L, script));
    char *expected = strdup(lua_tostring(L, -1));
    lua_close(L);

    L = on_heap(heap);
    for (unsigned i = 0; i < 2; i++) {
        if (!run(L, script))
            fail_msg("%s", lua_tostring(L, -1));
        assert_string_equal(lua_tostring(L, -1), expected);
    }
    assert_true(acre_offset(heap, lua_tostring(L, -1)) != 0);
    assert_true(acre_offset(heap, lua_newuserdatauv(L, 100, 0)) != 0);
    long long counted = lua_gc(L, LUA_GCCOUNT) * 1024LL;
    assert_true(tenant_stats(&the_daemon, "default").live_bytes >= counted);
    lua_close(L);
    assert_int_equal(tenant_stats(&the_daemon, "default").live_bytes, 0);
    acre_close(heap);
    free(expected);
}

static void a_full_heap_is_an_error_that_lua_can_catch(void **state)
{
    struct acre_heap *heap = heap_open(&the_daemon, "small");
    lua_State *L = on_heap(heap);

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        assert_false(run(L, "local t = {} for i = 1, 1e8 do t[i] = ('x'):rep(1000) .. i end"));
        assert_string_equal(lua_tostring(L, -1), "not enough memory");
        assert_false(run(L, "return ('x'):rep(1 << 30)"));
        assert_string_equal(lua_tostring(L, -1), "not enough memory");
        assert_true(run(L, script));
    }
    lua_close(L);
    assert_int_equal(tenant_stats(&the_daemon, "small").live_bytes, 0);
    acre_close(heap);
}

static void a_state_that_does_not_fit_is_null(void **state)
{
    struct acre_heap *heap = heap_open(&the_daemon, "small");
    void *held[4096], *block;
    size_t n = 0;

    (void)state;
    for (size_t size = 1 << 20; size >= 16; size /= 2)
        while (n < 4096 && (block = acre_alloc(heap, size)))
            held[n++] = block;
    assert_null(lua_newstate(acre_lua_alloc, heap));
    while (n > 0)
        acre_free(heap, held[--n]);
    lua_close(on_heap(heap));
    acre_close(heap);
}

static void blocks_shrink_also_in_a_full_heap(void **state)
{
    struct acre_heap *heap = heap_open(&the_daemon, "small");
    char *block = acre_lua_alloc(heap, NULL, LUA_TSTRING, 100000), *filled, *last = NULL;

    (void)state;
    memset(block, 'b', 100000);
    for (size_t size = 1 << 20; size >= 16; size /= 2)
        while ((filled = acre_alloc(heap, size))) {
            memcpy(filled, &last, sizeof(last));
            last = filled;
        }
    assert_null(acre_lua_alloc(heap, block, 100000, 1000000));
    for (size_t size = 100000; size > 1; size /= 3) {
        block = acre_lua_alloc(heap, block, size, size / 3);
        assert_non_null(block);
        assert_int_equal(block[size / 3 - 1], 'b');
    }
    assert_null(acre_lua_alloc(heap, block, 1, 0));
    assert_null(acre_lua_alloc(heap, NULL, 0, 0));
    acre_close(heap);
}

struct passed_on {
    lua_State *L;
    int parent_has_gone[2];
};

static bool go_on(void *arg)
{
    const struct passed_on *p = arg;
    char byte;

    CHECK(read(p->parent_has_gone[0], &byte, 1) == 1);
    CHECK(strcmp(lua_tostring(p->L, -1), "kept") == 0);
    CHECK(run(p->L, script));
    lua_close(p->L);
    return true;
}

static void a_published_state_goes_on_in_a_child_after_its_parent(void **state)
{
    struct acre_heap *heap = heap_open(&the_daemon, "default");
    struct passed_on p = {.L = on_heap(heap)};

    (void)state;
    assert_true(run(p.L, "return 'kept'"));
    assert_int_equal(acre_publish_all(heap), 0);
    assert_int_equal(pipe(p.parent_has_gone), 0);
    pid_t pid = child_start(go_on, &p);
    acre_close(heap);
    assert_int_equal(write(p.parent_has_gone[1], "", 1), 1);
    assert_true(child_ok(pid));
    expect_settled(&the_daemon, "default", 0, 0);
    close(p.parent_has_gone[0]);
    close(p.parent_has_gone[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_script_answers_as_on_malloc_and_leaves_nothing),
        cmocka_unit_test(a_published_state_goes_on_in_a_child_after_its_parent),
        cmocka_unit_test(a_full_heap_is_an_error_that_lua_can_catch),
        cmocka_unit_test(a_state_that_does_not_fit_is_null),
        cmocka_unit_test(blocks_shrink_also_in_a_full_heap),
    };
    return run_beside_daemon(tests, "capacity = \"512M\"\ntenant \"default\" { max = \"256M\" }\n"
                                    "tenant \"small\" { max = \"8M\" }\n");
}
