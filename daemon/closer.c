/* SPDX-License-Identifier: Apache-2.0 */
/*
 * closer.c - see closer.h.
 *
 * A user's queue has a thread while it is not empty. Threads are detached; the closer outlives them
 * by counting. If no thread can be made, the next thing to close tries again.
 */
#include "daemon/closer.h"

#include <pthread.h>
#include <signal.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <time.h>

#include "proto/wire.h"

struct item {
    TAILQ_ENTRY(item) in_queue;
    int fd;
    bool is_connection;
};

struct user {
    LIST_ENTRY(user) in_closer;
    struct closer *closer;
    uid_t uid;
    uint32_t n_foreign;
    bool has_thread;
    TAILQ_HEAD(, item) items; /* the first is being closed */
};

struct closer {
    pthread_mutex_t mutex;
    pthread_cond_t is_empty;
    LIST_HEAD(, user) users; /* that have something to close */
    uint32_t n;              /* of all of them; read without the mutex */
};

/* A lingering socket is made not to; other ways to block remain, and are why these are threads. */
static void close_file(int fd)
{
    struct linger off = {0, 0};
    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &off,
                     sizeof(off)); /* ENOTSOCK asks no file system */
    (void)close(fd);
}

static void *run(void *arg)
{
    struct user *u = arg;
    struct closer *c = u->closer;
    struct item *item;
    pthread_mutex_lock(&c->mutex);
    while ((item = TAILQ_FIRST(&u->items))) {
        pthread_mutex_unlock(&c->mutex);
        if (item->is_connection)
            wire_drain(item->fd, close_file); /* else these close with it, lingering */
        close_file(item->fd);
        pthread_mutex_lock(&c->mutex);
        TAILQ_REMOVE(&u->items, item, in_queue);
        u->n_foreign -= !item->is_connection;
        (void)__atomic_fetch_sub(&c->n, 1, __ATOMIC_RELAXED);
        free(item);
    }
    LIST_REMOVE(u, in_closer);
    free(u);
    if (LIST_EMPTY(&c->users))
        pthread_cond_broadcast(&c->is_empty);
    pthread_mutex_unlock(&c->mutex);
    return NULL;
}

static void start_thread(struct user *u)
{
    sigset_t all, old;
    pthread_attr_t attr;
    pthread_t thread;
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, KIB(128));
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old); /* signals are the loop's */
    u->has_thread = pthread_create(&thread, &attr, run, u) == 0;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
}

static struct user *find_user(struct closer *c, uid_t uid)
{
    struct user *u;
    LIST_FOREACH (u, &c->users, in_closer)
        if (u->uid == uid)
            return u;
    return NULL;
}

static struct user *get_user(struct closer *c, uid_t uid)
{
    struct user *u = find_user(c, uid);
    if (u)
        return u;
    u = calloc(1, sizeof(*u));
    if (!u)
        return NULL;
    u->closer = c;
    u->uid = uid;
    TAILQ_INIT(&u->items);
    LIST_INSERT_HEAD(&c->users, u, in_closer);
    return u;
}

int closer_new(struct closer **ret_closer)
{
    struct closer *c = calloc(1, sizeof(*c));
    if (!c)
        return -ENOMEM;
    pthread_mutex_init(&c->mutex, NULL);
    pthread_cond_init(&c->is_empty, NULL);
    LIST_INIT(&c->users);
    *ret_closer = c;
    return 0;
}

void closer_leave(struct closer *c)
{
    struct timespec until;
    int r = 0;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 1;
    pthread_mutex_lock(&c->mutex);
    while (!LIST_EMPTY(&c->users) && r == 0)
        r = pthread_cond_timedwait(&c->is_empty, &c->mutex, &until);
    bool is_empty = LIST_EMPTY(&c->users);
    pthread_mutex_unlock(&c->mutex);
    if (is_empty) /* else its threads use it until the process ends */
        free(c);
}

void closer_close(struct closer *c, int fd, uid_t uid, bool is_connection)
{
    struct item *item = fd >= 0 ? malloc(sizeof(*item)) : NULL;
    if (fd < 0)
        return;
    pthread_mutex_lock(&c->mutex);
    struct user *u = item ? get_user(c, uid) : NULL;
    if (u) {
        *item = (struct item){.fd = fd, .is_connection = is_connection};
        TAILQ_INSERT_TAIL(&u->items, item, in_queue);
        u->n_foreign += !is_connection;
        (void)__atomic_fetch_add(&c->n, 1, __ATOMIC_RELAXED);
        if (!u->has_thread)
            start_thread(u);
    }
    pthread_mutex_unlock(&c->mutex);
    if (!u) { /* without memory: better slow than leaking */
        free(item);
        (void)close(fd);
    }
}

uint32_t closer_n_foreign(struct closer *c, uid_t uid)
{
    pthread_mutex_lock(&c->mutex);
    const struct user *u = find_user(c, uid);
    uint32_t n = u ? u->n_foreign : 0;
    pthread_mutex_unlock(&c->mutex);
    return n;
}

uint32_t closer_n_all(const struct closer *c)
{
    return __atomic_load_n(&c->n, __ATOMIC_RELAXED);
}
