/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session.c - whom to look at, loading, attaching, giving up privileges, and the end.
 *
 * PRIVILEGES. Whether the kernel lets us is found out by trying. What is attached stays attached, so
 * afterwards only what reads other processes' maps and files is kept, and the user is nobody.
 */
#include "session.h"

#include <cap-ng.h>
#include <fcntl.h>
#include <pwd.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NOBODY      65534
#define FIRST_TICKS 20u

static volatile sig_atomic_t is_interrupted;

static void interrupted(int signal)
{
    (void)signal;
    is_interrupted = 1;
}

static uint64_t now_ns(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- the command ---- */

/* Where execvp() will find it. */
static bool find_program(const char *name, char path[static PATH_MAX])
{
    const char *dirs = getenv("PATH");
    char copy[PATH_MAX], *rest = copy;

    if (strchr(name, '/'))
        return snprintf(path, PATH_MAX, "%s", name) < PATH_MAX && access(path, X_OK) == 0;
    (void)snprintf(copy, sizeof(copy), "%s", dirs ? dirs : "/usr/local/bin:/usr/bin:/bin");
    for (const char *dir; (dir = strsep(&rest, ":"));)
        if (snprintf(path, PATH_MAX, "%s/%s", dir[0] ? dir : ".", name) < PATH_MAX &&
            access(path, X_OK) == 0)
            return true;
    return false;
}

static _Noreturn void be_command(char **command, int gate)
{
    char byte;

    while (read(gate, &byte, 1) < 0 && errno == EINTR)
        ;
    (void)signal(SIGINT, SIG_DFL);
    execvp(command[0], command);
    fprintf(stderr, "acre-trace: %s: %s\n", command[0], strerror(errno));
    _exit(127);
}

/* It waits at the gate, so that nothing of it is missed. */
static int fork_command(struct session *s)
{
    char path[PATH_MAX];
    int gate[2];

    if (!find_program(s->command[0], path)) {
        fprintf(stderr, "acre-trace: %s: no such program\n", s->command[0]);
        return EXIT_USAGE;
    }
    (void)objects_add(&s->objects, path);
    if (pipe2(gate, O_CLOEXEC) < 0 || (s->child = fork()) < 0) {
        fprintf(stderr, "acre-trace: cannot start %s: %s\n", s->command[0], strerror(errno));
        return EXIT_REFUSED;
    }
    if (s->child == 0) {
        close(gate[1]);
        be_command(s->command, gate[0]);
    }
    close(gate[0]);
    s->pid = s->child;
    s->child_gate = gate[1];
    return EXIT_WELL;
}

/* ---- whom to look at ---- */

int session_find(struct session *s)
{
    if (s->file) {
        if (objects_add(&s->objects, s->file))
            return EXIT_WELL;
        fprintf(stderr, "acre-trace: %s: no program or library with libacre's probes\n", s->file);
        return EXIT_USAGE;
    }
    if (s->pid != 0 && !s->command) {
        int r = objects_add_process(&s->objects, s->pid);
        if (r < 0) {
            fprintf(stderr, "acre-trace: process %d: %s\n", (int)s->pid,
                    r == -ENOENT ? "there is none" : strerror(-r));
            return EXIT_USAGE;
        }
        if (s->objects.n == 0) {
            fprintf(stderr, "acre-trace: process %d does not run libacre, or one without probes\n",
                    (int)s->pid);
            return EXIT_USAGE;
        }
        return EXIT_WELL;
    }
    if (s->command)
        objects_add_default(&s->objects);
    else
        objects_add_all(&s->objects);
    if (s->objects.n > 0)
        return EXIT_WELL;
    fprintf(stderr, "acre-trace: no process runs libacre, and none is installed; --library FILE "
                    "says where it is\n");
    return EXIT_USAGE;
}

static int be_quiet(enum libbpf_print_level level, const char *format, va_list args)
{
    if (level == LIBBPF_WARN && getenv("ACRE_TRACE_DEBUG"))
        return vfprintf(stderr, format, args);
    return 0;
}

int session_init(struct session *s)
{
    struct sigaction action = {.sa_handler = interrupted};
    int code = EXIT_WELL;

    s->child_gate = -1;
    (void)libbpf_set_print(be_quiet);
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
    s->stacks = stacks_new();
    if (!s->stacks) {
        fprintf(stderr, "acre-trace: no memory\n");
        return EXIT_REFUSED;
    }
    if (s->command)
        code = fork_command(s);
    return code;
}

static void end_command(struct session *s)
{
    if (s->child_gate >= 0) { /* it never began */
        (void)kill(s->child, SIGKILL);
        close(s->child_gate);
    }
    if (s->child > 0) {
        (void)kill(s->child, SIGTERM);
        (void)waitpid(s->child, &s->child_status, 0);
    }
}

void session_deinit(struct session *s)
{
    for (size_t i = 0; i < s->n_links; i++)
        (void)bpf_link__destroy(s->links[i]);
    end_command(s);
    stacks_free(s->stacks);
}

/* ---- attaching ---- */

static int refused(const char *what, const char *missing)
{
    fprintf(stderr,
            "acre-trace: %s: this takes %s; without, acrectl shows who holds how much, and where\n",
            what, missing);
    return EXIT_REFUSED;
}

static int failed(const char *what, int error)
{
    fprintf(stderr, "acre-trace: %s: %s; with ACRE_TRACE_DEBUG=1 the kernel's reasons are shown\n",
            what, strerror(error));
    return EXIT_REFUSED;
}

int session_not_loaded(int error)
{
    static const char what[] = "the kernel takes no program from this user";

    return error == EPERM ? refused(what, "CAP_BPF and CAP_PERFMON")
                          : failed("loading a program into the kernel", error);
}

int session_link(struct session *s, struct bpf_link *link)
{
    static const char what[] = "the kernel lets this user probe no programs";

    if (!link)
        return errno == EPERM || errno == EACCES ? refused(what, "CAP_SYS_ADMIN")
                                                 : failed("attaching a probe", errno);
    acre_assert(s->n_links < LINKS_MAX);
    s->links[s->n_links++] = link;
    return EXIT_WELL;
}

static pid_t scope(const struct session *s)
{
    return s->pid != 0 ? s->pid : -1;
}

int session_usdt(struct session *s, struct bpf_program *program, const char *probe)
{
    int code = EXIT_WELL;

    acre_assert(s->objects.n > 0);
    for (size_t i = 0; i < s->objects.n && code == EXIT_WELL; i++)
        code = session_link(s, bpf_program__attach_usdt(program, scope(s), s->objects.list[i].path,
                                                        "acre", probe, NULL));
    return code;
}

int session_function(struct session *s, struct bpf_program *program, const char *function,
                     bool returns, bool everybody)
{
    int code = EXIT_WELL;

    acre_assert(s->objects.n > 0);
    for (size_t i = 0; i < s->objects.n && code == EXIT_WELL; i++) {
        const struct object *o = &s->objects.list[i];
        size_t off;
        if (object_probe_at(o, function, &off) == 0)
            code = session_link(s, bpf_program__attach_uprobe(
                                       program, returns, everybody ? -1 : scope(s), o->path, off));
    }
    return code;
}

/* ---- from beginning to end ---- */

static void drop_privileges(void)
{
    if (geteuid() != 0)
        return;
    capng_clear(CAPNG_SELECT_BOTH);
    (void)capng_updatev(CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED, CAP_SYS_PTRACE,
                        CAP_DAC_READ_SEARCH, CAP_KILL, -1);
    if (capng_change_id(NOBODY, NOBODY, CAPNG_DROP_SUPP_GRP) != 0)
        fprintf(stderr, "acre-trace: privileges could not be given up; going on with them\n");
    (void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

void session_start(struct session *s)
{
    drop_privileges();
    s->begin_ns = now_ns();
    s->end_ns = s->seconds > 0 ? s->begin_ns + (uint64_t)(s->seconds * 1e9) : UINT64_MAX;
    if (s->child_gate >= 0)
        close(s->child_gate);
    s->child_gate = -1;
}

/* The command's maps are gone with it: what it has loaded is learned while it runs, early, since it
 * may not run for long. */
static void follow_command(struct session *s)
{
    if (s->n_ticks < FIRST_TICKS || s->n_ticks % FIRST_TICKS == 0)
        stacks_learn(s->stacks, s->child);
}

bool session_goes_on(struct session *s)
{
    struct timespec tick = {.tv_nsec = TICK_MS * 1000000};

    if (s->command && s->n_ticks < FIRST_TICKS)
        tick.tv_nsec /= FIRST_TICKS;
    if (s->child > 0)
        follow_command(s);
    s->n_ticks++;
    if (s->child > 0 && waitpid(s->child, &s->child_status, WNOHANG) == s->child) {
        s->child = 0;
        is_interrupted = 1;
    }
    if (!s->command && s->pid != 0 && kill(s->pid, 0) < 0 && errno == ESRCH)
        is_interrupted = 1;
    if (is_interrupted || now_ns() >= s->end_ns)
        return false;
    (void)nanosleep(&tick, NULL);
    return true;
}

double session_seconds(const struct session *s)
{
    return (double)(now_ns() - s->begin_ns) / 1e9;
}

void session_say_scope(const struct session *s, FILE *to)
{
    fprintf(to, "%.1f s, ", session_seconds(s));
    if (s->command)
        fprintf(to, "%s\n", s->command[0]);
    else if (s->pid != 0)
        fprintf(to, "process %d\n", (int)s->pid);
    else
        fprintf(to, "all processes\n");
}
