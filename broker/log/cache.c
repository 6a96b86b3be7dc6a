#include "log/cache.h"
#include "base/assert.h"
#include <stdlib.h>

#define SLACK_BYTES (8 * WEIR_KIB)

struct item {
    struct weir_buf *batch;
    uint64_t offset, at_ms;
    uint32_t count;
};

/* A ring; capacity is a power of two. */
struct weir_cached {
    uint32_t head, count, capacity;
    struct item items[];
};

static struct item *
item_at(const struct weir_cached *d, uint32_t i)
{
    struct weir_cached *ring = (struct weir_cached *)(uintptr_t)d;
    return &ring->items[(d->head + i) & (d->capacity - 1)];
}

void
weir_cache_init(struct weir_cache *c, uint64_t bytes_max)
{
    *c = (struct weir_cache){.bytes_max = bytes_max};
}

void
weir_cache_fini(struct weir_cache *c)
{
    WEIR_ASSERT(c->bytes == 0);
    free(c->order);
    c->order = NULL;
}

static void
drop_oldest(struct weir_cache *c, struct weir_shard *s)
{
    struct weir_cached *d = s->cached;
    struct item *item = item_at(d, 0);
    c->bytes -= item->batch->capacity;
    weir_buf_unref(item->batch);
    d->head++;
    if (--d->count == 0) {
        free(d);
        s->cached = NULL;
    }
}

static void
evict(struct weir_cache *c)
{
    while (c->bytes > c->bytes_max) {
        struct weir_shard *s = c->order[c->head & (c->capacity - 1)];
        c->head++;
        c->count--;
        if (s)
            drop_oldest(c, s);
    }
}

static bool
order_room(struct weir_cache *c)
{
    if (c->count < c->capacity)
        return true;
    uint32_t capacity = c->capacity ? 2 * c->capacity : 64;
    struct weir_shard **grown = malloc(capacity * sizeof(void *));
    if (!grown)
        return false;
    /* Places of forgotten shards go on the way. */
    uint32_t count = 0;
    for (uint32_t i = 0; i < c->count; i++) {
        struct weir_shard *s = c->order[(c->head + i) & (c->capacity - 1)];
        if (s)
            grown[count++] = s;
    }
    free(c->order);
    c->order = grown;
    c->capacity = capacity;
    c->count = count;
    c->head = 0;
    return true;
}

static bool
ring_room(struct weir_shard *s)
{
    struct weir_cached *d = s->cached;
    if (d && d->count < d->capacity)
        return true;
    uint32_t capacity = d ? 2 * d->capacity : 4;
    struct weir_cached *grown = malloc(sizeof *grown + capacity * sizeof(struct item));
    if (!grown)
        return false;
    *grown = (struct weir_cached){.capacity = capacity, .count = d ? d->count : 0};
    for (uint32_t i = 0; i < grown->count; i++)
        grown->items[i] = *item_at(d, i);
    free(d);
    s->cached = grown;
    return true;
}

void
weir_cache_add(struct weir_cache *c, struct weir_shard *s, struct weir_buf *batch, uint64_t offset,
               uint32_t count, uint64_t at_ms)
{
    /* A batch that fills little of its buffer would take memory that nobody sees. */
    bool copy = batch->capacity > 2 * batch->len + SLACK_BYTES;
    struct weir_buf *kept = copy ? weir_buf_copy(weir_buf_bytes(batch)) : weir_buf_ref(batch);
    if (!kept || kept->capacity > c->bytes_max)
        goto broken;
    if (s->cached) {
        const struct item *last = item_at(s->cached, s->cached->count - 1);
        if (last->offset + last->count != offset)
            weir_cache_forget(c, s);
    }
    if (!order_room(c) || !ring_room(s))
        goto broken;
    struct weir_cached *d = s->cached;
    *item_at(d, d->count++) = (struct item){kept, offset, at_ms, count};
    c->order[(c->head + c->count++) & (c->capacity - 1)] = s;
    c->bytes += kept->capacity;
    evict(c);
    return;
broken:
    weir_buf_unref(kept);
    /* What is older would no longer be the end of the shard. */
    weir_cache_forget(c, s);
}

void
weir_cache_forget(struct weir_cache *c, struct weir_shard *s)
{
    if (!s->cached)
        return;
    for (uint32_t i = 0; i < c->count; i++) {
        struct weir_shard **place = &c->order[(c->head + i) & (c->capacity - 1)];
        if (*place == s)
            *place = NULL;
    }
    while (s->cached)
        drop_oldest(c, s);
}

bool
weir_cache_read(const struct weir_shard *s, uint64_t offset, uint64_t bytes_max,
                struct weir_run *run)
{
    const struct weir_cached *d = s->cached;
    if (!d || item_at(d, 0)->offset > offset)
        return false;
    uint32_t low = 0, high = d->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const struct item *item = item_at(d, middle);
        if (item->offset + item->count <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == d->count)
        return false;
    run->count = 0;
    run->bytes = 0;
    for (; low < d->count && run->count < WEIR_RUN_SLICES_MAX; low++) {
        const struct item *item = item_at(d, low);
        size_t len = item->batch->len;
        if (run->count && run->bytes + len > bytes_max)
            break;
        if (!run->count)
            run->first = item->offset;
        run->limit = item->offset + item->count;
        run->bytes += len;
        run->batch[run->count].slice = (struct weir_slice){weir_buf_ref(item->batch), 0, len};
        run->batch[run->count].first = item->offset;
        run->batch[run->count].at_ms = item->at_ms;
        run->batch[run->count].records = item->count;
        run->count++;
    }
    return true;
}
