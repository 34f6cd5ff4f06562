/* SPDX-License-Identifier: Apache-2.0 */
/* stacks.c - a Dwfl for each process: its files stay open, so its names outlast it. */
#include "stacks.h"

#include <elfutils/libdwfl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PROCESSES_MAX 256u
#define LIBRARY       "libacre.so"
#define LOOK_MS       2u /* between two looks at what a process maps */

struct process {
    pid_t pid;
    Dwfl *dwfl; /* NULL: could not be looked at */
    uint64_t looked_at_ms;
};

struct stacks {
    size_t n;
    struct process list[PROCESSES_MAX]; /* the last is the one that is forgotten */
};

static const Dwfl_Callbacks callbacks = {.find_elf = dwfl_linux_proc_find_elf,
                                         .find_debuginfo = dwfl_standard_find_debuginfo};

static int any_module(Dwfl_Module *module, void **user, const char *name, Dwarf_Addr start,
                      void *ctx)
{
    (void)module;
    (void)user;
    (void)name;
    (void)start;
    (void)ctx;
    return DWARF_CB_ABORT; /* dwfl_getmodules() says so: there is one */
}

struct stacks *stacks_new(void)
{
    return calloc(1, sizeof(struct stacks));
}

static void forget(struct process *p)
{
    if (p->dwfl)
        dwfl_end(p->dwfl);
    p->dwfl = NULL;
}

void stacks_free(struct stacks *stacks)
{
    for (size_t i = 0; stacks && i < stacks->n; i++)
        forget(&stacks->list[i]);
    free(stacks);
}

static uint64_t now_ms(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* NULL: it maps nothing any more, or may not be looked at. */
static Dwfl *report(pid_t pid)
{
    Dwfl *dwfl = dwfl_begin(&callbacks);

    if (!dwfl)
        return NULL;
    dwfl_report_begin(dwfl);
    int r = dwfl_linux_proc_report(dwfl, pid);
    if (dwfl_report_end(dwfl, NULL, NULL) == 0 && r == 0 &&
        dwfl_getmodules(dwfl, any_module, NULL, 0) != 0)
        return dwfl;
    dwfl_end(dwfl);
    return NULL;
}

/* Anew: it may have become another program. */
static void look(struct process *p)
{
    Dwfl *dwfl = report(p->pid);

    p->looked_at_ms = now_ms();
    if (!dwfl)
        return;
    forget(p);
    p->dwfl = dwfl;
}

static struct process *process_of(struct stacks *stacks, pid_t pid)
{
    for (size_t i = 0; i < stacks->n; i++)
        if (stacks->list[i].pid == pid)
            return &stacks->list[i];
    if (stacks->n == PROCESSES_MAX)
        forget(&stacks->list[--stacks->n]);
    struct process *p = &stacks->list[stacks->n++];
    *p = (struct process){.pid = pid};
    look(p);
    return p;
}

void stacks_learn(struct stacks *stacks, pid_t pid)
{
    look(process_of(stacks, pid));
}

/* The instruction before a return address is the call. NULL: nothing is known there. */
static Dwfl_Module *module_at(struct process *p, uint64_t ip)
{
    Dwfl_Module *m = p->dwfl ? dwfl_addrmodule(p->dwfl, ip - 1) : NULL;

    if (!m && now_ms() - p->looked_at_ms >= LOOK_MS) {
        look(p);
        m = p->dwfl ? dwfl_addrmodule(p->dwfl, ip - 1) : NULL;
    }
    return m;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

static const char *module_name(Dwfl_Module *m)
{
    const char *name = dwfl_module_info(m, NULL, NULL, NULL, NULL, NULL, NULL, NULL);

    return name ? base_name(name) : "?";
}

/* What stands between frames in a folded stack stands in none. */
static void say_name(FILE *to, Dwfl_Module *m, uint64_t ip)
{
    const char *name = dwfl_module_addrname(m, ip - 1);
    GElf_Addr start = 0;

    if (!name) {
        (void)dwfl_module_info(m, NULL, &start, NULL, NULL, NULL, NULL, NULL);
        fprintf(to, "%s+0x%llx", module_name(m), (unsigned long long)(ip - start));
        return;
    }
    for (; *name; name++)
        fputc(*name == ';' ? ':' : *name, to);
}

static void say_line(FILE *to, Dwfl_Module *m, uint64_t ip)
{
    Dwfl_Line *line = dwfl_module_getsrc(m, ip - 1);
    int number = 0;
    const char *file = line ? dwfl_lineinfo(line, NULL, &number, NULL, NULL, NULL) : NULL;

    if (file)
        fprintf(to, " (%s:%d)", base_name(file), number);
    else
        fprintf(to, " (%s)", module_name(m));
}

/* Frames that a walk without frame pointers made up lie in no mapping. */
static size_t known_frames(struct process *p, const struct trace_stack *stack,
                           Dwfl_Module *modules[static TRACE_FRAMES])
{
    size_t n = 0;

    while (n < TRACE_FRAMES && stack->ip[n] != 0 && (modules[n] = module_at(p, stack->ip[n])))
        n++;
    return n;
}

static bool is_library(Dwfl_Module *m)
{
    return strncmp(module_name(m), LIBRARY, sizeof(LIBRARY) - 1) == 0;
}

char *stacks_folded(struct stacks *stacks, pid_t pid, const struct trace_stack *stack)
{
    struct process *p = process_of(stacks, pid);
    Dwfl_Module *modules[TRACE_FRAMES];
    size_t n = known_frames(p, stack, modules), size;
    char *text = NULL;
    FILE *to = open_memstream(&text, &size);

    if (!to)
        return NULL;
    if (n == 0)
        fprintf(to, "[unknown]");
    for (size_t i = n; i-- > 0;) {
        if (is_library(modules[i]) && i + 1 < n && is_library(modules[i + 1]))
            continue;
        if (i + 1 < n)
            fputc(';', to);
        if (is_library(modules[i]))
            fprintf(to, "%s", module_name(modules[i]));
        else
            say_name(to, modules[i], stack->ip[i]);
    }
    return fclose(to) == 0 ? text : (free(text), NULL);
}

char *stacks_listed(struct stacks *stacks, pid_t pid, const struct trace_stack *stack,
                    const char *indent)
{
    struct process *p = process_of(stacks, pid);
    Dwfl_Module *modules[TRACE_FRAMES];
    size_t n = known_frames(p, stack, modules), size;
    char *text = NULL;
    FILE *to = open_memstream(&text, &size);

    if (!to)
        return NULL;
    if (n == 0)
        fprintf(to, "%s[unknown]\n", indent);
    for (size_t i = 0; i < n; i++) {
        fprintf(to, "%s", indent);
        say_name(to, modules[i], stack->ip[i]);
        say_line(to, modules[i], stack->ip[i]);
        fputc('\n', to);
    }
    return fclose(to) == 0 ? text : (free(text), NULL);
}
