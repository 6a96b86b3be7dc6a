/* The native door: any bytes of a client that said HELLO, against a whole broker, stepped, over a
 * disk in memory. The input is a row of messages, each with its length (two bytes, little-endian)
 * in front.
 *
 * A stream "s" is there, channel 1 of owner 0 or 1 is a producer on its shard 0, channel 2 a
 * subscription. The batch of a PRODUCE is made right as far as magic, size and checksum go, or the
 * fuzzer would test the checksum alone. Afterwards everything must be closed and nothing may be
 * left. */
#include "base/assert.h"
#include "native/native.h"
#include "record/batch.h"
#include "record/checksum.h"
#include "sys/memfs.h"
#include "wire/message.h"
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define STEPS_MAX 1000000
#define MESSAGES_MAX 200
enum { FRAME = sizeof(struct weir_frame_header), BATCH = sizeof(struct weir_batch_header) };

struct world {
    struct weir_memfs *disk;
    struct weir_clock_manual clock;
    struct weir_pool *pool;
    struct weir_sys sys;
    struct weir_loop *clients;
    struct weir_service *service;
    struct weir_native *native;
    struct weir_conn *conn;
    bool closed;
    uint32_t channel[2]; /* of the two calls that open one */
    uint32_t opened;
};

static void
step(struct world *w)
{
    size_t ran;
    do {
        ran = weir_service_step(w->service);
        ran += weir_loop_step(w->clients, STEPS_MAX);
    } while (ran);
}

static void
learn_channel(struct world *w, struct weir_bytes body)
{
    ProtobufCMessage *message;
    WEIR_ASSERT(weir_message_unpack(&weir__reply__descriptor, body, &message) == WEIR_OK);
    const Weir__Reply *reply = (const Weir__Reply *)message;
    if (w->opened < 2 && reply->result_case == WEIR__REPLY__RESULT_PRODUCER)
        w->channel[w->opened++] = reply->producer->channel;
    else if (w->opened < 2 && reply->result_case == WEIR__REPLY__RESULT_SUBSCRIBED)
        w->channel[w->opened++] = reply->subscribed->channel;
    weir_message_free(message);
}

static bool
on_message(void *arg, struct weir_conn *conn, struct weir_buf *message)
{
    struct weir_frame frame;
    (void)conn;
    /* Whatever we said, what comes back is sound. */
    WEIR_ASSERT(weir_frame_decode(weir_buf_bytes(message), &frame) == WEIR_OK);
    if (frame.kind == WEIR_FRAME_REPLY)
        learn_channel(arg, frame.body);
    weir_buf_unref(message);
    return true;
}

static void
on_closed(void *arg, struct weir_conn *conn, enum weir_status why)
{
    (void)conn;
    (void)why;
    ((struct world *)arg)->closed = true;
}

static void
on_dialed(void *arg, struct weir_conn *conn, enum weir_status st)
{
    static const struct weir_conn_events events = {on_message, on_closed};
    struct world *w = arg;
    WEIR_ASSERT(st == WEIR_OK);
    w->conn = conn;
    weir_conn_set_events(conn, &events, w);
}

static void
on_sent(struct weir_send *send, enum weir_status st)
{
    (void)st;
    weir_buf_unref(send->piece[0].buf);
    free(send);
}

static void
send_buf(struct world *w, struct weir_buf *buf)
{
    struct weir_send *send = calloc(1, sizeof *send);
    WEIR_ASSERT(send);
    send->count = 1;
    send->piece[0] = (struct weir_slice){buf, 0, buf->len};
    send->sent = on_sent;
    weir_conn_send(w->conn, send);
}

static void
send_message(struct world *w, enum weir_frame_kind kind, const ProtobufCMessage *message)
{
    struct weir_frame frame = {.kind = kind, .number = 1};
    struct weir_buf *buf;
    WEIR_ASSERT(weir_message_frame(&frame, message, &buf) == WEIR_OK);
    send_buf(w, buf);
    step(w);
}

static char name[] = "s";

static void
prepare(struct world *w)
{
    Weir__Hello hello = WEIR__HELLO__INIT;
    hello.version = hello.version_min = 1;
    send_message(w, WEIR_FRAME_HELLO, &hello.base);

    Weir__CreateStream create = WEIR__CREATE_STREAM__INIT;
    Weir__Request request = WEIR__REQUEST__INIT;
    create.name = name;
    create.shard_count = 2;
    request.op_case = WEIR__REQUEST__OP_CREATE_STREAM;
    request.create_stream = &create;
    send_message(w, WEIR_FRAME_CALL, &request.base);

    Weir__OpenProducer open = WEIR__OPEN_PRODUCER__INIT;
    open.stream = name;
    request.op_case = WEIR__REQUEST__OP_OPEN_PRODUCER;
    request.open_producer = &open;
    send_message(w, WEIR_FRAME_CALL, &request.base);

    Weir__Subscribe subscribe = WEIR__SUBSCRIBE__INIT;
    Weir__Position position = WEIR__POSITION__INIT;
    subscribe.stream = name;
    subscribe.position = &position;
    subscribe.credit_bytes = 1000;
    subscribe.credit_frames = 3;
    subscribe.consumer = name;
    request.op_case = WEIR__REQUEST__OP_SUBSCRIBE;
    request.subscribe = &subscribe;
    send_message(w, WEIR_FRAME_CALL, &request.base);
    WEIR_ASSERT(w->opened == 2);
}

/* Channels 1 and 2 become the real ones; a batch gets what only a producer can know. */
static void
repair(struct world *w, uint8_t *message, size_t len)
{
    if (len < FRAME)
        return;
    struct weir_frame_header h;
    memcpy(&h, message, sizeof h);
    uint32_t channel = weir_get32(h.channel);
    if (channel == 1 || channel == 2)
        h.channel = weir_put32(w->channel[channel - 1]);
    memcpy(message, &h, sizeof h);
    if (h.kind != WEIR_FRAME_PRODUCE || len < FRAME + BATCH)
        return;
    struct weir_batch_header b;
    memcpy(&b, message + FRAME, sizeof b);
    b.magic = weir_put32(WEIR_BATCH_MAGIC);
    b.size = weir_put32((uint32_t)(len - FRAME));
    b.body_hash =
        weir_put128(weir_checksum(weir_bytes(message + FRAME + BATCH, len - FRAME - BATCH)));
    memcpy(message + FRAME, &b, sizeof b);
}

static void
feed(struct world *w, const uint8_t *data, size_t size)
{
    for (int i = 0; i < MESSAGES_MAX && size >= 2 && !w->closed; i++) {
        size_t len = (size_t)data[0] | (size_t)data[1] << 8;
        data += 2;
        size -= 2;
        if (len > size)
            len = size;
        struct weir_buf *buf = weir_buf_copy(weir_bytes(data, len));
        WEIR_ASSERT(buf);
        repair(w, buf->data, len);
        send_buf(w, buf);
        /* Some come together, some alone. */
        if (len % 2)
            step(w);
        data += len;
        size -= len;
    }
    step(w);
    weir_clock_manual_advance(&w->clock, 1000);
    step(w);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const urls[] = {"inproc://fuzz"};
    struct world w = {.disk = weir_memfs_new()};
    WEIR_ASSERT(w.disk);
    weir_clock_manual_init(&w.clock, 1764320000000u);
    WEIR_ASSERT(weir_pool_new("pool", 0, &w.pool) == WEIR_OK);
    WEIR_ASSERT(weir_loop_new(&w.clock.clock, "clients", &w.clients) == WEIR_OK);
    w.sys = (struct weir_sys){
        .fs = weir_memfs_fs(w.disk), .clock = &w.clock.clock, .pool = w.pool, .seed = 7};
    struct weir_service_config config = {.sys = &w.sys,
                                         .owners = 2,
                                         .segment_bytes = WEIR_MIB,
                                         .group_bytes_max = 64 * WEIR_KIB,
                                         .queue_bytes_max = WEIR_MIB,
                                         .cache_bytes_max = WEIR_MIB,
                                         .interval_ms = 100,
                                         .producer_expiry_ms = 3600000};
    WEIR_ASSERT(weir_service_open(&config, &w.service, NULL) == WEIR_OK);
    struct weir_native_options options = {
        .urls = urls, .url_count = 1, .window_bytes = 128 * WEIR_KIB, .channels_max = 50};
    WEIR_ASSERT(weir_native_open(w.service, &options, &w.native, NULL) == WEIR_OK);
    struct weir_transport_options transport = {.message_bytes_max = WEIR_FRAME_BYTES_MAX,
                                               .first_message_bytes_max = WEIR_FRAME_BYTES_MAX,
                                               .loop = w.clients};
    WEIR_ASSERT(weir_dial(&w.sys, urls[0], &transport, on_dialed, &w, NULL) == WEIR_OK);
    step(&w);
    prepare(&w);

    feed(&w, data, size);

    weir_conn_close(w.conn);
    step(&w);
    WEIR_ASSERT(w.closed);
    weir_conn_unref(w.conn);
    WEIR_ASSERT(weir_native_connections(w.native) == 0);
    weir_native_close(w.native);
    weir_service_close(w.service);
    weir_loop_stop(w.clients);
    weir_loop_free(w.clients);
    weir_pool_free(w.pool);
    weir_memfs_free(w.disk);
    size_t live, pooled;
    weir_buf_usage(&live, &pooled);
    WEIR_ASSERT(live == 0);
    return 0;
}
