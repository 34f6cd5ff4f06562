/* SPDX-License-Identifier: Apache-2.0 */
/* faults.c - acre-trace faults: page faults in segments, per tenant and client. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "faults.skel.h"
#include "session.h"
#include "tools/look/table.h"
#include "who.h"

#define LOOK_TICKS 10u

struct process {
    uint32_t pid, n_segments;
    uint64_t n_read, n_write;
    char comm[TRACE_COMM];
};

struct processes {
    size_t n, capacity;
    struct process *list;
};

static struct process *process_of(struct processes *all, const struct fault_key *key)
{
    for (size_t i = 0; i < all->n; i++)
        if (all->list[i].pid == key->pid)
            return &all->list[i];
    if (all->n == all->capacity) {
        size_t capacity = 2 * all->capacity + 64;
        struct process *list = realloc(all->list, capacity * sizeof(*list));
        if (!list)
            return NULL;
        all->list = list;
        all->capacity = capacity;
    }
    all->list[all->n] = (struct process){.pid = key->pid};
    return &all->list[all->n++];
}

static int read_rows(struct processes *all, int map_fd)
{
    struct fault_key key, next, *at = NULL;
    struct fault_row row;

    while (bpf_map_get_next_key(map_fd, at, &next) == 0) {
        key = next;
        at = &key;
        if (bpf_map_lookup_elem(map_fd, &key, &row) < 0)
            continue;
        struct process *p = process_of(all, &key);
        if (!p)
            return -ENOMEM;
        p->n_segments++;
        p->n_read += row.n_read;
        p->n_write += row.n_write;
        memcpy(p->comm, row.comm, sizeof(p->comm));
    }
    return 0;
}

static int by_faults(const void *a, const void *b)
{
    const struct process *p = a, *q = b;
    uint64_t x = p->n_read + p->n_write, y = q->n_read + q->n_write;

    return (x < y) - (x > y);
}

/* A process can be the client of several tenants: its faults are counted once. */
static void add_whose(struct table *table, struct who *who, uint32_t pid)
{
    char tenants[TABLE_CELL_BYTES] = "", name[TENANT_NAME_BYTES], ids[32] = "";
    size_t n_tenants = 0, n_ids = 0;

    for (struct who_client *c = NULL; (c = who_next(who, pid, c));) {
        n_tenants +=
            (size_t)snprintf(tenants + n_tenants, sizeof(tenants) - n_tenants, "%s%s",
                             n_tenants ? "," : "", table_printable(name, sizeof(name), c->tenant));
        n_ids += (size_t)snprintf(ids + n_ids, sizeof(ids) - n_ids, "%s%" PRIu32, n_ids ? "," : "",
                                  c->id);
        if (n_tenants >= sizeof(tenants) || n_ids >= sizeof(ids))
            break;
    }
    table_add(table, "%s", n_tenants ? tenants : "-");
    table_add(table, "%s", n_ids ? ids : "-");
}

static void report(struct session *s, struct processes *all, struct who *who, uint64_t n_lost)
{
    static const char *const heads[] = {"<tenant", "client", "pid",     "<process",
                                        "writes",  "reads",  "segments"};
    struct table table;
    char comm[2 * TRACE_COMM];
    uint64_t sum = 0;

    table_init(&table, heads, ARRAY_LEN(heads));
    if (all->n > 0)
        qsort(all->list, all->n, sizeof(*all->list), by_faults);
    for (size_t i = 0; i < all->n; i++) {
        const struct process *p = &all->list[i];
        if (s->pid != 0 && p->pid != (uint32_t)s->pid)
            continue;
        add_whose(&table, who, p->pid);
        table_add(&table, "%" PRIu32, p->pid);
        table_add(&table, "%s", table_printable(comm, sizeof(comm), p->comm));
        table_add(&table, "%" PRIu64, p->n_write);
        table_add(&table, "%" PRIu64, p->n_read);
        table_add(&table, "%" PRIu32, p->n_segments);
        sum += p->n_read + p->n_write;
    }
    table_print(&table, stdout, "");
    printf("%" PRIu64 " page faults in segments, ", sum);
    session_say_scope(s, stdout);
    if (n_lost > 0)
        fprintf(stderr, "acre-trace: %" PRIu64 " faults could not be looked at\n", n_lost);
}

int faults_run(struct session *s)
{
    struct processes all = {0};
    struct who who;
    struct faults_bpf *bpf = faults_bpf__open_and_load();

    if (!bpf)
        return session_not_loaded(errno);
    int code = session_link(s, bpf_program__attach(bpf->progs.page_fault));
    if (code == EXIT_WELL && who_init(&who, s->socket) < 0)
        fprintf(stderr, "acre-trace: %s: tenants stay unnamed\n", who.peer.why);
    if (code == EXIT_WELL)
        session_start(s);
    for (unsigned tick = 1; code == EXIT_WELL && session_goes_on(s); tick++)
        if (tick % LOOK_TICKS == 0)
            (void)who_look(&who);
    if (code == EXIT_WELL) {
        (void)who_look(&who);
        if (read_rows(&all, bpf_map__fd(bpf->maps.rows)) < 0)
            fprintf(stderr, "acre-trace: short of memory: some processes are missing\n");
        report(s, &all, &who, bpf->bss->n_lost);
        who_deinit(&who);
    }
    free(all.list);
    faults_bpf__destroy(bpf);
    return code;
}
