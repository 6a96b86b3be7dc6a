/* bench: how fast this broker takes and gives records, over the same library that programs use.
 *
 * One thread puts; with --consumers each consumer is a thread that reads from where the run began.
 * The figures are wall-clock rates of this process and the broker together on this machine. */
#include "base/limits.h"
#include "command.h"
#include "sys/loop.h"
#include "sys/random.h"
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

const struct option options_bench[] = {
    {"records", NUMBER, "N", "200000", "how many"},
    {"size", SIZE, "SIZE", "1KiB", "data bytes of each"},
    {"consumers", NUMBER, "N", "1", "readers beside the producer, to 64"},
    {"keys", NUMBER, "N", "1000", "different partition keys"},
    {"batch", SIZE, "SIZE", "256KiB", "batch size of the producer"},
    {"compressible", FLAG, NULL, NULL, "data that compresses about four to one, else random"},
    {"uncompressed", FLAG, NULL, NULL, "no LZ4"},
    {0},
};

struct reader {
    struct weir_client *client;
    const char *stream;
    uint64_t want, records, bytes, from_ms;
    double seconds;
    bool failed;
    struct weir_thread *thread;
};

static double
seconds(void)
{
    return (double)weir_mono_us(weir_clock_system()) / 1e6;
}

static void
read_all(void *arg)
{
    struct reader *r = arg;
    struct weir_subscription *sub;
    struct weir_error err = {0};
    struct weir_subscribe_options o = {
        .stream = r->stream,
        .from = {.kind = WEIR_FROM_TIME, .at_ms = r->from_ms},
    };
    double started = seconds();
    if (weir_subscribe(r->client, &o, &sub, &err)) {
        complain(NULL, "%s", err.text);
        r->failed = true;
        return;
    }
    while (r->records < r->want && !stopped()) {
        struct weir_event *event;
        enum weir_status st = weir_poll(sub, 1000, &event, &err);
        if (st == WEIR_TIMEOUT)
            continue;
        if (st) {
            complain(NULL, "%s", err.text);
            r->failed = true;
            break;
        }
        struct weir_event_record record;
        while (weir_event_next(event, &record)) {
            r->records++;
            r->bytes += record.data_len;
        }
        weir_event_free(event);
    }
    r->seconds = seconds() - started;
    weir_subscription_close(sub);
}

static void
print_rate(const struct args *a, const char *what, uint64_t records, uint64_t bytes, double took)
{
    double rate = (double)records / took, mb = (double)bytes / took / 1e6;
    if (a->json) {
        struct output o;
        output_begin(&o);
        weir_json_begin_object(&o.json);
        member_text(&o, "what", what);
        member_u64(&o, "records", records);
        weir_json_write_name(&o.json, "seconds");
        weir_json_write_double(&o.json, took, 4);
        weir_json_write_name(&o.json, "records_per_second");
        weir_json_write_double(&o.json, rate, 0);
        weir_json_write_name(&o.json, "megabytes_per_second");
        weir_json_write_double(&o.json, mb, 2);
        weir_json_end_object(&o.json);
        (void)output_emit(&o);
    } else {
        printf("%-10s %12s records in %7.2f s: %12s records/s, %8.1f MB/s\n", what,
               count_text(records), took, count_text((uint64_t)rate), mb);
    }
}

enum weir_exit
run_bench(struct args *a)
{
    uint64_t records = 200000, size = 1024, consumers = 1, keys = 1000;
    struct weir_producer_options o = {.stream = a->operand[0]};
    if (!args_number(a, "records", 1000000000, &records) || !args_size(a, "size", &size) ||
        !args_number(a, "consumers", 64, &consumers) || !args_number(a, "keys", 1000000, &keys) ||
        !args_size(a, "batch", &o.batch_bytes))
        return EXIT_USAGE;
    if (size > WEIR_RECORD_BYTES_MAX || !records || !keys)
        return bad_usage(a, "--records and --keys are at least 1, --size at most 10MiB");
    o.uncompressed = args_has(a, "uncompressed");
    struct weir_client *client = connect_or_complain(a);
    if (!client)
        return EXIT_NO_BROKER;
    struct weir_error err = {0};
    struct weir_producer *producer;
    if (weir_producer_open(client, &o, &producer, &err)) {
        enum weir_exit exit = failed(a, &err);
        weir_client_close(client);
        return exit;
    }
    stop_on_signals();

    struct weir_random random;
    weir_random_init(&random, 1);
    size_t pool = size + 65536;
    uint8_t *data = malloc(pool);
    struct reader *readers = calloc(consumers + 1, sizeof *readers);
    enum weir_exit exit = EXIT_DONE;
    if (!data || !readers) {
        complain(a, "out of memory");
        exit = EXIT_REFUSED;
        goto done;
    }
    for (size_t i = 0; i < pool; i++)
        data[i] = args_has(a, "compressible") ? (uint8_t)('a' + weir_random_below(&random, 3))
                                              : (uint8_t)weir_random_u64(&random);
    uint64_t from_ms = now_ms();
    for (uint64_t i = 0; i < consumers; i++) {
        readers[i] = (struct reader){
            .client = client, .stream = o.stream, .want = records, .from_ms = from_ms};
        if (weir_thread_start("bench-reader", read_all, &readers[i], &readers[i].thread)) {
            exit = EXIT_REFUSED;
            goto done;
        }
    }
    double started = seconds();
    for (uint64_t i = 0; i < records && !stopped(); i++) {
        char key[24];
        int len = snprintf(key, sizeof key, "key-%lu", (unsigned long)(i % keys));
        enum weir_status st =
            weir_put(producer, key, (size_t)len, data + i * 61 % 65536, size, NULL, -1);
        if (st) {
            complain(a, "record %lu: %s", (unsigned long)i, weir_status_text(st));
            exit = EXIT_REFUSED;
            break;
        }
    }
    if (weir_producer_flush(producer, -1, &err))
        exit = failed(a, &err);
    print_rate(a, "put", records, records * size, seconds() - started);
    for (uint64_t i = 0; i < consumers; i++) {
        char name[32];
        if (exit != EXIT_DONE)
            readers[i].want = 0;
        weir_thread_join(readers[i].thread);
        readers[i].thread = NULL;
        snprintf(name, sizeof name, "reader %lu", (unsigned long)i + 1);
        if (readers[i].failed)
            exit = EXIT_REFUSED;
        else
            print_rate(a, name, readers[i].records, readers[i].bytes, readers[i].seconds);
    }
done:
    for (uint64_t i = 0; readers && i < consumers; i++)
        weir_thread_join(readers[i].thread);
    weir_producer_close(producer);
    weir_client_close(client);
    free(readers);
    free(data);
    return exit;
}
