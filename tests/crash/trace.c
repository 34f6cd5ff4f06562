/* SPDX-License-Identifier: Apache-2.0 */
/* trace.c - see trace.h. */
#include "tests/crash/trace.h"

#include <dlfcn.h>
#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#if defined(__aarch64__)
#include <asm/ptrace.h>
#endif
#include <unistd.h>

#include "shm/base.h"
#include "tests/system/step.h"

#define FIRST_SLOTS (1u << 16)

/* ---- what differs from processor to processor ---- */

#if defined(__x86_64__)
static bool set_breakpoint(pid_t tid, uint64_t address)
{
    return ptrace(PTRACE_POKEUSER, tid, offsetof(struct user, u_debugreg[0]), address) == 0 &&
           ptrace(PTRACE_POKEUSER, tid, offsetof(struct user, u_debugreg[7]), 1) == 0;
}

static void clear_breakpoint(pid_t tid)
{
    (void)ptrace(PTRACE_POKEUSER, tid, offsetof(struct user, u_debugreg[7]), 0);
}
#elif defined(__aarch64__)
#define BREAK_ON_EXECUTION  0x1e5u /* four bytes, in user mode, enabled */
#define BREAKPOINT_BYTES(n) (offsetof(struct user_hwdebug_state, dbg_regs[n]))

static bool set_first(pid_t tid, uint64_t address, uint32_t control)
{
    struct user_hwdebug_state state = {.dbg_regs[0] = {.addr = address, .ctrl = control}};
    struct iovec first = {&state, BREAKPOINT_BYTES(1)};

    return ptrace(PTRACE_SETREGSET, tid, NT_ARM_HW_BREAK, &first) == 0;
}

static bool set_breakpoint(pid_t tid, uint64_t address)
{
    return set_first(tid, address, BREAK_ON_EXECUTION);
}

static void clear_breakpoint(pid_t tid)
{
    (void)set_first(tid, 0, 0);
}
#endif

__asm__(".text\n"
        ".globl trace_begin_marker, trace_end_marker\n"
        ".type trace_begin_marker, %function\n"
        ".type trace_end_marker, %function\n"
        "trace_begin_marker: " STEP_MARKER "\n ret\n"
        "trace_end_marker: " STEP_MARKER "\n ret\n");

int trace_probe(void)
{
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        pause();
        _exit(0);
    }
    int r = ptrace(PTRACE_SEIZE, pid, 0, PTRACE_O_EXITKILL) < 0 ? -errno : 0;
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    return r;
}

void trace_init(struct trace *t)
{
    *t = (struct trace){.pc = malloc((TRACE_MAX + 1) * sizeof(*t->pc)),
                        .anchor = malloc((TRACE_MAX + 1) * sizeof(*t->anchor)),
                        .is_point = malloc(TRACE_MAX + 1)};
    if (!t->pc || !t->anchor || !t->is_point)
        abort();
}

void trace_deinit(struct trace *t)
{
    free(t->pc);
    free(t->anchor);
    free(t->is_point);
}

bool trace_seize(pid_t tid)
{
    return ptrace(PTRACE_SEIZE, tid, 0, PTRACE_O_EXITKILL) == 0;
}

/* The next SIGTRAP stop; other signals are handed on. False: the task has ended. */
static bool wait_trap(pid_t tid, enum __ptrace_request again)
{
    int status;

    for (;;) {
        if (waitpid(tid, &status, __WALL) != tid || !WIFSTOPPED(status))
            return false;
        if (WSTOPSIG(status) == SIGTRAP && status >> 16 == 0)
            return true;
        int sig = status >> 16 ? 0 : WSTOPSIG(status);
        if (ptrace(again, tid, 0, sig) < 0)
            return false;
    }
}

bool trace_wait_marker(pid_t tid)
{
    return wait_trap(tid, PTRACE_CONT) && step_pass_marker(tid);
}

static bool step(pid_t tid)
{
    return ptrace(PTRACE_SINGLESTEP, tid, 0, 0) == 0 && wait_trap(tid, PTRACE_SINGLESTEP);
}

static bool is_syscall(pid_t tid, uint64_t pc)
{
    uint32_t code = 0;
    struct iovec local = {&code, 4}, remote = {(void *)(uintptr_t)pc, 4};

    return process_vm_readv(tid, &local, 1, &remote, 1, 0) > 0 && step_is_syscall(code);
}

/* Was this address met before? Open addressing; code is smaller than the table. */
static bool is_first(uint64_t *firsts, uint64_t pc)
{
    uint32_t slot = (uint32_t)(pc * 0x9e3779b97f4a7c15ull >> 48);

    while (firsts[slot] != 0 && firsts[slot] != pc)
        slot = (slot + 1) % FIRST_SLOTS;
    bool is_new = firsts[slot] == 0;
    firsts[slot] = pc;
    return is_new;
}

static void note(struct trace *t, uint64_t *firsts, uint64_t pc)
{
    uint32_t k = t->n;

    t->pc[k] = pc;
    t->anchor[k] = k == 0 || is_first(firsts, pc) ? k : t->anchor[k - 1];
    t->is_point[k] = false;
}

static void mark(struct trace *t, bool is_point)
{
    t->is_point[t->n] = is_point;
    if (!is_point)
        return;
    t->first_point = MIN(t->first_point, t->n);
    t->last_point = t->n;
}

bool trace_record(struct trace *t, pid_t tid, bool (*changed)(void *ctx), void *ctx)
{
    uint64_t *firsts = calloc(FIRST_SLOTS, sizeof(*firsts));
    uint64_t pc = step_pc(tid);
    bool runs = true;

    (void)changed(ctx);
    t->first_point = UINT32_MAX;
    t->last_point = 0;
    for (t->n = 0; firsts && runs && pc != (uint64_t)(uintptr_t)trace_end_marker; t->n++) {
        if (t->n == TRACE_MAX)
            break;
        note(t, firsts, pc);
        bool calls = is_syscall(tid, pc);
        runs = step(tid);
        mark(t, calls || changed(ctx));
        pc = runs ? step_pc(tid) : 0;
    }
    if (firsts)
        note(t, firsts, pc);
    free(firsts);
    return t->n > 0 && t->n < TRACE_MAX;
}

/* Where the stepping begins: at an anchor if there are breakpoints. */
static enum trace_end go_anchor(const struct trace *t, pid_t tid, uint32_t k, uint32_t *ret_at)
{
    uint32_t at = t->anchor[k];

    *ret_at = 0;
    if (t->from_start || at == 0 || !set_breakpoint(tid, t->pc[at]))
        return TRACE_THERE;
    if (ptrace(PTRACE_CONT, tid, 0, 0) < 0 || !wait_trap(tid, PTRACE_CONT))
        return TRACE_LOST;
    clear_breakpoint(tid);
    *ret_at = at;
    return step_pc(tid) == t->pc[at] ? TRACE_THERE : TRACE_ENDED;
}

enum trace_end trace_go(const struct trace *t, pid_t tid, uint32_t k)
{
    uint32_t at;
    enum trace_end end = go_anchor(t, tid, k, &at);

    for (; end == TRACE_THERE && at < k; at++)
        if (!step(tid))
            return TRACE_LOST;
    return end;
}

static cpu_set_t cpus; /* where this process may run */

void trace_share_cpu(pid_t tid)
{
    cpu_set_t one;

    CPU_ZERO(&one);
    CPU_SET((unsigned)sched_getcpu(), &one);
    if (CPU_COUNT(&cpus) == 0)
        (void)sched_getaffinity(0, sizeof(cpus), &cpus);
    (void)sched_setaffinity(0, sizeof(one), &one);
    (void)sched_setaffinity(tid, sizeof(one), &one);
}

void trace_leave_cpu(void)
{
    if (CPU_COUNT(&cpus) > 0)
        (void)sched_setaffinity(0, sizeof(cpus), &cpus);
}

void trace_reap(pid_t tid)
{
    int status;

    while (waitpid(tid, &status, __WALL) == tid && WIFSTOPPED(status))
        ;
}

/* First line of a command's output, without its end. */
static void first_line(const char *command, char *ret, size_t n)
{
    FILE *f = popen(command, "r");

    ret[0] = '\0';
    if (!f)
        return;
    if (!fgets(ret, (int)n, f))
        ret[0] = '\0';
    ret[strcspn(ret, "\n")] = '\0';
    pclose(f);
}

void trace_name(uint64_t pc, char *ret, size_t n)
{
    char command[600], line[256];
    Dl_info info;

    if (!dladdr((void *)(uintptr_t)pc, &info)) {
        snprintf(ret, n, "0x%" PRIx64, pc);
        return;
    }
    uint64_t off = pc - (uint64_t)(uintptr_t)info.dli_fbase;
    snprintf(command, sizeof(command), "addr2line -pfse '%s' 0x%" PRIx64 " 2>/dev/null",
             info.dli_fname, off);
    first_line(command, line, sizeof(line));
    snprintf(ret, n, "%s (%s+0x%" PRIx64 ")",
             line[0] ? line : (info.dli_sname ? info.dli_sname : "?"), info.dli_fname, off);
}
