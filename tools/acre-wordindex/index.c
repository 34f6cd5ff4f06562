/* SPDX-License-Identifier: Apache-2.0 */
#include "index.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "say.h"

/* ---- printing ---- */

struct ranked {
    uint64_t count;
    uint64_t length;
    const unsigned char *letters;
};

struct ranking {
    struct ranked *words;
    size_t n_words, room;
    uint64_t sum;
};

/* Frequent words first, then by the alphabet. */
static int by_rank(const void *left, const void *right)
{
    const struct ranked *a = left, *b = right;
    if (a->count != b->count)
        return a->count > b->count ? -1 : 1;
    int r = memcmp(a->letters, b->letters, a->length < b->length ? a->length : b->length);
    return r ? r : (a->length > b->length) - (a->length < b->length);
}

static int ranking_add(struct ranking *ranking, struct ranked word)
{
    if (ranking->n_words == ranking->room) {
        size_t room = ranking->room ? 2 * ranking->room : 1024;
        struct ranked *words = reallocarray(ranking->words, room, sizeof(*words));
        if (!words)
            return -ENOMEM;
        ranking->words = words;
        ranking->room = room;
    }
    ranking->words[ranking->n_words++] = word;
    ranking->sum += word.count;
    return 0;
}

static int ranking_fill(struct ranking *ranking, struct map *map)
{
    struct map_entry *entry = NULL;
    for (;;) {
        int r = map_next_word(map, entry, &entry);
        if (r || !entry)
            return r;
        struct ranked word = {map_count(map, entry), entry->length, map_letters(map, entry)};
        r = ranking_add(ranking, word);
        if (r)
            return r;
    }
}

static void ranking_print(const struct ranking *ranking, uint64_t n_top)
{
    printf("words %" PRIu64 " distinct %zu\n", ranking->sum, ranking->n_words);
    for (size_t i = 0; i < ranking->n_words && i < n_top; i++) {
        printf("  %" PRIu64 " ", ranking->words[i].count);
        fwrite(ranking->words[i].letters, 1, ranking->words[i].length, stdout);
        putchar('\n');
    }
}

int index_print(struct acre_heap *heap, struct job *job, uint64_t n_top)
{
    struct ranking ranking = {0};
    struct map map = job_map(heap, job);
    int r = ranking_fill(&ranking, &map);
    if (ranking.n_words > 0) /* else words is NULL */
        qsort(ranking.words, ranking.n_words, sizeof(*ranking.words), by_rank);
    if (!r)
        ranking_print(&ranking, n_top);
    free(ranking.words);
    if (r)
        return complain_acre(r, "cannot read the index");
    if (fflush(stdout) || ferror(stdout))
        return complain("cannot write the answer: %s", strerror(errno));
    return EXIT_WELL;
}

/* ---- an index that is kept ---- */

static int find(struct acre_heap *heap, const char *name, struct job **ret_job)
{
    acre_off off;
    int r = acre_root_get(heap, name, &off);
    if (r == -ENOENT)
        return complain("there is no index \"%s\" in this heap", name);
    if (r)
        return complain_acre(r, "cannot find the index");
    struct job *job = acre_pointer(heap, off);
    if (!job)
        return complain_acre(-errno, "cannot reach the index");
    if (acre_usable_size(heap, job) < sizeof(*job) || job->magic != JOB_MAGIC)
        return complain("\"%s\" is not a word index", name);
    *ret_job = job;
    return EXIT_WELL;
}

static int free_index(struct acre_heap *heap, struct job *job)
{
    struct map map = job_map(heap, job);
    int r = map_free(&map);
    acre_free(heap, job);
    return r;
}

/* Published first, then named: the name never leads to blocks that end with this process. A kill
 * between the two leaves blocks without a name, which go with the tenant. */
int index_keep(struct acre_heap *heap, struct job *job, const char *name)
{
    int r = acre_publish_all(heap);
    if (r)
        return complain_acre(r, "cannot publish the index");
    r = acre_root_cas(heap, name, 0, acre_offset(heap, job));
    if (!r)
        return EXIT_WELL;
    int code = complain_acre(r, "cannot name the index");
    free_index(heap, job);
    return code;
}

int index_show(struct acre_heap *heap, const char *name, uint64_t n_top)
{
    struct job *job;
    int code = find(heap, name, &job);
    return code ? code : index_print(heap, job, n_top);
}

/* The name first: nobody finds what is being freed, and of two who drop it one wins. */
int index_drop(struct acre_heap *heap, const char *name)
{
    struct job *job;
    int code = find(heap, name, &job);
    if (code)
        return code;
    int r = acre_root_cas(heap, name, acre_offset(heap, job), 0);
    if (!r)
        r = free_index(heap, job);
    return r ? complain_acre(r, "cannot drop the index") : EXIT_WELL;
}
