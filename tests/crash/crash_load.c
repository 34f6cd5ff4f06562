/* SPDX-License-Identifier: Apache-2.0 */
/* ctest-timeout: 300 */
/*
 * Promise P1 by chance, under full load: N_WORKERS processes, every other one of them with several
 * threads, allocate, resize, free, publish, adopt, give and link at random, and are killed at
 * random instants, until so many have died. N_STAYERS are never killed and look at their blocks all
 * the time; so does the driver, in bursts after a death. Each block is full of a pattern, so that
 * one with two owners shows.
 *
 * FREES BY OTHERS. Threads of a process pass their blocks to each other by a ring, and stayers to
 * stayers, whose blocks no sweep takes away, by another: who gets one frees it, or keeps it if it
 * is its own process's.
 *
 * THE SHELF is a block of slots, a row for each worker: any thread links its blocks to empty ones,
 * and the worker's first thread takes them off. It is exact: what is linked is published.
 *
 * THE BOARD lies outside of the heap: no death takes a block off it. Published blocks go to slots,
 * by an exchange: who gets one out owns the knowledge of it, and adopts or frees the block. Killed
 * between publishing and the exchange, or between the exchange and what follows: the block stays
 * published, and nobody knows it; so at most one a death is left beside those on the board. Given
 * blocks go into the receiver's mailbox, together with its name: an heir of the mailbox does not
 * take them for its own.
 *
 * AT THE END every block with an owner is published and filled with its pattern to the last byte;
 * when all are freed, nothing is live, the granted bytes are back, and the whole budget can be had.
 *
 * Usage: crash-load [DEATHS]; figures (deaths a second, time until a client is gone from the
 * control page) are printed, none is asserted.
 */
#include "tests/crash/stage.h"

#include <pthread.h>
#include <sched.h>
#include <time.h>

#define N_WORKERS      8u
#define N_STAYERS      2u
#define N_ALL          (N_WORKERS + N_STAYERS)
#define N_SLOTS        512u
#define N_LETTERS      32u
#define N_OWN          96u
#define N_LINKS        8u
#define N_PASSED       64u
#define N_THREADS      3u /* of every other worker */
#define DEATHS_DEFAULT 300u
#define MAX_MIB        192u
#define DEADLINE_MS    60000 /* nobody is to fail because the machine is slow */

struct worker {
    acre_client client; /* 0: has not attached yet */
    uint64_t letters[N_LETTERS];
    uint64_t n_rounds;
    uint32_t is_done;
};

struct board {
    char socket[96];
    uint64_t seed;
    uint32_t index, is_taken; /* which worker the next process is */
    uint32_t stop, n_failed;
    uint32_t n_staying;        /* threads of stayers that may still free each other's blocks */
    acre_off shelf;            /* of acre_off[N_ALL][N_LINKS] */
    acre_off handed[N_PASSED]; /* among stayers */
    struct worker workers[N_ALL];
    uint64_t slots[N_SLOTS];
};

static struct world world;
static struct nursery nursery;
static struct board *board;

/* ---- a worker ---- */

struct own {
    char *block;
    size_t bytes; /* of pattern */
};

struct self {
    struct acre_heap *heap;
    struct worker *worker;
    acre_client client;
    uint32_t index, thread, n_threads;
    uint64_t rng;
    struct own own[N_OWN];
};

static char *_Atomic passed[N_PASSED]; /* among the threads of this process */

static bool stays(uint32_t index)
{
    return index >= N_WORKERS;
}

static uint32_t threads_of(uint32_t index)
{
    return index % 2 ? N_THREADS : 1;
}

static size_t random_size(struct self *s)
{
    uint64_t r = rnd(&s->rng);

    return r % 64 == 0  ? 8 + (r >> 8) % 300000
           : r % 8 == 0 ? 8 + (r >> 8) % 20000
                        : 8 + (r >> 8) % 1500;
}

/* To the last byte: who finds the block has nothing but the class to go by. */
static void own_fill(struct self *s, struct own *o)
{
    o->bytes = acre_usable_size(s->heap, o->block);
    pattern_fill(o->block, o->bytes, rnd(&s->rng));
}

static bool own_renew(struct self *s, struct own *o)
{
    if (o->block) {
        CHECK(pattern_is_whole(o->block, o->bytes));
        acre_free(s->heap, o->block);
    }
    o->block = acre_alloc(s->heap, random_size(s));
    CHECK(o->block || errno == ENOMEM);
    if (o->block)
        own_fill(s, o);
    return true;
}

static bool own_resize(struct self *s, struct own *o)
{
    size_t size = random_size(s), bytes = o->bytes;

    if (!o->block)
        return true;
    char *moved = acre_realloc(s->heap, o->block, size);
    CHECK(moved || errno == ENOMEM);
    if (!moved)
        return true;
    o->block = moved;
    CHECK(pattern_is_whole(moved, bytes < size ? bytes : size));
    own_fill(s, o);
    return true;
}

/* A block that came off the board. */
static bool take_off(struct self *s, struct own *o, acre_off off)
{
    char *block = acre_pointer(s->heap, off);

    CHECK(block && acre_owner(s->heap, block) == ACRE_OWNER_HEAP);
    CHECK(pattern_is_whole(block, acre_usable_size(s->heap, block)));
    if (o->block || rnd(&s->rng) % 2) {
        acre_free(s->heap, block);
        return true;
    }
    CHECK(acre_adopt(s->heap, block) == 0);
    *o = (struct own){block, acre_usable_size(s->heap, block)};
    return true;
}

/* Puts a block onto the board, or nothing, and takes what was there. */
static bool exchange(struct self *s, struct own *o)
{
    uint64_t *slot = &board->slots[rnd(&s->rng) % N_SLOTS];
    acre_off off = 0;

    if (o->block) {
        off = acre_offset(s->heap, o->block);
        CHECK(acre_publish(s->heap, o->block) == 0);
        o->block = NULL;
    }
    off = __atomic_exchange_n(slot, off, __ATOMIC_SEQ_CST);
    return off == 0 || take_off(s, o, off);
}

/* Heap offsets have 38 bits: the receiver's name fits above. */
static uint64_t letter_to(acre_client to, acre_off off)
{
    return off | to << 38;
}

static bool give(struct self *s, struct own *o)
{
    struct worker *to = &board->workers[rnd(&s->rng) % N_ALL];
    uint64_t *box = &to->letters[rnd(&s->rng) % N_LETTERS];
    acre_client client = __atomic_load_n(&to->client, __ATOMIC_ACQUIRE);

    if (!o->block || client == 0 || to == s->worker || __atomic_load_n(box, __ATOMIC_RELAXED) != 0)
        return true;
    int r = acre_give(s->heap, o->block, client);
    CHECK(r == 0 || r == -ESRCH);
    if (r < 0)
        return true;
    /* Should another giver have been faster, his block is its owner's until that one ends. */
    __atomic_store_n(box, letter_to(client, acre_offset(s->heap, o->block)), __ATOMIC_RELEASE);
    o->block = NULL;
    return true;
}

static bool receive(struct self *s, struct own *o)
{
    uint64_t *box = &s->worker->letters[rnd(&s->rng) % N_LETTERS];
    uint64_t letter = __atomic_exchange_n(box, 0, __ATOMIC_ACQ_REL);
    acre_off off = letter & ((1ull << 38) - 1);

    if (letter == 0 || letter != letter_to(s->client, off))
        return true;
    char *block = acre_pointer(s->heap, off);
    CHECK(block && acre_owner(s->heap, block) == s->client);
    CHECK(pattern_is_whole(block, acre_usable_size(s->heap, block)));
    if (o->block)
        acre_free(s->heap, block);
    else
        *o = (struct own){block, acre_usable_size(s->heap, block)};
    return true;
}

/* Swaps a block with the other threads. */
static bool pass(struct self *s, struct own *o)
{
    char *block = __atomic_exchange_n(&passed[rnd(&s->rng) % N_PASSED], o->block, __ATOMIC_ACQ_REL);

    *o = (struct own){0};
    if (!block)
        return true;
    size_t bytes = acre_usable_size(s->heap, block);
    CHECK(acre_owner(s->heap, block) == s->client && pattern_is_whole(block, bytes));
    if (rnd(&s->rng) % 2)
        acre_free(s->heap, block);
    else
        *o = (struct own){block, bytes};
    return true;
}

/* Swaps a block with the other stayers, and frees theirs. */
static bool hand(struct self *s, struct own *o)
{
    acre_off off = o->block ? acre_offset(s->heap, o->block) : 0;

    if (!stays(s->index))
        return true;
    off = __atomic_exchange_n(&board->handed[rnd(&s->rng) % N_PASSED], off, __ATOMIC_ACQ_REL);
    *o = (struct own){0};
    if (off == 0)
        return true;
    char *block = acre_pointer(s->heap, off);
    acre_client owner = block ? acre_owner(s->heap, block) : 0;
    CHECK(owner != 0 && owner != ACRE_OWNER_HEAP);
    CHECK(pattern_is_whole(block, acre_usable_size(s->heap, block)));
    acre_free(s->heap, block);
    return true;
}

static acre_off *shelf_slot(struct acre_heap *heap, uint32_t index, uint32_t i)
{
    return (acre_off *)acre_pointer(heap, board->shelf) + index * N_LINKS + i;
}

static bool link_block(struct self *s, struct own *o)
{
    uint64_t r = rnd(&s->rng);
    acre_off *slot = shelf_slot(s->heap, (uint32_t)(r % N_ALL), (r >> 8) % N_LINKS);

    if (!o->block)
        return true;
    int e = acre_publish_at_cas(s->heap, o->block, slot, 0);
    CHECK(e == 0 || e == -EAGAIN);
    if (e == 0)
        o->block = NULL;
    return true;
}

/* -EBUSY: who linked it has not finished, or was killed there. */
static bool unlink_block(struct self *s, struct own *o)
{
    acre_off *slot = shelf_slot(s->heap, s->index, rnd(&s->rng) % N_LINKS);

    if (s->thread != 0)
        return true;
    if (o->block) {
        int e = acre_unlink_free(s->heap, slot, 0);
        CHECK(e == 0 || e == -ENOENT || e == -EBUSY);
        return true;
    }
    char *block = acre_take_at(s->heap, slot, 0);
    CHECK(block || errno == ENOENT || errno == EBUSY);
    if (!block)
        return true;
    *o = (struct own){block, acre_usable_size(s->heap, block)};
    CHECK(acre_owner(s->heap, block) == s->client && pattern_is_whole(block, o->bytes));
    return true;
}

static bool enter(struct self *s)
{
    struct acre_options o = {.size = sizeof(o),
                             .address = board->socket,
                             .tenant = WORLD_TENANT,
                             .deadline_ms = DEADLINE_MS};

    CHECK(acre_open_with(&s->heap, &o) == 0);
    s->client = acre_self(s->heap);
    __atomic_store_n(&s->worker->client, s->client, __ATOMIC_RELEASE);
    return true;
}

static bool seldom(struct self *s)
{
    int e;

    switch (rnd(&s->rng) % 3) {
    case 0:
        CHECK(acre_trim(s->heap) == 0);
        break;
    case 1:
        e = acre_reserve(s->heap, random_size(s) % 1000, 50);
        CHECK(e == 0 || e == -ENOMEM);
        break;
    default: /* dying politely */
        if (stays(s->index) || s->n_threads > 1)
            break;
        __atomic_store_n(&s->worker->client, 0, __ATOMIC_RELEASE);
        acre_close(s->heap);
        memset(s->own, 0, sizeof(s->own));
        CHECK(enter(s));
    }
    return true;
}

static bool one_round(struct self *s)
{
    struct own *o = &s->own[rnd(&s->rng) % N_OWN];
    uint64_t what = rnd(&s->rng) % 64;

    if (o->block)
        CHECK(pattern_is_whole(o->block, o->bytes));
    if (what < 20)
        return own_renew(s, o);
    if (what < 26)
        return own_resize(s, o);
    if (what < 34)
        return exchange(s, o);
    if (what < 40)
        return give(s, o);
    if (what < 47)
        return receive(s, o);
    if (what < 51)
        return s->n_threads == 1 || pass(s, o);
    if (what < 55)
        return link_block(s, o);
    if (what < 61)
        return unlink_block(s, o);
    return what < 63 ? hand(s, o) : rnd(&s->rng) % 16 || seldom(s);
}

/* Blocks of stayers that are on their way live until the last of them has stopped. */
static void stop_staying(void)
{
    __atomic_fetch_sub(&board->n_staying, 1, __ATOMIC_ACQ_REL);
    while (__atomic_load_n(&board->n_staying, __ATOMIC_ACQUIRE) > 0)
        usleep(1000);
}

static void *work_in_thread(void *arg)
{
    struct self *s = arg;
    bool ok = true;

    while (ok && !__atomic_load_n(&board->stop, __ATOMIC_RELAXED)) {
        ok = one_round(s);
        __atomic_fetch_add(&s->worker->n_rounds, 1, __ATOMIC_RELAXED);
    }
    if (!ok)
        __atomic_fetch_add(&board->n_failed, 1, __ATOMIC_SEQ_CST);
    if (stays(s->index))
        stop_staying();
    return arg;
}

static bool work(uint32_t index)
{
    static struct self threads[N_THREADS];
    pthread_t ids[N_THREADS];
    struct self *s = &threads[0];

    *s = (struct self){.worker = &board->workers[index],
                       .index = index,
                       .n_threads = threads_of(index),
                       .rng = board->seed ^ (uint64_t)getpid() << 20};
    CHECK(enter(s));
    for (uint32_t i = 1; i < s->n_threads; i++) {
        threads[i] = *s;
        threads[i].thread = i;
        threads[i].rng += i;
        CHECK(pthread_create(&ids[i], NULL, work_in_thread, &threads[i]) == 0);
    }
    (void)work_in_thread(s);
    for (uint32_t i = 1; i < s->n_threads; i++)
        pthread_join(ids[i], NULL);
    acre_close(s->heap);
    return true;
}

static void worker(void)
{
    uint32_t index = board->index;

    __atomic_store_n(&board->is_taken, 1, __ATOMIC_RELEASE);
    alarm(0);
    if (!work(index))
        __atomic_fetch_add(&board->n_failed, 1, __ATOMIC_SEQ_CST);
    __atomic_store_n(&board->workers[index].is_done, 1, __ATOMIC_RELEASE);
}

/* ---- the killer ---- */

static uint64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

static bool until(const uint32_t *word)
{
    for (uint64_t from_ns = now_ns(); !__atomic_load_n(word, __ATOMIC_ACQUIRE); sched_yield())
        if (now_ns() - from_ns > 20000000000ull)
            return false;
    return true;
}

static bool hire(uint32_t index, pid_t *ret_pid)
{
    struct worker *w = &board->workers[index];

    __atomic_store_n(&w->client, 0, __ATOMIC_RELEASE);
    board->index = index;
    board->is_taken = 0;
    *ret_pid = nursery_fork(&nursery);
    CHECK(*ret_pid > 0 && until(&board->is_taken));
    return true;
}

/* From the signal until the control page has forgotten the client. 0: it had none yet. */
static bool shoot(uint32_t index, pid_t pid, uint64_t *ret_ns)
{
    acre_client client = __atomic_load_n(&board->workers[index].client, __ATOMIC_ACQUIRE);
    const struct control_client *c = &world.control->client[client_handle_id(client)];
    uint64_t from_ns = now_ns();

    CHECK(kill(pid, SIGKILL) == 0); /* else it had ended by itself */
    *ret_ns = 0;
    while (client != 0 && __atomic_load_n(&c->gen, __ATOMIC_ACQUIRE) == client_handle_gen(client)) {
        *ret_ns = now_ns() - from_ns;
        CHECK(*ret_ns < 20000000000ull);
        usleep(20);
    }
    return true;
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

struct crew {
    pid_t pids[N_ALL];
    uint64_t *gone_ns, n_gone;
    uint64_t rng;
};

static bool kill_many(struct crew *c, unsigned n_deaths)
{
    for (unsigned n = 0; n < n_deaths; n++) {
        uint32_t i = (uint32_t)(rnd(&c->rng) % N_WORKERS);
        if (rnd(&c->rng) % 8) /* else one after the other, and some before they have attached */
            usleep((useconds_t)(rnd(&c->rng) % 3000));
        if (!shoot(i, c->pids[i], &c->gone_ns[c->n_gone]))
            return false;
        c->n_gone += c->gone_ns[c->n_gone] > 0;
        if (!world_burst(&world, 8 + rnd(&c->rng) % 1000))
            return false;
        CHECK(__atomic_load_n(&board->n_failed, __ATOMIC_ACQUIRE) == 0);
        if (!hire(i, &c->pids[i]))
            return false;
    }
    return true;
}

static bool stop_all(void)
{
    __atomic_store_n(&board->stop, 1, __ATOMIC_RELEASE);
    for (unsigned i = 0; i < N_ALL; i++)
        CHECK(until(&board->workers[i].is_done));
    CHECK(board->n_failed == 0);
    return world_settle(&world);
}

static bool set_up_shelf(void)
{
    acre_off *shelf =
        acre_allocx(world.heap, N_ALL * N_LINKS * sizeof(acre_off), 0, ACRE_ZERO | ACRE_HEAP_OWNED);

    CHECK(shelf);
    board->shelf = acre_offset(world.heap, shelf);
    for (uint32_t i = 0; i < N_ALL; i++)
        board->n_staying += stays(i) ? threads_of(i) : 0;
    return true;
}

/* Each slot names a whole, published block, whoever has died there. */
static bool clear_shelf(void)
{
    unsigned n = 0;

    for (uint32_t i = 0; i < N_ALL * N_LINKS; i++) {
        char *block = acre_take_at(world.heap, shelf_slot(world.heap, 0, i), 0);
        CHECK(block || errno == ENOENT);
        if (!block)
            continue;
        n++;
        CHECK(pattern_is_whole(block, acre_usable_size(world.heap, block)));
        acre_free(world.heap, block);
    }
    acre_free(world.heap, acre_pointer(world.heap, board->shelf));
    printf("%u linked blocks are left whole\n", n);
    return true;
}

static bool count_published(unsigned n_deaths)
{
    unsigned n_all, n_board = 0;

    if (!world_rest_is_published(&world, &n_all))
        return false;
    for (unsigned i = 0; i < N_SLOTS; i++) {
        if (board->slots[i] == 0)
            continue;
        n_board++;
        CHECK(acre_owner(world.heap, acre_pointer(world.heap, board->slots[i])) == ACRE_OWNER_HEAP);
    }
    printf("%u published blocks are left whole, %u of them on the board; %llu of %u MiB granted\n",
           n_all, n_board, (unsigned long long)world.control->header.granted_bytes >> 20, MAX_MIB);
    CHECK(n_all >= n_board && n_all - n_board <= n_deaths);
    return world_dispose(&world);
}

static bool load(struct crew *c, unsigned n_deaths)
{
    if (!set_up_shelf())
        return false;
    for (uint32_t i = 0; i < N_ALL; i++)
        if (!hire(i, &c->pids[i]))
            return false;
    uint64_t from_ns = now_ns(), n_rounds = 0;
    if (!kill_many(c, n_deaths))
        return false;
    double s = (double)(now_ns() - from_ns) / 1e9;
    for (unsigned i = 0; i < N_ALL; i++)
        n_rounds += board->workers[i].n_rounds;
    if (!stop_all() || !clear_shelf() || !count_published(n_deaths))
        return false;
    qsort(c->gone_ns, c->n_gone, sizeof(*c->gone_ns), by_value);
    printf("%u deaths in %.1f s (%.0f a second) and %llu rounds; from SIGKILL until the client is "
           "gone: median %.2f ms, most %.2f ms\n",
           n_deaths, s, n_deaths / s, (unsigned long long)n_rounds,
           c->n_gone ? (double)c->gone_ns[c->n_gone / 2] / 1e6 : 0,
           c->n_gone ? (double)c->gone_ns[c->n_gone - 1] / 1e6 : 0);
    return true;
}

int main(int argc, char **argv)
{
    unsigned n_deaths = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 0) : DEATHS_DEFAULT;
    struct crew crew = {.gone_ns = calloc(n_deaths + 1, sizeof(uint64_t))};

    board = shared_page(sizeof(*board));
    board->seed = crew.rng = test_seed(11);
    nursery_start(&nursery, worker);
    bool ok = world_up(&world, MAX_MIB, "4k");
    strcpy(board->socket, world.daemon.socket);
    world_note_daemon(&world);
    ok = ok && load(&crew, n_deaths) && world_check(&world) && world_is_full_size(&world) &&
         world_daemon_is_lean(&world) && world_down(&world);
    if (!ok) {
        fprintf(stderr, "FAILED: %s\n", world.why[0] ? world.why : "see above");
        world_abandon(&world);
    }
    nursery_stop(&nursery);
    free(crew.gone_ns);
    return !ok;
}
