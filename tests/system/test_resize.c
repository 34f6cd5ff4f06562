/* SPDX-License-Identifier: Apache-2.0 */
/* ctest-labels: valgrind */
/* acre_realloc() of large blocks: where they lie, as long as that can be. */
#include "tests/system/harness.h"

#define UNIT 8192u

static void a_large_block_grows_where_it_lies_if_there_is_room_behind_it(void **state)
{
    (void)state;
    struct acre_heap *heap = heap_open(&the_daemon, NULL);
    char *block = acre_alloc(heap, 9 * UNIT); /* out of a span of 16 */

    memset(block, 5, 9 * UNIT);
    for (unsigned n = 10; n <= 16; n++) {
        char *grown = acre_realloc(heap, block, n * UNIT);
        assert_ptr_equal(grown, block);
        block = grown;
        assert_int_equal(acre_usable_size(heap, block), n * UNIT);
        assert_int_equal(tenant_stats(&the_daemon, "default").live_bytes, n * UNIT);
    }
    for (unsigned i = 0; i < 9 * UNIT; i++)
        assert_int_equal(block[i], 5);
    memset(block, 6, 16 * UNIT);
    acre_free(heap, block);
    acre_close(heap);
    expect_settled(&the_daemon, "default", 0, 0);
}

static void it_moves_if_a_neighbour_is_in_the_way(void **state)
{
    (void)state;
    struct acre_heap *heap = heap_open(&the_daemon, NULL);
    char *block = acre_alloc(heap, 9 * UNIT), *in_the_way = NULL;

    /* The first that lies right behind it. */
    for (unsigned i = 0; i < 100 && in_the_way != block + 9 * UNIT; i++)
        in_the_way = acre_alloc(heap, 9 * UNIT);
    assert_ptr_not_equal(in_the_way, NULL);
    memset(block, 5, 9 * UNIT);
    char *filler[64];
    for (unsigned i = 0; i < 64; i++) /* whatever is left behind it */
        memset(filler[i] = acre_alloc(heap, 65536), 9, 65536);
    char *moved = acre_realloc(heap, block, 400 * UNIT);
    assert_non_null(moved);
    for (unsigned i = 0; i < 9 * UNIT; i++)
        assert_int_equal(moved[i], 5);
    memset(moved, 1, 400 * UNIT);
    for (unsigned i = 0; i < 64; i++)
        for (unsigned k = 0; k < 65536; k += 500)
            assert_int_equal(filler[i][k], 9);
    acre_close(heap);
    expect_settled(&the_daemon, "default", 0, 0);
}

static void it_shrinks_where_it_lies_and_the_rest_is_used_again(void **state)
{
    (void)state;
    struct acre_heap *heap = heap_open(&the_daemon, NULL);
    char *block = acre_alloc(heap, 200 * UNIT);

    memset(block, 5, 200 * UNIT);
    long long granted = tenant_stats(&the_daemon, "default").granted_bytes;
    assert_ptr_equal(acre_realloc(heap, block, 20 * UNIT), block);
    assert_int_equal(acre_usable_size(heap, block), 20 * UNIT);
    for (unsigned i = 0; i < 5; i++)
        assert_non_null(acre_alloc(heap, 32 * UNIT));
    assert_true(tenant_stats(&the_daemon, "default").granted_bytes <= granted);
    for (unsigned i = 0; i < 20 * UNIT; i++)
        assert_int_equal(block[i], 5);
    acre_free(heap, block);
    acre_close(heap);
    expect_settled(&the_daemon, "default", 0, 0);
}

static bool die_after_resizing(void *arg)
{
    struct acre_heap *heap;
    acre_off *off = arg;

    CHECK(acre_open(&heap, the_daemon.socket, NULL) == 0);
    char *block = acre_alloc(heap, 200 * UNIT);
    CHECK(acre_realloc(heap, block, 100 * UNIT) == block);
    CHECK(acre_realloc(heap, block, 110 * UNIT) == block);
    CHECK(acre_publish(heap, block) == 0);
    *off = acre_offset(heap, block);
    raise(SIGKILL);
    return false;
}

static void a_published_block_outlives_its_holder_in_its_new_size(void **state)
{
    (void)state;
    acre_off *off = shared_page(sizeof(*off));

    assert_int_equal(child_signal(child_start(die_after_resizing, off)), SIGKILL);
    expect_settled(&the_daemon, "default", 110 * UNIT, 0);
    struct acre_heap *heap = heap_open(&the_daemon, NULL);
    assert_int_equal(acre_usable_size(heap, acre_pointer(heap, *off)), 110 * UNIT);
    acre_free(heap, acre_pointer(heap, *off));
    acre_close(heap);
    expect_settled(&the_daemon, "default", 0, 0);
}

/* A block above a slot has a segment of its own, which the daemon counts as one run. */
static bool die_after_resizing_a_gigabyte(void *arg)
{
    struct acre_heap *heap;
    acre_off *off = arg;

    CHECK(acre_open(&heap, the_daemon.socket, "vast") == 0);
    char *block = acre_alloc(heap, 1ul << 30);
    CHECK(block);
    block = acre_realloc(heap, block, (1ul << 30) - UNIT);
    block = acre_realloc(heap, block, 900ul << 20);
    CHECK(block && acre_usable_size(heap, block) >= 900ul << 20);
    CHECK(acre_publish(heap, block) == 0);
    *off = acre_offset(heap, block);
    raise(SIGKILL);
    return false;
}

static void a_block_beyond_a_slot_stays_whole(void **state)
{
    (void)state;
    acre_off *off = shared_page(sizeof(*off));

    assert_int_equal(child_signal(child_start(die_after_resizing_a_gigabyte, off)), SIGKILL);
    expect_settled(&the_daemon, "vast", 1 << 30, 0);
    struct acre_heap *heap = heap_open(&the_daemon, "vast");
    void *block = acre_pointer(heap, *off);
    assert_int_equal(acre_owner(heap, block), ACRE_OWNER_HEAP);
    assert_int_equal(acre_usable_size(heap, block), 1 << 30);
    acre_free(heap, block);
    acre_close(heap);
    expect_settled(&the_daemon, "vast", 0, 0);
}

struct orphaned {
    struct acre_heap *heap;
    acre_off off;
};

static bool publish_and_die(void *arg)
{
    struct acre_heap *heap;
    acre_off *off = arg;

    CHECK(acre_open(&heap, the_daemon.socket, NULL) == 0);
    char *block = acre_alloc(heap, 100 * UNIT);
    CHECK(acre_publish(heap, block) == 0);
    *off = acre_offset(heap, block);
    raise(SIGKILL);
    return false;
}

/* It holds nothing, and the orphan's holder is nobody: these are not the same. */
static bool shrink_before_attaching(void *arg)
{
    struct orphaned *o = arg;
    char *block = acre_pointer(o->heap, o->off);
    char *shrunk = acre_realloc(o->heap, block, 60 * UNIT);

    CHECK(shrunk == block && acre_usable_size(o->heap, shrunk) == 100 * UNIT);
    return true;
}

static void a_child_that_has_not_attached_resizes_no_orphan(void **state)
{
    (void)state;
    acre_off *off = shared_page(sizeof(*off));

    assert_int_equal(child_signal(child_start(publish_and_die, off)), SIGKILL);
    expect_settled(&the_daemon, "default", 100 * UNIT, 0);
    struct orphaned o = {heap_open(&the_daemon, NULL), *off};
    assert_non_null(acre_pointer(o.heap, o.off));
    RUN_CHILD(shrink_before_attaching, &o);
    acre_free(o.heap, acre_pointer(o.heap, o.off));
    acre_close(o.heap);
    expect_settled(&the_daemon, "default", 0, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_large_block_grows_where_it_lies_if_there_is_room_behind_it),
        cmocka_unit_test(it_moves_if_a_neighbour_is_in_the_way),
        cmocka_unit_test(it_shrinks_where_it_lies_and_the_rest_is_used_again),
        cmocka_unit_test(a_published_block_outlives_its_holder_in_its_new_size),
        cmocka_unit_test(a_block_beyond_a_slot_stays_whole),
        cmocka_unit_test(a_child_that_has_not_attached_resizes_no_orphan),
    };
    return run_beside_daemon(
        tests, "tenant \"default\" { max = \"512M\" }\ntenant \"vast\" { max = \"3G\" }\n");
}
