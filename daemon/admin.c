/* SPDX-License-Identifier: Apache-2.0 */
/* admin.c - requests of those who look and administrate. See admin.h. */
#include "daemon/admin.h"

#include <fcntl.h>
#include <string.h>

#include "daemon/config.h"
#include "daemon/log.h"
#include "daemon/own.h"
#include "daemon/reload.h"
#include "daemon/session.h"
#include "daemon/tenant.h"
#include "daemon/version.h"

void admin_status(struct core *core, struct session *s)
{
    struct msg_reply reply;
    reply_of(&reply, MSG_STATUS);
    memset(&reply.status, 0, sizeof(reply.status));
    strcpy(reply.status.version, ACRED_VERSION);
    (void)snprintf(reply.status.mode, sizeof(reply.status.mode), "%s", core->mode);
    reply.status.pid = (uint32_t)getpid();
    reply.status.capacity_bytes = core->ledger.capacity_bytes;
    reply.status.sealed_bytes = core->ledger.charged_bytes;
    reply.status.uptime_ns = core->now_ns - core->started_ns;
    reply.status.n_tenants = core->n_tenants;
    reply.status.n_clients = core->n_clients;
    session_reply(core, s, &reply, -1);
}

static void tell_tenant(const struct tenant *t, struct msg_tenant *ret)
{
    const struct budget *b = &t->budget;
    *ret = (struct msg_tenant){.min_bytes = b->limits.min_bytes,
                               .high_bytes = b->limits.high_bytes,
                               .max_bytes = b->limits.max_bytes,
                               .weight = b->limits.weight,
                               .total_bytes = b->total_bytes,
                               .held_bytes = b->held_bytes,
                               .is_group = t->is_group && !t->is_open};
    strcpy(ret->name, t->name);
}

void admin_tenants(struct core *core, struct session *s, const struct msg_request *req)
{
    struct msg_reply reply;
    reply_of(&reply, MSG_TENANTS);
    reply.tenants.n = 0;
    reply.tenants.more = false;
    for (uint32_t i = 0; i < core->n_tenants; i++) {
        const struct tenant *t = core->tenants[i];
        if (strcmp(t->name, req->tenants.after) <= 0 || !tenant_allows(t, &s->creds, ACCESS_LOOK) ||
            (t->is_forgotten && !t->is_open))
            continue;
        if (reply.tenants.n == MSG_TENANTS_MAX) {
            reply.tenants.more = true;
            break;
        }
        tell_tenant(t, &reply.tenants.all[reply.tenants.n++]);
    }
    session_reply(core, s, &reply, -1);
}

void admin_look(struct core *core, struct session *s, const struct msg_request *req)
{
    struct msg_reply reply;
    if (s->client) {
        session_fail(core, s, -EINVAL, "this connection is attached to a tenant");
        return;
    }
    struct tenant *t =
        session_admit(core, s, own_meant(core, s->creds.uid, req->look.tenant), ACCESS_LOOK);
    if (!t)
        return;
    int fd = fcntl(t->control_ro_fd, F_DUPFD_CLOEXEC, 0);
    if (fd < 0) {
        session_fail(core, s, -errno, "no descriptor is left");
        return;
    }
    s->looking = t;
    s->looking_heap_id = t->heap_id;
    s->reads = req->look.reads;
    reply_of(&reply, MSG_LOOK);
    reply.look.heap_id = t->heap_id;
    session_reply(core, s, &reply, fd);
}

/* Of what is done, never of what is refused: anybody could fill the log. */
static void audit(const struct session *s, const char *what)
{
    log_line(LOG_NOTICE, "user %u (pid %d) %s", (unsigned)s->creds.uid, (int)s->creds.pid, what);
}

void admin_upgrade(struct core *core, struct session *s)
{
    if (!core_is_admin(core, &s->creds)) {
        session_refuse(core, s, "upgrade acred");
        return;
    }
    audit(s, "has acred replaced by the program on disk");
    core->makes_room = true;
    session_done(s);
}

void admin_reload(struct core *core, struct session *s)
{
    if (!core_is_admin(core, &s->creds)) {
        session_refuse(core, s, "change the configuration");
        return;
    }
    if (!core->source) {
        session_fail(core, s, -EOPNOTSUPP, "this daemon has no configuration to read");
        return;
    }
    audit(s, "has the configuration read again");
    s->wait = WAIT_RELOAD;
    s->is_reloading = false;
    reload_again(core);
}

/* A tenant's limits are set by whoever is above it. */
static bool may_set(const struct core *core, const struct session *s, const struct tenant *t)
{
    char group[TENANT_NAME_BYTES];
    const struct tenant *above =
        tenant_group_name(t->name, group) ? core_find_tenant(core, group) : NULL;
    return core_is_admin(core, &s->creds) ||
           (above && tenant_allows(above, &s->creds, ACCESS_ADMIN));
}

static struct limits limits_asked(const struct tenant *t, const struct msg_request *req)
{
    struct limits l = t->budget.limits;
    uint32_t which = req->tenant_set.which;
    l.min_bytes = which & SET_MIN ? req->tenant_set.min_bytes : l.min_bytes;
    l.high_bytes = which & SET_HIGH ? req->tenant_set.high_bytes : l.high_bytes;
    l.max_bytes = which & SET_MAX ? req->tenant_set.max_bytes : l.max_bytes;
    l.weight = which & SET_WEIGHT ? req->tenant_set.weight : l.weight;
    return l;
}

/* NULL, or what is wrong: what the configuration would be refused for. */
static const char *wrong_limits(const struct tenant *t, const struct limits *l)
{
    if (t->owner_uid != NOBODY_UID && l->min_bytes > 0)
        return "a min: it is one of those for each user";
    return limits_wrong(l, t->ready_units * UNIT_BYTES);
}

/* NULL, or which promise could not be kept with these limits. */
static const char *wrong_promises(struct tenant *t, const struct limits *limits)
{
    const struct limits before = t->budget.limits;
    const char *why = NULL;
    budget_set(&t->budget, limits);
    for (const struct budget *b = &t->budget; b && !why; b = b->parent)
        if (budget_promise(b) > b->limits.max_bytes)
            why = b == &t->budget ? "those below it have more min in all than its max"
                                  : "its group's tenants have more min in all than the group's max";
    if (!why && limits->min_bytes > before.min_bytes &&
        ledger_promised(&t->core->ledger) > t->core->ledger.capacity_bytes)
        why = "the tenants have more min in all than the capacity";
    budget_set(&t->budget, &before);
    return why;
}

void admin_tenant_set(struct core *core, struct session *s, const struct msg_request *req)
{
    char what[TENANT_NAME_BYTES + 160], min[32], high[32], max[32];
    struct tenant *t = session_find(core, s, req->tenant_set.tenant, ACCESS_LOOK);
    if (!t)
        return;
    if (!may_set(core, s, t) || t->is_forgotten) {
        session_fail(core, s, t->is_forgotten ? -ENOENT : -EACCES,
                     t->is_forgotten
                         ? "tenant \"%s\" is not in the configuration any more"
                         : "you may not set the limits of tenant \"%s\": administrators "
                           "of a group above it, or of acred, may",
                     t->name);
        return;
    }
    const struct limits limits = limits_asked(t, req);
    const char *wrong = wrong_limits(t, &limits);
    const char *why = wrong ? NULL : wrong_promises(t, &limits);
    if (wrong || why) {
        session_fail(core, s, -EINVAL, "tenant \"%s\" cannot have %s%s", t->name,
                     wrong ? wrong : "these limits: ", wrong ? "" : why);
        return;
    }
    (void)snprintf(what, sizeof(what), "sets tenant %s: min %s, high %s, max %s, weight %u",
                   t->name, limit_text(min, limits.min_bytes), limit_text(high, limits.high_bytes),
                   limit_text(max, limits.max_bytes), limits.weight);
    audit(s, what);
    tenant_set_limits(t, &limits);
    core_changed(core);
    session_ok(core, s);
}

void admin_tenant_drop(struct core *core, struct session *s, const struct msg_request *req)
{
    struct msg_reply reply;
    char what[TENANT_NAME_BYTES + 32];
    struct tenant *t = session_find(core, s, req->tenant_drop.tenant, ACCESS_ADMIN);
    if (!t)
        return;
    if (t->is_open && (t->clients.n > 0 || t->n_jobs > 0 || !TAILQ_EMPTY(&t->attaches))) {
        session_fail(core, s, -EBUSY, "tenant \"%s\" has %u clients", t->name, t->clients.n);
        return;
    }
    reply_of(&reply, MSG_TENANT_DROP);
    (void)snprintf(what, sizeof(what), "drops the heap of tenant %s", t->name);
    audit(s, what);
    reply.tenant_drop.freed_bytes = t->is_open ? tenant_close(t) : 0;
    core_changed(core);
    session_reply(core, s, &reply, -1);
}
