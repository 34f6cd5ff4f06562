/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attach.c - this process as a client of the daemon: attach, call, come back, leave.
 *
 * MODEL. `process->client` is 0 until the daemon has given this process an id; all of struct
 * process is zero again after a fork, so a child attaches anew on its first slow path. The
 * connection is only a telephone: losing it does not end the client (the life page does), and the
 * same client comes back on a new one with its handle and the secret in its life page.
 *
 * READ-ONLY heaps have the telephone alone: no client, no life page. They look (acre.proto).
 *
 * THE SOCKET MAY NOT BE OURS. Applications close descriptors that they do not know, and the number
 * is then somebody else's. Before each request the socket's kernel cookie is compared; a stranger's
 * descriptor is neither used nor closed.
 *
 * CONN_LOCK is held while a thread waits for the daemon. Who waits for the lock does so within its
 * own deadline, and who holds it cannot be cancelled: poll() and the like would end the thread with
 * the lock held.
 *
 * A KILL anywhere: the daemon learns of it from the socket or the pidfd and asks the life page.
 * Killed before the attach's reply is read: the daemon has a client that owns nothing.
 */
#include <fcntl.h>
#include <linux/membarrier.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>

#include "client/heap.h"
#include "proto/wire.h"

#define RECONNECT_WAIT_NS 20000000

uint64_t sock_cookie(int sock)
{
    uint64_t cookie = 0;
    socklen_t n = sizeof(cookie);

    return getsockopt(sock, SOL_SOCKET, SO_COOKIE, &cookie, &n) == 0 ? cookie : 0;
}

bool sock_is_ours(const struct process *p)
{
    return p->sock > 0 && sock_cookie(p->sock) == p->sock_cookie;
}

int fd_raise(int fd)
{
    if (fd > 2 || fd < 0)
        return fd;
    int raised = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    close(fd);
    return raised;
}

static void sock_adopt(struct acre_heap *heap, int sock)
{
    event_forget_sock(heap);
    heap->process->sock = heap->inherited_sock = sock;
    heap->process->sock_cookie = heap->inherited_cookie = sock_cookie(sock);
}

static void sock_drop(struct acre_heap *heap)
{
    event_forget_sock(heap);
    if (sock_is_ours(heap->process))
        close(heap->process->sock);
    heap->process->sock = 0;
    heap->inherited_sock = -1;
}

void attach_drop_inherited(struct acre_heap *heap)
{
    if (heap->inherited_sock > 0 && sock_cookie(heap->inherited_sock) == heap->inherited_cookie)
        close(heap->inherited_sock);
    heap->inherited_sock = -1;
}

/* Several grants in a row are mostly one run. */
static bool late_extend(struct process *p, const struct msg_run *run)
{
    for (uint32_t i = 0; i < p->n_late; i++) {
        struct msg_run *late = &p->late[i];
        if (late->off + late->n_units * UNIT_BYTES == run->off &&
            late->off >> SLOT_SHIFT == run->off >> SLOT_SHIFT) {
            late->n_units += run->n_units;
            return true;
        }
    }
    return false;
}

/* What comes without a call, or too late for it. A grant is ours all the same. */
static void stale_reply(void *ctx, const struct msg_reply *reply)
{
    struct process *p = ((struct acre_heap *)ctx)->process;

    if (reply->serial == 0)
        event_heard(ctx);
    else if (reply->error == 0 && reply->op == MSG_GROW && !reply->grow.slab &&
             !late_extend(p, &reply->grow.run) && p->n_late < ARRAY_LEN(p->late))
        p->late[p->n_late++] = reply->grow.run;
}

static int call_on(struct acre_heap *heap, int sock, uint64_t deadline_ns,
                   const struct msg_request *req, int fd, struct msg_reply *ret_reply, int *ret_fd)
{
    struct wire_call call = {
        .sock = sock, .deadline_ns = deadline_ns, .stale = stale_reply, .ctx = heap};
    struct msg_request numbered = *req;
    int unwanted_fd = -1, r;

    numbered.serial = ++heap->process->call_serial;
    r = wire_call(&call, &numbered, fd, ret_reply, ret_fd ? ret_fd : &unwanted_fd);
    close_fd(&unwanted_fd);
    return r;
}

static uint64_t deadline_from_now(const struct acre_heap *heap)
{
    return wire_now_ns() + (uint64_t)heap->deadline_ms * 1000000;
}

static int lock_until(pthread_mutex_t *lock, uint64_t deadline_ns)
{
    struct timespec until = {.tv_sec = (time_t)(deadline_ns / 1000000000),
                             .tv_nsec = (long)(deadline_ns % 1000000000)};

#ifdef __SANITIZE_THREAD__
    (void)until; /* it does not know pthread_mutex_clocklock() */
    return pthread_mutex_lock(lock);
#else
    return pthread_mutex_clocklock(lock, CLOCK_MONOTONIC, &until);
#endif
}

/* False: another thread has it, for as long as the caller waits; 0: it does not wait. */
static bool enter(struct acre_heap *heap, uint64_t deadline_ns, uint64_t wait_until_ns)
{
    struct process *p = heap->process;
    int cancel_state;

    (void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
    int r = wait_until_ns > 0 ? lock_until(&p->conn_lock, wait_until_ns)
                              : pthread_mutex_trylock(&p->conn_lock);
    if (r != 0) {
        (void)pthread_setcancelstate(cancel_state, NULL);
        return false;
    }
    p->cancel_state = cancel_state;
    p->deadline_ns = deadline_ns;
    return true;
}

int conn_enter(struct acre_heap *heap)
{
    uint64_t deadline_ns = deadline_from_now(heap);

    if (enter(heap, deadline_ns, deadline_ns))
        return 0;
    return fail(ETIMEDOUT, "other threads waited for the daemon at %s for %d ms", heap->address,
                heap->deadline_ms);
}

bool conn_try(struct acre_heap *heap, uint64_t wait_ns)
{
    return enter(heap, deadline_from_now(heap), wait_ns > 0 ? wire_now_ns() + wait_ns : 0);
}

void conn_leave(struct acre_heap *heap)
{
    int cancel_state = heap->process->cancel_state;

    do {
        event_leaving(heap);
        pthread_mutex_unlock(&heap->process->conn_lock);
    } while (event_is_missed(heap) && pthread_mutex_trylock(&heap->process->conn_lock) == 0);
    (void)pthread_setcancelstate(cancel_state, NULL);
}

static bool wait_a_little(uint64_t deadline_ns)
{
    struct timespec pause = {.tv_nsec = RECONNECT_WAIT_NS};

    if (wire_now_ns() + RECONNECT_WAIT_NS >= deadline_ns)
        return false;
    nanosleep(&pause, NULL);
    return true;
}

static int connect_daemon(struct acre_heap *heap, uint64_t deadline_ns, int *ret_sock)
{
    char text[MSG_TEXT_BYTES] = "";
    int r = wire_hello(heap->address, deadline_ns, ret_sock, text);

    if (r < 0)
        return fail(-r, "%s: %s%s%s", heap->address, acre_strerror(r), text[0] ? ": " : "", text);
    *ret_sock = fd_raise(*ret_sock);
    return *ret_sock < 0 ? fail(EMFILE, "no descriptor left for the daemon's socket") : 0;
}

/* The sentence for a failed call; passes the error on. */
static int call_failed(const struct acre_heap *heap, int r, const struct msg_reply *reply)
{
    if (r == 0)
        return reply->error ? fail(-reply->error, "%s",
                                   reply->text[0] ? reply->text : acre_strerror(reply->error))
                            : 0;
    if (r == -ETIMEDOUT)
        return fail(ETIMEDOUT, "the daemon at %s did not answer within %d ms", heap->address,
                    heap->deadline_ms);
    if (r == -ECONNRESET || r == -EPIPE)
        return fail(ECONNREFUSED, "the daemon at %s went away during the call", heap->address);
    return fail(-r, "%s: %s", heap->address, acre_strerror(r));
}

/* ---- first attach ---- */

/* The control page: mapped once, inherited by children (read-only). */
static int control_accept(struct acre_heap *heap, int fd, uint64_t heap_id)
{
    const char *why = "no descriptor came along";

    if (heap->control)
        return heap->heap_id == heap_id
                   ? 0
                   : fail(ENOENT, "tenant %s was dropped: its heap is another one now",
                          heap->tenant);
    int r = fd < 0 ? -EPROTO : control_map(fd, &heap->control, &why);
    if (r < 0)
        return fail(-r, "the daemon's control page is not valid: %s", why);
    if (heap->control->header.heap_id != heap_id)
        return fail(EPROTO, "the daemon's control page is of another heap");
    heap->heap_id = heap_id;
    return 0;
}

/* The first request on a new connection. -ECONNRESET: the daemon went away meanwhile. */
static int first_call(struct acre_heap *heap, int sock, uint64_t deadline_ns,
                      const struct msg_request *req, int fd, struct msg_reply *ret_reply,
                      int *ret_fd)
{
    int r = call_on(heap, sock, deadline_ns, req, fd, ret_reply, ret_fd);
    bool broke = r == -ECONNRESET || r == -EPIPE;

    r = call_failed(heap, r, ret_reply);
    return broke ? -ECONNRESET : r;
}

static int attach_on(struct acre_heap *heap, int sock, uint64_t deadline_ns, int life_fd)
{
    struct msg_request req = {.op = MSG_ATTACH};
    struct msg_reply reply;
    CLEANUP_FD int fd = -1;

    memcpy(req.attach.tenant, heap->tenant, sizeof(heap->tenant));
    memcpy(req.attach.name, heap->name, sizeof(heap->name));
    int r = first_call(heap, sock, deadline_ns, &req, life_fd, &reply, &fd);
    if (r == 0)
        r = control_accept(heap, fd, reply.attach.heap_id);
    if (r < 0)
        return r;
    sock_adopt(heap, sock);
    atomic_store_explicit(&heap->process->client, reply.attach.client, memory_order_release);
    PROBE(attach, heap->heap_id, self_id(heap), &heap->tenant[0]);
    return 0;
}

/* What a forked child finds of its parent in memory that is not wiped. */
static void drop_inherited(struct acre_heap *heap)
{
    attach_drop_inherited(heap);
    event_drop_inherited(heap);
    for (unsigned slot = 0; slot < HEAP_SLOTS; slot++) {
        buddy_free(heap->buddies[slot]);
        heap->buddies[slot] = NULL;
    }
}

/* -ECONNRESET: the daemon went away meanwhile. */
static int attach_once(struct acre_heap *heap, uint64_t deadline_ns)
{
    CLEANUP_FD int life_fd = -1;
    int sock = -1, r = connect_daemon(heap, deadline_ns, &sock);

    if (r < 0)
        return r;
    r = life_create(&heap->process->life, &life_fd);
    if (r == 0)
        r = attach_on(heap, sock, deadline_ns, life_fd);
    if (r < 0) {
        life_destroy(heap->process->life);
        heap->process->life = NULL;
        close(sock);
    }
    return r;
}

/* conn_lock held. */
static int attach_locked(struct acre_heap *heap)
{
    uint64_t deadline_ns = heap->process->deadline_ns;
    int r;

    drop_inherited(heap);
    /* The daemon's membarrier() reaches this process: a sweep sees what it has given before. */
    (void)syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0);
    do
        r = attach_once(heap, deadline_ns);
    while (r == -ECONNRESET && wait_a_little(deadline_ns));
    return r == -ECONNRESET ? -ECONNREFUSED : r;
}

/* ---- read-only ---- */

/* -ECONNRESET: the daemon went away meanwhile. */
static int look_once(struct acre_heap *heap, uint64_t deadline_ns)
{
    struct msg_request req = {.op = MSG_LOOK, .look = {.reads = true}};
    struct msg_reply reply;
    CLEANUP_FD int fd = -1;
    int sock = -1, r = connect_daemon(heap, deadline_ns, &sock);

    if (r < 0)
        return r;
    memcpy(req.look.tenant, heap->tenant, sizeof(heap->tenant));
    r = first_call(heap, sock, deadline_ns, &req, -1, &reply, &fd);
    if (r == 0)
        r = control_accept(heap, fd, reply.look.heap_id);
    if (r == 0)
        sock_adopt(heap, sock);
    else
        close(sock);
    return r;
}

/* conn_lock held. The first time nobody waits for a daemon that is not there. */
static int look_locked(struct acre_heap *heap, uint64_t deadline_ns)
{
    bool is_first = !heap->control;
    int r;

    if (sock_is_ours(heap->process))
        return 0;
    attach_drop_inherited(heap);
    do
        r = look_once(heap, deadline_ns);
    while ((r == -ECONNRESET || (r == -ECONNREFUSED && !is_first)) && wait_a_little(deadline_ns));
    return r == -ECONNRESET ? -ECONNREFUSED : r;
}

int look_ensure(struct acre_heap *heap)
{
    int saved_errno = errno, r = conn_enter(heap);

    if (r < 0)
        return r;
    r = look_locked(heap, heap->process->deadline_ns);
    conn_leave(heap);
    errno = saved_errno;
    return r;
}

/* ---- either ---- */

int attach_ensure(struct acre_heap *heap)
{
    struct process *p = heap->process;

    if (LIKELY(atomic_load_explicit(&p->client, memory_order_acquire) != 0))
        return 0;
    if (heap->is_read_only)
        return fail_read_only(heap);
    int saved_errno = errno, r = conn_enter(heap);
    if (r < 0)
        return r;
    if (atomic_load(&p->client) == 0)
        r = attach_locked(heap);
    conn_leave(heap);
    errno = saved_errno;
    return r;
}

/* ---- calls ---- */

/* The same client on a new connection. */
static int resume(struct acre_heap *heap, uint64_t deadline_ns)
{
    struct msg_request req = {.op = MSG_ATTACH};
    struct msg_reply reply;
    CLEANUP_FD int fd = -1;
    int sock = -1, r = connect_daemon(heap, deadline_ns, &sock);

    if (r < 0)
        return r;
    memcpy(req.attach.tenant, heap->tenant, sizeof(heap->tenant));
    memcpy(req.attach.name, heap->name, sizeof(heap->name));
    memcpy(req.attach.secret, heap->process->life->secret, sizeof(req.attach.secret));
    req.attach.resume_client = atomic_load(&heap->process->client);
    r = call_on(heap, sock, deadline_ns, &req, -1, &reply, &fd);
    r = call_failed(heap, r, &reply);
    if (r == 0)
        sock_adopt(heap, sock);
    else
        close(sock);
    return r;
}

static int ensure_connected(struct acre_heap *heap, uint64_t deadline_ns)
{
    int r;

    if (heap->is_read_only)
        return look_locked(heap, deadline_ns);
    if (atomic_load(&heap->process->client) == 0)
        return attach_locked(heap);
    if (sock_is_ours(heap->process))
        return 0;
    do
        r = resume(heap, deadline_ns);
    while ((r == -ECONNREFUSED || r == -ECONNRESET) && wait_a_little(deadline_ns));
    return r;
}

int conn_ensure(struct acre_heap *heap)
{
    char byte;

    if (sock_is_ours(heap->process) &&
        recv(heap->process->sock, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0)
        sock_drop(heap); /* the daemon has hung up */
    return ensure_connected(heap, heap->process->deadline_ns);
}

/* False: there is no connection, or no more. */
static bool take_all(struct acre_heap *heap)
{
    struct wire_call call = {.sock = heap->process->sock,
                             .deadline_ns = heap->process->deadline_ns,
                             .stale = stale_reply,
                             .ctx = heap};
    int r = sock_is_ours(heap->process) ? 0 : -ECONNRESET;

    while (r == 0)
        r = wire_take(&call);
    if (r != -EAGAIN)
        sock_drop(heap);
    return r == -EAGAIN;
}

int conn_reach(struct acre_heap *heap)
{
    int saved_errno = errno, r = take_all(heap) ? 0 : resume(heap, heap->process->deadline_ns);

    errno = saved_errno;
    return r == -ECONNRESET ? -ECONNREFUSED : r;
}

/* The connection broke when the daemon had done it perhaps: does its answer now say that it had? Of
 * a root that others have changed since, nobody can tell. */
static bool was_done(struct acre_heap *heap, const struct msg_request *req, int error)
{
    struct msg_request get = *req;
    struct msg_reply reply;

    if (req->op == MSG_RELEASE || req->op == MSG_FREE_LARGE)
        return error == -EINVAL; /* not the caller's any more */
    if (req->op != MSG_ROOT)
        return false;
    if (req->root.op == ROOT_DEL)
        return error == -ENOENT;
    if (req->root.op != ROOT_CAS || (error != -EAGAIN && error != -EEXIST))
        return false;
    get.root.op = ROOT_GET;
    if (call_on(heap, heap->process->sock, heap->process->deadline_ns, &get, -1, &reply, NULL) < 0)
        return false;
    return reply.error == 0 ? reply.root.off == req->root.desired
                            : reply.error == -ENOENT && req->root.desired == 0;
}

int conn_call(struct acre_heap *heap, const struct msg_request *req, int fd,
              struct msg_reply *ret_reply, int *ret_fd)
{
    uint64_t deadline_ns = heap->process->deadline_ns;
    struct msg_request once_more = *req;
    int r, saved_errno = errno;

    PROBE(request__begin, req->op);
    for (bool again = false;; again = true) {
        r = ensure_connected(heap, deadline_ns);
        if (r < 0)
            break;
        if (req->op == MSG_GROW)
            once_more.grow.again = again;
        else if (req->op == MSG_WAIT)
            once_more.wait.again = again;
        r = call_on(heap, heap->process->sock, deadline_ns, &once_more, fd, ret_reply, ret_fd);
        /* After a packet that was not understood the connection is of no use: with a descriptor
         * lost, the daemon would wait for its receipt. */
        if (r < 0 && r != -ETIMEDOUT)
            sock_drop(heap);
        if (r == 0 && again && ret_reply->error != 0 && was_done(heap, req, ret_reply->error))
            break;
        if (r != -ECONNRESET && r != -EPIPE) {
            r = call_failed(heap, r, ret_reply);
            break;
        }
        if (!wait_a_little(deadline_ns)) {
            r = call_failed(heap, -ETIMEDOUT, NULL);
            break;
        }
    }
    PROBE(request__end, req->op, -r);
    errno = saved_errno;
    return r;
}

int heap_call(struct acre_heap *heap, struct msg_request *req, struct msg_reply *ret_reply)
{
    int r = conn_enter(heap);

    if (r < 0)
        return r;
    r = conn_call(heap, req, -1, ret_reply, NULL);
    conn_leave(heap);
    return r;
}

void attach_detach(struct acre_heap *heap)
{
    struct msg_request req = {.op = MSG_DETACH};
    struct msg_reply reply;
    struct process *p = heap->process;

    if (heap->is_read_only)
        sock_drop(heap);
    if (atomic_load(&p->client) == 0)
        return;
    /* From here on this client cannot write: the daemon may believe what it asks the page. */
    life_destroy(p->life);
    p->life = NULL;
    if (sock_is_ours(p))
        (void)call_on(heap, p->sock, deadline_from_now(heap), &req, -1, &reply, NULL);
    sock_drop(heap);
    atomic_store(&p->client, 0);
}
