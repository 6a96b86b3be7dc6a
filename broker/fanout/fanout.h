/* Fan-out of one owner: every subscription is a cursor and a credit.
 *
 *            ┌────────────── durable batch: framed once, shared by reference ──> all LIVE
 * subscriptions log ─────┤ └── tail cache or journal, bounded reads with one in flight each ──>
 * CATCHING_UP ones
 *
 *   OPENING ──start found──> CATCHING_UP <──fell behind / reached the tip──> LIVE
 *   every state ──closed, shard ended, shard gone──> CLOSED
 *
 * Nothing is queued for a subscription beyond its credit: one that has none costs a cursor. A slow
 * one falls back to reading and catches up; the others do not notice.
 *
 * Threads: the owner's loop. The sink's functions are called on it and must not block. */
#pragma once
#include "log/log.h"
#include "metrics/metrics.h"

struct weir_fanout;
struct weir_sub;

enum weir_status weir_fanout_new(struct weir_loop *loop, struct weir_log *log,
                                 struct weir_metrics *metrics, struct weir_fanout **out);
/* After the loop stopped and the log was closed: reads of it may be on pool threads until then.
 * Subscriptions that were not closed go without a word. NULL is allowed. */
void weir_fanout_free(struct weir_fanout *f);

/* Shards that subscribers may ask for, open and closed ones; the log knows them already. EXISTS.
 * One without subscriptions costs a few dozen bytes. Not from inside a call of the sink, nor the
 * next two. */
enum weir_status weir_fanout_add_shard(struct weir_fanout *f, uint64_t shard);
/* Closed: when a subscription has read up to `end` it gets ended(). */
void weir_fanout_end_shard(struct weir_fanout *f, uint64_t shard, uint64_t end);
/* Gone: stopped(NOT_FOUND) to all. */
void weir_fanout_drop_shard(struct weir_fanout *f, uint64_t shard);

/* What the log's observer of this owner is told, passed on. */
void weir_fanout_durable(struct weir_fanout *f, const struct weir_batch_info *info,
                         struct weir_slice slice);
void weir_fanout_gap(struct weir_fanout *f, uint64_t shard, uint64_t first, uint64_t limit,
                     enum weir_status why);

/* One data frame's worth: consecutive batches, borrowed for the call; a sink that keeps them refs
 * the slices' buffers. Each slice holds one or more whole batches, back to back. */
#define WEIR_DELIVERY_SLICES_MAX 6
struct weir_delivery {
    uint32_t count; /* 1 to WEIR_DELIVERY_SLICES_MAX */
    const struct weir_slice *batch;
    uint64_t
        first; /* offset of the first record; the first frame's may lie before the position asked */
    uint64_t next; /* offset after the last record */
    uint64_t tail; /* the shard's next */
    uint32_t records;
    uint32_t lag_ms; /* now - arrival of what waits behind this frame; 0: nothing waits */
    uint64_t bytes;  /* of all slices: what it costs of the credit */
};

struct weir_sink {
    void (*deliver)(struct weir_sub *sub, const struct weir_delivery *d);
    void (*heartbeat)(struct weir_sub *sub, uint64_t next, uint64_t tail, uint32_t lag_ms);
    void (*gap)(struct weir_sub *sub, uint64_t first, uint64_t limit, enum weir_status why);
    /* The last call of a subscription: the shard is closed and read to its end (OK), `until` was
     * reached (END), the shard is gone (NOT_FOUND), the position is trimmed and it asked to fail
     * (TRIMMED: `offset` is the oldest that is there), IO, NO_MEMORY. weir_sub_close is still owed.
     */
    void (*stopped)(struct weir_sub *sub, enum weir_status why, uint64_t offset);
};

enum weir_start_kind { WEIR_START_OLDEST, WEIR_START_LATEST, WEIR_START_OFFSET, WEIR_START_TIME };

struct weir_sub_config {
    uint64_t shard;
    enum weir_start_kind start;
    uint64_t offset, at_ms;
    uint64_t credit_bytes;
    uint32_t credit_frames;
    uint64_t frame_bytes;  /* aim of one frame; 4 KiB to 4 MiB */
    uint64_t until_offset; /* 0: never */
    uint64_t until_ms;     /* 0: never */
    uint32_t heartbeat_ms; /* 100 to 60,000 */
    bool fail_if_trimmed;
    const char *consumer;         /* copied; may be NULL */
    const struct weir_sink *sink; /* static */
    void *owner;                  /* the sink's own */
    /* Once, on the loop, never from inside weir_sub_open, before any other call of the sink. OK:
     * the offset from which records will come is known. Else nothing comes after it and
     * weir_sub_close is owed: NOT_FOUND, INVALID (an offset that was never given out; `tail` says
     * how far it goes), TRIMMED (it asked to fail; `offset` is the oldest that is there), IO. */
    void (*started)(struct weir_sub *sub, enum weir_status st, uint64_t offset, uint64_t tail);
};
/* NOT_FOUND, NO_MEMORY, INVALID. */
enum weir_status weir_sub_open(struct weir_fanout *f, const struct weir_sub_config *config,
                               struct weir_sub **out);
/* No call of the sink comes after it; allowed from inside one. NULL is allowed. */
void weir_sub_close(struct weir_sub *sub);
void *weir_sub_owner(const struct weir_sub *sub);
/* More credit; sending goes on. Credit above 1 GiB or 1,000,000 frames is INVALID. A batch larger
 * than the credit left is sent when all of the credit granted at open is free again; the credit is
 * then in debt. */
enum weir_status weir_sub_credit(struct weir_sub *sub, uint64_t bytes, uint32_t frames);

struct weir_sub_stat {
    uint64_t shard, next, tail, lag_records, lag_bytes, lag_ms, credit_bytes;
    uint64_t sent_records, sent_bytes, last_sent_ms;
    const char *consumer;
    bool live;
};
void weir_fanout_each(struct weir_fanout *f, void (*each)(void *arg, const struct weir_sub_stat *s),
                      void *arg);
