/* How a batch gets to the subscribers at the tip:
 *
 *   1. the log says it is durable; it joins the shard's `fresh` run, and the owner's task is posted
 * once
 *   2. the task cuts one frame of all that became fresh (a commit group, mostly) and hands it to
 * every LIVE subscription: a reference each
 *   3. who cannot take it (no credit, smaller frames) is no longer LIVE: it keeps its position, no
 * bytes
 *
 * How one behind the tip catches up, a frame per turn, turns in a ring:
 *
 *   1. batches of its present run that fit frame and credit go out
 *   2. no run left: the next one from the log's memory; failing that from the journal, on a pool
 * thread
 *   3. while a run from the journal goes out, the next one is read
 *   4. at the tip it is LIVE again
 *
 * A sink may close any subscription from inside a call. So what it may close is taken out of lists
 * one by one, never walked; closed subscriptions are freed by the task, when no sink is on the
 * stack. */
#include "fanout/fanout.h"
#include "base/assert.h"
#include "base/map.h"
#include "fanout/frame.h"
#include "fanout/wheel.h"
#include <stdlib.h>
#include <string.h>

#define CREDIT_BYTES_MAX ((int64_t)WEIR_GIB)
#define CREDIT_FRAMES_MAX 1000000u
#define FRAME_BYTES_MIN (4 * WEIR_KIB)
#define FRAME_BYTES_MAX (4 * WEIR_MIB)
#define HEARTBEAT_MS_MIN 100
#define HEARTBEAT_MS_MAX 60000
/* Of one read: large enough that the hand-over to a pool thread and back does not show. */
#define READ_BYTES_MIN (64 * WEIR_KIB)
#define READ_BYTES (512 * WEIR_KIB)
/* What all subscriptions of an owner may hold of runs not yet sent before they read less ahead. */
#define HELD_BYTES_MAX (32 * WEIR_MIB)
/* Turns before others on the loop get theirs. */
#define TURNS_PER_TASK 16
#define SPARES_MAX 16

static_assert(FRAME_BYTES_MAX <= WEIR_FRAME_BYTES_MAX, "an aim must be a legal frame");
static_assert(HEARTBEAT_MS_MAX * 1000ull < (uint64_t)(WEIR_WHEEL_SLOTS - 2) << WEIR_WHEEL_SHIFT,
              "the longest heartbeat must fit into the wheel");

struct weir_fanout {
    struct weir_loop *loop;
    struct weir_log *log;
    struct weir_metrics *metrics;
    struct weir_map shards;   /* number to struct shard */
    struct weir_list subs;    /* all that are not closed */
    struct weir_list closed;  /* to be freed by the task */
    struct weir_list fresh;   /* tips with batches to send */
    struct weir_list turns;   /* subscriptions that have work */
    struct weir_list readers; /* those that are in use */
    struct reader *spare;     /* those that are not, at most SPARES_MAX */
    struct run *spare_run;
    uint32_t spare_count, spare_run_count;
    uint64_t held_bytes;
    struct weir_task task;
    struct weir_timer timer;
    uint64_t timer_us;
    struct weir_wheel wheel;
};

/* Idle shards are many: this is all they are. */
struct shard {
    uint64_t number;
    uint64_t end; /* UINT64_MAX: open */
    struct tip *tip;
};

/* A shard that has subscriptions. */
struct tip {
    struct shard *shard;
    uint64_t tail; /* end of what we were told is durable */
    uint32_t count;
    uint32_t busy; /* times it is on the stack: then it stays */
    struct weir_list live, behind;
    struct run *fresh; /* durable, not yet sent; NULL: nothing */
    struct weir_list fresh_node;
};

struct run {
    struct weir_run run;
    struct run *next; /* spare */
};

/* What a subscription needs to catch up. It outlives the subscription while a read is in flight. */
struct reader {
    struct weir_fanout *fanout;
    struct weir_sub *sub; /* NULL: nobody waits any more */
    struct weir_list node;
    struct reader *next; /* spare */
    bool reading, ready; /* in flight; came back with `status` */
    enum weir_status status;
    uint64_t held;         /* counted in fanout->held_bytes */
    uint32_t at;           /* batch of `run` that is sent next */
    bool from_journal;     /* run came from there: read ahead */
    struct weir_run run;   /* goes out */
    struct weir_read read; /* the next one */
};

enum sub_state { OPENING, CATCHING_UP, LIVE, CLOSED };

#define TO(state) (1u << (state))
static const uint8_t sub_next[] = {
    [OPENING] = TO(CATCHING_UP) | TO(CLOSED),
    [CATCHING_UP] = TO(LIVE) | TO(CLOSED),
    [LIVE] = TO(CATCHING_UP) | TO(CLOSED),
    [CLOSED] = 0,
};

struct finder {
    struct weir_find find;
    struct weir_sub *sub; /* NULL: closed meanwhile */
};

struct weir_sub {
    struct weir_fanout *fanout;
    struct tip *tip; /* NULL once CLOSED */
    enum sub_state state;
    struct weir_list node;  /* of fanout->subs or ->closed */
    struct weir_list place; /* of tip->live or ->behind */
    struct weir_list turn;  /* of fanout->turns */
    struct weir_list beat;  /* of the wheel */
    struct reader *reader;
    struct finder *finder;
    uint64_t next;
    uint64_t waiting_at_ms; /* arrival of what waits, or of what was sent last; 0: not known */
    int64_t credit;         /* below 0: a batch larger than it was sent */
    int64_t window;         /* what was granted at open */
    uint32_t frames;
    uint64_t sent_records, sent_bytes, sent_us, said_us;
    struct weir_sub_config config;
    char consumer[];
};

static void run_task(struct weir_task *task);
static void run_timer(struct weir_timer *timer);

/* ---- fan-out and shards ---- */

enum weir_status
weir_fanout_new(struct weir_loop *loop, struct weir_log *log, struct weir_metrics *metrics,
                struct weir_fanout **out)
{
    struct weir_fanout *f = calloc(1, sizeof *f);
    if (!f)
        return WEIR_NO_MEMORY;
    f->loop = loop;
    f->log = log;
    f->metrics = metrics;
    f->task.run = run_task;
    f->timer.run = run_timer;
    f->timer_us = UINT64_MAX;
    /* Keys are numbers that the catalog gave out; nobody outside chooses them. */
    weir_map_init(&f->shards, 1);
    weir_list_init(&f->subs);
    weir_list_init(&f->closed);
    weir_list_init(&f->fresh);
    weir_list_init(&f->turns);
    weir_list_init(&f->readers);
    weir_wheel_init(&f->wheel, weir_loop_now_us(loop));
    *out = f;
    return WEIR_OK;
}

static void
sub_free(struct weir_sub *s)
{
    weir_list_remove(&s->node);
    free(s);
}

void
weir_fanout_free(struct weir_fanout *f)
{
    if (!f)
        return;
    WEIR_LIST_FOR_EACH_SAFE (node, &f->readers) {
        struct reader *r = WEIR_CONTAINER(node, struct reader, node);
        weir_run_clear(&r->run);
        weir_run_clear(&r->read.run);
        free(r);
    }
    WEIR_LIST_FOR_EACH_SAFE (node, &f->subs) {
        struct weir_sub *s = WEIR_CONTAINER(node, struct weir_sub, node);
        free(s->finder);
        sub_free(s);
    }
    WEIR_LIST_FOR_EACH_SAFE (node, &f->closed)
        sub_free(WEIR_CONTAINER(node, struct weir_sub, node));
    for (struct reader *r; (r = f->spare); free(r))
        f->spare = r->next;
    for (struct run *r; (r = f->spare_run); free(r))
        f->spare_run = r->next;
    size_t cursor = 0;
    for (struct shard *shard; (shard = weir_map_next(&f->shards, &cursor)); free(shard)) {
        if (!shard->tip)
            continue;
        if (shard->tip->fresh)
            weir_run_clear(&shard->tip->fresh->run);
        free(shard->tip->fresh);
        free(shard->tip);
    }
    weir_map_fini(&f->shards);
    if (weir_timer_is_started(&f->timer))
        weir_timer_stop(f->loop, &f->timer);
    free(f);
}

enum weir_status
weir_fanout_add_shard(struct weir_fanout *f, uint64_t number)
{
    WEIR_ASSERT(weir_loop_is_current(f->loop));
    struct shard *shard = malloc(sizeof *shard);
    if (!shard)
        return WEIR_NO_MEMORY;
    *shard = (struct shard){.number = number, .end = UINT64_MAX};
    enum weir_status st = weir_map_put(&f->shards, number, shard);
    if (st)
        free(shard);
    return st;
}

static struct run *
run_take(struct weir_fanout *f)
{
    struct run *r = f->spare_run;
    if (!r)
        return calloc(1, sizeof *r);
    f->spare_run = r->next;
    f->spare_run_count--;
    return r;
}

static void
run_give(struct weir_fanout *f, struct run *r)
{
    weir_run_clear(&r->run);
    r->run.count = 0;
    r->run.bytes = 0;
    if (f->spare_run_count == SPARES_MAX) {
        free(r);
        return;
    }
    r->next = f->spare_run;
    f->spare_run = r;
    f->spare_run_count++;
}

static void
tip_forget_fresh(struct weir_fanout *f, struct tip *tip)
{
    weir_list_remove(&tip->fresh_node);
    if (tip->fresh)
        run_give(f, tip->fresh);
    tip->fresh = NULL;
}

static void
tip_free_if_unused(struct weir_fanout *f, struct tip *tip)
{
    if (tip->count > 0 || tip->busy > 0)
        return;
    tip_forget_fresh(f, tip);
    tip->shard->tip = NULL;
    free(tip);
}

/* ---- subscriptions: state ---- */

static void
sub_move(struct weir_sub *s, enum sub_state to)
{
    WEIR_ASSERT(sub_next[s->state] & TO(to));
    s->state = to;
}

static bool
has_credit(const struct weir_sub *s)
{
    return s->frames > 0 && s->credit > 0;
}

/* All of what was granted at open is free: then one batch may be larger than the credit. */
static bool
has_whole_window(const struct weir_sub *s)
{
    return has_credit(s) && s->credit >= s->window;
}

static void
wake(struct weir_sub *s)
{
    if (weir_list_is_linked(&s->turn))
        return;
    weir_list_push_back(&s->fanout->turns, &s->turn);
    weir_loop_post(s->fanout->loop, &s->fanout->task);
}

static void
hold(struct reader *r, uint64_t bytes)
{
    r->fanout->held_bytes += bytes - r->held;
    r->held = bytes;
}

static void
reader_free(struct reader *r)
{
    struct weir_fanout *f = r->fanout;
    WEIR_ASSERT(!r->reading);
    hold(r, 0);
    weir_list_remove(&r->node);
    if (f->spare_count == SPARES_MAX) {
        free(r);
        return;
    }
    r->next = f->spare;
    f->spare = r;
    f->spare_count++;
}

/* Lets go of what the subscription has read and not sent. */
static void
drop_reader(struct weir_sub *s)
{
    struct reader *r = s->reader;
    if (!r)
        return;
    s->reader = NULL;
    r->sub = NULL;
    weir_run_clear(&r->run);
    r->run.count = 0;
    if (r->ready)
        weir_run_clear(&r->read.run);
    r->ready = false;
    if (!r->reading)
        reader_free(r);
}

static struct reader *
need_reader(struct weir_sub *s)
{
    struct weir_fanout *f = s->fanout;
    struct reader *r = s->reader;
    if (r)
        return r;
    r = f->spare;
    if (r) {
        f->spare = r->next;
        f->spare_count--;
    } else {
        r = malloc(sizeof *r);
        if (!r)
            return NULL;
    }
    memset(r, 0, sizeof *r);
    r->fanout = f;
    r->sub = s;
    weir_list_push_back(&f->readers, &r->node);
    s->reader = r;
    return r;
}

/* CLOSED: takes it out of everything but fanout->subs. */
static void
retire(struct weir_sub *s)
{
    struct weir_fanout *f = s->fanout;
    struct tip *tip = s->tip;
    sub_move(s, CLOSED);
    weir_list_remove(&s->place);
    weir_list_remove(&s->turn);
    weir_list_remove(&s->beat);
    drop_reader(s);
    if (s->finder)
        s->finder->sub = NULL;
    s->finder = NULL;
    s->tip = NULL;
    tip->count--;
    tip_free_if_unused(f, tip);
    weir_metric_add(f->metrics, WEIR_METRIC_SUBSCRIPTIONS, -1);
}

static void
stop(struct weir_sub *s, enum weir_status why, uint64_t offset)
{
    retire(s);
    s->config.sink->stopped(s, why, offset);
}

/* Starts the owner's one timer for the wheel's next node. */
static void
arm(struct weir_fanout *f)
{
    uint64_t due_us = weir_wheel_next_us(&f->wheel);
    if (due_us == f->timer_us && weir_timer_is_started(&f->timer))
        return;
    f->timer_us = due_us;
    if (due_us == UINT64_MAX) {
        weir_timer_stop(f->loop, &f->timer);
        return;
    }
    uint64_t now_us = weir_loop_now_us(f->loop);
    weir_timer_start(f->loop, &f->timer, due_us > now_us ? due_us - now_us : 0);
}

static void
plan_beat(struct weir_sub *s)
{
    struct weir_fanout *f = s->fanout;
    uint64_t due_us = s->said_us + s->config.heartbeat_ms * 1000ull;
    if (s->config.until_ms && s->state == LIVE) {
        uint64_t now_ms = weir_loop_now_ms(f->loop);
        uint64_t left_ms = s->config.until_ms > now_ms ? s->config.until_ms - now_ms : 0;
        uint64_t until_us = weir_loop_now_us(f->loop) + left_ms * 1000;
        if (left_ms <= HEARTBEAT_MS_MAX && until_us < due_us)
            due_us = until_us;
    }
    weir_wheel_put(&f->wheel, &s->beat, due_us);
    if (!weir_timer_is_started(&f->timer) || due_us < f->timer_us)
        arm(f);
}

/* All that arrived before `until_ms` was sent: it is past, and nothing older is on its way to the
 * disk. */
static bool
is_past_until(struct weir_sub *s)
{
    struct weir_log_shard state;
    return s->config.until_ms && weir_loop_now_ms(s->fanout->loop) >= s->config.until_ms &&
           !weir_log_shard_get(s->fanout->log, s->tip->shard->number, &state) &&
           state.assigned == s->next;
}

/* After `next` moved: the end, the tip, or on. */
static void
settle(struct weir_sub *s)
{
    if (s->state == CLOSED)
        return;
    const struct tip *tip = s->tip;
    if (s->config.until_offset && s->next >= s->config.until_offset) {
        stop(s, WEIR_END, s->next);
    } else if (s->next >= tip->shard->end) {
        stop(s, WEIR_OK, tip->shard->end);
    } else if (s->next < tip->tail) {
        if (s->state == LIVE) {
            sub_move(s, CATCHING_UP);
            weir_list_remove(&s->place);
            weir_list_push_back(&s->tip->behind, &s->place);
        }
        if (has_credit(s))
            wake(s);
    } else if (is_past_until(s)) {
        stop(s, WEIR_END, s->next);
    } else if (s->state != LIVE) {
        sub_move(s, LIVE);
        drop_reader(s);
        weir_list_remove(&s->place);
        weir_list_push_back(&s->tip->live, &s->place);
        if (s->config.until_ms)
            plan_beat(s);
    }
}

/* ---- sending ---- */

static uint32_t
age_ms(struct weir_fanout *f, uint64_t at_ms)
{
    uint64_t now_ms = weir_loop_now_ms(f->loop);
    uint64_t age = now_ms > at_ms ? now_ms - at_ms : 1;
    return age < UINT32_MAX ? (uint32_t)age : UINT32_MAX;
}

static uint32_t
lag_ms(struct weir_sub *s, const struct weir_log_shard *state)
{
    if (s->next >= state->next)
        return 0;
    return age_ms(s->fanout,
                  s->waiting_at_ms > state->oldest_at_ms ? s->waiting_at_ms : state->oldest_at_ms);
}

static void
deliver(struct weir_sub *s, const struct weir_delivery *d)
{
    struct weir_fanout *f = s->fanout;
    s->next = d->next;
    s->credit -= (int64_t)d->bytes;
    s->frames--;
    s->sent_records += d->records;
    s->sent_bytes += d->bytes;
    s->sent_us = s->said_us = weir_loop_now_us(f->loop);
    weir_metric_add(f->metrics, WEIR_METRIC_OUTGOING_FRAMES, 1);
    weir_metric_add(f->metrics, WEIR_METRIC_OUTGOING_RECORDS, d->records);
    weir_metric_add(f->metrics, WEIR_METRIC_OUTGOING_BYTES, (int64_t)d->bytes);
    s->config.sink->deliver(s, d);
    settle(s);
}

/* Can it take the whole of the shared frame, as it is? */
static bool
takes_shared(const struct weir_sub *s, const struct weir_run *run)
{
    const struct weir_sub_config *c = &s->config;
    if (!has_credit(s) || s->next != run->first)
        return false;
    if (run->count > 1 && run->bytes > c->frame_bytes)
        return false;
    if ((int64_t)run->bytes > s->credit && !(run->count == 1 && has_whole_window(s)))
        return false;
    if (c->until_offset && run->batch[run->count - 1].first >= c->until_offset)
        return false;
    return !c->until_ms || run->batch[run->count - 1].at_ms < c->until_ms;
}

/* One frame of what became durable, for all that are LIVE. */
static void
send_fresh(struct weir_fanout *f, struct tip *tip)
{
    struct run *fresh = tip->fresh;
    WEIR_ASSERT(fresh && fresh->run.count > 0);
    tip->fresh = NULL;
    weir_list_remove(&tip->fresh_node);
    tip->busy++;

    struct weir_frame_limit limit = {.bytes = UINT64_MAX, .credit = UINT64_MAX};
    struct weir_frame_cut cut;
    weir_frame_cut(&fresh->run, 0, &limit, &cut);
    /* Too little memory to gather small batches: then each reads for itself, in smaller frames. */
    bool whole = cut.to == fresh->run.count;
    cut.delivery.tail = tip->tail;

    struct weir_list todo;
    weir_list_init(&todo);
    for (struct weir_list *node; (node = weir_list_pop_front(&tip->live));)
        weir_list_push_back(&todo, node);
    for (struct weir_list *node; (node = weir_list_pop_front(&todo));) {
        struct weir_sub *s = WEIR_CONTAINER(node, struct weir_sub, place);
        weir_list_push_back(&tip->live, node);
        if (s->next >= fresh->run.limit)
            continue; /* it was sent this while it caught up */
        if (whole && takes_shared(s, &fresh->run)) {
            deliver(s, &cut.delivery);
        } else {
            s->waiting_at_ms = fresh->run.batch[0].at_ms;
            settle(s);
        }
    }

    weir_frame_cut_fini(&cut);
    run_give(f, fresh);
    tip->busy--;
    tip_free_if_unused(f, tip);
}

/* Calls `each` for the list's subscriptions one by one, whatever a sink closes meanwhile. */
static void
for_all(struct weir_list *list, void (*each)(struct weir_sub *s))
{
    struct weir_list todo;
    weir_list_init(&todo);
    for (struct weir_list *node; (node = weir_list_pop_front(list));)
        weir_list_push_back(&todo, node);
    for (struct weir_list *node; (node = weir_list_pop_front(&todo));) {
        weir_list_push_back(list, node);
        each(WEIR_CONTAINER(node, struct weir_sub, place));
    }
}

/* Sends what is fresh, then moves the tail: who is LIVE looks where it stands. */
static void
move_tail(struct weir_fanout *f, struct tip *tip, uint64_t tail)
{
    tip->busy++;
    if (tip->fresh)
        send_fresh(f, tip);
    tip->tail = tail;
    for_all(&tip->live, settle);
    tip->busy--;
    tip_free_if_unused(f, tip);
}

void
weir_fanout_durable(struct weir_fanout *f, const struct weir_batch_info *info,
                    struct weir_slice slice)
{
    const struct shard *shard = weir_map_get(&f->shards, info->shard);
    if (!shard || !shard->tip || info->count == 0)
        return;
    struct tip *tip = shard->tip;
    uint64_t limit = info->offset + info->count;
    if (limit <= tip->tail)
        return; /* the tip was made when the log had it already */
    if (tip->fresh &&
        (tip->fresh->run.limit != info->offset || tip->fresh->run.count == WEIR_RUN_SLICES_MAX ||
         tip->fresh->run.bytes + slice.len > WEIR_FRAME_GATHER_MAX)) {
        send_fresh(f, tip);
        tip = shard->tip; /* its last subscription may have gone */
        if (!tip)
            return;
    }
    if (!tip->fresh && !weir_list_is_empty(&tip->live)) {
        tip->fresh = run_take(f);
        if (!tip->fresh) {
            move_tail(f, tip, limit); /* no memory: they read it from the log */
            return;
        }
    }
    tip->tail = limit;
    if (!tip->fresh)
        return;

    struct weir_run *run = &tip->fresh->run;
    if (run->count == 0)
        run->first = info->offset;
    run->batch[run->count].slice = slice;
    weir_buf_ref(slice.buf);
    run->batch[run->count].first = info->offset;
    run->batch[run->count].at_ms = info->at_ms;
    run->batch[run->count].records = info->count;
    run->count++;
    run->limit = limit;
    run->bytes += slice.len;
    if (!weir_list_is_linked(&tip->fresh_node))
        weir_list_push_back(&f->fresh, &tip->fresh_node);
    weir_loop_post(f->loop, &f->task);
}

/* ---- catching up ---- */

static void
tell_gap(struct weir_sub *s, uint64_t limit, enum weir_status why)
{
    uint64_t first = s->next;
    WEIR_ASSERT(limit > first);
    s->next = limit;
    s->said_us = weir_loop_now_us(s->fanout->loop);
    weir_metric_add(s->fanout->metrics, WEIR_METRIC_GAPS, 1);
    s->config.sink->gap(s, first, limit, why);
    settle(s);
}

static void
on_read(struct weir_read *read, enum weir_status st)
{
    struct reader *r = WEIR_CONTAINER(read, struct reader, read);
    r->reading = false;
    r->status = st;
    if (!r->sub) {
        if (!st)
            weir_run_clear(&read->run);
        reader_free(r);
        return;
    }
    r->ready = true;
    hold(r, (st ? 0 : read->run.bytes) + (r->at < r->run.count ? r->run.bytes : 0));
    if (has_credit(r->sub))
        wake(r->sub);
}

static void
start_read(struct weir_sub *s, uint64_t offset)
{
    struct reader *r = s->reader;
    struct weir_fanout *f = s->fanout;
    uint64_t most = s->config.frame_bytes > READ_BYTES ? s->config.frame_bytes : READ_BYTES;
    uint64_t bytes = s->credit > (int64_t)READ_BYTES_MIN ? (uint64_t)s->credit : READ_BYTES_MIN;
    if (bytes > most)
        bytes = most;
    if (f->held_bytes > HELD_BYTES_MAX)
        bytes = READ_BYTES_MIN;
    r->reading = true;
    r->read = (struct weir_read){
        .shard = s->tip->shard->number,
        .offset = offset,
        .bytes_max = bytes,
        .done = on_read,
    };
    hold(r, r->held + bytes);
    weir_metric_add(f->metrics, WEIR_METRIC_CATCHUP_READS, 1);
    weir_log_read(f->log, &r->read);
}

/* The log said something else than OK at the subscription's position. */
static void
follow(struct weir_sub *s, enum weir_status st, const struct weir_run *run)
{
    switch (st) {
    case WEIR_END:
        /* The log is behind what it told us only where it lost a shard's end; wait for it at the
         * tip. */
        if (s->next < s->tip->tail)
            s->tip->tail = s->next;
        settle(s);
        break;
    case WEIR_TRIMMED:
        if (s->config.fail_if_trimmed)
            stop(s, WEIR_TRIMMED, run->first);
        else
            tell_gap(s, run->first, WEIR_TRIMMED);
        break;
    case WEIR_DAMAGED:
        tell_gap(s, run->limit, WEIR_DAMAGED);
        break;
    case WEIR_NOT_FOUND:
    case WEIR_NO_MEMORY:
        stop(s, st, s->next);
        break;
    default:
        stop(s, WEIR_IO, s->next);
        break;
    }
}

/* Makes r->run one that has batches to send. False: none now (a read is in flight, or the
 * subscription went another way). */
static bool
need_run(struct weir_sub *s, struct reader *r)
{
    struct weir_fanout *f = s->fanout;
    if (r->at < r->run.count)
        return true;
    weir_run_clear(&r->run);
    r->run.count = 0;
    r->at = 0;
    if (r->reading)
        return false;

    if (r->ready) {
        r->ready = false;
        if (!r->status && r->read.run.first <= s->next && s->next < r->read.run.limit) {
            r->run = r->read.run;
            r->read.run.count = 0;
            r->from_journal = true;
            hold(r, r->run.bytes);
            return true;
        }
        hold(r, 0);
        if (!r->status) {
            weir_run_clear(&r->read.run);
        } else if (r->status != WEIR_END && r->status != WEIR_AGAIN && r->read.offset == s->next) {
            follow(s, r->status, &r->read.run);
            return false;
        }
    }

    hold(r, 0);
    r->run.first = r->run.limit = r->run.bytes = 0;
    uint64_t most = s->config.frame_bytes > READ_BYTES ? s->config.frame_bytes : READ_BYTES;
    enum weir_status st =
        weir_log_read_cached(f->log, s->tip->shard->number, s->next, most, &r->run);
    if (!st) {
        WEIR_ASSERT(r->run.count > 0 && r->run.limit > s->next);
        r->from_journal = false;
        hold(r, r->run.bytes);
        return true;
    }
    r->run.count = 0;
    if (st == WEIR_AGAIN)
        start_read(s, s->next);
    else
        follow(s, st, &r->run);
    return false;
}

/* One frame for one that is behind. */
static void
catch_up(struct weir_sub *s)
{
    struct weir_fanout *f = s->fanout;
    struct reader *r = need_reader(s);
    if (!r) {
        stop(s, WEIR_NO_MEMORY, s->next);
        return;
    }
    if (!need_run(s, r))
        return;
    while (r->run.batch[r->at].first + r->run.batch[r->at].records <= s->next)
        r->at++;
    WEIR_ASSERT(r->at < r->run.count);

    struct weir_frame_limit limit = {
        .bytes = s->config.frame_bytes,
        .credit = (uint64_t)s->credit,
        .force = has_whole_window(s),
        .until_offset = s->config.until_offset,
        .until_ms = s->config.until_ms,
    };
    struct weir_frame_cut cut;
    weir_frame_cut(&r->run, r->at, &limit, &cut);
    if (cut.delivery.count == 0) {
        s->waiting_at_ms = r->run.batch[r->at].at_ms;
        if (cut.until)
            stop(s, WEIR_END, s->next);
        else if (f->held_bytes > HELD_BYTES_MAX)
            drop_reader(s); /* it waits for credit, others could use the memory */
        weir_frame_cut_fini(&cut);
        return;
    }

    /* The cut may borrow from the run, which goes with the subscription if the sink closes it. */
    uint32_t from = r->at;
    struct weir_slice kept[WEIR_DELIVERY_SLICES_MAX];
    uint32_t kept_count = cut.delivery.count;
    for (uint32_t i = 0; i < kept_count; i++) {
        kept[i] = cut.delivery.batch[i];
        weir_buf_ref(kept[i].buf);
    }
    r->at = cut.to;
    bool more = r->at < r->run.count;
    s->waiting_at_ms = r->run.batch[more ? r->at : r->at - 1].at_ms;
    cut.delivery.tail = s->tip->tail > cut.delivery.next ? s->tip->tail : cut.delivery.next;
    if (cut.delivery.next < cut.delivery.tail)
        cut.delivery.lag_ms = age_ms(f, s->waiting_at_ms);

    /* The next run is read while this one goes out, where there is credit for some of it. */
    uint64_t left = 0;
    for (uint32_t i = from; i < r->run.count; i++)
        left += r->run.batch[i].slice.len;
    if (r->from_journal && !r->reading && !r->ready && r->run.limit < s->tip->tail &&
        s->credit > (int64_t)left && f->held_bytes <= HELD_BYTES_MAX)
        start_read(s, r->run.limit);

    deliver(s, &cut.delivery);
    for (uint32_t i = 0; i < kept_count; i++)
        weir_buf_unref(kept[i].buf);
    weir_frame_cut_fini(&cut);
}

/* ---- opening ---- */

static void
begin(struct weir_sub *s, enum weir_status st, uint64_t offset, uint64_t tail)
{
    if (st) {
        retire(s);
        s->config.started(s, st, offset, tail);
        return;
    }
    s->next = offset;
    s->said_us = weir_loop_now_us(s->fanout->loop);
    sub_move(s, CATCHING_UP);
    plan_beat(s);
    s->config.started(s, WEIR_OK, offset, tail);
    settle(s);
}

static void
on_found(struct weir_find *find, enum weir_status st)
{
    struct finder *finder = WEIR_CONTAINER(find, struct finder, find);
    struct weir_sub *s = finder->sub;
    uint64_t offset = find->offset;
    free(finder);
    if (!s)
        return;
    s->finder = NULL;
    struct weir_log_shard state = {0};
    if (!st)
        st = weir_log_shard_get(s->fanout->log, s->tip->shard->number, &state);
    begin(s, st, offset, state.next);
}

static void
find_time(struct weir_sub *s)
{
    struct finder *finder = calloc(1, sizeof *finder);
    if (!finder) {
        begin(s, WEIR_NO_MEMORY, 0, 0);
        return;
    }
    finder->sub = s;
    finder->find = (struct weir_find){
        .shard = s->tip->shard->number,
        .at_ms = s->config.at_ms,
        .done = on_found,
    };
    s->finder = finder;
    weir_log_find_time(s->fanout->log, &finder->find);
}

static void
open_turn(struct weir_sub *s)
{
    if (s->finder)
        return;
    struct weir_log_shard state;
    enum weir_status st = weir_log_shard_get(s->fanout->log, s->tip->shard->number, &state);
    if (st) {
        begin(s, st, 0, 0);
        return;
    }
    switch (s->config.start) {
    case WEIR_START_OLDEST:
        begin(s, WEIR_OK, state.oldest, state.next);
        break;
    case WEIR_START_LATEST:
        begin(s, WEIR_OK, s->next, state.next); /* as of weir_sub_open */
        break;
    case WEIR_START_OFFSET:
        if (s->config.offset > state.next)
            begin(s, WEIR_INVALID, s->config.offset, state.next);
        else if (s->config.offset < state.oldest && s->config.fail_if_trimmed)
            begin(s, WEIR_TRIMMED, state.oldest, state.next);
        else
            begin(s, WEIR_OK, s->config.offset, state.next);
        break;
    case WEIR_START_TIME:
        find_time(s);
        break;
    }
}

static struct tip *
need_tip(struct shard *shard, uint64_t tail)
{
    if (shard->tip)
        return shard->tip;
    struct tip *tip = calloc(1, sizeof *tip);
    if (!tip)
        return NULL;
    tip->shard = shard;
    tip->tail = tail;
    weir_list_init(&tip->live);
    weir_list_init(&tip->behind);
    shard->tip = tip;
    return tip;
}

enum weir_status
weir_sub_open(struct weir_fanout *f, const struct weir_sub_config *config, struct weir_sub **out)
{
    WEIR_ASSERT(weir_loop_is_current(f->loop));
    WEIR_ASSERT(config->sink && config->started);
    if (config->credit_bytes > (uint64_t)CREDIT_BYTES_MAX ||
        config->credit_frames > CREDIT_FRAMES_MAX || config->frame_bytes < FRAME_BYTES_MIN ||
        config->frame_bytes > FRAME_BYTES_MAX || config->heartbeat_ms < HEARTBEAT_MS_MIN ||
        config->heartbeat_ms > HEARTBEAT_MS_MAX || config->start > WEIR_START_TIME)
        return WEIR_INVALID;
    struct shard *shard = weir_map_get(&f->shards, config->shard);
    struct weir_log_shard state;
    if (!shard || weir_log_shard_get(f->log, config->shard, &state))
        return WEIR_NOT_FOUND;

    size_t name_len = config->consumer ? strnlen(config->consumer, WEIR_CONSUMER_NAME_MAX) : 0;
    struct weir_sub *s = calloc(1, sizeof *s + name_len + 1);
    struct tip *tip = s ? need_tip(shard, state.next) : NULL;
    if (!tip) {
        free(s);
        return WEIR_NO_MEMORY;
    }
    s->fanout = f;
    s->tip = tip;
    s->config = *config;
    if (config->consumer) {
        memcpy(s->consumer, config->consumer, name_len);
        s->config.consumer = s->consumer;
    }
    s->credit = s->window = (int64_t)config->credit_bytes;
    s->frames = config->credit_frames;
    s->next = state.next;
    tip->count++;
    weir_list_push_back(&tip->behind, &s->place);
    weir_list_push_back(&f->subs, &s->node);
    weir_metric_add(f->metrics, WEIR_METRIC_SUBSCRIPTIONS, 1);
    wake(s);
    *out = s;
    return WEIR_OK;
}

void
weir_sub_close(struct weir_sub *s)
{
    if (!s)
        return;
    struct weir_fanout *f = s->fanout;
    WEIR_ASSERT(weir_loop_is_current(f->loop));
    if (s->state != CLOSED)
        retire(s);
    weir_list_remove(&s->node);
    weir_list_push_back(&f->closed, &s->node);
    weir_loop_post(f->loop, &f->task);
}

void *
weir_sub_owner(const struct weir_sub *s)
{
    return s->config.owner;
}

enum weir_status
weir_sub_credit(struct weir_sub *s, uint64_t bytes, uint32_t frames)
{
    WEIR_ASSERT(weir_loop_is_current(s->fanout->loop));
    if (bytes > (uint64_t)CREDIT_BYTES_MAX || s->credit + (int64_t)bytes > CREDIT_BYTES_MAX ||
        frames > CREDIT_FRAMES_MAX || s->frames + frames > CREDIT_FRAMES_MAX)
        return WEIR_INVALID;
    s->credit += (int64_t)bytes;
    s->frames += frames;
    if (s->state == CATCHING_UP && has_credit(s))
        wake(s);
    return WEIR_OK;
}

/* ---- the owner's task and timer ---- */

static void
take_turn(struct weir_sub *s)
{
    if (s->state == OPENING)
        open_turn(s);
    else if (s->state == CATCHING_UP && has_credit(s))
        catch_up(s);
}

static void
run_task(struct weir_task *task)
{
    struct weir_fanout *f = WEIR_CONTAINER(task, struct weir_fanout, task);
    for (struct weir_list *node; (node = weir_list_pop_front(&f->fresh));)
        send_fresh(f, WEIR_CONTAINER(node, struct tip, fresh_node));
    for (int i = 0; i < TURNS_PER_TASK && !weir_list_is_empty(&f->turns); i++)
        take_turn(WEIR_CONTAINER(weir_list_pop_front(&f->turns), struct weir_sub, turn));
    for (struct weir_list *node; (node = weir_list_pop_front(&f->closed));)
        free(WEIR_CONTAINER(node, struct weir_sub, node));
    if (!weir_list_is_empty(&f->turns))
        weir_loop_post(f->loop, &f->task);
}

static void
beat(struct weir_sub *s)
{
    struct weir_fanout *f = s->fanout;
    uint64_t now_us = weir_loop_now_us(f->loop);
    if (s->state == LIVE && is_past_until(s)) {
        stop(s, WEIR_END, s->next);
        return;
    }
    if (now_us < s->said_us + s->config.heartbeat_ms * 1000ull) {
        plan_beat(s);
        return;
    }
    /* Nothing went out for a whole heartbeat and nothing is on its way: it waits for credit, and
     * costs a position from here on. */
    if (s->reader && !s->reader->reading && !weir_list_is_linked(&s->turn))
        drop_reader(s);
    struct weir_log_shard state;
    if (weir_log_shard_get(f->log, s->tip->shard->number, &state)) {
        stop(s, WEIR_NOT_FOUND, s->next);
        return;
    }
    s->said_us = now_us;
    plan_beat(s);
    s->config.sink->heartbeat(s, s->next, state.next, lag_ms(s, &state));
}

static void
run_timer(struct weir_timer *timer)
{
    struct weir_fanout *f = WEIR_CONTAINER(timer, struct weir_fanout, timer);
    struct weir_list due;
    weir_list_init(&due);
    weir_wheel_take_due(&f->wheel, weir_loop_now_us(f->loop), &due);
    for (struct weir_list *node; (node = weir_list_pop_front(&due));)
        beat(WEIR_CONTAINER(node, struct weir_sub, beat));
    arm(f);
}

/* ---- the log's and the catalog's news ---- */

static void
stop_gone(struct weir_sub *s)
{
    if (s->state == OPENING)
        begin(s, WEIR_NOT_FOUND, 0, 0);
    else
        stop(s, WEIR_NOT_FOUND, s->next);
}

void
weir_fanout_gap(struct weir_fanout *f, uint64_t number, uint64_t first, uint64_t limit,
                enum weir_status why)
{
    (void)first;
    (void)why;
    /* Who is behind is told by the log when it gets there, and has credit: a stalled consumer must
     * not be sent a line for each trim. What is left is a gap at the very end, which no batch would
     * show. */
    struct shard *shard = weir_map_get(&f->shards, number);
    if (!shard || !shard->tip || limit <= shard->tip->tail)
        return;
    move_tail(f, shard->tip, limit);
}

void
weir_fanout_end_shard(struct weir_fanout *f, uint64_t number, uint64_t end)
{
    WEIR_ASSERT(weir_loop_is_current(f->loop));
    struct shard *shard = weir_map_get(&f->shards, number);
    if (!shard)
        return;
    shard->end = end;
    if (shard->tip)
        move_tail(f, shard->tip, shard->tip->tail);
}

void
weir_fanout_drop_shard(struct weir_fanout *f, uint64_t number)
{
    WEIR_ASSERT(weir_loop_is_current(f->loop));
    struct shard *shard = weir_map_take(&f->shards, number);
    if (!shard)
        return;
    struct tip *tip = shard->tip;
    if (tip) {
        tip->busy++;
        for_all(&tip->live, stop_gone);
        for_all(&tip->behind, stop_gone);
        tip->busy--;
        tip_free_if_unused(f, tip);
    }
    WEIR_ASSERT(!shard->tip);
    free(shard);
}

void
weir_fanout_each(struct weir_fanout *f, void (*each)(void *arg, const struct weir_sub_stat *s),
                 void *arg)
{
    WEIR_ASSERT(weir_loop_is_current(f->loop));
    uint64_t now_ms = weir_loop_now_ms(f->loop), now_us = weir_loop_now_us(f->loop);
    WEIR_LIST_FOR_EACH (node, &f->subs) {
        struct weir_sub *s = WEIR_CONTAINER(node, struct weir_sub, node);
        struct weir_log_shard state;
        if (s->state == CLOSED || weir_log_shard_get(f->log, s->config.shard, &state))
            continue;
        struct weir_sub_stat stat = {
            .shard = s->config.shard,
            .next = s->next,
            .tail = state.next,
            .credit_bytes = s->credit > 0 ? (uint64_t)s->credit : 0,
            .sent_records = s->sent_records,
            .sent_bytes = s->sent_bytes,
            .last_sent_ms = s->sent_us ? now_ms - (now_us - s->sent_us) / 1000 : 0,
            .consumer = s->config.consumer,
            .live = s->state == LIVE,
        };
        if (s->state != OPENING && s->next < state.next) {
            stat.lag_records = state.next - s->next;
            stat.lag_ms = lag_ms(s, &state);
            /* The log counts bytes per shard: taken as evenly spread. */
            uint64_t there = state.next - state.oldest;
            uint64_t ours = stat.lag_records < there ? stat.lag_records : there;
            if (there > 0)
                stat.lag_bytes = (uint64_t)((double)state.bytes * (double)ours / (double)there);
        }
        each(arg, &stat);
    }
}
