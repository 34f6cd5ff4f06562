/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests, theory. A session is greeted, then attached to a tenant or looking at one. It has one
 * request at a time: a handler replies at once, or sets session->wait and somebody replies later.
 * Handlers validate, reserve, then commit; after the first visible effect nothing fails.
 *
 * A reply that carries a descriptor sets ack_nonce: until the peer has acknowledged it, one more
 * request may come (its sender had given up waiting) and is held; a second one ends the connection.
 * So each connection has at most one descriptor in flight.
 *
 * Sins against the protocol (no Hello, a wrong nonce, bytes that do not decode) end the connection;
 * requests that cannot be served get an error with a sentence.
 */
#include "daemon/dispatch.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#include "daemon/admin.h"
#include "daemon/attach.h"
#include "daemon/event.h"
#include "daemon/memory.h"
#include "daemon/reaper.h"
#include "daemon/records.h"
#include "daemon/retire.h"
#include "daemon/roots.h"
#include "daemon/segments.h"
#include "daemon/session.h"
#include "daemon/tenant.h"
#include "daemon/ticket.h"
#include "daemon/version.h"
#include "shm/sizeclass.h"

/* ---- hello ---- */

static void do_hello(struct core *core, struct session *s, const struct msg_request *req)
{
    struct msg_reply reply;
    if (strcmp(req->hello.magic, "ACRE") != 0 || s->greeted) {
        session_close(core, s);
        return;
    }
    if (req->hello.version_max < PROTO_VERSION_MIN || req->hello.version_min > PROTO_VERSION_MAX) {
        session_fail(
            core, s, -EPROTONOSUPPORT,
            "the client speaks versions %u to %u of the protocol, acred %s speaks %u to %u",
            req->hello.version_min, req->hello.version_max, ACRED_VERSION, PROTO_VERSION_MIN,
            PROTO_VERSION_MAX);
        return;
    }
    if (req->hello.fingerprint != layout_fingerprint()) {
        session_fail(core, s, -EPROTONOSUPPORT,
                     "the client has another memory layout (%016" PRIx64
                     ") than acred %s (%016" PRIx64 "): they are of different builds",
                     req->hello.fingerprint, ACRED_VERSION, layout_fingerprint());
        return;
    }
    s->greeted = true;
    reply_of(&reply, MSG_HELLO);
    reply.hello.version = MIN(req->hello.version_max, PROTO_VERSION_MAX);
    strcpy(reply.hello.daemon_version, ACRED_VERSION);
    session_reply(core, s, &reply, -1);
}

/* ---- roots ---- */

static const char *root_sentence(int error)
{
    switch (error) {
    case -EINVAL:
        return "the name is empty or the offset is no block's start";
    case -EPERM:
        return "the block is another client's";
    case -ENOENT:
        return "there is no such root";
    case -EEXIST:
        return "the root exists";
    case -EAGAIN:
        return "the root is not what was expected";
    case -ENOSPC:
        return "the heap has its 1,024 roots";
    default:
        return "it failed";
    }
}

static void do_root(struct core *core, struct session *s, struct tenant *t,
                    const struct msg_request *req)
{
    struct msg_reply reply;
    uint64_t off = 0;
    int r = roots_do(t, s->client, req, &off);
    if (r < 0) {
        session_fail(core, s, r, "root \"%s\": %s", req->root.name, root_sentence(r));
        return;
    }
    reply_of(&reply, MSG_ROOT);
    reply.root.off = off;
    session_reply(core, s, &reply, -1);
}

/* ---- what lookers may ask, too ---- */

static void tell_seg(struct client *c, struct seg *seg)
{
    segments_tell(c->tenant, seg);
    retire_mapped(c, seg);
}

static void do_map_segment(struct core *core, struct session *s, const struct tenant *t,
                           const struct msg_request *req)
{
    struct msg_reply reply;
    struct seg *seg = tenant_seg(t, req->map_segment.slot);
    /* What no client knows may go, and its slot be another's at once (yield.c); others leave it only
     * when nobody maps them, readers neither. */
    if (!seg || (s->client && !seg->is_kept) || (s->reads && !seg->is_known) ||
        (seg->is_retiring && (s->client || s->reads))) {
        session_fail(core, s, -ENOENT, "slot %u holds no segment", req->map_segment.slot);
        return;
    }
    int fd = -1, r = 0;
    if (!s->client)
        r = segment_reopen_readonly(seg->fd, &fd);
    else if ((fd = fcntl(seg->client_fd, F_DUPFD_CLOEXEC, 0)) < 0)
        r = -errno;
    else
        tell_seg(s->client, seg);
    if (r < 0) {
        session_fail(core, s, r, "no descriptor for the segment: %s", strerror(-r));
        return;
    }
    reply_of(&reply, MSG_MAP_SEGMENT);
    reply.map_segment.head_slot = seg->slot;
    reply.map_segment.size_bytes = seg->shape.size_bytes;
    session_reply(core, s, &reply, fd);
}

static void do_look(struct core *core, struct session *s, const struct msg_request *req)
{
    struct tenant *t = s->client ? s->client->tenant : s->looking;
    if (!t && s->looking_heap_id == 0)
        session_fail(core, s, -EINVAL, "this connection has no tenant");
    else if (!t || (!s->client && (!t->is_open || t->heap_id != s->looking_heap_id)))
        session_fail(core, s, -ESTALE, "the heap has been dropped");
    else if (!s->client && !session_find(core, s, t->name, ACCESS_LOOK))
        return; /* the configuration has changed */
    else if (req->op == MSG_EXTENTS)
        records_extents(core, s, t, req);
    else if (req->op == MSG_HOLDERS)
        records_holders(core, s, t, req);
    else if (req->op == MSG_WAITERS)
        ticket_tell(core, s, t, req);
    else if (req->op == MSG_ROOT)
        do_root(core, s, t, req);
    else
        do_map_segment(core, s, t, req);
}

/* ---- which request ---- */

static bool takes_client(enum msg_op op)
{
    return op == MSG_GROW || op == MSG_RELEASE || op == MSG_FREE_LARGE || op == MSG_ROOT ||
           op == MSG_PUBLISH_ALL || op == MSG_DETACH || op == MSG_RETIRE || op == MSG_WAIT ||
           op == MSG_CANCEL || op == MSG_WATCH || op == MSG_SOFT;
}

static void do_memory(struct core *core, struct session *s, const struct msg_request *req)
{
    switch (req->op) {
    case MSG_GROW:
        s->rounds = (struct rounds){0};
        memory_grow(core, s, req);
        break;
    case MSG_RELEASE:
        memory_release(core, s, req);
        break;
    case MSG_FREE_LARGE:
        memory_free_large(core, s, req);
        break;
    case MSG_RETIRE:
        retire_request(core, s, req);
        break;
    case MSG_SOFT:
        soft_request(core, s, req);
        break;
    case MSG_ROOT:
        do_root(core, s, s->client->tenant, req);
        break;
    case MSG_WAIT:
        ticket_wait(core, s, req);
        break;
    case MSG_CANCEL:
        ticket_cancel(core, s, req);
        break;
    case MSG_WATCH:
        event_watch(core, s, req);
        break;
    case MSG_PUBLISH_ALL:
        session_wait_publish(s);
        reaper_publish(s->client->tenant);
        break;
    default:
        attach_detach(core, s);
    }
}

static bool takes_look(const struct session *s, const struct msg_request *req)
{
    return req->op == MSG_MAP_SEGMENT || req->op == MSG_EXTENTS || req->op == MSG_HOLDERS ||
           req->op == MSG_WAITERS ||
           (req->op == MSG_ROOT && req->root.op == ROOT_GET && !s->client);
}

static void do_request(struct core *core, struct session *s, const struct msg_request *req, int fd)
{
    s->serial = req->serial;
    if (req->op == MSG_ATTACH) {
        attach_request(core, s, req, fd);
        return;
    }
    session_close_unwanted(core, s, fd); /* no other request brings one */
    if (takes_look(s, req)) {
        do_look(core, s, req);
    } else if (takes_client(req->op)) {
        if (s->client && s->client->state == CLIENT_LIVES)
            do_memory(core, s, req);
        else
            session_fail(core, s, -EINVAL, "this connection is not attached to a tenant");
    } else if (req->op == MSG_STATUS) {
        admin_status(core, s);
    } else if (req->op == MSG_TENANTS) {
        admin_tenants(core, s, req);
    } else if (req->op == MSG_LOOK) {
        admin_look(core, s, req);
    } else if (req->op == MSG_UPGRADE) {
        admin_upgrade(core, s);
    } else if (req->op == MSG_RELOAD) {
        admin_reload(core, s);
    } else if (req->op == MSG_TENANT_SET) {
        admin_tenant_set(core, s, req);
    } else {
        admin_tenant_drop(core, s, req);
    }
}

/* ---- descriptors that are not acknowledged yet ---- */

static void hold(struct core *core, struct session *s, const struct msg_request *req, int fd)
{
    session_close_unwanted(core, s, fd); /* who is owed an Ack has a tenant, and cannot attach */
    if (!s->held && (s->held = malloc(sizeof(*s->held))))
        *s->held = *req;
    else
        session_close(core, s);
}

static void do_ack(struct core *core, struct session *s, const struct msg_request *req)
{
    if (s->ack_nonce == 0 || req->ack.nonce != s->ack_nonce) {
        session_close(core, s);
        return;
    }
    s->ack_nonce = 0;
    if (!s->held)
        return;
    struct msg_request *held = s->held;
    s->held = NULL;
    do_request(core, s, held, -1);
    free(held);
}

/* ---- the driver's ---- */

void dispatch_accept(struct core *core, struct session *s, void *peer, const struct creds *creds)
{
    *s = (struct session){.core = core, .peer = peer, .creds = *creds, .request_fd = -1};
    LIST_INSERT_HEAD(&core->sessions, s, in_core);
}

void dispatch_request(struct core *core, struct session *s, const struct msg_request *req,
                      int error, int fd, uint64_t now_ns)
{
    core->now_ns = now_ns;
    acre_assert(s->wait == WAIT_NONE);
    if (error < 0 && req->serial != 0 && s->greeted && !s->closing && s->ack_nonce == 0) {
        session_close_unwanted(core, s, fd); /* perhaps of a newer client: it may learn and go on */
        s->serial = req->serial;
        session_fail(core, s, -EPROTO, "acred %s does not understand this request", ACRED_VERSION);
    } else if (error < 0 || s->closing || (req->op == MSG_HELLO) == s->greeted) {
        session_close_unwanted(core, s, fd);
        if (!s->closing)
            session_close(core, s);
    } else if (req->op == MSG_HELLO) {
        session_close_unwanted(core, s, fd);
        s->serial = req->serial;
        do_hello(core, s, req);
    } else if (req->op == MSG_ACK) {
        session_close_unwanted(core, s, fd);
        do_ack(core, s, req);
    } else if (s->ack_nonce != 0) {
        hold(core, s, req, fd);
    } else {
        do_request(core, s, req, fd);
    }
}

void dispatch_hangup(struct core *core, struct session *s, uint64_t now_ns)
{
    core->now_ns = now_ns;
    LIST_REMOVE(s, in_core);
    if (s->attach)
        reaper_forget_attach(s->attach);
    session_stop_waiting(s);
    free(s->held);
    if (s->client) {
        event_disarm(s->client);
        s->client->session = NULL;
        s->client->publishing = false;
        reaper_ring(s->client);
    }
}
