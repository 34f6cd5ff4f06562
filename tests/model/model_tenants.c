/* SPDX-License-Identifier: Apache-2.0 */
/* ctest-timeout: 300 */
/*
 * Many tenants and groups at one daemon's core, whose limits change all the time: clients come,
 * grow, give back and die, the configuration is read again with other figures. After each step:
 *
 *   1. what is charged and what is promised are within the capacity, or have not become more;
 *   2. so are every budget's total and what is promised below it within its max;
 *   3. who was refused had no promise left: what it asked for would not have fitted into its min,
 *      or into what its groups' walls leave, or the promise was made a moment ago and is still
 *      owed.
 *
 * model-tenants [SEED [STEPS [TENANTS]]]
 */
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>

#include "daemon/reload.h"
#include "daemon/segments.h"
#include "daemon/tenant.h"
#include "tests/random.h"
#include "tests/unit/drive.h"
#include "tests/unit/fake_core.h"

#define TENANTS_MAX   1000u
#define GROUPS        20u
#define HELD_MAX      24u
#define UNITS_OF(mib) (MIB(mib) / UNIT_BYTES)

struct user {
    struct fake fake;
    bool is_there;
    uint32_t n_held;
    struct msg_run held[HELD_MAX];
};

static struct {
    uint64_t rng;
    uint32_t n_tenants;
    struct user users[TENANTS_MAX];
    struct config config; /* as it was last carried out: names and limits */
    uint64_t totals[TENANTS_MAX + GROUPS], charged_bytes; /* before the step */
    uint32_t n_granted, n_refused, n_reloads, n_deaths, n_over;
} m;

static uint64_t below(uint64_t n)
{
    return rnd(&m.rng) % n;
}

static void must(bool cond, const char *what, const struct tenant *t)
{
    if (cond)
        return;
    fprintf(stderr,
            "%s (%s: min %" PRIu64 ", max %" PRIu64 ", total %" PRIu64 ", held %" PRIu64
            "; capacity %" PRIu64 ", charged %" PRIu64 ", held %" PRIu64 ")\n",
            what, t ? t->name : "all", t ? t->budget.limits.min_bytes : 0,
            t ? t->budget.limits.max_bytes : 0, t ? t->budget.total_bytes : 0,
            t ? t->budget.held_bytes : 0, w.core.ledger.capacity_bytes, w.core.ledger.charged_bytes,
            w.core.ledger.held_bytes);
    abort();
}

/* ---- what the configuration says ---- */

static void name_tenant(uint32_t i, char *ret)
{
    if (i < GROUPS) /* "g07" and "g07/t123", or in none */
        (void)snprintf(ret, TENANT_NAME_BYTES, "g%02u", i);
    else if (i % 3)
        (void)snprintf(ret, TENANT_NAME_BYTES, "g%02u/t%u", i % GROUPS, i);
    else
        (void)snprintf(ret, TENANT_NAME_BYTES, "t%u", i);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct config_tenant *)a)->name, ((const struct config_tenant *)b)->name);
}

static struct config_tenant *find_plan(const char *name, size_t n_name)
{
    for (uint32_t i = 0; i < m.config.n_tenants; i++)
        if (strlen(m.config.tenants[i].name) == n_name &&
            memcmp(m.config.tenants[i].name, name, n_name) == 0)
            return &m.config.tenants[i];
    return NULL;
}

/* Limits that a configuration file could have: promises that can be kept. */
static void draw_limits(void)
{
    uint64_t capacity_bytes = MIB(32 + below(3 * m.n_tenants)), spare_bytes = capacity_bytes / 2;
    m.config.capacity_bytes = capacity_bytes;
    for (uint32_t i = m.config.n_tenants; i-- > 0;) {
        struct config_tenant *t = &m.config.tenants[i];
        if (t->is_group) {
            t->wish.limits.max_bytes = MIB(16 + below(256));
            t->wish.limits.min_bytes = 0;
            continue;
        }
        t->wish.limits.max_bytes = MIB(1 + below(48));
        t->wish.limits.min_bytes = below(3) ? 0 : MIN(t->wish.limits.max_bytes, below(MIB(8)));
        t->wish.limits.min_bytes = MIN(t->wish.limits.min_bytes, spare_bytes);
        spare_bytes -= t->wish.limits.min_bytes;
        t->wish.ready_bytes = below(8) ? 0 : below(t->wish.limits.max_bytes / 2);
    }
    for (uint32_t i = 0; i < m.config.n_tenants; i++) { /* a group's max must hold their sum */
        struct config_tenant *t = &m.config.tenants[i];
        const char *slash = strchr(t->name, '/');
        if (slash)
            find_plan(t->name, (size_t)(slash - t->name))->wish.limits.max_bytes +=
                t->wish.limits.min_bytes;
    }
}

static void make_config(void)
{
    m.config.n_tenants = m.n_tenants + GROUPS;
    m.config.tenants = calloc(m.config.n_tenants, sizeof(*m.config.tenants));
    acre_assert(m.config.tenants != NULL);
    for (uint32_t i = 0; i < m.config.n_tenants; i++) {
        name_tenant(i, m.config.tenants[i].name);
        m.config.tenants[i].is_group = i < GROUPS;
    }
    qsort(m.config.tenants, m.config.n_tenants, sizeof(*m.config.tenants), by_name);
    draw_limits();
}

static struct tenant *tenant_of(uint32_t user)
{
    char name[TENANT_NAME_BYTES];
    name_tenant(user + GROUPS, name);
    return core_find_tenant(&w.core, name);
}

/* ---- what must be true ---- */

static void note(void)
{
    for (uint32_t i = 0; i < w.core.n_tenants; i++) {
        const struct budget *b = &w.core.tenants[i]->budget;
        m.totals[i] = b->total_bytes + b->below_bytes;
    }
    m.charged_bytes = w.core.ledger.charged_bytes + w.core.ledger.held_bytes;
}

static void compare(void)
{
    const struct ledger *l = &w.core.ledger;
    uint64_t charged_bytes = l->charged_bytes + l->held_bytes;
    must(charged_bytes <= l->capacity_bytes || charged_bytes <= m.charged_bytes,
         "more is charged or promised than there is", NULL);
    for (uint32_t i = 0; i < w.core.n_tenants; i++) {
        const struct tenant *t = w.core.tenants[i];
        uint64_t total_bytes = t->budget.total_bytes + t->budget.below_bytes;
        bool is_over = total_bytes > t->budget.limits.max_bytes;
        must(!is_over || total_bytes <= m.totals[i], "one grows beyond its max", t);
        m.n_over += is_over;
    }
}

/* ---- steps ---- */

static void come(struct user *u, const struct tenant *t)
{
    *u = (struct user){.is_there = true};
    attach_to(&u->fake, t->name);
}

static void leave(struct user *u)
{
    kill_it(&u->fake);
    u->is_there = false;
    m.n_deaths++;
}

/* Would so much have been within what was promised, and could it have been kept? */
static bool was_promised(const struct tenant *t, uint64_t n_bytes)
{
    const struct ledger *l = &w.core.ledger;
    return t->budget.total_bytes + n_bytes <= t->budget.limits.min_bytes &&
           n_bytes <= budget_left(&t->budget) &&
           l->charged_bytes + l->held_bytes <= l->capacity_bytes;
}

/* What is not cut others may have. */
static void cut(const struct user *u, const struct tenant *t, const struct msg_run *run)
{
    uint32_t unit;
    struct seg *seg = tenant_locate(t, run->off, false, &unit);
    seg_store_plain(seg, unit, seg->buddy ? run->n_units : 1, U_CUT, holder_token(u->fake.id, 0));
}

static void grow(struct user *u, const struct tenant *t)
{
    uint32_t n = 1u << below(10);
    struct msg_request req = {.op = MSG_GROW, .grow = {.n_units = n, .exact = below(2)}};
    if (u->n_held == HELD_MAX)
        return;
    (void)ask(&u->fake, req);
    must(u->fake.session.wait == WAIT_NONE, "a Grow waits for ever", t);
    if (u->fake.reply.error == 0) {
        u->held[u->n_held++] = u->fake.reply.grow.run;
        cut(u, t, &u->fake.reply.grow.run);
        m.n_granted++;
        return;
    }
    must(u->fake.reply.error == -ENOMEM, "a Grow fails for another reason", t);
    m.n_refused++;
    uint32_t span = req.grow.exact ? n : 1u << log2_ceil_u64(n);
    must(!was_promised(t, segments_units_for(span, req.grow.exact ? 0 : log2_ceil_u64(n)) *
                              UNIT_BYTES),
         "a promise was not kept", t);
}

static void give_back(struct user *u)
{
    struct msg_request req = {.op = MSG_RELEASE, .release = {.n_runs = 1}};
    if (u->n_held == 0)
        return;
    uint32_t i = (uint32_t)below(u->n_held);
    req.release.runs[0] = u->held[i];
    u->held[i] = u->held[--u->n_held];
    (void)ask(&u->fake, req);
    acre_assert(u->fake.reply.error == 0);
}

static void reload(void)
{
    draw_limits();
    acre_assert(reload_apply(&w.core, &m.config) == 0);
    note(); /* promises have changed: what is owed now is less and less from here on */
    run_jobs();
    m.n_reloads++;
}

static void step(void)
{
    uint32_t i = (uint32_t)below(m.n_tenants);
    struct user *u = &m.users[i];
    const struct tenant *t = tenant_of(i);
    unsigned what = (unsigned)below(100);
    if (what == 0)
        reload();
    else if (what < 3)
        pass(SECOND / 2);
    else if (!u->is_there)
        come(u, t);
    else if (what < 8)
        leave(u);
    else if (what < 70)
        grow(u, t);
    else
        give_back(u);
}

/* ---- all ---- */

static void begin(void)
{
    make_config();
    start_core(m.config.capacity_bytes);
    w.shuffle = true;
    acre_assert(reload_apply(&w.core, &m.config) == 0);
}

static void end(void)
{
    for (uint32_t i = 0; i < m.n_tenants; i++)
        if (m.users[i].is_there)
            leave(&m.users[i]);
    finish();
    config_deinit(&m.config);
}

/* What the daemon says of each change is worth reading only if something is wrong. */
static int said_fd;

static void say_the_last(int sig)
{
    char text[600];
    off_t end = lseek(said_fd, 0, SEEK_END), from = MAX(end - (off_t)sizeof(text), 0);
    ssize_t n = pread(said_fd, text, sizeof(text), from);
    if (n > 0)
        (void)!write(STDOUT_FILENO, text, (size_t)n);
    (void)signal(sig, SIG_DFL);
    (void)raise(sig);
}

static void keep_quiet(void)
{
    said_fd = memfd_create("said", MFD_CLOEXEC);
    acre_assert(said_fd >= 0 && dup2(said_fd, STDERR_FILENO) >= 0);
    (void)signal(SIGABRT, say_the_last);
}

int main(int argc, char **argv)
{
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    uint32_t n_steps = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 10000;
    printf("seed %" PRIu64 "\n", seed);
    m.n_tenants = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : TENANTS_MAX - GROUPS;
    acre_assert(m.n_tenants > 0 && m.n_tenants <= TENANTS_MAX - GROUPS);
    m.rng = rnd_seeded(seed);
    srand((unsigned)seed);
    keep_quiet();
    begin();
    for (uint32_t i = 0; i < n_steps; i++) {
        note();
        step();
        compare();
        if (i % 100 == 0)
            core_assert_valid(&w.core);
    }
    printf("%u steps, %u tenants: %u granted, %u refused, %u deaths, %u "
           "configurations; %u times one was seen above a lowered max\n",
           n_steps, m.n_tenants, m.n_granted, m.n_refused, m.n_deaths, m.n_reloads, m.n_over);
    acre_assert(m.n_granted > n_steps / 20 && m.n_refused > 0 && m.n_over > 0);
    end();
    return 0;
}
