#include "base/text.h"
#include "sys/random.h"
#include <criterion/criterion.h>
#include <stdlib.h>

#define OK(call) cr_assert_eq((call), WEIR_OK, "%s", #call)

struct row {
    const char *text;
    enum weir_status st;
    uint64_t value;
};

#define ROWS(rows) rows, sizeof(rows) / sizeof *(rows)

static void
check(const struct row *rows, size_t count,
      enum weir_status (*parse)(struct weir_bytes text, uint64_t *out))
{
    for (size_t i = 0; i < count; i++) {
        uint64_t got = 77;
        cr_expect_eq(parse(weir_bytes_of(rows[i].text), &got), rows[i].st, "'%s'", rows[i].text);
        cr_expect_eq(got, rows[i].st ? 77 : rows[i].value, "'%s': %lu", rows[i].text, got);
    }
}

/* A text grows as needed and is always terminated. */
Test(text, grows)
{
    struct weir_text t = {0};
    for (int i = 0; i < 1000; i++)
        weir_text_printf(&t, "%d,", i);
    weir_text_puts(&t, "end");
    cr_expect_eq(t.len, strlen(t.data));
    cr_expect_str_eq(t.data + t.len - 7, "999,end");
    weir_text_clear(&t);
    cr_expect_str_eq(t.data, "");
    weir_text_append(&t, weir_bytes("a\0b", 3));
    cr_expect_eq(t.len, 3);
    cr_expect_not(t.failed);
    weir_text_fini(&t);
    cr_expect_null(t.data);
}

/* Whole decimal numbers. */
Test(text, parses_numbers)
{
    static const struct row rows[] = {
        {"0", WEIR_OK, 0},
        {"007", WEIR_OK, 7},
        {"18446744073709551615", WEIR_OK, UINT64_MAX},
        {"18446744073709551616", WEIR_TOO_BIG, 0},
        {"", WEIR_INVALID, 0},
        {"-1", WEIR_INVALID, 0},
        {"1 ", WEIR_INVALID, 0},
    };
    check(ROWS(rows), weir_parse_u64);
}

/* Sizes, binary and decimal. */
Test(text, parses_sizes)
{
    static const struct row rows[] = {
        {"512", WEIR_OK, 512},
        {"512B", WEIR_OK, 512},
        {"64KiB", WEIR_OK, 65536},
        {"10MiB", WEIR_OK, 10485760},
        {"1GiB", WEIR_OK, 1073741824},
        {"2TiB", WEIR_OK, 2199023255552},
        {"1kB", WEIR_OK, 1000},
        {"5MB", WEIR_OK, 5000000},
        {"99999999TiB", WEIR_TOO_BIG, 0},
        {"99999999999999999999KiB", WEIR_TOO_BIG, 0},
        {"KiB", WEIR_INVALID, 0},
        {"1kib", WEIR_INVALID, 0},
        {"1 KiB", WEIR_INVALID, 0},
        {"1.5GiB", WEIR_INVALID, 0},
        {"", WEIR_INVALID, 0},
    };
    check(ROWS(rows), weir_parse_size);
}

/* Lengths of time need their unit. */
Test(text, parses_durations)
{
    static const struct row rows[] = {
        {"250ms", WEIR_OK, 250},        {"10s", WEIR_OK, 10000},
        {"5m", WEIR_OK, 300000},        {"24h", WEIR_OK, 86400000},
        {"365d", WEIR_OK, 31536000000}, {"0s", WEIR_OK, 0},
        {"10", WEIR_INVALID, 0},        {"s", WEIR_INVALID, 0},
        {"1w", WEIR_INVALID, 0},        {"9999999999999999d", WEIR_TOO_BIG, 0},
    };
    check(ROWS(rows), weir_parse_duration);
}

static enum weir_status
parse_moment(struct weir_bytes text, uint64_t *out)
{
    return weir_parse_moment(text, 7200000, out);
}

/* Moments: RFC 3339, seconds since 1970, or how long ago. */
Test(text, parses_moments)
{
    static const struct row rows[] = {
        {"1970-01-01T00:00:00Z", WEIR_OK, 0},
        {"2026-11-28T09:00:00.123Z", WEIR_OK, 1795856400123},
        {"2026-11-28T09:00:00.1239Z", WEIR_OK, 1795856400123},
        {"2026-11-28t11:00:00.1+02:00", WEIR_OK, 1795856400100},
        {"2026-11-28T01:30:00-07:30", WEIR_OK, 1795856400000},
        {"2024-02-29T00:00:00Z", WEIR_OK, 1709164800000},
        {"2000-02-29T00:00:00Z", WEIR_OK, 951782400000},
        {"2016-12-31T23:59:60Z", WEIR_OK, 1483228800000},
        {"9999-12-31T23:59:59.999Z", WEIR_OK, 253402300799999},
        {"@1764320000", WEIR_OK, 1764320000000},
        {"@1764320000.05", WEIR_OK, 1764320000050},
        {"-1h", WEIR_OK, 3600000},
        {"-30s", WEIR_OK, 7170000},
        {"-3h", WEIR_OK, 0},
        {"2023-02-29T00:00:00Z", WEIR_INVALID, 0},
        {"1900-02-29T00:00:00Z", WEIR_INVALID, 0},
        {"2026-13-01T00:00:00Z", WEIR_INVALID, 0},
        {"2026-11-28T24:00:00Z", WEIR_INVALID, 0},
        {"2026-11-28T09:00:00", WEIR_INVALID, 0},
        {"2026-11-28T09:00:00.Z", WEIR_INVALID, 0},
        {"2026-11-28T09:00:00+0200", WEIR_INVALID, 0},
        {"2026-11-28 09:00:00Z", WEIR_INVALID, 0},
        {"1970-01-01T00:00:00+01:00", WEIR_INVALID, 0},
        {"@", WEIR_INVALID, 0},
        {"@1.", WEIR_INVALID, 0},
        {"@.5", WEIR_INVALID, 0},
        {"@99999999999999", WEIR_TOO_BIG, 0},
        {"-", WEIR_INVALID, 0},
        {"-5", WEIR_INVALID, 0},
        {"yesterday", WEIR_INVALID, 0},
        {"", WEIR_INVALID, 0},
    };
    check(ROWS(rows), parse_moment);
}

/* A moment that is written is read back as the same, all over the calendar. */
Test(text, formats_moments)
{
    char out[25];
    struct weir_random r;
    weir_random_init(&r, 1);
    weir_format_moment(1795856400123, out);
    cr_expect_str_eq(out, "2026-11-28T09:00:00.123Z");
    weir_format_moment(UINT64_MAX, out);
    cr_expect_str_eq(out, "9999-12-31T23:59:59.999Z");
    for (int i = 0; i < 20000; i++) {
        uint64_t at_ms = weir_random_below(&r, 253402300800000), again;
        weir_format_moment(at_ms, out);
        OK(weir_parse_moment(weir_bytes_of(out), 0, &again));
        cr_assert_eq(again, at_ms, "%s", out);
    }
}

/* Sizes and lengths of time for people. */
Test(text, formats_for_people)
{
    static const struct row sizes[] = {
        {"0 B", 0, 0},
        {"312 B", 0, 312},
        {"1 KiB", 0, 1024},
        {"1.5 GiB", 0, 3ull << 29},
        {"1 MiB", 0, (1 << 20) - 1},
        {"1023 KiB", 0, 1023 << 10},
        {"16 EiB", 0, UINT64_MAX},
    };
    static const struct row durations[] = {
        {"0 ms", 0, 0},          {"250 ms", 0, 250},
        {"1 s 500 ms", 0, 1500}, {"3 d 4 h", 0, 273600000},
        {"1 d", 0, 86460000},    {"213503982334 d 14 h", 0, UINT64_MAX},
    };
    char out[24];
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        weir_format_size(sizes[i].value, out);
        cr_expect_str_eq(out, sizes[i].text);
    }
    for (size_t i = 0; i < sizeof durations / sizeof *durations; i++) {
        weir_format_duration(durations[i].value, out);
        cr_expect_str_eq(out, durations[i].text);
    }
}

/* Hexadecimal of exactly the length asked for. */
Test(text, hex_goes_both_ways)
{
    uint8_t bytes[3] = {9, 9, 9};
    char out[7];
    weir_hex_encode(weir_bytes("\x00\xab\xff", 3), out);
    cr_expect_str_eq(out, "00abff");
    OK(weir_hex_decode(weir_bytes_of("00ABff"), bytes, 3));
    cr_expect_arr_eq(bytes, "\x00\xab\xff", 3);
    cr_expect_eq(weir_hex_decode(weir_bytes_of("00abf"), bytes, 3), WEIR_INVALID);
    cr_expect_eq(weir_hex_decode(weir_bytes_of("00ab"), bytes, 3), WEIR_INVALID);
    cr_expect_eq(weir_hex_decode(weir_bytes_of("00abfg"), bytes, 3), WEIR_INVALID);
}

/* The examples of RFC 4648. */
Test(base64, agrees_with_the_rfc)
{
    static const char *const rows[][2] = {
        {"", ""},
        {"f", "Zg=="},
        {"fo", "Zm8="},
        {"foo", "Zm9v"},
        {"foob", "Zm9vYg=="},
        {"fooba", "Zm9vYmE="},
        {"foobar", "Zm9vYmFy"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char out[16] = {0};
        uint8_t back[16];
        size_t len;
        cr_expect_eq(weir_base64_encode(weir_bytes_of(rows[i][0]), out), strlen(rows[i][1]));
        cr_expect_str_eq(out, rows[i][1]);
        OK(weir_base64_decode(weir_bytes_of(rows[i][1]), back, &len));
        cr_expect(weir_bytes_is(weir_bytes(back, len), rows[i][0]));
    }
}

/* Of every length, the bytes come back, and nothing behind the result is touched; in place too. */
Test(base64, brings_bytes_of_any_length_back)
{
    struct weir_random r;
    weir_random_init(&r, 2);
    for (size_t len = 0; len < 400; len++) {
        size_t text_len = (len + 2) / 3 * 4, room = text_len / 4 * 3, got;
        uint8_t *bytes = malloc(len + 1), *back = malloc(room + 1);
        char *text = malloc(text_len + 1);
        for (size_t i = 0; i < len; i++)
            bytes[i] = (uint8_t)weir_random_u64(&r);
        text[text_len] = '#';
        back[room] = 0x5a;
        cr_assert_eq(weir_base64_encode(weir_bytes(bytes, len), text), text_len);
        cr_assert_eq(text[text_len], '#');
        OK(weir_base64_decode(weir_bytes(text, text_len), back, &got));
        cr_assert(weir_bytes_equal(weir_bytes(back, got), weir_bytes(bytes, len)));
        cr_assert_eq(back[room], 0x5a);
        OK(weir_base64_decode(weir_bytes(text, text_len), (uint8_t *)text, &got));
        cr_assert(weir_bytes_equal(weir_bytes(text, got), weir_bytes(bytes, len)));
        free(bytes);
        free(back);
        free(text);
    }
}

/* One wrong character anywhere, in vector blocks or behind them, is refused. */
Test(base64, refuses_every_foreign_character_anywhere)
{
    uint8_t text[132], out[99];
    size_t len;
    for (size_t at = 0; at < sizeof text; at++) {
        for (unsigned c = 0; c < 256; c++) {
            bool fine = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
                        (c >= '0' && c <= '9') || c == '+' || c == '/' ||
                        (c == '=' && at == sizeof text - 1);
            memset(text, 'A', sizeof text);
            text[at] = (uint8_t)c;
            cr_assert_eq(weir_base64_decode(weir_bytes(text, sizeof text), out, &len),
                         fine ? WEIR_OK : WEIR_INVALID, "%u at %zu", c, at);
        }
    }
}

/* One value has one text: no spare bits, no missing or early padding, no blanks. */
Test(base64, is_strict)
{
    static const char *const bad[] = {"Zg",   "Zg=",      "Zh==",   "Zm9=",  "Z===",  "====",
                                      "=AAA", "Zg==Zg==", "Zm8=\n", " Zm8=", "Zm8 =", "Zm-_"};
    uint8_t out[16];
    size_t len = 7;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_expect_eq(weir_base64_decode(weir_bytes_of(bad[i]), out, &len), WEIR_INVALID, "%s",
                     bad[i]);
    cr_expect_eq(len, 7);
}

/* RFC 3629's borders, at every place relative to the fast path. */
Test(utf8, keeps_the_borders)
{
    static const struct {
        const char *text;
        size_t count; /* 0: not UTF-8 */
    } rows[] = {
        {"\x7f", 1},
        {"\xc2\x80", 1},
        {"\xdf\xbf", 1},
        {"\xe0\xa0\x80", 1},
        {"\xed\x9f\xbf", 1},
        {"\xee\x80\x80", 1},
        {"\xef\xbf\xbf", 1},
        {"\xf0\x90\x80\x80", 1},
        {"\xf4\x8f\xbf\xbf", 1},
        {"\x80", 0},
        {"\xc0\x80", 0},
        {"\xc1\xbf", 0},
        {"\xe0\x9f\xbf", 0},
        {"\xed\xa0\x80", 0},
        {"\xed\xbf\xbf", 0},
        {"\xf0\x8f\xbf\xbf", 0},
        {"\xf4\x90\x80\x80", 0},
        {"\xf5\x80\x80\x80", 0},
        {"\xff", 0},
        {"\xc2", 0},
        {"\xe2\x82", 0},
        {"\xf0\x90\x80", 0},
        {"\xc2\x41", 0},
        {"\xe2\x82\x41", 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        for (size_t before = 0; before < 40; before++) {
            for (size_t after = 0; after < 20; after += 19) {
                char text[80];
                size_t len = strlen(rows[i].text);
                memset(text, 'a', sizeof text);
                memcpy(text + before, rows[i].text, len);
                struct weir_bytes bytes = weir_bytes(text, before + len + after);
                cr_assert_eq(weir_utf8_is_valid(bytes), rows[i].count > 0, "row %zu after %zu", i,
                             before);
                if (rows[i].count)
                    cr_assert_eq(weir_utf8_count(bytes), before + rows[i].count + after);
            }
        }
    }
    cr_expect(weir_utf8_is_valid(weir_bytes("", 0)));
    cr_expect_eq(weir_utf8_count(weir_bytes("", 0)), 0);
}
