/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Check, theory. What may an entry say, given what the books say of its unit at the same moment?
 * Clients run, stop and die between any two stores: right is every state that a store leaves.
 *
 *   nobody's   0. The daemon alone writes there, the entry before the books.
 *   orphan     U_PARKED of nobody; U_LARGE of holder 0, behind it U_CUT of 0. The daemon's, too.
 *   client's   U_UNCUT, U_CUT: word for word, its id. U_SLAB, U_RELEASING: its id, a cache, a
 *              geometry that fits. U_PARKED: its id, no cache. U_LARGE: its id.
 * Of a client's slab the head is written last when it comes and first when it goes. Behind a head
 *   U_SLAB       all are U_SLAB of that geometry and client, perhaps still of another cache, or
 *                U_PARKED: a parked slab is claimed at its head
 *   U_PARKED     the same
 *   U_RELEASING  may be anything: the units go one by one, and another may have them already
 *   U_LARGE      all are U_CUT, whether it is kept or not
 *   and what is U_SLAB has such a head, or one that is still U_CUT.
 * (Not of a dying client: the daemon takes that apart run by run.) Tags, unless their slab is on
 * its way back or their large block kept, are 0, the heap's, or of a client that lives or is dying.
 *
 * NO FALSE ALARM. The caller takes records, then the segment, then asks whether the books stood
 * still: so one word that disagrees is wrong. Two words, or a tag and its head, can be torn by who
 * took both apart and put the first back between two reads: they count only if they are the same,
 * byte for byte, at many looks (tools/acrectl/verify.c). One exception: a giver that rests before
 * its store until the receiver is reaped, and is killed before it looks again, leaves a tag of
 * nobody. That is said, and rightly: the block is lost until the id is used again.
 *
 * NOT SEEN: a tag of the wrong living client, hints, contents, roots, units cut and used for
 * nothing; what was put right before it was looked at again; how two bad tags of a slab differ.
 *
 * COST. A pread for 512 units, one for each slab's map; nothing is mapped, no hole is filled.
 */
#include "shm/check.h"

#define SLAB_UNITS_MAX (1u << SLAB_ORDER_MAX)

struct check {
    const struct check_table *table;
    check_fn fn;
    void *ctx;
    uint64_t head;                 /* entry of the last item's head */
    uint64_t seen[SLAB_UNITS_MAX]; /* the last entries, by unit */
};

/* ---- one word ---- */

static bool has_cache(enum unit_state state)
{
    return state != U_PARKED;
}

static enum check_kind judge_slab(const struct segment_shape *s, uint32_t unit, uint64_t e,
                                  tag_t id)
{
    enum unit_state state = (enum unit_state)unit_entry_state(e);
    unsigned geo = unit_entry_geo(e), back = unit_entry_back(e);
    uint32_t holder = unit_entry_holder(e), n = 1u << geo_infos[geo].order;

    if (holder_client(holder) != id)
        return CHECK_HOLDER;
    if ((holder_cache(holder) != 0) != has_cache(state) ||
        e != unit_entry_slab(state, geo, back, holder))
        return CHECK_BITS;
    if (state == U_RELEASING && geo == 0)
        return back == 0 ? CHECK_WELL : CHECK_SLAB;
    if (geo_infos[geo].n_blocks == 0 || back >= n || (state == U_RELEASING && back != 0) ||
        unit < s->n_meta + back || (unit - back) % n != 0 || n > s->n_table - (unit - back))
        return CHECK_SLAB;
    return CHECK_WELL;
}

static enum check_kind judge_plain(uint64_t e, tag_t id)
{
    enum unit_state state = (enum unit_state)unit_entry_state(e);

    if (e == unit_entry_plain(state, holder_token(id, 0)))
        return CHECK_WELL;
    return holder_client(unit_entry_holder(e)) != id ? CHECK_HOLDER : CHECK_BITS;
}

static enum check_kind judge_large(const struct check_table *t, uint32_t unit, uint64_t e, tag_t id)
{
    const struct segment_shape *s = t->shape;
    uint32_t n = unit_entry_large_units(e);
    uint64_t kept = id != 0 ? e & LARGE_KEPT : 0; /* nobody keeps an orphan */
    uint64_t soft = kept == 0 && (e & LARGE_SOFT) ? e & (LARGE_SOFT | LARGE_TAKING) : 0;

    if (unit_entry_large_holder(e) != id)
        return CHECK_HOLDER;
    if (e != (unit_entry_large(n, id) | kept | soft))
        return CHECK_BITS;
    if (s->n_table < s->n_units)
        return n == t->span_units ? CHECK_WELL : CHECK_LARGE;
    return n > 0 && n <= s->n_units - unit ? CHECK_WELL : CHECK_LARGE;
}

static enum check_kind judge_clients(const struct check_table *t, uint32_t unit, uint64_t e,
                                     tag_t id)
{
    switch (unit_entry_state(e)) {
    case U_UNCUT:
    case U_CUT:
        return judge_plain(e, id);
    case U_SLAB:
    case U_PARKED:
    case U_RELEASING:
        return judge_slab(t->shape, unit, e, id);
    case U_LARGE:
        return judge_large(t, unit, e, id);
    default:
        return CHECK_STATE;
    }
}

static enum check_kind judge_orphans(const struct check_table *t, uint32_t unit, uint64_t e)
{
    switch (unit_entry_state(e)) {
    case U_CUT:
        return judge_plain(e, 0);
    case U_PARKED:
        return judge_slab(t->shape, unit, e, holder_client(HOLDER_NOBODY));
    case U_LARGE:
        return judge_large(t, unit, e, 0);
    default:
        return CHECK_STATE;
    }
}

static enum check_kind judge_word(const struct check_table *t, uint32_t unit, uint64_t e,
                                  struct check_record r)
{
    if (r.place == CHECK_META)
        return e == unit_entry_plain(U_META, 0) ? CHECK_WELL : CHECK_TABLES;
    if (r.owner == 0)
        return e == unit_entry_plain(U_FREE, 0) ? CHECK_WELL : CHECK_NOBODY;
    return r.owner == TAG_HEAP ? judge_orphans(t, unit, e) : judge_clients(t, unit, e, r.owner);
}

static enum check_kind judge_record(const struct check_table *t, struct check_record r)
{
    if (r.owner == 0)
        return r.place == CHECK_GRANTED ? CHECK_LOST : CHECK_WELL;
    if (r.place != CHECK_GRANTED)
        return CHECK_TWICE;
    return r.owner == TAG_HEAP || t->is_client[r.owner] ? CHECK_WELL : CHECK_STRANGER;
}

/* ---- among each other; each word is right by itself ---- */

static bool is_alike(const struct census_item *item, uint32_t unit, uint64_t e)
{
    unsigned state = unit_entry_state(e);

    if (unit_entry_geo(e) != item->geo || unit_entry_back(e) != unit - item->unit ||
        holder_client(unit_entry_holder(e)) != holder_client(item->holder))
        return false;
    return state == U_SLAB || state == U_PARKED;
}

static enum check_kind judge_inside(const struct census_item *item, uint32_t unit, uint64_t e)
{
    bool fits = item->state == U_LARGE
                    ? unit_entry_state(e) == U_CUT &&
                          holder_client(unit_entry_holder(e)) == holder_client(item->holder)
                    : is_alike(item, unit, e);
    return fits ? CHECK_WELL : CHECK_INNER;
}

/* An entry inside of a slab without a head before it that is one. */
static enum check_kind judge_headless(const struct check *c, uint32_t unit, uint64_t e)
{
    uint32_t back = unit_entry_back(e);
    uint64_t head = c->seen[(unit - back) % SLAB_UNITS_MAX];
    tag_t id = holder_client(unit_entry_holder(e));

    if (unit_entry_state(e) != U_SLAB || back > unit - c->table->from)
        return CHECK_HEAD;
    if (head == unit_entry_plain(U_CUT, holder_token(id, 0)))
        return CHECK_WELL;
    return unit_entry_state(head) == U_RELEASING && holder_client(unit_entry_holder(head)) == id
               ? CHECK_WELL
               : CHECK_HEAD;
}

static bool is_orphans_cut(uint64_t e, struct check_record r)
{
    return r.owner == TAG_HEAP && unit_entry_state(e) == U_CUT;
}

static enum check_kind judge_place(const struct check *c, uint32_t unit, uint64_t e,
                                   struct check_record r, const struct census_item *item)
{
    unsigned state = unit_entry_state(e);

    if (c->table->is_client[r.owner] == CHECK_DYING)
        return CHECK_WELL; /* being taken apart */
    if (item)
        return unit == item->unit ? CHECK_WELL : judge_inside(item, unit, e);
    if (state == U_SLAB || state == U_PARKED)
        return judge_headless(c, unit, e);
    return is_orphans_cut(e, r) ? CHECK_HEAD : CHECK_WELL;
}

/* ---- findings ---- */

/* Slabs lie within SLAB_UNITS_MAX aligned units: so no scope begins inside of one, whatever is
 * there by the time of the next look. */
static void set_scope(const struct check *c, struct check_finding *f,
                      const struct census_item *item)
{
    uint32_t first = item ? item->unit : f->unit, end = first + (item ? item->n_units : 1);

    f->from = first & ~(SLAB_UNITS_MAX - 1);
    f->to = MIN(end, c->table->shape->n_table);
    if (item)
        f->head = c->head;
    else if (f->kind == CHECK_HEAD && is_orphans_cut(f->entry, f->record))
        f->from = 0; /* anywhere may be the block that it belongs to */
    else if (f->kind == CHECK_HEAD)
        f->head = c->seen[(f->unit - unit_entry_back(f->entry)) % SLAB_UNITS_MAX];
}

static int find(const struct check *c, enum check_kind kind, uint32_t unit, uint64_t entry,
                struct check_record r, const struct census_item *item)
{
    struct check_finding f = {.kind = kind, .slot = c->table->slot, .unit = unit, .entry = entry};

    f.record = r;
    f.id = r.owner;
    set_scope(c, &f, kind == CHECK_INNER ? item : NULL);
    return c->fn(c->ctx, &f);
}

static int check_tags(const struct check *c, uint64_t entry, struct check_record r,
                      const struct census_item *item)
{
    struct check_finding f = {.kind = CHECK_TAG, .slot = c->table->slot, .unit = item->unit};

    if (item->state == U_RELEASING ||
        (item->state == U_LARGE && unit_entry_geo(entry) & LARGE_KEPT))
        return 0;
    for (uint32_t i = 0; i < item->n_tags; i++) {
        tag_t tag = item->tags[i];
        if (tag == TAG_FREE || tag == TAG_HEAP || c->table->is_client[tag])
            continue;
        if (f.n_bad++ == 0) {
            f.idx = i;
            f.id = tag;
        }
    }
    f.entry = entry;
    f.record = r;
    set_scope(c, &f, item);
    return f.n_bad > 0 ? c->fn(c->ctx, &f) : 0;
}

static int check_unit(void *ctx, uint32_t unit, uint64_t entry, const struct census_item *item)
{
    struct check *c = ctx;
    const struct check_table *t = c->table;
    struct check_record r = t->records[unit - t->from];

    c->seen[unit % SLAB_UNITS_MAX] = entry;
    if (item && item->unit == unit)
        c->head = entry;
    enum check_kind kind = judge_record(t, r);
    if (kind == CHECK_WELL)
        kind = judge_word(t, unit, entry, r);
    if (kind == CHECK_WELL)
        kind = judge_place(c, unit, entry, r, item);
    if (kind != CHECK_WELL)
        return find(c, kind, unit, entry, r, item);
    return item && item->unit == unit ? check_tags(c, entry, r, item) : 0;
}

int check_table(const struct check_table *table, check_fn fn, void *ctx)
{
    struct check c = {.table = table, .fn = fn, .ctx = ctx};

    return census_walk_units(table->fd, table->shape, table->from, table->to, check_unit, &c);
}

/* ---- figures ---- */

struct figures {
    check_fn fn;
    void *ctx;
    uint32_t slot;
    tag_t id;
    int r;
};

static void compare(struct figures *f, enum check_kind kind, bool agrees, uint64_t seen,
                    uint64_t said)
{
    struct check_finding finding = {
        .kind = kind, .slot = f->slot, .id = f->id, .seen = seen, .said = said};

    if (!agrees && f->r == 0)
        f->r = f->fn(f->ctx, &finding);
}

int check_segment(const struct check_segment *s, check_fn fn, void *ctx)
{
    struct figures f = {.fn = fn, .ctx = ctx, .slot = s->slot};
    struct check_finding header = {.kind = CHECK_HEADER, .slot = s->slot, .why = s->header_why};
    /* A huge page may stick out behind the end. */
    uint64_t most = round_up_u64(s->file_bytes, HUGE_UNITS * UNIT_BYTES);

    if (s->header_why)
        f.r = fn(ctx, &header);
    compare(&f, CHECK_FILE_BYTES, s->file_bytes == s->daemon_bytes, s->file_bytes, s->daemon_bytes);
    compare(&f, CHECK_CONTROL_SEGMENT, s->file_bytes == s->control_bytes, s->file_bytes,
            s->control_bytes);
    compare(&f, CHECK_RESIDENT, s->resident_bytes <= most, s->resident_bytes, s->file_bytes);
    compare(&f, CHECK_N_FREE, s->counted_free == s->said_free, s->counted_free, s->said_free);
    return f.r;
}

int check_sums(const struct check_sums *s, check_fn fn, void *ctx)
{
    struct figures f = {.fn = fn, .ctx = ctx};

    for (uint32_t id = 1; id <= CLIENT_ID_MAX; id++) {
        const struct check_client *c = &s->clients[id];
        f.id = (tag_t)id;
        compare(&f, CHECK_CLIENT_UNITS, c->counted_units == c->said_units, c->counted_units,
                c->said_units);
        compare(&f, CHECK_CLIENT_BYTES, c->control_bytes == c->said_units * UNIT_BYTES,
                c->control_bytes, c->said_units * UNIT_BYTES);
        compare(&f, CHECK_GENERATION, c->control_gen == c->said_gen, c->control_gen, c->said_gen);
    }
    f.id = 0;
    compare(&f, CHECK_GRANTED_UNITS, s->counted_units == s->said_units, s->counted_units,
            s->said_units);
    compare(&f, CHECK_GRANTED_BYTES, s->control_granted_bytes == s->said_units * UNIT_BYTES,
            s->control_granted_bytes, s->said_units * UNIT_BYTES);
    compare(&f, CHECK_CHARGED, s->file_bytes == s->charged_bytes, s->file_bytes, s->charged_bytes);
    compare(&f, CHECK_SEALED, s->control_sealed_bytes == s->charged_bytes, s->control_sealed_bytes,
            s->charged_bytes);
    return f.r;
}
