/* SPDX-License-Identifier: Apache-2.0 */
/*
 * world.h - a daemon, a survivor and an observer: who sees what a death has left.
 *
 * The survivor is this process: attached all the time, with a *ballast* of own and published blocks
 * of several sizes, each filled with a pattern. The observer is a connection that only looks: it
 * reads the control page and, by a census of the segments, the list of ALL blocks that have an
 * owner. So "nothing lost, nothing leaked, nobody disturbed" is an equality of two sets of blocks.
 */
#ifndef ACRE_TESTS_CRASH_WORLD_H
#define ACRE_TESTS_CRASH_WORLD_H

#include "tests/system/harness.h"
#include "shm/segment.h"

#define WORLD_SEGS_MAX    16u
#define WORLD_BALLAST_MAX 64u
#define WORLD_SEEN_MAX    65536u
#define WORLD_TENANT      "default"

/* Who owns a block after a death; as a mask, where several answers are right. */
enum whose { GONE = 1, SURVIVOR = 2, HEAP = 4 };

/* A block that a victim was busy with. bytes: of pattern in it. before, after: whose it is if the
 * victim dies before the operation's first or after its last effect. */
struct tracked {
    acre_off off;
    uint32_t bytes;
    enum whose before, after;
};

/* How far the victim had come: a mask of what tracked blocks may be. */
enum progress { WAS_BEFORE = 1, WAS_AFTER = 2, WAS_INSIDE = 3 };

/* A block with an owner, as the observer sees it. */
struct seen {
    acre_off off;
    uint64_t bytes;
    uint16_t owner;
    bool known;
};

struct world_seg {
    int fd;
    uint32_t slot;
    struct segment_shape shape;
    const char *base; /* mapped read-only */
};

struct world {
    struct daemon daemon;
    struct acre_heap *heap; /* the survivor's */
    acre_client self;
    const struct control *control;
    uint64_t heap_id, serial;
    int sock;
    struct world_seg segs[WORLD_SEGS_MAX];
    unsigned n_segs, n_ballast, n_fds, n_maps;
    struct tracked ballast[WORLD_BALLAST_MAX];
    long long floor_bytes, full_bytes; /* granted: with the ballast alone; at the budget's wall */
    struct seen seen[WORLD_SEEN_MAX];
    size_t n_seen;
    char why[512]; /* what the last check found */
};

/* All return false with a sentence in world->why. */

/* Starts a daemon, attaches, fills the heap once to its wall (so that all segments exist), lays out
 * the ballast. max_mib: the tenant's budget; pages: "4k" or "thp". */
bool world_up(struct world *w, unsigned max_mib, const char *pages);
/* Nobody but the survivor is attached (any more), as the daemon says. */
bool world_settle(struct world *w);
/* The blocks with an owner are the ballast, what is tracked as the progress lets it be, and at most
 * n_strays published ones beside; at least n_published of all but the ballast. All patterns are
 * whole. */
bool world_compare(struct world *w, const struct tracked *tracked, unsigned n,
                   enum progress progress, unsigned n_strays, unsigned n_published);
/* Fills memory with garbage and gives it back: the next process is likely to get it. */
bool world_soil(struct world *w);
/* All blocks but the ballast are published, and filled with a pattern to their last byte. */
bool world_rest_is_published(struct world *w, unsigned *ret_n);
/* Frees what is left beside the ballast. */
bool world_dispose(struct world *w);
/* The survivor allocates, writes, compares and frees blocks of this size and a large one. */
bool world_burst(struct world *w, size_t size);
/* Everything is back: granted bytes are what they were before the first death, and the observer's
 * figures are acrectl's. The one place where whoever else can judge a resting heap is asked. */
bool world_check(struct world *w);
/* The whole budget can be allocated, as before the first death. */
bool world_is_full_size(struct world *w);
/* Daemon's descriptors and mappings now; later: compared. */
void world_note_daemon(struct world *w);
bool world_daemon_is_lean(struct world *w);
bool world_down(struct world *w);
/* For a world that has failed: no questions asked. */
void world_abandon(struct world *w);

/* Something new in the tables and owner maps since the last call? Copies them to shadow, which has
 * room for world_shadow_bytes(). */
size_t world_shadow_bytes(const struct world *w);
bool world_has_changed(const struct world *w, char *shadow);

#endif
