/* SPDX-License-Identifier: Apache-2.0 */
/* hostile.c - its life, and the table of its deeds. See hostile.h. */
#include "tests/misuse/hostile.h"

#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "shm/sizeclass.h"

#define CALL_NS      300000000ull
#define HELLO_NS     5000000000ull
#define DEEDS_A_LIFE 150u
#define NOBODY       65534

/* A weight is how often, among all; the last ones take long. */
const struct hostile_deed hostile_deeds[] = {
    {"scribble: random bytes", 24, scribble_random},
    {"scribble: unit entries", 40, scribble_entries},
    {"scribble: owner tags", 40, scribble_tags},
    {"scribble: hints", 16, scribble_hints},
    {"scribble: holder tokens", 24, scribble_holders},
    {"scribble: segment header", 16, scribble_header},
    {"scribble: life page", 16, scribble_life},
    {"scribble: intents and slots", 24, scribble_links},
    {"segment: holes punched", 8, scribble_holes},
    {"segment: filled, punched", 1, scribble_filled},
    {"segment: size and seals", 8, scribble_file},
    {"packet: valid", 160, packet_valid},
    {"packet: mutated", 30, packet_mutated},
    {"packet: random bytes", 8, packet_random},
    {"packet: replayed", 24, packet_replayed},
    {"packet: of a stranger", 16, packet_stranger},
    {"packet: empty", 4, packet_empty},
    {"packet: too long", 6, packet_too_long},
    {"packet: half a conversation", 16, packet_half},
    {"packet: all units, 64 times", 8, packet_wide},
    {"packet: flood, unread", 4, packet_flood},
    {"descriptor: wrong kind", 24, hands_wrong},
    {"descriptors: up to 253", 6, hands_full},
    {"descriptor: lingering TCP", 3, hands_linger},
    {"life page: pinned", 2, hands_pinned_page},
    {"life page: its inode busy", 2, hands_busy_page},
    {"life page: sealed, resized", 8, hands_sealed_page},
    {"process: closes, writes on", 6, crowd_close},
    {"process: forks, both go on", 3, crowd_fork},
    {"process: exec", 2, crowd_exec},
    {"process: stopped, continued", 2, crowd_stop},
    {"limit: connections", 1, crowd_connections},
    {"limit: all connections ask", 1, crowd_storm},
    {"limit: clients", 1, crowd_clients},
    {"limit: extents", 2, crowd_extents},
    {"limit: roots", 1, crowd_roots},
    {"limit: requests that wait", 1, crowd_waiters},
    {"limit: descriptors in flight", 1, crowd_flight},
};
const unsigned n_hostile_deeds = ARRAY_LEN(hostile_deeds);
static_assert(ARRAY_LEN(hostile_deeds) <= HOSTILE_DEEDS_MAX, "counted in the orders");

/* ---- what it does by the rules ---- */

void hostile_init(struct hostile *h, struct hostile_orders *orders, uint64_t seed)
{
    *h = (struct hostile){.orders = orders, .rng = seed | 1, .sock = -1, .life_fd = -1};
    for (unsigned i = 0; i < HOSTILE_SLOTS; i++)
        h->segs[i].fd = -1;
}

bool hostile_greet(struct hostile *h)
{
    h->serial = 1;
    return wire_hello(the_daemon.socket, wire_now_ns() + HELLO_NS, &h->sock, NULL) == 0;
}

bool hostile_call(struct hostile *h, struct msg_request *req, struct msg_reply *reply, int *ret_fd)
{
    struct wire_call c = {.sock = h->sock, .deadline_ns = wire_now_ns() + CALL_NS};
    req->serial = ++h->serial;
    return wire_call(&c, req, -1, reply, ret_fd) == 0 && reply->error == 0;
}

static bool send_page(struct hostile *h, const char *name, int fd)
{
    struct wire_call c = {.sock = h->sock, .deadline_ns = wire_now_ns() + CALL_NS};
    struct msg_request req = {.op = MSG_ATTACH, .serial = ++h->serial};
    struct msg_reply reply;
    int control_fd = -1;
    memcpy(req.attach.tenant, h->orders->tenant, sizeof(req.attach.tenant));
    snprintf(req.attach.name, sizeof(req.attach.name), "%s", name);
    bool ok = wire_call(&c, &req, fd, &reply, &control_fd) == 0 && reply.error == 0;
    close_fd(&control_fd);
    if (ok)
        h->client = reply.attach.client;
    return ok;
}

bool hostile_attach(struct hostile *h, const char *name)
{
    int fd = memfd_create("life", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    bool ok = fd >= 0 && ftruncate(fd, sizeof(*h->page)) == 0;
    void *page =
        ok ? mmap(NULL, sizeof(*h->page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
    if (page != MAP_FAILED) {
        h->page = page;
        h->page->magic = LIFE_MAGIC;
        h->page->secret[3] = (uint8_t)hostile_below(h, 256);
        ok = hostile_greet(h) && send_page(h, name, fd);
    }
    h->life_fd = fd;
    return ok && page != MAP_FAILED;
}

bool hostile_resume(struct hostile *h)
{
    struct msg_request req = {.op = MSG_ATTACH};
    struct msg_reply reply;
    int fd = -1;
    close_fd(&h->sock);
    if (!h->page || !hostile_greet(h))
        return false;
    memcpy(req.attach.tenant, h->orders->tenant, sizeof(req.attach.tenant));
    req.attach.resume_client = h->client;
    memcpy(req.attach.secret, h->page->secret, sizeof(req.attach.secret));
    bool ok = hostile_call(h, &req, &reply, &fd);
    close_fd(&fd);
    return ok;
}

void hostile_leave(struct hostile *h, bool keeps_page)
{
    close_fd(&h->sock);
    close_fd(&h->life_fd);
    if (h->page && !keeps_page)
        munmap(h->page, sizeof(*h->page));
    h->page = NULL;
    h->strangers[hostile_below(h, ARRAY_LEN(h->strangers))] = h->client;
    for (unsigned i = 0; i < HOSTILE_SLOTS; i++) {
        if (h->segs[i].base)
            munmap(h->segs[i].base, h->segs[i].bytes);
        h->segs[i].base = NULL;
        close_fd(&h->segs[i].fd);
    }
}

void hostile_map(struct hostile *h)
{
    for (uint32_t slot = 0; slot < HOSTILE_SLOTS; slot++) {
        struct msg_request req = {.op = MSG_MAP_SEGMENT};
        struct msg_reply reply;
        int fd = -1;
        req.map_segment.slot = slot;
        if (h->segs[slot].base || !hostile_call(h, &req, &reply, &fd) || fd < 0)
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

void hostile_ask(struct hostile *h, struct msg_request *req)
{
    struct msg_reply reply;
    int fd = -1;
    if (hostile_call(h, req, &reply, &fd) && reply.op == MSG_GROW) {
        uint64_t k = hostile_below(h, HOSTILE_GRANTS);
        h->offs[k] = reply.grow.run.off;
        h->n_units[k] = reply.grow.run.n_units;
    }
    close_fd(&fd);
}

/* ---- its life ---- */

static unsigned draw(struct hostile *h)
{
    unsigned sum = 0, i = 0;
    for (unsigned k = 0; k < n_hostile_deeds; k++)
        sum += hostile_deeds[k].weight;
    for (uint64_t at = hostile_below(h, sum); at >= hostile_deeds[i].weight; i++)
        at -= hostile_deeds[i].weight;
    return i;
}

static bool is_hung_up(const struct hostile *h)
{
    struct pollfd p = {.fd = h->sock};
    return h->sock < 0 || (poll(&p, 1, 0) == 1 && (p.revents & (POLLHUP | POLLERR)));
}

void hostile_do(struct hostile *h, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        unsigned k = draw(h);
        if (is_hung_up(h) && (hostile_below(h, 2) || !hostile_resume(h)))
            return; /* another life begins */
        hostile_deeds[k].fn(h);
        __atomic_fetch_add(&h->orders->n_done[k], 1, __ATOMIC_RELAXED);
        hostile_rest(h, 4000);
    }
}

void hostile_become_nobody(const struct hostile_orders *orders)
{
    if (orders->as_nobody && geteuid() == 0 &&
        (setgroups(0, NULL) < 0 || setgid(NOBODY) < 0 || setuid(NOBODY) < 0))
        _exit(1);
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* who becomes another user has none */
}

pid_t hostile_fork(void)
{
    pid_t parent = getpid(), pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) /* killed before it was asked for: stopped, this would stay */
            _exit(1);
        alarm(5);
    }
    return pid;
}

void hostile_be(struct hostile_orders *orders, uint64_t seed)
{
    static const int for_ever = 1;
    static struct hostile h;
    char name[8];
    hostile_become_nobody(orders);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, SIG_IGN); /* its children are nobody's */
    sizeclass_init();
    hostile_init(&h, orders, seed);
    while (for_ever) {
        snprintf(name, sizeof(name), "%c%c%%n\"\n", (int)hostile_below(&h, 255) + 1, 0xff);
        if (hostile_attach(&h, name)) {
            hostile_map(&h);
            hostile_do(&h, DEEDS_A_LIFE);
        } else {
            hostile_rest(&h, 20000);
        }
        hostile_leave(&h, hostile_below(&h, 8) == 0);
    }
    _exit(0);
}
