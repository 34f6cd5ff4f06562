/* SPDX-License-Identifier: Apache-2.0 */
/* step.h - another task, instruction by instruction: what differs from processor to processor. */
#ifndef ACRE_TESTS_STEP_H
#define ACRE_TESTS_STEP_H

#include <elf.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/user.h>

#if defined(__x86_64__)
#define STEP_MARKER "int3" /* a trap that leaves the task behind it */
#define STEP_PC     rip
#define STEP_PASS   0
#elif defined(__aarch64__)
#define STEP_MARKER "brk #0" /* one that leaves it there */
#define STEP_PC     pc
#define STEP_PASS   4
#endif

static inline uint64_t step_pc(pid_t tid)
{
    struct user_regs_struct regs = {0};
    struct iovec all = {&regs, sizeof(regs)};

    (void)ptrace(PTRACE_GETREGSET, tid, NT_PRSTATUS, &all);
    return regs.STEP_PC;
}

/* The task has stopped at its marker: it goes on behind it. */
static inline bool step_pass_marker(pid_t tid)
{
    struct user_regs_struct regs;
    struct iovec all = {&regs, sizeof(regs)};

    if (ptrace(PTRACE_GETREGSET, tid, NT_PRSTATUS, &all) < 0)
        return false;
    regs.STEP_PC += STEP_PASS;
    return STEP_PASS == 0 || ptrace(PTRACE_SETREGSET, tid, NT_PRSTATUS, &all) == 0;
}

/* The first bytes of an instruction. */
static inline bool step_is_syscall(uint32_t code)
{
#if defined(__x86_64__)
    return (code & 0xffff) == 0x050f || (code & 0xffff) == 0x340f || (code & 0xff) == 0xcd;
#else
    return (code & 0xffe0001f) == 0xd4000001; /* svc */
#endif
}

#endif
