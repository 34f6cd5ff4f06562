/* SPDX-License-Identifier: Apache-2.0 */
/* ctest-timeout: 300 */
/*
 * Many tenants at one daemon's core want more than there is, some much, some little, by weights and
 * promises, a quarter of them in groups; what each wants changes every second. Each does what it is
 * told: gives the youngest of its blocks back when it has too much, and asks again when it has too
 * little. Some sleep for seconds and do nothing. A second after the change
 *
 *   1. nobody who wants more has less than its share by more than a 20th;
 *   2. nobody has more than its share by more than a 20th, but who sleeps;
 *   3. who has less than it was promised wants no more;
 *
 * but for one share in a thousand, which is off by a quarter at most; and at every moment what is
 * charged is within the capacity. The share is what a naive twin (fair_share.h) finds for what each
 * has or wants then, and what who sleeps keeps.
 *
 * model-fair [SEED [STEPS [TENANTS]]]
 */
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>

#include "daemon/dispatch.h"
#include "daemon/reload.h"
#include "daemon/tenant.h"
#include "tests/random.h"
#include "tests/unit/drive.h"
#include "tests/unit/fair_share.h"
#include "tests/unit/fake_core.h"

#define TENANTS_MAX 1000u
#define STEP_NS     5000000ull
#define ROUND_STEPS (uint32_t)(SECOND / STEP_NS)
#define BLOCK_UNITS 4u
#define SHARE_BYTES MIB(4) /* the capacity has so many for each */
#define BLOCKS_MAX  4096u
#define ASKS        16u /* in a step */
#define PAUSE_STEPS 8u  /* after a refusal */
#define GROUP_SIZE  5u
#define GROUPS_MAX  (TENANTS_MAX / 4 / GROUP_SIZE + 1)
#define WORST       0.25          /* of the few that are missed by more than a 20th */
#define SLACK_BYTES (MIB(1) / 16) /* no segment is smaller */

struct user {
    struct fake fake;
    struct tenant *tenant;
    bool waits, is_short; /* for a reply; its last one was no */
    unsigned n_replies;
    uint32_t n_pauses;         /* steps until it asks again */
    uint32_t n_asleep;         /* rounds */
    uint32_t n_wanted, n_held; /* blocks */
    struct msg_run held[BLOCKS_MAX];
};

static struct {
    uint64_t rng;
    uint32_t n, n_groups;
    struct user *users;
    struct fair_node nodes[GROUPS_MAX + TENANTS_MAX]; /* groups first */
    struct config config;
    double worst_below, worst_above;
    uint64_t n_granted, n_refused, n_given, n_short, n_deaths, n_compared, n_missed, n_asleep;
} m;

static uint64_t below(uint64_t n)
{
    return rnd(&m.rng) % n;
}

/* ---- who they are ---- */

static void choose_limits(struct fair_node *n, uint64_t *spare_bytes)
{
    n->max_bytes = 16 * SHARE_BYTES;
    n->min_bytes = below(4) ? 0 : MIN(below(2 * SHARE_BYTES), *spare_bytes);
    n->weight = 50 + (uint32_t)below(350);
    *spare_bytes -= n->min_bytes;
}

static void choose_all(void)
{
    uint64_t spare_bytes = m.config.capacity_bytes / 4;
    for (uint32_t i = 0; i < m.n; i++) {
        struct fair_node *n = &m.nodes[m.n_groups + i];
        choose_limits(n, &spare_bytes);
        (void)snprintf(n->name, sizeof(n->name), "t%04u", i);
        if (i % 4 != 0 || m.n_groups == 0)
            continue;
        n->group = &m.nodes[i / 4 % m.n_groups];
        (void)snprintf(n->name, sizeof(n->name), "g%u/t%04u", i / 4 % m.n_groups, i);
        n->group->weight += n->weight;
        n->group->max_bytes += SHARE_BYTES / 2 + n->min_bytes + below(SHARE_BYTES);
    }
}

static void make_config(void)
{
    m.n_groups = m.n / 4 / GROUP_SIZE;
    m.config.n_tenants = m.n_groups + m.n;
    m.config.capacity_bytes = m.n * SHARE_BYTES;
    m.config.tenants = calloc(m.config.n_tenants, sizeof(*m.config.tenants));
    acre_assert(m.config.tenants != NULL);
    for (uint32_t i = 0; i < m.n_groups; i++)
        (void)snprintf(m.nodes[i].name, sizeof(m.nodes[i].name), "g%u", i);
    choose_all();
    for (uint32_t i = 0; i < m.config.n_tenants; i++) {
        struct config_tenant *t = &m.config.tenants[i];
        const struct fair_node *n = &m.nodes[i];
        (void)snprintf(t->name, sizeof(t->name), "%s", n->name);
        t->wish.limits.max_bytes = n->max_bytes;
        t->wish.limits.min_bytes = n->min_bytes;
        t->wish.limits.weight = n->weight;
    }
}

static void begin(void)
{
    make_config();
    start_core(m.config.capacity_bytes);
    acre_assert(reload_apply(&w.core, &m.config) == 0);
    m.users = calloc(m.n, sizeof(*m.users));
    acre_assert(m.users != NULL);
    for (uint32_t i = 0; i < m.n; i++) {
        m.users[i].tenant = core_find_tenant(&w.core, m.nodes[m.n_groups + i].name);
        attach_to(&m.users[i].fake, m.nodes[m.n_groups + i].name);
    }
}

static void die(struct user *u)
{
    kill_it(&u->fake);
    u->fake = (struct fake){0};
    u->n_held = 0;
    u->waits = u->is_short = false;
    attach_to(&u->fake, u->tenant->name);
    m.n_deaths++;
}

static void change_demands(bool all)
{
    for (uint32_t i = 0; i < m.n; i++) {
        struct user *u = &m.users[i];
        if (all || below(3) == 0)
            u->n_wanted =
                below(3) ? (uint32_t)below(6 * SHARE_BYTES / BLOCK_UNITS / UNIT_BYTES) : 0;
        if (below(100) == 0)
            die(u);
        u->n_asleep = u->n_asleep > 0 ? u->n_asleep - 1 : below(30) ? 0 : 1 + (uint32_t)below(3);
    }
}

/* ---- what they do ---- */

static void send_it(struct user *u, struct msg_request req)
{
    u->n_replies = u->fake.n_replies;
    req.serial = u->fake.session.serial + 1;
    dispatch_request(&w.core, &u->fake.session, &req, 0, -1, w.now_ns);
    run_jobs();
    u->waits = u->fake.n_replies == u->n_replies;
}

/* What is not cut others may have, and may have had meanwhile: false. */
static bool cut(const struct user *u, const struct msg_run *run)
{
    uint32_t unit;
    struct seg *seg = tenant_locate(u->tenant, run->off, false, &unit);
    if (!seg || !tenant_all_owned(u->tenant, seg, unit, run->n_units, u->fake.id))
        return false;
    seg_store_plain(seg, unit, run->n_units, U_CUT, holder_token(u->fake.id, 0));
    return true;
}

static void take_reply(struct user *u)
{
    const struct msg_reply *reply = &u->fake.reply;
    u->waits = false;
    u->is_short = reply->error != 0;
    if (reply->error == 0) {
        acre_assert(u->n_held < BLOCKS_MAX);
        u->held[u->n_held] = reply->grow.run;
        u->n_held += cut(u, &reply->grow.run);
        m.n_granted++;
        return;
    }
    acre_assert(reply->error == -ENOMEM);
    u->n_pauses = PAUSE_STEPS;
    m.n_refused++;
}

static void grow(struct user *u)
{
    struct msg_request req = {.op = MSG_GROW};
    req.grow.n_units = BLOCK_UNITS;
    req.grow.exact = true;
    u->is_short = false;
    for (unsigned i = 0; i < ASKS && u->n_held < u->n_wanted && !u->is_short; i++) {
        send_it(u, req);
        if (u->waits)
            return;
        take_reply(u);
    }
}

static void give(struct user *u, uint64_t n_bytes)
{
    struct msg_request req = {.op = MSG_RELEASE};
    uint32_t n = (uint32_t)MIN(n_bytes / BLOCK_UNITS / UNIT_BYTES + 1, u->n_held);
    u->is_short = false;
    m.n_given += n;
    while (n > 0) {
        req.release.n_runs = 0;
        for (; n > 0 && req.release.n_runs < MSG_RUNS_MAX; n--)
            req.release.runs[req.release.n_runs++] = u->held[--u->n_held];
        send_it(u, req);
        acre_assert(!u->waits && u->fake.reply.error == 0);
    }
}

static void act(struct user *u)
{
    const struct control_header *h = &u->tenant->control->header;
    if (u->n_asleep > 0)
        return;
    if (u->waits && u->fake.n_replies == u->n_replies)
        return;
    if (u->waits)
        take_reply(u);
    else if (u->n_held > u->n_wanted)
        give(u, (u->n_held - u->n_wanted - 1) * BLOCK_UNITS * UNIT_BYTES);
    else if (h->over_bytes > 0 && u->n_held > 0)
        give(u, h->over_bytes);
    else if (u->n_pauses > 0)
        u->n_pauses--;
    else if (u->n_held < u->n_wanted)
        grow(u);
}

static void step(void)
{
    uint32_t first = (uint32_t)below(m.n);
    for (uint32_t i = 0; i < m.n; i++)
        act(&m.users[(first + i) % m.n]);
    acre_assert(w.core.ledger.charged_bytes <= w.core.ledger.capacity_bytes);
    pass(STEP_NS);
}

/* ---- what is fair ---- */

static bool wants(const struct user *u)
{
    return u->n_held < u->n_wanted;
}

static void see(uint32_t i)
{
    struct fair_node *n = &m.nodes[m.n_groups + i];
    const struct user *u = &m.users[i];
    n->has = n->demand = (double)u->tenant->budget.charged_bytes;
    n->asleep = u->n_asleep > 0 ? n->has : 0;
    n->wants = u->n_asleep == 0 && wants(u);
    m.n_asleep += u->n_asleep > 0;
    if (n->wants)
        n->demand += (double)(u->n_wanted - u->n_held) * BLOCK_UNITS * UNIT_BYTES;
}

static void say(const struct fair_node *n, const struct user *u)
{
    printf("%s (weight %u, min %" PRIu64 " KiB) has %.0f KiB, its share is %.0f KiB; it %s, "
           "%u of %u blocks, told %" PRIu64 " KiB too much\n",
           n->name, n->weight, n->min_bytes / 1024, n->has / 1024, n->share / 1024,
           u->waits      ? "waits"
           : u->is_short ? "was refused"
                         : "is at ease",
           u->n_held, u->n_wanted, u->tenant->control->header.over_bytes / 1024);
}

static void compare_one(const struct fair_node *n, const struct user *u)
{
    double part = fair_deviation(n, SLACK_BYTES);
    m.worst_below = MAX(m.worst_below, -part);
    m.worst_above = MAX(m.worst_above, part);
    if (fair_is_missed(part)) {
        say(n, u);
        m.n_missed++;
    }
    m.n_short += n->wants;
    m.n_compared++;
}

static void compare(void)
{
    for (uint32_t i = 0; i < m.n; i++)
        see(i);
    fair_share(&(struct fair_world){(double)m.config.capacity_bytes, m.nodes, m.n_groups,
                                    m.n_groups + m.n});
    for (uint32_t i = 0; i < m.n; i++)
        compare_one(&m.nodes[m.n_groups + i], &m.users[i]);
    core_assert_valid(&w.core);
}

/* ---- all ---- */

static void end(void)
{
    for (uint32_t i = 0; i < m.n; i++)
        kill_it(&m.users[i].fake);
    finish();
    free(m.users);
    config_deinit(&m.config);
}

int main(int argc, char **argv)
{
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 4;
    uint32_t n_steps = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 4000;
    m.n = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : 100;
    printf("seed %" PRIu64 "\n", seed);
    acre_assert(m.n > 0 && m.n <= TENANTS_MAX);
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    m.rng = rnd_seeded(seed);
    begin();
    for (uint32_t i = 0; i < n_steps; i++) {
        if (i % ROUND_STEPS == 0)
            change_demands(i == 0);
        step();
        if (i % ROUND_STEPS == ROUND_STEPS - 1)
            compare();
    }
    printf("%u steps, %u tenants: %" PRIu64 " granted, %" PRIu64 " refused, %" PRIu64
           " given back, %" PRIu64 " deaths; of %" PRIu64 " shares %" PRIu64 " were short, %" PRIu64
           " asleep, %" PRIu64 " missed; at worst %.1f %% too little, %.1f %% too much\n",
           n_steps, m.n, m.n_granted, m.n_refused, m.n_given, m.n_deaths, m.n_compared, m.n_short,
           m.n_asleep, m.n_missed, 100 * m.worst_below, 100 * m.worst_above);
    acre_assert(m.n_short > m.n_compared / 10 && m.n_given > 0);
    acre_assert(m.n_missed <= m.n_compared / 1000);
    acre_assert(m.worst_below <= WORST && m.worst_above <= WORST);
    end();
    return 0;
}
