/* SPDX-License-Identifier: Apache-2.0 */
/*
 * autostart.c - where the daemon is, and starting a per-user one where there is none.
 *
 * A per-user daemon is started only if $ACRE_SOCKET is unset and /run/acre does not exist:
 * otherwise a system daemon that is only restarting would be replaced, and one heap would silently
 * become two. Starting twice at once is harmless: the daemons settle it by a lock beside the
 * socket, and the loser's starter finds the winner listening.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "client/heap.h"
#include "proto/address.h"

extern char **environ;

int daemon_address(const char *address, unsigned flags, char *ret_path, bool *ret_may_start)
{
    const char *autostart = getenv("ACRE_AUTOSTART");
    char text[MSG_TEXT_BYTES];
    enum address_kind kind;
    int r = address_find(address, true, ret_path, &kind, text);

    *ret_may_start = kind == ADDRESS_USER && !(flags & ACRE_NO_AUTOSTART) &&
                     getauxval(AT_SECURE) == 0 && !(autostart && strcmp(autostart, "0") == 0);
    return r < 0 ? fail(-r, "%s", text) : 0;
}

/* ---- starting it ---- */

static bool is_program(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0;
}

/* acred beside this library, or in ../bin from there. */
static bool beside_library(char *ret_path, size_t n)
{
    static const char *const places[] = {"acred", "../bin/acred", "../../bin/acred"};
    Dl_info info;
    char dir[PATH_MAX];

    if (!dladdr((void *)(uintptr_t)acre_open, &info) || !info.dli_fname)
        return false;
    snprintf(dir, sizeof(dir), "%s", info.dli_fname);
    char *slash = strrchr(dir, '/');
    if (!slash)
        return false;
    *slash = '\0';
    for (unsigned i = 0; i < ARRAY_LEN(places); i++) {
        int len = snprintf(ret_path, n, "%s/%s", dir, places[i]);
        if (len > 0 && (size_t)len < n && is_program(ret_path))
            return true;
    }
    return false;
}

static bool in_path(char *ret_path, size_t n)
{
    const char *p = getenv("PATH");

    while (p && *p) {
        size_t len = strcspn(p, ":");
        int written = snprintf(ret_path, n, "%.*s/acred", (int)len, p);
        if (len > 0 && written > 0 && (size_t)written < n && is_program(ret_path))
            return true;
        p += len + (p[len] == ':');
    }
    return false;
}

static int daemon_path(char *ret_path, size_t n)
{
    const char *env = secure_getenv("ACRE_DAEMON");

    if (env)
        return is_program(env) && (size_t)snprintf(ret_path, n, "%s", env) < n
                   ? 0
                   : fail(ECONNREFUSED, "$ACRE_DAEMON is \"%s\": no program", env);
    if (beside_library(ret_path, n) || in_path(ret_path, n))
        return 0;
    return fail(ECONNREFUSED, "no daemon runs, and acred is neither at $ACRE_DAEMON nor beside "
                              "the library nor in PATH");
}

struct start {
    const char *path;
    sigset_t no_signals;
};

/* In a child that shares our memory (vfork-like): system calls only. */
static int start_child(void *arg)
{
    const struct start *start = arg;
    char *argv[] = {(char *)"acred", (char *)"--user", (char *)"--background", NULL};

    /* The handlers are the application's, and so is the memory that they would run on. */
    for (int sig = 1; sig < NSIG; sig++)
        (void)signal(sig, SIG_DFL);
    (void)sigprocmask(SIG_SETMASK, &start->no_signals, NULL);
    (void)setsid();
    (void)syscall(SYS_close_range, 3u, ~0u, 0u);
    execve(start->path, argv, environ);
    _exit(127);
}

/* acred --background returns when its socket listens. Exit signal 0: the application's SIGCHLD and
 * wait() see nothing of it. */
int daemon_start(void)
{
    char path[PATH_MAX], stack[16384] __attribute__((aligned(16)));
    struct start start = {.path = path};
    int r = daemon_path(path, sizeof(path)), status;

    if (r < 0)
        return r;
    sigset_t all, before;
    sigemptyset(&start.no_signals);
    sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    pid_t pid = clone(start_child, stack + sizeof(stack), CLONE_VM | CLONE_VFORK, &start);
    int error = errno;
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (pid < 0)
        return fail(error, "cannot start %s: %s", path, strerror(error));
    while (waitpid(pid, &status, __WALL) < 0)
        if (errno != EINTR)
            return fail(errno, "cannot wait for %s: %s", path, strerror(errno));
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return fail(ECONNREFUSED, "%s --user did not start (status 0x%x)", path, status);
    return 0;
}
