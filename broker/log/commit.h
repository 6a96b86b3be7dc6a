/* The committer: takes what the owner queued, writes it as groups, and hands it back durable.
 *
 *     owner: push ──> pending ──┐                       ┌──> finished ──> owner: log_finished()
 *                               └── group, write, sync ─┘
 *
 * Whatever arrives during one sync is the next group. It is a thread, or, stepped, a pool job;
 * either way one group is in flight. It knows positions, groups and segments; shards and their
 * numbers were settled before push.
 *
 * After a failed write or sync it hands back that group as failed, behind it an event that says so,
 * and takes no more until the owner has called commit_mend(): what is still queued builds on what
 * failed, so the owner must fail it as well (commit_take_pending). */
#pragma once
#include "log/format.h"
#include "log/journal.h"
#include "log/log.h"
#include <pthread.h>

enum weir_item_kind {
    WEIR_ITEM_APPEND,    /* a caller's batch */
    WEIR_ITEM_STATE,     /* ours: keeps a shard's numbers alive */
    WEIR_ITEM_COPY,      /* ours: an old batch, moved */
    WEIR_ITEM_DUPLICATE, /* no bytes: answered when what is before it is durable */
    WEIR_ITEM_BARRIER,   /* no bytes; what is before it is synced */
    WEIR_ITEM_ROLL,      /* the same, and a new segment is opened behind it */
    WEIR_ITEM_ROLLED,    /* event: struct weir_rolled */
    WEIR_ITEM_FAILED,    /* event: struct weir_failed */
    WEIR_ITEM_MENDED,    /* event: a retry's answer, in its `st` */
};

struct weir_rolled {
    struct weir_append item;
    uint32_t segment, next; /* the one that takes no more, and the one after it */
    uint64_t end, group;
    weir_u128 last_hash;
    uint32_t epoch;
};

struct weir_failed {
    struct weir_append item; /* st: what failed */
    enum weir_status now;    /* OK: a new segment is open */
};

struct weir_commit {
    struct weir_journal *journal;
    struct weir_clock *clock;
    struct weir_loop *loop;
    struct weir_pool *pool;
    struct weir_task *task; /* posted when there is something in finished */
    uint32_t journal_number;
    weir_u128 journal_id;
    uint64_t segment_bytes, group_bytes_max;
    bool sync; /* each group */

    pthread_mutex_t mtx;
    pthread_cond_t work;
    /* shared, under mtx */
    struct weir_list pending, finished;
    bool asleep, stop, broken, retry;

    /* the committer's (the owner's before it starts) */
    uint32_t segment, epoch;
    uint64_t end;    /* of the groups in the segment; 0: it has no header yet */
    uint64_t synced; /* below that they are durable */
    uint64_t group;  /* number of the last group */
    weir_u128 last_hash;
    struct iovec *iov;
    struct weir_disk_row *rows;
    uint32_t capacity;
    struct weir_rolled *spare_rolled; /* so that a roll cannot fail for memory half way */
    struct weir_failed *spare_failed;
    struct weir_append mended;

    /* owner only */
    struct weir_thread *thread;
    struct weir_job job; /* stepped */
    bool job_active;

    /* any thread */
    _Atomic uint64_t groups, group_bytes, syncs, sync_us, failed_groups;
};

/* `c` is zeroed but for what is set by then: journal, clock, loop, pool, task, numbers and limits.
 */
enum weir_status weir_commit_init(struct weir_commit *c);
void weir_commit_fini(struct weir_commit *c);
/* Writes a group now, on the calling thread, before start: `items` (a list of struct weir_append,
 * or NULL) or an empty one. For recovery and for an orderly end. */
enum weir_status weir_commit_mark(struct weir_commit *c, uint32_t flags);
/* Opens the segment behind the present one, and makes its header durable. */
enum weir_status weir_commit_open_next(struct weir_commit *c);
enum weir_status weir_commit_start(struct weir_commit *c, bool threads);
/* Waits for the group in flight; finished and pending keep what they have. */
void weir_commit_stop(struct weir_commit *c);

/* ---- owner ---- */
void weir_commit_push(struct weir_commit *c, struct weir_append *item);
/* Straight to finished: for a marker while there is nothing before it. */
void weir_commit_pass(struct weir_commit *c, struct weir_append *item);
/* Moves what is finished to the end of `out`. */
void weir_commit_take_finished(struct weir_commit *c, struct weir_list *out);
void weir_commit_take_pending(struct weir_commit *c, struct weir_list *out);
/* After FAILED was dealt with: goes on. */
void weir_commit_mend(struct weir_commit *c);
/* Where no new segment could be opened: tries again, and answers with MENDED. */
void weir_commit_retry(struct weir_commit *c);
