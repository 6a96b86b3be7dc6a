/* libweir: the C library of Weir's clients.
 *
 *     struct weir_client *client;
 *     weir_client_open(&(struct weir_client_options){.url = "tcp://127.0.0.1:7070"}, &client,
 * &err);
 *
 *     struct weir_producer *producer;
 *     weir_producer_open(client, &(struct weir_producer_options){.stream = "orders"}, &producer,
 * &err); weir_put(producer, "order-17", 8, data, size, NULL, 1000); weir_producer_flush(producer,
 * 10000, &err);
 *
 *     struct weir_subscription *sub;
 *     weir_subscribe(client, &(struct weir_subscribe_options){.stream = "orders",
 *                    .consumer = "mailer", .from = {.kind = WEIR_FROM_CHECKPOINT}}, &sub, &err);
 *     struct weir_event *event;
 *     while (weir_poll(sub, 1000, &event, &err) == WEIR_OK) { … weir_event_free(event); }
 *
 * A client holds one connection and makes it again when it breaks; producers and subscriptions on
 * it go on where they were: a record that was not acknowledged is sent again under its number and
 * stored once; a subscription resumes behind the last event that was polled.
 *
 * Ownership: options and their strings are borrowed for the call. What _open, _subscribe, _poll and
 * _describe hand out is freed by the matching call. Closing accepts NULL.
 *
 * Threads: every object may be used from several threads at once, except that one subscription is
 * polled by one thread at a time, and that nothing may be used during or after its close. Callbacks
 * come on a thread of the library and must not block. Never fork between open and close.
 *
 * Times are milliseconds; moments are milliseconds since 1970 (UTC). A timeout of 0 does not wait,
 * -1 waits for ever. */
#pragma once
#include "base/error.h"
#include "base/status.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define WEIR_URL_DEFAULT "tcp://127.0.0.1:7070"

/* ---- client ---- */

struct weir_client;

struct weir_client_options {
    const char *url;  /* NULL: $WEIR_BROKER, else WEIR_URL_DEFAULT; tcp, ipc, tls+tcp, inproc */
    const char *name; /* for the broker's log; NULL: the program's name */
    int64_t connect_timeout_ms; /* of open; 0: 5,000; -1: open returns at once, connects behind */
    const char *tls_ca;         /* PEM file, for tls+tcp; NULL: the system's */
    bool tls_insecure;          /* do not check the broker's certificate */
    /* Told when the connection is lost and made again; may be NULL. */
    void (*on_connection)(void *arg, bool connected, const char *text);
    void *arg;
};

/* UNAVAILABLE: no broker within the time. */
enum weir_status weir_client_open(const struct weir_client_options *options,
                                  struct weir_client **out, struct weir_error *err);
void weir_client_close(struct weir_client *client);
/* The broker's clock and the identity of its data directory, as of the last handshake. */
const char *weir_client_broker(struct weir_client *client); /* "weir-broker 0.1.0" */

/* ---- streams ---- */

struct weir_stream_options {
    const char *name;          /* 1 to 128 of [a-zA-Z0-9_.-] */
    uint32_t shard_count;      /* 0: 1 */
    uint64_t retention_ms;     /* 0: 24 h */
    uint64_t retention_bytes;  /* 0: no limit by size; per shard */
    uint64_t record_bytes_max; /* 0: 1 MiB; up to 10 MiB */
};

enum weir_stream_status {
    WEIR_STREAM_CREATING,
    WEIR_STREAM_ACTIVE,
    WEIR_STREAM_UPDATING,
    WEIR_STREAM_DELETING
};

struct weir_shard_description {
    uint32_t index;
    char id[21];                      /* "shardId-000000000000" */
    char hash_low[40], hash_high[40]; /* decimal */
    int32_t parent, adjacent_parent;  /* -1: none */
    uint64_t created_ms, closed_ms;   /* closed 0: open */
    uint64_t oldest, next;            /* offsets: [oldest, next) is there */
    uint64_t oldest_at_ms, latest_at_ms, bytes;
};

struct weir_stream_description {
    char name[129];
    uint64_t created_ms, retention_ms, retention_bytes, record_bytes_max, version;
    enum weir_stream_status status;
    uint32_t open_shards, shard_count;
    struct weir_shard_description *shards; /* by index; trimmed ones are left out */
};

enum weir_status weir_create_stream(struct weir_client *c,
                                    const struct weir_stream_options *options,
                                    struct weir_error *err);
enum weir_status weir_delete_stream(struct weir_client *c, const char *name,
                                    struct weir_error *err);
/* Calls each for every name, in order. */
enum weir_status weir_list_streams(struct weir_client *c, void (*each)(void *arg, const char *name),
                                   void *arg, struct weir_error *err);
enum weir_status weir_describe_stream(struct weir_client *c, const char *name,
                                      struct weir_stream_description **out, struct weir_error *err);
void weir_stream_description_free(struct weir_stream_description *d);
/* 0 leaves a limit as it is; UINT64_MAX as retention_bytes removes it. */
enum weir_status weir_set_retention(struct weir_client *c, const char *name, uint64_t retention_ms,
                                    uint64_t retention_bytes, struct weir_error *err);
/* new_starting_hash: decimal; NULL: the middle. */
enum weir_status weir_split_shard(struct weir_client *c, const char *name, uint32_t shard,
                                  const char *new_starting_hash, struct weir_error *err);
enum weir_status weir_merge_shards(struct weir_client *c, const char *name, uint32_t shard,
                                   uint32_t adjacent, struct weir_error *err);
enum weir_status weir_update_shard_count(struct weir_client *c, const char *name, uint32_t target,
                                         struct weir_error *err);

/* ---- producer ---- */

struct weir_producer;

/* The fate of one record; `tag` is the one given to put. OK: stored, there. DUPLICATE: stored when
 * it was sent before; where is no longer known (offset and at_ms are 0). Else it is not stored,
 * except perhaps after UNKNOWN. */
struct weir_ack {
    void *tag;
    enum weir_status status;
    uint32_t shard;
    uint64_t offset, at_ms;
    const char *text; /* where status is not OK */
};

struct weir_producer_options {
    const char *stream;
    uint64_t batch_bytes;  /* 0: 256 KiB; a batch is sent when it has this much */
    int64_t linger_ms;     /* 0: 2; -1: none, each put is sent at once; a batch waits at most */
    uint64_t memory_bytes; /* 0: 32 MiB; records not yet acknowledged */
    uint32_t batches_in_flight; /* 0: 16, per shard */
    bool uncompressed;          /* else LZ4 */
    bool no_deduplication;
    uint64_t retry_ms; /* 0: 120,000; then a record that is not stored fails with TIMEOUT */
    void (*on_ack)(void *arg,
                   const struct weir_ack *ack); /* per record, in order per shard; or NULL */
    /* Per batch instead of per record where no tag is needed: `count` records from `offset` on. */
    void (*on_batch_ack)(void *arg, enum weir_status st, uint32_t shard, uint64_t offset,
                         uint32_t count);
    void *arg;
};

/* NOT_FOUND: no such stream. */
enum weir_status weir_producer_open(struct weir_client *c,
                                    const struct weir_producer_options *options,
                                    struct weir_producer **out, struct weir_error *err);
/* Copies the record in; the order of puts per key is the order in the stream, also over retries,
 * splits and merges. AGAIN: memory_bytes are in use and timeout_ms passed. TOO_BIG, INVALID. */
enum weir_status weir_put(struct weir_producer *p, const void *key, size_t key_len,
                          const void *data, size_t data_len, void *tag, int64_t timeout_ms);
/* The same with an explicit hash key, decimal. */
enum weir_status weir_put_hashed(struct weir_producer *p, const void *key, size_t key_len,
                                 const char *explicit_hash, const void *data, size_t data_len,
                                 void *tag, int64_t timeout_ms);
/* Sends what waits, and waits until all is acknowledged. TIMEOUT; else the first failure since the
 * last flush. */
enum weir_status weir_producer_flush(struct weir_producer *p, int64_t timeout_ms,
                                     struct weir_error *err);

struct weir_producer_numbers {
    uint64_t records_put, records_acked, records_failed, batches_sent, batches_acked, retries;
    uint64_t bytes_put, bytes_sent; /* before and after compression */
    uint64_t bytes_waiting;
};
void weir_producer_get_numbers(struct weir_producer *p, struct weir_producer_numbers *out);
/* Sends nothing more; what is not acknowledged fails with CANCELLED. Flush first. */
void weir_producer_close(struct weir_producer *p);

/* ---- subscription ---- */

enum weir_from_kind {
    WEIR_FROM_LATEST,
    WEIR_FROM_OLDEST,
    WEIR_FROM_OFFSET,   /* with shard */
    WEIR_FROM_SEQUENCE, /* 56 digits; at it; with shard (0 is taken from the number) */
    WEIR_FROM_TIME,
    WEIR_FROM_CHECKPOINT, /* of `consumer`; `otherwise` where a shard has none */
};

struct weir_from {
    enum weir_from_kind kind;
    uint64_t offset, at_ms;
    const char *sequence;
    enum weir_from_kind otherwise; /* LATEST or OLDEST */
};

#define WEIR_ALL_SHARDS UINT32_MAX

struct weir_subscribe_options {
    const char *stream;
    uint32_t shard;       /* with `one_shard` */
    bool one_shard;       /* else all: parents before their children, through splits and merges */
    const char *consumer; /* name, for lag and checkpoints; may be NULL */
    struct weir_from from;
    bool take_checkpoint;  /* take the fencing token of each shard: older owners are refused */
    uint64_t credit_bytes; /* 0: 8 MiB, per shard at most, 32 MiB over all */
    uint64_t frame_bytes;  /* 0: 256 KiB */
    uint64_t until_ms;     /* 0: never; stop before arrivals at or after this moment */
    bool until_tail;       /* stop at what is there now */
    uint32_t heartbeat_ms; /* 0: 1,000 */
    bool fail_if_trimmed;  /* else a GAP event, then on */
};

enum weir_event_kind {
    WEIR_EVENT_RECORDS,
    WEIR_EVENT_PROGRESS,   /* no data; position and lag moved (heartbeat) */
    WEIR_EVENT_GAP,        /* offsets [first, limit) are gone: `why` TRIMMED or DAMAGED */
    WEIR_EVENT_SHARD_END,  /* a closed shard was read to its end; children follow by themselves */
    WEIR_EVENT_CONNECTION, /* lost (connected false) or back: nothing is missing */
    WEIR_EVENT_FENCED,     /* another owner took the shard's checkpoint; no more of it comes */
};

/* An event; valid until freed. Freeing returns its credit. */
struct weir_event {
    enum weir_event_kind kind;
    uint32_t shard;
    uint64_t first, limit; /* offsets: of RECORDS the first and the one after the last; of GAP */
    uint64_t tail;         /* the shard's next offset as the broker knew it when it sent */
    uint64_t lag_ms;       /* 0 at the tip */
    uint64_t epoch;        /* fencing token, with take_checkpoint */
    uint32_t records;      /* how many */
    enum weir_status why;
    bool connected;
};

struct weir_event_record {
    uint32_t shard;
    uint64_t offset, at_ms;
    const uint8_t *key;
    size_t key_len;
    const uint8_t *data;
    size_t data_len;
};

struct weir_subscription;

enum weir_status weir_subscribe(struct weir_client *c, const struct weir_subscribe_options *options,
                                struct weir_subscription **out, struct weir_error *err);
/* OK with an event; TIMEOUT; END: until_… was reached or the (one) shard ended and all was polled;
 * else why the subscription is over. */
enum weir_status weir_poll(struct weir_subscription *s, int64_t timeout_ms, struct weir_event **out,
                           struct weir_error *err);
/* The next record of a RECORDS event; false after the last. Pointers live as long as the event. */
bool weir_event_next(struct weir_event *event, struct weir_event_record *out);
/* The 56-digit sequence number of an offset in a shard of this subscription (57 bytes). */
enum weir_status weir_sequence_of(struct weir_subscription *s, uint32_t shard, uint64_t offset,
                                  uint64_t at_ms, char out[57]);
void weir_event_free(struct weir_event *event);
/* A descriptor that is readable while an event waits, for the caller's own poll(2). */
int weir_subscription_fd(struct weir_subscription *s);
/* Where the subscription stands in a shard: offset of the next event's first record. */
enum weir_status weir_subscription_position(struct weir_subscription *s, uint32_t shard,
                                            uint64_t *offset_out);
void weir_subscription_close(struct weir_subscription *s);

/* ---- checkpoints ---- */

/* Durable when it returns: all before `offset` is done. FENCED: another owner has the shard. With
 * take_checkpoint the subscription's token is used. */
enum weir_status weir_checkpoint(struct weir_subscription *s, uint32_t shard, uint64_t offset,
                                 struct weir_error *err);
/* The same without waiting; at most one per shard is under way, a newer one replaces one that
 * waits. Failures come with the next weir_poll. */
void weir_checkpoint_later(struct weir_subscription *s, uint32_t shard, uint64_t offset);

struct weir_checkpoint_info {
    uint32_t shard;
    uint64_t offset, epoch, updated_ms;
    bool set, shard_end;
    char owner[129];
};
enum weir_status weir_get_checkpoints(struct weir_client *c, const char *stream,
                                      const char *consumer,
                                      void (*each)(void *arg, const struct weir_checkpoint_info *),
                                      void *arg, struct weir_error *err);
/* An operator's set: takes the token over, so that a running owner is fenced. */
enum weir_status weir_set_checkpoint(struct weir_client *c, const char *stream,
                                     const char *consumer, uint32_t shard, uint64_t offset,
                                     struct weir_error *err);
/* Takes the fencing token of one shard: *epoch_out is newer than any before. */
enum weir_status weir_acquire_checkpoint(struct weir_client *c, const char *stream,
                                         const char *consumer, uint32_t shard, const char *owner,
                                         uint64_t *epoch_out, struct weir_error *err);
enum weir_status weir_reset_checkpoints(struct weir_client *c, const char *stream,
                                        const char *consumer, struct weir_error *err);
/* Where `from` lies in each open (or the given) shard. */
enum weir_status weir_resolve(struct weir_client *c, const char *stream,
                              const struct weir_from *from, const char *consumer,
                              void (*each)(void *arg, uint32_t shard, uint64_t offset,
                                           uint64_t oldest, uint64_t tail),
                              void *arg, struct weir_error *err);

/* ---- watching ---- */

struct weir_consumer_info {
    char name[129];
    uint32_t shard;
    bool connected, has_checkpoint;
    uint64_t position, tail, checkpoint;
    uint64_t lag_records, lag_bytes, lag_ms;
    uint64_t credit_bytes, sent_records, sent_bytes, last_sent_ms;
};
enum weir_status weir_list_consumers(struct weir_client *c, const char *stream,
                                     void (*each)(void *arg, const struct weir_consumer_info *),
                                     void *arg, struct weir_error *err);
/* The broker's metrics whose names start with `prefix` ("" for all). */
enum weir_status weir_get_stats(struct weir_client *c, const char *prefix,
                                void (*each)(void *arg, const char *name, double value,
                                             const char *unit, const char *help),
                                void *arg, struct weir_error *err);

const char *weir_version(void);

#ifdef __cplusplus
}
#endif
