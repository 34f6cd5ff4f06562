/* SPDX-License-Identifier: Apache-2.0 */
/* The budget is a wall: NULL and ENOMEM, nobody killed, and all of it can be had again. */
#include "tests/system/harness.h"

#include <pthread.h>

static int fill_byte = 0xee;

/* Allocates blocks of one size until refused; returns how many bytes. */
static size_t fill(struct acre_heap *heap, size_t size, void **blocks, size_t n_max, size_t *ret_n)
{
    size_t n = 0;

    while (n < n_max) {
        errno = 0;
        void *block = acre_alloc(heap, size);
        if (!block)
            break;
        memset(block, fill_byte, size); /* P3: a granted byte is a backed byte */
        blocks[n++] = block;
    }
    *ret_n = n;
    return n * size;
}

static void over_max_is_null_and_enomem_with_a_sentence(void **state)
{
    (void)state;
    static void *blocks[2000000];
    static const size_t sizes[] = {16, 64, 1000, 4096, 20000, 32768, 100000, 1 << 20, 5 << 20};
    struct acre_heap *heap = heap_open(&the_daemon, "small");

    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        size_t n, bytes = fill(heap, sizes[i], blocks, 2000000, &n);
        assert_int_equal(errno, ENOMEM);
        printf("%zu B: %zu blocks, %.1f of 20 MiB: %s\n", sizes[i], n, (double)bytes / (1 << 20),
               acre_last_error());
        assert_true(strstr(acre_last_error(), "small") != NULL);
        assert_true(bytes <= 20 << 20);
        /* Tags cost a 16-byte block an eighth; segments grow 4, 4, 8, ... and a block must fit
         * one. */
        assert_true(bytes >= (sizes[i] > 1 << 20 ? 10 << 20 : 15 << 20));
        for (size_t k = 0; k < n; k++)
            acre_free(heap, blocks[k]);
    }
    assert_null(acre_alloc(heap, 21 << 20));
    assert_int_equal(errno, ENOMEM);
    volatile size_t huge = SIZE_MAX;
    assert_null(acre_alloc(heap, huge));
    assert_int_equal(errno, ENOMEM);
    assert_null(acre_calloc(heap, huge / 2, 3));
    assert_int_equal(errno, ENOMEM);
    assert_int_equal(acre_trim(heap), 0);
    acre_close(heap);
    expect_settled(&the_daemon, "small", 0, 0);
}

static void a_tenant_of_20_mib_works(void **state)
{
    (void)state;
    struct acre_heap *heap = heap_open(&the_daemon, "small");
    void *block = acre_alloc(heap, 12 << 20);
    assert_non_null(block);
    memset(block, 1, 12 << 20);
    acre_free(heap, block);
    acre_close(heap);
}

static bool hoarder(void *arg)
{
    struct acre_heap *heap;
    int *pipes = arg;
    char c;
    size_t n;
    static void *blocks[100000];

    CHECK(acre_open(&heap, the_daemon.socket, "small") == 0);
    fill(heap, 1000, blocks, 100000, &n);
    for (size_t i = 0; i < n; i++)
        acre_free(heap, blocks[i]);
    CHECK(acre_trim(heap) == 0);
    /* A few blocks more: a grant that is mostly uncut, and then this client sleeps. */
    CHECK(acre_alloc(heap, 100) && write(pipes[1], "x", 1) == 1 && read(pipes[2], &c, 1) == 1);
    fill_byte = 0x11;
    /* Its units are another's now. What it still gets must not be that one's memory. */
    fill(heap, 100, blocks, 100000, &n);
    CHECK(write(pipes[1], "x", 1) == 1 && read(pipes[2], &c, 1) == 1);
    /* The other has given all back: units that were taken away are granted anew. */
    CHECK(fill(heap, 1000, blocks, 100000, &n) > 12 << 20);
    return true;
}

static void uncut_units_are_taken_back_from_a_client_that_sleeps(void **state)
{
    (void)state;
    static void *blocks[100];
    int *pipes = shared_page(4 * sizeof(int));
    char c;
    size_t n;

    assert_int_equal(pipe(pipes), 0);
    assert_int_equal(pipe(pipes + 2), 0);
    pid_t pid = child_start(hoarder, pipes);
    assert_int_equal(read(pipes[0], &c, 1), 1);
    struct acre_heap *heap = heap_open(&the_daemon, "small");
    assert_true(fill(heap, 1 << 20, blocks, 100, &n) >= 14 << 20);
    /* Down to the last unit, those that were taken back among them. */
    static void *rest[1000];
    size_t n_rest;
    fill(heap, 7000, rest, 1000, &n_rest);
    assert_int_equal(tenant_stats(&the_daemon, "small").n_clients, 2);
    assert_int_equal(write(pipes[3], "x", 1), 1);
    assert_int_equal(read(pipes[0], &c, 1), 1);
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < 1 << 20; k += 512)
            assert_int_equal(((unsigned char *)blocks[i])[k], 0xee);
        acre_free(heap, blocks[i]);
    }
    for (size_t i = 0; i < n_rest; i++) {
        for (size_t k = 0; k < 7000; k++)
            assert_int_equal(((unsigned char *)rest[i])[k], 0xee);
        acre_free(heap, rest[i]);
    }
    assert_int_equal(acre_trim(heap), 0);
    assert_int_equal(write(pipes[3], "x", 1), 1);
    assert_true(child_ok(pid));
    acre_close(heap);
    expect_settled(&the_daemon, "small", 0, 0);
}

static bool keeper(void *arg)
{
    struct acre_heap *heap;
    int *pipes = arg;
    void *blocks[4];
    char c;

    CHECK(acre_open(&heap, the_daemon.socket, "small") == 0);
    for (unsigned i = 0; i < 4; i++)
        CHECK((blocks[i] = acre_alloc(heap, 1 << 20)) != NULL);
    for (unsigned i = 0; i < 4; i++)
        acre_free(heap, blocks[i]);
    /* What one thread keeps serves it again at once. */
    CHECK(acre_alloc(heap, (1 << 20) - 5) == blocks[3]);
    acre_free(heap, blocks[3]);
    CHECK(write(pipes[1], "x", 1) == 1 && read(pipes[2], &c, 1) == 1);
    /* Gone meanwhile; the notes of this thread are stale, and it notices. */
    for (unsigned i = 0; i < 4; i++)
        CHECK(acre_alloc(heap, 1 << 20) == NULL && errno == ENOMEM);
    return true;
}

static void kept_large_blocks_are_taken_from_a_client_that_sleeps(void **state)
{
    (void)state;
    static void *blocks[100];
    int *pipes = shared_page(4 * sizeof(int));
    char c;
    size_t n;

    assert_int_equal(pipe(pipes), 0);
    assert_int_equal(pipe(pipes + 2), 0);
    pid_t pid = child_start(keeper, pipes);
    assert_int_equal(read(pipes[0], &c, 1), 1);
    struct acre_heap *heap = heap_open(&the_daemon, "small");
    size_t bytes = fill(heap, 1 << 20, blocks, 100, &n);
    assert_int_equal(write(pipes[3], "x", 1), 1);
    assert_true(child_ok(pid));
    acre_close(heap);
    /* Segments of 4, 4, 8 and 4 MiB, each with its tables: 16 blocks or 17, 12 if those were
     * hoarded. */
    assert_true(bytes >= 16 << 20);
    expect_settled(&the_daemon, "small", 0, 0);
}

struct stale {
    struct acre_heap *heap;
    void *kept, *again;
    int step; /* 1: kept, 2: live again under another thread, 3: tried */
};

static void wait_step(struct stale *s, int step)
{
    while (__atomic_load_n(&s->step, __ATOMIC_ACQUIRE) < step)
        usleep(1000);
}

static void *keep_and_try_again(void *arg)
{
    struct stale *s = arg;

    s->kept = acre_alloc(s->heap, 3 << 20);
    acre_free(s->heap, s->kept);
    __atomic_store_n(&s->step, 1, __ATOMIC_RELEASE);
    wait_step(s, 2);
    s->again = acre_alloc(s->heap, 3 << 20);
    __atomic_store_n(&s->step, 3, __ATOMIC_RELEASE);
    return NULL;
}

static bool take_all_and_give_back(void *arg)
{
    struct acre_heap *heap;
    static void *blocks[100000];
    size_t n;

    (void)arg;
    CHECK(acre_open(&heap, the_daemon.socket, "small") == 0);
    CHECK(fill(heap, 1000, blocks, 100000, &n) > 16 << 20);
    return true; /* dies: all comes back */
}

static void a_stale_note_of_a_kept_block_does_not_hand_it_out_twice(void **state)
{
    (void)state;
    struct stale s = {.heap = heap_open(&the_daemon, "small")};
    pthread_t thread;
    void *blocks[8];
    size_t n;

    assert_int_equal(pthread_create(&thread, NULL, keep_and_try_again, &s), 0);
    wait_step(&s, 1);
    RUN_CHILD(take_all_and_give_back, NULL);
    expect_settled(&the_daemon, "small", 0, 1);
    /* The same units come to this process again, and live. */
    fill(s.heap, 3 << 20, blocks, 8, &n);
    assert_true(n >= 3);
    unsigned n_same = 0;
    for (size_t i = 0; i < n; i++)
        n_same += blocks[i] == s.kept;
    assert_int_equal(n_same, 1);
    __atomic_store_n(&s.step, 2, __ATOMIC_RELEASE);
    pthread_join(thread, NULL);
    for (size_t i = 0; i < n; i++)
        assert_ptr_not_equal(blocks[i], s.again);
    acre_close(s.heap);
    expect_settled(&the_daemon, "small", 0, 0);
}

static void a_block_beyond_a_slot_works(void **state)
{
    (void)state;
    struct acre_heap *heap = heap_open(&the_daemon, "big");
    size_t size = (2ull << 30) + 12345;
    char *block = acre_alloc(heap, size);
    if (!block)
        fail_msg("%s", acre_last_error());
    assert_true(acre_usable_size(heap, block) >= size);
    block[0] = 1;
    block[1 << 30] = 2;
    block[size - 1] = 3;
    acre_off off = acre_offset(heap, block + size - 1);
    assert_ptr_equal(acre_pointer(heap, off), block + size - 1);
    void *small = acre_alloc(heap, 100);
    assert_non_null(small);
    assert_int_equal(acre_publish(heap, block), 0);
    acre_free(heap, block);
    acre_free(heap, small);
    acre_close(heap);
    expect_settled(&the_daemon, "big", 0, 0);
}

static void tenants_do_not_share_budgets(void **state)
{
    (void)state;
    static void *blocks[100];
    size_t n;
    struct acre_heap *small = heap_open(&the_daemon, "small"), *big = heap_open(&the_daemon, "big");

    fill(small, 1 << 20, blocks, 100, &n);
    void *block = acre_alloc(big, 8 << 20);
    assert_non_null(block);
    acre_free(big, block);
    acre_close(small);
    acre_close(big);
    expect_settled(&the_daemon, "small", 0, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_tenant_of_20_mib_works),
        cmocka_unit_test(over_max_is_null_and_enomem_with_a_sentence),
        cmocka_unit_test(uncut_units_are_taken_back_from_a_client_that_sleeps),
        cmocka_unit_test(kept_large_blocks_are_taken_from_a_client_that_sleeps),
        cmocka_unit_test(a_stale_note_of_a_kept_block_does_not_hand_it_out_twice),
        cmocka_unit_test(a_block_beyond_a_slot_works),
        cmocka_unit_test(tenants_do_not_share_budgets),
    };
    return run_beside_daemon(tests, "capacity = \"4G\"\ntenant \"small\" { max = \"20M\" }\n"
                                    "tenant \"big\" { max = \"3G\" }\n");
}
