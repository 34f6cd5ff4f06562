/* SPDX-License-Identifier: Apache-2.0 */
/* tenant.h - one tenant and its heap: segments, clients, books. The heap comes to be with the first
 * who wants it. */
#ifndef ACRE_DAEMON_TENANT_H
#define ACRE_DAEMON_TENANT_H

#include <sys/queue.h>

#include "daemon/books.h"
#include "daemon/client.h"
#include "daemon/core.h"
#include "daemon/orphan.h"
#include "daemon/seg.h"

/* For what nobody uses; search.h. */
struct search {
    uint64_t n_rounds; /* that are over */
    struct orphan_place orphan;
    uint32_t slot;
    uint64_t turn_ns; /* when steps_left was renewed */
    int64_t steps_left;
    bool is_hungry; /* somebody waits for the next turn */
};

/* For pages ahead of their demand; prepare.c. */
struct prepare {
    bool is_running;          /* a job */
    bool is_blocked, is_full; /* until the next tick: a job failed; no segment can be made */
    bool is_failing;          /* and that has been said */
    bool is_reached;          /* ready was, and is not half used since */
    unsigned order;           /* of the last span granted */
    uint32_t n_until_look;    /* units to be granted before the next look */
    uint32_t n_renews;        /* jobs over dirty units, until the next tick */
    uint64_t demand_units;    /* granted lately */
};

/* What the configuration says of a tenant, but for who may use it. */
struct tenant_wish {
    uint64_t max_bytes;
    uint64_t ready_bytes; /* free memory to be kept prepared */
    enum pages_kind pages;
};

struct populate_job;
TAILQ_HEAD(populate_queue, populate_job);

struct tenant {
    char name[TENANT_NAME_BYTES];
    struct core *core;
    struct budget budget;
    struct access_list access;
    uint64_t ready_units;
    enum pages_kind pages_wanted;

    /* the heap; all of it 0 while !is_open */
    bool is_open;
    uint64_t heap_id;
    int control_fd, control_ro_fd, books_fd;
    struct control *control;
    struct books *books;
    enum pages_kind pages;
    struct seg *segs[HEAP_SLOTS]; /* by first slot; NULL inside of a segment that spans slots */
    uint32_t n_slots;
    uint64_t granted_units; /* clients' and orphans' */
    uint64_t n_changes;     /* of who has what, and of who is there: records.c */
    struct client_table clients;
    struct orphans orphans;

    /* what is under way; core.h and reaper.h */
    uint32_t n_jobs;              /* that use the heap's descriptors or mappings */
    struct client_queue rang;     /* clients to be asked again */
    struct client_queue dying;    /* proven dead, waiting for a sweep */
    struct attach_queue attaches; /* pages to be asked, in order of arrival */
    bool is_asking, is_sweeping, is_punching;
    bool is_burying; /* the last part of is_sweeping: the worker is done, the loop is not */
    struct populate_queue populates; /* grants whose pages are being made, the first one now */
    struct search search;
    struct prepare prepare;
    struct orphan_place tick_place; /* where the next tick goes on */
    bool wants_publish;             /* some client waits in WAIT_PUBLISH for the next sweep */
    struct session_queue waiters;   /* WAIT_MEMORY */
    uint32_t n_waiters;
    uint32_t n_to_wake; /* of them, the first ones: to be tried in the next turns */
};

int tenant_new(struct tenant **ret_tenant, struct core *core, const char *name,
               const struct tenant_wish *wish, struct access_list *access);
void tenant_free(struct tenant *tenant);

/* Makes the heap if there is none. -ENOMEM, -EMFILE, -ENFILE. */
int tenant_open(struct tenant *tenant);
/* Frees the heap: no clients, no jobs. Returns the bytes of its segments. */
uint64_t tenant_close(struct tenant *tenant);

/* The segment that covers slot, or NULL. */
struct seg *tenant_seg(const struct tenant *tenant, uint32_t slot);
/* The segment and unit of a foreign offset that lies at a unit's start, or anywhere (any); NULL if
 * in none's usable part. */
struct seg *tenant_locate(const struct tenant *tenant, uint64_t off, bool any, uint32_t *ret_unit);

static inline uint64_t seg_off(const struct seg *seg, uint32_t unit)
{
    return (uint64_t)seg->slot << SLOT_SHIFT | (uint64_t)unit << UNIT_SHIFT;
}

/*
 * A new segment in which a run of n units aligned to 2^align_order fits. -ENOMEM: neither max nor
 * capacity leave room; -ENOSPC: no slot; -EMFILE and others: the system refused.
 */
int tenant_add_seg(struct tenant *tenant, uint32_t n, unsigned align_order, struct seg **ret_seg);

/*
 * The only way by which units change hands: books, holdings, counts, control page. A run that goes
 * to OWNER_NONE stays out of the buddy until seg_give().
 */
void tenant_assign(struct tenant *tenant, struct seg *seg, uint32_t unit, uint32_t n, tag_t from,
                   tag_t to);
/* Entries U_FREE, books none, and back to the buddy. */
void tenant_take_back(struct tenant *tenant, struct seg *seg, uint32_t unit, uint32_t n,
                      tag_t from);

/* Owner of a unit according to the books; all of a run (segments over slots: their one block). */
tag_t tenant_owner(const struct tenant *tenant, const struct seg *seg, uint32_t unit);
bool tenant_all_owned(const struct tenant *tenant, const struct seg *seg, uint32_t unit, uint32_t n,
                      tag_t owner);

void tenant_assert_valid(const struct tenant *tenant);

#endif
