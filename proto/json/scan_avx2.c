/* The scans with AVX2; called only after weir_json_has_avx2(). */
#include "json/scan.h"
#include <assert.h>

static_assert(sizeof(__m256i) == 32, "this file is compiled with AVX2");

const uint8_t *
weir_json_scan_avx2(const uint8_t *p, const uint8_t *end)
{
    return weir_scan_string(p, end);
}

/* UTF-8 is checked as Keiser and Lemire do it ("Validating UTF-8 in less than one instruction per
 * byte"): three table look-ups on the nibbles of each byte and of the byte before it, each giving
 * the set of errors that this nibble leaves possible; what is in all three sets is an error. The
 * third and fourth bytes of a sequence, which this does not see, must stand exactly where two
 * continuations in a row are found. */
enum {
    TOO_SHORT = 1 << 0,  /* a lead, and no continuation after it */
    TOO_LONG = 1 << 1,   /* a continuation after ASCII */
    OVERLONG_3 = 1 << 2, /* 11100000 100_____ */
    TOO_LARGE = 1 << 3,  /* 11110100 1001____ and up */
    SURROGATE = 1 << 4,  /* 11101101 101_____ */
    OVERLONG_2 = 1 << 5, /* 1100000_ 10______ */
    OVERLONG_4 = 1 << 6, /* 11110000 1000____; and 11110101 and up with 1000____ */
    TWO_CONTS = 1 << 7,  /* 10______ 10______: right only inside longer sequences */
    CARRY = TOO_SHORT | TOO_LONG | TWO_CONTS, /* the low nibble does not decide these */
};

static inline __m256i
look_up(__m256i nibbles, const uint8_t table[16])
{
    __m128i row = _mm_loadu_si128((const __m128i *)(const void *)table);
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(row), nibbles);
}

static inline __m256i
high_nibbles(__m256i v)
{
    return _mm256_and_si256(_mm256_srli_epi16(v, 4), _mm256_set1_epi8(0x0f));
}

/* Errors of the 32 bytes `now`, which follow `before`: any bit set. */
static inline __m256i
block_errors(__m256i now, __m256i before)
{
    static const uint8_t first_high[16] = {
        TOO_LONG,
        TOO_LONG,
        TOO_LONG,
        TOO_LONG,
        TOO_LONG,
        TOO_LONG,
        TOO_LONG,
        TOO_LONG,
        TWO_CONTS,
        TWO_CONTS,
        TWO_CONTS,
        TWO_CONTS,
        TOO_SHORT | OVERLONG_2,
        TOO_SHORT,
        TOO_SHORT | OVERLONG_3 | SURROGATE,
        TOO_SHORT | TOO_LARGE | OVERLONG_4,
    };
    static const uint8_t first_low[16] = {
        CARRY | OVERLONG_3 | OVERLONG_2 | OVERLONG_4,
        CARRY | OVERLONG_2,
        CARRY,
        CARRY,
        CARRY | TOO_LARGE,
        CARRY | TOO_LARGE | OVERLONG_4,
        CARRY | TOO_LARGE | OVERLONG_4,
        CARRY | TOO_LARGE | OVERLONG_4,
        CARRY | TOO_LARGE | OVERLONG_4,
        CARRY | TOO_LARGE | OVERLONG_4,
        CARRY | TOO_LARGE | OVERLONG_4,
        CARRY | TOO_LARGE | OVERLONG_4,
        CARRY | TOO_LARGE | OVERLONG_4,
        CARRY | TOO_LARGE | OVERLONG_4 | SURROGATE,
        CARRY | TOO_LARGE | OVERLONG_4,
        CARRY | TOO_LARGE | OVERLONG_4,
    };
    static const uint8_t second_high[16] = {
        TOO_SHORT,
        TOO_SHORT,
        TOO_SHORT,
        TOO_SHORT,
        TOO_SHORT,
        TOO_SHORT,
        TOO_SHORT,
        TOO_SHORT,
        TOO_LONG | OVERLONG_2 | TWO_CONTS | OVERLONG_3 | OVERLONG_4,
        TOO_LONG | OVERLONG_2 | TWO_CONTS | OVERLONG_3 | TOO_LARGE,
        TOO_LONG | OVERLONG_2 | TWO_CONTS | SURROGATE | TOO_LARGE,
        TOO_LONG | OVERLONG_2 | TWO_CONTS | SURROGATE | TOO_LARGE,
        TOO_SHORT,
        TOO_SHORT,
        TOO_SHORT,
        TOO_SHORT,
    };
    __m256i seam = _mm256_permute2x128_si256(before, now, 0x21);
    __m256i one_back = _mm256_alignr_epi8(now, seam, 15);
    __m256i two_back = _mm256_alignr_epi8(now, seam, 14);
    __m256i three_back = _mm256_alignr_epi8(now, seam, 13);
    __m256i pairs = _mm256_and_si256(
        _mm256_and_si256(look_up(high_nibbles(one_back), first_high),
                         look_up(_mm256_and_si256(one_back, _mm256_set1_epi8(0x0f)), first_low)),
        look_up(high_nibbles(now), second_high));
    /* Bit 7 where a three- or four-byte lead asks for a continuation here. */
    __m256i asked =
        _mm256_or_si256(_mm256_subs_epu8(two_back, _mm256_set1_epi8((char)(0xe0 - 0x80))),
                        _mm256_subs_epu8(three_back, _mm256_set1_epi8((char)(0xf0 - 0x80))));
    return _mm256_xor_si256(_mm256_and_si256(asked, _mm256_set1_epi8((char)0x80)), pairs);
}

static inline bool
is_ascii(const uint8_t p[128])
{
    __m256i any = _mm256_setzero_si256();
    for (int i = 0; i < 128; i += 32)
        any = _mm256_or_si256(any, _mm256_loadu_si256((const __m256i *)(const void *)(p + i)));
    return _mm256_movemask_epi8(any) == 0;
}

bool
weir_json_utf8_is_valid_avx2(struct weir_bytes text)
{
    const uint8_t *p = text.data;
    size_t left = text.len;
    __m256i errors = _mm256_setzero_si256(), before = _mm256_setzero_si256();
    bool plain = true; /* the block before was ASCII */
    while (left >= 32) {
        while (plain && left >= 128 && is_ascii(p)) {
            p += 128;
            left -= 128;
        }
        if (left < 32)
            break;
        __m256i now = _mm256_loadu_si256((const __m256i *)(const void *)p);
        bool ascii = _mm256_movemask_epi8(now) == 0;
        if (!ascii || !plain)
            errors = _mm256_or_si256(errors, block_errors(now, before));
        plain = ascii;
        before = now;
        p += 32;
        left -= 32;
    }
    /* The rest, with at least one zero after it, so that a sequence cut short is seen. */
    uint8_t rest[32] = {0};
    if (left)
        memcpy(rest, p, left);
    __m256i now = _mm256_loadu_si256((const __m256i *)(const void *)rest);
    if (!plain || _mm256_movemask_epi8(now) != 0)
        errors = _mm256_or_si256(errors, block_errors(now, before));
    return _mm256_testz_si256(errors, errors);
}
