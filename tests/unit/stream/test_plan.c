#include "unit/stream/catalog.h"

static const struct weir_stream *
start(struct rig *r, uint32_t shards)
{
    rig_init(r);
    OK(create(r, "orders", shards));
    return r->stream;
}

/* A split without a key halves the shard; the lower half has the lower index, and the parent knows
 * both. */
Test(plan, splits_in_the_middle)
{
    struct rig r;
    const struct weir_stream *s = start(&r, 1);
    OK(split(&r, s, 0, NULL));
    cr_expect(eq(u32, s->shard_count, 3));
    cr_expect(eq(u32, s->open_count, 2));
    weir_u128 half = (weir_u128)1 << 127;
    cr_expect(s->shards[1].range.low == 0 && s->shards[1].range.high == half - 1);
    cr_expect(s->shards[2].range.low == half && s->shards[2].range.high == WEIR_U128_MAX);
    cr_expect(s->shards[0].child[0] == 1 && s->shards[0].child[1] == 2);
    cr_expect(s->shards[1].parent == 0 && s->shards[1].adjacent_parent == -1);
    cr_expect(eq(u64, s->shards[0].end, 10));
    expect_partition(s);
    rig_fini(&r);
}

/* The upper child begins at the key that was asked for, which must be greater than the parent's
 * first plus one and less than its last. */
Test(plan, splits_at_a_key_within_bounds)
{
    struct rig r;
    const struct weir_stream *s = start(&r, 2);
    struct weir_hash_range range = s->shards[1].range;
    struct weir_reshard plan;
    const weir_u128 bad[] = {0, range.low - 1, range.low, range.low + 1, range.high, WEIR_U128_MAX};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        IS(weir_plan_split(s, 1, &bad[i], &plan, &r.err), WEIR_INVALID);
    cr_expect(
        strcmp(r.err.text,
               "NewStartingHashKey 340282366920938463463374607431768211455 used in SplitShard() on "
               "shard shardId-000000000001 in stream orders is not both greater than one plus the "
               "shard's StartingHashKey 170141183460469231731687303715884105728 and less than the "
               "shard's EndingHashKey 340282366920938463463374607431768211455.") == 0,
        "%s", r.err.text);
    const weir_u128 good[] = {range.low + 2, range.high - 1};
    for (size_t i = 0; i < 2; i++) {
        OK(weir_plan_split(s, 1, &good[i], &plan, &r.err));
        cr_expect(plan.child_range[0].low == range.low && plan.child_range[0].high == good[i] - 1);
        cr_expect(plan.child_range[1].low == good[i] && plan.child_range[1].high == range.high);
    }
    rig_fini(&r);
}

/* Neighbours merge in either order; the child's parent is the one named first. */
Test(plan, merges_neighbours_in_either_order)
{
    struct rig r;
    const struct weir_stream *s = start(&r, 4);
    OK(merge(&r, s, 0, 1));
    cr_expect(s->shards[4].parent == 0 && s->shards[4].adjacent_parent == 1);
    OK(merge(&r, s, 3, 2));
    cr_expect(s->shards[5].parent == 3 && s->shards[5].adjacent_parent == 2);
    cr_expect(s->shards[2].child[0] == 5 && s->shards[3].child[0] == 5 &&
              s->shards[3].child[1] == -1);
    cr_expect(eq(u64, s->shards[3].end, 10));
    cr_expect(eq(u64, s->shards[2].end, 11));
    expect_partition(s);
    struct weir_reshard plan;
    IS(weir_plan_merge(s, 4, 4, &plan, &r.err), WEIR_INVALID);
    rig_fini(&r);
}

/* Shards that are not neighbours do not merge, nor the two ends of the ring. */
Test(plan, refuses_to_merge_what_is_not_adjacent)
{
    struct rig r;
    const struct weir_stream *s = start(&r, 4);
    struct weir_reshard plan;
    IS(weir_plan_merge(s, 0, 2, &plan, &r.err), WEIR_INVALID);
    IS(weir_plan_merge(s, 3, 0, &plan, &r.err), WEIR_INVALID);
    cr_expect(
        strcmp(r.err.text,
               "Shards shardId-000000000003 and shardId-000000000000 in stream orders are not an "
               "adjacent pair of shards eligible for merging") == 0,
        "%s", r.err.text);
    rig_fini(&r);
}

/* A closed shard is neither split nor merged again, not even by a plan made before it was closed.
 */
Test(plan, refuses_closed_shards)
{
    struct rig r;
    const struct weir_stream *s = start(&r, 2);
    struct weir_reshard stale, plan;
    OK(weir_plan_split(s, 0, NULL, &stale, &r.err));
    OK(split(&r, s, 0, NULL));
    IS(weir_plan_split(s, 0, NULL, &plan, &r.err), WEIR_INVALID);
    cr_expect(strcmp(r.err.text,
                     "Shard shardId-000000000000 in stream orders has already been merged or "
                     "split, and thus is not eligible for merging or splitting.") == 0,
              "%s", r.err.text);
    IS(weir_plan_merge(s, 0, 1, &plan, &r.err), WEIR_INVALID);
    IS(weir_plan_merge(s, 1, 0, &plan, &r.err), WEIR_INVALID);
    IS(reshard(&r, s->number, &stale, 1), WEIR_INVALID);
    IS(weir_plan_split(s, 99, NULL, &plan, &r.err), WEIR_NOT_FOUND);
    IS(weir_plan_split(s, UINT32_MAX, NULL, &plan, &r.err), WEIR_NOT_FOUND);
    cr_expect(eq(u32, s->shard_count, 4));
    expect_partition(s);
    rig_fini(&r);
}

/* A stream that is not ACTIVE is not resharded by a new plan. */
Test(plan, refuses_streams_that_are_not_active)
{
    struct rig r;
    const struct weir_stream *s = start(&r, 2);
    struct weir_reshard plan;
    weir_catalog_set_updating(r.catalog, s->number, true);
    IS(weir_plan_split(s, 0, NULL, &plan, &r.err), WEIR_BUSY);
    cr_expect(strcmp(r.err.text, "Stream orders not ACTIVE, instead in state UPDATING") == 0);
    IS(weir_plan_merge(s, 0, 1, &plan, &r.err), WEIR_BUSY);
    IS(weir_plan_check_count(s, 4, &r.err), WEIR_BUSY);
    weir_catalog_set_updating(r.catalog, s->number, false);
    OK(begin_delete(&r, s->number));
    weir_catalog_set_updating(r.catalog, s->number, false);
    IS(weir_plan_split(s, 0, NULL, &plan, &r.err), WEIR_BUSY);
    rig_fini(&r);
}

/* What real Kinesis leaves in the list of shards after UpdateShardCount. */
Test(plan, leaves_the_shard_totals_of_kinesis)
{
    static const struct {
        uint32_t from, to, total;
    } cases[] = {{4, 5, 15}, {10, 13, 37}, {5, 3, 7},  {2, 4, 6}, {4, 2, 6},
                 {1, 2, 3},  {3, 6, 9},    {4, 6, 14}, {7, 7, 7}, {2, 1, 3}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct rig r;
        const struct weir_stream *s = start(&r, cases[i].from);
        OK(update_count(&r, s, cases[i].to));
        cr_expect(s->open_count == cases[i].to, "%u to %u: %u open", cases[i].from, cases[i].to,
                  s->open_count);
        cr_expect(s->shard_count == cases[i].total, "%u to %u: %u in all", cases[i].from,
                  cases[i].to, s->shard_count);
        expect_partition(s);
        rig_fini(&r);
    }
}

/* Targets that are multiples of 25 % end with equal ranges; from any ring, also an uneven one. */
Test(plan, ends_with_equal_ranges_at_quarters)
{
    for (uint32_t from = 1; from <= 24; from++) {
        for (uint32_t quarter = 2; quarter <= 8; quarter++) {
            uint32_t to = from * quarter / 4;
            if (to * 4 != from * quarter || quarter == 4)
                continue;
            struct rig r;
            const struct weir_stream *s = start(&r, from);
            if (from > 2 && from % 3 == 0) {
                weir_u128 at = s->shards[0].range.low + 12345;
                OK(split(&r, s, 0, &at));
                OK(merge(&r, s, 1, 2));
            }
            OK(update_count(&r, s, to));
            cr_assert(s->open_count == to, "%u to %u: %u", from, to, s->open_count);
            for (uint32_t place = 0; place < to; place++) {
                weir_u128 low = s->shards[s->ring[place]].range.low;
                weir_u128 wanted = weir_hash_range_of(place, to).low;
                weir_u128 off = low > wanted ? low - wanted : wanted - low;
                cr_assert(off <= 20000, "%u to %u: range %u", from, to, place);
            }
            rig_fini(&r);
        }
    }
}

/* Any target within half and double is reached; others are refused in Kinesis's words. */
Test(plan, reaches_every_count_within_half_and_double)
{
    for (uint32_t from = 1; from <= 12; from++) {
        for (uint32_t to = 0; to <= 2 * from + 1; to++) {
            struct rig r;
            const struct weir_stream *s = start(&r, from);
            enum weir_status st = update_count(&r, s, to);
            if (to > 2 * from || 2 * to < from || to == 0) {
                IS(st, WEIR_INVALID);
            } else {
                OK(st);
                cr_assert(s->open_count == to);
                expect_partition(s);
            }
            rig_fini(&r);
        }
    }
    struct rig r;
    const struct weir_stream *s = start(&r, 2);
    IS(weir_plan_check_count(s, 5, &r.err), WEIR_INVALID);
    cr_expect(strcmp(r.err.text,
                     "UpdateShardCount cannot scale up over double your current open shard "
                     "count. Current open shard count: 2 Target shard count: 5") == 0);
    rig_fini(&r);
}

/* A count is reached also where most shards are too narrow to be split. */
Test(plan, counts_over_narrow_shards)
{
    struct rig r;
    const struct weir_stream *s = start(&r, 1);
    for (uint32_t i = 0; i < 6; i++) {
        weir_u128 at = 2 * (weir_u128)(i + 1);
        OK(split(&r, s, s->ring[s->open_count - 1], &at));
    }
    cr_assert(s->open_count == 7);
    OK(update_count(&r, s, 11));
    cr_expect(eq(u32, s->open_count, 11));
    expect_partition(s);
    OK(update_count(&r, s, 22));
    cr_expect(eq(u32, s->open_count, 22));
    OK(update_count(&r, s, 11));
    cr_expect(eq(u32, s->open_count, 11));
    expect_partition(s);
    rig_fini(&r);
}

/* A child's second is after its parents', however fast reshards follow each other, and no moment is
 * without a shard that was there for each hash key. */
Test(plan, moves_creation_on_by_a_second)
{
    struct rig r;
    const struct weir_stream *s = start(&r, 1);
    for (int i = 0; i < 5; i++)
        OK(split(&r, s, s->ring[0], NULL));
    for (uint32_t i = 0; i < s->shard_count; i++) {
        const struct weir_shard *shard = &s->shards[i];
        if (shard->parent < 0)
            continue;
        const struct weir_shard *parent = &s->shards[shard->parent];
        cr_expect(gt(u64, shard->created_ms / 1000, parent->created_ms / 1000));
        cr_expect(eq(u64, parent->closed_ms + 1, shard->created_ms));
        cr_expect(ge(u64, parent->closed_ms, parent->created_ms));
    }
    rig_fini(&r);
}
