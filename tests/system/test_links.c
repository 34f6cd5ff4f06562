/* SPDX-License-Identifier: Apache-2.0 */
/* ctest-timeout: 300 */
/* A block and the slot that names it change together, whoever dies: mailboxes that anybody fills,
 * and a list that one process at a time changes. */
#include "tests/system/harness.h"

#include <time.h>

#define N_BOXES   8u
#define N_FILLERS 3u
#define MARK      0x6d61726b00000000ull
#define KILLS     200

struct node {
    acre_off next;
    uint64_t mark; /* MARK | anything */
};

static struct node *node_new(struct acre_heap *heap, acre_off next)
{
    struct node *n = acre_alloc(heap, sizeof(*n));
    if (n)
        *n = (struct node){next, MARK | (uint32_t)getpid()};
    return n;
}

static bool is_node(const struct node *n)
{
    return n && n->mark >> 32 == MARK >> 32;
}

/* ---- one process ---- */

static void a_published_block_is_named_by_its_slot_and_can_be_taken_back(void **state)
{
    (void)state;
    struct acre_heap *heap = heap_open(&the_daemon, NULL);
    acre_off *slots = acre_calloc(heap, 4, sizeof(*slots));
    for (size_t size = 16; size <= 1 << 20; size *= 16) {
        void *block = acre_alloc(heap, size);
        assert_int_equal(acre_publish_at(heap, block, &slots[1]), 0);
        assert_int_equal(slots[1], acre_offset(heap, block));
        assert_int_equal(acre_owner(heap, block), ACRE_OWNER_HEAP);
        assert_ptr_equal(acre_take_at(heap, &slots[1], 0), block);
        assert_int_equal(slots[1], 0);
        assert_int_equal(acre_owner(heap, block), acre_self(heap));
        assert_int_equal(acre_publish_at_cas(heap, block, &slots[1], 0), 0);
        assert_int_equal(acre_unlink_free(heap, &slots[1], 0), 0);
        assert_int_equal(acre_owner(heap, block), 0);
        assert_int_equal(slots[1], 0);
    }
    acre_free(heap, slots);
    acre_close(heap);
}

static void a_list_is_pushed_and_popped_at_its_head(void **state)
{
    (void)state;
    struct acre_heap *heap = heap_open(&the_daemon, NULL);
    acre_off *head = acre_calloc(heap, 1, sizeof(*head));
    struct node *nodes[10];
    for (int i = 0; i < 10; i++) {
        nodes[i] = node_new(heap, *head);
        assert_int_equal(acre_publish_at(heap, nodes[i], head), 0);
    }
    for (int i = 9; i > 0; i--)
        assert_ptr_equal(acre_take_at(heap, head, nodes[i]->next), nodes[i]);
    assert_int_equal(*head, acre_offset(heap, nodes[0]));
    assert_int_equal(acre_unlink_free(heap, head, 0), 0);
    acre_close(heap);
}

static void what_cannot_be_linked_or_taken_is_refused_and_nothing_changes(void **state)
{
    (void)state;
    struct acre_heap *heap = heap_open(&the_daemon, NULL);
    acre_off *slots = acre_calloc(heap, 4, sizeof(*slots)), outside = 0;
    char *mine = acre_alloc(heap, 64), *gone = acre_alloc(heap, 64), *heaps = acre_alloc(heap, 64);
    acre_free(heap, gone);
    assert_int_equal(acre_publish(heap, heaps), 0);

    assert_int_equal(acre_publish_at(heap, mine, &outside), -EINVAL);
    assert_int_equal(acre_publish_at(heap, mine, (acre_off *)((char *)slots + 4)), -EINVAL);
    assert_int_equal(acre_publish_at(heap, mine, NULL), -EINVAL);
    assert_int_equal(acre_publish_at(heap, mine + 8, slots), -EINVAL);
    assert_int_equal(acre_publish_at(heap, gone, slots), -EINVAL);
    assert_int_equal(acre_publish_at(heap, NULL, slots), -EINVAL);
    assert_int_equal(acre_publish_at(heap, heaps, slots), -EPERM);
    assert_int_equal(acre_publish_at_cas(heap, mine, slots, acre_offset(heap, heaps)), -EAGAIN);
    slots[0] = 12345; /* no link */
    assert_int_equal(acre_publish_at(heap, mine, slots), -EINVAL);
    assert_int_equal(slots[0], 12345);
    assert_null(acre_take_at(heap, slots, 0));
    assert_int_equal(errno, EINVAL);
    assert_int_equal(acre_owner(heap, mine), acre_self(heap));

    slots[0] = 0;
    assert_null(acre_take_at(heap, slots, 0));
    assert_int_equal(errno, ENOENT);
    assert_int_equal(acre_unlink_free(heap, slots, 0), -ENOENT);
    slots[0] = acre_offset(heap, mine); /* linked by hand, not published */
    assert_null(acre_take_at(heap, slots, 0));
    assert_int_equal(errno, EBUSY);
    void *other = acre_alloc(heap, 100);
    assert_int_equal(acre_publish_at(heap, other, slots), -EBUSY);
    slots[0] = acre_offset(heap, heaps);
    assert_null(acre_take_at(heap, slots, acre_offset(heap, gone)));
    assert_int_equal(errno, EINVAL);
    assert_int_equal(slots[0], acre_offset(heap, heaps));
    assert_int_equal(acre_owner(heap, heaps), ACRE_OWNER_HEAP);
    assert_int_equal(acre_unlink_free(heap, slots, 0), 0);
    acre_close(heap);
}

/* ---- processes that are killed ---- */

struct table {
    acre_off box[N_BOXES];
    acre_off head;
};

static struct table *table_open(struct acre_heap **ret_heap)
{
    acre_off off;
    if (acre_open(ret_heap, the_daemon.socket, NULL) < 0 ||
        acre_root_get(*ret_heap, "table", &off) < 0)
        return NULL;
    return acre_pointer(*ret_heap, off);
}

static struct table *table_make(struct acre_heap **ret_heap)
{
    *ret_heap = heap_open(&the_daemon, NULL);
    struct table *t = acre_calloc(*ret_heap, 1, sizeof(*t));
    assert_int_equal(acre_root_set(*ret_heap, "table", acre_offset(*ret_heap, t)), 0);
    return t;
}

static void table_drop(struct acre_heap *heap, struct table *t)
{
    assert_int_equal(acre_root_del(heap, "table"), 0);
    acre_free(heap, t);
    acre_close(heap);
}

static bool fills(void *arg)
{
    struct acre_heap *heap;
    struct table *t = table_open(&heap);
    uint64_t seed = (uint64_t)getpid() * 7919;
    (void)arg;
    CHECK(t != NULL);
    for (;;) {
        struct node *n = node_new(heap, 0);
        CHECK(n != NULL);
        int r = acre_publish_at_cas(heap, n, &t->box[rnd(&seed) % N_BOXES], 0);
        CHECK(r == 0 || r == -EAGAIN);
        if (r < 0)
            acre_free(heap, n);
    }
    return true;
}

static bool empties(void *arg)
{
    struct acre_heap *heap;
    struct table *t = table_open(&heap);
    uint64_t seed = (uint64_t)getpid() * 7919;
    (void)arg;
    CHECK(t != NULL);
    for (;;) {
        acre_off *box = &t->box[rnd(&seed) % N_BOXES];
        struct node *n = acre_take_at(heap, box, 0);
        CHECK(n || errno == ENOENT || errno == EBUSY);
        CHECK(!n || is_node(n));
        /* Some go back, if nobody was faster. */
        if (n && (rnd(&seed) % 2 || acre_publish_at_cas(heap, n, box, 0) < 0))
            acre_free(heap, n);
        int r = acre_unlink_free(heap, &t->box[rnd(&seed) % N_BOXES], 0);
        CHECK(r == 0 || r == -ENOENT || r == -EBUSY);
    }
    return true;
}

static bool pushes_and_pops(void *arg)
{
    struct acre_heap *heap;
    struct table *t = table_open(&heap);
    uint64_t seed = (uint64_t)getpid() * 7919;
    (void)arg;
    CHECK(t != NULL);
    for (;;) {
        if (t->head == 0 || rnd(&seed) % 2) {
            struct node *n = node_new(heap, t->head);
            int r = n ? acre_publish_at(heap, n, &t->head) : -ENOMEM;
            CHECK(r == 0 || r == -EBUSY);
            if (r < 0)
                acre_free(heap, n);
            continue;
        }
        const struct node *n = acre_pointer(heap, t->head);
        CHECK(is_node(n));
        if (rnd(&seed) % 2) {
            int r = acre_unlink_free(heap, &t->head, n->next);
            CHECK(r == 0 || r == -EBUSY);
        } else {
            struct node *taken = acre_take_at(heap, &t->head, n->next);
            CHECK(taken == n || (!taken && errno == EBUSY));
            acre_free(heap, taken);
        }
    }
    return true;
}

static void kill_and_wait(pid_t pid)
{
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(child_signal(pid), SIGKILL); /* and not because a check had failed */
}

/* Every slot names a live, whole block of the heap; everything else is free. */
static long long boxes_live(struct acre_heap *heap, struct table *t)
{
    long long n = 0;
    for (unsigned i = 0; i < N_BOXES; i++) {
        if (t->box[i] == 0)
            continue;
        assert_true(is_node(acre_pointer(heap, t->box[i])));
        assert_int_equal(acre_owner(heap, acre_pointer(heap, t->box[i])), ACRE_OWNER_HEAP);
        n++;
    }
    return n;
}

/* Until all but this process are dead and swept. */
static void until_alone(void)
{
    while (tenant_stats(&the_daemon, "default").n_clients != 1)
        pause_us(10000);
}

static void mailboxes_lose_nothing_whoever_is_killed(void **state)
{
    (void)state;
    struct acre_heap *heap;
    struct table *t = table_make(&heap);
    uint64_t seed = test_seed(20261123);
    pid_t pids[N_FILLERS + 1];
    for (unsigned i = 0; i <= N_FILLERS; i++)
        pids[i] = child_start(i < N_FILLERS ? fills : empties, NULL);
    for (int k = 0; k < KILLS; k++) {
        unsigned i = (unsigned)(rnd(&seed) % (N_FILLERS + 1));
        pause_us(500 + rnd(&seed) % 3000);
        kill_and_wait(pids[i]);
        pids[i] = child_start(i < N_FILLERS ? fills : empties, NULL);
    }
    for (unsigned i = 0; i <= N_FILLERS; i++)
        kill_and_wait(pids[i]);
    until_alone();
    expect_checked(&the_daemon);
    long long n = boxes_live(heap, t);
    assert_int_equal(tenant_stats(&the_daemon, "default").live_blocks, n + 1);
    for (unsigned i = 0; i < N_BOXES; i++)
        if (t->box[i] != 0)
            assert_int_equal(acre_unlink_free(heap, &t->box[i], 0), 0);
    table_drop(heap, t);
}

static void a_list_stays_whole_whenever_its_writer_is_killed(void **state)
{
    (void)state;
    struct acre_heap *heap;
    struct table *t = table_make(&heap);
    uint64_t seed = test_seed(20261124);
    for (int k = 0; k < KILLS; k++) {
        pid_t pid = child_start(pushes_and_pops, NULL);
        pause_us(2000 + rnd(&seed) % 3000);
        kill_and_wait(pid); /* the next one begins at once, perhaps before the dead is swept */
    }
    until_alone();
    expect_checked(&the_daemon);
    long long n = 0;
    while (t->head != 0) {
        const struct node *first = acre_pointer(heap, t->head);
        assert_true(is_node(first));
        assert_int_equal(acre_owner(heap, first), ACRE_OWNER_HEAP);
        if (n == 0)
            n = tenant_stats(&the_daemon, "default").live_blocks - 1;
        assert_int_equal(acre_unlink_free(heap, &t->head, first->next), 0);
        n--;
    }
    assert_int_equal(n, 0);
    table_drop(heap, t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_published_block_is_named_by_its_slot_and_can_be_taken_back),
        cmocka_unit_test(a_list_is_pushed_and_popped_at_its_head),
        cmocka_unit_test(what_cannot_be_linked_or_taken_is_refused_and_nothing_changes),
        cmocka_unit_test(mailboxes_lose_nothing_whoever_is_killed),
        cmocka_unit_test(a_list_stays_whole_whenever_its_writer_is_killed),
    };
    return run_beside_daemon(tests, NULL);
}
