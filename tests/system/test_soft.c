/* SPDX-License-Identifier: Apache-2.0 */
/* Soft blocks go when memory is short, the least recently used first, and never under who has them
 * pinned: whatever becomes of their owner, of who frees them, and of the daemon. */
/* ctest-timeout: 300 */
#include "tests/system/harness.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>

#define MIB    (1u << 20)
#define ALL    (64u * MIB)
#define BLOCK  (256u << 10)
#define BLOCKS (ALL / BLOCK)
#define SOFT   (ACRE_SOFT | ACRE_HEAP_OWNED)

static const char *const config = "capacity = \"256M\"\n"
                                  "tenant a { max = \"64M\" }\n"
                                  "tenant b { max = \"64M\" }\n"
                                  "tenant big { max = \"256M\" }\n";

static struct acre_heap *heap;

static int up(void **state)
{
    int r = harness_up(state);
    heap = heap_open(&the_daemon, "a");
    return r;
}

static int down(void **state)
{
    acre_close(heap);
    return harness_down(state);
}

/* Filled by its own name; pinned. */
static char *soft_new(struct acre_heap *in, size_t size, unsigned flags, acre_soft *ret_name)
{
    char *block = acre_allocx(in, size, 0, flags);
    if (block && (*ret_name = acre_soft_of(in, block)) != 0)
        pattern_fill(block, size, *ret_name);
    return block;
}

static acre_soft soft_put(size_t size, unsigned flags)
{
    acre_soft name = 0;
    char *block = soft_new(heap, size, flags, &name);
    if (!block)
        fail_msg("%s", acre_last_error());
    acre_unpin(heap, block);
    return name;
}

/* True: it was there, and whole. */
static bool is_there(acre_soft name, size_t size)
{
    char *block = acre_pin(heap, name);
    if (!block) {
        assert_int_equal(errno, ESTALE);
        return false;
    }
    assert_true(pattern_is_whole(block, size));
    assert_true(acre_soft_of(heap, block) == name);
    acre_unpin(heap, block);
    return true;
}

/* ---- alone ---- */

static void a_name_lasts_as_long_as_its_block(void **state)
{
    (void)state;
    unsigned n_again = 0;
    for (size_t size = 1; size < 20 * MIB; size = size * 5 + 3) {
        acre_soft name = soft_put(size, size % 2 ? SOFT : ACRE_SOFT), other = 0;
        char *block = acre_pin(heap, name), *again;
        assert_non_null(block);
        assert_true(acre_usable_size(heap, block) >= size);
        assert_true(acre_owner(heap, block) == (size % 2 ? ACRE_OWNER_HEAP : acre_self(heap)));
        acre_free(heap, block);
        assert_null(acre_pin(heap, name));
        assert_int_equal(errno, ESTALE);
        assert_int_equal(acre_trim(heap), 0);
        assert_non_null(again = soft_new(heap, size, ACRE_SOFT, &other));
        n_again += again == block; /* the same place, and not the same */
        assert_true(other != name);
        assert_null(acre_pin(heap, name));
        acre_free(heap, again);
    }
    assert_true(n_again > 2);
    expect_settled(&the_daemon, "a", 0, 1);
}

static void what_is_not_pinned_goes_when_the_tenant_is_full(void **state)
{
    (void)state;
    acre_soft names[3 * BLOCKS];
    unsigned n_there = 0;
    for (unsigned i = 0; i < 3 * BLOCKS; i++)
        names[i] = soft_put(BLOCK, SOFT);
    for (unsigned i = 0; i < 3 * BLOCKS; i++)
        n_there += is_there(names[i], BLOCK);
    assert_in_range(n_there, BLOCKS * 3 / 4, BLOCKS);
    char *hard = acre_alloc(heap, ALL / 2); /* in one piece */
    if (!hard)
        fail_msg("%s", acre_last_error());
    for (unsigned i = n_there = 0; i < 3 * BLOCKS; i++)
        n_there += is_there(names[i], BLOCK);
    assert_true(n_there < BLOCKS / 2);
    acre_free(heap, hard);
}

static void the_least_recently_used_go_first(void **state)
{
    (void)state;
    acre_soft hot[BLOCKS / 4], cold[BLOCKS / 4], name = 0;
    unsigned n_hot = 0, n_cold = 0;
    for (unsigned i = 0; i < BLOCKS / 4; i++) {
        hot[i] = soft_put(BLOCK, SOFT);
        cold[i] = soft_put(BLOCK, SOFT);
    }
    for (unsigned i = 0; i < BLOCKS; i++) {
        usleep(3000);
        assert_non_null(soft_new(heap, BLOCK, SOFT, &name));
        acre_unpin(heap, acre_pointer(heap, (name & UINT32_MAX) << 13));
        for (unsigned k = 0; i % 8 == 0 && k < BLOCKS / 4; k++)
            (void)is_there(hot[k], 8);
    }
    for (unsigned i = 0; i < BLOCKS / 4; i++) {
        n_hot += is_there(hot[i], BLOCK);
        n_cold += is_there(cold[i], BLOCK);
    }
    assert_int_equal(n_cold, 0);
    assert_int_equal(n_hot, BLOCKS / 4);
}

static void what_is_pinned_stays(void **state)
{
    (void)state;
    acre_soft pinned[BLOCKS / 2];
    char *blocks[BLOCKS / 2];
    for (unsigned i = 0; i < BLOCKS / 2; i++)
        assert_non_null(blocks[i] = soft_new(heap, BLOCK, SOFT, &pinned[i]));
    for (unsigned i = 0; i < 3 * BLOCKS; i++)
        (void)soft_put(BLOCK, SOFT);
    assert_null(acre_alloc(heap, ALL / 2 + MIB));
    assert_int_equal(errno, ENOMEM);
    for (unsigned i = 0; i < BLOCKS / 2; i++) {
        assert_true(pattern_is_whole(blocks[i], BLOCK));
        assert_true(is_there(pinned[i], BLOCK));
        acre_free(heap, blocks[i]);
    }
    char *hard = acre_alloc(heap, ALL / 2 + MIB);
    if (!hard)
        fail_msg("%s", acre_last_error());
    acre_free(heap, hard);
}

/* All that is to be had but so many blocks, and back. */
static void fill_up(unsigned n_others)
{
    static char *blocks[2 * BLOCKS];
    unsigned n = 0;
    while ((blocks[n] = acre_alloc(heap, BLOCK)))
        memset(blocks[n++], 'x', BLOCK);
    assert_int_equal(errno, ENOMEM);
    assert_in_range(n, BLOCKS - BLOCKS / 16 - n_others, BLOCKS);
    while (n > 0)
        acre_free(heap, blocks[--n]);
}

/* Thousands at a time, of one unit each. */
static void small_ones_go_in_thousands(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 20000; i++)
        (void)soft_put(100, SOFT);
    fill_up(0);
}

static struct {
    unsigned n;
    enum acre_misuse_kind kind;
} seen;

static void note(void *ctx, const struct acre_misuse *misuse)
{
    (void)ctx;
    seen.n++;
    seen.kind = misuse->kind;
}

static void expect_refused(const void *result, int error)
{
    assert_null(result);
    assert_int_equal(errno, error);
}

static void what_makes_no_sense_is_refused(void **state)
{
    (void)state;
    acre_off *slot = acre_calloc(heap, 1, sizeof(*slot));
    acre_soft name = 0;
    char *block = soft_new(heap, 100000, ACRE_SOFT, &name), *hard = acre_alloc(heap, 100);
    expect_refused(acre_realloc(heap, block, 300000), EINVAL);
    assert_int_equal(acre_publish_at(heap, block, slot), -EINVAL);
    assert_int_equal(acre_root_set(heap, "soft", acre_offset(heap, block)), -EINVAL);
    assert_true(acre_soft_of(heap, hard) == 0 && errno == EINVAL);
    assert_true(acre_soft_of(heap, block + 8192) == 0 && errno == EINVAL);
    expect_refused(acre_pin(heap, 0), EINVAL);
    expect_refused(acre_pin(heap, 1), EINVAL);
    expect_refused(acre_pin(heap, UINT64_MAX), EINVAL);
    expect_refused(acre_pin(heap, 1ull << 32 | 100), ESTALE);
    expect_refused(acre_pin(heap, 1ull << 32 | 200 * 131072), ESTALE); /* no segment there */
    acre_set_misuse_handler(note, NULL);
    acre_unpin(heap, NULL);
    assert_int_equal(seen.n, 0);
    acre_unpin(heap, hard);
    acre_unpin(heap, &name);
    acre_unpin(heap, block);
    acre_unpin(heap, block);
    assert_int_equal(seen.n, 3);
    acre_free(heap, block); /* it could be another one by now */
    assert_int_equal(seen.n, 4);
    assert_int_equal(seen.kind, ACRE_MISUSE_NOT_PINNED);
    assert_non_null(acre_pin(heap, name));
    acre_free(heap, block);
    acre_free(heap, block);
    assert_int_equal(seen.n, 5);
    acre_set_misuse_handler(NULL, NULL);
    acre_free(heap, slot);
    acre_free(heap, hard);
}

static void a_process_has_760_pins(void **state)
{
    (void)state;
    acre_soft name = soft_put(1, SOFT);
    for (unsigned i = 0; i < 760; i++)
        assert_non_null(acre_pin(heap, name));
    expect_refused(acre_pin(heap, name), EAGAIN);
    expect_refused(acre_allocx(heap, 1, 0, ACRE_SOFT), EAGAIN);
    for (unsigned i = 0; i < 760; i++)
        acre_unpin(heap, acre_pointer(heap, (name & UINT32_MAX) << 13));
    assert_true(is_there(name, 1));
}

/* Threads that pin one block, that try the name of what lay there before, and whose block is another,
 * in the few lines that are free: no pin is another's to drop, and none is left. */
struct pinner {
    acre_soft name;
    bool is_gone;
    _Atomic unsigned n_wrong;
};

static void *pins_and_unpins(void *arg)
{
    struct pinner *p = arg;
    for (unsigned i = 0; i < 300000; i++) {
        char *block = acre_pin(heap, p->name);
        p->n_wrong += p->is_gone ? block || errno != ESTALE : !block;
        acre_unpin(heap, block);
    }
    return NULL;
}

static void the_pins_of_threads_are_their_own(void **state)
{
    (void)state;
    pthread_t threads[6];
    struct pinner gone = {soft_put(1, ACRE_SOFT), true, 0}, same = {0}, other = {0};
    acre_free(heap, acre_pin(heap, gone.name));
    for (unsigned i = 0; i < 100 && (same.name ^ gone.name) & UINT32_MAX; i++) {
        assert_int_equal(acre_trim(heap), 0);
        same.name = soft_put(1, SOFT);
    }
    assert_int_equal(same.name & UINT32_MAX, gone.name & UINT32_MAX);
    other.name = soft_put(1, SOFT);
    struct pinner *const what[] = {&gone, &same, &other, &gone, &same, &same};
    seen.n = 0;
    acre_set_misuse_handler(note, NULL);
    for (unsigned i = 0; i < 760; i++)
        assert_non_null(acre_pin(heap, i % 76 ? other.name : same.name));
    for (unsigned i = 0; i < 10; i++)
        acre_unpin(heap, acre_pointer(heap, (same.name & UINT32_MAX) << 13));
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, pins_and_unpins, what[i]), 0);
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    acre_set_misuse_handler(NULL, NULL);
    assert_int_equal(seen.n, 0);
    assert_int_equal(gone.n_wrong + same.n_wrong + other.n_wrong, 0);
    for (unsigned i = 0; i < 10; i++)
        assert_non_null(acre_pin(heap, same.name));
    assert_null(acre_pin(heap, same.name));
}

/* ---- several processes ---- */

struct shared {
    acre_soft name;
    _Atomic int step;
};

static void wait_for(struct shared *s, int step)
{
    while (atomic_load(&s->step) < step)
        usleep(1000);
}

/* Makes one of its own, unpins it, and waits to be killed. */
static bool owns_one(void *arg)
{
    struct shared *s = arg;
    struct acre_heap *own;
    char *block;
    CHECK(acre_open(&own, the_daemon.socket, "a") == 0);
    CHECK((block = soft_new(own, BLOCK, ACRE_SOFT, &s->name)));
    acre_unpin(own, block);
    atomic_store(&s->step, 1);
    wait_for(s, 100);
    return true;
}

static bool pins_it(void *arg)
{
    struct shared *s = arg;
    struct acre_heap *own;
    char *block;
    CHECK(acre_open(&own, the_daemon.socket, "a") == 0);
    CHECK((block = acre_pin(own, s->name)));
    atomic_store(&s->step, 1);
    wait_for(s, 2);
    CHECK(pattern_is_whole(block, BLOCK));
    atomic_store(&s->step, 3);
    wait_for(s, 100);
    return true;
}

static void kill_it(pid_t pid)
{
    (void)kill(pid, SIGKILL);
    assert_int_equal(child_signal(pid), SIGKILL);
}

static void who_has_it_pinned_outlives_its_owner(void **state)
{
    (void)state;
    struct shared *s = shared_page(sizeof(*s));
    pid_t pid = child_start(owns_one, s);
    wait_for(s, 1);
    char *block = acre_pin(heap, s->name);
    assert_non_null(block);
    kill_it(pid);
    for (unsigned i = 0; acre_owner(heap, block) != 0; i++, usleep(1000))
        assert_true(i < 20000);
    fill_up(0);
    assert_true(pattern_is_whole(block, BLOCK));
    assert_null(acre_pin(heap, s->name)); /* nobody else gets it any more */
    assert_int_equal(errno, ESTALE);
    acre_unpin(heap, block);
    fill_up(0);
    expect_settled(&the_daemon, "a", 0, 1);
}

static void who_has_it_pinned_keeps_it_when_another_frees_it(void **state)
{
    (void)state;
    struct shared *s = shared_page(sizeof(*s));
    s->name = soft_put(BLOCK, SOFT);
    pid_t pid = child_start(pins_it, s);
    wait_for(s, 1);
    char *block = acre_pin(heap, s->name);
    assert_non_null(block);
    acre_free(heap, block);
    assert_int_equal(acre_trim(heap), 0);
    fill_up(0);
    atomic_store(&s->step, 2);
    wait_for(s, 3);
    kill_it(pid); /* and its pin ends */
    expect_settled(&the_daemon, "a", 0, 1);
    fill_up(0);
}

static void the_pins_of_the_dead_do_not_count(void **state)
{
    (void)state;
    struct shared *s = shared_page(sizeof(*s));
    s->name = soft_put(BLOCK, SOFT);
    pid_t pid = child_start(pins_it, s);
    wait_for(s, 1);
    kill_it(pid);
    expect_settled(&the_daemon, "a", BLOCK, 1);
    fill_up(0);
    assert_false(is_there(s->name, BLOCK));
}

#define MANY 20000u

struct many {
    struct shared shared;
    acre_soft names[MANY];
};

/* Blocks of the heap's, and at the end one of its own. */
static bool makes_many(void *arg)
{
    struct many *m = arg;
    struct acre_heap *own;
    CHECK(acre_open(&own, the_daemon.socket, "big") == 0);
    for (unsigned i = 0; i < MANY; i++) {
        char *block = acre_allocx(own, 8192, 0, i < MANY - 1 ? SOFT : ACRE_SOFT);
        CHECK(block && (m->names[i] = acre_soft_of(own, block)));
        acre_unpin(own, block);
    }
    atomic_store(&m->shared.step, 1);
    wait_for(&m->shared, 100);
    return true;
}

/* Freed just when their maker is being buried, and pinned since shortly before. */
static void free_while_buried(struct acre_heap *big, const struct many *m, unsigned wait)
{
    char *blocks[15], *last = acre_pin(big, m->names[MANY - 1]);
    assert_non_null(last);
    while (acre_adopt(big, last) != -EINVAL)
        ;
    for (volatile unsigned i = 0; i < wait; i = i + 1)
        ;
    for (unsigned i = 0; i < 15; i++) {
        acre_soft name = m->names[MANY - 2 - i];
        blocks[i] = acre_pin(big, name);
        assert_true(blocks[i] && acre_pin(big, name));
        acre_free(big, blocks[i]);
    }
    while (tenant_stats(&the_daemon, "big").n_clients > 1)
        usleep(1000);
    for (unsigned i = 0; i < 15; i++) {
        assert_true(acre_soft_of(big, blocks[i]) == m->names[MANY - 2 - i]);
        acre_unpin(big, blocks[i]);
    }
    acre_unpin(big, last);
}

static void what_is_freed_while_its_maker_is_buried_stays_for_who_has_it_pinned(void **state)
{
    (void)state;
    struct many *m =
        mmap(NULL, sizeof(*m), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(m != MAP_FAILED);
    for (unsigned i = 0; i < 30; i++) {
        struct acre_heap *big = heap_open(&the_daemon, "big");
        atomic_store(&m->shared.step, 0);
        pid_t pid = child_start(makes_many, m);
        wait_for(&m->shared, 1);
        assert_non_null(acre_pin(big, m->names[0]));
        (void)kill(pid, SIGKILL);
        free_while_buried(big, m, i * 30000);
        assert_int_equal(child_signal(pid), SIGKILL);
        for (unsigned k = 0; k < MANY; k++) {
            char *block = acre_pin(big, m->names[k]);
            acre_free(big, block);
        }
        acre_close(big);
        expect_settled(&the_daemon, "big", 0, 0);
    }
}

static bool is_a_child(void *arg)
{
    struct shared *s = arg;
    char *block = acre_pointer(heap, (s->name & UINT32_MAX) << 13);
    acre_set_misuse_handler(note, NULL);
    seen.n = 0;
    acre_free(heap, block);
    acre_unpin(heap, block);
    CHECK(seen.n == 2);
    CHECK((block = acre_pin(heap, s->name)));
    CHECK(pattern_is_whole(block, BLOCK));
    acre_free(heap, block);
    CHECK(seen.n == 2);
    return true;
}

static void a_forked_child_has_no_pins(void **state)
{
    (void)state;
    struct shared *s = shared_page(sizeof(*s));
    char *block = soft_new(heap, BLOCK, SOFT, &s->name);
    assert_non_null(block);
    RUN_CHILD(is_a_child, s);
    fill_up(0);
    assert_true(pattern_is_whole(block, BLOCK));
    acre_unpin(heap, block);
    assert_null(acre_pin(heap, s->name));
}

static void pins_outlive_the_daemon(void **state)
{
    (void)state;
    struct shared *s = shared_page(sizeof(*s));
    pid_t pid = child_start(owns_one, s);
    wait_for(s, 1);
    acre_soft mine, published = soft_put(BLOCK, SOFT);
    char *block = soft_new(heap, BLOCK, SOFT, &mine), *its = acre_pin(heap, s->name);
    assert_true(block && its);
    pid_t worker = daemon_worker(&the_daemon);
    (void)kill(worker, SIGKILL);
    while (daemon_worker(&the_daemon) == worker)
        usleep(1000);
    kill_it(pid);
    fill_up(0);
    assert_true(pattern_is_whole(block, BLOCK) && pattern_is_whole(its, BLOCK));
    assert_false(is_there(published, BLOCK));
    acre_unpin(heap, its);
    acre_free(heap, block);
    fill_up(0);
    expect_settled(&the_daemon, "a", 0, 1);
}

/* ---- several tenants ---- */

static bool polls(void *arg)
{
    struct shared *s = arg;
    struct acre_heap *own;
    CHECK(acre_open(&own, the_daemon.socket, "big") == 0);
    for (unsigned i = 0; i < 200 * MIB / BLOCK; i++) {
        char *block = soft_new(own, BLOCK, SOFT, &s->name);
        CHECK(block);
        acre_unpin(own, block);
    }
    struct pollfd fd = {acre_fd(own), POLLIN, 0};
    for (atomic_store(&s->step, 1); atomic_load(&s->step) == 1;)
        if (poll(&fd, 1, 10) > 0)
            CHECK(acre_dispatch(own) >= 0);
    char *last = acre_pin(own, s->name);
    CHECK(last && pattern_is_whole(last, BLOCK));
    return true;
}

/* Of 256 MiB one has 200 of soft memory: others get their share, and it keeps its own, the youngest
 * blocks. */
static void others_get_their_share_of_a_cache(void **state)
{
    (void)state;
    struct shared *s = shared_page(sizeof(*s));
    static char *blocks[BLOCKS];
    unsigned n = 0;
    pid_t pid = child_start(polls, s);
    wait_for(s, 1);
    while (n < BLOCKS - BLOCKS / 16 && (blocks[n] = acre_alloc(heap, BLOCK)))
        memset(blocks[n++], 'x', BLOCK);
    struct acre_heap *other = heap_open(&the_daemon, "b");
    for (unsigned i = 0; i < 3 && n < 2000; i++) {
        char *block = acre_alloc_wait(other, 10 * MIB, 20000);
        if (!block)
            fail_msg("%s", acre_last_error());
    }
    assert_true(tenant_stats(&the_daemon, "big").live_bytes >= 100 * MIB);
    atomic_store(&s->step, 2);
    assert_true(child_ok(pid));
    while (n > 0)
        acre_free(heap, blocks[--n]);
    acre_close(other);
}

/* ---- all at once ---- */

#define CELLS 512u

struct cache {
    _Atomic uint64_t cells[CELLS];
    _Atomic uint64_t n_hits, n_gone, n_made;
};

/* First and last word of each say which it is. */
static bool is_that(const char *block, acre_soft name)
{
    acre_soft first, last;
    memcpy(&first, block, sizeof(first));
    memcpy(&last, block + BLOCK - sizeof(last), sizeof(last));
    return first == (name ^ PATTERN) && last == name;
}

static bool make_one(struct acre_heap *in, struct cache *cache, _Atomic uint64_t *cell,
                     acre_soft was)
{
    char *block = acre_allocx(in, BLOCK, 0, SOFT);
    CHECK(block || errno == ENOMEM);
    if (!block)
        return true;
    acre_soft name = acre_soft_of(in, block), first = name ^ PATTERN;
    memcpy(block, &first, sizeof(first));
    memcpy(block + BLOCK - sizeof(name), &name, sizeof(name));
    if (atomic_compare_exchange_strong(cell, &was, name))
        acre_unpin(in, block);
    else
        acre_free(in, block);
    atomic_fetch_add(&cache->n_made, 1);
    return true;
}

/* A cache whose index is the cells: what is gone is made anew. */
static bool use_cache(struct acre_heap *in, struct cache *cache, uint64_t *random)
{
    _Atomic uint64_t *cell = &cache->cells[rnd(random) % CELLS];
    acre_soft name = atomic_load(cell);
    char *block = name ? acre_pin(in, name) : NULL;
    if (!block) {
        CHECK(name == 0 || errno == ESTALE);
        atomic_fetch_add(&cache->n_gone, name != 0);
        return make_one(in, cache, cell, name);
    }
    CHECK(is_that(block, name));
    atomic_fetch_add(&cache->n_hits, 1);
    if (rnd(random) % 64 == 0)
        usleep(1000);
    CHECK(is_that(block, name));
    if (rnd(random) % 16 == 0 && atomic_compare_exchange_strong(cell, &name, 0))
        acre_free(in, block);
    else
        acre_unpin(in, block);
    return true;
}

static bool runs_the_cache(void *arg)
{
    struct acre_heap *own;
    uint64_t random = rnd_seeded((uint64_t)getpid());
    CHECK(acre_open(&own, the_daemon.socket, "a") == 0);
    for (;;)
        CHECK(use_cache(own, arg, &random));
}

/* Hard blocks come and go beside it, and processes die. */
static void a_cache_is_right_while_processes_die_and_memory_is_short(void **state)
{
    (void)state;
    struct cache *cache = shared_page(sizeof(*cache));
    uint64_t random = rnd_seeded(test_seed(11));
    pid_t pids[3] = {0};
    for (unsigned i = 0; i < 60; i++) {
        unsigned k = i % 3;
        if (pids[k])
            kill_it(pids[k]);
        pids[k] = child_start(runs_the_cache, cache);
        char *hard = acre_alloc(heap, MIB + rnd(&random) % 20 * MIB);
        usleep((useconds_t)(20000 + rnd(&random) % 40000));
        acre_free(heap, hard);
    }
    for (unsigned k = 0; k < 3; k++)
        kill_it(pids[k]);
    printf("%lu hits, %lu gone, %lu made\n", (unsigned long)cache->n_hits,
           (unsigned long)cache->n_gone, (unsigned long)cache->n_made);
    assert_true(cache->n_hits > 100 && cache->n_gone > 100);
    while (tenant_stats(&the_daemon, "a").n_clients > 1)
        usleep(1000);
    fill_up(0);
    for (unsigned i = 0; i < CELLS; i++)
        if (cache->cells[i])
            assert_false(is_there(cache->cells[i], 8));
    expect_settled(&the_daemon, "a", 0, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_name_lasts_as_long_as_its_block, up, down),
        cmocka_unit_test_setup_teardown(what_is_not_pinned_goes_when_the_tenant_is_full, up, down),
        cmocka_unit_test_setup_teardown(the_least_recently_used_go_first, up, down),
        cmocka_unit_test_setup_teardown(what_is_pinned_stays, up, down),
        cmocka_unit_test_setup_teardown(small_ones_go_in_thousands, up, down),
        cmocka_unit_test_setup_teardown(what_makes_no_sense_is_refused, up, down),
        cmocka_unit_test_setup_teardown(a_process_has_760_pins, up, down),
        cmocka_unit_test_setup_teardown(the_pins_of_threads_are_their_own, up, down),
        cmocka_unit_test_setup_teardown(who_has_it_pinned_outlives_its_owner, up, down),
        cmocka_unit_test_setup_teardown(who_has_it_pinned_keeps_it_when_another_frees_it, up, down),
        cmocka_unit_test_setup_teardown(
            what_is_freed_while_its_maker_is_buried_stays_for_who_has_it_pinned, up, down),
        cmocka_unit_test_setup_teardown(the_pins_of_the_dead_do_not_count, up, down),
        cmocka_unit_test_setup_teardown(a_forked_child_has_no_pins, up, down),
        cmocka_unit_test_setup_teardown(pins_outlive_the_daemon, up, down),
        cmocka_unit_test_setup_teardown(others_get_their_share_of_a_cache, up, down),
        cmocka_unit_test_setup_teardown(a_cache_is_right_while_processes_die_and_memory_is_short,
                                        up, down),
    };
    harness_config = config;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
