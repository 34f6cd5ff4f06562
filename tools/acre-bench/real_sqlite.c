/* SPDX-License-Identifier: Apache-2.0 */
/* real_sqlite.c - a database in memory: filled, indexed, asked, changed. */
#include "real.h"

#include <sqlite3.h>
#include <stdbool.h>

#include "adapters/sqlite.h"
#include "random.h"
#include "say.h"

#define ROWS 3000u /* for each unit of scale */

static const char set_up[] = "PRAGMA temp_store = MEMORY;"
                             "CREATE TABLE item(id INTEGER PRIMARY KEY, name TEXT, price REAL, "
                             "note TEXT);";
static const char indexes[] = "CREATE INDEX by_name ON item(name);"
                              "CREATE INDEX by_price ON item(price);";
static const char report[] = "SELECT name, count(*), avg(price), group_concat(note) FROM item "
                             "WHERE price < 2000 GROUP BY substr(name, 1, 7) ORDER BY 3;"
                             "DELETE FROM item WHERE id % 10 = 0;"
                             "VACUUM;";

static void must(sqlite3 *db, int r)
{
    if (r != SQLITE_OK && r != SQLITE_DONE && r != SQLITE_ROW)
        give_up("SQLite: %d: %s", r, sqlite3_errmsg(db));
}

static sqlite3_stmt *prepare(sqlite3 *db, const char *text)
{
    sqlite3_stmt *stmt = NULL;
    must(db, sqlite3_prepare_v2(db, text, -1, &stmt, NULL));
    return stmt;
}

static int step(sqlite3 *db, sqlite3_stmt *stmt)
{
    int r = sqlite3_step(stmt);
    must(db, r);
    return r;
}

static void insert(sqlite3 *db, unsigned n)
{
    char name[32], note[64];
    uint64_t seed = 1;
    sqlite3_stmt *stmt = prepare(db, "INSERT INTO item(name, price, note) VALUES(?, ?, ?)");
    must(db, sqlite3_exec(db, "BEGIN", NULL, NULL, NULL));
    for (unsigned i = 0; i < n; i++) {
        sqlite3_snprintf(sizeof(name), name, "item %u", random_below(&seed, n));
        sqlite3_snprintf(sizeof(note), note, "%0*u", 5 + i % 50, i);
        sqlite3_bind_text(stmt, 1, name, -1, SQLITE_TRANSIENT);
        sqlite3_bind_double(stmt, 2, random_below(&seed, 10000) / 4.0);
        sqlite3_bind_text(stmt, 3, note, -1, SQLITE_TRANSIENT);
        step(db, stmt);
        sqlite3_reset(stmt);
    }
    must(db, sqlite3_exec(db, "COMMIT", NULL, NULL, NULL));
    sqlite3_finalize(stmt);
}

/* Each question is prepared anew, as most programs do. */
static unsigned ask(sqlite3 *db, unsigned n)
{
    unsigned n_found = 0;
    uint64_t seed = 1;
    for (unsigned i = 0; i < n; i++) {
        char *text =
            sqlite3_mprintf("SELECT id, price, note || '!' FROM item WHERE name = 'item %u'"
                            " ORDER BY price DESC LIMIT 5",
                            random_below(&seed, n * 10));
        sqlite3_stmt *stmt = prepare(db, text);
        while (step(db, stmt) == SQLITE_ROW)
            n_found += sqlite3_column_text(stmt, 2) != NULL;
        sqlite3_finalize(stmt);
        sqlite3_free(text);
    }
    return n_found;
}

static void change(sqlite3 *db, unsigned n)
{
    uint64_t seed = 2;
    sqlite3_stmt *stmt =
        prepare(db, "UPDATE item SET price = price + 1, note = note || ? WHERE id = ?");
    for (unsigned i = 0; i < n; i++) {
        sqlite3_bind_int(stmt, 1, (int)i);
        sqlite3_bind_int64(stmt, 2, 1 + random_below(&seed, n * 10));
        step(db, stmt);
        sqlite3_reset(stmt);
    }
    sqlite3_finalize(stmt);
}

static void use(struct mem mem)
{
    static bool done;
    if (!done && mem.kind == MEM_ACRE && acre_sqlite_use(mem.heap) != 0)
        give_up("SQLite is initialized already");
    done = true;
}

void real_sqlite(struct mem mem, unsigned scale)
{
    sqlite3 *db;
    use(mem);
    must(NULL, sqlite3_open(":memory:", &db));
    must(db, sqlite3_exec(db, set_up, NULL, NULL, NULL));
    insert(db, scale * ROWS);
    must(db, sqlite3_exec(db, indexes, NULL, NULL, NULL));
    if (ask(db, scale * ROWS / 10) == 0)
        give_up("SQLite: nothing was found");
    change(db, scale * ROWS / 10);
    must(db, sqlite3_exec(db, report, NULL, NULL, NULL));
    must(db, sqlite3_close(db));
}
