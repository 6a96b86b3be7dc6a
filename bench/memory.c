/* Memory of the broker (resident, as the kernel counts it, libraries included).
 *
 *   idle      a new data directory, nobody connected, at rest
 *   shards    100,000 shards in ten streams, nobody writes or reads; at rest, and after a restart
 *   retained  1.5 GiB of records, after a restart, against the same broker without records */
#include "bench/broker.h"
#include "bench/load.h"
#include <stdio.h>

#define RECORD ((size_t)1024)
#define STREAMS 10

static double
rss_mb(const struct weir_bench_broker *broker, bool wait)
{
    if (wait)
        weir_bench_wait_idle(&broker->child);
    return (double)weir_child_rss(&broker->child) / 1e6;
}

static double
start_and_measure(const struct weir_bench *b, const char *data)
{
    struct weir_bench_broker broker;
    weir_bench_broker_start(b, data, NULL, &broker);
    double rss = rss_mb(&broker, !b->smoke);
    weir_bench_broker_stop(&broker);
    return rss;
}

int
main(int argc, char **argv)
{
    struct weir_bench b;
    weir_bench_begin(&b, "memory", argc, argv, 3, 1, NULL, 0);
    weir_bench_broker_describe(NULL);
    uint32_t shards = b.smoke ? 10 : 10000;
    uint64_t bytes = b.smoke ? 4 << 20 : (uint64_t)1536 << 20;

    struct weir_series idle = {0}, with_shards = {0}, again = {0}, empty = {0}, retained = {0};
    for (unsigned round = 0; round < b.rounds; round++) {
        weir_bench_remove(&b, "idle");
        weir_series_add(&idle, start_and_measure(&b, "idle"));
    }

    struct weir_bench_broker broker;
    weir_bench_broker_start(&b, "shards", NULL, &broker);
    for (unsigned i = 0; i < STREAMS; i++) {
        char name[32];
        snprintf(name, sizeof name, "stream-%u", i);
        weir_load_create_stream(broker.url, name, shards, 0);
    }
    weir_series_add(&with_shards, rss_mb(&broker, !b.smoke));
    weir_bench_broker_stop(&broker);
    weir_series_add(&again, start_and_measure(&b, "shards"));

    weir_bench_broker_start(&b, "empty", NULL, &broker);
    weir_load_create_stream(broker.url, "bench", 1, 0);
    weir_bench_broker_stop(&broker);
    weir_bench_broker_start(&b, "retained", NULL, &broker);
    weir_load_create_stream(broker.url, "bench", 1, 0);
    struct weir_load_options options = {.url = broker.url,
                                        .stream = "bench",
                                        .record_bytes = RECORD,
                                        .window_bytes = 16 << 20,
                                        .uncompressed = true};
    struct weir_load load;
    weir_load_open(&options, &load);
    weir_load_fill(&load, bytes);
    weir_load_close(&load);
    weir_bench_broker_stop(&broker);
    for (unsigned round = 0; round < b.rounds; round++) {
        weir_series_add(&empty, start_and_measure(&b, "empty"));
        weir_series_add(&retained, start_and_measure(&b, "retained"));
    }

    weir_series_print("idle", &idle, "MB");
    weir_series_print("100,000 idle shards", &with_shards, "MB");
    weir_series_print("100,000 idle shards, after a restart", &again, "MB");
    weir_series_print("no records, after a restart", &empty, "MB");
    weir_series_print("1.5 GiB retained, after a restart", &retained, "MB");
    weir_bench_at_most(&b, weir_series_median(&idle), "MB idle", 6);
    double most = weir_series_most(&with_shards);
    if (weir_series_most(&again) > most)
        most = weir_series_most(&again);
    weir_bench_at_most(&b, most, "MB with 100,000 idle shards", 120);
    weir_bench_at_most(&b, weir_series_median(&retained) - weir_series_median(&empty),
                       "MB more for 1.5 GiB retained", 1);
    return weir_bench_end(&b);
}
