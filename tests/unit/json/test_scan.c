#include "json/escape.h"
#include "json/scan.h"
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdlib.h>

static size_t
naive_scan(const uint8_t *p, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (p[i] < 0x20 || p[i] == '"' || p[i] == '\\')
            return i;
    return len;
}

/* Each scan finds the first special, whichever byte it is, wherever it stands, and at any
 * alignment; what surrounds it does not matter. */
Test(json_scan, finds_the_first_special_wherever_it_is)
{
    weir_scan_fn *scans[] = {weir_json_scan_portable, weir_json_scan_best()};
    uint64_t seed = 1;
    for (size_t len = 0; len < 200; len++) {
        uint8_t *text = malloc(len ? len : 1);
        for (int round = 0; round < 40; round++) {
            for (size_t i = 0; i < len; i++) {
                seed = seed * 6364136223846793005 + 1442695040888963407;
                uint8_t c = (uint8_t)(seed >> 56);
                /* Few specials, or the long ways are never walked. */
                bool keep = seed >> 20 & 0x7f;
                text[i] = keep && weir_scan_is_special(c) ? 'x' : c;
            }
            for (size_t s = 0; s < 2; s++)
                cr_assert(
                    eq(sz, (size_t)(scans[s](text, text + len) - text), naive_scan(text, len)),
                    "scan %zu, length %zu", s, len);
        }
        free(text);
    }
}

/* The two checks of UTF-8 agree on every pair of bytes in every position of a vector's edge. */
Test(json_scan, utf8_checks_agree)
{
    if (!weir_json_has_avx2())
        return;
    static const uint8_t leads[] = {0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf,
                                    0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xec, 0xed, 0xee,
                                    0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xf8, 0xff};
    size_t count = sizeof leads;
    for (size_t at = 28; at < 34; at++) {
        for (size_t n = 0; n < count * count * count * count; n++) {
            uint8_t text[40];
            memset(text, 'x', sizeof text);
            text[at] = leads[n % count];
            text[at + 1] = leads[n / count % count];
            text[at + 2] = leads[n / count / count % count];
            text[at + 3] = leads[n / count / count / count];
            struct weir_bytes bytes = weir_bytes(text, at + 4);
            bool valid = weir_json_utf8_bad_at_portable(bytes) == SIZE_MAX;
            if (weir_json_utf8_is_valid_avx2(bytes) != valid)
                cr_fatal("%02x %02x %02x %02x at %zu", text[at], text[at + 1], text[at + 2],
                         text[at + 3], at);
        }
    }
}

/* Every character there is passes, in its own UTF-8; surrogates and what lies beyond do not. */
Test(json_scan, knows_all_of_unicode)
{
    for (uint32_t code = 0; code < 0x110000; code++) {
        uint8_t text[4];
        size_t len = weir_json_utf8_write(code, text);
        bool surrogate = code >= 0xd800 && code < 0xe000;
        bool valid = weir_json_utf8_bad_at(weir_bytes(text, len)) == SIZE_MAX;
        if (valid == surrogate)
            cr_fatal("U+%04X", code);
    }
    cr_expect(eq(sz, weir_json_utf8_bad_at(weir_bytes("abc\xf4\x90\x80\x80", 7)), 3));
}
