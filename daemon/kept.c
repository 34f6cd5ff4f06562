/* SPDX-License-Identifier: Apache-2.0 */
/* kept.c - see kept.h. */
#include "daemon/kept.h"

#include <stdio.h>
#include <string.h>

#include "daemon/log.h"
#include "proto/wire.h"

void kept_name(struct kept kept, char ret_name[STORE_NAME_BYTES])
{
    (void)snprintf(ret_name, STORE_NAME_BYTES, "%c%x.%x", (char)kept.kind, kept.no, kept.slot);
}

bool kept_parse(const char *name, struct kept *ret_kept)
{
    char kind, again[STORE_NAME_BYTES];
    uint32_t no, slot;
    if (sscanf(name, "%c%x.%x", &kind, &no, &slot) != 3)
        return false;
    *ret_kept = (struct kept){(enum kept_kind)kind, no, slot};
    kept_name(*ret_kept, again);
    return strcmp(name, again) == 0;
}

/* Once a second, whoever makes it fail. */
static void say_not_kept(const char *name, int error)
{
    static uint64_t next_ns;
    uint64_t now_ns = wire_now_ns(), due_ns = __atomic_load_n(&next_ns, __ATOMIC_RELAXED);
    if (now_ns >= due_ns && __atomic_compare_exchange_n(&next_ns, &due_ns, now_ns + 1000000000u,
                                                        false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        log_line(LOG_ERROR, "descriptor %s cannot be kept for the next worker: %s", name,
                 strerror(-error));
}

int kept_put(const struct core *core, struct kept kept, int fd)
{
    char name[STORE_NAME_BYTES];
    kept_name(kept, name);
    int r = core->io.keep(core->io.ctx, name, fd);
    if (r == 0)
        return 0;
    core->io.drop(core->io.ctx, name); /* kept perhaps, and only the answer is missing */
    say_not_kept(name, r);
    return r;
}

void kept_drop(const struct core *core, struct kept kept)
{
    char name[STORE_NAME_BYTES];
    kept_name(kept, name);
    core->io.drop(core->io.ctx, name);
}

void kept_end_life(const struct core *core, uint32_t life_no, int life_fd)
{
    kept_drop(core, (struct kept){KEPT_LIFE, life_no, 0});
    core->io.close_foreign(core->io.ctx, life_fd, NOBODY_UID);
}

int kept_take(struct store_items *items, struct kept kept)
{
    char name[STORE_NAME_BYTES];
    kept_name(kept, name);
    return store_take(items, name);
}
