/* A consumer: a client with one subscription and a thread that polls it. */
#pragma once
#include "bench/histogram.h"
#include "client/weir.h"
#include <pthread.h>
#include <stdatomic.h>

#define WEIR_READER_PHASES 2

struct weir_reader {
    struct weir_client *client;
    struct weir_subscription *sub;
    pthread_t thread;
    bool has_thread;
    atomic_bool is_over;
    atomic_int phase; /* what comes is counted here; -1: nowhere */
    _Atomic uint64_t records, bytes;
    struct weir_histogram latency[WEIR_READER_PHASES]; /* from the moment the record was due */
};

/* From the latest on, all shards, with the library's default credit. `polls` false: a consumer that
 * takes nothing and gives no credit. Waits until the subscription stands. The reader is not moved.
 */
void weir_reader_open(const char *url, const char *stream, const char *consumer, bool polls,
                      struct weir_reader *out);
void weir_reader_close(struct weir_reader *r);
/* Waits until the reader has seen `records` records, or 60 s. */
void weir_reader_wait(struct weir_reader *r, uint64_t records);
