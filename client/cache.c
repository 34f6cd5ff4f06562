/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache.c - thread caches come and go.
 *
 * A cache belongs to one living thread at a time, with its slabs, windows and stacks. When its
 * thread ends, it stays whole, idle, for the next thread (or its slabs are inherited class by
 * class: bin.c). A thread that ends without its destructors (a raw exit system call) leaves the
 * cache busy: whoever needs one asks the kernel whether that thread still exists. Its number may
 * have been given to another thread meanwhile: then the cache stays stranded until that one ends
 * too; its memory comes back with the process in any case.
 */
#include <string.h>
#include <sys/syscall.h>

#include "client/heap.h"

__thread struct tls_last tls_last;
__thread struct tls_cache tls_caches[HEAPS_MAX];

static void remember(const struct tls_cache *t)
{
    tls_last = (struct tls_last){t->serial, t->serial | t->cache->token, t->cache};
}

struct cache *cache_here(const struct acre_heap *heap)
{
    const struct tls_cache *t = &tls_caches[heap->index];

    if (t->serial != heap->serial)
        return NULL;
    remember(t);
    return t->cache;
}

static bool thread_exists(int tid)
{
    return syscall(SYS_tgkill, getpid(), tid, 0) == 0 || errno != ESRCH;
}

/* pool_lock held. */
static struct cache *cache_idle(struct process *p, int self_tid)
{
    for (struct cache *c = p->caches; c; c = c->next)
        if (!c->busy)
            return c;
    for (struct cache *c = p->caches; c; c = c->next)
        if (c->tid == self_tid || !thread_exists(c->tid))
            return c;
    return NULL;
}

static struct cache *cache_new(struct acre_heap *heap)
{
    struct process *p = heap->process;

    if (p->n_caches == CACHES_MAX)
        return NULL;
    struct cache *c = arena_take(heap, sizeof(*c), _Alignof(struct cache));
    if (!c)
        return NULL;
    for (unsigned i = 0; i < N_CLASSES; i++) {
        c->bins[i].top = c->bins[i].bottom = c->stacks[i];
        c->bins[i].limit = c->stacks[i] + STACK_BLOCKS;
    }
    c->id = self_id(heap);
    c->token = holder_token(c->id, ++p->n_caches);
    c->next = p->caches;
    p->caches = c;
    return c;
}

struct cache *cache_acquire(struct acre_heap *heap)
{
    struct process *p = heap->process;
    int saved_errno = errno, tid = (int)syscall(SYS_gettid), r = attach_ensure(heap);

    if (r < 0) {
        errno = -r;
        return NULL;
    }
    pthread_mutex_lock(&p->pool_lock);
    struct cache *c = cache_idle(p, tid);
    if (!c)
        c = cache_new(heap);
    if (c) {
        c->busy = true;
        c->tid = tid;
    }
    pthread_mutex_unlock(&p->pool_lock);
    if (!c) {
        errno = -fail(ENOMEM, "no private memory left for a thread cache");
        return NULL;
    }
    tls_caches[heap->index] = (struct tls_cache){heap->serial, c};
    remember(&tls_caches[heap->index]);
    cache_watch_thread();
    errno = saved_errno;
    return c;
}

/* Takes a cache without a thread, of an index below `after`, as if it were this thread's. */
static struct cache *idle_borrow(struct process *p, int tid, uint32_t after)
{
    pthread_mutex_lock(&p->pool_lock);
    struct cache *c = p->caches;
    while (c && (c->busy || holder_cache(c->token) >= after))
        c = c->next;
    if (c) {
        c->busy = true;
        c->tid = tid;
    }
    pthread_mutex_unlock(&p->pool_lock);
    return c;
}

void cache_trim_idle(struct acre_heap *heap, bool punch)
{
    struct process *p = heap->process;
    struct cache *c;
    int tid = (int)syscall(SYS_gettid);

    /* The list runs from the youngest to the oldest, by falling index. */
    for (uint32_t after = CACHES_MAX + 1; (c = idle_borrow(p, tid, after)) != NULL;) {
        after = holder_cache(c->token);
        cache_trim(heap, c, punch);
        pthread_mutex_lock(&p->pool_lock);
        c->busy = false;
        pthread_mutex_unlock(&p->pool_lock);
    }
}

/* ---- the end of a thread ---- */

static pthread_key_t key;
static bool has_key; /* without one, an ended thread's cache is found by its number */
static pthread_once_t key_once = PTHREAD_ONCE_INIT;

static void thread_ended(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < HEAPS_MAX; i++) {
        struct tls_cache *t = &tls_caches[i];
        struct acre_heap *heap = t->serial ? heaps_lock(i, t->serial) : NULL;
        if (!heap)
            continue;
        pthread_mutex_lock(&heap->process->pool_lock);
        t->cache->busy = false;
        pthread_mutex_unlock(&heap->process->pool_lock);
        heaps_unlock();
        *t = (struct tls_cache){0};
    }
    tls_last = (struct tls_last){0};
}

static void key_init(void)
{
    has_key = pthread_key_create(&key, thread_ended) == 0;
}

void cache_watch_thread(void)
{
    pthread_once(&key_once, key_init);
    if (has_key)
        (void)pthread_setspecific(key, tls_caches);
}
