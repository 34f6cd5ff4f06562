/* SPDX-License-Identifier: Apache-2.0 */
/* A daemon that dies after it has done what was asked, before it says so: between client and daemon
 * sits somebody who swallows a reply and hangs up on both. The client repeats its call. */
#include "tests/system/between.h"
#include "tests/system/harness.h"

static const char *proxy_path;

/* Replies until one is swallowed; 0: none is. In a shared page, for children. */
static _Atomic int *until_lost;

static bool pass_until_lost(bool is_reply)
{
    return !(is_reply && *until_lost > 0 && --*until_lost == 0);
}

static int up(void **state)
{
    (void)state;
    until_lost = shared_page(4096);
    daemon_up(&the_daemon, NULL);
    proxy_path = between_up(pass_until_lost);
    return 0;
}

static int down(void **state)
{
    (void)state;
    between_down();
    daemon_down(&the_daemon);
    return 0;
}

/* ---- the calls ---- */

static void lose_next(int n)
{
    *until_lost = n;
}

static void was_lost(void)
{
    assert_int_equal(*until_lost, 0);
}

static struct acre_heap *open_between(void)
{
    return heap_open_at(proxy_path, NULL);
}

static void attaching_is_repeated(void **state)
{
    (void)state;
    for (int i = 1; i <= 2; i++) { /* Hello, Attach */
        lose_next(i);
        struct acre_heap *heap = open_between();
        was_lost();
        assert_non_null(acre_alloc(heap, 100));
        acre_close(heap);
        expect_settled(&the_daemon, "default", 0, 0);
    }
}

static void roots_say_what_is_true(void **state)
{
    (void)state;
    acre_off got;
    struct acre_heap *heap = open_between();
    char *a = acre_alloc(heap, 64), *b = acre_alloc(heap, 64);
    lose_next(1);
    assert_int_equal(acre_root_cas(heap, "r", 0, acre_offset(heap, a)), 0);
    was_lost();
    lose_next(1);
    assert_int_equal(acre_root_cas(heap, "r", acre_offset(heap, a), acre_offset(heap, b)), 0);
    was_lost();
    assert_int_equal(acre_root_get(heap, "r", &got), 0);
    assert_int_equal(got, acre_offset(heap, b));
    lose_next(1);
    assert_int_equal(acre_root_cas(heap, "r", acre_offset(heap, b), 0), 0);
    was_lost();
    lose_next(1);
    assert_int_equal(acre_root_get(heap, "r", &got), -ENOENT);
    was_lost();
    lose_next(1);
    assert_int_equal(acre_root_set(heap, "r", acre_offset(heap, a)), 0);
    was_lost();
    lose_next(1);
    assert_int_equal(acre_root_del(heap, "r"), 0);
    was_lost();
    /* What was wrong stays wrong. */
    lose_next(1);
    assert_int_equal(acre_root_cas(heap, "r", acre_offset(heap, a), acre_offset(heap, b)), -EAGAIN);
    was_lost();
    acre_free(heap, a);
    acre_free(heap, b);
    acre_close(heap);
    expect_settled(&the_daemon, "default", 0, 0);
}

static void memory_is_granted_and_given_back_once(void **state)
{
    (void)state;
    struct acre_heap *heap = open_between();
    for (size_t size = 100; size <= 200 << 20; size *= 128) {
        lose_next(1);
        char *block = acre_alloc(heap, size);
        assert_non_null(block);
        block[size - 1] = 1;
        expect_checked(&the_daemon);
        acre_free(heap, block);
        lose_next(1);
        assert_int_equal(acre_trim(heap), 0);
        expect_checked(&the_daemon);
    }
    *until_lost = 0;
    long long granted_bytes = tenant_stats(&the_daemon, "default").granted_bytes;
    assert_in_range(granted_bytes, 0, 64 << 20); /* what was granted twice is uncut: it is found */
    acre_close(heap);
    expect_settled(&the_daemon, "default", 0, 0);
    assert_int_equal(tenant_stats(&the_daemon, "default").granted_bytes, 0);
}

static bool leaves_a_block(void *arg)
{
    acre_off *off = arg;
    struct acre_heap *heap;
    CHECK(acre_open(&heap, the_daemon.socket, NULL) == 0);
    void *block = acre_alloc(heap, 100);
    CHECK(block && acre_publish(heap, block) == 0);
    *off = acre_offset(heap, block);
    kill(getpid(), SIGKILL);
    return true;
}

/* What the dead have left is granted, nobody hears of it, and it is granted again. */
static void a_parked_slab_is_not_lost_with_its_grant(void **state)
{
    (void)state;
    acre_off *off = shared_page(4096);
    assert_int_equal(child_signal(child_start(leaves_a_block, off)), SIGKILL);
    expect_settled(&the_daemon, "default", 112, 0);
    long long granted_bytes = tenant_stats(&the_daemon, "default").granted_bytes;
    struct acre_heap *heap = open_between();
    lose_next(1);
    char *block = acre_alloc(heap, 100);
    was_lost();
    assert_int_equal(tenant_stats(&the_daemon, "default").granted_bytes, granted_bytes);
    assert_true(labs((long)(acre_offset(heap, block) - *off)) < 8192); /* in the same slab */
    acre_free(heap, acre_pointer(heap, *off));
    acre_close(heap);
    expect_settled(&the_daemon, "default", 0, 0);
}

static bool publishes_all(void *arg)
{
    acre_off *off = arg;
    struct acre_heap *heap = open_between();
    void *block = acre_alloc(heap, 1000);
    CHECK(block);
    *off = acre_offset(heap, block);
    lose_next(1);
    CHECK(acre_publish_all(heap) == 0);
    CHECK(*until_lost == 0);
    lose_next(1);
    acre_close(heap);
    return true;
}

static void publishing_all_and_closing_happen_once(void **state)
{
    (void)state;
    acre_off *off = shared_page(4096);
    RUN_CHILD(publishes_all, off);
    struct acre_heap *heap = heap_open(&the_daemon, NULL);
    void *block = acre_pointer(heap, *off);
    assert_int_equal(acre_owner(heap, block), ACRE_OWNER_HEAP);
    acre_free(heap, block);
    acre_close(heap);
    expect_settled(&the_daemon, "default", 0, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attaching_is_repeated),
        cmocka_unit_test(roots_say_what_is_true),
        cmocka_unit_test(memory_is_granted_and_given_back_once),
        cmocka_unit_test(a_parked_slab_is_not_lost_with_its_grant),
        cmocka_unit_test(publishing_all_and_closing_happen_once),
    };
    return cmocka_run_group_tests(tests, up, down);
}
