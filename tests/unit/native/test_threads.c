/* A broker with its threads, on a real disk, over ipc: clients that come, write, read, split, and
 * go, all at once. What this shows is the absence of races (under ThreadSanitizer) and that
 * everything ends. */
#include "unit/native/harness.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define CLIENTS 3
#define BATCHES 60
#define RECORDS 5
#define PATIENCE_S 60

/* As cr_assert, for threads that are not the test's own. */
#define MUST(condition)                                                     \
    do {                                                                    \
        if (!(condition)) {                                                 \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
            abort();                                                        \
        }                                                                   \
    } while (0)

struct live {
    char directory[64], url[256];
    bool tls;
    struct weir_fs *fs;
    struct weir_sys sys;
    struct weir_service *service;
    struct weir_native *native;
};

static void
live_start(struct live *l)
{
    struct weir_error err = {0};
    snprintf(l->directory, sizeof l->directory, "/tmp/weir-threads-XXXXXX");
    cr_assert_not_null(mkdtemp(l->directory));
    OK(weir_fs_posix(l->directory, &l->fs, &err));
    OK(weir_pool_new("pool", 2, &l->sys.pool));
    l->sys.fs = l->fs;
    l->sys.clock = weir_clock_system();
    l->sys.threads = true;
    l->sys.seed = 3;
    struct weir_service_config config = {
        .sys = &l->sys,
        .owners = 2,
        .segment_bytes = 4 * WEIR_MIB,
        .group_bytes_max = WEIR_MIB,
        .queue_bytes_max = 16 * WEIR_MIB,
        .cache_bytes_max = 4 * WEIR_MIB,
        .interval_ms = 100,
        .producer_expiry_ms = 24 * HOUR_MS,
    };
    enum weir_status st = weir_service_open(&config, &l->service, &err);
    cr_assert_eq(st, WEIR_OK, "%s", err.text);
    char certificate[128], key[128];
    snprintf(certificate, sizeof certificate, "%s/cert.pem", l->directory);
    snprintf(key, sizeof key, "%s/key.pem", l->directory);
    if (l->tls)
        snprintf(l->url, sizeof l->url, "tls+tcp://127.0.0.1:0");
    else
        snprintf(l->url, sizeof l->url, "ipc://%s/sock", l->directory);
    const char *urls[] = {l->url};
    struct weir_native_options options = {.urls = urls, .url_count = 1};
    if (l->tls) {
        char command[512];
        snprintf(
            command, sizeof command,
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
            "-subj /CN=localhost -keyout %s -out %s 2>/dev/null",
            key, certificate);
        cr_assert_eq(system(command), 0, "openssl made no certificate");
        options.tls_certificate = certificate;
        options.tls_key = key;
    }
    st = weir_native_open(l->service, &options, &l->native, &err);
    cr_assert_eq(st, WEIR_OK, "%s", err.text);
    snprintf(l->url, sizeof l->url, "%s", weir_native_address(l->native, 0));
}

static void
remove_entry(void *arg, const struct weir_fs_entry *entry)
{
    struct weir_fs *fs = arg;
    (void)!weir_fs_remove(fs, entry->name);
}

struct below {
    struct weir_fs *fs;
    const char *directory;
};

static void
remove_below(void *arg, const struct weir_fs_entry *entry)
{
    struct below *below = arg;
    char path[600];
    snprintf(path, sizeof path, "%s/%s", below->directory, entry->name);
    (void)!weir_fs_remove(below->fs, path);
}

static void
live_stop(struct live *l)
{
    weir_native_close(l->native);
    weir_service_close(l->service);
    weir_pool_free(l->sys.pool);
    static const char *const journals[] = {"journal-0", "journal-1"};
    for (int i = 0; i < 2; i++) {
        struct below below = {l->fs, journals[i]};
        (void)!weir_fs_list(l->fs, journals[i], remove_below, &below);
    }
    (void)!weir_fs_list(l->fs, "", remove_entry, l->fs);
    weir_fs_posix_free(l->fs);
    rmdir(l->directory);
}

/* ---- a client with frames in a queue ---- */

struct client {
    struct live *live;
    struct weir_conn *conn;
    pthread_mutex_t mtx;
    pthread_cond_t changed;
    struct weir_list frames; /* under mtx, like the rest */
    bool dialed, closed;
    uint64_t calls;
};

static bool
on_message(void *arg, struct weir_conn *conn, struct weir_buf *message)
{
    struct client *c = arg;
    (void)conn;
    struct raw_frame *f = calloc(1, sizeof *f);
    f->buf = message;
    if (weir_frame_decode(weir_buf_bytes(message), &f->frame))
        abort();
    pthread_mutex_lock(&c->mtx);
    weir_list_push_back(&c->frames, &f->node);
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->mtx);
    return true;
}

static void
on_closed(void *arg, struct weir_conn *conn, enum weir_status why)
{
    struct client *c = arg;
    (void)conn;
    (void)why;
    pthread_mutex_lock(&c->mtx);
    c->closed = true;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->mtx);
}

static void
on_dialed(void *arg, struct weir_conn *conn, enum weir_status st)
{
    static const struct weir_conn_events events = {on_message, on_closed};
    struct client *c = arg;
    if (!st)
        weir_conn_set_events(conn, &events, c);
    pthread_mutex_lock(&c->mtx);
    c->conn = conn;
    c->dialed = true;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->mtx);
}

static void
on_sent(struct weir_send *send, enum weir_status st)
{
    (void)st;
    weir_buf_unref(send->piece[0].buf);
    free(send);
}

static void
send_buf(struct client *c, struct weir_buf *buf)
{
    struct weir_send *send = calloc(1, sizeof *send);
    send->count = 1;
    send->piece[0] = (struct weir_slice){buf, 0, buf->len};
    send->sent = on_sent;
    weir_conn_send(c->conn, send);
}

static void
send_message(struct client *c, const struct weir_frame *frame, const ProtobufCMessage *m)
{
    struct weir_buf *buf;
    MUST(!weir_message_frame(frame, m, &buf));
    send_buf(c, buf);
}

static void
wait_for(struct client *c, const bool *flag)
{
    struct timespec deadline;
    clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_sec += PATIENCE_S;
    while (!*flag)
        MUST(pthread_cond_timedwait(&c->changed, &c->mtx, &deadline) == 0);
}

/* The next frame of that kind and channel; others are let go. */
static struct raw_frame *
next(struct client *c, enum weir_frame_kind kind, uint32_t channel)
{
    struct timespec deadline;
    clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_sec += PATIENCE_S;
    pthread_mutex_lock(&c->mtx);
    for (;;) {
        WEIR_LIST_FOR_EACH (node, &c->frames) {
            struct raw_frame *f = WEIR_CONTAINER(node, struct raw_frame, node);
            if (f->frame.kind != kind || f->frame.channel != channel)
                continue;
            weir_list_remove(&f->node);
            pthread_mutex_unlock(&c->mtx);
            return f;
        }
        MUST(!c->closed);
        MUST(pthread_cond_timedwait(&c->changed, &c->mtx, &deadline) == 0);
    }
}

static void
client_open(struct client *c, struct live *live)
{
    *c = (struct client){.live = live};
    pthread_mutex_init(&c->mtx, NULL);
    pthread_cond_init(&c->changed, NULL);
    weir_list_init(&c->frames);
    struct weir_transport_options options = {.message_bytes_max = WEIR_FRAME_BYTES_MAX,
                                             .first_message_bytes_max = WEIR_FRAME_BYTES_MAX,
                                             .tls_insecure = live->tls};
    MUST(!weir_dial(&live->sys, live->url, &options, on_dialed, c, NULL));
    pthread_mutex_lock(&c->mtx);
    wait_for(c, &c->dialed);
    pthread_mutex_unlock(&c->mtx);
    MUST(c->conn);
    Weir__Hello hello = WEIR__HELLO__INIT;
    hello.version = hello.version_min = 1;
    send_message(c, &(struct weir_frame){.kind = WEIR_FRAME_HELLO}, &hello.base);
    raw_frame_free(next(c, WEIR_FRAME_WELCOME, 0));
}

static void
client_close(struct client *c)
{
    weir_conn_close(c->conn);
    pthread_mutex_lock(&c->mtx);
    wait_for(c, &c->closed);
    pthread_mutex_unlock(&c->mtx);
    weir_conn_unref(c->conn);
    while (!weir_list_is_empty(&c->frames))
        raw_frame_free(WEIR_CONTAINER(c->frames.next, struct raw_frame, node));
    pthread_mutex_destroy(&c->mtx);
    pthread_cond_destroy(&c->changed);
}

static Weir__Reply *
call(struct client *c, Weir__Request *request)
{
    struct weir_frame frame = {.kind = WEIR_FRAME_CALL, .number = ++c->calls};
    send_message(c, &frame, &request->base);
    struct raw_frame *f = next(c, WEIR_FRAME_REPLY, 0);
    ProtobufCMessage *reply;
    MUST(!weir_message_unpack(&weir__reply__descriptor, f->frame.body, &reply));
    raw_frame_free(f);
    return (Weir__Reply *)reply;
}

static void
create(struct client *c, char *name)
{
    Weir__CreateStream op = WEIR__CREATE_STREAM__INIT;
    Weir__Request request = WEIR__REQUEST__INIT;
    op.name = name;
    op.shard_count = 2;
    request.op_case = WEIR__REQUEST__OP_CREATE_STREAM;
    request.create_stream = &op;
    Weir__Reply *reply = call(c, &request);
    MUST(reply->status == WEIR_OK || reply->status == WEIR_EXISTS);
    weir_message_free(&reply->base);
}

static uint32_t
subscribe(struct client *c, char *name, uint32_t shard)
{
    Weir__Subscribe op = WEIR__SUBSCRIBE__INIT;
    Weir__Request request = WEIR__REQUEST__INIT;
    Weir__Position position = raw_position(WEIR__POSITION__KIND__OLDEST, 0);
    op.stream = name;
    op.shard = shard;
    op.position = &position;
    op.consumer = name;
    op.credit_bytes = 64 * WEIR_MIB;
    op.credit_frames = 100000;
    request.op_case = WEIR__REQUEST__OP_SUBSCRIBE;
    request.subscribe = &op;
    Weir__Reply *reply = call(c, &request);
    MUST(reply->status == WEIR_OK);
    uint32_t channel = reply->subscribed->channel;
    weir_message_free(&reply->base);
    return channel;
}

static uint32_t
producer(struct client *c, char *name, uint32_t shard)
{
    Weir__OpenProducer op = WEIR__OPEN_PRODUCER__INIT;
    Weir__Request request = WEIR__REQUEST__INIT;
    op.stream = name;
    op.shard = shard;
    request.op_case = WEIR__REQUEST__OP_OPEN_PRODUCER;
    request.open_producer = &op;
    Weir__Reply *reply = call(c, &request);
    MUST(reply->status == WEIR_OK);
    uint32_t channel = reply->producer->channel;
    weir_message_free(&reply->base);
    return channel;
}

static void
send_batch(struct client *c, uint32_t channel, uint64_t number, const char *key)
{
    struct weir_buf *batch = make_batch(key, RECORDS, 0, 0);
    struct weir_frame frame = {.kind = WEIR_FRAME_PRODUCE, .channel = channel, .number = number};
    struct weir_frame_header header;
    weir_frame_encode(&frame, &header);
    struct weir_buf *buf = weir_buf_new(sizeof header + batch->len);
    memcpy(buf->data, &header, sizeof header);
    memcpy(buf->data + sizeof header, batch->data, batch->len);
    buf->len = sizeof header + batch->len;
    weir_buf_unref(batch);
    send_buf(c, buf);
}

/* Sends batches and waits for each answer; how many were stored before the shard was closed. */
static unsigned
produce(struct client *c, uint32_t channel, const char *key)
{
    unsigned stored = 0;
    for (unsigned i = 0; i < BATCHES; i++) {
        send_batch(c, channel, i, key);
        struct raw_frame *ack = next(c, WEIR_FRAME_ACK, channel);
        MUST(ack->frame.number == i);
        MUST(ack->frame.status == WEIR_OK || ack->frame.status == WEIR_MOVED);
        stored += ack->frame.status == WEIR_OK;
        raw_frame_free(ack);
    }
    return stored;
}

/* Records that come on the channel until there were so many. */
static void
receive(struct client *c, uint32_t channel, uint64_t records)
{
    uint64_t offset = 0;
    while (offset < records) {
        struct raw_frame *f = next(c, WEIR_FRAME_DATA, channel);
        struct weir_bytes rest = f->frame.body;
        while (rest.len) {
            struct weir_batch_info info;
            MUST(!weir_batch_check(rest, &info));
            MUST(info.offset == offset);
            offset += info.count;
            rest = weir_bytes(rest.data + info.size, rest.len - info.size);
        }
        MUST(f->frame.offset == offset);
        raw_frame_free(f);
    }
    MUST(offset == records);
}

struct gate {
    pthread_mutex_t mtx;
    pthread_cond_t changed;
    unsigned count;
};

static void
gate_wait(struct gate *gate, unsigned count)
{
    struct timespec deadline;
    clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_sec += PATIENCE_S;
    pthread_mutex_lock(&gate->mtx);
    while (gate->count < count)
        cr_assert_eq(pthread_cond_timedwait(&gate->changed, &gate->mtx, &deadline), 0);
    pthread_mutex_unlock(&gate->mtx);
}

struct worker {
    struct live *live;
    struct gate *gate;
    pthread_t thread;
    unsigned number;
};

static void *
work(void *arg)
{
    struct worker *w = arg;
    char name[32], key[32];
    struct client c;
    snprintf(name, sizeof name, "stream-%u", w->number);
    key_for(1, 2, key);
    client_open(&c, w->live);
    create(&c, name);
    uint32_t sub = subscribe(&c, name, 1), channel = producer(&c, name, 1);
    unsigned stored = produce(&c, channel, key);
    MUST(stored == BATCHES);
    receive(&c, sub, (uint64_t)stored * RECORDS);

    Weir__SplitShard op = WEIR__SPLIT_SHARD__INIT;
    Weir__Request request = WEIR__REQUEST__INIT;
    op.name = name;
    op.shard = 1;
    request.op_case = WEIR__REQUEST__OP_SPLIT_SHARD;
    request.split_shard = &op;
    Weir__Reply *reply = call(&c, &request);
    MUST(reply->status == WEIR_OK);
    weir_message_free(&reply->base);
    raw_frame_free(next(&c, WEIR_FRAME_END, sub));
    MUST(produce(&c, channel, key) == 0u);
    client_close(&c);
    return NULL;
}

Test(threads, serve_many_clients_at_once, .timeout = 240)
{
    struct live live = {0};
    struct worker workers[CLIENTS];
    live_start(&live);
    for (unsigned i = 0; i < CLIENTS; i++) {
        workers[i] = (struct worker){.live = &live, .number = i};
        cr_assert_eq(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
    for (unsigned i = 0; i < CLIENTS; i++)
        pthread_join(workers[i].thread, NULL);
    live_stop(&live);
}

/* The same over TLS, with the certificate of the options. */
Test(threads, serve_over_tls, .timeout = 240)
{
    struct live live = {.tls = true};
    live_start(&live);
    struct worker worker = {.live = &live};
    work(&worker);
    live_stop(&live);
}

/* Clients come and go without a word, in the middle of everything; nothing of them stays. */
Test(threads, outlive_clients_that_vanish, .timeout = 240)
{
    struct live live = {0};
    live_start(&live);
    struct client c;
    client_open(&c, &live);
    create(&c, (char[]){"orders"});
    client_close(&c);
    for (unsigned i = 0; i < 30; i++) {
        client_open(&c, &live);
        subscribe(&c, (char[]){"orders"}, i % 2);
        uint32_t channel = producer(&c, (char[]){"orders"}, 1);
        char key[32];
        key_for(1, 2, key);
        for (unsigned n = 0; n < 5; n++) {
            send_batch(&c, channel, n, key);
        }
        client_close(&c);
    }
    live_stop(&live);
}

/* Closing the broker under load ends it: what is in flight is finished or refused, nobody waits for
 * ever. */
static void *
hammer(void *arg)
{
    struct worker *w = arg;
    char key[32];
    struct client c;
    key_for(1, 2, key);
    client_open(&c, w->live);
    create(&c, (char[]){"orders"});
    uint32_t channel = producer(&c, (char[]){"orders"}, 1);
    pthread_mutex_lock(&w->gate->mtx);
    w->gate->count++;
    pthread_cond_broadcast(&w->gate->changed);
    pthread_mutex_unlock(&w->gate->mtx);
    pthread_mutex_lock(&c.mtx);
    while (!c.closed) {
        pthread_mutex_unlock(&c.mtx);
        send_batch(&c, channel, 0, key);
        pthread_mutex_lock(&c.mtx);
        while (!weir_list_is_empty(&c.frames)) {
            struct raw_frame *f = WEIR_CONTAINER(c.frames.next, struct raw_frame, node);
            raw_frame_free(f);
        }
    }
    pthread_mutex_unlock(&c.mtx);
    client_close(&c);
    return NULL;
}

static void
on_drained(void *arg)
{
    struct gate *gate = arg;
    pthread_mutex_lock(&gate->mtx);
    gate->count++;
    pthread_cond_broadcast(&gate->changed);
    pthread_mutex_unlock(&gate->mtx);
}

Test(threads, drain_and_close_under_load, .timeout = 240)
{
    struct live live = {0};
    struct worker workers[CLIENTS];
    struct gate gate = {.mtx = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    live_start(&live);
    for (unsigned i = 0; i < CLIENTS; i++) {
        workers[i] = (struct worker){.live = &live, .gate = &gate, .number = i};
        cr_assert_eq(pthread_create(&workers[i].thread, NULL, hammer, &workers[i]), 0);
    }
    gate_wait(&gate, CLIENTS);
    struct client c;
    client_open(&c, &live);
    uint32_t sub = subscribe(&c, (char[]){"orders"}, 1);
    raw_frame_free(next(&c, WEIR_FRAME_DATA, sub)); /* they are at it */
    weir_native_drain(live.native);
    weir_service_drain(live.service, on_drained, &gate);
    gate_wait(&gate, CLIENTS + 1);
    client_close(&c);
    weir_native_close(live.native);
    live.native = NULL;
    for (unsigned i = 0; i < CLIENTS; i++)
        pthread_join(workers[i].thread, NULL);
    live_stop(&live);
}
