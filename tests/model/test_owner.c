/* Ingest, log and fan-out of one owner together, on a disk in memory and without threads: whatever
 * is acknowledged is delivered to every subscriber, in order and once, from the tip, from memory or
 * from the journal, across power cuts; every retry finds its first copy. */
#include "fanout/fanout.h"
#include "ingest/ingest.h"
#include "sys/random.h"
#include "unit/log/rig.h"
#include <inttypes.h>
#include <stdlib.h>

enum { SHARDS = 3, READERS = 8, ROUNDS = 250 };

struct owner {
    struct rig rig; /* first: the observer's functions find us by it */
    struct weir_ingest *ingest;
    struct weir_fanout *fanout;
    struct weir_random random;
    uint64_t number[SHARDS], acknowledged[SHARDS]; /* batches sent; end of what was acknowledged */
    uint64_t seed, restarts;
};

struct reader {
    struct owner *owner;
    struct weir_sub *sub;
    uint64_t shard, next, gap;
    bool started, stopped;
};

static struct owner *
owner_of(struct weir_log_observer *o)
{
    return WEIR_CONTAINER(o, struct owner, rig.observer);
}

static void
on_durable(struct weir_log_observer *o, const struct weir_batch_info *info, struct weir_slice slice)
{
    weir_fanout_durable(owner_of(o)->fanout, info, slice);
}

static void
on_gap(struct weir_log_observer *o, uint64_t shard, uint64_t first, uint64_t limit,
       enum weir_status why)
{
    /* The log tells gaps while it opens, too. */
    if (owner_of(o)->fanout)
        weir_fanout_gap(owner_of(o)->fanout, shard, first, limit, why);
}

static void
on_deliver(struct weir_sub *sub, const struct weir_delivery *d)
{
    struct reader *r = weir_sub_owner(sub);
    uint64_t at = d->first, records = 0;
    for (uint32_t i = 0; i < d->count; i++) {
        struct weir_bytes rest = weir_slice_bytes(d->batch[i]);
        while (rest.len > 0) {
            struct weir_batch_info info;
            cr_assert_eq(weir_batch_peek(rest, &info), WEIR_OK);
            cr_assert_eq(weir_batch_check(weir_bytes(rest.data, info.size), &info), WEIR_OK);
            cr_assert_eq(info.shard, r->shard);
            cr_assert_eq(info.offset, at, "seed %" PRIu64, r->owner->seed);
            at += info.count;
            records += info.count;
            rest = weir_bytes(rest.data + info.size, rest.len - info.size);
        }
    }
    cr_assert_eq(at, d->next);
    cr_assert_eq(records, d->records);
    cr_assert(d->first <= r->next && r->next < d->next, "seed %" PRIu64, r->owner->seed);
    r->next = d->next;
}

static void
on_heartbeat(struct weir_sub *sub, uint64_t next, uint64_t tail, uint32_t lag_ms)
{
    const struct reader *r = weir_sub_owner(sub);
    cr_assert_eq(next, r->next);
    cr_assert_geq(tail, next);
    cr_assert_eq(lag_ms == 0, next == tail);
}

static void
on_told_gap(struct weir_sub *sub, uint64_t first, uint64_t limit, enum weir_status why)
{
    struct reader *r = weir_sub_owner(sub);
    cr_assert_eq(why, WEIR_TRIMMED);
    cr_assert_eq(first, r->next);
    r->gap += limit - first;
    r->next = limit;
}

static void
on_stopped(struct weir_sub *sub, enum weir_status why, uint64_t offset)
{
    struct reader *r = weir_sub_owner(sub);
    cr_assert_eq(why, WEIR_OK);
    cr_assert_eq(offset, r->next);
    r->stopped = true;
}

static void
on_started(struct weir_sub *sub, enum weir_status st, uint64_t offset, uint64_t tail)
{
    struct reader *r = weir_sub_owner(sub);
    cr_assert_eq(st, WEIR_OK, "seed %" PRIu64 ": %s at %" PRIu64 " of %" PRIu64, r->owner->seed,
                 weir_status_name(st), offset, tail);
    cr_assert_leq(offset, tail);
    r->next = offset;
    r->started = true;
}

static const struct weir_sink sink = {on_deliver, on_heartbeat, on_told_gap, on_stopped};

static void
open_owner(struct owner *o)
{
    rig_open(&o->rig);
    OK(weir_ingest_new(o->rig.loop, o->rig.log, NULL, &o->ingest));
    OK(weir_fanout_new(o->rig.loop, o->rig.log, NULL, &o->fanout));
    for (uint64_t shard = 0; shard < SHARDS; shard++) {
        struct weir_ingest_shard s = {9, shard, {0, WEIR_U128_MAX}, WEIR_RECORD_BYTES_DEFAULT};
        OK(weir_log_shard_add(o->rig.log, 9, shard, 24 * 3600 * 1000, 0));
        OK(weir_ingest_open_shard(o->ingest, &s));
        OK(weir_fanout_add_shard(o->fanout, shard));
        struct weir_log_shard state;
        OK(weir_log_shard_get(o->rig.log, shard, &state));
        cr_assert_geq(state.next, o->acknowledged[shard], "seed %" PRIu64 ": lost", o->seed);
        o->acknowledged[shard] = state.next;
    }
}

static void
close_owner(struct owner *o, struct reader *readers)
{
    weir_loop_stop(o->rig.loop);
    weir_log_close(o->rig.log);
    o->rig.log = NULL;
    weir_ingest_free(o->ingest);
    weir_fanout_free(o->fanout);
    o->ingest = NULL;
    o->fanout = NULL;
    for (int i = 0; i < READERS; i++)
        readers[i].sub = NULL;
}

/* The disk is what it is now; what the owner still does while it ends, nobody sees. */
static void
crash(struct owner *o, struct reader *readers)
{
    struct reader seen[READERS];
    memcpy(seen, readers, sizeof seen);
    struct weir_memfs *after =
        weir_memfs_fork(o->rig.disk, (enum weir_memfs_cut)weir_random_below(&o->random, 3),
                        weir_random_u64(&o->random));
    close_owner(o, readers);
    for (int i = 0; i < READERS; i++) {
        readers[i] = seen[i];
        readers[i].sub = NULL;
    }
    rig_close(&o->rig);
    weir_memfs_free(o->rig.disk);
    o->rig.disk = after;
    open_owner(o);
    o->restarts++;
}

static void
subscribe(struct owner *o, struct reader *r)
{
    struct weir_sub_config config = {
        .shard = r->shard,
        .start = r->started ? WEIR_START_OFFSET : (enum weir_start_kind)(r->shard & 1),
        .offset = r->next,
        .credit_bytes = 1000 + weir_random_below(&o->random, 500000),
        .credit_frames = 1 + (uint32_t)weir_random_below(&o->random, 30),
        .frame_bytes = 4096 << weir_random_below(&o->random, 8),
        .heartbeat_ms = 100 + (uint32_t)weir_random_below(&o->random, 5000),
        .consumer = "reader",
        .sink = &sink,
        .owner = r,
        .started = on_started,
    };
    OK(weir_sub_open(o->fanout, &config, &r->sub));
}

struct sent {
    struct weir_produce produce;
    bool done;
    enum weir_status st;
};

static void
on_done(struct weir_produce *p, enum weir_status st, const char *text)
{
    struct sent *s = WEIR_CONTAINER(p, struct sent, produce);
    (void)text;
    s->done = true;
    s->st = st;
}

static void
send(struct owner *o, struct sent *s, uint64_t shard, uint64_t number, uint32_t count, size_t size)
{
    *s = (struct sent){.produce = {.append = {.stream = 9, .shard = shard}, .done = on_done}};
    weir_ingest_produce(o->ingest, &s->produce,
                        rig_batch(shard, number, count, size, 1000 + shard, number));
}

/* A burst of batches, and now and then each of them a second time. */
static void
produce(struct owner *o)
{
    static struct sent first[40], again[40];
    uint64_t shard = weir_random_below(&o->random, SHARDS);
    uint64_t count = 1 + weir_random_below(&o->random, 40);
    bool twice = weir_random_below(&o->random, 3) == 0;
    for (uint64_t i = 0; i < count; i++) {
        uint32_t records = 1 + (uint32_t)weir_random_below(&o->random, 5);
        size_t size =
            10 + weir_random_below(&o->random, weir_random_below(&o->random, 4) ? 500 : 30000);
        uint64_t number = ++o->number[shard];
        send(o, &first[i], shard, number, records, size);
        if (twice)
            send(o, &again[i], shard, number, records, size);
        if (weir_random_below(&o->random, 3) == 0)
            weir_loop_step(o->rig.loop, 1 + weir_random_below(&o->random, 5));
    }
    rig_step(&o->rig);
    for (uint64_t i = 0; i < count; i++) {
        cr_assert(first[i].done && first[i].st == WEIR_OK, "seed %" PRIu64 ": %s", o->seed,
                  weir_status_name(first[i].st));
        cr_assert_eq(first[i].produce.append.offset, o->acknowledged[shard]);
        o->acknowledged[shard] += first[i].produce.count;
        if (!twice)
            continue;
        cr_assert(again[i].done && again[i].st == WEIR_DUPLICATE, "seed %" PRIu64 ": %s", o->seed,
                  weir_status_name(again[i].st));
        cr_assert_eq(again[i].produce.append.offset, first[i].produce.append.offset);
    }
}

static void
act(struct owner *o, struct reader *readers)
{
    struct reader *r = &readers[weir_random_below(&o->random, READERS)];
    switch (weir_random_below(&o->random, 12)) {
    case 0 ... 4:
        produce(o);
        break;
    case 5:
        if (r->sub && weir_random_below(&o->random, 4) == 0) {
            weir_sub_close(r->sub);
            r->sub = NULL;
        } else if (!r->sub) {
            subscribe(o, r);
        }
        break;
    case 6 ... 8:
        if (r->sub)
            (void)!weir_sub_credit(r->sub, weir_random_below(&o->random, 300000),
                                   (uint32_t)weir_random_below(&o->random, 20));
        break;
    case 9:
        rig_pass(&o->rig, weir_random_below(&o->random, 3000));
        break;
    case 10:
        if (weir_random_below(&o->random, 12) == 0)
            crash(o, readers);
        break;
    case 11:
        if (weir_random_below(&o->random, 6) == 0) {
            uint64_t shard = weir_random_below(&o->random, SHARDS);
            OK(weir_log_set_retention(o->rig.log, shard, 24 * 3600 * 1000,
                                      1 + weir_random_below(&o->random, 2000000)));
            OK(weir_log_set_retention(o->rig.log, shard, 24 * 3600 * 1000, 0));
        }
        break;
    }
    weir_loop_step(o->rig.loop, weir_random_below(&o->random, 10));
}

static struct weir_ingest_close closing;
static bool closed;
static void
on_closed(struct weir_ingest_close *c, enum weir_status st)
{
    (void)c;
    cr_assert_eq(st, WEIR_OK);
    closed = true;
}

static void
run(uint64_t seed)
{
    struct owner *o = calloc(1, sizeof *o);
    struct reader readers[READERS] = {0};
    o->seed = seed;
    weir_random_init(&o->random, seed);
    rig_init(&o->rig);
    o->rig.observer.durable = on_durable;
    o->rig.observer.gap = on_gap;
    o->rig.config.cache_bytes_max = seed % 3 * 100000;
    open_owner(o);
    for (int i = 0; i < READERS; i++) {
        readers[i].owner = o;
        readers[i].shard = (uint64_t)i % SHARDS;
    }
    for (int i = 0; i < ROUNDS; i++)
        act(o, readers);

    /* The shards close; everybody reads to the end and is told of it, once. */
    for (uint64_t shard = 0; shard < SHARDS; shard++) {
        closed = false;
        closing = (struct weir_ingest_close){.shard = shard, .done = on_closed};
        weir_ingest_close_shard(o->ingest, &closing);
        rig_step(&o->rig);
        cr_assert(closed);
        cr_assert_eq(closing.end, o->acknowledged[shard]);
        weir_fanout_end_shard(o->fanout, shard, closing.end);
    }
    for (int i = 0; i < READERS; i++) {
        if (!readers[i].sub)
            subscribe(o, &readers[i]);
        if (!readers[i].stopped)
            OK(weir_sub_credit(readers[i].sub, 500 << 20, 100000));
    }
    rig_pass(&o->rig, 5000);
    for (int i = 0; i < READERS; i++) {
        cr_assert(readers[i].stopped, "seed %" PRIu64 ": reader %d at %" PRIu64 " of %" PRIu64,
                  seed, i, readers[i].next, o->acknowledged[readers[i].shard]);
        weir_sub_close(readers[i].sub);
    }
    rig_step(&o->rig);
    close_owner(o, readers);
    rig_fini(&o->rig);
    free(o);
    size_t live, pooled;
    weir_buf_usage(&live, &pooled);
    cr_assert_eq(live, 0, "seed %" PRIu64 ": %zu bytes are still held", seed, live);
}

Test(owner_model, delivers_what_was_acknowledged_once_and_in_order)
{
    const char *seed = getenv("WEIR_SEED");
    if (seed) {
        run(strtoull(seed, NULL, 10));
        return;
    }
    for (uint64_t s = 1; s <= 24; s++)
        run(s);
}
