/* SPDX-License-Identifier: Apache-2.0 */
/* map_term.c - see map_term.h. */
#include "map_term.h"

#include <inttypes.h>
#include <langinfo.h>
#include <string.h>

#include "tools/look/table.h"

#define COLUMNS    80u
#define ROW_CELLS  64u /* behind a label of 12 columns */
#define N_ROWS_MAX 48u

/* What a cell can be, by fill. */
enum look {
    LOOK_TABLES,
    LOOK_FREE,
    LOOK_RESERVE,
    LOOK_CUT,
    LOOK_SLAB_EMPTY,
    LOOK_SLAB_QUARTER,
    LOOK_SLAB_HALF,
    LOOK_SLAB_MORE,
    LOOK_SLAB_FULL,
    LOOK_LARGE_HEAD,
    LOOK_LARGE,
    LOOK_KEPT,
    LOOK_UNCLEAR,
    LOOKS
};

static const struct {
    const char *plain, *fine, *what;
} looks[LOOKS] = {
    [LOOK_TABLES] = {"#", "▒", "tables of the segment"},
    [LOOK_FREE] = {".", "·", "free"},
    [LOOK_RESERVE] = {"-", "╌", "granted, not in use yet"},
    [LOOK_CUT] = {"+", "+", "a client's, in no block"},
    [LOOK_SLAB_EMPTY] = {"0", "▁", "slab, no block live"},
    [LOOK_SLAB_QUARTER] = {"1", "▂", "slab, under 1/4 live"},
    [LOOK_SLAB_HALF] = {"2", "▄", "slab, under 1/2"},
    [LOOK_SLAB_MORE] = {"3", "▆", "slab, under 3/4"},
    [LOOK_SLAB_FULL] = {"4", "█", "slab, 3/4 and more"},
    [LOOK_LARGE_HEAD] = {"L", "╞", "large block begins"},
    [LOOK_LARGE] = {"l", "═", "and goes on"},
    [LOOK_KEPT] = {"k", "─", "freed large block, kept"},
    [LOOK_UNCLEAR] = {"?", "?", "just changed, or damaged"},
};

/* Of clients by rank, those that have most; then everybody else; whose client has gone. */
static const char *const colours[] = {"36", "32", "33", "35", "34", "96"};
#define COLOUR_OTHERS  "37"
#define COLOUR_ORPHANS "31"
#define COLOUR_NOBODY  "90"

/* By class: 44 of them. By client: the first 52 and all others. */
static const char class_letters[] = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGH";
static const char client_letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
static_assert(sizeof(class_letters) == N_CLASSES + 1, "a letter for each class");

struct canvas {
    FILE *to;
    const struct map *map;
    enum map_by by;
    bool has_colours, is_fine;
    const char *colour; /* the one that is on, or NULL */
    bool seen[LOOKS];
    bool seen_class[N_CLASSES];
    unsigned column; /* of the legend */
};

enum map_by map_by(const char *name)
{
    static const char *const names[] = {"fill", "client", "class"};
    unsigned by = 0;

    while (by < MAP_BY_NONE && strcmp(name, names[by]) != 0)
        by++;
    return (enum map_by)by;
}

/* ---- cells ---- */

static enum look look_of(const struct map_cell *cell)
{
    switch (cell->run->kind) {
    case MAP_TABLES:
        return LOOK_TABLES;
    case MAP_FREE:
        return LOOK_FREE;
    case MAP_RESERVE:
        return LOOK_RESERVE;
    case MAP_CUT:
        return LOOK_CUT;
    case MAP_SLAB:
        return cell->fill == 0 ? LOOK_SLAB_EMPTY : LOOK_SLAB_QUARTER + MIN(cell->fill / 250, 3u);
    case MAP_LARGE:
        return cell->begins ? LOOK_LARGE_HEAD : LOOK_LARGE;
    case MAP_KEPT:
        return LOOK_KEPT;
    default:
        return LOOK_UNCLEAR;
    }
}

static const char *colour_of(const struct canvas *c, tag_t holder)
{
    uint32_t rank = c->map->rank[holder];

    if (holder == 0)
        return COLOUR_NOBODY;
    if (holder == TAG_HEAP)
        return COLOUR_ORPHANS;
    return rank >= 1 && rank <= ARRAY_LEN(colours) ? colours[rank - 1] : COLOUR_OTHERS;
}

static void set_colour(struct canvas *c, const char *colour)
{
    if (!c->has_colours || c->colour == colour)
        return;
    fprintf(c->to, "\033[%sm", colour ? colour : "0");
    c->colour = colour;
}

static char client_letter(const struct canvas *c, tag_t holder)
{
    uint32_t rank = c->map->rank[holder];

    if (holder == TAG_HEAP)
        return '!';
    return rank >= 1 && rank < sizeof(client_letters) ? client_letters[rank - 1] : '*';
}

static void put_cell(struct canvas *c, const struct map_cell *cell)
{
    const struct map_run *run = cell->run;
    enum look look = look_of(cell);

    set_colour(c, colour_of(c, run->holder));
    c->seen[look] = true;
    if (run->kind == MAP_SLAB)
        c->seen_class[run->class_idx] = true;
    if (c->by == MAP_BY_CLIENT && run->holder != 0 && run->kind != MAP_UNCLEAR)
        fputc(client_letter(c, run->holder), c->to);
    else if (c->by == MAP_BY_CLASS && run->kind == MAP_SLAB)
        fputc(class_letters[run->class_idx], c->to);
    else if (c->by == MAP_BY_CLASS && run->kind == MAP_LARGE)
        fputc('=', c->to);
    else if (c->by == MAP_BY_CLASS && run->kind == MAP_KEPT)
        fputc('_', c->to);
    else
        fputs(c->is_fine ? looks[look].fine : looks[look].plain, c->to);
}

static void put_row(struct canvas *c, const struct map_segment *s, uint32_t unit,
                    uint32_t cell_units, size_t *at)
{
    char bytes[24];

    fprintf(c->to, "%10s  ", table_bytes(bytes, unit * UNIT_BYTES));
    for (unsigned i = 0; i < ROW_CELLS && unit < s->n_units; i++, unit += cell_units) {
        struct map_cell cell = map_cell(c->map, s, unit, cell_units, at);
        put_cell(c, &cell);
    }
    set_colour(c, NULL);
    fputc('\n', c->to);
}

/* How many rows from unit on are whole rows of the run that the row before consists of. */
static uint32_t n_rows_alike(const struct canvas *c, const struct map_segment *s, size_t at,
                             uint32_t unit, uint32_t row_units)
{
    const struct map_run *run = &c->map->runs[s->first_run + at];
    uint32_t end = run->unit + run->n_units;

    return run->unit + row_units > unit || end < unit ? 0 : (end - unit) / row_units;
}

static void put_segment(struct canvas *c, const struct map_segment *s, uint32_t cell_units)
{
    uint32_t row_units = ROW_CELLS * cell_units, n_alike = 0;
    char bytes[24];
    size_t at = 0;

    fprintf(c->to, "\nsegment %" PRIu32 ", %s\n", s->slot,
            table_bytes(bytes, s->n_units * UNIT_BYTES));
    for (uint32_t unit = 0; unit < s->n_units; unit += (1 + n_alike) * row_units) {
        put_row(c, s, unit, cell_units, &at);
        n_alike = n_rows_alike(c, s, at, unit + row_units, row_units);
        if (n_alike > 1)
            fprintf(c->to, "%10s  and %" PRIu32 " rows like this\n", "", n_alike);
        else
            n_alike = 0;
    }
}

/* ---- legend ---- */

static void end_legend(struct canvas *c)
{
    if (c->column > 0)
        fputc('\n', c->to);
    c->column = 0;
}

static void put_sign(struct canvas *c, const char *sign, const char *what)
{
    unsigned width = 4 + (unsigned)strlen(what);

    if (c->column + width > COLUMNS)
        end_legend(c);
    fprintf(c->to, "  %s %s", sign, what);
    c->column += width;
}

static bool is_told(const struct canvas *c, enum look look)
{
    switch (look) {
    case LOOK_TABLES:
    case LOOK_FREE:
    case LOOK_UNCLEAR:
        return true;
    case LOOK_RESERVE:
    case LOOK_CUT:
        return c->by != MAP_BY_CLIENT;
    default:
        return c->by == MAP_BY_FILL;
    }
}

static void put_class_signs(struct canvas *c)
{
    char sign[2] = "", what[32];

    for (unsigned i = 0; i < N_CLASSES; i++) {
        sign[0] = class_letters[i];
        (void)snprintf(what, sizeof(what), "%" PRIu32 " B", class_bytes[i]);
        if (c->seen_class[i])
            put_sign(c, sign, what);
    }
    if (c->seen[LOOK_LARGE] || c->seen[LOOK_LARGE_HEAD])
        put_sign(c, "=", "large block");
    if (c->seen[LOOK_KEPT])
        put_sign(c, "_", looks[LOOK_KEPT].what);
}

static void put_legend(struct canvas *c)
{
    fputc('\n', c->to);
    for (unsigned i = 0; i < LOOKS; i++)
        if (c->seen[i] && is_told(c, (enum look)i))
            put_sign(c, c->is_fine ? looks[i].fine : looks[i].plain, looks[i].what);
    if (c->by == MAP_BY_CLASS)
        put_class_signs(c);
    end_legend(c);
}

/* ---- clients ---- */

static uint64_t orphan_units(const struct map *map)
{
    uint64_t n = 0;

    for (size_t i = 0; i < map->n_runs; i++)
        n += map->runs[i].holder == TAG_HEAP ? map->runs[i].n_units : 0;
    return n;
}

static void put_mark(struct canvas *c, tag_t holder)
{
    fputs("  ", c->to);
    set_colour(c, colour_of(c, holder));
    fputs(c->by == MAP_BY_CLIENT ? (char[2]){client_letter(c, holder)}
          : c->is_fine           ? "█"
                                 : "#",
          c->to);
    set_colour(c, NULL);
    fputc(' ', c->to);
}

/* With marks only if the picture has them, too. */
static void put_client(struct canvas *c, const struct map_client *client)
{
    char name[CLIENT_NAME_BYTES], has[24], live[24];

    if (c->has_colours || c->by == MAP_BY_CLIENT)
        put_mark(c, client->id);
    fprintf(c->to, "  client %u, pid %" PRIu32 ", %.16s: %s, %s live\n", client->id, client->pid,
            table_printable(name, sizeof(name), client->name),
            table_bytes(has, client->n_units * UNIT_BYTES), table_bytes(live, client->live_bytes));
}

static void put_clients(struct canvas *c)
{
    size_t n_most = c->by == MAP_BY_CLIENT ? sizeof(client_letters) - 1 : ARRAY_LEN(colours);
    uint64_t n_orphans = orphan_units(c->map);
    char bytes[24];

    if (c->map->n_clients > 0 || n_orphans > 0)
        fputc('\n', c->to);
    for (size_t i = 0; i < MIN(c->map->n_clients, n_most); i++)
        put_client(c, &c->map->clients[i]);
    if (c->map->n_clients > n_most)
        fprintf(c->to, "  and %zu others\n", c->map->n_clients - n_most);
    if (n_orphans == 0)
        return;
    if (c->has_colours || c->by == MAP_BY_CLIENT)
        put_mark(c, TAG_HEAP);
    fprintf(c->to, "  of clients that are gone: %s\n", table_bytes(bytes, n_orphans * UNIT_BYTES));
}

/* ---- figures ---- */

static void add_share(struct table *table, const char *what, uint64_t bytes, uint64_t all)
{
    if (bytes == 0)
        return;
    table_add(table, "%s", what);
    table_add_bytes(table, bytes);
    table_add(table, "%.1f %%", 100.0 * (double)bytes / (double)all);
}

static void put_bytes(const struct canvas *c)
{
    static const char *const heads[] = {"<WHERE IT IS", "BYTES", "OF ALL"};
    const struct map_figures *f = &c->map->figures;
    uint64_t all = map_bytes(c->map), large_live = 0;
    struct table t;

    for (size_t i = 0; i < c->map->n_runs; i++)
        if (c->map->runs[i].kind == MAP_LARGE)
            large_live += map_live_bytes(&c->map->runs[i]);
    table_init(&t, heads, ARRAY_LEN(heads));
    add_share(&t, "live blocks in slabs", f->live_bytes - large_live, all);
    add_share(&t, "free blocks in slabs", f->free_block_bytes, all);
    add_share(&t, "owner maps and ends of slabs", f->overhead_bytes, all);
    add_share(&t, "large blocks", f->bytes[MAP_LARGE], all);
    add_share(&t, "large blocks that were freed and are kept", f->bytes[MAP_KEPT], all);
    add_share(&t, "granted, not in use yet", f->bytes[MAP_RESERVE], all);
    add_share(&t, "clients', in no block", f->bytes[MAP_CUT], all);
    add_share(&t, "free", f->bytes[MAP_FREE], all);
    add_share(&t, "tables of segments", f->bytes[MAP_TABLES], all);
    add_share(&t, "just changed, or damaged", f->bytes[MAP_UNCLEAR], all);
    table_print(&t, c->to, "  ");
}

static void put_spans(const struct canvas *c)
{
    static const char *const heads[] = {"FREE SPANS OF", "NUMBER", "BYTES"};
    const struct map_figures *f = &c->map->figures;
    struct table t;
    char longest[24];

    fprintf(c->to, "\n  free memory is in %" PRIu64 " pieces, the longest %s\n", f->n_free_runs,
            table_bytes(longest, f->longest_free_bytes));
    table_init(&t, heads, ARRAY_LEN(heads));
    for (unsigned k = 0; k <= BUDDY_ORDER_MAX; k++) {
        if (f->free_spans[k] == 0)
            continue;
        table_add_bytes(&t, UNIT_BYTES << k);
        table_add(&t, "%" PRIu64, f->free_spans[k]);
        table_add_bytes(&t, f->free_spans[k] * (UNIT_BYTES << k));
    }
    table_print(&t, c->to, "  ");
}

static void put_figures(const struct canvas *c)
{
    const struct map_figures *f = &c->map->figures;
    char bytes[24], live[24];

    fputc('\n', c->to);
    put_bytes(c);
    if (f->n_slabs > 0)
        fprintf(c->to, "\n  slabs under 1/4 live: %" PRIu64 " of %" PRIu64 ", %s, %s of it live\n",
                f->n_sparse, f->n_slabs, table_bytes(bytes, f->sparse_bytes),
                table_bytes(live, f->sparse_live_bytes));
    put_spans(c);
    if (!c->map->is_still)
        fputs("\n  The heap has changed while it was looked at.\n", c->to);
}

/* ---- the whole ---- */

static bool takes_colours(FILE *to)
{
    const char *no = getenv("NO_COLOR");
    return table_is_terminal(to) && !(no && no[0]);
}

void map_print(FILE *to, const struct map *map, enum map_by by)
{
    struct canvas c = {.to = to, .map = map, .by = by, .has_colours = takes_colours(to)};
    uint32_t cell_units = map_cell_units(map, ROW_CELLS, N_ROWS_MAX);
    char name[TENANT_NAME_BYTES], all[24], live[24], cell[24];

    c.is_fine = c.has_colours && strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
    fprintf(to, "tenant %s\n%s in %zu %s, %s live\n",
            table_printable(name, sizeof(name), map->name), table_bytes(all, map_bytes(map)),
            map->n_segments, map->n_segments == 1 ? "segment" : "segments",
            table_bytes(live, map->figures.live_bytes));
    if (map->n_segments == 0)
        return;
    fprintf(to, "a sign is %s%s%s\n", table_bytes(cell, cell_units * UNIT_BYTES),
            cell_units > 1 ? ": what most of it is" : "",
            c.has_colours ? "; its colour is whose" : "");
    for (size_t i = 0; i < map->n_segments; i++)
        put_segment(&c, &map->segments[i], cell_units);
    put_legend(&c);
    put_clients(&c);
    put_figures(&c);
}
