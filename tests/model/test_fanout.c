/* The fan-out against ten naive lines: whatever happens, a subscription gets each record of the
 * shard from its start on, once and in order, or is told of a gap that is there; and at the end of
 * a closed shard it is told so, once. The book in unit/fanout/desk.c checks each call as it comes.
 */
#include "sys/random.h"
#include "unit/fanout/desk.h"
#include <stdlib.h>

enum { SHARDS = 4, BOOKS = 24 };

struct world {
    struct desk desk;
    struct weir_random random;
    struct reader_book books[BOOKS];
    uint64_t shard_of[BOOKS], until[BOOKS];
    bool open[BOOKS], ended[SHARDS];
    uint64_t trimmed[SHARDS], damaged[SHARDS], records[SHARDS];
};

static uint64_t
below(struct world *w, uint64_t limit)
{
    return weir_random_below(&w->random, limit);
}

static void
put(struct world *w)
{
    uint64_t shard = below(w, SHARDS);
    if (w->ended[shard] || w->records[shard] > 20000)
        return;
    for (uint64_t n = 1 + below(w, 12); n > 0; n--) {
        static const size_t sizes[] = {24, 100, 1000, 5000, 70000, 300000};
        uint32_t count = 1 + (uint32_t)below(w, 20);
        fake_log_put(w->desk.log, shard, count, sizes[below(w, below(w, 8) ? 4 : 6)]);
        w->records[shard] += count;
    }
}

static void
open_one(struct world *w)
{
    size_t i = below(w, BOOKS);
    if (w->open[i])
        return;
    uint64_t shard = w->shard_of[i] = below(w, SHARDS);
    static const uint64_t windows[] = {1, 2000, 100000, 1 << 20, 64 << 20};
    struct weir_sub_config c = {
        .shard = shard,
        .start = (enum weir_start_kind)below(w, 4),
        .offset = below(w, w->records[shard] + 1),
        .at_ms = 1000000 + below(w, 10000),
        .credit_bytes = windows[below(w, 5)],
        .credit_frames = 1 + (uint32_t)below(w, 50),
        .frame_bytes = 4096 << below(w, 8),
        .heartbeat_ms = 100 + (uint32_t)below(w, 2000),
        .until_offset = below(w, 4) ? 0 : w->records[shard] + below(w, 1000),
        .until_ms = below(w, 6) ? 0 : 1000000 + below(w, 60000),
        .fail_if_trimmed = below(w, 4) == 0,
    };
    w->until[i] = c.until_offset || c.until_ms;
    memset(&w->books[i], 0, sizeof w->books[i]);
    w->books[i].credit_back = below(w, 3) == 0;
    book_open(&w->desk, &w->books[i], c);
    w->open[i] = true;
}

static void
act(struct world *w)
{
    size_t i = below(w, BOOKS);
    uint64_t shard = below(w, SHARDS);
    struct reader_book *b = &w->books[i];
    switch (below(w, 16)) {
    case 0 ... 3:
        put(w);
        break;
    case 4 ... 5:
        open_one(w);
        break;
    case 6 ... 8:
        if (w->open[i] && b->credit < 1 << 28)
            book_credit(b, below(w, 200000), (uint32_t)below(w, 10));
        break;
    case 9:
        if (w->open[i] && below(w, 4) == 0) {
            book_close(b);
            w->open[i] = false;
        }
        break;
    case 10:
        fake_log_evict(w->desk.log, shard);
        break;
    case 11:
        fake_log_hold_reads(w->desk.log, below(w, 2));
        break;
    case 12:
        if (below(w, 4) == 0) {
            struct weir_log_shard s;
            OK(weir_log_shard_get(w->desk.log, shard, &s));
            fake_log_trim(w->desk.log, shard, s.oldest + below(w, s.next - s.oldest + 1));
            OK(weir_log_shard_get(w->desk.log, shard, &s));
            w->trimmed[shard] = s.oldest;
        }
        break;
    case 13:
        if (below(w, 6) == 0) {
            fake_log_damage(w->desk.log, shard, below(w, w->records[shard] + 1));
            w->damaged[shard]++;
        }
        break;
    case 14:
        if (below(w, 60) == 0 && !w->ended[shard]) {
            w->ended[shard] = true;
            weir_fanout_end_shard(w->desk.fanout, shard, w->records[shard]);
        }
        break;
    case 15:
        desk_wait(&w->desk, below(w, 300));
        break;
    }
    weir_loop_step(w->desk.loop, below(w, 6));
}

/* A gap is either trimmed away or damaged; nobody loses what is there. */
static void
check_gaps(struct world *w)
{
    for (size_t i = 0; i < BOOKS; i++) {
        struct reader_book *b = &w->books[i];
        if (w->open[i] && b->gaps > 0 && b->gap_why == WEIR_TRIMMED)
            cr_assert_gt(w->trimmed[w->shard_of[i]], 0);
        if (w->open[i] && b->gaps > 0 && b->gap_why == WEIR_DAMAGED)
            cr_assert_gt(w->damaged[w->shard_of[i]], 0);
        if (w->open[i] && b->gaps == 0 && b->started && !b->start_status)
            cr_assert_eq(b->start_offset + b->records, b->next);
    }
}

static void
run(uint64_t seed)
{
    struct world *w = calloc(1, sizeof *w);
    weir_random_init(&w->random, seed);
    desk_open(&w->desk);
    for (uint64_t s = 0; s < SHARDS; s++)
        desk_shard(&w->desk, s);
    for (int i = 0; i < 3000; i++)
        act(w);
    check_gaps(w);

    /* Now everybody has all the credit in the world: everybody arrives. */
    fake_log_hold_reads(w->desk.log, false);
    for (size_t i = 0; i < BOOKS; i++) {
        struct reader_book *b = &w->books[i];
        if (w->open[i] && b->started && !b->start_status && !b->stopped)
            book_credit(b, 1 << 29, 100000);
    }
    desk_wait(&w->desk, 3000);
    check_gaps(w);
    for (size_t i = 0; i < BOOKS; i++) {
        struct reader_book *b = &w->books[i];
        if (!w->open[i])
            continue;
        uint64_t shard = w->shard_of[i], tail = w->records[shard];
        cr_assert(b->started, "seed %lu", seed);
        if (b->stopped && b->stop_status == WEIR_TRIMMED)
            continue;
        if (b->stopped && b->stop_status == WEIR_END) {
            cr_assert(w->until[i], "seed %lu", seed);
            continue;
        }
        if (b->start_status) {
            cr_assert_eq(b->start_status, WEIR_TRIMMED, "seed %lu", seed);
            continue;
        }
        cr_assert_eq(b->next, tail, "seed %lu: book %zu at %lu of %lu", seed, i, b->next, tail);
        cr_assert_eq(b->stopped, w->ended[shard], "seed %lu: book %zu", seed, i);
        if (b->stopped)
            cr_assert_eq(b->stop_status, WEIR_OK, "seed %lu", seed);
    }
    for (size_t i = 0; i < BOOKS; i++)
        if (w->open[i])
            book_close(&w->books[i]);
    desk_close(&w->desk);
    size_t live, pooled;
    weir_buf_usage(&live, &pooled);
    cr_assert_eq(live, 0, "seed %lu: %zu bytes are still held", seed, live);
    free(w);
}

Test(fanout_model, delivers_each_record_once_or_tells_the_gap)
{
    const char *seed = getenv("WEIR_SEED");
    if (seed) {
        run(strtoull(seed, NULL, 10));
        return;
    }
    for (uint64_t s = 1; s <= 40; s++)
        run(s);
}
