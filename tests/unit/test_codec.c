/* SPDX-License-Identifier: Apache-2.0 */
/* Messages survive packing; foreign bytes do not get further than -EPROTO. */
/* ctest-labels: valgrind */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "proto/acre.pb-c.h"
#include "proto/codec.h"

static uint8_t buf[WIRE_PACKET_MAX];

static struct msg_request request_back(const struct msg_request *req)
{
    struct msg_request ret;
    size_t n = codec_pack_request(req, buf);
    assert_in_range(n, 1, WIRE_PACKET_MAX);
    assert_int_equal(codec_unpack_request(buf, n, &ret), 0);
    assert_int_equal(ret.serial, req->serial);
    assert_int_equal(ret.op, req->op);
    return ret;
}

static struct msg_reply reply_back(const struct msg_reply *reply)
{
    struct msg_reply ret;
    size_t n = codec_pack_reply(reply, buf);
    assert_in_range(n, 1, WIRE_PACKET_MAX);
    assert_int_equal(codec_unpack_reply(buf, n, &ret), 0);
    assert_int_equal(ret.serial, reply->serial);
    assert_int_equal(ret.op, reply->op);
    assert_int_equal(ret.error, reply->error);
    assert_int_equal(ret.ack_nonce, reply->ack_nonce);
    return ret;
}

static void test_hello_and_attach_come_back_whole(void **state)
{
    (void)state;
    struct msg_request req = {.serial = 1, .op = MSG_HELLO};
    strcpy(req.hello.magic, "ACRE");
    req.hello.version_min = 1;
    req.hello.version_max = 7;
    req.hello.fingerprint = UINT64_MAX;
    struct msg_request got = request_back(&req);
    assert_memory_equal(&got.hello, &req.hello, sizeof(req.hello));

    memset(&req, 0, sizeof(req));
    req.serial = 2;
    req.op = MSG_ATTACH;
    memset(req.attach.tenant, 't', TENANT_NAME_BYTES - 1);
    memset(req.attach.name, 'n', CLIENT_NAME_BYTES - 1);
    req.attach.resume_client = client_handle(65534, UINT32_MAX);
    memset(req.attach.secret, 0xee, sizeof(req.attach.secret));
    got = request_back(&req);
    assert_memory_equal(&got.attach, &req.attach, sizeof(req.attach));
}

static void test_requests_on_memory_come_back_whole(void **state)
{
    (void)state;
    struct msg_request req = {.serial = 3, .op = MSG_GROW};
    req.grow.n_units = UINT32_MAX;
    req.grow.align_order = 31;
    req.grow.exact = true;
    req.grow.class_plus_1 = 40;
    req.grow.again = req.grow.soft = true;
    struct msg_request got = request_back(&req);
    assert_int_equal(got.grow.n_units, UINT32_MAX);
    assert_int_equal(got.grow.align_order, 31);
    assert_true(got.grow.exact);
    assert_int_equal(got.grow.class_plus_1, 40);
    assert_true(got.grow.again && got.grow.soft);

    req = (struct msg_request){.serial = UINT64_MAX, .op = MSG_RELEASE};
    req.release.n_runs = MSG_RUNS_MAX;
    for (uint32_t i = 0; i < MSG_RUNS_MAX; i++)
        req.release.runs[i] = (struct msg_run){UINT64_MAX - i, UINT32_MAX - i};
    got = request_back(&req);
    assert_int_equal(got.release.n_runs, MSG_RUNS_MAX);
    assert_int_equal(got.release.runs[63].off, UINT64_MAX - 63);
    assert_int_equal(got.release.runs[63].n_units, UINT32_MAX - 63);

    req = (struct msg_request){.serial = 4, .op = MSG_SOFT, .soft = {.n = MSG_SOFT_MAX}};
    for (uint32_t i = 0; i < MSG_SOFT_MAX; i++)
        req.soft.offs[i] = UINT64_MAX - i;
    got = request_back(&req);
    assert_int_equal(got.soft.n, MSG_SOFT_MAX);
    assert_memory_equal(got.soft.offs, req.soft.offs, sizeof(req.soft.offs));

    req = (struct msg_request){.serial = 5, .op = MSG_ROOT};
    req.root.op = ROOT_CAS;
    memset(req.root.name, 'r', ROOT_NAME_BYTES - 1);
    req.root.expected = 1;
    req.root.desired = UINT64_MAX;
    got = request_back(&req);
    assert_int_equal(got.root.op, ROOT_CAS);
    assert_string_equal(got.root.name, req.root.name);
    assert_int_equal(got.root.expected, 1);
    assert_true(got.root.desired == UINT64_MAX);
}

static void test_who_waits_comes_back_whole(void **state)
{
    (void)state;
    struct msg_request req = {.serial = 3, .op = MSG_WAIT};
    req.wait.n_units = UINT32_MAX;
    req.wait.align_order = 31;
    req.wait.exact = req.wait.again = true;
    req.wait.class_plus_1 = 40;
    req.wait.ticket = req.wait.left_ms = UINT64_MAX;
    struct msg_request asked = request_back(&req);
    assert_int_equal(asked.wait.n_units, UINT32_MAX);
    assert_int_equal(asked.wait.align_order, 31);
    assert_true(asked.wait.exact && asked.wait.again);
    assert_int_equal(asked.wait.class_plus_1, 40);
    assert_true(asked.wait.ticket == UINT64_MAX && asked.wait.left_ms == UINT64_MAX);
    req = (struct msg_request){.serial = 4, .op = MSG_CANCEL, .cancel = {UINT64_MAX}};
    asked = request_back(&req);
    assert_int_equal(asked.cancel.ticket, UINT64_MAX);
    req = (struct msg_request){.serial = 4, .op = MSG_WAITERS, .waiters = {UINT32_MAX}};
    asked = request_back(&req);
    assert_int_equal(asked.waiters.skip, UINT32_MAX);

    /* The largest that there is. */
    static struct msg_reply reply = {.serial = UINT64_MAX, .op = MSG_WAITERS};
    reply.waiters.n = MSG_WAITERS_MAX;
    reply.waiters.n_all = UINT32_MAX;
    reply.waiters.left_bytes = UINT64_MAX;
    memset(reply.waiters.wall, 'w', MSG_WALL_BYTES - 1);
    for (uint32_t i = 0; i < MSG_WAITERS_MAX; i++) {
        memset(&reply.waiters.all[i], 0xff, sizeof(reply.waiters.all[i]));
        reply.waiters.all[i].id = CLIENT_ID_MAX;
        memset(reply.waiters.all[i].name, 'a' + (int)(i % 26), CLIENT_NAME_BYTES - 1);
        reply.waiters.all[i].name[CLIENT_NAME_BYTES - 1] = 0;
    }
    struct msg_reply got = reply_back(&reply);
    assert_int_equal(got.waiters.n, MSG_WAITERS_MAX);
    assert_int_equal(got.waiters.n_all, UINT32_MAX);
    assert_int_equal(got.waiters.left_bytes, UINT64_MAX);
    assert_string_equal(got.waiters.wall, reply.waiters.wall);
    const struct msg_waiter *last = &got.waiters.all[MSG_WAITERS_MAX - 1];
    assert_string_equal(last->name, reply.waiters.all[MSG_WAITERS_MAX - 1].name);
    assert_int_equal(last->id, CLIENT_ID_MAX);
    assert_int_equal(last->n_units, UINT32_MAX);
    assert_int_equal(last->waited_ms, UINT64_MAX);
    assert_int_equal(last->left_ms, UINT64_MAX);
}

static void test_waiters_that_cannot_be_meant_do_not_decode(void **state)
{
    (void)state;
    Acre__Wire__Reply pb = ACRE__WIRE__REPLY__INIT;
    Acre__Wire__WaitersReply waiters = ACRE__WIRE__WAITERS_REPLY__INIT;
    Acre__Wire__Waiter one = ACRE__WIRE__WAITER__INIT, *all[MSG_WAITERS_MAX + 1];
    static struct msg_reply got;
    char name[CLIENT_NAME_BYTES + 1];
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        all[i] = &one;
    pb.serial = 1;
    pb.op_case = ACRE__WIRE__REPLY__OP_WAITERS;
    pb.waiters = &waiters;
    waiters.waiters = all;
    waiters.n_waiters = MSG_WAITERS_MAX;
    one.id = 1;
    assert_int_equal(codec_unpack_reply(buf, acre__wire__reply__pack(&pb, buf), &got), 0);
    waiters.n_waiters++;
    assert_int_equal(codec_unpack_reply(buf, acre__wire__reply__pack(&pb, buf), &got), -EPROTO);
    waiters.n_waiters = 1;
    one.id = CLIENT_ID_MAX + 1;
    assert_int_equal(codec_unpack_reply(buf, acre__wire__reply__pack(&pb, buf), &got), -EPROTO);
    one.id = 0;
    assert_int_equal(codec_unpack_reply(buf, acre__wire__reply__pack(&pb, buf), &got), -EPROTO);
    one.id = 1;
    memset(name, 'n', sizeof(name));
    name[CLIENT_NAME_BYTES] = 0;
    one.name = name;
    assert_int_equal(codec_unpack_reply(buf, acre__wire__reply__pack(&pb, buf), &got), -EPROTO);
}

static void test_requests_without_content_are_not_empty_packets(void **state)
{
    (void)state;
    static const enum msg_op ops[] = {MSG_PUBLISH_ALL, MSG_DETACH,     MSG_STATUS,  MSG_FREE_LARGE,
                                      MSG_MAP_SEGMENT, MSG_TENANTS,    MSG_LOOK,    MSG_TENANT_DROP,
                                      MSG_EXTENTS,     MSG_HOLDERS,    MSG_UPGRADE, MSG_RELOAD,
                                      MSG_RETIRE,      MSG_WAIT,       MSG_CANCEL,  MSG_WAITERS,
                                      MSG_WATCH,       MSG_TENANT_SET, MSG_SOFT};
    for (size_t i = 0; i < ARRAY_LEN(ops); i++) {
        struct msg_request req = {.serial = 1, .op = ops[i]};
        request_back(&req);
    }
    struct msg_request ack = {.serial = 0, .op = MSG_ACK};
    request_back(&ack);
}

static void test_limits_come_whole(void **state)
{
    (void)state;
    struct msg_request req = {.serial = 3, .op = MSG_TENANT_SET, .tenant_set = {.which = SET_ALL}};
    strcpy(req.tenant_set.tenant, "team/app");
    req.tenant_set.min_bytes = 1;
    req.tenant_set.high_bytes = UINT64_MAX;
    req.tenant_set.max_bytes = 3;
    req.tenant_set.weight = 4;
    struct msg_request got = request_back(&req);
    assert_string_equal(got.tenant_set.tenant, "team/app");
    assert_int_equal(got.tenant_set.which, SET_ALL);
    assert_int_equal(got.tenant_set.min_bytes, 1);
    assert_true(got.tenant_set.high_bytes == UINT64_MAX);
    assert_int_equal(got.tenant_set.max_bytes, 3);
    assert_int_equal(got.tenant_set.weight, 4);
}

static void test_an_event_is_the_reply_without_a_serial(void **state)
{
    (void)state;
    struct msg_request req = {.serial = 3, .op = MSG_WATCH, .watch = {UINT32_MAX}};
    assert_int_equal(request_back(&req).watch.seen, UINT32_MAX);
    struct msg_reply event = {.op = MSG_WATCH}, got;
    assert_int_equal(reply_back(&event).event.seq, 0);
    event.event.seq = UINT32_MAX;
    assert_int_equal(reply_back(&event).event.seq, UINT32_MAX);
    /* serial = 5, Event {}; error = -1 and no serial */
    static const uint8_t numbered[] = {0x08, 5, 0xaa, 0x01, 0};
    assert_int_equal(codec_unpack_reply(numbered, sizeof(numbered), &got), -EPROTO);
    assert_int_equal(codec_unpack_reply(numbered + 2, 3, &got), 0);
    static const uint8_t nobodys[] = {0x10, 0xff, 0xff, 0xff, 0xff, 0xff,
                                      0xff, 0xff, 0xff, 0xff, 1};
    assert_int_equal(codec_unpack_reply(nobodys, sizeof(nobodys), &got), -EPROTO);
}

static void test_replies_come_back_whole(void **state)
{
    (void)state;
    struct msg_reply reply = {.serial = 1, .op = MSG_GROW};
    reply.grow.run = (struct msg_run){(uint64_t)255 << 30, 512};
    reply.grow.slab = true;
    reply.grow.head_slot = 255;
    reply.grow.prepared = true;
    struct msg_reply got = reply_back(&reply);
    assert_int_equal(got.grow.run.off, reply.grow.run.off);
    assert_int_equal(got.grow.run.n_units, 512);
    assert_true(got.grow.slab);
    assert_int_equal(got.grow.head_slot, 255);
    assert_true(got.grow.prepared);

    reply = (struct msg_reply){.serial = 2, .op = MSG_STATUS};
    strcpy(reply.status.version, "0.1.0");
    strcpy(reply.status.mode, "system");
    reply.status.uptime_ns = 12345;
    got = reply_back(&reply);
    assert_string_equal(got.status.mode, "system");
    assert_int_equal(got.status.uptime_ns, 12345);

    reply = (struct msg_reply){.serial = 3, .op = MSG_ATTACH, .ack_nonce = UINT64_MAX};
    reply.attach.client = 0x10001;
    got = reply_back(&reply);
    assert_int_equal(got.attach.client, 0x10001);
}

static void test_what_the_books_say_comes_back_whole(void **state)
{
    (void)state;
    struct msg_request req = {.serial = 1, .op = MSG_EXTENTS};
    req.extents.slot = 255;
    req.extents.unit = UINT32_MAX;
    struct msg_request asked = request_back(&req);
    assert_int_equal(asked.extents.slot, 255);
    assert_int_equal(asked.extents.unit, UINT32_MAX);
    req = (struct msg_request){.serial = 2, .op = MSG_HOLDERS, .holders = {CLIENT_ID_MAX}};
    assert_int_equal(request_back(&req).holders.after, CLIENT_ID_MAX);

    static struct msg_reply reply = {.serial = UINT64_MAX, .op = MSG_EXTENTS};
    reply.extents.changes = UINT64_MAX;
    reply.extents.unit = HEAP_UNITS - MSG_EXTENTS_MAX * SLOT_UNITS / 4;
    reply.extents.n_free = UINT32_MAX;
    reply.extents.n = MSG_EXTENTS_MAX;
    for (uint32_t i = 0; i < MSG_EXTENTS_MAX; i++)
        reply.extents.runs[i] = (struct msg_extent){SLOT_UNITS / 4, EXTENT_WHATS | TAG_HEAP};
    struct msg_reply got = reply_back(&reply);
    assert_int_equal(got.extents.unit, reply.extents.unit);
    assert_int_equal(got.extents.n_free, UINT32_MAX);
    assert_int_equal(got.extents.n, MSG_EXTENTS_MAX);
    assert_true(got.extents.changes == UINT64_MAX);
    assert_memory_equal(got.extents.runs, reply.extents.runs, sizeof(reply.extents.runs));

    reply = (struct msg_reply){.serial = UINT64_MAX, .op = MSG_HOLDERS};
    reply.holders.changes = reply.holders.granted_units = UINT64_MAX;
    reply.holders.charged_bytes = 7;
    reply.holders.more = true;
    reply.holders.n = MSG_HOLDERS_MAX;
    for (uint32_t i = 0; i < MSG_HOLDERS_MAX; i++)
        reply.holders.holders[i] = (struct msg_holder){
            (tag_t)(CLIENT_ID_MAX + 1 - MSG_HOLDERS_MAX + i), UINT32_MAX, UINT64_MAX};
    got = reply_back(&reply);
    assert_int_equal(got.holders.n, MSG_HOLDERS_MAX);
    assert_true(got.holders.more);
    assert_int_equal(got.holders.charged_bytes, 7);
    for (uint32_t i = 0; i < MSG_HOLDERS_MAX; i++) {
        assert_int_equal(got.holders.holders[i].id, reply.holders.holders[i].id);
        assert_int_equal(got.holders.holders[i].gen, UINT32_MAX);
        assert_true(got.holders.holders[i].n_units == UINT64_MAX);
    }
}

static int unpack_reply_raw(const Acre__Wire__Reply *pb)
{
    struct msg_reply got;
    assert_in_range(acre__wire__reply__get_packed_size(pb), 1, sizeof(buf));
    return codec_unpack_reply(buf, acre__wire__reply__pack(pb, buf), &got);
}

static void test_extents_that_cannot_be_meant_do_not_decode(void **state)
{
    (void)state;
    static uint32_t n_units[MSG_EXTENTS_MAX + 1], what[MSG_EXTENTS_MAX + 1];
    Acre__Wire__ExtentsReply extents = ACRE__WIRE__EXTENTS_REPLY__INIT;
    Acre__Wire__Reply pb = ACRE__WIRE__REPLY__INIT;
    pb.serial = 1;
    pb.op_case = ACRE__WIRE__REPLY__OP_EXTENTS;
    pb.extents = &extents;
    for (size_t i = 0; i < ARRAY_LEN(n_units); i++)
        n_units[i] = 1;
    extents.n_units = n_units;
    extents.what = what;
    extents.n_n_units = extents.n_what = MSG_EXTENTS_MAX;
    assert_int_equal(unpack_reply_raw(&pb), 0);
    extents.n_n_units = extents.n_what = MSG_EXTENTS_MAX + 1;
    assert_int_equal(unpack_reply_raw(&pb), -EPROTO);
    extents.n_n_units = 2;
    extents.n_what = 1;
    assert_int_equal(unpack_reply_raw(&pb), -EPROTO);
    extents.n_n_units = extents.n_what = 2;
    n_units[1] = 0;
    assert_int_equal(unpack_reply_raw(&pb), -EPROTO);
    n_units[1] = UINT32_MAX;
    assert_int_equal(unpack_reply_raw(&pb), -EPROTO);
    n_units[1] = 1;
    extents.unit = HEAP_UNITS - 1;
    assert_int_equal(unpack_reply_raw(&pb), -EPROTO);
    extents.unit = HEAP_UNITS - 2;
    assert_int_equal(unpack_reply_raw(&pb), 0);
    what[0] = EXTENT_WHATS + TAG_HEAP + 1;
    assert_int_equal(unpack_reply_raw(&pb), -EPROTO);
}

static void test_holders_that_cannot_be_meant_do_not_decode(void **state)
{
    (void)state;
    static uint32_t ids[MSG_HOLDERS_MAX + 1], gens[MSG_HOLDERS_MAX + 1];
    static uint64_t n_units[MSG_HOLDERS_MAX + 1];
    Acre__Wire__HoldersReply holders = ACRE__WIRE__HOLDERS_REPLY__INIT;
    Acre__Wire__Reply pb = ACRE__WIRE__REPLY__INIT;
    pb.serial = 1;
    pb.op_case = ACRE__WIRE__REPLY__OP_HOLDERS;
    pb.holders = &holders;
    for (uint32_t i = 0; i < ARRAY_LEN(ids); i++)
        ids[i] = i + 1;
    holders.ids = ids;
    holders.gens = gens;
    holders.n_units = n_units;
    holders.n_ids = holders.n_gens = holders.n_n_units = MSG_HOLDERS_MAX;
    assert_int_equal(unpack_reply_raw(&pb), 0);
    holders.n_ids = holders.n_gens = holders.n_n_units = MSG_HOLDERS_MAX + 1;
    assert_int_equal(unpack_reply_raw(&pb), -EPROTO);
    holders.n_ids = holders.n_n_units = 2;
    holders.n_gens = 1;
    assert_int_equal(unpack_reply_raw(&pb), -EPROTO);
    holders.n_gens = 2;
    holders.n_n_units = 3;
    assert_int_equal(unpack_reply_raw(&pb), -EPROTO);
    holders.n_n_units = 2;
    ids[1] = 1;
    assert_int_equal(unpack_reply_raw(&pb), -EPROTO);
    ids[1] = TAG_HEAP;
    assert_int_equal(unpack_reply_raw(&pb), -EPROTO);
    ids[1] = CLIENT_ID_MAX;
    assert_int_equal(unpack_reply_raw(&pb), 0);

    struct msg_request got;
    Acre__Wire__Holders ask = ACRE__WIRE__HOLDERS__INIT;
    Acre__Wire__Request req = ACRE__WIRE__REQUEST__INIT;
    ask.after = TAG_HEAP;
    req.serial = 3;
    req.op_case = ACRE__WIRE__REQUEST__OP_HOLDERS;
    req.holders = &ask;
    assert_int_equal(codec_unpack_request(buf, acre__wire__request__pack(&req, buf), &got),
                     -EPROTO);
}

static void test_the_largest_replies_fit_the_packet_and_the_arena(void **state)
{
    (void)state;
    static struct msg_reply reply = {.serial = UINT64_MAX, .op = MSG_TENANTS};
    reply.tenants.n = MSG_TENANTS_MAX;
    reply.tenants.more = true;
    for (uint32_t i = 0; i < MSG_TENANTS_MAX; i++) {
        memset(&reply.tenants.all[i], 0xff, sizeof(reply.tenants.all[i]));
        memset(reply.tenants.all[i].name, 'a' + (int)(i % 26), TENANT_NAME_BYTES - 1);
        reply.tenants.all[i].name[TENANT_NAME_BYTES - 1] = 0;
        reply.tenants.all[i].is_group = true;
    }
    struct msg_reply got = reply_back(&reply);
    assert_int_equal(got.tenants.n, MSG_TENANTS_MAX);
    assert_string_equal(got.tenants.all[63].name, reply.tenants.all[63].name);
    assert_int_equal(got.tenants.all[63].held_bytes, UINT64_MAX);
    assert_true(got.tenants.all[63].is_group);

    struct msg_reply error = {.serial = 9, .error = -ENOMEM};
    memset(error.text, 'x', MSG_TEXT_BYTES - 1);
    got = reply_back(&error);
    assert_string_equal(got.text, error.text);
}

static size_t pack_raw(const Acre__Wire__Request *pb)
{
    assert_in_range(acre__wire__request__get_packed_size(pb), 1, sizeof(buf));
    return acre__wire__request__pack(pb, buf);
}

static void test_a_string_that_is_too_long_does_not_decode(void **state)
{
    (void)state;
    char name[TENANT_NAME_BYTES + 1] = {0};
    memset(name, 'x', TENANT_NAME_BYTES);
    Acre__Wire__Look look = ACRE__WIRE__LOOK__INIT;
    look.tenant = name;
    Acre__Wire__Request pb = ACRE__WIRE__REQUEST__INIT;
    pb.serial = 77;
    pb.op_case = ACRE__WIRE__REQUEST__OP_LOOK;
    pb.look = &look;
    struct msg_request got;
    assert_int_equal(codec_unpack_request(buf, pack_raw(&pb), &got), -EPROTO);
    name[TENANT_NAME_BYTES - 1] = 0; /* short enough */
    look.reads = true;
    assert_int_equal(codec_unpack_request(buf, pack_raw(&pb), &got), 0);
    assert_true(got.look.reads);
    name[TENANT_NAME_BYTES - 1] = 'x';
    assert_int_equal(codec_unpack_request(buf, pack_raw(&pb), &got), -EPROTO);
    assert_int_equal(got.serial, 77);
    assert_int_equal(got.op, MSG_NONE);
}

static void test_too_many_runs_do_not_decode(void **state)
{
    (void)state;
    Acre__Wire__Run run = ACRE__WIRE__RUN__INIT, *runs[MSG_RUNS_MAX + 1];
    for (size_t i = 0; i < ARRAY_LEN(runs); i++)
        runs[i] = &run;
    Acre__Wire__Release release = ACRE__WIRE__RELEASE__INIT;
    release.n_runs = ARRAY_LEN(runs);
    release.runs = runs;
    Acre__Wire__Request pb = ACRE__WIRE__REQUEST__INIT;
    pb.serial = 1;
    pb.op_case = ACRE__WIRE__REQUEST__OP_RELEASE;
    pb.release = &release;
    struct msg_request got;
    assert_int_equal(codec_unpack_request(buf, pack_raw(&pb), &got), -EPROTO);
}

static void test_unknown_ops_and_serial_zero_do_not_decode(void **state)
{
    (void)state;
    struct msg_request got;
    /* serial = 5, field 99 of length 0 */
    static const uint8_t unknown[] = {0x08, 5, 0x9a, 0x06, 0};
    assert_int_equal(codec_unpack_request(unknown, sizeof(unknown), &got), -EPROTO);
    assert_int_equal(got.serial, 5);
    static const uint8_t status_serial_0[] = {0x62, 0};
    assert_int_equal(codec_unpack_request(status_serial_0, sizeof(status_serial_0), &got), -EPROTO);
    assert_int_equal(codec_unpack_request(unknown, 0, &got), -EPROTO);
}

static void test_unknown_fields_are_ignored(void **state)
{
    (void)state;
    struct msg_request req = {.serial = 4, .op = MSG_STATUS}, got;
    size_t n = codec_pack_request(&req, buf);
    static const uint8_t extra[] = {0x9a, 0x06, 3, 'n', 'e', 'w'};
    memcpy(buf + n, extra, sizeof(extra));
    assert_int_equal(codec_unpack_request(buf, n + sizeof(extra), &got), 0);
    assert_int_equal(got.op, MSG_STATUS);
}

static void test_a_packet_of_thousands_of_fields_is_refused_by_the_arena(void **state)
{
    (void)state;
    struct msg_request got;
    for (size_t i = 0; i + 3 <= sizeof(buf); i += 3)
        memcpy(buf + i, (uint8_t[]){0x9a, 0x06, 0}, 3);
    assert_int_equal(codec_unpack_request(buf, sizeof(buf) / 3 * 3, &got), -EPROTO);
}

static void test_random_and_mutated_bytes_do_no_harm(void **state)
{
    (void)state;
    struct msg_request req = {.serial = 3, .op = MSG_RELEASE}, got;
    static struct msg_reply reply, books = {.serial = 3, .op = MSG_EXTENTS};
    req.release.n_runs = 20;
    books.extents.n = 40;
    for (uint32_t i = 0; i < books.extents.n; i++)
        books.extents.runs[i] = (struct msg_extent){i + 1, i};
    srand(1);
    for (int round = 0; round < 20000; round++) {
        size_t n = codec_pack_request(&req, buf);
        for (int k = 0; k < 4; k++)
            buf[(size_t)rand() % n] = (uint8_t)rand();
        if (codec_unpack_request(buf, n, &got) == 0)
            assert_true(got.op != MSG_RELEASE || got.release.n_runs <= MSG_RUNS_MAX);
        (void)codec_unpack_reply(buf, n, &reply);
        n = codec_pack_reply(&books, buf);
        for (int k = 0; k < 4; k++)
            buf[(size_t)rand() % n] = (uint8_t)rand();
        if (codec_unpack_reply(buf, n, &reply) == 0 && reply.op == MSG_EXTENTS)
            assert_true(reply.extents.n <= MSG_EXTENTS_MAX);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hello_and_attach_come_back_whole),
        cmocka_unit_test(test_requests_on_memory_come_back_whole),
        cmocka_unit_test(test_who_waits_comes_back_whole),
        cmocka_unit_test(test_waiters_that_cannot_be_meant_do_not_decode),
        cmocka_unit_test(test_requests_without_content_are_not_empty_packets),
        cmocka_unit_test(test_replies_come_back_whole),
        cmocka_unit_test(test_what_the_books_say_comes_back_whole),
        cmocka_unit_test(test_extents_that_cannot_be_meant_do_not_decode),
        cmocka_unit_test(test_holders_that_cannot_be_meant_do_not_decode),
        cmocka_unit_test(test_the_largest_replies_fit_the_packet_and_the_arena),
        cmocka_unit_test(test_a_string_that_is_too_long_does_not_decode),
        cmocka_unit_test(test_too_many_runs_do_not_decode),
        cmocka_unit_test(test_unknown_ops_and_serial_zero_do_not_decode),
        cmocka_unit_test(test_limits_come_whole),
        cmocka_unit_test(test_an_event_is_the_reply_without_a_serial),
        cmocka_unit_test(test_unknown_fields_are_ignored),
        cmocka_unit_test(test_a_packet_of_thousands_of_fields_is_refused_by_the_arena),
        cmocka_unit_test(test_random_and_mutated_bytes_do_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
