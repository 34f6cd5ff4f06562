/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* common.h - what all programs in the kernel begin with. */
#ifndef ACRE_TRACE_BPF_COMMON_H
#define ACRE_TRACE_BPF_COMMON_H

/* clang-format off: order matters */
#include <linux/types.h>
#include <stdbool.h>
#include <asm/ptrace.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
/* clang-format on */

#include "events.h"

/* Half of the helpers are only for programs that are under the kernel's licence: these are under it, too. */
char trace_license[] SEC("license") = "GPL";

static __always_inline __u32 this_pid(void)
{
    return bpf_get_current_pid_tgid() >> 32;
}

static __always_inline __u32 this_tid(void)
{
    return (__u32)bpf_get_current_pid_tgid();
}

/* The callers of a function that has not touched its stack yet: the kernel walks from the frame
 * pointer, which is still the caller's, and so misses the caller itself. */
static __always_inline void stack_at_entry(struct pt_regs *ctx, struct trace_stack *stack)
{
    __u64 caller = 0;

    (void)bpf_get_stack(ctx, stack->ip, sizeof(stack->ip), BPF_F_USER_STACK);
    (void)bpf_probe_read_user(&caller, sizeof(caller), (void *)PT_REGS_SP(ctx));
    stack->ip[0] = caller;
}

#endif
