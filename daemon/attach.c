/* SPDX-License-Identifier: Apache-2.0 */
/* attach.c - a connection becomes a client, becomes one again, or ceases to be one. See
 * attach.h. */
#include "daemon/attach.h"

#include <fcntl.h>
#include <string.h>

#include "daemon/event.h"
#include "daemon/kept.h"
#include "daemon/life.h"
#include "daemon/own.h"
#include "daemon/prepare.h"
#include "daemon/reaper.h"
#include "daemon/session.h"
#include "daemon/tenant.h"

static void close_page(struct core *core, int fd)
{
    core->io.close_foreign(core->io.ctx, fd, NOBODY_UID);
}

static void return_page(struct core *core, const struct attach *a)
{
    core->n_borrowed -= a->life_fd >= 0;
    close_page(core, a->life_fd);
}

/* Of an attach that comes to nothing. */
static void forget_page(struct core *core, const struct attach *a)
{
    if (a->resume != 0) {
        return_page(core, a);
        return;
    }
    user_drop(&core->users, a->uid, USER_LIVES);
    kept_end_life(core, a->life_no, a->life_fd);
}

bool attach_count(struct core *core, struct session *s)
{
    uint32_t n = user_count(&core->users, s->creds.uid, USER_LIVES);
    if (!access_is_admin(&s->creds) && n >= core->n_user_lives_max)
        session_fail(core, s, -EAGAIN, "user %u has %u clients, which is all that a user can have",
                     (unsigned)s->creds.uid, n);
    else if (core->users.n[USER_LIVES] >= core->n_lives_max)
        session_fail(core, s, -EAGAIN,
                     "acred has %u clients, which is all that its limit of descriptors allows",
                     core->users.n[USER_LIVES]);
    else if (user_add(&core->users, s->creds.uid, USER_LIVES) < 0)
        session_fail(core, s, -ENOMEM, "acred is out of memory");
    else
        return true;
    return false;
}

/* The life page's descriptor of a new client, counted. -1: replied. */
static int new_life_fd(struct core *core, struct session *s, int fd)
{
    const char *why = "attaching takes a life page";
    bool is_life = fd >= 0 && life_check_descriptor(fd, &why) == 0;
    if (is_life && attach_count(core, s))
        return fd;
    session_close_unwanted(core, s, fd);
    if (!is_life)
        session_fail(core, s, -EPROTO, "%s", why);
    return -1;
}

static struct client *resumed_of(const struct tenant *t, const struct msg_request *req)
{
    struct client *c = t && t->is_open ? client_find(t, req->attach.resume_client) : NULL;
    return c && life_has_secret(c->life_fd, req->attach.secret) ? c : NULL;
}

/* The secret is the proof, whoever may attach by now: servers drop privileges, and tenants go from
 * the configuration. By the default tenant it may mean the own one of the user that it was. NULL:
 * replied. */
static struct client *find_resumed(struct core *core, struct session *s,
                                   const struct msg_request *req)
{
    bool is_default = own_is_default(req->attach.tenant);
    const char *name = is_default ? OWN_DEFAULT : req->attach.tenant;
    struct client *c = resumed_of(core_find_tenant(core, name), req);
    for (uint32_t i = 0; !c && is_default && i < core->n_tenants; i++)
        if (core->tenants[i]->owner_uid != NOBODY_UID)
            c = resumed_of(core->tenants[i], req);
    if (!c)
        session_fail(core, s, -ESRCH, "there is no such client to resume");
    return c;
}

/* Replied, or asked for whether the page is mapped. */
static void begin_attach(struct core *core, struct session *s, struct tenant *t,
                         const struct msg_request *req, int life_fd)
{
    struct attach *a = calloc(1, sizeof(*a));
    if (!a) {
        if (req->attach.resume_client == 0)
            user_drop(&core->users, s->creds.uid, USER_LIVES);
        close_page(core, life_fd);
        session_fail(core, s, -ENOMEM, "acred is out of memory");
        return;
    }
    *a = (struct attach){.tenant = t, .session = s, .life_fd = life_fd};
    a->uid = s->creds.uid;
    a->life_no = core->next_life_no++;
    a->resume = req->attach.resume_client;
    strcpy(a->name, req->attach.name);
    s->attach = a;
    s->wait = WAIT_ATTACH;
    reaper_ask_attach(a);
}

void attach_request(struct core *core, struct session *s, const struct msg_request *req, int fd)
{
    const char *meant = own_meant(core, s->creds.uid, req->attach.tenant);
    struct tenant *t = NULL;
    struct client *c = NULL;
    int life_fd = -1;
    if (s->client || s->looking)
        session_fail(core, s, -EINVAL, "this connection has a tenant already");
    else if (req->attach.resume_client != 0)
        c = find_resumed(core, s, req);
    else if (own_is_to_come(core, meant)) {
        own_ask(core, s, req, fd);
        return;
    } else
        t = session_admit(core, s, meant, ACCESS_ATTACH);
    if (t)
        life_fd = new_life_fd(core, s, fd);
    else
        session_close_unwanted(core, s, fd);
    if (c || life_fd >= 0)
        begin_attach(core, s, c ? c->tenant : t, req, life_fd);
}

static void reply_attached(struct core *core, struct session *s, struct client *c)
{
    struct msg_reply reply;
    struct tenant *t = c->tenant;
    s->client = c;
    c->session = s;
    int fd = fcntl(t->control_ro_fd, F_DUPFD_CLOEXEC, 0);
    if (fd < 0) { /* the hang-up that follows takes the client with it */
        session_fail(core, s, -errno, "no descriptor is left");
        session_close(core, s);
        return;
    }
    reply_of(&reply, MSG_ATTACH);
    reply.attach.client = client_handle(c->id, c->gen);
    reply.attach.heap_id = t->heap_id;
    session_reply(core, s, &reply, fd);
    prepare_pump(t);
}

static void attach_new(struct core *core, struct session *s, struct attach *a, bool other_cgroup)
{
    struct client *c;
    int pidfd = core->io.open_pidfd(s->peer);
    struct books_client what = {
        .pid = (uint32_t)s->creds.pid, .uid = s->creds.uid, .life_no = a->life_no};
    memcpy(what.name, a->name, sizeof(what.name));
    int r = client_add(a->tenant, &what, a->life_fd, pidfd, &c);
    if (r < 0) {
        close_fd(&pidfd);
        forget_page(core, a);
        session_fail(core, s, r, "tenant \"%s\" has %u clients, which is all it can have",
                     a->tenant->name, a->tenant->clients.n);
        return;
    }
    c->populate = other_cgroup;
    reply_attached(core, s, c);
}

static void attach_again(struct core *core, struct session *s, struct attach *a, bool other_cgroup)
{
    struct client *c = client_find(a->tenant, a->resume);
    return_page(core, a);
    if (!c) {
        session_fail(core, s, -ESRCH, "there is no such client to resume");
        return;
    }
    struct session *old = c->session;
    if (old) {
        session_abandon(old);
        old->client = NULL;
        event_disarm(c);
    }
    if (c->pidfd < 0) /* the daemon before had one */
        client_watch(c, core->io.open_pidfd(s->peer));
    /* A task that shares the memory of a process that has ended: its own end may ring no bell, so
     * it is asked again and again. */
    if (c->has_rung && !life_process_gone(c->pidfd)) {
        TAILQ_REMOVE(&a->tenant->rang, c, in_queue);
        c->has_rung = false;
    }
    c->populate = other_cgroup;
    s->is_resumed = true;
    reply_attached(core, s, c);
}

void attach_answer(struct core *core, struct attach *a, int error, bool other_cgroup)
{
    struct session *s = a->session;
    if (s)
        s->attach = NULL;
    if (!s) {
        forget_page(core, a);
    } else if (error < 0) {
        forget_page(core, a);
        session_fail(core, s, error,
                     error == -EIO ? "the life page cannot be kept for the next daemon"
                                   : "the life page is not mapped");
    } else if (a->resume != 0) {
        attach_again(core, s, a, other_cgroup);
    } else {
        attach_new(core, s, a, other_cgroup);
    }
    free(a);
}

void attach_detach(struct core *core, struct session *s)
{
    (void)core;
    s->wait = WAIT_DETACH;
    reaper_ring(s->client);
}
