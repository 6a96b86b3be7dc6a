/* Appending: format a line, write it behind the last good one, sync. A failed append leaves `end`
 * where it was, so the next one overwrites the remains; a reader stops at a bad last line.
 *
 * But remains that happen to be whole (the sync failed, the bytes made it) must not be believed
 * either: so after a failed append the file is cut before the next one, and while even that fails,
 * nothing more is decided. */
#include "sink/boundary.h"
#include "base/text.h"
#include "json/reader.h"
#include "json/writer.h"
#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

struct weir_boundaries {
    struct weir_fs *fs;
    struct weir_file *file;
    char path[512], fresh[512], directory[400], stream[160];
    uint64_t created_ms, end;
    bool dirty; /* bytes of a failed append may lie behind `end` */
    struct weir_map shards;
    struct weir_text line;
};

struct weir_boundary_shard *
weir_boundaries_find(const struct weir_boundaries *b, uint32_t shard)
{
    return weir_map_get(&b->shards, shard);
}

struct weir_boundary_shard *
weir_boundaries_next(const struct weir_boundaries *b, size_t *cursor)
{
    return weir_map_next(&b->shards, cursor);
}

static struct weir_boundary_shard *
find_or_make(struct weir_boundaries *b, uint32_t shard)
{
    struct weir_boundary_shard *s = weir_boundaries_find(b, shard);
    if (s)
        return s;
    s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->shard = shard;
    if (weir_map_put(&b->shards, shard, s)) {
        free(s);
        return NULL;
    }
    return s;
}

/* ---- lines ---- */

#define CHECK_LEN 17

static void
begin_line(struct weir_boundaries *b, struct weir_json_writer *w)
{
    weir_text_clear(&b->line);
    weir_text_puts(&b->line, "0123456789abcdef ");
    weir_json_writer_init(w, &b->line);
    weir_json_begin_object(w);
}

static void
number(struct weir_json_writer *w, const char *name, uint64_t v)
{
    weir_json_write_name(w, name);
    weir_json_write_u64(w, v);
}

static void
text(struct weir_json_writer *w, const char *name, const char *v)
{
    weir_json_write_name(w, name);
    weir_json_write_text(w, v);
}

static enum weir_status
end_line(struct weir_boundaries *b, struct weir_json_writer *w)
{
    weir_json_end_object(w);
    enum weir_status st = weir_json_writer_status(w);
    if (st)
        return st;
    char check[CHECK_LEN + 1];
    snprintf(check, sizeof check, "%016llx ",
             (unsigned long long)XXH3_64bits(b->line.data + CHECK_LEN, b->line.len - CHECK_LEN));
    memcpy(b->line.data, check, CHECK_LEN);
    weir_text_puts(&b->line, "\n");
    return b->line.failed ? WEIR_NO_MEMORY : WEIR_OK;
}

static enum weir_status
write_line(struct weir_boundaries *b, struct weir_file *file, uint64_t *end, bool sync)
{
    enum weir_status st = weir_file_pwrite(file, b->line.data, b->line.len, *end);
    if (!st && sync)
        st = weir_file_datasync(file);
    if (!st)
        *end += b->line.len;
    return st;
}

static enum weir_status
append(struct weir_boundaries *b, struct weir_json_writer *w)
{
    enum weir_status st = end_line(b, w);
    if (st)
        return st;
    if (b->dirty) {
        st = weir_file_truncate(b->file, b->end);
        if (!st)
            st = weir_file_datasync(b->file);
        if (st)
            return st;
        b->dirty = false;
    }
    st = write_line(b, b->file, &b->end, true);
    b->dirty = st != WEIR_OK;
    return st;
}

static void
put_decided(struct weir_json_writer *w, uint32_t shard, uint64_t first, uint64_t limit,
            const struct weir_boundary_object *objects)
{
    number(w, "decided", shard);
    number(w, "first", first);
    number(w, "limit", limit);
    weir_json_write_name(w, "objects");
    weir_json_begin_array(w);
    for (int i = 0; i < WEIR_BOUNDARY_OBJECTS; i++) {
        weir_json_begin_object(w);
        text(w, "name", objects[i].name);
        number(w, "size", objects[i].size);
        text(w, "sha256", objects[i].sha256);
        text(w, "md5", objects[i].md5);
        weir_json_end_object(w);
    }
    weir_json_end_array(w);
}

/* ---- the decisions ---- */

enum weir_status
weir_boundaries_decide(struct weir_boundaries *b, uint32_t shard, uint64_t first, uint64_t limit,
                       const struct weir_boundary_object *objects)
{
    struct weir_boundary_shard *s = find_or_make(b, shard);
    struct weir_json_writer w;
    if (!s)
        return WEIR_NO_MEMORY;
    begin_line(b, &w);
    put_decided(&w, shard, first, limit, objects);
    enum weir_status st = append(b, &w);
    if (st)
        return st;
    s->pending = true;
    s->first = first;
    s->limit = limit;
    memcpy(s->object, objects, sizeof s->object);
    return WEIR_OK;
}

enum weir_status
weir_boundaries_done(struct weir_boundaries *b, uint32_t shard)
{
    struct weir_boundary_shard *s = weir_boundaries_find(b, shard);
    struct weir_json_writer w;
    if (!s || !s->pending)
        return WEIR_INVALID;
    begin_line(b, &w);
    number(&w, "done", shard);
    number(&w, "limit", s->limit);
    enum weir_status st = append(b, &w);
    if (st)
        return st;
    s->pending = false;
    s->position = s->limit;
    return WEIR_OK;
}

enum weir_status
weir_boundaries_take_back(struct weir_boundaries *b, uint32_t shard)
{
    struct weir_boundary_shard *s = weir_boundaries_find(b, shard);
    struct weir_json_writer w;
    if (!s || !s->pending)
        return WEIR_INVALID;
    begin_line(b, &w);
    number(&w, "back", shard);
    number(&w, "first", s->first);
    enum weir_status st = append(b, &w);
    if (st)
        return st;
    s->pending = false;
    s->position = s->first;
    return WEIR_OK;
}

enum weir_status
weir_boundaries_gap(struct weir_boundaries *b, uint32_t shard, uint64_t first, uint64_t limit)
{
    struct weir_boundary_shard *s = find_or_make(b, shard);
    struct weir_json_writer w;
    if (!s)
        return WEIR_NO_MEMORY;
    begin_line(b, &w);
    number(&w, "gap", shard);
    number(&w, "first", first);
    number(&w, "limit", limit);
    enum weir_status st = append(b, &w);
    if (!st)
        s->position = limit;
    return st;
}

enum weir_status
weir_boundaries_end(struct weir_boundaries *b, uint32_t shard)
{
    struct weir_boundary_shard *s = find_or_make(b, shard);
    struct weir_json_writer w;
    if (!s)
        return WEIR_NO_MEMORY;
    if (s->ended)
        return WEIR_OK;
    begin_line(b, &w);
    number(&w, "ended", shard);
    number(&w, "limit", s->position);
    enum weir_status st = append(b, &w);
    if (!st)
        s->ended = true;
    return st;
}

/* ---- reading ---- */

struct parsed {
    bool has_stream, has_decided, has_done, has_back, has_gap, has_ended;
    uint64_t shard, first, limit, created_ms;
    char stream[160];
    struct weir_boundary_object object[WEIR_BOUNDARY_OBJECTS];
};

static bool
take_text(struct weir_json_reader *r, char *out, size_t size)
{
    struct weir_text t = {0};
    bool ok = weir_json_next(r) == WEIR_JSON_STRING && !weir_json_append(r, &t) && t.len < size;
    if (ok) {
        if (t.len)
            memcpy(out, t.data, t.len);
        out[t.len] = '\0';
    }
    weir_text_fini(&t);
    return ok;
}

static bool
take_number(struct weir_json_reader *r, uint64_t *out)
{
    return weir_json_next(r) == WEIR_JSON_NUMBER && !weir_json_u64(r, out);
}

static bool
take_objects(struct weir_json_reader *r, struct weir_boundary_object *objects)
{
    if (weir_json_next(r) != WEIR_JSON_ARRAY)
        return false;
    for (int i = 0; weir_json_next(r) == WEIR_JSON_OBJECT; i++) {
        if (i == WEIR_BOUNDARY_OBJECTS)
            return false;
        struct weir_boundary_object *o = &objects[i];
        while (weir_json_next(r) == WEIR_JSON_NAME) {
            bool ok = weir_json_is(r, "name")     ? take_text(r, o->name, sizeof o->name)
                      : weir_json_is(r, "size")   ? take_number(r, &o->size)
                      : weir_json_is(r, "sha256") ? take_text(r, o->sha256, sizeof o->sha256)
                      : weir_json_is(r, "md5")    ? take_text(r, o->md5, sizeof o->md5)
                                                  : weir_json_skip(r);
            if (!ok)
                return false;
        }
        if (r->token != WEIR_JSON_OBJECT_END)
            return false;
    }
    return r->token == WEIR_JSON_ARRAY_END;
}

static bool
parse_line(struct weir_bytes line, struct parsed *p)
{
    struct weir_json_reader r;
    *p = (struct parsed){0};
    weir_json_reader_init(&r, line, 8);
    if (weir_json_next(&r) != WEIR_JSON_OBJECT)
        return false;
    while (weir_json_next(&r) == WEIR_JSON_NAME) {
        static const char *const kinds[] = {"decided", "done", "back", "gap", "ended"};
        bool *const has[] = {&p->has_decided, &p->has_done, &p->has_back, &p->has_gap,
                             &p->has_ended};
        bool ok = false, kind = false;
        for (size_t i = 0; i < 5 && !kind; i++)
            if (weir_json_is(&r, kinds[i])) {
                kind = *has[i] = true;
                ok = take_number(&r, &p->shard) && p->shard <= UINT32_MAX;
            }
        if (!kind) {
            if (weir_json_is(&r, "stream"))
                ok = p->has_stream = take_text(&r, p->stream, sizeof p->stream);
            else if (weir_json_is(&r, "created_ms"))
                ok = take_number(&r, &p->created_ms);
            else if (weir_json_is(&r, "first"))
                ok = take_number(&r, &p->first);
            else if (weir_json_is(&r, "limit"))
                ok = take_number(&r, &p->limit);
            else if (weir_json_is(&r, "objects"))
                ok = take_objects(&r, p->object);
            else
                ok = weir_json_skip(&r);
        }
        if (!ok)
            return false;
    }
    return r.token == WEIR_JSON_OBJECT_END && weir_json_next(&r) == WEIR_JSON_END;
}

static enum weir_status
apply(struct weir_boundaries *b, const struct parsed *p)
{
    struct weir_boundary_shard *s = find_or_make(b, (uint32_t)p->shard);
    if (!s)
        return WEIR_NO_MEMORY;
    if (p->has_decided) {
        s->pending = true;
        s->first = p->first;
        s->limit = p->limit;
        memcpy(s->object, p->object, sizeof s->object);
    } else if (p->has_done || p->has_gap) {
        s->pending = false;
        s->position = p->limit;
    } else if (p->has_back) {
        s->pending = false;
        s->position = p->first;
    } else if (p->has_ended) {
        s->ended = true;
        s->position = p->limit;
    }
    return WEIR_OK;
}

static bool
line_holds(const uint8_t *line, size_t len)
{
    char check[CHECK_LEN + 1];
    if (len <= CHECK_LEN)
        return false;
    snprintf(check, sizeof check, "%016llx ",
             (unsigned long long)XXH3_64bits(line + CHECK_LEN, len - CHECK_LEN));
    return memcmp(check, line, CHECK_LEN) == 0;
}

static enum weir_status
read_log(struct weir_boundaries *b, const uint8_t *data, size_t size, struct weir_error *err)
{
    bool first = true;
    for (size_t at = 0; at < size;) {
        const uint8_t *end = memchr(data + at, '\n', size - at);
        size_t len = end ? (size_t)(end - data) - at : size - at;
        struct parsed p;
        if (!end || !line_holds(data + at, len)) {
            /* Only the last line may be torn. A torn one has no newline of its own; what follows it
             * would have been written after a cut. */
            if (end && end + 1 < data + size)
                return weir_fail(err, WEIR_DAMAGED, "'%s' is damaged at byte %zu", b->path, at);
            return WEIR_OK;
        }
        if (!parse_line(weir_bytes(data + at + CHECK_LEN, len - CHECK_LEN), &p) ||
            p.has_stream != first)
            return weir_fail(err, WEIR_DAMAGED, "'%s' has no sense at byte %zu", b->path, at);
        if (first && (strcmp(p.stream, b->stream) != 0 || p.created_ms != b->created_ms))
            return weir_fail(
                err, WEIR_INVALID,
                "'%s' belongs to the export of '%s' as made at %lu, not of '%s' as made "
                "at %lu: name another state or export",
                b->path, p.stream, (unsigned long)p.created_ms, b->stream,
                (unsigned long)b->created_ms);
        enum weir_status st = first ? WEIR_OK : apply(b, &p);
        if (st)
            return st;
        first = false;
        at += len + 1;
    }
    return WEIR_OK;
}

/* Writes what matters into a new file and puts it in the place of the old one. */
static enum weir_status
rewrite(struct weir_boundaries *b)
{
    struct weir_file *fresh = NULL;
    struct weir_json_writer w;
    uint64_t end = 0;
    enum weir_status st = weir_fs_open(
        b->fs, b->fresh, WEIR_OPEN_WRITE | WEIR_OPEN_CREATE | WEIR_OPEN_TRUNCATE, &fresh);
    if (st)
        return st;
    begin_line(b, &w);
    text(&w, "stream", b->stream);
    number(&w, "created_ms", b->created_ms);
    st = end_line(b, &w);
    if (!st)
        st = write_line(b, fresh, &end, false);
    size_t cursor = 0;
    for (struct weir_boundary_shard *s; !st && (s = weir_boundaries_next(b, &cursor));) {
        begin_line(b, &w);
        number(&w, s->ended ? "ended" : "done", s->shard);
        number(&w, "limit", s->position);
        st = end_line(b, &w);
        if (!st)
            st = write_line(b, fresh, &end, false);
        if (st || !s->pending)
            continue;
        begin_line(b, &w);
        put_decided(&w, s->shard, s->first, s->limit, s->object);
        st = end_line(b, &w);
        if (!st)
            st = write_line(b, fresh, &end, false);
    }
    if (!st)
        st = weir_file_datasync(fresh);
    if (!st)
        st = weir_fs_rename(b->fs, b->fresh, b->path);
    if (!st)
        st = weir_fs_sync_directory(b->fs, b->directory);
    if (st) {
        weir_file_close(fresh);
        return st;
    }
    b->file = fresh;
    b->end = end;
    return WEIR_OK;
}

enum weir_status
weir_boundaries_open(struct weir_fs *fs, const char *directory, const char *stream,
                     uint64_t created_ms, struct weir_boundaries **out, struct weir_error *err)
{
    struct weir_boundaries *b = calloc(1, sizeof *b);
    struct weir_file *old = NULL;
    uint8_t *data = NULL;
    uint64_t size = 0;
    if (!b)
        return weir_fail(err, WEIR_NO_MEMORY, "out of memory");
    b->fs = fs;
    b->created_ms = created_ms;
    snprintf(b->directory, sizeof b->directory, "%s", directory);
    snprintf(b->path, sizeof b->path, "%s/boundaries", directory);
    snprintf(b->fresh, sizeof b->fresh, "%s/boundaries.new", directory);
    snprintf(b->stream, sizeof b->stream, "%s", stream);
    weir_map_init(&b->shards, 0);

    enum weir_status st = weir_fs_open(fs, b->path, WEIR_OPEN_READ, &old);
    if (st && st != WEIR_NOT_FOUND)
        goto io;
    if (!st) {
        st = weir_file_size(old, &size);
        if (st)
            goto io;
        data = malloc(size + 1);
        st = data ? weir_file_pread_all(old, data, size, 0) : WEIR_NO_MEMORY;
        if (st)
            goto io;
        st = read_log(b, data, size, err);
        if (st)
            goto done;
    }
    st = rewrite(b);
    if (st)
        goto io;
    *out = b;
    b = NULL;
    goto done;
io:
    (void)!weir_fail(err, st, "cannot open '%s': %s", b->path, weir_status_text(st));
done:
    free(data);
    weir_file_close(old);
    weir_boundaries_close(b);
    return st;
}

void
weir_boundaries_close(struct weir_boundaries *b)
{
    if (!b)
        return;
    size_t cursor = 0;
    for (struct weir_boundary_shard *s; (s = weir_boundaries_next(b, &cursor));)
        free(s);
    weir_map_fini(&b->shards);
    weir_text_fini(&b->line);
    weir_file_close(b->file);
    free(b);
}
