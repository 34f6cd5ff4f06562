/* SPDX-License-Identifier: Apache-2.0 */
/* main.c - acred's command line, and what surrounds its loop: configuration, socket, lock. */
#include <argp.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "daemon/background.h"
#include "daemon/config.h"
#include "daemon/log.h"
#include "daemon/machine.h"
#include "daemon/server.h"
#include "daemon/version.h"
#include "proto/address.h"
#include "proto/wire.h"

#define DEFAULT_CONFIG "/etc/acre.conf"

enum { OPT_USER = 256, OPT_BACKGROUND, OPT_IDLE, OPT_CAPACITY, OPT_CHECK };

struct arguments {
    const char *socket, *config;
    bool user, background, check;
    uint64_t idle_s, capacity_bytes;
};

const char *argp_program_version = "acred " ACRED_VERSION;

static const struct argp_option options[] = {
    {"socket", 's', "PATH", 0, "Listen at PATH (default " ADDRESS_SYSTEM_PATH ")", 0},
    {"config", 'c', "FILE", 0, "Read FILE (default " DEFAULT_CONFIG ", if it is there)", 0},
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
        a->config = arg;
        break;
    case OPT_USER:
        a->user = true;
        break;
    case OPT_BACKGROUND:
        a->background = true;
        break;
    case OPT_IDLE:
        if (!parse_seconds(arg, &a->idle_s))
            argp_error(state, "--idle takes a number of seconds, not \"%s\"", arg);
        break;
    case OPT_CAPACITY:
        if (config_parse_bytes(arg, &a->capacity_bytes) < 0 ||
            a->capacity_bytes < CONFIG_TENANT_BYTES_MIN || a->capacity_bytes > HEAP_BYTES)
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

static int read_config(const struct arguments *a, struct config *ret)
{
    char text[512];
    const char *path = a->config;
    uint64_t ready_bytes = 0;
    if (!path && !a->user && access(DEFAULT_CONFIG, F_OK) == 0)
        path = DEFAULT_CONFIG;
    *ret = (struct config){0};
    int r = path ? config_read(ret, path, text, sizeof(text)) : 0;
    if (r < 0) {
        log_line(LOG_ERROR, "%s", text);
        return r;
    }
    if (a->capacity_bytes != 0)
        ret->capacity_bytes = a->capacity_bytes;
    r = config_complete(ret, machine_memory_bytes());
    if (ret->asked_bytes > 0)
        log_line(LOG_WARNING,
                 "a capacity of %llu MiB is more than the machine or this cgroup can back: it is "
                 "%llu MiB",
                 (unsigned long long)(ret->asked_bytes >> 20),
                 (unsigned long long)(ret->capacity_bytes >> 20));
    for (uint32_t i = 0; i < ret->n_tenants; i++)
        ready_bytes += ret->tenants[i].wish.ready_bytes;
    if (ready_bytes > ret->capacity_bytes)
        log_line(LOG_WARNING, "the tenants have %llu MiB ready, and the capacity is %llu MiB",
                 (unsigned long long)(ready_bytes >> 20),
                 (unsigned long long)(ret->capacity_bytes >> 20));
    return r;
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

static int add_tenants(struct core *core, struct config *config)
{
    for (uint32_t i = 0; i < config->n_tenants; i++) {
        struct config_tenant *t = &config->tenants[i];
        int r = core_add_tenant(core, t->name, &t->wish, &t->access);
        if (r < 0)
            return r;
    }
    return 0;
}

static int serve(const struct arguments *a, struct config *config, const char *path, int *ready_fd)
{
    struct server *server;
    int listen_fd = -1;
    int r = wire_listen(path, a->user ? 0600 : 0666, &listen_fd);
    if (r < 0) {
        log_line(LOG_ERROR, "cannot listen at %s: %s", path, strerror(-r));
        return r;
    }
    background_ready(ready_fd);
    struct server_options o = {.listen_fd = listen_fd,
                               .capacity_bytes = config->capacity_bytes,
                               .mode = a->user ? "user" : "system",
                               .idle_ns = a->idle_s * 1000000000u};
    r = server_new(&server, &o);
    if (r == 0) {
        r = add_tenants(server_core(server), config);
        if (r == 0) {
            log_line(LOG_NOTICE, "%s listens at %s: %u tenants, capacity %llu MiB",
                     argp_program_version, path, config->n_tenants,
                     (unsigned long long)(config->capacity_bytes >> 20));
            r = server_run(server);
        }
        (void)unlink(path);
        server_free(server);
    } else {
        (void)unlink(path);
    }
    (void)close(listen_fd);
    if (r < 0)
        log_line(LOG_ERROR, "stopped: %s", strerror(-r));
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

static int run_user(const struct arguments *a, struct config *config, char *path)
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
        r = serve(a, config, path, &ready_fd);
    else if (r == -EWOULDBLOCK)
        r = leave_to_winner(path, &ready_fd);
    close_fd(&lock_fd);
    close_fd(&ready_fd);
    return r;
}

/* At the usual place, whose directory is made if no service manager has, and goes with us then. */
static int run_default(const struct arguments *a, struct config *config)
{
    bool made = mkdir(ADDRESS_SYSTEM_DIR, 0755) == 0;
    int no_fd = -1, r = serve(a, config, ADDRESS_SYSTEM_PATH, &no_fd);

    if (made)
        (void)rmdir(ADDRESS_SYSTEM_DIR);
    return r;
}

static int run(const struct arguments *a, struct config *config)
{
    char path[ADDRESS_BYTES] = "";
    int no_fd = -1;

    if (a->socket && strlen(a->socket) >= sizeof(path)) {
        log_line(LOG_ERROR, "the socket's path is too long: %s", a->socket);
        return -ENAMETOOLONG;
    }
    if (a->socket)
        strcpy(path, a->socket);
    if (a->user)
        return run_user(a, config, path);
    return a->socket ? serve(a, config, path, &no_fd) : run_default(a, config);
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

int main(int argc, char **argv)
{
    static const struct argp argp = {
        options, parse, NULL, "The memory daemon of Acre: one heap that many processes share.",
        NULL,    NULL,  NULL};
    struct arguments a = {.idle_s = UINT64_MAX};
    struct config config;
    argp_err_exit_status = 2;
    (void)argp_parse(&argp, argc, argv, 0, NULL, &a);
    if (a.idle_s == UINT64_MAX)
        a.idle_s = default_idle(&a);
    int r = read_config(&a, &config);
    if (r == 0 && !a.check)
        r = run(&a, &config);
    config_deinit(&config);
    return r < 0 ? 1 : 0;
}
