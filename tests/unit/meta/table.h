/* A metadata table on a memory disk, stepped by the test. */
#pragma once
#include "base/assert.h"
#include "meta/meta.h"
#include "sys/memfs.h"
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>

#define OK(call)                                                               \
    do {                                                                       \
        enum weir_status ok_st = (call);                                       \
        cr_assert(ok_st == WEIR_OK, "%s: %s", #call, weir_status_text(ok_st)); \
    } while (0)

#define IS(call, wanted)                                                        \
    do {                                                                        \
        enum weir_status is_st = (call);                                        \
        cr_assert(is_st == (wanted), "%s: %s", #call, weir_status_text(is_st)); \
    } while (0)

struct table {
    struct weir_memfs *disk;
    struct weir_clock_manual clock;
    struct weir_sys sys;
    struct weir_loop *loop;
    struct weir_meta *meta; /* NULL: closed */
    struct weir_error err;
};

static inline void
table_init_on(struct table *t, struct weir_memfs *disk)
{
    *t = (struct table){.disk = disk};
    weir_clock_manual_init(&t->clock, 1764320000000);
    t->sys = (struct weir_sys){.fs = weir_memfs_fs(t->disk), .clock = &t->clock.clock, .seed = 1};
    OK(weir_pool_new("pool", 0, &t->sys.pool));
    OK(weir_loop_new(t->sys.clock, "control", &t->loop));
}

static inline void
table_init(struct table *t)
{
    table_init_on(t, weir_memfs_new());
}

static inline enum weir_status
table_open(struct table *t)
{
    return weir_meta_open(&t->sys, t->loop, "meta.db", &t->meta, &t->err);
}

static inline void
table_close(struct table *t)
{
    weir_meta_close(t->meta);
    t->meta = NULL;
}

static inline void
table_reopen(struct table *t)
{
    table_close(t);
    OK(table_open(t));
}

/* The power goes; what follows is what a restart finds. The table of before is closed on the disk
 * of before, where it can do no harm. */
static inline void
table_cut(struct table *t, enum weir_memfs_cut keep, uint64_t seed)
{
    struct weir_memfs *after = weir_memfs_fork(t->disk, keep, seed);
    table_close(t);
    weir_memfs_free(t->disk);
    weir_memfs_fail_clear(after);
    t->disk = after;
    t->sys.fs = weir_memfs_fs(after);
}

static inline void
table_fini(struct table *t)
{
    table_close(t);
    weir_loop_free(t->loop);
    weir_pool_free(t->sys.pool);
    weir_memfs_free(t->disk);
}

static inline void
table_step(struct table *t)
{
    while (weir_loop_step(t->loop, 1000))
        ;
}

/* A commit that notes its answer. */
struct noted {
    struct weir_meta_commit commit;
    bool answered;
    enum weir_status st;
    int order; /* among the answers */
};

static inline void
note(struct weir_meta_commit *c, enum weir_status st)
{
    static int order;
    struct noted *n = WEIR_CONTAINER(c, struct noted, commit);
    WEIR_ASSERT(!n->answered);
    n->answered = true;
    n->st = st;
    n->order = order++;
}

static inline struct weir_bytes
text(const char *s)
{
    return weir_bytes_of(s);
}

static inline void
begin(struct noted *n)
{
    *n = (struct noted){.commit.done = note};
}

static inline enum weir_status
finish_commit(struct table *t, struct noted *n)
{
    weir_meta_commit(t->meta, &n->commit);
    table_step(t);
    cr_assert(n->answered);
    return n->st;
}

static inline enum weir_status
put(struct table *t, const char *key, const char *value, uint64_t expect)
{
    struct noted n;
    begin(&n);
    weir_meta_put(&n.commit, key, text(value), expect);
    return finish_commit(t, &n);
}

static inline enum weir_status delete (struct table *t, const char *key, uint64_t expect) {
    struct noted n; begin(&n); weir_meta_delete(&n.commit, key, expect);
    return finish_commit(t, &n);
}

struct found {
    char value[256];
    uint64_t version;
    size_t count;
};

static inline enum weir_status
find_each(void *arg, const char *key, struct weir_bytes value, uint64_t version)
{
    (void)key;
    struct found *f = arg;
    f->count++;
    f->version = version;
    snprintf(f->value, sizeof f->value, "%.*s", (int)value.len, (const char *)value.data);
    return WEIR_OK;
}

/* The last row of the prefix. */
static inline struct found
find(struct table *t, const char *prefix)
{
    struct found f = {0};
    OK(weir_meta_scan(t->meta, prefix, find_each, &f, &t->err));
    return f;
}

static inline bool
says(struct found f, const char *value)
{
    return f.count == 1 && strcmp(f.value, value) == 0;
}
