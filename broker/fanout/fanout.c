/* How a batch gets to the subscribers at the tip:
 *
 *   1. the log says it is durable; it joins the shard's `fresh` run; the owner's task is posted
 * once
 *   2. the task cuts one frame of all that became fresh (a commit group, mostly) and hands it to
 *      every LIVE subscription: a reference each
 *   3. who cannot take it (no credit, smaller frames) is no longer LIVE: it keeps its position, no
 *      bytes
 *
 * A sink may close any subscription from inside a call. So what it may close is taken out of lists
 * one by one, never walked; closed subscriptions are freed by the task, when no sink is on the
 * stack. */
#include "fanout/inside.h"
#include <stdlib.h>

/* Turns before others on the loop get theirs. */
#define TURNS_PER_TASK 16

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
    weir_list_init(&f->finders);
    weir_wheel_init(&f->wheel, weir_loop_now_us(loop));
    *out = f;
    return WEIR_OK;
}

void
weir_fanout_free(struct weir_fanout *f)
{
    if (!f)
        return;
    WEIR_LIST_FOR_EACH_SAFE (node, &f->readers) {
        struct weir_reader *r = WEIR_CONTAINER(node, struct weir_reader, node);
        weir_run_clear(&r->run);
        weir_run_clear(&r->read.run);
        free(r);
    }
    WEIR_LIST_FOR_EACH_SAFE (node, &f->finders)
        free(WEIR_CONTAINER(node, struct weir_finder, node));
    WEIR_LIST_FOR_EACH_SAFE (node, &f->subs)
        free(WEIR_CONTAINER(node, struct weir_sub, node));
    WEIR_LIST_FOR_EACH_SAFE (node, &f->closed)
        free(WEIR_CONTAINER(node, struct weir_sub, node));
    for (struct weir_reader *r; (r = f->spare); free(r))
        f->spare = r->next;
    for (struct weir_fresh *r; (r = f->spare_run); free(r))
        f->spare_run = r->next;
    size_t cursor = 0;
    for (struct weir_fanout_shard *shard; (shard = weir_map_next(&f->shards, &cursor));
         free(shard)) {
        if (!shard->tip)
            continue;
        if (shard->tip->fresh)
            weir_run_clear(&shard->tip->fresh->run);
        free(shard->tip->fresh);
        free(shard->tip);
    }
    weir_map_fini(&f->shards);
    free(f);
}

enum weir_status
weir_fanout_add_shard(struct weir_fanout *f, uint64_t number)
{
    WEIR_ASSERT(weir_loop_is_current(f->loop));
    struct weir_fanout_shard *shard = malloc(sizeof *shard);
    if (!shard)
        return WEIR_NO_MEMORY;
    *shard = (struct weir_fanout_shard){.number = number, .end = UINT64_MAX};
    enum weir_status st = weir_map_put(&f->shards, number, shard);
    if (st)
        free(shard);
    return st;
}

static struct weir_fresh *
run_take(struct weir_fanout *f)
{
    struct weir_fresh *r = f->spare_run;
    if (!r)
        return calloc(1, sizeof *r);
    f->spare_run = r->next;
    f->spare_run_count--;
    return r;
}

static void
run_give(struct weir_fanout *f, struct weir_fresh *r)
{
    weir_run_clear(&r->run);
    r->run.count = 0;
    r->run.bytes = 0;
    if (f->spare_run_count == WEIR_FANOUT_SPARES_MAX) {
        free(r);
        return;
    }
    r->next = f->spare_run;
    f->spare_run = r;
    f->spare_run_count++;
}

static void
tip_forget_fresh(struct weir_fanout *f, struct weir_tip *tip)
{
    weir_list_remove(&tip->fresh_node);
    if (tip->fresh)
        run_give(f, tip->fresh);
    tip->fresh = NULL;
}

void
weir_tip_free_if_unused(struct weir_fanout *f, struct weir_tip *tip)
{
    if (tip->count > 0 || tip->busy > 0)
        return;
    tip_forget_fresh(f, tip);
    tip->shard->tip = NULL;
    free(tip);
}

void
weir_fanout_arm(struct weir_fanout *f)
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

/* ---- sending ---- */

/* Can it take the whole of the shared frame, as it is? */
static bool
takes_shared(const struct weir_sub *s, const struct weir_run *run)
{
    const struct weir_sub_config *c = &s->config;
    if (!weir_sub_has_credit(s) || s->next != run->first)
        return false;
    if (run->count > 1 && run->bytes > c->frame_bytes)
        return false;
    if ((int64_t)run->bytes > s->credit && !(run->count == 1 && weir_sub_has_whole_window(s)))
        return false;
    if (c->until_offset && run->batch[run->count - 1].first >= c->until_offset)
        return false;
    return !c->until_ms || run->batch[run->count - 1].at_ms < c->until_ms;
}

/* One frame of what became durable, for all that are LIVE. */
static void
send_fresh(struct weir_fanout *f, struct weir_tip *tip)
{
    struct weir_fresh *fresh = tip->fresh;
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
            weir_sub_deliver(s, &cut.delivery);
        } else {
            s->waiting_at_ms = fresh->run.batch[0].at_ms;
            weir_sub_settle(s);
        }
    }

    weir_frame_cut_fini(&cut);
    run_give(f, fresh);
    tip->busy--;
    weir_tip_free_if_unused(f, tip);
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
move_tail(struct weir_fanout *f, struct weir_tip *tip, uint64_t tail)
{
    tip->busy++;
    if (tip->fresh)
        send_fresh(f, tip);
    tip->tail = tail;
    for_all(&tip->live, weir_sub_settle);
    tip->busy--;
    weir_tip_free_if_unused(f, tip);
}

void
weir_fanout_durable(struct weir_fanout *f, const struct weir_batch_info *info,
                    struct weir_slice slice)
{
    const struct weir_fanout_shard *shard = weir_map_get(&f->shards, info->shard);
    if (!shard || !shard->tip || info->count == 0)
        return;
    struct weir_tip *tip = shard->tip;
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

/* ---- the owner's task and timer ---- */

static void
take_turn(struct weir_sub *s)
{
    if (s->state == WEIR_SUB_OPENING)
        weir_sub_open_turn(s);
    else if (s->state == WEIR_SUB_CATCHING_UP && weir_sub_has_credit(s))
        weir_sub_catch_up(s);
}

static void
run_task(struct weir_task *task)
{
    struct weir_fanout *f = WEIR_CONTAINER(task, struct weir_fanout, task);
    for (struct weir_list *node; (node = weir_list_pop_front(&f->fresh));)
        send_fresh(f, WEIR_CONTAINER(node, struct weir_tip, fresh_node));
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
    if (s->state == WEIR_SUB_LIVE && weir_sub_is_past_until(s)) {
        weir_sub_stop(s, WEIR_END, s->next);
        return;
    }
    if (now_us < s->said_us + s->config.heartbeat_ms * 1000ull) {
        weir_sub_plan_beat(s);
        return;
    }
    /* Nothing went out for a whole heartbeat and nothing is on its way: it waits for credit, and
     * costs a position from here on. */
    if (s->reader && !s->reader->reading && !weir_list_is_linked(&s->turn))
        weir_sub_drop_reader(s);
    struct weir_log_shard state;
    if (weir_log_shard_get(f->log, s->tip->shard->number, &state)) {
        weir_sub_stop(s, WEIR_NOT_FOUND, s->next);
        return;
    }
    s->said_us = now_us;
    weir_sub_plan_beat(s);
    s->config.sink->heartbeat(s, s->next, state.next, weir_sub_lag_ms(s, &state));
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
    weir_fanout_arm(f);
}

/* ---- the log's and the catalog's news ---- */

static void
stop_gone(struct weir_sub *s)
{
    if (s->state == WEIR_SUB_OPENING)
        weir_sub_begin(s, WEIR_NOT_FOUND, 0, 0);
    else
        weir_sub_stop(s, WEIR_NOT_FOUND, s->next);
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
    struct weir_fanout_shard *shard = weir_map_get(&f->shards, number);
    if (!shard || !shard->tip || limit <= shard->tip->tail)
        return;
    move_tail(f, shard->tip, limit);
}

void
weir_fanout_end_shard(struct weir_fanout *f, uint64_t number, uint64_t end)
{
    WEIR_ASSERT(weir_loop_is_current(f->loop));
    struct weir_fanout_shard *shard = weir_map_get(&f->shards, number);
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
    struct weir_fanout_shard *shard = weir_map_take(&f->shards, number);
    if (!shard)
        return;
    struct weir_tip *tip = shard->tip;
    if (tip) {
        tip->busy++;
        for_all(&tip->live, stop_gone);
        for_all(&tip->behind, stop_gone);
        tip->busy--;
        weir_tip_free_if_unused(f, tip);
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
        if (s->state == WEIR_SUB_CLOSED || weir_log_shard_get(f->log, s->config.shard, &state))
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
            .live = s->state == WEIR_SUB_LIVE,
        };
        if (s->state != WEIR_SUB_OPENING && s->next < state.next) {
            stat.lag_records = state.next - s->next;
            stat.lag_ms = weir_sub_lag_ms(s, &state);
            /* The log counts bytes per shard: taken as evenly spread. */
            uint64_t there = state.next - state.oldest;
            uint64_t ours = stat.lag_records < there ? stat.lag_records : there;
            if (there > 0)
                stat.lag_bytes = (uint64_t)((double)state.bytes * (double)ours / (double)there);
        }
        each(arg, &stat);
    }
}
