/* SPDX-License-Identifier: Apache-2.0 */
/*
 * msg.h - the protocol's messages as plain structs of bounded size: what codec.c makes of
 * acre.proto and all other code sees. Strings are 0-terminated and never truncated silently: a
 * longer one does not decode.
 */
#ifndef ACRE_PROTO_MSG_H
#define ACRE_PROTO_MSG_H

#include "shm/base.h"
#include "shm/layout.h"

#define PROTO_VERSION_MIN 1u
#define PROTO_VERSION_MAX 1u
#define MSG_TEXT_BYTES    256u
#define MSG_RUNS_MAX      64u
#define MSG_TENANTS_MAX   64u
#define MSG_EXTENTS_MAX   512u
#define MSG_HOLDERS_MAX   256u
#define MSG_WAITERS_MAX   64u
#define MSG_WALL_BYTES    128u
#define MSG_SOFT_MAX      64u

enum msg_op {
    MSG_NONE = 0,
    MSG_HELLO = 2,
    MSG_ATTACH = 3,
    MSG_GROW = 4,
    MSG_RELEASE = 5,
    MSG_FREE_LARGE = 6,
    MSG_MAP_SEGMENT = 7,
    MSG_ROOT = 8,
    MSG_PUBLISH_ALL = 9,
    MSG_DETACH = 10,
    MSG_ACK = 11,
    MSG_STATUS = 12,
    MSG_TENANTS = 13,
    MSG_LOOK = 14,
    MSG_TENANT_DROP = 15,
    MSG_EXTENTS = 16,
    MSG_HOLDERS = 17,
    MSG_UPGRADE = 18,
    MSG_RELOAD = 19,
    MSG_RETIRE = 20,
    MSG_WAIT = 21,
    MSG_CANCEL = 22,
    MSG_WAITERS = 23,
    MSG_WATCH = 24, /* and of the reply without a request (serial 0): an event */
    MSG_TENANT_SET = 25,
    MSG_SOFT = 26,
};

#define SET_MIN    1u
#define SET_HIGH   2u
#define SET_MAX    4u
#define SET_WEIGHT 8u
#define SET_ALL    15u

enum root_op { ROOT_GET = 0, ROOT_SET = 1, ROOT_CAS = 2, ROOT_DEL = 3 };

struct msg_run {
    uint64_t off;
    uint32_t n_units;
};

/* What the books say of units: the owner's id (65535: the heap's orphan; 0: nobody's), and: */
#define EXTENT_FREE  (1u << 16) /* the allocator has them */
#define EXTENT_OUT   (2u << 16) /* nobody's, and out of the allocator for a moment */
#define EXTENT_WHATS (3u << 16)

struct msg_extent {
    uint32_t n_units, what;
};

struct msg_holder {
    tag_t id;
    uint32_t gen; /* 0: dying */
    uint64_t n_units;
};

struct msg_request {
    uint64_t serial;
    enum msg_op op;
    union {
        struct {
            char magic[8];
            uint32_t version_min, version_max;
            uint64_t fingerprint;
        } hello;
        struct {
            char tenant[TENANT_NAME_BYTES];
            char name[CLIENT_NAME_BYTES];
            uint64_t resume_client;
            uint8_t secret[16];
        } attach;
        struct {
            uint32_t n_units, align_order;
            bool exact, again, soft;
            uint32_t class_plus_1;
        } grow;
        struct {
            uint32_t n_runs;
            struct msg_run runs[MSG_RUNS_MAX];
        } release;
        struct {
            uint64_t off;
        } free_large;
        struct {
            uint32_t n;
            uint64_t offs[MSG_SOFT_MAX];
        } soft;
        struct {
            uint32_t slot;
        } map_segment;
        struct {
            enum root_op op;
            char name[ROOT_NAME_BYTES];
            uint64_t expected, desired;
        } root;
        struct {
            uint64_t nonce;
        } ack;
        struct {
            char after[TENANT_NAME_BYTES];
        } tenants;
        struct {
            char tenant[TENANT_NAME_BYTES];
            bool reads;
        } look;
        struct {
            char tenant[TENANT_NAME_BYTES];
        } tenant_drop;
        struct {
            char tenant[TENANT_NAME_BYTES];
            uint32_t which; /* SET_MIN and others */
            uint64_t min_bytes, high_bytes, max_bytes;
            uint32_t weight;
        } tenant_set;
        struct {
            uint32_t slot, unit;
        } extents;
        struct {
            tag_t after;
        } holders;
        struct {
            uint32_t slot;
            bool done;
        } retire;
        struct {
            uint32_t n_units, align_order;
            bool exact, again;
            uint32_t class_plus_1;
            uint64_t ticket, left_ms;
        } wait;
        struct {
            uint64_t ticket;
        } cancel;
        struct {
            uint32_t skip;
        } waiters;
        struct {
            uint32_t seen;
        } watch;
    };
};

struct msg_waiter {
    tag_t id;
    uint32_t pid;
    char name[CLIENT_NAME_BYTES];
    uint32_t n_units, align_order;
    uint64_t waited_ms, left_ms; /* 0: for ever */
};

struct msg_tenant {
    char name[TENANT_NAME_BYTES];
    uint64_t min_bytes, high_bytes, max_bytes, total_bytes, held_bytes;
    uint32_t weight;
    bool is_group;
};

struct msg_reply {
    uint64_t serial;
    int32_t error;
    char text[MSG_TEXT_BYTES];
    uint64_t ack_nonce;
    enum msg_op op; /* MSG_NONE: error or nothing to say */
    union {
        struct {
            uint32_t version;
            char daemon_version[32];
        } hello;
        struct {
            uint64_t client, heap_id;
        } attach;
        struct {
            struct msg_run run;
            bool slab;
            uint32_t head_slot;
            bool prepared;
        } grow;
        struct {
            uint32_t head_slot;
            uint64_t size_bytes;
        } map_segment;
        struct {
            uint64_t off;
        } root;
        struct {
            char version[32];
            uint32_t pid;
            uint64_t capacity_bytes, sealed_bytes, uptime_ns;
            uint32_t n_tenants, n_clients;
            char mode[16]; /* "system" or "user" */
        } status;
        struct {
            uint32_t n;
            bool more;
            struct msg_tenant all[MSG_TENANTS_MAX];
        } tenants;
        struct {
            uint64_t heap_id;
        } look;
        struct {
            uint64_t freed_bytes;
        } tenant_drop;
        struct {
            uint32_t n_tenants;
            uint64_t capacity_bytes;
        } reload;
        struct {
            uint64_t changes;
            uint32_t unit, n_free, n;
            struct msg_extent runs[MSG_EXTENTS_MAX]; /* all together inside a heap */
        } extents;
        struct {
            uint64_t changes, granted_units, charged_bytes;
            uint32_t n;
            bool more;
            struct msg_holder holders[MSG_HOLDERS_MAX]; /* by rising id */
        } holders;
        struct {
            uint32_t n_all, n;
            uint64_t left_bytes;
            char wall[MSG_WALL_BYTES];
            struct msg_waiter all[MSG_WAITERS_MAX]; /* in the order of the queue */
        } waiters;
        struct {
            uint32_t seq;
        } event;
    };
};

#endif
