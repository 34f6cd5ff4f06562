/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/look/peer.h"

#include <stdarg.h>
#include <string.h>

#include "proto/address.h"
#include "proto/wire.h"

#define DEADLINE_NS (5 * 1000000000ull)

int peer_fail(struct peer *peer, int error, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    (void)vsnprintf(peer->why, sizeof(peer->why), format, args);
    va_end(args);
    return error;
}

/* ---- talking ---- */

static int connect_failed(struct peer *peer, int error, const char *text)
{
    switch (error) {
    case -ECONNREFUSED:
        return peer_fail(peer, error,
                         "no daemon at %s: start acred, or name its socket by --socket",
                         peer->path);
    case -EACCES:
        return peer_fail(peer, error, "no permission to connect to %s", peer->path);
    case -EPROTO:
        return peer_fail(peer, error, "what answers at %s is no Acre daemon", peer->path);
    case -EPROTONOSUPPORT:
        return peer_fail(peer, error, "the daemon at %s is of another version%s%s", peer->path,
                         text[0] ? ": " : "", text);
    case -ETIMEDOUT:
        return peer_fail(peer, error, "the daemon at %s does not answer", peer->path);
    default:
        return peer_fail(peer, error, "cannot connect to %s: %s", peer->path, strerror(-error));
    }
}

static uint64_t deadline_ns(const struct peer *peer)
{
    return wire_now_ns() + (peer->patience_ns ? peer->patience_ns : DEADLINE_NS);
}

int peer_open(struct peer *peer, const char *address)
{
    char text[MSG_TEXT_BYTES] = "";
    enum address_kind kind;

    *peer = (struct peer){.sock = -1, .serial = 1, .patience_ns = peer->patience_ns};
    int r = address_find(address, false, peer->path, &kind, text);
    if (r < 0)
        return peer_fail(peer, r, "%s", text);
    r = wire_hello(peer->path, deadline_ns(peer), &peer->sock, text);
    return r < 0 ? connect_failed(peer, r, text) : 0;
}

void peer_close(struct peer *peer)
{
    close_fd(&peer->sock);
}

int peer_call(struct peer *peer, struct msg_request *req, struct msg_reply *ret_reply, int *ret_fd)
{
    struct wire_call call = {.sock = peer->sock, .deadline_ns = deadline_ns(peer)};
    CLEANUP_FD int fd = -1;

    req->serial = ++peer->serial;
    int r = wire_call(&call, req, -1, ret_reply, &fd);
    peer->is_broken = r < 0;
    if (r < 0)
        return peer_fail(peer, r, "the daemon at %s %s", peer->path,
                         r == -ETIMEDOUT ? "does not answer" : "hung up in the middle of a call");
    if (ret_reply->error != 0)
        return peer_fail(peer, ret_reply->error < 0 ? ret_reply->error : -EPROTO, "%s",
                         ret_reply->text[0] ? ret_reply->text : strerror(abs(ret_reply->error)));
    bool is_silent = req->op == MSG_UPGRADE || req->op == MSG_TENANT_SET; /* nothing to tell */
    enum msg_op expected = is_silent ? MSG_NONE : req->op;
    peer->is_broken = ret_reply->op != expected || (ret_fd && fd < 0);
    if (peer->is_broken)
        return peer_fail(peer, -EPROTO, "the daemon at %s answers something else", peer->path);
    if (ret_fd) {
        *ret_fd = fd;
        fd = -1;
    }
    return 0;
}
