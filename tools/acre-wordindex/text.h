/* SPDX-License-Identifier: Apache-2.0 */
/*
 * text.h - the input: files mapped read-only and numbered through as one row of bytes, and its
 * words. A word is a maximal run of ASCII letters inside one file.
 */
#ifndef WORDINDEX_TEXT_H
#define WORDINDEX_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct text_file {
    const char *name;
    const unsigned char *bytes;
    uint64_t begin, end; /* positions in the row */
};

struct text {
    struct text_file *files;
    size_t n_files;
    uint64_t n_bytes;
};

struct word {
    const unsigned char *letters; /* in the mapped file: capitals are still capitals */
    size_t length;
    uint64_t hash; /* of the small letters */
};

struct text_cursor {
    const struct text *text;
    size_t file_idx;
    uint64_t position, end;
};

/* 0, or a negative errno and the file that it is about; -EINVAL: not a regular file. */
int text_open(struct text *text, char **names, size_t n_names, const char **ret_culprit);
void text_close(struct text *text);

/* The first position from `at` on that is not inside a word. */
uint64_t text_cut(const struct text *text, uint64_t at);

struct text_cursor text_cursor(const struct text *text, uint64_t begin, uint64_t end);

/* The next word that begins before the cursor's end; the cursor stands behind it then. */
bool text_next(struct text_cursor *cursor, struct word *ret_word);

static inline unsigned char small_letter(unsigned char c)
{
    return c | 0x20; /* of letters only */
}

static inline bool is_letter(unsigned char c)
{
    return (unsigned)small_letter(c) - 'a' < 26;
}

#endif
