/* SPDX-License-Identifier: Apache-2.0 */
/*
 * work_handoff.c - one allocates, the other frees. A producer sends each new block through a ring
 * for one writer and one reader to a consumer, which frees it. In Acre they are two processes that
 * send offsets; in Boost.Interprocess two processes that map the segment at the same address;
 * private allocators cannot, there they are two threads. Each side has a processor of its own.
 *
 * "give" first makes the consumer the block's owner, as who must not lose it does; a thread has
 * nothing to give, so that its peers do what they do without. "written" puts a number into the
 * block that the consumer reads: then the block's own line travels too, whoever the allocator is.
 *
 * Both sides tell the other only after each eighth of the ring: told after each message, the two
 * counters' lines travel back and forth all the time and are most of what is measured, for
 * everybody (20 ns a message and more).
 *
 * A round ends when the consumer has freed all. A side that waits spins, and yields its processor
 * now and then, so that a busy machine makes this slow but not endless.
 */
#include "workload.h"

#include <assert.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "random.h"
#include "say.h"

#define SIZES   4096u /* of the table of mixed sizes */
#define DEPTH   1024u
#define THE_END 1u /* no block begins there */

struct ring {
    _Alignas(64) _Atomic uint64_t n_sent;
    _Alignas(64) _Atomic uint64_t n_freed;
    _Alignas(64) uint64_t slots[DEPTH];
    _Alignas(64) _Atomic acre_client consumer;
    _Atomic bool is_there;
    _Atomic bool is_wrong; /* a number was not what the producer wrote */
};

struct handoff {
    struct ring *ring;
    uint32_t depth;
    bool give, written;
    uint64_t n_sent, n_freed_seen; /* the producer's */
    acre_client consumer;
    uint32_t sizes[SIZES];
    const struct child *child;
    struct mem mem; /* the consumer's, if it is a thread or shares the producer's */
};

BENCH_INLINE void wait_a_little(unsigned *n_spins)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
    if (++*n_spins % 4096 == 0)
        sched_yield();
}

/* ---- the consumer ---- */

BENCH_INLINE void consume(struct mem mem, enum mem_kind kind, void *arg, uint64_t n)
{
    struct handoff *h = arg;
    struct ring *ring = h->ring;
    uint64_t n_freed = 0, n_sent = 0, mask = h->depth - 1, eighth = h->depth / 8;
    bool written = h->written;
    for (unsigned n_spins = 0; n_freed < n;) {
        if (n_freed == n_sent) {
            n_sent = atomic_load_explicit(&ring->n_sent, memory_order_acquire);
            if (n_freed == n_sent)
                wait_a_little(&n_spins);
            continue;
        }
        uint64_t message = ring->slots[n_freed & mask];
        if (message == THE_END)
            return;
        void *block =
            kind == MEM_ACRE ? acre_pointer(mem.heap, message) : (void *)(uintptr_t)message;
        if (written && *(volatile uint64_t *)block != n_freed)
            atomic_store(&ring->is_wrong, true);
        mem_free(mem, kind, block);
        if ((++n_freed & (eighth - 1)) == 0 || n_freed == n_sent)
            atomic_store_explicit(&ring->n_freed, n_freed, memory_order_release);
    }
}
HEAP_LOOP(consume)

static void consumer_main(struct handoff *h)
{
    enum mem_kind kind = h->child->kind;
    pin_to(1);
    if (kind == MEM_ACRE) {
        h->mem = mem_open(kind, h->child->socket, 0);
        atomic_store(&h->ring->consumer, acre_self(h->mem.heap));
    }
    atomic_store(&h->ring->is_there, true);
    consume_loops[kind](h->mem, h, UINT64_MAX);
}

static void *consumer_thread(void *arg)
{
    consumer_main(arg);
    return NULL;
}

static pid_t consumer_process(struct handoff *h)
{
    pid_t parent = getpid(), pid = fork();
    if (pid < 0)
        give_up("cannot fork");
    if (pid > 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() == parent)
        consumer_main(h);
    _exit(0);
}

/* ---- the producer ---- */

BENCH_INLINE void produce(struct mem mem, enum mem_kind kind, void *arg, uint64_t n)
{
    struct handoff *h = arg;
    struct ring *ring = h->ring;
    uint64_t n_sent = h->n_sent, n_freed = h->n_freed_seen, end = n_sent + n;
    const uint64_t depth = h->depth, eighth = depth / 8;
    bool give = h->give, written = h->written;
    unsigned n_spins = 0;
    while (n_sent < end) {
        if (n_sent - n_freed == depth) {
            n_freed = atomic_load_explicit(&ring->n_freed, memory_order_acquire);
            if (n_sent - n_freed == depth)
                wait_a_little(&n_spins);
            continue;
        }
        void *block = mem_alloc(mem, kind, h->sizes[n_sent % SIZES]);
        if (written)
            *(volatile uint64_t *)block = n_sent;
        if (kind == MEM_ACRE && give)
            (void)acre_give(mem.heap, block, h->consumer);
        ring->slots[n_sent & (depth - 1)] =
            kind == MEM_ACRE ? acre_offset(mem.heap, block) : (uint64_t)(uintptr_t)block;
        if ((++n_sent & (eighth - 1)) == 0 || n_sent == end)
            atomic_store_explicit(&ring->n_sent, n_sent, memory_order_release);
    }
    while (atomic_load_explicit(&ring->n_freed, memory_order_acquire) != end)
        wait_a_little(&n_spins);
    h->n_sent = h->n_freed_seen = end;
}
HEAP_LOOP(produce)

/* ---- cases ---- */

static const struct handoff_case {
    const char *name;
    uint32_t size, depth; /* size 0: mixed */
    bool give, written;
} handoff_cases[] = {
    {"64 B, depth 1024", 64, 1024, false, false},
    {"64 B, depth 1024, give", 64, 1024, true, false},
    {"64 B, depth 32", 64, 32, false, false},
    {"64 B, depth 32, give", 64, 32, true, false},
    {"1 KiB, depth 1024", 1024, 1024, false, false},
    {"1 KiB, depth 1024, give", 1024, 1024, true, false},
    {"1 KiB, depth 32", 1024, 32, false, false},
    {"1 KiB, depth 32, give", 1024, 32, true, false},
    {"mixed, depth 1024", 0, 1024, false, false},
    {"mixed, depth 1024, give", 0, 1024, true, false},
    {"mixed, depth 32", 0, 32, false, false},
    {"mixed, depth 32, give", 0, 32, true, false},
    {"64 B, depth 1024, written", 64, 1024, true, true},
    {"64 B, depth 32, written", 64, 32, true, true},
};

static void set_up(struct handoff *h, const struct handoff_case *c, const struct child *child)
{
    uint64_t seed = 1;
    *h =
        (struct handoff){.depth = c->depth, .give = c->give, .written = c->written, .child = child};
    for (unsigned i = 0; i < SIZES; i++)
        h->sizes[i] = c->size ? c->size : 16 + random_below(&seed, 1009);
    h->ring =
        mmap(NULL, sizeof(struct ring), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (h->ring == MAP_FAILED)
        give_up("no memory for a ring");
}

/* Its process, 0 if it is a thread. */
static pid_t start_consumer(struct handoff *h)
{
    pthread_t thread;
    pid_t pid = 0;
    if (h->child->kind != MEM_MALLOC)
        pid = consumer_process(h);
    else if (pthread_create(&thread, NULL, consumer_thread, h))
        give_up("cannot start a thread");
    for (unsigned n_spins = 0; !atomic_load(&h->ring->is_there);)
        wait_a_little(&n_spins);
    h->consumer = atomic_load(&h->ring->consumer);
    return pid;
}

static void check_given(struct handoff *h)
{
    void *block = acre_alloc(h->mem.heap, 64);
    if (!block || acre_give(h->mem.heap, block, h->consumer))
        give_up("cannot give: %s", acre_last_error());
    acre_free(h->mem.heap, block);
}

static void run_handoff(const struct child *child, unsigned case_idx)
{
    static struct handoff h;
    set_up(&h, &handoff_cases[case_idx], child);
    if (child->kind != MEM_ACRE) /* Acre's processes open the heap each for itself */
        h.mem = mem_open(child->kind, child->socket, 64 << 20);
    pid_t pid = start_consumer(&h);
    pin_to(0);
    if (child->kind == MEM_ACRE) {
        h.mem = mem_open(child->kind, child->socket, 0);
        check_given(&h);
    }
    measure_steady(child, ROUNDS_ALONE, handoff_cases[case_idx].name, produce_loops[child->kind],
                   h.mem, &h, 1);
    if (atomic_load(&h.ring->is_wrong))
        give_up("a message was not what had been written");
    h.ring->slots[h.n_sent & (h.depth - 1)] = THE_END;
    atomic_store_explicit(&h.ring->n_sent, h.n_sent + 1, memory_order_release);
    if (pid > 0)
        waitpid(pid, NULL, 0);
}

const struct workload work_handoff = {
    .name = "handoff",
    .about = "one process allocates, another frees (private allocators: two threads); per message",
    .cases = {"64 B, depth 1024", "64 B, depth 1024, give", "64 B, depth 32",
              "64 B, depth 32, give", "1 KiB, depth 1024", "1 KiB, depth 1024, give",
              "1 KiB, depth 32", "1 KiB, depth 32, give", "mixed, depth 1024",
              "mixed, depth 1024, give", "mixed, depth 32", "mixed, depth 32, give",
              "64 B, depth 1024, written", "64 B, depth 32, written"},
    .peers = PEERS_MALLOC | PEER_BIT(PEER_BOOST),
    .run = run_handoff,
};
