/* Checkpoints: whose word counts is the leases' part, that a position is not ahead of the records
 * is ours. Every set goes by way of the shard's owner, so that sets of one shard keep their order.
 */
#include "service/inside.h"
#include <stdlib.h>

struct setting {
    struct weir_checkpoint_call *call;
    struct weir_lease_change change;
    struct visit visit;
    uint64_t stream, shard;
    struct weir_log_shard numbers; /* of the owner */
    enum weir_status st;
};

static struct setting *
new_setting(struct weir_checkpoint_call *c)
{
    struct setting *w = c->call.work = calloc(1, sizeof *w);
    if (w)
        w->call = c;
    else
        service_answer(&c->call, WEIR_NO_MEMORY);
    return w;
}

static void
changed(struct weir_lease_change *change, enum weir_status st)
{
    struct setting *w = WEIR_CONTAINER(change, struct setting, change);
    struct weir_checkpoint_call *c = w->call;
    c->row = change->row;
    if (st)
        c->call.err = change->err;
    weir_metric_add(c->call.service->metrics, WEIR_METRIC_CHECKPOINTS, st == WEIR_OK);
    weir_metric_add(c->call.service->metrics, WEIR_METRIC_CHECKPOINTS_FENCED, st == WEIR_FENCED);
    service_answer(&c->call, st);
}

/* ---- acquire ---- */

static void
begin_acquire(struct weir_call *call)
{
    struct weir_checkpoint_call *c = WEIR_CONTAINER(call, struct weir_checkpoint_call, call);
    const struct weir_stream *stream = service_find_stream(call, c->stream);
    if (!stream || !service_find_shard(call, stream, c->shard) ||
        !service_check_consumer(call, c->consumer))
        return;
    if (c->owner.len > WEIR_CONSUMER_NAME_MAX) {
        service_refuse(call, WEIR_INVALID, "an owner's name has at most %d bytes",
                       WEIR_CONSUMER_NAME_MAX);
        return;
    }
    struct setting *w = new_setting(c);
    if (!w)
        return;
    w->change.done = changed;
    weir_lease_acquire(call->service->leases, stream->number, c->consumer, c->shard, c->owner,
                       &w->change);
}

void
weir_service_acquire(struct weir_service *s, struct weir_checkpoint_call *c)
{
    service_call(s, &c->call, begin_acquire);
}

/* ---- set ---- */

static void
end_known(struct visit *v)
{
    struct setting *w = WEIR_CONTAINER(v, struct setting, visit);
    struct weir_checkpoint_call *c = w->call;
    struct weir_service *s = c->call.service;
    const struct weir_stream *stream = weir_catalog_find_number(s->catalog, w->stream);
    if (!stream || stream->state == WEIR_STATE_DELETING) {
        service_refuse(&c->call, WEIR_NOT_FOUND, "the stream was deleted meanwhile");
        return;
    }
    const struct weir_shard *shard = &stream->shards[c->shard];
    /* A closed shard's end stands in the catalog, also when its records are gone. */
    uint64_t end = shard->closed_ms ? shard->end : w->numbers.next;
    if (w->st && !shard->closed_ms) {
        service_refuse(&c->call, w->st, "cannot ask for the end of shard %u: %s", c->shard,
                       weir_status_text(w->st));
        return;
    }
    if (c->shard_end && !shard->closed_ms) {
        service_refuse(&c->call, WEIR_INVALID, "shard %u is open: nobody can have read all of it",
                       c->shard);
        return;
    }
    if (c->offset > end) {
        service_refuse(&c->call, WEIR_INVALID,
                       "checkpoint %llu is beyond the end of shard %u, which is %llu",
                       (unsigned long long)c->offset, c->shard, (unsigned long long)end);
        return;
    }
    w->change.done = changed;
    weir_lease_checkpoint(s->leases, w->stream, c->consumer, c->shard, c->epoch,
                          c->shard_end ? end : c->offset, c->shard_end, &w->change);
}

static void
ask_end(struct visit *v)
{
    struct setting *w = WEIR_CONTAINER(v, struct setting, visit);
    w->st = weir_log_shard_get(v->owner->log, w->shard, &w->numbers);
    visit_answer(v);
}

static void
begin_checkpoint(struct weir_call *call)
{
    struct weir_checkpoint_call *c = WEIR_CONTAINER(call, struct weir_checkpoint_call, call);
    const struct weir_stream *stream = service_find_stream(call, c->stream);
    if (!stream || !service_check_consumer(call, c->consumer))
        return;
    if (c->shard >= stream->shard_count) {
        (void)!service_find_shard(call, stream, c->shard);
        return;
    }
    struct setting *w = new_setting(c);
    if (!w)
        return;
    w->stream = stream->number;
    w->shard = stream->shards[c->shard].number;
    w->visit.at_owner = ask_end;
    w->visit.back = end_known;
    visit_start(call->service, w->shard, &w->visit);
}

void
weir_service_checkpoint(struct weir_service *s, struct weir_checkpoint_call *c)
{
    service_call(s, &c->call, begin_checkpoint);
}

/* ---- reset ---- */

static void
begin_reset(struct weir_call *call)
{
    struct weir_checkpoint_call *c = WEIR_CONTAINER(call, struct weir_checkpoint_call, call);
    const struct weir_stream *stream = service_find_stream(call, c->stream);
    if (!stream || !service_check_consumer(call, c->consumer))
        return;
    struct setting *w = new_setting(c);
    if (!w)
        return;
    w->change.done = changed;
    weir_lease_reset(call->service->leases, stream->number, c->consumer, &w->change);
}

void
weir_service_reset_checkpoints(struct weir_service *s, struct weir_checkpoint_call *c)
{
    service_call(s, &c->call, begin_reset);
}

/* ---- get ---- */

struct rows {
    struct weir_checkpoint_row *row;
    size_t count, capacity;
    bool failed;
};

static void
add_row(void *arg, const struct weir_checkpoint_row *row)
{
    struct rows *rows = arg;
    if (rows->count == rows->capacity) {
        size_t capacity = rows->capacity ? 2 * rows->capacity : 16;
        struct weir_checkpoint_row *grown = realloc(rows->row, capacity * sizeof *grown);
        if (!grown) {
            rows->failed = true;
            return;
        }
        rows->row = grown;
        rows->capacity = capacity;
    }
    rows->row[rows->count++] = *row;
}

static void
begin_get(struct weir_call *call)
{
    struct weir_checkpoints_call *c = WEIR_CONTAINER(call, struct weir_checkpoints_call, call);
    const struct weir_stream *stream = service_find_stream(call, c->stream);
    if (!stream || !service_check_consumer(call, c->consumer))
        return;
    struct rows rows = {0};
    weir_lease_each(call->service->leases, stream->number, &c->consumer, add_row, &rows);
    call->work = rows.row;
    c->rows = rows.row;
    c->count = rows.count;
    service_answer(call, rows.failed ? WEIR_NO_MEMORY : WEIR_OK);
}

void
weir_service_get_checkpoints(struct weir_service *s, struct weir_checkpoints_call *c)
{
    service_call(s, &c->call, begin_get);
}
