/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/system/harness.h"

#include <jansson.h>

/* Runs acrectl with these arguments; its exit code. */
static int acrectl_at(const char *socket, const char *args)
{
    char command[512];

    snprintf(command, sizeof(command), "%s --socket %s %s >/dev/null 2>&1", getenv("ACRECTL"),
             socket, args);
    int status = system(command);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static int acrectl(const char *args)
{
    return acrectl_at(the_daemon.socket, args);
}

static json_t *tenant_of(json_t *root)
{
    json_t *tenants = json_object_get(root, "tenants");
    assert_int_equal(json_array_size(tenants), 1);
    return json_array_get(tenants, 0);
}

static long long int_of(json_t *object, const char *key)
{
    json_t *value = json_object_get(object, key);
    if (!json_is_integer(value))
        fail_msg("%s is missing or no integer", key);
    return json_integer_value(value);
}

static void assert_has(json_t *object, const char *const *keys, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!json_object_get(object, keys[i]))
            fail_msg("%s is missing", keys[i]);
}
#define ASSERT_HAS(object, ...)                                                                    \
    do {                                                                                           \
        static const char *const keys[] = {__VA_ARGS__};                                           \
        assert_has(object, keys, sizeof(keys) / sizeof(keys[0]));                                  \
    } while (0)

static void stats_in_json_have_all_keys_that_were_promised(void **state)
{
    struct acre_heap *heap = heap_open(&the_daemon, "default");
    void *block = acre_alloc(heap, 100);
    json_t *root = acrectl_json(&the_daemon, "stats"), *tenant = tenant_of(root);

    (void)state;
    assert_non_null(block);
    ASSERT_HAS(root, "capacity_bytes", "tenants");
    ASSERT_HAS(tenant, "name", "max_bytes", "granted_bytes", "resident_bytes", "live_bytes",
               "live_blocks", "published_bytes", "largest_block_bytes", "largest_free_bytes",
               "waiters", "clients", "classes");
    json_t *client = json_array_get(json_object_get(tenant, "clients"), 0);
    ASSERT_HAS(client, "id", "pid", "name", "granted_bytes", "live_bytes");
    json_t *class = json_array_get(json_object_get(tenant, "classes"), 0);
    ASSERT_HAS(class, "block_bytes", "slabs", "live_blocks", "free_blocks");
    json_decref(root);
    acre_close(heap);
}

/* Blocks from a few bytes to some units, every third published. */
static size_t allocate_many(struct acre_heap *heap, size_t *ret_published)
{
    size_t live = 0;

    *ret_published = 0;
    for (size_t i = 0; i < 200; i++) {
        void *block = acre_alloc(heap, 1 + i * i * 3);
        assert_non_null(block);
        live += acre_usable_size(heap, block);
        if (i % 3 == 0) {
            assert_int_equal(acre_publish(heap, block), 0);
            *ret_published += acre_usable_size(heap, block);
        }
    }
    return live;
}

static void live_bytes_are_the_usable_bytes_of_all_blocks(void **state)
{
    struct acre_heap *heap = heap_open(&the_daemon, "default");
    size_t published, live = allocate_many(heap, &published);
    json_t *root = acrectl_json(&the_daemon, "stats"), *tenant = tenant_of(root);
    json_t *client = json_array_get(json_object_get(tenant, "clients"), 0);

    (void)state;
    assert_int_equal(int_of(tenant, "live_bytes"), live);
    assert_int_equal(int_of(tenant, "live_blocks"), 200);
    assert_int_equal(int_of(tenant, "published_bytes"), published);
    assert_int_equal(int_of(client, "live_bytes"), live - published);
    assert_int_equal(int_of(client, "pid"), getpid());
    assert_int_equal(int_of(client, "id"), acre_self(heap) & 0xffff);
    assert_true(int_of(tenant, "granted_bytes") >= int_of(client, "granted_bytes"));
    assert_true(int_of(client, "granted_bytes") >= (long long)live);
    json_decref(root);
    acre_close(heap);
}

static void classes_and_large_blocks_sum_up_to_the_live_bytes(void **state)
{
    struct acre_heap *heap = heap_open(&the_daemon, "default");
    size_t published, live = allocate_many(heap, &published), i;
    json_t *root = acrectl_json(&the_daemon, "stats"), *tenant = tenant_of(root), *class;
    long long sum = int_of(tenant, "large_bytes");

    (void)state;
    json_array_foreach(json_object_get(tenant, "classes"), i, class) sum +=
        int_of(class, "block_bytes") * int_of(class, "live_blocks");
    assert_int_equal(sum, live);
    json_decref(root);
    acre_close(heap);
}

static void looking_changes_nothing(void **state)
{
    struct acre_heap *heap = heap_open(&the_daemon, "default");
    static const char *const ways[] = {"stats", "check", "map default"};
    size_t published;
    (void)state;
    allocate_many(heap, &published);
    assert_int_equal(acrectl("stats"), 0); /* opens the other tenant's heap, once */
    struct tenant_stats before = tenant_stats(&the_daemon, "default");
    unsigned n_fds = daemon_fds(&the_daemon), n_maps = daemon_maps(&the_daemon);

    for (int i = 0; i < 21; i++)
        assert_int_equal(acrectl(ways[i % 3]), 0);
    struct tenant_stats after = tenant_stats(&the_daemon, "default");
    assert_int_equal(after.granted_bytes, before.granted_bytes);
    assert_int_equal(after.resident_bytes, before.resident_bytes);
    assert_int_equal(after.live_bytes, before.live_bytes);
    /* The last acrectl has exited; the daemon may not have noticed yet. */
    assert_true(daemon_fds(&the_daemon) <= n_fds + 3);
    assert_int_equal(daemon_maps(&the_daemon), n_maps);
    acre_close(heap);
}

static void a_tenant_in_use_is_not_dropped_and_an_unused_one_is(void **state)
{
    struct acre_heap *heap = heap_open(&the_daemon, "default");
    void *block = acre_alloc(heap, 1000);

    (void)state;
    assert_non_null(block);
    assert_int_equal(acre_root_set(heap, "kept", acre_offset(heap, block)), 0);
    assert_int_equal(acrectl("tenant drop default"), 1);
    acre_close(heap);
    expect_settled(&the_daemon, "default", 1024, 0);
    assert_int_equal(acrectl("tenant drop default"), 0);
    struct tenant_stats s = tenant_stats(&the_daemon, "default");
    assert_int_equal(s.live_bytes, 0);
    assert_int_equal(s.granted_bytes, 0);
}

static void a_dropped_heap_can_be_opened_anew_and_is_empty(void **state)
{
    acre_off off;
    (void)state;
    struct acre_heap *heap = heap_open(&the_daemon, "default");
    void *block = acre_alloc(heap, 1000);
    assert_int_equal(acre_root_set(heap, "kept", acre_offset(heap, block)), 0);
    acre_close(heap);
    expect_settled(&the_daemon, "default", 1024, 0);
    assert_int_equal(acrectl("tenant drop default"), 0);

    heap = heap_open(&the_daemon, "default");
    assert_int_equal(acre_root_get(heap, "kept", &off), -ENOENT);
    block = acre_calloc(heap, 1, 5000);
    assert_non_null(block);
    acre_close(heap);
}

static void exit_codes_tell_well_finding_usage_and_no_daemon(void **state)
{
    (void)state;
    assert_int_equal(acrectl("status"), 0);
    assert_int_equal(acrectl("tenants"), 0);
    assert_int_equal(acrectl("clients"), 0);
    assert_int_equal(acrectl("stats"), 0);
    assert_int_equal(acrectl("check"), 0);
    assert_int_equal(acrectl("check default"), 0);
    assert_int_equal(acrectl("check --tenant default --json"), 0);
    assert_int_equal(acrectl("waiters"), 0);
    assert_int_equal(acrectl("waiters default"), 0);
    assert_int_equal(acrectl("waiters --tenant default --json"), 0);
    assert_int_equal(acrectl("waiters nobody"), 1);
    assert_int_equal(acrectl("waiters default default"), 2);
    assert_int_equal(acrectl("check nobody"), 1);
    assert_int_equal(acrectl("check default default"), 2);
    assert_int_equal(acrectl("tenant drop nobody"), 1);
    assert_int_equal(acrectl("stats --tenant nobody"), 1);
    assert_int_equal(acrectl(""), 2);
    assert_int_equal(acrectl("stat"), 2);
    assert_int_equal(acrectl("tenant drop"), 2);
    assert_int_equal(acrectl("stats stats"), 2);
    assert_int_equal(acrectl("--nonsense stats"), 2);
    assert_int_equal(acrectl_at("/nonexistent/acred.sock", "stats"), 3);
    assert_int_equal(acrectl_at("/dev/null", "stats"), 3);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, harness_up, harness_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(stats_in_json_have_all_keys_that_were_promised),
        TEST(live_bytes_are_the_usable_bytes_of_all_blocks),
        TEST(classes_and_large_blocks_sum_up_to_the_live_bytes),
        TEST(looking_changes_nothing),
        TEST(a_tenant_in_use_is_not_dropped_and_an_unused_one_is),
        TEST(a_dropped_heap_can_be_opened_anew_and_is_empty),
        TEST(exit_codes_tell_well_finding_usage_and_no_daemon),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
