/* Who reads a stream, and how far behind: the owners know the subscriptions, the leases the
 * checkpoints.
 *
 *   control: shards of the stream, by number ──> owners: their ends, their subscriptions with a
 * name ──> control: one line each, checkpoints put beside them */
#include "service/inside.h"
#include <stdio.h>
#include <stdlib.h>

static_assert(sizeof((struct weir_consumer_view *)0)->name ==
                  sizeof((struct weir_checkpoint_row *)0)->consumer,
              "names are copied whole");

struct place {
    uint64_t shard;
    uint32_t index;
    bool known;
    struct weir_log_shard numbers;
};
struct lines {
    struct weir_consumer_view *line;
    size_t count, capacity;
    bool failed;
};
struct listing {
    struct weir_consumers_call *call;
    struct gather *gather;
    uint64_t stream;
    struct place *places; /* by number of the shard */
    size_t count;
    struct lines of_owner[WEIR_OWNERS_MAX]; /* each its owner's until joined */
    struct lines all;
    size_t subscriptions; /* of them, in order at the front */
};

static struct weir_consumer_view *
add_line(struct lines *lines)
{
    if (lines->count == lines->capacity) {
        size_t capacity = lines->capacity ? 2 * lines->capacity : 16;
        struct weir_consumer_view *grown = realloc(lines->line, capacity * sizeof *grown);
        if (!grown) {
            lines->failed = true;
            return NULL;
        }
        lines->line = grown;
        lines->capacity = capacity;
    }
    struct weir_consumer_view *line = &lines->line[lines->count++];
    *line = (struct weir_consumer_view){0};
    return line;
}

static int
compare_places(const void *a, const void *b)
{
    uint64_t x = ((const struct place *)a)->shard, y = ((const struct place *)b)->shard;
    return (x > y) - (x < y);
}

static struct place *
find_place(const struct listing *w, uint64_t shard)
{
    struct place key = {.shard = shard};
    return bsearch(&key, w->places, w->count, sizeof key, compare_places);
}

struct visitor {
    struct listing *listing;
    struct lines *lines;
};

static void
add_subscription(void *arg, const struct weir_sub_stat *sub)
{
    struct visitor *visitor = arg;
    if (!sub->consumer || !sub->consumer[0])
        return;
    const struct place *place = find_place(visitor->listing, sub->shard);
    struct weir_consumer_view *line = place ? add_line(visitor->lines) : NULL;
    if (!line)
        return;
    snprintf(line->name, sizeof line->name, "%s", sub->consumer);
    line->shard = place->index;
    line->connected = true;
    line->position = sub->next;
    line->tail = sub->tail;
    line->lag_records = sub->lag_records;
    line->lag_bytes = sub->lag_bytes;
    line->lag_ms = sub->lag_ms;
    line->credit_bytes = sub->credit_bytes;
    line->sent_records = sub->sent_records;
    line->sent_bytes = sub->sent_bytes;
    line->last_sent_ms = sub->last_sent_ms;
}

static void
list_at_owner(struct gather_leg *leg)
{
    struct listing *w = leg->gather->arg;
    for (size_t i = 0; i < w->count; i++) {
        struct place *place = &w->places[i];
        if (service_owner_of(leg->gather->service, place->shard) == leg->owner->index)
            place->known = !weir_log_shard_get(leg->owner->log, place->shard, &place->numbers);
    }
    struct visitor visitor = {w, &w->of_owner[leg->owner->index]};
    weir_fanout_each(leg->owner->fanout, add_subscription, &visitor);
    gather_answer(leg);
}

/* What a consumer that is not here has not read, from its checkpoint on. Bytes are the shard's
 * average, the time is that of the latest record: it has waited at least so long. */
static void
measure(const struct listing *w, struct weir_consumer_view *line, uint64_t shard)
{
    const struct place *place = find_place(w, shard);
    if (!place || !place->known)
        return;
    const struct weir_log_shard *n = &place->numbers;
    line->tail = n->next;
    line->position = line->checkpoint;
    uint64_t from = line->checkpoint < n->oldest ? n->oldest : line->checkpoint;
    if (from >= n->next)
        return;
    line->lag_records = n->next - from;
    line->lag_bytes =
        (uint64_t)((double)n->bytes * (double)line->lag_records / (double)(n->next - n->oldest));
    uint64_t now_ms = weir_loop_now_ms(w->call->call.service->loop);
    line->lag_ms = now_ms > n->latest_at_ms ? now_ms - n->latest_at_ms : 0;
}

static int
compare_lines(const void *a, const void *b)
{
    const struct weir_consumer_view *x = a, *y = b;
    int names = strcmp(x->name, y->name);
    return names ? names : (x->shard > y->shard) - (x->shard < y->shard);
}

/* The first of the subscriptions (which stand in order) that is not before the row's. */
static size_t
first_line(const struct listing *w, const struct weir_checkpoint_row *row)
{
    struct weir_consumer_view key = {.shard = row->shard};
    memcpy(key.name, row->consumer, sizeof key.name);
    size_t low = 0, high = w->subscriptions;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (compare_lines(&w->all.line[middle], &key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void
put_checkpoint(struct weir_consumer_view *line, const struct weir_checkpoint_row *row)
{
    line->has_checkpoint = row->set;
    line->checkpoint = row->offset;
    line->shard_end = row->shard_end;
}

static void
add_checkpoint(void *arg, const struct weir_checkpoint_row *row)
{
    struct listing *w = arg;
    const struct weir_stream *stream =
        weir_catalog_find_number(w->call->call.service->catalog, w->stream);
    if (row->shard >= stream->shard_count || stream->shards[row->shard].expired)
        return;
    size_t first = first_line(w, row), at = first;
    for (; at < w->subscriptions; at++) {
        struct weir_consumer_view *line = &w->all.line[at];
        if (line->shard != row->shard || strcmp(line->name, row->consumer) != 0)
            break;
        put_checkpoint(line, row);
    }
    struct weir_consumer_view *line = at > first || !row->set ? NULL : add_line(&w->all);
    if (!line)
        return;
    memcpy(line->name, row->consumer, sizeof line->name);
    line->shard = row->shard;
    put_checkpoint(line, row);
    measure(w, line, stream->shards[row->shard].number);
}

static void
free_listing(struct listing *w)
{
    for (size_t i = 0; i < WEIR_OWNERS_MAX; i++)
        free(w->of_owner[i].line);
    gather_free(w->gather);
    free(w->places);
    free(w);
}

static void
listed(struct gather *g)
{
    struct listing *w = g->arg;
    struct weir_consumers_call *c = w->call;
    struct weir_service *s = c->call.service;
    bool gone = !weir_catalog_find_number(s->catalog, w->stream);
    for (size_t i = 0; i < WEIR_OWNERS_MAX; i++) {
        const struct lines *lines = &w->of_owner[i];
        w->all.failed |= lines->failed;
        for (size_t k = 0; k < lines->count; k++) {
            struct weir_consumer_view *line = add_line(&w->all);
            if (line)
                *line = lines->line[k];
        }
    }
    if (w->all.count)
        qsort(w->all.line, w->all.count, sizeof *w->all.line, compare_lines);
    w->subscriptions = w->all.count;
    if (!gone)
        weir_lease_each(s->leases, w->stream, NULL, add_checkpoint, w);
    if (w->all.count)
        qsort(w->all.line, w->all.count, sizeof *w->all.line, compare_lines);
    c->items = w->all.line;
    c->count = w->all.count;
    c->call.work = w->all.line;
    enum weir_status st = w->all.failed ? WEIR_NO_MEMORY : gone ? WEIR_NOT_FOUND : WEIR_OK;
    free_listing(w);
    service_answer(&c->call, st);
}

static void
begin_consumers(struct weir_call *call)
{
    struct weir_consumers_call *c = WEIR_CONTAINER(call, struct weir_consumers_call, call);
    const struct weir_stream *stream = service_find_stream(call, c->stream);
    if (!stream)
        return;
    struct listing *w = calloc(1, sizeof *w);
    if (w) {
        w->places = calloc(stream->shard_count + 1, sizeof *w->places);
        w->gather = gather_new(call->service);
    }
    if (!w || !w->places || !w->gather) {
        if (w)
            free_listing(w);
        service_answer(call, WEIR_NO_MEMORY);
        return;
    }
    w->call = c;
    w->stream = stream->number;
    for (uint32_t i = 0; i < stream->shard_count; i++)
        if (!stream->shards[i].expired)
            w->places[w->count++] = (struct place){.shard = stream->shards[i].number, .index = i};
    qsort(w->places, w->count, sizeof *w->places, compare_places);
    w->gather->arg = w;
    w->gather->at_owner = list_at_owner;
    w->gather->joined = listed;
    gather_start(w->gather, gather_all(call->service));
}

void
weir_service_list_consumers(struct weir_service *s, struct weir_consumers_call *c)
{
    service_call(s, &c->call, begin_consumers);
}
