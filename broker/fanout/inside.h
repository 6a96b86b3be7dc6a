/* What the files of the fan-out share.
 *
 *   fanout.c    shards, the tip, the owner's task and timer
 *   sub.c       a subscription's life: opening, credit, state, sending, closing
 *   catch_up.c  reading for one that is behind
 *   frame.c     a frame out of a run of batches         wheel.c    heartbeats */
#pragma once
#include "base/assert.h"
#include "base/map.h"
#include "fanout/fanout.h"
#include "fanout/frame.h"
#include "fanout/wheel.h"

#define WEIR_FANOUT_SPARES_MAX 16
#define WEIR_HEARTBEAT_MS_MAX 60000
static_assert(WEIR_HEARTBEAT_MS_MAX * 1000ull < (uint64_t)(WEIR_WHEEL_SLOTS - 2)
                                                    << WEIR_WHEEL_SHIFT,
              "the longest heartbeat must fit into the wheel");

struct weir_fanout {
    struct weir_loop *loop;
    struct weir_log *log;
    struct weir_metrics *metrics;
    struct weir_map shards;    /* number to struct weir_fanout_shard */
    struct weir_list subs;     /* all that are not closed */
    struct weir_list closed;   /* to be freed by the task */
    struct weir_list fresh;    /* tips with batches to send */
    struct weir_list turns;    /* subscriptions that have work */
    struct weir_list readers;  /* those that are in use */
    struct weir_list finders;  /* all that are in flight */
    struct weir_reader *spare; /* those that are not, at most WEIR_FANOUT_SPARES_MAX */
    struct weir_fresh *spare_run;
    uint32_t spare_count, spare_run_count;
    uint64_t held_bytes;
    struct weir_task task;
    struct weir_timer timer;
    uint64_t timer_us;
    struct weir_wheel wheel;
};

/* Idle shards are many: this is all they are. */
struct weir_fanout_shard {
    uint64_t number;
    uint64_t end; /* UINT64_MAX: open */
    struct weir_tip *tip;
};

/* A shard that has subscriptions. */
struct weir_tip {
    struct weir_fanout_shard *shard;
    uint64_t tail; /* end of what we were told is durable */
    uint32_t count;
    uint32_t busy; /* times it is on the stack: then it stays */
    struct weir_list live, behind;
    struct weir_fresh *fresh; /* durable, not yet sent; NULL: nothing */
    struct weir_list fresh_node;
};

struct weir_fresh {
    struct weir_run run;
    struct weir_fresh *next; /* spare */
};

/* What a subscription needs to catch up. It outlives the subscription while a read is in flight. */
struct weir_reader {
    struct weir_fanout *fanout;
    struct weir_sub *sub; /* NULL: nobody waits any more */
    struct weir_list node;
    struct weir_reader *next; /* spare */
    bool reading, ready;      /* in flight; came back with `status` */
    enum weir_status status;
    uint64_t held;         /* counted in fanout->held_bytes */
    uint32_t at;           /* batch of `run` that is sent next */
    bool from_journal;     /* run came from there: read ahead */
    struct weir_run run;   /* goes out */
    struct weir_read read; /* the next one */
};

enum weir_sub_state { WEIR_SUB_OPENING, WEIR_SUB_CATCHING_UP, WEIR_SUB_LIVE, WEIR_SUB_CLOSED };

struct weir_finder {
    struct weir_find find;
    struct weir_sub *sub; /* NULL: closed meanwhile */
    struct weir_list node;
};

struct weir_sub {
    struct weir_fanout *fanout;
    struct weir_tip *tip; /* NULL once CLOSED */
    enum weir_sub_state state;
    struct weir_list node;  /* of fanout->subs or ->closed */
    struct weir_list place; /* of tip->live or ->behind */
    struct weir_list turn;  /* of fanout->turns */
    struct weir_list beat;  /* of the wheel */
    struct weir_reader *reader;
    struct weir_finder *finder;
    uint64_t next;
    uint64_t waiting_at_ms; /* arrival of what waits, or of what was sent last; 0: not known */
    int64_t credit;         /* below 0: a batch larger than it was sent */
    int64_t window;         /* what was granted at open */
    uint32_t frames;
    uint64_t sent_records, sent_bytes, sent_us, said_us;
    struct weir_sub_config config;
    char consumer[];
};

static inline bool
weir_sub_has_credit(const struct weir_sub *s)
{
    return s->frames > 0 && s->credit > 0;
}
/* All of what was granted at open is free: then one batch may be larger than the credit. */
static inline bool
weir_sub_has_whole_window(const struct weir_sub *s)
{
    return weir_sub_has_credit(s) && s->credit >= s->window;
}

/* ---- fanout.c ---- */

/* Starts the owner's one timer for the wheel's next node. */
void weir_fanout_arm(struct weir_fanout *f);
void weir_tip_free_if_unused(struct weir_fanout *f, struct weir_tip *tip);

/* ---- sub.c ---- */

/* Its turn comes with the owner's task. */
void weir_sub_wake(struct weir_sub *s);
/* After `next` moved: the end, the tip, or on. */
void weir_sub_settle(struct weir_sub *s);
/* CLOSED, and the sink's last call. */
void weir_sub_stop(struct weir_sub *s, enum weir_status why, uint64_t offset);
/* Sends one frame and settles. */
void weir_sub_deliver(struct weir_sub *s, const struct weir_delivery *d);
/* The turn of one that is OPENING. */
void weir_sub_open_turn(struct weir_sub *s);
/* Its start is known, or why there is none. */
void weir_sub_begin(struct weir_sub *s, enum weir_status st, uint64_t offset, uint64_t tail);
/* All that arrived before `until_ms` was sent: it is past, and nothing older is on its way. */
bool weir_sub_is_past_until(struct weir_sub *s);
/* Puts its next heartbeat, or its end, into the wheel. */
void weir_sub_plan_beat(struct weir_sub *s);
uint32_t weir_sub_lag_ms(struct weir_sub *s, const struct weir_log_shard *state);
/* At least 1. */
uint32_t weir_fanout_age_ms(struct weir_fanout *f, uint64_t at_ms);

/* ---- catch_up.c ---- */

/* The turn of one that is CATCHING_UP and has credit: one frame. */
void weir_sub_catch_up(struct weir_sub *s);
/* Lets go of what it has read and not sent. */
void weir_sub_drop_reader(struct weir_sub *s);
