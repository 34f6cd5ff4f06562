/* SPDX-License-Identifier: Apache-2.0 */
/* latency.c - acre-trace latency: how long slow paths and requests took, by cause. */
#include <inttypes.h>
#include <string.h>

#include "latency.skel.h"
#include "proto/msg.h"
#include "session.h"
#include "tools/look/table.h"

#define BAR_FROM_LOG2 7u  /* 128 ns */
#define BAR_COLUMNS   24u /* one to each doubling, up to a second */

static const char *row_name(unsigned row)
{
    static const char *const causes[TRACE_CAUSES] = {[TRACE_WINDOW] = "window",
                                                     [TRACE_SLAB] = "slab",
                                                     [TRACE_EXTENT] = "extent",
                                                     [TRACE_DAEMON] = "daemon",
                                                     [TRACE_WAIT] = "wait"};
    static const char *const requests[LATENCY_REQUESTS] = {[MSG_GROW] = "grow",
                                                           [MSG_RELEASE] = "release",
                                                           [MSG_FREE_LARGE] = "free large",
                                                           [MSG_MAP_SEGMENT] = "map segment",
                                                           [MSG_ROOT] = "root",
                                                           [MSG_PUBLISH_ALL] = "publish all",
                                                           [MSG_EXTENTS] = "extents",
                                                           [MSG_RETIRE] = "retire",
                                                           [MSG_WAIT] = "ticket",
                                                           [MSG_CANCEL] = "cancel",
                                                           [MSG_WATCH] = "watch",
                                                           [MSG_SOFT] = "soft"};

    if (row < TRACE_CAUSES)
        return causes[row];
    const char *name = requests[row - TRACE_CAUSES];
    return name ? name : "other";
}

/* The least duration that falls into the bucket: bucket_of() of latency.bpf.c. */
static uint64_t bucket_floor_ns(unsigned bucket)
{
    if (bucket < LATENCY_SUB)
        return bucket;
    unsigned log2 = (bucket + LATENCY_SUB) / LATENCY_SUB;
    return (1ull << log2) + ((uint64_t)(bucket % LATENCY_SUB) << (log2 - 2));
}

static void add(struct latency_row *sum, const struct latency_row *part)
{
    sum->n += part->n;
    sum->n_failed += part->n_failed;
    sum->total_ns += part->total_ns;
    sum->max_ns = MAX(sum->max_ns, part->max_ns);
    for (unsigned b = 0; b < LATENCY_BUCKETS; b++)
        sum->buckets[b] += part->buckets[b];
}

/* Of all CPUs. */
static int row_read(int map_fd, uint32_t idx, struct latency_row *parts, int n_cpus,
                    struct latency_row *ret_sum)
{
    memset(ret_sum, 0, sizeof(*ret_sum));
    int r = bpf_map_lookup_elem(map_fd, &idx, parts);
    for (int cpu = 0; r == 0 && cpu < n_cpus; cpu++)
        add(ret_sum, &parts[cpu]);
    return r;
}

static uint64_t quantile_ns(const struct latency_row *row, double q)
{
    uint64_t seen = 0, wanted = (uint64_t)((double)row->n * q);

    for (unsigned b = 0; b < LATENCY_BUCKETS; b++)
        if ((seen += row->buckets[b]) > wanted)
            return MIN(b + 1 < LATENCY_BUCKETS ? bucket_floor_ns(b + 1) : row->max_ns, row->max_ns);
    return row->max_ns;
}

static void add_ns(struct table *table, uint64_t ns)
{
    if (ns < 1000)
        table_add(table, "%" PRIu64 " ns", ns);
    else if (ns < 1000000)
        table_add(table, "%.1f us", (double)ns / 1e3);
    else if (ns < 1000000000)
        table_add(table, "%.1f ms", (double)ns / 1e6);
    else
        table_add(table, "%.1f s", (double)ns / 1e9);
}

/* One character to each doubling; its height is the share of the fullest. */
static void add_bar(struct table *table, const struct latency_row *row)
{
    static const char heights[] = " .:-=+*#%@";
    uint64_t columns[BAR_COLUMNS] = {0}, most = 1;
    char bar[BAR_COLUMNS + 1] = {0};

    for (unsigned b = 0; b < LATENCY_BUCKETS; b++) {
        unsigned log2 = b < LATENCY_SUB ? 0 : (b + LATENCY_SUB) / LATENCY_SUB;
        unsigned i = log2 < BAR_FROM_LOG2 ? 0 : MIN(log2 - BAR_FROM_LOG2, BAR_COLUMNS - 1);
        columns[i] += row->buckets[b];
        most = MAX(most, columns[i]);
    }
    for (unsigned i = 0; i < BAR_COLUMNS; i++)
        bar[i] = heights[(columns[i] * 9 + most - 1) / most];
    table_add(table, "%s|", bar);
}

static void report(struct session *s, int map_fd)
{
    static const char *const heads[] = {
        "<slow path", "n",   "failed", "median",
        "p99",        "max", "total",  "<128 ns    4 us    128 us     4 ms"};
    int n_cpus = libbpf_num_possible_cpus();
    struct latency_row parts[n_cpus], row;
    struct table table;
    bool is_requests = false;

    session_say_scope(s, stdout);
    table_init(&table, heads, ARRAY_LEN(heads));
    for (uint32_t i = 0; i < LATENCY_ROWS; i++) {
        if (row_read(map_fd, i, parts, n_cpus, &row) < 0 || row.n == 0)
            continue;
        if (i >= TRACE_CAUSES && !is_requests) {
            is_requests = true;
            for (unsigned c = 0; c < ARRAY_LEN(heads); c++)
                table_add(&table, "%s", c == 0 ? "requests" : "");
        }
        table_add(&table, "%s%s", is_requests ? "  " : "", row_name(i));
        table_add(&table, "%" PRIu64, (uint64_t)row.n);
        table_add(&table, "%" PRIu64, (uint64_t)row.n_failed);
        add_ns(&table, quantile_ns(&row, .5));
        add_ns(&table, quantile_ns(&row, .99));
        add_ns(&table, row.max_ns);
        add_ns(&table, row.total_ns);
        add_bar(&table, &row);
    }
    if (table.n_cells == 0)
        printf("no slow path was taken\n");
    table_print(&table, stdout, "");
}

int latency_run(struct session *s)
{
    static const char *const names[] = {"slow__begin", "slow__end", "request__begin",
                                        "request__end"};
    struct latency_bpf *bpf = latency_bpf__open_and_load();

    if (!bpf)
        return session_not_loaded(errno);
    struct bpf_program *const programs[] = {bpf->progs.slow_begin, bpf->progs.slow_end,
                                            bpf->progs.request_begin, bpf->progs.request_end};
    int code = session_find(s);
    for (unsigned i = 0; i < ARRAY_LEN(names) && code == EXIT_WELL; i++)
        code = session_usdt(s, programs[i], names[i]);
    if (code == EXIT_WELL)
        session_start(s);
    while (code == EXIT_WELL && session_goes_on(s))
        ;
    if (code == EXIT_WELL)
        report(s, bpf_map__fd(bpf->maps.rows));
    latency_bpf__destroy(bpf);
    return code;
}
