#include "ingest/ingest.h"
#include "unit/fanout/fake_log.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#define OK(call) cr_assert_eq((call), WEIR_OK, "%s", #call)

static struct weir_clock_manual manual;
static struct weir_loop *loop;
static struct weir_log *log_;
static struct weir_log_observer observer;
static struct weir_metrics *metrics;
static struct weir_ingest *ingest;

static void
on_durable(struct weir_log_observer *o, const struct weir_batch_info *info, struct weir_slice slice)
{
    (void)o, (void)info, (void)slice;
}

static struct weir_hash_range
half(int which)
{
    return weir_hash_range_of((uint32_t)which, 2);
}

static void
setup(void)
{
    weir_clock_manual_init(&manual, 1000000);
    OK(weir_loop_new(&manual.clock, "owner", &loop));
    observer = (struct weir_log_observer){.durable = on_durable};
    log_ = fake_log_new(loop, &manual.clock, &observer);
    metrics = aligned_alloc(64, sizeof *metrics);
    memset(metrics, 0, sizeof *metrics);
    OK(weir_ingest_new(loop, log_, metrics, &ingest));
    OK(weir_log_shard_add(log_, 7, 1, 0, 0));
    OK(weir_ingest_open_shard(
        ingest, &(struct weir_ingest_shard){7, 1, half(0), WEIR_RECORD_BYTES_DEFAULT}));
}

static void
teardown(void)
{
    fake_log_commit(log_, WEIR_CANCELLED);
    weir_ingest_free(ingest);
    fake_log_free(log_);
    weir_loop_stop(loop);
    weir_loop_free(loop);
    free(metrics);
    size_t live, pooled;
    weir_buf_usage(&live, &pooled);
    cr_assert_eq(live, 0, "%zu bytes are still held", live);
}

TestSuite(ingest, .init = setup, .fini = teardown);

struct ask {
    struct weir_produce produce;
    bool done;
    enum weir_status st;
    char text[512];
};

/* The log may answer as late as in teardown. */
static struct ask a, b, c;

static void
on_done(struct weir_produce *p, enum weir_status st, const char *text)
{
    struct ask *ask = WEIR_CONTAINER(p, struct ask, produce);
    cr_assert(!ask->done, "an answer comes once");
    ask->done = true;
    ask->st = st;
    snprintf(ask->text, sizeof ask->text, "%s", text ? text : "");
}

static struct weir_buf *
batch(weir_u128 hash, weir_u128 producer, uint64_t number, size_t data_size)
{
    static uint8_t data[WEIR_RECORD_BYTES_MAX];
    struct weir_batch_builder *builder;
    struct weir_buf *buf;
    OK(weir_batch_builder_new(2 * WEIR_MIB, &builder));
    struct weir_record record = {
        .key = weir_bytes_of("key"),
        .data = weir_bytes(data, data_size),
        .has_explicit_hash = true,
        .explicit_hash = hash,
    };
    OK(weir_batch_builder_add(builder, &record, hash));
    record.data.len = 1;
    OK(weir_batch_builder_add(builder, &record, hash));
    OK(weir_batch_builder_finish(builder, WEIR_CODEC_LZ4, producer, number, &buf));
    weir_batch_builder_free(builder);
    return buf;
}

static void
produce(struct ask *ask, uint64_t shard, struct weir_buf *buf)
{
    *ask = (struct ask){.produce = {.append = {.stream = 7, .shard = shard}, .done = on_done}};
    weir_ingest_produce(ingest, &ask->produce, buf);
}

static enum weir_status close_status;
static int close_calls;
static void
on_close(struct weir_ingest_close *closed, enum weir_status st)
{
    (void)closed;
    close_status = st;
    close_calls++;
}

static int64_t
metric(enum weir_metric id)
{
    return weir_metric_sum(&metrics, 1, id);
}

/* A good batch is answered when it is durable, not before, with where it is; and is counted. */
Test(ingest, answers_when_durable)
{
    struct weir_buf *buf = batch(5, 0, 0, 1000);
    size_t size = buf->len;
    produce(&a, 1, buf);
    produce(&b, 1, batch(6, 0, 0, 1000));
    cr_assert(!a.done && !b.done);
    fake_log_commit(log_, WEIR_OK);
    cr_assert(a.done && b.done);
    cr_assert_eq(a.st, WEIR_OK);
    cr_assert_eq(a.produce.append.offset, 0);
    cr_assert_eq(b.produce.append.offset, 2);
    cr_assert_eq(metric(WEIR_METRIC_INCOMING_BATCHES), 2);
    cr_assert_eq(metric(WEIR_METRIC_INCOMING_RECORDS), 4);
    cr_assert_eq(metric(WEIR_METRIC_INCOMING_BYTES), 2 * (int64_t)size);
}

/* Hash keys outside of the shard's range would break the order per key after a split. */
Test(ingest, refuses_hashes_of_another_shard)
{
    produce(&a, 1, batch(half(1).low, 0, 0, 10));
    cr_assert_eq(a.st, WEIR_INVALID);
    cr_assert(strstr(a.text, "range"));
    produce(&a, 1, batch(half(0).high, 0, 0, 10));
    cr_assert(!a.done);
    cr_assert_eq(metric(WEIR_METRIC_REFUSED_BATCHES), 1);
}

/* Whatever bytes come: a status and a reason, and nothing is stored. */
Test(ingest, refuses_what_is_no_batch)
{
    produce(&a, 1, weir_buf_copy(weir_bytes_of("no batch")));
    cr_assert_eq(a.st, WEIR_INVALID);
    struct weir_buf *buf = batch(5, 0, 0, 1000);
    buf->data[buf->len - 1] ^= 1;
    produce(&a, 1, buf);
    cr_assert_eq(a.st, WEIR_DAMAGED);
    buf = batch(5, 0, 0, 1000);
    buf->len -= 1;
    produce(&a, 1, buf);
    cr_assert_eq(a.st, WEIR_INVALID);
    buf = weir_buf_new(10000);
    struct weir_buf *one = batch(5, 0, 0, 1000);
    memcpy(buf->data, one->data, one->len);
    buf->len = one->len + 1;
    weir_buf_unref(one);
    produce(&a, 1, buf);
    cr_assert_eq(a.st, WEIR_INVALID);
    struct weir_log_shard s;
    OK(weir_log_shard_get(log_, 1, &s));
    cr_assert_eq(s.assigned, 0);
}

/* A record over the stream's limit is refused. */
Test(ingest, refuses_a_record_over_the_limit)
{
    produce(&a, 1, batch(5, 0, 0, WEIR_RECORD_BYTES_DEFAULT));
    cr_assert_eq(a.st, WEIR_TOO_BIG);
    produce(&a, 1, batch(5, 0, 0, WEIR_RECORD_BYTES_DEFAULT - 3));
    cr_assert(!a.done);
}

/* A retry of a stored batch is answered with its first copy: also one that is in flight, on a
 * closed shard, on a forgotten one, and while draining. A new batch there is not. */
Test(ingest, finds_the_first_copy_before_it_asks_anything_else)
{
    produce(&a, 1, batch(5, 77, 1, 10));
    produce(&b, 1, batch(5, 77, 1, 10));
    fake_log_commit(log_, WEIR_OK);
    cr_assert_eq(a.st, WEIR_OK);
    cr_assert_eq(b.st, WEIR_DUPLICATE);
    cr_assert_eq(b.produce.append.offset, 0);

    static struct weir_ingest_close closing;
    closing = (struct weir_ingest_close){.shard = 1, .done = on_close};
    weir_ingest_close_shard(ingest, &closing);
    fake_log_commit(log_, WEIR_OK);
    cr_assert_eq(close_status, WEIR_OK);
    cr_assert_eq(closing.end, 2);
    produce(&b, 1, batch(5, 77, 1, 10));
    produce(&c, 1, batch(5, 77, 2, 10));
    fake_log_commit(log_, WEIR_OK);
    cr_assert_eq(b.st, WEIR_DUPLICATE);
    cr_assert_eq(c.st, WEIR_MOVED);

    weir_ingest_drop_shard(ingest, 1);
    produce(&b, 1, batch(5, 77, 1, 10));
    produce(&c, 1, batch(5, 77, 2, 10));
    fake_log_commit(log_, WEIR_OK);
    cr_assert_eq(b.st, WEIR_DUPLICATE);
    cr_assert_eq(c.st, WEIR_MOVED);

    weir_ingest_stop(ingest);
    produce(&b, 1, batch(5, 77, 1, 10));
    produce(&c, 1, batch(5, 77, 2, 10));
    fake_log_commit(log_, WEIR_OK);
    cr_assert_eq(b.st, WEIR_DUPLICATE);
    cr_assert_eq(c.st, WEIR_UNAVAILABLE);
    cr_assert_eq(metric(WEIR_METRIC_DUPLICATE_BATCHES), 4);
}

/* A number that skips one is refused: something before it was lost. */
Test(ingest, refuses_a_hole_in_the_numbers)
{
    produce(&b, 1, batch(5, 77, 1, 10));
    produce(&a, 1, batch(5, 77, 3, 10));
    cr_assert_eq(a.st, WEIR_INVALID);
    cr_assert(strstr(a.text, "number"));
}

/* Closing waits for what was taken; the end is behind the last of it; nothing gets in after it. */
Test(ingest, closes_behind_what_was_taken)
{
    static struct weir_ingest_close closing;
    closing = (struct weir_ingest_close){.shard = 1, .done = on_close};
    close_calls = 0;
    produce(&a, 1, batch(5, 0, 0, 10));
    weir_ingest_close_shard(ingest, &closing);
    produce(&b, 1, batch(5, 0, 0, 10));
    cr_assert_eq(b.st, WEIR_MOVED);
    cr_assert_eq(close_calls, 0);
    fake_log_commit(log_, WEIR_OK);
    cr_assert_eq(close_calls, 1);
    cr_assert_eq(close_status, WEIR_OK);
    cr_assert_eq(closing.end, 2);
    OK(weir_ingest_reopen_shard(ingest, 1));
    produce(&b, 1, batch(5, 0, 0, 10));
    fake_log_commit(log_, WEIR_OK);
    cr_assert_eq(b.st, WEIR_OK);
    cr_assert_eq(b.produce.append.offset, 2);
}

/* What failed does not count; what nobody knows leaves the shard without an end. */
Test(ingest, has_no_end_when_an_outcome_is_unknown)
{
    static struct weir_ingest_close closing;
    closing = (struct weir_ingest_close){.shard = 1, .done = on_close};
    produce(&a, 1, batch(5, 0, 0, 10));
    weir_ingest_close_shard(ingest, &closing);
    fake_log_commit(log_, WEIR_IO);
    cr_assert_eq(a.st, WEIR_IO);
    cr_assert_eq(close_status, WEIR_OK);
    cr_assert_eq(closing.end, 0);
    OK(weir_ingest_reopen_shard(ingest, 1));
    produce(&a, 1, batch(5, 0, 0, 10));
    weir_ingest_close_shard(ingest, &closing);
    fake_log_commit(log_, WEIR_UNKNOWN);
    cr_assert_eq(close_status, WEIR_UNKNOWN);
}

/* Opened again before it was closed: the close did not happen. */
Test(ingest, gives_up_closing_when_opened_again)
{
    static struct weir_ingest_close closing;
    closing = (struct weir_ingest_close){.shard = 1, .done = on_close};
    weir_ingest_close_shard(ingest, &closing);
    OK(weir_ingest_reopen_shard(ingest, 1));
    fake_log_commit(log_, WEIR_OK);
    cr_assert_eq(close_status, WEIR_CANCELLED);
    closing = (struct weir_ingest_close){.shard = 3, .done = on_close};
    weir_ingest_close_shard(ingest, &closing);
    cr_assert_eq(close_status, WEIR_NOT_FOUND);
    cr_assert_eq(weir_ingest_reopen_shard(ingest, 3), WEIR_NOT_FOUND);
}

/* Shards nobody knows, and shards of other streams. */
Test(ingest, refuses_unknown_shards)
{
    produce(&a, 3, batch(5, 0, 0, 10));
    cr_assert_eq(a.st, WEIR_NOT_FOUND);
    a = (struct ask){.produce = {.append = {.stream = 8, .shard = 1}, .done = on_done}};
    weir_ingest_produce(ingest, &a.produce, batch(5, 0, 0, 10));
    cr_assert_eq(a.st, WEIR_NOT_FOUND);
    cr_assert_eq(weir_ingest_open_shard(ingest, &(struct weir_ingest_shard){7, 1, half(0), 1000}),
                 WEIR_EXISTS);
}

/* A full queue is said as it is, and counted apart. */
Test(ingest, says_when_the_queue_is_full)
{
    fake_log_refuse(log_, WEIR_AGAIN);
    produce(&a, 1, batch(5, 0, 0, 10));
    cr_assert_eq(a.st, WEIR_AGAIN);
    fake_log_refuse(log_, WEIR_NO_SPACE);
    produce(&a, 1, batch(5, 0, 0, 10));
    cr_assert_eq(a.st, WEIR_NO_SPACE);
    cr_assert_eq(metric(WEIR_METRIC_THROTTLED_BATCHES), 1);
    cr_assert_eq(metric(WEIR_METRIC_REFUSED_BATCHES), 1);
    fake_log_refuse(log_, WEIR_OK);
}
