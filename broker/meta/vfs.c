#include "vfs.h"
#include "base/assert.h"
#include <stdio.h>
#include <stdlib.h>

struct file {
    sqlite3_file base;
    struct weir_meta_vfs *vfs;
    struct weir_file *f;
    const char *path; /* SQLite's, until close */
    bool is_wal;
    bool name_synced;
};

static struct file *
file_of(sqlite3_file *base)
{
    return (struct file *)(void *)base;
}

static struct weir_meta_vfs *
vfs_of(sqlite3_vfs *vfs)
{
    return vfs->pAppData;
}

/* What SQLite is told; the table reads `failure`. */
static int
failed(struct weir_meta_vfs *v, enum weir_status st, int code)
{
    v->failure = st;
    return st == WEIR_NO_SPACE ? SQLITE_FULL : st == WEIR_NO_MEMORY ? SQLITE_IOERR_NOMEM : code;
}

/* ---- files ---- */

static int
file_close(sqlite3_file *base)
{
    struct file *file = file_of(base);
    if (file->is_wal)
        file->vfs->wal = NULL;
    weir_file_close(file->f);
    return SQLITE_OK;
}

static int
file_read(sqlite3_file *base, void *buf, int len, sqlite3_int64 off)
{
    struct file *file = file_of(base);
    size_t got = 0;
    enum weir_status st = weir_file_pread(file->f, buf, (size_t)len, (uint64_t)off, &got);
    if (st)
        return failed(file->vfs, st, SQLITE_IOERR_READ);
    if (got == (size_t)len)
        return SQLITE_OK;
    memset((uint8_t *)buf + got, 0, (size_t)len - got);
    return SQLITE_IOERR_SHORT_READ;
}

static int
file_write(sqlite3_file *base, const void *buf, int len, sqlite3_int64 off)
{
    struct file *file = file_of(base);
    if (file->is_wal && (uint64_t)off < file->vfs->wal_first)
        file->vfs->wal_first = (uint64_t)off;
    enum weir_status st = weir_file_pwrite(file->f, buf, (size_t)len, (uint64_t)off);
    return st ? failed(file->vfs, st, SQLITE_IOERR_WRITE) : SQLITE_OK;
}

static int
file_truncate(sqlite3_file *base, sqlite3_int64 size)
{
    struct file *file = file_of(base);
    enum weir_status st = weir_file_truncate(file->f, (uint64_t)size);
    return st ? failed(file->vfs, st, SQLITE_IOERR_TRUNCATE) : SQLITE_OK;
}

static enum weir_status
sync_directory_of(struct weir_fs *fs, const char *path)
{
    const char *slash = strrchr(path, '/');
    char directory[256];
    if ((size_t)snprintf(directory, sizeof directory, "%.*s", slash ? (int)(slash - path) : 0,
                         path) >= sizeof directory)
        return WEIR_INVALID;
    return weir_fs_sync_directory(fs, directory);
}

static int
file_sync(sqlite3_file *base, int flags)
{
    (void)flags;
    struct file *file = file_of(base);
    enum weir_status st = weir_file_datasync(file->f);
    /* SQLite may have made the file: its name is part of what it wants to be durable. */
    if (!st && !file->name_synced)
        st = sync_directory_of(file->vfs->sys->fs, file->path);
    if (st) {
        file->vfs->wal_sync_failed |= file->is_wal;
        return failed(file->vfs, st, SQLITE_IOERR_FSYNC);
    }
    file->name_synced = true;
    return SQLITE_OK;
}

static int
file_size(sqlite3_file *base, sqlite3_int64 *out)
{
    struct file *file = file_of(base);
    uint64_t size;
    enum weir_status st = weir_file_size(file->f, &size);
    if (st)
        return failed(file->vfs, st, SQLITE_IOERR_FSTAT);
    *out = (sqlite3_int64)size;
    return SQLITE_OK;
}

static int
file_lock(sqlite3_file *base, int level)
{
    (void)base;
    (void)level;
    return SQLITE_OK;
}

static int
file_check_reserved_lock(sqlite3_file *base, int *out)
{
    (void)base;
    *out = 0;
    return SQLITE_OK;
}

static int
file_control(sqlite3_file *base, int op, void *arg)
{
    (void)base;
    (void)op;
    (void)arg;
    return SQLITE_NOTFOUND;
}

static int
file_sector_size(sqlite3_file *base)
{
    (void)base;
    return 4096;
}

static int
file_characteristics(sqlite3_file *base)
{
    (void)base;
    /* A cut during a write leaves bytes outside of it as they were: true of disks behind a page
     * cache. */
    return SQLITE_IOCAP_POWERSAFE_OVERWRITE;
}

static const sqlite3_io_methods methods = {
    .iVersion = 1,
    .xClose = file_close,
    .xRead = file_read,
    .xWrite = file_write,
    .xTruncate = file_truncate,
    .xSync = file_sync,
    .xFileSize = file_size,
    .xLock = file_lock,
    .xUnlock = file_lock,
    .xCheckReservedLock = file_check_reserved_lock,
    .xFileControl = file_control,
    .xSectorSize = file_sector_size,
    .xDeviceCharacteristics = file_characteristics,
};

/* ---- names ---- */

static int
vfs_open(sqlite3_vfs *vfs, const char *path, sqlite3_file *base, int flags, int *flags_out)
{
    struct weir_meta_vfs *v = vfs_of(vfs);
    struct file *file = file_of(base);
    base->pMethods = NULL;
    /* Temporary files live in memory (temp_store). */
    if (!path)
        return SQLITE_CANTOPEN;

    int how = WEIR_OPEN_READ;
    if (flags & SQLITE_OPEN_READWRITE)
        how |= WEIR_OPEN_WRITE;
    if (flags & SQLITE_OPEN_CREATE)
        how |= WEIR_OPEN_CREATE;
    if (flags & SQLITE_OPEN_EXCLUSIVE)
        how |= WEIR_OPEN_EXCLUSIVE;
    struct weir_file *f;
    enum weir_status st = weir_fs_open(v->sys->fs, path, how, &f);
    if (st)
        return failed(v, st, SQLITE_CANTOPEN);

    *file = (struct file){.base.pMethods = &methods, .vfs = v, .f = f, .path = path};
    if (flags & SQLITE_OPEN_WAL) {
        file->is_wal = true;
        v->wal = f;
    }
    if (flags_out)
        *flags_out = flags;
    return SQLITE_OK;
}

static int
vfs_delete(sqlite3_vfs *vfs, const char *path, int sync_directory)
{
    struct weir_meta_vfs *v = vfs_of(vfs);
    enum weir_status st = weir_fs_remove(v->sys->fs, path);
    if (st == WEIR_NOT_FOUND)
        return SQLITE_IOERR_DELETE_NOENT;
    if (!st && sync_directory)
        st = sync_directory_of(v->sys->fs, path);
    return st ? failed(v, st, SQLITE_IOERR_DELETE) : SQLITE_OK;
}

static int
vfs_access(sqlite3_vfs *vfs, const char *path, int flags, int *out)
{
    (void)flags;
    struct weir_meta_vfs *v = vfs_of(vfs);
    struct weir_file *f;
    enum weir_status st = weir_fs_open(v->sys->fs, path, WEIR_OPEN_READ, &f);
    if (st && st != WEIR_NOT_FOUND)
        return failed(v, st, SQLITE_IOERR_ACCESS);
    if (!st)
        weir_file_close(f);
    *out = !st;
    return SQLITE_OK;
}

static int
vfs_full_path(sqlite3_vfs *vfs, const char *path, int size, char *out)
{
    (void)vfs;
    return snprintf(out, (size_t)size, "%s", path) < size ? SQLITE_OK : SQLITE_CANTOPEN;
}

static int
vfs_randomness(sqlite3_vfs *vfs, int len, char *out)
{
    (void)vfs;
    weir_random_bytes(out, (size_t)len);
    return len;
}

static int
vfs_sleep(sqlite3_vfs *vfs, int us)
{
    (void)vfs;
    return us;
}

static int
vfs_now_ms(sqlite3_vfs *vfs, sqlite3_int64 *out)
{
    /* Milliseconds since noon of 24 November 4714 BC. */
    const sqlite3_int64 unix_epoch = 24405875 * (sqlite3_int64)8640000;
    *out = unix_epoch + (sqlite3_int64)weir_now_ms(vfs_of(vfs)->sys->clock);
    return SQLITE_OK;
}

static int
vfs_now_days(sqlite3_vfs *vfs, double *out)
{
    sqlite3_int64 ms;
    vfs_now_ms(vfs, &ms);
    *out = (double)ms / 86400000.0;
    return SQLITE_OK;
}

static int
vfs_last_error(sqlite3_vfs *vfs, int size, char *out)
{
    struct weir_meta_vfs *v = vfs_of(vfs);
    if (size > 0)
        snprintf(out, (size_t)size, "%s", weir_status_text(v->failure));
    return 0;
}

enum weir_status
weir_meta_vfs_init(struct weir_meta_vfs *v, struct weir_sys *sys)
{
    *v = (struct weir_meta_vfs){.sys = sys, .wal_first = UINT64_MAX};
    snprintf(v->name, sizeof v->name, "weir-%p", (void *)v);
    v->vfs = (sqlite3_vfs){
        .iVersion = 2,
        .szOsFile = sizeof(struct file),
        .mxPathname = 512,
        .zName = v->name,
        .pAppData = v,
        .xOpen = vfs_open,
        .xDelete = vfs_delete,
        .xAccess = vfs_access,
        .xFullPathname = vfs_full_path,
        .xRandomness = vfs_randomness,
        .xSleep = vfs_sleep,
        .xCurrentTime = vfs_now_days,
        .xGetLastError = vfs_last_error,
        .xCurrentTimeInt64 = vfs_now_ms,
    };
    return sqlite3_vfs_register(&v->vfs, 0) == SQLITE_OK ? WEIR_OK : WEIR_NO_MEMORY;
}

void
weir_meta_vfs_fini(struct weir_meta_vfs *v)
{
    WEIR_ASSERT(!v->wal);
    sqlite3_vfs_unregister(&v->vfs);
}

void
weir_meta_vfs_begin(struct weir_meta_vfs *v)
{
    v->failure = WEIR_OK;
    v->wal_sync_failed = false;
    v->wal_first = UINT64_MAX;
}

enum weir_status
weir_meta_vfs_undo(struct weir_meta_vfs *v)
{
    if (v->wal_sync_failed)
        return WEIR_UNKNOWN;
    if (v->wal_first == UINT64_MAX)
        return WEIR_OK;
    /* A commit frame may have arrived whole although its write failed, and SQLite only forgets it
     * in memory. What lies at and behind the transaction's first write is its own, or older than
     * the last checkpoint. SQLite writes there again next time. */
    if (!v->wal || weir_file_truncate(v->wal, v->wal_first) || weir_file_datasync(v->wal))
        return WEIR_UNKNOWN;
    v->wal_first = UINT64_MAX;
    return WEIR_OK;
}
