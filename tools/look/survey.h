/* SPDX-License-Identifier: Apache-2.0 */
/*
 * survey.h - the picture of a daemon's tenants, taken without stopping anyone.
 *
 * The daemon only hands out read-only descriptors; everything is read by pread, so that looking
 * refills no hole. While clients work the picture is blurred; of a resting heap it is exact.
 */
#ifndef ACRE_LOOK_SURVEY_H
#define ACRE_LOOK_SURVEY_H

#include "tools/look/peer.h"
#include "shm/census.h"

struct survey_client {
    tag_t id;
    uint32_t gen, pid;
    char name[CLIENT_NAME_BYTES];
    uint64_t granted_bytes;
    uint64_t live_bytes, live_blocks; /* what it owns, in whoever's units */
    uint64_t free_bytes;              /* of its own units, what no live block takes */
};

struct survey_tenant {
    char name[TENANT_NAME_BYTES];
    int error; /* then nothing below is known, and why says it */
    char why[MSG_TEXT_BYTES];
    bool is_group; /* of tenants: only what follows in this line is known */
    uint64_t min_bytes, high_bytes, max_bytes, sealed_bytes; /* high UINT64_MAX: none */
    uint32_t weight;
    uint64_t granted_bytes, resident_bytes;
    uint64_t ready_bytes, prepared_bytes;
    uint64_t over_bytes;                          /* more than it should have, says pressure */
    uint32_t pressure;                            /* enum pressure_level, or of a newer daemon */
    uint32_t pages, pages_wanted, pages_possible; /* enum pages_kind, or of a newer daemon */
    uint64_t largest_free_bytes;                  /* in one piece, of the segments that there are */
    uint64_t new_block_bytes;                     /* a new segment could hold a block of so many */
    uint32_t n_waiters;
    struct census census;
    uint64_t *focus_blocks; /* by class, then large ones; NULL: see survey_focus() */
    size_t n_clients;
    struct survey_client *clients; /* by id */
};

/* How closely to look: at each block; only at what the control segments say; or at that and who is
 * attached, with what was granted to them. */
enum survey_depth { SURVEY_BLOCKS, SURVEY_BRIEF, SURVEY_CLIENTS };

struct survey {
    uint64_t capacity_bytes;
    enum survey_depth depth;
    bool is_stale; /* the daemon does not answer: what is new since is not here */
    size_t n_tenants;
    struct survey_tenant *tenants; /* by name */
};

/* only: this tenant and no other, or NULL. A tenant that cannot be looked at has its own error. */
int survey_take(struct survey *ret_survey, struct peer *peer, const char *only,
                enum survey_depth depth);
void survey_deinit(struct survey *survey);

/* What stays open between looks, so that the next asks the daemon only for what is new, once in a
 * while, and goes on while it does not answer. */
struct survey_cache;
struct survey_cache *survey_cache_new(void); /* NULL: out of memory */
void survey_cache_free(struct survey_cache *cache);
/* survey_take() of all tenants, out of a cache. Reconnects a broken peer to where it was. */
int survey_again(struct survey *ret_survey, struct peer *peer, struct survey_cache *cache,
                 enum survey_depth depth);
/* From the next look on, this client's live blocks by class are counted, too; id 0: nobody's. */
void survey_focus(struct survey_cache *cache, const char *tenant, tag_t id);

uint64_t survey_published_bytes(const struct survey_tenant *tenant);
/* Granted, and in no live block. */
uint64_t survey_free_bytes(const struct survey_tenant *tenant);

/* The largest block that is to be had without anybody giving something back. */
uint64_t survey_largest_bytes(const struct survey_tenant *tenant);

/* "4k", "thp" */
const char *survey_pages(uint32_t kind);
/* "none", "high", "share", "max" */
const char *survey_pressure(uint32_t level);

#endif
