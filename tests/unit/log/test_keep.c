/* What is to be kept is kept, what is not goes, and a shard's numbers outlive all its batches. */
#include "rig.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define MINUTE ((uint64_t)60 * 1000)
#define HOUR (60 * MINUTE)

/* Whole batches go by age, each by its own arrival, also in footers and behind the tail. */
Test(keep, trims_by_age)
{
    struct rig r;
    struct weir_log_shard s;
    static struct weir_run run;
    rig_init(&r);
    rig_open(&r);
    OK(weir_log_shard_add(r.log, 1, 10, HOUR, 0));
    for (uint64_t i = 0; i < 120; i++) {
        OK(rig_put(&r, 10, i, 1, 30000, NULL));
        rig_pass(&r, MINUTE);
    }
    OK(weir_log_shard_get(r.log, 10, &s));
    cr_expect(s.oldest >= 59 && s.oldest <= 61, "%" PRIu64, s.oldest);
    cr_expect(s.next == 120 && r.gaps > 0);
    cr_expect(r.last_gap.why == WEIR_TRIMMED && r.last_gap.limit == s.oldest);
    IS(rig_read(&r, 10, 0, 1, &run), WEIR_TRIMMED);
    cr_expect(run.first == s.oldest);
    EXPECT_SHARD(&r, 10, s.oldest, s.oldest, 120 - s.oldest);
    rig_pass(&r, 2 * HOUR);
    OK(weir_log_shard_get(r.log, 10, &s));
    cr_expect(s.oldest == 120 && s.bytes == 0 && s.oldest_at_ms == 0);
    rig_fini(&r);
}

/* By size the oldest go as long as that much stays without them. */
Test(keep, trims_by_size)
{
    struct rig r;
    struct weir_log_shard s;
    rig_init(&r);
    rig_open(&r);
    OK(weir_log_shard_add(r.log, 1, 10, 0, 500 * 1000));
    for (uint64_t i = 0; i < 200; i++)
        OK(rig_put(&r, 10, i, 1, 10000, NULL));
    rig_pass(&r, 3000);
    OK(weir_log_shard_get(r.log, 10, &s));
    cr_expect(s.bytes >= 500 * 1000 && s.bytes < 520 * 1000, "%" PRIu64, s.bytes);
    EXPECT_SHARD(&r, 10, s.oldest, s.oldest, 200 - s.oldest);
    rig_fini(&r);
}

/* Space comes back, and the shard goes on where it was, although every batch of it is gone: next
 * offset, chain, time, boundary and producers. */
Test(keep, a_shards_numbers_outlive_its_batches)
{
    struct rig r;
    struct weir_log_shard before, s;
    struct weir_log_stat stat;
    static struct weir_run run;
    uint64_t offset, number;
    rig_init(&r);
    r.config.producer_expiry_ms = 100 * HOUR;
    rig_open(&r);
    OK(weir_log_shard_add(r.log, 1, 10, HOUR, 0));
    OK(weir_log_shard_add(r.log, 1, 11, 0, 0));
    for (uint64_t i = 0; i < 60; i++)
        OK(rig_put(&r, 10, i, 1, 30000, NULL));
    OK(rig_put_as(&r, 10, 60, 42, 1, NULL));
    OK(weir_log_shard_get(r.log, 10, &before));
    for (uint64_t i = 0; i < 40; i++)
        OK(rig_put(&r, 11, i, 1, 30000, NULL));
    rig_pass(&r, 2 * HOUR);
    for (int round = 0; round < 3; round++) {
        weir_log_get_stat(r.log, &stat);
        cr_expect(stat.disk_bytes < 2 * WEIR_MIB, "%" PRIu64, stat.disk_bytes);
        OK(weir_log_shard_get(r.log, 10, &s));
        cr_expect(s.next == 61 && s.oldest == 61 && s.latest_at_ms == before.latest_at_ms);
        OK(weir_log_producer(r.log, 10, 42, &number));
        cr_expect(number == 1);
        IS(rig_put_as(&r, 10, 60, 42, 1, &offset), WEIR_DUPLICATE);
        IS(rig_read(&r, 10, 0, 1, &run), WEIR_TRIMMED);
        rig_crash(&r, WEIR_MEMFS_KEEP_SYNCED, 1);
        rig_open(&r);
        OK(weir_log_shard_add(r.log, 1, 10, HOUR, 0));
        OK(weir_log_shard_add(r.log, 1, 11, 0, 0));
    }
    OK(rig_put(&r, 10, 61, 1, 10, &offset));
    cr_expect(offset == 61);
    EXPECT_SHARD(&r, 10, 61, 61, 1);
    EXPECT_SHARD(&r, 11, 0, 0, 40);
    rig_fini(&r);
}

/* A boundary that was reached stays: neither a longer retention nor a restart revives what is
 * before. */
Test(keep, a_longer_retention_revives_nothing)
{
    struct rig r;
    struct weir_log_shard s;
    rig_init(&r);
    rig_open(&r);
    OK(weir_log_shard_add(r.log, 1, 10, HOUR, 0));
    for (uint64_t i = 0; i < 10; i++) {
        OK(rig_put(&r, 10, i, 1, 100, NULL));
        rig_pass(&r, 20 * MINUTE);
    }
    OK(weir_log_shard_get(r.log, 10, &s));
    uint64_t oldest = s.oldest;
    cr_expect(oldest > 0 && oldest < 10);
    OK(weir_log_set_retention(r.log, 10, 1000 * HOUR, 0));
    rig_step(&r);
    rig_crash(&r, WEIR_MEMFS_KEEP_SYNCED, 1);
    rig_open(&r);
    OK(weir_log_shard_add(r.log, 1, 10, 1000 * HOUR, 0));
    OK(weir_log_shard_get(r.log, 10, &s));
    cr_expect(s.oldest == oldest, "%" PRIu64 " instead of %" PRIu64, s.oldest, oldest);
    EXPECT_SHARD(&r, 10, oldest, oldest, 10 - oldest);
    IS(weir_log_set_retention(r.log, 99, 1, 1), WEIR_NOT_FOUND);
    rig_fini(&r);
}

/* Shards of one journal with differing retention: the short ones' space comes back although the
 * long one has a little in each segment; what is kept is served from where it was moved to. */
static void
mixed(struct rig *r, int rounds)
{
    for (int i = 0; i < rounds; i++) {
        for (uint64_t s = 10; s < 14; s++)
            (void)!rig_put(r, s, (uint64_t)i, 1, s == 10 ? 2000 : 25000, NULL);
        rig_pass(r, 2 * MINUTE);
    }
}

static void
add_mixed(struct rig *r)
{
    for (uint64_t s = 10; s < 14; s++) {
        enum weir_status st = weir_log_shard_add(r->log, 1, s, s == 10 ? 0 : HOUR, 0);
        cr_assert(st == WEIR_OK || st == WEIR_EXISTS);
    }
}

Test(keep, moves_the_few_live_batches_forward)
{
    struct rig r;
    struct weir_log_stat stat;
    struct weir_log_shard s;
    uint64_t offset;
    rig_init(&r);
    rig_open(&r);
    add_mixed(&r);
    mixed(&r, 200);
    rig_pass(&r, 10000);
    weir_log_get_stat(r.log, &stat);
    cr_expect(stat.copied_bytes > 0);
    cr_expect(stat.disk_bytes < 3 * stat.live_bytes + 3 * WEIR_MIB,
              "%" PRIu64 " on disk, %" PRIu64 " live", stat.disk_bytes, stat.live_bytes);
    EXPECT_SHARD(&r, 10, 0, 0, 200);
    for (int round = 0; round < 2; round++) {
        OK(weir_log_shard_get(r.log, 11, &s));
        EXPECT_SHARD(&r, 11, s.oldest, s.oldest, 200 - s.oldest);
        OK(rig_find(&r, 10, 1764320000000 + 50 * 2 * MINUTE, &offset));
        cr_expect(offset == 50, "%" PRIu64, offset);
        rig_crash(&r, WEIR_MEMFS_KEEP_SYNCED, 3);
        rig_open(&r);
        cr_expect(r.report.damaged_count == 0);
        add_mixed(&r);
        EXPECT_SHARD(&r, 10, 0, 0, 200);
    }
    OK(rig_put(&r, 10, 200, 1, 10, &offset));
    cr_expect(offset == 200);
    rig_fini(&r);
}

/* The machine stops at any call while retention, moving and removing go on: the long shard loses
 * nothing, the short ones lose nothing that is younger than their age. */
Test(keep, survives_a_stop_at_every_call, .timeout = 240)
{
    struct rig base;
    rig_init(&base);
    rig_open(&base);
    add_mixed(&base);
    mixed(&base, 60);
    struct weir_log_shard was[4];
    for (uint64_t i = 0; i < 4; i++)
        OK(weir_log_shard_get(base.log, 10 + i, &was[i]));
    struct weir_memfs *start = weir_memfs_fork(base.disk, WEIR_MEMFS_KEEP_SYNCED, 1);
    uint64_t now = weir_now_ms(&base.clock.clock);
    rig_fini(&base);

    bool reached = true;
    for (uint64_t n = 1; reached; n += n < 60 ? 1 : 3) {
        struct rig r;
        char what[64];
        snprintf(what, sizeof what, "stopped at call %" PRIu64, n);
        rig_init(&r);
        weir_memfs_free(r.disk);
        r.disk = weir_memfs_fork(start, WEIR_MEMFS_KEEP_ALL, 0);
        weir_clock_manual_init(&r.clock, now + 50 * MINUTE);
        rig_open(&r);
        add_mixed(&r);
        weir_memfs_fail_nth(r.disk, WEIR_MEMFS_ANY, n, WEIR_IO, true);
        rig_pass(&r, 10000);
        reached = weir_memfs_calls(r.disk, WEIR_MEMFS_ANY) >= n &&
                  weir_memfs_calls(r.disk, WEIR_MEMFS_ANY) > 0;
        struct weir_log_stat stat;
        weir_log_get_stat(r.log, &stat);
        bool finished = !stat.failed_groups;
        rig_crash(&r, WEIR_MEMFS_KEEP_SOME, n);
        rig_open(&r);
        cr_assert(r.report.damaged_count == 0, "%s", what);
        add_mixed(&r);
        EXPECT_SHARD(&r, 10, 0, 0, 60);
        for (uint64_t i = 1; i < 4; i++) {
            struct weir_log_shard s;
            OK(weir_log_shard_get(r.log, 10 + i, &s));
            cr_assert(s.next == 60 && s.latest_at_ms == was[i].latest_at_ms, "%s", what);
            EXPECT_SHARD(&r, 10 + i, s.oldest, s.oldest, 60 - s.oldest);
        }
        rig_pass(&r, 10000);
        for (uint64_t i = 0; i < 4; i++) {
            uint64_t offset;
            OK(rig_put(&r, 10 + i, 60, 1, 100, &offset));
            cr_assert(offset == 60, "%s", what);
        }
        EXPECT_SHARD(&r, 10, 0, 0, 61);
        rig_fini(&r);
        if (finished && n > 400)
            break;
    }
    weir_memfs_free(start);
}

/* Recycled files hold old groups of this journal; none of them is taken for a new one. */
Test(keep, old_contents_of_recycled_files_are_nothing)
{
    struct rig r;
    struct weir_log_shard s;
    rig_init(&r);
    r.config.prewrite_bytes = 3 * WEIR_MIB;
    rig_open(&r);
    uint64_t number = 0;
    OK(weir_log_shard_add(r.log, 1, 10, HOUR, 0));
    for (int round = 0; round < 12; round++) {
        for (int i = 0; i < 60; i++)
            OK(rig_put(&r, 10, number++, 1, 30000, NULL));
        rig_pass(&r, 2 * HOUR);
        for (int i = 0; i < 5; i++)
            OK(rig_put(&r, 10, number++, 1, 30000, NULL));
        rig_crash(&r, WEIR_MEMFS_KEEP_SOME, (uint64_t)round);
        rig_open(&r);
        cr_assert(r.report.damaged_count == 0 && r.report.torn_bytes == 0);
        OK(weir_log_shard_add(r.log, 1, 10, HOUR, 0));
        OK(weir_log_shard_get(r.log, 10, &s));
        cr_assert(s.next == number);
        EXPECT_SHARD(&r, 10, s.oldest, s.oldest, number - s.oldest);
    }
    rig_fini(&r);
}

/* A full disk does not keep retention from freeing it. */
Test(keep, frees_a_full_disk)
{
    struct rig r;
    rig_init(&r);
    r.config.prewrite_bytes = 3 * WEIR_MIB;
    rig_open(&r);
    OK(weir_log_shard_add(r.log, 1, 10, HOUR, 0));
    weir_memfs_set_capacity(r.disk, 10 * WEIR_MIB);
    uint64_t number = 0;
    while (!rig_put(&r, 10, number, 1, 50000, NULL))
        number++;
    cr_expect(r.health == WEIR_NO_SPACE);
    rig_pass(&r, 30 * MINUTE);
    cr_expect(r.health == WEIR_NO_SPACE);
    EXPECT_SHARD(&r, 10, 0, 0, number);
    rig_pass(&r, HOUR);
    cr_expect(r.health == WEIR_OK);
    for (int i = 0; i < 40; i++)
        OK(rig_put(&r, 10, number++, 1, 50000, NULL));
    rig_fini(&r);
}

/* An idle log comes to rest: nothing is written, moved or removed again and again. */
Test(keep, comes_to_rest)
{
    struct rig r;
    rig_init(&r);
    r.config.producer_expiry_ms = 1000 * HOUR;
    rig_open(&r);
    for (uint64_t s = 10; s < 14; s++)
        OK(weir_log_shard_add(r.log, 1, s, s == 10 ? 0 : HOUR, 0));
    for (uint64_t i = 0; i < 60; i++)
        for (uint64_t s = 10; s < 14; s++)
            OK(rig_put_as(&r, s, i, 42, i + 1, NULL));
    mixed(&r, 60);
    rig_pass(&r, 3 * HOUR);
    uint64_t writes = weir_memfs_calls(r.disk, WEIR_MEMFS_WRITE);
    rig_pass(&r, 10 * HOUR);
    uint64_t more = weir_memfs_calls(r.disk, WEIR_MEMFS_WRITE) - writes;
    cr_expect(more <= 4, "%" PRIu64 " writes while idle", more);
    rig_fini(&r);
}

/* Idle shards are small. */
Test(keep, idle_shards_are_small)
{
    struct rig r;
    struct weir_log_stat stat;
    rig_init(&r);
    rig_open(&r);
    for (uint64_t s = 0; s < 10000; s++)
        OK(weir_log_shard_add(r.log, 1, 1000 + s, HOUR, 0));
    weir_log_get_stat(r.log, &stat);
    cr_expect(stat.index_bytes < 10000 * 260, "%" PRIu64, stat.index_bytes);
    rig_fini(&r);
}
