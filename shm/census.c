/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A census reads the unit table in windows and, for each slab, its owner map, all by pread into
 * private buffers: what is read once is judged and used from the copy. The table is foreign: a slab
 * or large block is an item only if its head entry makes sense (geometry exists, lies behind the
 * meta units and inside the segment, begins at or after the end of the item before). A slab's inner
 * units are not asked: a head is what the library goes by, too. Only those of a slab on its way
 * back are: its holder gives them up one by one, the daemon may take each, and another client may
 * have cut it anew while the head still says U_RELEASING.
 *
 * Tables of which nothing was written are holes in the file: SEEK_DATA skips them, so that an
 * almost empty segment of 1 GiB costs a page or two.
 */
#include "shm/census.h"

#include <string.h>

#define WINDOW_UNITS  512u /* 4 KiB of entries */
#define SLAB_TAGS_MAX ((UNIT_BYTES << SLAB_ORDER_MAX) / 16)

struct walk {
    int fd;
    const struct segment_shape *shape;
    census_fn fn;
    census_unit_fn unit_fn; /* or this */
    void *ctx;
    struct census_item item; /* the last one */
    uint64_t n_bad;
    uint32_t next;                   /* first unit that no item has taken yet */
    uint32_t releasing, n_releasing; /* the last slab on its way back */
    uint64_t entries[WINDOW_UNITS];
    tag_t tags[SLAB_TAGS_MAX];
};

/* Bytes beyond the end of the file, which its size seal rules out, would read as zero. */
static int read_at(int fd, void *buf, size_t n, uint64_t off)
{
    for (char *p = buf; n > 0;) {
        ssize_t got = pread(fd, p, n, (off_t)off);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -errno;
        if (got == 0) {
            memset(p, 0, n);
            return 0;
        }
        p += got;
        off += (uint64_t)got;
        n -= (size_t)got;
    }
    return 0;
}

/* The first unit at or after unit whose entry may be other than zero. */
static uint32_t next_written(const struct walk *w, uint32_t unit)
{
    uint64_t off = w->shape->entries_off + unit * sizeof(uint64_t);
    off_t data = lseek(w->fd, (off_t)off, SEEK_DATA);

    if (data < 0) /* ENXIO: nothing but hole up to the end; else it cannot be told */
        return errno == ENXIO ? w->shape->n_table : unit;
    uint64_t ahead = ((uint64_t)data - off) / sizeof(uint64_t);
    return (uint32_t)MIN(unit + ahead, w->shape->n_table);
}

static int emit(struct walk *w, const struct census_item *item)
{
    w->next = item->unit + item->n_units;
    if (item->state == U_RELEASING) {
        w->releasing = item->unit;
        w->n_releasing = item->n_units;
        w->next = item->unit + 1;
    }
    w->item = *item;
    return w->fn ? w->fn(w->ctx, item) : 0;
}

static int walk_slab(struct walk *w, uint32_t unit, uint64_t entry)
{
    unsigned geo = unit_entry_geo(entry);
    uint32_t n_blocks = geo_infos[geo].n_blocks, n_units = 1u << geo_infos[geo].order;

    if (n_blocks == 0 || n_units > w->shape->n_units - unit || n_units > w->shape->n_table - unit) {
        w->n_bad++;
        return 0;
    }
    struct census_item item = {.unit = unit,
                               .n_units = n_units,
                               .state = (enum unit_state)unit_entry_state(entry),
                               .geo = geo,
                               .holder = unit_entry_holder(entry),
                               .tags = w->tags,
                               .n_tags = n_blocks,
                               .tags_off = (uint64_t)unit << UNIT_SHIFT,
                               .block_bytes = geo_table[geo].size};
    int r = read_at(w->fd, w->tags, n_blocks * sizeof(tag_t), item.tags_off);
    return r < 0 ? r : emit(w, &item);
}

static int walk_large(struct walk *w, uint32_t unit, uint64_t entry)
{
    uint32_t n_units = unit_entry_large_units(entry);

    if (n_units == 0 || n_units > w->shape->n_units - unit) {
        w->n_bad++;
        return 0;
    }
    struct census_item item = {.unit = unit,
                               .n_units = n_units,
                               .state = U_LARGE,
                               .holder = holder_token(unit_entry_large_holder(entry), 0),
                               .tags = w->tags,
                               .n_tags = 1,
                               .tags_off = w->shape->tags_off + unit * sizeof(tag_t),
                               .block_bytes = (uint64_t)n_units << UNIT_SHIFT};
    int r = read_at(w->fd, w->tags, sizeof(tag_t), item.tags_off);
    return r < 0 ? r : emit(w, &item);
}

static bool is_being_released(const struct walk *w, uint32_t unit, uint64_t entry)
{
    return unit - w->releasing < w->n_releasing && unit_entry_back(entry) == unit - w->releasing;
}

static int walk_unit(struct walk *w, uint32_t unit, uint64_t entry)
{
    switch (unit_entry_state(entry)) {
    case U_FREE:
    case U_UNCUT:
    case U_CUT:
        return 0;
    case U_RELEASING:
        if (unit_entry_geo(entry) == 0) /* empty, and its size no longer told */
            return 0;
        return walk_slab(w, unit, entry);
    case U_SLAB:
    case U_PARKED:
        if (unit_entry_back(entry) == 0)
            return walk_slab(w, unit, entry);
        w->n_bad += !is_being_released(w, unit, entry); /* inside of a slab without its head */
        return 0;
    case U_LARGE:
        return (unit_entry_geo(entry) & LARGE_KEPT) && w->fn ? 0 : walk_large(w, unit, entry);
    default:
        w->n_bad++;
        return 0;
    }
}

static bool is_head(uint64_t entry)
{
    unsigned state = unit_entry_state(entry);
    return state == U_LARGE ||
           ((state == U_SLAB || state == U_PARKED) && unit_entry_back(entry) == 0);
}

static const struct census_item *item_of(const struct walk *w, uint32_t unit)
{
    return unit < w->next && unit - w->item.unit < w->item.n_units ? &w->item : NULL;
}

static int walk_window(struct walk *w, uint32_t unit, uint32_t n)
{
    int r = read_at(w->fd, w->entries, n * sizeof(uint64_t),
                    w->shape->entries_off + unit * sizeof(uint64_t));

    for (uint32_t i = 0; r == 0 && i < n; i++) {
        if (unit + i >= w->next)
            r = walk_unit(w, unit + i, w->entries[i]);
        else if (is_head(w->entries[i])) /* two items overlap: the first one counts */
            w->n_bad++;
        if (r == 0 && w->unit_fn)
            r = w->unit_fn(w->ctx, unit + i, w->entries[i], item_of(w, unit + i));
    }
    return r;
}

int census_walk_units(int fd, const struct segment_shape *shape, uint32_t from, uint32_t to,
                      census_unit_fn fn, void *ctx)
{
    struct walk w = {.fd = fd, .shape = shape, .unit_fn = fn, .ctx = ctx, .next = from};
    int r = 0;

    sizeclass_init();
    acre_assert(from <= to && to <= shape->n_table);
    for (uint32_t unit = from, n; r == 0 && unit < to; unit += n) {
        n = MIN(WINDOW_UNITS - unit % WINDOW_UNITS, to - unit);
        r = walk_window(&w, unit, n);
    }
    return r;
}

int census_walk(int fd, const struct segment_shape *shape, census_fn fn, void *ctx,
                uint64_t *ret_n_bad)
{
    struct walk w = {.fd = fd, .shape = shape, .fn = fn, .ctx = ctx, .next = shape->n_meta};
    int r = 0;

    sizeclass_init();
    for (uint32_t unit = shape->n_meta; r == 0; unit += WINDOW_UNITS - unit % WINDOW_UNITS) {
        unit = next_written(&w, unit);
        if (unit >= shape->n_table)
            break;
        r = walk_window(&w, unit, MIN(WINDOW_UNITS - unit % WINDOW_UNITS, shape->n_table - unit));
    }
    if (ret_n_bad)
        *ret_n_bad = w.n_bad;
    return r;
}

/* ---- sums ---- */

int census_init(struct census *census)
{
    *census = (struct census){.by_id = calloc(CLIENT_IDS, sizeof(*census->by_id))};
    return census->by_id ? 0 : -ENOMEM;
}

void census_deinit(struct census *census)
{
    free(census->by_id);
    census->by_id = NULL;
}

static uint32_t count_live(struct census *census, const struct census_item *item)
{
    uint32_t n_live = 0;

    for (uint32_t i = 0; i < item->n_tags; i++) {
        if (item->tags[i] == TAG_FREE)
            continue;
        census->by_id[item->tags[i]].live_blocks++;
        census->by_id[item->tags[i]].live_bytes += item->block_bytes;
        n_live++;
    }
    census->live_blocks += n_live;
    census->live_bytes += n_live * item->block_bytes;
    return n_live;
}

void census_add_item(struct census *census, const struct census_item *item)
{
    uint32_t n_live = count_live(census, item);

    if (item->state == U_LARGE) {
        census->large_blocks += n_live;
        census->large_bytes += n_live * item->block_bytes;
        return;
    }
    struct census_class *class = &census->classes[geo_infos[item->geo].class_idx];
    class->slabs++;
    class->live_blocks += n_live;
    class->free_blocks += item->n_tags - n_live;
}

static int add_item(void *ctx, const struct census_item *item)
{
    census_add_item(ctx, item);
    return 0;
}

int census_add_segment(struct census *census, int fd, const struct segment_shape *shape)
{
    uint64_t n_bad;
    int r = census_walk(fd, shape, add_item, census, &n_bad);

    census->n_bad += n_bad;
    return r;
}
