/* What the service's files share. Nothing outside this directory includes it. */
#pragma once
#include "base/assert.h"
#include "service/service.h"
#include <pthread.h>

struct owner {
    struct weir_owner seen; /* what doors see */
    struct weir_service *service;
    struct weir_log_observer observer;
    char directory[24];
    /* open only */
    struct weir_thread *thread;
    struct weir_log_config log_config;
    struct weir_log_report report;
    enum weir_status st;
    struct weir_error err;
};

struct weir_service {
    struct weir_sys *sys;
    void (*log)(void *arg, int level, const char *text);
    void *log_arg;
    uint64_t default_retention_ms;
    struct weir_file *lock;
    struct weir_loop *loop;
    struct weir_metrics *metrics;
    struct weir_meta *meta;
    struct weir_catalog *catalog;
    struct weir_leases *leases;
    struct owner *owners;
    uint32_t owner_count;
    uint64_t opened_us;
    bool running; /* the loops are there and were started */

    /* control loop only */
    size_t busy;   /* operations and background work that are not done */
    bool draining; /* nothing may change streams any more */
    bool closing;  /* nothing new at all */
    bool expiring; /* a look for expired shards is under way */
    struct weir_timer expiry_timer;
    struct weir_task start_task, close_task;
    struct {
        void (*done)(void *arg);
        void *arg;
        struct weir_task task;
    } drain;

    /* shared, under mtx */
    pthread_mutex_t mtx;
    pthread_cond_t changed;
    bool quiet; /* closing, and nothing is busy */
};

/* ---- service.c: calls and the ways between loops ---- */

/* Runs `begin` on the control loop. */
void service_call(struct weir_service *s, struct weir_call *call,
                  void (*begin)(struct weir_call *call));
/* Ends a call; call->work is freed after `done`. */
void service_answer(struct weir_call *call, enum weir_status st);
/* The same with a text. */
[[gnu::format(printf, 3, 4)]] void service_refuse(struct weir_call *call, enum weir_status st,
                                                  const char *fmt, ...);
/* Background work that close waits for. */
void service_enter(struct weir_service *s);
void service_leave(struct weir_service *s);

static inline uint32_t
service_owner_of(const struct weir_service *s, uint64_t shard)
{
    return (uint32_t)(shard % s->owner_count);
}

/* One question to several owners:
 *
 *   control: gather_start --> owner: at_owner(leg) ... gather_answer(leg) --> control: joined */
struct gather_leg {
    struct weir_task task;
    struct gather *gather;
    struct weir_owner *owner;
};
struct gather {
    struct weir_service *service;
    void (*at_owner)(struct gather_leg *leg); /* owes gather_answer, also later */
    void (*joined)(struct gather *g);         /* frees it, or starts it again */
    void *arg;
    uint32_t left; /* control loop only */
    struct gather_leg legs[];
};
/* One leg per owner. NULL when out of memory. */
struct gather *gather_new(struct weir_service *s);
void gather_free(struct gather *g);
/* `owners`: bit per owner. None: joined comes at once. */
void gather_start(struct gather *g, uint64_t owners);
void gather_answer(struct gather_leg *leg);
static inline uint64_t
gather_all(const struct weir_service *s)
{
    return s->owner_count == 64 ? UINT64_MAX : (UINT64_C(1) << s->owner_count) - 1;
}

/* One question to one owner; part of what asks.
 *
 *   control: visit_start --> owner: at_owner ... visit_answer --> control: back */
struct visit {
    struct weir_task task;
    struct weir_service *service;
    struct weir_owner *owner;
    void (*at_owner)(struct visit *v); /* owes visit_answer, also later */
    void (*back)(struct visit *v);
};
void visit_start(struct weir_service *s, uint64_t shard, struct visit *v);
void visit_answer(struct visit *v);

/* ---- directory.c ---- */

/* Reads or makes `format`; *owners is what the configuration asks for, then what holds. */
enum weir_status service_read_format(struct weir_fs *fs, uint32_t *owners, struct weir_error *err);
/* Whether `meta.db` is there. Journals with records and no catalog are a lost catalog: a new one
 * would know none of their shards, and let them all go. */
enum weir_status service_has_catalog(struct weir_fs *fs, bool *out);

/* ---- find.c: names ---- */

/* The stream, unless it is being deleted. NULL: the call was answered. */
const struct weir_stream *service_find_stream(struct weir_call *call, struct weir_bytes name);
/* The shard, unless it is expired. NULL: the call was answered. */
const struct weir_shard *service_find_shard(struct weir_call *call,
                                            const struct weir_stream *stream, uint32_t index);
/* How many bytes of the text to show: at most `max`, and no half of a character. */
int service_shown(struct weir_bytes text, size_t max);
/* False: the call was answered. */
bool service_check_consumer(struct weir_call *call, struct weir_bytes consumer);
/* False while draining: the call was answered. */
bool service_check_change(struct weir_call *call);

/* ---- shards.c: shards in their owners ---- */

/* What an owner has to know of a shard: a copy, for another loop's eyes. */
struct shard_spec {
    uint64_t stream, shard, retention_ms, retention_bytes, record_bytes_max, end;
    struct weir_hash_range range;
    bool closed;
};
struct shard_spec service_shard_spec(const struct weir_stream *stream,
                                     const struct weir_shard *shard);
/* Declares the shard to its owner's parts. On the owner's loop, or before it runs. */
enum weir_status service_declare(struct weir_owner *owner, const struct shard_spec *spec);
/* Takes a stream in state DELETING from its owners (`declared`: they know its shards), then its
 * checkpoints and its row. `call` (may be NULL) is answered with the outcome. */
void service_finish_delete(struct weir_service *s, const struct weir_stream *stream, bool declared,
                           struct weir_call *call);
/* Looks for closed shards whose records are all gone, and takes them away. */
void service_expire(struct weir_service *s);
