/* SPDX-License-Identifier: Apache-2.0 */
/*
 * acre-trace - looks into running programs, by probes that cost nothing while nobody looks.
 * Exit codes: 0 well, 2 usage, 3 refused.
 */
#include <argp.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>

#include "session.h"

const char *argp_program_version = "acre-trace 0.1.0";

static const struct command {
    const char *name;
    int (*run)(struct session *s);
} commands[] = {{"latency", latency_run},
                {"growth", growth_run},
                {"leaks", leaks_run},
                {"faults", faults_run},
                {"deaths", deaths_run}};

static const char doc[] =
    "Shows what processes do with Acre's heaps, until Ctrl-C, the end of COMMAND, or for SECONDS."
    "\vlatency  how long slow paths and requests to the daemon took, by cause\n"
    "growth   who asked for memory: folded stacks and bytes, for a flame graph\n"
    "leaks    call sites whose blocks nobody has freed, from a sample of allocations\n"
    "faults   page faults in segments, per tenant and client\n"
    "deaths   clients that end: how, and what they had\n"
    "\nWithout -p and COMMAND all processes are looked at. Whole stacks need programs that were "
    "built "
    "with -fno-omit-frame-pointer; of others the caller is known.";

enum { OPT_LIBRARY = 256, OPT_EVERY, OPT_TOP };

static const struct argp_option options[] = {
    {"pid", 'p', "PID", 0, "Look at this process", 0},
    {"duration", 'd', "SECONDS", 0, "Look for so long", 0},
    {"library", OPT_LIBRARY, "FILE", 0,
     "The libacre, or the program that it is linked into, to probe; not needed for those that "
     "running processes and new programs use",
     0},
    {"socket", 's', "PATH", 0,
     "faults, deaths: the daemon to ask who is who (default: $ACRE_SOCKET, else the system "
     "daemon's, else this user's own)",
     0},
    {"every", OPT_EVERY, "BYTES", 0,
     "leaks: sample an allocation each so many bytes; 1: all of them (default: 65536)", 0},
    {"top", OPT_TOP, "N", 0, "leaks: show so many call sites (default: 10)", 0},
    {0},
};

struct arguments {
    struct session session;
    const struct command *command;
};

/* A whole number from low on. */
static uint64_t number(struct argp_state *state, const char *option, const char *text, uint64_t low,
                       uint64_t high)
{
    char *end;

    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    if (errno || *end || end == text || text[0] == '-' || n < low || n > high)
        argp_error(state, "--%s %s: a whole number from %llu to %llu is wanted", option, text,
                   (unsigned long long)low, (unsigned long long)high);
    return n;
}

static double duration(struct argp_state *state, const char *text)
{
    char *end;
    double s = strtod(text, &end);

    if (end == text || *end || !(s > 0 && s <= 1e9))
        argp_error(state, "--duration %s: seconds are wanted, more than 0", text);
    return s;
}

static const struct command *command_named(struct argp_state *state, const char *name)
{
    for (unsigned i = 0; i < ARRAY_LEN(commands); i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    argp_error(state, "%s: no such command", name);
    return NULL;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    struct session *s = &a->session;

    switch (key) {
    case 'p':
        s->pid = (pid_t)number(state, "pid", arg, 1, INT32_MAX);
        return 0;
    case 'd':
        s->seconds = duration(state, arg);
        return 0;
    case OPT_LIBRARY:
        s->file = arg;
        return 0;
    case 's':
        s->socket = arg;
        return 0;
    case OPT_EVERY:
        s->every_bytes = number(state, "every", arg, 1, 1u << 30);
        return 0;
    case OPT_TOP:
        s->n_top = (unsigned)number(state, "top", arg, 1, 1000000);
        return 0;
    case ARGP_KEY_ARG:
        if (state->arg_num == 0) {
            a->command = command_named(state, arg);
        } else { /* the rest is the command's own */
            s->command = &state->argv[state->next - 1];
            state->next = state->argc;
        }
        return 0;
    case ARGP_KEY_END:
        if (!a->command)
            argp_error(state, "which of latency, growth, leaks, faults, deaths?");
        if (s->command && s->pid)
            argp_error(state, "either --pid or a command");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

int main(int argc, char **argv)
{
    static struct arguments a = {.session = {.every_bytes = 65536, .n_top = 10}};
    const struct argp argp = {options, parse, "COMMAND [-- PROGRAM [ARGUMENT...]]", doc, 0, 0, 0};

    setlocale(LC_CTYPE, "");
    argp_err_exit_status = EXIT_USAGE;
    argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &a);
    int code = session_init(&a.session);
    if (code == EXIT_WELL)
        code = a.command->run(&a.session);
    session_deinit(&a.session);
    return code;
}
