/* SPDX-License-Identifier: Apache-2.0 */
/* Packets, descriptors and the blocking call, over real sockets in one process. */
/* ctest-labels: valgrind */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "proto/codec.h"
#include "proto/wire.h"
#include "shm/sizeclass.h"

#define SECOND 1000000000ull

static char dir[64], path[96];

static int group_setup(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/acre-wire-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(path, sizeof(path), "%s/sock", dir);
    return 0;
}

static int group_teardown(void **state)
{
    (void)state;
    (void)unlink(path);
    return rmdir(dir);
}

static unsigned count_fds(void)
{
    unsigned n = 0;
    DIR *d = opendir("/proc/self/fd");
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

static void pair(int sv[2])
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, sv), 0);
}

static void send_fds(int sock, unsigned n, size_t n_bytes)
{
    char control[CMSG_SPACE(WIRE_FDS_MAX * sizeof(int))] = {0}, byte[1] = {'x'};
    struct iovec iov = {byte, n_bytes};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control,
                         .msg_controllen = CMSG_SPACE(n * sizeof(int))};
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(n * sizeof(int));
    for (unsigned i = 0; i < n; i++)
        ((int *)(void *)CMSG_DATA(c))[i] = 0;
    assert_int_equal(sendmsg(sock, &msg, 0), n_bytes);
}

static void test_a_packet_and_its_descriptor_arrive(void **state)
{
    (void)state;
    uint8_t buf[WIRE_PACKET_MAX];
    size_t n;
    int sv[2], fd, m = memfd_create("t", MFD_CLOEXEC);
    pair(sv);
    assert_int_equal(wire_recv(sv[1], buf, &n, &fd), -EAGAIN);
    assert_int_equal(wire_send(sv[0], "hello", 5, m), 0);
    assert_int_equal(wire_recv(sv[1], buf, &n, &fd), 0);
    assert_int_equal(n, 5);
    assert_true(fd >= 0);
    assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    close(fd);
    close(m);
    assert_int_equal(wire_send(sv[0], "x", 1, -1), 0);
    assert_int_equal(wire_recv(sv[1], buf, &n, &fd), 0);
    assert_int_equal(fd, -1);
    close(sv[0]);
    assert_int_equal(wire_recv(sv[1], buf, &n, &fd), -ECONNRESET);
    assert_int_equal(wire_send(sv[1], "x", 1, -1), -EPIPE);
    close(sv[1]);
}

static void test_more_than_one_descriptor_is_refused_and_none_leaks(void **state)
{
    (void)state;
    uint8_t buf[WIRE_PACKET_MAX];
    size_t n;
    int sv[2], fd;
    pair(sv);
    unsigned before = count_fds();
    send_fds(sv[0], 2, 1);
    assert_int_equal(wire_recv(sv[1], buf, &n, &fd), -EPROTO);
    send_fds(sv[0], WIRE_FDS_MAX, 1);
    assert_int_equal(wire_recv(sv[1], buf, &n, &fd), -EPROTO);
    send_fds(sv[0], 3, 0); /* an empty packet is an end of file, with or without descriptors */
    assert_int_equal(wire_recv(sv[1], buf, &n, &fd), -ECONNRESET);
    assert_int_equal(count_fds(), before);

    struct wire_fds fds;
    send_fds(sv[0], 7, 1);
    assert_int_equal(wire_recv_fds(sv[1], buf, &n, &fds), 0);
    assert_int_equal(fds.n, 7);
    wire_fds_close(&fds);
    assert_int_equal(count_fds(), before);
    close(sv[0]);
    close(sv[1]);
}

static unsigned n_taken;

static void take(int fd)
{
    close(fd);
    n_taken++;
}

static void test_draining_finds_what_lies_behind_empty_packets(void **state)
{
    (void)state;
    uint8_t buf[WIRE_PACKET_MAX];
    size_t n;
    int sv[2], fd;
    unsigned before = count_fds();
    pair(sv);
    send_fds(sv[0], 2, 1);
    assert_int_equal(send(sv[0], "", 0, 0), 0);
    send_fds(sv[0], WIRE_FDS_MAX, 0);
    assert_int_equal(send(sv[0], "", 0, 0), 0);
    send_fds(sv[0], 3, 1);
    n_taken = 0;
    wire_drain(sv[1], take);
    assert_int_equal(n_taken, 2 + WIRE_FDS_MAX + 3);
    assert_int_equal(wire_send(sv[0], "x", 1, -1), -EPIPE);
    assert_int_equal(wire_recv(sv[0], buf, &n, &fd), -ECONNRESET);
    close(sv[0]);
    close(sv[1]);
    assert_int_equal(count_fds(), before);
}

static void test_a_packet_that_is_too_long_is_dropped_alone(void **state)
{
    (void)state;
    static uint8_t big[WIRE_PACKET_MAX + 1];
    uint8_t buf[WIRE_PACKET_MAX];
    size_t n;
    int sv[2], fd;
    pair(sv);
    assert_int_equal(send(sv[0], big, sizeof(big), 0), sizeof(big));
    assert_int_equal(wire_send(sv[0], big, WIRE_PACKET_MAX, -1), 0);
    assert_int_equal(wire_recv(sv[1], buf, &n, &fd), -EMSGSIZE);
    assert_int_equal(wire_recv(sv[1], buf, &n, &fd), 0);
    assert_int_equal(n, WIRE_PACKET_MAX);
    close(sv[0]);
    close(sv[1]);
}

static void test_listening_replaces_a_stale_socket_and_nothing_else(void **state)
{
    (void)state;
    int sock, other;
    assert_int_equal(wire_listen(path, 0600, &sock), 0);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(wire_listen(path, 0600, &other), -EADDRINUSE);
    close(sock); /* the file stays, as after a kill */
    assert_int_equal(wire_listen(path, 0666, &sock), 0);
    close(sock);
    unlink(path);
    close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    assert_int_equal(wire_listen(path, 0666, &sock), -EEXIST);
    unlink(path);
    char longer[200];
    memset(longer, 'x', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = 0;
    assert_int_equal(wire_listen(longer, 0666, &sock), -ENAMETOOLONG);
}

static void test_connecting_tells_nobody_from_somebody_else(void **state)
{
    (void)state;
    int sock;
    uint64_t soon = wire_now_ns() + SECOND;
    assert_int_equal(wire_connect(path, soon, &sock), -ECONNREFUSED);
    close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    assert_int_equal(wire_connect(path, soon, &sock), -EPROTO);
    unlink(path);
    int stream = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un {
        sa_family_t family;
        char name[108];
    } addr = {AF_UNIX, {0}};
    strcpy(addr.name, path);
    assert_int_equal(bind(stream, (struct sockaddr *)(void *)&addr, sizeof(addr)), 0);
    assert_int_equal(listen(stream, 1), 0);
    assert_int_equal(wire_connect(path, soon, &sock), -EPROTO);
    close(stream);
    unlink(path);
    assert_int_equal(wire_listen(path, 0600, &stream), 0);
    close(stream);
    assert_int_equal(wire_connect(path, soon, &sock), -ECONNREFUSED);
    unlink(path);
}

static void test_a_full_backlog_is_a_timeout(void **state)
{
    (void)state;
    int listener, sock, n = 0, socks[64], r;
    assert_int_equal(wire_listen(path, 0600, &listener), 0);
    assert_int_equal(listen(listener, 1), 0);
    while ((r = wire_connect(path, wire_now_ns() + SECOND / 50, &sock)) == 0 && n < 64)
        socks[n++] = sock;
    assert_int_equal(r, -ETIMEDOUT);
    while (n > 0)
        close(socks[--n]);
    close(listener);
    unlink(path);
}

/* ---- the call ---- */

static void reply_to(int sock, uint64_t serial, uint64_t nonce, int fd)
{
    uint8_t buf[WIRE_PACKET_MAX];
    struct msg_reply reply = {.serial = serial, .op = MSG_MAP_SEGMENT, .ack_nonce = nonce};
    assert_int_equal(wire_send(sock, buf, codec_pack_reply(&reply, buf), fd), 0);
}

static uint64_t next_request(int sock, enum msg_op op)
{
    uint8_t buf[WIRE_PACKET_MAX];
    struct msg_request req;
    size_t n;
    int fd;
    assert_int_equal(wire_recv(sock, buf, &n, &fd), 0);
    assert_int_equal(codec_unpack_request(buf, n, &req), 0);
    assert_int_equal(req.op, op);
    return op == MSG_ACK ? req.ack.nonce : req.serial;
}

static void count_stale(void *ctx, const struct msg_reply *reply)
{
    *(uint64_t *)ctx = *(uint64_t *)ctx * 10 + reply->serial;
}

static void test_a_call_acknowledges_descriptors_and_hands_over_late_replies(void **state)
{
    (void)state;
    int sv[2], fd, m = memfd_create("t", MFD_CLOEXEC);
    uint64_t stale = 0;
    pair(sv);
    unsigned before = count_fds();
    reply_to(sv[1], 3, 0, -1);
    reply_to(sv[1], 4, 44, m);
    reply_to(sv[1], 5, 55, m);
    struct wire_call call = {sv[0], wire_now_ns() + SECOND, count_stale, &stale};
    struct msg_request req = {.serial = 5, .op = MSG_MAP_SEGMENT};
    struct msg_reply reply;
    assert_int_equal(wire_call(&call, &req, -1, &reply, &fd), 0);
    assert_int_equal(reply.serial, 5);
    assert_int_equal(stale, 34);
    assert_int_equal(count_fds(), before + 1);
    close(fd);
    assert_int_equal(next_request(sv[1], MSG_MAP_SEGMENT), 5);
    assert_int_equal(next_request(sv[1], MSG_ACK), 44);
    assert_int_equal(next_request(sv[1], MSG_ACK), 55);
    close(m);
    close(sv[0]);
    close(sv[1]);
}

static void event_to(int sock)
{
    uint8_t buf[WIRE_PACKET_MAX];
    struct msg_reply event = {.op = MSG_WATCH};
    assert_int_equal(wire_send(sock, buf, codec_pack_reply(&event, buf), -1), 0);
}

static void count_events(void *ctx, const struct msg_reply *reply)
{
    *(unsigned *)ctx += reply->op == MSG_WATCH && reply->serial == 0;
}

static void test_events_come_between_replies_and_without_a_call(void **state)
{
    (void)state;
    int sv[2], m = memfd_create("t", MFD_CLOEXEC);
    unsigned n_events = 0;
    pair(sv);
    unsigned before = count_fds();
    struct wire_call call = {sv[0], wire_now_ns() + SECOND, count_events, &n_events};
    struct msg_request req = {.serial = 5, .op = MSG_MAP_SEGMENT};
    struct msg_reply reply;
    assert_int_equal(wire_take(&call), -EAGAIN);
    event_to(sv[1]);
    reply_to(sv[1], 5, 0, -1);
    event_to(sv[1]);
    assert_int_equal(wire_call(&call, &req, -1, &reply, NULL), 0);
    assert_int_equal(reply.serial, 5);
    assert_int_equal(n_events, 1);
    assert_int_equal(next_request(sv[1], MSG_MAP_SEGMENT), 5);
    assert_int_equal(wire_take(&call), 0);
    assert_int_equal(n_events, 2);
    reply_to(sv[1], 4, 44, m); /* to a call that timed out: its descriptor is acknowledged */
    assert_int_equal(wire_take(&call), 0);
    assert_int_equal(next_request(sv[1], MSG_ACK), 44);
    assert_int_equal(wire_take(&call), -EAGAIN);
    assert_int_equal(n_events, 2);
    assert_int_equal(count_fds(), before);
    close(sv[1]);
    assert_int_equal(wire_take(&call), -ECONNRESET);
    close(sv[0]);
    close(m);
}

static void test_the_longest_replies_pass_through_a_call(void **state)
{
    (void)state;
    int sv[2];
    static struct msg_reply reply = {.serial = 7, .op = MSG_EXTENTS}, got;
    uint8_t buf[WIRE_PACKET_MAX];
    struct msg_request req = {.serial = 7, .op = MSG_EXTENTS};
    pair(sv);
    reply.extents.n = MSG_EXTENTS_MAX;
    for (uint32_t i = 0; i < MSG_EXTENTS_MAX; i++)
        reply.extents.runs[i] = (struct msg_extent){SLOT_UNITS / 4, EXTENT_WHATS | TAG_HEAP};
    assert_int_equal(wire_send(sv[1], buf, codec_pack_reply(&reply, buf), -1), 0);
    struct wire_call call = {.sock = sv[0], .deadline_ns = wire_now_ns() + SECOND};
    assert_int_equal(wire_call(&call, &req, -1, &got, NULL), 0);
    assert_memory_equal(&got.extents, &reply.extents, sizeof(got.extents));
    assert_int_equal(next_request(sv[1], MSG_EXTENTS), 7);
    /* One that says nonsense is no reply. */
    reply.serial = req.serial = 8;
    reply.extents.runs[3].n_units = 0;
    assert_int_equal(wire_send(sv[1], buf, codec_pack_reply(&reply, buf), -1), 0);
    assert_int_equal(wire_call(&call, &req, -1, &got, NULL), -EPROTO);
    close(sv[0]);
    close(sv[1]);
}

static void test_a_call_ends_at_its_deadline_and_on_a_hang_up(void **state)
{
    (void)state;
    int sv[2];
    pair(sv);
    struct wire_call call = {.sock = sv[0], .deadline_ns = wire_now_ns() + SECOND / 50};
    struct msg_request req = {.serial = 5, .op = MSG_STATUS};
    struct msg_reply reply;
    assert_int_equal(wire_call(&call, &req, -1, &reply, NULL), -ETIMEDOUT);
    call.deadline_ns = wire_now_ns() + SECOND;
    reply_to(sv[1], 9, 0, -1); /* a reply to what was never asked */
    assert_int_equal(wire_call(&call, &req, -1, &reply, NULL), -EPROTO);
    close(sv[1]);
    assert_int_equal(wire_call(&call, &req, -1, &reply, NULL), -ECONNRESET);
    close(sv[0]);
}

static int greeter_error;

static void *greeter(void *arg)
{
    int listener = *(int *)arg, sock, fd;
    uint8_t buf[WIRE_PACKET_MAX];
    struct msg_request req;
    struct msg_reply reply = {.serial = 1, .op = MSG_HELLO, .error = greeter_error};
    size_t n;
    while ((sock = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) < 0)
        usleep(1000);
    if (wire_recv(sock, buf, &n, &fd) == 0 && codec_unpack_request(buf, n, &req) == 0 &&
        strcmp(req.hello.magic, "ACRE") == 0 && req.hello.fingerprint == layout_fingerprint()) {
        reply.hello.version = req.hello.version_max;
        if (greeter_error != 0) {
            reply.op = MSG_NONE;
            strcpy(reply.text, "no");
        }
        if (greeter_error == 1) /* not a daemon of ours */
            (void)wire_send(sock, "HTTP/1.1 400", 12, -1);
        else
            (void)wire_send(sock, buf, codec_pack_reply(&reply, buf), -1);
    }
    close(sock);
    return NULL;
}

static int greeted(int error, char *text)
{
    int listener, sock = -1;
    pthread_t thread;
    greeter_error = error;
    assert_int_equal(wire_listen(path, 0600, &listener), 0);
    pthread_create(&thread, NULL, greeter, &listener);
    int r = wire_hello(path, wire_now_ns() + 10 * SECOND, &sock, text);
    pthread_join(thread, NULL);
    close_fd(&sock);
    close(listener);
    unlink(path);
    return r;
}

static void test_hello_tells_ours_from_older_and_from_others(void **state)
{
    (void)state;
    char text[MSG_TEXT_BYTES];
    sizeclass_init();
    assert_int_equal(greeted(0, text), 0);
    assert_int_equal(greeted(-EPROTONOSUPPORT, text), -EPROTONOSUPPORT);
    assert_string_equal(text, "no");
    assert_int_equal(greeted(1, text), -EPROTO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_packet_and_its_descriptor_arrive),
        cmocka_unit_test(test_more_than_one_descriptor_is_refused_and_none_leaks),
        cmocka_unit_test(test_draining_finds_what_lies_behind_empty_packets),
        cmocka_unit_test(test_a_packet_that_is_too_long_is_dropped_alone),
        cmocka_unit_test(test_listening_replaces_a_stale_socket_and_nothing_else),
        cmocka_unit_test(test_connecting_tells_nobody_from_somebody_else),
        cmocka_unit_test(test_a_full_backlog_is_a_timeout),
        cmocka_unit_test(test_a_call_acknowledges_descriptors_and_hands_over_late_replies),
        cmocka_unit_test(test_events_come_between_replies_and_without_a_call),
        cmocka_unit_test(test_the_longest_replies_pass_through_a_call),
        cmocka_unit_test(test_a_call_ends_at_its_deadline_and_on_a_hang_up),
        cmocka_unit_test(test_hello_tells_ours_from_older_and_from_others),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
