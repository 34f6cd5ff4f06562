/* SPDX-License-Identifier: Apache-2.0 */
/* worker.c - see worker.h. */
#include "daemon/worker.h"

#include <uv.h>

#include "daemon/server.h"

struct work {
    uv_work_t req;
    struct server *server;
    struct job *job;
};

static void on_work(uv_work_t *req)
{
    struct work *w = req->data;
    w->job->work(w->job);
}

static void on_done(uv_work_t *req, int status)
{
    struct work *w = req->data;
    struct server *server = w->server;
    struct job *job = w->job;
    acre_assert(status == 0); /* nothing is ever cancelled */
    free(w);
    core_job_done(server_core(server), job, server_now_ns(server));
    server_touch(server);
}

void worker_submit(struct server *server, struct job *job)
{
    struct work *w = malloc(sizeof(*w));
    acre_assert(
        w !=
        NULL); /* a death that is not reaped, an answer that never comes: better to begin anew */
    *w = (struct work){.req.data = w, .server = server, .job = job};
    int r = uv_queue_work(server_loop(server), &w->req, on_work, on_done);
    acre_assert(r == 0);
}
