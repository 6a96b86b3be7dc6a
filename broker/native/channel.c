/* Channels, on their owner's loop: batches in and acknowledgements out, records out and credit in.
 */
#include "native/inside.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define CREDIT_FRAMES_MAX 1000000
#define CHANNEL_SERIALS (1u << 24)

static uint64_t
channel_key(const struct peer *p, uint32_t id)
{
    return (uint64_t)p->id << 32 | id;
}

static struct peer_at_owner *
peer_at(const struct channel *ch)
{
    return &ch->peer->at[ch->owner->owner->index];
}

/* ---- life ---- */

struct channel *
channel_new(struct peer *p, enum channel_kind kind, uint32_t owner, enum weir_status *why)
{
    struct weir_native *n = p->native;
    if (atomic_load(&p->channels) >= n->options.channels_max) {
        *why = WEIR_TOO_BIG;
        return NULL;
    }
    struct channel *ch = calloc(1, sizeof *ch);
    if (!ch) {
        *why = WEIR_NO_MEMORY;
        return NULL;
    }
    atomic_fetch_add(&p->channels, 1);
    p->serial = (p->serial + 1) % CHANNEL_SERIALS;
    ch->peer = peer_ref(p);
    ch->owner = &n->owners[owner];
    ch->kind = kind;
    ch->id = weir_channel_make(p->serial, owner);
    ch->refs = 1;
    return ch;
}

static void
channel_unref(struct channel *ch)
{
    if (--ch->refs)
        return;
    struct peer *p = ch->peer;
    atomic_fetch_sub(&p->channels, 1);
    free(ch);
    peer_unref(p);
}

static void
channel_close(struct channel *ch)
{
    if (!ch->open)
        return;
    ch->open = false;
    weir_list_remove(&ch->node);
    WEIR_ASSERT(weir_map_take(&ch->owner->channels, channel_key(ch->peer, ch->id)) == ch);
    if (ch->sub)
        weir_sub_close(ch->sub);
    ch->sub = NULL;
    if (ch->called)
        called_fail(ch->called, &ch->owner->outlet, WEIR_CANCELLED, 0, "the channel was closed");
    ch->called = NULL;
    channel_unref(ch);
}

static struct channel *
channel_find(struct native_owner *o, const struct peer *p, uint32_t id)
{
    return weir_map_get(&o->channels, channel_key(p, id));
}

bool
channel_close_id(struct native_owner *o, struct peer *p, uint32_t id)
{
    struct channel *ch = channel_find(o, p, id);
    if (ch)
        channel_close(ch);
    return ch != NULL;
}

void
channels_close(struct weir_task *task)
{
    struct peer_at_owner *at = WEIR_CONTAINER(task, struct peer_at_owner, close_task);
    struct peer *p = at->peer;
    at->gone = true;
    while (!weir_list_is_empty(&at->channels))
        channel_close(WEIR_CONTAINER(at->channels.next, struct channel, node));
    peer_unref(p);
}

/* ---- subscriptions ---- */

/* The end of a shard, on its way to the control loop, which knows the children. */
struct ending {
    struct weir_lineage_call call;
    struct peer *peer;
    struct weir_frame frame;
};

static void
end_of_shard(struct weir_call *call, enum weir_status st)
{
    struct ending *e = WEIR_CONTAINER(call, struct ending, call.call);
    struct peer *p = e->peer;
    const struct weir_stream *stream = e->call.info;
    const struct weir_shard *row = e->call.row;
    if (st) { /* the stream was deleted meanwhile */
        e->frame.kind = WEIR_FRAME_STOPPED;
        e->frame.status = st;
        peer_send(p, &p->native->outlet, &e->frame, NULL, 0, 0);
        goto done;
    }
    uint32_t children[2], shards[2][2];
    Weir__ParentsOfChild parents[2], *parent_list[2];
    Weir__EndOfShard end = WEIR__END_OF_SHARD__INIT;
    end.children = children;
    end.parents = parent_list;
    for (int i = 0; i < 2; i++) {
        if (row->child[i] < 0)
            continue;
        const struct weir_shard *child = &stream->shards[row->child[i]];
        weir__parents_of_child__init(&parents[i]);
        parents[i].shards = shards[i];
        if (child->parent >= 0)
            shards[i][parents[i].n_shards++] = (uint32_t)child->parent;
        if (child->adjacent_parent >= 0)
            shards[i][parents[i].n_shards++] = (uint32_t)child->adjacent_parent;
        children[end.n_children++] = (uint32_t)row->child[i];
        parent_list[end.n_parents++] = &parents[i];
    }
    if (!peer_send_message(p, &p->native->outlet, &e->frame, &end.base, 0))
        peer_break(p, "no memory for a frame");
done:
    free(e);
    peer_unref(p);
}

static void
on_stopped(struct weir_sub *sub, enum weir_status why, uint64_t offset)
{
    struct channel *ch = weir_sub_owner(sub);
    struct peer *p = ch->peer;
    struct weir_frame frame = {.kind = why ? WEIR_FRAME_STOPPED : WEIR_FRAME_END,
                               .status = why,
                               .channel = ch->id,
                               .offset = offset};
    if (why) {
        peer_send(p, &ch->owner->outlet, &frame, NULL, 0, 0);
        channel_close(ch);
        return;
    }
    struct ending *e = calloc(1, sizeof *e);
    if (e) {
        e->peer = peer_ref(p);
        e->frame = frame;
        e->call.call.done = end_of_shard;
        e->call.stream = ch->stream;
        e->call.shard = ch->shard;
        weir_service_lineage(p->native->service, &e->call);
    } else {
        peer_break(p, "no memory for a frame");
    }
    channel_close(ch);
}

static void
on_deliver(struct weir_sub *sub, const struct weir_delivery *d)
{
    struct channel *ch = weir_sub_owner(sub);
    static_assert(WEIR_DELIVERY_SLICES_MAX + 1 <= WEIR_SEND_PIECES_MAX,
                  "a delivery and its header are one send");
    struct weir_frame frame = {.kind = WEIR_FRAME_DATA,
                               .channel = ch->id,
                               .number = ++ch->number,
                               .offset = d->next,
                               .value = d->tail,
                               .epoch = ch->epoch,
                               .lag_ms = d->lag_ms};
    peer_send(ch->peer, &ch->owner->outlet, &frame, d->batch, d->count, 0);
}

static void
on_heartbeat(struct weir_sub *sub, uint64_t next, uint64_t tail, uint32_t lag_ms)
{
    struct channel *ch = weir_sub_owner(sub);
    struct weir_frame frame = {.kind = WEIR_FRAME_HEARTBEAT,
                               .channel = ch->id,
                               .number = ch->number,
                               .offset = next,
                               .value = tail,
                               .epoch = ch->epoch,
                               .lag_ms = lag_ms};
    /* One that does not fetch learns nothing from more of them. */
    if (atomic_load_explicit(&ch->peer->unsent_bytes, memory_order_relaxed) <
        ch->owner->native->options.intake_bytes_max)
        peer_send(ch->peer, &ch->owner->outlet, &frame, NULL, 0, 0);
}

static void
on_gap(struct weir_sub *sub, uint64_t first, uint64_t limit, enum weir_status why)
{
    struct channel *ch = weir_sub_owner(sub);
    struct weir_frame frame = {
        .kind = WEIR_FRAME_GAP, .status = why, .channel = ch->id, .offset = first, .value = limit};
    peer_send(ch->peer, &ch->owner->outlet, &frame, NULL, 0, 0);
}

static const struct weir_sink sink = {
    .deliver = on_deliver, .heartbeat = on_heartbeat, .gap = on_gap, .stopped = on_stopped};

static void
on_started(struct weir_sub *sub, enum weir_status st, uint64_t offset, uint64_t tail)
{
    struct channel *ch = weir_sub_owner(sub);
    struct called *called = ch->called;
    struct outlet *outlet = &ch->owner->outlet;
    ch->called = NULL;
    if (st) {
        if (st == WEIR_TRIMMED)
            called_fail(called, outlet, st, offset,
                        "the position is gone: the oldest that is there is %" PRIu64, offset);
        else if (st == WEIR_INVALID)
            called_fail(called, outlet, st, tail,
                        "the position was never given out: the shard goes up to %" PRIu64, tail);
        else
            called_fail(called, outlet, st, 0, "cannot start there: %s", weir_status_text(st));
        channel_close(ch);
        return;
    }
    Weir__Subscribed opened = WEIR__SUBSCRIBED__INIT;
    opened.channel = ch->id;
    opened.epoch = ch->epoch;
    opened.offset = offset;
    opened.tail = tail;
    opened.from_checkpoint = ch->from_checkpoint;
    Weir__Reply reply = WEIR__REPLY__INIT;
    reply.result_case = WEIR__REPLY__RESULT_SUBSCRIBED;
    reply.subscribed = &opened;
    called_reply(called, outlet, &reply);
}

static void
open_subscription(struct channel *ch)
{
    ch->config.shard = ch->shard;
    ch->config.consumer = ch->consumer[0] ? ch->consumer : NULL;
    ch->config.sink = &sink;
    ch->config.owner = ch;
    ch->config.started = on_started;
    enum weir_status st = weir_sub_open(ch->owner->owner->fanout, &ch->config, &ch->sub);
    if (!st)
        return;
    struct called *called = ch->called;
    ch->called = NULL;
    called_fail(called, &ch->owner->outlet, st, 0, "cannot subscribe: %s", weir_status_text(st));
    channel_close(ch);
}

/* ---- producers ---- */

static void
open_producer(struct channel *ch)
{
    struct called *called = ch->called;
    ch->called = NULL;
    uint64_t last = 0;
    Weir__ProducerOpened opened = WEIR__PRODUCER_OPENED__INIT;
    opened.channel = ch->id;
    opened.stream_number = ch->stream;
    opened.shard_number = ch->shard;
    opened.known =
        ch->producer && !weir_log_producer(ch->owner->owner->log, ch->shard, ch->producer, &last);
    opened.last_number = last;
    opened.record_bytes_max = ch->record_bytes_max;
    opened.window_bytes = ch->owner->native->options.window_bytes;
    Weir__Reply reply = WEIR__REPLY__INIT;
    reply.result_case = WEIR__REPLY__RESULT_PRODUCER;
    reply.producer = &opened;
    called_reply(called, &ch->owner->outlet, &reply);
}

/* ---- open ---- */

static void
run_open(struct weir_task *task)
{
    struct channel *ch = WEIR_CONTAINER(task, struct channel, task);
    struct peer_at_owner *at = peer_at(ch);
    enum weir_status st =
        at->gone ? WEIR_CANCELLED
                 : weir_map_put(&ch->owner->channels, channel_key(ch->peer, ch->id), ch);
    if (st) {
        called_fail(ch->called, &ch->owner->outlet, st, 0, "cannot open a channel: %s",
                    weir_status_text(st));
        channel_unref(ch);
        return;
    }
    ch->open = true;
    weir_list_push_back(&at->channels, &ch->node);
    if (ch->kind == CHANNEL_PRODUCER)
        open_producer(ch);
    else
        open_subscription(ch);
}

void
channel_open(struct channel *ch, struct called *called)
{
    ch->called = called;
    ch->task.run = run_open;
    weir_loop_post(ch->owner->owner->loop, &ch->task);
}

/* ---- frames ---- */

static void
on_produced(struct weir_produce *produce, enum weir_status st, const char *text)
{
    struct intake *in = WEIR_CONTAINER(produce, struct intake, produce);
    struct channel *ch = in->channel;
    struct peer *p = in->peer;
    bool stored = st == WEIR_OK || st == WEIR_DUPLICATE;
    if (!stored && st != WEIR_AGAIN && !ch->told) {
        ch->told = true;
        weir_service_log(
            p->native->service, 5, "refused a batch of %s for shard %" PRIu64 ": %s: %s",
            weir_conn_peer(p->conn), ch->shard, weir_status_text(st), text ? text : "");
    }
    struct weir_frame ack = {.kind = WEIR_FRAME_ACK,
                             .status = st,
                             .channel = ch->id,
                             .number = in->frame.number,
                             .offset = stored ? produce->append.offset : 0,
                             .value = stored ? produce->append.at_ms : 0};
    peer_send(p, &ch->owner->outlet, &ack, NULL, 0, INTAKE_OVERHEAD);
    peer_release(p, in->held - INTAKE_OVERHEAD);
    ch->in_flight -= in->frame.body.len;
    channel_unref(ch);
    intake_return(in);
}

static void
on_produce(struct native_owner *o, struct intake *in)
{
    struct channel *ch = channel_find(o, in->peer, in->frame.channel);
    uint64_t size = in->frame.body.len;
    if (!ch || ch->kind != CHANNEL_PRODUCER) {
        peer_break(in->peer, "channel %" PRIu32 " is not a producer's", in->frame.channel);
    } else if (ch->in_flight + size > o->native->options.window_bytes) {
        peer_break(in->peer, "more than its window of %" PRIu64 " bytes in flight",
                   o->native->options.window_bytes);
    } else {
        struct weir_buf *message = in->message;
        in->message = NULL;
        in->channel = ch;
        ch->refs++;
        ch->in_flight += size;
        weir_buf_skip(message, sizeof(struct weir_frame_header));
        in->produce = (struct weir_produce){.append = {.stream = ch->stream, .shard = ch->shard},
                                            .done = on_produced};
        weir_ingest_produce(o->owner->ingest, &in->produce, message);
        return;
    }
    peer_release(in->peer, in->held);
    intake_return(in);
}

static void
on_credit(struct native_owner *o, struct intake *in)
{
    struct channel *ch = channel_find(o, in->peer, in->frame.channel);
    /* None: it ended while the credit was under way. */
    if (ch && ch->kind != CHANNEL_SUBSCRIPTION)
        peer_break(in->peer, "credit for channel %" PRIu32 ", which is a producer's",
                   in->frame.channel);
    else if (ch && ch->sub &&
             (in->frame.number > CREDIT_FRAMES_MAX ||
              weir_sub_credit(ch->sub, in->frame.offset, (uint32_t)in->frame.number)))
        peer_break(in->peer, "more credit than there can be");
    peer_release(in->peer, in->held);
    intake_return(in);
}

void
channel_frame(struct weir_task *task)
{
    struct intake *in = WEIR_CONTAINER(task, struct intake, task);
    struct peer *p = in->peer;
    struct native_owner *o = &p->native->owners[weir_channel_owner(in->frame.channel)];
    if (p->at[o->owner->index].gone || atomic_load(&p->broke)) {
        peer_release(p, in->held);
        intake_return(in);
    } else if (in->frame.kind == WEIR_FRAME_PRODUCE) {
        on_produce(o, in);
    } else {
        on_credit(o, in);
    }
}
