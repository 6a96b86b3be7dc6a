/* A log on a disk in memory, with a clock that the test owns and no threads: everything happens in
 * rig_step(). Batches carry their shard and a number of their own, so that what is read can be told
 * from what was written. */
#pragma once
#include "log/log.h"
#include "sys/memfs.h"
#include <criterion/criterion.h>

#define OK(call) rig_ok((call), #call, __LINE__)
void rig_ok(enum weir_status st, const char *what, int line);
void rig_is(enum weir_status st, enum weir_status expected, const char *what, int line);
#define IS(call, expected) rig_is((call), (expected), #call, __LINE__)

struct rig_gap {
    uint64_t shard, first, limit;
    enum weir_status why;
};

struct rig {
    struct weir_memfs *disk;
    struct weir_clock_manual clock;
    struct weir_sys sys;
    struct weir_loop *loop;
    struct weir_pool *pool;
    struct weir_log *log;
    struct weir_log_config config;
    struct weir_log_report report;
    struct weir_error err;
    struct weir_log_observer observer;
    uint64_t durable, gaps, healths;
    struct rig_gap last_gap;
    enum weir_status health;
};

/* Segments of 1 MiB, nothing written ahead, no cache. */
void rig_init(struct rig *r);
void rig_fini(struct rig *r);
enum weir_status rig_try_open(struct rig *r);
void rig_open(struct rig *r);
void rig_close(struct rig *r);
/* The power goes: the disk keeps what it is told to, the log is gone. Open again with rig_open. */
void rig_crash(struct rig *r, enum weir_memfs_cut keep, uint64_t seed);
/* Everything that is ready runs. */
void rig_step(struct rig *r);
/* Time passes, with everything that becomes due. */
void rig_pass(struct rig *r, uint64_t ms);

/* A batch of `count` records of about `size` bytes, whose first says "SHARD NUMBER". */
struct weir_buf *rig_batch(uint64_t shard, uint64_t number, uint32_t count, size_t size,
                           weir_u128 producer, uint64_t producer_number);

struct rig_append {
    struct weir_append append;
    bool done;
    enum weir_status st;
};
/* Appends; returns what append returned, and is done after rig_step. */
enum weir_status rig_send(struct rig *r, struct rig_append *a, uint64_t shard, uint64_t number,
                          uint32_t count, size_t size);
enum weir_status rig_send_as(struct rig *r, struct rig_append *a, uint64_t shard, uint64_t number,
                             uint32_t count, size_t size, weir_u128 producer,
                             uint64_t producer_number);
/* Appends one batch and waits: its status; *offset (NULL allowed) is where it is. */
enum weir_status rig_put(struct rig *r, uint64_t shard, uint64_t number, uint32_t count,
                         size_t size, uint64_t *offset);
enum weir_status rig_put_as(struct rig *r, uint64_t shard, uint64_t number, weir_u128 producer,
                            uint64_t producer_number, uint64_t *offset);
/* Reads from the journal and waits. Clear the run. */
enum weir_status rig_read(struct rig *r, uint64_t shard, uint64_t offset, uint64_t bytes_max,
                          struct weir_run *run);
enum weir_status rig_find(struct rig *r, uint64_t shard, uint64_t at_ms, uint64_t *offset);
/* The number that rig_batch wrote into the batch. */
uint64_t rig_number(struct weir_slice slice, uint64_t shard);
/* The whole shard holds: batches with the numbers first..first+count-1, one record each, from
 * `offset` on to the end. */
void rig_expect(struct rig *r, uint64_t shard, uint64_t offset, uint64_t first, uint64_t count,
                int line);
#define EXPECT_SHARD(rig, shard, offset, first, count) \
    rig_expect((rig), (shard), (offset), (first), (count), __LINE__)
/* "journal/00000001.seg" */
const char *rig_segment(unsigned number, char out[64]);

/* What a shard must hold: one record a batch, numbered from 0, each with what its append was told.
 */
struct rig_book {
    uint64_t shard;
    uint32_t count, lost; /* lost: not found by rig_check_damaged */
    enum weir_status st[4096];
};
/* Appends the next number, and notes the answer. */
enum weir_status rig_book_put(struct rig *r, struct rig_book *b, size_t size);
/* Everything acknowledged is there, once, in order; nothing refused is; UNKNOWN may be either. */
void rig_check(struct rig *r, const struct rig_book *b, const char *what);
/* The same where some bytes were changed: what is served is right, and what is not served is told
 * as a gap. Counts what was acknowledged and is not served in b->lost. */
void rig_check_damaged(struct rig *r, struct rig_book *b, const char *what);
/* Writes into a file behind the log's back. */
void rig_overwrite(struct rig *r, const char *path, uint64_t at, const void *bytes, size_t len);
