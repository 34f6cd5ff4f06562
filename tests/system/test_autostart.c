/* SPDX-License-Identifier: Apache-2.0 */
/* A program works with nothing set up: the first acre_open() starts the user's own daemon, and only
 * where it may. */
#include "tests/system/harness.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

static char runtime[64];

/* A runtime directory of our own; daemons that are started leave after a second without a
 * client. */
static int up(void **state)
{
    (void)state;
    strcpy(runtime, "/tmp/acre-auto-XXXXXX");
    assert_non_null(mkdtemp(runtime));
    setenv("XDG_RUNTIME_DIR", runtime, 1);
    setenv("ACRE_IDLE", "1", 1);
    unsetenv("ACRE_SOCKET");
    unsetenv("ACRE_AUTOSTART");
    return 0;
}

static int path_in_runtime(const char *name, char *path, size_t n)
{
    return snprintf(path, n, "%s/acre/%s", runtime, name);
}

static bool socket_exists(void)
{
    char path[128];

    path_in_runtime("acred.sock", path, sizeof(path));
    return access(path, F_OK) == 0;
}

static void wait_until_gone(void)
{
    for (unsigned i = 0; i < 400 && socket_exists(); i++)
        usleep(50000);
    assert_false(socket_exists());
}

static int down(void **state)
{
    char path[128];
    static const char *const names[] = {"acred.log", "acred.lock", ""};

    (void)state;
    wait_until_gone();
    for (unsigned i = 0; i < 3; i++) {
        path_in_runtime(names[i], path, sizeof(path));
        (void)remove(path);
    }
    assert_int_equal(rmdir(runtime), 0); /* nothing else was left behind */
    return 0;
}

static bool opens_with_nothing_set_up(void *arg)
{
    struct acre_heap *heap;
    int *ready = arg;
    acre_off off;

    CHECK(acre_open(&heap, NULL, NULL) == 0);
    CHECK(acre_last_error()[0] == '\0');
    CHECK(waitpid(-1, NULL, 0) == -1 &&
          errno == ECHILD); /* the application sees no child of ours */
    void *block = acre_alloc(heap, 100);
    CHECK(block);
    /* Whoever comes first sets the root; all must find one and the same heap. */
    int r = acre_root_cas(heap, "first", 0, acre_offset(heap, block));
    CHECK(r == 0 || r == -EEXIST);
    __atomic_fetch_add(&ready[r == 0], 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&ready[0], __ATOMIC_SEQ_CST) +
               __atomic_load_n(&ready[1], __ATOMIC_SEQ_CST) <
           ready[2])
        usleep(1000);
    CHECK(acre_root_get(heap, "first", &off) == 0);
    acre_close(heap);
    return true;
}

static void the_first_open_starts_a_daemon_that_leaves_when_idle(void **state)
{
    (void)state;
    char path[128], log[4096] = "";
    int *ready = shared_page(3 * sizeof(int));
    ready[2] = 1;
    RUN_CHILD(opens_with_nothing_set_up, ready);
    wait_until_gone();
    path_in_runtime("acred.log", path, sizeof(path));
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    assert_true(fread(log, 1, sizeof(log) - 1, f) > 0);
    fclose(f);
    printf("%s", log);
    assert_non_null(strstr(log, "listens at"));
    assert_non_null(
        strstr(log, "112 published bytes go with it")); /* it says what it takes along */
}

static void of_many_starters_one_daemon_remains(void **state)
{
    (void)state;
    pid_t pids[8];
    int *ready = shared_page(3 * sizeof(int));

    ready[2] = 8;
    for (unsigned i = 0; i < 8; i++)
        pids[i] = child_start(opens_with_nothing_set_up, ready);
    for (unsigned i = 0; i < 8; i++)
        assert_true(child_ok(pids[i]));
    assert_int_equal(ready[1], 1); /* one heap, one first root */
    wait_until_gone();
}

/* Whoever listens at the user's socket. */
static pid_t daemon_pid(void)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    struct ucred u = {0};
    socklen_t n = sizeof(u);
    int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    path_in_runtime("acred.sock", a.sun_path, sizeof(a.sun_path));
    assert_int_equal(connect(sock, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &u, &n), 0);
    close(sock);
    return u.pid;
}

static bool opens(void *arg)
{
    struct acre_heap *heap;

    (void)arg;
    CHECK(acre_open(&heap, NULL, NULL) == 0);
    acre_close(heap);
    return true;
}

static void who_comes_as_the_daemon_wants_to_leave_is_served(void **state)
{
    (void)state;
    RUN_CHILD(opens, NULL);
    pid_t pid = daemon_pid();
    usleep(200000);
    assert_int_equal(kill(pid, SIGSTOP), 0); /* it finds both at once: the time is up, a client */
    pid_t late = child_start(opens, NULL);
    usleep(1500000);
    assert_int_equal(kill(pid, SIGCONT), 0);
    assert_true(child_ok(late));
    wait_until_gone();
}

static void expect_refused(unsigned flags)
{
    struct acre_options o = {.size = sizeof(o), .flags = flags, .deadline_ms = 1000};
    struct acre_heap *heap;

    assert_int_equal(acre_open_with(&heap, &o), -ECONNREFUSED);
    assert_false(socket_exists());
}

static void no_daemon_is_started_where_it_is_not_wanted(void **state)
{
    (void)state;
    expect_refused(ACRE_NO_AUTOSTART);
    setenv("ACRE_AUTOSTART", "0", 1);
    expect_refused(0);
    unsetenv("ACRE_AUTOSTART");
    setenv("ACRE_SOCKET", "/tmp/acre-no-such-socket", 1);
    expect_refused(0);
    unsetenv("ACRE_SOCKET");
    setenv("ACRE_DAEMON", "/tmp/acre-no-such-program", 1);
    expect_refused(0);
    assert_non_null(strstr(acre_last_error(), "/tmp/acre-no-such-program"));
}

/* In a mount namespace of its own, where /run holds an acre directory without a socket: a system
 * daemon that is restarting. */
static bool beside_a_system_daemon(void *arg)
{
    struct acre_heap *heap;
    bool *could = arg;

    /* Not in every container, nor where the root is no mount. */
    *could = unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
    if (!*could)
        return true;
    CHECK(mount("run", "/run", "tmpfs", 0, NULL) == 0 && mkdir("/run/acre", 0755) == 0);
    CHECK(acre_open(&heap, NULL, NULL) == -ECONNREFUSED);
    CHECK(strstr(acre_last_error(), "/run/acre/acred.sock"));
    CHECK(!socket_exists());
    return true;
}

static void a_system_daemon_that_restarts_is_not_replaced(void **state)
{
    (void)state;
    if (geteuid() != 0)
        skip();
    bool *could = shared_page(sizeof(*could));
    RUN_CHILD(beside_a_system_daemon, could);
    if (!*could)
        skip();
}

static void a_directory_of_somebody_else_is_refused(void **state)
{
    (void)state;
    char path[128];
    struct acre_heap *heap;

    path_in_runtime("", path, sizeof(path));
    assert_int_equal(chmod(path, 0755), 0);
    assert_int_equal(acre_open(&heap, NULL, NULL), -EACCES);
    assert_non_null(strstr(acre_last_error(), runtime));
    assert_int_equal(chmod(path, 0700), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_open_starts_a_daemon_that_leaves_when_idle),
        cmocka_unit_test(of_many_starters_one_daemon_remains),
        cmocka_unit_test(who_comes_as_the_daemon_wants_to_leave_is_served),
        cmocka_unit_test(no_daemon_is_started_where_it_is_not_wanted),
        cmocka_unit_test(a_system_daemon_that_restarts_is_not_replaced),
        cmocka_unit_test(a_directory_of_somebody_else_is_refused),
    };
    return cmocka_run_group_tests(tests, up, down);
}
