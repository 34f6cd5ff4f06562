/* SPDX-License-Identifier: Apache-2.0 */
/* What the machine and the cgroups have (machine.c), in trees of files made here; and what the
 * daemon makes of it, again and again (capacity.c). */
/* ctest-labels: valgrind */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include <sys/mman.h>
#include <sys/stat.h>

#include "daemon/capacity.h"
#include "daemon/machine.h"
#include "daemon/reload.h"
#include "daemon/tenant.h"
#include "tests/unit/drive.h"
#include "tests/unit/fake_core.h"

#define V2         "/sys/fs/cgroup"
#define V1         "/sys/fs/cgroup/memory"
#define RAM_BYTES  MIB(512)
#define IN_V2(dir) V2 dir "/memory.max"

/* ---- a machine ---- */

static char root[64];

/* A file of the machine, with all that is above it. */
static void put(const char *path, const char *text)
{
    char file[256];
    snprintf(file, sizeof(file), "%s%s", root, path);
    for (char *at = file + strlen(root); (at = strchr(at + 1, '/'));) {
        *at = 0;
        assert_true(mkdir(file, 0755) == 0 || errno == EEXIST);
        *at = '/';
    }
    FILE *f = fopen(file, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static void put_mib(const char *path, uint64_t mib)
{
    char text[32];
    snprintf(text, sizeof(text), "%llu\n", (unsigned long long)MIB(mib));
    put(path, text);
}

static void unput(const char *path)
{
    char file[256];
    snprintf(file, sizeof(file), "%s%s", root, path);
    assert_int_equal(unlink(file), 0);
}

static void put_ram(uint64_t mib)
{
    char text[128];
    snprintf(text, sizeof(text), "MemFree: 1 kB\nMemTotal:  %llu kB\nMemAvailable: 2 kB\n",
             (unsigned long long)mib << 10);
    put("/proc/meminfo", text);
}

static int new_machine(void **state)
{
    (void)state;
    strcpy(root, "/tmp/acre-root-XXXXXX");
    assert_non_null(mkdtemp(root));
    put_ram(RAM_BYTES >> 20);
    return 0;
}

static int end_machine(void **state)
{
    char command[128];
    (void)state;
    snprintf(command, sizeof(command), "rm -r %s", root);
    return system(command);
}

static void expect_mib(uint64_t mib)
{
    assert_int_equal(machine_memory_bytes(root), MIB(mib));
}

/* ---- what it has ---- */

static void test_without_cgroups_it_is_ram(void **state)
{
    (void)state;
    expect_mib(512);
    put_ram(300);
    expect_mib(300);
    put("/proc/self/cgroup", "0::/\n");
    expect_mib(300);
    put_ram(1u << 30); /* more than any machine has */
    assert_in_range(machine_memory_bytes(root), MIB(1), MIB((1ull << 30) - 1));
}

static void test_each_limit_above_a_v2_cgroup_binds(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "0::/a/b/c\n");
    put(IN_V2("/a/b/c"), "max\n");
    expect_mib(512);
    put_mib(IN_V2("/a/b/c"), 200);
    expect_mib(200);
    put_mib(IN_V2("/a"), 100);
    expect_mib(100);
    put_mib(IN_V2("/a/b"), 64);
    put_mib(IN_V2("/a/b/d"), 16); /* a sibling's */
    expect_mib(64);
    put(IN_V2("/a"), "max\n");
    put(IN_V2("/a/b"), "max\n");
    expect_mib(200);
    put_mib(IN_V2("/a/b/c"), 1024); /* more than RAM */
    expect_mib(512);
}

/* In a cgroup namespace the path is "/"; without one it is the host's, which is not there. */
static void test_in_a_container_the_top_is_its_own_cgroup(void **state)
{
    (void)state;
    put_mib(IN_V2(""), 128);
    put("/proc/self/cgroup", "0::/\n");
    expect_mib(128);
    put("/proc/self/cgroup", "0::/kubepods/pod1/abc\n");
    expect_mib(128);
    put("/proc/self/cgroup", "0::/../../other\n");
    expect_mib(128);
    put("/proc/self/cgroup", "4:cpu,memory:/kubepods/pod1/abc\n0::/\n");
    unput(IN_V2(""));
    put_mib(V1 "/memory.limit_in_bytes", 90);
    expect_mib(90);
}

static void test_each_limit_above_a_v1_cgroup_binds(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "9:name=systemd:/x\n4:cpu,memory:/a/b\n0::/a/b\n");
    put(V1 "/a/b/memory.limit_in_bytes", "9223372036854771712\n");
    expect_mib(512);
    put_mib(V1 "/a/b/memory.limit_in_bytes", 200);
    expect_mib(200);
    put_mib(V1 "/a/memory.limit_in_bytes", 100);
    put_mib(V1 "/x/memory.limit_in_bytes", 50); /* of another hierarchy */
    expect_mib(100);
}

/* As far as a v1 container sees, there is nothing above it. */
static void test_a_v1_cgroup_knows_the_limits_above_it(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "4:memory:/a/b\n");
    put_mib(V1 "/a/b/memory.limit_in_bytes", 200);
    put(V1 "/a/b/memory.stat", "cache 4096\nhierarchical_memory_limit 73400320\n"
                               "hierarchical_memsw_limit 1048576\ntotal_cache 1\n");
    expect_mib(70);
}

static void test_what_is_no_limit_is_none(void **state)
{
    static const char *const nothing[] = {"", "max\n", "maximum", "\n", "-\n", "low 1\n"};
    (void)state;
    put("/proc/self/cgroup", "nonsense\n:::\n0:\n0::a\n0::/a\n");
    for (size_t i = 0; i < ARRAY_LEN(nothing); i++) {
        put(IN_V2("/a"), nothing[i]);
        expect_mib(512);
    }
    put_mib(IN_V2("/a"), 33);
    expect_mib(33);
}

static void test_a_sixteenth_is_left_to_the_kernel(void **state)
{
    (void)state;
    assert_int_equal(capacity_backed(0, GIB(8)), GIB(4));
    assert_int_equal(capacity_backed(0, GIB(8) + 12345), GIB(4));
    assert_int_equal(capacity_backed(0, GIB(4096)), HEAP_BYTES);
    assert_int_equal(capacity_backed(GIB(7), GIB(8)), GIB(7));
    assert_int_equal(capacity_backed(GIB(9), GIB(8)), GIB(8) / 16 * 15);
    assert_int_equal(capacity_backed(GIB(9), GIB(8) + 17), GIB(8) / 16 * 15);
}

/* ---- what the daemon makes of it ---- */

static void configure(const char *text)
{
    struct config config;
    char path[32], why[MSG_TEXT_BYTES];
    int fd = memfd_create("config", MFD_CLOEXEC);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    if (config_read(&config, path, why, sizeof(why)) < 0)
        fail_msg("%s", why);
    close(fd);
    assert_int_equal(config_complete(&config, machine_memory_bytes(root)), 0);
    assert_int_equal(reload_apply(&w.core, &config), 0);
    config_deinit(&config);
}

/* In a cgroup of so many MiB. */
static void start(const char *config, uint64_t mib)
{
    put("/proc/self/cgroup", "0::/a\n");
    put_mib(IN_V2("/a"), mib);
    start_core(MIB(1));
    w.core.capacity.root = root;
    configure(config);
    capacity_watch(&w.core);
}

/* Its limit changes: the log until the next look is over, and its lines. */
static unsigned change(uint64_t mib, char said[static 2048])
{
    unsigned n = 0;
    int saved = dup(STDERR_FILENO), fd = memfd_create("log", MFD_CLOEXEC);
    assert_true(fd >= 0 && dup2(fd, STDERR_FILENO) >= 0);
    put_mib(IN_V2("/a"), mib);
    pass(w.core.capacity.look_at_ns - w.now_ns);
    (void)dup2(saved, STDERR_FILENO);
    ssize_t n_said = pread(fd, said, 2047, 0);
    close(saved);
    close(fd);
    assert_true(n_said >= 0);
    said[n_said] = 0;
    for (const char *at = said; (at = strchr(at, '\n')); at++)
        n++;
    return n;
}

static void expect_change(uint64_t mib, const char *words)
{
    char said[2048];
    unsigned n = change(mib, said);
    if (n != (words[0] ? 1 : 0) || !strstr(said, words))
        fail_msg("not a line \"%s\", but: %s", words, said);
}

static void expect_capacity(uint64_t bytes)
{
    assert_int_equal(w.core.ledger.capacity_bytes, bytes);
}

static void test_nobody_looks_unless_told_to(void **state)
{
    (void)state;
    start_core(MIB(64));
    configure("capacity = \"64M\" tenant \"t\" { max = \"64M\" }\n");
    assert_int_equal(core_deadline(&w.core), UINT64_MAX);
    pass(1000 * SECOND);
    assert_int_equal(w.n_submitted, 0);
    finish();
}

static void test_a_figure_holds_until_its_cgroup_cannot_back_it(void **state)
{
    (void)state;
    start("capacity = \"60M\" tenant \"t\" { max = \"60M\" }\n", 64);
    expect_capacity(MIB(60));
    expect_change(128, "");
    expect_capacity(MIB(60));
    expect_change(32, "capacity 30 MiB, was 60 MiB: the machine or this cgroup has 32 MiB now");
    expect_capacity(MIB(30));
    expect_change(32, "");
    expect_change(256, "capacity 60 MiB, was 30 MiB: the machine or this cgroup has 256 MiB now");
    expect_capacity(MIB(60));
    put_ram(16);
    expect_change(256, "capacity 15 MiB, was 60 MiB");
    finish();
}

static void test_half_stays_half_and_is_all_of_the_only_tenants(void **state)
{
    (void)state;
    struct fake a;
    start("", 64);
    expect_capacity(MIB(32));
    struct tenant *t = core_find_tenant(&w.core, "default");
    attach_to(&a, "default");
    expect_change(128, "capacity 64 MiB, was 32 MiB");
    expect_capacity(MIB(64));
    assert_int_equal(t->budget.limits.max_bytes, MIB(64));
    assert_int_equal(t->control->header.max_bytes, MIB(64));
    expect_change(16, "capacity 8 MiB, was 64 MiB");
    assert_int_equal(t->budget.limits.max_bytes, MIB(8));
    configure("tenant \"default\" { max = \"5M\" }\n"); /* which is said */
    expect_change(128, "capacity 64 MiB, was 8 MiB");
    assert_int_equal(t->budget.limits.max_bytes, MIB(5));
    kill_it(&a);
    finish();
}

static void test_all_open_heaps_show_the_capacity(void **state)
{
    (void)state;
    struct fake a, b;
    start("tenant \"t\" { max = \"4M\" }\ntenant \"u\" { max = \"4M\" }\n", 64);
    attach_to(&a, "t");
    attach_to(&b, "u");
    struct tenant *t = core_find_tenant(&w.core, "t"), *u = core_find_tenant(&w.core, "u");
    configure("tenant \"t\" { max = \"4M\" }\n"); /* u is forgotten, its heap stays */
    assert_int_equal(t->control->header.capacity_bytes, MIB(32));
    expect_change(128, "capacity 64 MiB, was 32 MiB");
    assert_int_equal(t->control->header.capacity_bytes, MIB(64));
    assert_int_equal(u->control->header.capacity_bytes, MIB(64));
    assert_int_equal(t->control->header.max_bytes, MIB(4));
    configure("capacity = \"20M\" tenant \"t\" { max = \"4M\" }\n");
    assert_int_equal(u->control->header.capacity_bytes, MIB(20));
    kill_it(&a);
    kill_it(&b);
    finish();
}

static void test_a_reload_in_between_is_what_the_next_look_goes_by(void **state)
{
    (void)state;
    start("capacity = \"20M\" tenant \"t\" { max = \"4M\" }\n", 64);
    configure("capacity = \"10M\" tenant \"t\" { max = \"4M\" }\n");
    expect_change(64, "");
    expect_capacity(MIB(10));
    configure("tenant \"t\" { max = \"4M\" }\n");
    expect_change(64, "");
    expect_capacity(MIB(32));
    finish();
}

static void test_promises_that_do_not_fit_any_more_are_said(void **state)
{
    (void)state;
    char said[2048];
    start("tenant \"g\" { max = \"16M\" min = \"4M\" }\ntenant \"g/t\" { max = \"16M\" min = "
          "\"3M\" }\n"
          "tenant \"u\" { max = \"16M\" min = \"5M\" }\n",
          64);
    expect_change(18, "capacity 9 MiB, was 32 MiB"); /* 4 + 5 */
    assert_int_equal(change(16, said), 2);
    assert_non_null(strstr(said, "capacity 8 MiB, was 9 MiB"));
    assert_non_null(strstr(said, "promised 9 MiB in all (min), and the capacity is 8 MiB"));
    assert_int_equal(change(16, said), 0);
    expect_change(64, "capacity 32 MiB, was 8 MiB");
    finish();
}

/* ---- who has memory, and who waits for it ---- */

static uint64_t held(const struct fake *f)
{
    return f->session.client->n_units;
}

static int grow(struct fake *f, uint32_t n)
{
    struct msg_request req = {.op = MSG_GROW, .grow = {.n_units = n, .exact = true}};
    int r = ask(f, req);
    if (r == 0) {
        struct block b = {.n_units = f->reply.grow.run.n_units};
        b.seg = tenant_locate(f->session.client->tenant, f->reply.grow.run.off, false, &b.unit);
        assert_non_null(b.seg);
        fake_cut_large(f, b, f->id); /* or it would be taken back */
    }
    return r;
}

static void test_what_somebody_has_stays_and_who_waits_is_served(void **state)
{
    (void)state;
    struct fake a;
    struct msg_request wait = {.op = MSG_WAIT,
                               .wait = {.n_units = 1900, .exact = true, .ticket = 1}};
    start("tenant \"t\" { max = \"400M\" }\n", 64);
    attach_to(&a, "t");
    assert_int_equal(grow(&a, 1500), 0);
    expect_change(16, "capacity 8 MiB, was 32 MiB");
    assert_int_equal(held(&a), 1500);
    assert_int_equal(ledger_left(&w.core.ledger), 0);
    assert_int_equal(grow(&a, 500), -ENOMEM);
    assert_int_equal(ask(&a, wait), -E2BIG); /* more than it could ever have */
    expect_change(32, "capacity 16 MiB, was 8 MiB");
    wait.wait.ticket = 2;
    wait.wait.n_units = 1000;
    assert_int_equal(ask(&a, wait), 0);
    pass(CAPACITY_LOOK_NS - 1);
    assert_int_equal(ask(&a, wait), 0); /* it still waits */
    assert_int_equal(held(&a), 1500);
    expect_change(256, "capacity 128 MiB, was 16 MiB");
    while (core_deadline(&w.core) <= w.now_ns)
        pass(1);
    assert_int_equal(held(&a), 2500); /* without any more waiting */
    core_assert_valid(&w.core);
    kill_it(&a);
    finish();
}

static void test_it_is_looked_at_again_and_again_and_once_at_a_time(void **state)
{
    (void)state;
    start("tenant \"t\" { max = \"4M\" }\n", 64);
    unsigned n = w.n_submitted;
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(core_deadline(&w.core), w.now_ns + CAPACITY_LOOK_NS);
        pass(CAPACITY_LOOK_NS - 1);
        assert_int_equal(w.n_submitted, n + i);
        pass(1);
        assert_int_equal(w.n_submitted, n + i + 1);
    }
    w.now_ns += CAPACITY_LOOK_NS;
    core_tick(&w.core, w.now_ns);
    assert_int_equal(w.n_jobs, 1);
    core_tick(&w.core, w.now_ns += 10 * CAPACITY_LOOK_NS); /* the job takes its time */
    assert_int_equal(w.n_jobs, 1);
    finish();
}

int main(void)
{
#define ON_A_MACHINE(test) cmocka_unit_test_setup_teardown(test, new_machine, end_machine)
    const struct CMUnitTest tests[] = {
        ON_A_MACHINE(test_without_cgroups_it_is_ram),
        ON_A_MACHINE(test_each_limit_above_a_v2_cgroup_binds),
        ON_A_MACHINE(test_in_a_container_the_top_is_its_own_cgroup),
        ON_A_MACHINE(test_each_limit_above_a_v1_cgroup_binds),
        ON_A_MACHINE(test_a_v1_cgroup_knows_the_limits_above_it),
        ON_A_MACHINE(test_what_is_no_limit_is_none),
        cmocka_unit_test(test_a_sixteenth_is_left_to_the_kernel),
        ON_A_MACHINE(test_nobody_looks_unless_told_to),
        ON_A_MACHINE(test_a_figure_holds_until_its_cgroup_cannot_back_it),
        ON_A_MACHINE(test_half_stays_half_and_is_all_of_the_only_tenants),
        ON_A_MACHINE(test_all_open_heaps_show_the_capacity),
        ON_A_MACHINE(test_a_reload_in_between_is_what_the_next_look_goes_by),
        ON_A_MACHINE(test_promises_that_do_not_fit_any_more_are_said),
        ON_A_MACHINE(test_what_somebody_has_stays_and_who_waits_is_served),
        ON_A_MACHINE(test_it_is_looked_at_again_and_again_and_once_at_a_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
