/* SPDX-License-Identifier: Apache-2.0 */
/* core_world.c - see core_world.h. */
#include "tests/model/core_world.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "daemon/dispatch.h"
#include "daemon/restore.h"
#include "tests/model/core_trap.h"

struct world world;
const char *const world_names[WORLD_TENANTS] = {"a", "b", "c"};

/* What a core in a child tells the world of. */
enum note_kind { NOTE_KEEP, NOTE_DROP, NOTE_REPLY };
struct note {
    enum note_kind kind;
    char name[STORE_NAME_BYTES];
    void *peer;
    struct msg_reply reply;
};

static int note_sock = -1;          /* in a child */
static bool is_buried;              /* what the core does is nothing to anybody */
static volatile uint32_t *n_events; /* of the child */

/* ---- the store ---- */

static struct store_item *find_kept(const char *name)
{
    for (uint32_t i = 0; i < world.n_kept; i++)
        if (strcmp(world.kept[i].name, name) == 0)
            return &world.kept[i];
    return NULL;
}

static void keep_here(const char *name, int fd)
{
    acre_assert(find_kept(name) == NULL && world.n_kept < WORLD_KEPT);
    struct store_item *item = &world.kept[world.n_kept++];
    (void)snprintf(item->name, sizeof(item->name), "%s", name);
    item->fd = fd;
}

/* What is not there is no sin: a name may be dropped twice. */
static void drop_here(const char *name)
{
    struct store_item *item = find_kept(name);
    if (!item)
        return;
    close_fd(&item->fd);
    *item = world.kept[--world.n_kept];
}

int world_kept(struct kept kept)
{
    char name[STORE_NAME_BYTES];
    kept_name(kept, name);
    struct store_item *item = find_kept(name);
    return item ? item->fd : -1;
}

int world_books(uint32_t i, uint32_t *ret_heap_no)
{
    struct kept kept;
    struct books_header header;
    for (uint32_t k = 0; k < world.n_kept; k++) {
        int fd = world.kept[k].fd;
        if (!kept_parse(world.kept[k].name, &kept) || kept.kind != KEPT_BOOKS ||
            pread(fd, &header, sizeof(header), 0) != sizeof(header) ||
            strcmp(header.tenant, world_names[i]) != 0)
            continue;
        *ret_heap_no = kept.no;
        return fd;
    }
    return -1;
}

/* ---- notes ---- */

static void send_note(const struct note *note, int fd)
{
    char control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec data = {(void *)note, sizeof(*note)};
    struct msghdr msg = {.msg_iov = &data, .msg_iovlen = 1};
    trap_event();
    if (fd >= 0) {
        msg.msg_control = control;
        msg.msg_controllen = sizeof(control);
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        *c = (struct cmsghdr){CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
        memcpy(CMSG_DATA(c), &fd, sizeof(fd));
    }
    if (sendmsg(note_sock, &msg, MSG_NOSIGNAL) != (ssize_t)sizeof(*note))
        abort();
}

static bool receive_note(int sock, struct note *note, int *fd)
{
    char control[CMSG_SPACE(sizeof(int))];
    struct iovec data = {note, sizeof(*note)};
    struct msghdr msg = {.msg_iov = &data,
                         .msg_iovlen = 1,
                         .msg_control = control,
                         .msg_controllen = sizeof(control)};
    *fd = -1;
    if (recvmsg(sock, &msg, MSG_CMSG_CLOEXEC) != (ssize_t)sizeof(*note))
        return false;
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    if (c)
        memcpy(fd, CMSG_DATA(c), sizeof(*fd));
    return true;
}

static void take_notes(int sock)
{
    struct note note;
    int fd;
    while (receive_note(sock, &note, &fd)) {
        if (note.kind == NOTE_KEEP)
            keep_here(note.name, fd);
        else if (note.kind == NOTE_DROP)
            drop_here(note.name);
        else
            fake_reply(note.peer, &note.reply, -1);
    }
}

/* ---- what the core asks for ---- */

static void on_reply(void *peer, const struct msg_reply *reply, int fd)
{
    struct note note = {.kind = NOTE_REPLY, .peer = peer, .reply = *reply};
    if (note_sock < 0 && !is_buried) {
        fake_reply(peer, reply, fd);
        return;
    }
    close_fd(&fd);
    if (!is_buried)
        send_note(&note, -1);
    if (note_sock >= 0)
        fake_reply(peer, reply, -1); /* a new peer's Hello */
}

static void on_submit(void *ctx, struct job *job)
{
    (void)ctx;
    acre_assert(world.n_jobs < WORLD_JOBS);
    world.jobs[world.n_jobs++] = (struct world_job){job, false};
}

static int on_keep(void *ctx, const char *name, int fd)
{
    struct note note = {.kind = NOTE_KEEP};
    (void)ctx;
    (void)snprintf(note.name, sizeof(note.name), "%s", name);
    if (note_sock >= 0)
        send_note(&note, fd);
    else if (!is_buried)
        keep_here(name, fcntl(fd, F_DUPFD_CLOEXEC, 0));
    return 0;
}

static void on_drop(void *ctx, const char *name)
{
    struct note note = {.kind = NOTE_DROP};
    (void)ctx;
    (void)snprintf(note.name, sizeof(note.name), "%s", name);
    if (note_sock >= 0)
        send_note(&note, -1);
    else if (!is_buried)
        drop_here(name);
}

/* ---- a core's life ---- */

static void new_core(void)
{
    struct core_io io = {
        NULL,    on_reply, fake_close, on_submit, fake_close_foreign, fake_open_pidfd,
        on_keep, on_drop};
    struct access_list none = {0};
    int r = core_init(&world.core, &io, world.capacity_bytes, "test", world.now_ns);
    for (uint32_t i = 0; i < WORLD_TENANTS && r == 0; i++)
        r = core_add_tenant(&world.core, world_names[i], &world.wishes[i], &none);
    acre_assert(r == 0);
    world.n_jobs = 0;
    world.is_up = true;
}

static void restore(void)
{
    struct store_items items = {.all = calloc(WORLD_KEPT, sizeof(struct store_item))};
    acre_assert(items.all != NULL);
    new_core();
    for (uint32_t i = 0; i < world.n_kept; i++) {
        items.all[items.n] = world.kept[i];
        items.all[items.n++].fd = fcntl(world.kept[i].fd, F_DUPFD_CLOEXEC, 0);
    }
    restore_all(&world.core, &items);
    store_items_free(&items);
}

void world_begin(void)
{
    world.now_ns = SECOND;
    new_core();
}

void world_end(void)
{
    acre_assert(world.is_up);
    core_assert_valid(&world.core);
    core_deinit(&world.core);
    world.is_up = false;
    while (world.n_kept > 0)
        drop_here(world.kept[0].name);
}

struct tenant *world_tenant(uint32_t i)
{
    return world.is_up ? core_find_tenant(&world.core, world_names[i]) : NULL;
}

/* ---- calls ---- */

static void do_job_done(uint32_t i)
{
    struct job *job = world.jobs[i].job;
    world.jobs[i] = world.jobs[--world.n_jobs];
    core_job_done(&world.core, job, world.now_ns);
}

void world_call(const struct call *c)
{
    struct fake *f = c->fake;
    switch (c->kind) {
    case CALL_REQUEST:
        if (c->is_new)
            fake_connect(&world.core, f, 0, world.now_ns);
        struct msg_request req = c->req;
        if (req.op != MSG_ACK)
            req.serial = f->session.serial + 1;
        dispatch_request(&world.core, &f->session, &req, 0, c->fd, world.now_ns);
        break;
    case CALL_HANGUP:
        dispatch_hangup(&world.core, &f->session, world.now_ns);
        f->is_open = false;
        close_fd(&f->fd);
        break;
    case CALL_WORK:
        world.jobs[c->job].job->work(world.jobs[c->job].job);
        world.jobs[c->job].has_worked = true;
        break;
    case CALL_DONE:
        do_job_done(c->job);
        break;
    case CALL_TICK:
        (void)core_deadline(&world.core);
        core_tick(&world.core, world.now_ns);
        break;
    default:
        restore();
    }
}

/* ---- deaths ---- */

static void remap(void *at, size_t bytes, int fd)
{
    void *p =
        mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fd, 0);
    acre_assert(p == at);
}

static void cut_off(struct tenant *t, int dummy)
{
    int fds[] = {t->control_fd, t->control_ro_fd, t->books_fd};
    remap(t->control, sizeof(*t->control), t->control_fd);
    remap(t->books, sizeof(*t->books), t->books_fd);
    for (unsigned i = 0; i < ARRAY_LEN(fds); i++)
        (void)dup3(dummy, fds[i], O_CLOEXEC);
    for (uint32_t slot = 0; slot < t->n_slots; slot++) {
        struct seg *seg = t->segs[slot];
        if (!seg)
            continue;
        remap(seg->base, seg->mapped_bytes, seg->fd);
        (void)dup3(dummy, seg->fd, O_CLOEXEC);
        (void)dup3(dummy, seg->client_fd, O_CLOEXEC);
    }
}

/* Gives back what the dead core had of this process, and touches nothing that is shared: it comes to
 * its end by its own means, in a world of copies. */
static void bury_core(void)
{
    struct session *s;
    CLEANUP_FD int dummy = memfd_create("dummy", MFD_CLOEXEC);
    for (uint32_t i = 0; i < WORLD_TENANTS; i++)
        if (world_tenant(i)->is_open)
            cut_off(world_tenant(i), dummy);
    is_buried = true;
    world.core.is_stopping = true;
    while ((s = LIST_FIRST(&world.core.sessions)))
        world_call(&(struct call){.kind = CALL_HANGUP, .fake = s->peer});
    while (world.n_jobs > 0)
        do_job_done(0);
    core_deinit(&world.core);
    world.is_up = is_buried = false;
    world.n_deaths++;
}

void world_die(void)
{
    bury_core();
}

static void protect_core(void)
{
    for (uint32_t i = 0; i < WORLD_TENANTS; i++) {
        struct tenant *t = world_tenant(i);
        if (!t || !t->is_open)
            continue;
        trap_protect(t->control, sizeof(*t->control));
        trap_protect(t->books, sizeof(*t->books));
        for (uint32_t slot = 0; slot < t->n_slots; slot++)
            if (t->segs[slot])
                trap_protect(t->segs[slot]->base, t->segs[slot]->mapped_bytes);
    }
}

/* The child begins when the other process has buried its core: from then on it alone maps what the
 * core maps. */
static _Noreturn void live_and_die(const struct call *call, uint32_t k, int sock)
{
    char go;
    if (read(sock, &go, 1) != 1)
        _exit(1);
    note_sock = sock;
    protect_core();
    trap_begin(k, n_events);
    world_call(call);
    _exit(0);
}

uint32_t world_call_killed(const struct call *call, uint32_t k)
{
    int socks[2], status = -1;
    if (!n_events)
        n_events = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    *n_events = 0;
    acre_assert(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, socks) == 0);
    (void)fflush(NULL);
    pid_t pid = fork();
    acre_assert(pid >= 0);
    if (pid == 0) {
        (void)close(socks[0]);
        live_and_die(call, k, socks[1]);
    }
    (void)close(socks[1]);
    if (world.is_up)
        bury_core();
    if (call->fd >= 0)
        (void)close(call->fd);
    acre_assert(write(socks[0], "", 1) == 1);
    take_notes(socks[0]);
    (void)close(socks[0]);
    acre_assert(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
    acre_assert(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == TRAP_KILLED);
    world.n_kills += WEXITSTATUS(status) == TRAP_KILLED;
    world.n_events += *n_events;
    return *n_events;
}
