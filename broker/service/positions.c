/* Where to write, and where to begin to read. */
#include "record/sequence.h"
#include "service/inside.h"
#include <stdlib.h>

/* ---- producers ---- */

static void
begin_find_producer(struct weir_call *call)
{
    struct weir_producer_call *c = WEIR_CONTAINER(call, struct weir_producer_call, call);
    if (!service_check_change(call))
        return;
    const struct weir_stream *stream = service_find_stream(call, c->stream);
    const struct weir_shard *shard = stream ? service_find_shard(call, stream, c->shard) : NULL;
    if (!shard)
        return;
    /* A closed one too: a retry of what is stored there is answered by its owner. */
    c->owner = service_owner_of(call->service, shard->number);
    c->stream_number = stream->number;
    c->shard_number = shard->number;
    c->record_bytes_max = stream->record_bytes_max;
    c->closed = shard->closed_ms != 0;
    service_answer(call, WEIR_OK);
}

void
weir_service_find_producer(struct weir_service *s, struct weir_producer_call *c)
{
    service_call(s, &c->call, begin_find_producer);
}

/* ---- one position ---- */

struct start {
    enum weir_start_kind kind;
    uint64_t offset, at_ms;
    bool from_checkpoint;
};

/* A sequence number names a shard and its making: one of another shard, or of a stream that had the
 * name before, is refused. One that is well formed and not stored is fine. False: answered. */
static bool
start_at_sequence(struct weir_call *call, const struct weir_stream *stream,
                  const struct weir_shard *shard, const struct weir_position_spec *spec,
                  struct start *out)
{
    struct weir_sequence sequence;
    int len = service_shown(spec->sequence, 64);
    const char *text = (const char *)spec->sequence.data;
    if (weir_sequence_parse(spec->sequence, &sequence)) {
        service_refuse(call, WEIR_INVALID, "'%.*s' is not a sequence number", len, text);
        return false;
    }
    if (sequence.shard_index != shard->index) {
        service_refuse(call, WEIR_INVALID,
                       "sequence number '%.*s' is of shard %u, but was used with shard %u", len,
                       text, sequence.shard_index, shard->index);
        return false;
    }
    if (sequence.shard_created_s != shard->created_ms / 1000) {
        service_refuse(call, WEIR_INVALID, "sequence number '%.*s' did not come from stream '%s'",
                       len, text, stream->name);
        return false;
    }
    bool after = spec->kind == WEIR_AFTER_SEQUENCE;
    if (sequence.offset >= WEIR_SEQUENCE_OFFSET_END) {
        if (after || !shard->closed_ms) {
            service_refuse(call, WEIR_INVALID,
                           "sequence number '%.*s' is the last a shard can have", len, text);
            return false;
        }
        *out = (struct start){.kind = WEIR_START_OFFSET, .offset = shard->end};
        return true;
    }
    *out = (struct start){.kind = WEIR_START_OFFSET, .offset = sequence.offset + after};
    return true;
}

static bool
start_at_checkpoint(struct weir_call *call, const struct weir_stream *stream,
                    const struct weir_shard *shard, struct weir_bytes consumer,
                    const struct weir_position_spec *spec, struct start *out)
{
    const struct weir_checkpoint_row *row =
        weir_lease_find(call->service->leases, stream->number, consumer, shard->index);
    if (row && row->set) {
        *out =
            (struct start){.kind = WEIR_START_OFFSET,
                           .offset = row->shard_end && shard->closed_ms ? shard->end : row->offset,
                           .from_checkpoint = true};
        return true;
    }
    if (spec->otherwise != WEIR_AT_OLDEST && spec->otherwise != WEIR_AT_LATEST) {
        service_refuse(call, WEIR_INVALID,
                       "without a checkpoint a consumer starts at OLDEST or LATEST");
        return false;
    }
    out->kind = spec->otherwise == WEIR_AT_LATEST ? WEIR_START_LATEST : WEIR_START_OLDEST;
    return true;
}

/* False: the call was answered. */
static bool
find_start(struct weir_call *call, const struct weir_stream *stream, const struct weir_shard *shard,
           struct weir_bytes consumer, const struct weir_position_spec *spec, struct start *out)
{
    *out = (struct start){0};
    switch (spec->kind) {
    case WEIR_AT_OLDEST:
        out->kind = WEIR_START_OLDEST;
        return true;
    case WEIR_AT_LATEST:
        out->kind = WEIR_START_LATEST;
        return true;
    case WEIR_AT_OFFSET:
    case WEIR_AFTER_OFFSET:
        if (spec->offset >= WEIR_SEQUENCE_OFFSET_END)
            break;
        out->kind = WEIR_START_OFFSET;
        out->offset = spec->offset + (spec->kind == WEIR_AFTER_OFFSET);
        return true;
    case WEIR_AT_TIME:
        out->kind = WEIR_START_TIME;
        out->at_ms = spec->at_ms;
        return true;
    case WEIR_AT_CHECKPOINT:
        return start_at_checkpoint(call, stream, shard, consumer, spec, out);
    case WEIR_AT_SEQUENCE:
    case WEIR_AFTER_SEQUENCE:
        return start_at_sequence(call, stream, shard, spec, out);
    case WEIR_POSITION_KINDS:
        break;
    }
    service_refuse(call, WEIR_INVALID, "a position is not one of those that exist");
    return false;
}

/* A name, where one is given or needed. False: answered. */
static bool
check_name(struct weir_call *call, struct weir_bytes consumer,
           const struct weir_position_spec *spec)
{
    if (!consumer.len && spec->kind != WEIR_AT_CHECKPOINT)
        return true;
    return service_check_consumer(call, consumer);
}

static void
begin_find_start(struct weir_call *call)
{
    struct weir_start_call *c = WEIR_CONTAINER(call, struct weir_start_call, call);
    const struct weir_stream *stream = service_find_stream(call, c->stream);
    const struct weir_shard *shard = stream ? service_find_shard(call, stream, c->shard) : NULL;
    struct start start;
    if (!shard || !check_name(call, c->consumer, &c->position) ||
        !find_start(call, stream, shard, c->consumer, &c->position, &start))
        return;
    c->owner = service_owner_of(call->service, shard->number);
    c->stream_number = stream->number;
    c->shard_number = shard->number;
    c->start = start.kind;
    c->offset = start.offset;
    c->at_ms = start.at_ms;
    c->from_checkpoint = start.from_checkpoint;
    service_answer(call, WEIR_OK);
}

void
weir_service_find_start(struct weir_service *s, struct weir_start_call *c)
{
    service_call(s, &c->call, begin_find_start);
}

/* ---- positions of many shards, as offsets ---- */

struct item {
    struct resolution *resolution;
    struct weir_find find;
    struct gather_leg *leg;
    uint64_t shard;
    uint32_t index;
    struct start start;
    struct weir_log_shard numbers;
    enum weir_status st;
};
struct resolution {
    struct weir_positions_call *call;
    struct gather *gather;
    struct item *items;
    size_t count;
    uint32_t pending[WEIR_OWNERS_MAX]; /* owner only: finds that are out */
    struct weir_shard_position results[];
};

static void
time_found(struct weir_find *find, enum weir_status st)
{
    struct item *item = WEIR_CONTAINER(find, struct item, find);
    struct gather_leg *leg = item->leg;
    item->st = st;
    if (--item->resolution->pending[leg->owner->index] == 0)
        gather_answer(leg);
}

static void
resolve_at_owner(struct gather_leg *leg)
{
    struct resolution *w = leg->gather->arg;
    uint32_t *pending = &w->pending[leg->owner->index];
    *pending = 1;
    for (size_t i = 0; i < w->count; i++) {
        struct item *item = &w->items[i];
        if (service_owner_of(leg->gather->service, item->shard) != leg->owner->index)
            continue;
        item->st = weir_log_shard_get(leg->owner->log, item->shard, &item->numbers);
        if (item->st || item->start.kind != WEIR_START_TIME)
            continue;
        item->leg = leg;
        item->find = (struct weir_find){
            .shard = item->shard, .at_ms = item->start.at_ms, .done = time_found};
        (*pending)++;
        weir_log_find_time(leg->owner->log, &item->find);
    }
    if (--*pending == 0)
        gather_answer(leg);
}

static uint64_t
offset_of(const struct item *item)
{
    uint64_t oldest = item->numbers.oldest, next = item->numbers.next, offset = item->start.offset;
    switch (item->start.kind) {
    case WEIR_START_OLDEST:
        return oldest;
    case WEIR_START_LATEST:
        return next;
    case WEIR_START_TIME:
        return item->find.offset;
    case WEIR_START_OFFSET:
        break;
    }
    return offset < oldest ? oldest : offset > next ? next : offset;
}

static void
free_resolution(struct resolution *w)
{
    gather_free(w->gather);
    free(w->items);
}

static void
resolved(struct gather *g)
{
    struct resolution *w = g->arg;
    struct weir_positions_call *c = w->call;
    enum weir_status st = WEIR_OK;
    for (size_t i = 0; i < w->count && !st; i++) {
        const struct item *item = &w->items[i];
        st = item->st;
        if (st)
            (void)!weir_fail(&c->call.err, st, "cannot find the position in shard %u: %s",
                             item->index, weir_status_text(st));
        w->results[i] = (struct weir_shard_position){item->index, offset_of(item),
                                                     item->numbers.oldest, item->numbers.next};
    }
    c->items = w->results;
    c->count = st ? 0 : w->count;
    free_resolution(w);
    service_answer(&c->call, st);
}

/* Fills in the items. False: answered. */
static bool
choose(struct resolution *w, const struct weir_stream *stream, uint64_t *owners)
{
    struct weir_positions_call *c = w->call;
    size_t limit = c->shard_count ? c->shard_count : stream->shard_count;
    for (size_t i = 0; i < limit; i++) {
        uint32_t index = c->shard_count ? c->shards[i] : (uint32_t)i;
        if (!c->shard_count && stream->shards[index].closed_ms)
            continue;
        const struct weir_shard *shard = service_find_shard(&c->call, stream, index);
        if (!shard)
            return false;
        struct item *item = &w->items[w->count];
        if (!find_start(&c->call, stream, shard, c->consumer, &c->position, &item->start))
            return false;
        item->resolution = w;
        item->shard = shard->number;
        item->index = index;
        *owners |= UINT64_C(1) << service_owner_of(c->call.service, shard->number);
        w->count++;
    }
    return true;
}

static void
begin_resolve(struct weir_call *call)
{
    struct weir_positions_call *c = WEIR_CONTAINER(call, struct weir_positions_call, call);
    const struct weir_stream *stream = service_find_stream(call, c->stream);
    if (!stream || !check_name(call, c->consumer, &c->position))
        return;
    if (c->shard_count > WEIR_SHARDS_PER_STREAM_MAX) {
        service_refuse(call, WEIR_TOO_BIG, "more than %d shards in one question",
                       WEIR_SHARDS_PER_STREAM_MAX);
        return;
    }
    size_t room = c->shard_count ? c->shard_count : stream->open_count;
    struct resolution *w = calloc(1, sizeof *w + room * sizeof w->results[0]);
    if (w) {
        w->call = c;
        w->items = calloc(room + 1, sizeof *w->items);
        w->gather = gather_new(call->service);
    }
    if (!w || !w->items || !w->gather) {
        if (w)
            free_resolution(w);
        free(w);
        service_answer(call, WEIR_NO_MEMORY);
        return;
    }
    uint64_t owners = 0;
    if (!choose(w, stream, &owners)) { /* answered: the call is not ours any more */
        free_resolution(w);
        free(w);
        return;
    }
    call->work = w;
    w->gather->arg = w;
    w->gather->at_owner = resolve_at_owner;
    w->gather->joined = resolved;
    gather_start(w->gather, owners);
}

void
weir_service_resolve(struct weir_service *s, struct weir_positions_call *c)
{
    service_call(s, &c->call, begin_resolve);
}

/* ---- what follows a closed shard ---- */

static void
begin_lineage(struct weir_call *call)
{
    struct weir_lineage_call *c = WEIR_CONTAINER(call, struct weir_lineage_call, call);
    c->info = weir_catalog_find_number(call->service->catalog, c->stream);
    c->row = NULL;
    for (uint32_t i = 0; c->info && i < c->info->shard_count && !c->row; i++)
        if (c->info->shards[i].number == c->shard)
            c->row = &c->info->shards[i];
    service_answer(call, c->row ? WEIR_OK : WEIR_NOT_FOUND);
}

void
weir_service_lineage(struct weir_service *s, struct weir_lineage_call *c)
{
    service_call(s, &c->call, begin_lineage);
}
