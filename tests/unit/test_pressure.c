/* SPDX-License-Identifier: Apache-2.0 */
/* Who has too much, and who too little, as the core sees it over time: what the control page says
 * of it, what is refused, and that the daemon sleeps. */
/* ctest-labels: valgrind */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "daemon/capacity.h"
#include "daemon/event.h"
#include "daemon/tenant.h"
#include "tests/unit/drive.h"
#include "tests/unit/fake_core.h"

#define UNITS(mib) ((uint32_t)(MIB(mib) / UNIT_BYTES))

static struct tenant *add(const char *name, struct limits limits)
{
    struct access_list none = {0};
    struct tenant_wish wish = {.limits = limits};
    assert_int_equal(core_add_tenant(&w.core, name, &wish, &none), 0);
    return core_find_tenant(&w.core, name);
}

static int grow_run(struct fake *f, uint32_t n_units, struct block *ret)
{
    struct msg_request req = {.op = MSG_GROW, .grow = {.n_units = n_units, .exact = true}};
    int r = ask(f, req);
    if (r != 0)
        return r;
    ret->n_units = f->reply.grow.run.n_units;
    ret->seg = tenant_locate(f->session.client->tenant, f->reply.grow.run.off, false, &ret->unit);
    assert_non_null(ret->seg);
    fake_cut_large(f, *ret, f->id); /* or it would be taken back */
    return 0;
}

static void give(struct fake *f, struct block b)
{
    struct msg_request req = {.op = MSG_RELEASE};
    req.release.n_runs = 1;
    req.release.runs[0] = (struct msg_run){seg_off(b.seg, b.unit), b.n_units};
    assert_int_equal(ask(f, req), 0);
}

static void map(struct fake *f, uint32_t slot)
{
    struct msg_request req = {.op = MSG_MAP_SEGMENT, .map_segment = {.slot = slot}};
    assert_int_equal(ask(f, req), 0);
    close_fd(&f->fd);
}

static int retire(struct fake *f, uint32_t slot, bool done)
{
    return ask(f, (struct msg_request){.op = MSG_RETIRE, .retire = {.slot = slot, .done = done}});
}

/* All that is due within the time. */
static void live(uint64_t ns)
{
    uint64_t end_ns = w.now_ns + ns, due_ns;
    while ((due_ns = core_deadline(&w.core)) <= end_ns)
        pass(due_ns > w.now_ns ? due_ns - w.now_ns : 0);
    pass(end_ns - w.now_ns);
}

static uint32_t level(const struct tenant *t)
{
    return t->control->header.pressure;
}

/* ---- promises ---- */

static void promises_that_do_not_fit_are_served_while_there_is_room(void **state)
{
    (void)state;
    struct fake f[3];
    struct block b;
    char name[] = "a";
    start_core(MIB(64));
    for (; name[0] <= 'c'; name[0]++) {
        add(name, (struct limits){.min_bytes = MIB(4), .max_bytes = MIB(16)});
        attach_to(&f[name[0] - 'a'], name);
    }
    capacity_set(&w.core, MIB(8));
    assert_int_equal(grow_run(&f[0], 16, &b), 0);
    assert_int_equal(grow_run(&f[1], 16, &b), 0);
    assert_int_equal(grow_run(&f[2], 16, &b), -ENOMEM);
    for (unsigned i = 0; i < 3; i++)
        kill_it(&f[i]);
    finish();
}

/* ---- own segments ---- */

/* Of a tenant with a segment of 8 MiB that is empty, and one client that wants all there is. */
static void start_empty(struct fake *own, struct fake *sleeper, struct fake *other, uint64_t min)
{
    struct block b;
    start_core(MIB(16));
    w.tenant = add("own", (struct limits){.min_bytes = min, .max_bytes = MIB(16)});
    add("other", (struct limits){.max_bytes = MIB(16)});
    attach_to(own, "own");
    attach_to(sleeper, "own");
    assert_int_equal(grow_run(own, UNITS(8) - 20, &b), 0);
    map(own, 0);
    map(sleeper, 0);
    give(own, b);
    attach_to(other, "other");
}

static void take_all(struct fake *f)
{
    struct block b;
    while (grow_run(f, 64, &b) == 0)
        ;
}

static void what_a_sleeper_maps_is_still_its_tenants_to_use(void **state)
{
    (void)state;
    struct fake own, sleeper, other;
    struct block b;
    start_empty(&own, &sleeper, &other, 0);
    for (unsigned i = 0; i < 30; i++) {
        take_all(&other);
        live(SECOND / 10);
    }
    assert_true(w.tenant->segs[0]->is_late);
    take_all(&other);
    assert_int_equal(grow_run(&own, 64, &b), 0);
    kill_it(&own);
    kill_it(&sleeper);
    kill_it(&other);
    finish();
}

/* By one of its tenant who maps that segment, or by one who does not. */
static void expect_what_was_promised(bool maps)
{
    struct fake own, sleeper, newcomer, others[6];
    struct block b;
    char name[] = "a";
    start_empty(&own, &sleeper, &others[0], MIB(2));
    attach_to(&newcomer, "own");
    for (unsigned i = 1; i < ARRAY_LEN(others); i++, name[0]++) {
        add(name, (struct limits){.max_bytes = MIB(16)});
        attach_to(&others[i], name);
    }
    for (unsigned n = 0; n < 40 && (maps || !w.tenant->segs[0]->is_retiring); n++) {
        (void)grow_run(&others[n % 6], 64, &b);
        live(SECOND / 100);
    }
    assert_true(w.tenant->segs[0]->is_retiring && w.tenant->segs[0]->is_late == maps);
    w.tenant->room.wait_again_ns = w.now_ns + SECOND; /* for others' */
    assert_int_equal(grow_run(maps ? &own : &newcomer, 64, &b), 0);
    kill_it(&own);
    kill_it(&sleeper);
    kill_it(&newcomer);
    for (unsigned i = 0; i < ARRAY_LEN(others); i++)
        kill_it(&others[i]);
    finish();
}

static void what_was_promised_is_had_out_of_a_larger_segment(void **state)
{
    (void)state;
    expect_what_was_promised(true);
}

static void what_was_promised_is_had_out_of_what_a_sleeper_maps(void **state)
{
    (void)state;
    expect_what_was_promised(false);
}

/* Does what it is told, or else takes some blocks more. */
struct taker {
    struct fake fake;
    struct tenant *tenant;
    struct block blocks[512];
    unsigned n;
};

static void take_turn(struct taker *t)
{
    uint64_t given_bytes = 0, over_bytes = t->tenant->control->header.over_bytes;
    unsigned n_max = MIN(t->n + 16, ARRAY_LEN(t->blocks));
    for (; t->n > 0 && given_bytes < over_bytes; given_bytes += 4 * UNIT_BYTES)
        give(&t->fake, t->blocks[--t->n]);
    while (over_bytes == 0 && t->n < n_max && grow_run(&t->fake, 4, &t->blocks[t->n]) == 0)
        t->n++;
}

static void who_has_more_than_its_share_in_one_segment_gets_smaller_ones(void **state)
{
    static struct taker takers[3];
    const struct tenant *own;
    char name[] = "a";
    (void)state;
    start_core(MIB(24));
    for (unsigned i = 0; i < ARRAY_LEN(takers); i++, name[0]++) {
        struct limits limits = {MIB(i == 0), MIB(24), 0, i == 0 ? 10 : 100};
        takers[i] = (struct taker){.tenant = add(name, limits)};
        attach_to(&takers[i].fake, name);
    }
    own = takers[0].tenant;
    take_turn(&takers[0]);
    assert_int_equal(own->segs[0]->shape.size_bytes, MIB(4));
    for (unsigned i = 0; i < 200; i++) {
        take_turn(&takers[2]);
        take_turn(&takers[1]);
        take_turn(&takers[0]);
        pass(SECOND / 200);
    }
    uint64_t share_bytes = MIB(1) + MIB(23) / 21;
    assert_in_range(own->budget.charged_bytes, share_bytes - share_bytes / 20,
                    share_bytes + share_bytes / 20);
    for (unsigned i = 0; i < ARRAY_LEN(takers); i++)
        kill_it(&takers[i].fake);
    finish();
}

/* ---- levels ---- */

/* It lets go so long after it was told. */
static void expect_no_level_after(uint64_t ns)
{
    struct fake f;
    struct block a, b;
    start_core(MIB(64));
    w.tenant = add("t", (struct limits){.high_bytes = MIB(6), .max_bytes = MIB(32)});
    attach_to(&f, "t");
    assert_int_equal(grow_run(&f, UNITS(3), &a), 0);
    assert_int_equal(grow_run(&f, UNITS(8), &b), 0);
    uint32_t slot = b.seg->slot;
    map(&f, slot);
    live(5 * SECOND);
    assert_int_equal(level(w.tenant), PRESSURE_HIGH);
    give(&f, b);
    live(10 * SECOND + ns);
    assert_int_equal(retire(&f, slot, false), 0);
    assert_int_equal(retire(&f, slot, true), 0);
    live(10 * SECOND);
    assert_true(w.tenant->budget.charged_bytes < MIB(6));
    assert_int_equal(level(w.tenant), PRESSURE_NONE);
    assert_int_equal(core_deadline(&w.core), UINT64_MAX);
    kill_it(&f);
    finish();
}

static void a_level_goes_when_its_cause_has_gone(void **state)
{
    (void)state;
    for (uint64_t ns = 0; ns < SECOND; ns += SECOND / 10)
        expect_no_level_after(ns);
}

static void whose_sibling_has_gone_has_no_level_any_more(void **state)
{
    (void)state;
    struct fake f, s;
    struct block b;
    struct msg_request drop = {.op = MSG_TENANT_DROP};
    start_core(MIB(64));
    add("g", (struct limits){.high_bytes = MIB(8), .max_bytes = MIB(32)})->is_group = true;
    w.tenant = add("g/t", (struct limits){.max_bytes = MIB(32)});
    add("g/u", (struct limits){.max_bytes = MIB(32)});
    attach_to(&f, "g/t");
    attach_to(&s, "g/u");
    assert_int_equal(grow_run(&f, UNITS(3), &b), 0);
    assert_int_equal(grow_run(&s, UNITS(8), &b), 0);
    live(5 * SECOND);
    assert_int_equal(level(w.tenant), PRESSURE_HIGH);
    kill_it(&s);
    live(5 * SECOND);
    connect_as(&s, 0);
    strcpy(drop.tenant_drop.tenant, "g/u");
    assert_int_equal(ask(&s, drop), 0);
    live(5 * SECOND);
    assert_int_equal(level(w.tenant), PRESSURE_NONE);
    hang_up(&s);
    kill_it(&f);
    finish();
}

static void who_is_above_a_max_that_fell_with_the_capacity_is_told(void **state)
{
    (void)state;
    struct fake f;
    struct block b;
    start_core(MIB(64));
    w.tenant = add("default", (struct limits){.max_bytes = MIB(64)});
    w.core.capacity.is_of_default = true;
    attach_to(&f, "default");
    assert_int_equal(grow_run(&f, UNITS(8), &b), 0);
    capacity_set(&w.core, MIB(4));
    live(5 * SECOND);
    assert_int_equal(level(w.tenant), PRESSURE_MAX);
    kill_it(&f);
    finish();
}

/* ---- shares ---- */

/* A little above its max for so long, before another wants its share. */
static void expect_told_of_share_after(uint64_t ns)
{
    struct fake f, other;
    struct block b;
    start_core(MIB(32));
    struct tenant *t = add("a", (struct limits){.max_bytes = MIB(32)});
    add("b", (struct limits){.max_bytes = MIB(32)});
    attach_to(&f, "a");
    attach_to(&other, "b");
    take_all(&f);
    tenant_set_limits(t, &(struct limits){.max_bytes = t->budget.charged_bytes - UNIT_BYTES});
    live(ns);
    assert_int_equal(grow_run(&other, 16, &b), -ENOMEM);
    assert_int_equal(t->pressure.is_deaf, ns > 0);
    for (unsigned i = 0; i < 100; i++) {
        assert_int_equal(level(t), PRESSURE_MAX);
        assert_int_equal(t->control->header.over_bytes, MIB(4));
        live(SECOND / 100);
        (void)grow_run(&other, 16, &b);
    }
    kill_it(&f);
    kill_it(&other);
    finish();
}

static void who_is_a_little_above_its_max_and_far_above_its_share_gives_its_share(void **state)
{
    (void)state;
    expect_told_of_share_after(0);
}

static void who_has_long_been_deaf_is_told_all_the_same(void **state)
{
    (void)state;
    expect_told_of_share_after(SECOND);
}

static void want_for(struct fake *f, uint64_t ns)
{
    struct block b;

    for (unsigned i = 0; i < 50; i++) {
        assert_int_equal(grow_run(f, 512, &b), -ENOMEM);
        live(ns / 50);
    }
}

/* Others would wait for it once more each time. */
static void who_is_deaf_stays_so_until_it_gives(void **state)
{
    (void)state;
    struct fake f, other;
    struct block first;
    start_core(MIB(32));
    struct tenant *t = add("a", (struct limits){.max_bytes = MIB(32)});
    add("b", (struct limits){.max_bytes = MIB(32)});
    attach_to(&f, "a");
    attach_to(&other, "b");
    assert_int_equal(grow_run(&f, 16, &first), 0);
    take_all(&f);
    assert_false(t->pressure.is_deaf);
    want_for(&other, SECOND / 2);
    assert_true(t->pressure.is_deaf);
    live(10 * SECOND); /* nobody wants anything */
    want_for(&other, SECOND / 100);
    assert_true(t->pressure.is_deaf);
    give(&f, first);
    live(SECOND / 100);
    want_for(&other, SECOND / 100);
    assert_false(t->pressure.is_deaf);
    kill_it(&f);
    kill_it(&other);
    finish();
}

#define CROWD  16u
#define BLOCKS 240u /* of 1 MiB */

/* Gives back an eighth of its blocks, and takes as many, as far as it can. */
static unsigned turn_over(struct fake *f, struct block *blocks, unsigned n, unsigned round)
{
    unsigned part = n / 8, from = round * part % (n - part), to = from;
    for (unsigned i = 0; i < part; i++)
        give(f, blocks[from + i]);
    while (to < from + part && grow_run(f, UNITS(1), &blocks[to]) == 0)
        to++;
    memmove(&blocks[to], &blocks[from + part], (n - from - part) * sizeof(blocks[0]));
    return n - (from + part - to);
}

static void a_large_cache_that_turns_over_does_not_keep_what_another_is_short_of(void **state)
{
    static struct fake f[CROWD];
    static struct block blocks[BLOCKS];
    struct block b;
    char name[] = "a";
    unsigned n = 0;
    (void)state;
    start_core(MIB(256));
    for (unsigned i = 0; i < CROWD; i++, name[0]++) {
        add(name, (struct limits){.max_bytes = MIB(256)});
        attach_to(&f[i], name);
        if (i > 0)
            assert_int_equal(grow_run(&f[i], 16, &b), 0);
    }
    while (n < BLOCKS && grow_run(&f[0], UNITS(1), &blocks[n]) == 0)
        n++;
    assert_true(n > BLOCKS / 2);
    for (unsigned round = 0; round < 200; round++) {
        while (grow_run(&f[1], UNITS(1), &b) == 0)
            ;
        n = turn_over(&f[0], blocks, n, round);
        live(SECOND / 200);
    }
    assert_true(core_find_tenant(&w.core, "b")->budget.charged_bytes > MIB(40));
    for (unsigned i = 0; i < CROWD; i++)
        kill_it(&f[i]);
    finish();
}

/* ---- sleep ---- */

/* Which is ringing for one that does not hear. */
static void who_has_let_go_is_not_rung_for_ever(void **state)
{
    (void)state;
    struct fake own, sleeper, other;
    unsigned n_rung = 0;
    start_empty(&own, &sleeper, &other, 0);
    take_all(&other);
    live(SECOND / 10);
    assert_int_equal(retire(&own, 0, false), 0);
    assert_int_equal(retire(&own, 0, true), 0);
    live(5 * SECOND); /* nobody wants anything any more */
    for (unsigned i = 0; i < 60; i++) {
        uint32_t seq = w.tenant->control->header.event_seq;
        live(SECOND);
        n_rung += w.tenant->control->header.event_seq != seq;
    }
    assert_true(n_rung < 10);
    kill_it(&own);
    kill_it(&sleeper);
    kill_it(&other);
    finish();
}

/* Of 24 MiB one has 16 and does not listen, one has less than its share, all of it in use. */
static void who_has_nothing_to_give_is_not_kept_awake(void **state)
{
    (void)state;
    struct fake f[3];
    struct block b;
    char name[] = "a";
    unsigned n_rung = 0;
    start_core(MIB(24));
    for (; name[0] <= 'c'; name[0]++) {
        add(name, (struct limits){.max_bytes = MIB(24)});
        attach_to(&f[name[0] - 'a'], name);
    }
    while (w.core.ledger.charged_bytes < MIB(16))
        assert_int_equal(grow_run(&f[0], 64, &b), 0);
    assert_int_equal(grow_run(&f[1], UNITS(3), &b), 0);
    w.tenant = core_find_tenant(&w.core, "b");
    take_all(&f[2]);
    for (unsigned i = 0; i < 1000; i++) {
        uint32_t seq = w.tenant->control->header.event_seq;
        assert_int_equal(grow_run(&f[2], 64, &b), -ENOMEM);
        live(SECOND / 100);
        n_rung += w.tenant->control->header.event_seq != seq;
    }
    assert_int_equal(level(w.tenant), PRESSURE_NONE);
    assert_in_range(n_rung, 5, 20);
    for (unsigned i = 0; i < 3; i++)
        kill_it(&f[i]);
    finish();
}

/* One of them asks for much in vain and for little with success, in turns. */
static void whose_level_comes_and_goes_is_not_kept_awake(void **state)
{
    (void)state;
    struct fake f[2];
    struct block b;
    unsigned n_rung = 0;
    start_core(MIB(24));
    w.tenant = add("a", (struct limits){.max_bytes = MIB(24)});
    add("b", (struct limits){.max_bytes = MIB(24)});
    attach_to(&f[0], "a");
    attach_to(&f[1], "b");
    while (w.core.ledger.charged_bytes < MIB(18))
        assert_int_equal(grow_run(&f[0], 64, &b), 0);
    take_all(&f[1]);
    for (unsigned i = 0; i < 1000; i++) {
        uint32_t seq = w.tenant->control->header.event_seq;
        assert_int_equal(grow_run(&f[1], 64, &b), -ENOMEM);
        assert_int_equal(grow_run(&f[1], 1, &b), 0);
        give(&f[1], b);
        live(SECOND / 100);
        n_rung += w.tenant->control->header.event_seq != seq;
    }
    assert_in_range(n_rung, 5, 40);
    kill_it(&f[0]);
    kill_it(&f[1]);
    finish();
}

/* ---- what is said ---- */

/* 16 MiB each of those who want more, and 32 that came later. */
static void who_asks_for_too_large_a_piece_is_told_what_it_could_have(void **state)
{
    (void)state;
    struct fake f[3];
    struct block b;
    char name[] = "a";
    start_core(MIB(32));
    for (; name[0] <= 'c'; name[0]++) {
        add(name, (struct limits){.max_bytes = MIB(64)});
        attach_to(&f[name[0] - 'a'], name);
    }
    for (unsigned i = 0; i < 64; i++)
        (void)grow_run(&f[i % 2], 64, &b);
    capacity_set(&w.core, MIB(64));
    assert_int_equal(grow_run(&f[2], UNITS(30), &b), -ENOMEM);
    assert_non_null(strstr(f[2].reply.text, "others want memory, too"));
    assert_null(strstr(f[2].reply.text, " 0 KiB;"));
    assert_int_equal(grow_run(&f[2], UNITS(18), &b), 0);
    for (unsigned i = 0; i < 3; i++)
        kill_it(&f[i]);
    finish();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(promises_that_do_not_fit_are_served_while_there_is_room),
        cmocka_unit_test(what_a_sleeper_maps_is_still_its_tenants_to_use),
        cmocka_unit_test(what_was_promised_is_had_out_of_a_larger_segment),
        cmocka_unit_test(what_was_promised_is_had_out_of_what_a_sleeper_maps),
        cmocka_unit_test(who_has_more_than_its_share_in_one_segment_gets_smaller_ones),
        cmocka_unit_test(a_level_goes_when_its_cause_has_gone),
        cmocka_unit_test(whose_sibling_has_gone_has_no_level_any_more),
        cmocka_unit_test(who_is_above_a_max_that_fell_with_the_capacity_is_told),
        cmocka_unit_test(who_is_a_little_above_its_max_and_far_above_its_share_gives_its_share),
        cmocka_unit_test(who_has_long_been_deaf_is_told_all_the_same),
        cmocka_unit_test(who_is_deaf_stays_so_until_it_gives),
        cmocka_unit_test(a_large_cache_that_turns_over_does_not_keep_what_another_is_short_of),
        cmocka_unit_test(who_has_let_go_is_not_rung_for_ever),
        cmocka_unit_test(who_has_nothing_to_give_is_not_kept_awake),
        cmocka_unit_test(whose_level_comes_and_goes_is_not_kept_awake),
        cmocka_unit_test(who_asks_for_too_large_a_piece_is_told_what_it_could_have),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
