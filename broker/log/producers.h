/* What one shard knows of its producers: the number of each one's last batch, and where its last
 * few batches are, so that a batch sent again is answered and not stored twice.
 *
 *     check ──ok──> begin ──> durable        the batch is stored
 *                         └─> undo           it is not: the producer may send the number again
 *
 * A number that follows the last is new, one at or below it a duplicate, one that skips is refused.
 * A producer that is not known begins with 1: were any number taken, a batch behind a refused first
 * one would make the first look stored. Past the limit the one silent for longest is forgotten.
 * Does not know batches or files. One thread at a time. */
#pragma once
#include "base/limits.h"
#include "base/u128.h"
#include "log/format.h"

struct weir_producers;

/* NULL is an empty table to the calls that take a const one. */
void weir_producers_free(struct weir_producers *p);
size_t weir_producers_count(const struct weir_producers *p);
size_t weir_producers_bytes(const struct weir_producers *p);

struct weir_producer_place {
    uint64_t offset, at_ms; /* 0 where no longer known */
    uint64_t number;        /* the producer's last */
};
/* OK: take it. DUPLICATE: it is there already. INVALID: it skips a number. `forgotten_before_ms`:
 * one silent since before that is not known any more. `place` is set for DUPLICATE and INVALID. */
enum weir_status weir_producers_check(const struct weir_producers *p, weir_u128 id, uint64_t number,
                                      uint64_t forgotten_before_ms,
                                      struct weir_producer_place *place);
/* A batch that check() took gets its place; makes *p where it is NULL. NO_MEMORY. */
enum weir_status weir_producers_begin(struct weir_producers **p, weir_u128 id, uint64_t number,
                                      uint64_t offset, uint64_t at_ms,
                                      uint64_t forgotten_before_ms);
void weir_producers_durable(struct weir_producers *p, weir_u128 id, uint64_t number);
/* All batches that are not durable fail together, so any order will do. */
void weir_producers_undo(struct weir_producers *p, weir_u128 id, uint64_t number);
/* From recovery: the batch is there, whatever its number. NO_MEMORY. */
enum weir_status weir_producers_note(struct weir_producers **p, weir_u128 id, uint64_t number,
                                     uint64_t offset, uint64_t at_ms);
/* NOT_FOUND. Durable batches only. */
enum weir_status weir_producers_last(const struct weir_producers *p, weir_u128 id,
                                     uint64_t forgotten_before_ms, uint64_t *number_out);
void weir_producers_expire(struct weir_producers *p, uint64_t before_ms);

/* The durable part, as a footer keeps it: at most count() rows, the longest silent first. */
size_t weir_producers_encode(const struct weir_producers *p, struct weir_disk_producer *out);
/* One row of a footer; a newer state of the same producer replaces an older one. NO_MEMORY. */
enum weir_status weir_producers_decode(struct weir_producers **p,
                                       const struct weir_disk_producer *row);
