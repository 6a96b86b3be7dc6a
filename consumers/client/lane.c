/* A lane: one shard's way to the broker. Chunks are numbered, sent, answered and reported here. */
#include "base/assert.h"
#include "client/producer.h"
#include <stdio.h>
#include <stdlib.h>

enum {
    RETRY_BASE_US = 10 * 1000,
    RETRY_LIMIT_US = 1000 * 1000,
};

/* ---- what became of a chunk (loop) ---- */

static void
note_failure(struct weir_producer *p, enum weir_status st, uint32_t count, const char *text)
{
    p->numbers.records_failed += count;
    if (!p->failure.status)
        (void)weir_fail(&p->failure, st, "%s", text);
}

/* Tells the program, and lets the chunk go. Without mtx. */
void
weir_chunk_report(struct weir_lane *lane, struct weir_chunk *c, const char *text)
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
    weir_chunk_free(p, c);
    if (p->blocked)
        pthread_cond_broadcast(&p->room);
    pthread_mutex_unlock(&p->mtx);
}

/* In order: what is done behind something that is not waits. */
void
weir_lane_settle(struct weir_lane *lane)
{
    while (!weir_list_is_empty(&lane->unacked)) {
        struct weir_chunk *c = WEIR_CONTAINER(lane->unacked.next, struct weir_chunk, node);
        if (!c->done)
            return;
        weir_list_remove(&c->node);
        weir_chunk_report(lane, c, lane->text[0] ? lane->text : weir_status_text(c->st));
    }
}

struct weir_chunk *
weir_lane_first_undone(struct weir_lane *lane)
{
    WEIR_LIST_FOR_EACH (node, &lane->unacked) {
        struct weir_chunk *c = WEIR_CONTAINER(node, struct weir_chunk, node);
        if (!c->done)
            return c;
    }
    return NULL;
}

void
weir_chunk_fail(struct weir_chunk *c, enum weir_status st)
{
    c->done = true;
    c->st = st;
}

bool
weir_lane_fail_uncertain(struct weir_lane *lane)
{
    bool any = false;
    WEIR_LIST_FOR_EACH (node, &lane->unacked) {
        struct weir_chunk *c = WEIR_CONTAINER(node, struct weir_chunk, node);
        if (!c->done && c->uncertain) {
            weir_chunk_fail(c, WEIR_UNKNOWN);
            any = true;
        }
    }
    return any;
}

static bool
is_uncertain(const struct weir_lane *lane)
{
    WEIR_LIST_FOR_EACH (node, &lane->unacked) {
        const struct weir_chunk *c = WEIR_CONTAINER(node, struct weir_chunk, node);
        if (!c->done && c->uncertain)
            return true;
    }
    return false;
}

/* Everything of the lane fails. */
void
weir_lane_fail(struct weir_lane *lane, enum weir_status st)
{
    struct weir_producer *p = lane->producer;
    WEIR_LIST_FOR_EACH (node, &lane->unacked) {
        struct weir_chunk *c = WEIR_CONTAINER(node, struct weir_chunk, node);
        if (!c->done)
            weir_chunk_fail(c, c->uncertain || c->in_flight ? WEIR_UNKNOWN : st);
        c->in_flight = false;
    }
    lane->in_flight = 0;
    lane->in_flight_bytes = 0;
    weir_lane_settle(lane);
    for (;;) {
        pthread_mutex_lock(&p->mtx);
        if (weir_list_is_empty(&lane->full) && lane->open)
            weir_lane_seal(lane);
        struct weir_list *node = weir_list_pop_front(&lane->full);
        pthread_mutex_unlock(&p->mtx);
        if (!node)
            return;
        struct weir_chunk *c = WEIR_CONTAINER(node, struct weir_chunk, node);
        weir_chunk_fail(c, st);
        weir_chunk_report(lane, c, lane->text[0] ? lane->text : weir_status_text(st));
    }
}

/* ---- sending ---- */

/* Writes the producer's fields of the header anew. The transport may still hold the old one. */
static bool
stamp(struct weir_chunk *c, weir_u128 id, uint64_t number)
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
void
weir_lane_renew(struct weir_lane *lane)
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
        struct weir_chunk *c = WEIR_CONTAINER(node, struct weir_chunk, node);
        if (c->done)
            continue;
        c->uncertain = false;
        if (stamp(c, lane->id, lane->next_number))
            lane->next_number++;
        else
            weir_chunk_fail(c, WEIR_NO_MEMORY);
    }
    weir_lane_settle(lane);
}

static bool
has_window(const struct weir_lane *lane, const struct weir_chunk *c)
{
    if (lane->in_flight == 0)
        return true;
    return lane->in_flight < lane->producer->in_flight_max &&
           lane->in_flight_bytes + c->batch->len <= lane->window_bytes;
}

static void
send_chunk(struct weir_lane *lane, struct weir_chunk *c)
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

bool
weir_chunk_is_due(const struct weir_producer *p, const struct weir_chunk *c, uint64_t now_us)
{
    return p->linger_us < 0 || p->flushing || p->blocked ||
           now_us >= c->first_us + (uint64_t)p->linger_us;
}

/* The next chunk that is to be sent, or NULL. */
static struct weir_chunk *
take_chunk(struct weir_lane *lane)
{
    struct weir_producer *p = lane->producer;
    pthread_mutex_lock(&p->mtx);
    if (weir_list_is_empty(&lane->full) && lane->open &&
        weir_chunk_is_due(p, lane->open, weir_mono_us(p->client->sys.clock)))
        weir_lane_seal(lane);
    struct weir_list *node = weir_list_pop_front(&lane->full);
    pthread_mutex_unlock(&p->mtx);
    return node ? WEIR_CONTAINER(node, struct weir_chunk, node) : NULL;
}

/* From records to a batch with the lane's next number, behind those that wait for their ack. */
static bool
finish_chunk(struct weir_lane *lane, struct weir_chunk *c)
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
    weir_chunk_keep_builder(p, c);
    pthread_mutex_unlock(&p->mtx);
    weir_list_push_back(&lane->unacked, &c->node);
    return true;
}

void
weir_lane_retry(struct weir_lane *lane)
{
    struct weir_client *client = lane->producer->client;
    weir_timer_start(client->loop, &lane->retry,
                     weir_backoff_us(client, lane->failures++, RETRY_BASE_US, RETRY_LIMIT_US));
}

/* Sends what is numbered and not in flight: refused, lost, or left over by the window. False when
 * the window is full. */
static bool
send_unacked(struct weir_lane *lane, bool only_uncertain)
{
    struct weir_producer *p = lane->producer;
    WEIR_LIST_FOR_EACH (node, &lane->unacked) {
        struct weir_chunk *c = WEIR_CONTAINER(node, struct weir_chunk, node);
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
send_new(struct weir_lane *lane)
{
    /* A chunk's size is known only when it is finished, so it is finished first: one batch may wait
     * among the unacked for room in the window. */
    while (lane->in_flight < lane->producer->in_flight_max &&
           lane->in_flight_bytes < lane->window_bytes) {
        struct weir_chunk *c = take_chunk(lane);
        if (!c)
            return;
        if (!finish_chunk(lane, c)) {
            pthread_mutex_lock(&lane->producer->mtx);
            weir_list_push_front(&lane->full, &c->node);
            pthread_mutex_unlock(&lane->producer->mtx);
            snprintf(lane->text, sizeof lane->text, "no memory for a batch");
            weir_lane_retry(lane);
            return;
        }
        if (!has_window(lane, c))
            return;
        send_chunk(lane, c);
    }
}

static bool
has_work(struct weir_lane *lane)
{
    struct weir_producer *p = lane->producer;
    if (weir_lane_first_undone(lane))
        return true;
    pthread_mutex_lock(&p->mtx);
    bool some = lane->open || !weir_list_is_empty(&lane->full);
    pthread_mutex_unlock(&p->mtx);
    return some;
}

static void open_lane(struct weir_lane *lane);

/* Does what the lane can do next. */
void
weir_lane_pump(struct weir_lane *lane)
{
    struct weir_client *client = lane->producer->client;
    if (lane->state == LANE_GONE || lane->state == LANE_ROUTING || lane->state == LANE_OPENING ||
        weir_timer_is_started(&lane->retry))
        return;
    if (lane->in_flight == 0) {
        if (lane->renewing && !is_uncertain(lane))
            weir_lane_renew(lane);
        if (lane->moved && !is_uncertain(lane)) {
            lane->state = LANE_ROUTING;
            weir_producer_ask_for_routes(lane->producer);
            return;
        }
        if (lane->rewinding) {
            lane->rewinding = false;
            weir_lane_retry(lane);
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
    weir_lane_pump(WEIR_CONTAINER(timer, struct weir_lane, retry));
}

/* ---- answers ---- */

static struct weir_chunk *
find_in_flight(struct weir_lane *lane, uint64_t number)
{
    WEIR_LIST_FOR_EACH (node, &lane->unacked) {
        struct weir_chunk *c = WEIR_CONTAINER(node, struct weir_chunk, node);
        if (c->number == number && c->in_flight)
            return c;
    }
    return NULL;
}

/* The broker says that it did not store the batch. */
static void
refused(struct weir_lane *lane, struct weir_chunk *c, enum weir_status st)
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
        if (lane->rewinding || lane->renewing || lane->moved || c != weir_lane_first_undone(lane)) {
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
        weir_chunk_fail(c, st);
        lane->renewing = true;
        break;
    }
}

static void
on_frame(struct weir_channel *channel, const struct weir_frame *frame, struct weir_buf *message)
{
    (void)message;
    struct weir_lane *lane = WEIR_CONTAINER(channel, struct weir_lane, channel);
    if (frame->kind != WEIR_FRAME_ACK)
        return;
    struct weir_chunk *c = find_in_flight(lane, frame->number);
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
    weir_lane_settle(lane);
    weir_lane_pump(lane);
}

/* ---- opening ---- */

static void
opened(struct weir_lane *lane, const Weir__ProducerOpened *o)
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
    struct weir_chunk *first = weir_lane_first_undone(lane);
    uint64_t number = first ? first->number : lane->next_number;
    bool continues = number == 1 || (o->known && o->last_number + 1 >= number);
    if (p->deduplicates && !continues) {
        /* The broker forgot us, or lost what it had acknowledged: what is uncertain stays so. */
        snprintf(lane->text, sizeof lane->text,
                 "shard %u: the broker no longer knows what it stored of this producer",
                 lane->shard);
        weir_lane_fail_uncertain(lane);
        weir_lane_settle(lane);
        lane->renewing = true;
    }
    weir_lane_pump(lane);
}

static void
on_opened(struct weir_call *call, enum weir_status st, Weir__Reply *reply, const char *text)
{
    struct weir_lane *lane = WEIR_CONTAINER(call, struct weir_lane, call);
    lane->state = LANE_CLOSED;
    if (!st && reply->result_case != WEIR__REPLY__RESULT_PRODUCER)
        st = WEIR_UNSUPPORTED;
    if (!st) {
        opened(lane, reply->producer);
    } else {
        snprintf(lane->text, sizeof lane->text, "shard %u: %s", lane->shard, text);
        if (st == WEIR_MOVED || st == WEIR_FENCED || st == WEIR_NOT_FOUND) {
            weir_lane_fail_uncertain(lane);
            weir_lane_settle(lane);
            lane->moved = true;
            weir_lane_pump(lane);
        } else if (weir_status_retryable(st) || st == WEIR_TIMEOUT || st == WEIR_NO_MEMORY ||
                   st == WEIR_IO || st == WEIR_CANCELLED || st == WEIR_UNKNOWN) {
            weir_lane_retry(lane);
        } else {
            weir_lane_fail(lane, st);
        }
    }
    if (reply)
        weir_message_free(&reply->base);
}

static void
open_lane(struct weir_lane *lane)
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

struct weir_lane *
weir_lane_new(struct weir_producer *p, const struct weir_topology_shard *shard)
{
    struct weir_lane *lane = calloc(1, sizeof *lane);
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
