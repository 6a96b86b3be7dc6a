/* Calls: a Request becomes an operation of the service, its result a Reply. */
#include "native/inside.h"
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define SHARDS_MAX 1000
#define FRAME_BYTES_DEFAULT (256 * WEIR_KIB)
#define FRAME_BYTES_MIN (4 * WEIR_KIB)
#define FRAME_BYTES_MAX (4 * WEIR_MIB)

struct called {
    struct peer *peer;
    uint64_t number, held;
    Weir__Request *request;
    struct weir_task task; /* close_channel */
    struct native_owner *owner;
    union {
        struct weir_call call; /* the first member of each */
        struct weir_create_call create;
        struct weir_delete_call delete_stream;
        struct weir_list_call list;
        struct weir_describe_call describe;
        struct weir_retention_call retention;
        struct weir_reshard_call reshard;
        struct weir_producer_call producer;
        struct weir_start_call start;
        struct weir_positions_call positions;
        struct weir_checkpoint_call checkpoint;
        struct weir_checkpoints_call checkpoints;
        struct weir_consumers_call consumers;
        struct weir_stats_call stats;
    } op;
};

static struct called *
called_of(struct weir_call *call)
{
    return WEIR_CONTAINER(call, struct called, op.call);
}

static struct outlet *
control(struct called *c)
{
    return &c->peer->native->outlet;
}

static char *
text_of(const char *text)
{
    return (char *)(uintptr_t)text;
}

/* ---- answers ---- */

static void
called_free(struct called *c)
{
    struct peer *p = c->peer;
    weir_message_free(&c->request->base);
    free(c);
    peer_unref(p);
}

void
called_reply(struct called *c, struct outlet *outlet, Weir__Reply *reply)
{
    struct peer *p = c->peer;
    struct weir_frame frame = {.kind = WEIR_FRAME_REPLY, .number = c->number};
    bool sent = peer_send_message(p, outlet, &frame, &reply->base, c->held);
    if (!sent) {
        Weir__Reply failed = WEIR__REPLY__INIT;
        failed.status = WEIR_TOO_BIG;
        failed.text = text_of("the answer does not fit into a frame: ask for less");
        sent = peer_send_message(p, outlet, &frame, &failed.base, c->held);
    }
    if (!sent) {
        peer_break(p, "no memory for a frame");
        peer_release(p, c->held);
    }
    called_free(c);
}

void
called_fail(struct called *c, struct outlet *outlet, enum weir_status st, uint64_t offset,
            const char *fmt, ...)
{
    char text[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    Weir__Reply reply = WEIR__REPLY__INIT;
    reply.status = st;
    reply.text = text;
    reply.offset = offset;
    called_reply(c, outlet, &reply);
}

/* True: the operation failed, and that was answered. */
static bool
failed(struct called *c, enum weir_status st)
{
    if (st)
        called_fail(c, control(c), st, 0, "%s", c->op.call.err.text);
    return st != WEIR_OK;
}

static void
reply_ok(struct called *c)
{
    Weir__Reply reply = WEIR__REPLY__INIT;
    called_reply(c, control(c), &reply);
}

static void
done_plain(struct weir_call *call, enum weir_status st)
{
    struct called *c = called_of(call);
    if (!failed(c, st))
        reply_ok(c);
}

/* ---- streams ---- */

static void
fill_stream(Weir__StreamInfo *info, const struct weir_stream *stream)
{
    weir__stream_info__init(info);
    info->name = text_of(stream->name);
    info->stream = stream->number;
    info->created_ms = stream->created_ms;
    info->retention_ms = stream->retention_ms;
    info->retention_bytes = stream->retention_bytes;
    info->record_bytes_max = stream->record_bytes_max;
    info->status = stream->state;
    info->open_shards = stream->open_count;
    info->version = stream->version;
}

static void
reply_stream(struct called *c, Weir__StreamInfo *info)
{
    Weir__Reply reply = WEIR__REPLY__INIT;
    reply.result_case = WEIR__REPLY__RESULT_STREAM;
    reply.stream = info;
    called_reply(c, control(c), &reply);
}

static void
done_create(struct weir_call *call, enum weir_status st)
{
    struct called *c = called_of(call);
    Weir__StreamInfo info;
    if (failed(c, st))
        return;
    fill_stream(&info, c->op.create.stream);
    reply_stream(c, &info);
}

static void
begin_create(struct called *c, const Weir__CreateStream *r)
{
    c->op.create = (struct weir_create_call){
        .call.done = done_create,
        .spec = {.name = weir_bytes_of(r->name),
                 .shard_count = r->shard_count,
                 .retention_ms = r->retention_ms,
                 .retention_bytes = r->retention_bytes,
                 .record_bytes_max = r->record_bytes_max},
    };
    weir_service_create(c->peer->native->service, &c->op.create);
}

static void
begin_delete(struct called *c, const Weir__DeleteStream *r)
{
    c->op.delete_stream = (struct weir_delete_call){
        .call.done = done_plain,
        .stream = weir_bytes_of(r->name),
    };
    weir_service_delete(c->peer->native->service, &c->op.delete_stream);
}

static void
done_list(struct weir_call *call, enum weir_status st)
{
    struct called *c = called_of(call);
    if (failed(c, st))
        return;
    const struct weir_list_call *op = &c->op.list;
    char **names = calloc(op->count + 1, sizeof *names);
    if (!names) {
        called_fail(c, control(c), WEIR_NO_MEMORY, 0, "no memory");
        return;
    }
    Weir__StreamList list = WEIR__STREAM_LIST__INIT;
    for (size_t i = 0; i < op->count; i++)
        names[i] = text_of(op->streams[i]->name);
    list.names = names;
    list.n_names = op->count;
    list.more = op->more;
    Weir__Reply reply = WEIR__REPLY__INIT;
    reply.result_case = WEIR__REPLY__RESULT_STREAMS;
    reply.streams = &list;
    called_reply(c, control(c), &reply);
    free(names);
}

static void
begin_list(struct called *c, const Weir__ListStreams *r)
{
    c->op.list = (struct weir_list_call){
        .call.done = done_list,
        .after = weir_bytes_of(r->after),
        .limit = r->limit < SHARDS_MAX ? r->limit : SHARDS_MAX,
    };
    weir_service_list(c->peer->native->service, &c->op.list);
}

/* A shard's message with what it points at. */
struct shard_message {
    Weir__ShardInfo info;
    uint8_t low[16], high[16];
    uint32_t children[2];
};

static void
put_hash(uint8_t out[16], weir_u128 hash)
{
    weir_store_be64(out, (uint64_t)(hash >> 64));
    weir_store_be64(out + 8, (uint64_t)hash);
}

static void
fill_shard(struct shard_message *m, const struct weir_shard_view *view)
{
    const struct weir_shard *shard = view->shard;
    Weir__ShardInfo *info = &m->info;
    weir__shard_info__init(info);
    put_hash(m->low, shard->range.low);
    put_hash(m->high, shard->range.high);
    info->index = shard->index;
    info->shard = shard->number;
    info->hash_low = (ProtobufCBinaryData){sizeof m->low, m->low};
    info->hash_high = (ProtobufCBinaryData){sizeof m->high, m->high};
    info->parent = shard->parent;
    info->adjacent_parent = shard->adjacent_parent;
    info->created_ms = shard->created_ms;
    info->closed_ms = shard->closed_ms;
    info->end = shard->end;
    info->children = m->children;
    for (int i = 0; i < 2; i++)
        if (shard->child[i] >= 0)
            m->children[info->n_children++] = (uint32_t)shard->child[i];
    if (!view->has_numbers)
        return;
    info->oldest = view->numbers.oldest;
    info->next = view->numbers.next;
    info->oldest_at_ms = view->numbers.oldest_at_ms;
    info->latest_at_ms = view->numbers.latest_at_ms;
    info->bytes = view->numbers.bytes;
}

static void
done_describe(struct weir_call *call, enum weir_status st)
{
    struct called *c = called_of(call);
    if (failed(c, st))
        return;
    const struct weir_describe_call *op = &c->op.describe;
    struct shard_message *messages = calloc(op->count + 1, sizeof *messages);
    Weir__ShardInfo **list = calloc(op->count + 1, sizeof *list);
    if (!messages || !list) {
        called_fail(c, control(c), WEIR_NO_MEMORY, 0, "no memory");
        goto done;
    }
    Weir__StreamInfo info;
    fill_stream(&info, op->info);
    for (size_t i = 0; i < op->count; i++) {
        fill_shard(&messages[i], &op->shards[i]);
        list[i] = &messages[i].info;
    }
    info.shards = list;
    info.n_shards = op->count;
    info.more = op->more;
    reply_stream(c, &info);
done:
    free(messages);
    free(list);
}

static void
begin_describe(struct called *c, const Weir__DescribeStream *r)
{
    c->op.describe = (struct weir_describe_call){
        .call.done = done_describe,
        .stream = weir_bytes_of(r->name),
        .first_shard = r->first_shard,
        .limit = r->limit < SHARDS_MAX ? r->limit : SHARDS_MAX,
        .with_numbers = r->with_numbers,
    };
    weir_service_describe(c->peer->native->service, &c->op.describe);
}

static void
done_retention(struct weir_call *call, enum weir_status st)
{
    struct called *c = called_of(call);
    Weir__StreamInfo info;
    if (failed(c, st))
        return;
    if (!c->op.retention.info) {
        reply_ok(c);
        return;
    }
    fill_stream(&info, c->op.retention.info);
    reply_stream(c, &info);
}

static void
begin_retention(struct called *c, const Weir__SetRetention *r)
{
    c->op.retention = (struct weir_retention_call){
        .call.done = done_retention,
        .stream = weir_bytes_of(r->name),
        .retention_ms = r->retention_ms,
        .retention_bytes = r->retention_bytes,
    };
    weir_service_set_retention(c->peer->native->service, &c->op.retention);
}

/* ---- resharding ---- */

static void
done_reshard(struct weir_call *call, enum weir_status st)
{
    struct called *c = called_of(call);
    if (failed(c, st))
        return;
    struct weir_reshard_call *op = &c->op.reshard;
    Weir__Reshard reshard = WEIR__RESHARD__INIT;
    reshard.children = op->child;
    reshard.n_children = op->child_count;
    if (op->info) {
        reshard.open_shards = op->info->open_count;
        reshard.version = op->info->version;
    }
    Weir__Reply reply = WEIR__REPLY__INIT;
    reply.result_case = WEIR__REPLY__RESULT_RESHARD;
    reply.reshard = &reshard;
    called_reply(c, control(c), &reply);
}

static void
begin_split(struct called *c, const Weir__SplitShard *r)
{
    c->op.reshard = (struct weir_reshard_call){
        .call.done = done_reshard,
        .stream = weir_bytes_of(r->name),
        .shard = r->shard,
    };
    if (r->new_starting_hash.len == 16) {
        c->op.reshard.has_at = true;
        c->op.reshard.at = (weir_u128)weir_load_be64(r->new_starting_hash.data) << 64 |
                           weir_load_be64(r->new_starting_hash.data + 8);
    } else if (r->new_starting_hash.len) {
        called_fail(c, control(c), WEIR_INVALID, 0, "a hash key has 16 bytes");
        return;
    }
    weir_service_split(c->peer->native->service, &c->op.reshard);
}

static void
begin_merge(struct called *c, const Weir__MergeShards *r)
{
    c->op.reshard = (struct weir_reshard_call){
        .call.done = done_reshard,
        .stream = weir_bytes_of(r->name),
        .shard = r->shard,
        .adjacent = r->adjacent,
    };
    weir_service_merge(c->peer->native->service, &c->op.reshard);
}

static void
begin_count(struct called *c, const Weir__UpdateShardCount *r)
{
    c->op.reshard = (struct weir_reshard_call){
        .call.done = done_reshard,
        .stream = weir_bytes_of(r->name),
        .target = r->target,
    };
    weir_service_update_shard_count(c->peer->native->service, &c->op.reshard);
}

/* ---- channels ---- */

static void
fail_channel(struct called *c, enum weir_status st)
{
    if (st == WEIR_TOO_BIG)
        called_fail(c, control(c), st, 0, "the connection has %" PRIu32 " channels already",
                    c->peer->native->options.channels_max);
    else
        called_fail(c, control(c), st, 0, "%s", weir_status_text(st));
}

static void
done_producer(struct weir_call *call, enum weir_status st)
{
    struct called *c = called_of(call);
    if (failed(c, st))
        return;
    const struct weir_producer_call *op = &c->op.producer;
    struct channel *ch = channel_new(c->peer, CHANNEL_PRODUCER, op->owner, &st);
    if (!ch) {
        fail_channel(c, st);
        return;
    }
    const ProtobufCBinaryData *id = &c->request->open_producer->producer;
    if (id->len) {
        weir_le128 bytes;
        memcpy(&bytes, id->data, sizeof bytes);
        ch->producer = weir_get128(bytes);
    }
    ch->stream = op->stream_number;
    ch->shard = op->shard_number;
    ch->record_bytes_max = op->record_bytes_max;
    channel_open(ch, c);
}

static void
begin_producer(struct called *c, const Weir__OpenProducer *r)
{
    if (r->producer.len && r->producer.len != 16) {
        called_fail(c, control(c), WEIR_INVALID, 0, "a producer's identity has 16 bytes");
        return;
    }
    c->op.producer = (struct weir_producer_call){
        .call.done = done_producer,
        .stream = weir_bytes_of(r->stream),
        .shard = r->shard,
    };
    weir_service_find_producer(c->peer->native->service, &c->op.producer);
}

static void
closed(struct weir_task *task)
{
    struct called *c = WEIR_CONTAINER(task, struct called, task);
    struct outlet *outlet = &c->owner->outlet;
    uint32_t id = c->request->close_channel->channel;
    Weir__Reply reply = WEIR__REPLY__INIT;
    if (channel_close_id(c->owner, c->peer, id))
        called_reply(c, outlet, &reply);
    else
        called_fail(c, outlet, WEIR_NOT_FOUND, 0, "channel %" PRIu32 " is not open", id);
}

static void
begin_close(struct called *c, const Weir__CloseChannel *r)
{
    struct weir_native *n = c->peer->native;
    uint32_t owner = weir_channel_owner(r->channel);
    if (owner >= n->owner_count) {
        called_fail(c, control(c), WEIR_NOT_FOUND, 0, "channel %" PRIu32 " is not open",
                    r->channel);
        return;
    }
    c->owner = &n->owners[owner];
    c->task.run = closed;
    weir_loop_post(c->owner->owner->loop, &c->task);
}

static enum weir_position_kind
kind_of(Weir__Position__Kind kind)
{
    switch (kind) {
    case WEIR__POSITION__KIND__OLDEST:
        return WEIR_AT_OLDEST;
    case WEIR__POSITION__KIND__LATEST:
        return WEIR_AT_LATEST;
    case WEIR__POSITION__KIND__AT_OFFSET:
        return WEIR_AT_OFFSET;
    case WEIR__POSITION__KIND__AFTER_OFFSET:
        return WEIR_AFTER_OFFSET;
    case WEIR__POSITION__KIND__AT_TIME:
        return WEIR_AT_TIME;
    case WEIR__POSITION__KIND__CHECKPOINT:
        return WEIR_AT_CHECKPOINT;
    case WEIR__POSITION__KIND__AT_SEQUENCE:
        return WEIR_AT_SEQUENCE;
    case WEIR__POSITION__KIND__AFTER_SEQUENCE:
        return WEIR_AFTER_SEQUENCE;
    case _WEIR__POSITION__KIND_IS_INT_SIZE:
        break;
    }
    return WEIR_POSITION_KINDS; /* the service refuses it */
}

static struct weir_position_spec
position_of(const Weir__Position *position)
{
    if (!position)
        return (struct weir_position_spec){.kind = WEIR_AT_OLDEST};
    return (struct weir_position_spec){
        .kind = kind_of(position->kind),
        .offset = position->offset,
        .at_ms = position->at_ms,
        .sequence = weir_bytes_of(position->sequence),
        .otherwise = kind_of(position->otherwise),
    };
}

static uint64_t
between(uint64_t value, uint64_t low, uint64_t high)
{
    return value < low ? low : value > high ? high : value;
}

static void
done_start(struct weir_call *call, enum weir_status st)
{
    struct called *c = called_of(call);
    if (failed(c, st))
        return;
    const struct weir_start_call *op = &c->op.start;
    const Weir__Subscribe *r = c->request->subscribe;
    struct weir_native *n = c->peer->native;
    struct channel *ch = channel_new(c->peer, CHANNEL_SUBSCRIPTION, op->owner, &st);
    if (!ch) {
        fail_channel(c, st);
        return;
    }
    ch->stream = op->stream_number;
    ch->shard = op->shard_number;
    ch->epoch = atomic_fetch_add(&n->next_epoch, 1) + 1;
    ch->from_checkpoint = op->from_checkpoint;
    snprintf(ch->consumer, sizeof ch->consumer, "%s", r->consumer);
    ch->config = (struct weir_sub_config){
        .start = op->start,
        .offset = op->offset,
        .at_ms = op->at_ms,
        .credit_bytes = r->credit_bytes,
        .credit_frames = r->credit_frames,
        .frame_bytes = between(r->frame_bytes ? r->frame_bytes : FRAME_BYTES_DEFAULT,
                               FRAME_BYTES_MIN, FRAME_BYTES_MAX),
        .until_offset = r->until_offset,
        .until_ms = r->until_ms,
        .heartbeat_ms = (uint32_t)between(
            r->heartbeat_ms ? r->heartbeat_ms : n->options.heartbeat_ms, 100, 60000),
        .fail_if_trimmed = r->fail_if_trimmed,
    };
    channel_open(ch, c);
}

static void
begin_subscribe(struct called *c, const Weir__Subscribe *r)
{
    c->op.start = (struct weir_start_call){
        .call.done = done_start,
        .stream = weir_bytes_of(r->stream),
        .shard = r->shard,
        .consumer = weir_bytes_of(r->consumer),
        .position = position_of(r->position),
    };
    weir_service_find_start(c->peer->native->service, &c->op.start);
}

static void
done_positions(struct weir_call *call, enum weir_status st)
{
    struct called *c = called_of(call);
    if (failed(c, st))
        return;
    const struct weir_positions_call *op = &c->op.positions;
    Weir__ShardPosition *items = calloc(op->count + 1, sizeof *items);
    Weir__ShardPosition **list = calloc(op->count + 1, sizeof *list);
    if (!items || !list) {
        called_fail(c, control(c), WEIR_NO_MEMORY, 0, "no memory");
        goto done;
    }
    for (size_t i = 0; i < op->count; i++) {
        weir__shard_position__init(&items[i]);
        items[i].shard = op->items[i].shard;
        items[i].offset = op->items[i].offset;
        items[i].tail = op->items[i].tail;
        items[i].oldest = op->items[i].oldest;
        list[i] = &items[i];
    }
    Weir__Positions positions = WEIR__POSITIONS__INIT;
    positions.items = list;
    positions.n_items = op->count;
    Weir__Reply reply = WEIR__REPLY__INIT;
    reply.result_case = WEIR__REPLY__RESULT_POSITIONS;
    reply.positions = &positions;
    called_reply(c, control(c), &reply);
done:
    free(items);
    free(list);
}

static void
begin_positions(struct called *c, const Weir__ResolvePosition *r)
{
    c->op.positions = (struct weir_positions_call){
        .call.done = done_positions,
        .stream = weir_bytes_of(r->stream),
        .shards = r->shards,
        .shard_count = r->n_shards,
        .consumer = weir_bytes_of(r->consumer),
        .position = position_of(r->position),
    };
    weir_service_resolve(c->peer->native->service, &c->op.positions);
}

/* ---- checkpoints ---- */

static void
fill_checkpoint(Weir__Checkpoint *item, const struct weir_checkpoint_row *row)
{
    weir__checkpoint__init(item);
    item->shard = row->shard;
    item->offset = row->offset;
    item->epoch = row->epoch;
    item->shard_end = row->shard_end;
    item->owner = text_of(row->owner);
    item->updated_ms = row->updated_ms;
    item->set = row->set;
}

static void
done_checkpoint(struct weir_call *call, enum weir_status st)
{
    struct called *c = called_of(call);
    const struct weir_checkpoint_row *row = &c->op.checkpoint.row;
    if (st == WEIR_FENCED) {
        called_fail(c, control(c), st, row->epoch, "%s", call->err.text);
        return;
    }
    if (failed(c, st))
        return;
    Weir__Checkpoint item, *list[1] = {&item};
    fill_checkpoint(&item, row);
    Weir__CheckpointList checkpoints = WEIR__CHECKPOINT_LIST__INIT;
    checkpoints.items = list;
    checkpoints.n_items = 1;
    Weir__Reply reply = WEIR__REPLY__INIT;
    reply.result_case = WEIR__REPLY__RESULT_CHECKPOINTS;
    reply.checkpoints = &checkpoints;
    called_reply(c, control(c), &reply);
}

static void
begin_acquire(struct called *c, const Weir__AcquireCheckpoint *r)
{
    c->op.checkpoint = (struct weir_checkpoint_call){
        .call.done = done_checkpoint,
        .stream = weir_bytes_of(r->stream),
        .consumer = weir_bytes_of(r->consumer),
        .owner = weir_bytes_of(r->owner),
        .shard = r->shard,
    };
    weir_service_acquire(c->peer->native->service, &c->op.checkpoint);
}

static void
begin_set(struct called *c, const Weir__SetCheckpoint *r)
{
    c->op.checkpoint = (struct weir_checkpoint_call){
        .call.done = done_checkpoint,
        .stream = weir_bytes_of(r->stream),
        .consumer = weir_bytes_of(r->consumer),
        .shard = r->shard,
        .epoch = r->epoch,
        .offset = r->offset,
        .shard_end = r->shard_end,
    };
    weir_service_checkpoint(c->peer->native->service, &c->op.checkpoint);
}

static void
begin_reset(struct called *c, const Weir__ResetCheckpoints *r)
{
    c->op.checkpoint = (struct weir_checkpoint_call){
        .call.done = done_plain,
        .stream = weir_bytes_of(r->stream),
        .consumer = weir_bytes_of(r->consumer),
    };
    weir_service_reset_checkpoints(c->peer->native->service, &c->op.checkpoint);
}

static void
done_checkpoints(struct weir_call *call, enum weir_status st)
{
    struct called *c = called_of(call);
    if (failed(c, st))
        return;
    const struct weir_checkpoints_call *op = &c->op.checkpoints;
    Weir__Checkpoint *items = calloc(op->count + 1, sizeof *items);
    Weir__Checkpoint **list = calloc(op->count + 1, sizeof *list);
    if (!items || !list) {
        called_fail(c, control(c), WEIR_NO_MEMORY, 0, "no memory");
        goto done;
    }
    for (size_t i = 0; i < op->count; i++) {
        fill_checkpoint(&items[i], &op->rows[i]);
        list[i] = &items[i];
    }
    Weir__CheckpointList checkpoints = WEIR__CHECKPOINT_LIST__INIT;
    checkpoints.items = list;
    checkpoints.n_items = op->count;
    Weir__Reply reply = WEIR__REPLY__INIT;
    reply.result_case = WEIR__REPLY__RESULT_CHECKPOINTS;
    reply.checkpoints = &checkpoints;
    called_reply(c, control(c), &reply);
done:
    free(items);
    free(list);
}

static void
begin_get(struct called *c, const Weir__GetCheckpoints *r)
{
    c->op.checkpoints = (struct weir_checkpoints_call){
        .call.done = done_checkpoints,
        .stream = weir_bytes_of(r->stream),
        .consumer = weir_bytes_of(r->consumer),
    };
    weir_service_get_checkpoints(c->peer->native->service, &c->op.checkpoints);
}

/* ---- watching ---- */

static void
fill_consumer(Weir__Consumer *item, const struct weir_consumer_view *view)
{
    weir__consumer__init(item);
    item->name = text_of(view->name);
    item->shard = view->shard;
    item->connected = view->connected;
    item->position = view->position;
    item->tail = view->tail;
    item->lag_records = view->lag_records;
    item->lag_bytes = view->lag_bytes;
    item->lag_ms = view->lag_ms;
    item->checkpoint = view->checkpoint;
    item->has_checkpoint = view->has_checkpoint;
    item->credit_bytes = view->credit_bytes;
    item->sent_records = view->sent_records;
    item->sent_bytes = view->sent_bytes;
    item->last_sent_ms = view->last_sent_ms;
}

static void
done_consumers(struct weir_call *call, enum weir_status st)
{
    struct called *c = called_of(call);
    if (failed(c, st))
        return;
    const struct weir_consumers_call *op = &c->op.consumers;
    Weir__Consumer *items = calloc(op->count + 1, sizeof *items);
    Weir__Consumer **list = calloc(op->count + 1, sizeof *list);
    if (!items || !list) {
        called_fail(c, control(c), WEIR_NO_MEMORY, 0, "no memory");
        goto done;
    }
    for (size_t i = 0; i < op->count; i++) {
        fill_consumer(&items[i], &op->items[i]);
        list[i] = &items[i];
    }
    Weir__ConsumerList consumers = WEIR__CONSUMER_LIST__INIT;
    consumers.items = list;
    consumers.n_items = op->count;
    Weir__Reply reply = WEIR__REPLY__INIT;
    reply.result_case = WEIR__REPLY__RESULT_CONSUMERS;
    reply.consumers = &consumers;
    called_reply(c, control(c), &reply);
done:
    free(items);
    free(list);
}

static void
begin_consumers(struct called *c, const Weir__ListConsumers *r)
{
    c->op.consumers = (struct weir_consumers_call){
        .call.done = done_consumers,
        .stream = weir_bytes_of(r->stream),
    };
    weir_service_list_consumers(c->peer->native->service, &c->op.consumers);
}

static void
done_stats(struct weir_call *call, enum weir_status st)
{
    struct called *c = called_of(call);
    if (failed(c, st))
        return;
    const struct weir_stats_call *op = &c->op.stats;
    Weir__Stat *items = calloc(op->count + 1, sizeof *items);
    Weir__Stat **list = calloc(op->count + 1, sizeof *list);
    if (!items || !list) {
        called_fail(c, control(c), WEIR_NO_MEMORY, 0, "no memory");
        goto done;
    }
    for (size_t i = 0; i < op->count; i++) {
        weir__stat__init(&items[i]);
        items[i].name = text_of(op->items[i].name);
        items[i].unit = text_of(op->items[i].unit);
        items[i].help = text_of(op->items[i].help);
        items[i].value = op->items[i].value;
        list[i] = &items[i];
    }
    Weir__Stats stats = WEIR__STATS__INIT;
    stats.items = list;
    stats.n_items = op->count;
    Weir__Reply reply = WEIR__REPLY__INIT;
    reply.result_case = WEIR__REPLY__RESULT_STATS;
    reply.stats = &stats;
    called_reply(c, control(c), &reply);
done:
    free(items);
    free(list);
}

static void
begin_stats(struct called *c, const Weir__GetStats *r)
{
    c->op.stats = (struct weir_stats_call){
        .call.done = done_stats,
        .prefix = weir_bytes_of(r->prefix),
    };
    weir_service_stats(c->peer->native->service, &c->op.stats);
}

/* ---- begin ---- */

static void
dispatch(struct called *c)
{
    const Weir__Request *r = c->request;
    switch (r->op_case) {
    case WEIR__REQUEST__OP_CREATE_STREAM:
        begin_create(c, r->create_stream);
        return;
    case WEIR__REQUEST__OP_DELETE_STREAM:
        begin_delete(c, r->delete_stream);
        return;
    case WEIR__REQUEST__OP_LIST_STREAMS:
        begin_list(c, r->list_streams);
        return;
    case WEIR__REQUEST__OP_DESCRIBE_STREAM:
        begin_describe(c, r->describe_stream);
        return;
    case WEIR__REQUEST__OP_SET_RETENTION:
        begin_retention(c, r->set_retention);
        return;
    case WEIR__REQUEST__OP_SPLIT_SHARD:
        begin_split(c, r->split_shard);
        return;
    case WEIR__REQUEST__OP_MERGE_SHARDS:
        begin_merge(c, r->merge_shards);
        return;
    case WEIR__REQUEST__OP_UPDATE_SHARD_COUNT:
        begin_count(c, r->update_shard_count);
        return;
    case WEIR__REQUEST__OP_OPEN_PRODUCER:
        begin_producer(c, r->open_producer);
        return;
    case WEIR__REQUEST__OP_CLOSE_CHANNEL:
        begin_close(c, r->close_channel);
        return;
    case WEIR__REQUEST__OP_SUBSCRIBE:
        begin_subscribe(c, r->subscribe);
        return;
    case WEIR__REQUEST__OP_ACQUIRE_CHECKPOINT:
        begin_acquire(c, r->acquire_checkpoint);
        return;
    case WEIR__REQUEST__OP_SET_CHECKPOINT:
        begin_set(c, r->set_checkpoint);
        return;
    case WEIR__REQUEST__OP_GET_CHECKPOINTS:
        begin_get(c, r->get_checkpoints);
        return;
    case WEIR__REQUEST__OP_RESET_CHECKPOINTS:
        begin_reset(c, r->reset_checkpoints);
        return;
    case WEIR__REQUEST__OP_LIST_CONSUMERS:
        begin_consumers(c, r->list_consumers);
        return;
    case WEIR__REQUEST__OP_GET_STATS:
        begin_stats(c, r->get_stats);
        return;
    case WEIR__REQUEST__OP_RESOLVE_POSITION:
        begin_positions(c, r->resolve_position);
        return;
    case WEIR__REQUEST__OP__NOT_SET:
    case _WEIR__REQUEST__OP__CASE_IS_INT_SIZE:
        break;
    }
    called_fail(c, control(c), WEIR_UNSUPPORTED, 0, "this broker does not know the operation");
}

void
call_begin(struct peer *p, const struct weir_frame *frame, uint64_t held)
{
    ProtobufCMessage *request;
    enum weir_status st = weir_message_unpack(&weir__request__descriptor, frame->body, &request);
    struct called *c = st ? NULL : calloc(1, sizeof *c);
    if (!c) {
        if (st)
            peer_break(p, "its CALL is %s", weir_status_text(st));
        else
            peer_break(p, "no memory for a call");
        if (!st)
            weir_message_free(request);
        peer_release(p, held);
        return;
    }
    c->peer = peer_ref(p);
    c->number = frame->number;
    c->held = held;
    c->request = (Weir__Request *)request;
    dispatch(c);
}
