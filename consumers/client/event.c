/* The queue of a subscription, and events in the program's hands.
 *
 * The loop puts events in, polling takes them out, freeing gives their credit back. Batches were
 * checked when they came; they are decompressed when their records are asked for. */
#include "client/subscription.h"
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
    SCRATCH_BYTES_MAX = 16 * 1024 * 1024,
};

/* ---- the queue ---- */

void
weir_subscription_wake(struct weir_subscription *s)
{
    if (s->fd >= 0)
        (void)!write(s->fd, &(uint64_t){1}, sizeof(uint64_t));
    pthread_cond_broadcast(&s->changed);
}

void
weir_subscription_end(struct weir_subscription *s, enum weir_status st, const char *text)
{
    pthread_mutex_lock(&s->mtx);
    if (!s->over) {
        s->over = true;
        (void)weir_fail(&s->end, st, "%s", text);
        weir_subscription_wake(s);
        if (!s->closed)
            weir_loop_post(s->client->loop, &s->task); /* leaves the channels */
    }
    pthread_mutex_unlock(&s->mtx);
}

struct weir_queued *
weir_queued_new(struct weir_subscription *s, struct weir_cursor *cursor, enum weir_event_kind kind)
{
    struct weir_queued *e = calloc(1, sizeof *e);
    if (!e) {
        weir_subscription_end(s, WEIR_NO_MEMORY, "no memory for an event");
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

void
weir_queued_put(struct weir_subscription *s, struct weir_queued *e)
{
    bool was_empty = weir_list_is_empty(&s->queue);
    weir_list_push_back(&s->queue, &e->node);
    if (was_empty)
        weir_subscription_wake(s);
}

void
weir_queued_tell(struct weir_queued *e)
{
    if (!e)
        return;
    pthread_mutex_lock(&e->sub->mtx);
    weir_queued_put(e->sub, e);
    pthread_mutex_unlock(&e->sub->mtx);
}

void
weir_subscription_release(struct weir_subscription *s)
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
next_batch(struct weir_queued *e)
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
    struct weir_queued *e = (struct weir_queued *)event;
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
            weir_subscription_end(e->sub, WEIR_DAMAGED, "a batch that was checked cannot be read");
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
give_back(struct weir_queued *e)
{
    struct weir_subscription *s = e->sub;
    struct weir_cursor *cursor = e->cursor;
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

void
weir_queued_free(struct weir_queued *e)
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
    struct weir_queued *e = (struct weir_queued *)event;
    struct weir_subscription *s = e->sub;
    weir_queued_free(e);
    weir_subscription_release(s);
}

/* Under mtx: the descriptor is readable no longer, where nothing waits. */
static void
calm(struct weir_subscription *s)
{
    if (s->fd >= 0 && weir_list_is_empty(&s->queue) && !s->over && !s->later_failure.status)
        (void)!read(s->fd, &(uint64_t){0}, sizeof(uint64_t));
}

struct weir_queued *
weir_queued_take(struct weir_subscription *s)
{
    struct weir_list *node = weir_list_pop_front(&s->queue);
    if (!node)
        return NULL;
    struct weir_queued *e = WEIR_CONTAINER(node, struct weir_queued, node);
    struct weir_cursor *cursor = e->cursor;
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
        struct weir_queued *e = weir_queued_take(s);
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
            weir_subscription_wake(s);
    }
    int fd = s->fd;
    pthread_mutex_unlock(&s->mtx);
    return fd;
}
