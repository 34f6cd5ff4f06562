/* SPDX-License-Identifier: Apache-2.0 */
/* ctest-timeout: 300 */
/* kill -9 at random instants under load: the others go on, what was published stays, the rest comes
 * back. */
#include "tests/system/harness.h"

#define N_WORKERS 4
#define N_KILLS   200
#define N_SHARED  512

static struct daemon d;

/* Offsets of published blocks, swapped in and out by all workers: outside of the heap, so that no
 * death can lose one... */
struct board {
    _Alignas(64) acre_off slots[N_SHARED];
    uint64_t rounds, seed;
    int stop;
};

static bool use_up(struct acre_heap *heap, acre_off off)
{
    unsigned char *block = acre_pointer(heap, off);

    CHECK(acre_owner(heap, block) == ACRE_OWNER_HEAP);
    CHECK(block[0] == block[10]);
    acre_free(heap, block);
    return true;
}

static bool work(void *arg)
{
    struct board *b = arg;
    struct acre_heap *heap;
    uint64_t rng = b->seed ^ ((uint64_t)getpid() << 20);
    unsigned char *own[64] = {0};

    CHECK(acre_open(&heap, d.socket, NULL) == 0);
    while (!__atomic_load_n(&b->stop, __ATOMIC_RELAXED)) {
        unsigned i = rnd(&rng) % 64;
        acre_free(heap, own[i]);
        size_t size = rnd(&rng) % 50 ? rnd(&rng) % 2000 + 11 : rnd(&rng) % 200000 + 11;
        own[i] = acre_alloc(heap, size);
        CHECK(own[i]);
        own[i][0] = own[i][10] = (unsigned char)rng;
        if (rnd(&rng) % 4 == 0) {
            acre_off off = acre_offset(heap, own[i]);
            CHECK(acre_publish(heap, own[i]) == 0);
            own[i] = NULL;
            /* Killed between publish and exchange, or exchange and free: one published block is
             * lost to the board. */
            off = __atomic_exchange_n(&b->slots[rnd(&rng) % N_SHARED], off, __ATOMIC_SEQ_CST);
            if (off && !use_up(heap, off))
                return false;
        }
        __atomic_fetch_add(&b->rounds, 1, __ATOMIC_RELAXED);
    }
    acre_close(heap);
    return true;
}

static void random_kills_disturb_nobody_and_lose_nothing(void **state)
{
    (void)state;
    struct board *b = shared_page(sizeof(*b));
    pid_t pids[N_WORKERS];
    uint64_t rng = b->seed = test_seed(7);

    for (unsigned i = 0; i < N_WORKERS; i++)
        pids[i] = child_start(work, b);
    for (unsigned k = 0; k < N_KILLS; k++) {
        usleep(rnd(&rng) % 5000);
        unsigned i = rnd(&rng) % N_WORKERS;
        assert_int_equal(kill(pids[i], SIGKILL), 0);
        assert_int_equal(child_signal(pids[i]), SIGKILL);
        pids[i] = child_start(work, b);
    }
    __atomic_store_n(&b->stop, 1, __ATOMIC_SEQ_CST);
    for (unsigned i = 0; i < N_WORKERS; i++)
        assert_true(child_ok(pids[i]));

    /* What is live now is published: the board, and at most one block a kill. */
    for (unsigned i = 0; i < 400 && tenant_stats(&d, "default").n_clients > 0; i++)
        usleep(50000);
    struct tenant_stats s = tenant_stats(&d, "default");
    assert_int_equal(s.n_clients, 0);
    assert_int_equal(s.live_bytes, s.published_bytes);
    struct acre_heap *heap = heap_open(&d, NULL);
    unsigned n_board = 0;
    for (unsigned i = 0; i < N_SHARED; i++) {
        if (!b->slots[i])
            continue;
        n_board++;
        assert_true(use_up(heap, b->slots[i]));
    }
    printf("%u kills during %llu rounds; %lld published blocks, %u on the board\n", N_KILLS,
           (unsigned long long)b->rounds, s.live_blocks, n_board);
    assert_true(s.live_blocks >= n_board && s.live_blocks <= (long long)n_board + N_KILLS);
    acre_close(heap);
}

static int up(void **state)
{
    (void)state;
    daemon_up(&d, "capacity = \"2G\"\ntenant \"default\" { max = \"1G\" }\n");
    return 0;
}

static int down(void **state)
{
    (void)state;
    daemon_down(&d);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_kills_disturb_nobody_and_lose_nothing),
    };
    return cmocka_run_group_tests(tests, up, down);
}
