/* SPDX-License-Identifier: Apache-2.0 */
/*
 * work_space.c - memory taken for memory used. Used ("live") are the bytes that were asked for and
 * not freed; taken are the process's anonymous pages beyond those that it had before its first
 * block, and, for Acre, all pages of all of the tenant's segments as acrectl reports them, so that
 * nothing hides in the daemon. Acre's daemon is a new one each time.
 *
 *   peak      blocks of sizes.h's mixture up to the given live size, then three times as many
 *             replaced at random; the most that was taken over the most that was live
 *   trimmed   after that at 64 MiB, 90 % of the blocks are freed at random and the participant is
 *             told to give back what it can (acre_trim(), malloc_trim() and their like); Acre's
 *             daemon gives back by and by, which is waited for. "pages in use" is the least that
 *             any non-moving allocator could have kept of this layout: pages with a live block
 *   a client  a process attaches to a heap that has a client already and allocates ten small blocks
 *             of different sizes: new pages of the heap, its private pages, its page tables, and
 *             its life page
 */
#include "workload.h"

#include <dlfcn.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "random.h"
#include "resident.h"
#include "say.h"
#include "sizes.h"

#define SAMPLES 12u

struct space {
    const struct child *child;
    struct mem mem;
    uint64_t seed, n_drawn, n_slots, live, live_peak, taken_peak, before;
    void **slots;
    uint32_t *slot_sizes;
    uint32_t sizes[SIZES_N];
};

static void *table_of(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE,
                   -1, 0);
    if (p == MAP_FAILED)
        give_up("no memory for the load's own tables");
    return p;
}

static uint64_t taken(const struct space *s)
{
    uint64_t now = resident_private() + resident_shared(s->child);
    return now > s->before ? now - s->before : 0;
}

static void sample(struct space *s)
{
    uint64_t now = taken(s);
    if (now > s->taken_peak)
        s->taken_peak = now;
}

static void space_free(struct space *s, uint64_t slot)
{
    if (s->mem.kind == MEM_ACRE)
        acre_free(s->mem.heap, s->slots[slot]);
    else
        free(s->slots[slot]);
    s->live -= s->slot_sizes[slot];
    s->slots[slot] = NULL;
    s->slot_sizes[slot] = 0;
}

static void space_put(struct space *s, uint64_t slot)
{
    uint32_t size = s->sizes[s->n_drawn++ & SIZES_MASK];
    s->slots[slot] = mem_alloc(s->mem, s->mem.kind, size);
    mem_touch(s->slots[slot], size);
    s->slot_sizes[slot] = size;
    s->live += size;
    if (s->live > s->live_peak)
        s->live_peak = s->live;
}

static uint64_t slots_for(const struct space *s, uint64_t live)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < SIZES_N; i++)
        sum += s->sizes[i];
    return live / (sum / SIZES_N) + 1;
}

static struct space *space_new(const struct child *child, uint64_t live)
{
    struct space *s = table_of(sizeof(*s));
    sizes_draw(s->sizes, 1, true);
    s->child = child;
    s->seed = 1;
    s->n_slots = slots_for(s, live);
    s->slots = table_of(s->n_slots * sizeof(*s->slots));
    s->slot_sizes = table_of(s->n_slots * sizeof(*s->slot_sizes));
    s->before = resident_private() + resident_shared(child);
    s->mem = mem_open(child->kind, child->socket, 0);
    return s;
}

static void churn(struct space *s)
{
    for (uint64_t slot = 0; slot < s->n_slots; slot++)
        space_put(s, slot);
    sample(s);
    for (unsigned i = 0; i < SAMPLES; i++) {
        for (uint64_t k = 0; k < 3 * s->n_slots / SAMPLES; k++) {
            uint64_t slot = random_below(&s->seed, (uint32_t)s->n_slots);
            space_free(s, slot);
            space_put(s, slot);
        }
        sample(s);
    }
}

static void run_peak(const struct child *child, const char *metric, uint64_t live)
{
    struct space *s = space_new(child, live);
    churn(s);
    report(metric, "x", (double)s->taken_peak / (double)s->live_peak, -1);
}

/* ---- trimmed ---- */

/* What each participant offers for that; symbols of those that are not loaded are not there. */
static void trim(struct mem mem)
{
    void (*mimalloc_collect)(bool) = dlsym(RTLD_DEFAULT, "mi_collect");
    int (*jemalloc_ctl)(const char *, void *, size_t *, void *, size_t) =
        dlsym(RTLD_DEFAULT, "mallctl");
    void (*tcmalloc_release)(void) = dlsym(RTLD_DEFAULT, "MallocExtension_ReleaseFreeMemory");
    int (*glibc_trim)(size_t) = dlsym(RTLD_DEFAULT, "malloc_trim");
    if (mem.kind == MEM_ACRE)
        (void)acre_trim(mem.heap);
    else if (mimalloc_collect)
        mimalloc_collect(true);
    else if (jemalloc_ctl) {
        jemalloc_ctl("thread.tcache.flush", NULL, NULL, NULL, 0);
        jemalloc_ctl("arena.4096.purge", NULL, NULL, NULL, 0); /* 4096: all of them */
    } else if (tcmalloc_release)
        tcmalloc_release();
    else if (glibc_trim)
        glibc_trim(0);
}

/* Until nothing has been given back for two seconds. */
static uint64_t taken_at_last(const struct space *s)
{
    struct timespec pause = {.tv_nsec = 250000000};
    uint64_t least = taken(s);
    for (unsigned n_same = 0; s->mem.kind == MEM_ACRE && n_same < 8; n_same++) {
        nanosleep(&pause, NULL);
        uint64_t now = taken(s);
        if (now < least)
            n_same = 0;
        least = now < least ? now : least;
    }
    return least;
}

static int compare(const void *a, const void *b)
{
    uintptr_t x = *(const uintptr_t *)a, y = *(const uintptr_t *)b;
    return (x > y) - (x < y);
}

/* The pages in which a live block lies: nothing that does not move blocks can give those back. */
static uint64_t pages_in_use(const struct space *s)
{
    uint64_t n = 0, n_distinct = 0;
    uintptr_t *pages = table_of((s->live / 4096 + 2 * s->n_slots) * sizeof(*pages));
    for (uint64_t slot = 0; slot < s->n_slots; slot++) {
        uintptr_t begin = (uintptr_t)s->slots[slot];
        for (uintptr_t page = begin / 4096; begin && page * 4096 < begin + s->slot_sizes[slot];
             page++)
            pages[n++] = page;
    }
    qsort(pages, n, sizeof(*pages), compare);
    for (uint64_t i = 0; i < n; i++)
        n_distinct += i == 0 || pages[i] != pages[i - 1];
    return n_distinct;
}

static void run_trimmed(const struct child *child, const char *metric)
{
    struct space *s = space_new(child, 64 << 20);
    churn(s);
    for (uint64_t slot = 0; slot < s->n_slots; slot++)
        if (random_below(&s->seed, 10) != 0)
            space_free(s, slot);
    trim(s->mem);
    report(metric, "x", (double)taken_at_last(s) / (double)s->live, -1);
    report("trimmed, pages in use", "x", (double)pages_in_use(s) * 4096 / (double)s->live, -1);
}

/* ---- a client ---- */

#define CLIENTS 8u

struct meeting {
    _Atomic unsigned n_ready;
    uint64_t private_bytes[CLIENTS + 1];
};

static void be_client(const struct child *child, struct meeting *meeting, unsigned n)
{
    static const size_t sizes[] = {16, 32, 48, 64, 96, 128, 256, 512, 1024, 2048};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    uint64_t before = resident_private() + resident_tables();
    struct mem mem = mem_open(child->kind, child->socket, 0);
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        char *block = mem_alloc(mem, MEM_ACRE, sizes[i]);
        mem_touch(block, sizes[i]);
    }
    meeting->private_bytes[n] = resident_private() + resident_tables() - before;
    meeting->n_ready++;
    for (;;)
        pause();
}

static pid_t start_client(const struct child *child, struct meeting *meeting, unsigned n)
{
    pid_t pid = fork();
    if (pid < 0)
        give_up("cannot fork");
    if (pid == 0)
        be_client(child, meeting, n);
    while (meeting->n_ready <= n) {
        if (waitpid(pid, NULL, WNOHANG) != 0)
            give_up("a client has failed");
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    return pid;
}

static void run_clients(const struct child *child, const char *metric)
{
    pid_t pids[CLIENTS + 1];
    struct meeting *meeting =
        mmap(NULL, sizeof(*meeting), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (meeting == MAP_FAILED)
        give_up("no memory for a meeting");
    pids[0] = start_client(child, meeting, 0);
    uint64_t first = resident_shared(child), bytes = 0;
    for (unsigned i = 1; i <= CLIENTS; i++) {
        pids[i] = start_client(child, meeting, i);
        bytes += meeting->private_bytes[i] + 4096; /* its life page */
    }
    bytes += resident_shared(child) - first;
    for (unsigned i = 0; i <= CLIENTS; i++) {
        kill(pids[i], SIGKILL);
        waitpid(pids[i], NULL, 0);
    }
    report(metric, "KiB", (double)bytes / CLIENTS / 1024, -1);
}

/* ---- cases ---- */

static void run_space(const struct child *child, unsigned case_idx)
{
    const char *metric = work_space.cases[case_idx];
    if (case_idx == 0)
        run_peak(child, metric, 1 << 20);
    else if (case_idx == 1)
        run_peak(child, metric, child->is_quick ? 8 << 20 : 64 << 20);
    else if (case_idx == 2)
        run_trimmed(child, metric);
    else if (child->kind == MEM_ACRE)
        run_clients(child, metric);
}

const struct workload work_space = {
    .name = "space",
    .about = "memory taken / memory asked for; what one more client with ten small blocks takes",
    .cases = {"peak, 1 MiB", "peak, 64 MiB", "trimmed", "a client"},
    .peers = PEERS_MALLOC,
    .fresh_daemon = true,
    .run = run_space,
};

static void run_space_big(const struct child *child, unsigned case_idx)
{
    static const uint64_t live[] = {256ul << 20, 1ul << 30, 4ul << 30};
    uint64_t machine = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    if (live[case_idx] > machine / 4) /* the private daemon gives half of it */
        return;
    run_peak(child, work_space_big.cases[case_idx],
             child->is_quick ? live[case_idx] / 64 : live[case_idx]);
}

const struct workload work_space_big = {
    .name = "space-big",
    .about = "the same peak at larger sizes, at most a quarter of the machine; once",
    .cases = {"peak, 256 MiB", "peak, 1 GiB", "peak, 4 GiB"},
    .peers = PEERS_MALLOC,
    .fresh_daemon = true,
    .runs_max = 1, /* quartiles of the smaller ones lie within 0.01 */
    .run = run_space_big,
};
