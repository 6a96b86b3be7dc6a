/* What sys/fs.h promises, kept by the machine's files and by the disk in memory alike. */
#include "sys/fs.h"
#include "sys/memfs.h"
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define OK(call) cr_assert_eq((call), WEIR_OK, "%s", #call)

struct disk {
    bool in_memory;
    struct weir_memfs *memory;
    struct weir_fs *fs;
    char directory[64];
};

static void
disk_open(struct disk *disk, bool in_memory)
{
    struct weir_error err = {0};
    *disk = (struct disk){.in_memory = in_memory};
    if (in_memory) {
        disk->memory = weir_memfs_new();
        disk->fs = weir_memfs_fs(disk->memory);
        return;
    }
    snprintf(disk->directory, sizeof disk->directory, "/tmp/weir-fs-XXXXXX");
    cr_assert(mkdtemp(disk->directory));
    cr_assert_eq(weir_fs_posix(disk->directory, &disk->fs, &err), WEIR_OK, "%s", err.text);
}

static void
disk_close(struct disk *disk)
{
    if (disk->in_memory) {
        weir_memfs_free(disk->memory);
        return;
    }
    weir_fs_posix_free(disk->fs);
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", disk->directory);
    cr_expect_eq(system(command), 0);
}

static void
put(struct weir_fs *fs, const char *path, const char *text)
{
    struct weir_file *file;
    OK(weir_fs_open(fs, path, WEIR_OPEN_WRITE | WEIR_OPEN_CREATE | WEIR_OPEN_TRUNCATE, &file));
    OK(weir_file_pwrite(file, text, strlen(text), 0));
    weir_file_close(file);
}

static void
expect_text(struct weir_fs *fs, const char *path, const char *text)
{
    struct weir_file *file;
    char got[64] = {0};
    size_t len;
    OK(weir_fs_open(fs, path, WEIR_OPEN_READ, &file));
    OK(weir_file_pread(file, got, sizeof got - 1, 0, &len));
    cr_expect_eq(len, strlen(text));
    cr_expect_str_eq(got, text);
    weir_file_close(file);
}

/* Every promise is tested on both. */
#define BOTH(name)                        \
    static void name(struct weir_fs *fs); \
    Test(fs, name##_on_the_machine)       \
    {                                     \
        struct disk disk;                 \
        disk_open(&disk, false);          \
        name(disk.fs);                    \
        disk_close(&disk);                \
    }                                     \
    Test(fs, name##_in_memory)            \
    {                                     \
        struct disk disk;                 \
        disk_open(&disk, true);           \
        name(disk.fs);                    \
        disk_close(&disk);                \
    }                                     \
    static void name(struct weir_fs *fs)

/* The flags of open mean what they say. */
BOTH(opens_as_told)
{
    struct weir_file *file;
    uint64_t size;
    cr_expect_eq(weir_fs_open(fs, "a", WEIR_OPEN_WRITE, &file), WEIR_NOT_FOUND);
    put(fs, "a", "hello");
    cr_expect_eq(
        weir_fs_open(fs, "a", WEIR_OPEN_WRITE | WEIR_OPEN_CREATE | WEIR_OPEN_EXCLUSIVE, &file),
        WEIR_EXISTS);
    OK(weir_fs_open(fs, "a", WEIR_OPEN_WRITE | WEIR_OPEN_CREATE, &file));
    OK(weir_file_size(file, &size));
    cr_expect_eq(size, 5);
    weir_file_close(file);
    OK(weir_fs_open(fs, "a", WEIR_OPEN_WRITE | WEIR_OPEN_TRUNCATE, &file));
    OK(weir_file_size(file, &size));
    cr_expect_eq(size, 0);
    weir_file_close(file);
    OK(weir_fs_open(fs, "a", WEIR_OPEN_READ, &file));
    cr_expect_neq(weir_file_pwrite(file, "x", 1, 0), WEIR_OK);
    weir_file_close(file);
    weir_file_close(NULL);
}

/* No path leads out of the directory. */
BOTH(keeps_paths_inside)
{
    struct weir_file *file;
    static const char *const bad[] = {"/etc/passwd", "..", "../x", "a/../../x", "a/.."};
    OK(weir_fs_mkdir(fs, "a"));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cr_expect_eq(weir_fs_open(fs, bad[i], WEIR_OPEN_READ, &file), WEIR_INVALID, "%s", bad[i]);
        cr_expect_eq(weir_fs_remove(fs, bad[i]), WEIR_INVALID, "%s", bad[i]);
        cr_expect_eq(weir_fs_mkdir(fs, bad[i]), WEIR_INVALID, "%s", bad[i]);
    }
    put(fs, "a/..b", "x");
    expect_text(fs, "a/..b", "x");
}

/* A read gives what is there and says where the file ends; what was never written is zero. */
BOTH(reads_up_to_the_end)
{
    struct weir_file *file;
    char buf[16];
    size_t len;
    OK(weir_fs_open(fs, "a", WEIR_OPEN_WRITE | WEIR_OPEN_CREATE, &file));
    OK(weir_file_pwrite(file, "end", 3, 100000));
    OK(weir_file_pread(file, buf, sizeof buf, 99998, &len));
    cr_expect_eq(len, 5);
    cr_expect_arr_eq(buf, "\0\0end", 5);
    OK(weir_file_pread(file, buf, sizeof buf, 100003, &len));
    cr_expect_eq(len, 0);
    OK(weir_file_pread(file, buf, sizeof buf, 1u << 30, &len));
    cr_expect_eq(len, 0);
    OK(weir_file_pread_all(file, buf, 3, 100000));
    cr_expect_eq(weir_file_pread_all(file, buf, 4, 100000), WEIR_END);
    weir_file_close(file);
}

/* Any number of pieces is written, in order, empty ones among them. */
BOTH(writes_any_number_of_pieces)
{
    enum { PIECES = 3 * IOV_MAX + 7 };
    struct weir_file *file;
    struct iovec *iov = calloc(PIECES, sizeof *iov);
    uint8_t *bytes = malloc(PIECES * 5), *back = malloc(PIECES * 5);
    size_t total = 0;
    for (int i = 0; i < PIECES; i++) {
        size_t len = (size_t)i % 6;
        if (len > 4)
            len = 0;
        iov[i] = (struct iovec){bytes + total, len};
        for (size_t k = 0; k < len; k++)
            bytes[total++] = (uint8_t)(i * 7 + (int)k);
    }
    OK(weir_fs_open(fs, "a", WEIR_OPEN_WRITE | WEIR_OPEN_CREATE, &file));
    OK(weir_file_pwritev(file, iov, PIECES, 3));
    OK(weir_file_pread_all(file, back, total, 3));
    cr_expect_arr_eq(bytes, back, total);
    OK(weir_file_pwritev(file, iov, 0, 3));
    OK(weir_file_pwrite(file, "", 0, 1u << 20));
    uint64_t size;
    OK(weir_file_size(file, &size));
    cr_expect_eq(size, total + 3);
    OK(weir_file_datasync(file));
    weir_file_close(file);
    free(iov);
    free(bytes);
    free(back);
}

/* Truncating cuts and, upwards, fills with zeros; cut bytes do not come back. */
BOTH(truncates_both_ways)
{
    struct weir_file *file;
    char buf[8];
    put(fs, "a", "abcdefgh");
    OK(weir_fs_open(fs, "a", WEIR_OPEN_WRITE, &file));
    OK(weir_file_truncate(file, 3));
    OK(weir_file_truncate(file, 8));
    OK(weir_file_pread_all(file, buf, 8, 0));
    cr_expect_arr_eq(buf, "abc\0\0\0\0\0", 8);
    weir_file_advise(file, 0, 8, POSIX_FADV_DONTNEED);
    weir_file_close(file);
}

/* A rename replaces its target, and an open file stays what it was. */
BOTH(renames_over_a_file)
{
    struct weir_file *old;
    char byte;
    put(fs, "new", "n");
    put(fs, "name", "o");
    OK(weir_fs_open(fs, "name", WEIR_OPEN_READ, &old));
    OK(weir_fs_rename(fs, "new", "name"));
    expect_text(fs, "name", "n");
    OK(weir_file_pread_all(old, &byte, 1, 0));
    cr_expect_eq(byte, 'o');
    weir_file_close(old);
    cr_expect_eq(weir_fs_rename(fs, "new", "name"), WEIR_NOT_FOUND);
    OK(weir_fs_sync_directory(fs, ""));
}

static void
collect(void *arg, const struct weir_fs_entry *entry)
{
    char *text = arg;
    size_t len = strlen(text);
    snprintf(text + len, 256 - len, "%s%s ", entry->name, entry->is_directory ? "/" : "");
}

/* Directories are made once, listed without dots, and removed when empty. */
BOTH(keeps_directories)
{
    char names[256] = "";
    OK(weir_fs_mkdir(fs, "d"));
    OK(weir_fs_mkdir(fs, "d"));
    OK(weir_fs_mkdir(fs, ""));
    put(fs, "d/f", "x");
    put(fs, "g", "x");
    cr_expect_eq(weir_fs_mkdir(fs, "g"), WEIR_EXISTS);
    cr_expect_eq(weir_fs_mkdir(fs, "no/where"), WEIR_NOT_FOUND);
    OK(weir_fs_list(fs, "", collect, names));
    cr_expect(strstr(names, "d/ ") && strstr(names, "g ") && strlen(names) == 5, "%s", names);
    names[0] = '\0';
    OK(weir_fs_list(fs, "d", collect, names));
    cr_expect_str_eq(names, "f ");
    cr_expect_eq(weir_fs_list(fs, "none", collect, names), WEIR_NOT_FOUND);
    cr_expect_eq(weir_fs_remove(fs, "d"), WEIR_EXISTS);
    OK(weir_fs_remove(fs, "d/f"));
    OK(weir_fs_sync_directory(fs, "d"));
    OK(weir_fs_remove(fs, "d"));
    cr_expect_eq(weir_fs_remove(fs, "d"), WEIR_NOT_FOUND);
    cr_expect_eq(weir_fs_sync_directory(fs, "d"), WEIR_NOT_FOUND);
}

/* A lock is held by one, who is named, until it is closed. */
BOTH(locks_once)
{
    struct weir_file *lock, *second = NULL;
    int64_t holder = -1;
    OK(weir_fs_lock(fs, "lock", &lock, &holder));
    cr_expect_eq(weir_fs_lock(fs, "lock", &second, &holder), WEIR_BUSY);
    cr_expect_eq(holder, getpid());
    cr_expect_null(second);
    weir_file_close(lock);
    OK(weir_fs_lock(fs, "lock", &lock, &holder));
    weir_file_close(lock);
}

/* Usage counts what lies below; there is some space. */
BOTH(counts_usage)
{
    struct weir_file *file;
    uint64_t before, after, space;
    uint8_t *bytes = malloc(1u << 20);
    memset(bytes, 1, 1u << 20);
    OK(weir_fs_mkdir(fs, "d"));
    OK(weir_fs_usage(fs, "", &before));
    OK(weir_fs_open(fs, "d/a", WEIR_OPEN_WRITE | WEIR_OPEN_CREATE, &file));
    OK(weir_file_pwrite(file, bytes, 1u << 20, 0));
    OK(weir_file_datasync(file));
    weir_file_close(file);
    OK(weir_fs_usage(fs, "", &after));
    cr_expect_geq(after - before, 1u << 20);
    OK(weir_fs_usage(fs, "d/a", &after));
    cr_expect_geq(after, 1u << 20);
    cr_expect_eq(weir_fs_usage(fs, "none", &after), WEIR_NOT_FOUND);
    OK(weir_fs_space(fs, &space));
    cr_expect_gt(space, 0);
    free(bytes);
}

/* A second opening of the same directory meets the lock as well, and a directory that cannot be
 * made says why. */
Test(fs, another_file_system_meets_the_lock)
{
    struct disk disk;
    struct weir_fs *other, *none;
    struct weir_file *lock, *second;
    struct weir_error err = {0};
    int64_t holder = 0;
    disk_open(&disk, false);
    OK(weir_fs_posix(disk.directory, &other, &err));
    OK(weir_fs_lock(disk.fs, "lock", &lock, &holder));
    cr_expect_eq(weir_fs_lock(other, "lock", &second, &holder), WEIR_BUSY);
    cr_expect_eq(holder, getpid());
    weir_file_close(lock);
    weir_fs_posix_free(other);
    disk_close(&disk);
    cr_expect_eq(weir_fs_posix("/nonexistent/weir/data", &none, &err), WEIR_NOT_FOUND);
    cr_expect_str_eq(err.text, "cannot make directory '/nonexistent/weir/data': not found");
}
