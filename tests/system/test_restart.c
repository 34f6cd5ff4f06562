/* SPDX-License-Identifier: Apache-2.0 */
/* ctest-timeout: 300 */
/* The daemon's worker is killed: idle, under load, while clients die. What clients hold they go on
 * using, and nothing is lost. $ACRE_TEST_KILLS: how often under load. */
#include "tests/system/harness.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

#define N_WORKERS 3
#define KILLS     40u
#define WAITS     4096u
#define PAUSE_US  80000u /* at most, between deaths: 1,000 of them while children may live */
#define BLOCKS    200

/* Returns when the next one is there. */
static void kill_worker(void)
{
    pid_t worker = daemon_worker(&the_daemon);
    assert_int_equal(kill(worker, SIGKILL), 0);
    while (daemon_worker(&the_daemon) == worker)
        pause_us(200);
}

static void upgrade(const struct daemon *on)
{
    char command[256];
    snprintf(command, sizeof(command), "%s upgrade --socket %s", getenv("ACRECTL"), on->socket);
    assert_int_equal(system(command), 0);
}

/* ---- nothing else happens ---- */

static void blocks_roots_and_budgets_are_what_they_were(void **state)
{
    (void)state;
    struct acre_heap *heap = heap_open(&the_daemon, NULL);
    char *small = acre_alloc(heap, 100), *large = acre_alloc(heap, 3 << 20);
    char *huge = acre_alloc(heap, 100 << 20), *theirs = acre_allocx(heap, 500, 0, ACRE_HEAP_OWNED);
    strcpy(small, "small");
    strcpy(large + (2 << 20), "large");
    strcpy(huge + (99 << 20), "huge");
    assert_int_equal(acre_root_set(heap, "small", acre_offset(heap, small)), 0);
    struct tenant_stats before = tenant_stats(&the_daemon, "default");
    (void)tenant_stats(&the_daemon, "other"); /* opens its heap, as the checks below do */
    unsigned fds = daemon_fds(&the_daemon), maps = daemon_maps(&the_daemon);
    for (int i = 0; i < 3; i++) {
        kill_worker();
        acre_off off;
        assert_int_equal(acre_root_get(heap, "small", &off), 0); /* comes back by itself */
        assert_ptr_equal(acre_pointer(heap, off), small);
        struct tenant_stats after = tenant_stats(&the_daemon, "default");
        assert_int_equal(after.n_clients, 1);
        assert_int_equal(after.live_bytes, before.live_bytes);
        assert_int_equal(after.granted_bytes, before.granted_bytes);
        assert_int_equal(after.published_bytes, before.published_bytes);
        assert_int_equal(after.max_bytes, before.max_bytes);
        expect_checked(&the_daemon);
    }
    for (unsigned i = 0; i < 300 && daemon_fds(&the_daemon) > fds + 2; i++)
        pause_us(10000); /* whoever looked just now has not been closed yet */
    assert_true(daemon_fds(&the_daemon) <= fds + 2); /* what libuv keeps varies */
    assert_int_equal(daemon_maps(&the_daemon), maps);
    assert_string_equal(small, "small");
    assert_string_equal(large + (2 << 20), "large");
    assert_string_equal(huge + (99 << 20), "huge");
    assert_int_equal(acre_root_del(heap, "small"), 0);
    acre_free(heap, small);
    acre_free(heap, large);
    acre_free(heap, huge);
    acre_free(heap, theirs);
    acre_close(heap);
    expect_settled(&the_daemon, "default", 0, 0);
}

static bool publishes_and_ends(void *arg)
{
    struct acre_heap *heap;
    acre_off *offs = arg;
    CHECK(acre_open(&heap, the_daemon.socket, NULL) == 0);
    for (int i = 0; i < 100; i++) {
        char *block = acre_alloc(heap, (size_t)(i < 90 ? 200 : 200000));
        CHECK(block != NULL);
        *(int *)(void *)block = i;
        if (i % 10 == 0)
            CHECK(acre_publish(heap, block) == 0);
        offs[i] = acre_offset(heap, block);
    }
    kill(getpid(), SIGKILL);
    return true;
}

static void what_the_dead_have_published_survives_both_deaths(void **state)
{
    (void)state;
    acre_off *offs = shared_page(4096);
    assert_int_equal(child_signal(child_start(publishes_and_ends, offs)), SIGKILL);
    expect_settled(&the_daemon, "default", 9 * 224 + 204800, 0);
    kill_worker();
    expect_checked(&the_daemon);
    struct acre_heap *heap = heap_open(&the_daemon, NULL);
    for (int i = 0; i < 100; i += 10) {
        int *block = acre_pointer(heap, offs[i]);
        assert_int_equal(*block, i);
        assert_int_equal(acre_owner(heap, block), ACRE_OWNER_HEAP);
        acre_free(heap, block);
    }
    /* The parked slabs serve again. */
    for (int i = 0; i < 1000; i++)
        assert_non_null(acre_alloc(heap, 200));
    acre_close(heap);
    expect_settled(&the_daemon, "default", 0, 0);
}

static bool waits_to_be_killed(void *arg)
{
    struct acre_heap *heap;
    _Atomic int *n_ready = arg;
    CHECK(acre_open(&heap, the_daemon.socket, NULL) == 0);
    CHECK(acre_alloc(heap, 1000) && acre_alloc(heap, 1 << 20));
    (*n_ready)++;
    for (;;)
        pause();
    return true;
}

static void who_dies_while_there_is_no_daemon_is_found(void **state)
{
    (void)state;
    _Atomic int *n_ready = shared_page(4096);
    pid_t pids[6];
    for (int i = 0; i < 6; i++)
        pids[i] = child_start(waits_to_be_killed, (void *)n_ready);
    while (*n_ready < 6)
        pause_us(1000);
    long long live_bytes = tenant_stats(&the_daemon, "default").live_bytes;
    kill(the_daemon.pid, SIGSTOP); /* so that no worker is started meanwhile */
    assert_int_equal(kill(daemon_worker(&the_daemon), SIGKILL), 0);
    for (int i = 0; i < 4; i++) {
        kill(pids[i], SIGKILL);
        assert_int_equal(child_signal(pids[i]), SIGKILL);
    }
    kill(the_daemon.pid, SIGCONT);
    expect_settled(&the_daemon, "default", live_bytes / 3, 2);
    for (int i = 4; i < 6; i++) {
        kill(pids[i], SIGKILL);
        assert_int_equal(child_signal(pids[i]), SIGKILL);
    }
    expect_settled(&the_daemon, "default", 0, 0);
}

/* ---- under load ---- */

struct load {
    _Atomic bool stop;
    _Atomic unsigned n_calls, n_waits;
    uint32_t waits_us[WAITS]; /* of calls that need the daemon: of the longer ones the last */
};

static uint64_t now_us(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

/* Longer than any call takes that no death has met. */
static void note_wait(struct load *load, uint64_t from_us)
{
    uint64_t us = now_us() - from_us;
    if (us >= 10000)
        load->waits_us[load->n_waits++ % WAITS] = (uint32_t)us;
}

static int compare_waits(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void print_waits(struct load *load)
{
    unsigned n = load->n_waits < WAITS ? load->n_waits : WAITS;
    qsort(load->waits_us, n, sizeof(load->waits_us[0]), compare_waits);
    if (n > 0)
        printf("%u calls waited 10 ms or more: median %.1f ms, the longest %.1f ms\n",
               load->n_waits, load->waits_us[n / 2] / 1e3, load->waits_us[n - 1] / 1e3);
}

static void fill(unsigned char *block, size_t size, unsigned char value)
{
    block[0] = block[size - 1] = value;
    block[size / 2] = value;
}

static bool is_filled(const unsigned char *block, size_t size, unsigned char value)
{
    return block[0] == value && block[size - 1] == value && block[size / 2] == value;
}

static size_t any_size(uint64_t *seed)
{
    uint64_t r = rnd(seed);
    return r % 16 == 0 ? 70000 + r % 3000000 : 16 + r / 16 % 20000;
}

/* A root that nobody else uses: each call must say what happens to it, also if it was repeated. */
static bool sets_and_deletes(struct acre_heap *heap, const void *block, bool by_cas)
{
    char name[32];
    acre_off off = acre_offset(heap, block), got;
    snprintf(name, sizeof(name), "of %d", (int)getpid());
    CHECK(acre_root_cas(heap, name, 0, off) == 0);
    CHECK(acre_root_get(heap, name, &got) == 0 && got == off);
    CHECK((by_cas ? acre_root_cas(heap, name, off, 0) : acre_root_del(heap, name)) == 0);
    CHECK(acre_root_get(heap, name, &got) == -ENOENT);
    return true;
}

static bool works(void *arg)
{
    struct load *load = arg;
    struct acre_heap *heap;
    uint64_t seed = (uint64_t)getpid() * 7919;
    unsigned char *block[BLOCKS] = {0};
    size_t size[BLOCKS];
    CHECK(acre_open(&heap, the_daemon.socket, NULL) == 0);
    while (!load->stop) {
        uint64_t from_us = now_us();
        unsigned i = (unsigned)(rnd(&seed) % BLOCKS);
        if (block[i]) {
            CHECK(is_filled(block[i], size[i], (unsigned char)i));
            acre_free(heap, block[i]);
            block[i] = NULL;
        } else {
            size[i] = any_size(&seed);
            block[i] = acre_alloc(heap, size[i]);
            CHECK(block[i] != NULL);
            fill(block[i], size[i], (unsigned char)i);
        }
        if (rnd(&seed) % 512 == 0)
            CHECK(acre_trim(heap) == 0);
        if (block[i] && rnd(&seed) % 256 == 0)
            CHECK(acre_root_set(heap, "latest", acre_offset(heap, block[i])) == 0);
        if (block[i] && rnd(&seed) % 64 == 0)
            CHECK(sets_and_deletes(heap, block[i], rnd(&seed) % 2));
        load->n_calls++;
        note_wait(load, from_us);
    }
    for (unsigned i = 0; i < BLOCKS; i++)
        acre_free(heap, block[i]);
    acre_close(heap);
    return true;
}

/* What comes and goes, and sometimes is killed. */
static bool visits(void *arg)
{
    struct acre_heap *heap;
    (void)arg;
    for (;;) {
        CHECK(acre_open(&heap, the_daemon.socket, NULL) == 0);
        for (int i = 0; i < 20; i++)
            CHECK(acre_alloc(heap, 5000) != NULL);
        acre_close(heap);
    }
    return true;
}

static void under_load_no_call_fails_and_nothing_is_lost(void **state)
{
    (void)state;
    struct load *load = shared_page(sizeof(*load));
    const char *env = getenv("ACRE_TEST_KILLS");
    unsigned kills = env ? (unsigned)strtoul(env, NULL, 10) : KILLS;
    uint64_t seed = test_seed(20261125);
    pid_t pids[N_WORKERS], visitor = child_start(visits, NULL);
    for (int i = 0; i < N_WORKERS; i++)
        pids[i] = child_start(works, load);
    for (unsigned k = 0; k < kills; k++) {
        pause_us(rnd(&seed) % PAUSE_US);
        if (k % 8 == 4)
            upgrade(&the_daemon);
        else
            kill_worker();
        if (k % (kills / 5 + 1) == 0)
            expect_checked(&the_daemon);
        if (k % 4 == 0) {
            assert_int_equal(kill(visitor, SIGKILL), 0);
            assert_int_equal(child_signal(visitor), SIGKILL);
            visitor = child_start(visits, NULL);
        }
    }
    load->stop = true;
    for (int i = 0; i < N_WORKERS; i++)
        assert_true(child_ok(pids[i]));
    assert_int_equal(kill(visitor, SIGKILL), 0);
    assert_int_equal(child_signal(visitor), SIGKILL);
    struct acre_heap *heap = heap_open(&the_daemon, NULL);
    (void)acre_root_del(heap, "latest");
    acre_close(heap);
    expect_settled(&the_daemon, "default", 0, 0);
    printf("%u rounds beside %u deaths of the daemon\n", load->n_calls, kills);
    print_waits(load);
    for (unsigned tries = 0; tenant_stats(&the_daemon, "default").granted_bytes != 0; tries++) {
        assert_true(tries < 400);
        pause_us(50000);
    }
}

/* ---- what has changed meanwhile ---- */

struct turns {
    _Atomic int n; /* the parent's turn while odd */
};

static void pass_turn(struct turns *turns)
{
    int mine = ++turns->n;
    while (turns->n == mine)
        pause_us(1000);
}

static bool drops_its_privileges(void *arg)
{
    struct acre_heap *heap;
    CHECK(acre_open(&heap, the_daemon.socket, NULL) == 0);
    CHECK(chmod(the_daemon.dir, 0755) == 0 && setresuid(65534, 65534, 65534) == 0);
    pass_turn(arg);
    CHECK(acre_alloc(heap, 20 << 20) != NULL);
    acre_close(heap);
    return true;
}

/* As servers do: what was opened before belongs to who may not open it. */
static void who_has_dropped_its_privileges_comes_back(void **state)
{
    (void)state;
    struct turns *turns = shared_page(sizeof(*turns));
    if (geteuid() != 0)
        skip();
    pid_t pid = child_start(drops_its_privileges, turns);
    while (turns->n % 2 == 0)
        pause_us(1000);
    kill_worker();
    turns->n++;
    assert_true(child_ok(pid));
}

/* Joins a new memory cgroup with that limit; its path for remove_cgroup(). False: there are
 * none. */
static bool join_cgroup(char path[96], const char *limit)
{
    char file[128];
    snprintf(path, 96, "/sys/fs/cgroup/memory/acre-test-%d", (int)getpid());
    if (mkdir(path, 0755) < 0)
        return false;
    snprintf(file, sizeof(file), "%s/memory.limit_in_bytes", path);
    FILE *f = fopen(file, "w");
    bool is_done = f && fputs(limit, f) >= 0 && fclose(f) == 0;
    snprintf(file, sizeof(file), "%s/cgroup.procs", path);
    f = is_done ? fopen(file, "w") : NULL;
    return f && fputs("0", f) >= 0 && fclose(f) == 0;
}

struct in_cgroup {
    struct turns turns;
    _Atomic bool is_there;
    char path[96];
};

static bool fills_more_than_its_cgroup_has(void *arg)
{
    struct in_cgroup *in = arg;
    struct acre_heap *heap;
    in->is_there = join_cgroup(in->path, "32M");
    CHECK(!in->is_there ||
          acre_open(&heap, the_daemon.socket, "other") == 0); /* no page was used */
    pass_turn(&in->turns);
    if (!in->is_there)
        return true;
    char *block = acre_alloc(heap, 100 << 20);
    CHECK(block != NULL);
    memset(block, 1, 100 << 20);
    acre_close(heap);
    return true;
}

/* The daemon makes its pages: the kernel would kill who touches them first. */
static void who_lives_in_another_cgroup_still_does_after_a_restart(void **state)
{
    (void)state;
    struct in_cgroup *in = shared_page(sizeof(*in));
    pid_t pid = child_start(fills_more_than_its_cgroup_has, in);
    while (in->turns.n % 2 == 0)
        pause_us(1000);
    if (in->is_there)
        kill_worker();
    in->turns.n++;
    bool is_ok = child_ok(pid);
    (void)rmdir(in->path);
    assert_true(is_ok);
    if (!in->is_there)
        skip();
}

static void a_tenant_that_the_configuration_forgets_keeps_its_heap(void **state)
{
    (void)state;
    struct acre_heap *heap, *none;
    acre_off off;
    struct daemon saved = the_daemon;
    daemon_up(&the_daemon, "tenant \"a\" { max = \"64M\" }\n"
                           "tenant \"b\" { max = \"64M\" users = {\"*\"} }\n");
    heap = heap_open(&the_daemon, "b");
    char *text = acre_alloc(heap, 100);
    strcpy(text, "of b");
    assert_int_equal(acre_root_set(heap, "text", acre_offset(heap, text)), 0);
    FILE *f = fopen(the_daemon.config, "w");
    assert_true(f && fputs("tenant \"a\" { max = \"64M\" }\n", f) >= 0 && fclose(f) == 0);
    for (int i = 0; i < 2; i++) {
        kill_worker();
        assert_int_equal(acre_root_get(heap, "text", &off), 0);
        assert_ptr_equal(acre_pointer(heap, off), text);
    }
    assert_null(acre_alloc(heap, 20 << 20)); /* its max is what it has */
    assert_int_equal(errno, ENOMEM);
    assert_int_equal(acre_open(&none, the_daemon.socket, "c"), -ENOENT);
    assert_int_equal(acre_root_del(heap, "text"), 0);
    acre_free(heap, text);
    acre_close(heap);
    expect_settled(&the_daemon, "b", 0, 0);
    daemon_down(&the_daemon);
    the_daemon = saved;
}

/* ---- who goes with whom ---- */

static bool is_refused(void *arg)
{
    struct acre_heap *heap;
    (void)arg;
    CHECK(acre_open(&heap, the_daemon.socket, NULL) == -EIO);
    CHECK(strstr(acre_last_error(), "cannot be kept"));
    return true;
}

static void who_cannot_be_kept_is_refused_and_nobody_else_notices(void **state)
{
    (void)state;
    struct acre_heap *heap = heap_open(&the_daemon, "other");
    struct rlimit limit, few;
    acre_off off;
    assert_int_equal(prlimit(the_daemon.pid, RLIMIT_NOFILE, NULL, &limit), 0);
    few = (struct rlimit){3, limit.rlim_max}; /* as much as it has open in any case */
    assert_int_equal(prlimit(the_daemon.pid, RLIMIT_NOFILE, &few, NULL), 0);
    RUN_CHILD(is_refused, NULL);
    assert_null(acre_alloc(heap, 300 << 20)); /* a new segment cannot be kept either */
    assert_int_equal(prlimit(the_daemon.pid, RLIMIT_NOFILE, &limit, NULL), 0);
    void *block = acre_alloc(heap, 300 << 20);
    assert_non_null(block);
    kill_worker();
    assert_int_equal(acre_root_get(heap, "none", &off), -ENOENT);
    assert_int_equal(tenant_stats(&the_daemon, "other").n_clients, 1);
    acre_free(heap, block);
    acre_close(heap);
    expect_settled(&the_daemon, "other", 0, 0);
}

static void the_worker_ends_with_its_keeper(void **state)
{
    (void)state;
    struct daemon one;
    daemon_up(&one, NULL);
    pid_t worker = daemon_worker(&one);
    kill(one.pid, SIGKILL);
    assert_int_equal(waitpid(one.pid, NULL, 0), one.pid);
    while (kill(worker, 0) == 0)
        pause_us(1000); /* reaped by init */
    assert_false(harness_listens(one.socket));
    daemon_remove(&one);
}

/* ---- another program ---- */

static bool copy(const char *from, const char *to)
{
    char command[512];
    snprintf(command, sizeof(command), "cp %s %s.new && mv %s.new %s", from, to, to, to);
    return system(command) == 0;
}

static void an_upgrade_takes_over_and_a_broken_one_is_taken_back(void **state)
{
    (void)state;
    struct daemon one;
    char program[80];
    const char *acred = getenv("ACRE_DAEMON");
    char *kept = strdup(acred);
    snprintf(program, sizeof(program), "%s-upgrade", the_daemon.dir);
    assert_true(copy(kept, program));
    setenv("ACRE_DAEMON", program, 1);
    daemon_up(&one, NULL);
    struct acre_heap *heap = heap_open(&one, NULL);
    char *text = acre_alloc(heap, 100);
    strcpy(text, "upgraded");
    assert_int_equal(acre_root_set(heap, "text", acre_offset(heap, text)), 0);
    acre_off off;
    for (int i = 0; i < 3; i++) {
        /* The same, what is no acred, nothing at all. */
        assert_true(i == 0   ? copy(kept, program)
                    : i == 1 ? copy("/bin/false", program)
                             : unlink(program) == 0);
        pid_t worker = daemon_worker(&one);
        upgrade(&one);
        assert_int_not_equal(daemon_worker(&one), worker);
        assert_int_equal(acre_root_get(heap, "text", &off), 0);
        assert_string_equal(acre_pointer(heap, off), "upgraded");
        assert_non_null(acre_alloc(heap, 20 << 20));
        expect_checked(&one);
    }
    acre_close(heap);
    setenv("ACRE_DAEMON", kept, 1);
    free(kept);
    daemon_down(&one);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_roots_and_budgets_are_what_they_were),
        cmocka_unit_test(what_the_dead_have_published_survives_both_deaths),
        cmocka_unit_test(who_dies_while_there_is_no_daemon_is_found),
        cmocka_unit_test(under_load_no_call_fails_and_nothing_is_lost),
        cmocka_unit_test(who_has_dropped_its_privileges_comes_back),
        cmocka_unit_test(who_lives_in_another_cgroup_still_does_after_a_restart),
        cmocka_unit_test(a_tenant_that_the_configuration_forgets_keeps_its_heap),
        cmocka_unit_test(who_cannot_be_kept_is_refused_and_nobody_else_notices),
        cmocka_unit_test(the_worker_ends_with_its_keeper),
        cmocka_unit_test(an_upgrade_takes_over_and_a_broken_one_is_taken_back),
    };
    return run_beside_daemon(
        tests, "capacity = \"2G\"\ntenant \"default\" { max = \"1G\" }\ntenant \"other\" { max "
               "= \"512M\" }\n");
}
