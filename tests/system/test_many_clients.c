/* SPDX-License-Identifier: Apache-2.0 */
/* ctest-timeout: 300 */
/* Many clients at once in little memory, and many one after another: nothing stays behind. */
#include "tests/system/harness.h"

#define N_CLIENTS 400
#define N_ROUNDS  1000

struct meeting {
    int ready, failed, go;
};

/* Ten blocks of different sizes: 16 bytes to 10 KiB. */
static size_t size_of(unsigned i)
{
    static const size_t sizes[10] = {16, 40, 100, 250, 600, 1000, 1500, 3000, 6000, 10000};
    return sizes[i];
}

static bool one_of_many(void *arg)
{
    struct meeting *m = arg;
    struct acre_heap *heap;
    unsigned char *blocks[10];
    bool ok = acre_open(&heap, the_daemon.socket, "small") == 0;

    for (unsigned i = 0; ok && i < 10; i++) {
        blocks[i] = acre_alloc(heap, size_of(i));
        ok = blocks[i] != NULL;
        if (ok)
            memset(blocks[i], getpid() & 0xff, size_of(i));
    }
    if (!ok)
        fprintf(stderr, "client %d: %s\n", (int)getpid(), acre_last_error());
    __atomic_fetch_add(ok ? &m->ready : &m->failed, 1, __ATOMIC_SEQ_CST);
    while (!__atomic_load_n(&m->go, __ATOMIC_SEQ_CST))
        usleep(10000);
    for (unsigned i = 0; ok && i < 10; i++) {
        CHECK(blocks[i][0] == (getpid() & 0xff) && blocks[i][size_of(i) - 1] == blocks[i][0]);
        acre_free(heap, blocks[i]);
    }
    acre_close(heap);
    return ok;
}

static void four_hundred_clients_share_64_mib(void **state)
{
    (void)state;
    struct meeting *m = shared_page(sizeof(*m));
    pid_t pids[N_CLIENTS];

    for (unsigned i = 0; i < N_CLIENTS; i++)
        pids[i] = child_start(one_of_many, m);
    while (__atomic_load_n(&m->ready, __ATOMIC_SEQ_CST) +
               __atomic_load_n(&m->failed, __ATOMIC_SEQ_CST) <
           N_CLIENTS)
        usleep(10000);
    struct tenant_stats s = tenant_stats(&the_daemon, "small");
    __atomic_store_n(&m->go, 1, __ATOMIC_SEQ_CST);
    unsigned n_ok = 0;
    for (unsigned i = 0; i < N_CLIENTS; i++)
        n_ok += child_ok(pids[i]);
    printf("%u clients: %lld bytes granted, %lld resident, %lld live (max %lld)\n", s.n_clients,
           s.granted_bytes, s.resident_bytes, s.live_bytes, s.max_bytes);
    assert_int_equal(n_ok, N_CLIENTS);
    assert_int_equal(s.n_clients, N_CLIENTS);
    assert_int_equal(s.live_blocks, 10 * N_CLIENTS);
    assert_true(s.granted_bytes <= s.max_bytes && s.max_bytes == 64 << 20);
    expect_settled(&the_daemon, "small", 0, 0);
}

/* Attaches, works, and dies in one of four ways. */
static bool attach_work_die(void *arg)
{
    unsigned round = *(unsigned *)arg;
    struct acre_heap *heap;

    CHECK(acre_open(&heap, the_daemon.socket, "small") == 0);
    for (unsigned i = 0; i < 10; i++) {
        void *block = acre_alloc(heap, size_of(i) * (round % 7 + 1));
        CHECK(block);
        memset(block, 1, size_of(i));
        if (i % 2)
            acre_free(heap, block);
    }
    if (round % 4 == 0)
        acre_close(heap);
    else if (round % 4 == 1)
        raise(SIGKILL);
    else if (round % 4 == 2)
        acre_free(heap, acre_alloc(heap, 1 << 20));
    return true;
}

/* Open descriptors when the daemon has noticed that the last acrectl is gone. */
static unsigned resting_fds(void)
{
    unsigned least = daemon_fds(&the_daemon);

    for (unsigned i = 0; i < 20; i++) {
        usleep(10000);
        unsigned now = daemon_fds(&the_daemon);
        least = now < least ? now : least;
    }
    return least;
}

static void a_thousand_rounds_leave_the_daemon_as_it_was(void **state)
{
    (void)state;
    /* What the first clients make the daemon open for good (segments) is not counted. */
    for (unsigned round = 0; round < 20; round++)
        (void)child_signal(child_start(attach_work_die, &round));
    expect_settled(&the_daemon, "small", 0, 0);
    long long granted = tenant_stats(&the_daemon, "small").granted_bytes;
    unsigned fds = resting_fds(), maps = daemon_maps(&the_daemon);

    for (unsigned round = 0; round < N_ROUNDS; round++) {
        int sig = child_signal(child_start(attach_work_die, &round));
        assert_int_equal(sig, round % 4 == 1 ? SIGKILL : 0);
    }
    expect_settled(&the_daemon, "small", 0, 0);
    assert_int_equal(tenant_stats(&the_daemon, "small").granted_bytes, granted);
    assert_int_equal(granted, 0);
    for (unsigned i = 0; i < 100 && daemon_fds(&the_daemon) != fds; i++)
        usleep(50000);
    assert_int_equal(daemon_fds(&the_daemon), fds);
    assert_int_equal(daemon_maps(&the_daemon), maps);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(four_hundred_clients_share_64_mib),
        cmocka_unit_test(a_thousand_rounds_leave_the_daemon_as_it_was),
    };
    return run_beside_daemon(tests, "capacity = \"1G\"\ntenant \"small\" { max = \"64M\" }\n");
}
