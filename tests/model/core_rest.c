/* SPDX-License-Identifier: Apache-2.0 */
/* core_rest.c - what must be true when nothing is under way any more. See core_steps.h. */
#include <inttypes.h>
#include <string.h>

#include "tests/model/core_steps.h"

#define ROUNDS_MAX 200u

/* Until nothing happens any more but by time, and that has passed. */
static void rest(void)
{
    bool may_kill = sim.may_kill;
    sim.may_kill = false;
    for (uint32_t round = 0; round < ROUNDS_MAX; round++) {
        while (world.n_jobs > 0)
            sim_step_job();
        world.now_ns += SECOND + SECOND / 8;
        sim_call(&(struct call){.kind = CALL_TICK, .fd = -1});
        if (round > 4 && world.n_jobs == 0 && core_deadline(&world.core) > world.now_ns)
            break;
    }
    sim.may_kill = may_kill;
}

static void hang_up_strays(void)
{
    for (uint32_t i = 0; i < CONNS; i++)
        if (twin.conns[i].is_used && twin.conns[i].fake.is_open && !twin.conns[i].client)
            sim_call(&(struct call){.kind = CALL_HANGUP, .fake = &twin.conns[i].fake, .fd = -1});
    twin_settle();
}

/* Who lives has come back and waits for nothing; the dead are buried; what is left is theirs. */
void sim_check_at_rest(void)
{
    hang_up_strays();
    rest();
    uint64_t held[WORLD_TENANTS] = {0};
    for (uint32_t i = 0; i < CLIENTS; i++)
        twin_assert(twin.clients[i].life != CLIENT_DEAD, "client %u is not buried", i);
    for (uint32_t k = 0; k < PIECES; k++)
        if (twin.pieces[k].kind != PIECE_NONE && twin.pieces[k].holder == BY_NOBODY)
            held[twin.pieces[k].tenant] += twin.pieces[k].at.n_units;
    for (uint32_t i = 0; i < WORLD_TENANTS; i++) {
        const struct tenant *t = world_tenant(i);
        uint64_t n = t->is_open ? t->granted_units : 0, n_limbo = 0;
        for (uint32_t id = 1; t->is_open && id <= CLIENT_ID_MAX; id++)
            if (t->clients.by_id[id])
                n_limbo += t->clients.by_id[id]->n_units;
        twin_assert(n - n_limbo <= held[i] && (n_limbo > 0 || n == held[i]),
                    "tenant %u: %" PRIu64 " units of nobody's, not %" PRIu64, i, n - n_limbo,
                    held[i]);
    }
    twin_check();
}

static void free_all(void)
{
    for (uint32_t k = 0; k < PIECES; k++)
        for (unsigned i = 0; twin.pieces[k].kind != PIECE_NONE && i < twin.pieces[k].n_tags; i++)
            sim_store_tag(&twin.pieces[k], i, TAG_FREE, OWN_FREE);
}

static void check_store(void)
{
    for (uint32_t i = 0; i < world.n_kept; i++)
        twin_assert(strchr("bcs", world.kept[i].name[0]) != NULL, "%s is kept and nobody's",
                    world.kept[i].name);
}

/* All go, then all that is left, then the heaps; what is still mapped stays charged. */
void sim_end(void)
{
    for (uint32_t i = 0; i < CLIENTS; i++)
        if (twin.clients[i].life == CLIENT_HERE)
            sim_die(&twin.clients[i]);
    sim_check_at_rest();
    twin_assert(world.core.n_clients == 0, "%u clients are left", world.core.n_clients);
    check_store();
    free_all();
    rest();
    for (uint32_t i = 0; i < WORLD_TENANTS; i++) {
        twin_assert(world_tenant(i)->granted_units == 0 || !world_tenant(i)->is_open,
                    "tenant %u has %" PRIu64 " units granted to nobody", i,
                    world_tenant(i)->granted_units);
        twin_settle();
        sim_admin_asks(MSG_TENANT_DROP, i); /* may be killed in it */
        bool may_kill = sim.may_kill;
        sim.may_kill = false;
        sim_admin_asks(MSG_TENANT_DROP, i);
        sim.may_kill = may_kill;
        twin_assert(!world_tenant(i)->is_open, "tenant %u is not dropped", i);
        twin_drop_views(i);
    }
    hang_up_strays();
    rest();
    twin_assert(world.core.ledger.charged_bytes == 0, "%" PRIu64 " bytes are charged to nobody",
                world.core.ledger.charged_bytes);
    twin_assert(world.n_kept == 0, "%s is kept after all", world.kept[0].name);
    sim.may_kill = false;
    hang_up_strays();
}
