/* Verifying a data directory, journal by journal, segment by segment:
 *
 *   1. Walk the segment's groups (log/walk.h): hashes, tables, torn ends.
 *   2. Look into each batch as the broker did when it took it: decompression, the records' form.
 *   3. Hold each batch against its shard: the offset that comes next, the hash of the batch before.
 *   4. Hold the footer, if there is one, against what the walk found.
 *   5. At a journal's end, find the offsets that no segment has, and that were not trimmed.
 *
 * Batches that were moved forward stand in two segments after a crash, or only in the newer one. So
 * a batch below its shard's next offset is a copy, and a hole is a hole only at the end. */
#include "base/assert.h"
#include "base/list.h"
#include "base/map.h"
#include "fsck/fsck.h"
#include "log/walk.h"
#include <stdio.h>
#include <stdlib.h>

#define PROGRESS_BYTES (16 * WEIR_MIB)

struct span {
    uint64_t first, limit;
};

struct shard {
    uint64_t stream, shard;
    uint64_t next, trimmed;
    weir_u128 chain;
    bool chain_known;
    struct span *spans; /* offsets that were found, in the order of finding */
    size_t count, capacity;
};

struct file {
    uint64_t number, bytes;
    char path[320];
    bool has_header, blank, sealed;
    bool has_group;   /* right behind the header */
    bool trailer_bad; /* there is one, and it does not hold */
    struct weir_segment_info header;
    struct weir_trailer_info trailer;
};

/* A batch that the walk found, for the footer. */
struct seen {
    struct weir_entry entry;
    uint64_t shard;
    bool listed;
};

struct verify {
    struct weir_fs *fs;
    const struct weir_fsck_callbacks *callbacks;
    struct weir_fsck_totals *totals;
    struct weir_error *err;
    struct weir_scratch scratch;
    /* of the journal */
    char directory[280];
    struct weir_map shards;
    struct file *files;
    size_t file_count, file_capacity;
    bool id_known;
    weir_u128 id;
    /* of the segment */
    const struct file *file;
    struct weir_file *handle;
    struct weir_walk walk;
    struct seen *seen;
    size_t seen_count, seen_capacity;
    uint64_t progress;
    enum weir_status st;
};

static void
find(struct verify *v, struct weir_fsck_finding *f)
{
    f->file = v->file ? v->file->path : v->directory;
    if (f->severity == WEIR_FSCK_DAMAGE)
        v->totals->damaged++;
    else
        v->totals->notes++;
    if (v->callbacks && v->callbacks->finding)
        v->callbacks->finding(v->callbacks->arg, f);
}

static void
find_damage(struct verify *v, uint64_t position, uint64_t bytes, const char *reason)
{
    find(v,
         &(struct weir_fsck_finding){
             .severity = WEIR_FSCK_DAMAGE, .position = position, .bytes = bytes, .reason = reason});
}

static void
find_batch(struct verify *v, uint64_t position, const struct weir_batch_info *info,
           const char *reason)
{
    find(v, &(struct weir_fsck_finding){
                .severity = WEIR_FSCK_DAMAGE,
                .position = position,
                .bytes = info->size,
                .has_shard = true,
                .stream = info->stream,
                .shard = info->shard,
                .first = info->offset,
                .limit = info->offset + info->count,
                .reason = reason,
            });
}

static void
progress(struct verify *v, uint64_t done)
{
    if (v->callbacks && v->callbacks->progress)
        v->callbacks->progress(v->callbacks->arg, v->file->path, done, v->file->bytes);
}

/* ---- shards ---- */

static enum weir_status
shard_of(struct verify *v, uint64_t stream, uint64_t number, struct shard **out)
{
    struct shard *s = weir_map_get(&v->shards, number);
    if (!s) {
        s = calloc(1, sizeof *s);
        enum weir_status st = s ? weir_map_put(&v->shards, number, s) : WEIR_NO_MEMORY;
        if (st) {
            free(s);
            return st;
        }
        s->stream = stream;
        s->shard = number;
        v->totals->shards++;
    }
    *out = s;
    return WEIR_OK;
}

static enum weir_status
add_span(struct shard *s, uint64_t first, uint64_t limit)
{
    if (s->count && s->spans[s->count - 1].limit == first) {
        s->spans[s->count - 1].limit = limit;
        return WEIR_OK;
    }
    if (s->count == s->capacity) {
        size_t capacity = s->capacity ? 2 * s->capacity : 4;
        struct span *grown = realloc(s->spans, capacity * sizeof *grown);
        if (!grown)
            return WEIR_NO_MEMORY;
        s->spans = grown;
        s->capacity = capacity;
    }
    s->spans[s->count++] = (struct span){first, limit};
    return WEIR_OK;
}

static int
span_order(const void *a, const void *b)
{
    const struct span *x = a, *y = b;
    return x->first < y->first ? -1 : x->first > y->first;
}

static void
find_holes(struct verify *v, struct shard *s)
{
    uint64_t at = s->trimmed;
    if (s->count)
        qsort(s->spans, s->count, sizeof *s->spans, span_order);
    for (size_t i = 0; i <= s->count; i++) {
        uint64_t first = i < s->count ? s->spans[i].first : s->next;
        if (first > at)
            find(v, &(struct weir_fsck_finding){
                        .severity = WEIR_FSCK_DAMAGE,
                        .has_shard = true,
                        .stream = s->stream,
                        .shard = s->shard,
                        .first = at,
                        .limit = first,
                        .reason = "records are missing",
                    });
        if (i < s->count && s->spans[i].limit > at)
            at = s->spans[i].limit;
    }
}

static void
shards_free(struct verify *v, bool check)
{
    size_t cursor = 0;
    struct shard *s;
    v->file = NULL;
    while ((s = weir_map_next(&v->shards, &cursor))) {
        if (check)
            find_holes(v, s);
        (void)weir_map_take(&v->shards, s->shard);
        free(s->spans);
        free(s);
    }
    weir_map_fini(&v->shards);
}

/* ---- a segment ---- */

static enum weir_status
walk_read(struct weir_walk *w, void *buf, size_t len, uint64_t at, size_t *read_out)
{
    struct verify *v = WEIR_CONTAINER(w, struct verify, walk);
    if (at >= v->progress + PROGRESS_BYTES) {
        v->progress = at;
        progress(v, at);
    }
    return weir_file_pread(v->handle, buf, len, at, read_out);
}

static enum weir_status
walk_group(struct weir_walk *w, const struct weir_group_info *g)
{
    struct verify *v = WEIR_CONTAINER(w, struct verify, walk);
    uint8_t padding[WEIR_DISK_BLOCK];
    size_t len = weir_group_disk_bytes(g->length) - g->length, got = 0;
    v->totals->groups++;
    enum weir_status st = weir_file_pread(v->handle, padding, len, g->position + g->length, &got);
    for (size_t i = 0; i < got && !st; i++) {
        if (!padding[i])
            continue;
        find_damage(v, g->position + g->length + i, 1, "padding behind a group is not zero");
        break;
    }
    return st;
}

static enum weir_status
note_seen(struct verify *v, uint64_t position, const struct weir_batch_info *info)
{
    if (v->seen_count == v->seen_capacity) {
        size_t capacity = v->seen_capacity ? 2 * v->seen_capacity : 1024;
        struct seen *grown = realloc(v->seen, capacity * sizeof *grown);
        if (!grown)
            return WEIR_NO_MEMORY;
        v->seen = grown;
        v->seen_capacity = capacity;
    }
    v->seen[v->seen_count++] = (struct seen){
        .entry =
            {
                .offset = info->offset,
                .at_ms = info->at_ms,
                .hash = (uint64_t)info->header_hash,
                .position = (uint32_t)position,
                .size = info->size,
                .count = info->count,
            },
        .shard = info->shard,
    };
    return WEIR_OK;
}

static void
check_records(struct verify *v, uint64_t position, struct weir_bytes batch,
              const struct weir_batch_info *info)
{
    struct weir_batch_info again;
    struct weir_error err = {0};
    if (weir_batch_admit(batch, WEIR_RECORD_BYTES_MAX, &v->scratch, &again, &err)) {
        find_batch(v, position, info, err.text[0] ? err.text : "records are not of their form");
        return;
    }
    struct weir_batch_reader reader;
    struct weir_record record;
    if (weir_batch_reader_init(&reader, batch, &v->scratch))
        return;
    while (!weir_batch_reader_next(&reader, &record)) {
        v->totals->records++;
        v->totals->record_bytes += record.key.len + record.data.len;
    }
}

static enum weir_status
walk_batch(struct weir_walk *w, uint64_t position, struct weir_bytes batch,
           const struct weir_batch_info *info)
{
    struct verify *v = WEIR_CONTAINER(w, struct verify, walk);
    struct shard *s;
    enum weir_status st = shard_of(v, info->stream, info->shard, &s);
    if (st)
        return st;
    bool known = s->chain_known;
    if (info->offset >= s->next && known && info->offset == s->next && info->previous != s->chain)
        find_batch(v, position, info, "batch does not follow the one before it");
    if (info->flags & WEIR_BATCH_STATE) {
        v->totals->state_batches++;
        uint64_t trimmed = weir_batch_trimmed_before(batch.data);
        if (trimmed > info->offset)
            find_batch(v, position, info, "state trims more than there is");
        else if (trimmed > s->trimmed)
            s->trimmed = trimmed;
        if (info->offset > s->next || !known) {
            s->next = info->offset > s->next ? info->offset : s->next;
            s->chain = info->previous;
            s->chain_known = true;
        }
        return WEIR_OK;
    }
    v->totals->batches++;
    check_records(v, position, batch, info);
    uint64_t limit = info->offset + info->count;
    st = note_seen(v, position, info);
    if (!st)
        st = add_span(s, info->offset, limit);
    if (st || limit <= s->next)
        return st;
    s->next = limit;
    s->chain = info->header_hash;
    s->chain_known = true;
    return WEIR_OK;
}

static enum weir_status
walk_bad(struct weir_walk *w, const struct weir_walk_bad *bad)
{
    struct verify *v = WEIR_CONTAINER(w, struct verify, walk);
    struct weir_fsck_finding f = {
        .severity = WEIR_FSCK_DAMAGE,
        .position = bad->position,
        .bytes = bad->bytes,
        .has_shard = bad->has_ids,
        .shard = bad->shard,
        .first = bad->offset,
        .limit = bad->offset + bad->count,
        .reason = bad->reason,
    };
    struct shard *s = bad->has_ids ? weir_map_get(&v->shards, bad->shard) : NULL;
    if (s) {
        f.stream = s->stream;
        if (f.limit > s->next) {
            s->next = f.limit;
            s->chain = bad->hash;
            s->chain_known = true;
        }
    }
    find(v, &f);
    return WEIR_OK;
}

/* ---- the footer ---- */

static struct seen *
seen_at(struct verify *v, uint32_t position)
{
    size_t low = 0, high = v->seen_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (v->seen[middle].entry.position < position)
            low = middle + 1;
        else
            high = middle;
    }
    return low < v->seen_count && v->seen[low].entry.position == position ? &v->seen[low] : NULL;
}

static bool
entry_equal(const struct weir_entry *a, const struct weir_entry *b)
{
    return a->offset == b->offset && a->at_ms == b->at_ms && a->hash == b->hash &&
           a->position == b->position && a->size == b->size && a->count == b->count;
}

static void
check_run(struct verify *v, const struct weir_disk_run *d, const struct weir_disk_entry *entries)
{
    uint64_t shard = weir_get64(d->shard), at = weir_get64(d->first), bytes = 0;
    uint32_t first = weir_get32(d->entry), count = weir_get32(d->count);
    for (uint32_t i = first; i < first + count; i++) {
        struct weir_entry e;
        weir_entry_decode(&entries[i], &e);
        struct seen *seen = seen_at(v, e.position);
        if (e.offset != at)
            find_damage(v, v->file->trailer.end + i * sizeof *entries, sizeof *entries,
                        "footer entries of a run do not follow each other");
        /* A batch that does not hold was reported where it is. */
        if (!seen && !v->walk.damaged)
            find_damage(v, v->file->trailer.end + i * sizeof *entries, sizeof *entries,
                        "footer names a batch that is not there");
        else if (seen && (seen->shard != shard || !entry_equal(&seen->entry, &e)))
            find_damage(v, v->file->trailer.end + i * sizeof *entries, sizeof *entries,
                        "footer entry does not match its batch");
        if (seen)
            seen->listed = true;
        at = e.offset + e.count;
        bytes += e.size;
    }
    if (at != weir_get64(d->limit) || bytes != weir_get64(d->bytes))
        find_damage(v, v->file->trailer.directory, v->file->trailer.directory_size,
                    "footer run does not match its entries");
}

/* The shard's state says that the batch is still wanted. */
static bool
is_wanted(const struct weir_directory *d, uint32_t count, uint64_t shard, uint64_t limit)
{
    uint32_t low = 0, high = count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (weir_get64(d->states[middle].shard) < shard)
            low = middle + 1;
        else
            high = middle;
    }
    return low < count && weir_get64(d->states[low].shard) == shard &&
           weir_get64(d->states[low].trimmed_before) < limit;
}

static enum weir_status
take_states(struct verify *v, const struct weir_directory *d)
{
    for (uint32_t i = 0; i < v->file->trailer.states; i++) {
        const struct weir_disk_state *state = &d->states[i];
        struct shard *s;
        enum weir_status st = shard_of(v, weir_get64(state->stream), weir_get64(state->shard), &s);
        if (st)
            return st;
        uint64_t next = weir_get64(state->next);
        if (weir_get64(state->trimmed_before) > s->trimmed)
            s->trimmed = weir_get64(state->trimmed_before);
        if (next < s->next ||
            (next == s->next && s->chain_known && weir_get128(state->chain) != s->chain))
            find(v, &(struct weir_fsck_finding){
                        .severity = WEIR_FSCK_DAMAGE,
                        .position = v->file->trailer.directory,
                        .bytes = v->file->trailer.directory_size,
                        .has_shard = true,
                        .stream = s->stream,
                        .shard = s->shard,
                        .first = next,
                        .limit = s->next,
                        .reason = "footer state does not match the shard's batches",
                    });
        if (next >= s->next) {
            s->next = next;
            s->chain = weir_get128(state->chain);
            s->chain_known = true;
        }
    }
    return WEIR_OK;
}

static enum weir_status
check_footer(struct verify *v)
{
    const struct weir_trailer_info *t = &v->file->trailer;
    size_t entry_bytes = t->entries * sizeof(struct weir_disk_entry);
    size_t len = entry_bytes + t->directory_size;
    uint8_t *bytes = malloc(len + 1);
    struct weir_directory d;
    enum weir_status st = bytes ? WEIR_OK : WEIR_NO_MEMORY;
    if (!st)
        st = weir_file_pread_all(v->handle, bytes, len, t->end);
    if (st)
        goto done;
    if (weir_directory_decode(t, weir_bytes(bytes + entry_bytes, t->directory_size), &d)) {
        find_damage(v, t->directory, t->directory_size, "footer directory does not match its hash");
        goto done;
    }
    for (uint32_t i = 0; i < weir_chunks_of(t->entries); i++) {
        size_t at = i * WEIR_CHUNK_BYTES;
        size_t chunk = entry_bytes - at < WEIR_CHUNK_BYTES ? entry_bytes - at : WEIR_CHUNK_BYTES;
        if (weir_chunk_hash(bytes + at, chunk) == weir_get64(d.chunks[i]))
            continue;
        find_damage(v, t->end + at, chunk, "footer entries do not match their hash");
        goto states;
    }
    for (uint32_t i = 0; i < t->runs; i++)
        check_run(v, &d.runs[i], (const void *)bytes);
    /* Batches of a shard that was dropped while they were in flight are in no footer, nor is it. */
    for (size_t i = 0; i < v->seen_count; i++) {
        const struct weir_entry *e = &v->seen[i].entry;
        if (!v->seen[i].listed && is_wanted(&d, t->states, v->seen[i].shard, e->offset + e->count))
            find_damage(v, e->position, e->size, "batch is missing in the footer");
    }
states:
    st = take_states(v, &d);
done:
    free(bytes);
    return st;
}

static enum weir_status
check_segment(struct verify *v, size_t i)
{
    const struct file *f = v->file = &v->files[i], *next = i + 1 < v->file_count ? f + 1 : NULL;
    bool follows = i && f[-1].number + 1 == f->number;
    if (next && next->number != f->number + 1)
        next = NULL;
    enum weir_status st = weir_fs_open(v->fs, f->path, WEIR_OPEN_READ, &v->handle);
    if (st)
        return weir_fail(v->err, st, "cannot open '%s': %s", f->path, weir_status_text(st));
    /* A segment's first write has header and group; torn, it may have left the group alone. */
    if (!f->has_header && f->blank && follows && !f[-1].sealed && !next)
        find(v, &(struct weir_fsck_finding){.severity = WEIR_FSCK_NOTE,
                                            .bytes = WEIR_DISK_BLOCK,
                                            .reason = "torn start of a segment"});
    else if (!f->has_header)
        find_damage(v, 0, WEIR_DISK_BLOCK, "segment header does not hold");
    weir_u128 last_hash = v->walk.last_hash;
    bool last_known = follows && v->walk.groups;
    if (f->has_header && last_known && f->header.previous_hash != last_hash)
        find_damage(v, 0, WEIR_DISK_BLOCK, "segment does not follow the one before it");

    v->walk = (struct weir_walk){
        .read = walk_read,
        .group = walk_group,
        .batch = walk_batch,
        .bad = walk_bad,
        .journal_id_known = v->id_known,
        .journal_id = v->id,
        .segment = f->number,
        .limit = f->sealed                  ? f->trailer.end
                 : next && next->has_header ? next->header.previous_end
                                            : UINT64_MAX,
        .previous_known = f->has_header,
        .previous = f->header.previous_hash,
        .scan_bytes = UINT64_MAX,
    };
    v->seen_count = 0;
    v->progress = 0;
    st = weir_walk_run(&v->walk);
    weir_walk_fini(&v->walk);
    if (st) {
        st = weir_fail(v->err, st, "cannot read '%s': %s", f->path, weir_status_text(st));
        goto done;
    }
    if (v->walk.torn_bytes) {
        v->totals->torn_bytes += v->walk.torn_bytes;
        find(v, &(struct weir_fsck_finding){.severity = WEIR_FSCK_NOTE,
                                            .position = v->walk.end,
                                            .bytes = v->walk.torn_bytes,
                                            .reason = "torn end, never acknowledged"});
    }
    v->totals->segments++;
    v->totals->sealed_segments += f->sealed;
    v->totals->bytes += f->sealed ? f->bytes : v->walk.end;
    if (f->sealed)
        st = check_footer(v);
    else if (next && next->sealed) /* footers are written in the order of the segments */
        find_damage(v, v->walk.end, f->bytes - v->walk.end,
                    f->trailer_bad ? "trailer does not hold" : "footer is missing");
    else if (next)
        find(v, &(struct weir_fsck_finding){.severity = WEIR_FSCK_NOTE,
                                            .position = v->walk.end,
                                            .reason = "footer was not finished"});
    progress(v, f->bytes);
done:
    weir_file_close(v->handle);
    v->handle = NULL;
    return st;
}

/* ---- a journal ---- */

static void
list_file(void *arg, const struct weir_fs_entry *entry)
{
    struct verify *v = arg;
    unsigned long long number;
    int end = 0;
    if (entry->is_directory || strlen(entry->name) < 12 ||
        sscanf(entry->name, "%llu.seg%n", &number, &end) != 1 || !end || entry->name[end])
        return;
    if (v->file_count == v->file_capacity) {
        size_t capacity = v->file_capacity ? 2 * v->file_capacity : 64;
        struct file *grown = realloc(v->files, capacity * sizeof *grown);
        if (!grown) {
            v->st = WEIR_NO_MEMORY;
            return;
        }
        v->files = grown;
        v->file_capacity = capacity;
    }
    struct file *f = &v->files[v->file_count++];
    *f = (struct file){.number = number};
    snprintf(f->path, sizeof f->path, "%.40s/%.255s", v->directory, entry->name);
}

static int
file_order(const void *a, const void *b)
{
    const struct file *x = a, *y = b;
    return x->number < y->number ? -1 : x->number > y->number;
}

/* Header and trailer of a file. */
static enum weir_status
look_at(struct verify *v, struct file *f)
{
    struct weir_file *handle;
    uint8_t block[WEIR_DISK_BLOCK] = {0};
    size_t got = 0;
    enum weir_status st = weir_fs_open(v->fs, f->path, WEIR_OPEN_READ, &handle);
    if (st)
        return weir_fail(v->err, st, "cannot open '%s': %s", f->path, weir_status_text(st));
    st = weir_file_size(handle, &f->bytes);
    if (!st)
        st = weir_file_pread(handle, block, sizeof block, 0, &got);
    if (st)
        goto done;
    enum weir_status header = weir_segment_decode(weir_bytes(block, sizeof block), &f->header);
    f->has_header = !header && f->header.segment == f->number;
    f->blank = (!header && !f->has_header) ||
               (block[0] == 0 && !memcmp(block, block + 1, sizeof block - 1));
    if (f->bytes >= 2 * WEIR_DISK_BLOCK) {
        struct weir_group_info g;
        st = weir_file_pread(handle, block, sizeof block, sizeof block, &got);
        if (st)
            goto done;
        f->has_group = !weir_group_decode(weir_bytes(block, sizeof block), &g) &&
                       g.segment == f->number && g.position == sizeof block;
        st = weir_file_pread(handle, block, sizeof block, f->bytes - sizeof block, &got);
        if (st)
            goto done;
        enum weir_status end =
            weir_trailer_decode(weir_bytes(block, sizeof block), f->bytes, &f->trailer);
        f->sealed = !end && f->trailer.segment == f->number;
        if (end == WEIR_UNSUPPORTED)
            header = end;
        const weir_le64 *magic = (const void *)block;
        f->trailer_bad = end == WEIR_INVALID && weir_get64(*magic) == WEIR_TRAILER_MAGIC;
    }
    if (header == WEIR_UNSUPPORTED)
        st = weir_fail(v->err, header, "'%s' was written by a newer version", f->path);
    if (!v->id_known && (f->has_header || f->sealed)) {
        v->id_known = true;
        v->id = f->has_header ? f->header.journal_id : f->trailer.journal_id;
    }
done:
    weir_file_close(handle);
    return st;
}

static enum weir_status
check_journal(struct verify *v)
{
    weir_map_init(&v->shards, 0);
    v->file_count = 0;
    v->id_known = false;
    v->st = WEIR_OK;
    v->walk = (struct weir_walk){0};
    enum weir_status st = weir_fs_list(v->fs, v->directory, list_file, v);
    if (!st)
        st = v->st;
    if (v->file_count)
        qsort(v->files, v->file_count, sizeof *v->files, file_order);
    for (size_t i = 0; i < v->file_count && !st; i++)
        st = look_at(v, &v->files[i]);
    /* What is at the end without a header was only prepared, or its first write was torn; unless
     * the one before it is sealed, or it holds a group. */
    while (v->file_count > 1 && !st) {
        const struct file *f = &v->files[v->file_count - 1];
        if (f->has_header || f->sealed || f->has_group ||
            (f[-1].sealed && f[-1].number + 1 == f->number))
            break;
        v->file = f;
        if (!f->blank)
            find(v, &(struct weir_fsck_finding){.severity = WEIR_FSCK_NOTE,
                                                .bytes = WEIR_DISK_BLOCK,
                                                .reason = "torn start of a segment"});
        v->file_count--;
    }
    if (v->file_count == 1 && !v->id_known && v->files[0].blank)
        v->file_count = 0;
    for (size_t i = 0; i < v->file_count && !st; i++)
        st = check_segment(v, i);
    shards_free(v, !st);
    v->totals->journals++;
    return st;
}

/* ---- the directory ---- */

struct journals {
    char (*names)[256];
    size_t count, capacity;
    enum weir_status st;
};

static void
list_journal(void *arg, const struct weir_fs_entry *entry)
{
    struct journals *j = arg;
    if (!entry->is_directory || strncmp(entry->name, "journal", 7) != 0)
        return;
    if (j->count == j->capacity) {
        size_t capacity = j->capacity ? 2 * j->capacity : 8;
        void *grown = realloc(j->names, capacity * sizeof *j->names);
        if (!grown) {
            j->st = WEIR_NO_MEMORY;
            return;
        }
        j->names = grown;
        j->capacity = capacity;
    }
    memcpy(j->names[j->count++], entry->name, sizeof entry->name);
}

static int
name_order(const void *a, const void *b)
{
    size_t x = strlen(a), y = strlen(b);
    return x != y ? (x < y ? -1 : 1) : strcmp(a, b);
}

enum weir_status
weir_fsck_verify(struct weir_fs *fs, const struct weir_fsck_options *options,
                 const struct weir_fsck_callbacks *callbacks, struct weir_fsck_totals *totals,
                 int64_t *holder_pid_out, struct weir_error *err)
{
    struct journals journals = {0};
    struct weir_file *lock = NULL;
    int64_t holder = 0;
    *totals = (struct weir_fsck_totals){0};
    enum weir_status st = weir_fs_list(fs, "", list_journal, &journals);
    if (!st)
        st = journals.st;
    if (!st && !journals.count)
        st = WEIR_NOT_FOUND;
    if (st) {
        st = weir_fail(err, st, "no journal to verify: %s", weir_status_text(st));
        goto done;
    }
    qsort(journals.names, journals.count, sizeof *journals.names, name_order);
    /* A directory that cannot be locked, as it is read-only, has no broker either. */
    if (!(options && options->even_if_locked) &&
        weir_fs_lock(fs, "lock", &lock, &holder) == WEIR_BUSY) {
        if (holder_pid_out)
            *holder_pid_out = holder;
        st = weir_fail(err, WEIR_BUSY, "a broker holds this directory (process %lld)",
                       (long long)holder);
        goto done;
    }
    struct verify v = {.fs = fs, .callbacks = callbacks, .totals = totals, .err = err};
    for (size_t i = 0; i < journals.count && !st; i++) {
        snprintf(v.directory, sizeof v.directory, "%s", journals.names[i]);
        st = check_journal(&v);
    }
    free(v.files);
    free(v.seen);
    weir_scratch_fini(&v.scratch);
    if (!st && totals->damaged)
        st = weir_fail(err, WEIR_DAMAGED, "%llu places are damaged",
                       (unsigned long long)totals->damaged);
done:
    weir_file_close(lock);
    free(journals.names);
    return st;
}
