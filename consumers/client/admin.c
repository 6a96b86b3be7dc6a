/* The calls that only ask and answer: streams, checkpoints, watching. */
#include "base/text.h"
#include "client/client.h"
#include "record/sequence.h"
#include <stdio.h>
#include <stdlib.h>

/* A request of one kind; a macro because protobuf-c names the kind and the member apart. */
#define REQUEST(request, kind, member, op_)      \
    Weir__Request request = WEIR__REQUEST__INIT; \
    request.op_case = WEIR__REQUEST__OP_##kind;  \
    request.member = (op_)

static enum weir_status
call(struct weir_client *c, Weir__Request *request, enum weir_call_mode mode,
     Weir__Reply__ResultCase wanted, Weir__Reply **out, struct weir_error *err)
{
    Weir__Reply *reply = NULL;
    enum weir_status st = weir_call_wait(c, request, mode, &reply, err);
    if (st)
        return st;
    if (wanted != WEIR__REPLY__RESULT__NOT_SET && reply->result_case != wanted) {
        weir_message_free(&reply->base);
        return weir_fail(err, WEIR_INVALID, "the broker's answer is not the one asked for");
    }
    if (out)
        *out = reply;
    else
        weir_message_free(&reply->base);
    return WEIR_OK;
}

/* An answer that nobody looks into. */
static enum weir_status
command(struct weir_client *c, Weir__Request *request, enum weir_call_mode mode,
        struct weir_error *err)
{
    return call(c, request, mode, WEIR__REPLY__RESULT__NOT_SET, NULL, err);
}

/* ---- streams ---- */

enum weir_status
weir_create_stream(struct weir_client *c, const struct weir_stream_options *options,
                   struct weir_error *err)
{
    if (!options->name)
        return weir_fail(err, WEIR_INVALID, "a stream needs a name");
    Weir__CreateStream op = WEIR__CREATE_STREAM__INIT;
    op.name = (char *)options->name;
    op.shard_count = options->shard_count ? options->shard_count : 1;
    op.retention_ms = options->retention_ms;
    op.retention_bytes = options->retention_bytes;
    op.record_bytes_max = options->record_bytes_max;
    REQUEST(request, CREATE_STREAM, create_stream, &op);
    enum weir_status st = command(c, &request, WEIR_CALL_ONCE, err);
    return st ? weir_fail_in(err, st, "cannot create stream '%s'", options->name) : st;
}

enum weir_status
weir_delete_stream(struct weir_client *c, const char *name, struct weir_error *err)
{
    Weir__DeleteStream op = WEIR__DELETE_STREAM__INIT;
    op.name = (char *)name;
    REQUEST(request, DELETE_STREAM, delete_stream, &op);
    enum weir_status st = command(c, &request, WEIR_CALL_ONCE, err);
    return st ? weir_fail_in(err, st, "cannot delete stream '%s'", name) : st;
}

enum weir_status
weir_list_streams(struct weir_client *c, void (*each)(void *arg, const char *name), void *arg,
                  struct weir_error *err)
{
    char after[WEIR_STREAM_NAME_MAX + 1] = "";
    for (bool more = true; more;) {
        Weir__ListStreams op = WEIR__LIST_STREAMS__INIT;
        op.after = after;
        op.limit = 1000;
        REQUEST(request, LIST_STREAMS, list_streams, &op);
        Weir__Reply *reply;
        enum weir_status st =
            call(c, &request, WEIR_CALL_AGAIN, WEIR__REPLY__RESULT_STREAMS, &reply, err);
        if (st)
            return weir_fail_in(err, st, "cannot list streams");
        Weir__StreamList *list = reply->streams;
        for (size_t i = 0; i < list->n_names; i++)
            each(arg, list->names[i]);
        more = list->more && list->n_names;
        if (more)
            snprintf(after, sizeof after, "%s", list->names[list->n_names - 1]);
        weir_message_free(&reply->base);
    }
    return WEIR_OK;
}

enum weir_status
weir_describe_stream(struct weir_client *c, const char *name, struct weir_stream_description **out,
                     struct weir_error *err)
{
    struct weir_topology t;
    enum weir_status st = weir_describe_wait(c, name, true, &t, err);
    if (st)
        return st;
    struct weir_stream_description *d = calloc(1, sizeof *d);
    struct weir_shard_description *shards = calloc(t.count ? t.count : 1, sizeof *shards);
    if (!d || !shards) {
        free(d);
        free(shards);
        weir_topology_fini(&t);
        return weir_fail(err, WEIR_NO_MEMORY, "no memory for the description of '%s'", name);
    }
    memcpy(d->name, t.name, sizeof d->name);
    d->created_ms = t.created_ms;
    d->retention_ms = t.retention_ms;
    d->retention_bytes = t.retention_bytes;
    d->record_bytes_max = t.record_bytes_max;
    d->version = t.version;
    d->status = t.status <= WEIR_STREAM_DELETING ? t.status : WEIR_STREAM_UPDATING;
    d->open_shards = t.open_shards;
    d->shard_count = (uint32_t)t.count;
    d->shards = shards;
    for (size_t i = 0; i < t.count; i++) {
        const struct weir_topology_shard *from = &t.shards[i];
        struct weir_shard_description *to = &shards[i];
        to->index = from->index;
        weir_shard_id_format(from->index, to->id);
        weir_u128_format(from->range.low, to->hash_low);
        weir_u128_format(from->range.high, to->hash_high);
        to->parent = from->parent;
        to->adjacent_parent = from->adjacent_parent;
        to->created_ms = from->created_ms;
        to->closed_ms = from->closed_ms;
        to->oldest = from->oldest;
        to->next = from->next;
        to->oldest_at_ms = from->oldest_at_ms;
        to->latest_at_ms = from->latest_at_ms;
        to->bytes = from->bytes;
    }
    weir_topology_fini(&t);
    *out = d;
    return WEIR_OK;
}

void
weir_stream_description_free(struct weir_stream_description *d)
{
    if (!d)
        return;
    free(d->shards);
    free(d);
}

enum weir_status
weir_set_retention(struct weir_client *c, const char *name, uint64_t retention_ms,
                   uint64_t retention_bytes, struct weir_error *err)
{
    Weir__SetRetention op = WEIR__SET_RETENTION__INIT;
    op.name = (char *)name;
    op.retention_ms = retention_ms;
    op.retention_bytes = retention_bytes;
    REQUEST(request, SET_RETENTION, set_retention, &op);
    enum weir_status st = command(c, &request, WEIR_CALL_AGAIN, err);
    return st ? weir_fail_in(err, st, "cannot set the retention of '%s'", name) : st;
}

enum weir_status
weir_split_shard(struct weir_client *c, const char *name, uint32_t shard,
                 const char *new_starting_hash, struct weir_error *err)
{
    Weir__SplitShard op = WEIR__SPLIT_SHARD__INIT;
    uint8_t hash[16];
    op.name = (char *)name;
    op.shard = shard;
    if (new_starting_hash) {
        weir_u128 at;
        if (weir_u128_parse(weir_bytes_of(new_starting_hash), &at))
            return weir_fail(err, WEIR_INVALID, "'%s' is not a hash key", new_starting_hash);
        weir_store_be64(hash, (uint64_t)(at >> 64));
        weir_store_be64(hash + 8, (uint64_t)at);
        op.new_starting_hash = (ProtobufCBinaryData){sizeof hash, hash};
    }
    REQUEST(request, SPLIT_SHARD, split_shard, &op);
    enum weir_status st = command(c, &request, WEIR_CALL_ONCE, err);
    return st ? weir_fail_in(err, st, "cannot split shard %u of '%s'", shard, name) : st;
}

enum weir_status
weir_merge_shards(struct weir_client *c, const char *name, uint32_t shard, uint32_t adjacent,
                  struct weir_error *err)
{
    Weir__MergeShards op = WEIR__MERGE_SHARDS__INIT;
    op.name = (char *)name;
    op.shard = shard;
    op.adjacent = adjacent;
    REQUEST(request, MERGE_SHARDS, merge_shards, &op);
    enum weir_status st = command(c, &request, WEIR_CALL_ONCE, err);
    return st ? weir_fail_in(err, st, "cannot merge shards %u and %u of '%s'", shard, adjacent,
                             name)
              : st;
}

enum weir_status
weir_update_shard_count(struct weir_client *c, const char *name, uint32_t target,
                        struct weir_error *err)
{
    Weir__UpdateShardCount op = WEIR__UPDATE_SHARD_COUNT__INIT;
    op.name = (char *)name;
    op.target = target;
    REQUEST(request, UPDATE_SHARD_COUNT, update_shard_count, &op);
    enum weir_status st = command(c, &request, WEIR_CALL_ONCE, err);
    return st ? weir_fail_in(err, st, "cannot make '%s' a stream of %u shards", name, target) : st;
}

/* ---- checkpoints ---- */

enum weir_status
weir_get_checkpoints(struct weir_client *c, const char *stream, const char *consumer,
                     void (*each)(void *arg, const struct weir_checkpoint_info *), void *arg,
                     struct weir_error *err)
{
    Weir__GetCheckpoints op = WEIR__GET_CHECKPOINTS__INIT;
    op.stream = (char *)stream;
    op.consumer = (char *)consumer;
    REQUEST(request, GET_CHECKPOINTS, get_checkpoints, &op);
    Weir__Reply *reply;
    enum weir_status st =
        call(c, &request, WEIR_CALL_AGAIN, WEIR__REPLY__RESULT_CHECKPOINTS, &reply, err);
    if (st)
        return weir_fail_in(err, st, "cannot read the checkpoints of '%s' on '%s'", consumer,
                            stream);
    for (size_t i = 0; i < reply->checkpoints->n_items; i++) {
        const Weir__Checkpoint *item = reply->checkpoints->items[i];
        struct weir_checkpoint_info info = {
            .shard = item->shard,
            .offset = item->offset,
            .epoch = item->epoch,
            .updated_ms = item->updated_ms,
            .set = item->set,
            .shard_end = item->shard_end,
        };
        snprintf(info.owner, sizeof info.owner, "%s", item->owner);
        each(arg, &info);
    }
    weir_message_free(&reply->base);
    return WEIR_OK;
}

enum weir_status
weir_set_checkpoint(struct weir_client *c, const char *stream, const char *consumer, uint32_t shard,
                    uint64_t offset, struct weir_error *err)
{
    Weir__SetCheckpoint op = WEIR__SET_CHECKPOINT__INIT;
    op.stream = (char *)stream;
    op.consumer = (char *)consumer;
    op.shard = shard;
    op.offset = offset;
    REQUEST(request, SET_CHECKPOINT, set_checkpoint, &op);
    enum weir_status st = command(c, &request, WEIR_CALL_AGAIN, err);
    return st ? weir_fail_in(err, st, "cannot set the checkpoint of '%s' in shard %u of '%s'",
                             consumer, shard, stream)
              : st;
}

enum weir_status
weir_acquire_checkpoint(struct weir_client *c, const char *stream, const char *consumer,
                        uint32_t shard, const char *owner, uint64_t *epoch_out,
                        struct weir_error *err)
{
    Weir__AcquireCheckpoint op = WEIR__ACQUIRE_CHECKPOINT__INIT;
    op.stream = (char *)stream;
    op.consumer = (char *)consumer;
    op.shard = shard;
    op.owner = owner ? (char *)owner : c->name;
    REQUEST(request, ACQUIRE_CHECKPOINT, acquire_checkpoint, &op);
    Weir__Reply *reply;
    enum weir_status st =
        call(c, &request, WEIR_CALL_AGAIN, WEIR__REPLY__RESULT_CHECKPOINTS, &reply, err);
    if (!st && reply->checkpoints->n_items != 1) {
        weir_message_free(&reply->base);
        st = weir_fail(err, WEIR_INVALID, "the broker's answer is not the one asked for");
    }
    if (st)
        return weir_fail_in(err, st, "cannot acquire the checkpoint of '%s' in shard %u of '%s'",
                            consumer, shard, stream);
    *epoch_out = reply->checkpoints->items[0]->epoch;
    weir_message_free(&reply->base);
    return WEIR_OK;
}

enum weir_status
weir_reset_checkpoints(struct weir_client *c, const char *stream, const char *consumer,
                       struct weir_error *err)
{
    Weir__ResetCheckpoints op = WEIR__RESET_CHECKPOINTS__INIT;
    op.stream = (char *)stream;
    op.consumer = (char *)consumer;
    REQUEST(request, RESET_CHECKPOINTS, reset_checkpoints, &op);
    enum weir_status st = command(c, &request, WEIR_CALL_AGAIN, err);
    return st ? weir_fail_in(err, st, "cannot reset the checkpoints of '%s' on '%s'", consumer,
                             stream)
              : st;
}

static enum weir_status
position_of(const struct weir_from *from, Weir__Position *out, struct weir_error *err)
{
    static const Weir__Position__Kind kinds[] = {
        [WEIR_FROM_LATEST] = WEIR__POSITION__KIND__LATEST,
        [WEIR_FROM_OLDEST] = WEIR__POSITION__KIND__OLDEST,
        [WEIR_FROM_OFFSET] = WEIR__POSITION__KIND__AT_OFFSET,
        [WEIR_FROM_SEQUENCE] = WEIR__POSITION__KIND__AT_SEQUENCE,
        [WEIR_FROM_TIME] = WEIR__POSITION__KIND__AT_TIME,
        [WEIR_FROM_CHECKPOINT] = WEIR__POSITION__KIND__CHECKPOINT,
    };
    if ((unsigned)from->kind > WEIR_FROM_CHECKPOINT ||
        (from->kind == WEIR_FROM_CHECKPOINT && from->otherwise > WEIR_FROM_OLDEST))
        return weir_fail(err, WEIR_INVALID, "no such kind of position");
    weir__position__init(out);
    out->kind = kinds[from->kind];
    out->offset = from->offset;
    out->at_ms = from->at_ms;
    out->sequence = from->kind == WEIR_FROM_SEQUENCE ? (char *)from->sequence : out->sequence;
    out->otherwise = kinds[from->otherwise];
    return out->sequence ? WEIR_OK : weir_fail(err, WEIR_INVALID, "a sequence number is missing");
}

enum weir_status
weir_resolve(struct weir_client *c, const char *stream, const struct weir_from *from,
             const char *consumer,
             void (*each)(void *arg, uint32_t shard, uint64_t offset, uint64_t oldest,
                          uint64_t tail),
             void *arg, struct weir_error *err)
{
    Weir__ResolvePosition op = WEIR__RESOLVE_POSITION__INIT;
    Weir__Position position;
    enum weir_status st = position_of(from, &position, err);
    if (st)
        return st;
    uint32_t shard;
    struct weir_sequence sequence;
    if (from->kind == WEIR_FROM_SEQUENCE) {
        if (weir_sequence_parse(weir_bytes_of(from->sequence), &sequence))
            return weir_fail(err, WEIR_INVALID, "'%s' is not a sequence number", from->sequence);
        shard = sequence.shard_index;
        op.n_shards = 1;
        op.shards = &shard;
    }
    op.stream = (char *)stream;
    op.position = &position;
    if (consumer)
        op.consumer = (char *)consumer;
    REQUEST(request, RESOLVE_POSITION, resolve_position, &op);
    Weir__Reply *reply;
    st = call(c, &request, WEIR_CALL_AGAIN, WEIR__REPLY__RESULT_POSITIONS, &reply, err);
    if (st)
        return weir_fail_in(err, st, "cannot resolve a position in '%s'", stream);
    for (size_t i = 0; i < reply->positions->n_items; i++) {
        const Weir__ShardPosition *item = reply->positions->items[i];
        each(arg, item->shard, item->offset, item->oldest, item->tail);
    }
    weir_message_free(&reply->base);
    return WEIR_OK;
}

/* ---- watching ---- */

enum weir_status
weir_list_consumers(struct weir_client *c, const char *stream,
                    void (*each)(void *arg, const struct weir_consumer_info *), void *arg,
                    struct weir_error *err)
{
    Weir__ListConsumers op = WEIR__LIST_CONSUMERS__INIT;
    op.stream = (char *)stream;
    REQUEST(request, LIST_CONSUMERS, list_consumers, &op);
    Weir__Reply *reply;
    enum weir_status st =
        call(c, &request, WEIR_CALL_AGAIN, WEIR__REPLY__RESULT_CONSUMERS, &reply, err);
    if (st)
        return weir_fail_in(err, st, "cannot list the consumers of '%s'", stream);
    for (size_t i = 0; i < reply->consumers->n_items; i++) {
        const Weir__Consumer *item = reply->consumers->items[i];
        struct weir_consumer_info info = {
            .shard = item->shard,
            .connected = item->connected,
            .has_checkpoint = item->has_checkpoint,
            .position = item->position,
            .tail = item->tail,
            .checkpoint = item->checkpoint,
            .lag_records = item->lag_records,
            .lag_bytes = item->lag_bytes,
            .lag_ms = item->lag_ms,
            .credit_bytes = item->credit_bytes,
            .sent_records = item->sent_records,
            .sent_bytes = item->sent_bytes,
            .last_sent_ms = item->last_sent_ms,
        };
        snprintf(info.name, sizeof info.name, "%s", item->name);
        each(arg, &info);
    }
    weir_message_free(&reply->base);
    return WEIR_OK;
}

enum weir_status
weir_get_stats(struct weir_client *c, const char *prefix,
               void (*each)(void *arg, const char *name, double value, const char *unit,
                            const char *help),
               void *arg, struct weir_error *err)
{
    Weir__GetStats op = WEIR__GET_STATS__INIT;
    op.prefix = prefix ? (char *)prefix : op.prefix;
    REQUEST(request, GET_STATS, get_stats, &op);
    Weir__Reply *reply;
    enum weir_status st =
        call(c, &request, WEIR_CALL_AGAIN, WEIR__REPLY__RESULT_STATS, &reply, err);
    if (st)
        return weir_fail_in(err, st, "cannot read the broker's numbers");
    for (size_t i = 0; i < reply->stats->n_items; i++) {
        const Weir__Stat *item = reply->stats->items[i];
        each(arg, item->name, item->value, item->unit, item->help);
    }
    weir_message_free(&reply->base);
    return WEIR_OK;
}
