/* The service: every operation of the broker, once. Doors translate.
 *
 *   door (any thread) ──call──> control loop: catalog, checkpoints ──post──> owner loops: ingest,
 * fanout <─done──
 *
 * It owns the control loop's state (catalog, checkpoints) and the owners. An owner is a loop with a
 * log, an ingest and a fan-out; shard `number` belongs to owner number % owners, for ever (each has
 * its own journal, whose count is fixed when the data directory is made).
 *
 * In the data directory: `lock` (held as long as the service is open), `format` (version and count
 * of owners), `meta.db`, and one journal-N per owner.
 *
 * Threads: the operations may be called from any thread; done comes on the control loop. An owner's
 * ingest and fan-out are used on its own loop. open and close: from a thread that is no loop. */
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
    uint32_t owners; /* of a new data directory; an old one keeps its count */
    uint64_t segment_bytes, prewrite_bytes, group_bytes_max, queue_bytes_max, cache_bytes_max;
    enum weir_durability durability;
    uint64_t interval_ms, producer_expiry_ms;
    uint64_t default_retention_ms;
    /* For the program's log: level as syslog's (3 error, 4 warning, 6 info). Any thread. */
    void (*log)(void *arg, int level, const char *text);
    void *log_arg;
};

/* Locks the data directory (BUSY names the other's pid), recovers journals and catalog, declares
 * the shards, and is ready. Loops are made here; they run threads when sys->threads. What a crash
 * left half done is put right: a stream that was being deleted goes, a reshard that did not commit
 * never was. INVALID: a setting, or a directory of something else. UNSUPPORTED: written by a newer
 * version. */
enum weir_status weir_service_open(const struct weir_service_config *config,
                                   struct weir_service **out, struct weir_error *err);
/* No more writes and no changes of streams (UNAVAILABLE); `done` on the control loop when all that
 * was taken is durable. Once. */
void weir_service_drain(struct weir_service *s, void (*done)(void *arg), void *arg);
/* Doors are closed before. Finishes the operations in flight. NULL is allowed. */
void weir_service_close(struct weir_service *s);
/* Where sys->threads is false: runs all loops until nothing is ready; returns how many tasks ran.
 */
size_t weir_service_step(struct weir_service *s);

/* The broker's own loop: short tasks of doors may run on it too. */
struct weir_loop *weir_service_loop(struct weir_service *s);
struct weir_sys *weir_service_sys(struct weir_service *s);
uint32_t weir_service_owner_count(const struct weir_service *s);
struct weir_owner *weir_service_owner(struct weir_service *s, uint32_t index);
/* The identity of the data directory: 32 hex digits. */
const char *weir_service_data_id(const struct weir_service *s);
/* What counts on the control loop. */
struct weir_metrics *weir_service_metrics(struct weir_service *s);
/* To the program's log; any thread. */
[[gnu::format(printf, 3, 4)]] void weir_service_log(struct weir_service *s, int level,
                                                    const char *fmt, ...);

/* ---- operations ----
 *
 * Each is a struct: arguments, then results. It is the caller's memory, zeroed but for the
 * arguments, and the service's from the call until `done`; what arguments point to is borrowed as
 * long. Results are valid during `done`. Names of streams and shard indexes that are not there:
 * NOT_FOUND. After a drain: UNAVAILABLE for what changes streams. */

struct weir_call {
    void (*done)(struct weir_call *call, enum weir_status st);
    struct weir_error err; /* why, where st is not OK */
    /* private */
    struct weir_service *service;
    struct weir_task task;
    void (*begin)(struct weir_call *call);
    void *work;
};

/* Zeros in the spec are defaults. INVALID, EXISTS, TOO_BIG (over a limit). */
struct weir_create_call {
    struct weir_call call;
    struct weir_stream_spec spec;
    const struct weir_stream *stream;
};
void weir_service_create(struct weir_service *s, struct weir_create_call *c);

/* `accepted` (may be NULL; control loop) comes once DELETING is durable; done when the stream and
 * its checkpoints are gone. BUSY: not ACTIVE. */
struct weir_delete_call {
    struct weir_call call;
    struct weir_bytes stream;
    void (*accepted)(struct weir_call *call);
};
void weir_service_delete(struct weir_service *s, struct weir_delete_call *c);

/* Streams in order of names, those after `after`. */
struct weir_list_call {
    struct weir_call call;
    struct weir_bytes after;
    uint32_t limit; /* 1 to WEIR_STREAMS_MAX; 0: 1,000 */
    const struct weir_stream **streams;
    size_t count;
    bool more;
};
void weir_service_list(struct weir_service *s, struct weir_list_call *c);

/* Shards that are not expired, from index `first_shard` on. */
struct weir_shard_view {
    const struct weir_shard *shard;
    bool has_numbers;              /* its owner answered */
    struct weir_log_shard numbers; /* as of now, where asked for */
};
struct weir_describe_call {
    struct weir_call call;
    struct weir_bytes stream;
    uint32_t first_shard;
    uint32_t limit; /* 0: 1,000; at most 10,000 */
    bool with_numbers;
    const struct weir_stream *info;
    struct weir_shard_view *shards;
    size_t count;
    bool more;
};
void weir_service_describe(struct weir_service *s, struct weir_describe_call *c);

/* 0 leaves a limit as it is; UINT64_MAX as retention_bytes removes it. Shortening trims at once. */
struct weir_retention_call {
    struct weir_call call;
    struct weir_bytes stream;
    uint64_t retention_ms, retention_bytes;
    const struct weir_stream *info;
};
void weir_service_set_retention(struct weir_service *s, struct weir_retention_call *c);

/* `accepted` (may be NULL; control loop) comes when the request was found good and the stream is
 * UPDATING; done when the new shards take records. BUSY: not ACTIVE. INVALID: Kinesis's reasons. */
struct weir_reshard_call {
    struct weir_call call;
    struct weir_bytes stream;
    uint32_t shard, adjacent; /* merge: both */
    bool has_at;              /* split: the upper child's first hash key, else the middle */
    weir_u128 at;
    uint32_t target; /* update_shard_count */
    void (*accepted)(struct weir_call *call);
    const struct weir_stream *info;
    uint32_t child_count; /* of split and merge */
    uint32_t child[2];
};
void weir_service_split(struct weir_service *s, struct weir_reshard_call *c);
void weir_service_merge(struct weir_service *s, struct weir_reshard_call *c);
void weir_service_update_shard_count(struct weir_service *s, struct weir_reshard_call *c);

/* Where a producer of this shard sends its batches. A closed shard is found as well: its owner
 * knows what is stored, and answers the rest with MOVED. */
struct weir_producer_call {
    struct weir_call call;
    struct weir_bytes stream;
    uint32_t shard;
    uint32_t owner;
    uint64_t stream_number, shard_number, record_bytes_max;
    bool closed;
};
void weir_service_find_producer(struct weir_service *s, struct weir_producer_call *c);

enum weir_position_kind {
    WEIR_AT_OLDEST,
    WEIR_AT_LATEST,
    WEIR_AT_OFFSET,
    WEIR_AFTER_OFFSET,
    WEIR_AT_TIME,
    WEIR_AT_CHECKPOINT,
    WEIR_AT_SEQUENCE,
    WEIR_AFTER_SEQUENCE,
    WEIR_POSITION_KINDS
};
struct weir_position_spec {
    enum weir_position_kind kind;
    uint64_t offset, at_ms;
    struct weir_bytes sequence;        /* 56 digits */
    enum weir_position_kind otherwise; /* CHECKPOINT where there is none: OLDEST or LATEST */
};

/* Where a subscription starts. INVALID: a position that is not this shard's. */
struct weir_start_call {
    struct weir_call call;
    struct weir_bytes stream;
    uint32_t shard;
    struct weir_bytes consumer; /* may be empty, but for CHECKPOINT */
    struct weir_position_spec position;
    uint32_t owner;
    uint64_t stream_number, shard_number;
    enum weir_start_kind start;
    uint64_t offset, at_ms;
    bool from_checkpoint;
};
void weir_service_find_start(struct weir_service *s, struct weir_start_call *c);

/* The same as offsets of several shards, as of now. */
struct weir_shard_position {
    uint32_t shard;
    uint64_t offset, oldest, tail;
};
struct weir_positions_call {
    struct weir_call call;
    struct weir_bytes stream;
    const uint32_t *shards;
    size_t shard_count; /* 0: all open ones; at most 10,000 */
    struct weir_bytes consumer;
    struct weir_position_spec position;
    struct weir_shard_position *items;
    size_t count;
};
void weir_service_resolve(struct weir_service *s, struct weir_positions_call *c);

/* What follows a closed shard: its row in `info`, with the children's indexes. */
struct weir_lineage_call {
    struct weir_call call;
    uint64_t stream, shard; /* numbers */
    const struct weir_stream *info;
    const struct weir_shard *row;
};
void weir_service_lineage(struct weir_service *s, struct weir_lineage_call *c);

/* acquire: consumer, shard and owner; the new epoch is in the row. set: consumer, shard, epoch (0:
 * an operator's), offset, shard_end; INVALID beyond the shard's durable end, FENCED with the row as
 * it is. reset: the consumer's positions in all shards. Calls for one row are answered in their
 * order. */
struct weir_checkpoint_call {
    struct weir_call call;
    struct weir_bytes stream, consumer, owner;
    uint32_t shard;
    uint64_t epoch, offset;
    bool shard_end;
    struct weir_checkpoint_row row;
};
void weir_service_acquire(struct weir_service *s, struct weir_checkpoint_call *c);
void weir_service_checkpoint(struct weir_service *s, struct weir_checkpoint_call *c);
void weir_service_reset_checkpoints(struct weir_service *s, struct weir_checkpoint_call *c);

struct weir_checkpoints_call {
    struct weir_call call;
    struct weir_bytes stream, consumer;
    struct weir_checkpoint_row *rows; /* by shard */
    size_t count;
};
void weir_service_get_checkpoints(struct weir_service *s, struct weir_checkpoints_call *c);

/* One line per subscription with a name, and per checkpoint without one; by name, then shard. */
struct weir_consumer_view {
    char name[WEIR_CONSUMER_NAME_MAX + 1];
    uint32_t shard; /* index */
    bool connected, has_checkpoint, shard_end;
    uint64_t checkpoint;
    uint64_t position, tail, lag_records, lag_bytes, lag_ms;
    uint64_t credit_bytes, sent_records, sent_bytes, last_sent_ms;
};
struct weir_consumers_call {
    struct weir_call call;
    struct weir_bytes stream;
    struct weir_consumer_view *items;
    size_t count;
};
void weir_service_list_consumers(struct weir_service *s, struct weir_consumers_call *c);

struct weir_stat {
    const char *name, *unit, *help;
    double value;
};
struct weir_stats_call {
    struct weir_call call;
    struct weir_bytes prefix; /* of names; may be empty */
    struct weir_stat *items;
    size_t count;
};
void weir_service_stats(struct weir_service *s, struct weir_stats_call *c);
