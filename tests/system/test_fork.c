/* SPDX-License-Identifier: Apache-2.0 */
/* fork, exec, daemonising, closed descriptors: who is whom (DESIGN.md sections 6 and 8). */
#include "tests/system/harness.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/syscall.h>

static struct acre_heap *heap;
static acre_client parent;

static bool child_of_fork(void *arg)
{
    char *inherited = arg;

    CHECK(strcmp(inherited, "parent's") == 0);
    CHECK(acre_owner(heap, inherited) == parent);
    CHECK(acre_publish(heap, inherited) == -EPERM);
    CHECK(acre_self(heap) != 0 && acre_self(heap) != parent);
    for (unsigned i = 0; i < 1000; i++) {
        void *block = acre_alloc(heap, 64 + i);
        CHECK(block && block != inherited && acre_owner(heap, block) == acre_self(heap));
        if (i % 2)
            acre_free(heap, block);
    }
    return true;
}

static void a_forked_child_is_a_client_of_its_own(void **state)
{
    (void)state;
    heap = heap_open(&the_daemon, NULL);
    parent = acre_self(heap);
    char *block = acre_alloc(heap, 64);
    /* Blocks on the parent's stack must not be handed out by the child as well. */
    void *freed[10];
    for (unsigned i = 0; i < 10; i++)
        freed[i] = acre_alloc(heap, 64);
    for (unsigned i = 0; i < 10; i++)
        acre_free(heap, freed[i]);
    strcpy(block, "parent's");
    pid_t pids[5];
    for (unsigned i = 0; i < 5; i++)
        pids[i] = child_start(child_of_fork, block);
    for (unsigned i = 0; i < 5; i++)
        assert_true(child_ok(pids[i]));
    assert_string_equal(block, "parent's");
    assert_int_equal(acre_self(heap), parent);
    expect_settled(&the_daemon, "default", 64, 1);
    acre_free(heap, block);
    acre_close(heap);
    expect_settled(&the_daemon, "default", 0, 0);
}

static bool grandchildren(void *arg)
{
    unsigned depth = (unsigned)(uintptr_t)arg;
    acre_client self = acre_self(heap);
    void *block = acre_alloc(heap, 300);

    CHECK(self && block);
    if (depth > 0) {
        pid_t pid = child_start(grandchildren, (void *)(uintptr_t)(depth - 1));
        CHECK(child_ok(pid));
    }
    CHECK(acre_self(heap) == self && acre_owner(heap, block) == self);
    return true;
}

static void children_of_children_are_clients_too(void **state)
{
    (void)state;
    heap = heap_open(&the_daemon, NULL);
    assert_non_null(acre_alloc(heap, 300));
    RUN_CHILD(grandchildren, (void *)(uintptr_t)5);
    expect_settled(&the_daemon, "default", 320, 1);
    acre_close(heap);
}

/* A fork without libc's handlers: the raw system call. */
static void a_raw_fork_is_seen_as_well(void **state)
{
    (void)state;
    heap = heap_open(&the_daemon, NULL);
    parent = acre_self(heap);
    char *block = acre_alloc(heap, 64);
    strcpy(block, "parent's");
    fflush(NULL);
    pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (pid == 0) {
        alarm(100);
        _exit(child_of_fork(block) ? 0 : 1);
    }
    assert_true(child_ok(pid));
    expect_settled(&the_daemon, "default", 64, 1);
    acre_close(heap);
}

static bool forker_that_dies(void *arg)
{
    int *pipes = arg;
    char c;

    CHECK(acre_open(&heap, the_daemon.socket, NULL) == 0);
    CHECK(acre_alloc(heap, 1000) != NULL);
    /* A child that lives on, with all descriptors, and never uses the heap. */
    if (fork() == 0) {
        if (read(pipes[0], &c, 1) != 1)
            _exit(1);
        _exit(0);
    }
    raise(SIGKILL);
    return false;
}

static void a_child_that_lives_on_does_not_keep_its_dead_parent_alive(void **state)
{
    (void)state;
    int *pipes = shared_page(2 * sizeof(int));
    assert_int_equal(pipe(pipes), 0);
    assert_int_equal(child_signal(child_start(forker_that_dies, pipes)), SIGKILL);
    expect_settled(&the_daemon, "default", 0, 0);
    assert_int_equal(write(pipes[1], "x", 1), 1);
}

static bool exec_sleep(void *arg)
{
    (void)arg;
    CHECK(acre_open(&heap, the_daemon.socket, NULL) == 0);
    CHECK(acre_alloc(heap, 1000) != NULL);
    execlp("sleep", "sleep", "30", (char *)NULL);
    return false;
}

static void exec_ends_a_client_though_its_pid_lives_on(void **state)
{
    (void)state;
    pid_t pid = child_start(exec_sleep, NULL);
    usleep(300000);
    expect_settled(&the_daemon, "default", 0, 0);
    assert_int_equal(kill(pid, 0), 0);
    kill(pid, SIGKILL);
    (void)child_signal(pid);
}

static bool daemonise(void *arg)
{
    acre_off *off = arg;

    CHECK(acre_open(&heap, the_daemon.socket, NULL) == 0);
    char *kept = acre_alloc(heap, 1000), *large = acre_alloc(heap, 100000);
    CHECK(kept && large);
    strcpy(kept, "kept");
    off[0] = acre_offset(heap, kept);
    off[1] = acre_offset(heap, large);
    CHECK(acre_publish_all(heap) == 0);
    CHECK(acre_owner(heap, kept) == ACRE_OWNER_HEAP);
    if (fork() != 0)
        return true; /* the parent exits */
    usleep(200000);
    CHECK(strcmp(acre_pointer(heap, off[0]), "kept") == 0);
    acre_free(heap, kept);
    acre_free(heap, large);
    off[2] = 1;
    _exit(0);
}

static void who_daemonises_publishes_all_first(void **state)
{
    (void)state;
    acre_off *off = shared_page(4 * sizeof(acre_off));
    RUN_CHILD(daemonise, off);
    for (unsigned i = 0; i < 200 && !__atomic_load_n(&off[2], __ATOMIC_SEQ_CST); i++)
        usleep(50000);
    assert_int_equal(off[2], 1);
    expect_settled(&the_daemon, "default", 0, 0);
}

static bool closes_everything(void *arg)
{
    (void)arg;
    CHECK(acre_open(&heap, the_daemon.socket, NULL) == 0);
    acre_client self = acre_self(heap);
    char *block = acre_alloc(heap, 100);
    CHECK(block);
    strcpy(block, "mine");
    for (unsigned round = 0; round < 3; round++) {
        CHECK(close_range(3, ~0u, 0) == 0);
        int other = open("/dev/null", O_RDWR); /* takes a number that may have been the socket's */
        CHECK(other >= 0);
        usleep(200000);
        for (unsigned i = 0; i < 20; i++)
            CHECK(acre_alloc(heap, 200000) != NULL);
        CHECK(acre_self(heap) == self && acre_owner(heap, block) == self);
        CHECK(strcmp(block, "mine") == 0);
        CHECK(fcntl(other, F_GETFD) >= 0);
    }
    acre_close(heap);
    return true;
}

static void a_client_that_closed_all_descriptors_comes_back_as_the_same(void **state)
{
    (void)state;
    RUN_CHILD(closes_everything, NULL);
    expect_settled(&the_daemon, "default", 0, 0);
}

static void *fork_in_a_thread(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < 20; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            alarm(60);
            void *block = acre_alloc(heap, 100);
            acre_free(heap, block);
            _exit(block ? 0 : 1);
        }
        if (!child_ok(pid))
            return (void *)1;
    }
    return NULL;
}

static void fork_works_while_other_threads_allocate(void **state)
{
    (void)state;
    pthread_t thread;
    void *failed;
    static void *blocks[2000];

    heap = heap_open(&the_daemon, NULL);
    assert_int_equal(pthread_create(&thread, NULL, fork_in_a_thread, NULL), 0);
    for (unsigned round = 0; round < 100; round++) {
        for (unsigned i = 0; i < 2000; i++)
            assert_non_null(blocks[i] = acre_alloc(heap, 1 + i * 7));
        for (unsigned i = 0; i < 2000; i++)
            acre_free(heap, blocks[i]);
        assert_int_equal(acre_trim(heap), 0);
    }
    pthread_join(thread, &failed);
    assert_null(failed);
    acre_close(heap);
    expect_settled(&the_daemon, "default", 0, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_forked_child_is_a_client_of_its_own),
        cmocka_unit_test(children_of_children_are_clients_too),
        cmocka_unit_test(a_raw_fork_is_seen_as_well),
        cmocka_unit_test(a_child_that_lives_on_does_not_keep_its_dead_parent_alive),
        cmocka_unit_test(exec_ends_a_client_though_its_pid_lives_on),
        cmocka_unit_test(who_daemonises_publishes_all_first),
        cmocka_unit_test(a_client_that_closed_all_descriptors_comes_back_as_the_same),
        cmocka_unit_test(fork_works_while_other_threads_allocate),
    };
    return run_beside_daemon(tests, "capacity = \"1G\"\ntenant \"default\" { max = \"256M\" }\n");
}
