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

/* What the measured loops are bound to. */
static const char *const functions[MEM_KINDS][2] = {
    [MEM_MALLOC] = {"malloc", "free"},
    [MEM_ACRE] = {"acre_alloc", "acre_free"},
    [MEM_BOOST] = {"bench_boost_alloc", "bench_boost_free"},
};

/* The file that a function comes from; NULL if it is not this library. glibc's is "libc.so.6"
 * wherever it lies; a preloaded one has its own file's name. */
static const char *file_of(void *module, const char *function, const char *soname)
{
    Dl_info info;
    void *symbol = dlsym(module, function);
    if (!symbol || !dladdr(symbol, &info) || !info.dli_fname)
        return NULL;
    const char *slash = strrchr(info.dli_fname, '/');
    const char *file = slash ? slash + 1 : info.dli_fname;
    return strncmp(file, soname, strlen(soname)) == 0 ? info.dli_fname : NULL;
}

void peer_library(enum peer_idx idx, char ret_path[PATH_MAX])
{
    const struct peer *peer = &peers[idx];
    char path[PATH_MAX];
    void *module = RTLD_DEFAULT;
    ret_path[0] = '\0';
    mem_beside(path, BOOST_MODULE);
    if (peer->kind == MEM_BOOST && !(module = dlopen(path, RTLD_NOW | RTLD_LOCAL)))
        return;
    const char *file = file_of(module, functions[peer->kind][0], peer->soname);
    bool both = file && file_of(module, functions[peer->kind][1], peer->soname);
    if (!both || !realpath(file, ret_path))
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
