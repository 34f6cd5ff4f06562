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
#include <stdarg.h>
#include <string.h>

#include "daemon/grant.h"
#include "daemon/life.h"
#include "daemon/log.h"
#include "daemon/machine.h"
#include "daemon/reaper.h"
#include "daemon/roots.h"
#include "daemon/tenant.h"
#include "daemon/version.h"
#include "shm/sizeclass.h"

#define KIB_PER_UNIT       ((uint64_t)(UNIT_BYTES / 1024))
#define WAKES_MAX          16u /* of a tenant in one turn: the first fit in a fragmented heap is 0.5 ms */
#define POPULATE_UNITS_MAX ((uint32_t)(MIB(16) / UNIT_BYTES)) /* 15 ms */

/* ---- replies ---- */

static void send_reply(struct core *core, struct session *s, struct msg_reply *reply, int fd)
{
    reply->serial = s->serial;
    reply->ack_nonce = 0;
    s->wait = WAIT_NONE;
    if (fd >= 0)
        s->ack_nonce = reply->ack_nonce = machine_random();
    core->io.reply(s->peer, reply, fd);
}

static void reply_error(struct core *core, struct session *s, int error, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

static void reply_error(struct core *core, struct session *s, int error, const char *fmt, ...)
{
    struct msg_reply reply;
    va_list args;
    reply.op = MSG_NONE;
    reply.error = error;
    va_start(args, fmt);
    (void)vsnprintf(reply.text, sizeof(reply.text), fmt, args);
    va_end(args);
    send_reply(core, s, &reply, -1);
}

/* A reply of kind op, to be filled in. */
static struct msg_reply *ok(struct msg_reply *reply, enum msg_op op)
{
    reply->op = op;
    reply->error = 0;
    reply->text[0] = 0;
    return reply;
}

static void reply_done(struct core *core, struct session *s)
{
    struct msg_reply reply;
    send_reply(core, s, ok(&reply, MSG_NONE), -1);
}

static void close_session(struct core *core, struct session *s)
{
    s->closing = true;
    core->io.close(s->peer);
}

static void wait_for_memory(struct session *s, const struct msg_request *req)
{
    struct tenant *t = s->client->tenant;
    s->wait = WAIT_MEMORY;
    s->grow = *req;
    TAILQ_INSERT_TAIL(&t->waiters, s, in_waiters);
    t->n_waiters++;
}

static void stop_waiting(struct session *s)
{
    if (s->wait != WAIT_MEMORY)
        return;
    TAILQ_REMOVE(&s->client->tenant->waiters, s, in_waiters);
    s->client->tenant->n_waiters--;
    s->wait = WAIT_NONE;
}

void dispatch_abandon(struct session *s)
{
    stop_waiting(s);
    if (s->client && s->client->session == s)
        s->client->publishing = false;
    s->wait = WAIT_NONE;
    if (!s->closing)
        close_session(s->core, s);
}

void dispatch_done(struct session *s)
{
    reply_done(s->core, s);
}

/* ---- descriptors that came along ---- */

static void close_page(struct core *core, int fd)
{
    core->io.close_foreign(core->io.ctx, fd, NOBODY_UID);
}

/* It may be anything: closing it may take for ever, and is its sender's fault. */
static void close_unwanted(struct core *core, const struct session *s, int fd)
{
    if (fd >= 0)
        core->io.close_foreign(core->io.ctx, fd, s->creds.uid);
}

/* ---- hello ---- */

static void do_hello(struct core *core, struct session *s, const struct msg_request *req)
{
    struct msg_reply reply;
    if (strcmp(req->hello.magic, "ACRE") != 0 || s->greeted) {
        close_session(core, s);
        return;
    }
    if (req->hello.version_max < PROTO_VERSION_MIN || req->hello.version_min > PROTO_VERSION_MAX) {
        reply_error(core, s, -EPROTONOSUPPORT,
                    "the client speaks versions %u to %u of the protocol, acred %s speaks %u to %u",
                    req->hello.version_min, req->hello.version_max, ACRED_VERSION,
                    PROTO_VERSION_MIN, PROTO_VERSION_MAX);
        return;
    }
    if (req->hello.fingerprint != layout_fingerprint()) {
        reply_error(core, s, -EPROTONOSUPPORT,
                    "the client has another memory layout (%016" PRIx64
                    ") than acred %s (%016" PRIx64 "): they are of different builds",
                    req->hello.fingerprint, ACRED_VERSION, layout_fingerprint());
        return;
    }
    s->greeted = true;
    ok(&reply, MSG_HELLO);
    reply.hello.version = MIN(req->hello.version_max, PROTO_VERSION_MAX);
    strcpy(reply.hello.daemon_version, ACRED_VERSION);
    send_reply(core, s, &reply, -1);
}

/* ---- attach ---- */

/* The tenant, if it is there and the peer may have it; else replies. */
static struct tenant *admit(struct core *core, struct session *s, const char *name)
{
    struct tenant *t = core_find_tenant(core, name);
    if (!t) {
        reply_error(core, s, -ENOENT, "there is no tenant \"%s\"", name);
        return NULL;
    }
    if (!access_allows(&t->access, &s->creds)) {
        reply_error(core, s, -EACCES, "user %u may not use tenant \"%s\"", (unsigned)s->creds.uid,
                    name);
        return NULL;
    }
    int r = tenant_open(t);
    if (r == 0)
        return t;
    reply_error(core, s, r, "the heap of tenant \"%s\" cannot be made: %s", name, strerror(-r));
    return NULL;
}

/* The life page's descriptor of an attach, or of the client to be again. -1: replied. */
static int life_fd_for(struct core *core, struct session *s, struct tenant *t,
                       const struct msg_request *req, int fd)
{
    const char *why = NULL;
    if (req->attach.resume_client == 0) {
        if (fd >= 0 && life_check_descriptor(fd, &why) == 0)
            return fd;
        close_unwanted(core, s, fd);
        reply_error(core, s, -EPROTO, "%s", why ? why : "attaching takes a life page");
        return -1;
    }
    close_unwanted(core, s, fd);
    struct client *c = client_find(t, req->attach.resume_client);
    if (!c || c->uid != s->creds.uid || !life_has_secret(c->life_fd, req->attach.secret)) {
        reply_error(core, s, -ESRCH, "there is no such client to resume");
        return -1;
    }
    int copy = fcntl(c->life_fd, F_DUPFD_CLOEXEC, 0);
    if (copy < 0)
        reply_error(core, s, -errno, "no descriptor is left");
    return copy;
}

static void do_attach(struct core *core, struct session *s, const struct msg_request *req, int fd)
{
    struct attach *a = NULL;
    struct tenant *t = NULL;
    if (s->client || s->looking)
        reply_error(core, s, -EINVAL, "this connection has a tenant already");
    else
        t = admit(core, s, req->attach.tenant);
    if (!t) {
        close_unwanted(core, s, fd);
        return;
    }
    int life_fd = life_fd_for(core, s, t, req, fd);
    if (life_fd < 0)
        return;
    a = calloc(1, sizeof(*a));
    if (!a) {
        close_page(core, life_fd);
        reply_error(core, s, -ENOMEM, "acred is out of memory");
        return;
    }
    *a = (struct attach){.tenant = t, .session = s, .life_fd = life_fd};
    a->resume = req->attach.resume_client;
    strcpy(a->name, req->attach.name);
    s->attach = a;
    s->wait = WAIT_ATTACH;
    reaper_ask_attach(a);
}

static void reply_attached(struct core *core, struct session *s, struct client *c)
{
    struct msg_reply reply;
    struct tenant *t = c->tenant;
    s->client = c;
    c->session = s;
    int fd = fcntl(t->control_ro_fd, F_DUPFD_CLOEXEC, 0);
    if (fd < 0) { /* the hang-up that follows takes the client with it */
        reply_error(core, s, -errno, "no descriptor is left");
        close_session(core, s);
        return;
    }
    ok(&reply, MSG_ATTACH);
    reply.attach.client = client_handle(c->id, c->gen);
    reply.attach.heap_id = t->heap_id;
    send_reply(core, s, &reply, fd);
}

static void attach_new(struct core *core, struct session *s, struct attach *a, bool other_cgroup)
{
    struct client *c;
    if (!access_is_admin(&s->creds) &&
        client_count(core, s->creds.uid) >= core->n_user_clients_max) {
        close_page(core, a->life_fd);
        reply_error(core, s, -EAGAIN, "user %u has %u clients, which is all that a user can have",
                    (unsigned)s->creds.uid, client_count(core, s->creds.uid));
        return;
    }
    int pidfd = core->io.open_pidfd(s->peer);
    int r = client_add(a->tenant, a->name, s->creds.pid, s->creds.uid, a->life_fd, pidfd, &c);
    if (r < 0) {
        close_fd(&pidfd);
        close_page(core, a->life_fd);
        reply_error(core, s, r, "tenant \"%s\" has %u clients, which is all it can have",
                    a->tenant->name, a->tenant->clients.n);
        return;
    }
    c->populate = other_cgroup;
    reply_attached(core, s, c);
}

static void attach_again(struct core *core, struct session *s, struct attach *a)
{
    struct client *c = client_find(a->tenant, a->resume);
    close_page(core, a->life_fd);
    if (!c) {
        reply_error(core, s, -ESRCH, "there is no such client to resume");
        return;
    }
    struct session *old = c->session;
    if (old) {
        dispatch_abandon(old);
        old->client = NULL;
    }
    if (c->has_rung)
        TAILQ_REMOVE(&a->tenant->rang, c, in_queue);
    c->has_rung = false;
    reply_attached(core, s, c);
}

void dispatch_attach_answer(struct core *core, struct attach *a, bool is_alive, bool other_cgroup)
{
    struct session *s = a->session;
    if (s)
        s->attach = NULL;
    if (!s) {
        close_page(core, a->life_fd);
    } else if (!is_alive) {
        close_page(core, a->life_fd);
        reply_error(core, s, -EPROTO, "the life page is not mapped");
    } else if (a->resume != 0) {
        attach_again(core, s, a);
    } else {
        attach_new(core, s, a, other_cgroup);
    }
    free(a);
}

static void do_detach(struct core *core, struct session *s)
{
    (void)core;
    s->wait = WAIT_DETACH;
    reaper_ring(s->client);
}

/* ---- memory ---- */

static void reply_grant(struct core *core, struct session *s, const struct grant *g)
{
    struct msg_reply reply;
    ok(&reply, MSG_GROW);
    reply.grow.run = (struct msg_run){seg_off(g->seg, g->unit), g->n_units};
    reply.grow.slab = g->slab;
    reply.grow.head_slot = g->seg->slot;
    send_reply(core, s, &reply, -1);
}

/* The client's cgroup would pay for pages that it touches first, and be killed at its limit: so
 * they are there before it knows. A tenant's grants take turns in one worker, some pages each: a
 * large one delays neither the small ones nor the other tenants. */
struct populate_job {
    struct job job;
    TAILQ_ENTRY(populate_job) in_queue;
    struct tenant *tenant;
    uint64_t client; /* handle: it may be gone when the job is done */
    struct session *session;
    struct grant grant;
    uint32_t n_done; /* units */
    int fd, error;
};

static void populate_work(struct job *job)
{
    struct populate_job *j = (struct populate_job *)job;
    uint32_t n = MIN(j->grant.n_units - j->n_done, POPULATE_UNITS_MAX);
    if (fallocate(j->fd, 0, (off_t)(j->grant.unit + j->n_done) << UNIT_SHIFT,
                  (off_t)n << UNIT_SHIFT) < 0)
        j->error = -errno;
    j->n_done += n;
}

static void pump_populates(struct tenant *t)
{
    struct populate_job *j = TAILQ_FIRST(&t->populates);
    if (!j)
        return;
    t->n_jobs++;
    core_submit(t->core, &j->job);
}

/* Its pages are there, or cannot be had, or nobody waits for them any more. */
static void finish_populate(struct core *core, struct populate_job *j, struct client *c,
                            struct session *s)
{
    if (c && j->error < 0)
        grant_undo(j->tenant, c, &j->grant);
    if (s && j->error < 0)
        reply_error(core, s, -ENOMEM, "the machine cannot back %u units: %s", j->grant.n_units,
                    strerror(-j->error));
    else if (s)
        reply_grant(core, s, &j->grant);
    free(j);
}

static void populate_done(struct core *core, struct job *job)
{
    struct populate_job *j = (struct populate_job *)job;
    struct tenant *t = j->tenant;
    struct client *c = client_find(t, j->client);
    struct session *s = c ? c->session : NULL;
    bool is_wanted = s && s == j->session && s->wait == WAIT_POPULATE;
    t->n_jobs--;
    TAILQ_REMOVE(&t->populates, j, in_queue);
    if (is_wanted && j->error == 0 && j->n_done < j->grant.n_units)
        TAILQ_INSERT_TAIL(&t->populates, j, in_queue);
    else
        finish_populate(core, j, c, is_wanted ? s : NULL);
    while (core->is_stopping && (j = TAILQ_FIRST(&t->populates))) {
        TAILQ_REMOVE(&t->populates, j, in_queue);
        free(j);
    }
    pump_populates(t);
}

static bool populate(struct core *core, struct session *s, const struct grant *g)
{
    struct populate_job *j = calloc(1, sizeof(*j));
    struct client *c = s->client;
    struct tenant *t = c->tenant;
    bool is_first = TAILQ_EMPTY(&t->populates);
    (void)core;
    if (!j)
        return false;
    *j = (struct populate_job){.job = {populate_work, populate_done},
                               .tenant = t,
                               .client = client_handle(c->id, c->gen),
                               .session = s,
                               .grant = *g,
                               .fd = g->seg->fd};
    s->wait = WAIT_POPULATE;
    TAILQ_INSERT_TAIL(&t->populates, j, in_queue);
    if (is_first)
        pump_populates(t);
    return true;
}

static void refuse_memory(struct core *core, struct session *s, const struct msg_request *req)
{
    const struct tenant *t = s->client->tenant;
    reply_error(core, s, -ENOMEM,
                "%" PRIu64 " KiB asked in one piece: tenant \"%s\" has %" PRIu64
                " KiB granted, %" PRIu64 " KiB in segments of max %" PRIu64
                " KiB; the daemon has %" PRIu64 " of %" PRIu64 " KiB",
                req->grow.n_units * KIB_PER_UNIT, t->name, t->granted_units * KIB_PER_UNIT,
                t->budget.charged_bytes / 1024, t->budget.max_bytes / 1024,
                t->core->ledger.charged_bytes / 1024, t->core->ledger.capacity_bytes / 1024);
}

/* Is something under way that may give memory back? */
static bool may_come_back(const struct tenant *t)
{
    return t->is_sweeping || t->is_punching || !TAILQ_EMPTY(&t->dying) ||
           (t->is_asking && !TAILQ_EMPTY(&t->rang));
}

static void do_grow(struct core *core, struct session *s, const struct msg_request *req)
{
    struct grant g = {0};
    struct tenant *t = s->client->tenant;
    int r = grant_grow(t, s->client, req, &s->grow_round, &g);
    if (r == 0 && !(s->client->populate && populate(core, s, &g)))
        reply_grant(core, s, &g);
    else if (r == -EINPROGRESS || (r == -ENOMEM && may_come_back(t)))
        wait_for_memory(s, req);
    else if (r == -ENOMEM)
        refuse_memory(core, s, req);
    else if (r < 0)
        reply_error(core, s, r, "%u units of alignment order %u cannot be granted: %s",
                    req->grow.n_units, req->grow.align_order, strerror(-r));
}

/* Who waits on joins the queue's end again: each is tried once. */
void dispatch_wake_more(struct tenant *t)
{
    t->n_to_wake = MIN(t->n_to_wake, t->n_waiters);
    for (unsigned i = 0; i < WAKES_MAX && t->n_to_wake > 0; i++, t->n_to_wake--) {
        struct session *s = TAILQ_FIRST(&t->waiters);
        struct msg_request req = s->grow;
        stop_waiting(s);
        do_grow(t->core, s, &req);
    }
}

void dispatch_wake(struct tenant *t)
{
    t->n_to_wake = t->n_waiters;
    dispatch_wake_more(t);
}

static void do_release(struct core *core, struct session *s, const struct msg_request *req)
{
    struct tenant *t = s->client->tenant;
    int r = grant_release(t, s->client, req->release.runs, req->release.n_runs);
    if (r < 0)
        reply_error(core, s, r, "some of the %u runs given back are not the client's",
                    req->release.n_runs);
    else
        reply_done(core, s);
    dispatch_wake(t);
}

static void do_free_large(struct core *core, struct session *s, const struct msg_request *req)
{
    struct tenant *t = s->client->tenant;
    int r = grant_free_large(t, req->free_large.off);
    if (r < 0)
        reply_error(core, s, r, "there is no freed large block at offset %" PRIx64,
                    req->free_large.off);
    else
        reply_done(core, s);
    dispatch_wake(t);
}

/* ---- segments ---- */

static void do_map_segment(struct core *core, struct session *s, const struct msg_request *req)
{
    struct msg_reply reply;
    struct tenant *t = s->client ? s->client->tenant : s->looking;
    if (!s->client && (!t->is_open || t->heap_id != s->looking_heap_id)) {
        reply_error(core, s, -ESTALE, "the heap has been dropped");
        return;
    }
    const struct seg *seg = tenant_seg(t, req->map_segment.slot);
    if (!seg) {
        reply_error(core, s, -ENOENT, "slot %u holds no segment", req->map_segment.slot);
        return;
    }
    int fd = -1, r = 0;
    if (!s->client)
        r = segment_reopen_readonly(seg->fd, &fd);
    else if ((fd = fcntl(seg->client_fd, F_DUPFD_CLOEXEC, 0)) < 0)
        r = -errno;
    if (r < 0) {
        reply_error(core, s, r, "no descriptor for the segment: %s", strerror(-r));
        return;
    }
    ok(&reply, MSG_MAP_SEGMENT);
    reply.map_segment.head_slot = seg->slot;
    reply.map_segment.size_bytes = seg->shape.size_bytes;
    send_reply(core, s, &reply, fd);
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

static void do_root(struct core *core, struct session *s, const struct msg_request *req)
{
    struct msg_reply reply;
    uint64_t off = 0;
    int r = roots_do(s->client->tenant, s->client, req, &off);
    if (r < 0) {
        reply_error(core, s, r, "root \"%s\": %s", req->root.name, root_sentence(r));
        return;
    }
    ok(&reply, MSG_ROOT);
    reply.root.off = off;
    send_reply(core, s, &reply, -1);
}

/* ---- administration ---- */

static void do_status(struct core *core, struct session *s)
{
    struct msg_reply reply;
    ok(&reply, MSG_STATUS);
    memset(&reply.status, 0, sizeof(reply.status));
    strcpy(reply.status.version, ACRED_VERSION);
    (void)snprintf(reply.status.mode, sizeof(reply.status.mode), "%s", core->mode);
    reply.status.pid = (uint32_t)getpid();
    reply.status.capacity_bytes = core->ledger.capacity_bytes;
    reply.status.sealed_bytes = core->ledger.charged_bytes;
    reply.status.uptime_ns = core->now_ns - core->started_ns;
    reply.status.n_tenants = core->n_tenants;
    reply.status.n_clients = core->n_clients;
    send_reply(core, s, &reply, -1);
}

static void do_tenants(struct core *core, struct session *s, const struct msg_request *req)
{
    struct msg_reply reply;
    ok(&reply, MSG_TENANTS);
    reply.tenants.n_names = 0;
    reply.tenants.more = false;
    for (uint32_t i = 0; i < core->n_tenants; i++) {
        const struct tenant *t = core->tenants[i];
        if (strcmp(t->name, req->tenants.after) <= 0 || !access_allows(&t->access, &s->creds))
            continue;
        if (reply.tenants.n_names == MSG_TENANTS_MAX) {
            reply.tenants.more = true;
            break;
        }
        strcpy(reply.tenants.names[reply.tenants.n_names++], t->name);
    }
    send_reply(core, s, &reply, -1);
}

static void do_look(struct core *core, struct session *s, const struct msg_request *req)
{
    struct msg_reply reply;
    if (s->client) {
        reply_error(core, s, -EINVAL, "this connection is attached to a tenant");
        return;
    }
    struct tenant *t = admit(core, s, req->look.tenant);
    if (!t)
        return;
    int fd = fcntl(t->control_ro_fd, F_DUPFD_CLOEXEC, 0);
    if (fd < 0) {
        reply_error(core, s, -errno, "no descriptor is left");
        return;
    }
    s->looking = t;
    s->looking_heap_id = t->heap_id;
    ok(&reply, MSG_LOOK);
    reply.look.heap_id = t->heap_id;
    send_reply(core, s, &reply, fd);
}

static void do_tenant_drop(struct core *core, struct session *s, const struct msg_request *req)
{
    struct msg_reply reply;
    struct tenant *t = core_find_tenant(core, req->tenant_drop.tenant);
    if (!access_is_admin(&s->creds)) {
        reply_error(core, s, -EACCES, "user %u may not drop heaps", (unsigned)s->creds.uid);
        return;
    }
    if (!t) {
        reply_error(core, s, -ENOENT, "there is no tenant \"%s\"", req->tenant_drop.tenant);
        return;
    }
    if (t->is_open && (t->clients.n > 0 || t->n_jobs > 0 || !TAILQ_EMPTY(&t->attaches))) {
        reply_error(core, s, -EBUSY, "tenant \"%s\" has %u clients", t->name, t->clients.n);
        return;
    }
    ok(&reply, MSG_TENANT_DROP);
    reply.tenant_drop.freed_bytes = t->is_open ? tenant_close(t) : 0;
    send_reply(core, s, &reply, -1);
}

/* ---- which request ---- */

static bool takes_client(enum msg_op op)
{
    return op == MSG_GROW || op == MSG_RELEASE || op == MSG_FREE_LARGE || op == MSG_ROOT ||
           op == MSG_PUBLISH_ALL || op == MSG_DETACH;
}

static void do_memory(struct core *core, struct session *s, const struct msg_request *req)
{
    switch (req->op) {
    case MSG_GROW:
        s->grow_round = 0;
        do_grow(core, s, req);
        break;
    case MSG_RELEASE:
        do_release(core, s, req);
        break;
    case MSG_FREE_LARGE:
        do_free_large(core, s, req);
        break;
    case MSG_ROOT:
        do_root(core, s, req);
        break;
    case MSG_PUBLISH_ALL:
        s->wait = WAIT_PUBLISH;
        reaper_publish(s->client->tenant);
        break;
    default:
        do_detach(core, s);
    }
}

static void do_request(struct core *core, struct session *s, const struct msg_request *req, int fd)
{
    s->serial = req->serial;
    if (req->op == MSG_ATTACH) {
        do_attach(core, s, req, fd);
        return;
    }
    close_unwanted(core, s, fd); /* no other request brings one */
    if (takes_client(req->op)) {
        if (s->client && s->client->state == CLIENT_LIVES)
            do_memory(core, s, req);
        else
            reply_error(core, s, -EINVAL, "this connection is not attached to a tenant");
    } else if (req->op == MSG_MAP_SEGMENT) {
        if (s->client || s->looking)
            do_map_segment(core, s, req);
        else
            reply_error(core, s, -EINVAL, "this connection has no tenant");
    } else if (req->op == MSG_STATUS) {
        do_status(core, s);
    } else if (req->op == MSG_TENANTS) {
        do_tenants(core, s, req);
    } else if (req->op == MSG_LOOK) {
        do_look(core, s, req);
    } else {
        do_tenant_drop(core, s, req);
    }
}

/* ---- descriptors that are not acknowledged yet ---- */

static void hold(struct core *core, struct session *s, const struct msg_request *req, int fd)
{
    if (!s->held) {
        s->held = malloc(sizeof(*s->held));
        if (s->held) {
            *s->held = *req;
            s->held_fd = fd;
            return;
        }
    }
    close_unwanted(core, s, fd);
    close_session(core, s);
}

static void do_ack(struct core *core, struct session *s, const struct msg_request *req)
{
    if (s->ack_nonce == 0 || req->ack.nonce != s->ack_nonce) {
        close_session(core, s);
        return;
    }
    s->ack_nonce = 0;
    if (!s->held)
        return;
    struct msg_request *held = s->held;
    s->held = NULL;
    do_request(core, s, held, s->held_fd);
    free(held);
}

/* ---- the driver's ---- */

void dispatch_accept(struct core *core, struct session *s, void *peer, const struct creds *creds)
{
    *s = (struct session){.core = core, .peer = peer, .creds = *creds, .held_fd = -1};
    LIST_INSERT_HEAD(&core->sessions, s, in_core);
}

void dispatch_request(struct core *core, struct session *s, const struct msg_request *req,
                      int error, int fd, uint64_t now_ns)
{
    core->now_ns = now_ns;
    acre_assert(s->wait == WAIT_NONE);
    if (error < 0 && req->serial != 0 && s->greeted && !s->closing && s->ack_nonce == 0) {
        close_unwanted(core, s, fd); /* perhaps of a newer client: it may learn and go on */
        s->serial = req->serial;
        reply_error(core, s, -EPROTO, "acred %s does not understand this request", ACRED_VERSION);
    } else if (error < 0 || s->closing || (req->op == MSG_HELLO) == s->greeted) {
        close_unwanted(core, s, fd);
        if (!s->closing)
            close_session(core, s);
    } else if (req->op == MSG_HELLO) {
        close_unwanted(core, s, fd);
        s->serial = req->serial;
        do_hello(core, s, req);
    } else if (req->op == MSG_ACK) {
        close_unwanted(core, s, fd);
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
    stop_waiting(s);
    if (s->held) {
        close_unwanted(core, s, s->held_fd);
        free(s->held);
    }
    if (s->client) {
        s->client->session = NULL;
        s->client->publishing = false;
        reaper_ring(s->client);
    }
}
