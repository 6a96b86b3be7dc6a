/* The log on a disk that does as it is told: what goes in comes out, in order, once, also after a
 * restart. */
#include "rig.h"
#include <inttypes.h>
#include <stdio.h>

/* What was acknowledged is there, in order, and after a restart too. */
Test(log, keeps_what_it_acknowledged)
{
    struct rig r;
    uint64_t offset;
    rig_init(&r);
    rig_open(&r);
    OK(weir_log_shard_add(r.log, 1, 10, 0, 0));
    OK(weir_log_shard_add(r.log, 1, 11, 0, 0));
    for (uint64_t i = 0; i < 20; i++) {
        OK(rig_put(&r, 10, i, 1, 100, &offset));
        cr_expect(offset == i);
        OK(rig_put(&r, 11, i, 3, 10, &offset));
        cr_expect(offset == 3 * i);
    }
    cr_expect(r.durable == 40);
    EXPECT_SHARD(&r, 10, 0, 0, 20);
    EXPECT_SHARD(&r, 11, 0, 0, 20);
    uint32_t epoch = weir_log_epoch(r.log);
    rig_close(&r);

    rig_open(&r);
    cr_expect(weir_log_epoch(r.log) == epoch + 1);
    cr_expect(r.report.damaged_count == 0 && r.report.torn_bytes == 0);
    cr_expect(r.report.batches_walked == 40 && r.report.shards == 2);
    OK(weir_log_shard_add(r.log, 1, 10, 0, 0));
    OK(weir_log_shard_add(r.log, 1, 11, 0, 0));
    IS(weir_log_shard_add(r.log, 1, 11, 0, 0), WEIR_EXISTS);
    EXPECT_SHARD(&r, 10, 0, 0, 20);
    EXPECT_SHARD(&r, 11, 0, 0, 20);
    OK(rig_put(&r, 10, 20, 1, 100, &offset));
    cr_expect(offset == 20);
    EXPECT_SHARD(&r, 10, 0, 0, 21);
    rig_fini(&r);
}

/* After a crash that keeps only what was synced, everything acknowledged is there. */
Test(log, keeps_what_it_acknowledged_when_the_power_goes)
{
    struct rig r;
    rig_init(&r);
    rig_open(&r);
    OK(weir_log_shard_add(r.log, 1, 10, 0, 0));
    for (uint64_t i = 0; i < 30; i++)
        OK(rig_put(&r, 10, i, 1, 1000, NULL));
    rig_crash(&r, WEIR_MEMFS_KEEP_SYNCED, 1);
    rig_open(&r);
    cr_expect(r.report.damaged_count == 0);
    EXPECT_SHARD(&r, 10, 0, 0, 30);
    rig_fini(&r);
}

/* Batches that are queued together are one group, with one sync. */
Test(log, commits_in_groups)
{
    struct rig r;
    struct rig_append a[50];
    struct weir_log_stat before, after;
    rig_init(&r);
    rig_open(&r);
    OK(weir_log_shard_add(r.log, 1, 10, 0, 0));
    weir_log_get_stat(r.log, &before);
    for (uint64_t i = 0; i < 50; i++)
        OK(rig_send(&r, &a[i], 10, i, 1, 100));
    cr_expect(weir_log_queued_bytes(r.log) > 50 * 100);
    rig_step(&r);
    for (int i = 0; i < 50; i++)
        cr_expect(a[i].done && a[i].st == WEIR_OK && a[i].append.offset == (uint64_t)i);
    weir_log_get_stat(r.log, &after);
    cr_expect(after.groups - before.groups == 1);
    cr_expect(after.syncs - before.syncs == 1);
    cr_expect(after.records == 50 && weir_log_queued_bytes(r.log) == 0);
    rig_fini(&r);
}

/* The queue is bounded, and says so before it takes anything. */
Test(log, refuses_more_than_the_queue_holds)
{
    struct rig r;
    struct rig_append a, b;
    rig_init(&r);
    r.config.queue_bytes_max = 2000;
    rig_open(&r);
    OK(weir_log_shard_add(r.log, 1, 10, 0, 0));
    OK(rig_send(&r, &a, 10, 0, 1, 1500));
    IS(rig_send(&r, &b, 10, 1, 1, 1500), WEIR_AGAIN);
    rig_step(&r);
    OK(rig_send(&r, &b, 10, 1, 1, 1500));
    rig_step(&r);
    EXPECT_SHARD(&r, 10, 0, 0, 2);
    IS(rig_send(&r, &a, 99, 0, 1, 10), WEIR_NOT_FOUND);
    rig_fini(&r);
}

/* Many segments: rolled, sealed, and read through their footers, before and after a restart. */
Test(log, goes_through_many_segments)
{
    struct rig r;
    struct weir_log_stat stat;
    rig_init(&r);
    rig_open(&r);
    for (uint64_t s = 10; s < 13; s++)
        OK(weir_log_shard_add(r.log, 1, s, 0, 0));
    for (uint64_t i = 0; i < 300; i++)
        for (uint64_t s = 10; s < 13; s++)
            OK(rig_put(&r, s, i, 1, 9000, NULL));
    weir_log_get_stat(r.log, &stat);
    cr_expect(stat.segments >= 8, "%" PRIu64 " segments", stat.segments);
    for (uint64_t s = 10; s < 13; s++)
        EXPECT_SHARD(&r, s, 0, 0, 300);
    rig_close(&r);
    rig_open(&r);
    cr_expect(r.report.batches_walked < 150, "only the tail is walked");
    for (uint64_t s = 10; s < 13; s++)
        EXPECT_SHARD(&r, s, 0, 0, 300);
    EXPECT_SHARD(&r, 11, 299, 299, 1);
    rig_fini(&r);
}

/* A batch larger than a segment has one for itself. */
Test(log, takes_the_largest_batch)
{
    struct rig r;
    rig_init(&r);
    rig_open(&r);
    OK(weir_log_shard_add(r.log, 1, 10, 0, 0));
    OK(rig_put(&r, 10, 0, 1, 10, NULL));
    OK(rig_put(&r, 10, 1, 1, WEIR_RECORD_BYTES_MAX - 100, NULL));
    OK(rig_put(&r, 10, 2, 1, 10, NULL));
    EXPECT_SHARD(&r, 10, 0, 0, 3);
    rig_crash(&r, WEIR_MEMFS_KEEP_SYNCED, 1);
    rig_open(&r);
    EXPECT_SHARD(&r, 10, 0, 0, 3);
    rig_fini(&r);
}

/* The tail is served from memory; what was evicted says AGAIN; the ends say what they are. */
Test(log, serves_the_tail_from_memory)
{
    struct rig r;
    static struct weir_run run;
    rig_init(&r);
    r.config.cache_bytes_max = 64 * WEIR_KIB;
    rig_open(&r);
    OK(weir_log_shard_add(r.log, 1, 10, 0, 0));
    for (uint64_t i = 0; i < 100; i++)
        OK(rig_put(&r, 10, i, 1, 3000, NULL));
    OK(weir_log_read_cached(r.log, 10, 95, 1 * WEIR_MIB, &run));
    cr_expect(run.count == 5 && run.first == 95 && run.limit == 100);
    for (uint32_t i = 0; i < run.count; i++)
        cr_expect(rig_number(run.batch[i].slice, 10) == 95 + i);
    weir_run_clear(&run);
    OK(weir_log_read_cached(r.log, 10, 95, 1, &run));
    cr_expect(run.count == 1, "at least one batch, however small the limit");
    weir_run_clear(&run);
    IS(weir_log_read_cached(r.log, 10, 5, 1, &run), WEIR_AGAIN);
    IS(weir_log_read_cached(r.log, 10, 100, 1, &run), WEIR_END);
    IS(weir_log_read_cached(r.log, 11, 0, 1, &run), WEIR_NOT_FOUND);
    struct weir_log_stat stat;
    weir_log_get_stat(r.log, &stat);
    cr_expect(stat.cache_bytes <= 64 * WEIR_KIB && stat.cache_hits == 2);
    rig_fini(&r);
}

/* A read gives whole batches up to the bytes asked for, from the one that has the offset. */
Test(log, reads_runs)
{
    struct rig r;
    static struct weir_run run;
    rig_init(&r);
    rig_open(&r);
    OK(weir_log_shard_add(r.log, 1, 10, 0, 0));
    for (uint64_t i = 0; i < 200; i++)
        OK(rig_put(&r, 10, i, 5, 100, NULL));
    OK(rig_read(&r, 10, 7, 1 * WEIR_MIB, &run));
    cr_expect(run.first == 5 && run.count == WEIR_RUN_SLICES_MAX && run.limit == 5 * 65);
    weir_run_clear(&run);
    OK(rig_read(&r, 10, 7, 1, &run));
    cr_expect(run.first == 5 && run.count == 1);
    weir_run_clear(&run);
    IS(rig_read(&r, 10, 1000, 1, &run), WEIR_END);
    IS(rig_read(&r, 77, 0, 1, &run), WEIR_NOT_FOUND);
    rig_fini(&r);
}

/* Arrival does not go back within a shard, whatever the clock does, also across a restart. */
Test(log, time_does_not_go_back)
{
    struct rig r;
    struct weir_log_shard shard;
    rig_init(&r);
    rig_open(&r);
    OK(weir_log_shard_add(r.log, 1, 10, 0, 0));
    OK(rig_put(&r, 10, 0, 1, 10, NULL));
    OK(weir_log_shard_get(r.log, 10, &shard));
    uint64_t latest = shard.latest_at_ms;
    cr_expect(latest == 1764320000000);
    weir_clock_manual_set_wall(&r.clock, 1000);
    OK(rig_put(&r, 10, 1, 1, 10, NULL));
    OK(weir_log_shard_get(r.log, 10, &shard));
    cr_expect(shard.latest_at_ms == latest);
    rig_close(&r);
    rig_open(&r);
    OK(weir_log_shard_add(r.log, 1, 10, 0, 0));
    OK(rig_put(&r, 10, 2, 1, 10, NULL));
    OK(weir_log_shard_get(r.log, 10, &shard));
    cr_expect(shard.latest_at_ms == latest && shard.oldest_at_ms == latest);
    rig_fini(&r);
}

/* A moment is found exactly, in memory and in footers. */
Test(log, finds_a_moment)
{
    struct rig r;
    uint64_t offset, start = 1764320000000;
    rig_init(&r);
    rig_open(&r);
    OK(weir_log_shard_add(r.log, 1, 10, 0, 0));
    for (uint64_t i = 0; i < 300; i++) {
        OK(rig_put(&r, 10, i, 2, 5000, NULL));
        weir_clock_manual_advance(&r.clock, 10);
    }
    for (int again = 0; again < 2; again++) {
        for (uint64_t i = 0; i < 300; i++) {
            OK(rig_find(&r, 10, start + 10 * i, &offset));
            cr_expect(offset == 2 * i, "%" PRIu64 " instead of %" PRIu64, offset, 2 * i);
            OK(rig_find(&r, 10, start + 10 * i + 1, &offset));
            cr_expect(offset == 2 * i + 2);
        }
        OK(rig_find(&r, 10, 0, &offset));
        cr_expect(offset == 0);
        OK(rig_find(&r, 10, UINT64_MAX, &offset));
        cr_expect(offset == 600);
        rig_close(&r);
        rig_open(&r);
    }
    IS(rig_find(&r, 99, 0, &offset), WEIR_NOT_FOUND);
    rig_fini(&r);
}

/* A batch sent again is answered with the place of the first copy, also after a restart. */
Test(log, stores_a_producers_batch_once)
{
    struct rig r;
    uint64_t offset, number;
    weir_u128 who = 42;
    rig_init(&r);
    rig_open(&r);
    OK(weir_log_shard_add(r.log, 1, 10, 0, 0));
    OK(rig_put(&r, 10, 0, 1, 10, NULL));
    OK(rig_put_as(&r, 10, 1, who, 1, &offset));
    OK(rig_put_as(&r, 10, 2, who, 2, &offset));
    IS(rig_put_as(&r, 10, 2, who, 2, &offset), WEIR_DUPLICATE);
    cr_expect(offset == 2);
    IS(rig_put_as(&r, 10, 1, who, 1, &offset), WEIR_DUPLICATE);
    cr_expect(offset == 1);
    IS(rig_put_as(&r, 10, 9, who, 4, &offset), WEIR_INVALID);
    cr_expect(offset == 2, "the last number that is known");
    for (int i = 0; i < 2; i++) {
        rig_crash(&r, WEIR_MEMFS_KEEP_SYNCED, 1);
        rig_open(&r);
        OK(weir_log_shard_add(r.log, 1, 10, 0, 0));
        OK(weir_log_producer(r.log, 10, who, &number));
        cr_expect(number == 2);
        IS(weir_log_producer(r.log, 10, 43, &number), WEIR_NOT_FOUND);
        IS(rig_put_as(&r, 10, 1, who, 1, &offset), WEIR_DUPLICATE);
        cr_expect(offset == 1);
    }
    OK(rig_put_as(&r, 10, 3, who, 3, &offset));
    EXPECT_SHARD(&r, 10, 0, 0, 4);
    rig_pass(&r, 3601 * 1000);
    IS(weir_log_producer(r.log, 10, who, &number), WEIR_NOT_FOUND);
    IS(rig_put_as(&r, 10, 4, who, 4, &offset), WEIR_INVALID);
    OK(rig_put_as(&r, 10, 4, who, 1, &offset));
    cr_expect(offset == 4, "after its expiry it begins anew");
    rig_fini(&r);
}

/* The first batch of a producer fails, and the one behind it comes after that: it is not taken, or
 * the first, sent again, would be told to be stored. */
Test(log, a_producers_first_batch_is_its_first)
{
    struct rig r;
    struct rig_append big, a;
    weir_u128 who = 42;
    uint64_t offset;
    rig_init(&r);
    r.config.queue_bytes_max = 100000;
    rig_open(&r);
    OK(weir_log_shard_add(r.log, 1, 10, 0, 0));
    OK(rig_send(&r, &big, 10, 0, 1, 99000));
    IS(rig_send_as(&r, &a, 10, 1, 1, 5000, who, 1), WEIR_AGAIN);
    IS(rig_put_as(&r, 10, 2, who, 2, &offset), WEIR_INVALID);
    cr_expect(offset == 0);
    rig_step(&r);
    cr_expect(big.done && big.st == WEIR_OK);
    OK(rig_put_as(&r, 10, 1, who, 1, &offset));
    cr_expect(offset == 1);
    OK(rig_put_as(&r, 10, 2, who, 2, &offset));
    cr_expect(offset == 2);
    rig_fini(&r);
}

/* Asked only for what is known, the log stores nothing new. */
Test(log, known_only_stores_nothing)
{
    struct rig r;
    struct rig_append a = {0};
    rig_init(&r);
    rig_open(&r);
    OK(weir_log_shard_add(r.log, 1, 10, 0, 0));
    a.append = (struct weir_append){
        .batch = rig_batch(10, 0, 1, 10, 42, 1), .stream = 1, .shard = 10, .known_only = true};
    IS(weir_log_append(r.log, &a.append), WEIR_NOT_FOUND);
    weir_buf_unref(a.append.batch);
    EXPECT_SHARD(&r, 10, 0, 0, 0);
    rig_fini(&r);
}

/* The duplicate of a batch in flight is answered when that one is durable, not before. */
Test(log, a_duplicate_waits_for_its_original)
{
    struct rig r;
    struct rig_append a, b;
    rig_init(&r);
    rig_open(&r);
    OK(weir_log_shard_add(r.log, 1, 10, 0, 0));
    OK(rig_send_as(&r, &a, 10, 0, 1, 10, 42, 1));
    OK(rig_send_as(&r, &b, 10, 0, 1, 10, 42, 1));
    cr_expect(!b.done);
    rig_step(&r);
    cr_expect(a.done && a.st == WEIR_OK);
    cr_expect(b.done && b.st == WEIR_DUPLICATE && b.append.offset == 0);
    EXPECT_SHARD(&r, 10, 0, 0, 1);
    rig_fini(&r);
}

/* A dropped shard is gone at once, with what was in flight; the others do not notice. */
Test(log, drops_a_shard)
{
    struct rig r;
    struct rig_append a;
    static struct weir_run run;
    rig_init(&r);
    rig_open(&r);
    OK(weir_log_shard_add(r.log, 1, 10, 0, 0));
    OK(weir_log_shard_add(r.log, 1, 11, 0, 0));
    OK(rig_put(&r, 10, 0, 1, 10, NULL));
    OK(rig_put(&r, 11, 0, 1, 10, NULL));
    OK(rig_send(&r, &a, 10, 1, 1, 10));
    OK(weir_log_shard_drop(r.log, 10));
    IS(weir_log_shard_drop(r.log, 10), WEIR_NOT_FOUND);
    rig_step(&r);
    cr_expect(a.done && a.st == WEIR_CANCELLED);
    IS(rig_read(&r, 10, 0, 1, &run), WEIR_NOT_FOUND);
    EXPECT_SHARD(&r, 11, 0, 0, 1);
    rig_close(&r);

    rig_open(&r);
    OK(weir_log_shard_add(r.log, 1, 11, 0, 0));
    weir_log_drop_undeclared(r.log);
    IS(rig_read(&r, 10, 0, 1, &run), WEIR_NOT_FOUND);
    EXPECT_SHARD(&r, 11, 0, 0, 1);
    rig_fini(&r);
}

/* Closing answers everything: what was queued is cancelled, and is not there afterwards. */
Test(log, closing_cancels_the_queue)
{
    struct rig r;
    struct rig_append a;
    rig_init(&r);
    rig_open(&r);
    OK(weir_log_shard_add(r.log, 1, 10, 0, 0));
    OK(rig_put(&r, 10, 0, 1, 10, NULL));
    OK(rig_send(&r, &a, 10, 1, 1, 10));
    rig_close(&r);
    cr_expect(a.done && a.st == WEIR_CANCELLED);
    rig_open(&r);
    EXPECT_SHARD(&r, 10, 0, 0, 1);
    rig_fini(&r);
}

static bool barrier_came;

static void
barrier_done(struct weir_log_barrier *b)
{
    (void)b;
    barrier_came = true;
}

/* A barrier comes when all before it is durable, with any durability. */
Test(log, a_barrier_is_behind_what_was_queued)
{
    struct rig r;
    struct rig_append a;
    struct weir_log_barrier b = {.done = barrier_done};
    rig_init(&r);
    r.config.durability = WEIR_DURABILITY_INTERVAL;
    r.config.interval_ms = 1000;
    rig_open(&r);
    OK(weir_log_shard_add(r.log, 1, 10, 0, 0));
    OK(rig_send(&r, &a, 10, 0, 1, 10));
    weir_log_barrier(r.log, &b);
    cr_expect(!barrier_came);
    rig_step(&r);
    cr_expect(barrier_came && a.done);
    rig_crash(&r, WEIR_MEMFS_KEEP_SYNCED, 1);
    rig_open(&r);
    EXPECT_SHARD(&r, 10, 0, 0, 1);
    rig_fini(&r);
}

/* With INTERVAL a crash takes at most what came since the last sync, and never from the middle. */
Test(log, interval_loses_only_an_end)
{
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct rig r;
        struct weir_log_shard shard;
        rig_init(&r);
        r.config.durability = WEIR_DURABILITY_INTERVAL;
        r.config.interval_ms = 1000;
        rig_open(&r);
        OK(weir_log_shard_add(r.log, 1, 10, 0, 0));
        for (uint64_t i = 0; i < 10; i++)
            OK(rig_put(&r, 10, i, 1, 600, NULL));
        rig_pass(&r, 1500);
        for (uint64_t i = 10; i < 20; i++)
            OK(rig_put(&r, 10, i, 1, 600, NULL));
        rig_crash(&r, WEIR_MEMFS_KEEP_SOME, seed);
        rig_open(&r);
        cr_expect(r.report.damaged_count == 0, "seed %" PRIu64, seed);
        OK(weir_log_shard_add(r.log, 1, 10, 0, 0));
        OK(weir_log_shard_get(r.log, 10, &shard));
        cr_expect(shard.next >= 10, "seed %" PRIu64 ": %" PRIu64, seed, shard.next);
        EXPECT_SHARD(&r, 10, 0, 0, shard.next);
        for (uint64_t i = shard.next; i < 25; i++)
            OK(rig_put(&r, 10, i, 1, 600, NULL));
        rig_close(&r);
        rig_open(&r);
        cr_expect(r.report.damaged_count == 0, "seed %" PRIu64, seed);
        EXPECT_SHARD(&r, 10, 0, 0, 25);
        rig_fini(&r);
    }
}

/* Files of another journal are not taken for ours, and not touched. */
Test(log, refuses_another_journals_files)
{
    struct rig r;
    rig_init(&r);
    rig_open(&r);
    OK(weir_log_shard_add(r.log, 1, 10, 0, 0));
    OK(rig_put(&r, 10, 0, 1, 10, NULL));
    rig_close(&r);
    r.config.journal = 8;
    IS(rig_try_open(&r), WEIR_INVALID);
    cr_expect(strstr(r.err.text, "of journal 7"), "%s", r.err.text);
    r.config.journal = 7;
    rig_open(&r);
    EXPECT_SHARD(&r, 10, 0, 0, 1);
    rig_fini(&r);
}

/* With a prewriting filler the same holds; a fresh log that does little writes little. */
Test(log, writes_ahead_in_proportion)
{
    struct rig r;
    uint64_t size;
    char path[64];
    rig_init(&r);
    r.config.segment_bytes = 16 * WEIR_MIB;
    r.config.prewrite_bytes = 64 * WEIR_MIB;
    rig_open(&r);
    rig_pass(&r, 3000);
    OK(weir_memfs_size(r.disk, rig_segment(1, path), &size));
    cr_expect(size >= 4 * WEIR_MIB && size <= 6 * WEIR_MIB, "%" PRIu64, size);
    OK(weir_log_shard_add(r.log, 1, 10, 0, 0));
    for (uint64_t i = 0; i < 400; i++)
        OK(rig_put(&r, 10, i, 1, 100 * 1000, NULL));
    EXPECT_SHARD(&r, 10, 0, 0, 400);
    OK(weir_memfs_size(r.disk, rig_segment(4, path), &size));
    rig_crash(&r, WEIR_MEMFS_KEEP_SYNCED, 1);
    rig_open(&r);
    cr_expect(r.report.damaged_count == 0 && r.report.torn_bytes == 0);
    EXPECT_SHARD(&r, 10, 0, 0, 400);
    rig_fini(&r);
}
