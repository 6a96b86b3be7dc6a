/* The offline look: finds nothing where all is well, and what is wrong where something is. */
#include "../log/rig.h"
#include "fsck/fsck.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define HOUR ((uint64_t)3600 * 1000)

struct seen {
    uint64_t findings, calls;
    struct weir_fsck_finding last;
    char reason[200];
};

static void
on_finding(void *arg, const struct weir_fsck_finding *f)
{
    struct seen *seen = arg;
    cr_assert(f->file && f->file[0] && f->reason && f->reason[0]);
    seen->findings++;
    seen->last = *f;
    snprintf(seen->reason, sizeof seen->reason, "%s in %s at %" PRIu64, f->reason, f->file,
             f->position);
}

static void
on_progress(void *arg, const char *file, uint64_t done, uint64_t total)
{
    struct seen *seen = arg;
    cr_assert(file && done <= total);
    seen->calls++;
}

static enum weir_status
verify(struct rig *r, struct seen *seen, struct weir_fsck_totals *totals)
{
    struct weir_fsck_callbacks callbacks = {on_finding, on_progress, seen};
    struct weir_error err = {0};
    int64_t holder;
    *seen = (struct seen){0};
    return weir_fsck_verify(weir_memfs_fs(r->disk), NULL, &callbacks, totals, &holder, &err);
}

static void
fill(struct rig *r, int rounds, size_t size)
{
    for (uint64_t s = 10; s < 13; s++) {
        enum weir_status st = weir_log_shard_add(r->log, 1, s, s == 10 ? 0 : HOUR, 0);
        cr_assert(st == WEIR_OK || st == WEIR_EXISTS);
    }
    for (int i = 0; i < rounds; i++)
        for (uint64_t s = 10; s < 13; s++)
            OK(rig_put(r, s, (uint64_t)i, 2, s == 10 ? size / 10 : size, NULL));
}

/* A directory that went through rolls, retention, moves, removals, drops, crashes: nothing is wrong
 * with it, and everything is counted. */
Test(fsck, finds_nothing_where_all_is_well)
{
    struct rig r;
    struct seen seen;
    struct weir_fsck_totals totals;
    rig_init(&r);
    r.config.directory = "journal-0";
    IS(verify(&r, &seen, &totals), WEIR_NOT_FOUND);
    rig_open(&r);
    OK(verify(&r, &seen, &totals));
    for (int round = 0; round < 4; round++) {
        fill(&r, 30, 20000);
        rig_pass(&r, 2 * HOUR);
        if (round == 2)
            OK(weir_log_shard_drop(r.log, 12));
        fill(&r, 2, 20000);
        rig_crash(&r, WEIR_MEMFS_KEEP_SOME, (uint64_t)round);
        enum weir_status st = verify(&r, &seen, &totals);
        cr_assert(st == WEIR_OK, "round %d: %s", round, seen.reason);
        rig_open(&r);
    }
    struct weir_log_stat stat;
    weir_log_get_stat(r.log, &stat);
    cr_expect(stat.copied_bytes > 0 || stat.segments > 0);
    rig_close(&r);
    OK(verify(&r, &seen, &totals));
    cr_expect(totals.journals == 1 && totals.shards == 3 && totals.segments >= 2);
    cr_expect(totals.batches > 0 && totals.records >= totals.batches * 2 - 2);
    cr_expect(totals.damaged == 0 && seen.calls >= totals.segments);
    rig_fini(&r);
}

/* A dropped shard's last word may stand in the segment that has become the oldest, with batches of
 * the shard before it. That segment's footer tells of it, also after the segments before are gone.
 */
Test(fsck, knows_a_dropped_shard_from_the_oldest_segment)
{
    struct rig r;
    struct seen seen;
    struct weir_fsck_totals totals;
    rig_init(&r);
    r.config.directory = "journal-0";
    rig_open(&r);
    OK(weir_log_shard_add(r.log, 1, 10, HOUR, 0));
    OK(weir_log_shard_add(r.log, 1, 11, 0, 0));
    OK(weir_log_shard_add(r.log, 1, 12, 0, 0));
    for (uint64_t n = 0; n < 60; n++)
        OK(rig_put(&r, 10, n, 1, 20000, NULL));
    OK(rig_put(&r, 11, 0, 1, 5000, NULL));
    OK(weir_log_shard_drop(r.log, 11));
    rig_pass(&r, 2 * HOUR);
    struct weir_log_stat stat;
    weir_log_get_stat(r.log, &stat);
    cr_assert_eq(stat.segments, 1u);
    for (uint64_t n = 0; n < 80; n++)
        OK(rig_put(&r, 12, n, 1, 20000, NULL));
    rig_close(&r);
    rig_open(&r);
    OK(weir_log_shard_add(r.log, 1, 10, HOUR, 0));
    OK(weir_log_shard_add(r.log, 1, 12, 0, 0));
    weir_log_drop_undeclared(r.log);
    rig_step(&r);
    rig_close(&r);
    enum weir_status st = verify(&r, &seen, &totals);
    cr_expect(st == WEIR_OK, "%s", seen.reason);
    rig_fini(&r);
}

/* Any changed bit is found. */
Test(fsck, finds_a_changed_bit, .timeout = 240)
{
    struct rig r;
    struct seen seen;
    struct weir_fsck_totals totals;
    struct weir_random random;
    rig_init(&r);
    r.config.directory = "journal-0";
    rig_open(&r);
    fill(&r, 20, 15000);
    rig_close(&r);
    weir_random_init(&random, 11);
    uint64_t missed = 0;
    for (int n = 0; n < 700; n++) {
        const char *path = n % 2 ? "journal-0/00000001.seg" : "journal-0/00000002.seg";
        uint64_t size, at;
        OK(weir_memfs_size(r.disk, path, &size));
        at = n < 300 ? size - 1 - (uint64_t)n * 4 : weir_random_below(&random, size);
        struct weir_memfs *original = r.disk;
        r.disk = weir_memfs_fork(original, WEIR_MEMFS_KEEP_ALL, 0);
        OK(weir_memfs_flip(r.disk, path, at, 0x10));
        enum weir_status st = verify(&r, &seen, &totals);
        cr_assert(st == WEIR_OK || st == WEIR_DAMAGED);
        missed += st == WEIR_OK && !totals.notes;
        weir_memfs_free(r.disk);
        r.disk = original;
    }
    /* The first word of the very last group is what tells it from nothing. */
    cr_expect(missed <= 2, "%" PRIu64, missed);
    OK(verify(&r, &seen, &totals));
    rig_fini(&r);
}

/* A finding says where it is: file, byte, shard and offsets. */
Test(fsck, says_where_it_is)
{
    struct rig r;
    struct seen seen;
    struct weir_fsck_totals totals;
    rig_init(&r);
    r.config.directory = "journal-0";
    rig_open(&r);
    fill(&r, 3, 5000);
    rig_close(&r);
    OK(weir_memfs_flip(r.disk, "journal-0/00000001.seg", 512 + 512 + 128 + 160 + 100, 1));
    IS(verify(&r, &seen, &totals), WEIR_DAMAGED);
    cr_expect(totals.damaged == 2, "the batch, and the records that are missing");
    cr_expect(seen.last.has_shard && seen.last.shard == 10);
    cr_expect(seen.last.first == 0 && seen.last.limit == 2, "%s", seen.reason);
    rig_fini(&r);
}

/* A segment that is gone is found. */
Test(fsck, finds_a_missing_segment)
{
    struct rig r;
    struct seen seen;
    struct weir_fsck_totals totals;
    rig_init(&r);
    r.config.directory = "journal-0";
    rig_open(&r);
    fill(&r, 40, 20000);
    rig_close(&r);
    OK(weir_fs_remove(weir_memfs_fs(r.disk), "journal-0/00000002.seg"));
    IS(verify(&r, &seen, &totals), WEIR_DAMAGED);
    cr_expect(totals.damaged >= 3, "one gap for each shard");
    rig_fini(&r);
}

/* A directory that a broker holds is left alone, unless asked. */
Test(fsck, leaves_a_held_directory_alone)
{
    struct rig r;
    struct weir_fsck_totals totals;
    struct weir_file *lock;
    struct weir_error err = {0};
    int64_t holder = -1;
    rig_init(&r);
    r.config.directory = "journal-0";
    rig_open(&r);
    fill(&r, 3, 100);
    OK(weir_fs_lock(weir_memfs_fs(r.disk), "lock", &lock, &holder));
    IS(weir_fsck_verify(weir_memfs_fs(r.disk), NULL, NULL, &totals, &holder, &err), WEIR_BUSY);
    struct weir_fsck_options options = {.even_if_locked = true};
    OK(weir_fsck_verify(weir_memfs_fs(r.disk), &options, NULL, &totals, &holder, &err));
    weir_file_close(lock);
    OK(weir_fsck_verify(weir_memfs_fs(r.disk), NULL, NULL, &totals, &holder, &err));
    rig_fini(&r);
}

static char printed[1 << 20];
static size_t printed_len;

static enum weir_status
on_print(void *arg, struct weir_bytes text)
{
    (void)arg;
    cr_assert(text.len && text.data[text.len - 1] == '\n', "whole lines");
    cr_assert(printed_len + text.len < sizeof printed);
    memcpy(printed + printed_len, text.data, text.len);
    printed_len += text.len;
    printed[printed_len] = 0;
    return WEIR_OK;
}

static enum weir_status
inspect(struct rig *r, const char *path, const struct weir_fsck_inspect_options *o)
{
    struct weir_error err = {0};
    printed_len = 0;
    printed[0] = 0;
    return weir_fsck_inspect(weir_memfs_fs(r->disk), path, o, on_print, NULL, &err);
}

static size_t
lines_with(const char *what)
{
    size_t n = 0;
    for (const char *p = printed; (p = strstr(p, what)); p += strlen(what))
        n++;
    return n;
}

/* A segment is printed with its groups, batches and records, as text and as JSON. */
Test(fsck, prints_a_segment)
{
    struct rig r;
    rig_init(&r);
    rig_open(&r);
    fill(&r, 3, 100);
    rig_close(&r);
    const char *path = "journal/00000001.seg";
    OK(inspect(&r, path, &(struct weir_fsck_inspect_options){0}));
    cr_expect(lines_with("segment 1 of journal 7") == 1 && lines_with("batch of shard") == 9);
    cr_expect(lines_with("orderly close") == 1 && lines_with("end, not sealed") == 1);
    OK(inspect(&r, path, &(struct weir_fsck_inspect_options){.json = true, .records = true}));
    cr_expect(lines_with("{\"type\":\"record\"") == 18 && lines_with("\"key\":\"key\"") == 18);
    cr_expect(lines_with("{\"type\":\"group\"") == 11);
    OK(inspect(&r, path,
               &(struct weir_fsck_inspect_options){.json = true, .has_shard = true, .shard = 11}));
    cr_expect(lines_with("{\"type\":\"batch\"") == 3);
    OK(inspect(&r, path, &(struct weir_fsck_inspect_options){.json = true, .groups_max = 2}));
    cr_expect(lines_with("{\"type\":\"group\"") == 2);
    OK(weir_memfs_flip(r.disk, path, 512 + 512 + 128 + 160 + 20, 1));
    OK(inspect(&r, path, &(struct weir_fsck_inspect_options){0}));
    cr_expect(lines_with("BAD: batch does not match") == 1 && lines_with("batch of shard") == 8);
    IS(inspect(&r, "journal/none.seg", &(struct weir_fsck_inspect_options){0}), WEIR_NOT_FOUND);
    rig_fini(&r);
}

/* A sealed one, with its footer. */
Test(fsck, prints_a_footer)
{
    struct rig r;
    rig_init(&r);
    rig_open(&r);
    fill(&r, 40, 20000);
    rig_close(&r);
    OK(inspect(&r, "journal/00000001.seg",
               &(struct weir_fsck_inspect_options){.footer = true, .json = true}));
    cr_expect(lines_with("{\"type\":\"footer\"") == 1 && lines_with("{\"type\":\"run\"") == 3);
    cr_expect(lines_with("{\"type\":\"shard\"") == 3);
    OK(inspect(&r, "journal/00000001.seg", &(struct weir_fsck_inspect_options){.footer = true}));
    cr_expect(lines_with("  run: stream 1, shard 10") == 1);
    rig_fini(&r);
}
