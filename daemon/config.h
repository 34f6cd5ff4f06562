/* SPDX-License-Identifier: Apache-2.0 */
/* config.h - the configuration file: capacity, and tenants with their limits and who may do what.
 * See deploy/acre.conf. */
#ifndef ACRE_DAEMON_CONFIG_H
#define ACRE_DAEMON_CONFIG_H

#include "daemon/access.h"
#include "daemon/tenant.h"
#include "shm/base.h"
#include "shm/layout.h"

struct config_tenant {
    char name[TENANT_NAME_BYTES];
    struct tenant_wish wish;
    struct access access;
    unsigned line; /* of the file, where its section ends */
    bool is_group; /* others are below it, no heap */
};

struct config {
    uint64_t capacity_bytes;   /* 0: not said */
    uint64_t asked_bytes;      /* config_complete(): what was said, before it was cut; 0: nothing */
    bool is_bare;              /* no tenant was said */
    uint64_t min_bytes;        /* promised to all tenants together */
    struct access_list admins; /* of all tenants, and of the daemon */
    uint32_t n_tenants;
    struct config_tenant own;      /* for each user one: own.h. name "": there is none */
    struct config_tenant *tenants; /* by name: groups before who is below them */
};

/* Reads a file. -EINVAL (text: one sentence with file, line and what), or why it cannot be read.
 * ret is all 0 on failure. */
int config_read(struct config *ret, const char *path, char *text, size_t n_text);
void config_deinit(struct config *config);
/* NULL: it says nothing of such a tenant. */
struct config_tenant *config_find(const struct config *config, const char *name);

/* Fills in what was not said: capacity is half of memory_bytes; no tenant, and none for each user:
 * one "default" with all of it, for root and the daemon's user. What was said is cut to what memory_bytes can back: all
 * but a sixteenth, which the kernel and the daemon need. -ENOMEM. */
int config_complete(struct config *config, uint64_t memory_bytes);

/* 1 to 63 of [A-Za-z0-9._-/], no dot at the start and nothing empty between slashes. */
bool config_valid_name(const char *name);

#endif
