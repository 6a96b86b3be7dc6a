#include "unit/client/fake.h"
#include "base/assert.h"
#include "base/list.h"
#include "record/hash_key.h"
#include "sys/sys.h"
#include "transport/transport.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { SHARDS = 256, CHANNELS = 4096, CHECKPOINTS = 512, FRAME_BATCHES = 4 };

struct stored {
    struct weir_buf *batch;
    uint64_t offset, count, at_ms;
};

struct dedup {
    weir_u128 id;
    uint64_t last;
    uint64_t *offsets; /* by number */
};

struct shard {
    bool is_listed, is_closed;
    struct weir_hash_range range;
    int parents[2], children[2];
    struct stored *batches;
    size_t count, capacity;
    uint64_t oldest, next, at_ms;
    struct dedup *producers;
    size_t producer_count;
};

struct channel {
    uint32_t id;
    bool is_open, is_sub;
    uint32_t shard, epoch;
    weir_u128 producer;
    uint64_t next, frames, until;
    int64_t credit_bytes, credit_frames;
};

struct fake_conn {
    struct weir_list node;
    struct fake *fake;
    struct weir_conn *conn;
    struct channel channels[CHANNELS];
    uint32_t channel_count;
    bool said_hello, is_gone;
};

struct checkpoint {
    char consumer[129], owner[129];
    uint32_t shard;
    uint64_t offset, epoch;
    bool set, shard_end;
};

struct fake {
    struct weir_sys sys;
    struct weir_loop *loop;
    struct weir_listener *listener;
    char url[256];
    pthread_mutex_t mtx;
    struct weir_list conns;
    struct weir_random random;
    struct fake_faults faults;
    enum weir_status hello_refusal, batch_refusal;
    bool is_mute, is_deleted;
    unsigned hellos, calls[64];
    struct shard shards[SHARDS];
    uint32_t shard_count, epochs;
    uint64_t version;
    struct checkpoint checkpoints[CHECKPOINTS];
    size_t checkpoint_count;
    int64_t last_credit[SHARDS];
    pthread_cond_t gone;
    unsigned late_count, hits;
    char data_id[8];
};

static bool
roll(struct fake *f, unsigned chance)
{
    bool hit = chance && weir_random_below(&f->random, 1000) < chance;
    f->hits += hit;
    return hit;
}

/* ---- sending ---- */

struct outgoing {
    struct weir_send send;
    struct weir_timer timer;
    struct weir_conn *conn;
    struct fake *fake;
};

static void
on_sent(struct weir_send *send, enum weir_status st)
{
    (void)st;
    struct outgoing *out = WEIR_CONTAINER(send, struct outgoing, send);
    weir_buf_unref(send->piece[0].buf);
    free(out);
}

static void
post(struct fake_conn *c, struct weir_buf *buf)
{
    if (c->is_gone || c->fake->is_mute) {
        weir_buf_unref(buf);
        return;
    }
    struct outgoing *out = calloc(1, sizeof *out);
    out->send.count = 1;
    out->send.piece[0] = (struct weir_slice){buf, 0, buf->len};
    out->send.sent = on_sent;
    weir_conn_send(c->conn, &out->send);
}

static void
send_frame(struct fake_conn *c, const struct weir_frame *head)
{
    struct weir_buf *buf = weir_buf_new(sizeof(struct weir_frame_header));
    struct weir_frame_header h;
    weir_frame_encode(head, &h);
    memcpy(buf->data, &h, sizeof h);
    buf->len = sizeof h;
    post(c, buf);
}

static void
send_message(struct fake_conn *c, const struct weir_frame *head, const ProtobufCMessage *message)
{
    struct weir_buf *buf;
    WEIR_ASSERT(weir_message_frame(head, message, &buf) == WEIR_OK);
    post(c, buf);
}

static void
cut(struct fake_conn *c)
{
    c->is_gone = true;
    weir_conn_close(c->conn);
}

/* ---- shards ---- */

static struct shard *
add_shard(struct fake *f, struct weir_hash_range range, int parent, int adjacent)
{
    WEIR_ASSERT(f->shard_count < SHARDS);
    struct shard *s = &f->shards[f->shard_count++];
    *s = (struct shard){
        .is_listed = true,
        .range = range,
        .parents = {parent, adjacent},
        .children = {-1, -1},
    };
    f->version++;
    return s;
}

static void push(struct fake *f);

static void
split(struct fake *f, uint32_t index)
{
    struct shard *s = &f->shards[index];
    if (s->is_closed || s->range.high - s->range.low < 4 || f->shard_count + 2 > SHARDS)
        return;
    weir_u128 middle = s->range.low + (s->range.high - s->range.low) / 2;
    s->is_closed = true;
    s->children[0] = (int)f->shard_count;
    s->children[1] = (int)f->shard_count + 1;
    add_shard(f, (struct weir_hash_range){s->range.low, middle}, (int)index, -1);
    add_shard(f, (struct weir_hash_range){middle + 1, s->range.high}, (int)index, -1);
    push(f);
}

static void
merge(struct fake *f, uint32_t low, uint32_t high)
{
    struct shard *a = &f->shards[low], *b = &f->shards[high];
    if (a->is_closed || b->is_closed || a->range.high + 1 != b->range.low ||
        f->shard_count + 1 > SHARDS)
        return;
    a->is_closed = b->is_closed = true;
    a->children[0] = b->children[0] = (int)f->shard_count;
    add_shard(f, (struct weir_hash_range){a->range.low, b->range.high}, (int)low, (int)high);
    push(f);
}

static void
reshard(struct fake *f, uint32_t index)
{
    struct shard *s = &f->shards[index];
    if (weir_random_below(&f->random, 2)) {
        for (uint32_t i = 0; i < f->shard_count; i++) {
            if (!f->shards[i].is_closed && s->range.high != WEIR_U128_MAX &&
                f->shards[i].range.low == s->range.high + 1) {
                merge(f, index, i);
                return;
            }
        }
    }
    split(f, index);
}

/* Seals and stores; takes the reference. */
static uint64_t
store(struct fake *f, uint32_t index, struct weir_buf *batch, uint64_t at_ms)
{
    struct shard *s = &f->shards[index];
    struct weir_batch_info info;
    WEIR_ASSERT(weir_batch_peek(weir_buf_bytes(batch), &info) == WEIR_OK);
    if (s->count == s->capacity) {
        s->capacity = s->capacity ? 2 * s->capacity : 64;
        s->batches = realloc(s->batches, s->capacity * sizeof *s->batches);
    }
    if (at_ms > s->at_ms)
        s->at_ms = at_ms;
    struct weir_batch_seal seal = {
        .stream = 1, .shard = index + 1, .offset = s->next, .at_ms = s->at_ms, .epoch = 1};
    weir_batch_seal(batch->data, &seal);
    s->batches[s->count++] = (struct stored){batch, s->next, info.count, s->at_ms};
    s->next += info.count;
    return s->next - info.count;
}

static struct dedup *
find_producer(struct shard *s, weir_u128 id)
{
    for (size_t i = 0; i < s->producer_count; i++) {
        if (s->producers[i].id == id)
            return &s->producers[i];
    }
    return NULL;
}

static void
forget(struct shard *s, struct dedup *d)
{
    free(d->offsets);
    *d = s->producers[--s->producer_count];
}

/* ---- delivery ---- */

static struct stored *
find_batch(struct shard *s, uint64_t offset)
{
    for (size_t i = 0; i < s->count; i++) {
        if (offset < s->batches[i].offset + s->batches[i].count)
            return &s->batches[i];
    }
    return NULL;
}

static void
send_end(struct fake_conn *c, struct channel *ch)
{
    struct shard *s = &c->fake->shards[ch->shard];
    Weir__EndOfShard end = WEIR__END_OF_SHARD__INIT;
    uint32_t children[2], parents[2][2];
    Weir__ParentsOfChild lists[2] = {WEIR__PARENTS_OF_CHILD__INIT, WEIR__PARENTS_OF_CHILD__INIT};
    Weir__ParentsOfChild *list[2] = {&lists[0], &lists[1]};
    for (int i = 0; i < 2 && s->children[i] >= 0; i++) {
        struct shard *child = &c->fake->shards[s->children[i]];
        children[i] = (uint32_t)s->children[i];
        lists[i].shards = parents[i];
        for (int k = 0; k < 2 && child->parents[k] >= 0; k++)
            parents[i][lists[i].n_shards++] = (uint32_t)child->parents[k];
        end.n_children = end.n_parents = (size_t)i + 1;
    }
    end.children = children;
    end.parents = list;
    struct weir_frame head = {.kind = WEIR_FRAME_END, .channel = ch->id, .offset = ch->next};
    send_message(c, &head, &end.base);
    ch->is_open = false;
}

static void
send_data(struct fake_conn *c, struct channel *ch)
{
    struct fake *f = c->fake;
    struct shard *s = &f->shards[ch->shard];
    struct stored *first = find_batch(s, ch->next), *end = s->batches + s->count, *b;
    size_t len = sizeof(struct weir_frame_header),
           most = 1 + weir_random_below(&f->random, FRAME_BATCHES);
    for (b = first; b < end && (size_t)(b - first) < most && !(ch->until && b->offset >= ch->until);
         b++)
        len += b->batch->len;
    end = b;
    struct weir_buf *buf = weir_buf_new(len);
    uint64_t next = end[-1].offset + end[-1].count;
    buf->len = sizeof(struct weir_frame_header);
    for (b = first; b < end; b++) {
        memcpy(buf->data + buf->len, b->batch->data, b->batch->len);
        buf->len += b->batch->len;
    }
    ch->credit_bytes -= (int64_t)(len - sizeof(struct weir_frame_header));
    ch->credit_frames--;
    ch->next = next;
    struct weir_frame head = {
        .kind = WEIR_FRAME_DATA,
        .channel = ch->id,
        .number = ++ch->frames,
        .offset = next,
        .value = s->next,
        .epoch = ch->epoch,
        .lag_ms = next < s->next ? 1 : 0,
    };
    bool skip = roll(f, f->faults.skip_data);
    if (skip && weir_random_below(&f->random, 2)) {
        weir_buf_unref(buf);
        return;
    }
    if (skip)
        head.number = ++ch->frames;
    struct weir_frame_header h;
    weir_frame_encode(&head, &h);
    memcpy(buf->data, &h, sizeof h);
    if (roll(f, f->faults.flip_data)) {
        size_t at = sizeof h + weir_random_below(&f->random, len - sizeof h);
        buf->data[at] ^= (uint8_t)(1u << weir_random_below(&f->random, 8));
    }
    post(c, buf);
}

static void
stop_channel(struct fake_conn *c, struct channel *ch, enum weir_status st)
{
    struct weir_frame head = {
        .kind = WEIR_FRAME_STOPPED, .channel = ch->id, .status = st, .offset = ch->next};
    send_frame(c, &head);
    ch->is_open = false;
}

static void
push_channel(struct fake_conn *c, struct channel *ch)
{
    struct fake *f = c->fake;
    struct shard *s = &f->shards[ch->shard];
    if (ch->is_open && !s->is_listed) {
        stop_channel(c, ch, WEIR_NOT_FOUND);
        return;
    }
    if (ch->is_open && ch->next < s->oldest) {
        struct weir_frame gap = {.kind = WEIR_FRAME_GAP,
                                 .status = WEIR_TRIMMED,
                                 .channel = ch->id,
                                 .offset = ch->next,
                                 .value = s->oldest};
        send_frame(c, &gap);
        ch->next = s->oldest;
    }
    while (ch->is_open && !c->is_gone && ch->next < s->next &&
           !(ch->until && ch->next >= ch->until) && ch->credit_bytes > 0 && ch->credit_frames > 0) {
        if (roll(f, f->faults.cut_data)) {
            cut(c);
            return;
        }
        send_data(c, ch);
    }
    f->last_credit[ch->shard] = ch->credit_bytes;
    if (ch->is_open && ch->until && ch->next >= ch->until)
        stop_channel(c, ch, WEIR_END);
    else if (ch->is_open && s->is_closed && ch->next >= s->next)
        send_end(c, ch);
}

static void
push(struct fake *f)
{
    WEIR_LIST_FOR_EACH (node, &f->conns) {
        struct fake_conn *c = WEIR_CONTAINER(node, struct fake_conn, node);
        for (uint32_t i = 0; i < c->channel_count; i++) {
            if (c->channels[i].is_sub)
                push_channel(c, &c->channels[i]);
        }
    }
}

/* ---- produce ---- */

static void
on_late(struct weir_timer *timer)
{
    struct outgoing *out = WEIR_CONTAINER(timer, struct outgoing, timer);
    struct weir_conn *conn = out->conn;
    struct fake *f = out->fake;
    weir_conn_send(conn, &out->send);
    weir_conn_unref(conn);
    pthread_mutex_lock(&f->mtx);
    f->late_count--;
    pthread_cond_broadcast(&f->gone);
    pthread_mutex_unlock(&f->mtx);
}

static void
ack(struct fake_conn *c, struct channel *ch, uint64_t number, enum weir_status st, uint64_t offset,
    uint64_t at_ms)
{
    struct fake *f = c->fake;
    struct weir_frame head = {.kind = WEIR_FRAME_ACK,
                              .channel = ch->id,
                              .number = number,
                              .status = st,
                              .offset = offset,
                              .value = at_ms};
    if (!roll(f, f->faults.late) || c->is_gone || f->is_mute) {
        send_frame(c, &head);
        return;
    }
    struct outgoing *out = calloc(1, sizeof *out);
    struct weir_buf *buf = weir_buf_new(sizeof(struct weir_frame_header));
    struct weir_frame_header h;
    weir_frame_encode(&head, &h);
    memcpy(buf->data, &h, sizeof h);
    buf->len = sizeof h;
    out->send.count = 1;
    out->send.piece[0] = (struct weir_slice){buf, 0, buf->len};
    out->send.sent = on_sent;
    out->timer.run = on_late;
    out->conn = weir_conn_ref(c->conn);
    out->fake = f;
    f->late_count++;
    weir_timer_start(f->loop, &out->timer, 1 + weir_random_below(&f->random, 3000));
}

static void
on_produce(struct fake_conn *c, struct channel *ch, const struct weir_frame *f_in)
{
    struct fake *f = c->fake;
    if (roll(f, f->faults.drop_before)) {
        cut(c);
        return;
    }
    if (roll(f, f->faults.reshard))
        reshard(f, ch->shard);
    struct shard *s = &f->shards[ch->shard];
    struct weir_scratch scratch = {};
    struct weir_batch_info info;
    struct weir_error err = {};
    enum weir_status st =
        weir_batch_admit(f_in->body, WEIR_RECORD_BYTES_MAX, &scratch, &info, &err);
    weir_scratch_fini(&scratch);
    WEIR_ASSERT(st == WEIR_OK);
    WEIR_ASSERT(info.number == f_in->number && info.producer == ch->producer);

    struct dedup *d = info.producer ? find_producer(s, info.producer) : NULL;
    if (d && info.number <= d->last) {
        ack(c, ch, info.number, WEIR_DUPLICATE, d->offsets[info.number], 1);
        return;
    }
    if (s->is_closed) {
        ack(c, ch, info.number, WEIR_MOVED, 0, 0);
        return;
    }
    static const enum weir_status refusals[] = {WEIR_AGAIN, WEIR_THROTTLED, WEIR_NO_SPACE,
                                                WEIR_UNAVAILABLE};
    if (f->batch_refusal || roll(f, f->faults.refuse)) {
        st = f->batch_refusal ? f->batch_refusal : refusals[weir_random_below(&f->random, 4)];
        ack(c, ch, info.number, st, 0, 0);
        return;
    }
    if (d && info.number > d->last + 1) {
        ack(c, ch, info.number, WEIR_INVALID, d->last, 0);
        return;
    }
    bool is_inside = s->range.low <= info.hash_low && info.hash_high <= s->range.high;
    if (!is_inside || (!d && info.producer && info.number != 1)) {
        /* The fake is strict: a producer it does not know begins with 1, so that a test sees where
         * the first of several was left out. */
        ack(c, ch, info.number, WEIR_INVALID, 0, 0);
        return;
    }
    bool is_unknown = roll(f, f->faults.unknown);
    if (is_unknown && weir_random_below(&f->random, 2)) {
        ack(c, ch, info.number, WEIR_UNKNOWN, 0, 0);
        return;
    }
    uint64_t at_ms = weir_now_ms(f->sys.clock);
    uint64_t offset = store(f, ch->shard, weir_buf_copy(f_in->body), at_ms);
    if (info.producer) {
        if (!d) {
            s->producers = realloc(s->producers, (s->producer_count + 1) * sizeof *s->producers);
            d = &s->producers[s->producer_count++];
            *d = (struct dedup){.id = info.producer};
        }
        d->last = info.number;
        d->offsets = realloc(d->offsets, (info.number + 1) * sizeof *d->offsets);
        d->offsets[info.number] = offset;
    }
    if (roll(f, f->faults.drop_after))
        cut(c);
    else if (is_unknown)
        ack(c, ch, info.number, WEIR_UNKNOWN, 0, 0);
    else
        ack(c, ch, info.number, WEIR_OK, offset, s->at_ms);
    push(f);
}

/* ---- calls ---- */

static struct channel *
add_channel(struct fake_conn *c, uint32_t shard)
{
    WEIR_ASSERT(c->channel_count < CHANNELS);
    struct channel *ch = &c->channels[c->channel_count++];
    *ch = (struct channel){
        .id = weir_channel_make(c->channel_count, shard % 2), .is_open = true, .shard = shard};
    return ch;
}

static void
reply(struct fake_conn *c, uint64_t number, Weir__Reply *r)
{
    struct weir_frame head = {.kind = WEIR_FRAME_REPLY, .number = number};
    send_message(c, &head, &r->base);
}

static void
reply_status(struct fake_conn *c, uint64_t number, enum weir_status st, const char *text)
{
    Weir__Reply r = WEIR__REPLY__INIT;
    r.status = st;
    r.text = (char *)text;
    reply(c, number, &r);
}

static void
describe(struct fake_conn *c, uint64_t number, const Weir__DescribeStream *op)
{
    struct fake *f = c->fake;
    enum { PAGE = 3 }; /* small, so that pages are met */
    Weir__Reply r = WEIR__REPLY__INIT;
    Weir__StreamInfo info = WEIR__STREAM_INFO__INIT;
    Weir__ShardInfo shards[PAGE], *list[PAGE];
    uint8_t hashes[PAGE][2][16];
    info.name = op->name;
    info.stream = 1;
    info.created_ms = 1000000000000;
    info.record_bytes_max = WEIR_RECORD_BYTES_DEFAULT;
    info.retention_ms = WEIR_RETENTION_MS_DEFAULT;
    info.status = 1;
    info.version = f->version;
    for (uint32_t i = 0; i < f->shard_count; i++) {
        struct shard *s = &f->shards[i];
        info.open_shards += !s->is_closed;
        if (i < op->first_shard || !s->is_listed)
            continue;
        if (info.n_shards == PAGE) {
            info.more = true;
            continue;
        }
        size_t n = info.n_shards++;
        list[n] = &shards[n];
        weir__shard_info__init(&shards[n]);
        weir_store_be64(hashes[n][0], (uint64_t)(s->range.low >> 64));
        weir_store_be64(hashes[n][0] + 8, (uint64_t)s->range.low);
        weir_store_be64(hashes[n][1], (uint64_t)(s->range.high >> 64));
        weir_store_be64(hashes[n][1] + 8, (uint64_t)s->range.high);
        shards[n].index = i;
        shards[n].shard = i + 1;
        shards[n].hash_low = (ProtobufCBinaryData){16, hashes[n][0]};
        shards[n].hash_high = (ProtobufCBinaryData){16, hashes[n][1]};
        shards[n].parent = s->parents[0];
        shards[n].adjacent_parent = s->parents[1];
        shards[n].created_ms = 1000000000000 + i;
        shards[n].closed_ms = s->is_closed ? 2000000000000 : 0;
        if (op->with_numbers) {
            shards[n].oldest = s->oldest;
            shards[n].next = s->next;
        }
    }
    info.shards = list;
    r.result_case = WEIR__REPLY__RESULT_STREAM;
    r.stream = &info;
    reply(c, number, &r);
}

static void
open_producer(struct fake_conn *c, uint64_t number, const Weir__OpenProducer *op)
{
    struct fake *f = c->fake;
    struct shard *s = &f->shards[op->shard];
    struct channel *ch = add_channel(c, op->shard);
    weir_le128 id = {};
    if (op->producer.len == 16)
        memcpy(&id, op->producer.data, 16);
    ch->producer = weir_get128(id);
    struct dedup *d = find_producer(s, ch->producer);
    /* Not one whose very first batches may still be under way: nobody could tell it from a new one.
     */
    if (d && d->last > 16 && roll(f, f->faults.forget)) {
        forget(s, d);
        d = NULL;
    }
    Weir__Reply r = WEIR__REPLY__INIT;
    Weir__ProducerOpened o = WEIR__PRODUCER_OPENED__INIT;
    o.channel = ch->id;
    o.stream_number = 1;
    o.shard_number = op->shard + 1;
    o.known = d != NULL;
    o.last_number = d ? d->last : 0;
    o.record_bytes_max = WEIR_RECORD_BYTES_DEFAULT;
    o.window_bytes = 4 * WEIR_MIB;
    r.result_case = WEIR__REPLY__RESULT_PRODUCER;
    r.producer = &o;
    reply(c, number, &r);
}

static struct checkpoint *
find_checkpoint(struct fake *f, const char *consumer, uint32_t shard, bool make)
{
    for (size_t i = 0; i < f->checkpoint_count; i++) {
        if (f->checkpoints[i].shard == shard && !strcmp(f->checkpoints[i].consumer, consumer))
            return &f->checkpoints[i];
    }
    if (!make)
        return NULL;
    WEIR_ASSERT(f->checkpoint_count < CHECKPOINTS);
    struct checkpoint *p = &f->checkpoints[f->checkpoint_count++];
    snprintf(p->consumer, sizeof p->consumer, "%s", consumer);
    p->shard = shard;
    return p;
}

static uint64_t
resolve(struct fake *f, uint32_t shard, const Weir__Position *p, const char *consumer,
        bool *from_checkpoint)
{
    struct shard *s = &f->shards[shard];
    Weir__Position__Kind kind = p->kind;
    if (kind == WEIR__POSITION__KIND__CHECKPOINT) {
        struct checkpoint *at = find_checkpoint(f, consumer, shard, false);
        *from_checkpoint = at && at->set;
        if (*from_checkpoint)
            return at->offset;
        kind = p->otherwise;
    }
    switch (kind) {
    case WEIR__POSITION__KIND__LATEST:
        return s->next;
    case WEIR__POSITION__KIND__AT_OFFSET:
        return p->offset;
    case WEIR__POSITION__KIND__AT_TIME:
        for (size_t i = 0; i < s->count; i++) {
            if (s->batches[i].at_ms >= p->at_ms)
                return s->batches[i].offset;
        }
        return s->next;
    default:
        return s->oldest;
    }
}

static void
subscribe(struct fake_conn *c, uint64_t number, const Weir__Subscribe *op)
{
    struct fake *f = c->fake;
    struct shard *s = &f->shards[op->shard];
    if (op->shard >= f->shard_count || !s->is_listed) {
        reply_status(c, number, WEIR_NOT_FOUND, "no such shard");
        return;
    }
    bool from_checkpoint = false;
    uint64_t offset = resolve(f, op->shard, op->position, op->consumer, &from_checkpoint);
    if (op->fail_if_trimmed && offset < s->oldest) {
        reply_status(c, number, WEIR_TRIMMED, "that is gone");
        return;
    }
    struct channel *ch = add_channel(c, op->shard);
    ch->is_sub = true;
    ch->next = offset;
    ch->epoch = ++f->epochs;
    ch->until = op->until_offset;
    ch->credit_bytes = (int64_t)op->credit_bytes;
    ch->credit_frames = op->credit_frames;
    Weir__Reply r = WEIR__REPLY__INIT;
    Weir__Subscribed o = WEIR__SUBSCRIBED__INIT;
    o.channel = ch->id;
    o.epoch = ch->epoch;
    o.offset = offset < s->oldest ? s->oldest : offset;
    o.tail = s->next;
    o.from_checkpoint = from_checkpoint;
    r.result_case = WEIR__REPLY__RESULT_SUBSCRIBED;
    r.subscribed = &o;
    reply(c, number, &r);
    push_channel(c, ch);
}

static void
fill_checkpoint(const struct checkpoint *p, Weir__Checkpoint *out)
{
    weir__checkpoint__init(out);
    out->shard = p->shard;
    out->offset = p->offset;
    out->epoch = p->epoch;
    out->set = p->set;
    out->shard_end = p->shard_end;
    out->owner = (char *)p->owner;
}

static void
get_checkpoints(struct fake_conn *c, uint64_t number, const char *consumer, int64_t only)
{
    struct fake *f = c->fake;
    Weir__Reply r = WEIR__REPLY__INIT;
    Weir__CheckpointList list = WEIR__CHECKPOINT_LIST__INIT;
    Weir__Checkpoint items[CHECKPOINTS], *pointers[CHECKPOINTS];
    for (size_t i = 0; i < f->checkpoint_count; i++) {
        struct checkpoint *p = &f->checkpoints[i];
        if (strcmp(p->consumer, consumer) || (only >= 0 && p->shard != only))
            continue;
        pointers[list.n_items] = &items[list.n_items];
        fill_checkpoint(p, &items[list.n_items++]);
    }
    list.items = pointers;
    r.result_case = WEIR__REPLY__RESULT_CHECKPOINTS;
    r.checkpoints = &list;
    reply(c, number, &r);
}

static void
on_call(struct fake_conn *c, const struct weir_frame *in)
{
    struct fake *f = c->fake;
    ProtobufCMessage *message;
    WEIR_ASSERT(weir_message_unpack(&weir__request__descriptor, in->body, &message) == WEIR_OK);
    Weir__Request *q = (Weir__Request *)message;
    f->calls[q->op_case]++;
    if (f->is_deleted) {
        reply_status(c, in->number, WEIR_NOT_FOUND, "no stream 's'");
        goto done;
    }
    switch (q->op_case) {
    case WEIR__REQUEST__OP_DESCRIBE_STREAM:
        if (strcmp(q->describe_stream->name, "s"))
            reply_status(c, in->number, WEIR_NOT_FOUND, "no such stream");
        else
            describe(c, in->number, q->describe_stream);
        break;
    case WEIR__REQUEST__OP_OPEN_PRODUCER:
        open_producer(c, in->number, q->open_producer);
        break;
    case WEIR__REQUEST__OP_SUBSCRIBE:
        subscribe(c, in->number, q->subscribe);
        break;
    case WEIR__REQUEST__OP_CLOSE_CHANNEL:
        for (uint32_t i = 0; i < c->channel_count; i++) {
            if (c->channels[i].id == q->close_channel->channel)
                c->channels[i].is_open = false;
        }
        reply_status(c, in->number, WEIR_OK, "");
        break;
    case WEIR__REQUEST__OP_ACQUIRE_CHECKPOINT: {
        struct checkpoint *p =
            find_checkpoint(f, q->acquire_checkpoint->consumer, q->acquire_checkpoint->shard, true);
        p->epoch++;
        snprintf(p->owner, sizeof p->owner, "%s", q->acquire_checkpoint->owner);
        get_checkpoints(c, in->number, p->consumer, p->shard);
        break;
    }
    case WEIR__REQUEST__OP_SET_CHECKPOINT: {
        const Weir__SetCheckpoint *op = q->set_checkpoint;
        struct checkpoint *p = find_checkpoint(f, op->consumer, op->shard, true);
        if (op->epoch && op->epoch != p->epoch) {
            reply_status(c, in->number, WEIR_FENCED, "another owner has it");
            break;
        }
        p->epoch += !op->epoch;
        p->offset = op->offset;
        p->set = true;
        p->shard_end = op->shard_end;
        reply_status(c, in->number, WEIR_OK, "");
        break;
    }
    case WEIR__REQUEST__OP_GET_CHECKPOINTS:
        get_checkpoints(c, in->number, q->get_checkpoints->consumer, -1);
        break;
    case WEIR__REQUEST__OP_CREATE_STREAM:
        /* Never answered: a test cuts the connection meanwhile. */
        break;
    case WEIR__REQUEST__OP_LIST_STREAMS: {
        static char a[] = "a", b[] = "b", s[] = "s", *names[] = {a, b, s};
        Weir__Reply r = WEIR__REPLY__INIT;
        Weir__StreamList list = WEIR__STREAM_LIST__INIT;
        size_t first = 0;
        while (first < 3 && strcmp(names[first], q->list_streams->after) <= 0)
            first++;
        list.names = names + first;
        list.n_names = first < 3 ? 1 : 0;
        list.more = first < 2;
        r.result_case = WEIR__REPLY__RESULT_STREAMS;
        r.streams = &list;
        reply(c, in->number, &r);
        break;
    }
    default:
        reply_status(c, in->number, WEIR_UNSUPPORTED, "the fake does not know this");
        break;
    }
done:
    weir_message_free(message);
}

/* ---- connections ---- */

static void
on_hello(struct fake_conn *c)
{
    struct fake *f = c->fake;
    f->hellos++;
    if (f->hello_refusal) {
        Weir__Refusal refusal = WEIR__REFUSAL__INIT;
        refusal.status = f->hello_refusal;
        char text[] = "not you";
        refusal.text = text;
        struct weir_frame head = {.kind = WEIR_FRAME_REFUSE};
        send_message(c, &head, &refusal.base);
        return;
    }
    c->said_hello = true;
    weir_conn_set_limit(c->conn);
    Weir__Welcome w = WEIR__WELCOME__INIT;
    w.version = WEIR_WIRE_VERSION;
    char name[] = "fake 1";
    w.broker = name;
    w.frame_bytes_max = WEIR_FRAME_BYTES_MAX;
    w.heartbeat_ms = 200;
    w.dead_after_ms = 2000;
    w.now_ms = weir_now_ms(f->sys.clock);
    w.data_id = f->data_id;
    struct weir_frame head = {.kind = WEIR_FRAME_WELCOME};
    send_message(c, &head, &w.base);
}

static struct channel *
find_channel(struct fake_conn *c, uint32_t id)
{
    for (uint32_t i = 0; i < c->channel_count; i++) {
        if (c->channels[i].id == id && c->channels[i].is_open)
            return &c->channels[i];
    }
    return NULL;
}

struct arrival {
    struct weir_task task;
    struct fake_conn *conn;
    struct weir_buf *message; /* NULL: closed */
};

static void
take_frame(struct fake_conn *c, struct weir_buf *message)
{
    struct weir_frame in;
    enum weir_status st = weir_frame_decode(weir_buf_bytes(message), &in);
    WEIR_ASSERT(st == WEIR_OK);
    struct channel *ch = find_channel(c, in.channel);
    struct weir_frame pong = {.kind = WEIR_FRAME_PONG, .value = in.value};
    switch (in.kind) {
    case WEIR_FRAME_HELLO:
        on_hello(c);
        break;
    case WEIR_FRAME_CALL:
        on_call(c, &in);
        break;
    case WEIR_FRAME_PRODUCE:
        if (ch)
            on_produce(c, ch, &in);
        break;
    case WEIR_FRAME_CREDIT:
        if (ch) {
            ch->credit_bytes += (int64_t)in.offset;
            ch->credit_frames += (int64_t)in.number;
            push_channel(c, ch);
        }
        break;
    case WEIR_FRAME_PING:
        send_frame(c, &pong);
        break;
    default:
        break;
    }
}

static void
on_arrival(struct weir_task *task)
{
    struct arrival *a = WEIR_CONTAINER(task, struct arrival, task);
    struct fake_conn *c = a->conn;
    struct fake *f = c->fake;
    pthread_mutex_lock(&f->mtx);
    if (!a->message) {
        weir_list_remove(&c->node);
        weir_conn_unref(c->conn);
        free(c);
        pthread_cond_broadcast(&f->gone);
    } else if (!c->is_gone) {
        take_frame(c, a->message);
    }
    weir_buf_unref(a->message);
    pthread_mutex_unlock(&f->mtx);
    free(a);
}

static void
arrive(struct fake_conn *c, struct weir_buf *message)
{
    struct arrival *a = calloc(1, sizeof *a);
    a->task.run = on_arrival;
    a->conn = c;
    a->message = message;
    weir_loop_post(c->fake->loop, &a->task);
}

static bool
on_message(void *arg, struct weir_conn *conn, struct weir_buf *message)
{
    (void)conn;
    arrive(arg, message);
    return true;
}

static void
on_closed(void *arg, struct weir_conn *conn, enum weir_status why)
{
    (void)conn;
    (void)why;
    arrive(arg, NULL);
}

static void
on_accepted(void *arg, struct weir_conn *conn)
{
    static const struct weir_conn_events events = {on_message, on_closed};
    struct fake *f = arg;
    struct fake_conn *c = calloc(1, sizeof *c);
    c->fake = f;
    c->conn = conn;
    pthread_mutex_lock(&f->mtx);
    weir_list_push_back(&f->conns, &c->node);
    pthread_mutex_unlock(&f->mtx);
    weir_conn_set_events(conn, &events, c);
}

/* ---- for tests ---- */

static void
listen_on(struct fake *f, const char *url)
{
    struct weir_transport_options options = {.message_bytes_max = WEIR_FRAME_BYTES_MAX,
                                             .first_message_bytes_max = WEIR_HELLO_BYTES_MAX,
                                             .handshake_ms = 10000};
    struct weir_error err = {};
    char real[256];
    enum weir_status st =
        weir_listen(&f->sys, url, &options, on_accepted, f, &f->listener, real, &err);
    if (st)
        fprintf(stderr, "fake: cannot listen on '%s': %s\n", url, err.text);
    WEIR_ASSERT(st == WEIR_OK);
    snprintf(f->url, sizeof f->url, "%s", real);
}

struct fake *
fake_new(const char *url, uint32_t shards, uint64_t seed)
{
    struct fake *f = calloc(1, sizeof *f);
    f->sys = (struct weir_sys){.clock = weir_clock_system(), .threads = true, .seed = seed};
    pthread_mutex_init(&f->mtx, NULL);
    pthread_cond_init(&f->gone, NULL);
    f->data_id[0] = 'd';
    weir_list_init(&f->conns);
    weir_random_init(&f->random, seed);
    for (uint32_t i = 0; i < shards; i++)
        add_shard(f, weir_hash_range_of(i, shards), -1, -1);
    WEIR_ASSERT(weir_loop_new(f->sys.clock, "fake", &f->loop) == WEIR_OK);
    WEIR_ASSERT(weir_loop_start(f->loop) == WEIR_OK);
    listen_on(f, url);
    return f;
}

static void
drop_all(struct fake *f)
{
    WEIR_LIST_FOR_EACH (node, &f->conns)
        cut(WEIR_CONTAINER(node, struct fake_conn, node));
}

void
fake_free(struct fake *f)
{
    weir_listener_close(f->listener);
    pthread_mutex_lock(&f->mtx);
    drop_all(f);
    while (!weir_list_is_empty(&f->conns) || f->late_count)
        pthread_cond_wait(&f->gone, &f->mtx);
    pthread_mutex_unlock(&f->mtx);
    weir_loop_stop(f->loop);
    weir_loop_free(f->loop);
    for (uint32_t i = 0; i < f->shard_count; i++) {
        struct shard *s = &f->shards[i];
        while (s->producer_count)
            forget(s, &s->producers[0]);
        free(s->producers);
        for (size_t k = 0; k < s->count; k++)
            weir_buf_unref(s->batches[k].batch);
        free(s->batches);
    }
    pthread_mutex_destroy(&f->mtx);
    pthread_cond_destroy(&f->gone);
    free(f);
}

const char *
fake_url(const struct fake *f)
{
    return f->url;
}

void
fake_set_faults(struct fake *f, const struct fake_faults *faults)
{
    pthread_mutex_lock(&f->mtx);
    f->faults = *faults;
    pthread_mutex_unlock(&f->mtx);
}

void
fake_refuse_hello(struct fake *f, enum weir_status st)
{
    pthread_mutex_lock(&f->mtx);
    f->hello_refusal = st;
    pthread_mutex_unlock(&f->mtx);
}

void
fake_refuse_batches(struct fake *f, enum weir_status st)
{
    pthread_mutex_lock(&f->mtx);
    f->batch_refusal = st;
    pthread_mutex_unlock(&f->mtx);
}

void
fake_mute(struct fake *f, bool mute)
{
    pthread_mutex_lock(&f->mtx);
    f->is_mute = mute;
    pthread_mutex_unlock(&f->mtx);
}

void
fake_stop_listening(struct fake *f)
{
    weir_listener_close(f->listener);
    f->listener = NULL;
    fake_drop_connections(f);
}

void
fake_listen_again(struct fake *f)
{
    char url[256];
    snprintf(url, sizeof url, "%s", f->url);
    listen_on(f, url);
}

void
fake_drop_connections(struct fake *f)
{
    pthread_mutex_lock(&f->mtx);
    drop_all(f);
    pthread_mutex_unlock(&f->mtx);
}

void
fake_drain(struct fake *f)
{
    pthread_mutex_lock(&f->mtx);
    WEIR_LIST_FOR_EACH (node, &f->conns) {
        struct weir_frame drain = {.kind = WEIR_FRAME_DRAIN};
        send_frame(WEIR_CONTAINER(node, struct fake_conn, node), &drain);
    }
    pthread_mutex_unlock(&f->mtx);
}

unsigned
fake_hellos(struct fake *f)
{
    pthread_mutex_lock(&f->mtx);
    unsigned n = f->hellos;
    pthread_mutex_unlock(&f->mtx);
    return n;
}

unsigned
fake_calls(struct fake *f, int op_case)
{
    pthread_mutex_lock(&f->mtx);
    unsigned n = f->calls[op_case];
    pthread_mutex_unlock(&f->mtx);
    return n;
}

void
fake_append(struct fake *f, uint32_t shard, uint32_t count, uint64_t at_ms, bool compressed)
{
    struct weir_batch_builder *b;
    struct weir_buf *batch;
    char data[64];
    WEIR_ASSERT(weir_batch_builder_new(WEIR_BATCH_TARGET_BYTES, &b) == WEIR_OK);
    pthread_mutex_lock(&f->mtx);
    for (uint32_t i = 0; i < count; i++) {
        snprintf(data, sizeof data, "%u:%lu %48s", shard,
                 (unsigned long)(f->shards[shard].next + i), "");
        struct weir_record r = {.key = weir_bytes_of("k"), .data = weir_bytes_of(data)};
        WEIR_ASSERT(weir_batch_builder_add(b, &r, f->shards[shard].range.low) == WEIR_OK);
    }
    WEIR_ASSERT(weir_batch_builder_finish(b, compressed ? WEIR_CODEC_LZ4 : WEIR_CODEC_NONE, 0, 0,
                                          &batch) == WEIR_OK);
    store(f, shard, batch, at_ms);
    push(f);
    pthread_mutex_unlock(&f->mtx);
    weir_batch_builder_free(b);
}

void
fake_split(struct fake *f, uint32_t shard)
{
    pthread_mutex_lock(&f->mtx);
    split(f, shard);
    pthread_mutex_unlock(&f->mtx);
}

void
fake_merge(struct fake *f, uint32_t shard, uint32_t adjacent)
{
    pthread_mutex_lock(&f->mtx);
    merge(f, shard, adjacent);
    pthread_mutex_unlock(&f->mtx);
}

void
fake_trim(struct fake *f, uint32_t shard, uint64_t oldest)
{
    pthread_mutex_lock(&f->mtx);
    f->shards[shard].oldest = oldest;
    pthread_mutex_unlock(&f->mtx);
}

void
fake_expire(struct fake *f, uint32_t shard)
{
    pthread_mutex_lock(&f->mtx);
    f->shards[shard].is_listed = false;
    f->version++;
    push(f);
    pthread_mutex_unlock(&f->mtx);
}

void
fake_delete(struct fake *f)
{
    pthread_mutex_lock(&f->mtx);
    f->is_deleted = true;
    f->batch_refusal = WEIR_NOT_FOUND;
    for (uint32_t i = 0; i < f->shard_count; i++)
        f->shards[i].is_listed = false;
    push(f);
    pthread_mutex_unlock(&f->mtx);
}

void
fake_new_data(struct fake *f)
{
    pthread_mutex_lock(&f->mtx);
    f->data_id[0]++;
    pthread_mutex_unlock(&f->mtx);
}

unsigned
fake_hits(struct fake *f)
{
    pthread_mutex_lock(&f->mtx);
    unsigned n = f->hits;
    pthread_mutex_unlock(&f->mtx);
    return n;
}

void
fake_heartbeat(struct fake *f)
{
    pthread_mutex_lock(&f->mtx);
    WEIR_LIST_FOR_EACH (node, &f->conns) {
        struct fake_conn *c = WEIR_CONTAINER(node, struct fake_conn, node);
        for (uint32_t i = 0; i < c->channel_count; i++) {
            struct channel *ch = &c->channels[i];
            struct weir_frame head = {
                .kind = WEIR_FRAME_HEARTBEAT,
                .channel = ch->id,
                .number = ch->frames,
                .offset = ch->next,
                .value = f->shards[ch->shard].next,
                .epoch = ch->epoch,
            };
            if (ch->is_sub && ch->is_open)
                send_frame(c, &head);
        }
    }
    pthread_mutex_unlock(&f->mtx);
}

uint32_t
fake_shard_count(struct fake *f)
{
    pthread_mutex_lock(&f->mtx);
    uint32_t n = f->shard_count;
    pthread_mutex_unlock(&f->mtx);
    return n;
}

uint64_t
fake_next(struct fake *f, uint32_t shard)
{
    pthread_mutex_lock(&f->mtx);
    uint64_t n = f->shards[shard].next;
    pthread_mutex_unlock(&f->mtx);
    return n;
}

int64_t
fake_credit(struct fake *f, uint32_t shard)
{
    pthread_mutex_lock(&f->mtx);
    int64_t n = f->last_credit[shard];
    pthread_mutex_unlock(&f->mtx);
    return n;
}

void
fake_each(struct fake *f, uint32_t shard,
          void (*each)(void *arg, uint64_t offset, const struct weir_record *record), void *arg)
{
    struct weir_scratch scratch = {};
    pthread_mutex_lock(&f->mtx);
    struct shard *s = &f->shards[shard];
    for (size_t i = 0; i < s->count; i++) {
        struct weir_batch_reader reader;
        struct weir_record record;
        WEIR_ASSERT(weir_batch_reader_init(&reader, weir_buf_bytes(s->batches[i].batch),
                                           &scratch) == WEIR_OK);
        while (weir_batch_reader_next(&reader, &record) == WEIR_OK)
            each(arg, reader.offset, &record);
    }
    pthread_mutex_unlock(&f->mtx);
    weir_scratch_fini(&scratch);
}

void
fake_parents(struct fake *f, uint32_t shard, int out[2])
{
    pthread_mutex_lock(&f->mtx);
    memcpy(out, f->shards[shard].parents, sizeof f->shards[shard].parents);
    pthread_mutex_unlock(&f->mtx);
}

bool
fake_checkpoint(struct fake *f, const char *consumer, uint32_t shard, uint64_t *offset,
                uint64_t *epoch, bool *shard_end)
{
    pthread_mutex_lock(&f->mtx);
    struct checkpoint *p = find_checkpoint(f, consumer, shard, false);
    if (p) {
        *offset = p->offset;
        *epoch = p->epoch;
        *shard_end = p->shard_end;
    }
    bool is_set = p && p->set;
    pthread_mutex_unlock(&f->mtx);
    return is_set;
}

void
fake_set_checkpoint(struct fake *f, const char *consumer, uint32_t shard, uint64_t offset,
                    uint64_t epoch, bool shard_end)
{
    pthread_mutex_lock(&f->mtx);
    struct checkpoint *p = find_checkpoint(f, consumer, shard, true);
    p->offset = offset;
    p->epoch = epoch;
    p->shard_end = shard_end;
    p->set = true;
    pthread_mutex_unlock(&f->mtx);
}
