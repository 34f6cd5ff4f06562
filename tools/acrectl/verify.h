/* SPDX-License-Identifier: Apache-2.0 */
/* verify.h - compares a running heap with its daemon's books. Theory in verify.c. */
#ifndef ACRECTL_VERIFY_H
#define ACRECTL_VERIFY_H

#include "tools/look/peer.h"
#include "shm/check.h"

#define VERIFY_FINDINGS_MAX 256u

struct verify {
    char name[TENANT_NAME_BYTES];
    int error; /* then nothing below is known, and why says it */
    char why[MSG_TEXT_BYTES];
    uint32_t n_segments;
    uint64_t n_units; /* the tables' included */
    bool sums_seen;   /* the heap stood still for long enough to be summed up */
    uint32_t n_found;
    uint32_t n_more;   /* findings beyond these */
    uint32_t n_unsure; /* suspects that changed at every look, or were too many to be looked at */
    struct check_finding found[VERIFY_FINDINGS_MAX];
};

/* An error of this tenant alone is its own, and 0 is returned. */
int verify_tenant(struct verify *ret_verify, struct peer *peer, const char *name);

/* One sentence, without tenant. */
void verify_sentence(char *buf, size_t n, const struct check_finding *finding);
/* What kind of finding it is, in a word. */
const char *verify_kind(enum check_kind kind);

#endif
