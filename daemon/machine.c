/* SPDX-License-Identifier: Apache-2.0 */
/* machine.c - see machine.h. */
#include "daemon/machine.h"

#include <limits.h>
#include <string.h>
#include <sys/random.h>
#include <sys/sysinfo.h>

struct cgroup {
    char v1[PATH_MAX]; /* path in the v1 memory hierarchy, "" none */
    char v2[PATH_MAX];
};

/* One line of /proc/PID/cgroup: "ID:controller,controller:path". */
static void take_cgroup_line(char *line, struct cgroup *ret)
{
    line[strcspn(line, "\n")] = 0;
    char *controllers = strchr(line, ':');
    char *path = controllers ? strchr(controllers + 1, ':') : NULL;
    if (!path)
        return;
    controllers++;
    *path++ = 0;
    if (*controllers == 0)
        (void)snprintf(ret->v2, sizeof(ret->v2), "%s", path);
    char *save;
    for (char *c = strtok_r(controllers, ",", &save); c; c = strtok_r(NULL, ",", &save))
        if (strcmp(c, "memory") == 0)
            (void)snprintf(ret->v1, sizeof(ret->v1), "%s", path);
}

static int read_cgroup(const char *file, struct cgroup *ret)
{
    char line[PATH_MAX + 256];
    *ret = (struct cgroup){0};
    FILE *f = fopen(file, "re");
    if (!f)
        return -errno;
    while (fgets(line, sizeof(line), f))
        take_cgroup_line(line, ret);
    fclose(f);
    return 0;
}

/* The number behind a key, or of a file that has nothing else (""). UINT64_MAX: none, or "max". */
static uint64_t read_number(const char *file, const char *key)
{
    char line[128];
    unsigned long long number = 0;
    size_t n_key = strlen(key);
    bool found = false;
    FILE *f = fopen(file, "re");
    if (!f)
        return UINT64_MAX;
    while (!found && fgets(line, sizeof(line), f))
        found = strncmp(line, key, n_key) == 0 && sscanf(line + n_key, "%llu", &number) == 1;
    fclose(f);
    return found ? number : UINT64_MAX;
}

/* Of one cgroup; dir has room for a name behind it. */
static uint64_t own_limit(char *dir, bool is_v1)
{
    size_t n = strlen(dir);
    strcpy(dir + n, is_v1 ? "/memory.limit_in_bytes" : "/memory.max");
    uint64_t limit = read_number(dir, "");
    if (is_v1) { /* of those above it too, which a container does not see */
        strcpy(dir + n, "/memory.stat");
        limit = MIN(limit, read_number(dir, "hierarchical_memory_limit "));
    }
    dir[n] = 0;
    return limit;
}

/* A limit of any ancestor binds. In a container path may not be there, and top is its own cgroup. */
static uint64_t lowest_limit(const char *root, const char *top, const char *path, bool is_v1)
{
    char dir[3 * PATH_MAX];
    uint64_t lowest = UINT64_MAX;
    size_t n_top = (size_t)snprintf(dir, PATH_MAX, "%s%s", root, top);
    acre_assert(n_top < PATH_MAX);
    (void)snprintf(dir + n_top, PATH_MAX, "%s", path[0] == '/' ? path : "");
    for (;;) {
        lowest = MIN(lowest, own_limit(dir, is_v1));
        if (dir[n_top] == 0)
            return lowest;
        *strrchr(dir + n_top, '/') = 0;
    }
}

/* sysinfo() is there where /proc has nothing but processes; meminfo may be a container's own. */
static uint64_t ram_bytes(const char *root)
{
    char file[PATH_MAX];
    struct sysinfo info;
    (void)snprintf(file, sizeof(file), "%s/proc/meminfo", root);
    uint64_t kib = read_number(file, "MemTotal:");
    uint64_t bytes = kib < UINT64_MAX >> 10 ? kib << 10 : UINT64_MAX;
    if (sysinfo(&info) == 0)
        bytes = MIN(bytes, (uint64_t)info.totalram * info.mem_unit);
    return bytes;
}

uint64_t machine_memory_bytes(const char *root)
{
    struct cgroup own;
    char file[PATH_MAX];
    uint64_t bytes = ram_bytes(root);
    (void)snprintf(file, sizeof(file), "%s/proc/self/cgroup", root);
    if (read_cgroup(file, &own) == 0) {
        bytes = MIN(bytes, lowest_limit(root, "/sys/fs/cgroup/memory", own.v1, true));
        bytes = MIN(bytes, lowest_limit(root, "/sys/fs/cgroup", own.v2, false));
    }
    acre_assert(bytes != UINT64_MAX);
    return bytes;
}

bool machine_other_memory_cgroup(pid_t pid)
{
    struct cgroup own, other;
    char file[64];
    (void)snprintf(file, sizeof(file), "/proc/%d/cgroup", (int)pid);
    if (read_cgroup("/proc/self/cgroup", &own) < 0 || read_cgroup(file, &other) < 0)
        return false;
    if (own.v1[0] || other.v1[0])
        return strcmp(own.v1, other.v1) != 0;
    return strcmp(own.v2, other.v2) != 0;
}

bool machine_has_shared_huge_pages(char ret_setting[static 32])
{
    char line[128] = "";
    FILE *f = fopen(MACHINE_SHMEM_ENABLED, "re");
    bool got = f && fgets(line, sizeof(line), f);
    if (f)
        fclose(f);
    const char *open = got ? strchr(line, '[') : NULL; /* "always within_size advise [never]" */
    ret_setting[0] = 0;
    if (!open || sscanf(open, "[%31[^]]", ret_setting) != 1)
        return false;
    return strcmp(ret_setting, "never") != 0 && strcmp(ret_setting, "deny") != 0;
}

uint64_t machine_random(void)
{
    uint64_t n = 0;
    while (n == 0)
        if (getrandom(&n, sizeof(n), 0) != sizeof(n))
            abort(); /* nothing here is safe without it */
    return n;
}
