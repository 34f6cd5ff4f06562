/* SPDX-License-Identifier: Apache-2.0 */
/* tenant.h - one tenant and its heap: segments, clients, books. The heap comes to be with the first
 * who wants it. */
#ifndef ACRE_DAEMON_TENANT_H
#define ACRE_DAEMON_TENANT_H

#include <sys/queue.h>

#include "daemon/books.h"
#include "daemon/client.h"
#include "daemon/core.h"
#include "daemon/kept.h"
#include "daemon/orphan.h"
#include "daemon/seg.h"
#include "daemon/soft.h"
#include "daemon/ticket.h"

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
    bool is_running;       /* a job */
    bool is_blocked;       /* one failed: until the next tick */
    bool is_failing;       /* and that has been said */
    bool is_resting;       /* nothing can be done for ready: until the next tick, or until */
    uint64_t n_rest_units; /* fewer than these are warm */
    bool has_yielded;      /* a segment; yield.c */
    uint32_t n_renews;     /* jobs over dirty units, until the next tick */
    uint64_t demand_units; /* granted lately */
    unsigned order;        /* of the last span granted */
    uint32_t n_until_look; /* units to be granted before the next look for demand */
    uint64_t n_looks;      /* so far, for either */
};

/* What it wants of others, and they of it; room.c. */
struct room {
    uint64_t pressed_until_ns; /* what is idle is for others */
    uint64_t round;            /* of the search for it */
    uint64_t
        pressed_changes_plus_1; /* n_changes when it was pressed for its own limits; 0: never */
    uint64_t room_bytes;        /* wanted of others */
    uint64_t need_bytes;        /* of that, in one piece */
    bool is_shared_out;         /* the last that failed would have had what is others' share */
    uint64_t wanted_until_ns;   /* idle memory is looked for; 0: not */
    uint64_t demand_until_ns;   /* and its share counts */
    uint64_t wait_until_ns;     /* somebody may wait for it; 0: nobody does */
    uint64_t wait_again_ns;     /* nobody may again before */
    uint64_t press_again_ns;    /* nor are others pressed again before */
    uint64_t ring_at_ns;        /* nor those rung before that have given nothing */
    uint64_t ring_wait_ns;      /* twice as long each time, until it gives something: */
    uint64_t n_rung_changes;    /* n_changes at the last ring */
};

/* What it has too much; pressure.c. */
struct pressure {
    enum pressure_level level, heard_level;
    uint64_t limit_bytes; /* that are charged beyond its own limits */
    uint64_t heard_bytes; /* to be given, as it was told */
    uint64_t heard_ns;
    uint64_t gave_ns,
        least_bytes; /* when its clients last gave units back, and what they had then */
    bool is_deaf;    /* was told, and gives nothing */
    bool is_news;    /* at the last look */
};

/* What the configuration says of a tenant, but for who may use it. */
struct tenant_wish {
    struct limits limits;
    uint64_t ready_bytes; /* free memory to be kept prepared */
    enum pages_kind pages;
};

struct populate_job;
TAILQ_HEAD(populate_queue, populate_job);

struct tenant {
    char name[TENANT_NAME_BYTES];
    struct core *core;
    struct budget budget;
    struct access access;
    uid_t owner_uid;     /* whose own it is (own.h), or NOBODY_UID */
    bool is_group;       /* others are below it: no heap of its own */
    bool has_set_limits; /* others than configured: tenant_set_limits() */
    bool is_forgotten;   /* by the configuration: who is there may stay */
    uint64_t ready_units;
    enum pages_kind pages_wanted;

    /* the heap; all of it 0 while !is_open */
    bool is_open;
    uint64_t heap_id;
    uint32_t heap_no;
    int control_fd, control_ro_fd, books_fd;
    struct control *control;
    struct books *books;
    enum pages_kind pages;
    struct seg *segs[HEAP_SLOTS]; /* by first slot; NULL inside of a segment that spans slots */
    bool is_limbo[HEAP_SLOTS];    /* its segment is retired, and somebody may map it yet */
    uint32_t n_slots;
    uint64_t granted_units; /* clients' and orphans' */
    uint64_t n_changes;     /* of who has what, and of who is there: records.c */
    struct client_table clients;
    struct orphans orphans;
    struct soft soft;

    unsigned n_ticks; /* still to come: tenant_changed() */

    bool is_kept;          /* for the next daemon; deposit.c */
    uint32_t n_unkept;     /* segments that are not */
    uint32_t n_depositing; /* of them, just now */
    int deposit_error;     /* of the last one that failed, until it is tried again */

    /* what is under way; core.h and reaper.h */
    uint32_t n_jobs;               /* that use the heap's descriptors or mappings */
    struct client_queue rang;      /* clients to be asked again */
    uint64_t rang_due_ns;          /* none of them before that; UINT64_MAX: there are none */
    struct client_queue dying;     /* proven dead, waiting for a sweep */
    struct attach_queue attaches;  /* pages to be asked, in order of arrival */
    bool is_asking, is_asking_new; /* a job with who rang, with attaches */
    bool is_sweeping, is_punching;
    bool is_burying; /* the last part of is_sweeping: the worker is done, the loop is not */
    struct populate_queue populates; /* grants whose pages are being made, the first one now */
    struct search search;
    struct prepare prepare;
    uint32_t n_retiring; /* segments; retire.c */
    struct room room;
    struct pressure pressure;
    struct orphan_place tick_place; /* where the next tick goes on */
    bool wants_publish;             /* some client waits in WAIT_PUBLISH for the next sweep */
    struct session_queue waiters;   /* WAIT_MEMORY */
    uint32_t n_waiters;
    uint32_t n_to_wake; /* of them, the first ones: to be tried in the next turns */
    bool is_waking;     /* one of them just now */
    struct tickets tickets;
    struct client_queue watchers; /* bells to be rung; event.c */
};

/* "team/app" is in "team": what stands before the last slash. False: in no group. */
bool tenant_group_name(const char *name, char ret_group[TENANT_NAME_BYTES]);

/* Takes access: who may attach. -ENOMEM. */
int tenant_new(struct tenant **ret_tenant, struct core *core, const char *name,
               const struct tenant_wish *wish, struct access_list *access);
/* As configured, at any time; pages from the next heap on. */
void tenant_set(struct tenant *tenant, const struct tenant_wish *wish);
/* Other limits than configured, until tenant_set(). */
void tenant_set_limits(struct tenant *tenant, const struct limits *limits);
/* In the heap's control page, where its clients read them; it may have no heap. */
void tenant_tell_limits(struct tenant *tenant);
/* Other access lists, which it takes. */
void tenant_let_in(struct tenant *tenant, struct access *access);
/* Whose own it is; NOBODY_UID: not one user's. */
void tenant_set_owner(struct tenant *tenant, uid_t uid);
/* By its own lists, or those of a group above it; administrators of the daemon may anything. */
bool tenant_allows(const struct tenant *tenant, const struct creds *creds, enum access_right right);
void tenant_free(struct tenant *tenant);

/* Makes the heap if there is none. -ENOMEM, -EMFILE, -ENFILE. */
int tenant_open(struct tenant *tenant);
/* The heap that these books, which are mapped, and this control segment tell of; all three are its
 * own on success. Without segments and clients yet: restore.c. */
int tenant_open_kept(struct tenant *tenant, struct books *books, int books_fd, int control_fd);
/* Units whose owner the books tell: free ones, or a run of a restored client's or the orphans'. */
void tenant_restore_units(struct tenant *tenant, struct seg *seg, uint32_t unit, uint32_t n,
                          tag_t owner);
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

/* Units were granted, came back, or changed their pages: one tick marks what is dirty then, the
 * next one finds it stale. After that nothing happens by itself. */
static inline void tenant_changed(struct tenant *tenant)
{
    tenant->n_ticks = 2;
}

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
