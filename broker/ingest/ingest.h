/* Ingest of one owner: from a producer's batch to the log.
 *
 *   produce ─> shard open? ─> admit (form, hashes, records) ─> hash interval within the shard's
 * range? ─> log append (offset, time, chain, dedup) ─> durable ─> done
 *
 * A batch that is already stored is answered with where it is before anything else is asked, so a
 * retry after a split finds its first copy.
 *
 * Threads: the owner's loop. */
#pragma once
#include "log/log.h"
#include "metrics/metrics.h"
#include "record/hash_key.h"

struct weir_ingest;

enum weir_status weir_ingest_new(struct weir_loop *loop, struct weir_log *log,
                                 struct weir_metrics *metrics, struct weir_ingest **out);
/* Before or after the log is closed; NULL is allowed. */
void weir_ingest_free(struct weir_ingest *ingest);

struct weir_ingest_shard {
    uint64_t stream, shard;
    struct weir_hash_range range;
    uint64_t record_bytes_max;
};
/* The log knows the shard already. EXISTS. Small: idle shards cost a few dozen bytes here. */
enum weir_status weir_ingest_open_shard(struct weir_ingest *i,
                                        const struct weir_ingest_shard *shard);
/* Takes no more (MOVED); `done` comes when all that was taken is durable or failed, with the end.
 * `done` may come from inside the call. NOT_FOUND; UNKNOWN: the outcome of an append is not known,
 * so there is no end to record; CANCELLED: it was opened again meanwhile. */
struct weir_ingest_close {
    uint64_t shard;
    void (*done)(struct weir_ingest_close *c, enum weir_status st);
    uint64_t end;               /* result */
    struct weir_ingest *ingest; /* private */
    struct weir_log_barrier barrier;
};
void weir_ingest_close_shard(struct weir_ingest *i, struct weir_ingest_close *c);
/* Takes batches again (a reshard was given up). */
enum weir_status weir_ingest_reopen_shard(struct weir_ingest *i, uint64_t shard);
/* Forgets it; what comes later is answered with MOVED (or NOT_FOUND after a deletion). */
void weir_ingest_drop_shard(struct weir_ingest *i, uint64_t shard);
/* No shard takes anything more (draining): UNAVAILABLE. */
void weir_ingest_stop(struct weir_ingest *i);

/* Owned by the caller until done. The batch's reference is taken in every case. `done` may come
 * from inside the call. Statuses: OK, DUPLICATE (as OK, with the first copy's offset), MOVED,
 * NOT_FOUND, INVALID, TOO_BIG, DAMAGED, AGAIN, NO_SPACE, IO, UNKNOWN, UNAVAILABLE, CANCELLED. */
struct weir_produce {
    struct weir_append append; /* .stream and .shard by the caller; offset, at_ms are results */
    /* `text` is borrowed for the call. */
    void (*done)(struct weir_produce *p, enum weir_status st, const char *text);
    struct weir_metrics *metrics; /* private */
    uint32_t count, size;         /* private */
};
void weir_ingest_produce(struct weir_ingest *i, struct weir_produce *p, struct weir_buf *batch);
