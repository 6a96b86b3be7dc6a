/* Printing a segment: its header, each group with its batches, what is bad, and its footer, as text
 * for people or as JSON lines with the same members. */
#include "base/list.h"
#include "fsck/fsck.h"
#include "log/walk.h"
#include <inttypes.h>
#include <stdlib.h>

#define PREVIEW_BYTES 64

struct inspect {
    struct weir_walk walk;
    struct weir_file *file;
    const struct weir_fsck_inspect_options *options;
    enum weir_status (*print)(void *arg, struct weir_bytes text);
    void *arg;
    struct weir_text text;
    struct weir_scratch scratch;
    uint64_t printed; /* groups */
    bool quiet;       /* in a group that was not asked for */
};

/* Hands out what was gathered. */
static enum weir_status
flush(struct inspect *x)
{
    if (x->text.failed)
        return WEIR_NO_MEMORY;
    enum weir_status st = x->print(x->arg, weir_bytes(x->text.data, x->text.len));
    weir_text_clear(&x->text);
    return st;
}

static const char *
hex128(weir_u128 v, char out[33])
{
    static const char digits[] = "0123456789abcdef";
    for (int i = 0; i < 32; i++)
        out[i] = digits[(unsigned)(v >> (124 - 4 * i)) & 15];
    out[32] = 0;
    return out;
}

/* A JSON string; bytes that are not ASCII text as escapes, unless it is UTF-8 as a whole. */
static void
quote(struct weir_text *t, struct weir_bytes bytes)
{
    bool utf8 = weir_utf8_is_valid(bytes);
    weir_text_puts(t, "\"");
    for (size_t i = 0; i < bytes.len; i++) {
        uint8_t c = bytes.data[i];
        if (c == '"' || c == '\\')
            weir_text_printf(t, "\\%c", c);
        else if (c < 0x20 || c == 0x7f || (c >= 0x80 && !utf8))
            weir_text_printf(t, "\\u%04x", c);
        else
            weir_text_append(t, weir_bytes(&c, 1));
    }
    weir_text_puts(t, "\"");
}

static enum weir_status
print_header(struct inspect *x, const struct weir_segment_info *s)
{
    char id[33], hash[33], at[25];
    hex128(s->journal_id, id);
    hex128(s->previous_hash, hash);
    weir_format_moment(s->created_ms, at);
    if (x->options->json)
        weir_text_printf(&x->text,
                         "{\"type\":\"segment\",\"segment\":%" PRIu64 ",\"journal\":%" PRIu32
                         ",\"journal_id\":\"%s\",\"version\":%" PRIu32 ",\"epoch\":%" PRIu32
                         ",\"created\":\"%s\",\"previous_end\":%" PRIu64
                         ",\"previous_hash\":\"%s\",\"first_group\":%" PRIu64 "}\n",
                         s->segment, s->journal, id, s->version, s->epoch, at, s->previous_end,
                         hash, s->group);
    else
        weir_text_printf(&x->text,
                         "segment %" PRIu64 " of journal %" PRIu32 " (%s), version %" PRIu32
                         ", epoch %" PRIu32 "\n  created %s, first group %" PRIu64
                         "\n  the segment before ends at %" PRIu64 " (%s)\n",
                         s->segment, s->journal, id, s->version, s->epoch, at, s->group,
                         s->previous_end, hash);
    return flush(x);
}

static enum weir_status
on_read(struct weir_walk *w, void *buf, size_t len, uint64_t at, size_t *read_out)
{
    return weir_file_pread(WEIR_CONTAINER(w, struct inspect, walk)->file, buf, len, at, read_out);
}

static enum weir_status
on_group(struct weir_walk *w, const struct weir_group_info *g)
{
    struct inspect *x = WEIR_CONTAINER(w, struct inspect, walk);
    const struct weir_fsck_inspect_options *o = x->options;
    char hash[33];
    x->quiet = g->position < o->position;
    if (x->quiet)
        return WEIR_OK;
    if (o->groups_max && x->printed == o->groups_max)
        return WEIR_END;
    x->printed++;
    hex128(g->header_hash, hash);
    const char *close = g->flags & WEIR_GROUP_CLOSE ? "true" : "false";
    if (o->json)
        weir_text_printf(&x->text,
                         "{\"type\":\"group\",\"position\":%" PRIu64 ",\"group\":%" PRIu64
                         ",\"length\":%" PRIu32 ",\"batches\":%" PRIu32 ",\"epoch\":%" PRIu32
                         ",\"synced\":%" PRIu64 ",\"close\":%s,\"hash\":\"%s\"}\n",
                         g->position, g->number, g->length, g->count, g->epoch, g->synced, close,
                         hash);
    else
        weir_text_printf(&x->text,
                         "%10" PRIu64 " group %" PRIu64 ": %" PRIu32 " batches, %" PRIu32
                         " bytes, epoch %" PRIu32 ", synced to %" PRIu64 "%s\n",
                         g->position, g->number, g->count, g->length, g->epoch, g->synced,
                         g->flags & WEIR_GROUP_CLOSE ? ", orderly close" : "");
    return flush(x);
}

static enum weir_status
print_records(struct inspect *x, struct weir_bytes batch)
{
    struct weir_batch_reader reader;
    struct weir_record record;
    enum weir_status st = weir_batch_reader_init(&reader, batch, &x->scratch);
    while (!st && !(st = weir_batch_reader_next(&reader, &record))) {
        size_t shown = record.data.len < PREVIEW_BYTES ? record.data.len : PREVIEW_BYTES;
        if (x->options->json) {
            weir_text_printf(&x->text,
                             "{\"type\":\"record\",\"offset\":%" PRIu64 ",\"key\":", reader.offset);
            quote(&x->text, record.key);
            weir_text_printf(&x->text, ",\"size\":%zu,\"data\":", record.data.len);
            quote(&x->text, weir_bytes(record.data.data, shown));
            weir_text_puts(&x->text, "}\n");
        } else {
            weir_text_printf(&x->text, "%14sat %" PRIu64 ": key ", "", reader.offset);
            quote(&x->text, record.key);
            weir_text_printf(&x->text, ", %zu bytes ", record.data.len);
            quote(&x->text, weir_bytes(record.data.data, shown));
            weir_text_puts(&x->text, shown < record.data.len ? "...\n" : "\n");
        }
        enum weir_status flushed = flush(x);
        if (flushed)
            return flushed;
    }
    return st == WEIR_END ? WEIR_OK : st == WEIR_NO_MEMORY ? st : WEIR_OK;
}

static enum weir_status
on_batch(struct weir_walk *w, uint64_t position, struct weir_bytes batch,
         const struct weir_batch_info *info)
{
    struct inspect *x = WEIR_CONTAINER(w, struct inspect, walk);
    const struct weir_fsck_inspect_options *o = x->options;
    char hash[33], previous[33], producer[33], at[25];
    if (x->quiet || (o->has_shard && info->shard != o->shard))
        return WEIR_OK;
    hex128(info->header_hash, hash);
    hex128(info->previous, previous);
    hex128(info->producer, producer);
    weir_format_moment(info->at_ms, at);
    bool state = info->flags & WEIR_BATCH_STATE;
    const char *codec = info->codec == WEIR_CODEC_LZ4 ? "lz4" : "none";
    if (o->json) {
        weir_text_printf(
            &x->text,
            "{\"type\":\"%s\",\"position\":%" PRIu64 ",\"size\":%" PRIu32 ",\"stream\":%" PRIu64
            ",\"shard\":%" PRIu64 ",\"offset\":%" PRIu64 ",\"count\":%" PRIu32
            ",\"at\":\"%s\",\"codec\":\"%s\",\"raw_size\":%" PRIu32 ",\"epoch\":%" PRIu32
            ",\"producer\":\"%s\",\"number\":%" PRIu64 ",\"previous\":\"%s\",\"hash\":\"%s\"",
            state ? "state" : "batch", position, info->size, info->stream, info->shard,
            info->offset, info->count, at, codec, info->raw_size, info->epoch, producer,
            info->number, previous, hash);
        if (state)
            weir_text_printf(&x->text, ",\"trimmed_before\":%" PRIu64,
                             weir_batch_trimmed_before(batch.data));
        weir_text_puts(&x->text, "}\n");
    } else if (state) {
        weir_text_printf(&x->text,
                         "%10" PRIu64 "   state of shard %" PRIu64 ": next offset %" PRIu64
                         ", trimmed before %" PRIu64 ", at %s\n",
                         position, info->shard, info->offset, weir_batch_trimmed_before(batch.data),
                         at);
    } else {
        weir_text_printf(&x->text,
                         "%10" PRIu64 "   batch of shard %" PRIu64 " (stream %" PRIu64
                         "): offset %" PRIu64 ", %" PRIu32 " records, %" PRIu32
                         " bytes (%s, %" PRIu32 " raw), at %s\n",
                         position, info->shard, info->stream, info->offset, info->count, info->size,
                         codec, info->raw_size, at);
        if (info->producer)
            weir_text_printf(&x->text, "%14sproducer %s, its batch %" PRIu64 "\n", "", producer,
                             info->number);
    }
    enum weir_status st = flush(x);
    return st || !o->records || state ? st : print_records(x, batch);
}

static enum weir_status
print_bad(struct inspect *x, const struct weir_walk_bad *bad)
{
    if (x->options->json) {
        weir_text_printf(&x->text, "{\"type\":\"bad\",\"position\":%" PRIu64 ",\"size\":%" PRIu64,
                         bad->position, bad->bytes);
        if (bad->has_ids)
            weir_text_printf(&x->text,
                             ",\"shard\":%" PRIu64 ",\"offset\":%" PRIu64 ",\"count\":%" PRIu32,
                             bad->shard, bad->offset, bad->count);
        weir_text_printf(&x->text, ",\"reason\":\"%s\"}\n", bad->reason);
    } else {
        weir_text_printf(&x->text, "%10" PRIu64 "   BAD: %s", bad->position, bad->reason);
        if (bad->has_ids)
            weir_text_printf(&x->text,
                             " (shard %" PRIu64 ", offset %" PRIu64 ", %" PRIu32 " records)",
                             bad->shard, bad->offset, bad->count);
        weir_text_puts(&x->text, "\n");
    }
    return flush(x);
}

static enum weir_status
on_bad(struct weir_walk *w, const struct weir_walk_bad *bad)
{
    return print_bad(WEIR_CONTAINER(w, struct inspect, walk), bad);
}

/* ---- the footer ---- */

static enum weir_status
print_run(struct inspect *x, const struct weir_disk_run *r)
{
    char first[25], last[25];
    weir_format_moment(weir_get64(r->first_at_ms), first);
    weir_format_moment(weir_get64(r->last_at_ms), last);
    weir_text_printf(&x->text,
                     x->options->json
                         ? "{\"type\":\"run\",\"stream\":%" PRIu64 ",\"shard\":%" PRIu64
                           ",\"first\":%" PRIu64 ",\"limit\":%" PRIu64 ",\"first_at\":\"%s\""
                           ",\"last_at\":\"%s\",\"bytes\":%" PRIu64 ",\"batches\":%" PRIu32 "}\n"
                         : "  run: stream %" PRIu64 ", shard %" PRIu64 ", offsets %" PRIu64
                           " to %" PRIu64 ", %s to %s, %" PRIu64 " bytes in %" PRIu32 " batches\n",
                     weir_get64(r->stream), weir_get64(r->shard), weir_get64(r->first),
                     weir_get64(r->limit), first, last, weir_get64(r->bytes), weir_get32(r->count));
    return flush(x);
}

static enum weir_status
print_state(struct inspect *x, const struct weir_disk_state *s)
{
    char at[25], chain[33];
    weir_format_moment(weir_get64(s->latest_at_ms), at);
    hex128(weir_get128(s->chain), chain);
    weir_text_printf(&x->text,
                     x->options->json
                         ? "{\"type\":\"shard\",\"stream\":%" PRIu64 ",\"shard\":%" PRIu64
                           ",\"next\":%" PRIu64 ",\"trimmed_before\":%" PRIu64
                           ",\"latest_at\":\"%s\",\"chain\":\"%s\",\"producers\":%" PRIu32 "}\n"
                         : "  shard: stream %" PRIu64 ", shard %" PRIu64 ", next offset %" PRIu64
                           ", trimmed before %" PRIu64 ", latest %s, chain %s, %" PRIu32
                           " producers\n",
                     weir_get64(s->stream), weir_get64(s->shard), weir_get64(s->next),
                     weir_get64(s->trimmed_before), at, chain, weir_get32(s->count));
    return flush(x);
}

static enum weir_status
print_footer(struct inspect *x, const struct weir_trailer_info *t)
{
    struct weir_directory d;
    uint8_t *bytes = malloc(t->directory_size + 1u);
    enum weir_status st = bytes ? WEIR_OK : WEIR_NO_MEMORY;
    weir_text_printf(&x->text,
                     x->options->json
                         ? "{\"type\":\"footer\",\"end\":%" PRIu64 ",\"entries\":%" PRIu32
                           ",\"runs\":%" PRIu32 ",\"shards\":%" PRIu32 ",\"producers\":%" PRIu32
                           ",\"damaged\":%" PRIu32 "}\n"
                         : "footer at %" PRIu64 ": %" PRIu32 " entries, %" PRIu32 " runs, %" PRIu32
                           " shards, %" PRIu32 " producers, %" PRIu32 " damaged places known\n",
                     t->end, t->entries, t->runs, t->states, t->producers, t->damaged);
    if (!st)
        st = flush(x);
    if (st || !x->options->footer)
        goto done;
    st = weir_file_pread_all(x->file, bytes, t->directory_size, t->directory);
    if (st)
        goto done;
    if (weir_directory_decode(t, weir_bytes(bytes, t->directory_size), &d)) {
        st = print_bad(
            x, &(struct weir_walk_bad){.position = t->directory,
                                       .bytes = t->directory_size,
                                       .reason = "footer directory does not match its hash"});
        goto done;
    }
    for (uint32_t i = 0; i < t->runs && !st; i++)
        st = print_run(x, &d.runs[i]);
    for (uint32_t i = 0; i < t->states && !st; i++)
        st = print_state(x, &d.states[i]);
done:
    free(bytes);
    return st;
}

/* The number in "00000012.seg", for a file whose header is gone; 0 if there is none. */
static uint64_t
number_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return strtoull(slash ? slash + 1 : path, NULL, 10);
}

static enum weir_status
run(struct inspect *x, const char *path, uint64_t bytes, struct weir_error *err)
{
    uint8_t block[WEIR_DISK_BLOCK] = {0};
    struct weir_segment_info header = {0};
    struct weir_trailer_info trailer;
    size_t got = 0;
    enum weir_status st = weir_file_pread(x->file, block, sizeof block, 0, &got);
    if (st)
        return weir_fail(err, st, "cannot read '%s': %s", path, weir_status_text(st));
    enum weir_status has_header = weir_segment_decode(weir_bytes(block, sizeof block), &header);
    bool sealed = false;
    if (bytes >= 2 * WEIR_DISK_BLOCK) {
        st = weir_file_pread(x->file, block, sizeof block, bytes - sizeof block, &got);
        if (st)
            return weir_fail(err, st, "cannot read '%s': %s", path, weir_status_text(st));
        sealed = !weir_trailer_decode(weir_bytes(block, sizeof block), bytes, &trailer);
    }
    if (!has_header)
        st = print_header(x, &header);
    else if (sealed || number_of(path))
        st = print_bad(x, &(struct weir_walk_bad){.bytes = WEIR_DISK_BLOCK,
                                                  .reason = "segment header does not hold"});
    if (st)
        return st;
    x->walk = (struct weir_walk){
        .read = on_read,
        .group = on_group,
        .batch = on_batch,
        .bad = on_bad,
        .journal_id_known = !has_header || sealed,
        .journal_id = !has_header ? header.journal_id
                      : sealed    ? trailer.journal_id
                                  : 0,
        .segment = !has_header ? header.segment
                   : sealed    ? trailer.segment
                               : number_of(path),
        .limit = sealed ? trailer.end : UINT64_MAX,
        .previous_known = !has_header,
        .previous = header.previous_hash,
        .scan_bytes = UINT64_MAX,
    };
    st = weir_walk_run(&x->walk);
    weir_walk_fini(&x->walk);
    if (st == WEIR_END && x->options->groups_max)
        return WEIR_OK;
    if (st)
        return weir_fail(err, st, "cannot read '%s': %s", path, weir_status_text(st));
    if (has_header && !sealed && !x->walk.groups)
        return weir_fail(err, WEIR_INVALID, "'%s' is no segment file", path);
    if (sealed)
        return print_footer(x, &trailer);
    weir_text_printf(&x->text,
                     x->options->json ? "{\"type\":\"end\",\"position\":%" PRIu64
                                        ",\"torn\":%" PRIu64 ",\"prepared\":%" PRIu64 "}\n"
                                      : "%10" PRIu64 " end, not sealed; %" PRIu64
                                        " bytes torn, %" PRIu64 " bytes prepared\n",
                     x->walk.end, x->walk.torn_bytes,
                     bytes > x->walk.end ? bytes - x->walk.end : 0);
    return flush(x);
}

enum weir_status
weir_fsck_inspect(struct weir_fs *fs, const char *path,
                  const struct weir_fsck_inspect_options *options,
                  enum weir_status (*print)(void *arg, struct weir_bytes text), void *arg,
                  struct weir_error *err)
{
    struct inspect x = {.options = options, .print = print, .arg = arg};
    uint64_t bytes;
    enum weir_status st = weir_fs_open(fs, path, WEIR_OPEN_READ, &x.file);
    if (!st)
        st = weir_file_size(x.file, &bytes);
    if (st)
        st = weir_fail(err, st, "cannot open '%s': %s", path, weir_status_text(st));
    else
        st = run(&x, path, bytes, err);
    weir_file_close(x.file);
    weir_text_fini(&x.text);
    weir_scratch_fini(&x.scratch);
    return st;
}
