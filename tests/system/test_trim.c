/* SPDX-License-Identifier: Apache-2.0 */
/* ctest-labels: valgrind */
/* acre_trim(): pages under free blocks go to the system, and no byte of a live block with them. */
#include "tests/system/harness.h"

#define N 60000u

struct piece {
    unsigned char *at;
    uint32_t size;
};

static struct piece pieces[N];

static void draw(struct acre_heap *heap, uint64_t *rng, struct piece *p)
{
    p->size = rnd(rng) % 8 ? (uint32_t)(rnd(rng) % 600) + 1 : (uint32_t)(rnd(rng) % 20000) + 1;
    p->at = acre_alloc(heap, p->size);
    assert_non_null(p->at);
    memset(p->at, (int)(p->size & 0xff), p->size);
}

static void check(const struct piece *p)
{
    for (uint32_t i = 0; i < p->size; i++)
        if (p->at[i] != (unsigned char)(p->size & 0xff))
            fail_msg("byte %u of a block of %u bytes has changed", i, p->size);
}

static void a_trim_leaves_little_but_pages_with_live_blocks(void **state)
{
    (void)state;
    struct acre_heap *heap = heap_open(&the_daemon, NULL);
    uint64_t rng = test_seed(11);

    for (unsigned i = 0; i < N; i++)
        draw(heap, &rng, &pieces[i]);
    long long before = tenant_stats(&the_daemon, "default").resident_bytes;
    for (unsigned i = 0; i < N; i++)
        if (rnd(&rng) % 20 != 0) {
            acre_free(heap, pieces[i].at);
            pieces[i].at = NULL;
        }
    assert_true(tenant_stats(&the_daemon, "default").resident_bytes > before / 2);
    assert_int_equal(acre_trim(heap), 0);
    /* A 20th of the blocks is left. Pages of returned units wait for the daemon's decay. */
    struct tenant_stats after = tenant_stats(&the_daemon, "default");
    for (unsigned i = 0; i < 100 && after.resident_bytes > before / 3; i++) {
        usleep(100000);
        after = tenant_stats(&the_daemon, "default");
    }
    assert_true(after.resident_bytes <= before / 3);
    assert_true(after.granted_bytes > before / 2); /* so punching made the difference */
    for (unsigned i = 0; i < N; i++) {
        if (pieces[i].at)
            check(&pieces[i]);
        else
            draw(heap, &rng, &pieces[i]);
    }
    for (unsigned i = 0; i < N; i++) {
        check(&pieces[i]);
        acre_free(heap, pieces[i].at);
    }
    acre_close(heap);
    expect_settled(&the_daemon, "default", 0, 0);
}

static void a_trim_between_any_steps_harms_no_block(void **state)
{
    (void)state;
    struct acre_heap *heap = heap_open(&the_daemon, NULL);
    uint64_t rng = test_seed(12);

    for (unsigned i = 0; i < 500; i++)
        draw(heap, &rng, &pieces[i]);
    for (unsigned step = 0; step < 4000; step++) {
        struct piece *p = &pieces[rnd(&rng) % 500];
        check(p);
        acre_free(heap, p->at);
        if (step % 40 == 0)
            assert_int_equal(acre_trim(heap), 0);
        draw(heap, &rng, p);
    }
    for (unsigned i = 0; i < 500; i++) {
        check(&pieces[i]);
        acre_free(heap, pieces[i].at);
    }
    acre_close(heap);
    expect_settled(&the_daemon, "default", 0, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_trim_leaves_little_but_pages_with_live_blocks),
        cmocka_unit_test(a_trim_between_any_steps_harms_no_block),
    };
    return run_beside_daemon(tests, "tenant \"default\" { max = \"512M\" }\n");
}
