#include "bench/peer.h"
#include <dirent.h>
#include <nats/nats.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CONSUMERS_MAX 64
#define AHEAD_MAX 4096 /* messages the publisher runs ahead of the slowest consumer, unpaced */
#define SUBJECT "bench"

struct consumer {
    natsConnection *connection;
    jsCtx *js;
    natsSubscription *sub;
    _Atomic uint64_t received;
};

struct weir_peer {
    struct weir_child child;
    char url[64];
    natsConnection *connection;
    jsCtx *js;
    unsigned streams; /* made so far: each has a name of its own */
    struct consumer consumer[CONSUMERS_MAX];
};

static void
must(natsStatus st, const char *what)
{
    if (st != NATS_OK)
        weir_bench_die("NATS: cannot %s: %s", what, natsStatus_GetText(st));
}

/* nats-server says its port in a file NAME_PID.ports, as JSON. */
static bool
read_port(const char *directory, int pid, unsigned *port_out)
{
    char path[PATH_MAX + 64], text[512];
    snprintf(path, sizeof path, "%s/nats-server_%d.ports", directory, pid);
    FILE *file = fopen(path, "r");
    if (!file)
        return false;
    size_t len = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[len] = '\0';
    const char *at = strstr(text, "127.0.0.1:");
    return at && strchr(at, ']') && sscanf(at, "127.0.0.1:%u", port_out) == 1;
}

static void
connect_to(const char *url, natsConnection **connection, jsCtx **js, unsigned pending_max)
{
    jsOptions options;
    jsOptions_Init(&options);
    options.PublishAsync.MaxPending = pending_max;
    options.PublishAsync.StallWait = 60000;
    must(natsConnection_ConnectTo(connection, url), "connect");
    must(natsConnection_JetStream(js, *connection, &options), "use JetStream");
}

struct weir_peer *
weir_peer_open(const struct weir_bench *b)
{
    if (system("command -v nats-server >/dev/null")) {
        printf("  NATS: left out, there is no nats-server\n");
        return NULL;
    }
    struct weir_peer *p = calloc(1, sizeof *p);
    if (!p)
        weir_bench_die("out of memory");
    char store[PATH_MAX], log[PATH_MAX];
    weir_bench_path(b, "nats", store);
    weir_bench_path(b, "nats.log", log);
    const char *argv[] = {
        "nats-server",      "-js",        "-sd", store, "-a", "127.0.0.1", "-p", "-1",
        "--ports_file_dir", b->directory, NULL};
    weir_child_start(argv, NULL, log, &p->child);
    unsigned port = 0;
    for (int i = 0; i < 2000 && !read_port(b->directory, (int)p->child.pid, &port); i++)
        weir_bench_sleep_until_ns(weir_bench_now_ns() + 10000000u);
    if (!port)
        weir_bench_die("nats-server did not start; its log is '%s'", log);
    snprintf(p->url, sizeof p->url, "nats://127.0.0.1:%u", port);
    connect_to(p->url, &p->connection, &p->js, 8192);
    return p;
}

void
weir_peer_close(struct weir_peer *p)
{
    if (!p)
        return;
    jsCtx_Destroy(p->js);
    natsConnection_Destroy(p->connection);
    weir_child_end(&p->child, SIGTERM);
    nats_Close();
    free(p);
}

const struct weir_child *
weir_peer_child(const struct weir_peer *p)
{
    return &p->child;
}

static void
add_stream(struct weir_peer *p, char name[32])
{
    snprintf(name, 32, "bench-%u", p->streams++);
    const char *subjects[] = {SUBJECT};
    jsStreamConfig config;
    jsStreamConfig_Init(&config);
    config.Name = name;
    config.Subjects = subjects;
    config.SubjectsLen = 1;
    config.Storage = js_FileStorage;
    must(js_AddStream(NULL, p->js, &config, NULL, NULL), "make a stream");
}

static void
publish(jsCtx *js, const uint8_t *message, size_t len)
{
    must(js_PublishAsync(js, SUBJECT, message, (int)len, NULL), "publish");
}

static void
complete(jsCtx *js)
{
    jsPubOptions options;
    jsPubOptions_Init(&options);
    options.MaxWait = 60000;
    must(js_PublishAsyncComplete(js, &options), "have all acknowledged");
}

double
weir_peer_publish(struct weir_peer *p, size_t message_bytes, unsigned pending_max, double seconds)
{
    char stream[32];
    add_stream(p, stream);
    natsConnection *connection;
    jsCtx *js;
    connect_to(p->url, &connection, &js, pending_max);
    uint8_t *message = malloc(message_bytes);
    if (!message)
        weir_bench_die("out of memory");
    weir_bench_noise(message, message_bytes, 5);

    uint64_t start_ns = weir_bench_now_ns(), now_ns = start_ns, count = 0;
    while ((double)(now_ns - start_ns) < seconds * 1e9) {
        for (int i = 0; i < 64; i++, count++)
            publish(js, message, message_bytes);
        now_ns = weir_bench_now_ns();
    }
    complete(js);
    double rate = (double)count * 1e9 / (double)(weir_bench_now_ns() - start_ns);

    free(message);
    jsCtx_Destroy(js);
    natsConnection_Destroy(connection);
    must(js_DeleteStream(p->js, stream, NULL, NULL), "delete a stream");
    return rate;
}

/* ---- fan-out ---- */

static void
on_message(natsConnection *, natsSubscription *, natsMsg *message, void *arg)
{
    struct consumer *c = arg;
    atomic_fetch_add_explicit(&c->received, 1, memory_order_relaxed);
    natsMsg_Destroy(message);
}

static void
open_consumer(struct weir_peer *p, const char *stream, struct consumer *c)
{
    atomic_store(&c->received, 0);
    connect_to(p->url, &c->connection, &c->js, 8192);
    jsSubOptions options;
    jsSubOptions_Init(&options);
    options.Stream = stream;
    options.ManualAck = true;
    options.Config.AckPolicy = js_AckNone;
    options.Config.DeliverPolicy = js_DeliverNew;
    must(js_Subscribe(&c->sub, c->js, SUBJECT, on_message, c, NULL, &options, NULL), "subscribe");
    must(natsSubscription_SetPendingLimits(c->sub, -1, -1), "lift a limit");
}

static void
close_consumer(struct consumer *c)
{
    natsSubscription_Unsubscribe(c->sub);
    natsSubscription_Destroy(c->sub);
    jsCtx_Destroy(c->js);
    natsConnection_Destroy(c->connection);
}

static uint64_t
least_received(const struct weir_peer *p, unsigned count)
{
    uint64_t least = UINT64_MAX;
    for (unsigned i = 0; i < count; i++) {
        uint64_t received = atomic_load(&p->consumer[i].received);
        least = received < least ? received : least;
    }
    return least;
}

static void
wait_for(const struct weir_peer *p, unsigned count, uint64_t messages)
{
    for (int i = 0; i < 60000 && least_received(p, count) < messages; i++)
        weir_bench_sleep_until_ns(weir_bench_now_ns() + 1000000u);
    if (least_received(p, count) < messages)
        weir_bench_die("NATS: a consumer got %llu of %llu messages",
                       (unsigned long long)least_received(p, count), (unsigned long long)messages);
}

void
weir_peer_fan_out(struct weir_peer *p, unsigned count, size_t message_bytes, double rate,
                  double seconds, struct weir_peer_fanout *out)
{
    char stream[32];
    if (count > CONSUMERS_MAX)
        weir_bench_die("NATS: too many consumers");
    add_stream(p, stream);
    for (unsigned i = 0; i < count; i++)
        open_consumer(p, stream, &p->consumer[i]);
    uint8_t *message = malloc(message_bytes);
    if (!message)
        weir_bench_die("out of memory");
    weir_bench_noise(message, message_bytes, 6);

    double cpu_s = weir_child_cpu_s(&p->child);
    uint64_t start_ns = weir_bench_now_ns(), now_ns = start_ns, published = 0;
    while ((double)(now_ns - start_ns) < seconds * 1e9) {
        bool is_due = rate > 0 ? (double)published < rate * (double)(now_ns - start_ns) / 1e9
                               : published < least_received(p, count) + AHEAD_MAX;
        if (is_due) {
            publish(p->js, message, message_bytes);
            published++;
        } else {
            weir_bench_sleep_until_ns(now_ns + 200000u);
        }
        now_ns = weir_bench_now_ns();
    }
    complete(p->js);
    wait_for(p, count, published);
    *out = (struct weir_peer_fanout){
        .published = (double)published,
        .delivered = (double)published * count,
        .cpu_s = weir_child_cpu_s(&p->child) - cpu_s,
        .seconds = (double)(weir_bench_now_ns() - start_ns) / 1e9,
    };
    free(message);
    for (unsigned i = 0; i < count; i++)
        close_consumer(&p->consumer[i]);
    must(js_DeleteStream(p->js, stream, NULL, NULL), "delete a stream");
}
