/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Restoring, theory.
 *
 * MODEL. The books say who owns each unit, which clients there are and which roots; the segments
 * say what units are cut into; all else is counted anew. Clients have gone on meanwhile with what
 * they hold, and some have died.
 *
 * WHAT A KILL LEFT HALF DONE (orders of stores: books.c), and what becomes of it:
 *   1. grant, return    owner is a client's, entry U_FREE: the client does not know, or knows no
 *                       more: nobody's. The rest of a grant is U_UNCUT: found when memory is short.
 *   2. orphan           a parked slab or a large block with owners of two kinds: all the daemon's.
 *                       On its way back: units of the daemon's that no such run contains: nobody's.
 *   3. segment          kept, and not in the books: no client has seen it: closed.
 *   4. client           kept page, and not in the books: the same. DIES in the books: swept again.
 *   5. heap             control segment without books: the same. Segments without books: the heap
 *                       was dropped; they stay charged as long as somebody maps them.
 *   6. sweep            sweep_seq is odd: made even; the dead are swept again.
 *
 * CLIENTS that live are asked at once, as if each had hung up: who died during the outage is found
 * so, who lives comes back on a new connection (by the secret in its page).
 *
 * A heap of whose descriptors one is missing is not restored: a client that cannot be asked might
 * live, and a segment that is not there might be used. Nor is one whose books name an owner who is
 * no client. It is closed, and nothing of it is kept but segments that somebody maps; its clients
 * keep what they have and get no more. A heap of another version, or for which the system has no
 * room just now, is left as it is: then this daemon ends, before it was ready (keeper.c).
 *
 * COST. One look at each unit's owner, and at the entries of those that have one: 1 ms for each
 * GiB.
 */
#include "daemon/restore.h"

#include <string.h>
#include <sys/stat.h>

#include "daemon/kept.h"
#include "daemon/log.h"
#include "daemon/orphan.h"
#include "daemon/own.h"
#include "daemon/reaper.h"
#include "daemon/retire.h"
#include "daemon/segments.h"
#include "daemon/tenant.h"
#include "daemon/zombie.h"
#include "shm/sizeclass.h"

/* A segment of no heap: it stays charged as long as somebody maps it. */
static void bury(struct core *core, struct kept kept, int fd)
{
    struct stat st;
    if (fstat(fd, &st) < 0) {
        (void)close(fd);
        return;
    }
    core->next_heap_no = MAX(core->next_heap_no, kept.no + 1);
    ledger_restore_orphaned(&core->ledger, (uint64_t)st.st_size);
    zombie_bury(core, NULL, kept, fd, (uint64_t)st.st_size);
}

/* ---- units ---- */

static void own(struct tenant *t, const struct seg *seg, uint32_t unit, uint32_t n, tag_t owner)
{
    books_set_owner(t->books, seg->slot, unit, n, owner);
}

static bool dies_or_orphan(const struct tenant *t, tag_t owner)
{
    return owner == OWNER_ORPHAN || t->books->client[owner].state == BOOKS_CLIENT_DIES;
}

/* The slab or large block whose head is unit, if it is or was to become an orphan, or was on its
 * way to a client that has not been told: its units, and *ret_geo. Else 0. What clients have
 * scribbled costs no more than one look at each unit: *bad is one that no orphan contains. */
static uint32_t orphan_at(const struct tenant *t, const struct seg *seg, uint32_t unit,
                          uint32_t *bad, unsigned *ret_geo)
{
    uint64_t entry = seg_entry(seg, unit);
    unsigned geo = unit_entry_geo(entry);
    bool is_slab = unit_entry_state(entry) == U_PARKED && unit_entry_back(entry) == 0 &&
                   geo_infos[geo].n_blocks > 0;
    uint32_t n_orphan = 0, n = is_slab ? 1u << geo_infos[geo].order : unit_entry_large_units(entry);
    if ((!is_slab && unit_entry_state(entry) != U_LARGE) || !seg_contains(seg, unit, n))
        return 0;
    /* Owners are stored in ascending order, so that a large block's head comes first. */
    if (!is_slab && (books_owner(t->books, seg->slot, unit) != OWNER_ORPHAN ||
                     (unit <= *bad && *bad < unit + n)))
        return 0;
    for (uint32_t u = unit; u < unit + n; u++) {
        tag_t owner = books_owner(t->books, seg->slot, u);
        n_orphan += owner == OWNER_ORPHAN;
        if (dies_or_orphan(t, owner) || (is_slab && owner != OWNER_NONE))
            continue;
        *bad = is_slab ? *bad : u;
        return 0;
    }
    *ret_geo = is_slab ? geo : 0;
    return n_orphan > 0 ? n : 0;
}

static void restore_orphan(struct tenant *t, struct seg *seg, uint32_t unit, uint32_t n,
                           unsigned geo)
{
    if (seg->buddy)
        own(t, seg, unit, n, OWNER_ORPHAN);
    tenant_restore_units(t, seg, unit, n, OWNER_ORPHAN);
    orphan_restore(t, seg, unit, n, geo);
}

/* Units from unit on that are treated alike, at least one. */
static uint32_t restore_run(struct tenant *t, struct seg *seg, uint32_t unit, uint32_t *bad)
{
    unsigned geo = 0;
    tag_t owner = tenant_owner(t, seg, unit);
    uint32_t n = owner == OWNER_NONE ? 0 : orphan_at(t, seg, unit, bad, &geo);
    if (n > 0) {
        restore_orphan(t, seg, unit, n, geo);
        return n;
    }
    if (owner == OWNER_ORPHAN ||
        (owner != OWNER_NONE && unit_entry_state(seg_entry(seg, unit)) == U_FREE)) {
        own(t, seg, unit, 1, OWNER_NONE);
        owner = OWNER_NONE;
    }
    if (owner == OWNER_NONE && unit_entry_state(seg_entry(seg, unit)) != U_FREE)
        seg_store_plain(seg, unit, 1, U_FREE, 0);
    tenant_restore_units(t, seg, unit, 1, owner);
    return 1;
}

/* No order of stores leaves an owner who is no client. Whose the units are cannot be guessed
 * then. */
static bool has_known_owner(const struct tenant *t, const struct seg *seg, uint32_t unit)
{
    tag_t owner = tenant_owner(t, seg, unit);
    return owner == OWNER_NONE || owner == OWNER_ORPHAN || t->clients.by_id[owner];
}

static int restore_units(struct tenant *t, struct seg *seg)
{
    uint32_t bad = 0; /* a table's unit */
    for (uint32_t u = seg->shape.n_meta; u < seg->shape.n_units;) {
        if (!has_known_owner(t, seg, u))
            return -EPROTO;
        u += restore_run(t, seg, u, &bad);
    }
    return 0;
}

/* A segment over several slots: one block, whose owner stands at its first unit. */
static int restore_span(struct tenant *t, struct seg *seg)
{
    uint32_t unit = seg->shape.n_meta, n = seg->span_units;
    tag_t owner = tenant_owner(t, seg, unit);
    if (n == 0 || n > seg_usable(seg) || owner == OWNER_NONE ||
        unit_entry_state(seg_entry(seg, unit)) == U_FREE) {
        t->books->segment[seg->slot].span_units = seg->span_units = 0;
        own(t, seg, unit, 1, OWNER_NONE);
        seg_store_plain(seg, unit, 1, U_FREE, 0);
        return 0;
    }
    if (!has_known_owner(t, seg, unit))
        return -EPROTO;
    if (owner == OWNER_ORPHAN)
        restore_orphan(t, seg, unit, n, 0);
    else
        tenant_restore_units(t, seg, unit, n, owner);
    return 0;
}

/* Clients look meanwhile: what they map and what is in the books is there at every moment. */
static int restore_segs(struct tenant *t, struct store_items *items)
{
    for (uint32_t slot = 0; slot < HEAP_SLOTS; slot++) {
        if (t->books->segment[slot].size_bytes == 0) {
            __atomic_store_n(&t->control->segment[slot].size_bytes, 0, __ATOMIC_RELEASE);
            continue;
        }
        struct kept kept = {KEPT_SEGMENT, t->heap_no, slot};
        int fd = kept_take(items, kept);
        int r = fd < 0 ? -EIO
                : t->books->segment[slot].retire == SEGMENT_RETIRED
                    ? segments_restore_limbo(t, slot, fd)
                    : segments_restore(t, slot, fd);
        if (r < 0) {
            if (r == -EPROTO)
                bury(t->core, kept, fd);
            else
                close_fd(&fd);
            return r;
        }
    }
    return 0;
}

/* ---- clients ---- */

static bool is_owner(const struct books *b, tag_t id)
{
    return b->client[id].state == BOOKS_CLIENT_LIVES || b->client[id].state == BOOKS_CLIENT_DIES;
}

static int restore_clients(struct tenant *t, struct store_items *items)
{
    uint32_t end = books_fresh_id(t->books);
    for (uint32_t id = 1; id < end; id++) {
        const struct books_client *what = &t->books->client[id];
        if (!is_owner(t->books, (tag_t)id))
            continue;
        t->core->next_life_no = MAX(t->core->next_life_no, what->life_no + 1);
        int fd = kept_take(items, (struct kept){KEPT_LIFE, what->life_no, 0});
        int r = fd < 0 ? -EIO : client_restore(t, (tag_t)id, fd);
        if (r < 0) {
            close_fd(&fd);
            return r;
        }
    }
    client_table_restored(t);
    return 0;
}

static void ring_clients(struct tenant *t)
{
    for (uint32_t id = 1; id < t->clients.next_fresh; id++) {
        struct client *c = t->clients.by_id[id];
        if (c && t->books->client[id].state == BOOKS_CLIENT_DIES)
            reaper_restore_dying(c);
        else if (c)
            reaper_ring(c);
    }
}

/* ---- a heap ---- */

/* Where the last segment has gone just now, none tells them anew. */
static void tell_figures(struct tenant *t)
{
    struct control_header *h = &t->control->header;
    h->sealed_bytes = t->budget.charged_bytes;
    h->granted_bytes = t->granted_units * UNIT_BYTES;
    __atomic_store_n(&h->n_slots, t->n_slots, __ATOMIC_RELEASE);
}

static void make_sweep_seq_even(struct tenant *t)
{
    uint32_t *seq = &t->control->header.sweep_seq;
    __atomic_store_n(seq, (*seq + 1) & ~1u, __ATOMIC_SEQ_CST);
}

static int restore_contents(struct tenant *t, struct store_items *items)
{
    int r = restore_clients(t, items);
    if (r == 0)
        r = restore_segs(t, items);
    for (uint32_t slot = 0; r == 0 && slot < t->n_slots; slot++)
        if (t->segs[slot] && t->segs[slot]->buddy)
            r = restore_units(t, t->segs[slot]);
        else if (t->segs[slot])
            r = restore_span(t, t->segs[slot]);
    tell_figures(t);
    make_sweep_seq_even(t);
    if (r == 0)
        retire_restored(t);
    return r;
}

static void give_up(struct tenant *t)
{
    for (uint32_t id = 1; id <= CLIENT_ID_MAX; id++)
        if (t->clients.by_id[id])
            kept_drop(t->core, (struct kept){KEPT_LIFE, t->clients.by_id[id]->life_no, 0});
    core_forget_clients(t);
    (void)tenant_close(t);
}

static int restore_books(struct core *core, struct store_items *items, struct books *books, int fd)
{
    struct tenant *t = core_find_tenant(core, books->header.tenant);
    if (t->is_open)
        return -EEXIST;
    int control_fd = kept_take(items, (struct kept){KEPT_CONTROL, books->header.heap_no, 0});
    int r = control_fd < 0 ? -EIO : tenant_open_kept(t, books, fd, control_fd);
    if (r < 0) {
        close_fd(&control_fd);
        return r;
    }
    core->next_heap_no = MAX(core->next_heap_no, t->heap_no + 1);
    r = restore_contents(t, items);
    if (r < 0 && r != -EIO && r != -EPROTO)
        return r; /* of the system: the next worker may have more luck */
    if (r < 0) {
        log_line(LOG_ERROR, "tenant %s: its heap is lost: %s", t->name, strerror(-r));
        give_up(t);
        return 0;
    }
    log_line(LOG_NOTICE, "tenant %s is back: %u clients, %u segments, %llu MiB granted", t->name,
             t->clients.n, t->n_slots, (unsigned long long)(t->granted_units * UNIT_BYTES >> 20));
    ring_clients(t);
    return 0;
}

/* A tenant that the configuration has forgotten keeps its heap, and nobody new may attach. */
static int add_forgotten(struct core *core, const struct books *books)
{
    struct tenant_wish wish = {.pages = books->header.pages};
    struct access_list nobody = {0};
    log_line(LOG_WARNING,
             "tenant %s is not in the configuration any more: its heap stays until "
             "it is dropped",
             books->header.tenant);
    int r = core_add_tenant(core, books->header.tenant, &wish, &nobody);
    if (r == 0) {
        struct tenant *t = core_find_tenant(core, books->header.tenant);
        t->is_forgotten = true;
        tenant_set_owner(t, books->header.owner_plus_1 - 1);
    }
    return r;
}

/* One that the configuration does not name: a user's own, or forgotten. */
static int add_unnamed(struct core *core, const struct books *books)
{
    const char *name = books->header.tenant;
    uid_t uid = books->header.owner_plus_1 - 1;
    if (uid != NOBODY_UID && core->own && own_fits(core->own->name, name))
        return own_add(core, name, uid);
    return add_forgotten(core, books);
}

static int restore_heap(struct core *core, struct store_items *items, struct kept kept)
{
    struct books *books;
    int fd = kept_take(items, kept);
    int r = books_open(fd, &books);
    if (r < 0) {
        log_line(LOG_ERROR, "the books of a heap are another version's: it cannot be taken over");
        close_fd(&fd);
        return r;
    }
    books->header.tenant[sizeof(books->header.tenant) - 1] = 0;
    if (books->header.heap_no != kept.no)
        r = -EIO; /* what is kept of the heap cannot be told by its name */
    if (r == 0 && !core_find_tenant(core, books->header.tenant))
        r = add_unnamed(core, books);
    if (r == 0)
        r = restore_books(core, items, books, fd);
    if (r == 0)
        return 0;
    log_line(LOG_ERROR, "the heap of tenant %s cannot be taken over: %s", books->header.tenant,
             strerror(-r));
    const struct tenant *t = core_find_tenant(core, books->header.tenant);
    if (t && t->books == books)
        return r;
    bool is_lost = r == -EIO || r == -EEXIST;
    if (is_lost)
        kept_drop(core, kept);
    books_unmap(books);
    close_fd(&fd);
    return is_lost ? 0 : r;
}

/* ---- what is left ---- */

/* Does a restored heap say that this segment is not its own? */
static bool is_unfinished(const struct core *core, struct kept kept)
{
    for (uint32_t i = 0; i < core->n_tenants; i++)
        if (core->tenants[i]->is_open && core->tenants[i]->heap_no == kept.no)
            return true;
    return false;
}

int restore_all(struct core *core, struct store_items *items)
{
    struct kept kept;
    int r = 0;
    for (uint32_t i = 0; r == 0 && i < items->n; i++)
        if (items->all[i].fd >= 0 && kept_parse(items->all[i].name, &kept) &&
            kept.kind == KEPT_BOOKS)
            r = restore_heap(core, items, kept);
    if (r < 0)
        return r;
    for (uint32_t i = 0; i < items->n; i++) {
        struct store_item *item = &items->all[i];
        if (item->fd < 0 || !kept_parse(item->name, &kept))
            continue;
        if (kept.kind == KEPT_SEGMENT && !is_unfinished(core, kept)) {
            bury(core, kept, item->fd);
            item->fd = -1;
        } else {
            kept_drop(core, kept);
        }
        if (kept.kind == KEPT_LIFE)
            core->next_life_no = MAX(core->next_life_no, kept.no + 1);
    }
    return 0;
}
