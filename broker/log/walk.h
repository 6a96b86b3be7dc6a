/* The walk over the groups of one segment: recovery, sealing checks and fsck see a segment through
 * it.
 *
 * It tells a torn end from damage. A bad place is damage when something proves that it was durable
 * once: a later group whose `synced` lies behind it, or the next segment's header, which says that
 * this one went on. Without such a proof it is a torn end, which nobody was promised.
 *
 *     good ── good ── bad ── good(synced > bad)        damage: report it, go on behind it
 *     good ── good ── bad ── zeros or old contents     torn: the segment ends before it
 *
 * Knows groups and batches; does not know shards' states. One thread at a time. */
#pragma once
#include "base/status.h"
#include "log/format.h"

struct weir_walk_bad {
    uint64_t position, bytes; /* bytes 0: cannot be told */
    bool has_ids;             /* the next four are known */
    uint64_t shard, offset;
    uint32_t count;
    weir_u128 hash;
    const char *reason;
};

struct weir_walk {
    /* Set by the caller. A callback's status other than OK ends the walk and is returned. */
    enum weir_status (*read)(struct weir_walk *w, void *buf, size_t len, uint64_t at,
                             size_t *read_out);
    enum weir_status (*group)(struct weir_walk *w, const struct weir_group_info *g); /* or NULL */
    /* `batch` was checked whole; borrowed for the call. */
    enum weir_status (*batch)(struct weir_walk *w, uint64_t position, struct weir_bytes batch,
                              const struct weir_batch_info *info);
    enum weir_status (*bad)(struct weir_walk *w, const struct weir_walk_bad *bad);
    uint32_t journal_id_known; /* 0: take the first group's */
    weir_u128 journal_id;
    uint64_t segment;
    uint64_t limit;      /* where the next segment's header says this one ends, or UINT64_MAX */
    bool previous_known; /* `previous` is the header_hash of the group before the first */
    weir_u128 previous;
    uint64_t scan_bytes; /* how far to look for a group behind a bad place */
    /* Results. */
    uint64_t end; /* where the groups end */
    weir_u128 last_hash;
    uint64_t last_position; /* of the last group, 0 if there is none */
    uint64_t number;        /* of the last group */
    uint32_t epoch, flags;  /* of the last group */
    uint64_t groups, batches, damaged;
    uint64_t torn_bytes; /* as far as they can be told from zeros */
    /* Private. */
    uint8_t *buf;
    size_t capacity, len;
    uint64_t at;
};

/* OK, also with damage; IO, NO_MEMORY, or what a callback said. */
enum weir_status weir_walk_run(struct weir_walk *w);
/* Frees the walk's memory; results stay. */
void weir_walk_fini(struct weir_walk *w);
