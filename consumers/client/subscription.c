/* The subscription.
 *
 *   loop    describe ─> cursors ─> [acquire] ─> subscribe ─> DATA ──checked──> queue of events
 *   poller                                         ^                              │
 *                                                  └── CREDIT <── event freed <───┘ poll
 *
 * A cursor is where the subscription stands in one shard. One queue for all shards keeps lineage: a
 * child is asked for after the END of its parents was queued, so its events come behind theirs.
 *
 *   WAITING ──parents ended──> READY ──> [ACQUIRING] ──> OPENING ──> LIVE ──> ENDED, DONE, FENCED
 *                                ^ └──────────── connection lost, refused for now <──┘
 *
 * What is queued is never asked for again, and what is not is asked for from `next`: so nothing is
 * lost and nothing comes twice, whatever happens to connections. A frame that does not fit (wrong
 * number, wrong offset, bad checksum) is thrown away and the shard is asked for again from `next`.
 */
#include "base/assert.h"
#include "client/client.h"
#include "record/batch.h"
#include "record/sequence.h"
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
    CREDIT_DEFAULT = 8 * 1024 * 1024,
    CREDIT_TOTAL = 32 * 1024 * 1024,
    CREDIT_MIN = 16 * 1024,
    CREDIT_FRAMES = 1024,
    CREDIT_DELAY_US = 5 * 1000, /* small returns are gathered this long */
    RETRY_BASE_US = 20 * 1000,
    RETRY_LIMIT_US = 2 * 1000 * 1000,
    STRIKES_MAX = 5, /* misfits at one position; then the subscription ends with DAMAGED */
    SCRATCHES = 128, /* kept for reuse: a frame may hold many small batches of large records */
    SCRATCH_BYTES_MAX = 16 * 1024 * 1024,
    LATER_RETRY_US = 200 * 1000,
    REFRESH_RETRY_US = 500 * 1000,
    CLOSE_WAIT_MS = 5000, /* for checkpoints that are under way */
};

enum cursor_state {
    CURSOR_WAITING, /* for its parents */
    CURSOR_READY,
    CURSOR_ACQUIRING,
    CURSOR_OPENING,
    CURSOR_LIVE,
    CURSOR_LOST,  /* the broker does not know the shard: a description tells */
    CURSOR_ENDED, /* the shard was read to its end */
    CURSOR_DONE,  /* `until` was reached: children do not follow */
    CURSOR_FENCED,
};

struct cursor {
    struct weir_channel channel;
    struct weir_subscription *sub;
    uint32_t shard;
    uint64_t created_ms; /* 0: not known yet */
    int64_t parents[2];  /* -1: none */
    enum cursor_state state;

    /* loop only */
    enum weir_from_kind kind, otherwise; /* where to begin, until `pinned` */
    bool pinned;
    uint64_t next;          /* offset behind what was queued */
    uint64_t gap_limit;     /* of the last gap that was told */
    uint64_t until;         /* offset; with has_until */
    bool is_void;           /* nothing is in it, and nothing comes */
    bool has_until, closed; /* closed: `until` is the shard's end */
    uint32_t epoch;         /* of the channel */
    uint64_t frames;        /* running number of the last */
    uint64_t heard_offset;  /* position of the last misfit */
    uint32_t strikes, failures;
    bool acquired;
    struct weir_call call, later_call;
    struct weir_timer retry, credit_timer;

    /* shared, under the subscription's mtx */
    uint64_t token; /* fencing token, with `acquired` */
    uint64_t grant_bytes, grant_frames;
    uint64_t held_bytes, held_frames;   /* queued or with the program */
    uint64_t freed_bytes, freed_frames; /* to be given back */
    struct weir_list freed;             /* in sub->freed */
    struct event *progress;             /* the one that waits */
    uint64_t polled, end;
    bool is_polled, is_ended; /* `polled`, `end` are known */
    uint64_t later_offset;
    bool later_waits, later_runs;
    struct weir_list later; /* in sub->laters */
};

struct event {
    struct weir_event pub; /* first */
    struct weir_list node;
    struct weir_subscription *sub;
    struct cursor *cursor;
    struct weir_buf *message;
    uint64_t bytes;         /* of credit */
    struct weir_bytes rest; /* batches not begun */
    struct weir_batch_reader reader;
    uint64_t at_ms;
    uint32_t scratch_count;
    struct weir_scratch *scratches; /* of the batches that were decompressed */
};

struct weir_subscription {
    struct weir_client *client;
    struct weir_member member;
    char stream[WEIR_STREAM_NAME_MAX + 1], consumer[WEIR_CONSUMER_NAME_MAX + 1];
    char sequence[WEIR_SEQUENCE_DIGITS + 1];
    struct weir_subscribe_options options;
    atomic_uint refs; /* ours, and one per event with the program */

    /* loop only */
    char data_id[64]; /* of the data that the offsets belong to */
    struct weir_describe describe;
    bool refreshing, refresh_again;
    struct weir_timer later_timer, refresh_timer;
    struct weir_task task;

    /* shared, under mtx */
    pthread_mutex_t mtx;
    pthread_cond_t changed;
    struct cursor **cursors; /* by shard; grown on the loop */
    size_t count, capacity;
    struct weir_list queue, freed, laters;
    struct event *connection; /* the one that waits */
    atomic_bool over;         /* written under mtx */
    bool closed;
    struct weir_error end; /* why */
    struct weir_error later_failure;
    uint32_t laters_running;
    int fd;
    struct weir_scratch scratches[SCRATCHES];
    uint32_t scratch_count;
    uint64_t scratch_bytes;
};

static void pump(struct cursor *cursor);
static void refresh(struct weir_subscription *s);

/* ---- the queue ---- */

static void
wake(struct weir_subscription *s) /* under mtx */
{
    if (s->fd >= 0)
        (void)!write(s->fd, &(uint64_t){1}, sizeof(uint64_t));
    pthread_cond_broadcast(&s->changed);
}

static void
end_subscription(struct weir_subscription *s, enum weir_status st, const char *text)
{
    pthread_mutex_lock(&s->mtx);
    if (!s->over) {
        s->over = true;
        (void)weir_fail(&s->end, st, "%s", text);
        wake(s);
        if (!s->closed)
            weir_loop_post(s->client->loop, &s->task); /* leaves the channels */
    }
    pthread_mutex_unlock(&s->mtx);
}

static struct event *
event_new(struct weir_subscription *s, struct cursor *cursor, enum weir_event_kind kind)
{
    struct event *e = calloc(1, sizeof *e);
    if (!e) {
        end_subscription(s, WEIR_NO_MEMORY, "no memory for an event");
        return NULL;
    }
    e->sub = s;
    e->cursor = cursor;
    e->pub.kind = kind;
    if (cursor) {
        e->pub.shard = cursor->shard;
        e->pub.epoch = cursor->token;
    }
    return e;
}

static void
queue(struct weir_subscription *s, struct event *e) /* under mtx */
{
    bool was_empty = weir_list_is_empty(&s->queue);
    weir_list_push_back(&s->queue, &e->node);
    if (was_empty)
        wake(s);
}

static void
queue_event(struct event *e)
{
    if (!e)
        return;
    pthread_mutex_lock(&e->sub->mtx);
    queue(e->sub, e);
    pthread_mutex_unlock(&e->sub->mtx);
}

static void
release(struct weir_subscription *s)
{
    if (atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (size_t i = 0; i < s->count; i++)
        free(s->cursors[i]);
    free(s->cursors);
    for (uint32_t i = 0; i < s->scratch_count; i++)
        weir_scratch_fini(&s->scratches[i]);
    if (s->fd >= 0)
        close(s->fd);
    pthread_mutex_destroy(&s->mtx);
    pthread_cond_destroy(&s->changed);
    free(s);
}

/* ---- events in the program's hands (any thread) ---- */

/* Begins the event's next batch; false when there is none. */
static bool
next_batch(struct event *e)
{
    struct weir_subscription *s = e->sub;
    struct weir_batch_info info;
    if (!e->rest.len || weir_batch_peek(e->rest, &info))
        return false;
    struct weir_bytes batch = weir_bytes(e->rest.data, info.size);
    e->rest = weir_bytes(e->rest.data + info.size, e->rest.len - info.size);
    e->at_ms = info.at_ms;
    struct weir_scratch none = {}, *scratch = &none;
    if (info.codec != WEIR_CODEC_NONE) {
        struct weir_scratch *scratches =
            realloc(e->scratches, (e->scratch_count + 1) * sizeof *scratches);
        if (!scratches)
            return false;
        e->scratches = scratches;
        scratch = &scratches[e->scratch_count++];
        *scratch = none;
        pthread_mutex_lock(&s->mtx);
        if (s->scratch_count)
            *scratch = s->scratches[--s->scratch_count];
        s->scratch_bytes -= scratch->capacity;
        pthread_mutex_unlock(&s->mtx);
    }
    return weir_batch_reader_init(&e->reader, batch, scratch) == WEIR_OK;
}

bool
weir_event_next(struct weir_event *event, struct weir_event_record *out)
{
    struct event *e = (struct event *)event;
    struct weir_record record;
    if (e->pub.kind != WEIR_EVENT_RECORDS)
        return false;
    for (;;) {
        enum weir_status st = weir_batch_reader_next(&e->reader, &record);
        if (st == WEIR_END && !e->rest.len)
            return false;
        if (st == WEIR_END) {
            /* A failure below is kept from being taken for the end: the next poll tells it. */
            if (next_batch(e))
                continue;
            st = WEIR_DAMAGED;
        }
        if (st) {
            end_subscription(e->sub, WEIR_DAMAGED, "a batch that was checked cannot be read");
            return false;
        }
        if (e->reader.offset < e->pub.first)
            continue;
        if (e->reader.offset >= e->pub.limit)
            return false;
        break;
    }
    *out = (struct weir_event_record){
        .shard = e->pub.shard,
        .offset = e->reader.offset,
        .at_ms = e->at_ms,
        .key = record.key.data,
        .key_len = record.key.len,
        .data = record.data.data,
        .data_len = record.data.len,
    };
    return true;
}

/* Under mtx: the credit of an event goes back, at once where it is much, gathered where it is
 * little. */
static void
give_back(struct event *e)
{
    struct weir_subscription *s = e->sub;
    struct cursor *cursor = e->cursor;
    if (e->pub.kind != WEIR_EVENT_RECORDS)
        return;
    cursor->held_bytes -= e->bytes;
    cursor->held_frames--;
    cursor->freed_bytes += e->bytes;
    cursor->freed_frames++;
    bool matters = cursor->held_frames == 0 || cursor->freed_bytes >= cursor->grant_bytes / 4 ||
                   cursor->freed_frames >= cursor->grant_frames / 4;
    if (!matters || s->closed || weir_list_is_linked(&cursor->freed))
        return;
    weir_list_push_back(&s->freed, &cursor->freed);
    weir_loop_post(s->client->loop, &s->task);
}

static void
event_destroy(struct event *e)
{
    struct weir_subscription *s = e->sub;
    pthread_mutex_lock(&s->mtx);
    give_back(e);
    while (e->scratch_count && s->scratch_count < SCRATCHES &&
           s->scratch_bytes < SCRATCH_BYTES_MAX) {
        struct weir_scratch scratch = e->scratches[--e->scratch_count];
        s->scratch_bytes += scratch.capacity;
        s->scratches[s->scratch_count++] = scratch;
    }
    pthread_mutex_unlock(&s->mtx);
    while (e->scratch_count)
        weir_scratch_fini(&e->scratches[--e->scratch_count]);
    free(e->scratches);
    weir_buf_unref(e->message);
    free(e);
}

void
weir_event_free(struct weir_event *event)
{
    if (!event)
        return;
    struct event *e = (struct event *)event;
    struct weir_subscription *s = e->sub;
    event_destroy(e);
    release(s);
}

/* Under mtx: the descriptor is readable no longer, where nothing waits. */
static void
calm(struct weir_subscription *s)
{
    if (s->fd >= 0 && weir_list_is_empty(&s->queue) && !s->over && !s->later_failure.status)
        (void)!read(s->fd, &(uint64_t){0}, sizeof(uint64_t));
}

static struct event *
take_event(struct weir_subscription *s) /* under mtx */
{
    struct weir_list *node = weir_list_pop_front(&s->queue);
    if (!node)
        return NULL;
    struct event *e = WEIR_CONTAINER(node, struct event, node);
    struct cursor *cursor = e->cursor;
    if (e == s->connection)
        s->connection = NULL;
    if (cursor) {
        if (e == cursor->progress)
            cursor->progress = NULL;
        if (e->pub.kind != WEIR_EVENT_FENCED && e->pub.kind != WEIR_EVENT_PROGRESS) {
            cursor->polled = e->pub.limit;
            cursor->is_polled = true;
        }
    }
    calm(s);
    return e;
}

enum weir_status
weir_poll(struct weir_subscription *s, int64_t timeout_ms, struct weir_event **out,
          struct weir_error *err)
{
    uint64_t deadline = weir_deadline_us(s->client, timeout_ms);
    enum weir_status st;
    pthread_mutex_lock(&s->mtx);
    for (;;) {
        if (s->later_failure.status) {
            st = weir_fail(err, s->later_failure.status, "%s", s->later_failure.text);
            s->later_failure = (struct weir_error){};
            calm(s);
            break;
        }
        struct event *e = take_event(s);
        if (e) {
            atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
            *out = &e->pub;
            st = WEIR_OK;
            break;
        }
        if (s->over) {
            st = weir_fail(err, s->end.status, "%s", s->end.text);
            break;
        }
        if (!weir_cond_wait(s->client, &s->changed, &s->mtx, deadline)) {
            st = weir_fail(err, WEIR_TIMEOUT, "no event in time");
            break;
        }
    }
    pthread_mutex_unlock(&s->mtx);
    return st;
}

int
weir_subscription_fd(struct weir_subscription *s)
{
    pthread_mutex_lock(&s->mtx);
    if (s->fd < 0) {
        s->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (!weir_list_is_empty(&s->queue) || s->over || s->later_failure.status)
            wake(s);
    }
    int fd = s->fd;
    pthread_mutex_unlock(&s->mtx);
    return fd;
}

/* ---- cursors ---- */

static struct cursor *
find_cursor(const struct weir_subscription *s, int64_t shard)
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
static struct cursor *
add_cursor(struct weir_subscription *s, uint32_t shard)
{
    struct cursor *cursor = calloc(1, sizeof *cursor);
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
        struct cursor **cursors = realloc(s->cursors, capacity * sizeof(struct cursor *));
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
        end_subscription(s, WEIR_NO_MEMORY, "no memory for a shard");
    return cursor;
}

static bool
is_running(const struct cursor *cursor)
{
    return cursor->state >= CURSOR_READY && cursor->state <= CURSOR_LIVE;
}

/* Starts what waits and whose parents ended; ends the subscription when nothing runs any more. */
static void
advance(struct weir_subscription *s)
{
    bool runs = false, is_fenced = false;
    for (size_t i = 0; i < s->count; i++) {
        struct cursor *cursor = s->cursors[i];
        if (cursor->state == CURSOR_WAITING) {
            bool free_to_go = true;
            for (int k = 0; k < 2; k++) {
                struct cursor *parent = find_cursor(s, cursor->parents[k]);
                free_to_go &= !parent || parent->state == CURSOR_ENDED;
            }
            if (free_to_go)
                cursor->state = cursor->is_void ? CURSOR_ENDED : CURSOR_READY;
        }
        runs |= is_running(cursor);
        is_fenced |= cursor->state == CURSOR_FENCED;
    }
    for (size_t i = 0; i < s->count; i++) {
        if (s->cursors[i]->state == CURSOR_READY)
            pump(s->cursors[i]);
    }
    if (runs || s->refreshing)
        return;
    if (is_fenced)
        end_subscription(s, WEIR_FENCED, "another owner took the checkpoints");
    else
        end_subscription(s, WEIR_END, "all was read");
}

static void
leave_channel(struct cursor *cursor, bool tell)
{
    struct weir_client *client = cursor->sub->client;
    weir_call_cancel(&cursor->call);
    weir_timer_stop(client->loop, &cursor->retry);
    weir_channel_close(client, &cursor->channel, tell);
}

static void
finish_cursor(struct cursor *cursor, enum cursor_state state, bool tell)
{
    leave_channel(cursor, tell);
    cursor->state = state;
}

static void
shard_ended(struct cursor *cursor, bool tell)
{
    struct weir_subscription *s = cursor->sub;
    struct event *e = event_new(s, cursor, WEIR_EVENT_SHARD_END);
    finish_cursor(cursor, CURSOR_ENDED, tell);
    pthread_mutex_lock(&s->mtx);
    cursor->is_ended = true;
    cursor->end = cursor->next;
    if (e) {
        e->pub.first = e->pub.limit = e->pub.tail = cursor->next;
        queue(s, e);
    }
    pthread_mutex_unlock(&s->mtx);
}

/* Another owner has the shard's checkpoint. */
static void
fenced(struct cursor *cursor)
{
    if (cursor->state == CURSOR_FENCED)
        return;
    finish_cursor(cursor, CURSOR_FENCED, true);
    struct event *e = event_new(cursor->sub, cursor, WEIR_EVENT_FENCED);
    if (e) {
        e->pub.why = WEIR_FENCED;
        e->pub.first = e->pub.limit = cursor->next;
    }
    queue_event(e);
    advance(cursor->sub);
}

static void
retry_later(struct cursor *cursor)
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
    pump(WEIR_CONTAINER(timer, struct cursor, retry));
}

/* The broker does not serve the cursor (any more). */
static void
stopped(struct cursor *cursor, enum weir_status st, const char *text)
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
        advance(s);
        return;
    case WEIR_FENCED:
        fenced(cursor);
        return;
    case WEIR_NOT_FOUND:
        if (!s->options.one_shard) {
            /* The stream, or only this shard, trimmed away while we were behind: then its children
             * follow. */
            finish_cursor(cursor, CURSOR_LOST, false);
            refresh(s);
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
        retry_later(cursor);
        return;
    default:
        break;
    }
    snprintf(said, sizeof said, "cannot read shard %u of '%s': %s", cursor->shard, s->stream, text);
    finish_cursor(cursor, CURSOR_DONE, false);
    end_subscription(s, st, said);
}

/* Something came that does not fit what was queued. */
static void
misfit(struct cursor *cursor, const char *what)
{
    char said[256];
    if (cursor->heard_offset != cursor->next)
        cursor->strikes = 0;
    cursor->heard_offset = cursor->next;
    if (++cursor->strikes >= STRIKES_MAX) {
        snprintf(said, sizeof said, "shard %u at offset %lu: %s", cursor->shard,
                 (unsigned long)cursor->next, what);
        finish_cursor(cursor, CURSOR_DONE, true);
        end_subscription(cursor->sub, WEIR_DAMAGED, said);
        return;
    }
    retry_later(cursor);
}

/* ---- asking for a shard ---- */

static void
reached(struct cursor *cursor)
{
    if (cursor->has_until && cursor->next >= cursor->until) {
        leave_channel(cursor, true);
        stopped(cursor, WEIR_END, "");
    }
}

static void
send_credit(struct cursor *cursor)
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
    send_credit(WEIR_CONTAINER(timer, struct cursor, credit_timer));
}

static void run_laters(struct weir_subscription *s);

static void
leave_all(struct weir_subscription *s)
{
    for (size_t i = 0; i < s->count; i++) {
        leave_channel(s->cursors[i], true);
        if (is_running(s->cursors[i]))
            s->cursors[i]->state = CURSOR_DONE;
    }
}

static void
on_task(struct weir_task *task)
{
    struct weir_subscription *s = WEIR_CONTAINER(task, struct weir_subscription, task);
    for (;;) {
        pthread_mutex_lock(&s->mtx);
        struct weir_list *node = weir_list_pop_front(&s->freed);
        struct cursor *cursor = node ? WEIR_CONTAINER(node, struct cursor, freed) : NULL;
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
        leave_all(s);
    run_laters(s);
}

/* What a new channel may send: the grant without what is still held of earlier ones. */
static void
grant(struct cursor *cursor, uint64_t *bytes_out, uint32_t *frames_out)
{
    struct weir_subscription *s = cursor->sub;
    size_t running = 0;
    for (size_t i = 0; i < s->count; i++)
        running += is_running(s->cursors[i]);
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
    struct cursor *cursor = WEIR_CONTAINER(call, struct cursor, call);
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
subscribe_to(struct cursor *cursor)
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
    struct cursor *cursor = WEIR_CONTAINER(call, struct cursor, call);
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
        refresh(s);
    } else {
        pump(cursor);
    }
}

static void
acquire(struct cursor *cursor)
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
static void
pump(struct cursor *cursor)
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
check_batches(const struct cursor *cursor, struct weir_bytes body, uint64_t *limit_out)
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
on_data(struct cursor *cursor, const struct weir_frame *f, struct weir_buf *message)
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
    struct event *e = event_new(s, cursor, WEIR_EVENT_RECORDS);
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
        queue(s, e);
    pthread_mutex_unlock(&s->mtx);
    if (!has_new)
        event_destroy(e);
    reached(cursor);
}

static void
on_heartbeat(struct cursor *cursor, const struct weir_frame *f)
{
    struct weir_subscription *s = cursor->sub;
    if (f->number != cursor->frames) {
        misfit(cursor, "a frame is missing");
        return;
    }
    cursor->failures = 0;
    struct event *fresh = NULL;
    pthread_mutex_lock(&s->mtx);
    bool waits = cursor->progress != NULL;
    pthread_mutex_unlock(&s->mtx);
    if (!waits)
        fresh = event_new(s, cursor, WEIR_EVENT_PROGRESS);
    pthread_mutex_lock(&s->mtx);
    struct event *e = cursor->progress ? cursor->progress : fresh;
    if (e) {
        e->pub.first = e->pub.limit = cursor->next;
        e->pub.tail = f->value;
        e->pub.lag_ms = f->lag_ms;
        if (e == fresh) {
            cursor->progress = e;
            queue(s, e);
            fresh = NULL;
        } else if (s->queue.prev != &e->node) {
            /* It tells of a position behind the records queued since: let it stand behind them. */
            weir_list_remove(&e->node);
            weir_list_push_back(&s->queue, &e->node);
        }
    }
    pthread_mutex_unlock(&s->mtx);
    if (fresh)
        event_destroy(fresh);
}

static void
on_gap(struct cursor *cursor, const struct weir_frame *f)
{
    /* A gap at the very start lies before the first offset that comes. */
    if (f->value <= f->offset || f->value <= cursor->gap_limit ||
        (f->value < cursor->next && cursor->frames))
        return;
    cursor->gap_limit = f->value;
    struct event *e = event_new(cursor->sub, cursor, WEIR_EVENT_GAP);
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
    queue_event(e);
    reached(cursor);
}

static int64_t
parent_at(const Weir__ParentsOfChild *parents, size_t i)
{
    return i < parents->n_shards ? (int64_t)parents->shards[i] : -1;
}

static void
on_end(struct cursor *cursor, const struct weir_frame *f)
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
            if (find_cursor(s, end->children[i]))
                continue;
            struct cursor *child = add_cursor(s, end->children[i]);
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
        refresh(s); /* for what the frame does not say of them */
    advance(s);
}

static void
on_frame(struct weir_channel *channel, const struct weir_frame *f, struct weir_buf *message)
{
    struct cursor *cursor = WEIR_CONTAINER(channel, struct cursor, channel);
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

/* ---- the connection ---- */

static void
tell_connection(struct weir_subscription *s, bool connected)
{
    struct event *fresh = event_new(s, NULL, WEIR_EVENT_CONNECTION);
    pthread_mutex_lock(&s->mtx);
    struct event *e = s->connection ? s->connection : fresh;
    if (e) {
        e->pub.connected = connected;
        e->pub.why = connected ? WEIR_OK : WEIR_UNAVAILABLE;
        if (e == fresh) {
            s->connection = e;
            queue(s, e);
            fresh = NULL;
        }
    }
    pthread_mutex_unlock(&s->mtx);
    if (fresh)
        event_destroy(fresh);
}

static void
on_up(struct weir_member *member)
{
    struct weir_subscription *s = WEIR_CONTAINER(member, struct weir_subscription, member);
    if (s->over)
        return;
    /* Offsets of other data mean nothing here. */
    if (strcmp(s->data_id, s->client->data_id) != 0) {
        end_subscription(s, WEIR_DAMAGED, "the broker's data was made anew");
        return;
    }
    tell_connection(s, true);
    for (size_t i = 0; i < s->count; i++) {
        weir_timer_stop(s->client->loop, &s->cursors[i]->retry);
        pump(s->cursors[i]);
    }
    run_laters(s);
}

static void
on_down(struct weir_member *member, const char *why)
{
    (void)why;
    struct weir_subscription *s = WEIR_CONTAINER(member, struct weir_subscription, member);
    for (size_t i = 0; i < s->count; i++) {
        struct cursor *cursor = s->cursors[i];
        cursor->channel.id = 0;
        weir_call_cancel(&cursor->call);
        if (is_running(cursor))
            cursor->state = CURSOR_READY;
    }
    if (!s->over)
        tell_connection(s, false);
}

/* ---- the topology as it changes ---- */

static void
on_refreshed(struct weir_describe *d, enum weir_status st, const char *text)
{
    struct weir_subscription *s = WEIR_CONTAINER(d, struct weir_subscription, describe);
    struct weir_topology t = d->result;
    d->result = (struct weir_topology){};
    if (st && st != WEIR_NOT_FOUND) {
        weir_timer_start(s->client->loop, &s->refresh_timer, REFRESH_RETRY_US);
        return;
    }
    s->refreshing = false;
    if (st) {
        end_subscription(s, st, text);
        return;
    }
    if (t.status == WEIR_STREAM_DELETING) {
        weir_topology_fini(&t);
        end_subscription(s, WEIR_NOT_FOUND, "the stream was deleted");
        return;
    }
    for (size_t i = 0; i < s->count; i++) {
        struct cursor *cursor = s->cursors[i];
        if (cursor->state != CURSOR_LOST)
            continue;
        if (weir_topology_find(&t, cursor->shard))
            retry_later(cursor);
        else
            cursor->state = CURSOR_ENDED;
    }
    for (size_t i = 0; i < t.count; i++) {
        const struct weir_topology_shard *shard = &t.shards[i];
        struct cursor *cursor = find_cursor(s, shard->index);
        /* A shard that is new to us was made after we began: it descends from one of ours. */
        if (!cursor && !s->options.until_tail) {
            cursor = add_cursor(s, shard->index);
            if (!cursor)
                break;
            cursor->parents[0] = shard->parent;
            cursor->parents[1] = shard->adjacent_parent;
        }
        if (!cursor)
            continue;
        pthread_mutex_lock(&s->mtx);
        cursor->created_ms = shard->created_ms;
        pthread_mutex_unlock(&s->mtx);
    }
    weir_topology_fini(&t);
    if (s->refresh_again)
        refresh(s);
    advance(s);
}

static void
on_refresh_timer(struct weir_timer *timer)
{
    struct weir_subscription *s = WEIR_CONTAINER(timer, struct weir_subscription, refresh_timer);
    weir_describe_start(s->client, &s->describe);
}

static void
refresh(struct weir_subscription *s)
{
    s->refresh_again = s->refreshing;
    if (s->refreshing)
        return;
    s->refreshing = true;
    weir_describe_start(s->client, &s->describe);
}

/* ---- checkpoints ---- */

static enum weir_status
set_checkpoint_request(struct weir_subscription *s, struct cursor *cursor, uint64_t offset,
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
    fenced(arg);
}

static struct cursor *
locked_cursor(struct weir_subscription *s, uint32_t shard)
{
    pthread_mutex_lock(&s->mtx);
    struct cursor *cursor = find_cursor(s, shard);
    pthread_mutex_unlock(&s->mtx);
    return cursor;
}

enum weir_status
weir_checkpoint(struct weir_subscription *s, uint32_t shard, uint64_t offset,
                struct weir_error *err)
{
    if (!s->consumer[0])
        return weir_fail(err, WEIR_INVALID, "the subscription has no consumer's name");
    struct cursor *cursor = locked_cursor(s, shard);
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
    struct cursor *cursor = WEIR_CONTAINER(call, struct cursor, later_call);
    struct weir_subscription *s = cursor->sub;
    bool again = false;
    pthread_mutex_lock(&s->mtx);
    cursor->later_runs = false;
    s->laters_running--;
    if (st && st != WEIR_FENCED && !weir_status_retryable(st) && st != WEIR_TIMEOUT) {
        (void)weir_fail(&s->later_failure, st,
                        "cannot set the checkpoint of '%s' in shard %u of '%s': %s", s->consumer,
                        cursor->shard, s->stream, text);
        wake(s);
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
        fenced(cursor);
    if (again)
        weir_timer_start(s->client->loop, &s->later_timer, LATER_RETRY_US);
    else
        run_laters(s);
}

static void
on_later_timer(struct weir_timer *timer)
{
    run_laters(WEIR_CONTAINER(timer, struct weir_subscription, later_timer));
}

/* Sends the checkpoints that wait, one per shard at a time. */
static void
run_laters(struct weir_subscription *s)
{
    if (!weir_client_is_up(s->client) || weir_timer_is_started(&s->later_timer))
        return;
    for (;;) {
        pthread_mutex_lock(&s->mtx);
        struct weir_list *node = weir_list_pop_front(&s->laters);
        struct cursor *cursor = node ? WEIR_CONTAINER(node, struct cursor, later) : NULL;
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
    struct cursor *cursor = find_cursor(s, shard);
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
        wake(s);
    }
    pthread_mutex_unlock(&s->mtx);
}

/* ---- numbers ---- */

enum weir_status
weir_sequence_of(struct weir_subscription *s, uint32_t shard, uint64_t offset, uint64_t at_ms,
                 char out[57])
{
    pthread_mutex_lock(&s->mtx);
    struct cursor *cursor = find_cursor(s, shard);
    uint64_t created_ms = cursor ? cursor->created_ms : 0;
    pthread_mutex_unlock(&s->mtx);
    if (!cursor)
        return WEIR_NOT_FOUND;
    if (!created_ms) { /* a child whose description is on its way */
        struct weir_topology t;
        enum weir_status st = weir_describe_wait(s->client, s->stream, false, &t, NULL);
        if (st)
            return st;
        const struct weir_topology_shard *found = weir_topology_find(&t, shard);
        created_ms = found ? found->created_ms : 0;
        weir_topology_fini(&t);
        if (!created_ms)
            return WEIR_NOT_FOUND;
    }
    struct weir_sequence sequence = {.shard_created_s = created_ms / 1000,
                                     .shard_index = shard,
                                     .offset = offset,
                                     .at_s = at_ms / 1000};
    weir_sequence_format(&sequence, out);
    return WEIR_OK;
}

enum weir_status
weir_subscription_position(struct weir_subscription *s, uint32_t shard, uint64_t *offset_out)
{
    pthread_mutex_lock(&s->mtx);
    struct cursor *cursor = find_cursor(s, shard);
    enum weir_status st = WEIR_OK;
    if (!cursor)
        st = WEIR_NOT_FOUND;
    else if (!cursor->is_polled)
        st = WEIR_AGAIN;
    else
        *offset_out = cursor->polled;
    pthread_mutex_unlock(&s->mtx);
    return st;
}

/* ---- where to begin ---- */

struct known_checkpoint {
    uint32_t shard;
    bool set, shard_end;
};

struct known_checkpoints {
    struct known_checkpoint *items;
    size_t count, capacity;
    bool failed;
};

static void
know_checkpoint(void *arg, const struct weir_checkpoint_info *info)
{
    struct known_checkpoints *k = arg;
    if (k->count == k->capacity) {
        size_t capacity = k->capacity ? 2 * k->capacity : 16;
        struct known_checkpoint *items = realloc(k->items, capacity * sizeof *items);
        k->failed |= !items;
        if (!items)
            return;
        k->items = items;
        k->capacity = capacity;
    }
    k->items[k->count++] = (struct known_checkpoint){info->shard, info->set, info->shard_end};
}

static const struct known_checkpoint *
find_checkpoint(const struct known_checkpoints *k, int64_t shard)
{
    for (size_t i = 0; i < k->count; i++) {
        if (k->items[i].shard == shard && k->items[i].set)
            return &k->items[i];
    }
    return NULL;
}

/* By the rule for shards without a checkpoint: is it read at all? */
static bool
is_wanted(const struct weir_topology_shard *shard, enum weir_from_kind kind, uint64_t at_ms)
{
    switch (kind) {
    case WEIR_FROM_LATEST:
        return !shard->closed_ms;
    case WEIR_FROM_TIME:
        return !shard->closed_ms || shard->closed_ms >= at_ms;
    default:
        return true;
    }
}

static bool
has_running_parent(const struct weir_subscription *s, const struct cursor *cursor)
{
    for (int i = 0; i < 2; i++) {
        struct cursor *parent = find_cursor(s, cursor->parents[i]);
        if (parent && parent->state != CURSOR_ENDED)
            return true;
    }
    return false;
}

/* One shard of the start. Shards come in the order of their indexes, so parents before children.
 * `follows`: it descends from a shard with a checkpoint, so all of it is still to be read. */
static enum weir_status
begin_shard(struct weir_subscription *s, const struct weir_topology_shard *shard,
            const struct known_checkpoints *known, bool follows)
{
    const struct weir_subscribe_options *o = &s->options;
    const struct known_checkpoint *checkpoint =
        o->from.kind == WEIR_FROM_CHECKPOINT ? find_checkpoint(known, shard->index) : NULL;
    /* By the rule for shards without a checkpoint. */
    enum weir_from_kind kind =
        o->from.kind == WEIR_FROM_CHECKPOINT ? o->from.otherwise : o->from.kind;
    if (follows)
        kind = WEIR_FROM_OLDEST;

    struct cursor *cursor = add_cursor(s, shard->index);
    if (!cursor)
        return WEIR_NO_MEMORY;
    cursor->created_ms = shard->created_ms;
    cursor->parents[0] = shard->parent;
    cursor->parents[1] = shard->adjacent_parent;
    /* Checkpoints are asked for by name: they may move until the shard is subscribed. */
    if (o->from.kind == WEIR_FROM_CHECKPOINT)
        cursor->otherwise = kind;
    else
        cursor->kind = kind;
    if (o->from.kind == WEIR_FROM_OFFSET) {
        cursor->pinned = true;
        cursor->next = cursor->polled = o->from.offset;
        cursor->is_polled = true;
    }
    if (o->until_tail) {
        cursor->has_until = true;
        cursor->until = shard->next;
        cursor->closed = shard->closed_ms != 0;
    }
    bool is_read = (checkpoint && checkpoint->shard_end) ||
                   (!checkpoint && !is_wanted(shard, kind, o->from.at_ms));
    bool is_empty = !checkpoint && o->from.kind != WEIR_FROM_OFFSET && shard->oldest >= shard->next;
    bool is_late = o->until_ms && shard->created_ms >= o->until_ms;
    bool is_at_tail = o->until_tail && !checkpoint && (is_empty || kind == WEIR_FROM_LATEST);
    cursor->is_void = is_empty && shard->closed_ms && !o->one_shard;
    if (is_late)
        cursor->state = CURSOR_DONE;
    else if (is_read && !o->one_shard)
        cursor->state = CURSOR_ENDED;
    else if (is_at_tail && !shard->closed_ms)
        cursor->state = CURSOR_DONE;
    else if (!checkpoint && !o->one_shard && has_running_parent(s, cursor)) {
        cursor->state = CURSOR_WAITING;
        if (o->from.kind == WEIR_FROM_TIME)
            cursor->kind = WEIR_FROM_OLDEST; /* made when its parents closed, so after the moment */
    } else {
        cursor->state = cursor->is_void ? CURSOR_ENDED : CURSOR_READY;
    }
    return WEIR_OK;
}

static enum weir_status
begin(struct weir_subscription *s, const struct weir_topology *t,
      const struct known_checkpoints *known, struct weir_error *err)
{
    const struct weir_subscribe_options *o = &s->options;
    bool *follows = calloc(t->count + 1, sizeof *follows);
    enum weir_status st = follows ? WEIR_OK : WEIR_NO_MEMORY;
    for (size_t i = 0; !st && i < t->count; i++) {
        const struct weir_topology_shard *shard = &t->shards[i];
        if (o->one_shard && shard->index != o->shard)
            continue;
        int32_t parents[2] = {shard->parent, shard->adjacent_parent};
        bool descends = false;
        for (int k = 0; k < 2 && !o->one_shard; k++) {
            const struct weir_topology_shard *parent =
                parents[k] < 0 ? NULL : weir_topology_find(t, (uint32_t)parents[k]);
            descends |= find_checkpoint(known, parents[k]) != NULL;
            descends |= parent && follows[parent - t->shards];
        }
        follows[i] = descends || find_checkpoint(known, shard->index);
        st = begin_shard(s, shard, known, descends);
    }
    free(follows);
    if (st)
        return weir_fail(err, st, "no memory for a subscription");
    if (o->one_shard && !s->count)
        return weir_fail(err, WEIR_NOT_FOUND, "stream '%s' has no shard %u", s->stream, o->shard);
    return WEIR_OK;
}

static enum weir_status
check_options(struct weir_subscription *s, const struct weir_subscribe_options *o,
              struct weir_error *err)
{
    const char *consumer = o->consumer ? o->consumer : "";
    if (!o->stream || !o->stream[0] || strlen(o->stream) > WEIR_STREAM_NAME_MAX)
        return weir_fail(err, WEIR_INVALID, "a subscription needs a stream's name");
    if (strlen(consumer) > WEIR_CONSUMER_NAME_MAX)
        return weir_fail(err, WEIR_INVALID, "the consumer's name is too long");
    if ((o->take_checkpoint || o->from.kind == WEIR_FROM_CHECKPOINT) && !consumer[0])
        return weir_fail(err, WEIR_INVALID, "checkpoints need a consumer's name");
    if (o->from.kind > WEIR_FROM_CHECKPOINT || o->from.otherwise > WEIR_FROM_OLDEST)
        return weir_fail(err, WEIR_INVALID, "no such kind of position");
    if (o->from.kind == WEIR_FROM_OFFSET && !o->one_shard)
        return weir_fail(err, WEIR_INVALID, "an offset needs one shard");
    s->options = *o;
    s->options.stream = s->options.consumer = s->options.from.sequence = NULL; /* borrowed */
    snprintf(s->stream, sizeof s->stream, "%s", o->stream);
    snprintf(s->consumer, sizeof s->consumer, "%s", consumer);
    if (o->from.kind != WEIR_FROM_SEQUENCE)
        return WEIR_OK;
    struct weir_sequence sequence;
    if (!o->from.sequence || weir_sequence_parse(weir_bytes_of(o->from.sequence), &sequence))
        return weir_fail(err, WEIR_INVALID, "not a sequence number: '%s'",
                         o->from.sequence ? o->from.sequence : "");
    if (o->one_shard && o->shard && o->shard != sequence.shard_index)
        return weir_fail(err, WEIR_INVALID, "the sequence number is of shard %u, not %u",
                         sequence.shard_index, o->shard);
    s->options.one_shard = true;
    s->options.shard = sequence.shard_index;
    snprintf(s->sequence, sizeof s->sequence, "%s", o->from.sequence);
    return WEIR_OK;
}

static void
join(void *arg)
{
    struct weir_subscription *s = arg;
    snprintf(s->data_id, sizeof s->data_id, "%s", s->client->data_id);
    weir_list_push_back(&s->client->members, &s->member.node);
    advance(s);
}

static void
leave(void *arg)
{
    struct weir_subscription *s = arg;
    struct weir_loop *loop = s->client->loop;
    weir_member_remove(&s->member);
    weir_describe_cancel(&s->describe);
    leave_all(s);
    weir_timer_stop(loop, &s->later_timer);
    weir_timer_stop(loop, &s->refresh_timer);
    for (size_t i = 0; i < s->count; i++) {
        weir_call_cancel(&s->cursors[i]->later_call);
        weir_timer_stop(loop, &s->cursors[i]->credit_timer);
    }
}

enum weir_status
weir_subscribe(struct weir_client *client, const struct weir_subscribe_options *options,
               struct weir_subscription **out, struct weir_error *err)
{
    struct weir_topology t = {};
    struct known_checkpoints known = {};
    struct weir_subscription *s = calloc(1, sizeof *s);
    if (!s)
        return weir_fail(err, WEIR_NO_MEMORY, "no memory for a subscription");
    s->client = client;
    s->member = (struct weir_member){.up = on_up, .down = on_down};
    s->describe = (struct weir_describe){.stream = s->stream, .done = on_refreshed};
    s->task.run = on_task;
    s->later_timer.run = on_later_timer;
    s->refresh_timer.run = on_refresh_timer;
    s->fd = -1;
    atomic_init(&s->refs, 1);
    weir_list_init(&s->queue);
    weir_list_init(&s->freed);
    weir_list_init(&s->laters);
    pthread_mutex_init(&s->mtx, NULL);
    weir_cond_init(&s->changed);

    enum weir_status st = check_options(s, options, err);
    /* Checkpoints first: of a shard that one says was read to its end the children are known then.
     */
    if (!st && s->options.from.kind == WEIR_FROM_CHECKPOINT)
        st = weir_get_checkpoints(client, s->stream, s->consumer, know_checkpoint, &known, err);
    if (!st && known.failed)
        st = weir_fail(err, WEIR_NO_MEMORY, "no memory for a subscription");
    if (!st)
        st = weir_describe_wait(client, s->stream, true, &t, err);
    if (!st)
        st = begin(s, &t, &known, err);
    weir_topology_fini(&t);
    free(known.items);
    if (st) {
        release(s);
        return st;
    }
    weir_client_run(client, join, s);
    *out = s;
    return WEIR_OK;
}

void
weir_subscription_close(struct weir_subscription *s)
{
    if (!s)
        return;
    uint64_t deadline = weir_deadline_us(s->client, CLOSE_WAIT_MS);
    pthread_mutex_lock(&s->mtx);
    while ((s->laters_running || !weir_list_is_empty(&s->laters)) && !s->later_failure.status &&
           weir_cond_wait(s->client, &s->changed, &s->mtx, deadline))
        ;
    s->closed = true;
    s->over = true;
    pthread_mutex_unlock(&s->mtx);
    weir_client_run(s->client, leave, s);
    for (;;) {
        pthread_mutex_lock(&s->mtx);
        struct event *e = take_event(s);
        pthread_mutex_unlock(&s->mtx);
        if (!e)
            break;
        event_destroy(e);
    }
    release(s);
}
