/* A weir-broker of the benchmark's own, on a loopback port that the system chose. */
#pragma once
#include "bench/bench.h"
#include "bench/process.h"

struct weir_bench_broker {
    struct weir_child child;
    char url[256];
    double ready_ms; /* from the start of the process to its ready message */
};

/* `data` names a directory below the benchmark's. `flags` (NULL-terminated, or NULL) are the
 * broker's settings besides --data and --listen; they are printed once by
 * weir_bench_broker_describe. */
void weir_bench_broker_start(const struct weir_bench *b, const char *data, const char *const *flags,
                             struct weir_bench_broker *out);
void weir_bench_broker_stop(struct weir_bench_broker *broker);
void weir_bench_broker_kill(struct weir_bench_broker *broker);
void weir_bench_broker_describe(const char *const *flags);
/* Removes a directory below the benchmark's, with all in it. */
void weir_bench_remove(const struct weir_bench *b, const char *name);
/* Waits until the process has used less than 1 % of a core for a second (at most 20 s). */
void weir_bench_wait_idle(const struct weir_child *child);
