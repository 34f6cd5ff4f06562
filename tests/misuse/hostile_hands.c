/* SPDX-License-Identifier: Apache-2.0 */
/* hostile_hands.c - descriptors that it hands over. */
#include "tests/misuse/hostile.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#define HANDS_MAX 253u /* SCM_MAX_FD of the kernel */

static int memfd_of(off_t bytes)
{
    int fd = memfd_create("hostile", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    (void)!ftruncate(fd, bytes);
    return fd;
}

/* A connection with a descriptor in it; another one's end, if it is to be both. */
static int loaded_socket(int load)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return -1;
    (void)wire_send(pair[1], "x", 1, load);
    close(pair[1]);
    return pair[0];
}

static int one_end_of_a_pipe(void)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return -1;
    close(ends[1]);
    return ends[0];
}

int hostile_any_descriptor(struct hostile *h)
{
    int fd;
    switch (hostile_below(h, 15)) {
    case 0:
        return eventfd(0, EFD_CLOEXEC);
    case 1:
        return epoll_create1(EPOLL_CLOEXEC);
    case 2:
        return open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    case 3:
        return open("/", O_PATH | O_CLOEXEC);
    case 4:
        return open("/dev/zero", O_RDWR | O_CLOEXEC);
    case 5:
        return one_end_of_a_pipe();
    case 6: /* itself: the connection lies in its own queue */
        return fcntl(h->sock, F_DUPFD_CLOEXEC, 0);
    case 7:
        return loaded_socket(h->sock);
    case 8: /* a segment, or nothing */
        fd = h->segs[0].fd;
        return fd >= 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1;
    case 9:
        return memfd_of((off_t)1 << 40);
    case 10:
        return memfd_of(4096); /* not mapped */
    case 11:
        return memfd_of((off_t)hostile_below(h, 8192));
    case 12:
        return (int)syscall(SYS_pidfd_open, getpid(), 0);
    case 13:
        return socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    default:
        fd = memfd_of(4096);
        (void)fcntl(fd, F_ADD_SEALS, 1 << hostile_below(h, 5));
        return fd;
    }
}

/* Attaching with it, on a connection that is for that alone; or beside any other request. */
static void hand_over(struct hostile *h, int *fds, unsigned n_fds, bool attaches)
{
    uint8_t buf[WIRE_PACKET_MAX];
    struct hostile other;
    struct msg_request req = {.op = MSG_ATTACH, .serial = 2};
    struct msg_reply reply;
    if (!attaches) {
        hostile_any_request(h, &req);
        hostile_send(h, h->sock, buf, codec_pack_request(&req, buf), fds, n_fds);
        return;
    }
    hostile_init(&other, h->orders, rnd(&h->rng));
    if (!hostile_greet(&other))
        return;
    memcpy(req.attach.tenant, h->orders->tenant, sizeof(req.attach.tenant));
    hostile_send(h, other.sock, buf, codec_pack_request(&req, buf), fds, n_fds);
    req = (struct msg_request){.op = MSG_STATUS};
    (void)hostile_call(&other, &req, &reply, NULL);
    hostile_leave(&other, false);
}

void hands_wrong(struct hostile *h)
{
    int fd = hostile_any_descriptor(h);
    hand_over(h, &fd, fd >= 0, hostile_below(h, 2));
    close_fd(&fd);
}

void hands_full(struct hostile *h)
{
    int fds[HANDS_MAX];
    unsigned n = 0,
             n_wanted = (unsigned)(hostile_below(h, 2) ? HANDS_MAX : 2 + hostile_below(h, 60));
    while (n < n_wanted && (fds[n] = hostile_any_descriptor(h)) >= 0)
        n++;
    hand_over(h, fds, n, hostile_below(h, 2));
    while (n > 0)
        close(fds[--n]);
}

/* Its close waits for what nobody reads, if it is the last and may. */
void hands_linger(struct hostile *h)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct linger linger = {1, 5};
    socklen_t n = sizeof(a);
    char bytes[65536] = {0};
    int fds[3] = {socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), -1, -1};
    if (bind(fds[0], (struct sockaddr *)&a, n) == 0 && listen(fds[0], 1) == 0 &&
        getsockname(fds[0], (struct sockaddr *)&a, &n) == 0) {
        fds[1] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        (void)connect(fds[1], (struct sockaddr *)&a, n);
        fds[2] = accept4(fds[0], NULL, NULL, SOCK_CLOEXEC);
        while (send(fds[1], bytes, sizeof(bytes), MSG_NOSIGNAL | MSG_DONTWAIT) > 0)
            ;
        (void)setsockopt(fds[1], SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
        hand_over(h, &fds[1], 1, true);
    }
    close_fd(&fds[1]); /* first: it is the daemon's alone while the reader is there */
    hostile_rest(h, 5000);
    close_fd(&fds[2]);
    close_fd(&fds[0]);
}

/* A page of it lies in a pipe: to seal it takes the kernel 160 ms, and fails. */
void hands_pinned_page(struct hostile *h)
{
    int fd = memfd_of(4096), ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0) {
        close(fd);
        return;
    }
    struct life_page *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page != MAP_FAILED) {
        struct iovec iov = {page, 4096};
        page->magic = LIFE_MAGIC;
        (void)vmsplice(ends[1], &iov, 1, 0);
        munmap(page, 4096);
    }
    hand_over(h, &fd, 1, true);
    close(fd);
    close(ends[0]);
    close(ends[1]);
}

/* While it is handed over, another process makes the kernel work on the file for a while. */
void hands_busy_page(struct hostile *h)
{
    int fd = memfd_of(4096);
    if (hostile_fork() == 0) {
        for (unsigned i = 0; i < 2; i++) {
            (void)fallocate(fd, FALLOC_FL_KEEP_SIZE, 4096, (off_t)MIB(64));
            (void)fallocate(fd, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, 4096, (off_t)MIB(64));
        }
        _exit(0);
    }
    pause_us(2000);
    hand_over(h, &fd, 1, true);
    close(fd);
}

/* A page that is sealed already, in some way; then its own, when it is attached. */
void hands_sealed_page(struct hostile *h)
{
    int fd = memfd_of(hostile_below(h, 2) ? 4096 : (off_t)hostile_below(h, 100000));
    (void)fcntl(fd, F_ADD_SEALS, 1 << hostile_below(h, 5));
    hand_over(h, &fd, 1, true);
    close(fd);
    if (h->life_fd >= 0 && hostile_below(h, 4) == 0)
        (void)fcntl(h->life_fd, F_ADD_SEALS, F_SEAL_SEAL);
    if (h->life_fd >= 0) /* a page of it stays, or it dies of itself */
        (void)!ftruncate(h->life_fd, 4096 + (off_t)hostile_below(h, 1 << 20));
}
