#include "json/reader.h"
#include "json/writer.h"
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>

static void
expect_text(struct weir_text *text, const char *want)
{
    cr_expect_str_eq(text->data ? text->data : "", want);
    weir_text_clear(text);
}

/* Commas and colons stand where they belong, at every depth. */
Test(json_writer, puts_the_separators)
{
    struct weir_text text = {0};
    struct weir_json_writer w;
    weir_json_writer_init(&w, &text);
    weir_json_begin_object(&w);
    weir_json_write_name(&w, "a");
    weir_json_begin_array(&w);
    weir_json_write_u64(&w, 1);
    weir_json_begin_object(&w);
    weir_json_end_object(&w);
    weir_json_begin_array(&w);
    weir_json_end_array(&w);
    weir_json_write_bool(&w, true);
    weir_json_end_array(&w);
    weir_json_write_name(&w, "b");
    weir_json_write_null(&w);
    weir_json_write_name(&w, "c");
    weir_json_write_text_or_null(&w, NULL);
    weir_json_end_object(&w);
    cr_expect(eq(int, weir_json_writer_status(&w), WEIR_OK));
    expect_text(&text, "{\"a\":[1,{},[],true],\"b\":null,\"c\":null}");
    weir_text_fini(&text);
}

/* One text can hold many lines. */
Test(json_writer, writes_lines)
{
    struct weir_text text = {0};
    struct weir_json_writer w;
    weir_json_writer_init(&w, &text);
    weir_json_write_u64(&w, 1);
    weir_json_end_line(&w);
    weir_json_write_u64(&w, 2);
    weir_json_end_line(&w);
    expect_text(&text, "1\n2\n");
    weir_text_fini(&text);
}

/* Escapes are the shortest that JSON has, and the rest of Unicode stands as it is. */
Test(json_writer, escapes_what_json_demands)
{
    struct weir_text text = {0};
    struct weir_json_writer w;
    weir_json_writer_init(&w, &text);
    static const char plain[] = "\"\\/\b\f\n\r\t\0\x1f\x7f \xc3\xa9\xf0\x9f\x98\x80";
    weir_json_write_string(&w, weir_bytes(plain, sizeof plain - 1));
    expect_text(&text, "\"\\\"\\\\/\\b\\f\\n\\r\\t\\u0000\\u001f\x7f \xc3\xa9\xf0\x9f\x98\x80\"");
    weir_text_fini(&text);
}

/* What is not UTF-8 becomes a visible mark, so that the output is JSON whatever comes in. */
Test(json_writer, marks_bytes_that_are_no_text)
{
    struct weir_text text = {0};
    struct weir_json_writer w;
    weir_json_writer_init(&w, &text);
    weir_json_write_text(&w, "a\xff\xfe\"b\xe2\x82");
    expect_text(&text, "\"a\xef\xbf\xbd\xef\xbf\xbd\\\"b\xef\xbf\xbd\xef\xbf\xbd\"");
    weir_text_fini(&text);
}

/* Numbers come out exactly, and never as something that is no JSON. */
Test(json_writer, writes_numbers)
{
    struct weir_text text = {0};
    struct weir_json_writer w;
    weir_json_writer_init(&w, &text);
    weir_json_begin_array(&w);
    weir_json_write_u64(&w, 0);
    weir_json_write_u64(&w, UINT64_MAX);
    weir_json_write_i64(&w, INT64_MIN);
    weir_json_write_double(&w, 2.5, 2);
    weir_json_write_double(&w, -0.04, 1);
    weir_json_write_double(&w, NAN, 1);
    weir_json_write_double(&w, INFINITY, 1);
    weir_json_write_seconds(&w, 1764320000007);
    weir_json_write_raw(&w, weir_bytes_of("1E400"));
    weir_json_end_array(&w);
    expect_text(&text, "[0,18446744073709551615,-9223372036854775808,2.50,-0.0,null,null,"
                       "1764320000.007,1E400]");
    weir_text_fini(&text);
}

/* Base64 is one text, whatever the length; the pieces it is made of leave no seam. */
Test(json_writer, writes_base64_without_seams)
{
    static uint8_t bytes[3072 * 2 + 1];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 7);
    static char whole[4 * (sizeof bytes / 3 + 1) + 1];
    static const size_t lens[] = {0, 1, 2, 3, 3071, 3072, 3073, sizeof bytes};
    for (size_t i = 0; i < sizeof lens / sizeof lens[0]; i++) {
        struct weir_text text = {0};
        struct weir_json_writer w;
        weir_json_writer_init(&w, &text);
        weir_json_write_base64(&w, weir_bytes(bytes, lens[i]));
        size_t len = weir_base64_encode(weir_bytes(bytes, lens[i]), whole);
        cr_assert(eq(sz, text.len, len + 2));
        cr_expect(eq(int, memcmp(text.data + 1, whole, len), 0), "%zu bytes", lens[i]);
        weir_text_fini(&text);
    }
}

/* What the writer wrote, the reader reads back. */
Test(json_writer, agrees_with_the_reader)
{
    struct weir_text text = {0}, back = {0};
    struct weir_json_writer w;
    static uint8_t all[0x80];
    for (size_t i = 0; i < sizeof all; i++)
        all[i] = (uint8_t)i;
    weir_json_writer_init(&w, &text);
    weir_json_begin_object(&w);
    weir_json_write_name_bytes(&w, weir_bytes(all, sizeof all));
    weir_json_write_string(&w, weir_bytes(all, sizeof all));
    weir_json_end_object(&w);

    struct weir_json_reader r;
    weir_json_reader_init(&r, weir_bytes(text.data, text.len), 1);
    weir_json_next(&r);
    cr_expect(eq(int, weir_json_next(&r), WEIR_JSON_NAME));
    cr_expect(weir_json_text_equal(r.text, weir_bytes(all, sizeof all)));
    cr_expect(eq(int, weir_json_next(&r), WEIR_JSON_STRING));
    cr_expect(eq(int, weir_json_append(&r, &back), WEIR_OK));
    cr_expect(weir_bytes_equal(weir_bytes(back.data, back.len), weir_bytes(all, sizeof all)));
    weir_text_fini(&text);
    weir_text_fini(&back);
}
