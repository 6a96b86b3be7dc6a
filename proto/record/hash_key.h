/* Hash keys: where in the ring of 2^128 a partition key lies (Kinesis: MD5 of the key's UTF-8 bytes
 * as an unsigned big-endian number; API reference, PutRecord). Any thread. */
#pragma once
#include "base/u128.h"

/* MD5 of the key. */
weir_u128 weir_hash_key(struct weir_bytes partition_key);

/* The i-th of n equal ranges, both ends inclusive; the last takes the remainder. 0 <= i < n. */
struct weir_hash_range {
    weir_u128 low, high;
};
struct weir_hash_range weir_hash_range_of(uint32_t index, uint32_t count);
static inline bool
weir_hash_range_has(struct weir_hash_range r, weir_u128 hash)
{
    return r.low <= hash && hash <= r.high;
}
