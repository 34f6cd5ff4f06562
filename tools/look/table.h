/* SPDX-License-Identifier: Apache-2.0 */
/* table.h - text in aligned columns, sizes in human units, and a small bar. */
#ifndef ACRE_LOOK_TABLE_H
#define ACRE_LOOK_TABLE_H

#include <stdio.h>

#include "shm/base.h"

#define TABLE_COLUMNS_MAX 12u
#define TABLE_CELL_BYTES  128u

struct table {
    unsigned n_columns;
    const char *const *heads; /* one that begins with '<' is aligned to the left */
    size_t n_cells;
    char (*cells)[TABLE_CELL_BYTES];
};

void table_init(struct table *table, const char *const *heads, unsigned n_columns);
/* The next cell, in reading order. */
__attribute__((format(printf, 2, 3))) void table_add(struct table *table, const char *format, ...);
/* "12.0 GiB" */
void table_add_bytes(struct table *table, uint64_t n);
/* Prints and empties it; nothing for a table without cells. */
void table_print(struct table *table, FILE *to, const char *indent);

/* Both write to buf and return it. */
const char *table_bytes(char buf[static 24], uint64_t n);
/* Control and non-ASCII characters become '?': names are foreign, and a terminal obeys. */
const char *table_printable(char *buf, size_t n, const char *name);
/* One that takes more than plain text. */
bool table_is_terminal(FILE *to);
/* "[####      ]  42 %", the bar only if the stream is a terminal. */
const char *table_bar(char buf[static TABLE_CELL_BYTES], FILE *to, uint64_t part, uint64_t whole);

#endif
