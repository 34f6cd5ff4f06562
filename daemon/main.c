/* SPDX-License-Identifier: Apache-2.0 */
/* main.c - acred's command line, and what surrounds its loop: configuration, socket, lock. */
#include <argp.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "daemon/background.h"
#include "daemon/keeper.h"
#include "daemon/log.h"
#include "daemon/reload.h"
#include "daemon/restore.h"
#include "daemon/server.h"
#include "daemon/version.h"
#include "proto/address.h"
#include "proto/wire.h"
#include "shm/segment.h"
#include "proto/bytes.h"

enum { OPT_USER = 256, OPT_BACKGROUND, OPT_IDLE, OPT_CAPACITY, OPT_CHECK };

struct arguments {
    const char *socket;
    struct config_source config;
    bool user, background, check, is_keeper;
    uint64_t idle_s;
    char **argv;
};

const char *argp_program_version = "acred " ACRED_VERSION;

static const struct argp_option options[] = {
    {"socket", 's', "PATH", 0, "Listen at PATH (default " ADDRESS_SYSTEM_PATH ")", 0},
    {"config", 'c', "FILE", 0, "Read FILE (default " RELOAD_DEFAULT ", if it is there)", 0},
    {"user", OPT_USER, NULL, 0, "Serve this user alone, at the user's own socket; one at a time",
     0},
    {"background", OPT_BACKGROUND, NULL, 0,
     "With --user: return once the socket listens, log to acred.log beside it", 0},
    {"idle", OPT_IDLE, "SECONDS", 0,
     "Leave after so long without a client; 0 never (default: with --user $ACRE_IDLE or 60, else "
     "0)",
     0},
    {"capacity", OPT_CAPACITY, "BYTES", 0, "Memory for all tenants, like 4G (default: half)", 0},
    {"check-config", OPT_CHECK, NULL, 0, "Check the configuration and exit", 0},
    {0}};

static bool parse_seconds(const char *arg, uint64_t *ret)
{
    char *end;

    *ret = strtoull(arg, &end, 10);
    return *arg >= '0' && *arg <= '9' && *end == 0 && *ret <= UINT32_MAX;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    switch (key) {
    case 's':
        a->socket = arg;
        break;
    case 'c':
        a->config.path = arg;
        break;
    case OPT_USER:
        a->user = a->config.is_user = true;
        break;
    case OPT_BACKGROUND:
        a->background = true;
        break;
    case OPT_IDLE:
        if (!parse_seconds(arg, &a->idle_s))
            argp_error(state, "--idle takes a number of seconds, not \"%s\"", arg);
        break;
    case OPT_CAPACITY:
        if (bytes_parse(arg, &a->config.capacity_bytes) < 0 ||
            a->config.capacity_bytes < LIMIT_BYTES_MIN || a->config.capacity_bytes > HEAP_BYTES)
            argp_error(state, "--capacity takes 64K to 256G, not \"%s\"", arg);
        break;
    case OPT_CHECK:
        a->check = true;
        break;
    case ARGP_KEY_ARG:
        argp_error(state, "what is \"%s\"?", arg);
        break;
    case ARGP_KEY_END:
        if (a->background && !a->user)
            argp_error(state,
                       "--background goes with --user: service managers want the foreground");
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

/* path with another ending: acred.sock -> acred.lock */
static void beside(const char *path, const char *ending, char *ret, size_t n)
{
    size_t len = strlen(path);

    if (len > 5 && strcmp(path + len - 5, ".sock") == 0)
        len -= 5;
    (void)snprintf(ret, n, "%.*s%s", (int)len, path, ending);
}

/* Beside the socket; of two starters the second finds it taken. Kept until the process ends.
 * -EWOULDBLOCK. */
static int take_lock(const char *socket_path, int *ret_fd)
{
    char path[ADDRESS_BYTES + 8];

    beside(socket_path, ".lock", path, sizeof(path));
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        log_line(LOG_ERROR, "cannot open %s: %s", path, strerror(errno));
        return -errno;
    }
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        int r = -errno;
        (void)close(fd);
        return r;
    }
    *ret_fd = fd;
    return 0;
}

/* ---- running ---- */

/* The worker: what the keeper starts, or a service manager. listen_fd is its own. */
static int serve(const struct arguments *a, struct config *config, const struct store *store,
                 struct store_items *items, int listen_fd)
{
    struct server *server;
    struct server_options o = {.listen_fd = listen_fd,
                               .capacity_bytes = config->capacity_bytes,
                               .mode = a->user ? "user" : "system",
                               .store = store,
                               .idle_ns = a->idle_s * 1000000000u,
                               .source = &a->config};
    int r = server_new(&server, &o);
    if (r == 0) {
        r = reload_apply(server_core(server), config);
        if (r == 0 && restore_all(server_core(server), items) < 0)
            _exit(1); /* tidying up would drop what is kept */
        if (r == 0) {
            store_say(store, "READY=1");
            log_line(LOG_NOTICE, "%s serves %u tenants, capacity %llu MiB", argp_program_version,
                     config->n_tenants, (unsigned long long)(config->capacity_bytes >> 20));
            r = server_run(server);
            store_say(store, "STOPPING=1");
        }
        server_free(server);
    }
    (void)close(listen_fd);
    if (r < 0)
        log_line(LOG_ERROR, "stopped: %s", strerror(-r));
    return r;
}

/* A socket that a service manager has made has any name. */
static int take_listener(struct store_items *items)
{
    int fd = store_take(items, KEEPER_LISTEN);
    for (uint32_t i = 0; i < items->n && fd < 0; i++) {
        int listens = 0;
        socklen_t n = sizeof(listens);
        if (items->all[i].fd >= 0 &&
            getsockopt(items->all[i].fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &n) == 0 && listens)
            fd = store_take(items, items->all[i].name);
    }
    if (fd >= 0)
        (void)fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

/* A service manager that gives no socket gets the one that we make, for the next worker. */
static int make_listener(const struct store *store, const char *path, unsigned mode, int *ret_fd)
{
    int r = wire_listen(path, mode, ret_fd);
    if (r < 0)
        log_line(LOG_ERROR, "cannot listen at %s: %s", path, strerror(-r));
    else if (store && store_put(store, KEEPER_LISTEN, *ret_fd) < 0)
        log_line(LOG_WARNING, "the socket is not kept: nobody can connect while acred restarts");
    return r;
}

static int work(const struct arguments *a, struct config *config, const struct store *store,
                struct store_items *items, const char *path)
{
    int listen_fd = take_listener(items);
    bool made = listen_fd < 0;
    int r = made ? make_listener(store, path, a->user ? 0600 : 0666, &listen_fd) : 0;
    if (r < 0)
        return r;
    r = serve(a, config, store, items, listen_fd);
    if (made)
        (void)unlink(path);
    return r;
}

/* Keeps what workers need; the socket is taken over. */
static int keep_listener(const struct arguments *a, int listen_fd)
{
    int r = keeper_run(a->argv, listen_fd);
    (void)close(listen_fd);
    if (r < 0)
        log_line(LOG_ERROR, "cannot start a worker: %s", strerror(-r));
    return r > 0 ? -EPIPE : r;
}

/* Listens, and keeps: the daemon as it is started by hand. */
static int keep(const struct arguments *a, const char *path, int *ready_fd)
{
    int listen_fd = -1;
    int r = make_listener(NULL, path, a->user ? 0600 : 0666, &listen_fd);
    if (r < 0)
        return r;
    log_line(LOG_NOTICE, "listens at %s", path);
    background_ready(ready_fd);
    r = keep_listener(a, listen_fd);
    (void)unlink(path);
    return r;
}

/* Of two starters the loser leaves without a word, in the background when the winner listens. */
static int leave_to_winner(const char *path, int *ready_fd)
{
    int sock = -1, r = 0;

    if (*ready_fd < 0)
        return 0;
    for (unsigned tries = 0; tries < 500; tries++) {
        r = wire_connect(path, wire_now_ns() + 1000000000u, &sock);
        if (r == 0)
            break;
        (void)usleep(10000);
    }
    close_fd(&sock);
    if (r == 0)
        background_ready(ready_fd);
    return r;
}

static int keep_user(const struct arguments *a, char *path)
{
    char log[ADDRESS_BYTES + 8];
    char text[MSG_TEXT_BYTES];
    int lock_fd = -1, ready_fd = -1, r = a->socket ? 0 : address_user(true, path, text);

    if (r < 0)
        log_line(LOG_ERROR, "%s", text);

    if (r == 0 && a->background) {
        beside(path, ".log", log, sizeof(log));
        r = background_start(log, &ready_fd);
        if (r < 0)
            log_line(LOG_ERROR, "cannot go into the background: %s", strerror(-r));
    }
    if (r == 0)
        r = take_lock(path, &lock_fd);
    if (r == 0)
        r = keep(a, path, &ready_fd);
    else if (r == -EWOULDBLOCK)
        r = leave_to_winner(path, &ready_fd);
    close_fd(&lock_fd);
    close_fd(&ready_fd);
    return r;
}

/* At the usual place, whose directory is made if no service manager has, and goes with us then. */
static int keep_default(const struct arguments *a)
{
    bool made = mkdir(ADDRESS_SYSTEM_DIR, 0755) == 0;
    int no_fd = -1, r = keep(a, ADDRESS_SYSTEM_PATH, &no_fd);

    if (made)
        (void)rmdir(ADDRESS_SYSTEM_DIR);
    return r;
}

/* Who passes a socket need not keep anything. */
static int run_keeper(const struct arguments *a, struct store_items *items)
{
    char path[ADDRESS_BYTES] = "";
    int no_fd = -1;

    if (a->socket)
        strcpy(path, a->socket);
    if (a->user)
        return keep_user(a, path);
    int listen_fd = take_listener(items);
    if (listen_fd >= 0)
        return keep_listener(a, listen_fd);
    return a->socket ? keep(a, path, &no_fd) : keep_default(a);
}

/* What the keeper is silent about the worker says. One that finds more than the socket takes over
 * heaps, and who has what it was promised there does not depend on what fits by now. */
static enum reload_how how_to_read(const struct arguments *a, const struct store_items *items)
{
    if (a->is_keeper)
        return RELOAD_QUIETLY;
    return items->n > 1 ? RELOAD_TO_GO_ON : RELOAD_STRICTLY;
}

static int run(struct arguments *a, const struct store *store, struct store_items *items)
{
    struct config config;
    a->is_keeper = store->sock < 0 && !a->check;
    char text[MSG_TEXT_BYTES];
    int r = reload_read(&a->config, how_to_read(a, items), &config, text);
    if (r < 0)
        log_line(LOG_ERROR, "%s", text);
    if (r == 0 && a->is_keeper)
        r = run_keeper(a, items);
    else if (r == 0 && !a->check)
        r = work(a, &config, store, items, a->socket ? a->socket : ADDRESS_SYSTEM_PATH);
    config_deinit(&config);
    return r;
}

/* Clients map the tables in a segment, which begin on pages of this size (shm/layout.h). */
static bool pages_fit(void)
{
    long bytes = sysconf(_SC_PAGESIZE);

    if (bytes == SEGMENT_PAGE_BYTES)
        return true;
    log_line(LOG_ERROR, "this kernel has pages of %ld bytes: Acre needs pages of %u", bytes,
             SEGMENT_PAGE_BYTES);
    return false;
}

static uint64_t default_idle(const struct arguments *a)
{
    const char *env = getenv("ACRE_IDLE");
    uint64_t idle_s;

    if (!a->user)
        return 0;
    if (!env)
        return 60;
    if (parse_seconds(env, &idle_s))
        return idle_s;
    log_line(LOG_WARNING, "$ACRE_IDLE takes a number of seconds, not \"%s\": 60 is used", env);
    return 60;
}

/* Until the loop runs: it ends nobody, and is not lost. */
static void hold_hangups(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGHUP);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
}

int main(int argc, char **argv)
{
    static const struct argp argp = {
        options, parse, NULL, "The memory daemon of Acre: one heap that many processes share.",
        NULL,    NULL,  NULL};
    struct arguments a = {.idle_s = UINT64_MAX, .argv = argv};
    struct store store;
    struct store_items items;
    hold_hangups();
    argp_err_exit_status = 2;
    (void)argp_parse(&argp, argc, argv, 0, NULL, &a);
    if (!pages_fit())
        return 1;
    if (a.idle_s == UINT64_MAX)
        a.idle_s = default_idle(&a);
    if (a.socket && strlen(a.socket) >= ADDRESS_BYTES) {
        log_line(LOG_ERROR, "the socket's path is too long: %s", a.socket);
        return 1;
    }
    if (a.user)
        (void)unsetenv("NOTIFY_SOCKET"); /* of the service in which its starter runs */
    int r = store_open(&store, &items);
    if (r < 0) {
        log_line(LOG_ERROR, "$LISTEN_FDS, $LISTEN_FDNAMES or $NOTIFY_SOCKET makes no sense: %s",
                 strerror(-r));
        return 1;
    }
    r = run(&a, &store, &items);
    store_items_free(&items);
    store_close(&store);
    return r < 0 ? 1 : 0;
}
