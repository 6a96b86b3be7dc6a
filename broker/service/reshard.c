/* Splits, merges, and sequences of them.
 *
 *   plan ──> parents close in their owners: their ends are known
 *        ──> catalog: parents closed, children made (durable)
 *        ──> children open in their owners ──> parents are told: ended, and moved
 *
 * A failure before the commit opens the parents again. One whose outcome is not known leaves them
 * closed: opening them could store a record in a shard that is closed after the next start. */
#include "service/inside.h"
#include <stdlib.h>

struct parent {
    struct visit visit;
    struct reshard *reshard;
    struct weir_ingest_close close;
    uint64_t shard;
    enum weir_status st;
};
struct child {
    struct visit visit;
    struct reshard *reshard;
    struct shard_spec spec;
    enum weir_status st;
};
struct reshard {
    struct weir_reshard_call *call;
    struct weir_service *service;
    uint64_t stream;
    bool counting;
    struct weir_reshard plan;
    struct weir_change change;
    uint32_t waiting; /* visits that are out */
    enum weir_status st;
    struct weir_error err;
    struct parent parents[2];
    struct child children[2];
};

static void close_parents(struct reshard *r);

static void
end_reshard(struct reshard *r, enum weir_status st)
{
    struct weir_reshard_call *c = r->call;
    const struct weir_stream *stream = weir_catalog_find_number(r->service->catalog, r->stream);
    if (stream)
        weir_catalog_set_updating(r->service->catalog, r->stream, false);
    c->info = stream;
    if (st)
        c->call.err = r->err;
    service_answer(&c->call, st); /* frees r */
}

/* ---- the way back ---- */

static void
parent_reopened(struct visit *v)
{
    struct reshard *r = WEIR_CONTAINER(v, struct parent, visit)->reshard;
    if (--r->waiting == 0)
        end_reshard(r, r->st);
}

static void
reopen_parent(struct visit *v)
{
    struct parent *p = WEIR_CONTAINER(v, struct parent, visit);
    enum weir_status st = weir_ingest_reopen_shard(v->owner->ingest, p->shard);
    if (st)
        weir_service_log(v->service, 3, "shard %llu takes no records until the next start: %s",
                         (unsigned long long)p->shard, weir_status_text(st));
    visit_answer(v);
}

static void
give_up(struct reshard *r)
{
    r->waiting = r->plan.parent_count;
    for (uint32_t i = 0; i < r->plan.parent_count; i++) {
        struct parent *p = &r->parents[i];
        if (p->st == WEIR_NOT_FOUND) {
            r->waiting--;
            continue;
        }
        p->visit.at_owner = reopen_parent;
        p->visit.back = parent_reopened;
        visit_start(r->service, p->shard, &p->visit);
    }
    if (!r->waiting)
        end_reshard(r, r->st);
}

/* ---- the way on ---- */

static void
next_step(struct reshard *r)
{
    const struct weir_stream *stream = weir_catalog_find_number(r->service->catalog, r->stream);
    if (!r->counting || !stream) {
        end_reshard(r, WEIR_OK);
        return;
    }
    if (r->service->draining) {
        end_reshard(r, weir_fail(&r->err, WEIR_UNAVAILABLE,
                                 "the broker is shutting down, stream '%s' has %u open shards",
                                 stream->name, stream->open_count));
        return;
    }
    enum weir_status st = weir_plan_count_step(stream, r->call->target, &r->plan);
    if (st == WEIR_END) {
        end_reshard(r, WEIR_OK);
        return;
    }
    if (st) {
        end_reshard(r, weir_fail(&r->err, st, "cannot go on to %u shards: %s", r->call->target,
                                 weir_status_text(st)));
        return;
    }
    close_parents(r);
}

static void
parent_told(struct visit *v)
{
    struct reshard *r = WEIR_CONTAINER(v, struct parent, visit)->reshard;
    if (--r->waiting == 0)
        next_step(r);
}

static void
tell_parent(struct visit *v)
{
    struct parent *p = WEIR_CONTAINER(v, struct parent, visit);
    weir_fanout_end_shard(v->owner->fanout, p->shard, p->close.end);
    weir_ingest_drop_shard(v->owner->ingest, p->shard);
    visit_answer(v);
}

static void
child_opened(struct visit *v)
{
    struct child *child = WEIR_CONTAINER(v, struct child, visit);
    struct reshard *r = child->reshard;
    if (child->st)
        weir_service_log(r->service, 3,
                         "shard %llu was made but cannot be used until the next start: %s",
                         (unsigned long long)child->spec.shard, weir_status_text(child->st));
    if (--r->waiting)
        return;
    r->waiting = r->plan.parent_count;
    for (uint32_t i = 0; i < r->plan.parent_count; i++) {
        struct parent *p = &r->parents[i];
        p->visit.at_owner = tell_parent;
        p->visit.back = parent_told;
        visit_start(r->service, p->shard, &p->visit);
    }
}

static void
open_child(struct visit *v)
{
    struct child *child = WEIR_CONTAINER(v, struct child, visit);
    child->st = service_declare(v->owner, &child->spec);
    visit_answer(v);
}

static void
committed(struct weir_change *change, enum weir_status st)
{
    struct reshard *r = WEIR_CONTAINER(change, struct reshard, change);
    if (st == WEIR_UNKNOWN) {
        weir_service_log(
            r->service, 3,
            "a reshard of stream %llu was written, but whether it is on disk is not known: its "
            "closed shards take no records until the next start",
            (unsigned long long)r->stream);
        r->err = change->err;
        end_reshard(r, st);
        return;
    }
    if (st) {
        r->st = st;
        r->err = change->err;
        give_up(r);
        return;
    }
    const struct weir_stream *stream = change->stream;
    const struct weir_shard *parent = &stream->shards[r->plan.parent[0]];
    struct weir_reshard_call *c = r->call;
    c->child_count = r->plan.child_count;
    r->waiting = r->plan.child_count;
    for (uint32_t i = 0; i < r->plan.child_count; i++) {
        struct child *child = &r->children[i];
        WEIR_ASSERT(parent->child[i] >= 0 && (uint32_t)parent->child[i] < stream->shard_count);
        c->child[i] = (uint32_t)parent->child[i];
        child->reshard = r;
        child->spec = service_shard_spec(stream, &stream->shards[parent->child[i]]);
        child->visit.at_owner = open_child;
        child->visit.back = child_opened;
        visit_start(r->service, child->spec.shard, &child->visit);
    }
}

static void
parent_closed(struct visit *v)
{
    struct parent *p = WEIR_CONTAINER(v, struct parent, visit);
    struct reshard *r = p->reshard;
    if (p->st && !r->st)
        r->st = weir_fail(&r->err, p->st, "cannot close shard %llu: %s",
                          (unsigned long long)p->shard, weir_status_text(p->st));
    if (--r->waiting)
        return;
    if (r->st) {
        give_up(r);
        return;
    }
    uint64_t ends[2] = {0};
    for (uint32_t i = 0; i < r->plan.parent_count; i++)
        ends[i] = r->parents[i].close.end;
    r->change = (struct weir_change){.done = committed};
    weir_catalog_reshard(r->service->catalog, r->stream, &r->plan, ends, &r->change);
}

static void
parent_drained(struct weir_ingest_close *close, enum weir_status st)
{
    struct parent *p = WEIR_CONTAINER(close, struct parent, close);
    p->st = st;
    visit_answer(&p->visit);
}

static void
close_parent(struct visit *v)
{
    struct parent *p = WEIR_CONTAINER(v, struct parent, visit);
    weir_ingest_close_shard(v->owner->ingest, &p->close);
}

static void
close_parents(struct reshard *r)
{
    const struct weir_stream *stream = weir_catalog_find_number(r->service->catalog, r->stream);
    r->waiting = r->plan.parent_count;
    for (uint32_t i = 0; i < r->plan.parent_count; i++) {
        struct parent *p = &r->parents[i];
        *p = (struct parent){.reshard = r, .shard = stream->shards[r->plan.parent[i]].number};
        p->close.shard = p->shard;
        p->close.done = parent_drained;
        p->visit.at_owner = close_parent;
        p->visit.back = parent_closed;
        visit_start(r->service, p->shard, &p->visit);
    }
}

/* ---- what was asked for ---- */

/* The stream, where it may be resharded. NULL: the call was answered. */
static const struct weir_stream *
find(struct weir_reshard_call *c)
{
    if (!service_check_change(&c->call))
        return NULL;
    const struct weir_stream *stream = service_find_stream(&c->call, c->stream);
    if (stream && stream->state != WEIR_STATE_ACTIVE) {
        service_refuse(&c->call, WEIR_BUSY, "stream '%s' is not ACTIVE: it is being changed",
                       stream->name);
        return NULL;
    }
    return stream;
}

static void
start(struct weir_reshard_call *c, const struct weir_stream *stream,
      const struct weir_reshard *plan)
{
    struct reshard *r = calloc(1, sizeof *r);
    if (!r) {
        service_answer(&c->call, WEIR_NO_MEMORY);
        return;
    }
    c->call.work = r;
    r->call = c;
    r->service = c->call.service;
    r->stream = stream->number;
    weir_catalog_set_updating(r->service->catalog, r->stream, true);
    if (c->accepted)
        c->accepted(&c->call);
    if (plan) {
        r->plan = *plan;
        close_parents(r);
    } else {
        r->counting = true;
        next_step(r);
    }
}

static void
begin_split(struct weir_call *call)
{
    struct weir_reshard_call *c = WEIR_CONTAINER(call, struct weir_reshard_call, call);
    const struct weir_stream *stream = find(c);
    if (!stream || !service_find_shard(call, stream, c->shard))
        return;
    struct weir_reshard plan;
    enum weir_status st =
        weir_plan_split(stream, c->shard, c->has_at ? &c->at : NULL, &plan, &call->err);
    if (st)
        service_answer(call, st);
    else
        start(c, stream, &plan);
}

static void
begin_merge(struct weir_call *call)
{
    struct weir_reshard_call *c = WEIR_CONTAINER(call, struct weir_reshard_call, call);
    const struct weir_stream *stream = find(c);
    if (!stream || !service_find_shard(call, stream, c->shard) ||
        !service_find_shard(call, stream, c->adjacent))
        return;
    struct weir_reshard plan;
    enum weir_status st = weir_plan_merge(stream, c->shard, c->adjacent, &plan, &call->err);
    if (st)
        service_answer(call, st);
    else
        start(c, stream, &plan);
}

static void
begin_count(struct weir_call *call)
{
    struct weir_reshard_call *c = WEIR_CONTAINER(call, struct weir_reshard_call, call);
    const struct weir_stream *stream = find(c);
    if (!stream)
        return;
    enum weir_status st = weir_plan_check_count(stream, c->target, &call->err);
    if (st)
        service_answer(call, st);
    else
        start(c, stream, NULL);
}

void
weir_service_split(struct weir_service *s, struct weir_reshard_call *c)
{
    service_call(s, &c->call, begin_split);
}

void
weir_service_merge(struct weir_service *s, struct weir_reshard_call *c)
{
    service_call(s, &c->call, begin_merge);
}

void
weir_service_update_shard_count(struct weir_service *s, struct weir_reshard_call *c)
{
    service_call(s, &c->call, begin_count);
}
