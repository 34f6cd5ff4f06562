/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
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
    mem_beside(daemon->program, "acred");
}

#define READY "640M" /* 4,000,000 blocks of 112 bytes take 440 */

/* Half of the machine, as a daemon without any tenant would give. */
static void write_config(const struct daemon *daemon, struct daemon_wish wish)
{
    FILE *config = fopen(daemon->config, "we");
    if (!config)
        return;
    long megabytes = sysconf(_SC_PHYS_PAGES) / 1024 * sysconf(_SC_PAGESIZE) / 1024 / 2;
    fprintf(config, "tenant \"default\" { max = \"%ldM\" %s %s }\n", megabytes,
            wish.huge_pages ? "pages = \"thp\"" : "", wish.ready ? "ready = \"" READY "\"" : "");
    fprintf(
        config,
        "tenant \"soft\" { max = \"2304M\" }\ntenant \"soft/one\" { max = \"1200M\" }\n"
        "tenant \"soft/cache\" { max = \"2304M\" }\ntenant \"soft/other\" { max = \"2304M\" }\n");
    fclose(config);
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

static int start(struct daemon *daemon, struct daemon_wish wish)
{
    pid_t parent = getpid();
    write_config(daemon, wish);
    daemon->pid = fork();
    if (daemon->pid == 0)
        become_daemon(daemon, parent, wish.pinned);
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
    find_program(daemon);
    return start(daemon, (struct daemon_wish){0});
}

int daemon_renew(struct daemon *daemon, struct daemon_wish wish)
{
    if (daemon->is_foreign)
        return EXIT_WELL;
    stop(daemon);
    return start(daemon, wish);
}

/* ---- shared huge pages ---- */

#define SHMEM_ENABLED "/sys/kernel/mm/transparent_hugepage/shmem_enabled"

/* The word in brackets of "always [never] advise". */
static bool shmem_read(char ret_word[32])
{
    char line[128] = "";
    FILE *file = fopen(SHMEM_ENABLED, "re");
    bool ok = file && fgets(line, sizeof(line), file);
    if (file)
        fclose(file);
    char *open = strchr(line, '[');
    return ok && open && sscanf(open, "[%31[^]]", ret_word) == 1;
}

static bool shmem_write(const char *word)
{
    FILE *file = fopen(SHMEM_ENABLED, "we");
    bool ok = file && fputs(word, file) >= 0;
    return file ? fclose(file) == 0 && ok : false;
}

/* Others who change the setting for a while and put it back take turns. */
static void shmem_lock(struct daemon *daemon)
{
    daemon->shmem_lock = open(SHMEM_ENABLED, O_RDONLY | O_CLOEXEC);
    if (daemon->shmem_lock >= 0)
        flock(daemon->shmem_lock, LOCK_EX);
}

static bool knows_pages(struct daemon *daemon)
{
    write_config(daemon, (struct daemon_wish){.huge_pages = true, .ready = true});
    pid_t pid = fork();
    if (pid == 0) {
        int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
        dup2(null, STDOUT_FILENO);
        dup2(null, STDERR_FILENO);
        execl(daemon->program, "acred", "--check-config", "--config", daemon->config, (char *)NULL);
        _exit(127);
    }
    int status = -1;
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return status == 0;
}

static bool shmem_allow(struct daemon *daemon)
{
    char before[32];
    if (!shmem_read(before)) {
        complain("shared huge pages are skipped: this kernel has none");
        return false;
    }
    if (strcmp(before, "advise") == 0 || strcmp(before, "always") == 0)
        return true;
    if (!shmem_write("advise")) {
        complain("shared huge pages are skipped: no permission to set " SHMEM_ENABLED);
        return false;
    }
    strcpy(daemon->shmem_before, before);
    complain(SHMEM_ENABLED " is \"advise\" for a while, was \"%s\"", before);
    return true;
}

bool daemon_allow_huge_pages(struct daemon *daemon)
{
    if (daemon->is_foreign || !knows_pages(daemon)) {
        complain("shared huge pages are skipped: %s", daemon->is_foreign
                                                          ? "this daemon is not mine to set up"
                                                          : "this acred does not know them");
        return false;
    }
    shmem_lock(daemon);
    bool allowed = shmem_allow(daemon);
    if (!allowed)
        close(daemon->shmem_lock);
    return allowed;
}

void daemon_forbid_huge_pages(struct daemon *daemon)
{
    if (daemon->shmem_before[0] && !shmem_write(daemon->shmem_before))
        complain("cannot put back \"%s\" into " SHMEM_ENABLED, daemon->shmem_before);
    daemon->shmem_before[0] = '\0';
    close(daemon->shmem_lock);
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
