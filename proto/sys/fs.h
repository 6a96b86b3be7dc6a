/* Files as an interface, so that tests can cut, tear, flip, fill and fail them (sys/memfs.h).
 *
 * Paths are relative to the directory that the file system was opened on, with '/' between parts,
 * never absolute, never "..". Every call is synchronous and may be made from any thread; two calls
 * on one file at once are allowed where POSIX allows them. A failed call has changed nothing that
 * its comment does not name. */
#pragma once
#include "base/bytes.h"
#include "base/error.h"
#include "base/status.h"
#include <sys/uio.h>

struct weir_fs;
struct weir_file;

enum {
    WEIR_OPEN_READ = 0,
    WEIR_OPEN_WRITE = 1,     /* read and write */
    WEIR_OPEN_CREATE = 2,    /* make it if it is not there */
    WEIR_OPEN_EXCLUSIVE = 4, /* with CREATE: EXISTS if it is there */
    WEIR_OPEN_TRUNCATE = 8,
};

struct weir_fs_entry {
    char name[256];
    bool is_directory;
};

struct weir_file_ops {
    enum weir_status (*pread)(struct weir_file *f, void *buf, size_t len, uint64_t off,
                              size_t *read_out);
    enum weir_status (*pwritev)(struct weir_file *f, const struct iovec *iov, int count,
                                uint64_t off);
    enum weir_status (*datasync)(struct weir_file *f);
    enum weir_status (*truncate)(struct weir_file *f, uint64_t size);
    enum weir_status (*size)(struct weir_file *f, uint64_t *out);
    enum weir_status (*advise)(struct weir_file *f, uint64_t off, uint64_t len, int advice);
    void (*close)(struct weir_file *f);
};

struct weir_file {
    const struct weir_file_ops *ops;
};

struct weir_fs_ops {
    enum weir_status (*open)(struct weir_fs *fs, const char *path, int flags,
                             struct weir_file **out);
    enum weir_status (*rename)(struct weir_fs *fs, const char *from, const char *to);
    enum weir_status (*remove)(struct weir_fs *fs, const char *path);
    enum weir_status (*mkdir)(struct weir_fs *fs, const char *path);
    enum weir_status (*sync_directory)(struct weir_fs *fs, const char *path);
    enum weir_status (*list)(struct weir_fs *fs, const char *path,
                             void (*each)(void *arg, const struct weir_fs_entry *entry), void *arg);
    enum weir_status (*lock)(struct weir_fs *fs, const char *path, struct weir_file **out,
                             int64_t *holder_pid_out);
    enum weir_status (*space)(struct weir_fs *fs, uint64_t *free_bytes_out);
    enum weir_status (*usage)(struct weir_fs *fs, const char *path, uint64_t *allocated_bytes_out);
};

struct weir_fs {
    const struct weir_fs_ops *ops;
};

/* The machine's files below `directory` (made if missing, mode 0700; its parent must be there). */
enum weir_status weir_fs_posix(const char *directory, struct weir_fs **out, struct weir_error *err);
void weir_fs_posix_free(struct weir_fs *fs);

static inline enum weir_status
weir_fs_open(struct weir_fs *fs, const char *path, int flags, struct weir_file **out)
{
    return fs->ops->open(fs, path, flags, out);
}
/* Atomic replacement of `to`; durable after sync_directory of both directories. */
static inline enum weir_status
weir_fs_rename(struct weir_fs *fs, const char *from, const char *to)
{
    return fs->ops->rename(fs, from, to);
}
/* A file or an empty directory. */
static inline enum weir_status
weir_fs_remove(struct weir_fs *fs, const char *path)
{
    return fs->ops->remove(fs, path);
}
/* EXISTS is answered as OK. */
static inline enum weir_status
weir_fs_mkdir(struct weir_fs *fs, const char *path)
{
    return fs->ops->mkdir(fs, path);
}
/* Makes names in the directory durable; "" is the root. */
static inline enum weir_status
weir_fs_sync_directory(struct weir_fs *fs, const char *path)
{
    return fs->ops->sync_directory(fs, path);
}
/* In no order; without "." and "..". */
static inline enum weir_status
weir_fs_list(struct weir_fs *fs, const char *path,
             void (*each)(void *arg, const struct weir_fs_entry *entry), void *arg)
{
    return fs->ops->list(fs, path, each, arg);
}
/* An exclusive lock for the life of the returned file (closing lets go); writes our pid into it.
 * BUSY when another process (or another weir_fs of this one) holds it: *holder_pid_out says who,
 * 0 if unknown. */
static inline enum weir_status
weir_fs_lock(struct weir_fs *fs, const char *path, struct weir_file **out, int64_t *holder_pid_out)
{
    return fs->ops->lock(fs, path, out, holder_pid_out);
}
static inline enum weir_status
weir_fs_space(struct weir_fs *fs, uint64_t *free_bytes_out)
{
    return fs->ops->space(fs, free_bytes_out);
}

/* Bytes that the file, or the directory with all below it, takes on the disk. */
static inline enum weir_status
weir_fs_usage(struct weir_fs *fs, const char *path, uint64_t *allocated_bytes_out)
{
    return fs->ops->usage(fs, path, allocated_bytes_out);
}

/* Reads up to `len`; fewer only at the end of the file. */
static inline enum weir_status
weir_file_pread(struct weir_file *f, void *buf, size_t len, uint64_t off, size_t *read_out)
{
    return f->ops->pread(f, buf, len, off, read_out);
}
/* Reads exactly `len`, END otherwise. */
static inline enum weir_status
weir_file_pread_all(struct weir_file *f, void *buf, size_t len, uint64_t off)
{
    size_t got;
    enum weir_status st = f->ops->pread(f, buf, len, off, &got);
    return st ? st : got == len ? WEIR_OK : WEIR_END;
}
/* Writes all of it, or fails with any part of it written. Any number of pieces. */
static inline enum weir_status
weir_file_pwritev(struct weir_file *f, const struct iovec *iov, int count, uint64_t off)
{
    return f->ops->pwritev(f, iov, count, off);
}
static inline enum weir_status
weir_file_pwrite(struct weir_file *f, const void *buf, size_t len, uint64_t off)
{
    struct iovec iov = {(void *)(uintptr_t)buf, len};
    return f->ops->pwritev(f, &iov, 1, off);
}
/* fdatasync. After a failure nothing written since the last success may be trusted. */
static inline enum weir_status
weir_file_datasync(struct weir_file *f)
{
    return f->ops->datasync(f);
}
static inline enum weir_status
weir_file_truncate(struct weir_file *f, uint64_t size)
{
    return f->ops->truncate(f, size);
}
static inline enum weir_status
weir_file_size(struct weir_file *f, uint64_t *out)
{
    return f->ops->size(f, out);
}
/* posix_fadvise; the answer is a hint's. */
static inline void
weir_file_advise(struct weir_file *f, uint64_t off, uint64_t len, int advice)
{
    (void)!f->ops->advise(f, off, len, advice);
}
/* NULL is allowed. */
static inline void
weir_file_close(struct weir_file *f)
{
    if (f)
        f->ops->close(f);
}
