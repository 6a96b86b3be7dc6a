/* From publish to push delivery, at half of the peak ingest rate, open loop.
 *
 * The peak is taken first, as bench ingest does (batches of 256 KiB, 8 MiB not yet acknowledged).
 * Then records of 1 KiB are due at even distances; each carries the moment it was due, and its
 * latency counts from there to the consumer's poll, however late it was put. Every record is
 * durable before it is delivered. Producer and consumer have a connection each, in one process. */
#include "bench/broker.h"
#include "bench/load.h"
#include "bench/reader.h"
#include <stdio.h>

#define RECORD ((size_t)1024)

int
main(int argc, char **argv)
{
    static struct weir_reader reader;
    struct weir_bench b;
    double share = 0.5;
    struct weir_bench_option options[] = {{"--share", "of the peak rate", &share}};
    weir_bench_begin(&b, "delivery", argc, argv, 7, 4, options, 1);
    static const char *const flags[] = {"--segment-size=128MiB", "--prewrite=512MiB", NULL};
    weir_bench_broker_describe(flags);

    struct weir_bench_broker broker;
    weir_bench_broker_start(&b, "data", flags, &broker);
    weir_load_create_stream(broker.url, "bench", 1, (uint64_t)512 << 20);
    struct weir_load_options peak_options = {.url = broker.url,
                                             .stream = "bench",
                                             .record_bytes = RECORD,
                                             .window_bytes = 8 << 20,
                                             .uncompressed = true};
    struct weir_load_options paced_options = peak_options;
    paced_options.window_bytes = 64 << 20;
    paced_options.linger_ms = -1;
    struct weir_load peak, paced;
    weir_load_open(&peak_options, &peak);
    weir_load_open(&paced_options, &paced);
    weir_load_flat_out(&peak, b.seconds);

    struct weir_series peaks = {0}, p50 = {0}, p99 = {0}, p999 = {0}, lates = {0}, batch = {0};
    for (unsigned round = 0; round < b.rounds; round++) {
        double rate = weir_load_flat_out(&peak, b.seconds / 4);
        weir_series_add(&peaks, rate);
        weir_reader_open(broker.url, "bench", "bench", true, &reader);
        atomic_store(&reader.phase, 0);
        struct weir_producer_numbers before, after;
        weir_producer_get_numbers(paced.producer, &before);
        double late;
        uint64_t count =
            weir_load_paced(&paced, weir_series_median(&peaks) * share, b.seconds, &late);
        weir_load_flush(&paced);
        weir_reader_wait(&reader, count);
        weir_reader_close(&reader);
        weir_producer_get_numbers(paced.producer, &after);
        weir_series_add(&p50, weir_histogram_at(&reader.latency[0], 0.5) / 1e6);
        weir_series_add(&p99, weir_histogram_at(&reader.latency[0], 0.99) / 1e6);
        weir_series_add(&p999, weir_histogram_at(&reader.latency[0], 0.999) / 1e6);
        weir_series_add(&lates, late * 100);
        weir_series_add(&batch,
                        (double)count / (double)(after.batches_acked - before.batches_acked));
    }
    weir_load_close(&peak);
    weir_load_close(&paced);
    weir_bench_broker_stop(&broker);

    weir_series_print("peak ingest", &peaks, "records/s");
    printf("  rate: %.0f %% of the median peak so far\n", share * 100);
    weir_series_print("records a batch", &batch, "");
    weir_series_print("put more than 1 ms late", &lates, "%");
    weir_series_print("latency, p50", &p50, "ms");
    weir_series_print("latency, p99", &p99, "ms");
    weir_series_print("latency, p99.9", &p999, "ms");
    weir_bench_at_most(&b, weir_series_median(&p50), "ms at p50", 0.25);
    weir_bench_at_most(&b, weir_series_median(&p99), "ms at p99", 1);
    weir_bench_at_most(&b, weir_series_median(&p999), "ms at p99.9", 3);
    return weir_bench_end(&b);
}
