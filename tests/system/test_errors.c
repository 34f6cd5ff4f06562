/* SPDX-License-Identifier: Apache-2.0 */
/* Opening fails: one errno and one sentence each. */
#include "tests/system/harness.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "proto/codec.h"

static void expect_error(int expected, const char *address, const char *tenant)
{
    struct acre_options o = {
        .size = sizeof(o), .address = address, .tenant = tenant, .deadline_ms = 500};
    struct acre_heap *heap = (void *)1;
    int r = acre_open_with(&heap, &o);

    if (r != expected)
        fail_msg("expected %d (%s), got %d (%s)", expected, strerror(-expected), r,
                 acre_last_error());
    assert_ptr_equal(heap, (void *)1);
    assert_true(strlen(acre_last_error()) > 10);
    assert_true(strlen(acre_strerror(r)) > 10);
    assert_null(strchr(acre_strerror(r), '\n'));
    printf("%d: %s | %s\n", r, acre_strerror(r), acre_last_error());
}

static void a_wrong_tenant_is_enoent(void **state)
{
    (void)state;
    expect_error(-ENOENT, the_daemon.socket, "nobody's");
}

static long page_bytes; /* of a kernel that we do not run on; 0: of ours */

long __sysconf(int name); /* the C library's own */

/* The library asks this one, as it is the program's. */
__attribute__((visibility("default"))) long sysconf(int name)
{
    return name == _SC_PAGESIZE && page_bytes != 0 ? page_bytes : __sysconf(name);
}

static void a_kernel_with_larger_pages_is_enotsup(void **state)
{
    (void)state;
    for (page_bytes = 16384; page_bytes <= 65536; page_bytes *= 4)
        expect_error(-ENOTSUP, the_daemon.socket, "default");
    page_bytes = 0;
}

static void an_absent_daemon_is_econnrefused(void **state)
{
    (void)state;
    expect_error(-ECONNREFUSED, "/tmp/acre-no-such-socket", NULL);
}

static bool as_nobody(void *arg)
{
    struct acre_heap *heap;

    (void)arg;
    CHECK(setgid(65534) == 0 && setuid(65534) == 0);
    CHECK(acre_open(&heap, the_daemon.socket, "default") == -EACCES);
    CHECK(acre_open(&heap, the_daemon.socket, "open") == 0);
    CHECK(acre_alloc(heap, 10) != NULL);
    acre_close(heap);
    return true;
}

static void a_user_who_is_not_listed_is_eacces(void **state)
{
    (void)state;
    if (geteuid() != 0)
        skip();
    chmod(the_daemon.dir, 0755);
    RUN_CHILD(as_nobody, NULL);
}

static int listen_at(const char *path, int type)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int sock = socket(AF_UNIX, type, 0);

    unlink(path);
    snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
    assert_int_equal(bind(sock, (struct sockaddr *)&a, sizeof(a)), 0);
    if (type != SOCK_DGRAM)
        assert_int_equal(listen(sock, 5), 0);
    return sock;
}

/* Answers each Hello with these bytes (n 0: never). */
static bool impostor(int listener, const void *answer, size_t n)
{
    uint8_t buf[WIRE_PACKET_MAX];
    int conn = accept(listener, NULL, NULL);

    CHECK(conn >= 0 && recv(conn, buf, sizeof(buf), 0) > 0);
    if (n > 0)
        CHECK(send(conn, answer, n, MSG_NOSIGNAL) == (ssize_t)n);
    else
        sleep(3);
    return true;
}

struct imposture {
    int listener;
    const void *answer;
    size_t n;
};

static bool run_impostor(void *arg)
{
    const struct imposture *i = arg;
    return impostor(i->listener, i->answer, i->n);
}

static void expect_from_impostor(int expected, const void *answer, size_t n)
{
    char path[128];

    snprintf(path, sizeof(path), "%s/impostor.sock", the_daemon.dir);
    struct imposture i = {listen_at(path, SOCK_SEQPACKET), answer, n};
    pid_t pid = child_start(run_impostor, &i);
    expect_error(expected, path, NULL);
    kill(pid, SIGKILL);
    (void)child_signal(pid);
    close(i.listener);
    unlink(path);
}

static void what_is_no_daemon_is_eproto(void **state)
{
    (void)state;
    char path[128];

    expect_error(-EPROTO, "/etc/passwd", NULL);
    expect_error(-EPROTO, "/tmp", NULL);
    snprintf(path, sizeof(path), "%s/stream.sock", the_daemon.dir);
    int sock = listen_at(path, SOCK_STREAM);
    expect_error(-EPROTO, path, NULL);
    close(sock);
    unlink(path);
    expect_from_impostor(-EPROTO, "\xff\xff\xff\xff\xff", 5);
    expect_from_impostor(-EPROTO, "HTTP/1.1 400 Bad Request\r\n\r\n", 28);
}

struct leaving {
    char path[128];
    bool greets; /* answers Hello, and leaves when asked to attach */
};

static bool run_leaving(void *arg)
{
    const struct leaving *l = arg;
    uint8_t buf[WIRE_PACKET_MAX];
    struct msg_reply reply = {.serial = 1, .op = MSG_HELLO, .hello = {.version = 1}};
    int listener = listen_at(l->path, SOCK_SEQPACKET), conn = accept(listener, NULL, NULL);
    size_t n = codec_pack_reply(&reply, buf);

    /* The first who comes only looks whether somebody listens. */
    close(conn);
    conn = accept(listener, NULL, NULL);
    uint8_t in[WIRE_PACKET_MAX];
    CHECK(recv(conn, in, sizeof(in), 0) > 0);
    if (l->greets)
        CHECK(send(conn, buf, n, 0) == (ssize_t)n && recv(conn, in, sizeof(in), 0) > 0);
    return true;
}

static void a_daemon_that_leaves_in_the_middle_is_econnrefused(void **state)
{
    struct leaving *l = shared_page(sizeof(*l));

    (void)state;
    snprintf(l->path, sizeof(l->path), "%s/leaving.sock", the_daemon.dir);
    for (unsigned greets = 0; greets < 2; greets++) {
        l->greets = greets;
        pid_t pid = child_start(run_leaving, l);
        while (!harness_listens(l->path))
            usleep(1000);
        expect_error(-ECONNREFUSED, l->path, NULL);
        assert_true(child_ok(pid));
    }
    unlink(l->path);
}

static void a_silent_daemon_is_etimedout(void **state)
{
    (void)state;
    expect_from_impostor(-ETIMEDOUT, NULL, 0);
}

static void another_version_is_eprotonosupport(void **state)
{
    (void)state;
    uint8_t buf[WIRE_PACKET_MAX];
    struct msg_reply reply = {
        .serial = 1, .error = -EPROTONOSUPPORT, .text = "versions 7 to 9 only"};
    size_t n = codec_pack_reply(&reply, buf);

    expect_from_impostor(-EPROTONOSUPPORT, buf, n);
    reply = (struct msg_reply){.serial = 1, .op = MSG_HELLO, .hello = {.version = 99}};
    n = codec_pack_reply(&reply, buf);
    expect_from_impostor(-EPROTONOSUPPORT, buf, n);
}

static void bad_arguments_are_einval(void **state)
{
    (void)state;
    struct acre_options o = {.size = sizeof(o), .address = the_daemon.socket};
    struct acre_heap *heap;
    char longname[300];

    memset(longname, 'x', sizeof(longname));
    longname[299] = 0;
    assert_int_equal(acre_open_with(NULL, &o), -EINVAL);
    assert_int_equal(acre_open_with(&heap, NULL), -EINVAL);
    o.size = 4;
    assert_int_equal(acre_open_with(&heap, &o), -EINVAL);
    o.size = sizeof(o);
    o.flags = 0x80;
    assert_int_equal(acre_open_with(&heap, &o), -EINVAL);
    o.flags = 0;
    o.deadline_ms = -1;
    assert_int_equal(acre_open_with(&heap, &o), -EINVAL);
    expect_error(-EINVAL, longname, NULL);
    expect_error(-EINVAL, the_daemon.socket, longname);
    expect_error(-EINVAL, the_daemon.socket, "");
    expect_error(-EINVAL, "", NULL);
    acre_close(NULL);
}

static void errno_is_left_alone_by_what_succeeds(void **state)
{
    (void)state;
    errno = 12345;
    struct acre_heap *heap = heap_open(&the_daemon, NULL);
    void *small = acre_alloc(heap, 100), *large = acre_alloc(heap, 3 << 20);
    assert_non_null(small);
    assert_non_null(large);
    small = acre_realloc(heap, small, 5000);
    assert_int_equal(acre_publish(heap, small), 0);
    acre_free(heap, small);
    acre_free(heap, large);
    acre_free(heap, NULL);
    acre_close(heap);
    assert_int_equal(errno, 12345);
}

static void corner_cases_are_as_documented(void **state)
{
    (void)state;
    struct acre_heap *heap = heap_open(&the_daemon, NULL);
    void *a = acre_alloc(heap, 0), *b = acre_alloc(heap, 0);
    assert_non_null(a);
    assert_non_null(b);
    assert_ptr_not_equal(a, b);
    assert_null(acre_realloc(heap, a, 0));
    assert_int_equal(errno, EINVAL);
    acre_free(heap, a);
    acre_free(heap, b);
    assert_int_equal(acre_offset(heap, NULL), 0);
    assert_null(acre_pointer(heap, 0));
    assert_null(acre_pointer(heap, UINT64_MAX));
    assert_int_equal(errno, EINVAL);
    assert_null(acre_pointer(heap, 200ull << 30));
    assert_int_equal(errno, EINVAL);
    assert_int_equal(acre_usable_size(heap, NULL), 0);
    assert_null(acre_aligned_alloc(heap, 48, 100));
    assert_int_equal(errno, EINVAL);
    assert_null(acre_aligned_alloc(heap, 0, 100));
    assert_int_equal(errno, EINVAL);
    assert_null(acre_allocx(heap, 10, 0, 0x100));
    assert_int_equal(errno, EINVAL);
    for (size_t align = 1; align <= 64 << 20; align *= 2)
        for (size_t size = 1; size < 200000; size = size * 5 + 1) {
            void *p = acre_aligned_alloc(heap, align, size);
            if (!p)
                fail_msg("align %zu size %zu: %s", align, size, acre_last_error());
            assert_int_equal((uintptr_t)p % align, 0);
            assert_true(acre_usable_size(heap, p) >= size);
            acre_free(heap, p);
        }
    assert_string_equal(acre_version(), ACRE_VERSION_STRING);
    acre_close(heap);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_wrong_tenant_is_enoent),
        cmocka_unit_test(a_kernel_with_larger_pages_is_enotsup),
        cmocka_unit_test(an_absent_daemon_is_econnrefused),
        cmocka_unit_test(a_user_who_is_not_listed_is_eacces),
        cmocka_unit_test(what_is_no_daemon_is_eproto),
        cmocka_unit_test(a_daemon_that_leaves_in_the_middle_is_econnrefused),
        cmocka_unit_test(a_silent_daemon_is_etimedout),
        cmocka_unit_test(another_version_is_eprotonosupport),
        cmocka_unit_test(bad_arguments_are_einval),
        cmocka_unit_test(errno_is_left_alone_by_what_succeeds),
        cmocka_unit_test(corner_cases_are_as_documented),
    };
    return run_beside_daemon(tests, "capacity = \"2G\"\ntenant \"default\" { max = \"1G\" }\n"
                                    "tenant \"open\" { max = \"16M\" users = {\"nobody\"} }\n");
}
