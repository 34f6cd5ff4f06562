/* SPDX-License-Identifier: Apache-2.0 */
/* growth.c - acre-trace growth: who asked for memory, as folded stacks for a flame graph. */
#include <inttypes.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>

#include "growth.skel.h"
#include "session.h"

struct grown {
    char *folded;
    uint64_t bytes;
};

struct growth {
    struct session *session;
    void *by_stack; /* of tsearch() */
    size_t n;
    uint64_t bytes;
    bool is_short; /* of memory, once */
};

static int by_text(const void *a, const void *b)
{
    return strcmp(((const struct grown *)a)->folded, ((const struct grown *)b)->folded);
}

/* "program;outermost;...;innermost". NULL: no memory. */
static char *folded_of(struct session *s, const struct growth_event *e)
{
    char comm[TRACE_COMM], *text = NULL;
    char *stack = stacks_folded(s->stacks, (pid_t)e->pid, &e->stack);
    size_t i;

    for (i = 0; i < sizeof(comm) - 1 && e->comm[i]; i++)
        comm[i] = e->comm[i] == ';' || e->comm[i] == ' ' ? '_' : e->comm[i];
    comm[i] = '\0';
    if (stack && asprintf(&text, "%s;%s", comm, stack) < 0)
        text = NULL;
    free(stack);
    return text;
}

static int heard(void *ctx, void *data, size_t n)
{
    struct growth *g = ctx;
    const struct growth_event *e = data;
    struct grown *new = n >= sizeof(*e) ? calloc(1, sizeof(*new)) : NULL;

    if (new)
        new->folded = folded_of(g->session, e);
    struct grown **found = new &&new->folded ? tsearch(new, &g->by_stack, by_text) : NULL;
    if (!found) {
        g->is_short = true;
    } else {
        (*found)->bytes += e->bytes;
        g->bytes += e->bytes;
        g->n += *found == new;
    }
    if (!found || *found != new) {
        free(new ? new->folded : NULL);
        free(new);
    }
    return 0;
}

static void collect(const void *node, VISIT visit, void *ctx)
{
    struct grown ***next = ctx;

    if (visit == postorder || visit == leaf)
        *(*next)++ = *(struct grown *const *)node;
}

static int by_bytes(const void *a, const void *b)
{
    uint64_t x = (*(struct grown *const *)a)->bytes, y = (*(struct grown *const *)b)->bytes;

    return (x < y) - (x > y);
}

static void report(const struct growth *g, uint64_t n_lost)
{
    struct grown **list = calloc(g->n + 1, sizeof(struct grown *)), **end = list;

    if (list) {
        twalk_r(g->by_stack, collect, &end);
        qsort(list, g->n, sizeof(struct grown *), by_bytes);
    }
    for (size_t i = 0; list && i < g->n; i++)
        printf("%s %" PRIu64 "\n", list[i]->folded, list[i]->bytes);
    free(list);
    fprintf(stderr, "acre-trace: %" PRIu64 " bytes granted to %zu stacks in ", g->bytes, g->n);
    session_say_scope(g->session, stderr);
    if (n_lost > 0)
        fprintf(stderr, "acre-trace: %" PRIu64 " grants came too fast and are missing\n", n_lost);
    if (g->is_short || !list)
        fprintf(stderr, "acre-trace: short of memory: some grants are missing\n");
}

static void grown_free(void *node)
{
    free(((struct grown *)node)->folded);
    free(node);
}

int growth_run(struct session *s)
{
    struct growth g = {.session = s};
    struct growth_bpf *bpf = growth_bpf__open_and_load();

    if (!bpf)
        return session_not_loaded(errno);
    struct ring_buffer *ring = ring_buffer__new(bpf_map__fd(bpf->maps.events), heard, &g, NULL);
    int code = ring ? session_find(s) : session_not_loaded(errno);
    if (code == EXIT_WELL)
        code = session_usdt(s, bpf->progs.grow, "grow");
    if (code == EXIT_WELL)
        session_start(s);
    while (code == EXIT_WELL && session_goes_on(s))
        (void)ring_buffer__consume(ring);
    if (code == EXIT_WELL) {
        (void)ring_buffer__consume(ring);
        report(&g, bpf->bss->n_lost);
    }
    tdestroy(g.by_stack, grown_free);
    ring_buffer__free(ring);
    growth_bpf__destroy(bpf);
    return code;
}
