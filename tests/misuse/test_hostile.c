/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clients that mean harm to the daemon and to another tenant: they scribble over all that they can
 * write while the daemon sweeps and reaps, send packets valid, mutated and at random, descriptors
 * of every kind, hold back what it waits for, and are killed at any moment. Meanwhile a client of
 * the other tenant does checked work. It must not notice; at the end its books are right and the
 * daemon holds what it held at the beginning.
 */
#include "tests/misuse/hostile.h"

#include <fcntl.h>
#include <linux/fuse.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define N_HOSTILE 4
#define N_KILLS   80

static const char *const config = "capacity = \"512M\"\n"
                                  "tenant bad { max = \"48M\" users = {\"*\"} }\n"
                                  "tenant good { max = \"48M\" users = {\"*\"} }\n";

static bool be_hostile(void *arg)
{
    struct hostile_orders *orders = arg;
    hostile_be(orders, orders->seed ^ (uint64_t)getpid() << 24);
}

/* ---- the other tenant's client ---- */

struct good {
    int stop;
    uint64_t seed, rounds, worst_ns, live_bytes;
};

static bool check_block(const unsigned char *block, size_t n, unsigned char mark)
{
    CHECK(block[0] == mark && block[n / 2] == mark && block[n - 1] == mark);
    return true;
}

static bool do_good(void *arg)
{
    struct good *g = arg;
    struct acre_heap *heap;
    unsigned char *blocks[256] = {0}, marks[256];
    size_t sizes[256];
    uint64_t rng = g->seed;

    CHECK(acre_open(&heap, the_daemon.socket, "good") == 0);
    while (!__atomic_load_n(&g->stop, __ATOMIC_SEQ_CST)) {
        unsigned i = rnd(&rng) % 256;
        uint64_t began_ns = wire_now_ns();
        if (blocks[i]) {
            if (!check_block(blocks[i], sizes[i], marks[i]))
                return false;
            acre_free(heap, blocks[i]);
        }
        sizes[i] = rnd(&rng) % 20 ? rnd(&rng) % 3000 + 1 : rnd(&rng) % 300000 + 1;
        blocks[i] = acre_alloc(heap, sizes[i]);
        CHECK(blocks[i]);
        marks[i] = (unsigned char)rnd(&rng);
        memset(blocks[i], marks[i], sizes[i]);
        CHECK(acre_owner(heap, blocks[i]) == acre_self(heap));
        uint64_t took_ns = wire_now_ns() - began_ns;
        g->worst_ns = took_ns > g->worst_ns ? took_ns : g->worst_ns;
        if (g->rounds++ % 1000 == 0)
            CHECK(acre_root_set(heap, "newest", acre_offset(heap, blocks[i])) == 0 &&
                  acre_adopt(heap, blocks[i]) == 0);
    }
    for (unsigned i = 0; i < 256; i++) {
        if (blocks[i] && !check_block(blocks[i], sizes[i], marks[i]))
            return false;
        if (i % 2 && blocks[i]) { /* these outlive it */
            g->live_bytes += acre_usable_size(heap, blocks[i]);
            CHECK(acre_publish(heap, blocks[i]) == 0);
        }
    }
    acre_close(heap);
    return true;
}

/* ---- the daemon, seen by nobody in particular ---- */

static int drop_tenant(const char *name)
{
    struct msg_request req = {.op = MSG_TENANT_DROP, .serial = 2};
    struct msg_reply reply;
    int sock = -1;
    assert_int_equal(wire_hello(the_daemon.socket, wire_now_ns() + 5000000000ull, &sock, NULL), 0);
    struct wire_call c = {.sock = sock, .deadline_ns = wire_now_ns() + 5000000000ull};
    strcpy(req.tenant_drop.tenant, name);
    assert_int_equal(wire_call(&c, &req, -1, &reply, NULL), 0);
    close(sock);
    return reply.error;
}

static void drop_when_empty(const char *name)
{
    int r = -EBUSY;
    for (unsigned i = 0; r == -EBUSY && i < 600; i++) {
        r = drop_tenant(name);
        if (r == -EBUSY)
            usleep(20000);
    }
    assert_int_equal(r, 0);
}

/* What goes on in the daemon after its clients have gone ends soon: it is seen resting. */
static void rest_files(unsigned *ret_n_fds, unsigned *ret_n_maps)
{
    for (unsigned i = 0, n_same = 0; i < 300 && n_same < 25; i++) {
        unsigned n_fds = daemon_fds(&the_daemon), n_maps = daemon_maps(&the_daemon);
        n_same = n_fds == *ret_n_fds && n_maps == *ret_n_maps ? n_same + 1 : 0;
        *ret_n_fds = n_fds;
        *ret_n_maps = n_maps;
        usleep(20000);
    }
}

static void expect_files(unsigned n_fds, unsigned n_maps)
{
    for (unsigned i = 0;
         i < 300 && (daemon_fds(&the_daemon) > n_fds || daemon_maps(&the_daemon) > n_maps); i++)
        usleep(20000);
    assert_true(daemon_fds(&the_daemon) <= n_fds && daemon_maps(&the_daemon) <= n_maps);
}

/* Finds fault, as it should; but it comes to an end, and the good ones are as they were. */
static void check_both(void)
{
    char command[512];
    snprintf(command, sizeof(command), "%s check bad --socket %s >/dev/null 2>&1",
             getenv("ACRECTL"), the_daemon.socket);
    int status = system(command);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) <= 1);
    snprintf(command, sizeof(command), "%s check good --socket %s", getenv("ACRECTL"),
             the_daemon.socket);
    assert_int_equal(system(command), 0);
}

static void hostile_clients_harm_nobody_else(void **state)
{
    (void)state;
    struct good *g = shared_page(sizeof(*g));
    struct hostile_orders *orders = shared_page(sizeof(*orders));
    pid_t hostile[N_HOSTILE];
    unsigned n_fds = 0, n_maps = 0;
    uint64_t rng = orders->seed = g->seed = test_seed(11);

    strcpy(orders->tenant, "bad");
    orders->as_nobody = true;
    daemon_up(&the_daemon, config);
    assert_int_equal(chmod(the_daemon.dir, 0755), 0);
    acre_close(heap_open(&the_daemon, "good"));
    acre_close(heap_open(&the_daemon, "bad"));
    drop_when_empty("good");
    drop_when_empty("bad");
    rest_files(&n_fds, &n_maps);

    pid_t worker = child_start(do_good, g);
    assert_int_equal(madvise(g, sizeof(*g), MADV_DONTFORK), 0); /* not for the hostile ones */
    for (unsigned i = 0; i < N_HOSTILE; i++)
        hostile[i] = child_start(be_hostile, orders);
    for (unsigned k = 0; k < N_KILLS; k++) {
        usleep(rnd(&rng) % 100000);
        if (k % 16 == 7)
            check_both();
        unsigned i = rnd(&rng) % N_HOSTILE;
        assert_int_equal(kill(hostile[i], SIGKILL), 0);
        assert_int_equal(child_signal(hostile[i]), SIGKILL);
        hostile[i] = child_start(be_hostile, orders);
    }
    for (unsigned i = 0; i < N_HOSTILE; i++) {
        assert_int_equal(kill(hostile[i], SIGKILL), 0);
        assert_int_equal(child_signal(hostile[i]), SIGKILL);
    }
    __atomic_store_n(&g->stop, 1, __ATOMIC_SEQ_CST);
    assert_true(child_ok(worker));
    printf("%llu rounds beside them, the slowest took %llu us\n", (unsigned long long)g->rounds,
           (unsigned long long)g->worst_ns / 1000);
    drop_when_empty("bad"); /* first: acrectl finds fault with what they have left */
    expect_settled(&the_daemon, "good", (long long)g->live_bytes, 0);
    assert_int_equal(tenant_stats(&the_daemon, "good").published_bytes, g->live_bytes);
    drop_when_empty("good");
    drop_when_empty("bad"); /* acrectl looked at it */
    expect_files(n_fds, n_maps);
    daemon_down(&the_daemon);
}

/* ---- what one user may hold ---- */

struct hoard {
    unsigned n;
    struct hostile_orders orders;
};

/* Attaches, hangs up and stays mapped, until it is refused. */
static bool hoard(void *arg)
{
    struct hoard *hoard = arg;
    struct hostile h;
    hostile_become_nobody(&hoard->orders);
    hostile_init(&h, &hoard->orders, 5);
    while (hoard->n < 1000 && hostile_attach(&h, "hoard")) {
        hostile_leave(&h, true);
        hoard->n++;
    }
    pause();
    return true;
}

/* A daemon that may have few descriptors: a process cannot raise its own limit again. */
static void limited_daemon_up(void)
{
    const char *program = getenv("ACRE_DAEMON");
    char script[] = "/tmp/acre-test-limited-XXXXXX", old[512];
    int fd = mkstemp(script);
    assert_true(program != NULL && fd >= 0);
    snprintf(old, sizeof(old), "%s", program);
    dprintf(fd, "#!/bin/sh\nulimit -n 256\nexec %s \"$@\"\n", old);
    assert_int_equal(fchmod(fd, 0700), 0);
    close(fd);
    setenv("ACRE_DAEMON", script, 1);
    daemon_up(&the_daemon, config);
    setenv("ACRE_DAEMON", old, 1);
    unlink(script);
    assert_int_equal(chmod(the_daemon.dir, 0755), 0);
}

static void one_user_cannot_shut_out_the_others(void **state)
{
    (void)state;
    struct hoard *h = shared_page(sizeof(*h));
    if (geteuid() != 0)
        skip();
    limited_daemon_up();
    strcpy(h->orders.tenant, "bad");
    h->orders.as_nobody = true;
    pid_t hoarder = child_start(hoard, h);
    for (unsigned last = ~0u; h->n == 0 || h->n != last; usleep(300000))
        last = h->n;
    printf("%u clients of one user\n", h->n);
    struct acre_heap *heap = heap_open(&the_daemon, "good");
    assert_non_null(acre_alloc(heap, 100));
    acre_close(heap);
    assert_int_equal(kill(hoarder, SIGKILL), 0);
    assert_int_equal(child_signal(hoarder), SIGKILL);
    drop_when_empty("bad");
    daemon_down(&the_daemon);
}

/* ---- descriptors that cannot be closed ---- */

static void await(const uint32_t *word, uint32_t value)
{
    while (__atomic_load_n(word, __ATOMIC_SEQ_CST) < value)
        usleep(1000);
}

#define N_HANDS 64u /* a third of the daemon's table */

struct clog {
    struct hostile_orders orders;
    char path[32];
    pid_t server;
    uint32_t is_served, n_sent; /* is_served: 2, it cannot be */
};

/* A file system of one file, which it opens, and whose closing it never answers. */
static void serve_no_flush(int fd)
{
    static char in[1 << 17];
    while (read(fd, in, sizeof(in)) > 0) {
        const struct fuse_in_header *h = (void *)in;
        struct {
            struct fuse_out_header head;
            union {
                struct fuse_init_out init;
                struct fuse_open_out open;
                struct fuse_attr_out attr;
            };
        } out = {.head.unique = h->unique};
        size_t n = 0;
        if (h->opcode == FUSE_FLUSH)
            continue;
        if (h->opcode == FUSE_INIT) {
            out.init = (struct fuse_init_out){.major = 7, .minor = 31, .max_write = 4096};
            n = sizeof(out.init);
        } else if (h->opcode == FUSE_OPEN) {
            n = sizeof(out.open);
        } else if (h->opcode == FUSE_GETATTR) {
            out.attr.attr.mode = S_IFREG | 0666;
            n = sizeof(out.attr);
        } else {
            out.head.error = -ENOSYS;
        }
        out.head.len = (uint32_t)(sizeof(out.head) + n);
        (void)!write(fd, &out, out.head.len);
    }
}

/* A process of its own, in a mount namespace of its own: with it the file system ends, and whoever
 * is stuck in it goes on. */
static bool serve_file(void *arg)
{
    struct clog *c = arg;
    char options[128];
    int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    snprintf(options, sizeof(options), "fd=%d,rootmode=100666,user_id=0,group_id=0,allow_other",
             fd);
    bool ok = fd >= 0 && unshare(CLONE_NEWNS) == 0 &&
              mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
              mount("acre-test", c->path, "fuse", 0, options) == 0;
    __atomic_store_n(&c->is_served, ok ? 1 : 2, __ATOMIC_SEQ_CST);
    if (ok)
        serve_no_flush(fd);
    pause();
    return true;
}

static int open_what_does_not_close(const struct clog *c)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/root%s", (int)c->server, c->path);
    return open(path, O_RDWR | O_CLOEXEC);
}

/* A wrong life page each time, until it is hung up on. */
static bool hand_over_what_does_not_close(void *arg)
{
    struct clog *c = arg;
    int file = open_what_does_not_close(c);
    CHECK(file >= 0);
    hostile_become_nobody(&c->orders);
    struct hostile h;
    hostile_init(&h, &c->orders, 5);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    CHECK(hostile_greet(&h));
    for (bool ok = true; ok && c->n_sent < N_HANDS;) {
        struct wire_call call = {.sock = h.sock, .deadline_ns = wire_now_ns() + 5000000000ull};
        struct msg_request req = {.op = MSG_ATTACH, .serial = ++h.serial};
        struct msg_reply reply;
        strcpy(req.attach.tenant, "bad");
        ok = wire_call(&call, &req, c->n_sent == 0 ? file : null, &reply, NULL) == 0;
        c->n_sent += ok;
    }
    __atomic_store_n(&c->orders.n_done[0], 1, __ATOMIC_SEQ_CST);
    pause();
    return true;
}

static void who_sends_what_does_not_close_is_not_heard(void **state)
{
    (void)state;
    struct clog *c = shared_page(sizeof(*c));
    if (geteuid() != 0)
        skip();
    strcpy(c->path, "/tmp/acre-test-fuse-XXXXXX");
    close(mkstemp(c->path));
    c->server = child_start(serve_file, c);
    await(&c->is_served, 1);
    if (c->is_served == 1) {
        limited_daemon_up();
        c->orders.as_nobody = true;
        pid_t pid = child_start(hand_over_what_does_not_close, c);
        while (!__atomic_load_n(&c->orders.n_done[0], __ATOMIC_SEQ_CST) && kill(pid, 0) == 0)
            pause_us(10000);
        printf("%u descriptors of one user\n", c->n_sent);
        assert_true(c->n_sent > 1 && c->n_sent < 8); /* the daemon has 192 */
        struct acre_heap *heap = heap_open(&the_daemon, "good");
        assert_non_null(acre_alloc(heap, 100));
        acre_close(heap);
        assert_int_equal(kill(c->server, SIGKILL), 0);
        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_int_equal(child_signal(pid), SIGKILL);
        daemon_down(&the_daemon);
    }
    (void)kill(c->server, SIGKILL);
    (void)child_signal(c->server);
    unlink(c->path);
    if (c->is_served != 1)
        skip(); /* no FUSE here */
}

/* ---- one user's many connections ---- */

#define N_STORM      200u
#define STORM_EACH   16u
#define STORM_ROUNDS 5u

struct storm {
    struct hostile_orders orders;
    uint32_t round, n_asked, n_counted; /* rounds: wanted; sent; answers counted */
    uint32_t is_ready, n_answers;
};

static void ask_all(const int *socks)
{
    uint8_t buf[WIRE_PACKET_MAX];
    for (unsigned i = 0; i < N_STORM * STORM_EACH; i++) {
        struct msg_request req = {.op = MSG_STATUS, .serial = 2 + i};
        (void)wire_send(socks[i % N_STORM], buf, codec_pack_request(&req, buf), -1);
    }
}

static uint32_t count_answers(const int *socks)
{
    uint8_t buf[WIRE_PACKET_MAX];
    uint32_t n = 0;
    for (unsigned i = 0; i < N_STORM; i++)
        while (recv(socks[i], buf, sizeof(buf), MSG_DONTWAIT) > 0)
            n++;
    return n;
}

static bool storm(void *arg)
{
    struct storm *s = arg;
    int socks[N_STORM];
    hostile_become_nobody(&s->orders);
    for (unsigned i = 0; i < N_STORM; i++)
        CHECK(wire_hello(the_daemon.socket, wire_now_ns() + 5000000000ull, &socks[i], NULL) == 0);
    __atomic_store_n(&s->is_ready, 1, __ATOMIC_SEQ_CST);
    for (uint32_t round = 1; round <= STORM_ROUNDS; round++) {
        await(&s->round, 2 * round - 1);
        ask_all(socks);
        __atomic_store_n(&s->n_asked, round, __ATOMIC_SEQ_CST);
        await(&s->round, 2 * round);
        s->n_answers = count_answers(socks);
        __atomic_store_n(&s->n_counted, round, __ATOMIC_SEQ_CST);
    }
    return true;
}

/* How many of theirs were answered when this one was, which came last. */
static uint32_t answers_before(struct storm *s, const struct wire_call *call, uint32_t round)
{
    struct msg_request req = {.op = MSG_STATUS, .serial = 1 + round};
    struct msg_reply reply;
    uint8_t buf[WIRE_PACKET_MAX];
    pid_t worker = daemon_worker(&the_daemon);
    size_t n = codec_pack_request(&req, buf);
    assert_int_equal(kill(worker, SIGSTOP), 0);
    __atomic_store_n(&s->round, 2 * round - 1, __ATOMIC_SEQ_CST);
    await(&s->n_asked, round);
    assert_int_equal(wire_send(call->sock, buf, n, -1), 0);
    assert_int_equal(kill(worker, SIGCONT), 0);
    assert_true(recv(call->sock, buf, sizeof(buf), 0) > 0);
    assert_int_equal(kill(worker, SIGSTOP), 0);
    __atomic_store_n(&s->round, 2 * round, __ATOMIC_SEQ_CST);
    await(&s->n_counted, round);
    assert_int_equal(kill(worker, SIGCONT), 0);
    req.serial += 100;
    assert_int_equal(wire_call(call, &req, -1, &reply, NULL), 0);
    return s->n_answers;
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* Late, this process would see more than was answered before: so it runs before all others. */
static void one_users_connections_share_a_turn(void **state)
{
    (void)state;
    struct storm *s = shared_page(sizeof(*s));
    uint32_t n[STORM_ROUNDS];
    if (geteuid() != 0)
        skip();
    daemon_up(&the_daemon, config);
    assert_int_equal(chmod(the_daemon.dir, 0755), 0);
    s->orders.as_nobody = true;
    struct wire_call call = {.deadline_ns = wire_now_ns() + 60000000000ull};
    assert_int_equal(wire_hello(the_daemon.socket, call.deadline_ns, &call.sock, NULL), 0);
    pid_t pid = child_start(storm, s);
    await(&s->is_ready, 1);
    (void)sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){.sched_priority = 1});
    for (uint32_t round = 1; round <= STORM_ROUNDS; round++)
        n[round - 1] = answers_before(s, &call, round);
    (void)sched_setscheduler(0, SCHED_OTHER, &(struct sched_param){0});
    assert_true(child_ok(pid));
    qsort(n, STORM_ROUNDS, sizeof(n[0]), by_value);
    printf("%u of %u requests were answered before one of another user's\n", n[STORM_ROUNDS / 2],
           N_STORM * STORM_EACH);
    assert_true(n[STORM_ROUNDS / 2] < N_STORM * STORM_EACH / 4 * 3); /* all, were it not so */
    close(call.sock);
    daemon_down(&the_daemon);
}

/* ---- the daemon's table of descriptors ---- */

static void the_table_of_descriptors_never_grows(void **state)
{
    (void)state;
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    daemon_up(&the_daemon, config);
    acre_close(
        heap_open(&the_daemon, "good")); /* the worker serves: before it does, others listen */
    long n = pid_status(daemon_worker(&the_daemon), "FDSize:");
    printf("%ld descriptors\n", n);
    assert_true((rlim_t)n >= MIN(limit.rlim_max, 65536u));
    daemon_down(&the_daemon);
}

/* ---- a life page whose inode is locked for as long as its owner likes ---- */

#define N_STUCK 9u /* more than a pool of threads may have */

struct stuck {
    char tenant[TENANT_NAME_BYTES];
    int fd;
    void *source; /* of a write that waits for a page nobody provides; root may wait so */
    uint32_t is_writing, has_handed_over;
};

static void *write_for_ever(void *arg)
{
    struct stuck *s = arg;
    __atomic_store_n(&s->is_writing, 1, __ATOMIC_SEQ_CST);
    (void)!write(s->fd, s->source, 4096);
    return NULL;
}

static bool lock_inode(struct stuck *s)
{
    struct uffdio_api api = {.api = UFFD_API};
    pthread_t thread;
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
    s->source = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct uffdio_register range = {.range = {(uintptr_t)s->source, 4096},
                                    .mode = UFFDIO_REGISTER_MODE_MISSING};
    CHECK(fd >= 0 && ioctl(fd, UFFDIO_API, &api) == 0 && ioctl(fd, UFFDIO_REGISTER, &range) == 0);
    CHECK(pthread_create(&thread, NULL, write_for_ever, s) == 0);
    while (!__atomic_load_n(&s->is_writing, __ATOMIC_SEQ_CST))
        usleep(1000);
    usleep(50000);
    return true;
}

static bool hand_over_locked(void *arg)
{
    struct stuck *s = arg;
    struct msg_request req = {.op = MSG_ATTACH, .serial = 2};
    uint8_t buf[WIRE_PACKET_MAX];
    int sock = -1;
    memcpy(req.attach.tenant, s->tenant, sizeof(req.attach.tenant));
    s->fd = memfd_create("locked", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    CHECK(s->fd >= 0 && ftruncate(s->fd, 4096) == 0 && lock_inode(s));
    CHECK(wire_hello(the_daemon.socket, wire_now_ns() + 5000000000ull, &sock, NULL) == 0);
    CHECK(wire_send(sock, buf, codec_pack_request(&req, buf), s->fd) == 0);
    __atomic_store_n(&s->has_handed_over, 1, __ATOMIC_SEQ_CST);
    pause();
    return true;
}

static pid_t start_stuck(struct stuck *s, unsigned i)
{
    snprintf(s->tenant, sizeof(s->tenant), "bad%u", i);
    pid_t pid = child_start(hand_over_locked, s);
    while (!__atomic_load_n(&s->has_handed_over, __ATOMIC_SEQ_CST))
        usleep(1000);
    return pid;
}

static void locked_life_pages_stall_their_own_tenants_alone(void **state)
{
    (void)state;
    struct stuck *s = shared_page(N_STUCK * sizeof(*s));
    char text[1024] = "tenant good { max = \"48M\" }\n";
    pid_t pids[N_STUCK];
    if (geteuid() != 0)
        skip();
    for (unsigned i = 0; i < N_STUCK; i++)
        snprintf(text + strlen(text), sizeof(text) - strlen(text),
                 "tenant bad%u { max = \"1M\" }\n", i);
    daemon_up(&the_daemon, text);
    for (unsigned i = 0; i < N_STUCK; i++)
        pids[i] = start_stuck(&s[i], i);
    usleep(100000);
    struct acre_heap *heap = heap_open(&the_daemon, "good");
    assert_non_null(acre_alloc(heap, 100));
    acre_close(heap);
    for (unsigned i = 0; i < N_STUCK; i++) {
        assert_int_equal(kill(pids[i], SIGKILL), 0);
        assert_int_equal(child_signal(pids[i]), SIGKILL);
    }
    daemon_down(&the_daemon);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_table_of_descriptors_never_grows),
        cmocka_unit_test(one_users_connections_share_a_turn),
        cmocka_unit_test(locked_life_pages_stall_their_own_tenants_alone),
        cmocka_unit_test(hostile_clients_harm_nobody_else),
        cmocka_unit_test(one_user_cannot_shut_out_the_others),
        cmocka_unit_test(who_sends_what_does_not_close_is_not_heard),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
