/* The log's life, its shards, and the way of a batch:
 *
 *   1. append: the batch gets the shard's next offset, a time that does not go back, and the hash
 *      of the batch before; it is queued.
 *   2. The committer writes it with others (commit.c) and hands it back.
 *   3. finished: the index learns where it is, the tail cache keeps it, the observer hears of it,
 *      its owner is called.
 *
 * A shard has its numbers twice: as they are durable, and as they are with everything in flight.
 * When a group fails, all that is in flight fails with it, and the second go back to the first.
 *
 * Callbacks may call us again. So nothing is held across one: what is needed afterwards is looked
 * up again, and failures are first undone for all and then told. */
#include "base/assert.h"
#include "log/state.h"
#include <stdio.h>
#include <stdlib.h>

/* ---- jobs ---- */

void
weir_log_job(struct weir_log *log, struct weir_job *job)
{
    pthread_mutex_lock(&log->mtx);
    log->jobs++;
    pthread_mutex_unlock(&log->mtx);
    log->jobs_open++;
    weir_pool_submit(log->sys->pool, log->loop, job);
}

void
weir_log_job_worked(struct weir_log *log)
{
    pthread_mutex_lock(&log->mtx);
    log->jobs--;
    pthread_cond_signal(&log->job_ended);
    pthread_mutex_unlock(&log->mtx);
}

void
weir_log_job_done(struct weir_log *log)
{
    WEIR_ASSERT(log->jobs_open > 0);
    log->jobs_open--;
}

/* ---- health ---- */

void
weir_log_health(struct weir_log *log, const char *text)
{
    enum weir_status now = log->refused ? log->refused : log->crowded;
    if (now == log->health)
        return;
    log->health = now;
    log->stat.health = now;
    if (log->observer && log->observer->health)
        log->observer->health(log->observer, now, text);
}

void
weir_log_gap(struct weir_log *log, uint64_t shard, uint64_t first, uint64_t limit,
             enum weir_status why)
{
    if (log->observer && log->observer->gap)
        log->observer->gap(log->observer, shard, first, limit, why);
}

/* ---- the filler ---- */

static void
prepare_work(struct weir_job *job)
{
    struct weir_log *log = WEIR_CONTAINER(job, struct weir_log, prepare);
    log->prepare_written = atomic_load_explicit(&log->commit.group_bytes, memory_order_relaxed);
    log->prepare_st = log->journal->ops->prepare(log->journal);
    log->prepare_ready = log->journal->ops->ready_bytes(log->journal);
    weir_log_job_worked(log);
}

/* The disk is full and the reserve is reached: what is left is for our own writes. */
static void
check_crowded(struct weir_log *log)
{
    uint64_t written =
        atomic_load_explicit(&log->commit.group_bytes, memory_order_relaxed) - log->prepare_written;
    uint64_t ready = log->prepare_ready > written ? log->prepare_ready - written : 0;
    log->crowded =
        log->prepare_st == WEIR_NO_SPACE && ready < WEIR_RESERVE_BYTES ? WEIR_NO_SPACE : WEIR_OK;
    weir_log_health(log, log->crowded ? "no space left for new segments: writes are refused until "
                                        "there is"
                                      : "there is space again: writes are taken");
}

static void
prepare_done(struct weir_job *job)
{
    struct weir_log *log = WEIR_CONTAINER(job, struct weir_log, prepare);
    weir_log_job_done(log);
    log->prepare_active = false;
    log->prepare_idle = log->prepare_st != WEIR_OK;
    check_crowded(log);
    if (!log->prepare_idle)
        weir_log_prepare(log);
}

void
weir_log_prepare(struct weir_log *log)
{
    if (log->prepare_active || log->closing || !log->journal->ops->prepare)
        return;
    log->prepare_active = true;
    log->prepare = (struct weir_job){.work = prepare_work, .done = prepare_done};
    weir_log_job(log, &log->prepare);
}

/* ---- shards ---- */

uint64_t
weir_log_producers_before(const struct weir_log *log, uint64_t now_ms)
{
    return now_ms > log->config.producer_expiry_ms ? now_ms - log->config.producer_expiry_ms : 0;
}

enum weir_status
weir_log_shard_add(struct weir_log *log, uint64_t stream, uint64_t shard, uint64_t retention_ms,
                   uint64_t retention_bytes)
{
    struct weir_shard *s = weir_index_shard(&log->index, shard);
    if (s && s->declared)
        return WEIR_EXISTS;
    if (!s) {
        enum weir_status st = weir_index_shard_new(&log->index, stream, shard, &s);
        if (st)
            return st;
    }
    s->stream = stream;
    s->declared = true;
    s->retention_ms = retention_ms;
    s->retention_bytes = retention_bytes;
    return WEIR_OK;
}

static void
shard_forget(struct weir_log *log, struct weir_shard *s)
{
    weir_keep_dropped(log, s);
    weir_cache_forget(&log->cache, s);
    weir_index_shard_free(&log->index, s);
}

enum weir_status
weir_log_shard_drop(struct weir_log *log, uint64_t shard)
{
    struct weir_shard *s = weir_index_shard(&log->index, shard);
    if (!s)
        return WEIR_NOT_FOUND;
    shard_forget(log, s);
    return WEIR_OK;
}

void
weir_log_drop_undeclared(struct weir_log *log)
{
    size_t cursor = 0;
    struct weir_shard *s;
    while ((s = weir_map_next(&log->index.shards, &cursor)))
        if (!s->declared)
            shard_forget(log, s);
}

enum weir_status
weir_log_shard_get(const struct weir_log *log, uint64_t shard, struct weir_log_shard *out)
{
    const struct weir_shard *s = weir_index_shard(&log->index, shard);
    if (!s)
        return WEIR_NOT_FOUND;
    *out = (struct weir_log_shard){
        .stream = s->stream,
        .shard = s->shard,
        .oldest = s->oldest,
        .next = s->next,
        .assigned = s->assigned,
        .oldest_at_ms = s->run_count ? s->runs[0].first_at_ms : 0,
        .latest_at_ms = s->at_ms,
        .bytes = s->bytes,
    };
    return WEIR_OK;
}

/* ---- append ---- */

enum weir_status
weir_log_append(struct weir_log *log, struct weir_append *a)
{
    struct weir_shard *s = weir_index_shard(&log->index, a->shard);
    struct weir_batch_info info;
    if (!s)
        return WEIR_NOT_FOUND;
    if (log->health)
        return log->health;
    if (weir_batch_peek(weir_buf_bytes(a->batch), &info) || info.size != a->batch->len ||
        !info.count)
        return WEIR_INVALID;
    if (log->queued_bytes && log->queued_bytes + info.size > log->config.queue_bytes_max)
        return WEIR_AGAIN;

    uint64_t now_ms = weir_loop_now_ms(log->loop);
    uint64_t forgotten = weir_log_producers_before(log, now_ms);
    a->kind = WEIR_ITEM_APPEND;
    a->st = WEIR_OK;
    a->size = 0;
    if (info.producer) {
        struct weir_producer_place place;
        enum weir_status st =
            weir_producers_check(s->producers, info.producer, info.number, forgotten, &place);
        if (st == WEIR_INVALID) {
            a->offset = place.number;
            return st;
        }
        if (st == WEIR_DUPLICATE) {
            /* Its first copy may be in flight: the answer waits its turn behind it. */
            a->kind = WEIR_ITEM_DUPLICATE;
            a->offset = place.offset;
            a->at_ms = place.at_ms;
            weir_commit_push(&log->commit, a);
            return WEIR_OK;
        }
    }
    if (a->known_only)
        return WEIR_NOT_FOUND;
    if (s->assigned > (uint64_t)INT64_MAX - info.count)
        return WEIR_TOO_BIG;

    uint64_t at_ms = now_ms > s->assigned_at_ms ? now_ms : s->assigned_at_ms;
    if (info.producer) {
        enum weir_status st = weir_producers_begin(&s->producers, info.producer, info.number,
                                                   s->assigned, at_ms, forgotten);
        if (st)
            return st;
    }
    WEIR_ASSERT(weir_buf_is_sole(a->batch));
    struct weir_batch_seal seal = {
        .stream = s->stream,
        .shard = s->shard,
        .offset = s->assigned,
        .at_ms = at_ms,
        .epoch = log->commit.epoch,
        .previous = s->assigned_chain,
    };
    a->hash = weir_batch_seal(a->batch->data, &seal);
    a->offset = s->assigned;
    a->at_ms = at_ms;
    a->size = info.size;
    a->count = info.count;
    s->assigned += info.count;
    s->assigned_at_ms = at_ms;
    s->assigned_chain = a->hash;
    log->queued_bytes += a->size;
    weir_commit_push(&log->commit, a);
    return WEIR_OK;
}

uint64_t
weir_log_queued_bytes(const struct weir_log *log)
{
    return log->queued_bytes;
}

void
weir_log_barrier(struct weir_log *log, struct weir_log_barrier *b)
{
    b->marker = (struct weir_append){.kind = WEIR_ITEM_BARRIER};
    if (log->refused)
        weir_commit_pass(&log->commit, &b->marker);
    else
        weir_commit_push(&log->commit, &b->marker);
}

enum weir_status
weir_log_producer(const struct weir_log *log, uint64_t shard, weir_u128 producer,
                  uint64_t *number_out)
{
    const struct weir_shard *s = weir_index_shard(&log->index, shard);
    if (!s)
        return WEIR_NOT_FOUND;
    uint64_t forgotten = weir_log_producers_before(log, weir_loop_now_ms(log->loop));
    return weir_producers_last(s->producers, producer, forgotten, number_out);
}

enum weir_status
weir_log_state_batch(struct weir_log *log, struct weir_shard *s, struct weir_append *a)
{
    enum weir_status st = weir_batch_new_state(s->oldest, &a->batch);
    if (st)
        return st;
    struct weir_batch_seal seal = {
        .stream = s->stream,
        .shard = s->shard,
        .offset = s->assigned,
        .at_ms = s->assigned_at_ms,
        .epoch = log->commit.epoch,
        .flags = WEIR_BATCH_STATE,
        .previous = s->assigned_chain,
    };
    a->hash = weir_batch_seal(a->batch->data, &seal);
    a->stream = s->stream;
    a->shard = s->shard;
    a->offset = s->assigned;
    a->at_ms = s->assigned_at_ms;
    a->size = (uint32_t)a->batch->len;
    a->count = 0;
    a->st = WEIR_OK;
    return WEIR_OK;
}

/* ---- what comes back ---- */

static struct weir_append *
item_of(struct weir_list *node)
{
    return WEIR_CONTAINER(node, struct weir_append, node);
}

/* Lets go of the batch and tells the owner. */
static void
answer(struct weir_log *log, struct weir_append *a, enum weir_status st)
{
    log->queued_bytes -= a->size;
    weir_buf_unref(a->batch);
    a->batch = NULL;
    if (st && st != WEIR_DUPLICATE)
        a->offset = a->at_ms = 0;
    a->done(a, st);
}

static void
finish_append(struct weir_log *log, struct weir_append *a)
{
    struct weir_shard *s = weir_index_shard(&log->index, a->shard);
    struct weir_segment *g = weir_index_segment(&log->index, a->segment);
    struct weir_batch_info info;
    enum weir_status st = weir_batch_peek(weir_buf_bytes(a->batch), &info);
    WEIR_ASSERT(!st && g);
    if (!s) {
        answer(log, a, WEIR_CANCELLED); /* dropped meanwhile */
        return;
    }
    struct weir_entry e = {
        .offset = a->offset,
        .at_ms = a->at_ms,
        .hash = (uint64_t)a->hash,
        .position = a->position,
        .size = a->size,
        .count = a->count,
    };
    WEIR_ASSERT(a->offset == s->next);
    /* Without memory for the entry the batch is on disk all the same, and there after a restart. */
    st = weir_index_add(&log->index, g, s, false, &e) ? WEIR_UNKNOWN : WEIR_OK;
    s->next = a->offset + a->count;
    s->at_ms = a->at_ms;
    s->chain = a->hash;
    weir_index_home(&log->index, s, g->number);
    if (info.producer)
        weir_producers_durable(s->producers, info.producer, info.number);
    weir_cache_add(&log->cache, s, a->batch, a->offset, a->count, a->at_ms);
    log->stat.batches++;
    log->stat.records += a->count;
    if (log->observer && log->observer->durable)
        log->observer->durable(log->observer, &info,
                               (struct weir_slice){a->batch, 0, a->batch->len});
    answer(log, a, st);
}

static void
finish_state(struct weir_log *log, struct weir_append *a)
{
    struct weir_shard *s = weir_index_shard(&log->index, a->shard);
    struct weir_segment *g = weir_index_segment(&log->index, a->segment);
    uint64_t trimmed = weir_batch_trimmed_before(a->batch->data);
    struct weir_part *part;
    enum weir_status st = WEIR_OK;
    WEIR_ASSERT(g);
    if (s) {
        /* The part, even an empty one, brings the shard's state into the footer. */
        st = weir_index_part(&log->index, g, s, false, &part);
        weir_index_home(&log->index, s, g->number);
        if (trimmed >= s->trim_recorded) {
            s->trim_recorded = trimmed;
            weir_index_trim_home(&log->index, s, g->number);
        }
    }
    answer(log, a, st);
}

static void
finish_rolled(struct weir_log *log, struct weir_rolled *r)
{
    struct weir_segment *g = weir_index_segment(&log->index, r->segment), *next;
    WEIR_ASSERT(g && g->state == WEIR_SEGMENT_OPEN);
    g->end = r->end;
    g->group = r->group;
    g->last_hash = r->last_hash;
    g->epoch = r->epoch;
    g->state = WEIR_SEGMENT_ROLLED;
    enum weir_status st = weir_index_segment_new(&log->index, r->next, &next);
    WEIR_ASSERT(!st);              /* without the table of segments there is no going on */
    (void)!weir_seal_note(log, g); /* weir_seal_next() tries again */
    free(r);
    weir_seal_next(log);
}

/* Takes back what a batch that is not stored did to its shard's numbers. */
static void
undo(struct weir_log *log, struct weir_append *a)
{
    struct weir_shard *s = weir_index_shard(&log->index, a->shard);
    struct weir_batch_info info;
    if (a->kind != WEIR_ITEM_APPEND || !s)
        return;
    s->assigned = s->next;
    s->assigned_at_ms = s->at_ms;
    s->assigned_chain = s->chain;
    if (!weir_batch_peek(weir_buf_bytes(a->batch), &info) && info.producer)
        weir_producers_undo(s->producers, info.producer, info.number);
}

static void
fail_all(struct weir_log *log, struct weir_list *items, enum weir_status st)
{
    WEIR_LIST_FOR_EACH (node, items) {
        undo(log, item_of(node));
    }
    struct weir_list *node;
    while ((node = weir_list_pop_front(items))) {
        struct weir_append *a = item_of(node);
        if (a->kind == WEIR_ITEM_BARRIER || a->kind == WEIR_ITEM_ROLL) {
            struct weir_log_barrier *b = WEIR_CONTAINER(a, struct weir_log_barrier, marker);
            a->st = a->st ? a->st : st;
            b->done(b);
            continue;
        }
        answer(log, a, a->st ? a->st : st);
    }
}

/* The group in `failed` was not stored; nor can be what is queued behind it. */
static void
finish_failed(struct weir_log *log, struct weir_failed *f, struct weir_list *failed)
{
    char text[160];
    enum weir_status st = f->item.st;
    log->refused = f->now;
    snprintf(text, sizeof text, "a write to the journal failed (%s): %s", weir_status_text(st),
             f->now ? "writes are refused until a new segment can be opened"
                    : "going on in a new segment");
    free(f);
    weir_commit_take_pending(&log->commit, failed);
    if (!log->refused)
        weir_commit_mend(&log->commit);
    weir_log_health(log, text);
    fail_all(log, failed, st);
}

static void
finish_mended(struct weir_log *log, const struct weir_append *a)
{
    log->retrying = false;
    if (a->st)
        return;
    log->refused = WEIR_OK;
    weir_commit_mend(&log->commit);
    weir_log_health(log, "a new segment is open: writes are taken again");
}

static void
finish_one(struct weir_log *log, struct weir_append *a)
{
    struct weir_log_barrier *b;
    switch ((enum weir_item_kind)a->kind) {
    case WEIR_ITEM_APPEND:
        finish_append(log, a);
        break;
    case WEIR_ITEM_STATE:
        finish_state(log, a);
        break;
    case WEIR_ITEM_COPY:
        answer(log, a, WEIR_OK);
        break;
    case WEIR_ITEM_DUPLICATE:
        answer(log, a, WEIR_DUPLICATE);
        break;
    case WEIR_ITEM_BARRIER:
    case WEIR_ITEM_ROLL:
        b = WEIR_CONTAINER(a, struct weir_log_barrier, marker);
        b->done(b);
        break;
    case WEIR_ITEM_ROLLED:
        finish_rolled(log, WEIR_CONTAINER(a, struct weir_rolled, item));
        break;
    case WEIR_ITEM_MENDED:
        finish_mended(log, a);
        break;
    case WEIR_ITEM_FAILED:
        break;
    }
}

void
weir_log_finished(struct weir_log *log)
{
    struct weir_list items, failed;
    struct weir_list *node;
    weir_list_init(&items);
    weir_list_init(&failed);
    weir_commit_take_finished(&log->commit, &items);
    while ((node = weir_list_pop_front(&items))) {
        struct weir_append *a = item_of(node);
        if (a->kind == WEIR_ITEM_FAILED)
            finish_failed(log, WEIR_CONTAINER(a, struct weir_failed, item), &failed);
        else if (a->st && a->kind < WEIR_ITEM_ROLLED)
            weir_list_push_back(&failed, &a->node);
        else
            finish_one(log, a);
    }
    WEIR_ASSERT(weir_list_is_empty(&failed));
    if (log->closing)
        return;
    uint64_t written = atomic_load_explicit(&log->commit.group_bytes, memory_order_relaxed);
    if (!log->prepare_active && written - log->prepare_written >= WEIR_RESERVE_BYTES / 2)
        weir_log_prepare(log);
}

static void
finished_task(struct weir_task *task)
{
    struct weir_log *log = WEIR_CONTAINER(task, struct weir_log, finished);
    if (!log->closing)
        weir_log_finished(log);
}

/* ---- timers ---- */

static void
tick(struct weir_timer *timer)
{
    struct weir_log *log = WEIR_CONTAINER(timer, struct weir_log, tick);
    /* A disk that fails can take longer over an attempt than a tick. */
    if (log->refused && !log->retrying) {
        log->retrying = true;
        weir_commit_retry(&log->commit);
    }
    weir_log_prepare(log);
    weir_seal_next(log);
    weir_keep_tick(log);
    weir_timer_start(log->loop, timer, WEIR_TICK_US);
}

static void
interval_synced(struct weir_log_barrier *b)
{
    WEIR_CONTAINER(b, struct weir_log, interval_barrier)->interval_queued = false;
}

static void
interval(struct weir_timer *timer)
{
    struct weir_log *log = WEIR_CONTAINER(timer, struct weir_log, interval);
    if (!log->interval_queued) {
        log->interval_queued = true;
        log->interval_barrier.done = interval_synced;
        weir_log_barrier(log, &log->interval_barrier);
    }
    weir_timer_start(log->loop, timer, log->config.interval_ms * 1000);
}

/* ---- life ---- */

static enum weir_status
check_config(const struct weir_log_config *c, struct weir_error *err)
{
    if (c->segment_bytes < WEIR_SEGMENT_BYTES_MIN || c->segment_bytes > WEIR_SEGMENT_BYTES_MAX)
        return weir_fail(err, WEIR_INVALID, "segments must be of 1 MiB to 1 GiB");
    if (c->prewrite_bytes > 16 * c->segment_bytes)
        return weir_fail(err, WEIR_INVALID, "at most 16 segments can be written ahead");
    if (c->group_bytes_max < 64 * WEIR_KIB || c->group_bytes_max > WEIR_GROUP_BYTES_MAX)
        return weir_fail(err, WEIR_INVALID, "groups must be of 64 KiB to 16 MiB");
    if (c->durability == WEIR_DURABILITY_INTERVAL && !c->interval_ms)
        return weir_fail(err, WEIR_INVALID, "an interval of 0 ms");
    return WEIR_OK;
}

/* Everything but the journal's contents. */
static enum weir_status
log_new(const struct weir_log_config *config, struct weir_log **out, struct weir_error *err)
{
    struct weir_log *log = calloc(1, sizeof *log);
    if (!log)
        return weir_fail(err, WEIR_NO_MEMORY, "no memory");
    log->config = *config;
    snprintf(log->directory, sizeof log->directory, "%s", config->directory);
    log->config.directory = log->directory;
    log->sys = config->sys;
    log->loop = config->loop;
    log->observer = config->observer;
    log->finished.run = finished_task;
    log->tick.run = tick;
    log->interval.run = interval;
    pthread_mutex_init(&log->mtx, NULL);
    pthread_cond_init(&log->job_ended, NULL);
    weir_list_init(&log->plans);
    weir_index_init(&log->index, config->sys->seed);
    weir_cache_init(&log->cache, config->cache_bytes_max);
    weir_keep_init(log);
    struct weir_commit *c = &log->commit;
    c->clock = config->sys->clock;
    c->loop = config->loop;
    c->pool = config->sys->pool;
    c->task = &log->finished;
    c->journal_number = config->journal;
    c->segment_bytes = config->segment_bytes;
    c->group_bytes_max = config->group_bytes_max;
    c->sync = config->durability == WEIR_DURABILITY_SYNC;
    enum weir_status st = weir_commit_init(c);
    if (!st)
        st = weir_chunks_new(WEIR_CHUNKS_BYTES_MAX, &log->chunks);
    *out = log;
    return st ? weir_fail(err, st, "no memory") : WEIR_OK;
}

static void
log_free(struct weir_log *log)
{
    struct weir_list rest;
    struct weir_list *node;
    weir_list_init(&rest);
    /* Events of a last roll. */
    weir_commit_take_finished(&log->commit, &rest);
    while ((node = weir_list_pop_front(&rest))) {
        WEIR_ASSERT(item_of(node)->kind == WEIR_ITEM_ROLLED);
        free(WEIR_CONTAINER(item_of(node), struct weir_rolled, item));
    }
    weir_read_free_plans(log);
    weir_keep_fini(log);
    size_t cursor = 0;
    struct weir_shard *s;
    while ((s = weir_map_next(&log->index.shards, &cursor)))
        weir_cache_forget(&log->cache, s);
    for (uint32_t i = 0; i < log->index.segment_count; i++)
        weir_seal_free(log->index.segments[i]);
    weir_index_fini(&log->index);
    weir_cache_fini(&log->cache);
    weir_commit_fini(&log->commit);
    weir_chunks_free(log->chunks);
    if (log->journal)
        log->journal->ops->close(log->journal);
    pthread_cond_destroy(&log->job_ended);
    pthread_mutex_destroy(&log->mtx);
    free(log);
}

enum weir_status
weir_log_open(const struct weir_log_config *config, struct weir_log **out,
              struct weir_log_report *report, struct weir_error *err)
{
    struct weir_log *log = NULL;
    struct weir_log_report found = {0};
    uint64_t before = weir_mono_us(config->sys->clock);
    enum weir_status st = check_config(config, err);
    if (st)
        return st;
    st = log_new(config, &log, err);
    if (!st)
        st = weir_journal_local(config->sys->fs, config->directory, config->segment_bytes,
                                config->prewrite_bytes, &log->journal, err);
    if (!st) {
        log->commit.journal = log->journal;
        st = weir_log_recover(log, &found, err);
    }
    if (!st)
        st = weir_commit_start(&log->commit, config->sys->threads);
    if (st)
        goto done;
    weir_log_finished(log); /* the first group may have rolled */
    weir_seal_next(log);
    weir_log_prepare(log);
    weir_timer_start(log->loop, &log->tick, WEIR_TICK_US);
    if (config->durability == WEIR_DURABILITY_INTERVAL)
        weir_timer_start(log->loop, &log->interval, config->interval_ms * 1000);
    found.took_us = weir_mono_us(config->sys->clock) - before;
    if (report)
        *report = found;
    *out = log;
    log = NULL;
done:
    if (log)
        log_free(log);
    return st;
}

/* Jobs that were submitted end before what they work on goes. */
static void
wait_for_jobs(struct weir_log *log)
{
    if (!log->sys->threads) {
        while ((log->jobs_open || log->commit.job_active) && weir_loop_step(log->loop, 1000))
            continue;
        return;
    }
    pthread_mutex_lock(&log->mtx);
    while (log->jobs)
        pthread_cond_wait(&log->job_ended, &log->mtx);
    pthread_mutex_unlock(&log->mtx);
}

void
weir_log_close(struct weir_log *log)
{
    if (!log)
        return;
    struct weir_list cancelled;
    weir_list_init(&cancelled);
    log->closing = true;
    weir_timer_stop(log->loop, &log->tick);
    weir_timer_stop(log->loop, &log->interval);
    weir_commit_take_pending(&log->commit, &cancelled);
    weir_commit_stop(&log->commit);
    wait_for_jobs(log);
    weir_log_finished(log);
    weir_commit_take_pending(&log->commit, &cancelled);
    fail_all(log, &cancelled, WEIR_CANCELLED);
    /* Told to the next start: everything before this was durable, so a bad place is damage. */
    if (!log->refused)
        (void)!weir_commit_mark(&log->commit, WEIR_GROUP_CLOSE);
    log_free(log);
}

uint32_t
weir_log_epoch(const struct weir_log *log)
{
    return log->commit.epoch;
}

void
weir_log_get_stat(const struct weir_log *log, struct weir_log_stat *out)
{
    const struct weir_commit *c = &log->commit;
    *out = log->stat;
    out->groups = atomic_load_explicit(&c->groups, memory_order_relaxed);
    out->group_bytes = atomic_load_explicit(&c->group_bytes, memory_order_relaxed);
    out->syncs = atomic_load_explicit(&c->syncs, memory_order_relaxed);
    out->sync_us_total = atomic_load_explicit(&c->sync_us, memory_order_relaxed);
    out->failed_groups = atomic_load_explicit(&c->failed_groups, memory_order_relaxed);
    out->segments = log->index.segment_count;
    out->live_bytes = log->index.live_bytes;
    out->cache_bytes = log->cache.bytes;
    out->index_bytes = log->index.bytes;
    for (uint32_t i = 0; i < log->index.segment_count; i++) {
        const struct weir_segment *g = log->index.segments[i];
        out->disk_bytes += g->state == WEIR_SEGMENT_SEALED ? g->file_bytes : g->end;
    }
}
