/* put: one record, or a record a line, and the wait until all are durable.
 *
 * Lines go straight from getline into the producer, which blocks when its memory is full, so input
 * of any length takes bounded memory. The first record that fails for good stops the reading. */
#include "base/limits.h"
#include "command.h"
#include "key.h"
#include "record/sequence.h"
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

const struct option options_put[] = {
    {"key", TEXT, "KEY", NULL, "partition key of every record"},
    {"key-field", TEXT, "PATH", "dynamodb.Keys",
     "with --ndjson: where the key stands in each line"},
    {"data", TEXT, "TEXT", NULL, "one record with this data"},
    {"file", TEXT, "FILE", "standard input", "what to read"},
    {"lines", FLAG, NULL, NULL, "each line is a record"},
    {"ndjson", FLAG, NULL, NULL, "each line is a record and must be JSON"},
    {"skip-bad", FLAG, NULL, NULL, "with --ndjson: report lines without a key and go on"},
    {"batch", SIZE, "SIZE", "256KiB", "records are sent in batches of about this size"},
    {"linger", DURATION, "TIME", "5ms", "a batch waits this long for more"},
    {"rate", NUMBER, "N", "no limit", "records a second, at most"},
    {"uncompressed", FLAG, NULL, NULL, "no LZ4"},
    {"retry", DURATION, "TIME", "120s", "how long a record is tried again"},
    {"progress", FLAG, NULL, NULL, "show progress also where standard error is no terminal"},
    {0},
};

struct putting {
    struct args *args;
    struct weir_producer *producer;
    struct weir_text key;
    struct progress progress;
    uint64_t records, bytes, bad, line, rate;
    /* shared: written by the library's thread */
    _Atomic uint64_t acked;
    _Atomic uint32_t failed;
    atomic_flag told;
    uint32_t shard;
    uint64_t offset, at_ms;
};

static void
on_ack(void *arg, const struct weir_ack *ack)
{
    struct putting *p = arg;
    if (!ack->status || ack->status == WEIR_DUPLICATE) {
        p->shard = ack->shard;
        p->offset = ack->offset;
        p->at_ms = ack->at_ms;
        atomic_fetch_add(&p->acked, 1);
        return;
    }
    atomic_fetch_add(&p->failed, 1);
    if (!atomic_flag_test_and_set(&p->told))
        complain(p->args, "record %lu is not stored: %s", (unsigned long)(uintptr_t)ack->tag,
                 ack->text ? ack->text : weir_status_text(ack->status));
}

static void
keep_rate(struct putting *p)
{
    if (!p->rate || p->records % 64)
        return;
    uint64_t due = p->progress.started_ms + p->records * 1000 / p->rate, now = now_ms();
    if (due > now) {
        struct timespec pause = {(time_t)((due - now) / 1000),
                                 (long)((due - now) % 1000) * 1000000};
        nanosleep(&pause, NULL);
    }
}

static enum weir_status
put_one(struct putting *p, struct weir_bytes key, struct weir_bytes data)
{
    keep_rate(p);
    enum weir_status st = weir_put(p->producer, key.data, key.len, data.data, data.len,
                                   (void *)(uintptr_t)(p->records + 1), -1);
    if (st) {
        complain(p->args, "record %lu: %s", (unsigned long)(p->records + 1), weir_status_text(st));
        return st;
    }
    p->records++;
    p->bytes += data.len;
    if (progress_due(&p->progress)) {
        uint64_t ms = now_ms() - p->progress.started_ms + 1;
        progress_show(&p->progress, "%s records put, %s durable, %s, %s records/s",
                      count_text(p->records), count_text(atomic_load(&p->acked)),
                      size_text(p->bytes), count_text(p->records * 1000 / ms));
    }
    return WEIR_OK;
}

static enum weir_status
put_lines(struct putting *p, FILE *in)
{
    const char *fixed = args_text(p->args, "key", NULL);
    const char *path = args_text(p->args, "key-field", NULL);
    bool ndjson = args_has(p->args, "ndjson") || path, skip = args_has(p->args, "skip-bad");
    char *line = NULL;
    size_t capacity = 0;
    ssize_t len;
    enum weir_status st = WEIR_OK;
    while (!st && !stopped() && !atomic_load(&p->failed) &&
           (len = getline(&line, &capacity, in)) >= 0) {
        p->line++;
        if (len && line[len - 1] == '\n')
            len--;
        if (len && ndjson && line[len - 1] == '\r')
            len--;
        if (!len && ndjson)
            continue;
        struct weir_bytes data = weir_bytes(line, (size_t)len);
        struct weir_bytes key = fixed ? weir_bytes_of(fixed) : weir_bytes(NULL, 0);
        if (!fixed) {
            struct weir_error err = {0};
            st = path ? key_from_path(data, path, &p->key, &err)
                      : key_from_change(data, &p->key, &err);
            if (st) {
                complain(p->args, "line %lu: %s", (unsigned long)p->line, err.text);
                p->bad++;
                if (skip)
                    st = WEIR_OK;
                continue;
            }
            key = weir_bytes(p->key.data, p->key.len);
        }
        st = put_one(p, key, data);
    }
    if (!st && ferror(in)) {
        complain(p->args, "cannot read: %s", strerror(errno));
        st = WEIR_IO;
    }
    free(line);
    return st;
}

static enum weir_status
put_whole(struct putting *p, FILE *in)
{
    const char *key = args_text(p->args, "key", NULL), *text = args_text(p->args, "data", NULL);
    struct weir_text all = {0};
    if (text)
        weir_text_puts(&all, text);
    char piece[65536];
    size_t n;
    while (!text && (n = fread(piece, 1, sizeof piece, in)) > 0 && all.len <= WEIR_RECORD_BYTES_MAX)
        weir_text_append(&all, weir_bytes(piece, n));
    enum weir_status st = put_one(p, weir_bytes_of(key), weir_bytes(all.data, all.len));
    weir_text_fini(&all);
    return st;
}

static void
report(struct putting *p)
{
    uint64_t ms = now_ms() - p->progress.started_ms, acked = atomic_load(&p->acked);
    if (p->args->json) {
        struct output o;
        output_begin(&o);
        weir_json_begin_object(&o.json);
        member_u64(&o, "records", acked);
        member_u64(&o, "failed", atomic_load(&p->failed));
        member_u64(&o, "bad_lines", p->bad);
        member_u64(&o, "bytes", p->bytes);
        member_u64(&o, "took_ms", ms);
        if (acked) {
            member_u64(&o, "last_shard", p->shard);
            member_u64(&o, "last_offset", p->offset);
            member_moment(&o, "last_at", p->at_ms);
        }
        weir_json_end_object(&o.json);
        (void)output_emit(&o);
    } else if (acked == 1 && p->records == 1) {
        char id[WEIR_SHARD_ID_LEN + 1];
        weir_shard_id_format(p->shard, id);
        printf("%s offset %lu at %s\n", id, (unsigned long)p->offset, moment_text(p->at_ms));
    } else if (!p->args->quiet) {
        fprintf(stderr, "%s records durable, %s in %s (%s records/s)\n", count_text(acked),
                size_text(p->bytes), duration_text(ms), count_text(acked * 1000 / (ms ? ms : 1)));
    }
}

enum weir_exit
run_put(struct args *a)
{
    struct weir_producer_options o = {.stream = a->operand[0], .on_ack = on_ack};
    struct putting p = {.args = a, .told = ATOMIC_FLAG_INIT};
    uint64_t linger_ms = 5;
    o.arg = &p;
    o.uncompressed = args_has(a, "uncompressed");
    if (!args_size(a, "batch", &o.batch_bytes) || !args_duration(a, "linger", &linger_ms) ||
        !args_duration(a, "retry", &o.retry_ms) || !args_number(a, "rate", 100000000, &p.rate))
        return EXIT_USAGE;
    o.linger_ms = linger_ms ? (int64_t)linger_ms : -1;
    bool by_line = args_has(a, "lines") || args_has(a, "ndjson");
    if (!args_has(a, "key") && !args_has(a, "ndjson"))
        return bad_usage(a, "--key is missing (with --ndjson it is taken from each line)");
    if (args_has(a, "data") && (by_line || args_has(a, "file")))
        return bad_usage(a,
                         "--data is one record: it does not go with --lines, --ndjson or --file");

    const char *path = args_text(a, "file", NULL);
    FILE *in = path && strcmp(path, "-") != 0 ? fopen(path, "r") : stdin;
    if (!in) {
        complain(a, "cannot open '%s': %s", path, strerror(errno));
        return EXIT_REFUSED;
    }
    struct weir_client *client = connect_or_complain(a);
    enum weir_exit st = EXIT_NO_BROKER;
    if (!client)
        goto done;
    struct weir_error err = {0};
    if (weir_producer_open(client, &o, &p.producer, &err)) {
        st = failed(a, &err);
        goto done;
    }
    stop_on_signals();
    progress_begin(&p.progress, a);
    enum weir_status put = by_line ? put_lines(&p, in) : put_whole(&p, in);
    enum weir_status flushed = weir_producer_flush(p.producer, -1, &err);
    progress_end(&p.progress);
    if (flushed && !atomic_load(&p.failed))
        complain(a, "%s", err.text[0] ? err.text : weir_status_text(flushed));
    report(&p);
    st = put || flushed || p.bad || atomic_load(&p.failed) ? EXIT_REFUSED : EXIT_DONE;
done:
    weir_producer_close(p.producer);
    weir_client_close(client);
    weir_text_fini(&p.key);
    if (in && in != stdin)
        fclose(in);
    return st;
}
