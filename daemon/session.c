/* SPDX-License-Identifier: Apache-2.0 */
/* session.c - what every request needs of its connection. See session.h. */
#include "daemon/session.h"

#include <stdarg.h>
#include <string.h>

#include "daemon/machine.h"
#include "daemon/tenant.h"

/* ---- replies ---- */

void session_reply(struct core *core, struct session *s, struct msg_reply *reply, int fd)
{
    reply->serial = s->serial;
    reply->ack_nonce = 0;
    s->wait = WAIT_NONE;
    if (fd >= 0)
        s->ack_nonce = reply->ack_nonce = machine_random();
    core->io.reply(s->peer, reply, fd);
}

void session_fail(struct core *core, struct session *s, int error, const char *fmt, ...)
{
    struct msg_reply reply;
    va_list args;
    reply.op = MSG_NONE;
    reply.error = error;
    va_start(args, fmt);
    (void)vsnprintf(reply.text, sizeof(reply.text), fmt, args);
    va_end(args);
    session_reply(core, s, &reply, -1);
}

/* A reply of kind op, to be filled in. */
struct msg_reply *reply_of(struct msg_reply *reply, enum msg_op op)
{
    reply->op = op;
    reply->error = 0;
    reply->text[0] = 0;
    return reply;
}

void session_ok(struct core *core, struct session *s)
{
    struct msg_reply reply;
    session_reply(core, s, reply_of(&reply, MSG_NONE), -1);
}

void session_close(struct core *core, struct session *s)
{
    s->closing = true;
    core->io.close(s->peer);
}

void session_wait_memory(struct session *s, const struct msg_request *req)
{
    struct tenant *t = s->client->tenant;
    s->wait = WAIT_MEMORY;
    s->request = *req;
    TAILQ_INSERT_TAIL(&t->waiters, s, in_waiters);
    t->n_waiters++;
}

void session_wait_release(struct session *s)
{
    s->wait = WAIT_RELEASE;
    TAILQ_INSERT_TAIL(&s->core->releasing, s, in_waiters);
}

void session_wait_publish(struct session *s)
{
    s->wait = WAIT_PUBLISH;
    TAILQ_INSERT_TAIL(&s->core->publishing, s, in_waiters);
}

void session_stop_waiting(struct session *s)
{
    if (s->wait == WAIT_RELEASE) {
        TAILQ_REMOVE(&s->core->releasing, s, in_waiters);
    } else if (s->wait == WAIT_MEMORY) {
        TAILQ_REMOVE(&s->client->tenant->waiters, s, in_waiters);
        s->client->tenant->n_waiters--;
    } else if (s->wait == WAIT_PUBLISH) {
        TAILQ_REMOVE(&s->core->publishing, s, in_waiters);
    } else if (s->wait == WAIT_NAME) {
        TAILQ_REMOVE(&s->core->naming, s, in_waiters);
        user_drop(&s->core->users, s->creds.uid, USER_LIVES);
        session_close_unwanted(s->core, s, s->request_fd);
        s->request_fd = -1;
    } else {
        return;
    }
    s->wait = WAIT_NONE;
}

void session_abandon(struct session *s)
{
    session_stop_waiting(s);
    if (s->client && s->client->session == s)
        s->client->publishing = false;
    s->wait = WAIT_NONE;
    if (!s->closing)
        session_close(s->core, s);
}

void session_done(struct session *s)
{
    session_ok(s->core, s);
}

/* ---- descriptors that came along ---- */

/* It may be anything: closing it may take for ever, and is its sender's fault. */
void session_close_unwanted(struct core *core, const struct session *s, int fd)
{
    if (fd >= 0)
        core->io.close_foreign(core->io.ctx, fd, s->creds.uid);
}

/* ---- tenants ---- */

void session_refuse(struct core *core, struct session *s, const char *what)
{
    session_fail(
        core, s, -EACCES,
        "user %u may not %s: %s outside of any tenant in acred's configuration would allow "
        "it",
        (unsigned)s->creds.uid, what, access_keys[ACCESS_ADMIN]);
}

struct tenant *session_find(struct core *core, struct session *s, const char *name,
                            enum access_right right)
{
    static const char *const words[] = {"look at", "attach to", "drop the heap of"};
    struct tenant *t = core_find_tenant(core, name);
    if (!t) {
        session_fail(core, s, -ENOENT, "there is no tenant \"%s\"", name);
        return NULL;
    }
    if (tenant_allows(t, &s->creds, right))
        return t;
    session_fail(core, s, -EACCES,
                 "user %u may not %s tenant \"%s\": its %s in acred's configuration would allow it",
                 (unsigned)s->creds.uid, words[right], name, access_keys[right]);
    return NULL;
}

struct tenant *session_admit(struct core *core, struct session *s, const char *name,
                             enum access_right right)
{
    struct tenant *t = session_find(core, s, name, right);
    if (!t)
        return NULL;
    if ((t->is_group || t->is_forgotten) && (right == ACCESS_ATTACH || !t->is_open)) {
        session_fail(core, s, -ENOENT,
                     t->is_group ? "tenant \"%s\" is a group: one of those below it has a heap"
                                 : "tenant \"%s\" is not in the configuration any more",
                     name);
        return NULL;
    }
    int r = tenant_open(t);
    if (r == 0)
        return t;
    session_fail(core, s, r, "the heap of tenant \"%s\" cannot be made: %s", name, strerror(-r));
    return NULL;
}
