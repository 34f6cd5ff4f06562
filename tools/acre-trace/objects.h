/* SPDX-License-Identifier: Apache-2.0 */
/* objects.h - the files that libacre's code is in, and the places in them where a probe is cheap. */
#ifndef ACRE_TRACE_OBJECTS_H
#define ACRE_TRACE_OBJECTS_H

#include <limits.h>
#include <sys/types.h>

#include "shm/base.h"

#define OBJECTS_MAX 32u

struct object {
    char path[PATH_MAX]; /* that opens it here, whatever the process's root is */
    dev_t device;
    ino_t inode;
};

struct objects {
    size_t n;
    struct object list[OBJECTS_MAX];
};

/* The file, if libacre's probes are in it, and it is not listed already. */
bool objects_add(struct objects *objects, const char *path);
/* What the process runs. Negative errno: it cannot be looked at. */
int objects_add_process(struct objects *objects, pid_t pid);
/* What processes run that have a segment mapped; and the library that a new one would find. */
void objects_add_all(struct objects *objects);
void objects_add_default(struct objects *objects);

/* Where in the file to probe a public function, so that its arguments are in their registers and
 * its stack is untouched: at its start; or, if that is soon enough, at a jump that the kernel need
 * not step through (0.1 us instead of 2.5). -ENOENT: it is not there. */
int object_probe_at(const struct object *object, const char *function, size_t *ret_file_off);

#endif
