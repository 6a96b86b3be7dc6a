#include "base/u128.h"

#define TEN_TO_19 10000000000000000000u

static size_t
format_u64(uint64_t v, char *end)
{
    char *at = end;
    do {
        *--at = (char)('0' + v % 10);
        v /= 10;
    } while (v);
    return (size_t)(end - at);
}

size_t
weir_u128_format(weir_u128 v, char out[WEIR_U128_DIGITS_MAX + 1])
{
    /* 19 digits at a time: the largest power of ten in 64 bits. */
    char digits[WEIR_U128_DIGITS_MAX];
    char *end = digits + sizeof digits;
    size_t count = 0;
    while (v >= TEN_TO_19) {
        size_t n = format_u64((uint64_t)(v % TEN_TO_19), end - count);
        v /= TEN_TO_19;
        memset(end - count - 19, '0', 19 - n);
        count += 19;
    }
    count += format_u64((uint64_t)v, end - count);
    memcpy(out, end - count, count);
    out[count] = '\0';
    return count;
}

enum weir_status
weir_u128_parse(struct weir_bytes text, weir_u128 *out)
{
    if (text.len == 0 || (text.data[0] == '0' && text.len > 1))
        return WEIR_INVALID;
    weir_u128 v = 0;
    bool over = false;
    for (size_t i = 0; i < text.len; i++) {
        unsigned digit = text.data[i] - (unsigned)'0';
        if (digit > 9)
            return WEIR_INVALID;
        over |= __builtin_mul_overflow(v, (weir_u128)10, &v);
        over |= __builtin_add_overflow(v, (weir_u128)digit, &v);
    }
    if (over)
        return WEIR_TOO_BIG;
    *out = v;
    return WEIR_OK;
}
