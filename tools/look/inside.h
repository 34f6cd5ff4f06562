/* SPDX-License-Identifier: Apache-2.0 */
/* inside.h - what survey.c, which looks, and cache.c, which keeps open, know of each other. */
#ifndef ACRE_LOOK_INSIDE_H
#define ACRE_LOOK_INSIDE_H

#include "tools/look/survey.h"

#define N_FOCUS (N_CLASSES + 1) /* and large blocks */

struct open_segment {
    int fd; /* -1: not open */
    struct segment_shape shape;
};

/* A tenant or group that was there when the daemon was asked last. */
struct known {
    struct msg_tenant what;
    bool is_gone;
    int control_fd, error; /* -1 and why not */
    char why[MSG_TEXT_BYTES];
    uint64_t heap_id, new_block_bytes;
    uint32_t n_waiters, retire_seq;
    struct open_segment segments[HEAP_SLOTS];
};

struct survey_cache {
    size_t n, next; /* next: to be asked about again */
    struct known **list;
    uint64_t asked_ns, capacity_bytes;
    bool is_stale;
    long n_fds, n_fds_max;
    char focus_tenant[TENANT_NAME_BYTES];
    tag_t focus_id;
};

/* What only the taking needs. */
struct look {
    struct peer *peer;
    struct survey_tenant *tenant;
    uint64_t heap_id;
    int control_fd;
    uint32_t n_slots, retire_seq;
    uint64_t *live_in_held; /* by id of the units' holder */
    tag_t focus_id;
    struct survey_cache *cache; /* or NULL; and in it: */
    struct known *known;
};

/* ---- survey.c ---- */

/* The tenant's control segment; the connection looks at this tenant from now on. */
int look_control(struct peer *peer, const char *tenant, int *ret_fd, uint64_t *ret_heap_id);
/* Of that tenant. */
int look_room(struct peer *peer, uint32_t n_slots, uint32_t *ret_n_waiters,
              uint64_t *ret_new_block);
typedef int (*look_told_fn)(void *ctx, struct peer *peer, const struct msg_tenant *what);
int look_tenants(struct peer *peer, look_told_fn fn, void *ctx);
/* Everything that can be read of it. */
int look_read(struct look *look, enum survey_depth depth);

struct survey_tenant *survey_add(struct survey *survey, const char *name);
int survey_add_group(struct survey *survey, struct peer *peer, const struct msg_tenant *what);
void survey_fail(struct survey_tenant *tenant, int error, const char *why);

/* ---- cache.c ---- */
void cache_forget_segments(struct survey_cache *cache, struct known *known);

#endif
