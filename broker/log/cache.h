/* The tail cache: the latest durable batches of all shards, by reference, the oldest of all evicted
 * first. What it holds of one shard is always an unbroken end of it.
 *
 *     order:  shard 7, shard 3, shard 7, ...      whose oldest batch goes next
 *     shard 7: | offset 100 | 120 | 133 | ...     searched by offset
 *
 * The owner alone uses it. */
#pragma once
#include "log/index.h"
#include "log/log.h"

struct weir_cache {
    uint64_t bytes, bytes_max;
    struct weir_shard **order; /* a ring; NULL where a shard was forgotten */
    uint32_t head, count, capacity;
};

void weir_cache_init(struct weir_cache *c, uint64_t bytes_max);
/* Lets all go; the shards' own parts must have been forgotten. */
void weir_cache_fini(struct weir_cache *c);
/* Keeps a reference of its own (or a copy, where the buffer is much larger than the batch), unless
 * there is no memory. */
void weir_cache_add(struct weir_cache *c, struct weir_shard *s, struct weir_buf *batch,
                    uint64_t offset, uint32_t count, uint64_t at_ms);
void weir_cache_forget(struct weir_cache *c, struct weir_shard *s);
/* Batches from the one that has `offset`; false where they are not in memory. */
bool weir_cache_read(const struct weir_shard *s, uint64_t offset, uint64_t bytes_max,
                     struct weir_run *run);
