/* Sealing a segment that takes no more:
 *
 *   1. As soon as it is rolled, note the state of each shard that has a batch in it (on the owner,
 *      before any later batch is taken into account).
 *   2. On a pool thread, write entries, directory and trailer behind its last group; sync.
 *   3. On the owner, let the runs point into the footer and free the entries in memory.
 *
 * If 2 fails the segment stays as it is, with its entries in memory, and we try again with the next
 * tick: recovery would walk it. Footers are written in the order of the segments, so that a sealed
 * segment tells that all before it are sealed, and that one behind it exists. */
#include "base/assert.h"
#include "base/checked.h"
#include "log/state.h"
#include <stdlib.h>

/* What most directories fit into, trailer included: one read at start. */
#define TAIL_BYTES (32 * WEIR_KIB)

struct weir_seal {
    struct weir_log *log;
    struct weir_disk_state *states;
    struct weir_disk_producer *producers;
    uint32_t state_count, producer_count;
    /* made by the job */
    enum weir_status st;
    uint64_t file_bytes;
    uint32_t entries;
    struct weir_buf *chunks;
};

static int
part_order(const void *a, const void *b)
{
    const struct weir_part *x = *(struct weir_part *const *)a, *y = *(struct weir_part *const *)b;
    if (x->shard != y->shard)
        return x->shard < y->shard ? -1 : 1;
    return (int)x->copies - (int)y->copies;
}

static int
state_order(const void *a, const void *b)
{
    const struct weir_disk_state *x = a, *y = b;
    uint64_t p = weir_get64(x->shard), q = weir_get64(y->shard);
    return p < q ? -1 : p > q;
}

enum weir_status
weir_seal_note(struct weir_log *log, struct weir_segment *g)
{
    WEIR_ASSERT(!g->seal);
    struct weir_seal *seal = calloc(1, sizeof *seal);
    if (!seal)
        return WEIR_NO_MEMORY;
    seal->log = log;
    if (g->part_count)
        qsort(g->parts, g->part_count, sizeof(void *), part_order);
    size_t producers = 0;
    for (uint32_t i = 0; i < g->part_count; i++) {
        const struct weir_shard *s = weir_index_shard(&log->index, g->parts[i]->shard);
        producers += s ? weir_producers_count(s->producers) : 0;
    }
    uint32_t ghosts = log->keep.ghost_count;
    seal->states = calloc(g->part_count + ghosts + 1u, sizeof *seal->states);
    seal->producers = calloc(producers + 1, sizeof *seal->producers);
    g->seal = seal;
    if (!seal->states || !seal->producers || producers > UINT32_MAX / 256) {
        weir_seal_free(g);
        return WEIR_NO_MEMORY;
    }

    for (uint32_t i = 0; i < g->part_count; i++) {
        uint64_t shard = g->parts[i]->shard;
        const struct weir_shard *s = weir_index_shard(&log->index, shard);
        if (!s || (i && g->parts[i - 1]->shard == shard))
            continue;
        uint32_t count =
            (uint32_t)weir_producers_encode(s->producers, seal->producers + seal->producer_count);
        seal->states[seal->state_count++] = (struct weir_disk_state){
            .stream = weir_put64(s->stream),
            .shard = weir_put64(shard),
            .next = weir_put64(s->next),
            .latest_at_ms = weir_put64(s->at_ms),
            .trimmed_before = weir_put64(s->oldest),
            .chain = weir_put128(s->chain),
            .producer = weir_put32(seal->producer_count),
            .count = weir_put32(count),
        };
        seal->producer_count += count;
    }
    /* And those that were dropped, as far as this segment says so. */
    for (uint32_t i = 0; i < ghosts; i++) {
        const struct weir_ghost *ghost = &log->keep.ghosts[i];
        if (ghost->segment != g->number)
            continue;
        seal->states[seal->state_count++] = (struct weir_disk_state){
            .stream = weir_put64(ghost->stream),
            .shard = weir_put64(ghost->shard),
            .next = weir_put64(ghost->next),
            .latest_at_ms = weir_put64(ghost->at_ms),
            .trimmed_before = weir_put64(ghost->next),
            .chain = weir_put128(ghost->chain),
        };
    }
    qsort(seal->states, seal->state_count, sizeof *seal->states, state_order);
    return WEIR_OK;
}

void
weir_seal_free(struct weir_segment *g)
{
    struct weir_seal *seal = g->seal;
    if (!seal)
        return;
    free(seal->states);
    free(seal->producers);
    weir_buf_unref(seal->chunks);
    free(seal);
    g->seal = NULL;
}

/* ---- the job ---- */

struct footer {
    struct weir_disk_entry *entries;
    struct weir_disk_run *runs;
    uint8_t *directory;
    uint32_t entry_count, run_count;
    uint64_t first_at_ms, last_at_ms;
};

static void
add_entry(struct footer *f, const struct weir_part *part, const struct weir_entry *e, bool new_run)
{
    if (new_run) {
        f->runs[f->run_count++] = (struct weir_disk_run){
            .stream = weir_put64(part->stream),
            .shard = weir_put64(part->shard),
            .first = weir_put64(e->offset),
            .first_at_ms = weir_put64(e->at_ms),
            .entry = weir_put32(f->entry_count),
        };
    }
    struct weir_disk_run *r = &f->runs[f->run_count - 1];
    r->limit = weir_put64(e->offset + e->count);
    r->last_at_ms = weir_put64(e->at_ms);
    r->bytes = weir_put64(weir_get64(r->bytes) + e->size);
    r->count = weir_put32(weir_get32(r->count) + 1);
    weir_entry_encode(e, &f->entries[f->entry_count++]);
    if (!f->first_at_ms || e->at_ms < f->first_at_ms)
        f->first_at_ms = e->at_ms;
    if (e->at_ms > f->last_at_ms)
        f->last_at_ms = e->at_ms;
}

static bool
starts_run(const struct weir_part *part, uint32_t i)
{
    return i == 0 ||
           part->entries[i - 1].offset + part->entries[i - 1].count != part->entries[i].offset;
}

static enum weir_status
footer_make(struct weir_segment *g, struct footer *f)
{
    uint64_t entries = 0, runs = 0;
    for (uint32_t i = 0; i < g->part_count; i++) {
        entries += g->parts[i]->count;
        for (uint32_t k = 0; k < g->parts[i]->count; k++)
            runs += starts_run(g->parts[i], k);
    }
    f->entries = malloc((entries + 1) * sizeof *f->entries);
    f->runs = malloc((runs + 1) * sizeof *f->runs);
    if (!f->entries || !f->runs)
        return WEIR_NO_MEMORY;
    for (uint32_t i = 0; i < g->part_count; i++) {
        struct weir_part *part = g->parts[i];
        part->base = f->entry_count;
        for (uint32_t k = 0; k < part->count; k++)
            add_entry(f, part, &part->entries[k], starts_run(part, k));
    }
    return WEIR_OK;
}

/* Chunk checksums, runs, states and producers behind each other. */
static enum weir_status
directory_make(const struct weir_seal *seal, struct footer *f, struct weir_trailer_info *t)
{
    uint32_t chunks = weir_chunks_of(f->entry_count);
    size_t run_bytes = f->run_count * sizeof *f->runs;
    size_t state_bytes = seal->state_count * sizeof *seal->states;
    size_t producer_bytes = seal->producer_count * sizeof *seal->producers;
    size_t size = chunks * sizeof(weir_le64) + run_bytes + state_bytes + producer_bytes;
    if (size > UINT32_MAX)
        return WEIR_TOO_BIG;
    f->directory = malloc(size + 1);
    if (!f->directory)
        return WEIR_NO_MEMORY;
    weir_le64 *sums = (void *)f->directory;
    for (uint32_t i = 0; i < chunks; i++) {
        uint32_t first = i * WEIR_CHUNK_ENTRIES;
        uint32_t count = f->entry_count - first;
        if (count > WEIR_CHUNK_ENTRIES)
            count = WEIR_CHUNK_ENTRIES;
        sums[i] = weir_put64(weir_chunk_hash(f->entries + first, count * sizeof *f->entries));
    }
    uint8_t *p = f->directory + chunks * sizeof(weir_le64);
    memcpy(p, f->runs, run_bytes);
    memcpy(p + run_bytes, seal->states, state_bytes);
    memcpy(p + run_bytes + state_bytes, seal->producers, producer_bytes);
    t->directory_size = (uint32_t)size;
    t->entries = f->entry_count;
    t->runs = f->run_count;
    t->states = seal->state_count;
    t->producers = seal->producer_count;
    t->directory_hash = weir_disk_hash(f->directory, size);
    return WEIR_OK;
}

static void
free_hashes(void *arg, uint8_t *data)
{
    (void)arg;
    free(data);
}

/* A counted block of the directory's first part. */
static struct weir_buf *
chunks_copy(const uint8_t *directory, uint32_t entries)
{
    size_t len = weir_chunks_of(entries) * sizeof(weir_le64);
    uint8_t *copy = malloc(len + 1);
    if (!copy)
        return NULL;
    memcpy(copy, directory, len);
    struct weir_buf *buf = weir_buf_wrap(copy, len, free_hashes, NULL);
    if (!buf)
        free(copy);
    return buf;
}

static void
seal_work(struct weir_job *job)
{
    struct weir_log *log = WEIR_CONTAINER(job, struct weir_log, seal_job);
    struct weir_segment *g = log->sealing;
    struct weir_seal *seal = g->seal;
    struct footer f = {0};
    struct weir_trailer_info t = {
        .journal = log->config.journal,
        .journal_id = log->commit.journal_id,
        .segment = g->number,
        .end = g->end,
        .last_hash = g->last_hash,
        .group = g->group,
        .epoch = g->epoch,
        .damaged = g->damaged,
    };
    seal->st = footer_make(g, &f);
    if (!seal->st)
        seal->st = directory_make(seal, &f, &t);
    if (seal->st)
        goto done;
    t.directory = t.end + (uint64_t)f.entry_count * sizeof *f.entries;
    t.first_at_ms = f.first_at_ms;
    t.last_at_ms = f.last_at_ms;
    struct weir_disk_trailer trailer;
    weir_trailer_encode(&t, &trailer);
    seal->chunks = chunks_copy(f.directory, f.entry_count);
    if (!seal->chunks) {
        seal->st = WEIR_NO_MEMORY;
        goto done;
    }
    struct iovec iov[] = {
        {f.entries, f.entry_count * sizeof *f.entries},
        {f.directory, t.directory_size},
        {&trailer, sizeof trailer},
    };
    seal->entries = f.entry_count;
    seal->file_bytes = t.directory + t.directory_size + sizeof trailer;
    seal->st =
        log->journal->ops->seal(log->journal, (struct weir_position){g->number, g->end}, iov, 3);
    /* The same again where the next start finds it without opening each file. */
    struct iovec note[] = {{&trailer, sizeof trailer}, {f.directory, t.directory_size}};
    if (!seal->st)
        (void)!log->journal->ops->note(log->journal, note, 2);
done:
    free(f.entries);
    free(f.runs);
    free(f.directory);
    weir_log_job_worked(log);
}

static void
seal_done(struct weir_job *job)
{
    struct weir_log *log = WEIR_CONTAINER(job, struct weir_log, seal_job);
    struct weir_segment *g = log->sealing;
    struct weir_seal *seal = g->seal;
    weir_log_job_done(log);
    log->sealing = NULL;
    if (seal->st) {
        weir_buf_unref(seal->chunks);
        seal->chunks = NULL;
        return; /* the next tick tries again */
    }
    g->file_bytes = seal->file_bytes;
    g->entries = seal->entries;
    g->chunks = seal->chunks;
    seal->chunks = NULL;
    weir_index_sealed(&log->index, g);
    for (uint32_t i = 0; i < seal->state_count; i++) {
        struct weir_shard *s = weir_index_shard(&log->index, weir_get64(seal->states[i].shard));
        uint64_t trimmed = weir_get64(seal->states[i].trimmed_before);
        if (!s)
            continue;
        s->footer_home = g->number;
        if (trimmed < s->trim_recorded)
            continue;
        s->trim_recorded = trimmed;
        if (!s->trim_home || s->trim_home < g->number)
            weir_index_trim_home(&log->index, s, g->number);
    }
    weir_seal_free(g);
    weir_keep_sealed(log);
    weir_seal_next(log);
}

void
weir_seal_next(struct weir_log *log)
{
    if (log->sealing || log->closing)
        return;
    for (uint32_t i = 0; i < log->index.segment_count; i++) {
        struct weir_segment *g = log->index.segments[i];
        if (g->state == WEIR_SEGMENT_OPEN)
            return;
        if (g->state != WEIR_SEGMENT_ROLLED)
            continue;
        if (!g->seal && weir_seal_note(log, g))
            return;
        log->sealing = g;
        log->seal_job.work = seal_work;
        log->seal_job.done = seal_done;
        weir_log_job(log, &log->seal_job);
        return;
    }
}

/* ---- reading it back ---- */

enum weir_status
weir_seal_load(struct weir_journal *j, uint64_t segment, uint64_t file_bytes,
               struct weir_trailer_info *trailer, struct weir_directory *directory,
               uint8_t **bytes_out)
{
    uint64_t tail = file_bytes < TAIL_BYTES ? file_bytes : TAIL_BYTES;
    size_t got = 0;
    if (tail < 2 * WEIR_DISK_BLOCK)
        return WEIR_INVALID;
    uint8_t *bytes = malloc(tail);
    if (!bytes)
        return WEIR_NO_MEMORY;
    enum weir_status st =
        j->ops->read(j, (struct weir_position){segment, file_bytes - tail}, bytes, tail, &got);
    if (!st && got != tail)
        st = WEIR_INVALID;
    if (!st)
        st = weir_trailer_decode(weir_bytes(bytes + tail - WEIR_DISK_BLOCK, WEIR_DISK_BLOCK),
                                 file_bytes, trailer);
    if (!st && (trailer->segment != segment ||
                trailer->directory + trailer->directory_size + WEIR_DISK_BLOCK != file_bytes))
        st = WEIR_INVALID;
    if (st)
        goto done;

    size_t size = trailer->directory_size;
    if (size + WEIR_DISK_BLOCK <= tail) {
        memmove(bytes, bytes + tail - WEIR_DISK_BLOCK - size, size);
    } else {
        uint8_t *grown = realloc(bytes, size);
        if (!grown) {
            st = WEIR_NO_MEMORY;
            goto done;
        }
        bytes = grown;
        st =
            j->ops->read(j, (struct weir_position){segment, trailer->directory}, bytes, size, &got);
        if (!st && got != size)
            st = WEIR_INVALID;
    }
    if (!st)
        st = weir_directory_decode(trailer, weir_bytes(bytes, size), directory);
    if (st)
        goto done;
    *bytes_out = bytes;
    bytes = NULL;
done:
    free(bytes);
    return st;
}
