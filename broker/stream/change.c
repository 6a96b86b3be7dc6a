/* A change on its way:
 *
 *   call     its plan goes to the end of its stream's queue; the first of the queue is begun
 *   begin    checks it against the stream as it is; reserves memory, so that nothing can fail
 *            later; writes rows (the stream's with its version, the shards' that change, the
 *            numbers) as one commit
 *   durable  the stream in memory becomes what the rows say; the next of the queue is begun; done
 *
 * A change that is refused goes through an empty commit, so that its answer comes later and in
 * order. */
#include "base/assert.h"
#include "inside.h"
#include "record/sequence.h"
#include "row.h"
#include <stdlib.h>

enum plan_kind { CREATE, BEGIN_DELETE, FINISH_DELETE, RETENTION, EXPIRE, RESHARD };

struct plan {
    struct weir_list node;
    struct weir_change *change;
    struct weir_entry *entry;
    enum plan_kind kind;
    uint64_t number; /* the stream's; of a create: to be */

    struct weir_stream fresh; /* create: with shards and ring, the plan's */
    uint64_t retention_ms, retention_bytes;
    struct weir_reshard reshard;
    uint64_t ends[2];
    struct weir_shard parents[2], children[2]; /* as they will be */
    size_t index_count;
    uint32_t indexes[]; /* expire */
};

/* ---- rows ---- */

static void
put_stream(struct weir_meta_commit *c, const struct weir_stream *s, const char *name,
           uint64_t expect)
{
    char key[WEIR_ROW_KEY_MAX];
    struct weir_disk_stream row;
    weir_row_stream_key(name, key);
    weir_row_stream_encode(s, &row);
    weir_meta_put(c, key, weir_bytes(&row, sizeof row), expect);
}

static void
put_shard(struct weir_meta_commit *c, uint64_t stream, const struct weir_shard *shard,
          uint64_t expect)
{
    char key[WEIR_ROW_KEY_MAX];
    struct weir_disk_shard row;
    weir_row_shard_key(stream, shard->index, key);
    weir_row_shard_encode(shard, &row);
    weir_meta_put(c, key, weir_bytes(&row, sizeof row), expect);
}

static void
put_numbers(struct weir_catalog *c, struct weir_meta_commit *commit)
{
    struct weir_disk_numbers row = {
        .form = 1,
        .next_stream = weir_put64(c->next_stream),
        .next_shard = weir_put64(c->next_shard),
    };
    weir_meta_put(commit, WEIR_ROW_NUMBERS, weir_bytes(&row, sizeof row), WEIR_META_ANY);
}

/* ---- beginning a change ----
 *
 * Each begin_ checks, reserves and adds its operations; it leaves the stream as it is. */

static enum weir_status
no_memory(struct weir_change *change)
{
    return weir_fail(&change->err, WEIR_NO_MEMORY, "out of memory");
}

static enum weir_status
check_shard_total(const struct weir_catalog *c, uint64_t more, struct weir_error *err)
{
    if (c->shard_total + more > WEIR_SHARDS_MAX)
        return weir_fail(err, WEIR_TOO_BIG, "%u shards more would be over the limit of %d in all",
                         (unsigned)more, WEIR_SHARDS_MAX);
    return WEIR_OK;
}

static enum weir_status
begin_create(struct weir_catalog *c, struct plan *p)
{
    struct weir_change *change = p->change;
    struct weir_stream *s = &p->fresh;
    if (p->entry->visible)
        return weir_fail(&change->err, WEIR_EXISTS, "Stream %s already exists.", p->entry->name);
    if (c->name_count > WEIR_STREAMS_MAX)
        return weir_fail(&change->err, WEIR_TOO_BIG, "the limit is %d streams", WEIR_STREAMS_MAX);
    enum weir_status st = check_shard_total(c, s->shard_count, &change->err);
    if (st)
        return st;
    s->shards = calloc(s->shard_count, sizeof *s->shards);
    uint32_t *ring = calloc(s->shard_count, sizeof *ring);
    s->ring = ring;
    if (!s->shards || !ring)
        return no_memory(change);
    s->number = c->next_stream;
    st = weir_map_put(&c->numbers, s->number, p->entry);
    if (st)
        return no_memory(change);
    c->next_stream++;

    p->number = s->number;
    memcpy(s->name, p->entry->name, sizeof s->name);
    s->state = WEIR_STATE_ACTIVE;
    s->created_ms = weir_now_ms(c->clock);
    s->version = 1;
    s->open_count = s->shard_count;
    put_stream(&change->commit, s, s->name, p->entry->row_version);
    for (uint32_t i = 0; i < s->shard_count; i++) {
        s->shards[i] = (struct weir_shard){
            .number = c->next_shard++,
            .index = i,
            .range = weir_hash_range_of(i, s->shard_count),
            .parent = -1,
            .adjacent_parent = -1,
            .child = {-1, -1},
            .created_ms = s->created_ms,
        };
        ring[i] = i;
        put_shard(&change->commit, s->number, &s->shards[i], 0);
    }
    put_numbers(c, &change->commit);
    c->shard_total += s->shard_count;
    return WEIR_OK;
}

static enum weir_status
refuse_state(struct plan *p)
{
    static const char *const names[] = {"CREATING", "ACTIVE", "UPDATING", "DELETING"};
    return weir_fail(&p->change->err, WEIR_BUSY, "Stream %s not ACTIVE, instead in state %s",
                     p->entry->name, names[p->entry->stream.state]);
}

static enum weir_status
begin_delete(struct plan *p)
{
    struct weir_stream next = p->entry->stream;
    next.state = WEIR_STATE_DELETING;
    put_stream(&p->change->commit, &next, next.name, p->entry->row_version);
    return WEIR_OK;
}

static enum weir_status
begin_finish_delete(struct plan *p)
{
    const struct weir_stream *s = &p->entry->stream;
    if (s->state != WEIR_STATE_DELETING)
        return weir_fail(&p->change->err, WEIR_BUSY, "Stream %s is not being deleted", s->name);
    char key[WEIR_ROW_KEY_MAX];
    weir_row_stream_key(s->name, key);
    weir_meta_delete(&p->change->commit, key, p->entry->row_version);
    for (uint32_t i = 0; i < s->shard_count; i++) {
        weir_row_shard_key(s->number, i, key);
        weir_meta_delete(&p->change->commit, key, WEIR_META_ANY);
    }
    return WEIR_OK;
}

static enum weir_status
check_retention(uint64_t retention_ms, struct weir_error *err)
{
    if (retention_ms >= WEIR_RETENTION_MS_MIN && retention_ms <= WEIR_RETENTION_MS_MAX)
        return WEIR_OK;
    return weir_fail(err, WEIR_INVALID, "retention is from %llu to %llu hours",
                     WEIR_RETENTION_MS_MIN / 3600000, WEIR_RETENTION_MS_MAX / 3600000);
}

static enum weir_status
begin_retention(struct plan *p)
{
    enum weir_status st = check_retention(p->retention_ms, &p->change->err);
    if (st)
        return st;
    struct weir_stream next = p->entry->stream;
    next.retention_ms = p->retention_ms;
    next.retention_bytes = p->retention_bytes;
    put_stream(&p->change->commit, &next, next.name, p->entry->row_version);
    return WEIR_OK;
}

static enum weir_status
begin_expire(struct plan *p)
{
    const struct weir_stream *s = &p->entry->stream;
    for (size_t i = 0; i < p->index_count; i++) {
        if (p->indexes[i] >= s->shard_count || !s->shards[p->indexes[i]].closed_ms)
            return weir_fail(&p->change->err, WEIR_INVALID,
                             "shard %u of stream %s is not closed, it cannot expire", p->indexes[i],
                             s->name);
        struct weir_shard next = s->shards[p->indexes[i]];
        next.expired = true;
        put_shard(&p->change->commit, s->number, &next, WEIR_META_ANY);
    }
    struct weir_stream next = *s;
    next.version++;
    put_stream(&p->change->commit, &next, next.name, p->entry->row_version);
    return WEIR_OK;
}

/* The children's ranges are the parents', in order, without gap. */
static bool
ranges_match(const struct weir_stream *s, const struct weir_reshard *r)
{
    if (r->parent_count == 1 && r->child_count == 2) {
        struct weir_hash_range whole = s->shards[r->parent[0]].range;
        return r->child_range[0].low == whole.low && r->child_range[1].high == whole.high &&
               r->child_range[0].low <= r->child_range[0].high &&
               r->child_range[1].low <= r->child_range[1].high &&
               r->child_range[1].low - r->child_range[0].high == 1;
    }
    if (r->parent_count != 2 || r->child_count != 1 || r->parent[0] == r->parent[1])
        return false;
    struct weir_hash_range a = s->shards[r->parent[0]].range, b = s->shards[r->parent[1]].range;
    struct weir_hash_range low = a.low < b.low ? a : b, high = a.low < b.low ? b : a;
    return high.low - low.high == 1 && r->child_range[0].low == low.low &&
           r->child_range[0].high == high.high;
}

static enum weir_status
check_reshard(const struct plan *p)
{
    const struct weir_stream *s = &p->entry->stream;
    const struct weir_reshard *r = &p->reshard;
    for (uint32_t i = 0; i < r->parent_count; i++) {
        if (i >= 2 || r->parent[i] >= s->shard_count)
            return weir_fail(&p->change->err, WEIR_INVALID, "no such shard in stream %s", s->name);
        if (s->shards[r->parent[i]].closed_ms) {
            char id[WEIR_SHARD_ID_LEN + 1];
            weir_shard_id_format(r->parent[i], id);
            return weir_fail(
                &p->change->err, WEIR_INVALID,
                "Shard %s in stream %s has already been merged or split, and thus is not "
                "eligible for merging or splitting.",
                id, s->name);
        }
    }
    if (!ranges_match(s, r))
        return weir_fail(&p->change->err, WEIR_INVALID,
                         "ranges of a reshard of stream %s do not match", s->name);
    return WEIR_OK;
}

static enum weir_status
begin_reshard(struct weir_catalog *c, struct plan *p)
{
    struct weir_entry *e = p->entry;
    const struct weir_reshard *r = &p->reshard;
    enum weir_status st = check_reshard(p);
    if (!st)
        st = check_shard_total(c, r->child_count, &p->change->err);
    if (!st && e->stream.shard_count > INT32_MAX - 2)
        st = weir_fail(&p->change->err, WEIR_TOO_BIG, "stream %s has used up its shard indexes",
                       e->stream.name);
    if (st)
        return st;
    if (!weir_entry_reserve(e, r->child_count, 1))
        return no_memory(p->change);

    /* A sequence number begins with the second its shard was made in: a child's is after its
     * parents', so that numbers of one key grow over a reshard. */
    const struct weir_stream *s = &e->stream;
    uint64_t closed_ms = weir_now_ms(c->clock);
    for (uint32_t i = 0; i < r->parent_count; i++)
        if (s->shards[r->parent[i]].created_ms > closed_ms)
            closed_ms = s->shards[r->parent[i]].created_ms;
    uint64_t created_ms = (closed_ms / 1000 + 1) * 1000;

    struct weir_meta_commit *commit = &p->change->commit;
    for (uint32_t i = 0; i < r->parent_count; i++) {
        struct weir_shard *parent = &p->parents[i];
        *parent = s->shards[r->parent[i]];
        parent->closed_ms = created_ms - 1;
        parent->end = p->ends[i];
        for (uint32_t k = 0; k < r->child_count; k++)
            parent->child[k] = (int32_t)(s->shard_count + k);
        put_shard(commit, s->number, parent, WEIR_META_ANY);
    }
    for (uint32_t k = 0; k < r->child_count; k++) {
        p->children[k] = (struct weir_shard){
            .number = c->next_shard++,
            .index = s->shard_count + k,
            .range = r->child_range[k],
            .parent = (int32_t)r->parent[0],
            .adjacent_parent = r->parent_count == 2 ? (int32_t)r->parent[1] : -1,
            .child = {-1, -1},
            .created_ms = created_ms,
        };
        put_shard(commit, s->number, &p->children[k], 0);
    }
    struct weir_stream next = *s;
    next.shard_count += r->child_count;
    next.version++;
    put_stream(commit, &next, next.name, e->row_version);
    put_numbers(c, commit);
    c->shard_total += r->child_count;
    return WEIR_OK;
}

static enum weir_status
begin(struct weir_catalog *c, struct plan *p)
{
    struct weir_entry *e = p->entry;
    if (p->kind == CREATE)
        return begin_create(c, p);
    if (!e->visible || e->stream.number != p->number)
        return weir_fail(&p->change->err, WEIR_NOT_FOUND, "Stream %s not found.", e->name);
    if (p->kind == FINISH_DELETE)
        return begin_finish_delete(p);
    if (e->stream.state == WEIR_STATE_DELETING)
        return refuse_state(p);
    switch (p->kind) {
    case BEGIN_DELETE:
        return begin_delete(p);
    case RETENTION:
        return begin_retention(p);
    case EXPIRE:
        return begin_expire(p);
    default:
        return begin_reshard(c, p);
    }
}

/* ---- what a durable change makes of the stream ---- */

static void
apply_reshard(struct weir_entry *e, const struct plan *p)
{
    struct weir_stream *s = &e->stream;
    const struct weir_reshard *r = &p->reshard;
    for (uint32_t i = 0; i < r->parent_count; i++)
        s->shards[r->parent[i]] = p->parents[i];
    for (uint32_t k = 0; k < r->child_count; k++)
        s->shards[s->shard_count + k] = p->children[k];

    uint32_t place = 0;
    while (s->shards[e->ring[place]].range.low != r->child_range[0].low)
        place++;
    memmove(e->ring + place + r->child_count, e->ring + place + r->parent_count,
            (s->open_count - place - r->parent_count) * sizeof *e->ring);
    for (uint32_t k = 0; k < r->child_count; k++)
        e->ring[place + k] = s->shard_count + k;
    s->shard_count += r->child_count;
    s->open_count += r->child_count;
    s->open_count -= r->parent_count;
    e->listed += r->child_count;
    s->version++;
}

static void
apply(struct weir_catalog *c, struct plan *p)
{
    struct weir_entry *e = p->entry;
    struct weir_stream *s = &e->stream;
    e->row_version++;
    switch (p->kind) {
    case CREATE:
        *s = p->fresh;
        e->ring = (uint32_t *)(uintptr_t)p->fresh.ring;
        e->shard_capacity = e->ring_capacity = e->listed = s->shard_count;
        p->fresh = (struct weir_stream){0};
        e->visible = true;
        c->visible_count++;
        break;
    case BEGIN_DELETE:
        s->state = WEIR_STATE_DELETING;
        break;
    case FINISH_DELETE:
        weir_map_take(&c->numbers, s->number);
        c->shard_total -= e->listed;
        c->visible_count--;
        e->visible = false;
        e->row_version = 0;
        weir_entry_drop_stream(e);
        break;
    case RETENTION:
        s->retention_ms = p->retention_ms;
        s->retention_bytes = p->retention_bytes;
        break;
    case EXPIRE:
        for (size_t i = 0; i < p->index_count; i++) {
            struct weir_shard *shard = &s->shards[p->indexes[i]];
            c->shard_total -= !shard->expired;
            e->listed -= !shard->expired;
            shard->expired = true;
        }
        s->version++;
        break;
    case RESHARD:
        apply_reshard(e, p);
        break;
    }
}

/* What begin reserved is given back; numbers are not. */
static void
give_back(struct weir_catalog *c, struct plan *p)
{
    if (p->kind == CREATE) {
        weir_map_take(&c->numbers, p->number);
        c->shard_total -= p->fresh.shard_count;
    } else if (p->kind == RESHARD) {
        c->shard_total -= p->reshard.child_count;
    }
}

/* ---- the way of a change ---- */

static void
free_plan(struct plan *p)
{
    free(p->fresh.shards);
    free((void *)(uintptr_t)p->fresh.ring);
    free(p);
}

static void answered(struct weir_meta_commit *commit, enum weir_status st);

/* Answers with err, later. */
static void
refuse(struct weir_catalog *c, struct weir_change *change)
{
    WEIR_ASSERT(change->err.status);
    change->plan = NULL;
    weir_meta_commit(c->meta, &change->commit);
}

static void
init_change(struct weir_catalog *c, struct weir_change *change)
{
    change->err = (struct weir_error){0};
    change->stream = NULL;
    change->catalog = c;
    change->plan = NULL;
    change->commit = (struct weir_meta_commit){.done = answered};
}

/* Begins the first of the queue; those that are refused leave it at once. */
static void
begin_next(struct weir_catalog *c, struct weir_entry *e)
{
    while (!weir_list_is_empty(&e->plans)) {
        struct plan *p = WEIR_CONTAINER(e->plans.next, struct plan, node);
        if (!begin(c, p)) {
            weir_meta_commit(c->meta, &p->change->commit);
            return;
        }
        weir_list_remove(&p->node);
        refuse(c, p->change);
        free_plan(p);
    }
    if (!e->visible)
        weir_entry_forget(c, e);
}

static void
answered(struct weir_meta_commit *commit, enum weir_status st)
{
    struct weir_change *change = WEIR_CONTAINER(commit, struct weir_change, commit);
    struct weir_catalog *c = change->catalog;
    struct plan *p = change->plan;
    if (!p) {
        change->done(change, change->err.status);
        return;
    }
    struct weir_entry *e = p->entry;
    if (st) {
        give_back(c, p);
        const char *name = p->kind == CREATE ? e->name : e->stream.name;
        st = weir_fail(&change->err, st, "cannot store the change of stream '%s': %s", name,
                       weir_status_text(st));
    } else {
        apply(c, p);
        change->stream = e->visible ? &e->stream : NULL;
    }
    weir_list_remove(&p->node);
    free_plan(p);
    /* The next one changes nothing before it is durable: `stream` stays what it is during done. */
    begin_next(c, e);
    change->done(change, st);
}

static void
enqueue(struct weir_catalog *c, struct plan *p)
{
    struct weir_entry *e = p->entry;
    bool first = weir_list_is_empty(&e->plans);
    weir_list_push_back(&e->plans, &p->node);
    if (first)
        begin_next(c, e);
}

/* A plan for a stream that is there; NULL: the change was refused. */
static struct plan *
new_plan(struct weir_catalog *c, struct weir_change *change, enum plan_kind kind, uint64_t number,
         size_t index_count)
{
    init_change(c, change);
    if (!weir_catalog_find_number(c, number)) {
        (void)!weir_fail(&change->err, WEIR_NOT_FOUND, "Stream %llu not found.",
                         (unsigned long long)number);
        refuse(c, change);
        return NULL;
    }
    struct plan *p = calloc(1, sizeof *p + index_count * sizeof *p->indexes);
    if (!p) {
        (void)!no_memory(change);
        refuse(c, change);
        return NULL;
    }
    p->change = change;
    p->entry = weir_map_get(&c->numbers, number);
    p->kind = kind;
    p->number = number;
    p->index_count = index_count;
    change->plan = p;
    return p;
}

static enum weir_status
check_spec(const struct weir_stream_spec *spec, struct weir_error *err)
{
    if (!weir_stream_name_is_valid(spec->name))
        return weir_fail(err, WEIR_INVALID,
                         "a stream's name has 1 to %d of the characters a-z A-Z 0-9 _ . -",
                         WEIR_STREAM_NAME_MAX);
    if (spec->shard_count < 1)
        return weir_fail(err, WEIR_INVALID, "a stream has at least one shard");
    if (spec->shard_count > WEIR_SHARDS_PER_STREAM_MAX)
        return weir_fail(err, WEIR_TOO_BIG, "a stream has at most %d shards",
                         WEIR_SHARDS_PER_STREAM_MAX);
    if (spec->record_bytes_max > WEIR_RECORD_BYTES_MAX)
        return weir_fail(err, WEIR_INVALID, "a record has at most %zu bytes",
                         WEIR_RECORD_BYTES_MAX);
    return spec->retention_ms ? check_retention(spec->retention_ms, err) : WEIR_OK;
}

void
weir_catalog_create(struct weir_catalog *c, const struct weir_stream_spec *spec,
                    struct weir_change *change)
{
    init_change(c, change);
    struct plan *p = NULL;
    struct weir_entry *e = NULL;
    if (!check_spec(spec, &change->err)) {
        p = calloc(1, sizeof *p);
        e = p ? weir_entry_ensure(c, spec->name) : NULL;
        if (!e)
            (void)!no_memory(change);
    }
    if (!e) {
        free(p);
        refuse(c, change);
        return;
    }
    p->change = change;
    p->entry = e;
    p->kind = CREATE;
    p->fresh = (struct weir_stream){
        .shard_count = spec->shard_count,
        .retention_ms = spec->retention_ms ? spec->retention_ms : WEIR_RETENTION_MS_DEFAULT,
        .retention_bytes = spec->retention_bytes,
        .record_bytes_max =
            spec->record_bytes_max ? spec->record_bytes_max : WEIR_RECORD_BYTES_DEFAULT,
    };
    change->plan = p;
    enqueue(c, p);
}

void
weir_catalog_begin_delete(struct weir_catalog *c, uint64_t stream, struct weir_change *change)
{
    struct plan *p = new_plan(c, change, BEGIN_DELETE, stream, 0);
    if (p)
        enqueue(c, p);
}

void
weir_catalog_finish_delete(struct weir_catalog *c, uint64_t stream, struct weir_change *change)
{
    struct plan *p = new_plan(c, change, FINISH_DELETE, stream, 0);
    if (p)
        enqueue(c, p);
}

void
weir_catalog_set_retention(struct weir_catalog *c, uint64_t stream, uint64_t retention_ms,
                           uint64_t retention_bytes, struct weir_change *change)
{
    struct plan *p = new_plan(c, change, RETENTION, stream, 0);
    if (!p)
        return;
    p->retention_ms = retention_ms;
    p->retention_bytes = retention_bytes;
    enqueue(c, p);
}

void
weir_catalog_expire(struct weir_catalog *c, uint64_t stream, const uint32_t *indexes, size_t count,
                    struct weir_change *change)
{
    struct plan *p = new_plan(c, change, EXPIRE, stream, count);
    if (!p)
        return;
    if (count)
        memcpy(p->indexes, indexes, count * sizeof *indexes);
    enqueue(c, p);
}

void
weir_catalog_reshard(struct weir_catalog *c, uint64_t stream, const struct weir_reshard *plan,
                     const uint64_t *parent_ends, struct weir_change *change)
{
    struct plan *p = new_plan(c, change, RESHARD, stream, 0);
    if (!p)
        return;
    p->reshard = *plan;
    for (uint32_t i = 0; i < plan->parent_count && i < 2; i++)
        p->ends[i] = parent_ends[i];
    enqueue(c, p);
}

void
weir_catalog_set_updating(struct weir_catalog *c, uint64_t stream, bool updating)
{
    struct weir_entry *e = weir_map_get(&c->numbers, stream);
    if (!e || !e->visible || e->stream.state == WEIR_STATE_DELETING)
        return;
    struct weir_stream *s = &e->stream;
    s->state = updating ? WEIR_STATE_UPDATING : WEIR_STATE_ACTIVE;
    s->update_first = s->shard_count;
    s->update_open = s->open_count;
}
