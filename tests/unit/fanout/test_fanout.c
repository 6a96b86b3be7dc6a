#include "unit/fanout/desk.h"

static struct desk d;
static struct reader_book a, b;

static void
setup(void)
{
    desk_open(&d);
    desk_shard(&d, 1);
    memset(&a, 0, sizeof a);
    memset(&b, 0, sizeof b);
}

static void
teardown(void)
{
    desk_close(&d);
}

TestSuite(fanout, .init = setup, .fini = teardown);

/* Whoever is at the tip gets a batch once, and all get the same bytes by reference. */
Test(fanout, shares_one_batch_among_all)
{
    book_open(&d, &a, (struct weir_sub_config){.shard = 1});
    book_open(&d, &b, (struct weir_sub_config){.shard = 1});
    desk_step(&d);
    fake_log_put(d.log, 1, 10, 1000);
    desk_step(&d);
    cr_assert_eq(a.records, 10);
    cr_assert_eq(b.records, 10);
    cr_assert_eq(a.frames, 1);
    cr_assert_eq(a.last_data, b.last_data, "the same bytes");
    cr_assert_eq(a.last_lag_ms, 0);
    cr_assert_eq(fake_log_reads(d.log), 0);
}

/* What became durable together goes out as one frame. */
Test(fanout, gathers_a_commit_group_into_one_frame)
{
    book_open(&d, &a, (struct weir_sub_config){.shard = 1});
    desk_step(&d);
    for (int i = 0; i < 50; i++)
        fake_log_put(d.log, 1, 1, 100);
    desk_step(&d);
    cr_assert_eq(a.records, 50);
    cr_assert_eq(a.frames, 1);
    cr_assert_eq(a.slices, 1, "small batches are copied together");
}

/* A large group is cut into frames that a subscriber of default size can take as they are. */
Test(fanout, cuts_a_large_group)
{
    book_open(&d, &a, (struct weir_sub_config){.shard = 1, .credit_bytes = 64 << 20});
    desk_step(&d);
    for (int i = 0; i < 20; i++)
        fake_log_put(d.log, 1, 10, 100000);
    desk_step(&d);
    cr_assert_eq(a.records, 200);
    cr_assert_eq(a.frames, 10);
    cr_assert_eq(fake_log_reads(d.log), 0);
}

/* From the oldest: everything that is there, from memory or from the journal, then the tip. */
Test(fanout, replays_then_follows)
{
    for (int i = 0; i < 200; i++)
        fake_log_put(d.log, 1, 10, 10000);
    fake_log_evict(d.log, 1);
    for (int i = 0; i < 50; i++)
        fake_log_put(d.log, 1, 10, 10000);
    book_open(&d, &a, (struct weir_sub_config){.shard = 1, .credit_bytes = 64 << 20});
    desk_step(&d);
    cr_assert_eq(a.start_offset, 0);
    cr_assert_eq(a.start_tail, 2500);
    cr_assert_eq(a.records, 2500);
    cr_assert_gt(fake_log_reads(d.log), 0);
    uint64_t reads = fake_log_reads(d.log);
    fake_log_put(d.log, 1, 10, 10000);
    desk_step(&d);
    cr_assert_eq(a.records, 2510);
    cr_assert_eq(fake_log_reads(d.log), reads, "at the tip nothing is read");
}

/* While a run from the journal goes out, the next one is on its way. */
Test(fanout, reads_ahead)
{
    for (int i = 0; i < 200; i++)
        fake_log_put(d.log, 1, 10, 10000);
    fake_log_evict(d.log, 1);
    fake_log_hold_reads(d.log, true);
    book_open(&d, &a, (struct weir_sub_config){.shard = 1, .credit_bytes = 64 << 20});
    desk_step(&d);
    cr_assert_eq(fake_log_reads(d.log), 1);
    cr_assert_eq(a.records, 0);
    fake_log_hold_reads(d.log, false);
    fake_log_hold_reads(d.log, true);
    weir_loop_step(d.loop, 1);
    cr_assert_leq(fake_log_reads(d.log), 2, "one in flight at most");
    fake_log_hold_reads(d.log, false);
    desk_step(&d);
    cr_assert_eq(a.records, 2000);
}

/* The latest: what is durable after the subscription was opened, also before its first turn. */
Test(fanout, starts_at_the_latest)
{
    fake_log_put(d.log, 1, 10, 1000);
    book_open(&d, &a, (struct weir_sub_config){.shard = 1, .start = WEIR_START_LATEST});
    fake_log_put(d.log, 1, 5, 1000);
    desk_step(&d);
    cr_assert_eq(a.start_offset, 10);
    cr_assert_eq(a.records, 5);
}

/* From an offset inside a batch: the batch comes whole, the position is what was asked for. */
Test(fanout, starts_inside_a_batch)
{
    fake_log_put(d.log, 1, 10, 1000);
    fake_log_put(d.log, 1, 10, 1000);
    book_open(&d, &a,
              (struct weir_sub_config){.shard = 1, .start = WEIR_START_OFFSET, .offset = 13});
    desk_step(&d);
    cr_assert_eq(a.start_offset, 13);
    cr_assert_eq(a.next, 20);
    cr_assert_eq(a.records, 7);
}

/* An offset that was never given out is refused, with how far it goes. */
Test(fanout, refuses_an_offset_of_the_future)
{
    fake_log_put(d.log, 1, 10, 1000);
    book_open(&d, &a,
              (struct weir_sub_config){.shard = 1, .start = WEIR_START_OFFSET, .offset = 11});
    book_open(&d, &b,
              (struct weir_sub_config){.shard = 1, .start = WEIR_START_OFFSET, .offset = 10});
    desk_step(&d);
    cr_assert_eq(a.start_status, WEIR_INVALID);
    cr_assert_eq(a.start_tail, 10);
    cr_assert_eq(b.start_status, WEIR_OK);
    book_close(&a);
}

/* From a time: the first batch that arrived then or later. */
Test(fanout, starts_at_a_time)
{
    fake_log_put(d.log, 1, 10, 1000);
    desk_wait(&d, 1000);
    fake_log_put(d.log, 1, 10, 1000);
    book_open(&d, &a,
              (struct weir_sub_config){.shard = 1, .start = WEIR_START_TIME, .at_ms = 1000500});
    desk_step(&d);
    cr_assert_eq(a.start_offset, 10);
    cr_assert_eq(a.records, 10);
}

/* Closed while the log still looks for its start: no call comes. */
Test(fanout, may_be_closed_while_it_opens)
{
    fake_log_put(d.log, 1, 10, 1000);
    book_open(&d, &a, (struct weir_sub_config){.shard = 1, .start = WEIR_START_TIME, .at_ms = 1});
    weir_loop_step(d.loop, 1);
    book_close(&a);
    book_open(&d, &b, (struct weir_sub_config){.shard = 1});
    book_close(&b);
    desk_step(&d);
    cr_assert(!a.started && !b.started);
}

/* Without credit nothing comes, with it what fits; a stalled one does not keep the others back. */
Test(fanout, sends_within_the_credit)
{
    book_open(&d, &a, (struct weir_sub_config){.shard = 1, .credit_bytes = 3000});
    book_open(&d, &b, (struct weir_sub_config){.shard = 1, .credit_bytes = 64 << 20});
    desk_step(&d);
    for (int i = 0; i < 10; i++) {
        fake_log_put(d.log, 1, 1, 1000);
        desk_step(&d);
    }
    cr_assert_eq(a.records, 3);
    cr_assert_eq(b.records, 10);
    book_credit(&a, 2500, 0);
    desk_step(&d);
    cr_assert_eq(a.records, 5);
    book_credit(&a, 100000, 0);
    desk_step(&d);
    cr_assert_eq(a.records, 10);
    fake_log_put(d.log, 1, 1, 1000);
    desk_step(&d);
    cr_assert_eq(a.records, 11, "it is at the tip again");
}

/* Frames are credit too. */
Test(fanout, counts_frames)
{
    book_open(&d, &a, (struct weir_sub_config){.shard = 1, .credit_frames = 2});
    desk_step(&d);
    for (int i = 0; i < 4; i++) {
        fake_log_put(d.log, 1, 1, 1000);
        desk_step(&d);
    }
    cr_assert_eq(a.frames, 2);
    book_credit(&a, 0, 1);
    desk_step(&d);
    cr_assert_eq(a.frames, 3);
    cr_assert_eq(a.records, 4, "what waited comes in one frame");
}

/* A batch larger than the whole window comes when all of it is free, and is owed then. */
Test(fanout, sends_a_batch_larger_than_the_window)
{
    book_open(&d, &a, (struct weir_sub_config){.shard = 1, .credit_bytes = 5000});
    desk_step(&d);
    fake_log_put(d.log, 1, 1, 1000);
    fake_log_put(d.log, 1, 1, 20000);
    fake_log_put(d.log, 1, 1, 1000);
    desk_step(&d);
    cr_assert_eq(a.records, 1, "4000 of 5000 are free");
    book_credit(&a, 1000, 0);
    desk_step(&d);
    cr_assert_eq(a.records, 2);
    book_credit(&a, 15000, 0);
    desk_step(&d);
    cr_assert_eq(a.records, 2, "still in debt");
    book_credit(&a, 5000, 0);
    desk_step(&d);
    cr_assert_eq(a.records, 3);
}

/* Credit has an upper bound, and what passes it changes nothing. */
Test(fanout, bounds_the_credit)
{
    struct weir_sub *sub;
    struct weir_sub_config c = {.shard = 1, .credit_bytes = (1ull << 30) + 1};
    book_open(&d, &a, (struct weir_sub_config){.shard = 1, .credit_bytes = 1 << 30});
    c.sink = (const struct weir_sink *)1;
    c.started = (void (*)(struct weir_sub *, enum weir_status, uint64_t, uint64_t))1;
    c.frame_bytes = 4096;
    c.heartbeat_ms = 1000;
    cr_assert_eq(weir_sub_open(d.fanout, &c, &sub), WEIR_INVALID);
    c.credit_bytes = 1;
    c.frame_bytes = 4095;
    cr_assert_eq(weir_sub_open(d.fanout, &c, &sub), WEIR_INVALID);
    c.frame_bytes = 4096;
    c.heartbeat_ms = 60001;
    cr_assert_eq(weir_sub_open(d.fanout, &c, &sub), WEIR_INVALID);
    c.heartbeat_ms = 60000;
    c.shard = 9;
    cr_assert_eq(weir_sub_open(d.fanout, &c, &sub), WEIR_NOT_FOUND);
    cr_assert_eq(weir_sub_credit(a.sub, 1, 0), WEIR_INVALID);
    cr_assert_eq(weir_sub_credit(a.sub, 0, 1000000), WEIR_INVALID);
    cr_assert_eq(weir_sub_credit(a.sub, 0, 999000), WEIR_OK);
}

/* A subscription that asked for small frames gets small frames, also at the tip. */
Test(fanout, keeps_the_size_of_frames)
{
    book_open(&d, &a, (struct weir_sub_config){.shard = 1, .frame_bytes = 4096});
    desk_step(&d);
    for (int i = 0; i < 8; i++)
        fake_log_put(d.log, 1, 1, 2000);
    desk_step(&d);
    cr_assert_eq(a.records, 8);
    cr_assert_eq(a.frames, 4);
}

/* An idle shard still says where the subscription stands, once per heartbeat and not oftener. */
Test(fanout, sends_heartbeats_when_idle)
{
    book_open(&d, &a, (struct weir_sub_config){.shard = 1, .heartbeat_ms = 1000});
    book_open(&d, &b, (struct weir_sub_config){.shard = 1, .heartbeat_ms = 60000});
    desk_wait(&d, 10500);
    cr_assert_geq(a.heartbeats, 9);
    cr_assert_leq(a.heartbeats, 10);
    cr_assert_eq(b.heartbeats, 0);
    fake_log_put(d.log, 1, 10, 1000);
    desk_step(&d);
    uint64_t before = a.heartbeats;
    desk_wait(&d, 900);
    cr_assert_eq(a.heartbeats, before, "data is a sign of life too");
    desk_wait(&d, 60000);
    cr_assert_eq(b.heartbeats, 1);
    cr_assert_eq(a.beat_next, 10);
    cr_assert_eq(a.beat_tail, 10);
}

/* One that waits for credit hears how far it is behind. */
Test(fanout, tells_the_lag)
{
    book_open(&d, &a,
              (struct weir_sub_config){.shard = 1, .credit_bytes = 1000, .consumer = "orders"});
    desk_step(&d);
    fake_log_put(d.log, 1, 10, 1000);
    desk_step(&d);
    fake_log_put(d.log, 1, 30, 1000);
    desk_wait(&d, 5000);
    cr_assert_eq(a.records, 10);
    cr_assert_eq(a.beat_next, 10);
    cr_assert_eq(a.beat_tail, 40);
    cr_assert_geq(a.beat_lag_ms, 4000);
    cr_assert_leq(a.beat_lag_ms, 5000);
}

static void
keep_stat(void *arg, const struct weir_sub_stat *s)
{
    *(struct weir_sub_stat *)arg = *s;
}

/* The numbers of a subscription can be seen from outside. */
Test(fanout, shows_each_subscription)
{
    book_open(&d, &a,
              (struct weir_sub_config){.shard = 1, .credit_bytes = 1500, .consumer = "orders"});
    desk_step(&d);
    fake_log_put(d.log, 1, 10, 1000);
    fake_log_put(d.log, 1, 30, 3000);
    desk_wait(&d, 500);
    struct weir_sub_stat s = {0};
    weir_fanout_each(d.fanout, keep_stat, &s);
    cr_assert_eq(s.shard, 1);
    cr_assert_eq(s.next, 10);
    cr_assert_eq(s.tail, 40);
    cr_assert_eq(s.lag_records, 30);
    cr_assert_eq(s.lag_bytes, 3000);
    cr_assert_eq(s.lag_ms, 500);
    cr_assert_eq(s.credit_bytes, 500);
    cr_assert_eq(s.sent_records, 10);
    cr_assert_eq(s.sent_bytes, 1000);
    cr_assert_geq(s.last_sent_ms, 1000000);
    cr_assert_str_eq(s.consumer, "orders");
    cr_assert(!s.live);
    weir_fanout_each(d.fanout, keep_stat, &s);
    book_close(&a);
    memset(&s, 0, sizeof s);
    weir_fanout_each(d.fanout, keep_stat, &s);
    cr_assert_eq(s.shard, 0, "a closed one is not shown");
    struct weir_metrics *all[] = {d.metrics};
    cr_assert_eq(weir_metric_sum(all, 1, WEIR_METRIC_SUBSCRIPTIONS), 0);
    cr_assert_eq(weir_metric_sum(all, 1, WEIR_METRIC_OUTGOING_RECORDS), 10);
    cr_assert_eq(weir_metric_sum(all, 1, WEIR_METRIC_OUTGOING_BYTES), 1000);
}

/* `until` by offset: the batch that holds the record before it is the last one. */
Test(fanout, stops_before_an_offset)
{
    for (int i = 0; i < 3; i++)
        fake_log_put(d.log, 1, 10, 1000);
    book_open(&d, &a, (struct weir_sub_config){.shard = 1, .until_offset = 20});
    book_open(&d, &b, (struct weir_sub_config){.shard = 1, .until_offset = 35});
    desk_step(&d);
    cr_assert(a.stopped);
    cr_assert_eq(a.stop_status, WEIR_END);
    cr_assert_eq(a.stop_offset, 20);
    cr_assert_eq(a.records, 20);
    cr_assert(!b.stopped);
    fake_log_put(d.log, 1, 10, 1000);
    desk_step(&d);
    cr_assert(b.stopped);
    cr_assert_eq(b.records, 40);
}

/* `until` by time: before the first batch that arrived then, or when that moment is past at the
 * tip. */
Test(fanout, stops_before_a_time)
{
    fake_log_put(d.log, 1, 10, 1000);
    book_open(&d, &a, (struct weir_sub_config){.shard = 1, .until_ms = 1000500});
    book_open(&d, &b,
              (struct weir_sub_config){.shard = 1, .until_ms = 1005000, .heartbeat_ms = 60000});
    desk_step(&d);
    cr_assert_eq(a.records, 10);
    cr_assert(!a.stopped);
    weir_clock_manual_advance(&d.clock, 500);
    fake_log_put(d.log, 1, 10, 1000);
    desk_step(&d);
    cr_assert(a.stopped);
    cr_assert_eq(a.stop_status, WEIR_END);
    cr_assert_eq(a.records, 10);
    desk_wait(&d, 4400);
    cr_assert(!b.stopped);
    desk_wait(&d, 300);
    cr_assert(b.stopped, "no batch has to come for it");
    cr_assert_eq(b.stop_status, WEIR_END);
    cr_assert_eq(b.records, 20);
}

/* Who was overtaken by retention is told what it lost, and goes on at the oldest. */
Test(fanout, tells_what_was_trimmed)
{
    book_open(&d, &a, (struct weir_sub_config){.shard = 1, .credit_bytes = 1000});
    desk_step(&d);
    for (int i = 0; i < 10; i++)
        fake_log_put(d.log, 1, 10, 1000);
    desk_step(&d);
    cr_assert_eq(a.records, 10);
    desk_wait(&d, 3000); /* it lets go of what it has read */
    fake_log_trim(d.log, 1, 50);
    desk_step(&d);
    cr_assert_eq(a.gaps, 0, "not while it has no credit: trims go on and on");
    book_credit(&a, 100000, 10);
    desk_step(&d);
    cr_assert_eq(a.gaps, 1);
    cr_assert_eq(a.gap_records, 40);
    cr_assert_eq(a.gap_why, WEIR_TRIMMED);
    cr_assert_eq(a.next, 100);
    cr_assert_eq(a.records, 60);
}

/* Or it is stopped there, where it asked for that: later, or right at the start. */
Test(fanout, fails_if_trimmed)
{
    book_open(&d, &a,
              (struct weir_sub_config){.shard = 1, .credit_bytes = 1000, .fail_if_trimmed = true});
    desk_step(&d);
    for (int i = 0; i < 10; i++)
        fake_log_put(d.log, 1, 10, 1000);
    desk_wait(&d, 3000); /* it lets go of what it has read */
    fake_log_trim(d.log, 1, 50);
    book_credit(&a, 100000, 10);
    desk_step(&d);
    cr_assert(a.stopped);
    cr_assert_eq(a.stop_status, WEIR_TRIMMED);
    cr_assert_eq(a.stop_offset, 50);
    book_open(&d, &b,
              (struct weir_sub_config){
                  .shard = 1, .start = WEIR_START_OFFSET, .offset = 7, .fail_if_trimmed = true});
    desk_step(&d);
    cr_assert_eq(b.start_status, WEIR_TRIMMED);
    cr_assert_eq(b.start_offset, 50);
    cr_assert(!b.stopped);
    book_close(&b);
}

/* A damaged batch is a gap; what lies around it is served. */
Test(fanout, steps_over_damage)
{
    for (int i = 0; i < 5; i++)
        fake_log_put(d.log, 1, 10, 1000);
    fake_log_evict(d.log, 1);
    fake_log_damage(d.log, 1, 25);
    book_open(&d, &a, (struct weir_sub_config){.shard = 1});
    desk_step(&d);
    cr_assert_eq(a.gaps, 1);
    cr_assert_eq(a.gap_why, WEIR_DAMAGED);
    cr_assert_eq(a.gap_records, 10);
    cr_assert_eq(a.records, 40);
    cr_assert_eq(a.next, 50);
}

/* The end of a shard is told once, after its last record, also to one that waited for credit. */
Test(fanout, tells_the_end_of_a_shard_once)
{
    book_open(&d, &a, (struct weir_sub_config){.shard = 1});
    book_open(&d, &b, (struct weir_sub_config){.shard = 1, .credit_bytes = 1000});
    desk_step(&d);
    fake_log_put(d.log, 1, 10, 1000);
    fake_log_put(d.log, 1, 10, 1000);
    weir_fanout_end_shard(d.fanout, 1, 20);
    desk_step(&d);
    cr_assert(a.stopped);
    cr_assert_eq(a.stop_status, WEIR_OK);
    cr_assert_eq(a.stop_offset, 20);
    cr_assert_eq(a.records, 20);
    cr_assert(!b.stopped);
    book_credit(&b, 1000, 1);
    desk_step(&d);
    cr_assert(b.stopped);
    cr_assert_eq(b.records, 20);
    book_close(&a);
    memset(&a, 0, sizeof a);
    book_open(&d, &a, (struct weir_sub_config){.shard = 1, .start = WEIR_START_LATEST});
    desk_step(&d);
    cr_assert(a.stopped, "a closed shard can be subscribed to, and ends at once at its end");
}

/* A shard that goes takes its subscriptions along, whatever they are doing. */
Test(fanout, stops_all_of_a_dropped_shard)
{
    static struct reader_book c;
    memset(&c, 0, sizeof c);
    for (int i = 0; i < 10; i++)
        fake_log_put(d.log, 1, 10, 1000);
    fake_log_evict(d.log, 1);
    book_open(&d, &a, (struct weir_sub_config){.shard = 1, .start = WEIR_START_LATEST});
    desk_step(&d);
    fake_log_hold_reads(d.log, true);
    book_open(&d, &b, (struct weir_sub_config){.shard = 1});
    desk_step(&d);
    book_open(&d, &c, (struct weir_sub_config){.shard = 1});
    fake_log_put(d.log, 1, 10, 1000);
    weir_fanout_drop_shard(d.fanout, 1);
    cr_assert(a.stopped && a.stop_status == WEIR_NOT_FOUND);
    cr_assert(b.stopped && b.stop_status == WEIR_NOT_FOUND);
    cr_assert(c.started && c.start_status == WEIR_NOT_FOUND && !c.stopped);
    book_close(&c);
    fake_log_hold_reads(d.log, false);
    desk_step(&d);
    cr_assert_eq(b.records, 0);
}

/* A sink may close its own subscription, or any other, from inside a call. */
Test(fanout, may_be_closed_from_inside_a_call)
{
    book_open(&d, &a, (struct weir_sub_config){.shard = 1});
    book_open(&d, &b, (struct weir_sub_config){.shard = 1});
    desk_step(&d);
    a.close_in_deliver = true;
    a.also_close = &b;
    fake_log_put(d.log, 1, 10, 1000);
    desk_step(&d);
    cr_assert_eq(a.records, 10);
    cr_assert_eq(b.records, 0);
    fake_log_put(d.log, 1, 10, 1000);
    desk_step(&d);
    cr_assert_eq(a.records, 10);

    /* And while it catches up: the bytes of the call stay whole until it returns. */
    memset(&a, 0, sizeof a);
    a.close_in_deliver = true;
    fake_log_evict(d.log, 1);
    book_open(&d, &a, (struct weir_sub_config){.shard = 1});
    desk_step(&d);
    cr_assert_eq(a.records, 20);
    cr_assert_null(a.sub);
}

/* Credit given back from inside a call is used at once. */
Test(fanout, takes_credit_from_inside_a_call)
{
    for (int i = 0; i < 100; i++)
        fake_log_put(d.log, 1, 10, 1000);
    a.credit_back = true;
    book_open(&d, &a,
              (struct weir_sub_config){.shard = 1, .credit_bytes = 5000, .credit_frames = 1});
    desk_step(&d);
    cr_assert_eq(a.records, 1000);
}

/* Many that are behind get their frames in turn: none waits for another's end. */
Test(fanout, is_fair)
{
    static struct reader_book many[50];
    memset(many, 0, sizeof many);
    for (int i = 0; i < 100; i++)
        fake_log_put(d.log, 1, 10, 1000);
    for (int i = 0; i < 50; i++)
        book_open(&d, &many[i], (struct weir_sub_config){.shard = 1, .frame_bytes = 4096});
    uint64_t least, most;
    do {
        weir_loop_step(d.loop, 1);
        least = UINT64_MAX, most = 0;
        for (int i = 0; i < 50; i++) {
            least = many[i].frames < least ? many[i].frames : least;
            most = many[i].frames > most ? many[i].frames : most;
        }
        cr_assert_leq(most - least, 1);
    } while (least < 25);
    desk_step(&d);
    for (int i = 0; i < 50; i++)
        cr_assert_eq(many[i].records, 1000);
}

/* One that is stalled holds no memory of runs after a heartbeat, and goes on where it was. */
Test(fanout, lets_go_of_memory_when_stalled)
{
    for (int i = 0; i < 100; i++)
        fake_log_put(d.log, 1, 10, 10000);
    fake_log_evict(d.log, 1);
    size_t before, stalled, pooled;
    weir_buf_usage(&before, &pooled);
    book_open(&d, &a, (struct weir_sub_config){.shard = 1, .credit_bytes = 50000});
    desk_step(&d);
    cr_assert_eq(a.records, 50);
    desk_wait(&d, 3000);
    fake_log_trim(d.log, 1, 1000);
    weir_buf_usage(&stalled, &pooled);
    cr_assert_eq(stalled, 0, "%zu bytes are still held", stalled);
    book_credit(&a, 1 << 20, 100);
    desk_step(&d);
    cr_assert_eq(a.next, 1000);
    cr_assert_eq(a.gap_records + a.records, 1000);
}

/* A group that no LIVE subscription wants is not gathered. */
Test(fanout, costs_nothing_without_subscribers)
{
    size_t before, after, pooled;
    weir_buf_usage(&before, &pooled);
    book_open(&d, &a, (struct weir_sub_config){.shard = 1});
    desk_step(&d);
    book_close(&a);
    fake_log_put(d.log, 1, 10, 1000);
    fake_log_trim(d.log, 1, 10);
    desk_step(&d);
    weir_buf_usage(&after, &pooled);
    cr_assert_eq(before, after);
}
