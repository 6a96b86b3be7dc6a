/* Streams and shards: the catalog, by Kinesis's rules.
 *
 * A stream is a row of shards in order of creation. Open shards partition the ring of hash keys; a
 * split closes one and makes two, a merge closes two neighbours and makes one. Shards are never
 * renumbered; numbers of streams and shards (u64) are never used again, names may be.
 *
 *   CREATING -> ACTIVE <-> UPDATING          every state -> DELETING -> gone
 *
 * The catalog keeps everything in memory and writes through to the metadata table; a change is
 * visible once it is durable. Changes of one stream are made in the order of the calls. It decides
 * and records; closing shards in their owners and opening new ones is the service's part: see the
 * plan functions.
 *
 * Threads: the control loop. */
#pragma once
#include "base/error.h"
#include "base/limits.h"
#include "meta/meta.h"
#include "record/hash_key.h"

struct weir_catalog;

enum weir_stream_state {
    WEIR_STATE_CREATING,
    WEIR_STATE_ACTIVE,
    WEIR_STATE_UPDATING,
    WEIR_STATE_DELETING
};

struct weir_shard {
    uint64_t number;
    uint32_t index;
    struct weir_hash_range range;
    int32_t parent, adjacent_parent; /* indexes, -1: none */
    int32_t child[2];                /* -1: none */
    uint64_t created_ms;             /* of a child: a whole second, after its parents' */
    uint64_t closed_ms; /* 0: open; else the millisecond before the children's created_ms */
    uint64_t end;       /* offset after the last record, where closed */
    bool expired;       /* closed, and all of it trimmed: not listed any more */
};

struct weir_stream {
    uint64_t number;
    char name[WEIR_STREAM_NAME_MAX + 1];
    enum weir_stream_state state;
    uint64_t created_ms;
    uint64_t retention_ms, retention_bytes, record_bytes_max;
    uint64_t version; /* of the topology */
    uint32_t shard_count, open_count;
    struct weir_shard *shards;          /* by index; valid until the stream's next change */
    const uint32_t *ring;               /* indexes of the open shards, in order of their ranges */
    uint32_t update_first, update_open; /* shard_count and open_count when UPDATING began */
};

/* Blocking; before the loop runs. DAMAGED: rows that contradict each other. UNSUPPORTED: rows of a
 * newer version. And meta's. */
enum weir_status weir_catalog_open(struct weir_meta *meta, struct weir_clock *clock,
                                   struct weir_catalog **out, struct weir_error *err);
/* No change is in flight. NULL is allowed. */
void weir_catalog_close(struct weir_catalog *catalog);

/* NULL: not there. Borrowed until the control loop's next turn. */
const struct weir_stream *weir_catalog_find(const struct weir_catalog *c, struct weir_bytes name);
const struct weir_stream *weir_catalog_find_number(const struct weir_catalog *c, uint64_t number);
/* In order of names: the first after `name` ("" for the first), NULL at the end. */
const struct weir_stream *weir_catalog_next(const struct weir_catalog *c, struct weir_bytes name);
/* The open shard whose range has the hash; never NULL. */
const struct weir_shard *weir_stream_route(const struct weir_stream *s, weir_u128 hash);
size_t weir_catalog_count(const struct weir_catalog *c);
/* Kinesis's form of names of streams and consumers: 1 to 128 of a-z A-Z 0-9 _ . - */
bool weir_stream_name_is_valid(struct weir_bytes name);

/* Each change answers through `done` on the control loop, once it is durable (or why not, with a
 * text in err): INVALID, EXISTS, NOT_FOUND, BUSY (the stream's state does not allow it), TOO_BIG
 * (over a limit), and meta's. `done` never comes before the call returned. The change object is the
 * caller's and lives until done; what the arguments point to is copied. `stream` is the stream
 * after the change; NULL where it failed or the stream is gone. */
struct weir_change {
    void (*done)(struct weir_change *change, enum weir_status st);
    struct weir_error err;
    const struct weir_stream *stream;
    /* private */
    struct weir_catalog *catalog;
    struct weir_meta_commit commit;
    void *plan;
};

struct weir_stream_spec {
    struct weir_bytes name;
    uint32_t shard_count;
    uint64_t retention_ms, retention_bytes, record_bytes_max; /* 0: defaults */
};
/* The stream begins ACTIVE. TOO_BIG: over WEIR_SHARDS_MAX in all, or WEIR_STREAMS_MAX. */
void weir_catalog_create(struct weir_catalog *c, const struct weir_stream_spec *spec,
                         struct weir_change *change);
/* Records DELETING; then, when the owners let the shards go, removes it. */
void weir_catalog_begin_delete(struct weir_catalog *c, uint64_t stream, struct weir_change *change);
void weir_catalog_finish_delete(struct weir_catalog *c, uint64_t stream,
                                struct weir_change *change);
/* retention_bytes 0: no limit. */
void weir_catalog_set_retention(struct weir_catalog *c, uint64_t stream, uint64_t retention_ms,
                                uint64_t retention_bytes, struct weir_change *change);
/* The shards of `indexes` (closed, wholly trimmed) are not listed any more. */
void weir_catalog_expire(struct weir_catalog *c, uint64_t stream, const uint32_t *indexes,
                         size_t count, struct weir_change *change);

/* ---- resharding ----
 *
 *   plan ──> service closes the parents in their owners ──> their ends are known
 *        ──> weir_catalog_reshard (durable: parents closed with their ends, children made)
 *        ──> service opens the children; only then parents' waiting producers are told MOVED
 *
 * A failure before the commit opens the parents again; one whose outcome is UNKNOWN stops writes to
 * them until a restart has read what happened. */
struct weir_reshard {
    uint32_t parent_count; /* 1: split, 2: merge */
    uint32_t parent[2];
    uint32_t child_count; /* 2: split, 1: merge */
    struct weir_hash_range child_range[2];
};
/* Texts are Kinesis's own, without the account. BUSY: the stream is not ACTIVE. NOT_FOUND: no such
 * shard, or expired. INVALID: closed, not adjacent, or `at` (the first hash key of the upper child;
 * NULL: the middle) is not greater than the parent's low + 1 and less than its high. TOO_BIG: over
 * a limit. Of a merge the child's parent is `shard`, its adjacent parent `adjacent`, in either
 * order. */
enum weir_status weir_plan_split(const struct weir_stream *s, uint32_t shard, const weir_u128 *at,
                                 struct weir_reshard *out, struct weir_error *err);
enum weir_status weir_plan_merge(const struct weir_stream *s, uint32_t shard, uint32_t adjacent,
                                 struct weir_reshard *out, struct weir_error *err);
/* UpdateShardCount (UNIFORM_SCALING). check_count: on the ACTIVE stream; INVALID where `target` is
 * not within [ceil(n/2), 2n]. count_step: the next step to `target` of a stream that is UPDATING;
 * END when there.
 *
 * A target that is a multiple of 25 % of n ends with equal ranges: splits where they will begin,
 * then merges what lies between. Any other target splits every shard once when it is above n, then
 * merges neighbours, the narrowest first; ranges come close to equal. */
enum weir_status weir_plan_check_count(const struct weir_stream *s, uint32_t target,
                                       struct weir_error *err);
enum weir_status weir_plan_count_step(const struct weir_stream *s, uint32_t target,
                                      struct weir_reshard *out);
/* Ranges and parents are checked again. INVALID: a parent is closed meanwhile. */
void weir_catalog_reshard(struct weir_catalog *c, uint64_t stream, const struct weir_reshard *plan,
                          const uint64_t *parent_ends, struct weir_change *change);
/* Sets UPDATING or ACTIVE, in memory only: both mean the same after a restart. A stream that is
 * being deleted, or is not there, stays as it is. */
void weir_catalog_set_updating(struct weir_catalog *c, uint64_t stream, bool updating);

/* The identity of the data directory, made once: 32 hex digits. */
const char *weir_catalog_data_id(const struct weir_catalog *c);
