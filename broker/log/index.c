/* index.h says what it looks like. Sums (a shard's bytes, a segment's live bytes) change only where
 * runs do: run_counted() and run_uncounted(). */
#include "log/index.h"
#include "base/assert.h"
#include <stdlib.h>

void
weir_index_init(struct weir_index *x, uint64_t seed)
{
    *x = (struct weir_index){0};
    weir_map_init(&x->shards, seed);
    weir_list_init(&x->live);
}

void
weir_index_fini(struct weir_index *x)
{
    size_t cursor = 0;
    struct weir_shard *s;
    while ((s = weir_map_next(&x->shards, &cursor)))
        weir_index_shard_free(x, s);
    while (x->segment_count)
        weir_index_segment_free(x, x->segments[x->segment_count - 1]);
    free(x->segments);
    weir_map_fini(&x->shards);
}

/* ---- shards ---- */

struct weir_shard *
weir_index_shard(const struct weir_index *x, uint64_t shard)
{
    return weir_map_get(&x->shards, shard);
}

enum weir_status
weir_index_shard_new(struct weir_index *x, uint64_t stream, uint64_t shard, struct weir_shard **out)
{
    struct weir_shard *s = calloc(1, sizeof *s);
    if (!s)
        return WEIR_NO_MEMORY;
    s->stream = stream;
    s->shard = shard;
    enum weir_status st = weir_map_put(&x->shards, shard, s);
    if (st) {
        free(s);
        return st;
    }
    x->bytes += sizeof *s;
    *out = s;
    return WEIR_OK;
}

void
weir_index_shard_free(struct weir_index *x, struct weir_shard *s)
{
    weir_index_drop_runs(x, s, s->run_count);
    weir_index_home(x, s, 0);
    weir_index_trim_home(x, s, 0);
    (void)weir_map_take(&x->shards, s->shard);
    weir_producers_free(s->producers);
    x->bytes -= sizeof *s + s->run_capacity * sizeof *s->runs;
    free(s->runs);
    free(s);
}

/* ---- segments ---- */

/* Number of the first segment at or above `number`. */
static uint32_t
segment_rank(const struct weir_index *x, uint64_t number)
{
    uint32_t low = 0, high = x->segment_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (x->segments[middle]->number < number)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct weir_segment *
weir_index_segment(const struct weir_index *x, uint64_t number)
{
    uint32_t i = segment_rank(x, number);
    return i < x->segment_count && x->segments[i]->number == number ? x->segments[i] : NULL;
}

enum weir_status
weir_index_segment_new(struct weir_index *x, uint32_t number, struct weir_segment **out)
{
    WEIR_ASSERT(!x->segment_count || x->segments[x->segment_count - 1]->number < number);
    if (x->segment_count == x->segment_capacity) {
        uint32_t capacity = x->segment_capacity ? 2 * x->segment_capacity : 16;
        struct weir_segment **grown = realloc(x->segments, capacity * sizeof(void *));
        if (!grown)
            return WEIR_NO_MEMORY;
        x->segments = grown;
        x->segment_capacity = capacity;
    }
    struct weir_segment *g = calloc(1, sizeof *g);
    if (!g)
        return WEIR_NO_MEMORY;
    g->number = number;
    x->segments[x->segment_count++] = g;
    x->bytes += sizeof *g;
    *out = g;
    return WEIR_OK;
}

static void
part_free(struct weir_index *x, struct weir_part *part)
{
    struct weir_shard *s = weir_index_shard(x, part->shard);
    if (s && s->part == part)
        s->part = NULL;
    if (s && s->copy_part == part)
        s->copy_part = NULL;
    x->bytes -= sizeof *part + part->capacity * sizeof *part->entries;
    free(part->entries);
    free(part);
}

static void
parts_free(struct weir_index *x, struct weir_segment *g)
{
    for (uint32_t i = 0; i < g->part_count; i++)
        part_free(x, g->parts[i]);
    free(g->parts);
    g->parts = NULL;
    g->part_count = g->part_capacity = 0;
}

void
weir_index_segment_free(struct weir_index *x, struct weir_segment *g)
{
    uint32_t i = segment_rank(x, g->number);
    WEIR_ASSERT(i < x->segment_count && x->segments[i] == g);
    x->segment_count--;
    memmove(x->segments + i, x->segments + i + 1, (x->segment_count - i) * sizeof(void *));
    parts_free(x, g);
    weir_buf_unref(g->chunks);
    WEIR_ASSERT(!g->seal);
    x->bytes -= sizeof *g;
    free(g);
}

static void
count_home(struct weir_index *x, uint32_t from, uint32_t to)
{
    struct weir_segment *g = from ? weir_index_segment(x, from) : NULL;
    if (g)
        g->homes--;
    g = to ? weir_index_segment(x, to) : NULL;
    if (g)
        g->homes++;
}

void
weir_index_home(struct weir_index *x, struct weir_shard *s, uint32_t segment)
{
    if (s->home == segment)
        return;
    count_home(x, s->home, segment);
    s->home = segment;
}

void
weir_index_trim_home(struct weir_index *x, struct weir_shard *s, uint32_t segment)
{
    if (s->trim_home == segment)
        return;
    count_home(x, s->trim_home, segment);
    s->trim_home = segment;
}

/* ---- parts ---- */

enum weir_status
weir_index_part(struct weir_index *x, struct weir_segment *g, struct weir_shard *s, bool copies,
                struct weir_part **out)
{
    struct weir_part **latest = copies ? &s->copy_part : &s->part;
    if (*latest && (*latest)->segment == g->number) {
        *out = *latest;
        return WEIR_OK;
    }
    if (g->part_count == g->part_capacity) {
        uint32_t capacity = g->part_capacity ? 2 * g->part_capacity : 8;
        struct weir_part **grown = realloc(g->parts, capacity * sizeof(void *));
        if (!grown)
            return WEIR_NO_MEMORY;
        g->parts = grown;
        g->part_capacity = capacity;
    }
    struct weir_part *part = calloc(1, sizeof *part);
    if (!part)
        return WEIR_NO_MEMORY;
    *part = (struct weir_part){
        .stream = s->stream, .shard = s->shard, .segment = g->number, .copies = copies};
    g->parts[g->part_count++] = part;
    x->bytes += sizeof *part;
    *latest = *out = part;
    return WEIR_OK;
}

static enum weir_status
part_room(struct weir_index *x, struct weir_part *part)
{
    if (part->count < part->capacity)
        return WEIR_OK;
    uint32_t capacity = part->capacity ? 2 * part->capacity : 4;
    struct weir_entry *grown = realloc(part->entries, capacity * sizeof *grown);
    if (!grown)
        return WEIR_NO_MEMORY;
    x->bytes += (capacity - part->capacity) * sizeof *grown;
    part->entries = grown;
    part->capacity = capacity;
    return WEIR_OK;
}

/* ---- runs ---- */

static void
run_counted(struct weir_index *x, struct weir_shard *s, struct weir_segment *g, uint64_t bytes)
{
    s->bytes += bytes;
    g->live_bytes += bytes;
    x->live_bytes += bytes;
}

static void
run_uncounted(struct weir_index *x, struct weir_shard *s, uint32_t segment, uint64_t bytes)
{
    struct weir_segment *g = weir_index_segment(x, segment);
    WEIR_ASSERT(g && g->live_bytes >= bytes && s->bytes >= bytes);
    s->bytes -= bytes;
    g->live_bytes -= bytes;
    x->live_bytes -= bytes;
}

uint32_t
weir_index_run_at(const struct weir_shard *s, uint64_t offset)
{
    uint32_t low = 0, high = s->run_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (s->runs[middle].limit <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static enum weir_status
run_room(struct weir_index *x, struct weir_shard *s)
{
    if (s->run_count < s->run_capacity)
        return WEIR_OK;
    uint32_t capacity = s->run_capacity ? 2 * s->run_capacity : 2;
    struct weir_index_run *grown = realloc(s->runs, capacity * sizeof *grown);
    if (!grown)
        return WEIR_NO_MEMORY;
    x->bytes += (capacity - s->run_capacity) * sizeof *grown;
    s->runs = grown;
    s->run_capacity = capacity;
    return WEIR_OK;
}

static enum weir_status
run_insert(struct weir_index *x, struct weir_shard *s, uint32_t at,
           const struct weir_index_run *run)
{
    enum weir_status st = run_room(x, s);
    if (st)
        return st;
    memmove(s->runs + at + 1, s->runs + at, (s->run_count - at) * sizeof *s->runs);
    s->runs[at] = *run;
    if (s->run_count++ == 0)
        weir_list_push_back(&x->live, &s->node);
    return WEIR_OK;
}

/* Entry `number` of the part (or of the footer) becomes part of what is served, unless it already
 * is. */
static enum weir_status
serve(struct weir_index *x, struct weir_segment *g, struct weir_shard *s, struct weir_part *part,
      uint32_t number, const struct weir_entry *e)
{
    uint64_t limit = e->offset + e->count;
    if (limit <= s->oldest)
        return WEIR_OK;
    uint32_t i = weir_index_run_at(s, e->offset);
    if (i < s->run_count && s->runs[i].first < limit)
        return WEIR_OK;
    struct weir_index_run *before = i ? &s->runs[i - 1] : NULL;
    if (before && before->segment == g->number && before->part == part &&
        before->start + before->count == number && before->limit == e->offset) {
        before->limit = limit;
        before->last_at_ms = e->at_ms;
        before->bytes += e->size;
        before->count++;
    } else {
        enum weir_status st = run_insert(x, s, i,
                                         &(struct weir_index_run){
                                             .first = e->offset,
                                             .limit = limit,
                                             .first_at_ms = e->at_ms,
                                             .last_at_ms = e->at_ms,
                                             .bytes = e->size,
                                             .segment = g->number,
                                             .start = number,
                                             .count = 1,
                                             .part = part,
                                         });
        if (st)
            return st;
    }
    run_counted(x, s, g, e->size);
    return WEIR_OK;
}

enum weir_status
weir_index_add(struct weir_index *x, struct weir_segment *g, struct weir_shard *s, bool copies,
               const struct weir_entry *e)
{
    struct weir_part *part;
    enum weir_status st = weir_index_part(x, g, s, copies, &part);
    if (!st)
        st = part_room(x, part);
    if (st)
        return st;
    part->entries[part->count++] = *e;
    return serve(x, g, s, part, part->count - 1, e);
}

enum weir_status
weir_index_add_entry(struct weir_index *x, struct weir_segment *g, struct weir_shard *s,
                     uint32_t number, const struct weir_entry *e)
{
    return serve(x, g, s, NULL, number, e);
}

enum weir_status
weir_index_add_run(struct weir_index *x, struct weir_segment *g, struct weir_shard *s,
                   const struct weir_index_run *run)
{
    if (run->limit <= s->oldest)
        return WEIR_OK;
    uint32_t i = weir_index_run_at(s, run->first);
    uint64_t covered = run->first;
    for (uint32_t k = i; k < s->run_count && s->runs[k].first <= covered; k++)
        covered = s->runs[k].limit;
    if (covered >= run->limit)
        return WEIR_OK;
    if (i < s->run_count && s->runs[i].first < run->limit)
        return WEIR_AGAIN;
    enum weir_status st = run_insert(x, s, i, run);
    if (!st)
        run_counted(x, s, g, run->bytes);
    return st;
}

uint32_t
weir_entries_find(const struct weir_entry *entries, uint32_t count, uint64_t offset)
{
    uint32_t low = 0, high = count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (entries[middle].offset + entries[middle].count <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

uint32_t
weir_entries_find_time(const struct weir_entry *entries, uint32_t count, uint64_t at_ms)
{
    uint32_t low = 0, high = count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (entries[middle].at_ms < at_ms)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void
runs_remove(struct weir_index *x, struct weir_shard *s, uint32_t at, uint32_t count)
{
    for (uint32_t i = at; i < at + count; i++)
        run_uncounted(x, s, s->runs[i].segment, s->runs[i].bytes);
    s->run_count -= count;
    if (s->run_count > at)
        memmove(s->runs + at, s->runs + at + count, (s->run_count - at) * sizeof *s->runs);
    if (s->run_count == 0)
        weir_list_remove(&s->node);
}

void
weir_index_drop_runs(struct weir_index *x, struct weir_shard *s, uint32_t count)
{
    WEIR_ASSERT(count <= s->run_count);
    if (count)
        runs_remove(x, s, 0, count);
}

void
weir_index_drop_entries(struct weir_index *x, struct weir_shard *s, uint32_t run, uint32_t count,
                        uint64_t bytes, const struct weir_entry *next)
{
    struct weir_index_run *r = &s->runs[run];
    WEIR_ASSERT(run < s->run_count && count < r->count);
    /* After a cut around damage a run's bytes are an estimate. */
    if (bytes > r->bytes)
        bytes = r->bytes;
    r->start += count;
    r->count -= count;
    r->first = next->offset;
    r->first_at_ms = next->at_ms;
    r->bytes -= bytes;
    run_uncounted(x, s, r->segment, bytes);
}

enum weir_status
weir_index_moved(struct weir_index *x, struct weir_shard *s, uint32_t from, struct weir_segment *to,
                 const struct weir_entry *copy)
{
    uint32_t i = weir_index_run_at(s, copy->offset);
    bool served =
        i < s->run_count && s->runs[i].segment == from && s->runs[i].first == copy->offset;
    /* Room first: between taking out and putting in nothing may fail. */
    struct weir_part *part;
    enum weir_status st = weir_index_part(x, to, s, true, &part);
    if (!st)
        st = part_room(x, part);
    if (!st)
        st = run_room(x, s);
    if (st)
        return st;
    if (served && s->runs[i].count == 1) {
        runs_remove(x, s, i, 1);
    } else if (served) {
        struct weir_entry next = {.offset = copy->offset + copy->count, .at_ms = copy->at_ms};
        weir_index_drop_entries(x, s, i, 1, copy->size, &next);
    } else {
        part->entries[part->count++] = *copy;
        return WEIR_OK;
    }
    return weir_index_add(x, to, s, true, copy);
}

enum weir_status
weir_index_cut(struct weir_index *x, struct weir_shard *s, uint32_t run,
               const struct weir_entry *bad, uint32_t bad_number)
{
    enum weir_status st = run_room(x, s);
    if (st)
        return st;
    struct weir_index_run r = s->runs[run], left = r, right = r;
    WEIR_ASSERT(bad_number >= r.start && bad_number < r.start + r.count);
    left.limit = bad->offset;
    left.count = bad_number - r.start;
    right.first = bad->offset + bad->count;
    right.start = bad_number + 1;
    right.count = r.count - left.count - 1;
    /* How the bytes are spread is not known here; the sum is. */
    uint64_t size = bad->size < r.bytes ? bad->size : r.bytes;
    left.bytes = r.count > 1 ? (r.bytes - size) * left.count / (r.count - 1) : 0;
    right.bytes = r.bytes - size - left.bytes;
    /* The neighbours' times are not known either; the bad one's lies between them. */
    left.last_at_ms = right.first_at_ms = bad->at_ms;
    runs_remove(x, s, run, 1);
    struct weir_segment *g = weir_index_segment(x, r.segment);
    if (right.count) {
        st = run_insert(x, s, run, &right);
        WEIR_ASSERT(!st);
        run_counted(x, s, g, right.bytes);
    }
    if (left.count) {
        st = run_insert(x, s, run, &left);
        WEIR_ASSERT(!st);
        run_counted(x, s, g, left.bytes);
    }
    return WEIR_OK;
}

void
weir_index_sealed(struct weir_index *x, struct weir_segment *g)
{
    for (uint32_t i = 0; i < g->part_count; i++) {
        struct weir_part *part = g->parts[i];
        struct weir_shard *s = weir_index_shard(x, part->shard);
        for (uint32_t k = 0; s && k < s->run_count; k++) {
            if (s->runs[k].part != part)
                continue;
            s->runs[k].part = NULL;
            s->runs[k].start += part->base;
        }
    }
    parts_free(x, g);
    g->state = WEIR_SEGMENT_SEALED;
}
