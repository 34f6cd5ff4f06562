/* SPDX-License-Identifier: Apache-2.0 */
/* ctest-labels: threads valgrind */
/* ctest-timeout: 300 */
/* Threads of one process: own blocks, each other's blocks, threads that come and go, several
 * heaps. */
#include "tests/system/harness.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/syscall.h>

#define N_THREADS 4
#define RING      256

struct job {
    struct acre_heap *heap, *other;
    _Atomic(unsigned char *) *ring; /* blocks on their way from any thread to any */
    uint64_t rng;
    unsigned n_steps;
    void *freed[25];  /* by the thread before */
    unsigned n_again; /* of these were used again */
};

/* Takes what lies in a random place of the ring and puts something of its own there: everybody
 * frees everybody's. */
static void *swap_blocks(void *arg)
{
    struct job *j = arg;

    for (unsigned i = 0; i < j->n_steps; i++) {
        size_t size = rnd(&j->rng) % 20 ? rnd(&j->rng) % 500 + 2 : rnd(&j->rng) % 60000 + 2;
        unsigned char *block = acre_alloc(j->heap, size);
        assert_non_null(block);
        block[0] = block[1] = (unsigned char)i;
        block = atomic_exchange(&j->ring[rnd(&j->rng) % RING], block);
        if (!block)
            continue;
        assert_int_equal(block[0], block[1]);
        block[0] = 1;
        block[1] = 2;
        acre_free(j->heap, block);
    }
    return NULL;
}

static unsigned steps(unsigned n)
{
    const char *env = getenv("ACRE_TEST_STEPS");
    return env ? (unsigned)atoi(env) : n;
}

static void threads_free_each_others_blocks(void **state)
{
    (void)state;
    static _Atomic(unsigned char *) ring[RING];
    struct acre_heap *heap = heap_open(&the_daemon, NULL);
    struct job jobs[N_THREADS];
    pthread_t threads[N_THREADS];
    uint64_t seed = test_seed(42);

    for (unsigned i = 0; i < N_THREADS; i++) {
        jobs[i] =
            (struct job){.heap = heap, .ring = ring, .rng = seed + i, .n_steps = steps(30000)};
        assert_int_equal(pthread_create(&threads[i], NULL, swap_blocks, &jobs[i]), 0);
    }
    for (unsigned i = 0; i < N_THREADS; i++)
        pthread_join(threads[i], NULL);
    for (unsigned i = 0; i < RING; i++)
        acre_free(heap, ring[i]);
    assert_int_equal(tenant_stats(&the_daemon, "default").live_bytes, 0);
    acre_close(heap);
    expect_settled(&the_daemon, "default", 0, 0);
}

static void *allocate_and_leave(void *arg)
{
    struct job *j = arg;
    void *blocks[50];

    for (unsigned i = 0; i < 50; i++) {
        assert_non_null(blocks[i] = acre_alloc(j->heap, 200));
        for (unsigned k = 0; k < 25; k++)
            j->n_again += blocks[i] == j->freed[k];
    }
    for (unsigned i = 0; i < 50; i += 2)
        acre_free(j->heap, j->freed[i / 2] = blocks[i]);
    if (j->n_steps)
        syscall(SYS_exit, 0); /* no destructor runs */
    return NULL;
}

static void a_threads_cache_is_inherited_by_the_next(void **state)
{
    (void)state;
    struct acre_heap *heap = heap_open(&the_daemon, NULL);
    struct job j = {.heap = heap};
    pthread_t thread;
    long long granted = 0;

    for (unsigned i = 0; i < 40; i++) {
        assert_int_equal(pthread_create(&thread, NULL, allocate_and_leave, &j), 0);
        pthread_join(thread, NULL);
        if (i == 0)
            granted = tenant_stats(&the_daemon, "default").granted_bytes;
    }
    assert_int_equal(tenant_stats(&the_daemon, "default").live_blocks, 40 * 25);
    assert_int_equal(j.n_again, 39 * 25);
    /* One after another, 40 threads need no more than the blocks they left: 200 KiB of them. */
    assert_true(tenant_stats(&the_daemon, "default").granted_bytes <= granted + (1 << 20));
    acre_close(heap);
    expect_settled(&the_daemon, "default", 0, 0);
}

static void a_thread_that_ends_without_destructors_strands_nothing_for_good(void **state)
{
    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip(); /* their runtimes believe that such a thread lives for ever */
#endif
    struct acre_heap *heap = heap_open(&the_daemon, NULL);
    struct job j = {.heap = heap, .n_steps = 1};
    pthread_t thread;
    long long granted = 0;

    for (unsigned i = 0; i < 20; i++) {
        assert_int_equal(pthread_create(&thread, NULL, allocate_and_leave, &j), 0);
        pthread_join(thread, NULL);
        if (i == 0)
            granted = tenant_stats(&the_daemon, "default").granted_bytes;
    }
    assert_true(tenant_stats(&the_daemon, "default").granted_bytes <= granted + (1 << 20));
    acre_close(heap);
    expect_settled(&the_daemon, "default", 0, 0);
}

static void *use_two_heaps(void *arg)
{
    struct job *j = arg;

    for (unsigned i = 0; i < 2000; i++) {
        void *a = acre_alloc(j->heap, 100), *b = acre_alloc(j->other, 100);
        assert_non_null(a);
        assert_non_null(b);
        assert_int_equal(acre_offset(j->heap, b), 0);
        assert_int_equal(acre_owner(j->other, b), acre_self(j->other));
        acre_free(j->heap, a);
        acre_free(j->other, b);
    }
    return NULL;
}

static void several_heaps_serve_several_threads(void **state)
{
    (void)state;
    if (getenv("ACRE_ON_VALGRIND"))
        skip(); /* it has address space for one heap */
    struct job j = {.heap = heap_open(&the_daemon, NULL), .other = heap_open(&the_daemon, "other")};
    pthread_t threads[N_THREADS];

    assert_ptr_not_equal(j.heap, j.other);
    for (unsigned i = 0; i < N_THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, use_two_heaps, &j), 0);
    for (unsigned i = 0; i < N_THREADS; i++)
        pthread_join(threads[i], NULL);
    acre_close(j.heap);
    acre_close(j.other);
    expect_settled(&the_daemon, "default", 0, 0);
    expect_settled(&the_daemon, "other", 0, 0);
}

/* A thread whose cache is of an earlier heap at the same index must not believe it. */
static void *outlive_a_heap(void *arg)
{
    struct job *j = arg;

    for (unsigned i = 0; i < 20; i++) {
        while (!atomic_load((_Atomic unsigned *)&j->n_steps))
            usleep(100);
        void *block = acre_alloc(j->heap, 64);
        assert_non_null(block);
        assert_int_equal(acre_owner(j->heap, block), acre_self(j->heap));
        acre_free(j->heap, block);
        atomic_store((_Atomic unsigned *)&j->n_steps, 0);
    }
    return NULL;
}

static void a_thread_outlives_the_heap_it_used(void **state)
{
    (void)state;
    struct job j = {0};
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, outlive_a_heap, &j), 0);
    for (unsigned i = 0; i < 20; i++) {
        j.heap = heap_open(&the_daemon, NULL);
        void *block = acre_alloc(j.heap, 64);
        atomic_store((_Atomic unsigned *)&j.n_steps, 1);
        while (atomic_load((_Atomic unsigned *)&j.n_steps))
            usleep(100);
        acre_free(j.heap, block);
        acre_close(j.heap);
    }
    pthread_join(thread, NULL);
    expect_settled(&the_daemon, "default", 0, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_free_each_others_blocks),
        cmocka_unit_test(a_threads_cache_is_inherited_by_the_next),
        cmocka_unit_test(a_thread_that_ends_without_destructors_strands_nothing_for_good),
        cmocka_unit_test(several_heaps_serve_several_threads),
        cmocka_unit_test(a_thread_outlives_the_heap_it_used),
    };
    return run_beside_daemon(tests, "capacity = \"2G\"\ntenant \"default\" { max = \"512M\" }\n"
                                    "tenant \"other\" { max = \"64M\" }\n");
}
