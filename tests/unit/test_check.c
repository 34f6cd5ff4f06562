/* SPDX-License-Identifier: Apache-2.0 */
/* Segments and books made by hand: what agrees is passed over in every state that a kill can leave,
 * and each kind of disagreement is found where it is. */
/* ctest-labels: valgrind */
#include "shm/check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <cmocka.h>

#define N_UNITS   2000u
#define FOUND_MAX 4096u
#define A         5u /* clients that live */
#define B         6u
#define DYING     7u
#define GONE      9u

static struct fixture {
    int fd;
    char *base;
    struct segment_shape shape;
    uint32_t first; /* first usable unit, the next multiple of 64 */
    struct check_record records[N_UNITS];
    uint8_t is_client[CLIENT_IDS];
    struct check_table table;
    uint32_t n_found;
    struct check_finding found[FOUND_MAX];
} f;

static void make(uint32_t n_units)
{
    memset(&f, 0, sizeof(f));
    assert_int_equal(segment_create("test", 0, 7, n_units, &f.fd, &f.shape), 0);
    f.base = mmap(NULL, f.shape.n_meta * UNIT_BYTES + MIB(1), PROT_READ | PROT_WRITE, MAP_SHARED,
                  f.fd, 0);
    assert_true(f.base != MAP_FAILED);
    f.first = n_units == N_UNITS ? 64 : f.shape.n_meta;
    for (uint32_t u = 0; u < f.shape.n_table; u++)
        f.records[u].place = u < f.shape.n_meta ? CHECK_META : CHECK_FREE;
    f.is_client[A] = f.is_client[B] = CHECK_LIVES;
    f.is_client[DYING] = CHECK_DYING;
    f.table = (struct check_table){.fd = f.fd,
                                   .shape = &f.shape,
                                   .slot = 3,
                                   .to = f.shape.n_table,
                                   .records = f.records,
                                   .is_client = f.is_client};
}

static int setup(void **state)
{
    (void)state;
    make(N_UNITS);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    munmap(f.base, f.shape.n_meta * UNIT_BYTES + MIB(1));
    close_fd(&f.fd);
    return 0;
}

static uint64_t *entry(uint32_t unit)
{
    return segment_entries(f.base, &f.shape) + unit;
}

static tag_t *slab_tags(uint32_t unit)
{
    return (tag_t *)(void *)(f.base + unit * UNIT_BYTES);
}

/* ---- a heap in order ---- */

static void own(uint32_t unit, uint32_t n, tag_t owner)
{
    for (uint32_t u = unit; u < unit + n; u++)
        f.records[u] = (struct check_record){owner, owner ? CHECK_GRANTED : CHECK_FREE};
}

static void put_plain(uint32_t unit, uint32_t n, enum unit_state state, tag_t owner)
{
    own(unit, n, owner);
    for (uint32_t u = unit; u < unit + n; u++)
        *entry(u) = unit_entry_plain(state, holder_token(owner, 0));
}

static void put_slab(uint32_t unit, unsigned geo, enum unit_state state, uint32_t token)
{
    uint32_t n = 1u << geo_infos[geo].order;
    own(unit, n, holder_client(token));
    for (uint32_t i = 0; i < n; i++)
        *entry(unit + i) = unit_entry_slab(state, geo, i, token);
}

static void put_large(uint32_t unit, uint32_t n, tag_t owner, tag_t tag)
{
    put_plain(unit, n, U_CUT, owner);
    *entry(unit) = unit_entry_large(n, owner);
    segment_tags(f.base, &f.shape)[unit] = tag;
}

static void put_orphan_large(uint32_t unit, uint32_t n, tag_t tag)
{
    put_large(unit, n, 0, tag);
    own(unit, n, TAG_HEAP);
}

/* Four units of 16-byte blocks; and one. */
static unsigned geo4(void)
{
    return geo_of(0, 2);
}
static unsigned geo1(void)
{
    return geo_of(0, 0);
}

/* ---- what is found ---- */

static int note(void *ctx, const struct check_finding *finding)
{
    (void)ctx;
    assert_true(f.n_found < FOUND_MAX);
    f.found[f.n_found++] = *finding;
    return 0;
}

static void check(void)
{
    f.n_found = 0;
    assert_int_equal(check_table(&f.table, note, NULL), 0);
}

static void assert_well(void)
{
    check();
    if (f.n_found > 0)
        fail_msg("kind %d at unit %u", f.found[0].kind, f.found[0].unit);
}

/* Found there, also by who looks at its scope alone. */
static void assert_found(enum check_kind kind, uint32_t unit)
{
    struct check_table whole = f.table;
    check();
    uint32_t i = 0;
    while (i < f.n_found && (f.found[i].kind != kind || f.found[i].unit != unit))
        i++;
    if (i == f.n_found)
        fail_msg("%u findings, not kind %d at unit %u (the first: %d at %u)", f.n_found, kind, unit,
                 f.found[0].kind, f.found[0].unit);
    struct check_finding first = f.found[i];
    assert_int_equal(first.slot, 3);
    assert_true(first.from <= unit && unit < first.to && first.to <= f.shape.n_table);
    f.table.from = first.from;
    f.table.to = first.to;
    f.table.records = f.records + first.from;
    check();
    f.table = whole;
    for (i = 0; i < f.n_found; i++)
        if (memcmp(&f.found[i], &first, sizeof(first)) == 0)
            return;
    fail_msg("not found again");
}

static void assert_found_alone(enum check_kind kind, uint32_t unit)
{
    assert_found(kind, unit);
    check();
    assert_int_equal(f.n_found, 1);
}

static void what_agrees_is_passed_over(void **state)
{
    (void)state;
    uint32_t u = f.first;
    assert_well();
    put_slab(u, geo4(), U_SLAB, holder_token(A, 1));
    slab_tags(u)[0] = A;
    slab_tags(u)[1] = B;
    slab_tags(u)[2] = TAG_HEAP;
    slab_tags(u)[3] = DYING;
    slab_tags(u)[geo_infos[geo4()].n_blocks] = GONE; /* behind the map */
    put_slab(u + 4, geo4(), U_PARKED, HOLDER_NOBODY);
    put_slab(u + 8, geo4(), U_PARKED, holder_token(B, 0));
    put_plain(u + 12, 20, U_UNCUT, A);
    put_plain(u + 32, 3, U_CUT, B);
    put_large(u + 35, 29, A, B);
    put_orphan_large(u + 64, 1000, TAG_HEAP);
    put_orphan_large(u + 1064, 1, A);
    f.records[u + 1065].place = CHECK_OUT;
    assert_well();
}

static void every_geometry_agrees_where_it_fits(void **state)
{
    (void)state;
    for (unsigned g = 1; g < N_GEOS; g++) {
        if (geo_infos[g].n_blocks == 0)
            continue;
        put_slab(f.first, g, U_SLAB, holder_token(A, 65535));
        assert_well();
        put_plain(f.first, 64, U_CUT, A);
    }
}

/* Each store on the way of a slab, one after the other: a client may rest after any of them. */
static void a_slab_comes_and_goes_without_a_finding(void **state)
{
    (void)state;
    uint32_t u = f.first, old = holder_token(A, 1), new = holder_token(A, 2);
    put_plain(u, 4, U_CUT, A);
    for (unsigned i = 4; i-- > 0;) {
        *entry(u + i) = unit_entry_slab(U_SLAB, geo4(), i, old);
        assert_well();
    }
    for (unsigned i = 4; i-- > 0;) { /* another cache inherits it */
        *entry(u + i) = unit_entry_slab(U_SLAB, geo4(), i, new);
        assert_well();
    }
    *entry(u) = unit_entry_slab(U_RELEASING, geo4(), 0, new);
    slab_tags(u)[0] = GONE; /* nobody's business any more */
    assert_well();
    for (unsigned i = 4; i-- > 1;) {
        *entry(u + i) = unit_entry_plain(U_UNCUT, holder_token(A, 0));
        assert_well();
    }
    put_plain(u + 3, 1, U_FREE, 0); /* the daemon takes two, and one is another's slab at once */
    put_slab(u + 2, geo1(), U_SLAB, holder_token(B, 1));
    assert_well();
    put_plain(u, 1, U_UNCUT, A);
    assert_well();
}

static void a_parked_slab_is_taken_over_without_a_finding(void **state)
{
    (void)state;
    put_slab(f.first, geo4(), U_PARKED, holder_token(A, 0));
    for (unsigned i = 4; i-- > 0;) {
        *entry(f.first + i) = unit_entry_slab(U_SLAB, geo4(), i, holder_token(A, 1));
        assert_well();
    }
}

static void a_large_block_comes_grows_is_kept_and_goes_without_a_finding(void **state)
{
    (void)state;
    uint32_t u = f.first;
    put_plain(u, 40, U_UNCUT, A);
    for (unsigned i = 0; i < 20; i++) {
        *entry(u + i) = unit_entry_plain(U_CUT, holder_token(A, 0));
        assert_well();
    }
    put_large(u, 20, A, A);
    assert_well();
    put_plain(u + 20, 10, U_CUT, A);
    assert_well();
    *entry(u) = unit_entry_large(30, A);
    assert_well();
    *entry(u) = unit_entry_large(10, A); /* it shrinks: the rest follows */
    assert_well();
    segment_tags(f.base, &f.shape)[u] = TAG_FREE; /* freed by another */
    assert_well();
    *entry(u) |= LARGE_KEPT;
    segment_tags(f.base, &f.shape)[u] = GONE; /* as it was when it was freed */
    assert_well();
    put_plain(u, 1, U_CUT, A);
    assert_well();
}

static void what_a_dead_client_had_is_taken_apart_without_a_finding(void **state)
{
    (void)state;
    put_slab(f.first, geo4(), U_SLAB, holder_token(DYING, 1));
    put_plain(f.first, 2, U_FREE, 0);
    assert_well();
}

/* ---- each kind ---- */

static void tables_that_do_not_say_so(void **state)
{
    (void)state;
    *entry(f.shape.n_meta - 1) = 0;
    assert_found_alone(CHECK_TABLES, f.shape.n_meta - 1);
}

static void a_free_unit_with_an_entry(void **state)
{
    (void)state;
    *entry(f.first) = unit_entry_plain(U_UNCUT, holder_token(A, 0));
    assert_found_alone(CHECK_NOBODY, f.first);
    f.records[f.first].place = CHECK_OUT;
    assert_found_alone(CHECK_NOBODY, f.first);
    *entry(f.first) = 1ull << 29;
    assert_found_alone(CHECK_NOBODY, f.first);
}

static void a_state_that_its_owner_does_not_give(void **state)
{
    (void)state;
    static const unsigned states[] = {U_FREE, U_META, U_STATES, 31};
    for (unsigned i = 0; i < ARRAY_LEN(states); i++) {
        put_plain(f.first, 1, (enum unit_state)states[i], A);
        assert_found_alone(CHECK_STATE, f.first);
    }
    static const unsigned of_orphans[] = {U_FREE, U_UNCUT, U_SLAB, U_RELEASING, U_META};
    for (unsigned i = 0; i < ARRAY_LEN(of_orphans); i++) {
        put_plain(f.first, 1, (enum unit_state)of_orphans[i], TAG_HEAP);
        assert_found_alone(CHECK_STATE, f.first);
    }
}

static void entries_in_a_hole_of_the_table_are_missed(void **state)
{
    (void)state;
    put_plain(f.first, N_UNITS - f.first, U_CUT, A);
    assert_well();
    memset(entry(f.first), 0, (N_UNITS - f.first) * sizeof(uint64_t));
    check();
    assert_int_equal(f.n_found, N_UNITS - f.first);
}

static void another_holder_than_the_books_say(void **state)
{
    (void)state;
    static const enum unit_state states[] = {U_UNCUT, U_CUT};
    for (unsigned i = 0; i < ARRAY_LEN(states); i++) {
        put_plain(f.first, 1, states[i], A);
        f.records[f.first].owner = B;
        assert_found_alone(CHECK_HOLDER, f.first);
    }
    put_slab(f.first, geo1(), U_SLAB, holder_token(A, 1));
    f.records[f.first].owner = B;
    assert_found_alone(CHECK_HOLDER, f.first);
    put_slab(f.first, geo1(), U_PARKED, HOLDER_NOBODY);
    f.records[f.first].owner = B;
    assert_found_alone(CHECK_HOLDER, f.first);
    put_large(f.first, 1, A, A);
    f.records[f.first].owner = TAG_HEAP;
    assert_found_alone(CHECK_HOLDER, f.first);
}

static void bits_that_mean_nothing(void **state)
{
    (void)state;
    put_plain(f.first, 1, U_CUT, A);
    *entry(f.first) |= 1ull << 20;
    assert_found_alone(CHECK_BITS, f.first);
    put_plain(f.first, 1, U_UNCUT, A);
    *entry(f.first) |= 1ull << 32; /* a cache */
    assert_found_alone(CHECK_BITS, f.first);
    put_slab(f.first, geo1(), U_SLAB, holder_token(A, 0)); /* no cache */
    assert_found_alone(CHECK_BITS, f.first);
    put_slab(f.first, geo1(), U_PARKED, holder_token(A, 1));
    assert_found_alone(CHECK_BITS, f.first);
    put_slab(f.first, geo1(), U_SLAB, holder_token(A, 1));
    *entry(f.first) |= 1ull << 31;
    assert_found_alone(CHECK_BITS, f.first);
    put_large(f.first, 1, A, A);
    *entry(f.first) |= 2;
    assert_found_alone(CHECK_BITS, f.first);
    put_orphan_large(f.first, 1, A);
    *entry(f.first) |= LARGE_KEPT;
    assert_found_alone(CHECK_BITS, f.first);
}

static void a_slab_that_there_is_not(void **state)
{
    (void)state;
    uint32_t token = holder_token(A, 1);
    own(f.first, 64, A);
    put_plain(f.first, 64, U_CUT, A);
    *entry(f.first) = unit_entry_slab(U_SLAB, 0, 0, token);
    assert_found_alone(CHECK_SLAB, f.first);
    *entry(f.first) = unit_entry_slab(U_SLAB, 255, 0, token);
    assert_found_alone(CHECK_SLAB, f.first);
    *entry(f.first) = unit_entry_slab(U_SLAB, geo1(), 1, token);
    assert_found_alone(CHECK_SLAB, f.first);
    *entry(f.first) = unit_entry_slab(U_SLAB, geo4(), 65535, token);
    assert_found_alone(CHECK_SLAB, f.first);
    *entry(f.first) = unit_entry_slab(U_RELEASING, geo4(), 1, token);
    assert_found_alone(CHECK_SLAB, f.first);
    put_plain(f.first, 1, U_CUT, A);
    *entry(f.first + 1) = unit_entry_slab(U_SLAB, geo4(), 0, token); /* not aligned */
    assert_found(CHECK_SLAB, f.first + 1);
}

static void a_slab_over_the_end_or_into_the_tables(void **state)
{
    (void)state;
    unsigned wide = geo_of(N_CLASSES - 1, SLAB_ORDER_MAX);
    uint32_t last = N_UNITS & ~63u;
    assert_true(last + 64 > N_UNITS);
    put_plain(last, 1, U_CUT, A);
    *entry(last) = unit_entry_slab(U_SLAB, wide, 0, holder_token(A, 1));
    assert_found_alone(CHECK_SLAB, last);
    put_plain(last, 1, U_FREE, 0);
    put_plain(f.shape.n_meta, 1, U_CUT, A);
    *entry(f.shape.n_meta) = unit_entry_slab(U_SLAB, wide, f.shape.n_meta, holder_token(A, 1));
    assert_found_alone(CHECK_SLAB, f.shape.n_meta);
}

static void a_large_block_of_a_size_that_cannot_be(void **state)
{
    (void)state;
    put_large(f.first, 1, A, A);
    static const uint32_t sizes[] = {0, N_UNITS, UINT32_MAX};
    for (unsigned i = 0; i < ARRAY_LEN(sizes); i++) {
        *entry(f.first) = unit_entry_large(sizes[i], A);
        assert_found_alone(CHECK_LARGE, f.first);
    }
    put_orphan_large(f.first, 1, A);
    *entry(f.first) = unit_entry_large(N_UNITS - f.first + 1, 0);
    assert_found_alone(CHECK_LARGE, f.first);
}

static void a_block_beyond_a_slot_has_the_units_of_its_record(void **state)
{
    (void)state;
    teardown(state);
    make(SLOT_UNITS + 500);
    put_plain(f.first, 1, U_UNCUT, A);
    f.table.span_units = SLOT_UNITS + 9;
    assert_well();
    *entry(f.first) = unit_entry_large(SLOT_UNITS + 9, A);
    segment_tags(f.base, &f.shape)[f.first] = A;
    assert_well();
    *entry(f.first) = unit_entry_large(SLOT_UNITS + 10, A);
    assert_found_alone(CHECK_LARGE, f.first);
    *entry(f.first) = unit_entry_large(SLOT_UNITS + 9, A);
    segment_tags(f.base, &f.shape)[f.first] = GONE;
    assert_found_alone(CHECK_TAG, f.first);
}

static void an_inner_unit_without_its_head(void **state)
{
    (void)state;
    uint32_t u = f.first;
    put_slab(u, geo4(), U_SLAB, holder_token(A, 1));
    put_plain(u, 1, U_UNCUT, A);
    assert_found(CHECK_HEAD, u + 1);
    assert_int_equal(f.found[0].head, *entry(u));
    assert_found(CHECK_HEAD, u + 3);
    put_plain(u, 1, U_CUT, B); /* another's */
    assert_found(CHECK_HEAD, u + 1);
    put_slab(u, geo4(), U_PARKED, holder_token(A, 0));
    put_plain(u, 1, U_CUT, A);
    assert_found(CHECK_HEAD, u + 2);
    put_slab(u, geo4(), U_PARKED, HOLDER_NOBODY);
    put_slab(u, geo1(), U_PARKED, HOLDER_NOBODY); /* over its head */
    assert_found(CHECK_HEAD, u + 1);
    put_slab(u, geo4(), U_SLAB, holder_token(A, 1));
    *entry(u) = unit_entry_slab(U_RELEASING, geo4(), 0, holder_token(B, 1));
    own(u, 1, B);
    assert_found(CHECK_HEAD, u + 1);
}

static void an_orphans_cut_unit_without_its_block(void **state)
{
    (void)state;
    put_orphan_large(f.first + 70, 10, TAG_HEAP);
    *entry(f.first + 70) = unit_entry_large(9, 0);
    assert_found_alone(CHECK_HEAD, f.first + 79);
}

static void an_inner_unit_that_is_not_its_heads(void **state)
{
    (void)state;
    uint32_t u = f.first;
    put_slab(u, geo4(), U_SLAB, holder_token(A, 1));
    put_plain(u + 2, 1, U_CUT, A); /* one that was forgotten */
    assert_found_alone(CHECK_INNER, u + 2);
    put_slab(u, geo4(), U_SLAB, holder_token(A, 1));
    put_plain(u + 3, 1, U_FREE, 0);
    assert_found_alone(CHECK_INNER, u + 3);
    put_slab(u, geo4(), U_SLAB, holder_token(A, 1));
    *entry(u + 2) = unit_entry_slab(U_SLAB, geo4(), 3, holder_token(A, 1));
    check();
    assert_true(f.n_found > 0); /* it leads into the slab before: no place for one */
    put_slab(u, geo4(), U_SLAB, holder_token(A, 1));
    *entry(u + 2) = unit_entry_slab(U_SLAB, geo_of(1, 2), 2, holder_token(A, 1));
    assert_found_alone(CHECK_INNER, u + 2);
    put_slab(u, geo4(), U_SLAB, holder_token(A, 1));
    put_slab(u + 1, geo1(), U_SLAB, holder_token(B, 1));
    assert_found_alone(CHECK_INNER, u + 1);
    put_slab(u, geo4(), U_SLAB, holder_token(A, 1));
    *entry(u + 1) = unit_entry_slab(U_PARKED, geo_of(1, 2), 1, holder_token(A, 0));
    assert_found_alone(CHECK_INNER, u + 1);
}

static void a_parked_slab_claimed_at_its_head_is_well(void **state)
{
    (void)state;
    put_slab(f.first, geo4(), U_PARKED, holder_token(A, 0));
    *entry(f.first) = unit_entry_slab(U_SLAB, geo4(), 0, holder_token(A, 1));
    assert_well();
}

static void an_inner_unit_of_a_large_block_that_is_not(void **state)
{
    (void)state;
    uint32_t u = f.first;
    put_large(u, 900, A, A);
    put_plain(u + 899, 1, U_UNCUT, A);
    assert_found_alone(CHECK_INNER, u + 899);
    put_large(u, 900, A, A);
    put_plain(u + 700, 1, U_CUT, B);
    assert_found_alone(CHECK_INNER, u + 700);
    put_large(u, 900, A, A);
    *entry(u) |= LARGE_KEPT;
    put_plain(u + 1, 1, U_FREE, 0);
    assert_found_alone(CHECK_INNER, u + 1);
    put_orphan_large(u, 900, TAG_HEAP);
    put_plain(u + 899, 1, U_FREE, 0);
    assert_found_alone(CHECK_INNER, u + 899);
}

static void tags_of_nobody(void **state)
{
    (void)state;
    put_slab(f.first, geo4(), U_SLAB, holder_token(A, 1));
    slab_tags(f.first)[3] = A;
    slab_tags(f.first)[40] = GONE;
    slab_tags(f.first)[geo_infos[geo4()].n_blocks - 1] = 1234;
    assert_found_alone(CHECK_TAG, f.first);
    assert_int_equal(f.found[0].id, GONE);
    assert_int_equal(f.found[0].idx, 40);
    assert_int_equal(f.found[0].n_bad, 2);
    put_slab(f.first, geo4(), U_PARKED, HOLDER_NOBODY);
    assert_found_alone(CHECK_TAG, f.first);
    memset(slab_tags(f.first), 0, UNIT_BYTES);
    put_large(f.first + 4, 9, A, GONE);
    assert_found_alone(CHECK_TAG, f.first + 4);
    put_orphan_large(f.first + 4, 9, GONE);
    assert_found_alone(CHECK_TAG, f.first + 4);
}

static void books_that_contradict_themselves(void **state)
{
    (void)state;
    put_plain(f.first, 1, U_CUT, A);
    f.records[f.first].place = CHECK_FREE;
    assert_found_alone(CHECK_TWICE, f.first);
    put_plain(f.first, 1, U_FREE, 0);
    f.records[f.first].place = CHECK_GRANTED;
    assert_found_alone(CHECK_LOST, f.first);
    put_plain(f.first, 1, U_CUT, GONE);
    assert_found_alone(CHECK_STRANGER, f.first);
}

/* ---- figures ---- */

static void assert_figure(enum check_kind kind, uint64_t seen, uint64_t said)
{
    assert_int_equal(f.n_found, 1);
    assert_int_equal(f.found[0].kind, kind);
    assert_int_equal(f.found[0].seen, seen);
    assert_int_equal(f.found[0].said, said);
    f.n_found = 0;
}

static void figures_of_a_segment(void **state)
{
    (void)state;
    const struct check_segment well = {.slot = 3,
                                       .file_bytes = MIB(3),
                                       .daemon_bytes = MIB(3),
                                       .control_bytes = MIB(3),
                                       .resident_bytes = MIB(4),
                                       .counted_free = 9,
                                       .said_free = 9};
    struct check_segment s = well;
    assert_int_equal(check_segment(&s, note, NULL), 0);
    assert_int_equal(f.n_found, 0);
    s.daemon_bytes = MIB(4);
    (void)check_segment(&s, note, NULL);
    assert_figure(CHECK_FILE_BYTES, MIB(3), MIB(4));
    s = well;
    s.control_bytes = 0;
    (void)check_segment(&s, note, NULL);
    assert_figure(CHECK_CONTROL_SEGMENT, MIB(3), 0);
    s = well;
    s.resident_bytes = MIB(4) + 4096;
    (void)check_segment(&s, note, NULL);
    assert_figure(CHECK_RESIDENT, MIB(4) + 4096, MIB(3));
    s = well;
    s.said_free = 8;
    (void)check_segment(&s, note, NULL);
    assert_figure(CHECK_N_FREE, 9, 8);
    s = well;
    s.header_why = "no";
    (void)check_segment(&s, note, NULL);
    assert_string_equal(f.found[0].why, "no");
    assert_figure(CHECK_HEADER, 0, 0);
}

static void figures_of_clients(void **state)
{
    (void)state;
    static struct check_client clients[CLIENT_IDS];
    const struct check_client well = {4, 4, 4 * UNIT_BYTES, 7, 7};
    struct check_sums sums = {.clients = clients};
    clients[A] = well;
    assert_int_equal(check_sums(&sums, note, NULL), 0);
    assert_int_equal(f.n_found, 0);
    clients[A].counted_units = 3;
    (void)check_sums(&sums, note, NULL);
    assert_int_equal(f.found[0].id, A);
    assert_figure(CHECK_CLIENT_UNITS, 3, 4);
    clients[A] = well;
    clients[A].control_bytes = UNIT_BYTES;
    (void)check_sums(&sums, note, NULL);
    assert_figure(CHECK_CLIENT_BYTES, UNIT_BYTES, 4 * UNIT_BYTES);
    clients[A] = well;
    clients[A].control_gen = 0;
    (void)check_sums(&sums, note, NULL);
    assert_figure(CHECK_GENERATION, 0, 7);
    clients[A] = (struct check_client){0};
    clients[CLIENT_ID_MAX].said_gen = 3;
    (void)check_sums(&sums, note, NULL);
    assert_int_equal(f.found[0].id, CLIENT_ID_MAX);
    assert_figure(CHECK_GENERATION, 0, 3);
}

static void figures_of_a_tenant(void **state)
{
    (void)state;
    static const struct check_client clients[CLIENT_IDS];
    const struct check_sums well = {clients, 2, 2, 2 * UNIT_BYTES, 70, 70, 70};
    struct check_sums s = well;
    assert_int_equal(check_sums(&s, note, NULL), 0);
    assert_int_equal(f.n_found, 0);
    s.counted_units = 3;
    (void)check_sums(&s, note, NULL);
    assert_figure(CHECK_GRANTED_UNITS, 3, 2);
    s = well;
    s.control_granted_bytes = 1;
    (void)check_sums(&s, note, NULL);
    assert_figure(CHECK_GRANTED_BYTES, 1, 2 * UNIT_BYTES);
    s = well;
    s.file_bytes = 71;
    (void)check_sums(&s, note, NULL);
    assert_figure(CHECK_CHARGED, 71, 70);
    s = well;
    s.control_sealed_bytes = 69;
    (void)check_sums(&s, note, NULL);
    assert_figure(CHECK_SEALED, 69, 70);
}

/* ---- whatever there is ---- */

static int stop(void *ctx, const struct check_finding *finding)
{
    (void)finding;
    return ++*(int *)ctx == 3 ? 77 : 0;
}

static void it_ends_with_what_its_function_returned(void **state)
{
    (void)state;
    int n = 0;
    for (uint32_t u = f.first; u < f.first + 9; u++)
        *entry(u) = 1;
    assert_int_equal(check_table(&f.table, stop, &n), 77);
    assert_int_equal(n, 3);
}

static void looking_refills_no_hole(void **state)
{
    (void)state;
    struct stat before, after;
    for (uint32_t u = f.first; u + 4 <= N_UNITS; u += 4)
        put_slab(u, geo4(), U_SLAB, holder_token(A, 1));
    assert_int_equal(fstat(f.fd, &before), 0);
    assert_well();
    assert_int_equal(fstat(f.fd, &after), 0);
    assert_int_equal(before.st_blocks, after.st_blocks);
}

static int inside(void *ctx, const struct check_finding *finding)
{
    (void)ctx;
    assert_true(finding->kind > CHECK_WELL && finding->kind < CHECK_KINDS);
    assert_true(finding->from <= finding->unit && finding->unit < finding->to);
    assert_true(finding->to <= f.shape.n_table);
    f.n_found++;
    return 0;
}

static uint64_t any_entry(void)
{
    if (random() % 4 == 0)
        return (uint64_t)random() << 33 ^ (uint64_t)random() << 11 ^ (uint64_t)random();
    return (uint64_t)(random() % 9) << 48 | (uint64_t)(random() % 3) << 32 |
           (uint64_t)(random() % 6) << UNIT_SHIFT | (uint64_t)(random() % 9) << 8 |
           (uint64_t)(random() & 255);
}

static void garbage_ends_and_stays_inside(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 50; seed++) {
        srandom(seed);
        for (uint32_t u = 0; u < N_UNITS; u++) {
            *entry(u) = any_entry();
            f.records[u] = (struct check_record){random() % 9 ? random() % 9 : TAG_HEAP,
                                                 random() % 8 ? CHECK_GRANTED : random() % 5};
        }
        f.n_found = 0;
        f.table.from = random() % 2 ? 0 : random() % N_UNITS;
        f.table.records = f.records + f.table.from;
        assert_int_equal(check_table(&f.table, inside, NULL), 0);
        assert_true(f.n_found > 0 || f.table.from > N_UNITS - 50);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_agrees_is_passed_over),
        TEST(every_geometry_agrees_where_it_fits),
        TEST(a_slab_comes_and_goes_without_a_finding),
        TEST(a_parked_slab_is_taken_over_without_a_finding),
        TEST(a_large_block_comes_grows_is_kept_and_goes_without_a_finding),
        TEST(what_a_dead_client_had_is_taken_apart_without_a_finding),
        TEST(tables_that_do_not_say_so),
        TEST(a_free_unit_with_an_entry),
        TEST(a_state_that_its_owner_does_not_give),
        TEST(entries_in_a_hole_of_the_table_are_missed),
        TEST(another_holder_than_the_books_say),
        TEST(bits_that_mean_nothing),
        TEST(a_slab_that_there_is_not),
        TEST(a_slab_over_the_end_or_into_the_tables),
        TEST(a_large_block_of_a_size_that_cannot_be),
        TEST(a_block_beyond_a_slot_has_the_units_of_its_record),
        TEST(an_inner_unit_without_its_head),
        TEST(an_orphans_cut_unit_without_its_block),
        TEST(an_inner_unit_that_is_not_its_heads),
        TEST(a_parked_slab_claimed_at_its_head_is_well),
        TEST(an_inner_unit_of_a_large_block_that_is_not),
        TEST(tags_of_nobody),
        TEST(books_that_contradict_themselves),
        TEST(figures_of_a_segment),
        TEST(figures_of_clients),
        TEST(figures_of_a_tenant),
        TEST(it_ends_with_what_its_function_returned),
        TEST(looking_refills_no_hole),
        TEST(garbage_ends_and_stays_inside),
    };
    sizeclass_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
