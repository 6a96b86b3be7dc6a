/* The producer.
 *
 *   put ──hash key──> route ──> lane of the shard
 *                                 open chunk ──full, due, flushed──> full chunks
 *   any thread, short lock ─────────────────────────────────────────────┤
 *   loop                      finish (compress, number) ──> unacked ──PRODUCE──> broker
 *                                                              <──ACK── settle in order
 *
 * A lane is one shard's way to the broker; a chunk is a batch on that way. What can go wrong:
 *
 * - The broker refuses for now (AGAIN, NO_SPACE, …). It also refuses what came behind, whose number
 * now skips one. The lane takes no more until all that was sent is answered, waits, and sends again
 * from the first that is not stored, under the same numbers.
 * - The connection breaks. What was sent is uncertain; it is sent again on the next connection and
 *   answered DUPLICATE where it was stored.
 * - The shard was closed (MOVED). When the lane knows of each batch whether it was stored, the
 * records of those that were not are put into the lanes of the open shards below, in order, under
 * the lock: later puts of the same keys come behind them.
 * - A batch is refused for good, or was not stored in time. It fails, and the lane takes a new
 * producer id, because the numbers behind it would skip one.
 *
 * An uncertain batch is never put anywhere but under its number: it is stored once or reported as
 * UNKNOWN. */
#include "base/assert.h"
#include "client/client.h"
#include "record/batch.h"
#include <stdio.h>
#include <stdlib.h>

enum {
    MEMORY_DEFAULT = 32 * 1024 * 1024,
    LINGER_DEFAULT_MS = 2,
    IN_FLIGHT_DEFAULT = 16,
    RETRY_DEFAULT_MS = 120000,
    RETRY_BASE_US = 10 * 1000,
    RETRY_LIMIT_US = 1000 * 1000,
    OVERDUE_US = 10 * 1000 * 1000, /* in flight after its time is up: the connection is of no use */
    SPARE_BUILDERS = 16,
    RECORD_OVERHEAD = sizeof(struct weir_record_header) + sizeof(weir_le128),
};

struct chunk {
    struct weir_list node;
    struct weir_batch_builder *builder; /* while records come */
    struct weir_buf *batch;             /* then */
    uint64_t serial, number, first_us, bytes, offset, at_ms;
    uint32_t count;
    void **tags; /* NULL: all are NULL */
    size_t tags_capacity;
    bool unhashed;  /* records came without a hash key: the batch states the lane's whole range */
    bool sent;      /* once at least */
    bool in_flight; /* sent on this connection, not answered */
    bool uncertain; /* sent before, and nobody told whether it is stored */
    bool done;
    uint8_t invalid_count;
    enum weir_status st;
};

enum lane_state {
    LANE_CLOSED,
    LANE_OPENING, /* asked for a channel */
    LANE_OPEN,
    LANE_ROUTING, /* moved and certain: waits for the new topology */
    LANE_GONE     /* its records went elsewhere */
};

struct lane {
    struct weir_channel channel;
    struct weir_producer *producer;
    struct weir_list node;
    uint32_t shard;
    struct weir_hash_range range;

    /* loop only */
    enum lane_state state;
    weir_u128 id;
    uint64_t next_number, window_bytes, in_flight_bytes;
    uint32_t in_flight, failures;
    struct weir_list unacked;
    bool moved, rewinding, renewing, describing;
    struct weir_timer retry;
    struct weir_call call;
    char text[512]; /* why the last thing failed */

    /* shared, under the producer's mtx */
    struct chunk *open;
    struct weir_list full;
    struct weir_list dirty;  /* wants the loop's attention */
    struct weir_list linger; /* the open chunk waits for its moment */
};

struct route {
    struct weir_hash_range range;
    struct lane *lane;
};

struct flush {
    struct weir_list node;
    uint64_t before; /* waits for chunks of smaller serials */
    size_t left;
    pthread_cond_t cond;
};

struct weir_producer {
    struct weir_client *client;
    struct weir_member member;
    char stream[WEIR_STREAM_NAME_MAX + 1];
    uint64_t batch_bytes, memory_bytes, retry_us;
    int64_t linger_us; /* -1: none */
    uint32_t in_flight_max;
    enum weir_codec codec;
    bool deduplicates;
    void (*on_ack)(void *arg, const struct weir_ack *ack);
    void (*on_batch_ack)(void *arg, enum weir_status st, uint32_t shard, uint64_t offset,
                         uint32_t count);
    void *arg;
    atomic_bool hashes; /* more than one shard: puts need the hash key */
    struct weir_task task;

    /* loop only */
    struct weir_list lanes;
    struct weir_timer linger, expiry;
    struct weir_describe describe;

    /* shared, under mtx */
    pthread_mutex_t mtx;
    pthread_cond_t room;
    struct route *routes; /* by range; together the whole ring */
    size_t route_count;
    uint64_t record_bytes_max;
    struct weir_list dirty, lingering, flushes;
    uint32_t flushing, blocked;
    uint64_t next_serial;
    size_t live; /* chunks */
    struct weir_batch_builder *spare[SPARE_BUILDERS];
    uint32_t spare_count;
    struct weir_producer_numbers numbers;
    struct weir_error failure; /* the first since the last flush */
    enum weir_status over;     /* nothing can be put any more */
};

static void pump(struct lane *lane);

/* ---- chunks (under mtx) ---- */

static struct chunk *
chunk_new(struct weir_producer *p, uint64_t serial, uint64_t first_us)
{
    struct chunk *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    if (p->spare_count)
        c->builder = p->spare[--p->spare_count];
    else if (weir_batch_builder_new(p->batch_bytes, &c->builder)) {
        free(c);
        return NULL;
    }
    c->serial = serial;
    c->first_us = first_us;
    p->live++;
    WEIR_LIST_FOR_EACH (node, &p->flushes) {
        struct flush *f = WEIR_CONTAINER(node, struct flush, node);
        f->left += serial < f->before;
    }
    return c;
}

static void
keep_builder(struct weir_producer *p, struct chunk *c)
{
    if (c->builder && p->spare_count < SPARE_BUILDERS && weir_batch_builder_count(c->builder) == 0)
        p->spare[p->spare_count++] = c->builder;
    else
        weir_batch_builder_free(c->builder);
    c->builder = NULL;
}

/* The end of a chunk, whatever became of its records. */
static void
chunk_free(struct weir_producer *p, struct chunk *c)
{
    keep_builder(p, c);
    p->live--;
    WEIR_LIST_FOR_EACH (node, &p->flushes) {
        struct flush *f = WEIR_CONTAINER(node, struct flush, node);
        if (c->serial < f->before && --f->left == 0)
            pthread_cond_signal(&f->cond);
    }
    weir_buf_unref(c->batch);
    free(c->tags);
    free(c);
}

static bool
chunk_tag(struct chunk *c, void *tag)
{
    if (!c->tags && !tag)
        return true;
    if (c->count >= c->tags_capacity) {
        size_t capacity = c->tags_capacity ? 2 * c->tags_capacity : 64;
        while (capacity <= c->count)
            capacity *= 2;
        void **tags = realloc(c->tags, capacity * sizeof *tags);
        if (!tags)
            return false;
        memset(tags + c->tags_capacity, 0, (capacity - c->tags_capacity) * sizeof *tags);
        c->tags = tags;
        c->tags_capacity = capacity;
    }
    c->tags[c->count] = tag;
    return true;
}

static void
mark_dirty(struct lane *lane)
{
    struct weir_producer *p = lane->producer;
    if (weir_list_is_linked(&lane->dirty))
        return;
    weir_list_push_back(&p->dirty, &lane->dirty);
    weir_loop_post(p->client->loop, &p->task);
}

static void
seal(struct lane *lane)
{
    weir_list_push_back(&lane->full, &lane->open->node);
    lane->open = NULL;
    weir_list_remove(&lane->linger);
}

/* Adds a record to the lane's open chunk. NO_MEMORY, INVALID, TOO_BIG: it was not added. */
static enum weir_status
lane_add(struct lane *lane, const struct weir_record *record, weir_u128 hash, bool is_hashed,
         void *tag, uint64_t serial, uint64_t first_us)
{
    struct weir_producer *p = lane->producer;
    for (;;) {
        if (!lane->open) {
            lane->open = chunk_new(p, serial, first_us);
            if (!lane->open)
                return WEIR_NO_MEMORY;
        }
        struct chunk *c = lane->open;
        enum weir_status st =
            chunk_tag(c, tag) ? weir_batch_builder_add(c->builder, record, hash) : WEIR_NO_MEMORY;
        if (st == WEIR_OK) {
            uint64_t bytes = record->key.len + record->data.len + RECORD_OVERHEAD;
            c->count++;
            c->bytes += bytes;
            c->unhashed |= !is_hashed;
            return WEIR_OK;
        }
        if (c->count == 0) {
            lane->open = NULL;
            chunk_free(p, c);
            return st;
        }
        if (st != WEIR_AGAIN)
            return st;
        seal(lane);
    }
}

static struct route *
find_route(struct weir_producer *p, weir_u128 hash)
{
    size_t low = 0, high = p->route_count - 1;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (p->routes[middle].range.high < hash)
            low = middle + 1;
        else
            high = middle;
    }
    return &p->routes[low];
}

/* ---- put ---- */

/* Under mtx. */
static enum weir_status
wait_for_room(struct weir_producer *p, uint64_t bytes, int64_t timeout_ms)
{
    struct weir_client *client = p->client;
    enum weir_status st = WEIR_OK;
    if (!p->numbers.bytes_waiting || p->numbers.bytes_waiting + bytes <= p->memory_bytes)
        return WEIR_OK;
    if (timeout_ms == 0 || weir_loop_is_current(client->loop))
        return WEIR_AGAIN;
    uint64_t deadline = weir_deadline_us(client, timeout_ms);
    /* Chunks need not wait for their moment while a put waits for room. */
    p->blocked++;
    weir_loop_post(client->loop, &p->task);
    while (!p->over && p->numbers.bytes_waiting &&
           p->numbers.bytes_waiting + bytes > p->memory_bytes) {
        if (!weir_cond_wait(client, &p->room, &p->mtx, deadline)) {
            st = WEIR_AGAIN;
            break;
        }
    }
    p->blocked--;
    return st;
}

static enum weir_status
put(struct weir_producer *p, const struct weir_record *record, void *tag, int64_t timeout_ms)
{
    if (record->key.len == 0 || record->key.len > WEIR_KEY_BYTES_MAX)
        return WEIR_INVALID;
    if (record->data.len > WEIR_RECORD_BYTES_MAX)
        return WEIR_TOO_BIG;
    weir_u128 hash = record->explicit_hash;
    bool is_hashed = record->has_explicit_hash;
    if (!is_hashed && atomic_load_explicit(&p->hashes, memory_order_relaxed)) {
        hash = weir_hash_key(record->key);
        is_hashed = true;
    }
    uint64_t bytes = record->key.len + record->data.len + RECORD_OVERHEAD;

    pthread_mutex_lock(&p->mtx);
    enum weir_status st = wait_for_room(p, bytes, timeout_ms);
    if (!st)
        st = p->over;
    if (!st && record->key.len + record->data.len > p->record_bytes_max)
        st = WEIR_TOO_BIG;
    if (st)
        goto done;
    if (!is_hashed && atomic_load_explicit(&p->hashes, memory_order_relaxed)) {
        hash = weir_hash_key(record->key);
        is_hashed = true;
    }
    struct lane *lane = find_route(p, hash)->lane;
    bool was_full = !weir_list_is_empty(&lane->full);
    st = lane_add(lane, record, hash, is_hashed, tag, p->next_serial, 0);
    if (st)
        goto done;
    p->numbers.records_put++;
    p->numbers.bytes_put += record->key.len + record->data.len;
    p->numbers.bytes_waiting += bytes;
    struct chunk *c = lane->open;
    if (c->count == 1) {
        p->next_serial++;
        c->first_us = weir_mono_us(p->client->sys.clock);
        weir_list_push_back(&p->lingering, &lane->linger);
        mark_dirty(lane);
    }
    if (weir_batch_builder_raw_size(c->builder) + bytes > p->batch_bytes)
        seal(lane); /* the next of this size would not fit */
    if (!was_full && !weir_list_is_empty(&lane->full))
        mark_dirty(lane);
done:
    pthread_mutex_unlock(&p->mtx);
    return st;
}

enum weir_status
weir_put(struct weir_producer *p, const void *key, size_t key_len, const void *data,
         size_t data_len, void *tag, int64_t timeout_ms)
{
    struct weir_record record = {.key = weir_bytes(key, key_len),
                                 .data = weir_bytes(data, data_len)};
    return put(p, &record, tag, timeout_ms);
}

enum weir_status
weir_put_hashed(struct weir_producer *p, const void *key, size_t key_len, const char *explicit_hash,
                const void *data, size_t data_len, void *tag, int64_t timeout_ms)
{
    struct weir_record record = {.key = weir_bytes(key, key_len),
                                 .data = weir_bytes(data, data_len),
                                 .has_explicit_hash = true};
    if (weir_u128_parse(weir_bytes_of(explicit_hash), &record.explicit_hash))
        return WEIR_INVALID;
    return put(p, &record, tag, timeout_ms);
}

/* ---- what became of a chunk (loop) ---- */

static void
note_failure(struct weir_producer *p, enum weir_status st, uint32_t count, const char *text)
{
    p->numbers.records_failed += count;
    if (!p->failure.status)
        (void)weir_fail(&p->failure, st, "%s", text);
}

/* Tells the program, and lets the chunk go. Without mtx. */
static void
report(struct lane *lane, struct chunk *c, const char *text)
{
    struct weir_producer *p = lane->producer;
    bool is_stored = !c->st || c->st == WEIR_DUPLICATE;
    if (p->on_ack) {
        struct weir_ack ack = {.status = c->st,
                               .shard = lane->shard,
                               .at_ms = c->at_ms,
                               .text = is_stored ? NULL : text};
        for (uint32_t i = 0; i < c->count; i++) {
            ack.tag = c->tags ? c->tags[i] : NULL;
            ack.offset = c->st ? 0 : c->offset + i;
            p->on_ack(p->arg, &ack);
        }
    }
    if (p->on_batch_ack)
        p->on_batch_ack(p->arg, c->st, lane->shard, c->st ? 0 : c->offset, c->count);

    pthread_mutex_lock(&p->mtx);
    p->numbers.bytes_waiting -= c->bytes;
    if (!is_stored) {
        note_failure(p, c->st, c->count, text);
    } else {
        p->numbers.records_acked += c->count;
        p->numbers.batches_acked++;
    }
    chunk_free(p, c);
    if (p->blocked)
        pthread_cond_broadcast(&p->room);
    pthread_mutex_unlock(&p->mtx);
}

/* In order: what is done behind something that is not waits. */
static void
settle(struct lane *lane)
{
    while (!weir_list_is_empty(&lane->unacked)) {
        struct chunk *c = WEIR_CONTAINER(lane->unacked.next, struct chunk, node);
        if (!c->done)
            return;
        weir_list_remove(&c->node);
        report(lane, c, lane->text[0] ? lane->text : weir_status_text(c->st));
    }
}

static struct chunk *
first_undone(struct lane *lane)
{
    WEIR_LIST_FOR_EACH (node, &lane->unacked) {
        struct chunk *c = WEIR_CONTAINER(node, struct chunk, node);
        if (!c->done)
            return c;
    }
    return NULL;
}

static void
fail_chunk(struct chunk *c, enum weir_status st)
{
    c->done = true;
    c->st = st;
}

static bool
fail_uncertain(struct lane *lane)
{
    bool any = false;
    WEIR_LIST_FOR_EACH (node, &lane->unacked) {
        struct chunk *c = WEIR_CONTAINER(node, struct chunk, node);
        if (!c->done && c->uncertain) {
            fail_chunk(c, WEIR_UNKNOWN);
            any = true;
        }
    }
    return any;
}

static bool
is_uncertain(const struct lane *lane)
{
    WEIR_LIST_FOR_EACH (node, &lane->unacked) {
        const struct chunk *c = WEIR_CONTAINER(node, struct chunk, node);
        if (!c->done && c->uncertain)
            return true;
    }
    return false;
}

/* Everything of the lane fails. */
static void
fail_lane(struct lane *lane, enum weir_status st)
{
    struct weir_producer *p = lane->producer;
    WEIR_LIST_FOR_EACH (node, &lane->unacked) {
        struct chunk *c = WEIR_CONTAINER(node, struct chunk, node);
        if (!c->done)
            fail_chunk(c, c->uncertain || c->in_flight ? WEIR_UNKNOWN : st);
        c->in_flight = false;
    }
    lane->in_flight = 0;
    lane->in_flight_bytes = 0;
    settle(lane);
    for (;;) {
        pthread_mutex_lock(&p->mtx);
        if (weir_list_is_empty(&lane->full) && lane->open)
            seal(lane);
        struct weir_list *node = weir_list_pop_front(&lane->full);
        pthread_mutex_unlock(&p->mtx);
        if (!node)
            return;
        struct chunk *c = WEIR_CONTAINER(node, struct chunk, node);
        fail_chunk(c, st);
        report(lane, c, lane->text[0] ? lane->text : weir_status_text(st));
    }
}

/* ---- sending ---- */

/* Writes the producer's fields of the header anew. The transport may still hold the old one. */
static bool
stamp(struct chunk *c, weir_u128 id, uint64_t number)
{
    if (!weir_buf_is_sole(c->batch)) {
        struct weir_buf *copy = weir_buf_copy(weir_buf_bytes(c->batch));
        if (!copy)
            return false;
        weir_buf_unref(c->batch);
        c->batch = copy;
    }
    struct weir_batch_header *h = (struct weir_batch_header *)(void *)c->batch->data;
    h->producer = weir_put128(id);
    h->number = weir_put64(number);
    c->number = number;
    return true;
}

/* A new producer id: the numbers begin again with the first batch that is not done. Nothing is in
 * flight, nothing is uncertain that could still be stored. */
static void
renew(struct lane *lane)
{
    struct weir_producer *p = lane->producer;
    WEIR_ASSERT(lane->in_flight == 0);
    weir_call_cancel(&lane->call);
    weir_channel_close(p->client, &lane->channel, true);
    if (lane->state == LANE_OPENING || lane->state == LANE_OPEN)
        lane->state = LANE_CLOSED;
    lane->renewing = false;
    lane->id = p->deduplicates ? weir_random_id() : 0;
    lane->next_number = 1;
    WEIR_LIST_FOR_EACH (node, &lane->unacked) {
        struct chunk *c = WEIR_CONTAINER(node, struct chunk, node);
        if (c->done)
            continue;
        c->uncertain = false;
        if (stamp(c, lane->id, lane->next_number))
            lane->next_number++;
        else
            fail_chunk(c, WEIR_NO_MEMORY);
    }
    settle(lane);
}

static bool
has_window(const struct lane *lane, const struct chunk *c)
{
    if (lane->in_flight == 0)
        return true;
    return lane->in_flight < lane->producer->in_flight_max &&
           lane->in_flight_bytes + c->batch->len <= lane->window_bytes;
}

static void
send_chunk(struct lane *lane, struct chunk *c)
{
    struct weir_producer *p = lane->producer;
    struct weir_frame head = {
        .kind = WEIR_FRAME_PRODUCE, .channel = lane->channel.id, .number = c->number};
    c->in_flight = c->sent = true;
    lane->in_flight++;
    lane->in_flight_bytes += c->batch->len;
    p->client->unanswered++;
    pthread_mutex_lock(&p->mtx);
    p->numbers.batches_sent++;
    p->numbers.bytes_sent += c->batch->len;
    pthread_mutex_unlock(&p->mtx);
    weir_client_send(p->client, &head, c->batch);
}

static bool
is_due(const struct weir_producer *p, const struct chunk *c, uint64_t now_us)
{
    return p->linger_us < 0 || p->flushing || p->blocked ||
           now_us >= c->first_us + (uint64_t)p->linger_us;
}

/* The next chunk that is to be sent, or NULL. */
static struct chunk *
take_chunk(struct lane *lane)
{
    struct weir_producer *p = lane->producer;
    pthread_mutex_lock(&p->mtx);
    if (weir_list_is_empty(&lane->full) && lane->open &&
        is_due(p, lane->open, weir_mono_us(p->client->sys.clock)))
        seal(lane);
    struct weir_list *node = weir_list_pop_front(&lane->full);
    pthread_mutex_unlock(&p->mtx);
    return node ? WEIR_CONTAINER(node, struct chunk, node) : NULL;
}

/* From records to a batch with the lane's next number, behind those that wait for their ack. */
static bool
finish_chunk(struct lane *lane, struct chunk *c)
{
    struct weir_producer *p = lane->producer;
    if (weir_batch_builder_finish(c->builder, p->codec, lane->id, lane->next_number, &c->batch))
        return false;
    c->number = lane->next_number++;
    if (c->unhashed) {
        struct weir_batch_header *h = (struct weir_batch_header *)(void *)c->batch->data;
        h->hash_low = weir_put128(lane->range.low);
        h->hash_high = weir_put128(lane->range.high);
    }
    pthread_mutex_lock(&p->mtx);
    keep_builder(p, c);
    pthread_mutex_unlock(&p->mtx);
    weir_list_push_back(&lane->unacked, &c->node);
    return true;
}

static void
wait_and_retry(struct lane *lane)
{
    struct weir_client *client = lane->producer->client;
    weir_timer_start(client->loop, &lane->retry,
                     weir_backoff_us(client, lane->failures++, RETRY_BASE_US, RETRY_LIMIT_US));
}

/* Sends what is numbered and not in flight: refused, lost, or left over by the window. False when
 * the window is full. */
static bool
send_unacked(struct lane *lane, bool only_uncertain)
{
    struct weir_producer *p = lane->producer;
    WEIR_LIST_FOR_EACH (node, &lane->unacked) {
        struct chunk *c = WEIR_CONTAINER(node, struct chunk, node);
        if (c->done || c->in_flight || (only_uncertain && !c->uncertain))
            continue;
        if (!has_window(lane, c))
            return false;
        pthread_mutex_lock(&p->mtx);
        p->numbers.retries += c->sent;
        pthread_mutex_unlock(&p->mtx);
        send_chunk(lane, c);
    }
    return true;
}

static void
send_new(struct lane *lane)
{
    /* A chunk's size is known only when it is finished, so it is finished first: one batch may wait
     * among the unacked for room in the window. */
    while (lane->in_flight < lane->producer->in_flight_max &&
           lane->in_flight_bytes < lane->window_bytes) {
        struct chunk *c = take_chunk(lane);
        if (!c)
            return;
        if (!finish_chunk(lane, c)) {
            pthread_mutex_lock(&lane->producer->mtx);
            weir_list_push_front(&lane->full, &c->node);
            pthread_mutex_unlock(&lane->producer->mtx);
            snprintf(lane->text, sizeof lane->text, "no memory for a batch");
            wait_and_retry(lane);
            return;
        }
        if (!has_window(lane, c))
            return;
        send_chunk(lane, c);
    }
}

static bool
has_work(struct lane *lane)
{
    struct weir_producer *p = lane->producer;
    if (first_undone(lane))
        return true;
    pthread_mutex_lock(&p->mtx);
    bool some = lane->open || !weir_list_is_empty(&lane->full);
    pthread_mutex_unlock(&p->mtx);
    return some;
}

static void open_lane(struct lane *lane);
static void ask_for_routes(struct weir_producer *p);

/* Does what the lane can do next. */
static void
pump(struct lane *lane)
{
    struct weir_client *client = lane->producer->client;
    if (lane->state == LANE_GONE || lane->state == LANE_ROUTING || lane->state == LANE_OPENING ||
        weir_timer_is_started(&lane->retry))
        return;
    if (lane->in_flight == 0) {
        if (lane->renewing && !is_uncertain(lane))
            renew(lane);
        if (lane->moved && !is_uncertain(lane)) {
            lane->state = LANE_ROUTING;
            ask_for_routes(lane->producer);
            return;
        }
        if (lane->rewinding) {
            lane->rewinding = false;
            wait_and_retry(lane);
            return;
        }
    }
    if (!weir_client_is_up(client))
        return;
    if (lane->state == LANE_CLOSED) {
        if (lane->moved || has_work(lane))
            open_lane(lane);
        return;
    }
    if (lane->rewinding)
        return;
    /* A lane on its way to other shards or to a new id asks only for what it must know first. */
    bool only_uncertain = lane->moved || lane->renewing;
    if (send_unacked(lane, only_uncertain) && !only_uncertain)
        send_new(lane);
}

static void
on_retry(struct weir_timer *timer)
{
    pump(WEIR_CONTAINER(timer, struct lane, retry));
}

/* ---- answers ---- */

static struct chunk *
find_in_flight(struct lane *lane, uint64_t number)
{
    WEIR_LIST_FOR_EACH (node, &lane->unacked) {
        struct chunk *c = WEIR_CONTAINER(node, struct chunk, node);
        if (c->number == number && c->in_flight)
            return c;
    }
    return NULL;
}

/* The broker says that it did not store the batch. */
static void
refused(struct lane *lane, struct chunk *c, enum weir_status st)
{
    snprintf(lane->text, sizeof lane->text, "shard %u: %s", lane->shard, weir_status_text(st));
    switch (st) {
    case WEIR_MOVED:
    case WEIR_FENCED:
    case WEIR_NOT_FOUND:
        c->uncertain = false;
        lane->moved = true;
        break;
    case WEIR_UNKNOWN:
    case WEIR_TIMEOUT:
        c->uncertain = true;
        lane->rewinding = true;
        break;
    case WEIR_AGAIN:
    case WEIR_THROTTLED:
    case WEIR_NO_SPACE:
    case WEIR_NO_MEMORY:
    case WEIR_UNAVAILABLE:
    case WEIR_BUSY:
    case WEIR_IO:
    case WEIR_CANCELLED:
        lane->rewinding = true;
        break;
    case WEIR_INVALID:
        /* Mostly a number that skips one, behind a refusal. Where it is the first, the broker does
         * not know our numbers any more; a new id will do, and if not, the batch itself is meant.
         */
        c->uncertain = false;
        if (lane->rewinding || lane->renewing || lane->moved || c != first_undone(lane)) {
            lane->rewinding = true;
            break;
        }
        if (c->invalid_count++ == 0) {
            lane->renewing = true;
            break;
        }
        [[fallthrough]];
    default:
        c->uncertain = false;
        fail_chunk(c, st);
        lane->renewing = true;
        break;
    }
}

static void
on_frame(struct weir_channel *channel, const struct weir_frame *frame, struct weir_buf *message)
{
    (void)message;
    struct lane *lane = WEIR_CONTAINER(channel, struct lane, channel);
    if (frame->kind != WEIR_FRAME_ACK)
        return;
    struct chunk *c = find_in_flight(lane, frame->number);
    if (!c)
        return;
    c->in_flight = false;
    lane->in_flight--;
    lane->in_flight_bytes -= c->batch->len;
    if (frame->status == WEIR_OK || frame->status == WEIR_DUPLICATE) {
        c->done = true;
        /* The broker knows the places of a producer's latest batches only. */
        bool is_placed = frame->status == WEIR_OK || frame->value;
        c->st = is_placed ? WEIR_OK : WEIR_DUPLICATE;
        c->offset = frame->offset;
        c->at_ms = frame->value;
        c->uncertain = false;
        lane->failures = 0;
        lane->text[0] = 0;
    } else {
        refused(lane, c, frame->status);
    }
    settle(lane);
    pump(lane);
}

/* ---- opening ---- */

static void
opened(struct lane *lane, const Weir__ProducerOpened *o)
{
    struct weir_producer *p = lane->producer;
    lane->state = LANE_OPEN;
    lane->window_bytes = o->window_bytes ? o->window_bytes : UINT64_MAX;
    if (!weir_channel_open(p->client, &lane->channel, o->channel)) {
        lane->state = LANE_CLOSED;
        return;
    }
    if (o->record_bytes_max) {
        pthread_mutex_lock(&p->mtx);
        p->record_bytes_max = o->record_bytes_max;
        pthread_mutex_unlock(&p->mtx);
    }
    struct chunk *first = first_undone(lane);
    uint64_t number = first ? first->number : lane->next_number;
    bool continues = number == 1 || (o->known && o->last_number + 1 >= number);
    if (p->deduplicates && !continues) {
        /* The broker forgot us, or lost what it had acknowledged: what is uncertain stays so. */
        snprintf(lane->text, sizeof lane->text,
                 "shard %u: the broker no longer knows what it stored of this producer",
                 lane->shard);
        fail_uncertain(lane);
        settle(lane);
        lane->renewing = true;
    }
    pump(lane);
}

static void
on_opened(struct weir_call *call, enum weir_status st, Weir__Reply *reply, const char *text)
{
    struct lane *lane = WEIR_CONTAINER(call, struct lane, call);
    lane->state = LANE_CLOSED;
    if (!st && reply->result_case != WEIR__REPLY__RESULT_PRODUCER)
        st = WEIR_UNSUPPORTED;
    if (!st) {
        opened(lane, reply->producer);
    } else {
        snprintf(lane->text, sizeof lane->text, "shard %u: %s", lane->shard, text);
        if (st == WEIR_MOVED || st == WEIR_FENCED || st == WEIR_NOT_FOUND) {
            fail_uncertain(lane);
            settle(lane);
            lane->moved = true;
            pump(lane);
        } else if (weir_status_retryable(st) || st == WEIR_TIMEOUT || st == WEIR_NO_MEMORY ||
                   st == WEIR_IO || st == WEIR_CANCELLED || st == WEIR_UNKNOWN) {
            wait_and_retry(lane);
        } else {
            fail_lane(lane, st);
        }
    }
    if (reply)
        weir_message_free(&reply->base);
}

static void
open_lane(struct lane *lane)
{
    struct weir_producer *p = lane->producer;
    uint8_t id[16];
    Weir__OpenProducer op = WEIR__OPEN_PRODUCER__INIT;
    Weir__Request request = WEIR__REQUEST__INIT;
    op.stream = p->stream;
    op.shard = lane->shard;
    if (p->deduplicates) {
        weir_le128 le = weir_put128(lane->id);
        memcpy(id, &le, sizeof id);
        op.producer = (ProtobufCBinaryData){sizeof id, id};
    }
    request.op_case = WEIR__REQUEST__OP_OPEN_PRODUCER;
    request.open_producer = &op;
    lane->state = LANE_OPENING;
    lane->call.mode = WEIR_CALL_BOUND;
    lane->call.done = on_opened;
    weir_call_start(p->client, &lane->call, &request, WEIR_CALL_TIMEOUT_MS);
}

/* ---- routes ---- */

static struct lane *
lane_new(struct weir_producer *p, const struct weir_topology_shard *shard)
{
    struct lane *lane = calloc(1, sizeof *lane);
    if (!lane)
        return NULL;
    lane->channel.frame = on_frame;
    lane->producer = p;
    lane->shard = shard->index;
    lane->range = shard->range;
    lane->id = p->deduplicates ? weir_random_id() : 0;
    lane->next_number = 1;
    lane->retry.run = on_retry;
    weir_list_init(&lane->unacked);
    weir_list_init(&lane->full);
    weir_list_push_back(&p->lanes, &lane->node);
    return lane;
}

static struct lane *
find_lane(struct weir_producer *p, uint32_t shard)
{
    WEIR_LIST_FOR_EACH (node, &p->lanes) {
        struct lane *lane = WEIR_CONTAINER(node, struct lane, node);
        if (lane->shard == shard && lane->state != LANE_GONE)
            return lane;
    }
    return NULL;
}

static int
compare_routes(const void *a, const void *b)
{
    const struct route *x = a, *y = b;
    return x->range.low < y->range.low ? -1 : x->range.low > y->range.low;
}

/* True when the routes cover the ring, each hash key once. */
static bool
routes_are_whole(const struct route *routes, size_t count)
{
    if (!count || routes[0].range.low != 0 || routes[count - 1].range.high != WEIR_U128_MAX)
        return false;
    for (size_t i = 1; i < count; i++) {
        if (routes[i].range.low != routes[i - 1].range.high + 1)
            return false;
    }
    return true;
}

/* The routes with those to `from` (NULL: all of the ring) going to the open shards instead. NULL:
 * the topology does not cover what it should, or no memory. */
static struct route *
make_routes(struct weir_producer *p, const struct lane *from, const struct weir_topology *t,
            size_t *count_out)
{
    struct route whole = {.range = {0, WEIR_U128_MAX}};
    const struct route *old = from ? p->routes : &whole;
    size_t old_count = from ? p->route_count : 1, most = 0, count = 0;
    for (size_t i = 0; i < old_count; i++)
        most += old[i].lane == from ? t->count : 1;
    struct route *routes = calloc(most ? most : 1, sizeof *routes);
    if (!routes)
        return NULL;
    for (size_t i = 0; i < old_count; i++) {
        if (old[i].lane != from) {
            routes[count++] = old[i];
            continue;
        }
        for (size_t k = 0; k < t->count; k++) {
            const struct weir_topology_shard *s = &t->shards[k];
            struct weir_hash_range both = {
                s->range.low > old[i].range.low ? s->range.low : old[i].range.low,
                s->range.high < old[i].range.high ? s->range.high : old[i].range.high};
            if (s->closed_ms || both.low > both.high)
                continue;
            struct lane *lane = find_lane(p, s->index);
            if (!lane)
                lane = lane_new(p, s);
            if (!lane)
                goto failed;
            routes[count++] = (struct route){both, lane};
        }
    }
    qsort(routes, count, sizeof *routes, compare_routes);
    if (!routes_are_whole(routes, count))
        goto failed;
    /* Neighbours that go to the same lane are one route. */
    size_t last = 0;
    for (size_t i = 1; i < count; i++) {
        if (routes[i].lane == routes[last].lane)
            routes[last].range.high = routes[i].range.high;
        else
            routes[++last] = routes[i];
    }
    *count_out = last + 1;
    return routes;
failed:
    free(routes);
    return NULL;
}

/* Puts the records of one batch into the lanes where they belong now; what stays in the chunk did
 * not find memory. Under mtx. */
static void
move_batch(struct weir_producer *p, struct chunk *c, struct weir_scratch *scratch)
{
    struct weir_batch_reader reader;
    struct weir_record record;
    uint32_t moved = 0;
    if (weir_batch_reader_init(&reader, weir_buf_bytes(c->batch), scratch))
        return;
    while (weir_batch_reader_next(&reader, &record) == WEIR_OK) {
        weir_u128 hash =
            record.has_explicit_hash ? record.explicit_hash : weir_hash_key(record.key);
        void *tag = c->tags ? c->tags[moved] : NULL;
        if (lane_add(find_route(p, hash)->lane, &record, hash, true, tag, c->serial, c->first_us))
            break;
        c->bytes -= record.key.len + record.data.len + RECORD_OVERHEAD;
        moved++;
    }
    c->count -= moved;
    if (c->tags && c->count)
        memmove(c->tags, c->tags + moved, c->count * sizeof *c->tags);
}

/* From a closed shard's lane to the open ones. */
static void
move_lane(struct lane *lane, const struct weir_topology *t)
{
    struct weir_producer *p = lane->producer;
    struct weir_scratch scratch = {};
    struct weir_list rest;
    weir_list_init(&rest);
    size_t count;

    pthread_mutex_lock(&p->mtx);
    struct route *routes = make_routes(p, lane, t, &count);
    if (!routes) {
        pthread_mutex_unlock(&p->mtx);
        snprintf(lane->text, sizeof lane->text, "shard %u is closed and no open one follows",
                 lane->shard);
        lane->state = LANE_CLOSED;
        wait_and_retry(lane);
        return;
    }
    free(p->routes);
    p->routes = routes;
    p->route_count = count;
    atomic_store_explicit(&p->hashes, count > 1, memory_order_relaxed);
    lane->state = LANE_GONE;

    /* What the other lanes hold are other keys: their chunks are kept apart from the moved ones,
     * whose serials are older. */
    WEIR_LIST_FOR_EACH (node, &p->lanes) {
        struct lane *other = WEIR_CONTAINER(node, struct lane, node);
        if (other != lane && other->open)
            seal(other);
    }
    if (lane->open)
        seal(lane);
    while (!weir_list_is_empty(&lane->full)) {
        struct chunk *c = WEIR_CONTAINER(weir_list_pop_front(&lane->full), struct chunk, node);
        if (weir_batch_builder_finish(c->builder, WEIR_CODEC_NONE, 0, 0, &c->batch))
            fail_chunk(c, WEIR_NO_MEMORY);
        weir_list_push_back(&lane->unacked, &c->node);
    }
    while (!weir_list_is_empty(&lane->unacked)) {
        struct chunk *c = WEIR_CONTAINER(weir_list_pop_front(&lane->unacked), struct chunk, node);
        if (!c->done)
            move_batch(p, c, &scratch);
        if (c->count) {
            if (!c->done)
                fail_chunk(c, WEIR_NO_MEMORY);
            weir_list_push_back(&rest, &c->node);
        } else {
            chunk_free(p, c);
        }
    }
    WEIR_LIST_FOR_EACH (node, &p->lanes) {
        struct lane *other = WEIR_CONTAINER(node, struct lane, node);
        if (other->open)
            seal(other);
        if (!weir_list_is_empty(&other->full))
            mark_dirty(other);
    }
    weir_list_remove(&lane->dirty);
    pthread_mutex_unlock(&p->mtx);
    weir_scratch_fini(&scratch);

    while (!weir_list_is_empty(&rest)) {
        struct chunk *c = WEIR_CONTAINER(weir_list_pop_front(&rest), struct chunk, node);
        report(lane, c, weir_status_text(c->st));
    }
    weir_timer_stop(p->client->loop, &lane->retry);
    weir_channel_close(p->client, &lane->channel, true);
    weir_list_remove(&lane->node);
    free(lane);
}

/* The stream is gone, and everything with it. */
static void
fail_producer(struct weir_producer *p, enum weir_status st, const char *text)
{
    pthread_mutex_lock(&p->mtx);
    p->over = st;
    pthread_cond_broadcast(&p->room);
    pthread_mutex_unlock(&p->mtx);
    WEIR_LIST_FOR_EACH (node, &p->lanes) {
        struct lane *lane = WEIR_CONTAINER(node, struct lane, node);
        weir_call_cancel(&lane->call);
        weir_timer_stop(p->client->loop, &lane->retry);
        weir_channel_close(p->client, &lane->channel, true);
        lane->state = LANE_GONE;
        snprintf(lane->text, sizeof lane->text, "%s", text);
        fail_lane(lane, st);
    }
}

static void
on_described(struct weir_describe *d, enum weir_status st, const char *text)
{
    struct weir_producer *p = WEIR_CONTAINER(d, struct weir_producer, describe);
    struct weir_topology t = d->result;
    d->result = (struct weir_topology){};
    if (st == WEIR_NOT_FOUND) {
        fail_producer(p, st, text);
        return;
    }
    bool again = false;
    WEIR_LIST_FOR_EACH_SAFE (node, &p->lanes) {
        struct lane *lane = WEIR_CONTAINER(node, struct lane, node);
        if (lane->state != LANE_ROUTING)
            continue;
        if (!lane->describing) {
            again = true; /* it was moved after we had asked */
            continue;
        }
        lane->describing = false;
        const struct weir_topology_shard *shard = weir_topology_find(&t, lane->shard);
        if (!st && (!shard || shard->closed_ms)) {
            move_lane(lane, &t);
            continue;
        }
        if (!st) {
            /* It is open: whatever the broker meant, a new channel finds out. */
            lane->moved = false;
            weir_channel_close(p->client, &lane->channel, true);
        }
        lane->state = LANE_CLOSED;
        wait_and_retry(lane);
    }
    weir_topology_fini(&t);
    if (again)
        ask_for_routes(p);
}

static void
ask_for_routes(struct weir_producer *p)
{
    if (weir_call_is_running(&p->describe.call))
        return;
    WEIR_LIST_FOR_EACH (node, &p->lanes) {
        struct lane *lane = WEIR_CONTAINER(node, struct lane, node);
        lane->describing = lane->state == LANE_ROUTING;
    }
    weir_describe_start(p->client, &p->describe);
}

/* ---- time ---- */

/* What has waited too long fails. */
static void
expire(struct lane *lane, uint64_t now_us)
{
    struct weir_producer *p = lane->producer;
    struct chunk *first = first_undone(lane);
    if (lane->in_flight) {
        if (first && now_us > first->first_us + p->retry_us + OVERDUE_US)
            weir_client_drop(p->client, "the broker does not answer a batch");
        return;
    }
    bool any = false, lost = false;
    for (; first && now_us > first->first_us + p->retry_us; first = first_undone(lane)) {
        lost |= first->uncertain;
        fail_chunk(first, first->uncertain ? WEIR_UNKNOWN : WEIR_TIMEOUT);
        any = true;
    }
    if (lost)
        fail_uncertain(lane); /* they were to come behind it */
    if (any && lane->state != LANE_ROUTING && lane->state != LANE_GONE)
        renew(lane);
    else if (any)
        settle(lane);
    while (!first_undone(lane)) {
        pthread_mutex_lock(&p->mtx);
        struct chunk *c = weir_list_is_empty(&lane->full)
                              ? lane->open
                              : WEIR_CONTAINER(lane->full.next, struct chunk, node);
        bool late = c && now_us > c->first_us + p->retry_us;
        if (late && c == lane->open)
            seal(lane);
        if (late)
            weir_list_remove(&c->node);
        pthread_mutex_unlock(&p->mtx);
        if (!late)
            break;
        fail_chunk(c, WEIR_TIMEOUT);
        report(lane, c, lane->text[0] ? lane->text : weir_status_text(WEIR_TIMEOUT));
    }
    pump(lane);
}

static void
start_expiry(struct weir_producer *p)
{
    uint64_t period = p->retry_us / 8;
    if (!weir_timer_is_started(&p->expiry))
        weir_timer_start(p->client->loop, &p->expiry,
                         period > 1000 * 1000 ? 1000 * 1000
                         : period < 5000      ? 5000
                                              : period);
}

static void
on_expiry(struct weir_timer *timer)
{
    struct weir_producer *p = WEIR_CONTAINER(timer, struct weir_producer, expiry);
    uint64_t now_us = weir_mono_us(p->client->sys.clock);
    WEIR_LIST_FOR_EACH (node, &p->lanes)
        expire(WEIR_CONTAINER(node, struct lane, node), now_us);
    pthread_mutex_lock(&p->mtx);
    bool more = p->live != 0;
    pthread_mutex_unlock(&p->mtx);
    if (more)
        start_expiry(p);
}

/* Lanes whose open chunk's moment has come are pumped; the timer waits for the next. */
static void
on_linger(struct weir_timer *timer)
{
    struct weir_producer *p = WEIR_CONTAINER(timer, struct weir_producer, linger);
    for (;;) {
        struct lane *lane = NULL;
        pthread_mutex_lock(&p->mtx);
        if (!weir_list_is_empty(&p->lingering)) {
            lane = WEIR_CONTAINER(p->lingering.next, struct lane, linger);
            uint64_t now_us = weir_mono_us(p->client->sys.clock);
            uint64_t due_us =
                lane->open->first_us + (uint64_t)(p->linger_us < 0 ? 0 : p->linger_us);
            if (is_due(p, lane->open, now_us)) {
                weir_list_remove(&lane->linger);
            } else {
                weir_timer_start(p->client->loop, &p->linger, due_us - now_us);
                lane = NULL;
            }
        }
        pthread_mutex_unlock(&p->mtx);
        if (!lane)
            return;
        pump(lane);
    }
}

static void
on_task(struct weir_task *task)
{
    struct weir_producer *p = WEIR_CONTAINER(task, struct weir_producer, task);
    for (;;) {
        pthread_mutex_lock(&p->mtx);
        struct weir_list *node = weir_list_pop_front(&p->dirty);
        pthread_mutex_unlock(&p->mtx);
        if (!node)
            break;
        pump(WEIR_CONTAINER(node, struct lane, dirty));
    }
    on_linger(&p->linger);
    start_expiry(p);
}

/* ---- the connection ---- */

static void
on_up(struct weir_member *member)
{
    struct weir_producer *p = WEIR_CONTAINER(member, struct weir_producer, member);
    WEIR_LIST_FOR_EACH (node, &p->lanes) {
        struct lane *lane = WEIR_CONTAINER(node, struct lane, node);
        weir_timer_stop(p->client->loop, &lane->retry);
        pump(lane);
    }
}

static void
on_down(struct weir_member *member, const char *why)
{
    struct weir_producer *p = WEIR_CONTAINER(member, struct weir_producer, member);
    WEIR_LIST_FOR_EACH (node, &p->lanes) {
        struct lane *lane = WEIR_CONTAINER(node, struct lane, node);
        snprintf(lane->text, sizeof lane->text, "shard %u: connection lost: %s", lane->shard, why);
        weir_call_cancel(&lane->call);
        lane->channel.id = 0;
        if (lane->state == LANE_OPENING || lane->state == LANE_OPEN)
            lane->state = LANE_CLOSED;
        WEIR_LIST_FOR_EACH (c_node, &lane->unacked) {
            struct chunk *c = WEIR_CONTAINER(c_node, struct chunk, node);
            c->uncertain |= c->in_flight;
            c->in_flight = false;
        }
        lane->in_flight = 0;
        lane->in_flight_bytes = 0;
        lane->rewinding = false;
    }
}

/* ---- opening and closing ---- */

static void
join(void *arg)
{
    struct weir_producer *p = arg;
    weir_member_add(p->client, &p->member);
}

static void
leave(void *arg)
{
    struct weir_producer *p = arg;
    struct weir_loop *loop = p->client->loop;
    pthread_mutex_lock(&p->mtx);
    bool is_gone = p->over != WEIR_OK;
    pthread_mutex_unlock(&p->mtx);
    weir_member_remove(&p->member);
    weir_describe_cancel(&p->describe);
    weir_timer_stop(loop, &p->linger);
    weir_timer_stop(loop, &p->expiry);
    if (!is_gone)
        fail_producer(p, WEIR_CANCELLED, "the producer was closed");
}

static void
free_producer(struct weir_producer *p)
{
    for (struct weir_list *node; (node = weir_list_pop_front(&p->lanes));)
        free(WEIR_CONTAINER(node, struct lane, node));
    while (p->spare_count)
        weir_batch_builder_free(p->spare[--p->spare_count]);
    free(p->routes);
    pthread_mutex_destroy(&p->mtx);
    pthread_cond_destroy(&p->room);
    free(p);
}

static enum weir_status
check_options(const struct weir_producer_options *o, struct weir_error *err)
{
    if (!o->stream || !o->stream[0] || strlen(o->stream) > WEIR_STREAM_NAME_MAX)
        return weir_fail(err, WEIR_INVALID, "a producer needs a stream's name");
    if (o->batch_bytes > WEIR_BATCH_BODY_RAW_MAX)
        return weir_fail(err, WEIR_INVALID, "batch_bytes is over %zu", WEIR_BATCH_BODY_RAW_MAX);
    if (o->linger_ms < -1 || o->linger_ms > 60000)
        return weir_fail(err, WEIR_INVALID, "linger_ms is not within -1 and 60000");
    return WEIR_OK;
}

enum weir_status
weir_producer_open(struct weir_client *client, const struct weir_producer_options *o,
                   struct weir_producer **out, struct weir_error *err)
{
    enum weir_status st = check_options(o, err);
    if (st)
        return st;
    struct weir_topology t = {};
    st = weir_describe_wait(client, o->stream, false, &t, err);
    if (st)
        return st;
    struct weir_producer *p = calloc(1, sizeof *p);
    if (!p) {
        weir_topology_fini(&t);
        return weir_fail(err, WEIR_NO_MEMORY, "no memory for a producer");
    }
    p->client = client;
    p->member = (struct weir_member){.up = on_up, .down = on_down};
    snprintf(p->stream, sizeof p->stream, "%s", o->stream);
    p->batch_bytes = o->batch_bytes ? o->batch_bytes : WEIR_BATCH_TARGET_BYTES;
    p->memory_bytes = o->memory_bytes ? o->memory_bytes : MEMORY_DEFAULT;
    p->linger_us = o->linger_ms == 0 ? LINGER_DEFAULT_MS * 1000 : o->linger_ms * 1000;
    p->in_flight_max = o->batches_in_flight ? o->batches_in_flight : IN_FLIGHT_DEFAULT;
    /* Without numbers the broker cannot tell that a batch before was refused. */
    if (o->no_deduplication)
        p->in_flight_max = 1;
    p->codec = o->uncompressed ? WEIR_CODEC_NONE : WEIR_CODEC_LZ4;
    p->deduplicates = !o->no_deduplication;
    p->retry_us = (o->retry_ms ? o->retry_ms : RETRY_DEFAULT_MS) * 1000;
    p->on_ack = o->on_ack;
    p->on_batch_ack = o->on_batch_ack;
    p->arg = o->arg;
    p->record_bytes_max = t.record_bytes_max ? t.record_bytes_max : WEIR_RECORD_BYTES_MAX;
    p->task.run = on_task;
    p->linger.run = on_linger;
    p->expiry.run = on_expiry;
    p->describe = (struct weir_describe){.stream = p->stream, .done = on_described};
    weir_list_init(&p->lanes);
    weir_list_init(&p->dirty);
    weir_list_init(&p->lingering);
    weir_list_init(&p->flushes);
    pthread_mutex_init(&p->mtx, NULL);
    weir_cond_init(&p->room);

    p->routes = make_routes(p, NULL, &t, &p->route_count);
    weir_topology_fini(&t);
    if (!p->routes) {
        free_producer(p);
        return weir_fail(err, WEIR_UNAVAILABLE, "stream '%s' has no open shards for all keys",
                         o->stream);
    }
    atomic_init(&p->hashes, p->route_count > 1);
    weir_client_run(client, join, p);
    *out = p;
    return WEIR_OK;
}

enum weir_status
weir_producer_flush(struct weir_producer *p, int64_t timeout_ms, struct weir_error *err)
{
    struct weir_client *client = p->client;
    if (weir_loop_is_current(client->loop))
        return weir_fail(err, WEIR_INVALID, "a flush was called inside a callback");
    uint64_t deadline = weir_deadline_us(client, timeout_ms);
    struct flush f = {};
    weir_cond_init(&f.cond);
    enum weir_status st = WEIR_OK;

    pthread_mutex_lock(&p->mtx);
    f.before = p->next_serial;
    f.left = p->live;
    weir_list_push_back(&p->flushes, &f.node);
    p->flushing++;
    if (f.left)
        weir_loop_post(client->loop, &p->task);
    while (f.left) {
        if (!weir_cond_wait(client, &f.cond, &p->mtx, deadline)) {
            st = weir_fail(err, WEIR_TIMEOUT, "%zu batches are not acknowledged in time", f.left);
            break;
        }
    }
    p->flushing--;
    weir_list_remove(&f.node);
    if (!st && p->failure.status) {
        st = weir_fail(err, p->failure.status, "a record was not stored: %s", p->failure.text);
        p->failure = (struct weir_error){};
    }
    pthread_mutex_unlock(&p->mtx);
    pthread_cond_destroy(&f.cond);
    return st;
}

void
weir_producer_get_numbers(struct weir_producer *p, struct weir_producer_numbers *out)
{
    pthread_mutex_lock(&p->mtx);
    *out = p->numbers;
    pthread_mutex_unlock(&p->mtx);
}

void
weir_producer_close(struct weir_producer *p)
{
    if (!p)
        return;
    weir_client_run(p->client, leave, p);
    free_producer(p);
}
