/* SPDX-License-Identifier: Apache-2.0 */
/* bytes.h - sizes as people write them, in configurations and on command lines. */
#ifndef ACRE_PROTO_BYTES_H
#define ACRE_PROTO_BYTES_H

#include "shm/base.h"

/* "64M", "4GiB", "65536": bytes. -EINVAL, -ERANGE. */
int bytes_parse(const char *text, uint64_t *ret_bytes);

#endif
