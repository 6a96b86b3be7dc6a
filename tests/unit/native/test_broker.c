/* The whole broker, as a client sees it. */
#include "record/sequence.h"
#include "unit/native/harness.h"
#include <stdio.h>

static struct broker broker;

static void
setup(void)
{
    broker_init(&broker);
    broker_start(&broker);
}

static void
teardown(void)
{
    broker_fini(&broker);
}

TestSuite(broker, .init = setup, .fini = teardown, .timeout = 60);

static char *
text_of(const char *text)
{
    return (char *)(uintptr_t)text;
}

static Weir__Reply *
describe(struct raw *r, const char *stream)
{
    Weir__DescribeStream op = WEIR__DESCRIBE_STREAM__INIT;
    Weir__Request request = WEIR__REQUEST__INIT;
    op.name = text_of(stream);
    op.with_numbers = true;
    request.op_case = WEIR__REQUEST__OP_DESCRIBE_STREAM;
    request.describe_stream = &op;
    return raw_call(r, &request);
}

static uint32_t
open_shards(struct raw *r, const char *stream)
{
    Weir__Reply *reply = describe(r, stream);
    cr_assert_eq(reply->status, WEIR_OK, "%s", reply->text);
    uint32_t count = reply->stream->open_shards;
    weir_message_free(&reply->base);
    return count;
}

static enum weir_status
merge(struct raw *r, const char *stream, uint32_t shard, uint32_t adjacent)
{
    Weir__MergeShards op = WEIR__MERGE_SHARDS__INIT;
    Weir__Request request = WEIR__REQUEST__INIT;
    op.name = text_of(stream);
    op.shard = shard;
    op.adjacent = adjacent;
    request.op_case = WEIR__REQUEST__OP_MERGE_SHARDS;
    request.merge_shards = &op;
    return raw_ask(r, &request);
}

static enum weir_status
set_count(struct raw *r, const char *stream, uint32_t target)
{
    Weir__UpdateShardCount op = WEIR__UPDATE_SHARD_COUNT__INIT;
    Weir__Request request = WEIR__REQUEST__INIT;
    op.name = text_of(stream);
    op.target = target;
    request.op_case = WEIR__REQUEST__OP_UPDATE_SHARD_COUNT;
    request.update_shard_count = &op;
    return raw_ask(r, &request);
}

static enum weir_status
delete_stream(struct raw *r, const char *stream)
{
    Weir__DeleteStream op = WEIR__DELETE_STREAM__INIT;
    Weir__Request request = WEIR__REQUEST__INIT;
    op.name = text_of(stream);
    request.op_case = WEIR__REQUEST__OP_DELETE_STREAM;
    request.delete_stream = &op;
    return raw_ask(r, &request);
}

static enum weir_status
set_retention(struct raw *r, const char *stream, uint64_t ms)
{
    Weir__SetRetention op = WEIR__SET_RETENTION__INIT;
    Weir__Request request = WEIR__REQUEST__INIT;
    op.name = text_of(stream);
    op.retention_ms = ms;
    request.op_case = WEIR__REQUEST__OP_SET_RETENTION;
    request.set_retention = &op;
    return raw_ask(r, &request);
}

static struct raw_subscription
from_oldest(struct raw *r, const char *stream, uint32_t shard)
{
    return raw_subscribe(r, stream, shard, raw_position(WEIR__POSITION__KIND__OLDEST, 0), "");
}

/* ---- records ---- */

/* What is produced comes to a subscriber as it was stored, in order, each acknowledgement with the
 * place where its batch is. */
Test(broker, brings_records_back_in_order)
{
    struct raw *r = raw_open(&broker);
    OK(raw_create(r, "orders", 1));
    struct raw_subscription sub = from_oldest(r, "orders", 0);
    OK(sub.st);
    uint32_t channel = raw_producer(r, "orders", 0, 5);
    uint64_t next = 0, stored = 0;
    for (uint64_t n = 1; n <= 5; n++) {
        raw_produce(r, channel, "a", 3, 5, n);
        stored += 3;
    }
    cr_expect_eq(raw_drain_data(r, sub.channel, &next), stored);
    for (uint64_t n = 1; n <= 5; n++) {
        struct raw_frame *ack = raw_expect(r, WEIR_FRAME_ACK);
        cr_expect_eq(ack->frame.status, WEIR_OK);
        cr_expect_eq(ack->frame.number, n);
        cr_expect_eq(ack->frame.offset, 3 * (n - 1));
        cr_expect_eq(ack->frame.value, START_MS);
        raw_frame_free(ack);
    }
    raw_close(r);
}

/* An acknowledged batch is there after a crash, once, also where its producer sends it again. */
Test(broker, keeps_acknowledged_batches_through_a_crash)
{
    struct raw *r = raw_open(&broker);
    OK(raw_create(r, "orders", 1));
    uint32_t channel = raw_producer(r, "orders", 0, 77);
    cr_assert_eq(raw_put(r, channel, "a", 2, 77, 1).status, WEIR_OK);
    cr_assert_eq(raw_put(r, channel, "b", 2, 77, 2).status, WEIR_OK);
    broker_crash(&broker);
    raw_close(r);
    broker_start(&broker);

    r = raw_open(&broker);
    channel = raw_producer(r, "orders", 0, 77);
    cr_expect_eq(r->last_number, 2u);
    struct weir_frame again = raw_put(r, channel, "b", 2, 77, 2);
    cr_expect_eq(again.status, WEIR_DUPLICATE);
    cr_expect_eq(again.offset, 2u);
    cr_expect_eq(raw_put(r, channel, "c", 2, 77, 3).offset, 4u);
    struct raw_subscription sub = from_oldest(r, "orders", 0);
    uint64_t next = 0;
    cr_expect_eq(raw_drain_data(r, sub.channel, &next), 6u);
    raw_close(r);
}

/* LATEST begins behind what was there, AT_OFFSET and AFTER_OFFSET at the record named. */
Test(broker, starts_where_asked)
{
    struct raw *r = raw_open(&broker);
    OK(raw_create(r, "orders", 1));
    uint32_t channel = raw_producer(r, "orders", 0, 0);
    raw_put(r, channel, "a", 4, 0, 0);
    raw_put(r, channel, "b", 4, 0, 0);
    cr_expect_eq(
        raw_subscribe(r, "orders", 0, raw_position(WEIR__POSITION__KIND__LATEST, 0), "").offset,
        8u);
    struct raw_subscription sub =
        raw_subscribe(r, "orders", 0, raw_position(WEIR__POSITION__KIND__AT_OFFSET, 4), "");
    cr_expect_eq(sub.offset, 4u);
    uint64_t next = 4;
    cr_expect_eq(raw_drain_data(r, sub.channel, &next), 4u);
    sub = raw_subscribe(r, "orders", 0, raw_position(WEIR__POSITION__KIND__AFTER_OFFSET, 3), "");
    cr_expect_eq(sub.offset, 4u);
    raw_close(r);
}

/* A sequence number is a position of its shard alone, and of the stream that gave it out. */
Test(broker, refuses_positions_of_others)
{
    struct raw *r = raw_open(&broker);
    OK(raw_create(r, "orders", 2));
    char digits[WEIR_SEQUENCE_DIGITS + 1];
    struct weir_sequence sequence = {
        .shard_created_s = START_MS / 1000, .shard_index = 1, .at_s = START_MS / 1000};
    Weir__Position position = raw_position(WEIR__POSITION__KIND__AT_SEQUENCE, 0);
    position.sequence = digits;
    weir_sequence_format(&sequence, digits);
    cr_expect_eq(raw_subscribe(r, "orders", 1, position, "").st, WEIR_OK);
    cr_expect_eq(raw_subscribe(r, "orders", 0, position, "").st, WEIR_INVALID);
    sequence.shard_created_s += 10;
    weir_sequence_format(&sequence, digits);
    cr_expect_eq(raw_subscribe(r, "orders", 1, position, "").st, WEIR_INVALID);
    position.sequence = text_of("12345");
    cr_expect_eq(raw_subscribe(r, "orders", 1, position, "").st, WEIR_INVALID);
    /* The refusal shows a part of it, but no half of a character. */
    char wide[82] = "x";
    for (int i = 0; i < 40; i++)
        memcpy(wide + 1 + 2 * i, "\xc3\xa9", 3);
    position.sequence = wide;
    cr_expect_eq(raw_subscribe(r, "orders", 1, position, "").st, WEIR_INVALID);
    raw_close(r);
}

/* ---- resharding ---- */

/* Records that were taken before a split are read from the parent, whose end names its children;
 * what comes later is answered MOVED there and stored in a child. A retry of what the parent has
 * finds it. */
Test(broker, splits_a_shard_under_load)
{
    struct raw *r = raw_open(&broker);
    OK(raw_create(r, "orders", 1));
    struct raw_subscription sub = from_oldest(r, "orders", 0);
    uint32_t channel = raw_producer(r, "orders", 0, 9);
    char low[32], high[32];
    key_for(0, 2, low);
    key_for(1, 2, high);
    for (uint64_t n = 1; n <= 4; n++)
        raw_produce(r, channel, low, 1, 9, n);
    OK(raw_split(r, "orders", 0));
    uint64_t next = 0;
    cr_expect_eq(raw_drain_data(r, sub.channel, &next), 4u);
    for (uint64_t n = 1; n <= 4; n++) {
        struct raw_frame *ack = raw_expect(r, WEIR_FRAME_ACK);
        cr_expect_eq(ack->frame.status, WEIR_OK);
        raw_frame_free(ack);
    }
    struct raw_frame *end = raw_expect(r, WEIR_FRAME_END);
    ProtobufCMessage *message;
    OK(weir_message_unpack(&weir__end_of_shard__descriptor, end->frame.body, &message));
    const Weir__EndOfShard *body = (const Weir__EndOfShard *)message;
    cr_expect_eq(end->frame.channel, sub.channel);
    cr_expect_eq(end->frame.offset, 4u);
    cr_assert_eq(body->n_children, 2u);
    cr_expect_eq(body->children[0], 1u);
    cr_expect_eq(body->children[1], 2u);
    cr_assert_eq(body->n_parents, 2u);
    cr_assert_eq(body->parents[0]->n_shards, 1u);
    cr_expect_eq(body->parents[0]->shards[0], 0u);
    weir_message_free(message);
    raw_frame_free(end);

    cr_expect_eq(raw_put(r, channel, low, 1, 9, 4).status, WEIR_DUPLICATE);
    cr_expect_eq(raw_put(r, channel, low, 1, 9, 5).status, WEIR_MOVED);
    uint32_t child = raw_producer(r, "orders", 2, 9);
    cr_expect_eq(raw_put(r, child, high, 1, 9, 1).status, WEIR_OK);
    cr_expect_eq(raw_put(r, child, low, 1, 9, 2).status, WEIR_INVALID, "not in this shard's range");
    cr_expect_eq(open_shards(r, "orders"), 2u);
    raw_close(r);
}

/* Both parents of a merge end, and name the one child with both of them as its parents. */
Test(broker, merges_two_shards)
{
    struct raw *r = raw_open(&broker);
    OK(raw_create(r, "orders", 2));
    struct raw_subscription sub = from_oldest(r, "orders", 1);
    OK(merge(r, "orders", 0, 1));
    struct raw_frame *end = raw_expect(r, WEIR_FRAME_END);
    ProtobufCMessage *message;
    OK(weir_message_unpack(&weir__end_of_shard__descriptor, end->frame.body, &message));
    const Weir__EndOfShard *body = (const Weir__EndOfShard *)message;
    cr_expect_eq(end->frame.channel, sub.channel);
    cr_assert_eq(body->n_children, 1u);
    cr_expect_eq(body->children[0], 2u);
    cr_assert_eq(body->parents[0]->n_shards, 2u);
    weir_message_free(message);
    raw_frame_free(end);
    cr_expect_eq(open_shards(r, "orders"), 1u);
    cr_expect_eq(merge(r, "orders", 0, 1), WEIR_INVALID, "they are closed");
    raw_close(r);
}

/* The count of open shards goes to the target, by splits and merges, and the stream is ACTIVE
 * again. */
Test(broker, goes_to_a_count_of_shards)
{
    struct raw *r = raw_open(&broker);
    OK(raw_create(r, "orders", 2));
    OK(set_count(r, "orders", 4));
    cr_expect_eq(open_shards(r, "orders"), 4u);
    OK(set_count(r, "orders", 3));
    cr_expect_eq(open_shards(r, "orders"), 3u);
    cr_expect_eq(set_count(r, "orders", 7), WEIR_INVALID, "more than twice");
    Weir__Reply *reply = describe(r, "orders");
    cr_expect_eq(reply->stream->status, 1u);
    weir_message_free(&reply->base);
    raw_close(r);
}

/* What a reshard made is there after a crash: the parents closed with their ends, the children
 * open. */
Test(broker, remembers_a_split)
{
    struct raw *r = raw_open(&broker);
    OK(raw_create(r, "orders", 1));
    raw_put(r, raw_producer(r, "orders", 0, 0), "a", 3, 0, 0);
    OK(raw_split(r, "orders", 0));
    broker_crash(&broker);
    raw_close(r);
    broker_start(&broker);

    r = raw_open(&broker);
    Weir__Reply *reply = describe(r, "orders");
    cr_assert_eq(reply->stream->n_shards, 3u);
    cr_expect_neq(reply->stream->shards[0]->closed_ms, 0u);
    cr_expect_eq(reply->stream->shards[0]->end, 3u);
    cr_expect_eq(reply->stream->shards[1]->closed_ms, 0u);
    weir_message_free(&reply->base);
    struct raw_subscription sub = from_oldest(r, "orders", 0);
    uint64_t next = 0;
    cr_expect_eq(raw_drain_data(r, sub.channel, &next), 3u);
    raw_frame_free(raw_expect(r, WEIR_FRAME_END));
    raw_close(r);
}

/* A closed shard is listed until its records are gone, then no more. */
Test(broker, forgets_a_closed_shard_with_its_records)
{
    struct raw *r = raw_open(&broker);
    OK(raw_create(r, "orders", 1));
    OK(set_retention(r, "orders", HOUR_MS));
    raw_put(r, raw_producer(r, "orders", 0, 0), "a", 3, 0, 0);
    OK(raw_split(r, "orders", 0));
    broker_advance(&broker, HOUR_MS / 2);
    Weir__Reply *reply = describe(r, "orders");
    cr_expect_eq(reply->stream->n_shards, 3u);
    weir_message_free(&reply->base);
    broker_advance(&broker, HOUR_MS);
    broker_advance(&broker, 3000);
    reply = describe(r, "orders");
    cr_assert_eq(reply->stream->n_shards, 2u);
    cr_expect_eq(reply->stream->shards[0]->index, 1u);
    weir_message_free(&reply->base);
    cr_expect_eq(from_oldest(r, "orders", 0).st, WEIR_NOT_FOUND);
    raw_close(r);
}

/* ---- retention ---- */

/* A position that retention took is refused with the oldest that is there, or answered with a gap:
 * as the subscriber wants it. */
Test(broker, tells_of_trimmed_positions)
{
    struct raw *r = raw_open(&broker);
    OK(raw_create(r, "orders", 1));
    OK(set_retention(r, "orders", HOUR_MS));
    uint32_t channel = raw_producer(r, "orders", 0, 0);
    raw_put(r, channel, "a", 3, 0, 0);
    broker_advance(&broker, HOUR_MS + 5000);
    raw_put(r, channel, "b", 3, 0, 0);

    Weir__Subscribe op = WEIR__SUBSCRIBE__INIT;
    Weir__Request request = WEIR__REQUEST__INIT;
    Weir__Position position = raw_position(WEIR__POSITION__KIND__AT_OFFSET, 0);
    op.stream = text_of("orders");
    op.position = &position;
    op.credit_bytes = WEIR_MIB;
    op.credit_frames = 10;
    op.fail_if_trimmed = true;
    request.op_case = WEIR__REQUEST__OP_SUBSCRIBE;
    request.subscribe = &op;
    Weir__Reply *reply = raw_call(r, &request);
    cr_expect_eq(reply->status, WEIR_TRIMMED);
    cr_expect_eq(reply->offset, 3u);
    weir_message_free(&reply->base);

    struct raw_subscription sub = raw_subscribe(r, "orders", 0, position, "");
    OK(sub.st);
    struct raw_frame *gap = raw_expect(r, WEIR_FRAME_GAP);
    cr_expect_eq(gap->frame.status, WEIR_TRIMMED);
    cr_expect_eq(gap->frame.offset, 0u);
    cr_expect_eq(gap->frame.value, 3u);
    raw_frame_free(gap);
    uint64_t next = 3;
    cr_expect_eq(raw_drain_data(r, sub.channel, &next), 3u);
    raw_close(r);
}

/* ---- deletion ---- */

/* A deleted stream is gone for its readers and writers, also after a crash; its name is free, and
 * the new stream has nothing of the old one. */
Test(broker, deletes_a_stream)
{
    struct raw *r = raw_open(&broker);
    OK(raw_create(r, "orders", 2));
    uint32_t channel = raw_producer(r, "orders", 0, 0);
    char key[32];
    key_for(0, 2, key);
    raw_put(r, channel, key, 3, 0, 0);
    struct raw_subscription sub =
        raw_subscribe(r, "orders", 0, raw_position(WEIR__POSITION__KIND__LATEST, 0), "");
    OK(delete_stream(r, "orders"));
    struct raw_frame *stopped = raw_expect(r, WEIR_FRAME_STOPPED);
    cr_expect_eq(stopped->frame.channel, sub.channel);
    cr_expect_eq(stopped->frame.status, WEIR_NOT_FOUND);
    raw_frame_free(stopped);
    cr_expect_eq(raw_put(r, channel, key, 1, 0, 0).status, WEIR_NOT_FOUND);
    cr_expect_eq(delete_stream(r, "orders"), WEIR_NOT_FOUND);
    broker_crash(&broker);
    raw_close(r);
    broker_start(&broker);
    r = raw_open(&broker);
    cr_expect_eq(from_oldest(r, "orders", 0).st, WEIR_NOT_FOUND);
    OK(raw_create(r, "orders", 1));
    cr_expect_eq(from_oldest(r, "orders", 0).tail, 0u);
    raw_close(r);
}

/* Streams that are there, or are not, say so. */
Test(broker, refuses_names_that_do_not_fit)
{
    struct raw *r = raw_open(&broker);
    OK(raw_create(r, "orders", 1));
    cr_expect_eq(raw_create(r, "orders", 1), WEIR_EXISTS);
    cr_expect_eq(raw_create(r, "or ders", 1), WEIR_INVALID);
    cr_expect_eq(raw_create(r, "", 1), WEIR_INVALID);
    cr_expect_eq(raw_create(r, "none", 0), WEIR_INVALID);
    cr_expect_eq(raw_create(r, "many", 10001), WEIR_INVALID);
    cr_expect_eq(raw_split(r, "nobody", 0), WEIR_NOT_FOUND);
    cr_expect_eq(raw_split(r, "orders", 9), WEIR_NOT_FOUND);
    raw_close(r);
}

/* Names come in order, a page at a time. */
Test(broker, lists_streams_by_page)
{
    struct raw *r = raw_open(&broker);
    OK(raw_create(r, "b", 1));
    OK(raw_create(r, "c", 1));
    OK(raw_create(r, "a", 1));
    Weir__ListStreams op = WEIR__LIST_STREAMS__INIT;
    Weir__Request request = WEIR__REQUEST__INIT;
    request.op_case = WEIR__REQUEST__OP_LIST_STREAMS;
    request.list_streams = &op;
    op.limit = 2;
    Weir__Reply *reply = raw_call(r, &request);
    cr_assert_eq(reply->streams->n_names, 2u);
    cr_expect_str_eq(reply->streams->names[0], "a");
    cr_expect_str_eq(reply->streams->names[1], "b");
    cr_expect(reply->streams->more);
    weir_message_free(&reply->base);
    op.after = text_of("b");
    reply = raw_call(r, &request);
    cr_assert_eq(reply->streams->n_names, 1u);
    cr_expect_str_eq(reply->streams->names[0], "c");
    cr_expect_not(reply->streams->more);
    weir_message_free(&reply->base);
    raw_close(r);
}

/* ---- checkpoints ---- */

static uint64_t
acquire(struct raw *r, const char *owner)
{
    Weir__AcquireCheckpoint op = WEIR__ACQUIRE_CHECKPOINT__INIT;
    Weir__Request request = WEIR__REQUEST__INIT;
    op.stream = text_of("orders");
    op.consumer = text_of("mailer");
    op.owner = text_of(owner);
    request.op_case = WEIR__REQUEST__OP_ACQUIRE_CHECKPOINT;
    request.acquire_checkpoint = &op;
    Weir__Reply *reply = raw_call(r, &request);
    cr_assert_eq(reply->status, WEIR_OK, "%s", reply->text);
    cr_assert_eq(reply->checkpoints->n_items, 1u);
    uint64_t epoch = reply->checkpoints->items[0]->epoch;
    weir_message_free(&reply->base);
    return epoch;
}

static enum weir_status
checkpoint(struct raw *r, uint64_t epoch, uint64_t offset, bool shard_end, uint64_t *reply_offset)
{
    Weir__SetCheckpoint op = WEIR__SET_CHECKPOINT__INIT;
    Weir__Request request = WEIR__REQUEST__INIT;
    op.stream = text_of("orders");
    op.consumer = text_of("mailer");
    op.epoch = epoch;
    op.offset = offset;
    op.shard_end = shard_end;
    request.op_case = WEIR__REQUEST__OP_SET_CHECKPOINT;
    request.set_checkpoint = &op;
    Weir__Reply *reply = raw_call(r, &request);
    enum weir_status st = (enum weir_status)reply->status;
    if (reply_offset)
        *reply_offset = reply->offset;
    weir_message_free(&reply->base);
    return st;
}

static struct raw_subscription
from_checkpoint(struct raw *r)
{
    Weir__Position position = raw_position(WEIR__POSITION__KIND__CHECKPOINT, 0);
    position.otherwise = WEIR__POSITION__KIND__LATEST;
    return raw_subscribe(r, "orders", 0, position, "mailer");
}

/* A consumer goes on where its checkpoint is, also after a crash, and without one where it said. */
Test(broker, resumes_from_a_checkpoint)
{
    struct raw *r = raw_open(&broker);
    OK(raw_create(r, "orders", 1));
    raw_put(r, raw_producer(r, "orders", 0, 0), "a", 10, 0, 0);
    struct raw_subscription sub = from_checkpoint(r);
    cr_expect_eq(sub.offset, 10u);
    cr_expect_not(sub.from_checkpoint);
    uint64_t epoch = acquire(r, "one");
    OK(checkpoint(r, epoch, 4, false, NULL));
    broker_crash(&broker);
    raw_close(r);
    broker_start(&broker);
    r = raw_open(&broker);
    sub = from_checkpoint(r);
    cr_expect_eq(sub.offset, 4u);
    cr_expect(sub.from_checkpoint);

    Weir__ResetCheckpoints op = WEIR__RESET_CHECKPOINTS__INIT;
    Weir__Request request = WEIR__REQUEST__INIT;
    op.stream = text_of("orders");
    op.consumer = text_of("mailer");
    request.op_case = WEIR__REQUEST__OP_RESET_CHECKPOINTS;
    request.reset_checkpoints = &op;
    OK(raw_ask(r, &request));
    cr_expect_eq(from_checkpoint(r).offset, 10u);
    raw_close(r);
}

/* Whoever acquired last has the word; a stale owner is refused and told the present epoch. An
 * operator's set takes the word from the owner. */
Test(broker, refuses_the_checkpoint_of_a_stale_owner)
{
    struct raw *r = raw_open(&broker);
    OK(raw_create(r, "orders", 1));
    raw_put(r, raw_producer(r, "orders", 0, 0), "a", 10, 0, 0);
    uint64_t one = acquire(r, "one"), two = acquire(r, "two"), present = 0;
    cr_expect_gt(two, one);
    cr_expect_eq(checkpoint(r, one, 3, false, &present), WEIR_FENCED);
    cr_expect_eq(present, two);
    OK(checkpoint(r, two, 5, false, NULL));
    OK(checkpoint(r, 0, 2, false, NULL));
    cr_expect_eq(checkpoint(r, two, 6, false, NULL), WEIR_FENCED);
    cr_expect_eq(from_checkpoint(r).offset, 2u);
    raw_close(r);
}

/* A checkpoint is never ahead of the records, and says "all of it" of a closed shard only. */
Test(broker, refuses_a_checkpoint_ahead_of_the_records)
{
    struct raw *r = raw_open(&broker);
    OK(raw_create(r, "orders", 1));
    raw_put(r, raw_producer(r, "orders", 0, 0), "a", 10, 0, 0);
    uint64_t epoch = acquire(r, "one");
    cr_expect_eq(checkpoint(r, epoch, 11, false, NULL), WEIR_INVALID);
    OK(checkpoint(r, epoch, 10, false, NULL));
    cr_expect_eq(checkpoint(r, epoch, 10, true, NULL), WEIR_INVALID);
    OK(raw_split(r, "orders", 0));
    OK(checkpoint(r, epoch, 10, true, NULL));
    struct raw_subscription sub = from_checkpoint(r);
    cr_expect_eq(sub.offset, 10u);
    raw_frame_free(raw_expect(r, WEIR_FRAME_END));
    raw_close(r);
}

/* ---- watching ---- */

/* A consumer's lag is seen while it is connected, and from its checkpoint when it is not. */
Test(broker, shows_who_is_behind)
{
    struct raw *r = raw_open(&broker);
    OK(raw_create(r, "orders", 1));
    uint32_t channel = raw_producer(r, "orders", 0, 0);
    raw_put(r, channel, "a", 10, 0, 0);
    OK(checkpoint(r, acquire(r, "one"), 4, false, NULL));
    struct raw *other = raw_open(&broker);
    struct raw_subscription sub =
        raw_subscribe(other, "orders", 0, raw_position(WEIR__POSITION__KIND__OLDEST, 0), "view");
    OK(sub.st);

    Weir__ListConsumers op = WEIR__LIST_CONSUMERS__INIT;
    Weir__Request request = WEIR__REQUEST__INIT;
    op.stream = text_of("orders");
    request.op_case = WEIR__REQUEST__OP_LIST_CONSUMERS;
    request.list_consumers = &op;
    Weir__Reply *reply = raw_call(r, &request);
    cr_assert_eq(reply->consumers->n_items, 2u);
    const Weir__Consumer *mailer = reply->consumers->items[0], *view = reply->consumers->items[1];
    cr_expect_str_eq(mailer->name, "mailer");
    cr_expect_not(mailer->connected);
    cr_expect_eq(mailer->checkpoint, 4u);
    cr_expect_eq(mailer->lag_records, 6u);
    cr_expect_str_eq(view->name, "view");
    cr_expect(view->connected);
    cr_expect_eq(view->position, 10u);
    cr_expect_eq(view->lag_records, 0u);
    weir_message_free(&reply->base);
    raw_close(other);
    reply = raw_call(r, &request);
    cr_expect_eq(reply->consumers->n_items, 1u, "it went with its connection");
    weir_message_free(&reply->base);
    raw_close(r);
}

/* Numbers come by name, with unit and help. */
Test(broker, counts)
{
    struct raw *r = raw_open(&broker);
    OK(raw_create(r, "orders", 1));
    raw_put(r, raw_producer(r, "orders", 0, 0), "a", 10, 0, 0);
    Weir__GetStats op = WEIR__GET_STATS__INIT;
    Weir__Request request = WEIR__REQUEST__INIT;
    op.prefix = text_of("incoming_records");
    request.op_case = WEIR__REQUEST__OP_GET_STATS;
    request.get_stats = &op;
    Weir__Reply *reply = raw_call(r, &request);
    cr_assert_eq(reply->stats->n_items, 1u);
    cr_expect_eq(reply->stats->items[0]->value, 10.0);
    cr_expect_str_eq(reply->stats->items[0]->unit, "records");
    weir_message_free(&reply->base);
    op.prefix = text_of("");
    reply = raw_call(r, &request);
    cr_expect_gt(reply->stats->n_items, 30u);
    weir_message_free(&reply->base);
    raw_close(r);
}

/* Positions of all open shards at once, as offsets. */
Test(broker, resolves_positions)
{
    struct raw *r = raw_open(&broker);
    OK(raw_create(r, "orders", 2));
    char key[32];
    key_for(1, 2, key);
    uint32_t channel = raw_producer(r, "orders", 1, 0);
    raw_put(r, channel, key, 5, 0, 0);
    weir_clock_manual_advance(&broker.clock, 60000);
    raw_put(r, channel, key, 5, 0, 0);
    Weir__ResolvePosition op = WEIR__RESOLVE_POSITION__INIT;
    Weir__Request request = WEIR__REQUEST__INIT;
    Weir__Position position = raw_position(WEIR__POSITION__KIND__AT_TIME, 0);
    position.at_ms = START_MS + 30000;
    op.stream = text_of("orders");
    op.position = &position;
    request.op_case = WEIR__REQUEST__OP_RESOLVE_POSITION;
    request.resolve_position = &op;
    Weir__Reply *reply = raw_call(r, &request);
    cr_assert_eq(reply->status, WEIR_OK, "%s", reply->text);
    cr_assert_eq(reply->positions->n_items, 2u);
    cr_expect_eq(reply->positions->items[0]->offset, 0u);
    cr_expect_eq(reply->positions->items[1]->offset, 5u);
    cr_expect_eq(reply->positions->items[1]->tail, 10u);
    weir_message_free(&reply->base);
    raw_close(r);
}

/* ---- the directory ---- */

/* One broker at a time: a second one on the same directory is refused. */
Test(broker, refuses_a_second_one)
{
    struct weir_service *second = NULL;
    struct weir_error err = {0};
    cr_expect_eq(weir_service_open(&broker.config, &second, &err), WEIR_BUSY);
    cr_expect(strstr(err.text, "in use"), "%s", err.text);
    cr_expect(second == NULL);
}

/* The count of owners is the directory's, whatever the configuration says later. */
Test(broker, keeps_its_count_of_owners)
{
    broker_stop(&broker);
    broker.config.owners = 5;
    broker_start(&broker);
    cr_expect_eq(weir_service_owner_count(broker.service), 2u);
}

/* Data whose `format` is gone or not understood is not touched. */
Test(broker, refuses_a_directory_it_does_not_understand)
{
    struct weir_service *service = NULL;
    struct weir_error err = {0};
    struct weir_file *file;
    broker_stop(&broker);
    OK(weir_fs_open(broker.sys.fs, "format", WEIR_OPEN_WRITE, &file));
    OK(weir_file_pwrite(file, "version 9", 9, 20));
    weir_file_close(file);
    cr_expect_eq(weir_service_open(&broker.config, &service, &err), WEIR_UNSUPPORTED);
    OK(weir_fs_remove(broker.sys.fs, "format"));
    cr_expect_eq(weir_service_open(&broker.config, &service, &err), WEIR_DAMAGED);
    cr_expect(service == NULL);
}

/* Journals whose catalog is gone are not taken for those of deleted streams: nothing is let go. */
Test(broker, refuses_journals_without_their_catalog)
{
    struct weir_service *service = NULL;
    struct weir_error err = {0};
    struct raw *r = raw_open(&broker);
    OK(raw_create(r, "orders", 1));
    uint32_t channel = raw_producer(r, "orders", 0, 0);
    raw_put(r, channel, "a", 3, 0, 0);
    raw_close(r);
    broker_stop(&broker);
    (void)!weir_fs_remove(broker.sys.fs, "meta.db-wal");
    OK(weir_fs_remove(broker.sys.fs, "meta.db"));
    cr_expect_eq(weir_service_open(&broker.config, &service, &err), WEIR_DAMAGED);
    cr_expect_not_null(strstr(err.text, "meta.db"), "%s", err.text);
    cr_expect(service == NULL);
}

/* ---- draining ---- */

static void
on_drained(void *arg)
{
    *(bool *)arg = true;
}

/* A broker that goes away says so, takes no more records or changes, and goes on reading out. */
Test(broker, drains)
{
    struct raw *r = raw_open(&broker);
    OK(raw_create(r, "orders", 1));
    uint32_t channel = raw_producer(r, "orders", 0, 0);
    raw_put(r, channel, "a", 3, 0, 0);
    bool drained = false;
    weir_native_drain(broker.native);
    weir_service_drain(broker.service, on_drained, &drained);
    raw_frame_free(raw_expect(r, WEIR_FRAME_DRAIN));
    cr_expect(drained);
    cr_expect_eq(raw_put(r, channel, "b", 3, 0, 0).status, WEIR_UNAVAILABLE);
    cr_expect_eq(raw_create(r, "more", 1), WEIR_UNAVAILABLE);
    struct raw_subscription sub = from_oldest(r, "orders", 0);
    uint64_t next = 0;
    cr_expect_eq(raw_drain_data(r, sub.channel, &next), 3u);
    raw_close(r);
}
