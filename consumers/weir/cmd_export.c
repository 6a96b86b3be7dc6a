/* export: a stream's change records as flat NDJSON objects in a directory or in S3-compatible
 * storage. */
#include "base/limits.h"
#include "command.h"
#include "sink/source.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

const struct option options_export[] = {
    {"to", TEXT, "WHERE", NULL, "a directory, or s3://BUCKET[/PREFIX]"},
    {"name", TEXT, "NAME", "export-STREAM",
     "the export's name: its consumer at the broker, its state"},
    {"follow", FLAG, NULL, NULL, "go on until stopped; else stop at what is there now"},
    {"from", WHERE, "WHERE", "oldest",
     "where the export begins: oldest or latest (for a moment: 'weir checkpoint set' first)"},
    {"state", TEXT, "DIRECTORY", "in the target, for S3 ./.weir-export",
     "where boundary log and parts are kept"},
    {"size", SIZE, "SIZE", "64MiB", "close an object at this many bytes of lines"},
    {"interval", DURATION, "TIME", "60s", "or this long after its first record"},
    {"gzip", FLAG, NULL, NULL, "compress the objects"},
    {"prefix", TEXT, "PREFIX", "none", "of objects' names, before YYYY/MM/DD/HH/"},
    {"error-prefix", TEXT, "PREFIX", "errors/",
     "of objects with records that are no change records"},
    {"time-ms", FLAG, NULL, NULL, "add event_time_ms"},
    {"numbers-as-text", FLAG, NULL, NULL, "numbers of more than 15 digits become strings"},
    {"with-old", FLAG, NULL, NULL, "add the old image's attributes as old_NAME"},
    {"remove-old", FLAG, NULL, NULL, "a REMOVE shows its old image, not only its keys"},
    {"with", TEXT, "COLUMNS", "none",
     "any of seq,shard,event_id,table with commas, as _seq and so on"},
    {"endpoint", TEXT, "URL", "https://s3.amazonaws.com", "of the S3-compatible store"},
    {"region", TEXT, "NAME", "us-east-1", "of the bucket"},
    {"virtual-host", FLAG, NULL, NULL, "bucket in the host name instead of the path"},
    {"unconditional", FLAG, NULL, NULL, "the store knows no If-None-Match"},
    {"ca", TEXT, "FILE", "the system's", "certificates to trust, PEM"},
    {"progress", FLAG, NULL, NULL, "show progress also where standard error is no terminal"},
    {0},
};

struct exporting {
    struct args *args;
    struct progress progress;
    char told[256];
};

static bool
on_stop(void *arg)
{
    (void)arg;
    return stopped();
}

static void
on_progress(void *arg, const struct weir_exporter_numbers *n, uint64_t lag_ms, const char *text)
{
    struct exporting *x = arg;
    if (text && strncmp(text, x->told, sizeof x->told - 1) != 0) {
        complain(x->args, "%s", text);
        snprintf(x->told, sizeof x->told, "%s", text);
    }
    if (progress_due(&x->progress))
        progress_show(&x->progress, "%s records, %s lines in %s objects, %s wait, %s behind",
                      count_text(n->records), count_text(n->lines), count_text(n->objects),
                      size_text(n->waiting), duration_text(lag_ms));
}

static bool
parse_columns(const struct args *a, struct weir_exporter_options *o)
{
    bool *const flag[] = {&o->with_sequence, &o->with_shard, &o->flatten.event_id,
                          &o->flatten.table};
    static const char *const names[] = {"seq", "shard", "event_id", "table"};
    for (const char *text = args_text(a, "with", ""); *text;) {
        size_t len = strcspn(text, ","), i = 0;
        while (i < 4 && (strlen(names[i]) != len || memcmp(names[i], text, len) != 0))
            i++;
        if (i == 4) {
            bad_usage(a, "--with '%.*s' is no column: seq, shard, event_id, table", (int)len, text);
            return false;
        }
        *flag[i] = true;
        text += len + (text[len] == ',');
    }
    return true;
}

/* The directory that files live in, and the state's place below it. */
static enum weir_exit
open_target(struct args *a, const char *name, struct weir_exporter_options *o, struct weir_sys *sys,
            char prefix[512], char state[300])
{
    const char *to = args_text(a, "to", NULL), *given = args_text(a, "state", NULL);
    struct weir_error err = {0};
    const char *given_prefix = args_text(a, "prefix", "");
    if (strncmp(to, "s3://", 5) != 0) {
        if (given)
            return bad_usage(a, "--state goes with S3; a directory keeps its state in itself");
        snprintf(state, 300, ".weir-export/%s", name);
        snprintf(prefix, 512, "%s", given_prefix);
        if (weir_fs_posix(to, &sys->fs, &err))
            return failed(a, &err);
        if (weir_destination_directory(sys->fs, &o->destination))
            return complain(a, "out of memory"), EXIT_REFUSED;
        return EXIT_DONE;
    }
    char bucket[72];
    const char *slash = strchr(to + 5, '/');
    size_t len = slash ? (size_t)(slash - to - 5) : strlen(to + 5);
    snprintf(bucket, sizeof bucket, "%.*s", (int)(len < 70 ? len : 70), to + 5);
    snprintf(prefix, 512, "%s%s%s", slash ? slash + 1 : "",
             slash && slash[1] && to[strlen(to) - 1] != '/' ? "/" : "", given_prefix);
    snprintf(state, 300, "%s", name);
    if (weir_fs_posix(given ? given : ".weir-export", &sys->fs, &err))
        return failed(a, &err);
    struct weir_s3_options s3 = {
        .endpoint = args_text(a, "endpoint", NULL),
        .bucket = bucket,
        .region = args_text(a, "region", getenv("AWS_REGION")),
        .ca_file = args_text(a, "ca", NULL),
        .virtual_host = args_has(a, "virtual-host"),
        .no_conditional = args_has(a, "unconditional"),
    };
    if (weir_destination_s3(&s3, &o->destination, &err)) {
        complain(a, "%s", err.text);
        return EXIT_USAGE;
    }
    return EXIT_DONE;
}

static void
report(struct args *a, const struct weir_exporter_numbers *n, uint64_t ms)
{
    if (a->json) {
        struct output o;
        output_begin(&o);
        weir_json_begin_object(&o.json);
        member_u64(&o, "records", n->records);
        member_u64(&o, "lines", n->lines);
        member_u64(&o, "errors", n->errors);
        member_u64(&o, "objects", n->objects);
        member_u64(&o, "error_objects", n->error_objects);
        member_u64(&o, "bytes_in", n->bytes_in);
        member_u64(&o, "bytes_out", n->bytes_out);
        member_u64(&o, "gaps", n->gaps);
        member_u64(&o, "resumed", n->resumed);
        member_u64(&o, "took_ms", ms);
        weir_json_end_object(&o.json);
        (void)output_emit(&o);
    } else if (!a->quiet) {
        fprintf(stderr, "%s lines in %s objects, %s", count_text(n->lines), count_text(n->objects),
                size_text(n->bytes_out));
        if (n->errors)
            fprintf(stderr, "; %s records are no change records: see the error objects",
                    count_text(n->errors));
        fputc('\n', stderr);
    }
}

static void
count_shard(void *arg, uint32_t shard, uint64_t offset, bool ended)
{
    (void)shard;
    (void)offset;
    (void)ended;
    ++*(unsigned *)arg;
}

static void
count_set(void *arg, const struct weir_checkpoint_info *c)
{
    *(unsigned *)arg += c->set;
}

/* A target that knows nothing of this export, and a broker that does: it goes on at the
 * checkpoints, which somebody who names a new target may not expect. */
static void
say_where_it_begins(struct args *a, const struct weir_export_run *run)
{
    unsigned known = 0, set = 0;
    weir_exporter_each(run->exporter, count_shard, &known);
    if (known || a->quiet ||
        weir_get_checkpoints(run->client, run->stream, run->consumer, count_set, &set, NULL) ||
        !set)
        return;
    complain(
        a,
        "the target has no state of export '%s', the broker has its checkpoints: going on there "
        "('weir checkpoint reset %s %s' or another --name begins anew)",
        run->consumer, run->stream, run->consumer);
}

static enum weir_exit
export_to(struct args *a, struct weir_client *client, struct weir_exporter_options *o,
          const char *name, const struct weir_from *from)
{
    struct weir_error err = {0};
    struct weir_stream_description *d;
    struct exporting x = {.args = a};
    if (weir_describe_stream(client, o->stream, &d, &err))
        return failed(a, &err);
    o->stream_created_ms = d->created_ms;
    weir_stream_description_free(d);
    uint64_t started = now_ms();
    struct weir_export_run run = {
        .client = client,
        .stream = o->stream,
        .consumer = name,
        .from = *from,
        .follow = args_has(a, "follow"),
        .with_sequence = true,
        .stop = on_stop,
        .progress = on_progress,
        .arg = &x,
    };
    progress_begin(&x.progress, a);
    enum weir_status st = weir_export_open(&run, o, &err);
    if (!st) {
        say_where_it_begins(a, &run);
        st = weir_export_run(&run, &err);
    }
    progress_end(&x.progress);
    if (!run.exporter)
        return failed(a, &err);
    struct weir_exporter_numbers n;
    weir_exporter_get_numbers(run.exporter, &n);
    weir_exporter_close(run.exporter);
    report(a, &n, now_ms() - started);
    if (st) {
        err.status = st;
        return failed(a, &err);
    }
    return EXIT_DONE;
}

enum weir_exit
run_export(struct args *a)
{
    char name[WEIR_STREAM_NAME_MAX + 16], prefix[512], state[300];
    struct weir_from from = {.kind = WEIR_FROM_OLDEST};
    struct weir_sys sys = {.clock = weir_clock_system(), .threads = true};
    struct weir_exporter_options o = {
        .sys = &sys,
        .state = state,
        .stream = a->operand[0],
        .prefix = prefix,
        .error_prefix = args_text(a, "error-prefix", NULL),
        .size_bytes = 64 * WEIR_MIB,
        .interval_ms = 60000,
        .gzip = args_has(a, "gzip"),
        .flatten = {.event_time_ms = args_has(a, "time-ms"),
                    .numbers_as_text = args_has(a, "numbers-as-text"),
                    .with_old = args_has(a, "with-old"),
                    .remove_old_image = args_has(a, "remove-old")},
    };
    snprintf(name, sizeof name, "export-%.128s", a->operand[0]);
    const char *given = args_text(a, "name", NULL);
    if (given)
        snprintf(name, sizeof name, "%.128s", given);
    if (!args_has(a, "to"))
        return bad_usage(a, "--to is missing: a directory, or s3://BUCKET[/PREFIX]");
    if (!args_where(a, "from", &from) || !args_size(a, "size", &o.size_bytes) ||
        !args_duration(a, "interval", &o.interval_ms) || !parse_columns(a, &o))
        return EXIT_USAGE;
    if (from.kind != WEIR_FROM_OLDEST && from.kind != WEIR_FROM_LATEST)
        return bad_usage(a, "--from is oldest or latest; 'weir checkpoint set' names a moment");
    if (o.size_bytes < 64 * WEIR_KIB || o.size_bytes > WEIR_GIB)
        return bad_usage(a, "--size is from 64KiB to 1GiB");
    if (o.interval_ms < 100)
        return bad_usage(a, "--interval is at least 100ms");

    struct rlimit files;
    if (!getrlimit(RLIMIT_NOFILE, &files)) {
        files.rlim_cur = files.rlim_max; /* a part for each shard */
        (void)!setrlimit(RLIMIT_NOFILE, &files);
    }
    enum weir_exit exit = open_target(a, name, &o, &sys, prefix, state);
    if (exit == EXIT_DONE) {
        stop_on_signals();
        struct weir_client *client = connect_or_complain(a);
        exit = client ? export_to(a, client, &o, name, &from) : EXIT_NO_BROKER;
        weir_client_close(client);
    }
    weir_destination_close(o.destination);
    if (sys.fs)
        weir_fs_posix_free(sys.fs);
    return exit;
}
