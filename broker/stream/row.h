/* The catalog's rows in the metadata table, byte by byte.
 *
 *   stream/NAME            a stream
 *   shard/STREAM/INDEX     one of its shards: number of the stream as 16 hex digits, index as 8
 *   catalog/numbers        the next numbers to give out
 *   catalog/id             the identity of the data directory, 32 hex digits */
#pragma once
#include "base/le.h"
#include "stream/stream.h"

#define WEIR_ROW_NUMBERS "catalog/numbers"
#define WEIR_ROW_ID "catalog/id"
#define WEIR_ROW_KEY_MAX 160

/* All integers are little-endian. `form` is 1; a reader that finds another does not guess. */
struct weir_disk_stream {
    uint8_t form;
    uint8_t deleting; /* 0 or 1 */
    weir_le16 zero;
    weir_le32 shard_count;
    weir_le64 number;
    weir_le64 created_ms;
    weir_le64 retention_ms;
    weir_le64 retention_bytes; /* 0: no limit */
    weir_le64 record_bytes_max;
    weir_le64 version;
};
static_assert(sizeof(struct weir_disk_stream) == 56);

struct weir_disk_shard {
    uint8_t form;
    uint8_t expired; /* 0 or 1 */
    weir_le16 zero;
    weir_le32 parent, adjacent_parent; /* indexes; 0xffffffff: none */
    weir_le32 child[2];
    weir_le64 number;
    weir_le128 low, high;
    weir_le64 created_ms;
    weir_le64 closed_ms; /* 0: open */
    weir_le64 end;
};
static_assert(sizeof(struct weir_disk_shard) == 84);

struct weir_disk_numbers {
    uint8_t form;
    uint8_t zero[7];
    weir_le64 next_stream, next_shard;
};
static_assert(sizeof(struct weir_disk_numbers) == 24);

void weir_row_stream_key(const char *name, char out[WEIR_ROW_KEY_MAX]);
void weir_row_shard_key(uint64_t stream, uint32_t index, char out[WEIR_ROW_KEY_MAX]);

void weir_row_stream_encode(const struct weir_stream *s, struct weir_disk_stream *out);
void weir_row_shard_encode(const struct weir_shard *shard, struct weir_disk_shard *out);

/* DAMAGED: not of this form. UNSUPPORTED: of a newer one. `out` gets the row's fields; of a stream
 * its name, of a shard its index too, from the key. */
enum weir_status weir_row_stream_decode(const char *key, struct weir_bytes value,
                                        struct weir_stream *out);
enum weir_status weir_row_shard_decode(const char *key, struct weir_bytes value,
                                       uint64_t *stream_out, struct weir_shard *out);
enum weir_status weir_row_numbers_decode(struct weir_bytes value, uint64_t *next_stream_out,
                                         uint64_t *next_shard_out);
