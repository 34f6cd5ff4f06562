/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop around the core. A turn takes what the peers have sent (at most 16 packets each, and of
 * a user's no more once they have taken 2 ms: what is left is still there in the next turn), the
 * jobs that are done and the bells that have rung; before it sleeps again, on_prepare() sets the
 * timers from what the core says is due.
 *
 * DESCRIPTORS. A peer costs its socket, a client its life page and a pidfd; a client can outlive
 * its peer: hung up and still mapped, it costs its descriptors all the same. There may be as many
 * of the one as of the other, a third of all descriptors but the reserve, which is for segments and
 * for what is on its way (20,000 descriptors: 6,325 clients). New peers wait in the backlog while
 * there are too many, what is still being closed among them; who would attach is refused. No user
 * but root and the daemon's own may have more than half of the peers, or of the life pages. All else
 * that a peer sends is closed by a thread; its user is not heard while that has too many. What a
 * peer is sent is not kept for it.
 */
#include "daemon/server.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <uv.h>

#include "daemon/closer.h"
#include "daemon/dispatch.h"
#include "daemon/keeper.h"
#include "daemon/log.h"
#include "daemon/peer.h"
#include "daemon/reaper.h"
#include "daemon/reload.h"
#include "daemon/worker.h"
#include "proto/wire.h"

#define ACCEPTS_PER_TURN   64
#define USER_TURN_NS       2000000u
#define ACCEPT_PAUSE_MS    100
#define NOFILE_WANTED      65536u
#define NOFILE_RESERVE_MAX 1024u
#define FDS_PER_PEER       1u
#define FDS_PER_CLIENT     2u

/* What a user's connections have cost in this turn. */
struct user_turn {
    uint64_t turn, spent_ns;
};

struct server {
    struct core core;
    uv_loop_t loop;
    uv_poll_t listener, bells;
    uv_signal_t sigterm, sigint, sighup;
    uv_timer_t deadline, idle, accept_pause;
    uv_prepare_t prepare;
    struct peer_list peers;
    struct closer *closer;
    struct workers *workers;
    const struct store *store;
    int listen_fd;
    uint32_t n_peers, n_peers_max, n_fds_max;
    uint64_t idle_ns;
    bool is_touched, is_accepting, is_idling, is_stopping;
    uint64_t turn;
    struct user_turn users[64];
};

/* ---- what the others ask ---- */

struct core *server_core(struct server *server)
{
    return &server->core;
}

struct uv_loop_s *server_loop(struct server *server)
{
    return &server->loop;
}

uint64_t server_now_ns(struct server *server)
{
    (void)server;
    return wire_now_ns();
}

void server_touch(struct server *server)
{
    server->is_touched = true;
}

/* ---- whose turn it is ---- */

/* libuv polls up to 48 times before it comes back if there is much to read: who is met again is met
 * in another turn. */
void server_meet(struct server *server, uint64_t *turn)
{
    server->turn += *turn == server->turn;
    *turn = server->turn;
}

/* Users whose ids agree in the last bits share what is left of a turn, too. */
static struct user_turn *turn_of(struct server *s, uid_t uid)
{
    struct user_turn *t = &s->users[uid % ARRAY_LEN(s->users)];
    if (t->turn != s->turn)
        *t = (struct user_turn){.turn = s->turn};
    return t;
}

bool server_has_turn(struct server *server, uid_t uid)
{
    return turn_of(server, uid)->spent_ns < USER_TURN_NS;
}

void server_spend(struct server *server, uid_t uid, uint64_t ns)
{
    turn_of(server, uid)->spent_ns += ns;
}

bool server_is_clogged(struct server *server, uid_t uid)
{
    return closer_n_all(server->closer) > 0 &&
           closer_n_foreign(server->closer, uid) >= server->n_fds_max / 64;
}

static void submit(void *server, struct job *job)
{
    workers_submit(((struct server *)server)->workers, job);
}

void server_close_foreign(void *server, int fd, uid_t uid)
{
    closer_close(((struct server *)server)->closer, fd, uid, false);
}

void server_close_connection(struct server *server, int sock, uid_t uid)
{
    (void)shutdown(sock, SHUT_RDWR); /* the closer may come to it late */
    closer_close(server->closer, sock, uid, true);
}

static int keep(void *server, const char *name, int fd)
{
    return store_put(((struct server *)server)->store, name, fd);
}

static void drop(void *server, const char *name)
{
    store_drop(((struct server *)server)->store, name);
}

/* ---- accepting ---- */

static bool has_room(const struct server *s)
{
    return s->n_peers + closer_n_all(s->closer) < s->n_peers_max;
}

static bool user_has_room(struct server *s, uid_t uid)
{
    if (server_is_clogged(s, uid))
        return false;
    return uid == 0 || uid == geteuid() || s->n_peers < s->n_peers_max / 2 ||
           user_count(&s->core.users, uid, USER_PEERS) < s->n_peers_max / 2;
}

static void accept_one(struct server *s, int sock)
{
    struct ucred u = {.uid = NOBODY_UID};
    socklen_t n = sizeof(u);
    int r = getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &u, &n) < 0 ? -errno : 0;
    if (r < 0 || !user_has_room(s, u.uid)) {
        server_close_connection(s, sock, u.uid);
        return;
    }
    r = peer_new(s, &s->peers, sock);
    if (r < 0)
        log_line(LOG_WARNING, "cannot serve a connection: %s", strerror(-r));
    else
        s->n_peers++;
}

static void on_listener(uv_poll_t *poll, int status, int events);

static void set_accepting(struct server *s, bool on)
{
    if (on == s->is_accepting || s->is_stopping)
        return;
    s->is_accepting = on;
    if (on)
        (void)uv_poll_start(&s->listener, UV_READABLE, on_listener);
    else
        (void)uv_poll_stop(&s->listener);
}

static void on_accept_pause(uv_timer_t *timer)
{
    set_accepting(timer->data, true);
}

static void on_listener(uv_poll_t *poll, int status, int events)
{
    struct server *s = poll->data;
    (void)status;
    (void)events;
    for (int i = 0; i < ACCEPTS_PER_TURN && has_room(s); i++) {
        int sock = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (sock >= 0) {
            accept_one(s, sock);
            continue;
        }
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            log_line(LOG_WARNING, "cannot accept a connection: %s", strerror(errno));
            set_accepting(s, false);
            (void)uv_timer_start(&s->accept_pause, on_accept_pause, ACCEPT_PAUSE_MS, 0);
        }
        break;
    }
    server_touch(s);
}

void server_peer_gone(struct server *s, uid_t uid)
{
    acre_assert(s->n_peers > 0);
    user_drop(&s->core.users, uid, USER_PEERS);
    s->n_peers--;
    server_touch(s);
}

/* ---- stopping ---- */

static void close_handle(uv_handle_t *handle, void *arg)
{
    const struct server *s = arg;
    (void)s;
    /* Peers and workers close themselves; what is left here is the server's own. */
    if (!uv_is_closing(handle) && handle->type != UV_ASYNC)
        uv_close(handle, NULL);
}

static void stop(struct server *s)
{
    struct peer *p, *next;
    if (s->is_stopping)
        return;
    s->is_stopping = true;
    s->core.is_stopping = true;
    for (p = LIST_FIRST(&s->peers); p; p = next) {
        next = peer_next(p);
        peer_close(p);
    }
    uv_walk(&s->loop, close_handle, s);
    workers_stop(s->workers); /* the loop ends when the jobs are done */
}

static void on_signal(uv_signal_t *signal, int number)
{
    log_line(LOG_NOTICE, "stopping on %s", strsignal(number));
    stop(signal->data);
}

static void on_hangup(uv_signal_t *signal, int number)
{
    struct server *s = signal->data;
    (void)number;
    log_line(LOG_NOTICE, "SIGHUP has the configuration read again");
    reload_again(&s->core);
    server_touch(s);
}

/* Somebody may have come since the timer was set, or in this very moment: timers run before the
 * loop looks at the listener. */
static void on_idle(uv_timer_t *timer)
{
    struct server *s = timer->data;
    on_listener(&s->listener, 0, UV_READABLE);
    if (s->n_peers > 0 || s->core.n_clients > 0) {
        s->is_idling = false;
        return;
    }
    uint64_t published_bytes = core_published_bytes(&s->core);
    log_line(LOG_NOTICE, "leaving after %llu s without a client; %llu published bytes go with it",
             (unsigned long long)(s->idle_ns / 1000000000u), (unsigned long long)published_bytes);
    stop(s);
}

/* ---- time ---- */

static void on_deadline(uv_timer_t *timer)
{
    struct server *s = timer->data;
    core_tick(&s->core, server_now_ns(s));
    server_touch(s);
}

static void set_idle(struct server *s)
{
    bool idle = s->idle_ns > 0 && s->n_peers == 0 && s->core.n_clients == 0;
    if (idle == s->is_idling)
        return;
    s->is_idling = idle;
    if (idle)
        (void)uv_timer_start(&s->idle, on_idle, s->idle_ns / 1000000u, 0);
    else
        (void)uv_timer_stop(&s->idle);
}

static void set_deadline(struct server *s)
{
    uint64_t deadline_ns = core_deadline(&s->core), now_ns = server_now_ns(s);
    if (deadline_ns == UINT64_MAX) {
        (void)uv_timer_stop(&s->deadline);
        return;
    }
    uint64_t wait_ms = deadline_ns > now_ns ? (deadline_ns - now_ns) / 1000000u + 1 : 1;
    (void)uv_timer_start(&s->deadline, on_deadline, wait_ms, 0);
}

static void on_prepare(uv_prepare_t *prepare)
{
    struct server *s = prepare->data;
    s->turn++;
    if (s->core.makes_room)
        _exit(KEEPER_EXIT_AGAIN); /* a death like any other: nothing is tidied */
    if (!s->is_touched || s->is_stopping)
        return;
    s->is_touched = false;
    uv_update_time(&s->loop);
    set_deadline(s);
    set_idle(s);
    if (uv_is_active((uv_handle_t *)&s->accept_pause))
        return;
    set_accepting(s, has_room(s));
    if (!s->is_accepting && closer_n_all(s->closer) > 0) /* which does not tell when it is done */
        (void)uv_timer_start(&s->accept_pause, on_accept_pause, ACCEPT_PAUSE_MS, 0);
}

static void on_bells(uv_poll_t *poll, int status, int events)
{
    struct server *s = poll->data;
    (void)status;
    (void)events;
    reaper_bells(&s->core, server_now_ns(s));
    server_touch(s);
}

/* ---- life ---- */

/* The kernel doubles the table of descriptors when it is full, and if there are threads it waits
 * for all CPUs then: 12 ms of the loop's time seen. So it has its full size from the start. */
static void reserve_fds(int fd, int n)
{
    int last = fcntl(fd, F_DUPFD_CLOEXEC, n - 1);
    close_fd(&last);
}

static void raise_limits(struct server *s)
{
    struct rlimit limit = {.rlim_cur = 1024, .rlim_max = 1024};
    (void)getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = MAX(limit.rlim_cur, MIN(limit.rlim_max, NOFILE_WANTED));
    (void)setrlimit(RLIMIT_NOFILE, &limit);
    uint32_t n = (uint32_t)MIN(limit.rlim_cur, NOFILE_WANTED);
    reserve_fds(s->listen_fd, (int)n);
    s->n_fds_max = n - MIN(NOFILE_RESERVE_MAX, n / 4);
    s->n_peers_max = s->n_fds_max / (FDS_PER_PEER + FDS_PER_CLIENT);
}

static void init_handles(struct server *s)
{
    int r = uv_poll_init(&s->loop, &s->listener, s->listen_fd);
    acre_assert(r == 0);
    r = uv_poll_init(&s->loop, &s->bells, s->core.bell_fd);
    acre_assert(r == 0);
    (void)uv_signal_init(&s->loop, &s->sigterm);
    (void)uv_signal_init(&s->loop, &s->sigint);
    (void)uv_signal_init(&s->loop, &s->sighup);
    (void)uv_timer_init(&s->loop, &s->deadline);
    (void)uv_timer_init(&s->loop, &s->idle);
    (void)uv_timer_init(&s->loop, &s->accept_pause);
    (void)uv_prepare_init(&s->loop, &s->prepare);
    s->listener.data = s->bells.data = s->sigterm.data = s->sigint.data = s->sighup.data = s;
    s->deadline.data = s->idle.data = s->accept_pause.data = s->prepare.data = s;
}

static int init_loop(struct server *s)
{
    int r = uv_loop_init(&s->loop);
    if (r == 0 && (r = workers_new(&s->workers, s)) < 0)
        (void)uv_loop_close(&s->loop);
    return r;
}

/* Nothing is in it but the workers, who have no job. */
static void end_loop(struct server *s)
{
    workers_stop(s->workers);
    (void)uv_run(&s->loop, UV_RUN_DEFAULT);
    (void)uv_loop_close(&s->loop);
    workers_free(s->workers);
}

int server_new(struct server **ret_server, const struct server_options *options)
{
    struct server *s = calloc(1, sizeof(*s));
    if (!s)
        return -ENOMEM;
    struct core_io io = {.ctx = s,
                         .reply = peer_io_reply,
                         .close = peer_io_close,
                         .submit = submit,
                         .close_foreign = server_close_foreign,
                         .open_pidfd = peer_io_open_pidfd,
                         .keep = keep,
                         .drop = drop};
    (void)signal(SIGPIPE, SIG_IGN);
    s->listen_fd = options->listen_fd;
    s->store = options->store;
    s->idle_ns = options->idle_ns;
    LIST_INIT(&s->peers);
    raise_limits(s);
    int r = closer_new(&s->closer);
    if (r < 0) {
        free(s);
        return r;
    }
    r = init_loop(s);
    if (r == 0) {
        r = core_init(&s->core, &io, options->capacity_bytes, options->mode, wire_now_ns());
        if (r < 0)
            end_loop(s);
    }
    if (r < 0) {
        closer_leave(s->closer);
        free(s);
        return r;
    }
    s->core.source = options->source;
    s->core.n_lives_max = s->n_peers_max;
    s->core.n_user_lives_max = s->n_peers_max / 2;
    init_handles(s);
    *ret_server = s;
    return 0;
}

/* What has come since the start (main.c) means that the configuration has changed since it was
 * read. */
static void let_hangups_in(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGHUP);
    (void)pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

int server_run(struct server *s)
{
    int r = uv_signal_start(&s->sigterm, on_signal, SIGTERM);
    if (r == 0)
        r = uv_signal_start(&s->sigint, on_signal, SIGINT);
    if (r == 0)
        r = uv_signal_start(&s->sighup, on_hangup, SIGHUP);
    if (r == 0)
        let_hangups_in();
    if (r == 0)
        r = uv_poll_start(&s->bells, UV_READABLE, on_bells);
    if (r == 0)
        r = uv_prepare_start(&s->prepare, on_prepare);
    if (r < 0)
        return r;
    capacity_watch(&s->core);
    set_accepting(s, true);
    server_touch(s);
    (void)uv_run(&s->loop, UV_RUN_DEFAULT);
    acre_assert(s->is_stopping);
    return 0;
}

void server_free(struct server *s)
{
    if (!s->is_stopping) {
        stop(s);
        (void)uv_run(&s->loop, UV_RUN_DEFAULT);
    }
    int r = uv_loop_close(&s->loop);
    acre_assert(r == 0);
    workers_free(s->workers);
    core_deinit(&s->core);
    closer_leave(s->closer);
    free(s);
}
