/* SPDX-License-Identifier: Apache-2.0 */
/* Who waits for memory, in a core without a loop: order, turns, deadlines, deaths. */
/* ctest-labels: valgrind */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "daemon/dispatch.h"
#include "daemon/tenant.h"
#include "daemon/ticket.h"
#include "shm/sizeclass.h"
#include "tests/unit/drive.h"
#include "tests/unit/fake_core.h"

#define MS        1000000ull
#define BIG_BYTES GIB(8)

/* ---- the world ---- */

static void add_tenant(const char *name, uint64_t min_bytes, uint64_t max_bytes)
{
    struct access_list none = {0};
    struct tenant_wish wish = {.limits.min_bytes = min_bytes, .limits.max_bytes = max_bytes};
    assert_int_equal(core_add_tenant(&w.core, name, &wish, &none), 0);
}

static struct tenant *tenant(const char *name)
{
    return core_find_tenant(&w.core, name);
}

static void start(uint64_t max_bytes, uint64_t capacity_bytes)
{
    start_core(capacity_bytes);
    if (max_bytes > 0)
        add_tenant("t", 0, max_bytes);
}

/* ---- peers ---- */

static void attach(struct fake *f)
{
    attach_to(f, "t");
}

static void come_again(struct fake *f, const char *name)
{
    struct msg_request req = {.op = MSG_ATTACH};
    struct fake old = *f;
    dispatch_hangup(&w.core, &f->session, w.now_ns);
    fake_connect(&w.core, f, 0, w.now_ns);
    f->page = old.page;
    f->life_fd = old.life_fd;
    f->client = old.client;
    f->id = old.id;
    strcpy(req.attach.tenant, name);
    req.attach.resume_client = f->client;
    memset(req.attach.secret, 0x5a, sizeof(req.attach.secret));
    assert_int_equal(ask(f, req), 0);
    close_fd(&f->fd);
}

/* ---- memory ---- */

static struct block block_of(struct fake *f)
{
    struct block b = {.n_units = f->reply.grow.run.n_units};
    b.seg = tenant_locate(f->session.client->tenant, f->reply.grow.run.off, false, &b.unit);
    assert_non_null(b.seg);
    return b;
}

static int grow_exact(struct fake *f, uint32_t n, struct block *ret)
{
    struct msg_request req = {.op = MSG_GROW, .grow = {.n_units = n, .exact = true}};
    int r = ask(f, req);
    if (r == 0) {
        *ret = block_of(f);
        fake_cut_large(f, *ret, f->id); /* or it would be taken back */
    }
    return r;
}

static struct block take(struct fake *f, uint32_t n)
{
    struct block b;
    assert_int_equal(grow_exact(f, n, &b), 0);
    return b;
}

/* In the pieces in which it can be had. */
static unsigned take_all(struct fake *f, struct block *ret, unsigned n_max)
{
    unsigned k = 0;
    for (uint32_t n = 4096; n > 0; n /= 2)
        while (k < n_max && grow_exact(f, n, &ret[k]) == 0)
            k++;
    return k;
}

static void release(struct fake *f, struct block b)
{
    struct msg_request req = {.op = MSG_RELEASE, .release = {.n_runs = 1}};
    req.release.runs[0] = (struct msg_run){seg_off(b.seg, b.unit), b.n_units};
    assert_int_equal(ask(f, req), 0);
}

/* 1: granted; 0: it waits. */
static int wait_for(struct fake *f, uint64_t ticket, uint32_t n, uint64_t left_ms)
{
    struct msg_request req = {.op = MSG_WAIT, .wait = {.n_units = n, .exact = true}};
    req.wait.ticket = ticket;
    req.wait.left_ms = left_ms;
    int r = ask(f, req);
    return r == 0 && f->reply.op == MSG_GROW ? 1 : r;
}

static int cancel(struct fake *f, uint64_t ticket)
{
    struct msg_request req = {.op = MSG_CANCEL, .cancel = {.ticket = ticket}};
    return ask(f, req);
}

static uint32_t rung(const struct fake *f)
{
    return f->session.client->tenant->control->client[f->id].ticket_seq;
}

static uint64_t held(const struct fake *f)
{
    return f->session.client->n_units;
}

/* ---- order ---- */

static void test_who_waits_is_rung_and_gets_what_comes_back(void **state)
{
    (void)state;
    struct fake a, b;
    start(MIB(4), BIG_BYTES);
    attach(&a);
    attach(&b);
    struct block x = take(&a, 400);
    assert_int_equal(wait_for(&b, 1, 300, 0), 0);
    assert_int_equal(rung(&b), 0);
    pass(SECOND);
    assert_int_equal(rung(&b), 0);
    release(&a, x);
    assert_int_equal(rung(&b), 1);
    assert_int_equal(held(&b), 300); /* its own before it knows */
    assert_int_equal(wait_for(&b, 1, 300, 0), 1);
    assert_int_equal(block_of(&b).n_units, 300);
    assert_int_equal(held(&b), 300);
    assert_int_equal(tenant("t")->tickets.n_waiting, 0);
    core_assert_valid(&w.core);
    kill_it(&a);
    kill_it(&b);
    finish();
}

static void test_what_is_there_is_granted_at_once(void **state)
{
    (void)state;
    struct fake a;
    start(MIB(4), BIG_BYTES);
    attach(&a);
    assert_int_equal(wait_for(&a, 1, 2, 0), 0); /* the first segment has to be kept first */
    assert_int_equal(rung(&a), 1);
    assert_int_equal(wait_for(&a, 1, 2, 0), 1);
    assert_int_equal(wait_for(&a, 2, 2, 0), 1);
    assert_int_equal(rung(&a), 1);
    assert_int_equal(held(&a), 4);
    kill_it(&a);
    finish();
}

static void test_a_thousand_who_wait_are_served_in_their_order(void **state)
{
    (void)state;
    enum { N = 1000 };
    static struct fake f[N];
    static struct block x[N];
    struct fake a;
    start(MIB(16), BIG_BYTES);
    attach(&a);
    unsigned n = 0;
    while (n < N && grow_exact(&a, 2, &x[n]) == 0)
        n++;
    static struct block rest[100];
    unsigned n_rest = take_all(&a, rest, 100);
    assert_int_equal(n, N);
    for (unsigned i = 0; i < N; i++) {
        attach(&f[i]);
        assert_int_equal(wait_for(&f[i], 7, 2, 0), 0);
    }
    for (unsigned i = 0; i < N; i++) {
        release(&a, x[i]);
        if (i % 100 == 0) /* a later one is not served by asking */
            assert_int_equal(wait_for(&f[MIN(i + 1, N - 1)], 7, 2, 0), 0);
        assert_int_equal(rung(&f[i]), 1);
        assert_int_equal(wait_for(&f[i], 7, 2, 0), 1);
        struct block b = block_of(&f[i]);
        fake_cut_large(&f[i], b, f[i].id);
        assert_int_equal(tenant("t")->tickets.n_waiting, N - 1 - i);
    }
    core_assert_valid(&w.core);
    (void)n_rest;
    for (unsigned i = 0; i < N; i++)
        kill_it(&f[i]);
    kill_it(&a);
    finish();
}

static void test_a_large_one_is_not_starved_by_small_ones_behind_it(void **state)
{
    (void)state;
    struct fake a, b, c;
    start(MIB(4), BIG_BYTES);
    attach(&a);
    attach(&b);
    attach(&c);
    struct block x = take(&a, 100), y = take(&a, 100), z = take(&a, 200);
    struct block rest[100];
    (void)take_all(&a, rest, 100);
    assert_int_equal(wait_for(&b, 1, 350, 0), 0);
    assert_int_equal(wait_for(&c, 1, 1, 0), 0);
    release(&a, x);
    release(&a, y);
    assert_int_equal(wait_for(&c, 1, 1, 0), 0); /* it could be served, and is not yet */
    assert_int_equal(rung(&c), 0);
    release(&a, z);
    assert_int_equal(rung(&b), 1);
    assert_int_equal(rung(&c), 1);
    assert_int_equal(wait_for(&b, 1, 350, 0), 1);
    assert_int_equal(wait_for(&c, 1, 1, 0), 1);
    kill_it(&a);
    kill_it(&b);
    kill_it(&c);
    finish();
}

static void test_who_does_not_queue_overtakes_so_far_and_no_further(void **state)
{
    (void)state;
    struct fake a, b, c;
    struct block got, x[4];
    start(MIB(4), BIG_BYTES);
    attach(&a);
    attach(&b);
    attach(&c);
    for (unsigned i = 0; i < 4; i++)
        x[i] = take(&a, 100);
    struct block rest[100];
    (void)take_all(&a, rest, 100);
    assert_int_equal(wait_for(&b, 1, 150, 0), 0);
    release(&a, x[0]);
    assert_int_equal(grow_exact(&c, 90, &got), 0); /* what the first cannot use */
    release(&c, got);
    assert_int_equal(grow_exact(&c, 90, &got), -ENOMEM); /* 150 in all */
    assert_non_null(strstr(c.reply.text, "wait"));
    assert_int_equal(grow_exact(&c, 60, &got), 0);
    release(&c, got);
    assert_int_equal(grow_exact(&c, 1, &got), -ENOMEM);
    release(&a, x[1]);
    assert_int_equal(wait_for(&b, 1, 150, 0), 1);
    assert_int_equal(grow_exact(&c, 20, &got), 0); /* nobody waits */
    kill_it(&a);
    kill_it(&b);
    kill_it(&c);
    finish();
}

static void test_a_segment_for_who_does_not_queue_counts_as_a_whole(void **state)
{
    (void)state;
    struct fake a, b, c;
    struct block got;
    start(MIB(16), BIG_BYTES);
    attach(&a);
    attach(&b);
    attach(&c);
    (void)take(&a, 1000);
    assert_int_equal(wait_for(&b, 1, 1200, 0), 0);
    uint64_t charged_bytes = tenant("t")->budget.charged_bytes;
    assert_int_equal(grow_exact(&c, 20, &got), 0);
    uint64_t n_made = (tenant("t")->budget.charged_bytes - charged_bytes) / UNIT_BYTES;
    assert_int_equal(tenant("t")->tickets.n_overtaken, n_made + 20);
    assert_int_equal(grow_exact(&c, (uint32_t)(1200 - n_made - 19), &got), -ENOMEM);
    assert_int_equal(cancel(&b, 1), 0);
    assert_int_equal(grow_exact(&c, (uint32_t)(1200 - n_made - 19), &got), 0);
    kill_it(&a);
    kill_it(&b);
    kill_it(&c);
    finish();
}

/* Sent; no job runs. */
static void send_request(struct fake *f, struct msg_request req)
{
    req.serial = f->session.serial + 1;
    dispatch_request(&w.core, &f->session, &req, 0, -1, w.now_ns);
}

static void test_what_is_under_way_for_the_first_is_not_taken_by_others(void **state)
{
    (void)state;
    struct fake x, b, c;
    struct access_list none = {0};
    struct tenant_wish wish = {.limits.max_bytes = MIB(16), .ready_bytes = MIB(3)};
    start(0, MIB(16));
    add_tenant("x", 0, MIB(16));
    assert_int_equal(core_add_tenant(&w.core, "t", &wish, &none), 0);
    attach_to(&x, "x");
    (void)take(&x, 1000);
    attach(&b);
    attach(&c);
    run_jobs();
    assert_in_range(tenant("t")->budget.charged_bytes, MIB(4), MIB(5)); /* is ready */
    struct msg_request wait = {.op = MSG_WAIT, .wait = {.ticket = 1, .n_units = 800}};
    struct msg_request grow = {.op = MSG_GROW, .grow = {.n_units = 100, .exact = true}};
    wait.wait.exact = true;
    unsigned before = c.n_replies;
    send_request(&b, wait); /* takes all that is left, and what yields */
    assert_true(w.n_jobs > 0);
    send_request(&c, grow); /* would do with what is left */
    assert_int_equal(c.n_replies, before);
    run_jobs();
    assert_int_equal(rung(&b), 1);
    assert_int_equal(held(&b), 800);
    assert_int_equal(c.n_replies, before + 1);
    assert_int_equal(c.reply.error, 0);
    assert_int_equal(wait_for(&b, 1, 800, 0), 1);
    kill_it(&x);
    kill_it(&b);
    kill_it(&c);
    finish();
}

static void test_tenants_take_turns_for_the_capacity(void **state)
{
    (void)state;
    enum { N = 4, K = 6 };
    struct fake hog, f[N];
    const char *names[N] = {"a", "b", "c", "d"};
    unsigned n_served[N] = {0};
    start(0, MIB(64));
    add_tenant("hog", 0, MIB(64));
    for (unsigned i = 0; i < N; i++)
        add_tenant(names[i], 0, MIB(64));
    attach_to(&hog, "hog");
    struct block all;
    assert_int_equal(grow_exact(&hog, 8000, &all), 0);
    for (unsigned i = 0; i < N; i++) {
        attach_to(&f[i], names[i]);
        for (unsigned k = 1; k <= K; k++)
            assert_int_equal(wait_for(&f[i], k, 1000, 0), 0);
    }
    /* The capacity grows by what one of them needs at a time. */
    for (unsigned round = 1; round <= N * K; round++) {
        ledger_set_capacity(&w.core.ledger, w.core.ledger.capacity_bytes + MIB(9));
        core_changed(&w.core);
        run_jobs();
        unsigned least = K, most = 0;
        for (unsigned i = 0; i < N; i++) {
            n_served[i] = K - tenant(names[i])->tickets.n_waiting;
            least = MIN(least, n_served[i]);
            most = MAX(most, n_served[i]);
        }
        assert_true(most - least <= 1);
    }
    for (unsigned i = 0; i < N; i++)
        assert_int_equal(n_served[i], K);
    core_assert_valid(&w.core);
    kill_it(&hog);
    for (unsigned i = 0; i < N; i++)
        kill_it(&f[i]);
    finish();
}

/* ---- never ---- */

static void never(struct fake *f, uint32_t n, const char *why)
{
    assert_int_equal(wait_for(f, 9, n, 0), -E2BIG);
    if (!strstr(f->reply.text, why))
        fail_msg("\"%s\" does not say \"%s\"", f->reply.text, why);
    assert_int_equal(f->session.client->n_tickets, 0);
}

static void test_what_can_never_be_had_is_refused_at_once_with_the_wall(void **state)
{
    (void)state;
    struct fake a, b, c;
    start(MIB(8), MIB(64));
    add_tenant("rich", MIB(40), MIB(64));
    add_tenant("poor", 0, MIB(64));
    add_tenant("team", 0, MIB(16));
    add_tenant("team/one", 0, MIB(64));
    add_tenant("team/two", MIB(4), MIB(64));
    attach(&a);
    attach_to(&b, "poor");
    attach_to(&c, "team/one");
    never(&a, 1100, "max of 8192 KiB");
    never(&b, 3000, "promised");   /* 24 MiB less tables, less 4 of team/two */
    never(&c, 1700, "its groups"); /* 12 MiB */
    never(&a, HEAP_UNITS, "a heap");
    assert_int_equal(wait_for(&a, 1, 1000, 0), 0);
    assert_int_equal(wait_for(&b, 1, 2400, 0), 0);
    assert_int_equal(wait_for(&c, 1, 1500, 0), 0);
    assert_int_equal(wait_for(&a, 2, 0, 0), -EINVAL);
    kill_it(&a);
    kill_it(&b);
    kill_it(&c);
    finish();
}

static void test_a_raised_max_serves_and_a_lowered_one_refuses(void **state)
{
    (void)state;
    struct fake a, b;
    struct block rest[100];
    struct tenant_wish more = {.limits.max_bytes = MIB(16)}, less = {.limits.max_bytes = MIB(4)};
    start(MIB(8), BIG_BYTES);
    attach(&a);
    attach(&b);
    (void)take_all(&a, rest, 100);
    assert_int_equal(wait_for(&b, 1, 700, 0), 0);
    tenant_set(tenant("t"), &less);
    assert_int_equal(wait_for(&b, 1, 700, 0), -E2BIG);
    tenant_set(tenant("t"), &more);
    assert_int_equal(wait_for(&b, 2, 1900, 0), 0); /* in the new max, and not beside the old ones */
    assert_int_equal(cancel(&b, 2), 0);
    tenant_set(tenant("t"), &less);
    assert_int_equal(wait_for(&b, 3, 400, 0), 0);
    tenant_set(tenant("t"), &more);
    core_changed(&w.core);
    run_jobs();
    assert_true(rung(&b) > 0);
    assert_int_equal(wait_for(&b, 3, 400, 0), 1);
    kill_it(&a);
    kill_it(&b);
    finish();
}

/* ---- ends ---- */

static void test_a_cancelled_ticket_leaves_the_line_and_gives_its_grant_back(void **state)
{
    (void)state;
    struct fake a, b, c;
    start(MIB(4), BIG_BYTES);
    attach(&a);
    attach(&b);
    attach(&c);
    struct block x = take(&a, 400);
    assert_int_equal(wait_for(&b, 1, 300, 0), 0);
    assert_int_equal(wait_for(&c, 1, 300, 0), 0);
    assert_int_equal(cancel(&b, 5), 0); /* there is no such */
    release(&a, x);
    assert_int_equal(held(&b), 300);
    assert_int_equal(rung(&c), 0);
    assert_int_equal(cancel(&b, 1), 0);
    assert_int_equal(held(&b), 0);
    assert_int_equal(rung(&c), 1);
    assert_int_equal(wait_for(&c, 1, 300, 0), 1);
    assert_int_equal(cancel(&b, 1), 0);
    kill_it(&a);
    kill_it(&b);
    kill_it(&c);
    finish();
}

/* b is the first in line, c comes behind it. */
static void goes_without_a_word(uint64_t left_ms, uint64_t step_ns, unsigned n_steps,
                                bool is_served)
{
    struct fake a, b, c;
    start(MIB(4), BIG_BYTES);
    attach(&a);
    attach(&b);
    attach(&c);
    struct block x = take(&a, 400);
    assert_int_equal(wait_for(&b, 1, 300, left_ms), 0);
    assert_int_equal(wait_for(&c, 1, 300, 0), 0);
    if (is_served)
        release(&a, x);
    int r = 0;
    for (unsigned i = 0; i < n_steps && r == 0; i++) { /* the other goes on asking, as it should */
        r = wait_for(&c, 1, 300, 0);
        pass(step_ns);
    }
    assert_int_equal(r, is_served); /* without another release */
    if (!is_served)
        release(&a, x);
    assert_int_equal(held(&b), 0);
    assert_int_equal(is_served || wait_for(&c, 1, 300, 0) == 1, 1);
    assert_int_equal(held(&c), 300);
    kill_it(&a);
    kill_it(&b);
    kill_it(&c);
    finish();
}

static void test_who_asks_no_more_loses_its_place_and_what_it_was_granted(void **state)
{
    (void)state;
    goes_without_a_word(0, SECOND, 7, false);
    goes_without_a_word(0, SECOND, 7, true);
}

static void test_a_deadline_ends_the_wait_a_second_later(void **state)
{
    (void)state;
    goes_without_a_word(500, SECOND / 2, 4, false);
}

static void test_a_killed_client_waits_no_more_and_what_it_was_granted_comes_back(void **state)
{
    (void)state;
    for (int is_served = 0; is_served < 2; is_served++) {
        struct fake a, b, c;
        start(MIB(4), BIG_BYTES);
        attach(&a);
        attach(&b);
        attach(&c);
        struct block x = take(&a, 400);
        assert_int_equal(wait_for(&b, 1, 300, 0), 0);
        assert_int_equal(wait_for(&b, 2, 300, 0), 0);
        assert_int_equal(wait_for(&c, 1, 300, 0), 0);
        if (is_served)
            release(&a, x);
        kill_it(&b);
        assert_int_equal(tenant("t")->tickets.n_waiting, is_served ? 0 : 1);
        if (!is_served)
            release(&a, x);
        assert_int_equal(rung(&c), 1);
        assert_int_equal(wait_for(&c, 1, 300, 0), 1);
        core_assert_valid(&w.core);
        kill_it(&a);
        kill_it(&c);
        finish();
    }
}

static void test_a_client_that_comes_again_keeps_its_place(void **state)
{
    (void)state;
    struct fake a, b, c;
    start(MIB(4), BIG_BYTES);
    attach(&a);
    attach(&b);
    attach(&c);
    struct block x = take(&a, 400);
    assert_int_equal(wait_for(&b, 1, 300, 0), 0);
    assert_int_equal(wait_for(&c, 1, 300, 0), 0);
    come_again(&b, "t");
    release(&a, x);
    assert_int_equal(rung(&b), 1);
    assert_int_equal(rung(&c), 0);
    come_again(&b, "t");
    assert_int_equal(wait_for(&b, 1, 300, 0), 1);
    /* The answer is lost: asked again, nothing is granted twice. */
    struct msg_request req = {.op = MSG_WAIT, .wait = {.n_units = 300, .exact = true}};
    req.wait.ticket = 1;
    req.wait.again = true;
    come_again(&b, "t");
    assert_int_equal(ask(&b, req), 0);
    assert_int_equal(b.reply.op, MSG_GROW);
    assert_int_equal(held(&b), 300);
    core_assert_valid(&w.core);
    kill_it(&a);
    kill_it(&b);
    kill_it(&c);
    finish();
}

static void test_an_unknown_number_queues_anew_as_after_another_daemon(void **state)
{
    (void)state;
    struct fake a, b;
    start(MIB(4), BIG_BYTES);
    attach(&a);
    attach(&b);
    struct block x = take(&a, 400);
    assert_int_equal(wait_for(&b, 123456789, 300, 77), 0);
    ticket_forget_client(b.session.client); /* all that another daemon would not know */
    core_assert_valid(&w.core);
    assert_int_equal(wait_for(&b, 123456789, 300, 77), 0);
    release(&a, x);
    assert_int_equal(wait_for(&b, 123456789, 300, 77), 1);
    kill_it(&a);
    kill_it(&b);
    finish();
}

static void test_a_client_has_64_tickets_and_no_more(void **state)
{
    (void)state;
    struct fake a, b;
    start(MIB(4), BIG_BYTES);
    attach(&a);
    attach(&b);
    struct block x = take(&a, 400);
    for (uint64_t i = 1; i <= TICKETS_MAX; i++)
        assert_int_equal(wait_for(&b, i, 300, 0), 0);
    assert_int_equal(wait_for(&b, 100, 300, 0), -EAGAIN);
    assert_true(b.reply.text[0] != 0);
    assert_int_equal(wait_for(&a, 1, 300, 0), 0);
    assert_int_equal(cancel(&b, 3), 0);
    assert_int_equal(wait_for(&b, 100, 300, 0), 0);
    release(&a, x);
    kill_it(&b);
    kill_it(&a);
    finish();
}

static void test_a_users_clients_have_so_many_tickets_and_no_more(void **state)
{
    (void)state;
    struct fake a, f[3];
    start(MIB(4), BIG_BYTES);
    attach(&a);
    tenant("t")->access.of[ACCESS_ATTACH].everyone = true;
    w.core.n_user_tickets_max = 3;
    struct block x = take(&a, 400);
    for (unsigned i = 0; i < 3; i++) {
        connect_as(&f[i], i < 2 ? 1000 : 1001);
        fake_make_page(&f[i]);
        assert_int_equal(attach_page_to(&f[i], "t"), 0);
    }
    assert_int_equal(wait_for(&f[0], 1, 300, 0), 0);
    assert_int_equal(wait_for(&f[1], 1, 300, 0), 0);
    assert_int_equal(wait_for(&f[1], 2, 300, 0), 0);
    assert_int_equal(wait_for(&f[0], 2, 300, 0), -EAGAIN);
    assert_non_null(strstr(f[0].reply.text, "user 1000"));
    assert_int_equal(wait_for(&f[1], 2, 300, 0), 0); /* that one is there already */
    assert_int_equal(wait_for(&f[2], 1, 300, 0), 0); /* another user's */
    kill_it(&f[1]);
    assert_int_equal(user_count(&w.core.users, 1000, USER_TICKETS), 1);
    assert_int_equal(wait_for(&f[0], 2, 300, 0), 0);
    release(&a, x);
    kill_it(&f[0]);
    kill_it(&f[2]);
    kill_it(&a);
    assert_int_equal(w.core.users.n[USER_TICKETS], 0);
    finish();
}

/* ---- what nobody tells of ---- */

static void test_what_others_have_not_begun_on_is_found_by_looking(void **state)
{
    (void)state;
    struct fake a, b;
    start(MIB(4), BIG_BYTES);
    attach(&a);
    attach(&b);
    struct block x = take(&a, 400);
    assert_int_equal(wait_for(&b, 1, 300, 0), 0);
    pass(SECOND);
    /* As its holder frees it into its pool. */
    seg_store_plain(x.seg, x.unit, x.n_units, U_UNCUT, holder_token(a.id, 0));
    pass(SECOND);
    pass(SECOND);
    assert_int_equal(rung(&b), 1);
    assert_int_equal(wait_for(&b, 1, 300, 0), 1);
    kill_it(&a);
    kill_it(&b);
    finish();
}

static void test_tickets_do_not_rob_one_another(void **state)
{
    (void)state;
    struct fake a, b, c;
    start(MIB(4), BIG_BYTES);
    attach(&a);
    attach(&b);
    attach(&c);
    struct block x = take(&a, 400);
    assert_int_equal(wait_for(&b, 1, 300, 0), 0);
    assert_int_equal(wait_for(&c, 1, 300, 0), 0);
    release(&a, x);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(wait_for(&c, 1, 300, 0), 0);
        pass(100 * MS);
    }
    assert_int_equal(held(&b), 300);
    assert_int_equal(wait_for(&b, 1, 300, 0), 1);
    assert_int_equal(held(&b), 300);
    kill_it(&a);
    kill_it(&b);
    kill_it(&c);
    finish();
}

static void test_who_looks_is_told_who_waits_and_for_what(void **state)
{
    (void)state;
    enum { N = 70 };
    struct fake a, b[2], l;
    start(MIB(4), BIG_BYTES);
    attach(&a);
    attach(&b[0]);
    attach(&b[1]);
    (void)take(&a, 400);
    for (uint64_t i = 0; i < N; i++) {
        assert_int_equal(wait_for(&b[i % 2], 1 + i, (uint32_t)(300 + i), i == 0 ? 9000 : 0), 0);
        w.now_ns += MS;
    }
    fake_connect(&w.core, &l, 0, w.now_ns);
    struct msg_request req = {.op = MSG_WAITERS};
    assert_int_equal(ask(&l, req), -EINVAL);
    struct msg_request look = {.op = MSG_LOOK};
    strcpy(look.look.tenant, "t");
    assert_int_equal(ask(&l, look), 0);
    assert_int_equal(ask(&l, req), 0);
    assert_int_equal(l.reply.waiters.n_all, N);
    assert_int_equal(l.reply.waiters.n, MSG_WAITERS_MAX);
    assert_non_null(strstr(l.reply.waiters.wall, "max of 4096 KiB"));
    const struct msg_waiter *first = &l.reply.waiters.all[0];
    assert_int_equal(first->id, b[0].id);
    assert_int_equal(first->pid, getpid());
    assert_string_equal(first->name, "fake");
    assert_int_equal(first->n_units, 300);
    assert_in_range(first->waited_ms, N, N + 5);
    assert_in_range(first->left_ms, 9000 - N - 5, 9000 - N);
    req.waiters.skip = MSG_WAITERS_MAX;
    assert_int_equal(ask(&l, req), 0);
    assert_int_equal(l.reply.waiters.n, N - MSG_WAITERS_MAX);
    assert_int_equal(l.reply.waiters.all[0].n_units, 300 + MSG_WAITERS_MAX);
    assert_int_equal(l.reply.waiters.all[0].left_ms, 0);
    hang_up(&l);
    kill_it(&a);
    kill_it(&b[0]);
    kill_it(&b[1]);
    finish();
}

/* ---- anything ---- */

enum { PLAYERS = 8, HELD = 24 };

struct player {
    struct fake f;
    struct block held[HELD];
    unsigned n_held;
    bool waits;
    uint64_t ticket;
    uint32_t n_units;
};

static void player_takes(struct player *p)
{
    struct block b = block_of(&p->f);
    fake_cut_large(&p->f, b, p->f.id);
    p->held[p->n_held++] = b;
}

static void player_waits(struct player *p)
{
    if (!p->waits && p->n_held == HELD)
        return;
    if (!p->waits) {
        p->ticket++;
        p->n_units = 1 + (uint32_t)rand() % 300;
    }
    int r = wait_for(&p->f, p->ticket, p->n_units, rand() % 2 ? 0 : 300);
    p->waits = r == 0;
    if (r == 1)
        player_takes(p);
}

static void player_does_something(struct player *p)
{
    struct block b;
    unsigned what = (unsigned)rand() % 12;
    if (what < 4) {
        player_waits(p);
    } else if (what < 6 && p->n_held < HELD) {
        if (grow_exact(&p->f, 1 + (uint32_t)rand() % 100, &b) == 0)
            p->held[p->n_held++] = b;
    } else if (what < 9 && p->n_held > 0) {
        release(&p->f, p->held[--p->n_held]);
    } else if (what == 9 && p->waits) {
        assert_int_equal(cancel(&p->f, p->ticket), 0);
        p->waits = false;
    } else if (what == 10 && rand() % 4 == 0) {
        kill_it(&p->f);
        *p = (struct player){.ticket = p->ticket};
        attach(&p->f);
    } else {
        pass((uint64_t)rand() % (2 * SECOND));
    }
}

static void test_random_waits_keep_the_books_right(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 8; seed++) {
        static struct player p[PLAYERS];
        srand(seed);
        start(MIB(8), BIG_BYTES);
        memset(p, 0, sizeof(p));
        for (unsigned i = 0; i < PLAYERS; i++)
            attach(&p[i].f);
        for (unsigned step = 0; step < 1500; step++) {
            player_does_something(&p[rand() % PLAYERS]);
            if (step % 16 == 0)
                core_assert_valid(&w.core);
        }
        for (unsigned i = 0; i < PLAYERS; i++)
            kill_it(&p[i].f);
        assert_int_equal(tenant("t")->granted_units, 0);
        assert_int_equal(ticket_deadline(tenant("t")), UINT64_MAX);
        finish();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_who_waits_is_rung_and_gets_what_comes_back),
        cmocka_unit_test(test_what_is_there_is_granted_at_once),
        cmocka_unit_test(test_a_thousand_who_wait_are_served_in_their_order),
        cmocka_unit_test(test_a_large_one_is_not_starved_by_small_ones_behind_it),
        cmocka_unit_test(test_who_does_not_queue_overtakes_so_far_and_no_further),
        cmocka_unit_test(test_a_segment_for_who_does_not_queue_counts_as_a_whole),
        cmocka_unit_test(test_what_is_under_way_for_the_first_is_not_taken_by_others),
        cmocka_unit_test(test_tenants_take_turns_for_the_capacity),
        cmocka_unit_test(test_what_can_never_be_had_is_refused_at_once_with_the_wall),
        cmocka_unit_test(test_a_raised_max_serves_and_a_lowered_one_refuses),
        cmocka_unit_test(test_a_cancelled_ticket_leaves_the_line_and_gives_its_grant_back),
        cmocka_unit_test(test_who_asks_no_more_loses_its_place_and_what_it_was_granted),
        cmocka_unit_test(test_a_deadline_ends_the_wait_a_second_later),
        cmocka_unit_test(test_a_killed_client_waits_no_more_and_what_it_was_granted_comes_back),
        cmocka_unit_test(test_a_client_that_comes_again_keeps_its_place),
        cmocka_unit_test(test_an_unknown_number_queues_anew_as_after_another_daemon),
        cmocka_unit_test(test_a_users_clients_have_so_many_tickets_and_no_more),
        cmocka_unit_test(test_a_client_has_64_tickets_and_no_more),
        cmocka_unit_test(test_what_others_have_not_begun_on_is_found_by_looking),
        cmocka_unit_test(test_tickets_do_not_rob_one_another),
        cmocka_unit_test(test_who_looks_is_told_who_waits_and_for_what),
        cmocka_unit_test(test_random_waits_keep_the_books_right),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
