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

static uint64_t read_limit(const char *root, const char *path, const char *name)
{
    char file[2 * PATH_MAX], text[64] = "";
    (void)snprintf(file, sizeof(file), "%s%s/%s", root, path, name);
    FILE *f = fopen(file, "re");
    if (!f)
        return UINT64_MAX;
    bool got = fgets(text, sizeof(text), f) != NULL;
    fclose(f);
    char *end = text;
    unsigned long long limit = got ? strtoull(text, &end, 10) : 0;
    return end == text ? UINT64_MAX : limit; /* "max" */
}

/* A limit of any ancestor binds. */
static uint64_t lowest_limit(const char *root, char *path, const char *name)
{
    uint64_t lowest = UINT64_MAX;
    while (path[0] == '/') {
        lowest = MIN(lowest, read_limit(root, path, name));
        *strrchr(path, '/') = 0;
    }
    return MIN(lowest, read_limit(root, "", name));
}

uint64_t machine_memory_bytes(void)
{
    static struct cgroup own;
    struct sysinfo info;
    uint64_t bytes = UINT64_MAX;
    if (sysinfo(&info) == 0)
        bytes = (uint64_t)info.totalram * info.mem_unit;
    if (read_cgroup("/proc/self/cgroup", &own) == 0) {
        bytes = MIN(bytes, lowest_limit("/sys/fs/cgroup/memory", own.v1, "memory.limit_in_bytes"));
        bytes = MIN(bytes, lowest_limit("/sys/fs/cgroup", own.v2, "memory.max"));
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
