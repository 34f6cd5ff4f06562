/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reloading, theory. Limits are intents: nothing that is there is taken by force.
 *
 *   max lowered      below what is charged: nothing more is granted, the rest stays until its
 *                    owners give it back
 *   min raised       what others have already of it is missing until they give it back; nobody gets
 *                    anything new before that (ledger.c)
 *   tenant gone      its clients go on with what they have; nobody new may attach, and it cannot
 *                    grow. Named again, it is what it was
 *   pages            from the next heap on
 *   users' own       as the pattern says by now (own.c); they are forgotten when it is gone, or
 *                    does not fit their names any more
 *
 * All that can fail (memory for new tenants) comes first, so that a configuration is carried out
 * whole or not at all.
 */
#include "daemon/reload.h"

#include <inttypes.h>
#include <string.h>

#include "daemon/log.h"
#include "daemon/machine.h"
#include "daemon/memory.h"
#include "daemon/own.h"
#include "daemon/session.h"
#include "daemon/tenant.h"

/* ---- reading ---- */

static unsigned long long mib(uint64_t bytes)
{
    return bytes >> 20;
}

/* What the machine has to do with it. */
static int check_sums(const struct config *config, char text[MSG_TEXT_BYTES])
{
    uint64_t ready_bytes = 0;
    for (uint32_t i = 0; i < config->n_tenants; i++)
        ready_bytes += config->tenants[i].wish.ready_bytes;
    if (config->asked_bytes > config->capacity_bytes)
        log_line(LOG_WARNING,
                 "a capacity of %llu MiB is more than the machine or this cgroup can back: it is "
                 "%llu MiB",
                 mib(config->asked_bytes), mib(config->capacity_bytes));
    if (ready_bytes > config->capacity_bytes)
        log_line(LOG_WARNING, "the tenants have %llu MiB ready, and the capacity is %llu MiB",
                 mib(ready_bytes), mib(config->capacity_bytes));
    if (config->min_bytes <= config->capacity_bytes)
        return 0;
    (void)snprintf(text, MSG_TEXT_BYTES,
                   "the tenants are promised %llu MiB in all (min), and the capacity is %llu MiB",
                   mib(config->min_bytes), mib(config->capacity_bytes));
    return -EINVAL;
}

int reload_read(const struct config_source *source, enum reload_how how, struct config *ret,
                char text[MSG_TEXT_BYTES])
{
    const char *path = source->path;
    if (!path && !source->is_user && access(RELOAD_DEFAULT, F_OK) == 0)
        path = RELOAD_DEFAULT;
    *ret = (struct config){0};
    (void)snprintf(text, MSG_TEXT_BYTES, "acred is out of memory");
    int r = path ? config_read(ret, path, text, MSG_TEXT_BYTES) : 0;
    if (r < 0)
        return r;
    if (source->capacity_bytes != 0)
        ret->capacity_bytes = source->capacity_bytes;
    r = config_complete(ret, machine_memory_bytes(""));
    if (r < 0 || how == RELOAD_QUIETLY)
        return r;
    r = check_sums(ret, text);
    if (r == 0 || how == RELOAD_STRICTLY)
        return r;
    log_line(LOG_WARNING, "%s: not all of them can have it", text);
    return 0;
}

/* ---- what changes, for the log ---- */

static void say_bytes(const char *name, const char *what, uint64_t from_bytes, uint64_t to_bytes)
{
    char from[32], to[32];
    if (from_bytes != to_bytes)
        log_line(LOG_NOTICE, "tenant %s: %s %s, was %s", name, what, limit_text(to, to_bytes),
                 limit_text(from, from_bytes));
}

static void say_wish(const char *name, const struct tenant_wish *from, const struct tenant_wish *to)
{
    say_bytes(name, "min", from->limits.min_bytes, to->limits.min_bytes);
    say_bytes(name, "high", from->limits.high_bytes, to->limits.high_bytes);
    say_bytes(name, "max", from->limits.max_bytes, to->limits.max_bytes);
    say_bytes(name, "ready", from->ready_bytes, to->ready_bytes);
    if (from->limits.weight != to->limits.weight)
        log_line(LOG_NOTICE, "tenant %s: weight %u, was %u", name, to->limits.weight,
                 from->limits.weight);
    if (from->pages != to->pages)
        log_line(LOG_NOTICE, "tenant %s: pages %s, from its next heap on", name,
                 to->pages == PAGES_THP ? "thp" : "4k");
}

static void say_access(const char *name, const struct access *from, const struct access *to)
{
    for (unsigned i = 0; i < ACCESS_RIGHTS; i++)
        if (!access_list_equals(&from->of[i], &to->of[i]))
            log_line(LOG_NOTICE, "tenant %s: %s changed", name, access_keys[i]);
}

/* How users' own tenants are. */
static void say_own(const struct own *from, const struct own *to)
{
    if (from && to && strcmp(from->name, to->name) == 0) {
        say_wish(from->name, &from->wish, &to->wish);
        say_access(from->name, &from->access, &to->access);
        return;
    }
    if (from)
        log_line(LOG_NOTICE, "users have no tenants %s of their own any more", from->name);
    if (to)
        log_line(LOG_NOTICE, "users have tenants %s of their own: max %" PRIu64 " KiB", to->name,
                 to->wish.limits.max_bytes >> 10);
}

static void say_daemon(const struct core *core, const struct config *config)
{
    if (core->ledger.capacity_bytes != config->capacity_bytes)
        log_line(LOG_NOTICE, "capacity %llu MiB, was %llu MiB", mib(config->capacity_bytes),
                 mib(core->ledger.capacity_bytes));
    if (!access_list_equals(&core->admins, &config->admins))
        log_line(LOG_NOTICE, "%s outside of any tenant changed", access_keys[ACCESS_ADMIN]);
}

/* ---- carrying out ---- */

static void say_change(const struct tenant *t, const struct config_tenant *plan)
{
    struct tenant_wish from = {t->budget.limits, t->ready_units * UNIT_BYTES, t->pages_wanted};
    if (t->is_forgotten) {
        log_line(LOG_NOTICE, "tenant %s is new: max %" PRIu64 " KiB", t->name,
                 plan->wish.limits.max_bytes >> 10);
        return;
    }
    say_wish(t->name, &from, &plan->wish);
    say_access(t->name, &t->access, &plan->access);
}

static void change(struct tenant *t, const struct tenant_wish *wish)
{
    t->is_forgotten = false;
    tenant_set(t, wish);
    if (t->budget.total_bytes > wish->limits.max_bytes)
        log_line(LOG_WARNING, "tenant %s has %" PRIu64 " KiB more than its max: it cannot grow",
                 t->name, (t->budget.total_bytes - wish->limits.max_bytes) >> 10);
}

static const struct tenant_wish nothing;

static void forget(struct tenant *t)
{
    struct access nobody = {0};
    if (t->is_forgotten)
        return;
    log_line(LOG_WARNING, "tenant %s is not in the configuration any more%s", t->name,
             t->is_open ? ": its heap stays until it is dropped" : "");
    t->is_forgotten = true;
    tenant_let_in(t, &nobody);
    tenant_set(t, &nothing);
}

/* Users' own tenants are not named: there they are as the pattern says. */
static void unname(struct tenant *t)
{
    const struct own *own = t->core->own;
    if (t->owner_uid == NOBODY_UID || !own || !own_fits(own->name, t->name)) {
        forget(t);
        return;
    }
    change(t, &own->wish);
}

/* Takes own. The first configuration changes nothing. */
static void carry_out(struct core *core, struct config *config, struct own *own)
{
    bool is_first = !core->is_configured;
    core->is_configured = true;
    if (!is_first) {
        say_daemon(core, config);
        say_own(core->own, own);
    }
    own_free(core->own);
    core->own = own;
    access_list_deinit(&core->admins);
    core->admins = config->admins;
    config->admins = (struct access_list){0};
    for (uint32_t i = 0; i < core->n_tenants; i++)
        if (!config_find(config, core->tenants[i]->name))
            unname(core->tenants[i]);
    for (uint32_t i = 0; i < config->n_tenants; i++) {
        struct config_tenant *plan = &config->tenants[i];
        struct tenant *t = core_find_tenant(core, plan->name);
        t->is_group = plan->is_group;
        if (!is_first)
            say_change(t, plan);
        tenant_set_owner(t, NOBODY_UID);
        tenant_let_in(t, &plan->access);
        change(t, &plan->wish);
    }
    core->capacity.asked_bytes = config->asked_bytes;
    core->capacity.is_of_default = config->is_bare;
    capacity_set(core, config->capacity_bytes);
}

int reload_apply(struct core *core, struct config *config)
{
    struct own *own = NULL;
    for (uint32_t i = 0; i < config->n_tenants; i++) {
        struct access_list nobody = {0};
        if (core_find_tenant(core, config->tenants[i].name))
            continue;
        int r = core_add_tenant(core, config->tenants[i].name, &nothing, &nobody);
        if (r < 0)
            return r; /* those before are there, and nobody can tell */
        core_find_tenant(core, config->tenants[i].name)->is_forgotten = true;
    }
    int r = own_new(&own, config->own.name, &config->own.wish, &config->own.access);
    if (r < 0)
        return r;
    carry_out(core, config, own);
    return 0;
}

/* ---- again ---- */

/* One at a time: the parser is the process's. */
static struct reload {
    struct job job;
    const struct config_source *source;
    struct config config;
    int error;
    char text[MSG_TEXT_BYTES];
    bool is_running, is_wanted;
} again;

static void reload_work(struct job *job)
{
    (void)job;
    again.error = reload_read(again.source, RELOAD_STRICTLY, &again.config, again.text);
}

static void tell(struct core *core)
{
    struct session *s;
    struct msg_reply reply;
    LIST_FOREACH (s, &core->sessions, in_core) {
        if (s->wait != WAIT_RELOAD || !s->is_reloading)
            continue;
        if (again.error < 0) {
            session_fail(core, s, again.error, "%s", again.text);
            continue;
        }
        reply_of(&reply, MSG_RELOAD);
        reply.reload.n_tenants = again.config.n_tenants;
        reply.reload.capacity_bytes = core->ledger.capacity_bytes;
        session_reply(core, s, &reply, -1);
    }
}

static void reload_done(struct core *core, struct job *job)
{
    (void)job;
    if (again.error == 0 && !core->is_stopping) {
        again.error = reload_apply(core, &again.config);
        (void)snprintf(again.text, sizeof(again.text), "acred is out of memory");
    }
    if (again.error < 0)
        log_line(LOG_ERROR, "the configuration stays as it was: %s", again.text);
    else
        log_line(LOG_NOTICE, "the configuration was read again: %u tenants, capacity %llu MiB",
                 again.config.n_tenants, mib(core->ledger.capacity_bytes));
    tell(core);
    config_deinit(&again.config);
    again.is_running = false;
    if (again.is_wanted && !core->is_stopping)
        reload_again(core);
}

void reload_again(struct core *core)
{
    struct session *s;
    again.is_wanted = again.is_running;
    if (again.is_running)
        return;
    again.is_running = true;
    again.job = (struct job){reload_work, reload_done};
    again.source = core->source;
    LIST_FOREACH (s, &core->sessions, in_core)
        s->is_reloading = s->wait == WAIT_RELOAD;
    core_submit(core, &again.job);
}
