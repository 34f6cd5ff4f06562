/* SPDX-License-Identifier: Apache-2.0 */
/* Who sleeps in poll() gives back what others want, and hears of pressure: by acre_fd() and
 * acre_dispatch() alone. */
/* ctest-labels: threads valgrind */
/* ctest-timeout: 300 */
#include "tests/system/harness.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>

#include "proto/codec.h"
#include "proto/wire.h"
#include "tests/system/between.h"

#define BLOCKS 8u
#define MIB_1  (1u << 20)
#define HEAPS  5u

/* Nobody has 10 MiB beside another who has 8. */
#define CONFIG(a_max)                                                                              \
    "capacity = \"16M\"\n"                                                                         \
    "tenant a { max = \"" a_max "\" }\ntenant b { max = \"16M\" }\n"                               \
    "tenant h0 { max = \"2M\" }\ntenant h1 { max = \"16M\" }\ntenant h2 { max = \"16M\" }\n"       \
    "tenant h3 { max = \"16M\" }\ntenant h4 { max = \"16M\" }\n"

static struct shared {
    _Atomic int n_ready, n_turns, n_handled, n_away, is_done, slow_us;
} * shared;

/* Under valgrind there is address space for one heap. */
static void skip_with_little_space(void)
{
    if (getenv("ACRE_ON_VALGRIND"))
        skip();
}

static int up(void **state)
{
    (void)state;
    shared = shared_page(sizeof(*shared));
    memset((void *)shared, 0, sizeof(*shared));
    daemon_up(&the_daemon, CONFIG("16M"));
    return 0;
}

/* Which others may have had, and give back by and by. */
static bool holds_idle_memory(struct acre_heap *heap)
{
    void *blocks[BLOCKS];
    for (unsigned i = 0; i < BLOCKS; i++)
        CHECK((blocks[i] = acre_alloc_wait(heap, MIB_1, 60000)) != NULL);
    for (unsigned i = 0; i < BLOCKS; i++)
        acre_free(heap, blocks[i]);
    return true;
}

static void until(_Atomic int *at_least, int n)
{
    for (unsigned i = 0; *at_least < n; i++) {
        assert_true(i < 8000);
        pause_us(5000);
    }
}

/* As a program's loop does; wait_ms -1: for ever. */
static bool sleeps_once(struct acre_heap *heap, int fd, int wait_ms)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int r = poll(&p, 1, wait_ms);
    CHECK(r >= 0 && !(p.revents & (POLLNVAL | POLLERR)));
    if (r == 0)
        return true;
    r = acre_dispatch(heap);
    CHECK(r == 0 || r == 1 || r == -ECONNREFUSED || r == -ETIMEDOUT);
    shared->n_turns++;
    shared->n_handled += r == 1;
    shared->n_away += r < 0;
    return true;
}

static bool sleeps(struct acre_heap *heap)
{
    int fd = acre_fd(heap);
    CHECK(fd > 2 && acre_fd(heap) == fd);
    shared->n_ready++;
    while (!shared->is_done)
        CHECK(sleeps_once(heap, fd, 100));
    CHECK(acre_fd(heap) == fd);
    return true;
}

static bool sleeps_on_idle_memory(void *arg)
{
    struct acre_heap *heap;
    CHECK(acre_open(&heap, the_daemon.socket, "a") == 0);
    CHECK(holds_idle_memory(heap));
    CHECK(sleeps(heap));
    acre_close(heap);
    (void)arg;
    return true;
}

/* What another tenant holds and does not use. */
static void gets_10_mib(const char *tenant)
{
    struct acre_heap *heap = heap_open(&the_daemon, tenant);
    void *block = acre_alloc_wait(heap, 10 * MIB_1, 60000);
    if (!block)
        fail_msg("%s", acre_last_error());
    acre_free(heap, block);
    acre_close(heap);
}

static void ends(pid_t pid)
{
    shared->is_done = 1;
    assert_true(child_ok(pid));
}

/* ---- idle memory ---- */

static void who_sleeps_on_idle_memory_gives_it_back(void **state)
{
    (void)state;
    pid_t pid = child_start(sleeps_on_idle_memory, NULL);
    until(&shared->n_ready, 1);
    gets_10_mib("b");
    assert_true(shared->n_handled >= 1);
    ends(pid);
}

static bool sleeps_on_it_twice(void *arg)
{
    struct acre_heap *heap;
    (void)arg;
    CHECK(acre_open(&heap, the_daemon.socket, "a") == 0);
    int fd = acre_fd(heap);
    for (int round = 1; round <= 2; round++) {
        CHECK(holds_idle_memory(heap));
        shared->n_ready = round;
        while (shared->is_done < round)
            CHECK(sleeps_once(heap, fd, 100));
    }
    return true;
}

static void gives_twice(void)
{
    pid_t pid = child_start(sleeps_on_it_twice, NULL);
    for (int round = 1; round <= 2; round++) {
        until(&shared->n_ready, round);
        gets_10_mib("b");
        shared->is_done = round;
    }
    assert_true(child_ok(pid));
}

static void and_gives_it_back_again(void **state)
{
    (void)state;
    gives_twice();
}

static void the_descriptor_is_silent_while_nothing_happens(void **state)
{
    (void)state;
    pid_t pid = child_start(sleeps_on_idle_memory, NULL);
    until(&shared->n_ready, 1);
    pause_us(900000);
    assert_true(shared->n_turns <= 3);
    assert_int_equal(shared->n_away, 0);
    ends(pid);
}

/* ---- other threads ---- */

static void *calls_all_the_time(void *arg)
{
    acre_off off;
    while (!shared->is_done) {
        if (acre_root_get(arg, "none", &off) != -ENOENT)
            return arg;
        if (shared->slow_us > 0)
            pause_us(10000); /* or there is no moment between two calls */
    }
    return NULL;
}

static bool sleeps_beside_a_thread_that_calls(void *arg)
{
    struct acre_heap *heap;
    pthread_t threads[2];
    void *failed[2];
    (void)arg;
    CHECK(acre_open(&heap, the_daemon.socket, "a") == 0);
    CHECK(holds_idle_memory(heap));
    for (unsigned i = 0; i < 2; i++)
        CHECK(pthread_create(&threads[i], NULL, calls_all_the_time, heap) == 0);
    CHECK(sleeps(heap));
    for (unsigned i = 0; i < 2; i++)
        CHECK(pthread_join(threads[i], &failed[i]) == 0 && !failed[i]);
    acre_close(heap);
    return true;
}

static void gives_to_another(bool (*sleeper)(void *arg))
{
    pid_t pid = child_start(sleeper, NULL);
    until(&shared->n_ready, 1);
    gets_10_mib("b");
    ends(pid);
}

static void what_another_threads_call_has_taken_is_not_lost(void **state)
{
    (void)state;
    gives_to_another(sleeps_beside_a_thread_that_calls);
}

static void *waits_for_its_block(void *arg)
{
    void *block = acre_alloc_wait(arg, 16 * MIB_1, 1000); /* tables: it will not come */
    return block;
}

/* It is with the daemon for a tenth of a second now and then. */
static bool sleeps_beside_a_thread_that_waits(void *arg)
{
    struct acre_heap *heap;
    pthread_t thread;
    void *block;
    (void)arg;
    CHECK(acre_open(&heap, the_daemon.socket, "a") == 0);
    int fd = acre_fd(heap);
    CHECK(pthread_create(&thread, NULL, waits_for_its_block, heap) == 0);
    for (unsigned i = 0; i < 15; i++) {
        struct timespec from, to;
        clock_gettime(CLOCK_MONOTONIC, &from);
        CHECK(sleeps_once(heap, fd, 100));
        clock_gettime(CLOCK_MONOTONIC, &to);
        CHECK(to.tv_sec - from.tv_sec < 3);
    }
    CHECK(pthread_join(thread, &block) == 0 && !block);
    acre_close(heap);
    return true;
}

static void nobody_waits_in_dispatch_for_another_threads_call(void **state)
{
    (void)state;
    RUN_CHILD(sleeps_beside_a_thread_that_waits, NULL);
    assert_true(shared->n_turns <= 100);
}

/* ---- the daemon comes and goes ---- */

static void after_a_restart_the_descriptor_is_good_as_before(void **state)
{
    (void)state;
    pid_t pid = child_start(sleeps_on_idle_memory, NULL);
    until(&shared->n_ready, 1);
    for (unsigned i = 0; i < 3; i++) {
        int n_turns = shared->n_turns;
        assert_int_equal(kill(daemon_worker(&the_daemon), SIGKILL), 0);
        until(&shared->n_turns, n_turns + 1);
    }
    gets_10_mib("b");
    assert_true(shared->n_turns <= 200);
    ends(pid);
}

/* What was written there while nobody could be told. */
static void restarts_with(const char *config)
{
    FILE *f = fopen(the_daemon.config, "w");
    assert_non_null(f);
    assert_true(fputs(config, f) >= 0 && fclose(f) == 0);
    assert_int_equal(kill(daemon_worker(&the_daemon), SIGKILL), 0);
}

static void until_level(struct acre_heap *heap, enum acre_pressure_level level)
{
    struct acre_pressure now = {.size = sizeof(now)};
    for (unsigned i = 0; i < 2000; i++) {
        assert_int_equal(acre_pressure_now(heap, &now), 0);
        if (now.level == level && (now.over_bytes > 0) == (level != ACRE_PRESSURE_NONE))
            return;
        pause_us(5000);
    }
    fail_msg("level %d, not %d, %llu bytes", (int)now.level, (int)level,
             (unsigned long long)now.over_bytes);
}

static void after_a_restart_the_level_is_of_the_limits_of_then(void **state)
{
    (void)state;
    struct acre_heap *heap = heap_open(&the_daemon, "a");
    void *block = acre_alloc(heap, 3 * MIB_1);
    assert_non_null(block);
    until_level(heap, ACRE_PRESSURE_NONE);
    restarts_with(CONFIG("16M\" high = \"1M"));
    until_level(heap, ACRE_PRESSURE_HIGH);
    restarts_with(CONFIG("16M"));
    until_level(heap, ACRE_PRESSURE_NONE);
    acre_free(heap, block);
    acre_close(heap);
}

static void without_a_daemon_it_rings_once_a_second(void **state)
{
    (void)state;
    pid_t pid = child_start(sleeps_on_idle_memory, NULL);
    until(&shared->n_ready, 1);
    pid_t worker = daemon_worker(&the_daemon);
    assert_int_equal(kill(the_daemon.pid, SIGKILL), 0);
    assert_int_equal(kill(worker, SIGKILL), 0);
    assert_int_equal(child_signal(the_daemon.pid), SIGKILL);
    until(&shared->n_away, 2);
    assert_true(shared->n_turns <= 12);
    ends(pid);
    daemon_remove(&the_daemon);
}

static int nothing(void **state)
{
    (void)state;
    return 0;
}

/* ---- forks, and closed descriptors ---- */

static struct acre_heap *the_heap;
static int the_fd;

static bool child_that_sleeps(void *arg)
{
    (void)arg;
    CHECK(acre_dispatch(the_heap) == 0);
    CHECK(fcntl(the_fd, F_GETFD) < 0 && errno == EBADF); /* its parent's */
    CHECK(holds_idle_memory(the_heap));
    CHECK(sleeps(the_heap));
    return true;
}

static void a_forked_child_has_a_descriptor_of_its_own(void **state)
{
    (void)state;
    skip_with_little_space();
    unsigned n_fds = pid_fds(getpid());
    the_heap = heap_open(&the_daemon, "a");
    the_fd = acre_fd(the_heap);
    assert_int_equal(acre_dispatch(the_heap), 0);
    pid_t pid = child_start(child_that_sleeps, NULL);
    until(&shared->n_ready, 1);
    struct acre_heap *heap = heap_open(&the_daemon, "b");
    pid_t raw = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (raw == 0) { /* no handler of libc's has closed anything */
        alarm(100);
        int own = acre_fd(the_heap);
        _exit(own > 0 && acre_dispatch(the_heap) == 0 ? 0 : 1);
    }
    assert_true(child_ok(raw));
    /* The parent's is as it was, and both give back. */
    void *block = NULL;
    for (unsigned i = 0; !block; i++) {
        assert_true(i < 1000);
        block = acre_alloc(heap, 10 * MIB_1);
        if (!block)
            assert_true(sleeps_once(the_heap, the_fd, 10));
    }
    ends(pid);
    assert_int_equal(acre_fd(the_heap), the_fd);
    acre_close(heap);
    acre_close(the_heap);
    assert_int_equal(pid_fds(getpid()), n_fds);
}

/* An epoll instance, and what is in it, as an event loop has them. */
static int an_other(unsigned i, const int *others)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 7};
    int fd = i % 2 == 0   ? epoll_create1(0)
             : i % 4 == 1 ? eventfd(0, 0)
                          : timerfd_create(CLOCK_MONOTONIC, 0);
    for (unsigned k = 0; k < i && i % 2; k += 2)
        if (epoll_ctl(others[k], EPOLL_CTL_ADD, fd, &event) < 0)
            return -1;
    return fd;
}

static bool closes_what_it_does_not_know(void *arg)
{
    struct acre_heap *heap;
    (void)arg;
    CHECK(acre_open(&heap, the_daemon.socket, "a") == 0);
    for (unsigned round = 0; round < 3; round++) {
        int fd = acre_fd(heap);
        CHECK(fd > 2 && acre_dispatch(heap) == 0);
        CHECK(close_range(3, ~0u, 0) == 0);
        int others[12], n_fds = (int)pid_fds(getpid()); /* of all kinds, with the same numbers */
        for (unsigned i = 0; i < 12; i++)
            CHECK((others[i] = an_other(i, others)) > 2);
        CHECK(acre_dispatch(heap) == 0);
        CHECK((int)pid_fds(getpid()) >= n_fds + 12);
        fd = acre_fd(heap);
        for (unsigned i = 0; i < 12; i++)
            CHECK(fd != others[i] && fcntl(others[i], F_GETFD) >= 0);
        CHECK(acre_dispatch(heap) == 0);
    }
    CHECK(holds_idle_memory(heap));
    CHECK(sleeps(heap));
    acre_close(heap);
    return true;
}

static void closed_descriptors_are_replaced_and_strangers_left_alone(void **state)
{
    (void)state;
    gives_to_another(closes_what_it_does_not_know);
}

/* Of the library's sockets to the daemon. */
static int close_connections(void)
{
    int n = 0;
    for (int fd = 3; fd < 1000; fd++) {
        int type = 0;
        socklen_t size = sizeof(type);
        if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_SEQPACKET)
            n += close(fd) == 0;
    }
    return n;
}

/* Another call has connected anew before anybody looks. */
static bool closes_the_connection(void *arg)
{
    struct acre_heap *heap;
    acre_off off;
    (void)arg;
    CHECK(acre_open(&heap, the_daemon.socket, "a") == 0);
    CHECK(holds_idle_memory(heap));
    int fd = acre_fd(heap);
    CHECK(acre_dispatch(heap) == 0);
    CHECK(close_connections() == 1);
    CHECK(acre_root_get(heap, "none", &off) == -ENOENT);
    CHECK(acre_fd(heap) == fd);
    CHECK(sleeps(heap));
    acre_close(heap);
    return true;
}

static void a_connection_that_was_closed_is_exchanged_in_it(void **state)
{
    (void)state;
    gives_to_another(closes_the_connection);
}

/* ---- who does not read ---- */

static void who_never_looks_neither_hurts_nor_is_hurt(void **state)
{
    (void)state;
    skip_with_little_space();
    struct acre_heap *heap = heap_open(&the_daemon, "h0");
    assert_true(acre_fd(heap) > 2);
    assert_int_equal(acre_dispatch(heap), 0); /* armed, and never again */
    void *mine = acre_alloc(heap, 100);
    gives_twice();
    acre_off off;
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(acre_root_get(heap, "none", &off), -ENOENT);
    acre_free(heap, mine);
    acre_close(heap);
}

struct raw {
    int sock;
    struct life_page *page;
};

static void raw_call(struct raw *r, struct msg_request *req, int fd)
{
    struct msg_reply reply;
    struct wire_call call = {.sock = r->sock, .deadline_ns = wire_now_ns() + 20000000000ull};
    assert_int_equal(wire_call(&call, req, fd, &reply, NULL), 0);
    assert_int_equal(reply.error, 0);
}

/* A client by hand. */
static struct raw raw_attach(const char *tenant)
{
    struct raw r;
    struct msg_request req = {.serial = 2, .op = MSG_ATTACH};
    int fd = memfd_create("life", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_true(fd >= 0 && ftruncate(fd, sizeof(*r.page)) == 0);
    r.page = mmap(NULL, sizeof(*r.page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_ptr_not_equal(r.page, MAP_FAILED);
    r.page->magic = LIFE_MAGIC;
    assert_int_equal(wire_hello(the_daemon.socket, wire_now_ns() + 20000000000ull, &r.sock, NULL),
                     0);
    strcpy(req.attach.tenant, tenant);
    raw_call(&r, &req, fd);
    close(fd);
    return r;
}

/* Replies and events until there are so many replies; returns how many events. */
static unsigned read_all(struct raw *r, unsigned n_replies)
{
    uint8_t buf[WIRE_PACKET_MAX];
    uint64_t last = 2;
    unsigned n_events = 0;
    for (unsigned n = 0; n < n_replies;) {
        struct msg_reply reply;
        size_t size;
        int fd;
        assert_int_equal(wire_recv(r->sock, buf, &size, &fd), 0);
        assert_int_equal(codec_unpack_reply(buf, size, &reply), 0);
        assert_int_equal(reply.error, 0);
        n_events += reply.serial == 0;
        n += reply.serial != 0;
        assert_true(reply.serial == 0 || reply.serial == ++last);
    }
    return n_events;
}

/* Each Watch is worth a reply and an event, which soon do not fit any more. */
static void who_asks_and_never_reads_fills_its_own_socket(void **state)
{
    (void)state;
    uint8_t buf[WIRE_PACKET_MAX];
    struct raw r = raw_attach("h0");
    struct msg_request req = {.serial = 2, .op = MSG_WATCH, .watch = {UINT32_MAX / 2}};
    unsigned n = 0, n_full = 0;
    while (n_full < 20) { /* the daemon has stopped reading */
        req.serial++;
        if (wire_send_now(r.sock, buf, codec_pack_request(&req, buf)) == 0) {
            n++;
            n_full = 0;
        } else {
            req.serial--;
            n_full++;
            pause_us(10000);
        }
    }
    gets_10_mib("b"); /* others are served */
    unsigned n_events = read_all(&r, n);
    assert_true(n > 100 && n_events > 0 && n_events <= n);
    /* It hears as before. */
    req = (struct msg_request){.serial = n + 3, .op = MSG_STATUS};
    raw_call(&r, &req, -1);
    close(r.sock);
    munmap(r.page, sizeof(*r.page));
}

/* ---- many heaps ---- */

static void each_heap_has_a_bell_of_its_own(void **state)
{
    (void)state;
    skip_with_little_space();
    struct acre_heap *heaps[HEAPS];
    struct pollfd fds[HEAPS];
    char name[8];
    for (unsigned i = 0; i < HEAPS; i++) {
        snprintf(name, sizeof(name), "h%u", i);
        heaps[i] = heap_open(&the_daemon, name);
        fds[i] = (struct pollfd){.fd = acre_fd(heaps[i]), .events = POLLIN};
        assert_int_equal(acre_dispatch(heaps[i]), 0);
        for (unsigned k = 0; k < i; k++)
            assert_int_not_equal(fds[k].fd, fds[i].fd);
    }
    for (unsigned i = 0; i < 100 && poll(fds, HEAPS, 20) > 0; i++) /* of what came meanwhile */
        for (unsigned k = 0; k < HEAPS; k++)
            assert_true(acre_dispatch(heaps[k]) >= 0);
    assert_int_equal(poll(fds, HEAPS, 100), 0);
    assert_true(holds_idle_memory(heaps[2]));
    struct acre_heap *heap = heap_open(&the_daemon, "b");
    void *block = NULL;
    for (unsigned i = 0; !block; i++) {
        assert_true(i < 1000);
        block = acre_alloc(heap, 10 * MIB_1);
        if (poll(fds, HEAPS, 10) <= 0)
            continue;
        for (unsigned k = 0; k < HEAPS; k++)
            if (fds[k].revents)
                assert_true(acre_dispatch(heaps[k]) >= 0);
    }
    acre_close(heap);
    for (unsigned i = 0; i < HEAPS; i++)
        acre_close(heaps[i]);
}

/* ---- the callback ---- */

struct told {
    unsigned n;
    struct acre_pressure last;
};

/* It may do what it likes with the heap. */
static void on_pressure(struct acre_heap *heap, const struct acre_pressure *pressure, void *ctx)
{
    struct told *told = ctx;
    told->n++;
    told->last = *pressure;
    char *large = acre_alloc(heap, 2 * MIB_1), *small = acre_alloc(heap, 50);
    assert_true(large && small);
    large[0] = small[0] = 'x';
    acre_free(heap, large);
    acre_free(heap, small);
    assert_int_equal(acre_trim(heap), 0);
    assert_true(acre_fd(heap) > 2);
    assert_true(acre_dispatch(heap) >= 0);
}

static void reload(const char *config)
{
    char command[256];
    FILE *f = fopen(the_daemon.config, "w");
    assert_non_null(f);
    assert_true(fputs(config, f) >= 0);
    assert_int_equal(fclose(f), 0);
    snprintf(command, sizeof(command), "%s reload --socket %s", getenv("ACRECTL"),
             the_daemon.socket);
    assert_int_equal(system(command), 0);
}

static void until_told(struct acre_heap *heap, int fd, const struct told *told, unsigned n)
{
    for (unsigned i = 0; told->n < n; i++) {
        assert_true(i < 1000);
        assert_true(sleeps_once(heap, fd, 20));
    }
}

static void the_callback_is_told_what_has_changed_and_may_allocate(void **state)
{
    (void)state;
    struct told told = {0};
    struct acre_pressure now = {.size = sizeof(now)};
    struct acre_heap *heap = heap_open(&the_daemon, "a");
    assert_int_equal(acre_on_pressure(heap, on_pressure, &told), 0);
    int fd = acre_fd(heap);
    assert_true(sleeps_once(heap, fd, 1000));
    assert_int_equal(told.n, 0);
    reload(CONFIG("12M"));
    until_told(heap, fd, &told, 1);
    assert_int_equal(told.last.max_bytes, 12 * MIB_1);
    assert_int_equal(told.last.size, sizeof(told.last));
    assert_int_equal(told.last.level, ACRE_PRESSURE_NONE);
    assert_int_equal(acre_pressure_now(heap, &now), 0);
    assert_int_equal(now.max_bytes, 12 * MIB_1);
    assert_true(now.used_bytes > 0);
    assert_true(sleeps_once(heap, fd, 200));
    assert_int_equal(acre_dispatch(heap), 0);
    assert_int_equal(told.n, 1);
    void *block = acre_alloc(heap, 100); /* in a segment of 4 MiB */
    assert_non_null(block);
    reload(CONFIG("12M\" high = \"1M"));
    until_told(heap, fd, &told, 2);
    assert_int_equal(told.last.level, ACRE_PRESSURE_HIGH);
    assert_int_equal(told.last.high_bytes, MIB_1);
    assert_int_equal(told.last.over_bytes, told.last.used_bytes - MIB_1);
    acre_free(heap, block);
    unsigned n = told.n;
    assert_int_equal(acre_on_pressure(heap, NULL, NULL), 0);
    reload(CONFIG("16M"));
    assert_true(sleeps_once(heap, fd, 200));
    assert_int_equal(told.n, n);
    acre_close(heap);
}

static void count_calls(struct acre_heap *heap, const struct acre_pressure *pressure, void *ctx)
{
    (void)heap;
    (void)pressure;
    ++*(unsigned *)ctx;
}

static void hears_each_single_event(const char *socket, unsigned n_rounds)
{
    pthread_t threads[2];
    void *failed;
    unsigned n = 0;
    struct acre_heap *heap = heap_open_at(socket, "a");
    assert_int_equal(acre_on_pressure(heap, count_calls, &n), 0);
    int fd = acre_fd(heap);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, calls_all_the_time, heap), 0);
    for (unsigned round = 1; round <= n_rounds; round++) {
        reload(round % 2 ? CONFIG("12M") : CONFIG("16M"));
        for (unsigned i = 0; n < round; i++) {
            assert_true(i < 3000); /* on a busy machine the lock is often taken */
            assert_true(sleeps_once(heap, fd, 300));
        }
    }
    shared->is_done = 1;
    for (unsigned i = 0; i < 2; i++)
        assert_true(pthread_join(threads[i], &failed) == 0 && !failed);
    assert_int_equal(n, n_rounds);
    acre_close(heap);
}

/* One ring each, which the threads' calls take. */
static void a_single_event_is_heard_beside_threads_that_call(void **state)
{
    (void)state;
    hears_each_single_event(the_daemon.socket, 20);
}

static bool dawdle(bool is_reply)
{
    if (is_reply)
        pause_us((uint64_t)shared->slow_us);
    return true;
}

/* Somebody has the lock nearly always, and for longer than anybody waits for it. */
static void and_beside_threads_whose_calls_take_long(void **state)
{
    (void)state;
    const char *socket = between_up(dawdle);
    shared->slow_us = 10000;
    hears_each_single_event(socket, 20);
    between_down();
}

static void what_makes_no_sense_is_refused(void **state)
{
    (void)state;
    skip_with_little_space();
    struct acre_pressure now = {.size = sizeof(now) - 1};
    struct acre_options o = {
        .size = sizeof(o), .address = the_daemon.socket, .tenant = "a", .flags = ACRE_READ_ONLY};
    struct acre_heap *heap = heap_open(&the_daemon, "a"), *reader;
    assert_int_equal(acre_pressure_now(heap, NULL), -EINVAL);
    assert_int_equal(acre_pressure_now(heap, &now), -EINVAL);
    assert_int_equal(acre_open_with(&reader, &o), 0);
    now.size = sizeof(now);
    assert_int_equal(acre_pressure_now(reader, &now), 0);
    assert_int_equal(now.max_bytes, 16 * MIB_1);
    assert_int_equal(acre_fd(reader), -EPERM);
    assert_int_equal(acre_dispatch(reader), -EPERM);
    assert_int_equal(acre_on_pressure(reader, on_pressure, NULL), -EPERM);
    errno = 77;
    assert_int_equal(acre_dispatch(heap), 0); /* without a descriptor */
    assert_true(acre_fd(heap) > 2);
    assert_int_equal(acre_dispatch(heap), 0);
    assert_int_equal(errno, 77);
    acre_close(reader);
    acre_close(heap);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, up, harness_down)
    const struct CMUnitTest tests[] = {
        TEST(who_sleeps_on_idle_memory_gives_it_back),
        TEST(and_gives_it_back_again),
        TEST(the_descriptor_is_silent_while_nothing_happens),
        TEST(what_another_threads_call_has_taken_is_not_lost),
        TEST(nobody_waits_in_dispatch_for_another_threads_call),
        TEST(after_a_restart_the_descriptor_is_good_as_before),
        TEST(after_a_restart_the_level_is_of_the_limits_of_then),
        cmocka_unit_test_setup_teardown(without_a_daemon_it_rings_once_a_second, up, nothing),
        TEST(a_forked_child_has_a_descriptor_of_its_own),
        TEST(closed_descriptors_are_replaced_and_strangers_left_alone),
        TEST(a_connection_that_was_closed_is_exchanged_in_it),
        TEST(who_never_looks_neither_hurts_nor_is_hurt),
        TEST(who_asks_and_never_reads_fills_its_own_socket),
        TEST(each_heap_has_a_bell_of_its_own),
        TEST(the_callback_is_told_what_has_changed_and_may_allocate),
        TEST(a_single_event_is_heard_beside_threads_that_call),
        TEST(and_beside_threads_whose_calls_take_long),
        TEST(what_makes_no_sense_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
