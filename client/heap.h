/* SPDX-License-Identifier: Apache-2.0 */
/*
 * heap.h - what a process keeps of an open heap. Private to libacre.
 *
 * THREE KINDS OF STATE, told apart by what happens to them on fork:
 *   struct acre_heap     normal memory, copied by fork: base address, mapped segments, options.
 *                        True in the child as well, because the mappings are inherited.
 *   struct process       MADV_WIPEONFORK, zero in the child: all that this process ACTS with:
 *                        client id, socket, locks, unit pool, slab records, thread caches. A child
 *                        finds zeroes and re-attaches as a client of its own.
 *   tls_caches[]         per thread, a pointer into struct process's region, believed only while
 *                        the serial beside it equals the heap's. The serial changes on close and
 *                        on fork.
 *
 * LOCKS, in this order, all in `struct process`, none on the fast path:
 *   conn_lock            one request to the daemon at a time, attach, mapping
 *   pool_lock            unit pool, list of caches, arena. A thread cache is its thread's alone; an
 *                        idle one belongs to who holds pool_lock.
 */
#ifndef ACRE_CLIENT_HEAP_H
#define ACRE_CLIENT_HEAP_H

#include <pthread.h>
#include <stdatomic.h>

#include <acre.h>

#include "client/probe.h"
#include "proto/address.h"
#include "proto/msg.h"
#include "shm/base.h"
#include "shm/buddy.h"
#include "shm/layout.h"
#include "shm/segment.h"
#include "shm/sizeclass.h"

#define HEAPS_MAX    16u /* 256 bytes of static TLS: dlopen() has little to spare */
/* Of 64, 256 and 1,024 the last: frees of a batch of 1,000 stay on the stack
 * (batch 1.50, 1.44, 1.30 of mimalloc's time, sh6 1.4, 1.3, 1.2, a pair the same). What is not used
 * is not touched. Most stacks are nearly empty most of the time: they begin five cache lines apart
 * from each other's place in a page, or their first lines would share one set of the cache. */
#define STACK_BLOCKS (1024u + 20u)
#define CACHES_MAX   65535u
#define HEAP_BASE_HINT                                                                             \
    0x7e8000000000ull /* free under every sanitizer and valgrind; any other works too */

struct slab;

struct free_block {
    void *block;
    _Atomic tag_t *tag;
};

/* One class of one thread. The first line serves alloc and free; the stack lies apart so that a bin
 * unused costs nothing. */
struct bin {
    struct free_block *top;            /* the next one to be pushed */
    struct free_block *bottom, *limit; /* where top is when the stack is empty, full */
    uint64_t mask; /* free blocks of the window: bit i is win_block + i * block_bytes */
    char *win_block;
    _Atomic tag_t *win_tag;
    uint32_t block_bytes;
    uint32_t next_idx;  /* first block of the next window in cur */
    struct slab *cur;   /* slab of the window; ring of all slabs of the bin */
    struct slab *probe; /* where the scan without hints goes on */
    uint32_t n_slabs;
} __attribute__((aligned(128)));
static_assert(sizeof(struct bin) == CLASS_STEP, "tables know where a class's bin is");
static_assert(offsetof(struct bin, cur) == 56, "the fast paths stay in one line");

/* A large block that this thread freed and may use again: see large.c. */
struct kept {
    uint32_t unit, n_units;
};
#define KEPT_MAX       8u
#define KEPT_UNITS_MAX 512u /* 4 MiB, as the pool */

static inline bool stack_is_empty(const struct bin *bin)
{
    return bin->top == bin->bottom;
}

static inline bool stack_is_full(const struct bin *bin)
{
    return bin->top == bin->limit;
}

struct cache {
    uint32_t token; /* holder_token(id, index); 0: wiped or never used */
    tag_t id;
    struct cache *next;          /* all caches of the process */
    bool busy;                   /* a living thread has it (pool_lock) */
    int tid;                     /* which */
    uint32_t pressure_seen;      /* retire.c */
    uint64_t n_refills;          /* acre_refills() */
    uint32_t n_kept, kept_units; /* oldest first */
    struct kept kept[KEPT_MAX];
    struct bin bins[N_CLASSES];
    struct free_block stacks[N_CLASSES][STACK_BLOCKS] __attribute__((aligned(64)));
};

/* Of acre_fd(); event.c. */
struct bell {
    int epoll, timer, anchor; /* epoll 0: there is none */
    uint64_t anchor_cookie;
};

struct event {
    _Atomic bool is_made;   /* the heap's bell is this process's own */
    _Atomic bool is_missed; /* somebody came to listen while conn_lock was another's */
    _Atomic uint32_t pressure_seen;
    /* conn_lock */
    bool is_listening; /* the socket is in the epoll instance */
    bool is_armed;     /* the daemon will send an event on it */
    bool is_wanted;    /* who leaves the lock rings */
    acre_pressure_fn fn;
    void *ctx;
    struct acre_pressure told;
};

/* Soft blocks lie apart, in segments that can go as a whole; or beside others, where the daemon has
 * found no other room. */
enum pool_kind { POOL_HARD, POOL_SOFT, POOL_KINDS };

struct process {
    _Atomic uint64_t client; /* handle; 0: not attached */
    pthread_mutex_t conn_lock, pool_lock;
    int sock, cancel_state; /* the latter of who holds conn_lock */
    uint64_t sock_cookie, call_serial, deadline_ns;
    struct life_page *life;
    struct cache *caches;
    uint32_t n_caches;
    struct slab *spare_slabs; /* freed records */
    uint64_t arena_used;
    _Atomic uint32_t retire_seen; /* retire.c */
    uint32_t pool_units;          /* free in the private buddies */
    uint32_t keep_more;           /* units beyond POOL_KEEP_MAX are not too many */
    bool mixes[POOL_KINDS];       /* the last grant for this kind was among the other's */
    uint64_t n_sent_back;         /* as too many, since the last grow */
    _Atomic uint64_t n_tickets;   /* numbers given; wait.c */
    uint32_t n_late; /* grants that came after their call, or could not be mapped (conn_lock) */
    struct msg_run late[16];
    struct event event;
    _Atomic bool is_pinning;                 /* the daemon knows; soft.c */
    uint32_t n_freed_soft, freed_soft_units; /* that it has not been told of (pool_lock) */
    uint64_t freed_soft[MSG_SOFT_MAX];
};

static_assert(sizeof(struct process) <= MIB(1), "usable from the start: arena_take()");

struct acre_heap {
    char *base;
    uint64_t serial; /* != 0, of this open and this side of a fork: n << 32; see tls_caches */
    /* Copies: the fast paths reach them from the register that they have anyway. */
    uint32_t class_table[CLASS_TABLE_ENTRIES];
    struct geo geo_table[256] __attribute__((aligned(32)));
    unsigned index; /* in heaps[] and tls_caches[] */
    unsigned n_opens;
    struct process *process;
    const struct control *control;
    uint64_t heap_id;
    void *reserved; /* the range's mmap, base aligned within */
    size_t reserved_bytes;
    struct buddy *buddies[HEAP_SLOTS]; /* pool of granted, uncut units, by slot (pool_lock) */
    uint64_t arena_floor;              /* arena used by this process or an ancestor; see open.c */
    int inherited_sock;                /* the parent's socket, to be closed by a child */
    uint64_t inherited_cookie;
    int deadline_ms;
    bool is_read_only; /* never attached: p->client stays 0, the tables are not mapped */
    char address[ADDRESS_BYTES], tenant[TENANT_NAME_BYTES], name[CLIENT_NAME_BYTES];
    /* n_table | tags_off << 32; 0: not mapped, or inside a segment */
    _Atomic uint64_t slot_tables[HEAP_SLOTS];
    _Atomic uint64_t slot_bytes[HEAP_SLOTS]; /* mapped; stored last */
    struct bell bell; /* a forked child's is its parent's until it makes its own */
};

static_assert(offsetof(struct acre_heap, base) == TRACE_BASE_OFF, "acre-trace reads it");
static_assert(offsetof(struct acre_heap, heap_id) == TRACE_HEAP_ID_OFF, "acre-trace reads it");

struct tls_cache {
    uint64_t serial; /* of the heap; unique among all heaps ever opened in this process. 0: none */
    struct cache *cache;
};
#define TLS_MODEL __attribute__((tls_model("initial-exec"), visibility("hidden")))
/* The same of the heap that this thread used last, and serial | the cache's token: one comparison
 * tells acre_free() that a slab is this cache's. */
struct tls_last {
    uint64_t serial, key;
    struct cache *cache;
};
extern __thread struct tls_last tls_last TLS_MODEL;
extern __thread struct tls_cache tls_caches[HEAPS_MAX] TLS_MODEL;

/* This thread's cache of the heap, which becomes its last used; NULL if it has none. */
struct cache *cache_here(const struct acre_heap *heap);

/*
 * Below the base lie the unit entries of all slots in a row, and then their hints: second mappings
 * of the tables in the segments, and zeroes (U_FREE) where no segment is mapped. So what is at any
 * unit of the heap is one load away, with nothing to look up or to check first. Whatever this
 * process does with the tables it does here.
 */
#define HINTS_BELOW   ((uint64_t)HEAP_UNITS)
#define ENTRIES_BELOW (HINTS_BELOW + HEAP_UNITS * sizeof(uint64_t)) /* 288 MiB */

static inline _Atomic uint64_t *heap_entry(const struct acre_heap *heap, uint32_t unit)
{
    return (_Atomic uint64_t *)(heap->base - ENTRIES_BELOW) + unit;
}
static inline _Atomic uint8_t *heap_hint(const struct acre_heap *heap, uint32_t unit)
{
    return (_Atomic uint8_t *)(heap->base - HINTS_BELOW) + unit;
}
static inline uint32_t slot_n_table(uint64_t tables)
{
    return (uint32_t)tables;
}
/* Owner tag of the large block whose head is this unit. */
static inline _Atomic tag_t *heap_large_tag(const struct acre_heap *heap, uint32_t unit)
{
    unsigned slot = unit / SLOT_UNITS;
    uint64_t tables = atomic_load_explicit(&heap->slot_tables[slot], memory_order_relaxed);
    return (_Atomic tag_t *)(heap->base + ((uint64_t)slot << SLOT_SHIFT) + (tables >> 32)) +
           unit % SLOT_UNITS;
}
static inline tag_t self_id(const struct acre_heap *heap)
{
    return client_handle_id(atomic_load_explicit(&heap->process->client, memory_order_relaxed));
}

/* ---- open.c ---- */
/* The open heap with this index and serial, registry locked until heaps_unlock(); NULL if it is
 * closed. */
struct acre_heap *heaps_lock(unsigned index, uint64_t serial);
void heaps_unlock(void);
/* Arena of struct process's region, aligned: zeroed, wiped on fork, never given back before close.
 * NULL: exhausted. pool_lock held. */
void *arena_take(struct acre_heap *heap, size_t bytes, size_t align);

/* ---- attach.c: this process as a client ---- */
/* Attached afterwards, or a negative errno. Cheap if it is already. */
int attach_ensure(struct acre_heap *heap);
/* The same of a read-only heap, which is no client. */
int look_ensure(struct acre_heap *heap);
/* Takes conn_lock for requests that are over by one deadline, the wait for other threads included;
 * the thread cannot be cancelled meanwhile. 0 or -ETIMEDOUT. */
int conn_enter(struct acre_heap *heap);
/* The same; waits only so long for other threads. */
bool conn_try(struct acre_heap *heap, uint64_t wait_ns);
void conn_leave(struct acre_heap *heap);
/* Connected afterwards, as far as can be told without asking; or a negative errno. conn_lock
 * held. */
int conn_ensure(struct acre_heap *heap);
/* One request; reconnects if the socket is no longer ours. conn_lock held. Negative errno of the
 * transport or of the reply; sets the thread's last error. fd/ret_fd as wire_call(). */
int conn_call(struct acre_heap *heap, const struct msg_request *req, int fd,
              struct msg_reply *ret_reply, int *ret_fd);
/* Takes what has come without a call, and connects anew if that is lost: one try. conn_lock held. 0
 * or negative errno. */
int conn_reach(struct acre_heap *heap);
/* conn_enter, conn_call, conn_leave: for requests without descriptors. */
int heap_call(struct acre_heap *heap, struct msg_request *req, struct msg_reply *ret_reply);
/* Polite death: the life page goes, the daemon reaps, then the socket goes. Nothing if this process
 * never attached. */
void attach_detach(struct acre_heap *heap);
/* Closes the socket that a forked child has from its parent. */
void attach_drop_inherited(struct acre_heap *heap);

/* 0: it is no socket. */
uint64_t sock_cookie(int sock);
bool sock_is_ours(const struct process *p);
/* Descriptors are kept off the standard ones: 0 means "none" in wiped memory, and programs reopen 0
 * to 2 blindly. -1 stays -1. */
int fd_raise(int fd);

/* ---- life.c ---- */
/* New life page, mapped here and in no child; *ret_fd is the caller's. */
int life_create(struct life_page **ret_page, int *ret_fd);
void life_destroy(struct life_page *page);
/* Around fork(): no child gets a page between its mmap and its MADV_DONTFORK. */
void life_fork_lock(void);
void life_fork_unlock(void);

/* ---- map.c ---- */
/* Makes a slot usable. 0 or negative errno. The second form: conn_lock held. */
int map_slot(struct acre_heap *heap, unsigned slot);
int map_slot_locked(struct acre_heap *heap, unsigned slot);

/* ---- pool.c: units granted to this process ---- */
/* A span of 2^order units, entries U_CUT with the process's token; BUDDY_NONE if the pool has none.
 * Global unit number. */
uint32_t pool_take(struct acre_heap *heap, unsigned order, enum pool_kind kind);
/* The same for exactly these units, if the pool has them all. They lie behind others of ours. */
bool pool_take_at(struct acre_heap *heap, uint32_t unit, uint32_t n_units);
/* Back into the pool: entries U_UNCUT. Surplus goes to the daemon. */
void pool_give(struct acre_heap *heap, uint32_t unit, uint32_t n_units);
/* Asks the daemon for 2^order units for the pool, or for a parked slab of the class (class_plus_1;
 * then *ret_slab is its unit). 0 or negative errno. */
int pool_grow(struct acre_heap *heap, unsigned order, enum pool_kind kind, unsigned class_plus_1,
              uint32_t *ret_slab);
/* n_units for one large block, aligned, entries U_CUT. */
int pool_grow_exact(struct acre_heap *heap, uint32_t n_units, unsigned align_order,
                    enum pool_kind kind, uint32_t *ret_unit);
/* Asks for the units of a ticket (MSG_WAIT). 1: granted, to the pool, or *ret_unit is the parked
 * slab or the exact run that it is; BUDDY_NONE: they were taken back meanwhile. 0: not yet. Or
 * negative errno. */
int pool_wait(struct acre_heap *heap, const struct msg_request *req, uint32_t *ret_unit);
/* Units of a freed large block that is not worth keeping: to the daemon. */
void pool_release(struct acre_heap *heap, uint32_t unit, uint32_t n_units);
/* How many of these units have an entry: of a segment that spans slots, hardly any. */
uint32_t pool_table_units(const struct acre_heap *heap, uint32_t unit, uint32_t n_units);
/* Nothing of the slot is ours any more. conn_lock held. */
void pool_forget_slot(struct acre_heap *heap, unsigned slot);
/* acre_trim(); without punching for who needs whole units. */
int heap_trim(struct acre_heap *heap, bool punch);
/* Gives free units beyond keep_units back to the daemon. */
int pool_trim(struct acre_heap *heap, uint32_t keep_units);

/* ---- cache.c, bin.c ---- */
/* This thread's cache, attaching if need be; NULL with errno. */
struct cache *cache_acquire(struct acre_heap *heap);
/* Has this thread's end noticed. */
void cache_watch_thread(void);
/* Fills stack or mask of the bin. 0 or negative errno. */
int bin_refill(struct acre_heap *heap, struct cache *cache, unsigned class_idx);
/* The same out of what a ticket was granted, a parked slab or (BUDDY_NONE) units of the pool. False:
 * another thread or the daemon was faster. */
bool bin_refill_granted(struct acre_heap *heap, struct cache *cache, unsigned class_idx,
                        uint32_t parked);
/* At least n_blocks on the bin's stack, their pages touched. 0 or negative errno. */
int bin_reserve(struct acre_heap *heap, struct cache *cache, unsigned class_idx, uint32_t n_blocks);
/* Gives all empty slabs of the cache back to the pool, and, to punch, the free pages of the others
 * to the system; bins lose window and stack (derived, found again by scan). */
void cache_trim(struct acre_heap *heap, struct cache *cache, bool punch);
/* The same for all caches without a thread. */
void cache_trim_idle(struct acre_heap *heap, bool punch);
/* Moves the slabs of a class from caches without a thread to this one. pool_lock not held. True if
 * any came. */
bool cache_inherit(struct acre_heap *heap, struct cache *cache, unsigned class_idx);

/* ---- retire.c ---- */
void retire_look(struct acre_heap *heap);
void pressure_yield(struct acre_heap *heap, struct cache *cache);
static inline bool is_to_heed(const struct acre_heap *heap)
{
    return __atomic_load_n(&heap->control->header.retire_seq, __ATOMIC_RELAXED) !=
           atomic_load_explicit(&heap->process->retire_seen, memory_order_relaxed);
}
/* On slow paths, with no lock held: gives what the daemon wants back. cache: the thread's, or NULL. */
static inline void heed(struct acre_heap *heap, struct cache *cache)
{
    const struct control_header *h = &heap->control->header;

    if (UNLIKELY(cache &&
                 __atomic_load_n(&h->pressure_seq, __ATOMIC_RELAXED) != cache->pressure_seen))
        pressure_yield(heap, cache);
    if (UNLIKELY(is_to_heed(heap)))
        retire_look(heap);
}

/* ---- event.c: what becomes of the bell when others hold conn_lock ---- */
/* The socket is about to be closed, or exchanged. */
void event_forget_sock(struct acre_heap *heap);
/* An event has come. */
void event_heard(struct acre_heap *heap);
/* The lock is about to be left. */
void event_leaving(struct acre_heap *heap);
static inline bool event_is_missed(const struct acre_heap *heap)
{
    return atomic_load(&heap->process->event.is_missed);
}
/* In a child: closes what is its parent's. */
void event_drop_inherited(struct acre_heap *heap);
void event_close(struct acre_heap *heap);

/* ---- large.c ---- */
/* Of a large block. */
static inline uint64_t units_of(size_t size)
{
    return size == 0 ? 1 : (size >> UNIT_SHIFT) + (size % UNIT_BYTES != 0);
}
void *large_alloc(struct acre_heap *heap, size_t size, size_t align, bool heap_owned);
/* Its units, entries U_CUT. 0 or negative errno. */
int large_units(struct acre_heap *heap, size_t size, size_t align, enum pool_kind kind,
                struct kept *ret_run);
/* Of units that are cut. */
void *large_alloc_granted(struct acre_heap *heap, uint32_t unit, uint32_t n_units);
struct block;
/* It was live when it was found. */
void large_free(struct acre_heap *heap, const struct block *b);
/* Makes a live block of this client that large where it lies. False: it stays as it is. */
bool large_resize(struct acre_heap *heap, const struct block *b, size_t size);
/* Gives back the large blocks that a cache keeps. */
void large_release_kept(struct acre_heap *heap, struct cache *cache);

/* ---- soft.c ---- */
void *soft_alloc(struct acre_heap *heap, size_t size, size_t align, bool heap_owned);
/* It was live when it was found. */
void soft_free(struct acre_heap *heap, const struct block *b);
/* The daemon of those that it has not been told of. */
void soft_tell_freed(struct acre_heap *heap);

/* ---- error.c ---- */
/* Notes the sentence for acre_last_error() and returns -error. error is positive. */
__attribute__((format(printf, 2, 3), cold)) int fail(int error, const char *fmt, ...);
/* Of what a read-only heap refuses: -EPERM. */
__attribute__((cold)) int fail_read_only(const struct acre_heap *heap);
/* Around fork(): no child gets the handler's lock from a thread that it does not have. */
void misuse_fork_lock(void);
void misuse_fork_unlock(void);
void misuse_report(struct acre_heap *heap, const char *function, enum acre_misuse_kind kind,
                   const void *address);

/* ---- autostart.c ---- */
/* Path of the socket (ADDRESS_BYTES) by acre_options.address's rules. *ret_may_start: a per-user
 * daemon may be started. */
int daemon_address(const char *address, unsigned flags, char *ret_path, bool *ret_may_start);
int daemon_start(void);

#endif
