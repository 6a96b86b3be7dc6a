/* The exporter's promise: each change in exactly one line of exactly one object, whatever stops it
 * at whatever moment. The disk is in memory and tells the truth about what a power cut leaves. */
#include "demo/orders.h"
#include "sink/exporter.h"
#include "sys/memfs.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#define SHARDS 3
#define RECORDS 60 /* over all shards */
#define POISON 17  /* every so many is no change record */

struct history {
    struct weir_text data[RECORDS], line[RECORDS]; /* line: what it must become; poison has none */
    uint32_t shard[RECORDS];
    uint64_t offset[RECORDS];
};

static void
make_history(struct history *h)
{
    struct weir_orders *orders;
    struct weir_order_change change;
    uint64_t next[SHARDS] = {0};
    cr_assert_eq(weir_orders_new(7, 40, &orders), WEIR_OK);
    for (int i = 0; i < RECORDS; i++) {
        h->shard[i] = (uint32_t)(i * 7 % SHARDS);
        h->offset[i] = next[h->shard[i]]++;
        cr_assert_eq(weir_orders_next(orders, &change), WEIR_OK);
        if (i % POISON == POISON - 1) {
            weir_text_puts(&h->data[i], "not a change");
            continue;
        }
        weir_text_append(&h->data[i], change.json);
        cr_assert_eq(
            weir_flatten_append(change.json, &(struct weir_flatten_options){0}, &h->line[i], NULL),
            WEIR_OK);
    }
    weir_orders_free(orders);
}

static void
free_history(struct history *h)
{
    for (int i = 0; i < RECORDS; i++) {
        weir_text_fini(&h->data[i]);
        weir_text_fini(&h->line[i]);
    }
}

struct world {
    struct weir_memfs *disk;
    struct weir_clock_manual clock;
    struct weir_sys sys;
};

static void
world_init(struct world *w)
{
    *w = (struct world){.disk = weir_memfs_new()};
    weir_clock_manual_init(&w->clock, 1700000000000);
    w->sys = (struct weir_sys){.fs = weir_memfs_fs(w->disk), .clock = &w->clock.clock};
}

/* Exports what is missing, closing an object every `every` records; stops at the first failure, as
 * a process does that is killed there. */
static enum weir_status
export_all(struct world *w, const struct history *h, int every, bool gzip, struct weir_error *err)
{
    struct weir_destination *destination = NULL;
    struct weir_exporter *e = NULL;
    enum weir_status st = weir_destination_directory(w->sys.fs, &destination);
    if (st)
        return st;
    struct weir_exporter_options o = {
        .sys = &w->sys,
        .state = ".weir-export/x",
        .stream = "orders",
        .stream_created_ms = 5,
        .destination = destination,
        .size_bytes = 65536,
        .interval_ms = 60000,
        .gzip = gzip,
    };
    st = weir_exporter_open(&o, &e, err);
    for (int i = 0; !st && i < RECORDS; i++) {
        struct weir_export_record r = {
            .shard = h->shard[i],
            .offset = h->offset[i],
            .at_ms = 1700000000000 + (uint64_t)i,
            .sequence = "",
            .key = weir_bytes_of("k"),
            .data = weir_bytes(h->data[i].data, h->data[i].len),
        };
        st = weir_exporter_put(e, &r, err);
        if (!st && i % every == every - 1)
            st = weir_exporter_flush(e, true, NULL, NULL, err);
    }
    if (!st)
        st = weir_exporter_flush(e, true, NULL, NULL, err);
    weir_exporter_close(e);
    weir_destination_close(destination);
    return st;
}

/* ---- looking at what is there ---- */

struct found {
    struct world *world;
    char path[512];
    struct weir_text lines[SHARDS], errors;
    unsigned objects;
    struct {
        char path[512];
        bool directory;
    } entry[256];
    size_t entry_count;
};

static void
note_entry(void *arg, const struct weir_fs_entry *entry)
{
    struct found *f = arg;
    cr_assert_lt(f->entry_count, 256);
    snprintf(f->entry[f->entry_count].path, 512, "%.200s%s%s", f->path, f->path[0] ? "/" : "",
             entry->name);
    f->entry[f->entry_count++].directory = entry->is_directory;
}

static int
by_path(const void *a, const void *b)
{
    return strcmp(a, b);
}

static void
append_file(struct found *f, const char *path, struct weir_text *out)
{
    uint64_t size;
    cr_assert_eq(weir_memfs_size(f->world->disk, path, &size), WEIR_OK);
    uint8_t *bytes = malloc(size + 1);
    cr_assert_eq(weir_memfs_copy(f->world->disk, path, bytes, size, 0), WEIR_OK);
    weir_text_append(out, weir_bytes(bytes, size));
    free(bytes);
}

static void
look_into(struct found *f, const char *directory)
{
    size_t from = f->entry_count;
    snprintf(f->path, sizeof f->path, "%s", directory);
    cr_assert_eq(weir_fs_list(f->world->sys.fs, directory, note_entry, f), WEIR_OK);
    size_t limit = f->entry_count;
    qsort(&f->entry[from], limit - from, sizeof f->entry[0], by_path);
    for (size_t i = from; i < limit; i++) {
        const char *path = f->entry[i].path, *shard = strstr(path, "shardId-");
        if (strncmp(path, ".weir-export", 12) == 0)
            continue;
        if (f->entry[i].directory) {
            look_into(f, path);
        } else if (strncmp(path, "errors/", 7) == 0) {
            append_file(f, path, &f->errors);
        } else {
            cr_assert_not_null(shard, "%s", path);
            unsigned long index = strtoul(shard + 8, NULL, 10);
            cr_assert_lt(index, SHARDS);
            append_file(f, path, &f->lines[index]);
            f->objects++;
        }
    }
}

static void
expect_exactly_once(struct world *w, const struct history *h, const char *when)
{
    static struct found f;
    f = (struct found){.world = w};
    look_into(&f, "");
    struct weir_text expected[SHARDS] = {0};
    unsigned poison = 0, error_lines = 0;
    for (int i = 0; i < RECORDS; i++) {
        weir_text_append(&expected[h->shard[i]], weir_bytes(h->line[i].data, h->line[i].len));
        poison += h->line[i].len == 0;
    }
    for (size_t i = 0; i < f.errors.len; i++)
        error_lines += f.errors.data[i] == '\n';
    for (int s = 0; s < SHARDS; s++) {
        cr_expect(weir_bytes_equal(weir_bytes(expected[s].data, expected[s].len),
                                   weir_bytes(f.lines[s].data, f.lines[s].len)),
                  "%s: shard %d has %zu bytes, wanted %zu", when, s, f.lines[s].len,
                  expected[s].len);
        weir_text_fini(&expected[s]);
        weir_text_fini(&f.lines[s]);
    }
    cr_expect_eq(error_lines, poison, "%s: %u error lines, wanted %u", when, error_lines, poison);
    weir_text_fini(&f.errors);
}

/* Nothing goes wrong: each change is there once, in order, and what is no change is in an error
 * object. */
Test(exporter, writes_each_change_once)
{
    struct world w;
    struct history h = {0};
    make_history(&h);
    world_init(&w);
    cr_assert_eq(export_all(&w, &h, 7, false, NULL), WEIR_OK);
    expect_exactly_once(&w, &h, "plain");
    cr_assert_eq(export_all(&w, &h, 3, false, NULL), WEIR_OK);
    expect_exactly_once(&w, &h, "exported again");
    weir_memfs_free(w.disk);
    free_history(&h);
}

static void
crash_search(enum weir_memfs_cut keep)
{
    struct history h = {0};
    make_history(&h);
    bool over = false;
    uint64_t crashes = 0;
    for (uint64_t n = 1; !over; n++) {
        struct world w;
        char when[64];
        world_init(&w);
        weir_memfs_fail_nth(w.disk, WEIR_MEMFS_ANY, n, WEIR_IO, true);
        over = export_all(&w, &h, 11, false, NULL) == WEIR_OK;
        weir_memfs_power_cut(w.disk, keep, n);
        weir_memfs_fail_clear(w.disk);
        snprintf(when, sizeof when, "cut at call %lu", (unsigned long)n);
        struct weir_error err = {0};
        cr_assert_eq(export_all(&w, &h, 5, false, &err), WEIR_OK, "%s: %s", when, err.text);
        expect_exactly_once(&w, &h, when);
        weir_memfs_free(w.disk);
        crashes++;
    }
    cr_expect_gt(crashes, 100);
    free_history(&h);
}

/* The power goes at any file call, and the disk keeps only what was synced; the next run decides
 * other boundaries, and still no line is missing or there twice. */
Test(exporter, survives_a_power_cut_at_every_call, .timeout = 100)
{
    crash_search(WEIR_MEMFS_KEEP_SYNCED);
}

/* The same where the disk had written everything already, also what nobody waited for. */
Test(exporter, survives_a_kill_at_every_call, .timeout = 100)
{
    crash_search(WEIR_MEMFS_KEEP_ALL);
}

/* And where it had written any part of it. */
Test(exporter, survives_a_torn_disk_at_every_call, .timeout = 100)
{
    crash_search(WEIR_MEMFS_KEEP_SOME);
}

/* A call that fails once (a full disk, a bad sector) fails the run; the next one goes on in the
 * same process, on the same disk, without a crash. */
Test(exporter, survives_one_failing_call, .timeout = 100)
{
    struct history h = {0};
    make_history(&h);
    bool over = false;
    for (uint64_t n = 1; !over; n++) {
        struct world w;
        char when[64];
        world_init(&w);
        weir_memfs_fail_nth(w.disk, WEIR_MEMFS_ANY, n, n % 2 ? WEIR_IO : WEIR_NO_SPACE, false);
        over = export_all(&w, &h, 11, false, NULL) == WEIR_OK &&
               weir_memfs_calls(w.disk, WEIR_MEMFS_ANY) < n;
        weir_memfs_fail_clear(w.disk);
        snprintf(when, sizeof when, "call %lu fails", (unsigned long)n);
        struct weir_error err = {0};
        cr_assert_eq(export_all(&w, &h, 5, false, &err), WEIR_OK, "%s: %s", when, err.text);
        expect_exactly_once(&w, &h, when);
        weir_memfs_free(w.disk);
    }
    free_history(&h);
}

/* Two exporters on one state would publish twice: the second is refused. */
Test(exporter, has_its_state_alone)
{
    struct world w;
    struct weir_destination *destination;
    struct weir_exporter *first, *second;
    world_init(&w);
    cr_assert_eq(weir_destination_directory(w.sys.fs, &destination), WEIR_OK);
    struct weir_exporter_options o = {.sys = &w.sys,
                                      .state = "s",
                                      .stream = "orders",
                                      .destination = destination,
                                      .size_bytes = 65536,
                                      .interval_ms = 1000};
    cr_assert_eq(weir_exporter_open(&o, &first, NULL), WEIR_OK);
    struct weir_error err = {0};
    cr_expect_eq(weir_exporter_open(&o, &second, &err), WEIR_BUSY);
    cr_expect_not_null(strstr(err.text, "another exporter"), "%s", err.text);
    weir_exporter_close(first);
    weir_destination_close(destination);
    weir_memfs_free(w.disk);
}

/* A stream that was deleted and made anew starts at offset 0 again: the old state does not fit it.
 */
Test(exporter, refuses_the_state_of_another_stream)
{
    struct world w;
    struct weir_destination *destination;
    struct weir_exporter *e;
    struct weir_error err = {0};
    world_init(&w);
    cr_assert_eq(weir_destination_directory(w.sys.fs, &destination), WEIR_OK);
    struct weir_exporter_options o = {.sys = &w.sys,
                                      .state = "s",
                                      .stream = "orders",
                                      .stream_created_ms = 1,
                                      .destination = destination,
                                      .size_bytes = 65536,
                                      .interval_ms = 1000};
    cr_assert_eq(weir_exporter_open(&o, &e, NULL), WEIR_OK);
    weir_exporter_close(e);
    o.stream_created_ms = 2;
    cr_expect_eq(weir_exporter_open(&o, &e, &err), WEIR_INVALID);
    weir_destination_close(destination);
    weir_memfs_free(w.disk);
}

/* A boundary log with a flipped bit in the middle is not believed, and not silently cut there. */
Test(exporter, reports_a_damaged_boundary_log)
{
    struct world w;
    struct history h = {0};
    make_history(&h);
    world_init(&w);
    cr_assert_eq(export_all(&w, &h, 7, false, NULL), WEIR_OK);
    cr_assert_eq(weir_memfs_flip(w.disk, ".weir-export/x/boundaries", 30, 1), WEIR_OK);
    cr_expect_eq(export_all(&w, &h, 7, false, NULL), WEIR_DAMAGED);
    weir_memfs_free(w.disk);
    free_history(&h);
}

/* Offsets that were gone before they were read are logged and counted; reading goes on behind them.
 */
Test(exporter, steps_over_gaps)
{
    struct world w;
    struct history h = {0};
    struct weir_destination *destination;
    struct weir_exporter *e;
    make_history(&h);
    world_init(&w);
    cr_assert_eq(weir_destination_directory(w.sys.fs, &destination), WEIR_OK);
    struct weir_exporter_options o = {.sys = &w.sys,
                                      .state = "s",
                                      .stream = "orders",
                                      .destination = destination,
                                      .size_bytes = 65536,
                                      .interval_ms = 1000};
    cr_assert_eq(weir_exporter_open(&o, &e, NULL), WEIR_OK);
    struct weir_export_record r = {.shard = 0,
                                   .offset = 10,
                                   .sequence = "",
                                   .key = weir_bytes_of("k"),
                                   .data = weir_bytes(h.data[0].data, h.data[0].len)};
    cr_assert_eq(weir_exporter_put(e, &r, NULL), WEIR_OK);
    r.offset = 12;
    cr_expect_eq(weir_exporter_put(e, &r, NULL), WEIR_INVALID);
    cr_assert_eq(weir_exporter_gap(e, 0, 11, 20, NULL), WEIR_OK);
    r.offset = 20;
    cr_expect_eq(weir_exporter_put(e, &r, NULL), WEIR_OK);
    struct weir_exporter_numbers n;
    weir_exporter_get_numbers(e, &n);
    cr_expect_eq(n.gaps, 1);
    cr_expect_eq(n.gap_records, 9);
    uint64_t position;
    cr_expect_eq(weir_exporter_position(e, 0, &position), WEIR_OK);
    cr_expect_eq(position, 21);
    weir_exporter_close(e);
    cr_assert_eq(weir_exporter_open(&o, &e, NULL), WEIR_OK);
    cr_expect_eq(weir_exporter_position(e, 0, &position), WEIR_OK);
    cr_expect_eq(position, 20, "what was not published is read again");
    weir_exporter_close(e);
    weir_destination_close(destination);
    weir_memfs_free(w.disk);
    free_history(&h);
}
