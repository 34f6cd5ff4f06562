/* SPDX-License-Identifier: Apache-2.0 */
/* One heap, several processes: blocks are read, freed, published, given, adopted and found by
 * name. */
#include "tests/system/harness.h"

struct passed {
    acre_off off;
    acre_client from, to;
    int pipe_up[2], pipe_down[2];
};

static bool reader_frees(void *arg)
{
    const struct passed *p = arg;
    struct acre_heap *heap;

    CHECK(acre_open(&heap, the_daemon.socket, NULL) == 0);
    char *text = acre_pointer(heap, p->off);
    CHECK(text && strcmp(text, "written by another process") == 0);
    CHECK(acre_owner(heap, text) == p->from);
    acre_free(heap, text);
    CHECK(acre_owner(heap, text) == 0);
    acre_close(heap);
    return true;
}

static void a_block_of_one_process_is_read_and_freed_by_another(void **state)
{
    (void)state;
    struct passed p = {0};
    /* The reader is no child of a process with an open heap: it knows the socket and the offset
     * only. */
    struct acre_heap *heap = heap_open(&the_daemon, NULL);
    for (size_t size = 32; size <= 4 << 20; size *= 8) {
        char *text = acre_alloc(heap, size);
        assert_non_null(text);
        strcpy(text, "written by another process");
        p.off = acre_offset(heap, text);
        p.from = acre_self(heap);
        assert_int_equal(acre_owner(heap, text), p.from);
        RUN_CHILD(reader_frees, &p);
        assert_int_equal(acre_owner(heap, text), 0);
    }
    acre_close(heap);
    expect_settled(&the_daemon, "default", 0, 0);
}

static bool publisher(void *arg)
{
    acre_off *ret = arg;
    struct acre_heap *heap;

    CHECK(acre_open(&heap, the_daemon.socket, NULL) == 0);
    char *kept = acre_alloc(heap, 100), *lost = acre_alloc(heap, 100);
    char *born = acre_allocx(heap, 3000, 0, ACRE_HEAP_OWNED | ACRE_ZERO);
    char *large = acre_alloc(heap, 300000);
    CHECK(kept && lost && born && large);
    CHECK(acre_publish(heap, kept) == 0 && acre_publish(heap, kept) == 0);
    CHECK(acre_publish(heap, large) == 0);
    CHECK(acre_owner(heap, kept) == ACRE_OWNER_HEAP && acre_owner(heap, born) == ACRE_OWNER_HEAP);
    CHECK(acre_publish(heap, kept + 16) == -EINVAL);
    ret[0] = acre_offset(heap, kept);
    ret[1] = acre_offset(heap, born);
    ret[2] = acre_offset(heap, large);
    ret[3] = acre_offset(heap, lost);
    memset(kept, 0x5a, 100);
    memset(large, 0xa5, 300000);
    raise(SIGKILL);
    return false;
}

static void what_is_published_outlives_a_killed_client_and_the_rest_comes_back(void **state)
{
    (void)state;
    acre_off *off = shared_page(4 * sizeof(acre_off));
    assert_int_equal(child_signal(child_start(publisher, off)), SIGKILL);
    expect_settled(&the_daemon, "default", 112 + 3072 + 303104, 0);

    struct acre_heap *heap = heap_open(&the_daemon, NULL);
    unsigned char *kept = acre_pointer(heap, off[0]), *large = acre_pointer(heap, off[2]);
    assert_int_equal(kept[99], 0x5a);
    assert_int_equal(large[299999], 0xa5);
    assert_int_equal(acre_owner(heap, acre_pointer(heap, off[3])), 0);
    for (unsigned i = 0; i < 3; i++)
        acre_free(heap, acre_pointer(heap, off[i]));
    acre_close(heap);
    expect_settled(&the_daemon, "default", 0, 0);
}

/* An orphaned slab serves the next client that asks for its class. */
static void a_parked_slab_is_used_again(void **state)
{
    (void)state;
    acre_off *off = shared_page(4 * sizeof(acre_off));
    assert_int_equal(child_signal(child_start(publisher, off)), SIGKILL);
    expect_settled(&the_daemon, "default", 112 + 3072 + 303104, 0);
    long long granted = tenant_stats(&the_daemon, "default").granted_bytes;

    struct acre_heap *heap = heap_open(&the_daemon, NULL);
    void *block = acre_alloc(heap, 100);
    assert_non_null(block);
    assert_int_equal(tenant_stats(&the_daemon, "default").granted_bytes, granted);
    uint64_t kept = off[0], mine = acre_offset(heap, block);
    assert_true((kept > mine ? kept - mine : mine - kept) < 8192);
    for (unsigned i = 0; i < 3; i++)
        acre_free(heap, acre_pointer(heap, off[i]));
    acre_close(heap);
    expect_settled(&the_daemon, "default", 0, 0);
}

static bool receiver(void *arg)
{
    struct passed *p = arg;
    struct acre_heap *heap;
    char c;

    CHECK(acre_open(&heap, the_daemon.socket, NULL) == 0);
    p->to = acre_self(heap);
    CHECK(p->to != 0 && p->to != p->from);
    CHECK(write(p->pipe_up[1], "x", 1) == 1 && read(p->pipe_down[0], &c, 1) == 1);
    char *block = acre_pointer(heap, p->off);
    CHECK(acre_owner(heap, block) == p->to);
    CHECK(strcmp(block, "given") == 0);
    acre_free(heap, block);
    acre_close(heap);
    return true;
}

static void a_given_block_belongs_to_its_receiver(void **state)
{
    (void)state;
    char c;
    struct passed *p = shared_page(sizeof(*p));
    assert_int_equal(pipe(p->pipe_up), 0);
    assert_int_equal(pipe(p->pipe_down), 0);
    struct acre_heap *heap = heap_open(&the_daemon, NULL);
    p->from = acre_self(heap);
    char *block = acre_alloc(heap, 50);
    strcpy(block, "given");
    p->off = acre_offset(heap, block);
    pid_t pid = child_start(receiver, p);
    assert_int_equal(read(p->pipe_up[0], &c, 1), 1);
    assert_int_equal(acre_give(heap, block, p->to), 0);
    assert_int_equal(acre_owner(heap, block), p->to);
    assert_int_equal(acre_give(heap, block, p->to), -EPERM);
    assert_int_equal(write(p->pipe_down[1], "x", 1), 1);
    assert_true(child_ok(pid));
    expect_settled(&the_daemon, "default", 0, 1);

    char *late = acre_alloc(heap, 50);
    assert_int_equal(acre_give(heap, late, p->to), -ESRCH);
    assert_int_equal(acre_owner(heap, late), p->from);
    assert_int_equal(acre_give(heap, late, 0), -ESRCH);
    assert_int_equal(acre_give(heap, late, ACRE_OWNER_HEAP), -ESRCH);
    acre_close(heap);
    expect_settled(&the_daemon, "default", 0, 0);
}

#define N_REUSED 120 /* fits the smallest slab of its class */

static bool free_all(void *arg)
{
    const acre_off *offs = arg;
    struct acre_heap *heap;

    CHECK(acre_open(&heap, the_daemon.socket, NULL) == 0);
    for (unsigned i = 0; i < N_REUSED; i++)
        acre_free(heap, acre_pointer(heap, offs[i]));
    return true;
}

/* The freer's hint brings its holder back before it cuts fresh memory. */
static void blocks_freed_by_another_process_are_used_again_first(void **state)
{
    (void)state;
    acre_off *offs = shared_page(N_REUSED * sizeof(acre_off));
    struct acre_heap *heap = heap_open(&the_daemon, NULL);
    unsigned n_again = 0;

    /* Who holds much is granted much: fresh units are at hand. */
    for (unsigned i = 0; i < 8; i++)
        assert_non_null(acre_alloc(heap, 1 << 20));
    for (unsigned i = 0; i < N_REUSED; i++)
        offs[i] = acre_offset(heap, acre_alloc(heap, 64));
    for (unsigned i = 0; i < 1000; i++) /* on to other slabs */
        assert_non_null(acre_alloc(heap, 64));
    RUN_CHILD(free_all, offs);
    for (unsigned i = 0; i < 1000; i++) {
        acre_off off = acre_offset(heap, acre_alloc(heap, 64));
        for (unsigned k = 0; k < N_REUSED; k++)
            n_again += off == offs[k];
    }
    assert_int_equal(n_again, N_REUSED);
    acre_close(heap);
    expect_settled(&the_daemon, "default", 0, 0);
}

struct adoption {
    acre_off off;
    int wins;
};

static bool adopter(void *arg)
{
    struct adoption *a = arg;
    struct acre_heap *heap;

    CHECK(acre_open(&heap, the_daemon.socket, NULL) == 0);
    int r = acre_adopt(heap, acre_pointer(heap, a->off));
    CHECK(r == 0 || r == -EBUSY);
    if (r == 0) {
        __atomic_fetch_add(&a->wins, 1, __ATOMIC_SEQ_CST);
        CHECK(acre_adopt(heap, acre_pointer(heap, a->off)) == 0);
        CHECK(acre_owner(heap, acre_pointer(heap, a->off)) == acre_self(heap));
    }
    while (__atomic_load_n(&a->wins, __ATOMIC_SEQ_CST) == 0)
        usleep(1000);
    acre_close(heap);
    return true;
}

static void of_many_adopters_one_wins_while_it_lives(void **state)
{
    (void)state;
    struct adoption *a = shared_page(sizeof(*a));
    struct acre_heap *heap = heap_open(&the_daemon, NULL);
    void *block = acre_alloc(heap, 40);
    a->off = acre_offset(heap, block);
    assert_int_equal(acre_adopt(heap, block), 0);
    assert_int_equal(acre_publish(heap, block), 0);
    RUN_CHILD(adopter, a);
    assert_int_equal(a->wins, 1);
    expect_settled(&the_daemon, "default", 0, 1); /* it ended with its adopter */
    assert_int_equal(acre_adopt(heap, block), -EINVAL);
    acre_close(heap);
}

static bool root_reader(void *arg)
{
    struct acre_heap *heap;
    acre_off off;

    (void)arg;
    CHECK(acre_open(&heap, the_daemon.socket, NULL) == 0);
    CHECK(acre_root_get(heap, "start", &off) == 0);
    CHECK(strcmp(acre_pointer(heap, off), "root") == 0);
    CHECK(acre_root_get(heap, "no such", &off) == -ENOENT);
    acre_close(heap);
    return true;
}

static void roots_name_blocks_and_publish_them(void **state)
{
    (void)state;
    acre_off off;
    struct acre_heap *heap = heap_open(&the_daemon, NULL);
    char *first = acre_alloc(heap, 64), *second = acre_alloc(heap, 64);
    strcpy(first, "root");
    acre_off a = acre_offset(heap, first), b = acre_offset(heap, second);
    assert_int_equal(acre_root_set(heap, "start", a), 0);
    assert_int_equal(acre_owner(heap, first), ACRE_OWNER_HEAP);
    RUN_CHILD(root_reader, NULL);
    assert_int_equal(acre_root_cas(heap, "start", 0, b), -EEXIST);
    assert_int_equal(acre_root_cas(heap, "start", b, b), -EAGAIN);
    assert_int_equal(acre_owner(heap, second), acre_self(heap));
    assert_int_equal(acre_root_cas(heap, "start", a, b), 0);
    assert_int_equal(acre_owner(heap, second), ACRE_OWNER_HEAP);
    assert_int_equal(acre_root_get(heap, "start", &off), 0);
    assert_int_equal(off, b);
    assert_int_equal(acre_root_cas(heap, "other", 0, a), 0);
    assert_int_equal(acre_root_cas(heap, "other", a, 0), 0);
    assert_int_equal(acre_root_get(heap, "other", &off), -ENOENT);
    assert_int_equal(acre_root_del(heap, "other"), -ENOENT);
    assert_int_equal(acre_root_set(heap, "start", a + 8), -EINVAL);
    assert_int_equal(acre_root_set(heap, "start", 0), -EINVAL);
    assert_int_equal(acre_root_set(heap, "", a), -EINVAL);
    assert_int_equal(acre_root_set(heap, NULL, a), -EINVAL);
    assert_int_equal(acre_root_set(heap, "0123456789012345678901234567890123456789012345678", a),
                     -EINVAL);
    assert_int_equal(acre_root_del(heap, "start"), 0);
    acre_free(heap, first);
    acre_free(heap, second);
    assert_int_equal(acre_root_set(heap, "start", a), -EINVAL);
    acre_close(heap);
    expect_settled(&the_daemon, "default", 0, 0);
}

static void a_heap_opened_twice_is_one_handle(void **state)
{
    (void)state;
    struct acre_heap *a = heap_open(&the_daemon, NULL), *b = heap_open(&the_daemon, "default");
    assert_ptr_equal(a, b);
    acre_close(a);
    void *block = acre_alloc(b, 10);
    assert_non_null(block);
    acre_free(b, block);
    acre_close(b);
    expect_settled(&the_daemon, "default", 0, 0);
}

static void closing_and_opening_again_starts_afresh(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 50; i++) {
        struct acre_heap *heap = heap_open(&the_daemon, NULL);
        for (size_t size = 1; size < 100000; size *= 3)
            assert_non_null(acre_alloc(heap, size));
        acre_close(heap);
    }
    expect_settled(&the_daemon, "default", 0, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_block_of_one_process_is_read_and_freed_by_another),
        cmocka_unit_test(what_is_published_outlives_a_killed_client_and_the_rest_comes_back),
        cmocka_unit_test(a_parked_slab_is_used_again),
        cmocka_unit_test(a_given_block_belongs_to_its_receiver),
        cmocka_unit_test(blocks_freed_by_another_process_are_used_again_first),
        cmocka_unit_test(of_many_adopters_one_wins_while_it_lives),
        cmocka_unit_test(roots_name_blocks_and_publish_them),
        cmocka_unit_test(a_heap_opened_twice_is_one_handle),
        cmocka_unit_test(closing_and_opening_again_starts_afresh),
    };
    return run_beside_daemon(tests, NULL);
}
