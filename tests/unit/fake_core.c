/* SPDX-License-Identifier: Apache-2.0 */
/* fake_core.c - see fake_core.h. */
#include "tests/unit/fake_core.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#include "daemon/dispatch.h"
#include "daemon/tenant.h"
#include "shm/sizeclass.h"

/* ---- what the core wants of the world ---- */

void fake_reply(void *peer, const struct msg_reply *reply, int fd)
{
    struct fake *f = peer;
    if (reply->serial == 0) {
        f->n_events++;
        return;
    }
    f->reply = *reply;
    f->n_replies++;
    close_fd(&f->fd);
    f->fd = fd;
}

void fake_close(void *peer)
{
    ((struct fake *)peer)->told_to_close = true;
}

void fake_close_foreign(void *ctx, int fd, uid_t uid)
{
    (void)ctx;
    (void)uid;
    close_fd(&fd);
}

int fake_open_pidfd(void *peer)
{
    (void)peer;
    return -1;
}

/* ---- peers ---- */

void fake_connect(struct core *core, struct fake *f, uid_t uid, uint64_t now_ns)
{
    struct creds creds = {.pid = getpid(), .uid = uid, .gid = uid};
    struct msg_request hello = {.op = MSG_HELLO, .serial = 1};
    memset(f, 0, sizeof(*f));
    f->fd = f->life_fd = -1;
    f->is_open = true;
    dispatch_accept(core, &f->session, f, &creds);
    strcpy(hello.hello.magic, "ACRE");
    hello.hello.version_min = hello.hello.version_max = 1;
    hello.hello.fingerprint = layout_fingerprint();
    dispatch_request(core, &f->session, &hello, 0, -1, now_ns);
    acre_assert(f->n_replies == 1 && f->reply.error == 0);
}

void fake_make_page(struct fake *f)
{
    f->life_fd = memfd_create("life", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    acre_assert(f->life_fd >= 0 && ftruncate(f->life_fd, sizeof(*f->page)) == 0);
    f->page = mmap(NULL, sizeof(*f->page), PROT_READ | PROT_WRITE, MAP_SHARED, f->life_fd, 0);
    acre_assert(f->page != MAP_FAILED);
    f->page->magic = LIFE_MAGIC;
    memset(f->page->secret, 0x5a, sizeof(f->page->secret));
}

void fake_unmap_page(struct fake *f)
{
    if (f->page)
        munmap(f->page, sizeof(*f->page));
    f->page = NULL;
    close_fd(&f->life_fd);
}

/* ---- memory ---- */

tag_t *fake_cut_slab(const struct fake *f, struct block b, unsigned class_idx, unsigned *ret_geo)
{
    unsigned geo = geo_of(class_idx, class_order_min[class_idx]);
    acre_assert(b.n_units >= 1u << geo_infos[geo].order);
    char *head = b.seg->base + ((uint64_t)b.unit << UNIT_SHIFT);
    memset(head, 0, geo_infos[geo].n_blocks * sizeof(tag_t));
    seg_store_slab(b.seg, b.unit, geo, U_SLAB, holder_token(f->id, 1));
    if (ret_geo)
        *ret_geo = geo;
    return (tag_t *)(void *)head;
}

void fake_cut_large(const struct fake *f, struct block b, tag_t tag)
{
    uint64_t *entries = segment_entries(b.seg->base, &b.seg->shape);
    for (uint32_t i = 1; i < b.n_units && b.unit + i < b.seg->shape.n_table; i++)
        entries[b.unit + i] = unit_entry_plain(U_CUT, holder_token(f->id, 0));
    segment_tags(b.seg->base, &b.seg->shape)[b.unit] = tag;
    __atomic_store_n(&entries[b.unit], unit_entry_large(b.n_units, f->id), __ATOMIC_RELEASE);
}

uint64_t fake_patience_ns(const struct core *core, uint64_t now_ns)
{
    uint64_t due_ns = core_deadline(core), until_ns = now_ns;
    for (uint32_t i = 0; i < core->n_tenants; i++)
        if (core->tenants[i]->is_open)
            until_ns = MAX(until_ns, core->tenants[i]->room.wait_until_ns);
    if (due_ns > until_ns)
        return UINT64_MAX;
    return due_ns > now_ns ? due_ns - now_ns : 0;
}
