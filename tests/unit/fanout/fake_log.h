/* A naive log in memory behind log.h, with handles on what a real one does when it likes: when a
 * commit ends, what is still cached, when a read comes back, what is trimmed or damaged. */
#pragma once
#include "log/log.h"

enum { FAKE_SHARDS = 16 };

struct weir_log *fake_log_new(struct weir_loop *loop, struct weir_clock *clock,
                              struct weir_log_observer *observer);
void fake_log_free(struct weir_log *log);

/* A durable batch of `count` records and `size` bytes (24 or more); the observer hears of it. */
void fake_log_put(struct weir_log *log, uint64_t shard, uint32_t count, size_t size);
/* What a subscriber finds in such a batch. */
struct fake_batch {
    uint64_t first, count, size;
};
struct fake_batch fake_batch_at(struct weir_bytes bytes);

/* Nothing of the shard is in memory any more. */
void fake_log_evict(struct weir_log *log, uint64_t shard);
void fake_log_trim(struct weir_log *log, uint64_t shard, uint64_t oldest);
void fake_log_damage(struct weir_log *log, uint64_t shard, uint64_t offset);
/* Reads stay in flight until they are let go. */
void fake_log_hold_reads(struct weir_log *log, bool hold);
/* Appends in flight end with `st`. */
void fake_log_commit(struct weir_log *log, enum weir_status st);
uint64_t fake_log_reads(const struct weir_log *log);
/* The next appends are answered with it (OK: taken). */
void fake_log_refuse(struct weir_log *log, enum weir_status st);
