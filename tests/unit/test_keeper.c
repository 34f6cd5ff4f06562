/* SPDX-License-Identifier: Apache-2.0 */
/* The keeper, whose workers are this program again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "daemon/keeper.h"
#include "daemon/store.h"
#include "proto/wire.h"

#define DROPS  2000u
#define DEATHS 7u    /* 1.6 s after the last, 1.5 s for those before */
#define MANY   9000u /* long names: more than an environment variable holds */

static void name_of(unsigned i, char ret[STORE_NAME_BYTES])
{
    (void)snprintf(ret, STORE_NAME_BYTES, "descriptor-number-%u", i);
}

/* ---- the workers: each returns its exit status ---- */

/* The first one deposits so many and is killed, the second one looks for them. */
static int deposit_or_find(struct store *store, struct store_items *items, unsigned n)
{
    char name[STORE_NAME_BYTES];
    bool is_first = items->n <= 3; /* the socket, the names, and what listens */
    int fd = is_first ? memfd_create("kept", MFD_CLOEXEC) : -1;
    for (unsigned i = 0; i < n; i++) {
        name_of(i, name);
        if (is_first && store_put(store, name, fd) < 0)
            return 3;
        if (!is_first && store_take(items, name) < 0)
            return 4;
    }
    store_say(store, "READY=1");
    if (is_first)
        (void)raise(SIGKILL);
    return store_take(items, KEEPER_LISTEN) < 0 ? 5 : 0;
}

/* What is dropped is gone, also if it was put twice. */
static int drop_or_miss(struct store *store, struct store_items *items)
{
    bool is_first = items->n <= 3;
    int fd = is_first ? memfd_create("kept", MFD_CLOEXEC) : -1;
    if (is_first) {
        if (store_put(store, "a", fd) < 0 || store_put(store, "b", fd) < 0 ||
            store_put(store, "a", fd) < 0)
            return 3;
        store_drop(store, "a");
        store_say(store, "READY=1");
        (void)raise(SIGKILL);
    }
    return store_take(items, "a") >= 0 ? 4 : store_take(items, "b") < 0 ? 5 : 0;
}

/* The keeper does not run while more is dropped than its socket holds. */
static int drop_while_it_stops(struct store *store, struct store_items *items)
{
    char name[STORE_NAME_BYTES];
    bool is_first = items->n <= 3;
    int fd = is_first ? memfd_create("kept", MFD_CLOEXEC) : -1;
    for (unsigned i = 0; i < DROPS; i++) {
        name_of(i, name);
        if (is_first ? store_put(store, name, fd) < 0 : (store_take(items, name) >= 0) != (i == 7))
            return 3;
    }
    if (!is_first)
        return 0;
    (void)alarm(60); /* nothing may wait */
    (void)kill(getppid(), SIGSTOP);
    for (unsigned i = 0; i < DROPS; i++) {
        name_of(i, name);
        store_drop(store, name);
    }
    (void)kill(getppid(), SIGCONT);
    name_of(7, name);
    if (store_put(store, name, fd) < 0) /* comes after its drop */
        return 4;
    store_say(store, "READY=1");
    return raise(SIGKILL);
}

/* Dies with a question on its way: nobody reads the answer. */
static int ask_and_die(struct store *store, struct store_items *items)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return 2;
    if (store_take(items, "a") >= 0)
        return 0;
    if (store_put(store, "a", store->sock) < 0)
        return 3;
    store_say(store, "READY=1");
    (void)close(ends[0]);
    if (wire_send(store->sock, "BARRIER=1", 9, ends[1]) < 0)
        return 4;
    return raise(SIGKILL);
}

/* Worker after worker dies before it is ready, so that the pauses between them become long. In the
 * last one the keeper is told to stop: nobody would tell the worker after it. */
static int die_again_and_again(struct store *store, struct store_items *items)
{
    int alive[2];
    char name[STORE_NAME_BYTES], byte;
    if (pipe2(alive, O_CLOEXEC) < 0)
        return 2;
    if (items->n <= 3)
        store_say(store, "READY=1");
    if (items->n == DEATHS + 3)
        return 0;
    name_of(items->n, name);
    if (store_put(store, name, alive[0]) < 0) /* one more for the next to see */
        return 3;
    pid_t keeper = getppid();
    if (items->n == DEATHS + 2 && fork() == 0) {
        (void)close(alive[1]);
        (void)!read(alive[0], &byte, 1); /* until the worker is dead */
        (void)usleep(100000);
        _exit(kill(keeper, SIGTERM));
    }
    return raise(SIGKILL);
}

static int work_on(const char *how, struct store *store, struct store_items *items)
{
    if (strcmp(how, "drop") == 0)
        return drop_or_miss(store, items);
    if (strcmp(how, "stop") == 0)
        return drop_while_it_stops(store, items);
    if (strcmp(how, "ask") == 0)
        return ask_and_die(store, items);
    if (strcmp(how, "die") == 0)
        return die_again_and_again(store, items);
    return deposit_or_find(store, items, strcmp(how, "many") == 0 ? MANY : 10);
}

static int work(const char *how)
{
    struct store store;
    struct store_items items;
    if (store_open(&store, &items) < 0)
        return 2;
    int code = work_on(how, &store, &items);
    store_items_free(&items);
    store_close(&store);
    return code;
}

/* ---- tests ---- */

static void run_to(const char *worker, int exit_status)
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        char *argv[] = {"keeper", (char *)worker, NULL};
        int listen_fd = memfd_create("listen", MFD_CLOEXEC);
        _exit(keeper_run(argv, listen_fd));
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), exit_status);
}

static void run(const char *worker)
{
    run_to(worker, 0);
}

static void test_more_are_kept_than_an_environment_variable_can_name(void **state)
{
    struct rlimit limit;
    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    if (limit.rlim_max < 2 * MANY + 100)
        skip();
    limit.rlim_cur = limit.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    run("many");
}

static void test_a_few_are_kept_and_handed_over(void **state)
{
    (void)state;
    run("few");
}

static void test_who_dies_before_the_answer_gets_another_worker(void **state)
{
    (void)state;
    run("ask");
}

static void test_a_drop_waits_for_nobody(void **state)
{
    (void)state;
    run("stop");
}

static void test_who_is_told_to_stop_between_two_workers_starts_no_other(void **state)
{
    (void)state;
    run_to("die", 1);
}

static void test_what_is_dropped_is_gone_also_if_it_was_put_twice(void **state)
{
    (void)state;
    run("drop");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_few_are_kept_and_handed_over),
        cmocka_unit_test(test_more_are_kept_than_an_environment_variable_can_name),
        cmocka_unit_test(test_who_dies_before_the_answer_gets_another_worker),
        cmocka_unit_test(test_a_drop_waits_for_nobody),
        cmocka_unit_test(test_who_is_told_to_stop_between_two_workers_starts_no_other),
        cmocka_unit_test(test_what_is_dropped_is_gone_also_if_it_was_put_twice),
    };
    if (argc > 1)
        return work(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
