/* SPDX-License-Identifier: Apache-2.0 */
/*
 * map_svg.c - see map_svg.h. From top to bottom: what there is in figures, a bar of where all bytes
 * are with the legend, free spans by size beside the clients, and the segments in rows of cells. If
 * a cell is a unit, a piece of the picture is a run; else cells in a row that look the same.
 */
#include "map_svg.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "tools/look/table.h"

#define WIDTH      1008u
#define MARGIN     24u
#define ROW_CELLS  64u
#define CELL       15u /* and a pixel between two pieces */
#define N_ROWS_MAX 64u
#define N_COLOURS  6u
#define NAME_BYTES (5 * TENANT_NAME_BYTES) /* each of them escaped */

/* ---- style ---- */

/* Of light and of dark: no variables, which not all readers know. */
static const char style[] =
    "text{font:12px system-ui,-apple-system,'Segoe UI','DejaVu Sans',sans-serif;fill:#1f2328}"
    ".h{font-size:20px;font-weight:600}.n{font-size:19px;font-weight:600}"
    ".m{fill:#59636e}.r{text-anchor:end}.c{text-anchor:middle;font-size:9px;fill:#59636e}"
    ".page{fill:#fff}.card{fill:#f6f8fa}"
    ".tables{fill:#8c959f}.free{fill:#eaeef2}.reserve{fill:#cdd9e5}.cut{fill:#d8c4f0}"
    ".slab{fill:#cde2fa}.live{fill:#2f7fd9}.over{fill:#7d8fa6}.large{fill:#e59a2f}"
    ".kept{fill:#f7deb0}.unclear{fill:#d1242f}.span{fill:#57a0a8}"
    ".w1{fill:#0a7d6c}.w2{fill:#c2358f}.w3{fill:#5b8c1f}.w4{fill:#7a4fd0}.w5{fill:#b3470b}"
    ".w6{fill:#0b5cad}.w0{fill:#59636e}.gone{fill:#1f2328}"
    "@media(prefers-color-scheme:dark){"
    "text{fill:#e6edf3}.m,.c{fill:#9198a1}.page{fill:#0d1117}.card{fill:#161b22}"
    ".tables{fill:#6e7681}.free{fill:#1f252d}.reserve{fill:#34414f}.cut{fill:#4b3a6b}"
    ".slab{fill:#173554}.live{fill:#4593ec}.over{fill:#65768c}.large{fill:#d08a22}"
    ".kept{fill:#544120}.unclear{fill:#f85149}.span{fill:#4a9099}"
    ".w1{fill:#3fc9b5}.w2{fill:#f075c1}.w3{fill:#98d05a}.w4{fill:#b795ff}.w5{fill:#ff9a5c}"
    ".w6{fill:#6cb6ff}.w0{fill:#9198a1}.gone{fill:#fff}}";

struct paper {
    FILE *to;
    const struct map *map;
    uint32_t cell_units;
    unsigned y; /* of what comes next */
};

__attribute__((format(printf, 5, 6))) static void
put_text(struct paper *p, unsigned x, unsigned y, const char *class, const char *format, ...)
{
    va_list args;

    fprintf(p->to, "<text x=\"%u\" y=\"%u\" class=\"%s\">", x, y, class);
    va_start(args, format);
    (void)vfprintf(p->to, format, args);
    va_end(args);
    fputs("</text>\n", p->to);
}

static void put_rect(struct paper *p, double x, double y, double width, double height,
                     const char *class)
{
    fprintf(p->to, "<rect x=\"%.4g\" y=\"%.6g\" width=\"%.4g\" height=\"%.4g\" class=\"%s\"/>", x,
            y, width, height, class);
}

/* A name is its owner's bytes; at most so many of them. */
static const char *escaped(char buf[static NAME_BYTES], const char *name, size_t n_most)
{
    char safe[TENANT_NAME_BYTES];
    size_t k = 0;

    table_printable(safe, MIN(sizeof(safe), n_most + 1), name);
    for (const char *s = safe; *s; s++)
        if (strchr("<>&\"", *s))
            k += (size_t)snprintf(buf + k, NAME_BYTES - k, "&#%d;", *s);
        else
            buf[k++] = *s;
    buf[k] = '\0';
    return buf;
}

/* ---- figures ---- */

static void put_card(struct paper *p, unsigned i, const char *number, const char *what)
{
    unsigned width = (WIDTH - 2 * MARGIN - 4 * 12) / 5, x = MARGIN + i * (width + 12);

    fprintf(p->to, "<rect x=\"%u\" y=\"%u\" width=\"%u\" height=\"58\" rx=\"6\" class=\"card\"/>\n",
            x, p->y, width);
    put_text(p, x + 12, p->y + 26, "n", "%s", number);
    put_text(p, x + 12, p->y + 46, "m", "%s", what);
}

static void put_cards(struct paper *p)
{
    const struct map_figures *f = &p->map->figures;
    uint64_t all = MAX(map_bytes(p->map), 1u);
    char bytes[24], what[96];

    (void)snprintf(what, sizeof(what), "in %zu segment%s", p->map->n_segments,
                   p->map->n_segments == 1 ? "" : "s");
    put_card(p, 0, table_bytes(bytes, map_bytes(p->map)), what);
    (void)snprintf(what, sizeof(what), "live, %.0f %%: %" PRIu64 " blocks",
                   100.0 * (double)f->live_bytes / (double)all, f->live_blocks);
    put_card(p, 1, table_bytes(bytes, f->live_bytes), what);
    (void)snprintf(what, sizeof(what), "free, in %" PRIu64 " piece%s", f->n_free_runs,
                   f->n_free_runs == 1 ? "" : "s");
    put_card(p, 2, table_bytes(bytes, f->bytes[MAP_FREE]), what);
    put_card(p, 3, table_bytes(bytes, f->longest_free_bytes), "longest free piece");
    (void)snprintf(what, sizeof(what), "in %" PRIu64 " slabs under 1/4 live", f->n_sparse);
    put_card(p, 4, table_bytes(bytes, f->sparse_bytes), what);
    p->y += 58 + 20;
}

/* ---- where all bytes are ---- */

struct part {
    const char *class, *what;
    uint64_t bytes;
};
#define N_PARTS 10u

static void parts_of(const struct map_figures *f, struct part parts[static N_PARTS])
{
    uint64_t in_slabs = f->bytes[MAP_SLAB], rest = f->free_block_bytes + f->overhead_bytes;

    parts[0] = (struct part){"live", "live blocks in slabs", in_slabs - MIN(rest, in_slabs)};
    parts[1] = (struct part){"slab", "free blocks in slabs", f->free_block_bytes};
    parts[2] = (struct part){"over", "maps and ends of slabs", f->overhead_bytes};
    parts[3] = (struct part){"large", "large blocks", f->bytes[MAP_LARGE]};
    parts[4] = (struct part){"kept", "large, freed and kept", f->bytes[MAP_KEPT]};
    parts[5] = (struct part){"reserve", "granted, not in use yet", f->bytes[MAP_RESERVE]};
    parts[6] = (struct part){"cut", "a client's, in no block", f->bytes[MAP_CUT]};
    parts[7] = (struct part){"free", "free", f->bytes[MAP_FREE]};
    parts[8] = (struct part){"tables", "tables of segments", f->bytes[MAP_TABLES]};
    parts[9] = (struct part){"unclear", "just changed, or damaged", f->bytes[MAP_UNCLEAR]};
}

static void put_bar(struct paper *p, const struct part parts[static N_PARTS])
{
    double width = WIDTH - 2 * MARGIN, x = MARGIN, all = (double)map_bytes(p->map);

    for (unsigned i = 0; i < N_PARTS; i++) {
        double part = all > 0 ? width * (double)parts[i].bytes / all : 0;
        if (parts[i].bytes > 0)
            put_rect(p, x, p->y, MAX(part - 1, 0.5), 18, parts[i].class);
        x += part;
    }
    fputc('\n', p->to);
    p->y += 18 + 18;
}

/* Four in a row: swatch, what, bytes. */
static void put_parts(struct paper *p)
{
    struct part parts[N_PARTS];
    unsigned n = 0, width = (WIDTH - 2 * MARGIN) / 4;
    char bytes[24];

    parts_of(&p->map->figures, parts);
    put_bar(p, parts);
    for (unsigned i = 0; i < N_PARTS; i++) {
        if (parts[i].bytes == 0)
            continue;
        unsigned x = MARGIN + n % 4 * width, y = p->y + n / 4 * 20;
        put_rect(p, x, y, 11, 11, parts[i].class);
        put_text(p, x + 17, y + 10, "", "%s <tspan class=\"m\">%s</tspan>", parts[i].what,
                 table_bytes(bytes, parts[i].bytes));
        n++;
    }
    p->y += (n + 3) / 4 * 20 + 18;
}

/* ---- free spans and clients ---- */

/* By bytes, for a small span is no use to who wants a large one. */
static unsigned put_spans(struct paper *p)
{
    const struct map_figures *f = &p->map->figures;
    uint64_t most = 1;
    unsigned n_orders = 1; /* that there can be */
    char size[24];

    for (size_t i = 0; i < p->map->n_segments; i++)
        while (n_orders <= BUDDY_ORDER_MAX && p->map->segments[i].n_units >> n_orders > 0)
            n_orders++;
    for (unsigned k = 0; k < n_orders; k++)
        most = MAX(most, f->free_spans[k] << k);
    put_text(p, MARGIN, p->y + 10, "m", "free memory by size of span; how many there are");
    for (unsigned k = 0; k < n_orders; k++) {
        uint64_t bytes = UNIT_BYTES << k;
        double height = 50.0 * (double)(f->free_spans[k] << k) / (double)most;
        unsigned x = MARGIN + k * 27;
        put_rect(p, x, p->y + 84 - height, 23, MAX(height, 0.5), "span");
        if (f->free_spans[k] > 0)
            put_text(p, x + 11, (unsigned)(p->y + 80 - height), "c", "%" PRIu64, f->free_spans[k]);
        (void)snprintf(size, sizeof(size), "%" PRIu64 "%c",
                       bytes >= GIB(1)   ? bytes >> 30
                       : bytes >= MIB(1) ? bytes >> 20
                                         : bytes >> 10,
                       bytes >= GIB(1)   ? 'G'
                       : bytes >= MIB(1) ? 'M'
                                         : 'K');
        put_text(p, x + 11, p->y + 97, "c", "%s", size);
    }
    return 97;
}

static const char *class_of(const struct map *map, tag_t holder)
{
    static const char *const classes[] = {"w0", "w1", "w2", "w3", "w4", "w5", "w6"};
    uint32_t rank = map->rank[holder];

    if (holder == TAG_HEAP)
        return "gone";
    return classes[rank <= N_COLOURS ? rank : 0];
}

static unsigned put_clients(struct paper *p)
{
    const struct map *map = p->map;
    unsigned x = WIDTH / 2 + 16, y = p->y;
    char name[NAME_BYTES], has[24], live[24];
    uint64_t n_gone = 0;

    put_text(p, x, y + 10, "m", "whose: the stripe at the top of a cell");
    for (size_t i = 0; i < map->n_runs; i++)
        n_gone += map->runs[i].holder == TAG_HEAP ? map->runs[i].n_units : 0;
    for (size_t i = 0; i < MIN(map->n_clients, N_COLOURS); i++) {
        const struct map_client *c = &map->clients[i];
        y += 18;
        put_rect(p, x, y + 4, 14, 4, class_of(map, c->id));
        put_text(p, x + 20, y + 10, "",
                 "client %u, pid %" PRIu32 ", %s <tspan class=\"m\">%s, %s live</tspan>", c->id,
                 c->pid, escaped(name, c->name, 24), table_bytes(has, c->n_units * UNIT_BYTES),
                 table_bytes(live, c->live_bytes));
    }
    if (map->n_clients > N_COLOURS) {
        y += 18;
        put_rect(p, x, y + 4, 14, 4, "w0");
        put_text(p, x + 20, y + 10, "", "%zu other clients", map->n_clients - N_COLOURS);
    }
    if (n_gone > 0) {
        y += 18;
        put_rect(p, x, y + 4, 14, 4, "gone");
        put_text(p, x + 20, y + 10, "", "of clients that are gone <tspan class=\"m\">%s</tspan>",
                 table_bytes(has, n_gone * UNIT_BYTES));
    }
    return y - p->y + 18;
}

/* ---- segments ---- */

struct piece {
    uint32_t cell, n_cells; /* in the segment */
    struct map_cell is;
};

static void put_whose(struct paper *p, tag_t holder)
{
    const struct map *map = p->map;
    char name[NAME_BYTES];

    if (holder == 0)
        return;
    if (holder == TAG_HEAP || map->rank[holder] == 0) {
        fputs(", of a client that is gone", p->to);
        return;
    }
    const struct map_client *c = &map->clients[map->rank[holder] - 1];
    fprintf(p->to, ", client %u (pid %" PRIu32 ", %s)", c->id, c->pid,
            escaped(name, c->name, CLIENT_NAME_BYTES));
}

static void put_what(struct paper *p, const struct map_cell *is)
{
    static const char *const whats[MAP_KINDS] = {"tables of the segment",
                                                 "free",
                                                 "granted, not in use yet",
                                                 "in no block",
                                                 "slab",
                                                 "large block",
                                                 "freed large block",
                                                 "just changed, or damaged"};
    const struct map_run *run = is->run;

    fputs(whats[run->kind], p->to);
    if (run->kind == MAP_SLAB)
        fprintf(p->to, " of %" PRIu32 " B", class_bytes[run->class_idx]);
    if (run->kind == MAP_SLAB && p->cell_units == 1)
        fprintf(p->to, ": %u of %u live", run->n_live, run->n_blocks);
    else if (run->kind == MAP_SLAB)
        fprintf(p->to, ": %" PRIu32 " %% live", (is->fill + 9) / 10);
    put_whose(p, run->holder);
    if (p->cell_units == 1 && run->n_published > 0)
        fprintf(p->to, ", %u published", run->n_published);
    if (p->cell_units == 1 && run->n_lent > 0)
        fprintf(p->to, ", %u of other clients", run->n_lent);
}

static void put_title(struct paper *p, const struct piece *piece)
{
    uint64_t cell_bytes = p->cell_units * UNIT_BYTES;
    char from[24], bytes[24];

    fprintf(p->to, "<title>%s%s at %s: ", p->cell_units > 1 ? "about " : "",
            table_bytes(bytes, piece->n_cells * cell_bytes),
            table_bytes(from, piece->cell * cell_bytes));
    put_what(p, &piece->is);
    fputs("</title>", p->to);
}

/* A part of it that lies in one row. */
static void put_strip(struct paper *p, const struct map_cell *is, double x, double y, double width)
{
    double height = CELL - 1, live = height * is->fill / 1000;

    put_rect(p, x, y, width, height, map_kind_name((enum map_kind)is->run->kind));
    if (is->run->kind == MAP_SLAB && live > 0)
        put_rect(p, x, y + height - live, width, live, "live");
    if (is->run->holder != 0)
        put_rect(p, x, y, width, 3, class_of(p->map, is->run->holder));
}

static void put_piece(struct paper *p, const struct piece *piece)
{
    uint32_t cell = piece->cell, end = piece->cell + piece->n_cells;

    fputs("<g>", p->to);
    put_title(p, piece);
    while (cell < end) {
        uint32_t n = MIN(end - cell, ROW_CELLS - cell % ROW_CELLS);
        put_strip(p, &piece->is, MARGIN + cell % ROW_CELLS * CELL, p->y + cell / ROW_CELLS * CELL,
                  n * CELL - 1);
        cell += n;
    }
    fputs("</g>\n", p->to);
}

static bool is_alike(const struct paper *p, const struct map_cell *a, const struct map_cell *b)
{
    if (p->cell_units == 1 || a->run == b->run)
        return a->run == b->run;
    return a->run->kind == b->run->kind && a->run->holder == b->run->holder &&
           a->run->class_idx == b->run->class_idx && a->fill / 100 == b->fill / 100 &&
           a->run->kind != MAP_LARGE;
}

static void put_segment(struct paper *p, const struct map_segment *s)
{
    uint32_t n_cells = (s->n_units + p->cell_units - 1) / p->cell_units;
    struct piece piece = {.n_cells = 0};
    size_t at = 0;
    char bytes[24];

    put_text(p, MARGIN, p->y + 10, "m", "segment %" PRIu32 ", %s", s->slot,
             table_bytes(bytes, s->n_units * UNIT_BYTES));
    p->y += 18;
    for (uint32_t cell = 0; cell < n_cells; cell++) {
        struct map_cell is = map_cell(p->map, s, cell * p->cell_units, p->cell_units, &at);
        if (piece.n_cells > 0 && !is_alike(p, &piece.is, &is)) {
            put_piece(p, &piece);
            piece.n_cells = 0;
        }
        if (piece.n_cells++ == 0) {
            piece.cell = cell;
            piece.is = is;
        }
    }
    if (piece.n_cells > 0)
        put_piece(p, &piece);
    p->y += (n_cells + ROW_CELLS - 1) / ROW_CELLS * CELL + 14;
}

/* ---- the whole ---- */

static void put_head(struct paper *p)
{
    char name[NAME_BYTES], cell[24];

    put_text(p, MARGIN, p->y + 18, "h", "heap of tenant %s",
             escaped(name, p->map->name, TENANT_NAME_BYTES));
    put_text(p, WIDTH - MARGIN, p->y + 18, "m r", "a cell is %s%s%s",
             table_bytes(cell, p->cell_units * UNIT_BYTES),
             p->cell_units > 1 ? ": what most of it is" : "",
             p->map->is_still ? "" : "; it changed while it was looked at");
    p->y += 36;
}

static void put_all(struct paper *p)
{
    p->y = MARGIN;
    put_head(p);
    put_cards(p);
    put_parts(p);
    unsigned height = put_spans(p), clients_height = put_clients(p);
    p->y += MAX(height, clients_height) + 22;
    for (size_t i = 0; i < p->map->n_segments; i++)
        put_segment(p, &p->map->segments[i]);
}

/* Its height is known last: it is written to memory first. */
void map_svg_print(FILE *to, const struct map *map)
{
    char *body = NULL;
    size_t n_body = 0;
    struct paper p = {.map = map, .cell_units = map_cell_units(map, ROW_CELLS, N_ROWS_MAX)};

    p.to = open_memstream(&body, &n_body);
    acre_assert(p.to);
    put_all(&p);
    acre_assert(fclose(p.to) == 0 && body);
    fprintf(to,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%u\" height=\"%u\" "
            "viewBox=\"0 0 %u %u\">\n<style>%s</style>\n"
            "<rect width=\"%u\" height=\"%u\" class=\"page\"/>\n",
            WIDTH, p.y + MARGIN, WIDTH, p.y + MARGIN, style, WIDTH, p.y + MARGIN);
    (void)fwrite(body, 1, n_body, to);
    fputs("</svg>\n", to);
    free(body);
}
