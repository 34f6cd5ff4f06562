/* SPDX-License-Identifier: Apache-2.0 */
/* Where the daemon is looked for. What hangs on /run/acre is in tests/system/test_autostart.c. */
#include "proto/address.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>

static char runtime[64], path[ADDRESS_BYTES], text[MSG_TEXT_BYTES];
static enum address_kind kind;

static int up(void **state)
{
    (void)state;
    strcpy(runtime, "/tmp/acre-address-XXXXXX");
    assert_non_null(mkdtemp(runtime));
    setenv("XDG_RUNTIME_DIR", runtime, 1);
    unsetenv("ACRE_SOCKET");
    return 0;
}

static int down(void **state)
{
    (void)state;
    return rmdir(runtime);
}

static void what_is_given_wins_over_the_environment(void **state)
{
    (void)state;
    setenv("ACRE_SOCKET", "/a/b", 1);
    assert_int_equal(address_find("/c/d", false, path, &kind, text), 0);
    assert_string_equal(path, "/c/d");
    assert_int_equal(address_find(NULL, false, path, &kind, text), 0);
    assert_string_equal(path, "/a/b");
    assert_int_equal(kind, ADDRESS_GIVEN);
    unsetenv("ACRE_SOCKET");
}

static void a_path_that_no_socket_can_have_is_einval(void **state)
{
    char longest[ADDRESS_BYTES + 1];

    (void)state;
    memset(longest, 'x', sizeof(longest));
    longest[ADDRESS_BYTES] = '\0';
    assert_int_equal(address_find(longest, false, path, &kind, text), -EINVAL);
    assert_int_equal(address_find("", false, path, &kind, text), -EINVAL);
    longest[ADDRESS_BYTES - 1] = '\0';
    assert_int_equal(address_find(longest, false, path, &kind, text), 0);
}

static void the_users_directory_is_made_only_if_asked_for(void **state)
{
    char dir[96];
    struct stat st;

    (void)state;
    snprintf(dir, sizeof(dir), "%s/acre", runtime);
    assert_int_equal(address_user(false, path, text), 0);
    assert_int_equal(stat(dir, &st), -1);
    assert_int_equal(address_user(true, path, text), 0);
    assert_int_equal(stat(dir, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    assert_memory_equal(path, dir, strlen(dir));
    assert_string_equal(path + strlen(dir), "/acred.sock");
    assert_int_equal(rmdir(dir), 0);
}

static void a_directory_that_others_may_enter_is_refused(void **state)
{
    char dir[96];

    (void)state;
    snprintf(dir, sizeof(dir), "%s/acre", runtime);
    assert_int_equal(mkdir(dir, 0700), 0);
    assert_int_equal(chmod(dir, 0710), 0);
    assert_int_equal(address_user(true, path, text), -EACCES);
    assert_non_null(strstr(text, dir));
    assert_int_equal(rmdir(dir), 0);
    assert_int_equal(symlink("/tmp", dir), 0);
    assert_int_equal(address_user(true, path, text), -EACCES);
    assert_int_equal(unlink(dir), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_given_wins_over_the_environment),
        cmocka_unit_test(a_path_that_no_socket_can_have_is_einval),
        cmocka_unit_test(the_users_directory_is_made_only_if_asked_for),
        cmocka_unit_test(a_directory_that_others_may_enter_is_refused),
    };
    return cmocka_run_group_tests(tests, up, down);
}
