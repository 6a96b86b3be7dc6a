/* The log's inside, shared by its files and by nobody else:
 *
 *     log.c      life, shards, append, what comes back from the committer
 *     recover.c  open: footers, the walk of the tail, where to go on
 *     seal.c     footers of segments that take no more
 *     read.c     reads and finds, on pool threads
 *     keep.c     retention, moving live batches forward, removing segments
 *
 * Everything here is the owner's, unless it says otherwise. */
#pragma once
#include "log/cache.h"
#include "log/chunks.h"
#include "log/commit.h"
#include "log/index.h"
#include "log/log.h"
#include <pthread.h>

#define WEIR_CHUNKS_BYTES_MAX (8 * WEIR_MIB)
#define WEIR_TICK_US 1000000u
/* What stays free for our own writes (states of shards, copies) when the disk is full. */
#define WEIR_RESERVE_BYTES (1 * WEIR_MIB)

enum weir_keep_phase {
    WEIR_KEEP_IDLE,
    WEIR_KEEP_COPY,  /* live batches go to the end of the journal */
    WEIR_KEEP_STATE, /* the shards' states follow */
    WEIR_KEEP_SYNC,  /* all of it is durable, and in a footer where that is needed */
    WEIR_KEEP_TRIM,  /* the segment goes */
};

struct weir_cut;

/* A dropped shard that still has batches on disk. The journal must go on to say that they are
 * trimmed, or what is left of them looks like damage. */
struct weir_ghost {
    uint64_t stream, shard, next, at_ms;
    weir_u128 chain;
    uint32_t segment; /* of the STATE batch that says so */
};

struct weir_keep {
    enum weir_keep_phase phase;
    uint32_t segment; /* the one that goes */
    bool failed;
    uint32_t pending; /* appends of ours that are not back yet */
    uint64_t *shards; /* still to be copied from, or to write a state of */
    uint32_t shard_count, shard_at;
    struct weir_ghost *ghosts;
    uint32_t ghost_count, ghost_capacity, ghost_at;
    bool footer_wanted; /* a state carries producers: they need a footer behind it */
    uint32_t footer;    /* the segment whose footer we wait for; 0: none */
    bool barrier_queued;
    struct weir_log_barrier barrier;
    struct weir_read read; /* of what is copied */
    bool reading;
    uint64_t tried_shard, tried_offset; /* the last read that did not succeed */
    bool tried;
    enum weir_status trim_st;
    struct weir_job trim;
    struct weir_cut *cut; /* where runs in footers are to be cut */
    bool cut_active;
    struct weir_job cut_job;
};

struct weir_log {
    struct weir_log_config config;
    struct weir_sys *sys;
    struct weir_loop *loop;
    struct weir_log_observer *observer;
    struct weir_journal *journal;
    char directory[256];

    struct weir_index index;
    struct weir_cache cache;
    struct weir_chunks *chunks; /* any thread */
    struct weir_commit commit;
    struct weir_task finished; /* the committer has something */

    uint64_t queued_bytes;
    enum weir_status health;  /* OK: takes appends */
    enum weir_status refused; /* by the committer */
    bool retrying;            /* it was asked to try again and has not answered */
    enum weir_status crowded; /* the filler found no space and the reserve is reached */
    bool closing;

    struct weir_timer tick;
    struct weir_timer interval; /* of INTERVAL */
    struct weir_log_barrier interval_barrier;
    bool interval_queued;

    struct weir_job prepare;
    bool prepare_active, prepare_idle;
    enum weir_status prepare_st;
    uint64_t prepare_ready;   /* bytes ahead when the filler last looked */
    uint64_t prepare_written; /* group bytes by then */

    struct weir_job seal_job;
    struct weir_segment *sealing;
    struct weir_keep keep;
    struct weir_list plans; /* of reads and finds under way */

    struct weir_log_stat stat;

    pthread_mutex_t mtx;
    pthread_cond_t job_ended;
    /* shared, under mtx */
    unsigned jobs; /* submitted and not yet worked */
    /* owner only */
    unsigned jobs_open; /* submitted and not yet done */
};

/* ---- log.c ---- */

/* Submits to the pool; the work function ends with weir_log_job_worked(), done begins with
 * weir_log_job_done(). */
void weir_log_job(struct weir_log *log, struct weir_job *job);
void weir_log_job_worked(struct weir_log *log);
void weir_log_job_done(struct weir_log *log);
/* Sets health from what its parts say, and tells the observer when it changed. */
void weir_log_health(struct weir_log *log, const char *text);
/* Moves everything that is done on the committer's side into the state. */
void weir_log_finished(struct weir_log *log);
/* Lets the filler run, if it does not. */
void weir_log_prepare(struct weir_log *log);
/* A sealed state of the shard for the journal's end; kind and done are the caller's. NO_MEMORY. */
enum weir_status weir_log_state_batch(struct weir_log *log, struct weir_shard *s,
                                      struct weir_append *a);
void weir_log_gap(struct weir_log *log, uint64_t shard, uint64_t first, uint64_t limit,
                  enum weir_status why);
uint64_t weir_log_producers_before(const struct weir_log *log, uint64_t now_ms);

/* ---- recover.c ---- */
enum weir_status weir_log_recover(struct weir_log *log, struct weir_log_report *report,
                                  struct weir_error *err);

/* ---- seal.c ---- */

/* Notes what the footer of a segment that was just rolled has to say about shards. NO_MEMORY. */
enum weir_status weir_seal_note(struct weir_log *log, struct weir_segment *g);
void weir_seal_free(struct weir_segment *g);
/* Starts sealing the oldest segment that waits for it. */
void weir_seal_next(struct weir_log *log);
/* Reads trailer and directory of a segment; *bytes_out is the caller's. INVALID: not sealed. */
enum weir_status weir_seal_load(struct weir_journal *j, uint64_t segment, uint64_t file_bytes,
                                struct weir_trailer_info *trailer, struct weir_directory *directory,
                                uint8_t **bytes_out);

/* ---- read.c ---- */
void weir_read_free_plans(struct weir_log *log);

/* ---- keep.c ---- */
void weir_keep_init(struct weir_log *log);
void weir_keep_fini(struct weir_log *log);
/* About once a second. */
void weir_keep_tick(struct weir_log *log);
/* The segment's footer is durable. */
void weir_keep_sealed(struct weir_log *log);
/* The shard is about to be forgotten: the journal learns that all of it was trimmed. */
void weir_keep_dropped(struct weir_log *log, struct weir_shard *s);
/* Retention of one shard. */
void weir_keep_shard(struct weir_log *log, struct weir_shard *s, uint64_t now_ms);
