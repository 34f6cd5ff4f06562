/* SPDX-License-Identifier: Apache-2.0 */
/* ctest-timeout: 300 */
/*
 * P2 by looking: single-steps 10,000 warm alloc+free pairs, and frees of another process's blocks,
 * and decodes every instruction that ran: no system call, no lock prefix, no xchg with memory
 * (which locks by itself). The decoder is first shown one of each.
 */
#include "tests/system/harness.h"

#include <sched.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>

#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)

#define N_PAIRS    10000
#define N_FOREIGN  1000
#define SEEN_SLOTS 65536

enum verdict { HARMLESS = 0, SYSCALL, LOCKED, XCHG, MARK };

/* Legacy prefixes, an optional REX, then the opcode: enough to tell these three. */
static enum verdict decode(const uint8_t *p)
{
    const uint8_t *end = p + 15;

    if (*p == 0xcc)
        return MARK;
    while (p < end && *p && strchr("\x66\x67\xf2\xf3\x2e\x36\x3e\x26\x64\x65\xf0", *p)) {
        if (*p == 0xf0)
            return LOCKED;
        p++;
    }
    if ((*p & 0xf0) == 0x40)
        p++;
    if (p[0] == 0x0f && (p[1] == 0x05 || p[1] == 0x34))
        return SYSCALL;
    if (p[0] == 0xcd)
        return SYSCALL;
    if ((p[0] == 0x86 || p[0] == 0x87) && p[1] >> 6 != 3)
        return XCHG;
    return HARMLESS;
}

struct counts {
    unsigned long steps, by_verdict[5];
    unsigned n_distinct;
};

/* Each address is decoded once: code does not change. */
static enum verdict verdict_at(pid_t pid, uint64_t rip, struct counts *counts)
{
    static uint64_t addresses[SEEN_SLOTS];
    static uint8_t verdicts[SEEN_SLOTS];
    unsigned slot = (unsigned)(rip * 0x9e3779b97f4a7c15ull >> 48);
    uint8_t code[16] = {0};
    struct iovec local = {code, 15}, remote = {(void *)(uintptr_t)rip, 15};

    if (addresses[slot] == rip)
        return verdicts[slot];
    assert_true(process_vm_readv(pid, &local, 1, &remote, 1, 0) > 0);
    addresses[slot] = rip;
    verdicts[slot] = (uint8_t)decode(code);
    counts->n_distinct++;
    return verdicts[slot];
}

static int wait_stop(pid_t pid)
{
    int status;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (!WIFSTOPPED(status))
        fail_msg("the traced child ended with status 0x%x", status);
    return WSTOPSIG(status);
}

/* The child stops at an int3 before and after what is to be looked at. */
static void until_marker(pid_t pid)
{
    assert_int_equal(ptrace(PTRACE_CONT, pid, 0, 0), 0);
    assert_int_equal(wait_stop(pid), SIGTRAP);
}

/* Steps until the next int3 (0xcc). */
static struct counts step_to_marker(pid_t pid)
{
    struct counts c = {0};

    for (;;) {
        uint64_t rip =
            (uint64_t)ptrace(PTRACE_PEEKUSER, pid, offsetof(struct user_regs_struct, rip), 0);
        enum verdict v = verdict_at(pid, rip, &c);
        if (v == MARK)
            return c;
        c.by_verdict[v]++;
        c.steps++;
        assert_int_equal(ptrace(PTRACE_SINGLESTEP, pid, 0, 0), 0);
        assert_int_equal(wait_stop(pid), SIGTRAP);
    }
}

#define MARKER() __asm__ volatile("int3" ::: "memory")

static bool show_one_of_each(void *arg)
{
    uint64_t word = 1, other = 2;

    (void)arg;
    ptrace(PTRACE_TRACEME, 0, 0, 0);
    MARKER();
    __asm__ volatile("lock addq $1, %0" : "+m"(word));
    __asm__ volatile("xchgq %0, %1" : "+r"(other), "+m"(word));
    __asm__ volatile("syscall" : "=a"(other) : "a"(39) : "rcx", "r11", "memory"); /* getpid */
    MARKER();
    return true;
}

static bool pairs(void *arg)
{
    struct acre_heap *heap;
    acre_off *offs = arg;
    static void *foreign[N_FOREIGN];

    CHECK(acre_open(&heap, the_daemon.socket, NULL) == 0);
    for (unsigned i = 0; i < 100; i++)
        acre_free(heap, acre_alloc(heap, 64));
    for (unsigned i = 0; i < N_FOREIGN; i++)
        foreign[i] = acre_pointer(heap, offs[i]);
    ptrace(PTRACE_TRACEME, 0, 0, 0);
    MARKER();
    for (unsigned i = 0; i < N_PAIRS; i++)
        acre_free(heap, acre_alloc(heap, 64));
    MARKER();
    for (unsigned i = 0; i < N_FOREIGN; i++)
        acre_free(heap, foreign[i]);
    MARKER();
    acre_close(heap);
    return true;
}

static void finish(pid_t pid)
{
    assert_int_equal(ptrace(PTRACE_DETACH, pid, 0, 0), 0);
    assert_true(child_ok(pid));
}

static void the_looker_sees_a_lock_an_xchg_and_a_system_call(void **state)
{
    (void)state;
    pid_t pid = child_start(show_one_of_each, NULL);
    assert_int_equal(wait_stop(pid), SIGTRAP);
    struct counts c = step_to_marker(pid);
    assert_int_equal(c.by_verdict[LOCKED], 1);
    assert_int_equal(c.by_verdict[XCHG], 1);
    assert_int_equal(c.by_verdict[SYSCALL], 1);
    until_marker(pid);
    finish(pid);
}

static void expect_pure(const char *what, struct counts c, unsigned n)
{
    printf("%s: %u times, %lu instructions (%.1f each), %u distinct; system calls %lu, lock "
           "prefixes %lu, xchg with memory %lu\n",
           what, n, c.steps, (double)c.steps / n, c.n_distinct, c.by_verdict[SYSCALL],
           c.by_verdict[LOCKED], c.by_verdict[XCHG]);
    assert_true(c.steps > 20ul * n);
    assert_int_equal(c.by_verdict[SYSCALL], 0);
    assert_int_equal(c.by_verdict[LOCKED], 0);
    assert_int_equal(c.by_verdict[XCHG], 0);
}

static void alloc_and_free_make_no_system_call_and_take_no_lock(void **state)
{
    (void)state;
    acre_off *offs = shared_page(N_FOREIGN * sizeof(acre_off));
    struct acre_heap *heap = heap_open(&the_daemon, NULL);
    for (unsigned i = 0; i < N_FOREIGN; i++)
        offs[i] = acre_offset(heap, acre_alloc(heap, 64));
    pid_t pid = child_start(pairs, offs);
    assert_int_equal(wait_stop(pid), SIGTRAP);
    expect_pure("alloc+free of 64 bytes", step_to_marker(pid), N_PAIRS);
    until_marker(pid);
    expect_pure("free of another process's block", step_to_marker(pid), N_FOREIGN);
    until_marker(pid);
    finish(pid);
    acre_close(heap);
}

static int up(void **state)
{
    cpu_set_t one;

    (void)state;
    daemon_up(&the_daemon, NULL);
    /* Tracer and traced on one processor: each step is a switch, and so the cheapest one. */
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    (void)sched_setaffinity(0, sizeof(one), &one);
    return 0;
}

static int down(void **state)
{
    (void)state;
    daemon_down(&the_daemon);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_looker_sees_a_lock_an_xchg_and_a_system_call),
        cmocka_unit_test(alloc_and_free_make_no_system_call_and_take_no_lock),
    };
    return cmocka_run_group_tests(tests, up, down);
}

#else

static void instrumented_code_is_not_looked_at(void **state)
{
    (void)state;
    skip();
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(instrumented_code_is_not_looked_at)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#endif
