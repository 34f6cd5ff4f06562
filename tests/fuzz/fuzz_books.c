/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the daemon before has left, as a newer, an older or a broken one might have left it; and the
 * next daemon. A script, whose lines change a world of two heaps with clients, orphans and a root:
 *
 *   h word value                the books' header, by words of four bytes
 *   g slot size known span      a segment          c id gen state life uid    a client
 *   r idx off byte              a root, its name   o slot unit n owner        owners
 *   t bytes                     the books are a file of that size
 *   k kept                      is gone            n kept kind no slot        has another name
 *   w kept kept                 each has the other's name
 *   e slot unit entry n         entries of the first heap's segment
 *   b                           all from here on is the second heap's
 *
 * Right is: all is back; or a heap is lost, with all that was its own; or the daemon does not
 * begin, and the books that it could not read are still kept. Not tried: owners where no segment
 * is, and a client of generation 0 before others. Only the daemon writes the books, and no store of
 * it leads there (books.c).
 */
#include <string.h>
#include <sys/mman.h>

#include "shm/sizeclass.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/peers.h"
#include "tests/fuzz/script.h"

#define LINES_MAX   32u
#define COPY_BYTES  KIB(64)
#define BOOKS_BYTES sizeof(struct books)
#define UNITS       ((uint32_t)(MIB(2) / UNIT_BYTES)) /* of a heap, in one segment */

/* ---- the world before ---- */

static struct block grow(struct peer *p, uint32_t tenant, uint32_t n)
{
    struct block b = {.n_units = n};
    struct msg_request req = {.op = MSG_GROW, .grow = {.n_units = n, .exact = true}};
    peers_ask(p, &req);
    peers_run_jobs(); /* the segment is kept before it is granted from */
    acre_assert(p->fake.reply.op == MSG_GROW && p->fake.reply.error == 0);
    b.seg = tenant_locate(world_tenant(tenant), p->fake.reply.grow.run.off, false, &b.unit);
    return b;
}

/* The heap has a slab of two owners, a large block, a root, and what a third has left. */
static void make_heap(uint32_t tenant, struct peer *a, struct peer *b)
{
    struct msg_request root = {.op = MSG_ROOT, .root = {.op = ROOT_SET, .name = "r"}};
    peers_attach(a, tenant, 0);
    peers_attach(b, tenant, 0);
    tag_t *tags = fake_cut_slab(&b->fake, grow(b, tenant, 1), 0, NULL);
    tags[0] = b->fake.id;
    tags[1] = a->fake.id;
    peers_die(b);
    peers_hang_up(b);
    peers_run_jobs();
    struct block large = grow(a, tenant, 5);
    fake_cut_large(&a->fake, large, a->fake.id);
    root.root.desired = seg_off(large.seg, large.unit);
    peers_ask(a, &root);
    acre_assert(a->fake.reply.error == 0);
    tags = fake_cut_slab(&a->fake, grow(a, tenant, 1), 1, NULL);
    tags[3] = a->fake.id;
    (void)grow(a, tenant, 3);
}

static void make_world(void)
{
    for (uint32_t i = 0; i < WORLD_TENANTS; i++)
        world.wishes[i] = (struct tenant_wish){.limits.max_bytes = UNITS * UNIT_BYTES};
    world.capacity_bytes = MIB(16);
    peers_begin();
    make_heap(0, &peers[0], &peers[1]);
    make_heap(1, &peers[2], &peers[3]);
    peers_check();
    world_die();
}

/* ---- what is wrong with it ---- */

static struct store_item *a_kept(struct script *s)
{
    return &world.kept[script_below(s, world.n_kept)];
}

static void change_client(struct script *s, struct books *b)
{
    struct books_client *c = &b->client[script_below(s, 8)];
    c->gen = MAX((uint32_t)script_number(s), 1);
    c->state = (uint32_t)script_number(s);
    c->life_no = (uint32_t)script_number(s);
    c->uid = (uint32_t)script_number(s);
}

static void change_segment(struct script *s, struct books *b)
{
    uint32_t slot = script_below(s, 4);
    struct books_segment *seg = &b->segment[slot];
    seg->size_bytes = script_number(s);
    seg->is_known = (uint8_t)script_number(s);
    seg->retire = (uint8_t)(script_number(s) % 3);
    seg->span_units = (uint32_t)script_number(s);
    if (seg->size_bytes == 0)
        books_set_owner(b, slot, 0, UNITS, OWNER_NONE);
}

static void change_root(struct script *s, struct books *b)
{
    struct books_root *root = &b->root[script_below(s, BOOKS_ROOTS)];
    root->off = script_number(s);
    memset(root->name, (int)script_number(s), sizeof(root->name));
}

static void change_owners(struct script *s, struct books *b)
{
    uint32_t slot = script_below(s, 4), unit = script_below(s, UNITS), n = script_below(s, 64);
    if (b->segment[slot].size_bytes > 0)
        books_set_owner(b, slot, unit, MIN(n, UNITS - unit), (tag_t)script_number(s));
}

static void change_books(struct script *s, uint8_t verb, int fd)
{
    struct books *b = mmap(NULL, BOOKS_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    uint32_t word, value;
    acre_assert(b != MAP_FAILED);
    switch (verb) {
    case 'h':
        word = script_below(s, offsetof(struct books_header, reserved) / sizeof(word));
        value = (uint32_t)script_number(s);
        memcpy((char *)&b->header + word * sizeof(word), &value, sizeof(value));
        break;
    case 'g':
        change_segment(s, b);
        break;
    case 'c':
        change_client(s, b);
        break;
    case 'r':
        change_root(s, b);
        break;
    default:
        change_owners(s, b);
    }
    (void)munmap(b, BOOKS_BYTES);
}

static void change_size(struct script *s, struct store_item *books)
{
    static uint8_t copy[COPY_BYTES];
    ssize_t n = pread(books->fd, copy, sizeof(copy), 0);
    acre_assert(n >= 0);
    int fd = fuzz_file(copy, (size_t)n);
    acre_assert(ftruncate(fd, (off_t)(script_number(s) % (2 * BOOKS_BYTES))) == 0);
    close_fd(&books->fd);
    books->fd = fd;
}

static void change_entries(struct script *s, uint32_t heap)
{
    struct segment_shape shape = segment_shape(UNITS);
    int fd = world_kept((struct kept){KEPT_SEGMENT, heap, script_below(s, 2)});
    uint32_t unit = script_below(s, shape.n_table);
    uint64_t entry = script_number(s);
    for (uint32_t n = script_below(s, 32); fd >= 0 && n > 0 && unit < shape.n_table; n--, unit++)
        acre_assert(pwrite(fd, &entry, sizeof(entry),
                           (off_t)(shape.entries_off + unit * sizeof(entry))) == sizeof(entry));
}

static void rename_kept(struct script *s)
{
    struct store_item *item = a_kept(s);
    struct kept kept = {.kind = (enum kept_kind)("bcslx"[script_below(s, 5)])};
    kept.no = script_below(s, 8);
    kept.slot = script_below(s, 4);
    kept_name(kept, item->name);
}

static void swap_kept(struct script *s)
{
    struct store_item *a = a_kept(s), *b = a_kept(s);
    int fd = a->fd;
    a->fd = b->fd;
    b->fd = fd;
}

static void drop_kept(struct script *s)
{
    struct store_item *item = a_kept(s);
    if (world.n_kept < 2)
        return;
    close_fd(&item->fd);
    *item = world.kept[--world.n_kept];
}

static void do_verb(struct script *s, uint8_t verb, uint32_t *heap)
{
    struct store_item *books = NULL;
    for (uint32_t i = 0; i < world.n_kept; i++)
        if (world.kept[i].name[0] == KEPT_BOOKS && (!books || *heap > 0))
            books = &world.kept[i];
    if (verb == 'b')
        *heap = 1;
    else if (verb == 'k')
        drop_kept(s);
    else if (verb == 'n')
        rename_kept(s);
    else if (verb == 'w')
        swap_kept(s);
    else if (verb == 'e')
        change_entries(s, *heap);
    else if (verb == 't' && books)
        change_size(s, books);
    else if (books && strchr("hgcro", verb) && lseek(books->fd, 0, SEEK_END) >= (off_t)BOOKS_BYTES)
        change_books(s, verb, books->fd);
}

/* ---- the world after ---- */

/* Some of the same name may have become one. */
static void make_names_differ(void)
{
    for (uint32_t i = 0; i < world.n_kept; i++)
        for (uint32_t k = i + 1; k < world.n_kept;)
            if (strcmp(world.kept[i].name, world.kept[k].name) == 0) {
                close_fd(&world.kept[k].fd);
                world.kept[k] = world.kept[--world.n_kept];
            } else {
                k++;
            }
}

/* Books that nobody here can read. */
static uint32_t count_strange_books(void)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < world.n_kept; i++) {
        struct books *books;
        if (world.kept[i].name[0] != KEPT_BOOKS)
            continue;
        if (books_open(world.kept[i].fd, &books) == 0)
            books_unmap(books);
        else
            n++;
    }
    return n;
}

/* This daemon ends before it has begun. */
static void end_early(uint32_t n_strange)
{
    acre_assert(count_strange_books() == n_strange);
    world_die();
    for (uint32_t i = 0; i < PEERS; i++)
        peers_die(&peers[i]);
    world_begin();
    world_end();
}

static void go_on(void)
{
    struct msg_request req = {.op = MSG_ROOT, .root = {.op = ROOT_GET, .name = "r"}};
    peers_check();
    peers_attach(&peers[0], 0, 0);
    peers_attach(&peers[2], 1, 0);
    peers_ask(&peers[0], &req);
    peers_ask(&peers[2], &req);
    req = (struct msg_request){.op = MSG_GROW, .grow = {.n_units = 2}};
    peers_ask(&peers[0], &req);
    peers_ask(&peers[2], &req);
    peers_run_jobs();
    peers_check();
    peers_end();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct script s = {.at = data, .end = data + n};
    uint64_t mapped_bytes = wraps_mapped_bytes();
    unsigned n_fds = wraps_count_fds();
    uint32_t heap = 0;
    make_world();
    for (uint32_t i = 0; i < LINES_MAX && s.at < s.end; i++) {
        do_verb(&s, script_verb(&s), &heap);
        script_next_line(&s);
    }
    make_names_differ();
    uint32_t n_strange = count_strange_books();
    peers_restore();
    acre_assert(n_strange == 0 || wraps_restored() == -EPROTO);
    if (wraps_restored() < 0)
        end_early(n_strange);
    else
        go_on();
    acre_assert(wraps_mapped_bytes() == mapped_bytes);
    acre_assert(wraps_count_fds() == n_fds);
    return 0;
}
