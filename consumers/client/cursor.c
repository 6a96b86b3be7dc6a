/* One shard of a subscription: asking for it, checking what comes, giving credit. */
#include "client/subscription.h"
#include <stdio.h>
#include <stdlib.h>

enum {
    CREDIT_DEFAULT = 8 * 1024 * 1024,
    CREDIT_TOTAL = 32 * 1024 * 1024,
    CREDIT_MIN = 16 * 1024,
    CREDIT_FRAMES = 1024,
    CREDIT_DELAY_US = 5 * 1000, /* small returns are gathered this long */
    RETRY_BASE_US = 20 * 1000,
    RETRY_LIMIT_US = 2 * 1000 * 1000,
    STRIKES_MAX = 5, /* misfits at one position; then the subscription ends with DAMAGED */
};

/* ---- cursors ---- */

struct weir_cursor *
weir_cursor_find(const struct weir_subscription *s, int64_t shard)
{
    size_t low = 0, high = s->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (s->cursors[middle]->shard == shard)
            return s->cursors[middle];
        if (s->cursors[middle]->shard < shard)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

static void on_frame(struct weir_channel *channel, const struct weir_frame *f,
                     struct weir_buf *message);
static void on_retry(struct weir_timer *timer);
static void on_credit_timer(struct weir_timer *timer);

/* NULL: no memory, and the subscription is over. */
struct weir_cursor *
weir_cursor_add(struct weir_subscription *s, uint32_t shard)
{
    struct weir_cursor *cursor = calloc(1, sizeof *cursor);
    if (cursor) {
        cursor->channel.frame = on_frame;
        cursor->sub = s;
        cursor->shard = shard;
        cursor->parents[0] = cursor->parents[1] = -1;
        /* By default all of it, or what is left of it where this consumer was here before. */
        cursor->kind =
            s->options.from.kind == WEIR_FROM_CHECKPOINT ? WEIR_FROM_CHECKPOINT : WEIR_FROM_OLDEST;
        cursor->otherwise = WEIR_FROM_OLDEST;
        cursor->retry.run = on_retry;
        cursor->credit_timer.run = on_credit_timer;
    }
    pthread_mutex_lock(&s->mtx);
    if (cursor && s->count == s->capacity) {
        size_t capacity = s->capacity ? 2 * s->capacity : 8;
        struct weir_cursor **cursors = realloc(s->cursors, capacity * sizeof(struct weir_cursor *));
        if (cursors) {
            s->cursors = cursors;
            s->capacity = capacity;
        } else {
            free(cursor);
            cursor = NULL;
        }
    }
    if (cursor) {
        size_t at = s->count++;
        for (; at && s->cursors[at - 1]->shard > shard; at--)
            s->cursors[at] = s->cursors[at - 1];
        s->cursors[at] = cursor;
    }
    pthread_mutex_unlock(&s->mtx);
    if (!cursor)
        weir_subscription_end(s, WEIR_NO_MEMORY, "no memory for a shard");
    return cursor;
}

bool
weir_cursor_is_running(const struct weir_cursor *cursor)
{
    return cursor->state >= CURSOR_READY && cursor->state <= CURSOR_LIVE;
}

/* Starts what waits and whose parents ended; ends the subscription when nothing runs any more. */
void
weir_subscription_advance(struct weir_subscription *s)
{
    bool runs = false, is_fenced = false;
    for (size_t i = 0; i < s->count; i++) {
        struct weir_cursor *cursor = s->cursors[i];
        if (cursor->state == CURSOR_WAITING) {
            bool free_to_go = true;
            for (int k = 0; k < 2; k++) {
                struct weir_cursor *parent = weir_cursor_find(s, cursor->parents[k]);
                free_to_go &= !parent || parent->state == CURSOR_ENDED;
            }
            if (free_to_go)
                cursor->state = cursor->is_void ? CURSOR_ENDED : CURSOR_READY;
        }
        runs |= weir_cursor_is_running(cursor);
        is_fenced |= cursor->state == CURSOR_FENCED;
    }
    for (size_t i = 0; i < s->count; i++) {
        if (s->cursors[i]->state == CURSOR_READY)
            weir_cursor_pump(s->cursors[i]);
    }
    if (runs || s->refreshing)
        return;
    if (is_fenced)
        weir_subscription_end(s, WEIR_FENCED, "another owner took the checkpoints");
    else
        weir_subscription_end(s, WEIR_END, "all was read");
}

static void
leave_channel(struct weir_cursor *cursor, bool tell)
{
    struct weir_client *client = cursor->sub->client;
    weir_call_cancel(&cursor->call);
    weir_timer_stop(client->loop, &cursor->retry);
    weir_channel_close(client, &cursor->channel, tell);
}

static void
finish_cursor(struct weir_cursor *cursor, enum cursor_state state, bool tell)
{
    leave_channel(cursor, tell);
    cursor->state = state;
}

static void
shard_ended(struct weir_cursor *cursor, bool tell)
{
    struct weir_subscription *s = cursor->sub;
    struct weir_queued *e = weir_queued_new(s, cursor, WEIR_EVENT_SHARD_END);
    finish_cursor(cursor, CURSOR_ENDED, tell);
    pthread_mutex_lock(&s->mtx);
    cursor->is_ended = true;
    cursor->end = cursor->next;
    if (e) {
        e->pub.first = e->pub.limit = e->pub.tail = cursor->next;
        weir_queued_put(s, e);
    }
    pthread_mutex_unlock(&s->mtx);
}

/* Another owner has the shard's checkpoint. */
void
weir_cursor_fenced(struct weir_cursor *cursor)
{
    if (cursor->state == CURSOR_FENCED)
        return;
    finish_cursor(cursor, CURSOR_FENCED, true);
    struct weir_queued *e = weir_queued_new(cursor->sub, cursor, WEIR_EVENT_FENCED);
    if (e) {
        e->pub.why = WEIR_FENCED;
        e->pub.first = e->pub.limit = cursor->next;
    }
    weir_queued_tell(e);
    weir_subscription_advance(cursor->sub);
}

void
weir_cursor_retry(struct weir_cursor *cursor)
{
    struct weir_client *client = cursor->sub->client;
    leave_channel(cursor, true);
    cursor->state = CURSOR_READY;
    weir_timer_start(client->loop, &cursor->retry,
                     weir_backoff_us(client, cursor->failures++, RETRY_BASE_US, RETRY_LIMIT_US));
}

static void
on_retry(struct weir_timer *timer)
{
    weir_cursor_pump(WEIR_CONTAINER(timer, struct weir_cursor, retry));
}

/* The broker does not serve the cursor (any more). */
static void
stopped(struct weir_cursor *cursor, enum weir_status st, const char *text)
{
    struct weir_subscription *s = cursor->sub;
    char said[512];
    switch (st) {
    case WEIR_OK:
    case WEIR_END:
        if (cursor->closed && cursor->has_until && cursor->next >= cursor->until)
            shard_ended(cursor, false);
        else
            finish_cursor(cursor, CURSOR_DONE, false);
        weir_subscription_advance(s);
        return;
    case WEIR_FENCED:
        weir_cursor_fenced(cursor);
        return;
    case WEIR_NOT_FOUND:
        if (!s->options.one_shard) {
            /* The stream, or only this shard, trimmed away while we were behind: then its children
             * follow. */
            finish_cursor(cursor, CURSOR_LOST, false);
            weir_subscription_refresh(s);
            return;
        }
        break;
    case WEIR_AGAIN:
    case WEIR_IO:
    case WEIR_NO_MEMORY:
    case WEIR_TIMEOUT:
    case WEIR_UNAVAILABLE:
    case WEIR_BUSY:
    case WEIR_CANCELLED:
    case WEIR_THROTTLED:
    case WEIR_UNKNOWN:
    case WEIR_MOVED:
        weir_cursor_retry(cursor);
        return;
    default:
        break;
    }
    snprintf(said, sizeof said, "cannot read shard %u of '%s': %s", cursor->shard, s->stream, text);
    finish_cursor(cursor, CURSOR_DONE, false);
    weir_subscription_end(s, st, said);
}

/* Something came that does not fit what was queued. */
static void
misfit(struct weir_cursor *cursor, const char *what)
{
    char said[256];
    if (cursor->heard_offset != cursor->next)
        cursor->strikes = 0;
    cursor->heard_offset = cursor->next;
    if (++cursor->strikes >= STRIKES_MAX) {
        snprintf(said, sizeof said, "shard %u at offset %lu: %s", cursor->shard,
                 (unsigned long)cursor->next, what);
        finish_cursor(cursor, CURSOR_DONE, true);
        weir_subscription_end(cursor->sub, WEIR_DAMAGED, said);
        return;
    }
    weir_cursor_retry(cursor);
}

/* ---- asking for a shard ---- */

static void
reached(struct weir_cursor *cursor)
{
    if (cursor->has_until && cursor->next >= cursor->until) {
        leave_channel(cursor, true);
        stopped(cursor, WEIR_END, "");
    }
}

static void
send_credit(struct weir_cursor *cursor)
{
    struct weir_subscription *s = cursor->sub;
    /* Before a channel is asked for it is of no use: the grant leaves out only what is held then.
     * After that it is sent when the channel is there. */
    if (!cursor->channel.id)
        return;
    pthread_mutex_lock(&s->mtx);
    struct weir_frame credit = {.kind = WEIR_FRAME_CREDIT,
                                .channel = cursor->channel.id,
                                .number = cursor->freed_frames,
                                .offset = cursor->freed_bytes};
    cursor->freed_frames = cursor->freed_bytes = 0;
    pthread_mutex_unlock(&s->mtx);
    if (credit.number)
        weir_client_send(s->client, &credit, NULL);
}

static void
on_credit_timer(struct weir_timer *timer)
{
    send_credit(WEIR_CONTAINER(timer, struct weir_cursor, credit_timer));
}

void
weir_subscription_leave(struct weir_subscription *s)
{
    for (size_t i = 0; i < s->count; i++) {
        leave_channel(s->cursors[i], true);
        if (weir_cursor_is_running(s->cursors[i]))
            s->cursors[i]->state = CURSOR_DONE;
    }
}

void
weir_subscription_on_task(struct weir_task *task)
{
    struct weir_subscription *s = WEIR_CONTAINER(task, struct weir_subscription, task);
    for (;;) {
        pthread_mutex_lock(&s->mtx);
        struct weir_list *node = weir_list_pop_front(&s->freed);
        struct weir_cursor *cursor = node ? WEIR_CONTAINER(node, struct weir_cursor, freed) : NULL;
        bool much = cursor && (cursor->freed_bytes >= cursor->grant_bytes / 4 ||
                               cursor->freed_frames >= cursor->grant_frames / 4);
        pthread_mutex_unlock(&s->mtx);
        if (!cursor)
            break;
        if (s->over)
            continue;
        if (much)
            send_credit(cursor);
        else if (!weir_timer_is_started(&cursor->credit_timer))
            weir_timer_start(s->client->loop, &cursor->credit_timer, CREDIT_DELAY_US);
    }
    if (s->over)
        weir_subscription_leave(s);
    weir_subscription_run_laters(s);
}

/* What a new channel may send: the grant without what is still held of earlier ones. */
static void
grant(struct weir_cursor *cursor, uint64_t *bytes_out, uint32_t *frames_out)
{
    struct weir_subscription *s = cursor->sub;
    size_t running = 0;
    for (size_t i = 0; i < s->count; i++)
        running += weir_cursor_is_running(s->cursors[i]);
    uint64_t bytes = s->options.credit_bytes ? s->options.credit_bytes : CREDIT_DEFAULT;
    if (bytes > CREDIT_TOTAL / (running ? running : 1))
        bytes = CREDIT_TOTAL / (running ? running : 1);
    if (bytes < CREDIT_MIN)
        bytes = CREDIT_MIN;
    pthread_mutex_lock(&s->mtx);
    cursor->grant_bytes = bytes;
    cursor->grant_frames = CREDIT_FRAMES;
    cursor->freed_bytes = cursor->freed_frames = 0;
    *bytes_out = bytes > cursor->held_bytes ? bytes - cursor->held_bytes : 1;
    *frames_out =
        cursor->held_frames < CREDIT_FRAMES ? (uint32_t)(CREDIT_FRAMES - cursor->held_frames) : 1;
    pthread_mutex_unlock(&s->mtx);
}

static void
on_subscribed(struct weir_call *call, enum weir_status st, Weir__Reply *reply, const char *text)
{
    struct weir_cursor *cursor = WEIR_CONTAINER(call, struct weir_cursor, call);
    struct weir_subscription *s = cursor->sub;
    if (!st && reply->result_case != WEIR__REPLY__RESULT_SUBSCRIBED) {
        st = WEIR_UNSUPPORTED;
        text = "the broker's answer is not understood";
    }
    if (st) {
        char said[512];
        snprintf(said, sizeof said, "%s", text);
        if (reply)
            weir_message_free(&reply->base);
        stopped(cursor, st == WEIR_END ? WEIR_INVALID : st, said);
        return;
    }
    const Weir__Subscribed *r = reply->subscribed;
    cursor->state = CURSOR_LIVE;
    cursor->epoch = r->epoch;
    cursor->frames = 0;
    if (!weir_channel_open(s->client, &cursor->channel, r->channel))
        cursor->state = CURSOR_READY;
    if (!cursor->pinned) {
        cursor->pinned = true;
        cursor->next = r->offset;
        pthread_mutex_lock(&s->mtx);
        if (!cursor->is_polled) {
            cursor->polled = r->offset;
            cursor->is_polled = true;
        }
        pthread_mutex_unlock(&s->mtx);
    }
    weir_message_free(&reply->base);
    if (cursor->state == CURSOR_LIVE)
        send_credit(cursor); /* freed while it was asked for */
    reached(cursor);
}

static void
subscribe_to(struct weir_cursor *cursor)
{
    static const Weir__Position__Kind kinds[] = {
        [WEIR_FROM_LATEST] = WEIR__POSITION__KIND__LATEST,
        [WEIR_FROM_OLDEST] = WEIR__POSITION__KIND__OLDEST,
        [WEIR_FROM_OFFSET] = WEIR__POSITION__KIND__AT_OFFSET,
        [WEIR_FROM_SEQUENCE] = WEIR__POSITION__KIND__AT_SEQUENCE,
        [WEIR_FROM_TIME] = WEIR__POSITION__KIND__AT_TIME,
        [WEIR_FROM_CHECKPOINT] = WEIR__POSITION__KIND__CHECKPOINT,
    };
    struct weir_subscription *s = cursor->sub;
    Weir__Position position = WEIR__POSITION__INIT;
    Weir__Subscribe op = WEIR__SUBSCRIBE__INIT;
    Weir__Request request = WEIR__REQUEST__INIT;
    position.kind = cursor->pinned ? WEIR__POSITION__KIND__AT_OFFSET : kinds[cursor->kind];
    position.offset = cursor->pinned ? cursor->next : s->options.from.offset;
    position.at_ms = s->options.from.at_ms;
    position.sequence = s->sequence;
    position.otherwise = kinds[cursor->otherwise];
    op.stream = s->stream;
    op.shard = cursor->shard;
    op.position = &position;
    op.consumer = s->consumer;
    grant(cursor, &op.credit_bytes, &op.credit_frames);
    op.frame_bytes = s->options.frame_bytes;
    op.until_offset = cursor->has_until ? cursor->until : 0;
    op.until_ms = s->options.until_ms;
    op.heartbeat_ms = s->options.heartbeat_ms ? s->options.heartbeat_ms : 1000;
    op.fail_if_trimmed = s->options.fail_if_trimmed;
    request.op_case = WEIR__REQUEST__OP_SUBSCRIBE;
    request.subscribe = &op;
    cursor->state = CURSOR_OPENING;
    cursor->call.mode = WEIR_CALL_BOUND;
    cursor->call.done = on_subscribed;
    weir_call_start(s->client, &cursor->call, &request, WEIR_CALL_TIMEOUT_MS);
}

static void
on_acquired(struct weir_call *call, enum weir_status st, Weir__Reply *reply, const char *text)
{
    struct weir_cursor *cursor = WEIR_CONTAINER(call, struct weir_cursor, call);
    struct weir_subscription *s = cursor->sub;
    if (!st && (reply->result_case != WEIR__REPLY__RESULT_CHECKPOINTS ||
                reply->checkpoints->n_items != 1)) {
        st = WEIR_UNSUPPORTED;
        text = "the broker's answer is not understood";
    }
    char said[512];
    snprintf(said, sizeof said, "cannot take the checkpoint: %s", text);
    bool is_ended = false;
    if (!st) {
        const Weir__Checkpoint *item = reply->checkpoints->items[0];
        is_ended = item->shard_end && cursor->kind == WEIR_FROM_CHECKPOINT;
        cursor->acquired = true;
        pthread_mutex_lock(&s->mtx);
        cursor->token = item->epoch;
        pthread_mutex_unlock(&s->mtx);
    }
    if (reply)
        weir_message_free(&reply->base);
    cursor->state = CURSOR_READY;
    if (st) {
        stopped(cursor, st == WEIR_END ? WEIR_INVALID : st, said);
    } else if (is_ended) {
        finish_cursor(cursor, CURSOR_ENDED, false); /* another owner read it to its end meanwhile */
        weir_subscription_refresh(s);
    } else {
        weir_cursor_pump(cursor);
    }
}

static void
acquire(struct weir_cursor *cursor)
{
    struct weir_subscription *s = cursor->sub;
    Weir__AcquireCheckpoint op = WEIR__ACQUIRE_CHECKPOINT__INIT;
    Weir__Request request = WEIR__REQUEST__INIT;
    op.stream = s->stream;
    op.consumer = s->consumer;
    op.shard = cursor->shard;
    op.owner = s->client->name;
    request.op_case = WEIR__REQUEST__OP_ACQUIRE_CHECKPOINT;
    request.acquire_checkpoint = &op;
    cursor->state = CURSOR_ACQUIRING;
    cursor->call.mode = WEIR_CALL_BOUND;
    cursor->call.done = on_acquired;
    weir_call_start(s->client, &cursor->call, &request, WEIR_CALL_TIMEOUT_MS);
}

/* Does what the cursor can do next. */
void
weir_cursor_pump(struct weir_cursor *cursor)
{
    struct weir_subscription *s = cursor->sub;
    if (cursor->state != CURSOR_READY || s->over || weir_timer_is_started(&cursor->retry))
        return;
    if (cursor->has_until &&
        (!cursor->until || (cursor->pinned && cursor->next >= cursor->until))) {
        stopped(cursor, WEIR_END, "");
        return;
    }
    if (!weir_client_is_up(s->client))
        return;
    if (s->options.take_checkpoint && !cursor->acquired)
        acquire(cursor);
    else
        subscribe_to(cursor);
}

/* ---- frames ---- */

/* Checks the batches of a frame against the position. Returns what does not fit, or NULL with the
 * offsets that are new. */
static const char *
check_batches(const struct weir_cursor *cursor, struct weir_bytes body, uint64_t *limit_out)
{
    uint64_t at = 0;
    bool first = true;
    while (body.len) {
        struct weir_batch_info info;
        if (weir_batch_check(body, &info))
            return "a batch is damaged";
        if (first ? info.offset > cursor->next : info.offset != at)
            return "records are left out";
        first = false;
        at = info.offset + info.count;
        body = weir_bytes(body.data + info.size, body.len - info.size);
    }
    *limit_out = at;
    return NULL;
}

static void
on_data(struct weir_cursor *cursor, const struct weir_frame *f, struct weir_buf *message)
{
    struct weir_subscription *s = cursor->sub;
    uint64_t limit = 0;
    if (f->number != cursor->frames + 1) {
        misfit(cursor, "a frame is missing");
        return;
    }
    cursor->frames = f->number;
    const char *wrong = check_batches(cursor, f->body, &limit);
    if (wrong) {
        misfit(cursor, wrong);
        return;
    }
    if (cursor->has_until && limit > cursor->until)
        limit = cursor->until;
    struct weir_queued *e = weir_queued_new(s, cursor, WEIR_EVENT_RECORDS);
    if (!e)
        return;
    e->message = weir_buf_ref(message);
    e->rest = f->body;
    e->bytes = f->body.len;
    e->pub.first = cursor->next;
    e->pub.limit = limit;
    e->pub.tail = f->value;
    e->pub.lag_ms = f->lag_ms;
    bool has_new = limit > cursor->next;
    e->pub.records = has_new ? (uint32_t)(limit - cursor->next) : 0;
    if (has_new) {
        cursor->next = limit;
        cursor->failures = 0;
    }
    pthread_mutex_lock(&s->mtx);
    cursor->held_bytes += e->bytes;
    cursor->held_frames++;
    if (has_new)
        weir_queued_put(s, e);
    pthread_mutex_unlock(&s->mtx);
    if (!has_new)
        weir_queued_free(e);
    reached(cursor);
}

static void
on_heartbeat(struct weir_cursor *cursor, const struct weir_frame *f)
{
    struct weir_subscription *s = cursor->sub;
    if (f->number != cursor->frames) {
        misfit(cursor, "a frame is missing");
        return;
    }
    cursor->failures = 0;
    struct weir_queued *fresh = NULL;
    pthread_mutex_lock(&s->mtx);
    bool waits = cursor->progress != NULL;
    pthread_mutex_unlock(&s->mtx);
    if (!waits)
        fresh = weir_queued_new(s, cursor, WEIR_EVENT_PROGRESS);
    pthread_mutex_lock(&s->mtx);
    struct weir_queued *e = cursor->progress ? cursor->progress : fresh;
    if (e) {
        e->pub.first = e->pub.limit = cursor->next;
        e->pub.tail = f->value;
        e->pub.lag_ms = f->lag_ms;
        if (e == fresh) {
            cursor->progress = e;
            weir_queued_put(s, e);
            fresh = NULL;
        } else if (s->queue.prev != &e->node) {
            /* It tells of a position behind the records queued since: let it stand behind them. */
            weir_list_remove(&e->node);
            weir_list_push_back(&s->queue, &e->node);
        }
    }
    pthread_mutex_unlock(&s->mtx);
    if (fresh)
        weir_queued_free(fresh);
}

static void
on_gap(struct weir_cursor *cursor, const struct weir_frame *f)
{
    /* A gap at the very start lies before the first offset that comes. */
    if (f->value <= f->offset || f->value <= cursor->gap_limit ||
        (f->value < cursor->next && cursor->frames))
        return;
    cursor->gap_limit = f->value;
    struct weir_queued *e = weir_queued_new(cursor->sub, cursor, WEIR_EVENT_GAP);
    if (!e)
        return;
    uint64_t first = f->offset;
    if (cursor->pinned && first < cursor->next && cursor->next < f->value)
        first = cursor->next;
    e->pub.first = first;
    e->pub.limit = f->value;
    e->pub.why = f->status != WEIR_OK ? f->status : WEIR_TRIMMED;
    if (cursor->next < f->value)
        cursor->next = f->value;
    weir_queued_tell(e);
    reached(cursor);
}

static int64_t
parent_at(const Weir__ParentsOfChild *parents, size_t i)
{
    return i < parents->n_shards ? (int64_t)parents->shards[i] : -1;
}

static void
on_end(struct weir_cursor *cursor, const struct weir_frame *f)
{
    struct weir_subscription *s = cursor->sub;
    ProtobufCMessage *message = NULL;
    if (f->offset > cursor->next) {
        misfit(cursor, "the end comes before its records");
        return;
    }
    if (weir_message_unpack(&weir__end_of_shard__descriptor, f->body, &message)) {
        misfit(cursor, "the end of the shard is not understood");
        return;
    }
    shard_ended(cursor, true);
    Weir__EndOfShard *end = (Weir__EndOfShard *)message;
    bool some = false;
    if (!s->options.one_shard && !s->options.until_tail) {
        for (size_t i = 0; i < end->n_children; i++) {
            if (weir_cursor_find(s, end->children[i]))
                continue;
            struct weir_cursor *child = weir_cursor_add(s, end->children[i]);
            if (!child)
                break;
            some = true;
            child->parents[0] = cursor->shard;
            if (i < end->n_parents) {
                child->parents[0] = parent_at(end->parents[i], 0);
                child->parents[1] = parent_at(end->parents[i], 1);
            }
        }
    }
    weir_message_free(message);
    if (some)
        weir_subscription_refresh(s); /* for what the frame does not say of them */
    weir_subscription_advance(s);
}

static void
on_frame(struct weir_channel *channel, const struct weir_frame *f, struct weir_buf *message)
{
    struct weir_cursor *cursor = WEIR_CONTAINER(channel, struct weir_cursor, channel);
    if (cursor->state != CURSOR_LIVE || cursor->sub->over)
        return;
    switch (f->kind) {
    case WEIR_FRAME_DATA:
        if (f->epoch == cursor->epoch)
            on_data(cursor, f, message);
        break;
    case WEIR_FRAME_HEARTBEAT:
        if (f->epoch == cursor->epoch)
            on_heartbeat(cursor, f);
        break;
    case WEIR_FRAME_GAP:
        on_gap(cursor, f);
        break;
    case WEIR_FRAME_END:
        on_end(cursor, f);
        break;
    case WEIR_FRAME_STOPPED:
        weir_channel_close(cursor->sub->client, &cursor->channel, true);
        stopped(cursor, f->status, weir_status_text(f->status));
        break;
    default:
        break;
    }
}
