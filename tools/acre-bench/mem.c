/* SPDX-License-Identifier: Apache-2.0 */
#include "mem.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "say.h"

void mem_beside(char ret_path[PATH_MAX], const char *file)
{
    ssize_t n = readlink("/proc/self/exe", ret_path, PATH_MAX - strlen(file) - 1);
    ret_path[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(ret_path, '/');
    strcpy(slash ? slash + 1 : ret_path, file);
}

static void *boost_symbol(void *module, const char *name)
{
    void *symbol = module ? dlsym(module, name) : NULL;
    if (!symbol)
        give_up("%s", dlerror());
    return symbol;
}

static struct mem boost_open(size_t bytes)
{
    char path[PATH_MAX];
    mem_beside(path, BOOST_MODULE);
    void *module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    void *(*heap_new)(size_t) = boost_symbol(module, "bench_boost_new");
    struct mem mem = {.kind = MEM_BOOST, .heap = heap_new(bytes)};
    mem.boost_alloc = boost_symbol(module, "bench_boost_alloc");
    mem.boost_free = boost_symbol(module, "bench_boost_free");
    if (!mem.heap)
        give_up("no Boost segment of %zu bytes", bytes);
    return mem;
}

static struct mem heap_open(const char *socket)
{
    struct mem mem = {.kind = MEM_ACRE};
    struct acre_heap *heap;
    struct acre_options options = {.size = sizeof(options),
                                   .address = socket,
                                   .name = "acre-bench",
                                   .flags = ACRE_NO_AUTOSTART};
    int r = acre_open_with(&heap, &options);
    if (r)
        give_up("cannot open the heap: %s", acre_last_error());
    mem.heap = heap;
    return mem;
}

struct mem mem_open(enum mem_kind kind, const char *socket, size_t bytes)
{
    switch (kind) {
    case MEM_ACRE:
        return heap_open(socket);
    case MEM_BOOST:
        return boost_open(bytes);
    default:
        return (struct mem){.kind = kind};
    }
}

void mem_close(struct mem mem)
{
    if (mem.kind == MEM_ACRE)
        acre_close(mem.heap);
}

void mem_exhausted(size_t size)
{
    give_up("no block of %zu bytes", size);
}
