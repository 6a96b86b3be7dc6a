/* Checkpoints of a subscription: at once, or later with the newest winning. */
#include "client/subscription.h"
#include <stdio.h>

enum {
    LATER_RETRY_US = 200 * 1000,
};

/* ---- checkpoints ---- */

static enum weir_status
set_checkpoint_request(struct weir_subscription *s, struct weir_cursor *cursor, uint64_t offset,
                       Weir__SetCheckpoint *op, Weir__Request *request)
{
    weir__set_checkpoint__init(op);
    weir__request__init(request);
    op->stream = s->stream;
    op->consumer = s->consumer;
    op->shard = cursor->shard;
    op->offset = offset;
    pthread_mutex_lock(&s->mtx);
    op->epoch = cursor->token;
    op->shard_end = cursor->is_ended && offset == cursor->end;
    pthread_mutex_unlock(&s->mtx);
    request->op_case = WEIR__REQUEST__OP_SET_CHECKPOINT;
    request->set_checkpoint = op;
    /* A zero token would be an operator's set, which takes the shard from its owner. */
    return s->options.take_checkpoint && !op->epoch ? WEIR_AGAIN : WEIR_OK;
}

static void
on_fence(void *arg)
{
    weir_cursor_fenced(arg);
}

static struct weir_cursor *
locked_cursor(struct weir_subscription *s, uint32_t shard)
{
    pthread_mutex_lock(&s->mtx);
    struct weir_cursor *cursor = weir_cursor_find(s, shard);
    pthread_mutex_unlock(&s->mtx);
    return cursor;
}

enum weir_status
weir_checkpoint(struct weir_subscription *s, uint32_t shard, uint64_t offset,
                struct weir_error *err)
{
    if (!s->consumer[0])
        return weir_fail(err, WEIR_INVALID, "the subscription has no consumer's name");
    struct weir_cursor *cursor = locked_cursor(s, shard);
    if (!cursor)
        return weir_fail(err, WEIR_NOT_FOUND, "shard %u is not of this subscription", shard);
    Weir__SetCheckpoint op;
    Weir__Request request;
    if (set_checkpoint_request(s, cursor, offset, &op, &request))
        return weir_fail(err, WEIR_AGAIN, "the checkpoint of shard %u is not taken yet", shard);
    enum weir_status st = weir_call_wait(s->client, &request, WEIR_CALL_AGAIN, NULL, err);
    if (st == WEIR_FENCED)
        weir_client_run(s->client, on_fence, cursor);
    return st ? weir_fail_in(err, st, "cannot set the checkpoint of '%s' in shard %u of '%s'",
                             s->consumer, shard, s->stream)
              : st;
}

static void
on_later(struct weir_call *call, enum weir_status st, Weir__Reply *reply, const char *text)
{
    struct weir_cursor *cursor = WEIR_CONTAINER(call, struct weir_cursor, later_call);
    struct weir_subscription *s = cursor->sub;
    bool again = false;
    pthread_mutex_lock(&s->mtx);
    cursor->later_runs = false;
    s->laters_running--;
    if (st && st != WEIR_FENCED && !weir_status_retryable(st) && st != WEIR_TIMEOUT) {
        (void)weir_fail(&s->later_failure, st,
                        "cannot set the checkpoint of '%s' in shard %u of '%s': %s", s->consumer,
                        cursor->shard, s->stream, text);
        weir_subscription_wake(s);
    } else if (st && st != WEIR_FENCED) {
        cursor->later_waits = true; /* the same again, where no newer one came */
        again = true;
    }
    if (cursor->later_waits && !weir_list_is_linked(&cursor->later))
        weir_list_push_back(&s->laters, &cursor->later);
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->mtx);
    if (reply)
        weir_message_free(&reply->base);
    if (st == WEIR_FENCED)
        weir_cursor_fenced(cursor);
    if (again)
        weir_timer_start(s->client->loop, &s->later_timer, LATER_RETRY_US);
    else
        weir_subscription_run_laters(s);
}

void
weir_subscription_on_later_timer(struct weir_timer *timer)
{
    weir_subscription_run_laters(WEIR_CONTAINER(timer, struct weir_subscription, later_timer));
}

/* Sends the checkpoints that wait, one per shard at a time. */
void
weir_subscription_run_laters(struct weir_subscription *s)
{
    if (!weir_client_is_up(s->client) || weir_timer_is_started(&s->later_timer))
        return;
    for (;;) {
        pthread_mutex_lock(&s->mtx);
        struct weir_list *node = weir_list_pop_front(&s->laters);
        struct weir_cursor *cursor = node ? WEIR_CONTAINER(node, struct weir_cursor, later) : NULL;
        uint64_t offset = 0;
        bool runs = cursor && cursor->later_waits && !cursor->later_runs;
        if (runs) {
            cursor->later_waits = false;
            cursor->later_runs = true;
            s->laters_running++;
            offset = cursor->later_offset;
        }
        pthread_mutex_unlock(&s->mtx);
        if (!cursor)
            return;
        if (!runs)
            continue;
        Weir__SetCheckpoint op;
        Weir__Request request;
        (void)set_checkpoint_request(s, cursor, offset, &op, &request);
        cursor->later_call.mode = WEIR_CALL_AGAIN;
        cursor->later_call.done = on_later;
        weir_call_start(s->client, &cursor->later_call, &request, WEIR_CALL_TIMEOUT_MS);
    }
}

void
weir_checkpoint_later(struct weir_subscription *s, uint32_t shard, uint64_t offset)
{
    pthread_mutex_lock(&s->mtx);
    struct weir_cursor *cursor = weir_cursor_find(s, shard);
    bool can = cursor && s->consumer[0] && (cursor->token || !s->options.take_checkpoint);
    if (can) {
        cursor->later_offset = offset;
        cursor->later_waits = true;
        if (!cursor->later_runs && !weir_list_is_linked(&cursor->later))
            weir_list_push_back(&s->laters, &cursor->later);
        weir_loop_post(s->client->loop, &s->task);
    } else {
        (void)weir_fail(&s->later_failure, WEIR_INVALID,
                        "shard %u of '%s' has no checkpoint of this subscription", shard,
                        s->stream);
        weir_subscription_wake(s);
    }
    pthread_mutex_unlock(&s->mtx);
}
