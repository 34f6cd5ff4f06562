/* SPDX-License-Identifier: Apache-2.0 */
#include "text.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int map_bytes(int fd, uint64_t n_bytes, const unsigned char **ret_bytes)
{
    if (n_bytes == 0) /* mmap() does not map nothing */
        return 0;
    void *bytes = mmap(NULL, n_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    if (bytes == MAP_FAILED)
        return -errno;
    *ret_bytes = bytes;
    return 0;
}

static int file_open(struct text_file *file, const char *name, uint64_t begin)
{
    /* Not to hang on a fifo: it is refused below. */
    int fd = open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return -errno;
    struct stat st;
    int r = fstat(fd, &st) < 0 ? -errno : 0;
    if (!r && S_ISDIR(st.st_mode))
        r = -EISDIR;
    if (!r && !S_ISREG(st.st_mode))
        r = -EINVAL;
    if (!r) {
        *file = (struct text_file){.name = name, .begin = begin};
        file->end = begin + (uint64_t)st.st_size;
        r = map_bytes(fd, (uint64_t)st.st_size, &file->bytes);
    }
    close(fd);
    return r;
}

int text_open(struct text *text, char **names, size_t n_names, const char **ret_culprit)
{
    *text = (struct text){.files = calloc(n_names, sizeof(struct text_file))};
    *ret_culprit = names[0];
    if (!text->files)
        return -ENOMEM;
    for (size_t i = 0; i < n_names; i++) {
        int r = file_open(&text->files[i], names[i], text->n_bytes);
        if (r) {
            *ret_culprit = names[i];
            text_close(text);
            return r;
        }
        text->n_bytes = text->files[i].end;
        text->n_files++;
    }
    return 0;
}

void text_close(struct text *text)
{
    for (size_t i = 0; i < text->n_files; i++) {
        struct text_file *file = &text->files[i];
        if (file->bytes)
            munmap((void *)file->bytes, file->end - file->begin);
    }
    free(text->files);
    *text = (struct text){0};
}

/* The file that holds a position; n_files at the end of the text. */
static size_t file_at(const struct text *text, uint64_t position)
{
    size_t i = 0;
    while (i < text->n_files && text->files[i].end <= position)
        i++;
    return i;
}

uint64_t text_cut(const struct text *text, uint64_t at)
{
    size_t i = file_at(text, at);
    if (i == text->n_files)
        return text->n_bytes;
    const struct text_file *file = &text->files[i];
    const unsigned char *bytes = file->bytes;
    uint64_t p = at - file->begin, n_bytes = file->end - file->begin;
    if (p == 0 || !is_letter(bytes[p - 1]))
        return at;
    while (p < n_bytes && is_letter(bytes[p]))
        p++;
    return file->begin + p;
}

struct text_cursor text_cursor(const struct text *text, uint64_t begin, uint64_t end)
{
    assert(begin <= end && end <= text->n_bytes);
    return (struct text_cursor){text, file_at(text, begin), begin, end};
}

/* Spreads a hash over all bits: buckets are numbered by the low ones (the finaliser of
 * MurmurHash3). */
static uint64_t mix(uint64_t h)
{
    h = (h ^ h >> 33) * 0xff51afd7ed558ccdull;
    h = (h ^ h >> 33) * 0xc4ceb9fe1a85ec53ull;
    return h ^ h >> 33;
}

/* The word that begins at p: its end and its hash (FNV-1a) in one pass. */
static const unsigned char *scan_word(const unsigned char *p, const unsigned char *stop,
                                      struct word *ret_word)
{
    const unsigned char *begin = p;
    uint64_t hash = 0xcbf29ce484222325ull;
    for (; p < stop && is_letter(*p); p++)
        hash = (hash ^ small_letter(*p)) * 0x100000001b3ull;
    *ret_word = (struct word){begin, (size_t)(p - begin), mix(hash)};
    return p;
}

bool text_next(struct text_cursor *cursor, struct word *ret_word)
{
    for (; cursor->position < cursor->end; cursor->file_idx++) {
        const struct text_file *file = &cursor->text->files[cursor->file_idx];
        uint64_t file_end = file->end < cursor->end ? file->end : cursor->end;
        if (cursor->position >= file_end)
            continue;
        const unsigned char *p = file->bytes + (cursor->position - file->begin);
        const unsigned char *stop = file->bytes + (file_end - file->begin);
        while (p < stop && !is_letter(*p))
            p++;
        const unsigned char *begin = p;
        if (p < stop)
            p = scan_word(p, stop, ret_word);
        cursor->position = file->begin + (uint64_t)(p - file->bytes);
        if (p > begin)
            return true;
    }
    return false;
}
