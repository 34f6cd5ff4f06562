/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache.c - descriptors that stay open between looks. Reading takes nobody: it is pread alone, and
 * goes on while the daemon is stopped. The daemon is asked once in a while who is there, and for
 * segments that the control segment names and nobody has opened yet.
 *
 * A slot's segment may be another one than was opened, if its predecessor retired: all of a tenant's
 * are forgotten when the count of such changes has moved (control_header.retire_seq).
 */
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "proto/wire.h"
#include "tools/look/inside.h"

#define ASK_NS      1000000000ull /* between two questions what is new */
#define ASK_TENANTS 64u           /* of those known already, at once */
#define FDS_LEFT    64u           /* of the process's, at least, for others */
#define N_FOCUS     (N_CLASSES + 1)

void cache_forget_segments(struct survey_cache *cache, struct known *known)
{
    for (uint32_t slot = 0; slot < HEAP_SLOTS; slot++)
        if (known->segments[slot].fd >= 0) {
            close_fd(&known->segments[slot].fd);
            cache->n_fds--;
        }
}

struct survey_cache *survey_cache_new(void)
{
    struct survey_cache *cache = calloc(1, sizeof(*cache));
    struct rlimit limit;

    if (cache && getrlimit(RLIMIT_NOFILE, &limit) == 0)
        cache->n_fds_max = (long)MIN(limit.rlim_cur, 1u << 20) - (long)FDS_LEFT;
    return cache;
}

static void known_free(struct survey_cache *cache, struct known *known)
{
    cache_forget_segments(cache, known);
    if (known->control_fd >= 0)
        cache->n_fds--;
    close_fd(&known->control_fd);
    free(known);
}

void survey_cache_free(struct survey_cache *cache)
{
    for (size_t i = 0; cache && i < cache->n; i++)
        known_free(cache, cache->list[i]);
    if (cache)
        free(cache->list);
    free(cache);
}

void survey_focus(struct survey_cache *cache, const char *tenant, tag_t id)
{
    (void)snprintf(cache->focus_tenant, sizeof(cache->focus_tenant), "%s", tenant);
    cache->focus_id = id;
}

static struct known *find_known(struct survey_cache *cache, const char *name)
{
    for (size_t i = 0; i < cache->n; i++)
        if (strcmp(cache->list[i]->what.name, name) == 0)
            return cache->list[i];
    return NULL;
}

static struct known *new_known(struct survey_cache *cache)
{
    struct known **list = reallocarray(cache->list, cache->n + 1, sizeof(struct known *));
    struct known *known = list ? calloc(1, sizeof(*known)) : NULL;

    if (list)
        cache->list = list;
    if (!known)
        return NULL;
    known->control_fd = -1;
    known->error = -EAGAIN;
    for (uint32_t slot = 0; slot < HEAP_SLOTS; slot++)
        known->segments[slot].fd = -1;
    return cache->list[cache->n++] = known;
}

static int note_told(void *ctx, struct peer *peer, const struct msg_tenant *what)
{
    struct survey_cache *cache = ctx;
    struct known *known = find_known(cache, what->name);

    if (!known)
        known = new_known(cache);
    if (!known)
        return peer_fail(peer, -ENOMEM, "out of memory");
    known->what = *what;
    known->is_gone = false;
    return 0;
}

static void forget_gone(struct survey_cache *cache)
{
    size_t n = 0;

    for (size_t i = 0; i < cache->n; i++)
        if (cache->list[i]->is_gone)
            known_free(cache, cache->list[i]);
        else
            cache->list[n++] = cache->list[i];
    cache->n = n;
}

/* Is it still the same heap, and who waits? */
static int ask_about(struct survey_cache *cache, struct peer *peer, struct known *known)
{
    uint64_t heap_id;
    int fd = -1, r = look_control(peer, known->what.name, &fd, &heap_id);

    known->error = r;
    if (r < 0) {
        (void)snprintf(known->why, sizeof(known->why), "%.*s", (int)sizeof(known->why) - 1,
                       peer->why);
        return peer->is_broken ? r : 0;
    }
    if (known->control_fd >= 0 && known->heap_id == heap_id) {
        close_fd(&fd);
    } else {
        cache_forget_segments(cache, known);
        cache->n_fds += known->control_fd < 0;
        close_fd(&known->control_fd);
        known->control_fd = fd;
        known->heap_id = heap_id;
    }
    return look_room(peer, 0, &known->n_waiters, &known->new_block_bytes);
}

static int ask_news(struct survey_cache *cache, struct peer *peer)
{
    struct msg_request req = {.op = MSG_STATUS};
    struct msg_reply reply;
    int r = peer_call(peer, &req, &reply, NULL);

    if (r < 0)
        return r;
    cache->capacity_bytes = reply.status.capacity_bytes;
    for (size_t i = 0; i < cache->n; i++)
        cache->list[i]->is_gone = true;
    r = look_tenants(peer, note_told, cache);
    if (r < 0)
        return r;
    forget_gone(cache);
    for (size_t i = 0, n = MIN(cache->n, ASK_TENANTS); r == 0 && i < n; i++) {
        struct known *known = cache->list[cache->next++ % cache->n];
        if (!known->what.is_group)
            r = ask_about(cache, peer, known);
    }
    for (size_t i = 0; r == 0 && i < cache->n; i++)
        if (!cache->list[i]->what.is_group && cache->list[i]->error == -EAGAIN)
            r = ask_about(cache, peer, cache->list[i]);
    return r;
}

static int ask_if_due(struct survey_cache *cache, struct peer *peer)
{
    uint64_t now_ns = wire_now_ns();
    char path[sizeof(peer->path)];
    int r = 0;

    if (cache->asked_ns != 0 && now_ns - cache->asked_ns < ASK_NS)
        return 0;
    cache->asked_ns = now_ns;
    if (peer->is_broken || peer->sock < 0) {
        memcpy(path, peer->path, sizeof(path));
        peer_close(peer);
        r = peer_open(peer, path);
    }
    if (r == 0)
        r = ask_news(cache, peer);
    cache->is_stale = r < 0;
    return r;
}

static int read_known(struct survey_tenant *t, struct peer *peer, struct survey_cache *cache,
                      struct known *known, enum survey_depth depth)
{
    struct look l = {.peer = peer,
                     .tenant = t,
                     .heap_id = known->heap_id,
                     .control_fd = known->control_fd,
                     .cache = cache,
                     .known = known};

    t->n_waiters = known->n_waiters;
    t->new_block_bytes = known->new_block_bytes;
    if (known->error < 0) {
        survey_fail(t, known->error, known->why);
        return 0;
    }
    if (cache->focus_id != 0 && strcmp(cache->focus_tenant, t->name) == 0) {
        t->focus_blocks = calloc(N_FOCUS, sizeof(*t->focus_blocks));
        l.focus_id = t->focus_blocks ? cache->focus_id : 0;
    }
    l.live_in_held = malloc(CLIENT_IDS * sizeof(*l.live_in_held));
    int r = l.live_in_held ? look_read(&l, depth) : peer_fail(peer, -ENOMEM, "out of memory");
    free(l.live_in_held);
    if (r < 0 && r != -ENOMEM)
        survey_fail(t, r, peer->why);
    return r == -ENOMEM ? r : 0;
}

int survey_again(struct survey *ret_survey, struct peer *peer, struct survey_cache *cache,
                 enum survey_depth depth)
{
    int r = ask_if_due(cache, peer);

    *ret_survey = (struct survey){
        .depth = depth, .capacity_bytes = cache->capacity_bytes, .is_stale = cache->is_stale};
    if (r < 0 && cache->n == 0)
        return r;
    r = 0;
    for (size_t i = 0; r == 0 && i < cache->n; i++) {
        struct known *known = cache->list[i];
        struct survey_tenant *t = NULL;
        if (known->what.is_group)
            r = survey_add_group(ret_survey, peer, &known->what);
        else if (!(t = survey_add(ret_survey, known->what.name)))
            r = peer_fail(peer, -ENOMEM, "out of memory");
        else
            r = read_known(t, peer, cache, known, depth);
    }
    return r;
}
