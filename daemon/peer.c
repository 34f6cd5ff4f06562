/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A connection. It is read only while its session waits for nothing and what it was sent has gone
 * out: so a peer that does not read, or that asks faster than it is served, fills its own socket
 * and nothing else. Of a busy peer only the hang-up is watched.
 */
#include "daemon/peer.h"

#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <uv.h>

#include "daemon/dispatch.h"
#include "daemon/log.h"
#include "daemon/server.h"
#include "proto/codec.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 /* Linux 6.5 */
#endif

/* Then it is the others' turn. */
#define PACKETS_PER_TURN 16
#define TURN_NS          1000000u

struct outgoing {
    size_t n;
    uint8_t bytes[];
};

struct peer {
    LIST_ENTRY(peer) in_list;
    uv_poll_t poll;
    struct server *server;
    int sock;
    int events; /* that are polled for */
    bool is_closing, is_receiving;
    uint64_t turn;             /* server_meet() */
    struct outgoing *out;      /* what did not fit: a reply, an event, or */
    struct outgoing *out_next; /* one of each, and no more; watch() */
    struct session session;
};

static void on_poll(uv_poll_t *poll, int status, int events);

static void watch(struct peer *p)
{
    int events = UV_DISCONNECT;
    if (p->is_closing)
        return;
    if (p->out)
        events |= UV_WRITABLE;
    else if (p->session.wait == WAIT_NONE)
        events |= UV_READABLE;
    if (events == p->events)
        return;
    p->events = events;
    int r = uv_poll_start(&p->poll, events, on_poll);
    acre_assert(r == 0);
}

/* ---- closing ---- */

static void drop_outgoing(struct peer *p)
{
    struct outgoing *out = p->out;
    p->out = p->out_next;
    p->out_next = NULL;
    free(out);
}

static void on_closed(uv_handle_t *handle)
{
    struct peer *p = handle->data;
    struct server *server = p->server;
    server_close_connection(server, p->sock, peer_uid(p));
    while (p->out)
        drop_outgoing(p);
    LIST_REMOVE(p, in_list);
    server_peer_gone(server, peer_uid(p));
    free(p);
}

void peer_close(struct peer *p)
{
    if (p->is_closing)
        return;
    p->is_closing = true;
    uv_close((uv_handle_t *)&p->poll, on_closed);
    dispatch_hangup(server_core(p->server), &p->session, server_now_ns(p->server));
    server_touch(p->server);
}

/* ---- sending ---- */

/* Before the next request is read all of it has gone out: so there is no second reply, nor, of a
 * bell that is armed by a request, a second event. */
static void keep_outgoing(struct peer *p, const uint8_t *buf, size_t n)
{
    struct outgoing *out = malloc(sizeof(*out) + n);
    if (!out) {
        (void)shutdown(p->sock, SHUT_RDWR);
        return;
    }
    acre_assert(p->out_next == NULL);
    out->n = n;
    memcpy(out->bytes, buf, n);
    *(p->out ? &p->out_next : &p->out) = out;
}

void peer_io_reply(void *peer, const struct msg_reply *reply, int fd)
{
    struct peer *p = peer;
    uint8_t buf[WIRE_PACKET_MAX];
    size_t n = codec_pack_reply(reply, buf);
    acre_assert(!p->is_closing);
    int r = p->out ? -EAGAIN : wire_send(p->sock, buf, n, fd);
    /* A descriptor waits for nobody: its peer has left dozens of replies unread. */
    if (r == -EAGAIN && fd < 0)
        keep_outgoing(p, buf, n);
    else if (r < 0)
        (void)shutdown(p->sock,
                       SHUT_RDWR); /* it has gone, or cannot be served: by way of the hang-up */
    close_fd(&fd);
    if (!p->is_receiving)
        watch(p);
}

static void send_outgoing(struct peer *p)
{
    while (p->out) {
        int r = wire_send(p->sock, p->out->bytes, p->out->n, -1);
        if (r == -EAGAIN)
            return;
        if (r < 0)
            (void)shutdown(p->sock, SHUT_RDWR);
        drop_outgoing(p);
    }
}

void peer_io_close(void *peer)
{
    struct peer *p = peer;
    /* From the loop, by way of the hang-up; and so that the peer knows at once. */
    (void)shutdown(p->sock, SHUT_RDWR);
}

int peer_io_open_pidfd(void *peer)
{
    struct peer *p = peer;
    int pidfd = -1;
    socklen_t n = sizeof(pidfd);
    if (getsockopt(p->sock, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &n) == 0)
        return pidfd;
    pidfd = (int)syscall(SYS_pidfd_open, p->session.creds.pid, 0);
    return pidfd < 0 ? -1 : pidfd;
}

/* ---- receiving ---- */

static void close_foreign(struct peer *p, struct wire_fds *fds)
{
    for (unsigned i = 0; i < fds->n; i++)
        server_close_foreign(p->server, fds->fd[i], peer_uid(p));
}

/* One packet. false: nothing more now, or the peer is closed. */
static bool receive(struct peer *p)
{
    uint8_t buf[WIRE_PACKET_MAX];
    struct msg_request req;
    struct wire_fds fds;
    size_t n = 0;
    if (server_is_clogged(p->server, peer_uid(p))) {
        peer_close(p);
        return false;
    }
    int r = wire_recv_fds(p->sock, buf, &n, &fds);
    if (r == -EAGAIN)
        return false;
    if (r < 0 || fds.n > 1) {
        close_foreign(p, &fds);
        peer_close(p);
        return false;
    }
    int error = codec_unpack_request(buf, n, &req);
    dispatch_request(server_core(p->server), &p->session, &req, error, fds.n == 1 ? fds.fd[0] : -1,
                     server_now_ns(p->server));
    return !p->is_closing && !p->out && p->session.wait == WAIT_NONE;
}

static void receive_some(struct peer *p)
{
    uint64_t began_ns = server_now_ns(p->server), now_ns = began_ns;
    bool may_read = true;
    p->is_receiving = true;
    for (int i = 0; may_read && i < PACKETS_PER_TURN && now_ns < began_ns + TURN_NS; i++) {
        may_read = receive(p);
        now_ns = server_now_ns(p->server);
    }
    p->is_receiving = false;
    server_spend(p->server, peer_uid(p), now_ns - began_ns);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct peer *p = poll->data;
    if (status < 0) {
        peer_close(p);
        return;
    }
    server_meet(p->server, &p->turn);
    if ((events & UV_WRITABLE) && p->out)
        send_outgoing(p);
    if (!p->out && p->session.wait == WAIT_NONE && server_has_turn(p->server, peer_uid(p)))
        receive_some(p);
    /* What it has sent before it hung up is served first; a busy peer has nothing to be served any
     * more. */
    if ((events & UV_DISCONNECT) && !p->is_closing && (p->out || p->session.wait != WAIT_NONE))
        peer_close(p);
    watch(p);
    server_touch(p->server);
}

/* ---- accepting ---- */

static int take_creds(int sock, struct creds *ret)
{
    struct ucred u;
    socklen_t n = sizeof(u), n_groups = sizeof(ret->groups);
    *ret = (struct creds){0};
    if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &u, &n) < 0)
        return -errno;
    ret->pid = u.pid;
    ret->uid = u.uid;
    ret->gid = u.gid;
    if (getsockopt(sock, SOL_SOCKET, SO_PEERGROUPS, ret->groups, &n_groups) == 0)
        ret->n_groups = (uint32_t)(n_groups / sizeof(gid_t));
    return 0;
}

int peer_new(struct server *server, struct peer_list *list, int sock)
{
    struct creds creds;
    struct peer *p = calloc(1, sizeof(*p));
    int r = p ? take_creds(sock, &creds) : -ENOMEM;
    if (r == 0)
        r = user_add(&server_core(server)->users, creds.uid, USER_PEERS);
    if (r == 0 && (r = uv_poll_init(server_loop(server), &p->poll, sock)) < 0)
        user_drop(&server_core(server)->users, creds.uid, USER_PEERS);
    if (r < 0) {
        server_close_connection(server, sock, NOBODY_UID);
        free(p);
        return r;
    }
    p->server = server;
    p->sock = sock;
    p->poll.data = p;
    LIST_INSERT_HEAD(list, p, in_list);
    dispatch_accept(server_core(server), &p->session, p, &creds);
    watch(p);
    return 0;
}

uid_t peer_uid(const struct peer *p)
{
    return p->session.creds.uid;
}

struct peer *peer_next(const struct peer *p)
{
    return LIST_NEXT(p, in_list);
}
