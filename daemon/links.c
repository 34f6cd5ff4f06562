/* SPDX-License-Identifier: Apache-2.0 */
/* links.c - see links.h. */
#include "daemon/links.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static int compare(const void *a, const void *b)
{
    const struct link *x = a, *y = b;
    if (x->block_off != y->block_off)
        return x->block_off < y->block_off ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

static int add(struct links *links, uint64_t block_off, tag_t id)
{
    if (links->n % INTENTS == 0) {
        struct link *more = reallocarray(links->all, links->n + INTENTS, sizeof(*more));
        if (!more)
            return -ENOMEM;
        links->all = more;
    }
    links->all[links->n++] = (struct link){block_off, id};
    return 0;
}

int links_add(struct links *links, tag_t id, int life_fd, links_read_fn read_slot, void *ctx)
{
    struct intent lines[INTENTS] = {0}; /* and so they stay if the client has made the page short */
    uint64_t value;
    int r = 0;
    if (pread(life_fd, lines, sizeof(lines), offsetof(struct life_page, intents)) < 0)
        return -errno;
    for (unsigned i = 0; i < INTENTS && r == 0; i++)
        if (lines[i].block_off > INTENT_TAKEN && read_slot(ctx, lines[i].slot_off, &value) &&
            value == lines[i].block_off)
            r = add(links, value, id);
    return r;
}

void links_sort(struct links *links)
{
    if (links->n > 1)
        qsort(links->all, links->n, sizeof(*links->all), compare);
}

bool links_have(const struct links *links, tag_t id, uint64_t block_off)
{
    struct link key = {block_off, id};
    return links->n > 0 &&
           bsearch(&key, links->all, links->n, sizeof(*links->all), compare) != NULL;
}

void links_deinit(struct links *links)
{
    free(links->all);
    *links = (struct links){0};
}
