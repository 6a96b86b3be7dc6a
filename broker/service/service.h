/* The service: every operation of the broker, once. Doors translate.
 *
 *   door (any thread) ──call──> control loop: catalog, checkpoints ──post──> owner loops: ingest, fanout
 *                     <─done──
 *
 * It owns the control loop's state (catalog, checkpoints) and the owners. An owner is a loop with a log,
 * an ingest and a fan-out; shard `number` belongs to owner number % owners, for ever (each has its own
 * journal, whose count is fixed when the data directory is made).
 *
 * Threads: weir_service_* may be called from any thread; done comes on the control loop. What is marked
 * "owner" runs on that owner's loop. */
#pragma once
#include "fanout/fanout.h"
#include "ingest/ingest.h"
#include "lease/lease.h"
#include "log/log.h"
#include "metrics/metrics.h"
#include "stream/stream.h"

struct weir_service;

struct weir_owner {
    uint32_t index;
    struct weir_loop *loop;
    struct weir_log *log;
    struct weir_ingest *ingest;
    struct weir_fanout *fanout;
    struct weir_metrics *metrics;
};

struct weir_service_config {
    struct weir_sys *sys;
    uint32_t owners;             /* of a new data directory; an old one keeps its count */
    uint64_t segment_bytes, prewrite_bytes, group_bytes_max, queue_bytes_max, cache_bytes_max;
    enum weir_durability durability;
    uint64_t interval_ms, producer_expiry_ms;
    uint64_t default_retention_ms;
    /* For the program's log: level as syslog's (3 error, 4 warning, 6 info). Any thread. */
    void (*log)(void *arg, int level, const char *text);
    void *log_arg;
};

/* Locks the data directory (BUSY names the other's pid), recovers journals and catalog, declares the
 * shards, and is ready. Loops are made here; they run threads when sys->threads. */
enum weir_status weir_service_open(const struct weir_service_config *config,
                                   struct weir_service **out, struct weir_error *err);
/* No more writes (UNAVAILABLE); `done` on the control loop when all that was taken is durable. */
void weir_service_drain(struct weir_service *s, void (*done)(void *arg), void *arg);
void weir_service_close(struct weir_service *s); /* NULL is allowed */

struct weir_loop *weir_service_loop(struct weir_service *s);
uint32_t weir_service_owner_count(const struct weir_service *s);
struct weir_owner *weir_service_owner(struct weir_service *s, uint32_t index);
const char *weir_service_data_id(const struct weir_service *s);
