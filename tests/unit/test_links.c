/* SPDX-License-Identifier: Apache-2.0 */
/* ctest-labels: valgrind */
/* What a dead client's life page says about its blocks: only what the slots confirm counts. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>
#include <sys/mman.h>
#include <cmocka.h>

#include "daemon/links.h"

#define N_SLOTS 8u

/* A heap of N_SLOTS slots, at offsets 0, 8, ... */
static bool read_slot(void *ctx, uint64_t off, uint64_t *ret_value)
{
    const uint64_t *slots = ctx;
    if (off % 8 != 0 || off / 8 >= N_SLOTS)
        return false;
    *ret_value = slots[off / 8];
    return true;
}

static int life_page_with(const struct intent *lines, unsigned n)
{
    int fd = memfd_create("life", MFD_CLOEXEC);
    assert_true(fd >= 0 && ftruncate(fd, sizeof(struct life_page)) == 0);
    assert_int_equal(pwrite(fd, lines, n * sizeof(*lines), offsetof(struct life_page, intents)),
                     (ssize_t)(n * sizeof(*lines)));
    return fd;
}

static void a_block_counts_if_its_slot_names_it(void **state)
{
    (void)state;
    uint64_t slots[N_SLOTS] = {[0] = 0x1000, [1] = 0x2000, [2] = 0x5000};
    const struct intent lines[] = {
        {0x1000, 0},            /* linked */
        {0x3000, 8},            /* the slot names another */
        {0, 16},                /* no intent */
        {INTENT_TAKEN, 16},     /* being written */
        {0x2000, 0x7777777770}, /* no such slot */
        {0x4000, 16},
        {0x5000, 16}, /* two lines, one slot */
    };
    struct links links = {0};
    int fd = life_page_with(lines, sizeof(lines) / sizeof(lines[0]));
    assert_int_equal(links_add(&links, 7, fd, read_slot, slots), 0);
    links_sort(&links);
    assert_int_equal(links.n, 2);
    assert_true(links_have(&links, 7, 0x1000));
    assert_true(links_have(&links, 7, 0x5000));
    assert_false(links_have(&links, 8, 0x1000)); /* another client's */
    assert_false(links_have(&links, 7, 0x2000));
    assert_false(links_have(&links, 7, 0x3000));
    links_deinit(&links);
    close(fd);
}

static void a_full_page_of_each_of_many_dead_is_read(void **state)
{
    (void)state;
    uint64_t slots[N_SLOTS] = {[3] = 0x9000};
    struct intent lines[INTENTS];
    struct links links = {0};
    for (unsigned i = 0; i < INTENTS; i++)
        lines[i] = (struct intent){0x9000, 24};
    int fd = life_page_with(lines, INTENTS);
    for (tag_t id = 1; id <= 100; id++)
        assert_int_equal(links_add(&links, id, fd, read_slot, slots), 0);
    links_sort(&links);
    assert_int_equal(links.n, 100 * INTENTS);
    for (tag_t id = 1; id <= 100; id++)
        assert_true(links_have(&links, id, 0x9000));
    assert_false(links_have(&links, 101, 0x9000));
    links_deinit(&links);
    close(fd);
}

static void a_page_that_its_client_made_short_says_nothing(void **state)
{
    (void)state;
    uint64_t slots[N_SLOTS] = {0x1000};
    const struct intent line = {0x1000, 0};
    struct links links = {0};
    int fd = life_page_with(&line, 1);
    assert_int_equal(ftruncate(fd, 40), 0);
    assert_int_equal(links_add(&links, 7, fd, read_slot, slots), 0);
    links_sort(&links);
    assert_false(links_have(&links, 7, 0x1000));
    links_deinit(&links);
    close(fd);
    assert_int_equal(links_add(&links, 7, fd, read_slot, slots), -EBADF);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_block_counts_if_its_slot_names_it),
        cmocka_unit_test(a_full_page_of_each_of_many_dead_is_read),
        cmocka_unit_test(a_page_that_its_client_made_short_says_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
