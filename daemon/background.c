/* SPDX-License-Identifier: Apache-2.0 */
/* background.c - see background.h. */
#include "daemon/background.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "shm/base.h"

static void redirect(int fd, const char *path, int flags)
{
    int opened = open(path, flags | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (opened >= 0 && opened != fd) {
        (void)dup2(opened, fd);
        (void)close(opened);
    }
}

__attribute__((noreturn)) static void wait_ready(int fd)
{
    char byte;
    ssize_t n;

    do
        n = read(fd, &byte, 1);
    while (n < 0 && errno == EINTR);
    _exit(n == 1 ? 0 : 1);
}

int background_start(const char *log_path, int *ret_ready_fd)
{
    int fds[2];

    (void)syscall(SYS_close_range, 3u, ~0u, 0u);
    if (pipe2(fds, O_CLOEXEC) < 0)
        return -errno;
    pid_t pid = fork();
    if (pid < 0)
        return -errno;
    if (pid > 0) {
        (void)close(fds[1]);
        wait_ready(fds[0]);
    }
    (void)close(fds[0]);
    (void)setsid();
    (void)umask(077);
    if (chdir("/") < 0)
        return -errno;
    redirect(STDIN_FILENO, "/dev/null", O_RDONLY);
    redirect(STDOUT_FILENO, "/dev/null", O_WRONLY);
    redirect(STDERR_FILENO, log_path, O_WRONLY | O_CREAT | O_APPEND);
    *ret_ready_fd = fds[1];
    return 0;
}

void background_ready(int *ready_fd)
{
    if (*ready_fd >= 0 && write(*ready_fd, "", 1) < 0)
        return; /* the starter has gone: nobody waits */
    close_fd(ready_fd);
}
