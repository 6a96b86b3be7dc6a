/* Putting records: under a short lock, into the open chunk of the shard that has the hash key. */
#include "client/producer.h"
#include <stdlib.h>

/* ---- chunks (under mtx) ---- */

static struct weir_chunk *
chunk_new(struct weir_producer *p, uint64_t serial, uint64_t first_us)
{
    struct weir_chunk *c = calloc(1, sizeof *c);
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
        struct weir_flush *f = WEIR_CONTAINER(node, struct weir_flush, node);
        f->left += serial < f->before;
    }
    return c;
}

void
weir_chunk_keep_builder(struct weir_producer *p, struct weir_chunk *c)
{
    if (c->builder && p->spare_count < SPARE_BUILDERS && weir_batch_builder_count(c->builder) == 0)
        p->spare[p->spare_count++] = c->builder;
    else
        weir_batch_builder_free(c->builder);
    c->builder = NULL;
}

/* The end of a chunk, whatever became of its records. */
void
weir_chunk_free(struct weir_producer *p, struct weir_chunk *c)
{
    weir_chunk_keep_builder(p, c);
    p->live--;
    WEIR_LIST_FOR_EACH (node, &p->flushes) {
        struct weir_flush *f = WEIR_CONTAINER(node, struct weir_flush, node);
        if (c->serial < f->before && --f->left == 0)
            pthread_cond_signal(&f->cond);
    }
    weir_buf_unref(c->batch);
    free(c->tags);
    free(c);
}

static bool
chunk_tag(struct weir_chunk *c, void *tag)
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

void
weir_lane_mark(struct weir_lane *lane)
{
    struct weir_producer *p = lane->producer;
    if (weir_list_is_linked(&lane->dirty))
        return;
    weir_list_push_back(&p->dirty, &lane->dirty);
    weir_loop_post(p->client->loop, &p->task);
}

void
weir_lane_seal(struct weir_lane *lane)
{
    weir_list_push_back(&lane->full, &lane->open->node);
    lane->open = NULL;
    weir_list_remove(&lane->linger);
}

/* Adds a record to the lane's open chunk. NO_MEMORY, INVALID, TOO_BIG: it was not added. */
enum weir_status
weir_lane_add(struct weir_lane *lane, const struct weir_record *record, weir_u128 hash,
              bool is_hashed, void *tag, uint64_t serial, uint64_t first_us)
{
    struct weir_producer *p = lane->producer;
    for (;;) {
        if (!lane->open) {
            lane->open = chunk_new(p, serial, first_us);
            if (!lane->open)
                return WEIR_NO_MEMORY;
        }
        struct weir_chunk *c = lane->open;
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
            weir_chunk_free(p, c);
            return st;
        }
        if (st != WEIR_AGAIN)
            return st;
        weir_lane_seal(lane);
    }
}

struct weir_route *
weir_route_find(struct weir_producer *p, weir_u128 hash)
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
    struct weir_lane *lane = weir_route_find(p, hash)->lane;
    bool was_full = !weir_list_is_empty(&lane->full);
    st = weir_lane_add(lane, record, hash, is_hashed, tag, p->next_serial, 0);
    if (st)
        goto done;
    p->numbers.records_put++;
    p->numbers.bytes_put += record->key.len + record->data.len;
    p->numbers.bytes_waiting += bytes;
    struct weir_chunk *c = lane->open;
    if (c->count == 1) {
        p->next_serial++;
        c->first_us = weir_mono_us(p->client->sys.clock);
        weir_list_push_back(&p->lingering, &lane->linger);
        weir_lane_mark(lane);
    }
    if (weir_batch_builder_raw_size(c->builder) + bytes > p->batch_bytes)
        weir_lane_seal(lane); /* the next of this size would not fit */
    if (!was_full && !weir_list_is_empty(&lane->full))
        weir_lane_mark(lane);
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
