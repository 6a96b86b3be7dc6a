/* Random changes of a catalog against ten naive lines: a list of streams, each a list of shards. */
#include "sys/random.h"
#include "unit/stream/catalog.h"

enum { STREAMS = 6, SHARDS = 4000 };

struct model_shard {
    weir_u128 low, high;
    bool open;
    uint64_t number;
    int parent, adjacent;
};

struct model_stream {
    bool there, deleting;
    uint64_t number, retention_ms;
    int count;
    struct model_shard shards[SHARDS];
};

struct model {
    struct model_stream streams[STREAMS];
    uint64_t streams_seen, shards_seen; /* numbers given out */
};

static const char *const names[STREAMS] = {"a", "b", "c.d", "c-d", "e_f", "Z"};

static void
model_add(struct model *m, struct model_stream *s, weir_u128 low, weir_u128 high, int parent,
          int adjacent)
{
    WEIR_ASSERT(s->count < SHARDS);
    s->shards[s->count++] =
        (struct model_shard){low, high, true, ++m->shards_seen, parent, adjacent};
}

static void
model_reshard(struct model *m, struct model_stream *s, const struct weir_reshard *r)
{
    for (uint32_t i = 0; i < r->parent_count; i++)
        s->shards[r->parent[i]].open = false;
    for (uint32_t k = 0; k < r->child_count; k++)
        model_add(m, s, r->child_range[k].low, r->child_range[k].high, (int)r->parent[0],
                  r->parent_count == 2 ? (int)r->parent[1] : -1);
}

static void
compare(const struct model *m, const struct weir_catalog *c, uint64_t seed)
{
    size_t count = 0;
    for (int i = 0; i < STREAMS; i++) {
        const struct model_stream *want = &m->streams[i];
        const struct weir_stream *s = weir_catalog_find(c, text(names[i]));
        cr_assert(want->there == (s != NULL), "seed %lu", seed);
        if (!s)
            continue;
        count++;
        cr_assert(s->number == want->number && s->retention_ms == want->retention_ms, "seed %lu",
                  seed);
        cr_assert(want->deleting == (s->state == WEIR_STATE_DELETING), "seed %lu", seed);
        cr_assert(want->count == (int)s->shard_count, "seed %lu", seed);
        for (int k = 0; k < want->count; k++) {
            const struct weir_shard *shard = &s->shards[k];
            const struct model_shard *w = &want->shards[k];
            cr_assert(shard->range.low == w->low && shard->range.high == w->high, "seed %lu", seed);
            cr_assert(w->open == !shard->closed_ms && shard->number == w->number, "seed %lu", seed);
            cr_assert(shard->parent == w->parent && shard->adjacent_parent == w->adjacent,
                      "seed %lu", seed);
            if (w->parent >= 0) {
                const struct weir_shard *parent = &s->shards[w->parent];
                cr_assert(parent->child[0] == k || parent->child[1] == k, "seed %lu", seed);
                cr_assert(parent->closed_ms > 0, "seed %lu", seed);
            }
        }
        expect_partition(s);
    }
    cr_assert(weir_catalog_count(c) == count, "seed %lu", seed);
}

static weir_u128
random_key(struct weir_random *random)
{
    weir_u128 key = (weir_u128)weir_random_u64(random) << 64 | weir_random_u64(random);
    return weir_random_below(random, 4) ? key : key >> weir_random_below(random, 127);
}

static void
step(struct rig *r, struct model *m, struct weir_random *random)
{
    int i = (int)weir_random_below(random, STREAMS);
    struct model_stream *want = &m->streams[i];
    const struct weir_stream *s = weir_catalog_find(r->catalog, text(names[i]));
    struct weir_reshard plan;
    uint32_t shard = s ? (uint32_t)weir_random_below(random, s->shard_count + 1) : 0;
    uint32_t open = s ? s->ring[weir_random_below(random, s->open_count)] : 0;
    weir_clock_manual_advance(&r->table.clock, weir_random_below(random, 1500));

    switch (weir_random_below(random, 8)) {
    case 0:
    case 1: {
        uint32_t shards = 1 + (uint32_t)weir_random_below(random, 9);
        enum weir_status st = create(r, names[i], shards);
        if (want->there) {
            IS(st, WEIR_EXISTS);
            break;
        }
        OK(st);
        *want = (struct model_stream){
            .there = true, .number = ++m->streams_seen, .retention_ms = WEIR_RETENTION_MS_DEFAULT};
        weir_u128 width = WEIR_U128_MAX / shards + (WEIR_U128_MAX % shards == shards - 1);
        for (uint32_t k = 0; k < shards; k++)
            model_add(m, want, shards > 1 ? width * k : 0,
                      k + 1 == shards ? WEIR_U128_MAX : width * (k + 1) - 1, -1, -1);
        break;
    }
    case 2:
    case 3: {
        if (!s)
            break;
        weir_u128 at = random_key(random);
        const struct weir_shard *routed = weir_stream_route(s, at);
        cr_assert(routed->range.low <= at && at <= routed->range.high);
        uint32_t index = weir_random_below(random, 3) ? routed->index : shard;
        enum weir_status st = weir_plan_split(s, index, &at, &plan, NULL);
        if (want->deleting) {
            IS(st, WEIR_BUSY);
        } else if ((int)index >= want->count) {
            IS(st, WEIR_NOT_FOUND);
        } else if (!want->shards[index].open || at <= want->shards[index].low ||
                   at == want->shards[index].low + 1 || at >= want->shards[index].high) {
            IS(st, WEIR_INVALID);
        } else {
            OK(st);
            OK(reshard(r, s->number, &plan, 5));
            model_reshard(m, want, &plan);
        }
        break;
    }
    case 4: {
        if (!s)
            break;
        uint32_t other = weir_random_below(random, 2) ? shard : s->ring[0];
        for (uint32_t place = 0; place + 1 < s->open_count; place++)
            if (s->ring[place] == open && weir_random_below(random, 4))
                other = s->ring[place + 1];
        enum weir_status st = weir_plan_merge(s, open, other, &plan, NULL);
        if (want->deleting) {
            IS(st, WEIR_BUSY);
        } else if ((int)other >= want->count) {
            IS(st, WEIR_NOT_FOUND);
        } else {
            const struct model_shard *a = &want->shards[open], *b = &want->shards[other];
            bool adjacent = b->open && ((a->high != WEIR_U128_MAX && a->high + 1 == b->low) ||
                                        (b->high != WEIR_U128_MAX && b->high + 1 == a->low));
            IS(st, adjacent ? WEIR_OK : WEIR_INVALID);
            if (adjacent) {
                OK(reshard(r, s->number, &plan, 5));
                model_reshard(m, want, &plan);
            }
        }
        break;
    }
    case 5: {
        if (!s || want->deleting || s->open_count > 40)
            break;
        uint32_t low = (s->open_count + 1) / 2;
        uint32_t target = low + (uint32_t)weir_random_below(random, 2 * s->open_count - low + 1);
        weir_catalog_set_updating(r->catalog, s->number, true);
        while (!weir_plan_count_step(s, target, &plan)) {
            OK(reshard(r, s->number, &plan, 5));
            model_reshard(m, want, &plan);
        }
        weir_catalog_set_updating(r->catalog, s->number, false);
        cr_assert(s->open_count == target, "%u instead of %u", s->open_count, target);
        break;
    }
    case 6: {
        if (!s)
            break;
        struct answer a;
        begin_answer(&a);
        uint64_t retention_ms = WEIR_RETENTION_MS_MIN + weir_random_below(random, 1000);
        weir_catalog_set_retention(r->catalog, s->number, retention_ms, 0, &a.change);
        IS(finish_answer(r, &a), want->deleting ? WEIR_BUSY : WEIR_OK);
        if (!want->deleting)
            want->retention_ms = retention_ms;
        break;
    }
    default:
        if (!s || weir_random_below(random, 3))
            break;
        if (want->deleting) {
            OK(finish_delete(r, s->number));
            want->there = false;
        } else {
            OK(begin_delete(r, s->number));
            want->deleting = true;
        }
    }
}

/* Whatever is done in whatever order, the catalog agrees with the naive one, and a restart gives
 * the same. */
Test(catalog_model, agrees_with_a_naive_catalog)
{
    for (uint64_t seed = 1; seed <= 30; seed++) {
        struct rig r;
        struct model *m = calloc(1, sizeof *m);
        struct weir_random random;
        weir_random_init(&random, seed);
        rig_init(&r);
        for (int i = 0; i < 400; i++) {
            step(&r, m, &random);
            if (i % 10 == 0)
                compare(m, r.catalog, seed);
            if (weir_random_below(&random, 40) == 0)
                rig_reopen(&r);
        }
        rig_reopen(&r);
        compare(m, r.catalog, seed);
        rig_fini(&r);
        free(m);
    }
}
