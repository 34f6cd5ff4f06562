/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Users' own tenants, theory.
 *
 * MODEL. One section of the configuration may have a pattern as its name: "user-%u". A user who
 * attaches to the name that this makes of its account gets a tenant with the limits of the section,
 * and a budget of its own. owner_uid tells such a tenant from others; the account's name only makes
 * up what it is called. The limits and lists of all of them are the section's, and change with it.
 *
 * NAMES. "%u" is the account's name; its number if it has no name, or one that no tenant can be
 * called by, or one of digits alone (which could be another's number). So no two users have the
 * same. Finding out asks NSS, which may ask the network and takes what time it likes: a worker
 * does it, one at a time, when somebody attaches whose tenant is not there, and nobody but those
 * who attach for the first time waits. Afterwards numbers decide.
 *
 * COMING. At its user's first attach, and at nobody else's. A user has one at a time: whose account
 * gets another name has the old one until that goes.
 *
 * GOING. A heap of which nothing is granted and that nobody is attached to is closed by a tick, so
 * that users who have gone do not fill the capacity with empty segments; a heap with something
 * published stays until it is dropped. A tenant without a heap is forgotten once nobody maps what
 * was its heap's: until then that is charged to its budget.
 *
 * RESTART. The books say whose heap it is (owner_plus_1).
 */
#include "daemon/own.h"

#include <ctype.h>
#include <pwd.h>
#include <string.h>

#include "daemon/attach.h"
#include "daemon/config.h"
#include "daemon/session.h"

#define UID_DIGITS 10u
#define PASSWD_MAX 65536u
#define GO_MAX     64u /* heaps closed in a tick: 3 ms */

/* ---- the pattern ---- */

int own_new(struct own **ret_own, const char *name, const struct tenant_wish *wish,
            struct access *access)
{
    *ret_own = NULL;
    if (name[0] == 0)
        return 0;
    struct own *own = malloc(sizeof(*own));
    if (!own)
        return -ENOMEM;
    *own = (struct own){.wish = *wish, .access = *access};
    strcpy(own->name, name);
    *access = (struct access){0};
    *ret_own = own;
    return 0;
}

void own_free(struct own *own)
{
    if (own)
        access_deinit(&own->access);
    free(own);
}

static void put_in(const char *pattern, const char *what, char ret[TENANT_NAME_BYTES])
{
    const char *mark = strstr(pattern, OWN_MARK);
    int n = snprintf(ret, TENANT_NAME_BYTES, "%.*s%s%s", (int)(mark - pattern), pattern, what,
                     mark + strlen(OWN_MARK));
    if (n >= (int)TENANT_NAME_BYTES)
        ret[0] = 0; /* which is no name */
}

bool own_valid_pattern(const char *pattern)
{
    char name[TENANT_NAME_BYTES], digits[UID_DIGITS + 1];
    const char *mark = strstr(pattern, OWN_MARK);
    if (!mark || strchr(mark, '/'))
        return false;
    memset(digits, '0', UID_DIGITS);
    digits[UID_DIGITS] = 0;
    put_in(pattern, digits, name);
    return config_valid_name(name);
}

bool own_fits(const char *pattern, const char *name)
{
    const char *mark = strstr(pattern, OWN_MARK), *rest = mark + strlen(OWN_MARK);
    size_t n_head = (size_t)(mark - pattern), n_rest = strlen(rest), n = strlen(name);
    return n > n_head + n_rest && strncmp(name, pattern, n_head) == 0 &&
           strcmp(name + n - n_rest, rest) == 0 && !strchr(name + n_head, '/');
}

static bool is_number(const char *user)
{
    return user[strspn(user, "0123456789")] == 0;
}

void own_name(const char *pattern, const char *user, uid_t uid, char ret[TENANT_NAME_BYTES])
{
    char number[UID_DIGITS + 1];
    if (!is_number(user) && !strchr(user, '/')) {
        put_in(pattern, user, ret);
        if (config_valid_name(ret) && strcmp(ret, OWN_DEFAULT) != 0)
            return;
    }
    (void)snprintf(number, sizeof(number), "%u", (unsigned)uid);
    put_in(pattern, number, ret);
}

/* ---- which tenant ---- */

static struct tenant *find_own(const struct core *core, uid_t uid)
{
    for (uint32_t i = 0; i < core->n_tenants; i++)
        if (core->tenants[i]->owner_uid == uid && !core->tenants[i]->is_forgotten)
            return core->tenants[i];
    return NULL;
}

static bool has_default(const struct core *core)
{
    const struct tenant *t = core_find_tenant(core, OWN_DEFAULT);
    return t && !t->is_forgotten;
}

/* Nothing of such a name has anything to lose. */
static bool is_free(const struct tenant *t)
{
    return !t || (t->is_forgotten && !t->is_open && !t->is_group);
}

bool own_is_default(const char *name)
{
    return name[0] == 0 || strcmp(name, OWN_DEFAULT) == 0;
}

const char *own_meant(const struct core *core, uid_t uid, const char *name)
{
    const struct tenant *t;
    if (!own_is_default(name))
        return name;
    t = core->own && !has_default(core) ? find_own(core, uid) : NULL;
    return t ? t->name : OWN_DEFAULT;
}

bool own_is_to_come(const struct core *core, const char *meant)
{
    if (!core->own)
        return false;
    if (own_is_default(meant))
        return !has_default(core);
    return own_fits(core->own->name, meant) && is_free(core_find_tenant(core, meant));
}

/* ---- coming ---- */

int own_add(struct core *core, const char *name, uid_t uid)
{
    struct access_list nobody = {0};
    int r = core_add_tenant(core, name, &core->own->wish, &nobody);
    if (r < 0 && r != -EEXIST)
        return r;
    struct tenant *t = core_find_tenant(core, name);
    t->is_forgotten = false;
    tenant_set(t, &core->own->wish);
    tenant_set_owner(t, uid);
    return 0;
}

static void refuse(struct core *core, struct session *s, const char *own)
{
    session_fail(core, s, core_is_admin(core, &s->creds) ? -ENOENT : -EACCES,
                 "user %u may not make tenant \"%s\": only the user whose own it is can, and that "
                 "of user %u is \"%s\"",
                 (unsigned)s->creds.uid, s->request.attach.tenant, (unsigned)s->creds.uid, own);
}

/* One at a time: NSS may be stuck. */
static struct naming {
    struct job job;
    uid_t uid;
    int error;
    char user[TENANT_NAME_BYTES];
} naming;

static void own_work(struct job *job)
{
    struct naming *j = (struct naming *)job;
    struct passwd pw, *found = NULL;
    char *buf = malloc(PASSWD_MAX);
    j->error = buf ? -getpwuid_r(j->uid, &pw, buf, PASSWD_MAX, &found) : -ENOMEM;
    if (j->error == -ENOENT || j->error == -ESRCH) /* some say so for "not found" */
        j->error = 0;
    if (found && strlen(pw.pw_name) < sizeof(j->user))
        strcpy(j->user, pw.pw_name);
    free(buf);
}

static void come(struct core *core, struct session *s, const struct naming *j)
{
    struct msg_request *req = &s->request;
    char own[TENANT_NAME_BYTES];
    const char *meant = own_meant(core, j->uid, req->attach.tenant);
    int fd = s->request_fd, r = j->error;
    user_drop(&core->users, s->creds.uid, USER_LIVES);
    s->request_fd = -1;
    s->wait = WAIT_NONE;
    if (r == 0 && own_is_to_come(core, meant)) {
        own_name(core->own->name, j->user, j->uid, own);
        if (!own_is_default(meant) && strcmp(meant, own) != 0) {
            session_close_unwanted(core, s, fd);
            refuse(core, s, own);
            return;
        }
        r = is_free(core_find_tenant(core, own)) ? own_add(core, own, j->uid) : 0;
        strcpy(req->attach.tenant, own);
    }
    if (r == 0) {
        attach_request(core, s, req, fd);
        return;
    }
    session_close_unwanted(core, s, fd);
    session_fail(core, s, r, "the tenant of user %u cannot be made: %s", (unsigned)j->uid,
                 strerror(-r));
}

static struct session *first_of(const struct core *core, uid_t uid)
{
    struct session *s;
    TAILQ_FOREACH (s, &core->naming, in_waiters)
        if (s->creds.uid == uid)
            return s;
    return NULL;
}

static void pump(struct core *core);

static void own_done(struct core *core, struct job *job)
{
    const struct naming *j = (struct naming *)job;
    struct session *s;
    core->is_naming = false;
    while ((s = first_of(core, j->uid))) {
        TAILQ_REMOVE(&core->naming, s, in_waiters);
        come(core, s, j);
    }
    pump(core);
}

static void pump(struct core *core)
{
    struct session *s = TAILQ_FIRST(&core->naming);
    if (core->is_naming || core->is_stopping || !s)
        return;
    naming = (struct naming){.job = {own_work, own_done}, .uid = s->creds.uid};
    core->is_naming = true;
    core_submit(core, &naming.job);
}

void own_ask(struct core *core, struct session *s, const struct msg_request *req, int fd)
{
    const struct tenant *own = find_own(core, s->creds.uid);
    s->request = *req;
    if (own) { /* by the numbers */
        session_close_unwanted(core, s, fd);
        refuse(core, s, own->name);
        return;
    }
    if (!attach_count(core, s)) {
        session_close_unwanted(core, s, fd);
        return;
    }
    s->request_fd = fd;
    s->wait = WAIT_NAME;
    TAILQ_INSERT_TAIL(&core->naming, s, in_waiters);
    pump(core);
}

/* ---- going ---- */

static bool is_deserted(const struct tenant *t)
{
    return t->clients.n == 0 && t->granted_units == 0 && t->n_jobs == 0 &&
           TAILQ_EMPTY(&t->attaches);
}

bool own_goes(const struct tenant *t)
{
    return t->owner_uid != NOBODY_UID && (!t->is_open || is_deserted(t));
}

void own_sweep(struct core *core)
{
    uint32_t n_left = GO_MAX;
    for (uint32_t i = core->n_tenants; i-- > 0 && n_left > 0;) {
        struct tenant *t = core->tenants[i];
        if (!own_goes(t))
            continue;
        if (t->is_open) {
            (void)tenant_close(t);
            n_left--;
        }
        if (t->budget.haunted_bytes == 0 && t->budget.total_bytes == 0)
            core_remove_tenant(core, i);
    }
}
