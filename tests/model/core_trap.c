/* SPDX-License-Identifier: Apache-2.0 */
/* core_trap.c - see core_trap.h. */
#include "tests/model/core_trap.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>

#define PAGE         4096u
#define REGIONS_MAX  1024u
#define OPEN_MAX     8u
#define TRAP_FLAG    0x100
#define EXIT_UNKNOWN 78

struct region {
    char *base;
    size_t bytes;
};

static struct {
    bool is_on;
    uint32_t kill_at;
    volatile uint32_t *n_events;
    struct region regions[REGIONS_MAX];
    uint32_t n_regions;
    char *open[OPEN_MAX]; /* pages let through by the instruction that is stepped */
    uint32_t n_open;
} trap;

void trap_event(void)
{
    if (trap.is_on && ++*trap.n_events == trap.kill_at)
        _exit(TRAP_KILLED);
}

void trap_protect(void *base, size_t bytes)
{
    if (trap.n_regions == REGIONS_MAX || mprotect(base, bytes, PROT_READ) < 0)
        abort();
    trap.regions[trap.n_regions++] = (struct region){base, bytes};
}

static bool is_protected(const char *at)
{
    for (uint32_t i = 0; i < trap.n_regions; i++)
        if (at >= trap.regions[i].base && at < trap.regions[i].base + trap.regions[i].bytes)
            return true;
    return false;
}

/* All of the process's own mappings pass here; libc's do not. */
void *mmap(void *addr, size_t bytes, int prot, int flags, int fd, off_t off)
{
    void *at = (void *)syscall(SYS_mmap, addr, bytes, prot, flags, fd, off); /* NOLINT */
    bool is_shared = (flags & MAP_SHARED) && (prot & PROT_WRITE) && fd >= 0;
    if (trap.is_on && is_shared && !(flags & MAP_FIXED) && at != MAP_FAILED)
        trap_protect(at, bytes);
    return at;
}

#if defined(__x86_64__)
bool trap_possible(void)
{
    return true;
}

static void step(void *context, bool on)
{
    greg_t *flags = &((ucontext_t *)context)->uc_mcontext.gregs[REG_EFL];
    *flags = on ? *flags | TRAP_FLAG : *flags & ~(greg_t)TRAP_FLAG;
}
#else
bool trap_possible(void)
{
    return false;
}

static void step(void *context, bool on)
{
    (void)context;
    (void)on;
}
#endif

static void on_store(int sig, siginfo_t *info, void *context)
{
    char *at = info->si_addr;
    if (!is_protected(at) || trap.n_open == OPEN_MAX) {
        signal(sig, SIG_DFL); /* a fault of another kind: again, and for good */
        return;
    }
    trap_event();
    char *page = (char *)((uintptr_t)at & ~(uintptr_t)(PAGE - 1));
    if (mprotect(page, PAGE, PROT_READ | PROT_WRITE) < 0)
        _exit(EXIT_UNKNOWN);
    trap.open[trap.n_open++] = page;
    step(context, true);
}

static void on_step(int sig, siginfo_t *info, void *context)
{
    (void)sig;
    (void)info;
    for (; trap.n_open > 0; trap.n_open--)
        (void)mprotect(trap.open[trap.n_open - 1], PAGE, PROT_READ);
    step(context, false);
}

void trap_begin(uint32_t kill_at, volatile uint32_t *n_events)
{
    struct sigaction store = {.sa_sigaction = on_store, .sa_flags = SA_SIGINFO};
    struct sigaction stepped = {.sa_sigaction = on_step, .sa_flags = SA_SIGINFO};
    (void)sigaction(SIGSEGV, &store, NULL);
    (void)sigaction(SIGTRAP, &stepped, NULL);
    trap.is_on = true;
    trap.kill_at = kill_at;
    trap.n_events = n_events;
}
