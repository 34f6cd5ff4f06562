/* SPDX-License-Identifier: Apache-2.0 */
/* A process keeps the units that it will want again, and sends back what it does not: counted by
 * somebody between it and the daemon. */
#include "tests/system/between.h"
#include "tests/system/harness.h"

#define N_LARGE 16u
#define N_STEPS 4000u
#define N_SMALL 800u

#define SMALL_BYTES 60000u

static _Atomic unsigned n_requests;

static bool count(bool is_reply)
{
    n_requests += !is_reply;
    return true;
}

static struct acre_heap *heap;
static void *small[N_SMALL], *large[N_LARGE];

static void fill_small(void)
{
    for (unsigned i = 0; i < N_SMALL; i++)
        assert_non_null(small[i] = acre_alloc(heap, SMALL_BYTES));
}

/* Frees one, allocates one: sizes of 64 KiB to 2 MiB. */
static void churn(uint64_t *rng, unsigned n_steps)
{
    for (unsigned i = 0; i < n_steps; i++) {
        void **slot = &large[rnd(rng) % N_LARGE];
        acre_free(heap, *slot);
        assert_non_null(*slot = acre_alloc(heap, 65537 + rnd(rng) % 2000000));
    }
}

static long long granted_bytes(void)
{
    return tenant_stats(&the_daemon, "default").granted_bytes;
}

static void large_blocks_that_come_and_go_cost_no_requests(void **state)
{
    (void)state;
    uint64_t rng = test_seed(3);
    const char *path = between_up(count);
    heap = heap_open_at(path, NULL);
    fill_small();
    churn(&rng, N_STEPS);
    n_requests = 0;
    churn(&rng, N_STEPS);
    unsigned n = n_requests;
    printf("%u requests for %u blocks of up to 2 MiB\n", n, N_STEPS);
    assert_in_range(n, 0, N_STEPS / 50);

    /* What it keeps for that is not all that it ever had. */
    long long most_bytes = granted_bytes();
    for (unsigned i = 0; i < N_LARGE; i++)
        acre_free(heap, large[i]);
    printf("%lld MiB granted at most, %lld then\n", most_bytes >> 20, granted_bytes() >> 20);
    assert_in_range(granted_bytes(), 0, N_SMALL * SMALL_BYTES + most_bytes / 4 + (8 << 20));
    acre_close(heap);
    between_down();
    expect_settled(&the_daemon, "default", 0, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(large_blocks_that_come_and_go_cost_no_requests),
    };
    return run_beside_daemon(tests, NULL);
}
