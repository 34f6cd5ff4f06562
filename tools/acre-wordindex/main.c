/* SPDX-License-Identifier: Apache-2.0 */
/*
 * acre-wordindex - several processes count the words of a text into one hash map in one shared
 * heap.
 *
 * Reading order: map.c (the theory: how it survives that any worker is killed at any instruction),
 * worker.c, run.c.
 */
#include <acre.h>

#include <argp.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "index.h"
#include "run.h"
#include "say.h"
#include "text.h"

struct options {
    const char *address, *tenant, *keep, *show, *drop;
    uint64_t n_top;
    struct run_options run;
    char **names;
    size_t n_names;
};

static int count_text(struct acre_heap *heap, const struct text *text,
                      const struct options *options)
{
    struct job *job;
    int code = run_count(heap, text, &options->run, &job);
    if (!code)
        code = index_print(heap, job, options->n_top);
    if (!code && options->keep)
        code = index_keep(heap, job, options->keep);
    return code;
}

static int count_files(struct acre_heap *heap, const struct options *options)
{
    acre_off taken;
    if (options->keep && acre_root_get(heap, options->keep, &taken) == 0)
        return complain("there is a \"%s\" in this heap already", options->keep);
    struct text text;
    const char *culprit;
    int r = text_open(&text, options->names, options->n_names, &culprit);
    if (r)
        return complain("cannot read %s: %s", culprit,
                        r == -EINVAL ? "Not a regular file" : strerror(-r));
    int code = count_text(heap, &text, options);
    text_close(&text);
    return code;
}

/* ---- arguments ---- */

enum {
    OPT_WORKERS = 'w',
    OPT_TOP = 1000,
    OPT_SOCKET,
    OPT_TENANT,
    OPT_KEEP,
    OPT_SHOW,
    OPT_DROP,
    OPT_KILL_ONE,
    OPT_SEED,
    OPT_KILL_AT,
};

static const struct argp_option option_table[] = {
    {"workers", OPT_WORKERS, "N", 0, "Count with N processes (default 2)", 1},
    {"top", OPT_TOP, "N", 0, "Print the N most frequent words (default 10)", 1},
    {"socket", OPT_SOCKET, "PATH", 0, "Where the daemon listens (default: as acre.h says)", 2},
    {"tenant", OPT_TENANT, "NAME", 0, "Whose heap (default \"default\")", 2},
    {"keep", OPT_KEEP, "NAME", 0, "Leave the index in the heap under this name", 3},
    {"show", OPT_SHOW, "NAME", 0, "Print an index that was kept", 3},
    {"drop", OPT_DROP, "NAME", 0, "Free an index that was kept", 3},
    {"kill-one", OPT_KILL_ONE, NULL, 0, "Kill one worker by SIGKILL at a random instant", 4},
    {"seed", OPT_SEED, "S", 0, "Which random instant", 4},
    {"kill-at", OPT_KILL_AT, "K[,K...]", 0,
     "The first worker kills itself at its K-th step, its successor at the next K, and so on", 4},
    {0}};

static uint64_t number(struct argp_state *state, const char *arg, const char *what, uint64_t min,
                       uint64_t max)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(arg, &end, 10);
    if (errno || end == arg || *end || *arg == '-' || value < min || value > max)
        argp_error(state, "%s: \"%s\" is not a number from %" PRIu64 " to %" PRIu64, what, arg, min,
                   max);
    return value;
}

static void kill_numbers(struct argp_state *state, char *arg, struct run_options *run)
{
    char *rest = NULL;
    for (char *one = strtok_r(arg, ",", &rest); one; one = strtok_r(NULL, ",", &rest)) {
        if (run->n_kills == KILLS_MAX)
            argp_error(state, "--kill-at: more than %u numbers", KILLS_MAX);
        run->kill_at[run->n_kills++] = number(state, one, "--kill-at", 1, UINT64_MAX);
    }
}

static void check_options(struct argp_state *state, const struct options *options)
{
    bool needs_text = !options->show && !options->drop;
    if (options->show && options->drop)
        argp_error(state, "either --show or --drop");
    if (options->run.kill_one && options->run.n_kills)
        argp_error(state, "either --kill-one or --kill-at");
    if (needs_text && !options->n_names)
        argp_error(state, "no FILE");
    if (!needs_text && (options->n_names || options->keep))
        argp_error(state, "--show and --drop take no FILE and no --keep");
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct options *options = state->input;
    switch (key) {
    case OPT_WORKERS:
        options->run.n_workers = (unsigned)number(state, arg, "--workers", 1, WORKERS_MAX);
        break;
    case OPT_TOP:
        options->n_top = number(state, arg, "--top", 0, UINT64_MAX);
        break;
    case OPT_SOCKET:
        options->address = arg;
        break;
    case OPT_TENANT:
        options->tenant = arg;
        break;
    case OPT_KEEP:
        options->keep = arg;
        break;
    case OPT_SHOW:
        options->show = arg;
        break;
    case OPT_DROP:
        options->drop = arg;
        break;
    case OPT_KILL_ONE:
        options->run.kill_one = true;
        break;
    case OPT_SEED:
        options->run.seed = number(state, arg, "--seed", 0, UINT64_MAX);
        break;
    case OPT_KILL_AT:
        kill_numbers(state, arg, &options->run);
        break;
    case ARGP_KEY_ARGS:
        options->names = state->argv + state->next;
        options->n_names = (size_t)(state->argc - state->next);
        break;
    case ARGP_KEY_END:
        check_options(state, options);
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct argp argp = {
    .options = option_table,
    .parser = parse_option,
    .args_doc = "FILE...\n--show NAME\n--drop NAME",
    .doc = "Counts the words of text files with several processes that share one heap.\v"
           "A word is a maximal run of ASCII letters; capitals count as small letters.\n"
           "Exit codes: 0 well, 1 a finding, 2 usage, 3 no daemon.",
};

int main(int argc, char **argv)
{
    struct options options = {.n_top = 10};
    options.run = (struct run_options){.n_workers = 2, .seed = (uint64_t)time(NULL)};
    argp_err_exit_status = EXIT_USAGE;
    argp_parse(&argp, argc, argv, 0, NULL, &options);

    struct acre_options where = {.size = sizeof(where),
                                 .address = options.address,
                                 .tenant = options.tenant,
                                 .name = "acre-wordindex"};
    struct acre_heap *heap;
    int r = acre_open_with(&heap, &where);
    if (r)
        return complain_acre(r, "cannot open the heap");
    int code = options.show   ? index_show(heap, options.show, options.n_top)
               : options.drop ? index_drop(heap, options.drop)
                              : count_files(heap, &options);
    acre_close(heap); /* what is this process's own goes with it: the index, unless it is kept */
    return code;
}
