/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events, theory. What clients should know stands in the control page, which they read whenever they
 * come by. Who sleeps has a bell on its connection.
 *
 * MODEL. event_seq (control page) counts what is worth hearing. A client arms its bell with the
 * count that it has seen; once the count is another, one packet goes out, and the bell is disarmed.
 * The packet says nothing: who hears it reads the page, and arms again. So a thousand changes cost
 * one packet until the client has come by, and who never reads has one in its socket.
 *
 * ORDER. The page is written, then event_seq (release), then the packets go: who reads event_seq,
 * then the page, and arms with what it read, misses nothing.
 *
 * WATCHERS who are to be told stand before those who are not: who is armed with the count of now
 * joins at the end, who is armed with another one at the head, and a change makes all of them due. A
 * count that comes round (2^32 changes) to what somebody has seen is a change that he does not hear.
 *
 * COST. Ringing is a store. The packets go in turns, TOLD_PER_TURN each; a bell that rings again
 * before they have gone adds none.
 *
 * A KILL: bells are private memory. The next daemon's connections are others, and are armed anew.
 */
#include "daemon/event.h"

#include "daemon/session.h"
#include "daemon/tenant.h"

#define TOLD_PER_TURN 64u /* 3 us each */

static uint32_t seq_of(const struct tenant *t)
{
    return t->control->header.event_seq;
}

void event_ring(struct tenant *t)
{
    if (t->is_open)
        __atomic_store_n(&t->control->header.event_seq, seq_of(t) + 1, __ATOMIC_RELEASE);
}

/* ---- bells ---- */

/* Due is due: what it has seen may be what comes next. */
static void arm(struct client *c, uint32_t seen)
{
    uint32_t seq = seq_of(c->tenant);
    event_disarm(c);
    c->is_armed = true;
    c->watch_seen = seen == seq ? seq : seq - 1;
    if (seen == seq)
        TAILQ_INSERT_TAIL(&c->tenant->watchers, c, in_watchers);
    else
        TAILQ_INSERT_HEAD(&c->tenant->watchers, c, in_watchers);
}

void event_disarm(struct client *c)
{
    if (c->is_armed)
        TAILQ_REMOVE(&c->tenant->watchers, c, in_watchers);
    c->is_armed = false;
}

static void tell(struct client *c)
{
    struct msg_reply reply;
    event_disarm(c);
    if (!c->session || c->session->closing)
        return;
    reply_of(&reply, MSG_WATCH);
    reply.serial = reply.ack_nonce = 0;
    reply.event.seq = seq_of(c->tenant);
    c->tenant->core->io.reply(c->session->peer, &reply, -1);
}

void event_watch(struct core *core, struct session *s, const struct msg_request *req)
{
    arm(s->client, req->watch.seen);
    session_ok(core, s);
}

/* ---- in the loop ---- */

static struct client *first_due(const struct tenant *t)
{
    struct client *c = TAILQ_FIRST(&t->watchers);
    return c && c->watch_seen != seq_of(t) ? c : NULL;
}

uint64_t event_deadline(const struct tenant *t)
{
    return first_due(t) ? t->core->now_ns : UINT64_MAX;
}

void event_tick(struct tenant *t)
{
    struct client *c;
    for (uint32_t n = 0; n < TOLD_PER_TURN && (c = first_due(t)); n++)
        tell(c);
}

void event_assert_valid(const struct tenant *t)
{
    const struct client *c;
    uint32_t n = 0, n_armed = 0;
    bool was_due = true;
    TAILQ_FOREACH (c, &t->watchers, in_watchers) {
        bool is_due = c->watch_seen != seq_of(t);
        acre_assert(c->is_armed && c->tenant == t && c->session && (was_due || !is_due));
        was_due = is_due;
        n++;
    }
    for (uint32_t id = 1; t->is_open && id < t->clients.next_fresh; id++)
        n_armed += t->clients.by_id[id] && t->clients.by_id[id]->is_armed;
    acre_assert(n == n_armed);
}
