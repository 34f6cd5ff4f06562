/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "measure.h"
#include "say.h"

static bool listens(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    bool yes = connect(sock, (struct sockaddr *)&address, sizeof(address)) == 0;
    close(sock);
    return yes;
}

static void find_program(struct daemon *daemon)
{
    const char *env = getenv("ACRE_DAEMON");
    if (env && *env) {
        snprintf(daemon->program, sizeof(daemon->program), "%s", env);
        return;
    }
    ssize_t n = readlink("/proc/self/exe", daemon->program, sizeof(daemon->program) - 8);
    daemon->program[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(daemon->program, '/');
    strcpy(slash ? slash + 1 : daemon->program, "acred");
}

static _Noreturn void become_daemon(const struct daemon *daemon, pid_t parent, bool pinned)
{
    int log = open(daemon->log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (log >= 0) {
        dup2(log, STDOUT_FILENO);
        dup2(log, STDERR_FILENO);
    }
    if (pinned)
        pin_to(1);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() == parent)
        execl(daemon->program, "acred", "--socket", daemon->socket, "--config", daemon->config,
              (char *)NULL);
    _exit(127);
}

static void show_log(const struct daemon *daemon)
{
    char line[512];
    FILE *log = fopen(daemon->log, "re");
    while (log && fgets(line, sizeof(line), log))
        fprintf(stderr, "    %s", line);
    if (log)
        fclose(log);
}

static int start(struct daemon *daemon, bool pinned)
{
    pid_t parent = getpid();
    daemon->pid = fork();
    if (daemon->pid == 0)
        become_daemon(daemon, parent, pinned);
    if (daemon->pid < 0)
        return complain("cannot fork: %s", strerror(errno));
    for (unsigned i = 0; i < 4000; i++) {
        if (listens(daemon->socket))
            return EXIT_WELL;
        if (waitpid(daemon->pid, NULL, WNOHANG) != 0) {
            daemon->pid = 0;
            break;
        }
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    }
    complain("%s does not start", daemon->program);
    show_log(daemon);
    return EXIT_NO_DAEMON;
}

static void stop(struct daemon *daemon)
{
    if (daemon->pid <= 0)
        return;
    kill(daemon->pid, SIGTERM);
    while (waitpid(daemon->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    daemon->pid = 0;
}

int daemon_up(struct daemon *daemon, const char *address)
{
    *daemon = (struct daemon){.is_foreign = address != NULL};
    if (address) {
        if (strlen(address) >= sizeof(daemon->socket) || !listens(address)) {
            complain("no daemon at %s", address);
            return EXIT_NO_DAEMON;
        }
        strcpy(daemon->socket, address);
        return EXIT_WELL;
    }
    strcpy(daemon->dir, "/tmp/acre-bench-XXXXXX");
    if (!mkdtemp(daemon->dir))
        return complain("cannot make %s: %s", daemon->dir, strerror(errno));
    snprintf(daemon->socket, sizeof(daemon->socket), "%s/acred.sock", daemon->dir);
    snprintf(daemon->config, sizeof(daemon->config), "%s/acre.conf", daemon->dir);
    snprintf(daemon->log, sizeof(daemon->log), "%s/acred.log", daemon->dir);
    FILE *config = fopen(daemon->config, "we");
    if (config) {
        fputs("# nothing but defaults\n", config);
        fclose(config);
    }
    find_program(daemon);
    return start(daemon, false);
}

int daemon_renew(struct daemon *daemon, bool pinned)
{
    if (daemon->is_foreign)
        return EXIT_WELL;
    stop(daemon);
    return start(daemon, pinned);
}

void daemon_down(struct daemon *daemon)
{
    if (daemon->is_foreign || !daemon->dir[0])
        return;
    stop(daemon);
    unlink(daemon->socket);
    unlink(daemon->config);
    unlink(daemon->log);
    rmdir(daemon->dir);
}
