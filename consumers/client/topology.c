/* What a stream looks like: its shards with their lineage, read page by page. */
#include "client/client.h"
#include <stdio.h>
#include <stdlib.h>

enum { PAGE_SHARDS = 1000 };

void
weir_topology_fini(struct weir_topology *t)
{
    free(t->shards);
    *t = (struct weir_topology){};
}

const struct weir_topology_shard *
weir_topology_find(const struct weir_topology *t, uint32_t index)
{
    size_t low = 0, high = t->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (t->shards[middle].index == index)
            return &t->shards[middle];
        if (t->shards[middle].index < index)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

static bool
get_hash(ProtobufCBinaryData bytes, weir_u128 *out)
{
    if (bytes.len != 16)
        return false;
    *out = (weir_u128)weir_load_be64(bytes.data) << 64 | weir_load_be64(bytes.data + 8);
    return true;
}

static bool
add_shard(struct weir_topology *t, const Weir__ShardInfo *info)
{
    struct weir_topology_shard s = {
        .index = info->index,
        .number = info->shard,
        .parent = info->parent,
        .adjacent_parent = info->adjacent_parent,
        .created_ms = info->created_ms,
        .closed_ms = info->closed_ms,
        .end = info->end,
        .oldest = info->oldest,
        .next = info->next,
        .oldest_at_ms = info->oldest_at_ms,
        .latest_at_ms = info->latest_at_ms,
        .bytes = info->bytes,
    };
    if (!get_hash(info->hash_low, &s.range.low) || !get_hash(info->hash_high, &s.range.high) ||
        s.range.low > s.range.high)
        return false;
    if (t->count && s.index <= t->shards[t->count - 1].index)
        return false;
    if (t->count == t->capacity) {
        size_t capacity = t->capacity ? 2 * t->capacity : 16;
        struct weir_topology_shard *shards = realloc(t->shards, capacity * sizeof *shards);
        if (!shards)
            return false;
        t->shards = shards;
        t->capacity = capacity;
    }
    t->shards[t->count++] = s;
    return true;
}

static bool
add_page(struct weir_topology *t, const Weir__StreamInfo *info)
{
    snprintf(t->name, sizeof t->name, "%s", info->name);
    t->created_ms = info->created_ms;
    t->retention_ms = info->retention_ms;
    t->retention_bytes = info->retention_bytes;
    t->record_bytes_max = info->record_bytes_max;
    t->version = info->version;
    t->status = info->status;
    t->open_shards = info->open_shards;
    for (size_t i = 0; i < info->n_shards; i++) {
        if (!add_shard(t, info->shards[i]))
            return false;
    }
    return true;
}

static void
ask(struct weir_describe *d, uint32_t first)
{
    Weir__DescribeStream op = WEIR__DESCRIBE_STREAM__INIT;
    Weir__Request request = WEIR__REQUEST__INIT;
    op.name = (char *)d->stream;
    op.first_shard = first;
    op.limit = PAGE_SHARDS;
    op.with_numbers = d->with_numbers;
    request.op_case = WEIR__REQUEST__OP_DESCRIBE_STREAM;
    request.describe_stream = &op;
    weir_call_start(d->client, &d->call, &request, WEIR_CALL_TIMEOUT_MS);
}

static void
on_page(struct weir_call *call, enum weir_status st, Weir__Reply *reply, const char *text)
{
    struct weir_describe *d = WEIR_CONTAINER(call, struct weir_describe, call);
    bool more = false;
    char said[512];
    snprintf(said, sizeof said, "%s", text);
    uint64_t version = d->result.version;
    if (!st && reply->result_case != WEIR__REPLY__RESULT_STREAM)
        st = WEIR_INVALID;
    if (!st) {
        bool first = d->result.count == 0;
        if (!first && reply->stream->version != version) {
            /* The stream was resharded between two pages: begin again. */
            weir_topology_fini(&d->result);
            weir_message_free(&reply->base);
            ask(d, d->first_shard);
            return;
        }
        more = reply->stream->more && reply->stream->n_shards;
        if (!add_page(&d->result, reply->stream)) {
            st = WEIR_INVALID;
            snprintf(said, sizeof said, "the broker's description of the stream is not understood");
        }
    }
    if (reply)
        weir_message_free(&reply->base);
    if (!st && more) {
        ask(d, d->result.shards[d->result.count - 1].index + 1);
        return;
    }
    if (st)
        weir_topology_fini(&d->result);
    d->done(d, st, said);
}

void
weir_describe_start(struct weir_client *c, struct weir_describe *d)
{
    d->client = c;
    d->result = (struct weir_topology){};
    d->call.mode = WEIR_CALL_AGAIN;
    d->call.done = on_page;
    ask(d, d->first_shard);
}

void
weir_describe_cancel(struct weir_describe *d)
{
    if (!d->client)
        return;
    weir_call_cancel(&d->call);
    weir_topology_fini(&d->result);
}

struct waiting_describe {
    struct weir_describe describe;
    struct weir_task task;
    struct weir_client *client;
    pthread_mutex_t mtx;
    pthread_cond_t cond;
    bool done;
    enum weir_status st;
    struct weir_error *err;
};

static void
waiting_done(struct weir_describe *d, enum weir_status st, const char *text)
{
    struct waiting_describe *w = WEIR_CONTAINER(d, struct waiting_describe, describe);
    pthread_mutex_lock(&w->mtx);
    w->st = st ? weir_fail(w->err, st, "cannot describe stream '%s': %s", d->stream, text) : st;
    w->done = true;
    pthread_cond_signal(&w->cond);
    pthread_mutex_unlock(&w->mtx);
}

static void
waiting_start(struct weir_task *task)
{
    struct waiting_describe *w = WEIR_CONTAINER(task, struct waiting_describe, task);
    weir_describe_start(w->client, &w->describe);
}

enum weir_status
weir_describe_wait(struct weir_client *c, const char *stream, bool with_numbers,
                   struct weir_topology *out, struct weir_error *err)
{
    if (weir_loop_is_current(c->loop))
        return weir_fail(err, WEIR_INVALID, "a call that waits was made inside a callback");
    struct waiting_describe w = {
        .describe = {.stream = stream, .with_numbers = with_numbers, .done = waiting_done},
        .task = {.run = waiting_start},
        .client = c,
        .err = err,
    };
    pthread_mutex_init(&w.mtx, NULL);
    weir_cond_init(&w.cond);
    weir_loop_post(c->loop, &w.task);
    pthread_mutex_lock(&w.mtx);
    while (!w.done)
        pthread_cond_wait(&w.cond, &w.mtx);
    pthread_mutex_unlock(&w.mtx);
    pthread_mutex_destroy(&w.mtx);
    pthread_cond_destroy(&w.cond);
    if (!w.st)
        *out = w.describe.result;
    return w.st;
}
