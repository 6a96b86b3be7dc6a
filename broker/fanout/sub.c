#include "fanout/inside.h"
#include <stdlib.h>
#include <string.h>

#define CREDIT_BYTES_MAX ((int64_t)WEIR_GIB)
#define CREDIT_FRAMES_MAX 1000000u
#define FRAME_BYTES_MIN (4 * WEIR_KIB)
#define FRAME_BYTES_MAX (4 * WEIR_MIB)
#define HEARTBEAT_MS_MIN 100
static_assert(FRAME_BYTES_MAX <= WEIR_FRAME_BYTES_MAX, "an aim must be a legal frame");

#define TO(state) (1u << (state))
static const uint8_t sub_next[] = {
    [WEIR_SUB_OPENING] = TO(WEIR_SUB_CATCHING_UP) | TO(WEIR_SUB_CLOSED),
    [WEIR_SUB_CATCHING_UP] = TO(WEIR_SUB_LIVE) | TO(WEIR_SUB_CLOSED),
    [WEIR_SUB_LIVE] = TO(WEIR_SUB_CATCHING_UP) | TO(WEIR_SUB_CLOSED),
    [WEIR_SUB_CLOSED] = 0,
};

static void
sub_move(struct weir_sub *s, enum weir_sub_state to)
{
    WEIR_ASSERT(sub_next[s->state] & TO(to));
    s->state = to;
}

/* CLOSED: takes it out of everything but fanout->subs. */
static void
retire(struct weir_sub *s)
{
    struct weir_fanout *f = s->fanout;
    struct weir_tip *tip = s->tip;
    sub_move(s, WEIR_SUB_CLOSED);
    weir_list_remove(&s->place);
    weir_list_remove(&s->turn);
    weir_list_remove(&s->beat);
    weir_sub_drop_reader(s);
    if (s->finder)
        s->finder->sub = NULL;
    s->finder = NULL;
    s->tip = NULL;
    tip->count--;
    weir_tip_free_if_unused(f, tip);
    weir_metric_add(f->metrics, WEIR_METRIC_SUBSCRIPTIONS, -1);
}

void
weir_sub_wake(struct weir_sub *s)
{
    if (weir_list_is_linked(&s->turn))
        return;
    weir_list_push_back(&s->fanout->turns, &s->turn);
    weir_loop_post(s->fanout->loop, &s->fanout->task);
}

void
weir_sub_stop(struct weir_sub *s, enum weir_status why, uint64_t offset)
{
    retire(s);
    s->config.sink->stopped(s, why, offset);
}

void
weir_sub_plan_beat(struct weir_sub *s)
{
    struct weir_fanout *f = s->fanout;
    uint64_t due_us = s->said_us + s->config.heartbeat_ms * 1000ull;
    if (s->config.until_ms && s->state == WEIR_SUB_LIVE) {
        uint64_t now_ms = weir_loop_now_ms(f->loop);
        uint64_t left_ms = s->config.until_ms > now_ms ? s->config.until_ms - now_ms : 0;
        uint64_t until_us = weir_loop_now_us(f->loop) + left_ms * 1000;
        if (left_ms <= WEIR_HEARTBEAT_MS_MAX && until_us < due_us)
            due_us = until_us;
    }
    weir_wheel_put(&f->wheel, &s->beat, due_us);
    if (!weir_timer_is_started(&f->timer) || due_us < f->timer_us)
        weir_fanout_arm(f);
}

bool
weir_sub_is_past_until(struct weir_sub *s)
{
    struct weir_log_shard state;
    return s->config.until_ms && weir_loop_now_ms(s->fanout->loop) >= s->config.until_ms &&
           !weir_log_shard_get(s->fanout->log, s->tip->shard->number, &state) &&
           state.assigned == s->next;
}

void
weir_sub_settle(struct weir_sub *s)
{
    if (s->state == WEIR_SUB_CLOSED)
        return;
    const struct weir_tip *tip = s->tip;
    if (s->config.until_offset && s->next >= s->config.until_offset) {
        weir_sub_stop(s, WEIR_END, s->next);
    } else if (s->next >= tip->shard->end) {
        weir_sub_stop(s, WEIR_OK, tip->shard->end);
    } else if (s->next < tip->tail) {
        if (s->state == WEIR_SUB_LIVE) {
            sub_move(s, WEIR_SUB_CATCHING_UP);
            weir_list_remove(&s->place);
            weir_list_push_back(&s->tip->behind, &s->place);
        }
        if (weir_sub_has_credit(s))
            weir_sub_wake(s);
    } else if (weir_sub_is_past_until(s)) {
        weir_sub_stop(s, WEIR_END, s->next);
    } else if (s->state != WEIR_SUB_LIVE) {
        sub_move(s, WEIR_SUB_LIVE);
        weir_sub_drop_reader(s);
        weir_list_remove(&s->place);
        weir_list_push_back(&s->tip->live, &s->place);
        if (s->config.until_ms)
            weir_sub_plan_beat(s);
    }
}

uint32_t
weir_fanout_age_ms(struct weir_fanout *f, uint64_t at_ms)
{
    uint64_t now_ms = weir_loop_now_ms(f->loop);
    uint64_t age = now_ms > at_ms ? now_ms - at_ms : 1;
    return age < UINT32_MAX ? (uint32_t)age : UINT32_MAX;
}

uint32_t
weir_sub_lag_ms(struct weir_sub *s, const struct weir_log_shard *state)
{
    if (s->next >= state->next)
        return 0;
    return weir_fanout_age_ms(
        s->fanout, s->waiting_at_ms > state->oldest_at_ms ? s->waiting_at_ms : state->oldest_at_ms);
}

void
weir_sub_deliver(struct weir_sub *s, const struct weir_delivery *d)
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
    weir_sub_settle(s);
}

void
weir_sub_begin(struct weir_sub *s, enum weir_status st, uint64_t offset, uint64_t tail)
{
    if (st) {
        retire(s);
        s->config.started(s, st, offset, tail);
        return;
    }
    s->next = offset;
    s->said_us = weir_loop_now_us(s->fanout->loop);
    sub_move(s, WEIR_SUB_CATCHING_UP);
    weir_sub_plan_beat(s);
    s->config.started(s, WEIR_OK, offset, tail);
    weir_sub_settle(s);
}

static void
on_found(struct weir_find *find, enum weir_status st)
{
    struct weir_finder *finder = WEIR_CONTAINER(find, struct weir_finder, find);
    struct weir_sub *s = finder->sub;
    uint64_t offset = find->offset;
    weir_list_remove(&finder->node);
    free(finder);
    if (!s)
        return;
    s->finder = NULL;
    struct weir_log_shard state = {0};
    if (!st)
        st = weir_log_shard_get(s->fanout->log, s->tip->shard->number, &state);
    weir_sub_begin(s, st, offset, state.next);
}

static void
find_time(struct weir_sub *s)
{
    struct weir_finder *finder = calloc(1, sizeof *finder);
    if (!finder) {
        weir_sub_begin(s, WEIR_NO_MEMORY, 0, 0);
        return;
    }
    finder->sub = s;
    finder->find = (struct weir_find){
        .shard = s->tip->shard->number,
        .at_ms = s->config.at_ms,
        .done = on_found,
    };
    s->finder = finder;
    weir_list_push_back(&s->fanout->finders, &finder->node);
    weir_log_find_time(s->fanout->log, &finder->find);
}

void
weir_sub_open_turn(struct weir_sub *s)
{
    if (s->finder)
        return;
    struct weir_log_shard state;
    enum weir_status st = weir_log_shard_get(s->fanout->log, s->tip->shard->number, &state);
    if (st) {
        weir_sub_begin(s, st, 0, 0);
        return;
    }
    switch (s->config.start) {
    case WEIR_START_OLDEST:
        weir_sub_begin(s, WEIR_OK, state.oldest, state.next);
        break;
    case WEIR_START_LATEST:
        weir_sub_begin(s, WEIR_OK, s->next, state.next); /* as of weir_sub_open */
        break;
    case WEIR_START_OFFSET:
        if (s->config.offset > state.next)
            weir_sub_begin(s, WEIR_INVALID, s->config.offset, state.next);
        else if (s->config.offset < state.oldest && s->config.fail_if_trimmed)
            weir_sub_begin(s, WEIR_TRIMMED, state.oldest, state.next);
        else
            weir_sub_begin(s, WEIR_OK, s->config.offset, state.next);
        break;
    case WEIR_START_TIME:
        find_time(s);
        break;
    }
}

static struct weir_tip *
need_tip(struct weir_fanout_shard *shard, uint64_t tail)
{
    if (shard->tip)
        return shard->tip;
    struct weir_tip *tip = calloc(1, sizeof *tip);
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
        config->heartbeat_ms > WEIR_HEARTBEAT_MS_MAX || config->start > WEIR_START_TIME)
        return WEIR_INVALID;
    struct weir_fanout_shard *shard = weir_map_get(&f->shards, config->shard);
    struct weir_log_shard state;
    if (!shard || weir_log_shard_get(f->log, config->shard, &state))
        return WEIR_NOT_FOUND;

    size_t name_len = config->consumer ? strnlen(config->consumer, WEIR_CONSUMER_NAME_MAX) : 0;
    struct weir_sub *s = calloc(1, sizeof *s + name_len + 1);
    struct weir_tip *tip = s ? need_tip(shard, state.next) : NULL;
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
    weir_sub_wake(s);
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
    if (s->state != WEIR_SUB_CLOSED)
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
    if (s->state == WEIR_SUB_CATCHING_UP && weir_sub_has_credit(s))
        weir_sub_wake(s);
    return WEIR_OK;
}
