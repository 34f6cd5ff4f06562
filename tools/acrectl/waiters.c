/* SPDX-License-Identifier: Apache-2.0 */
#include "waiters.h"

#include <string.h>

static int add(struct waiters *w, struct peer *peer, const struct msg_reply *reply)
{
    struct msg_waiter *more = reallocarray(w->all, w->n + reply->waiters.n + 1, sizeof(*more));

    if (!more)
        return peer_fail(peer, -ENOMEM, "out of memory");
    memcpy(more + w->n, reply->waiters.all, reply->waiters.n * sizeof(*more));
    w->all = more;
    w->n += reply->waiters.n;
    memcpy(w->wall, reply->waiters.wall, sizeof(w->wall));
    return 0;
}

/* They come and go meanwhile: a page that is not full is the last one. */
static int take_all(struct waiters *w, struct peer *peer)
{
    struct msg_request look = {.op = MSG_LOOK}, req = {.op = MSG_WAITERS};
    struct msg_reply reply;
    int fd = -1;

    memcpy(look.look.tenant, w->name, sizeof(look.look.tenant));
    int r = peer_call(peer, &look, &reply, &fd);
    close_fd(&fd);
    while (r == 0) {
        req.waiters.skip = (uint32_t)w->n;
        r = peer_call(peer, &req, &reply, NULL);
        if (r == 0)
            r = add(w, peer, &reply);
        if (reply.waiters.n < MSG_WAITERS_MAX)
            break;
    }
    return r;
}

int waiters_take(struct waiters *ret_waiters, struct peer *peer, const char *tenant)
{
    *ret_waiters = (struct waiters){.n = 0};
    (void)snprintf(ret_waiters->name, sizeof(ret_waiters->name), "%s", tenant);
    int r = take_all(ret_waiters, peer);
    if (r == 0 || r == -ENOMEM || peer->is_broken)
        return r;
    ret_waiters->error = r;
    (void)snprintf(ret_waiters->why, sizeof(ret_waiters->why), "%.*s",
                   (int)sizeof(ret_waiters->why) - 1, peer->why);
    return 0;
}

void waiters_deinit(struct waiters *waiters)
{
    free(waiters->all);
}
