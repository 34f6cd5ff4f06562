/* SPDX-License-Identifier: Apache-2.0 */
/* ctest-timeout: 300 */
/*
 * P2 by looking: single-steps 10,000 warm alloc+free pairs, and frees of another process's blocks,
 * and decodes every instruction that ran: no system call, and no atomic read-modify-write, which is
 * a lock prefix or an xchg with memory (which locks by itself) on x86-64, an exclusive load or
 * store, a compare-and-swap or an atomic memory operation on ARM64. There releases show as well:
 * one for each free's 0, and one for the hint. The decoder is first shown one of each.
 */
#include "tests/system/harness.h"

#include <sched.h>

#include "tests/system/step.h"

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)

#define N_PAIRS    10000
#define N_FOREIGN  1000
#define SEEN_SLOTS 65536

#if defined(__x86_64__)
#define RELEASES_SHOW 0 /* they are plain stores */
#else
#define RELEASES_SHOW 1
#endif

enum verdict { HARMLESS = 0, SYSCALL, LOCKED, XCHG, RELEASE, MARK, VERDICTS };

#if defined(__x86_64__)
/* Legacy prefixes, an optional REX, then the opcode: enough to tell these three. */
static enum verdict decode(const uint8_t *p)
{
    const uint8_t *end = p + 15;
    uint32_t code;

    if (*p == 0xcc)
        return MARK;
    while (p < end && *p && strchr("\x66\x67\xf2\xf3\x2e\x36\x3e\x26\x64\x65\xf0", *p)) {
        if (*p == 0xf0)
            return LOCKED;
        p++;
    }
    if ((*p & 0xf0) == 0x40)
        p++;
    memcpy(&code, p, sizeof(code));
    if (step_is_syscall(code))
        return SYSCALL;
    if ((p[0] == 0x86 || p[0] == 0x87) && p[1] >> 6 != 3)
        return XCHG;
    return HARMLESS;
}
#else
/* By the classes "load/store exclusive", "ordered", "compare and swap" and "atomic memory
 * operations" of the instruction set. */
static enum verdict decode(const uint8_t *p)
{
    uint32_t code;

    memcpy(&code, p, sizeof(code));
    if ((code & 0xffe0001f) == 0xd4200000) /* brk */
        return MARK;
    if (step_is_syscall(code))
        return SYSCALL;
    if ((code & 0x3fe08000) == 0x08808000) /* stlr, and its like */
        return RELEASE;
    if ((code & 0x3f800000) == 0x08000000 || (code & 0x3fa00000) == 0x08a00000)
        return LOCKED; /* ldxr, stxr and theirs, casp; cas */
    if ((code & 0x3b200c00) == 0x38200000 && (code & 0x3ffffc00) != 0x38bfc000)
        return XCHG; /* ldadd, swp and theirs; but for ldapr, which only loads */
    return HARMLESS;
}
#endif

struct counts {
    unsigned long steps, by_verdict[VERDICTS];
    unsigned n_distinct;
};

/* Each address is decoded once: code does not change. */
static enum verdict verdict_at(pid_t pid, uint64_t pc, struct counts *counts)
{
    static uint64_t addresses[SEEN_SLOTS];
    static uint8_t verdicts[SEEN_SLOTS];
    unsigned slot = (unsigned)(pc * 0x9e3779b97f4a7c15ull >> 48);
    uint8_t code[16] = {0};
    struct iovec local = {code, 15}, remote = {(void *)(uintptr_t)pc, 15};

    if (addresses[slot] == pc)
        return verdicts[slot];
    assert_true(process_vm_readv(pid, &local, 1, &remote, 1, 0) > 0);
    addresses[slot] = pc;
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

/* The child stops at a marker before and after what is to be looked at. */
static void at_marker(pid_t pid)
{
    assert_int_equal(wait_stop(pid), SIGTRAP);
    assert_true(step_pass_marker(pid));
}

static void until_marker(pid_t pid)
{
    assert_int_equal(ptrace(PTRACE_CONT, pid, 0, 0), 0);
    at_marker(pid);
}

/* Steps until the next marker. */
static struct counts step_to_marker(pid_t pid)
{
    struct counts c = {0};

    for (;;) {
        uint64_t pc = step_pc(pid);
        enum verdict v = verdict_at(pid, pc, &c);
        if (v == MARK)
            return c;
        c.by_verdict[v]++;
        c.steps++;
        assert_int_equal(ptrace(PTRACE_SINGLESTEP, pid, 0, 0), 0);
        assert_int_equal(wait_stop(pid), SIGTRAP);
    }
}

#define MARKER() __asm__ volatile(STEP_MARKER ::: "memory")

static void one_of_each(uint64_t *word)
{
    uint64_t other = 2;
#if defined(__x86_64__)
    __asm__ volatile("lock addq $1, %0" : "+m"(*word));
    __asm__ volatile("xchgq %0, %1" : "+r"(other), "+m"(*word));
    __asm__ volatile("syscall" : "=a"(other) : "a"(39) : "rcx", "r11", "memory"); /* getpid */
#else
    register uint64_t number __asm__("x8") = 172; /* getpid */
    register uint64_t result __asm__("x0");
    __asm__ volatile("ldxr %0, [%1]" : "=r"(other) : "r"(word) : "memory");
    __asm__ volatile(".arch_extension lse\n swp %0, %0, [%1]" : "+r"(other) : "r"(word) : "memory");
    __asm__ volatile("stlr %0, [%1]" ::"r"(other), "r"(word) : "memory");
    __asm__ volatile("svc #0" : "=r"(result) : "r"(number) : "memory");
#endif
}

static bool show_one_of_each(void *arg)
{
    uint64_t word = 1;

    (void)arg;
    ptrace(PTRACE_TRACEME, 0, 0, 0);
    MARKER();
    one_of_each(&word);
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

static void the_looker_sees_a_lock_an_exchange_and_a_system_call(void **state)
{
    (void)state;
    pid_t pid = child_start(show_one_of_each, NULL);
    at_marker(pid);
    struct counts c = step_to_marker(pid);
    assert_int_equal(c.by_verdict[LOCKED], 1);
    assert_int_equal(c.by_verdict[XCHG], 1);
    assert_int_equal(c.by_verdict[SYSCALL], 1);
    assert_int_equal(c.by_verdict[RELEASE], RELEASES_SHOW);
    until_marker(pid);
    finish(pid);
}

/* n_releases: of each, where they show. */
static void expect_pure(const char *what, struct counts c, unsigned n, unsigned n_releases)
{
    printf("%s: %u times, %lu instructions (%.1f each), %u distinct; system calls %lu, lock "
           "prefixes or exclusives %lu, exchanges with memory %lu, releases %lu\n",
           what, n, c.steps, (double)c.steps / n, c.n_distinct, c.by_verdict[SYSCALL],
           c.by_verdict[LOCKED], c.by_verdict[XCHG], c.by_verdict[RELEASE]);
    assert_true(c.steps > 20ul * n);
    assert_int_equal(c.by_verdict[SYSCALL], 0);
    assert_int_equal(c.by_verdict[LOCKED], 0);
    assert_int_equal(c.by_verdict[XCHG], 0);
    assert_int_equal(c.by_verdict[RELEASE], RELEASES_SHOW * n_releases * n);
}

static void alloc_and_free_make_no_system_call_and_take_no_lock(void **state)
{
    (void)state;
    acre_off *offs = shared_page(N_FOREIGN * sizeof(acre_off));
    struct acre_heap *heap = heap_open(&the_daemon, NULL);
    for (unsigned i = 0; i < N_FOREIGN; i++)
        offs[i] = acre_offset(heap, acre_alloc(heap, 64));
    pid_t pid = child_start(pairs, offs);
    at_marker(pid);
    expect_pure("alloc+free of 64 bytes", step_to_marker(pid), N_PAIRS, 1);
    until_marker(pid);
    expect_pure("free of another process's block", step_to_marker(pid), N_FOREIGN, 2);
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
        cmocka_unit_test(the_looker_sees_a_lock_an_exchange_and_a_system_call),
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
