/* SPDX-License-Identifier: Apache-2.0 */
/* What one tenant does not use any more another one gets: segments are given up by those who map
 * them, whatever they do meanwhile. */
/* ctest-timeout: 300 */
#include "tests/system/harness.h"

#include <pthread.h>
#include <stdatomic.h>

#define BLOCKS 40u
#define MIB    (1u << 20)

static const char *const config = "capacity = \"64M\"\n"
                                  "tenant a { max = \"64M\" }\n"
                                  "tenant b { max = \"64M\" }\n";

struct pile {
    struct acre_heap *heap;
    char *blocks[BLOCKS];
    unsigned n;
};

/* As many blocks of 1 MiB as can be had. */
static unsigned pile_up(struct pile *p, char c)
{
    while (p->n < BLOCKS && (p->blocks[p->n] = acre_alloc(p->heap, MIB))) {
        memset(p->blocks[p->n++], c, MIB);
    }
    return p->n;
}

static void pile_down(struct pile *p)
{
    while (p->n > 0)
        acre_free(p->heap, p->blocks[--p->n]);
}

/* On the slow path, as any program is now and then. */
static void come_by(struct pile *p)
{
    char *block = acre_alloc(p->heap, 300000);
    acre_free(p->heap, block);
}

static void expect_whole(const struct pile *p, char c)
{
    for (unsigned i = 0; i < p->n; i++)
        for (size_t k = 0; k < MIB; k += 4096)
            assert_int_equal(p->blocks[i][k], c);
}

/* ---- one after the other ---- */

static void what_one_does_not_use_another_gets(void **state)
{
    (void)state;
    struct pile a = {heap_open(&the_daemon, "a"), {0}, 0};
    struct pile b = {heap_open(&the_daemon, "b"), {0}, 0};
    for (unsigned round = 0; round < 3; round++) {
        struct pile *one = round % 2 ? &b : &a, *other = round % 2 ? &a : &b;
        for (unsigned i = 0; pile_up(one, 'x') < BLOCKS; i++) {
            assert_true(i < 100);
            if (round == 1)
                assert_int_equal(acre_trim(other->heap), 0);
            else
                come_by(other);
            usleep(30000);
        }
        char *left = acre_alloc(one->heap, 100);
        assert_true(pile_up(other, 'y') < BLOCKS); /* there is no room for both */
        expect_whole(one, 'x');
        expect_whole(other, 'y');
        pile_down(other);
        pile_down(one);
        acre_free(one->heap, left);
        expect_checked(&the_daemon);
    }
    acre_close(a.heap);
    acre_close(b.heap);
}

static void small_segments_make_room_for_a_large_block(void **state)
{
    (void)state;
    struct pile a = {heap_open(&the_daemon, "a"), {0}, 0};
    for (unsigned round = 0; round < 3; round++) {
        assert_int_equal(pile_up(&a, 'x'), BLOCKS);
        pile_down(&a);
        char *block = acre_alloc(a.heap, 48 * MIB); /* of 64, all of it free, in four segments */
        if (!block)
            fail_msg("%s", acre_last_error());
        acre_free(a.heap, block);
    }
    acre_close(a.heap);
}

struct shared {
    _Atomic int go, done;
};

static bool comes_by(void *arg)
{
    struct shared *s = arg;
    struct pile a = {0};
    CHECK(acre_open(&a.heap, the_daemon.socket, "a") == 0);
    CHECK(pile_up(&a, 'a') == BLOCKS);
    pile_down(&a);
    atomic_store(&s->go, 1);
    while (!atomic_load(&s->done)) {
        come_by(&a);
        usleep(1000);
    }
    return true;
}

static void it_takes_one_call_while_others_come_by(void **state)
{
    (void)state;
    struct shared *s = shared_page(sizeof(*s));
    pid_t pid = child_start(comes_by, s);
    while (!atomic_load(&s->go))
        usleep(1000);
    struct acre_heap *heap = heap_open(&the_daemon, "b");
    char *block = acre_alloc(heap, 40 * MIB);
    if (!block)
        fail_msg("%s", acre_last_error());
    atomic_store(&s->done, 1);
    assert_true(child_ok(pid));
    acre_close(heap);
}

static bool waits_for_memory(void *arg)
{
    struct shared *s = arg;
    struct acre_heap *heap;
    while (!atomic_load(&s->go))
        usleep(1000);
    CHECK(acre_open(&heap, the_daemon.socket, "b") == 0);
    void *block = acre_alloc_wait(heap, 40 * MIB, 50000);
    CHECK(block);
    atomic_store(&s->done, 1);
    return true;
}

static void who_waits_gets_what_another_stops_using(void **state)
{
    (void)state;
    struct shared *s = shared_page(sizeof(*s));
    pid_t pid = child_start(waits_for_memory, s); /* before it would inherit what a maps */
    struct pile a = {heap_open(&the_daemon, "a"), {0}, 0};
    assert_int_equal(pile_up(&a, 'a'), BLOCKS);
    atomic_store(&s->go, 1);
    usleep(300000);
    assert_int_equal(atomic_load(&s->done), 0);
    pile_down(&a);
    for (unsigned i = 0; !atomic_load(&s->done); i++) {
        assert_true(i < 1000);
        come_by(&a);
        usleep(10000);
    }
    assert_true(child_ok(pid));
    acre_close(a.heap);
}

static bool waits(void *arg)
{
    struct shared *s = arg;
    while (!atomic_load(&s->done))
        usleep(1000);
    return true;
}

/* It has never been a client: nobody knows of it but the kernel. */
static void what_a_forked_child_maps_stays_charged_until_it_ends(void **state)
{
    (void)state;
    struct shared *s = shared_page(sizeof(*s));
    struct pile a = {heap_open(&the_daemon, "a"), {0}, 0};
    struct pile b = {heap_open(&the_daemon, "b"), {0}, 0};
    assert_int_equal(pile_up(&a, 'a'), BLOCKS);
    pid_t pid = child_start(waits, s);
    pile_down(&a);
    for (unsigned i = 0; i < 5; i++) {
        assert_true(pile_up(&b, 'b') < BLOCKS);
        come_by(&a);
        usleep(300000);
    }
    atomic_store(&s->done, 1);
    assert_true(child_ok(pid));
    for (unsigned i = 0; pile_up(&b, 'b') < BLOCKS; i++) {
        assert_true(i < 100);
        come_by(&a);
        usleep(30000);
    }
    expect_whole(&b, 'b');
    acre_close(a.heap);
    acre_close(b.heap);
}

static void a_daemon_that_dies_meanwhile_asks_again(void **state)
{
    (void)state;
    struct pile a = {heap_open(&the_daemon, "a"), {0}, 0};
    struct pile b = {heap_open(&the_daemon, "b"), {0}, 0};
    assert_int_equal(pile_up(&a, 'a'), BLOCKS);
    pile_down(&a);
    for (unsigned i = 0; pile_up(&b, 'b') < BLOCKS; i++) {
        assert_true(i < 100);
        if (i < 5) {
            kill(daemon_worker(&the_daemon), SIGKILL);
            usleep(100000);
        }
        come_by(&a);
        usleep(30000);
    }
    expect_whole(&b, 'b');
    acre_close(a.heap);
    acre_close(b.heap);
}

/* ---- all at once ---- */

#define N_WORKERS 4u
#define N_SHELVES 64u

struct turmoil {
    uint64_t seed;
    _Atomic int stop;
    _Atomic uint64_t n_ops, n_refused;
    _Atomic acre_off shelves[2][N_SHELVES];
};

struct worker {
    struct turmoil *turmoil;
    unsigned i;
    struct acre_heap *heap;
    uint64_t rng;
};

/* A block says what it is at both ends. */
static void sign(char *block, size_t size)
{
    uint64_t mark = (uint64_t)(uintptr_t)size * 0x9e3779b97f4a7c15ull;
    memcpy(block, &size, sizeof(size));
    memcpy(block + size - sizeof(mark), &mark, sizeof(mark));
}

static bool is_signed(const char *block)
{
    size_t size;
    uint64_t mark;
    memcpy(&size, block, sizeof(size));
    memcpy(&mark, block + size - sizeof(mark), sizeof(mark));
    return mark == (uint64_t)(uintptr_t)size * 0x9e3779b97f4a7c15ull;
}

/* Puts a block on a shelf, for whoever of the tenant looks there, by its offset. */
static bool swap(struct worker *w, char *block)
{
    _Atomic acre_off *shelf = &w->turmoil->shelves[w->i % 2][rnd(&w->rng) % N_SHELVES];
    acre_off off = 0;
    if (block) {
        CHECK(acre_publish(w->heap, block) == 0);
        off = acre_offset(w->heap, block);
    }
    off = atomic_exchange(shelf, off);
    block = off ? acre_pointer(w->heap, off) : NULL;
    CHECK(!off || block);
    CHECK(!block || is_signed(block));
    acre_free(w->heap, block);
    return true;
}

static bool fill_and_empty(struct worker *w)
{
    char *blocks[64] = {0};
    size_t most = 200 << rnd(&w->rng) % 14;
    for (unsigned i = 0; i < 64 && !atomic_load(&w->turmoil->stop); i++) {
        size_t size = 16 + rnd(&w->rng) % most;
        blocks[i] = acre_alloc(w->heap, size);
        if (!blocks[i])
            atomic_fetch_add(&w->turmoil->n_refused, 1);
        else
            sign(blocks[i], size);
        atomic_fetch_add(&w->turmoil->n_ops, 1);
    }
    for (unsigned i = 0; i < 64; i++) {
        CHECK(!blocks[i] || is_signed(blocks[i]));
        if (blocks[i] && rnd(&w->rng) % 8 == 0)
            CHECK(swap(w, blocks[i]));
        else
            acre_free(w->heap, blocks[i]);
    }
    return rnd(&w->rng) % 4 != 0 || swap(w, NULL);
}

static void *work(void *arg)
{
    struct worker w = *(struct worker *)arg;
    w.rng = w.turmoil->seed ^ ((uint64_t)gettid() << 20);
    while (!atomic_load(&w.turmoil->stop))
        if (!fill_and_empty(&w))
            return arg;
    return NULL;
}

static bool works(void *arg)
{
    struct worker *w = arg;
    pthread_t thread;
    void *failed, *failed_too;
    CHECK(acre_open(&w->heap, the_daemon.socket, w->i % 2 ? "a" : "b") == 0);
#ifdef __SANITIZE_THREAD__
    return !work(w); /* what goes through another process it takes for a race */
#endif
    CHECK(pthread_create(&thread, NULL, work, w) == 0);
    failed = work(w);
    CHECK(pthread_join(thread, &failed_too) == 0);
    return !failed && !failed_too;
}

static void memory_goes_to_and_fro_and_every_block_stays_whole(void **state)
{
    (void)state;
    struct turmoil *t = shared_page(sizeof(*t));
    static struct worker workers[N_WORKERS];
    pid_t pids[N_WORKERS];
    uint64_t rng = t->seed = test_seed(7);
    for (unsigned i = 0; i < N_WORKERS; i++) {
        workers[i] = (struct worker){.turmoil = t, .i = i};
        pids[i] = child_start(works, &workers[i]);
    }
    for (unsigned k = 0; k < 40; k++) {
        unsigned i = (unsigned)(rnd(&rng) % N_WORKERS);
        usleep(100000);
        if (k % 4 == 0) {
            assert_int_equal(kill(pids[i], SIGKILL), 0);
            assert_int_equal(child_signal(pids[i]), SIGKILL);
            pids[i] = child_start(works, &workers[i]);
        } else if (k % 4 == 1) {
            assert_int_equal(kill(pids[i], SIGSTOP), 0);
            usleep(50000);
            assert_int_equal(kill(pids[i], SIGCONT), 0);
        } else if (k % 8 == 2) {
            kill(daemon_worker(&the_daemon), SIGKILL);
        }
    }
    atomic_store(&t->stop, 1);
    for (unsigned i = 0; i < N_WORKERS; i++)
        assert_true(child_ok(pids[i]));
    printf("%llu blocks, %llu refused\n", (unsigned long long)atomic_load(&t->n_ops),
           (unsigned long long)atomic_load(&t->n_refused));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, harness_up, harness_down)
    const struct CMUnitTest tests[] = {
        TEST(what_one_does_not_use_another_gets),
        TEST(small_segments_make_room_for_a_large_block),
        TEST(it_takes_one_call_while_others_come_by),
        TEST(who_waits_gets_what_another_stops_using),
        TEST(what_a_forked_child_maps_stays_charged_until_it_ends),
        TEST(a_daemon_that_dies_meanwhile_asks_again),
        TEST(memory_goes_to_and_fro_and_every_block_stays_whole),
    };
    harness_config = config;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
