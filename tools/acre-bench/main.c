/* SPDX-License-Identifier: Apache-2.0 */
/*
 * acre-bench - Acre against other allocators, in one run, as ratios.
 *
 * Reading order: run.c (the theory: what is measured and what distorts), mem.h (the calls in the
 * loops), work_pair.c, goal.c.
 */
#include <argp.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "noise.h"
#include "run.h"
#include "say.h"
#include "table.h"
#include "workload.h"

#define RUNS_FULL  7
#define RUNS_QUICK 3

struct options {
    const char *address;
    char *peers;
    unsigned n_runs;
    bool is_quick, json, list;
    char **names;
    unsigned n_names;
};

static void list_all(void)
{
    for (unsigned i = 0; workloads[i]; i++) {
        printf("%-10s %s\n", workloads[i]->name, workloads[i]->about);
        for (unsigned k = 0; workloads[i]->cases[k]; k++)
            printf("%s%s", k ? "; " : "             ", workloads[i]->cases[k]);
        printf("\n");
    }
    printf("peers:");
    for (unsigned peer = PEER_ACRE + 1; peer < PEERS; peer++)
        printf(" %s", peers[peer].name);
    printf("\n");
}

/* What takes part and what does not, never silently. */
static void look_for_peers(struct bench *bench)
{
    peers_probe(bench->found);
    for (unsigned peer = PEER_ACRE + 1; peer < PEERS; peer++) {
        bool wanted = bench->wanted & PEER_BIT(peer);
        if (wanted && !bench->found[peer].is_there)
            complain("%s is skipped: %s is missing", peers[peer].name, peers[peer].package);
    }
}

static int run_all(struct bench *bench, const struct options *options)
{
    int code = EXIT_WELL;
    for (unsigned i = 0; !code && i < options->n_names; i++)
        code = run_workload(bench, workload_by_name(options->names[i]));
    for (unsigned i = 0; !code && !options->n_names && workloads[i]; i++)
        code = run_workload(bench, workloads[i]);
    return code;
}

static int measure(struct bench *bench, const struct options *options)
{
    struct noise noise;
    run_catch_signals();
    look_for_peers(bench);
    int code = daemon_up(&bench->daemon, options->address);
    noise_begin(&noise);
    if (!code)
        code = run_all(bench, options);
    daemon_down(&bench->daemon);
    bench->others = noise_of_others(&noise);
    if (code)
        return code;
    if (run_is_interrupted())
        return complain("interrupted");
    if (options->json && !json_print(bench))
        return complain("no memory");
    if (!options->json)
        table_print(bench);
    return bench->n_failed ? EXIT_FINDING : EXIT_WELL;
}

/* ---- arguments ---- */

enum { OPT_QUICK = 'q', OPT_LIST = 'l', OPT_RUNS = 'n', OPT_JSON = 1000, OPT_PEERS, OPT_SOCKET };

static const struct argp_option option_table[] = {
    {"quick", OPT_QUICK, NULL, 0, "Short rounds and 3 alternations: does it work?", 1},
    {"runs", OPT_RUNS, "N", 0, "Alternations (default 7)", 1},
    {"peers", OPT_PEERS, "A,B", 0, "Only these peers", 1},
    {"list", OPT_LIST, NULL, 0, "Print the workloads and the peers", 2},
    {"json", OPT_JSON, NULL, 0, "The result as JSON", 2},
    {"socket", OPT_SOCKET, "PATH", 0, "Use this daemon (default: a private one)", 2},
    {0}};

static unsigned runs_number(struct argp_state *state, const char *arg)
{
    char *end;
    unsigned long n = strtoul(arg, &end, 10);
    if (end == arg || *end || n < 1 || n > RUNS_MAX)
        argp_error(state, "--runs: \"%s\" is not a number from 1 to %u", arg, RUNS_MAX);
    return (unsigned)n;
}

static unsigned wanted_peers(struct argp_state *state, char *list)
{
    unsigned wanted = PEER_BIT(PEER_ACRE);
    char *rest = NULL;
    for (char *name = strtok_r(list, ",", &rest); name; name = strtok_r(NULL, ",", &rest)) {
        int peer = peer_by_name(name);
        if (peer < 0)
            argp_error(state, "--peers: there is no \"%s\"", name);
        wanted |= PEER_BIT(peer);
    }
    return wanted;
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct options *options = state->input;
    switch (key) {
    case OPT_QUICK:
        options->is_quick = true;
        break;
    case OPT_LIST:
        options->list = true;
        break;
    case OPT_RUNS:
        options->n_runs = runs_number(state, arg);
        break;
    case OPT_JSON:
        options->json = true;
        break;
    case OPT_PEERS:
        options->peers = arg;
        (void)wanted_peers(state, strdupa(arg));
        break;
    case OPT_SOCKET:
        options->address = arg;
        break;
    case ARGP_KEY_ARG:
        if (!workload_by_name(arg))
            argp_error(state, "there is no workload \"%s\" (see --list)", arg);
        options->n_names++;
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct argp argp = {
    .options = option_table,
    .parser = parse_option,
    .args_doc = "[WORKLOAD...]",
    .doc = "Measures Acre and other allocators in turns and prints ratios.\v"
           "Exit codes: 0 well (whatever the figures are), 1 a measurement failed, 2 usage, 3 no "
           "daemon.",
};

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], CHILD_ARGUMENT) == 0)
        return child_main(argv);
    struct options options = {0};
    argp_err_exit_status = EXIT_USAGE;
    argp_parse(&argp, argc, argv, 0, NULL, &options);
    if (options.list) {
        list_all();
        return EXIT_WELL;
    }
    options.names = argv + argc - options.n_names; /* argp moves them to the end */
    struct bench bench = {.is_quick = options.is_quick, .wanted = ~0u};
    bench.n_runs = options.n_runs ? options.n_runs : options.is_quick ? RUNS_QUICK : RUNS_FULL;
    if (options.peers)
        bench.wanted = wanted_peers(NULL, options.peers);
    bench.rows = calloc(ROWS_MAX, sizeof(*bench.rows));
    int code = bench.rows ? measure(&bench, &options) : complain("no memory");
    free(bench.rows);
    return code;
}
