/* SPDX-License-Identifier: Apache-2.0 */
/* Bells: who hears that the control page says something new, how often, and when no more. */
/* ctest-labels: valgrind */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "daemon/dispatch.h"
#include "daemon/event.h"
#include "daemon/tenant.h"
#include "tests/unit/drive.h"
#include "tests/unit/fake_core.h"

#define N 200u

static void start(void)
{
    struct access_list none = {0};
    struct tenant_wish wish = {.limits.max_bytes = MIB(8)};
    start_core(MIB(64));
    assert_int_equal(core_add_tenant(&w.core, "t", &wish, &none), 0);
    assert_int_equal(core_add_tenant(&w.core, "u", &wish, &none), 0);
    w.tenant = core_find_tenant(&w.core, "t");
}

static uint32_t seq(void)
{
    return w.tenant->control->header.event_seq;
}

static int watch(struct fake *f, uint32_t seen)
{
    struct msg_request req = {.op = MSG_WATCH, .watch = {seen}};
    return ask(f, req);
}

/* All turns that are due. */
static void settle(void)
{
    while (core_deadline(&w.core) <= w.now_ns) {
        core_assert_valid(&w.core);
        pass(0);
    }
}

static void who_has_armed_its_bell_hears_once(void **state)
{
    (void)state;
    struct fake a, b;
    start();
    attach_to(&a, "t");
    attach_to(&b, "t");
    assert_int_equal(watch(&a, seq()), 0);
    settle();
    assert_int_equal(a.n_events, 0);
    for (unsigned i = 0; i < 3; i++)
        event_ring(w.tenant);
    assert_true(core_deadline(&w.core) <= w.now_ns);
    settle();
    event_ring(w.tenant);
    settle();
    assert_int_equal(a.n_events, 1);
    assert_int_equal(b.n_events, 0);
    assert_int_equal(watch(&a, seq()), 0);
    settle();
    assert_int_equal(a.n_events, 1);
    event_ring(w.tenant);
    settle();
    assert_int_equal(a.n_events, 2);
    kill_it(&a);
    kill_it(&b);
    finish();
}

static void what_has_changed_before_is_heard_at_once(void **state)
{
    (void)state;
    struct fake a, b;
    start();
    attach_to(&a, "t");
    attach_to(&b, "t");
    event_ring(w.tenant);
    assert_int_equal(watch(&a, seq()), 0);
    assert_int_equal(watch(&b, seq() - 1), 0);
    assert_int_equal(b.n_events, 0); /* after the reply, which is what ask() has taken */
    settle();
    assert_int_equal(b.n_events, 1);
    assert_int_equal(a.n_events, 0);
    /* Whatever number it says, and whatever comes then: nobody stands in the way of others. */
    assert_int_equal(watch(&b, seq() + 1), 0);
    event_ring(w.tenant);
    core_assert_valid(&w.core);
    settle();
    assert_int_equal(a.n_events, 1);
    assert_int_equal(b.n_events, 2);
    kill_it(&a);
    kill_it(&b);
    finish();
}

static void arming_twice_is_arming_once(void **state)
{
    (void)state;
    struct fake a;
    start();
    attach_to(&a, "t");
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(watch(&a, seq() - (i < 4)), 0);
    event_ring(w.tenant);
    event_ring(w.tenant);
    settle();
    assert_int_equal(a.n_events, 1);
    kill_it(&a);
    finish();
}

static void other_heaps_and_lookers_hear_nothing(void **state)
{
    (void)state;
    struct fake a, looker;
    struct msg_request look = {.op = MSG_LOOK, .look = {.tenant = "t"}};
    start();
    attach_to(&a, "u");
    assert_int_equal(watch(&a, core_find_tenant(&w.core, "u")->control->header.event_seq), 0);
    event_ring(w.tenant); /* it has no heap */
    connect_as(&looker, 0);
    assert_int_equal(watch(&looker, 0), -EINVAL);
    assert_int_equal(ask(&looker, look), 0);
    assert_int_equal(watch(&looker, 0), -EINVAL);
    event_ring(w.tenant);
    settle();
    assert_int_equal(a.n_events, 0);
    assert_int_equal(looker.n_events, 0);
    hang_up(&looker);
    kill_it(&a);
    finish();
}

static void who_has_hung_up_or_come_again_is_not_armed(void **state)
{
    (void)state;
    struct fake a, again;
    struct msg_request req = {.op = MSG_ATTACH, .attach = {.tenant = "t"}};
    start();
    attach_to(&a, "t");
    assert_int_equal(watch(&a, seq()), 0);
    connect_as(&again, 0);
    req.attach.resume_client = a.client;
    memset(req.attach.secret, 0x5a, sizeof(req.attach.secret));
    assert_int_equal(ask(&again, req), 0);
    assert_true(a.told_to_close);
    event_ring(w.tenant);
    settle();
    assert_int_equal(a.n_events + again.n_events, 0);
    assert_int_equal(watch(&again, seq()), 0);
    dispatch_hangup(&w.core, &again.session, w.now_ns);
    close_fd(&again.fd);
    event_ring(w.tenant);
    settle();
    assert_int_equal(again.n_events, 0);
    kill_it(&a);
    finish();
}

static void a_crowd_hears_in_turns_and_each_once(void **state)
{
    (void)state;
    static struct fake crowd[N];
    unsigned n_turns = 0, n_heard = 0;
    start();
    for (unsigned i = 0; i < N; i++) {
        attach_to(&crowd[i], "t");
        assert_int_equal(watch(&crowd[i], seq()), 0);
    }
    event_ring(w.tenant);
    while (core_deadline(&w.core) <= w.now_ns) {
        unsigned before = n_heard;
        pass(0);
        n_heard = 0;
        for (unsigned i = 0; i < N; i++)
            n_heard += crowd[i].n_events;
        assert_true(n_heard - before <= 64);
        event_ring(w.tenant); /* adds none */
        n_turns++;
    }
    assert_int_equal(n_heard, N);
    assert_true(n_turns >= N / 64);
    for (unsigned i = 0; i < N; i++) {
        assert_int_equal(crowd[i].n_events, 1);
        kill_it(&crowd[i]);
    }
    finish();
}

/* 7 MiB each of a capacity of 12. */
static void who_could_help_others_hears_that_they_want_memory(void **state)
{
    (void)state;
    struct fake a, b;
    struct access_list none = {0}, none_either = {0};
    struct tenant_wish wish = {.limits.max_bytes = MIB(8)};
    start_core(MIB(12));
    assert_int_equal(core_add_tenant(&w.core, "t", &wish, &none), 0);
    assert_int_equal(core_add_tenant(&w.core, "u", &wish, &none_either), 0);
    w.tenant = core_find_tenant(&w.core, "t");
    attach_to(&a, "t");
    attach_to(&b, "u");
    struct msg_request grow = {.op = MSG_GROW, .grow = {.n_units = 900, .exact = true}};
    assert_int_equal(ask(&a, grow), 0);
    assert_int_equal(watch(&a, seq()), 0);
    settle();
    assert_int_equal(a.n_events, 0);
    (void)ask(&b, grow);
    settle();
    assert_int_equal(a.n_events, 1);
    kill_it(&a);
    kill_it(&b);
    finish();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_has_armed_its_bell_hears_once),
        cmocka_unit_test(what_has_changed_before_is_heard_at_once),
        cmocka_unit_test(arming_twice_is_arming_once),
        cmocka_unit_test(other_heaps_and_lookers_hear_nothing),
        cmocka_unit_test(who_has_hung_up_or_come_again_is_not_armed),
        cmocka_unit_test(a_crowd_hears_in_turns_and_each_once),
        cmocka_unit_test(who_could_help_others_hears_that_they_want_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
