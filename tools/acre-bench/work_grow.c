/* SPDX-License-Identifier: Apache-2.0 */
/*
 * work_grow.c - what it costs to ask the daemon. Blocks of 5 MiB are more than a client ever gets
 * in advance: each allocation is one request and one reply, with the client's and the daemon's work
 * at both ends. They are not touched and never freed. It is held against a bare exchange of two
 * packets between two processes. Client and daemon, as the two of the exchange, have a processor
 * each; on one processor both would be two to three times faster. The median call is reported,
 * since now and then one has to map a new segment.
 */
#include "workload.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "say.h"

#define BLOCK_SIZE (5ul << 20)
#define CALLS      100u
#define EXCHANGES  4000u
#define PACKET     32u /* a request's or reply's size, about */

static void ask_daemon(const struct child *child, const char *metric)
{
    double ns[CALLS];
    struct mem mem = mem_open(child->kind, child->socket, 0);
    settle(child);
    for (unsigned i = 0; i < CALLS; i++) {
        uint64_t begin = now_ns();
        mem_use(mem_alloc(mem, MEM_ACRE, BLOCK_SIZE));
        ns[i] = (double)(now_ns() - begin);
    }
    report(metric, "ns", median_of(ns, CALLS), -1);
}

static _Noreturn void echo(int sock)
{
    char packet[PACKET];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    pin_to(1);
    while (recv(sock, packet, sizeof(packet), 0) == PACKET)
        if (send(sock, packet, sizeof(packet), 0) != PACKET)
            break;
    _exit(0);
}

static void ask_echo(const char *metric)
{
    static double ns[EXCHANGES];
    char packet[PACKET] = "ping";
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
        give_up("no socket pair");
    pid_t pid = fork();
    if (pid < 0)
        give_up("cannot fork");
    if (pid == 0)
        echo(ends[1]);
    pin_to(0);
    for (unsigned i = 0; i < EXCHANGES; i++) {
        uint64_t begin = now_ns();
        if (send(ends[0], packet, sizeof(packet), 0) != PACKET ||
            recv(ends[0], packet, sizeof(packet), 0) != PACKET)
            give_up("the echo has gone");
        ns[i] = (double)(now_ns() - begin);
    }
    report(metric, "ns", median_of(ns, EXCHANGES), -1);
    shutdown(ends[0], SHUT_RDWR);
    waitpid(pid, NULL, 0);
}

static void run_grow(const struct child *child, unsigned case_idx)
{
    if (child->kind == MEM_NONE) {
        ask_echo(work_grow.cases[case_idx]);
        return;
    }
    pin_to(0);
    ask_daemon(child, work_grow.cases[case_idx]);
}

const struct workload work_grow = {
    .name = "grow",
    .about = "an allocation that asks the daemon, against a bare exchange of packets",
    .cases = {"round trip"},
    .peers = PEER_BIT(PEER_KERNEL),
    .fresh_daemon = true,
    .pinned_daemon = true,
    .run = run_grow,
};
