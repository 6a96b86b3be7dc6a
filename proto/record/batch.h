/* A batch: the unit of storage, checksum, compression, index and wire.
 *
 *     +--------------------+----------------------------------------------+
 *     | header, 160 bytes  | body: records, as they are or LZ4-compressed |
 *     +--------------------+----------------------------------------------+
 *
 * A producer makes header and body; the broker writes its own fields into the header (marked B) and
 * never touches the body; what is stored is what is sent. A sealed batch is self-describing and
 * immutable: it can be copied between journals and stores as it is.
 *
 * Two checksums share the work: body_hash covers the body and is made by the producer; header_hash
 * covers the header with body_hash in it, and by `previous` the whole history of the shard, and is
 * made when the broker seals the batch. Together: each bit, bound to stream, shard and offset.
 *
 * Nothing here knows files, frames or threads. */
#pragma once
#include "base/buffer.h"
#include "base/error.h"
#include "base/le.h"
#include "base/limits.h"
#include "base/u128.h"

#define WEIR_BATCH_MAGIC 0x31544257u /* "WBT1" */

enum weir_codec { WEIR_CODEC_NONE = 0, WEIR_CODEC_LZ4 = 1 };

enum {
    WEIR_BATCH_STATE = 1, /* no records: keeps a shard's numbers alive (broker/log) */
};

/* All integers little-endian.
 *
 *   off  size
 *     0     4  magic         "WBT1"
 *     4     4  size          bytes of header and body
 *     8     8  stream      B the stream's number, never used again after deletion
 *    16     8  shard       B the shard's number, never used again
 *    24     8  offset      B of the first record; the n-th has offset + n
 *    32     8  at_ms       B arrival, of all its records; never goes back within a shard
 *    40     4  count         records, 0 only in a STATE batch
 *    44     4  raw_size      body bytes before compression
 *    48     4  epoch       B of the writer
 *    52     1  codec         enum weir_codec
 *    53     1  flags       B WEIR_BATCH_…
 *    54     2  reserved      0
 *    56    16  producer      0: no deduplication
 *    72     8  number        the producer's own, grows by 1 from batch to batch of one shard
 *    80    16  hash_low      the records' hash keys lie in [hash_low, hash_high]
 *    96    16  hash_high
 *   112    16  body_hash     XXH3-128 of the body as it stands here
 *   128    16  previous    B header_hash of the shard's batch before, 0 for the first
 *   144    16  header_hash B XXH3-128 of bytes 0..143
 */
struct weir_batch_header {
    weir_le32 magic;
    weir_le32 size;
    weir_le64 stream;
    weir_le64 shard;
    weir_le64 offset;
    weir_le64 at_ms;
    weir_le32 count;
    weir_le32 raw_size;
    weir_le32 epoch;
    uint8_t codec;
    uint8_t flags;
    weir_le16 reserved;
    weir_le128 producer;
    weir_le64 number;
    weir_le128 hash_low;
    weir_le128 hash_high;
    weir_le128 body_hash;
    weir_le128 previous;
    weir_le128 header_hash;
};
static_assert(sizeof(struct weir_batch_header) == 160);

/* One record in a body: this header, then the explicit hash key if it has one, then the partition
 * key, then the data. No padding.
 *
 *   off  size
 *     0     4  data_size   0 to WEIR_RECORD_BYTES_MAX
 *     4     2  key_size    1 to WEIR_KEY_BYTES_MAX
 *     6     1  flags       1: an explicit hash key (16 bytes) follows
 *     7     1  reserved    0
 */
struct weir_record_header {
    weir_le32 data_size;
    weir_le16 key_size;
    uint8_t flags;
    uint8_t reserved;
};
static_assert(sizeof(struct weir_record_header) == 8);
enum { WEIR_RECORD_EXPLICIT_HASH = 1 };

struct weir_record {
    struct weir_bytes key;
    struct weir_bytes data;
    bool has_explicit_hash;
    weir_u128 explicit_hash;
};

/* ---- making ---- */

struct weir_batch_builder;
/* `raw_max`: body bytes at which add() answers AGAIN (a first record always fits, up to
 * WEIR_BATCH_BODY_RAW_MAX). */
enum weir_status weir_batch_builder_new(size_t raw_max, struct weir_batch_builder **out);
void weir_batch_builder_free(struct weir_batch_builder *b);
/* Copies the record in. `hash` is its effective hash key (weir_hash_key or explicit). AGAIN: full,
 * finish first. TOO_BIG, INVALID (key empty, too long or not UTF-8): this record never fits. */
enum weir_status weir_batch_builder_add(struct weir_batch_builder *b,
                                        const struct weir_record *record, weir_u128 hash);
uint32_t weir_batch_builder_count(const struct weir_batch_builder *b);
size_t weir_batch_builder_raw_size(const struct weir_batch_builder *b);
/* A batch with the producer's fields set, the broker's zero; the builder is empty again. LZ4 falls
 * back to NONE where it does not save 1/16. END: nothing in it. */
enum weir_status weir_batch_builder_finish(struct weir_batch_builder *b, enum weir_codec codec,
                                           weir_u128 producer, uint64_t number,
                                           struct weir_buf **out);

/* ---- sealing (the broker) ---- */

struct weir_batch_seal {
    uint64_t stream, shard, offset, at_ms;
    uint32_t epoch;
    uint8_t flags;
    weir_u128 previous;
};
/* Writes the broker's fields and header_hash into the header at `batch`; returns header_hash. */
weir_u128 weir_batch_seal(uint8_t *batch, const struct weir_batch_seal *seal);
/* A STATE batch: count 0, body of 8 bytes (trimmed_before, little-endian); not sealed yet. */
enum weir_status weir_batch_new_state(uint64_t trimmed_before, struct weir_buf **out);
/* trimmed_before of a STATE batch that was checked. */
uint64_t weir_batch_trimmed_before(const uint8_t *batch);

/* ---- reading ---- */

/* The header's numbers, in the machine's form. */
struct weir_batch_info {
    uint32_t size, count, raw_size, epoch;
    uint8_t codec, flags;
    uint64_t stream, shard, offset, at_ms, number;
    weir_u128 producer, hash_low, hash_high, body_hash, previous, header_hash;
};

/* Is this the start of a batch that can be believed as far as form and limits go? Looks at the
 * header only: magic, sizes within limits and `bytes.len`, count, codec, flags, hash_low <=
 * hash_high. INVALID, TOO_BIG, END (more bytes are needed). No checksum. */
enum weir_status weir_batch_peek(struct weir_bytes bytes, struct weir_batch_info *out);
/* peek, and header_hash. DAMAGED. */
enum weir_status weir_batch_check_header(struct weir_bytes bytes, struct weir_batch_info *out);
/* peek, header_hash and body_hash. DAMAGED. For a batch that leaves the process. */
enum weir_status weir_batch_check(struct weir_bytes bytes, struct weir_batch_info *out);
/* What the broker does with a batch from outside: peek, body_hash, decompression bounded by
 * raw_size into `scratch` (a growing thread-owned block), and a walk over the records: each within
 * `record_max` bytes (data + key), UTF-8 keys of 1 to 256 characters, exactly `count` of them,
 * nothing left over. INVALID, TOO_BIG, DAMAGED, with a text in err. */
struct weir_scratch {
    uint8_t *data;
    size_t capacity;
};
void weir_scratch_fini(struct weir_scratch *s);
enum weir_status weir_batch_admit(struct weir_bytes batch, size_t record_max,
                                  struct weir_scratch *scratch, struct weir_batch_info *out,
                                  struct weir_error *err);

/* Walks the records of a checked batch. Views point into the batch, or into `scratch` where it is
 * compressed (valid until the scratch's next use). */
struct weir_batch_reader {
    struct weir_bytes rest;
    uint32_t left;
    uint64_t offset; /* of the record that next() returned last */
    uint64_t next_offset;
};
enum weir_status weir_batch_reader_init(struct weir_batch_reader *r, struct weir_bytes batch,
                                        struct weir_scratch *scratch);
/* END after the last; INVALID where the body is not what the header says. */
enum weir_status weir_batch_reader_next(struct weir_batch_reader *r, struct weir_record *out);
