/* SPDX-License-Identifier: Apache-2.0 */
/* hostile_packets.c - what it sends: valid, mutated, at random, half of it, much of it. */
#include "tests/misuse/hostile.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>

#define FDS_MAX 256u

/* Root and the daemon's own user may. */
static bool is_admin(void)
{
    struct stat st;
    return geteuid() == 0 || stat(the_daemon.dir, &st) < 0 || geteuid() == st.st_uid;
}

/* Does the packet ask the daemon to make room for another, and would it? */
static bool replaces_daemon(const void *buf, size_t n)
{
    struct msg_request req;
    return n > 0 && n <= WIRE_PACKET_MAX && codec_unpack_request(buf, n, &req) == 0 &&
           req.op == MSG_UPGRADE && is_admin();
}

void hostile_send(struct hostile *h, int sock, const void *buf, size_t n, const int *fds,
                  unsigned n_fds)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(FDS_MAX * sizeof(int))];
    } control = {0};
    struct iovec iov = {(void *)buf, n};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    if (replaces_daemon(buf, n))
        return;
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
    h->n_last = MIN(n, sizeof(h->last));
    memcpy(h->last, buf, h->n_last);
}

static uint64_t any_number(struct hostile *h)
{
    static const uint64_t chosen[] = {0, 1, 2, 8192, 65535, 65536, 131071, UINT32_MAX, UINT64_MAX};
    uint64_t k = hostile_below(h, 16);
    return k < 9    ? chosen[k]
           : k < 12 ? h->offs[hostile_below(h, HOSTILE_GRANTS)]
                    : rnd(&h->rng) >> hostile_below(h, 60);
}

static uint32_t any_slot(struct hostile *h)
{
    return (uint32_t)(hostile_below(h, 2) ? hostile_below(h, 8) : any_number(h));
}

static void any_grow(struct hostile *h, struct msg_request *req)
{
    req->grow.n_units = (uint32_t)(hostile_below(h, 8) ? 1 + hostile_below(h, 300) : any_number(h));
    req->grow.exact = hostile_below(h, 2);
    req->grow.again = hostile_below(h, 8) == 0;
    req->grow.align_order = (uint32_t)(hostile_below(h, 4) ? 0 : hostile_below(h, 20));
    req->grow.class_plus_1 = (uint32_t)hostile_below(h, 42);
}

static void any_wait(struct hostile *h, struct msg_request *req)
{
    req->wait.ticket = hostile_below(h, 4) ? hostile_below(h, 80) : any_number(h);
    req->wait.n_units = (uint32_t)(hostile_below(h, 8) ? 1 + hostile_below(h, 600) : any_number(h));
    req->wait.exact = hostile_below(h, 2);
    req->wait.again = hostile_below(h, 8) == 0;
    req->wait.align_order = (uint32_t)(hostile_below(h, 4) ? 0 : hostile_below(h, 70));
    req->wait.class_plus_1 = (uint32_t)hostile_below(h, 42);
    req->wait.left_ms = hostile_below(h, 2) ? hostile_below(h, 3000) : any_number(h);
}

static void any_release(struct hostile *h, struct msg_request *req)
{
    req->release.n_runs = (uint32_t)hostile_below(h, MSG_RUNS_MAX + 1);
    for (uint32_t i = 0; i < req->release.n_runs; i++) {
        uint64_t k = hostile_below(h, HOSTILE_GRANTS);
        req->release.runs[i] = (struct msg_run){h->offs[k], h->n_units[k]};
        if (hostile_below(h, 4) == 0)
            req->release.runs[i].n_units = (uint32_t)any_number(h);
        if (hostile_below(h, 8) == 0)
            req->release.runs[i].off = any_number(h);
    }
}

static void any_root(struct hostile *h, struct msg_request *req)
{
    req->root.op = (enum root_op)hostile_below(h, 4);
    snprintf(req->root.name, sizeof(req->root.name), "root %d", (int)hostile_below(h, 2000));
    req->root.desired = any_number(h);
    req->root.expected = hostile_below(h, 2) ? 0 : any_number(h);
}

void hostile_any_request(struct hostile *h, struct msg_request *req)
{
    static const enum msg_op ops[] = {
        MSG_WAIT,       MSG_WAIT,        MSG_CANCEL,      MSG_WAITERS,     MSG_GROW,
        MSG_GROW,       MSG_GROW,        MSG_RELEASE,     MSG_RETIRE,      MSG_RETIRE,
        MSG_FREE_LARGE, MSG_ROOT,        MSG_STATUS,      MSG_TENANTS,     MSG_LOOK,
        MSG_RELEASE,    MSG_MAP_SEGMENT, MSG_PUBLISH_ALL, MSG_EXTENTS,     MSG_HOLDERS,
        MSG_WATCH,      MSG_SOFT,        MSG_SOFT,        MSG_TENANT_DROP, MSG_DETACH};
    memset(req, 0, sizeof(*req));
    req->op = ops[hostile_below(h, 23 + (hostile_below(h, 8) == 0) * 2)];
    req->serial = ++h->serial;
    switch (req->op) {
    case MSG_GROW:
        any_grow(h, req);
        break;
    case MSG_WAIT:
        any_wait(h, req);
        break;
    case MSG_CANCEL:
        req->cancel.ticket = hostile_below(h, 4) ? hostile_below(h, 80) : any_number(h);
        break;
    case MSG_WAITERS:
        req->waiters.skip = (uint32_t)(hostile_below(h, 2) ? hostile_below(h, 80) : any_number(h));
        break;
    case MSG_WATCH:
        req->watch.seen = (uint32_t)(hostile_below(h, 2) ? hostile_below(h, 80) : any_number(h));
        break;
    case MSG_RELEASE:
        any_release(h, req);
        break;
    case MSG_SOFT:
        req->soft.n = (uint32_t)hostile_below(h, MSG_SOFT_MAX + 1);
        for (uint32_t i = 0; i < req->soft.n; i++)
            req->soft.offs[i] = any_number(h) & ~(hostile_below(h, 4) ? 8191ull : 0ull);
        break;
    case MSG_FREE_LARGE:
        req->free_large.off = any_number(h) & ~(hostile_below(h, 4) ? 8191ull : 0ull);
        break;
    case MSG_ROOT:
        any_root(h, req);
        break;
    case MSG_MAP_SEGMENT:
        req->map_segment.slot = any_slot(h);
        break;
    case MSG_RETIRE:
        req->retire.slot = any_slot(h);
        req->retire.done = hostile_below(h, 2);
        break;
    case MSG_EXTENTS:
        req->extents.slot = any_slot(h);
        req->extents.unit =
            (uint32_t)(hostile_below(h, 2) ? hostile_below(h, SLOT_UNITS) : any_number(h));
        break;
    case MSG_HOLDERS:
        req->holders.after = (tag_t)hostile_below(h, CLIENT_ID_MAX + 1);
        break;
    case MSG_LOOK:
    case MSG_TENANT_DROP:
        memcpy(req->look.tenant, h->orders->tenant, sizeof(req->look.tenant));
        break;
    default:
        break;
    }
}

/* ---- deeds ---- */

void packet_valid(struct hostile *h)
{
    struct msg_request req;
    hostile_any_request(h, &req);
    hostile_ask(h, &req);
    if (hostile_below(h, 8) == 0)
        hostile_map(h);
}

static size_t any_packet(struct hostile *h, uint8_t *buf)
{
    struct msg_request req;
    hostile_any_request(h, &req);
    return codec_pack_request(&req, buf);
}

/* Some bits of it turned, or the end cut off. */
void packet_mutated(struct hostile *h)
{
    uint8_t buf[WIRE_PACKET_MAX];
    size_t n = any_packet(h, buf);
    for (uint64_t k = hostile_below(h, 4); k > 0; k--)
        buf[hostile_below(h, n)] ^= (uint8_t)(1u << hostile_below(h, 8));
    if (hostile_below(h, 4) == 0)
        n = hostile_below(h, n) + 1;
    hostile_send(h, h->sock, buf, n, NULL, 0);
}

void packet_random(struct hostile *h)
{
    uint8_t buf[4096];
    size_t n = hostile_below(h, sizeof(buf)) + 1;
    for (size_t i = 0; i < n; i++)
        buf[i] = (uint8_t)hostile_below(h, 256);
    hostile_send(h, h->sock, buf, n, NULL, 0);
}

/* The bytes of before, or an older serial for another request. */
void packet_replayed(struct hostile *h)
{
    uint8_t buf[WIRE_PACKET_MAX];
    struct msg_request req;
    if (h->n_last > 0)
        hostile_send(h, h->sock, h->last, h->n_last, NULL, 0);
    hostile_any_request(h, &req);
    req.serial = 1 + hostile_below(h, h->serial);
    hostile_send(h, h->sock, buf, codec_pack_request(&req, buf), NULL, 0);
}

/* Somebody else's name: of a client that it wants to be, or of a descriptor that it has not had. */
void packet_stranger(struct hostile *h)
{
    uint8_t buf[WIRE_PACKET_MAX];
    struct hostile other;
    struct msg_request req = {.op = MSG_ATTACH, .serial = 2};
    if (hostile_below(h, 4) == 0) {
        req = (struct msg_request){.op = MSG_ACK, .ack = {.nonce = rnd(&h->rng)}};
        hostile_send(h, h->sock, buf, codec_pack_request(&req, buf), NULL, 0);
        return;
    }
    hostile_init(&other, h->orders, rnd(&h->rng));
    if (!hostile_greet(&other))
        return;
    memcpy(req.attach.tenant, h->orders->tenant, sizeof(req.attach.tenant));
    req.attach.resume_client = h->strangers[hostile_below(h, ARRAY_LEN(h->strangers))];
    if (hostile_below(h, 2))
        req.attach.resume_client = hostile_below(h, 1u << 20);
    if (h->page && hostile_below(h, 2))
        memcpy(req.attach.secret, h->page->secret, sizeof(req.attach.secret));
    hostile_send(&other, other.sock, buf, codec_pack_request(&req, buf), NULL, 0);
    (void)poll(&(struct pollfd){.fd = other.sock, .events = POLLIN}, 1, 20);
    hostile_leave(&other, false);
}

void packet_empty(struct hostile *h)
{
    int fd = hostile_below(h, 2) ? hostile_any_descriptor(h) : -1;
    hostile_send(h, h->sock, "", 0, &fd, fd >= 0);
    close_fd(&fd);
}

void packet_too_long(struct hostile *h)
{
    static uint8_t buf[WIRE_PACKET_MAX + 100000];
    size_t n = any_packet(h, buf);
    hostile_send(h, h->sock, buf, n + hostile_below(h, sizeof(buf) - n), NULL, 0);
}

/* A connection that attaches and does not wait for what comes of it. */
void packet_half(struct hostile *h)
{
    uint8_t buf[WIRE_PACKET_MAX];
    struct msg_request req = {.op = MSG_ATTACH, .serial = 2};
    struct hostile other;
    hostile_init(&other, h->orders, rnd(&h->rng));
    if (!hostile_greet(&other))
        return;
    memcpy(req.attach.tenant, h->orders->tenant, sizeof(req.attach.tenant));
    int fd = hostile_any_descriptor(h);
    size_t n = codec_pack_request(&req, buf);
    hostile_send(h, other.sock, buf, hostile_below(h, 4) ? n : n / 2, &fd, fd >= 0);
    close_fd(&fd);
    if (hostile_below(h, 2))
        (void)poll(&(struct pollfd){.fd = other.sock, .events = POLLIN}, 1, 20);
    if (hostile_below(h, 2))
        (void)shutdown(other.sock, (int)hostile_below(h, 3));
    if (hostile_below(h, 2))
        hostile_flood(&other, 100);
    hostile_leave(&other, false);
}

/* As much as one packet can ask for: gives all units of the heap back, again and again. */
void packet_wide(struct hostile *h)
{
    struct msg_request req = {.op = MSG_RELEASE, .release = {.n_runs = MSG_RUNS_MAX}};
    unsigned slot = (unsigned)hostile_below(h, HOSTILE_SLOTS);
    if (!h->segs[slot].base)
        slot = 0;
    if (!h->segs[slot].base)
        return;
    struct segment_shape s = segment_shape((uint32_t)(h->segs[slot].bytes / UNIT_BYTES));
    for (unsigned i = 0; i < MSG_RUNS_MAX; i++)
        req.release.runs[i] = (struct msg_run){
            (uint64_t)slot << SLOT_SHIFT | (uint64_t)s.n_meta << UNIT_SHIFT, s.n_units - s.n_meta};
    hostile_ask(h, &req);
}

/* Asks and does not read. */
void hostile_flood(struct hostile *h, unsigned n)
{
    uint8_t buf[WIRE_PACKET_MAX];
    for (unsigned i = 0; i < n; i++)
        (void)!send(h->sock, buf, any_packet(h, buf), MSG_NOSIGNAL | MSG_DONTWAIT);
}

void packet_flood(struct hostile *h)
{
    hostile_flood(h, 300);
}
