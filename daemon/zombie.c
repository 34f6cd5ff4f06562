/* SPDX-License-Identifier: Apache-2.0 */
/*
 * zombie.c - see zombie.h. The kernel counts descriptions that were *opened* for writing, and
 * expects the asker to be one of them: what memfd_create() returned is not counted (seen on 6.18:
 * with it, the lease is granted exactly when one other exists), and what clients have is shared
 * with them. So each zombie is opened anew.
 */
#include "daemon/zombie.h"

#include <fcntl.h>

#include "daemon/room.h"
#include "daemon/segments.h"

static bool nobody_maps(int fd)
{
    if (fcntl(fd, F_SETLEASE, F_WRLCK) < 0)
        return false;
    (void)fcntl(fd, F_SETLEASE, F_UNLCK);
    return true;
}

/* Of a heap that lives: a retired segment's. */
static struct tenant *find_heap(const struct core *core, struct kept kept)
{
    for (uint32_t i = 0; i < core->n_tenants && kept.kind == KEPT_SEGMENT; i++) {
        struct tenant *t = core->tenants[i];
        if (t->is_open && t->heap_no == kept.no && t->is_limbo[kept.slot])
            return t;
    }
    return NULL;
}

static void refund(struct core *core, struct zombie **at)
{
    struct zombie *z = *at;
    struct tenant *t = find_heap(core, z->kept);
    *at = z->next;
    if (t)
        segments_free_slots(t, z->kept.slot); /* the books first: what they tell of must be kept */
    else if (z->budget)
        budget_refund_orphaned(z->budget, z->size_bytes);
    else
        ledger_refund_orphaned(&core->ledger, z->size_bytes);
    if (z->kept.kind != KEPT_NOT)
        kept_drop(core, z->kept);
    close_fd(&z->fd);
    free(z);
}

void zombie_bury(struct core *core, struct budget *budget, struct kept kept, int fd,
                 uint64_t size_bytes)
{
    struct zombie *z = malloc(sizeof(*z));
    int own_fd = -1;
    acre_assert(z != NULL); /* its charge could not be followed otherwise */
    *z = (struct zombie){core->zombies, kept, budget, fd, size_bytes};
    if (seg_reopen(fd, &own_fd) == 0) {
        (void)close(fd);
        z->fd = own_fd;
    }
    core->zombies = z;
    room_look_at(core, core->now_ns); /* others may have too much no more */
    if (nobody_maps(z->fd))
        refund(core, &core->zombies);
}

uint32_t zombie_count(const struct core *core, const struct budget *budget)
{
    uint32_t n = 0;
    for (const struct zombie *z = core->zombies; z; z = z->next)
        n += z->budget == budget;
    return n;
}

void zombie_sweep(struct core *core)
{
    uint64_t left = ledger_left(&core->ledger);
    for (struct zombie **at = &core->zombies; *at;)
        if (nobody_maps((*at)->fd))
            refund(core, at);
        else
            at = &(*at)->next;
    if (ledger_left(&core->ledger) > left)
        core_changed(core);
}

void zombie_deinit(struct core *core)
{
    while (core->zombies)
        refund(core, &core->zombies);
}
