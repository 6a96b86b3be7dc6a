/* Kinesis's names for positions: shard ids and sequence numbers. Both are computed, never stored: a
 * sequence number is made from (shard, offset, time) and taken apart again without a table.
 *
 * As 47 hexadecimal digits (188 bits), the most significant first:
 *
 *   2 | 9 creation of the shard, s | 1 low nibble of the shard's index | 16 offset | 00 |
 *   9 arrival, s | 8 index of the shard | 2
 *
 * and in decimal, by the leading 2, always 56 digits, so that order as text is order as number. The
 * ending number of a closed shard has 7fffffffffffffff in place of the offset. */
#pragma once
#include "base/bytes.h"
#include "base/status.h"

#define WEIR_SEQUENCE_DIGITS 56
#define WEIR_SEQUENCE_OFFSET_END 0x7fffffffffffffffull
#define WEIR_SHARD_ID_LEN 20 /* "shardId-" and 12 digits */

struct weir_sequence {
    uint64_t shard_created_s; /* below 2^36 */
    uint32_t shard_index;     /* within the stream, below 2^31 */
    uint64_t offset;          /* below 2^63 */
    uint64_t at_s;            /* below 2^36 */
};

/* 56 digits and a NUL. */
void weir_sequence_format(const struct weir_sequence *s, char out[WEIR_SEQUENCE_DIGITS + 1]);
/* INVALID where the digits are not of this layout. */
enum weir_status weir_sequence_parse(struct weir_bytes text, struct weir_sequence *out);

/* "shardId-000000000007". */
void weir_shard_id_format(uint32_t index, char out[WEIR_SHARD_ID_LEN + 1]);
/* Also "NAME-7", "-7" and "7", up to 2147483647, as AWS does. INVALID. */
enum weir_status weir_shard_id_parse(struct weir_bytes text, uint32_t *index_out);
