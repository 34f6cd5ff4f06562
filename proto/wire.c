/* SPDX-License-Identifier: Apache-2.0 */
/* wire.c - packets with descriptors. See wire.h. */
#include "proto/wire.h"

#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>

#include "proto/codec.h"
#include "shm/sizeclass.h"

#define HELLO_TRIES 5u
#define LISTEN_BACKLOG                                                                             \
    4096 /* the kernel cuts it to net.core.somaxconn: 400 clients at once must fit */

uint64_t wire_now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* ---- packets ---- */

static int send_packet(int sock, const void *buf, size_t n, int fd, int flags)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec iov = {(void *)buf, n};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

    acre_assert(n > 0 && n <= WIRE_PACKET_MAX);
    if (fd >= 0) {
        msg.msg_control = control.bytes;
        msg.msg_controllen = sizeof(control.bytes);
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &fd, sizeof(int));
    }
    ssize_t r;
    do
        r = sendmsg(sock, &msg, flags | MSG_NOSIGNAL);
    while (r < 0 && errno == EINTR);
    if (r < 0)
        return errno == EWOULDBLOCK ? -EAGAIN : -errno;
    return (size_t)r == n ? 0 : -EIO;
}

int wire_send(int sock, const void *buf, size_t n, int fd)
{
    return send_packet(sock, buf, n, fd, 0);
}

int wire_send_now(int sock, const void *buf, size_t n)
{
    return send_packet(sock, buf, n, -1, MSG_DONTWAIT);
}

static void collect_fds(struct msghdr *msg, struct wire_fds *ret)
{
    ret->n = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        acre_assert(ret->n + n <= WIRE_FDS_MAX);
        memcpy(ret->fd + ret->n, CMSG_DATA(c), n * sizeof(int));
        ret->n += (unsigned)n;
    }
}

static int recv_packet(int sock, void *buf, size_t *ret_n, struct wire_fds *ret_fds, int flags)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(WIRE_FDS_MAX * sizeof(int))];
    } control;
    struct iovec iov = {buf, WIRE_PACKET_MAX};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.bytes,
                         .msg_controllen = sizeof(control.bytes)};
    ssize_t r;
    ret_fds->n = 0;
    do
        r = recvmsg(sock, &msg, flags | MSG_CMSG_CLOEXEC);
    while (r < 0 && errno == EINTR);
    if (r < 0)
        return errno == EWOULDBLOCK ? -EAGAIN : -errno;
    collect_fds(&msg, ret_fds);
    *ret_n = (size_t)r;
    if (msg.msg_flags & MSG_CTRUNC) /* at the descriptor limit the kernel drops what does not fit */
        return -EPROTO;
    if (r == 0)
        return -ECONNRESET;
    return msg.msg_flags & MSG_TRUNC ? -EMSGSIZE : 0;
}

int wire_recv_fds(int sock, void *buf, size_t *ret_n, struct wire_fds *ret_fds)
{
    return recv_packet(sock, buf, ret_n, ret_fds, 0);
}

void wire_fds_close(struct wire_fds *fds)
{
    for (unsigned i = 0; i < fds->n; i++)
        (void)close(fds->fd[i]);
    fds->n = 0;
}

static int recv_one_fd(int sock, void *buf, size_t *ret_n, int *ret_fd, int flags)
{
    struct wire_fds fds;
    size_t n = 0;
    int r = recv_packet(sock, buf, &n, &fds, flags);
    if (r == 0 && fds.n > 1)
        r = -EPROTO;
    *ret_n = n;
    *ret_fd = -1;
    if (r < 0) {
        wire_fds_close(&fds);
        return r;
    }
    *ret_fd = fds.n == 1 ? fds.fd[0] : -1;
    return 0;
}

int wire_recv(int sock, void *buf, size_t *ret_n, int *ret_fd)
{
    return recv_one_fd(sock, buf, ret_n, ret_fd, 0);
}

static void each_fd(struct msghdr *msg, void (*take)(int fd))
{
    struct wire_fds fds;
    collect_fds(msg, &fds);
    for (unsigned i = 0; i < fds.n; i++)
        take(fds.fd[i]);
}

void wire_drain(int sock, void (*take)(int fd))
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(WIRE_FDS_MAX * sizeof(int)) + CMSG_SPACE(sizeof(struct ucred))];
    } control;
    /* An empty packet reads like the end; but only a packet carries credentials. */
    int on = 1;
    (void)setsockopt(sock, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on));
    (void)shutdown(sock, SHUT_RDWR); /* nothing is added from here on */
    for (;;) {
        char byte;
        struct iovec iov = {&byte, 1};
        struct msghdr msg = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
        ssize_t r = recvmsg(sock, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (r < 0 ? errno != EINTR : !CMSG_FIRSTHDR(&msg))
            break;
        if (r >= 0)
            each_fd(&msg, take);
    }
}

/* ---- sockets ---- */

static int make_address(const char *path, struct sockaddr_un *ret)
{
    size_t n = strlen(path);
    if (n == 0)
        return -EINVAL;
    if (n >= sizeof(ret->sun_path))
        return -ENAMETOOLONG;
    *ret = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(ret->sun_path, path, n + 1);
    return 0;
}

/* Something is at path: may it go? 0: it was a socket nobody listens on, and is gone. */
static int remove_stale(const char *path, const struct sockaddr_un *addr)
{
    struct stat st;
    if (lstat(path, &st) < 0)
        return errno == ENOENT ? 0 : -errno;
    if (!S_ISSOCK(st.st_mode))
        return -EEXIST;
    CLEANUP_FD int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (sock < 0)
        return -errno;
    if (connect(sock, (const struct sockaddr *)addr, sizeof(*addr)) == 0 || errno != ECONNREFUSED)
        return -EADDRINUSE;
    return unlink(path) < 0 && errno != ENOENT ? -errno : 0;
}

int wire_listen(const char *path, unsigned mode, int *ret_sock)
{
    struct sockaddr_un addr;
    int r = make_address(path, &addr);
    if (r < 0)
        return r;
    CLEANUP_FD int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (sock < 0)
        return -errno;
    r = remove_stale(path, &addr);
    if (r < 0)
        return r;
    if (bind(sock, (struct sockaddr *)&addr, sizeof(addr)) < 0)
        return -errno;
    if (chmod(path, mode) < 0 || listen(sock, LISTEN_BACKLOG) < 0) {
        r = -errno;
        (void)unlink(path);
        return r;
    }
    *ret_sock = sock;
    sock = -1;
    return 0;
}

static int connect_error(const char *path, int error)
{
    struct stat st;
    switch (error) {
    case EAGAIN: /* SO_SNDTIMEO */
        return -ETIMEDOUT;
    case ENOENT:
    case ENOTDIR:
        return -ECONNREFUSED;
    case ECONNREFUSED: /* the kernel says so of a plain file too */
        return stat(path, &st) == 0 && !S_ISSOCK(st.st_mode) ? -EPROTO : -ECONNREFUSED;
    case EPROTOTYPE:
        return -EPROTO;
    case EPERM:
        return -EACCES;
    default:
        return -error;
    }
}

/* A blocking connect() on AF_UNIX waits for room in the backlog as long as a send may take. */
static int set_send_timeout(int sock, uint64_t deadline_ns)
{
    uint64_t now_ns = wire_now_ns();
    uint64_t left_us = deadline_ns > now_ns ? (deadline_ns - now_ns) / 1000 + 1 : 1;
    struct timeval tv = {(time_t)(left_us / 1000000), (suseconds_t)(left_us % 1000000)};
    return setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv)) < 0 ? -errno : 0;
}

int wire_connect(const char *path, uint64_t deadline_ns, int *ret_sock)
{
    struct sockaddr_un addr;
    int r = make_address(path, &addr);
    if (r < 0)
        return r;
    CLEANUP_FD int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (sock < 0)
        return -errno;
    do {
        r = set_send_timeout(sock, deadline_ns);
        if (r == 0 && connect(sock, (struct sockaddr *)&addr, sizeof(addr)) < 0)
            r = -errno;
    } while (r == -EINTR);
    if (r < 0)
        return connect_error(path, -r);
    struct timeval forever = {0, 0};
    (void)setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &forever, sizeof(forever));
    *ret_sock = sock;
    sock = -1;
    return 0;
}

/* ---- a call ---- */

static int wait_for(int sock, short events, uint64_t deadline_ns)
{
    for (;;) {
        uint64_t now_ns = wire_now_ns();
        if (now_ns >= deadline_ns)
            return -ETIMEDOUT;
        uint64_t left_ms = (deadline_ns - now_ns) / 1000000 + 1;
        struct pollfd p = {.fd = sock, .events = events};
        int r = poll(&p, 1, (int)MIN(left_ms, (uint64_t)INT_MAX));
        if (r > 0)
            return p.revents & POLLNVAL ? -EBADF : 0; /* an error shows in the call that follows */
        if (r < 0 && errno != EINTR)
            return -errno;
    }
}

static int send_until(int sock, const struct msg_request *req, int fd, uint64_t deadline_ns)
{
    uint8_t buf[WIRE_PACKET_MAX];
    size_t n = codec_pack_request(req, buf);
    for (;;) {
        int r = send_packet(sock, buf, n, fd, MSG_DONTWAIT);
        if (r == -EPIPE)
            return -ECONNRESET;
        if (r != -EAGAIN)
            return r;
        r = wait_for(sock, POLLOUT, deadline_ns);
        if (r < 0)
            return r;
    }
}

static int recv_now(int sock, struct msg_reply *ret, int *ret_fd)
{
    uint8_t buf[WIRE_PACKET_MAX];
    size_t n;
    int fd, r = recv_one_fd(sock, buf, &n, &fd, MSG_DONTWAIT);
    if (r == -EMSGSIZE)
        return -EPROTO;
    if (r < 0)
        return r;
    r = codec_unpack_reply(buf, n, ret);
    if (r == 0 && (fd >= 0) != (ret->ack_nonce != 0))
        r = -EPROTO;
    if (r < 0)
        close_fd(&fd);
    else
        *ret_fd = fd;
    return r;
}

static int recv_until(int sock, struct msg_reply *ret, int *ret_fd, uint64_t deadline_ns)
{
    int r;
    do {
        r = wait_for(sock, POLLIN, deadline_ns);
        if (r == 0)
            r = recv_now(sock, ret, ret_fd);
    } while (r == -EAGAIN);
    return r;
}

static int acknowledge(const struct wire_call *call, const struct msg_reply *reply)
{
    struct msg_request ack;
    if (reply->ack_nonce == 0)
        return 0;
    ack.serial = 0;
    ack.op = MSG_ACK;
    ack.ack.nonce = reply->ack_nonce;
    return send_until(call->sock, &ack, -1, call->deadline_ns);
}

int wire_call(const struct wire_call *call, const struct msg_request *req, int fd,
              struct msg_reply *ret_reply, int *ret_fd)
{
    acre_assert(req->op != MSG_ACK);
    int r = send_until(call->sock, req, fd, call->deadline_ns);
    while (r == 0) {
        int got = -1;
        r = recv_until(call->sock, ret_reply, &got, call->deadline_ns);
        if (r < 0)
            break;
        if (ret_reply->serial > req->serial) {
            close_fd(&got);
            return -EPROTO;
        }
        r = acknowledge(call, ret_reply);
        if (ret_reply->serial == req->serial) {
            if (r < 0)
                close_fd(&got);
            else if (ret_fd)
                *ret_fd = got;
            else
                close_fd(&got);
            return r;
        }
        close_fd(&got); /* of a call that nobody waits for any more */
        if (call->stale)
            call->stale(call->ctx, ret_reply);
    }
    return r;
}

int wire_take(const struct wire_call *call)
{
    struct msg_reply reply;
    int fd = -1, r = recv_now(call->sock, &reply, &fd);
    if (r < 0)
        return r;
    close_fd(&fd);
    r = acknowledge(call, &reply);
    if (r == 0 && call->stale)
        call->stale(call->ctx, &reply);
    return r;
}

static int hello(const char *path, uint64_t deadline_ns, int *ret_sock, char *ret_text)
{
    CLEANUP_FD int sock = -1;
    if (ret_text)
        ret_text[0] = 0;
    int r = wire_connect(path, deadline_ns, &sock);
    if (r < 0)
        return r;
    sizeclass_init();
    struct wire_call call = {.sock = sock, .deadline_ns = deadline_ns};
    struct msg_request req = {.serial = 1, .op = MSG_HELLO};
    memcpy(req.hello.magic, "ACRE", 5);
    req.hello.version_min = PROTO_VERSION_MIN;
    req.hello.version_max = PROTO_VERSION_MAX;
    req.hello.fingerprint = layout_fingerprint();
    struct msg_reply reply;
    r = wire_call(&call, &req, -1, &reply, NULL);
    if (r < 0)
        return r == -EMSGSIZE ? -EPROTO : r;
    if (reply.error != 0) {
        if (ret_text)
            memcpy(ret_text, reply.text, MSG_TEXT_BYTES);
        return reply.error == -EPROTONOSUPPORT ? -EPROTONOSUPPORT : -EPROTO;
    }
    if (reply.op != MSG_HELLO)
        return -EPROTO;
    if (reply.hello.version < PROTO_VERSION_MIN || reply.hello.version > PROTO_VERSION_MAX)
        return -EPROTONOSUPPORT;
    *ret_sock = sock;
    sock = -1;
    return 0;
}

/* Who hangs up on a greeting again and again is none of ours; once, it was a daemon that has just
 * gone, and is followed by another, or by nobody. */
int wire_hello(const char *path, uint64_t deadline_ns, int *ret_sock, char *ret_text)
{
    const struct timespec pause = {.tv_nsec = 20000000};

    for (unsigned tries = 0; tries < HELLO_TRIES; tries++) {
        int r = hello(path, deadline_ns, ret_sock, ret_text);
        if (r != -ECONNRESET && r != -EPIPE)
            return r;
        (void)nanosleep(&pause, NULL);
    }
    return -EPROTO;
}
