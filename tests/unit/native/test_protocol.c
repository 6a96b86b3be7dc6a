/* The native protocol, with a client that also breaks it. */
#include "unit/native/harness.h"
#include <stdio.h>
#include <stdlib.h>

static struct broker broker;

static void
setup(void)
{
    broker_init(&broker);
    broker.options.connections_max = 4;
    broker.options.channels_max = 3;
    broker.options.window_bytes = 4 * WEIR_KIB;
    broker_start(&broker);
}

static void
teardown(void)
{
    broker_fini(&broker);
}

TestSuite(protocol, .init = setup, .fini = teardown, .timeout = 60);

static void
send_hello(struct raw *r, uint32_t version, uint32_t version_min)
{
    Weir__Hello hello = WEIR__HELLO__INIT;
    hello.version = version;
    hello.version_min = version_min;
    struct weir_frame frame = {.kind = WEIR_FRAME_HELLO};
    raw_send_message(r, &frame, &hello.base);
}

/* The connection is closed, the log says why, and others go on. */
static void
expect_broken(struct raw *r, const char *why)
{
    broker_step(&broker);
    cr_expect(r->closed, "it was not closed for '%s'", why);
    cr_expect(strstr(broker.last_log, why), "'%s' does not say '%s'", broker.last_log, why);
    raw_close(r);
    struct raw *other = raw_open(&broker);
    raw_close(other);
}

static int64_t
metric(enum weir_metric id)
{
    struct weir_metrics *all[3] = {weir_service_metrics(broker.service),
                                   weir_service_owner(broker.service, 0)->metrics,
                                   weir_service_owner(broker.service, 1)->metrics};
    return weir_metric_sum(all, 3, id);
}

/* ---- greeting ---- */

/* The broker answers HELLO with what it is and what it allows. */
Test(protocol, welcomes)
{
    struct raw *r = raw_connect(&broker);
    send_hello(r, 7, 1);
    struct raw_frame *f = raw_expect(r, WEIR_FRAME_WELCOME);
    ProtobufCMessage *message;
    OK(weir_message_unpack(&weir__welcome__descriptor, f->frame.body, &message));
    const Weir__Welcome *w = (const Weir__Welcome *)message;
    cr_expect_eq(w->version, (uint32_t)WEIR_WIRE_VERSION);
    cr_expect_eq(w->frame_bytes_max, WEIR_FRAME_BYTES_MAX);
    cr_expect_eq(w->heartbeat_ms, 5000u);
    cr_expect_eq(w->now_ms, START_MS);
    cr_expect_eq(strlen(w->data_id), 32u);
    weir_message_free(message);
    raw_frame_free(f);
    raw_close(r);
}

/* A client of another time is told which versions there are. */
Test(protocol, refuses_a_version_it_does_not_speak)
{
    struct raw *r = raw_connect(&broker);
    send_hello(r, 9, 5);
    struct raw_frame *f = raw_expect(r, WEIR_FRAME_REFUSE);
    ProtobufCMessage *message;
    OK(weir_message_unpack(&weir__refusal__descriptor, f->frame.body, &message));
    cr_expect_eq(((const Weir__Refusal *)message)->status, (uint32_t)WEIR_UNSUPPORTED);
    weir_message_free(message);
    raw_frame_free(f);
    /* It need not close; then the broker does. */
    broker_advance(&broker, 5000);
    cr_expect(r->closed);
    raw_close(r);
}

/* Whoever says nothing is not waited for. */
Test(protocol, waits_for_hello_five_seconds)
{
    struct raw *r = raw_connect(&broker);
    broker_advance(&broker, 4900);
    cr_expect_not(r->closed);
    broker_advance(&broker, 200);
    expect_broken(r, "no HELLO");
}

Test(protocol, wants_hello_first)
{
    struct raw *r = raw_connect(&broker);
    struct weir_frame ping = {.kind = WEIR_FRAME_PING};
    raw_send(r, &ping, weir_bytes(NULL, 0));
    expect_broken(r, "not HELLO");
}

Test(protocol, wants_hello_once)
{
    struct raw *r = raw_open(&broker);
    send_hello(r, 1, 1);
    expect_broken(r, "twice");
}

/* Nobody knows the peer yet: it may say 4 KiB. */
Test(protocol, bounds_the_first_message)
{
    struct raw *r = raw_connect(&broker);
    uint8_t *bytes = calloc(1, 64 * WEIR_KIB);
    raw_send_bytes(r, weir_bytes(bytes, 64 * WEIR_KIB));
    free(bytes);
    broker_step(&broker);
    cr_expect(r->closed);
    raw_close(r);
}

/* More connections than allowed are told so; when one goes there is room again. */
Test(protocol, bounds_connections)
{
    struct raw *r[4];
    for (int i = 0; i < 4; i++)
        r[i] = raw_open(&broker);
    struct raw *more = raw_connect(&broker);
    send_hello(more, 1, 1);
    raw_frame_free(raw_expect(more, WEIR_FRAME_REFUSE));
    raw_close(more);
    raw_close(r[0]);
    r[0] = raw_open(&broker);
    for (int i = 0; i < 4; i++)
        raw_close(r[i]);
    cr_expect_eq(weir_native_connections(broker.native), 0u);
    cr_expect_eq(metric(WEIR_METRIC_CONNECTIONS), 0);
}

/* ---- liveness ---- */

Test(protocol, answers_pings)
{
    struct raw *r = raw_open(&broker);
    struct weir_frame ping = {.kind = WEIR_FRAME_PING, .value = 4711};
    raw_send(r, &ping, weir_bytes(NULL, 0));
    struct raw_frame *pong = raw_expect(r, WEIR_FRAME_PONG);
    cr_expect_eq(pong->frame.value, 4711u);
    raw_frame_free(pong);
    raw_close(r);
}

/* A half-open connection, whose other end is gone without a word, ends by itself; one that answers
 * lives on. */
Test(protocol, closes_a_silent_peer)
{
    struct raw *silent = raw_open(&broker), *lively = raw_open(&broker);
    silent->keep_pings = true;
    broker_advance(&broker, 14000);
    cr_expect_not(silent->closed);
    raw_frame_free(raw_expect(silent, WEIR_FRAME_PING));
    broker_advance(&broker, 7000);
    cr_expect(silent->closed);
    cr_expect_not(lively->closed);
    raw_close(silent);
    raw_close(lively);
}

/* One that does not fetch what was sent to it is let go in the end, and what it held is free. */
Test(protocol, closes_a_peer_that_fetches_nothing)
{
    struct raw *r = raw_open(&broker), *lively = raw_open(&broker);
    r->deaf = true;
    for (int i = 0; i < 10; i++) {
        struct weir_frame ping = {.kind = WEIR_FRAME_PING, .value = 1};
        raw_send(r, &ping, weir_bytes(NULL, 0));
        broker_advance(&broker, 10000);
        if (r->closed)
            break;
    }
    cr_expect(r->closed);
    cr_expect_not(lively->closed);
    raw_close(r);
    raw_close(lively);
}

/* BYE ends it without noise. */
Test(protocol, takes_leave)
{
    struct raw *r = raw_open(&broker);
    struct weir_frame bye = {.kind = WEIR_FRAME_BYE};
    raw_send(r, &bye, weir_bytes(NULL, 0));
    broker_step(&broker);
    cr_expect(r->closed);
    cr_expect_eq(metric(WEIR_METRIC_CONNECTIONS_REFUSED), 0);
    raw_close(r);
}

/* ---- hostile frames ---- */

Test(protocol, refuses_a_truncated_frame)
{
    struct raw *r = raw_open(&broker);
    raw_send_bytes(r, weir_bytes("\x04\0\0\0", 4));
    expect_broken(r, "a frame of 4 bytes");
}

Test(protocol, refuses_an_empty_message)
{
    struct raw *r = raw_open(&broker);
    raw_send_bytes(r, weir_bytes("", 0));
    expect_broken(r, "a frame of 0 bytes");
}

Test(protocol, refuses_a_kind_that_is_not_a_clients)
{
    struct raw *r = raw_open(&broker);
    struct weir_frame frame = {.kind = WEIR_FRAME_ACK};
    raw_send(r, &frame, weir_bytes(NULL, 0));
    expect_broken(r, "not a client's");
}

Test(protocol, refuses_a_kind_that_is_none)
{
    struct raw *r = raw_open(&broker);
    uint8_t frame[40] = {99};
    raw_send_bytes(r, weir_bytes(frame, sizeof frame));
    expect_broken(r, "a frame of 40 bytes");
}

Test(protocol, refuses_a_call_that_is_no_message)
{
    struct raw *r = raw_open(&broker);
    struct weir_frame frame = {.kind = WEIR_FRAME_CALL, .number = 1};
    raw_send(r, &frame, weir_bytes("\xff\xff\xff\xff", 4));
    expect_broken(r, "its CALL is");
}

/* A newer client's operation is answered, not punished. */
Test(protocol, answers_a_call_it_does_not_know)
{
    struct raw *r = raw_open(&broker);
    Weir__Request request = WEIR__REQUEST__INIT;
    cr_expect_eq(raw_ask(r, &request), WEIR_UNSUPPORTED);
    raw_close(r);
}

Test(protocol, refuses_a_batch_for_an_owner_that_is_not_there)
{
    struct raw *r = raw_open(&broker);
    raw_produce(r, weir_channel_make(1, 200), "a", 1, 0, 0);
    expect_broken(r, "never opened");
}

Test(protocol, refuses_a_batch_for_a_channel_that_was_not_opened)
{
    struct raw *r = raw_open(&broker);
    raw_produce(r, weir_channel_make(1, 0), "a", 1, 0, 0);
    expect_broken(r, "not a producer's");
}

/* A channel is the connection's: nobody else can write to it. */
Test(protocol, keeps_channels_apart)
{
    struct raw *r = raw_open(&broker), *other = raw_open(&broker);
    OK(raw_create(r, "orders", 1));
    uint32_t channel = raw_producer(r, "orders", 0, 0);
    raw_produce(other, channel, "a", 1, 0, 0);
    broker_step(&broker);
    cr_expect(other->closed);
    cr_expect_eq(raw_put(r, channel, "a", 1, 0, 0).offset, 0u);
    raw_close(other);
    raw_close(r);
}

/* A batch that is not sound is refused, and costs nobody but itself. */
Test(protocol, refuses_a_damaged_batch)
{
    struct raw *r = raw_open(&broker);
    OK(raw_create(r, "orders", 1));
    uint32_t channel = raw_producer(r, "orders", 0, 0);
    struct weir_buf *batch = make_batch("a", 3, 0, 0);
    batch->data[batch->len - 1] ^= 1;
    struct weir_frame frame = {.kind = WEIR_FRAME_PRODUCE, .channel = channel, .number = 1};
    raw_send(r, &frame, weir_buf_bytes(batch));
    struct raw_frame *ack = raw_expect(r, WEIR_FRAME_ACK);
    cr_expect_eq(ack->frame.status, WEIR_DAMAGED);
    raw_frame_free(ack);
    /* Cut short, and with something behind it. */
    raw_send(r, &frame, weir_bytes(batch->data, batch->len - 1));
    ack = raw_expect(r, WEIR_FRAME_ACK);
    cr_expect_neq(ack->frame.status, WEIR_OK);
    raw_frame_free(ack);
    weir_buf_unref(batch);
    cr_expect_eq(raw_put(r, channel, "a", 1, 0, 0).offset, 0u);
    raw_close(r);
}

/* Calls whose answers are not fetched count as not done with: after some hundreds no more are
 * taken, and all are answered once the client reads. */
Test(protocol, bounds_calls)
{
    enum { CALLS = 2000 };
    struct raw *r = raw_open(&broker);
    Weir__ListStreams list = WEIR__LIST_STREAMS__INIT;
    Weir__Request request = WEIR__REQUEST__INIT;
    request.op_case = WEIR__REQUEST__OP_LIST_STREAMS;
    request.list_streams = &list;
    int64_t before = metric(WEIR_METRIC_CALLS);
    r->deaf = true;
    for (uint64_t i = 1; i <= CALLS; i++) {
        struct weir_frame frame = {.kind = WEIR_FRAME_CALL, .number = i};
        raw_send_message(r, &frame, &request.base);
    }
    broker_step(&broker);
    int64_t taken = metric(WEIR_METRIC_CALLS) - before;
    cr_expect(taken > 100 && taken < 600, "%ld", (long)taken);
    r->deaf = false;
    weir_conn_resume(r->conn);
    broker_step(&broker);
    for (uint64_t i = 1; i <= CALLS; i++)
        raw_frame_free(raw_expect(r, WEIR_FRAME_REPLY));
    cr_expect_not(r->closed);
    raw_close(r);
}

/* A producer keeps its window. */
Test(protocol, bounds_what_a_producer_has_in_flight)
{
    struct raw *r = raw_open(&broker);
    OK(raw_create(r, "orders", 1));
    uint32_t channel = raw_producer(r, "orders", 0, 0);
    raw_produce(r, channel, "a", 1000, 0, 0);
    expect_broken(r, "window");
}

Test(protocol, refuses_credit_without_end)
{
    struct raw *r = raw_open(&broker);
    OK(raw_create(r, "orders", 1));
    struct raw_subscription sub =
        raw_subscribe(r, "orders", 0, raw_position(WEIR__POSITION__KIND__OLDEST, 0), "");
    OK(sub.st);
    raw_credit(r, sub.channel, UINT64_MAX, 1);
    expect_broken(r, "credit");
}

/* Credit for a subscription that ended meanwhile crosses its end: no fault. */
Test(protocol, ignores_late_credit)
{
    struct raw *r = raw_open(&broker);
    OK(raw_create(r, "orders", 1));
    raw_credit(r, weir_channel_make(77, 1), 1, 1);
    broker_step(&broker);
    cr_expect_not(r->closed);
    raw_close(r);
}

/* ---- channels ---- */

static enum weir_status
close_channel(struct raw *r, uint32_t channel)
{
    Weir__CloseChannel op = WEIR__CLOSE_CHANNEL__INIT;
    Weir__Request request = WEIR__REQUEST__INIT;
    op.channel = channel;
    request.op_case = WEIR__REQUEST__OP_CLOSE_CHANNEL;
    request.close_channel = &op;
    return raw_ask(r, &request);
}

/* Channels of a connection are bounded; a closed one makes room. */
Test(protocol, bounds_channels)
{
    struct raw *r = raw_open(&broker);
    OK(raw_create(r, "orders", 1));
    Weir__Position oldest = raw_position(WEIR__POSITION__KIND__OLDEST, 0);
    struct raw_subscription sub = raw_subscribe(r, "orders", 0, oldest, "");
    OK(sub.st);
    OK(raw_subscribe(r, "orders", 0, oldest, "").st);
    OK(raw_subscribe(r, "orders", 0, oldest, "").st);
    cr_expect_eq(raw_subscribe(r, "orders", 0, oldest, "").st, WEIR_TOO_BIG);
    OK(close_channel(r, sub.channel));
    cr_expect_eq(close_channel(r, sub.channel), WEIR_NOT_FOUND);
    cr_expect_eq(close_channel(r, 0xffffffff), WEIR_NOT_FOUND);
    OK(raw_subscribe(r, "orders", 0, oldest, "").st);
    raw_close(r);
}

/* With a connection go its subscriptions and producers, whatever was in flight. */
Test(protocol, lets_everything_go_with_the_connection)
{
    struct raw *r = raw_open(&broker), *other = raw_open(&broker);
    OK(raw_create(r, "orders", 2));
    Weir__Position oldest = raw_position(WEIR__POSITION__KIND__OLDEST, 0);
    OK(raw_subscribe(r, "orders", 0, oldest, "a").st);
    OK(raw_subscribe(r, "orders", 1, oldest, "a").st);
    cr_expect_eq(metric(WEIR_METRIC_SUBSCRIPTIONS), 2);
    char key[32];
    key_for(0, 2, key);
    raw_produce(r, raw_producer(r, "orders", 0, 0), key, 3, 0, 0);
    raw_close(r);
    cr_expect_eq(metric(WEIR_METRIC_SUBSCRIPTIONS), 0);
    cr_expect_eq(raw_subscribe(other, "orders", 0, oldest, "").st, WEIR_OK);
    raw_close(other);
}

/* Nothing is sent beyond the credit; credit goes on where it stopped. */
Test(protocol, sends_within_the_credit)
{
    struct raw *r = raw_open(&broker);
    OK(raw_create(r, "orders", 1));
    Weir__Subscribe op = WEIR__SUBSCRIBE__INIT;
    Weir__Request request = WEIR__REQUEST__INIT;
    Weir__Position position = raw_position(WEIR__POSITION__KIND__OLDEST, 0);
    op.stream = (char *)(uintptr_t) "orders";
    op.position = &position;
    op.credit_bytes = WEIR_MIB;
    op.credit_frames = 2;
    request.op_case = WEIR__REQUEST__OP_SUBSCRIBE;
    request.subscribe = &op;
    Weir__Reply *reply = raw_call(r, &request);
    uint32_t channel = reply->subscribed->channel;
    weir_message_free(&reply->base);
    uint32_t producer = raw_producer(r, "orders", 0, 0);
    uint64_t next = 0, records = 0;
    for (int i = 0; i < 4; i++) {
        raw_produce(r, producer, "a", 1, 0, 0);
        records += raw_drain_data(r, channel, &next);
    }
    cr_expect_eq(records, 2u, "two frames were allowed");
    raw_credit(r, channel, 0, 2);
    records += raw_drain_data(r, channel, &next);
    cr_expect_eq(records, 4u);
    raw_close(r);
}
