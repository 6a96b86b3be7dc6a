/* The parsers of text: numbers, sizes, moments, hexadecimal, base64, UTF-8. What a parser takes,
 * its formatter gives back. */
#include "base/assert.h"
#include "base/text.h"
#include "base/u128.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
check_numbers(struct weir_bytes text)
{
    uint64_t small, ms;
    weir_u128 large;
    char out[64];
    enum weir_status st = weir_parse_u64(text, &small);
    enum weir_status wide = weir_u128_parse(text, &large);
    if (!st && !wide)
        WEIR_ASSERT(small == large);
    if (!wide) {
        size_t n = weir_u128_format(large, out);
        WEIR_ASSERT(weir_bytes_equal(weir_bytes(out, n), text));
    }
    (void)!weir_parse_size(text, &small);
    (void)!weir_parse_duration(text, &small);
    if (!weir_parse_moment(text, 1764320000000u, &ms)) {
        uint64_t again;
        weir_format_moment(ms, out);
        WEIR_ASSERT(!weir_parse_moment(weir_bytes_of(out), 0, &again));
        WEIR_ASSERT(again == ms);
        weir_format_size(ms, out);
        weir_format_duration(ms, out);
    }
}

static void
check_base64(struct weir_bytes text)
{
    size_t room = 3 * (text.len / 4), len;
    uint8_t *bytes = malloc(room + 1);
    char *back = malloc(text.len + 1);
    WEIR_ASSERT(bytes);
    WEIR_ASSERT(back);
    bytes[room] = 0xa5;
    if (!weir_base64_decode(text, bytes, &len)) {
        /* Strict means one text for one value. */
        WEIR_ASSERT(weir_base64_encode(weir_bytes(bytes, len), back) == text.len);
        WEIR_ASSERT(weir_bytes_equal(weir_bytes(back, text.len), text));
    }
    WEIR_ASSERT(bytes[room] == 0xa5);
    free(back);
    free(bytes);

    /* And every value has a text. */
    char *encoded = malloc(4 * ((text.len + 2) / 3) + 1);
    WEIR_ASSERT(encoded);
    size_t encoded_len = weir_base64_encode(text, encoded);
    uint8_t *decoded = malloc(3 * (encoded_len / 4) + 1);
    WEIR_ASSERT(decoded);
    WEIR_ASSERT(!weir_base64_decode(weir_bytes(encoded, encoded_len), decoded, &len));
    WEIR_ASSERT(weir_bytes_equal(weir_bytes(decoded, len), text));
    free(decoded);
    free(encoded);
}

/* The same question asked one byte at a time, by the value of each code point. */
static bool
is_utf8(struct weir_bytes text, size_t *count)
{
    static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    *count = 0;
    for (size_t i = 0; i < text.len;) {
        uint8_t first = text.data[i];
        unsigned n = first < 0x80       ? 1
                     : first >> 5 == 6  ? 2
                     : first >> 4 == 14 ? 3
                     : first >> 3 == 30 ? 4
                                        : 0;
        if (n == 0 || n > text.len - i)
            return false;
        uint32_t point = n == 1 ? first : first & (0x7fu >> n);
        for (unsigned k = 1; k < n; k++) {
            if (text.data[i + k] >> 6 != 2)
                return false;
            point = point << 6 | (text.data[i + k] & 63u);
        }
        if (point < smallest[n] || point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff))
            return false;
        i += n;
        ++*count;
    }
    return true;
}

static void
check_utf8(struct weir_bytes text)
{
    size_t count;
    bool valid = is_utf8(text, &count);
    WEIR_ASSERT(weir_utf8_is_valid(text) == valid);
    if (valid)
        WEIR_ASSERT(weir_utf8_count(text) == count);
}

static void
check_hex(struct weir_bytes text)
{
    uint8_t bytes[64];
    char out[2 * sizeof bytes + 1];
    size_t len = text.len / 2 < sizeof bytes ? text.len / 2 : sizeof bytes;
    if (!weir_hex_decode(text, bytes, len)) {
        uint8_t again[sizeof bytes];
        weir_hex_encode(weir_bytes(bytes, len), out);
        WEIR_ASSERT(!weir_hex_decode(weir_bytes_of(out), again, len));
        WEIR_ASSERT(memcmp(bytes, again, len) == 0);
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct weir_bytes text = weir_bytes(data, size);
    check_numbers(text);
    check_base64(text);
    check_utf8(text);
    check_hex(text);
    return 0;
}
