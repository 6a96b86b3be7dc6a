/* Numbers: the metrics' table, and this one, of what is measured rather than counted. */
#include "service/inside.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* id, name, unit, help */
#define MEASURES(X)                                                                    \
    X(UPTIME, "uptime", "s", "since the broker was ready")                             \
    X(MEMORY_RSS, "memory_rss", "bytes", "memory of the process that is resident")     \
    X(BUFFERS_LIVE, "buffers_live", "bytes", "batches and frames in memory")           \
    X(BUFFERS_POOLED, "buffers_pooled", "bytes", "buffers kept for reuse")             \
    X(OWNERS, "owners", "owners", "threads that own shards, each with a journal")      \
    X(STREAMS, "streams", "streams", "streams")                                        \
    X(SHARDS_OPEN, "shards_open", "shards", "shards that take records")                \
    X(JOURNALS_REFUSING, "journals_refusing", "journals",                              \
      "journals that take no writes at present")                                       \
    X(LOG_QUEUED, "log_queued", "bytes", "appended and not yet durable")               \
    X(LOG_GROUPS, "log_groups", "groups", "commits, each one write and one sync")      \
    X(LOG_GROUP_BYTES, "log_group_bytes", "bytes", "written by commits")               \
    X(LOG_GROUPS_FAILED, "log_groups_failed", "groups", "commits that failed")         \
    X(LOG_SYNCS, "log_syncs", "syncs", "syncs of the disk")                            \
    X(LOG_SYNC_TIME, "log_sync_time", "us", "time spent in syncs")                     \
    X(LOG_SEGMENTS, "log_segments", "segments", "segment files")                       \
    X(LOG_DISK, "log_disk", "bytes", "disk that segment files take")                   \
    X(LOG_LIVE, "log_live", "bytes", "batches that retention keeps")                   \
    X(LOG_CACHE, "log_cache", "bytes", "latest batches kept in memory")                \
    X(LOG_CACHE_HITS, "log_cache_hits", "reads", "reads answered from memory")         \
    X(LOG_INDEX, "log_index", "bytes", "memory of the index of batches")               \
    X(LOG_READS, "log_reads", "reads", "reads from the disk")                          \
    X(LOG_READ_BYTES, "log_read_bytes", "bytes", "read from the disk")                 \
    X(LOG_COPIED, "log_copied", "bytes", "moved forward to free mostly dead segments") \
    X(LOG_DAMAGED, "log_damaged", "batches", "batches whose checksum or chain does not hold")

enum measure {
#define X(id, name, unit, help) id,
    MEASURES(X)
#undef X
        MEASURE_COUNT
};

static const struct {
    const char *name, *unit, *help;
} measures[MEASURE_COUNT] = {
#define X(id, name, unit, help) [id] = {name, unit, help},
    MEASURES(X)
#undef X
};

struct counting {
    struct weir_stats_call *call;
    struct gather *gather;
    struct weir_log_stat logs[WEIR_OWNERS_MAX]; /* each its owner's until joined */
    uint64_t queued[WEIR_OWNERS_MAX];
    struct weir_stat items[MEASURE_COUNT + WEIR_METRIC_COUNT];
};

static uint64_t
rss_bytes(void)
{
    unsigned long long total, resident = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (!file)
        return 0;
    if (fscanf(file, "%llu %llu", &total, &resident) != 2)
        resident = 0;
    fclose(file);
    return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void
count_at_owner(struct gather_leg *leg)
{
    struct counting *w = leg->gather->arg;
    weir_log_get_stat(leg->owner->log, &w->logs[leg->owner->index]);
    w->queued[leg->owner->index] = weir_log_queued_bytes(leg->owner->log);
    gather_answer(leg);
}

static void
measure_logs(const struct counting *w, uint32_t owners, double *value)
{
    for (uint32_t i = 0; i < owners; i++) {
        const struct weir_log_stat *log = &w->logs[i];
        value[JOURNALS_REFUSING] += log->health != WEIR_OK;
        value[LOG_QUEUED] += (double)w->queued[i];
        value[LOG_GROUPS] += (double)log->groups;
        value[LOG_GROUP_BYTES] += (double)log->group_bytes;
        value[LOG_GROUPS_FAILED] += (double)log->failed_groups;
        value[LOG_SYNCS] += (double)log->syncs;
        value[LOG_SYNC_TIME] += (double)log->sync_us_total;
        value[LOG_SEGMENTS] += (double)log->segments;
        value[LOG_DISK] += (double)log->disk_bytes;
        value[LOG_LIVE] += (double)log->live_bytes;
        value[LOG_CACHE] += (double)log->cache_bytes;
        value[LOG_CACHE_HITS] += (double)log->cache_hits;
        value[LOG_INDEX] += (double)log->index_bytes;
        value[LOG_READS] += (double)log->reads;
        value[LOG_READ_BYTES] += (double)log->read_bytes;
        value[LOG_COPIED] += (double)log->copied_bytes;
        value[LOG_DAMAGED] += (double)log->damaged;
    }
}

static void
measure_service(struct weir_service *s, double *value)
{
    size_t live, pooled;
    weir_buf_usage(&live, &pooled);
    value[UPTIME] = (double)(weir_mono_us(s->sys->clock) - s->opened_us) / 1e6;
    value[MEMORY_RSS] = (double)rss_bytes();
    value[BUFFERS_LIVE] = (double)live;
    value[BUFFERS_POOLED] = (double)pooled;
    value[OWNERS] = s->owner_count;
    value[STREAMS] = (double)weir_catalog_count(s->catalog);
    const struct weir_stream *stream = weir_catalog_next(s->catalog, weir_bytes("", 0));
    for (; stream; stream = weir_catalog_next(s->catalog, weir_bytes_of(stream->name)))
        value[SHARDS_OPEN] += stream->open_count;
}

static void
add(struct weir_stats_call *c, const char *name, const char *unit, const char *help, double value)
{
    if (strlen(name) < c->prefix.len || memcmp(name, c->prefix.data, c->prefix.len) != 0)
        return;
    c->items[c->count++] = (struct weir_stat){name, unit, help, value};
}

static void
counted(struct gather *g)
{
    struct counting *w = g->arg;
    struct weir_stats_call *c = w->call;
    struct weir_service *s = c->call.service;
    gather_free(g);
    double value[MEASURE_COUNT] = {0};
    measure_service(s, value);
    measure_logs(w, s->owner_count, value);

    struct weir_metrics *all[WEIR_OWNERS_MAX + 1];
    for (uint32_t i = 0; i < s->owner_count; i++)
        all[i] = s->owners[i].seen.metrics;
    all[s->owner_count] = s->metrics;
    c->items = w->items;
    for (int i = 0; i < WEIR_METRIC_COUNT; i++)
        add(c, weir_metric_about[i].name, weir_metric_about[i].unit, weir_metric_about[i].help,
            (double)weir_metric_sum(all, s->owner_count + 1, (enum weir_metric)i));
    for (int i = 0; i < MEASURE_COUNT; i++)
        add(c, measures[i].name, measures[i].unit, measures[i].help, value[i]);
    service_answer(&c->call, WEIR_OK);
}

static void
begin_stats(struct weir_call *call)
{
    struct weir_stats_call *c = WEIR_CONTAINER(call, struct weir_stats_call, call);
    struct counting *w = calloc(1, sizeof *w);
    struct gather *g = gather_new(call->service);
    call->work = w;
    if (!w || !g) {
        gather_free(g);
        service_answer(call, WEIR_NO_MEMORY);
        return;
    }
    c->count = 0;
    w->call = c;
    g->arg = w;
    g->at_owner = count_at_owner;
    g->joined = counted;
    gather_start(g, gather_all(call->service));
}

void
weir_service_stats(struct weir_service *s, struct weir_stats_call *c)
{
    service_call(s, &c->call, begin_stats);
}
