/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sqlite.h - SQLite 3 whose memory is an Acre heap: page caches, statements, in-memory databases.
 *
 *     acre_sqlite_use(heap);
 *     ...
 *     sqlite3_shutdown();
 *     acre_close(heap);
 *
 * SQLite has one allocator for all of the process, so the last call is who decides. The heap is
 * the caller's. It stays open until sqlite3_shutdown() has come back, and that until all
 * connections are closed. When it is full, SQLite gives back what it can and then answers
 * SQLITE_NOMEM; a transaction in work is rolled back.
 */
#ifndef ACRE_ADAPTERS_SQLITE_H
#define ACRE_ADAPTERS_SQLITE_H

#ifdef __cplusplus
extern "C" {
#endif

struct acre_heap;

/*
 * Before SQLite is initialized, by sqlite3_initialize() or the first sqlite3_open(), or after
 * sqlite3_shutdown(); while no other thread uses SQLite. heap NULL: what was there before the
 * first call. 0, or -EBUSY: SQLite is initialized already; nothing has changed.
 */
int acre_sqlite_use(struct acre_heap *heap);

#ifdef __cplusplus
}
#endif

#endif
