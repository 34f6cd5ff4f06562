/* SPDX-License-Identifier: Apache-2.0 */
/*
 * acrectl check: silent about a heap in order, at rest, under full load, and with its clients
 * stopped in the middle of whatever they do; and each kind of damage that a client can do to the
 * tables is found where it is.
 */
/* ctest-timeout: 300 */
#include "tests/system/between.h"
#include "tests/system/harness.h"

#include <jansson.h>
#include <stdatomic.h>

#include "shm/segment.h"
#include "shm/sizeclass.h"

#define N_WORKERS 4u
#define N_KILLS   16u
#define N_SHELVES 256u

/* ---- what acrectl says ---- */

struct verdict {
    int code;
    bool sums_compared;
    long long n_segments, n_unsure;
    size_t n_findings;
    char kinds[512], text[512]; /* of all findings; of the first one */
};

static void add_finding(struct verdict *v, const json_t *finding)
{
    const char *kind = json_string_value(json_object_get(finding, "kind"));
    assert_non_null(kind);
    if (v->n_findings++ == 0)
        snprintf(v->text, sizeof(v->text), "%s",
                 json_string_value(json_object_get(finding, "text")));
    size_t n = strlen(v->kinds);
    snprintf(v->kinds + n, sizeof(v->kinds) - n, "%s@%lld ", kind,
             json_integer_value(json_object_get(finding, "unit")));
}

static const char *check_at; /* NULL: the_daemon's own socket */

static struct verdict check(void)
{
    struct verdict v = {0};
    char command[512];
    json_t *finding;
    size_t i;

    snprintf(command, sizeof(command), "%s check default --json --socket %s", getenv("ACRECTL"),
             check_at ? check_at : the_daemon.socket);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    json_t *root = json_loadf(f, 0, NULL);
    int status = pclose(f);
    assert_true(WIFEXITED(status));
    assert_non_null(root);
    json_t *tenant = json_array_get(json_object_get(root, "tenants"), 0);
    v.code = WEXITSTATUS(status);
    v.sums_compared = json_is_true(json_object_get(tenant, "sums_compared"));
    v.n_unsure = json_integer_value(json_object_get(tenant, "unsure"));
    v.n_segments = json_integer_value(json_object_get(tenant, "segments"));
    json_array_foreach(json_object_get(tenant, "findings"), i, finding) add_finding(&v, finding);
    json_decref(root);
    assert_int_equal(v.code, v.n_findings > 0);
    return v;
}

static struct verdict expect_well(void)
{
    struct verdict v = check();
    if (v.code != 0)
        fail_msg("%zu findings: %s: %s", v.n_findings, v.kinds, v.text);
    return v;
}

static void expect_finding(const char *kind, uint32_t unit)
{
    struct verdict v = check();
    char wanted[64];
    snprintf(wanted, sizeof(wanted), "%s@%u ", kind, unit);
    if (!strstr(v.kinds, wanted))
        fail_msg("expected %s, got: %s", wanted, v.kinds);
    printf("%s\n", v.text);
}

/* ---- at rest ---- */

static bool leave_orphans(void *arg)
{
    struct acre_heap *heap = heap_open(&the_daemon, "default");
    (void)arg;
    for (size_t i = 0; i < 3000; i++) {
        void *block = acre_alloc(heap, i % 40 == 0 ? 100000 + i * 100 : 1 + i);
        CHECK(block);
        if (i % 7 == 0)
            CHECK(acre_publish(heap, block) == 0);
    }
    return true;
}

static void a_heap_at_rest_agrees_with_the_books(void **state)
{
    (void)state;
    struct verdict v = expect_well();
    assert_true(v.sums_compared);
    struct acre_heap *heap = heap_open(&the_daemon, "default");
    void *blocks[300];
    for (size_t i = 0; i < 300; i++) {
        blocks[i] = acre_alloc(heap, i * i * 7);
        assert_non_null(blocks[i]);
    }
    assert_true(expect_well().sums_compared);
    for (size_t i = 0; i < 300; i += 2)
        acre_free(heap, blocks[i]);
    assert_true(expect_well().sums_compared);
    RUN_CHILD(leave_orphans, NULL);
    v = expect_well(); /* perhaps it is being reaped */
    assert_true(v.n_segments > 0);
    void *wide = acre_alloc(heap, (1ull << 30) + 12345); /* if the machine has that much */
    assert_true(expect_well().sums_compared);
    acre_free(heap, wide);
    assert_int_equal(acre_trim(heap), 0);
    assert_true(expect_well().sums_compared);
    acre_close(heap);
    (void)expect_well();
}

/* ---- while it grows ---- */

static struct acre_heap *growing;
static unsigned until_grown; /* requests */

static bool grow_before(bool is_reply)
{
    if (!is_reply && until_grown > 0 && --until_grown == 0 && !acre_alloc(growing, 1000000))
        abort(); /* not a thread of the test's */
    return true;
}

/* Its first segment appears between any two questions that the check asks. */
static void a_heap_that_grows_is_not_misunderstood(void **state)
{
    (void)state;
    for (unsigned k = 1; until_grown == 0; k++) {
        daemon_up(&the_daemon, NULL);
        check_at = between_up(grow_before);
        growing = heap_open(&the_daemon, "default");
        until_grown = k;
        (void)expect_well();
        acre_close(growing);
        between_down();
        check_at = NULL;
        daemon_down(&the_daemon);
    }
}

/* ---- under load ---- */

struct load {
    uint64_t seed;
    _Atomic int stop;
    _Atomic uint64_t n_ops;
    _Atomic uint64_t clients[N_WORKERS];
    _Atomic acre_off shelves[N_SHELVES]; /* published blocks, for whoever takes them */
};

struct worker {
    struct load *load;
    unsigned i;
};

static size_t any_size(uint64_t *rng)
{
    switch (rnd(rng) % 16) {
    case 0:
        return 65537 + rnd(rng) % 3000000;
    case 1:
        return 65537 + rnd(rng) % 200000;
    case 2:
    case 3:
        return rnd(rng) % 65536;
    default:
        return rnd(rng) % 1500;
    }
}

/* Puts a block on a shelf, and takes what lies there. */
static void swap_shelf(struct acre_heap *heap, struct load *load, uint64_t *rng, void *block)
{
    if (acre_publish(heap, block) < 0)
        return;
    acre_off off = acre_offset(heap, block);
    off = atomic_exchange(&load->shelves[rnd(rng) % N_SHELVES], off);
    block = off ? acre_pointer(heap, off) : NULL;
    if (block && acre_adopt(heap, block) == 0)
        acre_free(heap, block);
}

static void *change(struct acre_heap *heap, struct load *load, uint64_t *rng, void *block)
{
    switch (rnd(rng) % 8) {
    case 0:
        swap_shelf(heap, load, rng, block);
        return NULL;
    case 1: /* to one that may be gone, or will free it by its end */
        if (acre_give(heap, block, atomic_load(&load->clients[rnd(rng) % N_WORKERS])) == 0)
            return NULL;
        break;
    case 2: {
        void *moved = acre_realloc(heap, block, any_size(rng) + 1);
        return moved ? moved : block;
    }
    default:
        break;
    }
    if (acre_owner(heap, block) == acre_self(heap))
        acre_free(heap, block);
    return NULL;
}

static bool work(void *arg)
{
    struct worker *w = arg;
    struct load *load = w->load;
    uint64_t rng = load->seed ^ ((uint64_t)getpid() << 20) ^ w->i;
    void *blocks[400] = {0};
    struct acre_heap *heap;

    CHECK(acre_open(&heap, the_daemon.socket, "default") == 0);
    atomic_store(&load->clients[w->i], acre_self(heap));
    while (!atomic_load(&load->stop)) {
        unsigned i = rnd(&rng) % 400;
        blocks[i] = blocks[i] ? change(heap, load, &rng, blocks[i])
                              : acre_alloc(heap, any_size(&rng)); /* or there is no memory */
        if (rnd(&rng) % 2000 == 0)
            (void)acre_trim(heap);
        atomic_fetch_add(&load->n_ops, 1);
    }
    acre_close(heap);
    return true;
}

static const char *const tight = "tenant default { max = \"40M\" }\n";

/* Checks while they run; every third time while they stand still wherever they are. */
static unsigned check_among(pid_t *pids, unsigned round)
{
    for (unsigned i = 0; i < N_WORKERS && round % 3 == 2; i++)
        assert_int_equal(kill(pids[i], SIGSTOP), 0);
    struct verdict v = expect_well();
    for (unsigned i = 0; i < N_WORKERS && round % 3 == 2; i++)
        assert_int_equal(kill(pids[i], SIGCONT), 0);
    return v.sums_compared;
}

static void a_heap_under_load_agrees_with_the_books(void **state)
{
    (void)state;
    struct load *load = shared_page(sizeof(*load));
    static struct worker workers[N_WORKERS];
    pid_t pids[N_WORKERS];
    unsigned n_sums = 0;
    uint64_t rng = load->seed = test_seed(5);

    daemon_up(&the_daemon, tight);
    for (unsigned i = 0; i < N_WORKERS; i++) {
        workers[i] = (struct worker){load, i};
        pids[i] = child_start(work, &workers[i]);
    }
    for (unsigned k = 0; k < N_KILLS; k++) {
        n_sums += check_among(pids, k);
        unsigned i = rnd(&rng) % N_WORKERS;
        assert_int_equal(kill(pids[i], SIGKILL), 0);
        if (rnd(&rng) % 2)
            n_sums += check_among(pids, 0); /* while it is reaped */
        assert_int_equal(child_signal(pids[i]), SIGKILL);
        pids[i] = child_start(work, &workers[i]);
        usleep((useconds_t)(rnd(&rng) % 30000));
    }
    atomic_store(&load->stop, 1);
    for (unsigned i = 0; i < N_WORKERS; i++)
        assert_true(child_ok(pids[i]));
    printf("%llu operations meanwhile, sums compared %u times\n",
           (unsigned long long)atomic_load(&load->n_ops), n_sums);
    for (unsigned i = 0; tenant_stats(&the_daemon, "default").n_clients > 0; i++) {
        assert_true(i < 1000);
        usleep(20000);
    }
    assert_true(expect_well().sums_compared);
    daemon_down(&the_daemon);
}

/* ---- damage ---- */

struct victim {
    struct acre_heap *heap;
    struct segment_shape shape;
    char *base;
    uint32_t slab, large; /* units */
};

static uint64_t *entry(const struct victim *v, uint32_t unit)
{
    return segment_entries(v->base, &v->shape) + unit;
}

static uint32_t unit_of(const struct victim *v, const void *block)
{
    return (uint32_t)(((uintptr_t)block - (uintptr_t)v->base) >> UNIT_SHIFT);
}

/* A slab of several units, and a large block. */
static void victim_make(struct victim *v)
{
    v->heap = heap_open(&the_daemon, "default");
    char *small = acre_alloc(v->heap, 20000), *large = acre_alloc(v->heap, 100000);
    assert_true(small && large);
    v->base = small - acre_offset(v->heap, small);
    v->shape = segment_shape(((struct seg_header *)(void *)v->base)->n_units);
    v->large = unit_of(v, large);
    v->slab = unit_of(v, small);
    v->slab -= unit_entry_back(*entry(v, v->slab));
    assert_int_equal(unit_entry_state(*entry(v, v->slab)), U_SLAB);
    assert_true(geo_infos[unit_entry_geo(*entry(v, v->slab))].order > 0);
    assert_int_equal(unit_entry_state(*entry(v, v->large)), U_LARGE);
    (void)expect_well();
}

static uint32_t free_unit(const struct victim *v)
{
    for (uint32_t u = v->shape.n_units - 1;; u--)
        if (*entry(v, u) == 0)
            return u;
}

static void plant(const struct victim *v, uint32_t unit, uint64_t wrong, const char *kind,
                  uint32_t where)
{
    uint64_t right = *entry(v, unit);
    *entry(v, unit) = wrong;
    expect_finding(kind, where);
    *entry(v, unit) = right;
    (void)expect_well();
}

static void damage_to_an_entry_is_found(void **state)
{
    (void)state;
    struct victim v;
    victim_make(&v);
    uint32_t token = unit_entry_holder(*entry(&v, v.slab)), other = token + (7u << 16);
    unsigned geo = unit_entry_geo(*entry(&v, v.slab));
    tag_t id = holder_client(token);

    plant(&v, free_unit(&v), unit_entry_plain(U_UNCUT, token), "nobody", free_unit(&v));
    plant(&v, 0, 0, "tables", 0);
    plant(&v, v.slab, 0, "state", v.slab);
    plant(&v, v.slab, 0, "head", v.slab + 1);
    plant(&v, v.slab, unit_entry_slab(U_SLAB, geo, 0, other), "holder", v.slab);
    plant(&v, v.slab, *entry(&v, v.slab) | 1ull << 30, "bits", v.slab);
    plant(&v, v.slab, unit_entry_slab(U_SLAB, 1, 0, token), "slab", v.slab);
    plant(&v, v.slab + 1, unit_entry_slab(U_SLAB, geo, 0, token), "slab", v.slab + 1);
    plant(&v, v.slab + 1, unit_entry_plain(U_CUT, holder_token(id, 0)), "inner", v.slab + 1);
    plant(&v, v.slab + 1, unit_entry_plain(U_UNCUT, holder_token(id, 0)), "inner", v.slab + 1);
    plant(&v, v.large, unit_entry_large(v.shape.n_units, id), "large", v.large);
    plant(&v, v.large, unit_entry_large(0, id), "large", v.large);
    plant(&v, v.large, unit_entry_large(3, (tag_t)(id + 1)), "holder", v.large);
    plant(&v, v.large + 2, unit_entry_plain(U_UNCUT, holder_token(id, 0)), "inner", v.large + 2);
    acre_close(v.heap);
}

static void a_tag_of_a_client_that_is_gone_is_found(void **state)
{
    (void)state;
    struct victim v;
    victim_make(&v);
    tag_t *tags[] = {(tag_t *)(void *)(v.base + v.slab * UNIT_BYTES),
                     segment_tags(v.base, &v.shape) + v.large};
    uint32_t units[] = {v.slab, v.large};
    for (unsigned i = 0; i < 2; i++) {
        tag_t right = *tags[i];
        *tags[i] = 4321;
        expect_finding("tag", units[i]);
        *tags[i] = TAG_HEAP;
        (void)expect_well();
        *tags[i] = right;
        (void)expect_well();
    }
    acre_close(v.heap);
}

static void a_header_that_was_written_over_is_found(void **state)
{
    (void)state;
    struct victim v;
    victim_make(&v);
    struct seg_header *header = (struct seg_header *)(void *)v.base;
    header->n_units++;
    expect_finding("header", 0);
    header->n_units--;
    (void)expect_well();
    acre_close(v.heap);
}

/* Somebody else's allocations go on beside the damage. */
static void damage_is_found_under_load_too(void **state)
{
    (void)state;
    struct load *load = shared_page(sizeof(*load));
    struct worker worker = {load, 0};
    struct victim v;
    load->seed = test_seed(8);
    victim_make(&v);
    pid_t pid = child_start(work, &worker);
    uint64_t right = *entry(&v, v.slab + 1);
    *entry(&v, v.slab + 1) = 0;
    unsigned n_found = 0;
    for (unsigned i = 0; i < 10; i++) { /* a heap in too much of a hurry is not called well */
        struct verdict said = check();
        assert_true(said.code == 1 || said.n_unsure > 0);
        n_found += strstr(said.kinds, "state@") != NULL;
    }
    assert_true(n_found > 0);
    *entry(&v, v.slab + 1) = right;
    (void)expect_well();
    atomic_store(&load->stop, 1);
    assert_true(child_ok(pid));
    acre_close(v.heap);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, harness_up, harness_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_heap_at_rest_agrees_with_the_books),
        cmocka_unit_test(a_heap_that_grows_is_not_misunderstood),
        cmocka_unit_test(a_heap_under_load_agrees_with_the_books),
        TEST(damage_to_an_entry_is_found),
        TEST(a_tag_of_a_client_that_is_gone_is_found),
        TEST(a_header_that_was_written_over_is_found),
        TEST(damage_is_found_under_load_too),
    };
    sizeclass_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
