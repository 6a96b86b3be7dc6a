#include "sink/source.h"
#include "base/text.h"
#include "sys/random.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define PAUSE_MS_MIN 100
#define PAUSE_MS_MAX 15000

struct running {
    const struct weir_export_run *run;
    struct weir_subscription *sub;
    struct weir_random random;
    uint64_t shown_ms, lag_ms;
    struct weir_error checkpoint_error;
};

static void
show(struct running *r, const char *text)
{
    uint64_t now = weir_mono_us(weir_clock_system()) / 1000;
    struct weir_exporter_numbers n = {0};
    if (!r->run->progress || (!text && now - r->shown_ms < 250))
        return;
    r->shown_ms = now;
    if (r->run->exporter)
        weir_exporter_get_numbers(r->run->exporter, &n);
    r->run->progress(r->run->arg, &n, r->lag_ms, text);
}

static bool
stopped(const struct running *r)
{
    return r->run->stop && r->run->stop(r->run->arg);
}

static void
published(void *arg, uint32_t shard, uint64_t limit, bool ended, const char *name)
{
    struct running *r = arg;
    (void)name;
    (void)ended;
    if (!r->checkpoint_error.status)
        (void)!weir_checkpoint(r->sub, shard, limit, &r->checkpoint_error);
}

static bool
worth_trying(enum weir_status st)
{
    return weir_status_retryable(st) || st == WEIR_IO || st == WEIR_TIMEOUT;
}

/* Pauses before another try; false when told to stop meanwhile. */
static bool
pause_for(struct running *r, uint32_t *pause_ms)
{
    uint32_t wait = *pause_ms / 2 + (uint32_t)weir_random_below(&r->random, *pause_ms / 2 + 1);
    *pause_ms = *pause_ms * 2 < PAUSE_MS_MAX ? *pause_ms * 2 : PAUSE_MS_MAX;
    for (; wait && !stopped(r); wait -= wait < 50 ? wait : 50) {
        struct timespec t = {0, 50 * 1000000};
        nanosleep(&t, NULL);
    }
    return !stopped(r);
}

/* Publishes what is due, however long the destination takes. */
static enum weir_status
flush(struct running *r, bool all, struct weir_error *err)
{
    uint32_t pause_ms = PAUSE_MS_MIN;
    for (;;) {
        struct weir_error why = {0};
        enum weir_status st = weir_exporter_flush(r->run->exporter, all, published, r, &why);
        if (!st && r->checkpoint_error.status) {
            why = r->checkpoint_error;
            st = why.status;
            r->checkpoint_error = (struct weir_error){0};
            if (worth_trying(st))
                return WEIR_OK; /* the boundary log knows; the next one moves the checkpoint */
        }
        if (!st)
            return st;
        if (!worth_trying(st) || !pause_for(r, &pause_ms)) {
            if (err)
                *err = why;
            return st;
        }
        show(r, why.text);
    }
}

static enum weir_status
feed(struct running *r, struct weir_event *event, struct weir_error *err)
{
    struct weir_event_record record;
    char sequence[57] = "";
    r->lag_ms = event->lag_ms;
    while (weir_event_next(event, &record)) {
        if (r->run->with_sequence)
            (void)!weir_sequence_of(r->sub, record.shard, record.offset, record.at_ms, sequence);
        struct weir_export_record x = {
            .shard = record.shard,
            .offset = record.offset,
            .at_ms = record.at_ms,
            .sequence = sequence,
            .key = weir_bytes(record.key, record.key_len),
            .data = weir_bytes(record.data, record.data_len),
        };
        enum weir_status st = weir_exporter_put(r->run->exporter, &x, err);
        if (st)
            return st;
        if (weir_exporter_due_ms(r->run->exporter) == 0) {
            st = flush(r, false, err);
            if (st)
                return st;
        }
    }
    return WEIR_OK;
}

/* A shard seen for the first time begins here, whatever happens next. */
static enum weir_status
note_start(struct running *r, uint32_t shard, struct weir_error *err)
{
    uint64_t offset;
    if (!weir_exporter_position(r->run->exporter, shard, &offset) ||
        weir_subscription_position(r->sub, shard, &offset))
        return WEIR_OK;
    return weir_exporter_start(r->run->exporter, shard, offset, err);
}

static enum weir_status
take(struct running *r, struct weir_event *event, struct weir_error *err)
{
    switch (event->kind) {
    case WEIR_EVENT_RECORDS:
        return feed(r, event, err);
    case WEIR_EVENT_GAP: {
        char text[160];
        snprintf(text, sizeof text,
                 "shard %u: offsets %lu to %lu were gone before they were exported", event->shard,
                 (unsigned long)event->first, (unsigned long)event->limit);
        show(r, text);
        return weir_exporter_gap(r->run->exporter, event->shard, event->first, event->limit, err);
    }
    case WEIR_EVENT_SHARD_END: {
        enum weir_status st = weir_exporter_end(r->run->exporter, event->shard, err);
        return st ? st : flush(r, false, err);
    }
    case WEIR_EVENT_FENCED:
        return weir_fail(err, WEIR_FENCED, "another exporter took shard %u over", event->shard);
    case WEIR_EVENT_PROGRESS:
        r->lag_ms = event->lag_ms;
        return note_start(r, event->shard, err);
    case WEIR_EVENT_CONNECTION:
        if (!event->connected)
            show(r, "connection lost, trying again");
        return WEIR_OK;
    }
    return WEIR_OK;
}

/* ---- start ---- */

struct aligning {
    const struct weir_export_run *run;
    enum weir_status st;
    struct weir_error *err;
};

static void
align(void *arg, uint32_t shard, uint64_t offset, bool ended)
{
    struct aligning *a = arg;
    if (!a->st && !ended)
        a->st = weir_set_checkpoint(a->run->client, a->run->stream, a->run->consumer, shard, offset,
                                    a->err);
}

/* One pass from subscription to its end. AGAIN: a part could not be written and was forgotten;
 * subscribe anew at the exporter's positions. */
static enum weir_status
run_once(struct running *r, struct weir_error *err)
{
    struct aligning a = {.run = r->run, .err = err};
    weir_exporter_each(r->run->exporter, align, &a);
    if (a.st)
        return a.st;
    struct weir_subscribe_options o = {
        .stream = r->run->stream,
        .consumer = r->run->consumer,
        .from = r->run->from,
        .take_checkpoint = true,
        .until_tail = !r->run->follow,
    };
    enum weir_from_kind otherwise = o.from.kind;
    o.from.kind = WEIR_FROM_CHECKPOINT;
    o.from.otherwise = otherwise;
    enum weir_status st = weir_subscribe(r->run->client, &o, &r->sub, err);
    if (st)
        return st;
    while (!st && !stopped(r)) {
        struct weir_event *event;
        uint64_t due = weir_exporter_due_ms(r->run->exporter);
        st = weir_poll(r->sub, due < 100 ? (int64_t)due : 100, &event, err);
        if (st == WEIR_TIMEOUT) {
            st = WEIR_OK;
        } else if (!st) {
            st = take(r, event, err);
            weir_event_free(event);
        }
        if (!st && weir_exporter_due_ms(r->run->exporter) == 0)
            st = flush(r, false, err);
        show(r, NULL);
    }
    if (st == WEIR_END || !st)
        st = flush(r, true, err);
    weir_subscription_close(r->sub);
    r->sub = NULL;
    return st;
}

enum weir_status
weir_export_open(struct weir_export_run *run, const struct weir_exporter_options *options,
                 struct weir_error *err)
{
    struct running r = {.run = run};
    uint32_t pause_ms = PAUSE_MS_MIN;
    weir_random_init(&r.random, (uint64_t)weir_random_id());
    for (;;) {
        struct weir_error why = {0};
        enum weir_status st = weir_exporter_open(options, &run->exporter, &why);
        if (!st)
            return WEIR_OK;
        if (st == WEIR_BUSY || !worth_trying(st) || !pause_for(&r, &pause_ms)) {
            if (err)
                *err = why;
            return st;
        }
        show(&r, why.text);
    }
}

enum weir_status
weir_export_run(const struct weir_export_run *run, struct weir_error *err)
{
    struct running r = {.run = run};
    uint32_t pause_ms = PAUSE_MS_MIN;
    weir_random_init(&r.random, (uint64_t)weir_random_id());
    for (;;) {
        struct weir_error why = {0};
        enum weir_status st = run_once(&r, &why);
        if (!st)
            return st;
        if (!worth_trying(st) || stopped(&r)) {
            if (err)
                *err = why;
            return st;
        }
        show(&r, why.text);
        (void)pause_for(&r, &pause_ms);
    }
}
