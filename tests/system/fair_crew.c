/* SPDX-License-Identifier: Apache-2.0 */
/* fair_crew.c - a client of test_fair.c: an event loop as any program has, which grows to what it
 * wants, gives its youngest blocks back when it hears that it has too much, and asks again some time
 * after a refusal. Blocks are not touched: what is shared is the right to have them. */
#include <poll.h>

#include "tests/system/fair.h"

#define BLOCKS_MAX    65536u
#define BLOCKS_A_TURN 16u
#define TURN_MS       40 /* what the driver wants is no event */
#define PAUSE_MS      20u
#define GIVE_NS       60000000u /* what was given before has come back by then */
#define NAP_US        10000u

struct self {
    struct acre_heap *heap;
    const struct fair_tenant *tenant;
    struct fair_client *said;
    int fd;
    uint64_t rng, again_ns; /* not before: it was refused */
    uint64_t gave_ns;
    uint64_t held_bytes;
    uint32_t n_blocks;
    struct {
        void *at;
        uint64_t bytes;
    } blocks[BLOCKS_MAX];
};

static void give_youngest(struct self *s)
{
    acre_free(s->heap, s->blocks[--s->n_blocks].at);
    s->held_bytes -= s->blocks[s->n_blocks].bytes;
    s->said->held_bytes = s->held_bytes;
    s->said->n_given++;
}

/* Of what the tenant has too much, as large a part as it has of all. */
static uint64_t part_of(const struct self *s, uint64_t bytes)
{
    double all = 0;
    for (uint32_t i = 0; i < s->tenant->n_clients; i++)
        if (!s->tenant->clients[i].is_asleep)
            all += (double)s->tenant->clients[i].held_bytes;
    return (uint64_t)((double)bytes * (double)s->held_bytes / (all > 0 ? all : 1));
}

static void give(struct self *s, const struct acre_pressure *pressure)
{
    s->gave_ns = fair_now_ns();
    uint64_t part_bytes = part_of(s, pressure->over_bytes), left_bytes = 0;
    if (part_bytes < s->held_bytes)
        left_bytes = s->held_bytes - part_bytes;
    while (s->held_bytes > left_bytes)
        give_youngest(s);
}

static void hears(struct acre_heap *heap, const struct acre_pressure *pressure, void *ctx)
{
    (void)heap;
    give(ctx, pressure);
}

static bool wants(const struct self *s)
{
    return s->held_bytes < s->said->wanted_bytes;
}

static struct acre_pressure pressure_of(const struct self *s)
{
    struct acre_pressure now = {.size = sizeof(now)};
    (void)acre_pressure_now(s->heap, &now);
    return now;
}

static bool has_too_much(const struct self *s)
{
    return pressure_of(s).level >= ACRE_PRESSURE_SHARE;
}

static bool grow(struct self *s)
{
    uint64_t bytes = FAIR_BLOCK_BYTES >> (s->tenant->is_mixed ? rnd(&s->rng) % 5 : 0);
    CHECK(s->n_blocks < BLOCKS_MAX);
    void *block = acre_alloc(s->heap, bytes);
    CHECK(block || errno == ENOMEM);
    if (!block) {
        s->again_ns = fair_now_ns() + (PAUSE_MS + rnd(&s->rng) % 30) * 1000000u;
        s->said->n_refused++;
        return true;
    }
    s->blocks[s->n_blocks].at = block;
    s->blocks[s->n_blocks++].bytes = bytes;
    s->held_bytes += bytes;
    s->said->held_bytes = s->held_bytes;
    return true;
}

/* Who has too much would take back what it has just given. */
static bool may_grow(const struct self *s)
{
    return wants(s) && fair_now_ns() >= s->again_ns && !has_too_much(s);
}

/* As a program that computes: half of what it has is idle, and it comes by nowhere. */
static void sleep_deaf(struct self *s)
{
    for (uint32_t n = s->n_blocks / 2; n > 0; n--)
        give_youngest(s);
    s->said->is_asleep = true;
    while (s->said->is_to_sleep && !s->said->is_to_end)
        pause_us(NAP_US);
    s->said->is_asleep = false;
}

/* Until there is something to do. */
static int wait_ms(const struct self *s)
{
    uint64_t now_ns = fair_now_ns();
    if (!wants(s) || has_too_much(s))
        return TURN_MS;
    return now_ns >= s->again_ns ? 0 : (int)((s->again_ns - now_ns) / 1000000) + 1;
}

static bool turn(struct self *s)
{
    struct pollfd p = {.fd = s->fd, .events = POLLIN};
    CHECK(poll(&p, 1, wait_ms(s)) >= 0);
    int r = p.revents ? acre_dispatch(s->heap) : 0;
    CHECK(r >= 0 || r == -ETIMEDOUT); /* it has 0.2 s for an answer, and tries again */
    s->said->n_unanswered += r < 0;
    if (has_too_much(s) &&
        fair_now_ns() >= s->gave_ns + GIVE_NS) /* yet: what it gave lay between what it has */
        give(s, &(struct acre_pressure){.over_bytes = pressure_of(s).over_bytes});
    if (s->said->is_to_sleep)
        sleep_deaf(s);
    while (s->n_blocks > 0 &&
           s->held_bytes - s->blocks[s->n_blocks - 1].bytes >= s->said->wanted_bytes)
        give_youngest(s);
    for (unsigned i = 0; i < BLOCKS_A_TURN && may_grow(s); i++)
        CHECK(grow(s));
    s->said->n_turns++;
    return true;
}

bool fair_work(void *arg)
{
    static struct self self;
    const struct fair_work *work = arg;
    struct self *s = &self;
    s->tenant = work->tenant;
    s->said = work->self;
    s->rng = work->seed;
    struct acre_options o = {.size = sizeof(o), .deadline_ms = 60000};
    o.address = the_daemon.socket;
    o.tenant = work->tenant->node->name;
    CHECK(acre_open_with(&s->heap, &o) == 0);
    CHECK((s->fd = acre_fd(s->heap)) >= 0);
    CHECK(acre_on_pressure(s->heap, hears, s) == 0);
    s->said->is_ready = true;
    while (!s->said->is_to_end)
        if (!turn(s))
            return false;
    acre_close(s->heap);
    return true;
}
