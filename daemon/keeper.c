/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keeper, theory.
 *
 * MODEL. Two processes: this one, which was started, and its child, the worker, which is the
 * daemon. The keeper holds a copy of each descriptor that the worker would miss after a death: the
 * listening socket, and what store.h deposits. It understands names and descriptors only, allocates
 * little, and has no code that clients can reach: so it has hardly anything to die of.
 *
 * PROTOCOL. That of sd_notify, one message a packet, over a socketpair that each worker inherits
 * new. FDSTORE=1 keeps the descriptor that came along, FDSTOREREMOVE=1 forgets those of the name,
 * BARRIER=1 closes the one that came along, which tells the sender that all before is done; here a
 * byte comes first, unless something was lost: where no descriptor is left to take one in, the
 * barrier's own is lost too. A worker gets what is kept as $LISTEN_FDS does it.
 *
 * DEATHS. The worker dies: what it had sent is read to the end, then a new one is started, of the
 * same program, at once or, if it died before it was ready, after 50 ms to 5 s. It exits by itself:
 * so does the keeper. KEEPER_EXIT_AGAIN: the program that is on disk by now is started; if that
 * ends before it is ready (it cannot read the books, say), the one before it goes on. The keeper is
 * killed: the kernel kills the worker (PDEATHSIG), and all memory goes with the last client: that
 * is what killing the daemon means. Clients never notice the first, but for the wait.
 *
 * COST. A descriptor for each segment and client; the deposit is two packets, 30 us.
 */
#include "daemon/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/log.h"
#include "daemon/store.h"
#include "proto/wire.h"

#define FIRST_FD     3
#define PAUSE_MS     50u
#define PAUSE_MS_MAX 5000u
#define QUICK_DEATHS 10u

struct keeper {
    char **argv;
    char program[PATH_MAX];
    struct store_items kept;
    uint32_t room;
    int sock, signal_fd;
    int program_fd, good_fd; /* what the worker runs; the last that was ready, or -1 */
    pid_t worker;
    uint64_t started_ns;
    unsigned pause_ms, n_quick;
    bool is_stopping, is_ready, has_lost; /* a descriptor that was sent: since the last barrier */
};

/* ---- what is kept ---- */

static struct store_item *new_item(struct keeper *k)
{
    if (k->kept.n == k->room) {
        uint32_t room = k->room == 0 ? 64 : 2 * k->room;
        struct store_item *more = reallocarray(k->kept.all, room, sizeof(*more));
        if (!more)
            return NULL;
        k->kept.all = more;
        k->room = room;
    }
    return &k->kept.all[k->kept.n++];
}

/* The descriptor is the keeper's from now on. */
static void keep(struct keeper *k, const char *name, size_t n, int fd)
{
    bool is_name = n > 0 && n < STORE_NAME_BYTES && !memchr(name, ':', n);
    struct store_item *item = is_name ? new_item(k) : NULL;

    if (!item) {
        k->has_lost = true;
        (void)close(fd);
        return;
    }
    memcpy(item->name, name, n);
    item->name[n] = 0;
    item->fd = fd;
}

static void forget(struct keeper *k, const char *name, size_t n)
{
    uint32_t left = 0;

    for (uint32_t i = 0; i < k->kept.n; i++) {
        struct store_item *item = &k->kept.all[i];
        if (strlen(item->name) == n && memcmp(item->name, name, n) == 0)
            (void)close(item->fd);
        else
            k->kept.all[left++] = *item;
    }
    k->kept.n = left;
}

/* The value of a line "key=value", or NULL. */
static const char *find_line(const char *text, const char *key, size_t *ret_n)
{
    size_t n_key = strlen(key);

    for (const char *line = text; *line;) {
        size_t n = strcspn(line, "\n");
        if (n > n_key && memcmp(line, key, n_key) == 0 && line[n_key] == '=') {
            *ret_n = n - n_key - 1;
            return line + n_key + 1;
        }
        line += n + (line[n] == '\n');
    }
    return NULL;
}

static void note_ready(struct keeper *k)
{
    k->is_ready = true;
    close_fd(&k->good_fd);
    k->good_fd = fcntl(k->program_fd, F_DUPFD_CLOEXEC, 0);
}

static void take_message(struct keeper *k, const char *text, int fd)
{
    size_t n = 0, n_name = 0;
    const char *name = find_line(text, "FDNAME", &n_name);

    if (find_line(text, "READY", &n))
        note_ready(k);
    if (name && fd >= 0 && find_line(text, "FDSTORE", &n)) {
        keep(k, name, n_name, fd);
        return;
    }
    if (name && find_line(text, "FDSTOREREMOVE", &n))
        forget(k, name, n_name);
    if (find_line(text, "BARRIER", &n)) {
        if (!k->has_lost && fd >= 0)
            (void)!write(fd, STORE_IS_KEPT, 1);
        k->has_lost = false;
    }
    close_fd(&fd);
}

/* All that is there. */
static void read_messages(struct keeper *k)
{
    char text[WIRE_PACKET_MAX + 1];
    int r;

    do {
        size_t n = 0;
        int fd = -1;
        r = wire_recv(k->sock, text, &n, &fd);
        k->has_lost |= r == -EPROTO; /* no descriptor was left to take it in */
        if (r == 0 || r == -EPROTO) {
            text[n] = 0;
            take_message(k, text, fd);
        }
    } while (r == 0 || r == -EPROTO || r == -EMSGSIZE);
}

/* ---- the worker ---- */

static int lift(int fd, int above)
{
    return fcntl(fd, F_DUPFD, above);
}

static int make_names(const struct keeper *k)
{
    int fd = memfd_create("names", MFD_CLOEXEC);
    FILE *f = fd < 0 ? NULL : fdopen(dup(fd), "w");

    if (!f)
        return -1;
    (void)fputs(STORE_KEEPER ":" STORE_NAMES, f);
    for (uint32_t i = 0; i < k->kept.n; i++)
        (void)fprintf(f, ":%s", k->kept.all[i].name);
    return fclose(f) == 0 ? fd : -1;
}

/* In the child: the socket, the names and all that is kept become 3, 4, ... Returns where the
 * program is then; not at all if it fails. */
static int hand_over(const struct keeper *k, int sock)
{
    int n = (int)k->kept.n + 2, program = lift(k->program_fd, FIRST_FD + n);
    int *lifted = malloc((size_t)n * sizeof(*lifted));
    char number[16];

    if (!lifted)
        _exit(1);
    lifted[0] = lift(sock, FIRST_FD + n);
    lifted[1] = lift(make_names(k), FIRST_FD + n);
    for (int i = 2; i < n; i++)
        lifted[i] = lift(k->kept.all[i - 2].fd, FIRST_FD + n);
    for (int i = 0; i < n; i++)
        if (lifted[i] < 0 || dup2(lifted[i], FIRST_FD + i) < 0)
            _exit(1);
    (void)close_range((unsigned)(FIRST_FD + n), ~0u, CLOSE_RANGE_CLOEXEC);
    (void)sprintf(number, "%d", n);
    (void)setenv("LISTEN_FDS", number, 1);
    (void)setenv("LISTEN_FDNAMES", STORE_KEEPER ":" STORE_NAMES, 1);
    (void)sprintf(number, "%d", (int)getpid());
    (void)setenv("LISTEN_PID", number, 1);
    return program;
}

__attribute__((noreturn)) static void become_worker(const struct keeper *k, int sock, pid_t keeper)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGHUP); /* waits until the worker listens to it */
    (void)sigprocmask(SIG_SETMASK, &set, NULL);
    (void)signal(SIGPIPE, SIG_DFL);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != keeper)
        _exit(1);
    int program = hand_over(k, sock);
    (void)fexecve(program, k->argv, environ);
    log_line(LOG_ERROR, "cannot run %s: %s", k->program, strerror(errno));
    _exit(1);
}

/* -1 if the disk's cannot be opened and there is no other. */
static int choose_program(const struct keeper *k, bool from_disk)
{
    int fd = from_disk ? open(k->program, O_RDONLY | O_CLOEXEC) : -1;

    return fd < 0 && k->good_fd >= 0 ? fcntl(k->good_fd, F_DUPFD_CLOEXEC, 0) : fd;
}

static int start_worker(struct keeper *k, bool from_disk)
{
    int ends[2];
    pid_t self = getpid();

    close_fd(&k->program_fd);
    k->program_fd = choose_program(k, from_disk);
    if (k->program_fd < 0)
        return -errno;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
        return -errno;
    pid_t pid = fork();
    if (pid == 0)
        become_worker(k, ends[1], self);
    int r = pid < 0 ? -errno : fcntl(ends[0], F_SETFL, O_NONBLOCK);
    (void)close(ends[1]);
    if (r < 0) {
        (void)close(ends[0]);
        return r;
    }
    k->sock = ends[0];
    k->worker = pid;
    k->is_ready = false;
    k->started_ns = wire_now_ns();
    return 0;
}

/* False: it says that the worker has died, or was none. */
static bool take_signal(struct keeper *k)
{
    struct signalfd_siginfo info;

    if (read(k->signal_fd, &info, sizeof(info)) != sizeof(info) || info.ssi_signo == SIGCHLD)
        return false;
    k->is_stopping |= info.ssi_signo != SIGHUP;
    if (k->worker > 0)
        (void)kill(k->worker, (int)info.ssi_signo);
    return true;
}

/* What the death of the last worker has sent may still be there: that is no reason to hurry. */
static void wait_for_signal(struct keeper *k, unsigned ms)
{
    uint64_t now_ns = wire_now_ns(), until_ns = now_ns + ms * 1000000ull;

    for (; now_ns < until_ns; now_ns = wire_now_ns()) {
        struct pollfd p = {.fd = k->signal_fd, .events = POLLIN};
        int left_ms = (int)((until_ns - now_ns) / 1000000) + 1;
        if (poll(&p, 1, left_ms) > 0 && take_signal(k))
            return;
    }
}

/* A worker that never came to serve, or that has died at once again and again, is no hurry. */
static void pause_before_start(struct keeper *k)
{
    bool is_quick = wire_now_ns() - k->started_ns < 1000000000u;

    k->n_quick = is_quick ? k->n_quick + 1 : 0;
    if (k->is_ready && k->n_quick < QUICK_DEATHS) {
        k->pause_ms = 0;
        return;
    }
    k->pause_ms = k->is_ready ? PAUSE_MS : MIN(MAX(2 * k->pause_ms, PAUSE_MS), PAUSE_MS_MAX);
    if (k->n_quick > 1)
        wait_for_signal(k, k->pause_ms);
}

/* True: another one, please. Else *ret is what to exit with. */
static bool judge(struct keeper *k, int status, int *ret)
{
    unsigned long long ms = (wire_now_ns() - k->started_ns) / 1000000;

    *ret = WIFEXITED(status) ? WEXITSTATUS(status) : 1;
    if (k->is_stopping || (WIFEXITED(status) && WEXITSTATUS(status) == 0))
        return false;
    if (WIFEXITED(status) && WEXITSTATUS(status) == KEEPER_EXIT_AGAIN) {
        log_line(LOG_NOTICE, "the worker makes room for %s", k->program);
        return true;
    }
    if (WIFEXITED(status) && !k->is_ready && k->good_fd < 0)
        return false; /* it has said why it cannot begin */
    log_line(LOG_ERROR, "the worker %s %d after %llu ms: a new one gets its %u descriptors",
             WIFSIGNALED(status) ? "was killed by signal" : "exited with",
             WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), ms, k->kept.n);
    return true;
}

/* ---- the loop ---- */

/* Until the worker is dead: its status. */
static int attend(struct keeper *k)
{
    int status;

    for (;;) {
        struct pollfd p[] = {{.fd = k->signal_fd, .events = POLLIN},
                             {.fd = k->sock, .events = POLLIN}};
        (void)poll(p, 2, -1);
        if (p[1].revents)
            read_messages(k);
        if (p[0].revents)
            (void)take_signal(k);
        if (p[1].revents & POLLHUP)
            close_fd(&k->sock); /* poll() ignores it then */
        if (waitpid(k->worker, &status, WNOHANG) == k->worker)
            break;
    }
    if (k->sock >= 0)
        read_messages(k);
    close_fd(&k->sock);
    k->worker = 0;
    return status;
}

static void raise_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
}

static int prepare(struct keeper *k, int listen_fd)
{
    sigset_t set;
    ssize_t n = readlink("/proc/self/exe", k->program, sizeof(k->program) - 1);
    int fd = fcntl(listen_fd, F_DUPFD_CLOEXEC, 0);

    if (n < 0 || fd < 0)
        return -errno;
    keep(k, KEEPER_LISTEN, strlen(KEEPER_LISTEN), fd);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGCHLD);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    (void)signal(SIGPIPE, SIG_IGN); /* who waits for an answer may be dead */
    k->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    raise_limit();
    return k->signal_fd < 0 ? -errno : 0;
}

int keeper_run(char **argv, int listen_fd)
{
    struct keeper k = {.argv = argv, .sock = -1, .signal_fd = -1, .program_fd = -1, .good_fd = -1};
    int r = prepare(&k, listen_fd), status;

    if (r == 0)
        r = start_worker(&k, true);
    while (r == 0) {
        status = attend(&k);
        if (!judge(&k, status, &r))
            break;
        bool again = WIFEXITED(status) && WEXITSTATUS(status) == KEEPER_EXIT_AGAIN;
        pause_before_start(&k);
        if (k.is_stopping) /* no worker was there to be told */
            break;
        while ((r = start_worker(&k, again)) < 0 && !k.is_stopping)
            wait_for_signal(&k, PAUSE_MS_MAX); /* no process, no memory: what is kept must stay */
    }
    store_items_free(&k.kept);
    close_fd(&k.signal_fd);
    close_fd(&k.program_fd);
    close_fd(&k.good_fd);
    return r;
}
