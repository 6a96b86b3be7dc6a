/* Load on the broker through libweir: one client with one producer.
 *
 * Threads: one, besides the library's own. */
#pragma once
#include "bench/bench.h"
#include "bench/histogram.h"
#include "client/weir.h"

struct weir_load_options {
    const char *url, *stream;
    size_t record_bytes;
    uint64_t window_bytes; /* not yet acknowledged, at most */
    uint64_t batch_bytes;  /* 0: the library's 256 KiB */
    int64_t linger_ms;     /* as weir_producer_options */
    uint32_t keys;         /* partition keys, used in turn; 0: one */
    bool uncompressed;
};

struct weir_load {
    struct weir_load_options options;
    struct weir_client *client;
    struct weir_producer *producer;
    uint8_t *noise; /* records are pieces of it */
    uint8_t *record;
    uint32_t next_key;
};

/* A stream of so many shards; dies where it cannot. retention_bytes 0: no limit by size. */
void weir_load_create_stream(const char *url, const char *stream, uint32_t shards,
                             uint64_t retention_bytes);
void weir_load_open(const struct weir_load_options *options, struct weir_load *out);
void weir_load_close(struct weir_load *load);

/* As fast as it goes, for so many seconds, until all is acknowledged; records a second. */
double weir_load_flat_out(struct weir_load *load, double seconds);
/* The same for so many bytes of data. */
double weir_load_fill(struct weir_load *load, uint64_t bytes);
/* One record, acknowledged when it returns. The load was opened with linger_ms -1. */
void weir_load_one(struct weir_load *load);

/* Open loop: `rate` records a second at even distances, whatever becomes of them. A record starts
 * with the moment it was due (8 bytes, weir_bench_now_ns()). Returns how many were put; *late_out
 * (may be NULL) is the share of those put more than 1 ms after their moment. */
uint64_t weir_load_paced(struct weir_load *load, double rate, double seconds, double *late_out);
void weir_load_flush(struct weir_load *load);
