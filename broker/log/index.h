/* The index: which batches of which shard are where.
 *
 *     shard ──> runs, in the order of their offsets
 *                 | first, limit | segment | start, count |──┬──> part: entries in memory
 *                                                            │    (segments that are not sealed)
 *                                                            └──> entries in the segment's footer
 *
 *     segment ──> parts: one per shard that has batches in it, and one for copies of older ones
 *
 * A run has no hole, so that a hole between runs is what was lost. Batches copied forward make a
 * run of their own in the newer segment. Runs tell what is served, parts all that a segment holds.
 *
 * Knows no files and no threads: the owner alone uses it. */
#pragma once
#include "base/list.h"
#include "base/map.h"
#include "log/format.h"
#include "log/producers.h"

struct weir_shard;
struct weir_cached;
struct weir_seal;

/* The batches of one shard in one segment that is not sealed, in commit order. */
struct weir_part {
    uint64_t stream, shard;
    uint32_t segment;
    bool copies; /* moved here from an older segment */
    struct weir_entry *entries;
    uint32_t count, capacity;
    uint32_t base; /* number of its first entry in the footer; set by sealing */
};

struct weir_index_run {
    uint64_t first, limit;
    uint64_t first_at_ms, last_at_ms;
    uint64_t bytes;
    uint32_t segment;
    uint32_t start, count;  /* in the part's entries, or in the footer's */
    struct weir_part *part; /* NULL: sealed */
};
static_assert(sizeof(struct weir_index_run) == 64);

struct weir_shard {
    uint64_t stream, shard;
    uint64_t retention_ms, retention_bytes;
    uint64_t oldest;
    uint64_t next, assigned;         /* durable end; end with what is in flight */
    uint64_t at_ms, assigned_at_ms;  /* arrival of the last batch */
    weir_u128 chain, assigned_chain; /* its header_hash */
    uint64_t bytes;                  /* of all runs */
    uint64_t trim_recorded;          /* trimmed_before, as the journal has it */
    uint32_t home;                   /* segment of its newest batch, STATE or footer; 0: none */
    uint32_t trim_home;              /* segment that records trim_recorded; 0: none */
    uint32_t footer_home;            /* newest footer that has its producers; 0: none */
    struct weir_index_run *runs;
    uint32_t run_count, run_capacity;
    struct weir_part *part, *copy_part; /* the latest, if their segment is not sealed */
    struct weir_producers *producers;
    struct weir_cached *cached;
    struct weir_list node; /* of the shards that have batches */
    bool declared;
};
static_assert(sizeof(struct weir_shard) <= 240,
              "with its place in the map an idle shard is to take "
              "at most 300 bytes");

enum weir_segment_state {
    WEIR_SEGMENT_OPEN,   /* takes appends */
    WEIR_SEGMENT_ROLLED, /* takes no more; its footer is not there yet */
    WEIR_SEGMENT_SEALED,
    WEIR_SEGMENT_GOING, /* being removed */
};

struct weir_segment {
    uint32_t number;
    enum weir_segment_state state;
    uint64_t end;            /* of its groups */
    uint64_t file_bytes;     /* once sealed */
    uint64_t live_bytes;     /* of the runs in it */
    uint64_t rests_until_us; /* keep.c */
    bool stuck;              /* cannot be moved forward: a batch in it is neither good nor bad */
    uint32_t homes;          /* shards whose home or trim_home it is */
    uint32_t entries;        /* in the footer */
    uint32_t epoch, damaged;
    uint64_t group; /* number of its last group */
    weir_u128 last_hash;
    struct weir_part **parts;
    uint32_t part_count, part_capacity;
    struct weir_buf *chunks; /* checksums of the footer's entries, 8 bytes each; owns a reference */
    struct weir_seal *seal;  /* what its footer will say, once it is rolled; owned by seal.c */
};

struct weir_index {
    struct weir_map shards;
    struct weir_list live;          /* shards that have runs */
    struct weir_segment **segments; /* in the order of their numbers */
    uint32_t segment_count, segment_capacity;
    uint64_t live_bytes, bytes; /* of batches served; of memory, about */
};

void weir_index_init(struct weir_index *x, uint64_t seed);
void weir_index_fini(struct weir_index *x);

/* NULL where there is none. */
struct weir_shard *weir_index_shard(const struct weir_index *x, uint64_t shard);
/* A new one, empty at offset 0. NO_MEMORY. */
enum weir_status weir_index_shard_new(struct weir_index *x, uint64_t stream, uint64_t shard,
                                      struct weir_shard **out);
void weir_index_shard_free(struct weir_index *x, struct weir_shard *s);

struct weir_segment *weir_index_segment(const struct weir_index *x, uint64_t number);
/* Numbers only grow. NO_MEMORY. */
enum weir_status weir_index_segment_new(struct weir_index *x, uint32_t number,
                                        struct weir_segment **out);
void weir_index_segment_free(struct weir_index *x, struct weir_segment *g);

/* The shard's newest state stands in `segment` now. */
void weir_index_home(struct weir_index *x, struct weir_shard *s, uint32_t segment);
void weir_index_trim_home(struct weir_index *x, struct weir_shard *s, uint32_t segment);

/* The part that the shard's next entry in `segment` goes to; made if it is not there. */
enum weir_status weir_index_part(struct weir_index *x, struct weir_segment *g, struct weir_shard *s,
                                 bool copies, struct weir_part **out);
/* Adds a batch to the part, and to the shard's runs unless it is below `oldest` or already there.
 * NO_MEMORY. */
enum weir_status weir_index_add(struct weir_index *x, struct weir_segment *g, struct weir_shard *s,
                                bool copies, const struct weir_entry *e);
/* Adds a footer's run. AGAIN: it overlaps what is there in part; add its entries one by one. */
enum weir_status weir_index_add_run(struct weir_index *x, struct weir_segment *g,
                                    struct weir_shard *s, const struct weir_index_run *run);
/* Adds one entry of a sealed segment, `number` in its footer. */
enum weir_status weir_index_add_entry(struct weir_index *x, struct weir_segment *g,
                                      struct weir_shard *s, uint32_t number,
                                      const struct weir_entry *e);

/* Number of the run that has `offset`, or of the first behind it (run_count: none). */
uint32_t weir_index_run_at(const struct weir_shard *s, uint64_t offset);
/* Number in entries[0..count) of the one that has `offset`; count if it lies behind. */
uint32_t weir_entries_find(const struct weir_entry *entries, uint32_t count, uint64_t offset);
/* Number of the first entry that arrived at or after `at_ms`; count if none. */
uint32_t weir_entries_find_time(const struct weir_entry *entries, uint32_t count, uint64_t at_ms);

/* Drops the first `count` runs. */
void weir_index_drop_runs(struct weir_index *x, struct weir_shard *s, uint32_t count);
/* Drops the first `count` (not all) entries of a run, `bytes` together; `next` is the entry behind.
 */
void weir_index_drop_entries(struct weir_index *x, struct weir_shard *s, uint32_t run,
                             uint32_t count, uint64_t bytes, const struct weir_entry *next);
/* The first entry `e` of a run in `from` was written again: into `to`, as `copy` says. Where it is
 * no longer served from there, the copy is only noted. NO_MEMORY. */
enum weir_status weir_index_moved(struct weir_index *x, struct weir_shard *s, uint32_t from,
                                  struct weir_segment *to, const struct weir_entry *copy);
/* Takes entry `bad`, `bad_number` in the part or footer, out of a run: what was before and behind
 * it stays. NO_MEMORY: nothing changed. */
enum weir_status weir_index_cut(struct weir_index *x, struct weir_shard *s, uint32_t run,
                                const struct weir_entry *bad, uint32_t bad_number);
/* The segment's footer is durable: its runs point there, and its parts go. */
void weir_index_sealed(struct weir_index *x, struct weir_segment *g);
