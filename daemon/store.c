/* SPDX-License-Identifier: Apache-2.0 */
/* store.c - see store.h. */
#include "daemon/store.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "proto/wire.h"

#define FIRST_FD        3
#define NAMES_BYTES_MAX (FDS_MAX * (long)STORE_NAME_BYTES)
#define FDS_MAX         1000000
#define ANSWER_MS       5000
#define TEXT_BYTES      (STORE_NAME_BYTES + 64)

/* ---- what has been kept ---- */

static bool env_number(const char *name, long *ret)
{
    const char *text = getenv(name);
    char *end;

    if (!text || *text < '0' || *text > '9')
        return false;
    *ret = strtol(text, &end, 10);
    return *end == 0;
}

static int add_item(struct store_items *items, const char *name, size_t n, int fd)
{
    struct store_item *item = &items->all[items->n++];

    if (n >= sizeof(item->name) || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
        return -EINVAL;
    memcpy(item->name, name, n);
    item->name[n] = 0;
    item->fd = fd;
    return 0;
}

/* names: one for each, with colons between. */
static int read_items(struct store_items *items, long n_fds, const char *names)
{
    int r = 0;

    items->all = calloc((size_t)n_fds, sizeof(*items->all));
    if (!items->all)
        return -ENOMEM;
    for (long i = 0; i < n_fds && r == 0; i++) {
        size_t n = strcspn(names, ":");
        r = add_item(items, names, n, FIRST_FD + (int)i);
        names += n + (names[n] == ':');
    }
    return r;
}

/* The names stand in a file of their own, if the second one is that. *ret is the caller's. */
static int read_names(const char *names, char **ret)
{
    const char *second = strchr(names, ':');
    struct stat st;

    *ret = NULL;
    if (!second || strcmp(second + 1, STORE_NAMES) != 0)
        return (*ret = strdup(names)) ? 0 : -ENOMEM;
    if (fstat(FIRST_FD + 1, &st) < 0 || st.st_size > NAMES_BYTES_MAX)
        return -EINVAL;
    *ret = calloc(1, (size_t)st.st_size + 1);
    if (!*ret)
        return -ENOMEM;
    return pread(FIRST_FD + 1, *ret, (size_t)st.st_size, 0) == st.st_size ? 0 : -EINVAL;
}

/* Those of another process in whose environment this one was started are nothing. */
static int inherit(struct store_items *items)
{
    const char *env = getenv("LISTEN_FDNAMES");
    char *names;
    long pid, n_fds;

    if (!env_number("LISTEN_PID", &pid) || pid != getpid() || !env_number("LISTEN_FDS", &n_fds))
        return 0;
    if (n_fds == 0)
        return 0;
    if (n_fds > FDS_MAX)
        return -EINVAL;
    int r = read_names(env ? env : "", &names);
    if (r == 0)
        r = read_items(items, n_fds, names);
    free(names);
    return r;
}

/* ---- who keeps ---- */

static int connect_manager(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    size_t n = strlen(path);

    if ((path[0] != '/' && path[0] != '@') || n >= sizeof(addr.sun_path))
        return -EINVAL;
    memcpy(addr.sun_path, path, n);
    if (path[0] == '@')
        addr.sun_path[0] = 0;
    int sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (sock < 0)
        return -errno;
    if (connect(sock, (struct sockaddr *)&addr,
                (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n)) == 0)
        return sock;
    int r = -errno;
    (void)close(sock);
    return r;
}

static void unset_environment(void)
{
    (void)unsetenv("LISTEN_PID");
    (void)unsetenv("LISTEN_FDS");
    (void)unsetenv("LISTEN_FDNAMES");
    (void)unsetenv("NOTIFY_SOCKET");
}

int store_open(struct store *ret_store, struct store_items *ret_items)
{
    const char *manager = getenv("NOTIFY_SOCKET");

    *ret_store = (struct store){.sock = -1};
    *ret_items = (struct store_items){0};
    int r = inherit(ret_items);
    if (r == 0)
        ret_store->sock = store_take(ret_items, STORE_KEEPER);
    ret_store->is_keeper = ret_store->sock >= 0;
    if (r == 0 && ret_store->sock < 0 && manager && *manager)
        r = ret_store->sock = connect_manager(manager);
    unset_environment();
    if (r >= 0)
        return 0;
    store_items_free(ret_items);
    return r;
}

void store_close(struct store *store)
{
    close_fd(&store->sock);
}

int store_take(struct store_items *items, const char *name)
{
    for (uint32_t i = 0; i < items->n; i++) {
        struct store_item *item = &items->all[i];
        if (item->fd < 0 || strcmp(item->name, name) != 0)
            continue;
        int fd = item->fd;
        item->fd = -1;
        return fd;
    }
    return -1;
}

void store_items_free(struct store_items *items)
{
    for (uint32_t i = 0; i < items->n; i++)
        close_fd(&items->all[i].fd);
    free(items->all);
    *items = (struct store_items){0};
}

/* ---- depositing ---- */

static int say(const struct store *store, const char *text, int fd)
{
    return wire_send(store->sock, text, strlen(text), fd);
}

/* The keeper says that it has kept all; a service manager says nothing. */
static int read_answer(const struct store *store, int fd)
{
    char answer = 0;
    return !store->is_keeper || (read(fd, &answer, 1) == 1 && answer == STORE_IS_KEPT[0]) ? 0
                                                                                          : -EIO;
}

/* The other end of a pipe is closed once all that was sent before has been dealt with. */
static int barrier(const struct store *store)
{
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) < 0)
        return -errno;
    int r = say(store, "BARRIER=1", ends[1]);
    (void)close(ends[1]);
    struct pollfd p = {.fd = ends[0]};
    while (r == 0) {
        int n = poll(&p, 1, ANSWER_MS);
        if (n > 0) {
            r = read_answer(store, ends[0]);
            break;
        }
        if (n == 0)
            r = -ETIMEDOUT;
        else if (errno != EINTR)
            r = -errno;
    }
    (void)close(ends[0]);
    return r;
}

/* One after the other: a barrier answers for what was sent just before it. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* ---- drops, for which nobody waits: those that the socket does not take just now ---- */

struct late {
    STAILQ_ENTRY(late) in_queue;
    char text[TEXT_BYTES];
};
static STAILQ_HEAD(, late) late_drops = STAILQ_HEAD_INITIALIZER(late_drops);
static pthread_mutex_t late_lock = PTHREAD_MUTEX_INITIALIZER; /* after the other, if both */
static sem_t are_late;

static struct late *take_late(void)
{
    (void)pthread_mutex_lock(&late_lock);
    struct late *late = STAILQ_FIRST(&late_drops);
    if (late)
        STAILQ_REMOVE_HEAD(&late_drops, in_queue);
    (void)pthread_mutex_unlock(&late_lock);
    return late;
}

/* With the lock held, so that no put of the same name comes in between. */
static void send_late(const struct store *store)
{
    for (struct late *late; (late = take_late()); free(late))
        (void)say(store, late->text, -1);
}

static void *send_late_ones(void *store)
{
    for (;;) {
        while (sem_wait(&are_late) < 0)
            ;
        (void)pthread_mutex_lock(&lock);
        send_late(store);
        (void)pthread_mutex_unlock(&lock);
    }
    return NULL;
}

static void start_thread(const struct store *store)
{
    static bool is_there;
    pthread_t thread;

    if (is_there)
        return;
    (void)sem_init(&are_late, 0, 0);
    /* Without it they wait for the next put. */
    is_there = pthread_create(&thread, NULL, send_late_ones, (void *)store) == 0;
    if (is_there)
        (void)pthread_detach(thread);
}

int store_put(const struct store *store, const char *name, int fd)
{
    char text[TEXT_BYTES];

    if (store->sock < 0)
        return 0;
    (void)snprintf(text, sizeof(text), "FDSTORE=1\nFDNAME=%s\n", name);
    (void)pthread_mutex_lock(&lock);
    send_late(store);
    int r = say(store, text, fd);
    if (r == 0)
        r = barrier(store);
    (void)pthread_mutex_unlock(&lock);
    return r;
}

void store_drop(const struct store *store, const char *name)
{
    struct late *late = store->sock < 0 ? NULL : calloc(1, sizeof(*late));

    if (!late) /* what is not dropped is dropped by the next worker */
        return;
    (void)snprintf(late->text, sizeof(late->text), "FDSTOREREMOVE=1\nFDNAME=%s\n", name);
    (void)pthread_mutex_lock(&late_lock);
    bool is_first = STAILQ_EMPTY(&late_drops);
    if (is_first && wire_send_now(store->sock, late->text, strlen(late->text)) != -EAGAIN) {
        free(late);
    } else {
        start_thread(store);
        STAILQ_INSERT_TAIL(&late_drops, late, in_queue);
        (void)sem_post(&are_late);
    }
    (void)pthread_mutex_unlock(&late_lock);
}

void store_say(const struct store *store, const char *state)
{
    if (store->sock >= 0)
        (void)say(store, state, -1);
}
