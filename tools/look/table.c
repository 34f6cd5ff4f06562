/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/look/table.h"

#include <inttypes.h>
#include <langinfo.h>
#include <stdarg.h>
#include <string.h>

#define BAR_CELLS 10u

/* ---- cells ---- */

void table_init(struct table *table, const char *const *heads, unsigned n_columns)
{
    acre_assert(n_columns >= 1 && n_columns <= TABLE_COLUMNS_MAX);
    *table = (struct table){.heads = heads, .n_columns = n_columns};
}

void table_add(struct table *table, const char *format, ...)
{
    va_list args;

    if (is_pow2_u64(table->n_cells) || table->n_cells == 0) {
        size_t room = MAX(2 * table->n_cells, 1u);
        table->cells = reallocarray(table->cells, room, sizeof(*table->cells));
        acre_assert(table->cells);
    }
    va_start(args, format);
    (void)vsnprintf(table->cells[table->n_cells++], TABLE_CELL_BYTES, format, args);
    va_end(args);
}

void table_add_bytes(struct table *table, uint64_t n)
{
    char buf[24];
    table_add(table, "%s", table_bytes(buf, n));
}

const char *table_bytes(char buf[static 24], uint64_t n)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)n;
    unsigned unit = 0;

    while (value >= 1024 && unit + 1 < ARRAY_LEN(units)) {
        value /= 1024;
        unit++;
    }
    (void)snprintf(buf, 24, unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
    return buf;
}

const char *table_printable(char *buf, size_t n, const char *name)
{
    size_t i;

    for (i = 0; i + 1 < n && name[i]; i++)
        buf[i] = name[i] >= ' ' && name[i] <= '~' ? name[i] : '?';
    buf[i] = '\0';
    return buf;
}

/* ---- bar ---- */

/* Eighths of a cell make a bar of ten cells readable to the percent. */
static void put_bar(char *buf, unsigned eighths)
{
    static const char *const blocks[] = {" ", "▏", "▎", "▍", "▌", "▋", "▊", "▉", "█"};

    *buf = '\0';
    for (unsigned i = 0; i < BAR_CELLS; i++) {
        unsigned filled = MIN(eighths, 8u);
        strcat(buf, blocks[filled]);
        eighths -= filled;
    }
}

static void put_plain_bar(char *buf, unsigned eighths)
{
    for (unsigned i = 0; i < BAR_CELLS; i++)
        buf[i] = eighths >= i * 8 + 4 ? '#' : ' ';
    buf[BAR_CELLS] = '\0';
}

bool table_is_terminal(FILE *to)
{
    const char *term = getenv("TERM");
    return isatty(fileno(to)) && term && strcmp(term, "dumb") != 0;
}

const char *table_bar(char buf[static TABLE_CELL_BYTES], FILE *to, uint64_t part, uint64_t whole)
{
    double share = whole ? MIN((double)part / (double)whole, 1.0) : 0;
    unsigned eighths = (unsigned)(share * BAR_CELLS * 8 + 0.5);
    char bar[BAR_CELLS * 4 + 1];

    if (!table_is_terminal(to)) {
        (void)snprintf(buf, TABLE_CELL_BYTES, "%3.0f %%", share * 100);
        return buf;
    }
    if (strcmp(nl_langinfo(CODESET), "UTF-8") == 0)
        put_bar(bar, eighths);
    else
        put_plain_bar(bar, eighths);
    (void)snprintf(buf, TABLE_CELL_BYTES, "[%s] %3.0f %%", bar, share * 100);
    return buf;
}

/* ---- printing ---- */

/* Columns on the screen: bytes that begin a character. */
static int width_of(const char *text)
{
    int n = 0;
    for (; *text; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

static bool is_left(const char *head)
{
    return head[0] == '<';
}

static const char *head_text(const char *head)
{
    return is_left(head) ? head + 1 : head;
}

static void measure(const struct table *t, int width[static TABLE_COLUMNS_MAX])
{
    for (unsigned c = 0; c < t->n_columns; c++)
        width[c] = width_of(head_text(t->heads[c]));
    for (size_t i = 0; i < t->n_cells; i++)
        width[i % t->n_columns] = MAX(width[i % t->n_columns], width_of(t->cells[i]));
}

static void print_cell(const struct table *t, FILE *to, unsigned c, const char *text, int width)
{
    bool last = c + 1 == t->n_columns, left = is_left(t->heads[c]);
    int pad = width - width_of(text);

    fprintf(to, "%*s%s%*s%s", left ? 0 : pad, "", text, left && !last ? pad : 0, "",
            last ? "\n" : "  ");
}

void table_print(struct table *t, FILE *to, const char *indent)
{
    int width[TABLE_COLUMNS_MAX];

    measure(t, width);
    for (unsigned c = 0; c < t->n_columns && t->n_cells > 0; c++) {
        fputs(c == 0 ? indent : "", to);
        print_cell(t, to, c, head_text(t->heads[c]), width[c]);
    }
    for (size_t i = 0; i < t->n_cells; i++) {
        unsigned c = (unsigned)(i % t->n_columns);
        fputs(c == 0 ? indent : "", to);
        print_cell(t, to, c, t->cells[i], width[c]);
    }
    free(t->cells);
    table_init(t, t->heads, t->n_columns);
}
