/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Roots, theory. A root is an entry in the books: name, then offset (the commit). Setting one first
 * turns the block's owner tag from the client to the heap, by compare-and-swap in the segment, then
 * stores the root: killed between the two, the block is published and has no name, which the client
 * sees as a call that failed after it had published. The other order could name a block that dies.
 *
 * Everything about the block is foreign: the unit entry is copied once, the geometry is checked
 * against the books, and the one store into the segment changes a tag that equals the client's own
 * id.
 */
#include "daemon/roots.h"

#include <string.h>

static struct books_root *find(struct tenant *t, const char *name)
{
    for (uint32_t i = 0; i < BOOKS_ROOTS; i++)
        if (t->books->root[i].off != 0 && strcmp(t->books->root[i].name, name) == 0)
            return &t->books->root[i];
    return NULL;
}

static struct books_root *find_room(struct tenant *t)
{
    for (uint32_t i = 0; i < BOOKS_ROOTS; i++)
        if (t->books->root[i].off == 0)
            return &t->books->root[i];
    return NULL;
}

/* Where the owner tag of the block that starts at off is; NULL if no block can start there. */
static tag_t *tag_of_large(const struct tenant *t, struct seg *seg, uint32_t unit, uint64_t entry)
{
    uint32_t n = unit_entry_large_units(entry);
    tag_t owner = tenant_owner(t, seg, unit);
    if (unit >= seg->shape.n_table || !seg_contains(seg, unit, n) || owner == OWNER_NONE ||
        !tenant_all_owned(t, seg, unit, n, owner))
        return NULL;
    return segment_tags(seg->base, &seg->shape) + unit;
}

static tag_t *tag_of_small(const struct tenant *t, struct seg *seg, uint32_t unit, uint64_t entry,
                           uint64_t off)
{
    unsigned geo = unit_entry_geo(entry), back = unit_entry_back(entry);
    if (geo_infos[geo].n_blocks == 0 || back >= 1u << geo_infos[geo].order || back > unit)
        return NULL;
    uint32_t head = unit - back, n = 1u << geo_infos[geo].order;
    tag_t owner = tenant_owner(t, seg, unit);
    if (seg->n_slots > 1 || !seg_contains(seg, head, n) || owner == OWNER_NONE ||
        !tenant_all_owned(t, seg, head, n, owner))
        return NULL;
    uint64_t in_slab = off - seg_off(seg, head);
    if (in_slab < geo_table[geo].first || (in_slab - geo_table[geo].first) % geo_table[geo].size)
        return NULL;
    uint64_t idx = (in_slab - geo_table[geo].first) / geo_table[geo].size;
    if (idx >= geo_infos[geo].n_blocks)
        return NULL;
    return (tag_t *)(void *)(seg->base + ((uint64_t)head << UNIT_SHIFT)) + idx;
}

static tag_t *tag_of(const struct tenant *t, uint64_t off)
{
    uint32_t unit;
    struct seg *seg = tenant_locate(t, off, true, &unit);
    if (!seg || unit >= seg->shape.n_table)
        return NULL;
    uint64_t entry = seg_entry(seg, unit);
    switch (unit_entry_state(entry)) {
    case U_LARGE:
        return off == seg_off(seg, unit) &&
                       !((unit_entry_geo(entry) & LARGE_KEPT) || unit_entry_is_soft(entry))
                   ? tag_of_large(t, seg, unit, entry)
                   : NULL;
    case U_SLAB:
    case U_PARKED:
        return tag_of_small(t, seg, unit, entry, off);
    default:
        return NULL;
    }
}

static int publish(struct tenant *t, const struct client *c, uint64_t off)
{
    tag_t *tag = tag_of(t, off), was = c->id;
    if (!tag)
        return -EINVAL;
    if (__atomic_compare_exchange_n(tag, &was, TAG_HEAP, false, __ATOMIC_ACQ_REL,
                                    __ATOMIC_ACQUIRE) ||
        was == TAG_HEAP)
        return 0;
    return was == TAG_FREE ? -EINVAL : -EPERM;
}

static void store_off(struct books_root *root, uint64_t off)
{
    __atomic_store_n(&root->off, off, __ATOMIC_RELEASE);
}

static int set(struct tenant *t, const struct client *c, struct books_root *root, const char *name,
               uint64_t off)
{
    bool fresh = root == NULL;
    if (fresh)
        root = find_room(t);
    if (!root)
        return -ENOSPC;
    int r = publish(t, c, off);
    if (r < 0)
        return r;
    if (fresh) {
        memset(root->name, 0, sizeof(root->name));
        strcpy(root->name, name);
    }
    store_off(root, off);
    return 0;
}

static int cas(struct tenant *t, const struct client *c, struct books_root *root,
               const struct msg_request *req)
{
    uint64_t now = root ? root->off : 0;
    if (now != req->root.expected)
        return req->root.expected == 0 ? -EEXIST : -EAGAIN;
    if (req->root.desired != 0)
        return set(t, c, root, req->root.name, req->root.desired);
    if (root)
        store_off(root, 0);
    return 0;
}

int roots_do(struct tenant *t, const struct client *c, const struct msg_request *req,
             uint64_t *ret_off)
{
    size_t n = strlen(req->root.name);
    if (n == 0 || n >= ROOT_NAME_BYTES)
        return -EINVAL;
    struct books_root *root = find(t, req->root.name);
    *ret_off = root ? root->off : 0;
    switch (req->root.op) {
    case ROOT_GET:
        return root ? 0 : -ENOENT;
    case ROOT_SET:
        return set(t, c, root, req->root.name, req->root.desired);
    case ROOT_CAS:
        return cas(t, c, root, req);
    case ROOT_DEL:
        if (root)
            store_off(root, 0);
        return root ? 0 : -ENOENT;
    }
    return -EINVAL;
}
