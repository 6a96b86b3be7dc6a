#include "json/reader.h"
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdlib.h>

/* One letter per token, with what NAME, STRING and NUMBER hold as it stands; for an error its
 * offset and reason. */
static void
tell(struct weir_bytes json, unsigned depth_max, struct weir_text *out)
{
    static const char letters[] = "$!{}[]nstTFN";
    struct weir_json_reader r;
    weir_json_reader_init(&r, json, depth_max);
    for (;;) {
        enum weir_json_token token = weir_json_next(&r);
        if (token == WEIR_JSON_ERROR) {
            weir_text_printf(out, "!%zu %s", r.at, r.reason);
            break;
        }
        if (token == WEIR_JSON_END)
            break;
        if (token == WEIR_JSON_NAME || token == WEIR_JSON_STRING)
            weir_text_printf(out, "%c(%.*s)", token == WEIR_JSON_NAME ? 'n' : 's', (int)r.text.len,
                             (const char *)r.text.data);
        else if (token == WEIR_JSON_NUMBER)
            weir_text_printf(out, "#(%.*s)", (int)r.text.len, (const char *)r.text.data);
        else
            weir_text_printf(out, "%c", letters[token]);
    }
}

static void
expect_tokens_of(struct weir_bytes json, unsigned depth_max, const char *want, int line)
{
    /* Exactly as large as the text, so that the sanitizer sees a byte read too far. */
    uint8_t *copy = malloc(json.len ? json.len : 1);
    memcpy(copy, json.data, json.len);
    struct weir_text got = {0};
    tell(weir_bytes(copy, json.len), depth_max, &got);
    cr_expect_str_eq(got.data ? got.data : "", want, "line %d: %.*s gives %s", line, (int)json.len,
                     (const char *)json.data, got.data);
    weir_text_fini(&got);
    free(copy);
}
#define TOKENS(json, want) expect_tokens_of(weir_bytes_of(json), 8, want, __LINE__)

/* Every kind of token is told, blanks between them or not. */
Test(json_reader, gives_the_tokens_of_a_document)
{
    TOKENS("{}", "{}");
    TOKENS("[]", "[]");
    TOKENS(" { \"a\" : [ 1 , true ,\tfalse,null ] ,\r\n \"b\":{\"c\":\"d\"} } ",
           "{n(a)[#(1)TFN]n(b){n(c)s(d)}}");
    TOKENS("\"alone\"", "s(alone)");
    TOKENS("-0.5e+10", "#(-0.5e+10)");
    TOKENS("null", "N");
}

/* What RFC 8259 does not allow is refused, with the byte at fault. */
Test(json_reader, refuses_what_is_no_json)
{
    TOKENS("", "!0 text ends too early");
    TOKENS("  ", "!2 text ends too early");
    TOKENS("[1,]", "[#(1)!3 expected a value");
    TOKENS("[,1]", "[!1 expected a value");
    TOKENS("[1 2]", "[#(1)!3 expected ',' or ']'");
    TOKENS("[1}", "[#(1)!2 expected ',' or ']'");
    TOKENS("{\"a\":1,}", "{n(a)#(1)!7 expected a name in quotes");
    TOKENS("{\"a\" 1}", "{!5 expected ':'");
    TOKENS("{\"a\"", "{!4 text ends too early");
    TOKENS("{a:1}", "{!1 expected a name in quotes");
    TOKENS("{\"a\":}", "{n(a)!5 expected a value");
    TOKENS("{\"a\":1]", "{n(a)#(1)!6 expected ',' or '}'");
    TOKENS("{} {}", "{}!3 text after the end");
    TOKENS("tru", "!0 expected a value");
    TOKENS("nul1", "!0 expected a value");
    TOKENS("'a'", "!0 expected a value");
    TOKENS("\"a", "!2 string does not end");
    TOKENS("\"a\\", "!3 string does not end");
    TOKENS("\"a\tb\"", "!2 control character in a string");
    TOKENS("\"a\\x\"", "!2 no such escape");
    TOKENS("/**/1", "!0 expected a value");
    TOKENS("\xef\xbb\xbf{}", "!0 expected a value");
}

/* Numbers keep their digits and JSON's grammar. */
Test(json_reader, knows_numbers)
{
    TOKENS("[0,-1,10.25,1E400,123456789012345678901234567890]",
           "[#(0)#(-1)#(10.25)#(1E400)#(123456789012345678901234567890)]");
    TOKENS("01", "!0 bad number");
    TOKENS("-", "!0 bad number");
    TOKENS("1.", "!0 bad number");
    TOKENS("1.e5", "!0 bad number");
    TOKENS("1e", "!0 bad number");
    TOKENS("1e+", "!0 bad number");
    TOKENS("+1", "!0 expected a value");
    TOKENS(".5", "!0 expected a value");
    TOKENS("1.2.3", "!0 bad number");
    TOKENS("NaN", "!0 expected a value");
}

/* Bytes that are not UTF-8 are refused inside strings too, at the first bad byte. */
Test(json_reader, demands_utf8)
{
    TOKENS("\"\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80\"",
           "s(\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80)");
    TOKENS("[\"good\",\"a\xff\"]", "[s(good)!10 not UTF-8");
    TOKENS("\"\xc0\x80\"", "!1 not UTF-8");
    TOKENS("\"\xed\xa0\x80\"", "!1 not UTF-8");
    TOKENS("\"\xf4\x90\x80\x80\"", "!1 not UTF-8");
    TOKENS("\"\xe2\x82\"", "!1 not UTF-8");
}

/* A half of a surrogate pair stands for no character. */
Test(json_reader, demands_whole_surrogate_pairs)
{
    TOKENS("\"\\ud83d\\ude00\"", "s(\\ud83d\\ude00)");
    TOKENS("\"\\ud83d\"", "!1 half of a surrogate pair");
    TOKENS("\"\\ud83d\\u0041\"", "!1 half of a surrogate pair");
    TOKENS("\"\\ude00\"", "!1 half of a surrogate pair");
    TOKENS("\"\\u12g4\"", "!1 \\u without four hexadecimal digits");
    TOKENS("\"\\u12", "!1 \\u without four hexadecimal digits");
}

/* The limit on nesting holds to the level. */
Test(json_reader, keeps_the_depth_limit)
{
    TOKENS("[[[[[[[[1]]]]]]]]", "[[[[[[[[#(1)]]]]]]]]");
    TOKENS("[[[[[[[[[1]]]]]]]]]", "[[[[[[[[!8 nested too deep");
    uint8_t deep[2 * WEIR_JSON_DEPTH_MAX];
    for (size_t i = 0; i < WEIR_JSON_DEPTH_MAX; i++) {
        deep[i] = '[';
        deep[2 * WEIR_JSON_DEPTH_MAX - 1 - i] = ']';
    }
    struct weir_json_reader r;
    weir_json_reader_init(&r, weir_bytes(deep, sizeof deep), WEIR_JSON_DEPTH_MAX);
    while (weir_json_next(&r) > WEIR_JSON_ERROR)
        ;
    cr_expect(eq(int, r.token, WEIR_JSON_END));
    weir_json_reader_init(&r, weir_bytes(deep, sizeof deep), WEIR_JSON_DEPTH_MAX - 1);
    while (weir_json_next(&r) > WEIR_JSON_ERROR)
        ;
    cr_expect(eq(int, r.token, WEIR_JSON_ERROR));
    cr_expect(eq(int, r.status, WEIR_TOO_BIG));
}

/* Wherever a document is cut, the reader says so and reads nothing beyond. */
Test(json_reader, reports_a_cut_at_every_byte)
{
    const char *whole =
        "{\"name\":[1,-2.5e7,true,null,{\"x\":\"\\u00e9\\ud83d\\ude00 and some longer "
        "text that fills more than one vector of bytes\"}],\"y\":\"\xc3\xa9\"}";
    for (size_t cut = 0; cut < strlen(whole); cut++) {
        uint8_t *copy = malloc(cut ? cut : 1);
        memcpy(copy, whole, cut);
        struct weir_json_reader r;
        weir_json_reader_init(&r, weir_bytes(copy, cut), 8);
        while (weir_json_next(&r) > WEIR_JSON_ERROR)
            ;
        cr_expect(eq(int, r.token, WEIR_JSON_ERROR), "cut at byte %zu", cut);
        cr_expect(r.at <= cut, "cut at byte %zu", cut);
        free(copy);
    }
}

/* END and ERROR stay, however often one asks. */
Test(json_reader, stays_where_it_ended)
{
    struct weir_json_reader r;
    weir_json_reader_init(&r, weir_bytes_of("1"), 1);
    weir_json_next(&r);
    cr_expect(eq(int, weir_json_next(&r), WEIR_JSON_END));
    cr_expect(eq(int, weir_json_next(&r), WEIR_JSON_END));
    weir_json_reader_init(&r, weir_bytes_of("?"), 1);
    cr_expect(eq(int, weir_json_next(&r), WEIR_JSON_ERROR));
    cr_expect(eq(int, weir_json_next(&r), WEIR_JSON_ERROR));
}

/* Names and strings compare and read as what they say, not as they are written. */
Test(json_reader, takes_escapes_out)
{
    struct weir_json_reader r;
    weir_json_reader_init(&r,
                          weir_bytes_of("{\"event\\u004eame\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9"
                                        "\\ud83d\\ude00\\u0000.\"}"),
                          4);
    weir_json_next(&r);
    weir_json_next(&r);
    cr_expect(weir_json_is(&r, "eventName"));
    cr_expect(not(weir_json_is(&r, "eventNam")));
    cr_expect(not(weir_json_is(&r, "eventNames")));
    weir_json_next(&r);
    cr_expect(r.escaped);
    static const char plain[] = "\"\\/\b\f\n\r\t\xc3\xa9\xf0\x9f\x98\x80\0.";
    struct weir_bytes want = weir_bytes(plain, sizeof plain - 1);
    cr_expect(weir_json_text_equal(r.text, want));

    uint8_t out[64];
    size_t len = weir_json_unescape(r.text, out);
    cr_expect(weir_bytes_equal(weir_bytes(out, len), want));
    struct weir_text text = {0};
    cr_expect(eq(int, weir_json_append(&r, &text), WEIR_OK));
    cr_expect(weir_bytes_equal(weir_bytes(text.data, text.len), want));
    weir_text_fini(&text);
}

/* Skipping stands behind the whole value, and shows it as it stands. */
Test(json_reader, skips_a_value_whole)
{
    struct weir_json_reader r;
    weir_json_reader_init(
        &r, weir_bytes_of("{\"a\": {\"b\":[1,{}],\"c\":\"x\"} ,\"d\":\"e\", \"f\":7}"), 4);
    weir_json_next(&r);
    weir_json_next(&r);
    cr_expect(weir_json_skip(&r));
    cr_expect(weir_bytes_is(r.text, "{\"b\":[1,{}],\"c\":\"x\"}"));
    cr_expect(eq(int, weir_json_next(&r), WEIR_JSON_NAME));
    cr_expect(weir_json_is(&r, "d"));
    cr_expect(weir_json_skip(&r));
    cr_expect(weir_bytes_is(r.text, "\"e\""));
    cr_expect(eq(int, weir_json_next(&r), WEIR_JSON_NAME));
    cr_expect(weir_json_skip(&r));
    cr_expect(weir_bytes_is(r.text, "7"));
    cr_expect(eq(int, weir_json_next(&r), WEIR_JSON_OBJECT_END));
    cr_expect(eq(int, weir_json_next(&r), WEIR_JSON_END));

    weir_json_reader_init(&r, weir_bytes_of("[[1,2"), 4);
    weir_json_next(&r);
    cr_expect(not(weir_json_skip(&r)));
}

static enum weir_status
as_u64(const char *json, uint64_t *out)
{
    struct weir_json_reader r;
    weir_json_reader_init(&r, weir_bytes_of(json), 1);
    weir_json_next(&r);
    return weir_json_u64(&r, out);
}

static enum weir_status
as_i64(const char *json, int64_t *out)
{
    struct weir_json_reader r;
    weir_json_reader_init(&r, weir_bytes_of(json), 1);
    weir_json_next(&r);
    return weir_json_i64(&r, out);
}

/* Integers read exactly to the ends of their range, and nothing else passes for one. */
Test(json_reader, reads_integers)
{
    uint64_t u = 1;
    int64_t i = 1;
    cr_expect(eq(int, as_u64("18446744073709551615", &u), WEIR_OK));
    cr_expect(eq(u64, u, UINT64_MAX));
    cr_expect(eq(int, as_u64("18446744073709551616", &u), WEIR_TOO_BIG));
    cr_expect(eq(int, as_u64("-1", &u), WEIR_INVALID));
    cr_expect(eq(int, as_u64("1.0", &u), WEIR_INVALID));
    cr_expect(eq(int, as_u64("1e2", &u), WEIR_INVALID));
    cr_expect(eq(int, as_u64("\"1\"", &u), WEIR_INVALID));
    cr_expect(eq(int, as_i64("-9223372036854775808", &i), WEIR_OK));
    cr_expect(eq(i64, i, INT64_MIN));
    cr_expect(eq(int, as_i64("9223372036854775808", &i), WEIR_TOO_BIG));
    cr_expect(eq(int, as_i64("-9223372036854775809", &i), WEIR_TOO_BIG));
}

/* A failure tells byte and reason; what the caller wanted when the JSON itself is right. */
Test(json_reader, tells_what_failed)
{
    struct weir_error err = {0};
    struct weir_json_reader r;
    weir_json_reader_init(&r, weir_bytes_of("  [?"), 4);
    weir_json_next(&r);
    cr_expect(eq(int, weir_json_fail(&r, &err, "expected an object"), WEIR_INVALID));
    cr_expect_str_eq(err.text, "byte 2: expected an object");
    weir_json_next(&r);
    cr_expect(eq(int, weir_json_fail(&r, &err, "expected a number"), WEIR_INVALID));
    cr_expect_str_eq(err.text, "byte 3: expected a value");
}
