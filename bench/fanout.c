/* Fan-out: broker CPU with 16 consumers against 1 at a fixed rate, and what a CPU-second delivers.
 *
 *   weir     records of 1 KiB at a fixed rate, durable; each consumer has a connection of its own
 *   NATS     JetStream, file store, push consumers without acks, a connection each; once at the
 *            rate of its own that all 16 follow, so that it works in its best range
 *
 * The stream keeps its latest 128 MiB and is filled before the first round: as in a broker that has
 * run for a while, segments that retention freed are written again.
 *
 * CPU is the whole broker's (user and system), from the first record to the last delivery. */
#include "bench/broker.h"
#include "bench/load.h"
#include "bench/peer.h"
#include "bench/reader.h"
#include <stdio.h>

#define RECORD ((size_t)1024)
#define CONSUMERS 16
#define KEEP ((uint64_t)128 << 20)

struct turn {
    struct weir_series cpu_percent; /* of one core */
    struct weir_series delivered;   /* MB of data per CPU-second of the broker */
    struct weir_series per_record;  /* us of CPU per published record */
};

static void
run(const struct weir_bench *b, struct weir_bench_broker *broker, struct weir_load *load,
    unsigned consumers, double rate, struct turn *turn)
{
    static struct weir_reader reader[CONSUMERS];
    for (unsigned i = 0; i < consumers; i++) {
        char name[32];
        snprintf(name, sizeof name, "consumer-%u", i);
        weir_reader_open(broker->url, "bench", name, true, &reader[i]);
    }
    double cpu_s = weir_child_cpu_s(&broker->child);
    uint64_t start_ns = weir_bench_now_ns();
    uint64_t count = weir_load_paced(load, rate, b->seconds, NULL);
    weir_load_flush(load);
    for (unsigned i = 0; i < consumers; i++)
        weir_reader_wait(&reader[i], count);
    cpu_s = weir_child_cpu_s(&broker->child) - cpu_s;
    double took_s = (double)(weir_bench_now_ns() - start_ns) / 1e9;
    for (unsigned i = 0; i < consumers; i++)
        weir_reader_close(&reader[i]);
    weir_series_add(&turn->cpu_percent, 100 * cpu_s / took_s);
    weir_series_add(&turn->delivered, (double)count * consumers * RECORD / 1e6 / cpu_s);
    weir_series_add(&turn->per_record, cpu_s * 1e6 / (double)count);
}

static void
run_peer(struct weir_peer *peer, const struct weir_bench *b, unsigned consumers, struct turn *turn)
{
    struct weir_peer_fanout f;
    weir_peer_fan_out(peer, consumers, RECORD, 0, b->seconds, &f);
    weir_series_add(&turn->cpu_percent, 100 * f.cpu_s / f.seconds);
    weir_series_add(&turn->delivered, f.delivered * RECORD / 1e6 / f.cpu_s);
    weir_series_add(&turn->per_record, f.cpu_s * 1e6 / f.published);
}

static void
print(const char *what, const struct turn *turn)
{
    printf("%s\n", what);
    weir_series_print("CPU", &turn->cpu_percent, "% of a core");
    weir_series_print("CPU a published record", &turn->per_record, "us");
    weir_series_print("delivered a CPU-second", &turn->delivered, "MB");
}

int
main(int argc, char **argv)
{
    struct weir_bench b;
    double rate = 40000, linger_ms = 5;
    struct weir_bench_option options[] = {{"--rate", "records a second", &rate},
                                          {"--linger-ms", "of the producer", &linger_ms}};
    weir_bench_begin(&b, "fanout", argc, argv, 5, 3, options, 2);
    if (b.smoke)
        rate = 2000;
    static const char *const flags[] = {"--segment-size=64MiB", "--prewrite=64MiB", NULL};
    weir_bench_broker_describe(flags);
    printf("%.0f records/s of 1 KiB, linger %.0f ms\n", rate, linger_ms);

    struct weir_peer *peer = weir_peer_open(&b);
    struct weir_bench_broker broker;
    weir_bench_broker_start(&b, "data", flags, &broker);
    weir_load_create_stream(broker.url, "bench", 1, KEEP);
    struct weir_load_options load_options = {.url = broker.url,
                                             .stream = "bench",
                                             .record_bytes = RECORD,
                                             .window_bytes = 64 << 20,
                                             .linger_ms = (int64_t)linger_ms,
                                             .uncompressed = true};
    struct weir_load load;
    weir_load_open(&load_options, &load);
    weir_load_fill(&load, b.smoke ? KEEP / 64 : 4 * KEEP);

    static struct turn one, all, peer_one, peer_all;
    for (unsigned round = 0; round < b.rounds; round++) {
        run(&b, &broker, &load, 1, rate, &one);
        run(&b, &broker, &load, CONSUMERS, rate, &all);
        if (peer) {
            run_peer(peer, &b, 1, &peer_one);
            run_peer(peer, &b, CONSUMERS, &peer_all);
        }
    }
    weir_load_close(&load);
    weir_bench_broker_stop(&broker);
    weir_peer_close(peer);

    print("weir, 1 consumer", &one);
    print("weir, 16 consumers", &all);
    if (peer) {
        print("NATS, 1 consumer", &peer_one);
        print("NATS, 16 consumers", &peer_all);
    }
    double more = 100 * (weir_series_ratio(&all.per_record, &one.per_record) - 1);
    weir_bench_at_most(&b, more, "% more broker CPU for 16 consumers than for 1", 60);
    if (peer)
        weir_bench_at_least(&b, weir_series_ratio(&all.delivered, &peer_all.delivered),
                            "x NATS in bytes delivered a CPU-second", 15);
    return weir_bench_end(&b);
}
