/* SPDX-License-Identifier: Apache-2.0 */
/* core_twin.c - see core_twin.h. */
#include "tests/model/core_twin.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "shm/sizeclass.h"

struct twin twin;

void twin_fail(const char *fmt, ...)
{
    va_list args;
    (void)fprintf(stderr, "the twin says: ");
    va_start(args, fmt);
    (void)vfprintf(stderr, fmt, args);
    va_end(args);
    (void)fprintf(stderr, "\n");
    abort(); /* whose handler says where */
}

uint32_t twin_below(uint32_t n)
{
    twin.rng += 0x9e3779b97f4a7c15ull; /* splitmix64 */
    uint64_t z = twin.rng;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return (uint32_t)((z ^ z >> 31) >> 32) % n;
}

/* ---- pieces ---- */

struct seg *twin_view(uint32_t tenant, uint32_t slot)
{
    uint32_t heap_no;
    struct tenant_twin *t = &twin.tenants[tenant];
    if (t->views[slot])
        return t->views[slot];
    twin_assert(world_books(tenant, &heap_no) >= 0, "tenant %u has no books", tenant);
    int kept = world_kept((struct kept){KEPT_SEGMENT, heap_no, slot}), fd;
    twin_assert(kept >= 0, "segment %u of tenant %u is not kept", slot, tenant);
    uint64_t size = (uint64_t)lseek(kept, 0, SEEK_END);
    twin_assert(seg_reopen(kept, &fd) == 0, "no descriptor");
    twin_assert(seg_restore(&t->views[slot], fd, slot, size) == 0, "no segment");
    return t->views[slot];
}

void twin_drop_views(uint32_t tenant)
{
    for (uint32_t slot = 0; slot < HEAP_SLOTS; slot++)
        if (twin.tenants[tenant].views[slot]) {
            seg_free(twin.tenants[tenant].views[slot], NULL);
            twin.tenants[tenant].views[slot] = NULL;
        }
}

struct piece *twin_add_piece(const struct client_twin *c, enum piece_kind kind, struct block at)
{
    for (uint32_t i = 0; i < PIECES; i++)
        if (twin.pieces[i].kind == PIECE_NONE) {
            twin.pieces[i] = (struct piece){
                .kind = kind, .tenant = c->tenant, .holder = client_idx(c), .at = at};
            return &twin.pieces[i];
        }
    return NULL;
}

tag_t *twin_tag(const struct piece *p, unsigned i)
{
    if (p->kind == PIECE_LARGE)
        return segment_tags(p->at.seg->base, &p->at.seg->shape) + p->at.unit;
    return (tag_t *)(void *)(p->at.seg->base + ((uint64_t)p->at.unit << UNIT_SHIFT)) + i;
}

uint64_t twin_block_off(const struct piece *p, unsigned i)
{
    uint64_t off = (uint64_t)p->at.seg->slot << SLOT_SHIFT | (uint64_t)p->at.unit << UNIT_SHIFT;
    return p->kind == PIECE_LARGE ? off
                                  : off + geo_table[p->geo].first + i * geo_table[p->geo].size;
}

bool twin_is_rooted(const struct piece *p, unsigned i)
{
    for (uint32_t r = 0; r < ROOTS; r++)
        if (twin.tenants[p->tenant].roots[r] == twin_block_off(p, i))
            return true;
    return false;
}

bool twin_is_empty(const struct piece *p)
{
    for (unsigned i = 0; i < p->n_tags; i++)
        if (p->owners[i] != OWN_FREE)
            return false;
    return true;
}

static bool overlaps(const struct piece *p, uint32_t tenant, const struct block *b)
{
    return p->kind != PIECE_NONE && p->tenant == tenant && p->at.seg == b->seg &&
           p->at.unit < b->unit + b->n_units && b->unit < p->at.unit + p->at.n_units;
}

static struct client_twin *client_of_code(int code)
{
    return code == OWN_FREE || code == OWN_HEAP ? NULL : &twin.clients[code - 1];
}

/* ---- replies ---- */

/* What was uncut may be another's by now, or come again; nothing else may. A grant whose pages are
 * being made is told later: by then its client may have cut of it what it had been granted before.
 * False: that is so. */
static bool clear_for(const struct client_twin *c, const struct block *b, bool is_slab)
{
    bool is_clear = true;
    for (uint32_t i = 0; i < PIECES; i++) {
        struct piece *p = &twin.pieces[i];
        if (!overlaps(p, c->tenant, b))
            continue;
        bool is_orphan = is_slab && p->holder == BY_NOBODY && p->at.unit == b->unit &&
                         p->at.n_units == b->n_units;
        bool is_own = !is_slab && p->holder == client_idx(c) && p->kind != PIECE_UNCUT;
        twin_assert(p->kind == PIECE_UNCUT || is_orphan || is_own,
                    "units %u+%u of slot %u are granted to client %u and in use by %d", b->unit,
                    b->n_units, b->seg->slot, client_idx(c), p->holder);
        if (p->kind == PIECE_UNCUT)
            p->kind = PIECE_NONE;
        is_clear &= !is_own;
    }
    return is_clear;
}

/* A parked slab: the blocks in it are others'. */
static void take_slab(struct client_twin *c, const struct block *b)
{
    struct piece *p = NULL;
    unsigned geo = unit_entry_geo(seg_entry(b->seg, b->unit));
    for (uint32_t i = 0; i < PIECES && !p; i++)
        if (overlaps(&twin.pieces[i], c->tenant, b))
            p = &twin.pieces[i];
    if (!p)
        p = twin_add_piece(c, PIECE_SLAB, *b);
    if (!p)
        return;
    p->holder = client_idx(c);
    p->geo = geo;
    p->n_tags = MIN(TAGS, geo_infos[geo].n_blocks);
    twin_assert(p->kind == PIECE_SLAB && b->n_units == 1u << geo_infos[geo].order,
                "a slab was granted that is none");
    twin_assert(unit_entry_state(seg_entry(b->seg, b->unit)) == U_PARKED, "it is not parked");
    seg_store_slab(b->seg, b->unit, geo, U_SLAB, holder_token(c->self.id, 1));
}

static void on_grow(struct client_twin *c, const struct msg_reply *reply)
{
    struct msg_run run = reply->grow.run;
    const struct msg_request *req = &c->req;
    if (reply->error < 0) {
        twin_assert(reply->error == -ENOMEM || reply->error == -ENOSPC, "grow: %s", reply->text);
        return;
    }
    struct block b = {.seg = twin_view(c->tenant, reply->grow.head_slot), .n_units = run.n_units};
    b.unit = (uint32_t)((run.off - ((uint64_t)b.seg->slot << SLOT_SHIFT)) >> UNIT_SHIFT);
    twin_assert(seg_contains(b.seg, b.unit, b.n_units), "granted beyond the segment");
    twin_assert(reply->grow.slab ||
                    (b.n_units >= req->grow.n_units && b.unit % (1u << req->grow.align_order) == 0),
                "granted %u units at %u", b.n_units, b.unit);
    bool is_clear = clear_for(c, &b, reply->grow.slab);
    if (reply->grow.slab)
        take_slab(c, &b);
    else if (is_clear)
        (void)twin_add_piece(c, PIECE_UNCUT, b);
}

static void on_attach(struct client_twin *c, const struct msg_reply *reply)
{
    twin_assert(reply->error == 0, "%s: %s",
                c->is_resuming ? "a living client may not come back" : "attach", reply->text);
    twin_assert(!c->is_resuming || reply->attach.client == c->self.client, "it is another");
    c->self.client = reply->attach.client;
    c->self.id = client_handle_id(reply->attach.client);
    struct tenant_twin *t = &twin.tenants[c->tenant];
    int fd = world_books(c->tenant, &t->heap_no);
    twin_assert(fd >= 0, "the heap is not kept");
    if (!t->has_heap)
        twin_drop_views(c->tenant); /* of the one before */
    t->has_heap = true;
}

static struct piece *piece_of_block(uint32_t tenant, uint64_t off, unsigned *ret_i)
{
    for (uint32_t k = 0; k < PIECES; k++) {
        struct piece *p = &twin.pieces[k];
        if (p->tenant != tenant || p->kind == PIECE_NONE || p->kind == PIECE_UNCUT)
            continue;
        for (unsigned i = 0; i < p->n_tags; i++)
            if (twin_block_off(p, i) == off) {
                *ret_i = i;
                return p;
            }
    }
    return NULL;
}

/* What the request wants; false: it must be refused with *ret_error. */
static bool root_outcome(const struct client_twin *c, uint64_t *ret_off, int *ret_error)
{
    const struct msg_request *req = &c->req;
    uint64_t now = twin.tenants[c->tenant].roots[req->root.name[1] - '0'];
    *ret_off = req->root.op == ROOT_DEL ? 0 : req->root.desired;
    *ret_error = 0;
    if (req->root.op == ROOT_GET)
        *ret_off = now;
    if ((req->root.op == ROOT_GET || req->root.op == ROOT_DEL) && now == 0)
        *ret_error = -ENOENT;
    if (req->root.op == ROOT_CAS && now != req->root.expected)
        *ret_error = req->root.expected == 0 ? -EEXIST : -EAGAIN;
    return *ret_error == 0;
}

static void set_root(const struct client_twin *c, uint64_t off)
{
    unsigned i;
    struct piece *p = off ? piece_of_block(c->tenant, off, &i) : NULL;
    twin.tenants[c->tenant].roots[c->req.root.name[1] - '0'] = off;
    if (p)
        p->owners[i] = OWN_HEAP;
}

static void on_root(const struct client_twin *c, const struct msg_reply *reply)
{
    uint64_t off;
    int error;
    (void)root_outcome(c, &off, &error);
    twin_assert(reply->error == error, "root %s, op %d: %d, not %d", c->req.root.name,
                c->req.root.op, reply->error, error);
    if (error == 0 && c->req.root.op != ROOT_GET)
        set_root(c, off);
    if (error == 0 && c->req.root.op == ROOT_GET)
        twin_assert(reply->root.off == off, "root %s is 0x%" PRIx64, c->req.root.name, off);
}

static void learn_published(struct client_twin *c, bool all)
{
    for (uint32_t k = 0; k < PIECES; k++) {
        struct piece *p = &twin.pieces[k];
        for (unsigned i = 0; i < p->n_tags && p->kind != PIECE_NONE; i++) {
            if (p->owners[i] != client_code(c))
                continue;
            tag_t tag = *twin_tag(p, i);
            twin_assert(tag == TAG_HEAP || (!all && tag == c->self.id), "published: the tag is %u",
                        tag);
            p->owners[i] = tag == TAG_HEAP ? OWN_HEAP : p->owners[i];
        }
    }
}

static void on_reply(struct client_twin *c, enum msg_op op, const struct msg_reply *reply)
{
    switch (op) {
    case MSG_ATTACH:
        on_attach(c, reply);
        break;
    case MSG_GROW:
        on_grow(c, reply);
        break;
    case MSG_WAIT:
        twin_assert(reply->error == 0 || reply->error == -E2BIG || reply->error == -ENOMEM,
                    "wait: %s", reply->text);
        if (reply->op == MSG_GROW)
            on_grow(c, reply);
        break;
    case MSG_CANCEL:
    case MSG_WATCH:
        twin_assert(reply->error == 0, "op %d: %s", op, reply->text);
        break;
    case MSG_RELEASE:
        twin_assert(reply->error == 0, "what was cut is not taken back: %s", reply->text);
        break;
    case MSG_ROOT:
        on_root(c, reply);
        break;
    case MSG_PUBLISH_ALL:
        twin_assert(reply->error == 0, "publish: %s", reply->text);
        learn_published(c, true);
        break;
    case MSG_MAP_SEGMENT:
        twin_assert(reply->error == 0 || reply->error == -ENOENT, "map: %s", reply->text);
        break;
    default: /* a large block may have been found already */
        break;
    }
}

static void on_admin(const struct conn *c, const struct msg_reply *reply)
{
    struct tenant_twin *t = &twin.tenants[c->tenant];
    if (c->op != MSG_TENANT_DROP)
        return;
    t->is_dropping = false;
    if (reply->error < 0)
        return;
    t->has_heap = false;
    memset(t->roots, 0, sizeof(t->roots));
    for (uint32_t k = 0; k < PIECES; k++)
        if (twin.pieces[k].tenant == c->tenant)
            twin.pieces[k].kind = PIECE_NONE;
    if (twin_below(2)) /* else somebody is slow to unmap it: twin_drop_views() at its next heap */
        twin_drop_views(c->tenant);
}

static void settle_conn(struct conn *conn)
{
    struct fake *f = &conn->fake;
    struct client_twin *c = conn->client;
    twin_assert(f->n_events <= conn->n_watches, "%u events to %u bells", f->n_events,
                conn->n_watches);
    if (f->n_replies <= conn->n_seen)
        return;
    conn->n_seen = f->n_replies;
    if (c) {
        enum msg_op op = c->pending;
        c->pending = MSG_NONE;
        if (op == MSG_ATTACH && c->conn && c->conn != conn)
            c->conn->client = NULL; /* it will be told to close */
        if (op == MSG_ATTACH)
            c->conn = conn;
        on_reply(c, op, &f->reply);
    } else if (conn->op != MSG_NONE) {
        on_admin(conn, &f->reply);
    }
    close_fd(&f->fd);
    if (world.is_up && f->is_open && f->reply.ack_nonce != 0) {
        struct call call = {.kind = CALL_REQUEST, .fake = f, .fd = -1};
        call.req = (struct msg_request){.op = MSG_ACK, .ack = {f->reply.ack_nonce}};
        world_call(&call);
    }
}

void twin_lose(struct client_twin *c)
{
    c->may_be_published |= c->pending == MSG_PUBLISH_ALL;
    c->may_hold_slabs |= c->pending == MSG_GROW;
    c->pending = MSG_NONE;
    c->conn = NULL;
    for (uint32_t i = 0; i < CONNS; i++)
        if (twin.conns[i].client == c)
            twin.conns[i].client = NULL;
}

static void settle_replies(void)
{
    for (uint32_t i = 0; i < CONNS; i++)
        if (twin.conns[i].is_used)
            settle_conn(&twin.conns[i]);
}

void twin_settle(void)
{
    settle_replies();
    for (uint32_t i = 0; i < CONNS; i++) {
        struct conn *conn = &twin.conns[i];
        if (!conn->is_used)
            continue;
        if (conn->fake.is_open && world.is_up && !conn->fake.told_to_close)
            continue;
        if (conn->client && conn->fake.told_to_close)
            twin_assert(!is_attached(conn->client) || conn->client->conn != conn,
                        "client %d was hung up on", client_idx(conn->client));
        if (world.is_up && conn->fake.is_open)
            world_call(&(struct call){.kind = CALL_HANGUP, .fake = &conn->fake});
        close_fd(&conn->fake.fd);
        if (conn->client)
            twin_lose(conn->client);
        conn->is_used = false;
    }
}

/* ---- between two cores ---- */

static uint64_t kept_root(uint32_t tenant, uint32_t r)
{
    static struct books_root roots[BOOKS_ROOTS];
    char name[ROOT_NAME_BYTES] = {'r', (char)('0' + r)};
    uint32_t heap_no;
    int fd = world_books(tenant, &heap_no);
    if (fd < 0 || pread(fd, roots, sizeof(roots), offsetof(struct books, root)) != sizeof(roots))
        return 0;
    for (uint32_t i = 0; i < BOOKS_ROOTS; i++)
        if (roots[i].off != 0 && strcmp(roots[i].name, name) == 0)
            return roots[i].off;
    return 0;
}

/* Either it has happened or not; a block that was published may have no name. */
static void learn_root(struct client_twin *c)
{
    unsigned i;
    int error;
    uint64_t off, r = (uint64_t)(c->req.root.name[1] - '0');
    uint64_t now = kept_root(c->tenant, (uint32_t)r), was = twin.tenants[c->tenant].roots[r];
    bool may = root_outcome(c, &off, &error);
    twin_assert(now == was || (may && now == off), "root %s: 0x%" PRIx64 " after a death",
                c->req.root.name, now);
    struct piece *p =
        c->req.root.desired ? piece_of_block(c->tenant, c->req.root.desired, &i) : NULL;
    bool is_published = p && *twin_tag(p, i) == TAG_HEAP;
    twin_assert(!p || is_published || (now == was && *twin_tag(p, i) == c->self.id),
                "root %s names a block that was not published", c->req.root.name);
    if (is_published)
        p->owners[i] = OWN_HEAP;
    twin.tenants[c->tenant].roots[r] = now;
}

void twin_learn_from_the_dead(void)
{
    settle_replies();
    for (uint32_t i = 0; i < CLIENTS; i++) {
        struct client_twin *c = &twin.clients[i];
        if (c->life == CLIENT_NONE)
            continue;
        if (c->pending == MSG_ROOT)
            learn_root(c);
        if (c->pending == MSG_PUBLISH_ALL || (c->life == CLIENT_HERE && c->may_be_published))
            learn_published(c, false);
        twin_lose(c);
        c->may_be_published &= c->life == CLIENT_DEAD; /* else no sweep goes on */
    }
    for (uint32_t i = 0; i < CONNS; i++)
        twin.conns[i].fake.is_open = false;
    twin_settle();
}

void twin_welcome(void)
{
    for (uint32_t i = 0; i < WORLD_TENANTS; i++) {
        struct tenant_twin *t = &twin.tenants[i];
        struct tenant *now = world_tenant(i);
        if (t->has_heap && t->is_dropping && (!now->is_open || now->heap_no != t->heap_no)) {
            struct conn as_told = {.op = MSG_TENANT_DROP, .tenant = i};
            on_admin(&as_told, &(struct msg_reply){0});
        }
        t->is_dropping = false;
        twin_assert(!t->has_heap || (now->is_open && now->heap_no == t->heap_no),
                    "the heap of tenant %u is lost", i);
    }
    twin_observe();
}

/* ---- what the core did by itself ---- */

static bool may_be_heaps(const struct client_twin *c, const struct piece *p, unsigned i)
{
    return c->may_be_published || (p->linked >> i & 1);
}

static void observe_tag(struct piece *p, unsigned i, bool is_buried)
{
    struct client_twin *c = client_of_code(p->owners[i]);
    if (!c || c->life != CLIENT_DEAD)
        return;
    tag_t tag = *twin_tag(p, i);
    bool is_linked = p->linked >> i & 1;
    twin_assert(tag == TAG_FREE || (tag == c->self.id && !is_buried) ||
                    (tag == TAG_HEAP && may_be_heaps(c, p, i)),
                "the dead client %d (id %u) has left a tag %u", client_idx(c), c->self.id, tag);
    twin_assert(tag != TAG_FREE || !is_linked, "a linked block is lost");
    if (tag != c->self.id)
        p->owners[i] = tag == TAG_HEAP ? OWN_HEAP : OWN_FREE;
}

static bool is_buried_now(const struct client_twin *c)
{
    struct tenant *t = world_tenant(c->tenant);
    struct client *of = t->is_open ? t->clients.by_id[c->self.id] : NULL;
    return !of || of->gen != client_handle_gen(c->self.client);
}

static void observe_pieces(const struct client_twin *c, bool is_buried)
{
    for (uint32_t k = 0; k < PIECES; k++) {
        struct piece *p = &twin.pieces[k];
        for (unsigned i = 0; i < p->n_tags && p->kind != PIECE_NONE; i++)
            if (p->owners[i] == client_code(c))
                observe_tag(p, i, is_buried);
        if (is_buried && p->holder == client_idx(c))
            p->holder = BY_NOBODY;
    }
}

void twin_observe(void)
{
    for (uint32_t i = 0; i < CLIENTS; i++) {
        struct client_twin *c = &twin.clients[i];
        if (c->life != CLIENT_DEAD)
            continue;
        bool is_buried = is_buried_now(c);
        observe_pieces(c, is_buried);
        if (is_buried)
            *c = (struct client_twin){.life = CLIENT_NONE};
    }
    for (uint32_t k = 0; k < PIECES; k++) { /* what goes free when it suits the daemon */
        struct piece *p = &twin.pieces[k];
        bool is_left = p->holder == BY_NOBODY || twin.clients[p->holder].life == CLIENT_DEAD;
        if ((is_left || p->kind == PIECE_LARGE) && twin_is_empty(p))
            p->kind = PIECE_NONE;
    }
}

/* ---- what must be true ---- */

static void check_tag(const struct piece *p, unsigned i)
{
    tag_t tag = *twin_tag(p, i);
    const struct client_twin *c = client_of_code(p->owners[i]);
    tag_t expected = p->owners[i] == OWN_HEAP ? TAG_HEAP : c ? c->self.id : TAG_FREE;
    bool is_ok = tag == expected ||
                 (c && c->life == CLIENT_DEAD && (tag == TAG_FREE || may_be_heaps(c, p, i))) ||
                 (c && tag == TAG_HEAP && (c->may_be_published || c->pending == MSG_PUBLISH_ALL));
    twin_assert(is_ok, "block %u of unit %u, slot %u: tag %u, not %u", i, p->at.unit,
                p->at.seg->slot, tag, expected);
}

static void check_owner(const struct tenant *t, const struct piece *p, tag_t owner)
{
    const struct seg *seg = t->segs[p->at.seg->slot];
    twin_assert(seg != NULL, "a segment in use has gone");
    twin_assert(tenant_all_owned(t, seg, p->at.unit, p->at.n_units, owner),
                "unit %u+%u, slot %u: the books say %u, not %u", p->at.unit, p->at.n_units,
                seg->slot, tenant_owner(t, seg, p->at.unit), owner);
}

/* What was taken back may have gone with its segment. */
static void check_uncut(const struct tenant *t, const struct piece *p, tag_t id)
{
    const struct seg *seg = t->segs[p->at.seg->slot];
    uint64_t mine = unit_entry_plain(U_UNCUT, holder_token(id, 0));
    for (uint32_t u = p->at.unit; seg && u < p->at.unit + p->at.n_units; u++) {
        if (u < seg->shape.n_table && seg_entry(seg, u) == mine)
            twin_assert(tenant_owner(t, seg, u) == id, "unit %u, slot %u is not client %u's", u,
                        seg->slot, id);
        if (!seg->buddy)
            break;
    }
}

static void check_held(const struct tenant *t, const struct piece *p, const struct client_twin *c)
{
    const struct seg *seg = t->segs[p->at.seg->slot];
    uint64_t large = unit_entry_large(p->at.n_units, c->self.id);
    check_owner(t, p, c->self.id);
    if (p->kind == PIECE_LARGE)
        twin_assert(seg_entry(seg, p->at.unit) == large, "a large block's entry has changed");
    for (uint32_t i = 0; i < p->at.n_units && p->kind == PIECE_SLAB; i++)
        twin_assert(seg_entry(seg, p->at.unit + i) ==
                        unit_entry_slab(U_SLAB, p->geo, i, holder_token(c->self.id, 1)),
                    "a slab's entry has changed");
}

/* A slab may be with a client that has not heard of it. */
static bool is_in_limbo(const struct tenant *t, const struct piece *p)
{
    tag_t owner = tenant_owner(t, t->segs[p->at.seg->slot], p->at.unit);
    const struct client *c = owner == OWNER_ORPHAN ? NULL : t->clients.by_id[owner];
    bool may = c && c->state != CLIENT_LIVES;
    for (uint32_t i = 0; i < CLIENTS && c; i++)
        may |= twin.clients[i].self.id == owner &&
               (twin.clients[i].may_hold_slabs || twin.clients[i].pending == MSG_GROW);
    return p->kind == PIECE_SLAB && may;
}

/* Of the dead: still theirs, or, if a daemon died while it buried them, the heap's or nobody's. */
static void check_left(const struct tenant *t, const struct piece *p, const struct client_twin *c)
{
    const struct seg *seg = t->segs[p->at.seg->slot];
    bool is_empty = true;
    for (unsigned i = 0; i < p->n_tags; i++)
        is_empty &= *twin_tag(p, i) == TAG_FREE;
    if (!is_empty && !tenant_all_owned(t, seg, p->at.unit, p->at.n_units, OWNER_ORPHAN))
        check_owner(t, p, c->self.id);
}

static void check_piece(const struct piece *p)
{
    const struct tenant *t = world_tenant(p->tenant);
    const struct client_twin *c = p->holder == BY_NOBODY ? NULL : &twin.clients[p->holder];
    for (unsigned i = 0; i < p->n_tags; i++)
        check_tag(p, i);
    if (p->kind == PIECE_UNCUT && c->life == CLIENT_HERE)
        check_uncut(t, p, c->self.id);
    else if (p->kind != PIECE_UNCUT && c && c->life == CLIENT_HERE)
        check_held(t, p, c);
    else if (p->kind != PIECE_UNCUT && c)
        check_left(t, p, c);
    else if (p->kind != PIECE_UNCUT && !is_in_limbo(t, p))
        check_owner(t, p, OWNER_ORPHAN);
}

static void check_roots(uint32_t tenant)
{
    const struct tenant *t = world_tenant(tenant);
    uint32_t n = 0, n_expected = 0;
    for (uint32_t i = 0; i < BOOKS_ROOTS; i++) {
        const struct books_root *root = &t->books->root[i];
        if (root->off == 0)
            continue;
        n++;
        twin_assert(twin.tenants[tenant].roots[root->name[1] - '0'] == root->off,
                    "root %s is 0x%" PRIx64, root->name, root->off);
    }
    for (uint32_t r = 0; r < ROOTS; r++)
        n_expected += twin.tenants[tenant].roots[r] != 0;
    twin_assert(n == n_expected, "tenant %u has %u roots, not %u", tenant, n, n_expected);
}

void twin_check(void)
{
    core_assert_valid(&world.core);
    for (uint32_t i = 0; i < CLIENTS; i++) {
        const struct client_twin *c = &twin.clients[i];
        if (is_attached(c) && !(c->pending == MSG_DETACH))
            twin_assert(client_find(world_tenant(c->tenant), c->self.client) != NULL,
                        "client %u lives and is not known", i);
    }
    for (uint32_t k = 0; k < PIECES; k++)
        if (twin.pieces[k].kind != PIECE_NONE)
            check_piece(&twin.pieces[k]);
    for (uint32_t i = 0; i < WORLD_TENANTS; i++) {
        const struct tenant *t = world_tenant(i);
        if (!t->is_open)
            continue;
        check_roots(i);
        twin_assert(t->is_sweeping || t->control->header.sweep_seq % 2 == 0,
                    "a sweep that nobody does");
    }
}
