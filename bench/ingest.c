/* Durable ingest through the native door: one shard, records of 1 KiB that do not compress.
 *
 *   weir     one producer of libweir, batches of 256 KiB, 8 MiB not yet acknowledged; each
 *            acknowledgement comes after fdatasync
 *   NATS     JetStream, file store, its default lazy sync; js_PublishAsync, 8,192 messages not yet
 *            acknowledged
 *   floor    512 KiB pwrite and fdatasync in a loop, into a file written beforehand
 *
 * The stream keeps its latest 512 MiB, and is filled before the first round: as in a broker that
 * has run for a while, segments that retention freed are written again. */
#include "bench/broker.h"
#include "bench/disk.h"
#include "bench/load.h"
#include "bench/peer.h"
#include <stdio.h>

#define RECORD ((size_t)1024)
#define WINDOW ((uint64_t)8 << 20)
#define KEEP ((uint64_t)512 << 20)

int
main(int argc, char **argv)
{
    struct weir_bench b;
    double fill_mib = 1024;
    struct weir_bench_option options[] = {
        {"--fill-mib", "written before the first round", &fill_mib}};
    weir_bench_begin(&b, "ingest", argc, argv, 7, 2.5, options, 1);
    if (b.smoke)
        fill_mib = 4;
    static const char *const flags[] = {"--segment-size=128MiB", "--prewrite=512MiB",
                                        "--group-size=4MiB", NULL};
    weir_bench_broker_describe(flags);

    struct weir_disk disk;
    weir_disk_open(&b, b.smoke ? 4 << 20 : 512 << 20, 512 << 10, &disk);
    struct weir_peer *peer = weir_peer_open(&b);
    struct weir_bench_broker broker;
    weir_bench_broker_start(&b, "data", flags, &broker);
    weir_load_create_stream(broker.url, "bench", 1, KEEP);
    struct weir_load_options load_options = {.url = broker.url,
                                             .stream = "bench",
                                             .record_bytes = RECORD,
                                             .window_bytes = WINDOW,
                                             .uncompressed = true};
    struct weir_load load;
    weir_load_open(&load_options, &load);
    weir_load_fill(&load, (uint64_t)fill_mib << 20);

    struct weir_series ours = {0}, theirs = {0}, floor = {0}, cpu = {0}, their_cpu = {0};
    for (unsigned round = 0; round < b.rounds; round++) {
        weir_series_add(&floor, weir_disk_flat_out(&disk, b.seconds / 2));
        double before = weir_child_cpu_s(&broker.child);
        uint64_t start_ns = weir_bench_now_ns();
        double rate = weir_load_flat_out(&load, b.seconds);
        double took_s = (double)(weir_bench_now_ns() - start_ns) / 1e9;
        weir_series_add(&ours, rate * RECORD / 1e6);
        weir_series_add(&cpu, (weir_child_cpu_s(&broker.child) - before) * 1e6 / (rate * took_s));
        if (peer) {
            before = weir_child_cpu_s(weir_peer_child(peer));
            start_ns = weir_bench_now_ns();
            rate = weir_peer_publish(peer, RECORD, (unsigned)(WINDOW / RECORD), b.seconds);
            took_s = (double)(weir_bench_now_ns() - start_ns) / 1e9;
            weir_series_add(&theirs, rate * RECORD / 1e6);
            weir_series_add(&their_cpu, (weir_child_cpu_s(weir_peer_child(peer)) - before) * 1e6 /
                                            (rate * took_s));
        }
    }
    weir_load_close(&load);
    weir_bench_broker_stop(&broker);
    weir_peer_close(peer);
    weir_disk_close(&disk);

    weir_series_print("floor, 512 KiB pwrite + fdatasync", &floor, "MB/s");
    weir_series_print("weir, durable", &ours, "MB/s");
    weir_series_print("weir, broker CPU a record", &cpu, "us");
    if (peer) {
        weir_series_print("NATS JetStream, lazy sync", &theirs, "MB/s");
        weir_series_print("NATS, server CPU a message", &their_cpu, "us");
        weir_bench_at_least(&b, weir_series_ratio(&ours, &theirs), "x JetStream", 5);
    }
    weir_bench_at_least(&b, 100 * weir_series_ratio(&ours, &floor), "% of the floor", 40);
    return weir_bench_end(&b);
}
