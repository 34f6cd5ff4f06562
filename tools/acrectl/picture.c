/* SPDX-License-Identifier: Apache-2.0 */
/* picture.c - see picture.h. Asks the daemon in requests of bounded size, and reads by pread. */
#include "picture.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

/* ---- the books ---- */

static void note_changes(struct picture *p, uint64_t changes, bool is_first)
{
    if (is_first)
        p->has_moved = false;
    else if (changes != p->changes)
        p->has_moved = true;
    p->changes = changes;
}

static struct check_record record_of(uint32_t what)
{
    static const uint8_t places[] = {CHECK_GRANTED, CHECK_FREE, CHECK_OUT, CHECK_FREE};
    return (struct check_record){(tag_t)(what & TAG_HEAP), places[what >> 16 & 3]};
}

static void fill(struct check_record *records, uint32_t from, uint32_t to, uint32_t unit,
                 const struct msg_extent *run)
{
    uint32_t end = (uint32_t)MIN((uint64_t)unit + run->n_units, to);
    for (uint32_t u = MAX(unit, from); u < end; u++)
        records[u - from] = record_of(run->what);
}

/* Records of the units [from, to) of the table. */
int picture_records(struct picture *p, struct picture_segment *s, uint32_t from, uint32_t to,
                    struct check_record *records, bool is_first)
{
    struct msg_request req = {.op = MSG_EXTENTS, .extents = {.slot = s->slot}};
    struct msg_reply reply;
    uint32_t unit = MAX(from, s->shape.n_meta);

    for (uint32_t u = from; u < to; u++)
        records[u - from] = (struct check_record){.place = CHECK_META};
    for (; unit < to || is_first; is_first = false) {
        req.extents.unit = unit;
        int r = peer_call(p->peer, &req, &reply, NULL);
        if (r == -ENOENT) { /* it has been retired meanwhile */
            s->is_gone = p->has_moved = true;
            return 0;
        }
        if (r < 0)
            return r;
        if (reply.extents.unit != unit || (reply.extents.n == 0 && unit < to))
            return peer_fail(p->peer, -EPROTO,
                             "the daemon tells other units than it was asked for");
        note_changes(p, reply.extents.changes, is_first);
        s->figures.said_free = reply.extents.n_free;
        if (unit == s->shape.n_meta && reply.extents.n > 0)
            s->span_units = reply.extents.runs[0].n_units;
        for (uint32_t i = 0; i < reply.extents.n; i++) {
            fill(records, from, to, unit, &reply.extents.runs[i]);
            unit += reply.extents.runs[i].n_units;
        }
    }
    return 0;
}

int picture_clients(struct picture *p, bool is_first)
{
    struct msg_request req = {.op = MSG_HOLDERS};
    struct msg_reply reply = {.holders = {.more = true}};

    memset(p->is_client, CHECK_GONE, CLIENT_IDS);
    memset(p->clients, 0, CLIENT_IDS * sizeof(*p->clients));
    for (; reply.holders.more; is_first = false) {
        int r = peer_call(p->peer, &req, &reply, NULL);
        if (r < 0)
            return r;
        note_changes(p, reply.holders.changes, is_first);
        p->sums.said_units = reply.holders.granted_units;
        p->sums.charged_bytes = reply.holders.charged_bytes;
        for (uint32_t i = 0; i < reply.holders.n; i++) {
            const struct msg_holder *h = &reply.holders.holders[i];
            if (h->id <= req.holders.after)
                return peer_fail(p->peer, -EPROTO, "the daemon tells a client twice");
            p->is_client[h->id] = h->gen == 0 ? CHECK_DYING : CHECK_LIVES;
            p->clients[h->id].said_units = h->n_units;
            p->clients[h->id].said_gen = h->gen;
            req.holders.after = h->id;
        }
        if (reply.holders.n == 0 && reply.holders.more)
            return peer_fail(p->peer, -EPROTO, "the daemon's list of clients does not end");
    }
    return 0;
}

/* Has nothing changed since what was fetched last? In *ret_still. */
int picture_still(struct picture *p, bool *ret_still)
{
    struct msg_request req = {.op = MSG_HOLDERS, .holders = {.after = CLIENT_ID_MAX}};
    struct msg_reply reply;
    int r = peer_call(p->peer, &req, &reply, NULL);

    if (r == 0)
        *ret_still = !p->has_moved && reply.holders.changes == p->changes;
    return r;
}

/* ---- control page and segments ---- */

static int control_read(struct picture *p, void *buf, size_t n, size_t off)
{
    ssize_t got = pread(p->control_fd, buf, n, (off_t)off);

    if (got == (ssize_t)n)
        return 0;
    return peer_fail(p->peer, got < 0 ? -errno : -EPROTO, "the control segment cannot be read");
}

/* Only pages that were ever written: the table is sparse. */
static int read_control_clients(struct picture *p)
{
    struct control_client page[4096 / sizeof(struct control_client)];
    const off_t first = offsetof(struct control, client), end = sizeof(struct control);
    int r = 0;

    for (off_t off = first; r == 0 && off < end; off += (off_t)sizeof(page)) {
        off_t data = lseek(p->control_fd, off, SEEK_DATA);
        if (data < 0 && errno == ENXIO)
            break;
        if (data > off)
            off = data - data % (off_t)sizeof(page);
        r = control_read(p, page, sizeof(page), (size_t)off);
        struct check_client *to = p->clients + (size_t)(off - first) / sizeof(page[0]);
        for (size_t i = 0; r == 0 && i < ARRAY_LEN(page); i++) {
            to[i].control_bytes = page[i].granted_bytes;
            to[i].control_gen = page[i].gen;
        }
    }
    return r;
}

static int open_segment(struct picture *p, uint32_t slot)
{
    struct msg_request req = {.op = MSG_MAP_SEGMENT, .map_segment = {.slot = slot}};
    struct msg_reply reply;
    struct picture_segment *s = &p->segments[p->n_segments];
    struct stat st;
    *s = (struct picture_segment){.slot = slot, .fd = -1, .figures = {.slot = slot}};
    int r = peer_call(p->peer, &req, &reply, &s->fd);
    if (r < 0)
        return r;
    p->n_segments++;
    uint64_t bytes = reply.map_segment.size_bytes, most = (HEAP_SLOTS - slot) * SLOT_BYTES;
    if (reply.map_segment.head_slot != slot || bytes < 8 * UNIT_BYTES || bytes > most)
        return peer_fail(p->peer, -EPROTO, "the daemon tells a segment %u of %llu bytes", slot,
                         (unsigned long long)bytes);
    if (segment_check(s->fd, slot, p->heap_id, &s->shape, &s->figures.header_why) == 0)
        s->figures.header_why = NULL;
    s->shape = segment_shape((uint32_t)(bytes >> UNIT_SHIFT));
    s->records = calloc(s->shape.n_table, sizeof(*s->records));
    if (!s->records || fstat(s->fd, &st) < 0)
        return peer_fail(p->peer, -ENOMEM, "segment %u cannot be looked at", slot);
    s->figures.daemon_bytes = bytes;
    s->figures.file_bytes = (uint64_t)st.st_size;
    p->n_units += s->shape.n_units;
    return 0;
}

struct picture_segment *picture_find(struct picture *p, uint32_t slot)
{
    for (uint32_t i = 0; i < p->n_segments; i++)
        if (p->segments[i].slot == slot)
            return &p->segments[i];
    return NULL;
}

static void close_segment(struct picture_segment *s)
{
    close_fd(&s->fd);
    free(s->records);
}

static void drop_gone(struct picture *p)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < p->n_segments; i++)
        if (p->segments[i].is_gone) {
            p->n_units -= p->segments[i].shape.n_units;
            close_segment(&p->segments[i]);
        } else {
            p->segments[n++] = p->segments[i];
        }
    p->n_segments = n;
}

/* Those that are new since the last time, and what the control page says of all. */
static int open_segments(struct picture *p)
{
    struct control_segment told[HEAP_SLOTS];
    int r = control_read(p, told, sizeof(told), offsetof(struct control, segment));

    p->retired_bytes = 0;
    for (uint32_t i = 0; r == 0 && i < p->n_segments; i++) {
        const struct control_segment *t = &told[p->segments[i].slot];
        p->segments[i].is_gone |= t->size_bytes == 0 || t->retire == SEGMENT_RETIRED;
    }
    drop_gone(p);
    for (uint32_t slot = 0; r == 0 && slot < HEAP_SLOTS; slot++) {
        bool is_head = told[slot].size_bytes != 0 && told[slot].head_slot == slot;
        if (is_head && told[slot].retire == SEGMENT_RETIRED) {
            p->retired_bytes += told[slot].size_bytes;
            continue;
        }
        if (is_head && !picture_find(p, slot))
            r = open_segment(p, slot);
        if (r == 0 && is_head)
            picture_find(p, slot)->figures.control_bytes = told[slot].size_bytes;
        if (r == -ENOENT) { /* retired since that was read */
            p->has_moved = true;
            r = 0;
        }
    }
    return r;
}

/* ---- one look at everything ---- */

static void count_records(struct picture *p, struct picture_segment *s)
{
    bool spans = s->shape.n_table < s->shape.n_units;
    uint32_t counted_free = 0;

    for (uint32_t u = s->shape.n_meta; u < s->shape.n_table; u++) {
        struct check_record r = s->records[u];
        uint32_t n = spans ? s->span_units : 1;
        counted_free += r.place == CHECK_FREE ? n : 0;
        if (spans && r.place != CHECK_FREE)
            counted_free += s->shape.n_units - s->shape.n_meta - n;
        p->sums.counted_units += r.owner != 0 ? n : 0;
        p->clients[r.owner].counted_units += r.owner != 0 && r.owner != TAG_HEAP ? n : 0;
    }
    s->figures.counted_free = counted_free;
}

int picture_take(struct picture *p, bool *ret_still)
{
    struct control_header header = {0};
    int r = picture_clients(p, true); /* first: a segment that comes later is a change */

    if (r == 0)
        r = open_segments(p);
    p->sums.counted_units = 0;
    p->sums.file_bytes = p->retired_bytes;
    for (uint32_t i = 0; r == 0 && i < p->n_segments; i++) {
        struct picture_segment *s = &p->segments[i];
        r = picture_records(p, s, 0, s->shape.n_table, s->records, false);
        if (s->is_gone)
            continue;
        count_records(p, s);
        p->sums.file_bytes += s->figures.file_bytes;
    }
    if (r == 0)
        r = control_read(p, &header, sizeof(header), 0);
    if (r == 0)
        r = read_control_clients(p);
    if (r == 0)
        r = picture_still(p, ret_still);
    p->sums.control_granted_bytes = header.granted_bytes;
    p->sums.control_sealed_bytes = header.sealed_bytes;
    return r;
}

struct check_table picture_table(const struct picture *p, const struct picture_segment *s)
{
    return (struct check_table){.fd = s->fd,
                                .shape = &s->shape,
                                .slot = s->slot,
                                .to = s->shape.n_table,
                                .records = s->records,
                                .span_units = s->span_units,
                                .is_client = p->is_client};
}

/* ---- opening and closing ---- */

static int look_at(struct picture *p, const char *tenant)
{
    struct msg_request req = {.op = MSG_LOOK};
    struct msg_reply reply;
    const struct control *control;
    const char *why;

    (void)snprintf(req.look.tenant, sizeof(req.look.tenant), "%s", tenant);
    int r = peer_call(p->peer, &req, &reply, &p->control_fd);
    if (r < 0)
        return r;
    p->heap_id = reply.look.heap_id;
    r = control_map(p->control_fd, &control, &why);
    if (r < 0)
        return peer_fail(p->peer, r, "%s", why);
    munmap((void *)(uintptr_t)control, sizeof(*control));
    return 0;
}

int picture_open(struct picture *ret, struct peer *peer, const char *tenant)
{
    *ret = (struct picture){.peer = peer, .control_fd = -1};
    ret->clients = calloc(CLIENT_IDS, sizeof(*ret->clients));
    ret->is_client = calloc(CLIENT_IDS, sizeof(*ret->is_client));
    ret->sums.clients = ret->clients;
    if (!ret->clients || !ret->is_client)
        return peer_fail(peer, -ENOMEM, "out of memory");
    return look_at(ret, tenant);
}

void picture_close(struct picture *p)
{
    for (uint32_t i = 0; i < p->n_segments; i++)
        close_segment(&p->segments[i]);
    close_fd(&p->control_fd);
    free(p->clients);
    free(p->is_client);
}
