/* A segment file, byte by byte. docs/format.md tells the same for people without the source.
 *
 *     0        512                                            end        footer            file end
 *     +--------+---------+---------+-- ... --+-------+---------+----------+----------+---------+
 *     | header | group 1 | group 2 |         | group n         | entries  | directory| trailer |
 *     +--------+---------+---------+-- ... --+-----------------+----------+----------+---------+
 *                                                               `--- only when sealed --------'
 *
 *     a group: | header, 128 | batch | batch | ... | table, 40 each | zeros to 512 |
 *
 * A segment that is not sealed ends in zeros or in what a recycled file held before; neither can be
 * taken for a group, because a group names its journal, its segment and its own position.
 *
 * Functions here look at bytes in memory only. Any thread. */
#pragma once
#include "base/le.h"
#include "record/batch.h"

#define WEIR_DISK_BLOCK 512u
#define WEIR_DISK_VERSION 1u
#define WEIR_SEGMENT_MAGIC 0x3147455352494557ull /* "WEIRSEG1" */
#define WEIR_GROUP_MAGIC 0x3150524752494557ull   /* "WEIRGRP1" */
#define WEIR_TRAILER_MAGIC 0x31444e4552494557ull /* "WEIREND1" */

#define WEIR_SEGMENT_BYTES_MIN (1 * WEIR_MIB)
#define WEIR_SEGMENT_BYTES_MAX (1 * WEIR_GIB)
/* A group holds as many batches as fit under the configured size, or one batch of any size. */
#define WEIR_GROUP_BYTES_MAX (16 * WEIR_MIB)
#define WEIR_GROUP_BATCHES_MAX 16384u
#define WEIR_GROUP_DISK_MAX (32 * WEIR_MIB)
static_assert(WEIR_GROUP_BYTES_MAX + WEIR_BATCH_BYTES_MAX + 40ull * WEIR_GROUP_BATCHES_MAX +
                      2 * WEIR_DISK_BLOCK <=
                  WEIR_GROUP_DISK_MAX,
              "the largest group must be below what recovery searches through for the next one");
static_assert(WEIR_SEGMENT_BYTES_MAX + 2 * WEIR_GROUP_DISK_MAX < UINT32_MAX,
              "positions within a segment are kept in 32 bits");

/* The first block of a segment. All integers little-endian.
 *
 *   off  size
 *     0     8  magic           "WEIRSEG1"
 *     8     4  version         1
 *    12     4  journal         the journal's number
 *    16    16  journal_id      random, made with the journal
 *    32     8  segment         as in the file's name; grows by 1
 *    40     8  created_ms
 *    48     8  previous_end    where the groups of the segment before end, whatever stands
 *                              behind them; 0 in the first segment
 *    56    16  previous_hash   header_hash of that segment's last group, 0 if it had none
 *    72     8  group           number of the first group
 *    80     4  epoch           of the writer
 *    84   412  zeros
 *   496    16  checksum        XXH3-128 of bytes 0..495
 */
struct weir_disk_segment {
    weir_le64 magic;
    weir_le32 version;
    weir_le32 journal;
    weir_le128 journal_id;
    weir_le64 segment;
    weir_le64 created_ms;
    weir_le64 previous_end;
    weir_le128 previous_hash;
    weir_le64 group;
    weir_le32 epoch;
    uint8_t zeros[412];
    weir_le128 checksum;
};
static_assert(sizeof(struct weir_disk_segment) == WEIR_DISK_BLOCK);

/* The head of a group: what one commit wrote. Whole batches follow, then the table, then zeros to a
 * multiple of 512. A group without batches marks an opening or a closing of the journal.
 *
 *   off  size
 *     0     8  magic        "WEIRGRP1"
 *     8    16  journal_id
 *    24     8  segment
 *    32     8  position     of this header in the segment
 *    40     8  synced       bytes of the segment that were durable when this was written: a bad
 *                           place below a later group's `synced` is damage, else a torn end
 *    48     8  number       grows by 1 from group to group of the journal
 *    56    16  previous     header_hash of the group before, 0 for the first
 *    72     4  length       of header, batches and table
 *    76     4  count        of batches
 *    80     4  epoch
 *    84     4  flags        1: written by an orderly close
 *    88     8  zeros
 *    96    16  table_hash   XXH3-128 of the table
 *   112    16  header_hash  XXH3-128 of bytes 0..111
 */
struct weir_disk_group {
    weir_le64 magic;
    weir_le128 journal_id;
    weir_le64 segment;
    weir_le64 position;
    weir_le64 synced;
    weir_le64 number;
    weir_le128 previous;
    weir_le32 length;
    weir_le32 count;
    weir_le32 epoch;
    weir_le32 flags;
    weir_le64 zeros;
    weir_le128 table_hash;
    weir_le128 header_hash;
};
static_assert(sizeof(struct weir_disk_group) == 128);
enum { WEIR_GROUP_CLOSE = 1 };

/* One row of a group's table, for its n-th batch: finds the batches behind a damaged one, and says
 * what was lost with it.
 *
 *   off  size
 *     0     8  shard
 *     8     8  offset
 *    16     4  size
 *    20     4  count   0: a STATE batch
 *    24    16  hash    the batch's header_hash
 */
struct weir_disk_row {
    weir_le64 shard;
    weir_le64 offset;
    weir_le32 size;
    weir_le32 count;
    weir_le128 hash;
};
static_assert(sizeof(struct weir_disk_row) == 40);

/* One batch in a footer. Entries of one run stand together, in the order of their offsets.
 *
 *   off  size
 *     0     8  offset
 *     8     8  at_ms
 *    16     4  position  of the batch in the segment
 *    20     4  size
 *    24     4  count
 *    28     4  zeros
 *    32     8  hash      low half of the batch's header_hash
 */
struct weir_disk_entry {
    weir_le64 offset;
    weir_le64 at_ms;
    weir_le32 position;
    weir_le32 size;
    weir_le32 count;
    weir_le32 zeros;
    weir_le64 hash;
};
static_assert(sizeof(struct weir_disk_entry) == 40);
/* Entries are checked in chunks of this many: XXH3-64 of each chunk's bytes stands at the start of
 * the directory. */
#define WEIR_CHUNK_ENTRIES 1024u
#define WEIR_CHUNK_BYTES (WEIR_CHUNK_ENTRIES * sizeof(struct weir_disk_entry))

/* The directory: chunk checksums (8 bytes each), runs, states, producers. */

/* A run: consecutive batches of one shard, no offset missing between them. Sorted by shard.
 *
 *   off  size
 *     0     8  stream
 *     8     8  shard
 *    16     8  first     offset
 *    24     8  limit     offset after the last record
 *    32     8  first_at_ms
 *    40     8  last_at_ms
 *    48     8  bytes     of the batches
 *    56     4  entry     number of its first entry
 *    60     4  count     of entries
 */
struct weir_disk_run {
    weir_le64 stream;
    weir_le64 shard;
    weir_le64 first;
    weir_le64 limit;
    weir_le64 first_at_ms;
    weir_le64 last_at_ms;
    weir_le64 bytes;
    weir_le32 entry;
    weir_le32 count;
};
static_assert(sizeof(struct weir_disk_run) == 64);

/* What is known of a shard that has a batch in this segment, at the time of sealing or later.
 *
 *   off  size
 *     0     8  stream
 *     8     8  shard
 *    16     8  next            offset of its next record
 *    24     8  latest_at_ms
 *    32     8  trimmed_before
 *    40    16  chain           header_hash of its last batch with records
 *    56     4  producer        number of its first producer
 *    60     4  count           of producers
 */
struct weir_disk_state {
    weir_le64 stream;
    weir_le64 shard;
    weir_le64 next;
    weir_le64 latest_at_ms;
    weir_le64 trimmed_before;
    weir_le128 chain;
    weir_le32 producer;
    weir_le32 count;
};
static_assert(sizeof(struct weir_disk_state) == 64);

#define WEIR_PRODUCER_RECENT 5
/* A producer on that shard and its last batches, the latest first; their numbers count down from
 * `number`.
 *
 *   off  size
 *     0    16  id
 *    16     8  number      of its last batch
 *    24     8  touched_ms  arrival of its last batch
 *    32     4  count       of recent ones, 0 to 5
 *    36     4  zeros
 *    40    80  recent      offset and at_ms, 16 bytes each
 */
struct weir_disk_producer {
    weir_le128 id;
    weir_le64 number;
    weir_le64 touched_ms;
    weir_le32 count;
    weir_le32 zeros;
    struct {
        weir_le64 offset;
        weir_le64 at_ms;
    } recent[WEIR_PRODUCER_RECENT];
};
static_assert(sizeof(struct weir_disk_producer) == 120);

/* The last block of a sealed segment.
 *
 *   off  size
 *     0     8  magic           "WEIREND1"
 *     8     4  version         1
 *    12     4  journal
 *    16    16  journal_id
 *    32     8  segment
 *    40     8  end             where the groups end; the entries start there
 *    48    16  last_hash       header_hash of the last group, 0 if none
 *    64     8  group           number of the last group
 *    72     8  first_at_ms     oldest and latest arrival of its batches, 0 if none
 *    80     8  last_at_ms
 *    88     8  directory       position of the directory
 *    96     4  directory_size
 *   100     4  entries         count
 *   104     4  runs            count
 *   108     4  states          count
 *   112     4  producers       count
 *   116     4  epoch           of the last group
 *   120     4  damaged         bad places found by the time of sealing
 *   124   340  zeros
 *   464    16  directory_hash  XXH3-128 of the directory
 *   480    16  zeros
 *   496    16  checksum        XXH3-128 of bytes 0..495
 */
struct weir_disk_trailer {
    weir_le64 magic;
    weir_le32 version;
    weir_le32 journal;
    weir_le128 journal_id;
    weir_le64 segment;
    weir_le64 end;
    weir_le128 last_hash;
    weir_le64 group;
    weir_le64 first_at_ms;
    weir_le64 last_at_ms;
    weir_le64 directory;
    weir_le32 directory_size;
    weir_le32 entries;
    weir_le32 runs;
    weir_le32 states;
    weir_le32 producers;
    weir_le32 epoch;
    weir_le32 damaged;
    uint8_t zeros[340];
    weir_le128 directory_hash;
    uint8_t more_zeros[16];
    weir_le128 checksum;
};
static_assert(sizeof(struct weir_disk_trailer) == WEIR_DISK_BLOCK);

/* ---- the same in the machine's form ---- */

struct weir_segment_info {
    uint32_t version, journal, epoch;
    weir_u128 journal_id, previous_hash;
    uint64_t segment, created_ms, previous_end, group;
};
void weir_segment_encode(const struct weir_segment_info *s, struct weir_disk_segment *out);
/* INVALID: not a header, or its checksum does not hold. UNSUPPORTED: of a newer version. */
enum weir_status weir_segment_decode(struct weir_bytes block, struct weir_segment_info *out);

struct weir_group_info {
    weir_u128 journal_id, previous, table_hash, header_hash;
    uint64_t segment, position, synced, number;
    uint32_t length, count, epoch, flags;
};
/* Fills *out and, in g, header_hash. */
void weir_group_encode(struct weir_group_info *g, struct weir_disk_group *out);
/* INVALID: no group header that holds. Its numbers are within limits and fit each other; length and
 * position still have to be held against the file. */
enum weir_status weir_group_decode(struct weir_bytes head, struct weir_group_info *out);
/* Bytes that a group takes in the file. */
static inline uint64_t
weir_group_disk_bytes(uint32_t length)
{
    return ((uint64_t)length + WEIR_DISK_BLOCK - 1) & ~(uint64_t)(WEIR_DISK_BLOCK - 1);
}

struct weir_row_info {
    uint64_t shard, offset;
    uint32_t size, count;
    weir_u128 hash;
};
void weir_row_encode(const struct weir_row_info *r, struct weir_disk_row *out);
void weir_row_decode(const struct weir_disk_row *d, struct weir_row_info *out);
/* Where the table of a group starts, counted from its header. */
static inline uint32_t
weir_group_table(const struct weir_group_info *g)
{
    return g->length - g->count * (uint32_t)sizeof(struct weir_disk_row);
}
/* The table holds and its sizes fill the group exactly. `group` is the whole group. */
bool weir_group_table_holds(const struct weir_group_info *g, struct weir_bytes group);

struct weir_entry {
    uint64_t offset, at_ms, hash;
    uint32_t position, size, count;
};
void weir_entry_encode(const struct weir_entry *e, struct weir_disk_entry *out);
void weir_entry_decode(const struct weir_disk_entry *d, struct weir_entry *out);

struct weir_trailer_info {
    uint32_t version, journal, epoch, damaged;
    uint32_t directory_size, entries, runs, states, producers;
    weir_u128 journal_id, last_hash, directory_hash;
    uint64_t segment, end, group, first_at_ms, last_at_ms, directory;
};
void weir_trailer_encode(const struct weir_trailer_info *t, struct weir_disk_trailer *out);
/* `file_bytes`: the file's size; everything the trailer names lies within. INVALID, UNSUPPORTED. */
enum weir_status weir_trailer_decode(struct weir_bytes block, uint64_t file_bytes,
                                     struct weir_trailer_info *out);

/* A directory laid over its bytes. */
struct weir_directory {
    const weir_le64 *chunks;
    const struct weir_disk_run *runs;
    const struct weir_disk_state *states;
    const struct weir_disk_producer *producers;
};
static inline uint32_t
weir_chunks_of(uint32_t entries)
{
    return (entries + WEIR_CHUNK_ENTRIES - 1) / WEIR_CHUNK_ENTRIES;
}
/* Checks the hash, that the parts fill it, that runs and states point within, are sorted and make
 * sense. INVALID, DAMAGED (hash). `bytes` must outlive `out`. */
enum weir_status weir_directory_decode(const struct weir_trailer_info *t, struct weir_bytes bytes,
                                       struct weir_directory *out);
weir_u128 weir_disk_hash(const void *data, size_t len);
uint64_t weir_chunk_hash(const void *data, size_t len);
