/* SPDX-License-Identifier: Apache-2.0 */
/* acrectl top on a real terminal of 80 columns (tmux), and acrectl stats --watch. */
#include "tests/system/harness.h"

#include <fcntl.h>
#include <jansson.h>
#include <time.h>

#define SCREEN_BYTES 16384u
#define COLUMNS      80
#define LINES        24
#define N_BLOCKS     1000u
#define BLOCK_BYTES  1000u
#define N_OTHERS     7u
#define WAIT_S       20

static struct daemon *const d = &the_daemon;

static pid_t members[2 + N_OTHERS]; /* 0: has ended */
static int gate;

/* ---- a terminal ---- */

static void tmux(const char *arguments, char *output)
{
    char command[1024];
    size_t n = 0;

    (void)snprintf(command, sizeof(command), "TMUX= tmux -f /dev/null -S '%s/tmux' %s", d->dir,
                   arguments);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    if (output) {
        n = fread(output, 1, SCREEN_BYTES - 1, f);
        output[n] = '\0';
    }
    assert_int_equal(pclose(f), 0);
}

static const char *screen(void)
{
    static char text[SCREEN_BYTES];

    tmux("capture-pane -p -t top", text);
    return text;
}

static void keys(const char *keys)
{
    char arguments[128];

    (void)snprintf(arguments, sizeof(arguments), "send-keys -t top %s", keys);
    tmux(arguments, NULL);
}

/* Until it stands there, or no longer. */
static const char *expect_screen(const char *part, bool is_there)
{
    const char *text = "";

    for (time_t end = time(NULL) + WAIT_S; time(NULL) < end; pause_us(50000)) {
        text = screen();
        if ((strstr(text, part) != NULL) == is_there)
            return text;
    }
    fail_msg("\"%s\" is %s after %d s:\n%s", part, is_there ? "missing" : "still there", WAIT_S,
             text);
    return text;
}

static void top_up(const char *arguments)
{
    char command[512];

    (void)snprintf(
        command, sizeof(command),
        "new-session -d -s top -x %d -y %d \"'%s' -s '%s' top %s; echo rc \\$?; sleep 100\" "
        "</dev/null >/dev/null 2>&1",
        COLUMNS, LINES, getenv("ACRECTL"), d->socket, arguments);
    tmux(command, NULL);
    expect_screen("h help", true);
}

static void top_down(void)
{
    keys("q");
    expect_screen("rc 0", true);
    tmux("kill-server", NULL);
}

/* Whatever a failed test has left. */
static int clean_up(void **state)
{
    char command[256];

    (void)state;
    (void)snprintf(command, sizeof(command),
                   "tmux -S '%s/tmux' kill-server 2>/dev/null; rm -f '%s/tmux'", d->dir, d->dir);
    (void)!system(command);
    for (unsigned i = 0; i < 2 + N_OTHERS; i++)
        if (members[i] > 0 && waitpid(members[i], NULL, WNOHANG) == 0)
            (void)kill(members[i], SIGKILL);
    return 0;
}

/* ---- whom it shows ---- */

struct member {
    const char *tenant, *name;
    unsigned n_blocks;
    int gate;
};

static bool be_member(void *arg)
{
    const struct member *m = arg;
    struct acre_options options = {
        .size = sizeof(options), .address = d->socket, .tenant = m->tenant, .name = m->name};
    struct acre_heap *heap;
    char byte;

    CHECK(acre_open_with(&heap, &options) == 0);
    for (unsigned i = 0; i < m->n_blocks; i++)
        CHECK(acre_alloc(heap, BLOCK_BYTES));
    CHECK(read(m->gate, &byte, 1) == 0);
    return true;
}

static void members_up(void)
{
    int ends[2];
    struct member who = {"team/app", "worker", N_BLOCKS, 0};

    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    who.gate = ends[0];
    gate = ends[1];
    for (unsigned i = 0; i < 2 + N_OTHERS; i++) {
        if (i == 1)
            who = (struct member){"team/app", "helper", 10, ends[0]};
        else if (i >= 2)
            who = (struct member){"cache", "filler", 1, ends[0]};
        members[i] = fork();
        if (members[i] == 0) {
            close(ends[1]);
            _exit(be_member(&who) ? 0 : 1);
        }
    }
    close(ends[0]);
    expect_settled(d, "cache", N_OTHERS * 1024ll, N_OTHERS);
    expect_settled(d, "team/app", (N_BLOCKS + 10) * 1024ll, 2);
}

static void members_down(void)
{
    close(gate);
    for (unsigned i = 0; i < 2 + N_OTHERS; i++)
        assert_true(child_ok(members[i]));
    memset(members, 0, sizeof(members));
}

static bool has_tmux(void)
{
    return system("command -v tmux >/dev/null") == 0;
}

/* ---- the tests ---- */

static void expect_narrow(const char *text)
{
    for (const char *at = text; *at;) {
        const char *end = strchrnul(at, '\n');
        assert_true(end - at <= COLUMNS);
        at = *end ? end + 1 : end;
    }
}

static void one_gets_from_tenants_to_a_clients_classes_and_back(void **state)
{
    (void)state;
    if (!has_tmux())
        skip();
    members_up();
    top_up("");

    const char *text = expect_screen("2 tenants, 9 clients, 0 waiting, 0 under pressure", true);
    expect_narrow(text);
    assert_non_null(strstr(text, "all tenants"));
    /* Sorted by what was granted: team/app is before the other. */
    const char *app = strstr(text, "\nteam/app "), *cache = strstr(text, "\ncache ");
    assert_true(app && cache && app < cache);
    assert_int_equal(strtol(app + 10, NULL, 10), 2);
    assert_int_equal(strtol(cache + 7, NULL, 10), N_OTHERS);

    keys("Enter");
    text = expect_screen("tenant team/app: clients", true);
    char *worker = strstr(text, "\nworker ");
    unsigned long id = 0;
    long pid = 0, blocks = 0;
    char granted[16], granted_unit[8], live[16], live_unit[8];
    assert_non_null(worker);
    if (sscanf(worker, "\nworker %lu %ld %15s %7s %15s %7s %ld", &id, &pid, granted, granted_unit,
               live, live_unit, &blocks) != 7)
        fail_msg("no figures of the worker:\n%s", text);
    assert_int_equal(pid, members[0]);
    assert_string_equal(live, "1000.0");
    assert_string_equal(live_unit, "KiB");
    assert_int_equal(blocks, N_BLOCKS);

    keys("Enter");
    text = expect_screen("size classes, and of client", true);
    long size = 0, slabs = 0, live_blocks = 0, free_blocks = 0, of_client = 0;
    const char *class = strstr(text, "1.0 KiB ");
    assert_non_null(class);
    if (sscanf(class, "1.0 KiB %ld %ld %ld %*s %*s %*d %% %ld", &slabs, &live_blocks, &free_blocks,
               &of_client) != 4)
        fail_msg("no figures of the class:\n%s", text);
    assert_int_equal(size, 0);
    assert_int_equal(live_blocks, N_BLOCKS + 10);
    assert_int_equal(of_client, N_BLOCKS);

    keys("Left");
    expect_screen("tenant team/app: clients", true);
    keys("Left");
    expect_screen("all tenants", true);
    top_down();
    members_down();
}

static void lines_are_sorted_filtered_and_paused(void **state)
{
    (void)state;
    if (!has_tmux())
        skip();
    members_up();
    top_up("--watch=0.2");
    expect_screen("2 tenants, 9 clients", true);

    keys("r"); /* least first */
    for (int i = 0; i < 200; i++) {
        const char *text = screen();
        if (strstr(text, "\ncache ") < strstr(text, "\nteam/app "))
            break;
        assert_true(i < 199);
        pause_us(50000);
    }
    keys("/");
    keys("tea Enter");
    expect_screen("only with: tea", true);
    expect_screen("\ncache ", false);
    expect_screen("\nteam/app ", true);
    keys("Escape");
    expect_screen("\ncache ", true);
    keys("h");
    expect_screen("any key goes back", true);
    expect_narrow(screen());
    keys("x");
    expect_screen("all tenants", true);

    keys("Space");
    expect_screen("PAUSED", true);
    members_down();
    expect_settled(d, "cache", 0, 0);
    pause_us(500000);
    expect_screen("9 clients", true);
    keys("Space");
    expect_screen("0 clients", true);
    top_down();
}

static void it_goes_on_while_the_daemon_is_stopped(void **state)
{
    (void)state;
    if (!has_tmux())
        skip();
    struct acre_heap *heap = heap_open(d, "team/app");
    void *blocks[N_BLOCKS];
    for (unsigned i = 0; i < N_BLOCKS; i++)
        assert_non_null(blocks[i] = acre_alloc(heap, BLOCK_BYTES));
    top_up("--watch=0.2");
    expect_screen("1 clients", true);
    keys("Enter");
    expect_screen(" 1000\n", true);

    pid_t worker = daemon_worker(d);
    assert_int_equal(kill(worker, SIGSTOP), 0);
    expect_screen("DAEMON SILENT", true);
    for (unsigned i = 0; i < 500; i++)
        acre_free(heap, blocks[i]);
    expect_screen(" 500\n", true);
    assert_int_equal(kill(worker, SIGCONT), 0);
    expect_screen("DAEMON SILENT", false);
    top_down();
    acre_close(heap);
}

static void watching_is_a_line_of_json_each_time(void **state)
{
    (void)state;
    char command[512], line[65536];
    double last = 0;

    (void)snprintf(command, sizeof(command), "'%s' -s '%s' stats --json --watch=0.1",
                   getenv("ACRECTL"), d->socket);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    for (int i = 0; i < 4; i++) {
        assert_non_null(fgets(line, sizeof(line), f));
        json_t *json = json_loads(line, 0, NULL);
        assert_non_null(json);
        double now = json_number_value(json_object_get(json, "time"));
        assert_true(now > last);
        last = now;
        assert_true(json_is_false(json_object_get(json, "stale")));
        assert_true(json_is_array(json_object_get(json, "tenants")));
        json_decref(json);
    }
    (void)pclose(f); /* it ends by SIGPIPE */
}

static void without_a_terminal_it_says_so(void **state)
{
    (void)state;
    char command[512], text[256] = "";

    (void)snprintf(command, sizeof(command), "'%s' -s '%s' top </dev/null 2>&1", getenv("ACRECTL"),
                   d->socket);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    assert_non_null(fgets(text, sizeof(text), f));
    assert_string_equal(text, "acrectl: top needs a terminal; stats --watch prints\n");
    assert_int_equal(WEXITSTATUS(pclose(f)), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(one_gets_from_tenants_to_a_clients_classes_and_back, clean_up),
        cmocka_unit_test_teardown(lines_are_sorted_filtered_and_paused, clean_up),
        cmocka_unit_test_teardown(it_goes_on_while_the_daemon_is_stopped, clean_up),
        cmocka_unit_test(watching_is_a_line_of_json_each_time),
        cmocka_unit_test(without_a_terminal_it_says_so),
    };
    return run_beside_daemon(tests, "tenant team { max = \"128M\" }\n"
                                    "tenant \"team/app\" { max = \"64M\" }\n"
                                    "tenant cache { max = \"64M\" }\n");
}
