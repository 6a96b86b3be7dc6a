/* Durable ingest with many active shards against one shard: records of 1 KiB that do not compress,
 * over the shards by their keys' hashes; one producer, the same 64 MiB not yet acknowledged for
 * all. Each stream has a broker setting of 256 MiB to keep in all, spread over its shards. */
#include "bench/broker.h"
#include "bench/load.h"
#include <stdio.h>

#define RECORD ((size_t)1024)
#define WINDOW ((uint64_t)64 << 20)
#define KEEP ((uint64_t)256 << 20)
#define SIZES 3

int
main(int argc, char **argv)
{
    static const uint32_t shards[SIZES] = {1, 64, 1000};
    static const char *const names[SIZES] = {"one", "some", "many"};
    static const char *const flags[] = {"--segment-size=64MiB", "--prewrite=512MiB", NULL};
    struct weir_bench b;
    weir_bench_begin(&b, "ingest-shards", argc, argv, 7, 2.5, NULL, 0);
    weir_bench_broker_describe(flags);

    struct weir_bench_broker broker;
    weir_bench_broker_start(&b, "data", flags, &broker);
    struct weir_load load[SIZES];
    for (unsigned i = 0; i < SIZES; i++) {
        weir_load_create_stream(broker.url, names[i], shards[i], KEEP / shards[i]);
        struct weir_load_options options = {.url = broker.url,
                                            .stream = names[i],
                                            .record_bytes = RECORD,
                                            .window_bytes = WINDOW,
                                            .keys = 100000,
                                            .uncompressed = true};
        weir_load_open(&options, &load[i]);
        weir_load_flat_out(&load[i], b.seconds / 2);
    }

    struct weir_series rate[SIZES] = {0}, batch[SIZES] = {0}, cpu[SIZES] = {0};
    for (unsigned round = 0; round < b.rounds; round++) {
        for (unsigned i = 0; i < SIZES; i++) {
            struct weir_producer_numbers before, after;
            weir_producer_get_numbers(load[i].producer, &before);
            double cpu_s = weir_child_cpu_s(&broker.child);
            weir_series_add(&rate[i], weir_load_flat_out(&load[i], b.seconds) * RECORD / 1e6);
            weir_producer_get_numbers(load[i].producer, &after);
            double records = (double)(after.records_acked - before.records_acked);
            weir_series_add(&batch[i],
                            records / (double)(after.batches_acked - before.batches_acked));
            weir_series_add(&cpu[i], (weir_child_cpu_s(&broker.child) - cpu_s) * 1e6 / records);
        }
    }
    for (unsigned i = 0; i < SIZES; i++) {
        char what[64];
        snprintf(what, sizeof what, "%u shard%s", shards[i], shards[i] > 1 ? "s" : "");
        weir_series_print(what, &rate[i], "MB/s");
        weir_series_print("  records a batch", &batch[i], "");
        weir_series_print("  broker CPU a record", &cpu[i], "us");
        weir_load_close(&load[i]);
    }
    weir_bench_broker_stop(&broker);
    weir_bench_at_least(&b, 100 * weir_series_ratio(&rate[1], &rate[0]),
                        "% of the one-shard rate with 64 shards", 80);
    weir_bench_at_least(&b, 100 * weir_series_ratio(&rate[2], &rate[0]),
                        "% of the one-shard rate with 1,000 shards", 50);
    return weir_bench_end(&b);
}
