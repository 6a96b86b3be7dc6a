/* The log against a naive model: random appends, repeats, reads, searches, retention, drops,
 * failing disks, restarts and power cuts. Acknowledged batches are there, once, in order, with the
 * time they were told; nothing younger than its age goes; fsck agrees at each restart.
 *
 * A failure prints its seed; WEIR_SEED=n runs that one alone. */
#include "../unit/log/rig.h"
#include "fsck/fsck.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define SHARDS 5
#define PRODUCERS 3
#define BATCHES 2000
#define MINUTE ((uint64_t)60 * 1000)

enum known { STORED, MAYBE, NOT_STORED };

struct batch {
    uint64_t number, offset, at_ms;
    uint32_t count;
    enum known known;
    bool old; /* older than the shard's age at some time: may be gone */
    weir_u128 producer;
    uint64_t producer_number;
};

struct shard {
    uint64_t id, retention_ms, numbers;
    struct batch batches[BATCHES];
    uint32_t count;
    uint64_t producer_next[PRODUCERS];
};

struct flight {
    struct rig_append append;
    struct shard *shard;
    uint32_t batch; /* number in the shard's batches */
    uint64_t shard_id;
    bool used, repeat;
};

static struct model {
    struct rig rig;
    struct weir_random random;
    struct shard shards[SHARDS];
    struct flight flights[64];
    uint64_t seed, next_id, latest_ms;
    char at[200]; /* what is going on, for messages */
} m;

static uint64_t
below(uint64_t limit)
{
    return weir_random_below(&m.random, limit);
}

static void
note_time(void)
{
    uint64_t now = weir_now_ms(&m.rig.clock.clock);
    if (now > m.latest_ms)
        m.latest_ms = now;
    for (int i = 0; i < SHARDS; i++) {
        struct shard *s = &m.shards[i];
        for (uint32_t k = 0; k < s->count; k++)
            if (s->batches[k].at_ms + s->retention_ms < m.latest_ms)
                s->batches[k].old = true;
    }
}

static void
new_shard(struct shard *s)
{
    *s = (struct shard){.id = m.next_id++, .retention_ms = (1 + below(5)) * 60 * MINUTE};
    if (below(3) == 0)
        s->retention_ms = 100000 * MINUTE;
    for (int p = 0; p < PRODUCERS; p++)
        s->producer_next[p] = 1;
    OK(weir_log_shard_add(m.rig.log, 1, s->id, s->retention_ms, 0));
}

/* ---- appends ---- */

static void
settle(void)
{
    for (size_t i = 0; i < 64; i++) {
        struct flight *f = &m.flights[i];
        if (!f->used || !f->append.done)
            continue;
        f->used = false;
        /* Its shard may have been dropped. */
        if (f->shard->id != f->shard_id)
            continue;
        struct batch *b = &f->shard->batches[f->batch];
        enum weir_status st = f->append.st;
        if (f->repeat) {
            cr_assert(st == WEIR_DUPLICATE || st == WEIR_IO || st == WEIR_NO_SPACE ||
                          st == WEIR_CANCELLED || st == WEIR_UNKNOWN,
                      "%s: a repeat was answered %s", m.at, weir_status_name(st));
            if (st == WEIR_DUPLICATE && f->append.append.offset)
                cr_assert(b->known != STORED || f->append.append.offset == b->offset,
                          "%s: shard %" PRIu64 ": a repeat was sent to %" PRIu64 ", not %" PRIu64,
                          m.at, f->shard_id, f->append.append.offset, b->offset);
            continue;
        }
        if (st == WEIR_OK) {
            b->known = STORED;
            b->offset = f->append.append.offset;
            b->at_ms = f->append.append.at_ms;
        } else {
            b->known = st == WEIR_UNKNOWN ? MAYBE : NOT_STORED;
        }
    }
    note_time();
}

static struct flight *
free_flight(void)
{
    for (size_t i = 0; i < 64; i++)
        if (!m.flights[i].used)
            return &m.flights[i];
    return NULL;
}

static void
send(void)
{
    struct shard *s = &m.shards[below(SHARDS)];
    struct flight *f = free_flight();
    if (!f || s->count == BATCHES)
        return;
    struct batch *b = &s->batches[s->count];
    *b = (struct batch){.number = s->numbers, .count = 1 + (uint32_t)below(3), .known = MAYBE};
    b->at_ms = m.latest_ms;
    size_t size = below(4) ? below(2000) : below(40000);
    uint64_t p = below(2 * PRODUCERS);
    if (p < PRODUCERS) {
        b->producer = 100 + p;
        b->producer_number = s->producer_next[p];
    }
    *f = (struct flight){.shard = s, .batch = s->count, .shard_id = s->id};
    enum weir_status st = rig_send_as(&m.rig, &f->append, s->id, b->number, b->count, size,
                                      b->producer, b->producer_number);
    if (st) {
        cr_assert(st == WEIR_IO || st == WEIR_NO_SPACE || st == WEIR_INVALID, "%s: %s", m.at,
                  weir_status_name(st));
        /* What was told to be stored must not have been forgotten. */
        if (st == WEIR_INVALID)
            cr_assert(f->append.append.offset < b->producer_number);
        return;
    }
    f->used = true;
    s->count++;
    s->numbers++;
    if (p < PRODUCERS)
        s->producer_next[p]++;
}

/* Sends the latest batch of some producer once more. */
static void
repeat(void)
{
    struct shard *s = &m.shards[below(SHARDS)];
    struct flight *f = free_flight();
    uint64_t p = below(PRODUCERS);
    uint32_t i = s->count;
    while (i && s->batches[i - 1].producer != 100 + p)
        i--;
    if (!i || !f || s->batches[i - 1].known == NOT_STORED)
        return;
    const struct batch *b = &s->batches[i - 1];
    *f = (struct flight){.shard = s, .batch = i - 1, .shard_id = s->id, .repeat = true};
    if (b->known == MAYBE)
        return;
    enum weir_status st = rig_send_as(&m.rig, &f->append, s->id, b->number, b->count, 10,
                                      b->producer, b->producer_number);
    cr_assert(!st || st == WEIR_IO || st == WEIR_NO_SPACE, "%s: %s", m.at, weir_status_name(st));
    f->used = !st;
}

/* A producer whose batch failed starts again with the number after the last one that is stored. */
static void
renumber(void)
{
    for (int i = 0; i < SHARDS; i++) {
        struct shard *s = &m.shards[i];
        for (uint64_t p = 0; p < PRODUCERS; p++) {
            uint64_t number;
            enum weir_status st = weir_log_producer(m.rig.log, s->id, 100 + p, &number);
            s->producer_next[p] = st ? 1 : number + 1;
        }
    }
}

static bool
any_in_flight(void)
{
    for (size_t i = 0; i < 64; i++)
        if (m.flights[i].used)
            return true;
    return false;
}

/* ---- checks ---- */

/* Reads the whole shard, and settles what was not known. */
static void
check_shard(struct shard *s)
{
    static struct weir_run run;
    struct weir_log_shard state;
    uint32_t k = 0;
    uint64_t at_ms = 0;
    OK(weir_log_shard_get(m.rig.log, s->id, &state));
    uint64_t offset = state.oldest;
    for (;;) {
        enum weir_status st = rig_read(&m.rig, s->id, offset, 1 + below(300000), &run);
        if (st == WEIR_END)
            break;
        cr_assert(st == WEIR_OK,
                  "%s: shard %" PRIu64 " at %" PRIu64 " (%" PRIu64 " to %" PRIu64 "): %s", m.at,
                  s->id, offset, state.oldest, state.next, weir_status_name(st));
        for (uint32_t i = 0; i < run.count; i++) {
            uint64_t number = rig_number(run.batch[i].slice, s->id);
            cr_assert(run.batch[i].first == offset);
            cr_assert(run.batch[i].at_ms >= at_ms, "%s: time goes back", m.at);
            at_ms = run.batch[i].at_ms;
            for (; k < s->count && s->batches[k].number < number; k++) {
                struct batch *gone = &s->batches[k];
                cr_assert(gone->known != STORED || (gone->old && gone->offset < state.oldest),
                          "%s: shard %" PRIu64 ": %" PRIu64 " was acknowledged and is lost", m.at,
                          s->id, gone->number);
                if (gone->known == MAYBE)
                    gone->known = NOT_STORED;
            }
            cr_assert(k < s->count && s->batches[k].number == number,
                      "%s: shard %" PRIu64 ": %" PRIu64 " is there twice, or was never sent", m.at,
                      s->id, number);
            struct batch *b = &s->batches[k++];
            cr_assert(b->known != NOT_STORED, "%s: shard %" PRIu64 ": %" PRIu64 " was refused",
                      m.at, s->id, number);
            cr_assert(b->known != STORED ||
                          (b->offset == run.batch[i].first && b->at_ms == run.batch[i].at_ms),
                      "%s: shard %" PRIu64 ": %" PRIu64 " moved", m.at, s->id, number);
            b->known = STORED;
            b->offset = offset;
            b->at_ms = run.batch[i].at_ms;
            cr_assert(run.batch[i].records == b->count);
            offset += b->count;
        }
        weir_run_clear(&run);
    }
    for (; k < s->count; k++) {
        struct batch *gone = &s->batches[k];
        cr_assert(gone->known != STORED || (gone->old && gone->offset < state.oldest),
                  "%s: shard %" PRIu64 ": %" PRIu64 " was acknowledged and is lost", m.at, s->id,
                  gone->number);
        if (gone->known == MAYBE)
            gone->known = NOT_STORED;
    }
    cr_assert(offset == state.next);
}

static void
check_all(void)
{
    rig_step(&m.rig);
    settle();
    if (any_in_flight())
        return;
    for (int i = 0; i < SHARDS; i++)
        check_shard(&m.shards[i]);
}

static void
check_find(void)
{
    struct shard *s = &m.shards[below(SHARDS)];
    struct weir_log_shard state;
    uint64_t offset;
    rig_step(&m.rig);
    settle();
    OK(weir_log_shard_get(m.rig.log, s->id, &state));
    if (!s->count || any_in_flight())
        return;
    uint64_t at_ms = s->batches[below(s->count)].at_ms + below(3) - 1;
    OK(rig_find(&m.rig, s->id, at_ms, &offset));
    OK(weir_log_shard_get(m.rig.log, s->id, &state));
    uint64_t expected = state.next;
    for (uint32_t k = s->count; k > 0; k--) {
        const struct batch *b = &s->batches[k - 1];
        if (b->known == STORED && b->at_ms >= at_ms && b->offset >= state.oldest)
            expected = b->offset;
    }
    bool unknown = false;
    for (uint32_t k = 0; k < s->count; k++)
        unknown |= s->batches[k].known == MAYBE;
    cr_assert(unknown || offset == expected,
              "%s: shard %" PRIu64 ": %" PRIu64 " instead of %" PRIu64, m.at, s->id, offset,
              expected);
}

/* ---- restarts ---- */

static void
on_finding(void *arg, const struct weir_fsck_finding *f)
{
    (void)arg;
    cr_assert(f->severity == WEIR_FSCK_NOTE,
              "%s: fsck: %s at %" PRIu64 ": %s (shard %" PRIu64 ", %" PRIu64 " to %" PRIu64 ")",
              m.at, f->file, f->position, f->reason, f->shard, f->first, f->limit);
}

static void
restart(void)
{
    struct weir_fsck_totals totals;
    struct weir_fsck_callbacks callbacks = {.finding = on_finding};
    weir_memfs_fail_clear(m.rig.disk);
    if (below(3) == 0) {
        rig_close(&m.rig);
    } else {
        for (uint64_t n = below(6); n > 0; n--)
            send();
        if (below(2))
            weir_loop_step(m.rig.loop, below(12));
        rig_crash(&m.rig, (enum weir_memfs_cut)below(3), weir_random_u64(&m.random));
    }
    /* What was in flight was answered by the close, on a disk that no longer counts. */
    for (size_t i = 0; i < 64; i++) {
        struct flight *f = &m.flights[i];
        if (!f->used)
            continue;
        f->used = false;
        cr_assert(f->append.done);
        struct batch *b = f->shard->id == f->shard_id ? &f->shard->batches[f->batch] : NULL;
        if (b && !f->repeat && b->known == MAYBE)
            b->at_ms = m.latest_ms;
    }
    (void)!weir_fsck_verify(weir_memfs_fs(m.rig.disk), NULL, &callbacks, &totals, NULL, NULL);
    rig_open(&m.rig);
    cr_assert(m.rig.report.damaged_count == 0, "%s: damage", m.at);
    for (int i = 0; i < SHARDS; i++)
        OK(weir_log_shard_add(m.rig.log, 1, m.shards[i].id, m.shards[i].retention_ms, 0));
    weir_log_drop_undeclared(m.rig.log);
    check_all();
    renumber();
}

static void
change_retention(void)
{
    struct shard *s = &m.shards[below(SHARDS)];
    settle();
    s->retention_ms = (1 + below(10)) * 30 * MINUTE;
    OK(weir_log_set_retention(m.rig.log, s->id, s->retention_ms, 0));
    note_time();
}

static void
drop(void)
{
    struct shard *s = &m.shards[below(SHARDS)];
    static struct weir_run run;
    OK(weir_log_shard_drop(m.rig.log, s->id));
    IS(rig_read(&m.rig, s->id, 0, 1, &run), WEIR_NOT_FOUND);
    settle();
    new_shard(s);
}

static void
break_disk(void)
{
    enum weir_memfs_call call = below(2) ? WEIR_MEMFS_SYNC : WEIR_MEMFS_WRITE;
    enum weir_status st = below(2) ? WEIR_IO : WEIR_NO_SPACE;
    weir_memfs_fail_nth(m.rig.disk, call, 1 + below(5), st, below(3) == 0);
    for (uint64_t n = 2 + below(6); n > 0; n--)
        send();
    rig_step(&m.rig);
    settle();
    weir_memfs_fail_clear(m.rig.disk);
    rig_pass(&m.rig, 2500);
    settle();
    cr_assert(m.rig.health == WEIR_OK, "%s: it did not recover", m.at);
    check_all();
    renumber();
}

static void
pass(void)
{
    if (below(12) == 0)
        weir_clock_manual_set_wall(&m.rig.clock, weir_now_ms(&m.rig.clock.clock) - below(MINUTE));
    rig_pass(&m.rig, below(4) ? below(5000) : below(60 * MINUTE));
    settle();
}

static void
run_seed(uint64_t seed)
{
    m = (struct model){.seed = seed, .next_id = 1000};
    weir_random_init(&m.random, seed);
    rig_init(&m.rig);
    m.rig.config.prewrite_bytes = below(2) ? 2 * WEIR_MIB : 0;
    m.rig.config.cache_bytes_max = below(2) ? 128 * WEIR_KIB : 0;
    m.rig.config.producer_expiry_ms = 1000000 * MINUTE;
    m.rig.config.durability = WEIR_DURABILITY_SYNC;
    rig_open(&m.rig);
    m.latest_ms = weir_now_ms(&m.rig.clock.clock);
    for (int i = 0; i < SHARDS; i++)
        new_shard(&m.shards[i]);
    for (int step = 0; step < 400; step++) {
        snprintf(m.at, sizeof m.at, "seed %" PRIu64 ", step %d", seed, step);
        uint64_t what = below(100);
        if (what < 60)
            for (uint64_t n = 1 + below(5); n > 0; n--)
                send();
        else if (what < 66)
            repeat();
        else if (what < 76)
            pass();
        else if (what < 82)
            check_find();
        else if (what < 86)
            check_all();
        else if (what < 89)
            change_retention();
        else if (what < 91)
            drop();
        else if (what < 94)
            break_disk();
        else if (what < 98)
            restart();
        else
            weir_loop_step(m.rig.loop, below(5));
        if (below(3) == 0) {
            rig_step(&m.rig);
            settle();
        }
    }
    check_all();
    rig_fini(&m.rig);
}

Test(log, agrees_with_a_naive_model, .timeout = 500)
{
    const char *one = getenv("WEIR_SEED");
    uint64_t first = one ? strtoull(one, NULL, 10) : 1, count = one ? 1 : 25;
    for (uint64_t seed = first; seed < first + count; seed++)
        run_seed(seed);
}
