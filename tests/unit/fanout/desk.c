#include "unit/fanout/desk.h"
#include <stdlib.h>

static void
on_durable(struct weir_log_observer *o, const struct weir_batch_info *info, struct weir_slice slice)
{
    weir_fanout_durable(WEIR_CONTAINER(o, struct desk, observer)->fanout, info, slice);
}

static void
on_gap(struct weir_log_observer *o, uint64_t shard, uint64_t first, uint64_t limit,
       enum weir_status why)
{
    weir_fanout_gap(WEIR_CONTAINER(o, struct desk, observer)->fanout, shard, first, limit, why);
}

void
desk_open(struct desk *d)
{
    memset(d, 0, sizeof *d);
    weir_clock_manual_init(&d->clock, 1000000);
    OK(weir_loop_new(&d->clock.clock, "owner", &d->loop));
    d->observer = (struct weir_log_observer){.durable = on_durable, .gap = on_gap};
    d->log = fake_log_new(d->loop, &d->clock.clock, &d->observer);
    d->metrics = aligned_alloc(64, sizeof *d->metrics);
    memset(d->metrics, 0, sizeof *d->metrics);
    OK(weir_fanout_new(d->loop, d->log, d->metrics, &d->fanout));
}

void
desk_close(struct desk *d)
{
    fake_log_hold_reads(d->log, false);
    desk_step(d);
    weir_fanout_free(d->fanout);
    fake_log_free(d->log);
    weir_loop_stop(d->loop);
    weir_loop_free(d->loop);
    free(d->metrics);
}

void
desk_step(struct desk *d)
{
    cr_assert_lt(weir_loop_step(d->loop, 1000000), 1000000, "the loop must come to rest");
}

void
desk_wait(struct desk *d, uint64_t ms)
{
    while (ms > 0) {
        uint64_t step = ms < 10 ? ms : 10;
        weir_clock_manual_advance(&d->clock, step);
        desk_step(d);
        ms -= step;
    }
}

void
desk_shard(struct desk *d, uint64_t shard)
{
    OK(weir_log_shard_add(d->log, 1, shard, 0, 0));
    OK(weir_fanout_add_shard(d->fanout, shard));
}

/* ---- the sink ---- */

static void
expect_told_to(struct reader_book *b)
{
    cr_assert(b->started && !b->start_status, "the start is told first");
    cr_assert(!b->stopped, "nothing comes after the end");
    cr_assert(b->sub, "nothing comes after close");
}

static void
on_deliver(struct weir_sub *sub, const struct weir_delivery *d)
{
    struct reader_book *b = weir_sub_owner(sub);
    expect_told_to(b);
    cr_assert(d->count >= 1 && d->count <= WEIR_DELIVERY_SLICES_MAX);
    uint64_t at = d->first, bytes = 0, records = 0, batches = 0;
    for (uint32_t i = 0; i < d->count; i++) {
        struct weir_bytes rest = weir_slice_bytes(d->batch[i]);
        bytes += rest.len;
        b->last_data = rest.data;
        while (rest.len > 0) {
            struct fake_batch batch = fake_batch_at(rest);
            cr_assert_eq(batch.first, at, "batch of %lu where %lu must come", batch.first, at);
            cr_assert_leq(batch.size, rest.len);
            at += batch.count;
            records += batch.count;
            batches++;
            rest = weir_bytes(rest.data + batch.size, rest.len - batch.size);
        }
    }
    cr_assert_eq(at, d->next);
    cr_assert_eq(bytes, d->bytes);
    cr_assert_eq(records, d->records);
    if (b->records == 0 && b->gaps == 0)
        cr_assert_leq(d->first, b->next);
    else
        cr_assert(d->first <= b->next && (d->first == b->next || b->gaps > 0),
                  "frame from %lu where %lu must come", d->first, b->next);
    cr_assert_gt(d->next, b->next, "a frame moves on");
    cr_assert_geq(d->tail, d->next);
    cr_assert(b->credit > 0, "nothing without credit");
    cr_assert(d->bytes <= (uint64_t)b->credit || (batches == 1 && b->credit >= b->window),
              "frame of %lu with a credit of %ld", d->bytes, (long)b->credit);
    cr_assert(d->bytes <= b->frame_bytes || batches == 1, "frame of %lu bytes", d->bytes);
    b->credit -= (int64_t)d->bytes;
    b->records += d->next - b->next;
    b->bytes += d->bytes;
    b->next = d->next;
    b->frames++;
    b->slices = d->count;
    b->last_lag_ms = d->lag_ms;
    b->last_tail = d->tail;
    if (b->credit_back)
        book_credit(b, d->bytes, 1);
    if (b->also_close)
        book_close(b->also_close);
    b->also_close = NULL;
    if (b->close_in_deliver)
        book_close(b);
}

static void
on_heartbeat(struct weir_sub *sub, uint64_t next, uint64_t tail, uint32_t lag_ms)
{
    struct reader_book *b = weir_sub_owner(sub);
    expect_told_to(b);
    cr_assert_eq(next, b->next);
    cr_assert_eq(lag_ms == 0, next == tail);
    b->heartbeats++;
    b->beat_next = next;
    b->beat_tail = tail;
    b->beat_lag_ms = lag_ms;
}

static void
on_told_gap(struct weir_sub *sub, uint64_t first, uint64_t limit, enum weir_status why)
{
    struct reader_book *b = weir_sub_owner(sub);
    expect_told_to(b);
    cr_assert_eq(first, b->next);
    cr_assert_gt(limit, first);
    cr_assert(why == WEIR_TRIMMED || why == WEIR_DAMAGED);
    b->gaps++;
    b->gap_records += limit - first;
    b->gap_why = why;
    b->next = limit;
}

static void
on_stopped(struct weir_sub *sub, enum weir_status why, uint64_t offset)
{
    struct reader_book *b = weir_sub_owner(sub);
    expect_told_to(b);
    b->stopped = true;
    b->stop_status = why;
    b->stop_offset = offset;
}

static void
on_started(struct weir_sub *sub, enum weir_status st, uint64_t offset, uint64_t tail)
{
    struct reader_book *b = weir_sub_owner(sub);
    cr_assert(!b->started, "started comes once");
    cr_assert(!b->in_open, "and not from inside open");
    b->started = true;
    b->start_status = st;
    b->start_offset = offset;
    b->start_tail = tail;
    b->next = offset;
}

static const struct weir_sink sink = {on_deliver, on_heartbeat, on_told_gap, on_stopped};

void
book_open(struct desk *d, struct reader_book *b, struct weir_sub_config config)
{
    b->desk = d;
    config.sink = &sink;
    config.owner = b;
    config.started = on_started;
    if (!config.credit_bytes)
        config.credit_bytes = 1 << 20;
    if (!config.credit_frames)
        config.credit_frames = 1000;
    if (!config.frame_bytes)
        config.frame_bytes = 256 << 10;
    if (!config.heartbeat_ms)
        config.heartbeat_ms = 1000;
    b->credit = b->window = (int64_t)config.credit_bytes;
    b->frame_bytes = config.frame_bytes;
    b->in_open = true;
    OK(weir_sub_open(d->fanout, &config, &b->sub));
    b->in_open = false;
}

void
book_close(struct reader_book *b)
{
    weir_sub_close(b->sub);
    b->sub = NULL;
}

void
book_credit(struct reader_book *b, uint64_t bytes, uint32_t frames)
{
    b->credit += (int64_t)bytes;
    OK(weir_sub_credit(b->sub, bytes, frames));
}
