/* SPDX-License-Identifier: Apache-2.0 */
/* ctest-labels: valgrind */
/*
 * Random operations of one client against a naive model: a list of blocks with their size, owner
 * and a byte pattern. After every step the touched block is compared, every 1,000 steps all of
 * them, and the tenant's live bytes with the model's sum.
 */
#include "tests/system/harness.h"

#define N_BLOCKS 3000u

struct model_block {
    unsigned char *at;
    size_t size, usable;
    acre_client owner;
    unsigned char pattern;
};

struct model {
    struct acre_heap *heap;
    acre_client self;
    struct model_block blocks[N_BLOCKS];
    uint64_t rng;
    long long live;
};

static void paint(struct model_block *b)
{
    /* Ends and a stride: enough to see an overlap, cheap enough for large blocks. */
    for (size_t i = 0; i<b->size; i += b->size> 4096 ? 509 : 1)
        b->at[i] = b->pattern;
    if (b->size)
        b->at[b->size - 1] = b->pattern;
}

static void compare(const struct model *m, const struct model_block *b)
{
    if (acre_owner(m->heap, b->at) != b->owner)
        fail_msg("block %p: owner %llx, model says %llx", (void *)b->at,
                 (unsigned long long)acre_owner(m->heap, b->at), (unsigned long long)b->owner);
    assert_int_equal(acre_usable_size(m->heap, b->at), b->usable);
    for (size_t i = 0; i<b->size; i += b->size> 4096 ? 509 : 1)
        if (b->at[i] != b->pattern)
            fail_msg("block %p of %zu bytes: byte %zu is %02x, not %02x", (void *)b->at, b->size, i,
                     b->at[i], b->pattern);
    assert_ptr_equal(acre_pointer(m->heap, acre_offset(m->heap, b->at)), b->at);
}

static size_t random_size(struct model *m)
{
    unsigned bits = rnd(&m->rng) % 100;
    size_t limit = bits < 60 ? 300 : bits < 85 ? 5000 : bits < 97 ? 40000 : 400000;
    return rnd(&m->rng) % limit;
}

static void step_alloc(struct model *m, struct model_block *b)
{
    size_t size = random_size(m), align = 1ull << rnd(&m->rng) % 14;
    unsigned flags = rnd(&m->rng) & (ACRE_ZERO | ACRE_HEAP_OWNED);

    b->at = rnd(&m->rng) % 4 ? acre_allocx(m->heap, size, align, flags)
                             : acre_alloc(m->heap, (flags = 0, align = 1, size));
    if (!b->at)
        fail_msg("%zu bytes: %s", size, acre_last_error());
    assert_int_equal((uintptr_t)b->at % align, 0);
    assert_int_equal((uintptr_t)b->at % 16, 0);
    for (size_t i = 0; (flags & ACRE_ZERO) && i < size; i++)
        assert_int_equal(b->at[i], 0);
    b->size = size;
    b->usable = acre_usable_size(m->heap, b->at);
    assert_true(b->usable >= size);
    b->owner = flags & ACRE_HEAP_OWNED ? ACRE_OWNER_HEAP : m->self;
    b->pattern = (unsigned char)rnd(&m->rng);
    m->live += (long long)b->usable;
    paint(b);
}

static void step_free(struct model *m, struct model_block *b)
{
    acre_free(m->heap, b->at);
    assert_int_equal(acre_owner(m->heap, b->at), 0);
    m->live -= (long long)b->usable;
    b->at = NULL;
}

static void step_realloc(struct model *m, struct model_block *b)
{
    size_t size = random_size(m) + 1, kept = size < b->size ? size : b->size;
    unsigned char *at = acre_realloc(m->heap, b->at, size);

    assert_non_null(at);
    for (size_t i = 0; i<kept; i += b->size> 4096 ? 509 : 1)
        assert_int_equal(at[i], b->pattern);
    m->live -= (long long)b->usable;
    b->at = at;
    b->size = size;
    b->usable = acre_usable_size(m->heap, at);
    m->live += (long long)b->usable;
    paint(b);
}

static void step_owner(struct model *m, struct model_block *b)
{
    if (b->owner == ACRE_OWNER_HEAP) {
        assert_int_equal(acre_adopt(m->heap, b->at), 0);
        b->owner = m->self;
    } else {
        assert_int_equal(acre_publish(m->heap, b->at), 0);
        b->owner = ACRE_OWNER_HEAP;
    }
}

static void step(struct model *m)
{
    struct model_block *b = &m->blocks[rnd(&m->rng) % N_BLOCKS];
    unsigned what = rnd(&m->rng) % 100;

    if (!b->at)
        step_alloc(m, b);
    else if (what < 70)
        step_free(m, b);
    else if (what < 85)
        step_realloc(m, b);
    else
        step_owner(m, b);
    if (b->at)
        compare(m, b);
    if (rnd(&m->rng) % 5000 == 0)
        assert_int_equal(acre_trim(m->heap), 0);
}

static void random_operations_agree_with_a_naive_model(void **state)
{
    (void)state;
    struct model *m = calloc(1, sizeof(*m));
    const char *env = getenv("ACRE_TEST_STEPS");
    unsigned n_steps = env ? (unsigned)atoi(env) : 40000;

    assert_non_null(m);
    m->rng = test_seed(20261123);
    m->heap = heap_open(&the_daemon, NULL);
    m->self = acre_self(m->heap);
    for (unsigned i = 1; i <= n_steps; i++) {
        step(m);
        if (i % 10000 == 0) {
            for (unsigned k = 0; k < N_BLOCKS; k++)
                if (m->blocks[k].at)
                    compare(m, &m->blocks[k]);
            assert_int_equal(tenant_stats(&the_daemon, "default").live_bytes, m->live);
        }
    }
    for (unsigned k = 0; k < N_BLOCKS; k++)
        if (m->blocks[k].at)
            step_free(m, &m->blocks[k]);
    assert_int_equal(m->live, 0);
    assert_int_equal(acre_trim(m->heap), 0);
    assert_int_equal(tenant_stats(&the_daemon, "default").live_bytes, 0);
    assert_int_equal(tenant_stats(&the_daemon, "default").granted_bytes, 0);
    acre_close(m->heap);
    free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_operations_agree_with_a_naive_model),
    };
    return run_beside_daemon(tests, "capacity = \"2G\"\ntenant \"default\" { max = \"512M\" }\n");
}
