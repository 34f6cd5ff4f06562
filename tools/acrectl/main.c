/* SPDX-License-Identifier: Apache-2.0 */
/*
 * acrectl - looks at a daemon, and does the little that an administrator does to it.
 * Exit codes: 0 well, 1 a finding, 2 usage, 3 no daemon.
 */
#include <argp.h>
#include <inttypes.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "json.h"
#include "map_svg.h"
#include "map_term.h"
#include "tools/look/peer.h"
#include "tools/look/survey.h"
#include "tools/look/table.h"
#include "tenant.h"
#include "top.h"
#include "verify.h"
#include "waiters.h"

#define UPGRADE_TRIES    200u
#define UPGRADE_PAUSE_US 20000u

enum exit_code { EXIT_WELL = 0, EXIT_FINDING = 1, EXIT_USAGE = 2, EXIT_NO_DAEMON = 3 };

struct options {
    const char *socket, *only;
    bool json, svg, waits, watches;
    double every_s; /* of watching */
    const char *by;
    int n_words;
    char *words[7];         /* tenant set NAME, and four limits */
    struct msg_request set; /* from these */
};

/* ---- findings ---- */

static int complain(const struct peer *peer)
{
    fprintf(stderr, "acrectl: %s\n", peer->why);
    return peer->is_broken || peer->sock < 0 ? EXIT_NO_DAEMON : EXIT_FINDING;
}

/* What a survey found that should not be: said on stderr, so that the JSON stays JSON. */
static int findings(const struct survey *survey)
{
    int code = EXIT_WELL;

    for (size_t i = 0; i < survey->n_tenants; i++) {
        const struct survey_tenant *t = &survey->tenants[i];
        char name[TENANT_NAME_BYTES];
        table_printable(name, sizeof(name), t->name);
        if (t->error)
            fprintf(stderr, "acrectl: tenant %s: %s\n", name, t->why);
        else if (t->census.n_bad != 0)
            fprintf(stderr, "acrectl: tenant %s: %" PRIu64 " unit entries make no sense\n", name,
                    t->census.n_bad);
        if (t->error || t->census.n_bad != 0)
            code = EXIT_FINDING;
    }
    return code;
}

/* ---- status ---- */

static void print_uptime(uint64_t ns)
{
    uint64_t s = ns / 1000000000u;

    if (s >= 86400)
        printf("%" PRIu64 " d ", s / 86400);
    if (s >= 3600)
        printf("%" PRIu64 " h ", s / 3600 % 24);
    if (s >= 60)
        printf("%" PRIu64 " min ", s / 60 % 60);
    printf("%" PRIu64 " s", s % 60);
}

static void print_status(const struct peer *peer, const struct msg_reply *reply)
{
    char capacity[24], sealed[24], bar[TABLE_CELL_BYTES], text[32], mode[16];

    table_bytes(capacity, reply->status.capacity_bytes);
    table_bytes(sealed, reply->status.sealed_bytes);
    printf("acred     %s, pid %" PRIu32 ", %s daemon, up ",
           table_printable(text, sizeof(text), reply->status.version), reply->status.pid,
           table_printable(mode, sizeof(mode), reply->status.mode));
    print_uptime(reply->status.uptime_ns);
    printf("\nsocket    %s\n", peer->path);
    printf("capacity  %s, %s of it in segments  %s\n", capacity, sealed,
           table_bar(bar, stdout, reply->status.sealed_bytes, reply->status.capacity_bytes));
    printf("tenants   %" PRIu32 "\nclients   %" PRIu32 "\n", reply->status.n_tenants,
           reply->status.n_clients);
}

/* What pages it has, and what stands in the way of better ones. */
static void add_pages(struct table *table, const struct survey_tenant *t)
{
    if (t->pages != t->pages_wanted)
        table_add(table, "%s (%s wants shmem_enabled = advise)", survey_pages(t->pages),
                  survey_pages(t->pages_wanted));
    else if (t->pages != t->pages_possible)
        table_add(table, "%s (%s possible)", survey_pages(t->pages),
                  survey_pages(t->pages_possible));
    else
        table_add(table, "%s", survey_pages(t->pages));
}

/* Why it should have less, and how much. */
static void add_pressure(struct table *table, const struct survey_tenant *t)
{
    char text[24];

    if (t->pressure == PRESSURE_NONE)
        table_add(table, "-");
    else
        table_add(table, "%s: %s over", survey_pressure(t->pressure),
                  table_bytes(text, t->over_bytes));
}

static void print_memory(const struct survey *survey)
{
    static const char *const heads[] = {"<TENANT",  "MIN",       "HIGH",    "MAX",
                                        "WEIGHT",   "SEALED",    "GRANTED", "READY",
                                        "PREPARED", "<PRESSURE", "<PAGES"};
    struct table table;
    char text[TABLE_CELL_BYTES];

    table_init(&table, heads, ARRAY_LEN(heads));
    for (size_t i = 0; i < survey->n_tenants; i++) {
        const struct survey_tenant *t = &survey->tenants[i];
        if (t->error)
            continue;
        table_add(&table, "%s", table_printable(text, sizeof(text), t->name));
        table_add_bytes(&table, t->min_bytes);
        if (t->high_bytes == UINT64_MAX)
            table_add(&table, "-");
        else
            table_add_bytes(&table, t->high_bytes);
        table_add_bytes(&table, t->max_bytes);
        table_add(&table, "%u", t->weight);
        table_add_bytes(&table, t->sealed_bytes);
        if (t->is_group) {
            for (int k = 0; k < 5; k++)
                table_add(&table, k < 4 ? "-" : "(all below it)");
            continue;
        }
        table_add_bytes(&table, t->granted_bytes);
        table_add_bytes(&table, t->ready_bytes);
        table_add_bytes(&table, t->prepared_bytes);
        add_pressure(&table, t);
        add_pages(&table, t);
    }
    if (table.n_cells > 0)
        putchar('\n');
    table_print(&table, stdout, "");
}

static int cmd_status(struct peer *peer, const struct options *options)
{
    struct msg_request req = {.op = MSG_STATUS};
    struct msg_reply reply;
    struct survey survey;
    int code, r = peer_call(peer, &req, &reply, NULL);

    if (r < 0)
        return complain(peer);
    r = survey_take(&survey, peer, options->only, SURVEY_BRIEF);
    if (r == 0 && options->json) {
        r = json_print_status(stdout, &reply, peer->path, &survey);
        code = r < 0 ? EXIT_FINDING : findings(&survey);
    } else if (r == 0) {
        print_status(peer, &reply);
        print_memory(&survey);
        code = findings(&survey);
    } else {
        code = complain(peer);
    }
    survey_deinit(&survey);
    return code;
}

/* ---- tenants, clients, classes ---- */

static void print_tenants(struct survey *survey)
{
    static const char *const heads[] = {"<TENANT",  "CLIENTS",     "MAX",     "GRANTED",
                                        "LIVE",     "FREE",        "LARGEST", "PUBLISHED",
                                        "RESIDENT", "<GRANTED/MAX"};
    struct table table;
    char text[TABLE_CELL_BYTES];

    table_init(&table, heads, ARRAY_LEN(heads));
    for (size_t i = 0; i < survey->n_tenants; i++) {
        const struct survey_tenant *t = &survey->tenants[i];
        if (t->error)
            continue;
        table_add(&table, "%s", table_printable(text, sizeof(text), t->name));
        table_add(&table, "%zu", t->n_clients);
        table_add_bytes(&table, t->max_bytes);
        table_add_bytes(&table, t->granted_bytes);
        table_add_bytes(&table, t->census.live_bytes);
        table_add_bytes(&table, survey_free_bytes(t));
        table_add_bytes(&table, survey_largest_bytes(t));
        table_add_bytes(&table, survey_published_bytes(t));
        table_add_bytes(&table, t->resident_bytes);
        table_add(&table, "%s", table_bar(text, stdout, t->granted_bytes, t->max_bytes));
    }
    table_print(&table, stdout, "");
}

/* Who holds most comes first. */
static int by_granted(const void *a, const void *b)
{
    const struct survey_client *x = a, *y = b;
    if (x->granted_bytes != y->granted_bytes)
        return x->granted_bytes < y->granted_bytes ? 1 : -1;
    return (x->id > y->id) - (x->id < y->id);
}

static void add_clients(struct table *table, struct survey_tenant *t, bool with_tenant)
{
    char text[TENANT_NAME_BYTES];

    if (t->n_clients > 0)
        qsort(t->clients, t->n_clients, sizeof(*t->clients), by_granted);
    for (size_t i = 0; i < t->n_clients; i++) {
        const struct survey_client *c = &t->clients[i];
        if (with_tenant)
            table_add(table, "%s", table_printable(text, sizeof(text), t->name));
        table_add(table, "%u", c->id);
        table_add(table, "%" PRIu32, c->pid);
        table_add(table, "%s", table_printable(text, sizeof(text), c->name));
        table_add_bytes(table, c->granted_bytes);
        table_add_bytes(table, c->live_bytes);
        table_add(table, "%" PRIu64, c->live_blocks);
        table_add_bytes(table, c->free_bytes);
    }
}

static void print_clients(struct survey *survey)
{
    static const char *const heads[] = {"<TENANT", "ID",   "PID",    "<NAME",
                                        "GRANTED", "LIVE", "BLOCKS", "FREE"};
    struct table table;

    table_init(&table, heads, ARRAY_LEN(heads));
    for (size_t i = 0; i < survey->n_tenants; i++)
        add_clients(&table, &survey->tenants[i], true);
    table_print(&table, stdout, "");
}

static void print_classes(const struct survey_tenant *t)
{
    static const char *const heads[] = {"BLOCK", "SLABS", "LIVE BLOCKS", "FREE BLOCKS",
                                        "LIVE",  "FREE",  "<LIVE/ALL"};
    struct table table;
    char text[TABLE_CELL_BYTES];

    table_init(&table, heads, ARRAY_LEN(heads));
    for (unsigned i = 0; i < N_CLASSES; i++) {
        const struct census_class *c = &t->census.classes[i];
        uint64_t all = c->live_blocks + c->free_blocks;
        if (c->slabs == 0)
            continue;
        table_add(&table, "%" PRIu32, class_bytes[i]);
        table_add(&table, "%" PRIu64, c->slabs);
        table_add(&table, "%" PRIu64, c->live_blocks);
        table_add(&table, "%" PRIu64, c->free_blocks);
        table_add_bytes(&table, c->live_blocks * class_bytes[i]);
        table_add_bytes(&table, c->free_blocks * class_bytes[i]);
        table_add(&table, "%s", table_bar(text, stdout, c->live_blocks, all));
    }
    table_print(&table, stdout, "  ");
}

static void print_tenant_stats(struct survey_tenant *t)
{
    static const char *const heads[] = {"ID", "PID", "<NAME", "GRANTED", "LIVE", "BLOCKS", "FREE"};
    char name[TENANT_NAME_BYTES], bytes[24];
    struct table table;

    printf("\ntenant %s: %" PRIu64 " live blocks, %" PRIu64 " of them large (%s)\n",
           table_printable(name, sizeof(name), t->name), t->census.live_blocks,
           t->census.large_blocks, table_bytes(bytes, t->census.large_bytes));
    table_init(&table, heads, ARRAY_LEN(heads));
    add_clients(&table, t, false);
    if (t->n_clients > 0)
        putchar('\n');
    table_print(&table, stdout, "  ");
    if (t->census.live_blocks > t->census.large_blocks || t->n_clients > 0)
        putchar('\n');
    print_classes(t);
}

static void print_stats(struct survey *survey)
{
    char bytes[24];

    printf("capacity %s\n\n", table_bytes(bytes, survey->capacity_bytes));
    print_tenants(survey);
    for (size_t i = 0; i < survey->n_tenants; i++)
        if (!survey->tenants[i].error)
            print_tenant_stats(&survey->tenants[i]);
}

static int with_survey(struct peer *peer, const struct options *options,
                       void (*print)(struct survey *))
{
    struct survey survey;
    int code, r = survey_take(&survey, peer, options->only, SURVEY_BLOCKS);

    if (r < 0)
        code = complain(peer);
    else {
        if (options->json)
            r = json_print_survey(stdout, &survey);
        else
            print(&survey);
        code = r < 0 ? EXIT_FINDING : findings(&survey);
    }
    survey_deinit(&survey);
    return code;
}

static int pause_us(uint64_t us)
{
    struct timespec pause = {.tv_sec = (time_t)(us / 1000000),
                             .tv_nsec = (long)(us % 1000000) * 1000};

    return nanosleep(&pause, NULL);
}

/* Groups have no heaps: what is printed of tenants is not for them. */
static void drop_groups(struct survey *survey)
{
    size_t n = 0;

    for (size_t i = 0; i < survey->n_tenants; i++)
        if (!survey->tenants[i].is_group)
            survey->tenants[n++] = survey->tenants[i];
    survey->n_tenants = n;
}

/* Until the reader has gone, or the user has enough. */
static int cmd_watch(struct peer *peer, const struct options *options)
{
    struct survey_cache *cache = survey_cache_new();
    const uint64_t every_us = (uint64_t)(options->every_s * 1e6);
    int r = cache ? 0 : peer_fail(peer, -ENOMEM, "out of memory"), code = EXIT_WELL;

    while (r == 0 && code == EXIT_WELL) {
        struct survey survey;
        r = survey_again(&survey, peer, cache, SURVEY_BLOCKS);
        drop_groups(&survey);
        if (r < 0)
            (void)complain(peer);
        else if (options->json && json_print_watch(stdout, &survey) < 0)
            code = EXIT_FINDING;
        else if (!options->json)
            print_stats(&survey);
        survey_deinit(&survey);
        if (r == 0 && code == EXIT_WELL && (fflush(stdout) == EOF || pause_us(every_us) < 0))
            code = EXIT_FINDING;
        if (r == 0 && !options->json)
            putchar('\n');
    }
    survey_cache_free(cache);
    return r < 0 ? EXIT_NO_DAEMON : code;
}

static int cmd_top(struct peer *peer, const struct options *options)
{
    if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO)) {
        fprintf(stderr, "acrectl: top needs a terminal; stats --watch prints\n");
        return EXIT_USAGE;
    }
    return top_run(peer, (unsigned)(options->every_s * 1e3)) < 0 ? complain(peer) : EXIT_WELL;
}

/* ---- check ---- */

static void print_verify(const struct verify *v)
{
    char name[TENANT_NAME_BYTES], text[512];

    table_printable(name, sizeof(name), v->name);
    for (uint32_t i = 0; i < v->n_found; i++) {
        verify_sentence(text, sizeof(text), &v->found[i]);
        printf("tenant %s, %s\n", name, text);
    }
    if (v->n_more > 0)
        printf("tenant %s: %" PRIu32 " more\n", name, v->n_more);
    if (v->n_found == 0)
        printf("tenant %s: %" PRIu64 " units in %" PRIu32 " segments agree with the books\n", name,
               v->n_units, v->n_segments);
    if (!v->sums_seen)
        printf("tenant %s: the sums were not compared, it never stood still\n", name);
    if (v->n_unsure > 0)
        printf("tenant %s: %" PRIu32 " suspects changed at every look, or were too many\n", name,
               v->n_unsure);
}

static int print_verifies(const struct verify *verifies, size_t n, bool json)
{
    int code = EXIT_WELL;
    char name[TENANT_NAME_BYTES];

    if (json && json_print_verify(stdout, verifies, n) < 0)
        code = EXIT_FINDING;
    for (size_t i = 0; i < n; i++) {
        const struct verify *v = &verifies[i];
        if (v->error)
            fprintf(stderr, "acrectl: tenant %s: %s\n",
                    table_printable(name, sizeof(name), v->name), v->why);
        if (v->error || v->n_found > 0)
            code = EXIT_FINDING;
        if (!v->error && !json)
            print_verify(v);
    }
    return code;
}

static int cmd_check(struct peer *peer, const struct options *options)
{
    const char *only = options->n_words == 2 ? options->words[1] : options->only;
    struct survey survey;
    struct verify *verifies = NULL;
    size_t n = 0;
    int code, r = survey_take(&survey, peer, only, SURVEY_BRIEF);

    if (r == 0)
        verifies = calloc(survey.n_tenants + 1, sizeof(*verifies));
    for (size_t i = 0; r == 0 && verifies && i < survey.n_tenants; i++)
        if (!survey.tenants[i].is_group)
            r = verify_tenant(&verifies[n++], peer, survey.tenants[i].name);
    if (r < 0)
        code = complain(peer);
    else
        code = verifies ? print_verifies(verifies, n, options->json) : EXIT_FINDING;
    free(verifies);
    survey_deinit(&survey);
    return code;
}

/* ---- map ---- */

static int cmd_map(struct peer *peer, const struct options *options)
{
    const char *name = options->n_words == 2 ? options->words[1] : options->only;
    struct map *map;
    int code = EXIT_WELL;

    if (map_take(&map, peer, name) < 0)
        return complain(peer);
    if (options->json)
        code = json_print_map(stdout, map) < 0 ? EXIT_FINDING : EXIT_WELL;
    else if (options->svg)
        map_svg_print(stdout, map);
    else
        map_print(stdout, map, map_by(options->by));
    map_free(map);
    return code;
}

/* ---- waiters ---- */

static void add_waiters(struct table *table, const struct waiters *w)
{
    char text[TABLE_CELL_BYTES];

    for (size_t i = 0; i < w->n; i++) {
        const struct msg_waiter *at = &w->all[i];
        table_add(table, "%s", table_printable(text, sizeof(text), w->name));
        table_add(table, "%u", at->id);
        table_add(table, "%" PRIu32, at->pid);
        table_add(table, "%s", table_printable(text, sizeof(text), at->name));
        table_add_bytes(table, at->n_units * UNIT_BYTES);
        table_add(table, "%.1f s", (double)at->waited_ms / 1000);
        if (at->left_ms == 0)
            table_add(table, "for ever");
        else
            table_add(table, "%.1f s", (double)at->left_ms / 1000);
        table_add(table, "%s", table_printable(text, sizeof(text), w->wall));
    }
}

static int print_waiters(const struct waiters *waiters, size_t n, bool json)
{
    static const char *const heads[] = {"<TENANT", "ID",     "PID",  "<NAME",
                                        "ASKED",   "WAITED", "LEFT", "<IN THE WAY"};
    struct table table;
    int code = EXIT_WELL;

    if (json && json_print_waiters(stdout, waiters, n) < 0)
        code = EXIT_FINDING;
    table_init(&table, heads, ARRAY_LEN(heads));
    for (size_t i = 0; i < n; i++) {
        char name[TENANT_NAME_BYTES];
        if (!json && !waiters[i].error)
            add_waiters(&table, &waiters[i]);
        if (!waiters[i].error)
            continue;
        fprintf(stderr, "acrectl: tenant %s: %s\n",
                table_printable(name, sizeof(name), waiters[i].name), waiters[i].why);
        code = EXIT_FINDING;
    }
    table_print(&table, stdout, "");
    return code;
}

static int cmd_waiters(struct peer *peer, const struct options *options)
{
    const char *only = options->n_words == 2 ? options->words[1] : options->only;
    struct survey survey;
    struct waiters *waiters = NULL;
    size_t n = 0;
    int code, r = survey_take(&survey, peer, only, SURVEY_BRIEF);

    if (r == 0)
        waiters = calloc(survey.n_tenants + 1, sizeof(*waiters));
    for (size_t i = 0; r == 0 && waiters && i < survey.n_tenants; i++)
        if (!survey.tenants[i].is_group)
            r = waiters_take(&waiters[n++], peer, survey.tenants[i].name);
    if (r < 0)
        code = complain(peer);
    else
        code = waiters ? print_waiters(waiters, n, options->json) : EXIT_FINDING;
    while (n > 0)
        waiters_deinit(&waiters[--n]);
    free(waiters);
    survey_deinit(&survey);
    return code;
}

/* ---- upgrade ---- */

/* The next worker's answer; it takes some milliseconds to be there. */
static int await_other(struct peer *peer, uint32_t pid, struct msg_reply *ret_reply)
{
    char path[ADDRESS_BYTES];
    int r = -ETIMEDOUT;

    strcpy(path, peer->path);
    for (unsigned tries = 0; tries < UPGRADE_TRIES; tries++) {
        struct msg_request req = {.op = MSG_STATUS};
        peer_close(peer);
        (void)usleep(UPGRADE_PAUSE_US);
        r = peer_open(peer, path);
        if (r == 0)
            r = peer_call(peer, &req, ret_reply, NULL);
        if (r == 0 && ret_reply->status.pid != pid)
            return 0;
    }
    return r < 0 ? r : peer_fail(peer, -ETIMEDOUT, "acred, pid %u, has not made room", pid);
}

static int cmd_upgrade(struct peer *peer)
{
    struct msg_request status = {.op = MSG_STATUS}, upgrade = {.op = MSG_UPGRADE};
    struct msg_reply before, after, reply;

    if (peer_call(peer, &status, &before, NULL) < 0 ||
        peer_call(peer, &upgrade, &reply, NULL) < 0 ||
        await_other(peer, before.status.pid, &after) < 0)
        return complain(peer);
    printf("acred %s, pid %u, has made room for acred %s, pid %u: %u tenants, %u clients\n",
           before.status.version, before.status.pid, after.status.version, after.status.pid,
           after.status.n_tenants, after.status.n_clients);
    return EXIT_WELL;
}

/* ---- reload ---- */

static int cmd_reload(struct peer *peer)
{
    struct msg_request req = {.op = MSG_RELOAD};
    struct msg_reply reply;
    char bytes[24];

    if (peer_call(peer, &req, &reply, NULL) < 0)
        return complain(peer);
    printf("the configuration was read again: %u tenants, capacity %s\n", reply.reload.n_tenants,
           table_bytes(bytes, reply.reload.capacity_bytes));
    return EXIT_WELL;
}

/* ---- command line ---- */

const char *argp_program_version = "acrectl 0.1.0";

static const char doc[] =
    "Looks at an Acre daemon, without stopping anyone.\v"
    "Commands:\n"
    "  status            the daemon itself, and what memory its tenants have\n"
    "  tenants           one line for each tenant\n"
    "  clients           one line for each attached process, largest first\n"
    "  stats             granted, live and free bytes by client and size class\n"
    "  top               the same as it changes, on a terminal; h shows what the keys do\n"
    "  check [TENANT]    do unit tables, owner tags and charges agree with the daemon's books?\n"
    "  map TENANT        the heap as a picture: what is where, whose and how full, what is free\n"
    "  waiters [TENANT]  who waits for memory, in what order, and what is in the way\n"
    "  reload            reads the daemon's configuration again, whole or not at all\n"
    "  upgrade           replaces the running daemon by the program that is on disk now\n"
    "  tenant set NAME   changes limits, like max=64M, until the configuration is read again\n"
    "  tenant drop NAME  frees a heap that nobody is attached to\n\n"
    "Live bytes are usable bytes. LARGEST: the largest block that nobody has to give something "
    "back\n"
    "for. Exit codes: 0 well, 1 a finding, 2 usage, 3 no daemon.";

enum { KEY_JSON = 256, KEY_SVG, KEY_BY, KEY_WATCH };

static const struct argp_option argp_options[] = {
    {"socket", 's', "PATH", 0,
     "The daemon's socket (default: $ACRE_SOCKET, else the system's, else this user's daemon)", 0},
    {"tenant", 't', "NAME", 0, "Only this tenant", 0},
    {"json", KEY_JSON, NULL, 0, "Print JSON", 0},
    {"watch", KEY_WATCH, "SECONDS", OPTION_ARG_OPTIONAL,
     "stats: again and again, with --json a line each; top: refresh so often (default: 1)", 0},
    {"svg", KEY_SVG, NULL, 0, "map: print an SVG picture", 0},
    {"by", KEY_BY, "WHAT", 0, "map: what signs tell: fill (the default), client or class", 0},
    {"wait", 'w', NULL, 0, "tenant set: until the tenant has no more than its max", 0},
    {0},
};

static bool seconds(const char *text, double *ret_seconds)
{
    char *end;

    *ret_seconds = strtod(text, &end);
    return end != text && *end == '\0' && *ret_seconds >= 0.1 && *ret_seconds <= 86400;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct options *options = state->input;

    switch (key) {
    case 's':
        options->socket = arg;
        return 0;
    case 't':
        options->only = arg;
        return 0;
    case KEY_JSON:
        options->json = true;
        return 0;
    case KEY_WATCH:
        options->watches = true;
        if (arg && !seconds(arg, &options->every_s))
            argp_error(state, "--watch=%s: seconds are wanted, from 0.1 to 86400", arg);
        return 0;
    case KEY_SVG:
        options->svg = true;
        return 0;
    case KEY_BY:
        if (map_by(arg) == MAP_BY_NONE)
            argp_error(state, "--by takes fill, client or class, not \"%s\"", arg);
        options->by = arg;
        return 0;
    case 'w':
        options->waits = true;
        return 0;
    case ARGP_KEY_ARG:
        if (options->n_words == (int)ARRAY_LEN(options->words))
            argp_error(state, "too many arguments");
        options->words[options->n_words++] = arg;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp argp = {
    .options = argp_options, .parser = parse, .args_doc = "COMMAND", .doc = doc};

static int usage(const char *format, const char *what)
{
    fputs("acrectl: ", stderr);
    fprintf(stderr, format, what);
    fputs("; see acrectl --help\n", stderr);
    return EXIT_USAGE;
}

enum command {
    CMD_NONE,
    CMD_STATUS,
    CMD_TENANTS,
    CMD_CLIENTS,
    CMD_STATS,
    CMD_CHECK,
    CMD_MAP,
    CMD_WAITERS,
    CMD_UPGRADE,
    CMD_RELOAD,
    CMD_TOP,
    CMD_TENANT_DROP,
    CMD_TENANT_SET
};

static enum command command_of(const struct options *options)
{
    static const char *const names[] = {"",    "status",  "tenants", "clients", "stats", "check",
                                        "map", "waiters", "upgrade", "reload",  "top"};

    if (options->n_words == 3 && strcmp(options->words[0], "tenant") == 0 &&
        strcmp(options->words[1], "drop") == 0)
        return CMD_TENANT_DROP;
    if (options->n_words > 3 && strcmp(options->words[0], "tenant") == 0 &&
        strcmp(options->words[1], "set") == 0)
        return CMD_TENANT_SET;
    if (options->n_words == 2 && strcmp(options->words[0], "check") == 0)
        return CMD_CHECK;
    if (options->n_words == 2 && strcmp(options->words[0], "map") == 0)
        return CMD_MAP;
    if (options->n_words == 2 && strcmp(options->words[0], "waiters") == 0)
        return CMD_WAITERS;
    for (unsigned i = 1; i < ARRAY_LEN(names) && options->n_words == 1; i++)
        if (strcmp(options->words[0], names[i]) == 0)
            return (enum command)i;
    return CMD_NONE;
}

static int run(struct peer *peer, struct options *options, enum command command)
{
    switch (command) {
    case CMD_STATUS:
        return cmd_status(peer, options);
    case CMD_TENANTS:
        return with_survey(peer, options, print_tenants);
    case CMD_CLIENTS:
        return with_survey(peer, options, print_clients);
    case CMD_STATS:
        return options->watches ? cmd_watch(peer, options)
                                : with_survey(peer, options, print_stats);
    case CMD_TOP:
        return cmd_top(peer, options);
    case CMD_CHECK:
        return cmd_check(peer, options);
    case CMD_MAP:
        return cmd_map(peer, options);
    case CMD_WAITERS:
        return cmd_waiters(peer, options);
    case CMD_UPGRADE:
        return cmd_upgrade(peer);
    case CMD_RELOAD:
        return cmd_reload(peer);
    case CMD_TENANT_SET:
        return tenant_set(peer, &options->set, options->waits) < 0 ? complain(peer) : EXIT_WELL;
    default:
        return tenant_drop(peer, options->words[2]) < 0 ? complain(peer) : EXIT_WELL;
    }
}

int main(int argc, char **argv)
{
    struct options options = {.by = "fill", .every_s = 1};
    struct peer peer = {.sock = -1};
    char why[MSG_TEXT_BYTES];

    (void)setlocale(LC_CTYPE, "");
    argp_err_exit_status = EXIT_USAGE;
    argp_parse(&argp, argc, argv, 0, NULL, &options);
    enum command command = command_of(&options);
    if (options.n_words == 0)
        return usage("%s", "a command is missing");
    if (command == CMD_NONE)
        return usage("there is no such command: %s", options.words[0]);
    if (command == CMD_MAP && options.n_words == 1 && !options.only)
        return usage("%s", "whose map? A tenant is missing");
    if (command == CMD_TENANT_SET &&
        tenant_parse(&options.set, options.words + 2, options.n_words - 2, why) < 0)
        return usage("%s", why);

    sizeclass_init();
    int code =
        peer_open(&peer, options.socket) < 0 ? complain(&peer) : run(&peer, &options, command);
    peer_close(&peer);
    return fflush(stdout) == EOF ? EXIT_FINDING : code;
}
