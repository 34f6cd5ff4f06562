/* SPDX-License-Identifier: Apache-2.0 */
/* A running daemon follows the limits of its cgroup. They are files of ours here, in a mount
 * namespace of ours, where the kernel's would be: nobody needs any right for that but to make one. */
#include "tests/system/harness.h"

#include <jansson.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

#define MIB    (1ll << 20)
#define CGROUP "/sys/fs/cgroup"

static char dir[] = "/tmp/acre-cgroup-XXXXXX";
static bool is_apart;

/* What is mounted from now on only this process sees, and who comes from it. */
static bool go_apart(void)
{
    return unshare(CLONE_NEWNS | (geteuid() == 0 ? 0 : CLONE_NEWUSER)) == 0 &&
           mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
           mount(dir, CGROUP, NULL, MS_BIND, NULL) == 0;
}

static void skip_unless_apart(void)
{
    if (is_apart)
        return;
    printf("skipped: this user may not make mount namespaces\n");
    skip();
}

static void limit(const char *file, long long mib)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/%s", dir, file);
    FILE *f = fopen(path, "w");
    assert_true(f && fprintf(f, "%lld\n", mib * MIB) > 0 && fclose(f) == 0);
}

static long long capacity(void)
{
    json_t *status = acrectl_json(&the_daemon, "status");
    long long bytes = json_integer_value(json_object_get(status, "capacity_bytes"));
    json_decref(status);
    return bytes;
}

static void expect_capacity(long long mib)
{
    for (unsigned tries = 0; capacity() != mib * MIB; tries++) {
        if (tries == 300)
            fail_msg("the capacity is %lld MiB, not %lld", capacity() / MIB, mib);
        pause_us(200000);
    }
}

static void *take(struct acre_heap *heap, long long mib)
{
    return acre_alloc(heap, (size_t)(mib * MIB));
}

static void a_running_daemon_follows_the_limits_of_its_cgroup(void **state)
{
    (void)state;
    skip_unless_apart();
    limit("memory.max", 256);
    daemon_up(&the_daemon, NULL);
    assert_int_equal(capacity(), 128 * MIB); /* half */
    struct acre_heap *heap = heap_open(&the_daemon, NULL);
    void *first = take(heap, 60);
    assert_non_null(first);
    pattern_fill(first, 60 * MIB, 7);
    limit("memory.max", 64);
    expect_capacity(32);
    assert_null(take(heap, 1));
    assert_int_equal(errno, ENOMEM);
    assert_true(pattern_is_whole(first, 60 * MIB)); /* it stays */
    limit("memory.max", 512);
    limit("memory/memory.limit_in_bytes", 400); /* as if it were one of the first kind */
    expect_capacity(200);
    void *second = take(heap, 120);
    assert_non_null(second);
    acre_free(heap, second);
    acre_free(heap, first);
    acre_close(heap);
    daemon_down(&the_daemon);
}

/* Whoever was promised something is there already: it is no time to be strict. */
static void a_worker_goes_on_where_its_promises_do_not_fit_any_more(void **state)
{
    (void)state;
    skip_unless_apart();
    limit("memory.max", 256);
    limit("memory/memory.limit_in_bytes", 256);
    daemon_up(&the_daemon, "tenant \"default\" { max = \"64M\" min = \"48M\" }\n");
    struct acre_heap *heap = heap_open(&the_daemon, NULL);
    void *first = take(heap, 20);
    assert_non_null(first);
    pattern_fill(first, 20 * MIB, 7);
    limit("memory.max", 64);
    pid_t worker = daemon_worker(&the_daemon);
    assert_int_equal(kill(worker, SIGKILL), 0);
    void *second = take(heap, 4);
    assert_non_null(second);
    assert_true(daemon_worker(&the_daemon) != worker);
    assert_int_equal(capacity(), 32 * MIB);
    assert_true(pattern_is_whole(first, 20 * MIB));
    acre_free(heap, second);
    acre_free(heap, first);
    acre_close(heap);
    daemon_down(&the_daemon);
}

static int up(void **state)
{
    char path[64];
    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/memory", dir);
    is_apart = mkdir(path, 0755) == 0 && go_apart();
    return 0;
}

static int down(void **state)
{
    char command[64];
    (void)state;
    snprintf(command, sizeof(command), "rm -r %s", dir);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_running_daemon_follows_the_limits_of_its_cgroup),
        cmocka_unit_test(a_worker_goes_on_where_its_promises_do_not_fit_any_more),
    };
    return cmocka_run_group_tests(tests, up, down);
}
