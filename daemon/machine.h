/* SPDX-License-Identifier: Apache-2.0 */
/* machine.h - what the machine and the cgroups can back. */
#ifndef ACRE_DAEMON_MACHINE_H
#define ACRE_DAEMON_MACHINE_H

#include <sys/types.h>

#include "shm/base.h"

/* The least of RAM and the limits of this process's own cgroup and those above it (v1 or v2). Any
 * thread. root: of /proc and /sys, "" but for tests. */
uint64_t machine_memory_bytes(const char *root);

#define MACHINE_SHMEM_ENABLED "/sys/kernel/mm/transparent_hugepage/shmem_enabled"

/* Do mappings of shared memory get huge pages if they ask? *ret_setting: what the kernel says, or
 * "". */
bool machine_has_shared_huge_pages(char ret_setting[static 32]);

/* Is pid charged to another memory cgroup than this process? false if it cannot be told. */
bool machine_other_memory_cgroup(pid_t pid);

/* 16 hex digits' worth of randomness, never 0. */
uint64_t machine_random(void);

#endif
