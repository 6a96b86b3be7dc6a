#include "sink/exporter.h"
#include "record/sequence.h"
#include "sink/boundary.h"
#include "sink/part.h"
#include "json/writer.h"
#include <stdio.h>
#include <stdlib.h>

/* What is being collected of one shard. */
struct shard {
    uint32_t index;
    uint64_t next;  /* offset of the next record */
    uint64_t first; /* of this object */
    uint64_t records, bytes, opened_ms, first_at_ms;
    bool finished; /* the parts are complete and their objects known, the decision is not made */
    bool ending;   /* the shard is at its end: close now, then log it */
    struct weir_part *part[WEIR_BOUNDARY_OBJECTS];
    struct weir_boundary_object object[WEIR_BOUNDARY_OBJECTS];
};

struct weir_exporter {
    struct weir_exporter_options o;
    struct weir_fs *fs;
    struct weir_file *lock;
    struct weir_boundaries *boundaries;
    struct weir_map shards;
    struct weir_text line;
    struct weir_exporter_numbers numbers;
    char stream[160], prefix[512], error_prefix[512], state[300];
};

enum { LINES, ERRORS };

static void
part_path(const struct weir_exporter *e, uint32_t shard, int which, char out[400])
{
    snprintf(out, 400, "%s/%s-%u", e->state, which == LINES ? "lines" : "errors", shard);
}

static struct shard *
find_or_make(struct weir_exporter *e, uint32_t index)
{
    struct shard *s = weir_map_get(&e->shards, index);
    if (s)
        return s;
    s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->index = index;
    const struct weir_boundary_shard *known = weir_boundaries_find(e->boundaries, index);
    s->next = s->first = known ? known->position : UINT64_MAX; /* the first record tells */
    if (weir_map_put(&e->shards, index, s)) {
        free(s);
        return NULL;
    }
    return s;
}

/* ---- collecting ---- */

static void
abandon(struct shard *s)
{
    for (int i = 0; i < WEIR_BOUNDARY_OBJECTS; i++) {
        weir_part_abandon(s->part[i]);
        s->part[i] = NULL;
    }
}

static enum weir_status
write_part(struct weir_exporter *e, struct shard *s, int which, struct weir_error *err)
{
    char path[400];
    part_path(e, s->index, which, path);
    enum weir_status st = WEIR_OK;
    if (!s->part[which])
        st = weir_part_open(e->fs, path, e->o.gzip && which == LINES, &s->part[which]);
    if (!st)
        st = weir_part_write(s->part[which], weir_bytes(e->line.data, e->line.len));
    if (st)
        return weir_fail(err, st, "cannot write '%s': %s", path, weir_status_text(st));
    s->bytes += e->line.len;
    return WEIR_OK;
}

static void
error_line(struct weir_exporter *e, const struct weir_export_record *r, const char *reason)
{
    struct weir_json_writer w;
    char shard[WEIR_SHARD_ID_LEN + 1];
    weir_shard_id_format(r->shard, shard);
    weir_text_clear(&e->line);
    weir_json_writer_init(&w, &e->line);
    weir_json_begin_object(&w);
    weir_json_write_name(&w, "attemptsMade");
    weir_json_write_u64(&w, 1);
    weir_json_write_name(&w, "arrivalTimestamp");
    weir_json_write_u64(&w, r->at_ms);
    weir_json_write_name(&w, "errorCode");
    weir_json_write_text(&w, "Weir.NotAChangeRecord");
    weir_json_write_name(&w, "errorMessage");
    weir_json_write_text(&w, reason);
    weir_json_write_name(&w, "shardId");
    weir_json_write_text(&w, shard);
    weir_json_write_name(&w, "sequenceNumber");
    weir_json_write_text_or_null(&w, r->sequence && r->sequence[0] ? r->sequence : NULL);
    weir_json_write_name(&w, "offset");
    weir_json_write_u64(&w, r->offset);
    weir_json_write_name(&w, "partitionKey");
    weir_json_write_string(&w, r->key);
    weir_json_write_name(&w, "rawData");
    weir_json_write_base64(&w, r->data);
    weir_json_end_object(&w);
    weir_text_puts(&e->line, "\n");
}

/* A part that could not be written is made again from the shard's present first offset: what was
 * collected is forgotten, and the caller reads again from there. */
static void
forget(struct weir_exporter *e, struct shard *s)
{
    abandon(s);
    e->numbers.waiting -= s->bytes;
    s->records = s->bytes = 0;
    s->finished = false;
    s->next = s->first;
}

enum weir_status
weir_exporter_start(struct weir_exporter *e, uint32_t shard, uint64_t offset,
                    struct weir_error *err)
{
    struct shard *s = find_or_make(e, shard);
    if (!s)
        return weir_fail(err, WEIR_NO_MEMORY, "out of memory");
    if (s->next != UINT64_MAX)
        return WEIR_OK;
    enum weir_status st = weir_boundaries_gap(e->boundaries, shard, offset, offset);
    if (st)
        return weir_fail(err, st, "cannot log the start of shard %u: %s", shard,
                         weir_status_text(st));
    s->next = s->first = offset;
    return WEIR_OK;
}

enum weir_status
weir_exporter_put(struct weir_exporter *e, const struct weir_export_record *r,
                  struct weir_error *err)
{
    struct shard *s = find_or_make(e, r->shard);
    if (!s)
        return weir_fail(err, WEIR_NO_MEMORY, "out of memory");
    const struct weir_boundary_shard *known = weir_boundaries_find(e->boundaries, r->shard);
    if (s->finished || (known && known->pending))
        return weir_fail(err, WEIR_AGAIN, "shard %u has an object that is not published yet",
                         r->shard);
    if (s->next == UINT64_MAX) {
        enum weir_status st = weir_exporter_start(e, r->shard, r->offset, err);
        if (st)
            return st;
    }
    if (r->offset < s->next)
        return WEIR_OK;
    if (r->offset > s->next)
        return weir_fail(err, WEIR_INVALID, "shard %u goes on at offset %lu, not %lu", r->shard,
                         (unsigned long)s->next, (unsigned long)r->offset);

    struct weir_flatten_options flatten = e->o.flatten;
    char shard[WEIR_SHARD_ID_LEN + 1];
    struct weir_error why = {0};
    if (e->o.with_sequence && r->sequence)
        flatten.seq = weir_bytes_of(r->sequence);
    if (e->o.with_shard) {
        weir_shard_id_format(r->shard, shard);
        flatten.shard = weir_bytes_of(shard);
    }
    weir_text_clear(&e->line);
    enum weir_status st = weir_flatten_append(r->data, &flatten, &e->line, &why);
    if (st == WEIR_NO_MEMORY)
        return weir_fail(err, st, "out of memory");
    int which = st ? ERRORS : LINES;
    if (st)
        error_line(e, r, why.text);
    if (e->line.failed)
        return weir_fail(err, WEIR_NO_MEMORY, "out of memory");

    uint64_t before = s->bytes;
    st = write_part(e, s, which, err);
    if (st) {
        forget(e, s);
        return st;
    }
    if (s->records++ == 0) {
        s->opened_ms = weir_now_ms(e->o.sys->clock);
        s->first_at_ms = r->at_ms;
    }
    s->next++;
    e->numbers.records++;
    e->numbers.bytes_in += r->data.len;
    e->numbers.waiting += s->bytes - before;
    if (which == LINES)
        e->numbers.lines++;
    else
        e->numbers.errors++;
    return WEIR_OK;
}

/* ---- closing ---- */

/* "prefix/2026/11/28/09/orders-shardId-…-FIRST-LIMIT.ndjson": the hour is that of the first record.
 */
static void
object_name(const struct weir_exporter *e, const struct shard *s, int which, char out[1024])
{
    char moment[25], shard[WEIR_SHARD_ID_LEN + 1];
    weir_format_moment(s->first_at_ms, moment);
    weir_shard_id_format(s->index, shard);
    snprintf(out, 1024, "%s%s%.4s/%.2s/%.2s/%.2s/%s-%s-%020lu-%020lu.ndjson%s",
             which == LINES ? e->prefix : e->error_prefix,
             which == LINES ? "" : "processing-failed/", moment, moment + 5, moment + 8,
             moment + 11, e->stream, shard, (unsigned long)s->first, (unsigned long)s->next,
             e->o.gzip && which == LINES ? ".gz" : "");
}

static enum weir_status
finish_parts(struct weir_exporter *e, struct shard *s, struct weir_error *err)
{
    memset(s->object, 0, sizeof s->object);
    for (int i = 0; i < WEIR_BOUNDARY_OBJECTS; i++) {
        struct weir_boundary_object *o = &s->object[i];
        if (!s->part[i])
            continue;
        enum weir_status st = weir_part_finish(s->part[i], &o->size, o->sha256, o->md5);
        s->part[i] = NULL;
        if (st) {
            forget(e, s);
            return weir_fail(err, st, "cannot complete a part of shard %u: %s", s->index,
                             weir_status_text(st));
        }
        object_name(e, s, i, o->name);
    }
    /* Their names too: a decision must find its parts again. */
    enum weir_status st = weir_fs_sync_directory(e->fs, e->state);
    if (st) {
        forget(e, s);
        return weir_fail(err, st, "cannot sync '%s': %s", e->state, weir_status_text(st));
    }
    s->finished = true;
    return WEIR_OK;
}

static struct weir_object
as_object(const struct weir_exporter *e, const struct weir_boundary_object *o, int which)
{
    return (struct weir_object){
        .name = o->name,
        .content_type = "application/x-ndjson",
        .content_encoding = e->o.gzip && which == LINES ? "gzip" : NULL,
        .sha256 = o->sha256,
        .md5 = o->md5,
        .size = o->size,
    };
}

/* PART: it can be published from here; THERE: it is published; LOST: neither. */
enum remains { PART, THERE, LOST };

/* Step 3 and 4 of a decided boundary, for the objects whose part is there. */
static enum weir_status
publish(struct weir_exporter *e, const struct weir_boundary_shard *b, const enum remains *found,
        struct weir_error *err)
{
    char path[400];
    for (int i = 0; i < WEIR_BOUNDARY_OBJECTS; i++) {
        if (!b->object[i].name[0] || found[i] != PART)
            continue;
        struct weir_object object = as_object(e, &b->object[i], i);
        part_path(e, b->shard, i, path);
        enum weir_status st =
            e->o.destination->ops->publish(e->o.destination, e->fs, path, &object, err);
        if (st)
            return st;
    }
    enum weir_status st = weir_boundaries_done(e->boundaries, b->shard);
    if (st)
        return weir_fail(err, st, "cannot log the end of a boundary: %s", weir_status_text(st));
    for (int i = 0; i < WEIR_BOUNDARY_OBJECTS; i++) {
        if (!b->object[i].name[0])
            continue;
        part_path(e, b->shard, i, path);
        (void)!weir_fs_remove(e->fs, path); /* renamed away, or made anew by the next object */
        e->numbers.bytes_out += b->object[i].size;
        if (i == LINES)
            e->numbers.objects++;
        else
            e->numbers.error_objects++;
    }
    return WEIR_OK;
}

static enum weir_status
close_object(struct weir_exporter *e, struct shard *s,
             void (*published)(void *arg, uint32_t shard, uint64_t limit, bool ended,
                               const char *name),
             void *arg, struct weir_error *err)
{
    enum weir_status st = WEIR_OK;
    const struct weir_boundary_shard *b = weir_boundaries_find(e->boundaries, s->index);
    bool pending = b && b->pending;
    if (!pending && s->records) {
        if (!s->finished)
            st = finish_parts(e, s, err);
        if (st)
            return st;
        st = weir_boundaries_decide(e->boundaries, s->index, s->first, s->next, s->object);
        if (st)
            return weir_fail(err, st, "cannot log a boundary: %s", weir_status_text(st));
        pending = true;
        b = weir_boundaries_find(e->boundaries, s->index);
    }
    const char *name = "";
    if (pending) {
        static const enum remains parts[WEIR_BOUNDARY_OBJECTS] = {PART, PART};
        st = publish(e, b, parts, err);
        if (st)
            return st;
        name = b->object[b->object[LINES].name[0] ? LINES : ERRORS].name;
        e->numbers.waiting -= s->bytes;
        s->first = s->next = b->limit;
        s->records = s->bytes = 0;
        s->finished = false;
    }
    if (s->ending && (!b || !b->ended)) {
        st = weir_boundaries_end(e->boundaries, s->index);
        if (st)
            return weir_fail(err, st, "cannot log the end of a shard: %s", weir_status_text(st));
    }
    if (published && (pending || s->ending))
        published(arg, s->index, s->next == UINT64_MAX ? 0 : s->next, s->ending, name);
    s->ending = false;
    return WEIR_OK;
}

static bool
is_due(const struct weir_exporter *e, const struct shard *s, uint64_t now)
{
    const struct weir_boundary_shard *b = weir_boundaries_find(e->boundaries, s->index);
    return s->ending || s->finished || (b && b->pending) ||
           (s->records && (s->bytes >= e->o.size_bytes || now >= s->opened_ms + e->o.interval_ms));
}

enum weir_status
weir_exporter_flush(struct weir_exporter *e, bool all,
                    void (*published)(void *arg, uint32_t shard, uint64_t limit, bool ended,
                                      const char *name),
                    void *arg, struct weir_error *err)
{
    uint64_t now = weir_now_ms(e->o.sys->clock);
    size_t cursor = 0;
    for (struct shard *s; (s = weir_map_next(&e->shards, &cursor));) {
        if (!is_due(e, s, now) && !(all && s->records))
            continue;
        enum weir_status st = close_object(e, s, published, arg, err);
        if (st)
            return st;
    }
    return WEIR_OK;
}

uint64_t
weir_exporter_due_ms(const struct weir_exporter *e)
{
    uint64_t now = weir_now_ms(e->o.sys->clock), due = UINT64_MAX;
    size_t cursor = 0;
    for (struct shard *s; (s = weir_map_next(&e->shards, &cursor));) {
        if (is_due(e, s, now))
            return 0;
        if (s->records && s->opened_ms + e->o.interval_ms - now < due)
            due = s->opened_ms + e->o.interval_ms - now;
    }
    return due;
}

enum weir_status
weir_exporter_gap(struct weir_exporter *e, uint32_t shard, uint64_t first, uint64_t limit,
                  struct weir_error *err)
{
    struct shard *s = find_or_make(e, shard);
    if (!s)
        return weir_fail(err, WEIR_NO_MEMORY, "out of memory");
    if (s->next != UINT64_MAX && limit <= s->next)
        return WEIR_OK;
    enum weir_status st = close_object(e, s, NULL, NULL, err);
    if (st)
        return st;
    st = weir_boundaries_gap(e->boundaries, shard, s->next == UINT64_MAX ? first : s->next, limit);
    if (st)
        return weir_fail(err, st, "cannot log a gap: %s", weir_status_text(st));
    e->numbers.gaps++;
    e->numbers.gap_records += limit - (s->next == UINT64_MAX ? first : s->next);
    s->first = s->next = limit;
    return WEIR_OK;
}

enum weir_status
weir_exporter_end(struct weir_exporter *e, uint32_t shard, struct weir_error *err)
{
    struct shard *s = find_or_make(e, shard);
    if (!s)
        return weir_fail(err, WEIR_NO_MEMORY, "out of memory");
    s->ending = true; /* flush does the rest */
    return WEIR_OK;
}

/* ---- positions and numbers ---- */

enum weir_status
weir_exporter_position(const struct weir_exporter *e, uint32_t shard, uint64_t *offset_out)
{
    const struct shard *s = weir_map_get(&e->shards, shard);
    const struct weir_boundary_shard *b = weir_boundaries_find(e->boundaries, shard);
    if (s && s->next != UINT64_MAX)
        *offset_out = s->next;
    else if (b)
        *offset_out = b->position;
    else
        return WEIR_NOT_FOUND;
    return WEIR_OK;
}

void
weir_exporter_each(const struct weir_exporter *e,
                   void (*each)(void *arg, uint32_t shard, uint64_t offset, bool ended), void *arg)
{
    size_t cursor = 0;
    for (struct weir_boundary_shard *b; (b = weir_boundaries_next(e->boundaries, &cursor));)
        each(arg, b->shard, b->position, b->ended);
}

void
weir_exporter_get_numbers(const struct weir_exporter *e, struct weir_exporter_numbers *out)
{
    *out = e->numbers;
}

/* ---- opening: what a crash left ---- */

static enum weir_status
look_for(struct weir_exporter *e, const struct weir_boundary_shard *b, int which, enum remains *out,
         struct weir_error *err)
{
    const struct weir_boundary_object *o = &b->object[which];
    struct weir_object object = as_object(e, o, which);
    char path[400], sha256[65];
    uint64_t size;
    part_path(e, b->shard, which, path);
    enum weir_status st = weir_part_hash(e->fs, path, &size, sha256);
    if (st && st != WEIR_NOT_FOUND)
        return weir_fail(err, st, "cannot read '%s': %s", path, weir_status_text(st));
    if (!st && size == o->size && strcmp(sha256, o->sha256) == 0) {
        *out = PART;
        return WEIR_OK;
    }
    st = e->o.destination->ops->look(e->o.destination, &object, err);
    if (st && st != WEIR_NOT_FOUND)
        return st;
    *out = st ? LOST : THERE;
    return WEIR_OK;
}

/* Publishes a decided boundary, or takes it back where nothing of it is left. */
static enum weir_status
resume(struct weir_exporter *e, const struct weir_boundary_shard *b, struct weir_error *err)
{
    enum remains found[WEIR_BOUNDARY_OBJECTS];
    unsigned wanted = 0, lost = 0;
    enum weir_status st;
    for (int i = 0; i < WEIR_BOUNDARY_OBJECTS; i++) {
        found[i] = THERE;
        if (!b->object[i].name[0])
            continue;
        st = look_for(e, b, i, &found[i], err);
        if (st)
            return st;
        wanted++;
        lost += found[i] == LOST;
    }
    if (lost && lost < wanted)
        return weir_fail(err, WEIR_DAMAGED,
                         "of the objects of shard %u, offsets %lu to %lu, one is published and the "
                         "other's part is damaged",
                         b->shard, (unsigned long)b->first, (unsigned long)b->limit);
    if (lost) {
        st = weir_boundaries_take_back(e->boundaries, b->shard);
        if (st)
            return weir_fail(err, st, "cannot write the boundary log: %s", weir_status_text(st));
        e->numbers.taken_back++;
        return WEIR_OK;
    }
    st = publish(e, b, found, err);
    if (!st)
        e->numbers.resumed++;
    return st;
}

/* The state's directories, each name durable: a state that vanished would be made anew, and
 * everything exported twice. */
static enum weir_status
make_state(struct weir_exporter *e)
{
    char path[300], above[300] = "";
    for (size_t i = 1; i <= strlen(e->state); i++) {
        if (e->state[i] != '/' && e->state[i])
            continue;
        memcpy(path, e->state, i);
        path[i] = '\0';
        enum weir_status st = weir_fs_mkdir(e->fs, path);
        if (!st)
            st = weir_fs_sync_directory(e->fs, above);
        if (st)
            return st;
        memcpy(above, path, i + 1);
    }
    return WEIR_OK;
}

enum weir_status
weir_exporter_open(const struct weir_exporter_options *options, struct weir_exporter **out,
                   struct weir_error *err)
{
    struct weir_exporter *e = calloc(1, sizeof *e);
    int64_t pid = 0;
    char path[400];
    enum weir_status st = WEIR_OK;
    if (!e)
        return weir_fail(err, WEIR_NO_MEMORY, "out of memory");
    e->o = *options;
    e->fs = options->sys->fs;
    weir_map_init(&e->shards, options->sys->seed);
    snprintf(e->stream, sizeof e->stream, "%s", options->stream);
    snprintf(e->prefix, sizeof e->prefix, "%s", options->prefix ? options->prefix : "");
    snprintf(e->error_prefix, sizeof e->error_prefix, "%s",
             options->error_prefix ? options->error_prefix : "errors/");
    snprintf(e->state, sizeof e->state, "%s", options->state);
    if (strlen(options->stream) >= sizeof e->stream || strlen(options->state) >= 280 ||
        strlen(e->prefix) > 400 || strlen(e->error_prefix) > 400) {
        st = weir_fail(err, WEIR_TOO_BIG, "a name or prefix is too long (400 bytes)");
        goto done;
    }
    st = make_state(e);
    if (st) {
        (void)!weir_fail(err, st, "cannot make '%s': %s", e->state, weir_status_text(st));
        goto done;
    }
    snprintf(path, sizeof path, "%s/lock", e->state);
    st = weir_fs_lock(e->fs, path, &e->lock, &pid);
    if (st) {
        if (st == WEIR_BUSY)
            (void)!weir_fail(err, st, "another exporter (process %ld) has '%s'", (long)pid,
                             e->state);
        else
            (void)!weir_fail(err, st, "cannot lock '%s': %s", path, weir_status_text(st));
        goto done;
    }
    st = weir_boundaries_open(e->fs, e->state, e->stream, options->stream_created_ms,
                              &e->boundaries, err);
    if (st)
        goto done;
    size_t cursor = 0;
    for (struct weir_boundary_shard *b; (b = weir_boundaries_next(e->boundaries, &cursor));)
        if (b->pending && (st = resume(e, b, err)))
            goto done;
    *out = e;
    e = NULL;
done:
    weir_exporter_close(e);
    return st;
}

void
weir_exporter_close(struct weir_exporter *e)
{
    if (!e)
        return;
    size_t cursor = 0;
    for (struct shard *s; (s = weir_map_next(&e->shards, &cursor));) {
        abandon(s);
        free(s);
    }
    weir_map_fini(&e->shards);
    weir_boundaries_close(e->boundaries);
    weir_text_fini(&e->line);
    weir_file_close(e->lock);
    free(e);
}
