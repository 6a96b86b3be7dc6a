#include "rig.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

void
rig_ok(enum weir_status st, const char *what, int line)
{
    cr_assert(st == WEIR_OK, "line %d: %s: %s", line, what, weir_status_text(st));
}

void
rig_is(enum weir_status st, enum weir_status expected, const char *what, int line)
{
    cr_assert(st == expected, "line %d: %s: %s instead of %s", line, what, weir_status_name(st),
              weir_status_name(expected));
}

static void
on_durable(struct weir_log_observer *o, const struct weir_batch_info *info, struct weir_slice slice)
{
    struct rig *r = WEIR_CONTAINER(o, struct rig, observer);
    cr_assert(info->size == slice.len);
    r->durable++;
}

static void
on_gap(struct weir_log_observer *o, uint64_t shard, uint64_t first, uint64_t limit,
       enum weir_status why)
{
    struct rig *r = WEIR_CONTAINER(o, struct rig, observer);
    r->gaps++;
    r->last_gap = (struct rig_gap){shard, first, limit, why};
}

static void
on_health(struct weir_log_observer *o, enum weir_status st, const char *text)
{
    struct rig *r = WEIR_CONTAINER(o, struct rig, observer);
    cr_assert(text && *text);
    r->healths++;
    r->health = st;
}

void
rig_init(struct rig *r)
{
    *r = (struct rig){0};
    r->disk = weir_memfs_new();
    weir_clock_manual_init(&r->clock, 1764320000000);
    r->observer = (struct weir_log_observer){on_durable, on_gap, on_health};
    r->config = (struct weir_log_config){
        .directory = "journal",
        .journal = 7,
        .segment_bytes = 1 * WEIR_MIB,
        .group_bytes_max = 256 * WEIR_KIB,
        .queue_bytes_max = 64 * WEIR_MIB,
        .producer_expiry_ms = 3600 * 1000,
    };
}

void
rig_fini(struct rig *r)
{
    rig_close(r);
    weir_memfs_free(r->disk);
}

static void
machine_stop(struct rig *r)
{
    if (!r->loop)
        return;
    weir_loop_stop(r->loop);
    weir_loop_free(r->loop);
    weir_pool_free(r->pool);
    r->loop = NULL;
    r->pool = NULL;
}

enum weir_status
rig_try_open(struct rig *r)
{
    machine_stop(r);
    OK(weir_loop_new(&r->clock.clock, "test", &r->loop));
    OK(weir_pool_new("test", 0, &r->pool));
    r->sys = (struct weir_sys){
        .fs = weir_memfs_fs(r->disk), .clock = &r->clock.clock, .pool = r->pool, .seed = 1};
    r->config.sys = &r->sys;
    r->config.loop = r->loop;
    r->config.observer = &r->observer;
    r->err = (struct weir_error){0};
    r->report = (struct weir_log_report){0};
    r->health = WEIR_OK;
    return weir_log_open(&r->config, &r->log, &r->report, &r->err);
}

void
rig_open(struct rig *r)
{
    enum weir_status st = rig_try_open(r);
    cr_assert(st == WEIR_OK, "open: %s", r->err.text);
    rig_step(r);
}

void
rig_close(struct rig *r)
{
    weir_log_close(r->log);
    r->log = NULL;
    machine_stop(r);
}

void
rig_crash(struct rig *r, enum weir_memfs_cut keep, uint64_t seed)
{
    struct weir_memfs *after = weir_memfs_fork(r->disk, keep, seed);
    rig_close(r);
    weir_memfs_free(r->disk);
    r->disk = after;
}

void
rig_step(struct rig *r)
{
    while (weir_loop_step(r->loop, 100000))
        continue;
}

void
rig_pass(struct rig *r, uint64_t ms)
{
    rig_step(r);
    while (ms) {
        uint64_t step = ms < 1000 ? ms : ms > 100000 ? ms - 5000 : 1000;
        weir_clock_manual_advance(&r->clock, step);
        ms -= step;
        rig_step(r);
    }
}

struct weir_buf *
rig_batch(uint64_t shard, uint64_t number, uint32_t count, size_t size, weir_u128 producer,
          uint64_t producer_number)
{
    struct weir_batch_builder *b;
    struct weir_buf *buf;
    char *data = malloc(size + 64);
    OK(weir_batch_builder_new(WEIR_BATCH_BODY_RAW_MAX, &b));
    for (uint32_t i = 0; i < count; i++) {
        int n = snprintf(data, size + 64, "%" PRIu64 " %" PRIu64 " %u ", shard, number, i);
        size_t len = (size_t)n > size ? (size_t)n : size;
        for (size_t k = (size_t)n; k < len; k++)
            data[k] = (char)((k * 131 + number * 31 + shard * 7 + i) >> 3);
        struct weir_record record = {.key = weir_bytes_of("key"), .data = weir_bytes(data, len)};
        OK(weir_batch_builder_add(b, &record, 0));
    }
    OK(weir_batch_builder_finish(b, WEIR_CODEC_NONE, producer, producer_number, &buf));
    weir_batch_builder_free(b);
    free(data);
    return buf;
}

static void
append_done(struct weir_append *a, enum weir_status st)
{
    struct rig_append *x = WEIR_CONTAINER(a, struct rig_append, append);
    cr_assert(!x->done, "done comes once");
    x->done = true;
    x->st = st;
}

enum weir_status
rig_send_as(struct rig *r, struct rig_append *a, uint64_t shard, uint64_t number, uint32_t count,
            size_t size, weir_u128 producer, uint64_t producer_number)
{
    *a = (struct rig_append){0};
    a->append.batch = rig_batch(shard, number, count, size, producer, producer_number);
    a->append.stream = 1;
    a->append.shard = shard;
    a->append.done = append_done;
    enum weir_status st = weir_log_append(r->log, &a->append);
    if (st)
        weir_buf_unref(a->append.batch);
    return st;
}

enum weir_status
rig_send(struct rig *r, struct rig_append *a, uint64_t shard, uint64_t number, uint32_t count,
         size_t size)
{
    return rig_send_as(r, a, shard, number, count, size, 0, 0);
}

static enum weir_status
wait(struct rig *r, struct rig_append *a, uint64_t *offset)
{
    rig_step(r);
    cr_assert(a->done, "an append was not answered");
    if (offset)
        *offset = a->append.offset;
    return a->st;
}

enum weir_status
rig_put(struct rig *r, uint64_t shard, uint64_t number, uint32_t count, size_t size,
        uint64_t *offset)
{
    struct rig_append a;
    enum weir_status st = rig_send(r, &a, shard, number, count, size);
    return st ? st : wait(r, &a, offset);
}

enum weir_status
rig_put_as(struct rig *r, uint64_t shard, uint64_t number, weir_u128 producer,
           uint64_t producer_number, uint64_t *offset)
{
    struct rig_append a;
    enum weir_status st = rig_send_as(r, &a, shard, number, 1, 10, producer, producer_number);
    if (st && offset)
        *offset = a.append.offset;
    return st ? st : wait(r, &a, offset);
}

struct rig_read_wait {
    struct weir_read read;
    bool done;
    enum weir_status st;
};

static void
read_done(struct weir_read *read, enum weir_status st)
{
    struct rig_read_wait *w = WEIR_CONTAINER(read, struct rig_read_wait, read);
    w->done = true;
    w->st = st;
}

enum weir_status
rig_read(struct rig *r, uint64_t shard, uint64_t offset, uint64_t bytes_max, struct weir_run *run)
{
    static struct rig_read_wait w;
    w = (struct rig_read_wait){
        .read = {.shard = shard, .offset = offset, .bytes_max = bytes_max, .done = read_done}};
    weir_log_read(r->log, &w.read);
    cr_assert(!w.done, "an answer from inside the call");
    rig_step(r);
    cr_assert(w.done);
    *run = w.read.run;
    return w.st;
}

struct rig_find_wait {
    struct weir_find find;
    bool done;
    enum weir_status st;
};

static void
find_done(struct weir_find *find, enum weir_status st)
{
    struct rig_find_wait *w = WEIR_CONTAINER(find, struct rig_find_wait, find);
    w->done = true;
    w->st = st;
}

enum weir_status
rig_find(struct rig *r, uint64_t shard, uint64_t at_ms, uint64_t *offset)
{
    struct rig_find_wait w = {.find = {.shard = shard, .at_ms = at_ms, .done = find_done}};
    weir_log_find_time(r->log, &w.find);
    rig_step(r);
    cr_assert(w.done);
    *offset = w.find.offset;
    return w.st;
}

uint64_t
rig_number(struct weir_slice slice, uint64_t shard)
{
    struct weir_scratch scratch = {0};
    struct weir_batch_reader reader;
    struct weir_record record;
    char text[64] = {0};
    OK(weir_batch_reader_init(&reader, weir_slice_bytes(slice), &scratch));
    OK(weir_batch_reader_next(&reader, &record));
    memcpy(text, record.data.data, record.data.len < 63 ? record.data.len : 63);
    uint64_t found_shard, number;
    cr_assert(sscanf(text, "%" SCNu64 " %" SCNu64, &found_shard, &number) == 2);
    cr_assert(found_shard == shard, "a batch of shard %" PRIu64 " in %" PRIu64, found_shard, shard);
    weir_scratch_fini(&scratch);
    return number;
}

void
rig_expect(struct rig *r, uint64_t shard, uint64_t offset, uint64_t first, uint64_t count, int line)
{
    static struct weir_run run;
    uint64_t number = first;
    for (;;) {
        enum weir_status st = rig_read(r, shard, offset, 1 * WEIR_MIB, &run);
        if (st == WEIR_END)
            break;
        cr_assert(st == WEIR_OK, "line %d: read %" PRIu64 " at %" PRIu64 ": %s", line, shard,
                  offset, weir_status_name(st));
        for (uint32_t i = 0; i < run.count; i++) {
            cr_assert(run.batch[i].first == offset, "line %d: at %" PRIu64 " instead of %" PRIu64,
                      line, run.batch[i].first, offset);
            uint64_t found = rig_number(run.batch[i].slice, shard);
            cr_assert(found == number,
                      "line %d: shard %" PRIu64 ": %" PRIu64 " instead of %" PRIu64, line, shard,
                      found, number);
            offset += run.batch[i].records;
            number++;
        }
        weir_run_clear(&run);
    }
    cr_assert(number == first + count,
              "line %d: shard %" PRIu64 ": %" PRIu64 " of %" PRIu64 " batches", line, shard,
              number - first, count);
}

const char *
rig_segment(unsigned number, char out[64])
{
    snprintf(out, 64, "journal/%08u.seg", number);
    return out;
}

enum weir_status
rig_book_put(struct rig *r, struct rig_book *b, size_t size)
{
    cr_assert(b->count < 4096);
    enum weir_status st = rig_put(r, b->shard, b->count, 1, size, NULL);
    b->st[b->count++] = st;
    return st;
}

static void
check(struct rig *r, const struct rig_book *b, bool damaged, uint32_t *lost, const char *what)
{
    static struct weir_run run;
    struct weir_log_shard shard;
    uint32_t expected = 0;
    *lost = 0;
    if (weir_log_shard_get(r->log, b->shard, &shard)) {
        for (uint32_t i = 0; i < b->count; i++)
            *lost += b->st[i] == WEIR_OK;
        cr_assert(damaged || !*lost, "%s: shard %" PRIu64 " is gone", what, b->shard);
        return;
    }
    uint64_t offset = shard.oldest;
    for (;;) {
        enum weir_status st = rig_read(r, b->shard, offset, 256 * WEIR_KIB, &run);
        if (st == WEIR_END)
            break;
        if (damaged && st == WEIR_DAMAGED) {
            cr_assert(run.limit > offset, "%s: a gap of nothing", what);
            offset = run.limit;
            continue;
        }
        cr_assert(st == WEIR_OK, "%s: read %" PRIu64 " at %" PRIu64 ": %s", what, b->shard, offset,
                  weir_status_name(st));
        for (uint32_t i = 0; i < run.count; i++) {
            cr_assert(run.batch[i].first == offset, "%s: at %" PRIu64 " instead of %" PRIu64, what,
                      run.batch[i].first, offset);
            uint64_t number = rig_number(run.batch[i].slice, b->shard);
            cr_assert(number < b->count && number >= expected,
                      "%s: shard %" PRIu64 ": %" PRIu64 " twice or out of order (at %u)", what,
                      b->shard, number, expected);
            for (; expected < number; expected++) {
                *lost += b->st[expected] == WEIR_OK;
                cr_assert(damaged || b->st[expected] != WEIR_OK,
                          "%s: shard %" PRIu64 ": %u was acknowledged and is lost", what, b->shard,
                          expected);
            }
            cr_assert(b->st[number] == WEIR_OK || b->st[number] == WEIR_UNKNOWN,
                      "%s: shard %" PRIu64 ": %" PRIu64 " was refused (%s) and is there", what,
                      b->shard, number, weir_status_name(b->st[number]));
            expected++;
            offset += run.batch[i].records;
        }
        weir_run_clear(&run);
    }
    for (; expected < b->count; expected++) {
        *lost += b->st[expected] == WEIR_OK;
        cr_assert(damaged || b->st[expected] != WEIR_OK,
                  "%s: shard %" PRIu64 ": %u was acknowledged and is lost", what, b->shard,
                  expected);
    }
}

void
rig_check(struct rig *r, const struct rig_book *b, const char *what)
{
    uint32_t lost;
    check(r, b, false, &lost, what);
}

void
rig_check_damaged(struct rig *r, struct rig_book *b, const char *what)
{
    check(r, b, true, &b->lost, what);
}

void
rig_overwrite(struct rig *r, const char *path, uint64_t at, const void *bytes, size_t len)
{
    struct weir_file *file;
    OK(weir_fs_open(weir_memfs_fs(r->disk), path, WEIR_OPEN_WRITE, &file));
    OK(weir_file_pwrite(file, bytes, len, at));
    OK(weir_file_datasync(file));
    weir_file_close(file);
}
