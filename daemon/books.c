/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The books of one heap, theory.
 *
 * MODEL. The only statement about memory is owner[unit]: nobody, a client, or the daemon on behalf
 * of the heap (an orphan). Buddy allocators, charges, holdings and counts are derived from it and
 * live in private memory. What a unit is cut into stands in the segments' unit tables, which
 * clients can write: the books never depend on it.
 *
 * WHO, WHEN. Written by the daemon's loop alone. Nobody else has the descriptor.
 *   grant    owner = id, then the unit entries, then the reply. Killed after the first: the units
 *            are a client's that does not know of them, their entries say U_FREE: restore.c gives
 *            them back, or the client's death does.
 *   return   entries = U_FREE, then owner = 0, then the buddy (private). Killed between: as above.
 *   orphan   entries = U_PARKED, then owner = 65535. Killed between: the owner is still the dead
 *            client, whose record says DIES: its reaping is done again from the start, and every
 *            step of that is idempotent.
 *   segment  sealed and charged, n_slots, then size_bytes (release): it is there when its size is.
 *            is_known before a client hears of it. retire: RETIRING before a client is told, RETIRED
 *            when none maps it; size_bytes 0 when nobody does (zombie.c), then its name is dropped.
 *   client   gen, pid, uid, name, then state (release). DIES from the proof of death to the end of
 *            the reaping.
 *   root     name, then off (release); a change is one store of off, a deletion the store of 0.
 * All fields are aligned and at most 8 bytes: each store is there or is not.
 *
 * COST. Two bytes a unit: 256 KiB for each full GiB. Pages that were never written take no memory.
 */
#include "daemon/books.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "shm/sizeclass.h"

int books_create(const char *tenant, uint64_t heap_id, uint32_t heap_no, enum pages_kind pages,
                 int *ret_fd, struct books **ret_books)
{
    CLEANUP_FD int fd = memfd_create("acre-books", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || ftruncate(fd, sizeof(struct books)) < 0)
        return -errno;
    if (fchmod(fd, 0600) < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0)
        return -errno;
    struct books *b =
        mmap(NULL, sizeof(*b), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (b == MAP_FAILED)
        return -errno;
    b->header.version = BOOKS_VERSION;
    b->header.fingerprint = layout_fingerprint();
    b->header.heap_id = heap_id;
    b->header.heap_no = heap_no;
    b->header.pages = pages;
    (void)snprintf(b->header.tenant, sizeof(b->header.tenant), "%s", tenant);
    __atomic_store_n(&b->header.magic, BOOKS_MAGIC, __ATOMIC_RELEASE);
    *ret_fd = fd;
    *ret_books = b;
    fd = -1;
    return 0;
}

int books_open(int fd, struct books **ret_books)
{
    struct stat st;
    if (fstat(fd, &st) < 0 || st.st_size != (off_t)sizeof(struct books))
        return -EPROTO;
    struct books *b =
        mmap(NULL, sizeof(*b), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (b == MAP_FAILED)
        return -errno;
    if (b->header.magic != BOOKS_MAGIC || b->header.version != BOOKS_VERSION ||
        b->header.fingerprint != layout_fingerprint()) {
        books_unmap(b);
        return -EPROTO;
    }
    *ret_books = b;
    return 0;
}

void books_unmap(struct books *books)
{
    (void)munmap(books, sizeof(*books));
}

static tag_t *owners_at(struct books *books, uint32_t slot, uint32_t unit)
{
    return &books->owner[(size_t)slot * SLOT_UNITS + unit];
}

void books_set_owner(struct books *books, uint32_t slot, uint32_t unit, uint32_t n, tag_t owner)
{
    acre_assert(slot < HEAP_SLOTS && unit + n <= SLOT_UNITS);
    tag_t *at = owners_at(books, slot, unit);
    for (uint32_t i = 0; i < n; i++)
        at[i] = owner;
}

bool books_all_owner(const struct books *books, uint32_t slot, uint32_t unit, uint32_t n,
                     tag_t owner)
{
    const tag_t *at = &books->owner[(size_t)slot * SLOT_UNITS + unit];
    for (uint32_t i = 0; i < n; i++)
        if (at[i] != owner)
            return false;
    return true;
}

uint32_t books_next_owned(const struct books *books, uint32_t slot, uint32_t unit, uint32_t end,
                          tag_t owner)
{
    const tag_t *at = &books->owner[(size_t)slot * SLOT_UNITS];
    while (unit < end && at[unit] != owner)
        unit++;
    return unit;
}

void books_set_segment(struct books *books, uint32_t slot, uint64_t size_bytes, uint32_t n_slots)
{
    acre_assert((books->segment[slot].size_bytes == 0) == (size_bytes > 0));
    books->segment[slot].n_slots = (uint16_t)n_slots;
    books->segment[slot].is_known = 0;
    books->segment[slot].retire = SEGMENT_STAYS;
    __atomic_store_n(&books->segment[slot].size_bytes, size_bytes, __ATOMIC_RELEASE);
}

void books_set_client(struct books *books, tag_t id, const struct books_client *client)
{
    struct books_client *c = &books->client[id];
    acre_assert(c->state == BOOKS_CLIENT_NONE && client->state == BOOKS_CLIENT_NONE);
    *c = *client;
    books_set_client_state(books, id, BOOKS_CLIENT_LIVES);
}

void books_set_client_state(struct books *books, tag_t id, enum books_client_state state)
{
    __atomic_store_n(&books->client[id].state, (uint32_t)state, __ATOMIC_RELEASE);
}

/* Reading on would make pages of what was never written. */
uint32_t books_fresh_id(const struct books *books)
{
    uint32_t id = 1;
    while (id <= CLIENT_ID_MAX && books->client[id].gen != 0)
        id++;
    return id;
}
