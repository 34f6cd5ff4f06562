/* SPDX-License-Identifier: Apache-2.0 */
/* Capacity and budgets: two walls, one book. */
/* ctest-labels: valgrind */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "daemon/ledger.h"

static void test_a_budget_is_a_wall(void **state)
{
    (void)state;
    struct ledger ledger;
    struct budget b;
    ledger_init(&ledger, 1000);
    budget_init(&b, &ledger, 100);
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
    budget_init(&a, &ledger, 100);
    budget_init(&b, &ledger, 100);
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
    budget_init(&b, &ledger, UINT64_MAX);
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
    budget_init(&b, &ledger, 100);
    assert_int_equal(budget_charge(&b, 80), 0);
    budget_orphan(&b, 80);
    assert_int_equal(b.charged_bytes, 0);
    ledger_assert_valid(&ledger);
    assert_int_equal(budget_charge(&b, 21), -ENOMEM);
    assert_int_equal(budget_charge(&b, 20), 0);
    ledger_refund_orphaned(&ledger, 80);
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
        budget_init(&b[i], &ledger, 4000);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_budget_is_a_wall),
        cmocka_unit_test(test_the_capacity_is_a_wall_for_all_together),
        cmocka_unit_test(test_a_refused_charge_changes_nothing),
        cmocka_unit_test(test_orphaned_bytes_leave_the_budget_and_stay_in_the_capacity),
        cmocka_unit_test(test_the_sum_holds_through_random_charges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
