/* SPDX-License-Identifier: Apache-2.0 */
/* core.c - see core.h. */
#include "daemon/core.h"

#include <string.h>
#include <sys/epoll.h>

#include "daemon/decay.h"
#include "daemon/event.h"
#include "daemon/memory.h"
#include "daemon/own.h"
#include "daemon/prepare.h"
#include "daemon/reaper.h"
#include "daemon/retire.h"
#include "daemon/room.h"
#include "daemon/tenant.h"
#include "daemon/ticket.h"
#include "daemon/zombie.h"
#include "shm/census.h"
#include "shm/sizeclass.h"

#define TICK_SLABS_MAX 2048u /* 2 ms */
#define SLAB_TAGS_MAX  ((UNIT_BYTES << SLAB_ORDER_MAX) / 16)

/* ---- life ---- */

int core_init(struct core *core, const struct core_io *io, uint64_t capacity_bytes,
              const char *mode, uint64_t now_ns)
{
    sizeclass_init();
    *core = (struct core){.io = *io, .mode = mode, .now_ns = now_ns, .started_ns = now_ns};
    core->tick_at_ns = UINT64_MAX;
    core->room_at_ns = UINT64_MAX;
    core->n_lives_max = core->n_user_lives_max = UINT32_MAX;
    core->n_user_tickets_max = USER_TICKETS_MAX;
    core->capacity = (struct capacity){.root = "", .look_at_ns = UINT64_MAX};
    LIST_INIT(&core->sessions);
    TAILQ_INIT(&core->releasing);
    TAILQ_INIT(&core->publishing);
    TAILQ_INIT(&core->naming);
    users_init(&core->users);
    ledger_init(&core->ledger, capacity_bytes);
    core->bell_fd = epoll_create1(EPOLL_CLOEXEC);
    if (core->bell_fd < 0)
        return -errno;
    core->tags = malloc(SLAB_TAGS_MAX * sizeof(*core->tags));
    if (core->tags)
        return 0;
    close_fd(&core->bell_fd);
    return -ENOMEM;
}

/* Clients whose daemon goes: nothing is reaped, the segments go with the last who maps them. */
void core_forget_clients(struct tenant *t)
{
    for (uint32_t id = 1; t->is_open && t->clients.n > 0; id++) {
        struct client *c = t->clients.by_id[id];
        if (!c)
            continue;
        ticket_forget_client(c);
        event_disarm(c);
        user_drop(&t->core->users, c->uid, USER_LIVES);
        close_fd(&c->life_fd);
        close_fd(&c->pidfd);
        free(c->holdings);
        free(c);
        t->clients.by_id[id] = NULL;
        t->clients.n--;
        t->core->n_clients--;
    }
}

void core_deinit(struct core *core)
{
    acre_assert(LIST_EMPTY(&core->sessions) && core->n_jobs == 0);
    for (uint32_t i = 0; i < core->n_tenants; i++) {
        core_forget_clients(core->tenants[i]);
        if (core->tenants[i]->is_open)
            (void)tenant_close(core->tenants[i]);
    }
    users_deinit(&core->users);
    zombie_deinit(core);
    for (uint32_t i = core->n_tenants; i-- > 0;) /* groups after those below them */
        tenant_free(core->tenants[i]);
    ledger_deinit(&core->ledger);
    access_list_deinit(&core->admins);
    own_free(core->own);
    close_fd(&core->bell_fd);
    free(core->tenants);
    free(core->tags);
}

bool core_is_admin(const struct core *core, const struct creds *creds)
{
    return access_is_admin(creds) || access_list_has(&core->admins, creds);
}

/* ---- tenants ---- */

/* Index of the first tenant whose name is not before `name`. */
static uint32_t tenant_place(const struct core *core, const char *name)
{
    uint32_t lo = 0, hi = core->n_tenants;
    while (lo < hi) {
        uint32_t mid = (lo + hi) / 2;
        if (strcmp(core->tenants[mid]->name, name) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

struct tenant *core_find_tenant(const struct core *core, const char *name)
{
    uint32_t i = tenant_place(core, name);
    return i < core->n_tenants && strcmp(core->tenants[i]->name, name) == 0 ? core->tenants[i]
                                                                            : NULL;
}

int core_add_tenant(struct core *core, const char *name, const struct tenant_wish *wish,
                    struct access_list *access)
{
    struct tenant *t;
    if (core_find_tenant(core, name))
        return -EEXIST;
    struct tenant **list =
        reallocarray(core->tenants, core->n_tenants + 1, sizeof(struct tenant *));
    if (!list)
        return -ENOMEM;
    core->tenants = list;
    int r = tenant_new(&t, core, name, wish, access);
    if (r < 0)
        return r;
    uint32_t at = tenant_place(core, name);
    memmove(list + at + 1, list + at, (core->n_tenants - at) * sizeof(struct tenant *));
    list[at] = t;
    core->n_tenants++;
    return 0;
}

void core_remove_tenant(struct core *core, uint32_t at)
{
    struct tenant *t = core->tenants[at];
    struct session *s;
    LIST_FOREACH (s, &core->sessions, in_core)
        if (s->looking == t)
            s->looking = NULL;
    core->n_tenants--;
    memmove(core->tenants + at, core->tenants + at + 1,
            (core->n_tenants - at) * sizeof(struct tenant *));
    tenant_free(t);
}

/* ---- time ---- */

static bool wants_tick(const struct core *core)
{
    for (uint32_t i = 0; i < core->n_tenants; i++) {
        const struct tenant *t = core->tenants[i];
        if (t->is_open && (t->orphans.n > 0 || t->n_ticks > 0 || t->prepare.demand_units > 0 ||
                           t->n_retiring > 0))
            return true;
        if (own_goes(t))
            return true;
    }
    return core->zombies != NULL;
}

void core_changed(struct core *core)
{
    for (uint32_t i = 0; i < core->n_tenants; i++)
        tenant_changed(core->tenants[i]);
    memory_wake_all(core);
}

static void arm_tick(struct core *core)
{
    if (core->tick_at_ns == UINT64_MAX && wants_tick(core))
        core->tick_at_ns = core->now_ns + DECAY_TICK_NS;
}

uint64_t core_deadline(const struct core *core)
{
    arm_tick((struct core *)core);
    uint64_t deadline_ns = TAILQ_EMPTY(&core->releasing) ? core->tick_at_ns : core->now_ns;
    deadline_ns = MIN(deadline_ns, MIN(core->room_at_ns, core->capacity.look_at_ns));
    for (uint32_t i = 0; i < core->n_tenants; i++) {
        const struct tenant *t = core->tenants[i];
        bool is_due = t->search.is_hungry || t->n_to_wake > 0;
        deadline_ns = MIN(deadline_ns, is_due ? core->now_ns : reaper_deadline(t));
        deadline_ns = MIN(deadline_ns, ticket_deadline(t));
        deadline_ns = MIN(deadline_ns, event_deadline(t));
    }
    return deadline_ns;
}

/* What was freed in orphans: some each tick, so that no tick is long. */
static void tick_orphans(struct tenant *t)
{
    uint64_t granted_units = t->granted_units;
    if (t->is_sweeping)
        return;
    (void)orphans_collect(t, &t->tick_place, false, TICK_SLABS_MAX);
    if (t->tick_place.list == ARRAY_LEN(t->orphans.list))
        t->tick_place = (struct orphan_place){0};
    if (t->granted_units < granted_units)
        memory_wake(t);
}

static void tick(struct core *core)
{
    core->tick_at_ns = UINT64_MAX;
    for (uint32_t i = 0; i < core->n_tenants; i++) {
        struct tenant *t = core->tenants[i];
        if (!t->is_open)
            continue;
        room_tick(t);
        t->n_ticks -= t->n_ticks > 0;
        tick_orphans(t);
        decay_tick(t);
        prepare_tick(t);
        retire_tick(t);
    }
    zombie_sweep(core);
    own_sweep(core);
}

void core_tick(struct core *core, uint64_t now_ns)
{
    core->now_ns = now_ns;
    if (now_ns >= core->tick_at_ns)
        tick(core);
    memory_release_more(core);
    if (now_ns >= core->room_at_ns)
        room_pump(core);
    if (now_ns >= core->capacity.look_at_ns)
        capacity_look(core);
    for (uint32_t i = 0; i < core->n_tenants; i++) {
        struct tenant *t = core->tenants[i];
        reaper_tick(t);
        ticket_tick(t);
        if (t->search.is_hungry) {
            t->search.is_hungry = false;
            memory_wake(t);
        } else if (t->n_to_wake > 0) {
            memory_wake_more(t);
        }
        event_tick(t); /* last: of all that has happened in this turn */
    }
}

/* ---- jobs ---- */

void core_submit(struct core *core, struct job *job)
{
    core->n_jobs++;
    core->io.submit(core->io.ctx, job);
}

void core_job_done(struct core *core, struct job *job, uint64_t now_ns)
{
    acre_assert(core->n_jobs > 0);
    core->n_jobs--;
    core->now_ns = now_ns;
    job->done(core, job);
}

uint64_t core_published_bytes(const struct core *core)
{
    struct census census;
    uint64_t bytes = 0;
    if (census_init(&census) < 0)
        return 0;
    for (uint32_t i = 0; i < core->n_tenants; i++) {
        const struct tenant *t = core->tenants[i];
        for (uint32_t slot = 0; t->is_open && slot < t->n_slots; slot++)
            if (t->segs[slot])
                (void)census_add_segment(&census, t->segs[slot]->fd, &t->segs[slot]->shape);
    }
    bytes = census.by_id[TAG_HEAP].live_bytes;
    census_deinit(&census);
    return bytes;
}

void core_assert_valid(const struct core *core)
{
    uint32_t n_clients = 0;
    ledger_assert_valid(&core->ledger);
    for (uint32_t i = 0; i < core->n_tenants; i++) {
        tenant_assert_valid(core->tenants[i]);
        ticket_assert_valid(core->tenants[i]);
        event_assert_valid(core->tenants[i]);
        n_clients += core->tenants[i]->clients.n;
    }
    acre_assert(n_clients == core->n_clients);
}
