/* SPDX-License-Identifier: Apache-2.0 */
/* hostile_crowd.c - what it does with processes, and until the daemon refuses. */
#include "tests/misuse/hostile.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "shm/sizeclass.h"

#define MANY      64u
#define ALL_EVERY 16u /* seldom all that one user may have: some thousand */
#define ALL       5000u

static unsigned how_many(struct hostile *h)
{
    return hostile_below(h, ALL_EVERY) ? MANY : ALL;
}

/* Goes on writing into what it has mapped; later it comes back, or does not. */
void crowd_close(struct hostile *h)
{
    struct msg_request req = {.op = MSG_DETACH};
    if (hostile_below(h, 4) == 0)
        hostile_ask(h, &req);
    close_fd(&h->sock);
    for (unsigned i = 0; i < 20; i++) {
        scribble_entries(h);
        scribble_tags(h);
        scribble_links(h);
        hostile_rest(h, 3000);
    }
    if (hostile_below(h, 2))
        (void)hostile_resume(h);
}

/* The same socket, the same segments, the same life page. */
void crowd_fork(struct hostile *h)
{
    if (hostile_fork() != 0)
        return;
    h->rng ^= (uint64_t)getpid() << 24 | 1;
    for (unsigned i = 0; i < 50; i++) {
        scribble_entries(h);
        packet_valid(h);
        packet_mutated(h);
        hostile_rest(h, 4000);
    }
    _exit(0);
}

/* A client that becomes another program, which inherits its socket. */
void crowd_exec(struct hostile *h)
{
    if (hostile_fork() != 0)
        return;
    hostile_leave(h, false);
    if (hostile_attach(h, "exec")) {
        (void)fcntl(h->sock, F_SETFD, 0);
        (void)fcntl(h->life_fd, F_SETFD, 0);
        hostile_flood(h, 10);
        execl("/bin/sleep", "sleep", "0.2", (char *)NULL);
    }
    _exit(1);
}

/* A client that is stopped with requests under way; killed as it is, or continued. */
void crowd_stop(struct hostile *h)
{
    pid_t pid = hostile_fork();
    if (pid == 0) {
        hostile_leave(h, false);
        if (hostile_attach(h, "stopped")) {
            crowd_extents(h);
            hostile_flood(h, 100);
            (void)raise(SIGSTOP);
            hostile_flood(h, 100);
        }
        _exit(0);
    }
    hostile_rest(h, 200000);
    if (pid > 0 && hostile_below(h, 2))
        (void)kill(pid, SIGCONT);
    hostile_rest(h, 20000);
    if (pid > 0)
        (void)kill(pid, SIGKILL);
}

void crowd_connections(struct hostile *h)
{
    static int crowd[ALL];
    unsigned n = 0, n_wanted = how_many(h);
    while (n < n_wanted &&
           wire_connect(the_daemon.socket, wire_now_ns() + 100000000u, &crowd[n]) == 0)
        n++;
    hostile_rest(h, 50000);
    while (n > 0)
        close(crowd[--n]);
}

/* All at once, each as much as it is served in one turn. */
void crowd_storm(struct hostile *h)
{
    static int crowd[ALL];
    unsigned n = 0, n_wanted = how_many(h);
    for (; n < n_wanted; n++)
        if (wire_hello(the_daemon.socket, wire_now_ns() + 100000000u, &crowd[n], NULL) < 0)
            break;
    struct hostile one = *h;
    for (unsigned i = 0; i < n; i++) {
        one.sock = crowd[i];
        hostile_flood(&one, 16);
    }
    hostile_rest(h, 50000);
    while (n > 0)
        close(crowd[--n]);
}

/* Each is mapped and hung up, so that it lives on: only their number tells. */
void crowd_clients(struct hostile *h)
{
    static struct life_page *pages[ALL];
    unsigned n = 0, n_wanted = how_many(h);
    while (n < n_wanted) {
        struct hostile one;
        hostile_init(&one, h->orders, rnd(&h->rng));
        bool ok = hostile_attach(&one, "crowd");
        pages[n] = one.page;
        n += one.page != NULL;
        hostile_leave(&one, true);
        if (!ok)
            break;
    }
    hostile_rest(h, 50000);
    while (n > 0)
        munmap(pages[--n], sizeof(struct life_page));
}

/* Until the tenant's budget is granted; and cut, so that nobody takes it back. */
void crowd_extents(struct hostile *h)
{
    struct msg_request req;
    struct msg_reply reply;
    for (unsigned i = 0; i < ALL; i++) {
        req = (struct msg_request){.op = MSG_GROW};
        req.grow.n_units = 1 + (uint32_t)hostile_below(h, hostile_below(h, 2) ? 512 : 8);
        req.grow.exact = hostile_below(h, 2);
        if (!hostile_call(h, &req, &reply, NULL))
            break;
        uint64_t k = hostile_below(h, HOSTILE_GRANTS), off = reply.grow.run.off;
        h->offs[k] = off;
        h->n_units[k] = reply.grow.run.n_units;
        uint64_t slot = off >> SLOT_SHIFT, unit = (off & (SLOT_BYTES - 1)) >> UNIT_SHIFT;
        if (slot >= HOSTILE_SLOTS || !h->segs[slot].base)
            continue;
        struct segment_shape s = segment_shape((uint32_t)(h->segs[slot].bytes / UNIT_BYTES));
        for (uint32_t u = 0; u < h->n_units[k] && unit + u < s.n_table; u++)
            segment_entries(h->segs[slot].base, &s)[unit + u] = unit_entry_plain(U_CUT, 0);
    }
}

/* A block that is somebody's takes every name that there is; half of them are forgotten again. */
void crowd_roots(struct hostile *h)
{
    struct msg_request req = {.op = MSG_GROW, .grow = {.n_units = 1, .exact = true}};
    struct msg_reply reply;
    if (!hostile_call(h, &req, &reply, NULL))
        return;
    uint64_t off = reply.grow.run.off, unit = (off & (SLOT_BYTES - 1)) >> UNIT_SHIFT;
    char *base = off >> SLOT_SHIFT < HOSTILE_SLOTS ? h->segs[off >> SLOT_SHIFT].base : NULL;
    if (!base)
        return;
    struct segment_shape s =
        segment_shape((uint32_t)(h->segs[off >> SLOT_SHIFT].bytes / UNIT_BYTES));
    if (unit >= s.n_table) /* the answer to another request, of a fork */
        return;
    segment_tags(base, &s)[unit] = TAG_HEAP;
    segment_entries(base, &s)[unit] = unit_entry_large(1, client_handle_id(h->client));
    for (unsigned i = 0; i < 1100; i++) {
        req = (struct msg_request){.op = MSG_ROOT, .root = {.op = ROOT_SET, .desired = off}};
        snprintf(req.root.name, sizeof(req.root.name), "root %u", i);
        (void)hostile_call(h, &req, &reply, NULL);
        if (reply.error == -ENOSPC)
            break;
    }
    for (unsigned i = 0; i < 1100; i += 1 + (unsigned)hostile_below(h, 3)) {
        req = (struct msg_request){.op = MSG_ROOT, .root = {.op = ROOT_DEL}};
        snprintf(req.root.name, sizeof(req.root.name), "root %u", i);
        (void)hostile_call(h, &req, &reply, NULL);
    }
}

/* All want the rest of the heap at once, while somebody dies, so that they have to wait. */
void crowd_waiters(struct hostile *h)
{
    static struct hostile crowd[MANY];
    uint8_t buf[WIRE_PACKET_MAX];
    unsigned n = 0;
    crowd_extents(h);
    for (; n < MANY; n++) {
        struct msg_request req = {.op = MSG_GROW, .serial = 99, .grow = {.n_units = 1000}};
        hostile_init(&crowd[n], h->orders, rnd(&h->rng));
        if (!hostile_attach(&crowd[n], "waits"))
            break;
        req.grow.exact = hostile_below(h, 2);
        hostile_send(h, crowd[n].sock, buf, codec_pack_request(&req, buf), NULL, 0);
        if (n % 8 == 7)
            hostile_leave(&crowd[n - 1], false);
    }
    hostile_rest(h, 20000);
    while (n > 0)
        hostile_leave(&crowd[--n], false);
}

/* Replies with descriptors that nobody takes or acknowledges, and packets full of descriptors for
 * a daemon that does not read them. */
void crowd_flight(struct hostile *h)
{
    static struct hostile crowd[MANY];
    int fds[253];
    unsigned n = 0, n_fds = 0;
    while (n_fds < ARRAY_LEN(fds) && (fds[n_fds] = hostile_any_descriptor(h)) >= 0)
        n_fds++;
    for (; n < MANY; n++) {
        uint8_t buf[WIRE_PACKET_MAX];
        struct msg_request req = {.op = MSG_LOOK, .serial = 3};
        hostile_init(&crowd[n], h->orders, rnd(&h->rng));
        if (!hostile_greet(&crowd[n]))
            break;
        memcpy(req.look.tenant, h->orders->tenant, sizeof(req.look.tenant));
        size_t n_bytes = codec_pack_request(&req, buf);
        hostile_send(h, crowd[n].sock, buf, n_bytes, NULL, 0);
        for (unsigned i = 0; i < 4; i++)
            hostile_send(h, crowd[n].sock, buf, n_bytes, fds, n_fds);
    }
    hostile_rest(h, 20000);
    while (n > 0)
        hostile_leave(&crowd[--n], false);
    while (n_fds > 0)
        close(fds[--n_fds]);
}
