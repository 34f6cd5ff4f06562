/* SPDX-License-Identifier: Apache-2.0 */
/* Rare moments: late answers, ended threads, limits reached, memory that is not wiped. */
#include "tests/system/harness.h"

#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>

static struct acre_heap *heap;

#define MAX_BYTES (32u << 20)

static struct acre_heap *open_with_deadline(int deadline_ms)
{
    struct acre_options o = {
        .size = sizeof(o), .address = the_daemon.socket, .deadline_ms = deadline_ms};
    struct acre_heap *h = NULL;

    return acre_open_with(&h, &o) == 0 ? h : NULL;
}

static double now_s(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* ---- answers that come late ---- */

static bool fill_and_scribble(void *arg)
{
    (void)arg;
    CHECK(acre_open(&heap, the_daemon.socket, NULL) == 0);
    for (char *p; (p = acre_alloc(heap, 1000));)
        memset(p, 0xee, 1000);
    return true;
}

static bool trims_without_an_answer(void *arg)
{
    static char *blocks[8000];
    pid_t other;

    (void)arg;
    CHECK(heap = open_with_deadline(300));
    for (unsigned i = 0; i < 8000; i++)
        CHECK(blocks[i] = acre_alloc(heap, 1000));
    for (unsigned i = 0; i < 8000; i++)
        acre_free(heap, blocks[i]);
    kill(daemon_worker(&the_daemon), SIGSTOP);
    int r = acre_trim(heap);
    /* Out of what this client still has, if it has anything. */
    unsigned n = 0;
    for (; r == -ETIMEDOUT && n < 2000 && (blocks[n] = acre_alloc(heap, 1000)); n++)
        memset(blocks[n], (char)n, 1000);
    kill(daemon_worker(&the_daemon), SIGCONT);
    CHECK(r == -ETIMEDOUT);
    CHECK(acre_root_get(heap, "none", &(acre_off){0}) == -ENOENT); /* it has answered all */
    CHECK(child_ok(other = child_start(fill_and_scribble, NULL)));
    for (unsigned i = 0; i < n; i++)
        for (unsigned k = 0; k < 1000; k++)
            CHECK(blocks[i][k] == (char)i);
    acre_close(heap);
    return true;
}

static void memory_given_back_without_an_answer_has_one_owner(void **state)
{
    (void)state;
    RUN_CHILD(trims_without_an_answer, NULL);
    expect_settled(&the_daemon, "default", 0, 0);
}

static size_t fill(void *blocks[], size_t max)
{
    size_t n = 0;
    while (n < max && (blocks[n] = acre_alloc(heap, 32768)))
        n++;
    return n;
}

static bool asks_in_vain(void *arg)
{
    static void *blocks[4096];

    (void)arg;
    CHECK(heap = open_with_deadline(100));
    size_t n_before = fill(blocks, 4096);
    for (size_t i = 0; i < n_before; i++)
        acre_free(heap, blocks[i]);
    CHECK(acre_trim(heap) == 0);
    kill(daemon_worker(&the_daemon), SIGSTOP);
    for (unsigned i = 0; i < 25; i++)
        CHECK(!acre_alloc(heap, 1 << 20) && errno == ETIMEDOUT);
    kill(daemon_worker(&the_daemon), SIGCONT);
    size_t n_after = fill(blocks, 4096);
    CHECK(n_after + n_after / 20 >= n_before);
    for (size_t i = 0; i < n_after; i++)
        acre_free(heap, blocks[i]);
    CHECK(acre_trim(heap) == 0);
    acre_close(heap);
    return true;
}

static void grants_that_come_late_are_not_lost(void **state)
{
    (void)state;
    RUN_CHILD(asks_in_vain, NULL);
    expect_settled(&the_daemon, "default", 0, 0);
}

static bool takes_all_and_goes(void *arg)
{
    static void *blocks[4096];

    (void)arg;
    CHECK(acre_open(&heap, the_daemon.socket, NULL) == 0);
    CHECK(fill(blocks, 4096) > 0);
    acre_close(heap);
    return true;
}

/* A late grant that the daemon took back, and granted again to the same client. */
static bool is_granted_the_same_twice(void *arg)
{
    static void *blocks[4096];

    (void)arg;
    CHECK(heap = open_with_deadline(100));
    CHECK(acre_alloc(heap, 16));
    kill(daemon_worker(&the_daemon), SIGSTOP);
    CHECK(!acre_alloc(heap, 100000) && errno == ETIMEDOUT);
    kill(daemon_worker(&the_daemon), SIGCONT);
    CHECK(acre_pointer(heap, (acre_off)200 << 30) == NULL); /* reads the late answer */
    RUN_CHILD(takes_all_and_goes, NULL);
    size_t n = fill(blocks, 64);
    CHECK(n == 64);
    (void)acre_root_get(heap, "none", &(acre_off){0});
    for (size_t i = 0; i < n; i++)
        acre_free(heap, blocks[i]);
    CHECK(acre_trim(heap) == 0);
    acre_close(heap);
    return true;
}

static void a_late_grant_may_be_taken_back_and_granted_again(void **state)
{
    (void)state;
    RUN_CHILD(is_granted_the_same_twice, NULL);
    expect_settled(&the_daemon, "default", 0, 0);
}

static void *alloc_in_thread(void *arg)
{
    double *ret_s = arg, begin = now_s();

    (void)!acre_alloc(heap, 100000);
    *ret_s = now_s() - begin;
    return NULL;
}

static bool many_wait(void *arg)
{
    pthread_t threads[8];
    double s[8] = {0};

    (void)arg;
    CHECK(heap = open_with_deadline(300));
    kill(daemon_worker(&the_daemon), SIGSTOP);
    for (unsigned i = 0; i < 8; i++)
        CHECK(pthread_create(&threads[i], NULL, alloc_in_thread, &s[i]) == 0);
    for (unsigned i = 0; i < 8; i++)
        pthread_join(threads[i], NULL);
    kill(daemon_worker(&the_daemon), SIGCONT);
    for (unsigned i = 0; i < 8; i++)
        CHECK(s[i] < 1.0);
    return true;
}

static void the_deadline_holds_for_each_of_many_threads(void **state)
{
    (void)state;
    RUN_CHILD(many_wait, NULL);
    expect_settled(&the_daemon, "default", 0, 0);
}

/* ---- threads that end ---- */

static bool cancels(void *arg)
{
    pthread_t thread;
    double s;

    (void)arg;
    CHECK(heap = open_with_deadline(2000));
    kill(daemon_worker(&the_daemon), SIGSTOP);
    CHECK(pthread_create(&thread, NULL, alloc_in_thread, &s) == 0);
    usleep(200000);
    pthread_cancel(thread);
    usleep(200000);
    kill(daemon_worker(&the_daemon), SIGCONT);
    pthread_join(thread, NULL);
    alarm(10);
    CHECK(acre_alloc(heap, 100000));
    CHECK(acre_trim(heap) == 0);
    acre_close(heap);
    return true;
}

static void a_cancelled_thread_holds_no_lock(void **state)
{
    (void)state;
    RUN_CHILD(cancels, NULL);
    expect_settled(&the_daemon, "default", 0, 0);
}

static bool has_no_key_left(void *arg)
{
    pthread_key_t key;

    (void)arg;
    while (pthread_key_create(&key, NULL) == 0)
        ;
    CHECK(acre_open(&heap, the_daemon.socket, NULL) == 0);
    CHECK(acre_alloc(heap, 100));
    acre_close(heap);
    return true;
}

static void a_process_without_a_thread_key_left_can_allocate(void **state)
{
    (void)state;
    RUN_CHILD(has_no_key_left, NULL);
}

static void *sets_handlers(void *arg)
{
    while (!__atomic_load_n((bool *)arg, __ATOMIC_RELAXED))
        acre_set_misuse_handler(NULL, NULL);
    return NULL;
}

static bool sets_handler_once(void *arg)
{
    (void)arg;
    alarm(5);
    acre_set_misuse_handler(NULL, NULL);
    return true;
}

static void a_fork_while_a_thread_sets_the_handler_leaves_no_lock(void **state)
{
    bool is_over = false;
    pthread_t thread;

    (void)state;
    heap = heap_open(&the_daemon, NULL);
    assert_int_equal(pthread_create(&thread, NULL, sets_handlers, &is_over), 0);
    for (unsigned i = 0; i < 300; i++)
        RUN_CHILD(sets_handler_once, NULL);
    __atomic_store_n(&is_over, true, __ATOMIC_RELAXED);
    pthread_join(thread, NULL);
    acre_close(heap);
}

/* ---- what is not wiped, and limits ---- */

static bool locks_its_memory(void *arg)
{
    (void)arg;
    for (unsigned round = 0; round < 3; round++) {
        CHECK(acre_open(&heap, the_daemon.socket, NULL) == 0);
        for (unsigned i = 0; i < 100; i++) {
            void *block = acre_alloc(heap, 100);
            CHECK(block && acre_owner(heap, block) == acre_self(heap));
        }
        if (mlockall(MCL_CURRENT) < 0)
            return true; /* not allowed to */
        acre_close(heap);
    }
    return true;
}

static void a_process_that_locks_its_memory_can_close_and_open(void **state)
{
    (void)state;
    RUN_CHILD(locks_its_memory, NULL);
    expect_settled(&the_daemon, "default", 0, 0);
}

static bool publishes(void *arg)
{
    acre_off *offs = arg;

    CHECK(acre_open(&heap, the_daemon.socket, NULL) == 0);
    for (unsigned i = 0; i < 10; i++) {
        void *block = acre_allocx(heap, 64, 0, ACRE_HEAP_OWNED);
        CHECK(block);
        offs[i] = acre_offset(heap, block);
    }
    return true;
}

static bool raw_child(acre_off *offs)
{
    for (unsigned i = 0; i < 10; i++)
        acre_free(heap, acre_pointer(heap, offs[i]));
    for (unsigned i = 0; i < 100; i++) {
        void *block = acre_alloc(heap, 64);
        CHECK(block && acre_owner(heap, block) == acre_self(heap));
    }
    return true;
}

/* The child's cache is wiped, and nobody holds the slab: that does not make it the child's. */
static void a_raw_fork_that_frees_orphans_does_not_own_them(void **state)
{
    acre_off *offs = shared_page(10 * sizeof(*offs));

    (void)state;
    RUN_CHILD(publishes, offs);
    expect_settled(&the_daemon, "default", 640, 0);
    heap = heap_open(&the_daemon, NULL);
    assert_non_null(acre_alloc(heap, 16));
    assert_non_null(acre_pointer(heap, offs[0]));
    fflush(NULL);
    pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (pid == 0) {
        alarm(100);
        _exit(raw_child(offs) ? 0 : 1);
    }
    assert_true(child_ok(pid));
    acre_close(heap);
    expect_settled(&the_daemon, "default", 0, 0);
}

static bool has_no_descriptor_left(void *arg)
{
    static void *blocks[4096];
    struct rlimit old, none = {0};

    (void)arg;
    CHECK(heap = open_with_deadline(1000));
    CHECK(getrlimit(RLIMIT_NOFILE, &old) == 0);
    none.rlim_max = old.rlim_max;
    CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
    for (unsigned i = 0; i < 50; i++)
        CHECK(!acre_alloc(heap, 100000));
    CHECK(setrlimit(RLIMIT_NOFILE, &old) == 0);
    double begin = now_s();
    CHECK(acre_alloc(heap, 100));
    CHECK(now_s() - begin < 0.5);
    CHECK(fill(blocks, 4096) > 850);
    acre_close(heap);
    return true;
}

static void running_out_of_descriptors_costs_no_memory(void **state)
{
    (void)state;
    RUN_CHILD(has_no_descriptor_left, NULL);
    expect_settled(&the_daemon, "default", 0, 0);
}

/* ---- death while a block moves ---- */

static bool dies_while_it_copies(void *arg)
{
    acre_off *off = arg;

    CHECK(acre_open(&heap, the_daemon.socket, NULL) == 0);
    char *block = acre_allocx(heap, 1 << 20, 0, ACRE_HEAP_OWNED);
    CHECK(block);
    *off = acre_offset(heap, block);
    CHECK(mprotect(block + (1 << 19), 4096, PROT_NONE) == 0);
    return acre_realloc(heap, block, 3 << 20) != NULL;
}

static void a_death_in_realloc_leaves_one_block(void **state)
{
    acre_off *off = shared_page(sizeof(*off));

    (void)state;
    assert_int_equal(child_signal(child_start(dies_while_it_copies, off)), SIGSEGV);
    expect_settled(&the_daemon, "default", 1 << 20, 0);
    heap = heap_open(&the_daemon, NULL);
    char *block = acre_realloc(heap, acre_pointer(heap, *off), 3 << 20);
    assert_non_null(block);
    assert_int_equal(acre_owner(heap, block), ACRE_OWNER_HEAP);
    acre_free(heap, block);
    acre_close(heap);
    expect_settled(&the_daemon, "default", 0, 0);
}

/* ---- large blocks at the budget's end ---- */

#define N_LARGE 600u

static bool overlaps_none(char *blocks[], const size_t bytes[], unsigned i)
{
    for (unsigned k = 0; k < N_LARGE; k++)
        if (k != i && blocks[k] && blocks[i] < blocks[k] + bytes[k] &&
            blocks[k] < blocks[i] + bytes[i])
            return false;
    return true;
}

static void large_blocks_do_not_overlap_when_memory_is_short(void **state)
{
    static char *blocks[N_LARGE];
    static size_t bytes[N_LARGE];
    uint64_t seed = 42;

    (void)state;
    heap = heap_open(&the_daemon, NULL);
    for (unsigned n = 0; n < 20000; n++) {
        unsigned i = (unsigned)(rnd(&seed) % N_LARGE);
        if (blocks[i]) {
            acre_free(heap, blocks[i]);
            blocks[i] = NULL;
            continue;
        }
        bytes[i] = 40000 + rnd(&seed) % 250000;
        blocks[i] = acre_alloc(heap, bytes[i]);
        if (blocks[i])
            assert_true(overlaps_none(blocks, bytes, i));
    }
    acre_close(heap);
    expect_settled(&the_daemon, "default", 0, 0);
}

/* ---- memory is short ---- */

static void misused(void *ctx, const struct acre_misuse *misuse)
{
    (void)ctx;
    fprintf(stderr, "%s\n", misuse->message);
    _exit(1);
}

static bool asks_for_too_much(void *arg)
{
    (void)arg;
    CHECK(acre_open(&heap, the_daemon.socket, NULL) == 0);
    for (;;)
        CHECK(!acre_alloc(heap, 2 * MAX_BYTES));
}

static bool uses_large_blocks(void *arg)
{
    double end = now_s() + 2;

    (void)arg;
    CHECK(acre_open(&heap, the_daemon.socket, NULL) == 0);
    acre_set_misuse_handler(misused, NULL);
    while (now_s() < end)
        for (unsigned i = 0; i < 1000; i++) {
            void *block = acre_alloc(heap, 40000);
            if (!block)
                continue; /* what it kept was taken back */
            CHECK(acre_owner(heap, block) == acre_self(heap));
            acre_free(heap, block);
        }
    acre_close(heap);
    return true;
}

/* The daemon looks for freed blocks while this one is freed and used again, thousands of times. */
static void a_block_in_use_is_not_taken_for_the_freed_one_it_was(void **state)
{
    (void)state;
    pid_t asking = child_start(asks_for_too_much, NULL);
    pid_t user = child_start(uses_large_blocks, NULL);
    bool ok = child_ok(user);
    kill(asking, SIGKILL);
    (void)child_signal(asking);
    assert_true(ok);
    expect_settled(&the_daemon, "default", 0, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_given_back_without_an_answer_has_one_owner),
        cmocka_unit_test(grants_that_come_late_are_not_lost),
        cmocka_unit_test(a_late_grant_may_be_taken_back_and_granted_again),
        cmocka_unit_test(the_deadline_holds_for_each_of_many_threads),
        cmocka_unit_test(a_cancelled_thread_holds_no_lock),
        cmocka_unit_test(a_process_without_a_thread_key_left_can_allocate),
        cmocka_unit_test(a_fork_while_a_thread_sets_the_handler_leaves_no_lock),
        cmocka_unit_test(a_process_that_locks_its_memory_can_close_and_open),
        cmocka_unit_test(a_raw_fork_that_frees_orphans_does_not_own_them),
        cmocka_unit_test(running_out_of_descriptors_costs_no_memory),
        cmocka_unit_test(a_block_in_use_is_not_taken_for_the_freed_one_it_was),
        cmocka_unit_test(a_death_in_realloc_leaves_one_block),
        cmocka_unit_test(large_blocks_do_not_overlap_when_memory_is_short),
    };
    return run_beside_daemon(tests, "capacity = \"64M\"\ntenant \"default\" { max = \"32M\" }\n");
}
