/* The subscription.
 *
 *   loop    describe ─> cursors ─> [acquire] ─> subscribe ─> DATA ──checked──> queue of events
 *   poller                                         ^                              │
 *                                                  └── CREDIT <── event freed <───┘ poll
 *
 * A cursor is where the subscription stands in one shard. One queue for all shards keeps lineage: a
 * child is asked for after the END of its parents was queued, so its events come behind theirs.
 *
 *   WAITING ──parents ended──> READY ──> [ACQUIRING] ──> OPENING ──> LIVE ──> ENDED, DONE, FENCED
 *                                ^ └──────────── connection lost, refused for now <──┘
 *
 * What is queued is never asked for again, and what is not is asked for from `next`: so nothing is
 * lost and nothing comes twice, whatever happens to connections. A frame that does not fit (wrong
 * number, wrong offset, bad checksum) is thrown away and the shard is asked for again from `next`.
 */
#include "client/subscription.h"
#include <stdio.h>
#include <stdlib.h>

enum {
    REFRESH_RETRY_US = 500 * 1000,
    CLOSE_WAIT_MS = 5000, /* for checkpoints that are under way */
};

/* ---- the connection ---- */

static void
tell_connection(struct weir_subscription *s, bool connected)
{
    struct weir_queued *fresh = weir_queued_new(s, NULL, WEIR_EVENT_CONNECTION);
    pthread_mutex_lock(&s->mtx);
    struct weir_queued *e = s->connection ? s->connection : fresh;
    if (e) {
        e->pub.connected = connected;
        e->pub.why = connected ? WEIR_OK : WEIR_UNAVAILABLE;
        if (e == fresh) {
            s->connection = e;
            weir_queued_put(s, e);
            fresh = NULL;
        }
    }
    pthread_mutex_unlock(&s->mtx);
    if (fresh)
        weir_queued_free(fresh);
}

static void
on_up(struct weir_member *member)
{
    struct weir_subscription *s = WEIR_CONTAINER(member, struct weir_subscription, member);
    if (s->over)
        return;
    /* Offsets of other data mean nothing here. */
    if (strcmp(s->data_id, s->client->data_id) != 0) {
        weir_subscription_end(s, WEIR_DAMAGED, "the broker's data was made anew");
        return;
    }
    tell_connection(s, true);
    for (size_t i = 0; i < s->count; i++) {
        weir_timer_stop(s->client->loop, &s->cursors[i]->retry);
        weir_cursor_pump(s->cursors[i]);
    }
    weir_subscription_run_laters(s);
}

static void
on_down(struct weir_member *member, const char *why)
{
    (void)why;
    struct weir_subscription *s = WEIR_CONTAINER(member, struct weir_subscription, member);
    for (size_t i = 0; i < s->count; i++) {
        struct weir_cursor *cursor = s->cursors[i];
        cursor->channel.id = 0;
        weir_call_cancel(&cursor->call);
        if (weir_cursor_is_running(cursor))
            cursor->state = CURSOR_READY;
    }
    if (!s->over)
        tell_connection(s, false);
}

/* ---- the topology as it changes ---- */

static void
on_refreshed(struct weir_describe *d, enum weir_status st, const char *text)
{
    struct weir_subscription *s = WEIR_CONTAINER(d, struct weir_subscription, describe);
    struct weir_topology t = d->result;
    d->result = (struct weir_topology){};
    if (st && st != WEIR_NOT_FOUND) {
        weir_timer_start(s->client->loop, &s->refresh_timer, REFRESH_RETRY_US);
        return;
    }
    s->refreshing = false;
    if (st) {
        weir_subscription_end(s, st, text);
        return;
    }
    if (t.status == WEIR_STREAM_DELETING) {
        weir_topology_fini(&t);
        weir_subscription_end(s, WEIR_NOT_FOUND, "the stream was deleted");
        return;
    }
    for (size_t i = 0; i < s->count; i++) {
        struct weir_cursor *cursor = s->cursors[i];
        if (cursor->state != CURSOR_LOST)
            continue;
        if (weir_topology_find(&t, cursor->shard))
            weir_cursor_retry(cursor);
        else
            cursor->state = CURSOR_ENDED;
    }
    for (size_t i = 0; i < t.count; i++) {
        const struct weir_topology_shard *shard = &t.shards[i];
        struct weir_cursor *cursor = weir_cursor_find(s, shard->index);
        /* A shard that is new to us was made after we began: it descends from one of ours. */
        if (!cursor && !s->options.until_tail) {
            cursor = weir_cursor_add(s, shard->index);
            if (!cursor)
                break;
            cursor->parents[0] = shard->parent;
            cursor->parents[1] = shard->adjacent_parent;
        }
        if (!cursor)
            continue;
        pthread_mutex_lock(&s->mtx);
        cursor->created_ms = shard->created_ms;
        pthread_mutex_unlock(&s->mtx);
    }
    weir_topology_fini(&t);
    if (s->refresh_again)
        weir_subscription_refresh(s);
    weir_subscription_advance(s);
}

static void
on_refresh_timer(struct weir_timer *timer)
{
    struct weir_subscription *s = WEIR_CONTAINER(timer, struct weir_subscription, refresh_timer);
    weir_describe_start(s->client, &s->describe);
}

void
weir_subscription_refresh(struct weir_subscription *s)
{
    s->refresh_again = s->refreshing;
    if (s->refreshing)
        return;
    s->refreshing = true;
    weir_describe_start(s->client, &s->describe);
}

/* ---- numbers ---- */

enum weir_status
weir_sequence_of(struct weir_subscription *s, uint32_t shard, uint64_t offset, uint64_t at_ms,
                 char out[57])
{
    pthread_mutex_lock(&s->mtx);
    struct weir_cursor *cursor = weir_cursor_find(s, shard);
    uint64_t created_ms = cursor ? cursor->created_ms : 0;
    pthread_mutex_unlock(&s->mtx);
    if (!cursor)
        return WEIR_NOT_FOUND;
    if (!created_ms) { /* a child whose description is on its way */
        struct weir_topology t;
        enum weir_status st = weir_describe_wait(s->client, s->stream, false, &t, NULL);
        if (st)
            return st;
        const struct weir_topology_shard *found = weir_topology_find(&t, shard);
        created_ms = found ? found->created_ms : 0;
        weir_topology_fini(&t);
        if (!created_ms)
            return WEIR_NOT_FOUND;
    }
    struct weir_sequence sequence = {.shard_created_s = created_ms / 1000,
                                     .shard_index = shard,
                                     .offset = offset,
                                     .at_s = at_ms / 1000};
    weir_sequence_format(&sequence, out);
    return WEIR_OK;
}

enum weir_status
weir_subscription_position(struct weir_subscription *s, uint32_t shard, uint64_t *offset_out)
{
    pthread_mutex_lock(&s->mtx);
    struct weir_cursor *cursor = weir_cursor_find(s, shard);
    enum weir_status st = WEIR_OK;
    if (!cursor)
        st = WEIR_NOT_FOUND;
    else if (!cursor->is_polled)
        st = WEIR_AGAIN;
    else
        *offset_out = cursor->polled;
    pthread_mutex_unlock(&s->mtx);
    return st;
}

/* ---- where to begin ---- */

struct known_checkpoint {
    uint32_t shard;
    bool set, shard_end;
};

struct known_checkpoints {
    struct known_checkpoint *items;
    size_t count, capacity;
    bool failed;
};

static void
know_checkpoint(void *arg, const struct weir_checkpoint_info *info)
{
    struct known_checkpoints *k = arg;
    if (k->count == k->capacity) {
        size_t capacity = k->capacity ? 2 * k->capacity : 16;
        struct known_checkpoint *items = realloc(k->items, capacity * sizeof *items);
        k->failed |= !items;
        if (!items)
            return;
        k->items = items;
        k->capacity = capacity;
    }
    k->items[k->count++] = (struct known_checkpoint){info->shard, info->set, info->shard_end};
}

static const struct known_checkpoint *
find_checkpoint(const struct known_checkpoints *k, int64_t shard)
{
    for (size_t i = 0; i < k->count; i++) {
        if (k->items[i].shard == shard && k->items[i].set)
            return &k->items[i];
    }
    return NULL;
}

/* By the rule for shards without a checkpoint: is it read at all? */
static bool
is_wanted(const struct weir_topology_shard *shard, enum weir_from_kind kind, uint64_t at_ms)
{
    switch (kind) {
    case WEIR_FROM_LATEST:
        return !shard->closed_ms;
    case WEIR_FROM_TIME:
        return !shard->closed_ms || shard->closed_ms >= at_ms;
    default:
        return true;
    }
}

static bool
has_running_parent(const struct weir_subscription *s, const struct weir_cursor *cursor)
{
    for (int i = 0; i < 2; i++) {
        struct weir_cursor *parent = weir_cursor_find(s, cursor->parents[i]);
        if (parent && parent->state != CURSOR_ENDED)
            return true;
    }
    return false;
}

/* One shard of the start. Shards come in the order of their indexes, so parents before children.
 * `follows`: it descends from a shard with a checkpoint, so all of it is still to be read. */
static enum weir_status
begin_shard(struct weir_subscription *s, const struct weir_topology_shard *shard,
            const struct known_checkpoints *known, bool follows)
{
    const struct weir_subscribe_options *o = &s->options;
    const struct known_checkpoint *checkpoint =
        o->from.kind == WEIR_FROM_CHECKPOINT ? find_checkpoint(known, shard->index) : NULL;
    /* By the rule for shards without a checkpoint. */
    enum weir_from_kind kind =
        o->from.kind == WEIR_FROM_CHECKPOINT ? o->from.otherwise : o->from.kind;
    if (follows)
        kind = WEIR_FROM_OLDEST;

    struct weir_cursor *cursor = weir_cursor_add(s, shard->index);
    if (!cursor)
        return WEIR_NO_MEMORY;
    cursor->created_ms = shard->created_ms;
    cursor->parents[0] = shard->parent;
    cursor->parents[1] = shard->adjacent_parent;
    /* Checkpoints are asked for by name: they may move until the shard is subscribed. */
    if (o->from.kind == WEIR_FROM_CHECKPOINT)
        cursor->otherwise = kind;
    else
        cursor->kind = kind;
    if (o->from.kind == WEIR_FROM_OFFSET) {
        cursor->pinned = true;
        cursor->next = cursor->polled = o->from.offset;
        cursor->is_polled = true;
    }
    if (o->until_tail) {
        cursor->has_until = true;
        cursor->until = shard->next;
        cursor->closed = shard->closed_ms != 0;
    }
    bool is_read = (checkpoint && checkpoint->shard_end) ||
                   (!checkpoint && !is_wanted(shard, kind, o->from.at_ms));
    bool is_empty = !checkpoint && o->from.kind != WEIR_FROM_OFFSET && shard->oldest >= shard->next;
    bool is_late = o->until_ms && shard->created_ms >= o->until_ms;
    bool is_at_tail = o->until_tail && !checkpoint && (is_empty || kind == WEIR_FROM_LATEST);
    cursor->is_void = is_empty && shard->closed_ms && !o->one_shard;
    if (is_late)
        cursor->state = CURSOR_DONE;
    else if (is_read && !o->one_shard)
        cursor->state = CURSOR_ENDED;
    else if (is_at_tail && !shard->closed_ms)
        cursor->state = CURSOR_DONE;
    else if (!checkpoint && !o->one_shard && has_running_parent(s, cursor)) {
        cursor->state = CURSOR_WAITING;
        if (o->from.kind == WEIR_FROM_TIME)
            cursor->kind = WEIR_FROM_OLDEST; /* made when its parents closed, so after the moment */
    } else {
        cursor->state = cursor->is_void ? CURSOR_ENDED : CURSOR_READY;
    }
    return WEIR_OK;
}

static enum weir_status
begin(struct weir_subscription *s, const struct weir_topology *t,
      const struct known_checkpoints *known, struct weir_error *err)
{
    const struct weir_subscribe_options *o = &s->options;
    bool *follows = calloc(t->count + 1, sizeof *follows);
    enum weir_status st = follows ? WEIR_OK : WEIR_NO_MEMORY;
    for (size_t i = 0; !st && i < t->count; i++) {
        const struct weir_topology_shard *shard = &t->shards[i];
        if (o->one_shard && shard->index != o->shard)
            continue;
        int32_t parents[2] = {shard->parent, shard->adjacent_parent};
        bool descends = false;
        for (int k = 0; k < 2 && !o->one_shard; k++) {
            const struct weir_topology_shard *parent =
                parents[k] < 0 ? NULL : weir_topology_find(t, (uint32_t)parents[k]);
            descends |= find_checkpoint(known, parents[k]) != NULL;
            descends |= parent && follows[parent - t->shards];
        }
        follows[i] = descends || find_checkpoint(known, shard->index);
        st = begin_shard(s, shard, known, descends);
    }
    free(follows);
    if (st)
        return weir_fail(err, st, "no memory for a subscription");
    if (o->one_shard && !s->count)
        return weir_fail(err, WEIR_NOT_FOUND, "stream '%s' has no shard %u", s->stream, o->shard);
    return WEIR_OK;
}

static enum weir_status
check_options(struct weir_subscription *s, const struct weir_subscribe_options *o,
              struct weir_error *err)
{
    const char *consumer = o->consumer ? o->consumer : "";
    if (!o->stream || !o->stream[0] || strlen(o->stream) > WEIR_STREAM_NAME_MAX)
        return weir_fail(err, WEIR_INVALID, "a subscription needs a stream's name");
    if (strlen(consumer) > WEIR_CONSUMER_NAME_MAX)
        return weir_fail(err, WEIR_INVALID, "the consumer's name is too long");
    if ((o->take_checkpoint || o->from.kind == WEIR_FROM_CHECKPOINT) && !consumer[0])
        return weir_fail(err, WEIR_INVALID, "checkpoints need a consumer's name");
    if (o->from.kind > WEIR_FROM_CHECKPOINT || o->from.otherwise > WEIR_FROM_OLDEST)
        return weir_fail(err, WEIR_INVALID, "no such kind of position");
    if (o->from.kind == WEIR_FROM_OFFSET && !o->one_shard)
        return weir_fail(err, WEIR_INVALID, "an offset needs one shard");
    s->options = *o;
    s->options.stream = s->options.consumer = s->options.from.sequence = NULL; /* borrowed */
    snprintf(s->stream, sizeof s->stream, "%s", o->stream);
    snprintf(s->consumer, sizeof s->consumer, "%s", consumer);
    if (o->from.kind != WEIR_FROM_SEQUENCE)
        return WEIR_OK;
    struct weir_sequence sequence;
    if (!o->from.sequence || weir_sequence_parse(weir_bytes_of(o->from.sequence), &sequence))
        return weir_fail(err, WEIR_INVALID, "not a sequence number: '%s'",
                         o->from.sequence ? o->from.sequence : "");
    if (o->one_shard && o->shard && o->shard != sequence.shard_index)
        return weir_fail(err, WEIR_INVALID, "the sequence number is of shard %u, not %u",
                         sequence.shard_index, o->shard);
    s->options.one_shard = true;
    s->options.shard = sequence.shard_index;
    snprintf(s->sequence, sizeof s->sequence, "%s", o->from.sequence);
    return WEIR_OK;
}

static void
join(void *arg)
{
    struct weir_subscription *s = arg;
    snprintf(s->data_id, sizeof s->data_id, "%s", s->client->data_id);
    weir_list_push_back(&s->client->members, &s->member.node);
    weir_subscription_advance(s);
}

static void
leave(void *arg)
{
    struct weir_subscription *s = arg;
    struct weir_loop *loop = s->client->loop;
    weir_member_remove(&s->member);
    weir_describe_cancel(&s->describe);
    weir_subscription_leave(s);
    weir_timer_stop(loop, &s->later_timer);
    weir_timer_stop(loop, &s->refresh_timer);
    for (size_t i = 0; i < s->count; i++) {
        weir_call_cancel(&s->cursors[i]->later_call);
        weir_timer_stop(loop, &s->cursors[i]->credit_timer);
    }
}

enum weir_status
weir_subscribe(struct weir_client *client, const struct weir_subscribe_options *options,
               struct weir_subscription **out, struct weir_error *err)
{
    struct weir_topology t = {};
    struct known_checkpoints known = {};
    struct weir_subscription *s = calloc(1, sizeof *s);
    if (!s)
        return weir_fail(err, WEIR_NO_MEMORY, "no memory for a subscription");
    s->client = client;
    s->member = (struct weir_member){.up = on_up, .down = on_down};
    s->describe = (struct weir_describe){.stream = s->stream, .done = on_refreshed};
    s->task.run = weir_subscription_on_task;
    s->later_timer.run = weir_subscription_on_later_timer;
    s->refresh_timer.run = on_refresh_timer;
    s->fd = -1;
    atomic_init(&s->refs, 1);
    weir_list_init(&s->queue);
    weir_list_init(&s->freed);
    weir_list_init(&s->laters);
    pthread_mutex_init(&s->mtx, NULL);
    weir_cond_init(&s->changed);

    enum weir_status st = check_options(s, options, err);
    /* Checkpoints first: of a shard that one says was read to its end the children are known then.
     */
    if (!st && s->options.from.kind == WEIR_FROM_CHECKPOINT)
        st = weir_get_checkpoints(client, s->stream, s->consumer, know_checkpoint, &known, err);
    if (!st && known.failed)
        st = weir_fail(err, WEIR_NO_MEMORY, "no memory for a subscription");
    if (!st)
        st = weir_describe_wait(client, s->stream, true, &t, err);
    if (!st)
        st = begin(s, &t, &known, err);
    weir_topology_fini(&t);
    free(known.items);
    if (st) {
        weir_subscription_release(s);
        return st;
    }
    weir_client_run(client, join, s);
    *out = s;
    return WEIR_OK;
}

void
weir_subscription_close(struct weir_subscription *s)
{
    if (!s)
        return;
    uint64_t deadline = weir_deadline_us(s->client, CLOSE_WAIT_MS);
    pthread_mutex_lock(&s->mtx);
    while ((s->laters_running || !weir_list_is_empty(&s->laters)) && !s->later_failure.status &&
           weir_cond_wait(s->client, &s->changed, &s->mtx, deadline))
        ;
    s->closed = true;
    s->over = true;
    pthread_mutex_unlock(&s->mtx);
    weir_client_run(s->client, leave, s);
    for (;;) {
        pthread_mutex_lock(&s->mtx);
        struct weir_queued *e = weir_queued_take(s);
        pthread_mutex_unlock(&s->mtx);
        if (!e)
            break;
        weir_queued_free(e);
    }
    weir_subscription_release(s);
}
