/* How JSON text is looked through: the scans that every reader of JSON here is built on.
 *
 * A string of JSON ends at the first quote that no backslash escapes, and holds no control
 * characters. So all scans look for the same three things, the "specials": quote, backslash, and
 * bytes below 0x20.
 *
 *     "name":"some text \n and more"
 *      ----^  ----------^
 *
 * Two ways to use them. Readers that are called token by token take a scan from
 * weir_json_scan_best() once and call it. Transcoders that live inside one loop are compiled twice,
 * once with AVX2 and once without, and inline weir_scan_string() and weir_scan_copy(); which body
 * these have depends on how the including file is compiled.
 *
 * Nothing is read outside [p, end). Any thread. */
#pragma once
#include "base/bytes.h"

#ifdef __AVX2__
#include <immintrin.h>
#endif

/* weir_scan_copy() may write this many bytes beyond what it was asked to copy. */
#define WEIR_SCAN_SLACK 32

typedef const uint8_t *weir_scan_fn(const uint8_t *p, const uint8_t *end);

/* The first special at or after p, or end. */
weir_scan_fn weir_json_scan_portable;
weir_scan_fn weir_json_scan_avx2; /* only where the machine has it */
/* The best one that this machine can run. */
weir_scan_fn *weir_json_scan_best(void);
bool weir_json_has_avx2(void);

/* Where the bytes stop being UTF-8 (RFC 3629: no surrogates, no overlong forms): the offset of the
 * first byte of the bad sequence, or SIZE_MAX when all are good. */
size_t weir_json_utf8_bad_at(struct weir_bytes text);
/* The same, byte by byte. */
size_t weir_json_utf8_bad_at_portable(struct weir_bytes text);
/* True when all is good; needs AVX2. */
bool weir_json_utf8_is_valid_avx2(struct weir_bytes text);

/* Bit 7 of each byte that is a special. Exact up to the lowest one; above it there may be false
 * ones, because a borrow runs upwards. */
static inline uint64_t
weir_scan_word(uint64_t x)
{
    const uint64_t ones = 0x0101010101010101, high = 0x8080808080808080;
    uint64_t quote = x ^ ones * '"', backslash = x ^ ones * '\\';
    return (((quote - ones) & ~quote) | ((backslash - ones) & ~backslash) |
            ((x - ones * 0x20) & ~x)) &
           high;
}

static inline bool
weir_scan_is_special(uint8_t c)
{
    return c < 0x20 || c == '"' || c == '\\';
}

/* Eight bytes at a time, then one at a time. `out` may be NULL. */
[[gnu::always_inline]] static inline const uint8_t *
weir_scan_words(const uint8_t *p, const uint8_t *end, uint8_t *out)
{
    while (end - p >= 8) {
        uint64_t x;
        memcpy(&x, p, 8);
        if (out)
            memcpy(out, &x, 8);
        uint64_t hit = weir_scan_word(x);
        if (hit)
            return p + (__builtin_ctzll(hit) >> 3);
        p += 8;
        if (out)
            out += 8;
    }
    while (p < end && !weir_scan_is_special(*p)) {
        if (out)
            *out++ = *p;
        p++;
    }
    return p;
}

#ifdef __AVX2__

[[gnu::always_inline]] static inline uint32_t
weir_scan_vector(__m256i v)
{
    __m256i quote = _mm256_cmpeq_epi8(v, _mm256_set1_epi8('"'));
    __m256i backslash = _mm256_cmpeq_epi8(v, _mm256_set1_epi8('\\'));
    __m256i control = _mm256_cmpeq_epi8(_mm256_min_epu8(v, _mm256_set1_epi8(0x1f)), v);
    return (uint32_t)_mm256_movemask_epi8(
        _mm256_or_si256(_mm256_or_si256(quote, backslash), control));
}

[[gnu::always_inline]] static inline const uint8_t *
weir_scan_blocks(const uint8_t *p, const uint8_t *end, uint8_t *out)
{
    while (end - p >= 32) {
        __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)p);
        if (out) {
            _mm256_storeu_si256((__m256i *)(void *)out, v);
            out += 32;
        }
        uint32_t hit = weir_scan_vector(v);
        if (hit)
            return p + __builtin_ctz(hit);
        p += 32;
    }
    return weir_scan_words(p, end, out);
}

#else

[[gnu::always_inline]] static inline const uint8_t *
weir_scan_blocks(const uint8_t *p, const uint8_t *end, uint8_t *out)
{
    return weir_scan_words(p, end, out);
}

#endif

/* The first special at or after p, or end. */
[[gnu::always_inline]] static inline const uint8_t *
weir_scan_string(const uint8_t *p, const uint8_t *end)
{
    return weir_scan_blocks(p, end, NULL);
}

/* The same, and the bytes before it are copied to `out`, which has room for all of [p, end) and
 * WEIR_SCAN_SLACK more. */
[[gnu::always_inline]] static inline const uint8_t *
weir_scan_copy(const uint8_t *p, const uint8_t *end, uint8_t *out)
{
    return weir_scan_blocks(p, end, out);
}
