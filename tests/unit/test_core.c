/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon's core without a loop: fake peers, a fake clock, jobs run by hand; real memfds. A
 * client dies here by unmapping its life page, which is all that the daemon goes by.
 */
/* ctest-labels: valgrind */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#include "daemon/dispatch.h"
#include "daemon/kept.h"
#include "daemon/prepare.h"
#include "daemon/reaper.h"
#include "daemon/reload.h"
#include "daemon/tenant.h"
#include "shm/census.h"
#include "shm/sizeclass.h"
#include "tests/unit/drive.h"
#include "tests/unit/fake_core.h"

#define BIG_BYTES GIB(8)

/* ---- the world ---- */

/* Nothing else: what else is to be done comes after. */
static void keep_segs(void)
{
    while (w.tenant->n_depositing > 0)
        run_one_job(0);
}

static unsigned ticks_until_asleep(unsigned n_max)
{
    unsigned n = 0;
    while (n < n_max && core_deadline(&w.core) != UINT64_MAX) {
        pass(SECOND + 1);
        n++;
    }
    return n;
}

static void start_wish(struct tenant_wish wish, uint64_t capacity_bytes)
{
    struct access_list none = {0};
    start_core(capacity_bytes);
    assert_int_equal(core_add_tenant(&w.core, "t", &wish, &none), 0);
    w.tenant = core_find_tenant(&w.core, "t");
}

static void start(uint64_t max_bytes, uint64_t capacity_bytes)
{
    start_wish((struct tenant_wish){.limits.max_bytes = max_bytes}, capacity_bytes);
}

/* ---- peers ---- */

static int attach_page(struct fake *f)
{
    return attach_page_to(f, "t");
}

/* Asks to attach; nothing is answered before jobs run. */
static void begin_attach(struct fake *f)
{
    struct msg_request req = {.op = MSG_ATTACH, .serial = 9};
    connect_as(f, 0);
    fake_make_page(f);
    strcpy(req.attach.tenant, "t");
    dispatch_request(&w.core, &f->session, &req, 0, fcntl(f->life_fd, F_DUPFD_CLOEXEC, 0),
                     w.now_ns);
}

static void attach(struct fake *f)
{
    attach_to(f, "t");
}

/* ---- memory ---- */

static int grow_as(struct fake *f, uint32_t n, bool exact, unsigned align, unsigned class_plus_1,
                   struct block *ret)
{
    struct msg_request req = {.op = MSG_GROW};
    req.grow.n_units = n;
    req.grow.exact = exact;
    req.grow.align_order = align;
    req.grow.class_plus_1 = class_plus_1;
    int r = ask(f, req);
    if (r == 0 && ret) {
        struct msg_run run = f->reply.grow.run;
        ret->seg = tenant_locate(w.tenant, run.off, false, &ret->unit);
        ret->n_units = run.n_units;
        assert_non_null(ret->seg);
        assert_true(seg_contains(ret->seg, ret->unit, ret->n_units));
    }
    return r;
}

static struct block grow(struct fake *f, uint32_t n)
{
    struct block b;
    assert_int_equal(grow_as(f, n, false, 0, 0, &b), 0);
    return b;
}

static int release(struct fake *f, struct block b)
{
    struct msg_request req = {.op = MSG_RELEASE};
    req.release.n_runs = 1;
    req.release.runs[0] = (struct msg_run){seg_off(b.seg, b.unit), b.n_units};
    return ask(f, req);
}

static uint64_t granted(void)
{
    return w.tenant->control->header.granted_bytes / UNIT_BYTES;
}

static uint64_t resident(void)
{
    uint64_t n = 0;
    struct stat st;
    for (uint32_t slot = 0; slot < w.tenant->n_slots; slot++)
        if (w.tenant->segs[slot] && fstat(w.tenant->segs[slot]->fd, &st) == 0)
            n += (uint64_t)st.st_blocks * 512;
    return n;
}

static tag_t owner_of(struct block b)
{
    return tenant_owner(w.tenant, b.seg, b.unit);
}

static unsigned count_files(const char *dir)
{
    unsigned n = 0;
    DIR *d = opendir(dir);
    while (d && readdir(d))
        n++;
    if (d)
        closedir(d);
    return n;
}

static unsigned count_maps(void)
{
    char line[1024];
    unsigned n = 0;
    FILE *f = fopen("/proc/self/maps", "re");
    while (fgets(line, sizeof(line), f))
        n += strstr(line, "memfd:") != NULL;
    fclose(f);
    return n;
}

/* ---- attach ---- */

static void test_attaching_shows_the_client_in_the_control_page(void **state)
{
    (void)state;
    struct fake a, b;
    start(MIB(64), BIG_BYTES);
    attach(&a);
    attach(&b);
    struct control_client *page = &w.tenant->control->client[a.id];
    assert_int_equal(page->gen, client_handle_gen(a.client));
    assert_int_equal(page->pid, getpid());
    assert_string_equal(page->name, "fake");
    assert_int_not_equal(a.id, b.id);
    assert_int_equal(w.tenant->control->header.n_clients, 2);
    kill_it(&a);
    assert_int_equal(page->gen, 0);
    assert_int_equal(w.tenant->control->header.n_clients, 1);
    kill_it(&b);
    finish();
}

static void refuse_page(int fd)
{
    struct fake f;
    struct msg_request req = {.op = MSG_ATTACH};
    strcpy(req.attach.tenant, "t");
    connect_as(&f, 0);
    assert_int_equal(ask_with(&f, &req, fd), -EPROTO);
    assert_true(f.reply.text[0] != 0);
    hang_up(&f);
}

static int page_fd(uint64_t size, unsigned seals)
{
    int fd = memfd_create("life", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
    return fd;
}

static void test_what_is_no_mapped_life_page_does_not_attach(void **state)
{
    (void)state;
    int pipe_fds[2];
    start(MIB(64), BIG_BYTES);
    refuse_page(-1);
    refuse_page(open("/dev/null", O_RDWR | O_CLOEXEC));
    assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
    refuse_page(pipe_fds[1]);
    close(pipe_fds[0]);
    refuse_page(page_fd(4096, 0)); /* nobody maps it */
    refuse_page(page_fd(4096, F_SEAL_SEAL));
    refuse_page(page_fd(4096, F_SEAL_WRITE));
    refuse_page(page_fd(100, 0));
    refuse_page(page_fd(GIB(1), 0));
    int fd = page_fd(4096, 0); /* mapped, but its content says nothing */
    void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    refuse_page(fd);
    munmap(p, 4096);
    assert_int_equal(w.core.n_clients, 0);
    finish();
}

static void test_access_and_unknown_tenants_have_their_errors(void **state)
{
    (void)state;
    struct fake f;
    struct msg_request req = {.op = MSG_ATTACH};
    start(MIB(64), BIG_BYTES);
    connect_as(&f, 4242);
    strcpy(req.attach.tenant, "t");
    assert_int_equal(ask(&f, req), -EACCES);
    strcpy(req.attach.tenant, "nobody's");
    assert_int_equal(ask(&f, req), -ENOENT);
    struct msg_request drop = {.op = MSG_TENANT_DROP};
    strcpy(drop.tenant_drop.tenant, "t");
    assert_int_equal(ask(&f, drop), -EACCES);
    assert_int_equal(ask(&f, (struct msg_request){.op = MSG_PUBLISH_ALL}), -EINVAL);
    hang_up(&f);
    finish();
}

static void configure(const char *text)
{
    struct config config;
    char path[32], why[MSG_TEXT_BYTES];
    int fd = memfd_create("config", MFD_CLOEXEC);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    if (config_read(&config, path, why, sizeof(why)) < 0)
        fail_msg("%s", why);
    close(fd);
    assert_int_equal(config_complete(&config, BIG_BYTES), 0);
    assert_int_equal(reload_apply(&w.core, &config), 0);
    config_deinit(&config);
}

static int ask_tenant_as(uid_t uid, enum msg_op op, const char *tenant)
{
    struct fake f;
    struct msg_request req = {.op = op};
    connect_as(&f, uid);
    if (op == MSG_ATTACH)
        fake_make_page(&f);
    strcpy(op == MSG_LOOK     ? req.look.tenant
           : op == MSG_ATTACH ? req.attach.tenant
                              : req.tenant_drop.tenant,
           tenant);
    int r = ask_with(&f, &req, op == MSG_ATTACH ? fcntl(f.life_fd, F_DUPFD_CLOEXEC, 0) : -1);
    if (r == -EACCES) { /* who, and what would allow it */
        char who[32];
        snprintf(who, sizeof(who), "user %u may not ", (unsigned)uid);
        assert_non_null(strstr(f.reply.text, who));
        assert_non_null(strstr(f.reply.text, tenant));
        assert_non_null(strstr(f.reply.text, op == MSG_LOOK     ? " look at "
                                             : op == MSG_ATTACH ? " attach to "
                                                                : " drop the heap of "));
        assert_non_null(strstr(f.reply.text, op == MSG_LOOK ? "its read_users or read_groups"
                                             : op == MSG_ATTACH
                                                 ? "its users or groups"
                                                 : "its admin_users or admin_groups"));
    }
    kill_it(&f);
    return r;
}

/* In the order of their rights: to look, to attach, to drop. */
static void expect_rights(uid_t uid, const char *tenant, unsigned n_rights)
{
    static const enum msg_op ops[] = {MSG_LOOK, MSG_ATTACH, MSG_TENANT_DROP};
    for (unsigned i = 0; i < ARRAY_LEN(ops); i++)
        if (ask_tenant_as(uid, ops[i], tenant) != (i < n_rights ? 0 : -EACCES))
            fail_msg("user %u and tenant %s: right %u of %u", uid, tenant, i, n_rights);
}

static uint32_t n_listed(uid_t uid)
{
    struct fake f;
    connect_as(&f, uid);
    assert_int_equal(ask(&f, (struct msg_request){.op = MSG_TENANTS}), 0);
    hang_up(&f);
    return f.reply.tenants.n;
}

static void test_who_may_look_attach_and_administrate_is_told_apart(void **state)
{
    (void)state;
    start(MIB(64), BIG_BYTES);
    configure("admin_users = {\"9\"}\n"
              "tenant \"t\" { max = \"1M\" users = {\"1\"} read_users = {\"2\"} "
              "admin_users = {\"3\"} }\n"
              "tenant \"team\" { max = \"1M\" admin_groups = {\"4\"} read_users = {\"5\"} }\n"
              "tenant \"team/a\" { max = \"1M\" }\n"
              "tenant \"team/a/b\" { max = \"1M\" users = {\"6\"} }\n");
    static const struct {
        uid_t uid;
        unsigned t, b, n_listed;
    } cases[] = {{0, 3, 3, 4}, {9, 3, 3, 4}, {1, 2, 0, 1}, {2, 1, 0, 1}, {3, 3, 0, 1},
                 {4, 0, 3, 3}, {5, 0, 1, 3}, {6, 0, 2, 1}, {7, 0, 0, 0}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        expect_rights(cases[i].uid, "t", cases[i].t);
        expect_rights(cases[i].uid, "team/a/b", cases[i].b);
        assert_int_equal(n_listed(cases[i].uid), cases[i].n_listed);
    }
    finish();
}

static void test_administrators_of_the_daemon_are_named_outside_of_tenants(void **state)
{
    (void)state;
    static const enum msg_op ops[] = {MSG_UPGRADE, MSG_RELOAD};
    struct fake f;
    start(MIB(64), BIG_BYTES);
    for (int round = 0; round < 2; round++) {
        configure(round ? "admin_groups = {\"3\"}\ntenant \"t\" { max = \"1M\" }\n"
                        : "tenant \"t\" { max = \"1M\" admin_users = {\"3\"} }\n");
        for (size_t i = 0; i < ARRAY_LEN(ops); i++) {
            connect_as(&f, 3);
            int r = ask(&f, (struct msg_request){.op = ops[i]});
            /* There is nothing to be read again. */
            assert_int_equal(r, !round ? -EACCES : ops[i] == MSG_RELOAD ? -EOPNOTSUPP : 0);
            if (!round)
                assert_non_null(strstr(f.reply.text, "admin_users or admin_groups outside of any"));
            hang_up(&f);
        }
    }
    w.core.makes_room = false;
    finish();
}

#define OWN_1M "tenant \"user-%u\" { max = \"1M\" }\n"

/* ---- the log ---- */

/* What goes to the log until heard(). */
static int listen_to_log(int *ret_fd)
{
    int saved = dup(STDERR_FILENO);
    *ret_fd = memfd_create("log", MFD_CLOEXEC);
    assert_true(*ret_fd >= 0 && dup2(*ret_fd, STDERR_FILENO) >= 0);
    return saved;
}

static void heard(int saved, int fd, const char *words, unsigned n_lines)
{
    static char text[8192];
    unsigned n = 0;
    ssize_t n_bytes = pread(fd, text, sizeof(text) - 1, 0);
    (void)dup2(saved, STDERR_FILENO);
    close(saved);
    close(fd);
    assert_true(n_bytes >= 0);
    text[n_bytes] = 0;
    for (const char *at = text; (at = strchr(at, '\n')); at++)
        n++;
    if (!strstr(text, words) || n != n_lines)
        fail_msg("not %u lines with \"%s\", but: %s", n_lines, words, text);
}

static void heard_by_reload(const char *config, const char *words, unsigned n_lines)
{
    int fd, saved = listen_to_log(&fd);
    configure(config);
    heard(saved, fd, words, n_lines);
}

static void heard_by(uid_t uid, enum msg_op op, int error, const char *words, unsigned n_lines)
{
    struct fake f;
    struct msg_request req = {.op = op};
    int fd, saved = listen_to_log(&fd);
    connect_as(&f, uid);
    if (op == MSG_TENANT_DROP)
        strcpy(req.tenant_drop.tenant, "t");
    int r = ask(&f, req);
    hang_up(&f);
    heard(saved, fd, words, n_lines);
    assert_int_equal(r, error);
}

static void test_the_log_says_who_administrates_and_what_changes(void **state)
{
    (void)state;
    static const struct config_source source = {.path = "/nonexistent/acre.conf"};
    char who[64];
    start(MIB(64), BIG_BYTES);
    w.core.source = &source;
    heard_by_reload("tenant \"t\" { max = \"1M\" admin_users = {\"3\"} }\n", "", 0); /* the first */
    snprintf(who, sizeof(who), "user 3 (pid %d) drops the heap of tenant t\n", (int)getpid());
    assert_int_equal(ask_tenant_as(0, MSG_LOOK, "t"), 0);
    heard_by(3, MSG_TENANT_DROP, 0, who, 1);
    heard_by(4, MSG_TENANT_DROP, -EACCES, "", 0);
    snprintf(who, sizeof(who), "user 0 (pid %d) has acred replaced", (int)getpid());
    heard_by(0, MSG_UPGRADE, 0, who, 1);
    w.core.makes_room = false;
    heard_by(3, MSG_UPGRADE, -EACCES, "", 0);
    snprintf(who, sizeof(who), "user 0 (pid %d) has the configuration read again", (int)getpid());
    heard_by(0, MSG_RELOAD, -ENOENT, who, 2); /* and why not */
    heard_by_reload("tenant \"t\" { max = \"1M\" admin_users = {\"3\"} }\n", "", 0);
    heard_by_reload("tenant \"t\" { max = \"1M\" admin_users = {\"4\"} }\n",
                    "tenant t: admin_users or admin_groups changed", 1);
    heard_by_reload("tenant \"t\" { max = \"2M\" min = \"1M\" pages = \"thp\" users = {\"4\"} }\n",
                    "tenant t: min 1024 KiB, was 0 KiB", 5);
    heard_by_reload(OWN_1M, "users have tenants user-%u of their own: max 1024 KiB", 2);
    heard_by_reload("admin_groups = {\"1\"}\ntenant \"user-%u\" { max = \"2M\" }\n",
                    "tenant user-%u: max 2048 KiB, was 1024 KiB", 2);
    heard_by_reload("capacity = \"32M\"\ntenant \"t\" { max = \"1M\" }\n",
                    "tenant t is new: max 1024 KiB", 4);
    finish();
}

/* A segment that no client knows may go, and its slot be another's: who keeps a mapping of it would
 * read what is not there. */
static void test_who_reads_is_given_what_lasts_and_roots(void **state)
{
    (void)state;
    struct fake a, reader, looker;
    struct msg_request look = {.op = MSG_LOOK}, map = {.op = MSG_MAP_SEGMENT};
    struct msg_request root = {.op = MSG_ROOT};
    start_wish((struct tenant_wish){.limits.max_bytes = MIB(64), .ready_bytes = MIB(8)}, BIG_BYTES);
    attach(&a);
    pass(SECOND + 1);
    assert_true(w.tenant->n_slots > 0 && !w.tenant->segs[0]->is_known);
    strcpy(look.look.tenant, "t");
    connect_as(&looker, 0);
    assert_int_equal(ask(&looker, look), 0);
    assert_int_equal(ask(&looker, map), 0);
    look.look.reads = true;
    connect_as(&reader, 0);
    strcpy(root.root.name, "r");
    assert_int_equal(ask(&reader, root), -EINVAL); /* it looks at none */
    assert_int_equal(ask(&reader, look), 0);
    assert_int_equal(ask(&reader, map), -ENOENT);
    struct block x = grow(&a, 1);
    map.map_segment.slot = x.seg->slot;
    assert_int_equal(ask(&reader, map), 0);
    assert_int_equal(fcntl(reader.fd, F_GETFL) & O_ACCMODE, O_RDONLY);
    assert_int_equal(ask(&reader, root), -ENOENT);
    fake_cut_large(&a, x, a.id);
    root.root.op = ROOT_SET;
    root.root.desired = seg_off(x.seg, x.unit);
    assert_int_equal(ask(&a, root), 0);
    root.root.op = ROOT_GET;
    assert_int_equal(ask(&reader, root), 0);
    assert_int_equal(reader.reply.root.off, seg_off(x.seg, x.unit));
    for (unsigned op = ROOT_SET; op <= ROOT_DEL; op++) {
        root.root.op = op;
        assert_int_equal(ask(&reader, root), -EINVAL);
    }
    root.root.op = ROOT_GET;
    assert_int_equal(ask(&a, root), 0); /* as it was */
    hang_up(&looker);
    hang_up(&reader);
    kill_it(&a);
    finish();
}

static void test_who_may_no_longer_look_is_told_nothing_more(void **state)
{
    (void)state;
    struct fake f;
    struct msg_request look = {.op = MSG_LOOK};
    start(MIB(64), BIG_BYTES);
    configure("tenant \"t\" { max = \"1M\" read_users = {\"2\"} }\n");
    connect_as(&f, 2);
    strcpy(look.look.tenant, "t");
    assert_int_equal(ask(&f, look), 0);
    assert_int_equal(ask(&f, (struct msg_request){.op = MSG_HOLDERS}), 0);
    configure("tenant \"t\" { max = \"1M\" }\n");
    assert_int_equal(ask(&f, (struct msg_request){.op = MSG_HOLDERS}), -EACCES);
    hang_up(&f);
    finish();
}

/* ---- users' own tenants ---- */

#define BOB 4242u /* who has no name */
#define EVE 4243u

static void attach_as(struct fake *f, uid_t uid, const char *tenant)
{
    connect_as(f, uid);
    fake_make_page(f);
    if (attach_page_to(f, tenant) != 0)
        fail_msg("%s", f->reply.text);
}

static void refuse_to_make(uid_t uid, const char *tenant, int error, const char *words)
{
    struct fake f;
    connect_as(&f, uid);
    fake_make_page(&f);
    assert_int_equal(attach_page_to(&f, tenant), error);
    if (!strstr(f.reply.text, words))
        fail_msg("said: %s", f.reply.text);
    kill_it(&f);
}

static void test_a_users_own_tenant_comes_with_its_user_alone(void **state)
{
    (void)state;
    struct fake bob, again, eve, root;
    start(MIB(64), BIG_BYTES);
    configure(OWN_1M "tenant \"t\" { max = \"1M\" }\n");
    refuse_to_make(EVE, "user-4242", -EACCES, "that of user 4243 is \"user-4243\"");
    refuse_to_make(0, "user-4242", -ENOENT, "that of user 0 is \"user-root\"");
    assert_int_equal(ask_tenant_as(BOB, MSG_LOOK, "user-4242"), -ENOENT);
    attach_as(&bob, BOB, "user-4242");
    attach_as(&again, BOB, "default");
    attach_as(&eve, EVE, "");
    assert_int_equal(bob.session.client->tenant, again.session.client->tenant);
    assert_int_not_equal(bob.session.client->tenant, eve.session.client->tenant);
    assert_string_equal(eve.session.client->tenant->name, "user-4243");
    assert_int_equal(bob.session.client->tenant->budget.limits.max_bytes, MIB(1));
    assert_int_equal(ask_tenant_as(EVE, MSG_ATTACH, "user-4242"), -EACCES);
    refuse_to_make(EVE, "user-bob", -EACCES, "that of user 4243 is \"user-4243\"");
    attach_as(&root, 0, "user-4242");
    assert_int_equal(n_listed(BOB), 1);
    assert_int_equal(n_listed(0), 3);
    expect_rights(EVE, "user-4242", 0);
    kill_it(&bob);
    kill_it(&again);
    kill_it(&eve);
    kill_it(&root);
    finish();
}

/* Of all that a user may have, not of each client. */
static void test_users_have_a_budget_each_and_a_wall_together(void **state)
{
    (void)state;
    struct fake bob, bob_2, eve;
    struct block x;
    uint32_t n = MIB(5) / 4 / UNIT_BYTES;
    start(MIB(64), BIG_BYTES);
    configure("tenant \"home\" { max = \"3M\" admin_users = {\"7\"} }\n"
              "tenant \"home/%u\" { max = \"2M\" }\n");
    attach_as(&bob, BOB, "");
    attach_as(&bob_2, BOB, "home/4242");
    attach_as(&eve, EVE, "");
    w.tenant = bob.session.client->tenant;
    assert_int_equal(grow_as(&bob, n, true, 0, 0, &x), 0);
    fake_cut_large(&bob, x, bob.id);
    assert_int_equal(grow_as(&bob_2, n, true, 0, 0, NULL), -ENOMEM);
    w.tenant = eve.session.client->tenant;
    assert_int_equal(grow_as(&eve, n / 2, true, 0, 0, &x), 0);
    fake_cut_large(&eve, x, eve.id);
    assert_int_equal(grow_as(&eve, n / 2, true, 0, 0, NULL), -ENOMEM);
    assert_int_equal(ask_tenant_as(7, MSG_ATTACH, "home/4242"), 0);
    kill_it(&bob);
    kill_it(&bob_2);
    kill_it(&eve);
    finish();
}

static void test_a_users_own_tenant_goes_when_nothing_is_left_of_it(void **state)
{
    (void)state;
    struct fake bob, eve, looker;
    struct msg_request look = {.op = MSG_LOOK}, drop = {.op = MSG_TENANT_DROP};
    struct msg_request map = {.op = MSG_MAP_SEGMENT};
    start(MIB(64), BIG_BYTES);
    configure(OWN_1M);
    unsigned n_fds = count_files("/proc/self/fd"), n_maps = count_maps();
    attach_as(&bob, BOB, "");
    attach_as(&eve, EVE, "");
    w.tenant = bob.session.client->tenant;
    struct block x = grow(&bob, 4);
    fake_cut_slab(&bob, x, 3, NULL)[0] = bob.id; /* its own: goes with it */
    assert_int_equal(ask(&bob, map), 0);
    void *held = mmap(NULL, 4096, PROT_READ, MAP_SHARED, bob.fd, 0);
    w.tenant = eve.session.client->tenant;
    struct block y = grow(&eve, 4);
    fake_cut_slab(&eve, y, 3, NULL)[0] = TAG_HEAP; /* published */
    connect_as(&looker, 0);
    strcpy(look.look.tenant, "user-4242");
    assert_int_equal(ask(&looker, look), 0);
    assert_int_equal(w.core.n_tenants, 3);
    kill_it(&bob);
    kill_it(&eve);
    assert_int_equal(n_listed(EVE), 1);
    for (int i = 0; i < 5; i++)
        pass(SECOND + 1);
    assert_false(core_find_tenant(&w.core, "user-4242")->is_open);
    assert_int_equal(w.core.n_tenants, 3); /* somebody maps what was its heap's */
    assert_int_equal(w.core.ledger.charged_bytes, 2 * MIB(1));
    munmap(held, 4096);
    pass(SECOND + 1);
    assert_int_equal(w.core.n_tenants, 2);
    assert_null(core_find_tenant(&w.core, "user-4242"));
    assert_null(looker.session.looking);
    assert_int_equal(ask(&looker, (struct msg_request){.op = MSG_HOLDERS}), -ESTALE);
    hang_up(&looker);
    attach_as(&eve, EVE, ""); /* what was published is there */
    assert_int_equal(eve.session.client->tenant, w.tenant);
    kill_it(&eve);
    assert_int_equal(w.core.n_tenants, 2);
    connect_as(&looker, 0);
    strcpy(drop.tenant_drop.tenant, "user-4243");
    assert_int_equal(ask(&looker, drop), 0);
    hang_up(&looker);
    assert_true(ticks_until_asleep(20) < 20);
    assert_int_equal(w.core.n_tenants, 1);
    assert_int_equal(count_files("/proc/self/fd"), n_fds);
    assert_int_equal(count_maps(), n_maps);
    finish();
}

static void test_reloading_changes_users_own_tenants(void **state)
{
    (void)state;
    struct fake bob;
    start(MIB(64), BIG_BYTES);
    configure(OWN_1M);
    attach_as(&bob, BOB, "");
    struct tenant *t = bob.session.client->tenant;
    configure("tenant \"user-%u\" { max = \"2M\" read_users = {\"7\"} }\n");
    assert_int_equal(t->budget.limits.max_bytes, MIB(2));
    assert_int_equal(t->control->header.max_bytes, MIB(2));
    assert_int_equal(ask_tenant_as(7, MSG_LOOK, "user-4242"), 0);
    configure("tenant \"t\" { max = \"1M\" }\n");
    assert_true(t->is_forgotten);
    assert_int_equal(t->budget.limits.max_bytes, 0);
    assert_int_equal(ask_tenant_as(BOB, MSG_ATTACH, "user-4242"), -ENOENT);
    configure("tenant \"u.%u\" { max = \"3M\" }\n"); /* is another one */
    assert_true(t->is_forgotten);
    configure(OWN_1M);
    assert_false(t->is_forgotten);
    assert_int_equal(ask_tenant_as(BOB, MSG_ATTACH, "user-4242"), 0);
    configure(OWN_1M "tenant \"user-4242\" { max = \"4M\" users = {\"4243\"} }\n");
    assert_int_equal(t->budget.limits.max_bytes, MIB(4));
    assert_int_equal(ask_tenant_as(BOB, MSG_ATTACH, "user-4242"), -EACCES);
    assert_int_equal(ask_tenant_as(EVE, MSG_ATTACH, "user-4242"), 0);
    kill_it(&bob);
    for (int i = 0; i < 5; i++)
        pass(SECOND + 1);
    assert_true(t->is_open); /* one with a name stays */
    configure(OWN_1M);
    assert_true(t->is_forgotten);
    finish();
}

static void test_the_default_tenant_is_what_the_configuration_says(void **state)
{
    (void)state;
    struct fake f, again;
    struct msg_request req = {.op = MSG_ATTACH};
    start(MIB(64), BIG_BYTES);
    configure(OWN_1M "tenant \"default\" { max = \"1M\" users = {\"*\"} }\n");
    attach_as(&f, BOB, "");
    assert_string_equal(f.session.client->tenant->name, "default");
    kill_it(&f);
    configure(OWN_1M);
    attach_as(&f, BOB, "default");
    assert_string_equal(f.session.client->tenant->name, "user-4242");
    /* By then it has another user, and knows its tenant by the name that it had asked for. */
    hang_up(&f);
    connect_as(&again, EVE);
    strcpy(req.attach.tenant, "default");
    req.attach.resume_client = f.client;
    memset(req.attach.secret, 0x5a, sizeof(req.attach.secret));
    assert_int_equal(ask(&again, req), 0);
    hang_up(&again);
    req.attach.secret[3] ^= 1;
    connect_as(&again, EVE);
    assert_int_equal(ask(&again, req), -ESRCH);
    hang_up(&again);
    kill_it(&f);
    finish();
}

static void test_who_leaves_while_its_name_is_asked_leaves_nothing(void **state)
{
    (void)state;
    struct fake f[3];
    struct msg_request req = {.op = MSG_ATTACH, .serial = 9};
    start(MIB(64), BIG_BYTES);
    configure(OWN_1M);
    unsigned n_fds = count_files("/proc/self/fd");
    for (unsigned i = 0; i < 3; i++) {
        connect_as(&f[i], BOB + i % 2);
        fake_make_page(&f[i]);
        dispatch_request(&w.core, &f[i].session, &req, 0, fcntl(f[i].life_fd, F_DUPFD_CLOEXEC, 0),
                         w.now_ns);
        assert_int_equal(f[i].session.wait, WAIT_NAME);
    }
    assert_int_equal(w.n_jobs, 1); /* however many wait */
    for (unsigned i = 0; i < 3; i++) {
        fake_unmap_page(&f[i]);
        dispatch_hangup(&w.core, &f[i].session, w.now_ns);
    }
    run_jobs();
    assert_int_equal(count_files("/proc/self/fd"), n_fds);
    assert_int_equal(w.core.n_tenants, 1);
    finish();
}

static void test_another_version_or_layout_is_told_apart(void **state)
{
    (void)state;
    struct fake f = {.fd = -1, .is_open = true};
    struct creds creds = {.pid = getpid()};
    struct msg_request hello = {.op = MSG_HELLO};
    start(MIB(64), BIG_BYTES);
    dispatch_accept(&w.core, &f.session, &f, &creds);
    strcpy(hello.hello.magic, "ACRE");
    hello.hello.version_min = hello.hello.version_max = 99;
    assert_int_equal(ask(&f, hello), -EPROTONOSUPPORT);
    hello.hello.version_min = 1;
    hello.hello.fingerprint = layout_fingerprint() + 1;
    assert_int_equal(ask(&f, hello), -EPROTONOSUPPORT);
    assert_int_equal(ask(&f, (struct msg_request){.op = MSG_STATUS}), 1);
    assert_true(f.told_to_close);
    hang_up(&f);
    finish();
}

static void test_a_hang_up_while_the_page_is_asked_leaves_nothing(void **state)
{
    (void)state;
    struct fake f;
    start(MIB(64), BIG_BYTES);
    begin_attach(&f);
    dispatch_hangup(&w.core, &f.session, w.now_ns);
    f.is_open = false;
    run_jobs();
    assert_int_equal(w.core.n_clients, 0);
    fake_unmap_page(&f);
    finish();
}

/* All others are asked before the first one's sweep is done: the next one serves them all. */
static void test_many_deaths_at_once_are_buried_in_turns(void **state)
{
    (void)state;
    enum { N = 600 };
    static struct fake f[N];
    uint32_t most = 0, n_before;
    start(MIB(64), BIG_BYTES);
    for (int i = 0; i < N; i++)
        attach(&f[i]);
    for (int i = 0; i < N; i++) {
        fake_unmap_page(&f[i]);
        dispatch_hangup(&w.core, &f[i].session, w.now_ns);
        f[i].is_open = false;
    }
    for (void (*asks)(struct job * job) = w.jobs[0]->work; w.n_jobs > 0 && w.core.n_clients > 0;) {
        unsigned i = 0;
        while (i < w.n_jobs && w.jobs[i]->work != asks)
            i++;
        n_before = w.core.n_clients;
        run_one_job(i < w.n_jobs ? i : 0);
        most = MAX(most, n_before - w.core.n_clients);
    }
    while (w.core.n_clients > 0) {
        assert_int_equal(core_deadline(&w.core), w.now_ns);
        n_before = w.core.n_clients;
        pass(1);
        most = MAX(most, n_before - w.core.n_clients);
    }
    assert_in_range(most, 1, N / 2);
    finish();
}

static void test_a_page_that_changes_its_size_before_it_is_sealed_is_refused(void **state)
{
    (void)state;
    struct fake f;
    start(MIB(64), BIG_BYTES);
    begin_attach(&f);
    assert_int_equal(ftruncate(f.life_fd, (off_t)MIB(1)), 0);
    run_jobs();
    assert_int_equal(f.reply.error, -EPROTO);
    assert_int_equal(w.core.n_clients, 0);
    assert_int_equal(ftruncate(f.life_fd, (off_t)sizeof(*f.page)), -1); /* and it stays so */
    hang_up(&f);
    fake_unmap_page(&f);
    finish();
}

static void test_attaches_that_wait_are_forgotten_with_their_connections(void **state)
{
    (void)state;
    static struct fake f[100];
    struct msg_request req = {.op = MSG_ATTACH, .serial = 9};
    strcpy(req.attach.tenant, "t");
    start(MIB(64), BIG_BYTES);
    for (int i = 0; i < 100; i++) {
        connect_as(&f[i], 0);
        fake_make_page(&f[i]);
    }
    unsigned n_files = count_files("/proc/self/fd");
    for (int i = 0; i < 100; i++) /* the first one's page is being asked, the others wait for it */
        dispatch_request(&w.core, &f[i].session, &req, 0, fcntl(f[i].life_fd, F_DUPFD_CLOEXEC, 0),
                         w.now_ns);
    w.core.is_stopping = true; /* as on SIGTERM: nothing new is begun */
    for (int i = 0; i < 100; i++) {
        dispatch_hangup(&w.core, &f[i].session, w.now_ns);
        f[i].is_open = false;
    }
    assert_true(count_files("/proc/self/fd") <= n_files + 6); /* one page and the heap's */
    finish();
    for (int i = 0; i < 100; i++)
        fake_unmap_page(&f[i]);
}

/* ---- descriptors and their acknowledgement ---- */

static void test_a_descriptor_must_be_acknowledged_and_one_request_may_wait_for_it(void **state)
{
    (void)state;
    struct fake f;
    struct msg_request look = {.op = MSG_LOOK, .serial = 5};
    struct msg_request status = {.op = MSG_STATUS, .serial = 6};
    start(MIB(64), BIG_BYTES);
    connect_as(&f, 0);
    strcpy(look.look.tenant, "t");
    dispatch_request(&w.core, &f.session, &look, 0, -1, w.now_ns);
    assert_true(f.fd >= 0);
    uint64_t nonce = f.reply.ack_nonce;
    assert_int_not_equal(nonce, 0);
    dispatch_request(&w.core, &f.session, &status, 0, -1, w.now_ns);
    assert_int_equal(f.reply.serial, 5);
    struct msg_request ack = {.op = MSG_ACK};
    ack.ack.nonce = nonce;
    dispatch_request(&w.core, &f.session, &ack, 0, -1, w.now_ns);
    assert_int_equal(f.reply.serial, 6);
    assert_int_equal(f.reply.op, MSG_STATUS);
    assert_false(f.told_to_close);
    dispatch_request(&w.core, &f.session, &look, 0, -1, w.now_ns);
    ack.ack.nonce = nonce; /* of the one before */
    dispatch_request(&w.core, &f.session, &ack, 0, -1, w.now_ns);
    assert_true(f.told_to_close);
    hang_up(&f);

    connect_as(&f, 0);
    dispatch_request(&w.core, &f.session, &look, 0, -1, w.now_ns);
    dispatch_request(&w.core, &f.session, &status, 0, dup(0), w.now_ns);
    assert_false(f.told_to_close);
    dispatch_request(&w.core, &f.session, &status, 0, -1, w.now_ns);
    assert_true(f.told_to_close);
    hang_up(&f);
    finish();
}

static void test_segments_are_writable_for_clients_and_read_only_for_lookers(void **state)
{
    (void)state;
    struct fake f, looker;
    struct msg_request look = {.op = MSG_LOOK}, map = {.op = MSG_MAP_SEGMENT};
    start(MIB(64), BIG_BYTES);
    attach(&f);
    connect_as(&looker, 0);
    assert_int_equal(ask(&looker, map), -EINVAL);
    strcpy(look.look.tenant, "t");
    assert_int_equal(ask(&looker, look), 0);
    assert_int_equal(ask(&looker, map), -ENOENT);
    struct block b = grow(&f, 1);
    map.map_segment.slot = b.seg->slot;
    assert_int_equal(ask(&f, map), 0);
    assert_int_equal(fcntl(f.fd, F_GETFL) & O_ACCMODE, O_RDWR);
    assert_int_equal(ask(&looker, map), 0);
    assert_int_equal(fcntl(looker.fd, F_GETFL) & O_ACCMODE, O_RDONLY);
    struct segment_shape shape;
    const char *why;
    assert_int_equal(segment_check(f.fd, b.seg->slot, w.tenant->heap_id, &shape, &why), 0);
    hang_up(&looker);
    kill_it(&f);
    finish();
}

/* ---- what the books say ---- */

static int ask_extents(struct fake *f, uint32_t slot, uint32_t unit)
{
    struct msg_request req = {.op = MSG_EXTENTS};
    req.extents.slot = slot;
    req.extents.unit = unit;
    return ask(f, req);
}

static int ask_holders(struct fake *f, tag_t after)
{
    struct msg_request req = {.op = MSG_HOLDERS};
    req.holders.after = after;
    return ask(f, req);
}

static void test_books_are_told_to_those_who_look_and_no_others(void **state)
{
    (void)state;
    struct fake f, looker;
    struct msg_request look = {.op = MSG_LOOK};
    start(MIB(64), BIG_BYTES);
    attach(&f);
    struct block b = grow(&f, 1);
    connect_as(&looker, 0);
    assert_int_equal(ask_extents(&looker, 0, 0), -EINVAL);
    assert_int_equal(ask_holders(&looker, 0), -EINVAL);
    strcpy(look.look.tenant, "t");
    assert_int_equal(ask(&looker, look), 0);
    assert_int_equal(ask_extents(&looker, 1, 0), -ENOENT);
    assert_int_equal(ask_extents(&looker, UINT32_MAX, 0), -ENOENT);
    assert_int_equal(ask_extents(&looker, 0, 0), 0);
    uint64_t changes = looker.reply.extents.changes;
    assert_int_equal(ask_holders(&looker, 0), 0);
    assert_int_equal(looker.reply.holders.changes, changes);
    assert_int_equal(ask_extents(&f, 0, 0), 0);
    assert_int_equal(release(&f, b), 0);
    assert_int_equal(ask_holders(&looker, 0), 0);
    assert_true(looker.reply.holders.changes > changes);
    kill_it(&f);
    assert_int_equal(tenant_close(w.tenant) > 0, 1);
    assert_int_equal(ask_extents(&looker, 0, 0), -ESTALE);
    assert_int_equal(ask_holders(&looker, 0), -ESTALE);
    hang_up(&looker);
    finish();
}

static void test_extents_say_who_has_each_unit(void **state)
{
    (void)state;
    struct fake f;
    start(MIB(64), BIG_BYTES);
    attach(&f);
    struct block b = grow(&f, 4);
    uint32_t n_meta = b.seg->shape.n_meta, n_units = b.seg->shape.n_units, at = n_meta;
    assert_int_equal(ask_extents(&f, 0, 0), 0);
    assert_int_equal(f.reply.extents.unit, n_meta);
    assert_int_equal(f.reply.extents.n_free, buddy_n_free(b.seg->buddy));
    for (uint32_t i = 0; i < f.reply.extents.n; i++) {
        struct msg_extent run = f.reply.extents.runs[i];
        assert_int_equal(run.what, at == b.unit ? f.id : EXTENT_FREE);
        if (at == b.unit)
            assert_int_equal(run.n_units, b.n_units);
        at += run.n_units;
    }
    assert_int_equal(at, n_units);
    assert_int_equal(ask_extents(&f, 0, b.unit + 1), 0);
    assert_int_equal(f.reply.extents.unit, b.unit + 1);
    assert_int_equal(f.reply.extents.runs[0].n_units, b.n_units - 1);
    assert_int_equal(ask_extents(&f, 0, n_units), 0);
    assert_int_equal(f.reply.extents.n, 0);
    assert_int_equal(ask_extents(&f, 0, UINT32_MAX), 0);
    assert_int_equal(f.reply.extents.n, 0);
    kill_it(&f);
    finish();
}

/* Of one segment: how many units the client has there, in *n_parts replies. */
static uint32_t count_extents(struct fake *f, const struct seg *seg, uint32_t *n_parts)
{
    uint32_t n_held = 0, unit = seg->shape.n_meta;
    for (*n_parts = 0; ask_extents(f, seg->slot, unit) == 0 && f->reply.extents.n > 0;) {
        assert_int_equal(f->reply.extents.unit, unit);
        for (uint32_t i = 0; i < f->reply.extents.n; i++) {
            n_held += f->reply.extents.runs[i].what == f->id ? f->reply.extents.runs[i].n_units : 0;
            unit += f->reply.extents.runs[i].n_units;
        }
        ++*n_parts;
    }
    assert_int_equal(unit, seg->shape.n_units);
    return n_held;
}

static void test_many_extents_are_told_in_parts_that_fit_together(void **state)
{
    (void)state;
    struct fake f;
    static struct block b[3500];
    uint32_t n_held = 0, n_parts = 0;
    start(MIB(512), BIG_BYTES);
    attach(&f);
    for (unsigned i = 0; i < ARRAY_LEN(b); i++)
        assert_int_equal(grow_as(&f, 1, true, 0, 0, &b[i]), 0);
    for (unsigned i = 0; i < ARRAY_LEN(b); i += 2)
        assert_int_equal(release(&f, b[i]), 0);
    for (uint32_t slot = 0; slot < w.tenant->n_slots; slot++)
        n_held += count_extents(&f, w.tenant->segs[slot], &n_parts);
    assert_true(n_parts > 1);
    assert_int_equal(n_held, ARRAY_LEN(b) / 2);
    kill_it(&f);
    finish();
}

static void test_a_block_over_several_slots_is_one_extent(void **state)
{
    (void)state;
    struct fake f;
    struct block b;
    uint32_t n = SLOT_UNITS + 77;
    start(GIB(4), BIG_BYTES);
    attach(&f);
    assert_int_equal(grow_as(&f, n, true, 0, 0, &b), 0);
    assert_int_equal(ask_extents(&f, b.seg->slot, 0), 0);
    assert_int_equal(f.reply.extents.unit, b.unit);
    assert_int_equal(f.reply.extents.runs[0].n_units, n);
    assert_int_equal(f.reply.extents.runs[0].what, f.id);
    assert_int_equal(ask_extents(&f, b.seg->slot + 1, 0), -ENOENT);
    assert_int_equal(release(&f, b), 0);
    assert_int_equal(ask_extents(&f, b.seg->slot, 0), 0);
    assert_int_equal(f.reply.extents.n, 1);
    assert_int_equal(f.reply.extents.runs[0].what, EXTENT_FREE);
    assert_int_equal(f.reply.extents.n_free, seg_usable(b.seg));
    kill_it(&f);
    finish();
}

static void test_holders_are_told_in_parts_in_the_order_of_their_ids(void **state)
{
    (void)state;
    static struct fake f[MSG_HOLDERS_MAX + 3];
    start(MIB(64), BIG_BYTES);
    for (unsigned i = 0; i < ARRAY_LEN(f); i++)
        attach(&f[i]);
    struct block b = grow(&f[4], 2);
    assert_int_equal(ask_holders(&f[0], 0), 0);
    assert_int_equal(f[0].reply.holders.n, MSG_HOLDERS_MAX);
    assert_true(f[0].reply.holders.more);
    assert_int_equal(f[0].reply.holders.holders[4].id, f[4].id);
    assert_int_equal(f[0].reply.holders.holders[4].n_units, b.n_units);
    assert_int_equal(f[0].reply.holders.holders[4].gen, client_handle_gen(f[4].client));
    assert_int_equal(f[0].reply.holders.granted_units, granted());
    assert_int_equal(f[0].reply.holders.charged_bytes, w.tenant->budget.charged_bytes);
    assert_int_equal(ask_holders(&f[0], f[MSG_HOLDERS_MAX - 1].id), 0);
    assert_int_equal(f[0].reply.holders.n, 3);
    assert_false(f[0].reply.holders.more);
    assert_int_equal(ask_holders(&f[0], CLIENT_ID_MAX), 0);
    assert_int_equal(f[0].reply.holders.n, 0);
    for (unsigned i = 0; i < ARRAY_LEN(f); i++)
        kill_it(&f[i]);
    finish();
}

/* ---- grants ---- */

static void test_grants_begin_small_and_grow_with_what_is_held(void **state)
{
    (void)state;
    struct fake f;
    uint64_t held = 0, largest = 0;
    start(GIB(1), BIG_BYTES);
    attach(&f);
    struct block b = grow(&f, 1);
    assert_int_equal(b.n_units, 4);
    for (int i = 0; i < 60; i++) {
        held += b.n_units;
        assert_true(b.n_units <= held / 2 + 4 || held == b.n_units);
        largest = MAX(largest, b.n_units);
        b = grow(&f, 1);
    }
    assert_int_equal(largest, 512);
    assert_int_equal(granted(), held + b.n_units);
    assert_int_equal(w.tenant->control->client[f.id].granted_bytes, granted() * UNIT_BYTES);
    kill_it(&f);
    assert_int_equal(granted(), 0);
    finish();
}

static void test_exact_runs_are_exact_and_aligned(void **state)
{
    (void)state;
    struct fake f;
    struct block b;
    start(GIB(1), BIG_BYTES);
    attach(&f);
    for (unsigned align = 0; align <= 10; align++) {
        assert_int_equal(grow_as(&f, 37, true, align, 0, &b), 0);
        assert_int_equal(b.n_units, 37);
        assert_int_equal(b.unit % (1u << align), 0);
    }
    assert_int_equal(grow_as(&f, 5, false, 6, 0, &b), 0);
    assert_true(b.n_units >= 5 && b.unit % 64 == 0);
    assert_int_equal(grow_as(&f, 0, true, 0, 0, NULL), -EINVAL);
    assert_int_equal(grow_as(&f, 1, true, 64, 0, NULL), -EINVAL);
    assert_int_equal(grow_as(&f, 1, true, 40, 0, NULL), -ENOMEM);
    assert_int_equal(grow_as(&f, 1, false, 0, N_CLASSES + 1, NULL), -EINVAL);
    assert_int_equal(grow_as(&f, UINT32_MAX, true, 0, 0, NULL), -ENOMEM);
    kill_it(&f);
    finish();
}

static void test_an_aligned_run_fits_into_the_segment_made_for_it(void **state)
{
    (void)state;
    uint32_t n_units = 512; /* the smallest segment whose tables take three units */
    while (segment_shape(n_units).n_meta < 3)
        n_units++;
    for (unsigned align = 0; align < 4; align++) {
        for (uint32_t n = n_units - 16; n <= n_units; n++) {
            struct fake f;
            start(BIG_BYTES, BIG_BYTES);
            attach(&f);
            assert_int_equal(grow_as(&f, n_units - 4, true, 2, 0, NULL), 0);
            assert_int_equal(w.tenant->budget.charged_bytes / UNIT_BYTES, n_units);
            assert_int_equal(grow_as(&f, n, true, align, 0, NULL), 0);
            core_assert_valid(&w.core);
            kill_it(&f);
            finish();
        }
    }
}

static void test_what_was_asked_in_vain_is_found_when_it_comes_back(void **state)
{
    (void)state;
    struct fake f;
    struct block b[8], part[6];
    unsigned n = 0;
    start(MIB(32), BIG_BYTES);
    attach(&f);
    assert_int_equal(grow_as(&f, 3500, true, 0, 0, &b[0]), 0); /* so that all is in one segment */
    assert_int_equal(release(&f, b[0]), 0);
    for (unsigned i = 0; i < ARRAY_LEN(part); i++)
        assert_int_equal(grow_as(&f, 320, true, 0, 0, &part[i]), 0);
    while (grow_as(&f, 640, true, 0, 0, &b[n]) == 0)
        n++;
    assert_true(n >= 2 && b[1].seg == part[0].seg);
    assert_int_equal(release(&f, b[1]), 0);
    core_assert_valid(&w.core);
    assert_int_equal(grow_as(&f, 640, true, 0, 0, &b[1]), 0);
    assert_int_equal(release(&f, b[1]), 0);
    pass(SECOND + 1);
    for (unsigned i = 0; i < ARRAY_LEN(part); i += 2) /* enough is free, but not in one piece */
        assert_int_equal(release(&f, part[i]), 0);
    (void)core_deadline(&w.core);
    w.now_ns += SECOND + 1;
    core_tick(&w.core, w.now_ns); /* it is out while its pages go */
    assert_int_equal(w.n_jobs, 1);
    assert_false(buddy_is_free(b[1].seg->buddy, b[1].unit));
    struct msg_request req = {.op = MSG_GROW, .serial = 9999, .grow = {.n_units = 640}};
    req.grow.exact = true;
    dispatch_request(&w.core, &f.session, &req, 0, -1, w.now_ns);
    assert_int_equal(f.session.wait, WAIT_MEMORY);
    run_jobs();
    assert_int_equal(f.session.wait, WAIT_NONE);
    assert_int_equal(f.reply.grow.run.n_units, 640);
    core_assert_valid(&w.core);
    kill_it(&f);
    finish();
}

static void populate_three(enum pages_kind pages)
{
    struct fake f[3];
    struct msg_request req = {.op = MSG_GROW, .serial = 1000};
    unsigned n_jobs = 0;
    start(BIG_BYTES, BIG_BYTES);
    assert_int_equal(tenant_open(w.tenant), 0);
    w.tenant->pages = pages;
    for (int i = 0; i < 3; i++)
        attach(&f[i]);
    assert_int_equal(release(&f[0], grow(&f[0], 3 * 8192)), 0); /* a segment is there */
    for (int i = 0; i < 3; i++)
        client_find(w.tenant, f[i].client)->populate = true;
    for (int i = 0; i < 3; i++) { /* 64 MiB, 64 MiB, 32 KiB */
        req.grow.n_units = i < 2 ? 8192 : 4;
        dispatch_request(&w.core, &f[i].session, &req, 0, -1, w.now_ns);
    }
    for (; w.n_jobs > 0; n_jobs++) {
        assert_int_equal(w.n_jobs, 1);
        assert_int_equal(f[2].reply.op == MSG_GROW, n_jobs >= 3); /* not behind the large ones */
        if (n_jobs == 3)
            hang_up(&f[1]);
        if (w.n_jobs > 0)
            run_one_job(0);
    }
    assert_int_equal(f[0].reply.op, MSG_GROW);
    assert_int_equal(f[0].reply.grow.run.n_units, 8192);
    assert_true(resident() >= MIB(64));
    for (int i = 0; i < 3; i++)
        kill_it(&f[i]);
    pass(SECOND);
    assert_int_equal(granted(), 0);
    finish();
}

static void test_populating_takes_one_worker_and_turns(void **state)
{
    (void)state;
    populate_three(PAGES_4K);
    populate_three(PAGES_THP);
}

/* Of which nobody knows who waits: it was asked for on two connections. */
static void test_a_slab_that_was_taken_back_while_it_was_populated_is_not_undone_twice(void **state)
{
    (void)state;
    struct fake a, b, again;
    struct msg_request grow_slab = {.op = MSG_GROW, .serial = 1000};
    struct msg_request resume = {.op = MSG_ATTACH, .serial = 1000};
    struct msg_request ack = {.op = MSG_ACK};
    start(MIB(64), BIG_BYTES);
    attach(&a);
    struct block x = grow(&a, 4);
    fake_cut_slab(&a, x, 5, NULL)[0] = TAG_HEAP;
    kill_it(&a);
    attach(&b);
    client_find(w.tenant, b.client)->populate = true;
    grow_slab.grow.n_units = 1;
    grow_slab.grow.class_plus_1 = 1 + 5;
    dispatch_request(&w.core, &b.session, &grow_slab, 0, -1, w.now_ns);
    assert_int_equal(b.session.wait, WAIT_POPULATE);
    dispatch_hangup(&w.core, &b.session, w.now_ns);
    b.is_open = false;
    connect_as(&again, 0);
    strcpy(resume.attach.tenant, "t");
    resume.attach.resume_client = b.client;
    memset(resume.attach.secret, 0x5a, sizeof(resume.attach.secret));
    dispatch_request(&w.core, &again.session, &resume, 0, -1, w.now_ns);
    while (again.session.wait == WAIT_ATTACH) /* the populating takes longer */
        run_one_job(1);
    ack.ack.nonce = again.reply.ack_nonce;
    dispatch_request(&w.core, &again.session, &ack, 0, -1, w.now_ns);
    client_find(w.tenant, b.client)->populate = true;
    grow_slab.grow.again = true;
    dispatch_request(&w.core, &again.session, &grow_slab, 0, -1, w.now_ns);
    assert_int_equal(again.session.wait, WAIT_POPULATE);
    int fd = dup(x.seg->fd), null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    assert_int_equal(dup2(null_fd, x.seg->fd), x.seg->fd); /* the pages cannot be had */
    while (again.session.wait == WAIT_POPULATE)
        run_one_job(0);
    assert_int_equal(dup2(fd, x.seg->fd), x.seg->fd);
    close(fd);
    close(null_fd);
    assert_int_equal(again.reply.error, -ENOMEM);
    assert_int_equal(owner_of(x), OWNER_ORPHAN);
    core_assert_valid(&w.core);
    hang_up(&again);
    kill_it(&b);
    finish();
}

static void test_stopping_forgets_what_was_to_be_populated(void **state)
{
    (void)state;
    struct fake f[2];
    struct msg_request req = {.op = MSG_GROW, .serial = 1000};
    start(BIG_BYTES, BIG_BYTES);
    for (int i = 0; i < 2; i++) {
        attach(&f[i]);
        client_find(w.tenant, f[i].client)->populate = true;
    }
    req.grow.n_units = 8192;
    for (int i = 0; i < 2; i++)
        dispatch_request(&w.core, &f[i].session, &req, 0, -1, w.now_ns);
    w.core.is_stopping = true;
    for (int i = 0; i < 2; i++) {
        dispatch_hangup(&w.core, &f[i].session, w.now_ns);
        f[i].is_open = false;
    }
    assert_int_equal(w.n_jobs, 1);
    run_one_job(0);
    assert_int_equal(w.n_jobs, 0);
    finish();
    for (int i = 0; i < 2; i++)
        fake_unmap_page(&f[i]);
}

static void test_what_cannot_be_kept_is_granted_to_nobody(void **state)
{
    (void)state;
    struct fake a, b;
    struct block x;
    start(MIB(64), BIG_BYTES);
    w.keep_error = -ETIMEDOUT;
    connect_as(&a, 0);
    fake_make_page(&a);
    assert_int_equal(attach_page(&a), -EIO); /* not even the heap */
    w.keep_error = 0;
    assert_int_equal(attach_page(&a), 0);
    attach(&b);
    w.keep_error = -ETIMEDOUT;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(grow_as(&a, 4, false, 0, 0, &x), -ETIMEDOUT);
        assert_int_equal(granted(), 0);
        assert_int_equal(w.tenant->n_unkept, 1); /* it is tried again, not made again */
        core_assert_valid(&w.core);
    }
    w.keep_error = 0;
    assert_int_equal(grow_as(&b, 4, false, 0, 0, &x), 0);
    assert_int_equal(w.tenant->n_unkept, 0);
    kill_it(&a);
    kill_it(&b);
    finish();
}

/* Of two that are kept by one name the next daemon takes one, and drops both. */
static void test_a_heap_that_is_kept_at_the_second_try_is_kept_once(void **state)
{
    (void)state;
    struct fake a;
    start(MIB(64), BIG_BYTES);
    for (int i = 0; i < 2; i++) {
        w.keep_fails = i == 0 ? KEPT_CONTROL : KEPT_BOOKS;
        connect_as(&a, 0);
        fake_make_page(&a);
        assert_int_equal(attach_page(&a), -EIO);
        assert_int_equal(w.n_kept[KEPT_CONTROL] + w.n_kept[KEPT_BOOKS], 0);
        kill_it(&a);
    }
    w.keep_fails = 0;
    attach(&a);
    assert_int_equal(w.n_kept[KEPT_CONTROL], 1);
    assert_int_equal(w.n_kept[KEPT_BOOKS], 1);
    kill_it(&a);
    finish();
}

/* Who waits for the keeper is alone in that. */
static void test_while_a_segment_is_being_kept_others_are_served(void **state)
{
    (void)state;
    struct fake a, b;
    struct msg_request large = {.op = MSG_GROW, .grow = {.n_units = 2000, .exact = true}};
    start(MIB(64), BIG_BYTES);
    attach(&a);
    attach(&b);
    struct block x = grow(&a, 4);
    assert_int_equal(release(&a, x), 0);
    large.serial = a.session.serial + 1;
    dispatch_request(&w.core, &a.session, &large, 0, -1, w.now_ns);
    assert_int_equal(a.session.wait, WAIT_MEMORY);
    assert_int_equal(w.tenant->n_depositing, 1);
    struct msg_request small = {.op = MSG_GROW, .grow = {.n_units = 4}};
    small.serial = b.session.serial + 1;
    unsigned before = b.n_replies;
    dispatch_request(&w.core, &b.session, &small, 0, -1, w.now_ns);
    assert_int_equal(b.n_replies, before + 1);
    assert_int_equal(b.reply.error, 0);
    keep_segs();
    assert_int_equal(a.session.wait, WAIT_NONE);
    assert_int_equal(a.reply.grow.run.n_units, 2000);
    kill_it(&a);
    kill_it(&b);
    finish();
}

static void test_max_is_a_wall_and_all_of_it_can_be_had(void **state)
{
    (void)state;
    struct fake f;
    uint64_t n = 0;
    int r;
    start(MIB(20), BIG_BYTES);
    attach(&f);
    while ((r = grow_as(&f, 1, true, 0, 0, NULL)) == 0)
        n++;
    assert_int_equal(r, -ENOMEM);
    assert_non_null(strstr(f.reply.text, "20480 KiB"));
    assert_int_equal(w.tenant->budget.charged_bytes, MIB(20));
    assert_in_range(n * UNIT_BYTES, MIB(20) * 99 / 100, MIB(20));
    assert_int_equal(granted(), n);
    kill_it(&f);
    assert_int_equal(granted(), 0);
    assert_int_equal(w.tenant->budget.charged_bytes, MIB(20));
    finish();
}

static void test_the_capacity_is_a_wall_between_tenants(void **state)
{
    (void)state;
    struct fake f;
    int r;
    start(GIB(1), MIB(10));
    attach(&f);
    while ((r = grow_as(&f, 1, false, 0, 0, NULL)) == 0)
        ;
    assert_int_equal(r, -ENOMEM);
    assert_true(w.core.ledger.charged_bytes <= MIB(10));
    kill_it(&f);
    finish();
}

static void test_four_hundred_small_clients_fit_into_64_mib(void **state)
{
    (void)state;
    static struct fake f[400];
    start(MIB(64), BIG_BYTES);
    for (int i = 0; i < 400; i++) {
        attach(&f[i]);
        for (int k = 0; k < 3; k++)
            assert_int_equal(grow_as(&f[i], 4, false, 0, 0, NULL), 0);
    }
    for (int i = 0; i < 400; i++)
        kill_it(&f[i]);
    assert_int_equal(granted(), 0);
    finish();
}

static void test_a_block_beyond_a_slot_has_a_segment_of_its_own(void **state)
{
    (void)state;
    struct fake f;
    struct block big, small;
    start(GIB(8), BIG_BYTES);
    attach(&f);
    small = grow(&f, 1);
    assert_int_equal(grow_as(&f, 2 * SLOT_UNITS, true, 0, 0, &big), 0);
    assert_int_equal(big.n_units, 2 * SLOT_UNITS);
    assert_int_equal(big.seg->n_slots, 3);
    assert_ptr_equal(tenant_seg(w.tenant, big.seg->slot + 2), big.seg);
    assert_null(tenant_seg(w.tenant, big.seg->slot + 3));
    fake_cut_large(&f, big, f.id);
    core_assert_valid(&w.core);
    struct msg_request fl = {.op = MSG_FREE_LARGE};
    fl.free_large.off = seg_off(big.seg, big.unit);
    assert_int_equal(ask(&f, fl), -EINVAL); /* it lives */
    segment_tags(big.seg->base, &big.seg->shape)[big.unit] = TAG_FREE;
    assert_int_equal(ask(&f, fl), 0);
    assert_int_equal(granted(), small.n_units);
    struct block again; /* the segment serves again, for a block of its kind */
    assert_int_equal(grow_as(&f, 2 * SLOT_UNITS - 7, true, 0, 0, &again), 0);
    assert_ptr_equal(again.seg, big.seg);
    fake_cut_large(&f, again, TAG_HEAP);
    kill_it(&f);
    assert_int_equal(owner_of(again), OWNER_ORPHAN);
    assert_int_equal(granted(), 2 * SLOT_UNITS - 7);
    core_assert_valid(&w.core);
    finish();
}

static void test_pages_behind_a_smaller_block_decay_with_it(void **state)
{
    (void)state;
    struct fake f;
    struct block x, y;
    start(GIB(2), BIG_BYTES);
    attach(&f);
    assert_int_equal(grow_as(&f, 200000, true, 0, 0, &x), 0);
    assert_int_equal(pwrite(x.seg->fd, "x", 1, (off_t)199999 << UNIT_SHIFT), 1);
    assert_int_equal(release(&f, x), 0);
    assert_int_equal(grow_as(&f, 140000, true, 0, 0, &y), 0);
    assert_ptr_equal(x.seg, y.seg);
    assert_int_equal(release(&f, y), 0);
    for (unsigned i = 0; i < 3; i++)
        pass(SECOND);
    assert_int_equal(lseek(x.seg->fd, UNIT_BYTES, SEEK_DATA), -1);
    kill_it(&f);
    finish();
}

static void test_only_own_runs_are_taken_back(void **state)
{
    (void)state;
    struct fake a, b;
    start(MIB(64), BIG_BYTES);
    attach(&a);
    attach(&b);
    struct block x = grow(&a, 4), y = grow(&b, 4);
    assert_int_equal(release(&b, x), -EINVAL);
    assert_int_equal(release(&a, (struct block){x.seg, 0, 1}), -EINVAL);
    assert_int_equal(release(&a, (struct block){x.seg, x.unit, 0}), -EINVAL);
    assert_int_equal(release(&a, (struct block){x.seg, x.unit, UINT32_MAX}), -EINVAL);
    assert_int_equal(granted(), x.n_units + y.n_units);
    assert_int_equal(release(&a, (struct block){x.seg, x.unit + 1, 2}), 0);
    assert_int_equal(release(&a, (struct block){x.seg, x.unit + 1, 2}), -EINVAL);
    assert_int_equal(granted(), x.n_units + y.n_units - 2);
    assert_int_equal(unit_entry_state(seg_entry(x.seg, x.unit + 1)), U_FREE);
    assert_int_equal(release(&a, x), -EINVAL); /* what is left of it */
    assert_int_equal(granted(), y.n_units);
    assert_int_equal(release(&a, (struct block){x.seg, x.unit, x.n_units + y.n_units}), -EINVAL);
    assert_int_equal(granted(), y.n_units);
    core_assert_valid(&w.core);
    kill_it(&a);
    kill_it(&b);
    finish();
}

static void test_uncut_units_of_others_serve_before_anyone_is_refused(void **state)
{
    (void)state;
    struct fake sleeper, worker;
    int r;
    start(MIB(8), BIG_BYTES);
    attach(&sleeper);
    attach(&worker);
    struct block used = grow(&sleeper, 1);
    fake_cut_slab(&sleeper, used, 0, NULL)[0] = sleeper.id;
    while ((r = grow_as(&sleeper, 1, true, 0, 0, NULL)) == 0)
        ;
    assert_int_equal(r, -ENOMEM);
    assert_int_equal(grow_as(&worker, 100, true, 0, 0, NULL), 0);
    assert_int_equal(owner_of(used), sleeper.id);
    core_assert_valid(&w.core);
    kill_it(&sleeper);
    kill_it(&worker);
    assert_int_equal(granted(), 0);
    finish();
}

/* ---- large blocks ---- */

static void test_a_large_block_comes_back_by_whoever_freed_it(void **state)
{
    (void)state;
    struct fake a, b;
    struct block x;
    struct msg_request fl = {.op = MSG_FREE_LARGE};
    start(MIB(64), BIG_BYTES);
    attach(&a);
    attach(&b);
    assert_int_equal(grow_as(&a, 20, true, 0, 0, &x), 0);
    fl.free_large.off = seg_off(x.seg, x.unit);
    assert_int_equal(ask(&b, fl), -EINVAL); /* uncut */
    fake_cut_large(&a, x, b.id);
    assert_int_equal(ask(&b, fl), -EINVAL); /* alive */
    segment_tags(x.seg->base, &x.seg->shape)[x.unit] = TAG_FREE;
    fl.free_large.off += UNIT_BYTES;
    assert_int_equal(ask(&b, fl), -EINVAL); /* inside */
    fl.free_large.off -= UNIT_BYTES;
    assert_int_equal(ask(&b, fl), 0);
    assert_int_equal(granted(), 0);
    assert_int_equal(ask(&b, fl), -EINVAL);
    fl.free_large.off = UINT64_MAX;
    assert_int_equal(ask(&b, fl), -EINVAL);
    kill_it(&a);
    kill_it(&b);
    finish();
}

static void test_a_large_block_given_to_the_dead_comes_back_from_the_living(void **state)
{
    (void)state;
    struct fake a, b;
    struct block x;
    start(MIB(64), BIG_BYTES);
    attach(&a);
    attach(&b);
    assert_int_equal(grow_as(&a, 20, true, 0, 0, &x), 0);
    fake_cut_large(&a, x, b.id); /* a holds the units, b owns the block */
    kill_it(&b);
    assert_int_equal(granted(), 0);
    core_assert_valid(&w.core);
    kill_it(&a);
    finish();
}

static void test_many_large_orphans_cost_no_time(void **state)
{
    (void)state;
    enum { N = 100000 };
    struct fake a, b, c;
    struct block x;
    start(GIB(1), BIG_BYTES);
    attach(&a);
    attach(&b);
    attach(&c);
    assert_int_equal(grow_as(&a, N, true, 0, 0, &x), 0);
    for (uint32_t i = 0; i < N; i++) /* a holds the units, b owns the blocks */
        fake_cut_large(&a, (struct block){x.seg, x.unit + i, 1}, b.id);
    kill_it(&a);
    pass(0);
    assert_int_equal(granted(), N);
    clock_t began = clock();
    assert_int_equal(grow_as(&c, N, true, 0, 0, NULL), -ENOMEM);
    kill_it(&b);
    pass(SECOND);
    assert_int_equal(granted(), 0);
    printf("%u large orphans: %ld ms\n", N, (clock() - began) * 1000 / CLOCKS_PER_SEC);
    assert_true((clock() - began) / CLOCKS_PER_SEC < 3); /* looked for one by one: 5 s */
    core_assert_valid(&w.core);
    kill_it(&c);
    finish();
}

static void test_a_burial_of_many_slabs_takes_many_turns(void **state)
{
    (void)state;
    enum { N = 50000 };
    struct fake a, b;
    struct block x;
    unsigned n_turns = 0;
    start(BIG_BYTES, BIG_BYTES);
    attach(&a);
    attach(&b);
    assert_int_equal(grow_as(&a, N, true, 0, 0, &x), 0);
    for (uint32_t i = 0; i < N; i++)
        fake_cut_slab(&a, (struct block){x.seg, x.unit + i, 1}, 0, NULL)[3] =
            i % 2 ? b.id : TAG_FREE;
    kill_it(&a);
    for (; w.tenant->clients.n > 1; n_turns++) {
        assert_int_equal(core_deadline(&w.core), w.now_ns); /* the rest is due at once */
        assert_int_equal(w.n_jobs, 0);                      /* and no sweep begins before */
        core_assert_valid(&w.core);
        kill_it(&b);
        pass(0);
    }
    assert_true(n_turns > 10);
    for (unsigned i = 0; i < 20 && granted() > 0; i++)
        pass(SECOND); /* b was swept after a; some orphans each tick */
    assert_int_equal(granted(), 0);
    core_assert_valid(&w.core);
    finish();
}

static void test_a_search_through_many_orphans_takes_many_turns(void **state)
{
    (void)state;
    enum { N = 50000 };
    struct fake a, b, c, last;
    struct block x;
    struct msg_request req = {.op = MSG_GROW, .serial = 1000};
    unsigned n_turns = 0;
    start(MIB(512), BIG_BYTES);
    attach(&a);
    attach(&b);
    attach(&c);
    attach(&last);
    assert_int_equal(grow_as(&a, N, true, 0, 0, &x), 0);
    for (uint32_t i = 0; i < N; i++) /* all but the last ones are b's */
        fake_cut_slab(&a, (struct block){x.seg, x.unit + i, 1}, 0, NULL)[3] =
            i < N - 100 ? b.id : c.id;
    kill_it(&a);
    while (w.tenant->clients.n > 3)
        pass(0);
    for (uint32_t i = N - 100; i < N; i++) /* freed, and the hints are lost */
        *(tag_t *)(void *)(x.seg->base + ((uint64_t)(x.unit + i) << UNIT_SHIFT) + 6) = TAG_FREE;
    assert_int_equal(granted(), N);
    assert_int_equal(grow_as(&c, 15000, true, 0, 0, NULL), 0); /* all the rest but little */

    req.grow.n_units = 90;
    req.grow.exact = true;
    while (grow_as(&b, 40, true, 0, 0, NULL) == 0 && granted() < 65536 - 400)
        ;
    struct fake *asking[] = {&c, &last};
    for (int i = 0; i < 2; i++) {
        req.grow.n_units = i == 0 ? 90 : 60000;
        dispatch_request(&w.core, &asking[i]->session, &req, 0, -1, w.now_ns);
    }
    for (; c.session.wait == WAIT_MEMORY || last.session.wait == WAIT_MEMORY; n_turns++) {
        assert_int_equal(core_deadline(&w.core), w.now_ns);
        pass(1);
    }
    assert_int_equal(c.reply.error, 0);
    assert_int_equal(last.reply.error, -ENOMEM);
    assert_true(n_turns > 10 && n_turns < 100); /* one search for both */
    core_assert_valid(&w.core);
    kill_it(&b);
    kill_it(&c);
    kill_it(&last);
    finish();
}

static void test_a_release_of_all_units_64_times_takes_turns(void **state)
{
    (void)state;
    struct fake a;
    struct block x, y;
    struct msg_request req = {.op = MSG_RELEASE, .release = {.n_runs = MSG_RUNS_MAX}};
    unsigned n_turns = 0;
    start(GIB(1), GIB(1));
    attach(&a);
    assert_int_equal(grow_as(&a, 60000, true, 0, 0, &x), 0);
    assert_int_equal(grow_as(&a, 1, true, 0, 0, &y), 0);
    uint32_t unit = x.seg->shape.n_meta, n = x.seg->shape.n_units - unit;
    for (uint32_t i = 0; i < MSG_RUNS_MAX; i++)
        req.release.runs[i] = (struct msg_run){seg_off(x.seg, unit), n};
    req.serial = 1000;
    dispatch_request(&w.core, &a.session, &req, 0, -1, w.now_ns);
    for (; a.session.wait == WAIT_RELEASE; n_turns++) {
        assert_int_equal(core_deadline(&w.core), w.now_ns);
        pass(1);
    }
    assert_int_equal(a.reply.error, -EINVAL);
    assert_true(n_turns > 10 && n_turns < MSG_RUNS_MAX);
    assert_int_equal(granted(), y.seg == x.seg ? 0 : 1);

    a.session.serial = req.serial = 1001; /* and hung up in the midst of it */
    dispatch_request(&w.core, &a.session, &req, 0, -1, w.now_ns);
    assert_int_equal(a.session.wait, WAIT_RELEASE);
    kill_it(&a);
    assert_true(TAILQ_EMPTY(&w.core.releasing));
    core_assert_valid(&w.core);
    finish();
}

static void test_many_who_wait_are_tried_in_many_turns(void **state)
{
    (void)state;
    enum { N = 100 };
    static struct fake f[N];
    struct fake a;
    struct msg_request req = {.op = MSG_GROW, .serial = 1000};
    struct block x;
    unsigned n_turns = 0;
    start(MIB(8), BIG_BYTES);
    attach(&a);
    assert_int_equal(grow_as(&a, 900, true, 0, 0, &x), 0);
    fake_cut_large(&a, x, a.id);
    for (int i = 0; i < N; i++)
        attach(&f[i]);
    fake_unmap_page(&a); /* while it is asked, and swept, the others wait */
    dispatch_hangup(&w.core, &a.session, w.now_ns);
    a.is_open = false;
    for (int i = 0; i < N; i++) {
        req.grow.n_units = i < 2 ? 200 : 2000; /* two can be served then */
        req.grow.exact = true;
        dispatch_request(&w.core, &f[i].session, &req, 0, -1, w.now_ns);
    }
    assert_int_equal(w.tenant->n_waiters, N);
    for (int i = 0; i < 5; i++) /* they leave by themselves, too */
        hang_up(&f[N - 1 - i]);
    for (; w.tenant->n_waiters > 0 || w.n_jobs > 0; n_turns++) {
        run_jobs();
        pass(1);
    }
    assert_true(n_turns >= 5);
    for (int i = 0; i < N - 5; i++)
        assert_int_equal(f[i].reply.error, i < 2 ? 0 : -ENOMEM);
    core_assert_valid(&w.core);
    for (int i = 0; i < N; i++)
        kill_it(&f[i]);
    finish();
}

static void test_large_blocks_whose_freer_died_are_found_before_a_refusal(void **state)
{
    (void)state;
    struct fake a, b;
    struct block x;
    start(MIB(4), BIG_BYTES);
    attach(&a);
    attach(&b);
    assert_int_equal(grow_as(&a, 400, true, 0, 0, &x), 0);
    fake_cut_large(&a, x, TAG_FREE);
    assert_int_equal(grow_as(&b, 300, true, 0, 0, NULL), 0);
    core_assert_valid(&w.core);
    kill_it(&a);
    kill_it(&b);
    finish();
}

/* ---- death ---- */

static void test_what_the_dead_owned_comes_back_and_what_others_own_stays(void **state)
{
    (void)state;
    struct fake a, b;
    start(MIB(64), BIG_BYTES);
    attach(&a);
    attach(&b);
    struct block lost = grow(&a, 4), kept = grow(&a, 4), others = grow(&b, 4);
    tag_t *l = fake_cut_slab(&a, lost, 2, NULL), *k = fake_cut_slab(&a, kept, 2, NULL);
    tag_t *o = fake_cut_slab(&b, others, 2, NULL);
    l[0] = l[7] = a.id;
    k[0] = a.id;
    k[1] = b.id;
    k[2] = TAG_HEAP;
    o[3] = a.id;
    o[4] = b.id;
    kill_it(&a);
    assert_int_equal(k[0], TAG_FREE);
    assert_int_equal(k[1], b.id);
    assert_int_equal(k[2], TAG_HEAP);
    assert_int_equal(o[3], TAG_FREE);
    assert_int_equal(o[4], b.id);
    assert_int_equal(segment_hints(others.seg->base, &others.seg->shape)[others.unit], 1);
    assert_int_equal(owner_of(lost), OWNER_NONE);
    assert_int_equal(owner_of(kept), OWNER_ORPHAN);
    assert_int_equal(unit_entry_state(seg_entry(kept.seg, kept.unit)), U_PARKED);
    assert_int_equal(unit_entry_holder(seg_entry(kept.seg, kept.unit)), HOLDER_NOBODY);
    assert_int_equal(w.tenant->control->header.sweep_seq % 2, 0);
    core_assert_valid(&w.core);
    kill_it(&b);
    assert_int_equal(k[1], TAG_FREE);
    assert_int_equal(owner_of(kept), OWNER_ORPHAN); /* the heap's block is in it */
    finish();
}

/* The offset of the block whose tag is the idx'th of a slab made by fake_cut_slab(). */
static uint64_t small_off(struct block b, unsigned geo, unsigned idx)
{
    return seg_off(b.seg, b.unit) + geo_table[geo].first + idx * geo_table[geo].size;
}

static void test_a_block_that_the_dead_had_linked_is_the_heaps(void **state)
{
    (void)state;
    struct fake a, b;
    unsigned geo;
    start(MIB(64), BIG_BYTES);
    attach(&a);
    attach(&b);
    struct block small = grow(&a, 4), large = grow(&a, 4), table = grow(&b, 4);
    tag_t *tags = fake_cut_slab(&a, small, 2, &geo);
    tags[0] = tags[1] = a.id;
    tags[2] = b.id;
    fake_cut_large(&a, large, a.id);
    uint64_t *slots = (uint64_t *)(void *)(table.seg->base + ((uint64_t)table.unit << UNIT_SHIFT));
    uint64_t slots_off = seg_off(table.seg, table.unit);
    slots[0] = small_off(small, geo, 0);
    slots[1] = 0; /* taken: small 1 */
    slots[2] = small_off(small, geo, 2);
    slots[3] = seg_off(large.seg, large.unit);
    struct intent *lines = a.page->intents;
    lines[5] = (struct intent){small_off(small, geo, 0), slots_off};
    lines[0] = (struct intent){small_off(small, geo, 1), slots_off + 8};
    lines[1] = (struct intent){small_off(small, geo, 2), slots_off + 16}; /* a lie */
    lines[INTENTS - 1] = (struct intent){slots[3], slots_off + 24};
    kill_it(&a);
    assert_int_equal(tags[0], TAG_HEAP);
    assert_int_equal(tags[1], TAG_FREE);
    assert_int_equal(tags[2], b.id);
    assert_int_equal(segment_tags(large.seg->base, &large.seg->shape)[large.unit], TAG_HEAP);
    assert_int_equal(owner_of(large), OWNER_ORPHAN);
    assert_true(slots[0] != 0 && slots[1] == 0 && slots[3] != 0);
    core_assert_valid(&w.core);
    kill_it(&b);
    finish();
}

static void test_what_was_given_to_one_that_is_gone_is_free_with_the_next_death(void **state)
{
    (void)state;
    struct fake gone, giver, holder;
    start(MIB(64), BIG_BYTES);
    attach(&gone);
    attach(&giver);
    attach(&holder);
    struct block b = grow(&holder, 4);
    tag_t *tags = fake_cut_slab(&holder, b, 2, NULL);
    tags[0] = giver.id;
    tags[1] = holder.id;
    kill_it(&gone);
    tags[0] = gone.id; /* the giver had looked before that, and looks no more */
    kill_it(&giver);
    assert_int_equal(tags[0], TAG_FREE);
    assert_int_equal(tags[1], holder.id);
    kill_it(&holder);
    finish();
}

static void test_a_sweep_that_fails_is_done_again_before_anybody_is_buried(void **state)
{
    (void)state;
    struct fake a;
    start(MIB(64), BIG_BYTES);
    attach(&a);
    struct block b = grow(&a, 4);
    tag_t *tags = fake_cut_slab(&a, b, 2, NULL);
    tags[0] = a.id;
    /* The daemon's copy of the page becomes something that cannot be read: after it was asked. */
    fake_unmap_page(&a);
    dispatch_hangup(&w.core, &a.session, w.now_ns);
    a.is_open = false;
    run_one_job(0); /* the question */
    int life_fd = w.tenant->clients.by_id[a.id]->life_fd, good = dup(life_fd);
    int bad = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(good >= 0 && bad >= 0 && dup2(bad, life_fd) == life_fd);
    run_jobs();
    assert_int_equal(tags[0], a.id);
    assert_int_equal(w.tenant->control->header.n_clients, 1);
    assert_int_equal(w.tenant->control->header.sweep_seq % 2, 0);
    assert_true(core_deadline(&w.core) > w.now_ns);
    assert_true(dup2(good, life_fd) == life_fd);
    close(good);
    close(bad);
    pass(SECOND);
    assert_int_equal(w.tenant->control->header.n_clients, 0);
    assert_int_equal(owner_of(b), OWNER_NONE);
    finish();
}

static void test_orphans_go_to_who_asks_for_their_class_or_free_when_empty(void **state)
{
    (void)state;
    struct fake a, b;
    struct block x;
    start(MIB(64), BIG_BYTES);
    attach(&a);
    struct block one = grow(&a, 4), two = grow(&a, 4);
    unsigned geo;
    tag_t *t1 = fake_cut_slab(&a, one, 5, &geo), *t2 = fake_cut_slab(&a, two, 6, NULL);
    t1[0] = t2[0] = TAG_HEAP;
    kill_it(&a);
    attach(&b);
    assert_int_equal(grow_as(&b, 1, false, 0, 1 + 5, &x), 0);
    assert_true(b.reply.grow.slab);
    assert_ptr_equal(x.seg, one.seg);
    assert_int_equal(x.unit, one.unit);
    assert_int_equal(x.n_units, 1u << geo_infos[geo].order);
    assert_int_equal(unit_entry_state(seg_entry(x.seg, x.unit)), U_PARKED);
    assert_int_equal(unit_entry_holder(seg_entry(x.seg, x.unit)), holder_token(b.id, 0));
    assert_int_equal(grow_as(&b, 1, false, 0, 1 + 5, &x), 0);
    assert_false(b.reply.grow.slab); /* there was one */
    uint64_t before = granted();
    t2[0] = TAG_FREE; /* somebody frees the last block, with its hint */
    segment_hints(two.seg->base, &two.seg->shape)[two.unit] = 1;
    pass(2 * SECOND);
    assert_true(granted() < before);
    assert_int_equal(owner_of(two), OWNER_NONE);
    core_assert_valid(&w.core);
    kill_it(&b);
    finish();
}

static void test_a_full_orphan_is_not_granted(void **state)
{
    (void)state;
    struct fake a, b;
    unsigned geo;
    start(MIB(64), BIG_BYTES);
    attach(&a);
    struct block one = grow(&a, 4);
    tag_t *t = fake_cut_slab(&a, one, 20, &geo);
    for (unsigned i = 0; i < geo_infos[geo].n_blocks; i++)
        t[i] = TAG_HEAP;
    kill_it(&a);
    attach(&b);
    assert_int_equal(grow_as(&b, 1, false, 0, 1 + 20, NULL), 0);
    assert_false(b.reply.grow.slab);
    kill_it(&b);
    finish();
}

static void test_a_client_that_hung_up_and_lives_is_asked_again_and_may_resume(void **state)
{
    (void)state;
    struct fake a, again;
    start(MIB(64), BIG_BYTES);
    attach(&a);
    struct block x = grow(&a, 4);
    hang_up(&a);
    pass(20 * SECOND);
    pass(20 * SECOND);
    assert_int_equal(w.core.n_clients, 1);
    assert_int_equal(owner_of(x), a.id);
    assert_true(core_deadline(&w.core) <= w.now_ns + SECOND);

    struct msg_request req = {.op = MSG_ATTACH};
    strcpy(req.attach.tenant, "t");
    req.attach.resume_client = a.client;
    memset(req.attach.secret, 0x11, sizeof(req.attach.secret));
    connect_as(&again, 0);
    assert_int_equal(ask(&again, req), -ESRCH); /* a wrong secret */
    memset(req.attach.secret, 0x5a, sizeof(req.attach.secret));
    assert_int_equal(ask(&again, req), 0);
    assert_int_equal(again.reply.attach.client, a.client);
    again.client = a.client;
    again.id = a.id;
    assert_int_equal(release(&again, x), 0);
    fake_unmap_page(&a);
    hang_up(&again);
    assert_int_equal(w.core.n_clients, 0);
    connect_as(&again, 0);
    assert_int_equal(ask(&again, req), -ESRCH);
    hang_up(&again);
    finish();
}

static void test_a_user_has_so_many_clients_and_no_more(void **state)
{
    (void)state;
    struct fake f[4];
    start(MIB(64), BIG_BYTES);
    w.tenant->access.of[ACCESS_ATTACH].everyone = true;
    w.core.n_user_lives_max = 2;
    for (int i = 0; i < 2; i++) {
        connect_as(&f[i], 1000);
        fake_make_page(&f[i]);
        assert_int_equal(attach_page(&f[i]), 0);
        hang_up(&f[i]); /* and stays mapped: it lives, and costs its descriptors */
    }
    connect_as(&f[2], 1000);
    fake_make_page(&f[2]);
    assert_int_equal(attach_page(&f[2]), -EAGAIN);
    connect_as(&f[3], 1001); /* the others go on */
    fake_make_page(&f[3]);
    assert_int_equal(attach_page(&f[3]), 0);
    fake_unmap_page(&f[0]);
    pass(SECOND);
    pass(SECOND);
    assert_int_equal(attach_page(&f[2]), 0);
    kill_it(&f[2]);
    kill_it(&f[3]);
    finish(); /* one lives on: the daemon leaves all the same */
    fake_unmap_page(&f[1]);
}

static void test_a_life_page_with_memory_beyond_its_end_is_refused(void **state)
{
    (void)state;
    struct fake a;
    start(MIB(64), BIG_BYTES);
    connect_as(&a, 0);
    fake_make_page(&a);
    off_t bytes = (off_t)sizeof(struct life_page);
    assert_int_equal(fallocate(a.life_fd, FALLOC_FL_KEEP_SIZE, bytes, (off_t)MIB(8)), 0);
    assert_int_equal(attach_page(&a), -EPROTO);
    assert_int_equal(ftruncate(a.life_fd, bytes), 0); /* nor is its size for good then */
    assert_int_equal(attach_page(&a), 0);
    /* As it is attached it stays. */
    assert_int_equal(fallocate(a.life_fd, FALLOC_FL_KEEP_SIZE, bytes, (off_t)MIB(8)), -1);
    assert_int_equal(errno, EPERM);
    kill_it(&a);
    finish();
}

static void test_all_together_have_so_many_clients_and_no_more(void **state)
{
    (void)state;
    struct fake f[3];
    start(MIB(64), BIG_BYTES);
    w.core.n_lives_max = 2;
    for (int i = 0; i < 3; i++) {
        connect_as(&f[i], 0);
        fake_make_page(&f[i]);
    }
    assert_int_equal(attach_page(&f[0]), 0);
    /* Who attaches counts before it is a client. */
    assert_int_equal(user_add(&w.core.users, 7, USER_LIVES), 0);
    assert_int_equal(attach_page(&f[1]), -EAGAIN);
    assert_non_null(strstr(f[1].reply.text, "descriptors"));
    user_drop(&w.core.users, 7, USER_LIVES);
    fake_unmap_page(&f[2]); /* comes to nothing, and does not count any more */
    assert_int_equal(attach_page(&f[2]), -EPROTO);
    assert_int_equal(w.core.users.n[USER_LIVES], 1);
    assert_int_equal(attach_page(&f[1]), 0);
    assert_int_equal(w.core.users.n[USER_LIVES], 2);
    kill_it(&f[0]);
    kill_it(&f[1]);
    hang_up(&f[2]);
    assert_int_equal(w.core.users.n[USER_LIVES], 0);
    finish();
}

static void test_resuming_ends_the_old_connection(void **state)
{
    (void)state;
    struct fake a, again;
    struct msg_request req = {.op = MSG_ATTACH};
    start(MIB(64), BIG_BYTES);
    attach(&a);
    strcpy(req.attach.tenant, "t");
    req.attach.resume_client = a.client;
    memset(req.attach.secret, 0x5a, sizeof(req.attach.secret));
    connect_as(&again, 0);
    assert_int_equal(ask(&again, req), 0);
    assert_true(a.told_to_close);
    hang_up(&a);
    assert_int_equal(w.core.n_clients, 1);
    fake_unmap_page(&a);
    hang_up(&again);
    assert_int_equal(w.core.n_clients, 0);
    finish();
}

static void test_a_page_sealed_against_sealing_dies_with_its_hang_up(void **state)
{
    (void)state;
    struct fake a;
    start(MIB(64), BIG_BYTES);
    attach(&a);
    assert_int_equal(fcntl(a.life_fd, F_ADD_SEALS, F_SEAL_SEAL), 0);
    hang_up(&a);
    assert_int_equal(w.core.n_clients, 0);
    fake_unmap_page(&a);
    finish();
}

static void test_detaching_is_answered_when_the_memory_is_back(void **state)
{
    (void)state;
    struct fake a;
    start(MIB(64), BIG_BYTES);
    attach(&a);
    struct block x = grow(&a, 4);
    fake_cut_slab(&a, x, 1, NULL)[0] = a.id;
    fake_unmap_page(&a);
    assert_int_equal(ask(&a, (struct msg_request){.op = MSG_DETACH}), 0);
    assert_int_equal(granted(), 0);
    assert_int_equal(w.core.n_clients, 0);
    assert_int_equal(ask(&a, (struct msg_request){.op = MSG_STATUS}), 0);
    fake_make_page(&a);
    assert_int_equal(attach_page(&a), 0); /* the same connection, a new client */
    assert_int_equal(ask(&a, (struct msg_request){.op = MSG_DETACH}),
                     1); /* while it maps its page */
    fake_unmap_page(&a);
    pass(SECOND);
    assert_int_equal(a.reply.error, 0);
    assert_int_equal(w.core.n_clients, 0);
    hang_up(&a);
    finish();
}

static void test_who_asks_while_the_dead_are_swept_gets_what_they_leave(void **state)
{
    (void)state;
    struct fake a, b;
    start(MIB(4), BIG_BYTES);
    attach(&a);
    attach(&b);
    struct block x;
    assert_int_equal(grow_as(&a, 400, true, 0, 0, &x), 0);
    fake_cut_large(&a, x, a.id);
    fake_unmap_page(&a);
    dispatch_hangup(&w.core, &a.session, w.now_ns); /* no job has run yet */
    struct msg_request req = {.op = MSG_GROW, .serial = 77};
    req.grow.n_units = 400;
    req.grow.exact = true;
    unsigned before = b.n_replies;
    dispatch_request(&w.core, &b.session, &req, 0, -1, w.now_ns);
    assert_int_equal(b.n_replies, before);
    run_jobs();
    assert_int_equal(b.n_replies, before + 1);
    assert_int_equal(b.reply.error, 0);
    close_fd(&a.fd);
    kill_it(&b);
    finish();
}

static void test_publishing_all_makes_it_outlive_the_client(void **state)
{
    (void)state;
    struct fake a, b;
    struct block large;
    start(MIB(64), BIG_BYTES);
    attach(&a);
    attach(&b);
    struct block x = grow(&a, 4);
    tag_t *t = fake_cut_slab(&a, x, 3, NULL);
    t[0] = a.id;
    t[1] = b.id;
    assert_int_equal(grow_as(&a, 9, true, 0, 0, &large), 0);
    fake_cut_large(&a, large, a.id);
    assert_int_equal(ask(&a, (struct msg_request){.op = MSG_PUBLISH_ALL}), 0);
    assert_int_equal(t[0], TAG_HEAP);
    assert_int_equal(t[1], b.id);
    assert_int_equal(w.tenant->control->client[a.id].gen, client_handle_gen(a.client));
    kill_it(&a);
    kill_it(&b);
    assert_int_equal(t[0], TAG_HEAP);
    assert_int_equal(t[1], TAG_FREE);
    assert_int_equal(owner_of(large), OWNER_ORPHAN);
    assert_int_equal(core_published_bytes(&w.core), 64 + 9 * UNIT_BYTES);
    finish();
}

/* ---- roots ---- */

static int root_do(struct fake *f, enum root_op op, const char *name, uint64_t expected,
                   uint64_t desired)
{
    struct msg_request req = {.op = MSG_ROOT};
    req.root.op = op;
    strcpy(req.root.name, name);
    req.root.expected = expected;
    req.root.desired = desired;
    return ask(f, req);
}

static void test_roots_publish_and_keep_their_rules(void **state)
{
    (void)state;
    struct fake a, b;
    struct block large;
    unsigned geo;
    start(MIB(64), BIG_BYTES);
    attach(&a);
    attach(&b);
    struct block x = grow(&a, 4);
    tag_t *t = fake_cut_slab(&a, x, 3, &geo);
    t[0] = a.id;
    t[1] = b.id;
    t[2] = TAG_HEAP;
    uint64_t first = seg_off(x.seg, x.unit) + geo_table[geo].first, size = geo_table[geo].size;
    assert_int_equal(root_do(&a, ROOT_GET, "r", 0, 0), -ENOENT);
    assert_int_equal(root_do(&a, ROOT_SET, "", 0, first), -EINVAL);
    assert_int_equal(root_do(&a, ROOT_SET, "r", 0, first + 8), -EINVAL);
    assert_int_equal(root_do(&a, ROOT_SET, "r", 0, seg_off(x.seg, x.unit)), -EINVAL);
    assert_int_equal(root_do(&a, ROOT_SET, "r", 0, first + 3 * size), -EINVAL); /* free */
    assert_int_equal(root_do(&a, ROOT_SET, "r", 0, 0), -EINVAL);
    assert_int_equal(root_do(&a, ROOT_SET, "r", 0, UINT64_MAX), -EINVAL);
    assert_int_equal(root_do(&a, ROOT_SET, "r", 0, first + size), -EPERM);
    assert_int_equal(t[0], a.id);
    assert_int_equal(root_do(&a, ROOT_SET, "r", 0, first), 0);
    assert_int_equal(t[0], TAG_HEAP);
    assert_int_equal(root_do(&b, ROOT_GET, "r", 0, 0), 0);
    assert_int_equal(b.reply.root.off, first);
    assert_int_equal(root_do(&b, ROOT_CAS, "r", 0, first + size), -EEXIST);
    assert_int_equal(root_do(&b, ROOT_CAS, "r", first + 1, first + size), -EAGAIN);
    assert_int_equal(t[1], b.id); /* a refused change publishes nothing */
    assert_int_equal(root_do(&b, ROOT_CAS, "r", first, first + size), 0);
    assert_int_equal(t[1], TAG_HEAP);
    assert_int_equal(root_do(&b, ROOT_CAS, "s", 0, first + 2 * size), 0);
    assert_int_equal(root_do(&b, ROOT_CAS, "s", first + 2 * size, 0), 0);
    assert_int_equal(root_do(&b, ROOT_GET, "s", 0, 0), -ENOENT);
    assert_int_equal(root_do(&b, ROOT_DEL, "r", 0, 0), 0);
    assert_int_equal(root_do(&b, ROOT_DEL, "r", 0, 0), -ENOENT);
    assert_int_equal(grow_as(&a, 9, true, 0, 0, &large), 0);
    fake_cut_large(&a, large, a.id);
    assert_int_equal(root_do(&a, ROOT_SET, "l", 0, seg_off(large.seg, large.unit) + 1), -EINVAL);
    assert_int_equal(root_do(&a, ROOT_SET, "l", 0, seg_off(large.seg, large.unit)), 0);
    kill_it(&a);
    assert_int_equal(root_do(&b, ROOT_GET, "l", 0, 0), 0);
    kill_it(&b);
    finish();
}

static void test_roots_are_a_thousand_and_24(void **state)
{
    (void)state;
    struct fake a;
    char name[ROOT_NAME_BYTES];
    unsigned geo;
    start(MIB(64), BIG_BYTES);
    attach(&a);
    struct block x = grow(&a, 4);
    fake_cut_slab(&a, x, 3, &geo)[0] = a.id;
    uint64_t off = seg_off(x.seg, x.unit) + geo_table[geo].first;
    for (int i = 0; i < 1024; i++) {
        snprintf(name, sizeof(name), "root %d", i);
        assert_int_equal(root_do(&a, ROOT_CAS, name, 0, off), 0);
    }
    assert_int_equal(root_do(&a, ROOT_SET, "one more", 0, off), -ENOSPC);
    assert_int_equal(root_do(&a, ROOT_DEL, "root 500", 0, 0), 0);
    assert_int_equal(root_do(&a, ROOT_SET, "one more", 0, off), 0);
    kill_it(&a);
    finish();
}

/* ---- giving back to the system ---- */

/* Ticks until nothing is due any more; at most n_max. */
static void test_freed_pages_go_back_at_the_second_tick(void **state)
{
    (void)state;
    struct fake a;
    struct block x;
    start(MIB(64), BIG_BYTES);
    attach(&a);
    assert_int_equal(grow_as(&a, 512, true, 0, 0, &x), 0);
    memset(x.seg->base + ((uint64_t)x.unit << UNIT_SHIFT), 1, MIB(4));
    assert_int_equal(release(&a, x), 0);
    assert_true(resident() >= MIB(4));
    pass(SECOND + 1);
    assert_true(resident() >= MIB(4));
    pass(SECOND + 1);
    assert_true(resident() < MIB(1));
    core_assert_valid(&w.core);
    assert_int_equal(grow_as(&a, 512, true, 0, 0, &x), 0); /* all of it is there again */
    assert_true(ticks_until_asleep(10) < 10);
    kill_it(&a);
    finish();
}

/* ---- memory made ahead ---- */

static uint64_t prepared(void)
{
    return w.tenant->control->header.prepared_bytes;
}

static struct block grow_telling(struct fake *f, uint32_t n, bool exact, bool *ret_prepared)
{
    struct block b;
    assert_int_equal(grow_as(f, n, exact, 0, 0, &b), 0);
    *ret_prepared = f->reply.grow.prepared;
    return b;
}

/* Asks, and runs no job. */
static int ask_lazily(struct fake *f, struct msg_request req)
{
    unsigned before = f->n_replies;
    req.serial = f->session.serial + 1;
    dispatch_request(&w.core, &f->session, &req, 0, -1, w.now_ns);
    assert_int_equal(f->n_replies, before + 1);
    return f->reply.error;
}

static struct block grow_lazily(struct fake *f)
{
    struct block b;
    assert_int_equal(ask_lazily(f, (struct msg_request){.op = MSG_GROW, .grow = {.n_units = 1}}),
                     0);
    b.seg = tenant_locate(w.tenant, f->reply.grow.run.off, false, &b.unit);
    b.n_units = f->reply.grow.run.n_units;
    return b;
}

static void release_lazily(struct fake *f, struct block b)
{
    struct msg_request req = {.op = MSG_RELEASE, .release = {.n_runs = 1}};
    req.release.runs[0] = (struct msg_run){seg_off(b.seg, b.unit), b.n_units};
    assert_int_equal(ask_lazily(f, req), 0);
}

static bool bit(const uint64_t *bits, uint32_t unit)
{
    return bits[unit / 64] >> (unit % 64) & 1;
}

/* Warm units have all their pages, clean ones none, whatever runs. */
static void check_pages(const struct seg *seg)
{
    for (uint32_t u = seg->shape.n_meta; u < seg->shape.n_units; u++) {
        off_t begin = (off_t)u << UNIT_SHIFT, end = begin + (off_t)UNIT_BYTES;
        if (bit(seg->warm, u))
            assert_true(lseek(seg->fd, begin, SEEK_HOLE) >= end);
        if (!bit(seg->dirty, u) && buddy_is_free(seg->buddy, u)) {
            off_t data = lseek(seg->fd, begin, SEEK_DATA);
            assert_true(bit(seg->busy, u) || data < 0 || data >= end);
        }
    }
}

static void test_what_is_ready_is_what_the_next_grants_take(void **state)
{
    (void)state;
    struct fake f;
    bool is_prepared;
    start_wish((struct tenant_wish){.limits.max_bytes = GIB(1), .ready_bytes = MIB(48)}, BIG_BYTES);
    attach(&f);
    assert_true(prepared() >= MIB(48) && prepared() < MIB(56));
    assert_true(resident() >= MIB(48));
    assert_int_equal(w.tenant->control->header.ready_bytes, MIB(48));
    w.core.is_stopping = true; /* no more of it */
    for (uint64_t held = 0; held + MIB(8) <= MIB(48); held = granted() * UNIT_BYTES) {
        (void)grow_telling(&f, held < MIB(16) ? 1 : 128, held >= MIB(16), &is_prepared);
        assert_true(is_prepared);
    }
    do
        (void)grow_telling(&f, 1, false, &is_prepared);
    while (is_prepared);
    assert_true(granted() * UNIT_BYTES >= MIB(40));
    w.core.is_stopping = false;
    kill_it(&f);
    finish();
}

#define DEMAND_FROM MIB(256)

static void test_who_grows_finds_the_next_grants_prepared(void **state)
{
    (void)state;
    struct fake f;
    bool is_prepared;
    unsigned n_prepared = 0;
    start(GIB(2), BIG_BYTES);
    attach(&f);
    while (granted() < DEMAND_FROM / UNIT_BYTES) {
        (void)grow_telling(&f, 1, false, &is_prepared);
        assert_false(is_prepared);
        assert_true(prepared() == 0 || granted() >= DEMAND_FROM / UNIT_BYTES);
    }
    for (int i = 0; i < 40; i++) {
        (void)grow_telling(&f, 1, false, &is_prepared);
        n_prepared += is_prepared;
        assert_true(prepared() <= MIN(MIB(64), granted() * UNIT_BYTES / 32) + MIB(4));
    }
    assert_true(n_prepared >= 30); /* all but the first of new segments, and crumbs of old ones */
    kill_it(&f);
    finish();
}

static void test_one_large_block_is_no_sign_of_the_next(void **state)
{
    (void)state;
    struct fake f;
    bool is_prepared;
    start(GIB(2), BIG_BYTES);
    attach(&f);
    for (int i = 0; i < 100; i++)
        (void)grow_telling(&f, 640, true, &is_prepared);
    assert_int_equal(prepared(), 0);
    kill_it(&f);
    finish();
}

static void test_what_nobody_came_for_decays_and_what_is_ready_stays(void **state)
{
    (void)state;
    struct fake f;
    bool is_prepared;
    for (unsigned ready = 0; ready < 2; ready++) {
        struct tenant_wish wish = {.limits.max_bytes = GIB(1), .ready_bytes = ready * MIB(24)};
        start_wish(wish, BIG_BYTES);
        attach(&f);
        while (granted() < DEMAND_FROM / UNIT_BYTES || prepared() == 0) /* 0: segments are full */
            (void)grow_telling(&f, 1, false, &is_prepared);
        assert_true(prepared() >= wish.ready_bytes / 2);
        uint64_t used = resident() - prepared(); /* by what was granted */
        unsigned n_submitted = w.n_submitted;
        for (int i = 0; i < 40; i++)
            pass(SECOND + 1);
        assert_true(prepared() >= wish.ready_bytes);
        assert_true(prepared() <= wish.ready_bytes + MIB(4) * ready);
        assert_true(resident() - prepared() <= used);
        assert_true(w.n_submitted - n_submitted <= 3 + 3 * ready); /* not punched and made again */
        uint64_t before = resident();
        assert_int_equal(core_deadline(&w.core), UINT64_MAX); /* the daemon sleeps */
        pass(SECOND + 1);
        assert_int_equal(w.core.n_jobs, 0);
        assert_int_equal(resident(), before);
        kill_it(&f);
        finish();
    }
}

static void test_what_is_ready_is_never_punched(void **state)
{
    (void)state;
    struct fake f;
    struct block b;
    start_wish((struct tenant_wish){.limits.max_bytes = GIB(1), .ready_bytes = MIB(96)}, BIG_BYTES);
    attach(&f);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(grow_as(&f, 8192, true, 0, 0, &b), 0);
        memset(b.seg->base + ((uint64_t)b.unit << UNIT_SHIFT), 1, MIB(64));
        pass(SECOND + 1);
        assert_true(prepared() >= MIB(96));
        assert_int_equal(release(&f, b), 0);
    }
    uint64_t most = resident();
    for (int i = 0; i < 5; i++) {
        (void)core_deadline(&w.core);
        w.now_ns += SECOND + 1;
        core_tick(&w.core, w.now_ns);
        assert_true(prepared() >= MIB(72)); /* crumbs go when there is memory in one piece */
        run_jobs();
        assert_true(prepared() >= MIB(96));
    }
    assert_true(resident() < most);
    kill_it(&f);
    finish();
}

static void test_used_memory_is_ready_again_by_and_by(void **state)
{
    (void)state;
    struct fake f;
    struct block b[32];
    start_wish((struct tenant_wish){.limits.max_bytes = MIB(64), .ready_bytes = MIB(32)},
               BIG_BYTES);
    attach(&f);
    unsigned n = 0;
    while (n < ARRAY_LEN(b) && grow_as(&f, 256, true, 0, 0, &b[n]) == 0)
        n++;
    assert_true(prepared() < MIB(32)); /* max is reached */
    while (n-- > 0)
        assert_int_equal(release(&f, b[n]), 0);
    assert_true(prepared() < MIB(32));
    for (int i = 0; i < 4; i++)
        pass(SECOND + 1);
    assert_int_equal(prepared(), MIB(32));
    kill_it(&f);
    finish();
}

/* Pages are 4k here, whatever the daemon believes; it must treat 2 MiB as one. */
static void test_huge_pages_are_punched_as_a_whole(void **state)
{
    (void)state;
    struct fake f;
    struct block b[40];
    start(MIB(64), BIG_BYTES);
    attach(&f);
    w.tenant->pages = PAGES_THP;
    for (unsigned i = 0; i < ARRAY_LEN(b); i++) {
        assert_int_equal(grow_as(&f, 128, true, 7, 0, &b[i]), 0);
        memset(b[i].seg->base + ((uint64_t)b[i].unit << UNIT_SHIFT), 1, MIB(1));
    }
    unsigned i = ARRAY_LEN(b) - 2;
    while (i > 0 && (b[i].unit % HUGE_UNITS != 0 || b[i + 1].unit != b[i].unit + 128))
        i--;
    assert_true(i > 0); /* two halves of a page */
    while (grow_as(&f, 1, true, 0, 0, NULL) == 0)
        ; /* nothing else is free */
    uint64_t all = resident();
    assert_int_equal(release(&f, b[i]), 0);
    for (int n = 0; n < 4; n++)
        pass(SECOND + 1);
    assert_int_equal(resident(), all); /* the other half is in use */
    assert_int_equal(release(&f, b[i + 1]), 0);
    pass(SECOND + 1);
    assert_int_equal(grow_as(&f, 16, true, 4, 0, &b[i + 1]), 0); /* and is not, and is again */
    assert_int_equal(b[i + 1].unit / HUGE_UNITS, b[i].unit / HUGE_UNITS);
    pass(SECOND + 1);
    pass(SECOND + 1);
    assert_int_equal(resident(), all);
    assert_int_equal(release(&f, b[i + 1]), 0);
    pass(SECOND + 1);
    pass(SECOND + 1);
    assert_int_equal(resident(), all - MIB(2));
    core_assert_valid(&w.core);
    kill_it(&f);
    finish();
}

static void test_a_huge_page_is_prepared_as_a_whole_and_not_punched_meanwhile(void **state)
{
    (void)state;
    struct fake f;
    struct block b;
    start(MIB(32), BIG_BYTES);
    assert_int_equal(tenant_open(w.tenant), 0);
    w.tenant->pages = PAGES_THP;
    attach(&f);
    assert_int_equal(grow_as(&f, 16, true, 8, 0, &b), 0); /* the first units of a page */
    w.tenant->ready_units = MIB(32) / UNIT_BYTES;
    prepare_pump(w.tenant);
    keep_segs();
    while (!bit(b.seg->busy, b.unit + 20)) {
        assert_int_equal(w.n_jobs, 1);
        run_one_job(0);
        keep_segs();
    }
    assert_true(bit(b.seg->busy, b.unit) && bit(b.seg->busy, b.unit + HUGE_UNITS - 1));
    release_lazily(&f, b);
    w.tenant->ready_units = 0; /* nothing is spared */
    for (int i = 0; i < 3; i++) {
        (void)core_deadline(&w.core);
        w.now_ns += SECOND + 1;
        core_tick(&w.core, w.now_ns);
        assert_true(buddy_is_free(b.seg->buddy, b.unit));
        core_assert_valid(&w.core);
    }
    run_jobs();
    assert_true(bit(b.seg->warm, b.unit) && bit(b.seg->warm, b.unit + HUGE_UNITS - 1));
    kill_it(&f);
    finish();
}

static void test_ready_ends_at_max_and_at_the_capacity(void **state)
{
    (void)state;
    static const uint64_t sizes[][2] = {{MIB(40), BIG_BYTES}, {GIB(1), MIB(40)}};
    struct fake f;
    for (unsigned i = 0; i < 2; i++) {
        uint64_t n = 0;
        start_wish((struct tenant_wish){.limits.max_bytes = sizes[i][0], .ready_bytes = MIB(40)},
                   sizes[i][1]);
        attach(&f);
        assert_true(w.core.ledger.charged_bytes <= MIB(40));
        assert_true(prepared() >= MIB(36) && prepared() < MIB(40));
        while (grow_as(&f, 1, true, 0, 0, NULL) == 0)
            n++;
        assert_true(n * UNIT_BYTES >= MIB(39)); /* and all of it can be had */
        kill_it(&f);
        finish();
    }
}

/* Grants that others than "t" get. */
/* Its clients use what they were granted. */
static void cut_all(const struct tenant *t)
{
    for (uint32_t slot = 0; slot < t->n_slots; slot++)
        for (uint32_t u = 0; t->segs[slot] && u < t->segs[slot]->shape.n_table; u++)
            if (unit_entry_state(seg_entry(t->segs[slot], u)) == U_UNCUT)
                seg_store_plain(t->segs[slot], u, 1, U_CUT, holder_token(1, 0));
}

static int grow_elsewhere(struct fake *f, uint32_t n, bool exact)
{
    return ask(f, (struct msg_request){.op = MSG_GROW, .grow = {.n_units = n, .exact = exact}});
}

static void test_what_is_only_ready_yields_to_other_tenants(void **state)
{
    (void)state;
    struct fake idle, user, admin;
    struct access_list none = {0};
    struct tenant_wish wish = {.limits.max_bytes = MIB(64)};
    struct msg_request drop = {.op = MSG_TENANT_DROP};
    start_wish((struct tenant_wish){.limits.max_bytes = MIB(64), .ready_bytes = MIB(56)}, MIB(64));
    assert_int_equal(core_add_tenant(&w.core, "other", &wish, &none), 0);
    struct tenant *other = core_find_tenant(&w.core, "other");
    attach(&idle);
    (void)grow(&idle, 1);
    assert_true(prepared() >= MIB(55));
    attach_to(&user, "other");
    assert_int_equal(grow_elsewhere(&user, 1, false), 0);
    assert_true(prepared() >= MIB(55)); /* there was room besides */
    assert_int_equal(grow_elsewhere(&user, (uint32_t)(MIB(40) / UNIT_BYTES), true), 0);
    while (grow_elsewhere(&user, 1, true) == 0)
        ;
    assert_true(other->granted_units * UNIT_BYTES >= MIB(56));
    assert_true(resident() < MIB(8)); /* where the one small grant came from */
    core_assert_valid(&w.core);
    assert_true(ticks_until_asleep(10) < 10);
    cut_all(other);
    assert_int_equal(grow_as(&idle, MIB(8) / UNIT_BYTES, true, 0, 0, NULL), -ENOMEM);
    kill_it(&user);
    connect_as(&admin, 0);
    strcpy(drop.tenant_drop.tenant, "other");
    assert_int_equal(ask(&admin, drop), 0); /* there is room again */
    assert_true(ticks_until_asleep(10) < 10);
    assert_true(prepared() >= MIB(28)); /* half of it: who had to yield is modest */
    hang_up(&admin);
    kill_it(&idle);
    finish();
}

static void test_what_is_ready_of_a_promise_does_not_yield(void **state)
{
    (void)state;
    struct fake idle, user;
    struct access_list none = {0};
    struct tenant_wish wish = {.limits.max_bytes = MIB(64)},
                       promised = {.limits.max_bytes = MIB(64)};
    promised.limits.min_bytes = MIB(32);
    promised.ready_bytes = MIB(28);
    start_wish(promised, MIB(64));
    assert_int_equal(core_add_tenant(&w.core, "other", &wish, &none), 0);
    attach(&idle);
    (void)grow(&idle, 1);
    assert_true(prepared() >= MIB(27));
    attach_to(&user, "other");
    while (grow_elsewhere(&user, (uint32_t)(MIB(4) / UNIT_BYTES), true) == 0)
        ;
    assert_true(prepared() >= MIB(27));
    assert_false(w.tenant->prepare.has_yielded); /* nobody could have had it */
    assert_true(core_find_tenant(&w.core, "other")->granted_units * UNIT_BYTES >= MIB(20));
    kill_it(&idle);
    kill_it(&user);
    finish();
}

static void test_what_was_granted_does_not_yield_and_what_is_mapped_stays_charged(void **state)
{
    (void)state;
    struct fake a, user, looker;
    struct access_list none = {0};
    struct tenant_wish wish = {.limits.max_bytes = MIB(64)};
    struct msg_request look = {.op = MSG_LOOK};
    struct msg_request map = {.op = MSG_MAP_SEGMENT, .map_segment = {.slot = 1}};
    start(MIB(64), MIB(64));
    assert_int_equal(core_add_tenant(&w.core, "other", &wish, &none), 0);
    attach(&a);
    struct block b = grow(&a, 1);
    cut_all(w.tenant);
    memset(b.seg->base + ((uint64_t)b.unit << UNIT_SHIFT), 7, UNIT_BYTES);
    w.tenant->ready_units = MIB(56) / UNIT_BYTES;
    prepare_pump(w.tenant);
    run_jobs();
    assert_true(prepared() >= MIB(56));
    connect_as(&looker, 0);
    strcpy(look.look.tenant, "t");
    assert_int_equal(ask(&looker, look), 0);
    map.map_segment.slot = b.seg->slot + 1;
    assert_int_equal(ask(&looker, map), 0);
    uint64_t looked_at = looker.reply.map_segment.size_bytes, kept = b.seg->shape.size_bytes;
    attach_to(&user, "other");
    while (grow_elsewhere(&user, 1, true) == 0)
        ;
    assert_int_equal(w.tenant->budget.charged_bytes, kept);
    assert_int_equal(w.core.ledger.orphaned_bytes, looked_at);
    assert_true(b.seg->base[(uint64_t)b.unit << UNIT_SHIFT] == 7);
    assert_int_equal(ask(&looker, map), -ENOENT);
    hang_up(&looker);
    assert_true(ticks_until_asleep(10) < 10);
    assert_int_equal(w.core.ledger.orphaned_bytes, 0);
    assert_int_equal(grow_elsewhere(&user, 1, true), 0);
    core_assert_valid(&w.core);
    kill_it(&a);
    kill_it(&user);
    finish();
}

/* ---- segments that clients map ---- */

#define UNITS_OF(mib) ((uint32_t)(MIB(mib) / UNIT_BYTES))

static int map_slot(struct fake *f, uint32_t slot)
{
    return ask(f, (struct msg_request){.op = MSG_MAP_SEGMENT, .map_segment = {.slot = slot}});
}

static int retire(struct fake *f, uint32_t slot, bool done)
{
    return ask(f, (struct msg_request){.op = MSG_RETIRE, .retire = {.slot = slot, .done = done}});
}

/* Two clients of t map an empty segment of 41 MiB in slot 1, for which `user` of another tenant has
 * asked in vain. */
static void start_retiring(struct fake one[2], struct fake *user)
{
    struct access_list none = {0};
    struct tenant_wish wish = {.limits.max_bytes = MIB(64)};
    struct block b;
    start(MIB(64), MIB(64));
    assert_int_equal(core_add_tenant(&w.core, "other", &wish, &none), 0);
    attach(&one[0]);
    attach(&one[1]);
    (void)grow(&one[0], 1);
    cut_all(w.tenant);
    assert_int_equal(grow_as(&one[0], UNITS_OF(40), true, 0, 0, &b), 0);
    assert_int_equal(b.seg->slot, 1);
    assert_int_equal(map_slot(&one[0], 1), 0);
    assert_int_equal(map_slot(&one[1], 1), 0);
    assert_int_equal(release(&one[0], b), 0);
    assert_int_equal(retire(&one[0], 1, false), -EAGAIN); /* nobody wants it */
    attach_to(user, "other");
    assert_int_equal(grow_elsewhere(user, UNITS_OF(40), true), -ENOMEM);
    assert_int_equal(w.tenant->control->segment[1].retire, SEGMENT_RETIRING);
    core_assert_valid(&w.core);
}

static void end_retiring(struct fake one[2], struct fake *user)
{
    core_assert_valid(&w.core);
    kill_it(&one[0]);
    kill_it(&one[1]);
    kill_it(user);
    assert_true(ticks_until_asleep(20) < 20);
    assert_int_equal(w.core.retiring_bytes, 0);
    finish();
}

static void test_a_segment_goes_to_others_when_all_have_let_go(void **state)
{
    (void)state;
    struct fake one[2], user;
    start_retiring(one, &user);
    assert_int_equal(map_slot(&one[0], 1), -ENOENT);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(w.tenant->control->segment[1].retire, SEGMENT_RETIRING);
        assert_int_equal(retire(&one[i], 1, false), 0);
        assert_int_equal(retire(&one[i], 1, false), 0); /* its reply was lost */
        assert_int_equal(retire(&one[i], 1, true), 0);
        assert_int_equal(retire(&one[i], 1, true), 0);
    }
    pass(1);
    assert_int_equal(w.tenant->control->segment[1].size_bytes, 0);
    assert_int_equal(grow_elsewhere(&user, UNITS_OF(40), true), 0);
    end_retiring(one, &user);
}

static void test_what_its_own_tenant_needs_stays_and_nobody_may_let_go(void **state)
{
    (void)state;
    struct fake one[2], user;
    struct block b;
    start_retiring(one, &user);
    assert_int_equal(grow_as(&one[0], UNITS_OF(30), true, 0, 0, &b), 0);
    assert_int_equal(b.seg->slot, 1);
    assert_int_equal(w.tenant->control->segment[1].retire, SEGMENT_STAYS);
    assert_int_equal(retire(&one[1], 1, false), -EAGAIN);
    assert_int_equal(map_slot(&one[1], 1), 0);
    end_retiring(one, &user);
}

static void test_nothing_is_granted_where_somebody_is_letting_go(void **state)
{
    (void)state;
    struct fake one[2], user;
    start_retiring(one, &user);
    assert_int_equal(retire(&one[1], 1, false), 0);
    assert_int_equal(grow_as(&one[0], UNITS_OF(30), true, 0, 0, NULL), -ENOMEM);
    assert_int_equal(retire(&one[1], 1, true), 0); /* the other one maps it yet */
    assert_int_equal(grow_as(&one[0], UNITS_OF(30), true, 0, 0, NULL), 0);
    end_retiring(one, &user);
}

static void test_a_heap_without_clients_gives_what_it_does_not_use(void **state)
{
    (void)state;
    struct fake one[2], user;
    start_retiring(one, &user);
    kill_it(&one[0]);
    kill_it(&one[1]);
    pass(2 * SECOND);
    assert_int_equal(grow_elsewhere(&user, UNITS_OF(60), true), 0);
    assert_int_equal(w.tenant->budget.charged_bytes, 0);
    attach(&one[0]);
    attach(&one[1]);
    end_retiring(one, &user);
}

static void test_who_dies_has_let_go(void **state)
{
    (void)state;
    struct fake one[2], user;
    start_retiring(one, &user);
    assert_int_equal(retire(&one[1], 1, false), 0);
    kill_it(&one[1]);
    assert_int_equal(grow_as(&one[0], UNITS_OF(2), true, 0, 0, NULL), 0);
    assert_int_equal(retire(&one[0], 1, true), 0);
    pass(1);
    assert_int_equal(w.tenant->control->segment[1].size_bytes, 0);
    attach(&one[1]);
    end_retiring(one, &user);
}

/* In steps; in the end all that was ready has gone, but for what would not help. */
static void grow_until_all_has_yielded(const char *ready, const char *growing)
{
    struct fake idle, user;
    const struct tenant *t = core_find_tenant(&w.core, ready);
    unsigned n_yields = 0, n = 0;
    attach_to(&idle, ready);
    attach_to(&user, growing);
    do {
        uint64_t charged = t->budget.charged_bytes;
        if (grow_elsewhere(&user, (uint32_t)(MIB(2) / UNIT_BYTES), true) < 0)
            break;
        n_yields += t->budget.charged_bytes < charged;
        assert_true(ticks_until_asleep(10) < 10);
    } while (++n < 200);
    assert_true(t->budget.charged_bytes < MIB(2));
    if (n_yields > 40) /* a 16th of a share at a time */
        fail_msg("yielded %u times", n_yields);
    kill_it(&idle);
    kill_it(&user);
}

static void test_who_had_to_yield_does_not_take_it_all_again(void **state)
{
    (void)state;
    struct access_list none = {0};
    struct tenant_wish wish = {.limits.max_bytes = MIB(256), .ready_bytes = MIB(240)}, plain = wish;
    plain.ready_bytes = 0;
    start_wish(wish, MIB(256));
    assert_int_equal(core_add_tenant(&w.core, "other", &plain, &none), 0);
    grow_until_all_has_yielded("t", "other");
    finish();
    start_wish(plain, BIG_BYTES); /* now they are in a group */
    assert_int_equal(core_add_tenant(&w.core, "t/ready", &wish, &none), 0);
    assert_int_equal(core_add_tenant(&w.core, "t/other", &plain, &none), 0);
    grow_until_all_has_yielded("t/ready", "t/other");
    finish();
}

static void test_what_is_being_made_ready_yields_too(void **state)
{
    (void)state;
    struct fake idle, user;
    struct access_list none = {0};
    struct tenant_wish wish = {.limits.max_bytes = MIB(64)};
    struct msg_request req = {.op = MSG_GROW, .grow = {.n_units = MIB(60) / UNIT_BYTES}};
    req.grow.exact = true;
    start_wish((struct tenant_wish){.limits.max_bytes = MIB(64)}, MIB(64));
    assert_int_equal(core_add_tenant(&w.core, "other", &wish, &none), 0);
    attach(&idle);
    attach_to(&user, "other");
    w.tenant->ready_units = MIB(60) / UNIT_BYTES;
    prepare_pump(w.tenant);
    keep_segs();
    assert_int_equal(w.n_jobs, 1);
    for (int i = 0; i < 3; i++) {
        run_one_job(0);
        keep_segs();
    }
    unsigned before = user.n_replies;
    req.serial = user.session.serial + 1;
    dispatch_request(&w.core, &user.session, &req, 0, -1, w.now_ns);
    assert_int_equal(user.n_replies, before); /* waits for the job */
    for (int i = 0; i < 8 && user.n_replies == before; i++)
        run_one_job(0);
    assert_int_equal(user.n_replies, before + 1);
    assert_int_equal(user.reply.error, 0);
    kill_it(&idle);
    kill_it(&user);
    finish();
}

static void test_what_is_being_kept_to_be_ready_yields_too(void **state)
{
    (void)state;
    struct fake idle, user;
    struct access_list none = {0};
    struct tenant_wish wish = {.limits.max_bytes = MIB(64)};
    struct msg_request req = {.op = MSG_GROW, .serial = 1000};
    start_wish((struct tenant_wish){.limits.max_bytes = MIB(64)}, MIB(64));
    assert_int_equal(core_add_tenant(&w.core, "other", &wish, &none), 0);
    attach(&idle);
    attach_to(&user, "other");
    w.tenant->ready_units = MIB(60) / UNIT_BYTES;
    prepare_pump(w.tenant);
    assert_true(w.tenant->n_depositing > 0);
    req.grow.n_units = MIB(60) / UNIT_BYTES;
    req.grow.exact = true;
    dispatch_request(&w.core, &user.session, &req, 0, -1, w.now_ns);
    run_jobs();
    assert_int_equal(user.session.wait, WAIT_NONE);
    assert_int_equal(user.reply.error, 0);
    core_assert_valid(&w.core);
    kill_it(&idle);
    kill_it(&user);
    finish();
}

static void test_what_could_not_be_kept_to_be_ready_yields_too(void **state)
{
    (void)state;
    struct fake idle, user;
    struct access_list none = {0};
    struct tenant_wish wish = {.limits.max_bytes = MIB(64)};
    start_wish((struct tenant_wish){.limits.max_bytes = MIB(64)}, MIB(64));
    assert_int_equal(core_add_tenant(&w.core, "other", &wish, &none), 0);
    attach(&idle);
    attach_to(&user, "other");
    w.tenant->ready_units = MIB(60) / UNIT_BYTES;
    w.keep_error = -ETIMEDOUT;
    prepare_pump(w.tenant);
    run_jobs();
    assert_true(w.tenant->n_unkept > 0);
    w.keep_error = 0;
    assert_int_equal(grow_elsewhere(&user, MIB(60) / UNIT_BYTES, true), 0);
    assert_int_equal(w.tenant->n_unkept, 0);
    core_assert_valid(&w.core);
    kill_it(&idle);
    kill_it(&user);
    finish();
}

/* The wall in its way is their group's. */
static void test_what_is_only_ready_yields_to_others_of_its_group(void **state)
{
    (void)state;
    struct fake idle, user;
    struct access_list none = {0};
    struct tenant_wish wish = {.limits.max_bytes = MIB(64)};
    start(MIB(64), BIG_BYTES);
    assert_int_equal(core_add_tenant(&w.core, "t/other", &wish, &none), 0);
    wish.ready_bytes = MIB(48);
    assert_int_equal(core_add_tenant(&w.core, "t/ready", &wish, &none), 0);
    struct tenant *ready = core_find_tenant(&w.core, "t/ready");
    attach_to(&idle, "t/ready");
    run_jobs();
    assert_true(ready->control->header.prepared_bytes >= MIB(48));
    attach_to(&user, "t/other");
    assert_int_equal(grow_elsewhere(&user, MIB(64) / UNIT_BYTES, true), -ENOMEM);
    assert_true(ready->control->header.prepared_bytes >= MIB(48)); /* would not have helped */
    assert_int_equal(grow_elsewhere(&user, MIB(60) / UNIT_BYTES, true), 0);
    core_assert_valid(&w.core);
    kill_it(&idle);
    kill_it(&user);
    finish();
}

/* What two could give back each is one promise to their group: it stays. */
static void test_what_is_ready_does_not_go_in_vain_for_a_groups_promise(void **state)
{
    (void)state;
    static const char *const names[] = {"t/one", "t/two"};
    struct fake idle[2], user;
    struct access_list none = {0};
    struct tenant_wish wish = {.limits.max_bytes = MIB(64)};
    start_wish((struct tenant_wish){.limits.min_bytes = MIB(40), .limits.max_bytes = MIB(64)},
               MIB(64));
    assert_int_equal(core_add_tenant(&w.core, "other", &wish, &none), 0);
    wish.ready_bytes = MIB(28);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(core_add_tenant(&w.core, names[i], &wish, &none), 0);
        attach_to(&idle[i], names[i]);
    }
    attach_to(&user, "other");
    uint64_t total = w.tenant->budget.total_bytes;
    assert_true(total >= MIB(56));
    assert_int_equal(grow_elsewhere(&user, MIB(30) / UNIT_BYTES, true), -ENOMEM);
    assert_int_equal(w.tenant->budget.total_bytes, total);
    assert_int_equal(grow_elsewhere(&user, MIB(20) / UNIT_BYTES, true), 0);
    core_assert_valid(&w.core);
    for (int i = 0; i < 2; i++)
        kill_it(&idle[i]);
    kill_it(&user);
    finish();
}

static void test_what_is_only_ready_makes_room_for_one_large_block(void **state)
{
    (void)state;
    static const struct {
        uint64_t max, ready, block;
    } cases[] = {{GIB(1) + MIB(8), MIB(8), GIB(1) + MIB(6)}, {MIB(64), MIB(48), MIB(60)}};
    struct fake f;
    struct block b;
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        start_wish(
            (struct tenant_wish){.limits.max_bytes = cases[i].max, .ready_bytes = cases[i].ready},
            BIG_BYTES);
        attach(&f);
        assert_true(prepared() >= cases[i].ready);
        uint32_t n = (uint32_t)(cases[i].block / UNIT_BYTES);
        assert_int_equal(grow_as(&f, n + 1024, true, 0, 0, NULL), -ENOMEM);
        assert_true(prepared() >= cases[i].ready); /* would not have helped */
        assert_int_equal(grow_as(&f, n, true, 0, 0, &b), 0);
        assert_int_equal(b.unit, b.seg->shape.n_meta);
        assert_true(ticks_until_asleep(10) < 10);
        core_assert_valid(&w.core);
        assert_int_equal(release(&f, b), 0);
        kill_it(&f);
        finish();
    }
}

static void test_an_idle_daemon_sleeps_whatever_is_to_be_ready(void **state)
{
    (void)state;
    static const struct {
        uint64_t max, capacity, ready;
        enum pages_kind pages;
    } cases[] = {
        {MIB(64), BIG_BYTES, 0, PAGES_THP},        {MIB(64), BIG_BYTES, MIB(16), PAGES_THP},
        {MIB(64), BIG_BYTES, MIB(21), PAGES_4K},   {MIB(64), BIG_BYTES, MIB(21), PAGES_THP},
        {MIB(40), BIG_BYTES, MIB(40), PAGES_4K},   {GIB(1), MIB(40), MIB(60), PAGES_4K},
        {MIB(40), BIG_BYTES, MIB(400), PAGES_THP}, {MIB(64), BIG_BYTES, 65536, PAGES_4K},
    };
    struct fake f;
    struct block b[256];
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        unsigned n = 0;
        start_wish(
            (struct tenant_wish){.limits.max_bytes = cases[i].max, .ready_bytes = cases[i].ready},
            cases[i].capacity);
        assert_int_equal(tenant_open(w.tenant), 0);
        w.tenant->pages = cases[i].pages;
        attach(&f);
        assert_true(ticks_until_asleep(20) < 20);
        while (n < ARRAY_LEN(b) && grow_as(&f, 24, true, 0, 0, &b[n]) == 0)
            memset(b[n].seg->base + ((uint64_t)b[n].unit << UNIT_SHIFT), 1, 24 * UNIT_BYTES), n++;
        assert_true(ticks_until_asleep(20) < 20);
        for (unsigned k = 0; k < n; k += 2)
            assert_int_equal(release(&f, b[k]), 0);
        assert_true(ticks_until_asleep(20) < 20);
        for (unsigned k = 1; k < n; k += 2)
            assert_int_equal(release(&f, b[k]), 0);
        assert_true(ticks_until_asleep(20) < 20);
        uint64_t all = resident();
        assert_true(all <= cases[i].ready + MIB(5));
        unsigned n_submitted = w.n_submitted;
        for (int k = 0; k < 3; k++) {
            pass(SECOND + 1);
            assert_int_equal(core_deadline(&w.core), UINT64_MAX);
        }
        assert_int_equal(w.n_submitted, n_submitted);
        kill_it(&f);
        finish();
    }
}

static void test_who_grows_and_releases_pays_for_few_looks(void **state)
{
    (void)state;
    static const uint64_t ready[] = {MIB(64), MIB(1000)}; /* the latter cannot be reached */
    struct fake f;
    struct block b;
    for (unsigned i = 0; i < ARRAY_LEN(ready); i++) {
        start_wish((struct tenant_wish){.limits.max_bytes = MIB(128), .ready_bytes = ready[i]},
                   BIG_BYTES);
        attach(&f);
        assert_true(ticks_until_asleep(20) < 20);
        uint64_t n_looks = w.tenant->prepare.n_looks;
        for (int k = 0; k < 1000; k++) {
            assert_int_equal(grow_as(&f, 512, true, 0, 0, &b), 0);
            assert_int_equal(release(&f, b), 0);
        }
        n_looks = w.tenant->prepare.n_looks - n_looks;
        if (n_looks > 40)
            fail_msg("%llu looks for 1000 pairs", (unsigned long long)n_looks);
        kill_it(&f);
        finish();
    }
}

static void test_as_much_stays_ready_in_pieces_as_in_one(void **state)
{
    (void)state;
    struct fake f;
    struct block b;
    uint32_t n = 0;
    start_wish((struct tenant_wish){.limits.max_bytes = MIB(64), .ready_bytes = MIB(16)},
               BIG_BYTES);
    attach(&f);
    static struct block held[MIB(64) / UNIT_BYTES];
    while (grow_as(&f, 1, true, 0, 0, &b) == 0) {
        b.seg->base[(uint64_t)b.unit << UNIT_SHIFT] = 1;
        b.seg->base[((uint64_t)b.unit << UNIT_SHIFT) + 4096] = 1;
        held[n++] = b;
    }
    uint64_t all = resident();
    for (uint32_t i = 0; i < n; i += 2)
        assert_int_equal(release(&f, held[i]), 0);
    assert_true(n / 2 * UNIT_BYTES > MIB(30));
    assert_true(ticks_until_asleep(40) < 40);
    uint64_t held_bytes = all - (n + 1) / 2 * UNIT_BYTES;
    assert_true(resident() >= held_bytes + MIB(16));
    assert_true(resident() <= held_bytes + MIB(17)); /* and the rest went */
    kill_it(&f);
    finish();
}

static void test_nothing_is_prepared_for_nobody(void **state)
{
    (void)state;
    struct fake f, looker;
    struct msg_request look = {.op = MSG_LOOK};
    start_wish((struct tenant_wish){.limits.max_bytes = GIB(1), .ready_bytes = MIB(24)}, BIG_BYTES);
    connect_as(&looker, 0);
    strcpy(look.look.tenant, "t");
    assert_int_equal(ask(&looker, look), 0);
    prepare_pump(w.tenant);
    assert_int_equal(w.n_jobs, 0);
    attach(&f);
    kill_it(&f);
    assert_true(prepared() >= MIB(24));
    unsigned n_submitted = w.n_submitted;
    assert_true(ticks_until_asleep(10) < 4);
    assert_int_equal(w.n_submitted, n_submitted);
    hang_up(&looker);
    finish();
}

/* Grants, returns, ticks and jobs in any order, the jobs late. */
static void test_pages_are_what_the_daemon_believes_of_them(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 6; seed++) {
        struct fake f;
        struct block held[64];
        unsigned n_held = 0;
        srand(seed);
        start_wish((struct tenant_wish){.limits.max_bytes = MIB(96), .ready_bytes = MIB(4 + seed)},
                   BIG_BYTES);
        assert_int_equal(tenant_open(w.tenant), 0);
        w.tenant->pages = seed > 4 ? PAGES_THP : PAGES_4K;
        attach(&f);
        for (int step = 0; step < 300; step++) {
            unsigned what = (unsigned)rand() % 10;
            if (what < 4 && n_held < ARRAY_LEN(held)) {
                struct block b = held[n_held++] = grow_lazily(&f);
                for (uint32_t u = b.unit; u < b.unit + b.n_units; u += 1 + (uint32_t)rand() % 9)
                    b.seg->base[(uint64_t)u << UNIT_SHIFT] = 1;
            } else if (what < 7 && n_held > 0) {
                unsigned i = (unsigned)rand() % n_held;
                release_lazily(&f, held[i]);
                held[i] = held[--n_held];
            } else if (what == 7) {
                (void)core_deadline(&w.core);
                w.now_ns += SECOND + 1;
                core_tick(&w.core, w.now_ns);
            } else if (w.n_jobs > 0) {
                run_one_job((unsigned)rand() % w.n_jobs);
            }
            assert_true(w.n_jobs - w.tenant->n_depositing <=
                        2); /* one that prepares, one that punches */
            for (uint32_t slot = 0; step % 20 == 0 && slot < w.tenant->n_slots; slot++)
                check_pages(w.tenant->segs[slot]);
            if (step % 20 == 0)
                core_assert_valid(&w.core);
        }
        kill_it(&f);
        finish();
    }
}

struct side {
    struct fake f;
    struct msg_run held[64];
    unsigned n_held, n_replies;
    bool waits;
};

/* A reply to a Grow, if there is one by now. */
static void take_grant(struct side *s)
{
    s->waits = s->f.n_replies == s->n_replies;
    if (!s->waits && s->f.reply.error == 0)
        s->held[s->n_held++] = s->f.reply.grow.run;
}

static void grow_or_release(struct side *s)
{
    static const uint32_t sizes[] = {1, 4, 300, 3000};
    struct msg_request req = {.op = MSG_GROW, .serial = s->f.session.serial + 1};
    if (s->n_held == ARRAY_LEN(s->held) || (s->n_held > 0 && rand() % 3 == 0)) {
        unsigned i = (unsigned)rand() % s->n_held;
        req.op = MSG_RELEASE;
        req.release.n_runs = 1;
        req.release.runs[0] = s->held[i];
        s->held[i] = s->held[--s->n_held];
    } else {
        req.grow.n_units = sizes[rand() % 4];
        req.grow.exact = rand() % 2;
    }
    s->n_replies = s->f.n_replies;
    dispatch_request(&w.core, &s->f.session, &req, 0, -1, w.now_ns);
    if (req.op == MSG_GROW)
        take_grant(s);
}

/* Two tenants of whom each wants all of the capacity ready; jobs late and in any order. */
static void test_ready_memory_goes_to_and_fro_and_nothing_is_lost(void **state)
{
    (void)state;
    static const char *names[] = {"t", "other"};
    unsigned n_yields = 0;
    for (unsigned seed = 1; seed <= 12; seed++) {
        static struct side sides[2];
        struct access_list none = {0};
        struct tenant_wish wish = {.limits.max_bytes = MIB(64), .ready_bytes = MIB(40)};
        memset(sides, 0, sizeof(sides));
        srand(seed);
        start_wish(wish, MIB(64));
        assert_int_equal(core_add_tenant(&w.core, "other", &wish, &none), 0);
        for (unsigned i = 0; i < 2; i++)
            attach_to(&sides[i].f, names[i]);
        for (unsigned step = 0; step < 300; step++) {
            struct side *s = &sides[rand() % 2];
            unsigned what = (unsigned)rand() % 12;
            uint64_t yielding_bytes = w.core.yielding_bytes;
            if (s->waits)
                take_grant(s);
            else if (what < 6)
                grow_or_release(s);
            n_yields += w.core.yielding_bytes > yielding_bytes;
            if (what == 7 || w.n_jobs == WORLD_JOBS_MAX)
                pass(SECOND + 1);
            if (what > 7 && w.n_jobs > 0)
                run_one_job((unsigned)rand() % w.n_jobs);
            if (step % 60 == 59) { /* another client */
                kill_it(&s->f);
                *s = (struct side){.n_held = 0};
                attach_to(&s->f, names[s - sides]);
            }
            if (step % 10 == 0)
                core_assert_valid(&w.core);
        }
        run_jobs();
        for (unsigned i = 0; i < 2; i++) {
            for (uint64_t ns; sides[i].waits;) { /* everybody has an answer */
                take_grant(&sides[i]);
                if (sides[i].waits && (ns = fake_patience_ns(&w.core, w.now_ns)) < UINT64_MAX)
                    pass(ns + 1);
                else
                    assert_false(sides[i].waits);
            }
            kill_it(&sides[i].f);
        }
        assert_true(ticks_until_asleep(60) < 60);
        finish();
    }
    assert_true(n_yields > 10);
}

/* ---- what is retired ---- */

/* A client that has mapped a segment of these many bytes, and uses nothing of it. */
static void map_in_vain(struct fake *f, const char *tenant, uint64_t bytes)
{
    struct msg_request map = {.op = MSG_MAP_SEGMENT}, give = {.op = MSG_RELEASE};
    attach_to(f, tenant);
    assert_int_equal(grow_elsewhere(f, (uint32_t)(bytes / UNIT_BYTES), true), 0);
    give.release.n_runs = 1;
    give.release.runs[0] = f->reply.grow.run;
    map.map_segment.slot = (uint32_t)(f->reply.grow.run.off >> SLOT_SHIFT);
    assert_int_equal(ask(f, map), 0);
    close_fd(&f->fd);
    assert_int_equal(ask(f, give), 0);
}

static uint32_t n_retiring(const char *tenant)
{
    return core_find_tenant(&w.core, tenant)->n_retiring;
}

static void start_three(uint64_t max_bytes, uint64_t capacity_bytes)
{
    struct tenant_wish wish = {.limits.max_bytes = MIB(256)};
    struct access_list none = {0};
    start(max_bytes, capacity_bytes);
    assert_int_equal(core_add_tenant(&w.core, "asleep", &wish, &none), 0);
    assert_int_equal(core_add_tenant(&w.core, "awake", &wish, &none), 0);
}

static void test_one_who_does_not_let_go_does_not_keep_others_from_it(void **state)
{
    (void)state;
    struct fake user, asleep, awake;
    start_three(MIB(64), MIB(28));
    map_in_vain(&asleep, "asleep", MIB(7));
    map_in_vain(&awake, "awake", MIB(9));
    attach(&user);
    for (unsigned i = 0; i < 20 && n_retiring("awake") == 0; i++) {
        if (grow_as(&user, MIB(4) / UNIT_BYTES, true, 0, 0, NULL) == 0)
            cut_all(w.tenant);
        pass(SECOND / 2);
    }
    assert_int_equal(n_retiring("asleep"), 1);
    assert_int_equal(n_retiring("awake"), 1);
    kill_it(&user);
    kill_it(&asleep);
    kill_it(&awake);
    finish();
}

static void test_what_can_never_be_had_takes_nothing_from_others(void **state)
{
    (void)state;
    struct fake user, asleep;
    start_three(MIB(16), MIB(512));
    map_in_vain(&asleep, "asleep", MIB(7));
    attach(&user);
    const struct control *c = core_find_tenant(&w.core, "asleep")->control;
    assert_int_equal(grow_as(&user, GIB(1) / UNIT_BYTES, true, 0, 0, NULL), -ENOMEM);
    assert_int_equal(n_retiring("asleep"), 0);
    assert_int_equal(c->header.pressure_seq, 0);
    kill_it(&user);
    kill_it(&asleep);
    finish();
}

static void test_a_heap_that_is_dropped_while_it_retires_leaves_nothing_behind(void **state)
{
    (void)state;
    struct fake user, asleep, admin;
    struct msg_request drop = {.op = MSG_TENANT_DROP};
    start_three(MIB(64), MIB(16));
    map_in_vain(&asleep, "asleep", MIB(7));
    attach(&user);
    while (n_retiring("asleep") == 0 && grow_as(&user, MIB(2) / UNIT_BYTES, true, 0, 0, NULL) == 0)
        cut_all(w.tenant);
    assert_int_equal(n_retiring("asleep"), 1);
    kill_it(&asleep);
    connect_as(&admin, 0);
    strcpy(drop.tenant_drop.tenant, "asleep");
    assert_int_equal(ask(&admin, drop), 0);
    assert_int_equal(w.core.retiring_bytes, 0);
    hang_up(&admin);
    kill_it(&user);
    finish();
}

/* A segment each time, which somebody goes on mapping: only its descriptor tells. */
static void test_a_tenants_heaps_leave_so_many_segments_and_no_more(void **state)
{
    (void)state;
    enum { N = HEAP_SLOTS };
    static int held[N + 1];
    struct msg_request drop = {.op = MSG_TENANT_DROP};
    struct fake a, admin;
    unsigned n = 0;
    start(GIB(4), BIG_BYTES);
    connect_as(&admin, 0);
    strcpy(drop.tenant_drop.tenant, "t");
    for (; n <= N; n++) {
        attach(&a);
        if (grow_as(&a, 1, true, 0, 0, NULL) != 0)
            break;
        held[n] = fcntl(w.tenant->segs[0]->client_fd, F_DUPFD_CLOEXEC, 0);
        kill_it(&a);
        assert_int_equal(ask(&admin, drop), 0);
    }
    assert_int_equal(n, N);
    close(held[--n]); /* one is nobody's any more */
    pass(SECOND);
    pass(SECOND);
    assert_int_equal(grow_as(&a, 1, true, 0, 0, NULL), 0);
    kill_it(&a);
    while (n > 0)
        close(held[--n]);
    hang_up(&admin);
    finish();
}

static void test_a_heap_without_clients_can_be_dropped(void **state)
{
    (void)state;
    struct fake a, admin;
    struct msg_request drop = {.op = MSG_TENANT_DROP}, look = {.op = MSG_LOOK};
    struct msg_request map = {.op = MSG_MAP_SEGMENT};
    start(MIB(64), BIG_BYTES);
    attach(&a);
    connect_as(&admin, 0);
    strcpy(drop.tenant_drop.tenant, "t");
    strcpy(look.look.tenant, "t");
    assert_int_equal(ask(&admin, look), 0);
    struct block x = grow(&a, 4);
    fake_cut_slab(&a, x, 3, NULL)[0] = TAG_HEAP;
    assert_int_equal(ask(&admin, drop), -EBUSY);
    assert_int_equal(ask(&a, map), 0);
    void *held =
        mmap(NULL, 4096, PROT_READ, MAP_SHARED, a.fd, 0); /* a descriptor that somebody keeps */
    kill_it(&a);
    assert_int_equal(ask(&admin, drop), 0);
    assert_int_equal(admin.reply.tenant_drop.freed_bytes, MIB(4));
    assert_int_equal(w.tenant->budget.charged_bytes, 0);
    assert_int_equal(w.core.ledger.charged_bytes, MIB(4)); /* not free while it is mapped */
    pass(2 * SECOND);
    assert_int_equal(w.core.ledger.charged_bytes, MIB(4));
    munmap(held, 4096);
    pass(2 * SECOND);
    assert_int_equal(w.core.ledger.charged_bytes, 0);
    assert_int_equal(ask(&admin, map), -ESTALE);
    hang_up(&admin);
    attach(&a); /* a new heap */
    assert_int_equal(root_do(&a, ROOT_GET, "r", 0, 0), -ENOENT);
    kill_it(&a);
    finish();
}

static void test_a_thousand_lives_leave_nothing_behind(void **state)
{
    (void)state;
    struct fake a;
    unsigned fds = 0, maps = 0;
    start(MIB(64), BIG_BYTES);
    for (int round = 0; round < 1000; round++) {
        attach(&a);
        struct block x = grow(&a, 4);
        fake_cut_slab(&a, x, (unsigned)round % 10, NULL)[0] = a.id;
        kill_it(&a);
        if (round == 0) {
            fds = count_files("/proc/self/fd");
            maps = count_maps();
        }
    }
    assert_int_equal(granted(), 0);
    assert_int_equal(count_files("/proc/self/fd"), fds);
    assert_int_equal(count_maps(), maps);
    assert_true(a.id < 400); /* ids are used again */
    finish();
}

/* ---- hostile memory ---- */

static int tell_freed(struct fake *f, struct block b, uint32_t n, uint32_t step)
{
    struct msg_request req = {.op = MSG_SOFT, .soft.n = n};
    for (uint32_t i = 0; i < n; i++)
        req.soft.offs[i] = seg_off(b.seg, b.unit + i * step);
    return ask(f, req);
}

static void scribble(struct seg *seg, unsigned percent)
{
    uint64_t *entries = segment_entries(seg->base, &seg->shape);
    tag_t *tags = segment_tags(seg->base, &seg->shape);
    for (uint32_t u = 0; u < seg->shape.n_table; u++) {
        if ((unsigned)rand() % 100 >= percent)
            continue;
        entries[u] = unit_entry_slab((enum unit_state)(rand() % 10), (unsigned)rand() % 256,
                                     rand() % 3 ? 0 : (unsigned)rand() % 70, (uint32_t)rand());
        if (rand() % 4 == 0)
            entries[u] = unit_entry_large((uint32_t)rand() % 600, (tag_t)(rand() % 6));
        if (rand() % 4 == 0)
            entries[u] = unit_entry_large(1 + (uint32_t)rand() % 9, (tag_t)(rand() % 6)) |
                         LARGE_SOFT | (rand() % 2 ? LARGE_TAKING : 0);
        segment_soft(seg->base, &seg->shape)[u].used_ms = (uint32_t)rand();
        tags[u] = (tag_t)(rand() % 6);
        if (u >= seg->shape.n_meta)
            memset(seg->base + ((uint64_t)u << UNIT_SHIFT), rand() % 4, 64);
    }
}

static void scribble_all(void)
{
    for (uint32_t slot = 0; slot < w.tenant->n_slots; slot++)
        if (w.tenant->segs[slot])
            scribble(w.tenant->segs[slot], 1 + (unsigned)rand() % 60);
}

static void test_garbage_in_the_segments_harms_no_books(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 12; seed++) {
        struct fake f[4];
        srand(seed);
        start(MIB(16), BIG_BYTES);
        for (int i = 0; i < 4; i++)
            attach(&f[i]);
        for (int step = 0; step < 200; step++) {
            struct fake *a = &f[rand() % 4];
            struct msg_request fl = {.op = MSG_FREE_LARGE};
            fl.free_large.off = (uint64_t)rand() % 2048 * UNIT_BYTES;
            (void)grow_as(a, 1 + (uint32_t)rand() % 40, rand() % 2, (unsigned)rand() % 4,
                          (unsigned)rand() % (N_CLASSES + 1), NULL);
            scribble_all();
            (void)ask(a, fl);
            for (int i = 0; i < 20; i++)
                a->page->pins[rand() % (int)PINS] = (uint32_t)rand() % 4096;
            (void)tell_freed(a, (struct block){w.tenant->segs[0], (uint32_t)rand() % 2000, 0},
                             (uint32_t)rand() % (MSG_SOFT_MAX + 1), (uint32_t)rand() % 4);
            (void)root_do(a, ROOT_SET, "r", 0, (uint64_t)rand() % MIB(16));
            if (rand() % 8 == 0)
                (void)ask(a, (struct msg_request){.op = MSG_PUBLISH_ALL});
            if (rand() % 8 == 0) {
                kill_it(a);
                attach(a);
            }
            if (rand() % 8 == 0)
                pass(SECOND);
        }
        core_assert_valid(&w.core);
        for (int i = 0; i < 4; i++)
            kill_it(&f[i]);
        core_assert_valid(&w.core);
        assert_int_equal(w.core.n_clients, 0);
        finish();
    }
}

/* ---- anything in any order ---- */

#define MODEL_CLIENTS 6
#define MODEL_BLOCKS  40

/* ---- configurations come and go ---- */

/* A group before who is in it. */
static const char *const place_names[] = {"a", "a/b", "a/b/c", "a/d", "e", "t"};
#define PLACES      ARRAY_LEN(place_names)
#define PLACE_FAKES 12

/* Of promises that cannot be kept, too: the ledger says that nothing is left then. */
static void draw_config(struct config *ret)
{
    bool is_there[PLACES];
    *ret = (struct config){.capacity_bytes = MIB(32 + (uint64_t)rand() % 60)};
    ret->tenants = calloc(PLACES, sizeof(*ret->tenants));
    for (unsigned i = 0; i < PLACES; i++) {
        unsigned group = i == 1 || i == 3 ? 0 : i == 2 ? 1 : i;
        is_there[i] = rand() % 4 > 0 && (group == i || is_there[group]);
        if (!is_there[i])
            continue;
        struct config_tenant *plan = &ret->tenants[ret->n_tenants++];
        strcpy(plan->name, place_names[i]);
        plan->wish.limits.min_bytes = rand() % 2 ? 0 : MIB((uint64_t)rand() % 16);
        plan->wish.limits.max_bytes = plan->wish.limits.min_bytes + MIB(4 + (uint64_t)rand() % 60);
        plan->wish.ready_bytes = rand() % 2 ? 0 : MIB((uint64_t)rand() % 4);
        for (unsigned k = 0; k + 1 < ret->n_tenants; k++)
            if (group != i && strcmp(ret->tenants[k].name, place_names[group]) == 0) {
                ret->tenants[k].is_group = true;
                ret->tenants[k].wish.ready_bytes = 0;
            }
    }
    if (rand() % 4 > 0) {
        strcpy(ret->own.name, is_there[0] && rand() % 2 ? "a/%u" : "own-%u");
        ret->own.wish.limits.max_bytes = MIB(1 + (uint64_t)rand() % 30);
        if (ret->own.name[0] == 'a') {
            ret->tenants[0].is_group = true;
            ret->tenants[0].wish.ready_bytes = 0;
        }
    }
}

static void reload_anything(void)
{
    struct config config;
    draw_config(&config);
    assert_int_equal(reload_apply(&w.core, &config), 0);
    config_deinit(&config);
}

struct guest {
    struct fake f;
    bool is_attached;
    unsigned n_asked; /* replies that have been asked for */
    struct msg_run runs[64];
    unsigned n_runs;
};

static bool guest_waits(const struct guest *g)
{
    return g->f.is_open && g->f.session.wait != WAIT_NONE;
}

static void guest_take_grant(struct guest *g)
{
    if (g->f.n_replies == g->n_asked && g->f.reply.op == MSG_GROW && g->f.reply.error == 0 &&
        g->n_runs < ARRAY_LEN(g->runs) && g->n_asked > 0)
        g->runs[g->n_runs++] = g->f.reply.grow.run;
    g->n_asked = 0;
}

static void guest_asks(struct guest *g, struct msg_request *req)
{
    req->serial = g->f.session.serial + 1;
    g->n_asked = g->f.n_replies + 1;
    dispatch_request(&w.core, &g->f.session, req, 0, -1, w.now_ns);
}

static void guest_comes(struct guest *g)
{
    struct msg_request req = {.op = MSG_ATTACH, .serial = 1};
    struct msg_request ack = {.op = MSG_ACK};
    unsigned place = (unsigned)rand() % (PLACES + 3);
    *g = (struct guest){0};
    connect_as(&g->f, place < PLACES ? 0 : BOB + (uid_t)rand() % 3);
    fake_make_page(&g->f);
    if (place < PLACES)
        strcpy(req.attach.tenant, place_names[place]);
    unsigned before = g->f.n_replies;
    dispatch_request(&w.core, &g->f.session, &req, 0, fcntl(g->f.life_fd, F_DUPFD_CLOEXEC, 0),
                     w.now_ns);
    while (g->f.n_replies == before && w.n_jobs > 0)
        run_one_job((unsigned)rand() % w.n_jobs);
    g->is_attached = g->f.reply.error == 0;
    if (g->is_attached) {
        ack.ack.nonce = g->f.reply.ack_nonce;
        dispatch_request(&w.core, &g->f.session, &ack, 0, -1, w.now_ns);
        client_find(g->f.session.client->tenant, g->f.reply.attach.client)->populate = rand() % 2;
    }
}

static void guest_leaves(struct guest *g)
{
    fake_unmap_page(&g->f);
    if (g->f.is_open)
        dispatch_hangup(&w.core, &g->f.session, w.now_ns);
    g->f.is_open = false;
    close_fd(&g->f.fd);
}

static void guest_does_something(struct guest *g)
{
    struct msg_request req = {.op = MSG_GROW};
    if (!g->f.is_open || !g->is_attached) {
        if (g->f.is_open)
            guest_leaves(g);
        guest_comes(g);
        return;
    }
    if (guest_waits(g))
        return;
    guest_take_grant(g);
    if (g->n_runs > 0 && rand() % 3 == 0) {
        req = (struct msg_request){.op = MSG_RELEASE, .release = {.n_runs = 1}};
        req.release.runs[0] = g->runs[--g->n_runs];
    } else {
        req.grow.n_units = 1 + (uint32_t)rand() % (rand() % 8 ? 40 : 3000);
        req.grow.exact = rand() % 2;
    }
    guest_asks(g, &req);
}

static void drop_something(void)
{
    struct fake admin;
    struct msg_request drop = {.op = MSG_TENANT_DROP, .serial = 1000};
    connect_as(&admin, 0);
    strcpy(drop.tenant_drop.tenant, w.core.tenants[(unsigned)rand() % w.core.n_tenants]->name);
    dispatch_request(&w.core, &admin.session, &drop, 0, -1, w.now_ns);
    assert_int_equal(admin.session.wait, WAIT_NONE);
    dispatch_hangup(&w.core, &admin.session, w.now_ns);
    close_fd(&admin.fd);
}

static void do_anything(struct guest *guests)
{
    unsigned what = (unsigned)rand() % 40;
    struct guest *g = &guests[rand() % PLACE_FAKES];
    if (what < 16)
        guest_does_something(g);
    else if (what < 34 && w.n_jobs > 0)
        run_one_job((unsigned)rand() % w.n_jobs);
    else if (what == 34 && g->f.is_open)
        guest_leaves(g);
    else if (what == 35)
        drop_something();
    else if (what == 36)
        w.keep_error = rand() % 4 ? 0 : -EIO;
    else if (what == 37)
        reload_anything();
    else if (what > 37) {
        (void)core_deadline(&w.core);
        w.now_ns += SECOND;
        core_tick(&w.core, w.now_ns);
    }
}

static void test_configurations_come_and_go_and_everybody_has_an_answer(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 6; seed++) {
        static struct guest guests[PLACE_FAKES];
        memset(guests, 0, sizeof(guests));
        srand(seed);
        start(MIB(32), MIB(64));
        reload_anything();
        for (unsigned step = 0; step < 3000; step++) {
            do_anything(guests);
            if (step % 20 == 0)
                core_assert_valid(&w.core);
        }
        w.keep_error = 0;
        for (unsigned i = 0; i < 100; i++)
            pass(SECOND / 10);
        for (unsigned i = 0; i < PLACE_FAKES; i++) {
            if (guest_waits(&guests[i]))
                fail_msg("seed %u: %u waits for %u", seed, i, guests[i].f.session.wait);
            if (guests[i].f.is_open)
                guest_leaves(&guests[i]);
        }
        run_jobs();
        assert_true(ticks_until_asleep(60) < 60);
        assert_int_equal(w.core.n_clients, 0);
        finish();
    }
}

static void test_random_lives_keep_the_books_right(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 6; seed++) {
        struct fake f[MODEL_CLIENTS];
        struct block held[MODEL_CLIENTS][MODEL_BLOCKS];
        unsigned n_held[MODEL_CLIENTS] = {0};
        srand(seed);
        start(MIB(32), BIG_BYTES);
        w.shuffle = true;
        for (int i = 0; i < MODEL_CLIENTS; i++)
            attach(&f[i]);
        for (int step = 0; step < 600; step++) {
            unsigned i = (unsigned)rand() % MODEL_CLIENTS;
            unsigned what = (unsigned)rand() % 10;
            if (what < 5 && n_held[i] < MODEL_BLOCKS) {
                struct block *b = &held[i][n_held[i]];
                if (grow_as(&f[i], 1 + (uint32_t)rand() % 60, true, 0, 0, b) == 0) {
                    fake_cut_large(&f[i], *b, f[i].id); /* so that nobody takes it back */
                    n_held[i]++;
                }
            } else if (what < 8 && n_held[i] > 0) {
                struct block b = held[i][--n_held[i]];
                assert_int_equal(owner_of(b), f[i].id);
                assert_int_equal(release(&f[i], b), 0);
            } else if (what == 8) {
                kill_it(&f[i]);
                n_held[i] = 0;
                attach(&f[i]);
            } else {
                pass(SECOND / 2);
            }
            uint64_t sum = 0;
            for (unsigned c = 0; c < MODEL_CLIENTS; c++)
                for (unsigned k = 0; k < n_held[c]; k++)
                    sum += held[c][k].n_units;
            assert_int_equal(granted(), sum);
            if (step % 16 == 0)
                core_assert_valid(&w.core);
        }
        for (int i = 0; i < MODEL_CLIENTS; i++)
            kill_it(&f[i]);
        assert_int_equal(granted(), 0);
        finish();
    }
}

/* Two large blocks in a segment that is little larger than both. */
static void test_large_runs_lie_side_by_side(void **state)
{
    (void)state;
    struct seg *seg;
    assert_int_equal(seg_new(&seg, "acre-test", 0, 1, 2 * 8192 + 100), 0);
    uint32_t one = seg_hold_run(seg, 8192, 0), two = seg_hold_run(seg, 8192, 0);
    assert_true(one != BUDDY_NONE && two != BUDDY_NONE);
    seg_let_go(seg, one, 8192);
    seg_let_go(seg, two, 8192);
    seg_free(seg, NULL);
}

/* ---- soft blocks ---- */

static void cut_soft(const struct fake *f, struct block b, tag_t tag)
{
    fake_cut_large(f, b, tag);
    segment_entries(b.seg->base, &b.seg->shape)[b.unit] |= LARGE_SOFT;
}

/* Two entries that claim the same units: who lies so loses them once. */
static void test_soft_blocks_that_overlap_come_back_once(void **state)
{
    (void)state;
    struct fake a;
    struct block x;
    start(MIB(64), BIG_BYTES);
    attach(&a);
    for (uint32_t n_claimed = 1; n_claimed < 20; n_claimed++) {
        assert_int_equal(grow_as(&a, 20, true, 0, 0, &x), 0);
        for (uint32_t u = 0; u < 20; u++)
            cut_soft(&a, (struct block){x.seg, x.unit + 19 - u, 1}, TAG_FREE);
        for (uint32_t u = 0; u < 20; u++)
            segment_entries(x.seg->base, &x.seg->shape)[x.unit + u] =
                unit_entry_large(MIN(n_claimed, 20 - u), a.id) | LARGE_SOFT;
        assert_int_equal(tell_freed(&a, x, 20, 1), 0);
        assert_int_equal(granted(), 0);
        core_assert_valid(&w.core);
    }
    kill_it(&a);
    assert_int_equal(granted(), 0);
    finish();
}

/* Fills the heap with soft blocks of a unit each, of the heap's. */
static void fill_with_soft(struct fake *f)
{
    struct block x;
    uint64_t max = w.tenant->budget.limits.max_bytes / UNIT_BYTES;
    while (granted() < max - max / 16) {
        assert_int_equal(grow_as(f, 256, true, 0, 0, &x), 0);
        for (uint32_t u = 0; u < x.n_units; u++)
            cut_soft(f, (struct block){x.seg, x.unit + u, 1}, TAG_HEAP);
    }
    while (grow_as(f, 256, true, 0, 0, &x) == 0 && granted() < max - max / 64)
        ;
}

/* Each turn is bounded by steps (search.c). Returns their number until the answer. */
static unsigned turns_until_granted(struct fake *f, uint32_t n_units)
{
    struct msg_request req = {.op = MSG_GROW, .serial = 1000 + n_units};
    unsigned n_turns = 0;
    req.grow.n_units = n_units;
    req.grow.exact = true;
    dispatch_request(&w.core, &f->session, &req, 0, -1, w.now_ns);
    for (; f->session.wait == WAIT_MEMORY && n_turns < 10000; n_turns++) {
        run_jobs();
        pass(1 + MIN(core_deadline(&w.core) - w.now_ns, SECOND));
    }
    assert_int_equal(f->reply.error, 0);
    return n_turns;
}

static void test_soft_blocks_are_taken_in_turns(void **state)
{
    (void)state;
    struct fake a, b;
    start(GIB(2), BIG_BYTES);
    attach(&a);
    attach(&b);
    assert_int_equal(tell_freed(&a, (struct block){0}, 0, 0), 0);
    fill_with_soft(&a);
    assert_true(turns_until_granted(&b, 30000) > 1); /* of small blocks that lie side by side */
    while (grow_as(&b, 1, true, 0, 0, NULL) == 0 && granted() < 258000)
        ;
    unsigned n_turns = 0;
    for (uint32_t n = 300; n < 400; n++) /* of the oldest ones */
        n_turns += turns_until_granted(&b, n);
    assert_in_range(n_turns, 2, 100); /* not all are counted anew each time */
    core_assert_valid(&w.core);
    kill_it(&a);
    for (unsigned i = 0; i < 100; i++)
        pass(0);
    assert_true(turns_until_granted(&b, 30000) > 1); /* of orphans */
    core_assert_valid(&w.core);
    kill_it(&b);
    finish();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attaching_shows_the_client_in_the_control_page),
        cmocka_unit_test(test_what_is_no_mapped_life_page_does_not_attach),
        cmocka_unit_test(test_access_and_unknown_tenants_have_their_errors),
        cmocka_unit_test(test_who_may_look_attach_and_administrate_is_told_apart),
        cmocka_unit_test(test_administrators_of_the_daemon_are_named_outside_of_tenants),
        cmocka_unit_test(test_the_log_says_who_administrates_and_what_changes),
        cmocka_unit_test(test_who_may_no_longer_look_is_told_nothing_more),
        cmocka_unit_test(test_who_reads_is_given_what_lasts_and_roots),
        cmocka_unit_test(test_a_users_own_tenant_comes_with_its_user_alone),
        cmocka_unit_test(test_users_have_a_budget_each_and_a_wall_together),
        cmocka_unit_test(test_a_users_own_tenant_goes_when_nothing_is_left_of_it),
        cmocka_unit_test(test_reloading_changes_users_own_tenants),
        cmocka_unit_test(test_the_default_tenant_is_what_the_configuration_says),
        cmocka_unit_test(test_who_leaves_while_its_name_is_asked_leaves_nothing),
        cmocka_unit_test(test_another_version_or_layout_is_told_apart),
        cmocka_unit_test(test_a_hang_up_while_the_page_is_asked_leaves_nothing),
        cmocka_unit_test(test_many_deaths_at_once_are_buried_in_turns),
        cmocka_unit_test(test_a_page_that_changes_its_size_before_it_is_sealed_is_refused),
        cmocka_unit_test(test_attaches_that_wait_are_forgotten_with_their_connections),
        cmocka_unit_test(test_a_descriptor_must_be_acknowledged_and_one_request_may_wait_for_it),
        cmocka_unit_test(test_segments_are_writable_for_clients_and_read_only_for_lookers),
        cmocka_unit_test(test_books_are_told_to_those_who_look_and_no_others),
        cmocka_unit_test(test_extents_say_who_has_each_unit),
        cmocka_unit_test(test_many_extents_are_told_in_parts_that_fit_together),
        cmocka_unit_test(test_a_block_over_several_slots_is_one_extent),
        cmocka_unit_test(test_holders_are_told_in_parts_in_the_order_of_their_ids),
        cmocka_unit_test(test_grants_begin_small_and_grow_with_what_is_held),
        cmocka_unit_test(test_exact_runs_are_exact_and_aligned),
        cmocka_unit_test(test_an_aligned_run_fits_into_the_segment_made_for_it),
        cmocka_unit_test(test_what_was_asked_in_vain_is_found_when_it_comes_back),
        cmocka_unit_test(test_populating_takes_one_worker_and_turns),
        cmocka_unit_test(
            test_a_slab_that_was_taken_back_while_it_was_populated_is_not_undone_twice),
        cmocka_unit_test(test_stopping_forgets_what_was_to_be_populated),
        cmocka_unit_test(test_what_cannot_be_kept_is_granted_to_nobody),
        cmocka_unit_test(test_a_heap_that_is_kept_at_the_second_try_is_kept_once),
        cmocka_unit_test(test_while_a_segment_is_being_kept_others_are_served),
        cmocka_unit_test(test_max_is_a_wall_and_all_of_it_can_be_had),
        cmocka_unit_test(test_the_capacity_is_a_wall_between_tenants),
        cmocka_unit_test(test_four_hundred_small_clients_fit_into_64_mib),
        cmocka_unit_test(test_a_block_beyond_a_slot_has_a_segment_of_its_own),
        cmocka_unit_test(test_pages_behind_a_smaller_block_decay_with_it),
        cmocka_unit_test(test_only_own_runs_are_taken_back),
        cmocka_unit_test(test_uncut_units_of_others_serve_before_anyone_is_refused),
        cmocka_unit_test(test_a_large_block_comes_back_by_whoever_freed_it),
        cmocka_unit_test(test_a_large_block_given_to_the_dead_comes_back_from_the_living),
        cmocka_unit_test(test_many_large_orphans_cost_no_time),
        cmocka_unit_test(test_a_burial_of_many_slabs_takes_many_turns),
        cmocka_unit_test(test_a_search_through_many_orphans_takes_many_turns),
        cmocka_unit_test(test_a_release_of_all_units_64_times_takes_turns),
        cmocka_unit_test(test_many_who_wait_are_tried_in_many_turns),
        cmocka_unit_test(test_large_blocks_whose_freer_died_are_found_before_a_refusal),
        cmocka_unit_test(test_what_the_dead_owned_comes_back_and_what_others_own_stays),
        cmocka_unit_test(test_a_block_that_the_dead_had_linked_is_the_heaps),
        cmocka_unit_test(test_what_was_given_to_one_that_is_gone_is_free_with_the_next_death),
        cmocka_unit_test(test_a_sweep_that_fails_is_done_again_before_anybody_is_buried),
        cmocka_unit_test(test_orphans_go_to_who_asks_for_their_class_or_free_when_empty),
        cmocka_unit_test(test_a_full_orphan_is_not_granted),
        cmocka_unit_test(test_a_client_that_hung_up_and_lives_is_asked_again_and_may_resume),
        cmocka_unit_test(test_a_user_has_so_many_clients_and_no_more),
        cmocka_unit_test(test_a_life_page_with_memory_beyond_its_end_is_refused),
        cmocka_unit_test(test_all_together_have_so_many_clients_and_no_more),
        cmocka_unit_test(test_resuming_ends_the_old_connection),
        cmocka_unit_test(test_a_page_sealed_against_sealing_dies_with_its_hang_up),
        cmocka_unit_test(test_detaching_is_answered_when_the_memory_is_back),
        cmocka_unit_test(test_who_asks_while_the_dead_are_swept_gets_what_they_leave),
        cmocka_unit_test(test_publishing_all_makes_it_outlive_the_client),
        cmocka_unit_test(test_roots_publish_and_keep_their_rules),
        cmocka_unit_test(test_roots_are_a_thousand_and_24),
        cmocka_unit_test(test_freed_pages_go_back_at_the_second_tick),
        cmocka_unit_test(test_what_is_ready_is_what_the_next_grants_take),
        cmocka_unit_test(test_who_grows_finds_the_next_grants_prepared),
        cmocka_unit_test(test_one_large_block_is_no_sign_of_the_next),
        cmocka_unit_test(test_what_nobody_came_for_decays_and_what_is_ready_stays),
        cmocka_unit_test(test_what_is_ready_is_never_punched),
        cmocka_unit_test(test_used_memory_is_ready_again_by_and_by),
        cmocka_unit_test(test_huge_pages_are_punched_as_a_whole),
        cmocka_unit_test(test_a_huge_page_is_prepared_as_a_whole_and_not_punched_meanwhile),
        cmocka_unit_test(test_ready_ends_at_max_and_at_the_capacity),
        cmocka_unit_test(test_what_is_only_ready_yields_to_other_tenants),
        cmocka_unit_test(test_what_is_ready_of_a_promise_does_not_yield),
        cmocka_unit_test(test_what_was_granted_does_not_yield_and_what_is_mapped_stays_charged),
        cmocka_unit_test(test_a_segment_goes_to_others_when_all_have_let_go),
        cmocka_unit_test(test_what_its_own_tenant_needs_stays_and_nobody_may_let_go),
        cmocka_unit_test(test_nothing_is_granted_where_somebody_is_letting_go),
        cmocka_unit_test(test_a_heap_without_clients_gives_what_it_does_not_use),
        cmocka_unit_test(test_who_dies_has_let_go),
        cmocka_unit_test(test_who_had_to_yield_does_not_take_it_all_again),
        cmocka_unit_test(test_what_is_being_made_ready_yields_too),
        cmocka_unit_test(test_what_is_being_kept_to_be_ready_yields_too),
        cmocka_unit_test(test_what_could_not_be_kept_to_be_ready_yields_too),
        cmocka_unit_test(test_what_is_only_ready_yields_to_others_of_its_group),
        cmocka_unit_test(test_what_is_ready_does_not_go_in_vain_for_a_groups_promise),
        cmocka_unit_test(test_what_is_only_ready_makes_room_for_one_large_block),
        cmocka_unit_test(test_an_idle_daemon_sleeps_whatever_is_to_be_ready),
        cmocka_unit_test(test_who_grows_and_releases_pays_for_few_looks),
        cmocka_unit_test(test_as_much_stays_ready_in_pieces_as_in_one),
        cmocka_unit_test(test_ready_memory_goes_to_and_fro_and_nothing_is_lost),
        cmocka_unit_test(test_nothing_is_prepared_for_nobody),
        cmocka_unit_test(test_pages_are_what_the_daemon_believes_of_them),
        cmocka_unit_test(test_one_who_does_not_let_go_does_not_keep_others_from_it),
        cmocka_unit_test(test_what_can_never_be_had_takes_nothing_from_others),
        cmocka_unit_test(test_a_heap_that_is_dropped_while_it_retires_leaves_nothing_behind),
        cmocka_unit_test(test_a_tenants_heaps_leave_so_many_segments_and_no_more),
        cmocka_unit_test(test_large_runs_lie_side_by_side),
        cmocka_unit_test(test_soft_blocks_that_overlap_come_back_once),
        cmocka_unit_test(test_soft_blocks_are_taken_in_turns),
        cmocka_unit_test(test_a_heap_without_clients_can_be_dropped),
        cmocka_unit_test(test_a_thousand_lives_leave_nothing_behind),
        cmocka_unit_test(test_garbage_in_the_segments_harms_no_books),
        cmocka_unit_test(test_configurations_come_and_go_and_everybody_has_an_answer),
        cmocka_unit_test(test_random_lives_keep_the_books_right),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
