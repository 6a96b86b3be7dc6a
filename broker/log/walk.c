/* The walk of walk.h.
 *
 *   1. Take the group at `pos`: its header must hold and fit (journal, segment, position, number,
 *      the hash of the group before); its table and all its batches must hold. Report them, go on
 *      behind it.
 *   2. Where one does not hold, look for a proof that it was durable. Without one, end here.
 *   3. With one: take the batches that hold (by the table, or one behind the other where the header
 *      or the table is bad), report the others, go on at the next group that holds. */
#include "log/walk.h"
#include "base/assert.h"
#include <stdlib.h>

#define WINDOW_BYTES (1 * WEIR_MIB)

/* Makes `want` bytes at `pos` visible, or fewer where the file ends. */
static enum weir_status
load(struct weir_walk *w, uint64_t pos, size_t want, struct weir_bytes *out)
{
    if (pos >= w->at && pos - w->at + want <= w->len) {
        *out = weir_bytes(w->buf + (pos - w->at), want);
        return WEIR_OK;
    }
    size_t need = want > WINDOW_BYTES ? want : WINDOW_BYTES;
    if (need > w->capacity) {
        uint8_t *grown = realloc(w->buf, need);
        if (!grown)
            return WEIR_NO_MEMORY;
        w->buf = grown;
        w->capacity = need;
    }
    size_t got = 0;
    w->len = 0;
    enum weir_status st = w->read(w, w->buf, need, pos, &got);
    if (st && st != WEIR_END)
        return st;
    w->at = pos;
    w->len = got;
    *out = weir_bytes(w->buf, got < want ? got : want);
    return WEIR_OK;
}

/* A header that holds and belongs here. `strict`: it must follow the last group directly. */
static bool
header_fits(const struct weir_walk *w, struct weir_bytes head, uint64_t pos, bool strict,
            struct weir_group_info *g)
{
    if (weir_group_decode(head, g))
        return false;
    if (w->journal_id_known && g->journal_id != w->journal_id)
        return false;
    if (g->segment != w->segment || g->position != pos)
        return false;
    if (w->last_position && (g->epoch < w->epoch || g->number <= w->number))
        return false;
    if (strict && w->previous_known && g->previous != w->previous)
        return false;
    return pos + weir_group_disk_bytes(g->length) <= w->limit || w->limit <= pos;
}

static bool
batch_matches(const struct weir_batch_info *info, const struct weir_row_info *row)
{
    return info->header_hash == row->hash && info->size == row->size && info->shard == row->shard &&
           info->offset == row->offset && info->count == row->count;
}

static bool
contents_hold(const struct weir_group_info *g, struct weir_bytes group)
{
    if (!weir_group_table_holds(g, group))
        return false;
    const struct weir_disk_row *rows = (const void *)(group.data + weir_group_table(g));
    const uint8_t *p = group.data + sizeof(struct weir_disk_group);
    for (uint32_t i = 0; i < g->count; i++) {
        struct weir_row_info row;
        struct weir_batch_info info;
        weir_row_decode(&rows[i], &row);
        if (weir_batch_check(weir_bytes(p, row.size), &info) || !batch_matches(&info, &row))
            return false;
        p += row.size;
    }
    return true;
}

static enum weir_status
report_bad(struct weir_walk *w, const struct weir_walk_bad *bad)
{
    w->damaged++;
    return w->bad ? w->bad(w, bad) : WEIR_OK;
}

static enum weir_status
report_batch(struct weir_walk *w, uint64_t position, struct weir_bytes batch,
             const struct weir_batch_info *info)
{
    w->batches++;
    return w->batch ? w->batch(w, position, batch, info) : WEIR_OK;
}

static void
follow(struct weir_walk *w, const struct weir_group_info *g)
{
    w->journal_id = g->journal_id;
    w->journal_id_known = 1;
    w->last_position = g->position;
    w->last_hash = w->previous = g->header_hash;
    w->previous_known = true;
    w->number = g->number;
    w->epoch = g->epoch;
    w->flags = g->flags;
    w->groups++;
}

static enum weir_status
report_good(struct weir_walk *w, const struct weir_group_info *g, struct weir_bytes group)
{
    enum weir_status st = w->group ? w->group(w, g) : WEIR_OK;
    size_t at = sizeof(struct weir_disk_group);
    for (uint32_t i = 0; i < g->count && !st; i++) {
        struct weir_batch_info info;
        st = weir_batch_peek(weir_bytes(group.data + at, weir_group_table(g) - at), &info);
        WEIR_ASSERT(!st);
        st = report_batch(w, g->position + at, weir_bytes(group.data + at, info.size), &info);
        at += info.size;
    }
    return st;
}

/* The table holds: each batch stands where it says, whatever became of the ones before. */
static enum weir_status
salvage_by_table(struct weir_walk *w, const struct weir_group_info *g, struct weir_bytes group)
{
    const struct weir_disk_row *rows = (const void *)(group.data + weir_group_table(g));
    size_t at = sizeof(struct weir_disk_group);
    for (uint32_t i = 0; i < g->count; i++) {
        struct weir_row_info row;
        struct weir_batch_info info;
        enum weir_status st;
        weir_row_decode(&rows[i], &row);
        struct weir_bytes batch = weir_bytes(group.data + at, row.size);
        if (!weir_batch_check(batch, &info) && batch_matches(&info, &row))
            st = report_batch(w, g->position + at, batch, &info);
        else
            st = report_bad(w, &(struct weir_walk_bad){
                                   .position = g->position + at,
                                   .bytes = row.size,
                                   .has_ids = true,
                                   .shard = row.shard,
                                   .offset = row.offset,
                                   .count = row.count,
                                   .hash = row.hash,
                                   .reason = "batch does not match its hashes",
                               });
        if (st)
            return st;
        at += row.size;
    }
    return WEIR_OK;
}

/* Header or table are gone: one batch behind the other, as far as their own headers hold. */
static enum weir_status
salvage_in_line(struct weir_walk *w, uint64_t pos, struct weir_bytes group, uint64_t bad_bytes,
                const char *reason)
{
    size_t at = sizeof(struct weir_disk_group);
    enum weir_status st = WEIR_OK;
    while (!st && at < group.len) {
        struct weir_bytes rest = weir_bytes(group.data + at, group.len - at);
        struct weir_batch_info info;
        if (weir_batch_check_header(rest, &info))
            break;
        if (weir_batch_check(rest, &info))
            st = report_bad(w, &(struct weir_walk_bad){
                                   .position = pos + at,
                                   .bytes = info.size,
                                   .has_ids = true,
                                   .shard = info.shard,
                                   .offset = info.offset,
                                   .count = info.count,
                                   .hash = info.header_hash,
                                   .reason = "batch body does not match its hash",
                               });
        else
            st = report_batch(w, pos + at, weir_bytes(rest.data, info.size), &info);
        at += info.size;
    }
    if (st)
        return st;
    return report_bad(
        w, &(struct weir_walk_bad){.position = pos, .bytes = bad_bytes, .reason = reason});
}

/* The first group at or behind `from` whose header holds; *proof: one that shows `bad` was durable.
 */
static enum weir_status
scan(struct weir_walk *w, uint64_t from, uint64_t bad, uint64_t *next_out, bool *proof)
{
    uint64_t limit = w->limit;
    if (limit == UINT64_MAX || limit - bad > w->scan_bytes)
        limit = bad + w->scan_bytes < bad ? UINT64_MAX : bad + w->scan_bytes;
    *next_out = UINT64_MAX;
    *proof = false;
    for (uint64_t pos = from; pos < limit; pos += WEIR_DISK_BLOCK) {
        struct weir_bytes head;
        struct weir_group_info g;
        enum weir_status st = load(w, pos, sizeof(struct weir_disk_group), &head);
        if (st)
            return st;
        if (head.len < sizeof(struct weir_disk_group))
            break;
        if (!header_fits(w, head, pos, false, &g))
            continue;
        if (*next_out == UINT64_MAX)
            *next_out = pos;
        if (g.synced > bad) {
            *proof = true;
            break;
        }
    }
    return WEIR_OK;
}

/* Something at `pos` does not hold. `g` is its header, or NULL where that is what is bad. Leaves in
 * *next_out where to go on, UINT64_MAX: nowhere. */
static enum weir_status
handle_bad(struct weir_walk *w, uint64_t pos, const struct weir_group_info *g, uint64_t *next_out)
{
    uint64_t behind = pos + (g ? weir_group_disk_bytes(g->length) : WEIR_DISK_BLOCK);
    uint64_t next;
    bool proof;
    enum weir_status st = scan(w, behind, pos, &next, &proof);
    if (st)
        return st;
    if (w->limit != UINT64_MAX) {
        proof = true;
        if (next == UINT64_MAX)
            next = w->limit;
    }
    *next_out = UINT64_MAX;
    if (!proof)
        return WEIR_OK;

    uint64_t whole = next - pos;
    if (g && weir_group_disk_bytes(g->length) < whole)
        whole = weir_group_disk_bytes(g->length);
    if (whole > WEIR_GROUP_DISK_MAX)
        whole = WEIR_GROUP_DISK_MAX;
    struct weir_bytes bytes;
    st = load(w, pos, whole, &bytes);
    if (st)
        return st;
    if (g && weir_group_table_holds(g, bytes))
        st = salvage_by_table(w, g, bytes);
    else if (g && bytes.len >= weir_group_table(g))
        st = salvage_in_line(w, pos, weir_bytes(bytes.data, weir_group_table(g)), g->length,
                             "group table does not match its hash");
    else
        st = salvage_in_line(w, pos, bytes, bytes.len, "group header does not hold");
    if (st)
        return st;
    if (g)
        follow(w, g);
    w->previous_known = g && next == behind;
    *next_out = next;
    return WEIR_OK;
}

/* How much of a torn group can be seen. */
static uint64_t
torn_bytes(struct weir_bytes head, const struct weir_group_info *g)
{
    if (g)
        return weir_group_disk_bytes(g->length);
    /* What a recycled file held is not torn. */
    struct weir_group_info old;
    if (!weir_group_decode(head, &old))
        return 0;
    const weir_le64 *magic = (const void *)head.data;
    return head.len >= 8 && weir_get64(*magic) == WEIR_GROUP_MAGIC ? WEIR_DISK_BLOCK : 0;
}

enum weir_status
weir_walk_run(struct weir_walk *w)
{
    uint64_t pos = WEIR_DISK_BLOCK;
    while (pos < w->limit) {
        struct weir_bytes head, group;
        struct weir_group_info g;
        enum weir_status st = load(w, pos, sizeof(struct weir_disk_group), &head);
        if (st)
            return st;
        bool fits = header_fits(w, head, pos, true, &g);
        if (fits) {
            st = load(w, pos, g.length, &group);
            if (st)
                return st;
            if (group.len == g.length && contents_hold(&g, group)) {
                follow(w, &g);
                st = report_good(w, &g, group);
                if (st)
                    return st;
                pos += weir_group_disk_bytes(g.length);
                continue;
            }
        }
        uint64_t next, torn = torn_bytes(head, fits ? &g : NULL);
        st = handle_bad(w, pos, fits ? &g : NULL, &next);
        if (st)
            return st;
        if (next == UINT64_MAX) {
            w->torn_bytes = torn;
            break;
        }
        pos = next;
    }
    w->end = pos;
    return WEIR_OK;
}

void
weir_walk_fini(struct weir_walk *w)
{
    free(w->buf);
    w->buf = NULL;
    w->capacity = w->len = 0;
}
