/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clients that mean harm to the daemon and to another tenant: they scribble over all that they can
 * write while the daemon sweeps and reaps, send packets valid, mutated and at random, descriptors
 * of every kind, hold back what it waits for, and are killed at any moment. Meanwhile a client of
 * the other tenant does checked work. It must not notice; at the end its books are right and the
 * daemon holds what it held at the beginning.
 */
#include "tests/system/harness.h"

#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "proto/codec.h"
#include "proto/wire.h"
#include "shm/segment.h"
#include "shm/sizeclass.h"

#define N_HOSTILE  4
#define N_KILLS    80
#define SLOTS_USED 6
#define CALL_NS    300000000ull

static const char *const config = "capacity = \"512M\"\n"
                                  "tenant bad { max = \"48M\" users = {\"*\"} }\n"
                                  "tenant good { max = \"48M\" users = {\"*\"} }\n";

/* ---- a hostile client ---- */

struct hostile {
    uint64_t rng, serial, client;
    int sock;
    struct life_page *page;
    struct {
        char *base;
        uint64_t bytes;
        int fd;
    } segs[SLOTS_USED];
    uint64_t offs[64]; /* of grants */
    uint32_t n_units[64];
};

static uint64_t below(struct hostile *h, uint64_t n)
{
    return rnd(&h->rng) % n;
}

static bool call(struct hostile *h, struct msg_request *req, int fd, struct msg_reply *reply,
                 int *ret_fd)
{
    struct wire_call c = {.sock = h->sock, .deadline_ns = wire_now_ns() + CALL_NS};
    req->serial = ++h->serial;
    return wire_call(&c, req, fd, reply, ret_fd) == 0 && reply->error == 0;
}

/* One of the things that are no life page, or nearly one; and sometimes one. */
static int any_descriptor(struct hostile *h)
{
    int pair[2], fd;
    switch (below(h, 12)) {
    case 0:
        return eventfd(0, EFD_CLOEXEC);
    case 1:
        return epoll_create1(EPOLL_CLOEXEC);
    case 2:
        return open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    case 3:
        return open("/", O_PATH | O_CLOEXEC);
    case 4:
        return open("/dev/zero", O_RDWR | O_CLOEXEC);
    case 5:
        (void)!pipe2(pair, O_CLOEXEC);
        close(pair[1]);
        return pair[0];
    case 6: /* itself: the connection lies in its own queue */
        return fcntl(h->sock, F_DUPFD_CLOEXEC, 0);
    case 7: /* a connection with a descriptor in it */
        (void)!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair);
        (void)wire_send(pair[1], "x", 1, h->sock);
        close(pair[1]);
        return pair[0];
    case 8: /* a segment, or nothing */
        fd = h->segs[0].fd;
        return fd >= 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1;
    case 9:
        fd = memfd_create("huge", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        (void)!ftruncate(fd, (off_t)1 << 40);
        return fd;
    case 10:
        fd = memfd_create("unmapped", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        (void)!ftruncate(fd, 4096);
        return fd;
    default:
        fd = memfd_create("sealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        (void)!ftruncate(fd, 4096);
        (void)fcntl(fd, F_ADD_SEALS, 1 << below(h, 5));
        return fd;
    }
}

/* A packet with any number of descriptors. */
static void send_many(int sock, const void *buf, size_t n, const int *fds, unsigned n_fds)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(16 * sizeof(int))];
    } control = {0};
    struct iovec iov = {(void *)buf, n};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    if (n_fds > 0) {
        msg.msg_control = control.bytes;
        msg.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
        memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
    }
    (void)sendmsg(sock, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static uint64_t any_number(struct hostile *h)
{
    static const uint64_t chosen[] = {0, 1, 2, 8192, 65535, 65536, 131071, UINT32_MAX, UINT64_MAX};
    uint64_t k = below(h, 16);
    return k < 9 ? chosen[k] : k < 12 ? h->offs[below(h, 64)] : rnd(&h->rng) >> below(h, 60);
}

static void any_request(struct hostile *h, struct msg_request *req)
{
    static const enum msg_op ops[] = {
        MSG_GROW,    MSG_GROW,    MSG_GROW,        MSG_RELEASE, MSG_FREE_LARGE, MSG_ROOT,
        MSG_STATUS,  MSG_TENANTS, MSG_MAP_SEGMENT, MSG_RELEASE, MSG_LOOK,       MSG_PUBLISH_ALL,
        MSG_EXTENTS, MSG_HOLDERS, MSG_TENANT_DROP, MSG_DETACH};
    memset(req, 0, sizeof(*req));
    req->op = ops[below(h, 14 + (below(h, 8) == 0) * 2)];
    req->serial = ++h->serial;
    switch (req->op) {
    case MSG_GROW:
        req->grow.n_units = (uint32_t)(below(h, 8) ? 1 + below(h, 300) : any_number(h));
        req->grow.exact = below(h, 2);
        req->grow.align_order = (uint32_t)(below(h, 4) ? 0 : below(h, 20));
        req->grow.class_plus_1 = (uint32_t)below(h, 42);
        break;
    case MSG_RELEASE:
        req->release.n_runs = (uint32_t)below(h, MSG_RUNS_MAX + 1);
        for (uint32_t i = 0; i < req->release.n_runs; i++) {
            uint64_t k = below(h, 64);
            req->release.runs[i] = (struct msg_run){h->offs[k], h->n_units[k]};
            if (below(h, 4) == 0)
                req->release.runs[i].n_units = (uint32_t)any_number(h);
            if (below(h, 8) == 0)
                req->release.runs[i].off = any_number(h);
        }
        break;
    case MSG_FREE_LARGE:
        req->free_large.off = any_number(h) & ~(below(h, 4) ? 8191ull : 0ull);
        break;
    case MSG_ROOT:
        req->root.op = (enum root_op)below(h, 4);
        snprintf(req->root.name, sizeof(req->root.name), "root %d", (int)below(h, 2000));
        req->root.desired = any_number(h);
        req->root.expected = below(h, 2) ? 0 : any_number(h);
        break;
    case MSG_MAP_SEGMENT:
        req->map_segment.slot = (uint32_t)(below(h, 2) ? below(h, 8) : any_number(h));
        break;
    case MSG_EXTENTS:
        req->extents.slot = (uint32_t)(below(h, 2) ? below(h, 8) : any_number(h));
        req->extents.unit = (uint32_t)(below(h, 2) ? below(h, SLOT_UNITS) : any_number(h));
        break;
    case MSG_HOLDERS:
        req->holders.after = (tag_t)below(h, CLIENT_ID_MAX + 1);
        break;
    case MSG_LOOK:
    case MSG_TENANT_DROP:
        strcpy(req->look.tenant, "bad");
        break;
    default:
        break;
    }
}

static void map_segments(struct hostile *h)
{
    for (uint32_t slot = 0; slot < SLOTS_USED; slot++) {
        struct msg_request req = {.op = MSG_MAP_SEGMENT};
        struct msg_reply reply;
        int fd = -1;
        req.map_segment.slot = slot;
        if (h->segs[slot].base || !call(h, &req, -1, &reply, &fd) || fd < 0)
            continue;
        char *base =
            mmap(NULL, reply.map_segment.size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (base == MAP_FAILED) {
            close(fd);
            continue;
        }
        h->segs[slot].base = base;
        h->segs[slot].bytes = reply.map_segment.size_bytes;
        h->segs[slot].fd = fd;
    }
}

static uint64_t any_entry(struct hostile *h, const struct segment_shape *s)
{
    uint32_t token = holder_token((tag_t)below(h, 40), (unsigned)below(h, 3));
    unsigned geo = (unsigned)below(h, N_GEOS + 4);
    switch (below(h, 6)) {
    case 0:
        return rnd(&h->rng);
    case 1:
        return unit_entry_large((uint32_t)below(h, s->n_units), (tag_t)below(h, 40));
    case 2:
        return unit_entry_large((uint32_t)below(h, 4), (tag_t)below(h, 40));
    case 3:
        return unit_entry_plain((enum unit_state)below(h, 9), token);
    default:
        return unit_entry_slab(below(h, 2) ? U_PARKED : U_SLAB, geo, (unsigned)below(h, 4), token);
    }
}

/* Over header, tables and the tags of slabs; sparsely, so that some of it goes on making sense. */
static void scribble(struct hostile *h)
{
    unsigned slot = (unsigned)below(h, SLOTS_USED);
    char *base = h->segs[slot].base;
    if (!base)
        return;
    struct segment_shape s = segment_shape((uint32_t)(h->segs[slot].bytes / UNIT_BYTES));
    uint32_t unit = (uint32_t)below(h, s.n_units),
             n = (uint32_t)MIN(below(h, 64), s.n_units - unit);
    uint64_t size = UNIT_BYTES;
    for (uint32_t u = unit; u < unit + n; u++) {
        switch (below(h, 8)) {
        case 0:
        case 1:
        case 2:
            segment_entries(base, &s)[u] = any_entry(h, &s);
            break;
        case 3:
            segment_tags(base, &s)[u] = (tag_t)(below(h, 2) ? below(h, 40) : below(h, 2) * 65535);
            break;
        case 4:
            segment_hints(base, &s)[u] = (uint8_t)below(h, 256);
            break;
        case 5:
            memset(base + u * size, (int)below(h, 40), below(h, UNIT_BYTES));
            break;
        case 6: /* little endian tags of few clients */
            for (unsigned i = 0; i < 256; i++)
                ((tag_t *)(void *)(base + u * size))[i] = (tag_t)below(h, 40);
            break;
        default:
            base[below(h, SEG_HEADER_BYTES)] = (char)below(h, 256);
        }
    }
}

static void send_nonsense(struct hostile *h)
{
    uint8_t buf[WIRE_PACKET_MAX + 64];
    struct msg_request req;
    int fds[16];
    unsigned n_fds = below(h, 4) ? 0 : (unsigned)below(h, below(h, 4) ? 2 : 17);
    any_request(h, &req);
    size_t n = codec_pack_request(&req, buf);
    switch (below(h, 4)) {
    case 0: /* some bytes of it */
        for (uint64_t k = below(h, 4) + 1; k > 0; k--)
            buf[below(h, n)] ^= (uint8_t)(1u << below(h, 8));
        break;
    case 1: /* a part of it */
        n = below(h, n) + 1;
        break;
    case 2: /* more than it, more than is allowed */
        for (size_t i = n; i < sizeof(buf); i++)
            buf[i] = (uint8_t)below(h, 256);
        n = below(h, sizeof(buf)) + 1;
        break;
    default:
        break;
    }
    for (unsigned i = 0; i < n_fds; i++) {
        fds[i] = any_descriptor(h);
        n_fds = fds[i] < 0 ? i : n_fds;
    }
    send_many(h->sock, buf, below(h, 50) ? n : 0, fds, n_fds);
    for (unsigned i = 0; i < n_fds; i++)
        close(fds[i]);
}

/* Asks and does not read. */
static void flood(struct hostile *h)
{
    uint8_t buf[WIRE_PACKET_MAX];
    struct msg_request req;
    for (int i = 0; i < 300; i++) {
        any_request(h, &req);
        (void)!send(h->sock, buf, codec_pack_request(&req, buf), MSG_NOSIGNAL | MSG_DONTWAIT);
    }
}

static bool greet(struct hostile *h)
{
    h->serial = 1;
    return wire_hello(the_daemon.socket, wire_now_ns() + 5000000000ull, &h->sock, NULL) == 0;
}

/* A connection that attaches and does not wait for what comes of it. */
static void half_a_conversation(struct hostile *h)
{
    uint8_t buf[WIRE_PACKET_MAX];
    struct msg_request req = {.op = MSG_ATTACH, .serial = 2};
    struct hostile other = {.rng = rnd(&h->rng) | 1, .sock = -1};
    strcpy(req.attach.tenant, "bad");
    if (below(h, 4) == 0) {
        req.attach.resume_client = h->client;
        if (h->page && below(h, 2))
            memcpy(req.attach.secret, h->page->secret, sizeof(req.attach.secret));
    }
    if (!greet(&other))
        return;
    int fd = any_descriptor(h);
    send_many(other.sock, buf, codec_pack_request(&req, buf), &fd, fd >= 0);
    if (below(h, 2))
        (void)poll(&(struct pollfd){.fd = other.sock, .events = POLLIN}, 1, 20);
    if (below(h, 2))
        flood(&other);
    close_fd(&fd);
    close(other.sock);
}

static bool attach(struct hostile *h)
{
    struct msg_request req = {.op = MSG_ATTACH};
    struct msg_reply reply;
    int control_fd = -1, fd = memfd_create("life", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    (void)!ftruncate(fd, sizeof(*h->page));
    h->page = mmap(NULL, sizeof(*h->page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    h->page->magic = LIFE_MAGIC;
    h->page->secret[3] = (uint8_t)below(h, 256);
    strcpy(req.attach.tenant, "bad");
    snprintf(req.attach.name, sizeof(req.attach.name), "%c%c%%n\"\n", (int)below(h, 255) + 1, 0xff);
    bool ok = greet(h) && call(h, &req, fd, &reply, &control_fd);
    if (ok)
        h->client = reply.attach.client;
    if (ok && below(h, 4) == 0)
        (void)fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL);
    if (ok && below(h, 4) == 0) /* what is asked may change */
        (void)!ftruncate(fd, (off_t)below(h, 1 << 20));
    close_fd(&fd);
    close_fd(&control_fd);
    return ok;
}

static void live(struct hostile *h)
{
    struct msg_request req;
    struct msg_reply reply;
    for (int step = 0; step < 150; step++) {
        switch (below(h, 10)) {
        case 0:
            map_segments(h);
            break;
        case 1:
            send_nonsense(h);
            break;
        case 2:
            if (below(h, 8) == 0)
                flood(h);
            else
                half_a_conversation(h);
            break;
        case 3:
        case 4:
        case 5:
            scribble(h);
            break;
        default:
            any_request(h, &req);
            if (call(h, &req, -1, &reply, NULL) && reply.op == MSG_GROW) {
                uint64_t k = below(h, 64);
                h->offs[k] = reply.grow.run.off;
                h->n_units[k] = reply.grow.run.n_units;
            }
        }
    }
}

/* Lives one after another in one process, until it is killed. */
static bool be_hostile(void *arg)
{
    static const int for_ever = 1;
    struct hostile h = {.rng = *(uint64_t *)arg ^ ((uint64_t)getpid() << 24)};
    signal(SIGBUS, SIG_IGN);
    sizeclass_init();
    for (unsigned i = 0; i < SLOTS_USED; i++)
        h.segs[i].fd = -1;
    while (for_ever) {
        h.sock = -1;
        if (attach(&h))
            live(&h);
        close_fd(&h.sock);
        if (below(&h, 8)) /* else the page stays mapped: it lives on without a connection */
            munmap(h.page, sizeof(*h.page));
        for (unsigned i = 0; i < SLOTS_USED; i++) {
            if (h.segs[i].base)
                munmap(h.segs[i].base, h.segs[i].bytes);
            h.segs[i].base = NULL;
            close_fd(&h.segs[i].fd);
        }
    }
    return false;
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

static void expect_files(unsigned n_fds, unsigned n_maps)
{
    for (unsigned i = 0;
         i < 300 && (daemon_fds(&the_daemon) != n_fds || daemon_maps(&the_daemon) != n_maps); i++)
        usleep(20000);
    assert_int_equal(daemon_fds(&the_daemon), n_fds);
    assert_int_equal(daemon_maps(&the_daemon), n_maps);
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
    uint64_t *seed = shared_page(sizeof(*seed));
    pid_t hostile[N_HOSTILE];
    uint64_t rng = *seed = g->seed = test_seed(11);

    daemon_up(&the_daemon, config);
    acre_close(heap_open(&the_daemon, "good"));
    acre_close(heap_open(&the_daemon, "bad"));
    drop_when_empty("good");
    drop_when_empty("bad");
    usleep(100000);
    unsigned n_fds = daemon_fds(&the_daemon), n_maps = daemon_maps(&the_daemon);

    pid_t worker = child_start(do_good, g);
    for (unsigned i = 0; i < N_HOSTILE; i++)
        hostile[i] = child_start(be_hostile, seed);
    for (unsigned k = 0; k < N_KILLS; k++) {
        usleep(rnd(&rng) % 100000);
        if (k % 16 == 7)
            check_both();
        unsigned i = rnd(&rng) % N_HOSTILE;
        assert_int_equal(kill(hostile[i], SIGKILL), 0);
        assert_int_equal(child_signal(hostile[i]), SIGKILL);
        hostile[i] = child_start(be_hostile, seed);
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

/* Attaches, hangs up and stays mapped, until it is refused. */
static bool hoard(void *arg)
{
    unsigned *n = arg;
    struct hostile h = {.rng = 5, .sock = -1};
    CHECK(setgroups(0, NULL) == 0 && setgid(65534) == 0 && setuid(65534) == 0);
    while (*n < 1000 && attach(&h)) {
        close_fd(&h.sock);
        (*n)++;
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
    unsigned *n = shared_page(sizeof(*n));
    if (geteuid() != 0)
        skip();
    limited_daemon_up();
    pid_t hoarder = child_start(hoard, n);
    for (unsigned last = ~0u; *n == 0 || *n != last; usleep(300000))
        last = *n;
    printf("%u clients of one user\n", *n);
    struct acre_heap *heap = heap_open(&the_daemon, "good");
    assert_non_null(acre_alloc(heap, 100));
    acre_close(heap);
    assert_int_equal(kill(hoarder, SIGKILL), 0);
    assert_int_equal(child_signal(hoarder), SIGKILL);
    drop_when_empty("bad");
    daemon_down(&the_daemon);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hostile_clients_harm_nobody_else),
        cmocka_unit_test(one_user_cannot_shut_out_the_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
