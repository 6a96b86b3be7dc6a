#include "base/text.h"

#define HIGH_BITS 0x8080808080808080u

static inline uint64_t
load(const uint8_t *p)
{
    uint64_t word;
    memcpy(&word, p, 8);
    return word;
}

static inline bool
is_tail(uint8_t b)
{
    return (b & 0xc0) == 0x80;
}

/* Bytes of the well-formed character at p (RFC 3629's table), 0 if there is none. */
static size_t
character(const uint8_t *p, size_t left)
{
    uint8_t first = p[0];
    if (first < 0x80)
        return 1;
    if (first < 0xc2)
        return 0;
    if (first < 0xe0)
        return left >= 2 && is_tail(p[1]) ? 2 : 0;
    if (first < 0xf0) {
        if (left < 3 || !is_tail(p[1]) || !is_tail(p[2]))
            return 0;
        bool overlong = first == 0xe0 && p[1] < 0xa0;
        bool surrogate = first == 0xed && p[1] >= 0xa0;
        return overlong || surrogate ? 0 : 3;
    }
    if (first > 0xf4 || left < 4 || !is_tail(p[1]) || !is_tail(p[2]) || !is_tail(p[3]))
        return 0;
    bool overlong = first == 0xf0 && p[1] < 0x90;
    bool beyond = first == 0xf4 && p[1] >= 0x90;
    return overlong || beyond ? 0 : 4;
}

bool
weir_utf8_is_valid(struct weir_bytes text)
{
    const uint8_t *p = text.data;
    size_t left = text.len;
    while (left > 0) {
        while (left >= 16 && !((load(p) | load(p + 8)) & HIGH_BITS)) {
            p += 16;
            left -= 16;
        }
        if (left == 0)
            break;
        size_t n = character(p, left);
        if (n == 0)
            return false;
        p += n;
        left -= n;
    }
    return true;
}

size_t
weir_utf8_count(struct weir_bytes text)
{
    size_t count = 0, i = 0;
    for (; i + 8 <= text.len; i += 8) {
        /* A tail byte has its high bit set and the next one clear. */
        uint64_t word = load(text.data + i);
        uint64_t tails = word & ~(word << 1) & HIGH_BITS;
        count += 8 - (size_t)__builtin_popcountll(tails);
    }
    for (; i < text.len; i++)
        count += !is_tail(text.data[i]);
    return count;
}
