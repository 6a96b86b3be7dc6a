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
#include "client/producer.h"
#include <stdio.h>
#include <stdlib.h>

enum {
    MEMORY_DEFAULT = 32 * 1024 * 1024,
    LINGER_DEFAULT_MS = 2,
    IN_FLIGHT_DEFAULT = 16,
    RETRY_DEFAULT_MS = 120000,
    OVERDUE_US = 10 * 1000 * 1000, /* in flight after its time is up: the connection is of no use */
};

/* ---- time ---- */

/* What has waited too long fails. */
static void
expire(struct weir_lane *lane, uint64_t now_us)
{
    struct weir_producer *p = lane->producer;
    struct weir_chunk *first = weir_lane_first_undone(lane);
    if (lane->in_flight) {
        if (first && now_us > first->first_us + p->retry_us + OVERDUE_US)
            weir_client_drop(p->client, "the broker does not answer a batch");
        return;
    }
    bool any = false, lost = false;
    for (; first && now_us > first->first_us + p->retry_us; first = weir_lane_first_undone(lane)) {
        lost |= first->uncertain;
        weir_chunk_fail(first, first->uncertain ? WEIR_UNKNOWN : WEIR_TIMEOUT);
        any = true;
    }
    if (lost)
        weir_lane_fail_uncertain(lane); /* they were to come behind it */
    if (any && lane->state != LANE_ROUTING && lane->state != LANE_GONE)
        weir_lane_renew(lane);
    else if (any)
        weir_lane_settle(lane);
    while (!weir_lane_first_undone(lane)) {
        pthread_mutex_lock(&p->mtx);
        struct weir_chunk *c = weir_list_is_empty(&lane->full)
                                   ? lane->open
                                   : WEIR_CONTAINER(lane->full.next, struct weir_chunk, node);
        bool late = c && now_us > c->first_us + p->retry_us;
        if (late && c == lane->open)
            weir_lane_seal(lane);
        if (late)
            weir_list_remove(&c->node);
        pthread_mutex_unlock(&p->mtx);
        if (!late)
            break;
        weir_chunk_fail(c, WEIR_TIMEOUT);
        weir_chunk_report(lane, c, lane->text[0] ? lane->text : weir_status_text(WEIR_TIMEOUT));
    }
    weir_lane_pump(lane);
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
        expire(WEIR_CONTAINER(node, struct weir_lane, node), now_us);
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
        struct weir_lane *lane = NULL;
        pthread_mutex_lock(&p->mtx);
        if (!weir_list_is_empty(&p->lingering)) {
            lane = WEIR_CONTAINER(p->lingering.next, struct weir_lane, linger);
            uint64_t now_us = weir_mono_us(p->client->sys.clock);
            uint64_t due_us =
                lane->open->first_us + (uint64_t)(p->linger_us < 0 ? 0 : p->linger_us);
            if (weir_chunk_is_due(p, lane->open, now_us)) {
                weir_list_remove(&lane->linger);
            } else {
                weir_timer_start(p->client->loop, &p->linger, due_us - now_us);
                lane = NULL;
            }
        }
        pthread_mutex_unlock(&p->mtx);
        if (!lane)
            return;
        weir_lane_pump(lane);
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
        weir_lane_pump(WEIR_CONTAINER(node, struct weir_lane, dirty));
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
        struct weir_lane *lane = WEIR_CONTAINER(node, struct weir_lane, node);
        weir_timer_stop(p->client->loop, &lane->retry);
        weir_lane_pump(lane);
    }
}

static void
on_down(struct weir_member *member, const char *why)
{
    struct weir_producer *p = WEIR_CONTAINER(member, struct weir_producer, member);
    WEIR_LIST_FOR_EACH (node, &p->lanes) {
        struct weir_lane *lane = WEIR_CONTAINER(node, struct weir_lane, node);
        snprintf(lane->text, sizeof lane->text, "shard %u: connection lost: %s", lane->shard, why);
        weir_call_cancel(&lane->call);
        lane->channel.id = 0;
        if (lane->state == LANE_OPENING || lane->state == LANE_OPEN)
            lane->state = LANE_CLOSED;
        WEIR_LIST_FOR_EACH (c_node, &lane->unacked) {
            struct weir_chunk *c = WEIR_CONTAINER(c_node, struct weir_chunk, node);
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
        weir_producer_fail(p, WEIR_CANCELLED, "the producer was closed");
}

static void
free_producer(struct weir_producer *p)
{
    for (struct weir_list *node; (node = weir_list_pop_front(&p->lanes));)
        free(WEIR_CONTAINER(node, struct weir_lane, node));
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
    p->describe = (struct weir_describe){.stream = p->stream, .done = weir_producer_on_described};
    weir_list_init(&p->lanes);
    weir_list_init(&p->dirty);
    weir_list_init(&p->lingering);
    weir_list_init(&p->flushes);
    pthread_mutex_init(&p->mtx, NULL);
    weir_cond_init(&p->room);

    p->routes = weir_route_make(p, NULL, &t, &p->route_count);
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
    struct weir_flush f = {};
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
