#include "base/assert.h"
#include "sys/fs.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

struct posix_fs {
    struct weir_fs fs;
    int dir;
};

struct posix_file {
    struct weir_file file;
    int fd;
};

static int
fd_of(struct weir_file *f)
{
    return ((struct posix_file *)f)->fd;
}

static int
dir_of(struct weir_fs *fs)
{
    return ((struct posix_fs *)fs)->dir;
}

static enum weir_status
from_errno(void)
{
    return weir_status_from_errno(errno);
}

/* Nothing outside of our directory has a path. */
static bool
is_inside(const char *path)
{
    if (path[0] == '/')
        return false;
    for (const char *part = path; part; part = strchr(part, '/')) {
        part += *part == '/';
        if (part[0] == '.' && part[1] == '.' && (part[2] == '/' || part[2] == '\0'))
            return false;
    }
    return true;
}

static const char *
or_root(const char *path)
{
    return *path ? path : ".";
}

static enum weir_status
file_pread(struct weir_file *f, void *buf, size_t len, uint64_t off, size_t *read_out)
{
    size_t got = 0;
    if (off > INT64_MAX || len > INT64_MAX - off)
        return WEIR_TOO_BIG;
    while (got < len) {
        ssize_t n = pread(fd_of(f), (uint8_t *)buf + got, len - got, (off_t)(off + got));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return from_errno();
        if (n == 0)
            break;
        got += (size_t)n;
    }
    *read_out = got;
    return WEIR_OK;
}

static enum weir_status
file_pwritev(struct weir_file *f, const struct iovec *iov, int count, uint64_t off)
{
    size_t done = 0; /* bytes of iov[0] that are written */
    while (count > 0) {
        if (done == iov->iov_len) {
            done = 0;
            iov++;
            count--;
            continue;
        }
        if (off > INT64_MAX)
            return WEIR_TOO_BIG;
        ssize_t n;
        if (done)
            n = pwrite(fd_of(f), (const uint8_t *)iov->iov_base + done, iov->iov_len - done,
                       (off_t)off);
        else
            n = pwritev(fd_of(f), iov, count < IOV_MAX ? count : IOV_MAX, (off_t)off);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return from_errno();
        if (n == 0)
            return WEIR_IO;
        off += (size_t)n;
        for (done += (size_t)n; count > 0 && done >= iov->iov_len; iov++, count--)
            done -= iov->iov_len;
    }
    return WEIR_OK;
}

static enum weir_status
file_datasync(struct weir_file *f)
{
    while (fdatasync(fd_of(f))) {
        if (errno != EINTR)
            return from_errno();
    }
    return WEIR_OK;
}

static enum weir_status
file_truncate(struct weir_file *f, uint64_t size)
{
    if (size > INT64_MAX)
        return WEIR_TOO_BIG;
    while (ftruncate(fd_of(f), (off_t)size)) {
        if (errno != EINTR)
            return from_errno();
    }
    return WEIR_OK;
}

static enum weir_status
file_size(struct weir_file *f, uint64_t *out)
{
    struct stat st;
    if (fstat(fd_of(f), &st))
        return from_errno();
    *out = (uint64_t)st.st_size;
    return WEIR_OK;
}

static enum weir_status
file_advise(struct weir_file *f, uint64_t off, uint64_t len, int advice)
{
    if (off > INT64_MAX || len > INT64_MAX)
        return WEIR_TOO_BIG;
    return weir_status_from_errno(posix_fadvise(fd_of(f), (off_t)off, (off_t)len, advice));
}

static void
file_close(struct weir_file *f)
{
    close(fd_of(f));
    free(f);
}

static const struct weir_file_ops file_ops = {
    file_pread, file_pwritev, file_datasync, file_truncate, file_size, file_advise, file_close,
};

/* Takes the descriptor, also on failure. */
static enum weir_status
file_new(int fd, struct weir_file **out)
{
    struct posix_file *file = malloc(sizeof *file);
    if (!file) {
        close(fd);
        return WEIR_NO_MEMORY;
    }
    *file = (struct posix_file){{&file_ops}, fd};
    *out = &file->file;
    return WEIR_OK;
}

static enum weir_status
open_at(struct weir_fs *fs, const char *path, int flags, int *out)
{
    int fd;
    if (!is_inside(path))
        return WEIR_INVALID;
    do
        fd = openat(dir_of(fs), path, flags | O_CLOEXEC | O_NOCTTY, 0600);
    while (fd < 0 && errno == EINTR);
    if (fd < 0)
        return from_errno();
    *out = fd;
    return WEIR_OK;
}

static enum weir_status
fs_open(struct weir_fs *fs, const char *path, int flags, struct weir_file **out)
{
    int fd, how = flags & WEIR_OPEN_WRITE ? O_RDWR : O_RDONLY;
    if (flags & WEIR_OPEN_CREATE)
        how |= O_CREAT;
    if (flags & WEIR_OPEN_EXCLUSIVE)
        how |= O_EXCL;
    if (flags & WEIR_OPEN_TRUNCATE)
        how |= O_TRUNC;
    enum weir_status st = open_at(fs, path, how, &fd);
    return st ? st : file_new(fd, out);
}

static enum weir_status
fs_rename(struct weir_fs *fs, const char *from, const char *to)
{
    if (!is_inside(from) || !is_inside(to))
        return WEIR_INVALID;
    return renameat(dir_of(fs), from, dir_of(fs), to) ? from_errno() : WEIR_OK;
}

static enum weir_status
fs_remove(struct weir_fs *fs, const char *path)
{
    if (!is_inside(path) || !*path)
        return WEIR_INVALID;
    if (!unlinkat(dir_of(fs), path, 0))
        return WEIR_OK;
    if (errno != EISDIR && errno != EPERM)
        return from_errno();
    return unlinkat(dir_of(fs), path, AT_REMOVEDIR) ? from_errno() : WEIR_OK;
}

static enum weir_status
fs_mkdir(struct weir_fs *fs, const char *path)
{
    struct stat st;
    if (!is_inside(path))
        return WEIR_INVALID;
    if (!mkdirat(dir_of(fs), or_root(path), 0700))
        return WEIR_OK;
    if (errno != EEXIST)
        return from_errno();
    if (fstatat(dir_of(fs), or_root(path), &st, 0))
        return from_errno();
    return S_ISDIR(st.st_mode) ? WEIR_OK : WEIR_EXISTS;
}

static enum weir_status
fs_sync_directory(struct weir_fs *fs, const char *path)
{
    int fd;
    enum weir_status st = open_at(fs, or_root(path), O_RDONLY | O_DIRECTORY, &fd);
    if (st)
        return st;
    while (fsync(fd)) {
        if (errno == EINTR)
            continue;
        st = from_errno();
        break;
    }
    close(fd);
    return st;
}

static bool
is_dots(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/* Takes the descriptor, also on failure. */
static enum weir_status
stream_of(int fd, DIR **out)
{
    *out = fdopendir(fd);
    if (*out)
        return WEIR_OK;
    enum weir_status st = from_errno();
    close(fd);
    return st;
}

static enum weir_status
fs_list(struct weir_fs *fs, const char *path,
        void (*each)(void *arg, const struct weir_fs_entry *entry), void *arg)
{
    int fd;
    DIR *stream = NULL;
    enum weir_status st = open_at(fs, or_root(path), O_RDONLY | O_DIRECTORY, &fd);
    if (!st)
        st = stream_of(fd, &stream);
    while (!st) {
        struct weir_fs_entry entry;
        struct stat about;
        errno = 0;
        struct dirent *found = readdir(stream);
        if (!found) {
            st = from_errno();
            break;
        }
        if (is_dots(found->d_name))
            continue;
        memcpy(entry.name, found->d_name, strlen(found->d_name) + 1);
        entry.is_directory = found->d_type == DT_DIR;
        if (found->d_type == DT_UNKNOWN)
            entry.is_directory =
                !fstatat(fd, found->d_name, &about, AT_SYMLINK_NOFOLLOW) && S_ISDIR(about.st_mode);
        each(arg, &entry);
    }
    if (stream)
        closedir(stream);
    return st;
}

/* Who holds the lock, as far as the file tells. */
static int64_t
read_pid(int fd)
{
    char text[32];
    ssize_t n = pread(fd, text, sizeof text - 1, 0);
    if (n <= 0)
        return 0;
    text[n] = '\0';
    long long pid = strtoll(text, NULL, 10);
    return pid > 0 ? pid : 0;
}

static enum weir_status
write_pid(int fd)
{
    char text[32];
    int len = snprintf(text, sizeof text, "%lld\n", (long long)getpid());
    if (ftruncate(fd, 0))
        return from_errno();
    return pwrite(fd, text, (size_t)len, 0) == len ? WEIR_OK : WEIR_IO;
}

/* An open-file-description lock: it belongs to this descriptor, so it holds against our own process
 * too, closing another descriptor of the file does not drop it, and it ends with the process. */
static enum weir_status
fs_lock(struct weir_fs *fs, const char *path, struct weir_file **out, int64_t *holder_pid_out)
{
    int fd;
    enum weir_status st = open_at(fs, path, O_RDWR | O_CREAT, &fd);
    if (st)
        return st;
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(fd, F_OFD_SETLK, &lock)) {
        bool held = errno == EAGAIN || errno == EACCES;
        st = held ? WEIR_BUSY : from_errno();
        if (held)
            *holder_pid_out = read_pid(fd);
    } else {
        st = write_pid(fd);
    }
    if (st) {
        close(fd);
        return st;
    }
    return file_new(fd, out);
}

static enum weir_status
fs_space(struct weir_fs *fs, uint64_t *free_bytes_out)
{
    struct statvfs about;
    if (fstatvfs(dir_of(fs), &about))
        return from_errno();
    *free_bytes_out = (uint64_t)about.f_bavail * about.f_frsize;
    return WEIR_OK;
}

/* What others remove while we walk counts as nothing. */
static enum weir_status
add_usage(int dir, const char *name, uint64_t *total)
{
    struct stat about;
    if (fstatat(dir, name, &about, AT_SYMLINK_NOFOLLOW))
        return errno == ENOENT ? WEIR_OK : from_errno();
    *total += (uint64_t)about.st_blocks * 512;
    if (!S_ISDIR(about.st_mode))
        return WEIR_OK;

    DIR *stream = NULL;
    int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return errno == ENOENT ? WEIR_OK : from_errno();
    enum weir_status st = stream_of(fd, &stream);
    while (!st) {
        errno = 0;
        struct dirent *found = readdir(stream);
        if (!found) {
            st = from_errno();
            break;
        }
        if (!is_dots(found->d_name))
            st = add_usage(fd, found->d_name, total);
    }
    if (stream)
        closedir(stream);
    return st;
}

static enum weir_status
fs_usage(struct weir_fs *fs, const char *path, uint64_t *allocated_bytes_out)
{
    struct stat about;
    uint64_t total = 0;
    if (!is_inside(path))
        return WEIR_INVALID;
    if (fstatat(dir_of(fs), or_root(path), &about, AT_SYMLINK_NOFOLLOW))
        return from_errno();
    enum weir_status st = add_usage(dir_of(fs), or_root(path), &total);
    if (!st)
        *allocated_bytes_out = total;
    return st;
}

static const struct weir_fs_ops fs_ops = {
    fs_open, fs_rename, fs_remove, fs_mkdir, fs_sync_directory,
    fs_list, fs_lock,   fs_space,  fs_usage,
};

/* A directory that was just made must outlive a power cut as well. */
static enum weir_status
make_root(const char *directory)
{
    if (mkdir(directory, 0700))
        return errno == EEXIST ? WEIR_OK : from_errno();
    char parent[PATH_MAX];
    int n = snprintf(parent, sizeof parent, "%s/..", directory);
    if (n < 0 || (size_t)n >= sizeof parent)
        return WEIR_INVALID;
    int fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return from_errno();
    enum weir_status st = fsync(fd) ? from_errno() : WEIR_OK;
    close(fd);
    return st;
}

enum weir_status
weir_fs_posix(const char *directory, struct weir_fs **out, struct weir_error *err)
{
    enum weir_status st = make_root(directory);
    if (st)
        return weir_fail(err, st, "cannot make directory '%s': %s", directory,
                         weir_status_text(st));
    struct posix_fs *fs = malloc(sizeof *fs);
    if (!fs)
        return weir_fail(err, WEIR_NO_MEMORY, "cannot open directory '%s': %s", directory,
                         weir_status_text(WEIR_NO_MEMORY));
    *fs = (struct posix_fs){{&fs_ops}, open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    if (fs->dir < 0) {
        st = from_errno();
        free(fs);
        return weir_fail(err, st, "cannot open directory '%s': %s", directory,
                         weir_status_text(st));
    }
    *out = &fs->fs;
    return WEIR_OK;
}

void
weir_fs_posix_free(struct weir_fs *fs)
{
    if (!fs)
        return;
    WEIR_ASSERT(fs->ops == &fs_ops);
    close(dir_of(fs));
    free(fs);
}
