/* SPDX-License-Identifier: Apache-2.0 */
/*
 * open.c - heaps of this process: opened once per tenant and counted, closed, carried over a fork.
 *
 * Each index 0..15 has, for good, one private region of REGION_BYTES of address space
 * (MADV_WIPEONFORK): struct process at its start, then an arena of slab records and thread caches.
 * It is never unmapped: another thread may still hold a pointer to its old cache there. That
 * pointer is believed only with the heap's serial beside it, which is new with each open and after
 * each fork.
 *
 * A raw clone() without fork handlers leaves the child's serial as it was; its region reads as zero
 * all the same, so its caches are empty and its first slow path attaches. Its arena starts beyond
 * what the parent had used (arena_floor), so that no other thread of the child is given the memory
 * that a stale pointer names.
 */
#include <string.h>
#include <sys/mman.h>

#include "client/heap.h"

#define REGION_BYTES GIB(2) /* 64 million slab records, or 3,000 thread caches */
#define REGION_STEP  MIB(1)

static struct {
    pthread_mutex_t lock;
    struct acre_heap *heaps[HEAPS_MAX];
    char *regions[HEAPS_MAX];
    uint64_t last_serial;
} registry = {.lock = PTHREAD_MUTEX_INITIALIZER};

static uint64_t serial_next(void)
{
    return registry.last_serial += 1ull << 32;
}

struct acre_heap *heaps_lock(unsigned index, uint64_t serial)
{
    pthread_mutex_lock(&registry.lock);
    struct acre_heap *heap = registry.heaps[index];
    if (heap && heap->serial == serial)
        return heap;
    pthread_mutex_unlock(&registry.lock);
    return NULL;
}

void heaps_unlock(void)
{
    pthread_mutex_unlock(&registry.lock);
}

/* ---- fork ---- */

static void fork_prepare(void)
{
    pthread_mutex_lock(&registry.lock);
    life_fork_lock();
    misuse_fork_lock();
}

static void fork_parent(void)
{
    misuse_fork_unlock();
    life_fork_unlock();
    pthread_mutex_unlock(&registry.lock);
}

/* The regions read as zero already. What is left is the parent's telephone, and the thread's belief
 * in its caches. */
static void fork_child(void)
{
    for (unsigned i = 0; i < HEAPS_MAX; i++) {
        struct acre_heap *heap = registry.heaps[i];
        if (!heap)
            continue;
        heap->serial = serial_next();
        heap->arena_floor = 0;
        attach_drop_inherited(heap);
        event_drop_inherited(heap);
    }
    misuse_fork_unlock();
    life_fork_unlock();
    pthread_mutex_unlock(&registry.lock);
}

static void register_fork_handlers(void)
{
    (void)pthread_atfork(fork_prepare, fork_parent, fork_child);
}

/* ---- the private region ---- */

static int region_open(unsigned index)
{
    if (registry.regions[index])
        return 0;
    void *region =
        mmap(NULL, REGION_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (region == MAP_FAILED)
        return fail(ENOMEM, "no address space for %llu MiB",
                    (unsigned long long)REGION_BYTES >> 20);
    if (mprotect(region, REGION_STEP, PROT_READ | PROT_WRITE) < 0 ||
        madvise(region, REGION_BYTES, MADV_WIPEONFORK) < 0) {
        munmap(region, REGION_BYTES);
        return fail(errno, "cannot set up wipe-on-fork memory: %s", strerror(errno));
    }
    registry.regions[index] = region;
    return 0;
}

static void region_wipe(unsigned index)
{
    char *region = registry.regions[index];

    /* Locked memory (mlockall()) is not dropped. */
    if (madvise(region, REGION_BYTES, MADV_DONTNEED) < 0 &&
        (munlock(region, REGION_BYTES) < 0 || madvise(region, REGION_BYTES, MADV_DONTNEED) < 0))
        memset(region, 0, REGION_STEP); /* struct process at least */
}

void *arena_take(struct acre_heap *heap, size_t bytes, size_t align)
{
    struct process *p = heap->process;
    uint64_t used = MAX(p->arena_used, MAX(heap->arena_floor, sizeof(*p)));
    char *region = (char *)p; /* aligned to a page: the address is what must be aligned */
    uint64_t start = round_up_u64((uintptr_t)region + used, align) - (uintptr_t)region;
    uint64_t end = start + bytes;

    if (end > REGION_BYTES)
        return NULL;
    /* The step that `used` lies in is usable already, the first one since region_open(). */
    for (uint64_t step = round_up_u64(used, REGION_STEP); step < end; step += REGION_STEP)
        if (mprotect(region + step, REGION_STEP, PROT_READ | PROT_WRITE) < 0)
            return NULL;
    p->arena_used = heap->arena_floor = end;
    return region + start;
}

/* ---- the reserved range ---- */

/* HEAP_BYTES of address space at the usual base if that is free, else anywhere, aligned to a slot;
 * and below it the rows of tables, which read as zeroes from the start: see heap.h. */
static int reserve_range(struct acre_heap *heap)
{
    size_t bytes = HEAP_BYTES + 2 * SLOT_BYTES;
    long page_bytes = sysconf(_SC_PAGESIZE);

    if (page_bytes != SEGMENT_PAGE_BYTES)
        return fail(ENOTSUP, "pages of %ld bytes: this library needs pages of %u", page_bytes,
                    SEGMENT_PAGE_BYTES);
    void *at = mmap((void *)HEAP_BASE_HINT, bytes, PROT_NONE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (at == MAP_FAILED)
        return fail(ENOMEM, "no %llu GiB of address space for the heap", HEAP_BYTES >> 30);
    heap->reserved = at;
    heap->reserved_bytes = bytes;
    heap->base = (char *)round_up_u64((uintptr_t)at + ENTRIES_BELOW, SLOT_BYTES);
    /* A core dump or a fork has no use for the reservation. */
    (void)madvise(at, bytes, MADV_DONTDUMP);
    if (mprotect(heap->base - ENTRIES_BELOW, ENTRIES_BELOW, PROT_READ) < 0)
        return fail(ENOMEM, "no address space for the heap's tables: %s", strerror(errno));
    return 0;
}

/* ---- open ---- */

static int copy_string(char *to, size_t n, const char *from, const char *what)
{
    if (strlen(from) >= n || (from[0] == '\0' && what))
        return fail(EINVAL, "the %s is empty or longer than %zu bytes", what ? what : "name",
                    n - 1);
    strcpy(to, from);
    return 0;
}

static void name_copy(struct acre_heap *heap, const char *name)
{
    snprintf(heap->name, sizeof(heap->name), "%s", name ? name : program_invocation_short_name);
}

static int options_check(const struct acre_options *o)
{
    if (o->size < sizeof(*o))
        return fail(EINVAL, "acre_options.size is %zu, not %zu", o->size, sizeof(*o));
    if (o->flags & ~(ACRE_NO_AUTOSTART | ACRE_READ_ONLY))
        return fail(EINVAL, "acre_options.flags 0x%x are unknown", o->flags);
    if (o->deadline_ms < 0)
        return fail(EINVAL, "acre_options.deadline_ms is %d", o->deadline_ms);
    return 0;
}

static struct acre_heap *find_open(const char *address, const char *tenant, bool is_read_only)
{
    for (unsigned i = 0; i < HEAPS_MAX; i++) {
        struct acre_heap *h = registry.heaps[i];
        if (h && strcmp(h->address, address) == 0 && strcmp(h->tenant, tenant) == 0 &&
            h->is_read_only == is_read_only)
            return h;
    }
    return NULL;
}

static void heap_destroy(struct acre_heap *heap)
{
    for (unsigned i = 0; i < HEAP_SLOTS; i++)
        buddy_free(heap->buddies[i]);
    if (heap->control)
        munmap((void *)(uintptr_t)heap->control, sizeof(struct control));
    if (heap->reserved)
        munmap(heap->reserved, heap->reserved_bytes);
    if (heap->process)
        region_wipe(heap->index);
    free(heap);
}

static int heap_create(struct acre_heap **ret_heap, const struct acre_options *o,
                       const char *address, const char *tenant)
{
    struct acre_heap *heap = aligned_alloc(64, round_up_u64(sizeof(*heap), 64));
    unsigned index = 0;

    if (!heap)
        return fail(ENOMEM, "no memory for the heap's handle");
    memset(heap, 0, sizeof(*heap));
    heap->inherited_sock = -1;
    while (index < HEAPS_MAX && registry.heaps[index])
        index++;
    int r = index < HEAPS_MAX ? region_open(index)
                              : fail(EMFILE, "%u heaps are open in this process", HEAPS_MAX);
    if (r == 0)
        r = reserve_range(heap);
    if (r == 0)
        r = copy_string(heap->address, sizeof(heap->address), address, "address");
    if (r == 0)
        r = copy_string(heap->tenant, sizeof(heap->tenant), tenant, "tenant");
    if (r < 0) {
        heap_destroy(heap);
        return r;
    }
    name_copy(heap, o->name);
    heap->deadline_ms = o->deadline_ms ? o->deadline_ms : 5000;
    heap->is_read_only = o->flags & ACRE_READ_ONLY;
    heap->index = index;
    memcpy(heap->class_table, class_table, sizeof(class_table));
    memcpy(heap->geo_table, geo_table, sizeof(geo_table));
    heap->serial = serial_next();
    heap->process = (struct process *)(void *)registry.regions[index];
    *ret_heap = heap;
    return 0;
}

static int heap_ensure(struct acre_heap *heap)
{
    return heap->is_read_only ? look_ensure(heap) : attach_ensure(heap);
}

/* Attach; where nobody answers and it is allowed, start a per-user daemon and try again. */
static int heap_attach(struct acre_heap *heap, bool may_start)
{
    int r = heap_ensure(heap);

    if (r != -ECONNREFUSED || !may_start)
        return r;
    r = daemon_start();
    if (r == 0)
        r = heap_ensure(heap);
    if (r == 0)
        (void)fail(0, "%s", ""); /* that nobody had answered is no failure any more */
    return r;
}

static int open_locked(struct acre_heap **ret_heap, const struct acre_options *o,
                       const char *address, bool may_start)
{
    const char *tenant = o->tenant ? o->tenant : "default";
    struct acre_heap *heap = find_open(address, tenant, o->flags & ACRE_READ_ONLY);

    if (!heap) {
        int created = heap_create(&heap, o, address, tenant);
        if (created == 0 && (created = heap_attach(heap, may_start)) < 0)
            heap_destroy(heap);
        if (created < 0)
            return created;
        registry.heaps[heap->index] = heap;
    }
    /* A forked child finds its parent's handle here. */
    int r = heap_ensure(heap);
    if (r < 0)
        return r;
    heap->n_opens++;
    *ret_heap = heap;
    return 0;
}

int acre_open_with(struct acre_heap **ret_heap, const struct acre_options *options)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    char address[ADDRESS_BYTES];
    bool may_start;

    if (!ret_heap || !options)
        return fail(EINVAL, "acre_open_with: an argument is NULL");
    int r = options_check(options);
    if (r == 0)
        r = daemon_address(options->address, options->flags, address, &may_start);
    if (r < 0)
        return r;
    int saved_errno = errno, cancel_state;
    sizeclass_init();
    pthread_once(&once, register_fork_handlers);
    (void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
    pthread_mutex_lock(&registry.lock);
    r = open_locked(ret_heap, options, address, may_start);
    pthread_mutex_unlock(&registry.lock);
    (void)pthread_setcancelstate(cancel_state, NULL);
    errno = saved_errno;
    return r;
}

int acre_open(struct acre_heap **ret_heap, const char *address, const char *tenant)
{
    struct acre_options options = {.size = sizeof(options), .address = address, .tenant = tenant};

    return acre_open_with(ret_heap, &options);
}

void acre_close(struct acre_heap *heap)
{
    if (!heap)
        return;
    int saved_errno = errno, cancel_state;
    (void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
    pthread_mutex_lock(&registry.lock);
    acre_assert(heap->n_opens > 0);
    if (--heap->n_opens == 0) {
        registry.heaps[heap->index] = NULL;
        attach_detach(heap);
        event_close(heap);
        heap_destroy(heap);
    }
    pthread_mutex_unlock(&registry.lock);
    (void)pthread_setcancelstate(cancel_state, NULL);
    errno = saved_errno;
}
