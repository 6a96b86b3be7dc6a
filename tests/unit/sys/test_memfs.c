#include "sys/memfs.h"
#include <criterion/criterion.h>
#include <stdlib.h>

#define OK(call) cr_assert_eq((call), WEIR_OK, "%s", #call)

static void
write_at(struct weir_file *file, uint64_t off, char byte, size_t len)
{
    char *bytes = malloc(len);
    memset(bytes, byte, len);
    OK(weir_file_pwrite(file, bytes, len, off));
    free(bytes);
}

/* A file of `len` times `byte`, durable with its name. */
static struct weir_file *
make(struct weir_memfs *m, const char *path, char byte, size_t len)
{
    struct weir_file *file;
    OK(weir_fs_open(weir_memfs_fs(m), path, WEIR_OPEN_WRITE | WEIR_OPEN_CREATE, &file));
    write_at(file, 0, byte, len);
    OK(weir_file_datasync(file));
    OK(weir_fs_sync_directory(weir_memfs_fs(m), ""));
    return file;
}

static char
byte_at(struct weir_memfs *m, const char *path, uint64_t off)
{
    uint8_t byte;
    OK(weir_memfs_copy(m, path, &byte, 1, off));
    return (char)byte;
}

static bool
is_there(struct weir_memfs *m, const char *path)
{
    uint64_t size;
    return weir_memfs_size(m, path, &size) == WEIR_OK;
}

/* A cut that keeps what was synced keeps exactly that: bytes, length and names. */
Test(memfs, a_cut_takes_what_was_not_synced)
{
    struct weir_memfs *m = weir_memfs_new();
    struct weir_fs *fs = weir_memfs_fs(m);
    struct weir_file *a = make(m, "a", 'a', 50000), *b;
    uint64_t size;
    write_at(a, 10, 'x', 20);
    write_at(a, 60000, 'x', 20);
    OK(weir_fs_open(fs, "b", WEIR_OPEN_WRITE | WEIR_OPEN_CREATE, &b));
    write_at(b, 0, 'b', 10);
    OK(weir_file_datasync(b));
    weir_memfs_power_cut(m, WEIR_MEMFS_KEEP_SYNCED, 0);
    OK(weir_memfs_size(m, "a", &size));
    cr_expect_eq(size, 50000);
    for (uint64_t off = 0; off < size; off += 5)
        cr_assert_eq(byte_at(m, "a", off), 'a');
    cr_expect_not(is_there(m, "b"));
    weir_file_close(a);
    weir_file_close(b);
    weir_memfs_free(m);
}

/* A cut that keeps all loses nothing, and what it kept is durable from then on. */
Test(memfs, a_cut_may_keep_all)
{
    struct weir_memfs *m = weir_memfs_new();
    struct weir_file *a = make(m, "a", 'a', 1000);
    write_at(a, 0, 'x', 2000);
    weir_memfs_power_cut(m, WEIR_MEMFS_KEEP_ALL, 0);
    weir_memfs_power_cut(m, WEIR_MEMFS_KEEP_SYNCED, 0);
    cr_expect_eq(byte_at(m, "a", 1999), 'x');
    weir_file_close(a);
    weir_memfs_free(m);
}

/* A file that was open when the power went is dead; its lock is free. */
Test(memfs, open_files_die_with_the_power)
{
    struct weir_memfs *m = weir_memfs_new();
    struct weir_fs *fs = weir_memfs_fs(m);
    struct weir_file *a = make(m, "a", 'a', 10), *lock, *again;
    int64_t holder;
    char byte;
    size_t len;
    uint64_t size;
    OK(weir_fs_lock(fs, "lock", &lock, &holder));
    weir_memfs_power_cut(m, WEIR_MEMFS_KEEP_ALL, 0);
    cr_expect_eq(weir_file_pread(a, &byte, 1, 0, &len), WEIR_IO);
    cr_expect_eq(weir_file_pwrite(a, "x", 1, 0), WEIR_IO);
    cr_expect_eq(weir_file_datasync(a), WEIR_IO);
    cr_expect_eq(weir_file_truncate(a, 0), WEIR_IO);
    cr_expect_eq(weir_file_size(a, &size), WEIR_IO);
    OK(weir_fs_lock(fs, "lock", &again, &holder));
    weir_file_close(lock);
    cr_expect_eq(weir_fs_lock(fs, "lock", &lock, &holder), WEIR_BUSY);
    weir_file_close(again);
    weir_file_close(a);
    weir_memfs_free(m);
}

/* Between them, seeds tear a write in every way: each sector old or new, never a mixture within
 * one, never anything else; and synced bytes stand. */
Test(memfs, a_cut_tears_writes_by_sectors)
{
    enum { SECTORS = 4 };
    bool seen[1 << SECTORS] = {0};
    struct weir_memfs *m = weir_memfs_new();
    struct weir_file *a = make(m, "a", 'a', 512 * (SECTORS + 2));
    write_at(a, 512, 'b', 512 * SECTORS);
    for (uint64_t seed = 0; seed < 2000; seed++) {
        struct weir_memfs *after = weir_memfs_fork(m, WEIR_MEMFS_KEEP_SOME, seed);
        unsigned pattern = 0;
        for (uint64_t sector = 0; sector < SECTORS + 2; sector++) {
            char first = byte_at(after, "a", sector * 512);
            cr_assert(first == 'a' || first == 'b', "seed %lu", seed);
            for (uint64_t off = 0; off < 512; off += 73)
                cr_assert_eq(byte_at(after, "a", sector * 512 + off), first, "seed %lu", seed);
            if (sector == 0 || sector == SECTORS + 1)
                cr_assert_eq(first, 'a', "seed %lu", seed);
            else if (first == 'b')
                pattern |= 1u << (sector - 1);
        }
        seen[pattern] = true;
        weir_memfs_free(after);
    }
    for (unsigned pattern = 0; pattern < 1 << SECTORS; pattern++)
        cr_expect(seen[pattern], "pattern %u", pattern);
    cr_expect_eq(byte_at(m, "a", 512), 'b');
    weir_file_close(a);
    weir_memfs_free(m);
}

/* The same seed gives the same disk. */
Test(memfs, a_seed_repeats_its_cut)
{
    struct weir_memfs *m = weir_memfs_new();
    struct weir_file *a = make(m, "a", 'a', 100000);
    for (int i = 0; i < 20; i++)
        write_at(a, (uint64_t)i * 7000, (char)('b' + i), 9000);
    for (uint64_t seed = 0; seed < 20; seed++) {
        struct weir_memfs *one = weir_memfs_fork(m, WEIR_MEMFS_KEEP_SOME, seed);
        struct weir_memfs *two = weir_memfs_fork(m, WEIR_MEMFS_KEEP_SOME, seed);
        uint64_t size, other;
        OK(weir_memfs_size(one, "a", &size));
        OK(weir_memfs_size(two, "a", &other));
        cr_assert_eq(size, other);
        for (uint64_t off = 0; off < size; off += 101)
            cr_assert_eq(byte_at(one, "a", off), byte_at(two, "a", off));
        weir_memfs_free(one);
        weir_memfs_free(two);
    }
    weir_file_close(a);
    weir_memfs_free(m);
}

/* What is written to a fork does not show in the original, and the other way round. */
Test(memfs, a_fork_stands_alone)
{
    struct weir_memfs *m = weir_memfs_new();
    struct weir_file *a = make(m, "a", 'a', 40000), *forked;
    struct weir_memfs *fork = weir_memfs_fork(m, WEIR_MEMFS_KEEP_ALL, 0);
    OK(weir_fs_open(weir_memfs_fs(fork), "a", WEIR_OPEN_WRITE, &forked));
    write_at(forked, 0, 'f', 100);
    write_at(a, 20000, 'o', 100);
    cr_expect_eq(byte_at(m, "a", 0), 'a');
    cr_expect_eq(byte_at(fork, "a", 0), 'f');
    cr_expect_eq(byte_at(fork, "a", 20000), 'a');
    weir_file_close(forked);
    weir_memfs_free(fork);
    cr_expect_eq(byte_at(m, "a", 20000), 'o');
    weir_file_close(a);
    weir_memfs_free(m);
}

/* Write to a new name, sync, rename: after any cut the name has the old file or the new one, whole.
 */
Test(memfs, a_rename_is_whole_after_any_cut)
{
    struct weir_memfs *m = weir_memfs_new();
    struct weir_fs *fs = weir_memfs_fs(m);
    struct weir_file *old = make(m, "name", 'o', 3000), *new;
    OK(weir_fs_open(fs, "name.new", WEIR_OPEN_WRITE | WEIR_OPEN_CREATE, &new));
    write_at(new, 0, 'n', 3000);
    OK(weir_file_datasync(new));
    OK(weir_fs_rename(fs, "name.new", "name"));
    unsigned olds = 0, news = 0;
    for (uint64_t seed = 0; seed < 200; seed++) {
        struct weir_memfs *after = weir_memfs_fork(m, WEIR_MEMFS_KEEP_SOME, seed);
        char first = byte_at(after, "name", 0);
        cr_assert_eq(byte_at(after, "name", 2999), first, "seed %lu", seed);
        cr_assert(first != 'n' || !is_there(after, "name.new"), "seed %lu", seed);
        olds += first == 'o';
        news += first == 'n';
        weir_memfs_free(after);
    }
    cr_expect_gt(olds, 0u);
    cr_expect_gt(news, 0u);
    cr_expect_eq(olds + news, 200u);
    OK(weir_fs_sync_directory(fs, ""));
    weir_memfs_power_cut(m, WEIR_MEMFS_KEEP_SYNCED, 0);
    cr_expect_eq(byte_at(m, "name", 0), 'n');
    weir_file_close(old);
    weir_file_close(new);
    weir_memfs_free(m);
}

/* A removed file is back after a cut, unless its directory was synced. */
Test(memfs, a_removal_is_durable_after_sync_directory)
{
    struct weir_memfs *m = weir_memfs_new();
    weir_file_close(make(m, "a", 'a', 10));
    OK(weir_fs_remove(weir_memfs_fs(m), "a"));
    cr_expect_not(is_there(m, "a"));
    struct weir_memfs *after = weir_memfs_fork(m, WEIR_MEMFS_KEEP_SYNCED, 0);
    cr_expect(is_there(after, "a"));
    weir_memfs_free(after);
    OK(weir_fs_sync_directory(weir_memfs_fs(m), ""));
    after = weir_memfs_fork(m, WEIR_MEMFS_KEEP_SYNCED, 0);
    cr_expect_not(is_there(after, "a"));
    weir_memfs_free(after);
    weir_memfs_free(m);
}

/* A directory that was not synced into its parent takes its files with it. */
Test(memfs, a_lost_directory_loses_its_files)
{
    struct weir_memfs *m = weir_memfs_new();
    struct weir_fs *fs = weir_memfs_fs(m);
    struct weir_file *file;
    OK(weir_fs_mkdir(fs, "d"));
    OK(weir_fs_open(fs, "d/f", WEIR_OPEN_WRITE | WEIR_OPEN_CREATE, &file));
    write_at(file, 0, 'f', 10);
    OK(weir_file_datasync(file));
    weir_file_close(file);
    OK(weir_fs_sync_directory(fs, "d"));
    struct weir_memfs *after = weir_memfs_fork(m, WEIR_MEMFS_KEEP_SYNCED, 0);
    cr_expect_not(is_there(after, "d/f"));
    weir_memfs_free(after);
    OK(weir_fs_sync_directory(fs, ""));
    after = weir_memfs_fork(m, WEIR_MEMFS_KEEP_SYNCED, 0);
    cr_expect(is_there(after, "d/f"));
    weir_memfs_free(after);
    weir_memfs_free(m);
}

/* After a failed sync, a later one that succeeds does not make the lost bytes durable. */
Test(memfs, a_failed_sync_is_not_mended_by_the_next)
{
    struct weir_memfs *m = weir_memfs_new();
    struct weir_file *a = make(m, "a", 'a', 100);
    write_at(a, 0, 'x', 10);
    weir_memfs_fail_nth(m, WEIR_MEMFS_SYNC, 1, WEIR_IO, false);
    cr_expect_eq(weir_file_datasync(a), WEIR_IO);
    write_at(a, 50, 'y', 10);
    OK(weir_file_datasync(a));
    cr_expect_eq(byte_at(m, "a", 0), 'x');
    weir_memfs_power_cut(m, WEIR_MEMFS_KEEP_SYNCED, 0);
    cr_expect_eq(byte_at(m, "a", 0), 'a');
    cr_expect_eq(byte_at(m, "a", 50), 'y');
    weir_file_close(a);
    weir_memfs_free(m);
}

/* The n-th call of a kind fails as planned, once or from then on; a failed write leaves a front. */
Test(memfs, faults_come_by_number)
{
    struct weir_memfs *m = weir_memfs_new();
    struct weir_fs *fs = weir_memfs_fs(m);
    struct weir_file *a = make(m, "a", 'a', 10), *b;
    char byte;
    size_t len;
    uint64_t size;
    weir_memfs_fail_nth(m, WEIR_MEMFS_WRITE, 2, WEIR_NO_SPACE, false);
    write_at(a, 10, 'b', 10);
    cr_expect_eq(weir_file_pwrite(a, "0123456789", 10, 20), WEIR_NO_SPACE);
    OK(weir_file_size(a, &size));
    cr_expect(size >= 20 && size <= 30);
    write_at(a, 20, 'c', 10);

    weir_memfs_fail_nth(m, WEIR_MEMFS_READ, 1, WEIR_IO, true);
    cr_expect_eq(weir_file_pread(a, &byte, 1, 0, &len), WEIR_IO);
    cr_expect_eq(weir_file_pread(a, &byte, 1, 0, &len), WEIR_IO);
    weir_memfs_fail_clear(m);
    OK(weir_file_pread(a, &byte, 1, 0, &len));

    weir_memfs_fail_nth(m, WEIR_MEMFS_ANY, 2, WEIR_NO_MEMORY, false);
    OK(weir_file_truncate(a, 5));
    cr_expect_eq(weir_fs_open(fs, "b", WEIR_OPEN_WRITE | WEIR_OPEN_CREATE, &b), WEIR_NO_MEMORY);
    cr_expect_not(is_there(m, "b"));
    cr_expect_eq(weir_memfs_calls(m, WEIR_MEMFS_WRITE), 4);
    cr_expect_eq(weir_memfs_calls(m, WEIR_MEMFS_READ), 3);
    weir_file_close(a);
    weir_memfs_free(m);
}

/* A full disk takes what fits, refuses the rest, and is free again when something goes. */
Test(memfs, a_full_disk_refuses_and_recovers)
{
    struct weir_memfs *m = weir_memfs_new();
    struct weir_fs *fs = weir_memfs_fs(m);
    struct weir_file *a = make(m, "a", 'a', 600), *b = make(m, "b", 'b', 300);
    char bytes[200] = {1};
    uint64_t size, space;
    weir_memfs_set_capacity(m, 1000);
    cr_expect_eq(weir_file_pwrite(b, bytes, 200, 300), WEIR_NO_SPACE);
    OK(weir_memfs_size(m, "b", &size));
    cr_expect_eq(size, 400);
    OK(weir_file_pwrite(b, bytes, 200, 0));
    OK(weir_fs_space(fs, &space));
    cr_expect_eq(space, 0);
    OK(weir_fs_remove(fs, "a"));
    OK(weir_file_pwrite(b, bytes, 200, 400));
    OK(weir_file_truncate(b, 0));
    OK(weir_fs_space(fs, &space));
    cr_expect_eq(space, 1000);
    weir_file_close(a);
    weir_file_close(b);
    weir_memfs_free(m);
}

/* The test's own hand on the disk: it changes what is synced too. */
Test(memfs, a_test_can_damage_the_disk)
{
    struct weir_memfs *m = weir_memfs_new();
    weir_file_close(make(m, "a", 'a', 100));
    uint64_t size;
    OK(weir_memfs_flip(m, "a", 50, 1));
    cr_expect_eq(weir_memfs_flip(m, "a", 100, 1), WEIR_INVALID);
    cr_expect_eq(weir_memfs_flip(m, "b", 0, 1), WEIR_NOT_FOUND);
    OK(weir_memfs_truncate(m, "a", 60));
    weir_memfs_power_cut(m, WEIR_MEMFS_KEEP_SYNCED, 0);
    OK(weir_memfs_size(m, "a", &size));
    cr_expect_eq(size, 60);
    cr_expect_eq(byte_at(m, "a", 50), 'a' ^ 1);
    weir_memfs_free(m);
}

/* Against ten naive lines: any writes, truncations, syncs and cuts. */
Test(memfs, agrees_with_two_arrays)
{
    enum { SIZE = 70000 };
    static uint8_t now[SIZE], synced[SIZE], back[SIZE];
    uint64_t now_size = 0, synced_size = 0, seed, size;
    weir_random_bytes(&seed, sizeof seed);
    struct weir_random r;
    weir_random_init(&r, seed);
    struct weir_memfs *m = weir_memfs_new();
    struct weir_file *a = make(m, "a", 'a', 0);
    for (int round = 0; round < 1500; round++) {
        uint64_t off = weir_random_below(&r, SIZE), len = weir_random_below(&r, SIZE - off) / 4;
        switch (weir_random_below(&r, 8)) {
        case 0:
            OK(weir_file_truncate(a, off));
            if (off < now_size)
                memset(now + off, 0, now_size - off);
            now_size = off;
            break;
        case 1:
            OK(weir_file_datasync(a));
            memcpy(synced, now, SIZE);
            synced_size = now_size;
            break;
        case 2:
            weir_memfs_power_cut(m, WEIR_MEMFS_KEEP_SYNCED, 0);
            weir_file_close(a);
            OK(weir_fs_open(weir_memfs_fs(m), "a", WEIR_OPEN_WRITE, &a));
            memcpy(now, synced, SIZE);
            now_size = synced_size;
            break;
        default:
            write_at(a, off, (char)round, len);
            memset(now + off, (char)round, len);
            if (len && off + len > now_size)
                now_size = off + len;
        }
        OK(weir_memfs_size(m, "a", &size));
        cr_assert_eq(size, now_size, "seed %lu round %d", seed, round);
        OK(weir_memfs_copy(m, "a", back, size, 0));
        cr_assert(memcmp(back, now, size) == 0, "seed %lu round %d", seed, round);
    }
    weir_file_close(a);
    weir_memfs_free(m);
}
