/* The log as the broker runs it: an owner's thread, the committer, a pool, real files. What
 * sanitizers see here is the hand-over between them; what the log promises is tested on the memory
 * disk. */
#include "rig.h"
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define SHARDS 4
#define BATCHES 400
#define WINDOW 16

/* Everything but `mtx` and `ended` belongs to the owner's thread. */
struct driver {
    struct weir_log *log;
    struct weir_loop *loop;
    struct weir_task task;
    struct slot {
        struct weir_append append;
        struct driver *driver;
        uint64_t shard;
        bool busy;
    } slots[WINDOW];
    struct reader {
        struct weir_read read;
        struct driver *driver;
        uint64_t offset, found;
    } readers[SHARDS];
    uint64_t sent[SHARDS], acknowledged, durable, failed;
    unsigned reading;
    struct weir_log_observer observer;
    pthread_mutex_t mtx;
    pthread_cond_t cond;
    bool ended;
};

static void send_more(struct driver *d);
static void read_more(struct reader *r);

static void
maybe_end(struct driver *d)
{
    if (d->acknowledged + d->failed < SHARDS * BATCHES || d->reading)
        return;
    pthread_mutex_lock(&d->mtx);
    d->ended = true;
    pthread_cond_signal(&d->cond);
    pthread_mutex_unlock(&d->mtx);
}

static void
appended(struct weir_append *a, enum weir_status st)
{
    struct slot *slot = WEIR_CONTAINER(a, struct slot, append);
    struct driver *d = slot->driver;
    slot->busy = false;
    if (st)
        d->failed++;
    else
        d->acknowledged++;
    send_more(d);
    maybe_end(d);
}

static void
send_more(struct driver *d)
{
    for (int i = 0; i < WINDOW; i++) {
        struct slot *slot = &d->slots[i];
        uint64_t s = (uint64_t)i % SHARDS;
        if (slot->busy || d->sent[s] == BATCHES)
            continue;
        *slot = (struct slot){.driver = d, .shard = 10 + s, .busy = true};
        slot->append.batch = rig_batch(10 + s, d->sent[s], 1, 4000, 0, 0);
        slot->append.stream = 1;
        slot->append.shard = 10 + s;
        slot->append.done = appended;
        d->sent[s]++;
        if (weir_log_append(d->log, &slot->append)) {
            weir_buf_unref(slot->append.batch);
            slot->busy = false;
            d->failed++;
        }
    }
}

static void
read_came(struct weir_read *read, enum weir_status st)
{
    struct reader *r = WEIR_CONTAINER(read, struct reader, read);
    for (uint32_t i = 0; i < read->run.count; i++) {
        if (rig_number(read->run.batch[i].slice, read->shard) != r->found++)
            r->driver->failed++;
    }
    if (!st) {
        r->offset = read->run.limit;
        weir_run_clear(&read->run);
    } else if (st != WEIR_END) {
        r->driver->failed++;
    }
    read_more(r);
}

/* Until it has seen all. */
static void
read_more(struct reader *r)
{
    if (r->offset == BATCHES || r->driver->failed) {
        r->driver->reading--;
        maybe_end(r->driver);
        return;
    }
    r->read = (struct weir_read){.shard = 10 + (uint64_t)(r - r->driver->readers),
                                 .offset = r->offset,
                                 .bytes_max = 100000,
                                 .done = read_came};
    weir_log_read(r->driver->log, &r->read);
}

static void
begin(struct weir_task *task)
{
    struct driver *d = WEIR_CONTAINER(task, struct driver, task);
    for (uint64_t s = 0; s < SHARDS; s++)
        if (weir_log_shard_add(d->log, 1, 10 + s, 0, 0))
            d->failed++;
    d->reading = SHARDS;
    send_more(d);
    for (int s = 0; s < SHARDS; s++) {
        d->readers[s] = (struct reader){.driver = d};
        read_more(&d->readers[s]);
    }
}

static void
on_durable(struct weir_log_observer *o, const struct weir_batch_info *info, struct weir_slice slice)
{
    (void)info;
    (void)slice;
    WEIR_CONTAINER(o, struct driver, observer)->durable++;
}

static void
run_round(struct weir_sys *sys, const struct weir_log_config *base)
{
    static struct driver d;
    struct weir_log_config config = *base;
    struct weir_log_report report;
    struct weir_error err = {0};
    d = (struct driver){.observer = {.durable = on_durable}};
    pthread_mutex_init(&d.mtx, NULL);
    pthread_cond_init(&d.cond, NULL);
    OK(weir_loop_new(sys->clock, "owner", &d.loop));
    OK(weir_pool_new("pool", 2, &sys->pool));
    sys->threads = true;
    config.sys = sys;
    config.loop = d.loop;
    config.observer = &d.observer;
    cr_assert(!weir_log_open(&config, &d.log, &report, &err), "%s", err.text);
    OK(weir_loop_start(d.loop));
    d.task.run = begin;
    weir_loop_post(d.loop, &d.task);

    struct timespec deadline;
    clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_sec += 100;
    pthread_mutex_lock(&d.mtx);
    while (!d.ended && pthread_cond_timedwait(&d.cond, &d.mtx, &deadline) == 0)
        continue;
    bool ended = d.ended;
    pthread_mutex_unlock(&d.mtx);
    weir_loop_stop(d.loop);
    weir_pool_free(sys->pool);
    cr_assert(ended, "%" PRIu64 " acknowledged, %u reading", d.acknowledged, d.reading);
    cr_assert(d.failed == 0 && d.acknowledged == SHARDS * BATCHES && d.durable == d.acknowledged);
    weir_log_close(d.log);
    weir_loop_free(d.loop);
    pthread_cond_destroy(&d.cond);
    pthread_mutex_destroy(&d.mtx);
}

static void
remove_all(const char *directory)
{
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", directory);
    cr_expect(system(command) == 0);
}

/* Appends and reads at once, through several segments, with and without a filler and a cache. */
Test(threads, owner_committer_and_pool_agree, .timeout = 200)
{
    for (int round = 0; round < 3; round++) {
        char directory[] = "/tmp/weir-log-XXXXXX";
        struct weir_error err = {0};
        struct weir_sys sys = {.clock = weir_clock_system(), .seed = 1};
        cr_assert(mkdtemp(directory));
        cr_assert(!weir_fs_posix(directory, &sys.fs, &err), "%s", err.text);
        struct weir_log_config config = {
            .directory = "journal-0",
            .segment_bytes = 1 * WEIR_MIB,
            .prewrite_bytes = round ? 3 * WEIR_MIB : 0,
            .group_bytes_max = 256 * WEIR_KIB,
            .queue_bytes_max = 16 * WEIR_MIB,
            .cache_bytes_max = round == 2 ? 256 * WEIR_KIB : 0,
            .durability = round == 1 ? WEIR_DURABILITY_INTERVAL : WEIR_DURABILITY_SYNC,
            .interval_ms = 20,
            .producer_expiry_ms = 1000,
        };
        run_round(&sys, &config);

        /* And it is all there afterwards. */
        struct rig r;
        rig_init(&r);
        OK(weir_loop_new(&r.clock.clock, "test", &r.loop));
        OK(weir_pool_new("test", 0, &r.pool));
        r.sys = (struct weir_sys){.fs = sys.fs, .clock = &r.clock.clock, .pool = r.pool};
        config.sys = &r.sys;
        config.loop = r.loop;
        cr_assert(!weir_log_open(&config, &r.log, &r.report, &err), "%s", err.text);
        cr_expect(r.report.damaged_count == 0 && r.report.torn_bytes == 0);
        for (uint64_t s = 0; s < SHARDS; s++)
            EXPECT_SHARD(&r, 10 + s, 0, 0, BATCHES);
        rig_fini(&r);
        weir_fs_posix_free(sys.fs);
        remove_all(directory);
    }
}
