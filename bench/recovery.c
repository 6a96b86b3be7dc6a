/* Start after kill -9: from the start of the process to its ready message, with a warm page cache.
 *
 * 1. One broker is filled with --gib GiB (10) and killed while it takes more; then it is started
 * and killed --rounds times.
 * 2. 100 GiB against 1 GiB. What start-up does grows with the number of segments and batches, not
 *    with bytes that it does not look at, so both are made with segments of 1/128 of the default
 *    size (1 MiB) and batches of 1/128 of the usual size (2 KiB): as many segments (800 and 8) and
 *    batches as 100 GiB and 1 GiB have, in 0.8 GiB and 8 MiB. This is synthetic: the unsealed tail
 *    that is walked is 1/128 of a real one on both sides.
 *
 * Filling runs with durability=interval, which changes how often is synced, not what is written;
 * starts run with the defaults. */
#include "bench/broker.h"
#include "bench/load.h"
#include <pthread.h>
#include <stdio.h>

#define RECORD ((size_t)1024)

/* Segments of the default size, or small ones. */
static const char *const whole[] = {"--segment-size=128MiB", "--prewrite=32MiB"};
static const char *const small[] = {"--segment-size=1MiB", "--prewrite=1MiB"};

static void
fill(const struct weir_bench *b, const char *data, const char *const *sizes, uint64_t bytes,
     uint64_t batch_bytes)
{
    const char *const flags[] = {sizes[0], sizes[1], "--durability=interval", NULL};
    struct weir_bench_broker broker;
    weir_bench_broker_start(b, data, flags, &broker);
    weir_load_create_stream(broker.url, "bench", 1, 0);
    struct weir_load_options options = {.url = broker.url,
                                        .stream = "bench",
                                        .record_bytes = batch_bytes < 4096 ? 512 : RECORD,
                                        .window_bytes = 16 << 20,
                                        .batch_bytes = batch_bytes,
                                        .uncompressed = true};
    struct weir_load load;
    weir_load_open(&options, &load);
    weir_load_fill(&load, bytes);
    /* Killed with records on their way. */
    weir_load_paced(&load, 10000, b->smoke ? 0.01 : 0.2, NULL);
    weir_bench_broker_kill(&broker);
    weir_load_close(&load);
}

static double
start_and_kill(const struct weir_bench *b, const char *data, const char *const *sizes)
{
    const char *const flags[] = {sizes[0], sizes[1], NULL};
    struct weir_bench_broker broker;
    weir_bench_broker_start(b, data, flags, &broker);
    weir_bench_broker_kill(&broker);
    return broker.ready_ms;
}

int
main(int argc, char **argv)
{
    struct weir_bench b;
    double gib = 10;
    struct weir_bench_option options[] = {{"--gib", "of real data", &gib}};
    weir_bench_begin(&b, "recovery", argc, argv, 9, 1, options, 1);
    uint64_t bytes = (uint64_t)(gib * 1024) << 20, many = (uint64_t)800 << 20, few = 8 << 20;
    if (b.smoke) {
        bytes = few;
        many = 2 * few;
    }

    printf("filling %.1f GiB, and 800 and 8 segments of 1 MiB\n", (double)bytes / (1 << 30));
    fill(&b, "real", whole, bytes, 0);
    fill(&b, "many", small, many, 2048);
    fill(&b, "few", small, few, 2048);
    fill(&b, "none", whole, RECORD, 0);

    struct weir_series real = {0}, of_many = {0}, of_few = {0}, none = {0};
    start_and_kill(&b, "real", whole);
    start_and_kill(&b, "many", small);
    for (unsigned round = 0; round < b.rounds; round++) {
        weir_series_add(&none, start_and_kill(&b, "none", whole));
        weir_series_add(&real, start_and_kill(&b, "real", whole));
        weir_series_add(&of_few, start_and_kill(&b, "few", small));
        weir_series_add(&of_many, start_and_kill(&b, "many", small));
    }
    char what[64];
    snprintf(what, sizeof what, "ready with %.3g GiB", (double)bytes / (1 << 30));
    weir_series_print("ready with nothing", &none, "ms");
    weir_series_print(what, &real, "ms");
    weir_series_print("ready with the segments of 1 GiB (synthetic)", &of_few, "ms");
    weir_series_print("ready with those of 100 GiB (synthetic)", &of_many, "ms");
    weir_bench_at_most(&b, weir_series_median(&real), "ms to ready after kill -9", 100);
    weir_bench_at_most(&b, weir_series_ratio(&of_many, &of_few),
                       "x of 1 GiB for 100 GiB (synthetic)", 1.2);
    return weir_bench_end(&b);
}
