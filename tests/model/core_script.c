/* SPDX-License-Identifier: Apache-2.0 */
/*
 * core_script.c - calls whose every store is the last one. Random steps come by the rare stores too
 * rarely. One scene: a client that goes and one that stays, with slabs and large blocks of their
 * own, of each other and of the heap in them.
 */
#include <string.h>

#include "shm/sizeclass.h"
#include "tests/model/core_steps.h"
#include "tests/model/core_trap.h"

#define SCRIPT_EVENTS_MAX 400u

static struct client_twin *const gone = &twin.clients[0], *const stays = &twin.clients[1];
static const unsigned script_class = 36; /* slabs of several units */

static void serve(void)
{
    while (world.n_jobs > 0)
        sim_step_job();
}

static void come(struct client_twin *c)
{
    *c = (struct client_twin){.life = CLIENT_HERE};
    fake_make_page(&c->self);
    sim_attach(c);
    serve();
}

static struct call request(struct client_twin *c, struct msg_request req)
{
    c->pending = req.op;
    c->req = req;
    return (struct call){.kind = CALL_REQUEST, .fake = &c->conn->fake, .req = req, .fd = -1};
}

static struct call grow_call(struct client_twin *c, uint32_t n, bool exact)
{
    struct msg_request req = {.op = MSG_GROW};
    req.grow.n_units = n;
    req.grow.exact = exact;
    return request(c, req);
}

static struct piece *get(struct client_twin *c, uint32_t n)
{
    struct call call = grow_call(c, n, true);
    sim_call(&call);
    serve(); /* the first segment is kept before it is granted from */
    struct piece *p = sim_any_piece(c, PIECE_UNCUT);
    p = p->at.n_units == n ? sim_split(c, p, 0, n) : NULL;
    twin_assert(p != NULL, "a script finds no piece");
    return p;
}

static struct piece *get_slab(struct client_twin *c, int owner, tag_t tag)
{
    struct piece *p = get(c, 1u << class_order_min[script_class]);
    p->kind = PIECE_SLAB;
    (void)fake_cut_slab(&c->self, p->at, script_class, &p->geo);
    p->n_tags = MIN(TAGS, geo_infos[p->geo].n_blocks);
    sim_store_tag(p, 0, tag, owner);
    return p;
}

static struct piece *get_large(struct client_twin *c, uint32_t n, int owner, tag_t tag)
{
    struct piece *p = get(c, n);
    p->kind = PIECE_LARGE;
    p->n_tags = 1;
    p->owners[0] = owner;
    fake_cut_large(&c->self, p->at, tag);
    return p;
}

static void scene(void)
{
    come(gone);
    come(stays);
    (void)get_slab(gone, OWN_HEAP, TAG_HEAP);
    (void)get_slab(gone, client_code(gone), gone->self.id);
    (void)get_slab(gone, client_code(stays), stays->self.id);
    (void)get_large(gone, 5, OWN_HEAP, TAG_HEAP);
    (void)get_large(gone, 3, client_code(gone), gone->self.id);
    (void)get_slab(stays, client_code(gone), gone->self.id);
    (void)get_slab(stays, client_code(stays), stays->self.id);
    (void)get_large(stays, 4, client_code(stays), stays->self.id);
}

/* The page is asked (0 jobs' parts are over), its answer taken (1), swept (2), buried (3). */
static struct call until_burial(uint32_t n_parts)
{
    struct conn *conn = gone->conn;
    sim_die(gone);
    sim_call(&(struct call){.kind = CALL_HANGUP, .fake = &conn->fake, .fd = -1});
    for (uint32_t i = 0; i < n_parts; i++)
        sim_step_job();
    return (struct call){.kind = n_parts % 2 ? CALL_DONE : CALL_WORK, .fd = -1};
}

static struct call script_death(void)
{
    return until_burial(1);
}

static struct call script_sweep(void)
{
    return until_burial(2);
}

static struct call script_burial(void)
{
    return until_burial(3);
}

static struct call script_collect(void)
{
    (void)until_burial(0);
    serve();
    for (uint32_t k = 0; k < PIECES; k++)
        if (twin.pieces[k].kind != PIECE_NONE && twin.pieces[k].holder == BY_NOBODY)
            sim_store_tag(&twin.pieces[k], 0, TAG_FREE, OWN_FREE);
    world.now_ns += 2 * SECOND;
    return (struct call){.kind = CALL_TICK, .fd = -1};
}

static struct call script_orphan_grant(void)
{
    (void)until_burial(0);
    serve();
    struct call call = grow_call(stays, 1u << class_order_min[script_class], false);
    call.req.grow.class_plus_1 = script_class + 1;
    return call;
}

static struct call script_grow(void)
{
    return grow_call(stays, 8, false);
}

/* A segment is made (0 jobs' parts are over), kept (1), entered and granted from (2). */
static struct call until_kept(uint32_t n_units, uint32_t n_parts)
{
    struct call call = grow_call(stays, n_units, true);
    if (n_parts == 0)
        return call;
    sim_call(&call);
    if (n_parts == 2)
        sim_step_job();
    return (struct call){.kind = n_parts == 1 ? CALL_WORK : CALL_DONE, .fd = -1};
}

static struct call script_grow_segment(void)
{
    return until_kept(600, 0);
}

static struct call script_grow_span(void)
{
    return until_kept(SLOT_UNITS + 5, 0);
}

static struct call script_keep_segment(void)
{
    return until_kept(600, 1);
}

static struct call script_enter_segment(void)
{
    return until_kept(600, 2);
}

static struct call script_enter_span(void)
{
    return until_kept(SLOT_UNITS + 5, 2);
}

static struct call script_release(void)
{
    struct piece *p = get(stays, 6);
    struct msg_request req = {.op = MSG_RELEASE, .release = {.n_runs = 1}};
    req.release.runs[0] = (struct msg_run){(uint64_t)p->at.unit << UNIT_SHIFT, 6};
    p->kind = PIECE_NONE;
    return request(stays, req);
}

static struct call script_free_large(void)
{
    struct piece *p = sim_any_piece(stays, PIECE_LARGE);
    struct msg_request req = {.op = MSG_FREE_LARGE, .free_large = {twin_block_off(p, 0)}};
    sim_store_tag(p, 0, TAG_FREE, OWN_FREE);
    p->kind = PIECE_NONE;
    return request(stays, req);
}

static struct call root_call(enum root_op op, uint64_t expected, uint64_t desired)
{
    struct msg_request req = {.op = MSG_ROOT};
    req.root.op = op;
    strcpy(req.root.name, "r3");
    req.root.expected = expected;
    req.root.desired = desired;
    return request(stays, req);
}

static struct call script_root_set(void)
{
    return root_call(ROOT_SET, 0, twin_block_off(sim_any_piece(stays, PIECE_LARGE), 0));
}

static struct call script_root_change(void)
{
    uint64_t off = twin_block_off(sim_any_piece(stays, PIECE_LARGE), 0);
    struct call call = root_call(ROOT_SET, 0, off);
    sim_call(&call);
    (void)get_large(stays, 2, client_code(stays), stays->self.id);
    struct piece *p = sim_any_piece(stays, PIECE_LARGE);
    for (uint32_t k = 0; k < PIECES && p->owners[0] == OWN_HEAP; k++)
        p = sim_any_piece(stays, PIECE_LARGE);
    return root_call(ROOT_CAS, off, twin_block_off(p, 0));
}

static struct call script_root_del(void)
{
    struct call call = script_root_set();
    sim_call(&call);
    return root_call(ROOT_DEL, 0, 0);
}

static struct call script_attach(void)
{
    struct client_twin *c = &twin.clients[2];
    *c = (struct client_twin){.life = CLIENT_HERE};
    fake_make_page(&c->self);
    sim_attach(c);
    sim_step_job();
    return (struct call){.kind = CALL_DONE, .fd = -1};
}

static struct call script_publish_all(void)
{
    struct call call = request(stays, (struct msg_request){.op = MSG_PUBLISH_ALL});
    sim_call(&call);
    return (struct call){.kind = CALL_WORK, .fd = -1};
}

static struct call script_restore(void)
{
    struct call call = until_burial(3);
    (void)world_call_killed(&call, 9);
    twin_learn_from_the_dead();
    return (struct call){.kind = CALL_RESTORE, .fd = -1};
}

static struct call script_drop(void)
{
    (void)until_burial(0);
    serve();
    struct conn *conn = stays->conn;
    sim_die(stays);
    sim_call(&(struct call){.kind = CALL_HANGUP, .fake = &conn->fake, .fd = -1});
    serve();
    conn = sim_new_conn(NULL);
    conn->op = MSG_TENANT_DROP;
    twin.tenants[0].is_dropping = true;
    struct call call = {.kind = CALL_REQUEST, .fake = &conn->fake, .is_new = true, .fd = -1};
    call.req.op = MSG_TENANT_DROP;
    strcpy(call.req.tenant_drop.tenant, world_names[0]);
    return call;
}

static void run_script(struct call (*script)(void))
{
    bool is_whole = false;
    for (uint32_t k = 1; !is_whole && k < SCRIPT_EVENTS_MAX; k += 1 + k / 16) {
        memset(&twin, 0, sizeof(twin));
        twin.rng = twin.step = k;
        sim.may_kill = false;
        world.capacity_bytes = GIB(8);
        for (uint32_t i = 0; i < WORLD_TENANTS; i++)
            world.wishes[i] = (struct tenant_wish){.limits.max_bytes = GIB(4)};
        world_begin();
        scene();
        struct call call = script();
        is_whole = world_call_killed(&call, k) < k;
        sim_follow();
        sim_check_at_rest();
        sim_end();
        world_end();
    }
}

void sim_scripts(void)
{
    static struct call (*const scripts[])(void) = {
        script_attach,       script_grow,          script_grow_segment, script_grow_span,
        script_keep_segment, script_enter_segment, script_enter_span,   script_release,
        script_free_large,   script_root_set,      script_root_change,  script_root_del,
        script_publish_all,  script_death,         script_sweep,        script_burial,
        script_collect,      script_orphan_grant,  script_restore,      script_drop,
    };
    for (uint32_t i = 0; i < ARRAY_LEN(scripts) && trap_possible(); i++) {
        sim.script = i;
        run_script(scripts[i]);
    }
}
