#include "unit/meta/table.h"

enum { ROWS = 60 };

static void
fill(struct table *t)
{
    table_init(t);
    OK(table_open(t));
    for (int i = 0; i < ROWS; i++) {
        char key[32], value[128];
        snprintf(key, sizeof key, "row/%03d", i);
        snprintf(value, sizeof value, "%0100d", i);
        OK(put(t, key, value, 0));
    }
}

static enum weir_status
check_row(void *arg, const char *key, struct weir_bytes value, uint64_t version)
{
    int *next = arg;
    char wanted_key[32], wanted[128];
    snprintf(wanted_key, sizeof wanted_key, "row/%03d", *next);
    snprintf(wanted, sizeof wanted, "%0100d", *next);
    ++*next;
    return strcmp(key, wanted_key) == 0 && weir_bytes_is(value, wanted) && version == 1 ? WEIR_OK
                                                                                        : WEIR_END;
}

/* Opens and reads all. OK must mean that every row is as it was written. */
static enum weir_status
read_all(struct table *t, uint64_t at)
{
    enum weir_status st = table_open(t);
    int next = 0;
    if (!st)
        st = weir_meta_scan(t->meta, "", check_row, &next, &t->err);
    cr_assert(st != WEIR_END, "byte %lu: a wrong row", (unsigned long)at);
    if (!st)
        cr_assert(next == ROWS, "byte %lu: %d rows", (unsigned long)at, next);
    return st;
}

/* A flipped byte anywhere in the file is found, and named, or was in unused space; never does it
 * change a row. */
Test(meta_damage, finds_a_flip_at_any_byte)
{
    struct table t;
    fill(&t);
    table_close(&t);
    uint64_t size;
    OK(weir_memfs_size(t.disk, "meta.db", &size));
    int found = 0;
    for (uint64_t at = 0; at < size; at += at < 200 ? 1 : 19) {
        struct table other;
        table_init_on(&other, weir_memfs_fork(t.disk, WEIR_MEMFS_KEEP_ALL, 1));
        OK(weir_memfs_flip(other.disk, "meta.db", at, (uint8_t)(1 << at % 8)));
        enum weir_status st = read_all(&other, at);
        cr_assert(st == WEIR_OK || st == WEIR_DAMAGED || st == WEIR_UNSUPPORTED, "byte %lu: %s",
                  (unsigned long)at, other.err.text);
        if (st)
            cr_assert(strstr(other.err.text, "meta.db") != NULL);
        found += st != WEIR_OK;
        table_fini(&other);
    }
    cr_expect(gt(int, found, 200));
    table_fini(&t);
}

/* A file cut short is refused, also one of no bytes; it is never made anew. */
Test(meta_damage, refuses_a_short_file)
{
    const uint64_t sizes[] = {0, 1, 100, 4096, 8192};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct table t;
        fill(&t);
        table_close(&t);
        OK(weir_memfs_truncate(t.disk, "meta.db", sizes[i]));
        IS(read_all(&t, sizes[i]), WEIR_DAMAGED);
        uint64_t size;
        OK(weir_memfs_size(t.disk, "meta.db", &size));
        cr_expect(eq(u64, size, sizes[i]));
        table_fini(&t);
    }
}

/* A log whose table is gone is a lost table, not a new one. */
Test(meta_damage, refuses_a_log_without_its_table)
{
    struct table t;
    fill(&t);
    struct table after;
    table_init_on(&after, weir_memfs_fork(t.disk, WEIR_MEMFS_KEEP_ALL, 1));
    OK(weir_fs_remove(after.sys.fs, "meta.db"));
    IS(table_open(&after), WEIR_DAMAGED);
    table_fini(&after);
    table_fini(&t);
}

/* A flipped byte in the log of a broker that was killed is found where committed transactions lie
 * behind it; in the last one it cannot be told from a torn write, and costs that one alone. */
Test(meta_damage, finds_a_flip_in_the_log)
{
    struct table t;
    table_init(&t);
    OK(table_open(&t));
    uint64_t size = 0, last = 0;
    for (int i = 0; i < 4; i++) {
        char key[32];
        snprintf(key, sizeof key, "row/%d", i);
        last = size;
        OK(put(&t, key, "value", 0));
        OK(weir_memfs_size(t.disk, "meta.db-wal", &size));
    }
    int found = 0;
    for (uint64_t at = 0; at < size; at += (at - 32) % 4120 < 30 ? 1 : 97) {
        struct table other;
        table_init_on(&other, weir_memfs_fork(t.disk, WEIR_MEMFS_KEEP_ALL, 1));
        OK(weir_memfs_flip(other.disk, "meta.db-wal", at, 0x10));
        enum weir_status st = table_open(&other);
        if (at < last) {
            cr_assert(st == WEIR_DAMAGED, "byte %lu: %s", (unsigned long)at, weir_status_text(st));
            cr_assert(strstr(other.err.text, "meta.db-wal") != NULL, "%s", other.err.text);
            found++;
        } else {
            cr_assert(st == WEIR_OK, "byte %lu: %s", (unsigned long)at, other.err.text);
            cr_assert(find(&other, "row/").count == 3, "byte %lu", (unsigned long)at);
        }
        table_fini(&other);
    }
    cr_expect(gt(int, found, 100));
    table_fini(&t);
}

/* Bytes behind the last commit, whatever they are, are cut off the log when it is opened. */
Test(meta_damage, cuts_a_torn_end_off_the_log)
{
    struct table t;
    fill(&t);
    uint64_t size;
    OK(weir_memfs_size(t.disk, "meta.db-wal", &size));
    for (uint64_t extra = 1; extra < 9000; extra += 613) {
        struct table other;
        table_init_on(&other, weir_memfs_fork(t.disk, WEIR_MEMFS_KEEP_ALL, 1));
        struct weir_file *f;
        OK(weir_fs_open(other.sys.fs, "meta.db-wal", WEIR_OPEN_WRITE, &f));
        uint8_t *torn = malloc(extra);
        OK(weir_file_pread_all(f, torn, extra, size - extra));
        OK(weir_file_pwrite(f, torn, extra, size));
        free(torn);
        weir_file_close(f);
        OK(read_all(&other, extra));
        uint64_t after;
        OK(weir_memfs_size(other.disk, "meta.db-wal", &after));
        cr_expect(eq(u64, after, size));
        table_fini(&other);
    }
    table_fini(&t);
}

/* A file of something else is refused as it is. */
Test(meta_damage, refuses_a_foreign_file)
{
    struct table t;
    table_init(&t);
    struct weir_file *f;
    OK(weir_fs_open(t.sys.fs, "meta.db", WEIR_OPEN_WRITE | WEIR_OPEN_CREATE, &f));
    for (uint64_t at = 0; at < 8192; at += 16)
        OK(weir_file_pwrite(f, "not a database, ", 16, at));
    weir_file_close(f);
    IS(table_open(&t), WEIR_DAMAGED);
    cr_expect(ne(ptr, strstr(t.err.text, "meta.db"), NULL));
    table_fini(&t);
}
