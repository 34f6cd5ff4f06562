/* SPDX-License-Identifier: Apache-2.0 */
/* No false death, and no life too long: who still maps the life page lives, and nobody else does
 * (DESIGN.md section 8). Whatever rings meanwhile, a worker that is killed rings for all. */
#include "tests/system/harness.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>

#define LOOK_MS    1100u /* the daemon asks again at least each second */
#define N_BLOCKS   200u
#define N_CHILDREN 200u
#define CONFIG     "capacity = \"512M\"\ntenant \"default\" { max = \"64M\" }\n"

/* What a client under test says and is told. */
struct stage {
    acre_client self;
    pid_t pid, own_pid, child;
    int is_ready, is_denied;
    unsigned order, n_orders, n_done;
};

enum order { USE, CLOSE_ALL, FORK, EXEC, QUIT, END };

static void pause_ms(unsigned ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L}, NULL);
}

static unsigned load(const void *p)
{
    return __atomic_load_n((const unsigned *)p, __ATOMIC_SEQ_CST);
}

/* ---- the client ---- */

static struct acre_heap *heap;
static unsigned char *blocks[N_BLOCKS];

static size_t block_bytes(unsigned i)
{
    return i % 50 == 49 ? 200000 : 10 + i * 5;
}

static bool take(struct stage *st)
{
    for (unsigned i = 0; i < N_BLOCKS; i++) {
        CHECK(blocks[i] = acre_alloc(heap, block_bytes(i)));
        memset(blocks[i], (int)i, block_bytes(i));
    }
    st->self = acre_self(heap);
    st->own_pid = getpid();
    __atomic_store_n(&st->is_ready, 1, __ATOMIC_SEQ_CST);
    return true;
}

static bool open_and_take(struct stage *st, const struct daemon *on)
{
    CHECK(acre_open(&heap, on->socket, NULL) == 0);
    return take(st);
}

/* Still the same client with the same blocks, and the daemon serves it. */
static bool use(const struct stage *st)
{
    unsigned char *more[20];

    for (unsigned i = 0; i < N_BLOCKS; i++) {
        CHECK(acre_owner(heap, blocks[i]) == st->self);
        for (size_t k = 0; k < block_bytes(i); k++)
            CHECK(blocks[i][k] == (unsigned char)i);
    }
    for (unsigned i = 0; i < 20; i++) {
        CHECK(more[i] = acre_alloc(heap, i % 2 ? 300000 : 700));
        memset(more[i], 0xaa, i % 2 ? 300000 : 700);
        CHECK(acre_owner(heap, more[i]) == st->self);
    }
    for (unsigned i = 0; i < 20; i++)
        acre_free(heap, more[i]);
    CHECK(acre_trim(heap) == 0);
    CHECK(acre_self(heap) == st->self);
    return true;
}

/* A raw system call: no handler closes in the child what it has inherited. */
static bool fork_a_sleeper(struct stage *st)
{
    pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);

    if (pid == 0) {
        alarm(100);
        for (;;)
            pause();
    }
    CHECK(pid > 0);
    st->child = pid;
    return true;
}

static bool obey_one(struct stage *st)
{
    switch (st->order) {
    case USE:
        return use(st);
    case CLOSE_ALL:
        CHECK(close_range(3, ~0u, 0) == 0);
        return true;
    case FORK:
        return fork_a_sleeper(st);
    case EXEC:
        execlp("sleep", "sleep", "60", (char *)NULL);
        return false;
    case QUIT:
        _exit(0);
    default:
        acre_close(heap);
        return true;
    }
}

static bool obey(struct stage *st)
{
    for (unsigned n = 1;; n++) {
        while (load(&st->n_orders) < n)
            pause_ms(2);
        if (!obey_one(st))
            return false;
        __atomic_store_n(&st->n_done, n, __ATOMIC_SEQ_CST);
        if (st->order == END)
            return true;
    }
}

static bool hold(void *arg)
{
    return open_and_take(arg, &the_daemon) && obey(arg);
}

/* ---- the observer ---- */

static void wait_for(const void *p, unsigned value, const char *what)
{
    for (unsigned i = 0; i < 10000 && load(p) != value; i++)
        pause_ms(2);
    if (load(p) != value)
        fail_msg("in vain waited for: %s", what);
}

static void order_begin(struct stage *st, enum order what)
{
    st->order = what;
    __atomic_fetch_add(&st->n_orders, 1, __ATOMIC_SEQ_CST);
}

static void order(struct stage *st, enum order what)
{
    order_begin(st, what);
    wait_for(&st->n_done, st->n_orders, "an order to be obeyed");
}

static void end_well(struct stage *st, pid_t pid, const struct daemon *on)
{
    order(st, END);
    assert_true(child_ok(pid));
    expect_settled(on, "default", 0, 0);
}

static struct tenant_stats stats_of_one(struct stage *st, const struct daemon *on)
{
    wait_for(&st->is_ready, 1, "the client to be ready");
    struct tenant_stats s = tenant_stats(on, "default");
    assert_int_equal(s.n_clients, 1);
    assert_true(s.live_bytes > 0);
    return s;
}

static pid_t start_client(struct stage **ret_st, struct tenant_stats *ret_stats)
{
    struct stage *st = shared_page(sizeof(*st));
    pid_t pid = child_start(hold, st);
    *ret_stats = stats_of_one(st, &the_daemon);
    *ret_st = st;
    return pid;
}

/* Returns when the next one is there. */
static void kill_worker(const struct daemon *on)
{
    pid_t worker = daemon_worker(on);

    assert_int_equal(kill(worker, SIGKILL), 0);
    while (daemon_worker(on) == worker)
        pause_ms(1);
}

static bool scribble(void *arg)
{
    const struct daemon *on = arg;
    char *p;

    CHECK(acre_open(&heap, on->socket, NULL) == 0);
    while ((p = acre_alloc(heap, 200000)))
        memset(p, 0xee, 200000);
    while ((p = acre_alloc(heap, 2000)))
        memset(p, 0xee, 2000);
    CHECK(errno == ENOMEM);
    return true;
}

/* It is believed alive, for longer than the daemon waits between two questions. What others get is
 * not what it has: the client looks at that later. */
static void expect_lives(const struct daemon *on, struct tenant_stats was)
{
    RUN_CHILD(scribble, (void *)on);
    expect_settled(on, "default", was.live_bytes, was.n_clients);
    for (unsigned ms = 0; ms < LOOK_MS; ms += 200) {
        struct tenant_stats s = tenant_stats(on, "default");
        assert_int_equal(s.n_clients, was.n_clients);
        assert_int_equal(s.live_bytes, was.live_bytes);
        pause_ms(200);
    }
}

static void kill_and_settle(pid_t pid, const struct daemon *on)
{
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(child_signal(pid), SIGKILL);
    expect_settled(on, "default", 0, 0);
}

/* ---- who does not run lives ---- */

static void a_stopped_client_lives_through_the_end_of_its_connection(void **state)
{
    struct tenant_stats was;
    struct stage *st;

    (void)state;
    pid_t pid = start_client(&st, &was);
    assert_int_equal(kill(pid, SIGSTOP), 0);
    assert_int_equal(waitpid(pid, &(int){0}, WUNTRACED), pid);
    for (unsigned i = 0; i < 2; i++) {
        kill_worker(&the_daemon);
        expect_lives(&the_daemon, was);
    }
    assert_int_equal(kill(pid, SIGCONT), 0);
    order(st, USE);
    end_well(st, pid, &the_daemon);
}

static bool seize(pid_t pid, uintptr_t options)
{
    if (ptrace(PTRACE_SEIZE, pid, 0, options) == 0)
        return true;
    assert_int_equal(errno, EPERM);
    printf("skipped: this user may not debug its own processes\n");
    return false;
}

static void a_client_held_by_a_debugger_lives_over_a_restart(void **state)
{
    struct tenant_stats was;
    struct stage *st;
    int status;

    (void)state;
    pid_t pid = start_client(&st, &was);
    if (!seize(pid, 0)) {
        end_well(st, pid, &the_daemon);
        skip();
    }
    assert_int_equal(ptrace(PTRACE_INTERRUPT, pid, 0, 0), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSTOPPED(status));
    for (unsigned i = 0; i < 2; i++) {
        kill_worker(&the_daemon);
        expect_lives(&the_daemon, was);
    }
    assert_int_equal(ptrace(PTRACE_DETACH, pid, 0, 0), 0);
    order(st, USE);
    end_well(st, pid, &the_daemon);
}

static void a_client_held_at_its_exit_is_reaped_when_it_is_let_go(void **state)
{
    struct tenant_stats was;
    struct stage *st;
    int status;

    (void)state;
    pid_t pid = start_client(&st, &was);
    if (!seize(pid, PTRACE_O_TRACEEXIT)) {
        end_well(st, pid, &the_daemon);
        skip();
    }
    order_begin(st, QUIT);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status >> 8, SIGTRAP | PTRACE_EVENT_EXIT << 8);
    kill_worker(&the_daemon);
    expect_lives(&the_daemon, was);
    assert_int_equal(ptrace(PTRACE_DETACH, pid, 0, 0), 0);
    assert_true(child_ok(pid));
    expect_settled(&the_daemon, "default", 0, 0);
}

/* ---- pids that mean nothing ---- */

static bool in_a_namespace(void *arg)
{
    struct stage *st = arg;

    if (unshare(CLONE_NEWPID) < 0) {
        st->is_denied = st->is_ready = 1;
        return true;
    }
    pid_t pid = st->pid = child_start(hold, st);
    CHECK(child_signal(pid) == SIGKILL);
    return true;
}

static void a_client_of_another_pid_namespace_lives_and_dies_as_any(void **state)
{
    struct stage *st = shared_page(sizeof(*st));

    (void)state;
    pid_t pid = child_start(in_a_namespace, st);
    wait_for(&st->is_ready, 1, "the client to be ready");
    if (st->is_denied) {
        assert_true(child_ok(pid));
        printf("skipped: this user may not make pid namespaces\n");
        skip();
    }
    struct tenant_stats was = stats_of_one(st, &the_daemon);
    assert_int_equal(st->own_pid, 1); /* as init, which will not die with it */
    kill_worker(&the_daemon);
    expect_lives(&the_daemon, was);
    order(st, USE);
    assert_int_equal(kill(st->pid, SIGKILL), 0);
    assert_true(child_ok(pid));
    expect_settled(&the_daemon, "default", 0, 0);
}

static struct daemon apart;

static bool hold_apart(void *arg)
{
    return open_and_take(arg, &apart) && obey(arg);
}

static bool apart_up(void)
{
    int own = open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC);

    if (own < 0 || unshare(CLONE_NEWPID) < 0)
        return false;
    daemon_up(&apart, CONFIG);
    assert_int_equal(setns(own, CLONE_NEWPID), 0);
    close(own);
    return true;
}

static void a_daemon_that_cannot_name_its_clients_pids_knows_who_lives(void **state)
{
    struct stage *st = shared_page(sizeof(*st));

    (void)state;
    if (!apart_up()) {
        printf("skipped: this user may not make pid namespaces\n");
        skip();
    }
    pid_t pid = child_start(hold_apart, st);
    struct tenant_stats was = stats_of_one(st, &apart);
    kill_worker(&apart);
    expect_lives(&apart, was);
    order(st, USE);
    kill_and_settle(pid, &apart);
    daemon_down(&apart);
}

static bool runs(pid_t pid, const char *program)
{
    char path[64], name[32] = "";

    snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
    FILE *f = fopen(path, "r");
    if (f && !fgets(name, sizeof(name), f))
        name[0] = 0;
    if (f)
        fclose(f);
    name[strcspn(name, "\n")] = 0;
    return strcmp(name, program) == 0;
}

static void exec_while_there_is_no_daemon_ends_a_client(void **state)
{
    struct tenant_stats was;
    struct stage *st;

    (void)state;
    pid_t pid = start_client(&st, &was);
    kill(the_daemon.pid, SIGSTOP); /* so that no worker is started meanwhile */
    assert_int_equal(kill(daemon_worker(&the_daemon), SIGKILL), 0);
    order_begin(st, EXEC);
    for (unsigned i = 0; i < 5000 && !runs(pid, "sleep"); i++)
        pause_ms(2);
    kill(the_daemon.pid, SIGCONT);
    assert_true(runs(pid, "sleep"));
    expect_settled(&the_daemon, "default", 0, 0);
    assert_true(runs(pid, "sleep"));
    kill(pid, SIGKILL);
    assert_int_equal(child_signal(pid), SIGKILL);
}

/* ---- who has inherited all but the page ---- */

struct brood {
    unsigned n_up, n_attached;
    pid_t pids[N_CHILDREN];
    acre_client parent;
    int go[2]; /* ends when they are to begin */
    int end[2];
};

static bool sleep_and_use(struct brood *b)
{
    void *kept[10];
    char c;

    __atomic_fetch_add(&b->n_up, 1, __ATOMIC_SEQ_CST);
    CHECK(read(b->go[0], &c, 1) == 0);
    for (unsigned i = 0; i < 100; i++) {
        CHECK(kept[i % 10] = acre_alloc(heap, 1 + i * 10));
        CHECK(acre_self(heap) != b->parent);
        CHECK(acre_owner(heap, kept[i % 10]) == acre_self(heap));
        if (i < 90)
            acre_free(heap, kept[i % 10]);
    }
    __atomic_fetch_add(&b->n_attached, 1, __ATOMIC_SEQ_CST);
    CHECK(read(b->end[0], &c, 1) == 0);
    return true;
}

static bool breeds_and_dies(void *arg)
{
    struct brood *b = arg;

    CHECK(acre_open(&heap, the_daemon.socket, NULL) == 0);
    for (unsigned i = 0; i < N_BLOCKS; i++)
        CHECK(blocks[i] = acre_alloc(heap, block_bytes(i)));
    b->parent = acre_self(heap);
    close(b->go[1]);
    close(b->end[1]);
    for (unsigned i = 0; i < N_CHILDREN; i++) {
        pid_t pid = i % 4 ? fork() : (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
        CHECK(pid >= 0);
        if (pid == 0) {
            alarm(100);
            _exit(sleep_and_use(b) ? 0 : 1);
        }
        b->pids[i] = pid;
    }
    wait_for(&b->n_up, N_CHILDREN, "the children");
    kill(getpid(), SIGKILL);
    return false;
}

static void two_hundred_children_do_not_keep_their_dead_parent_alive(void **state)
{
    struct brood *b = shared_page(sizeof(*b));

    (void)state;
    assert_int_equal(pipe(b->go) | pipe(b->end), 0);
    assert_int_equal(child_signal(child_start(breeds_and_dies, b)), SIGKILL);
    expect_settled(&the_daemon, "default", 0, 0);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), 0); /* all of them sleep */
    close(b->go[1]);
    wait_for(&b->n_attached, N_CHILDREN, "the children to attach");
    assert_int_equal(tenant_stats(&the_daemon, "default").n_clients, N_CHILDREN);
    assert_int_equal(tenant_stats(&the_daemon, "default").live_blocks, N_CHILDREN * 10);
    close(b->end[1]);
    for (unsigned i = 0; i < N_CHILDREN; i++)
        assert_true(child_ok(b->pids[i]));
    close(b->go[0]);
    close(b->end[0]);
    expect_settled(&the_daemon, "default", 0, 0);
}

static int socket_to(const char *path)
{
    for (int fd = 3; fd < 1024; fd++) {
        struct sockaddr_un a = {0};
        socklen_t n = sizeof(a);
        if (getpeername(fd, (struct sockaddr *)&a, &n) == 0 && strcmp(a.sun_path, path) == 0)
            return fd;
    }
    return -1;
}

union control_of_one {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof(int))];
};

static bool hands_its_socket_over(void *arg)
{
    const int *pair = arg;
    struct stage st = {0};
    union control_of_one control = {0};
    struct msghdr m = {.msg_iov = &(struct iovec){"x", 1},
                       .msg_iovlen = 1,
                       .msg_control = &control,
                       .msg_controllen = sizeof(control)};

    CHECK(open_and_take(&st, &the_daemon));
    int sock = socket_to(the_daemon.socket);
    CHECK(sock >= 0);
    control.header = (struct cmsghdr){CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
    memcpy(CMSG_DATA(&control.header), &sock, sizeof(int));
    CHECK(sendmsg(pair[1], &m, 0) == 1);
    kill(getpid(), SIGKILL);
    return false;
}

static int receive_socket(int from)
{
    union control_of_one control = {0};
    char byte;
    struct msghdr m = {.msg_iov = &(struct iovec){&byte, 1},
                       .msg_iovlen = 1,
                       .msg_control = &control,
                       .msg_controllen = sizeof(control)};
    int sock = -1;

    assert_int_equal(recvmsg(from, &m, MSG_CMSG_CLOEXEC), 1);
    assert_int_equal(control.header.cmsg_type, SCM_RIGHTS);
    memcpy(&sock, CMSG_DATA(&control.header), sizeof(int));
    return sock;
}

static void who_was_sent_a_dead_clients_socket_does_not_keep_it_alive(void **state)
{
    int *pair = shared_page(2 * sizeof(int));

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    pid_t pid = child_start(hands_its_socket_over, pair);
    struct pollfd sock = {.fd = receive_socket(pair[0])};
    assert_int_equal(child_signal(pid), SIGKILL);
    expect_settled(&the_daemon, "default", 0, 0);
    assert_int_equal(poll(&sock, 1, 20000), 1); /* hung up by the daemon */
    assert_true(sock.revents & POLLHUP);
    close(sock.fd);
    close(pair[0]);
    close(pair[1]);
}

/* ---- who has closed all but the page ---- */

static bool daemonises_twice(void *arg)
{
    struct stage *st = arg;

    CHECK(acre_open(&heap, the_daemon.socket, NULL) == 0);
    CHECK(acre_alloc(heap, 5000));
    acre_client first = acre_self(heap);
    pid_t pid = fork();
    if (pid > 0)
        return child_ok(pid);
    if (setsid() < 0 || (pid = fork()) < 0)
        _exit(1);
    if (pid > 0)
        _exit(0);
    alarm(100);
    st->pid = getpid();
    bool ok = close_range(3, ~0u, 0) == 0 && take(st) && st->self != first && obey(st);
    _exit(ok ? 0 : 1);
}

static void who_daemonises_and_closes_all_stays_one_client_over_restarts(void **state)
{
    struct stage *st = shared_page(sizeof(*st));

    (void)state;
    assert_true(child_ok(child_start(daemonises_twice, st)));
    wait_for(&st->is_ready, 1, "the client to be ready");
    for (unsigned i = 0; i < 200 && tenant_stats(&the_daemon, "default").n_clients != 1; i++)
        pause_ms(20); /* the one that it was at first has ended */
    struct tenant_stats was = stats_of_one(st, &the_daemon);
    order(st, CLOSE_ALL);
    expect_lives(&the_daemon, was);
    kill_worker(&the_daemon);
    order(st, USE);
    order(st, CLOSE_ALL);
    kill_worker(&the_daemon);
    expect_settled(&the_daemon, "default", was.live_bytes, 1);
    order(st, USE);
    end_well(st, st->pid, &the_daemon);
}

/* ---- tasks and threads that outlive the first ---- */

static void skip_if_sanitized(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip(); /* their runtimes believe that a thread without a last word lives for ever */
#endif
}

static char task_stack[256 << 10] __attribute__((aligned(64)));

static int task(void *arg)
{
    struct stage *st = arg;

    alarm(100);
    st->pid = getpid();
    return obey(st) ? 0 : 1;
}

static bool leaves_a_task(void *arg)
{
    struct stage *st = arg;

    CHECK(acre_open(&heap, the_daemon.socket, NULL) == 0);
    CHECK(clone(task, task_stack + sizeof(task_stack), CLONE_VM | SIGCHLD, st) > 0);
    CHECK(take(st));
    for (;;)
        pause();
}

/* The process that attached is gone; a task of its memory lives, and uses the client. */
static struct stage *start_task(struct tenant_stats *ret_stats)
{
    struct stage *st = shared_page(sizeof(*st));
    pid_t pid = child_start(leaves_a_task, st);

    *ret_stats = stats_of_one(st, &the_daemon);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(child_signal(pid), SIGKILL);
    return st;
}

static void a_task_that_shares_the_memory_keeps_the_client_alive_until_it_ends(void **state)
{
    struct tenant_stats was;

    (void)state;
    struct stage *st = start_task(&was);
    expect_lives(&the_daemon, was);
    order(st, USE);
    kill_worker(&the_daemon);
    order(st, USE);
    kill_and_settle(st->pid, &the_daemon);
}

/* Neither hang-up nor pidfd is left to say when: the daemon asks again by itself. */
static void a_task_that_has_closed_all_is_found_when_it_ends(void **state)
{
    struct tenant_stats was;

    (void)state;
    struct stage *st = start_task(&was);
    order(st, CLOSE_ALL);
    expect_lives(&the_daemon, was);
    kill_and_settle(st->pid, &the_daemon);
}

/* The pidfd has told of the first process and tells nothing more; the hang-up waits for a child. */
static void a_task_that_came_back_is_found_though_its_child_has_the_socket(void **state)
{
    struct tenant_stats was;

    (void)state;
    struct stage *st = start_task(&was);
    order(st, CLOSE_ALL);
    expect_settled(&the_daemon, "default", was.live_bytes, 1);
    order(st, USE);
    order(st, FORK);
    assert_int_equal(kill(st->pid, SIGKILL), 0);
    assert_int_equal(child_signal(st->pid), SIGKILL);
    expect_settled(&the_daemon, "default", 0, 0);
    assert_true(st->child > 0 && kill(st->child, SIGKILL) == 0);
    assert_int_equal(child_signal(st->child), SIGKILL);
}

static void *obey_in_thread(void *arg)
{
    _exit(obey(arg) ? 0 : 1);
}

static bool first_thread_ends(void *arg)
{
    pthread_t thread;

    CHECK(open_and_take(arg, &the_daemon));
    CHECK(pthread_create(&thread, NULL, obey_in_thread, arg) == 0);
    syscall(SYS_exit, 0);
    return false;
}

static bool is_zombie(pid_t pid)
{
    char path[64], line[256] = "";

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "r");
    if (!f)
        return false;
    bool is = fgets(line, sizeof(line), f) && strstr(line, ") Z ");
    fclose(f);
    return is;
}

static void a_process_whose_first_thread_has_ended_lives(void **state)
{
    skip_if_sanitized();
    struct stage *st = shared_page(sizeof(*st));

    (void)state;
    pid_t pid = child_start(first_thread_ends, st);
    struct tenant_stats was = stats_of_one(st, &the_daemon);
    for (unsigned i = 0; i < 5000 && !is_zombie(pid); i++)
        pause_ms(2);
    assert_true(is_zombie(pid));
    kill_worker(&the_daemon);
    expect_lives(&the_daemon, was);
    order(st, USE);
    end_well(st, pid, &the_daemon);
}

/* ---- threads that end without a word ---- */

#define N_BUSY   3u
#define N_GONE   40u
#define N_THEIRS 8u  /* sizes */
#define N_EACH   64u /* of each: together 2 MiB, and all of N_GONE more than the tenant may have */

struct crowd {
    struct acre_heap *heap;
    unsigned is_over;
    void *left[N_GONE][N_THEIRS];
    unsigned n_gone;
};

static void *goes_on(void *arg)
{
    struct crowd *c = arg;
    void *mine[64] = {0};

    for (unsigned i = 0; !load(&c->is_over); i++) {
        acre_free(c->heap, mine[i % 64]);
        mine[i % 64] = acre_alloc(c->heap, 1 + i * 37 % 3000);
        if (!mine[i % 64])
            return (void *)1;
        if (i % 64 == 0)
            pause_ms(1);
    }
    for (unsigned i = 0; i < 64; i++)
        acre_free(c->heap, mine[i]);
    return NULL;
}

static void *ends_raw(void *arg)
{
    struct crowd *c = arg;

    for (unsigned i = 0; i < N_THEIRS; i++) {
        void *mine[N_EACH];
        for (unsigned k = 0; k < N_EACH; k++)
            mine[k] = acre_alloc(c->heap, 1000 + i * 1000);
        for (unsigned k = 1; k < N_EACH; k++)
            acre_free(c->heap, mine[k]);
        c->left[c->n_gone][i] = mine[0];
    }
    syscall(SYS_exit, 0);
    return NULL;
}

static void threads_that_end_raw_among_others_leave_all_to_be_found(void **state)
{
    skip_if_sanitized();
    struct crowd c = {.heap = heap_open(&the_daemon, NULL)};
    pthread_t busy[N_BUSY], thread;
    long long granted = 0;
    void *failed;

    (void)state;
    for (unsigned i = 0; i < N_BUSY; i++)
        assert_int_equal(pthread_create(&busy[i], NULL, goes_on, &c), 0);
    for (; c.n_gone < N_GONE; c.n_gone++) {
        assert_int_equal(pthread_create(&thread, NULL, ends_raw, &c), 0);
        pthread_join(thread, NULL);
        if (c.n_gone == 3)
            granted = tenant_stats(&the_daemon, "default").granted_bytes;
    }
    long long more = tenant_stats(&the_daemon, "default").granted_bytes - granted;
    __atomic_store_n(&c.is_over, 1, __ATOMIC_SEQ_CST);
    for (unsigned i = 0; i < N_BUSY; i++) {
        pthread_join(busy[i], &failed);
        assert_null(failed);
    }
    printf("%u threads that ended needed %lld bytes more than 4 of them\n", N_GONE, more);
    assert_true(more <= 6 << 20);
    for (unsigned i = 0; i < N_GONE; i++)
        for (unsigned k = 0; k < N_THEIRS; k++) {
            assert_non_null(c.left[i][k]);
            acre_free(c.heap, c.left[i][k]);
        }
    expect_settled(&the_daemon, "default", 0, 1);
    acre_close(c.heap);
    expect_settled(&the_daemon, "default", 0, 0);
}

static int up(void **state)
{
    /* Whose parent has died is waited for here. */
    assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    harness_config = CONFIG;
    return harness_up(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stopped_client_lives_through_the_end_of_its_connection),
        cmocka_unit_test(a_client_held_by_a_debugger_lives_over_a_restart),
        cmocka_unit_test(a_client_held_at_its_exit_is_reaped_when_it_is_let_go),
        cmocka_unit_test(a_client_of_another_pid_namespace_lives_and_dies_as_any),
        cmocka_unit_test(a_daemon_that_cannot_name_its_clients_pids_knows_who_lives),
        cmocka_unit_test(exec_while_there_is_no_daemon_ends_a_client),
        cmocka_unit_test(two_hundred_children_do_not_keep_their_dead_parent_alive),
        cmocka_unit_test(who_was_sent_a_dead_clients_socket_does_not_keep_it_alive),
        cmocka_unit_test(who_daemonises_and_closes_all_stays_one_client_over_restarts),
        cmocka_unit_test(a_task_that_shares_the_memory_keeps_the_client_alive_until_it_ends),
        cmocka_unit_test(a_task_that_has_closed_all_is_found_when_it_ends),
        cmocka_unit_test(a_task_that_came_back_is_found_though_its_child_has_the_socket),
        cmocka_unit_test(a_process_whose_first_thread_has_ended_lives),
        cmocka_unit_test(threads_that_end_raw_among_others_leave_all_to_be_found),
    };
    return cmocka_run_group_tests(tests, up, harness_down);
}
