/* SPDX-License-Identifier: Apache-2.0 */
/* peers.c - see peers.h. */
#include "tests/fuzz/peers.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#include "daemon/dispatch.h"
#include "proto/codec.h"
#include "shm/sizeclass.h"
#include "tests/fuzz/fuzz.h"

#define REST_ROUNDS_MIN   5u
#define REST_ROUNDS_MAX   200u
#define USER_CLIENTS      3u /* of one who is no administrator */
/* Of more, only some looks recount the books. */
#define RECOUNT_BYTES_MAX MIB(64)
#define RECOUNT_ONE_IN    16u

struct peer peers[PEERS];
static unsigned n_looks;

static void let_strangers_in(void)
{
    world_tenant(WORLD_TENANTS - 1)->access.of[ACCESS_ATTACH].everyone = true;
    world.core.n_user_lives_max = USER_CLIENTS;
}

void peers_begin(void)
{
    wraps_begin();
    n_looks = 0;
    memset(peers, 0, sizeof(peers));
    for (uint32_t i = 0; i < PEERS; i++) {
        peers[i].fake.fd = peers[i].fake.life_fd = -1;
        peers[i].present = peers[i].held = -1;
    }
    world_begin();
    let_strangers_in();
}

/* ---- presents ---- */

static int page_of(size_t n_bytes, unsigned seals)
{
    int fd = memfd_create("life", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    uint64_t magic = LIFE_MAGIC;
    acre_assert(fd >= 0 && ftruncate(fd, (off_t)n_bytes) == 0);
    acre_assert(pwrite(fd, &magic, sizeof(magic), 0) == sizeof(magic));
    acre_assert(seals == 0 || fcntl(fd, F_ADD_SEALS, seals) == 0);
    return fd;
}

static int copy_of_page(struct peer *p)
{
    if (!p->fake.page)
        fake_make_page(&p->fake);
    return fcntl(p->fake.life_fd, F_DUPFD_CLOEXEC, 0);
}

static int readonly_page(void)
{
    char path[32];
    CLEANUP_FD int fd = page_of(sizeof(struct life_page), 0);
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    return open(path, O_RDONLY | O_CLOEXEC);
}

static int end_of_pipe(void)
{
    int ends[2];
    acre_assert(pipe2(ends, O_CLOEXEC) == 0);
    (void)close(ends[0]);
    return ends[1];
}

static int make_present(struct peer *p, enum present what)
{
    switch (what) {
    case PRESENT_PAGE:
        return copy_of_page(p);
    case PRESENT_OTHERS_PAGE:
        return copy_of_page(&peers[(p - peers + 1) % PEERS]);
    case PRESENT_UNMAPPED:
        return page_of(sizeof(struct life_page), 0);
    case PRESENT_READONLY:
        return readonly_page();
    case PRESENT_UNSEALABLE:
        return page_of(sizeof(struct life_page), F_SEAL_SEAL);
    case PRESENT_SEALED:
        return page_of(sizeof(struct life_page), F_SEAL_WRITE);
    case PRESENT_SHORT:
        return page_of(sizeof(struct life_page) - 1, 0);
    case PRESENT_LONG:
        return page_of(KIB(64) + 1, 0);
    case PRESENT_DEVICE:
        return open("/dev/null", O_RDWR | O_CLOEXEC);
    case PRESENT_PIPE:
        return end_of_pipe();
    default:
        return -1;
    }
}

void peers_bring(struct peer *p, enum present what)
{
    close_fd(&p->present);
    p->present = make_present(p, what);
}

/* ---- sending ---- */

void peers_connect(struct peer *p, uid_t uid)
{
    struct creds creds = {.pid = getpid(), .uid = uid, .gid = uid};
    if (p->fake.is_open || !world.is_up)
        return;
    p->fake.is_open = true;
    p->fake.told_to_close = false;
    p->n_sent = p->n_seen = p->fake.n_replies = 0;
    p->n_watches = p->fake.n_events = 0;
    dispatch_accept(&world.core, &p->fake.session, &p->fake, &creds);
}

void peers_send(struct peer *p, const uint8_t *packet, size_t n)
{
    struct msg_request req;
    int fd = p->present;
    if (!p->fake.is_open || p->fake.session.wait != WAIT_NONE)
        return;
    p->present = -1;
    p->n_sent++;
    int error = codec_unpack_request(packet, n, &req);
    p->n_watches += error == 0 && req.op == MSG_WATCH;
    dispatch_request(&world.core, &p->fake.session, &req, error, fd, world.now_ns);
}

void peers_ask(struct peer *p, const struct msg_request *req)
{
    uint8_t buf[WIRE_PACKET_MAX];
    struct msg_request numbered = *req;
    numbered.serial = req->op == MSG_ACK ? 0 : p->n_sent + 1;
    peers_send(p, buf, codec_pack_request(&numbered, buf));
}

void peers_ack(struct peer *p)
{
    struct msg_request ack = {.op = MSG_ACK};
    ack.ack.nonce = p->fake.session.ack_nonce;
    if (ack.ack.nonce != 0)
        peers_ask(p, &ack);
}

static void greet(struct peer *p)
{
    struct msg_request hello = {.op = MSG_HELLO};
    strcpy(hello.hello.magic, "ACRE");
    hello.hello.version_min = hello.hello.version_max = 1;
    hello.hello.fingerprint = layout_fingerprint();
    if (!p->fake.session.greeted)
        peers_ask(p, &hello);
}

void peers_attach(struct peer *p, uint32_t tenant, uid_t uid)
{
    struct msg_request req = {.op = MSG_ATTACH};
    peers_connect(p, uid);
    greet(p);
    strcpy(req.attach.tenant, world_names[tenant]);
    strcpy(req.attach.name, "fuzz");
    if (p->fake.client != 0 && p->fake.page) {
        req.attach.resume_client = p->fake.client;
        memcpy(req.attach.secret, p->fake.page->secret, sizeof(req.attach.secret));
    } else {
        peers_bring(p, PRESENT_PAGE);
    }
    peers_ask(p, &req);
    peers_run_jobs();
    peers_check();
    peers_ack(p);
}

/* ---- going, and time ---- */

void peers_hang_up(struct peer *p)
{
    if (p->fake.is_open)
        world_call(&(struct call){.kind = CALL_HANGUP, .fake = &p->fake, .fd = -1});
}

void peers_hold(struct peer *p)
{
    close_fd(&p->held);
    p->held = p->fake.fd;
    p->fake.fd = -1;
}

void peers_die(struct peer *p)
{
    close_fd(&p->held);
    fake_unmap_page(&p->fake);
    p->fake.client = 0;
}

void peers_hang_up_closing(void)
{
    for (uint32_t i = 0; i < PEERS; i++)
        if (peers[i].fake.told_to_close)
            peers_hang_up(&peers[i]);
}

void peers_tick(uint64_t ns)
{
    world.now_ns += ns;
    world_call(&(struct call){.kind = CALL_TICK, .fd = -1});
}

void peers_run_jobs(void)
{
    while (world.n_jobs > 0)
        world_call(
            &(struct call){.kind = world.jobs[0].has_worked ? CALL_DONE : CALL_WORK, .fd = -1});
}

void peers_restore(void)
{
    world_call(&(struct call){.kind = CALL_RESTORE, .fd = -1});
    let_strangers_in();
}

/* ---- what must be true ---- */

static void remember(struct peer *p, const struct msg_reply *reply)
{
    const struct client *c = p->fake.session.client;
    if (reply->op == MSG_GROW) {
        p->off = reply->grow.run.off;
    } else if (reply->op == MSG_ATTACH) {
        p->fake.client = reply->attach.client;
        p->fake.id = client_handle_id(p->fake.client);
        for (uint32_t i = 0; c && i < WORLD_TENANTS; i++)
            if (c->tenant == world_tenant(i))
                p->tenant = i;
    }
}

/* As daemon/peer.c sends it, and a client reads it. */
static void check_reply(struct peer *p)
{
    static struct msg_reply again;
    static uint8_t buf[WIRE_PACKET_MAX];
    const struct msg_reply *reply = &p->fake.reply;
    size_t n = codec_pack_reply(reply, buf);
    acre_assert(codec_unpack_reply(buf, n, &again) == 0);
    acre_assert(again.serial == reply->serial && again.error == reply->error &&
                again.op == reply->op && again.ack_nonce == reply->ack_nonce);
    acre_assert((reply->error == 0 || reply->text[0] != 0) && reply->error <= 0);
    acre_assert((reply->ack_nonce != 0) == (p->fake.fd >= 0));
    remember(p, reply);
}

void peers_check(void)
{
    if (world.core.ledger.charged_bytes <= RECOUNT_BYTES_MAX || n_looks++ % RECOUNT_ONE_IN == 0)
        core_assert_valid(&world.core);
    for (uint32_t i = 0; i < PEERS; i++) {
        struct peer *p = &peers[i];
        acre_assert(p->fake.n_replies <= p->n_sent && p->fake.n_events <= p->n_watches);
        if (p->n_seen != p->fake.n_replies)
            check_reply(p);
        p->n_seen = p->fake.n_replies;
    }
}

/* Until nothing happens any more but by time, and that has passed: who has hung up and lives is
 * asked again for ever. */
static void rest(void)
{
    for (uint32_t round = 0; round < REST_ROUNDS_MAX; round++) {
        peers_run_jobs();
        if (round >= REST_ROUNDS_MIN && core_deadline(&world.core) > world.now_ns)
            return;
        peers_tick(SECOND + SECOND / 8);
    }
    acre_assert(!"the daemon comes to rest");
}

/* Who detaches waits for its own end. */
static void check_nobody_waits(void)
{
    for (uint32_t i = 0; i < PEERS; i++)
        acre_assert(!peers[i].fake.is_open || peers[i].fake.session.wait == WAIT_NONE ||
                    peers[i].fake.session.wait == WAIT_DETACH);
}

static void drop_heaps(void)
{
    struct peer *admin = &peers[0];
    struct msg_request req = {.op = MSG_TENANT_DROP};
    peers_connect(admin, 0);
    greet(admin);
    for (uint32_t i = 0; i < world.core.n_tenants; i++) {
        strcpy(req.tenant_drop.tenant, world.core.tenants[i]->name);
        peers_ask(admin, &req);
        peers_check();
        acre_assert(admin->fake.reply.error == 0 && !world.core.tenants[i]->is_open);
    }
    peers_hang_up(admin);
}

void peers_end(void)
{
    rest();
    core_assert_valid(&world.core);
    peers_check();
    check_nobody_waits();
    for (uint32_t i = 0; i < PEERS; i++) {
        peers_die(&peers[i]);
        peers_hang_up(&peers[i]);
        close_fd(&peers[i].present);
    }
    rest();
    peers_check();
    acre_assert(world.core.n_clients == 0 && LIST_EMPTY(&world.core.users.list));
    drop_heaps();
    rest();
    peers_check();
    acre_assert(world.core.ledger.charged_bytes == 0 && world.n_kept == 0);
    world_end();
}
