/* SPDX-License-Identifier: Apache-2.0 */
/* picture.h - what the daemon's books and control page say of a heap, and its segments. */
#ifndef ACRECTL_PICTURE_H
#define ACRECTL_PICTURE_H

#include "tools/look/peer.h"
#include "shm/check.h"

struct picture_segment {
    uint32_t slot;
    int fd;
    struct segment_shape shape;
    struct check_segment figures;
    struct check_record *records;
    uint32_t span_units;
    bool is_gone; /* since it was opened */
};

struct picture {
    struct peer *peer;
    uint64_t heap_id, changes;
    bool has_moved; /* since `changes` was set */
    int control_fd;
    uint32_t n_segments;
    uint64_t n_units;       /* of all segments, their tables included */
    uint64_t retired_bytes; /* of segments that are charged yet, and that nobody gets any more */
    struct picture_segment segments[HEAP_SLOTS];
    struct check_sums sums;
    struct check_client *clients; /* CLIENT_IDS */
    uint8_t *is_client;           /* CLIENT_IDS */
};

/* Looks at the tenant; all that peer_call() may say, -ENOMEM. To be closed in any case. */
int picture_open(struct picture *ret_picture, struct peer *peer, const char *tenant);
void picture_close(struct picture *picture);

/* Everything anew: clients, records of all segments (new ones, too), control page. *ret_still: the
 * books stood still meanwhile. */
int picture_take(struct picture *picture, bool *ret_still);

struct picture_segment *picture_find(struct picture *picture, uint32_t slot);
/* Its records as they were taken, with all its units. */
struct check_table picture_table(const struct picture *picture,
                                 const struct picture_segment *segment);

/* Parts of it: records of the units [from, to) of the table; clients. is_first: what is fetched
 * from here on is to belong together. */
int picture_records(struct picture *picture, struct picture_segment *segment, uint32_t from,
                    uint32_t to, struct check_record *ret_records, bool is_first);
int picture_clients(struct picture *picture, bool is_first);
/* Have the books stood still from the first to now? */
int picture_still(struct picture *picture, bool *ret_still);

#endif
