/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wire.h - packets with at most one descriptor over AF_UNIX SOCK_SEQPACKET, and the blocking call
 * that clients and tools make. The only file with sendmsg and recvmsg. Never sends an empty packet
 * (it would read as end of file).
 */
#ifndef ACRE_PROTO_WIRE_H
#define ACRE_PROTO_WIRE_H

#include "proto/msg.h"

#define WIRE_PACKET_MAX 16384u

/* Sends one packet, with descriptor fd if fd >= 0 (it stays the caller's). Never raises SIGPIPE. 0;
 * -EAGAIN socket full (non-blocking sockets); -EPIPE, -ECONNRESET peer gone; other negative errno.
 */
int wire_send(int sock, const void *buf, size_t n, int fd);
/* The same without a descriptor, and -EAGAIN also if the socket is blocking. */
int wire_send_now(int sock, const void *buf, size_t n);

/*
 * Receives one packet into buf (WIRE_PACKET_MAX bytes), descriptors with CLOEXEC. *ret_n is its
 * length, *ret_fd the descriptor or -1. 0; -EAGAIN nothing there (non-blocking); -ECONNRESET end of
 * file or reset; -EMSGSIZE packet too long (dropped); -EPROTO more than one descriptor, or
 * descriptors lost: all are closed, the packet is there. Never leaks a descriptor: control buffer
 * is large enough for the 253 that the kernel allows.
 */
int wire_recv(int sock, void *buf, size_t *ret_n, int *ret_fd);

/* The same for who must not close foreign descriptors in its own thread (closing one can block):
 * all that came with the packet are in *ret_fds and the caller's, also when an error is returned.
 */
#define WIRE_FDS_MAX 253u /* SCM_MAX_FD of the kernel */
struct wire_fds {
    unsigned n;
    int fd[WIRE_FDS_MAX];
};
int wire_recv_fds(int sock, void *buf, size_t *ret_n, struct wire_fds *ret_fds);
void wire_fds_close(struct wire_fds *fds);
/* Before a connection with a foreign peer is closed: shuts it down and hands over the descriptors
 * that still lie in its queue, which would else be closed with it. */
void wire_drain(int sock, void (*take)(int fd));

/* Listening SEQPACKET socket at path, mode 0666 or as given, CLOEXEC and non-blocking. Removes a
 * stale socket file (only if it is a socket: -EEXIST else). -EADDRINUSE: somebody listens there.
 * -ENAMETOOLONG. */
int wire_listen(const char *path, unsigned mode, int *ret_sock);

/* Connects (blocking CLOEXEC socket). -ECONNREFUSED nobody there (also: no such file); -EPROTO
 * another kind of socket or file; -EACCES; -ENAMETOOLONG; -ETIMEDOUT backlog full until deadline_ns
 * (CLOCK_MONOTONIC). */
int wire_connect(const char *path, uint64_t deadline_ns, int *ret_sock);

/*
 * One request and its reply, in the calling thread. fd >= 0 is sent along; *ret_fd is the reply's
 * descriptor (-1 none) and the caller's. Acks a descriptor by itself. Replies to earlier serials
 * (calls that timed out), so that a late grant is not lost, and events (serial 0) go to `stale` (may
 * be NULL). 0: a reply
 * came, reply->error may still be set; -ETIMEDOUT; -ECONNRESET; -EPROTO.
 */
struct wire_call {
    int sock;
    uint64_t deadline_ns;
    void (*stale)(void *ctx, const struct msg_reply *reply);
    void *ctx;
};
int wire_call(const struct wire_call *call, const struct msg_request *req, int fd,
              struct msg_reply *ret_reply, int *ret_fd);
/* Takes one packet that has come without a call: an event, or the reply to a call that timed out.
 * It goes to `stale`. 0; -EAGAIN there is none; others as wire_call(). */
int wire_take(const struct wire_call *call);

/* wire_connect() and the Hello exchange. Errors of both; -EPROTONOSUPPORT another version or layout
 * (text, if not NULL, gets MSG_TEXT_BYTES: what the daemon said). */
int wire_hello(const char *path, uint64_t deadline_ns, int *ret_sock, char *ret_text);

/* CLOCK_MONOTONIC in ns. */
uint64_t wire_now_ns(void);

#endif
