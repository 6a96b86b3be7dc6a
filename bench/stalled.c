/* What one stalled consumer of 16 costs the others: it takes no events and gives no credit.
 *
 * All rounds run at one fixed rate, open loop, with 15 consumers whose latency counts from the
 * moment a record was due. In every second turn there is a sixteenth that is stalled; in the others
 * it polls like the rest. The broker's tail cache is small and full before the first round, so that
 * its memory stands still by itself. */
#include "bench/broker.h"
#include "bench/load.h"
#include "bench/reader.h"
#include <stdio.h>

#define RECORD ((size_t)1024)
#define CONSUMERS 16

struct turn {
    struct weir_series p50, p99; /* ms, of the fifteen */
    struct weir_series rss;      /* MB, at the end of the turn */
};

static void
run(const struct weir_bench *b, struct weir_bench_broker *broker, struct weir_load *load,
    bool is_stalled, double rate, struct turn *turn)
{
    static struct weir_reader reader[CONSUMERS];
    for (unsigned i = 0; i < CONSUMERS; i++) {
        char name[32];
        snprintf(name, sizeof name, "consumer-%u", i);
        weir_reader_open(broker->url, "bench", name, !is_stalled || i > 0, &reader[i]);
    }
    /* The stalled one uses its credit up before anything counts. */
    uint64_t before = weir_load_paced(load, rate, b->seconds / 2, NULL);
    for (unsigned i = 0; i < CONSUMERS; i++)
        atomic_store(&reader[i].phase, 0);
    uint64_t count = weir_load_paced(load, rate, b->seconds, NULL);
    weir_load_flush(load);
    for (unsigned i = 1; i < CONSUMERS; i++)
        weir_reader_wait(&reader[i], before + count);
    weir_series_add(&turn->rss, (double)weir_child_rss(&broker->child) / 1e6);
    static struct weir_histogram all;
    all = (struct weir_histogram){0};
    for (unsigned i = 1; i < CONSUMERS; i++)
        weir_histogram_merge(&all, &reader[i].latency[0]);
    weir_series_add(&turn->p50, weir_histogram_at(&all, 0.5) / 1e6);
    weir_series_add(&turn->p99, weir_histogram_at(&all, 0.99) / 1e6);
    for (unsigned i = 0; i < CONSUMERS; i++)
        weir_reader_close(&reader[i]);
}

int
main(int argc, char **argv)
{
    struct weir_bench b;
    double rate = 10000;
    struct weir_bench_option options[] = {{"--rate", "records a second", &rate}};
    weir_bench_begin(&b, "stalled", argc, argv, 9, 2, options, 1);
    if (b.smoke)
        rate = 1000;
    static const char *const flags[] = {"--cache-size=8MiB", NULL};
    weir_bench_broker_describe(flags);
    printf("%.0f records/s of 1 KiB\n", rate);

    struct weir_bench_broker broker;
    weir_bench_broker_start(&b, "data", flags, &broker);
    weir_load_create_stream(broker.url, "bench", 1, (uint64_t)256 << 20);
    struct weir_load_options load_options = {.url = broker.url,
                                             .stream = "bench",
                                             .record_bytes = RECORD,
                                             .window_bytes = 64 << 20,
                                             .uncompressed = true};
    struct weir_load load;
    weir_load_open(&load_options, &load);

    static struct turn quiet, stalled, warm;
    run(&b, &broker, &load, false, rate, &warm);
    for (unsigned round = 0; round < b.rounds; round++) {
        /* Which comes first changes: what drifts must not look like a difference. */
        run(&b, &broker, &load, round % 2, rate, round % 2 ? &stalled : &quiet);
        run(&b, &broker, &load, !(round % 2), rate, round % 2 ? &quiet : &stalled);
    }
    weir_load_close(&load);
    weir_bench_broker_stop(&broker);

    weir_series_print("all take, p50 of 15", &quiet.p50, "ms");
    weir_series_print("one stalled, p50 of the other 15", &stalled.p50, "ms");
    weir_series_print("all take, p99 of 15", &quiet.p99, "ms");
    weir_series_print("one stalled, p99 of the other 15", &stalled.p99, "ms");
    weir_series_print("all take, broker RSS", &quiet.rss, "MB");
    weir_series_print("one stalled, broker RSS", &stalled.rss, "MB");
    weir_bench_at_most(&b, 100 * (weir_series_ratio(&stalled.p99, &quiet.p99) - 1),
                       "% more at the others' p99", 10);
    weir_bench_at_most(&b, weir_series_median(&stalled.rss) - weir_series_median(&quiet.rss),
                       "MB more broker memory", 1);
    return weir_bench_end(&b);
}
