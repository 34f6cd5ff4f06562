/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Map, theory.
 *
 * MODEL. Two say what a unit is. The daemon's books (picture.h) say whose it is, or that it is
 * free; they are right whatever a client scribbles. What a client has made of its units stands in
 * the segment's unit table and owner maps alone, which the census reads by pread: nobody is
 * stopped, nothing is mapped, no punched hole is filled. A run is a slab, a large block, or what is
 * alike in a row; the runs of a segment are its units, without a gap and without overlap:
 *
 *     sum of bytes[kind] = all segments
 *     bytes[slab] = live blocks + free blocks + overhead (owner map, padding, the rest at the end)
 *     live bytes = those in slabs + large blocks: the same that acrectl stats counts
 *
 * FREE SPANS. The daemon's buddy allocator writes a set of free units in one way only
 * (shm/buddy.c), so that its spans are known from the set. A segment over several slots holds one
 * block or none: it has no spans.
 *
 * NOT KNOWN, and not told: how many bytes of a block its user asked for. A slab's blocks are as
 * large as their class, a large block is whole units, and nobody writes down why.
 *
 * BLUR. Books, table and maps are read one after the other, while clients go on. A unit that the
 * books have granted is unclear if its entry is none of a client's, or says that it lies in a slab
 * or block which another's units part from it: that has just changed, or is damaged. The whole is
 * taken again, up to TRIES times, while there are such; what is damaged stays so, and `check` says
 * how. A slab's figures are those of the moment in which its map was read.
 *
 * COST. That of picture_take() and a census: a round trip for 512 runs of the books, 4 KiB for 512
 * units, each slab's map once; in memory 24 bytes a run and 4 a unit.
 */
#include "map.h"

#include <string.h>
#include <time.h>

#include "picture.h"
#include "shm/census.h"

#define TRIES    4u
#define PAUSE_NS 3000000L
#define SHARE    1024u /* so that a part of a slab keeps some of its blocks */

static_assert(sizeof(struct map_run) == 24, "there may be one for each unit");

struct taking {
    struct map *map;
    const struct picture_segment *segment;
    uint64_t head; /* entry of the last item's */
};

/* ---- runs ---- */

static struct map_run *add_run(struct map *map, struct map_run run)
{
    if (is_pow2_u64(map->n_runs) || map->n_runs == 0) {
        size_t room = MAX(2 * map->n_runs, 1u);
        struct map_run *more = reallocarray(map->runs, room, sizeof(*more));
        if (!more)
            return NULL;
        map->runs = more;
    }
    map->runs[map->n_runs] = run;
    return &map->runs[map->n_runs++];
}

static enum map_kind kind_of(const struct taking *t, struct check_record record, uint64_t entry,
                             const struct census_item *item)
{
    if (record.place == CHECK_META)
        return MAP_TABLES;
    if (record.owner == 0)
        return MAP_FREE;
    if (item && item->state == U_LARGE)
        return unit_entry_geo(t->head) & LARGE_KEPT ? MAP_KEPT : MAP_LARGE;
    if (item && item->state != U_RELEASING)
        return MAP_SLAB;
    switch (unit_entry_state(entry)) {
    case U_UNCUT:
        return MAP_RESERVE;
    case U_CUT:
    case U_RELEASING:
    case U_SLAB: /* its head is not there yet, or not any more */
    case U_PARKED:
        return MAP_CUT;
    default:
        return MAP_UNCLEAR;
    }
}

static bool has_blocks(enum map_kind kind)
{
    return kind == MAP_SLAB || kind == MAP_LARGE;
}

static void count_blocks(struct map_run *run, const struct census_item *item)
{
    bool has_several = false;

    run->n_blocks = (uint16_t)item->n_tags;
    for (uint32_t i = 0; i < item->n_tags; i++) {
        tag_t tag = item->tags[i];
        if (tag == TAG_FREE)
            continue;
        has_several |= run->n_live++ > 0 && run->owner != tag;
        run->owner = tag;
        run->n_published += tag == TAG_HEAP;
        run->n_lent += tag != TAG_HEAP && tag != run->holder;
    }
    if (has_several)
        run->owner = 0;
}

static bool is_one(const struct map_run *run)
{
    return run->kind == MAP_SLAB || run->kind == MAP_LARGE || run->kind == MAP_KEPT;
}

static bool goes_on(const struct map_run *last, const struct map_run *run)
{
    return last->kind == run->kind && last->holder == run->holder &&
           last->unit + last->n_units == run->unit;
}

/* item: in which it lies. */
static int put(const struct taking *t, struct map_run run, const struct census_item *item)
{
    struct map *map = t->map;
    struct map_segment *s = &map->segments[map->n_segments - 1];
    struct map_run *last = s->n_runs > 0 ? &map->runs[map->n_runs - 1] : NULL;
    bool is_inside = is_one(&run) && run.unit != item->unit;

    if (is_inside && !goes_on(last, &run)) /* behind what is another one's */
        run = (struct map_run){
            .unit = run.unit, .n_units = run.n_units, .kind = MAP_UNCLEAR, .holder = run.holder};
    if (last && goes_on(last, &run) && (is_inside || !is_one(&run))) {
        last->n_units += run.n_units;
        return 0;
    }
    last = add_run(map, run);
    s->n_runs += last != NULL;
    if (last && has_blocks(run.kind))
        count_blocks(last, item);
    return last ? 0 : -ENOMEM;
}

/* Its table ends with the head of its one block. */
static uint32_t units_behind(const struct picture_segment *s, uint32_t unit, enum map_kind kind)
{
    uint32_t n = s->shape.n_units - s->shape.n_meta;

    if (s->shape.n_table == s->shape.n_units || unit < s->shape.n_meta)
        return 1;
    return kind == MAP_FREE ? n : MIN(MAX(s->span_units, 1u), n);
}

static int see_unit(void *ctx, uint32_t unit, uint64_t entry, const struct census_item *item)
{
    struct taking *t = ctx;
    struct check_record record = t->segment->records[unit];

    if (item && item->unit == unit)
        t->head = entry;
    struct map_run run = {.unit = unit, .holder = record.owner};
    run.kind = (uint8_t)kind_of(t, record, entry, item);
    run.n_units = units_behind(t->segment, unit, run.kind);
    if (run.kind == MAP_SLAB) {
        run.class_idx = geo_infos[item->geo].class_idx;
        run.order = geo_infos[item->geo].order;
    }
    return put(t, run, item);
}

static int see_segment(struct map *map, const struct picture_segment *from)
{
    struct taking t = {.map = map, .segment = from};
    struct map_segment *s = &map->segments[map->n_segments++];

    *s = (struct map_segment){
        .slot = from->slot, .n_units = from->shape.n_units, .first_run = map->n_runs};
    int r = census_walk_units(from->fd, &from->shape, 0, from->shape.n_table, see_unit, &t);
    if (r < 0)
        return r;
    const struct map_run *last = &map->runs[map->n_runs - 1];
    uint32_t end =
        last->unit + last->n_units; /* of one over several slots: what its block leaves */
    struct map_run rest = {.unit = end, .n_units = s->n_units - end, .kind = MAP_FREE};
    return rest.n_units > 0 ? put(&t, rest, NULL) : 0;
}

/* ---- figures ---- */

/* As few aligned powers of two as there are. */
static void add_spans(struct map_figures *f, uint32_t unit, uint32_t n)
{
    while (n > 0) {
        unsigned order = 31u - (unsigned)__builtin_clz(n);
        order = MIN(order, (unsigned)__builtin_ctz(unit | 1u << BUDDY_ORDER_MAX));
        f->free_spans[order]++;
        unit += 1u << order;
        n -= 1u << order;
    }
}

static void add_free(struct map_figures *f, const struct map_segment *s, const struct map_run *run)
{
    bool is_span = s->n_units > SLOT_UNITS;

    if (is_span && run->unit != SEGMENT_SPAN_META) /* behind its block: nobody ever gets that */
        return;
    f->n_free_runs++;
    f->longest_free_bytes = MAX(f->longest_free_bytes, run->n_units * UNIT_BYTES);
    if (!is_span)
        add_spans(f, run->unit, run->n_units);
}

static void add_slab(struct map_figures *f, const struct map_run *run)
{
    uint64_t block_bytes = class_bytes[run->class_idx], bytes = UNIT_BYTES << run->order;

    f->n_slabs++;
    f->free_block_bytes += (uint64_t)(run->n_blocks - run->n_live) * block_bytes;
    f->overhead_bytes += bytes - run->n_blocks * block_bytes;
    if (4u * run->n_live >= run->n_blocks)
        return;
    f->n_sparse++;
    f->sparse_bytes += bytes;
    f->sparse_live_bytes += map_live_bytes(run);
}

static void add_figures(struct map_figures *f, const struct map_segment *s,
                        const struct map_run *run)
{
    f->bytes[run->kind] += run->n_units * UNIT_BYTES;
    if (run->kind == MAP_FREE)
        add_free(f, s, run);
    if (run->kind == MAP_SLAB && run->n_blocks > 0)
        add_slab(f, run);
    f->n_large += run->kind == MAP_LARGE;
    f->live_blocks += run->n_live;
    f->live_bytes += map_live_bytes(run);
    if (run->n_live > 0)
        f->published_bytes += map_live_bytes(run) / run->n_live * run->n_published;
}

static void sum_up(struct map *map)
{
    map->figures = (struct map_figures){.n_slabs = 0};
    for (size_t i = 0; i < map->n_segments; i++) {
        const struct map_segment *s = &map->segments[i];
        for (size_t k = 0; k < s->n_runs; k++)
            add_figures(&map->figures, s, &map->runs[s->first_run + k]);
    }
}

/* ---- clients ---- */

static int add_client(struct map *map, const struct picture *p, tag_t id)
{
    size_t room = MAX(2 * map->n_clients, 1u);
    off_t off = (off_t)(offsetof(struct control, client) + id * sizeof(struct control_client));
    struct control_client c = {0};
    struct map_client *more = map->clients;

    if (is_pow2_u64(map->n_clients) || map->n_clients == 0)
        more = reallocarray(map->clients, room, sizeof(*more));
    if (!more)
        return -ENOMEM;
    map->clients = more;
    map->rank[id] = (uint32_t)++map->n_clients;
    more += map->n_clients - 1;
    *more = (struct map_client){.id = id};
    if (pread(p->control_fd, &c, sizeof(c), off) == (ssize_t)sizeof(c) && c.gen != 0) {
        more->pid = c.pid;
        memcpy(more->name, c.name, sizeof(more->name) - 1);
    }
    return 0;
}

static int by_units(const void *a, const void *b)
{
    const struct map_client *x = a, *y = b;
    if (x->n_units != y->n_units)
        return x->n_units < y->n_units ? 1 : -1;
    return (x->id > y->id) - (x->id < y->id);
}

static int take_clients(struct map *map, const struct picture *p)
{
    for (size_t i = 0; i < map->n_runs; i++) {
        const struct map_run *run = &map->runs[i];
        if (run->holder == 0 || run->holder == TAG_HEAP)
            continue;
        if (map->rank[run->holder] == 0 && add_client(map, p, run->holder) < 0)
            return -ENOMEM;
        struct map_client *c = &map->clients[map->rank[run->holder] - 1];
        c->n_units += run->n_units;
        c->n_slabs += run->kind == MAP_SLAB;
        c->n_large += run->kind == MAP_LARGE;
        c->live_bytes += map_live_bytes(run);
    }
    if (map->n_clients > 0)
        qsort(map->clients, map->n_clients, sizeof(*map->clients), by_units);
    for (size_t i = 0; i < map->n_clients; i++)
        map->rank[map->clients[i].id] = (uint32_t)i + 1;
    return 0;
}

/* ---- taking ---- */

static int take_once(struct map *map, struct picture *p)
{
    int r = picture_take(p, &map->is_still);

    map->n_runs = map->n_segments = 0;
    for (uint32_t i = 0; r == 0 && i < p->n_segments; i++) {
        if (p->segments[i].is_gone)
            continue;
        r = see_segment(map, &p->segments[i]);
        if (r < 0)
            r = peer_fail(p->peer, r, "segment %u cannot be read", p->segments[i].slot);
    }
    sum_up(map);
    return r;
}

static int take(struct map *map, struct peer *peer, const char *tenant)
{
    const struct timespec pause = {.tv_nsec = PAUSE_NS};
    struct picture picture;
    int r = picture_open(&picture, peer, tenant);

    for (unsigned i = 0; r == 0 && i < TRIES; i++) {
        if (i > 0)
            (void)nanosleep(&pause, NULL);
        r = take_once(map, &picture);
        if (map->figures.bytes[MAP_UNCLEAR] == 0)
            break;
    }
    if (r == 0 && take_clients(map, &picture) < 0)
        r = peer_fail(peer, -ENOMEM, "out of memory");
    picture_close(&picture);
    return r;
}

int map_take(struct map **ret_map, struct peer *peer, const char *tenant)
{
    struct map *map = calloc(1, sizeof(*map));

    if (!map)
        return peer_fail(peer, -ENOMEM, "out of memory");
    if (strlen(tenant) >= sizeof(map->name)) {
        free(map);
        return peer_fail(peer, -ENOENT, "there is no tenant \"%s\"", tenant);
    }
    strcpy(map->name, tenant);
    int r = take(map, peer, tenant);
    if (r < 0)
        map_free(map);
    else
        *ret_map = map;
    return r;
}

void map_free(struct map *map)
{
    if (!map)
        return;
    free(map->runs);
    free(map->clients);
    free(map);
}

/* ---- asking ---- */

const char *map_kind_name(enum map_kind kind)
{
    static const char *const names[MAP_KINDS] = {"tables", "free",  "reserve", "cut",
                                                 "slab",   "large", "kept",    "unclear"};
    return names[kind];
}

uint64_t map_live_bytes(const struct map_run *run)
{
    if (run->kind == MAP_LARGE)
        return run->n_live * run->n_units * UNIT_BYTES;
    return run->n_live * (uint64_t)class_bytes[run->class_idx];
}

uint64_t map_bytes(const struct map *map)
{
    uint64_t sum = 0;

    for (unsigned k = 0; k < MAP_KINDS; k++)
        sum += map->figures.bytes[k];
    return sum;
}

/* ---- cells ---- */

static uint32_t fill_of(uint64_t n_live, uint64_t n_blocks)
{
    return n_live == 0 ? 0 : (uint32_t)MAX(1000 * n_live / n_blocks, 1u);
}

struct map_cell map_cell(const struct map *map, const struct map_segment *s, uint32_t unit,
                         uint32_t n, size_t *at)
{
    uint32_t units[MAP_KINDS] = {0}, most[MAP_KINDS] = {0}, end = MIN(unit + n, s->n_units);
    const struct map_run *of[MAP_KINDS] = {0};
    uint64_t n_live = 0, n_blocks = 0;
    unsigned best = MAP_TABLES;

    for (size_t i = *at; i < s->n_runs; i++) {
        const struct map_run *run = &map->runs[s->first_run + i];
        if (run->unit >= end)
            break;
        *at = i;
        uint32_t from = MAX(run->unit, unit), to = MIN(run->unit + run->n_units, end);
        if (from >= to)
            continue;
        units[run->kind] += to - from;
        if (to - from > most[run->kind]) {
            most[run->kind] = to - from;
            of[run->kind] = run;
        }
        if (run->kind != MAP_SLAB)
            continue;
        n_live += (uint64_t)run->n_live * SHARE * (to - from) / run->n_units;
        n_blocks += (uint64_t)run->n_blocks * SHARE * (to - from) / run->n_units;
    }
    for (unsigned k = 0; k < MAP_KINDS; k++)
        if (units[k] >= units[best])
            best = k;
    acre_assert(of[best]);
    return (struct map_cell){
        .run = of[best], .begins = of[best]->unit >= unit, .fill = fill_of(n_live, n_blocks)};
}

static uint64_t n_rows(const struct map *map, uint64_t row_units)
{
    uint64_t n = 0;

    for (size_t i = 0; i < map->n_segments; i++)
        n += (map->segments[i].n_units + row_units - 1) / row_units;
    return n;
}

uint32_t map_cell_units(const struct map *map, uint32_t row_cells, uint32_t n_rows_max)
{
    uint32_t units = 1;

    while (units < SLOT_UNITS && n_rows(map, (uint64_t)units * row_cells) > n_rows_max)
        units *= 2;
    return units;
}
