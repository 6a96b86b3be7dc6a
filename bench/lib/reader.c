#include "bench/reader.h"
#include "bench/bench.h"
#include <string.h>

static void
take(struct weir_reader *r, struct weir_event *event)
{
    int phase = atomic_load_explicit(&r->phase, memory_order_relaxed);
    uint64_t now_ns = weir_bench_now_ns(), records = 0, bytes = 0, due_ns;
    struct weir_event_record record;
    while (weir_event_next(event, &record)) {
        records++;
        bytes += record.data_len;
        if (phase >= 0 && record.data_len >= sizeof due_ns) {
            memcpy(&due_ns, record.data, sizeof due_ns);
            weir_histogram_add(&r->latency[phase], now_ns - due_ns);
        }
    }
    atomic_fetch_add(&r->records, records);
    atomic_fetch_add(&r->bytes, bytes);
}

static void *
poll_until_over(void *arg)
{
    struct weir_reader *r = arg;
    while (!atomic_load(&r->is_over)) {
        struct weir_event *event;
        struct weir_error err = {0};
        enum weir_status st = weir_poll(r->sub, 100, &event, &err);
        if (st == WEIR_TIMEOUT)
            continue;
        if (st)
            weir_bench_die("a subscription ended: %s", err.text);
        if (event->kind == WEIR_EVENT_RECORDS)
            take(r, event);
        weir_event_free(event);
    }
    return NULL;
}

/* The first event, progress without data at the latest, says that the broker serves it. */
static void
wait_for_start(struct weir_reader *r)
{
    struct weir_event *event;
    struct weir_error err = {0};
    if (weir_poll(r->sub, 30000, &event, &err))
        weir_bench_die("a subscription did not start: %s", err.text);
    if (event->kind == WEIR_EVENT_RECORDS)
        take(r, event);
    weir_event_free(event);
}

void
weir_reader_open(const char *url, const char *stream, const char *consumer, bool polls,
                 struct weir_reader *out)
{
    memset(out, 0, sizeof *out);
    atomic_store(&out->phase, -1);
    struct weir_error err = {0};
    struct weir_client_options client = {.url = url, .name = consumer};
    if (weir_client_open(&client, &out->client, &err))
        weir_bench_die("cannot connect to '%s': %s", url, err.text);
    struct weir_subscribe_options options = {.stream = stream,
                                             .consumer = consumer,
                                             .from = {.kind = WEIR_FROM_LATEST},
                                             .heartbeat_ms = 200};
    if (weir_subscribe(out->client, &options, &out->sub, &err))
        weir_bench_die("cannot subscribe to '%s': %s", stream, err.text);
    wait_for_start(out);
    if (!polls)
        return;
    if (pthread_create(&out->thread, NULL, poll_until_over, out))
        weir_bench_die("cannot start a thread");
    out->has_thread = true;
}

void
weir_reader_close(struct weir_reader *r)
{
    atomic_store(&r->is_over, true);
    if (r->has_thread)
        pthread_join(r->thread, NULL);
    weir_subscription_close(r->sub);
    weir_client_close(r->client);
}

void
weir_reader_wait(struct weir_reader *r, uint64_t records)
{
    for (int i = 0; i < 60000 && atomic_load(&r->records) < records; i++)
        weir_bench_sleep_until_ns(weir_bench_now_ns() + 1000000u);
    if (atomic_load(&r->records) < records)
        weir_bench_die("a consumer got %llu of %llu records",
                       (unsigned long long)atomic_load(&r->records), (unsigned long long)records);
}
