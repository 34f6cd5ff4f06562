/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Capacity, theory. An administrator says a figure, or nothing, which is half of what there is; the
 * capacity is that, cut to what can be backed:
 *
 *     capacity = min(asked or memory / 2, memory * 15 / 16)
 *
 * where memory is the least of RAM and of the limits of the daemon's cgroup and of all above it
 * (machine.c). The sixteenth is for the kernel and for the daemon itself.
 *
 * Limits of cgroups are written by others at run time, RAM is plugged in, balloons swell, and none
 * of them says so to who is inside (inotify on a limit ends at the border of a cgroup namespace). So
 * a job reads these files again every few seconds: a dozen reads, some 0.1 ms in a thread. In between
 * the old figure holds. The file of the configuration is not read again: what an administrator is
 * writing takes effect when it is asked for.
 *
 *   more    waiters are served, and who wants more ready gets it
 *   less    nothing is taken by force: what is charged stays until it is given back, and nobody gets
 *           anything new before that (ledger.c, invariant 3). Promises that do not fit any more stand,
 *           and are served as long as there is room; that is said once for each change
 *
 * The kernel does not wait for us: a cgroup that is cut below what its processes have touched is
 * its out-of-memory killer's business. What the killed worker had is kept by its keeper.
 */
#include "daemon/capacity.h"

#include "daemon/core.h"
#include "daemon/log.h"
#include "daemon/machine.h"
#include "daemon/own.h"
#include "daemon/room.h"

struct look {
    struct job job; /* first */
    const char *root;
    uint64_t memory_bytes;
};

uint64_t capacity_backed(uint64_t asked_bytes, uint64_t memory_bytes)
{
    uint64_t most_bytes = memory_bytes / 16 * 15 / UNIT_BYTES * UNIT_BYTES;
    uint64_t half_bytes = MIN(memory_bytes / 2, HEAP_BYTES) / UNIT_BYTES * UNIT_BYTES;
    return MIN(asked_bytes ? asked_bytes : half_bytes, most_bytes);
}

void capacity_set(struct core *core, uint64_t capacity_bytes)
{
    struct tenant *all = core->capacity.is_of_default ? core_find_tenant(core, OWN_DEFAULT) : NULL;
    ledger_set_capacity(&core->ledger, capacity_bytes);
    if (all) {
        struct limits limits = all->budget.limits;
        limits.max_bytes = capacity_bytes;
        budget_set(&all->budget, &limits);
        if (all->is_open)
            room_look_at(core, core->now_ns);
    }
    for (uint32_t i = 0; i < core->n_tenants; i++)
        tenant_tell_limits(core->tenants[i]);
    core_changed(core);
}

/* ---- looking ---- */

static void look_work(struct job *job)
{
    struct look *look = (struct look *)job;
    look->memory_bytes = machine_memory_bytes(look->root);
}

static void say(const struct core *core, uint64_t from_bytes, uint64_t memory_bytes)
{
    uint64_t to_bytes = core->ledger.capacity_bytes;
    uint64_t promised_bytes = ledger_promised(&core->ledger);
    log_line(LOG_NOTICE,
             "capacity %llu MiB, was %llu MiB: the machine or this cgroup has %llu MiB now",
             (unsigned long long)(to_bytes >> 20), (unsigned long long)(from_bytes >> 20),
             (unsigned long long)(memory_bytes >> 20));
    if (promised_bytes > to_bytes)
        log_line(LOG_WARNING,
                 "the tenants are promised %llu MiB in all (min), and the capacity is %llu MiB: "
                 "not all of them can have it",
                 (unsigned long long)(promised_bytes >> 20), (unsigned long long)(to_bytes >> 20));
}

static void look_done(struct core *core, struct job *job)
{
    struct look *look = (struct look *)job;
    uint64_t was_bytes = core->ledger.capacity_bytes;
    uint64_t bytes = capacity_backed(core->capacity.asked_bytes, look->memory_bytes);
    if (bytes != was_bytes && !core->is_stopping) {
        capacity_set(core, bytes);
        say(core, was_bytes, look->memory_bytes);
    }
    free(look);
    capacity_watch(core);
}

void capacity_watch(struct core *core)
{
    core->capacity.look_at_ns = core->now_ns + CAPACITY_LOOK_NS;
}

void capacity_look(struct core *core)
{
    struct look *look = calloc(1, sizeof(*look));
    capacity_watch(core);
    if (!look)
        return; /* the next time, then */
    core->capacity.look_at_ns = UINT64_MAX;
    look->job = (struct job){look_work, look_done};
    look->root = core->capacity.root;
    core_submit(core, &look->job);
}
