/* Replay of history that is in the page cache, to one reader over tcp, against a bare send loop.
 *
 *   weir     libweir subscribes from the oldest record until the tail; every record is looked at
 *   floor    bench_other sends as many bytes from its memory, in messages of the same size, over
 * the same transport; the receiver counts them
 *
 * Records of 1 KiB that do not compress, batches and frames of 256 KiB. */
#include "bench/broker.h"
#include "bench/load.h"
#include "bench/wire.h"
#include <stdio.h>

#define RECORD ((size_t)1024)
#define FRAME ((size_t)256 << 10)

static double
replay(struct weir_client *client, uint64_t bytes_wanted)
{
    struct weir_subscribe_options options = {
        .stream = "bench", .from = {.kind = WEIR_FROM_OLDEST}, .until_tail = true};
    struct weir_subscription *sub;
    struct weir_error err = {0};
    uint64_t start_ns = weir_bench_now_ns(), bytes = 0;
    if (weir_subscribe(client, &options, &sub, &err))
        weir_bench_die("cannot subscribe: %s", err.text);
    for (;;) {
        struct weir_event *event;
        enum weir_status st = weir_poll(sub, 60000, &event, &err);
        if (st == WEIR_END)
            break;
        if (st)
            weir_bench_die("a replay ended: %s", err.text);
        struct weir_event_record record;
        while (event->kind == WEIR_EVENT_RECORDS && weir_event_next(event, &record))
            bytes += record.data_len;
        weir_event_free(event);
    }
    double rate = (double)bytes * 1e3 / (double)(weir_bench_now_ns() - start_ns);
    weir_subscription_close(sub);
    if (bytes != bytes_wanted)
        weir_bench_die("replayed %llu of %llu bytes", (unsigned long long)bytes,
                       (unsigned long long)bytes_wanted);
    return rate;
}

int
main(int argc, char **argv)
{
    struct weir_bench b;
    double mib = 500;
    struct weir_bench_option options[] = {{"--mib", "history", &mib}};
    weir_bench_begin(&b, "replay", argc, argv, 9, 1, options, 1);
    if (b.smoke)
        mib = 4;
    uint64_t bytes = (uint64_t)mib << 20;
    weir_bench_broker_describe(NULL);

    struct weir_bench_broker broker;
    weir_bench_broker_start(&b, "data", NULL, &broker);
    weir_load_create_stream(broker.url, "bench", 1, 0);
    struct weir_load_options load_options = {.url = broker.url,
                                             .stream = "bench",
                                             .record_bytes = RECORD,
                                             .window_bytes = 16 << 20,
                                             .uncompressed = true};
    struct weir_load load;
    weir_load_open(&load_options, &load);
    weir_load_fill(&load, bytes);
    struct weir_wire *wire = weir_wire_open(&b, FRAME, bytes);

    struct weir_series ours = {0}, floor = {0}, cpu = {0};
    replay(load.client, bytes);
    weir_wire_receive(wire);
    for (unsigned round = 0; round < b.rounds; round++) {
        double cpu_s = weir_child_cpu_s(&broker.child);
        weir_series_add(&ours, replay(load.client, bytes));
        weir_series_add(&cpu, (double)bytes / 1e6 / (weir_child_cpu_s(&broker.child) - cpu_s));
        weir_series_add(&floor, weir_wire_receive(wire));
    }
    weir_wire_close(wire);
    weir_load_close(&load);
    weir_bench_broker_stop(&broker);

    weir_series_print("floor, bare send loop", &floor, "MB/s");
    weir_series_print("weir, replay to one reader", &ours, "MB/s");
    weir_series_print("weir, replayed a CPU-second of the broker", &cpu, "MB");
    weir_bench_at_least(&b, 100 * weir_series_ratio(&ours, &floor), "% of the bare send loop", 85);
    return weir_bench_end(&b);
}
