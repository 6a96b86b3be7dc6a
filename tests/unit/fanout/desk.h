/* A desk with everything a fan-out needs: a stepped loop, a clock, a naive log; and subscribers
 * that keep book of what they are told and check it: order, no hole, no repeat, whole batches,
 * credit kept. */
#pragma once
#include "fanout/fanout.h"
#include "unit/fanout/fake_log.h"
#include <criterion/criterion.h>

#define OK(call) cr_assert_eq((call), WEIR_OK, "%s", #call)

struct desk {
    struct weir_clock_manual clock;
    struct weir_loop *loop;
    struct weir_log_observer observer;
    struct weir_log *log;
    struct weir_fanout *fanout;
    struct weir_metrics *metrics;
};
void desk_open(struct desk *d);
void desk_close(struct desk *d);
/* Runs all that is ready. */
void desk_step(struct desk *d);
/* Time passes in steps of at most 10 ms, and what is due runs. */
void desk_wait(struct desk *d, uint64_t ms);
void desk_shard(struct desk *d, uint64_t shard);

struct reader_book {
    struct weir_sub *sub;
    struct desk *desk;
    bool started, stopped, in_open;
    enum weir_status start_status, stop_status;
    uint64_t start_offset, start_tail, stop_offset;
    uint64_t next;           /* what must come */
    uint64_t records, bytes; /* what came; records before the position are not counted */
    uint64_t frames, heartbeats, gaps, gap_records;
    enum weir_status gap_why;
    uint64_t beat_next, beat_tail;
    uint32_t beat_lag_ms, last_lag_ms, slices;
    uint64_t last_tail;
    int64_t credit; /* what the fan-out may still send; a single batch may overdraw */
    int64_t window;
    uint64_t frame_bytes;
    const uint8_t *last_data; /* of the last slice of the last frame */
    bool close_in_deliver, credit_back;
    struct reader_book *also_close;
};
/* Defaults where 0: window 1 MiB and 1,000 frames, frames of 256 KiB, heartbeat 1 s. */
void book_open(struct desk *d, struct reader_book *b, struct weir_sub_config config);
void book_close(struct reader_book *b);
void book_credit(struct reader_book *b, uint64_t bytes, uint32_t frames);
