/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/system/between.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "tests/system/harness.h"

#define PAIRS_MAX 8

static struct {
    char path[96];
    int listener, end[2]; /* end: a pipe that is closed when it is over */
    between_fn fn;
    pthread_t thread;
} between;

/* False: the connection is over. */
static bool pass_on(int from, int to, bool is_reply)
{
    char packet[20000], control[CMSG_SPACE(4 * sizeof(int))];
    struct iovec iov = {packet, sizeof(packet)};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control,
                         .msg_controllen = sizeof(control)};
    ssize_t n = recvmsg(from, &msg, MSG_CMSG_CLOEXEC);
    if (n <= 0)
        return false;
    bool lost = !between.fn(is_reply);
    iov.iov_len = (size_t)n;
    if (msg.msg_controllen == 0)
        msg.msg_control = NULL;
    bool sent = !lost && sendmsg(to, &msg, MSG_NOSIGNAL) == n;
    struct cmsghdr *c = msg.msg_controllen > 0 ? CMSG_FIRSTHDR(&msg) : NULL;
    if (c)
        close(*(int *)(void *)CMSG_DATA(c));
    return sent;
}

static int connect_to(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    strcpy(addr.sun_path, path);
    return connect(sock, (struct sockaddr *)&addr, sizeof(addr)) == 0 ? sock : -1;
}

static void *pass_all_on(void *arg)
{
    int pairs[PAIRS_MAX][2];
    unsigned n = 0;
    (void)arg;
    for (;;) {
        struct pollfd p[2 + 2 * PAIRS_MAX] = {{.fd = between.end[0], .events = POLLIN},
                                              {.fd = between.listener, .events = POLLIN}};
        for (unsigned i = 0; i < 2 * n; i++)
            p[2 + i] = (struct pollfd){.fd = pairs[i / 2][i % 2], .events = POLLIN};
        if (poll(p, 2 + 2 * n, -1) < 0)
            continue;
        if (p[0].revents)
            break;
        for (unsigned i = 2 * n; i-- > 0;) {
            unsigned pair = i / 2;
            if (!p[2 + i].revents || pair >= n ||
                pass_on(pairs[pair][i % 2], pairs[pair][1 - i % 2], i % 2 == 1))
                continue;
            close(pairs[pair][0]);
            close(pairs[pair][1]);
            memcpy(pairs[pair], pairs[--n], sizeof(pairs[0]));
            break; /* the others have moved */
        }
        if (p[1].revents && n < PAIRS_MAX) {
            pairs[n][0] = accept4(between.listener, NULL, NULL, SOCK_CLOEXEC);
            pairs[n][1] = connect_to(the_daemon.socket);
            n++;
        }
    }
    while (n-- > 0) {
        close(pairs[n][0]);
        close(pairs[n][1]);
    }
    return NULL;
}

const char *between_up(between_fn fn)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    between.fn = fn;
    snprintf(between.path, sizeof(between.path), "%s/between.sock", the_daemon.dir);
    strcpy(addr.sun_path, between.path);
    between.listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(between.listener, (struct sockaddr *)&addr, sizeof(addr)), 0);
    assert_int_equal(listen(between.listener, 16), 0);
    assert_int_equal(pipe2(between.end, O_CLOEXEC), 0);
    assert_int_equal(pthread_create(&between.thread, NULL, pass_all_on, NULL), 0);
    return between.path;
}

void between_down(void)
{
    close(between.end[1]);
    assert_int_equal(pthread_join(between.thread, NULL), 0);
    close(between.end[0]);
    close(between.listener);
    unlink(between.path);
}
