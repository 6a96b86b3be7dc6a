#include "bench/load.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOISE_BYTES ((size_t)4 << 20)
#define TICK_NS 50000u /* between looks at what is due */
#define PUT_TIMEOUT_MS 60000

static struct weir_client *
connect_to(const char *url, const char *name)
{
    struct weir_client *client;
    struct weir_error err = {0};
    if (weir_client_open(&(struct weir_client_options){.url = url, .name = name}, &client, &err))
        weir_bench_die("cannot connect to '%s': %s", url, err.text);
    return client;
}

void
weir_load_create_stream(const char *url, const char *stream, uint32_t shards,
                        uint64_t retention_bytes)
{
    struct weir_client *client = connect_to(url, "bench");
    struct weir_stream_options options = {
        .name = stream, .shard_count = shards, .retention_bytes = retention_bytes};
    struct weir_error err = {0};
    if (weir_create_stream(client, &options, &err))
        weir_bench_die("cannot create stream '%s': %s", stream, err.text);
    weir_client_close(client);
}

void
weir_load_open(const struct weir_load_options *options, struct weir_load *out)
{
    *out = (struct weir_load){.options = *options};
    if (out->options.keys == 0)
        out->options.keys = 1;
    out->noise = malloc(NOISE_BYTES + options->record_bytes);
    out->record = malloc(options->record_bytes);
    if (!out->noise || !out->record)
        weir_bench_die("out of memory");
    weir_bench_noise(out->noise, NOISE_BYTES + options->record_bytes, 4);
    out->client = connect_to(options->url, "bench");

    uint64_t batch_bytes = options->batch_bytes ? options->batch_bytes : 256 << 10;
    struct weir_producer_options producer = {
        .stream = options->stream,
        .batch_bytes = batch_bytes,
        .linger_ms = options->linger_ms,
        .memory_bytes = options->window_bytes,
        .batches_in_flight = (uint32_t)(options->window_bytes / batch_bytes) + 1,
        .uncompressed = options->uncompressed,
    };
    struct weir_error err = {0};
    if (weir_producer_open(out->client, &producer, &out->producer, &err))
        weir_bench_die("cannot open a producer: %s", err.text);
}

void
weir_load_close(struct weir_load *load)
{
    weir_producer_close(load->producer);
    weir_client_close(load->client);
    free(load->noise);
    free(load->record);
}

static void
put(struct weir_load *load, const void *data)
{
    char key[24];
    uint32_t number = load->next_key++ % load->options.keys;
    int len = snprintf(key, sizeof key, "key-%08x", number);
    enum weir_status st = weir_put(load->producer, key, (size_t)len, data,
                                   load->options.record_bytes, NULL, PUT_TIMEOUT_MS);
    if (st)
        weir_bench_die("cannot put a record: %s", weir_status_text(st));
}

/* Anywhere in the noise, so that no two batches are alike. */
static const uint8_t *
piece(const struct weir_load *load, uint64_t number)
{
    return load->noise + number * load->options.record_bytes * 7 % NOISE_BYTES;
}

void
weir_load_flush(struct weir_load *load)
{
    struct weir_error err = {0};
    if (weir_producer_flush(load->producer, PUT_TIMEOUT_MS, &err))
        weir_bench_die("records were not acknowledged: %s", err.text);
}

double
weir_load_flat_out(struct weir_load *load, double seconds)
{
    uint64_t start_ns = weir_bench_now_ns(), now_ns = start_ns, count = 0;
    while ((double)(now_ns - start_ns) < seconds * 1e9) {
        for (int i = 0; i < 64; i++)
            put(load, piece(load, count++));
        now_ns = weir_bench_now_ns();
    }
    weir_load_flush(load);
    return (double)count * 1e9 / (double)(weir_bench_now_ns() - start_ns);
}

double
weir_load_fill(struct weir_load *load, uint64_t bytes)
{
    uint64_t start_ns = weir_bench_now_ns();
    uint64_t count = bytes / load->options.record_bytes;
    for (uint64_t i = 0; i < count; i++)
        put(load, piece(load, i));
    weir_load_flush(load);
    return (double)count * 1e9 / (double)(weir_bench_now_ns() - start_ns);
}

void
weir_load_one(struct weir_load *load)
{
    put(load, load->noise);
    weir_load_flush(load);
}

uint64_t
weir_load_paced(struct weir_load *load, double rate, double seconds, double *late_out)
{
    uint64_t start_ns = weir_bench_now_ns(), count = (uint64_t)(rate * seconds), late = 0;
    double distance_ns = 1e9 / rate;
    memcpy(load->record, load->noise, load->options.record_bytes);
    for (uint64_t i = 0; i < count;) {
        uint64_t now_ns = weir_bench_now_ns();
        uint64_t due_ns = start_ns + (uint64_t)((double)i * distance_ns);
        if (due_ns > now_ns) {
            weir_bench_sleep_until_ns(due_ns > now_ns + TICK_NS ? due_ns : now_ns + TICK_NS);
            continue;
        }
        late += now_ns > due_ns + 1000000u;
        memcpy(load->record, &due_ns, sizeof due_ns);
        put(load, load->record);
        i++;
    }
    if (late_out)
        *late_out = count ? (double)late / (double)count : 0;
    return count;
}
