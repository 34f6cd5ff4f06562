/* SPDX-License-Identifier: Apache-2.0 */
#include "peers.h"

#include <acre.h>

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "run.h"

const struct peer peers[PEERS] = {
    [PEER_ACRE] = {"acre", MEM_ACRE, "libacre.so", "libacre"},
    [PEER_GLIBC] = {"glibc", MEM_MALLOC, "libc.so", "libc6"},
    [PEER_MIMALLOC] = {"mimalloc", MEM_MALLOC, "libmimalloc.so.2", "libmimalloc2.0"},
    [PEER_JEMALLOC] = {"jemalloc", MEM_MALLOC, "libjemalloc.so.2", "libjemalloc2"},
    [PEER_TCMALLOC] = {"tcmalloc", MEM_MALLOC, "libtcmalloc_minimal.so.4", "libtcmalloc-minimal4"},
    [PEER_BOOST] = {"boost", MEM_BOOST, BOOST_MODULE, "libboost-dev when this was built"},
    [PEER_KERNEL] = {"kernel", MEM_NONE, NULL, NULL},
};

int peer_by_name(const char *name)
{
    for (int i = 0; i < PEERS; i++)
        if (strcmp(peers[i].name, name) == 0)
            return i;
    return -1;
}

/* A symbol as the measured loops are bound to it. */
static void *first_symbol(enum mem_kind kind, const char *module)
{
    switch (kind) {
    case MEM_ACRE:
        return dlsym(RTLD_DEFAULT, "acre_alloc");
    case MEM_BOOST: {
        void *loaded = dlopen(module, RTLD_NOW | RTLD_LOCAL);
        return loaded ? dlsym(loaded, "bench_boost_alloc") : NULL;
    }
    default:
        return dlsym(RTLD_DEFAULT, "malloc");
    }
}

void peer_library(enum peer_idx peer, char ret_path[PATH_MAX])
{
    Dl_info info;
    char module[PATH_MAX];
    ret_path[0] = '\0';
    mem_beside(module, BOOST_MODULE);
    void *symbol = first_symbol(peers[peer].kind, module);
    if (!symbol || !dladdr(symbol, &info) || !info.dli_fname)
        return;
    /* glibc's malloc is "libc.so.6", wherever it lies; a preloaded one has its own file's name. */
    const char *slash = strrchr(info.dli_fname, '/');
    const char *file = slash ? slash + 1 : info.dli_fname;
    if (strncmp(file, peers[peer].soname, strlen(peers[peer].soname)) == 0 &&
        !realpath(info.dli_fname, ret_path))
        ret_path[0] = '\0';
}

void peers_probe(struct peer_found found[PEERS])
{
    for (int i = 0; i < PEERS; i++) {
        char *library = found[i].library;
        library[0] = '\0';
        found[i].is_there = !peers[i].soname;
        if (!found[i].is_there)
            found[i].is_there = child_probe((enum peer_idx)i, library) && library[0];
    }
}
