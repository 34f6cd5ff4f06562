/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tickets, theory.
 *
 * MODEL. A process has one connection, on which no thread may sit while it waits for memory. So it
 * takes a ticket, under a number of its own, and is answered at once; when the ticket has its
 * answer, a word in the control page counts on and wakes who sleeps on it (a futex, by the number's
 * low five bits), and the client asks by that number again. A ticket waits, is served (units are
 * the client's, U_UNCUT, and noted here) or has failed; who asks for one of the latter two is told
 * and the ticket is gone.
 *
 * ORDER. Within a tenant strictly as they came: only the first in line is tried, whenever memory
 * has come back, before any other request. Between tenants that want room of the capacity: one
 * ticket each, the next time beginning behind the last one that got something.
 *   Others (a Grow) may overtake: what the first in line cannot use shall not lie idle. But only
 * until they were granted OVERTAKE_MIN units, or as much as the first one asks for, since it is the
 * first; a segment that is made for them counts as a whole. Then they are refused as if there were
 * no memory, until it has been served or is gone. So none starves: whoever is first gets the next
 * memory that suffices. And while something is under way for it (a segment, room that others yield,
 * the search), they wait: or they would take, again and again, what it is putting together.
 *   What is served is spared by the search (shielded_ns), or tickets would rob one another.
 *
 * WHAT NOBODY TELLS OF: units that other clients hold and have not cut, orphans that have become
 * empty. The first in line looks for them (search.c) when it comes, and again every 20 ms to 1 s.
 *
 * END. A client asks every second as long as it waits, so that one that has not asked for STALE_NS
 * is stopped or gone: its ticket goes, and its grant comes back. The same at its deadline, if it
 * does not cancel itself. With the client's death its tickets go; the units are reaped like others.
 *
 * KILLS. Tickets are private memory. A client whose daemon was killed asks the next one by a number
 * that it does not know, and queues anew; a grant that it was not told of is found by the search, or
 * by its `again` (memory.c).
 *
 * COST. A wake tries one ticket, and one more for each that is served: at most WAKES_MAX a turn.
 */
#include "daemon/ticket.h"

#include <inttypes.h>
#include <limits.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>

#include "daemon/grant.h"
#include "daemon/memory.h"
#include "daemon/room.h"
#include "daemon/search.h"
#include "daemon/segments.h"
#include "daemon/session.h"
#include "daemon/tenant.h"
#include "shm/sizeclass.h"

#define WAKES_MAX    16u /* as memory.c */
#define OVERTAKE_MIN 64u
#define STALE_NS     5000000000ull
#define GRACE_NS     1000000000ull /* after its deadline: the client cancels, if it can */
#define TOLD_NS      20000000ull   /* until who was told of its units has begun on them */
#define LOOK_NS_MIN  20000000ull
#define LOOK_NS_MAX  1000000000ull

void ticket_init(struct tickets *q)
{
    *q = (struct tickets){.look_at_ns = UINT64_MAX};
    TAILQ_INIT(&q->line);
    TAILQ_INIT(&q->by_age);
}

static struct tickets *queue_of(const struct ticket *tk)
{
    return &tk->client->tenant->tickets;
}

/* ---- the line ---- */

static void look_soon(struct tenant *t)
{
    struct tickets *q = &t->tickets;
    q->n_overtaken = 0;
    q->is_coming = false;
    q->look_wait_ns = LOOK_NS_MIN;
    q->look_at_ns = TAILQ_EMPTY(&q->by_age) ? UINT64_MAX : t->core->now_ns + LOOK_NS_MIN;
}

static void enter_line(struct ticket *tk, bool first)
{
    struct tickets *q = queue_of(tk);
    tk->state = TICKET_WAITS;
    tk->rounds = (struct rounds){0};
    if (first)
        TAILQ_INSERT_HEAD(&q->line, tk, in_line);
    else
        TAILQ_INSERT_TAIL(&q->line, tk, in_line);
    q->n_waiting++;
    if (TAILQ_FIRST(&q->line) == tk)
        look_soon(tk->client->tenant);
}

static void leave_line(struct ticket *tk)
{
    struct tickets *q = queue_of(tk);
    bool was_first = TAILQ_FIRST(&q->line) == tk;
    TAILQ_REMOVE(&q->line, tk, in_line);
    q->n_waiting--;
    if (was_first)
        look_soon(tk->client->tenant);
}

static void forget(struct ticket *tk)
{
    struct client *c = tk->client;
    struct tickets *q = queue_of(tk);
    if (tk->state == TICKET_WAITS)
        leave_line(tk);
    TAILQ_REMOVE(&q->by_age, tk, by_age);
    LIST_REMOVE(tk, of_client);
    c->n_tickets--;
    user_drop(&c->tenant->core->users, c->uid, USER_TICKETS);
    free(tk);
    if (TAILQ_EMPTY(&q->by_age))
        q->look_at_ns = UINT64_MAX;
}

static struct ticket *find(const struct client *c, uint64_t number)
{
    struct ticket *tk;
    LIST_FOREACH (tk, &c->tickets, of_client)
        if (tk->number == number)
            return tk;
    return NULL;
}

/* The next time somebody in this client asks. */
static void ring(const struct ticket *tk)
{
    const struct client *c = tk->client;
    uint32_t *seq = &c->tenant->control->client[c->id].ticket_seq;
    (void)__atomic_add_fetch(seq, 1, __ATOMIC_SEQ_CST);
    (void)syscall(SYS_futex, seq, FUTEX_WAKE_BITSET, INT_MAX, NULL, NULL, 1u << (tk->number % 32));
}

/* ---- grants ---- */

static struct msg_request grow_request(const struct ticket *tk)
{
    struct msg_request req = {.op = MSG_GROW};
    req.grow.n_units = tk->n_units;
    req.grow.align_order = tk->align_order;
    req.grow.exact = tk->exact;
    req.grow.class_plus_1 = tk->class_plus_1;
    return req;
}

/* Where its grant is; false: the segment is no more. */
static bool locate(const struct ticket *tk, struct grant *ret)
{
    struct tenant *t = tk->client->tenant;
    *ret = (struct grant){.n_units = tk->run.n_units, .slab = tk->is_slab};
    ret->seg = tenant_locate(t, tk->run.off, false, &ret->unit);
    return ret->seg && seg_contains(ret->seg, ret->unit, ret->n_units);
}

/* Some of it may have been taken back: by `again`, or by a search that was faster. */
static bool is_whole(const struct ticket *tk, const struct grant *g)
{
    struct client *c = tk->client;
    uint32_t end = MIN(g->unit + g->n_units, g->seg->shape.n_table);
    if (!tenant_all_owned(c->tenant, g->seg, g->unit, g->n_units, c->id))
        return false;
    if (g->slab)
        return unit_entry_state(seg_entry(g->seg, g->unit)) == U_PARKED;
    for (uint32_t u = g->unit; u < end; u++)
        if (unit_entry_state(seg_entry(g->seg, u)) != U_UNCUT)
            return false;
    return true;
}

static void take_back(struct ticket *tk)
{
    struct grant g;
    tk->client->shielded_ns = 0;
    if (locate(tk, &g))
        grant_undo(tk->client->tenant, tk->client, &g);
}

static void serve(struct ticket *tk, const struct grant *g)
{
    leave_line(tk);
    room_satisfied(tk->client->tenant);
    tk->state = TICKET_SERVED;
    tk->run = (struct msg_run){seg_off(g->seg, g->unit), g->n_units};
    tk->is_slab = g->slab;
    tk->client->shielded_ns = tk->client->tenant->core->now_ns + STALE_NS;
}

/* True: it waits no more. */
static bool try_ticket(struct ticket *tk)
{
    struct grant g = {0};
    struct tenant *t = tk->client->tenant;
    struct msg_request req = grow_request(tk);
    int r = grant_grow(t, tk->client, &req, &tk->rounds, &g);
    t->tickets.is_coming = r == -EINPROGRESS;
    if (r == 0) {
        serve(tk, &g);
    } else if (r != -EINPROGRESS && r != -ENOMEM) {
        leave_line(tk);
        tk->state = TICKET_FAILED;
        tk->error = r;
    }
    return tk->state != TICKET_WAITS;
}

/* The first in line that its client has not given up; NULL: there is none. */
static struct ticket *first_in_line(struct tenant *t)
{
    struct ticket *tk;
    while ((tk = TAILQ_FIRST(&t->tickets.line)) && tk->deadline_ns + GRACE_NS <= t->core->now_ns)
        forget(tk);
    return tk;
}

static bool wake_first(struct tenant *t)
{
    struct ticket *tk = first_in_line(t);
    if (!tk || t->core->is_stopping)
        return false;
    t->is_waking = true;
    bool is_done = try_ticket(tk);
    t->is_waking = false;
    if (is_done)
        ring(tk);
    return is_done;
}

void ticket_wake(struct tenant *t)
{
    uint32_t n = 0;
    t->tickets.is_hungry = false;
    while (n < WAKES_MAX && wake_first(t))
        n++;
    t->tickets.is_hungry = n == WAKES_MAX;
}

void ticket_wake_all(struct core *core)
{
    bool any = true;
    for (uint32_t n = 0; any && n < WAKES_MAX;) {
        uint32_t from = core->next_served;
        any = false;
        for (uint32_t i = 0; i < core->n_tenants; i++) {
            uint32_t at = (from + i) % core->n_tenants;
            struct tenant *t = core->tenants[at];
            uint64_t charged_bytes = t->budget.charged_bytes;
            if (t->tickets.n_waiting == 0)
                continue;
            bool is_done = wake_first(t);
            any |= is_done;
            n += is_done;
            if (is_done || t->budget.charged_bytes > charged_bytes)
                core->next_served = at + 1;
        }
    }
    for (uint32_t i = 0; any && i < core->n_tenants; i++)
        core->tenants[i]->tickets.is_hungry |= core->tenants[i]->tickets.n_waiting > 0;
}

/* ---- who did not queue ---- */

bool ticket_holds_off(const struct tenant *t, uint32_t n_units)
{
    const struct ticket *first = TAILQ_FIRST(&t->tickets.line);
    return first && t->tickets.n_overtaken + n_units > MAX(first->n_units, OVERTAKE_MIN);
}

bool ticket_is_coming(const struct tenant *t)
{
    return t->tickets.n_waiting > 0 && t->tickets.is_coming;
}

void ticket_overtaken(struct tenant *t, uint32_t n_units)
{
    if (t->tickets.n_waiting > 0)
        t->tickets.n_overtaken += n_units;
}

/* ---- what can never be had ---- */

/* Would the ticket fit into a segment that is there, were it empty? */
static bool fits_some_seg(const struct tenant *t, uint32_t n, unsigned align_order)
{
    for (uint32_t slot = 0; slot < t->n_slots; slot++) {
        const struct seg *seg = t->segs[slot];
        uint64_t first = seg ? round_up_u64(seg->shape.n_meta, 1ull << align_order) : 0;
        if (seg && first + n <= seg->shape.n_units && (seg->buddy || align_order == 0))
            return true;
    }
    return false;
}

static void never(char *ret, size_t size, const struct tenant *t, uint32_t n_units,
                  uint64_t ceiling_bytes)
{
    uint64_t ask_kib = (uint64_t)n_units * UNIT_BYTES / 1024;
    if (n_units >= HEAP_UNITS)
        (void)snprintf(ret, size, "%" PRIu64 " KiB in one piece can never be had: a heap has %llu",
                       ask_kib, HEAP_BYTES / 1024);
    else if (ceiling_bytes == t->budget.limits.max_bytes)
        (void)snprintf(ret, size,
                       "%" PRIu64 " KiB in one piece can never be had: tenant \"%s\" has a max of "
                       "%" PRIu64 " KiB, tables included",
                       ask_kib, t->name, ceiling_bytes / 1024);
    else
        (void)snprintf(ret, size,
                       "%" PRIu64 " KiB in one piece can never be had: its groups, the capacity of "
                       "%" PRIu64 " KiB and what others were promised leave tenant \"%s\" %" PRIu64
                       " KiB, tables included",
                       ask_kib, t->core->ledger.capacity_bytes / 1024, t->name,
                       ceiling_bytes / 1024);
}

/* True: and ret says why. */
static bool can_never_fit(const struct ticket *tk, char ret[MSG_TEXT_BYTES])
{
    struct tenant *t = tk->client->tenant;
    uint64_t ceiling_bytes = budget_ceiling(&t->budget);
    uint32_t n;
    unsigned align_order;
    if (!grant_needs(tk->n_units, tk->align_order, tk->exact, &n, &align_order)) {
        never(ret, MSG_TEXT_BYTES, t, HEAP_UNITS, 0);
        return true;
    }
    uint64_t need_units = segments_units_for(n, align_order);
    if (fits_some_seg(t, n, align_order) ||
        (need_units <= HEAP_UNITS && need_units * UNIT_BYTES <= ceiling_bytes))
        return false;
    never(ret, MSG_TEXT_BYTES, t, need_units <= HEAP_UNITS ? tk->n_units : HEAP_UNITS,
          ceiling_bytes);
    return true;
}

/* ---- requests ---- */

static struct ticket *new_ticket(struct client *c, const struct msg_request *req)
{
    struct ticket *tk = calloc(1, sizeof(*tk));
    if (!tk || user_add(&c->tenant->core->users, c->uid, USER_TICKETS) < 0) {
        free(tk);
        return NULL;
    }
    tk->client = c;
    tk->number = req->wait.ticket;
    tk->n_units = req->wait.n_units;
    tk->align_order = req->wait.align_order;
    tk->exact = req->wait.exact;
    tk->class_plus_1 = req->wait.class_plus_1;
    tk->since_ns = c->tenant->core->now_ns;
    LIST_INSERT_HEAD(&c->tickets, tk, of_client);
    TAILQ_INSERT_TAIL(&c->tenant->tickets.by_age, tk, by_age);
    c->n_tickets++;
    return tk;
}

static void note_ask(struct ticket *tk, const struct msg_request *req)
{
    struct tickets *q = queue_of(tk);
    uint64_t now_ns = tk->client->tenant->core->now_ns, left_ms = req->wait.left_ms;
    tk->asked_ns = now_ns;
    tk->deadline_ns =
        left_ms == 0 || left_ms > UINT32_MAX ? UINT64_MAX - GRACE_NS : now_ns + left_ms * 1000000;
    TAILQ_REMOVE(&q->by_age, tk, by_age);
    TAILQ_INSERT_TAIL(&q->by_age, tk, by_age);
}

/* The ticket is told what it came to, and gone. */
static void hand_out(struct core *core, struct session *s, struct ticket *tk)
{
    struct client *c = tk->client;
    struct msg_request req = grow_request(tk);
    struct grant g;
    acre_assert(locate(tk, &g));
    forget(tk);
    c->shielded_ns = core->now_ns + TOLD_NS;
    memory_give(core, s, &req, &g);
}

static void answer(struct core *core, struct session *s, struct ticket *tk)
{
    char text[MSG_TEXT_BYTES];
    if (tk->state == TICKET_SERVED) {
        hand_out(core, s, tk);
    } else if (tk->state == TICKET_FAILED) {
        session_fail(core, s, tk->error, "%u units of alignment order %u cannot be granted: %s",
                     tk->n_units, tk->align_order, strerror(-tk->error));
        forget(tk);
    } else if (can_never_fit(tk, text)) {
        session_fail(core, s, -E2BIG, "%s", text);
        forget(tk);
    } else {
        session_ok(core, s);
    }
}

/* Queues, under a number that nobody has. NULL: replied. */
static struct ticket *queue_up(struct core *core, struct session *s, const struct msg_request *req,
                               bool first)
{
    struct client *c = s->client;
    struct ticket *tk;
    if (req->wait.n_units == 0 || req->wait.align_order > 63 ||
        req->wait.class_plus_1 > N_CLASSES) {
        session_fail(core, s, -EINVAL, "%u units of alignment order %u make no sense",
                     req->wait.n_units, req->wait.align_order);
        return NULL;
    }
    uint32_t n_of_user = user_count(&core->users, c->uid, USER_TICKETS);
    if (!access_is_admin(&s->creds) && n_of_user >= core->n_user_tickets_max) {
        session_fail(core, s, -EAGAIN,
                     "user %u has %u requests that wait for memory, which is all that a user can "
                     "have",
                     (unsigned)c->uid, n_of_user);
        return NULL;
    }
    tk = c->n_tickets < TICKETS_MAX ? new_ticket(c, req) : NULL;
    if (tk)
        enter_line(tk, first);
    else
        session_fail(core, s, -EAGAIN,
                     "client %u has %u requests that wait for memory, and can have %u", c->id,
                     c->n_tickets, TICKETS_MAX);
    return tk;
}

void ticket_wait(struct core *core, struct session *s, const struct msg_request *req)
{
    struct client *c = s->client;
    struct tenant *t = c->tenant;
    struct ticket *tk = find(c, req->wait.ticket);
    struct grant g;
    bool again = req->wait.again && s->is_resumed;
    if (again)
        search_take_unknown(t, c);
    s->is_resumed = false;
    if (!tk)
        tk = queue_up(core, s, req, again);
    if (!tk)
        return;
    note_ask(tk, req);
    if (tk->state == TICKET_SERVED && !(locate(tk, &g) && is_whole(tk, &g))) {
        take_back(tk);
        enter_line(tk, true);
    }
    if (TAILQ_FIRST(&t->tickets.line) == tk)
        (void)try_ticket(tk);
    answer(core, s, tk);
    memory_wake(t);
}

/* With a grant that comes back. */
static void give_up(struct ticket *tk)
{
    struct tenant *t = tk->client->tenant;
    if (tk->state == TICKET_SERVED)
        take_back(tk);
    forget(tk);
    memory_wake(t);
}

void ticket_cancel(struct core *core, struct session *s, const struct msg_request *req)
{
    struct ticket *tk = find(s->client, req->cancel.ticket);
    if (tk)
        give_up(tk);
    session_ok(core, s);
}

static uint64_t left_ms(const struct ticket *tk, uint64_t now_ns)
{
    if (tk->deadline_ns >= UINT64_MAX - GRACE_NS)
        return 0;
    return tk->deadline_ns > now_ns ? MAX((tk->deadline_ns - now_ns) / 1000000, 1u) : 1;
}

void ticket_tell(struct core *core, struct session *s, const struct tenant *t,
                 const struct msg_request *req)
{
    struct msg_reply reply;
    const struct ticket *tk;
    uint32_t i = 0, n = 0;
    reply_of(&reply, MSG_WAITERS);
    memory_name_wall(t, reply.waiters.wall, sizeof(reply.waiters.wall));
    TAILQ_FOREACH (tk, &t->tickets.line, in_line) {
        struct msg_waiter *to = &reply.waiters.all[n];
        if (i++ < req->waiters.skip)
            continue;
        if (n++ == MSG_WAITERS_MAX)
            break;
        *to = (struct msg_waiter){.id = tk->client->id,
                                  .pid = (uint32_t)tk->client->pid,
                                  .n_units = tk->n_units,
                                  .align_order = tk->align_order,
                                  .waited_ms = (core->now_ns - tk->since_ns) / 1000000,
                                  .left_ms = left_ms(tk, core->now_ns)};
        memcpy(to->name, t->control->client[tk->client->id].name, sizeof(to->name));
    }
    reply.waiters.n = MIN(n, MSG_WAITERS_MAX);
    reply.waiters.n_all = t->tickets.n_waiting;
    reply.waiters.left_bytes = MIN(budget_left(&t->budget), budget_capacity_left(&t->budget));
    session_reply(core, s, &reply, -1);
}

/* ---- ends ---- */

void ticket_forget_client(struct client *c)
{
    struct ticket *tk;
    while ((tk = LIST_FIRST(&c->tickets)))
        forget(tk);
}

uint64_t ticket_deadline(const struct tenant *t)
{
    return t->tickets.is_hungry ? t->core->now_ns : t->tickets.look_at_ns;
}

static void forget_stale(struct tenant *t)
{
    struct ticket *tk;
    while ((tk = TAILQ_FIRST(&t->tickets.by_age)) && tk->asked_ns + STALE_NS <= t->core->now_ns)
        give_up(tk);
}

void ticket_tick(struct tenant *t)
{
    struct tickets *q = &t->tickets;
    uint64_t now_ns = t->core->now_ns;
    if (now_ns < ticket_deadline(t))
        return;
    if (now_ns >= q->look_at_ns) {
        q->look_at_ns = now_ns + q->look_wait_ns;
        q->look_wait_ns = MIN(2 * q->look_wait_ns, LOOK_NS_MAX);
        forget_stale(t);
        if (!TAILQ_EMPTY(&q->line))
            TAILQ_FIRST(&q->line)->rounds = (struct rounds){0};
    }
    memory_wake(t); /* who waits for what was under way for a ticket, too */
}

void ticket_assert_valid(const struct tenant *t)
{
    const struct ticket *tk;
    uint32_t n_line = 0, n = 0, n_of_clients = 0;
    TAILQ_FOREACH (tk, &t->tickets.line, in_line) {
        acre_assert(tk->state == TICKET_WAITS && tk->client->tenant == t);
        acre_assert(tk->client->state == CLIENT_LIVES);
        n_line++;
    }
    TAILQ_FOREACH (tk, &t->tickets.by_age, by_age)
        n++;
    for (uint32_t id = 1; t->is_open && id < t->clients.next_fresh; id++)
        n_of_clients += t->clients.by_id[id] ? t->clients.by_id[id]->n_tickets : 0;
    acre_assert(n_line == t->tickets.n_waiting && n == n_of_clients && n_line <= n);
    acre_assert((t->tickets.look_at_ns == UINT64_MAX) == (n == 0));
}
