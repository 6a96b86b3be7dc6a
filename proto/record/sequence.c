#include "record/sequence.h"
#include "base/assert.h"
#include "base/u128.h"

/* The number as 192 bits, the least significant word first. Bits of it:
 *
 *   188  184        148    144      80   72      36             4   0
 *     | 2 | created  | nibble | offset | 00 | at   | shard index | 2 |
 */
struct wide {
    uint64_t word[3];
};

/* 56 decimal digits are three groups of this base: 18 + 19 + 19. */
#define GROUP 10000000000000000000ull
enum { GROUP_DIGITS = 19, TOP_DIGITS = WEIR_SEQUENCE_DIGITS - 2 * GROUP_DIGITS };

static uint64_t
divide(struct wide *w, uint64_t by)
{
    weir_u128 rest = 0;
    for (int i = 2; i >= 0; i--) {
        weir_u128 part = rest << 64 | w->word[i];
        w->word[i] = (uint64_t)(part / by);
        rest = part % by;
    }
    return (uint64_t)rest;
}

static void
multiply_add(struct wide *w, uint64_t by, uint64_t add)
{
    weir_u128 carry = add;
    for (int i = 0; i < 3; i++) {
        carry += (weir_u128)w->word[i] * by;
        w->word[i] = (uint64_t)carry;
        carry >>= 64;
    }
    WEIR_ASSERT(carry == 0);
}

static void
format_group(uint64_t v, int digits, char *out)
{
    for (int i = digits - 1; i >= 0; i--, v /= 10)
        out[i] = (char)('0' + v % 10);
}

void
weir_sequence_format(const struct weir_sequence *s, char out[WEIR_SEQUENCE_DIGITS + 1])
{
    WEIR_ASSERT(s->shard_created_s < 1ull << 36);
    WEIR_ASSERT(s->at_s < 1ull << 36);
    WEIR_ASSERT(s->offset <= WEIR_SEQUENCE_OFFSET_END);
    WEIR_ASSERT(s->shard_index <= INT32_MAX);

    struct wide w = {{
        s->at_s << 36 | (uint64_t)s->shard_index << 4 | 2,
        s->offset << 16 | s->at_s >> 28,
        2ull << 56 | s->shard_created_s << 20 | (uint64_t)(s->shard_index & 15) << 16 |
            s->offset >> 48,
    }};
    uint64_t low = divide(&w, GROUP);
    uint64_t middle = divide(&w, GROUP);
    format_group(w.word[0], TOP_DIGITS, out);
    format_group(middle, GROUP_DIGITS, out + TOP_DIGITS);
    format_group(low, GROUP_DIGITS, out + TOP_DIGITS + GROUP_DIGITS);
    out[WEIR_SEQUENCE_DIGITS] = 0;
}

static bool
parse_group(const uint8_t *text, int digits, uint64_t *out)
{
    uint64_t v = 0;
    for (int i = 0; i < digits; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        v = v * 10 + (text[i] - '0');
    }
    *out = v;
    return true;
}

enum weir_status
weir_sequence_parse(struct weir_bytes text, struct weir_sequence *out)
{
    uint64_t top, middle, low;
    if (text.len != WEIR_SEQUENCE_DIGITS || !parse_group(text.data, TOP_DIGITS, &top) ||
        !parse_group(text.data + TOP_DIGITS, GROUP_DIGITS, &middle) ||
        !parse_group(text.data + TOP_DIGITS + GROUP_DIGITS, GROUP_DIGITS, &low))
        return WEIR_INVALID;

    struct wide w = {{top}};
    multiply_add(&w, GROUP, middle);
    multiply_add(&w, GROUP, low);

    uint64_t nibble = w.word[2] >> 16 & 15;
    struct weir_sequence s = {
        .shard_created_s = w.word[2] >> 20 & ((1ull << 36) - 1),
        .shard_index = (uint32_t)(w.word[0] >> 4),
        .offset = w.word[2] << 48 | w.word[1] >> 16,
        .at_s = (w.word[1] & 0xff) << 28 | w.word[0] >> 36,
    };
    bool form = w.word[2] >> 56 == 2 && (w.word[0] & 15) == 2 && (w.word[1] >> 8 & 0xff) == 0;
    if (!form || nibble != (s.shard_index & 15) || s.shard_index > INT32_MAX ||
        s.offset > WEIR_SEQUENCE_OFFSET_END)
        return WEIR_INVALID;
    *out = s;
    return WEIR_OK;
}

void
weir_shard_id_format(uint32_t index, char out[WEIR_SHARD_ID_LEN + 1])
{
    memcpy(out, "shardId-", 8);
    format_group(index, WEIR_SHARD_ID_LEN - 8, out + 8);
    out[WEIR_SHARD_ID_LEN] = 0;
}

enum weir_status
weir_shard_id_parse(struct weir_bytes text, uint32_t *index_out)
{
    const uint8_t *dash = text.len ? memchr(text.data, '-', text.len) : NULL;
    const uint8_t *end = text.data + text.len;
    const uint8_t *digit = dash ? dash + 1 : text.data;
    if (digit == end)
        return WEIR_INVALID;
    uint64_t index = 0;
    for (; digit < end; digit++) {
        if (*digit < '0' || *digit > '9')
            return WEIR_INVALID;
        index = index * 10 + (*digit - '0');
        if (index > INT32_MAX)
            return WEIR_INVALID;
    }
    *index_out = (uint32_t)index;
    return WEIR_OK;
}
