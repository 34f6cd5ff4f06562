/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fair_watch.c - the observer of test_fair.c: reads the control pages of all tenants, which the
 * daemon writes. What all have at one moment is what two looks in succession agree on; where they
 * do not, or the observer was interrupted between them, nothing is concluded.
 */
#include "proto/wire.h"
#include "shm/base.h"
#include "shm/segment.h"
#include "tests/system/fair.h"

#define TRIES   8u
#define LOOK_NS 1000000u /* nothing goes and comes again in this time */

struct look {
    uint64_t sealed[FAIR_TENANTS_MAX], max[FAIR_TENANTS_MAX];
};

static struct {
    struct look last;
    bool has_last;
    uint32_t last_seq;
    uint64_t n;
} watch;

/* ---- control pages ---- */

static void open_control(int sock, uint64_t serial, struct fair_tenant *t)
{
    struct wire_call call = {.sock = sock, .deadline_ns = wire_now_ns() + 10000000000ull};
    struct msg_request req = {.op = MSG_LOOK, .serial = serial};
    struct msg_reply reply;
    const char *why;
    int fd = -1;
    (void)snprintf(req.look.tenant, sizeof(req.look.tenant), "%s", t->node->name);
    assert_int_equal(wire_call(&call, &req, -1, &reply, &fd), 0);
    assert_int_equal(reply.error, 0);
    assert_int_equal(control_map(fd, &t->control, &why), 0);
    close(fd);
}

void fair_watch_begin(void)
{
    int sock;
    assert_int_equal(wire_hello(the_daemon.socket, wire_now_ns() + 10000000000ull, &sock, NULL), 0);
    for (uint32_t i = 0; i < fair.n_tenants; i++)
        open_control(sock, i + 1, &fair.tenants[i]);
    close(sock);
}

/* ---- one moment ---- */

static void look_once(struct look *ret)
{
    for (uint32_t i = 0; i < fair.n_tenants; i++) {
        const struct control_header *h = &fair.tenants[i].control->header;
        ret->sealed[i] = __atomic_load_n(&h->sealed_bytes, __ATOMIC_ACQUIRE);
        ret->max[i] = __atomic_load_n(&h->max_bytes, __ATOMIC_ACQUIRE);
    }
}

static bool look(struct look *ret)
{
    struct look again;
    for (unsigned i = 0; i < TRIES; i++) {
        uint64_t from_ns = fair_now_ns();
        memset(ret, 0, sizeof(*ret));
        memset(&again, 0, sizeof(again));
        look_once(ret);
        look_once(&again);
        if (memcmp(ret, &again, sizeof(again)) == 0 && fair_now_ns() < from_ns + LOOK_NS)
            return true;
    }
    return false;
}

/* ---- what must be so ---- */

static uint64_t sum_of(const struct look *l, const struct fair_node *group)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < fair.n_tenants; i++)
        if (!group || fair.tenants[i].node->group == group)
            sum += l->sealed[i];
    return sum;
}

static void compare_tenant(const struct look *now, uint32_t i)
{
    uint64_t has = now->sealed[i], max = now->max[i];
    if (has > max && has > watch.last.sealed[i] && max == watch.last.max[i])
        fair_fail("%s grew from %" PRIu64 " to %" PRIu64 " KiB, and its max is %" PRIu64,
                  fair.tenants[i].node->name, watch.last.sealed[i] / 1024, has / 1024, max / 1024);
}

static void compare_group(const struct look *now, const struct fair_node *g)
{
    uint64_t has = sum_of(now, g), had = sum_of(&watch.last, g);
    if (has > g->max_bytes && has > had)
        fair_fail("%s grew from %" PRIu64 " to %" PRIu64 " KiB, and its max is %" PRIu64, g->name,
                  had / 1024, has / 1024, g->max_bytes / 1024);
}

void fair_watch(uint32_t limits_seq)
{
    struct look now;
    if (!look(&now))
        return;
    watch.n++;
    uint64_t sum = sum_of(&now, NULL);
    if (sum > fair.capacity_bytes)
        fair_fail("all have %" PRIu64 " KiB, and there are %" PRIu64, sum / 1024,
                  fair.capacity_bytes / 1024);
    for (uint32_t i = 0; watch.has_last && i < fair.n_tenants; i++)
        compare_tenant(&now, i);
    bool knows_groups = watch.has_last && limits_seq % 2 == 0 && limits_seq == watch.last_seq;
    for (uint32_t i = 0; knows_groups && i < fair.n_groups; i++)
        compare_group(&now, &fair.nodes[i]);
    watch.last = now;
    watch.has_last = true;
    watch.last_seq = limits_seq;
}

uint64_t fair_n_watched(void)
{
    return watch.n;
}
