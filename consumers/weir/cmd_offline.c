/* verify and inspect look at files without a broker; flatten and orders are filters. */
#include "change/flatten.h"
#include "command.h"
#include "demo/orders.h"
#include "fsck/fsck.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

const struct option options_verify[] = {
    {"even-if-running", FLAG, NULL, NULL,
     "read although a broker has the directory: what it writes meanwhile may look torn"},
    {"progress", FLAG, NULL, NULL, "show progress also where standard error is no terminal"},
    {0},
};
const struct option options_inspect[] = {
    {"records", FLAG, NULL, NULL, "also the records: keys, sizes, first bytes"},
    {"footer", FLAG, NULL, NULL, "also the footer"},
    {"shard", NUMBER, "NUMBER", "all", "only batches of the shard with this number"},
    {"from", NUMBER, "BYTE", "0", "start at the first group at or after this position"},
    {"groups", NUMBER, "N", "all", "stop after so many groups"},
    {0},
};
const struct option options_flatten[] = {
    {"time-ms", FLAG, NULL, NULL, "add event_time_ms"},
    {"numbers-as-text", FLAG, NULL, NULL, "numbers of more than 15 digits become strings"},
    {"with-old", FLAG, NULL, NULL, "add the old image's attributes as old_NAME"},
    {"remove-old", FLAG, NULL, NULL, "a REMOVE shows its old image, not only its keys"},
    {"event-id", FLAG, NULL, NULL, "add _event_id"},
    {"table", FLAG, NULL, NULL, "add _table"},
    {"skip-bad", FLAG, NULL, NULL, "report lines that are no change records and go on"},
    {0},
};
const struct option options_orders[] = {
    {"count", NUMBER, "N", "3000", "orders; each has about five changes"},
    {"seed", NUMBER, "N", "1", "the same seed gives the same history"},
    {0},
};

/* Opening a data directory would make it. */
static bool
is_there(const struct args *a, const char *path)
{
    if (access(path, R_OK) == 0)
        return true;
    complain(a, "cannot open '%s': %s", path, strerror(errno));
    return false;
}

/* ---- verify ---- */

struct verifying {
    struct args *args;
    struct progress progress;
};

static void
on_finding(void *arg, const struct weir_fsck_finding *f)
{
    struct verifying *v = arg;
    if (v->args->json) {
        struct output o;
        output_begin(&o);
        weir_json_begin_object(&o.json);
        member_text(&o, "severity", f->severity == WEIR_FSCK_DAMAGE ? "damage" : "note");
        member_text(&o, "file", f->file);
        member_u64(&o, "position", f->position);
        member_u64(&o, "bytes", f->bytes);
        if (f->has_shard) {
            member_u64(&o, "stream", f->stream);
            member_u64(&o, "shard", f->shard);
            member_u64(&o, "first", f->first);
            member_u64(&o, "limit", f->limit);
        }
        member_text(&o, "reason", f->reason);
        weir_json_end_object(&o.json);
        (void)output_emit(&o);
        return;
    }
    printf("%s %s at byte %lu: %s", f->severity == WEIR_FSCK_DAMAGE ? "DAMAGE" : "note", f->file,
           (unsigned long)f->position, f->reason);
    if (f->has_shard)
        printf(" (shard %lu, offsets %lu to %lu)", (unsigned long)f->shard, (unsigned long)f->first,
               (unsigned long)f->limit);
    putchar('\n');
}

static void
on_progress(void *arg, const char *file, uint64_t done, uint64_t total)
{
    struct verifying *v = arg;
    if (progress_due(&v->progress))
        progress_show(&v->progress, "%s of %s, %s", size_text(done), size_text(total), file);
}

static void
verify_totals(const struct args *a, const struct weir_fsck_totals *t)
{
    if (a->json) {
        struct output o;
        output_begin(&o);
        weir_json_begin_object(&o.json);
        member_u64(&o, "journals", t->journals);
        member_u64(&o, "segments", t->segments);
        member_u64(&o, "shards", t->shards);
        member_u64(&o, "groups", t->groups);
        member_u64(&o, "batches", t->batches);
        member_u64(&o, "records", t->records);
        member_u64(&o, "bytes", t->bytes);
        member_u64(&o, "torn_bytes", t->torn_bytes);
        member_u64(&o, "notes", t->notes);
        member_u64(&o, "damaged", t->damaged);
        weir_json_end_object(&o.json);
        (void)output_emit(&o);
        return;
    }
    printf("%s records in %s batches of %s shards; %s in %lu segments of %lu journals\n",
           count_text(t->records), count_text(t->batches), count_text(t->shards),
           size_text(t->bytes), (unsigned long)t->segments, (unsigned long)t->journals);
    if (t->damaged)
        printf("%lu places are DAMAGED\n", (unsigned long)t->damaged);
    else
        printf("every checksum and chain holds\n");
}

enum weir_exit
run_verify(struct args *a)
{
    struct weir_fs *fs;
    struct weir_error err = {0};
    struct verifying v = {.args = a};
    struct weir_fsck_options options = {.even_if_locked = args_has(a, "even-if-running")};
    struct weir_fsck_callbacks callbacks = {on_finding, on_progress, &v};
    struct weir_fsck_totals totals = {0};
    int64_t pid = 0;
    if (!is_there(a, a->operand[0]))
        return EXIT_REFUSED;
    if (weir_fs_posix(a->operand[0], &fs, &err))
        return failed(a, &err);
    progress_begin(&v.progress, a);
    enum weir_status st = weir_fsck_verify(fs, &options, &callbacks, &totals, &pid, &err);
    progress_end(&v.progress);
    weir_fs_posix_free(fs);
    if (st == WEIR_BUSY) {
        complain(a, "a broker (process %ld) has '%s': stop it, or use --even-if-running", (long)pid,
                 a->operand[0]);
        return EXIT_REFUSED;
    }
    if (st && st != WEIR_DAMAGED) {
        err.status = st;
        return failed(a, &err);
    }
    verify_totals(a, &totals);
    return st ? EXIT_DIFFERENT : EXIT_DONE;
}

/* ---- inspect ---- */

static enum weir_status
print_piece(void *arg, struct weir_bytes text)
{
    (void)arg;
    return fwrite(text.data, 1, text.len, stdout) == text.len ? WEIR_OK : WEIR_IO;
}

enum weir_exit
run_inspect(struct args *a)
{
    struct weir_fsck_inspect_options o = {
        .json = a->json,
        .records = args_has(a, "records"),
        .footer = args_has(a, "footer"),
        .has_shard = args_has(a, "shard"),
    };
    if (!args_number(a, "shard", UINT64_MAX, &o.shard) ||
        !args_number(a, "from", UINT64_MAX, &o.position) ||
        !args_number(a, "groups", UINT64_MAX, &o.groups_max))
        return EXIT_USAGE;
    char directory[4096];
    const char *slash = strrchr(a->operand[0], '/');
    int len = slash ? (int)(slash - a->operand[0]) : 0;
    snprintf(directory, sizeof directory, "%.*s", slash ? (len ? len : 1) : 1,
             slash ? a->operand[0] : ".");
    struct weir_fs *fs;
    struct weir_error err = {0};
    if (!is_there(a, a->operand[0]))
        return EXIT_REFUSED;
    if (weir_fs_posix(directory, &fs, &err))
        return failed(a, &err);
    enum weir_status st =
        weir_fsck_inspect(fs, slash ? slash + 1 : a->operand[0], &o, print_piece, NULL, &err);
    weir_fs_posix_free(fs);
    if (st) {
        err.status = st;
        return failed(a, &err);
    }
    return EXIT_DONE;
}

/* ---- filters ---- */

enum weir_exit
run_flatten(struct args *a)
{
    struct weir_flatten_options o = {
        .event_time_ms = args_has(a, "time-ms"),
        .numbers_as_text = args_has(a, "numbers-as-text"),
        .with_old = args_has(a, "with-old"),
        .remove_old_image = args_has(a, "remove-old"),
        .event_id = args_has(a, "event-id"),
        .table = args_has(a, "table"),
    };
    char *line = NULL;
    size_t capacity = 0;
    ssize_t len;
    uint64_t number = 0;
    struct weir_text out = {0};
    enum weir_exit exit = EXIT_DONE;
    while ((len = getline(&line, &capacity, stdin)) >= 0) {
        struct weir_error err = {0};
        number++;
        if (len && line[len - 1] == '\n')
            len--;
        if (!len)
            continue;
        weir_text_clear(&out);
        if (weir_flatten_append(weir_bytes(line, (size_t)len), &o, &out, &err)) {
            complain(a, "line %lu: %s", (unsigned long)number, err.text);
            exit = EXIT_REFUSED;
            if (!args_has(a, "skip-bad"))
                break;
        } else if (fwrite(out.data, 1, out.len, stdout) != out.len) {
            complain(a, "cannot write to standard output");
            exit = EXIT_REFUSED;
            break;
        }
    }
    weir_text_fini(&out);
    free(line);
    return exit;
}

enum weir_exit
run_orders(struct args *a)
{
    uint64_t count = 3000, seed = 1;
    struct weir_orders *orders;
    struct weir_order_change change;
    if (!args_number(a, "count", 10000000, &count) || !args_number(a, "seed", UINT64_MAX, &seed))
        return EXIT_USAGE;
    if (weir_orders_new(seed, (uint32_t)count, &orders)) {
        complain(a, "out of memory");
        return EXIT_REFUSED;
    }
    while (!weir_orders_next(orders, &change) && !ferror(stdout)) {
        fwrite(change.json.data, 1, change.json.len, stdout);
        putchar('\n');
    }
    weir_orders_free(orders);
    return ferror(stdout) ? EXIT_REFUSED : EXIT_DONE;
}
