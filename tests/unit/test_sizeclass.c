/* SPDX-License-Identifier: Apache-2.0 */
/* ctest-labels: valgrind */
#include "shm/sizeclass.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define for_each_geo(g)                                                                            \
    for (unsigned g = 0; g < 256; g++)                                                             \
        if (geo_infos[g].n_blocks != 0)

static uint64_t slab_bytes(unsigned g)
{
    return UNIT_BYTES << geo_infos[g].order;
}

/* The whole domain of the reciprocal, not a sample: every byte of every slab. No assert in the
 * loop: it is 6 million long. */
static void block_number_is_exact_for_every_byte_of_every_geometry(void **state)
{
    (void)state;
    for_each_geo(g)
    {
        const struct geo *geo = &geo_table[g];
        uint32_t n_wrong = 0;
        for (uint32_t d = 0; d < geo->limit; d++) {
            uint32_t idx = UINT32_MAX;
            bool divides = block_idx(d, geo->recip, &idx);
            n_wrong += divides != (d % geo->size == 0) || (divides && idx != d / geo->size);
        }
        assert_int_equal(n_wrong, 0);
    }
}

static void every_size_gets_the_smallest_class_that_holds_it(void **state)
{
    (void)state;
    for (uint32_t size = 0; size <= SMALL_MAX_BYTES; size++) {
        unsigned c = class_of_size(size);
        assert_true(c < N_CLASSES);
        assert_true(class_bytes[c] >= size);
        if (c > 0)
            assert_true(class_bytes[c - 1] < size);
    }
}

static void at_most_a_fifth_is_wasted_above_64_bytes(void **state)
{
    (void)state;
    for (uint32_t size = 65; size <= SMALL_MAX_BYTES; size++) {
        uint32_t block = class_bytes[class_of_size(size)];
        assert_true((block - size) * 5 <= block);
    }
}

static void classes_grow_from_16_bytes_to_the_largest_small_size(void **state)
{
    (void)state;
    assert_int_equal(class_bytes[0], 16);
    assert_int_equal(class_bytes[N_CLASSES - 1], SMALL_MAX_BYTES);
    for (unsigned c = 1; c < N_CLASSES; c++)
        assert_true(class_bytes[c] > class_bytes[c - 1] && class_bytes[c] % 16 == 0);
}

static void map_and_blocks_lie_in_the_slab_without_overlap(void **state)
{
    (void)state;
    for_each_geo(g)
    {
        const struct geo *geo = &geo_table[g];
        assert_int_equal(geo->size, class_bytes[geo_infos[g].class_idx]);
        assert_int_equal(geo->limit, geo_infos[g].n_blocks * geo->size);
        assert_true(geo->first >= geo_infos[g].n_blocks * sizeof(tag_t));
        assert_true(geo->first + geo->limit <= slab_bytes(g));
    }
}

static void no_slab_has_room_for_one_more_block(void **state)
{
    (void)state;
    for_each_geo(g)
    {
        const struct geo *geo = &geo_table[g];
        uint32_t align = class_align(geo_infos[g].class_idx);
        uint64_t first = round_up_u64((geo_infos[g].n_blocks + 1) * sizeof(tag_t), align);
        assert_true(first + geo->limit + geo->size > slab_bytes(g));
    }
}

static void every_block_has_the_alignment_of_its_class(void **state)
{
    (void)state;
    for_each_geo(g)
    {
        uint32_t align = class_align(geo_infos[g].class_idx);
        assert_true(is_pow2_u64(align) && align >= 16 && align <= SLAB_ALIGN_MAX);
        assert_int_equal(geo_table[g].first % align, 0);
        assert_int_equal(geo_table[g].size % align, 0);
    }
}

static void every_class_has_all_orders_from_its_least_to_its_greatest(void **state)
{
    (void)state;
    for (unsigned c = 0; c < N_CLASSES; c++) {
        assert_true(class_order_min[c] <= class_order_max[c]);
        assert_true(class_order_max[c] <= SLAB_ORDER_MAX);
        for (unsigned order = class_order_min[c]; order <= class_order_max[c]; order++) {
            unsigned g = geo_of(c, order);
            assert_true(g > 0 && g < N_GEOS);
            assert_int_equal(geo_infos[g].class_idx, c);
            assert_int_equal(geo_infos[g].order, order);
            assert_true(geo_infos[g].n_blocks > 0);
        }
    }
}

/* Without this bound two geometries gave wrong block numbers near their end. */
static void every_geometrys_reciprocal_is_exact(void **state)
{
    (void)state;
    for_each_geo(g)
    {
        const struct geo *geo = &geo_table[g];
        uint64_t excess = geo->recip * geo->size; /* modulo 2^64 */
        assert_true(excess < geo->size);
        assert_true(geo_infos[g].n_blocks * excess < geo->recip);
    }
}

static void a_geometry_tells_its_class(void **state)
{
    (void)state;
    for (unsigned c = 0; c < N_CLASSES; c++)
        for (unsigned order = class_order_min[c]; order <= class_order_max[c]; order++) {
            assert_int_equal(geo_class(geo_of(c, order)), c);
            assert_int_equal(geo_infos[geo_of(c, order)].class_idx, c);
            assert_int_equal(geo_infos[geo_of(c, order)].order, order);
            assert_true(geo_infos[geo_of(c, order)].n_blocks > 0);
        }
}

static void geometry_zero_is_no_slab(void **state)
{
    (void)state;
    for (unsigned g = 0; g < GEO_ORDERS; g++) {
        assert_int_equal(geo_infos[g].n_blocks, 0);
        assert_int_equal(geo_table[g].limit, 0);
    }
    for (unsigned g = N_GEOS; g < 256; g++)
        assert_int_equal(geo_infos[g].n_blocks, 0);
}

static void the_fingerprint_stays_the_same_and_sees_the_tables(void **state)
{
    (void)state;
    uint64_t before = layout_fingerprint();
    assert_int_equal(layout_fingerprint(), before);
    assert_int_equal(layout_fingerprint_anew(), before);
    geo_table[GEO_ORDERS].recip++;
    assert_true(layout_fingerprint_anew() != before);
    geo_table[GEO_ORDERS].recip--;
}

static int setup(void **state)
{
    (void)state;
    sizeclass_init();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(block_number_is_exact_for_every_byte_of_every_geometry),
        cmocka_unit_test(every_size_gets_the_smallest_class_that_holds_it),
        cmocka_unit_test(at_most_a_fifth_is_wasted_above_64_bytes),
        cmocka_unit_test(classes_grow_from_16_bytes_to_the_largest_small_size),
        cmocka_unit_test(map_and_blocks_lie_in_the_slab_without_overlap),
        cmocka_unit_test(no_slab_has_room_for_one_more_block),
        cmocka_unit_test(every_block_has_the_alignment_of_its_class),
        cmocka_unit_test(every_class_has_all_orders_from_its_least_to_its_greatest),
        cmocka_unit_test(every_geometrys_reciprocal_is_exact),
        cmocka_unit_test(a_geometry_tells_its_class),
        cmocka_unit_test(geometry_zero_is_no_slab),
        cmocka_unit_test(the_fingerprint_stays_the_same_and_sees_the_tables),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
