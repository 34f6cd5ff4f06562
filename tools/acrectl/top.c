/* SPDX-License-Identifier: Apache-2.0 */
/*
 * top.c - the screen of acrectl top.
 *
 * MODEL. A survey is taken again and again out of a cache (tools/look), so the daemon is asked once a
 * second at most, and the screen goes on while it is stopped. Of a survey the level that is looked
 * at (tenants; one's clients; classes) makes rows: text and a number for each column, to sort by.
 * Rates are against a survey that is a second old or more.
 *
 * COST. Looking reads all owner maps. It shall take a two-hundredth of one core at most: who asks for
 * more often than that gets it as often as that allows, and is told.
 */
#include "top.h"

#include <curses.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "proto/wire.h"
#include "shm/sizeclass.h"
#include "tools/look/survey.h"
#include "tools/look/table.h"

#define PATIENCE_NS  100000000ull  /* a daemon that is busy answers within it */
#define RATE_NS      1000000000ull /* of rates, at least */
#define SHARE_OF_CPU 200u
#define REFRESH_MIN  100u
#define REFRESH_MAX  60000u
#define COLUMNS_MAX  11u
#define CELL_BYTES   72u
#define HEAD_LINES   5

enum level { LEVEL_TENANTS, LEVEL_CLIENTS, LEVEL_CLASSES, LEVELS };

struct column {
    const char *head; /* one that begins with '<' is aligned to the left */
    int width;
};

struct row {
    char key[CELL_BYTES]; /* which it is, from one survey to the next */
    tag_t id;             /* of a client */
    char cells[COLUMNS_MAX][CELL_BYTES];
    double numbers[COLUMNS_MAX];
};

struct top {
    struct peer *peer;
    struct survey_cache *cache;
    struct survey now, before;
    uint64_t now_ns, before_ns, cost_ns;
    unsigned refresh_ms;
    bool is_paused, is_helping, is_typing, is_due; /* due: what is wanted now is not counted yet */
    enum level level;
    char tenant[TENANT_NAME_BYTES], client[CELL_BYTES]; /* of the levels below */
    tag_t client_id;
    char filter[40];
    unsigned sort[LEVELS];
    bool is_reversed[LEVELS];
    size_t cursor, first; /* the row that is chosen, and the first that is to be seen */
    char chosen[CELL_BYTES];
    size_t n_rows, capacity;
    struct row *rows;
};

static const struct column columns[LEVELS][COLUMNS_MAX] = {
    [LEVEL_TENANTS] = {{"<TENANT", 16},
                       {"CLIENTS", 7},
                       {"GRANTED", 10},
                       {"LIVE", 10},
                       {"LIVE/S", 11},
                       {"USED", 5},
                       {"WAIT", 4},
                       {"<PRESSURE", 8},
                       {"FREE", 10},
                       {"MAX", 10}},
    [LEVEL_CLIENTS] = {{"<NAME", 16},
                       {"CLIENT", 6},
                       {"PID", 8},
                       {"GRANTED", 10},
                       {"LIVE", 10},
                       {"LIVE/S", 11},
                       {"BLOCKS", 9},
                       {"FREE", 10}},
    [LEVEL_CLASSES] = {{"BLOCK", 10},
                       {"SLABS", 8},
                       {"BLOCKS", 10},
                       {"FREE", 10},
                       {"LIVE", 10},
                       {"FILL", 5},
                       {"CLIENT'S", 10}},
};

/* ---- rows ---- */

static struct row *row_new(struct top *top, const char *key)
{
    if (top->n_rows == top->capacity) {
        size_t capacity = 2 * top->capacity + 64;
        struct row *rows = realloc(top->rows, capacity * sizeof(*rows));
        if (!rows)
            return NULL;
        top->rows = rows;
        top->capacity = capacity;
    }
    struct row *row = &top->rows[top->n_rows++];
    memset(row, 0, sizeof(*row));
    (void)snprintf(row->key, sizeof(row->key), "%s", key);
    return row;
}

static void put_text(struct row *row, unsigned *column, const char *text)
{
    (void)table_printable(row->cells[(*column)++], CELL_BYTES, text);
}

static void put_count(struct row *row, unsigned *column, uint64_t n)
{
    row->numbers[*column] = (double)n;
    (void)snprintf(row->cells[(*column)++], CELL_BYTES, "%" PRIu64, n);
}

static void put_bytes(struct row *row, unsigned *column, uint64_t n)
{
    char text[24];

    row->numbers[*column] = (double)n;
    (void)snprintf(row->cells[(*column)++], CELL_BYTES, "%s",
                   n == UINT64_MAX ? "-" : table_bytes(text, n));
}

static void put_percent(struct row *row, unsigned *column, uint64_t part, uint64_t whole)
{
    double share = whole > 0 ? 100.0 * (double)part / (double)whole : 0;

    row->numbers[*column] = share;
    (void)snprintf(row->cells[(*column)++], CELL_BYTES, "%.0f %%", share);
}

/* What it grew by in a second; nothing for what was not there then. */
static void put_rate(const struct top *top, struct row *row, unsigned *column, uint64_t now,
                     bool was_there, uint64_t before)
{
    double seconds = (double)(top->now_ns - top->before_ns) / 1e9;
    char text[24];

    if (was_there && seconds > 0) {
        double rate = ((double)now - (double)before) / seconds;
        row->numbers[*column] = rate;
        if (rate >= 1 || rate <= -1)
            (void)snprintf(row->cells[*column], CELL_BYTES, "%c%s", rate < 0 ? '-' : '+',
                           table_bytes(text, (uint64_t)(rate < 0 ? -rate : rate)));
    }
    (*column)++;
}

static const struct survey_tenant *tenant_named(const struct survey *survey, const char *name)
{
    for (size_t i = 0; i < survey->n_tenants; i++)
        if (strcmp(survey->tenants[i].name, name) == 0)
            return &survey->tenants[i];
    return NULL;
}

static const struct survey_client *same_client(const struct survey_tenant *tenant,
                                               const struct survey_client *c)
{
    for (size_t i = 0; tenant && i < tenant->n_clients; i++)
        if (tenant->clients[i].id == c->id && tenant->clients[i].gen == c->gen)
            return &tenant->clients[i];
    return NULL;
}

static bool make_tenants(struct top *top)
{
    for (size_t i = 0; i < top->now.n_tenants; i++) {
        const struct survey_tenant *t = &top->now.tenants[i];
        const struct survey_tenant *old = tenant_named(&top->before, t->name);
        struct row *row = row_new(top, t->name);
        unsigned c = 0;
        if (!row)
            return false;
        put_text(row, &c, t->name);
        if (t->error || t->is_group) {
            put_text(row, &c, t->error ? t->why : "group");
            continue;
        }
        put_count(row, &c, t->n_clients);
        put_bytes(row, &c, t->granted_bytes);
        put_bytes(row, &c, t->census.live_bytes);
        put_rate(top, row, &c, t->census.live_bytes, old, old ? old->census.live_bytes : 0);
        put_percent(row, &c, t->granted_bytes, t->max_bytes);
        put_count(row, &c, t->n_waiters);
        row->numbers[c] = t->pressure;
        put_text(row, &c, t->pressure == PRESSURE_NONE ? "-" : survey_pressure(t->pressure));
        put_bytes(row, &c, survey_free_bytes(t));
        put_bytes(row, &c, t->max_bytes);
    }
    return true;
}

static bool make_clients(struct top *top, const struct survey_tenant *t)
{
    const struct survey_tenant *old_tenant = tenant_named(&top->before, t->name);

    for (size_t i = 0; i < t->n_clients; i++) {
        const struct survey_client *client = &t->clients[i];
        const struct survey_client *old = same_client(old_tenant, client);
        char key[CELL_BYTES];
        unsigned c = 0;
        (void)snprintf(key, sizeof(key), "%" PRIu32 ".%" PRIu32, (uint32_t)client->id, client->gen);
        struct row *row = row_new(top, key);
        if (!row)
            return false;
        row->id = client->id;
        put_text(row, &c, client->name);
        put_count(row, &c, client->id);
        put_count(row, &c, client->pid);
        put_bytes(row, &c, client->granted_bytes);
        put_bytes(row, &c, client->live_bytes);
        put_rate(top, row, &c, client->live_bytes, old, old ? old->live_bytes : 0);
        put_count(row, &c, client->live_blocks);
        put_bytes(row, &c, client->free_bytes);
    }
    return true;
}

static bool make_class(struct top *top, const struct survey_tenant *t, unsigned idx)
{
    const struct census_class *class = &t->census.classes[idx];
    uint64_t n = class->live_blocks + class->free_blocks;
    char key[24];
    unsigned c = 0;

    if (n == 0)
        return true;
    (void)snprintf(key, sizeof(key), "%u", idx);
    struct row *row = row_new(top, key);
    if (!row)
        return false;
    put_bytes(row, &c, class_bytes[idx]);
    put_count(row, &c, class->slabs);
    put_count(row, &c, class->live_blocks);
    put_count(row, &c, class->free_blocks);
    put_bytes(row, &c, class->live_blocks * class_bytes[idx]);
    put_percent(row, &c, class->live_blocks, n);
    if (t->focus_blocks)
        put_count(row, &c, t->focus_blocks[idx]);
    return true;
}

static bool make_classes(struct top *top, const struct survey_tenant *t)
{
    unsigned c = 0;

    for (unsigned i = 0; i < N_CLASSES; i++)
        if (!make_class(top, t, i))
            return false;
    struct row *row = t->census.large_blocks > 0 ? row_new(top, "large") : NULL;
    if (!row)
        return t->census.large_blocks == 0;
    row->numbers[c] = 1e18;
    put_text(row, &c, "large");
    put_text(row, &c, "-");
    put_count(row, &c, t->census.large_blocks);
    put_text(row, &c, "-");
    put_bytes(row, &c, t->census.large_bytes);
    put_text(row, &c, "-");
    if (t->focus_blocks)
        put_count(row, &c, t->focus_blocks[N_CLASSES]);
    return true;
}

static void filter_rows(struct top *top)
{
    size_t n = 0;

    for (size_t i = 0; i < top->n_rows; i++) {
        bool fits = top->filter[0] == '\0';
        for (unsigned c = 0; c < COLUMNS_MAX && !fits; c++)
            fits = strcasestr(top->rows[i].cells[c], top->filter) != NULL;
        if (fits)
            top->rows[n++] = top->rows[i];
    }
    top->n_rows = n;
}

static int by_column(const void *a, const void *b, void *ctx)
{
    const struct top *top = ctx;
    const struct row *x = a, *y = b;
    unsigned c = top->sort[top->level];
    int order;

    if (columns[top->level][c].head[0] == '<')
        order = strcmp(x->cells[c], y->cells[c]);
    else
        order = (x->numbers[c] < y->numbers[c]) - (x->numbers[c] > y->numbers[c]);
    if (top->is_reversed[top->level])
        order = -order;
    return order ? order : strcmp(x->key, y->key);
}

/* The cursor stays with its row, wherever that has gone. */
static void find_cursor(struct top *top)
{
    for (size_t i = 0; i < top->n_rows; i++)
        if (strcmp(top->rows[i].key, top->chosen) == 0)
            top->cursor = i;
    if (top->cursor >= top->n_rows)
        top->cursor = top->n_rows > 0 ? top->n_rows - 1 : 0;
}

static void choose(struct top *top, size_t cursor)
{
    top->cursor = cursor;
    if (cursor < top->n_rows)
        memcpy(top->chosen, top->rows[cursor].key, sizeof(top->chosen));
}

static bool make_rows(struct top *top)
{
    const struct survey_tenant *t = tenant_named(&top->now, top->tenant);
    bool is_made = true;

    top->n_rows = 0;
    if (top->level == LEVEL_TENANTS)
        is_made = make_tenants(top);
    else if (t && !t->error && !t->is_group)
        is_made = top->level == LEVEL_CLIENTS ? make_clients(top, t) : make_classes(top, t);
    filter_rows(top);
    if (top->n_rows > 0)
        qsort_r(top->rows, top->n_rows, sizeof(*top->rows), by_column, top);
    find_cursor(top);
    return is_made;
}

/* ---- the screen ---- */

/* Clipped, not wrapped. */
__attribute__((format(printf, 2, 3))) static void line(int y, const char *format, ...)
{
    char text[512];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    (void)move(y, 0);
    (void)clrtoeol();
    (void)addnstr(text, COLS);
}

static void draw_head(const struct top *top)
{
    char capacity[24], sealed[24], bar[21] = "";
    uint64_t sealed_bytes = 0;
    size_t n_clients = 0, n_waiters = 0, n_tenants = 0, n_pressed = 0;

    for (size_t i = 0; i < top->now.n_tenants; i++) {
        const struct survey_tenant *t = &top->now.tenants[i];
        if (t->is_group)
            continue;
        n_tenants++;
        sealed_bytes += t->sealed_bytes;
        n_clients += t->n_clients;
        n_waiters += t->n_waiters;
        n_pressed += t->pressure != PRESSURE_NONE;
    }
    size_t n_full = top->now.capacity_bytes
                        ? (size_t)(20.0 * (double)sealed_bytes / (double)top->now.capacity_bytes)
                        : 0;
    memset(bar, '#', MIN(n_full, 20u));
    double every_s = (double)MAX(top->refresh_ms, SHARE_OF_CPU * top->cost_ns / 1000000) / 1e3;
    line(0, "%s%s of %s in segments [%-20s]  every %.1f s", top->is_paused ? "PAUSED  " : "",
         table_bytes(sealed, sealed_bytes), table_bytes(capacity, top->now.capacity_bytes), bar,
         every_s);
    line(1, "%zu tenants, %zu clients, %zu waiting, %zu under pressure%s", n_tenants, n_clients,
         n_waiters, n_pressed, top->now.is_stale ? "  DAEMON SILENT: who is new is missing" : "");
    if (top->level == LEVEL_TENANTS)
        line(2, "all tenants");
    else if (top->level == LEVEL_CLIENTS)
        line(2, "tenant %s: clients", top->tenant);
    else
        line(2, "tenant %s: size classes%s%s", top->tenant,
             top->client[0] ? ", and of client " : "", top->client);
    if (top->is_typing || top->filter[0])
        line(3, "only with: %s%s", top->filter, top->is_typing ? "_" : "");
    else
        line(3, "%s", "");
}

static void draw_cells(const struct top *top, int y, const struct row *row)
{
    const struct column *column = columns[top->level];

    (void)move(y, 0);
    (void)clrtoeol();
    for (unsigned c = 0, x = 0; c < COLUMNS_MAX && column[c].head; c++) {
        bool is_left = column[c].head[0] == '<';
        const char *text = row ? row->cells[c] : column[c].head + is_left;
        int width = column[c].width;
        if ((int)x + width > COLS)
            break;
        bool is_sorted = !row && c == top->sort[top->level];
        if (is_sorted)
            (void)attron(A_UNDERLINE);
        (void)mvprintw(y, (int)x, is_left ? "%-*.*s" : "%*.*s", width, width, text);
        if (is_sorted)
            (void)attroff(A_UNDERLINE);
        x += (unsigned)width + 1;
    }
}

static void draw_rows(struct top *top)
{
    size_t n_lines = LINES > HEAD_LINES + 1 ? (size_t)(LINES - HEAD_LINES - 1) : 0;

    if (top->cursor < top->first)
        top->first = top->cursor;
    if (n_lines > 0 && top->cursor >= top->first + n_lines)
        top->first = top->cursor - n_lines + 1;
    if (top->n_rows <= n_lines)
        top->first = 0;
    (void)attron(A_BOLD);
    draw_cells(top, HEAD_LINES - 1, NULL);
    (void)attroff(A_BOLD);
    for (size_t i = 0; i < n_lines; i++) {
        size_t k = top->first + i;
        if (k < top->n_rows && k == top->cursor)
            (void)attron(A_REVERSE);
        if (k < top->n_rows)
            draw_cells(top, HEAD_LINES + (int)i, &top->rows[k]);
        else
            line(HEAD_LINES + (int)i, "%s", k == 0 ? "nothing here" : "");
        (void)attroff(A_REVERSE);
    }
}

static void draw_help(void)
{
    static const char *const lines[] = {
        "up, down, j, k     choose a line; page up and down, home, end",
        "enter, right       into it: from a tenant to clients, from a client to classes",
        "left, backspace    out again",
        "c                  the tenant's size classes",
        "s                  sort by the next column (underlined); r the other way round",
        "/                  only lines with some text; escape: all again",
        "space              pause: the figures stay",
        "+, -               refresh more often, more seldom; at most so often that",
        "                   looking takes a two-hundredth of a processor",
        "q                  quit",
        "",
        "GRANTED  units that clients hold, or that dead ones' blocks keep",
        "LIVE     usable bytes of blocks that have an owner; LIVE/S  more each second",
        "FREE     granted, and in no live block",
        "USED     granted of max",
        "",
        "any key goes back"};

    (void)erase();
    for (int i = 0; i < (int)ARRAY_LEN(lines) && i < LINES; i++)
        line(i, "%s", lines[i]);
}

static void draw(struct top *top)
{
    if (top->is_helping) {
        draw_help();
    } else {
        draw_head(top);
        draw_rows(top);
        (void)attron(A_DIM);
        line(LINES - 1,
             "q quit  enter in  left out  c classes  s sort  r reverse  / filter  h help");
        (void)attroff(A_DIM);
    }
    (void)refresh();
}

/* ---- keys ---- */

static void go_to(struct top *top, enum level level)
{
    top->level = level;
    top->cursor = top->first = 0;
    top->chosen[0] = top->filter[0] = '\0';
    if (level != LEVEL_CLASSES)
        survey_focus(top->cache, "", 0);
}

static void go_in(struct top *top)
{
    const struct row *row = top->cursor < top->n_rows ? &top->rows[top->cursor] : NULL;

    if (!row || top->level == LEVEL_CLASSES)
        return;
    if (top->level == LEVEL_TENANTS) {
        const struct survey_tenant *t = tenant_named(&top->now, row->key);
        if (!t || t->error || t->is_group)
            return;
        (void)snprintf(top->tenant, sizeof(top->tenant), "%s", t->name);
        go_to(top, LEVEL_CLIENTS);
        return;
    }
    top->client_id = row->id;
    (void)snprintf(top->client, sizeof(top->client), "%u (%.40s)", row->id, row->cells[0]);
    survey_focus(top->cache, top->tenant, row->id);
    top->is_due = true;
    go_to(top, LEVEL_CLASSES);
}

static void go_out(struct top *top)
{
    if (top->level == LEVEL_CLASSES)
        go_to(top, top->client[0] ? LEVEL_CLIENTS : LEVEL_TENANTS);
    else if (top->level == LEVEL_CLIENTS)
        go_to(top, LEVEL_TENANTS);
    top->client[0] = '\0';
}

static void to_classes(struct top *top)
{
    const struct row *row = top->cursor < top->n_rows ? &top->rows[top->cursor] : NULL;

    if (top->level == LEVEL_TENANTS && row)
        (void)snprintf(top->tenant, sizeof(top->tenant), "%.*s", (int)sizeof(top->tenant) - 1,
                       row->key);
    if (top->level == LEVEL_TENANTS && !row)
        return;
    top->client[0] = '\0';
    survey_focus(top->cache, "", 0);
    go_to(top, LEVEL_CLASSES);
}

static void next_sort(struct top *top)
{
    unsigned *c = &top->sort[top->level];

    *c = *c + 1 < COLUMNS_MAX && columns[top->level][*c + 1].head ? *c + 1 : 0;
}

/* Of the filter. */
static void type(struct top *top, int key)
{
    size_t n = strlen(top->filter);

    if (key == '\n' || key == KEY_ENTER) {
        top->is_typing = false;
    } else if (key == 27) {
        top->filter[0] = '\0';
        top->is_typing = false;
    } else if (key == KEY_BACKSPACE || key == 127 || key == 8) {
        if (n > 0)
            top->filter[n - 1] = '\0';
    } else if (key >= ' ' && key < 127 && n + 1 < sizeof(top->filter)) {
        top->filter[n] = (char)key;
        top->filter[n + 1] = '\0';
    }
}

static void move_cursor(struct top *top, long by)
{
    long to = (long)top->cursor + by, last = top->n_rows > 0 ? (long)top->n_rows - 1 : 0;

    choose(top, (size_t)(to < 0 ? 0 : MIN(to, last)));
}

/* False: quit. */
static bool press(struct top *top, int key)
{
    long page = LINES - HEAD_LINES - 1;

    if (top->is_helping) {
        top->is_helping = false;
        return true;
    }
    if (top->is_typing) {
        type(top, key);
        return true;
    }
    switch (key) {
    case 'q':
        return false;
    case 'h':
    case '?':
    case KEY_F(1):
        top->is_helping = true;
        break;
    case KEY_UP:
    case 'k':
        move_cursor(top, -1);
        break;
    case KEY_DOWN:
    case 'j':
        move_cursor(top, 1);
        break;
    case KEY_PPAGE:
        move_cursor(top, -page);
        break;
    case KEY_NPAGE:
        move_cursor(top, page);
        break;
    case KEY_HOME:
        move_cursor(top, -(long)top->n_rows);
        break;
    case KEY_END:
        move_cursor(top, (long)top->n_rows);
        break;
    case '\n':
    case KEY_ENTER:
    case KEY_RIGHT:
        go_in(top);
        break;
    case KEY_LEFT:
    case KEY_BACKSPACE:
    case 127:
    case 8:
        go_out(top);
        break;
    case 'c':
        to_classes(top);
        break;
    case 's':
        next_sort(top);
        break;
    case 'r':
        top->is_reversed[top->level] = !top->is_reversed[top->level];
        break;
    case '/':
        top->is_typing = true;
        top->filter[0] = '\0';
        break;
    case 27:
        top->filter[0] = '\0';
        break;
    case ' ':
        top->is_paused = !top->is_paused;
        break;
    case '+':
        top->refresh_ms = MAX(top->refresh_ms / 2, REFRESH_MIN);
        break;
    case '-':
        top->refresh_ms = MIN(top->refresh_ms * 2, REFRESH_MAX);
        break;
    default: /* KEY_RESIZE: drawn anew */
        break;
    }
    return true;
}

/* ---- from beginning to end ---- */

static uint64_t cpu_ns(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int look(struct top *top)
{
    struct survey survey;
    uint64_t begin_ns = wire_now_ns(), begin_cpu_ns = cpu_ns();
    int r = survey_again(&survey, top->peer, top->cache, SURVEY_BLOCKS);

    if (r < 0) {
        survey_deinit(&survey);
        return r;
    }
    if (top->now_ns == 0 || begin_ns - top->before_ns >= RATE_NS + RATE_NS / 2) {
        survey_deinit(&top->before);
        top->before = top->now;
        top->before_ns = top->now_ns;
    } else {
        survey_deinit(&top->now);
    }
    top->now = survey;
    top->now_ns = wire_now_ns();
    top->cost_ns = cpu_ns() - begin_cpu_ns;
    return 0;
}

static uint64_t due_ns(const struct top *top)
{
    return top->now_ns + MAX(top->refresh_ms * 1000000ull, SHARE_OF_CPU * top->cost_ns);
}

static int loop(struct top *top)
{
    int r = look(top);

    for (bool goes_on = true; r == 0 && goes_on;) {
        if (!make_rows(top))
            return peer_fail(top->peer, -ENOMEM, "out of memory");
        draw(top);
        uint64_t now_ns = wire_now_ns(), due = due_ns(top);
        int wait_ms = due > now_ns ? (int)MIN((due - now_ns) / 1000000 + 1, 1000) : 0;
        timeout(wait_ms);
        int key = getch();
        if (key != ERR)
            goes_on = press(top, key);
        if (top->is_due || (key == ERR && !top->is_paused && wire_now_ns() >= due))
            r = look(top);
        top->is_due = false;
    }
    return r;
}

int top_run(struct peer *peer, unsigned refresh_ms)
{
    struct top top = {.peer = peer,
                      .refresh_ms = MAX(refresh_ms, REFRESH_MIN),
                      .cache = survey_cache_new(),
                      .sort = {[LEVEL_TENANTS] = 2, [LEVEL_CLIENTS] = 3, [LEVEL_CLASSES] = 4}};

    if (!top.cache)
        return peer_fail(peer, -ENOMEM, "out of memory");
    peer->patience_ns = PATIENCE_NS;
    (void)setenv("ESCDELAY", "25", 0);
    if (!initscr())
        return peer_fail(peer, -ENOTTY, "this terminal is not known ($TERM)");
    (void)cbreak();
    (void)noecho();
    (void)keypad(stdscr, TRUE);
    (void)curs_set(0);
    int r = loop(&top);
    (void)endwin();
    survey_deinit(&top.now);
    survey_deinit(&top.before);
    survey_cache_free(top.cache);
    free(top.rows);
    return r;
}
