/* SPDX-License-Identifier: Apache-2.0 */
/* The bench measures: whatever the figures are, each participant that is installed has one.
 * ctest-timeout: 300 */
#include "tests/system/harness.h"

#include <jansson.h>
#include <math.h>

static const char *bench;

static json_t *run_bench(const char *arguments)
{
    char command[512];
    json_error_t error;

    snprintf(command, sizeof(command), "%s --json %s", bench, arguments);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    json_t *root = json_loadf(f, 0, &error);
    int status = pclose(f);
    if (!root)
        fail_msg("%s: no JSON: %s", command, error.text);
    assert_int_equal(status, 0);
    return root;
}

static double median(const json_t *measured, const char *key)
{
    const json_t *value = json_object_get(json_object_get(measured, key), "median");

    return json_is_number(value) ? json_number_value(value) : NAN;
}

/* Each peer that was found has a positive ratio in this row. Boost has not all workloads. */
static void check_row(const json_t *row, json_t *found_peers)
{
    const char *name;
    json_t *peer, *by_peer = json_object_get(row, "by_peer");

    assert_true(median(json_object_get(by_peer, "acre"), "value") > 0);
    json_object_foreach(found_peers, name, peer)
    {
        const json_t *measured = json_object_get(by_peer, name);
        bool must = strcmp(name, "acre") != 0 && strcmp(name, "kernel") != 0;
        if (!must || !json_is_true(json_object_get(peer, "found")))
            continue;
        if (!(median(measured, "ratio") > 0) || !(median(measured, "value") > 0))
            fail_msg("%s, %s: nothing of %s", json_string_value(json_object_get(row, "workload")),
                     json_string_value(json_object_get(row, "metric")), name);
    }
}

static void every_installed_peer_has_a_ratio_in_pair_and_batch(void **state)
{
    size_t i;
    json_t *row, *root, *found_peers;

    (void)state;
    root = run_bench("--quick pair batch");
    found_peers = json_object_get(root, "peers");
    assert_true(json_is_true(json_object_get(json_object_get(found_peers, "glibc"), "found")));
    assert_int_equal(json_integer_value(json_object_get(root, "failed")), 0);
    assert_int_equal(json_array_size(json_object_get(root, "rows")), 8 + 3);
    json_array_foreach(json_object_get(root, "rows"), i, row) check_row(row, found_peers);
    json_decref(root);
}

static void goals_name_rows_that_exist(void **state)
{
    json_t *root, *goals;

    (void)state;
    root = run_bench("--quick --peers glibc --runs 1 pair batch");
    goals = json_object_get(root, "goals");
    assert_int_equal(json_array_size(goals), 8 + 3 + 1); /* and the mean */
    json_decref(root);
}

static bool has_workload(const char *name)
{
    char command[512];

    snprintf(command, sizeof(command), "%s --list | grep -qw %s", bench, name);
    return system(command) == 0;
}

/* Each round checks what came out, and its process fails if that is nothing. */
static void lua_and_sqlite_work_on_all_peers(void **state)
{
    size_t i;
    json_t *row, *root, *found_peers;

    (void)state;
    if (!has_workload("real"))
        skip();
    root = run_bench("--quick --runs 1 real");
    found_peers = json_object_get(root, "peers");
    json_object_del(found_peers, "boost"); /* no malloc() */
    assert_int_equal(json_integer_value(json_object_get(root, "failed")), 0);
    assert_int_equal(json_array_size(json_object_get(root, "rows")), 4);
    json_array_foreach(json_object_get(root, "rows"), i, row) check_row(row, found_peers);
    json_decref(root);
}

static double value_of(json_t *rows, const char *metric)
{
    size_t i;
    json_t *row;

    json_array_foreach(rows, i, row)
    {
        const json_t *by_peer = json_object_get(row, "by_peer");
        if (strcmp(json_string_value(json_object_get(row, "metric")), metric) == 0)
            return median(json_object_get(by_peer, "acre"), "value");
    }
    fail_msg("there is no row \"%s\"", metric);
    return NAN;
}

static void a_crowd_is_let_in_and_counted(void **state)
{
    (void)state;
    json_t *root = run_bench("--quick --runs 1 crowd");
    json_t *rows = json_object_get(root, "rows");
    assert_int_equal(json_integer_value(json_object_get(root, "failed")), 0);
    assert_true(value_of(rows, "attached") == 100);
    assert_true(value_of(rows, "descriptors, a client") == 3);
    assert_true(value_of(rows, "round trip, beside") > 0);
    assert_true(value_of(rows, "attach, detach, beside") > 0);
    json_decref(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_installed_peer_has_a_ratio_in_pair_and_batch),
        cmocka_unit_test(goals_name_rows_that_exist),
        cmocka_unit_test(lua_and_sqlite_work_on_all_peers),
        cmocka_unit_test(a_crowd_is_let_in_and_counted),
    };

    bench = getenv("ACRE_BENCH");
    if (!bench || access(bench, X_OK) < 0) {
        printf("1..0 # SKIP there is no acre-bench in this build\n");
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
