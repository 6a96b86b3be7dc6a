/*     buckets ──> rows: | id, number, recent places | ...
 *
 * A row is linked twice: in its bucket, and from the longest silent to the latest. */
#include "log/producers.h"
#include "base/assert.h"
#include <stdlib.h>

#define NONE UINT16_MAX
static_assert(WEIR_PRODUCERS_PER_SHARD_MAX < NONE, "rows are numbered with 16 bits");

struct row {
    weir_u128 id;
    uint64_t number; /* of the last batch, durable or not */
    uint64_t touched_ms;
    uint32_t pending; /* the last so many are not durable yet */
    uint16_t count;   /* recent places that are known, pending ones too */
    bool stored;      /* at least one batch of it is durable */
    uint16_t next;    /* in its bucket, or of the free ones */
    uint16_t older, newer;
    struct {
        uint64_t offset, at_ms;
    } recent[WEIR_PRODUCER_RECENT]; /* the latest first */
};

struct weir_producers {
    struct row *rows;
    uint16_t *buckets;
    uint16_t capacity, count, used; /* used: rows ever taken */
    uint16_t free, oldest, newest;
};

void
weir_producers_free(struct weir_producers *p)
{
    if (!p)
        return;
    free(p->rows);
    free(p->buckets);
    free(p);
}

size_t
weir_producers_count(const struct weir_producers *p)
{
    return p ? p->count : 0;
}

size_t
weir_producers_bytes(const struct weir_producers *p)
{
    return p ? sizeof *p + p->capacity * (sizeof *p->rows + 2 * sizeof *p->buckets) : 0;
}

static uint16_t *
bucket_of(const struct weir_producers *p, weir_u128 id)
{
    uint64_t h = ((uint64_t)id ^ (uint64_t)(id >> 64)) * 0x9e3779b97f4a7c15ull;
    return &p->buckets[(h >> 32) & (2u * p->capacity - 1)];
}

static struct row *
find(const struct weir_producers *p, weir_u128 id)
{
    if (!p || !p->count)
        return NULL;
    for (uint16_t i = *bucket_of(p, id); i != NONE; i = p->rows[i].next)
        if (p->rows[i].id == id)
            return &p->rows[i];
    return NULL;
}

static void
age_unlink(struct weir_producers *p, struct row *r)
{
    if (r->older != NONE)
        p->rows[r->older].newer = r->newer;
    else
        p->oldest = r->newer;
    if (r->newer != NONE)
        p->rows[r->newer].older = r->older;
    else
        p->newest = r->older;
}

static void
age_link(struct weir_producers *p, struct row *r)
{
    uint16_t i = (uint16_t)(r - p->rows);
    r->older = p->newest;
    r->newer = NONE;
    if (p->newest != NONE)
        p->rows[p->newest].newer = i;
    else
        p->oldest = i;
    p->newest = i;
}

static void
forget(struct weir_producers *p, struct row *r)
{
    uint16_t i = (uint16_t)(r - p->rows);
    uint16_t *at = bucket_of(p, r->id);
    while (*at != i)
        at = &p->rows[*at].next;
    *at = r->next;
    age_unlink(p, r);
    r->next = p->free;
    p->free = i;
    p->count--;
}

static enum weir_status
grow(struct weir_producers *p)
{
    uint32_t capacity = p->capacity ? 2u * p->capacity : 4;
    if (capacity > WEIR_PRODUCERS_PER_SHARD_MAX)
        capacity = WEIR_PRODUCERS_PER_SHARD_MAX;
    struct row *rows = realloc(p->rows, capacity * sizeof *rows);
    if (!rows)
        return WEIR_NO_MEMORY;
    p->rows = rows;
    uint16_t *buckets = realloc(p->buckets, 2 * capacity * sizeof *buckets);
    if (!buckets)
        return WEIR_NO_MEMORY;
    p->buckets = buckets;
    p->capacity = (uint16_t)capacity;
    memset(buckets, 0xff, 2 * capacity * sizeof *buckets);
    for (uint16_t i = p->oldest; i != NONE; i = rows[i].newer) {
        uint16_t *at = bucket_of(p, rows[i].id);
        rows[i].next = *at;
        *at = i;
    }
    return WEIR_OK;
}
static_assert((WEIR_PRODUCERS_PER_SHARD_MAX & (WEIR_PRODUCERS_PER_SHARD_MAX - 1)) == 0,
              "twice the capacity is the number of buckets, a power of two");

static enum weir_status
add(struct weir_producers **table, weir_u128 id, struct row **out)
{
    struct weir_producers *p = *table;
    if (!p) {
        p = calloc(1, sizeof *p);
        if (!p)
            return WEIR_NO_MEMORY;
        p->free = p->oldest = p->newest = NONE;
        *table = p;
    }
    if (p->count == WEIR_PRODUCERS_PER_SHARD_MAX)
        forget(p, &p->rows[p->oldest]);
    if (p->free == NONE && p->used == p->capacity) {
        enum weir_status st = grow(p);
        if (st)
            return st;
    }
    struct row *r;
    if (p->free != NONE) {
        r = &p->rows[p->free];
        p->free = r->next;
    } else {
        r = &p->rows[p->used++];
    }
    *r = (struct row){.id = id};
    uint16_t *at = bucket_of(p, id);
    r->next = *at;
    *at = (uint16_t)(r - p->rows);
    age_link(p, r);
    p->count++;
    *out = r;
    return WEIR_OK;
}

static bool
is_forgotten(const struct row *r, uint64_t before_ms)
{
    return r->touched_ms < before_ms && !r->pending;
}

enum weir_status
weir_producers_check(const struct weir_producers *p, weir_u128 id, uint64_t number,
                     uint64_t forgotten_before_ms, struct weir_producer_place *place)
{
    const struct row *r = find(p, id);
    bool known = r && !is_forgotten(r, forgotten_before_ms);
    uint64_t last = known ? r->number : 0;
    if (number == last + 1)
        return WEIR_OK;
    *place = (struct weir_producer_place){.number = last};
    if (!known)
        return WEIR_INVALID;
    if (number > r->number)
        return WEIR_INVALID;
    uint64_t back = r->number - number;
    if (back < r->count) {
        place->offset = r->recent[back].offset;
        place->at_ms = r->recent[back].at_ms;
    }
    return WEIR_DUPLICATE;
}

/* Puts a new latest place in front. */
static void
advance(struct weir_producers *p, struct row *r, uint64_t number, uint64_t offset, uint64_t at_ms)
{
    /* Places are told by counting back from the last number. */
    if (r->count && number != r->number + 1)
        r->count = 0;
    memmove(r->recent + 1, r->recent, sizeof r->recent - sizeof r->recent[0]);
    r->recent[0].offset = offset;
    r->recent[0].at_ms = at_ms;
    if (r->count < WEIR_PRODUCER_RECENT)
        r->count++;
    r->number = number;
    r->touched_ms = at_ms;
    age_unlink(p, r);
    age_link(p, r);
}

enum weir_status
weir_producers_begin(struct weir_producers **p, weir_u128 id, uint64_t number, uint64_t offset,
                     uint64_t at_ms, uint64_t forgotten_before_ms)
{
    struct row *r = find(*p, id);
    if (r && is_forgotten(r, forgotten_before_ms)) {
        forget(*p, r);
        r = NULL;
    }
    if (!r) {
        enum weir_status st = add(p, id, &r);
        if (st)
            return st;
    }
    advance(*p, r, number, offset, at_ms);
    r->pending++;
    return WEIR_OK;
}

void
weir_producers_durable(struct weir_producers *p, weir_u128 id, uint64_t number)
{
    struct row *r = find(p, id);
    /* It may have been forgotten meanwhile, and come again. */
    if (!r || number > r->number)
        return;
    uint64_t behind = r->number - number;
    if (r->pending > behind)
        r->pending = (uint32_t)behind;
    r->stored = true;
}

void
weir_producers_undo(struct weir_producers *p, weir_u128 id, uint64_t number)
{
    struct row *r = find(p, id);
    if (!r || number > r->number)
        return;
    if (!r->stored) {
        forget(p, r);
        return;
    }
    uint64_t back = r->number - number + 1;
    uint16_t drop = back < r->count ? (uint16_t)back : r->count;
    memmove(r->recent, r->recent + drop, (r->count - drop) * sizeof r->recent[0]);
    r->count -= drop;
    r->pending -= back < r->pending ? (uint32_t)back : r->pending;
    r->number = number - 1;
}

enum weir_status
weir_producers_note(struct weir_producers **p, weir_u128 id, uint64_t number, uint64_t offset,
                    uint64_t at_ms)
{
    struct row *r = find(*p, id);
    if (r && number <= r->number && at_ms <= r->touched_ms)
        return WEIR_OK;
    if (!r) {
        enum weir_status st = add(p, id, &r);
        if (st)
            return st;
    }
    advance(*p, r, number, offset, at_ms);
    r->stored = true;
    return WEIR_OK;
}

enum weir_status
weir_producers_last(const struct weir_producers *p, weir_u128 id, uint64_t forgotten_before_ms,
                    uint64_t *number_out)
{
    const struct row *r = find(p, id);
    if (!r || !r->stored || is_forgotten(r, forgotten_before_ms))
        return WEIR_NOT_FOUND;
    *number_out = r->number - r->pending;
    return WEIR_OK;
}

void
weir_producers_expire(struct weir_producers *p, uint64_t before_ms)
{
    while (p && p->oldest != NONE && p->rows[p->oldest].touched_ms < before_ms &&
           !p->rows[p->oldest].pending)
        forget(p, &p->rows[p->oldest]);
}

size_t
weir_producers_encode(const struct weir_producers *p, struct weir_disk_producer *out)
{
    size_t n = 0;
    for (uint16_t i = p ? p->oldest : NONE; i != NONE; i = p->rows[i].newer) {
        const struct row *r = &p->rows[i];
        if (!r->stored)
            continue;
        uint32_t skip = r->pending < r->count ? r->pending : r->count;
        struct weir_disk_producer d = {
            .id = weir_put128(r->id),
            .number = weir_put64(r->number - r->pending),
            .touched_ms = weir_put64(r->touched_ms),
            .count = weir_put32(r->count - skip),
        };
        for (uint32_t k = skip; k < r->count; k++) {
            d.recent[k - skip].offset = weir_put64(r->recent[k].offset);
            d.recent[k - skip].at_ms = weir_put64(r->recent[k].at_ms);
        }
        out[n++] = d;
    }
    return n;
}

enum weir_status
weir_producers_decode(struct weir_producers **p, const struct weir_disk_producer *d)
{
    weir_u128 id = weir_get128(d->id);
    struct row *r = find(*p, id);
    if (r && r->touched_ms > weir_get64(d->touched_ms))
        return WEIR_OK;
    if (!r) {
        enum weir_status st = add(p, id, &r);
        if (st)
            return st;
    } else {
        age_unlink(*p, r);
        age_link(*p, r);
    }
    r->number = weir_get64(d->number);
    r->touched_ms = weir_get64(d->touched_ms);
    r->count = (uint16_t)weir_get32(d->count);
    r->stored = true;
    for (uint16_t k = 0; k < r->count; k++) {
        r->recent[k].offset = weir_get64(d->recent[k].offset);
        r->recent[k].at_ms = weir_get64(d->recent[k].at_ms);
    }
    return WEIR_OK;
}
