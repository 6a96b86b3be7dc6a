#include "json/scan.h"

const uint8_t *
weir_json_scan_portable(const uint8_t *p, const uint8_t *end)
{
    return weir_scan_words(p, end, NULL);
}

/* How many bytes the sequence at p takes, 0 when it is not UTF-8. */
static size_t
sequence_len(const uint8_t *p, size_t left)
{
    uint8_t lead = p[0];
    if (lead < 0x80)
        return 1;
    size_t len = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    if (lead < 0xc2 || lead > 0xf4 || left < len)
        return 0;
    for (size_t i = 1; i < len; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    /* The second byte decides about overlong forms, surrogates, and what is beyond U+10FFFF. */
    if ((lead == 0xe0 && p[1] < 0xa0) || (lead == 0xed && p[1] > 0x9f) ||
        (lead == 0xf0 && p[1] < 0x90) || (lead == 0xf4 && p[1] > 0x8f))
        return 0;
    return len;
}

size_t
weir_json_utf8_bad_at_portable(struct weir_bytes text)
{
    size_t at = 0;
    while (at < text.len) {
        uint64_t x;
        if (text.len - at >= 8) {
            memcpy(&x, text.data + at, 8);
            if (!(x & 0x8080808080808080)) {
                at += 8;
                continue;
            }
        }
        size_t len = sequence_len(text.data + at, text.len - at);
        if (len == 0)
            return at;
        at += len;
    }
    return SIZE_MAX;
}

#ifdef __x86_64__

bool
weir_json_has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") &&
           __builtin_cpu_supports("bmi2");
}

weir_scan_fn *
weir_json_scan_best(void)
{
    return weir_json_has_avx2() ? weir_json_scan_avx2 : weir_json_scan_portable;
}

size_t
weir_json_utf8_bad_at(struct weir_bytes text)
{
    if (weir_json_has_avx2() && weir_json_utf8_is_valid_avx2(text))
        return SIZE_MAX;
    return weir_json_utf8_bad_at_portable(text);
}

#else

bool
weir_json_has_avx2(void)
{
    return false;
}

weir_scan_fn *
weir_json_scan_best(void)
{
    return weir_json_scan_portable;
}

size_t
weir_json_utf8_bad_at(struct weir_bytes text)
{
    return weir_json_utf8_bad_at_portable(text);
}

#endif
