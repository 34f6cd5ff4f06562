/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that the daemon keeps ready is cheap to touch: counted in faults, not in time. Tests about
 * huge pages change the system's setting for a while, one process at a time, and put it back; they
 * are skipped where they may not.
 */
#include "tests/system/harness.h"

#include <fcntl.h>
#include <jansson.h>
#include <sys/file.h>
#include <sys/resource.h>

#define SHMEM_ENABLED "/sys/kernel/mm/transparent_hugepage/shmem_enabled"
#define MEGABYTE      (1u << 20)
#define BLOCKS        64u
#define PAGES         (BLOCKS * MEGABYTE / 4096)

static long long memory_int(const char *key)
{
    json_t *root = acrectl_json(&the_daemon, "status");
    json_t *value = json_object_get(json_array_get(json_object_get(root, "memory"), 0), key);
    assert_true(json_is_integer(value));
    long long n = json_integer_value(value);
    json_decref(root);
    return n;
}

static void expect_pages(const char *got, const char *wanted)
{
    json_t *root = acrectl_json(&the_daemon, "status");
    json_t *tenant = json_array_get(json_object_get(root, "memory"), 0);
    assert_string_equal(json_string_value(json_object_get(tenant, "pages")), got);
    assert_string_equal(json_string_value(json_object_get(tenant, "pages_wanted")), wanted);
    json_decref(root);
}

static bool status_says(const char *text)
{
    char command[256], line[512];
    bool found = false;

    snprintf(command, sizeof(command), "%s status --socket %s", getenv("ACRECTL"),
             the_daemon.socket);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    while (fgets(line, sizeof(line), f))
        found = found || strstr(line, text);
    assert_int_equal(pclose(f), 0);
    return found;
}

static void wait_prepared(long long bytes)
{
    for (unsigned i = 0; i < 1000; i++) {
        if (memory_int("prepared_bytes") >= bytes)
            return;
        usleep(20000);
    }
    fail_msg("%lld of %lld bytes are prepared after 20 s", memory_int("prepared_bytes"), bytes);
}

static long faults(void)
{
    struct rusage usage;
    assert_int_equal(getrusage(RUSAGE_SELF, &usage), 0);
    return usage.ru_minflt;
}

/* 64 MiB in blocks of 1 MiB, each page written; how many faults that took. */
static long faults_of_64_mib(struct acre_heap *heap)
{
    static char *blocks[BLOCKS];
    long before = faults();

    for (unsigned i = 0; i < BLOCKS; i++) {
        blocks[i] = acre_alloc(heap, MEGABYTE);
        assert_non_null(blocks[i]);
        for (unsigned off = 0; off < MEGABYTE; off += 4096)
            blocks[i][off] = (char)i;
    }
    long n = faults() - before;
    for (unsigned i = 0; i < BLOCKS; i++)
        for (unsigned off = 0; off < MEGABYTE; off += 4096)
            assert_int_equal(blocks[i][off], (char)i);
    return n;
}

static void what_is_ready_takes_few_faults(void **state)
{
    (void)state;
    daemon_up(&the_daemon, "tenant \"default\" { max = \"1G\" ready = \"160M\" }\n");
    struct acre_heap *heap = heap_open(&the_daemon, "default");
    assert_int_equal(memory_int("ready_bytes"), 160ll * MEGABYTE);
    wait_prepared(160ll * MEGABYTE);
    long n = faults_of_64_mib(heap);
    printf("%ld faults for %u pages\n", n, PAGES);
    assert_true(n < PAGES / 2);
    acre_close(heap);
    daemon_down(&the_daemon);
}

/* The other half of the test above: faults do count what it is about. */
static void what_is_not_ready_takes_a_fault_a_page(void **state)
{
    (void)state;
    daemon_up(&the_daemon, "tenant \"default\" { max = \"1G\" }\n");
    struct acre_heap *heap = heap_open(&the_daemon, "default");
    assert_int_equal(memory_int("ready_bytes"), 0);
    assert_int_equal(memory_int("prepared_bytes"), 0);
    assert_true(faults_of_64_mib(heap) > PAGES / 2);
    acre_close(heap);
    daemon_down(&the_daemon);
}

static void what_is_used_is_made_ready_again(void **state)
{
    (void)state;
    daemon_up(&the_daemon, "tenant \"default\" { max = \"1G\" ready = \"32M\" }\n");
    struct acre_heap *heap = heap_open(&the_daemon, "default");
    for (unsigned i = 0; i < 4; i++) {
        wait_prepared(32ll * MEGABYTE);
        assert_non_null(acre_alloc(heap, 24 * MEGABYTE));
    }
    wait_prepared(32ll * MEGABYTE);
    acre_close(heap);
    daemon_down(&the_daemon);
}

static void status_tells_ready_and_prepared(void **state)
{
    (void)state;
    daemon_up(&the_daemon, "tenant \"shop\" { max = \"128M\" ready = \"24M\" }\n");
    struct acre_heap *heap = heap_open(&the_daemon, "shop");
    wait_prepared(24ll * MEGABYTE);
    assert_true(status_says("PREPARED"));
    assert_true(status_says("shop"));
    assert_true(status_says("24.0 MiB"));
    assert_true(status_says("4k"));
    acre_close(heap);
    daemon_down(&the_daemon);
}

static void what_is_only_ready_goes_to_another_tenant(void **state)
{
    (void)state;
    daemon_up(&the_daemon, "capacity = \"256M\"\n"
                           "tenant \"idle\" { max = \"256M\" ready = \"240M\" }\n"
                           "tenant \"user\" { max = \"256M\" }\n");
    struct acre_heap *idle = heap_open(&the_daemon, "idle"), *user = heap_open(&the_daemon, "user");
    assert_non_null(acre_alloc(idle, 1000));
    wait_prepared(200ll * MEGABYTE);
    for (unsigned i = 0; i < 180; i++)
        assert_non_null(acre_alloc(user, MEGABYTE));
    assert_true(memory_int("prepared_bytes") < 70ll * MEGABYTE);
    assert_non_null(acre_alloc(idle, 1000));
    acre_close(idle);
    acre_close(user);
    daemon_down(&the_daemon);
}

/* How often the daemon's loop has slept. */
static long sleeps(void)
{
    char path[64], line[256];
    long n = -1;

    snprintf(path, sizeof(path), "/proc/%d/status", (int)the_daemon.pid);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    while (fgets(line, sizeof(line), f))
        if (strncmp(line, "voluntary_ctxt_switches:", 24) == 0)
            n = strtol(line + 24, NULL, 10);
    fclose(f);
    assert_true(n >= 0);
    return n;
}

static void a_daemon_with_nothing_to_do_sleeps(void **state)
{
    (void)state;
    static char *blocks[BLOCKS];
    long before = -1;
    unsigned tries = 0;
    /* 21 MiB are no whole number of spans, and so much is never free. */
    daemon_up(&the_daemon, "tenant \"a\" { max = \"128M\" ready = \"21M\" }\n"
                           "tenant \"b\" { max = \"128M\" ready = \"128M\" pages = \"thp\" }\n");
    struct acre_heap *heaps[] = {heap_open(&the_daemon, "a"), heap_open(&the_daemon, "b")};
    for (unsigned h = 0; h < 2; h++) {
        for (unsigned i = 0; i < BLOCKS; i++) {
            blocks[i] = acre_calloc(heaps[h], 1, MEGABYTE);
            assert_non_null(blocks[i]);
        }
        for (unsigned i = 0; i < BLOCKS; i += 2)
            acre_free(heaps[h], blocks[i]);
    }
    while (sleeps() != before && tries++ < 12) {
        before = sleeps();
        usleep(2500000); /* of a tick a second */
    }
    assert_int_equal(sleeps(), before);
    acre_close(heaps[0]);
    acre_close(heaps[1]);
    daemon_down(&the_daemon);
}

/* ---- huge pages ---- */

static struct {
    int fd; /* locked: one process at a time changes the setting */
    char before[32];
} shmem = {.fd = -1};

static bool shmem_set(const char *word)
{
    return pwrite(shmem.fd, word, strlen(word), 0) == (ssize_t)strlen(word);
}

/* Sets it, or skips the test. */
static void shmem_need(const char *word)
{
    char line[128] = "";

    shmem.fd = open(SHMEM_ENABLED, O_RDWR | O_CLOEXEC);
    if (shmem.fd >= 0) {
        assert_int_equal(flock(shmem.fd, LOCK_EX), 0);
        assert_true(pread(shmem.fd, line, sizeof(line) - 1, 0) > 0);
        char *open_bracket = strchr(line, '[');
        assert_non_null(open_bracket);
        assert_int_equal(sscanf(open_bracket, "[%31[^]]", shmem.before), 1);
    }
    if (shmem.fd < 0 || !shmem_set(word)) {
        printf("skipped: " SHMEM_ENABLED " cannot be set to \"%s\": %s\n", word, strerror(errno));
        skip();
    }
}

static int shmem_restore(void **state)
{
    (void)state;
    if (shmem.fd >= 0 && shmem.before[0] && !shmem_set(shmem.before))
        printf("cannot put back \"%s\" into " SHMEM_ENABLED "\n", shmem.before);
    if (shmem.fd >= 0)
        close(shmem.fd);
    shmem.fd = -1;
    shmem.before[0] = '\0';
    return 0;
}

static long long smaps_kib(const char *key)
{
    char line[256];
    long long kib = -1;
    FILE *f = fopen("/proc/self/smaps_rollup", "r");

    assert_non_null(f);
    while (fgets(line, sizeof(line), f))
        if (strncmp(line, key, strlen(key)) == 0)
            kib = strtoll(line + strlen(key), NULL, 10);
    fclose(f);
    return kib;
}

static void huge_pages_are_shared_with_the_client(void **state)
{
    (void)state;
    shmem_need("advise");
    daemon_up(&the_daemon,
              "tenant \"default\" { max = \"1G\" ready = \"160M\" pages = \"thp\" }\n");
    struct acre_heap *heap = heap_open(&the_daemon, "default");
    expect_pages("thp", "thp");
    wait_prepared(160ll * MEGABYTE);
    long n = faults_of_64_mib(heap);
    printf("%ld faults for %u pages, %lld KiB in huge pages\n", n, PAGES,
           smaps_kib("ShmemPmdMapped:"));
    assert_true(n < PAGES / 8);
    assert_true(smaps_kib("ShmemPmdMapped:") >= 32 * 1024);
    acre_close(heap);
    daemon_down(&the_daemon);
}

static void without_the_setting_there_are_4k_pages_and_status_says_why(void **state)
{
    (void)state;
    shmem_need("never");
    daemon_up(&the_daemon, "tenant \"default\" { max = \"64M\" pages = \"thp\" }\n");
    struct acre_heap *heap = heap_open(&the_daemon, "default");
    expect_pages("4k", "thp");
    assert_true(status_says("4k (thp wants shmem_enabled = advise)"));
    assert_non_null(acre_calloc(heap, 1, 4 * MEGABYTE));
    acre_close(heap);
    daemon_down(&the_daemon);
}

static void status_tells_what_would_be_possible(void **state)
{
    (void)state;
    shmem_need("advise");
    daemon_up(&the_daemon, "tenant \"default\" { max = \"64M\" }\n");
    struct acre_heap *heap = heap_open(&the_daemon, "default");
    expect_pages("4k", "4k");
    assert_true(status_says("4k (thp possible)"));
    acre_close(heap);
    daemon_down(&the_daemon);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_ready_takes_few_faults),
        cmocka_unit_test(what_is_not_ready_takes_a_fault_a_page),
        cmocka_unit_test(what_is_used_is_made_ready_again),
        cmocka_unit_test(status_tells_ready_and_prepared),
        cmocka_unit_test(what_is_only_ready_goes_to_another_tenant),
        cmocka_unit_test(a_daemon_with_nothing_to_do_sleeps),
        cmocka_unit_test_teardown(huge_pages_are_shared_with_the_client, shmem_restore),
        cmocka_unit_test_teardown(without_the_setting_there_are_4k_pages_and_status_says_why,
                                  shmem_restore),
        cmocka_unit_test_teardown(status_tells_what_would_be_possible, shmem_restore),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
