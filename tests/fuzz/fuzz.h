/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz.h - what the fuzz targets share. wraps.c stands between them and the system (CMakeLists.txt
 * names the calls): the same input does the same, and what a run leaves behind can be told. */
#ifndef ACRE_TESTS_FUZZ_H
#define ACRE_TESTS_FUZZ_H

#include "shm/base.h"

/* libFuzzer's name for a target: one input; or replay.c's. Returns 0. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* Random numbers begin anew. */
void wraps_begin(void);
/* Bytes mapped by this program and not unmapped; open descriptors; calls of pread() so far. */
uint64_t wraps_mapped_bytes(void);
unsigned wraps_count_fds(void);
uint64_t wraps_n_preads(void);
/* What restore_all() has said last. */
int wraps_restored(void);

/* A memory file of these bytes. */
int fuzz_file(const void *bytes, size_t n);

#endif
