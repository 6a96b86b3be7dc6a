/* Plans: which shards close, and which ranges follow them. Pure: nothing here changes a stream. */
#include "base/assert.h"
#include "record/sequence.h"
#include "stream/stream.h"

static const char *const state_names[] = {
    [WEIR_STATE_CREATING] = "CREATING",
    [WEIR_STATE_ACTIVE] = "ACTIVE",
    [WEIR_STATE_UPDATING] = "UPDATING",
    [WEIR_STATE_DELETING] = "DELETING",
};

struct shard_id {
    char text[WEIR_SHARD_ID_LEN + 1];
};

static struct shard_id
id_of(uint32_t index)
{
    struct shard_id id;
    weir_shard_id_format(index, id.text);
    return id;
}

static enum weir_status
check_active(const struct weir_stream *s, struct weir_error *err)
{
    if (s->state == WEIR_STATE_ACTIVE)
        return WEIR_OK;
    return weir_fail(err, WEIR_BUSY, "Stream %s not ACTIVE, instead in state %s", s->name,
                     state_names[s->state]);
}

static enum weir_status
check_open(const struct weir_stream *s, uint32_t shard, struct weir_error *err)
{
    if (shard > INT32_MAX)
        return weir_fail(err, WEIR_NOT_FOUND, "Could not find shard %u in stream %s.", shard,
                         s->name);
    if (shard >= s->shard_count || s->shards[shard].expired)
        return weir_fail(err, WEIR_NOT_FOUND, "Could not find shard %s in stream %s.",
                         id_of(shard).text, s->name);
    if (s->shards[shard].closed_ms)
        return weir_fail(err, WEIR_INVALID,
                         "Shard %s in stream %s has already been merged or split, and thus is not "
                         "eligible for merging or splitting.",
                         id_of(shard).text, s->name);
    return WEIR_OK;
}

static bool
may_split_at(struct weir_hash_range r, weir_u128 at)
{
    return at > r.low && at - r.low > 1 && at < r.high;
}

static weir_u128
middle(struct weir_hash_range r)
{
    return r.low + (r.high - r.low) / 2 + 1;
}

static struct weir_reshard
split(const struct weir_shard *shard, weir_u128 at)
{
    return (struct weir_reshard){
        .parent_count = 1,
        .parent = {shard->index},
        .child_count = 2,
        .child_range = {{shard->range.low, at - 1}, {at, shard->range.high}},
    };
}

static struct weir_reshard
merge(const struct weir_shard *shard, const struct weir_shard *adjacent)
{
    bool is_lower = shard->range.low < adjacent->range.low;
    return (struct weir_reshard){
        .parent_count = 2,
        .parent = {shard->index, adjacent->index},
        .child_count = 1,
        .child_range = {{(is_lower ? shard : adjacent)->range.low,
                         (is_lower ? adjacent : shard)->range.high}},
    };
}

enum weir_status
weir_plan_split(const struct weir_stream *s, uint32_t shard, const weir_u128 *at,
                struct weir_reshard *out, struct weir_error *err)
{
    enum weir_status st = check_active(s, err);
    if (!st)
        st = check_open(s, shard, err);
    if (st)
        return st;
    struct weir_hash_range r = s->shards[shard].range;
    weir_u128 key = at ? *at : middle(r);
    if (!may_split_at(r, key)) {
        char k[WEIR_U128_DIGITS_MAX + 1], low[sizeof k], high[sizeof k];
        weir_u128_format(key, k);
        weir_u128_format(r.low, low);
        weir_u128_format(r.high, high);
        return weir_fail(
            err, WEIR_INVALID,
            "NewStartingHashKey %s used in SplitShard() on shard %s in stream %s is not "
            "both greater than one plus the shard's StartingHashKey %s and less than the "
            "shard's EndingHashKey %s.",
            k, id_of(shard).text, s->name, low, high);
    }
    if (s->open_count >= WEIR_SHARDS_PER_STREAM_MAX)
        return weir_fail(err, WEIR_TOO_BIG, "Stream %s has %u open shards, which is the limit",
                         s->name, s->open_count);
    *out = split(&s->shards[shard], key);
    return WEIR_OK;
}

enum weir_status
weir_plan_merge(const struct weir_stream *s, uint32_t shard, uint32_t adjacent,
                struct weir_reshard *out, struct weir_error *err)
{
    enum weir_status st = check_active(s, err);
    if (!st)
        st = check_open(s, shard, err);
    if (!st)
        st = check_open(s, adjacent, err);
    if (st)
        return st;
    const struct weir_shard *a = &s->shards[shard], *b = &s->shards[adjacent];
    const struct weir_shard *lower = a->range.low < b->range.low ? a : b,
                            *upper = lower == a ? b : a;
    if (shard == adjacent || upper->range.low - lower->range.high != 1)
        return weir_fail(
            err, WEIR_INVALID,
            "Shards %s and %s in stream %s are not an adjacent pair of shards eligible "
            "for merging",
            id_of(shard).text, id_of(adjacent).text, s->name);
    *out = merge(a, b);
    return WEIR_OK;
}

/* ---- UpdateShardCount ---- */

/* Floor divisions of the ring by different counts meet in the same place up to this. */
#define ROUNDING ((weir_u128)2 * WEIR_SHARDS_PER_STREAM_MAX)

static weir_u128
distance(weir_u128 a, weir_u128 b)
{
    return a > b ? a - b : b - a;
}

static bool
is_near(weir_u128 a, weir_u128 b)
{
    return distance(a, b) <= ROUNDING;
}

enum weir_status
weir_plan_check_count(const struct weir_stream *s, uint32_t target, struct weir_error *err)
{
    enum weir_status st = check_active(s, err);
    if (st)
        return st;
    if (target > 2 * (uint64_t)s->open_count)
        return weir_fail(
            err, WEIR_INVALID,
            "UpdateShardCount cannot scale up over double your current open shard count. "
            "Current open shard count: %u Target shard count: %u",
            s->open_count, target);
    if (target < s->open_count - s->open_count / 2)
        return weir_fail(
            err, WEIR_INVALID,
            "UpdateShardCount cannot scale down below half your current open shard count. "
            "Current open shard count: %u Target shard count: %u",
            s->open_count, target);
    if (target > WEIR_SHARDS_PER_STREAM_MAX)
        return weir_fail(err, WEIR_TOO_BIG, "Stream %s cannot have %u open shards, the limit is %d",
                         s->name, target, WEIR_SHARDS_PER_STREAM_MAX);
    return WEIR_OK;
}

static const struct weir_shard *
open_shard(const struct weir_stream *s, uint32_t place)
{
    return &s->shards[s->ring[place]];
}

static weir_u128
target_low(uint32_t i, uint32_t target)
{
    return weir_hash_range_of(i, target).low;
}

/* The first place where a range of the target begins and none of the stream's does. */
static bool
split_at_missing(const struct weir_stream *s, uint32_t target, struct weir_reshard *out)
{
    uint32_t place = 0;
    for (uint32_t i = 1; i < target; i++) {
        weir_u128 at = target_low(i, target);
        while (open_shard(s, place)->range.high < at)
            place++;
        const struct weir_shard *shard = open_shard(s, place);
        /* The end of the ring is no beginning of a range, but no target is near to it either. */
        if (is_near(shard->range.low, at) || is_near(shard->range.high, at))
            continue;
        *out = split(shard, at);
        return true;
    }
    return false;
}

/* Where the shard is split on the way to more shards: where a range of the target begins, the one
 * next to its middle; else in its middle. */
static weir_u128
place_to_split(const struct weir_shard *shard, uint32_t target)
{
    weir_u128 mid = middle(shard->range), best = 0;
    weir_u128 width = weir_hash_range_of(0, target).high + 1; /* target > 1: does not wrap */
    uint32_t below = (uint32_t)(mid / width);
    for (uint32_t i = below; i <= below + 1 && i < target; i++) {
        weir_u128 low = target_low(i, target);
        if (!may_split_at(shard->range, low) || is_near(low, shard->range.low) ||
            is_near(low, shard->range.high))
            continue;
        if (!best || distance(low, mid) < distance(best, mid))
            best = low;
    }
    return best ? best : mid;
}

/* A shard that was there when the update began. */
static bool
split_first_old(const struct weir_stream *s, uint32_t target, struct weir_reshard *out)
{
    for (uint32_t place = 0; place < s->open_count; place++) {
        const struct weir_shard *shard = open_shard(s, place);
        if (shard->index < s->update_first && may_split_at(shard->range, middle(shard->range))) {
            *out = split(shard, place_to_split(shard, target));
            return true;
        }
    }
    return false;
}

static bool
split_widest(const struct weir_stream *s, struct weir_reshard *out)
{
    const struct weir_shard *widest = open_shard(s, 0);
    for (uint32_t place = 1; place < s->open_count; place++) {
        const struct weir_shard *shard = open_shard(s, place);
        if (shard->range.high - shard->range.low > widest->range.high - widest->range.low)
            widest = shard;
    }
    if (!may_split_at(widest->range, middle(widest->range)))
        return false;
    *out = split(widest, middle(widest->range));
    return true;
}

static bool
begins_target(weir_u128 low, uint32_t target)
{
    weir_u128 width = weir_hash_range_of(0, target).high + 1;
    uint32_t below = target > 1 ? (uint32_t)(low / width) : 0;
    return (below < target && is_near(low, target_low(below, target))) ||
           (below + 1 < target && is_near(low, target_low(below + 1, target)));
}

/* The neighbours with the narrowest range together; those first between which no range of the
 * target begins. False: there is none, or only such as the target wants and `any` is not set. */
static bool
merge_narrowest(const struct weir_stream *s, uint32_t target, bool any, struct weir_reshard *out)
{
    const struct weir_shard *best = NULL, *best_next = NULL;
    bool best_wanted = true;
    for (uint32_t place = 0; place + 1 < s->open_count; place++) {
        const struct weir_shard *shard = open_shard(s, place), *next = open_shard(s, place + 1);
        bool wanted = begins_target(next->range.low, target);
        if (wanted && (!any || !best_wanted))
            continue;
        if (best && best_wanted == wanted &&
            next->range.high - shard->range.low >= best_next->range.high - best->range.low)
            continue;
        best = shard;
        best_next = next;
        best_wanted = wanted;
    }
    if (!best)
        return false;
    *out = merge(best, best_next);
    return true;
}

enum weir_status
weir_plan_count_step(const struct weir_stream *s, uint32_t target, struct weir_reshard *out)
{
    WEIR_ASSERT(s->state == WEIR_STATE_UPDATING);
    WEIR_ASSERT(target >= 1 && target <= WEIR_SHARDS_PER_STREAM_MAX);
    if (s->update_open == target)
        return WEIR_END;
    bool is_quarter = 4 * (uint64_t)target % s->update_open == 0;
    if (is_quarter && split_at_missing(s, target, out))
        return WEIR_OK;
    if (!is_quarter && target > s->update_open && split_first_old(s, target, out))
        return WEIR_OK;
    if (s->open_count < target)
        return split_widest(s, out) ? WEIR_OK : WEIR_INVALID;
    if (is_quarter && merge_narrowest(s, target, false, out))
        return WEIR_OK;
    if (s->open_count > target && merge_narrowest(s, target, true, out))
        return WEIR_OK;
    return WEIR_END;
}
