/* The time of one durable acknowledgement, one record of 1 KiB at a time.
 *
 *   weir     weir_put without linger, then a flush
 *   floor    an echo over the same transport (1 KiB there, 40 bytes back, two processes), then
 *            pwrite and fdatasync of 4 KiB into a file written beforehand
 *
 * The floor's two parts are timed one by one as well; what is compared is their sum, operation by
 * operation. */
#include "bench/broker.h"
#include "bench/disk.h"
#include "bench/load.h"
#include "bench/wire.h"
#include <stdio.h>
#include <stdlib.h>

#define RECORD ((size_t)1024)

struct side {
    struct weir_histogram all, turn;
    struct weir_series p50, p99; /* us, per round */
};

static void
end_turn(struct side *s)
{
    weir_series_add(&s->p50, weir_histogram_at(&s->turn, 0.5) / 1e3);
    weir_series_add(&s->p99, weir_histogram_at(&s->turn, 0.99) / 1e3);
    weir_histogram_merge(&s->all, &s->turn);
    s->turn = (struct weir_histogram){0};
}

static void
print(const char *what, const struct side *s)
{
    char line[64];
    snprintf(line, sizeof line, "%s, p50", what);
    weir_series_print(line, &s->p50, "us");
    snprintf(line, sizeof line, "%s, p99", what);
    weir_series_print(line, &s->p99, "us");
}

int
main(int argc, char **argv)
{
    enum { OURS, FLOOR, ECHO, SYNC, SIDES };
    static struct side side[SIDES];
    struct weir_bench b;
    weir_bench_begin(&b, "ack", argc, argv, 15, 1.5, NULL, 0);
    weir_bench_broker_describe(NULL);

    struct weir_disk disk;
    weir_disk_open(&b, b.smoke ? 1 << 20 : 64 << 20, 4096, &disk);
    struct weir_wire *wire = weir_wire_open(&b, RECORD, 0);
    struct weir_bench_broker broker;
    weir_bench_broker_start(&b, "data", NULL, &broker);
    weir_load_create_stream(broker.url, "bench", 1, 0);
    struct weir_load_options options = {.url = broker.url,
                                        .stream = "bench",
                                        .record_bytes = RECORD,
                                        .window_bytes = 8 << 20,
                                        .linger_ms = -1,
                                        .uncompressed = true};
    struct weir_load load;
    weir_load_open(&options, &load);
    for (int i = 0; i < 100; i++)
        weir_load_one(&load);

    for (unsigned round = 0; round < b.rounds; round++) {
        uint64_t until_ns = weir_bench_now_ns() + (uint64_t)(b.seconds * 1e9);
        for (uint64_t a = weir_bench_now_ns(), z; a < until_ns; a = z) {
            weir_load_one(&load);
            z = weir_bench_now_ns();
            weir_histogram_add(&side[OURS].turn, z - a);
        }
        until_ns = weir_bench_now_ns() + (uint64_t)(b.seconds * 1e9);
        for (uint64_t a = weir_bench_now_ns(), m, z; a < until_ns; a = z) {
            weir_wire_echo(wire);
            m = weir_bench_now_ns();
            weir_disk_write(&disk);
            z = weir_bench_now_ns();
            weir_histogram_add(&side[ECHO].turn, m - a);
            weir_histogram_add(&side[SYNC].turn, z - m);
            weir_histogram_add(&side[FLOOR].turn, z - a);
        }
        for (unsigned i = 0; i < SIDES; i++)
            end_turn(&side[i]);
    }
    weir_load_close(&load);
    weir_bench_broker_stop(&broker);
    weir_wire_close(wire);
    weir_disk_close(&disk);

    print("weir, durable ack", &side[OURS]);
    print("floor: echo + sync", &side[FLOOR]);
    print("  of it the echo", &side[ECHO]);
    print("  of it the sync", &side[SYNC]);
    weir_bench_at_most(&b, weir_series_ratio(&side[OURS].p50, &side[FLOOR].p50),
                       "x the floor at p50", 1.5);
    weir_bench_at_most(&b, weir_series_ratio(&side[OURS].p99, &side[FLOOR].p99),
                       "x the floor at p99", 2);
    return weir_bench_end(&b);
}
