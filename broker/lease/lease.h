/* Checkpoints: how far a named consumer has come in a shard, durable, and whose word counts.
 *
 * Each (stream, consumer, shard) has an epoch that grows with every acquire. A checkpoint carries
 * the epoch of its owner; an older one is refused (FENCED), so a consumer that was thought dead
 * cannot move a position that another one has. Rows live in the metadata table; the log is the
 * truth about records, so an offset may be ahead of nothing: it is checked against the shard's
 * durable end by the service before it comes here.
 *
 * Worker leases (owner, counter, expiry, balancing) come on top of these rows.
 *
 * Threads: the control loop. */
#pragma once
#include "base/error.h"
#include "base/limits.h"
#include "meta/meta.h"

struct weir_leases;

struct weir_checkpoint_row {
    uint64_t stream; /* number */
    uint32_t shard;  /* index */
    char consumer[WEIR_CONSUMER_NAME_MAX + 1];
    char owner[WEIR_CONSUMER_NAME_MAX + 1];
    uint64_t offset, epoch, updated_ms;
    bool set, shard_end;
};

/* Blocking; before the loop runs. DAMAGED, UNSUPPORTED (rows of a newer version), and meta's. */
enum weir_status weir_leases_open(struct weir_meta *meta, struct weir_clock *clock,
                                  struct weir_leases **out, struct weir_error *err);
/* No change is in flight. NULL is allowed. */
void weir_leases_close(struct weir_leases *leases);

/* Changes are made in the order of the calls. Those that wait while a commit is on its way share
 * the next one, in which each row is written once, however often it was set. `done` comes on the
 * control loop, never before the call returned: OK: durable. FENCED: another epoch owns the row.
 * INVALID: a name that is not of the form. Else meta's: nothing was changed (UNKNOWN: only a
 * restart tells). */

struct weir_lease_change {
    void (*done)(struct weir_lease_change *change, enum weir_status st);
    struct weir_error err;
    /* As it is after the change; with FENCED: as it is; else as it was before. Epoch 0: there is
     * none. Of reset and drop_stream: nothing. */
    struct weir_checkpoint_row row;
    /* private */
    int kind;
    struct weir_list node;
};

/* A new epoch for `owner` (at most WEIR_CONSUMER_NAME_MAX bytes, may be empty). The position stays.
 */
void weir_lease_acquire(struct weir_leases *l, uint64_t stream, struct weir_bytes consumer,
                        uint32_t shard, struct weir_bytes owner, struct weir_lease_change *change);
/* epoch 0: an operator's set; takes a new epoch, so that a running owner is fenced. A position may
 * go back. */
void weir_lease_checkpoint(struct weir_leases *l, uint64_t stream, struct weir_bytes consumer,
                           uint32_t shard, uint64_t epoch, uint64_t offset, bool shard_end,
                           struct weir_lease_change *change);
/* Forgets positions; epochs grow by one and stay. */
void weir_lease_reset(struct weir_leases *l, uint64_t stream, struct weir_bytes consumer,
                      struct weir_lease_change *change);
/* With the stream: all its rows. */
void weir_lease_drop_stream(struct weir_leases *l, uint64_t stream,
                            struct weir_lease_change *change);

/* NULL: none. Borrowed until the next change. */
const struct weir_checkpoint_row *weir_lease_find(const struct weir_leases *l, uint64_t stream,
                                                  struct weir_bytes consumer, uint32_t shard);
/* Rows of one stream (consumer NULL: of all its consumers), by consumer, then shard. */
void weir_lease_each(const struct weir_leases *l, uint64_t stream,
                     const struct weir_bytes *consumer,
                     void (*each)(void *arg, const struct weir_checkpoint_row *row), void *arg);
