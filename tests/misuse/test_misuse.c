/* SPDX-License-Identifier: Apache-2.0 */
/* ctest-labels: valgrind */
/* The sins of one client: each is reported with what and where, changes nothing, and the heap goes
 * on. */
#include "tests/system/harness.h"

static struct acre_heap *heap;

static struct {
    unsigned n;
    struct acre_misuse last;
    char message[256];
} seen;

static void note(void *ctx, const struct acre_misuse *misuse)
{
    assert_ptr_equal(ctx, &seen);
    seen.n++;
    seen.last = *misuse;
    snprintf(seen.message, sizeof(seen.message), "%s", misuse->message);
}

static void expect_report(enum acre_misuse_kind kind, const char *function, const void *address)
{
    if (seen.n != 1)
        fail_msg("%u reports instead of one for %s(%p)", seen.n, function, address);
    assert_int_equal(seen.last.kind, kind);
    assert_string_equal(seen.last.function, function);
    assert_ptr_equal(seen.last.address, address);
    assert_int_equal(seen.last.client, acre_self(heap));
    assert_int_equal(seen.last.off, kind == ACRE_MISUSE_FOREIGN ? 0 : acre_offset(heap, address));
    assert_true(strstr(seen.message, function) != NULL);
    assert_null(strchr(seen.message, '\n'));
    printf("%s\n", seen.message);
    seen.n = 0;
}

/* The heap after the sin: a thousand blocks, all distinct, all whole. */
static void expect_unharmed(void)
{
    static unsigned char *blocks[1000];

    for (unsigned i = 0; i < 1000; i++) {
        blocks[i] = acre_alloc(heap, 48);
        assert_non_null(blocks[i]);
        memset(blocks[i], (int)(i & 0xff), 48);
    }
    for (unsigned i = 0; i < 1000; i++) {
        for (unsigned k = 0; k < 48; k++)
            assert_int_equal(blocks[i][k], i & 0xff);
        acre_free(heap, blocks[i]);
    }
    assert_int_equal(seen.n, 0);
    assert_int_equal(tenant_stats(&the_daemon, "default").live_bytes, 0);
}

static void a_double_free_is_reported(void **state)
{
    (void)state;
    for (size_t size = 1; size < 3000000; size = size * 3 + 1) {
        void *block = acre_alloc(heap, size);
        acre_free(heap, block);
        acre_free(heap, block);
        expect_report(ACRE_MISUSE_DOUBLE_FREE, "acre_free", block);
    }
    expect_unharmed();
}

static void a_pointer_inside_a_block_is_reported(void **state)
{
    (void)state;
    for (size_t size = 100; size < 3000000; size = size * 3 + 1) {
        char *block = acre_alloc(heap, size);
        for (size_t inside = 1; inside < size; inside = inside * 2 + 1) {
            acre_free(heap, block + inside);
            expect_report(ACRE_MISUSE_INTERIOR, "acre_free", block + inside);
        }
        assert_int_equal(acre_owner(heap, block), acre_self(heap));
        acre_free(heap, block);
    }
    expect_unharmed();
}

static void a_foreign_pointer_is_reported(void **state)
{
    (void)state;
    int local;
    void *private = malloc(100);
    void *foreign[] = {&local,    private,    (void *)a_foreign_pointer_is_reported,
                       (void *)1, (void *)-1, (void *)(uintptr_t)0x7000000000000000};

    for (unsigned i = 0; i < sizeof(foreign) / sizeof(foreign[0]); i++) {
        acre_free(heap, foreign[i]);
        expect_report(ACRE_MISUSE_FOREIGN, "acre_free", foreign[i]);
        assert_null(acre_realloc(heap, foreign[i], 10));
        assert_int_equal(errno, EINVAL);
        expect_report(ACRE_MISUSE_FOREIGN, "acre_realloc", foreign[i]);
        assert_int_equal(acre_usable_size(heap, foreign[i]), 0);
        assert_int_equal(acre_offset(heap, foreign[i]), 0);
        assert_int_equal(acre_owner(heap, foreign[i]), 0);
        assert_int_equal(acre_publish(heap, foreign[i]), -EINVAL);
        assert_int_equal(acre_adopt(heap, foreign[i]), -EINVAL);
    }
    free(private);
    expect_unharmed();
}

static void addresses_in_the_heap_where_nothing_is_are_reported(void **state)
{
    (void)state;
    char *block = acre_alloc(heap, 100), *base = block - acre_offset(heap, block);
    uint64_t offs[] = {0, 8, 4096, 8192, 1 << 20, 3ull << 30, (256ull << 30) - 1};

    for (unsigned i = 0; i < sizeof(offs) / sizeof(offs[0]); i++) {
        acre_free(heap, base + offs[i]);
        assert_int_equal(seen.n, 1);
        assert_int_equal(seen.last.kind, ACRE_MISUSE_INTERIOR);
        seen.n = 0;
    }
    acre_free(heap, block);
    expect_unharmed();
}

static bool free_twice(void *arg)
{
    acre_set_misuse_handler(NULL, NULL);
    void *block = acre_alloc(heap, 100);
    acre_free(heap, block);
    if (!freopen(arg, "w", stderr))
        return false;
    acre_free(heap, block);
    return true;
}

static void the_default_handler_writes_one_line_and_aborts(void **state)
{
    (void)state;
    char path[128], line[512], more[8];

    snprintf(path, sizeof(path), "%s/stderr", the_daemon.dir);
    assert_int_equal(child_signal(child_start(free_twice, path)), SIGABRT);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    assert_non_null(fgets(line, sizeof(line), f));
    assert_null(fgets(more, sizeof(more), f));
    fclose(f);
    unlink(path);
    assert_true(strstr(line, "acre_free") && strstr(line, "free already"));
    expect_unharmed();
}

static bool free_a_foreign_process_block(void *arg)
{
    acre_off *off = arg;
    void *block = acre_pointer(heap, *off);

    acre_free(heap, block);
    CHECK(seen.n == 0);
    acre_free(heap, block);
    CHECK(seen.n == 1 && seen.last.kind == ACRE_MISUSE_DOUBLE_FREE);
    return true;
}

static void a_double_free_by_another_process_is_reported(void **state)
{
    (void)state;
    acre_off *off = shared_page(sizeof(*off));
    void *block = acre_alloc(heap, 100);
    *off = acre_offset(heap, block);
    RUN_CHILD(free_a_foreign_process_block, off);
    acre_free(heap, block);
    expect_report(ACRE_MISUSE_DOUBLE_FREE, "acre_free", block);
    expect_unharmed();
}

static bool realloc_a_foreign_block(void *arg)
{
    acre_off *off = arg;
    CHECK(acre_realloc(heap, acre_pointer(heap, *off), 1000) == NULL && errno == EPERM);
    return true;
}

static void another_clients_block_is_not_resized(void **state)
{
    (void)state;
    acre_off *off = shared_page(sizeof(*off));
    void *block = acre_alloc(heap, 100);
    *off = acre_offset(heap, block);
    RUN_CHILD(realloc_a_foreign_block, off);
    acre_free(heap, block);
    expect_unharmed();
}

static int up(void **state)
{
    (void)state;
    daemon_up(&the_daemon, NULL);
    heap = heap_open(&the_daemon, NULL);
    acre_set_misuse_handler(note, &seen);
    return 0;
}

static int down(void **state)
{
    (void)state;
    acre_close(heap);
    daemon_down(&the_daemon);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_double_free_is_reported),
        cmocka_unit_test(a_pointer_inside_a_block_is_reported),
        cmocka_unit_test(a_foreign_pointer_is_reported),
        cmocka_unit_test(addresses_in_the_heap_where_nothing_is_are_reported),
        cmocka_unit_test(the_default_handler_writes_one_line_and_aborts),
        cmocka_unit_test(a_double_free_by_another_process_is_reported),
        cmocka_unit_test(another_clients_block_is_not_resized),
    };
    return cmocka_run_group_tests(tests, up, down);
}
