/* Base64 in blocks: AVX2 where the machine has it (W. Muła, D. Lemire, "Faster Base64 Encoding and
 * Decoding Using AVX2 Instructions"), then three bytes at a time. The vector loops stop early
 * enough that no store reaches past what the scalar code would have written; the scalar code alone
 * judges the end and everything that the vector code did not like. */
#include "base/text.h"

static const char alphabet[64] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* Value plus one of each character, 0 for those outside the alphabet. */
#define X(c, v) [c] = (v) + 1
static const uint8_t values[256] = {
    X('A', 0),  X('B', 1),  X('C', 2),  X('D', 3),  X('E', 4),  X('F', 5),  X('G', 6),  X('H', 7),
    X('I', 8),  X('J', 9),  X('K', 10), X('L', 11), X('M', 12), X('N', 13), X('O', 14), X('P', 15),
    X('Q', 16), X('R', 17), X('S', 18), X('T', 19), X('U', 20), X('V', 21), X('W', 22), X('X', 23),
    X('Y', 24), X('Z', 25), X('a', 26), X('b', 27), X('c', 28), X('d', 29), X('e', 30), X('f', 31),
    X('g', 32), X('h', 33), X('i', 34), X('j', 35), X('k', 36), X('l', 37), X('m', 38), X('n', 39),
    X('o', 40), X('p', 41), X('q', 42), X('r', 43), X('s', 44), X('t', 45), X('u', 46), X('v', 47),
    X('w', 48), X('x', 49), X('y', 50), X('z', 51), X('0', 52), X('1', 53), X('2', 54), X('3', 55),
    X('4', 56), X('5', 57), X('6', 58), X('7', 59), X('8', 60), X('9', 61), X('+', 62), X('/', 63),
};
#undef X

#if defined(__x86_64__)
#include <immintrin.h>

/* Encodes whole blocks of 24 bytes; returns the bytes taken. Reads 28 bytes per block. */
[[gnu::target("avx2")]] static size_t
encode_avx2(const uint8_t *in, size_t len, char *out)
{
    const __m256i spread = _mm256_setr_epi8(1, 0, 2, 1, 4, 3, 5, 4, 7, 6, 8, 7, 10, 9, 11, 10, 1, 0,
                                            2, 1, 4, 3, 5, 4, 7, 6, 8, 7, 10, 9, 11, 10);
    const __m256i shift =
        _mm256_setr_epi8(65, 71, -4, -4, -4, -4, -4, -4, -4, -4, -4, -4, -19, -16, 0, 0, 65, 71, -4,
                         -4, -4, -4, -4, -4, -4, -4, -4, -4, -19, -16, 0, 0);
    size_t at = 0;
    for (; len - at >= 28; at += 24, out += 32) {
        __m128i low = _mm_loadu_si128((const void *)(in + at));
        __m128i high = _mm_loadu_si128((const void *)(in + at + 12));
        __m256i v = _mm256_shuffle_epi8(_mm256_set_m128i(high, low), spread);
        __m256i ac = _mm256_mulhi_epu16(_mm256_and_si256(v, _mm256_set1_epi32(0x0fc0fc00)),
                                        _mm256_set1_epi32(0x04000040));
        __m256i bd = _mm256_mullo_epi16(_mm256_and_si256(v, _mm256_set1_epi32(0x003f03f0)),
                                        _mm256_set1_epi32(0x01000010));
        __m256i six = _mm256_or_si256(ac, bd);
        __m256i range = _mm256_subs_epu8(six, _mm256_set1_epi8(51));
        range = _mm256_sub_epi8(range, _mm256_cmpgt_epi8(six, _mm256_set1_epi8(25)));
        __m256i text = _mm256_add_epi8(six, _mm256_shuffle_epi8(shift, range));
        _mm256_storeu_si256((void *)out, text);
    }
    return at;
}

/* Decodes whole blocks of 32 characters up to the first one outside the alphabet or near the end;
 * returns the characters taken. Stores 32 bytes per block of 24. */
[[gnu::target("avx2")]] static size_t
decode_avx2(const uint8_t *in, size_t len, uint8_t *out)
{
    const __m256i lut_low =
        _mm256_setr_epi8(0x15, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x13, 0x1a,
                         0x1b, 0x1b, 0x1b, 0x1a, 0x15, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11,
                         0x11, 0x11, 0x13, 0x1a, 0x1b, 0x1b, 0x1b, 0x1a);
    const __m256i lut_high =
        _mm256_setr_epi8(0x10, 0x10, 0x01, 0x02, 0x04, 0x08, 0x04, 0x08, 0x10, 0x10, 0x10, 0x10,
                         0x10, 0x10, 0x10, 0x10, 0x10, 0x10, 0x01, 0x02, 0x04, 0x08, 0x04, 0x08,
                         0x10, 0x10, 0x10, 0x10, 0x10, 0x10, 0x10, 0x10);
    const __m256i lut_roll =
        _mm256_setr_epi8(0, 16, 19, 4, -65, -65, -71, -71, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 19, 4,
                         -65, -65, -71, -71, 0, 0, 0, 0, 0, 0, 0, 0);
    const __m256i pack = _mm256_setr_epi8(2, 1, 0, 6, 5, 4, 10, 9, 8, 14, 13, 12, -1, -1, -1, -1, 2,
                                          1, 0, 6, 5, 4, 10, 9, 8, 14, 13, 12, -1, -1, -1, -1);
    const __m256i join = _mm256_setr_epi32(0, 1, 2, 4, 5, 6, 3, 7);
    const __m256i slash = _mm256_set1_epi8(0x2f);
    size_t at = 0;
    /* 48 characters still to come hold at least 34 bytes: the store stays inside. */
    for (; len - at >= 48; at += 32, out += 24) {
        __m256i v = _mm256_loadu_si256((const void *)(in + at));
        __m256i high = _mm256_and_si256(_mm256_srli_epi32(v, 4), slash);
        __m256i low = _mm256_and_si256(v, slash);
        __m256i bad = _mm256_and_si256(_mm256_shuffle_epi8(lut_low, low),
                                       _mm256_shuffle_epi8(lut_high, high));
        if (!_mm256_testz_si256(bad, bad))
            break;
        __m256i is_slash = _mm256_cmpeq_epi8(v, slash);
        v = _mm256_add_epi8(v, _mm256_shuffle_epi8(lut_roll, _mm256_add_epi8(is_slash, high)));
        v = _mm256_maddubs_epi16(v, _mm256_set1_epi32(0x01400140));
        v = _mm256_madd_epi16(v, _mm256_set1_epi32(0x00011000));
        v = _mm256_permutevar8x32_epi32(_mm256_shuffle_epi8(v, pack), join);
        _mm256_storeu_si256((void *)out, v);
    }
    return at;
}

static size_t
encode_blocks(const uint8_t *in, size_t len, char *out)
{
    return __builtin_cpu_supports("avx2") ? encode_avx2(in, len, out) : 0;
}

static size_t
decode_blocks(const uint8_t *in, size_t len, uint8_t *out)
{
    return __builtin_cpu_supports("avx2") ? decode_avx2(in, len, out) : 0;
}

#else

static size_t
encode_blocks(const uint8_t *in, size_t len, char *out)
{
    (void)in, (void)len, (void)out;
    return 0;
}

static size_t
decode_blocks(const uint8_t *in, size_t len, uint8_t *out)
{
    (void)in, (void)len, (void)out;
    return 0;
}

#endif

size_t
weir_base64_encode(struct weir_bytes bytes, char *out)
{
    size_t at = encode_blocks(bytes.data, bytes.len, out);
    char *to = out + at / 3 * 4;
    for (; bytes.len - at >= 3; at += 3) {
        const uint8_t *p = bytes.data + at;
        uint32_t v = (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2];
        *to++ = alphabet[v >> 18];
        *to++ = alphabet[v >> 12 & 63];
        *to++ = alphabet[v >> 6 & 63];
        *to++ = alphabet[v & 63];
    }
    if (bytes.len - at == 1) {
        uint32_t v = bytes.data[at];
        *to++ = alphabet[v >> 2];
        *to++ = alphabet[v << 4 & 63];
        *to++ = '=';
        *to++ = '=';
    } else if (bytes.len - at == 2) {
        uint32_t v = (uint32_t)bytes.data[at] << 8 | bytes.data[at + 1];
        *to++ = alphabet[v >> 10];
        *to++ = alphabet[v >> 4 & 63];
        *to++ = alphabet[v << 2 & 63];
        *to++ = '=';
    }
    return (size_t)(to - out);
}

/* The last four characters, where padding is allowed and spare bits are zero. */
static enum weir_status
decode_last(const uint8_t *in, uint8_t *out, size_t *len_out)
{
    unsigned pad = in[3] != '=' ? 0 : in[2] != '=' ? 1 : 2;
    uint32_t v = 0;
    for (unsigned i = 0; i < 4 - pad; i++) {
        if (!values[in[i]])
            return WEIR_INVALID;
        v |= (uint32_t)(values[in[i]] - 1) << (18 - 6 * i);
    }
    if (v & ((1u << 8 * pad) - 1))
        return WEIR_INVALID;
    for (unsigned i = 0; i < 3 - pad; i++)
        out[i] = (uint8_t)(v >> (16 - 8 * i));
    *len_out = 3 - pad;
    return WEIR_OK;
}

enum weir_status
weir_base64_decode(struct weir_bytes text, uint8_t *out, size_t *len_out)
{
    if (text.len % 4)
        return WEIR_INVALID;
    if (text.len == 0) {
        *len_out = 0;
        return WEIR_OK;
    }
    size_t at = decode_blocks(text.data, text.len, out);
    uint8_t *to = out + at / 4 * 3;
    for (; text.len - at > 4; at += 4) {
        const uint8_t *p = text.data + at;
        uint8_t a = values[p[0]], b = values[p[1]], c = values[p[2]], d = values[p[3]];
        if (!a || !b || !c || !d)
            return WEIR_INVALID;
        uint32_t v = (uint32_t)(a - 1) << 18 | (uint32_t)(b - 1) << 12 | (uint32_t)(c - 1) << 6 |
                     (uint32_t)(d - 1);
        *to++ = (uint8_t)(v >> 16);
        *to++ = (uint8_t)(v >> 8);
        *to++ = (uint8_t)v;
    }
    size_t last;
    enum weir_status st = decode_last(text.data + at, to, &last);
    if (st)
        return st;
    *len_out = (size_t)(to - out) + last;
    return WEIR_OK;
}
