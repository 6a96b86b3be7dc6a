/* Looking streams up, and reading them all when the catalog is opened. */
#include "base/assert.h"
#include "base/text.h"
#include "inside.h"
#include "row.h"
#include "sys/random.h"
#include <stdlib.h>

/* ---- looking up ---- */

static int
compare_name(struct weir_bytes a, const char *name)
{
    struct weir_bytes b = weir_bytes_of(name);
    size_t len = a.len < b.len ? a.len : b.len;
    int order = len ? memcmp(a.data, b.data, len) : 0;
    return order ? order : (a.len > b.len) - (a.len < b.len);
}

/* The place of the first entry that is not before the name. */
static size_t
place_of(const struct weir_catalog *c, struct weir_bytes name)
{
    size_t low = 0, high = c->name_count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (compare_name(name, c->names[mid]->name) > 0)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

struct weir_entry *
weir_catalog_entry(const struct weir_catalog *c, struct weir_bytes name)
{
    size_t place = place_of(c, name);
    if (place == c->name_count || compare_name(name, c->names[place]->name) != 0)
        return NULL;
    return c->names[place];
}

const struct weir_stream *
weir_catalog_find(const struct weir_catalog *c, struct weir_bytes name)
{
    const struct weir_entry *e = weir_catalog_entry(c, name);
    return e && e->visible ? &e->stream : NULL;
}

const struct weir_stream *
weir_catalog_find_number(const struct weir_catalog *c, uint64_t number)
{
    const struct weir_entry *e = weir_map_get(&c->numbers, number);
    return e && e->visible && e->stream.number == number ? &e->stream : NULL;
}

const struct weir_stream *
weir_catalog_next(const struct weir_catalog *c, struct weir_bytes name)
{
    size_t place = place_of(c, name);
    if (place < c->name_count && compare_name(name, c->names[place]->name) == 0)
        place++;
    while (place < c->name_count && !c->names[place]->visible)
        place++;
    return place < c->name_count ? &c->names[place]->stream : NULL;
}

const struct weir_shard *
weir_stream_route(const struct weir_stream *s, weir_u128 hash)
{
    uint32_t low = 0, high = s->open_count;
    while (high - low > 1) {
        uint32_t mid = low + (high - low) / 2;
        if (s->shards[s->ring[mid]].range.low <= hash)
            low = mid;
        else
            high = mid;
    }
    const struct weir_shard *shard = &s->shards[s->ring[low]];
    WEIR_ASSERT(weir_hash_range_has(shard->range, hash));
    return shard;
}

size_t
weir_catalog_count(const struct weir_catalog *c)
{
    return c->visible_count;
}

const char *
weir_catalog_data_id(const struct weir_catalog *c)
{
    return c->id;
}

/* ---- entries ---- */

void
weir_entry_drop_stream(struct weir_entry *e)
{
    free(e->stream.shards);
    free(e->ring);
    e->stream = (struct weir_stream){0};
    e->ring = NULL;
    e->shard_capacity = e->ring_capacity = e->listed = 0;
}

static void
free_entry(struct weir_entry *e)
{
    weir_entry_drop_stream(e);
    free(e);
}

struct weir_entry *
weir_entry_ensure(struct weir_catalog *c, struct weir_bytes name)
{
    struct weir_entry *e = weir_catalog_entry(c, name);
    if (e)
        return e;
    if (c->name_count == c->name_capacity) {
        size_t capacity = c->name_capacity ? 2 * c->name_capacity : 16;
        struct weir_entry **names = realloc(c->names, capacity * sizeof(struct weir_entry *));
        if (!names)
            return NULL;
        c->names = names;
        c->name_capacity = capacity;
    }
    e = calloc(1, sizeof *e);
    if (!e)
        return NULL;
    memcpy(e->name, name.data, name.len);
    weir_list_init(&e->plans);
    size_t place = place_of(c, name);
    memmove(c->names + place + 1, c->names + place,
            (c->name_count - place) * sizeof(struct weir_entry *));
    c->names[place] = e;
    c->name_count++;
    return e;
}

void
weir_entry_forget(struct weir_catalog *c, struct weir_entry *e)
{
    size_t place = place_of(c, weir_bytes_of(e->name));
    WEIR_ASSERT(c->names[place] == e);
    c->name_count--;
    memmove(c->names + place, c->names + place + 1,
            (c->name_count - place) * sizeof(struct weir_entry *));
    free_entry(e);
}

bool
weir_entry_reserve(struct weir_entry *e, uint32_t shards, uint32_t open)
{
    struct weir_stream *s = &e->stream;
    if (s->shard_count + shards > e->shard_capacity) {
        uint32_t capacity = s->shard_count + s->shard_count / 4 + shards + 2;
        struct weir_shard *list = realloc(s->shards, capacity * sizeof *list);
        if (!list)
            return false;
        s->shards = list;
        e->shard_capacity = capacity;
    }
    if (s->open_count + open > e->ring_capacity) {
        uint32_t capacity = s->open_count + s->open_count / 4 + open + 2;
        uint32_t *ring = realloc(e->ring, capacity * sizeof *ring);
        if (!ring)
            return false;
        s->ring = e->ring = ring;
        e->ring_capacity = capacity;
    }
    return true;
}

/* ---- opening ---- */

struct loading {
    struct weir_catalog *catalog;
    struct weir_error *err;
};

static enum weir_status
fail_row(struct loading *l, enum weir_status st, const char *key, const char *why)
{
    return weir_fail(l->err, st, "catalog row '%s': %s", key, why);
}

static enum weir_status
load_other(void *arg, const char *key, struct weir_bytes value, uint64_t version)
{
    (void)version;
    struct loading *l = arg;
    struct weir_catalog *c = l->catalog;
    if (strcmp(key, WEIR_ROW_NUMBERS) == 0) {
        enum weir_status st = weir_row_numbers_decode(value, &c->next_stream, &c->next_shard);
        return st ? fail_row(l, st, key, weir_status_text(st)) : WEIR_OK;
    }
    uint8_t id[16];
    if (strcmp(key, WEIR_ROW_ID) != 0)
        return WEIR_OK;
    if (weir_hex_decode(value, id, sizeof id))
        return fail_row(l, WEIR_DAMAGED, key, "not 32 hex digits");
    weir_hex_encode(weir_bytes(id, sizeof id), c->id);
    return WEIR_OK;
}

static enum weir_status
load_stream(void *arg, const char *key, struct weir_bytes value, uint64_t version)
{
    struct loading *l = arg;
    struct weir_catalog *c = l->catalog;
    struct weir_stream s;
    enum weir_status st = weir_row_stream_decode(key, value, &s);
    if (st)
        return fail_row(l, st, key, weir_status_text(st));
    if (s.number >= c->next_stream)
        return fail_row(l, WEIR_DAMAGED, key, "its number was never given out");
    struct weir_entry *e = weir_entry_ensure(c, weir_bytes_of(s.name));
    if (!e)
        return fail_row(l, WEIR_NO_MEMORY, key, "out of memory");
    st = weir_map_put(&c->numbers, s.number, e);
    if (st == WEIR_EXISTS)
        return fail_row(l, WEIR_DAMAGED, key, "another stream has its number");
    /* How many shards it has is believed when their rows come. */
    if (st)
        return fail_row(l, st, key, weir_status_text(st));
    uint32_t shard_count = s.shard_count;
    s.shard_count = 0;
    e->stream = s;
    e->row_version = version;
    e->visible = true;
    e->listed = shard_count;
    c->visible_count++;
    return WEIR_OK;
}

static enum weir_status
load_shard(void *arg, const char *key, struct weir_bytes value, uint64_t version)
{
    (void)version;
    struct loading *l = arg;
    struct weir_catalog *c = l->catalog;
    uint64_t number;
    struct weir_shard shard;
    enum weir_status st = weir_row_shard_decode(key, value, &number, &shard);
    if (st)
        return fail_row(l, st, key, weir_status_text(st));
    struct weir_entry *e = weir_map_get(&c->numbers, number);
    if (!e)
        return fail_row(l, WEIR_DAMAGED, key, "its stream is not there");
    if (shard.index != e->stream.shard_count)
        return fail_row(l, WEIR_DAMAGED, key, "the shard before it is not there");
    if (shard.number >= c->next_shard)
        return fail_row(l, WEIR_DAMAGED, key, "its number was never given out");
    if (!weir_entry_reserve(e, 1, 0))
        return fail_row(l, WEIR_NO_MEMORY, key, "out of memory");
    e->stream.shards[e->stream.shard_count++] = shard;
    return WEIR_OK;
}

static bool
lineage_holds(const struct weir_stream *s)
{
    for (uint32_t i = 0; i < s->shard_count; i++) {
        const struct weir_shard *shard = &s->shards[i];
        const int32_t parents[] = {shard->parent, shard->adjacent_parent};
        for (int k = 0; k < 2; k++) {
            if (parents[k] >= (int32_t)i)
                return false;
            if (parents[k] >= 0 && s->shards[parents[k]].child[0] != (int32_t)i &&
                s->shards[parents[k]].child[1] != (int32_t)i)
                return false;
            if (shard->child[k] >= 0 &&
                (shard->child[k] <= (int32_t)i || shard->child[k] >= (int32_t)s->shard_count))
                return false;
        }
    }
    return true;
}

static int
compare_open(const void *a, const void *b, void *shards)
{
    const struct weir_shard *list = shards;
    weir_u128 x = list[*(const uint32_t *)a].range.low, y = list[*(const uint32_t *)b].range.low;
    return (x > y) - (x < y);
}

/* Finds the open shards and sorts them; false: they do not partition the ring. */
static bool
build_ring(struct weir_entry *e)
{
    struct weir_stream *s = &e->stream;
    for (uint32_t i = 0; i < s->shard_count; i++) {
        if (!s->shards[i].closed_ms)
            e->ring[s->open_count++] = i;
        e->listed += !s->shards[i].expired;
    }
    qsort_r(e->ring, s->open_count, sizeof *e->ring, compare_open, s->shards);
    s->ring = e->ring;
    weir_u128 next = 0;
    for (uint32_t place = 0; place < s->open_count; place++) {
        struct weir_hash_range r = s->shards[e->ring[place]].range;
        if (r.low != next || (place > 0 && next == 0))
            return false;
        next = r.high + 1;
    }
    return s->open_count > 0 && next == 0;
}

/* All rows are read: what they say together. */
static enum weir_status
finish_stream(struct loading *l, struct weir_entry *e)
{
    struct weir_stream *s = &e->stream;
    char key[WEIR_ROW_KEY_MAX];
    weir_row_stream_key(s->name, key);
    if (s->shard_count != e->listed)
        return fail_row(l, WEIR_DAMAGED, key, "shards of it are not there");
    e->listed = 0;
    /* No more than it needs: a catalog of many idle shards is to be small. */
    struct weir_shard *shards = realloc(s->shards, s->shard_count * sizeof *shards);
    if (shards) {
        s->shards = shards;
        e->shard_capacity = s->shard_count;
    }
    uint32_t open = 0;
    for (uint32_t i = 0; i < s->shard_count; i++)
        open += !s->shards[i].closed_ms;
    e->ring = calloc(open + 1, sizeof *e->ring);
    if (!e->ring)
        return fail_row(l, WEIR_NO_MEMORY, key, "out of memory");
    e->ring_capacity = open + 1;
    if (!lineage_holds(s))
        return fail_row(l, WEIR_DAMAGED, key, "parents and children of its shards do not match");
    if (!build_ring(e))
        return fail_row(l, WEIR_DAMAGED, key, "its open shards do not cover the hash keys");
    l->catalog->shard_total += e->listed;
    return WEIR_OK;
}

static enum weir_status
load(struct weir_catalog *c, struct weir_error *err)
{
    struct loading l = {c, err};
    enum weir_status st = weir_meta_scan(c->meta, "catalog/", load_other, &l, err);
    if (!st)
        st = weir_meta_scan(c->meta, "stream/", load_stream, &l, err);
    if (!st)
        st = weir_meta_scan(c->meta, "shard/", load_shard, &l, err);
    for (size_t i = 0; !st && i < c->name_count; i++)
        st = finish_stream(&l, c->names[i]);
    if (!st && c->name_count && !*c->id)
        st = fail_row(&l, WEIR_DAMAGED, WEIR_ROW_ID, "not there");
    return st;
}

static enum weir_status
make_identity(struct weir_catalog *c, struct weir_error *err)
{
    weir_u128 id = weir_random_id();
    weir_hex_encode(weir_bytes(&id, sizeof id), c->id);
    struct weir_meta_commit commit = {0};
    weir_meta_put(&commit, WEIR_ROW_ID, weir_bytes(c->id, 32), 0);
    return weir_meta_commit_now(c->meta, &commit, err);
}

enum weir_status
weir_catalog_open(struct weir_meta *meta, struct weir_clock *clock, struct weir_catalog **out,
                  struct weir_error *err)
{
    struct weir_catalog *c = calloc(1, sizeof *c);
    if (!c)
        return weir_fail(err, WEIR_NO_MEMORY, "cannot open the catalog: out of memory");
    c->meta = meta;
    c->clock = clock;
    c->next_stream = c->next_shard = 1;
    weir_map_init(&c->numbers, 0);
    enum weir_status st = load(c, err);
    if (!st && !*c->id)
        st = make_identity(c, err);
    if (st) {
        weir_catalog_close(c);
        return st;
    }
    *out = c;
    return WEIR_OK;
}

void
weir_catalog_close(struct weir_catalog *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < c->name_count; i++) {
        WEIR_ASSERT(weir_list_is_empty(&c->names[i]->plans));
        free_entry(c->names[i]);
    }
    free(c->names);
    weir_map_fini(&c->numbers);
    free(c);
}
