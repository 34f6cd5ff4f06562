/* SPDX-License-Identifier: Apache-2.0 */
/* ACRE_READ_ONLY: who may look reads what others have written, and can change nothing. */
#include "tests/system/harness.h"

#include <sys/mman.h>
#include <sys/stat.h>

#define READER 4001

static int open_to_read(struct acre_heap **ret_heap, const char *tenant)
{
    struct acre_options o = {
        .size = sizeof(o), .address = the_daemon.socket, .tenant = tenant, .flags = ACRE_READ_ONLY};
    return acre_open_with(ret_heap, &o);
}

static void *write_down(struct acre_heap *heap, const char *name, const char *text, size_t bytes)
{
    char *block = acre_alloc(heap, bytes);
    assert_non_null(block);
    strcpy(block + bytes - 64, text);
    assert_int_equal(acre_root_set(heap, name, acre_offset(heap, block)), 0);
    return block;
}

static bool reads(struct acre_heap *heap, const char *name, const char *text, size_t bytes)
{
    acre_off off = 0;
    CHECK(acre_root_get(heap, name, &off) == 0);
    const char *block = acre_pointer(heap, off);
    CHECK(block != NULL && strcmp(block + bytes - 64, text) == 0);
    CHECK(acre_offset(heap, block) == off);
    return true;
}

/* ---- reading ---- */

static bool inherits(void *arg)
{
    CHECK(reads(arg, "b", "second", 3u << 20)); /* by a connection of its own */
    return true;
}

static void a_reader_reads_what_is_there_and_what_comes(void **state)
{
    struct acre_heap *heap = heap_open(&the_daemon, "default"), *reader, *again;
    (void)state;
    void *a = write_down(heap, "a", "first", 100);
    assert_int_equal(open_to_read(&reader, "default"), 0);
    assert_int_equal(open_to_read(&again, "default"), 0);
    assert_ptr_equal(reader, again);
    acre_close(again);
    assert_ptr_not_equal(reader, heap);
    assert_true(reads(reader, "a", "first", 100));
    void *b = write_down(heap, "b", "second", 3u << 20);
    assert_true(reads(reader, "b", "second", 3u << 20));
    RUN_CHILD(inherits, reader);
    kill(daemon_worker(&the_daemon), SIGKILL);
    void *c = write_down(heap, "c", "third", 40u << 20); /* in a segment that is new */
    assert_true(reads(reader, "c", "third", 40u << 20));
    assert_int_equal(tenant_stats(&the_daemon, "default").n_clients, 1); /* it is none */
    acre_close(reader);
    assert_int_equal(acre_root_del(heap, "a") | acre_root_del(heap, "b") | acre_root_del(heap, "c"),
                     0);
    acre_free(heap, a);
    acre_free(heap, b);
    acre_free(heap, c);
    acre_close(heap);
}

/* ---- changing ---- */

static unsigned n_misuses;

static void count_misuse(void *ctx, const struct acre_misuse *misuse)
{
    (void)ctx;
    n_misuses += misuse->kind == ACRE_MISUSE_READ_ONLY && strstr(misuse->message, "read-only");
}

static void what_would_change_the_heap_is_refused(void **state)
{
    struct acre_heap *heap = heap_open(&the_daemon, "default"), *reader;
    acre_off off;
    (void)state;
    void *blocks[] = {write_down(heap, "a", "first", 100),
                      write_down(heap, "b", "large", 3u << 20)};
    assert_int_equal(open_to_read(&reader, "default"), 0);
    acre_set_misuse_handler(count_misuse, NULL);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(acre_root_get(reader, i ? "b" : "a", &off), 0);
        char *block = acre_pointer(reader, off);
        acre_free(reader, block);
        assert_int_equal(n_misuses, i + 1);
        assert_null(acre_realloc(reader, block, 200));
        assert_int_equal(errno, EPERM);
        assert_int_equal(acre_publish(reader, block), -EPERM);
        assert_int_equal(acre_give(reader, block, acre_self(heap)), -EPERM);
        assert_int_equal(acre_adopt(reader, block), -EPERM);
        assert_int_equal(acre_publish_at(reader, block, (acre_off *)block), -EPERM);
        assert_null(acre_take_at(reader, (acre_off *)block, 0));
        assert_int_equal(errno, EPERM);
        assert_int_equal(acre_unlink_free(reader, (acre_off *)block, 0), -EPERM);
        assert_int_equal(acre_root_set(reader, "c", off), -EPERM);
        assert_int_equal(acre_root_cas(reader, "a", off, 0), -EPERM);
        assert_int_equal(acre_root_del(reader, "a"), -EPERM);
        assert_null(acre_alloc(reader, i ? 10u << 20 : 10));
        assert_int_equal(errno, EPERM);
        assert_non_null(strstr(acre_last_error(), "read-only"));
        assert_null(acre_calloc(reader, 10, 10));
        assert_null(acre_allocx(reader, 10, 64, ACRE_HEAP_OWNED));
        assert_int_equal(acre_reserve(reader, 10, 10), -EPERM);
        assert_int_equal(acre_self(reader), 0);
        assert_int_equal(acre_owner(reader, block), 0);
        assert_int_equal(acre_trim(reader), 0);
        assert_int_equal(acre_publish_all(reader), 0);
        assert_int_equal(acre_owner(heap, blocks[i]), ACRE_OWNER_HEAP); /* as it was */
    }
    acre_set_misuse_handler(NULL, NULL);
    acre_close(reader);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(acre_root_del(heap, i ? "b" : "a"), 0);
        acre_free(heap, blocks[i]);
    }
    acre_close(heap);
}

/* ---- another user ---- */

static bool looks_and_cannot_write(void *arg)
{
    struct acre_heap *heap;
    acre_off off;
    (void)arg;
    CHECK(setresuid(READER, READER, READER) == 0);
    CHECK(acre_open(&heap, the_daemon.socket, "default") == -EACCES);
    CHECK(open_to_read(&heap, "default") == 0);
    CHECK(reads(heap, "a", "first", 100));
    CHECK(acre_root_get(heap, "a", &off) == 0);
    char *page = (char *)((uintptr_t)acre_pointer(heap, off) & ~(uintptr_t)4095);
    CHECK(mprotect(page, 4096, PROT_READ | PROT_WRITE) < 0 && errno == EACCES);
    acre_close(heap);
    return true;
}

static bool may_not_even_look(void *arg)
{
    struct acre_heap *heap;
    (void)arg;
    CHECK(setresuid(READER + 1, READER + 1, READER + 1) == 0);
    CHECK(open_to_read(&heap, "default") == -EACCES);
    CHECK(strstr(acre_last_error(), "read_users"));
    return true;
}

static void who_may_only_look_cannot_make_it_writable(void **state)
{
    (void)state;
    if (geteuid() != 0)
        skip();
    assert_int_equal(chmod(the_daemon.dir, 0755), 0);
    struct acre_heap *heap = heap_open(&the_daemon, "default");
    void *block = write_down(heap, "a", "first", 100);
    RUN_CHILD(looks_and_cannot_write, NULL);
    RUN_CHILD(may_not_even_look, NULL);
    assert_int_equal(acre_root_del(heap, "a"), 0);
    acre_free(heap, block);
    acre_close(heap);
}

static bool stores(void *arg)
{
    *(char *)arg = 1;
    return true;
}

static void a_store_is_a_signal(void **state)
{
    struct acre_heap *heap = heap_open(&the_daemon, "default"), *reader;
    (void)state;
    void *block = write_down(heap, "a", "first", 100);
    assert_int_equal(open_to_read(&reader, "default"), 0);
    void *seen = acre_pointer(reader, acre_offset(heap, block));
    assert_int_equal(child_signal(child_start(stores, seen)), SIGSEGV);
    acre_close(reader);
    assert_int_equal(acre_root_del(heap, "a"), 0);
    acre_free(heap, block);
    acre_close(heap);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_reader_reads_what_is_there_and_what_comes),
        cmocka_unit_test(what_would_change_the_heap_is_refused),
        cmocka_unit_test(who_may_only_look_cannot_make_it_writable),
        cmocka_unit_test(a_store_is_a_signal),
    };
    return run_beside_daemon(tests,
                             "tenant \"default\" { max = \"256M\" read_users = {\"4001\"} }\n");
}
