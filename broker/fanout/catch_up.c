/* How one behind the tip catches up, a frame per turn, turns in a ring:
 *
 *   1. batches of its present run that fit frame and credit go out
 *   2. no run left: the next one from the log's memory; failing that from the journal, on a pool
 *      thread
 *   3. while a run from the journal goes out, the next one is read
 *   4. at the tip it is LIVE again
 *
 * One read is in flight for each at most, and what all hold is bounded. */
#include "fanout/inside.h"
#include <stdlib.h>
#include <string.h>

/* Of one read: large enough that the hand-over to a pool thread and back does not show. */
#define READ_BYTES_MIN (64 * WEIR_KIB)
#define READ_BYTES (512 * WEIR_KIB)
/* What all subscriptions of an owner may hold of runs not yet sent before they read less ahead. */
#define HELD_BYTES_MAX (32 * WEIR_MIB)

static void
hold(struct weir_reader *r, uint64_t bytes)
{
    r->fanout->held_bytes += bytes - r->held;
    r->held = bytes;
}

static void
reader_free(struct weir_reader *r)
{
    struct weir_fanout *f = r->fanout;
    WEIR_ASSERT(!r->reading);
    hold(r, 0);
    weir_list_remove(&r->node);
    if (f->spare_count == WEIR_FANOUT_SPARES_MAX) {
        free(r);
        return;
    }
    r->next = f->spare;
    f->spare = r;
    f->spare_count++;
}

void
weir_sub_drop_reader(struct weir_sub *s)
{
    struct weir_reader *r = s->reader;
    if (!r)
        return;
    s->reader = NULL;
    r->sub = NULL;
    weir_run_clear(&r->run);
    r->run.count = 0;
    if (r->ready)
        weir_run_clear(&r->read.run);
    r->ready = false;
    if (!r->reading)
        reader_free(r);
}

static struct weir_reader *
need_reader(struct weir_sub *s)
{
    struct weir_fanout *f = s->fanout;
    struct weir_reader *r = s->reader;
    if (r)
        return r;
    r = f->spare;
    if (r) {
        f->spare = r->next;
        f->spare_count--;
    } else {
        r = malloc(sizeof *r);
        if (!r)
            return NULL;
    }
    memset(r, 0, sizeof *r);
    r->fanout = f;
    r->sub = s;
    weir_list_push_back(&f->readers, &r->node);
    s->reader = r;
    return r;
}

static void
tell_gap(struct weir_sub *s, uint64_t limit, enum weir_status why)
{
    uint64_t first = s->next;
    WEIR_ASSERT(limit > first);
    s->next = limit;
    s->said_us = weir_loop_now_us(s->fanout->loop);
    weir_metric_add(s->fanout->metrics, WEIR_METRIC_GAPS, 1);
    s->config.sink->gap(s, first, limit, why);
    weir_sub_settle(s);
}

static void
on_read(struct weir_read *read, enum weir_status st)
{
    struct weir_reader *r = WEIR_CONTAINER(read, struct weir_reader, read);
    r->reading = false;
    r->status = st;
    if (!r->sub) {
        if (!st)
            weir_run_clear(&read->run);
        reader_free(r);
        return;
    }
    r->ready = true;
    hold(r, (st ? 0 : read->run.bytes) + (r->at < r->run.count ? r->run.bytes : 0));
    if (weir_sub_has_credit(r->sub))
        weir_sub_wake(r->sub);
}

static void
start_read(struct weir_sub *s, uint64_t offset)
{
    struct weir_reader *r = s->reader;
    struct weir_fanout *f = s->fanout;
    uint64_t most = s->config.frame_bytes > READ_BYTES ? s->config.frame_bytes : READ_BYTES;
    uint64_t bytes = s->credit > (int64_t)READ_BYTES_MIN ? (uint64_t)s->credit : READ_BYTES_MIN;
    if (bytes > most)
        bytes = most;
    if (f->held_bytes > HELD_BYTES_MAX)
        bytes = READ_BYTES_MIN;
    r->reading = true;
    r->read = (struct weir_read){
        .shard = s->tip->shard->number,
        .offset = offset,
        .bytes_max = bytes,
        .done = on_read,
    };
    hold(r, r->held + bytes);
    weir_metric_add(f->metrics, WEIR_METRIC_CATCHUP_READS, 1);
    weir_log_read(f->log, &r->read);
}

/* The log said something else than OK at the subscription's position. */
static void
follow(struct weir_sub *s, enum weir_status st, const struct weir_run *run)
{
    switch (st) {
    case WEIR_END:
        /* The log is behind what it told us only where it lost a shard's end; wait for it at the
         * tip. */
        if (s->next < s->tip->tail)
            s->tip->tail = s->next;
        weir_sub_settle(s);
        break;
    case WEIR_TRIMMED:
        if (s->config.fail_if_trimmed)
            weir_sub_stop(s, WEIR_TRIMMED, run->first);
        else
            tell_gap(s, run->first, WEIR_TRIMMED);
        break;
    case WEIR_DAMAGED:
        tell_gap(s, run->limit, WEIR_DAMAGED);
        break;
    case WEIR_NOT_FOUND:
    case WEIR_NO_MEMORY:
        weir_sub_stop(s, st, s->next);
        break;
    default:
        weir_sub_stop(s, WEIR_IO, s->next);
        break;
    }
}

/* Makes r->run one that has batches to send. False: none now (a read is in flight, or the
 * subscription went another way). */
static bool
need_run(struct weir_sub *s, struct weir_reader *r)
{
    struct weir_fanout *f = s->fanout;
    if (r->at < r->run.count)
        return true;
    weir_run_clear(&r->run);
    r->run.count = 0;
    r->at = 0;
    if (r->reading)
        return false;

    if (r->ready) {
        r->ready = false;
        if (!r->status && r->read.run.first <= s->next && s->next < r->read.run.limit) {
            r->run = r->read.run;
            r->read.run.count = 0;
            r->from_journal = true;
            hold(r, r->run.bytes);
            return true;
        }
        hold(r, 0);
        if (!r->status) {
            weir_run_clear(&r->read.run);
        } else if (r->status != WEIR_END && r->status != WEIR_AGAIN && r->read.offset == s->next) {
            follow(s, r->status, &r->read.run);
            return false;
        }
    }

    hold(r, 0);
    r->run.first = r->run.limit = r->run.bytes = 0;
    uint64_t most = s->config.frame_bytes > READ_BYTES ? s->config.frame_bytes : READ_BYTES;
    enum weir_status st =
        weir_log_read_cached(f->log, s->tip->shard->number, s->next, most, &r->run);
    if (!st) {
        WEIR_ASSERT(r->run.count > 0 && r->run.limit > s->next);
        r->from_journal = false;
        hold(r, r->run.bytes);
        return true;
    }
    r->run.count = 0;
    if (st == WEIR_AGAIN)
        start_read(s, s->next);
    else
        follow(s, st, &r->run);
    return false;
}

void
weir_sub_catch_up(struct weir_sub *s)
{
    struct weir_fanout *f = s->fanout;
    struct weir_reader *r = need_reader(s);
    if (!r) {
        weir_sub_stop(s, WEIR_NO_MEMORY, s->next);
        return;
    }
    if (!need_run(s, r))
        return;
    while (r->run.batch[r->at].first + r->run.batch[r->at].records <= s->next)
        r->at++;
    WEIR_ASSERT(r->at < r->run.count);

    struct weir_frame_limit limit = {
        .bytes = s->config.frame_bytes,
        .credit = (uint64_t)s->credit,
        .force = weir_sub_has_whole_window(s),
        .until_offset = s->config.until_offset,
        .until_ms = s->config.until_ms,
    };
    struct weir_frame_cut cut;
    weir_frame_cut(&r->run, r->at, &limit, &cut);
    if (cut.delivery.count == 0) {
        s->waiting_at_ms = r->run.batch[r->at].at_ms;
        if (cut.until)
            weir_sub_stop(s, WEIR_END, s->next);
        else if (f->held_bytes > HELD_BYTES_MAX)
            weir_sub_drop_reader(s); /* it waits for credit, others could use the memory */
        weir_frame_cut_fini(&cut);
        return;
    }

    /* The cut may borrow from the run, which goes with the subscription if the sink closes it. */
    uint32_t from = r->at;
    struct weir_slice kept[WEIR_DELIVERY_SLICES_MAX];
    uint32_t kept_count = cut.delivery.count;
    for (uint32_t i = 0; i < kept_count; i++) {
        kept[i] = cut.delivery.batch[i];
        weir_buf_ref(kept[i].buf);
    }
    r->at = cut.to;
    bool more = r->at < r->run.count;
    s->waiting_at_ms = r->run.batch[more ? r->at : r->at - 1].at_ms;
    cut.delivery.tail = s->tip->tail > cut.delivery.next ? s->tip->tail : cut.delivery.next;
    if (cut.delivery.next < cut.delivery.tail)
        cut.delivery.lag_ms = weir_fanout_age_ms(f, s->waiting_at_ms);

    /* The next run is read while this one goes out, where there is credit for some of it. */
    uint64_t left = 0;
    for (uint32_t i = from; i < r->run.count; i++)
        left += r->run.batch[i].slice.len;
    if (r->from_journal && !r->reading && !r->ready && r->run.limit < s->tip->tail &&
        s->credit > (int64_t)left && f->held_bytes <= HELD_BYTES_MAX)
        start_read(s, r->run.limit);

    weir_sub_deliver(s, &cut.delivery);
    for (uint32_t i = 0; i < kept_count; i++)
        weir_buf_unref(kept[i].buf);
    weir_frame_cut_fini(&cut);
}
