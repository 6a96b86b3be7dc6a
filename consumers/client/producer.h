/* The inside of a producer, for its files.
 *
 *   put.c       records into chunks, any thread
 *   lane.c      one shard's way to the broker
 *   route.c     which shard has which hash keys; from a closed shard to the next ones
 *   producer.c  time, the connection, opening, flushing and closing
 *
 * Threads: on the client's loop, except what says "under mtx": the producer's, any thread. */
#pragma once
#include "client/client.h"
#include "record/batch.h"

enum {
    SPARE_BUILDERS = 16,
    RECORD_OVERHEAD = sizeof(struct weir_record_header) + sizeof(weir_le128),
};

struct weir_chunk {
    struct weir_list node;
    struct weir_batch_builder *builder; /* while records come */
    struct weir_buf *batch;             /* then */
    uint64_t serial, number, first_us, bytes, offset, at_ms;
    uint32_t count;
    void **tags; /* NULL: all are NULL */
    size_t tags_capacity;
    bool unhashed;  /* records came without a hash key: the batch states the lane's whole range */
    bool sent;      /* once at least */
    bool in_flight; /* sent on this connection, not answered */
    bool uncertain; /* sent before, and nobody told whether it is stored */
    bool done;
    uint8_t invalid_count;
    enum weir_status st;
};

enum lane_state {
    LANE_CLOSED,
    LANE_OPENING, /* asked for a channel */
    LANE_OPEN,
    LANE_ROUTING, /* moved and certain: waits for the new topology */
    LANE_GONE     /* its records went elsewhere */
};

struct weir_lane {
    struct weir_channel channel;
    struct weir_producer *producer;
    struct weir_list node;
    uint32_t shard;
    struct weir_hash_range range;

    /* loop only */
    enum lane_state state;
    weir_u128 id;
    uint64_t next_number, window_bytes, in_flight_bytes;
    uint32_t in_flight, failures;
    struct weir_list unacked;
    bool moved, rewinding, renewing, describing;
    struct weir_timer retry;
    struct weir_call call;
    char text[512]; /* why the last thing failed */

    /* shared, under the producer's mtx */
    struct weir_chunk *open;
    struct weir_list full;
    struct weir_list dirty;  /* wants the loop's attention */
    struct weir_list linger; /* the open chunk waits for its moment */
};

struct weir_route {
    struct weir_hash_range range;
    struct weir_lane *lane;
};

struct weir_flush {
    struct weir_list node;
    uint64_t before; /* waits for chunks of smaller serials */
    size_t left;
    pthread_cond_t cond;
};

struct weir_producer {
    struct weir_client *client;
    struct weir_member member;
    char stream[WEIR_STREAM_NAME_MAX + 1];
    uint64_t batch_bytes, memory_bytes, retry_us;
    int64_t linger_us; /* -1: none */
    uint32_t in_flight_max;
    enum weir_codec codec;
    bool deduplicates;
    void (*on_ack)(void *arg, const struct weir_ack *ack);
    void (*on_batch_ack)(void *arg, enum weir_status st, uint32_t shard, uint64_t offset,
                         uint32_t count);
    void *arg;
    atomic_bool hashes; /* more than one shard: puts need the hash key */
    struct weir_task task;

    /* loop only */
    struct weir_list lanes;
    struct weir_timer linger, expiry;
    struct weir_describe describe;

    /* shared, under mtx */
    pthread_mutex_t mtx;
    pthread_cond_t room;
    struct weir_route *routes; /* by range; together the whole ring */
    size_t route_count;
    uint64_t record_bytes_max;
    struct weir_list dirty, lingering, flushes;
    uint32_t flushing, blocked;
    uint64_t next_serial;
    size_t live; /* chunks */
    struct weir_batch_builder *spare[SPARE_BUILDERS];
    uint32_t spare_count;
    struct weir_producer_numbers numbers;
    struct weir_error failure; /* the first since the last flush */
    enum weir_status over;     /* nothing can be put any more */
};

/* ---- put.c: all under mtx ---- */

/* Its builder may be used again. */
void weir_chunk_keep_builder(struct weir_producer *p, struct weir_chunk *c);
/* The end of a chunk, whatever became of its records. */
void weir_chunk_free(struct weir_producer *p, struct weir_chunk *c);
/* The loop is to look at the lane. */
void weir_lane_mark(struct weir_lane *lane);
/* The open chunk takes no more. */
void weir_lane_seal(struct weir_lane *lane);
/* Adds a record to the open chunk. NO_MEMORY, INVALID, TOO_BIG: it was not added. */
enum weir_status weir_lane_add(struct weir_lane *lane, const struct weir_record *record,
                               weir_u128 hash, bool is_hashed, void *tag, uint64_t serial,
                               uint64_t first_us);
/* Where a hash key goes. */
struct weir_route *weir_route_find(struct weir_producer *p, weir_u128 hash);

/* ---- lane.c ---- */

/* Tells the program what became of its records, and lets the chunk go. */
void weir_chunk_report(struct weir_lane *lane, struct weir_chunk *c, const char *text);
/* Reports in order what is done; what is done behind something that is not waits. */
void weir_lane_settle(struct weir_lane *lane);
struct weir_chunk *weir_lane_first_undone(struct weir_lane *lane);
void weir_chunk_fail(struct weir_chunk *c, enum weir_status st);
/* What may be stored and cannot be asked for fails as UNKNOWN; false: there was none. */
bool weir_lane_fail_uncertain(struct weir_lane *lane);
/* All of it fails. */
void weir_lane_fail(struct weir_lane *lane, enum weir_status st);
/* A new producer id; nothing is in flight, nothing is uncertain that could still be stored. */
void weir_lane_renew(struct weir_lane *lane);
/* Under mtx: its moment to be sent has come. */
bool weir_chunk_is_due(const struct weir_producer *p, const struct weir_chunk *c, uint64_t now_us);
/* Does what the lane can do next. */
void weir_lane_pump(struct weir_lane *lane);
/* Looks again after a while. */
void weir_lane_retry(struct weir_lane *lane);
/* NULL: no memory. */
struct weir_lane *weir_lane_new(struct weir_producer *p, const struct weir_topology_shard *shard);

/* ---- route.c ---- */

/* The routes with those to `from` (NULL: all of the ring) going to the open shards instead. NULL:
 * the topology does not cover what it should, or no memory. */
struct weir_route *weir_route_make(struct weir_producer *p, const struct weir_lane *from,
                                   const struct weir_topology *t, size_t *count_out);
/* Describes the stream for the lanes that are ROUTING. */
void weir_producer_ask_for_routes(struct weir_producer *p);
/* Everything fails, and so does each put from now on. */
void weir_producer_fail(struct weir_producer *p, enum weir_status st, const char *text);
void weir_producer_on_described(struct weir_describe *d, enum weir_status st, const char *text);
