/* SPDX-License-Identifier: Apache-2.0 */
/* core_steps.c - see core_steps.h. */
#include "tests/model/core_steps.h"

#include <fcntl.h>
#include <string.h>

#include "shm/sizeclass.h"
#include "tests/model/core_trap.h"

#define EVENTS_MAX 3000u /* a call that stores more is killed among the first of them */

struct sim sim;

bool sim_one_in(uint32_t n)
{
    return twin_below(n) == 0;
}

static void say(const struct call *call, const char *what, uint32_t n)
{
    static const char *const kinds[CALL_KINDS] = {"request", "hang-up", "work",
                                                  "done",    "tick",    "restore"};
    if (sim.is_verbose)
        fprintf(stderr, "step %u: %s %d%s %u\n", twin.step, kinds[call->kind],
                call->kind == CALL_REQUEST ? (int)call->req.op : -1, what, n);
}

/* ---- calls, and what may happen in them ---- */

static struct conn *find_conn(void)
{
    for (uint32_t i = 0; i < CONNS; i++)
        if (!twin.conns[i].is_used)
            return &twin.conns[i];
    return NULL;
}

struct conn *sim_new_conn(struct client_twin *c)
{
    struct conn *conn = find_conn();
    if (!conn)
        return NULL;
    *conn = (struct conn){.is_used = true, .client = c, .n_seen = 1};
    conn->fake.fd = conn->fake.life_fd = -1;
    return conn;
}

static void kill_in(const struct call *call)
{
    uint32_t *most = &sim.n_events[call->kind][call->kind == CALL_REQUEST ? call->req.op : 0];
    uint32_t k_max = MIN(*most + 4, EVENTS_MAX); /* half of them early: most calls are short */
    uint32_t k = 1 + twin_below(sim_one_in(2) ? k_max : 1 + twin_below(MIN(k_max, 8)));
    uint32_t n = world_call_killed(call, k);
    say(call, n < k ? ", and dead after event" : ", dead before event", MIN(n, k));
    *most = MAX(*most, n);
}

static void step_memory(void);

/* Clients go on meanwhile. */
void sim_follow(void)
{
    struct call call = {.kind = CALL_RESTORE, .fd = -1};
    twin_learn_from_the_dead();
    for (uint32_t n = twin_below(8); n > 0; n--)
        step_memory();
    while (sim.may_kill && trap_possible() && sim_one_in(4))
        kill_in(&call);
    world_call(&call);
    twin_welcome();
    twin_check();
}

void sim_call(const struct call *call)
{
    static const uint32_t killed_one_in[CALL_KINDS] = {
        [CALL_REQUEST] = 8, [CALL_HANGUP] = 50, [CALL_WORK] = 40,
        [CALL_DONE] = 10,   [CALL_TICK] = 20,   [CALL_RESTORE] = 4};
    bool is_killed = sim.may_kill && trap_possible() && sim_one_in(killed_one_in[call->kind]);
    if (is_killed)
        kill_in(call);
    else
        world_call(call);
    if (!is_killed)
        say(call, "", 0);
    if (is_killed) {
        sim_follow();
        return;
    }
    twin_observe();
    twin_settle();
    twin_observe();
}

static void ask(struct conn *conn, bool is_new, const struct msg_request *req, int fd)
{
    struct call call = {
        .kind = CALL_REQUEST, .fake = &conn->fake, .is_new = is_new, .req = *req, .fd = fd};
    sim_call(&call);
}

/* ---- choosing ---- */

static struct client_twin *find_client(bool (*is_fit)(const struct client_twin *c))
{
    uint32_t from = twin_below(CLIENTS);
    for (uint32_t i = 0; i < CLIENTS; i++) {
        struct client_twin *c = &twin.clients[(from + i) % CLIENTS];
        if (is_attached(c) && is_fit(c))
            return c;
    }
    return NULL;
}

static bool is_any(const struct client_twin *c)
{
    (void)c;
    return true;
}

/* What it allocates while it waits for all to be published may be published or not. */
static bool is_allocating(const struct client_twin *c)
{
    return c->pending != MSG_PUBLISH_ALL && !c->may_be_published;
}

static bool is_idle(const struct client_twin *c)
{
    return c->conn && c->pending == MSG_NONE && c->conn->fake.is_open &&
           !c->conn->fake.told_to_close;
}

static struct client_twin *any_client(void)
{
    return find_client(is_any);
}

static struct client_twin *allocating_client(void)
{
    return find_client(is_allocating);
}

/* That may ask something now. */
static struct client_twin *idle_client(void)
{
    return find_client(is_idle);
}

struct piece *sim_any_piece(const struct client_twin *c, enum piece_kind kind)
{
    uint32_t from = twin_below(PIECES);
    for (uint32_t k = 0; k < PIECES; k++) {
        struct piece *p = &twin.pieces[(from + k) % PIECES];
        if (p->kind == kind && (!c || p->holder == client_idx(c)))
            return p;
    }
    return NULL;
}

/* A block of the client's, whoever holds the piece; or of any living one's, or the heap's. */
static struct piece *any_block(const struct client_twin *c, bool or_heaps, unsigned *ret_i)
{
    uint32_t from = twin_below(PIECES);
    for (uint32_t k = 0; k < PIECES; k++) {
        struct piece *p = &twin.pieces[(from + k) % PIECES];
        for (unsigned i = 0; p->kind != PIECE_NONE && i < p->n_tags; i++)
            if (p->tenant == c->tenant &&
                (p->owners[i] == client_code(c) || (or_heaps && p->owners[i] == OWN_HEAP))) {
                *ret_i = i;
                return p;
            }
    }
    return NULL;
}

/* ---- attaching and going ---- */

void sim_attach(struct client_twin *c)
{
    struct msg_request req = {.op = MSG_ATTACH};
    struct conn *conn = sim_new_conn(c);
    if (!conn)
        return;
    c->is_resuming = c->self.client != 0;
    c->pending = MSG_ATTACH;
    strcpy(req.attach.tenant, world_names[c->tenant]);
    strcpy(req.attach.name, "twin");
    req.attach.resume_client = c->self.client;
    memcpy(req.attach.secret, c->self.page->secret, sizeof(req.attach.secret));
    ask(conn, true, &req, c->is_resuming ? -1 : fcntl(c->self.life_fd, F_DUPFD_CLOEXEC, 0));
}

static void step_attach(void)
{
    struct client_twin *c = &twin.clients[twin_below(CLIENTS)];
    if (c->life == CLIENT_NONE) {
        *c = (struct client_twin){.life = CLIENT_HERE, .tenant = twin_below(WORLD_TENANTS)};
        fake_make_page(&c->self);
    }
    if (c->life == CLIENT_HERE && !c->conn && c->pending == MSG_NONE)
        sim_attach(c);
}

/* By a second connection, while the first is open. */
static void step_resume_twice(void)
{
    struct client_twin *c = idle_client();
    if (c)
        sim_attach(c);
}

static void hang_up(bool is_stray)
{
    struct conn *conn = NULL;
    uint32_t from = twin_below(CONNS);
    for (uint32_t i = 0; i < CONNS && !conn; i++) {
        struct conn *at = &twin.conns[(from + i) % CONNS];
        conn = at->is_used && at->fake.is_open && (at->client == NULL) == is_stray ? at : NULL;
    }
    if (!conn)
        return;
    if (conn->client)
        twin_lose(conn->client);
    sim_call(&(struct call){.kind = CALL_HANGUP, .fake = &conn->fake, .fd = -1});
}

static void step_hang_up(void)
{
    hang_up(false);
}

/* The connection of one that has died, or went another way. */
static void step_hang_up_stray(void)
{
    hang_up(true);
}

void sim_die(struct client_twin *c)
{
    fake_unmap_page(&c->self);
    twin_lose(c); /* its connection's end is another step */
    c->life = CLIENT_DEAD;
    if (c->self.client == 0)
        *c = (struct client_twin){.life = CLIENT_NONE};
}

static void step_die(void)
{
    struct client_twin *c = &twin.clients[twin_below(CLIENTS)];
    if (c->life == CLIENT_HERE && c->pending != MSG_DETACH)
        sim_die(c);
}

static void step_all_die(void)
{
    uint32_t tenant = twin_below(WORLD_TENANTS);
    for (uint32_t i = 0; i < CLIENTS; i++)
        if (twin.clients[i].life == CLIENT_HERE && twin.clients[i].tenant == tenant)
            sim_die(&twin.clients[i]);
}

/* In the middle of linking a block: its slot names it already, or not yet. */
static void step_die_linking(void)
{
    unsigned i;
    struct client_twin *c = any_client();
    struct piece *p = c && !c->may_be_published ? any_block(c, false, &i) : NULL;
    if (!p || p->at.seg->n_slots > 1)
        return;
    uint64_t off = twin_block_off(p, i), slot = off + 8;
    uint64_t value = sim_one_in(2) ? off : 0;
    char *at = p->at.seg->base + (off - ((uint64_t)p->at.seg->slot << SLOT_SHIFT));
    memcpy(at + 8, &value, sizeof(value));
    c->self.page->intents[twin_below(INTENTS)] = (struct intent){off, slot};
    if (value != 0)
        p->linked |= 1u << i;
    sim_die(c);
}

static void step_detach(void)
{
    struct client_twin *c = idle_client();
    if (!c)
        return;
    struct conn *conn = c->conn;
    sim_die(c);
    ask(conn, false, &(struct msg_request){.op = MSG_DETACH}, -1);
}

/* ---- units ---- */

static void step_grow(void)
{
    struct client_twin *c = idle_client();
    struct msg_request req = {.op = MSG_GROW};
    if (!c)
        return;
    req.grow.n_units = 1 + twin_below(sim_one_in(10) ? 600 : 12);
    req.grow.exact = sim_one_in(3);
    req.grow.align_order = sim_one_in(5) ? twin_below(5) : 0;
    if (sim_one_in(3)) {
        req.grow.n_units = 1u << class_order_min[0];
        req.grow.class_plus_1 = 1 + twin_below(N_CLASSES);
        req.grow.n_units = 1u << class_order_min[req.grow.class_plus_1 - 1];
        req.grow.exact = false;
        req.grow.align_order = 0;
    }
    if (world.wishes[c->tenant].limits.max_bytes > GIB(2) && sim_one_in(8))
        req.grow = (typeof(req.grow)){
            .n_units = sim_one_in(2) ? SLOT_UNITS + twin_below(99) : 70000, .exact = true};
    c->pending = MSG_GROW;
    c->req = req;
    if (sim_one_in(8))
        client_find(world_tenant(c->tenant), c->self.client)->populate = sim_one_in(2);
    ask(c->conn, false, &req, -1);
}

/* The number says for how much, so that one may be asked for again and again. No class: a slab that
 * its client has not heard of could be anywhere. */
static void step_wait(void)
{
    struct client_twin *c = idle_client();
    struct msg_request req = {.op = MSG_WAIT};
    if (!c)
        return;
    req.wait.ticket = 1 + twin_below(8);
    req.wait.exact = req.wait.ticket % 2 == 0;
    req.wait.n_units = (uint32_t)req.wait.ticket * (req.wait.exact ? 97 : 3);
    req.wait.left_ms = sim_one_in(3) ? 1 + twin_below(3000) : 0;
    req.wait.again = sim_one_in(3);
    c->pending = MSG_WAIT;
    c->req = (struct msg_request){.op = MSG_GROW};
    c->req.grow.n_units = req.wait.n_units;
    ask(c->conn, false, &req, -1);
}

static void step_cancel(void)
{
    struct client_twin *c = idle_client();
    struct msg_request req = {.op = MSG_CANCEL, .cancel = {1 + twin_below(8)}};
    if (!c)
        return;
    c->pending = MSG_CANCEL;
    ask(c->conn, false, &req, -1);
}

static void step_watch(void)
{
    struct client_twin *c = idle_client();
    struct msg_request req = {.op = MSG_WATCH};
    if (!c)
        return;
    req.watch.seen = world_tenant(c->tenant)->control->header.event_seq - twin_below(2);
    c->pending = MSG_WATCH;
    c->conn->n_watches++;
    ask(c->conn, false, &req, -1);
}

/* By CAS, as a client does: a unit that the daemon has taken back meanwhile is not its own. */
static bool take_units(const struct client_twin *c, const struct block *b)
{
    uint32_t n = b->seg->buddy ? b->n_units : 1;
    for (uint32_t u = b->unit; u < b->unit + n; u++)
        if (!seg_cas_entry(b->seg, u, unit_entry_plain(U_UNCUT, holder_token(c->self.id, 0)),
                           unit_entry_plain(U_CUT, holder_token(c->self.id, 0))))
            return false;
    return true;
}

/* [from, from + n) of an uncut piece becomes a piece by itself, cut; NULL: it was not there. */
struct piece *sim_split(const struct client_twin *c, struct piece *p, uint32_t from, uint32_t n)
{
    struct block all = p->at, mid = {all.seg, all.unit + from, n};
    struct block rest = {all.seg, mid.unit + n, all.n_units - from - n};
    p->kind = PIECE_NONE;
    if (!take_units(c, &mid))
        return NULL;
    if (rest.n_units > 0)
        (void)twin_add_piece(c, PIECE_UNCUT, rest);
    if (from > 0)
        (void)twin_add_piece(c, PIECE_UNCUT, (struct block){all.seg, all.unit, from});
    return twin_add_piece(c, PIECE_UNCUT, mid);
}

static void cut_slab(struct client_twin *c, struct piece *p)
{
    unsigned class_idx = twin_below(N_CLASSES), order = class_order_min[class_idx], geo;
    uint32_t n = 1u << order, first = (uint32_t)round_up_u64(p->at.unit, n) - p->at.unit;
    if (p->at.seg->n_slots > 1 || first + n > p->at.n_units)
        return;
    p = sim_split(c, p, first, n);
    if (!p)
        return;
    (void)fake_cut_slab(&c->self, p->at, class_idx, &geo);
    p->kind = PIECE_SLAB;
    p->geo = geo;
    p->n_tags = MIN(TAGS, geo_infos[geo].n_blocks);
}

static void cut_large(struct client_twin *c, struct piece *p)
{
    uint32_t n =
        p->at.seg->n_slots > 1 || sim_one_in(2) ? p->at.n_units : 1 + twin_below(p->at.n_units);
    p = sim_split(c, p, 0, n);
    if (!p)
        return;
    p->kind = PIECE_LARGE;
    p->n_tags = 1;
    p->owners[0] = sim_one_in(4) ? OWN_HEAP : client_code(c);
    fake_cut_large(&c->self, p->at, p->owners[0] == OWN_HEAP ? TAG_HEAP : c->self.id);
}

static void step_cut(void)
{
    struct client_twin *c = allocating_client();
    struct piece *p = c ? sim_any_piece(c, PIECE_UNCUT) : NULL;
    if (!p)
        return;
    if (sim_one_in(3))
        cut_large(c, p);
    else
        cut_slab(c, p);
}

/* An empty slab is taken apart, if no sweep runs. */
static void step_uncut(void)
{
    struct client_twin *c = any_client();
    struct piece *p = c ? sim_any_piece(c, PIECE_SLAB) : NULL;
    if (!p || !world.is_up || !twin_is_empty(p) ||
        world_tenant(c->tenant)->control->header.sweep_seq % 2 != 0)
        return;
    seg_store_plain(p->at.seg, p->at.unit, p->at.n_units, U_UNCUT, holder_token(c->self.id, 0));
    *p = (struct piece){PIECE_UNCUT, p->tenant, p->holder, p->at, 0, 0, {0}, 0};
}

static void step_release(void)
{
    struct client_twin *c = idle_client();
    struct piece *p = c ? sim_any_piece(c, PIECE_UNCUT) : NULL;
    struct msg_request req = {.op = MSG_RELEASE};
    if (!p)
        return;
    uint32_t from = p->at.seg->buddy && sim_one_in(2) ? twin_below(p->at.n_units) : 0;
    p = sim_split(c, p, from, p->at.n_units - from);
    if (!p)
        return;
    req.release.n_runs = 1;
    req.release.runs[0] = (struct msg_run){(uint64_t)p->at.seg->slot << SLOT_SHIFT |
                                               (uint64_t)p->at.unit << UNIT_SHIFT,
                                           p->at.n_units};
    p->kind = PIECE_NONE;
    c->pending = MSG_RELEASE;
    ask(c->conn, false, &req, -1);
}

/* ---- blocks ---- */

void sim_store_tag(struct piece *p, unsigned i, tag_t tag, int owner)
{
    p->owners[i] = owner;
    p->linked &= ~(1u << i);
    __atomic_store_n(twin_tag(p, i), tag, __ATOMIC_RELEASE);
    if (tag == TAG_FREE)
        __atomic_store_n(segment_hints(p->at.seg->base, &p->at.seg->shape) + p->at.unit, 1,
                         __ATOMIC_RELEASE);
}

static void step_alloc(void)
{
    struct client_twin *c = allocating_client();
    struct piece *p = c ? sim_any_piece(c, PIECE_SLAB) : NULL;
    bool is_heaps = sim_one_in(4);
    if (!p)
        return;
    unsigned i = twin_below(p->n_tags);
    if (p->owners[i] == OWN_FREE)
        sim_store_tag(p, i, is_heaps ? TAG_HEAP : c->self.id, is_heaps ? OWN_HEAP : client_code(c));
}

static void step_free(void)
{
    unsigned i;
    struct client_twin *c = any_client();
    struct piece *p = c ? any_block(c, true, &i) : NULL;
    if (!p || twin_is_rooted(p, i) || c->pending == MSG_PUBLISH_ALL || c->may_be_published)
        return;
    bool is_large = p->kind == PIECE_LARGE;
    struct msg_request req = {.op = MSG_FREE_LARGE, .free_large = {twin_block_off(p, i)}};
    sim_store_tag(p, i, TAG_FREE, OWN_FREE);
    if (!is_large)
        return;
    p->kind = PIECE_NONE; /* the daemon may take it from now on */
    if (!world.is_up || c->pending != MSG_NONE || !c->conn || !c->conn->fake.is_open ||
        sim_one_in(4))
        return;
    c->pending = MSG_FREE_LARGE;
    ask(c->conn, false, &req, -1);
}

static void step_publish(void)
{
    unsigned i;
    struct client_twin *c = any_client();
    struct piece *p = c ? any_block(c, false, &i) : NULL;
    if (p && c->pending != MSG_PUBLISH_ALL && !c->may_be_published)
        sim_store_tag(p, i, TAG_HEAP, OWN_HEAP);
}

/* To one of whose death nobody has been told, perhaps. */
static void step_give(void)
{
    unsigned i;
    struct client_twin *c = any_client(), *to = &twin.clients[twin_below(CLIENTS)];
    struct piece *p = c ? any_block(c, false, &i) : NULL;
    if (!p || !world.is_up || to->life == CLIENT_NONE || to->self.client == 0 ||
        to->tenant != c->tenant || c->pending == MSG_PUBLISH_ALL || c->may_be_published ||
        to->pending == MSG_PUBLISH_ALL || to->may_be_published ||
        world_tenant(c->tenant)->control->client[to->self.id].gen !=
            client_handle_gen(to->self.client))
        return;
    sim_store_tag(p, i, to->self.id, client_code(to));
}

static void step_memory(void)
{
    static void (*const steps[])(void) = {step_alloc,   step_alloc, step_cut,        step_free,
                                          step_publish, step_die,   step_die_linking};
    steps[twin_below(ARRAY_LEN(steps))]();
}

/* ---- the heap's ---- */

static void step_root(void)
{
    unsigned i;
    struct client_twin *c = idle_client();
    struct piece *p = c ? any_block(c, true, &i) : NULL;
    struct msg_request req = {.op = MSG_ROOT};
    if (!c || c->may_be_published)
        return;
    uint32_t r = twin_below(ROOTS);
    req.root.op = (enum root_op)twin_below(4);
    req.root.name[0] = 'r';
    req.root.name[1] = (char)('0' + r);
    if (req.root.op == ROOT_SET && !p)
        return;
    req.root.desired = p && (req.root.op == ROOT_SET || sim_one_in(2)) ? twin_block_off(p, i) : 0;
    req.root.expected = sim_one_in(3) ? 0 : twin.tenants[c->tenant].roots[r];
    c->pending = MSG_ROOT;
    c->req = req;
    ask(c->conn, false, &req, -1);
}

static void step_publish_all(void)
{
    struct client_twin *c = idle_client();
    if (!c || c->may_be_published)
        return;
    c->pending = MSG_PUBLISH_ALL;
    ask(c->conn, false, &(struct msg_request){.op = MSG_PUBLISH_ALL}, -1);
}

static void step_map(void)
{
    struct client_twin *c = idle_client();
    if (!c)
        return;
    struct msg_request req = {.op = MSG_MAP_SEGMENT, .map_segment = {twin_below(4)}};
    c->pending = MSG_MAP_SEGMENT;
    ask(c->conn, false, &req, -1);
}

void sim_admin_asks(enum msg_op op, uint32_t tenant)
{
    struct msg_request req = {.op = op};
    struct conn *conn = sim_new_conn(NULL);
    if (!conn)
        return;
    conn->op = op;
    conn->tenant = tenant;
    strcpy(op == MSG_LOOK ? req.look.tenant : req.tenant_drop.tenant, world_names[tenant]);
    twin.tenants[tenant].is_dropping = op == MSG_TENANT_DROP;
    ask(conn, true, &req, -1);
}

static void step_look(void)
{
    sim_admin_asks(MSG_LOOK, twin_below(WORLD_TENANTS));
}

static void step_drop(void)
{
    sim_admin_asks(MSG_TENANT_DROP, twin_below(WORLD_TENANTS));
}

/* ---- the daemon's ---- */

static void step_tick(void)
{
    world.now_ns += twin_below(sim_one_in(3) ? 1500000000u : 20000000u) + 1;
    sim_call(&(struct call){.kind = CALL_TICK, .fd = -1});
}

void sim_step_job(void)
{
    if (world.n_jobs == 0)
        return;
    struct call call = {.kind = CALL_WORK, .fd = -1, .job = twin_below(world.n_jobs)};
    if (world.jobs[call.job].has_worked)
        call.kind = CALL_DONE;
    sim_call(&call);
}

static void step_daemon_dies(void)
{
    world_die();
    sim_follow();
}

/* ---- any of them ---- */

static const struct {
    uint32_t weight;
    void (*step)(void);
} steps[] = {
    {90, step_attach},      {6, step_resume_twice}, {6, step_hang_up},     {40, step_hang_up_stray},
    {5, step_die},          {3, step_die_linking},  {3, step_detach},      {130, step_grow},
    {120, step_cut},        {15, step_uncut},       {50, step_release},    {150, step_alloc},
    {60, step_free},        {25, step_publish},     {30, step_give},       {80, step_root},
    {15, step_publish_all}, {8, step_map},          {4, step_look},        {4, step_drop},
    {50, step_tick},        {400, sim_step_job},    {2, step_daemon_dies}, {1, step_all_die},
    {60, step_wait},        {6, step_cancel},       {20, step_watch},
};

void sim_step(void)
{
    uint32_t sum = 0, i = 0;
    for (uint32_t k = 0; k < ARRAY_LEN(steps); k++)
        sum += steps[k].weight;
    for (uint32_t at = twin_below(sum); at >= steps[i].weight; i++)
        at -= steps[i].weight;
    steps[i].step();
}
