/* SPDX-License-Identifier: Apache-2.0 */
/* Threads and processes that wait for memory. The tenant "small" has 8 MiB. */
#include "tests/system/harness.h"

#include <jansson.h>
#include <pthread.h>
#include <time.h>

#include "proto/wire.h"
#include "tests/system/between.h"

#define CONFIG "tenant small { max = 8M }\ntenant default { max = 1G }\n"
#define BLOCK  (6u << 20)

static const char *proxy_path;

/* In a shared page. */
static struct shared {
    _Atomic int n_requests, n_ready, n_served, is_done;
    _Atomic bool is_asleep;
} * shared;

static bool count_requests(bool is_reply)
{
    shared->n_requests += !is_reply;
    return true;
}

static int up(void **state)
{
    shared = shared_page(4096);
    memset((void *)shared, 0, sizeof(*shared));
    (void)state;
    daemon_up(&the_daemon, CONFIG);
    proxy_path = between_up(count_requests);
    return 0;
}

static int down(void **state)
{
    (void)state;
    between_down();
    daemon_down(&the_daemon);
    return 0;
}

static uint64_t now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static struct acre_heap *open_small(const char *socket)
{
    return heap_open_at(socket, "small");
}

/* Who waits, by acrectl: an array; the caller's. */
static json_t *waiters(void)
{
    json_t *root = acrectl_json(&the_daemon, "waiters small");
    json_t *tenant = json_array_get(json_object_get(root, "tenants"), 0);
    json_t *all = json_incref(json_object_get(tenant, "waiters"));
    assert_true(json_is_array(all));
    json_decref(root);
    return all;
}

static size_t n_waiters(void)
{
    json_t *all = waiters();
    size_t n = json_array_size(all);
    json_decref(all);
    return n;
}

static void until_waiting(size_t n)
{
    for (int i = 0; i < 2000 && n_waiters() != n; i++)
        pause_us(5000);
    assert_int_equal(n_waiters(), n);
}

/* All that can be had of the tenant, in pieces; returns how many. */
static unsigned fill(struct acre_heap *heap, void **ret, unsigned n_max)
{
    unsigned n = 0;
    for (size_t size = 4 << 20; size >= 128 << 10; size /= 2)
        while (n < n_max && (ret[n] = acre_alloc(heap, size)))
            n++;
    return n;
}

/* ---- one waits ---- */

static bool waits_for_a_block(void *arg)
{
    struct acre_heap *heap;
    size_t size = *(size_t *)arg;
    CHECK(acre_open(&heap, proxy_path, "small") == 0);
    shared->n_ready++;
    errno = 77;
    char *block = acre_alloc_wait(heap, size, 30000);
    CHECK(block && errno == 77);
    shared->n_served++;
    pattern_fill(block, size, 5);
    CHECK(pattern_is_whole(block, size) && acre_usable_size(heap, block) >= size);
    acre_free(heap, block);
    acre_close(heap);
    return true;
}

static void gets_what_is_freed(size_t size)
{
    struct acre_heap *heap = open_small(the_daemon.socket);
    void *all[100];
    unsigned n = 0, n_small = 0;
    if (size > 65536)
        assert_non_null(all[n++] = acre_alloc(heap, BLOCK));
    n += fill(heap, all + n, 100 - n);
    for (size_t rest = 60000; rest >= 1000; rest /= 2)
        while (acre_alloc(heap, rest))
            n_small++;
    assert_true(n_small > 0);
    pid_t pid = child_start(waits_for_a_block, &size);
    until_waiting(1);
    int before = shared->n_requests;
    pause_us(900000);
    pause_us(900000);
    /* One request a second, and one for what its own threads may have freed. */
    assert_true(shared->n_requests - before <= 6);
    assert_int_equal(shared->n_served, 0);
    uint64_t from_ms = now_ms();
    for (unsigned i = 0; i < n; i++)
        acre_free(heap, all[i]);
    assert_true(child_ok(pid));
    assert_true(now_ms() - from_ms < 20000);
    acre_close(heap);
    expect_settled(&the_daemon, "small", 0, 0);
}

static void a_process_waits_asleep_for_what_another_frees(void **state)
{
    (void)state;
    gets_what_is_freed(5 << 20);
}

static void a_small_block_waits_for_a_slab(void **state)
{
    (void)state;
    gets_what_is_freed(2000);
}

static void who_frees_wakes_at_once(void **state)
{
    (void)state;
    size_t size = 5 << 20;
    struct acre_heap *heap = open_small(the_daemon.socket);
    uint64_t least_ms = UINT64_MAX;
    for (int i = 0; i < 5; i++) { /* the slice alone would take half a second on average */
        void *block = acre_alloc(heap, BLOCK);
        if (!block)
            fail_msg("%s", acre_last_error());
        pid_t pid = child_start(waits_for_a_block, &size);
        until_waiting(1);
        pause_us(50000);
        int before = shared->n_served;
        uint64_t from_ms = now_ms();
        acre_free(heap, block);
        while (shared->n_served == before && now_ms() - from_ms < 20000)
            pause_us(500);
        uint64_t took_ms = now_ms() - from_ms;
        least_ms = took_ms < least_ms ? took_ms : least_ms;
        assert_true(child_ok(pid));
        expect_settled(&the_daemon, "small", 0, 1);
    }
    assert_true(least_ms < 200);
    acre_close(heap);
}

/* ---- refusals ---- */

static void a_deadline_passes_and_nothing_is_left(void **state)
{
    (void)state;
    struct acre_heap *a = open_small(the_daemon.socket), *b;
    void *block = acre_alloc(a, BLOCK);
    assert_int_equal(acre_open(&b, proxy_path, "small"), 0);
    assert_non_null(block);
    uint64_t from_ms = now_ms();
    assert_null(acre_alloc_wait(b, 5 << 20, 300));
    assert_int_equal(errno, ETIMEDOUT);
    assert_true(now_ms() - from_ms >= 300);
    assert_non_null(strstr(acre_last_error(), "max of 8192 KiB"));
    assert_int_equal(n_waiters(), 0);
    assert_null(acre_alloc_wait(b, 5 << 20, 0));
    assert_int_equal(errno, ENOMEM);
    assert_null(acre_alloc_wait(b, 5 << 20, -2));
    assert_int_equal(errno, EINVAL);
    from_ms = now_ms();
    assert_null(acre_alloc_wait(b, 9 << 20, -1));
    assert_int_equal(errno, E2BIG);
    assert_non_null(strstr(acre_last_error(), "never"));
    assert_null(acre_alloc_wait(b, (size_t)PTRDIFF_MAX, -1));
    assert_int_equal(errno, E2BIG);
    acre_free(a, block);
    block = acre_alloc_wait(b, 5 << 20, 300);
    assert_non_null(block);
    acre_free(b, block);
    acre_close(a);
    acre_close(b);
    expect_settled(&the_daemon, "small", 0, 0);
}

static void acrectl_says_who_waits_for_what(void **state)
{
    (void)state;
    size_t size = 5 << 20;
    struct acre_heap *heap = open_small(the_daemon.socket);
    void *block = acre_alloc(heap, BLOCK);
    pid_t pid = child_start(waits_for_a_block, &size);
    until_waiting(1);
    json_t *all = waiters(), *first = json_array_get(all, 0);
    assert_int_equal(json_integer_value(json_object_get(first, "bytes")), size);
    assert_int_equal(json_integer_value(json_object_get(first, "pid")),
                     getpid()); /* who connected */
    assert_true(json_integer_value(json_object_get(first, "left_ms")) > 1000);
    assert_non_null(json_object_get(first, "name"));
    assert_non_null(json_object_get(first, "waited_ms"));
    json_decref(all);
    acre_free(heap, block);
    assert_true(child_ok(pid));
    acre_close(heap);
}

static size_t largest(void)
{
    json_t *root = acrectl_json(&the_daemon, "stats --tenant small");
    json_t *tenant = json_array_get(json_object_get(root, "tenants"), 0);
    size_t bytes = (size_t)json_integer_value(json_object_get(tenant, "largest_block_bytes"));
    json_decref(root);
    return bytes;
}

/* Out of a new segment at first, then out of what lies between others. */
static void the_largest_block_that_stats_tell_of_can_be_had(void **state)
{
    (void)state;
    struct acre_heap *heap = open_small(the_daemon.socket);
    void *blocks[8] = {NULL};
    for (unsigned i = 0; i < 3; i++) {
        blocks[i] = acre_alloc(heap, (size_t)300000 << i);
        assert_int_equal(acre_trim(heap), 0);
        size_t bytes = largest();
        assert_in_range(bytes, 1, 8 << 20);
        assert_null(acre_alloc(heap, bytes + 8192));
        void *block = acre_alloc(heap, bytes);
        assert_non_null(block);
        assert_true(largest() < bytes);
        acre_free(heap, block);
    }
    acre_free(heap, blocks[1]);
    void *all[100];
    unsigned n = fill(heap, all, 100);
    acre_free(heap, all[n / 2]);
    assert_int_equal(acre_trim(heap), 0);
    size_t bytes = largest();
    assert_null(acre_alloc(heap, bytes + 8192));
    assert_non_null(acre_alloc(heap, bytes));
    acre_close(heap);
}

/* ---- deaths ---- */

static void a_killed_waiter_leaves_its_place_to_the_next(void **state)
{
    (void)state;
    size_t size = 5 << 20;
    struct acre_heap *heap = open_small(the_daemon.socket);
    void *block = acre_alloc(heap, BLOCK);
    pid_t first = child_start(waits_for_a_block, &size);
    until_waiting(1);
    pid_t second = child_start(waits_for_a_block, &size);
    until_waiting(2);
    kill(first, SIGKILL);
    assert_int_equal(child_signal(first), SIGKILL);
    until_waiting(1);
    acre_free(heap, block);
    assert_true(child_ok(second));
    acre_close(heap);
    expect_settled(&the_daemon, "small", 0, 0);
    expect_checked(&the_daemon);
}

static void waiters_killed_at_any_time_leave_nothing_behind(void **state)
{
    (void)state;
    size_t size = 5 << 20;
    for (int i = 0; i < 12; i++) {
        struct acre_heap *heap = open_small(the_daemon.socket);
        void *block = acre_alloc_wait(heap, BLOCK, 20000);
        assert_non_null(block);
        pid_t pid = child_start(waits_for_a_block, &size);
        until_waiting(1);
        acre_free(heap, block); /* it is woken, granted, told, begins ... */
        pause_us((uint64_t)i * 60);
        kill(pid, SIGKILL);
        (void)child_signal(pid);
        acre_close(heap);
        expect_settled(&the_daemon, "small", 0, 0);
        assert_int_equal(n_waiters(), 0);
        assert_int_equal(tenant_stats(&the_daemon, "small").granted_bytes, 0);
    }
    expect_checked(&the_daemon);
}

static void a_killed_daemon_costs_who_waits_a_moment(void **state)
{
    (void)state;
    size_t size = 5 << 20;
    struct acre_heap *heap = open_small(the_daemon.socket);
    void *block = acre_alloc(heap, BLOCK);
    pid_t pid = child_start(waits_for_a_block, &size);
    until_waiting(1);
    for (int i = 0; i < 3; i++) {
        pid_t worker = daemon_worker(&the_daemon);
        assert_int_equal(kill(worker, SIGKILL), 0);
        while (daemon_worker(&the_daemon) == worker)
            pause_us(200);
        until_waiting(1); /* by itself */
        assert_int_equal(shared->n_served, 0);
    }
    acre_free(heap, block);
    assert_true(child_ok(pid));
    acre_close(heap);
    expect_settled(&the_daemon, "small", 0, 0);
    expect_checked(&the_daemon);
}

/* ---- threads ---- */

#define N_THREADS 12

static void *thread_waits(void *arg)
{
    struct acre_heap *heap = arg;
    size_t size = 5 << 20;
    for (int i = 0; i < 20; i++) {
        char *block = acre_alloc_wait(heap, size, 60000);
        if (!block)
            return "no block";
        block[0] = block[size - 1] = 1;
        acre_free(heap, block);
    }
    return NULL;
}

static bool threads_wait(void *arg)
{
    pthread_t threads[N_THREADS];
    struct acre_heap *heap;
    void *said;
    (void)arg;
    CHECK(acre_open(&heap, the_daemon.socket, "small") == 0);
    for (int i = 0; i < N_THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, thread_waits, heap) == 0);
    for (int i = 0; i < N_THREADS; i++) {
        CHECK(pthread_join(threads[i], &said) == 0);
        CHECK(said == NULL);
    }
    acre_close(heap);
    return true;
}

static void many_threads_of_two_processes_share_one_blocks_room(void **state)
{
    (void)state;
#ifdef __SANITIZE_THREAD__
    skip(); /* it cannot follow threads of a child of a process that has some */
#endif
    pid_t one = child_start(threads_wait, NULL), other = child_start(threads_wait, NULL);
    assert_true(child_ok(one));
    assert_true(child_ok(other));
    expect_settled(&the_daemon, "small", 0, 0);
    expect_checked(&the_daemon);
}

static void *waits_for_long(void *arg)
{
    return acre_alloc_wait(arg, 5 << 20, 60000);
}

static void while_a_thread_waits_others_work_and_fork(void **state)
{
    (void)state;
    pthread_t thread;
    void *got;
    acre_off off;
    struct acre_heap *other = open_small(the_daemon.socket), *heap = open_small(proxy_path);
    void *block = acre_alloc(other, BLOCK);
    assert_int_equal(pthread_create(&thread, NULL, waits_for_long, heap), 0);
    until_waiting(1);
    for (int i = 0; i < 100; i++)
        assert_int_equal(acre_root_get(heap, "none", &off), -ENOENT);
    void *small = acre_alloc(heap, 100);
    assert_non_null(small);
    pid_t pid = fork();
    if (pid == 0) { /* a client of its own, of which nobody waits */
        void *mine = acre_alloc(heap, 100);
        acre_free(heap, mine);
        _exit(mine ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(n_waiters(), 1);
    acre_free(other, block);
    assert_int_equal(pthread_join(thread, &got), 0);
    assert_non_null(got);
    acre_free(heap, got);
    acre_free(heap, small);
    acre_close(heap);
    acre_close(other);
    expect_settled(&the_daemon, "small", 0, 0);
}

/* ---- a long line ---- */

#define N_CROWD 16u
#define N_EACH  63u /* a client may have 64 tickets */
#define N_LINE  (N_CROWD * N_EACH)

static struct line {
    _Atomic unsigned n_served, n_failed;
    uint16_t order[N_LINE];
    int come[N_CROWD][2];
} * line;

struct waiter {
    struct acre_heap *heap;
    uint16_t number;
};

/* Whoever has the block is the only one: the next is served when it has been freed. */
static void *waits_in_line(void *arg)
{
    struct waiter *w = arg;
    void *block = acre_alloc_wait(w->heap, 5 << 20, 90000);
    if (!block) {
        line->n_failed++;
        return NULL;
    }
    line->order[line->n_served++] = w->number;
    acre_free(w->heap, block);
    return NULL;
}

/* A thread begins to wait for each number that comes. */
static bool waits_as_many(void *arg)
{
    pthread_t threads[N_EACH];
    struct waiter waiters[N_EACH];
    struct acre_heap *heap;
    const int *come = arg;
    unsigned n = 0;
    CHECK(acre_open(&heap, the_daemon.socket, "small") == 0);
    for (; n < N_EACH; n++) {
        waiters[n].heap = heap;
        CHECK(read(come[0], &waiters[n].number, 2) == 2);
        CHECK(pthread_create(&threads[n], NULL, waits_in_line, &waiters[n]) == 0);
    }
    while (n > 0)
        CHECK(pthread_join(threads[--n], NULL) == 0);
    acre_close(heap);
    return true;
}

static struct wire_call look_at_small(void)
{
    struct wire_call call = {.sock = -1, .deadline_ns = wire_now_ns() + 100000000000ull};
    struct msg_request req = {.op = MSG_LOOK, .serial = 2, .look = {.tenant = "small"}};
    struct msg_reply reply;
    int fd = -1;
    assert_int_equal(wire_hello(the_daemon.socket, call.deadline_ns, &call.sock, NULL), 0);
    assert_int_equal(wire_call(&call, &req, -1, &reply, &fd), 0);
    assert_int_equal(reply.error, 0);
    close(fd);
    return call;
}

static void until_in_line(const struct wire_call *call, uint32_t n)
{
    static uint64_t serial = 3;
    struct msg_request req = {.op = MSG_WAITERS};
    struct msg_reply reply;
    do {
        req.serial = serial++;
        assert_int_equal(wire_call(call, &req, -1, &reply, NULL), 0);
        assert_int_equal(reply.error, 0);
    } while (reply.waiters.n_all < n);
}

static void a_thousand_threads_of_many_processes_are_served_in_their_order(void **state)
{
    (void)state;
    pid_t pids[N_CROWD];
    line = shared_page(sizeof(*line));
    struct acre_heap *heap = open_small(the_daemon.socket);
    void *block = acre_alloc(heap, BLOCK);
    assert_non_null(block);
    struct wire_call call = look_at_small();
    for (unsigned i = 0; i < N_CROWD; i++) {
        assert_int_equal(pipe(line->come[i]), 0);
        pids[i] = child_start(waits_as_many, line->come[i]);
    }
    for (uint16_t i = 0; i < N_LINE; i++) {
        assert_int_equal(write(line->come[i % N_CROWD][1], &i, 2), 2);
        until_in_line(&call, i + 1u);
    }
    close(call.sock);
    acre_free(heap, block);
    for (unsigned i = 0; i < N_CROWD; i++)
        assert_true(child_ok(pids[i]));
    assert_int_equal(line->n_failed, 0);
    assert_int_equal(line->n_served, N_LINE);
    for (unsigned i = 0; i < N_LINE; i++)
        assert_int_equal(line->order[i], i);
    acre_close(heap);
    expect_settled(&the_daemon, "small", 0, 0);
    expect_checked(&the_daemon);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, up, down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_process_waits_asleep_for_what_another_frees),
        TEST(a_small_block_waits_for_a_slab),
        TEST(who_frees_wakes_at_once),
        TEST(a_deadline_passes_and_nothing_is_left),
        TEST(acrectl_says_who_waits_for_what),
        TEST(the_largest_block_that_stats_tell_of_can_be_had),
        TEST(a_killed_waiter_leaves_its_place_to_the_next),
        TEST(waiters_killed_at_any_time_leave_nothing_behind),
        TEST(a_killed_daemon_costs_who_waits_a_moment),
        TEST(many_threads_of_two_processes_share_one_blocks_room),
        TEST(while_a_thread_waits_others_work_and_fork),
        TEST(a_thousand_threads_of_many_processes_are_served_in_their_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
