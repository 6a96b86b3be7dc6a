/* tail, subscribe, replay: one loop over events, three ways to start and stop it. */
#include "command.h"
#include "record/sequence.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define READ_OPTIONS                                                                           \
    {"shard", TEXT, "SHARD", "all", "one shard alone, by number or id"},                       \
        {"count", NUMBER, "N", "no limit", "stop after so many records"},                      \
        {"with", TEXT, "COLUMNS", "none",                                                      \
         "columns before the data: any of shard,offset,sequence,time,key with commas"},        \
    {                                                                                          \
        "progress", FLAG, NULL, NULL, "show progress also where standard error is no terminal" \
    }

const struct option options_tail[] = {
    {"from", WHERE, "WHERE", "latest",
     "oldest, latest, offset:N, a sequence number, or a moment (2026-11-28T09:00:00Z, -1h)"},
    {"until-now", FLAG, NULL, NULL, "stop at what is there when it starts"},
    READ_OPTIONS,
    {0},
};
const struct option options_subscribe[] = {
    {"from", WHERE, "WHERE", "oldest", "where a shard has no checkpoint: oldest or latest"},
    {"every", NUMBER, "N", "1000", "checkpoint after so many records, and each second"},
    {"until-now", FLAG, NULL, NULL, "stop at what is there when it starts"},
    READ_OPTIONS,
    {0},
};
const struct option options_replay[] = {
    {"from", WHERE, "WHERE", "oldest",
     "oldest, checkpoint, offset:N, a sequence number, or a moment"},
    {"to", MOMENT, "MOMENT", "what is there now", "stop before records that came at or after it"},
    {"consumer", TEXT, "NAME", NULL, "with --from checkpoint: whose"},
    {"count-only", FLAG, NULL, NULL, "print how many records there are, not what they are"},
    READ_OPTIONS,
    {0},
};

enum { WITH_SHARD = 1, WITH_OFFSET = 2, WITH_SEQUENCE = 4, WITH_TIME = 8, WITH_KEY = 16 };

struct reading {
    struct args *args;
    struct weir_subscription *sub;
    unsigned with;
    uint64_t count_max, records, bytes, every, gaps;
    bool checkpoints, count_only;
    struct progress progress;
    struct {
        uint32_t shard;
        uint64_t offset, printed, done;
    } * mark; /* per shard seen: where a checkpoint may go */
    size_t mark_count;
    uint64_t since, marked_ms;
};

static bool
parse_with(const struct args *a, unsigned *out)
{
    static const char *const names[] = {"shard", "offset", "sequence", "time", "key"};
    const char *text = args_text(a, "with", "");
    while (*text) {
        size_t len = strcspn(text, ","), i = 0;
        while (i < 5 && (strlen(names[i]) != len || memcmp(names[i], text, len) != 0))
            i++;
        if (i == 5) {
            bad_usage(a, "--with '%.*s' is no column: shard, offset, sequence, time, key", (int)len,
                      text);
            return false;
        }
        *out |= 1u << i;
        text += len + (text[len] == ',');
    }
    return true;
}

static void
print_json(struct reading *r, const struct weir_event_record *rec)
{
    struct output o;
    char sequence[57] = "";
    (void)!weir_sequence_of(r->sub, rec->shard, rec->offset, rec->at_ms, sequence);
    output_begin(&o);
    weir_json_begin_object(&o.json);
    member_u64(&o, "shard", rec->shard);
    member_u64(&o, "offset", rec->offset);
    member_text(&o, "sequence", sequence);
    member_moment(&o, "at", rec->at_ms);
    weir_json_write_name(&o.json, "key");
    weir_json_write_string(&o.json, weir_bytes(rec->key, rec->key_len));
    if (weir_utf8_is_valid(weir_bytes(rec->data, rec->data_len))) {
        weir_json_write_name(&o.json, "data");
        weir_json_write_string(&o.json, weir_bytes(rec->data, rec->data_len));
    } else {
        weir_json_write_name(&o.json, "data_base64");
        weir_json_write_base64(&o.json, weir_bytes(rec->data, rec->data_len));
    }
    weir_json_end_object(&o.json);
    (void)output_emit(&o);
}

static void
print_record(struct reading *r, const struct weir_event_record *rec)
{
    if (r->args->json) {
        print_json(r, rec);
        return;
    }
    if (r->with & WITH_SHARD)
        printf("%u\t", rec->shard);
    if (r->with & WITH_OFFSET)
        printf("%lu\t", (unsigned long)rec->offset);
    if (r->with & WITH_SEQUENCE) {
        char sequence[57] = "-";
        (void)!weir_sequence_of(r->sub, rec->shard, rec->offset, rec->at_ms, sequence);
        printf("%s\t", sequence);
    }
    if (r->with & WITH_TIME)
        printf("%s\t", moment_text(rec->at_ms));
    if (r->with & WITH_KEY)
        printf("%.*s\t", (int)rec->key_len, (const char *)rec->key);
    fwrite(rec->data, 1, rec->data_len, stdout);
    putchar('\n');
}

/* Remembers how far a shard was printed. */
static bool
mark_printed(struct reading *r, uint32_t shard, uint64_t offset)
{
    for (size_t i = 0; i < r->mark_count; i++)
        if (r->mark[i].shard == shard) {
            r->mark[i].offset = offset;
            return true;
        }
    void *more = realloc(r->mark, (r->mark_count + 1) * sizeof *r->mark);
    if (!more)
        return false;
    r->mark = more;
    r->mark[r->mark_count].shard = shard;
    r->mark[r->mark_count].offset = offset;
    r->mark[r->mark_count++].done = UINT64_MAX;
    return true;
}

/* What was printed is on its way to the reader before the checkpoint says so. */
static bool
checkpoint_printed(struct reading *r, bool wait)
{
    if (fflush(stdout)) {
        complain(r->args, "cannot write to standard output");
        return false;
    }
    for (size_t i = 0; i < r->mark_count; i++) {
        struct weir_error err = {0};
        if (r->mark[i].done == r->mark[i].offset)
            continue;
        if (!wait) {
            weir_checkpoint_later(r->sub, r->mark[i].shard, r->mark[i].offset);
        } else if (weir_checkpoint(r->sub, r->mark[i].shard, r->mark[i].offset, &err)) {
            complain(r->args, "no checkpoint for shard %u: %s", r->mark[i].shard, err.text);
            return false;
        }
        r->mark[i].done = r->mark[i].offset;
    }
    r->since = 0;
    r->marked_ms = now_ms();
    return true;
}

/* False: enough. */
static bool
take_records(struct reading *r, struct weir_event *event)
{
    struct weir_event_record rec;
    while (weir_event_next(event, &rec)) {
        if (!r->count_only)
            print_record(r, &rec);
        r->records++;
        r->since++;
        r->bytes += rec.data_len;
        if (r->checkpoints && !mark_printed(r, rec.shard, rec.offset + 1))
            return false;
        if (r->count_max && r->records == r->count_max)
            return false;
    }
    if (progress_due(&r->progress)) {
        uint64_t ms = now_ms() - r->progress.started_ms + 1;
        progress_show(&r->progress, "%s records, %s, %s records/s, %s behind",
                      count_text(r->records), size_text(r->bytes),
                      count_text(r->records * 1000 / ms), duration_text(event->lag_ms));
    }
    return true;
}

static bool
take_event(struct reading *r, struct weir_event *event, enum weir_exit *exit)
{
    const struct args *a = r->args;
    switch (event->kind) {
    case WEIR_EVENT_RECORDS:
        return take_records(r, event);
    case WEIR_EVENT_GAP:
        complain(a, "shard %u: offsets %lu to %lu are gone (%s)", event->shard,
                 (unsigned long)event->first, (unsigned long)event->limit,
                 weir_status_text(event->why));
        r->gaps++;
        return true;
    case WEIR_EVENT_FENCED:
        complain(a, "shard %u: another subscriber has taken over", event->shard);
        *exit = EXIT_REFUSED;
        return false;
    case WEIR_EVENT_CONNECTION:
        if (!a->quiet)
            complain(a, event->connected ? "connected again" : "connection lost, trying again");
        return true;
    case WEIR_EVENT_SHARD_END:
    case WEIR_EVENT_PROGRESS:
        return true;
    }
    return true;
}

static enum weir_exit
read_events(struct reading *r, struct weir_client *client, const struct weir_subscribe_options *o)
{
    struct weir_error err = {0};
    if (weir_subscribe(client, o, &r->sub, &err))
        return failed(r->args, &err);
    stop_on_signals();
    progress_begin(&r->progress, r->args);
    r->marked_ms = now_ms();
    enum weir_exit exit = EXIT_DONE;
    bool more = true, idle = false;
    while (more && !stopped()) {
        struct weir_event *event = NULL;
        enum weir_status st = weir_poll(r->sub, idle ? 200 : 0, &event, &err);
        if (st == WEIR_TIMEOUT) {
            if (!idle && fflush(stdout)) /* what is there goes out before we wait */
                more = false;
            idle = true;
        } else if (st == WEIR_END) {
            more = false;
        } else if (st) {
            exit = failed(r->args, &err);
            more = false;
        } else {
            idle = false;
            more = take_event(r, event, &exit);
            weir_event_free(event);
            if (ferror(stdout))
                more = false;
        }
        if (r->checkpoints && r->since &&
            (r->since >= r->every || now_ms() - r->marked_ms >= 1000) &&
            !checkpoint_printed(r, false))
            more = false;
    }
    progress_end(&r->progress);
    if (r->checkpoints && exit == EXIT_DONE && !checkpoint_printed(r, true))
        exit = EXIT_REFUSED;
    weir_subscription_close(r->sub);
    return exit;
}

static enum weir_exit
run_reading(struct reading *r, struct weir_subscribe_options *o)
{
    struct args *a = r->args;
    const char *shard = args_text(a, "shard", NULL);
    o->stream = a->operand[0];
    if (shard) {
        o->one_shard = true;
        if (!parse_shard(shard, &o->shard))
            return bad_usage(a, "--shard '%s' is not a shard: its number or id", shard);
    }
    if ((o->from.kind == WEIR_FROM_OFFSET || o->from.kind == WEIR_FROM_SEQUENCE) && !shard)
        return bad_usage(a, "an offset or sequence number is one shard's: name it with --shard");
    if (!args_number(a, "count", UINT64_MAX, &r->count_max) || !parse_with(a, &r->with))
        return EXIT_USAGE;
    struct weir_client *client = connect_or_complain(a);
    if (!client)
        return EXIT_NO_BROKER;
    enum weir_exit exit = read_events(r, client, o);
    weir_client_close(client);
    free(r->mark);
    return exit;
}

enum weir_exit
run_tail(struct args *a)
{
    struct weir_subscribe_options o = {.until_tail = args_has(a, "until-now")};
    struct reading r = {.args = a};
    if (!args_where(a, "from", &o.from))
        return EXIT_USAGE;
    if (o.from.kind == WEIR_FROM_CHECKPOINT)
        return bad_usage(a, "tail has no checkpoints: use subscribe or replay");
    return run_reading(&r, &o);
}

enum weir_exit
run_subscribe(struct args *a)
{
    struct weir_subscribe_options o = {
        .consumer = a->operand[1],
        .take_checkpoint = true,
        .until_tail = args_has(a, "until-now"),
    };
    struct weir_from otherwise = {.kind = WEIR_FROM_OLDEST};
    struct reading r = {.args = a, .checkpoints = true, .every = 1000};
    if (!args_where(a, "from", &otherwise) || !args_number(a, "every", UINT64_MAX, &r.every))
        return EXIT_USAGE;
    if (otherwise.kind != WEIR_FROM_OLDEST && otherwise.kind != WEIR_FROM_LATEST)
        return bad_usage(a,
                         "--from is oldest or latest here; 'weir checkpoint set' moves a consumer");
    o.from = (struct weir_from){.kind = WEIR_FROM_CHECKPOINT, .otherwise = otherwise.kind};
    return run_reading(&r, &o);
}

enum weir_exit
run_replay(struct args *a)
{
    struct weir_subscribe_options o = {
        .from = {.kind = WEIR_FROM_OLDEST},
        .consumer = args_text(a, "consumer", NULL),
    };
    struct reading r = {.args = a, .count_only = args_has(a, "count-only")};
    if (!args_where(a, "from", &o.from) || !args_moment(a, "to", &o.until_ms))
        return EXIT_USAGE;
    o.until_tail = !o.until_ms || o.until_ms > now_ms();
    if (o.from.kind == WEIR_FROM_CHECKPOINT && !o.consumer)
        return bad_usage(a, "--from checkpoint wants --consumer");
    enum weir_exit exit = run_reading(&r, &o);
    if (r.count_only && exit == EXIT_DONE) {
        if (a->json) {
            struct output out;
            output_begin(&out);
            weir_json_begin_object(&out.json);
            member_u64(&out, "records", r.records);
            member_u64(&out, "bytes", r.bytes);
            member_u64(&out, "gaps", r.gaps);
            weir_json_end_object(&out.json);
            return output_emit(&out);
        }
        printf("%s records, %s\n", count_text(r.records), size_text(r.bytes));
    }
    return exit;
}
