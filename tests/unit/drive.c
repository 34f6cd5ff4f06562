/* SPDX-License-Identifier: Apache-2.0 */
/* drive.c - see drive.h. */
#include "tests/unit/drive.h"

#include <fcntl.h>
#include <string.h>

#include "daemon/dispatch.h"

struct world w;

/* ---- the world ---- */

static void io_submit(void *ctx, struct job *job)
{
    (void)ctx;
    acre_assert(w.n_jobs < WORLD_JOBS_MAX);
    w.jobs[w.n_jobs++] = job;
    w.n_submitted++;
}

static int io_keep(void *ctx, const char *name, int fd)
{
    (void)ctx;
    (void)fd;
    int r = name[0] == w.keep_fails ? -EIO : w.keep_error;
    w.n_kept[(unsigned char)name[0]] += r == 0;
    return r;
}

/* All of the name, as a keeper does it; right for kinds of which there is one. */
static void io_drop(void *ctx, const char *name)
{
    (void)ctx;
    w.n_kept[(unsigned char)name[0]] = 0;
}

void run_one_job(unsigned i)
{
    struct job *job = w.jobs[i];
    memmove(w.jobs + i, w.jobs + i + 1, (--w.n_jobs - i) * sizeof(w.jobs[0]));
    job->work(job);
    core_job_done(&w.core, job, w.now_ns);
}

void run_jobs(void)
{
    while (w.n_jobs > 0)
        run_one_job(w.shuffle ? (unsigned)rand() % w.n_jobs : 0);
}

void pass(uint64_t ns)
{
    (void)core_deadline(&w.core);
    w.now_ns += ns;
    core_tick(&w.core, w.now_ns);
    run_jobs();
}

void start_core(uint64_t capacity_bytes)
{
    struct core_io io = {
        NULL,    fake_reply, fake_close, io_submit, fake_close_foreign, fake_open_pidfd,
        io_keep, io_drop};
    memset(&w, 0, sizeof(w));
    w.now_ns = SECOND;
    acre_assert(core_init(&w.core, &io, capacity_bytes, "test", w.now_ns) == 0);
}

void finish(void)
{
    run_jobs();
    core_assert_valid(&w.core);
    core_deinit(&w.core);
}

/* ---- peers ---- */

int ask_with(struct fake *f, struct msg_request *req, int fd)
{
    unsigned before = f->n_replies;
    if (req->op != MSG_ACK)
        req->serial = f->session.serial + 1;
    dispatch_request(&w.core, &f->session, req, 0, fd, w.now_ns);
    run_jobs();
    for (uint64_t ns; f->n_replies == before && /* a search takes turns */
                      (ns = fake_patience_ns(&w.core, w.now_ns)) < UINT64_MAX;)
        pass(ns + 1);
    if (f->n_replies == before)
        return 1; /* waits, or was told to go */
    if (f->reply.ack_nonce != 0) {
        struct msg_request ack = {.op = MSG_ACK};
        ack.ack.nonce = f->reply.ack_nonce;
        dispatch_request(&w.core, &f->session, &ack, 0, -1, w.now_ns);
    }
    return f->reply.error;
}

int ask(struct fake *f, struct msg_request req)
{
    return ask_with(f, &req, -1);
}

void connect_as(struct fake *f, uid_t uid)
{
    fake_connect(&w.core, f, uid, w.now_ns);
}

int attach_page_to(struct fake *f, const char *tenant)
{
    struct msg_request req = {.op = MSG_ATTACH};
    strcpy(req.attach.tenant, tenant);
    strcpy(req.attach.name, "fake");
    int r = ask_with(f, &req, fcntl(f->life_fd, F_DUPFD_CLOEXEC, 0));
    if (r == 0) {
        f->client = f->reply.attach.client;
        f->id = client_handle_id(f->client);
    }
    close_fd(&f->fd);
    return r;
}

void attach_to(struct fake *f, const char *tenant)
{
    connect_as(f, 0);
    fake_make_page(f);
    acre_assert(attach_page_to(f, tenant) == 0);
}

void hang_up(struct fake *f)
{
    if (f->is_open)
        dispatch_hangup(&w.core, &f->session, w.now_ns);
    f->is_open = false;
    close_fd(&f->fd);
    run_jobs();
}

void kill_it(struct fake *f)
{
    fake_unmap_page(f);
    hang_up(f);
}
