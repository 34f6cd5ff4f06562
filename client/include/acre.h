/* SPDX-License-Identifier: Apache-2.0 */
/*
 * acre.h - the public interface of libacre: one heap that many processes share.
 *
 * A *heap* belongs to a *tenant* and is owned by the daemon acred. Every process that opens the
 * tenant allocates from the same heap; a block allocated by one process can be read, passed on and
 * freed by any other. Between processes a block is named by its *offset* (acre_off), never by its
 * address: every process turns it into an address of its own by acre_pointer().
 *
 * WHO OWNS A BLOCK. Each block has exactly one owner: the client (attached process) that allocated
 * it, or the heap.
 *   - A client's blocks end with the client: when it calls acre_close(), exits, execs or is
 *     killed, what it still owns is freed. ***acre_close() is dying politely: unpublished blocks
 *     come back to the tenant.***
 *   - acre_publish() gives a block to the heap: it stays until somebody frees it. acre_give()
 *     gives it to another client; acre_adopt() takes a block from the heap.
 *   - ***fork(): the child is a new client that owns nothing. What the parent owned still ends
 *     with the parent: a process that daemonises (fork, the parent exits) publishes first, by
 *     acre_publish_all().***
 *
 * CONVENTIONS. Functions that return int give 0 or a negative errno. Functions that return a
 * pointer give NULL and set errno; otherwise errno is left alone. acre_last_error() tells the
 * calling thread's last failure in a sentence. Sizes are bytes. All functions may be called from
 * any thread; none is async-signal-safe. The library installs no signal handler, never exits, and
 * prints only in the default misuse handler.
 *
 * A call that needs the daemon waits for it at most `deadline_ms`, tries to reach it anew if the
 * connection breaks, and then fails with ETIMEDOUT or ECONNREFUSED; those are acre_open*(), the
 * root functions, acre_publish_all(), acre_trim(), acre_dispatch(), and an allocation, acre_free()
 * of a large block or acre_pointer() that needs more memory, gives it back, or meets a new
 * segment. All others never leave the process. After a fork the child's first call that needs an
 * identity attaches it.
 */
#ifndef ACRE_H
#define ACRE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ACRE_VERSION_STRING "0.1.0"

#if defined(__GNUC__)
#define ACRE_API       __attribute__((visibility("default")))
#define ACRE_ATTR(...) __attribute__((__VA_ARGS__))
#else
#define ACRE_API
#define ACRE_ATTR(...)
#endif

struct acre_heap; /* an open heap; one per tenant and process, counted */

typedef uint64_t acre_off;    /* bytes from the heap's base; 0 is "none" */
typedef uint64_t acre_client; /* id (low 16 bits) and generation; 0 is nobody */

#define ACRE_OWNER_HEAP UINT64_MAX /* acre_owner(): the block is published */

/* ---- open and close ------------------------------------------------------------------------- */

/* acre_options.flags */
#define ACRE_NO_AUTOSTART 1u /* never start a per-user daemon (or environment ACRE_AUTOSTART=0) */
#define ACRE_READ_ONLY    2u /* look, and change nothing: see acre_open_with() */

/*
 * All fields but `size` may be zero. Strings are copied.
 *   size         sizeof(struct acre_options): the structure may grow in later versions
 *   address      path of the daemon's socket. NULL: $ACRE_SOCKET; else /run/acre/acred.sock; else
 *                $XDG_RUNTIME_DIR/acre/acred.sock, or without that variable
 *                /tmp/acre-UID/acred.sock (a 0700 directory whose ownership is checked). If
 *                $ACRE_SOCKET is unset, /run/acre does not exist and no per-user daemon runs, one
 *                is started: acred from $ACRE_DAEMON, beside the library, or in $PATH.
 *   tenant       whose heap; NULL is "default", or where there is none the user's own (acre.conf)
 *   name         what acrectl shows for this client (at most 31 bytes are kept); NULL: the
 *                program's name
 *   deadline_ms  how long a call may wait for the daemon; 0 is 5,000
 *   flags        ACRE_NO_AUTOSTART, ACRE_READ_ONLY
 */
struct acre_options {
    size_t size;
    const char *address, *tenant, *name;
    int deadline_ms;
    unsigned flags;
};

/*
 * Attaches this process to a tenant's heap. Opening the same tenant at the same address again gives
 * the same handle and counts it; each open wants one acre_close(). *ret_heap is untouched on
 * failure.
 *   -ECONNREFUSED     no daemon at the address
 *   -EPROTO           something answers there that is not an Acre daemon
 *   -EPROTONOSUPPORT  the daemon speaks another version
 *   -ENOENT           the daemon has no such tenant
 *   -EACCES           this user may not attach to it, or may not reach the socket
 *   -EAGAIN           the heap has its 65,534 clients
 *   -ETIMEDOUT        the daemon did not answer in time
 *   -EMFILE           this process has 16 heaps open already, or no descriptor left
 *   -EINVAL           ret_heap NULL, options->size too small, an unknown flag, a negative deadline,
 *                     a name too long
 *   -ENOMEM           no address space or memory for the handle
 *
 * With ACRE_READ_ONLY the process does not attach, and maps the heap's memory read-only: that takes
 * the right to look alone (acre.conf: read_users). acre_pointer(), acre_offset() and
 * acre_root_get() work; what would change the heap fails with EPERM (an acre_free() is reported as
 * misuse), and acre_owner() and acre_usable_size() are 0. A store into a block is a SIGSEGV.
 * Nothing keeps a block from being freed, and its memory from becoming another's, while it is read.
 * Who has the right to look alone cannot make the memory writable; who may attach (root and the
 * daemon's own user always may, so the user of a per-user daemon) has only given its word. The
 * handle is another one than that of the same tenant without the flag.
 */
ACRE_API int acre_open(struct acre_heap **ret_heap, const char *address, const char *tenant);
ACRE_API int acre_open_with(struct acre_heap **ret_heap, const struct acre_options *options);

/*
 * Detaches; the handle is gone with the last close. ***What this process still owns is freed (dying
 * politely);*** published blocks stay. No thread may be inside a call on this heap. Pointers into
 * the heap are invalid afterwards. NULL does nothing.
 */
ACRE_API void acre_close(struct acre_heap *heap);

/* ---- allocate and free ---------------------------------------------------------------------- */

/* acre_allocx() flags */
#define ACRE_ZERO       1u /* the block's bytes are zero */
#define ACRE_HEAP_OWNED 2u /* published from birth: nobody's death frees it */
#define ACRE_SOFT       4u /* may be taken back when memory is short: see acre_pin() */

/* Frees a block, from any thread of any process it was handed to, whoever owns it: the caller says
 * that nobody uses it any more. NULL does nothing. A block that is free already, a pointer that is
 * no block's start, or one from elsewhere is reported to the misuse handler and changes nothing. */
ACRE_API void acre_free(struct acre_heap *heap, void *block);

/*
 * Allocate: size any (0 is a unique block), aligned to at least 16 bytes; align any power of two.
 * Contents are undefined unless zeroed. The caller's client owns the block. NULL with errno
 *   ENOMEM     the tenant's `max` or the machine's capacity would be exceeded (nothing is killed,
 *              nothing is lost). Others are asked for what they do not use before this is said: for
 *              0.1 s, not more than once a second
 *   EINVAL     align is no power of two, or an unknown flag
 *   ETIMEDOUT, ECONNREFUSED  more memory was needed and the daemon did not answer, or is gone
 *   EAGAIN     after fork: this process could not attach, the heap has its 65,534 clients
 */
ACRE_API void *acre_alloc(struct acre_heap *heap, size_t size)
    ACRE_ATTR(malloc, alloc_size(2), warn_unused_result);
ACRE_API void *acre_calloc(struct acre_heap *heap, size_t n, size_t size)
    ACRE_ATTR(malloc, alloc_size(2, 3), warn_unused_result);
ACRE_API void *acre_aligned_alloc(struct acre_heap *heap, size_t align, size_t size)
    ACRE_ATTR(malloc, alloc_align(2), alloc_size(3), warn_unused_result);
ACRE_API void *acre_allocx(struct acre_heap *heap, size_t size, size_t align, unsigned flags)
    ACRE_ATTR(malloc, alloc_size(2), warn_unused_result); /* align 0: the default */

/*
 * The same as acre_alloc(); and where that fails with ENOMEM, waits up to deadline_ms milliseconds
 * (-1: for ever; 0: does not wait) until memory of the tenant, or of the machine, has come back.
 * Who waits is served in the order of coming, and others are not served for ever before him: while
 * he is the first, theirs is at most as much as he asks for (or 512 KiB); then acre_alloc() fails
 * for them as if there were no memory. Only the calling thread waits, asleep; signals do not end
 * it. At most 64 threads of a process. What other processes free into what they hold is found
 * within a second. NULL with errno as acre_alloc() (ETIMEDOUT and ECONNREFUSED of the daemon, too),
 * and
 *   ETIMEDOUT  the deadline has passed; nothing was allocated. acre_last_error() says what is in
 *              the way
 *   E2BIG      no wait would help: a heap, the tenant's `max`, its groups', or the capacity without
 *              what others were promised is too small for it, were all of it free
 *   ENOMEM     deadline_ms 0; or the machine cannot back what the tenant may have
 *   EAGAIN     64 threads of this process wait already
 *   EINVAL     deadline_ms below -1
 */
ACRE_API void *acre_alloc_wait(struct acre_heap *heap, size_t size, int deadline_ms)
    ACRE_ATTR(malloc, alloc_size(2), warn_unused_result);

/*
 * Resizes; keeps contents up to the smaller size and keeps the owner (a published block stays
 * published). block NULL is acre_alloc(). On failure the old block is untouched. Errors as
 * acre_alloc(), and
 *   EINVAL     size 0
 *   EPERM      the block belongs to another client
 */
ACRE_API void *acre_realloc(struct acre_heap *heap, void *block, size_t size)
    ACRE_ATTR(alloc_size(3), warn_unused_result);

/* The next n_blocks allocations of size bytes by this thread find their blocks noted, their pages
 * touched: no search, no page fault, no daemon, as long as this thread's other allocations of
 * about that size (the same class) do not take them. What is reserved stays with the thread until
 * it is used or acre_trim() gives it back. At most 16,777,216 blocks of up to 64 KiB. Larger ones:
 * allocate them ahead.
 * -EINVAL; -ENOMEM and others as acre_alloc(): then part of it may be reserved. */
ACRE_API int acre_reserve(struct acre_heap *heap, size_t size, size_t n_blocks);

/* How often this thread's allocations had to look for a block instead of taking a noted one, since
 * it first used the heap: what acre_reserve() keeps from rising. */
ACRE_API uint64_t acre_refills(struct acre_heap *heap);

/* Bytes that the caller may use from block on: at least what was asked for. 0 for NULL or no
 * block. */
ACRE_API size_t acre_usable_size(struct acre_heap *heap, const void *block);

/* Gives memory this process holds and does not use back to the daemon, and unmaps what the tenant
 * does not use any more and others want: until then it is charged to the tenant. Other calls that
 * meet the daemon do the latter, too: so who is about to do nothing for long calls this one.
 * -ETIMEDOUT, -ECONNREFUSED. */
ACRE_API int acre_trim(struct acre_heap *heap);

/* ---- pressure: who sleeps is told --------------------------------------------------------- */

/*
 * Memory that a process holds and does not use is others' when they need it: whatever call comes by
 * gives it back. A process that sleeps in poll() makes no call. It polls one descriptor more, for
 * reading, and calls acre_dispatch() when it is readable; the same tells it that its tenant is
 * under pressure, so that it can let go of what it uses (a cache, say) before an allocation fails.
 *
 *     struct pollfd fds[] = {{.fd = acre_fd(heap), .events = POLLIN}, ...};
 *     while (poll(fds, n, -1) >= 0) {
 *         if (fds[0].revents)
 *             acre_dispatch(heap);
 *         ...
 *
 * (The idea of sd_bus_get_fd() and sd_bus_process(), of wl_display_get_fd(), and, for what is told,
 * of memory.events in cgroup v2. There is no thread of the library's, and no signal.)
 */

/*
 * The descriptor: made by the first call, the library's (never closed, read, or changed by the
 * application), and the same until acre_close(), whatever becomes of the daemon. It costs three
 * descriptors of the process. It may be readable with nothing to do, as it is at first. One that
 * was closed all the same is replaced by the next call. After fork() the child's own is another
 * one, which it has to ask for; the parent's is closed in the child.
 *   -EMFILE       this process has no descriptor left
 *   -ENOMEM       the system has no memory for it
 *   -EPERM        the heap is open with ACRE_READ_ONLY: it holds nothing; acre_pressure_now() works
 *   -ETIMEDOUT    other threads' calls waited for the daemon that long
 *   and after fork those of acre_open(): this process could not attach
 */
ACRE_API int acre_fd(struct acre_heap *heap);

/*
 * Takes what has come, gives back what this process does not use if others want it (memory that
 * another thread's cache holds stays there until that thread comes by), calls the function of
 * acre_on_pressure() if the pressure is another one, and makes the descriptor silent until there is
 * something new. From any thread. Does not wait for another thread's call that takes long: where
 * one is with the daemon, the descriptor is readable again after it. Works without acre_fd(), too,
 * and then notices what has come by itself. Returns 1 if something was given back, or the function
 * called; 0 if there was nothing to do; or
 *   -ECONNREFUSED, -ETIMEDOUT  the daemon is away, or did not answer. The descriptor stays good, and
 *                 is readable in a second, to try again; nothing else is to be done
 *   -EPERM        the heap is open with ACRE_READ_ONLY
 */
ACRE_API int acre_dispatch(struct acre_heap *heap);

/* Why the tenant is to give memory back; each is more urgent than the one before. */
enum acre_pressure_level {
    ACRE_PRESSURE_NONE = 0,
    ACRE_PRESSURE_HIGH = 1,  /* it, or a group above it, has more than its `high` (acre.conf) */
    ACRE_PRESSURE_SHARE = 2, /* others want memory, and it has more than its share */
    ACRE_PRESSURE_MAX = 3, /* it, or a group above it, has more than its `max`, which was lowered */
};

/* All of the tenant, of whose processes this one is. Bytes are those of segments. */
struct acre_pressure {
    size_t size; /* sizeof(struct acre_pressure): it may grow */
    enum acre_pressure_level level;
    size_t over_bytes; /* so much more than it should has it, at that level */
    size_t high_bytes; /* where pressure begins */
    size_t max_bytes;
    size_t used_bytes; /* charged to it now */
};

/* The pressure at this moment, each figure by itself, in *ret_pressure, whose `size` the caller has
 * set. Reads a page that the daemon writes: asks nobody. -EINVAL NULL, or the size is too small. */
ACRE_API int acre_pressure_now(struct acre_heap *heap, struct acre_pressure *ret_pressure);

/* pressure: valid during the call. */
typedef void (*acre_pressure_fn)(struct acre_heap *heap, const struct acre_pressure *pressure,
                                 void *ctx);

/*
 * From now on fn is called when level, over_bytes, or a limit has changed since it was last called:
 * by acre_dispatch() alone, in its thread, with no lock held, so that it may do anything with the
 * heap but close it. The first time it is called if there is any pressure. Changes in quick
 * succession may be one call. One function a heap and process, the last one set; NULL: none. A
 * forked child has none.
 * -ETIMEDOUT other threads' calls waited for the daemon that long; -EPERM the heap is open with
 * ACRE_READ_ONLY.
 */
ACRE_API int acre_on_pressure(struct acre_heap *heap, acre_pressure_fn fn, void *ctx);

/* ---- soft memory: blocks that one can live without ------------------------------------------ */

/*
 * For caches. A block made by acre_allocx() with ACRE_SOFT may be taken back by the daemon when its
 * tenant needs memory, or gives memory back under pressure: those first that have not been pinned
 * for the longest time. Nobody is asked, and who sleeps or is stopped does not stand in the way. A
 * block that is *pinned* by any process stays as it is; it is born pinned by who made it.
 *
 *     void *block = acre_allocx(heap, size, 0, ACRE_SOFT | ACRE_HEAP_OWNED);
 *     acre_soft name = acre_soft_of(heap, block);   // for the cache's index, wherever that is
 *     fill(block);
 *     acre_unpin(heap, block);
 *     ...
 *     const void *p = acre_pin(heap, name);         // in any process of the tenant
 *     if (p) {
 *         use(p);
 *         acre_unpin(heap, p);
 *     } else if (errno == ESTALE) {
 *         ...                                       // gone: make it anew
 *     }
 *
 * A soft block takes whole units of 8 KiB: many small things go into one block. It has an owner as
 * any other (ACRE_HEAP_OWNED, acre_publish(), acre_give()), and ends with it: but not under those
 * who have it pinned. It is freed by acre_free(), by who has it pinned, which ends that pin;
 * others keep theirs, and its memory comes back when the last has gone. It cannot be resized, nor
 * be a root, nor linked by acre_publish_at(). A process may have 760 pins at a time; they end with
 * it, and a forked child has none. (The idea of soft memory, and of looking before each use, is
 * that of Midas, NSDI 2024; that of a line that says what is used, of hazard pointers.)
 */
typedef uint64_t acre_soft; /* names a soft block for ever, never what comes to its place. 0: none */

/* The name of a soft block that the caller has pinned. 0 with errno EINVAL: it is no soft block. */
ACRE_API acre_soft acre_soft_of(struct acre_heap *heap, const void *block);

/*
 * The block's address, valid until this process unpins it as often as it has pinned it; from any
 * thread. Asks nobody, but in the first call of a process, and where a segment is to be mapped.
 * NULL with errno
 *   ESTALE     the block is gone, and will not come back
 *   EAGAIN     760 pins of this process stand already; after fork as acre_alloc()
 *   EINVAL     soft names nothing
 *   EPERM      the heap is open with ACRE_READ_ONLY
 *   ETIMEDOUT, ECONNREFUSED, ENOMEM  in those two cases
 */
ACRE_API void *acre_pin(struct acre_heap *heap, acre_soft soft) ACRE_ATTR(warn_unused_result);

/* Ends one pin of this process, of whichever thread. NULL does nothing; what is not pinned is
 * reported to the misuse handler. */
ACRE_API void acre_unpin(struct acre_heap *heap, const void *block);

/* ---- names of blocks ------------------------------------------------------------------------ */

/* Offset of any address in the heap (also inside a block), valid in every process; 0 for NULL or a
 * foreign address. */
ACRE_API acre_off acre_offset(struct acre_heap *heap, const void *block);

/* Address of an offset in this process; NULL for 0, for an offset outside of the heap (errno
 * EINVAL) or when a segment that is new to this process cannot be mapped (errno ETIMEDOUT,
 * ECONNREFUSED, ENOMEM). */
ACRE_API void *acre_pointer(struct acre_heap *heap, acre_off off);

/* ---- owners --------------------------------------------------------------------------------- */

/* This process as a client. Pass it to others so that they can acre_give() to it. 0 (and errno)
 * after a fork if this process could not attach. */
ACRE_API acre_client acre_self(struct acre_heap *heap);

/* The owner at this moment: the client, ACRE_OWNER_HEAP if published, or 0: the block is free, its
 * owner has died, or no block starts at the address (also inside of a block). */
ACRE_API acre_client acre_owner(struct acre_heap *heap, const void *block);

/* From now on the heap's: the block outlives its client. 0 also if it is the heap's already. One
 * plain store: it has happened or it has not. -EINVAL no block; -EPERM another client's. */
ACRE_API int acre_publish(struct acre_heap *heap, void *block);

/* Publishes all that this client owns, e.g. before daemonising. -ETIMEDOUT, -ECONNREFUSED. */
ACRE_API int acre_publish_all(struct acre_heap *heap);

/* Gives one's own block to another client: one plain store. -ESRCH no such client any more (the
 * block stays the caller's; 0 if it dies just then: the block ends with it); -EPERM not the
 * caller's; -EINVAL no block. Give first, send the offset then. */
ACRE_API int acre_give(struct acre_heap *heap, void *block, acre_client to);

/* Takes a published block. One caller wins, others get -EBUSY. -EINVAL no block or free. 0 also if
 * it is one's own already. */
ACRE_API int acre_adopt(struct acre_heap *heap, void *block);

/* ---- links: a block and the place that names it change together ----------------------------- */

/*
 * For structures that live in the heap and must survive anybody's death. A *slot* is an aligned
 * acre_off inside a block of the heap that outlives the caller: the head of a list, a link in a
 * block, a cell of a table. Each call is one step: whoever is killed, and wherever, all of it has
 * happened or nothing. No call waits for another process.
 *
 * Any number of threads of any processes may fill an empty slot: one wins. Replacing and taking
 * what a slot names is for one at a time, and not while the links of the blocks involved change:
 * a lock of the application's (a robust mutex in the heap), or one consumer to a slot. Readers may
 * follow links at any time, and must themselves know that what they read is not freed meanwhile.
 *   -EINVAL  the slot is no aligned address in the heap; what is named is no live block
 *   -EPERM   the block is another client's, or published already
 *   -EBUSY   another call has not finished with the block that the slot (or next) names, or its
 *            client has just been killed there, and the daemon has not seen it: try again
 *   -EAGAIN  the slot has changed meanwhile; after fork: this process could not attach
 */

/* The caller's block becomes the heap's, and *slot its offset, whatever was there before: nothing,
 * or a published block that the caller has linked behind the new one. */
ACRE_API int acre_publish_at(struct acre_heap *heap, void *block, acre_off *slot);
/* The same only if *slot is `expected` (0: empty); else -EAGAIN. */
ACRE_API int acre_publish_at_cas(struct acre_heap *heap, void *block, acre_off *slot,
                                 acre_off expected);

/* Takes the published block that the slot names: it becomes the caller's, and *slot `next`: 0, or
 * the published block that came behind it. NULL with errno as above, or ENOENT: the slot is
 * empty. */
ACRE_API void *acre_take_at(struct acre_heap *heap, acre_off *slot, acre_off next);

/* The same, and frees it. -ENOENT the slot is empty. */
ACRE_API int acre_unlink_free(struct acre_heap *heap, acre_off *slot, acre_off next);

/* ---- roots: names by which processes find their first block --------------------------------- */

/*
 * At most 1,024 roots to a heap, names of 1 to 47 bytes. Each call is one round trip to the daemon
 * and all or nothing. Setting publishes the block in the same step: it must be the caller's own or
 * published. The root does not own the block: who frees the block deletes the root first.
 * acre_root_cas(): expected 0 means "there is no such root"; desired 0 deletes it.
 *   -EINVAL   bad name, or the offset is no block's start
 *   -EPERM    the block is another client's
 *   -ENOENT   no such root
 *   -EEXIST   (cas, expected 0) and -EAGAIN (cas) the root is not what was expected
 *   -ENOSPC   too many roots
 *   -ETIMEDOUT, -ECONNREFUSED
 */
ACRE_API int acre_root_set(struct acre_heap *heap, const char *name, acre_off off);
ACRE_API int acre_root_get(struct acre_heap *heap, const char *name, acre_off *ret_off);
ACRE_API int acre_root_cas(struct acre_heap *heap, const char *name, acre_off expected,
                           acre_off desired);
ACRE_API int acre_root_del(struct acre_heap *heap, const char *name);

/* ---- errors --------------------------------------------------------------------------------- */

/* One sentence for an error (negative or positive errno) as Acre means it. Static. */
ACRE_API const char *acre_strerror(int error);

/* The calling thread's last failure, in a sentence with the figures ("" if none). Calls that
 * succeed leave it alone; valid until the thread's next failure. */
ACRE_API const char *acre_last_error(void);

enum acre_misuse_kind {
    ACRE_MISUSE_DOUBLE_FREE = 1, /* the block is free already */
    ACRE_MISUSE_INTERIOR = 2,    /* an address inside the heap where no block starts */
    ACRE_MISUSE_FOREIGN = 3,     /* an address outside of the heap */
    ACRE_MISUSE_READ_ONLY = 4,   /* the heap is open with ACRE_READ_ONLY */
    ACRE_MISUSE_NOT_PINNED = 5,  /* a soft block that this process has not pinned */
};

struct acre_misuse {
    size_t size; /* sizeof(struct acre_misuse): it may grow */
    enum acre_misuse_kind kind;
    const char *function; /* "acre_free", "acre_realloc", "acre_unpin" */
    const void *address;
    acre_off off;        /* 0 if foreign */
    acre_client client;  /* who called */
    const char *message; /* the whole sentence; valid during the call */
};

/* What happens on misuse, for all heaps of the process. handler NULL restores the default: one line
 * to stderr, then abort(). If the handler returns, the bad call has done nothing. Called on the
 * offending thread without locks held. */
ACRE_API void acre_set_misuse_handler(void (*handler)(void *ctx, const struct acre_misuse *misuse),
                                      void *ctx);

ACRE_API const char *acre_version(void);

#ifdef __cplusplus
}
#endif

#endif
