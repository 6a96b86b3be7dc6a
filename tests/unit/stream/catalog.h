/* A catalog on a table on a memory disk. */
#pragma once
#include "stream/stream.h"
#include "unit/meta/table.h"

struct rig {
    struct table table;
    struct weir_catalog *catalog;
    struct weir_error err;
    const struct weir_stream *stream; /* of the last change */
};

static inline enum weir_status
rig_open(struct rig *r)
{
    enum weir_status st = table_open(&r->table);
    if (st) {
        r->err = r->table.err;
        return st;
    }
    return weir_catalog_open(r->table.meta, r->table.sys.clock, &r->catalog, &r->err);
}

static inline void
rig_init(struct rig *r)
{
    *r = (struct rig){0};
    table_init(&r->table);
    OK(rig_open(r));
}

static inline void
rig_close(struct rig *r)
{
    weir_catalog_close(r->catalog);
    r->catalog = NULL;
    table_close(&r->table);
}

static inline void
rig_reopen(struct rig *r)
{
    rig_close(r);
    enum weir_status st = rig_open(r);
    cr_assert(st == WEIR_OK, "%s", r->err.text);
}

static inline void
rig_fini(struct rig *r)
{
    rig_close(r);
    table_fini(&r->table);
}

struct answer {
    struct weir_change change;
    bool answered;
    enum weir_status st;
    const struct weir_stream *stream;
};

static inline void
note_change(struct weir_change *change, enum weir_status st)
{
    struct answer *a = WEIR_CONTAINER(change, struct answer, change);
    WEIR_ASSERT(!a->answered);
    a->answered = true;
    a->st = st;
    a->stream = change->stream;
}

static inline void
begin_answer(struct answer *a)
{
    *a = (struct answer){.change.done = note_change};
}

static inline enum weir_status
finish_answer(struct rig *r, struct answer *a)
{
    WEIR_ASSERT(!a->answered);
    table_step(&r->table);
    WEIR_ASSERT(a->answered);
    r->err = a->change.err;
    r->stream = a->stream;
    return a->st;
}

static inline enum weir_status
create(struct rig *r, const char *name, uint32_t shards)
{
    struct answer a;
    begin_answer(&a);
    struct weir_stream_spec spec = {.name = text(name), .shard_count = shards};
    weir_catalog_create(r->catalog, &spec, &a.change);
    return finish_answer(r, &a);
}

static inline enum weir_status
begin_delete(struct rig *r, uint64_t stream)
{
    struct answer a;
    begin_answer(&a);
    weir_catalog_begin_delete(r->catalog, stream, &a.change);
    return finish_answer(r, &a);
}

static inline enum weir_status
finish_delete(struct rig *r, uint64_t stream)
{
    struct answer a;
    begin_answer(&a);
    weir_catalog_finish_delete(r->catalog, stream, &a.change);
    return finish_answer(r, &a);
}

static inline enum weir_status
reshard(struct rig *r, uint64_t stream, const struct weir_reshard *plan, uint64_t end)
{
    struct answer a;
    uint64_t ends[2] = {end, end + 1};
    begin_answer(&a);
    weir_catalog_reshard(r->catalog, stream, plan, ends, &a.change);
    return finish_answer(r, &a);
}

static inline enum weir_status
split(struct rig *r, const struct weir_stream *s, uint32_t shard, const weir_u128 *at)
{
    struct weir_reshard plan;
    enum weir_status st = weir_plan_split(s, shard, at, &plan, &r->err);
    return st ? st : reshard(r, s->number, &plan, 10);
}

static inline enum weir_status
merge(struct rig *r, const struct weir_stream *s, uint32_t shard, uint32_t adjacent)
{
    struct weir_reshard plan;
    enum weir_status st = weir_plan_merge(s, shard, adjacent, &plan, &r->err);
    return st ? st : reshard(r, s->number, &plan, 10);
}

static inline enum weir_status
update_count(struct rig *r, const struct weir_stream *s, uint32_t target)
{
    enum weir_status st = weir_plan_check_count(s, target, &r->err);
    if (st)
        return st;
    uint64_t number = s->number;
    weir_catalog_set_updating(r->catalog, number, true);
    struct weir_reshard plan;
    while (!st) {
        st = weir_plan_count_step(weir_catalog_find_number(r->catalog, number), target, &plan);
        if (!st)
            st = reshard(r, number, &plan, 10);
    }
    weir_catalog_set_updating(r->catalog, number, false);
    return st == WEIR_END ? WEIR_OK : st;
}

/* Open shards in order of their ranges: no hole, no overlap, and route finds each. */
static inline void
expect_partition(const struct weir_stream *s)
{
    weir_u128 next = 0;
    uint32_t open = 0;
    for (uint32_t i = 0; i < s->shard_count; i++)
        open += !s->shards[i].closed_ms;
    cr_assert(open == s->open_count);
    for (uint32_t place = 0; place < s->open_count; place++) {
        const struct weir_shard *shard = &s->shards[s->ring[place]];
        cr_assert(shard->range.low == next && shard->range.high >= shard->range.low);
        cr_assert(shard->closed_ms == 0 && shard->child[0] == -1);
        cr_assert(weir_stream_route(s, shard->range.low) == shard);
        cr_assert(weir_stream_route(s, shard->range.high) == shard);
        next = shard->range.high + 1;
    }
    cr_assert(next == 0);
}
