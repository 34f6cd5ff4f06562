/* SPDX-License-Identifier: Apache-2.0 */
/* A service manager, as far as acred sees one: a notify socket, a store of descriptors, and a
 * restart that hands them back. */
#include "tests/system/harness.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "daemon/books.h"

#define KEPT_MAX 256

static struct manager {
    int sock;
    char address[64];
    pthread_t thread;
    pthread_mutex_t lock;
    unsigned n_kept, n_ready, n_heard;
    struct {
        int fd;
        char name[64];
    } kept[KEPT_MAX];
} m = {.lock = PTHREAD_MUTEX_INITIALIZER};

static char dir[64], socket_path[96];

/* ---- the manager ---- */

static void forget(const char *name)
{
    unsigned left = 0;
    for (unsigned i = 0; i < m.n_kept; i++)
        if (strcmp(m.kept[i].name, name) == 0)
            close(m.kept[i].fd);
        else
            m.kept[left++] = m.kept[i];
    m.n_kept = left;
}

static void take(const char *text, int fd)
{
    char name[64] = "";
    const char *at = strstr(text, "FDNAME=");
    if (at)
        (void)sscanf(at, "FDNAME=%63[^\n]", name);
    pthread_mutex_lock(&m.lock);
    m.n_ready += strstr(text, "READY=1") != NULL;
    m.n_heard += strstr(text, "HEARD=1") != NULL;
    if (strstr(text, "FDSTOREREMOVE=1")) {
        forget(name);
    } else if (strstr(text, "FDSTORE=1") && fd >= 0 && m.n_kept < KEPT_MAX) {
        m.kept[m.n_kept].fd = fd;
        strcpy(m.kept[m.n_kept++].name, name);
        fd = -1;
    }
    pthread_mutex_unlock(&m.lock);
    if (fd >= 0)
        close(fd);
}

static void *manage(void *arg)
{
    (void)arg;
    for (;;) {
        char text[4096], control[CMSG_SPACE(sizeof(int))];
        struct iovec iov = {text, sizeof(text) - 1};
        struct msghdr msg = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof(control)};
        int fd = -1;
        ssize_t n = recvmsg(m.sock, &msg, MSG_CMSG_CLOEXEC);
        if (n < 0)
            return NULL;
        text[n] = 0;
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        if (c && c->cmsg_type == SCM_RIGHTS)
            memcpy(&fd, CMSG_DATA(c), sizeof(fd));
        take(text, fd);
    }
}

/* Before it looks at what it has, a manager hears what was already said: what a daemon sent just
 * before it was killed too. */
static void hear_all(void)
{
    struct sockaddr_un addr;
    socklen_t len = sizeof(addr);
    unsigned n_heard = __atomic_load_n(&m.n_heard, __ATOMIC_ACQUIRE);
    assert_int_equal(getsockname(m.sock, (struct sockaddr *)&addr, &len), 0);
    assert_int_equal(sendto(m.sock, "HEARD=1", 7, 0, (struct sockaddr *)&addr, len), 7);
    while (__atomic_load_n(&m.n_heard, __ATOMIC_ACQUIRE) == n_heard)
        usleep(100);
}

static void hand_over(void)
{
    char names[KEPT_MAX * 32] = "", number[16];
    int lifted[KEPT_MAX];
    for (unsigned i = 0; i < m.n_kept; i++) {
        lifted[i] = fcntl(m.kept[i].fd, F_DUPFD, 3 + KEPT_MAX);
        strcat(strcat(names, i ? ":" : ""), m.kept[i].name);
    }
    for (unsigned i = 0; i < m.n_kept; i++)
        dup2(lifted[i], 3 + (int)i);
    close_range(3 + m.n_kept, ~0u, 0);
    snprintf(number, sizeof(number), "%u", m.n_kept);
    setenv("LISTEN_FDS", number, 1);
    snprintf(number, sizeof(number), "%d", (int)getpid());
    setenv("LISTEN_PID", number, 1);
    setenv("LISTEN_FDNAMES", names, 1);
}

static pid_t start_only(void)
{
    hear_all();
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        setenv("NOTIFY_SOCKET", m.address, 1);
        hand_over();
        execl(getenv("ACRE_DAEMON"), "acred", "--socket", socket_path, (char *)NULL);
        _exit(127);
    }
    return pid;
}

static pid_t start(void)
{
    hear_all();
    unsigned n_ready = m.n_ready;
    pid_t pid = start_only();
    while (__atomic_load_n(&m.n_ready, __ATOMIC_ACQUIRE) == n_ready)
        usleep(1000);
    return pid;
}

static int up(void **state)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    (void)state;
    strcpy(dir, "/tmp/acre-test-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(socket_path, sizeof(socket_path), "%s/acred.sock", dir);
    snprintf(m.address, sizeof(m.address), "@%s", dir);
    memcpy(addr.sun_path, m.address, strlen(m.address));
    addr.sun_path[0] = 0;
    m.sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(m.sock, (struct sockaddr *)&addr,
                          (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(m.address))),
                     0);
    assert_int_equal(pthread_create(&m.thread, NULL, manage, NULL), 0);
    return 0;
}

static int down(void **state)
{
    (void)state;
    pthread_cancel(m.thread);
    pthread_join(m.thread, NULL);
    close(m.sock);
    unlink(socket_path);
    return rmdir(dir);
}

static unsigned count_kept(char kind)
{
    unsigned n = 0;
    hear_all();
    pthread_mutex_lock(&m.lock);
    for (unsigned i = 0; i < m.n_kept; i++)
        n += m.kept[i].name[0] == kind;
    pthread_mutex_unlock(&m.lock);
    return n;
}

/* ---- a heap with something in it, under a root ---- */

static struct acre_heap *open_with_text(void)
{
    struct acre_heap *heap;
    assert_int_equal(acre_open(&heap, socket_path, NULL), 0);
    char *text = acre_alloc(heap, 100);
    strcpy(text, "still here");
    assert_int_equal(acre_root_set(heap, "text", acre_offset(heap, text)), 0);
    return heap;
}

static void expect_text(struct acre_heap *heap)
{
    acre_off off;
    assert_int_equal(acre_root_get(heap, "text", &off), 0);
    assert_string_equal(acre_pointer(heap, off), "still here");
}

/* ---- tests ---- */

static void a_killed_daemon_comes_back_with_its_heap(void **state)
{
    (void)state;
    pid_t pid = start();
    struct acre_heap *heap = open_with_text();
    assert_int_equal(count_kept('l'), 2); /* listen, and the life page */
    assert_int_equal(count_kept('b'), 1);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        pid = start();
        expect_text(heap);
        assert_non_null(acre_alloc(heap, 40 << 20));
    }
    assert_int_equal(acre_root_del(heap, "text"), 0);
    acre_close(heap);
    for (unsigned tries = 0; count_kept('l') != 1; tries++) { /* the page is forgotten */
        assert_true(tries < 1000);
        usleep(10000);
    }
    assert_int_equal(kill(pid, SIGTERM), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void put_books_version(uint32_t version)
{
    for (unsigned i = 0; i < m.n_kept; i++)
        if (m.kept[i].name[0] == 'b')
            assert_int_equal(pwrite(m.kept[i].fd, &version, sizeof(version),
                                    offsetof(struct books_header, version)),
                             sizeof(version));
}

/* A daemon that cannot read the books leaves all as it is, for one that can. */
static void books_of_another_version_are_left_alone(void **state)
{
    int status;
    (void)state;
    pid_t pid = start();
    struct acre_heap *heap = open_with_text();
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    hear_all();
    unsigned n_kept = m.n_kept;
    put_books_version(BOOKS_VERSION + 1);
    for (int i = 0; i < 2; i++) {
        pid = start_only();
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
        hear_all();
        assert_int_equal(m.n_kept, n_kept);
    }
    put_books_version(BOOKS_VERSION);
    pid = start();
    expect_text(heap);
    acre_close(heap);
    assert_int_equal(kill(pid, SIGTERM), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

/* A session's programs inherit their manager's address, which is not meant for them. */
static void a_users_own_daemon_leaves_the_manager_alone(void **state)
{
    char user_socket[96];
    hear_all();
    unsigned n_ready = m.n_ready, n_kept = m.n_kept;
    (void)state;
    snprintf(user_socket, sizeof(user_socket), "%s/user.sock", dir);
    pid_t pid = fork();
    if (pid == 0) {
        setenv("NOTIFY_SOCKET", m.address, 1);
        execl(getenv("ACRE_DAEMON"), "acred", "--user", "--socket", user_socket, (char *)NULL);
        _exit(127);
    }
    struct acre_heap *heap;
    while (!harness_listens(user_socket))
        usleep(1000);
    assert_int_equal(acre_open(&heap, user_socket, NULL), 0);
    assert_non_null(acre_alloc(heap, 1000));
    acre_close(heap);
    assert_int_equal(kill(pid, SIGTERM), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    hear_all();
    assert_int_equal(m.n_ready, n_ready);
    assert_int_equal(m.n_kept, n_kept);
}

static int listen_ourselves(void)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    strcpy(addr.sun_path, socket_path);
    (void)unlink(socket_path); /* of a daemon that was killed */
    assert_int_equal(bind(sock, (struct sockaddr *)&addr, sizeof(addr)), 0);
    assert_int_equal(listen(sock, 8), 0);
    return sock;
}

/* Who passes a socket need not keep anything: then the daemon's own keeper does. */
static void a_socket_is_taken_from_who_keeps_nothing(void **state)
{
    struct acre_heap *heap;
    acre_off off;
    (void)state;
    int sock = listen_ourselves();
    pid_t pid = fork();
    if (pid == 0) {
        char number[16];
        snprintf(number, sizeof(number), "%d", (int)getpid());
        setenv("LISTEN_PID", number, 1);
        setenv("LISTEN_FDS", "1", 1);
        dup2(sock, 3) == 3 ? (void)close_range(4, ~0u, 0) : _exit(1);
        fcntl(3, F_SETFD, 0);
        execl(getenv("ACRE_DAEMON"), "acred", "--socket", "/nowhere/acred.sock", (char *)NULL);
        _exit(127);
    }
    close(sock);
    assert_int_equal(acre_open(&heap, socket_path, NULL), 0);
    assert_int_equal(acre_root_set(heap, "block", acre_offset(heap, acre_alloc(heap, 100))), 0);
    struct daemon on = {.pid = pid};
    assert_int_equal(kill(daemon_worker(&on), SIGKILL), 0);
    assert_int_equal(acre_root_get(heap, "block", &off), 0);
    acre_close(heap);
    assert_int_equal(kill(pid, SIGTERM), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_int_equal(access(socket_path, F_OK), 0); /* is not its own */
}

static void an_environment_that_makes_no_sense_is_told(void **state)
{
    int status;
    (void)state;
    for (int i = 0; i < 3; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            char number[16];
            snprintf(number, sizeof(number), "%d", (int)getpid());
            setenv("LISTEN_PID", number, 1);
            setenv("LISTEN_FDS", i == 0 ? "99999999" : i == 1 ? "7" : "0", 1);
            setenv("LISTEN_FDNAMES", "a:b", 1);
            setenv("NOTIFY_SOCKET", i == 2 ? "/nowhere/at all" : "", 1);
            close_range(3, ~0u, 0);
            execl(getenv("ACRE_DAEMON"), "acred", "--socket", socket_path, (char *)NULL);
            _exit(127);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_killed_daemon_comes_back_with_its_heap),
        cmocka_unit_test(books_of_another_version_are_left_alone),
        cmocka_unit_test(a_users_own_daemon_leaves_the_manager_alone),
        cmocka_unit_test(a_socket_is_taken_from_who_keeps_nothing),
        cmocka_unit_test(an_environment_that_makes_no_sense_is_told),
    };
    return cmocka_run_group_tests(tests, up, down);
}
