#include "record/hash_key.h"
#include <criterion/criterion.h>

static bool
hash_is(const char *key, const char *decimal)
{
    char text[WEIR_U128_DIGITS_MAX + 1];
    weir_u128_format(weir_hash_key(weir_bytes_of(key)), text);
    return strcmp(text, decimal) == 0;
}

/* The hash key is the MD5 of the key read as a big-endian number (RFC 1321's vectors, in decimal).
 */
Test(hash_key, is_the_md5_as_a_big_endian_number)
{
    cr_expect(hash_is("", "281949768489412648962353822266799178366"));
    cr_expect(hash_is("a", "16955237001963240173058271559858726497"));
    cr_expect(hash_is("abc", "191415658344158766168031473277922803570"));
    cr_expect(
        hash_is("12345678901234567890123456789012345678901234567890123456789012345678901234567"
                "890",
                "116878371745249285768420430739153598074"));
}

/* For any count the ranges cover the ring without hole or overlap, all of one width but the last,
 * which takes the remainder. */
Test(hash_range, ranges_cover_the_ring)
{
    static const uint32_t counts[] = {1, 2, 3, 4, 5, 7, 10, 64, 1000, 9999, 10000};
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
        uint32_t count = counts[c];
        struct weir_hash_range before = weir_hash_range_of(0, count);
        weir_u128 width = before.high - before.low;
        cr_expect(before.low == 0);
        for (uint32_t i = 1; i < count; i++) {
            struct weir_hash_range r = weir_hash_range_of(i, count);
            cr_assert(r.low == before.high + 1, "%u of %u", i, count);
            if (i < count - 1)
                cr_assert(r.high - r.low == width, "%u of %u", i, count);
            else
                cr_assert(r.high - r.low >= width && r.high - r.low - width < count);
            before = r;
        }
        cr_expect(before.high == WEIR_U128_MAX, "%u", count);
    }
}

/* The ranges that AWS gives to a stream of four shards (API reference, DescribeStream). */
Test(hash_range, matches_kinesis_for_four_shards)
{
    char text[WEIR_U128_DIGITS_MAX + 1];
    weir_u128_format(weir_hash_range_of(0, 4).high, text);
    cr_expect(strcmp(text, "85070591730234615865843651857942052863") == 0);
    weir_u128_format(weir_hash_range_of(1, 4).low, text);
    cr_expect(strcmp(text, "85070591730234615865843651857942052864") == 0);
    weir_u128_format(weir_hash_range_of(2, 3).low, text);
    cr_expect(strcmp(text, "226854911280625642308916404954512140970") == 0, "%s", text);
}

/* Both ends belong to a range. */
Test(hash_range, has_both_its_ends)
{
    struct weir_hash_range r = weir_hash_range_of(1, 3);
    cr_expect(weir_hash_range_has(r, r.low));
    cr_expect(weir_hash_range_has(r, r.high));
    cr_expect(!weir_hash_range_has(r, r.low - 1));
    cr_expect(!weir_hash_range_has(r, r.high + 1));
}
