/* SPDX-License-Identifier: Apache-2.0 */
/*
 * work_crowd.c - what thousands of attached processes cost the daemon, and each other. First a
 * client alone is timed: a request that costs the daemon nothing (a root that is not there), and
 * short lives, each a process that attaches, detaches and ends. Then 6,000 processes attach, or as
 * many as the daemon's descriptors allow, and do nothing; the same is timed beside them. What they
 * added to the daemon (the worker, who serves) is read from /proc. At last all of them end at once,
 * and the daemon is watched until it holds none of their descriptors any more.
 *
 * The clients and who is timed share the first processor; the daemon has the second one.
 */
#include "workload.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "resident.h"
#include "say.h"

#define CLIENTS       6000u
#define CLIENTS_QUICK 100u
#define AT_ONCE       32u /* attach at a time */
#define CALLS         3000u
#define LIVES         1000u

/* Shared with the processes that are timed. */
struct crowd {
    const struct child *child;
    unsigned n_calls, n_lives;
    double call_ns[CALLS], life_ns[LIVES];
    int ready[2], end[2]; /* who is attached says so; all end when nobody can write any more */
};

/* ---- who is timed ---- */

static void time_calls(struct crowd *c)
{
    struct mem mem = mem_open(MEM_ACRE, c->child->socket, 0);
    acre_off off;
    for (unsigned i = 0; i < c->n_calls; i++) {
        uint64_t begin = now_ns();
        if (acre_root_get(mem.heap, "none", &off) != -ENOENT)
            give_up("no answer: %s", acre_last_error());
        c->call_ns[i] = (double)(now_ns() - begin);
    }
}

static void time_life(struct crowd *c, unsigned i)
{
    uint64_t begin = now_ns();
    mem_close(mem_open(MEM_ACRE, c->child->socket, 0));
    c->life_ns[i] = (double)(now_ns() - begin);
}

/* In a process of its own, so that nothing of it is left. i: which life, or -1: the calls. */
static void time_process(struct crowd *c, int i)
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (i < 0)
            time_calls(c);
        else
            time_life(c, (unsigned)i);
        _exit(EXIT_WELL);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0)
        give_up("who was timed has failed");
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void report_times(const char *what, const char *when, double *ns, unsigned n)
{
    char metric[48];
    qsort(ns, n, sizeof(*ns), compare);
    snprintf(metric, sizeof(metric), "%s, %s", what, when);
    report(metric, "ns", ns[n / 2], -1);
    snprintf(metric, sizeof(metric), "%s p99, %s", what, when);
    report(metric, "ns", ns[n * 99 / 100], -1);
}

static void time_all(struct crowd *c, const char *when)
{
    time_process(c, -1);
    report_times("round trip", when, c->call_ns, c->n_calls);
    for (unsigned i = 0; i < c->n_lives; i++)
        time_process(c, (int)i);
    report_times("attach, detach", when, c->life_ns, c->n_lives);
}

/* ---- the daemon, from outside ---- */

struct usage {
    double resident, private, keeper; /* bytes */
    double n_fds;
};

/* Who listens is the keeper; who serves is its child. */
static pid_t keeper_of(const char *socket_path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct ucred creds = {0};
    socklen_t n = sizeof(creds);
    int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", socket_path);
    if (connect(sock, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &creds, &n) < 0)
        give_up("no daemon at %s", socket_path);
    close(sock);
    return creds.pid;
}

static pid_t worker_of(pid_t keeper)
{
    char path[64];
    int worker = 0;
    snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)keeper, (int)keeper);
    FILE *f = fopen(path, "re");
    if (!f || fscanf(f, "%d", &worker) != 1)
        worker = keeper; /* a service manager keeps */
    if (f)
        fclose(f);
    return worker;
}

static unsigned count_fds(pid_t pid)
{
    char path[64];
    unsigned n = 0;
    snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
    DIR *dir = opendir(path);
    if (!dir)
        give_up("cannot look into %s", path);
    for (const struct dirent *entry; (entry = readdir(dir));)
        n += entry->d_name[0] != '.';
    closedir(dir);
    return n;
}

static struct usage usage_of(pid_t keeper)
{
    pid_t worker = worker_of(keeper);
    return (struct usage){.resident = (double)resident_of(worker, "Rss:"),
                          .private = (double)resident_of(worker, "Anonymous:"),
                          .keeper = (double)resident_of(keeper, "Anonymous:"),
                          .n_fds = count_fds(worker)};
}

static void report_usage(const struct usage *before, const struct usage *after, unsigned n)
{
    double kib = 1024.0 * n;
    report("daemon memory, a client", "KiB", (after->resident - before->resident) / kib, -1);
    report("private part, a client", "KiB", (after->private - before->private) / kib, -1);
    report("keeper memory, a client", "KiB", (after->keeper - before->keeper) / kib, -1);
    report("descriptors, a client", "fd", (after->n_fds - before->n_fds) / n, -1);
}

/* ---- the crowd ---- */

static _Noreturn void be_one(const struct crowd *c)
{
    struct acre_options options = {.size = sizeof(options),
                                   .address = c->child->socket,
                                   .name = "crowd",
                                   .flags = ACRE_NO_AUTOSTART};
    struct acre_heap *heap;
    char byte;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    close(c->end[1]);
    byte = acre_open_with(&heap, &options) == 0;
    if (write(c->ready[1], &byte, 1) == 1 && byte)
        (void)!read(c->end[0], &byte, 1);
    _exit(EXIT_WELL);
}

/* So many processes; returns how many were let in. */
static unsigned gather(const struct crowd *c, unsigned n_wanted)
{
    unsigned n = 0, n_started = 0, n_answers = 0;
    char is_in = 1;
    while (n_answers < n_wanted && is_in) {
        for (; n_started < n_wanted && n_started < n_answers + AT_ONCE; n_started++) {
            pid_t pid = fork();
            if (pid == 0)
                be_one(c);
            if (pid < 0)
                give_up("cannot fork for the %u. client", n_started);
        }
        if (read(c->ready[0], &is_in, 1) != 1)
            give_up("a client has failed");
        n_answers++;
        n += is_in;
    }
    for (; n_answers < n_started; n_answers++)
        n += read(c->ready[0], &is_in, 1) == 1 && is_in;
    return n;
}

static void dismiss(struct crowd *c, pid_t keeper, double n_fds)
{
    uint64_t begin = now_ns();
    pid_t worker = worker_of(keeper);
    close(c->end[1]);
    while (wait(NULL) > 0)
        ;
    while (count_fds(worker) > n_fds && now_ns() - begin < 60000000000ull)
        usleep(1000);
    report("until all are gone", "ms", (double)(now_ns() - begin) / 1e6, -1);
}

static void run_crowd(const struct child *child, unsigned case_idx)
{
    struct crowd *c = mmap(NULL, sizeof(*c), PROT_READ | PROT_WRITE,
                           MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    (void)case_idx;
    if (c == MAP_FAILED || pipe(c->ready) < 0 || pipe(c->end) < 0)
        give_up("no memory or pipes for a crowd");
    c->child = child;
    c->n_calls = child->is_quick ? CALLS / 10 : CALLS;
    c->n_lives = child->is_quick ? LIVES / 10 : LIVES;
    pin_to(0);
    pid_t keeper = keeper_of(child->socket);
    time_all(c, "alone");
    struct usage before = usage_of(keeper);
    uint64_t begin = now_ns();
    unsigned n = gather(c, child->is_quick ? CLIENTS_QUICK : CLIENTS);
    report("until all are attached", "ms", (double)(now_ns() - begin) / 1e6, -1);
    report("attached", "clients", n, -1);
    if (n == 0)
        give_up("nobody was let in");
    struct usage after = usage_of(keeper);
    report_usage(&before, &after, n);
    time_all(c, "beside");
    dismiss(c, keeper, before.n_fds);
}

const struct workload work_crowd = {
    .name = "crowd",
    .about = "a round trip, an attach and a detach, alone and beside 6,000 attached processes",
    .cases = {"6,000 clients"},
    .fresh_daemon = true,
    .pinned_daemon = true,
    .runs_max = 3,
    .run = run_crowd,
};
