/* SPDX-License-Identifier: Apache-2.0 */
/* ctest-labels: valgrind */
#include "shm/census.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <cmocka.h>

#define N_UNITS 2000u

struct fixture {
    int fd;
    char *base;
    struct segment_shape shape;
    uint32_t first; /* first usable unit */
    struct census census;
};

static void fixture_make(struct fixture *f, uint32_t n_units)
{
    f->fd = -1;
    assert_int_equal(segment_create("test", 0, 7, n_units, &f->fd, &f->shape), 0);
    f->base = mmap(NULL, f->shape.size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, f->fd, 0);
    assert_true(f->base != MAP_FAILED);
    f->first = f->shape.n_meta;
    assert_int_equal(census_init(&f->census), 0);
}

static int setup(void **state)
{
    static struct fixture f;
    fixture_make(&f, N_UNITS);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    census_deinit(&f->census);
    munmap(f->base, f->shape.size_bytes);
    close_fd(&f->fd);
    return 0;
}

static uint64_t *entries(const struct fixture *f)
{
    return segment_entries(f->base, &f->shape);
}

static tag_t *slab_tags(const struct fixture *f, uint32_t unit)
{
    return (tag_t *)(f->base + unit * UNIT_BYTES);
}

/* Cuts a slab as a client does. Returns the unit after it. */
static uint32_t make_slab(const struct fixture *f, uint32_t unit, unsigned geo,
                          enum unit_state state)
{
    uint32_t n = 1u << geo_infos[geo].order;
    for (uint32_t i = 0; i < n; i++)
        entries(f)[unit + i] = unit_entry_slab(state, geo, i, holder_token(5, 1));
    return unit + n;
}

static uint32_t make_large(const struct fixture *f, uint32_t unit, uint32_t n, tag_t tag)
{
    entries(f)[unit] = unit_entry_large(n, 5);
    segment_tags(f->base, &f->shape)[unit] = tag;
    for (uint32_t i = 1; i < n; i++)
        entries(f)[unit + i] = unit_entry_plain(U_CUT, holder_token(tag, 0));
    return unit + n;
}

static void count(struct fixture *f)
{
    assert_int_equal(census_add_segment(&f->census, f->fd, &f->shape), 0);
}

static void an_empty_segment_has_nothing(void **state)
{
    struct fixture *f = *state;
    count(f);
    assert_int_equal(f->census.live_bytes, 0);
    assert_int_equal(f->census.live_blocks, 0);
    assert_int_equal(f->census.n_bad, 0);
}

static void every_live_block_is_counted_by_owner_and_class(void **state)
{
    struct fixture *f = *state;
    unsigned geo = geo_of(class_of_size(64), 1);
    tag_t *tags;

    make_slab(f, f->first + 3, geo, U_SLAB);
    tags = slab_tags(f, f->first + 3);
    tags[0] = 5;
    tags[1] = 9;
    tags[geo_infos[geo].n_blocks - 1] = TAG_HEAP;
    tags[geo_infos[geo].n_blocks] = 5; /* behind the map: not a tag */
    count(f);

    const struct census_class *c = &f->census.classes[class_of_size(64)];
    assert_int_equal(c->slabs, 1);
    assert_int_equal(c->live_blocks, 3);
    assert_int_equal(c->free_blocks, geo_infos[geo].n_blocks - 3);
    assert_int_equal(f->census.live_bytes, 3 * 64);
    assert_int_equal(f->census.by_id[5].live_blocks, 1);
    assert_int_equal(f->census.by_id[9].live_bytes, 64);
    assert_int_equal(f->census.by_id[TAG_HEAP].live_bytes, 64);
    assert_int_equal(f->census.n_bad, 0);
}

static void a_slab_of_every_geometry_is_counted_whole(void **state)
{
    struct fixture *f = *state;
    uint32_t unit = f->first;
    uint64_t live_bytes = 0, live_blocks = 0;

    for (unsigned g = 1; g < N_GEOS; g++) {
        uint32_t n = geo_infos[g].n_blocks;
        if (n == 0 || unit + (1u << geo_infos[g].order) > N_UNITS)
            continue;
        for (uint32_t i = 0; i < n; i++)
            slab_tags(f, unit)[i] = 1;
        unit = make_slab(f, unit, g, g % 2 ? U_SLAB : U_PARKED);
        live_blocks += n;
        live_bytes += (uint64_t)n * geo_table[g].size;
    }
    count(f);
    assert_int_equal(f->census.live_blocks, live_blocks);
    assert_int_equal(f->census.live_bytes, live_bytes);
    assert_int_equal(f->census.by_id[1].live_bytes, live_bytes);
    assert_int_equal(f->census.n_bad, 0);
}

static void large_blocks_count_with_all_their_units(void **state)
{
    struct fixture *f = *state;
    uint32_t unit = make_large(f, f->first, 700, 4);
    unit = make_large(f, unit, 1, TAG_HEAP);
    make_large(f, unit, N_UNITS - unit, 4);
    count(f);
    assert_int_equal(f->census.large_blocks, 3);
    assert_int_equal(f->census.large_bytes, (N_UNITS - f->first) * UNIT_BYTES);
    assert_int_equal(f->census.by_id[4].live_blocks, 2);
    assert_int_equal(f->census.by_id[TAG_HEAP].live_bytes, UNIT_BYTES);
    assert_int_equal(f->census.n_bad, 0);
}

static void a_freed_large_block_is_not_live(void **state)
{
    struct fixture *f = *state;
    make_large(f, f->first, 10, TAG_FREE);
    count(f);
    assert_int_equal(f->census.live_blocks, 0);
    assert_int_equal(f->census.large_blocks, 0);
}

static void a_block_beyond_a_slot_is_found_by_its_head_alone(void **state)
{
    struct fixture f = {.fd = -1};
    (void)state;
    fixture_make(&f, SLOT_UNITS + 5);
    entries(&f)[f.first] = unit_entry_large(SLOT_UNITS + 5 - f.first, 5);
    segment_tags(f.base, &f.shape)[f.first] = 3;
    count(&f);
    assert_int_equal(f.census.by_id[3].live_bytes, (SLOT_UNITS + 5 - f.first) * UNIT_BYTES);
    assert_int_equal(f.census.n_bad, 0);
    void *fixture = &f;
    teardown(&fixture);
}

static void only_the_released_slab_itself_has_no_map(void **state)
{
    struct fixture *f = *state;
    unsigned geo = geo_of(class_of_size(128), 0);
    uint32_t unit = make_slab(f, f->first, geo, U_RELEASING);
    entries(f)[unit] = unit_entry_plain(U_RELEASING, holder_token(5, 1));
    count(f);
    assert_int_equal(f->census.classes[class_of_size(128)].slabs, 1);
    assert_int_equal(f->census.live_blocks, 0);
    assert_int_equal(f->census.n_bad, 0);
}

static void units_of_a_slab_on_its_way_back_may_be_others_already(void **state)
{
    struct fixture *f = *state;
    unsigned geo = geo_of(class_of_size(16), 2), other = geo_of(class_of_size(16), 0);
    make_slab(f, f->first, geo, U_SLAB);
    entries(f)[f->first] = unit_entry_slab(U_RELEASING, geo, 0, holder_token(5, 1));
    make_slab(f, f->first + 3, other, U_SLAB);
    slab_tags(f, f->first + 3)[7] = 9;
    count(f);
    assert_int_equal(f->census.by_id[9].live_blocks, 1);
    assert_int_equal(f->census.n_bad, 0);
    entries(f)[f->first + 2] = unit_entry_slab(U_SLAB, geo, 1, holder_token(5, 1));
    count(f);
    assert_int_equal(f->census.n_bad, 1);
}

/* One bad entry at the first unit, then a good slab: the bad one is counted, the good one found. */
static void assert_bad_and_passed_over(struct fixture *f, uint64_t entry)
{
    memset(&f->census.classes, 0, sizeof(f->census.classes));
    f->census.n_bad = 0;
    entries(f)[f->first] = entry;
    make_slab(f, f->first + 1, geo_of(class_of_size(16), 0), U_SLAB);
    count(f);
    assert_int_equal(f->census.n_bad, 1);
    assert_int_equal(f->census.classes[0].slabs, 1);
}

static void entries_without_sense_are_counted_and_passed_over(void **state)
{
    struct fixture *f = *state;
    assert_bad_and_passed_over(f, unit_entry_plain(U_META, 0));
    assert_bad_and_passed_over(f, unit_entry_plain(U_STATES, 0));
    assert_bad_and_passed_over(f, unit_entry_plain((enum unit_state)255, 0));
    assert_bad_and_passed_over(f, unit_entry_slab(U_SLAB, 0, 0, 1));
    assert_bad_and_passed_over(f, unit_entry_slab(U_SLAB, 255, 0, 1));
    assert_bad_and_passed_over(f, unit_entry_slab(U_SLAB, 1, 3, 1));
    assert_bad_and_passed_over(f, unit_entry_large(0, 5));
    assert_bad_and_passed_over(f, unit_entry_large(N_UNITS - f->first + 1, 5));
    assert_bad_and_passed_over(f, unit_entry_large(UINT32_MAX, 5));
}

static void a_slab_over_the_end_of_the_segment_is_bad(void **state)
{
    struct fixture *f = *state;
    unsigned geo = geo_of(class_of_size(SMALL_MAX_BYTES), class_order_max[N_CLASSES - 1]);
    entries(f)[N_UNITS - 1] = unit_entry_slab(U_SLAB, geo, 0, 1);
    count(f);
    assert_int_equal(f->census.n_bad, 1);
}

static void of_two_items_that_overlap_the_first_counts(void **state)
{
    struct fixture *f = *state;
    make_large(f, f->first, 10, 4);
    entries(f)[f->first + 5] = unit_entry_large(10, 5);
    segment_tags(f->base, &f->shape)[f->first + 5] = 4;
    count(f);
    assert_int_equal(f->census.large_blocks, 1);
    assert_int_equal(f->census.n_bad, 1);
}

static uint64_t resident_bytes(int fd)
{
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    return (uint64_t)st.st_blocks * 512;
}

static void looking_refills_no_hole(void **state)
{
    struct fixture *f = *state;
    unsigned geo = geo_of(class_of_size(16), 2);
    for (uint32_t unit = f->first; unit + 4 <= N_UNITS; unit += 4)
        make_slab(f, unit, geo, U_SLAB);
    uint64_t before = resident_bytes(f->fd);
    count(f);
    assert_int_equal(resident_bytes(f->fd), before);
    assert_int_equal(f->census.classes[0].slabs, (N_UNITS - f->first) / 4);
}

static void a_read_only_descriptor_is_enough(void **state)
{
    struct fixture *f = *state;
    CLEANUP_FD int ro = -1;
    make_large(f, f->first, 10, 4);
    assert_int_equal(segment_reopen_readonly(f->fd, &ro), 0);
    assert_int_equal(census_add_segment(&f->census, ro, &f->shape), 0);
    assert_int_equal(f->census.large_blocks, 1);
}

static int stop_at_second(void *ctx, const struct census_item *item)
{
    (void)item;
    return ++*(int *)ctx == 2 ? 77 : 0;
}

static void the_walk_ends_with_what_its_function_returned(void **state)
{
    struct fixture *f = *state;
    int n_seen = 0;
    for (uint32_t u = f->first; u < f->first + 9;)
        u = make_large(f, u, 3, 1);
    assert_int_equal(census_walk(f->fd, &f->shape, stop_at_second, &n_seen, NULL), 77);
    assert_int_equal(n_seen, 2);
}

static int check_place(void *ctx, const struct census_item *item)
{
    const struct fixture *f = ctx;
    tag_t there;
    assert_int_equal(pread(f->fd, &there, sizeof(there), (off_t)item->tags_off), sizeof(there));
    assert_int_equal(there, item->tags[0]);
    assert_int_equal(there, 4);
    assert_int_equal(item->holder, holder_token(5, item->state != U_LARGE));
    return 0;
}

static void an_item_says_where_its_tags_are_and_who_holds_it(void **state)
{
    struct fixture *f = *state;
    uint32_t unit = make_large(f, f->first, 3, 4);
    make_slab(f, unit, 1, U_PARKED);
    slab_tags(f, unit)[0] = 4;
    assert_int_equal(census_walk(f->fd, &f->shape, check_place, f, NULL), 0);
}

/* Whatever lies in the tables: the walk ends, its items lie inside the segment and do not
 * overlap. */
static int check_inside(void *ctx, const struct census_item *item)
{
    uint32_t *next = ctx;
    assert_true(item->unit >= *next && item->n_units > 0);
    assert_true(item->n_units <= N_UNITS - item->unit);
    *next = item->unit + (item->state == U_RELEASING ? 1 : item->n_units);
    return 0;
}

static void garbage_gives_only_items_inside_the_segment(void **state)
{
    struct fixture *f = *state;
    for (unsigned seed = 1; seed <= 50; seed++) {
        srandom(seed);
        uint32_t next = f->first;
        for (uint32_t u = 0; u < N_UNITS; u++)
            entries(f)[u] = (uint64_t)(random() % 64) << 32 | (uint64_t)(random() % 3) << 16 |
                            (uint64_t)(random() % 9) << 8 | (uint64_t)(random() & 255);
        assert_int_equal(census_walk(f->fd, &f->shape, check_inside, &next, NULL), 0);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(an_empty_segment_has_nothing),
        TEST(every_live_block_is_counted_by_owner_and_class),
        TEST(a_slab_of_every_geometry_is_counted_whole),
        TEST(large_blocks_count_with_all_their_units),
        TEST(a_freed_large_block_is_not_live),
        cmocka_unit_test(a_block_beyond_a_slot_is_found_by_its_head_alone),
        TEST(only_the_released_slab_itself_has_no_map),
        TEST(units_of_a_slab_on_its_way_back_may_be_others_already),
        TEST(entries_without_sense_are_counted_and_passed_over),
        TEST(a_slab_over_the_end_of_the_segment_is_bad),
        TEST(of_two_items_that_overlap_the_first_counts),
        TEST(looking_refills_no_hole),
        TEST(a_read_only_descriptor_is_enough),
        TEST(the_walk_ends_with_what_its_function_returned),
        TEST(an_item_says_where_its_tags_are_and_who_holds_it),
        TEST(garbage_gives_only_items_inside_the_segment),
    };
    sizeclass_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
