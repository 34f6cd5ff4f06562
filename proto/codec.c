/* SPDX-License-Identifier: Apache-2.0 */
/*
 * codec.c - the only file that knows protobuf-c.
 *
 * Packing builds the generated structs on the stack around the caller's strings and runs: nothing
 * is allocated. Unpacking lets protobuf-c allocate from an arena on the stack that is thrown away
 * as a whole: a hostile packet costs at most ARENA_BYTES and no malloc, however many fields it
 * repeats.
 *
 * ARENA_BYTES: the largest honest messages are 64 tenant names of 63 bytes (4 KiB of strings, 0.5
 * KiB of pointers, 4 KiB of protobuf-c's field scan), 64 runs (3 KiB of structs, 0.5 KiB of
 * pointers, 4 KiB of scan), and 512 extents or 256 holders (4 KiB of numbers, packed). 16 KiB leave
 * room for fields that later versions add; more than that is no message of ours.
 */
#include "proto/codec.h"

#include <stdalign.h>
#include <string.h>

#include "proto/acre.pb-c.h"

#define ARENA_BYTES 16384u

struct arena {
    size_t used;
    alignas(16) uint8_t bytes[ARENA_BYTES];
};

static void *arena_alloc(void *ctx, size_t n)
{
    struct arena *arena = ctx;
    if (n > ARENA_BYTES - arena->used)
        return NULL;
    void *p = arena->bytes + arena->used;
    arena->used = MIN((size_t)round_up_u64(arena->used + n, 16), ARENA_BYTES);
    return p;
}

static void arena_release(void *ctx, void *p)
{
    (void)ctx;
    (void)p; /* the arena goes as a whole */
}

/* A foreign string of at most cap - 1 bytes. */
static int take_string(char *dst, size_t cap, const char *src)
{
    size_t n = strlen(src);
    if (n >= cap)
        return -EPROTO;
    memset(dst, 0, cap);
    memcpy(dst, src, n);
    return 0;
}

/* ---- requests: pack ---- */

union request_parts {
    Acre__Wire__Hello hello;
    Acre__Wire__Attach attach;
    Acre__Wire__Grow grow;
    Acre__Wire__Release release;
    Acre__Wire__FreeLarge free_large;
    Acre__Wire__MapSegment map_segment;
    Acre__Wire__Root root;
    Acre__Wire__PublishAll publish_all;
    Acre__Wire__Detach detach;
    Acre__Wire__Ack ack;
    Acre__Wire__Status status;
    Acre__Wire__Tenants tenants;
    Acre__Wire__Look look;
    Acre__Wire__TenantDrop tenant_drop;
    Acre__Wire__TenantSet tenant_set;
    Acre__Wire__Extents extents;
    Acre__Wire__Holders holders;
    Acre__Wire__Upgrade upgrade;
    Acre__Wire__Reload reload;
    Acre__Wire__Retire retire;
    Acre__Wire__Wait wait;
    Acre__Wire__Cancel cancel;
    Acre__Wire__Waiters waiters;
    Acre__Wire__Watch watch;
    Acre__Wire__Soft soft;
};

struct runs_parts {
    Acre__Wire__Run run[MSG_RUNS_MAX];
    Acre__Wire__Run *ptr[MSG_RUNS_MAX];
};

static void build_release(const struct msg_request *req, Acre__Wire__Release *ret,
                          struct runs_parts *runs)
{
    acre_assert(req->release.n_runs <= MSG_RUNS_MAX);
    *ret = (Acre__Wire__Release)ACRE__WIRE__RELEASE__INIT;
    for (uint32_t i = 0; i < req->release.n_runs; i++) {
        runs->run[i] = (Acre__Wire__Run)ACRE__WIRE__RUN__INIT;
        runs->run[i].off = req->release.runs[i].off;
        runs->run[i].n_units = req->release.runs[i].n_units;
        runs->ptr[i] = &runs->run[i];
    }
    ret->n_runs = req->release.n_runs;
    ret->runs = runs->ptr;
}

static void build_session_request(const struct msg_request *req, Acre__Wire__Request *ret,
                                  union request_parts *p)
{
    switch (req->op) {
    case MSG_HELLO:
        p->hello = (Acre__Wire__Hello)ACRE__WIRE__HELLO__INIT;
        p->hello.magic = (char *)req->hello.magic;
        p->hello.version_min = req->hello.version_min;
        p->hello.version_max = req->hello.version_max;
        p->hello.fingerprint = req->hello.fingerprint;
        ret->hello = &p->hello;
        break;
    case MSG_ATTACH:
        p->attach = (Acre__Wire__Attach)ACRE__WIRE__ATTACH__INIT;
        p->attach.tenant = (char *)req->attach.tenant;
        p->attach.name = (char *)req->attach.name;
        p->attach.resume_client = req->attach.resume_client;
        if (req->attach.resume_client != 0)
            p->attach.secret =
                (ProtobufCBinaryData){sizeof(req->attach.secret), (uint8_t *)req->attach.secret};
        ret->attach = &p->attach;
        break;
    case MSG_DETACH:
        p->detach = (Acre__Wire__Detach)ACRE__WIRE__DETACH__INIT;
        ret->detach = &p->detach;
        break;
    case MSG_ACK:
        p->ack = (Acre__Wire__Ack)ACRE__WIRE__ACK__INIT;
        p->ack.nonce = req->ack.nonce;
        ret->ack = &p->ack;
        break;
    default:
        acre_assert(!"an op of the session");
    }
}

static void build_waiting_request(const struct msg_request *req, Acre__Wire__Request *ret,
                                  union request_parts *p)
{
    switch (req->op) {
    case MSG_WAIT:
        p->wait = (Acre__Wire__Wait)ACRE__WIRE__WAIT__INIT;
        p->wait.ticket = req->wait.ticket;
        p->wait.n_units = req->wait.n_units;
        p->wait.align_order = req->wait.align_order;
        p->wait.exact = req->wait.exact;
        p->wait.class_plus_1 = req->wait.class_plus_1;
        p->wait.again = req->wait.again;
        p->wait.left_ms = req->wait.left_ms;
        ret->wait = &p->wait;
        break;
    case MSG_CANCEL:
        p->cancel = (Acre__Wire__Cancel)ACRE__WIRE__CANCEL__INIT;
        p->cancel.ticket = req->cancel.ticket;
        ret->cancel = &p->cancel;
        break;
    case MSG_WAITERS:
        p->waiters = (Acre__Wire__Waiters)ACRE__WIRE__WAITERS__INIT;
        p->waiters.skip = req->waiters.skip;
        ret->waiters = &p->waiters;
        break;
    case MSG_WATCH:
        p->watch = (Acre__Wire__Watch)ACRE__WIRE__WATCH__INIT;
        p->watch.seen = req->watch.seen;
        ret->watch = &p->watch;
        break;
    default:
        acre_assert(!"an op of who waits");
    }
}

static void build_memory_request(const struct msg_request *req, Acre__Wire__Request *ret,
                                 union request_parts *p, struct runs_parts *runs)
{
    switch (req->op) {
    case MSG_GROW:
        p->grow = (Acre__Wire__Grow)ACRE__WIRE__GROW__INIT;
        p->grow.n_units = req->grow.n_units;
        p->grow.align_order = req->grow.align_order;
        p->grow.exact = req->grow.exact;
        p->grow.class_plus_1 = req->grow.class_plus_1;
        p->grow.again = req->grow.again;
        p->grow.soft = req->grow.soft;
        ret->grow = &p->grow;
        break;
    case MSG_RELEASE:
        build_release(req, &p->release, runs);
        ret->release = &p->release;
        break;
    case MSG_FREE_LARGE:
        p->free_large = (Acre__Wire__FreeLarge)ACRE__WIRE__FREE_LARGE__INIT;
        p->free_large.off = req->free_large.off;
        ret->free_large = &p->free_large;
        break;
    case MSG_SOFT:
        p->soft = (Acre__Wire__Soft)ACRE__WIRE__SOFT__INIT;
        p->soft.n_offs = req->soft.n;
        p->soft.offs = (uint64_t *)req->soft.offs;
        ret->soft = &p->soft;
        break;
    case MSG_RETIRE:
        p->retire = (Acre__Wire__Retire)ACRE__WIRE__RETIRE__INIT;
        p->retire.slot = req->retire.slot;
        p->retire.done = req->retire.done;
        ret->retire = &p->retire;
        break;
    case MSG_MAP_SEGMENT:
        p->map_segment = (Acre__Wire__MapSegment)ACRE__WIRE__MAP_SEGMENT__INIT;
        p->map_segment.slot = req->map_segment.slot;
        ret->map_segment = &p->map_segment;
        break;
    case MSG_ROOT:
        p->root = (Acre__Wire__Root)ACRE__WIRE__ROOT__INIT;
        p->root.op = (Acre__Wire__RootOp)req->root.op;
        p->root.name = (char *)req->root.name;
        p->root.expected = req->root.expected;
        p->root.desired = req->root.desired;
        ret->root = &p->root;
        break;
    case MSG_PUBLISH_ALL:
        p->publish_all = (Acre__Wire__PublishAll)ACRE__WIRE__PUBLISH_ALL__INIT;
        ret->publish_all = &p->publish_all;
        break;
    default:
        acre_assert(!"an op on memory");
    }
}

static void build_tenant_set(const struct msg_request *req, Acre__Wire__Request *ret,
                             union request_parts *p)
{
    p->tenant_set = (Acre__Wire__TenantSet)ACRE__WIRE__TENANT_SET__INIT;
    p->tenant_set.tenant = (char *)req->tenant_set.tenant;
    p->tenant_set.which = req->tenant_set.which;
    p->tenant_set.min_bytes = req->tenant_set.min_bytes;
    p->tenant_set.high_bytes = req->tenant_set.high_bytes;
    p->tenant_set.max_bytes = req->tenant_set.max_bytes;
    p->tenant_set.weight = req->tenant_set.weight;
    ret->tenant_set = &p->tenant_set;
}

static void build_admin_request(const struct msg_request *req, Acre__Wire__Request *ret,
                                union request_parts *p)
{
    switch (req->op) {
    case MSG_STATUS:
        p->status = (Acre__Wire__Status)ACRE__WIRE__STATUS__INIT;
        ret->status = &p->status;
        break;
    case MSG_TENANTS:
        p->tenants = (Acre__Wire__Tenants)ACRE__WIRE__TENANTS__INIT;
        p->tenants.after = (char *)req->tenants.after;
        ret->tenants = &p->tenants;
        break;
    case MSG_LOOK:
        p->look = (Acre__Wire__Look)ACRE__WIRE__LOOK__INIT;
        p->look.tenant = (char *)req->look.tenant;
        p->look.reads = req->look.reads;
        ret->look = &p->look;
        break;
    case MSG_TENANT_DROP:
        p->tenant_drop = (Acre__Wire__TenantDrop)ACRE__WIRE__TENANT_DROP__INIT;
        p->tenant_drop.tenant = (char *)req->tenant_drop.tenant;
        ret->tenant_drop = &p->tenant_drop;
        break;
    case MSG_TENANT_SET:
        build_tenant_set(req, ret, p);
        break;
    case MSG_EXTENTS:
        p->extents = (Acre__Wire__Extents)ACRE__WIRE__EXTENTS__INIT;
        p->extents.slot = req->extents.slot;
        p->extents.unit = req->extents.unit;
        ret->extents = &p->extents;
        break;
    case MSG_HOLDERS:
        p->holders = (Acre__Wire__Holders)ACRE__WIRE__HOLDERS__INIT;
        p->holders.after = req->holders.after;
        ret->holders = &p->holders;
        break;
    case MSG_RELOAD:
        p->reload = (Acre__Wire__Reload)ACRE__WIRE__RELOAD__INIT;
        ret->reload = &p->reload;
        break;
    case MSG_UPGRADE:
        p->upgrade = (Acre__Wire__Upgrade)ACRE__WIRE__UPGRADE__INIT;
        ret->upgrade = &p->upgrade;
        break;
    default:
        acre_assert(!"an op of administration");
    }
}

size_t codec_pack_request(const struct msg_request *req, uint8_t *buf)
{
    Acre__Wire__Request pb = ACRE__WIRE__REQUEST__INIT;
    union request_parts parts;
    struct runs_parts runs;

    acre_assert(req->serial != 0 || req->op == MSG_ACK);
    pb.serial = req->serial;
    pb.op_case = (Acre__Wire__Request__OpCase)req->op;
    if (req->op <= MSG_ATTACH || req->op == MSG_DETACH || req->op == MSG_ACK)
        build_session_request(req, &pb, &parts);
    else if (req->op >= MSG_WAIT && req->op <= MSG_WATCH)
        build_waiting_request(req, &pb, &parts);
    else if (req->op >= MSG_STATUS && req->op != MSG_RETIRE && req->op != MSG_SOFT)
        build_admin_request(req, &pb, &parts);
    else
        build_memory_request(req, &pb, &parts, &runs);
    acre_assert(acre__wire__request__get_packed_size(&pb) <= WIRE_PACKET_MAX);
    return acre__wire__request__pack(&pb, buf);
}

/* ---- requests: unpack ---- */

static int take_attach(const Acre__Wire__Attach *pb, struct msg_request *ret)
{
    if (take_string(ret->attach.tenant, sizeof(ret->attach.tenant), pb->tenant) < 0 ||
        take_string(ret->attach.name, sizeof(ret->attach.name), pb->name) < 0)
        return -EPROTO;
    memset(ret->attach.secret, 0, sizeof(ret->attach.secret));
    ret->attach.resume_client = pb->resume_client;
    if (pb->resume_client == 0)
        return 0;
    if (pb->secret.len != sizeof(ret->attach.secret))
        return -EPROTO;
    memcpy(ret->attach.secret, pb->secret.data, sizeof(ret->attach.secret));
    return 0;
}

static int take_release(const Acre__Wire__Release *pb, struct msg_request *ret)
{
    if (pb->n_runs > MSG_RUNS_MAX)
        return -EPROTO;
    ret->release.n_runs = (uint32_t)pb->n_runs;
    for (size_t i = 0; i < pb->n_runs; i++)
        ret->release.runs[i] = (struct msg_run){pb->runs[i]->off, pb->runs[i]->n_units};
    return 0;
}

static int take_soft(const Acre__Wire__Soft *pb, struct msg_request *ret)
{
    if (pb->n_offs > MSG_SOFT_MAX)
        return -EPROTO;
    ret->soft.n = (uint32_t)pb->n_offs;
    for (size_t i = 0; i < pb->n_offs; i++)
        ret->soft.offs[i] = pb->offs[i];
    return 0;
}

static int take_root(const Acre__Wire__Root *pb, struct msg_request *ret)
{
    if ((int)pb->op < ROOT_GET || (int)pb->op > ROOT_DEL)
        return -EPROTO;
    ret->root.op = (enum root_op)pb->op;
    ret->root.expected = pb->expected;
    ret->root.desired = pb->desired;
    return take_string(ret->root.name, sizeof(ret->root.name), pb->name);
}

static int take_tenant_set(const Acre__Wire__TenantSet *pb, struct msg_request *ret)
{
    ret->tenant_set.which = pb->which;
    ret->tenant_set.min_bytes = pb->min_bytes;
    ret->tenant_set.high_bytes = pb->high_bytes;
    ret->tenant_set.max_bytes = pb->max_bytes;
    ret->tenant_set.weight = pb->weight;
    return take_string(ret->tenant_set.tenant, sizeof(ret->tenant_set.tenant), pb->tenant);
}

static int take_request(const Acre__Wire__Request *pb, struct msg_request *ret)
{
    switch ((enum msg_op)pb->op_case) {
    case MSG_HELLO:
        ret->hello.version_min = pb->hello->version_min;
        ret->hello.version_max = pb->hello->version_max;
        ret->hello.fingerprint = pb->hello->fingerprint;
        return take_string(ret->hello.magic, sizeof(ret->hello.magic), pb->hello->magic);
    case MSG_ATTACH:
        return take_attach(pb->attach, ret);
    case MSG_GROW:
        ret->grow.n_units = pb->grow->n_units;
        ret->grow.align_order = pb->grow->align_order;
        ret->grow.exact = pb->grow->exact;
        ret->grow.class_plus_1 = pb->grow->class_plus_1;
        ret->grow.again = pb->grow->again;
        ret->grow.soft = pb->grow->soft;
        return 0;
    case MSG_RELEASE:
        return take_release(pb->release, ret);
    case MSG_FREE_LARGE:
        ret->free_large.off = pb->free_large->off;
        return 0;
    case MSG_SOFT:
        return take_soft(pb->soft, ret);
    case MSG_RETIRE:
        ret->retire.slot = pb->retire->slot;
        ret->retire.done = pb->retire->done;
        return 0;
    case MSG_MAP_SEGMENT:
        ret->map_segment.slot = pb->map_segment->slot;
        return 0;
    case MSG_ROOT:
        return take_root(pb->root, ret);
    case MSG_ACK:
        ret->ack.nonce = pb->ack->nonce;
        return 0;
    case MSG_TENANTS:
        return take_string(ret->tenants.after, sizeof(ret->tenants.after), pb->tenants->after);
    case MSG_LOOK:
        ret->look.reads = pb->look->reads;
        return take_string(ret->look.tenant, sizeof(ret->look.tenant), pb->look->tenant);
    case MSG_TENANT_DROP:
        return take_string(ret->tenant_drop.tenant, sizeof(ret->tenant_drop.tenant),
                           pb->tenant_drop->tenant);
    case MSG_TENANT_SET:
        return take_tenant_set(pb->tenant_set, ret);
    case MSG_EXTENTS:
        ret->extents.slot = pb->extents->slot;
        ret->extents.unit = pb->extents->unit;
        return 0;
    case MSG_HOLDERS:
        ret->holders.after = (tag_t)pb->holders->after;
        return pb->holders->after <= CLIENT_ID_MAX ? 0 : -EPROTO;
    case MSG_WAIT:
        ret->wait.ticket = pb->wait->ticket;
        ret->wait.n_units = pb->wait->n_units;
        ret->wait.align_order = pb->wait->align_order;
        ret->wait.exact = pb->wait->exact;
        ret->wait.class_plus_1 = pb->wait->class_plus_1;
        ret->wait.again = pb->wait->again;
        ret->wait.left_ms = pb->wait->left_ms;
        return 0;
    case MSG_CANCEL:
        ret->cancel.ticket = pb->cancel->ticket;
        return 0;
    case MSG_WAITERS:
        ret->waiters.skip = pb->waiters->skip;
        return 0;
    case MSG_WATCH:
        ret->watch.seen = pb->watch->seen;
        return 0;
    case MSG_PUBLISH_ALL:
    case MSG_DETACH:
    case MSG_STATUS:
    case MSG_RELOAD:
    case MSG_UPGRADE:
        return 0;
    case MSG_NONE:
        break;
    }
    return -EPROTO;
}

int codec_unpack_request(const uint8_t *buf, size_t n, struct msg_request *ret)
{
    struct arena arena;
    arena.used = 0;
    ProtobufCAllocator allocator = {arena_alloc, arena_release, &arena};

    ret->serial = 0;
    ret->op = MSG_NONE;
    if (n == 0 || n > WIRE_PACKET_MAX)
        return -EPROTO;
    const Acre__Wire__Request *pb = acre__wire__request__unpack(&allocator, n, buf);
    if (!pb)
        return -EPROTO;
    ret->serial = pb->serial;
    /* Serial 0 would make an empty reply, and belongs to Ack, which has none. */
    if ((pb->serial == 0) != (pb->op_case == ACRE__WIRE__REQUEST__OP_ACK))
        return -EPROTO;
    int r = take_request(pb, ret);
    if (r == 0)
        ret->op = (enum msg_op)pb->op_case;
    return r;
}

/* ---- replies: pack ---- */

union reply_parts {
    Acre__Wire__HelloReply hello;
    Acre__Wire__AttachReply attach;
    struct {
        Acre__Wire__GrowReply grow;
        Acre__Wire__Run run;
    };
    Acre__Wire__MapSegmentReply map_segment;
    Acre__Wire__RootReply root;
    Acre__Wire__StatusReply status;
    struct {
        Acre__Wire__TenantsReply tenants;
        Acre__Wire__Tenant each_tenant[MSG_TENANTS_MAX];
        Acre__Wire__Tenant *every_tenant[MSG_TENANTS_MAX];
    };
    Acre__Wire__LookReply look;
    Acre__Wire__TenantDropReply tenant_drop;
    Acre__Wire__ReloadReply reload;
    struct {
        Acre__Wire__ExtentsReply extents;
        uint32_t n_units[MSG_EXTENTS_MAX], what[MSG_EXTENTS_MAX];
    };
    struct {
        Acre__Wire__HoldersReply holders;
        uint32_t ids[MSG_HOLDERS_MAX], gens[MSG_HOLDERS_MAX];
        uint64_t held_units[MSG_HOLDERS_MAX];
    };
    struct {
        Acre__Wire__WaitersReply waiters;
        Acre__Wire__Waiter each_waiter[MSG_WAITERS_MAX];
        Acre__Wire__Waiter *every_waiter[MSG_WAITERS_MAX];
    };
    Acre__Wire__Event event;
};

static void build_grow_reply(const struct msg_reply *reply, Acre__Wire__Reply *ret,
                             union reply_parts *p)
{
    p->run = (Acre__Wire__Run)ACRE__WIRE__RUN__INIT;
    p->run.off = reply->grow.run.off;
    p->run.n_units = reply->grow.run.n_units;
    p->grow = (Acre__Wire__GrowReply)ACRE__WIRE__GROW_REPLY__INIT;
    p->grow.run = &p->run;
    p->grow.slab = reply->grow.slab;
    p->grow.head_slot = reply->grow.head_slot;
    p->grow.prepared = reply->grow.prepared;
    ret->grow = &p->grow;
}

static void build_status_reply(const struct msg_reply *reply, Acre__Wire__Reply *ret,
                               union reply_parts *p)
{
    p->status = (Acre__Wire__StatusReply)ACRE__WIRE__STATUS_REPLY__INIT;
    p->status.version = (char *)reply->status.version;
    p->status.pid = reply->status.pid;
    p->status.capacity_bytes = reply->status.capacity_bytes;
    p->status.sealed_bytes = reply->status.sealed_bytes;
    p->status.uptime_ns = reply->status.uptime_ns;
    p->status.n_tenants = reply->status.n_tenants;
    p->status.n_clients = reply->status.n_clients;
    p->status.mode = (char *)reply->status.mode;
    ret->status = &p->status;
}

static void build_tenants_reply(const struct msg_reply *reply, Acre__Wire__Reply *ret,
                                union reply_parts *p)
{
    acre_assert(reply->tenants.n <= MSG_TENANTS_MAX);
    p->tenants = (Acre__Wire__TenantsReply)ACRE__WIRE__TENANTS_REPLY__INIT;
    for (uint32_t i = 0; i < reply->tenants.n; i++) {
        const struct msg_tenant *from = &reply->tenants.all[i];
        Acre__Wire__Tenant *to = p->every_tenant[i] = &p->each_tenant[i];
        *to = (Acre__Wire__Tenant)ACRE__WIRE__TENANT__INIT;
        to->name = (char *)from->name;
        to->min_bytes = from->min_bytes;
        to->high_bytes = from->high_bytes;
        to->max_bytes = from->max_bytes;
        to->weight = from->weight;
        to->total_bytes = from->total_bytes;
        to->held_bytes = from->held_bytes;
        to->is_group = from->is_group;
    }
    p->tenants.n_tenants = reply->tenants.n;
    p->tenants.tenants = p->every_tenant;
    p->tenants.more = reply->tenants.more;
    ret->tenants = &p->tenants;
}

static void build_extents_reply(const struct msg_reply *reply, Acre__Wire__Reply *ret,
                                union reply_parts *p)
{
    acre_assert(reply->extents.n <= MSG_EXTENTS_MAX);
    p->extents = (Acre__Wire__ExtentsReply)ACRE__WIRE__EXTENTS_REPLY__INIT;
    for (uint32_t i = 0; i < reply->extents.n; i++) {
        p->n_units[i] = reply->extents.runs[i].n_units;
        p->what[i] = reply->extents.runs[i].what;
    }
    p->extents.changes = reply->extents.changes;
    p->extents.unit = reply->extents.unit;
    p->extents.n_free = reply->extents.n_free;
    p->extents.n_n_units = p->extents.n_what = reply->extents.n;
    p->extents.n_units = p->n_units;
    p->extents.what = p->what;
    ret->extents = &p->extents;
}

static void build_holders_reply(const struct msg_reply *reply, Acre__Wire__Reply *ret,
                                union reply_parts *p)
{
    acre_assert(reply->holders.n <= MSG_HOLDERS_MAX);
    p->holders = (Acre__Wire__HoldersReply)ACRE__WIRE__HOLDERS_REPLY__INIT;
    for (uint32_t i = 0; i < reply->holders.n; i++) {
        p->ids[i] = reply->holders.holders[i].id;
        p->gens[i] = reply->holders.holders[i].gen;
        p->held_units[i] = reply->holders.holders[i].n_units;
    }
    p->holders.changes = reply->holders.changes;
    p->holders.granted_units = reply->holders.granted_units;
    p->holders.charged_bytes = reply->holders.charged_bytes;
    p->holders.more = reply->holders.more;
    p->holders.n_ids = p->holders.n_gens = p->holders.n_n_units = reply->holders.n;
    p->holders.ids = p->ids;
    p->holders.gens = p->gens;
    p->holders.n_units = p->held_units;
    ret->holders = &p->holders;
}

static void build_waiters_reply(const struct msg_reply *reply, Acre__Wire__Reply *ret,
                                union reply_parts *p)
{
    acre_assert(reply->waiters.n <= MSG_WAITERS_MAX);
    p->waiters = (Acre__Wire__WaitersReply)ACRE__WIRE__WAITERS_REPLY__INIT;
    for (uint32_t i = 0; i < reply->waiters.n; i++) {
        const struct msg_waiter *from = &reply->waiters.all[i];
        Acre__Wire__Waiter *to = p->every_waiter[i] = &p->each_waiter[i];
        *to = (Acre__Wire__Waiter)ACRE__WIRE__WAITER__INIT;
        to->id = from->id;
        to->pid = from->pid;
        to->name = (char *)from->name;
        to->n_units = from->n_units;
        to->align_order = from->align_order;
        to->waited_ms = from->waited_ms;
        to->left_ms = from->left_ms;
    }
    p->waiters.n_all = reply->waiters.n_all;
    p->waiters.left_bytes = reply->waiters.left_bytes;
    p->waiters.wall = (char *)reply->waiters.wall;
    p->waiters.n_waiters = reply->waiters.n;
    p->waiters.waiters = p->every_waiter;
    ret->waiters = &p->waiters;
}

static void build_reply(const struct msg_reply *reply, Acre__Wire__Reply *ret, union reply_parts *p)
{
    switch (reply->op) {
    case MSG_NONE:
        break;
    case MSG_HELLO:
        p->hello = (Acre__Wire__HelloReply)ACRE__WIRE__HELLO_REPLY__INIT;
        p->hello.version = reply->hello.version;
        p->hello.daemon_version = (char *)reply->hello.daemon_version;
        ret->hello = &p->hello;
        break;
    case MSG_ATTACH:
        p->attach = (Acre__Wire__AttachReply)ACRE__WIRE__ATTACH_REPLY__INIT;
        p->attach.client = reply->attach.client;
        p->attach.heap_id = reply->attach.heap_id;
        ret->attach = &p->attach;
        break;
    case MSG_GROW:
        build_grow_reply(reply, ret, p);
        break;
    case MSG_MAP_SEGMENT:
        p->map_segment = (Acre__Wire__MapSegmentReply)ACRE__WIRE__MAP_SEGMENT_REPLY__INIT;
        p->map_segment.head_slot = reply->map_segment.head_slot;
        p->map_segment.size_bytes = reply->map_segment.size_bytes;
        ret->map_segment = &p->map_segment;
        break;
    case MSG_ROOT:
        p->root = (Acre__Wire__RootReply)ACRE__WIRE__ROOT_REPLY__INIT;
        p->root.off = reply->root.off;
        ret->root = &p->root;
        break;
    case MSG_STATUS:
        build_status_reply(reply, ret, p);
        break;
    case MSG_TENANTS:
        build_tenants_reply(reply, ret, p);
        break;
    case MSG_LOOK:
        p->look = (Acre__Wire__LookReply)ACRE__WIRE__LOOK_REPLY__INIT;
        p->look.heap_id = reply->look.heap_id;
        ret->look = &p->look;
        break;
    case MSG_RELOAD:
        p->reload = (Acre__Wire__ReloadReply)ACRE__WIRE__RELOAD_REPLY__INIT;
        p->reload.n_tenants = reply->reload.n_tenants;
        p->reload.capacity_bytes = reply->reload.capacity_bytes;
        ret->reload = &p->reload;
        break;
    case MSG_TENANT_DROP:
        p->tenant_drop = (Acre__Wire__TenantDropReply)ACRE__WIRE__TENANT_DROP_REPLY__INIT;
        p->tenant_drop.freed_bytes = reply->tenant_drop.freed_bytes;
        ret->tenant_drop = &p->tenant_drop;
        break;
    case MSG_EXTENTS:
        build_extents_reply(reply, ret, p);
        break;
    case MSG_HOLDERS:
        build_holders_reply(reply, ret, p);
        break;
    case MSG_WAITERS:
        build_waiters_reply(reply, ret, p);
        break;
    case MSG_WATCH:
        p->event = (Acre__Wire__Event)ACRE__WIRE__EVENT__INIT;
        p->event.seq = reply->event.seq;
        ret->event = &p->event;
        break;
    default:
        acre_assert(!"an op whose reply says nothing");
    }
}

/* Our op numbers are the request's field numbers; the replies have their own. */
static const struct {
    enum msg_op op;
    Acre__Wire__Reply__OpCase op_case;
} reply_ops[] = {
    {MSG_NONE, ACRE__WIRE__REPLY__OP__NOT_SET},
    {MSG_HELLO, ACRE__WIRE__REPLY__OP_HELLO},
    {MSG_ATTACH, ACRE__WIRE__REPLY__OP_ATTACH},
    {MSG_GROW, ACRE__WIRE__REPLY__OP_GROW},
    {MSG_MAP_SEGMENT, ACRE__WIRE__REPLY__OP_MAP_SEGMENT},
    {MSG_ROOT, ACRE__WIRE__REPLY__OP_ROOT},
    {MSG_STATUS, ACRE__WIRE__REPLY__OP_STATUS},
    {MSG_TENANTS, ACRE__WIRE__REPLY__OP_TENANTS},
    {MSG_LOOK, ACRE__WIRE__REPLY__OP_LOOK},
    {MSG_TENANT_DROP, ACRE__WIRE__REPLY__OP_TENANT_DROP},
    {MSG_RELOAD, ACRE__WIRE__REPLY__OP_RELOAD},
    {MSG_EXTENTS, ACRE__WIRE__REPLY__OP_EXTENTS},
    {MSG_HOLDERS, ACRE__WIRE__REPLY__OP_HOLDERS},
    {MSG_WAITERS, ACRE__WIRE__REPLY__OP_WAITERS},
    {MSG_WATCH, ACRE__WIRE__REPLY__OP_EVENT},
};

static_assert((int)MSG_HELLO == (int)ACRE__WIRE__REQUEST__OP_HELLO, "op numbers");
static_assert((int)MSG_MAP_SEGMENT == (int)ACRE__WIRE__REQUEST__OP_MAP_SEGMENT, "op numbers");
static_assert((int)MSG_ACK == (int)ACRE__WIRE__REQUEST__OP_ACK, "op numbers");
static_assert((int)MSG_TENANT_DROP == (int)ACRE__WIRE__REQUEST__OP_TENANT_DROP, "op numbers");
static_assert((int)MSG_UPGRADE == (int)ACRE__WIRE__REQUEST__OP_UPGRADE, "op numbers");
static_assert((int)MSG_RETIRE == (int)ACRE__WIRE__REQUEST__OP_RETIRE, "op numbers");
static_assert((int)MSG_HOLDERS == (int)ACRE__WIRE__REQUEST__OP_HOLDERS, "op numbers");
static_assert((int)MSG_WAIT == (int)ACRE__WIRE__REQUEST__OP_WAIT, "op numbers");
static_assert((int)MSG_WAITERS == (int)ACRE__WIRE__REQUEST__OP_WAITERS, "op numbers");
static_assert((int)MSG_WATCH == (int)ACRE__WIRE__REQUEST__OP_WATCH, "op numbers");
static_assert((int)MSG_SOFT == (int)ACRE__WIRE__REQUEST__OP_SOFT, "op numbers");

static Acre__Wire__Reply__OpCase reply_case(enum msg_op op)
{
    for (size_t i = 0; i < ARRAY_LEN(reply_ops); i++)
        if (reply_ops[i].op == op)
            return reply_ops[i].op_case;
    acre_assert(!"an op whose reply says nothing");
}

static enum msg_op reply_op(Acre__Wire__Reply__OpCase op_case)
{
    for (size_t i = 0; i < ARRAY_LEN(reply_ops); i++)
        if (reply_ops[i].op_case == op_case)
            return reply_ops[i].op;
    return MSG_NONE;
}

size_t codec_pack_reply(const struct msg_reply *reply, uint8_t *buf)
{
    Acre__Wire__Reply pb = ACRE__WIRE__REPLY__INIT;
    union reply_parts parts;

    acre_assert((reply->serial == 0) == (reply->op == MSG_WATCH));
    pb.serial = reply->serial;
    pb.error = reply->error;
    pb.ack_nonce = reply->ack_nonce;
    if (reply->error != 0)
        pb.text = (char *)reply->text;
    pb.op_case = reply_case(reply->op);
    build_reply(reply, &pb, &parts);
    acre_assert(acre__wire__reply__get_packed_size(&pb) <= WIRE_PACKET_MAX);
    return acre__wire__reply__pack(&pb, buf);
}

/* ---- replies: unpack ---- */

static int take_grow_reply(const Acre__Wire__GrowReply *pb, struct msg_reply *ret)
{
    if (!pb->run)
        return -EPROTO;
    ret->grow.run = (struct msg_run){pb->run->off, pb->run->n_units};
    ret->grow.slab = pb->slab;
    ret->grow.head_slot = pb->head_slot;
    ret->grow.prepared = pb->prepared;
    return 0;
}

static int take_status_reply(const Acre__Wire__StatusReply *pb, struct msg_reply *ret)
{
    ret->status.pid = pb->pid;
    ret->status.capacity_bytes = pb->capacity_bytes;
    ret->status.sealed_bytes = pb->sealed_bytes;
    ret->status.uptime_ns = pb->uptime_ns;
    ret->status.n_tenants = pb->n_tenants;
    ret->status.n_clients = pb->n_clients;
    if (take_string(ret->status.version, sizeof(ret->status.version), pb->version) < 0)
        return -EPROTO;
    return take_string(ret->status.mode, sizeof(ret->status.mode), pb->mode);
}

static int take_tenants_reply(const Acre__Wire__TenantsReply *pb, struct msg_reply *ret)
{
    if (pb->n_tenants > MSG_TENANTS_MAX)
        return -EPROTO;
    for (size_t i = 0; i < pb->n_tenants; i++) {
        const Acre__Wire__Tenant *from = pb->tenants[i];
        struct msg_tenant *to = &ret->tenants.all[i];
        if (take_string(to->name, sizeof(to->name), from->name) < 0)
            return -EPROTO;
        to->min_bytes = from->min_bytes;
        to->high_bytes = from->high_bytes;
        to->max_bytes = from->max_bytes;
        to->weight = from->weight;
        to->total_bytes = from->total_bytes;
        to->held_bytes = from->held_bytes;
        to->is_group = from->is_group;
    }
    ret->tenants.n = (uint32_t)pb->n_tenants;
    ret->tenants.more = pb->more;
    return 0;
}

static int take_extents_reply(const Acre__Wire__ExtentsReply *pb, struct msg_reply *ret)
{
    uint64_t end = pb->unit;
    if (pb->n_n_units > MSG_EXTENTS_MAX || pb->n_what != pb->n_n_units)
        return -EPROTO;
    for (size_t i = 0; i < pb->n_n_units; i++) {
        ret->extents.runs[i] = (struct msg_extent){pb->n_units[i], pb->what[i]};
        end += pb->n_units[i];
        if (pb->n_units[i] == 0 || end > HEAP_UNITS || pb->what[i] > (EXTENT_WHATS | TAG_HEAP))
            return -EPROTO;
    }
    ret->extents.changes = pb->changes;
    ret->extents.unit = pb->unit;
    ret->extents.n_free = pb->n_free;
    ret->extents.n = (uint32_t)pb->n_n_units;
    return 0;
}

static int take_holders_reply(const Acre__Wire__HoldersReply *pb, struct msg_reply *ret)
{
    uint32_t last = 0;
    if (pb->n_ids > MSG_HOLDERS_MAX || pb->n_gens != pb->n_ids || pb->n_n_units != pb->n_ids)
        return -EPROTO;
    for (size_t i = 0; i < pb->n_ids; i++) {
        if (pb->ids[i] <= last || pb->ids[i] > CLIENT_ID_MAX)
            return -EPROTO;
        last = pb->ids[i];
        ret->holders.holders[i] = (struct msg_holder){(tag_t)last, pb->gens[i], pb->n_units[i]};
    }
    ret->holders.changes = pb->changes;
    ret->holders.granted_units = pb->granted_units;
    ret->holders.charged_bytes = pb->charged_bytes;
    ret->holders.n = (uint32_t)pb->n_ids;
    ret->holders.more = pb->more;
    return 0;
}

static int take_waiters_reply(const Acre__Wire__WaitersReply *pb, struct msg_reply *ret)
{
    if (pb->n_waiters > MSG_WAITERS_MAX)
        return -EPROTO;
    for (size_t i = 0; i < pb->n_waiters; i++) {
        const Acre__Wire__Waiter *from = pb->waiters[i];
        struct msg_waiter *to = &ret->waiters.all[i];
        if (from->id == 0 || from->id > CLIENT_ID_MAX ||
            take_string(to->name, sizeof(to->name), from->name) < 0)
            return -EPROTO;
        to->id = (tag_t)from->id;
        to->pid = from->pid;
        to->n_units = from->n_units;
        to->align_order = from->align_order;
        to->waited_ms = from->waited_ms;
        to->left_ms = from->left_ms;
    }
    ret->waiters.n_all = pb->n_all;
    ret->waiters.left_bytes = pb->left_bytes;
    ret->waiters.n = (uint32_t)pb->n_waiters;
    return take_string(ret->waiters.wall, sizeof(ret->waiters.wall), pb->wall);
}

static int take_reply(const Acre__Wire__Reply *pb, struct msg_reply *ret)
{
    switch (reply_op(pb->op_case)) {
    case MSG_HELLO:
        ret->hello.version = pb->hello->version;
        return take_string(ret->hello.daemon_version, sizeof(ret->hello.daemon_version),
                           pb->hello->daemon_version);
    case MSG_ATTACH:
        ret->attach.client = pb->attach->client;
        ret->attach.heap_id = pb->attach->heap_id;
        return 0;
    case MSG_GROW:
        return take_grow_reply(pb->grow, ret);
    case MSG_MAP_SEGMENT:
        ret->map_segment.head_slot = pb->map_segment->head_slot;
        ret->map_segment.size_bytes = pb->map_segment->size_bytes;
        return 0;
    case MSG_ROOT:
        ret->root.off = pb->root->off;
        return 0;
    case MSG_STATUS:
        return take_status_reply(pb->status, ret);
    case MSG_TENANTS:
        return take_tenants_reply(pb->tenants, ret);
    case MSG_LOOK:
        ret->look.heap_id = pb->look->heap_id;
        return 0;
    case MSG_RELOAD:
        ret->reload.n_tenants = pb->reload->n_tenants;
        ret->reload.capacity_bytes = pb->reload->capacity_bytes;
        return 0;
    case MSG_TENANT_DROP:
        ret->tenant_drop.freed_bytes = pb->tenant_drop->freed_bytes;
        return 0;
    case MSG_EXTENTS:
        return take_extents_reply(pb->extents, ret);
    case MSG_HOLDERS:
        return take_holders_reply(pb->holders, ret);
    case MSG_WAITERS:
        return take_waiters_reply(pb->waiters, ret);
    case MSG_WATCH:
        ret->event.seq = pb->event->seq;
        return 0;
    default:
        return 0; /* an error, or "done" */
    }
}

int codec_unpack_reply(const uint8_t *buf, size_t n, struct msg_reply *ret)
{
    struct arena arena;
    arena.used = 0;
    ProtobufCAllocator allocator = {arena_alloc, arena_release, &arena};

    ret->serial = 0;
    ret->op = MSG_NONE;
    if (n == 0 || n > WIRE_PACKET_MAX)
        return -EPROTO;
    const Acre__Wire__Reply *pb = acre__wire__reply__unpack(&allocator, n, buf);
    if (!pb)
        return -EPROTO;
    ret->serial = pb->serial;
    ret->error = pb->error;
    ret->ack_nonce = pb->ack_nonce;
    if (pb->error > 0 || take_string(ret->text, sizeof(ret->text), pb->text) < 0)
        return -EPROTO;
    if ((pb->serial == 0) != (pb->op_case == ACRE__WIRE__REPLY__OP_EVENT))
        return -EPROTO;
    int r = take_reply(pb, ret);
    if (r == 0)
        ret->op = reply_op(pb->op_case);
    return r;
}
