/* SPDX-License-Identifier: Apache-2.0 */
/*
 * leaks.c - acre-trace leaks: which call sites' blocks are still there. A block is not a leak for
 * being alive: those that are younger than half of the time that was looked at are left out, unless
 * the program has ended; and the rest stands by call site, the most bytes first.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "leaks.skel.h"
#include "session.h"
#include "tools/look/table.h"

struct site {
    struct trace_stack stack;
    uint32_t pid;
    char comm[TRACE_COMM];
    uint64_t n, bytes, weight_bytes, oldest_ns;
};

struct sites {
    size_t n, capacity;
    struct site *list;
    uint64_t n_young, n_of_dead;
    bool is_short;
};

static bool is_same(const struct site *site, const struct leak_block *b)
{
    return site->pid == b->pid && memcmp(&site->stack, &b->stack, sizeof(b->stack)) == 0;
}

static struct site *site_of(struct sites *sites, const struct leak_block *b)
{
    for (size_t i = 0; i < sites->n; i++)
        if (is_same(&sites->list[i], b))
            return &sites->list[i];
    if (sites->n == sites->capacity) {
        size_t capacity = 2 * sites->capacity + 64;
        struct site *list = realloc(sites->list, capacity * sizeof(*list));
        if (!list)
            return NULL;
        sites->list = list;
        sites->capacity = capacity;
    }
    struct site *site = &sites->list[sites->n++];
    *site = (struct site){.stack = b->stack, .pid = b->pid, .oldest_ns = b->at_ns};
    memcpy(site->comm, b->comm, sizeof(site->comm));
    return site;
}

/* Of a command that has ended all blocks count: nobody will free them any more. */
static void count(struct sites *sites, const struct leak_block *b, uint64_t young_ns, pid_t ended)
{
    bool is_end = ended != 0 && b->pid == (uint32_t)ended;

    if (b->at_ns > young_ns && !is_end) {
        sites->n_young++;
        return;
    }
    if (!is_end && kill((pid_t)b->pid, 0) < 0 && errno == ESRCH) {
        sites->n_of_dead++; /* freed with it, unless they were published */
        return;
    }
    struct site *site = site_of(sites, b);
    if (!site) {
        sites->is_short = true;
        return;
    }
    site->n++;
    site->bytes += b->bytes;
    site->weight_bytes += b->weight_bytes;
    site->oldest_ns = MIN(site->oldest_ns, b->at_ns);
}

static void read_blocks(struct sites *sites, int map_fd, uint64_t young_ns, pid_t ended)
{
    struct leak_key key, next, *at = NULL;
    struct leak_block b;

    while (bpf_map_get_next_key(map_fd, at, &next) == 0) {
        key = next;
        at = &key;
        if (bpf_map_lookup_elem(map_fd, &key, &b) == 0)
            count(sites, &b, young_ns, ended);
    }
}

static int by_weight(const void *a, const void *b)
{
    uint64_t x = ((const struct site *)a)->weight_bytes, y = ((const struct site *)b)->weight_bytes;

    return (x < y) - (x > y);
}

static void print_site(struct session *s, const struct site *site, uint64_t now_ns)
{
    char bytes[24], comm[2 * TRACE_COMM];
    char *stack = stacks_listed(s->stacks, (pid_t)site->pid, &site->stack, "    ");

    if (s->every_bytes <= 1)
        printf("%s in %" PRIu64 " blocks", table_bytes(bytes, site->bytes), site->n);
    else
        printf("about %s, %" PRIu64 " blocks sampled", table_bytes(bytes, site->weight_bytes),
               site->n);
    printf(", the oldest %.1f s, of %s (%" PRIu32 ")\n", (double)(now_ns - site->oldest_ns) / 1e9,
           table_printable(comm, sizeof(comm), site->comm), site->pid);
    printf("%s", stack ? stack : "    [no memory]\n");
    free(stack);
}

static void report(struct session *s, const struct leaks_bpf *bpf, struct sites *sites)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    uint64_t now_ns = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
    read_blocks(sites, bpf_map__fd(bpf->maps.blocks), s->begin_ns + (now_ns - s->begin_ns) / 2,
                s->command && s->child == 0 ? s->pid : 0);
    if (sites->n > 0)
        qsort(sites->list, sites->n, sizeof(*sites->list), by_weight);
    for (size_t i = 0; i < MIN(sites->n, s->n_top); i++)
        print_site(s, &sites->list[i], now_ns);
    if (sites->n > s->n_top)
        printf("and %zu more call sites (--top)\n", sites->n - s->n_top);
    printf("%" PRIu64 " blocks sampled, %" PRIu64 " of them freed", (uint64_t)bpf->bss->n_sampled,
           (uint64_t)bpf->bss->n_freed);
    if (sites->n_young > 0)
        printf(", %" PRIu64 " too young to tell", sites->n_young);
    if (sites->n_of_dead > 0)
        printf(", %" PRIu64 " of processes that have ended", sites->n_of_dead);
    printf("; ");
    session_say_scope(s, stdout);
    if (bpf->bss->n_lost > 0 || sites->is_short)
        fprintf(stderr, "acre-trace: no room for %" PRIu64 " samples: --every more bytes\n",
                (uint64_t)bpf->bss->n_lost);
}

static int attach(struct session *s, struct leaks_bpf *bpf)
{
    /* All others call one of these. */
    static const char *const functions[] = {"acre_alloc", "acre_allocx", "acre_alloc_wait"};
    int code = session_find(s);

    for (unsigned i = 0; i < ARRAY_LEN(functions) && code == EXIT_WELL; i++) {
        code = session_function(s, bpf->progs.alloc_return, functions[i], true, false);
        if (code == EXIT_WELL)
            code = session_function(s, bpf->progs.alloc_entry, functions[i], false, false);
    }
    return code ? code : session_function(s, bpf->progs.free_entry, "acre_free", false, true);
}

int leaks_run(struct session *s)
{
    struct sites sites = {0};
    struct leaks_bpf *bpf = leaks_bpf__open();

    if (bpf)
        bpf->rodata->every_bytes = s->every_bytes;
    int r = bpf ? leaks_bpf__load(bpf) : -errno;
    int code = r < 0 ? session_not_loaded(-r) : attach(s, bpf);
    if (code == EXIT_WELL)
        session_start(s);
    while (code == EXIT_WELL && session_goes_on(s))
        ;
    if (code == EXIT_WELL)
        report(s, bpf, &sites);
    free(sites.list);
    leaks_bpf__destroy(bpf);
    return code;
}
