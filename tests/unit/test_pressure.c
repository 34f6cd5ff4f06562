/* SPDX-License-Identifier: Apache-2.0 */
/* Who has too much, and who too little, as the core sees it over time: what the control page says
 * of it, what is refused, and that the daemon sleeps. */
/* ctest-labels: valgrind */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "daemon/capacity.h"
#include "daemon/event.h"
#include "daemon/tenant.h"
#include "tests/unit/drive.h"
#include "tests/unit/fake_core.h"

#define UNITS(mib) ((uint32_t)(MIB(mib) / UNIT_BYTES))

static struct tenant *add(const char *name, struct limits limits)
{
    struct access_list none = {0};
    struct tenant_wish wish = {.limits = limits};
    assert_int_equal(core_add_tenant(&w.core, name, &wish, &none), 0);
    return core_find_tenant(&w.core, name);
}

static int grow_run(struct fake *f, uint32_t n_units, struct block *ret)
{
    struct msg_request req = {.op = MSG_GROW, .grow = {.n_units = n_units, .exact = true}};
    int r = ask(f, req);
    if (r != 0)
        return r;
    ret->n_units = f->reply.grow.run.n_units;
    ret->seg = tenant_locate(f->session.client->tenant, f->reply.grow.run.off, false, &ret->unit);
    assert_non_null(ret->seg);
    fake_cut_large(f, *ret, f->id); /* or it would be taken back */
    return 0;
}

/* ---- promises ---- */

static void promises_that_do_not_fit_are_served_while_there_is_room(void **state)
{
    (void)state;
    struct fake f[3];
    struct block b;
    char name[] = "a";
    start_core(MIB(64));
    for (; name[0] <= 'c'; name[0]++) {
        add(name, (struct limits){.min_bytes = MIB(4), .max_bytes = MIB(16)});
        attach_to(&f[name[0] - 'a'], name);
    }
    capacity_set(&w.core, MIB(8));
    assert_int_equal(grow_run(&f[0], 16, &b), 0);
    assert_int_equal(grow_run(&f[1], 16, &b), 0);
    assert_int_equal(grow_run(&f[2], 16, &b), -ENOMEM);
    for (unsigned i = 0; i < 3; i++)
        kill_it(&f[i]);
    finish();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(promises_that_do_not_fit_are_served_while_there_is_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
