/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is measured. A case is one load. Each participant runs it in a fresh process: this program
 * again, with its allocator in LD_PRELOAD, which checks by dladdr() that malloc and free come from
 * that library and no other. Acre's process makes the same kind of dynamic call, and the loops are
 * compiled from one source (mem.h says why that distorts least). Acre's daemon serves all of Acre's
 * processes, except where a load is about fresh memory: there each meets a new one.
 *
 * What distorts. Other programs on the same processors (noise.c says how much of them they had);
 * frequency; where the kernel puts pages and processes; how code happens to be aligned; a loop's
 * own instructions, which are not subtracted, so that ratios lean towards 1. Steady loads report
 * the median of many short rounds inside one process, which answers interruptions; what differs
 * from process to process is answered by repeating the process.
 *
 * Alternation. A case is run for all participants in turn, n times, beginning with another one each
 * time. A ratio Acre / peer is formed inside each turn, from two processes that ran within moments
 * of each other, and the median of the n ratios is the result: what slows both drops out, what
 * slowed one only in some turns is outvoted. The quartiles say how far the machine allows
 * conclusions: if they are far apart, the figure is to be taken again on a quieter machine.
 *
 * No absolute figure is judged here, since it would be of this machine at this hour. Goals are
 * ratios; the few that are bytes do not depend on speed.
 */
#include "run.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "say.h"

extern char **environ;

#define CHILD_SECONDS 300 /* no load takes that long; one that hangs must end */

/* ---- children ---- */

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
    interrupted = number;
}

bool run_is_interrupted(void)
{
    return interrupted != 0;
}

void run_catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
}

/* The environment of a child: this one's, with the peer's library first. The array and its last
 * string are the caller's to free. */
static char **child_environment(const struct peer *peer, char preload[PATH_MAX])
{
    size_t n = 0, k = 0;
    while (environ[n])
        n++;
    char **env = calloc(n + 2, sizeof(*env));
    for (size_t i = 0; env && i < n; i++)
        if (strncmp(environ[i], "LD_PRELOAD=", 11) != 0)
            env[k++] = environ[i];
    bool is_preloaded = peer->kind == MEM_MALLOC && strcmp(peer->name, "glibc") != 0;
    snprintf(preload, PATH_MAX, "LD_PRELOAD=%s", peer->soname ? peer->soname : "");
    if (env && is_preloaded)
        env[k] = preload;
    return env;
}

/* Starts a child; *ret_out reads what it reports. quiet: what it complains is not shown. */
static pid_t child_start(enum peer_idx peer, char *const argv[], bool quiet, FILE **ret_out)
{
    char preload[PATH_MAX];
    char **env = child_environment(&peers[peer], preload);
    int ends[2];
    pid_t pid;
    if (!env || pipe2(ends, O_CLOEXEC) < 0)
        return -1;
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    if (quiet)
        posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    int r = posix_spawn(&pid, "/proc/self/exe", &actions, NULL, argv, env);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    free(env);
    *ret_out = r ? NULL : fdopen(ends[0], "r");
    if (!*ret_out)
        close(ends[0]);
    return r ? -1 : pid;
}

static bool child_end(pid_t pid, FILE *out)
{
    int status;
    if (out)
        fclose(out);
    if (pid < 0)
        return false;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return false;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

bool child_probe(enum peer_idx peer, char ret_library[PATH_MAX])
{
    char *argv[] = {"acre-bench", CHILD_ARGUMENT, "probe", (char *)peers[peer].name, NULL};
    FILE *out;
    pid_t pid = child_start(peer, argv, true, &out);
    if (!out || !fgets(ret_library, PATH_MAX, out))
        ret_library[0] = '\0';
    ret_library[strcspn(ret_library, "\n")] = '\0';
    return child_end(pid, out);
}

/* argv: program, --child, workload, peer, case, "quick" or "full", socket. */
int child_main(char **argv)
{
    char library[PATH_MAX];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    alarm(CHILD_SECONDS);
    int peer = argv[2] && argv[3] ? peer_by_name(argv[3]) : -1;
    if (peer < 0)
        return EXIT_USAGE;
    if (peers[peer].soname) {
        peer_library((enum peer_idx)peer, library);
        if (!library[0])
            give_up("%s does not serve the calls of its own process", argv[3]);
    }
    if (strcmp(argv[2], "probe") == 0) {
        puts(library);
        return EXIT_WELL;
    }
    const struct workload *workload = workload_by_name(argv[2]);
    if (!workload || !argv[4] || !argv[5] || !argv[6])
        return EXIT_USAGE;
    struct child child = {.peer = (enum peer_idx)peer,
                          .kind = peers[peer].kind,
                          .socket = argv[6],
                          .is_quick = strcmp(argv[5], "quick") == 0};
    workload->run(&child, (unsigned)strtoul(argv[4], NULL, 10));
    return EXIT_WELL;
}

/* ---- what they report ---- */

static struct row *row_of(struct bench *bench, const struct workload *workload, const char *metric,
                          const char *unit)
{
    for (unsigned i = 0; i < bench->n_rows; i++)
        if (bench->rows[i].workload == workload && strcmp(bench->rows[i].metric, metric) == 0)
            return &bench->rows[i];
    assert(bench->n_rows < ROWS_MAX);
    struct row *row = &bench->rows[bench->n_rows++];
    *row = (struct row){.workload = workload};
    snprintf(row->metric, sizeof(row->metric), "%s", metric);
    snprintf(row->unit, sizeof(row->unit), "%s", unit);
    for (unsigned peer = 0; peer < PEERS; peer++)
        for (unsigned run = 0; run < RUNS_MAX; run++)
            row->by_peer[peer].values[run] = row->by_peer[peer].instructions[run] = NAN;
    return row;
}

static void take_report(struct bench *bench, const struct workload *workload, enum peer_idx peer,
                        unsigned run, char *line)
{
    char metric[48], unit[16];
    double value, instructions;
    if (sscanf(line, "%47[^\t]\t%15[^\t]\t%lf\t%lf", metric, unit, &value, &instructions) != 4)
        return;
    struct row *row = row_of(bench, workload, metric, unit);
    struct series *series = &row->by_peer[peer];
    if (run >= row->n_runs)
        row->n_runs = run + 1;
    series->n++;
    series->values[run] = value;
    if (instructions >= 0) {
        series->instructions[run] = instructions;
        bench->has_counter = true;
    }
}

static int measure_once(struct bench *bench, const struct workload *workload, unsigned case_idx,
                        enum peer_idx peer, unsigned run)
{
    char line[256], idx[16];
    snprintf(idx, sizeof(idx), "%u", case_idx);
    char *argv[] = {"acre-bench",
                    CHILD_ARGUMENT,
                    (char *)workload->name,
                    (char *)peers[peer].name,
                    idx,
                    bench->is_quick ? "quick" : "full",
                    bench->daemon.socket,
                    NULL};
    if (peer == PEER_ACRE && workload->fresh_daemon) {
        int code =
            daemon_renew(&bench->daemon, (struct daemon_wish){.pinned = workload->pinned_daemon,
                                                              .huge_pages = workload->huge_pages,
                                                              .ready = workload->ready});
        if (code)
            return code;
    }
    FILE *out;
    pid_t pid = child_start(peer, argv, false, &out);
    while (out && fgets(line, sizeof(line), out))
        take_report(bench, workload, peer, run, line);
    if (!child_end(pid, out) && !run_is_interrupted()) {
        bench->n_failed++;
        complain("%s, %s: %s's process failed", workload->name, workload->cases[case_idx],
                 peers[peer].name);
    }
    return EXIT_WELL;
}

/* ---- alternation ---- */

/* workload NULL: the line goes. */
static void progress(const struct workload *workload, unsigned case_idx, unsigned run,
                     unsigned n_runs)
{
    if (!isatty(STDERR_FILENO))
        return;
    fprintf(stderr, "\r\033[K");
    if (workload)
        fprintf(stderr, "%s, %s: %u of %u", workload->name, workload->cases[case_idx], run + 1,
                n_runs);
}

static int run_case(struct bench *bench, const struct workload *workload, unsigned case_idx,
                    unsigned n_runs)
{
    enum peer_idx takes_part[PEERS] = {PEER_ACRE};
    unsigned n = 1;
    for (unsigned peer = PEER_ACRE + 1; peer < PEERS; peer++)
        if (workload->peers & bench->wanted & PEER_BIT(peer) && bench->found[peer].is_there)
            takes_part[n++] = (enum peer_idx)peer;
    for (unsigned run = 0; run < n_runs; run++) {
        progress(workload, case_idx, run, n_runs);
        for (unsigned i = 0; i < n; i++) {
            enum peer_idx peer = takes_part[(i + run) % n];
            int code = measure_once(bench, workload, case_idx, peer, run);
            if (code || run_is_interrupted())
                return code;
        }
    }
    return EXIT_WELL;
}

static int run_cases(struct bench *bench, const struct workload *workload)
{
    unsigned n_runs = bench->n_runs;
    if (workload->runs_max && n_runs > workload->runs_max)
        n_runs = workload->runs_max;
    int code = EXIT_WELL;
    for (unsigned i = 0; !code && workload->cases[i] && !run_is_interrupted(); i++)
        code = run_case(bench, workload, i, n_runs);
    progress(NULL, 0, 0, 0);
    return code;
}

int run_workload(struct bench *bench, const struct workload *workload)
{
    if (workload->huge_pages && !daemon_allow_huge_pages(&bench->daemon))
        return EXIT_WELL;
    if (workload->fresh_daemon && bench->daemon.is_foreign)
        complain("%s: this daemon may hand out memory that others have touched", workload->name);
    int code = run_cases(bench, workload);
    if (!code && workload->fresh_daemon) /* the next loads meet an ordinary one */
        code = daemon_renew(&bench->daemon, (struct daemon_wish){0});
    if (workload->huge_pages)
        daemon_forbid_huge_pages(&bench->daemon);
    return code;
}

/* ---- medians ---- */

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Between two neighbours in proportion. */
static double quantile(const double *sorted, unsigned n, double q)
{
    double at = q * (n - 1);
    unsigned i = (unsigned)at;
    return i + 1 < n ? sorted[i] + (at - i) * (sorted[i + 1] - sorted[i]) : sorted[n - 1];
}

static struct spread spread_of(double *values, unsigned n)
{
    if (n == 0)
        return (struct spread){NAN, NAN, NAN};
    qsort(values, n, sizeof(*values), compare);
    return (struct spread){quantile(values, n, 0.5), quantile(values, n, 0.25),
                           quantile(values, n, 0.75)};
}

struct spread row_values(const struct row *row, enum peer_idx peer)
{
    double values[RUNS_MAX];
    unsigned n = 0;
    for (unsigned run = 0; run < row->n_runs; run++)
        if (!isnan(row->by_peer[peer].values[run]))
            values[n++] = row->by_peer[peer].values[run];
    return spread_of(values, n);
}

struct spread row_ratios(const struct row *row, enum peer_idx peer)
{
    double values[RUNS_MAX];
    unsigned n = 0;
    for (unsigned run = 0; run < row->n_runs; run++) {
        double ratio = row->by_peer[PEER_ACRE].values[run] / row->by_peer[peer].values[run];
        if (isfinite(ratio))
            values[n++] = ratio;
    }
    return spread_of(values, n);
}

double row_instructions(const struct row *row, enum peer_idx peer)
{
    double values[RUNS_MAX];
    unsigned n = 0;
    for (unsigned run = 0; run < row->n_runs; run++)
        if (!isnan(row->by_peer[peer].instructions[run]))
            values[n++] = row->by_peer[peer].instructions[run];
    return n ? spread_of(values, n).median : -1;
}
