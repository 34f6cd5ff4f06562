/* SPDX-License-Identifier: Apache-2.0 */
/* SQLite on a heap: the same answers, books that agree with the daemon's, and a full heap is
 * SQLITE_NOMEM. ctest-labels: valgrind */
#include "tests/system/harness.h"

#include <sqlite3.h>

#include "adapters/sqlite.h"

#define HEAD 8 /* bytes in front of each block */

#define NUMBERS(n)                                                                                 \
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < " #n ")"

static const char *const statements[] = {
    "CREATE TABLE word(id INTEGER PRIMARY KEY, text TEXT, weight REAL, data BLOB)",
    "INSERT INTO word " NUMBERS(
        3000) " SELECT i, printf('word %d', i * 7919 % 3001), i / 7.0, zeroblob(i % 300) FROM n",
    "CREATE INDEX by_text ON word(text)",
    "CREATE INDEX by_weight ON word(weight DESC, length(data))",
    "UPDATE word SET weight = weight * 2, text = text || '!' WHERE id % 3 = 0",
    "DELETE FROM word WHERE id % 5 = 0",
    "BEGIN",
    "DELETE FROM word",
    "ROLLBACK",
    "VACUUM",
    "CREATE VIRTUAL TABLE page USING fts5(body)",
    "INSERT INTO page SELECT group_concat(text, ' ') FROM word GROUP BY id / 50",
};

static const char *const queries[] = {
    "SELECT count(*), sum(weight), min(text), max(text), sum(length(data)) FROM word",
    "SELECT group_concat(text) FROM (SELECT text FROM word WHERE text > 'word 2' ORDER BY text "
    "LIMIT 200)",
    "SELECT group_concat(id) FROM (SELECT id FROM word ORDER BY weight DESC, length(data))",
    "SELECT a.text, b.text FROM word a JOIN word b ON a.id = b.id + 1 ORDER BY a.text || b.text "
    "LIMIT 1",
    "SELECT hex(group_concat(data, x'01')) FROM word WHERE id < 400",
    "SELECT count(*), sum(rowid) FROM page WHERE page MATCH '\"word 1\" OR \"2000\"'",
    "PRAGMA integrity_check",
};
#define N_QUERIES (sizeof(queries) / sizeof(queries[0]))

static void must(sqlite3 *db, int r)
{
    if (r != SQLITE_OK)
        fail_msg("SQLite: %d: %s", r, sqlite3_errmsg(db));
}

static sqlite3 *filled(void)
{
    sqlite3 *db;

    must(NULL, sqlite3_open(":memory:", &db));
    for (unsigned i = 0; i < sizeof(statements) / sizeof(statements[0]); i++)
        must(db, sqlite3_exec(db, statements[i], NULL, NULL, NULL));
    return db;
}

/* The first row's columns; the caller frees them. */
static char *answer(sqlite3 *db, const char *query)
{
    sqlite3_stmt *stmt;
    char *text;
    size_t n;
    FILE *out = open_memstream(&text, &n);

    must(db, sqlite3_prepare_v2(db, query, -1, &stmt, NULL));
    assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
    for (int i = 0; i < sqlite3_column_count(stmt); i++)
        fprintf(out, "%s|", sqlite3_column_text(stmt, i));
    must(db, sqlite3_finalize(stmt));
    fclose(out);
    return text;
}

static void use(struct acre_heap *heap)
{
    assert_int_equal(sqlite3_shutdown(), SQLITE_OK);
    assert_int_equal(acre_sqlite_use(heap), 0);
}

static void a_database_answers_as_on_malloc_and_leaves_nothing(void **state)
{
    struct acre_heap *heap = heap_open(&the_daemon, "default");
    char *expected[N_QUERIES];

    (void)state;
    use(NULL);
    sqlite3 *db = filled();
    for (unsigned i = 0; i < N_QUERIES; i++)
        expected[i] = answer(db, queries[i]);
    must(db, sqlite3_close(db));
    assert_int_equal(tenant_stats(&the_daemon, "default").live_bytes, 0);

    use(heap);
    db = filled();
    for (unsigned i = 0; i < N_QUERIES; i++) {
        char *text = answer(db, queries[i]);
        assert_string_equal(text, expected[i]);
        free(text);
        free(expected[i]);
    }
    /* SQLite books by xSize(), the daemon looks at the owner tags. */
    struct tenant_stats s = tenant_stats(&the_daemon, "default");
    assert_true(sqlite3_memory_used() > 500000);
    assert_int_equal(s.live_bytes, sqlite3_memory_used() + s.live_blocks * HEAD);
    must(db, sqlite3_close(db));
    assert_int_equal(sqlite3_memory_used(), 0);
    assert_int_equal(sqlite3_shutdown(), SQLITE_OK);
    assert_int_equal(tenant_stats(&the_daemon, "default").live_bytes, 0);
    acre_close(heap);
}

static void sizes_are_rounded_up_to_what_a_block_has(void **state)
{
    struct acre_heap *heap = heap_open(&the_daemon, "default");
    sqlite3_mem_methods m;

    (void)state;
    use(heap);
    must(NULL, sqlite3_config(SQLITE_CONFIG_GETMALLOC, &m));
    for (int size = 1; size < 300000; size += 1 + size / 100) {
        assert_int_equal(acre_trim(heap), 0); /* else a larger one, freed lately, would do */
        int rounded = m.xRoundup(size);
        char *block = m.xMalloc(rounded);
        assert_true(rounded >= size && rounded % 8 == 0);
        int n = size + HEAD;
        assert_true(rounded - size < (n <= 128 ? 16 : n <= 32768 ? n / 4 + 1 : 8192));
        assert_int_equal(m.xSize(block), rounded);
        assert_int_equal(acre_usable_size(heap, block - HEAD), HEAD + rounded);
        assert_int_equal(m.xRoundup(rounded), rounded);
        m.xFree(block);
    }
    assert_true(m.xRoundup(0x7fffff00) >= 0x7fffff00);
    acre_close(heap);
}

static void a_full_heap_is_nomem_and_sqlite_goes_on(void **state)
{
    struct acre_heap *heap = heap_open(&the_daemon, "small");

    (void)state;
    use(heap);
    sqlite3 *db = filled();
    char *before = answer(db, queries[0]), *after;
    for (unsigned i = 0; i < 2; i++) {
        int r = sqlite3_exec(
            db, "INSERT INTO word(data) " NUMBERS(100000) " SELECT zeroblob(1000) FROM n", NULL,
            NULL, NULL);
        assert_int_equal(r, SQLITE_NOMEM);
        after = answer(db, queries[0]);
        assert_string_equal(after, before);
        free(after);
    }
    free(before);
    must(db, sqlite3_close(db));
    assert_int_equal(sqlite3_shutdown(), SQLITE_OK);
    assert_int_equal(tenant_stats(&the_daemon, "small").live_bytes, 0);
    acre_close(heap);
}

static void once_sqlite_is_initialized_it_is_too_late(void **state)
{
    struct acre_heap *heap = heap_open(&the_daemon, "default");

    (void)state;
    use(heap);
    must(NULL, sqlite3_initialize());
    assert_int_equal(acre_sqlite_use(NULL), -EBUSY);
    void *block = sqlite3_malloc(100);
    assert_true(acre_offset(heap, block) != 0);
    sqlite3_free(block);
    use(NULL);
    block = sqlite3_malloc(100);
    assert_true(acre_offset(heap, block) == 0);
    sqlite3_free(block);
    assert_int_equal(sqlite3_shutdown(), SQLITE_OK);
    acre_close(heap);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_database_answers_as_on_malloc_and_leaves_nothing),
        cmocka_unit_test(sizes_are_rounded_up_to_what_a_block_has),
        cmocka_unit_test(a_full_heap_is_nomem_and_sqlite_goes_on),
        cmocka_unit_test(once_sqlite_is_initialized_it_is_too_late),
    };
    return run_beside_daemon(tests, "capacity = \"512M\"\ntenant \"default\" { max = \"256M\" }\n"
                                    "tenant \"small\" { max = \"12M\" }\n");
}
