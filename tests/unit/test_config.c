/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration file: what it means, and one sentence with the line for what is wrong. */
/* ctest-labels: valgrind */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include <fcntl.h>

#include "daemon/config.h"
#include "daemon/own.h"
#include "proto/bytes.h"

static char path[64], text[512];

static int read_text(struct config *ret, const char *content)
{
    strcpy(path, "/tmp/acre-config-XXXXXX");
    int fd = mkostemp(path, O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, content, strlen(content)), strlen(content));
    close(fd);
    int r = config_read(ret, path, text, sizeof(text));
    unlink(path);
    return r;
}

static void refused(const char *content, int line, const char *what)
{
    struct config c;
    char place[128];
    assert_int_equal(read_text(&c, content), -EINVAL);
    snprintf(place, sizeof(place), "%s:%d: ", path, line);
    if (strncmp(text, place, strlen(place)) != 0 || !strstr(text, what) || strchr(text, '\n'))
        fail_msg("said \"%s\", not \"%s...%s\"", text, place, what);
    assert_int_equal(c.n_tenants, 0);
    assert_null(c.tenants);
}

static void test_sizes_have_suffixes_and_bounds(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int r;
        uint64_t bytes;
    } cases[] = {
        {"0", 0, 0},
        {"65536", 0, 65536},
        {"64K", 0, 65536},
        {"64k", 0, 65536},
        {"64KB", 0, 65536},
        {"64KiB", 0, 65536},
        {"3M", 0, 3 << 20},
        {"4GiB", 0, 4ull << 30},
        {"2T", 0, 2ull << 40},
        {"7B", 0, 7},
        {"", -EINVAL, 0},
        {"M", -EINVAL, 0},
        {"-1", -EINVAL, 0},
        {" 1", -EINVAL, 0},
        {"1 M", -EINVAL, 0},
        {"1X", -EINVAL, 0},
        {"1MM", -EINVAL, 0},
        {"1.5G", -EINVAL, 0},
        {"16777216T", -ERANGE, 0},
        {"99999999999999999999", -ERANGE, 0},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        uint64_t bytes = 0;
        assert_int_equal(bytes_parse(cases[i].text, &bytes), cases[i].r);
        assert_int_equal(bytes, cases[i].bytes);
    }
}

static void test_a_file_says_capacity_tenants_and_who_may(void **state)
{
    (void)state;
    struct config c;
    assert_int_equal(
        read_text(&c,
                  "# a comment\n"
                  "capacity = \"4G\"\n"
                  "tenant \"one\" { max = \"64M\" users = {\"root\", \"4242\"} groups = {\"0\"} }\n"
                  "tenant \"two\" { max = 1048576 users = {\"*\"} }\n"),
        0);
    assert_int_equal(c.capacity_bytes, GIB(4));
    assert_int_equal(c.n_tenants, 2);
    assert_string_equal(c.tenants[0].name, "one");
    assert_int_equal(c.tenants[0].wish.limits.max_bytes, MIB(64));
    const struct access_list *may = &c.tenants[0].access.of[ACCESS_ATTACH];
    assert_int_equal(may->n_users, 2);
    assert_int_equal(may->users[1], 4242);
    assert_int_equal(may->n_groups, 1);
    assert_false(may->everyone);
    assert_int_equal(c.tenants[1].wish.limits.max_bytes, MIB(1));
    assert_true(c.tenants[1].access.of[ACCESS_ATTACH].everyone);
    config_deinit(&c);
}

static void test_what_is_wrong_is_said_in_a_sentence_with_its_line(void **state)
{
    (void)state;
    refused("capacity = \"4X\"\n", 1, "no number of bytes");
    refused("\n\ncapacity = \"1K\"\n", 3, "not between");
    refused("tenant \"a\" {\n max = \"lots\"\n}\n", 2, "no number of bytes");
    refused("tenant \"a\" {\n max = \"1M\"\n users = {\"no-such-user-here\"}\n}\n", 3, "no user");
    refused("tenant \"a\" {\n max = \"1M\"\n groups = {\"no-such-group-here\"}\n}\n", 3,
            "no group");
    refused("tenant \"a b\" {\n max = \"1M\"\n}\n", 3, "cannot be a tenant's name");
    refused("tenant \"a//b\" {\n max = \"1M\"\n}\n", 3, "cannot be a tenant's name");
    refused("tenant \"a/.b\" {\n max = \"1M\"\n}\n", 3, "cannot be a tenant's name");
    refused("tenant \"/a\" {\n max = \"1M\"\n}\n", 3, "cannot be a tenant's name");
    refused("tenant \"a/\" {\n max = \"1M\"\n}\n", 3, "cannot be a tenant's name");
    refused("tenant \"a\" {\n max = \"1M\"\n min = \"2M\"\n}\n", 4, "more min than its max");
    refused("\ntenant \"a/b\" {\n max = \"1M\"\n}\n", 4, "\"a/b\" is in no group");
    refused("tenant \"a/b\" { max = \"1M\" }\n"
            "tenant \"a\" { max = \"1M\" users = {\"*\"} }\n",
            2, "\"a\" is a group (others are below it) and has no heap");
    refused("tenant \"a\" { max = \"3M\" }\n"
            "tenant \"a/b\" { max = \"2M\" min = \"2M\" }\n"
            "tenant \"a/c\" { max = \"2M\" min = \"2M\" }\n",
            1, "more min in all than its max");
    refused("tenant \"a\" {\n}\n", 2, "has no max");
    refused("capacity = \"1G\"\ncolour = \"red\"\n", 2, "colour");
    refused("tenant \"a\" { max = \"1M\"\n", 3, "ends inside");
    refused("tenant \"a\" {\n max = \"1M\"\n high = \"2M\"\n}\n", 4, "a high that is not between");
    refused("tenant \"a\" {\n max = \"1M\" min = \"512K\"\n high = \"256K\"\n}\n", 4,
            "a high that is not between");
    refused("tenant \"a\" {\n max = \"1M\"\n weight = 0\n}\n", 3, "between 1 and 10000");
    refused("tenant \"a\" {\n max = \"1M\"\n weight = 10001\n}\n", 3, "between 1 and 10000");
    refused("tenant \"a\" {\n max = \"1M\"\n weight = many\n}\n", 3, "integer");
    refused("tenant \"a\" {\n max = \"1M\"\n ready = \"some\"\n}\n", 3, "no number of bytes");
    refused("tenant \"a\" {\n max = \"1M\"\n ready = \"4K\"\n}\n", 3, "not between");
    refused("tenant \"a\" {\n max = \"1M\"\n ready = \"2M\"\n}\n", 4, "more ready than its max");
    refused("capacity = \"1G\"\ntenant \"a\" { max = \"1G\" ready = \"600M\" }\n"
            "tenant \"b\" {\n max = \"2G\"\n ready = \"500M\"\n}\n",
            6, "more ready (1126400 KiB in all) than the capacity");
    refused("tenant \"a\" {\n max = \"1G\"\n ready = \"600M\"\n}\ncapacity = \"500M\"\n", 5,
            "than the capacity");
    refused("tenant \"a\" {\n max = \"1M\"\n pages = \"huge\"\n}\n", 3,
            "neither \"4k\" nor \"thp\"");
    refused("tenant \"a\" {\n max = \"1M\"\n admin_users = {\"*\"}\n}\n", 3,
            "would let everybody administrate");
    refused("\nadmin_users = {\"root\", \"*\"}\n", 2, "would let everybody administrate");
    refused("admin_groups = {\"no-such-group-here\"}\n", 1, "no group");
    refused("tenant \"a\" {\n max = \"1M\"\n read_users = {\"no-such-user-here\"}\n}\n", 3,
            "no user");
    refused("tenant \"u-%u\" {\n max = \"1M\"\n min = \"64K\"\n}\n", 4, "cannot have min");
    refused("tenant \"u-%u\" {\n max = \"1M\"\n ready = \"64K\"\n}\n", 4, "cannot have ready");
    refused("tenant \"u-%u\" {\n max = \"1M\"\n users = {\"*\"}\n}\n", 4, "no users or groups");
    refused("tenant \"u-%u\" { max = \"1M\" }\ntenant \"v-%u\" { max = \"1M\" }\n", 2,
            "is the second one with %u");
    refused("tenant \"u%u%u\" { max = \"1M\" }\n", 1, "cannot be a tenant's name");
    refused("tenant \"u-%u/a\" { max = \"1M\" }\n", 1, "cannot be a tenant's name");
    refused("tenant \"u-%d\" { max = \"1M\" }\n", 1, "cannot be a tenant's name");
    refused("tenant \"g/u-%u\" { max = \"1M\" }\n", 1, "is in no group");
}

static void test_a_pattern_is_for_each_user_and_no_tenant(void **state)
{
    (void)state;
    struct config c;
    assert_int_equal(read_text(&c, "tenant \"home\" { max = \"1G\" min = \"8M\" }\n"
                                   "tenant \"home/%u\" { max = \"2M\" pages = \"thp\" "
                                   "admin_users = {\"7\"} }\n"
                                   "tenant \"z\" { max = \"1M\" }\n"),
                     0);
    assert_int_equal(c.n_tenants, 2);
    assert_string_equal(c.tenants[1].name, "z");
    assert_true(c.tenants[0].is_group);
    assert_null(config_find(&c, "home/%u"));
    assert_string_equal(c.own.name, "home/%u");
    assert_int_equal(c.own.wish.limits.max_bytes, MIB(2));
    assert_int_equal(c.own.wish.pages, PAGES_THP);
    assert_int_equal(c.own.access.of[ACCESS_ADMIN].users[0], 7);
    config_deinit(&c);
    assert_int_equal(read_text(&c, "tenant \"%u\" { max = \"2M\" }\n"), 0);
    assert_int_equal(config_complete(&c, GIB(8)), 0);
    assert_int_equal(c.n_tenants, 0); /* nor is there a default one */
    config_deinit(&c);
}

static void test_a_user_goes_by_name_or_by_number(void **state)
{
    (void)state;
    static const struct {
        const char *pattern, *user, *name;
    } cases[] = {
        {"user-%u", "bob", "user-bob"},
        {"home/%u.x", "b.o-b_1", "home/b.o-b_1.x"},
        {"user-%u", "", "user-4242"},
        {"user-%u", "1000", "user-4242"}, /* may be another's number */
        {"user-%u", "a/b", "user-4242"},
        {"user-%u", "bob@example.com", "user-4242"},
        {"%u", "..", "4242"},
        {"%u", "default", "4242"},
        {"de%u", "fault", "de4242"},
        {"user-%u", "a-name-of-sixty-letters-is-too-long-for-a-name-of-a-tenant-12", "user-4242"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char name[TENANT_NAME_BYTES];
        assert_true(own_valid_pattern(cases[i].pattern));
        own_name(cases[i].pattern, cases[i].user, 4242, name);
        assert_string_equal(name, cases[i].name);
        assert_true(config_valid_name(name));
        assert_true(own_fits(cases[i].pattern, name));
    }
    assert_false(own_fits("user-%u", "user-"));
    assert_false(own_fits("user-%u", "users-1"));
    assert_false(own_fits("home/%u", "home/a/b"));
    assert_false(own_fits("u%u.x", "u.x"));
    assert_false(own_valid_pattern("user"));
    assert_false(own_valid_pattern("%u-this-is-fifty-four-letters-and-some-more-of-them-and-more"));
}

static void test_a_file_says_who_may_look_and_who_administrates(void **state)
{
    (void)state;
    struct config c;
    assert_int_equal(read_text(&c, "admin_users = {\"4240\"}\nadmin_groups = {\"4241\"}\n"
                                   "tenant \"a\" { max = \"1M\" admin_groups = {\"7\"} }\n"
                                   "tenant \"a/b\" { max = \"1M\" users = {\"1\", \"2\"}\n"
                                   "  read_users = {\"*\"} read_groups = {\"3\"}\n"
                                   "  admin_users = {\"4\", \"5\"} admin_groups = {\"6\"} }\n"),
                     0);
    assert_int_equal(c.admins.n_users, 1);
    assert_int_equal(c.admins.users[0], 4240);
    assert_int_equal(c.admins.groups[0], 4241);
    assert_int_equal(c.tenants[0].access.of[ACCESS_ADMIN].groups[0], 7);
    const struct access_list *of = c.tenants[1].access.of;
    assert_int_equal(of[ACCESS_ATTACH].n_users, 2);
    assert_int_equal(of[ACCESS_ATTACH].n_groups, 0);
    assert_true(of[ACCESS_LOOK].everyone);
    assert_int_equal(of[ACCESS_LOOK].groups[0], 3);
    assert_int_equal(of[ACCESS_ADMIN].users[1], 5);
    assert_int_equal(of[ACCESS_ADMIN].groups[0], 6);
    config_deinit(&c);
}

static void test_groups_come_before_who_is_in_them_and_promises_add_up(void **state)
{
    (void)state;
    struct config c;
    assert_int_equal(read_text(&c, "tenant \"team/app\" { max = \"1G\" min = \"20M\" }\n"
                                   "tenant \"team-x\" { max = \"1G\" min = \"1M\" }\n"
                                   "tenant \"team\" { max = \"2G\" min = \"10M\" }\n"
                                   "tenant \"team/app/db\" { max = \"1G\" min = \"5M\" }\n"
                                   "tenant \"team/web\" { max = \"1G\" min = \"30M\" }\n"),
                     0);
    static const char *const names[] = {"team", "team-x", "team/app", "team/app/db", "team/web"};
    for (uint32_t i = 0; i < ARRAY_LEN(names); i++)
        assert_string_equal(c.tenants[i].name, names[i]);
    assert_true(c.tenants[0].is_group && c.tenants[2].is_group);
    assert_false(c.tenants[1].is_group || c.tenants[3].is_group || c.tenants[4].is_group);
    assert_int_equal(c.min_bytes, MIB(1 + 20 + 30));
    config_deinit(&c);
}

static void test_there_can_be_a_high_and_a_weight(void **state)
{
    (void)state;
    struct config c;
    assert_int_equal(read_text(&c, "tenant \"a\" { max = \"1G\" high = \"256M\" weight = 10000 }\n"
                                   "tenant \"b\" { max = \"1G\" }\n"),
                     0);
    assert_int_equal(c.tenants[0].wish.limits.high_bytes, MIB(256));
    assert_int_equal(c.tenants[0].wish.limits.weight, 10000);
    assert_true(c.tenants[1].wish.limits.high_bytes == HIGH_NONE);
    assert_int_equal(c.tenants[1].wish.limits.weight, WEIGHT_DEFAULT);
    config_deinit(&c);
}

static void test_memory_can_be_ready_and_its_pages_huge(void **state)
{
    (void)state;
    struct config c;
    assert_int_equal(read_text(&c,
                               "tenant \"a\" { max = \"1G\" ready = \"256M\" pages = \"thp\" }\n"
                               "tenant \"b\" { max = \"1G\" ready = 0 pages = \"4k\" }\n"
                               "tenant \"c\" { max = \"1G\" }\n"),
                     0);
    assert_int_equal(c.tenants[0].wish.ready_bytes, MIB(256));
    assert_int_equal(c.tenants[0].wish.pages, PAGES_THP);
    for (int i = 1; i < 3; i++) {
        assert_int_equal(c.tenants[i].wish.ready_bytes, 0);
        assert_int_equal(c.tenants[i].wish.pages, PAGES_4K);
    }
    config_deinit(&c);
}

static void test_a_tenant_twice_is_refused(void **state)
{
    (void)state;
    struct config c;
    assert_int_equal(
        read_text(&c, "tenant \"a\" { max = \"1M\" }\ntenant \"a\" { max = \"2M\" }\n"), -EINVAL);
    assert_non_null(strstr(text, "a"));
}

static void test_a_file_that_is_not_there_is_an_error(void **state)
{
    (void)state;
    struct config c;
    assert_int_equal(config_read(&c, "/nonexistent/acre.conf", text, sizeof(text)), -ENOENT);
    assert_non_null(strstr(text, "/nonexistent/acre.conf"));
}

static void test_without_words_there_is_one_tenant_with_half_of_memory(void **state)
{
    (void)state;
    struct config c = {0};
    assert_int_equal(config_complete(&c, GIB(8) + 12345), 0);
    assert_int_equal(c.capacity_bytes, GIB(4));
    assert_int_equal(c.asked_bytes, 0);
    assert_true(c.is_bare);
    assert_int_equal(c.n_tenants, 1);
    assert_string_equal(c.tenants[0].name, "default");
    assert_int_equal(c.tenants[0].wish.limits.max_bytes, GIB(4));
    config_deinit(&c);
}

static void test_capacity_is_never_more_than_can_be_backed(void **state)
{
    (void)state;
    struct config c = {.capacity_bytes = GIB(200)};
    assert_int_equal(config_complete(&c, GIB(16) + 777), 0);
    assert_int_equal(c.capacity_bytes, GIB(15));
    assert_int_equal(c.asked_bytes, GIB(200));
    assert_int_equal(c.tenants[0].wish.limits.max_bytes, GIB(15));
    config_deinit(&c);
    c = (struct config){.capacity_bytes = GIB(15)};
    assert_int_equal(config_complete(&c, GIB(16)), 0);
    assert_int_equal(c.capacity_bytes, GIB(15));
    assert_int_equal(c.asked_bytes, GIB(15));
    config_deinit(&c);
}

static void test_names_of_tenants_are_plain(void **state)
{
    (void)state;
    char longest[TENANT_NAME_BYTES + 1] = {0};
    memset(longest, 'x', TENANT_NAME_BYTES - 1);
    assert_true(config_valid_name(longest));
    longest[TENANT_NAME_BYTES - 1] = 'x';
    assert_false(config_valid_name(longest));
    assert_true(config_valid_name("web-1.cache_2"));
    assert_false(config_valid_name(""));
    assert_false(config_valid_name(".."));
    assert_false(config_valid_name("a b"));
    assert_false(config_valid_name("a\nb"));
}

static struct creds somebody(uid_t uid, gid_t gid)
{
    return (struct creds){.pid = 1, .uid = uid, .gid = gid, .n_groups = 1, .groups = {777}};
}

static void test_access_goes_by_user_and_by_any_group(void **state)
{
    (void)state;
    struct access_list list = {0};
    struct creds user = somebody(4242, 4242), other = somebody(4243, 4243), root = somebody(0, 0);
    assert_true(access_list_is_empty(&list));
    assert_false(access_list_has(&list, &user));
    assert_true(access_is_admin(&root));
    assert_int_equal(access_add_user(&list, 4242), 0);
    assert_true(access_list_has(&list, &user));
    assert_false(access_list_has(&list, &other));
    assert_int_equal(access_add_group(&list, 777), 0);
    assert_true(access_list_has(&list, &other));
    assert_false(access_is_admin(&other));
    access_list_deinit(&list);
    list.everyone = true;
    assert_true(access_list_has(&list, &other));
}

static void test_a_right_brings_those_before_it(void **state)
{
    (void)state;
    struct access access = {0};
    for (unsigned i = 0; i < ACCESS_RIGHTS; i++)
        assert_int_equal(access_add_user(&access.of[i], 100 + i), 0);
    for (unsigned has = 0; has < ACCESS_RIGHTS; has++) {
        struct creds creds = somebody(100 + has, 100);
        for (unsigned asked = 0; asked < ACCESS_RIGHTS; asked++)
            assert_int_equal(access_allows(&access, asked, &creds), asked <= has);
    }
    access_deinit(&access);
}

static void test_a_zero_byte_hides_nothing(void **state)
{
    (void)state;
    struct config c;
    static const char content[] = "tenant a { max = \"1M\" }\n\0nonsense";
    strcpy(path, "/tmp/acre-config-XXXXXX");
    int fd = mkostemp(path, O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, content, sizeof(content)), sizeof(content));
    close(fd);
    assert_int_equal(config_read(&c, path, text, sizeof(text)), -EINVAL);
    assert_non_null(strstr(text, path));
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes_have_suffixes_and_bounds),
        cmocka_unit_test(test_a_file_says_capacity_tenants_and_who_may),
        cmocka_unit_test(test_what_is_wrong_is_said_in_a_sentence_with_its_line),
        cmocka_unit_test(test_groups_come_before_who_is_in_them_and_promises_add_up),
        cmocka_unit_test(test_there_can_be_a_high_and_a_weight),
        cmocka_unit_test(test_memory_can_be_ready_and_its_pages_huge),
        cmocka_unit_test(test_a_tenant_twice_is_refused),
        cmocka_unit_test(test_a_file_that_is_not_there_is_an_error),
        cmocka_unit_test(test_without_words_there_is_one_tenant_with_half_of_memory),
        cmocka_unit_test(test_capacity_is_never_more_than_can_be_backed),
        cmocka_unit_test(test_names_of_tenants_are_plain),
        cmocka_unit_test(test_access_goes_by_user_and_by_any_group),
        cmocka_unit_test(test_a_right_brings_those_before_it),
        cmocka_unit_test(test_a_pattern_is_for_each_user_and_no_tenant),
        cmocka_unit_test(test_a_user_goes_by_name_or_by_number),
        cmocka_unit_test(test_a_file_says_who_may_look_and_who_administrates),
        cmocka_unit_test(test_a_zero_byte_hides_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
