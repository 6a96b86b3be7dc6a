#include "unit/native/harness.h"
#include <stdio.h>
#include <stdlib.h>

#define STEPS_MAX 100000

/* ---- broker ---- */

static void
on_log(void *arg, int level, const char *text)
{
    struct broker *b = arg;
    if (level <= 5)
        snprintf(b->last_log, sizeof b->last_log, "%s", text);
}

void
broker_init(struct broker *b)
{
    *b = (struct broker){0};
    b->disk = weir_memfs_new();
    cr_assert(b->disk);
    weir_list_init(&b->raws);
    weir_clock_manual_init(&b->clock, START_MS);
    OK(weir_pool_new("pool", 0, &b->pool));
    OK(weir_loop_new(&b->clock.clock, "clients", &b->clients));
    b->sys = (struct weir_sys){
        .fs = weir_memfs_fs(b->disk), .clock = &b->clock.clock, .pool = b->pool, .seed = 7};
    b->config = (struct weir_service_config){
        .sys = &b->sys,
        .owners = 2,
        .segment_bytes = 4 * WEIR_MIB,
        .group_bytes_max = WEIR_MIB,
        .queue_bytes_max = 16 * WEIR_MIB,
        .cache_bytes_max = 4 * WEIR_MIB,
        .interval_ms = 100,
        .producer_expiry_ms = 24 * HOUR_MS,
        .log = on_log,
        .log_arg = b,
    };
    snprintf(b->url, sizeof b->url, "inproc://broker-%p", (void *)b);
}

void
broker_start(struct broker *b)
{
    struct weir_error err = {0};
    const char *urls[] = {b->url};
    enum weir_status st = weir_service_open(&b->config, &b->service, &err);
    cr_assert_eq(st, WEIR_OK, "%s", err.text);
    b->options.urls = urls;
    b->options.url_count = 1;
    st = weir_native_open(b->service, &b->options, &b->native, &err);
    cr_assert_eq(st, WEIR_OK, "%s", err.text);
    broker_step(b);
}

void
broker_stop(struct broker *b)
{
    /* The door waits for its connections, whose other ends are on the clients' loop. */
    WEIR_LIST_FOR_EACH (node, &b->raws)
        weir_conn_close(WEIR_CONTAINER(node, struct raw, node)->conn);
    broker_step(b);
    weir_native_close(b->native);
    b->native = NULL;
    weir_service_close(b->service);
    b->service = NULL;
    weir_loop_step(b->clients, STEPS_MAX);
}

void
broker_crash(struct broker *b)
{
    struct weir_memfs *after = weir_memfs_fork(b->disk, WEIR_MEMFS_KEEP_SYNCED, 1);
    cr_assert(after);
    broker_stop(b);
    weir_memfs_free(b->disk);
    b->disk = after;
    b->sys.fs = weir_memfs_fs(after);
}

void
broker_fini(struct broker *b)
{
    if (b->service)
        broker_stop(b);
    weir_loop_stop(b->clients);
    weir_loop_free(b->clients);
    weir_pool_free(b->pool);
    weir_memfs_free(b->disk);
}

void
broker_step(struct broker *b)
{
    size_t total = 0, ran;
    do {
        ran = b->service ? weir_service_step(b->service) : 0;
        ran += weir_loop_step(b->clients, STEPS_MAX);
        total += ran;
    } while (ran && total < STEPS_MAX);
    cr_assert_lt(total, (size_t)STEPS_MAX, "the broker never comes to rest");
}

void
broker_advance(struct broker *b, uint64_t ms)
{
    uint64_t step = ms > 100000 ? 4000 : 500; /* within what keeps a connection alive */
    for (uint64_t left = ms; left;) {
        uint64_t by = left < step ? left : step;
        weir_clock_manual_advance(&b->clock, by);
        left -= by;
        broker_step(b);
    }
}

/* ---- raw client ---- */

static bool
on_message(void *arg, struct weir_conn *conn, struct weir_buf *message)
{
    struct raw *r = arg;
    (void)conn;
    struct raw_frame *f = calloc(1, sizeof *f);
    cr_assert(f);
    f->buf = message;
    OK(weir_frame_decode(weir_buf_bytes(message), &f->frame));
    if (f->frame.kind == WEIR_FRAME_PING && !r->keep_pings) {
        struct weir_frame pong = {.kind = WEIR_FRAME_PONG, .value = f->frame.value};
        raw_send(r, &pong, weir_bytes(NULL, 0));
        raw_frame_free(f);
    } else {
        weir_list_push_back(&r->frames, &f->node);
    }
    return !r->deaf;
}

static void
on_closed(void *arg, struct weir_conn *conn, enum weir_status why)
{
    (void)conn;
    (void)why;
    ((struct raw *)arg)->closed = true;
}

static void
on_dialed(void *arg, struct weir_conn *conn, enum weir_status st)
{
    static const struct weir_conn_events events = {on_message, on_closed};
    struct raw *r = arg;
    OK(st);
    r->conn = conn;
    weir_conn_set_events(conn, &events, r);
}

struct raw *
raw_connect(struct broker *b)
{
    struct raw *r = calloc(1, sizeof *r);
    cr_assert(r);
    r->broker = b;
    weir_list_init(&r->frames);
    struct weir_transport_options options = {.message_bytes_max = WEIR_FRAME_BYTES_MAX,
                                             .first_message_bytes_max = WEIR_FRAME_BYTES_MAX,
                                             .loop = b->clients};
    struct weir_error err = {0};
    enum weir_status st = weir_dial(&b->sys, b->url, &options, on_dialed, r, &err);
    cr_assert_eq(st, WEIR_OK, "%s", err.text);
    broker_step(b);
    cr_assert(r->conn);
    weir_list_push_back(&b->raws, &r->node);
    return r;
}

struct raw *
raw_open(struct broker *b)
{
    struct raw *r = raw_connect(b);
    Weir__Hello hello = WEIR__HELLO__INIT;
    hello.version = WEIR_WIRE_VERSION;
    hello.version_min = 1;
    hello.client = (char *)(uintptr_t) "raw";
    struct weir_frame frame = {.kind = WEIR_FRAME_HELLO};
    raw_send_message(r, &frame, &hello.base);
    raw_frame_free(raw_expect(r, WEIR_FRAME_WELCOME));
    return r;
}

void
raw_close(struct raw *r)
{
    if (!r)
        return;
    weir_list_remove(&r->node);
    weir_conn_close(r->conn);
    broker_step(r->broker);
    cr_expect(r->closed);
    weir_conn_unref(r->conn);
    broker_step(r->broker);
    while (!weir_list_is_empty(&r->frames))
        raw_frame_free(WEIR_CONTAINER(r->frames.next, struct raw_frame, node));
    free(r);
}

struct raw_send {
    struct weir_send send;
};

static void
on_sent(struct weir_send *send, enum weir_status st)
{
    (void)st;
    weir_buf_unref(send->piece[0].buf);
    free(WEIR_CONTAINER(send, struct raw_send, send));
}

static void
send_buf(struct raw *r, struct weir_buf *buf)
{
    struct raw_send *s = calloc(1, sizeof *s);
    cr_assert(s);
    s->send.count = 1;
    s->send.piece[0] = (struct weir_slice){buf, 0, buf->len};
    s->send.sent = on_sent;
    weir_conn_send(r->conn, &s->send);
}

void
raw_send_bytes(struct raw *r, struct weir_bytes bytes)
{
    struct weir_buf *buf = weir_buf_copy(bytes);
    cr_assert(buf);
    send_buf(r, buf);
}

void
raw_send(struct raw *r, const struct weir_frame *frame, struct weir_bytes body)
{
    struct weir_frame_header header;
    weir_frame_encode(frame, &header);
    struct weir_buf *buf = weir_buf_new(sizeof header + body.len);
    cr_assert(buf);
    memcpy(buf->data, &header, sizeof header);
    if (body.len)
        memcpy(buf->data + sizeof header, body.data, body.len);
    buf->len = sizeof header + body.len;
    send_buf(r, buf);
}

void
raw_send_message(struct raw *r, const struct weir_frame *frame, const ProtobufCMessage *m)
{
    struct weir_buf *buf;
    OK(weir_message_frame(frame, m, &buf));
    send_buf(r, buf);
}

void
raw_frame_free(struct raw_frame *f)
{
    if (!f)
        return;
    weir_list_remove(&f->node);
    weir_buf_unref(f->buf);
    free(f);
}

struct raw_frame *
raw_next(struct raw *r)
{
    broker_step(r->broker);
    struct weir_list *node = weir_list_pop_front(&r->frames);
    return node ? WEIR_CONTAINER(node, struct raw_frame, node) : NULL;
}

struct raw_frame *
raw_expect(struct raw *r, enum weir_frame_kind kind)
{
    struct raw_frame *f = raw_next(r);
    cr_assert(f, "no frame, but kind %d was expected; log: %s", (int)kind, r->broker->last_log);
    cr_assert_eq(f->frame.kind, kind, "kind %d instead of %d", (int)f->frame.kind, (int)kind);
    return f;
}

Weir__Reply *
raw_call(struct raw *r, const Weir__Request *request)
{
    struct weir_frame frame = {.kind = WEIR_FRAME_CALL, .number = ++r->calls};
    raw_send_message(r, &frame, &request->base);
    for (int i = 0; i < 100; i++) {
        broker_step(r->broker);
        WEIR_LIST_FOR_EACH_SAFE (node, &r->frames) {
            struct raw_frame *f = WEIR_CONTAINER(node, struct raw_frame, node);
            if (f->frame.kind != WEIR_FRAME_REPLY || f->frame.number != r->calls)
                continue;
            ProtobufCMessage *reply;
            OK(weir_message_unpack(&weir__reply__descriptor, f->frame.body, &reply));
            raw_frame_free(f);
            return (Weir__Reply *)reply;
        }
        /* A shard's life may hang on a timer of a few milliseconds. */
        weir_clock_manual_advance(&r->broker->clock, 5);
    }
    cr_assert_fail("no reply; log: %s", r->broker->last_log);
    return NULL;
}

enum weir_status
raw_ask(struct raw *r, const Weir__Request *request)
{
    Weir__Reply *reply = raw_call(r, request);
    enum weir_status st = (enum weir_status)reply->status;
    weir_message_free(&reply->base);
    return st;
}

/* ---- calls ---- */

static char *
text_of(const char *text)
{
    return (char *)(uintptr_t)text;
}

enum weir_status
raw_create(struct raw *r, const char *stream, uint32_t shards)
{
    Weir__CreateStream op = WEIR__CREATE_STREAM__INIT;
    Weir__Request request = WEIR__REQUEST__INIT;
    op.name = text_of(stream);
    op.shard_count = shards;
    request.op_case = WEIR__REQUEST__OP_CREATE_STREAM;
    request.create_stream = &op;
    return raw_ask(r, &request);
}

enum weir_status
raw_split(struct raw *r, const char *stream, uint32_t shard)
{
    Weir__SplitShard op = WEIR__SPLIT_SHARD__INIT;
    Weir__Request request = WEIR__REQUEST__INIT;
    op.name = text_of(stream);
    op.shard = shard;
    request.op_case = WEIR__REQUEST__OP_SPLIT_SHARD;
    request.split_shard = &op;
    return raw_ask(r, &request);
}

uint32_t
raw_producer(struct raw *r, const char *stream, uint32_t shard, weir_u128 producer)
{
    Weir__OpenProducer op = WEIR__OPEN_PRODUCER__INIT;
    Weir__Request request = WEIR__REQUEST__INIT;
    weir_le128 bytes = weir_put128(producer);
    uint8_t id[16];
    memcpy(id, &bytes, sizeof id);
    op.stream = text_of(stream);
    op.shard = shard;
    if (producer)
        op.producer = (ProtobufCBinaryData){sizeof id, id};
    request.op_case = WEIR__REQUEST__OP_OPEN_PRODUCER;
    request.open_producer = &op;
    Weir__Reply *reply = raw_call(r, &request);
    cr_assert_eq(reply->status, WEIR_OK, "%s", reply->text);
    cr_assert_eq(reply->result_case, WEIR__REPLY__RESULT_PRODUCER);
    uint32_t channel = reply->producer->channel;
    r->last_number = reply->producer->known ? reply->producer->last_number : 0;
    weir_message_free(&reply->base);
    return channel;
}

Weir__Position
raw_position(Weir__Position__Kind kind, uint64_t offset)
{
    Weir__Position position = WEIR__POSITION__INIT;
    position.kind = kind;
    position.offset = offset;
    return position;
}

struct raw_subscription
raw_subscribe(struct raw *r, const char *stream, uint32_t shard, Weir__Position position,
              const char *consumer)
{
    Weir__Subscribe op = WEIR__SUBSCRIBE__INIT;
    Weir__Request request = WEIR__REQUEST__INIT;
    op.stream = text_of(stream);
    op.shard = shard;
    op.position = &position;
    op.consumer = text_of(consumer);
    op.credit_bytes = 64 * WEIR_MIB;
    op.credit_frames = 10000;
    request.op_case = WEIR__REQUEST__OP_SUBSCRIBE;
    request.subscribe = &op;
    Weir__Reply *reply = raw_call(r, &request);
    struct raw_subscription sub = {.st = (enum weir_status)reply->status,
                                   .reply_offset = reply->offset};
    if (!sub.st) {
        cr_assert_eq(reply->result_case, WEIR__REPLY__RESULT_SUBSCRIBED);
        sub.channel = reply->subscribed->channel;
        sub.offset = reply->subscribed->offset;
        sub.tail = reply->subscribed->tail;
        sub.from_checkpoint = reply->subscribed->from_checkpoint;
    }
    weir_message_free(&reply->base);
    return sub;
}

void
raw_credit(struct raw *r, uint32_t channel, uint64_t bytes, uint64_t frames)
{
    struct weir_frame frame = {
        .kind = WEIR_FRAME_CREDIT, .channel = channel, .number = frames, .offset = bytes};
    raw_send(r, &frame, weir_bytes(NULL, 0));
    broker_step(r->broker);
}

/* ---- records ---- */

struct weir_buf *
make_batch(const char *key, uint32_t count, weir_u128 producer, uint64_t number)
{
    struct weir_batch_builder *builder;
    struct weir_buf *batch;
    OK(weir_batch_builder_new(WEIR_MIB, &builder));
    for (uint32_t i = 0; i < count; i++) {
        char data[64];
        int len = snprintf(data, sizeof data, "%s-%u", key, i);
        struct weir_record record = {.key = weir_bytes_of(key),
                                     .data = weir_bytes(data, (size_t)len)};
        OK(weir_batch_builder_add(builder, &record, weir_hash_key(record.key)));
    }
    OK(weir_batch_builder_finish(builder, WEIR_CODEC_NONE, producer, number, &batch));
    weir_batch_builder_free(builder);
    return batch;
}

void
raw_produce(struct raw *r, uint32_t channel, const char *key, uint32_t count, weir_u128 producer,
            uint64_t number)
{
    struct weir_buf *batch = make_batch(key, count, producer, number);
    struct weir_frame frame = {.kind = WEIR_FRAME_PRODUCE, .channel = channel, .number = number};
    raw_send(r, &frame, weir_buf_bytes(batch));
    weir_buf_unref(batch);
}

struct weir_frame
raw_put(struct raw *r, uint32_t channel, const char *key, uint32_t count, weir_u128 producer,
        uint64_t number)
{
    raw_produce(r, channel, key, count, producer, number);
    struct raw_frame *f = raw_expect(r, WEIR_FRAME_ACK);
    struct weir_frame ack = f->frame;
    cr_expect_eq(ack.channel, channel);
    cr_expect_eq(ack.number, number);
    raw_frame_free(f);
    return ack;
}

void
key_for(uint32_t shard, uint32_t shards, char out[32])
{
    struct weir_hash_range range = weir_hash_range_of(shard, shards);
    for (unsigned i = 0;; i++) {
        snprintf(out, 32, "key-%u", i);
        if (weir_hash_range_has(range, weir_hash_key(weir_bytes_of(out))))
            return;
    }
}

uint64_t
raw_drain_data(struct raw *r, uint32_t channel, uint64_t *next)
{
    uint64_t records = 0;
    broker_step(r->broker);
    WEIR_LIST_FOR_EACH_SAFE (node, &r->frames) {
        struct raw_frame *f = WEIR_CONTAINER(node, struct raw_frame, node);
        if (f->frame.kind != WEIR_FRAME_DATA || f->frame.channel != channel)
            continue;
        struct weir_bytes rest = f->frame.body;
        while (rest.len) {
            struct weir_batch_info info;
            OK(weir_batch_check(rest, &info));
            cr_assert_eq(info.offset, *next);
            *next += info.count;
            records += info.count;
            rest = weir_bytes(rest.data + info.size, rest.len - info.size);
        }
        cr_assert_eq(f->frame.offset, *next);
        raw_frame_free(f);
    }
    return records;
}
