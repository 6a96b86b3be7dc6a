/* Opening a journal:
 *
 *   1. Look at the first block and the footer of every segment; of most sealed ones the journal's
 *      notes have the footer.
 *   2. Find the last segment that was in use. What stands behind it was only prepared.
 *   3. In the order of their numbers: take the footer of a sealed one, walk any other. It ends
 *      where the next one's header says; without a next one, where its groups end.
 *   4. Write the last group once more, and a header that is missing: it may be in the page cache
 *      only, after a sync that failed or never came, and whoever reads it from us must find it
 *      after the next crash too.
 *   5. Write an empty group with an epoch one higher; it also takes the place of a torn one.
 *
 * A place that does not hold is damage or a torn end (walk.h). Damage leaves a hole between the
 * runs of its shard, which readers are told about; the rest is served. */
#include "base/assert.h"
#include "log/state.h"
#include "log/walk.h"
#include <stdio.h>
#include <stdlib.h>

#define SCAN_BYTES (1 * WEIR_MIB)

struct found {
    uint64_t number, bytes;
    bool has_header, sealed;
    bool blank; /* no header of its own: zeros, or a recycled file's */
    struct weir_segment_info header;
    struct weir_trailer_info trailer;
    struct weir_directory directory;
    uint8_t *directory_bytes;
};

/* A sealed segment's footer as the journal's notes have it. */
struct noted {
    struct weir_trailer_info trailer;
    const uint8_t *directory;
};

struct recovery {
    struct weir_log *log;
    struct weir_log_report *report;
    struct weir_error *err;
    struct found *found;
    size_t count, capacity;
    uint8_t *notes;
    struct noted *noted; /* in the order of their numbers */
    size_t noted_count, noted_used;
    bool notes_torn;
    bool id_known;
    weir_u128 id;
    uint32_t epoch;
    uint64_t group; /* of the last segment seen */
    weir_u128 last_hash;
    char last_damage[256];
};

static const char *
place(const struct recovery *r, uint64_t segment, char out[300])
{
    snprintf(out, 300, "%.200s/%08llu", r->log->config.directory, (unsigned long long)segment);
    return out;
}

/* ---- 1. what is there ---- */

static bool
is_zero(const uint8_t *p, size_t len)
{
    return p[0] == 0 && memcmp(p, p + 1, len - 1) == 0;
}

static enum weir_status
check_identity(struct recovery *r, uint64_t segment, uint32_t journal, weir_u128 id)
{
    char name[300];
    if (journal != r->log->config.journal)
        return weir_fail(r->err, WEIR_INVALID, "'%s' is of journal %u, not %u",
                         place(r, segment, name), journal, r->log->config.journal);
    if (r->id_known && id != r->id)
        return weir_fail(r->err, WEIR_INVALID, "'%s' is of another journal than the files before",
                         place(r, segment, name));
    r->id_known = true;
    r->id = id;
    return WEIR_OK;
}

static enum weir_status
look_at_header(struct recovery *r, struct found *f)
{
    uint8_t block[WEIR_DISK_BLOCK] = {0};
    size_t got = 0;
    char name[300];
    struct weir_journal *j = r->log->journal;
    enum weir_status st =
        j->ops->read(j, (struct weir_position){f->number, 0}, block, sizeof block, &got);
    if (st)
        return weir_fail(r->err, st, "cannot read '%s': %s", place(r, f->number, name),
                         weir_status_text(st));
    st = weir_segment_decode(weir_bytes(block, sizeof block), &f->header);
    if (st == WEIR_UNSUPPORTED)
        return weir_fail(r->err, WEIR_INVALID, "'%s' was written by a newer version",
                         place(r, f->number, name));
    f->has_header = !st && f->header.segment == f->number;
    f->blank = is_zero(block, sizeof block) || (!st && !f->has_header);
    return f->has_header ? check_identity(r, f->number, f->header.journal, f->header.journal_id)
                         : WEIR_OK;
}

static int
noted_order(const void *a, const void *b)
{
    const struct noted *x = a, *y = b;
    return x->trailer.segment < y->trailer.segment ? -1 : x->trailer.segment > y->trailer.segment;
}

/* Notes spare us opening every file. They are a copy: what is missing or does not hold is looked up
 * in the segment itself. */
static void
read_notes(struct recovery *r)
{
    struct weir_journal *j = r->log->journal;
    size_t len = 0, at = 0, capacity = 0;
    if (j->ops->notes_read(j, &r->notes, &len))
        return;
    while (len - at >= WEIR_DISK_BLOCK) {
        struct noted n;
        if (weir_trailer_decode(weir_bytes(r->notes + at, WEIR_DISK_BLOCK), UINT64_MAX,
                                &n.trailer) ||
            n.trailer.directory_size > len - at - WEIR_DISK_BLOCK)
            break;
        n.directory = r->notes + at + WEIR_DISK_BLOCK;
        if (r->noted_count == capacity) {
            capacity = capacity ? 2 * capacity : 256;
            struct noted *grown = realloc(r->noted, capacity * sizeof *grown);
            if (!grown)
                return;
            r->noted = grown;
        }
        r->noted[r->noted_count++] = n;
        at += WEIR_DISK_BLOCK + n.trailer.directory_size;
    }
    r->notes_torn = at != len;
    if (r->noted_count)
        qsort(r->noted, r->noted_count, sizeof *r->noted, noted_order);
}

static bool
take_note(struct recovery *r, struct found *f)
{
    struct noted key = {.trailer.segment = f->number};
    const struct noted *n =
        r->noted_count ? bsearch(&key, r->noted, r->noted_count, sizeof *r->noted, noted_order)
                       : NULL;
    if (!n || weir_directory_decode(
                  &n->trailer, weir_bytes(n->directory, n->trailer.directory_size), &f->directory))
        return false;
    f->trailer = n->trailer;
    f->bytes = n->trailer.directory + n->trailer.directory_size + WEIR_DISK_BLOCK;
    r->noted_used++;
    return true;
}

/* Notes that are torn, or mostly of segments that are gone, or of too few, are made anew. */
static void
renew_notes(struct recovery *r)
{
    size_t sealed = 0;
    for (size_t i = 0; i < r->count; i++)
        sealed += r->found[i].sealed;
    if (!r->notes_torn && r->noted_count - r->noted_used <= sealed + 16 &&
        sealed - r->noted_used < 16)
        return;
    struct weir_disk_trailer *trailers = malloc((sealed + 1) * sizeof *trailers);
    struct iovec *iov = malloc((2 * sealed + 1) * sizeof *iov);
    int n = 0;
    for (size_t i = 0; trailers && iov && i < r->count; i++) {
        const struct found *f = &r->found[i];
        if (!f->sealed)
            continue;
        weir_trailer_encode(&f->trailer, &trailers[n / 2]);
        iov[n] = (struct iovec){&trailers[n / 2], sizeof *trailers};
        iov[n + 1] =
            (struct iovec){(void *)(uintptr_t)f->directory.chunks, f->trailer.directory_size};
        n += 2;
    }
    struct weir_journal *j = r->log->journal;
    if (trailers && iov)
        (void)!j->ops->notes_replace(j, iov, n);
    free(trailers);
    free(iov);
}

static enum weir_status
look_at(void *arg, uint64_t segment)
{
    struct recovery *r = arg;
    struct weir_journal *j = r->log->journal;
    char name[300];
    if (segment > UINT32_MAX - 16)
        return weir_fail(r->err, WEIR_INVALID, "'%s' has a number beyond all limits",
                         place(r, segment, name));
    if (r->count == r->capacity) {
        size_t capacity = r->capacity ? 2 * r->capacity : 64;
        struct found *grown = realloc(r->found, capacity * sizeof *grown);
        if (!grown)
            return weir_fail(r->err, WEIR_NO_MEMORY, "no memory");
        r->found = grown;
        r->capacity = capacity;
    }
    struct found *f = &r->found[r->count++];
    *f = (struct found){.number = segment};
    f->sealed = take_note(r, f);
    if (f->sealed)
        return check_identity(r, f->number, f->trailer.journal, f->trailer.journal_id);

    enum weir_status st = j->ops->size(j, segment, &f->bytes);
    if (!st)
        st =
            weir_seal_load(j, f->number, f->bytes, &f->trailer, &f->directory, &f->directory_bytes);
    if (st == WEIR_UNSUPPORTED)
        return weir_fail(r->err, WEIR_INVALID, "'%s' was written by a newer version",
                         place(r, f->number, name));
    if (st && st != WEIR_INVALID && st != WEIR_DAMAGED)
        return weir_fail(r->err, st, "cannot read '%s': %s", place(r, f->number, name),
                         weir_status_text(st));
    f->sealed = !st;
    if (f->sealed)
        return check_identity(r, f->number, f->trailer.journal, f->trailer.journal_id);
    return look_at_header(r, f);
}

/* ---- 2. the last one in use ---- */

/* Is there a group's header that holds, in the first `bytes` behind the segment's? */
static enum weir_status
has_group(struct recovery *r, const struct found *f, uint64_t bytes, bool *out)
{
    struct weir_journal *j = r->log->journal;
    uint8_t *window = malloc(SCAN_BYTES);
    enum weir_status st = window ? WEIR_OK : WEIR_NO_MEMORY;
    char name[300];
    *out = false;
    if (bytes > f->bytes)
        bytes = f->bytes;
    for (uint64_t at = WEIR_DISK_BLOCK; !st && !*out && at < bytes; at += SCAN_BYTES) {
        size_t want = bytes - at < SCAN_BYTES ? bytes - at : SCAN_BYTES, got = 0;
        st = j->ops->read(j, (struct weir_position){f->number, at}, window, want, &got);
        for (size_t k = 0; !st && k + sizeof(struct weir_disk_group) <= got; k += WEIR_DISK_BLOCK) {
            struct weir_group_info g;
            *out |= !weir_group_decode(weir_bytes(window + k, got - k), &g) &&
                    g.segment == f->number && g.position == at + k &&
                    (!r->id_known || g.journal_id == r->id);
        }
    }
    free(window);
    if (st)
        return weir_fail(r->err, st, "cannot read '%s': %s", place(r, f->number, name),
                         weir_status_text(st));
    return WEIR_OK;
}

/* The file has no header. Was it in use all the same? */
static enum weir_status
was_used(struct recovery *r, size_t i, bool *out)
{
    const struct found *f = &r->found[i];
    char name[300];
    /* A sealed segment has a successor, always. */
    if (i && r->found[i - 1].sealed && f->number == r->found[i - 1].number + 1) {
        *out = true;
        return WEIR_OK;
    }
    /* The header's write may have been torn, with the first group on disk. Where the header is
     * neither blank nor ours, or there is no other segment to tell, it may be lost: then look
     * further. */
    bool far = !f->blank || i == 0;
    enum weir_status st = has_group(r, f, far ? UINT64_MAX : 2 * WEIR_DISK_BLOCK, out);
    if (st || *out || f->blank || i)
        return st;
    /* A crash in the first moment of a journal leaves a part of a header, and nothing behind it.
     * Where there is more, somebody should look before it is written over. */
    uint8_t behind[8 * WEIR_DISK_BLOCK] = {0};
    size_t got = 0;
    st = r->log->journal->ops->read(r->log->journal,
                                    (struct weir_position){f->number, WEIR_DISK_BLOCK}, behind,
                                    sizeof behind, &got);
    if (!st && !is_zero(behind, sizeof behind))
        st = WEIR_INVALID;
    if (st)
        return weir_fail(r->err, st, "'%s' is no segment file", place(r, f->number, name));
    return WEIR_OK;
}

/* Leaves in r->count only segments that were in use. */
static enum weir_status
find_last(struct recovery *r)
{
    size_t last = r->count;
    while (last && !r->found[last - 1].sealed && !r->found[last - 1].has_header)
        last--;
    for (; last < r->count; last++) {
        bool used = false;
        enum weir_status st = was_used(r, last, &used);
        if (st)
            return st;
        if (!used)
            break;
    }
    for (size_t i = last; i < r->count; i++)
        free(r->found[i].directory_bytes);
    r->count = last;
    return WEIR_OK;
}

/* ---- 3. footers and walks ---- */

static enum weir_status
shard_of(struct weir_log *log, uint64_t stream, uint64_t shard, struct weir_shard **out)
{
    *out = weir_index_shard(&log->index, shard);
    return *out ? WEIR_OK : weir_index_shard_new(&log->index, stream, shard, out);
}

static enum weir_status
take_state(struct recovery *r, struct weir_segment *g, const struct found *f,
           const struct weir_disk_state *d)
{
    struct weir_shard *s;
    enum weir_status st = shard_of(r->log, weir_get64(d->stream), weir_get64(d->shard), &s);
    if (st)
        return st;
    if (weir_get64(d->next) >= s->next) {
        s->next = weir_get64(d->next);
        s->chain = weir_get128(d->chain);
    }
    if (weir_get64(d->latest_at_ms) > s->at_ms)
        s->at_ms = weir_get64(d->latest_at_ms);
    uint64_t trimmed = weir_get64(d->trimmed_before);
    if (trimmed >= s->trim_recorded) {
        s->trim_recorded = trimmed;
        weir_index_trim_home(&r->log->index, s, g->number);
    }
    if (trimmed > s->oldest)
        s->oldest = trimmed;
    weir_index_home(&r->log->index, s, g->number);
    s->footer_home = g->number;
    uint32_t first = weir_get32(d->producer);
    for (uint32_t i = 0; i < weir_get32(d->count) && !st; i++)
        st = weir_producers_decode(&s->producers, &f->directory.producers[first + i]);
    return st;
}

/* Parts of the run are there already (batches that were copied when we stopped): add what is not.
 */
static enum weir_status
take_entries(struct recovery *r, struct weir_segment *g, struct weir_shard *s,
             const struct weir_index_run *run)
{
    struct weir_footer_ref ref = {g->number, g->entries, g->end, g->chunks};
    struct weir_entry *entries = malloc(run->count * sizeof *entries);
    if (!entries)
        return WEIR_NO_MEMORY;
    enum weir_status st =
        weir_chunks_get(r->log->chunks, r->log->journal, &ref, run->start, run->count, entries);
    for (uint32_t i = 0; i < run->count && !st; i++)
        st = weir_index_add_entry(&r->log->index, g, s, run->start + i, &entries[i]);
    free(entries);
    /* A footer whose entries do not hold: what they would have told is a hole now. */
    return st == WEIR_DAMAGED ? WEIR_OK : st;
}

static enum weir_status
take_run(struct recovery *r, struct weir_segment *g, const struct weir_disk_run *d)
{
    struct weir_shard *s;
    enum weir_status st = shard_of(r->log, weir_get64(d->stream), weir_get64(d->shard), &s);
    if (st)
        return st;
    struct weir_index_run run = {
        .first = weir_get64(d->first),
        .limit = weir_get64(d->limit),
        .first_at_ms = weir_get64(d->first_at_ms),
        .last_at_ms = weir_get64(d->last_at_ms),
        .bytes = weir_get64(d->bytes),
        .segment = g->number,
        .start = weir_get32(d->entry),
        .count = weir_get32(d->count),
    };
    /* No state tells of a shard that was dropped just then; its numbers are taken all the same. */
    if (run.limit > s->next)
        s->next = run.limit;
    st = weir_index_add_run(&r->log->index, g, s, &run);
    return st == WEIR_AGAIN ? take_entries(r, g, s, &run) : st;
}

static void
free_bytes(void *arg, uint8_t *data)
{
    (void)arg;
    free(data);
}

static enum weir_status
take_footer(struct recovery *r, struct weir_segment *g, struct found *f)
{
    const struct weir_trailer_info *t = &f->trailer;
    g->state = WEIR_SEGMENT_SEALED;
    g->end = t->end;
    g->file_bytes = f->bytes;
    g->entries = t->entries;
    g->group = t->group;
    g->last_hash = t->last_hash;
    g->epoch = t->epoch;
    g->damaged = t->damaged;
    r->report->damaged_count += t->damaged;

    size_t len = weir_chunks_of(t->entries) * sizeof(weir_le64);
    uint8_t *copy = malloc(len + 1);
    if (!copy)
        return WEIR_NO_MEMORY;
    memcpy(copy, f->directory.chunks, len);
    g->chunks = weir_buf_wrap(copy, len, free_bytes, NULL);
    if (!g->chunks) {
        free(copy);
        return WEIR_NO_MEMORY;
    }
    enum weir_status st = WEIR_OK;
    for (uint32_t i = 0; i < t->states && !st; i++)
        st = take_state(r, g, f, &f->directory.states[i]);
    for (uint32_t i = 0; i < t->runs && !st; i++)
        st = take_run(r, g, &f->directory.runs[i]);
    return st;
}

struct tail {
    struct weir_walk walk;
    struct recovery *r;
    struct weir_segment *g;
};

static enum weir_status
tail_read(struct weir_walk *w, void *buf, size_t len, uint64_t at, size_t *read_out)
{
    struct tail *t = WEIR_CONTAINER(w, struct tail, walk);
    struct weir_journal *j = t->r->log->journal;
    return j->ops->read(j, (struct weir_position){w->segment, at}, buf, len, read_out);
}

static enum weir_status
take_state_batch(struct tail *t, struct weir_shard *s, struct weir_bytes batch,
                 const struct weir_batch_info *info)
{
    struct weir_index *x = &t->r->log->index;
    struct weir_part *part;
    enum weir_status st = weir_index_part(x, t->g, s, false, &part);
    if (st)
        return st;
    uint64_t trimmed = weir_batch_trimmed_before(batch.data);
    if (info->offset >= s->next) {
        s->next = info->offset;
        s->chain = info->previous;
        weir_index_home(x, s, t->g->number);
    }
    if (trimmed >= s->trim_recorded) {
        s->trim_recorded = trimmed;
        weir_index_trim_home(x, s, t->g->number);
    }
    if (trimmed > s->oldest)
        s->oldest = trimmed < s->next ? trimmed : s->next;
    if (info->at_ms > s->at_ms)
        s->at_ms = info->at_ms;
    return WEIR_OK;
}

static enum weir_status
tail_batch(struct weir_walk *w, uint64_t position, struct weir_bytes batch,
           const struct weir_batch_info *info)
{
    struct tail *t = WEIR_CONTAINER(w, struct tail, walk);
    struct weir_index *x = &t->r->log->index;
    struct weir_shard *s;
    enum weir_status st = shard_of(t->r->log, info->stream, info->shard, &s);
    if (st)
        return st;
    if (info->flags & WEIR_BATCH_STATE)
        return take_state_batch(t, s, batch, info);

    bool copy = info->offset < s->next;
    struct weir_entry e = {
        .offset = info->offset,
        .at_ms = info->at_ms,
        .hash = (uint64_t)info->header_hash,
        .position = (uint32_t)position,
        .size = info->size,
        .count = info->count,
    };
    st = weir_index_add(x, t->g, s, copy, &e);
    if (st)
        return st;
    uint64_t limit = info->offset + info->count;
    if (limit >= s->next)
        weir_index_home(x, s, t->g->number);
    if (copy)
        return WEIR_OK;
    s->next = limit;
    s->chain = info->header_hash;
    if (info->at_ms > s->at_ms)
        s->at_ms = info->at_ms;
    if (!info->producer)
        return WEIR_OK;
    return weir_producers_note(&s->producers, info->producer, info->number, info->offset,
                               info->at_ms);
}

/* What was lost is a hole; but its numbers were given out, and are not given out again. */
static enum weir_status
tail_bad(struct weir_walk *w, const struct weir_walk_bad *bad)
{
    struct tail *t = WEIR_CONTAINER(w, struct tail, walk);
    char name[300];
    snprintf(t->r->last_damage, sizeof t->r->last_damage, "'%.120s' at byte %llu: %s",
             place(t->r, w->segment, name), (unsigned long long)bad->position, bad->reason);
    if (!bad->has_ids || !bad->count)
        return WEIR_OK;
    struct weir_shard *s = weir_index_shard(&t->r->log->index, bad->shard);
    /* Without its header the stream is not known; a declared shard will say it. */
    if (!s) {
        enum weir_status st = weir_index_shard_new(&t->r->log->index, 0, bad->shard, &s);
        if (st)
            return st;
    }
    if (bad->offset + bad->count > s->next) {
        s->next = bad->offset + bad->count;
        s->chain = bad->hash;
        weir_index_home(&t->r->log->index, s, t->g->number);
        struct weir_part *part;
        return weir_index_part(&t->r->log->index, t->g, s, false, &part);
    }
    return WEIR_OK;
}

static enum weir_status
walk(struct recovery *r, struct weir_segment *g, size_t i, uint64_t *last_position)
{
    struct found *f = &r->found[i], *next = i + 1 < r->count ? f + 1 : NULL;
    struct tail t = {
        .walk =
            {
                .read = tail_read,
                .batch = tail_batch,
                .bad = tail_bad,
                .journal_id_known = r->id_known,
                .journal_id = r->id,
                .segment = f->number,
                .limit = UINT64_MAX,
                .previous_known = f->has_header,
                .previous = f->header.previous_hash,
                .scan_bytes = WEIR_GROUP_DISK_MAX,
            },
        .r = r,
        .g = g,
    };
    char name[300];
    if (next && next->number == f->number + 1) {
        /* A sealed one's was not looked at yet. */
        enum weir_status looked = next->sealed ? look_at_header(r, next) : WEIR_OK;
        if (looked)
            return looked;
        if (next->has_header)
            t.walk.limit = next->header.previous_end;
    }
    /* Its header went, so it is not known where its groups begin to be damaged. */
    if (!f->has_header)
        t.walk.scan_bytes = UINT64_MAX;
    enum weir_status st = weir_walk_run(&t.walk);
    weir_walk_fini(&t.walk);
    if (st)
        return weir_fail(r->err, st, "cannot read '%s': %s", place(r, f->number, name),
                         weir_status_text(st));
    g->end = t.walk.end;
    g->last_hash = t.walk.groups ? t.walk.last_hash : r->last_hash;
    g->group = t.walk.groups ? t.walk.number : r->group;
    g->epoch = t.walk.groups ? t.walk.epoch : r->epoch;
    g->damaged = (uint32_t)t.walk.damaged + (!f->has_header && !f->blank);
    if (t.walk.epoch > r->epoch)
        r->epoch = t.walk.epoch;
    if (!r->id_known && t.walk.journal_id_known) {
        r->id_known = true;
        r->id = t.walk.journal_id;
    }
    r->report->damaged_count += g->damaged;
    r->report->torn_bytes += t.walk.torn_bytes;
    r->report->batches_walked += t.walk.batches;
    r->report->bytes_walked += t.walk.end;
    *last_position = t.walk.last_position;
    return WEIR_OK;
}

/* Runs from before a boundary that a later segment told of. */
static void
drop_trimmed(struct weir_log *log)
{
    size_t cursor = 0;
    struct weir_shard *s;
    while ((s = weir_map_next(&log->index.shards, &cursor))) {
        weir_index_drop_runs(&log->index, s, weir_index_run_at(s, s->oldest));
        s->assigned = s->next;
        s->assigned_at_ms = s->at_ms;
        s->assigned_chain = s->chain;
    }
}

/* ---- 4. and 5. going on ---- */

static enum weir_status
write_again(struct recovery *r, struct weir_segment *g, uint64_t position)
{
    struct weir_journal *j = r->log->journal;
    size_t len = g->end - position, got = 0;
    uint8_t *bytes = malloc(len);
    if (!bytes)
        return WEIR_NO_MEMORY;
    struct weir_position at = {g->number, position};
    enum weir_status st = j->ops->read(j, at, bytes, len, &got);
    /* The padding may lie behind the file's end. */
    if (!st && got < len)
        memset(bytes + got, 0, len - got);
    if (!st)
        st = j->ops->append(j, at, &(struct iovec){bytes, len}, 1, true);
    free(bytes);
    return st;
}

/* The header of the segment that we go on in was torn off, or is damaged: it gets a new one. */
static enum weir_status
write_header(struct recovery *r, const struct weir_segment *g)
{
    struct weir_log *log = r->log;
    const struct weir_index *x = &log->index;
    const struct weir_segment *before =
        x->segment_count > 1 ? x->segments[x->segment_count - 2] : NULL;
    struct weir_segment_info info = {
        .journal = log->config.journal,
        .epoch = r->epoch,
        .journal_id = log->commit.journal_id,
        .segment = g->number,
        .created_ms = weir_now_ms(log->sys->clock),
        .group = 1,
    };
    struct weir_disk_segment header;
    if (before && before->number + 1 == g->number) {
        info.previous_end = before->end;
        info.previous_hash = before->last_hash;
        info.group = before->group + 1;
    }
    weir_segment_encode(&info, &header);
    return log->journal->ops->append(log->journal, (struct weir_position){g->number, 0},
                                     &(struct iovec){&header, sizeof header}, 1, true);
}

static enum weir_status
go_on(struct recovery *r, uint64_t last_position)
{
    struct weir_log *log = r->log;
    struct weir_commit *c = &log->commit;
    struct weir_index *x = &log->index;
    char name[300];
    c->journal_id = r->id_known ? r->id : weir_random_id();
    c->epoch = r->epoch + 1;
    enum weir_status st = log->journal->ops->fence(log->journal, c->epoch);
    struct weir_segment *g = x->segment_count ? x->segments[x->segment_count - 1] : NULL;
    if (!st && g) {
        c->segment = g->number;
        c->end = c->synced = g->end;
        c->group = g->group;
        c->last_hash = g->last_hash;
        st = log->journal->ops->resume(log->journal, (struct weir_position){g->number, g->end});
    }
    if (!st && g && g->state == WEIR_SEGMENT_OPEN && !r->found[r->count - 1].has_header)
        st = write_header(r, g);
    if (!st && g && g->state == WEIR_SEGMENT_OPEN && last_position)
        st = write_again(r, g, last_position);
    if (!st && (!g || g->state == WEIR_SEGMENT_SEALED)) {
        /* A new journal; or the one behind the last sealed one is gone, and what was in it. */
        c->segment = g ? g->number : 0;
        if (g) {
            r->report->damaged_count++;
            snprintf(r->last_damage, sizeof r->last_damage, "'%.120s': it is missing",
                     place(r, g->number + 1, name));
        }
        st = weir_commit_open_next(c);
        struct weir_list events;
        weir_list_init(&events);
        weir_commit_take_finished(c, &events);
        struct weir_list *node;
        while ((node = weir_list_pop_front(&events)))
            free(WEIR_CONTAINER(node, struct weir_rolled, item.node));
        if (!st)
            st = weir_index_segment_new(x, c->segment, &g);
    }
    if (!st)
        st = weir_commit_mark(c, 0);
    if (st)
        return weir_fail(r->err, st, "cannot write to '%s': %s", place(r, g ? g->number : 1, name),
                         weir_status_text(st));
    return WEIR_OK;
}

enum weir_status
weir_log_recover(struct weir_log *log, struct weir_log_report *report, struct weir_error *err)
{
    struct recovery r = {.log = log, .report = report, .err = err};
    struct weir_journal *j = log->journal;
    uint64_t last_position = 0;
    read_notes(&r);
    enum weir_status st = j->ops->list(j, look_at, &r);
    if (!st)
        st = find_last(&r);
    if (st) {
        st = weir_fail_in(err, st, "cannot open journal '%s'", log->config.directory);
        goto done;
    }
    for (size_t i = 0; i < r.count && !st; i++) {
        struct found *f = &r.found[i];
        struct weir_segment *g;
        uint32_t epoch = f->sealed ? f->trailer.epoch : f->has_header ? f->header.epoch : 0;
        if (epoch > r.epoch)
            r.epoch = epoch;
        st = weir_index_segment_new(&log->index, (uint32_t)f->number, &g);
        if (st)
            break;
        if (f->sealed)
            st = take_footer(&r, g, f);
        else
            st = walk(&r, g, i, &last_position);
        if (!st && !f->sealed && i + 1 < r.count) {
            g->state = WEIR_SEGMENT_ROLLED;
            st = weir_seal_note(log, g);
        }
        r.group = g->group;
        r.last_hash = g->last_hash;
    }
    if (!st) {
        drop_trimmed(log);
        st = go_on(&r, last_position);
    }
    if (st)
        st = weir_fail_in(err, st, "cannot open journal '%s'", log->config.directory);
    report->segments = log->index.segment_count;
    report->shards = log->index.shards.count;
    if (!st && r.last_damage[0])
        (void)!weir_fail(err, WEIR_OK, "damage in %s", r.last_damage);
    if (!st)
        renew_notes(&r);
done:
    for (size_t i = 0; i < r.count; i++)
        free(r.found[i].directory_bytes);
    free(r.found);
    free(r.noted);
    free(r.notes);
    return st;
}
