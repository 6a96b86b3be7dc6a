/* Changes wait; when no commit is on its way, all that wait are the batch:
 *
 *   waiting ──> batch: in order, each against the rows as the ones before it leave them
 *           ──> drafts: the rows as they will be, one for each row that changes
 *           ──> one commit ──> durable: drafts become the rows; each change is answered
 *
 * So a row that is set a thousand times while a commit is on its way is written once. A batch fails
 * as a whole; then its drafts are forgotten.
 *
 *   keys      "lease/…" -> entry
 *   streams   number -> entries of the stream, sorted when somebody asks for them in order */
#include "lease/lease.h"
#include "base/assert.h"
#include "base/map.h"
#include "row.h"
#include "stream/stream.h"
#include <stdlib.h>

struct draft {
    struct weir_list node;
    struct entry *entry;
    bool deleted;
    struct weir_checkpoint_row row;
};

struct entry {
    struct weir_checkpoint_row row;
    bool visible;        /* `row` is durable */
    struct draft *draft; /* NULL: the batch does not change it */
    size_t place;        /* in the stream's list */
    size_t key_len;
    char key[];
};

struct entries {
    uint64_t stream;
    struct entry **list;
    size_t count, capacity;
    bool sorted;
};

struct weir_leases {
    struct weir_meta *meta;
    struct weir_clock *clock;
    struct weir_map keys, streams;
    struct weir_list waiting, batch, drafts;
    bool busy;
    enum weir_status batch_st; /* NO_MEMORY: the batch fails whatever its commit says */
    struct weir_meta_commit commit;
};

enum change_kind { ACQUIRE, CHECKPOINT, RESET, DROP_STREAM };

/* ---- entries ---- */

static struct entry *
find_entry(const struct weir_leases *l, uint64_t stream, struct weir_bytes consumer, uint32_t shard)
{
    char key[WEIR_LEASE_KEY_MAX];
    if (!weir_stream_name_is_valid(consumer))
        return NULL;
    size_t len = weir_lease_key(stream, consumer, shard, key);
    return weir_map_get_text(&l->keys, weir_bytes(key, len));
}

static struct entries *
ensure_stream(struct weir_leases *l, uint64_t stream)
{
    struct entries *s = weir_map_get(&l->streams, stream);
    if (s)
        return s;
    s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->stream = stream;
    s->sorted = true;
    if (weir_map_put(&l->streams, stream, s)) {
        free(s);
        return NULL;
    }
    return s;
}

/* The entry, made if need be (not visible). NULL: no memory. */
static struct entry *
ensure_entry(struct weir_leases *l, uint64_t stream, struct weir_bytes consumer, uint32_t shard)
{
    char key[WEIR_LEASE_KEY_MAX];
    size_t len = weir_lease_key(stream, consumer, shard, key);
    struct entry *e = weir_map_get_text(&l->keys, weir_bytes(key, len));
    if (e)
        return e;
    struct entries *s = ensure_stream(l, stream);
    if (!s)
        return NULL;
    if (s->count == s->capacity) {
        size_t capacity = s->capacity ? 2 * s->capacity : 4;
        struct entry **list = realloc(s->list, capacity * sizeof(struct entry *));
        if (!list)
            return NULL;
        s->list = list;
        s->capacity = capacity;
    }
    e = calloc(1, sizeof *e + len + 1);
    if (!e)
        return NULL;
    e->row.stream = stream;
    e->row.shard = shard;
    memcpy(e->row.consumer, consumer.data, consumer.len);
    memcpy(e->key, key, len + 1);
    e->key_len = len;
    if (weir_map_put_text(&l->keys, weir_bytes(e->key, len), e)) {
        free(e);
        return NULL;
    }
    e->place = s->count;
    s->list[s->count++] = e;
    s->sorted = false;
    return e;
}

static void
remove_entry(struct weir_leases *l, struct entry *e)
{
    struct entries *s = weir_map_get(&l->streams, e->row.stream);
    struct entry *last = s->list[--s->count];
    s->list[e->place] = last;
    last->place = e->place;
    s->sorted = false;
    weir_map_take_text(&l->keys, weir_bytes(e->key, e->key_len));
    free(e);
    if (s->count)
        return;
    weir_map_take(&l->streams, s->stream);
    free(s->list);
    free(s);
}

static int
compare_entries(const void *a, const void *b)
{
    const struct entry *x = *(struct entry *const *)a, *y = *(struct entry *const *)b;
    int order = strcmp(x->row.consumer, y->row.consumer);
    return order ? order : (x->row.shard > y->row.shard) - (x->row.shard < y->row.shard);
}

const struct weir_checkpoint_row *
weir_lease_find(const struct weir_leases *l, uint64_t stream, struct weir_bytes consumer,
                uint32_t shard)
{
    const struct entry *e = find_entry(l, stream, consumer, shard);
    return e && e->visible ? &e->row : NULL;
}

void
weir_lease_each(const struct weir_leases *l, uint64_t stream, const struct weir_bytes *consumer,
                void (*each)(void *arg, const struct weir_checkpoint_row *row), void *arg)
{
    struct entries *s = weir_map_get(&l->streams, stream);
    if (!s)
        return;
    if (!s->sorted) {
        qsort(s->list, s->count, sizeof(struct entry *), compare_entries);
        for (size_t i = 0; i < s->count; i++)
            s->list[i]->place = i;
        s->sorted = true;
    }
    for (size_t i = 0; i < s->count; i++) {
        const struct entry *e = s->list[i];
        if (e->visible && (!consumer || weir_bytes_is(*consumer, e->row.consumer)))
            each(arg, &e->row);
    }
}

/* ---- the batch ---- */

/* The row as the changes before leave it; NULL: there is none. */
static const struct weir_checkpoint_row *
latest(const struct entry *e)
{
    if (!e)
        return NULL;
    if (e->draft)
        return e->draft->deleted ? NULL : &e->draft->row;
    return e->visible ? &e->row : NULL;
}

/* The row as it will be, for the caller to change. NULL: no memory. */
static struct weir_checkpoint_row *
draft(struct weir_leases *l, struct entry *e)
{
    struct draft *d = e->draft;
    if (!d) {
        d = malloc(sizeof *d);
        if (!d)
            return NULL;
        *d = (struct draft){.entry = e, .row = e->row};
        weir_list_push_back(&l->drafts, &d->node);
        e->draft = d;
    }
    if (d->deleted) {
        /* Begins anew. */
        d->row = (struct weir_checkpoint_row){.stream = e->row.stream, .shard = e->row.shard};
        memcpy(d->row.consumer, e->row.consumer, sizeof d->row.consumer);
    }
    d->deleted = false;
    d->row.updated_ms = weir_now_ms(l->clock);
    return &d->row;
}

static enum weir_status
acquire(struct weir_leases *l, struct weir_lease_change *change)
{
    const struct weir_checkpoint_row *asked = &change->row;
    struct entry *e = ensure_entry(l, asked->stream, weir_bytes_of(asked->consumer), asked->shard);
    struct weir_checkpoint_row *row = e ? draft(l, e) : NULL;
    if (!row)
        return WEIR_NO_MEMORY;
    row->epoch++;
    memcpy(row->owner, asked->owner, sizeof row->owner);
    change->row = *row;
    return WEIR_OK;
}

static enum weir_status
checkpoint(struct weir_leases *l, struct weir_lease_change *change)
{
    struct weir_checkpoint_row asked = change->row;
    struct weir_bytes consumer = weir_bytes_of(asked.consumer);
    struct entry *e = find_entry(l, asked.stream, consumer, asked.shard);
    const struct weir_checkpoint_row *now = latest(e);
    uint64_t epoch = now ? now->epoch : 0;
    if (asked.epoch != 0 && asked.epoch != epoch) {
        change->row = now ? *now : (struct weir_checkpoint_row){0};
        (void)!weir_fail(&change->err, WEIR_FENCED,
                         "consumer '%s' of shard %u has epoch %llu, the checkpoint came with %llu",
                         asked.consumer, asked.shard, (unsigned long long)epoch,
                         (unsigned long long)asked.epoch);
        return WEIR_OK;
    }
    if (!e)
        e = ensure_entry(l, asked.stream, consumer, asked.shard);
    struct weir_checkpoint_row *row = e ? draft(l, e) : NULL;
    if (!row)
        return WEIR_NO_MEMORY;
    if (asked.epoch == 0) {
        row->epoch++;
        row->owner[0] = '\0';
    }
    row->offset = asked.offset;
    row->shard_end = asked.shard_end;
    row->set = true;
    change->row = *row;
    return WEIR_OK;
}

static enum weir_status
reset(struct weir_leases *l, struct weir_lease_change *change)
{
    struct weir_checkpoint_row asked = change->row;
    change->row = (struct weir_checkpoint_row){0};
    struct entries *s = weir_map_get(&l->streams, asked.stream);
    for (size_t i = 0; s && i < s->count; i++) {
        struct entry *e = s->list[i];
        if (!latest(e) || strcmp(e->row.consumer, asked.consumer) != 0)
            continue;
        struct weir_checkpoint_row *row = draft(l, e);
        if (!row)
            return WEIR_NO_MEMORY;
        row->epoch++;
        row->owner[0] = '\0';
        row->offset = 0;
        row->set = row->shard_end = false;
    }
    return WEIR_OK;
}

static enum weir_status
drop_stream(struct weir_leases *l, struct weir_lease_change *change)
{
    struct entries *s = weir_map_get(&l->streams, change->row.stream);
    change->row = (struct weir_checkpoint_row){0};
    for (size_t i = 0; s && i < s->count; i++) {
        if (!latest(s->list[i]))
            continue;
        if (!draft(l, s->list[i]))
            return WEIR_NO_MEMORY;
        s->list[i]->draft->deleted = true;
    }
    return WEIR_OK;
}

/* Judges one change. Its own refusal is in its err; NO_MEMORY is the batch's. */
static enum weir_status
judge(struct weir_leases *l, struct weir_lease_change *change)
{
    if (change->err.status) {
        change->row = (struct weir_checkpoint_row){0};
        return WEIR_OK;
    }
    switch ((enum change_kind)change->kind) {
    case ACQUIRE:
        return acquire(l, change);
    case CHECKPOINT:
        return checkpoint(l, change);
    case RESET:
        return reset(l, change);
    case DROP_STREAM:
        return drop_stream(l, change);
    }
    return WEIR_OK;
}

static void
write_drafts(struct weir_leases *l)
{
    WEIR_LIST_FOR_EACH (node, &l->drafts) {
        const struct draft *d = WEIR_CONTAINER(node, struct draft, node);
        struct weir_lease_row_bytes bytes;
        if (d->deleted && d->entry->visible)
            weir_meta_delete(&l->commit, d->entry->key, WEIR_META_ANY);
        else if (!d->deleted)
            weir_meta_put(&l->commit, d->entry->key,
                          weir_bytes(&bytes, weir_lease_row_encode(&d->row, &bytes)),
                          WEIR_META_ANY);
    }
}

static void committed(struct weir_meta_commit *commit, enum weir_status st);

static void
start(struct weir_leases *l)
{
    if (weir_list_is_empty(&l->waiting))
        return;
    l->busy = true;
    l->batch_st = WEIR_OK;
    l->commit = (struct weir_meta_commit){.done = committed};
    struct weir_list *node;
    while ((node = weir_list_pop_front(&l->waiting))) {
        weir_list_push_back(&l->batch, node);
        if (!l->batch_st)
            l->batch_st = judge(l, WEIR_CONTAINER(node, struct weir_lease_change, node));
    }
    if (!l->batch_st)
        write_drafts(l);
    weir_meta_commit(l->meta, &l->commit);
}

/* The drafts become the rows, or are forgotten. */
static void
settle(struct weir_leases *l, bool durable)
{
    struct weir_list *node;
    while ((node = weir_list_pop_front(&l->drafts))) {
        struct draft *d = WEIR_CONTAINER(node, struct draft, node);
        struct entry *e = d->entry;
        e->draft = NULL;
        if (durable && !d->deleted) {
            e->row = d->row;
            e->visible = true;
        }
        if (!e->visible || (durable && d->deleted))
            remove_entry(l, e);
        free(d);
    }
}

static void
answer(struct weir_leases *l, struct weir_lease_change *change, enum weir_status st)
{
    if (!change->err.status && st) {
        struct entry *e = find_entry(l, change->row.stream, weir_bytes_of(change->row.consumer),
                                     change->row.shard);
        change->row = e && e->visible ? e->row : (struct weir_checkpoint_row){0};
        (void)!weir_fail(&change->err, st, "cannot store the checkpoint: %s", weir_status_text(st));
    }
    change->done(change, change->err.status);
}

static void
committed(struct weir_meta_commit *commit, enum weir_status st)
{
    struct weir_leases *l = WEIR_CONTAINER(commit, struct weir_leases, commit);
    if (l->batch_st)
        st = l->batch_st;
    settle(l, st == WEIR_OK);
    struct weir_list *node;
    while ((node = weir_list_pop_front(&l->batch)))
        answer(l, WEIR_CONTAINER(node, struct weir_lease_change, node), st);
    l->busy = false;
    start(l);
}

/* ---- calls ----
 *
 * What is asked for stands in the change's row until it is judged. */

static void
enqueue(struct weir_leases *l, struct weir_lease_change *change)
{
    weir_list_push_back(&l->waiting, &change->node);
    if (!l->busy)
        start(l);
}

static void
ask(struct weir_lease_change *change, enum change_kind kind, uint64_t stream,
    struct weir_bytes consumer, uint32_t shard)
{
    change->err = (struct weir_error){0};
    change->kind = kind;
    change->row = (struct weir_checkpoint_row){.stream = stream, .shard = shard};
    if (weir_stream_name_is_valid(consumer))
        memcpy(change->row.consumer, consumer.data, consumer.len);
    else if (kind != DROP_STREAM)
        (void)!weir_fail(&change->err, WEIR_INVALID,
                         "a consumer's name has 1 to %d of the characters a-z A-Z 0-9 _ . -",
                         WEIR_CONSUMER_NAME_MAX);
}

void
weir_lease_acquire(struct weir_leases *l, uint64_t stream, struct weir_bytes consumer,
                   uint32_t shard, struct weir_bytes owner, struct weir_lease_change *change)
{
    ask(change, ACQUIRE, stream, consumer, shard);
    if (owner.len > WEIR_CONSUMER_NAME_MAX || (owner.len && memchr(owner.data, 0, owner.len)))
        (void)!weir_fail(&change->err, WEIR_INVALID, "an owner's name has at most %d bytes, no NUL",
                         WEIR_CONSUMER_NAME_MAX);
    else if (owner.len)
        memcpy(change->row.owner, owner.data, owner.len);
    enqueue(l, change);
}

void
weir_lease_checkpoint(struct weir_leases *l, uint64_t stream, struct weir_bytes consumer,
                      uint32_t shard, uint64_t epoch, uint64_t offset, bool shard_end,
                      struct weir_lease_change *change)
{
    ask(change, CHECKPOINT, stream, consumer, shard);
    change->row.epoch = epoch;
    change->row.offset = offset;
    change->row.shard_end = shard_end;
    enqueue(l, change);
}

void
weir_lease_reset(struct weir_leases *l, uint64_t stream, struct weir_bytes consumer,
                 struct weir_lease_change *change)
{
    ask(change, RESET, stream, consumer, 0);
    enqueue(l, change);
}

void
weir_lease_drop_stream(struct weir_leases *l, uint64_t stream, struct weir_lease_change *change)
{
    ask(change, DROP_STREAM, stream, (struct weir_bytes){NULL, 0}, 0);
    enqueue(l, change);
}

/* ---- opening ---- */

struct loading {
    struct weir_leases *leases;
    struct weir_error *err;
};

static enum weir_status
load_row(void *arg, const char *key, struct weir_bytes value, uint64_t version)
{
    (void)version;
    struct loading *loading = arg;
    struct weir_checkpoint_row row;
    enum weir_status st = weir_lease_row_decode(key, value, &row);
    if (st)
        return weir_fail(loading->err, st, "checkpoint row '%s': %s", key, weir_status_text(st));
    struct entry *e =
        ensure_entry(loading->leases, row.stream, weir_bytes_of(row.consumer), row.shard);
    if (!e)
        return weir_fail(loading->err, WEIR_NO_MEMORY, "checkpoint row '%s': out of memory", key);
    e->row = row;
    e->visible = true;
    return WEIR_OK;
}

enum weir_status
weir_leases_open(struct weir_meta *meta, struct weir_clock *clock, struct weir_leases **out,
                 struct weir_error *err)
{
    struct weir_leases *l = calloc(1, sizeof *l);
    if (!l)
        return weir_fail(err, WEIR_NO_MEMORY, "cannot open the checkpoints: out of memory");
    l->meta = meta;
    l->clock = clock;
    uint64_t seed;
    weir_random_bytes(&seed, sizeof seed);
    weir_map_init(&l->keys, seed);
    weir_map_init(&l->streams, 0);
    weir_list_init(&l->waiting);
    weir_list_init(&l->batch);
    weir_list_init(&l->drafts);
    struct loading loading = {l, err};
    enum weir_status st = weir_meta_scan(meta, "lease/", load_row, &loading, err);
    if (st) {
        weir_leases_close(l);
        return st;
    }
    *out = l;
    return WEIR_OK;
}

void
weir_leases_close(struct weir_leases *l)
{
    if (!l)
        return;
    WEIR_ASSERT(!l->busy);
    size_t cursor = 0;
    struct entries *s;
    while ((s = weir_map_next(&l->streams, &cursor))) {
        for (size_t i = 0; i < s->count; i++)
            free(s->list[i]);
        free(s->list);
        free(s);
    }
    weir_map_fini(&l->keys);
    weir_map_fini(&l->streams);
    free(l);
}
