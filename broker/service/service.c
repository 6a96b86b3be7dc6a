/* How the service starts:
 *
 *   lock the directory -> read `format` -> recover every owner's journal (side by side, where there
 * are threads) -> open catalog and checkpoints -> declare each shard to its owner -> let the
 * journals drop what nobody declared -> start the loops -> finish half-done deletions
 *
 * Nothing runs before all of it is known. A parent whose reshard did not commit is a shard like any
 * other: open. A child that was never committed was never declared. */
#include "service/service.h"
#include "base/text.h"
#include "service/inside.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define EXPIRY_US 1000000
#define STEP_TASKS_MAX 1000000

void
weir_service_log(struct weir_service *s, int level, const char *fmt, ...)
{
    if (!s->log)
        return;
    char text[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    s->log(s->log_arg, level, text);
}

/* ---- calls ---- */

/* Tells who waits in close once nothing is left. */
static void
check_quiet(struct weir_service *s)
{
    if (!s->closing || s->busy)
        return;
    pthread_mutex_lock(&s->mtx);
    s->quiet = true;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->mtx);
}

void
service_enter(struct weir_service *s)
{
    s->busy++;
}

void
service_leave(struct weir_service *s)
{
    WEIR_ASSERT(s->busy > 0);
    s->busy--;
    check_quiet(s);
}

static void
run_call(struct weir_task *task)
{
    struct weir_call *call = WEIR_CONTAINER(task, struct weir_call, task);
    service_enter(call->service);
    if (call->service->closing)
        service_refuse(call, WEIR_UNAVAILABLE, "the broker is shutting down");
    else
        call->begin(call);
}

void
service_call(struct weir_service *s, struct weir_call *call, void (*begin)(struct weir_call *call))
{
    call->service = s;
    call->begin = begin;
    call->work = NULL;
    call->err = (struct weir_error){0};
    call->task.run = run_call;
    weir_loop_post(s->loop, &call->task);
}

void
service_answer(struct weir_call *call, enum weir_status st)
{
    struct weir_service *s = call->service;
    void *work = call->work;
    WEIR_ASSERT(weir_loop_is_current(s->loop));
    weir_metric_add(s->metrics, WEIR_METRIC_CALLS, 1);
    if (st) {
        weir_metric_add(s->metrics, WEIR_METRIC_CALLS_FAILED, 1);
        if (!call->err.text[0])
            (void)!weir_fail(&call->err, st, "%s", weir_status_text(st));
    }
    call->done(call, st); /* the caller's again, and maybe gone */
    free(work);
    service_leave(s);
}

void
service_refuse(struct weir_call *call, enum weir_status st, const char *fmt, ...)
{
    char text[sizeof call->err.text];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    service_answer(call, weir_fail(&call->err, st, "%s", text));
}

/* ---- questions to owners ---- */

struct gather *
gather_new(struct weir_service *s)
{
    struct gather *g = calloc(1, sizeof *g + s->owner_count * sizeof g->legs[0]);
    if (!g)
        return NULL;
    g->service = s;
    for (uint32_t i = 0; i < s->owner_count; i++) {
        g->legs[i].gather = g;
        g->legs[i].owner = &s->owners[i].seen;
    }
    return g;
}

void
gather_free(struct gather *g)
{
    free(g);
}

static void
leg_run(struct weir_task *task)
{
    struct gather_leg *leg = WEIR_CONTAINER(task, struct gather_leg, task);
    leg->gather->at_owner(leg);
}

static void
leg_back(struct weir_task *task)
{
    struct gather *g = WEIR_CONTAINER(task, struct gather_leg, task)->gather;
    if (--g->left == 0)
        g->joined(g);
}

void
gather_start(struct gather *g, uint64_t owners)
{
    WEIR_ASSERT(g->left == 0);
    g->left = (uint32_t)__builtin_popcountll(owners);
    if (!owners) {
        g->joined(g);
        return;
    }
    for (; owners; owners &= owners - 1) {
        struct gather_leg *leg = &g->legs[__builtin_ctzll(owners)];
        leg->task.run = leg_run;
        weir_loop_post(leg->owner->loop, &leg->task);
    }
}

void
gather_answer(struct gather_leg *leg)
{
    leg->task.run = leg_back;
    weir_loop_post(leg->gather->service->loop, &leg->task);
}

static void
visit_run(struct weir_task *task)
{
    struct visit *v = WEIR_CONTAINER(task, struct visit, task);
    v->at_owner(v);
}

static void
visit_back(struct weir_task *task)
{
    struct visit *v = WEIR_CONTAINER(task, struct visit, task);
    v->back(v);
}

void
visit_start(struct weir_service *s, uint64_t shard, struct visit *v)
{
    v->service = s;
    v->owner = &s->owners[service_owner_of(s, shard)].seen;
    v->task.run = visit_run;
    weir_loop_post(v->owner->loop, &v->task);
}

void
visit_answer(struct visit *v)
{
    v->task.run = visit_back;
    weir_loop_post(v->service->loop, &v->task);
}

/* ---- the log's observer ---- */

static void
on_durable(struct weir_log_observer *o, const struct weir_batch_info *info, struct weir_slice slice)
{
    struct owner *owner = WEIR_CONTAINER(o, struct owner, observer);
    if (owner->seen.fanout)
        weir_fanout_durable(owner->seen.fanout, info, slice);
}

static void
on_gap(struct weir_log_observer *o, uint64_t shard, uint64_t first, uint64_t limit,
       enum weir_status why)
{
    struct owner *owner = WEIR_CONTAINER(o, struct owner, observer);
    if (why != WEIR_TRIMMED)
        weir_service_log(owner->service, 3, "shard %llu: records %llu to %llu are lost: %s",
                         (unsigned long long)shard, (unsigned long long)first,
                         (unsigned long long)limit - 1, weir_status_text(why));
    if (owner->seen.fanout)
        weir_fanout_gap(owner->seen.fanout, shard, first, limit, why);
}

static void
on_health(struct weir_log_observer *o, enum weir_status st, const char *text)
{
    struct owner *owner = WEIR_CONTAINER(o, struct owner, observer);
    if (st)
        weir_service_log(owner->service, 3, "journal %u takes no writes: %s%s%s", owner->seen.index,
                         weir_status_text(st), text && text[0] ? ": " : "", text ? text : "");
    else
        weir_service_log(owner->service, 4, "journal %u takes writes again", owner->seen.index);
}

/* ---- open ---- */

static struct weir_metrics *
new_metrics(void)
{
    struct weir_metrics *m = aligned_alloc(64, (sizeof *m + 63) / 64 * 64);
    if (m)
        memset(m, 0, sizeof *m);
    return m;
}

static enum weir_status
lock(struct weir_service *s, struct weir_error *err)
{
    int64_t pid = 0;
    enum weir_status st = weir_fs_lock(s->sys->fs, "lock", &s->lock, &pid);
    if (st == WEIR_BUSY && pid > 0)
        return weir_fail(err, st, "the data directory is in use by process %lld", (long long)pid);
    if (st == WEIR_BUSY)
        return weir_fail(err, st, "the data directory is in use by another process");
    return st ? weir_fail(err, st, "cannot lock the data directory: %s", weir_status_text(st))
              : WEIR_OK;
}

static enum weir_status
make_loops(struct weir_service *s, const struct weir_service_config *config)
{
    enum weir_status st = weir_loop_new(s->sys->clock, "weir-control", &s->loop);
    s->metrics = new_metrics();
    s->owners = calloc(s->owner_count, sizeof *s->owners);
    if (st || !s->metrics || !s->owners)
        return st ? st : WEIR_NO_MEMORY;
    for (uint32_t i = 0; i < s->owner_count; i++) {
        struct owner *owner = &s->owners[i];
        owner->service = s;
        owner->observer = (struct weir_log_observer){on_durable, on_gap, on_health};
        owner->seen.index = i;
        owner->seen.metrics = new_metrics();
        char name[16];
        snprintf(name, sizeof name, "weir-owner-%u", i % WEIR_OWNERS_MAX);
        st = weir_loop_new(s->sys->clock, name, &owner->seen.loop);
        if (st || !owner->seen.metrics)
            return st ? st : WEIR_NO_MEMORY;
        snprintf(owner->directory, sizeof owner->directory, "journal-%u", i);
        owner->log_config = (struct weir_log_config){
            .sys = s->sys,
            .loop = owner->seen.loop,
            .directory = owner->directory,
            .journal = i,
            .segment_bytes = config->segment_bytes,
            .prewrite_bytes = config->prewrite_bytes,
            .group_bytes_max = config->group_bytes_max,
            .queue_bytes_max = config->queue_bytes_max,
            .cache_bytes_max = config->cache_bytes_max,
            .durability = config->durability,
            .interval_ms = config->interval_ms,
            .producer_expiry_ms = config->producer_expiry_ms,
            .observer = &owner->observer,
        };
    }
    return WEIR_OK;
}

static void
recover(void *arg)
{
    struct owner *owner = arg;
    owner->st = weir_log_open(&owner->log_config, &owner->seen.log, &owner->report, &owner->err);
}

static void
tell_recovery(struct weir_service *s, const struct owner *owner)
{
    const struct weir_log_report *r = &owner->report;
    if (r->torn_bytes)
        weir_service_log(s, 4,
                         "journal %u: cut a torn end of %llu bytes that was never acknowledged",
                         owner->seen.index, (unsigned long long)r->torn_bytes);
    if (r->damaged_count)
        weir_service_log(s, 3, "journal %u: %llu damaged places, the rest is served: %s",
                         owner->seen.index, (unsigned long long)r->damaged_count, owner->err.text);
    weir_service_log(s, 6, "journal %u: %llu segments, %llu shards, walked %llu batches in %llu us",
                     owner->seen.index, (unsigned long long)r->segments,
                     (unsigned long long)r->shards, (unsigned long long)r->batches_walked,
                     (unsigned long long)r->took_us);
}

static enum weir_status
recover_all(struct weir_service *s, struct weir_error *err)
{
    for (uint32_t i = 0; i < s->owner_count; i++) {
        struct owner *owner = &s->owners[i];
        /* The last one on this thread, which has nothing else to do. */
        if (!s->sys->threads || i + 1 == s->owner_count ||
            weir_thread_start("weir-recover", recover, owner, &owner->thread))
            recover(owner);
    }
    enum weir_status st = WEIR_OK;
    for (uint32_t i = 0; i < s->owner_count; i++) {
        struct owner *owner = &s->owners[i];
        weir_thread_join(owner->thread);
        owner->thread = NULL;
        if (!owner->st) {
            tell_recovery(s, owner);
        } else if (!st) {
            st = owner->st;
            if (err)
                *err = owner->err;
            (void)!weir_fail_in(err, st, "cannot recover '%s'", owner->directory);
        }
    }
    return st;
}

static enum weir_status
make_parts(struct weir_service *s, struct weir_error *err)
{
    for (uint32_t i = 0; i < s->owner_count; i++) {
        struct weir_owner *o = &s->owners[i].seen;
        enum weir_status st = weir_ingest_new(o->loop, o->log, o->metrics, &o->ingest);
        if (!st)
            st = weir_fanout_new(o->loop, o->log, o->metrics, &o->fanout);
        if (st)
            return weir_fail(err, st, "cannot make owner %u: %s", i, weir_status_text(st));
    }
    return WEIR_OK;
}

static enum weir_status
check_catalog(struct weir_service *s, struct weir_error *err)
{
    bool there;
    uint64_t shards = 0;
    for (uint32_t i = 0; i < s->owner_count; i++)
        shards += s->owners[i].report.shards;
    enum weir_status st = service_has_catalog(s->sys->fs, &there);
    if (st)
        return weir_fail(err, st, "cannot list the data directory: %s", weir_status_text(st));
    if (shards && !there)
        return weir_fail(
            err, WEIR_DAMAGED,
            "the journals hold records of %llu shards, but 'meta.db', which says whose "
            "they are, is missing: bring it back from a copy",
            (unsigned long long)shards);
    return WEIR_OK;
}

static enum weir_status
declare_all(struct weir_service *s, struct weir_error *err)
{
    const struct weir_stream *stream = weir_catalog_next(s->catalog, weir_bytes("", 0));
    for (; stream; stream = weir_catalog_next(s->catalog, weir_bytes_of(stream->name))) {
        if (stream->state == WEIR_STATE_DELETING)
            continue;
        for (uint32_t i = 0; i < stream->shard_count; i++) {
            const struct weir_shard *shard = &stream->shards[i];
            if (shard->expired)
                continue;
            struct weir_owner *o = &s->owners[service_owner_of(s, shard->number)].seen;
            struct shard_spec spec = service_shard_spec(stream, shard);
            enum weir_status st = service_declare(o, &spec);
            if (st)
                return weir_fail(err, st, "cannot open shard %u of stream '%s': %s", i,
                                 stream->name, weir_status_text(st));
            struct weir_log_shard in_log;
            if (shard->closed_ms && !weir_log_shard_get(o->log, shard->number, &in_log) &&
                in_log.next < shard->end && in_log.next > 0)
                weir_service_log(s, 3,
                                 "stream '%s' shard %u was closed at %llu, but its journal ends at "
                                 "%llu: records are lost",
                                 stream->name, i, (unsigned long long)shard->end,
                                 (unsigned long long)in_log.next);
        }
    }
    for (uint32_t i = 0; i < s->owner_count; i++)
        weir_log_drop_undeclared(s->owners[i].seen.log);
    return WEIR_OK;
}

static void
on_expiry(struct weir_timer *timer)
{
    struct weir_service *s = WEIR_CONTAINER(timer, struct weir_service, expiry_timer);
    if (s->closing)
        return;
    service_expire(s);
    weir_timer_start(s->loop, timer, EXPIRY_US);
}

/* The control loop's first task: what a crash left half deleted goes. */
static void
run_start(struct weir_task *task)
{
    struct weir_service *s = WEIR_CONTAINER(task, struct weir_service, start_task);
    weir_timer_start(s->loop, &s->expiry_timer, EXPIRY_US);
    const struct weir_stream *stream = weir_catalog_next(s->catalog, weir_bytes("", 0));
    for (; stream; stream = weir_catalog_next(s->catalog, weir_bytes_of(stream->name)))
        if (stream->state == WEIR_STATE_DELETING)
            service_finish_delete(s, stream, false, NULL);
}

static enum weir_status
start_loops(struct weir_service *s)
{
    if (!s->sys->threads)
        return WEIR_OK;
    enum weir_status st = weir_loop_start(s->loop);
    for (uint32_t i = 0; i < s->owner_count && !st; i++)
        st = weir_loop_start(s->owners[i].seen.loop);
    return st;
}

static enum weir_status
check(const struct weir_service_config *c, struct weir_error *err)
{
    if (c->owners < 1 || c->owners > WEIR_OWNERS_MAX)
        return weir_fail(err, WEIR_INVALID, "owners must be 1 to %d", WEIR_OWNERS_MAX);
    if (c->default_retention_ms && (c->default_retention_ms < WEIR_RETENTION_MS_MIN ||
                                    c->default_retention_ms > WEIR_RETENTION_MS_MAX))
        return weir_fail(err, WEIR_INVALID, "the default retention must be 1 hour to 3650 days");
    return WEIR_OK;
}

enum weir_status
weir_service_open(const struct weir_service_config *config, struct weir_service **out,
                  struct weir_error *err)
{
    struct weir_error own = {0};
    if (!err)
        err = &own;
    enum weir_status st = check(config, err);
    if (st)
        return st;
    struct weir_service *s = calloc(1, sizeof *s);
    if (!s)
        return weir_fail(err, WEIR_NO_MEMORY, "no memory");
    s->sys = config->sys;
    s->log = config->log;
    s->log_arg = config->log_arg;
    s->default_retention_ms =
        config->default_retention_ms ? config->default_retention_ms : WEIR_RETENTION_MS_DEFAULT;
    s->owner_count = config->owners;
    s->opened_us = weir_mono_us(s->sys->clock);
    s->expiry_timer.run = on_expiry;
    pthread_mutex_init(&s->mtx, NULL);
    pthread_cond_init(&s->changed, NULL);

    st = lock(s, err);
    if (st)
        goto done;
    st = service_read_format(s->sys->fs, &s->owner_count, err);
    if (st)
        goto done;
    st = make_loops(s, config);
    if (st) {
        (void)!weir_fail(err, st, "cannot make the loops: %s", weir_status_text(st));
        goto done;
    }
    st = recover_all(s, err);
    if (st)
        goto done;
    st = check_catalog(s, err);
    if (st)
        goto done;
    st = weir_meta_open(s->sys, s->loop, "meta.db", &s->meta, err);
    if (st)
        goto done;
    st = weir_catalog_open(s->meta, s->sys->clock, &s->catalog, err);
    if (st)
        goto done;
    st = weir_leases_open(s->meta, s->sys->clock, &s->leases, err);
    if (st)
        goto done;
    st = make_parts(s, err);
    if (st)
        goto done;
    st = declare_all(s, err);
    if (st)
        goto done;
    s->start_task.run = run_start;
    st = start_loops(s);
    if (st) {
        (void)!weir_fail(err, st, "cannot start the loops: %s", weir_status_text(st));
        goto done;
    }
    s->running = true;
    weir_loop_post(s->loop, &s->start_task);

    *out = s;
    s = NULL; /* the caller's now */
done:
    weir_service_close(s);
    return st;
}

/* ---- drain ---- */

static void
drain_joined(struct gather *g)
{
    struct weir_service *s = g->service;
    gather_free(g);
    s->drain.done(s->drain.arg);
    service_leave(s);
}

struct drain_leg {
    struct weir_log_barrier barrier;
    struct gather_leg *leg;
};

static void
drain_durable(struct weir_log_barrier *barrier)
{
    struct drain_leg *d = WEIR_CONTAINER(barrier, struct drain_leg, barrier);
    struct gather_leg *leg = d->leg;
    free(d);
    gather_answer(leg);
}

static void
drain_owner(struct gather_leg *leg)
{
    weir_ingest_stop(leg->owner->ingest);
    struct drain_leg *d = calloc(1, sizeof *d);
    if (!d) {
        /* Closing waits for the commits too; only the news comes early. */
        gather_answer(leg);
        return;
    }
    d->leg = leg;
    d->barrier.done = drain_durable;
    weir_log_barrier(leg->owner->log, &d->barrier);
}

static void
run_drain(struct weir_task *task)
{
    struct weir_service *s = WEIR_CONTAINER(task, struct weir_service, drain.task);
    s->draining = true;
    struct gather *g = gather_new(s);
    service_enter(s);
    if (!g) {
        s->drain.done(s->drain.arg);
        service_leave(s);
        return;
    }
    g->at_owner = drain_owner;
    g->joined = drain_joined;
    gather_start(g, gather_all(s));
}

void
weir_service_drain(struct weir_service *s, void (*done)(void *arg), void *arg)
{
    s->drain.done = done;
    s->drain.arg = arg;
    s->drain.task.run = run_drain;
    weir_loop_post(s->loop, &s->drain.task);
}

/* ---- close ---- */

static void
run_close(struct weir_task *task)
{
    struct weir_service *s = WEIR_CONTAINER(task, struct weir_service, close_task);
    s->closing = true;
    weir_timer_stop(s->loop, &s->expiry_timer);
    check_quiet(s);
}

/* Waits until no operation is in flight. */
static void
settle(struct weir_service *s)
{
    s->close_task.run = run_close;
    weir_loop_post(s->loop, &s->close_task);
    if (!s->sys->threads) {
        weir_service_step(s);
        return;
    }
    pthread_mutex_lock(&s->mtx);
    while (!s->quiet)
        pthread_cond_wait(&s->changed, &s->mtx);
    pthread_mutex_unlock(&s->mtx);
}

void
weir_service_close(struct weir_service *s)
{
    if (!s)
        return;
    if (s->running)
        settle(s);
    /* Owners first: what they still post to the control loop finds it running. */
    for (uint32_t i = 0; s->owners && i < s->owner_count; i++)
        if (s->owners[i].seen.loop)
            weir_loop_stop(s->owners[i].seen.loop);
    if (s->loop)
        weir_loop_stop(s->loop);
    for (uint32_t i = 0; s->owners && i < s->owner_count; i++) {
        struct weir_owner *o = &s->owners[i].seen;
        /* The log first: it waits for the pool threads that still read for the fan-out. */
        weir_log_close(o->log);
        weir_fanout_free(o->fanout);
        weir_ingest_free(o->ingest);
        weir_loop_free(o->loop);
        free(o->metrics);
    }
    weir_leases_close(s->leases);
    weir_catalog_close(s->catalog);
    weir_meta_close(s->meta);
    weir_loop_free(s->loop);
    weir_file_close(s->lock);
    pthread_mutex_destroy(&s->mtx);
    pthread_cond_destroy(&s->changed);
    free(s->metrics);
    free(s->owners);
    free(s);
}

size_t
weir_service_step(struct weir_service *s)
{
    size_t total = 0, ran;
    WEIR_ASSERT(!s->sys->threads);
    do {
        ran = weir_loop_step(s->loop, STEP_TASKS_MAX);
        for (uint32_t i = 0; i < s->owner_count; i++)
            ran += weir_loop_step(s->owners[i].seen.loop, STEP_TASKS_MAX);
        total += ran;
    } while (ran > 0 && total < STEP_TASKS_MAX);
    return total;
}

struct weir_loop *
weir_service_loop(struct weir_service *s)
{
    return s->loop;
}

struct weir_sys *
weir_service_sys(struct weir_service *s)
{
    return s->sys;
}

uint32_t
weir_service_owner_count(const struct weir_service *s)
{
    return s->owner_count;
}

struct weir_owner *
weir_service_owner(struct weir_service *s, uint32_t index)
{
    WEIR_ASSERT(index < s->owner_count);
    return &s->owners[index].seen;
}

const char *
weir_service_data_id(const struct weir_service *s)
{
    return weir_catalog_data_id(s->catalog);
}

struct weir_metrics *
weir_service_metrics(struct weir_service *s)
{
    return s->metrics;
}
