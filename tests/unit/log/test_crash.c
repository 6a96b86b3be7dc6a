/* What a disk can do to a log: stop a write at any byte, keep any sectors of it, change bits, say
 * no. Acknowledged means there afterwards. */
#include "rig.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static struct rig_book books[3];

static void
books_init(void)
{
    for (uint64_t i = 0; i < 3; i++)
        books[i] = (struct rig_book){.shard = 10 + i};
}

static void
add_shards(struct rig *r)
{
    for (uint64_t i = 0; i < 3; i++) {
        enum weir_status st = weir_log_shard_add(r->log, 1, 10 + i, 0, 0);
        cr_assert(st == WEIR_OK || st == WEIR_EXISTS);
    }
}

static void
check_all(struct rig *r, const char *what)
{
    for (int i = 0; i < 3; i++)
        rig_check(r, &books[i], what);
}

/* Puts `rounds` batches into each shard. */
static void
put_all(struct rig *r, int rounds, size_t size)
{
    for (int n = 0; n < rounds; n++)
        for (int i = 0; i < 3; i++)
            (void)!rig_book_put(r, &books[i], size);
}

/* Where the groups of the only segment end: the file's size, as nothing is written ahead. */
static uint64_t
file_end(struct rig *r, unsigned segment)
{
    char path[64];
    uint64_t size;
    OK(weir_memfs_size(r->disk, rig_segment(segment, path), &size));
    return size;
}

/* A copy of the disk that the test may spoil, and the original back afterwards. */
static struct weir_memfs *
lend(struct rig *r)
{
    struct weir_memfs *original = r->disk;
    r->disk = weir_memfs_fork(original, WEIR_MEMFS_KEEP_ALL, 0);
    return original;
}

static void
give_back(struct rig *r, struct weir_memfs *original)
{
    rig_close(r);
    weir_memfs_free(r->disk);
    r->disk = original;
}

/* A crash can stop a write at any byte, and leave zeros or nothing behind it. Wherever it stops,
 * what was acknowledged before it is there, and the next append takes the number of the torn one.
 */
Test(crash, survives_a_torn_write_at_every_byte)
{
    struct rig r;
    char path[64], what[64];
    static uint8_t zeros[4096];
    uint64_t offset;
    rig_segment(1, path);
    books_init();
    rig_init(&r);
    rig_open(&r);
    add_shards(&r);
    put_all(&r, 2, 300);
    uint64_t whole = file_end(&r, 1);
    struct rig_append last[3];
    for (uint64_t i = 0; i < 3; i++)
        OK(rig_send(&r, &last[i], 10 + i, 2, 1, 300));
    rig_step(&r);
    uint64_t end = file_end(&r, 1);
    cr_assert(end > whole + 512 && end - whole < sizeof zeros);

    /* The machine stops here, so there is no orderly end behind the last group. */
    struct weir_memfs *stopped = weir_memfs_fork(r.disk, WEIR_MEMFS_KEEP_ALL, 0);
    rig_close(&r);
    weir_memfs_free(r.disk);
    r.disk = stopped;
    for (uint64_t cut = end - 1; cut >= whole; cut--) {
        for (int with_zeros = 0; with_zeros < 2; with_zeros++) {
            snprintf(what, sizeof what, "cut at byte %" PRIu64 "%s", cut,
                     with_zeros ? ", zeros" : "");
            struct weir_memfs *original = lend(&r);
            if (with_zeros)
                rig_overwrite(&r, path, cut, zeros, end - cut);
            else
                OK(weir_memfs_truncate(r.disk, path, cut));
            rig_open(&r);
            cr_assert(r.report.damaged_count == 0, "%s is no damage", what);
            add_shards(&r);
            struct weir_log_shard s;
            OK(weir_log_shard_get(r.log, 10, &s));
            /* Only padding was lost when all three are there. */
            uint64_t next = s.next;
            cr_assert(next == 2 || next == 3, "%s", what);
            for (uint64_t i = 0; i < 3; i++) {
                OK(rig_put(&r, 10 + i, next, 1, 300, &offset));
                cr_assert(offset == next, "%s", what);
                EXPECT_SHARD(&r, 10 + i, 0, 0, next + 1);
            }
            give_back(&r, original);
        }
    }
    rig_fini(&r);
}

/* Of an unsynced write a disk keeps any sectors. */
Test(crash, survives_any_sectors_of_the_last_write)
{
    for (uint64_t seed = 1; seed <= 300; seed++) {
        struct rig r;
        char what[64];
        snprintf(what, sizeof what, "seed %" PRIu64, seed);
        books_init();
        rig_init(&r);
        rig_open(&r);
        add_shards(&r);
        put_all(&r, 2, 700);
        /* The write goes through, its sync does not, nor anything after it. */
        uint64_t calls = weir_memfs_calls(r.disk, WEIR_MEMFS_ANY);
        weir_memfs_fail_nth(r.disk, WEIR_MEMFS_ANY, 2, WEIR_IO, true);
        struct rig_append last[3];
        for (uint64_t i = 0; i < 3; i++) {
            OK(rig_send(&r, &last[i], 10 + i, 2, 1, 700));
            books[i].count = 3;
            books[i].st[2] = WEIR_UNKNOWN;
        }
        rig_step(&r);
        cr_assert(weir_memfs_calls(r.disk, WEIR_MEMFS_ANY) > calls + 1);
        for (int i = 0; i < 3; i++)
            cr_assert(last[i].done && last[i].st == WEIR_UNKNOWN, "%s", what);
        rig_crash(&r, WEIR_MEMFS_KEEP_SOME, seed);
        rig_open(&r);
        cr_assert(r.report.damaged_count == 0, "%s", what);
        add_shards(&r);
        check_all(&r, what);
        put_all(&r, 2, 700);
        check_all(&r, what);
        rig_crash(&r, WEIR_MEMFS_KEEP_SOME, seed + 1000);
        rig_open(&r);
        cr_assert(r.report.damaged_count == 0, "%s", what);
        check_all(&r, what);
        rig_fini(&r);
    }
}

/* After a failed sync the batch is not there, not even when the disk kept it, and nothing is
 * written behind it; the log goes on in a new segment by itself. */
Test(crash, a_failed_sync_poisons_its_segment)
{
    struct rig r;
    struct weir_log_stat stat;
    static struct weir_run run;
    books_init();
    rig_init(&r);
    rig_open(&r);
    add_shards(&r);
    put_all(&r, 3, 300);
    uint64_t end = file_end(&r, 1);
    weir_memfs_fail_nth(r.disk, WEIR_MEMFS_SYNC, 1, WEIR_IO, false);
    IS(rig_book_put(&r, &books[0], 300), WEIR_IO);
    cr_expect(r.health == WEIR_OK && r.healths == 0, "it went on at once");
    weir_log_get_stat(r.log, &stat);
    cr_expect(stat.failed_groups == 1 && stat.segments == 2);
    IS(rig_read(&r, 10, 3, 1, &run), WEIR_END);
    put_all(&r, 3, 300);
    check_all(&r, "after the failure");
    cr_expect(end < file_end(&r, 1));
    rig_crash(&r, WEIR_MEMFS_KEEP_ALL, 1);
    rig_open(&r);
    cr_expect(r.report.damaged_count == 0 && r.report.torn_bytes == 0);
    check_all(&r, "after a restart");
    rig_fini(&r);
}

/* What is queued behind a failed group fails with it; numbers and producers go back with it. */
Test(crash, a_failed_group_takes_the_queue_with_it)
{
    struct rig r;
    struct rig_append a[4];
    uint64_t offset;
    rig_init(&r);
    r.config.group_bytes_max = 64 * WEIR_KIB;
    rig_open(&r);
    OK(weir_log_shard_add(r.log, 1, 10, 0, 0));
    OK(rig_put_as(&r, 10, 0, 42, 1, NULL));
    weir_memfs_fail_nth(r.disk, WEIR_MEMFS_WRITE, 1, WEIR_IO, false);
    for (uint64_t i = 0; i < 4; i++)
        OK(rig_send_as(&r, &a[i], 10, 1 + i, 1, 40000, 42, 2 + (i < 3 ? i : 1)));
    rig_step(&r);
    for (int i = 0; i < 4; i++)
        cr_expect(a[i].done && a[i].st == WEIR_IO, "%d: %s", i, weir_status_name(a[i].st));
    OK(rig_put_as(&r, 10, 1, 42, 2, &offset));
    cr_expect(offset == 1);
    OK(rig_put_as(&r, 10, 2, 42, 3, &offset));
    cr_expect(offset == 2);
    IS(rig_put_as(&r, 10, 2, 42, 3, &offset), WEIR_DUPLICATE);
    EXPECT_SHARD(&r, 10, 0, 0, 3);
    rig_fini(&r);
}

/* The disk says no at the n-th call of each kind, once or from then on: everything acknowledged is
 * there, nothing refused is, and writes are taken again without help once the disk is well. */
static void
sweep(enum weir_memfs_call call, enum weir_status st, bool sticky, uint64_t prewrite)
{
    for (uint64_t n = 1; n <= 80; n++) {
        struct rig r;
        char what[96];
        snprintf(what, sizeof what, "call %d number %" PRIu64 " %s%s", (int)call, n,
                 weir_status_name(st), sticky ? " from then on" : "");
        books_init();
        rig_init(&r);
        r.config.prewrite_bytes = prewrite;
        rig_open(&r);
        add_shards(&r);
        uint64_t before = weir_memfs_calls(r.disk, call);
        weir_memfs_fail_nth(r.disk, call, n, st, sticky);
        put_all(&r, 12, 70000);
        rig_pass(&r, 2000);
        put_all(&r, 1, 70000);
        bool reached = weir_memfs_calls(r.disk, call) >= before + n;
        weir_memfs_fail_clear(r.disk);
        rig_pass(&r, 3000);
        cr_assert(r.health == WEIR_OK, "%s", what);
        for (int i = 0; i < 3; i++)
            for (int k = 0; k < 3; k++)
                cr_assert(rig_book_put(&r, &books[i], 100) == WEIR_OK, "%s", what);
        check_all(&r, what);
        rig_crash(&r, WEIR_MEMFS_KEEP_SYNCED, n);
        rig_open(&r);
        cr_assert(r.report.damaged_count == 0, "%s", what);
        check_all(&r, what);
        rig_fini(&r);
        if (!reached)
            break;
    }
}

Test(crash, goes_on_after_write_errors, .timeout = 60)
{
    sweep(WEIR_MEMFS_WRITE, WEIR_IO, false, 0);
    sweep(WEIR_MEMFS_WRITE, WEIR_IO, true, 0);
    sweep(WEIR_MEMFS_WRITE, WEIR_IO, false, 3 * WEIR_MIB);
}

Test(crash, goes_on_after_sync_errors, .timeout = 60)
{
    sweep(WEIR_MEMFS_SYNC, WEIR_IO, false, 0);
    sweep(WEIR_MEMFS_SYNC, WEIR_IO, true, 0);
    sweep(WEIR_MEMFS_SYNC, WEIR_IO, false, 3 * WEIR_MIB);
    sweep(WEIR_MEMFS_SYNC, WEIR_IO, true, 3 * WEIR_MIB);
}

Test(crash, goes_on_after_a_full_disk, .timeout = 60)
{
    sweep(WEIR_MEMFS_WRITE, WEIR_NO_SPACE, false, 0);
    sweep(WEIR_MEMFS_WRITE, WEIR_NO_SPACE, true, 0);
    sweep(WEIR_MEMFS_WRITE, WEIR_NO_SPACE, true, 3 * WEIR_MIB);
}

Test(crash, goes_on_after_errors_with_names, .timeout = 60)
{
    sweep(WEIR_MEMFS_OPEN, WEIR_IO, false, 0);
    sweep(WEIR_MEMFS_OPEN, WEIR_IO, true, 3 * WEIR_MIB);
    sweep(WEIR_MEMFS_SYNC_DIRECTORY, WEIR_IO, false, 0);
    sweep(WEIR_MEMFS_SYNC_DIRECTORY, WEIR_IO, true, 0);
    sweep(WEIR_MEMFS_TRUNCATE, WEIR_IO, false, 0);
    sweep(WEIR_MEMFS_REMOVE, WEIR_IO, true, 0);
}

/* A machine that stops at any call, at the start as well, loses nothing that it acknowledged. */
static void
stop_at_every_call(uint64_t prewrite)
{
    for (uint64_t n = 1; n <= 400; n++) {
        struct rig r;
        char what[64];
        snprintf(what, sizeof what, "stopped at call %" PRIu64, n);
        books_init();
        rig_init(&r);
        r.config.prewrite_bytes = prewrite;
        weir_memfs_fail_nth(r.disk, WEIR_MEMFS_ANY, n, WEIR_IO, true);
        bool opened = rig_try_open(&r) == WEIR_OK;
        if (opened) {
            add_shards(&r);
            put_all(&r, 6, 100000);
        }
        bool reached = weir_memfs_calls(r.disk, WEIR_MEMFS_ANY) >= n;
        rig_crash(&r, WEIR_MEMFS_KEEP_SOME, n);
        /* And once more, while it recovers. */
        weir_memfs_fail_nth(r.disk, WEIR_MEMFS_ANY, 1 + n % 29, WEIR_IO, true);
        if (!rig_try_open(&r))
            rig_step(&r);
        rig_crash(&r, WEIR_MEMFS_KEEP_SOME, n + 7);
        rig_open(&r);
        cr_assert(r.report.damaged_count == 0, "%s", what);
        add_shards(&r);
        check_all(&r, what);
        put_all(&r, 2, 100);
        check_all(&r, what);
        rig_fini(&r);
        if (!reached)
            break;
    }
}

Test(crash, survives_a_stop_at_every_call, .timeout = 60)
{
    stop_at_every_call(0);
}

Test(crash, survives_a_stop_at_every_call_with_a_filler, .timeout = 60)
{
    stop_at_every_call(2 * WEIR_MIB);
}

/* Full disk: writes are refused as retryable, reads go on, and space brings writes back by itself.
 */
Test(crash, a_full_disk_stops_writes_only)
{
    struct rig r;
    books_init();
    rig_init(&r);
    r.config.prewrite_bytes = 4 * WEIR_MIB;
    rig_open(&r);
    add_shards(&r);
    weir_memfs_set_capacity(r.disk, 8 * WEIR_MIB);
    enum weir_status st = WEIR_OK;
    for (int n = 0; n < 400 && st != WEIR_NO_SPACE; n++)
        st = rig_book_put(&r, &books[n % 3], 50000);
    cr_assert(st == WEIR_NO_SPACE);
    cr_expect(r.health == WEIR_NO_SPACE);
    IS(rig_book_put(&r, &books[0], 10), WEIR_NO_SPACE);
    check_all(&r, "full");
    rig_pass(&r, 3000);
    cr_expect(r.health == WEIR_NO_SPACE);
    weir_memfs_set_capacity(r.disk, 0);
    rig_pass(&r, 2000);
    cr_expect(r.health == WEIR_OK);
    OK(rig_book_put(&r, &books[0], 10));
    check_all(&r, "space again");
    rig_crash(&r, WEIR_MEMFS_KEEP_SYNCED, 1);
    rig_open(&r);
    check_all(&r, "after a restart");
    rig_fini(&r);
}

/* ---- damage ---- */

/* Any one bit of a segment that takes appends can change: nothing wrong is served, what is lost is
 * told, and it is not more than the batch that was hit. */
Test(crash, a_flipped_bit_anywhere_in_the_open_segment, .timeout = 120)
{
    struct rig r;
    char path[64], what[64];
    rig_segment(1, path);
    books_init();
    rig_init(&r);
    rig_open(&r);
    add_shards(&r);
    for (int n = 0; n < 3; n++) {
        struct rig_append a[3];
        for (uint64_t i = 0; i < 3; i++) {
            OK(rig_send(&r, &a[i], 10 + i, books[i].count, 1, 200));
            books[i].st[books[i].count++] = WEIR_OK;
        }
        rig_step(&r);
    }
    rig_close(&r);
    uint64_t end = file_end(&r, 1);
    for (uint64_t at = 0; at < end; at++) {
        snprintf(what, sizeof what, "bit at byte %" PRIu64, at);
        struct weir_memfs *original = lend(&r);
        OK(weir_memfs_flip(r.disk, path, at, (uint8_t)(1u << at % 8)));
        rig_open(&r);
        add_shards(&r);
        uint32_t lost = 0;
        for (int i = 0; i < 3; i++) {
            rig_check_damaged(&r, &books[i], what);
            lost += books[i].lost;
        }
        cr_assert(lost <= 1, "%s: %u lost", what, lost);
        cr_assert(lost == 0 || r.report.damaged_count > 0, "%s: lost and not told", what);
        for (uint64_t i = 0; i < 3; i++) {
            uint64_t offset;
            OK(rig_put(&r, 10 + i, books[i].count, 1, 200, &offset));
            cr_assert(offset == 3, "%s: number %" PRIu64 " given out again", what, offset);
        }
        give_back(&r, original);
    }
    rig_fini(&r);
}

/* The same in a sealed segment: groups, footer and trailer. */
Test(crash, a_flipped_bit_anywhere_in_a_sealed_segment, .timeout = 240)
{
    struct rig r;
    char path[64], what[64];
    struct weir_random random;
    uint64_t seed = 20261128;
    weir_random_init(&random, seed);
    rig_segment(1, path);
    books_init();
    rig_init(&r);
    rig_open(&r);
    add_shards(&r);
    put_all(&r, 14, 30000);
    rig_step(&r);
    rig_close(&r);
    uint64_t end = file_end(&r, 1);
    uint64_t footer = end - 4096;
    for (int n = 0; n < 600; n++) {
        /* Bytes all over the footer, and others by chance. */
        uint64_t at = n < 400 ? end - 1 - (uint64_t)n * 6 : weir_random_below(&random, footer);
        if (n >= 400 && n % 3 == 0)
            at = at / 512 * 512 + weir_random_below(&random, 128); /* likelier in a header */
        snprintf(what, sizeof what, "bit at byte %" PRIu64 " of %" PRIu64, at, end);
        struct weir_memfs *original = lend(&r);
        OK(weir_memfs_flip(r.disk, path, at, (uint8_t)(1u << n % 8)));
        /* With the notes of its footer, and without. */
        if (n % 2)
            OK(weir_fs_remove(weir_memfs_fs(r.disk), "journal/footers"));
        rig_open(&r);
        add_shards(&r);
        uint32_t lost = 0;
        for (int i = 0; i < 3; i++) {
            rig_check_damaged(&r, &books[i], what);
            lost += books[i].lost;
            /* And the same on the second look. */
            rig_check_damaged(&r, &books[i], what);
        }
        cr_assert(lost <= 1, "%s: %u lost", what, lost);
        struct weir_log_stat stat;
        weir_log_get_stat(r.log, &stat);
        cr_assert(lost == 0 || r.report.damaged_count + stat.damaged > 0, "%s", what);
        give_back(&r, original);
    }
    rig_fini(&r);
}

/* The notes of the footers are a copy: whatever becomes of them, nothing is lost. */
Test(crash, notes_can_be_damaged_or_gone)
{
    struct rig r;
    uint64_t size;
    books_init();
    rig_init(&r);
    rig_open(&r);
    add_shards(&r);
    put_all(&r, 60, 30000);
    rig_close(&r);
    OK(weir_memfs_size(r.disk, "journal/footers", &size));
    for (uint64_t at = 0; at <= size; at += at < 1024 ? 7 : 61) {
        char what[64];
        struct weir_memfs *original = lend(&r);
        snprintf(what, sizeof what, "notes spoilt at byte %" PRIu64, at);
        if (at % 2 == 0 || at == size)
            OK(weir_memfs_truncate(r.disk, "journal/footers", at));
        else
            OK(weir_memfs_flip(r.disk, "journal/footers", at, 0x20));
        rig_open(&r);
        cr_assert(r.report.damaged_count == 0, "%s", what);
        check_all(&r, what);
        rig_close(&r);
        rig_open(&r);
        check_all(&r, what);
        give_back(&r, original);
    }
    rig_fini(&r);
}

/* A whole page of zeros, or of something else, in the middle: the rest is served. */
Test(crash, a_lost_page_is_a_gap)
{
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct rig r;
        char path[64], what[64];
        uint8_t page[4096];
        struct weir_random random;
        weir_random_init(&random, seed);
        snprintf(what, sizeof what, "seed %" PRIu64, seed);
        books_init();
        rig_init(&r);
        rig_open(&r);
        add_shards(&r);
        put_all(&r, 30, 3000);
        rig_close(&r);
        rig_segment(1, path);
        memset(page, seed % 2 ? 0 : 0x5a, sizeof page);
        uint64_t pages = file_end(&r, 1) / sizeof page;
        rig_overwrite(&r, path, weir_random_below(&random, pages) * sizeof page, page, sizeof page);
        rig_open(&r);
        add_shards(&r);
        uint32_t lost = 0;
        for (int i = 0; i < 3; i++) {
            rig_check_damaged(&r, &books[i], what);
            lost += books[i].lost;
        }
        cr_assert(lost >= 1 && lost <= 3, "%s: %u lost", what, lost);
        cr_assert(r.report.damaged_count > 0, "%s", what);
        put_all(&r, 2, 100);
        for (int i = 0; i < 3; i++)
            rig_check_damaged(&r, &books[i], what);
        rig_fini(&r);
    }
}

/* A segment whose file is gone is a gap, told as one. */
Test(crash, a_lost_segment_is_a_gap)
{
    struct rig r;
    static struct weir_run run;
    char path[64];
    books_init();
    rig_init(&r);
    rig_open(&r);
    add_shards(&r);
    put_all(&r, 50, 30000);
    rig_close(&r);
    OK(weir_fs_remove(weir_memfs_fs(r.disk), rig_segment(2, path)));
    rig_open(&r);
    add_shards(&r);
    for (int i = 0; i < 3; i++) {
        rig_check_damaged(&r, &books[i], "without segment 2");
        cr_expect(books[i].lost > 0 && books[i].lost < 20);
    }
    struct weir_log_shard shard;
    OK(weir_log_shard_get(r.log, 10, &shard));
    cr_expect(shard.oldest == 0 && shard.next == 50);
    uint64_t offset = 0;
    while (!rig_read(&r, 10, offset, 1 * WEIR_MIB, &run)) {
        offset = run.limit;
        weir_run_clear(&run);
    }
    IS(weir_log_read_cached(r.log, 10, offset, 1, &run), WEIR_DAMAGED);
    cr_expect(run.first == offset && run.limit > offset);
    rig_fini(&r);
}

/* The segment in use is gone, behind a sealed one: that is told, and its number is not used again
 * for something else than going on. */
Test(crash, a_lost_last_segment_is_told)
{
    struct rig r;
    char path[64];
    books_init();
    rig_init(&r);
    rig_open(&r);
    add_shards(&r);
    put_all(&r, 15, 30000);
    rig_close(&r);
    OK(weir_fs_remove(weir_memfs_fs(r.disk), rig_segment(2, path)));
    rig_open(&r);
    cr_expect(r.report.damaged_count == 1);
    cr_expect(strstr(r.err.text, "missing"), "%s", r.err.text);
    add_shards(&r);
    for (int i = 0; i < 3; i++)
        rig_check_damaged(&r, &books[i], "without the last segment");
    rig_fini(&r);
}

/* Files that are no segments are not written over. */
Test(crash, refuses_files_that_are_none_of_ours)
{
    struct rig r;
    char path[64];
    uint8_t noise[8192];
    rig_init(&r);
    OK(weir_fs_mkdir(weir_memfs_fs(r.disk), "journal"));
    struct weir_file *file;
    OK(weir_fs_open(weir_memfs_fs(r.disk), rig_segment(1, path), WEIR_OPEN_WRITE | WEIR_OPEN_CREATE,
                    &file));
    memset(noise, 0x77, sizeof noise);
    OK(weir_file_pwrite(file, noise, sizeof noise, 0));
    weir_file_close(file);
    IS(rig_try_open(&r), WEIR_INVALID);
    cr_expect(strstr(r.err.text, "no segment file"), "%s", r.err.text);
    rig_fini(&r);
}
