/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads for jobs, theory.
 *
 * Why not libuv's: a job may stick in the kernel for as long as a client likes (life.h), and its
 * pool has a fixed number of threads for all tenants. And its queue wakes by a condition variable:
 * pthread_cond_signal() waits until threads that were woken before have run, so that on a busy
 * machine the loop stood still for them (158 ms seen).
 *
 * Here there are as many threads as there have been jobs under way at once; a tenant has a handful.
 * The loop waits for none of them: what goes in and what comes out are lists that are pushed onto
 * by compare-and-swap and taken as a whole, so nothing is ever freed or used again while somebody
 * looks at it. Among each other the threads have a lock. An async wakes the loop; it is closed when
 * the threads have been joined.
 */
#include "daemon/worker.h"

#include <pthread.h>
#include <semaphore.h>
#include <signal.h>

#include <uv.h>

#include "daemon/server.h"

#define THREADS_MAX 256u /* a job each; then they queue up */

struct work {
    struct work *next;
    struct job *job;
};

struct workers {
    struct server *server;
    uv_async_t async;
    struct work *submitted, *done; /* pushed, taken as a whole */
    sem_t wanted;
    pthread_mutex_t mutex; /* among the threads: of what they have taken, in order */
    struct work *first;
    uint32_t n_under_way, n_threads; /* the loop's */
    bool is_stopping;
    pthread_t threads[THREADS_MAX];
};

/* ---- lists ---- */

static void push(struct work **list, struct work *w)
{
    w->next = __atomic_load_n(list, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(list, &w->next, w, true, __ATOMIC_RELEASE,
                                        __ATOMIC_RELAXED)) /* pairs with take_all() */
        ;
}

/* The oldest first. */
static struct work *take_all(struct work **list)
{
    struct work *w = __atomic_exchange_n(list, NULL, __ATOMIC_ACQUIRE), *reversed = NULL;
    while (w) {
        struct work *next = w->next;
        w->next = reversed;
        reversed = w;
        w = next;
    }
    return reversed;
}

/* ---- threads ---- */

static struct work *next_work(struct workers *ws)
{
    pthread_mutex_lock(&ws->mutex);
    if (!ws->first)
        ws->first = take_all(&ws->submitted);
    struct work *w = ws->first;
    if (w)
        ws->first = w->next;
    pthread_mutex_unlock(&ws->mutex);
    return w;
}

static void *run(void *arg)
{
    struct workers *ws = arg;
    for (;;) {
        while (sem_wait(&ws->wanted) < 0)
            ;
        struct work *w = next_work(ws);
        if (!w)
            return NULL; /* there are as many posts as jobs, and at the end one for each thread */
        w->job->work(w->job);
        push(&ws->done, w);
        (void)uv_async_send(&ws->async);
    }
}

static void start_thread(struct workers *ws)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old); /* signals are the loop's */
    if (pthread_create(&ws->threads[ws->n_threads], NULL, run, ws) == 0)
        ws->n_threads++;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

/* ---- the loop's ---- */

static void end_threads(struct workers *ws)
{
    for (uint32_t i = 0; i < ws->n_threads; i++)
        (void)sem_post(&ws->wanted);
    for (uint32_t i = 0; i < ws->n_threads; i++)
        (void)pthread_join(ws->threads[i], NULL);
    uv_close((uv_handle_t *)&ws->async, NULL);
}

static void on_done(uv_async_t *async)
{
    struct workers *ws = async->data;
    struct work *w = take_all(&ws->done), *next;
    if (!w)
        return;
    for (; w; w = next) {
        struct job *job = w->job;
        next = w->next;
        free(w);
        ws->n_under_way--;
        core_job_done(server_core(ws->server), job, server_now_ns(ws->server));
    }
    server_touch(ws->server);
    if (ws->is_stopping && ws->n_under_way == 0)
        end_threads(ws);
}

int workers_new(struct workers **ret_workers, struct server *server)
{
    struct workers *ws = calloc(1, sizeof(*ws));
    if (!ws)
        return -ENOMEM;
    ws->server = server;
    int r = uv_async_init(server_loop(server), &ws->async, on_done);
    if (r < 0) {
        free(ws);
        return r;
    }
    ws->async.data = ws;
    (void)sem_init(&ws->wanted, 0, 0);
    pthread_mutex_init(&ws->mutex, NULL);
    *ret_workers = ws;
    return 0;
}

void workers_submit(struct workers *ws, struct job *job)
{
    struct work *w = malloc(sizeof(*w));
    acre_assert(
        w !=
        NULL); /* a death that is not reaped, an answer that never comes: better to begin anew */
    w->job = job;
    if (++ws->n_under_way > ws->n_threads && ws->n_threads < THREADS_MAX)
        start_thread(ws);
    acre_assert(ws->n_threads > 0); /* as above */
    push(&ws->submitted, w);
    (void)sem_post(&ws->wanted);
}

void workers_stop(struct workers *ws)
{
    ws->is_stopping = true;
    if (ws->n_under_way == 0)
        end_threads(ws);
}

void workers_free(struct workers *ws)
{
    acre_assert(ws->n_under_way == 0);
    (void)sem_destroy(&ws->wanted);
    pthread_mutex_destroy(&ws->mutex);
    free(ws);
}
