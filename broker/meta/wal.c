/* The log, all integers big-endian:
 *
 *   off  size
 *     0     4  magic        0x377f0682, or ...83: checksums over big-endian words
 *     4     4  version      3007000
 *     8     4  page_bytes
 *    12     4  sequence     counts how often the log was begun anew
 *    16     8  salt         of this time
 *    24     8  sum          of bytes 0..23
 *    32        frames:
 *
 *     0     4  page         its number in the table's file
 *     4     4  commit       pages of the file after it, where it ends a transaction; else 0
 *     8     8  salt         the header's
 *    16     8  sum
 *    24        the page
 *
 * The sum of a frame covers its bytes 0..7 and the page, and goes on from the sum of the one
 * before. So a frame can also be judged by the sum that stands in its neighbour, when that one is
 * not sound itself.
 *
 * Frames of one salt are written in order, a transaction's only after the commit before it was
 * synced, and what a failed transaction wrote is cut off. Hence: where a frame is not sound, and
 * there is a commit mark at or behind it, and behind that again a frame that holds its neighbour's
 * sum, something was damaged that was durable. Otherwise the last transaction was torn. */
#include "wal.h"
#include "base/le.h"
#include <stdlib.h>

#define MAGIC 0x377f0682u
#define HEADER_BYTES 32
#define FRAME_HEADER_BYTES 24

struct sum {
    uint32_t a, b;
};

struct wal {
    struct weir_file *file;
    uint64_t size;
    bool big_endian;
    uint32_t page_bytes;
    uint8_t salt[8];
    uint8_t *frame; /* header and page */
};

struct frame {
    bool is_ours; /* has the log's salt */
    bool is_commit;
    struct sum stored;
};

static uint32_t
word(const struct wal *w, const uint8_t *at)
{
    uint32_t v = weir_load_be32(at);
    return w->big_endian ? v : __builtin_bswap32(v);
}

static struct sum
sum_on(const struct wal *w, struct sum s, const uint8_t *data, size_t len)
{
    for (size_t i = 0; i < len; i += 8) {
        s.a += word(w, data + i) + s.b;
        s.b += word(w, data + i + 4) + s.a;
    }
    return s;
}

static struct sum
load_sum(const uint8_t *at)
{
    return (struct sum){weir_load_be32(at), weir_load_be32(at + 4)};
}

static bool
is_same(struct sum x, struct sum y)
{
    return x.a == y.a && x.b == y.b;
}

/* DAMAGED: not a header. */
static enum weir_status
read_header(struct wal *w, struct sum *sum_out)
{
    uint8_t h[HEADER_BYTES];
    enum weir_status st = weir_file_pread_all(w->file, h, sizeof h, 0);
    if (st)
        return st;
    w->big_endian = weir_load_be32(h) & 1;
    w->page_bytes = weir_load_be32(h + 8);
    memcpy(w->salt, h + 16, sizeof w->salt);
    struct sum sum = sum_on(w, (struct sum){0}, h, 24);
    if ((weir_load_be32(h) & ~1u) != MAGIC || !is_same(sum, load_sum(h + 24)) ||
        w->page_bytes < 512 || w->page_bytes > 65536 || (w->page_bytes & (w->page_bytes - 1)) != 0)
        return WEIR_DAMAGED;
    *sum_out = sum;
    return WEIR_OK;
}

static uint64_t
offset_of(const struct wal *w, uint64_t index)
{
    return HEADER_BYTES + index * (FRAME_HEADER_BYTES + (uint64_t)w->page_bytes);
}

/* Reads a frame; *sum_out is what its sum is to be after a frame of the sum `before`. */
static enum weir_status
read_frame(const struct wal *w, uint64_t index, struct sum before, struct frame *out,
           struct sum *sum_out)
{
    enum weir_status st = weir_file_pread_all(w->file, w->frame, FRAME_HEADER_BYTES + w->page_bytes,
                                              offset_of(w, index));
    if (st)
        return st;
    *out = (struct frame){
        .is_ours = memcmp(w->frame + 8, w->salt, sizeof w->salt) == 0,
        .is_commit = weir_load_be32(w->frame + 4) != 0,
        .stored = load_sum(w->frame + 16),
    };
    *sum_out =
        sum_on(w, sum_on(w, before, w->frame, 8), w->frame + FRAME_HEADER_BYTES, w->page_bytes);
    return WEIR_OK;
}

/* The frame `bad` is not sound: was it, or one behind it, durable? */
static enum weir_status
look_behind(const struct wal *w, uint64_t bad, uint64_t count, bool *durable_out)
{
    bool after_commit = false;
    struct sum before = {0};
    for (uint64_t i = bad; i < count; i++) {
        struct frame frame;
        struct sum sum;
        enum weir_status st = read_frame(w, i, before, &frame, &sum);
        if (st)
            return st;
        if (i > bad && after_commit && frame.is_ours && is_same(sum, frame.stored)) {
            *durable_out = true;
            return WEIR_OK;
        }
        after_commit |= frame.is_ours && frame.is_commit;
        before = frame.stored;
    }
    *durable_out = false;
    return WEIR_OK;
}

/* *end_out: behind the last commit that holds. */
static enum weir_status
walk(struct wal *w, struct sum sum, uint64_t *end_out, bool *damaged_out)
{
    uint64_t count = (w->size - HEADER_BYTES) / (FRAME_HEADER_BYTES + w->page_bytes), end = 0;
    for (uint64_t i = 0; i < count; i++) {
        struct frame frame;
        struct sum next;
        enum weir_status st = read_frame(w, i, sum, &frame, &next);
        if (st)
            return st;
        if (!frame.is_ours || !is_same(next, frame.stored)) {
            *end_out = offset_of(w, end);
            return look_behind(w, i, count, damaged_out);
        }
        sum = next;
        if (frame.is_commit)
            end = i + 1;
    }
    *end_out = offset_of(w, end);
    *damaged_out = false;
    return WEIR_OK;
}

static enum weir_status
check(struct wal *w, const char *path, struct weir_error *err)
{
    struct sum sum;
    uint64_t end;
    bool damaged;
    enum weir_status st = weir_file_size(w->file, &w->size);
    if (!st && w->size <= HEADER_BYTES)
        return WEIR_OK; /* the header is synced before the first frame is written */
    if (!st)
        st = read_header(w, &sum);
    if (st == WEIR_DAMAGED)
        return weir_fail(err, st, "'%s' is damaged: its header is not sound", path);
    if (!st) {
        w->frame = malloc(FRAME_HEADER_BYTES + w->page_bytes);
        st = w->frame ? walk(w, sum, &end, &damaged) : WEIR_NO_MEMORY;
    }
    if (!st && damaged)
        return weir_fail(err, WEIR_DAMAGED,
                         "'%s' is damaged: committed transactions lie behind byte %llu", path,
                         (unsigned long long)end);
    if (!st && end < w->size) {
        st = weir_file_truncate(w->file, end);
        if (!st)
            st = weir_file_datasync(w->file);
    }
    return st ? weir_fail(err, st, "cannot check '%s': %s", path, weir_status_text(st)) : WEIR_OK;
}

enum weir_status
weir_meta_wal_check(struct weir_fs *fs, const char *path, struct weir_error *err)
{
    struct wal w = {0};
    enum weir_status st = weir_fs_open(fs, path, WEIR_OPEN_WRITE, &w.file);
    if (st == WEIR_NOT_FOUND)
        return WEIR_OK;
    if (st)
        return weir_fail(err, st, "cannot open '%s': %s", path, weir_status_text(st));
    st = check(&w, path, err);
    free(w.frame);
    weir_file_close(w.file);
    return st;
}
