/* Numbers about the broker. Each stands once, in a table with its name, unit, help, and what to do
 * when it rises; `weir stats`, the documentation and later /metrics come from that table.
 *
 * Counters and gauges are per owner loop (no sharing on the hot path): every thread adds to its own
 * slot, readers sum. Any thread. */
#pragma once
#include "base/bytes.h"
#include "base/status.h"
#include <stdatomic.h>

enum weir_metric_kind { WEIR_COUNTER, WEIR_GAUGE };

#define WEIR_METRICS(X)                                                                            \
    /* id, kind, name, unit, help, what to do when it rises */                                     \
    X(CONNECTIONS, GAUGE, "connections", "connections", "open client connections",                 \
      "look for clients that do not reuse connections")                                            \
    X(CONNECTIONS_ACCEPTED, COUNTER, "connections_accepted", "connections",                        \
      "client connections accepted since start", "look for clients that reconnect in a loop")      \
    X(CONNECTIONS_REFUSED, COUNTER, "connections_refused", "connections",                          \
      "connections refused or closed for breaking the protocol", "see the log for the peer")       \
    X(CALLS, COUNTER, "calls", "calls", "control calls answered", "")                              \
    X(CALLS_FAILED, COUNTER, "calls_failed", "calls", "control calls answered with an error", "")  \
    X(INCOMING_BATCHES, COUNTER, "incoming_batches", "batches", "batches taken from producers",    \
      "")                                                                                          \
    X(INCOMING_RECORDS, COUNTER, "incoming_records", "records", "records made durable", "")        \
    X(INCOMING_BYTES, COUNTER, "incoming_bytes", "bytes", "bytes made durable, as stored", "")     \
    X(DUPLICATE_BATCHES, COUNTER, "duplicate_batches", "batches",                                  \
      "batches that were there already and not stored again", "clients lose acknowledgements")     \
    X(REFUSED_BATCHES, COUNTER, "refused_batches", "batches",                                      \
      "batches refused: invalid, too big, closed shard", "see the log for the reason")             \
    X(THROTTLED_BATCHES, COUNTER, "throttled_batches", "batches",                                  \
      "batches refused because a queue was full", "the disk is slower than the producers")         \
    X(SUBSCRIPTIONS, GAUGE, "subscriptions", "subscriptions", "open subscriptions", "")            \
    X(OUTGOING_FRAMES, COUNTER, "outgoing_frames", "frames", "data frames sent", "")               \
    X(OUTGOING_RECORDS, COUNTER, "outgoing_records", "records", "records sent to subscribers", "") \
    X(OUTGOING_BYTES, COUNTER, "outgoing_bytes", "bytes", "bytes sent to subscribers", "")         \
    X(CATCHUP_READS, COUNTER, "catchup_reads", "reads", "reads from the journal for subscribers",  \
      "consumers are behind the tail cache")                                                       \
    X(GAPS, COUNTER, "gaps", "gaps", "positions that were gone before they were read",             \
      "consumers are slower than retention, or data is damaged")                                   \
    X(CHECKPOINTS, COUNTER, "checkpoints", "checkpoints", "checkpoints made durable", "")          \
    X(CHECKPOINTS_FENCED, COUNTER, "checkpoints_fenced", "checkpoints",                            \
      "checkpoints refused to a stale owner", "consumers with the same name compete")

enum weir_metric {
#define X(id, kind, name, unit, help, action) WEIR_METRIC_##id,
    WEIR_METRICS(X)
#undef X
        WEIR_METRIC_COUNT
};

struct weir_metric_about {
    enum weir_metric_kind kind;
    const char *name, *unit, *help, *action;
};
extern const struct weir_metric_about weir_metric_about[WEIR_METRIC_COUNT];

/* One per thread that counts; adding is a relaxed store on a line of its own. */
struct weir_metrics {
    _Alignas(64) _Atomic int64_t value[WEIR_METRIC_COUNT];
};

static inline void
weir_metric_add(struct weir_metrics *m, enum weir_metric id, int64_t n)
{
    if (m)
        atomic_store_explicit(&m->value[id],
                              atomic_load_explicit(&m->value[id], memory_order_relaxed) + n,
                              memory_order_relaxed);
}
int64_t weir_metric_sum(struct weir_metrics *const *all, size_t count, enum weir_metric id);
