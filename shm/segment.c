/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A segment is believed in two steps: the seals say that its size can never change, the header says
 * how it is laid out. The header lies in memory that clients can write, so it only names n_units;
 * all offsets are computed from that and the header must agree. After segment_check() nobody looks
 * at it again.
 *
 * The memfds have mode 0600: whoever of another user got only a read-only descriptor cannot open
 * the file for writing through /proc/self/fd. That is all that protects the control segment: sealed
 * against writing (F_SEAL_FUTURE_WRITE), the next daemon could not map it either, and clients that
 * ask for nothing would go by a page that nobody writes. A client of the daemon's own user that
 * scribbles there harms its own tenant; the daemon believes nothing that stands there.
 */
#include "shm/segment.h"

#include "shm/sizeclass.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8u /* Linux 6.3 */
#endif

#define SEGMENT_UNITS_MIN 8u
#define SEALS_SIZE        (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
#define SEALS_WRITE       (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)
/* ---- shape ---- */

static struct segment_shape shape_with_table(uint32_t n_units, uint32_t n_table)
{
    struct segment_shape s = {.size_bytes = n_units * UNIT_BYTES,
                              .n_units = n_units,
                              .n_table = n_table,
                              .entries_off = SEG_HEADER_BYTES};

    s.hints_off =
        s.entries_off + (uint32_t)round_up_u64(n_table * sizeof(uint64_t), SEGMENT_PAGE_BYTES);
    s.tags_off = s.hints_off + (uint32_t)round_up_u64(n_table, SEGMENT_TABLE_ALIGN);
    s.soft_off = segment_soft_off(s.tags_off, n_table);
    s.n_meta = (uint32_t)((s.soft_off + n_table * sizeof(struct soft_unit) + UNIT_BYTES - 1) >>
                          UNIT_SHIFT);
    return s;
}

struct segment_shape segment_shape(uint32_t n_units)
{
    acre_assert(n_units >= SEGMENT_UNITS_MIN && n_units <= HEAP_UNITS);
    if (n_units <= SLOT_UNITS)
        return shape_with_table(n_units, n_units);
    /* One block: entries for the meta units and the block's head are enough. */
    struct segment_shape s = shape_with_table(n_units, SEGMENT_SPAN_META + 1);
    acre_assert(s.n_meta == SEGMENT_SPAN_META);
    return s;
}

uint32_t segment_units_for(uint32_t n_usable)
{
    uint32_t n = MAX(n_usable + 1, SEGMENT_UNITS_MIN);

    acre_assert(n_usable >= 1 && n_usable < HEAP_UNITS);
    while (n <= SLOT_UNITS) {
        uint32_t n_meta = segment_shape(n).n_meta;
        if (n - n_meta >= n_usable)
            return n;
        n = n_usable + n_meta; /* grows: n_meta is not less than for the last, smaller n */
    }
    return MAX(n_usable + SEGMENT_SPAN_META, SLOT_UNITS + 1);
}

/* ---- making ---- */

static int memfd_new(const char *name, uint64_t size_bytes, int *ret_fd)
{
    unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
    CLEANUP_FD int fd = memfd_create(name, flags | MFD_NOEXEC_SEAL);

    if (fd < 0 && errno == EINVAL)
        fd = memfd_create(name, flags);
    if (fd < 0 || ftruncate(fd, (off_t)size_bytes) < 0 || fchmod(fd, 0600) < 0)
        return -errno;
    *ret_fd = fd;
    fd = -1;
    return 0;
}

static int write_all(int fd, const void *data, size_t n, uint64_t off)
{
    for (const char *p = data; n > 0;) {
        ssize_t done = pwrite(fd, p, n, (off_t)off);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return done < 0 ? -errno : -EIO;
        p += done;
        off += (uint64_t)done;
        n -= (size_t)done;
    }
    return 0;
}

static struct seg_header header_of(const struct segment_shape *s, uint32_t slot, uint64_t heap_id)
{
    return (struct seg_header){.magic = SEG_MAGIC,
                               .version = LAYOUT_VERSION,
                               .slot = slot,
                               .fingerprint = layout_fingerprint(),
                               .heap_id = heap_id,
                               .size_bytes = s->size_bytes,
                               .n_units = s->n_units,
                               .n_meta = s->n_meta,
                               .n_table = s->n_table,
                               .entries_off = s->entries_off,
                               .tags_off = s->tags_off,
                               .hints_off = s->hints_off,
                               .soft_off = s->soft_off};
}

/* Header and the meta units' entries; all else is zero, which is U_FREE, TAG_FREE and no hint. */
static int write_meta(int fd, const struct segment_shape *s, uint32_t slot, uint64_t heap_id)
{
    struct seg_header header = header_of(s, slot, heap_id);
    const uint64_t meta = unit_entry_plain(U_META, 0);
    int r = write_all(fd, &header, sizeof(header), 0);

    for (uint32_t u = 0; r == 0 && u < s->n_meta; u++)
        r = write_all(fd, &meta, sizeof(meta), s->entries_off + u * sizeof(meta));
    return r;
}

int segment_create(const char *name, uint32_t slot, uint64_t heap_id, uint32_t n_units, int *ret_fd,
                   struct segment_shape *ret_shape)
{
    struct segment_shape s = segment_shape(n_units);
    CLEANUP_FD int fd = -1;

    acre_assert(slot < HEAP_SLOTS && s.size_bytes <= (HEAP_SLOTS - slot) * SLOT_BYTES);
    int r = memfd_new(name, s.size_bytes, &fd);
    if (r == 0)
        r = write_meta(fd, &s, slot, heap_id);
    if (r < 0)
        return r;
    if (fcntl(fd, F_ADD_SEALS, SEALS_SIZE) < 0)
        return -errno;
    *ret_fd = fd;
    *ret_shape = s;
    fd = -1;
    return 0;
}

int segment_reopen_readonly(int fd, int *ret_fd)
{
    char path[32];

    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    int ro = open(path, O_RDONLY | O_CLOEXEC);
    if (ro < 0)
        return -errno;
    *ret_fd = ro;
    return 0;
}

/* ---- checking ---- */

static int refuse(const char **ret_why, const char *why)
{
    *ret_why = why;
    return -EPROTO;
}

/* Sealed memfd? Its size, which then is final. */
static int check_seals(int fd, int want, int refused, uint64_t *ret_size, const char **ret_why)
{
    int seals = fcntl(fd, F_GET_SEALS);
    struct stat st;

    if (seals < 0)
        return refuse(ret_why, "the descriptor is no memfd");
    if ((seals & want) != want)
        return refuse(ret_why, "the memfd is not sealed as it must be");
    if ((seals & refused) != 0)
        return refuse(ret_why, "the segment is sealed against writing");
    if (fstat(fd, &st) < 0)
        return refuse(ret_why, "the memfd's size cannot be read");
    *ret_size = (uint64_t)st.st_size;
    return 0;
}

static const char *why_not(const struct seg_header *h, uint64_t size_bytes, uint32_t slot,
                           uint64_t heap_id)
{
    if (h->magic != SEG_MAGIC)
        return "the memfd is no Acre segment";
    if (h->version != LAYOUT_VERSION || h->fingerprint != layout_fingerprint())
        return "the segment has another layout";
    if (h->heap_id != heap_id)
        return "the segment belongs to another heap";
    if (h->slot != slot || slot >= HEAP_SLOTS)
        return "the segment belongs into another slot";
    if (h->n_units < SEGMENT_UNITS_MIN || h->n_units > HEAP_UNITS - slot * SLOT_UNITS)
        return "the segment's number of units is out of range";
    if (size_bytes != h->n_units * UNIT_BYTES)
        return "the segment's size is not what its header says";

    struct segment_shape s = segment_shape(h->n_units);
    struct seg_header expected = header_of(&s, slot, heap_id);
    if (memcmp(h, &expected, offsetof(struct seg_header, reserved)) != 0)
        return "the segment's tables are not where they belong";
    return NULL;
}

int segment_check(int fd, uint32_t slot, uint64_t heap_id, struct segment_shape *ret_shape,
                  const char **ret_why)
{
    struct seg_header header;
    uint64_t size_bytes;
    int r = check_seals(fd, SEALS_SIZE, SEALS_WRITE, &size_bytes, ret_why);

    if (r < 0)
        return r;
    if (pread(fd, &header, sizeof(header), 0) != (ssize_t)sizeof(header))
        return refuse(ret_why, "the segment's header cannot be read");
    const char *why = why_not(&header, size_bytes, slot, heap_id);
    if (why)
        return refuse(ret_why, why);
    *ret_shape = segment_shape(header.n_units);
    return 0;
}

/* ---- control segment ---- */

int control_create(const char *name, int *ret_fd, struct control **ret_control)
{
    CLEANUP_FD int fd = -1;
    int r = memfd_new(name, sizeof(struct control), &fd);

    if (r < 0)
        return r;
    if (fcntl(fd, F_ADD_SEALS, SEALS_SIZE) < 0)
        return -errno;
    struct control *c = mmap(NULL, sizeof(*c), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (c == MAP_FAILED)
        return -errno;
    c->header.version = LAYOUT_VERSION;
    c->header.fingerprint = layout_fingerprint();
    __atomic_store_n(&c->header.magic, CONTROL_MAGIC, __ATOMIC_RELEASE); /* pairs: control_map() */
    *ret_fd = fd;
    *ret_control = c;
    fd = -1;
    return 0;
}

int control_open(int fd, struct control **ret_control)
{
    uint64_t size_bytes;
    const char *why;
    int r = check_seals(fd, SEALS_SIZE, SEALS_WRITE, &size_bytes, &why);

    if (r < 0 || size_bytes != sizeof(struct control))
        return -EPROTO;
    struct control *c = mmap(NULL, sizeof(*c), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (c == MAP_FAILED)
        return -errno;
    *ret_control = c;
    return 0;
}

static const char *control_why_not(const struct control *c)
{
    if (__atomic_load_n(&c->header.magic, __ATOMIC_ACQUIRE) != CONTROL_MAGIC)
        return "the memfd is no Acre control segment";
    if (c->header.version != LAYOUT_VERSION || c->header.fingerprint != layout_fingerprint())
        return "the control segment has another layout";
    return NULL;
}

int control_map(int fd, const struct control **ret_control, const char **ret_why)
{
    uint64_t size_bytes;
    int r = check_seals(fd, SEALS_SIZE, SEALS_WRITE, &size_bytes, ret_why);

    if (r < 0)
        return r;
    if (size_bytes != sizeof(struct control))
        return refuse(ret_why, "the control segment has another size");
    struct control *c = mmap(NULL, sizeof(*c), PROT_READ, MAP_SHARED, fd, 0);
    if (c == MAP_FAILED) {
        *ret_why = "the control segment cannot be mapped";
        return -ENOMEM;
    }
    const char *why = control_why_not(c);
    if (why) {
        munmap(c, sizeof(*c));
        return refuse(ret_why, why);
    }
    *ret_control = c;
    return 0;
}
