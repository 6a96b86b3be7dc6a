/* Which shard has which hash keys, and what happens to a closed shard's records. */
#include "client/producer.h"
#include <stdio.h>
#include <stdlib.h>

/* ---- routes ---- */

static struct weir_lane *
find_lane(struct weir_producer *p, uint32_t shard)
{
    WEIR_LIST_FOR_EACH (node, &p->lanes) {
        struct weir_lane *lane = WEIR_CONTAINER(node, struct weir_lane, node);
        if (lane->shard == shard && lane->state != LANE_GONE)
            return lane;
    }
    return NULL;
}

static int
compare_routes(const void *a, const void *b)
{
    const struct weir_route *x = a, *y = b;
    return x->range.low < y->range.low ? -1 : x->range.low > y->range.low;
}

/* True when the routes cover the ring, each hash key once. */
static bool
routes_are_whole(const struct weir_route *routes, size_t count)
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
struct weir_route *
weir_route_make(struct weir_producer *p, const struct weir_lane *from,
                const struct weir_topology *t, size_t *count_out)
{
    struct weir_route whole = {.range = {0, WEIR_U128_MAX}};
    const struct weir_route *old = from ? p->routes : &whole;
    size_t old_count = from ? p->route_count : 1, most = 0, count = 0;
    for (size_t i = 0; i < old_count; i++)
        most += old[i].lane == from ? t->count : 1;
    struct weir_route *routes = calloc(most ? most : 1, sizeof *routes);
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
            struct weir_lane *lane = find_lane(p, s->index);
            if (!lane)
                lane = weir_lane_new(p, s);
            if (!lane)
                goto failed;
            routes[count++] = (struct weir_route){both, lane};
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
move_batch(struct weir_producer *p, struct weir_chunk *c, struct weir_scratch *scratch)
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
        if (weir_lane_add(weir_route_find(p, hash)->lane, &record, hash, true, tag, c->serial,
                          c->first_us))
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
move_lane(struct weir_lane *lane, const struct weir_topology *t)
{
    struct weir_producer *p = lane->producer;
    struct weir_scratch scratch = {};
    struct weir_list rest;
    weir_list_init(&rest);
    size_t count;

    pthread_mutex_lock(&p->mtx);
    struct weir_route *routes = weir_route_make(p, lane, t, &count);
    if (!routes) {
        pthread_mutex_unlock(&p->mtx);
        snprintf(lane->text, sizeof lane->text, "shard %u is closed and no open one follows",
                 lane->shard);
        lane->state = LANE_CLOSED;
        weir_lane_retry(lane);
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
        struct weir_lane *other = WEIR_CONTAINER(node, struct weir_lane, node);
        if (other != lane && other->open)
            weir_lane_seal(other);
    }
    if (lane->open)
        weir_lane_seal(lane);
    while (!weir_list_is_empty(&lane->full)) {
        struct weir_chunk *c =
            WEIR_CONTAINER(weir_list_pop_front(&lane->full), struct weir_chunk, node);
        if (weir_batch_builder_finish(c->builder, WEIR_CODEC_NONE, 0, 0, &c->batch))
            weir_chunk_fail(c, WEIR_NO_MEMORY);
        weir_list_push_back(&lane->unacked, &c->node);
    }
    while (!weir_list_is_empty(&lane->unacked)) {
        struct weir_chunk *c =
            WEIR_CONTAINER(weir_list_pop_front(&lane->unacked), struct weir_chunk, node);
        if (!c->done)
            move_batch(p, c, &scratch);
        if (c->count) {
            if (!c->done)
                weir_chunk_fail(c, WEIR_NO_MEMORY);
            weir_list_push_back(&rest, &c->node);
        } else {
            weir_chunk_free(p, c);
        }
    }
    WEIR_LIST_FOR_EACH (node, &p->lanes) {
        struct weir_lane *other = WEIR_CONTAINER(node, struct weir_lane, node);
        if (other->open)
            weir_lane_seal(other);
        if (!weir_list_is_empty(&other->full))
            weir_lane_mark(other);
    }
    weir_list_remove(&lane->dirty);
    pthread_mutex_unlock(&p->mtx);
    weir_scratch_fini(&scratch);

    while (!weir_list_is_empty(&rest)) {
        struct weir_chunk *c = WEIR_CONTAINER(weir_list_pop_front(&rest), struct weir_chunk, node);
        weir_chunk_report(lane, c, weir_status_text(c->st));
    }
    weir_timer_stop(p->client->loop, &lane->retry);
    weir_channel_close(p->client, &lane->channel, true);
    weir_list_remove(&lane->node);
    free(lane);
}

/* The stream is gone, and everything with it. */
void
weir_producer_fail(struct weir_producer *p, enum weir_status st, const char *text)
{
    pthread_mutex_lock(&p->mtx);
    p->over = st;
    pthread_cond_broadcast(&p->room);
    pthread_mutex_unlock(&p->mtx);
    WEIR_LIST_FOR_EACH (node, &p->lanes) {
        struct weir_lane *lane = WEIR_CONTAINER(node, struct weir_lane, node);
        weir_call_cancel(&lane->call);
        weir_timer_stop(p->client->loop, &lane->retry);
        weir_channel_close(p->client, &lane->channel, true);
        lane->state = LANE_GONE;
        snprintf(lane->text, sizeof lane->text, "%s", text);
        weir_lane_fail(lane, st);
    }
}

void
weir_producer_on_described(struct weir_describe *d, enum weir_status st, const char *text)
{
    struct weir_producer *p = WEIR_CONTAINER(d, struct weir_producer, describe);
    struct weir_topology t = d->result;
    d->result = (struct weir_topology){};
    if (st == WEIR_NOT_FOUND) {
        weir_producer_fail(p, st, text);
        return;
    }
    bool again = false;
    WEIR_LIST_FOR_EACH_SAFE (node, &p->lanes) {
        struct weir_lane *lane = WEIR_CONTAINER(node, struct weir_lane, node);
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
        weir_lane_retry(lane);
    }
    weir_topology_fini(&t);
    if (again)
        weir_producer_ask_for_routes(p);
}

void
weir_producer_ask_for_routes(struct weir_producer *p)
{
    if (weir_call_is_running(&p->describe.call))
        return;
    WEIR_LIST_FOR_EACH (node, &p->lanes) {
        struct weir_lane *lane = WEIR_CONTAINER(node, struct weir_lane, node);
        lane->describing = lane->state == LANE_ROUTING;
    }
    weir_describe_start(p->client, &p->describe);
}
