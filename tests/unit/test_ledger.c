/* SPDX-License-Identifier: Apache-2.0 */
/* Capacity and budgets: two walls, one book. */
/* ctest-labels: valgrind */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "daemon/ledger.h"

static void begin(struct budget *b, struct ledger *ledger, struct budget *parent,
                  uint64_t min_bytes, uint64_t max_bytes)
{
    budget_init(b, ledger, parent);
    budget_set(b, &(struct limits){.min_bytes = min_bytes, .max_bytes = max_bytes});
}

static void test_a_budget_is_a_wall(void **state)
{
    (void)state;
    struct ledger ledger;
    struct budget b;
    ledger_init(&ledger, 1000);
    begin(&b, &ledger, NULL, 0, 100);
    assert_int_equal(budget_charge(&b, 100), 0);
    assert_int_equal(budget_charge(&b, 1), -ENOMEM);
    assert_int_equal(budget_left(&b), 0);
    budget_refund(&b, 40);
    assert_int_equal(budget_charge(&b, 41), -ENOMEM);
    assert_int_equal(budget_charge(&b, 40), 0);
    ledger_assert_valid(&ledger);
    budget_refund(&b, 100);
    budget_deinit(&b);
    ledger_deinit(&ledger);
}

static void test_the_capacity_is_a_wall_for_all_together(void **state)
{
    (void)state;
    struct ledger ledger;
    struct budget a, b;
    ledger_init(&ledger, 150);
    begin(&a, &ledger, NULL, 0, 100);
    begin(&b, &ledger, NULL, 0, 100);
    assert_int_equal(budget_charge(&a, 100), 0);
    assert_int_equal(budget_charge(&b, 51), -ENOMEM);
    assert_int_equal(budget_charge(&b, 50), 0);
    assert_int_equal(ledger_left(&ledger), 0);
    assert_int_equal(budget_left(&b), 50);
    ledger_assert_valid(&ledger);
    budget_refund(&a, 100);
    budget_refund(&b, 50);
    budget_deinit(&a);
    budget_deinit(&b);
    ledger_deinit(&ledger);
}

static void test_a_refused_charge_changes_nothing(void **state)
{
    (void)state;
    struct ledger ledger;
    struct budget b;
    ledger_init(&ledger, UINT64_MAX);
    begin(&b, &ledger, NULL, 0, UINT64_MAX);
    assert_int_equal(budget_charge(&b, 7), 0);
    assert_int_equal(budget_charge(&b, UINT64_MAX), -ENOMEM); /* would wrap */
    assert_int_equal(b.charged_bytes, 7);
    assert_int_equal(ledger.charged_bytes, 7);
    budget_refund(&b, 7);
    budget_deinit(&b);
    ledger_deinit(&ledger);
}

static void test_orphaned_bytes_leave_the_budget_and_stay_in_the_capacity(void **state)
{
    (void)state;
    struct ledger ledger;
    struct budget b;
    ledger_init(&ledger, 100);
    begin(&b, &ledger, NULL, 0, 100);
    assert_int_equal(budget_charge(&b, 80), 0);
    budget_orphan(&b, 80);
    assert_int_equal(b.charged_bytes, 0);
    ledger_assert_valid(&ledger);
    assert_int_equal(budget_charge(&b, 21), -ENOMEM);
    assert_int_equal(budget_charge(&b, 20), 0);
    budget_refund_orphaned(&b, 80);
    ledger_assert_valid(&ledger);
    budget_refund(&b, 20);
    budget_deinit(&b);
    ledger_deinit(&ledger);
}

static void test_the_sum_holds_through_random_charges(void **state)
{
    (void)state;
    struct ledger ledger;
    struct budget b[4];
    uint64_t sum[4] = {0}, total = 0;
    ledger_init(&ledger, 10000);
    for (int i = 0; i < 4; i++)
        begin(&b[i], &ledger, NULL, 0, 4000);
    srand(3);
    for (int step = 0; step < 10000; step++) {
        int i = rand() % 4;
        uint64_t n = (uint64_t)rand() % 900;
        if (rand() % 2) {
            bool fits = sum[i] + n <= 4000 && total + n <= 10000;
            assert_int_equal(budget_charge(&b[i], n), fits ? 0 : -ENOMEM);
            sum[i] += fits ? n : 0;
            total += fits ? n : 0;
        } else {
            n = MIN(n, sum[i]);
            budget_refund(&b[i], n);
            sum[i] -= n;
            total -= n;
        }
        assert_int_equal(b[i].charged_bytes, sum[i]);
        assert_int_equal(ledger_left(&ledger), 10000 - total);
        ledger_assert_valid(&ledger);
    }
    for (int i = 0; i < 4; i++) {
        budget_refund(&b[i], sum[i]);
        budget_deinit(&b[i]);
    }
    ledger_deinit(&ledger);
}

/* ---- promises and groups ---- */

static void test_a_min_is_had_whatever_others_take_first(void **state)
{
    (void)state;
    struct ledger ledger;
    struct budget a, b;
    ledger_init(&ledger, 100);
    begin(&a, &ledger, NULL, 30, 100);
    begin(&b, &ledger, NULL, 0, 100);
    assert_int_equal(budget_capacity_left(&b), 70);
    assert_int_equal(budget_charge(&b, 71), -ENOMEM);
    assert_int_equal(budget_charge(&b, 70), 0);
    assert_int_equal(budget_charge(&a, 30), 0);
    assert_int_equal(budget_charge(&a, 1), -ENOMEM);
    budget_refund(&a, 10); /* it is a's again, not anybody's */
    assert_int_equal(budget_charge(&b, 1), -ENOMEM);
    ledger_assert_valid(&ledger);
    budget_refund(&b, 70);
    budget_refund(&a, 20);
    budget_deinit(&a);
    budget_deinit(&b);
    ledger_deinit(&ledger);
}

/* What one has given up is not free before nobody maps it: its min is not held a second time. */
static void test_what_haunts_a_promise_is_not_promised_again(void **state)
{
    (void)state;
    struct ledger ledger;
    struct budget team, a, b;
    ledger_init(&ledger, 100);
    begin(&team, &ledger, NULL, 0, 100);
    begin(&a, &ledger, &team, 60, 100);
    begin(&b, &ledger, NULL, 40, 100);
    assert_int_equal(budget_charge(&a, 60), 0);
    budget_orphan(&a, 60);
    assert_int_equal(budget_charge(&b, 40), 0);
    assert_int_equal(budget_charge(&a, 1), -ENOMEM);
    budget_move(&a, NULL);
    ledger_assert_valid(&ledger);
    budget_refund_orphaned(&a, 60);
    assert_int_equal(a.held_bytes, 60);
    assert_int_equal(budget_charge(&b, 1), -ENOMEM);
    assert_int_equal(budget_charge(&a, 60), 0);
    ledger_assert_valid(&ledger);
    budget_refund(&a, 60);
    budget_refund(&b, 40);
    budget_deinit(&a);
    budget_deinit(&b);
    budget_deinit(&team);
    ledger_deinit(&ledger);
}

static void test_a_groups_limits_hold_for_all_in_it(void **state)
{
    (void)state;
    struct ledger ledger;
    struct budget team, one, two, else_;
    ledger_init(&ledger, 1000);
    begin(&team, &ledger, NULL, 200, 300);
    begin(&one, &ledger, &team, 50, 300);
    begin(&two, &ledger, &team, 0, 300);
    begin(&else_, &ledger, NULL, 0, 1000);
    assert_int_equal(budget_left(&two), 250); /* 50 are one's */
    assert_int_equal(budget_charge(&else_, 801), -ENOMEM);
    assert_int_equal(budget_charge(&else_, 800), 0);
    assert_int_equal(budget_charge(&two, 151), -ENOMEM); /* the team's 200, but for one's 50 */
    assert_int_equal(budget_charge(&two, 150), 0);
    assert_int_equal(budget_charge(&one, 50), 0);
    assert_int_equal(budget_charge(&one, 1), -ENOMEM);
    assert_int_equal(team.total_bytes, 200);
    assert_int_equal(team.charged_bytes, 0);
    budget_refund(&else_, 800);
    assert_int_equal(budget_charge(&one, 101), -ENOMEM); /* the team's max */
    assert_int_equal(budget_charge(&one, 100), 0);
    ledger_assert_valid(&ledger);
    budget_refund(&one, 150);
    budget_refund(&two, 150);
    budget_deinit(&one);
    budget_deinit(&two);
    budget_deinit(&team);
    budget_deinit(&else_);
    ledger_deinit(&ledger);
}

static void test_limits_change_and_nothing_is_taken(void **state)
{
    (void)state;
    struct ledger ledger;
    struct budget a, b;
    ledger_init(&ledger, 100);
    begin(&a, &ledger, NULL, 0, 100);
    begin(&b, &ledger, NULL, 0, 100);
    assert_int_equal(budget_charge(&a, 80), 0);
    budget_set(&a, &(struct limits){.min_bytes = 0, .max_bytes = 50});
    assert_int_equal(a.charged_bytes, 80);
    assert_int_equal(budget_left(&a), 0);
    budget_set(&b, &(struct limits){.min_bytes = 60, .max_bytes = 100}); /* of which 20 are there */
    assert_int_equal(budget_charge(&b, 21), -ENOMEM);
    assert_int_equal(budget_charge(&b, 20), 0);
    budget_refund(&a, 40);
    assert_int_equal(budget_charge(&a, 10), -ENOMEM); /* b's first */
    assert_int_equal(budget_charge(&b, 40), 0);
    ledger.capacity_bytes = 90;
    assert_int_equal(budget_charge(&b, 1), -ENOMEM);
    ledger_assert_valid(&ledger);
    budget_refund(&a, 40);
    budget_refund(&b, 60);
    budget_deinit(&a);
    budget_deinit(&b);
    ledger_deinit(&ledger);
}

/* A wall that was moved into what is promised below it. */
static void test_a_wall_keeps_nothing_that_nobody_may_have(void **state)
{
    (void)state;
    struct ledger ledger;
    struct budget group, a, b, other;
    ledger_init(&ledger, 300);
    begin(&group, &ledger, NULL, 0, 200);
    begin(&a, &ledger, &group, 60, 200);
    begin(&b, &ledger, &group, 60, 200);
    begin(&other, &ledger, NULL, 0, 300);
    assert_int_equal(budget_charge(&b, 50), 0);
    budget_set(&group, &(struct limits){.max_bytes = 100});
    assert_int_equal(group.held_bytes, 50); /* of 70 that are promised */
    assert_int_equal(budget_capacity_left(&other), 200);
    /* Who comes first gets what is left, up to its promise. */
    assert_int_equal(budget_left(&a), 50);
    assert_int_equal(budget_left(&b), 10);
    assert_int_equal(budget_spare(&b, &other), 0); /* it would all be held */
    assert_int_equal(budget_charge(&a, 50), 0);
    assert_int_equal(group.held_bytes, 0);
    assert_int_equal(budget_left(&b), 0);
    assert_int_equal(budget_charge(&other, 200), 0);
    ledger_assert_valid(&ledger);
    budget_refund(&a, 50);
    assert_int_equal(group.held_bytes, 50);
    budget_refund(&b, 50);
    budget_refund(&other, 200);
    budget_deinit(&a);
    budget_deinit(&b);
    budget_deinit(&group);
    budget_deinit(&other);
    ledger_deinit(&ledger);
}

static void test_what_others_may_have_is_what_was_not_promised(void **state)
{
    (void)state;
    struct ledger ledger;
    struct budget team, one, two, else_;
    ledger_init(&ledger, 1000);
    begin(&team, &ledger, NULL, 100, 300);
    begin(&one, &ledger, &team, 20, 300);
    begin(&two, &ledger, &team, 0, 300);
    begin(&else_, &ledger, NULL, 0, 1000);
    assert_int_equal(budget_charge(&one, 110), 0);
    assert_int_equal(budget_spare(&one, &else_), 10); /* the team's min */
    assert_int_equal(budget_spare(&one, &two), 90);   /* its own */
    assert_int_equal(budget_spare(&one, &one), UINT64_MAX);
    budget_move(&one, NULL);
    assert_int_equal(budget_spare(&one, &else_), 90);
    assert_int_equal(team.total_bytes, 0);
    ledger_assert_valid(&ledger);
    budget_refund(&one, 110);
    budget_deinit(&one);
    budget_deinit(&two);
    budget_deinit(&team);
    budget_deinit(&else_);
    ledger_deinit(&ledger);
}

static void test_a_budget_moves_with_what_is_held_below_it(void **state)
{
    (void)state;
    struct ledger ledger;
    struct budget top, team, one;
    ledger_init(&ledger, 1000);
    begin(&top, &ledger, NULL, 0, 300);
    begin(&team, &ledger, NULL, 0, 300);
    begin(&one, &ledger, &team, 20, 300);
    budget_move(&team, &top);
    ledger_assert_valid(&ledger);
    assert_int_equal(top.held_bytes, 20);
    budget_move(&team, NULL);
    ledger_assert_valid(&ledger);
    assert_int_equal(top.held_bytes, 0);
    budget_deinit(&one);
    budget_deinit(&team);
    budget_deinit(&top);
    ledger_deinit(&ledger);
}

/* ---- beside a naive twin: all is computed anew from what each has charged ---- */

#define TREE 12

struct twin {
    int parent[TREE];
    uint64_t min[TREE], max[TREE], charged[TREE], capacity;
};

static uint64_t twin_total(const struct twin *t, int i)
{
    uint64_t sum = t->charged[i];
    for (int k = 0; k < TREE; k++)
        if (t->parent[k] == i)
            sum += twin_total(t, k);
    return sum;
}

/* What must stay free for i and all below it. */
static uint64_t twin_owed(const struct twin *t, int i)
{
    uint64_t below = 0, total = twin_total(t, i), own = t->min[i] - MIN(t->min[i], total);
    for (int k = 0; k < TREE; k++)
        if (t->parent[k] == i)
            below += twin_owed(t, k);
    return MAX(own, below);
}

/* Is all that was promised still to be had? */
static bool twin_keeps(const struct twin *t)
{
    uint64_t all = 0;
    for (int i = 0; i < TREE; i++) {
        uint64_t sum = twin_total(t, i);
        for (int k = 0; k < TREE; k++)
            if (t->parent[k] == i)
                sum += twin_owed(t, k);
        if (sum > t->max[i])
            return false;
        if (t->parent[i] < 0)
            all += twin_total(t, i) + twin_owed(t, i);
    }
    return all <= t->capacity;
}

/* Limits that can be kept. */
static void twin_draw(struct twin *t)
{
    do {
        t->capacity = 500 + (uint64_t)rand() % 1500;
        for (int i = 0; i < TREE; i++) {
            t->parent[i] = rand() % (i + 1) - 1;
            t->min[i] = rand() % 2 ? 0 : (uint64_t)rand() % 200;
            t->max[i] = t->min[i] + (uint64_t)rand() % 900;
            t->charged[i] = 0;
        }
    } while (!twin_keeps(t));
}

static void fill_all_promises(struct twin *t, struct budget *b)
{
    for (int i = TREE; i-- > 0;) { /* parents have lower numbers: their children come first */
        uint64_t total = twin_total(t, i), n = t->min[i] - MIN(t->min[i], total);
        assert_int_equal(budget_charge(&b[i], n), 0);
        t->charged[i] += n;
    }
}

/* Does i's giving back leave another that is not below it what it was said to? */
static void compare_spare(struct budget *b, uint64_t charged, int i)
{
    const struct budget *up, *other = &b[rand() % TREE];
    for (up = other; up && up != &b[i];)
        up = up->parent;
    if (up)
        return;
    uint64_t spare = budget_spare(&b[i], other), left = budget_capacity_left(other);
    budget_refund(&b[i], charged);
    assert_int_equal(budget_capacity_left(other) - left, MIN(spare, charged));
    budget_restore(&b[i], charged);
}

static void test_trees_grant_what_breaks_no_promise_and_nothing_else(void **state)
{
    (void)state;
    unsigned n_granted = 0, n_refused = 0;
    for (unsigned seed = 1; seed <= 150; seed++) {
        struct ledger ledger;
        struct budget b[TREE];
        struct twin t;
        srand(seed);
        twin_draw(&t);
        ledger_init(&ledger, t.capacity);
        for (int i = 0; i < TREE; i++)
            begin(&b[i], &ledger, t.parent[i] < 0 ? NULL : &b[t.parent[i]], t.min[i], t.max[i]);
        for (int step = 0; step < 200; step++) {
            int i = rand() % TREE;
            uint64_t n = (uint64_t)rand() % 120;
            if (rand() % 3 == 0) {
                n = MIN(n, t.charged[i]);
                budget_refund(&b[i], n);
                t.charged[i] -= n;
                continue;
            }
            t.charged[i] += n;
            bool may = twin_keeps(&t);
            assert_int_equal(budget_charge(&b[i], n), may ? 0 : -ENOMEM);
            if (!may)
                t.charged[i] -= n;
            n_granted += may;
            n_refused += !may;
            compare_spare(b, t.charged[i], i);
            ledger_assert_valid(&ledger);
        }
        fill_all_promises(&t, b);
        for (int i = TREE; i-- > 0;) {
            budget_refund(&b[i], t.charged[i]);
            budget_deinit(&b[i]);
        }
        ledger_deinit(&ledger);
    }
    assert_true(n_granted > 1000 && n_refused > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_budget_is_a_wall),
        cmocka_unit_test(test_the_capacity_is_a_wall_for_all_together),
        cmocka_unit_test(test_a_refused_charge_changes_nothing),
        cmocka_unit_test(test_orphaned_bytes_leave_the_budget_and_stay_in_the_capacity),
        cmocka_unit_test(test_the_sum_holds_through_random_charges),
        cmocka_unit_test(test_a_min_is_had_whatever_others_take_first),
        cmocka_unit_test(test_what_haunts_a_promise_is_not_promised_again),
        cmocka_unit_test(test_a_groups_limits_hold_for_all_in_it),
        cmocka_unit_test(test_limits_change_and_nothing_is_taken),
        cmocka_unit_test(test_a_wall_keeps_nothing_that_nobody_may_have),
        cmocka_unit_test(test_what_others_may_have_is_what_was_not_promised),
        cmocka_unit_test(test_a_budget_moves_with_what_is_held_below_it),
        cmocka_unit_test(test_trees_grant_what_breaks_no_promise_and_nothing_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
