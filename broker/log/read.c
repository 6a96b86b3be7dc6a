/* Reading from the journal:
 *
 *   1. On the owner: find the run that has the offset, and note what the job needs of it.
 *   2. On a pool thread: find the entries (in the plan, or in the footer), read the stretch of
 *      file in which they lie in large pieces, check each batch whole, slice them out.
 *   3. On the owner: hand them out.
 *
 * Batches of one shard lie between those of others. Neighbours less than SKIP_BYTES apart are read
 * in one piece with what is between them.
 *
 * What does not hold may be damage, or the segment moved away while we read: so the run is looked
 * up again, and only where it is still the same the place is called damaged, and cut out of it.
 *
 * A footer whose entries do not hold does not cost the batches: they are found by a walk. */
#include "base/assert.h"
#include "log/state.h"
#include "log/walk.h"
#include <stdlib.h>

#define PIECE_BYTES (1 * WEIR_MIB)
#define SKIP_BYTES (32 * WEIR_KIB)
#define TRIES_MAX 4

struct plan {
    struct weir_list node;
    struct weir_log *log;
    uint64_t shard, wanted; /* an offset or a moment */
    struct weir_index_run where;
    struct weir_footer_ref footer; /* of a sealed segment; owns a reference to hashes */
    struct weir_entry entries[WEIR_RUN_SLICES_MAX];
    uint32_t count, first; /* entries; number of the first in the part or footer */
    uint32_t tries;
    enum weir_status st;
    bool settled; /* there is nothing to work on */
    bool bad;     /* entries[bad_at] does not hold */
    uint32_t bad_at;
};

void
weir_run_clear(struct weir_run *run)
{
    for (uint32_t i = 0; i < run->count; i++)
        weir_buf_unref(run->batch[i].slice.buf);
    run->count = 0;
    run->bytes = 0;
}

static struct plan *
plan_new(struct weir_log *log, uint64_t shard, uint64_t wanted)
{
    struct plan *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    p->log = log;
    p->shard = shard;
    p->wanted = wanted;
    weir_list_push_back(&log->plans, &p->node);
    return p;
}

static void
plan_clear(struct plan *p)
{
    weir_buf_unref(p->footer.hashes);
    p->footer = (struct weir_footer_ref){0};
    p->count = 0;
    p->bad = false;
}

static void
plan_free(struct plan *p)
{
    plan_clear(p);
    weir_list_remove(&p->node);
    free(p);
}

void
weir_read_free_plans(struct weir_log *log)
{
    while (!weir_list_is_empty(&log->plans))
        plan_free(WEIR_CONTAINER(log->plans.next, struct plan, node));
}

/* ---- where is it ---- */

/* What can be said of an offset without reading. AGAIN: run `*run_out` has it. */
static enum weir_status
locate(const struct weir_log *log, const struct weir_shard *s, uint64_t offset, uint32_t *run_out,
       uint64_t *first, uint64_t *limit)
{
    (void)log;
    *first = *limit = s->next;
    if (offset >= s->next)
        return WEIR_END;
    if (offset < s->oldest) {
        *first = s->oldest;
        return WEIR_TRIMMED;
    }
    uint32_t i = weir_index_run_at(s, offset);
    if (i < s->run_count && s->runs[i].first <= offset) {
        *run_out = i;
        return WEIR_AGAIN;
    }
    /* A hole: from the asked offset to the next that is there. */
    *first = offset;
    *limit = i < s->run_count ? s->runs[i].first : s->next;
    return WEIR_DAMAGED;
}

/* Notes the run for the job. */
static void
plan_run(struct plan *p, const struct weir_index_run *run)
{
    p->where = *run;
    if (run->part)
        return;
    const struct weir_segment *g = weir_index_segment(&p->log->index, run->segment);
    WEIR_ASSERT(g && g->chunks);
    p->footer = (struct weir_footer_ref){
        .segment = g->number,
        .entries = g->entries,
        .at = g->end,
        .hashes = weir_buf_ref(g->chunks),
    };
}

enum weir_status
weir_log_read_cached(struct weir_log *log, uint64_t shard, uint64_t offset, uint64_t bytes_max,
                     struct weir_run *run)
{
    const struct weir_shard *s = weir_index_shard(&log->index, shard);
    uint32_t i;
    run->count = 0;
    run->bytes = 0;
    if (!s)
        return WEIR_NOT_FOUND;
    if (offset >= s->oldest && weir_cache_read(s, offset, bytes_max, run)) {
        log->stat.cache_hits++;
        return WEIR_OK;
    }
    return locate(log, s, offset, &i, &run->first, &run->limit);
}

/* ---- the read job ---- */

struct regather {
    struct weir_walk walk;
    struct plan *plan;
    uint64_t bytes, bytes_max;
};

static enum weir_status
regather_read(struct weir_walk *w, void *buf, size_t len, uint64_t at, size_t *read_out)
{
    struct regather *x = WEIR_CONTAINER(w, struct regather, walk);
    struct weir_journal *j = x->plan->log->journal;
    return j->ops->read(j, (struct weir_position){w->segment, at}, buf, len, read_out);
}

static enum weir_status
regather_batch(struct weir_walk *w, uint64_t position, struct weir_bytes batch,
               const struct weir_batch_info *info)
{
    struct regather *x = WEIR_CONTAINER(w, struct regather, walk);
    struct plan *p = x->plan;
    (void)batch;
    if (info->shard != p->shard || info->flags & WEIR_BATCH_STATE ||
        info->offset + info->count <= p->wanted || info->offset >= p->where.limit)
        return WEIR_OK;
    /* A hole or the end: the batches that follow on each other, no more. */
    if (p->count &&
        info->offset != p->entries[p->count - 1].offset + p->entries[p->count - 1].count)
        return WEIR_END;
    if (p->count == WEIR_RUN_SLICES_MAX)
        return WEIR_END;
    p->entries[p->count++] = (struct weir_entry){
        .offset = info->offset,
        .at_ms = info->at_ms,
        .hash = (uint64_t)info->header_hash,
        .position = (uint32_t)position,
        .size = info->size,
        .count = info->count,
    };
    return WEIR_OK;
}

/* The entries from the batches themselves. */
static enum weir_status
regather(struct plan *p)
{
    struct regather x = {
        .walk =
            {
                .read = regather_read,
                .batch = regather_batch,
                .journal_id_known = true,
                .journal_id = p->log->commit.journal_id,
                .segment = p->where.segment,
                .limit = p->footer.at,
                .scan_bytes = WEIR_GROUP_DISK_MAX,
            },
        .plan = p,
    };
    p->count = 0;
    enum weir_status st = weir_walk_run(&x.walk);
    weir_walk_fini(&x.walk);
    if (st && st != WEIR_END)
        return st;
    /* Their numbers are not known, so none of them can be taken out of the run. */
    p->first = UINT32_MAX;
    return p->count ? WEIR_OK : WEIR_DAMAGED;
}

static enum weir_status
gather(struct plan *p)
{
    if (p->count)
        return WEIR_OK;
    struct weir_log *log = p->log;
    uint32_t limit = p->where.start + p->where.count;
    enum weir_status st = weir_chunks_search(log->chunks, log->journal, &p->footer, p->where.start,
                                             p->where.count, false, p->wanted, &p->first);
    if (!st) {
        WEIR_ASSERT(p->first < limit);
        p->count = limit - p->first < WEIR_RUN_SLICES_MAX ? limit - p->first : WEIR_RUN_SLICES_MAX;
        st = weir_chunks_get(log->chunks, log->journal, &p->footer, p->first, p->count, p->entries);
    }
    return st == WEIR_DAMAGED ? regather(p) : st;
}

static bool
batch_holds(const struct plan *p, const struct weir_entry *e, struct weir_bytes bytes,
            weir_u128 previous, bool previous_known, weir_u128 *hash_out)
{
    struct weir_batch_info info;
    if (weir_batch_check(bytes, &info))
        return false;
    if (info.size != e->size || info.shard != p->shard || info.offset != e->offset ||
        info.count != e->count || (uint64_t)info.header_hash != e->hash)
        return false;
    if (previous_known && info.previous != previous)
        return false;
    *hash_out = info.header_hash;
    return true;
}

/* The entries [from, to) that one piece of the file holds; its bytes. */
static uint32_t
piece_of(const struct plan *p, uint32_t from, uint32_t limit, uint64_t *bytes_out)
{
    uint64_t start = p->entries[from].position, end = start + p->entries[from].size;
    uint32_t to = from + 1;
    for (; to < limit; to++) {
        uint64_t at = p->entries[to].position, behind = at + p->entries[to].size;
        if (at < end || at - end > SKIP_BYTES || behind - start > PIECE_BYTES)
            break;
        end = behind;
    }
    *bytes_out = end - start;
    return to;
}

/* How many of the entries are asked for. */
static uint32_t
limit_of(const struct plan *p, uint64_t bytes_max)
{
    uint64_t bytes = 0;
    uint32_t n = 0;
    for (; n < p->count; n++) {
        bytes += p->entries[n].size;
        if (n && bytes > bytes_max)
            break;
    }
    return n;
}

static void
give(struct weir_run *run, const struct weir_entry *e, struct weir_buf *buf, size_t off)
{
    if (!run->count)
        run->first = e->offset;
    run->limit = e->offset + e->count;
    run->bytes += e->size;
    run->batch[run->count].slice = (struct weir_slice){weir_buf_ref(buf), off, e->size};
    run->batch[run->count].first = e->offset;
    run->batch[run->count].at_ms = e->at_ms;
    run->batch[run->count].records = e->count;
    run->count++;
}

static enum weir_status
read_pieces(struct plan *p, uint64_t bytes_max, struct weir_run *run)
{
    struct weir_journal *j = p->log->journal;
    uint32_t limit = limit_of(p, bytes_max);
    weir_u128 previous = 0;
    for (uint32_t at = 0; at < limit;) {
        uint64_t bytes;
        size_t got = 0;
        uint32_t to = piece_of(p, at, limit, &bytes);
        struct weir_position from = {p->where.segment, p->entries[at].position};
        struct weir_buf *buf = weir_buf_new(bytes);
        if (!buf)
            return run->count ? WEIR_OK : WEIR_NO_MEMORY;
        enum weir_status st = j->ops->read(j, from, buf->data, bytes, &got);
        if (st) {
            weir_buf_unref(buf);
            return run->count ? WEIR_OK : st;
        }
        buf->len = got;
        for (; at < to; at++) {
            const struct weir_entry *e = &p->entries[at];
            size_t off = e->position - from.byte;
            size_t len = off >= got ? 0 : got - off < e->size ? got - off : e->size;
            if (!batch_holds(p, e, weir_bytes(buf->data + off, len), previous, at > 0, &previous)) {
                p->bad = true;
                p->bad_at = at;
                weir_buf_unref(buf);
                return run->count ? WEIR_OK : WEIR_DAMAGED;
            }
            give(run, e, buf, off);
        }
        weir_buf_unref(buf);
    }
    /* Who reads one stretch will likely ask for the next. */
    const struct weir_entry *last = &p->entries[limit - 1];
    if (run->bytes >= PIECE_BYTES / 2 && p->first != UINT32_MAX &&
        p->first + limit < p->where.start + p->where.count)
        j->ops->advise(j, (struct weir_position){p->where.segment, last->position + last->size},
                       2 * PIECE_BYTES);
    return WEIR_OK;
}

static void
read_work(struct weir_job *job)
{
    struct weir_read *r = WEIR_CONTAINER(job, struct weir_read, job);
    struct plan *p = r->plan;
    if (p && !p->settled) {
        p->st = gather(p);
        if (!p->st)
            p->st = read_pieces(p, r->bytes_max, &r->run);
    }
    weir_log_job_worked(r->log);
}

static void read_done(struct weir_job *job);

static void
read_submit(struct weir_read *r)
{
    r->job = (struct weir_job){.work = read_work, .done = read_done};
    weir_log_job(r->log, &r->job);
}

/* Notes what to read, or settles it. */
static void
read_plan(struct weir_read *r, struct plan *p)
{
    struct weir_log *log = r->log;
    const struct weir_shard *s = weir_index_shard(&log->index, r->shard);
    uint32_t i;
    plan_clear(p);
    p->settled = true;
    p->st = WEIR_NOT_FOUND;
    if (!s)
        return;
    p->st = WEIR_OK;
    if (r->offset >= s->oldest && weir_cache_read(s, r->offset, r->bytes_max, &r->run))
        return;
    p->st = locate(log, s, r->offset, &i, &r->run.first, &r->run.limit);
    if (p->st != WEIR_AGAIN)
        return;
    p->settled = false;
    plan_run(p, &s->runs[i]);
    const struct weir_part *part = p->where.part;
    if (!part)
        return;
    const struct weir_entry *entries = part->entries + p->where.start;
    uint32_t n = weir_entries_find(entries, p->where.count, r->offset);
    p->first = p->where.start + n;
    p->count = p->where.count - n < WEIR_RUN_SLICES_MAX ? p->where.count - n : WEIR_RUN_SLICES_MAX;
    memcpy(p->entries, entries + n, p->count * sizeof *entries);
}

void
weir_log_read(struct weir_log *log, struct weir_read *r)
{
    r->log = log;
    r->run.count = 0;
    r->run.bytes = 0;
    struct plan *p = plan_new(log, r->shard, r->offset);
    r->plan = p;
    if (p)
        read_plan(r, p);
    read_submit(r); /* without a plan the answer is NO_MEMORY, but not from inside this call */
}

/* The run that the job read from is still what the shard has there. */
static bool
still_there(const struct weir_log *log, const struct plan *p, uint64_t offset, uint32_t *run_out)
{
    const struct weir_shard *s = weir_index_shard(&log->index, p->shard);
    uint64_t first, limit;
    if (!s || locate(log, s, offset, run_out, &first, &limit) != WEIR_AGAIN)
        return false;
    return s->runs[*run_out].segment == p->where.segment;
}

/* Takes entries[bad_at] out of what is served. */
static void
note_damage(struct weir_log *log, const struct plan *p)
{
    const struct weir_entry *e = &p->entries[p->bad_at];
    uint32_t i;
    if (!still_there(log, p, e->offset, &i))
        return;
    struct weir_shard *s = weir_index_shard(&log->index, p->shard);
    uint32_t number = p->first + p->bad_at;
    const struct weir_index_run *run = &s->runs[i];
    if (p->first == UINT32_MAX)
        return;
    /* Sealed meanwhile: numbers count in the footer now. The next reader finds it again. */
    if (p->where.part != run->part || number < run->start || number >= run->start + run->count)
        return;
    if (weir_index_cut(&log->index, s, i, e, number))
        return;
    log->stat.damaged++;
    weir_cache_forget(&log->cache, s);
    weir_log_gap(log, p->shard, e->offset, e->offset + e->count, WEIR_DAMAGED);
}

static void
read_done(struct weir_job *job)
{
    struct weir_read *r = WEIR_CONTAINER(job, struct weir_read, job);
    struct weir_log *log = r->log;
    struct plan *p = r->plan;
    weir_log_job_done(log);
    if (!p) {
        r->done(r, WEIR_NO_MEMORY);
        return;
    }
    enum weir_status st = p->st;
    uint32_t i;
    bool failed = !p->settled && (st == WEIR_DAMAGED || st == WEIR_NOT_FOUND || st == WEIR_IO);
    if (failed && !still_there(log, p, r->offset, &i) && p->tries++ < TRIES_MAX) {
        weir_run_clear(&r->run);
        read_plan(r, p);
        read_submit(r);
        return;
    }
    if (st == WEIR_DAMAGED && !p->settled) {
        r->run.first = r->offset;
        r->run.limit =
            p->bad ? p->entries[p->bad_at].offset + p->entries[p->bad_at].count : p->where.limit;
    } else if (st == WEIR_NOT_FOUND && !p->settled) {
        st = WEIR_IO; /* its file was taken away under us */
    }
    if (p->bad)
        note_damage(log, p);
    if (!st && !weir_index_shard(&log->index, r->shard)) {
        weir_run_clear(&r->run);
        st = WEIR_NOT_FOUND;
    }
    if (!st) {
        log->stat.reads++;
        log->stat.read_bytes += r->run.bytes;
    }
    plan_free(p);
    r->plan = NULL;
    r->done(r, st);
}

/* ---- finding a moment ---- */

static void
find_work(struct weir_job *job)
{
    struct weir_find *f = WEIR_CONTAINER(job, struct weir_find, job);
    struct plan *p = f->plan;
    struct weir_log *log = f->log;
    if (p && !p->settled) {
        uint32_t limit = p->where.start + p->where.count, number;
        p->st = weir_chunks_search(log->chunks, log->journal, &p->footer, p->where.start,
                                   p->where.count, true, p->wanted, &number);
        struct weir_entry e = {.offset = p->where.limit};
        if (!p->st && number < limit)
            p->st = weir_chunks_get(log->chunks, log->journal, &p->footer, number, 1, &e);
        f->offset = e.offset;
        /* Entries that do not hold: the run's first batch is early, but misses nothing. */
        if (p->st == WEIR_DAMAGED) {
            p->st = WEIR_OK;
            f->offset = p->where.first;
        }
    }
    weir_log_job_worked(log);
}

static void find_done(struct weir_job *job);

static void
find_plan(struct weir_find *f, struct plan *p)
{
    struct weir_log *log = f->log;
    const struct weir_shard *s = weir_index_shard(&log->index, f->shard);
    plan_clear(p);
    p->settled = true;
    p->st = s ? WEIR_OK : WEIR_NOT_FOUND;
    if (!s)
        return;
    f->offset = s->next;
    uint32_t low = 0, high = s->run_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (s->runs[middle].last_at_ms < f->at_ms)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == s->run_count)
        return;
    const struct weir_index_run *run = &s->runs[low];
    f->offset = low ? run->first : s->oldest;
    if (run->first_at_ms >= f->at_ms)
        return;
    if (!run->part) {
        p->settled = false;
        plan_run(p, run);
        return;
    }
    const struct weir_entry *entries = run->part->entries + run->start;
    uint32_t n = weir_entries_find_time(entries, run->count, f->at_ms);
    f->offset = n < run->count ? entries[n].offset : run->limit;
}

void
weir_log_find_time(struct weir_log *log, struct weir_find *f)
{
    f->log = log;
    struct plan *p = plan_new(log, f->shard, f->at_ms);
    f->plan = p;
    if (p)
        find_plan(f, p);
    f->job = (struct weir_job){.work = find_work, .done = find_done};
    weir_log_job(log, &f->job);
}

static void
find_done(struct weir_job *job)
{
    struct weir_find *f = WEIR_CONTAINER(job, struct weir_find, job);
    struct weir_log *log = f->log;
    struct plan *p = f->plan;
    weir_log_job_done(log);
    if (!p) {
        f->done(f, WEIR_NO_MEMORY);
        return;
    }
    const struct weir_shard *s = weir_index_shard(&log->index, f->shard);
    if (s && !p->settled && p->st && p->tries++ < TRIES_MAX) {
        find_plan(f, p);
        weir_log_job(log, &f->job);
        return;
    }
    enum weir_status st = s ? p->st : WEIR_NOT_FOUND;
    if (s && f->offset < s->oldest)
        f->offset = s->oldest;
    plan_free(p);
    f->plan = NULL;
    f->done(f, st);
}
