/* SPDX-License-Identifier: Apache-2.0 */
#include "resident.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "say.h"

/* A line "Name:   123 kB" of a file in /proc, in bytes. */
static uint64_t proc_bytes(const char *file, const char *name)
{
    char line[256];
    unsigned long long kilobytes = 0;
    bool found = false;
    FILE *f = fopen(file, "re");
    while (f && !found && fgets(line, sizeof(line), f))
        found = strncmp(line, name, strlen(name)) == 0 &&
                sscanf(line + strlen(name), " %llu", &kilobytes) == 1;
    if (f)
        fclose(f);
    if (!found)
        give_up("no %s in %s", name, file);
    return kilobytes * 1024;
}

uint64_t resident_private(void)
{
    return proc_bytes("/proc/self/smaps_rollup", "Anonymous:"); /* status is exact to a MiB only */
}

uint64_t resident_of(pid_t pid, const char *name)
{
    char file[64];
    snprintf(file, sizeof(file), "/proc/%d/smaps_rollup", (int)pid);
    return proc_bytes(file, name);
}

uint64_t resident_tables(void)
{
    return proc_bytes("/proc/self/status", "VmPTE:");
}

/* Run with this process's environment, which has no other allocator in it: it is Acre's. */
static json_t *ask_acrectl(const char *command_word, const char *socket)
{
    char command[PATH_MAX + 256], program[PATH_MAX];
    mem_beside(program, "acrectl");
    snprintf(command, sizeof(command), "%s %s --json --tenant default --socket %s", program,
             command_word, socket);
    FILE *f = popen(command, "re");
    json_t *root = f ? json_loadf(f, 0, NULL) : NULL;
    if (!f || pclose(f) != 0 || !root)
        give_up("%s does not say what is resident", program);
    return root;
}

uint64_t resident_shared(const struct child *child)
{
    if (child->kind != MEM_ACRE)
        return 0;
    json_t *root = ask_acrectl("stats", child->socket);
    json_t *tenant = json_array_get(json_object_get(root, "tenants"), 0);
    const json_t *bytes = json_object_get(tenant, "resident_bytes");
    if (!json_is_integer(bytes))
        give_up("acrectl does not know resident bytes");
    uint64_t resident = (uint64_t)json_integer_value(bytes);
    json_decref(root);
    return resident;
}

bool resident_is_prepared(const struct child *child)
{
    json_t *root = ask_acrectl("status", child->socket);
    json_t *tenant = json_array_get(json_object_get(root, "memory"), 0);
    const json_t *ready = json_object_get(tenant, "ready_bytes");
    const json_t *prepared = json_object_get(tenant, "prepared_bytes");
    if (!json_is_integer(ready) || !json_is_integer(prepared))
        give_up("acrectl does not know what is prepared");
    bool is = json_integer_value(prepared) >= json_integer_value(ready);
    json_decref(root);
    return is;
}
