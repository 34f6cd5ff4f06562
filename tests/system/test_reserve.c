/* SPDX-License-Identifier: Apache-2.0 */
/* ctest-labels: valgrind */
/* acre_reserve(): what it promises, what it leaves as it was, and what it refuses. */
#include "tests/system/harness.h"

#include <pthread.h>
#include <sys/resource.h>

#define N 20000u

static long minor_faults(void)
{
    struct rusage u;
    assert_int_equal(getrusage(RUSAGE_SELF, &u), 0);
    return u.ru_minflt;
}

/* These touch memory of their own for each block. */
static bool counts_others_faults(void)
{
    const char *preload = getenv("LD_PRELOAD");
#ifdef __SANITIZE_ADDRESS__
    return true;
#endif
    return preload && strstr(preload, "vgpreload");
}

static void reserved_allocations_neither_search_nor_fault(void **state)
{
    (void)state;
    static const size_t sizes[] = {16, 100, 1000, 5000};
    static void *blocks[N];
    struct acre_heap *heap = heap_open(&the_daemon, NULL);

    memset(blocks, 1, sizeof(blocks)); /* no fault of this table's */
    for (unsigned k = 0; k < 4; k++) {
        assert_int_equal(acre_reserve(heap, sizes[k], N), 0);
        uint64_t refills = acre_refills(heap);
        long faults = minor_faults();
        for (unsigned i = 0; i < N; i++) {
            blocks[i] = acre_alloc(heap, sizes[k]);
            memset(blocks[i], 7, sizes[k]);
        }
        faults = minor_faults() - faults;
        assert_int_equal(acre_refills(heap), refills);
        if (!counts_others_faults())
            assert_true(faults <= 2); /* N * size / 4096 of them without: 78 to 24,414 */
        for (unsigned i = 0; i < N; i++)
            acre_free(heap, blocks[i]);
    }
    acre_close(heap);
}

/* Without this the test above would show nothing. */
static void without_a_reserve_they_do_both(void **state)
{
    (void)state;
    struct acre_heap *heap = heap_open(&the_daemon, NULL);
    long faults = minor_faults();

    for (unsigned i = 0; i < 1000; i++)
        memset(acre_alloc(heap, 5000), 7, 5000);
    assert_true(acre_refills(heap) > 10);
    assert_true(minor_faults() - faults > 500);
    acre_close(heap);
}

static int by_address(const void *a, const void *b)
{
    const char *x = *(char *const *)a, *y = *(char *const *)b;
    return (x > y) - (x < y);
}

/* Some blocks live, some on the stack, some in a window: each is handed out once all the same. */
static void no_block_is_reserved_twice_or_while_it_is_live(void **state)
{
    (void)state;
    enum { LIVE = 3000, NEW = 4000 };
    static char *blocks[LIVE + NEW];
    struct acre_heap *heap = heap_open(&the_daemon, NULL);
    uint64_t rng = test_seed(5);

    for (unsigned round = 0; round < 20; round++) {
        for (unsigned i = 0; i < LIVE; i++)
            blocks[i] = acre_alloc(heap, 48);
        for (unsigned i = 0; i < LIVE; i++) {
            if (rnd(&rng) % 3 != 0)
                continue;
            acre_free(heap, blocks[i]);
            blocks[i] = acre_alloc(heap, 48);
        }
        for (unsigned i = 0; i < LIVE; i += 2) {
            acre_free(heap, blocks[i]);
            blocks[i] = NULL;
        }
        assert_int_equal(acre_reserve(heap, 48, rnd(&rng) % NEW), 0);
        for (unsigned i = 0; i < NEW; i++)
            assert_non_null(blocks[LIVE + i] = acre_alloc(heap, 48));
        qsort(blocks, LIVE + NEW, sizeof(*blocks), by_address);
        for (unsigned i = 1; i < LIVE + NEW; i++)
            assert_true(!blocks[i] || blocks[i] >= blocks[i - 1] + 48 || !blocks[i - 1]);
        assert_int_equal(tenant_stats(&the_daemon, "default").live_blocks, LIVE / 2 + NEW);
        for (unsigned i = 0; i < LIVE + NEW; i++)
            acre_free(heap, blocks[i]);
    }
    acre_close(heap);
    expect_settled(&the_daemon, "default", 0, 0);
}

static void *free_all(void *arg)
{
    struct acre_heap *heap = ((void **)arg)[0];
    for (unsigned i = 1; i <= 500; i++)
        acre_free(heap, ((void **)arg)[i]);
    return NULL;
}

/* What another thread frees comes back to the larger stack's bin by its hint. */
static void what_others_free_is_found_again(void **state)
{
    (void)state;
    static void *blocks[501];
    struct acre_heap *heap = heap_open(&the_daemon, NULL);
    pthread_t thread;

    assert_int_equal(acre_reserve(heap, 2000, 500), 0);
    blocks[0] = heap;
    long long granted = 0;
    for (unsigned round = 0; round < 20; round++) {
        for (unsigned i = 1; i <= 500; i++)
            blocks[i] = acre_alloc(heap, 2000);
        assert_int_equal(pthread_create(&thread, NULL, free_all, blocks), 0);
        pthread_join(thread, NULL);
        if (round == 1)
            granted = tenant_stats(&the_daemon, "default").granted_bytes;
    }
    assert_int_equal(tenant_stats(&the_daemon, "default").granted_bytes, granted);
    acre_close(heap);
}

static void a_trim_gives_back_what_was_reserved(void **state)
{
    (void)state;
    struct acre_heap *heap = heap_open(&the_daemon, NULL);

    assert_int_equal(acre_reserve(heap, 1024, 10000), 0);
    assert_true(tenant_stats(&the_daemon, "default").granted_bytes >= 10000 * 1024);
    assert_int_equal(acre_trim(heap), 0);
    assert_int_equal(tenant_stats(&the_daemon, "default").granted_bytes, 0);
    assert_non_null(acre_alloc(heap, 1024));
    acre_close(heap);
}

static void what_cannot_be_reserved_is_refused_and_harms_nothing(void **state)
{
    (void)state;
    struct acre_heap *heap = heap_open(&the_daemon, "small");
    void *block = acre_alloc(heap, 64);

    assert_int_equal(acre_reserve(heap, 65537, 1), -EINVAL);
    assert_int_equal(acre_reserve(heap, 64, (1u << 24) + 1), -EINVAL);
    assert_non_null(strstr(acre_last_error(), "acre_reserve"));
    assert_int_equal(acre_reserve(heap, 64, 0), 0);
    assert_int_equal(acre_reserve(heap, 4096, 3000), -ENOMEM); /* 12 MB of 8 */
    acre_free(heap, block);
    for (unsigned i = 0; i < 1000; i++)
        assert_non_null(acre_alloc(heap, 4096));
    acre_close(heap);
}

static bool child_uses_its_own(void *arg)
{
    struct acre_heap *heap = *(struct acre_heap **)arg;
    for (unsigned i = 0; i < 200; i++) {
        CHECK(acre_alloc(heap, 64));
        CHECK(acre_reserve(heap, 128, 3000) == 0);
    }
    return true;
}

static void a_forked_child_does_not_have_its_parents_reserve(void **state)
{
    (void)state;
    struct acre_heap *heap = heap_open(&the_daemon, NULL);

    assert_int_equal(acre_reserve(heap, 64, 5000), 0);
    RUN_CHILD(child_uses_its_own, &heap);
    expect_settled(&the_daemon, "default", 0, 1);
    for (unsigned i = 0; i < 5000; i++)
        assert_non_null(acre_alloc(heap, 64));
    assert_int_equal(tenant_stats(&the_daemon, "default").live_blocks, 5000);
    acre_close(heap);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reserved_allocations_neither_search_nor_fault),
        cmocka_unit_test(without_a_reserve_they_do_both),
        cmocka_unit_test(no_block_is_reserved_twice_or_while_it_is_live),
        cmocka_unit_test(what_others_free_is_found_again),
        cmocka_unit_test(a_trim_gives_back_what_was_reserved),
        cmocka_unit_test(what_cannot_be_reserved_is_refused_and_harms_nothing),
        cmocka_unit_test(a_forked_child_does_not_have_its_parents_reserve),
    };
    return run_beside_daemon(
        tests, "tenant \"default\" { max = \"512M\" }\ntenant \"small\" { max = \"8M\" }\n");
}
