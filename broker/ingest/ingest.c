/* The good path of one batch:
 *
 *   1. look at its header: whose is it, which number?
 *   2. known producer, number not new: the log says where the first copy is
 *   3. is the shard open here?
 *   4. admit: body hash, decompression, every record
 *   5. hash interval within the shard's range
 *   6. append; the log answers when it is durable
 *
 * Step 2 stands before step 3 so that a producer whose acknowledgement was lost in a split learns
 * that its batch is stored, and does not store it once more in the child. */
#include "ingest/ingest.h"
#include "base/assert.h"
#include "base/map.h"
#include <stdlib.h>

struct weir_ingest {
    struct weir_loop *loop;
    struct weir_log *log;
    struct weir_metrics *metrics;
    struct weir_map shards; /* number to struct shard */
    struct weir_scratch scratch;
    bool stopped;
};

struct shard {
    uint64_t stream;
    struct weir_hash_range range;
    uint32_t record_bytes_max;
    bool closed;
};

enum weir_status
weir_ingest_new(struct weir_loop *loop, struct weir_log *log, struct weir_metrics *metrics,
                struct weir_ingest **out)
{
    struct weir_ingest *i = calloc(1, sizeof *i);
    if (!i)
        return WEIR_NO_MEMORY;
    i->loop = loop;
    i->log = log;
    i->metrics = metrics;
    /* Keys are numbers that the catalog gave out; nobody outside chooses them. */
    weir_map_init(&i->shards, 1);
    *out = i;
    return WEIR_OK;
}

void
weir_ingest_free(struct weir_ingest *i)
{
    if (!i)
        return;
    size_t cursor = 0;
    for (struct shard *s; (s = weir_map_next(&i->shards, &cursor));)
        free(s);
    weir_map_fini(&i->shards);
    weir_scratch_fini(&i->scratch);
    free(i);
}

enum weir_status
weir_ingest_open_shard(struct weir_ingest *i, const struct weir_ingest_shard *config)
{
    WEIR_ASSERT(weir_loop_is_current(i->loop));
    WEIR_ASSERT(config->range.low <= config->range.high);
    struct shard *s = calloc(1, sizeof *s);
    if (!s)
        return WEIR_NO_MEMORY;
    s->stream = config->stream;
    s->range = config->range;
    s->record_bytes_max = config->record_bytes_max < WEIR_RECORD_BYTES_MAX
                              ? (uint32_t)config->record_bytes_max
                              : (uint32_t)WEIR_RECORD_BYTES_MAX;
    enum weir_status st = weir_map_put(&i->shards, config->shard, s);
    if (st)
        free(s);
    return st;
}

/* ---- closing ---- */

static void
on_barrier(struct weir_log_barrier *b)
{
    struct weir_ingest_close *c = WEIR_CONTAINER(b, struct weir_ingest_close, barrier);
    const struct shard *s = weir_map_get(&c->ingest->shards, c->shard);
    struct weir_log_shard state;
    if (!s || weir_log_shard_get(c->ingest->log, c->shard, &state)) {
        c->done(c, WEIR_NOT_FOUND);
        return;
    }
    /* Nothing was taken since, unless the shard was opened again meanwhile; so what is assigned and
     * not durable has an outcome that nobody knows, and the shard has no end that could be
     * recorded. */
    if (state.next != state.assigned) {
        c->done(c, s->closed ? WEIR_UNKNOWN : WEIR_CANCELLED);
        return;
    }
    c->end = state.next;
    c->done(c, s->closed ? WEIR_OK : WEIR_CANCELLED);
}

void
weir_ingest_close_shard(struct weir_ingest *i, struct weir_ingest_close *c)
{
    WEIR_ASSERT(weir_loop_is_current(i->loop));
    struct shard *s = weir_map_get(&i->shards, c->shard);
    if (!s) {
        c->done(c, WEIR_NOT_FOUND);
        return;
    }
    s->closed = true;
    c->ingest = i;
    c->end = 0;
    c->barrier = (struct weir_log_barrier){.done = on_barrier};
    weir_log_barrier(i->log, &c->barrier);
}

enum weir_status
weir_ingest_reopen_shard(struct weir_ingest *i, uint64_t shard)
{
    WEIR_ASSERT(weir_loop_is_current(i->loop));
    struct shard *s = weir_map_get(&i->shards, shard);
    if (!s)
        return WEIR_NOT_FOUND;
    s->closed = false;
    return WEIR_OK;
}

void
weir_ingest_drop_shard(struct weir_ingest *i, uint64_t shard)
{
    WEIR_ASSERT(weir_loop_is_current(i->loop));
    free(weir_map_take(&i->shards, shard));
}

void
weir_ingest_stop(struct weir_ingest *i)
{
    WEIR_ASSERT(weir_loop_is_current(i->loop));
    i->stopped = true;
}

/* ---- produce ---- */

static void
answer(struct weir_produce *p, enum weir_status st, const char *text)
{
    switch (st) {
    case WEIR_OK:
        weir_metric_add(p->metrics, WEIR_METRIC_INCOMING_BATCHES, 1);
        weir_metric_add(p->metrics, WEIR_METRIC_INCOMING_RECORDS, p->count);
        weir_metric_add(p->metrics, WEIR_METRIC_INCOMING_BYTES, p->size);
        break;
    case WEIR_DUPLICATE:
        weir_metric_add(p->metrics, WEIR_METRIC_DUPLICATE_BATCHES, 1);
        break;
    case WEIR_AGAIN:
        weir_metric_add(p->metrics, WEIR_METRIC_THROTTLED_BATCHES, 1);
        break;
    default:
        weir_metric_add(p->metrics, WEIR_METRIC_REFUSED_BATCHES, 1);
        break;
    }
    p->done(p, st, text);
}

static void
refuse(struct weir_produce *p, struct weir_buf *batch, enum weir_status st, const char *text)
{
    weir_buf_unref(batch);
    answer(p, st, text);
}

static void
on_appended(struct weir_append *a, enum weir_status st)
{
    struct weir_produce *p = WEIR_CONTAINER(a, struct weir_produce, append);
    answer(p, st, weir_status_text(st));
}

static void
append(struct weir_ingest *i, struct weir_produce *p, struct weir_buf *batch)
{
    p->append.batch = batch;
    p->append.done = on_appended;
    enum weir_status st = weir_log_append(i->log, &p->append);
    if (st == WEIR_OK)
        return;
    p->append.batch = NULL;
    if (p->append.known_only && st == WEIR_NOT_FOUND)
        st = WEIR_AGAIN; /* forgotten since we asked */
    refuse(p, batch, st,
           st == WEIR_INVALID ? "the producer's number is not the one after its last, or not 1 and "
                                "the producer is not known"
                              : weir_status_text(st));
}

/* The log knows this number of this producer already: it will answer DUPLICATE and store nothing.
 */
static bool
is_stored(const struct weir_ingest *i, uint64_t shard, const struct weir_batch_info *info)
{
    uint64_t last;
    return info->producer != 0 && !weir_log_producer(i->log, shard, info->producer, &last) &&
           info->number <= last;
}

void
weir_ingest_produce(struct weir_ingest *i, struct weir_produce *p, struct weir_buf *batch)
{
    WEIR_ASSERT(weir_loop_is_current(i->loop));
    p->metrics = i->metrics;
    p->append.batch = NULL;
    p->append.offset = p->append.at_ms = 0;
    p->append.known_only = false;

    struct weir_bytes bytes = weir_buf_bytes(batch);
    struct weir_batch_info info;
    enum weir_status st = weir_batch_peek(bytes, &info);
    if (st) {
        refuse(p, batch, st == WEIR_TOO_BIG ? st : WEIR_INVALID, "the batch's header is not valid");
        return;
    }
    if (info.size != bytes.len || info.count == 0) {
        refuse(p, batch, WEIR_INVALID, "a message must hold exactly one batch of records");
        return;
    }
    p->count = info.count;
    p->size = info.size;
    if (is_stored(i, p->append.shard, &info)) {
        /* It was not looked at further: where the log forgets the producer between these two lines,
         * it must not be stored as something new. */
        p->append.known_only = true;
        append(i, p, batch);
        return;
    }

    if (i->stopped) {
        refuse(p, batch, WEIR_UNAVAILABLE, "the broker is draining");
        return;
    }
    const struct shard *s = weir_map_get(&i->shards, p->append.shard);
    if (!s) {
        /* A closed shard stays in the log until its last record is trimmed. */
        struct weir_log_shard state;
        bool there = !weir_log_shard_get(i->log, p->append.shard, &state);
        refuse(p, batch, there ? WEIR_MOVED : WEIR_NOT_FOUND,
               there ? "the shard is closed" : "no such shard");
        return;
    }
    if (s->stream != p->append.stream) {
        refuse(p, batch, WEIR_NOT_FOUND, "the shard is another stream's");
        return;
    }
    if (s->closed) {
        refuse(p, batch, WEIR_MOVED, "the shard is closed");
        return;
    }

    struct weir_error err = {0};
    st = weir_batch_admit(bytes, s->record_bytes_max, &i->scratch, &info, &err);
    if (st) {
        refuse(p, batch, st, err.text);
        return;
    }
    if (info.hash_low < s->range.low || info.hash_high > s->range.high) {
        refuse(p, batch, WEIR_INVALID, "the batch's hash keys are not within the shard's range");
        return;
    }
    append(i, p, batch);
}
