/* The inside of a subscription, for its files.
 *
 *   event.c         the queue, events in the program's hands
 *   cursor.c        one shard: asking for it, what comes
 *   checkpoint.c    checkpoints
 *   subscription.c  where to begin, the connection, the topology as it changes
 *
 * Threads: on the client's loop, except where a comment says otherwise. */
#pragma once
#include "client/client.h"
#include "record/batch.h"
#include "record/sequence.h"

enum {
    SCRATCHES = 128, /* kept for reuse: a frame may hold many small batches of large records */
};

enum cursor_state {
    CURSOR_WAITING, /* for its parents */
    CURSOR_READY,
    CURSOR_ACQUIRING,
    CURSOR_OPENING,
    CURSOR_LIVE,
    CURSOR_LOST,  /* the broker does not know the shard: a description tells */
    CURSOR_ENDED, /* the shard was read to its end */
    CURSOR_DONE,  /* `until` was reached: children do not follow */
    CURSOR_FENCED,
};

struct weir_cursor {
    struct weir_channel channel;
    struct weir_subscription *sub;
    uint32_t shard;
    uint64_t created_ms; /* 0: not known yet */
    int64_t parents[2];  /* -1: none */
    enum cursor_state state;

    /* loop only */
    enum weir_from_kind kind, otherwise; /* where to begin, until `pinned` */
    bool pinned;
    uint64_t next;          /* offset behind what was queued */
    uint64_t gap_limit;     /* of the last gap that was told */
    uint64_t until;         /* offset; with has_until */
    bool is_void;           /* nothing is in it, and nothing comes */
    bool has_until, closed; /* closed: `until` is the shard's end */
    uint32_t epoch;         /* of the channel */
    uint64_t frames;        /* running number of the last */
    uint64_t heard_offset;  /* position of the last misfit */
    uint32_t strikes, failures;
    bool acquired;
    struct weir_call call, later_call;
    struct weir_timer retry, credit_timer;

    /* shared, under the subscription's mtx */
    uint64_t token; /* fencing token, with `acquired` */
    uint64_t grant_bytes, grant_frames;
    uint64_t held_bytes, held_frames;   /* queued or with the program */
    uint64_t freed_bytes, freed_frames; /* to be given back */
    struct weir_list freed;             /* in sub->freed */
    struct weir_queued *progress;       /* the one that waits */
    uint64_t polled, end;
    bool is_polled, is_ended; /* `polled`, `end` are known */
    uint64_t later_offset;
    bool later_waits, later_runs;
    struct weir_list later; /* in sub->laters */
};

struct weir_queued {
    struct weir_event pub; /* first */
    struct weir_list node;
    struct weir_subscription *sub;
    struct weir_cursor *cursor;
    struct weir_buf *message;
    uint64_t bytes;         /* of credit */
    struct weir_bytes rest; /* batches not begun */
    struct weir_batch_reader reader;
    uint64_t at_ms;
    uint32_t scratch_count;
    struct weir_scratch *scratches; /* of the batches that were decompressed */
};

struct weir_subscription {
    struct weir_client *client;
    struct weir_member member;
    char stream[WEIR_STREAM_NAME_MAX + 1], consumer[WEIR_CONSUMER_NAME_MAX + 1];
    char sequence[WEIR_SEQUENCE_DIGITS + 1];
    struct weir_subscribe_options options;
    atomic_uint refs; /* ours, and one per event with the program */

    /* loop only */
    char data_id[64]; /* of the data that the offsets belong to */
    struct weir_describe describe;
    bool refreshing, refresh_again;
    struct weir_timer later_timer, refresh_timer;
    struct weir_task task;

    /* shared, under mtx */
    pthread_mutex_t mtx;
    pthread_cond_t changed;
    struct weir_cursor **cursors; /* by shard; grown on the loop */
    size_t count, capacity;
    struct weir_list queue, freed, laters;
    struct weir_queued *connection; /* the one that waits */
    atomic_bool over;               /* written under mtx */
    bool closed;
    struct weir_error end; /* why */
    struct weir_error later_failure;
    uint32_t laters_running;
    int fd;
    struct weir_scratch scratches[SCRATCHES];
    uint32_t scratch_count;
    uint64_t scratch_bytes;
};

/* ---- event.c ---- */

/* Under mtx: whoever waits in poll, or on the descriptor, looks again. */
void weir_subscription_wake(struct weir_subscription *s);
/* Any thread: it is over, and why; the first reason counts. What is queued is still polled. */
void weir_subscription_end(struct weir_subscription *s, enum weir_status st, const char *text);
/* Lets one reference go. */
void weir_subscription_release(struct weir_subscription *s);
/* NULL: no memory, and the subscription is over. */
struct weir_queued *weir_queued_new(struct weir_subscription *s, struct weir_cursor *cursor,
                                    enum weir_event_kind kind);
/* Under mtx. */
void weir_queued_put(struct weir_subscription *s, struct weir_queued *e);
/* The same without mtx; NULL is allowed. */
void weir_queued_tell(struct weir_queued *e);
/* Gives its credit back. */
void weir_queued_free(struct weir_queued *e);
/* Under mtx: the first that waits, or NULL. */
struct weir_queued *weir_queued_take(struct weir_subscription *s);

/* ---- cursor.c ---- */

/* NULL: none. On the loop, or under mtx. */
struct weir_cursor *weir_cursor_find(const struct weir_subscription *s, int64_t shard);
/* NULL: no memory, and the subscription is over. */
struct weir_cursor *weir_cursor_add(struct weir_subscription *s, uint32_t shard);
bool weir_cursor_is_running(const struct weir_cursor *cursor);
/* Does what the cursor can do next. */
void weir_cursor_pump(struct weir_cursor *cursor);
/* Another owner has the shard's checkpoint. */
void weir_cursor_fenced(struct weir_cursor *cursor);
/* Leaves the channel and asks again after a while. */
void weir_cursor_retry(struct weir_cursor *cursor);
/* Starts what waits and whose parents ended; ends the subscription when nothing runs any more. */
void weir_subscription_advance(struct weir_subscription *s);
/* Leaves all channels. */
void weir_subscription_leave(struct weir_subscription *s);
/* What other threads asked for: credit, checkpoints, the end. */
void weir_subscription_on_task(struct weir_task *task);

/* ---- subscription.c ---- */

/* Describes the stream anew, for shards that are new or lost. */
void weir_subscription_refresh(struct weir_subscription *s);

/* ---- checkpoint.c ---- */

/* Sends the checkpoints that wait, one per shard at a time. */
void weir_subscription_run_laters(struct weir_subscription *s);
void weir_subscription_on_later_timer(struct weir_timer *timer);
