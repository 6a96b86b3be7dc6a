/* The log of one owner: the batches of its shards in one journal, in commit order, and the index
 * that finds a shard's batches again.
 *
 *     append ──> next group ──write, sync──> durable ──> index, `durable` callback, done callback
 *     read  <── tail cache (memory) or journal (pool thread), checked before it leaves
 *
 * Acknowledged means on disk: done(OK) comes after the journal's sync returned (durability SYNC),
 * or after the write (INTERVAL: synced every interval_ms; named, visible, never the default). After
 * a failed write or sync nothing of that group is acknowledged, its segment is never written again,
 * and the log goes on in a new one; where that fails too it refuses writes (NO_SPACE while the disk
 * is full, IO otherwise), keeps serving reads, and tries again by itself.
 *
 * The log knows shards by number, offsets and bytes. It does not know streams' names, hash ranges,
 * consumers, or what a record means. It assumes no local file: below it stands struct weir_journal
 * (journal.h).
 *
 * Threads: all calls on the owner's loop, unless they say otherwise; callbacks come on it too,
 * never from inside the call that asked. open and close: before the loop runs and after it stopped.
 */
#pragma once
#include "base/buffer.h"
#include "base/error.h"
#include "base/limits.h"
#include "base/list.h"
#include "record/batch.h"
#include "sys/sys.h"

struct weir_log;

enum weir_durability { WEIR_DURABILITY_SYNC, WEIR_DURABILITY_INTERVAL };

/* One batch became durable, in offset order per shard. `slice` is borrowed; ref its buffer to keep
 * it. The info is the sealed header's. */
struct weir_log_observer {
    void (*durable)(struct weir_log_observer *o, const struct weir_batch_info *info,
                    struct weir_slice slice);
    /* [first, limit) of the shard was trimmed or found damaged; readers there must be told. */
    void (*gap)(struct weir_log_observer *o, uint64_t shard, uint64_t first, uint64_t limit,
                enum weir_status why);
    /* The log stopped or resumed taking writes (`st` OK: takes them), with the reason for the
     * program's own log. */
    void (*health)(struct weir_log_observer *o, enum weir_status st, const char *text);
};

struct weir_log_config {
    struct weir_sys *sys;
    struct weir_loop *loop;
    const char *directory;    /* below sys->fs, e.g. "journal-0"; made if missing */
    uint32_t journal;         /* its number, written into every group */
    uint64_t segment_bytes;   /* 1 MiB to 1 GiB */
    uint64_t prewrite_bytes;  /* zeros written and synced ahead of the writer; 0 to 16 segments */
    uint64_t group_bytes_max; /* of one commit; 64 KiB to 16 MiB */
    uint64_t queue_bytes_max; /* appended, not yet durable; beyond: AGAIN */
    uint64_t cache_bytes_max; /* tail cache: latest batches in memory */
    enum weir_durability durability;
    uint64_t interval_ms;        /* of INTERVAL */
    uint64_t producer_expiry_ms; /* a producer's last number is forgotten after this long */
    struct weir_log_observer *observer;
};

/* What recovery found, for the program's log and for `ready`. */
struct weir_log_report {
    uint64_t segments, batches_walked, bytes_walked;
    uint64_t torn_bytes;    /* cut from the end: never acknowledged */
    uint64_t damaged_count; /* places where data is bad with good data behind it */
    uint64_t shards;
    uint64_t took_us;
};

/* Recovers what is there: walks the tail after the last footer. DAMAGED areas do not fail it: they
 * are counted, logged through err's text (last one) and become gaps. INVALID: another journal's or
 * a newer version's files. The epoch grows by one on each open and is durable before it returns. */
enum weir_status weir_log_open(const struct weir_log_config *config, struct weir_log **out,
                               struct weir_log_report *report, struct weir_error *err);
/* Fails what is queued (CANCELLED), waits for the commit in flight. NULL is allowed. */
void weir_log_close(struct weir_log *log);
uint32_t weir_log_epoch(const struct weir_log *log);

/* ---- shards ---- */

struct weir_log_shard {
    uint64_t stream, shard;
    uint64_t oldest;       /* first offset that is still there (= next when empty) */
    uint64_t next;         /* durable end: the next record's offset once all appends are in */
    uint64_t assigned;     /* end including appends in flight */
    uint64_t oldest_at_ms; /* arrival of the oldest batch, 0 when empty */
    uint64_t latest_at_ms; /* arrival of the last batch ever; never goes back */
    uint64_t bytes;        /* of batches between oldest and next, as stored */
};

/* Declares a shard that the catalog knows, with its retention. One the journal has batches of gets
 * its state from there; any other starts at offset 0 and costs no disk. EXISTS. Idle shards are
 * small: at most 300 bytes each. */
enum weir_status weir_log_shard_add(struct weir_log *log, uint64_t stream, uint64_t shard,
                                    uint64_t retention_ms, uint64_t retention_bytes);
/* Its batches are no longer there; space comes back with its segments. NOT_FOUND. */
enum weir_status weir_log_shard_drop(struct weir_log *log, uint64_t shard);
/* After the catalog's shards were added: drops what the journal holds of others. */
void weir_log_drop_undeclared(struct weir_log *log);
enum weir_status weir_log_shard_get(const struct weir_log *log, uint64_t shard,
                                    struct weir_log_shard *out);
/* retention_bytes 0: no limit by size. Trims at once; the boundary reached stays: a later increase
 * revives nothing (recorded before done(…) of the caller's next append may be). */
enum weir_status weir_log_set_retention(struct weir_log *log, uint64_t shard, uint64_t retention_ms,
                                        uint64_t retention_bytes);
/* Applies retention now (the log does so by itself about once a second, and deletes segments with
 * nothing live in them, after moving the few live batches of mostly dead ones forward). */
void weir_log_trim(struct weir_log *log);

/* ---- append ---- */

/* Owned by the caller until done. `batch` was admitted (weir_batch_admit), is solely ours, and its
 * reference is taken by a successful weir_log_append. */
struct weir_append {
    struct weir_buf *batch;
    uint64_t stream, shard;
    bool known_only; /* only where it is stored already; else NOT_FOUND */
    /* OK; DUPLICATE (offset and at_ms of the first copy, 0 where no longer known; it is durable);
     * IO, NO_SPACE, CANCELLED: not stored; UNKNOWN: only a restart or a reader can tell. */
    void (*done)(struct weir_append *a, enum weir_status st);
    uint64_t offset, at_ms; /* results: of the batch's first record */
    /* private */
    struct weir_list node;
    weir_u128 hash;
    uint64_t segment;
    uint32_t position, size, count;
    uint8_t kind;
    enum weir_status st;
};
/* Gives the batch its offset, time and chain, and queues it. AGAIN: the queue is full. NOT_FOUND.
 * INVALID: the producer's number skips one, or is not 1 and the producer is not known (the last
 * known number, or 0, is in a->offset). NO_SPACE, IO: writes are refused at present. On failure
 * nothing is taken and done is not called. */
enum weir_status weir_log_append(struct weir_log *log, struct weir_append *a);
/* Bytes appended and not yet durable. */
uint64_t weir_log_queued_bytes(const struct weir_log *log);
/* Calls done on the loop once all that is queued now is durable (synced, also with INTERVAL) or has
 * failed. */
struct weir_log_barrier {
    void (*done)(struct weir_log_barrier *b);
    struct weir_append marker; /* private */
};
void weir_log_barrier(struct weir_log *log, struct weir_log_barrier *b);
/* The last number of the producer on that shard; NOT_FOUND. */
enum weir_status weir_log_producer(const struct weir_log *log, uint64_t shard, weir_u128 producer,
                                   uint64_t *number_out);

/* ---- read ---- */

#define WEIR_RUN_SLICES_MAX 64

/* Whole consecutive batches of one shard, each checked; STATE batches are left out. */
struct weir_run {
    uint32_t count;
    uint64_t
        first; /* offset of the first record of the first batch (may lie before the one asked) */
    uint64_t limit; /* offset after the last record */
    uint64_t bytes;
    struct {
        struct weir_slice slice; /* owns one reference */
        uint64_t first, at_ms;
        uint32_t records;
    } batch[WEIR_RUN_SLICES_MAX];
};
void weir_run_clear(struct weir_run *run); /* lets the references go */

/* From memory alone: OK; AGAIN (only the journal has it: use weir_log_read); END (at the durable
 * end); TRIMMED (run->first is the oldest there); DAMAGED (gap [run->first, run->limit));
 * NOT_FOUND. At least one batch however small `bytes_max`, else at most that much. */
enum weir_status weir_log_read_cached(struct weir_log *log, uint64_t shard, uint64_t offset,
                                      uint64_t bytes_max, struct weir_run *run);

struct weir_read {
    uint64_t shard, offset, bytes_max;
    void (*done)(struct weir_read *r, enum weir_status st); /* statuses as above, and IO */
    struct weir_run run;
    /* private */
    struct weir_log *log;
    struct weir_job job;
    void *plan;
};
/* Reads on a pool thread; with read-ahead. The caller keeps `r` until done. A shard dropped
 * meanwhile: NOT_FOUND. */
void weir_log_read(struct weir_log *log, struct weir_read *r);

/* The first offset whose arrival is at or after `at_ms` (bisection over segments, then batches);
 * the durable end where there is none; the oldest where it is older than all. */
struct weir_find {
    uint64_t shard, at_ms;
    void (*done)(struct weir_find *f, enum weir_status st);
    uint64_t offset; /* result */
    /* private */
    struct weir_log *log;
    struct weir_job job;
    void *plan;
};
void weir_log_find_time(struct weir_log *log, struct weir_find *f);

/* ---- numbers for metrics ---- */

struct weir_log_stat {
    uint64_t groups, group_bytes, batches, records, syncs, sync_us_total;
    uint64_t segments, disk_bytes, live_bytes, cache_bytes, index_bytes;
    uint64_t reads, read_bytes, cache_hits, damaged, copied_bytes, failed_groups;
    enum weir_status health;
};
void weir_log_get_stat(const struct weir_log *log, struct weir_log_stat *out);
