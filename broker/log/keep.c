/* Keeping what is to be kept, and no more.
 *
 * Retention: whole batches go when they are older than the shard's age, or when as many bytes as
 * its size stay without them. Of runs in footers the entries are looked up on a pool thread.
 *
 * Space comes back by segments, oldest candidates first: those with nothing live in them, and those
 * with less than a third:
 *
 *   1. COPY: live batches are appended again as they are, and served from there once durable.
 *   2. STATE: each shard whose newest numbers or boundary stand in the segment gets a STATE batch;
 *      so does each whose boundary moved since it was last written, so that no older batch that
 *      is still on disk elsewhere comes back after a restart.
 *   3. SYNC: all that is durable. Where a shard's producers are only in this segment's footer, a
 *      new segment is opened, so that the present one gets a footer with them.
 *   4. TRIM: the file goes.
 *
 * A crash between any two of these leaves batches twice, never not at all; recovery serves one. A
 * failure ends the attempt; the next tick begins another. */
#include "base/assert.h"
#include "log/state.h"
#include <stdlib.h>

#define CUTS_MAX 256
#define STATES_AT_ONCE 256
#define COPY_BYTES (1 * WEIR_MIB)
/* A segment with less than 1/LIVE_SHARE of it live is moved forward. */
#define LIVE_SHARE 3
#define REST_US 60000000u

/* ---- retention ---- */

struct cut_order {
    uint64_t shard, oldest, cutoff_ms, bytes_max;
    uint64_t shard_bytes;
    struct weir_index_run run;
    struct weir_footer_ref footer;
    /* the answer */
    enum weir_status st;
    uint32_t count;
    uint64_t bytes;
    struct weir_entry next;
};

struct weir_cut {
    uint32_t count;
    struct cut_order orders[CUTS_MAX];
};

/* The batch goes: it is before the boundary, too old, or more than the size asks for. */
static bool
goes(const struct weir_entry *e, uint64_t oldest, uint64_t cutoff_ms, uint64_t bytes_max,
     uint64_t bytes_left)
{
    if (e->offset + e->count <= oldest || e->at_ms < cutoff_ms)
        return true;
    return bytes_max && bytes_left >= e->size && bytes_left - e->size >= bytes_max;
}

static uint64_t
cutoff(const struct weir_shard *s, uint64_t now_ms)
{
    return s->declared && s->retention_ms && now_ms > s->retention_ms ? now_ms - s->retention_ms
                                                                      : 0;
}

static void
boundary(struct weir_log *log, struct weir_shard *s, uint64_t oldest)
{
    uint64_t before = s->oldest;
    if (oldest <= before)
        return;
    s->oldest = oldest;
    weir_log_gap(log, s->shard, before, oldest, WEIR_TRIMMED);
}

static void
cut_open_run(struct weir_log *log, struct weir_shard *s, uint64_t cutoff_ms)
{
    const struct weir_index_run *r = &s->runs[0];
    const struct weir_entry *entries = r->part->entries + r->start;
    uint32_t n = 0;
    uint64_t bytes = 0;
    while (n + 1 < r->count && goes(&entries[n], s->oldest, cutoff_ms, s->retention_bytes,
                                    s->bytes > bytes ? s->bytes - bytes : 0))
        bytes += entries[n++].size;
    if (!n)
        return;
    struct weir_entry next = entries[n];
    weir_index_drop_entries(&log->index, s, 0, n, bytes, &next);
    boundary(log, s, next.offset);
}

/* False: there is no room for the order, and it must be given again. */
static bool
order_cut(struct weir_log *log, const struct weir_shard *s, uint64_t cutoff_ms)
{
    struct weir_keep *k = &log->keep;
    if (k->cut_active || log->closing)
        return true;
    if (!k->cut)
        k->cut = calloc(1, sizeof *k->cut);
    if (!k->cut || k->cut->count == CUTS_MAX)
        return false;
    const struct weir_segment *g = weir_index_segment(&log->index, s->runs[0].segment);
    k->cut->orders[k->cut->count++] = (struct cut_order){
        .shard = s->shard,
        .oldest = s->oldest,
        .cutoff_ms = cutoff_ms,
        .bytes_max = s->retention_bytes,
        .shard_bytes = s->bytes,
        .run = s->runs[0],
        .footer = {g->number, g->entries, g->end, weir_buf_ref(g->chunks)},
    };
    return true;
}

/* Drops whole runs, then what goes of the next. False: order_cut's. */
static bool
keep_shard(struct weir_log *log, struct weir_shard *s, uint64_t now_ms)
{
    uint64_t cutoff_ms = cutoff(s, now_ms), bytes = s->bytes,
             size = s->declared ? s->retention_bytes : 0;
    uint32_t n = 0;
    for (; n < s->run_count; n++) {
        const struct weir_index_run *r = &s->runs[n];
        bool old = r->limit <= s->oldest || r->last_at_ms < cutoff_ms;
        bool more = size && bytes >= r->bytes && bytes - r->bytes >= size;
        if (!old && !more)
            break;
        bytes -= r->bytes < bytes ? r->bytes : bytes;
    }
    if (n) {
        uint64_t limit = n == s->run_count ? s->next : s->runs[n - 1].limit;
        weir_index_drop_runs(&log->index, s, n);
        boundary(log, s, limit);
        s = weir_index_shard(&log->index, s->shard); /* the observer may have dropped it */
    }
    if (!s || !s->run_count)
        return true;
    const struct weir_index_run *r = &s->runs[0];
    if (r->count < 2 ||
        (r->first_at_ms >= cutoff_ms && r->first >= s->oldest && (!size || s->bytes <= size)))
        return true;
    if (!r->part)
        return order_cut(log, s, cutoff_ms);
    cut_open_run(log, s, cutoff_ms);
    return true;
}

static void
cut_one(struct weir_log *log, struct cut_order *o)
{
    struct weir_entry piece[128];
    uint32_t at = o->run.start, limit = at + o->run.count;
    while (at < limit) {
        uint32_t n = limit - at < 128 ? limit - at : 128;
        o->st = weir_chunks_get(log->chunks, log->journal, &o->footer, at, n, piece);
        if (o->st)
            return;
        for (uint32_t i = 0; i < n; i++) {
            uint64_t left = o->shard_bytes > o->bytes ? o->shard_bytes - o->bytes : 0;
            o->next = piece[i];
            if (at + i + 1 == limit ||
                !goes(&piece[i], o->oldest, o->cutoff_ms, o->bytes_max, left))
                return;
            o->count++;
            o->bytes += piece[i].size;
        }
        at += n;
    }
}

static void
cut_work(struct weir_job *job)
{
    struct weir_log *log = WEIR_CONTAINER(job, struct weir_log, keep.cut_job);
    struct weir_cut *cut = log->keep.cut;
    for (uint32_t i = 0; i < cut->count; i++)
        cut_one(log, &cut->orders[i]);
    weir_log_job_worked(log);
}

static void
cut_clear(struct weir_keep *k)
{
    for (uint32_t i = 0; k->cut && i < k->cut->count; i++)
        weir_buf_unref(k->cut->orders[i].footer.hashes);
    free(k->cut);
    k->cut = NULL;
}

static void
cut_done(struct weir_job *job)
{
    struct weir_log *log = WEIR_CONTAINER(job, struct weir_log, keep.cut_job);
    struct weir_keep *k = &log->keep;
    weir_log_job_done(log);
    for (uint32_t i = 0; i < k->cut->count; i++) {
        const struct cut_order *o = &k->cut->orders[i];
        struct weir_shard *s = weir_index_shard(&log->index, o->shard);
        if (o->st || !o->count || !s || !s->run_count)
            continue;
        const struct weir_index_run *r = &s->runs[0];
        if (r->segment != o->run.segment || r->part || r->start != o->run.start ||
            o->count >= r->count)
            continue;
        weir_index_drop_entries(&log->index, s, 0, o->count, o->bytes, &o->next);
        boundary(log, s, o->next.offset);
    }
    cut_clear(k);
    k->cut_active = false;
}

static void
keep_all(struct weir_log *log)
{
    struct weir_keep *k = &log->keep;
    struct weir_list done;
    uint64_t now_ms = weir_loop_now_ms(log->loop);
    uint64_t forgotten = weir_log_producers_before(log, now_ms);
    weir_list_init(&done);
    struct weir_list *node;
    /* Whoever finds no room is first the next time. */
    bool room = true;
    while (room && (node = weir_list_pop_front(&log->index.live))) {
        struct weir_shard *s = WEIR_CONTAINER(node, struct weir_shard, node);
        weir_list_push_back(&done, node);
        weir_producers_expire(s->producers, forgotten);
        room = keep_shard(log, s, now_ms);
    }
    while ((node = weir_list_pop_front(&done)))
        weir_list_push_back(&log->index.live, node);
    if (!k->cut || k->cut_active)
        return;
    k->cut_active = true;
    k->cut_job = (struct weir_job){.work = cut_work, .done = cut_done};
    weir_log_job(log, &k->cut_job);
}

void
weir_keep_shard(struct weir_log *log, struct weir_shard *s, uint64_t now_ms)
{
    (void)keep_shard(log, s, now_ms);
}

/* ---- ghosts ---- */

static void
ghost_note(struct weir_log *log, const struct weir_ghost *ghost)
{
    struct weir_keep *k = &log->keep;
    for (uint32_t i = 0; i < k->ghost_count; i++) {
        if (k->ghosts[i].shard != ghost->shard)
            continue;
        k->ghosts[i].segment = ghost->segment;
        return;
    }
    if (k->ghost_count == k->ghost_capacity) {
        uint32_t capacity = k->ghost_capacity ? 2 * k->ghost_capacity : 8;
        struct weir_ghost *grown = realloc(k->ghosts, capacity * sizeof *grown);
        if (!grown)
            return; /* then fsck may call the rest of it damage */
        k->ghosts = grown;
        k->ghost_capacity = capacity;
    }
    k->ghosts[k->ghost_count++] = *ghost;
}

/* Forgets those that have nothing on disk any more. The segment of the last word may hold batches
 * before it: its footer must say it. */
static void
ghosts_fade(struct weir_log *log)
{
    struct weir_keep *k = &log->keep;
    uint32_t n = 0;
    for (uint32_t i = 0; i < k->ghost_count; i++)
        if (log->index.segments[0]->number <= k->ghosts[i].segment)
            k->ghosts[n++] = k->ghosts[i];
    k->ghost_count = n;
}

/* ---- a segment goes ---- */

static void keep_next(struct weir_log *log);

struct own {
    struct weir_append append;
    struct weir_log *log;
    bool counted;   /* of the present attempt */
    bool has_ghost; /* of a dropped shard */
    struct weir_ghost ghost;
};

static void
attempt_ends(struct weir_log *log)
{
    struct weir_keep *k = &log->keep;
    free(k->shards);
    k->shards = NULL;
    k->shard_count = k->shard_at = 0;
    k->phase = WEIR_KEEP_IDLE;
    k->segment = k->footer = 0;
    k->failed = k->footer_wanted = k->tried = false;
}

/* A small segment whose footer has producers that no other footer has: moving them on would make
 * another such segment, without end. It goes when they have expired or moved with something else.
 */
static bool
rests(struct weir_log *log, struct weir_segment *g)
{
    uint64_t now_us = weir_loop_now_us(log->loop);
    size_t cursor = 0;
    const struct weir_shard *s;
    if (g->file_bytes >= log->config.segment_bytes / 8)
        return false;
    if (now_us < g->rests_until_us)
        return true;
    while ((s = weir_map_next(&log->index.shards, &cursor))) {
        if (s->footer_home != g->number || !weir_producers_count(s->producers))
            continue;
        g->rests_until_us = now_us + REST_US;
        return true;
    }
    return false;
}

static struct weir_segment *
pick(struct weir_log *log)
{
    struct weir_segment *best = NULL;
    for (uint32_t i = 0; i < log->index.segment_count; i++) {
        struct weir_segment *g = log->index.segments[i];
        if (g->state != WEIR_SEGMENT_SEALED || g->stuck)
            continue;
        bool mostly_dead = g->live_bytes * LIVE_SHARE < g->file_bytes;
        if (!mostly_dead || (g->live_bytes && (best || log->crowded)) || rests(log, g))
            continue;
        if (!g->live_bytes)
            return g;
        best = g;
    }
    return best;
}

static bool
note_shard(struct weir_keep *k, uint64_t shard)
{
    if ((k->shard_count & (k->shard_count - 1)) == 0) {
        uint32_t capacity = k->shard_count ? 2 * k->shard_count : 1;
        uint64_t *grown = realloc(k->shards, capacity * sizeof *grown);
        if (!grown)
            return false;
        k->shards = grown;
    }
    k->shards[k->shard_count++] = shard;
    return true;
}

/* Number of the shard's first run in the segment; run_count if there is none. */
static uint32_t
run_in(const struct weir_shard *s, uint32_t segment)
{
    uint32_t i = 0;
    while (i < s->run_count && s->runs[i].segment != segment)
        i++;
    return i;
}

static bool
note_live(struct weir_log *log)
{
    struct weir_keep *k = &log->keep;
    WEIR_LIST_FOR_EACH (node, &log->index.live) {
        const struct weir_shard *s = WEIR_CONTAINER(node, struct weir_shard, node);
        if (run_in(s, k->segment) < s->run_count && !note_shard(k, s->shard))
            return false;
    }
    return true;
}

static bool
needs_state(const struct weir_log *log, const struct weir_shard *s)
{
    uint32_t segment = log->keep.segment;
    return s->home == segment || s->trim_home == segment || s->oldest > s->trim_recorded ||
           (s->footer_home == segment && weir_producers_count(s->producers));
}

static bool
note_states(struct weir_log *log)
{
    struct weir_keep *k = &log->keep;
    size_t cursor = 0;
    const struct weir_shard *s;
    k->shard_count = k->shard_at = k->ghost_at = 0;
    free(k->shards);
    k->shards = NULL;
    while ((s = weir_map_next(&log->index.shards, &cursor)))
        if (needs_state(log, s) && !note_shard(k, s->shard))
            return false;
    return true;
}

static void
own_done(struct weir_append *a, enum weir_status st)
{
    struct own *own = WEIR_CONTAINER(a, struct own, append);
    struct weir_log *log = own->log;
    struct weir_keep *k = &log->keep;
    bool counted = own->counted;
    if (a->kind == WEIR_ITEM_COPY && !st) {
        struct weir_shard *s = weir_index_shard(&log->index, a->shard);
        struct weir_segment *to = weir_index_segment(&log->index, a->segment);
        struct weir_entry e = {
            .offset = a->offset,
            .at_ms = a->at_ms,
            .hash = (uint64_t)a->hash,
            .position = a->position,
            .size = a->size,
            .count = a->count,
        };
        if (s)
            st = weir_index_moved(&log->index, s, k->segment, to, &e);
        if (s && !st && a->offset + a->count == s->next)
            weir_index_home(&log->index, s, to->number);
        if (!st)
            log->stat.copied_bytes += a->size;
    }
    if (own->has_ghost && !st) {
        own->ghost.segment = (uint32_t)a->segment;
        ghost_note(log, &own->ghost);
    }
    free(own);
    if (!counted)
        return;
    if (st)
        k->failed = true;
    if (--k->pending == 0 && !log->closing)
        keep_next(log);
}

static struct own *
own_new(struct weir_log *log, enum weir_item_kind kind)
{
    struct own *own = calloc(1, sizeof *own);
    if (!own)
        return NULL;
    own->log = log;
    own->append.kind = (uint8_t)kind;
    own->append.done = own_done;
    return own;
}

static bool
push_state(struct weir_log *log, struct weir_shard *s, bool counted)
{
    struct own *own = own_new(log, WEIR_ITEM_STATE);
    if (!own || weir_log_state_batch(log, s, &own->append)) {
        free(own);
        return false;
    }
    own->counted = counted;
    log->queued_bytes += own->append.size;
    weir_commit_push(&log->commit, &own->append);
    return true;
}

static bool
push_ghost(struct weir_log *log, const struct weir_ghost *ghost, bool counted)
{
    struct weir_shard s = {
        .stream = ghost->stream,
        .shard = ghost->shard,
        .oldest = ghost->next,
        .assigned = ghost->next,
        .assigned_at_ms = ghost->at_ms,
        .assigned_chain = ghost->chain,
    };
    struct own *own = own_new(log, WEIR_ITEM_STATE);
    if (!own || weir_log_state_batch(log, &s, &own->append)) {
        free(own);
        return false;
    }
    own->counted = counted;
    own->has_ghost = true;
    own->ghost = *ghost;
    log->queued_bytes += own->append.size;
    weir_commit_push(&log->commit, &own->append);
    return true;
}

static bool
push_copy(struct weir_log *log, uint64_t shard, struct weir_slice slice)
{
    struct own *own = own_new(log, WEIR_ITEM_COPY);
    struct weir_batch_info info;
    if (!own)
        return false;
    struct weir_append *a = &own->append;
    if (weir_batch_peek(weir_slice_bytes(slice), &info)) {
        free(own);
        return false;
    }
    a->batch = weir_buf_copy(weir_slice_bytes(slice));
    if (!a->batch) {
        free(own);
        return false;
    }
    a->stream = info.stream;
    a->shard = shard;
    a->offset = info.offset;
    a->at_ms = info.at_ms;
    a->size = info.size;
    a->count = info.count;
    a->hash = info.header_hash;
    own->counted = true;
    log->queued_bytes += a->size;
    weir_commit_push(&log->commit, a);
    return true;
}

static void
copy_read_done(struct weir_read *r, enum weir_status st)
{
    struct weir_log *log = WEIR_CONTAINER(r, struct weir_log, keep.read);
    struct weir_keep *k = &log->keep;
    const struct weir_shard *s = weir_index_shard(&log->index, r->shard);
    k->reading = false;
    if (log->closing) {
        weir_run_clear(&r->run);
        return;
    }
    if (st && st != WEIR_NOT_FOUND) {
        /* Damage found on the way is taken out of the run, so that the second try goes on behind
         * it. Otherwise this segment cannot be emptied. */
        struct weir_segment *g = weir_index_segment(&log->index, k->segment);
        if (k->tried && k->tried_shard == r->shard && k->tried_offset == r->offset) {
            if (g)
                g->stuck = true;
            k->failed = true;
        }
        k->tried = true;
        k->tried_shard = r->shard;
        k->tried_offset = r->offset;
    }
    uint32_t i = s ? run_in(s, k->segment) : 0;
    uint64_t limit = s && i < s->run_count ? s->runs[i].limit : 0;
    for (uint32_t n = 0; !st && n < r->run.count && !log->refused; n++) {
        if (r->run.batch[n].first >= limit)
            break;
        if (!push_copy(log, r->shard, r->run.batch[n].slice)) {
            k->failed = true;
            break;
        }
        k->pending++;
    }
    weir_run_clear(&r->run);
    if (!k->pending)
        keep_next(log);
}

/* The next piece of what is live in the segment. False: there is none. */
static bool
copy_piece(struct weir_log *log)
{
    struct weir_keep *k = &log->keep;
    for (; k->shard_at < k->shard_count; k->shard_at++) {
        const struct weir_shard *s = weir_index_shard(&log->index, k->shards[k->shard_at]);
        uint32_t i = s ? run_in(s, k->segment) : 0;
        if (!s || i == s->run_count)
            continue;
        if (s->runs[i].first < s->oldest) {
            k->failed = true; /* retention is to cut the run first */
            return true;
        }
        k->read = (struct weir_read){.shard = s->shard,
                                     .offset = s->runs[i].first,
                                     .bytes_max = COPY_BYTES,
                                     .done = copy_read_done};
        k->reading = true;
        weir_log_read(log, &k->read);
        return true;
    }
    return false;
}

static void
push_states(struct weir_log *log)
{
    struct weir_keep *k = &log->keep;
    for (; k->ghost_at < k->ghost_count && k->pending < STATES_AT_ONCE; k->ghost_at++) {
        if (k->ghosts[k->ghost_at].segment != k->segment ||
            log->index.segments[0]->number == k->segment)
            continue;
        if (!push_ghost(log, &k->ghosts[k->ghost_at], true)) {
            k->failed = true;
            return;
        }
        k->pending++;
    }
    for (; k->shard_at < k->shard_count && k->pending < STATES_AT_ONCE; k->shard_at++) {
        struct weir_shard *s = weir_index_shard(&log->index, k->shards[k->shard_at]);
        if (!s || !needs_state(log, s))
            continue;
        if (s->footer_home == k->segment && weir_producers_count(s->producers))
            k->footer_wanted = true;
        if (!push_state(log, s, true)) {
            k->failed = true;
            return;
        }
        k->pending++;
    }
}

static void
synced(struct weir_log_barrier *b)
{
    struct weir_log *log = WEIR_CONTAINER(b, struct weir_log, keep.barrier);
    log->keep.barrier_queued = false;
    if (log->closing)
        return;
    /* With INTERVAL what was written before it may not be durable then. */
    if (b->marker.st || log->refused)
        log->keep.failed = true;
    keep_next(log);
}

static void
push_barrier(struct weir_log *log)
{
    struct weir_keep *k = &log->keep;
    k->barrier_queued = true;
    k->barrier.done = synced;
    weir_log_barrier(log, &k->barrier);
}

/* The open segment gets its end, and so a footer. */
static void
push_roll(struct weir_log *log)
{
    struct weir_keep *k = &log->keep;
    k->footer = log->index.segments[log->index.segment_count - 1]->number;
    k->barrier_queued = true;
    k->barrier.done = synced;
    k->barrier.marker = (struct weir_append){.kind = WEIR_ITEM_ROLL};
    weir_commit_push(&log->commit, &k->barrier.marker);
}

static void
trim_work(struct weir_job *job)
{
    struct weir_log *log = WEIR_CONTAINER(job, struct weir_log, keep.trim);
    weir_chunks_forget(log->chunks, log->keep.segment);
    log->keep.trim_st = log->journal->ops->trim(log->journal, log->keep.segment);
    weir_log_job_worked(log);
}

static void
trim_done(struct weir_job *job)
{
    struct weir_log *log = WEIR_CONTAINER(job, struct weir_log, keep.trim);
    struct weir_keep *k = &log->keep;
    struct weir_segment *g = weir_index_segment(&log->index, k->segment);
    weir_log_job_done(log);
    WEIR_ASSERT(g && !g->live_bytes && !g->homes);
    if (!k->trim_st || k->trim_st == WEIR_NOT_FOUND)
        weir_index_segment_free(&log->index, g);
    else
        g->state = WEIR_SEGMENT_SEALED;
    bool more = !k->trim_st;
    attempt_ends(log);
    ghosts_fade(log);
    weir_log_prepare(log);
    if (more)
        keep_next(log);
}

static void
start_trim(struct weir_log *log)
{
    struct weir_keep *k = &log->keep;
    struct weir_segment *g = weir_index_segment(&log->index, k->segment);
    if (g->live_bytes || g->homes) {
        attempt_ends(log);
        return;
    }
    g->state = WEIR_SEGMENT_GOING;
    k->phase = WEIR_KEEP_TRIM;
    k->trim = (struct weir_job){.work = trim_work, .done = trim_done};
    weir_log_job(log, &k->trim);
}

/* Waits for the footer that takes the producers over. */
static bool
footer_there(const struct weir_log *log)
{
    const struct weir_segment *g = weir_index_segment(&log->index, log->keep.footer);
    return !g || g->state == WEIR_SEGMENT_SEALED;
}

static void
start(struct weir_log *log)
{
    struct weir_keep *k = &log->keep;
    struct weir_segment *g = log->refused ? NULL : pick(log);
    if (!g)
        return;
    attempt_ends(log);
    k->segment = g->number;
    k->phase = WEIR_KEEP_COPY;
    if (!note_live(log))
        k->failed = true;
}

static void
keep_next(struct weir_log *log)
{
    struct weir_keep *k = &log->keep;
    if (log->closing)
        return;
    if (k->phase == WEIR_KEEP_IDLE)
        start(log);
    /* Each turn either waits for something that calls us again, or changes the phase. */
    while (!k->pending && !k->reading && !k->barrier_queued) {
        if (k->failed) {
            attempt_ends(log);
            return;
        }
        switch (k->phase) {
        case WEIR_KEEP_IDLE:
        case WEIR_KEEP_TRIM:
            return;
        case WEIR_KEEP_COPY:
            /* Callers' batches first. */
            if (log->queued_bytes > log->config.queue_bytes_max / 2)
                return;
            if (copy_piece(log))
                continue;
            k->phase = WEIR_KEEP_STATE;
            if (!note_states(log))
                k->failed = true;
            continue;
        case WEIR_KEEP_STATE:
            push_states(log);
            if (k->pending || k->failed)
                continue;
            k->phase = WEIR_KEEP_SYNC;
            if (k->footer_wanted)
                push_roll(log);
            else
                push_barrier(log);
            continue;
        case WEIR_KEEP_SYNC:
            if (k->footer && !footer_there(log))
                return;
            start_trim(log);
            return;
        }
    }
}

/* ---- from outside ---- */

void
weir_keep_init(struct weir_log *log)
{
    log->keep = (struct weir_keep){0};
}

void
weir_keep_fini(struct weir_log *log)
{
    cut_clear(&log->keep);
    if (log->keep.reading)
        weir_run_clear(&log->keep.read.run);
    free(log->keep.shards);
    free(log->keep.ghosts);
    log->keep.shards = NULL;
    log->keep.ghosts = NULL;
}

void
weir_keep_tick(struct weir_log *log)
{
    keep_all(log);
    keep_next(log);
}

void
weir_keep_sealed(struct weir_log *log)
{
    keep_next(log);
}

void
weir_log_trim(struct weir_log *log)
{
    weir_keep_tick(log);
}

void
weir_keep_dropped(struct weir_log *log, struct weir_shard *s)
{
    if (!s->assigned || log->refused || log->closing)
        return;
    struct weir_ghost ghost = {
        .stream = s->stream,
        .shard = s->shard,
        .next = s->assigned,
        .at_ms = s->assigned_at_ms,
        .chain = s->assigned_chain,
        .segment = s->trim_home,
    };
    /* After a restart it may be known already. */
    if (s->oldest == s->assigned && s->trim_recorded == s->oldest && s->trim_home)
        ghost_note(log, &ghost);
    else
        (void)push_ghost(log, &ghost, false);
}

enum weir_status
weir_log_set_retention(struct weir_log *log, uint64_t shard, uint64_t retention_ms,
                       uint64_t retention_bytes)
{
    struct weir_shard *s = weir_index_shard(&log->index, shard);
    uint64_t now_ms = weir_loop_now_ms(log->loop);
    if (!s)
        return WEIR_NOT_FOUND;
    /* What the old retention took is gone, whatever the new one would keep. */
    weir_keep_shard(log, s, now_ms);
    s = weir_index_shard(&log->index, shard);
    if (!s)
        return WEIR_NOT_FOUND;
    s->retention_ms = retention_ms;
    s->retention_bytes = retention_bytes;
    weir_keep_shard(log, s, now_ms);
    s = weir_index_shard(&log->index, shard);
    if (s && s->oldest > s->trim_recorded && !log->refused)
        (void)push_state(log, s, false);
    return WEIR_OK;
}
