#include "unit/fanout/fake_log.h"
#include "base/assert.h"
#include <stdlib.h>

struct entry {
    struct weir_buf *buf;
    uint64_t first, at_ms;
    uint32_t count;
    bool cached, damaged;
};

struct fake_shard {
    struct weir_log_shard state;
    struct entry *entries;
    size_t count, first, capacity;
    weir_u128 producer;
    uint64_t number, producer_offset;
    bool there;
};

struct weir_log {
    struct weir_loop *loop;
    struct weir_clock *clock;
    struct weir_log_observer *observer;
    struct fake_shard shards[FAKE_SHARDS];
    struct weir_list appends, barriers;
    struct weir_read *read[1024];
    struct weir_find *find[1024];
    size_t read_count, find_count;
    uint64_t reads;
    struct weir_task task;
    bool hold;
    enum weir_status refuse;
};

static void
answer_reads(struct weir_task *task)
{
    struct weir_log *log = WEIR_CONTAINER(task, struct weir_log, task);
    while (log->find_count > 0) {
        struct weir_find *f = log->find[--log->find_count];
        struct fake_shard *s = &log->shards[f->shard];
        f->offset = s->state.next;
        for (size_t i = s->count; i-- > s->first;)
            if (s->entries[i].at_ms >= f->at_ms)
                f->offset = s->entries[i].first;
        f->done(f, s->there ? WEIR_OK : WEIR_NOT_FOUND);
    }
    if (log->hold)
        return;
    size_t count = log->read_count;
    struct weir_read *reads[1024];
    memcpy(reads, log->read, sizeof reads);
    log->read_count = 0;
    for (size_t i = 0; i < count; i++) {
        struct weir_read *r = reads[i];
        struct fake_shard *s = &log->shards[r->shard];
        bool was[4096];
        WEIR_ASSERT(s->count < 4096);
        for (size_t k = s->first; k < s->count; k++) {
            was[k] = s->entries[k].cached;
            s->entries[k].cached = true;
        }
        enum weir_status st = weir_log_read_cached(log, r->shard, r->offset, r->bytes_max, &r->run);
        for (size_t k = s->first; k < s->count; k++)
            s->entries[k].cached = was[k];
        r->done(r, st);
    }
}

struct weir_log *
fake_log_new(struct weir_loop *loop, struct weir_clock *clock, struct weir_log_observer *observer)
{
    struct weir_log *log = calloc(1, sizeof *log);
    WEIR_ASSERT(log);
    log->loop = loop;
    log->clock = clock;
    log->observer = observer;
    log->task.run = answer_reads;
    weir_list_init(&log->appends);
    weir_list_init(&log->barriers);
    return log;
}

void
fake_log_free(struct weir_log *log)
{
    for (int i = 0; i < FAKE_SHARDS; i++) {
        for (size_t k = log->shards[i].first; k < log->shards[i].count; k++)
            weir_buf_unref(log->shards[i].entries[k].buf);
        free(log->shards[i].entries);
    }
    free(log);
}

enum weir_status
weir_log_shard_add(struct weir_log *log, uint64_t stream, uint64_t shard, uint64_t retention_ms,
                   uint64_t retention_bytes)
{
    (void)retention_ms, (void)retention_bytes;
    struct fake_shard *s = &log->shards[shard];
    if (s->there)
        return WEIR_EXISTS;
    s->there = true;
    s->state.stream = stream;
    s->state.shard = shard;
    return WEIR_OK;
}

enum weir_status
weir_log_shard_drop(struct weir_log *log, uint64_t shard)
{
    log->shards[shard].there = false;
    return WEIR_OK;
}

enum weir_status
weir_log_shard_get(const struct weir_log *log, uint64_t shard, struct weir_log_shard *out)
{
    if (shard >= FAKE_SHARDS || !log->shards[shard].there)
        return WEIR_NOT_FOUND;
    *out = log->shards[shard].state;
    return WEIR_OK;
}

static void
store(struct weir_log *log, struct fake_shard *s, struct weir_buf *buf, uint32_t count)
{
    if (s->count == s->capacity) {
        s->capacity = s->capacity ? 2 * s->capacity : 16;
        s->entries = realloc(s->entries, s->capacity * sizeof *s->entries);
        WEIR_ASSERT(s->entries);
    }
    uint64_t at_ms = weir_now_ms(log->clock);
    s->entries[s->count++] = (struct entry){buf, s->state.next, at_ms, count, true, false};
    s->state.next += count;
    s->state.bytes += buf->len;
    s->state.latest_at_ms = at_ms;
    if (s->state.assigned < s->state.next)
        s->state.assigned = s->state.next;
    s->state.oldest_at_ms = s->entries[s->first].at_ms;
    struct weir_batch_info info = {
        .stream = s->state.stream,
        .shard = s->state.shard,
        .offset = s->state.next - count,
        .count = count,
        .at_ms = at_ms,
        .size = (uint32_t)buf->len,
    };
    log->observer->durable(log->observer, &info, (struct weir_slice){buf, 0, buf->len});
}

void
fake_log_put(struct weir_log *log, uint64_t shard, uint32_t count, size_t size)
{
    struct fake_shard *s = &log->shards[shard];
    struct weir_buf *buf = weir_buf_new(size);
    WEIR_ASSERT(buf && size >= sizeof(struct fake_batch));
    memset(buf->data, 0, size);
    struct fake_batch head = {s->state.next, count, size};
    memcpy(buf->data, &head, sizeof head);
    buf->len = size;
    store(log, s, buf, count);
}

struct fake_batch
fake_batch_at(struct weir_bytes bytes)
{
    struct fake_batch head;
    WEIR_ASSERT(bytes.len >= sizeof head);
    memcpy(&head, bytes.data, sizeof head);
    return head;
}

void
fake_log_evict(struct weir_log *log, uint64_t shard)
{
    struct fake_shard *s = &log->shards[shard];
    for (size_t i = s->first; i < s->count; i++)
        s->entries[i].cached = false;
}

void
fake_log_trim(struct weir_log *log, uint64_t shard, uint64_t oldest)
{
    struct fake_shard *s = &log->shards[shard];
    uint64_t first = s->state.oldest;
    while (s->first < s->count &&
           s->entries[s->first].first + s->entries[s->first].count <= oldest) {
        s->state.oldest = s->entries[s->first].first + s->entries[s->first].count;
        s->state.bytes -= s->entries[s->first].buf->len;
        weir_buf_unref(s->entries[s->first++].buf);
    }
    s->state.oldest_at_ms = s->first < s->count ? s->entries[s->first].at_ms : 0;
    if (s->state.oldest > first)
        log->observer->gap(log->observer, shard, first, s->state.oldest, WEIR_TRIMMED);
}

void
fake_log_damage(struct weir_log *log, uint64_t shard, uint64_t offset)
{
    struct fake_shard *s = &log->shards[shard];
    for (size_t i = s->first; i < s->count; i++)
        if (s->entries[i].first <= offset && offset < s->entries[i].first + s->entries[i].count)
            s->entries[i].damaged = true;
}

void
fake_log_hold_reads(struct weir_log *log, bool hold)
{
    log->hold = hold;
    if (!hold)
        weir_loop_post(log->loop, &log->task);
}

uint64_t
fake_log_reads(const struct weir_log *log)
{
    return log->reads;
}

/* ---- log.h ---- */

void
weir_run_clear(struct weir_run *run)
{
    for (uint32_t i = 0; i < run->count; i++)
        weir_buf_unref(run->batch[i].slice.buf);
    run->count = 0;
}

enum weir_status
weir_log_read_cached(struct weir_log *log, uint64_t shard, uint64_t offset, uint64_t bytes_max,
                     struct weir_run *run)
{
    struct fake_shard *s = &log->shards[shard];
    run->count = 0;
    run->bytes = 0;
    if (!s->there)
        return WEIR_NOT_FOUND;
    if (offset < s->state.oldest) {
        run->first = s->state.oldest;
        return WEIR_TRIMMED;
    }
    if (offset >= s->state.next)
        return WEIR_END;
    for (size_t i = s->first; i < s->count && run->count < WEIR_RUN_SLICES_MAX; i++) {
        struct entry *e = &s->entries[i];
        if (e->first + e->count <= offset)
            continue;
        if (run->count > 0 && (e->damaged || !e->cached || run->bytes + e->buf->len > bytes_max))
            break;
        if (e->damaged) {
            run->first = e->first;
            run->limit = e->first + e->count;
            return WEIR_DAMAGED;
        }
        if (!e->cached)
            return WEIR_AGAIN;
        if (run->count == 0)
            run->first = e->first;
        run->limit = e->first + e->count;
        run->bytes += e->buf->len;
        run->batch[run->count].slice = (struct weir_slice){weir_buf_ref(e->buf), 0, e->buf->len};
        run->batch[run->count].first = e->first;
        run->batch[run->count].at_ms = e->at_ms;
        run->batch[run->count].records = e->count;
        run->count++;
    }
    return WEIR_OK;
}

void
weir_log_read(struct weir_log *log, struct weir_read *r)
{
    WEIR_ASSERT(log->read_count < 1024);
    log->reads++;
    log->read[log->read_count++] = r;
    weir_loop_post(log->loop, &log->task);
}

void
weir_log_find_time(struct weir_log *log, struct weir_find *f)
{
    WEIR_ASSERT(log->find_count < 1024);
    log->find[log->find_count++] = f;
    weir_loop_post(log->loop, &log->task);
}

enum weir_status
weir_log_producer(const struct weir_log *log, uint64_t shard, weir_u128 producer,
                  uint64_t *number_out)
{
    if (shard >= FAKE_SHARDS || log->shards[shard].producer != producer)
        return WEIR_NOT_FOUND;
    *number_out = log->shards[shard].number;
    return WEIR_OK;
}

enum weir_status
weir_log_append(struct weir_log *log, struct weir_append *a)
{
    if (log->refuse)
        return log->refuse;
    struct fake_shard *s = &log->shards[a->shard];
    if (a->shard >= FAKE_SHARDS || !s->there)
        return WEIR_NOT_FOUND;
    struct weir_batch_info info;
    enum weir_status st = weir_batch_peek(weir_buf_bytes(a->batch), &info);
    WEIR_ASSERT(!st);
    a->size = info.size;
    if (info.producer != 0 && info.producer == s->producer && info.number <= s->number) {
        a->count = 0;
        a->offset = s->producer_offset;
    } else {
        if (info.producer != 0 && info.producer == s->producer && info.number != s->number + 1)
            return WEIR_INVALID;
        a->count = info.count;
        a->offset = s->state.assigned;
        s->state.assigned += info.count;
        s->producer = info.producer;
        s->number = info.number;
        s->producer_offset = a->offset;
    }
    a->node = (struct weir_list){0};
    weir_list_push_back(&log->appends, &a->node);
    return WEIR_OK;
}

void
weir_log_barrier(struct weir_log *log, struct weir_log_barrier *b)
{
    b->marker.node = (struct weir_list){0};
    weir_list_push_back(&log->barriers, &b->marker.node);
}

void
fake_log_commit(struct weir_log *log, enum weir_status st)
{
    for (struct weir_list *node; (node = weir_list_pop_front(&log->appends));) {
        struct weir_append *a = WEIR_CONTAINER(node, struct weir_append, node);
        struct fake_shard *s = &log->shards[a->shard];
        struct weir_buf *batch = a->batch;
        if (a->count == 0) {
            weir_buf_unref(batch);
            a->done(a, WEIR_DUPLICATE);
        } else if (st) {
            if (st != WEIR_UNKNOWN)
                s->state.assigned = s->state.next;
            weir_buf_unref(batch);
            a->done(a, st);
        } else {
            store(log, s, batch, a->count);
            a->done(a, WEIR_OK);
        }
    }
    for (struct weir_list *node; (node = weir_list_pop_front(&log->barriers));) {
        struct weir_log_barrier *b = WEIR_CONTAINER(node, struct weir_log_barrier, marker.node);
        b->done(b);
    }
}

void
fake_log_refuse(struct weir_log *log, enum weir_status st)
{
    log->refuse = st;
}
