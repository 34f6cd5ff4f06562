/* SPDX-License-Identifier: Apache-2.0 */
/*
 * soak_probe.c - a bystander that asks the daemon for something each millisecond and takes the
 * time; and a pair of processes that do the same to each other, without a daemon.
 *
 * /proc/PID/schedstat counts how long a thread ran, and how long it was ready and had no CPU. What
 * a request took, less what its two ends waited for a CPU meanwhile, is what the daemon owes to
 * itself: its loop was busy with others, or blocked in the kernel.
 */
#include "tests/misuse/soak.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <time.h>

#define EVERY_NS  1000000u
#define HELD_RUNS 3u
#define CALL_NS   5000000000ull

/* ---- times ---- */

static unsigned place_of(uint64_t ns)
{
    unsigned order = 63u - (unsigned)__builtin_clzll(ns | TIMES_STEPS), shift = order - 4;
    unsigned i = (order - 4) * TIMES_STEPS + (unsigned)(ns >> shift);
    return MIN(i, TIMES_MAX - 1);
}

/* The first that is too long for this place. */
static uint64_t end_of(unsigned i)
{
    unsigned shift = i < TIMES_STEPS ? 0 : i / TIMES_STEPS - 1;
    return (uint64_t)(i - shift * TIMES_STEPS + 1) << shift;
}

void times_add(struct times *times, uint64_t ns)
{
    times->n++;
    times->n_late += ns > LATE_NS;
    times->max_ns = MAX(times->max_ns, ns);
    times->counts[place_of(ns)]++;
}

double times_ms(const struct times *times, double share)
{
    uint64_t sum = 0;
    unsigned i = 0;
    for (; i < TIMES_MAX - 1 && (double)sum < share * (double)times->n; i++)
        sum += times->counts[i];
    return (double)MIN(end_of(i == 0 ? 0 : i - 1), times->max_ns) / 1e6;
}

/* ---- CPUs ---- */

struct cpu {
    uint64_t ran_ns, waited_ns;
};

static int cpu_open(pid_t pid)
{
    char path[48];
    snprintf(path, sizeof(path), "/proc/%d/schedstat", (int)pid);
    return open(path, O_RDONLY | O_CLOEXEC);
}

static struct cpu cpu_read(int fd)
{
    struct cpu c = {0};
    char text[96];
    ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
    char *next = text;
    if (n <= 0)
        return c;
    text[n] = 0;
    c.ran_ns = strtoull(text, &next, 10);
    c.waited_ns = strtoull(next, NULL, 10);
    return c;
}

/* ---- the pace ---- */

static void next_ms(uint64_t *at_ns)
{
    uint64_t now_ns = wire_now_ns();
    *at_ns = MAX(*at_ns + EVERY_NS, now_ns);
    struct timespec at = {(time_t)(*at_ns / 1000000000u), (long)(*at_ns % 1000000000u)};
    (void)clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
}

bool soak_is_held(struct soak_worker *worker, uint64_t held_bytes)
{
    if (!__atomic_load_n(&soak->hold, __ATOMIC_SEQ_CST))
        return false;
    worker->held_bytes = held_bytes;
    __atomic_store_n(&worker->is_held, 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&soak->hold, __ATOMIC_SEQ_CST))
        pause_us(500);
    __atomic_store_n(&worker->is_held, 0, __ATOMIC_SEQ_CST);
    return true;
}

/* ---- requests ---- */

struct probe {
    struct hostile h; /* by the rules */
    struct soak_worker *worker;
    int daemon_fd, own_fd;
    struct msg_run run; /* of the last grow; n_units 0: given back */
    uint64_t held_bytes;
};

static bool ask(struct probe *p, struct msg_request *req, struct msg_reply *reply)
{
    struct wire_call c = {.sock = p->h.sock, .deadline_ns = wire_now_ns() + CALL_NS};
    req->serial = ++p->h.serial;
    return wire_call(&c, req, -1, reply, NULL) == 0 && reply->error == 0;
}

static bool grow(struct probe *p, struct msg_run *ret_run)
{
    struct msg_request req = {.op = MSG_GROW, .grow = {.n_units = 4, .exact = true}};
    struct msg_reply reply;
    CHECK(ask(p, &req, &reply) && reply.op == MSG_GROW);
    *ret_run = reply.grow.run;
    return true;
}

static bool release(struct probe *p, struct msg_run *run)
{
    struct msg_request req = {.op = MSG_RELEASE, .release = {.n_runs = 1, .runs = {*run}}};
    struct msg_reply reply;
    run->n_units = 0;
    /* It has cut nothing of it: others may have got it meanwhile. */
    CHECK(ask(p, &req, &reply) || reply.error == -EINVAL);
    return true;
}

static bool status(struct probe *p)
{
    struct msg_request req = {.op = MSG_STATUS};
    struct msg_reply reply;
    CHECK(ask(p, &req, &reply) && reply.status.pid == (uint32_t)soak->worker);
    return true;
}

/* Grow, look, release, look. */
static bool request(struct probe *p, uint64_t k)
{
    if (k % 2)
        return status(p);
    return p->run.n_units ? release(p, &p->run) : grow(p, &p->run);
}

struct moment {
    uint64_t at_ns;
    struct cpu loop, probe;
};

static struct moment now(const struct probe *p)
{
    struct cpu loop = cpu_read(p->daemon_fd), probe = cpu_read(p->own_fd);
    return (struct moment){wire_now_ns(), loop, probe};
}

static void note(const struct moment *from, uint64_t took_ns, const struct moment *to,
                 bool is_status)
{
    struct soak_busy b = {.at_ns = from->at_ns - soak->began_ns,
                          .took_ns = took_ns,
                          .loop_ran_ns = to->loop.ran_ns - from->loop.ran_ns,
                          .loop_waited_ns = to->loop.waited_ns - from->loop.waited_ns,
                          .probe_waited_ns = to->probe.waited_ns - from->probe.waited_ns,
                          .is_status = is_status};
    uint64_t own_ns = took_ns - MIN(took_ns, b.loop_waited_ns + b.probe_waited_ns);
    times_add(&soak->raw, took_ns);
    times_add(&soak->own, own_ns);
    if (own_ns > BUSY_NS)
        soak->busy[soak->n_busy++ % SOAK_BUSY] = b;
}

/* So much is given back that what it holds is what it says. */
static void be_held(struct probe *p, uint64_t *at_ns)
{
    if (!__atomic_load_n(&soak->hold, __ATOMIC_SEQ_CST))
        return;
    if ((p->run.n_units == 0 || release(p, &p->run)) && soak_is_held(p->worker, p->held_bytes))
        *at_ns = wire_now_ns();
}

static bool watch(struct probe *p)
{
    uint64_t at_ns = wire_now_ns();
    for (uint64_t k = 0; !__atomic_load_n(&soak->stop, __ATOMIC_SEQ_CST); k++) {
        be_held(p, &at_ns);
        next_ms(&at_ns);
        struct moment from = now(p);
        if (!request(p, k))
            return false;
        uint64_t took_ns = wire_now_ns() - from.at_ns;
        struct moment to = now(p);
        note(&from, took_ns, &to, k % 2);
        p->worker->n_rounds++;
    }
    return true;
}

static bool begin(struct probe *p)
{
    struct msg_run runs[HELD_RUNS];
    CHECK(hostile_attach(&p->h, "probe"));
    for (unsigned i = 0; i < HELD_RUNS; i++) {
        if (!grow(p, &runs[i]))
            return false;
        p->held_bytes += runs[i].n_units * UNIT_BYTES;
    }
    return true;
}

bool soak_probe(void *arg)
{
    static struct hostile_orders orders = {.tenant = "probe"};
    struct probe p = {
        .worker = arg, .daemon_fd = cpu_open(soak->worker), .own_fd = cpu_open(getpid())};
    CHECK(p.daemon_fd >= 0 && p.own_fd >= 0);
    hostile_init(&p.h, &orders, soak->seed);
    bool ok = begin(&p) && watch(&p);
    p.worker->has_failed = !ok;
    hostile_leave(&p.h, false);
    return ok;
}

/* ---- two processes without a daemon ---- */

static bool answer(void *arg)
{
    const int *sock = arg;
    char byte;
    while (recv(*sock, &byte, 1, 0) == 1 && send(*sock, &byte, 1, MSG_NOSIGNAL) == 1)
        ;
    return true;
}

bool soak_echo(void *arg)
{
    int pair[2];
    char byte = 0;
    (void)arg;
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
    pid_t pid = soak_start(answer, &pair[1]);
    close(pair[1]);
    uint64_t at_ns = wire_now_ns();
    while (!__atomic_load_n(&soak->stop, __ATOMIC_SEQ_CST)) {
        next_ms(&at_ns);
        uint64_t began_ns = wire_now_ns();
        CHECK(send(pair[0], &byte, 1, MSG_NOSIGNAL) == 1 && recv(pair[0], &byte, 1, 0) == 1);
        times_add(&soak->echo, wire_now_ns() - began_ns);
    }
    kill(pid, SIGKILL);
    return child_signal(pid) == SIGKILL;
}
