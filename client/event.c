/* SPDX-License-Identifier: Apache-2.0 */
/*
 * event.c - who sleeps in poll() hears that the daemon wants memory back, or that the pressure has
 * changed.
 *
 * MODEL. What there is to hear stands in the control page; a *bell* says when to look. The
 * application polls an epoll instance, made at the first acre_fd(), which holds
 *   the socket   the daemon sends one packet (an event) when event_seq has moved on from what the
 *                bell was armed with. Edge-triggered: of a socket that the application closed, and a
 *                forked child holds, nobody could else put an end to the noise.
 *   a timer      rings at once when another thread's call has taken the event, or the connection
 *                is another; in a second when the daemon is away.
 *   an anchor    a socket that is never readable. Its cookie proves that the number is ours, and
 *                that the epoll instance has it inside proves the same of that one.
 *
 * ORDER. acre_dispatch() takes the edges and the timer's ringing, then all packets, reads event_seq,
 * arms the bell with it, and then looks at the page: what changes later rings.
 *
 * LOCKS. All of it belongs to who holds conn_lock. Nobody waits long for that lock here: who does
 * not get it leaves a note (is_missed), and who leaves the lock rings. So a thread that waits for the
 * daemon neither keeps the application's loop waiting nor lets it spin. (Not waiting at all, a loop
 * beside two threads that call all the time never gets it.) Memory is given back and the callback
 * called without a lock.
 *
 * FORK. The child closes the parent's descriptors, as the socket, and makes its own when asked.
 *
 * A KILL: the daemon forgets a bell with its connection. A new connection is not armed: the timer
 * rings, and acre_dispatch() arms.
 *
 * COST. Three descriptors. Nothing on the fast paths. An event is one request and some ten system
 * calls.
 */
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

#include "client/heap.h"
#include "proto/wire.h"

#define AWAY_NS 1000000000ull /* until a daemon that is away is tried again */
#define HEAR_NS 200000000ull  /* for one that is just coming back */
#define CALL_NS 2000000ull    /* other threads' calls are mostly done by then */

static_assert((int)ACRE_PRESSURE_NONE == (int)PRESSURE_NONE, "levels");
static_assert((int)ACRE_PRESSURE_HIGH == (int)PRESSURE_HIGH, "levels");
static_assert((int)ACRE_PRESSURE_SHARE == (int)PRESSURE_SHARE, "levels");
static_assert((int)ACRE_PRESSURE_MAX == (int)PRESSURE_MAX, "levels");

/* ---- the bell ---- */

static bool has_inside(const struct bell *bell, int fd, uint32_t events)
{
    struct epoll_event event = {.events = events};

    return epoll_ctl(bell->epoll, EPOLL_CTL_MOD, fd, &event) == 0;
}

/* Applications close descriptors that they do not know. */
static bool is_ours(const struct bell *bell)
{
    return bell->epoll > 0 && sock_cookie(bell->anchor) == bell->anchor_cookie &&
           has_inside(bell, bell->anchor, 0) && has_inside(bell, bell->timer, EPOLLIN);
}

static void bell_close(struct bell *bell)
{
    int saved_errno = errno;

    if (is_ours(bell)) {
        close(bell->epoll);
        close(bell->timer);
        close(bell->anchor);
    }
    *bell = (struct bell){0};
    errno = saved_errno;
}

static int bell_fill(struct bell *bell)
{
    struct epoll_event silent = {.events = 0}, timer = {.events = EPOLLIN};

    bell->anchor = fd_raise(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    bell->timer = fd_raise(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
    bell->epoll = fd_raise(epoll_create1(EPOLL_CLOEXEC));
    bell->anchor_cookie = sock_cookie(bell->anchor);
    if (bell->anchor < 0 || bell->timer < 0 || bell->epoll < 0)
        return fail(EMFILE, "no descriptors left for acre_fd()");
    if (epoll_ctl(bell->epoll, EPOLL_CTL_ADD, bell->anchor, &silent) < 0 ||
        epoll_ctl(bell->epoll, EPOLL_CTL_ADD, bell->timer, &timer) < 0)
        return fail(ENOMEM, "no memory for acre_fd()");
    return 0;
}

static int bell_make(struct bell *ret_bell)
{
    struct bell bell = {.epoll = -1, .timer = -1, .anchor = -1};
    int r = bell_fill(&bell);

    if (r < 0) {
        close_fd(&bell.epoll);
        close_fd(&bell.timer);
        close_fd(&bell.anchor);
        return r;
    }
    *ret_bell = bell;
    return 0;
}

static void ring(struct acre_heap *heap, uint64_t in_ns)
{
    struct itimerspec at = {.it_value = {.tv_sec = (time_t)(in_ns / 1000000000),
                                         .tv_nsec = (long)(in_ns % 1000000000)}};
    int saved_errno = errno;

    if (is_ours(&heap->bell))
        (void)timerfd_settime(heap->bell.timer, 0, &at, NULL);
    errno = saved_errno;
}

/* No lock held: other threads may take the same, and then there is nothing to take. */
static void take_ringing(const struct bell *bell)
{
    const struct itimerspec never = {0};
    struct epoll_event edges[4];

    if (!is_ours(bell))
        return;
    (void)epoll_wait(bell->epoll, edges, ARRAY_LEN(edges), 0);
    (void)timerfd_settime(bell->timer, 0, &never, NULL);
}

/* ---- what conn_lock's holders do to it ---- */

static void listen_to_sock(struct acre_heap *heap)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLET};
    struct event *e = &heap->process->event;
    int saved_errno = errno;

    if (!e->is_listening && is_ours(&heap->bell))
        e->is_listening =
            epoll_ctl(heap->bell.epoll, EPOLL_CTL_ADD, heap->process->sock, &event) == 0 ||
            errno == EEXIST;
    errno = saved_errno;
}

void event_forget_sock(struct acre_heap *heap)
{
    struct event *e = &heap->process->event;
    int saved_errno = errno;

    if (e->is_listening && is_ours(&heap->bell))
        (void)epoll_ctl(heap->bell.epoll, EPOLL_CTL_DEL, heap->process->sock, NULL);
    e->is_listening = e->is_armed = false;
    e->is_wanted = e->is_made;
    errno = saved_errno;
}

void event_heard(struct acre_heap *heap)
{
    heap->process->event.is_armed = false;
    heap->process->event.is_wanted = true;
}

void event_leaving(struct acre_heap *heap)
{
    struct event *e = &heap->process->event;
    bool is_missed = event_is_missed(heap) && atomic_exchange(&e->is_missed, false);

    if (!is_missed && !e->is_wanted)
        return;
    e->is_wanted = false;
    if (e->is_made)
        ring(heap, 1);
}

void event_drop_inherited(struct acre_heap *heap)
{
    if (!heap->process->event.is_made && heap->bell.epoll > 0)
        bell_close(&heap->bell);
}

void event_close(struct acre_heap *heap)
{
    bell_close(&heap->bell);
    heap->process->event.is_made = false;
}

/* ---- the descriptor ---- */

/* conn_lock held. */
static int make(struct acre_heap *heap)
{
    struct event *e = &heap->process->event;

    if (e->is_made && is_ours(&heap->bell))
        return heap->bell.epoll;
    e->is_made = e->is_listening = e->is_armed = false;
    int r = bell_make(&heap->bell);
    if (r < 0)
        return r;
    if (sock_is_ours(heap->process))
        listen_to_sock(heap);
    e->pressure_seen = __atomic_load_n(&heap->control->header.pressure_seq, __ATOMIC_ACQUIRE);
    e->is_made = e->is_wanted = true; /* to be armed */
    return heap->bell.epoll;
}

int acre_fd(struct acre_heap *heap)
{
    int saved_errno = errno, r = attach_ensure(heap);

    if (r == 0)
        r = conn_enter(heap);
    if (r < 0)
        return r;
    r = make(heap);
    conn_leave(heap);
    errno = saved_errno;
    return r;
}

/* ---- pressure ---- */

static void read_pressure(const struct acre_heap *heap, struct acre_pressure *ret)
{
    const struct control_header *h = &heap->control->header;

    ret->size = sizeof(*ret);
    ret->level = (enum acre_pressure_level)__atomic_load_n(&h->pressure, __ATOMIC_RELAXED);
    ret->over_bytes = __atomic_load_n(&h->over_bytes, __ATOMIC_RELAXED);
    ret->high_bytes = __atomic_load_n(&h->high_bytes, __ATOMIC_RELAXED);
    ret->max_bytes = __atomic_load_n(&h->max_bytes, __ATOMIC_RELAXED);
    ret->used_bytes = __atomic_load_n(&h->sealed_bytes, __ATOMIC_RELAXED);
}

int acre_pressure_now(struct acre_heap *heap, struct acre_pressure *ret_pressure)
{
    if (!ret_pressure || ret_pressure->size < sizeof(*ret_pressure))
        return fail(EINVAL, "acre_pressure.size is not %zu", sizeof(*ret_pressure));
    read_pressure(heap, ret_pressure);
    return 0;
}

int acre_on_pressure(struct acre_heap *heap, acre_pressure_fn fn, void *ctx)
{
    struct event *e = &heap->process->event;
    int saved_errno = errno, r = heap->is_read_only ? fail_read_only(heap) : conn_enter(heap);

    if (r < 0)
        return r;
    e->fn = fn;
    e->ctx = ctx;
    read_pressure(heap, &e->told);
    e->told.level = ACRE_PRESSURE_NONE; /* nobody has told it of another */
    e->told.over_bytes = 0;
    e->is_wanted = true;
    conn_leave(heap);
    errno = saved_errno;
    return 0;
}

/* For the callback, once there is no lock. */
struct news {
    acre_pressure_fn fn; /* NULL: none */
    void *ctx;
    struct acre_pressure pressure;
};

static void look_at_pressure(struct acre_heap *heap, struct news *ret_news)
{
    struct event *e = &heap->process->event;
    struct acre_pressure now;

    read_pressure(heap, &now);
    if (!e->fn || (now.level == e->told.level && now.over_bytes == e->told.over_bytes &&
                   now.high_bytes == e->told.high_bytes && now.max_bytes == e->told.max_bytes))
        return;
    e->told = now;
    *ret_news = (struct news){e->fn, e->ctx, now};
}

/* ---- dispatch ---- */

static int arm(struct acre_heap *heap)
{
    struct msg_request req = {.op = MSG_WATCH};
    struct msg_reply reply;

    req.watch.seen = __atomic_load_n(&heap->control->header.event_seq, __ATOMIC_ACQUIRE);
    int r = conn_call(heap, &req, -1, &reply, NULL);
    heap->process->event.is_armed = r == 0;
    return r;
}

/* conn_lock held. */
static int hear_locked(struct acre_heap *heap, struct news *ret_news)
{
    struct process *p = heap->process;
    struct event *e = &p->event;

    atomic_store(&e->is_missed, false);
    p->deadline_ns = MIN(p->deadline_ns, wire_now_ns() + HEAR_NS);
    int r = conn_reach(heap);
    if (r == 0 && e->is_made && !e->is_listening)
        listen_to_sock(heap);
    if (r == 0 && e->is_made && !e->is_armed)
        r = arm(heap);
    look_at_pressure(heap, ret_news);
    e->is_wanted = false;
    if (e->is_made && (r < 0 || !e->is_listening))
        ring(heap, AWAY_NS);
    return r;
}

/* False: another thread has conn_lock, and rings when it leaves it. */
static bool enter_or_note(struct acre_heap *heap)
{
    if (conn_try(heap, CALL_NS))
        return true;
    atomic_store(&heap->process->event.is_missed, true);
    return conn_try(heap, 0); /* it had left before it could see that */
}

static int hear(struct acre_heap *heap, struct news *ret_news)
{
    if (!enter_or_note(heap))
        return 0;
    int r = hear_locked(heap, ret_news);
    conn_leave(heap);
    return r;
}

static bool has_to_let_go(const struct acre_heap *heap)
{
    return __atomic_load_n(&heap->control->header.retire_seq, __ATOMIC_RELAXED) !=
           atomic_load(&heap->process->retire_seen);
}

/* As heed(), in a thread that may have no cache. True: something was asked for. */
static bool give_back(struct acre_heap *heap)
{
    struct event *e = &heap->process->event;
    uint32_t seq = __atomic_load_n(&heap->control->header.pressure_seq, __ATOMIC_ACQUIRE);
    bool is_pressed = atomic_exchange(&e->pressure_seen, seq) != seq, lets_go;

    if (is_pressed)
        pressure_yield(heap, cache_here(heap));
    lets_go = has_to_let_go(heap);
    if (lets_go)
        retire_look(heap);
    if (has_to_let_go(heap) && enter_or_note(heap)) { /* another thread had the lock */
        e->is_wanted = true;
        conn_leave(heap);
    }
    return is_pressed || lets_go;
}

/* What it frees is for others at once: this thread may sleep from now on. */
static void call(struct acre_heap *heap, const struct news *news)
{
    news->fn(heap, &news->pressure, news->ctx);
    if (news->pressure.level == ACRE_PRESSURE_NONE)
        return;
    pressure_yield(heap, cache_here(heap));
    if (has_to_let_go(heap))
        retire_look(heap);
}

int acre_dispatch(struct acre_heap *heap)
{
    struct news news = {0};
    int saved_errno = errno, r;
    bool any = false;

    if (heap->is_read_only)
        return fail_read_only(heap);
    if (self_id(heap) == 0) /* a forked child that has not attached */
        return 0;
    if (heap->process->event.is_made)
        take_ringing(&heap->bell);
    r = hear(heap, &news);
    if (r == 0)
        any = give_back(heap);
    if (news.fn)
        call(heap, &news);
    errno = saved_errno;
    return r < 0 ? r : any || news.fn;
}
