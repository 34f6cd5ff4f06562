/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A script of what peers, their memory, time and the workers do, against the daemon's core. A line
 * is a verb, one letter, and numbers (of peers, tenants, units, ...), each taken modulo what there
 * is; what is missing is 0. Unknown verbs are passed over. So any text is a script, and a finding
 * is one that can be read:
 *
 *   W cap max ready pages big   the world, if the first line: MiB; 1: huge pages; 1: one of 4 GiB
 *   c peer uid                  connects             h peer       hangs up
 *   a peer tenant uid           connects, Hello, Attach, Ack; or resumes
 *   m peer what                 a descriptor for the next packet (peers.h)
 *   p peer hex                  a packet             k peer       Ack, if there is something to ack
 *   r peer op n n n n n         a request by its fields: make_request()
 *   n peer                      keeps the descriptor that came last
 *   d peer                      its process is gone  f peer       it seals its page against sealing
 *   y peer off value            into its life page   v peer line block slot: an intent
 *   q peer populate             it lives in another memory cgroup, or not
 *   t ms                        time passes          j job        a half of a job      w: all jobs
 *   x                           the daemon dies, and the next one takes over
 *
 * and into the segment of what a peer was granted last (peer unit ...), whoever owns the unit:
 *   e state geo back holder n   n entries            l n holder kept   head of a large block
 *   s geo holder state          a whole slab         b idx n tag       owner tags of a slab there
 *   g tag                       of a large block     i hint
 *   o off value                 eight bytes (unit: ignored)
 *
 * After each line the books are recounted and each reply is decoded; at the end who waits is
 * answered, all die, and no charge, kept descriptor, mapping or descriptor is left.
 */
#include <fcntl.h>
#include <string.h>

#include "shm/sizeclass.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/peers.h"
#include "tests/fuzz/script.h"

#define LINES_MAX 128u

/* Whose line it is. */
static struct peer *a_peer(struct script *s)
{
    struct peer *p = &peers[script_below(s, PEERS)];
    s->off = p->off;
    return p;
}

/* Root, or a user like others. */
static uid_t a_uid(struct script *s)
{
    uid_t n = script_below(s, 3);
    return n == 0 ? 0 : 1000 + n;
}

/* ---- the world ---- */

static void make_world(struct script *s)
{
    bool is_said = script_in_line(s) && *s->at == 'W';
    s->at += is_said;
    uint64_t cap = is_said ? 4 + script_number(s) % 60 : 32,
             max = is_said ? 1 + script_number(s) % 32 : 16;
    uint64_t ready = is_said ? script_number(s) % 4 : 0;
    enum pages_kind pages = is_said && script_number(s) % 2 == 1 ? PAGES_THP : PAGES_4K;
    bool is_big = is_said && script_number(s) % 2 == 1;
    for (uint32_t i = 0; i < WORLD_TENANTS; i++)
        world.wishes[i] = (struct tenant_wish){.limits.max_bytes = MIB(max)};
    world.wishes[1].ready_bytes = MIB(MIN(ready, max));
    world.wishes[1].pages = pages;
    world.wishes[2].limits.max_bytes = MIB(1);
    if (is_big)
        world.wishes[0].limits.max_bytes = GIB(4);
    world.capacity_bytes = is_big ? GIB(4) + MIB(cap) : MIB(cap);
    if (is_said)
        script_next_line(s);
}

/* ---- requests ---- */

static void make_release(struct script *s, struct msg_request *req)
{
    req->release.n_runs = 1 + script_below(s, 3);
    for (uint32_t i = 0; i < req->release.n_runs; i++) {
        uint64_t off = script_number(s);
        req->release.runs[i] = (struct msg_run){off, (uint32_t)script_number(s)};
    }
}

static void make_root(struct script *s, struct msg_request *req)
{
    req->root.op = (enum root_op)script_below(s, 4);
    req->root.name[0] = (char)("rs\0\xff"[script_below(s, 4)]);
    req->root.expected = script_number(s);
    req->root.desired = script_number(s);
}

static void make_attach(struct script *s, struct msg_request *req)
{
    const struct peer *whose = &peers[script_below(s, PEERS)];
    strcpy(req->attach.tenant, world_names[script_below(s, WORLD_TENANTS)]);
    req->attach.resume_client = script_number(s) % 2 ? whose->fake.client : script_number(s);
    memset(req->attach.secret, (int)(0x5a + script_number(s)), sizeof(req->attach.secret));
}

static void make_hello(struct script *s, struct msg_request *req)
{
    strcpy(req->hello.magic, script_number(s) == 0 ? "ACRE" : "acre");
    req->hello.version_min = 1 + (uint32_t)script_number(s);
    req->hello.version_max = 1 + (uint32_t)script_number(s);
    req->hello.fingerprint = layout_fingerprint() + script_number(s);
}

static void make_wait(struct script *s, struct msg_request *req)
{
    req->wait.ticket = script_number(s);
    req->wait.n_units = (uint32_t)script_number(s);
    req->wait.exact = script_number(s) % 2;
    req->wait.left_ms = script_number(s);
    req->wait.align_order = (uint32_t)script_number(s);
    req->wait.class_plus_1 = (uint32_t)script_number(s);
    req->wait.again = script_number(s) % 2;
}

static void make_request(struct script *s, struct msg_request *req)
{
    switch (req->op) {
    case MSG_HELLO:
        make_hello(s, req);
        break;
    case MSG_ATTACH:
        make_attach(s, req);
        break;
    case MSG_GROW:
        req->grow.n_units = (uint32_t)script_number(s);
        req->grow.align_order = (uint32_t)script_number(s);
        req->grow.exact = script_number(s) % 2;
        req->grow.class_plus_1 = (uint32_t)script_number(s);
        req->grow.again = script_number(s) % 2;
        break;
    case MSG_SOFT:
        req->soft.n = script_below(s, MSG_SOFT_MAX + 1);
        for (uint32_t i = 0; i < req->soft.n; i++)
            req->soft.offs[i] = script_number(s);
        break;
    case MSG_RELEASE:
        make_release(s, req);
        break;
    case MSG_FREE_LARGE:
        req->free_large.off = script_number(s);
        break;
    case MSG_MAP_SEGMENT:
        req->map_segment.slot = (uint32_t)script_number(s);
        break;
    case MSG_RETIRE:
        req->retire.slot = (uint32_t)script_number(s);
        req->retire.done = script_number(s) % 2;
        break;
    case MSG_ROOT:
        make_root(s, req);
        break;
    case MSG_ACK:
        req->ack.nonce = script_number(s);
        break;
    case MSG_TENANTS:
        req->tenants.after[0] = (char)script_number(s);
        break;
    case MSG_LOOK: /* their tenants stand at the same place */
    case MSG_TENANT_DROP:
        strcpy(req->look.tenant, world_names[script_below(s, WORLD_TENANTS)]);
        req->look.tenant[1] = script_number(s) % 2 ? 'x' : 0;
        req->look.reads = script_number(s) % 2;
        break;
    case MSG_EXTENTS:
        req->extents.slot = (uint32_t)script_number(s);
        req->extents.unit = (uint32_t)script_number(s);
        break;
    case MSG_HOLDERS:
        req->holders.after = (tag_t)script_number(s);
        break;
    case MSG_WAIT:
        make_wait(s, req);
        break;
    case MSG_CANCEL:
        req->cancel.ticket = script_number(s);
        break;
    case MSG_WAITERS:
        req->waiters.skip = (uint32_t)script_number(s);
        break;
    case MSG_WATCH:
        req->watch.seen = (uint32_t)script_number(s);
        break;
    case MSG_TENANT_SET:
        strcpy(req->tenant_set.tenant, world_names[script_below(s, WORLD_TENANTS)]);
        req->tenant_set.which = (uint32_t)script_number(s);
        req->tenant_set.min_bytes = script_number(s);
        req->tenant_set.high_bytes = script_number(s);
        req->tenant_set.max_bytes = script_number(s);
        req->tenant_set.weight = (uint32_t)script_number(s);
        break;
    default:
        break;
    }
}

static void do_request(struct script *s)
{
    struct peer *p = a_peer(s);
    struct msg_request req = {.op = (enum msg_op)(MSG_HELLO + script_below(s, MSG_TENANT_SET - 1))};
    make_request(s, &req);
    peers_ask(p, &req);
}

static int hex_digit(uint8_t c)
{
    const char *digits = "0123456789abcdef", *at = c ? strchr(digits, c) : NULL;
    return at ? (int)(at - digits) : -1;
}

static void do_packet(struct script *s)
{
    uint8_t packet[1024];
    size_t n = 0;
    struct peer *p = a_peer(s);
    s->at += script_in_line(s) && *s->at == ' ';
    while (n < sizeof(packet) && s->end - s->at >= 2 && hex_digit(s->at[0]) >= 0 &&
           hex_digit(s->at[1]) >= 0) {
        packet[n++] = (uint8_t)(hex_digit(s->at[0]) << 4 | hex_digit(s->at[1]));
        s->at += 2;
    }
    peers_send(p, packet, n);
}

/* ---- what clients write ---- */

static void do_page(struct script *s)
{
    struct peer *p = a_peer(s);
    uint32_t off = script_below(s, sizeof(struct life_page) / 8);
    uint64_t value = script_number(s);
    if (p->fake.page)
        memcpy((char *)p->fake.page + off * 8u, &value, sizeof(value));
}

static void do_intent(struct script *s)
{
    struct peer *p = a_peer(s);
    struct intent *at = p->fake.page ? &p->fake.page->intents[script_below(s, INTENTS)] : NULL;
    if (!at)
        return;
    at->block_off = script_number(s);
    at->slot_off = script_number(s);
}

static void do_populate(struct script *s)
{
    struct peer *p = a_peer(s);
    bool populate = script_number(s) % 2;
    for (uint32_t i = 0; i < WORLD_TENANTS; i++) {
        struct client *c = world_tenant(i)->is_open && world.capacity_bytes < GIB(1)
                               ? client_find(world_tenant(i), p->fake.client)
                               : NULL;
        if (c)
            c->populate = populate;
    }
}

/* Which some client can write. */
static struct seg *seg_of(const struct peer *p)
{
    struct tenant *t = world_tenant(p->tenant);
    struct seg *seg = t->is_open ? tenant_seg(t, (uint32_t)(p->off >> SLOT_SHIFT)) : NULL;
    return seg && seg->is_known ? seg : NULL;
}

static void write_entries(struct seg *seg, uint32_t unit, struct script *s)
{
    uint32_t state = script_below(s, 32), geo = script_below(s, 256), back = script_below(s, 65536);
    uint32_t holder = (uint32_t)script_number(s);
    uint64_t entry = unit_entry_slab((enum unit_state)state, geo, back,
                                     holder < 16 ? holder_token((tag_t)holder, 0) : holder);
    uint64_t *entries = segment_entries(seg->base, &seg->shape);
    for (uint32_t n = 1 + script_below(s, 32); n > 0 && unit < seg->shape.n_table; n--)
        entries[unit++] = entry;
}

static void write_large(struct seg *seg, uint32_t unit, struct script *s)
{
    uint32_t n = (uint32_t)script_number(s);
    tag_t holder = (tag_t)script_number(s);
    segment_entries(seg->base, &seg->shape)[unit] =
        unit_entry_large(n, holder) | (script_number(s) % 2 ? LARGE_KEPT : 0);
}

static void write_slab(struct seg *seg, uint32_t unit, struct script *s)
{
    unsigned geo = script_below(s, 256);
    uint32_t holder = (uint32_t)script_number(s);
    enum unit_state state = (enum unit_state)script_below(s, U_STATES);
    if (geo_infos[geo].n_blocks > 0 && seg_contains(seg, unit, 1u << geo_infos[geo].order) &&
        seg->n_slots == 1)
        seg_store_slab(seg, unit, geo, state, holder_token((tag_t)holder, state != U_PARKED));
}

static void write_tags(struct seg *seg, uint32_t unit, struct script *s)
{
    uint32_t idx = script_below(s, 64), n = 1 + script_below(s, 64);
    tag_t tag = (tag_t)script_number(s);
    uint64_t at = ((uint64_t)unit << UNIT_SHIFT) + idx * sizeof(tag);
    for (; n > 0 && at + sizeof(tag) <= seg->mapped_bytes; n--, at += sizeof(tag))
        memcpy(seg->base + at, &tag, sizeof(tag));
}

static void write_bytes(struct seg *seg, struct script *s)
{
    uint64_t at = script_number(s) % (seg->mapped_bytes - 8), value = script_number(s);
    memcpy(seg->base + at, &value, sizeof(value));
}

static void do_scribble(struct script *s, uint8_t verb)
{
    struct seg *seg = seg_of(a_peer(s));
    if (!seg)
        return;
    uint32_t unit = script_below(s, seg->shape.n_table);
    switch (verb) {
    case 'e':
        write_entries(seg, unit, s);
        break;
    case 'l':
        write_large(seg, unit, s);
        break;
    case 's':
        write_slab(seg, unit, s);
        break;
    case 'b':
        write_tags(seg, unit, s);
        break;
    case 'g':
        segment_tags(seg->base, &seg->shape)[unit] = (tag_t)script_number(s);
        break;
    case 'i':
        segment_hints(seg->base, &seg->shape)[unit] = (uint8_t)script_number(s);
        break;
    default:
        write_bytes(seg, s);
    }
}

/* ---- lines ---- */

static void do_attach(struct script *s)
{
    struct peer *p = a_peer(s);
    uint32_t tenant = script_below(s, WORLD_TENANTS);
    peers_attach(p, tenant, a_uid(s));
}

static void do_job(struct script *s)
{
    if (world.n_jobs == 0)
        return;
    uint32_t i = script_below(s, world.n_jobs);
    world_call(&(struct call){
        .kind = world.jobs[i].has_worked ? CALL_DONE : CALL_WORK, .fd = -1, .job = i});
}

static void do_seal(struct peer *p)
{
    if (p->fake.life_fd >= 0)
        (void)fcntl(p->fake.life_fd, F_ADD_SEALS, F_SEAL_SEAL);
}

static void do_connect(struct script *s)
{
    struct peer *p = a_peer(s);
    peers_connect(p, a_uid(s));
}

static void do_bring(struct script *s)
{
    struct peer *p = a_peer(s);
    peers_bring(p, (enum present)script_below(s, PRESENT_KINDS));
}

static void do_tick(struct script *s)
{
    peers_hang_up_closing();
    peers_tick((script_number(s) % 5000 + 1) * 1000000);
}

static void do_verb(struct script *s, uint8_t verb)
{
    switch (verb) {
    case 'c':
        do_connect(s);
        break;
    case 'a':
        do_attach(s);
        break;
    case 'h':
        peers_hang_up(a_peer(s));
        break;
    case 'm':
        do_bring(s);
        break;
    case 'p':
        do_packet(s);
        break;
    case 'k':
        peers_ack(a_peer(s));
        break;
    case 'r':
        do_request(s);
        break;
    case 'n':
        peers_hold(a_peer(s));
        break;
    case 'd':
        peers_die(a_peer(s));
        break;
    case 'f':
        do_seal(a_peer(s));
        break;
    case 'y':
        do_page(s);
        break;
    case 'v':
        do_intent(s);
        break;
    case 'q':
        do_populate(s);
        break;
    case 't':
        do_tick(s);
        break;
    case 'j':
        do_job(s);
        break;
    case 'w':
        peers_run_jobs();
        break;
    case 'x':
        world_die();
        peers_restore();
        break;
    default:
        if (strchr("elsbgio", verb))
            do_scribble(s, verb);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct script s = {.at = data, .end = data + n};
    uint64_t mapped_bytes = wraps_mapped_bytes();
    unsigned n_fds = wraps_count_fds();
    make_world(&s);
    peers_begin();
    for (uint32_t i = 0; i < LINES_MAX && s.at < s.end; i++) {
        do_verb(&s, script_verb(&s));
        peers_check();
        script_next_line(&s);
    }
    peers_end();
    acre_assert(wraps_mapped_bytes() == mapped_bytes);
    acre_assert(wraps_count_fds() == n_fds);
    return 0;
}
