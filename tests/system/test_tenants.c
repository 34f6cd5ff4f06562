/* SPDX-License-Identifier: Apache-2.0 */
/* Many users of one memory: promises (min), groups, limits that change while all are at work, who
 * may do what, and users' own tenants. */
#include "tests/system/harness.h"

#include <jansson.h>
#include <poll.h>
#include <sys/stat.h>

#define MIB   (1u << 20)
#define PIECE (256u << 10)
#define MANY  400

/* ---- helpers ---- */

/* So many pieces as there are, at most n. */
static int take(struct acre_heap *heap, void **blocks, int n)
{
    int i = 0;
    while (i < n && (blocks[i] = acre_alloc(heap, PIECE)))
        i++;
    return i;
}

static void give_all_back(struct acre_heap *heap, void **blocks, int n)
{
    while (n > 0)
        acre_free(heap, blocks[--n]);
    assert_int_equal(acre_trim(heap), 0);
}

static void write_down(const char *text)
{
    FILE *f = fopen(the_daemon.config, "w");
    assert_true(f && fputs(text, f) >= 0 && fclose(f) == 0);
}

static void configure(const char *text)
{
    write_down(text);
    assert_int_equal(kill(the_daemon.pid, SIGHUP), 0);
}

/* What acrectl says to this user at first, and its exit code. */
static int acrectl_as(uid_t uid, const char *what, char *ret_said, int n_said)
{
    char command[300];
    snprintf(command, sizeof(command), "setpriv --reuid %u -- %s %s --socket %s 2>&1",
             (unsigned)uid, getenv("ACRECTL"), what, the_daemon.socket);
    FILE *p = popen(command, "r");
    ret_said[0] = 0;
    assert_non_null(p);
    if (fgets(ret_said, n_said, p))
        while (fgetc(p) != EOF)
            ;
    int status = pclose(p);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void expect_said(uid_t uid, const char *what, int code, const char *words)
{
    char said[400];
    int r = acrectl_as(uid, what, said, sizeof(said));
    if (r != code || !strstr(said, words))
        fail_msg("%s by user %u: %d, and said: %s", what, (unsigned)uid, r, said);
}

/* A figure of `acrectl status` for a tenant; -1: there is no such tenant. */
static long long figure(const char *tenant, const char *key)
{
    json_t *status = acrectl_json(&the_daemon, "status"), *t;
    long long value = -1;
    size_t i;
    json_array_foreach(json_object_get(status, "memory"), i,
                       t) if (strcmp(json_string_value(json_object_get(t, "name")), tenant) == 0)
        value = json_integer_value(json_object_get(t, key));
    json_decref(status);
    return value;
}

static void expect_figure(const char *tenant, const char *key, long long value)
{
    for (unsigned tries = 0; figure(tenant, key) != value; tries++) {
        if (tries == 400)
            fail_msg("%s of %s is %lld, not %lld", key, tenant, figure(tenant, key), value);
        pause_us(20000);
    }
}

static int each_down(void **state)
{
    (void)state;
    daemon_down(&the_daemon);
    return 0;
}

/* ---- promises and groups ---- */

static void a_min_is_there_whatever_others_have_taken(void **state)
{
    static void *ours[MANY], *theirs[MANY];
    (void)state;
    daemon_up(&the_daemon, "capacity = \"64M\"\n"
                           "tenant \"promised\" { max = \"64M\" min = \"24M\" }\n"
                           "tenant \"greedy\" { max = \"64M\" ready = \"40M\" }\n");
    struct acre_heap *greedy = heap_open(&the_daemon, "greedy");
    int n_theirs = take(greedy, theirs, MANY);
    assert_in_range(n_theirs, 4 * 36, 4 * 40);
    struct acre_heap *heap = heap_open(&the_daemon, "promised");
    int n_ours = take(heap, ours, MANY);
    assert_in_range(n_ours, 4 * 21, 4 * 24);
    assert_int_equal(errno, ENOMEM);
    assert_null(acre_alloc(greedy, PIECE));
    give_all_back(heap, ours, n_ours);
    assert_null(acre_alloc(greedy, 2 * PIECE)); /* it stays promised */
    give_all_back(greedy, theirs, n_theirs);
    acre_close(heap);
    acre_close(greedy);
}

static void a_group_shares_one_max(void **state)
{
    static void *ours[MANY], *theirs[MANY];
    (void)state;
    daemon_up(&the_daemon, "capacity = \"256M\"\n"
                           "tenant \"team/a\" { max = \"32M\" }\n"
                           "tenant \"team/b\" { max = \"32M\" min = \"8M\" }\n"
                           "tenant \"team\" { max = \"32M\" }\n");
    struct acre_heap *heap, *a = heap_open(&the_daemon, "team/a");
    struct acre_heap *b = heap_open(&the_daemon, "team/b");
    int n_ours = take(a, ours, MANY);
    assert_in_range(n_ours, 4 * 21, 4 * 24);
    int n_theirs = take(b, theirs, MANY);
    assert_in_range(n_theirs, 4 * 6, 4 * 8);
    assert_true(figure("team", "sealed_bytes") <= 32 * MIB);
    assert_int_equal(figure("team", "sealed_bytes"),
                     figure("team/a", "sealed_bytes") + figure("team/b", "sealed_bytes"));
    assert_int_equal(acre_open(&heap, the_daemon.socket, "team"), -ENOENT);
    assert_non_null(strstr(acre_last_error(), "is a group"));
    give_all_back(a, ours, n_ours);
    give_all_back(b, theirs, n_theirs);
    acre_close(a);
    acre_close(b);
}

/* ---- limits that change ---- */

static void a_max_is_lowered_and_raised_while_its_memory_is_used(void **state)
{
    static void *blocks[MANY];
    (void)state;
    daemon_up(&the_daemon, "capacity = \"256M\"\ntenant \"a\" { max = \"64M\" }\n");
    struct acre_heap *heap = heap_open(&the_daemon, "a");
    int n = take(heap, blocks, 120);
    assert_int_equal(n, 120);
    for (int i = 0; i < n; i++)
        memset(blocks[i], i, PIECE);
    configure("capacity = \"256M\"\ntenant \"a\" { max = \"8M\" }\n");
    expect_figure("a", "max_bytes", 8 << 20);
    assert_null(acre_alloc(heap, 40u << 20));
    assert_int_equal(errno, ENOMEM);
    assert_non_null(strstr(acre_last_error(), "it has 32768 KiB of its max of 8192 KiB"));
    for (int i = 0; i < n; i++)
        assert_int_equal(((unsigned char *)blocks[i])[PIECE - 1], i);
    kill(daemon_worker(&the_daemon), SIGKILL); /* the next one finds more than max, too */
    expect_figure("a", "max_bytes", 8 << 20);
    assert_null(acre_alloc(heap, 40u << 20));
    expect_checked(&the_daemon);
    configure("capacity = \"256M\"\ntenant \"a\" { max = \"128M\" }\n");
    expect_figure("a", "max_bytes", 128 << 20);
    void *large = acre_alloc(heap, 40u << 20);
    assert_non_null(large);
    acre_free(heap, large);
    give_all_back(heap, blocks, n);
    acre_close(heap);
}

static void limits_are_set_while_it_runs_until_the_configuration_is_read_again(void **state)
{
    static void *blocks[MANY];
    (void)state;
    const char *config = "capacity = \"256M\"\ntenant \"a\" { max = \"64M\" }\n"
                         "tenant \"b\" { max = \"230M\" min = \"200M\" }\n";
    daemon_up(&the_daemon, config);
    struct acre_heap *heap = heap_open(&the_daemon, "a");
    struct acre_pressure now = {.size = sizeof(now)};
    int n = take(heap, blocks, 120);
    expect_said(0, "tenant set a max=8M high=4M weight=7", 0, "a: max 8.0 MiB, has 32.0 MiB");
    assert_int_equal(acre_pressure_now(heap, &now), 0);
    assert_int_equal(now.max_bytes, 8 << 20);
    assert_null(acre_alloc(heap, 40u << 20));
    kill(daemon_worker(&the_daemon), SIGKILL); /* the next one knows */
    expect_figure("a", "max_bytes", 8 << 20);
    expect_figure("a", "high_bytes", 4 << 20);
    expect_figure("a", "weight", 7);
    expect_figure("a", "over_bytes", 24 << 20);
    assert_int_equal(acre_pressure_now(heap, &now), 0);
    assert_int_equal(now.level, ACRE_PRESSURE_MAX);
    expect_said(0, "tenant set a min=60M", 1, "\"a\" cannot have more min than its max");
    expect_said(0, "tenant set a max=64M high=none min=60M", 1,
                "more min in all than the capacity");
    expect_said(0, "tenant set a high=9M", 1, "cannot have a high that is not between");
    expect_said(0, "tenant set a max=9", 1, "not between 64K and 256G");
    expect_said(0, "tenant set a max=much", 2, "no number of bytes");
    expect_said(0, "tenant set a maximum=1M", 2, "is none of min=, high=, max=, weight=");
    expect_said(0, "tenant set a weight=10001", 2, "not between 1 and 10000");
    expect_said(0, "tenant set nobody weight=1", 1, "there is no tenant");
    expect_figure("a", "max_bytes", 8 << 20);
    configure(config);
    expect_figure("a", "max_bytes", 64 << 20);
    expect_figure("a", "weight", 100);
    kill(daemon_worker(&the_daemon), SIGKILL);
    expect_figure("a", "max_bytes", 64 << 20);
    give_all_back(heap, blocks, n);
    acre_close(heap);
}

static void pressure_ends_with_its_reason_while_nobody_serves(void **state)
{
    (void)state;
    daemon_up(&the_daemon, "tenant \"a\" { max = \"64M\" high = \"1M\" }\n");
    struct acre_heap *heap = heap_open(&the_daemon, "a");
    void *block = acre_alloc(heap, 100);
    assert_non_null(block);
    expect_figure("a", "over_bytes", 3 << 20);
    write_down("tenant \"a\" { max = \"64M\" }\n");
    kill(daemon_worker(&the_daemon), SIGKILL);
    expect_figure("a", "over_bytes", 0);
    write_down("tenant \"a\" { max = \"64M\" high = \"2M\" }\n");
    kill(daemon_worker(&the_daemon), SIGKILL);
    expect_figure("a", "over_bytes", 2 << 20);
    acre_free(heap, block);
    acre_close(heap);
}

static bool gives_back_what_is_too_much(void *arg)
{
    static void *blocks[MANY];
    struct acre_pressure now = {.size = sizeof(now)};
    struct acre_heap *heap;
    _Atomic int *is_full = arg;
    CHECK(acre_open(&heap, the_daemon.socket, "a") == 0);
    int n = 0, fd = acre_fd(heap);
    while (n < 120 && (blocks[n] = acre_alloc(heap, PIECE)))
        n++;
    *is_full = 1;
    while (n > 0) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        CHECK(acre_pressure_now(heap, &now) == 0);
        if (now.over_bytes > 0)
            acre_free(heap, blocks[--n]);
        else if (now.max_bytes < 64u << 20)
            break;
        if (n % 4 == 0 || now.over_bytes == 0)
            CHECK(poll(&p, 1, 50) >= 0 && acre_dispatch(heap) >= 0 && acre_trim(heap) == 0);
    }
    CHECK(n > 0);
    while (n > 0)
        acre_free(heap, blocks[--n]);
    acre_close(heap);
    return true;
}

static void who_lowers_a_max_can_wait_for_what_is_above_it(void **state)
{
    (void)state;
    daemon_up(&the_daemon, "capacity = \"256M\"\ntenant \"a\" { max = \"64M\" }\n");
    _Atomic int *is_full = shared_page(sizeof(*is_full));
    pid_t pid = child_start(gives_back_what_is_too_much, (void *)is_full);
    while (!*is_full)
        pause_us(10000);
    expect_said(0, "tenant set a max=12M --wait", 0, "a: max 12.0 MiB, has ");
    assert_true(figure("a", "sealed_bytes") <= 12 << 20);
    assert_true(child_ok(pid));
}

static void limits_are_set_by_who_is_above(void **state)
{
    (void)state;
    if (getuid() != 0)
        skip(); /* cannot be others */
    daemon_up(&the_daemon, "tenant \"team\" { max = \"64M\" admin_users = {\"4001\"} }\n"
                           "tenant \"team/a\" { max = \"32M\" users = {\"4002\"} "
                           "admin_users = {\"4002\"} }\n");
    assert_int_equal(chmod(the_daemon.dir, 0755), 0);
    expect_said(4001, "tenant set team/a max=16M", 0, "team/a: max 16.0 MiB");
    expect_said(4001, "tenant set team max=16M", 1, "may not set the limits");
    expect_said(4002, "tenant set team/a max=64M", 1, "may not set the limits");
    expect_said(4003, "tenant set team/a max=64M", 1, "may not look at");
    expect_said(0, "tenant set team max=20M", 0, "team: max 20.0 MiB");
    expect_figure("team/a", "max_bytes", 16 << 20);
}

static void tenants_come_and_go_with_the_configuration(void **state)
{
    (void)state;
    struct acre_heap *heap, *again, *other;
    daemon_up(&the_daemon, "tenant \"a\" { max = \"64M\" }\ntenant \"b\" { max = \"64M\" }\n");
    heap = heap_open(&the_daemon, "b");
    char *block = acre_alloc(heap, 100);
    strcpy(block, "of b");
    configure("tenant \"a\" { max = \"64M\" }\ntenant \"c\" { max = \"16M\" min = \"4M\" }\n");
    expect_figure("c", "min_bytes", 4 << 20);
    expect_figure("b", "max_bytes", 0);
    other = heap_open(&the_daemon, "c");
    assert_non_null(acre_alloc(other, PIECE));
    acre_close(other);
    assert_string_equal(block, "of b");
    acre_free(heap, block);
    assert_non_null(acre_alloc(heap, 100)); /* what it has it may use */
    assert_null(acre_alloc(heap, 20u << 20));
    acre_close(heap);
    expect_settled(&the_daemon, "b", 0, 0);
    assert_int_equal(acre_open(&again, the_daemon.socket, "b"), -ENOENT);
    assert_non_null(strstr(acre_last_error(), "not in the configuration any more"));
    configure("tenant \"a\" { max = \"64M\" }\ntenant \"b\" { max = \"64M\" }\n");
    expect_figure("b", "max_bytes", 64 << 20);
    again = heap_open(&the_daemon, "b");
    assert_non_null(acre_alloc(again, 20u << 20));
    acre_close(again);
}

static void a_wrong_configuration_changes_nothing(void **state)
{
    (void)state;
    daemon_up(&the_daemon, "capacity = \"128M\"\ntenant \"a\" { max = \"64M\" }\n");
    struct acre_heap *heap = heap_open(&the_daemon, "a");
    static const char *const wrong[] = {
        "capacity = \"128M\"\ntenant \"a\" { max = \"32M\" }\ntenant \"b\" {}\n",
        "capacity = \"128M\"\ntenant \"a\" { max = \"32M\" min = \"33M\" }\n",
        "capacity = \"32M\"\ntenant \"a\" { max = \"64M\" min = \"33M\" }\n", /* more than there is */
        "tenant \"a\" { max = \"32M\" ",
    };
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        configure(wrong[i]);
        pause_us(100000);
        assert_int_equal(figure("a", "max_bytes"), 64 << 20);
        assert_int_equal(figure("b", "max_bytes"), -1);
    }
    configure("capacity = \"128M\"\ntenant \"a\" { max = \"32M\" }\n");
    expect_figure("a", "max_bytes", 32 << 20);
    assert_non_null(acre_alloc(heap, PIECE));
    acre_close(heap);
}

static void who_reloads_is_told_when_it_is_done_or_why_not(void **state)
{
    char said[400], place[200];
    (void)state;
    daemon_up(&the_daemon, "tenant \"a\" { max = \"64M\" }\n");
    write_down("tenant \"a\" { max = \"32M\" }\ntenant \"b\" { max = \"8M\" }\n");
    assert_int_equal(acrectl_as(getuid(), "reload", said, sizeof(said)), 0);
    assert_non_null(strstr(said, "read again: 2 tenants"));
    assert_int_equal(figure("a", "max_bytes"), 32 << 20); /* at once */
    write_down("tenant \"a\" { max = \"16M\" }\ntenant \"b\" { max = \"much\" }\n");
    assert_int_equal(acrectl_as(getuid(), "reload", said, sizeof(said)), 1);
    snprintf(place, sizeof(place), "acrectl: %s:2: max = \"much\"", the_daemon.config);
    assert_non_null(strstr(said, place));
    assert_int_equal(figure("a", "max_bytes"), 32 << 20);
    if (geteuid() != 0)
        return;
    assert_int_equal(chmod(the_daemon.dir, 0755), 0);
    assert_int_equal(acrectl_as(65534, "reload", said, sizeof(said)), 1);
    assert_non_null(strstr(said, "user 65534 may not change the configuration"));
}

static void each_may_do_what_the_configuration_says(void **state)
{
    (void)state;
    if (geteuid() != 0)
        skip();
    daemon_up(&the_daemon, "admin_users = {\"4003\"}\n"
                           "tenant \"a\" { max = \"64M\" read_users = {\"4001\"} "
                           "admin_users = {\"4002\"} }\n");
    assert_int_equal(chmod(the_daemon.dir, 0755), 0);
    struct acre_heap *heap = heap_open(&the_daemon, "a");
    assert_non_null(acre_alloc(heap, 100));
    expect_said(4001, "check a", 0, "agree with the books");
    expect_said(4001, "stats --tenant a", 0, "capacity");
    expect_said(4001, "tenant drop a", 1,
                "user 4001 may not drop the heap of tenant \"a\": its "
                "admin_users or admin_groups in acred's configuration");
    expect_said(4000, "check a", 1, "user 4000 may not look at tenant \"a\"");
    expect_said(4000, "check", 0, ""); /* there is nothing */
    acre_close(heap);
    expect_settled(&the_daemon, "a", 0, 0);
    expect_said(4002, "upgrade", 1, "user 4002 may not upgrade acred: admin_users");
    expect_said(4002, "tenant drop a", 0, "");
    expect_said(4003, "reload", 0, "read again");
    expect_said(4003, "upgrade", 0, "");
}

/* ---- users' own ---- */

struct visit {
    uid_t uid;
    _Atomic int turn; /* 1: it has its block; 2: it may go on */
    bool leaves_something;
};

static bool visits_its_own(void *arg)
{
    struct visit *v = arg;
    struct acre_heap *heap, *other;
    char own[32];
    snprintf(own, sizeof(own), "user-%u", (unsigned)v->uid);
    CHECK(setresuid(v->uid, v->uid, v->uid) == 0);
    CHECK(acre_open(&heap, the_daemon.socket, "user-root") == -EACCES);
    CHECK(strstr(acre_last_error(), own)); /* its own is ... */
    CHECK(acre_open(&heap, the_daemon.socket, NULL) == 0);
    CHECK(acre_open(&other, the_daemon.socket, own) == 0); /* another client of the same heap */
    char *block = acre_alloc(heap, 100);
    CHECK(block != NULL);
    strcpy(block, own);
    acre_off off = acre_offset(heap, block);
    CHECK(acre_root_set(heap, "what", off) == 0);
    acre_off seen = 0;
    CHECK(acre_root_get(other, "what", &seen) == 0 && seen == off);
    v->turn = 1;
    for (int i = 0; i < 20000 && v->turn == 1; i++)
        pause_us(1000);
    CHECK(acre_alloc(heap, 1 << 20) != NULL); /* by asking */
    CHECK(acre_alloc(heap, 20 << 20) == NULL);
    if (!v->leaves_something) {
        CHECK(acre_root_del(heap, "what") == 0);
        acre_free(heap, block);
    }
    acre_close(other);
    acre_close(heap);
    return true;
}

static bool finds_what_was_left(void *arg)
{
    struct visit *v = arg;
    struct acre_heap *heap;
    acre_off off = 0;
    CHECK(setresuid(v->uid, v->uid, v->uid) == 0);
    CHECK(acre_open(&heap, the_daemon.socket, NULL) == 0);
    CHECK(acre_root_get(heap, "what", &off) == 0);
    CHECK(strncmp(acre_pointer(heap, off), "user-", 5) == 0);
    acre_close(heap);
    return true;
}

static bool is_listed(const char *tenant)
{
    return figure(tenant, "max_bytes") >= 0;
}

static void users_have_their_own_tenants_and_have_them_again_after_a_restart(void **state)
{
    struct visit *v = shared_page(2 * sizeof(*v));
    pid_t pid[2];
    (void)state;
    if (geteuid() != 0)
        skip();
    daemon_up(&the_daemon, "tenant \"user-%u\" { max = \"8M\" }\n");
    assert_int_equal(chmod(the_daemon.dir, 0755), 0);
    for (int i = 0; i < 2; i++) {
        v[i] = (struct visit){.uid = 4100 + (uid_t)i, .leaves_something = i == 1};
        pid[i] = child_start(visits_its_own, &v[i]);
    }
    for (int i = 0; i < 2; i++)
        for (int tries = 0; tries < 20000 && v[i].turn == 0; tries++)
            pause_us(1000);
    assert_int_equal(figure("user-4100", "max_bytes"), 8 << 20);
    expect_said(4101, "check user-4100", 1, "user 4101 may not look at tenant \"user-4100\"");
    expect_said(4101, "check", 0, "tenant user-4101: ");
    kill(daemon_worker(&the_daemon), SIGKILL);
    expect_figure("user-4100", "max_bytes", 8 << 20);
    v[0].turn = v[1].turn = 2;
    assert_true(child_ok(pid[0]));
    assert_true(child_ok(pid[1]));
    for (int tries = 0; is_listed("user-4100"); tries++) {
        assert_true(tries < 400);
        pause_us(20000);
    }
    kill(daemon_worker(&the_daemon), SIGKILL);
    expect_figure("user-4101", "max_bytes", 8 << 20);
    RUN_CHILD(finds_what_was_left, &v[1]);
    write_down("tenant \"a\" { max = \"8M\" }\n"); /* is in no configuration, and comes again */
    kill(daemon_worker(&the_daemon), SIGKILL);
    expect_figure("user-4101", "max_bytes", 0);
    configure("tenant \"user-%u\" { max = \"9M\" }\n");
    expect_figure("user-4101", "max_bytes", 9 << 20);
    RUN_CHILD(finds_what_was_left, &v[1]);
    assert_false(is_listed("user-4100"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(a_min_is_there_whatever_others_have_taken, each_down),
        cmocka_unit_test_teardown(a_group_shares_one_max, each_down),
        cmocka_unit_test_teardown(a_max_is_lowered_and_raised_while_its_memory_is_used, each_down),
        cmocka_unit_test_teardown(
            limits_are_set_while_it_runs_until_the_configuration_is_read_again, each_down),
        cmocka_unit_test_teardown(pressure_ends_with_its_reason_while_nobody_serves, each_down),
        cmocka_unit_test_teardown(who_lowers_a_max_can_wait_for_what_is_above_it, each_down),
        cmocka_unit_test_teardown(limits_are_set_by_who_is_above, each_down),
        cmocka_unit_test_teardown(tenants_come_and_go_with_the_configuration, each_down),
        cmocka_unit_test_teardown(a_wrong_configuration_changes_nothing, each_down),
        cmocka_unit_test_teardown(who_reloads_is_told_when_it_is_done_or_why_not, each_down),
        cmocka_unit_test_teardown(each_may_do_what_the_configuration_says, each_down),
        cmocka_unit_test_teardown(users_have_their_own_tenants_and_have_them_again_after_a_restart,
                                  each_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
