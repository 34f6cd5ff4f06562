/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_config.c - any text as the configuration: it is refused with a sentence, or all that it says
 * keeps the rules of config.h. */
#include <string.h>

#include "daemon/config.h"
#include "daemon/own.h"
#include "tests/fuzz/fuzz.h"

#define MEMORY_BYTES GIB(8)

static void check_own(const struct config_tenant *own)
{
    char name[TENANT_NAME_BYTES];
    if (own->name[0] == 0)
        return;
    acre_assert(own_valid_pattern(own->name) && !own->is_group);
    acre_assert(own->wish.limits.min_bytes == 0 && own->wish.ready_bytes == 0);
    own_name(own->name, "", UINT32_MAX, name);
    acre_assert(config_valid_name(name) && own_fits(own->name, name));
}

static void check(struct config *c)
{
    uint64_t ready_bytes = 0;
    for (uint32_t i = 0; i < c->n_tenants; i++) {
        const struct config_tenant *t = &c->tenants[i];
        acre_assert(config_valid_name(t->name));
        acre_assert(t->wish.limits.max_bytes >= LIMIT_BYTES_MIN &&
                    t->wish.limits.max_bytes <= HEAP_BYTES &&
                    t->wish.ready_bytes <= t->wish.limits.max_bytes);
        for (uint32_t k = 0; k < i; k++)
            acre_assert(strcmp(t->name, c->tenants[k].name) != 0);
        ready_bytes += t->wish.ready_bytes;
    }
    acre_assert(c->capacity_bytes == 0 || ready_bytes <= c->capacity_bytes);
    acre_assert(config_complete(c, MEMORY_BYTES) == 0);
    acre_assert(c->capacity_bytes > 0 && c->capacity_bytes <= MEMORY_BYTES);
    acre_assert(c->n_tenants > 0 || c->own.name[0]);
    check_own(&c->own);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct config config;
    char path[32], text[256];
    CLEANUP_FD int fd = fuzz_file(data, n);
    memset(&config, 0xa5, sizeof(config));
    memset(text, 0, sizeof(text));
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    int r = config_read(&config, path, text, sizeof(text));
    if (r == 0) {
        check(&config);
        config_deinit(&config);
    }
    acre_assert((r == 0) == (text[0] == 0) && memchr(text, 0, sizeof(text)) != NULL);
    acre_assert(config.n_tenants == 0 && config.tenants == NULL && config.capacity_bytes == 0);
    return 0;
}
