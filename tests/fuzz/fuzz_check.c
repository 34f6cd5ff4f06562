/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a segment, and any records of it, for what `acrectl check` and a census go by
 * (shm/check.c, shm/census.c, shm/segment.c).
 *
 *   units                  a byte: 8 to 127 in all; from 128 on a segment over several slots
 *   how                    a byte, by bits: 1 the header is the input's; 2 the file ends early; 4,
 *                          8: looks at a part only; 16: clients with even ids are dying
 *   12 bytes for a unit    its owner (a byte), its place, its entry (8), its tag (2)
 *   the rest               lies at the start of the units, in turn: owner maps
 *
 * Right whatever that is: bounded work (preads are counted), nothing read outside (buffers are as
 * small as can be), findings that lie in the segment, the same ones at the second look; and what
 * the first look finds is not all gone when each finding's scope is looked at alone, as acrectl
 * does.
 */
#include <fcntl.h>
#include <string.h>

#include "shm/check.h"
#include "tests/fuzz/fuzz.h"

#define FINDINGS_MAX 4096u
#define UNIT_INPUT   12u

struct findings {
    uint32_t n;
    struct check_finding at[FINDINGS_MAX];
};

struct input {
    const uint8_t *at, *end;
};

static struct findings all, again, alone;

static uint64_t take(struct input *in, unsigned n)
{
    uint64_t value = 0;
    n = (unsigned)MIN(n, (size_t)(in->end - in->at));
    memcpy(&value, in->at, n);
    in->at += n;
    return value;
}

/* ---- the segment ---- */

static void write_at(int fd, const void *bytes, size_t n, uint64_t off)
{
    acre_assert(pwrite(fd, bytes, n, (off_t)off) == (ssize_t)n);
}

static void take_header(int fd, struct input *in)
{
    struct seg_header header;
    uint64_t at = take(in, 1) % (offsetof(struct seg_header, reserved) / 4) * 4;
    uint32_t value = (uint32_t)take(in, 4);
    acre_assert(pread(fd, &header, sizeof(header), 0) == sizeof(header));
    memcpy((char *)&header + at, &value, sizeof(value));
    write_at(fd, &header, sizeof(header), 0);
}

static void take_units(int fd, const struct segment_shape *s, struct input *in,
                       struct check_record *records)
{
    for (uint32_t u = 0; u < s->n_table && in->end - in->at >= (ptrdiff_t)UNIT_INPUT; u++) {
        records[u].owner = (tag_t)take(in, 1);
        records[u].owner = records[u].owner == 255 ? TAG_HEAP : records[u].owner;
        records[u].place = (uint8_t)(take(in, 1) % (CHECK_META + 1));
        uint64_t entry = take(in, 8);
        tag_t tag = (tag_t)take(in, 2);
        write_at(fd, &entry, sizeof(entry), s->entries_off + u * sizeof(entry));
        write_at(fd, &tag, sizeof(tag), s->tags_off + u * sizeof(tag));
    }
}

static void take_maps(int fd, const struct segment_shape *s, const struct input *in)
{
    size_t n = (size_t)(in->end - in->at);
    for (uint32_t u = s->n_meta; n > 0 && u < s->n_table; u++) {
        size_t from = u * 7u % n;
        write_at(fd, in->at + from, MIN(n - from, 256u), (uint64_t)u << UNIT_SHIFT);
    }
}

/* Sealed as the daemon's; or, as no daemon makes it, cut off. */
static int make_segment(uint32_t n_units, bool ends_early, struct segment_shape *ret_shape)
{
    int sealed;
    acre_assert(segment_create("fuzz", 0, 7, n_units, &sealed, ret_shape) == 0);
    if (!ends_early)
        return sealed;
    struct seg_header header;
    acre_assert(pread(sealed, &header, sizeof(header), 0) == sizeof(header));
    (void)close(sealed);
    int fd = fuzz_file(&header, sizeof(header));
    acre_assert(ftruncate(fd, (off_t)(ret_shape->size_bytes / 2 + 3)) == 0);
    return fd;
}

/* ---- looking ---- */

static int note(void *ctx, const struct check_finding *f)
{
    struct findings *list = ctx;
    acre_assert(f->kind > CHECK_WELL && f->kind < CHECK_KINDS && list->n < FINDINGS_MAX);
    list->at[list->n++] = *f;
    return 0;
}

static void look(const struct check_table *t, struct findings *ret)
{
    uint64_t n_preads = wraps_n_preads();
    ret->n = 0;
    acre_assert(check_table(t, note, ret) == 0);
    /* A window, and for each unit a map, each read at most twice (the second says: no more). */
    acre_assert(wraps_n_preads() - n_preads <= 2ull * (t->to - t->from + 1) * 2);
    acre_assert(ret->n <= 2 * (t->to - t->from));
}

static bool has(const struct findings *list, const struct check_finding *f)
{
    for (uint32_t i = 0; i < list->n; i++)
        if (memcmp(&list->at[i], f, sizeof(*f)) == 0)
            return true;
    return false;
}

/* Looks at the finding's scope alone. */
static bool is_confirmed(const struct check_table *t, const struct check_finding *f)
{
    struct check_table part = *t;
    part.from = f->from;
    part.to = f->to;
    part.records = t->records - t->from + f->from;
    acre_assert(f->from <= f->unit && f->unit < f->to && f->to <= t->shape->n_table);
    look(&part, &alone);
    return has(&alone, f);
}

static void check(const struct check_table *t)
{
    bool any = false;
    look(t, &all);
    look(t, &again);
    acre_assert(all.n == again.n && memcmp(all.at, again.at, all.n * sizeof(all.at[0])) == 0);
    if (t->from > 0) /* scopes may begin before it */
        return;
    for (uint32_t i = 0; i < all.n && !any; i++)
        any = is_confirmed(t, &all.at[i]);
    acre_assert(any || all.n == 0);
}

struct counting {
    const struct segment_shape *shape;
    struct census census;
};

static int count_item(void *ctx, const struct census_item *item)
{
    struct counting *c = ctx;
    acre_assert(item->n_units > 0 && item->unit >= c->shape->n_meta &&
                item->n_units <= c->shape->n_units - item->unit);
    acre_assert(item->n_tags > 0 &&
                item->tags_off + item->n_tags * sizeof(tag_t) <= c->shape->size_bytes);
    census_add_item(&c->census, item);
    return 0;
}

static void count(int fd, const struct segment_shape *s)
{
    struct counting c = {.shape = s};
    uint64_t n_bad, sum_blocks = 0, n_preads = wraps_n_preads();
    acre_assert(census_init(&c.census) == 0);
    acre_assert(census_walk(fd, s, count_item, &c, &n_bad) == 0);
    acre_assert(wraps_n_preads() - n_preads <= 4ull * (s->n_table + 1) && n_bad <= s->n_table);
    for (uint32_t i = 0; i < N_CLASSES; i++)
        sum_blocks += c.census.classes[i].live_blocks;
    acre_assert(sum_blocks + c.census.large_blocks == c.census.live_blocks);
    census_deinit(&c.census);
}

static void check_header(int fd)
{
    struct segment_shape s;
    const char *why = NULL;
    int r = segment_check(fd, 0, 7, &s, &why);
    acre_assert((r == 0) == (why == NULL));
    acre_assert(r < 0 || memcmp(&s, &(struct segment_shape){0}, sizeof(s)) != 0);
}

static void check_part(const struct check_table *whole, unsigned how)
{
    struct check_table t = *whole;
    t.from = how & 4 ? t.shape->n_table / 3 : 0;
    t.to = how & 8 ? t.shape->n_table - t.shape->n_table / 4 : t.shape->n_table;
    struct check_record *records = malloc((t.to - t.from) * sizeof(*records));
    acre_assert(records != NULL);
    memcpy(records, whole->records + t.from, (t.to - t.from) * sizeof(*records));
    t.records = records;
    check(&t);
    free(records);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static uint8_t is_client[CLIENT_IDS];
    struct input in = {data, data + n};
    struct segment_shape shape;
    uint32_t units = (uint32_t)take(&in, 1), how = (uint32_t)take(&in, 1);
    uint32_t n_units = units < 128 ? MAX(units, 8) : SLOT_UNITS + 1;
    CLEANUP_FD int fd = make_segment(n_units, how & 2, &shape);
    struct check_record *records = calloc(shape.n_table, sizeof(*records));
    acre_assert(records != NULL);
    for (uint32_t id = 1; id < 200; id++)
        is_client[id] = id % 8 == 7               ? CHECK_GONE
                        : id % 2 == 0 && how & 16 ? CHECK_DYING
                                                  : CHECK_LIVES;
    if (how & 1)
        take_header(fd, &in);
    take_units(fd, &shape, &in, records);
    take_maps(fd, &shape, &in);
    check_header(fd);
    count(fd, &shape);
    struct check_table t = {.fd = fd, .shape = &shape, .to = shape.n_table, .records = records};
    t.span_units = SLOT_UNITS + 1 - shape.n_meta;
    t.is_client = is_client;
    check_part(&t, how);
    free(records);
    return 0;
}
