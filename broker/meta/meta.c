/* The good path of a commit:
 *
 *   loop   weir_meta_commit: to `waiting`; where no job is out: waiting -> group, job to the pool
 *   pool   BEGIN; each commit in a savepoint of its own; COMMIT (frames to the log, sync)
 *   loop   answers the group in order; what came meanwhile is the next group
 *
 * What can go wrong:
 *   a version does not hold    that commit's savepoint is rolled back, it alone is FENCED
 *   a call below fails         the transaction is rolled back, and what it wrote to the log is cut
 *                              off, durably, so that a restart cannot find it: the group failed
 *   a sync of the log fails,   nobody can tell what a restart will find: UNKNOWN, and the table
 *   or that cut                takes no more commits
 *
 * Moving frames from the log to the table's file (SQLite's checkpoint) has a job of its own, when
 * nothing waits. It may fail: the log still has everything. */
#include "meta/meta.h"
#include "base/assert.h"
#include "vfs.h"
#include "wal.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

#define SCHEMA_VERSION 1

#define CACHE_KIB 256
#define LOOKASIDE_SLOTS 64
/* Pages in the log: above the first it is moved when nothing waits, above the second anyway. */
#define LOG_PAGES_IDLE 256
#define LOG_PAGES_MAX 2048

enum { SQL_VERSION, SQL_PUT, SQL_DELETE, SQL_SCAN, SQL_COUNT };
static const char *const sql[SQL_COUNT] = {
    [SQL_VERSION] = "SELECT version FROM entry WHERE key = ?1",
    [SQL_PUT] = "REPLACE INTO entry (key, value, version, sum) VALUES (?1, ?2, ?3, ?4)",
    [SQL_DELETE] = "DELETE FROM entry WHERE key = ?1",
    [SQL_SCAN] = "SELECT key, value, version, sum FROM entry WHERE key >= ?1 ORDER BY key",
};

struct weir_meta {
    struct weir_sys *sys;
    struct weir_loop *loop;
    struct weir_meta_vfs vfs;
    char *path;

    /* owner only */
    struct weir_list waiting;
    struct weir_error fault;

    /* the loop's, or the job's while it is out */
    sqlite3 *db;
    sqlite3_stmt *statements[SQL_COUNT];
    struct weir_list group;
    struct weir_error job_fault;
    int log_pages;
    bool broken; /* takes no more commits */
    bool job_out;
    struct weir_job job;

    pthread_mutex_t mtx;
    pthread_cond_t worked;
    bool working; /* shared, under mtx */
};

/* ---- SQLite's answers ---- */

static enum weir_status
status_of(const struct weir_meta *meta, int code)
{
    switch (code & 0xff) {
    case SQLITE_OK:
    case SQLITE_ROW:
    case SQLITE_DONE:
        return WEIR_OK;
    case SQLITE_FULL:
        return WEIR_NO_SPACE;
    case SQLITE_NOMEM:
        return WEIR_NO_MEMORY;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return WEIR_DAMAGED;
    default:
        if (code == SQLITE_IOERR_NOMEM)
            return WEIR_NO_MEMORY;
        return meta->vfs.failure ? meta->vfs.failure : WEIR_IO;
    }
}

static enum weir_status
fail_sql(const struct weir_meta *meta, int code, struct weir_error *err, const char *what)
{
    enum weir_status st = status_of(meta, code);
    const char *why = meta->vfs.failure ? weir_status_text(meta->vfs.failure)
                      : meta->db        ? sqlite3_errmsg(meta->db)
                                        : sqlite3_errstr(code);
    return weir_fail(err, st, "cannot %s '%s': %s", what, meta->path, why);
}

static int
run(struct weir_meta *meta, const char *text)
{
    return sqlite3_exec(meta->db, text, NULL, NULL, NULL);
}

/* ---- opening ---- */

/* Kept by SQLite in the header of the file: "weir". */
#define APPLICATION_ID 0x77656972

static const char create_sql[] = "PRAGMA page_size = 4096;"
                                 "BEGIN IMMEDIATE;"
                                 "PRAGMA application_id = 2003134834;"
                                 "CREATE TABLE entry (key TEXT PRIMARY KEY NOT NULL, value BLOB "
                                 "NOT NULL, version INTEGER NOT NULL, "
                                 "sum INTEGER NOT NULL) WITHOUT ROWID;"
                                 "CREATE TABLE schema (version INTEGER NOT NULL);"
                                 "INSERT INTO schema (version) VALUES (1);"
                                 "COMMIT;";
static_assert(APPLICATION_ID == 2003134834 && SCHEMA_VERSION == 1, "as in create_sql");

/* migrations[i] leads from version i + 1 to the next, inside a transaction that also sets the
 * version. */
static const char *const migrations[SCHEMA_VERSION] = {NULL};

static const char settings_sql[] = "PRAGMA locking_mode = EXCLUSIVE;"
                                   "PRAGMA temp_store = MEMORY;"
                                   "PRAGMA trusted_schema = OFF;"
                                   "PRAGMA cell_size_check = ON;"
                                   "PRAGMA mmap_size = 0;"
                                   "PRAGMA synchronous = FULL;";

static int
open_file(struct weir_meta *meta, const char *path, int flags)
{
    weir_meta_vfs_begin(&meta->vfs);
    int code = sqlite3_open_v2(path, &meta->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | flags,
                               meta->vfs.name);
    if (code)
        return code;
    sqlite3_extended_result_codes(meta->db, 1);
    sqlite3_db_config(meta->db, SQLITE_DBCONFIG_LOOKASIDE, NULL, 128, LOOKASIDE_SLOTS);
    sqlite3_db_config(meta->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    /* Exclusive first: whatever reads the file before that looks for shared memory. */
    code = run(meta, settings_sql);
    char cache[48];
    snprintf(cache, sizeof cache, "PRAGMA cache_size = -%d", CACHE_KIB);
    return code ? code : run(meta, cache);
}

static void
close_file(struct weir_meta *meta)
{
    for (int i = 0; i < SQL_COUNT; i++) {
        sqlite3_finalize(meta->statements[i]);
        meta->statements[i] = NULL;
    }
    /* A log whose end is not known stays as it is, for the restart to read. */
    if (meta->db && meta->broken)
        sqlite3_db_config(meta->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    WEIR_ASSERT(sqlite3_close(meta->db) == SQLITE_OK);
    meta->db = NULL;
}

/* *size_out UINT64_MAX: not there. */
static enum weir_status
look(struct weir_fs *fs, const char *path, uint64_t *size_out)
{
    struct weir_file *f;
    enum weir_status st = weir_fs_open(fs, path, WEIR_OPEN_READ, &f);
    if (st == WEIR_NOT_FOUND) {
        *size_out = UINT64_MAX;
        return WEIR_OK;
    }
    if (st)
        return st;
    st = weir_file_size(f, size_out);
    weir_file_close(f);
    return st;
}

static enum weir_status
remove_if_there(struct weir_fs *fs, const char *path, const char *suffix)
{
    char name[300];
    snprintf(name, sizeof name, "%s%s", path, suffix);
    enum weir_status st = weir_fs_remove(fs, name);
    return st == WEIR_NOT_FOUND ? WEIR_OK : st;
}

/* A new table is made under another name, so that a file of the right name is always a whole one.
 */
static enum weir_status
create(struct weir_meta *meta, struct weir_error *err)
{
    struct weir_fs *fs = meta->sys->fs;
    char fresh[280], directory[280];
    snprintf(fresh, sizeof fresh, "%s.new", meta->path);
    snprintf(directory, sizeof directory, "%s", meta->path);
    char *slash = strrchr(directory, '/');
    *(slash ? slash : directory) = '\0';

    enum weir_status st = remove_if_there(fs, fresh, "");
    if (!st)
        st = remove_if_there(fs, fresh, "-journal");
    if (st)
        return weir_fail(err, st, "cannot remove '%s': %s", fresh, weir_status_text(st));

    int code = open_file(meta, fresh, SQLITE_OPEN_CREATE);
    if (!code)
        code = run(meta, create_sql);
    if (code)
        st = fail_sql(meta, code, err, "create");
    close_file(meta);
    if (st)
        return st;

    st = weir_fs_rename(fs, fresh, meta->path);
    if (!st)
        st = weir_fs_sync_directory(fs, directory);
    if (st)
        return weir_fail(err, st, "cannot create '%s': %s", meta->path, weir_status_text(st));
    return WEIR_OK;
}

/* Makes a missing table, and checks the log of one that is there. An empty file, or a log without
 * its table, was whole once. */
static enum weir_status
ensure(struct weir_meta *meta, struct weir_error *err)
{
    char log[300];
    snprintf(log, sizeof log, "%s-wal", meta->path);
    uint64_t size, log_size;
    enum weir_status st = look(meta->sys->fs, meta->path, &size);
    if (!st)
        st = look(meta->sys->fs, log, &log_size);
    if (st)
        return weir_fail(err, st, "cannot look at '%s': %s", meta->path, weir_status_text(st));
    if (size == 0)
        return weir_fail(err, WEIR_DAMAGED, "'%s' is damaged: it is empty", meta->path);
    if (size != UINT64_MAX)
        return weir_meta_wal_check(meta->sys->fs, log, err);
    if (log_size != UINT64_MAX && log_size > 0)
        return weir_fail(err, WEIR_DAMAGED, "'%s' is missing, but its log '%s' is there",
                         meta->path, log);
    return create(meta, err);
}

/* The first column of the first row as a number; `none` where there is no row. */
static int
query_number(struct weir_meta *meta, const char *text, int64_t none, int64_t *out)
{
    sqlite3_stmt *stmt;
    int code = sqlite3_prepare_v2(meta->db, text, -1, &stmt, NULL);
    if (code)
        return code;
    code = sqlite3_step(stmt);
    if (code == SQLITE_ROW)
        *out = sqlite3_column_int64(stmt, 0);
    else if (code == SQLITE_DONE)
        *out = none;
    int end = sqlite3_finalize(stmt);
    return code == SQLITE_ROW || code == SQLITE_DONE ? end : code;
}

static enum weir_status
migrate(struct weir_meta *meta, int64_t version, struct weir_error *err)
{
    for (; version < SCHEMA_VERSION; version++) {
        char text[96];
        snprintf(text, sizeof text, "UPDATE schema SET version = %d", (int)version + 1);
        int code = run(meta, "BEGIN IMMEDIATE");
        if (!code)
            code = run(meta, migrations[version - 1]);
        if (!code)
            code = run(meta, text);
        if (!code)
            code = run(meta, "COMMIT");
        if (code)
            return fail_sql(meta, code, err, "migrate");
    }
    return WEIR_OK;
}

/* Where SQLite says no although all its calls went well, the file is not what we wrote. */
static enum weir_status
fail_check(struct weir_meta *meta, int code, struct weir_error *err)
{
    enum weir_status st = status_of(meta, code);
    if ((code & 0xff) == SQLITE_ERROR && !meta->vfs.failure)
        st = WEIR_DAMAGED;
    if (st == WEIR_DAMAGED)
        return weir_fail(err, st, "'%s' is damaged: %s", meta->path, sqlite3_errmsg(meta->db));
    return fail_sql(meta, code, err, "open");
}

static enum weir_status
quick_check(struct weir_meta *meta, struct weir_error *err)
{
    sqlite3_stmt *stmt;
    int code = sqlite3_prepare_v2(meta->db, "PRAGMA quick_check(1)", -1, &stmt, NULL);
    if (code)
        return fail_check(meta, code, err);
    enum weir_status st = WEIR_OK;
    code = sqlite3_step(stmt);
    const char *text = code == SQLITE_ROW ? (const char *)sqlite3_column_text(stmt, 0) : NULL;
    if (text && meta->vfs.failure)
        st = weir_fail(err, meta->vfs.failure, "cannot read '%s': %s", meta->path,
                       weir_status_text(meta->vfs.failure));
    else if (text && strcmp(text, "ok") != 0)
        st = weir_fail(err, WEIR_DAMAGED, "'%s' is damaged: %s", meta->path, text);
    else if (!text)
        st = fail_check(meta, code, err);
    sqlite3_finalize(stmt);
    return st;
}

static enum weir_status
check(struct weir_meta *meta, struct weir_error *err)
{
    int64_t application, version;
    int code = query_number(meta, "PRAGMA application_id", 0, &application);
    if (code)
        return fail_check(meta, code, err);
    if (application != APPLICATION_ID)
        return weir_fail(err, WEIR_DAMAGED, "'%s' is damaged, or not a table of this program",
                         meta->path);
    enum weir_status st = quick_check(meta, err);
    if (st)
        return st;
    code = query_number(meta, "SELECT version FROM schema", 0, &version);
    if (code)
        return fail_check(meta, code, err);
    if (version < 1)
        return weir_fail(err, WEIR_DAMAGED, "'%s' is damaged: no version", meta->path);
    if (version > SCHEMA_VERSION)
        return weir_fail(err, WEIR_UNSUPPORTED, "'%s' has form %lld, this program knows %d",
                         meta->path, (long long)version, SCHEMA_VERSION);
    return migrate(meta, version, err);
}

static int
on_commit(void *arg, sqlite3 *db, const char *name, int pages)
{
    (void)db;
    (void)name;
    struct weir_meta *meta = arg;
    meta->log_pages = pages;
    return SQLITE_OK;
}

static enum weir_status
open_table(struct weir_meta *meta, struct weir_error *err)
{
    int code = open_file(meta, meta->path, 0);
    if (code)
        return fail_check(meta, code, err);
    code = run(meta, "PRAGMA journal_mode = WAL; PRAGMA journal_size_limit = 4194304;");
    if (code)
        return fail_check(meta, code, err);
    /* Instead of SQLite's own hook: its checkpoint inside COMMIT would blur the answer. */
    sqlite3_wal_hook(meta->db, on_commit, meta);
    enum weir_status st = check(meta, err);
    for (int i = 0; !st && i < SQL_COUNT; i++) {
        code = sqlite3_prepare_v3(meta->db, sql[i], -1, SQLITE_PREPARE_PERSISTENT,
                                  &meta->statements[i], NULL);
        if (code)
            st = fail_check(meta, code, err);
    }
    return st;
}

static void
free_table(struct weir_meta *meta)
{
    close_file(meta);
    weir_meta_vfs_fini(&meta->vfs);
    pthread_cond_destroy(&meta->worked);
    pthread_mutex_destroy(&meta->mtx);
    free(meta->path);
    free(meta);
}

enum weir_status
weir_meta_open(struct weir_sys *sys, struct weir_loop *loop, const char *path,
               struct weir_meta **out, struct weir_error *err)
{
    WEIR_ASSERT(strlen(path) < 256);
    struct weir_meta *meta = calloc(1, sizeof *meta);
    char *copy = strdup(path);
    if (!meta || !copy || weir_meta_vfs_init(&meta->vfs, sys)) {
        free(copy);
        free(meta);
        return weir_fail(err, WEIR_NO_MEMORY, "cannot open '%s': out of memory", path);
    }
    meta->sys = sys;
    meta->loop = loop;
    meta->path = copy;
    weir_list_init(&meta->waiting);
    weir_list_init(&meta->group);
    pthread_mutex_init(&meta->mtx, NULL);
    pthread_cond_init(&meta->worked, NULL);

    enum weir_status st = ensure(meta, err);
    if (!st)
        st = open_table(meta, err);
    if (st) {
        /* Whatever it is, a close must not write to it. */
        meta->broken = true;
        free_table(meta);
        return st;
    }
    *out = meta;
    return WEIR_OK;
}

void
weir_meta_close(struct weir_meta *meta)
{
    if (!meta)
        return;
    while (meta->job_out) {
        pthread_mutex_lock(&meta->mtx);
        while (meta->working)
            pthread_cond_wait(&meta->worked, &meta->mtx);
        pthread_mutex_unlock(&meta->mtx);
        weir_loop_step(meta->loop, SIZE_MAX);
    }
    WEIR_ASSERT(weir_list_is_empty(&meta->waiting));
    weir_meta_vfs_begin(&meta->vfs);
    free_table(meta);
}

/* ---- rows ---- */

static uint64_t
checksum(struct weir_bytes key, struct weir_bytes value, uint64_t version)
{
    return XXH3_64bits_withSeed(value.data, value.len,
                                XXH3_64bits_withSeed(key.data, key.len, version));
}

enum weir_status
weir_meta_scan(struct weir_meta *meta, const char *prefix,
               enum weir_status (*each)(void *arg, const char *key, struct weir_bytes value,
                                        uint64_t version),
               void *arg, struct weir_error *err)
{
    WEIR_ASSERT(!meta->job_out);
    sqlite3_stmt *stmt = meta->statements[SQL_SCAN];
    size_t prefix_len = strlen(prefix);
    weir_meta_vfs_begin(&meta->vfs);
    enum weir_status st = WEIR_OK;
    int code = sqlite3_bind_text(stmt, 1, prefix, (int)prefix_len, SQLITE_STATIC);
    while (!code && !st && (code = sqlite3_step(stmt)) == SQLITE_ROW) {
        code = SQLITE_OK;
        struct weir_bytes key = {sqlite3_column_text(stmt, 0),
                                 (size_t)sqlite3_column_bytes(stmt, 0)};
        struct weir_bytes value = {sqlite3_column_blob(stmt, 1),
                                   (size_t)sqlite3_column_bytes(stmt, 1)};
        uint64_t version = (uint64_t)sqlite3_column_int64(stmt, 2);
        if (key.len < prefix_len || memcmp(key.data, prefix, prefix_len) != 0)
            break;
        if (checksum(key, value, version) != (uint64_t)sqlite3_column_int64(stmt, 3))
            st =
                weir_fail(err, WEIR_DAMAGED, "'%s' is damaged: row '%s' does not hold its checksum",
                          meta->path, (const char *)key.data);
        else
            st = each(arg, (const char *)key.data, value, version);
    }
    if (!st && code && code != SQLITE_DONE)
        st = fail_sql(meta, code, err, "read");
    sqlite3_reset(stmt);
    sqlite3_clear_bindings(stmt);
    return st;
}

static void
add(struct weir_meta_commit *c, const char *key, struct weir_bytes value, bool is_put,
    uint64_t expect)
{
    size_t key_len = strlen(key);
    if (c->st)
        return;
    if (key_len > WEIR_META_KEY_MAX || value.len > WEIR_META_VALUE_MAX) {
        c->st = WEIR_TOO_BIG;
        return;
    }
    if (c->count == c->capacity) {
        size_t capacity = c->capacity ? 2 * c->capacity : 4;
        struct weir_meta_op *ops = realloc(c->ops, capacity * sizeof *ops);
        if (!ops) {
            c->st = WEIR_NO_MEMORY;
            return;
        }
        c->ops = ops;
        c->capacity = capacity;
    }
    char *block = malloc(key_len + 1 + value.len);
    if (!block) {
        c->st = WEIR_NO_MEMORY;
        return;
    }
    memcpy(block, key, key_len + 1);
    uint8_t *copy = (uint8_t *)block + key_len + 1;
    if (value.len)
        memcpy(copy, value.data, value.len);
    c->ops[c->count++] =
        (struct weir_meta_op){block, key_len, is_put ? copy : NULL, value.len, expect};
}

void
weir_meta_put(struct weir_meta_commit *c, const char *key, struct weir_bytes value, uint64_t expect)
{
    add(c, key, value, true, expect);
}

void
weir_meta_delete(struct weir_meta_commit *c, const char *key, uint64_t expect)
{
    add(c, key, (struct weir_bytes){NULL, 0}, false, expect);
}

static void
free_ops(struct weir_meta_commit *c)
{
    for (size_t i = 0; i < c->count; i++)
        free(c->ops[i].key);
    free(c->ops);
    c->ops = NULL;
    c->count = c->capacity = 0;
}

/* ---- the job ---- */

/* 0: the row is not there. */
static int
read_version(struct weir_meta *meta, const struct weir_meta_op *op, uint64_t *out)
{
    sqlite3_stmt *stmt = meta->statements[SQL_VERSION];
    sqlite3_bind_text(stmt, 1, op->key, (int)op->key_len, SQLITE_STATIC);
    int code = sqlite3_step(stmt);
    if (code == SQLITE_ROW)
        *out = (uint64_t)sqlite3_column_int64(stmt, 0);
    else if (code == SQLITE_DONE)
        *out = 0;
    int end = sqlite3_reset(stmt);
    return code == SQLITE_ROW || code == SQLITE_DONE ? end : code;
}

static int
write_row(struct weir_meta *meta, const struct weir_meta_op *op, uint64_t version)
{
    sqlite3_stmt *stmt = meta->statements[op->value ? SQL_PUT : SQL_DELETE];
    int code = sqlite3_bind_text(stmt, 1, op->key, (int)op->key_len, SQLITE_STATIC);
    if (!code && op->value) {
        uint64_t sum = checksum(weir_bytes(op->key, op->key_len),
                                weir_bytes(op->value, op->value_len), version);
        code = sqlite3_bind_blob(stmt, 2, op->value, (int)op->value_len, SQLITE_STATIC);
        if (!code)
            code = sqlite3_bind_int64(stmt, 3, (int64_t)version);
        if (!code)
            code = sqlite3_bind_int64(stmt, 4, (int64_t)sum);
    }
    if (!code)
        code = sqlite3_step(stmt);
    int end = sqlite3_reset(stmt);
    return code == SQLITE_DONE ? end : code;
}

/* The operations of one commit in its savepoint. A code other than OK is the whole transaction's.
 */
static int
apply(struct weir_meta *meta, struct weir_meta_commit *c)
{
    int code = run(meta, "SAVEPOINT one");
    for (size_t i = 0; !code && i < c->count; i++) {
        const struct weir_meta_op *op = &c->ops[i];
        uint64_t version = 0;
        code = read_version(meta, op, &version);
        if (code)
            break;
        if (op->expect != WEIR_META_ANY && op->expect != version) {
            c->failed_op = i;
            c->st = WEIR_FENCED;
            code = run(meta, "ROLLBACK TO one");
            break;
        }
        code = write_row(meta, op, version + 1);
    }
    return code ? code : run(meta, "RELEASE one");
}

/* After a failure: nothing of the transaction is left, or the table is closed. */
static enum weir_status
roll_back(struct weir_meta *meta, int code)
{
    enum weir_status st = fail_sql(meta, code, &meta->job_fault, "write");
    if (!sqlite3_get_autocommit(meta->db) && run(meta, "ROLLBACK"))
        meta->broken = true;
    if (weir_meta_vfs_undo(&meta->vfs)) {
        meta->broken = true;
        meta->job_fault.status = WEIR_UNKNOWN;
        st = weir_fail_in(&meta->job_fault, WEIR_UNKNOWN,
                          "cannot tell what was written, a restart will find out");
    }
    if (st == WEIR_DAMAGED)
        meta->broken = true;
    return st;
}

static void
commit_group(struct weir_meta *meta)
{
    weir_meta_vfs_begin(&meta->vfs);
    int code = run(meta, "BEGIN IMMEDIATE");
    WEIR_LIST_FOR_EACH (node, &meta->group) {
        struct weir_meta_commit *c = WEIR_CONTAINER(node, struct weir_meta_commit, node);
        if (code)
            break;
        if (!c->st && c->count)
            code = apply(meta, c);
    }
    if (!code)
        code = run(meta, "COMMIT");
    if (!code)
        return;
    enum weir_status st = roll_back(meta, code);
    WEIR_LIST_FOR_EACH (node, &meta->group) {
        struct weir_meta_commit *c = WEIR_CONTAINER(node, struct weir_meta_commit, node);
        /* FENCED was judged beside commits that are gone now. */
        if (c->count && (!c->st || c->st == WEIR_FENCED))
            c->st = st;
    }
}

static bool
has_work(const struct weir_meta *meta)
{
    WEIR_LIST_FOR_EACH (node, &meta->group) {
        const struct weir_meta_commit *c = WEIR_CONTAINER(node, struct weir_meta_commit, node);
        if (!c->st && c->count)
            return true;
    }
    return false;
}

/* Frames of the log to the table's file; the next transaction begins the log anew. */
static void
move_log(struct weir_meta *meta)
{
    weir_meta_vfs_begin(&meta->vfs);
    int code = sqlite3_wal_checkpoint_v2(meta->db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
    if (code)
        (void)!fail_sql(meta, code, &meta->job_fault, "move the log into");
    meta->log_pages = 0; /* after a failure too: the next commit counts again */
}

static void
work(struct weir_job *job)
{
    struct weir_meta *meta = WEIR_CONTAINER(job, struct weir_meta, job);
    bool idle = weir_list_is_empty(&meta->group);
    if (!meta->broken && meta->log_pages > (idle ? LOG_PAGES_IDLE : LOG_PAGES_MAX))
        move_log(meta);
    if (meta->broken) {
        WEIR_LIST_FOR_EACH (node, &meta->group)
            WEIR_CONTAINER(node, struct weir_meta_commit, node)->st = WEIR_UNAVAILABLE;
    } else if (has_work(meta)) {
        commit_group(meta);
    }
    pthread_mutex_lock(&meta->mtx);
    meta->working = false;
    pthread_cond_signal(&meta->worked);
    pthread_mutex_unlock(&meta->mtx);
}

static void worked(struct weir_job *job);

static void
start(struct weir_meta *meta)
{
    WEIR_ASSERT(!meta->job_out);
    struct weir_list *node;
    while ((node = weir_list_pop_front(&meta->waiting)))
        weir_list_push_back(&meta->group, node);
    if (weir_list_is_empty(&meta->group) && (meta->broken || meta->log_pages <= LOG_PAGES_IDLE))
        return;
    meta->job_out = true;
    meta->working = meta->sys->threads;
    meta->job.work = work;
    meta->job.done = worked;
    weir_pool_submit(meta->sys->pool, meta->loop, &meta->job);
}

static void
worked(struct weir_job *job)
{
    struct weir_meta *meta = WEIR_CONTAINER(job, struct weir_meta, job);
    if (meta->job_fault.status) {
        meta->fault = meta->job_fault;
        meta->job_fault.status = WEIR_OK;
    }
    struct weir_list *node;
    while ((node = weir_list_pop_front(&meta->group))) {
        struct weir_meta_commit *c = WEIR_CONTAINER(node, struct weir_meta_commit, node);
        enum weir_status st = c->st;
        free_ops(c);
        c->st = WEIR_OK;
        c->done(c, st);
    }
    meta->job_out = false;
    start(meta);
}

void
weir_meta_commit(struct weir_meta *meta, struct weir_meta_commit *c)
{
    WEIR_ASSERT(weir_loop_is_current(meta->loop));
    weir_list_push_back(&meta->waiting, &c->node);
    if (!meta->job_out)
        start(meta);
}

enum weir_status
weir_meta_commit_now(struct weir_meta *meta, struct weir_meta_commit *c, struct weir_error *err)
{
    WEIR_ASSERT(!meta->job_out);
    if (meta->broken)
        c->st = WEIR_UNAVAILABLE;
    weir_list_push_back(&meta->group, &c->node);
    if (has_work(meta))
        commit_group(meta);
    weir_list_remove(&c->node);
    enum weir_status st = c->st;
    free_ops(c);
    c->st = WEIR_OK;
    if (meta->job_fault.status) {
        meta->fault = meta->job_fault;
        meta->job_fault.status = WEIR_OK;
        if (err)
            *err = meta->fault;
    } else if (st) {
        return weir_fail(err, st, "cannot write '%s': %s", meta->path, weir_status_text(st));
    }
    return st;
}

const struct weir_error *
weir_meta_fault(const struct weir_meta *meta)
{
    return &meta->fault;
}
