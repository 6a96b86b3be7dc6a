/* Shards in their owners: declared, deleted, expired. */
#include "service/inside.h"
#include <stdlib.h>

#define EXPIRE_AT_ONCE_MAX 4096

struct shard_spec
service_shard_spec(const struct weir_stream *stream, const struct weir_shard *shard)
{
    return (struct shard_spec){
        .stream = stream->number,
        .shard = shard->number,
        .retention_ms = stream->retention_ms,
        .retention_bytes = stream->retention_bytes,
        .record_bytes_max = stream->record_bytes_max,
        .end = shard->end,
        .range = shard->range,
        .closed = shard->closed_ms != 0,
    };
}

enum weir_status
service_declare(struct weir_owner *owner, const struct shard_spec *spec)
{
    enum weir_status st = weir_log_shard_add(owner->log, spec->stream, spec->shard,
                                             spec->retention_ms, spec->retention_bytes);
    if (st)
        return st;
    st = weir_fanout_add_shard(owner->fanout, spec->shard);
    if (st)
        return st;
    if (spec->closed) {
        weir_fanout_end_shard(owner->fanout, spec->shard, spec->end);
        return WEIR_OK;
    }
    return weir_ingest_open_shard(owner->ingest, &(struct weir_ingest_shard){
                                                     .stream = spec->stream,
                                                     .shard = spec->shard,
                                                     .range = spec->range,
                                                     .record_bytes_max = spec->record_bytes_max,
                                                 });
}

static void
withdraw(struct weir_owner *owner, uint64_t shard)
{
    weir_ingest_drop_shard(owner->ingest, shard);
    weir_fanout_drop_shard(owner->fanout, shard);
    /* NOT_FOUND: it went before. */
    (void)!weir_log_shard_drop(owner->log, shard);
}

/* ---- deletion ----
 *
 *   DELETING is durable ──> owners let the shards go ──> checkpoints go ──> the stream's row goes
 *
 * A crash in between: the shards are not declared again, so the journals drop them, and the rest is
 * done after the start. */

struct deletion {
    struct weir_service *service;
    uint64_t stream;
    struct weir_call *call;
    struct weir_lease_change leases;
    struct weir_change change;
    size_t count;
    uint64_t shards[];
};

static void
end_delete(struct deletion *d, enum weir_status st, const char *text)
{
    struct weir_service *s = d->service;
    if (st)
        weir_service_log(s, 3, "stream %llu stays in deletion until the next start: %s: %s",
                         (unsigned long long)d->stream, weir_status_text(st), text);
    if (d->call && st)
        service_refuse(d->call, st, "%s", text);
    else if (d->call)
        service_answer(d->call, WEIR_OK);
    free(d);
    service_leave(s);
}

static void
row_gone(struct weir_change *change, enum weir_status st)
{
    struct deletion *d = WEIR_CONTAINER(change, struct deletion, change);
    end_delete(d, st, change->err.text);
}

static void
checkpoints_gone(struct weir_lease_change *change, enum weir_status st)
{
    struct deletion *d = WEIR_CONTAINER(change, struct deletion, leases);
    if (st) {
        end_delete(d, st, change->err.text);
        return;
    }
    d->change.done = row_gone;
    weir_catalog_finish_delete(d->service->catalog, d->stream, &d->change);
}

static void
drop_checkpoints(struct deletion *d)
{
    d->leases.done = checkpoints_gone;
    weir_lease_drop_stream(d->service->leases, d->stream, &d->leases);
}

static void
delete_at_owner(struct gather_leg *leg)
{
    struct deletion *d = leg->gather->arg;
    for (size_t i = 0; i < d->count; i++)
        if (service_owner_of(d->service, d->shards[i]) == leg->owner->index)
            withdraw(leg->owner, d->shards[i]);
    gather_answer(leg);
}

static void
shards_gone(struct gather *g)
{
    struct deletion *d = g->arg;
    gather_free(g);
    drop_checkpoints(d);
}

void
service_finish_delete(struct weir_service *s, const struct weir_stream *stream, bool declared,
                      struct weir_call *call)
{
    service_enter(s);
    struct deletion *d = calloc(1, sizeof *d + stream->shard_count * sizeof d->shards[0]);
    struct gather *g = gather_new(s);
    if (!d || !g) {
        free(d);
        gather_free(g);
        weir_service_log(s, 3, "stream '%s' stays in deletion until the next start: no memory",
                         stream->name);
        if (call)
            service_answer(call, WEIR_NO_MEMORY);
        service_leave(s);
        return;
    }
    d->service = s;
    d->stream = stream->number;
    d->call = call;
    for (uint32_t i = 0; declared && i < stream->shard_count; i++)
        if (!stream->shards[i].expired)
            d->shards[d->count++] = stream->shards[i].number;
    g->arg = d;
    g->at_owner = delete_at_owner;
    g->joined = shards_gone;
    gather_start(g, d->count ? gather_all(s) : 0);
}

/* ---- expiry ----
 *
 *   closed for longer than retention? ──> its owner: is everything of it trimmed? ──> catalog:
 * expired ──> owner: drop */

struct expiring {
    uint64_t stream, shard;
    uint32_t index;
    bool gone, expired;
};
struct expiry {
    struct weir_service *service;
    struct gather *gather;
    struct weir_change change;
    size_t at, limit; /* the stream in work: items[at, limit) */
    size_t count;
    struct expiring items[EXPIRE_AT_ONCE_MAX];
    uint32_t indexes[EXPIRE_AT_ONCE_MAX];
};

static void
end_expiry(struct expiry *e)
{
    struct weir_service *s = e->service;
    gather_free(e->gather);
    free(e);
    s->expiring = false;
    service_leave(s);
}

static void
expiry_dropped(struct gather *g)
{
    end_expiry(g->arg);
}

static void
drop_at_owner(struct gather_leg *leg)
{
    struct expiry *e = leg->gather->arg;
    for (size_t i = 0; i < e->count; i++)
        if (e->items[i].expired &&
            service_owner_of(e->service, e->items[i].shard) == leg->owner->index)
            withdraw(leg->owner, e->items[i].shard);
    gather_answer(leg);
}

static void expire_next_stream(struct expiry *e);

static void
stream_expired(struct weir_change *change, enum weir_status st)
{
    struct expiry *e = WEIR_CONTAINER(change, struct expiry, change);
    for (size_t i = e->at; i < e->limit; i++)
        e->items[i].expired = e->items[i].gone && !st;
    /* BUSY, NOT_FOUND: the stream is on its way to something else; the next look sees. */
    e->at = e->limit;
    expire_next_stream(e);
}

static void
expire_next_stream(struct expiry *e)
{
    struct weir_service *s = e->service;
    while (e->at < e->count) {
        uint64_t stream = e->items[e->at].stream;
        size_t count = 0;
        for (e->limit = e->at; e->limit < e->count && e->items[e->limit].stream == stream;
             e->limit++)
            if (e->items[e->limit].gone)
                e->indexes[count++] = e->items[e->limit].index;
        if (count) {
            e->change = (struct weir_change){.done = stream_expired};
            weir_catalog_expire(s->catalog, stream, e->indexes, count, &e->change);
            return;
        }
        e->at = e->limit;
    }
    uint64_t owners = 0;
    for (size_t i = 0; i < e->count; i++)
        if (e->items[i].expired)
            owners |= UINT64_C(1) << service_owner_of(s, e->items[i].shard);
    e->gather->at_owner = drop_at_owner;
    e->gather->joined = expiry_dropped;
    gather_start(e->gather, owners);
}

static void
look_at_owner(struct gather_leg *leg)
{
    struct expiry *e = leg->gather->arg;
    for (size_t i = 0; i < e->count; i++) {
        struct expiring *item = &e->items[i];
        struct weir_log_shard shard;
        if (service_owner_of(e->service, item->shard) != leg->owner->index)
            continue;
        enum weir_status st = weir_log_shard_get(leg->owner->log, item->shard, &shard);
        item->gone = st == WEIR_NOT_FOUND || (!st && shard.oldest >= shard.next);
    }
    gather_answer(leg);
}

static void
looked(struct gather *g)
{
    expire_next_stream(g->arg);
}

static void
collect(struct expiry *e, const struct weir_stream *stream, uint64_t now_ms)
{
    for (uint32_t i = 0; i < stream->shard_count && e->count < EXPIRE_AT_ONCE_MAX; i++) {
        const struct weir_shard *shard = &stream->shards[i];
        if (!shard->closed_ms || shard->expired || shard->closed_ms + stream->retention_ms > now_ms)
            continue;
        e->items[e->count++] =
            (struct expiring){.stream = stream->number, .shard = shard->number, .index = i};
    }
}

void
service_expire(struct weir_service *s)
{
    if (s->expiring || s->draining)
        return;
    struct expiry *e = NULL;
    uint64_t now_ms = weir_loop_now_ms(s->loop);
    const struct weir_stream *stream = weir_catalog_next(s->catalog, weir_bytes("", 0));
    for (; stream; stream = weir_catalog_next(s->catalog, weir_bytes_of(stream->name))) {
        if (stream->state != WEIR_STATE_ACTIVE || stream->open_count == stream->shard_count)
            continue;
        if (!e && !(e = calloc(1, sizeof *e)))
            return; /* the next look may have memory */
        collect(e, stream, now_ms);
    }
    if (!e || !e->count || !(e->gather = gather_new(s))) {
        free(e);
        return;
    }
    s->expiring = true;
    service_enter(s);
    e->service = s;
    e->gather->arg = e;
    e->gather->at_owner = look_at_owner;
    e->gather->joined = looked;
    uint64_t owners = 0;
    for (size_t i = 0; i < e->count; i++)
        owners |= UINT64_C(1) << service_owner_of(s, e->items[i].shard);
    gather_start(e->gather, owners);
}
