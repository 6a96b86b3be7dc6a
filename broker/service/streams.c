/* Streams: made, deleted, listed, described, and how long they keep records. */
#include "service/inside.h"
#include <stdlib.h>

#define LIST_DEFAULT 1000
#define DESCRIBE_DEFAULT 1000
#define DESCRIBE_MAX WEIR_SHARDS_PER_STREAM_MAX

/* ---- create ---- */

struct creation {
    struct weir_create_call *call;
    struct weir_change change;
    struct gather *gather;
    uint64_t stream;
    uint32_t count;
    _Atomic int failed; /* enum weir_status of an owner that could not */
    struct shard_spec *shards;
};

static void
end_create(struct creation *w, enum weir_status st)
{
    struct weir_create_call *c = w->call;
    c->stream = st ? NULL : weir_catalog_find_number(c->call.service->catalog, w->stream);
    gather_free(w->gather);
    free(w->shards);
    service_answer(&c->call, st); /* frees w */
}

static void
create_at_owner(struct gather_leg *leg)
{
    struct creation *w = leg->gather->arg;
    for (uint32_t i = 0; i < w->count; i++) {
        if (service_owner_of(leg->gather->service, w->shards[i].shard) != leg->owner->index)
            continue;
        enum weir_status st = service_declare(leg->owner, &w->shards[i]);
        if (st)
            atomic_store(&w->failed, (int)st);
    }
    gather_answer(leg);
}

static void
created(struct gather *g)
{
    struct creation *w = g->arg;
    enum weir_status st = (enum weir_status)atomic_load(&w->failed);
    if (st)
        (void)!weir_fail(&w->call->call.err, st,
                         "the stream was made, but not all of its shards can be used: %s",
                         weir_status_text(st));
    end_create(w, st);
}

static void
create_durable(struct weir_change *change, enum weir_status st)
{
    struct creation *w = WEIR_CONTAINER(change, struct creation, change);
    if (st) {
        w->call->call.err = change->err;
        end_create(w, st);
        return;
    }
    const struct weir_stream *stream = change->stream;
    w->stream = stream->number;
    w->count = stream->shard_count;
    for (uint32_t i = 0; i < w->count; i++)
        w->shards[i] = service_shard_spec(stream, &stream->shards[i]);
    gather_start(w->gather, gather_all(w->call->call.service));
}

static void
begin_create(struct weir_call *call)
{
    struct weir_create_call *c = WEIR_CONTAINER(call, struct weir_create_call, call);
    struct weir_service *s = call->service;
    if (!service_check_change(call))
        return;
    struct weir_stream_spec spec = c->spec;
    if (!spec.retention_ms)
        spec.retention_ms = s->default_retention_ms;
    if (spec.shard_count < 1 || spec.shard_count > WEIR_SHARDS_PER_STREAM_MAX) {
        service_refuse(call, WEIR_INVALID, "a stream has 1 to %d shards",
                       WEIR_SHARDS_PER_STREAM_MAX);
        return;
    }
    struct creation *w = calloc(1, sizeof *w);
    call->work = w;
    if (w) {
        w->shards = calloc(spec.shard_count, sizeof *w->shards);
        w->gather = gather_new(s);
        w->call = c;
    }
    if (!w || !w->shards || !w->gather) {
        if (w) {
            gather_free(w->gather);
            free(w->shards);
        }
        service_answer(call, WEIR_NO_MEMORY);
        return;
    }
    w->gather->arg = w;
    w->gather->at_owner = create_at_owner;
    w->gather->joined = created;
    w->change.done = create_durable;
    weir_catalog_create(s->catalog, &spec, &w->change);
}

void
weir_service_create(struct weir_service *s, struct weir_create_call *c)
{
    service_call(s, &c->call, begin_create);
}

/* ---- delete ---- */

struct deleting {
    struct weir_delete_call *call;
    struct weir_change change;
    uint64_t stream;
};

static void
deleting_durable(struct weir_change *change, enum weir_status st)
{
    struct deleting *w = WEIR_CONTAINER(change, struct deleting, change);
    struct weir_delete_call *c = w->call;
    if (st) {
        c->call.err = change->err;
        service_answer(&c->call, st);
        return;
    }
    if (c->accepted)
        c->accepted(&c->call);
    const struct weir_stream *stream =
        weir_catalog_find_number(c->call.service->catalog, w->stream);
    WEIR_ASSERT(stream);
    service_finish_delete(c->call.service, stream, true, &c->call);
}

static void
begin_delete(struct weir_call *call)
{
    struct weir_delete_call *c = WEIR_CONTAINER(call, struct weir_delete_call, call);
    if (!service_check_change(call))
        return;
    const struct weir_stream *stream = service_find_stream(call, c->stream);
    if (!stream)
        return;
    if (stream->state != WEIR_STATE_ACTIVE) {
        service_refuse(call, WEIR_BUSY, "stream '%s' is not ACTIVE: it is being changed",
                       stream->name);
        return;
    }
    struct deleting *w = calloc(1, sizeof *w);
    if (!w) {
        service_answer(call, WEIR_NO_MEMORY);
        return;
    }
    call->work = w;
    w->call = c;
    w->stream = stream->number;
    w->change.done = deleting_durable;
    weir_catalog_begin_delete(call->service->catalog, stream->number, &w->change);
}

void
weir_service_delete(struct weir_service *s, struct weir_delete_call *c)
{
    service_call(s, &c->call, begin_delete);
}

/* ---- list ---- */

static void
begin_list(struct weir_call *call)
{
    struct weir_list_call *c = WEIR_CONTAINER(call, struct weir_list_call, call);
    const struct weir_catalog *catalog = call->service->catalog;
    size_t limit = c->limit ? c->limit : LIST_DEFAULT;
    if (limit > WEIR_STREAMS_MAX)
        limit = WEIR_STREAMS_MAX;
    size_t room = weir_catalog_count(catalog) < limit ? weir_catalog_count(catalog) : limit;
    c->streams = call->work = calloc(room + 1, sizeof(const struct weir_stream *));
    if (!c->streams) {
        service_answer(call, WEIR_NO_MEMORY);
        return;
    }
    const struct weir_stream *stream = weir_catalog_next(catalog, c->after);
    for (; stream && c->count < room;
         stream = weir_catalog_next(catalog, weir_bytes_of(stream->name)))
        c->streams[c->count++] = stream;
    c->more = stream != NULL;
    service_answer(call, WEIR_OK);
}

void
weir_service_list(struct weir_service *s, struct weir_list_call *c)
{
    c->count = 0;
    service_call(s, &c->call, begin_list);
}

/* ---- describe ---- */

struct description {
    struct weir_describe_call *call;
    uint64_t stream;
    struct {
        uint32_t index;
        uint64_t shard;
        bool has_numbers;
        struct weir_log_shard numbers;
    } * asked;
    struct weir_shard_view views[]; /* results */
};

static void
end_describe(struct description *w)
{
    struct weir_describe_call *c = w->call;
    const struct weir_stream *stream =
        weir_catalog_find_number(c->call.service->catalog, w->stream);
    size_t count = 0;
    for (size_t i = 0; stream && i < c->count; i++) {
        const struct weir_shard *shard = &stream->shards[w->asked[i].index];
        if (!shard->expired) /* meanwhile */
            w->views[count++] =
                (struct weir_shard_view){shard, w->asked[i].has_numbers, w->asked[i].numbers};
    }
    free(w->asked);
    c->info = stream;
    c->shards = w->views;
    c->count = count;
    if (stream)
        service_answer(&c->call, WEIR_OK);
    else
        service_refuse(&c->call, WEIR_NOT_FOUND, "the stream was deleted meanwhile");
}

static void
describe_at_owner(struct gather_leg *leg)
{
    struct description *w = leg->gather->arg;
    for (size_t i = 0; i < w->call->count; i++)
        if (service_owner_of(leg->gather->service, w->asked[i].shard) == leg->owner->index)
            w->asked[i].has_numbers =
                !weir_log_shard_get(leg->owner->log, w->asked[i].shard, &w->asked[i].numbers);
    gather_answer(leg);
}

static void
described(struct gather *g)
{
    struct description *w = g->arg;
    gather_free(g);
    end_describe(w);
}

static void
begin_describe(struct weir_call *call)
{
    struct weir_describe_call *c = WEIR_CONTAINER(call, struct weir_describe_call, call);
    struct weir_service *s = call->service;
    /* One that is being deleted is shown as such. */
    const struct weir_stream *stream = weir_catalog_find(s->catalog, c->stream);
    if (!stream) {
        (void)!service_find_stream(call, c->stream);
        return;
    }
    size_t limit = c->limit ? c->limit : DESCRIBE_DEFAULT;
    if (limit > DESCRIBE_MAX)
        limit = DESCRIBE_MAX;
    size_t room = stream->shard_count > c->first_shard ? stream->shard_count - c->first_shard : 0;
    if (room > limit)
        room = limit;
    struct description *w = calloc(1, sizeof *w + room * sizeof w->views[0]);
    struct gather *g = c->with_numbers ? gather_new(s) : NULL;
    if (w)
        w->asked = calloc(room + 1, sizeof *w->asked);
    call->work = w;
    if (!w || !w->asked || (c->with_numbers && !g)) {
        if (w)
            free(w->asked);
        gather_free(g);
        service_answer(call, WEIR_NO_MEMORY);
        return;
    }
    w->call = c;
    w->stream = stream->number;
    uint64_t owners = 0;
    uint32_t i = c->first_shard;
    for (; i < stream->shard_count && c->count < room; i++) {
        const struct weir_shard *shard = &stream->shards[i];
        if (shard->expired)
            continue;
        w->asked[c->count].index = i;
        w->asked[c->count++].shard = shard->number;
        owners |= UINT64_C(1) << service_owner_of(s, shard->number);
    }
    for (; i < stream->shard_count && !c->more; i++)
        c->more = !stream->shards[i].expired;
    if (!g) {
        end_describe(w);
        return;
    }
    g->arg = w;
    g->at_owner = describe_at_owner;
    g->joined = described;
    gather_start(g, stream->state == WEIR_STATE_DELETING ? 0 : owners);
}

void
weir_service_describe(struct weir_service *s, struct weir_describe_call *c)
{
    c->count = 0;
    c->more = false;
    service_call(s, &c->call, begin_describe);
}

/* ---- retention ---- */

struct retaining {
    struct weir_retention_call *call;
    struct weir_change change;
    struct gather *gather;
    uint64_t stream, retention_ms, retention_bytes;
    uint32_t count;
    uint64_t *shards;
};

static void
end_retention(struct retaining *w, enum weir_status st)
{
    struct weir_retention_call *c = w->call;
    c->info = weir_catalog_find_number(c->call.service->catalog, w->stream);
    gather_free(w->gather);
    free(w->shards);
    service_answer(&c->call, st);
}

static void
retain_at_owner(struct gather_leg *leg)
{
    struct retaining *w = leg->gather->arg;
    for (uint32_t i = 0; i < w->count; i++)
        if (service_owner_of(leg->gather->service, w->shards[i]) == leg->owner->index)
            /* NOT_FOUND: expired meanwhile. */
            (void)!weir_log_set_retention(leg->owner->log, w->shards[i], w->retention_ms,
                                          w->retention_bytes);
    gather_answer(leg);
}

static void
retained(struct gather *g)
{
    end_retention(g->arg, WEIR_OK);
}

static void
retention_durable(struct weir_change *change, enum weir_status st)
{
    struct retaining *w = WEIR_CONTAINER(change, struct retaining, change);
    const struct weir_stream *stream = change->stream;
    if (!st) {
        w->shards = calloc(stream->shard_count, sizeof *w->shards);
        if (!w->shards)
            st = weir_fail(
                &change->err, WEIR_NO_MEMORY,
                "the retention was recorded, but holds from the next start on: no memory");
    }
    if (st) {
        w->call->call.err = change->err;
        end_retention(w, st);
        return;
    }
    w->retention_ms = stream->retention_ms;
    w->retention_bytes = stream->retention_bytes;
    for (uint32_t i = 0; i < stream->shard_count; i++)
        if (!stream->shards[i].expired)
            w->shards[w->count++] = stream->shards[i].number;
    gather_start(w->gather, gather_all(w->call->call.service));
}

static void
begin_retention(struct weir_call *call)
{
    struct weir_retention_call *c = WEIR_CONTAINER(call, struct weir_retention_call, call);
    struct weir_service *s = call->service;
    if (!service_check_change(call))
        return;
    const struct weir_stream *stream = service_find_stream(call, c->stream);
    if (!stream)
        return;
    struct retaining *w = calloc(1, sizeof *w);
    call->work = w;
    if (w)
        w->gather = gather_new(s);
    if (!w || !w->gather) {
        service_answer(call, WEIR_NO_MEMORY);
        return;
    }
    w->call = c;
    w->stream = stream->number;
    w->gather->arg = w;
    w->gather->at_owner = retain_at_owner;
    w->gather->joined = retained;
    uint64_t ms = c->retention_ms ? c->retention_ms : stream->retention_ms;
    uint64_t bytes = c->retention_bytes == UINT64_MAX ? 0
                     : c->retention_bytes             ? c->retention_bytes
                                                      : stream->retention_bytes;
    w->change.done = retention_durable;
    weir_catalog_set_retention(s->catalog, stream->number, ms, bytes, &w->change);
}

void
weir_service_set_retention(struct weir_service *s, struct weir_retention_call *c)
{
    service_call(s, &c->call, begin_retention);
}
