#include "change/change.h"
#include "change/flatten.h"
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>

/* Flattens in memory of exactly the right size on both sides, so that the sanitizer sees a byte
 * read or written too far. */
static enum weir_status
flatten(struct weir_bytes record, struct weir_flatten_options options, struct weir_text *out,
        struct weir_error *err)
{
    uint8_t *copy = malloc(record.len ? record.len : 1);
    size_t capacity = weir_flatten_bound(record.len, &options), len = 0;
    uint8_t *line = malloc(capacity);
    memcpy(copy, record.data, record.len);
    enum weir_status st =
        weir_flatten(weir_bytes(copy, record.len), &options, line, capacity, &len, err);
    weir_text_clear(out);
    weir_text_append(out, weir_bytes(line, len));
    free(copy);
    free(line);
    return st;
}

static void
expect_line_of(const char *record, struct weir_flatten_options options, const char *want, int at)
{
    struct weir_text got = {0};
    struct weir_error err = {0};
    for (int portable = 0; portable < 2; portable++) {
        options.portable = portable;
        enum weir_status st = flatten(weir_bytes_of(record), options, &got, &err);
        cr_expect(eq(int, st, WEIR_OK), "line %d: %s", at, err.text);
        cr_expect_str_eq(got.data, want, "line %d, portable %d:\n%s\n%s", at, portable, got.data,
                         want);
    }
    weir_text_fini(&got);
}
#define LINE(record, options, want) expect_line_of(record, options, want "\n", __LINE__)
#define PLAIN ((struct weir_flatten_options){0})
#define WITH(...) ((struct weir_flatten_options){__VA_ARGS__})

static void
expect_refusal_of(struct weir_bytes record, enum weir_status want, const char *text, int at)
{
    struct weir_text got = {0};
    struct weir_error err = {0};
    for (int portable = 0; portable < 2; portable++) {
        enum weir_status st = flatten(record, WITH(.portable = portable), &got, &err);
        cr_expect(eq(int, st, want), "line %d", at);
        cr_expect_str_eq(err.text, text, "line %d, portable %d: %s", at, portable, err.text);
    }
    weir_text_fini(&got);
}
#define REFUSED(record, text) expect_refusal_of(weir_bytes_of(record), WEIR_INVALID, text, __LINE__)

/* A record around the attributes of its new image. */
#define HEAD \
    "{\"eventName\":\"INSERT\",\"dynamodb\":{\"ApproximateCreationDateTime\":0,\"Keys\":{},"
#define INSERT(attributes) HEAD "\"NewImage\":{" attributes "}}}"
/* Refused with the reason, at that byte of the attributes. */
#define REFUSED_IN(attributes, offset, reason) \
    expect_refusal_in(weir_bytes_of(INSERT(attributes)), offset, reason, __LINE__)
#define START "{\"event_name\":\"INSERT\",\"event_time\":\"1970-01-01T00:00:00.000Z\""

static void
expect_refusal_in(struct weir_bytes record, size_t offset, const char *reason, int at)
{
    char text[200];
    snprintf(text, sizeof text, "byte %zu: %s", strlen(HEAD "\"NewImage\":{") + offset, reason);
    expect_refusal_of(record, WEIR_INVALID, text, at);
}

/* A whole record as DynamoDB writes it. */
#define RECORD(name, images)                                                                \
    "{\"awsRegion\":\"us-east-1\",\"eventID\":\"4150051d\",\"eventName\":\"" name "\","     \
    "\"userIdentity\":null,\"recordFormat\":\"application/json\",\"tableName\":\"Orders\"," \
    "\"dynamodb\":{\"ApproximateCreationDateTime\":1475576340123,"                          \
    "\"Keys\":{\"orderId\":{\"S\":\"o-1\"}}" images ",\"SizeBytes\":421},"                  \
    "\"eventSource\":\"aws:dynamodb\"}"
#define NEW ",\"NewImage\":{\"orderId\":{\"S\":\"o-1\"},\"status\":{\"S\":\"shipped\"}}"
#define OLD ",\"OldImage\":{\"orderId\":{\"S\":\"o-1\"},\"status\":{\"S\":\"created\"}}"
#define MODIFY_START "{\"event_name\":\"MODIFY\",\"event_time\":\"2016-10-04T10:19:00.123Z\""
#define REMOVE_START "{\"event_name\":\"REMOVE\",\"event_time\":\"2016-10-04T10:19:00.123Z\""

/* The attributes of the new image stand beside the name and the time of the change. */
Test(flatten, lays_the_new_image_flat)
{
    LINE(RECORD("MODIFY", NEW OLD), PLAIN,
         MODIFY_START ",\"orderId\":\"o-1\",\"status\":\"shipped\"}");
}

/* Each of the ten types comes out as the JSON that says the same. */
Test(flatten, knows_every_type)
{
    LINE(INSERT("\"a\":{\"S\":\"text\"},\"b\":{\"N\":\"143.270\"},\"c\":{\"B\":\"aGVsbG8=\"},"
                "\"d\":{\"BOOL\":true},\"e\":{\"BOOL\":false},\"f\":{\"NULL\":true},"
                "\"g\":{\"SS\":[\"x\"]},\"h\":{\"NS\":[\"1\"]},\"i\":{\"BS\":[\"QQ==\"]},"
                "\"j\":{\"L\":[{\"S\":\"x\"},{\"N\":\"1\"},{\"L\":[]},{\"M\":{}}]},"
                "\"k\":{\"M\":{\"l\":{\"M\":{\"m\":{\"NULL\":true}}},\"n\":{\"S\":\"\"}}}"),
         PLAIN,
         START ",\"a\":\"text\",\"b\":143.270,\"c\":\"aGVsbG8=\",\"d\":true,\"e\":false,"
               "\"f\":null,\"g\":[\"x\"],\"h\":[1],\"i\":[\"QQ==\"],"
               "\"j\":[\"x\",1,[],{}],\"k\":{\"l\":{\"m\":null},\"n\":\"\"}}");
    LINE(INSERT(""), PLAIN, START "}");
}

/* Numbers keep their digits, whatever a double would make of them. */
Test(flatten, keeps_the_digits_of_numbers)
{
    LINE(INSERT("\"a\":{\"N\":\"12345678901234567890123456789012345678\"},\"b\":{\"N\":\"-0.10\"},"
                "\"c\":{\"N\":\"1E+5\"},\"d\":{\"N\":\"9.99e125\"},\"e\":{\"N\":\"0\"},"
                "\"f\":{\"N\":\"1000000000000000000000000000000000000000.0000000000000000\"}"),
         PLAIN,
         START ",\"a\":12345678901234567890123456789012345678,\"b\":-0.10,\"c\":1E+5,"
               "\"d\":9.99e125,\"e\":0,"
               "\"f\":1000000000000000000000000000000000000000.0000000000000000}");
}

/* On demand a number that a double cannot hold is text: from the 16th significant digit on. Zeros
 * at the ends are not significant. */
Test(flatten, writes_long_numbers_as_text)
{
    LINE(INSERT(
             "\"a\":{\"N\":\"123456789012345\"},\"b\":{\"N\":\"1234567890123456\"},"
             "\"c\":{\"N\":\"100000000000000000000000\"},\"d\":{\"N\":\"0.00000000000000000001\"},"
             "\"e\":{\"N\":\"-1.234567890123456E-20\"},\"f\":{\"N\":\"1000000000000000.1\"},"
             "\"g\":{\"NS\":[\"9234567890123456\",\"1\"]}"),
         WITH(.numbers_as_text = true),
         START ",\"a\":123456789012345,\"b\":\"1234567890123456\",\"c\":100000000000000000000000,"
               "\"d\":0.00000000000000000001,\"e\":\"-1.234567890123456E-20\","
               "\"f\":\"1000000000000000.1\",\"g\":[1,\"9234567890123456\"]}");
}

/* What is no decimal number by JSON's grammar would break the line, and is refused. */
Test(flatten, refuses_numbers_that_are_none)
{
    static const char *const bad[] = {"",    "-",  "+1", "01",  ".5",  "1.",  "1e",    "1e+",
                                      "NaN", "1 ", " 1", "0x1", "1,2", "--1", "1.2.3", "1e5.0"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct weir_text record = {0};
        weir_text_printf(&record, INSERT("\"a\":{\"N\":\"%s\"}"), bad[i]);
        expect_refusal_of(weir_bytes(record.data, record.len), WEIR_INVALID,
                          "byte 97: not a number", __LINE__);
        weir_text_fini(&record);
    }
    REFUSED_IN("\"a\":{\"N\":\"1e100000\"}", 9, "exponent out of range");
    REFUSED_IN("\"a\":{\"N\":1}", 9, "value does not fit its attribute type");
}

/* Escapes inside a number are JSON too. */
Test(flatten, reads_numbers_with_escapes)
{
    LINE(INSERT("\"a\":{\"N\":\"\\u0031.5\"},\"b\":{\"NS\":[\"2\",\"\\u0031\"]}"), PLAIN,
         START ",\"a\":1.5,\"b\":[1,2]}");
}

/* Sets have no order of their own; the line gives them one. */
Test(flatten, sorts_sets)
{
    LINE(INSERT("\"a\":{\"SS\":[\"b\",\"a\\nb\",\"\xc3\xa9\",\"a\",\"\xf0\x9f\x98\x80\",\"a b\","
                "\"\\u0041\",\"\\\"\"]},"
                "\"b\":{\"NS\":[\"10\",\"9\",\"-1\",\"-10\",\"0.5\",\"1E1\",\"10.0\",\"0\",\"-0\","
                "\"1e-3\",\"99999999999999999999999999999999999999\",\"1E+30\"]},"
                "\"c\":{\"BS\":[\"aA==\",\"QQ==\",\"QUJD\"]}"),
         PLAIN,
         START ",\"a\":[\"\\\"\",\"A\",\"a\",\"a\\nb\",\"a b\",\"b\",\"\xc3\xa9\","
               "\"\xf0\x9f\x98\x80\"],"
               "\"b\":[-10,-1,-0,0,1e-3,0.5,9,10,10.0,1E1,1E+30,"
               "99999999999999999999999999999999999999],"
               "\"c\":[\"QQ==\",\"QUJD\",\"aA==\"]}");
    REFUSED_IN("\"a\":{\"SS\":[]}", 11, "empty set");
    REFUSED_IN("\"a\":{\"SS\":[1]}", 11, "expected a string in the set");
    REFUSED_IN("\"a\":{\"SS\":[\"x\",]}", 15, "expected a string in the set");
    REFUSED_IN("\"a\":{\"BS\":[\"x\"]}", 11, "not base64");
}

/* A set of many members is sorted as a small one is. */
Test(flatten, sorts_large_sets)
{
    struct weir_text record = {0}, want = {0}, got = {0};
    weir_text_puts(&record, HEAD "\"NewImage\":{\"a\":{\"NS\":[");
    weir_text_puts(&want, START ",\"a\":[");
    for (int i = 0; i < 5000; i++) {
        weir_text_printf(&record, "%s\"%d\"", i ? "," : "", i * 3001 % 5000);
        weir_text_printf(&want, "%s%d", i ? "," : "", i);
    }
    weir_text_puts(&record, "]}}}}");
    weir_text_puts(&want, "]}\n");
    cr_expect(eq(int, flatten(weir_bytes(record.data, record.len), PLAIN, &got, NULL), WEIR_OK));
    cr_expect_str_eq(got.data, want.data);
    weir_text_fini(&record);
    weir_text_fini(&want);
    weir_text_fini(&got);
}

/* Binaries are padded base64; a slash may come escaped. */
Test(flatten, checks_base64)
{
    LINE(INSERT("\"a\":{\"B\":\"+\\/8=\"},\"b\":{\"B\":\"\"}"), PLAIN,
         START ",\"a\":\"+/8=\",\"b\":\"\"}");
    REFUSED_IN("\"a\":{\"B\":\"abc\"}", 9, "not base64");
    REFUSED_IN("\"a\":{\"B\":\"a===\"}", 9, "not base64");
    REFUSED_IN("\"a\":{\"B\":\"ab=c\"}", 9, "not base64");
    REFUSED_IN("\"a\":{\"B\":\"ab-_\"}", 9, "not base64");
}

/* REMOVE has no new image: the keys are told, or the whole old item when that is wanted and there.
 */
Test(flatten, tells_what_was_removed)
{
    LINE(RECORD("REMOVE", OLD), PLAIN, REMOVE_START ",\"orderId\":\"o-1\"}");
    LINE(RECORD("REMOVE", OLD), WITH(.remove_old_image = true),
         REMOVE_START ",\"orderId\":\"o-1\",\"status\":\"created\"}");
    LINE(RECORD("REMOVE", ""), WITH(.remove_old_image = true),
         REMOVE_START ",\"orderId\":\"o-1\"}");
    LINE(RECORD("REMOVE", NEW OLD), PLAIN, REMOVE_START ",\"orderId\":\"o-1\"}");
}

/* A view without the new image still gives a line: its keys. */
Test(flatten, falls_back_to_the_keys)
{
    LINE(RECORD("MODIFY", OLD), PLAIN, MODIFY_START ",\"orderId\":\"o-1\"}");
}

/* The old item stands beside the new one, under names of its own. */
Test(flatten, adds_the_old_image)
{
    LINE(RECORD("MODIFY", NEW OLD), WITH(.with_old = true),
         MODIFY_START ",\"orderId\":\"o-1\",\"status\":\"shipped\",\"old_orderId\":\"o-1\","
                      "\"old_status\":\"created\"}");
    LINE(RECORD("REMOVE", OLD), WITH(.with_old = true),
         REMOVE_START ",\"orderId\":\"o-1\",\"old_orderId\":\"o-1\",\"old_status\":\"created\"}");
    LINE(RECORD("REMOVE", OLD), WITH(.with_old = true, .remove_old_image = true),
         REMOVE_START ",\"orderId\":\"o-1\",\"status\":\"created\"}");
    LINE(RECORD("MODIFY", NEW), WITH(.with_old = true),
         MODIFY_START ",\"orderId\":\"o-1\",\"status\":\"shipped\"}");
}

/* No attribute takes a name of ours, and no two attributes meet under one. */
Test(flatten, keeps_names_apart)
{
    LINE(INSERT("\"event_name\":{\"N\":\"1\"},\"attr_event_name\":{\"N\":\"2\"},"
                "\"attr_attr_event_name\":{\"N\":\"3\"},\"event_time\":{\"N\":\"4\"},"
                "\"event_time_ms\":{\"N\":\"5\"},\"_seq\":{\"N\":\"6\"},\"_shard\":{\"N\":\"7\"},"
                "\"_event_id\":{\"N\":\"8\"},\"_table\":{\"N\":\"9\"},\"event\\u005fname\":"
                "{\"N\":\"10\"},\"event_names\":{\"N\":\"11\"},\"attr_\":{\"N\":\"12\"},"
                "\"_\":{\"N\":\"13\"},\"old_a\":{\"N\":\"14\"},"
                "\"m\":{\"M\":{\"event_name\":{\"N\":\"15\"}}}"),
         PLAIN,
         START ",\"attr_event_name\":1,\"attr_attr_event_name\":2,\"attr_attr_attr_event_name\":3,"
               "\"attr_event_time\":4,\"attr_event_time_ms\":5,\"attr__seq\":6,\"attr__shard\":7,"
               "\"attr__event_id\":8,\"attr__table\":9,\"attr_event_name\":10,\"event_names\":11,"
               "\"attr_\":12,\"_\":13,\"old_a\":14,\"m\":{\"event_name\":15}}");
    LINE(RECORD("MODIFY", ",\"NewImage\":{\"old_a\":{\"S\":\"new\"},\"attr_old_a\":{\"S\":\"x\"}},"
                          "\"OldImage\":{\"a\":{\"S\":\"old\"},\"event_name\":{\"S\":\"y\"}}"),
         WITH(.with_old = true),
         MODIFY_START ",\"attr_old_a\":\"new\",\"attr_attr_old_a\":\"x\",\"old_a\":\"old\","
                      "\"old_event_name\":\"y\"}");
}

/* Metadata comes first, in one order, null where the record has none. */
Test(flatten, adds_metadata)
{
    struct weir_flatten_options all = {.event_time_ms = true,
                                       .event_id = true,
                                       .table = true,
                                       .seq = weir_bytes_of("4959"),
                                       .shard = weir_bytes_of("shardId-\"\n\x01")};
    LINE(RECORD("MODIFY", NEW), all,
         MODIFY_START ",\"event_time_ms\":1475576340123,\"_seq\":\"4959\","
                      "\"_shard\":\"shardId-\\\"\\n\\u0001\",\"_event_id\":\"4150051d\","
                      "\"_table\":\"Orders\",\"orderId\":\"o-1\",\"status\":\"shipped\"}");
    LINE(INSERT(""), WITH(.event_id = true, .table = true),
         START ",\"_event_id\":null,\"_table\":null}");
}

/* The time has the precision that the record states, and only that. */
Test(flatten, writes_times)
{
    static const struct {
        const char *members, *want;
    } times[] = {
        {"0", "1970-01-01T00:00:00.000Z"},
        {"951782400000", "2000-02-29T00:00:00.000Z"},
        {"951868800000", "2000-03-01T00:00:00.000Z"},
        {"4107542399999", "2100-02-28T23:59:59.999Z"},
        {"4107542400000", "2100-03-01T00:00:00.000Z"},
        {"253402300799999", "9999-12-31T23:59:59.999Z"},
        {"1475576340123456,\"ApproximateCreationDateTimePrecision\":\"MICROSECOND\"",
         "2016-10-04T10:19:00.123456Z"},
        {"1475576340123,\"ApproximateCreationDateTimePrecision\":\"MILLISECOND\"",
         "2016-10-04T10:19:00.123Z"},
    };
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
        struct weir_text record = {0}, want = {0}, got = {0};
        weir_text_printf(&record,
                         "{\"eventName\":\"INSERT\",\"dynamodb\":{\"ApproximateCreationDateTime\":"
                         "%s,\"Keys\":{}}}",
                         times[i].members);
        weir_text_printf(&want, "{\"event_name\":\"INSERT\",\"event_time\":\"%s\"}\n",
                         times[i].want);
        cr_expect(
            eq(int, flatten(weir_bytes(record.data, record.len), PLAIN, &got, NULL), WEIR_OK));
        cr_expect_str_eq(got.data, want.data);
        weir_text_fini(&record);
        weir_text_fini(&want);
        weir_text_fini(&got);
    }
}

/* Whatever the order of the members, the line is the same. */
Test(flatten, takes_members_in_any_order)
{
    static const char *const inner[] = {
        "\"ApproximateCreationDateTime\":1475576340123000",
        "\"ApproximateCreationDateTimePrecision\":\"MICROSECOND\"",
        "\"Keys\":{\"orderId\":{\"S\":\"o-1\"}}",
        "\"NewImage\":{\"status\":{\"S\":\"shipped\"}}",
        "\"OldImage\":{\"status\":{\"S\":\"created\"}}",
    };
    struct weir_text record = {0}, got = {0};
    for (unsigned n = 0; n < 120 * 4; n++) {
        /* The n-th permutation of five, and where the three others stand around them. */
        unsigned left[] = {0, 1, 2, 3, 4}, count = 5, rest = n / 4;
        weir_text_clear(&record);
        weir_text_puts(&record, "{");
        weir_text_puts(&record, n & 1 ? "\"eventName\":\"MODIFY\"," : "");
        weir_text_puts(&record, n & 2 ? "\"eventID\":\"e\"," : "");
        weir_text_puts(&record, "\"dynamodb\":{");
        while (count > 0) {
            unsigned pick = rest % count;
            rest /= count;
            weir_text_puts(&record, inner[left[pick]]);
            weir_text_puts(&record, count > 1 ? "," : "}");
            left[pick] = left[--count];
        }
        weir_text_puts(&record, n & 1 ? "" : ",\"eventName\":\"MODIFY\"");
        weir_text_puts(&record, n & 2 ? "" : ",\"eventID\":\"e\"");
        weir_text_puts(&record, "}");
        enum weir_status st = flatten(weir_bytes(record.data, record.len),
                                      WITH(.with_old = true, .event_id = true), &got, NULL);
        cr_expect(eq(int, st, WEIR_OK), "%s", record.data);
        cr_expect_str_eq(
            got.data,
            "{\"event_name\":\"MODIFY\",\"event_time\":\"2016-10-04T10:19:00.123000Z\","
            "\"_event_id\":\"e\",\"status\":\"shipped\",\"old_status\":\"created\"}\n",
            "%s gives %s", record.data, got.data);
    }
    weir_text_fini(&record);
    weir_text_fini(&got);
}

/* Text comes out as UTF-8; only what JSON demands is escaped, however it was written. */
Test(flatten, writes_text_one_way)
{
    LINE(INSERT(
             "\"\\u0061\\n\":{\"S\":\"\\u0041\\/\\\"\\\\\\b\\f\\n\\r\\t\\u0000\\u001F\\u007f\\u00e9"
             "\\u20AC\\uD83D\\uDE00\"},"
             "\"\xc3\xa9\":{\"S\":\"\xe2\x82\xac\xf0\x9f\x98\x80\xf4\x8f\xbf\xbf\"}"),
         PLAIN,
         START ",\"a\\n\":\"A/\\\"\\\\\\b\\f\\n\\r\\t\\u0000\\u001f\x7f\xc3\xa9"
               "\xe2\x82\xac\xf0\x9f\x98\x80\","
               "\"\xc3\xa9\":\"\xe2\x82\xac\xf0\x9f\x98\x80\xf4\x8f\xbf\xbf\"}");
    REFUSED_IN("\"a\":{\"S\":\"\\ud83d\"}", 10, "half of a surrogate pair");
    REFUSED_IN("\"a\":{\"S\":\"\\x\"}", 10, "no such escape");
    REFUSED_IN("\"a\":{\"S\":\"\n\"}", 10, "control character in a string");
    REFUSED_IN("\"a\":{\"S\":\"x\xff\"}", 11, "not UTF-8");
    REFUSED_IN("\"a\":{\"S\":\"\xed\xa0\x80\"}", 10, "not UTF-8");
}

/* A special at any distance from the start of its string is met, at any length of vector. */
Test(flatten, copies_text_of_every_length)
{
    struct weir_text record = {0}, want = {0}, got = {0};
    for (size_t len = 0; len < 200; len++) {
        weir_text_clear(&record);
        weir_text_clear(&want);
        weir_text_puts(&record, HEAD "\"NewImage\":{\"a\":{\"S\":\"");
        weir_text_puts(&want, START ",\"a\":\"");
        for (size_t i = 0; i < len; i++) {
            weir_text_printf(&record, "%c", 'a' + (int)(i % 26));
            weir_text_printf(&want, "%c", 'a' + (int)(i % 26));
        }
        weir_text_puts(&record, "\\u00e9z\"}}}}");
        weir_text_puts(&want, "\xc3\xa9z\"}\n");
        for (int portable = 0; portable < 2; portable++) {
            enum weir_status st = flatten(weir_bytes(record.data, record.len),
                                          WITH(.portable = portable), &got, NULL);
            cr_expect(eq(int, st, WEIR_OK));
            cr_expect_str_eq(got.data, want.data);
        }
    }
    weir_text_fini(&record);
    weir_text_fini(&want);
    weir_text_fini(&got);
}

/* Blanks may stand wherever JSON allows them. */
Test(flatten, takes_blanks)
{
    LINE(
        " { \"eventName\" : \"INSERT\" ,\n\t\"dynamodb\" : { \"Keys\" : { } , "
        "\"ApproximateCreationDateTime\" : 0 , \"NewImage\" : { \"a\" : { \"S\" : \"x\" } , \"b\" :"
        " { \"L\" : [ { \"NULL\" : true } , { \"M\" : { } } ] } , \"c\" : { \"SS\" : [ \"2\" , "
        "\"1\" ] } , \"d\" : { \"N\" : \"1\" } } } } \r\n",
        PLAIN, START ",\"a\":\"x\",\"b\":[null,{}],\"c\":[\"1\",\"2\"],\"d\":1}");
}

/* Members that nobody knows may hold any JSON, but it must be JSON. */
Test(flatten, passes_over_unknown_members)
{
    LINE("{\"x\":[1,-2.5e3,{\"a\":[],\"b\":{}},\"\\u00e9\",true,false,null],\"eventName\":"
         "\"INSERT\","
         "\"dynamodb\":{\"y\":{},\"ApproximateCreationDateTime\":0,\"Keys\":{}}}",
         PLAIN, START "}");
    REFUSED("{\"x\":[1,],\"eventName\"", "byte 8: expected a value");
    REFUSED("{\"x\":{\"a\" 1}", "byte 10: expected ':'");
    REFUSED("{\"x\":{1:2}", "byte 6: expected a name in quotes");
    REFUSED("{\"x\":[1 2]", "byte 8: expected ',' or ']'");
    REFUSED("{\"x\":01}", "byte 6: expected ',' or '}'");
    REFUSED("{\"x\":nul}", "byte 5: expected a value");
}

/* What a record must have, it is refused without. */
Test(flatten, demands_what_makes_a_change)
{
    REFUSED("", "byte 0: record ends too early");
    REFUSED("[]", "byte 0: expected an object");
    REFUSED("{}", "byte 0: no eventName");
    REFUSED("{\"eventName\":\"INSERT\"}", "byte 0: no dynamodb");
    REFUSED("{\"eventName\":\"INSERT\",\"dynamodb\":{}}", "byte 0: no ApproximateCreationDateTime");
    REFUSED("{\"eventName\":\"INSERT\",\"dynamodb\":{\"ApproximateCreationDateTime\":1}}",
            "byte 0: no Keys");
    REFUSED("{\"eventName\":\"UPDATE\"}", "byte 13: eventName is none of INSERT, MODIFY, REMOVE");
    REFUSED("{\"eventName\":1}", "byte 13: expected a string");
    REFUSED("{\"eventID\":1}", "byte 11: expected a string");
    REFUSED("{\"dynamodb\":[]}", "byte 12: expected an object");
    REFUSED("{\"dynamodb\":{\"Keys\":null}}", "byte 20: expected an object of attributes");
    REFUSED("{\"dynamodb\":{\"ApproximateCreationDateTime\":1.5}}",
            "byte 43: ApproximateCreationDateTime is no integer of our time");
    REFUSED("{\"dynamodb\":{\"ApproximateCreationDateTime\":-1}}",
            "byte 43: ApproximateCreationDateTime is no integer of our time");
    REFUSED("{\"dynamodb\":{\"ApproximateCreationDateTime\":99999999999999999999}}",
            "byte 43: ApproximateCreationDateTime is no integer of our time");
    REFUSED("{\"eventName\":\"INSERT\",\"dynamodb\":{\"ApproximateCreationDateTime\":"
            "253402300800000,\"Keys\":{},\"NewImage\":{}}}",
            "byte 64: ApproximateCreationDateTime is beyond the year 9999");
    REFUSED("{\"dynamodb\":{\"ApproximateCreationDateTimePrecision\":\"SECOND\"}}",
            "byte 52: precision is neither MILLISECOND nor MICROSECOND");
    REFUSED("{\"eventName\":\"INSERT\",\"eventName\":\"INSERT\"}", "byte 22: member occurs twice");
    REFUSED(INSERT("") "x", "byte 91: text after the record");
    REFUSED(INSERT("") INSERT(""), "byte 91: text after the record");
}

/* An attribute value is one type and its value. */
Test(flatten, refuses_attribute_values_that_are_none)
{
    REFUSED_IN("\"a\":\"x\"", 4, "expected an attribute value, as in {\"S\":\"…\"}");
    REFUSED_IN("\"a\":{}", 5, "expected the type of an attribute");
    REFUSED_IN("\"a\":{\"X\":\"x\"}", 5,
               "attribute type is none of S, N, B, BOOL, NULL, L, M, SS, NS, BS");
    REFUSED_IN("\"a\":{\"S\":\"x\",\"N\":\"1\"}", 12, "expected '}' after an attribute value");
    REFUSED_IN("\"a\":{\"S\":1}", 9, "value does not fit its attribute type");
    REFUSED_IN("\"a\":{\"L\":{}}", 9, "value does not fit its attribute type");
    REFUSED_IN("\"a\":{\"M\":[]}", 9, "value does not fit its attribute type");
    REFUSED_IN("\"a\":{\"SS\":\"x\"}", 10, "value does not fit its attribute type");
    REFUSED_IN("\"a\":{\"BOOL\":\"true\"}", 12, "value does not fit its attribute type");
    REFUSED_IN("\"a\":{\"BOOL\":tru}", 12, "value does not fit its attribute type");
    REFUSED_IN("\"a\":{\"NULL\":false}", 12, "value does not fit its attribute type");
    REFUSED_IN("\"a\":{\"S\":\"x\"},", 14, "expected a name in quotes");
    REFUSED_IN("\"a\":{\"L\":[{\"S\":\"x\"},]}", 20,
               "expected an attribute value, as in {\"S\":\"…\"}");
    REFUSED_IN("\"a\":{\"L\":[{\"S\":\"x\"}}", 19, "expected ',' or ']'");
    REFUSED_IN("\"a\":{\"M\":{\"b\":{\"S\":\"x\"}]}", 23, "expected ',' or '}'");
}

/* The image that is not told is checked as well: a record is good or it is not. */
Test(flatten, checks_the_image_it_does_not_tell)
{
    REFUSED(RECORD("MODIFY", NEW ",\"OldImage\":{\"a\":{\"N\":\"x\"}}"), "byte 310: not a number");
}

static void
nest(struct weir_text *record, int levels, bool maps)
{
    weir_text_puts(record, HEAD "\"NewImage\":{\"a\":");
    for (int i = 0; i < levels; i++)
        weir_text_puts(record, maps ? "{\"M\":{\"a\":" : "{\"L\":[");
    weir_text_puts(record, "{\"N\":\"1\"}");
    for (int i = 0; i < levels; i++)
        weir_text_puts(record, maps ? "}}" : "]}");
    weir_text_puts(record, "}}}");
}

/* Nesting goes to the limit, which is above DynamoDB's, and not a level further. */
Test(flatten, keeps_the_depth_limit)
{
    for (int maps = 0; maps < 2; maps++) {
        struct weir_text record = {0}, got = {0};
        struct weir_error err = {0};
        nest(&record, WEIR_CHANGE_DEPTH_MAX, maps);
        cr_expect(eq(int, flatten(weir_bytes(record.data, record.len), PLAIN, &got, &err), WEIR_OK),
                  "%s", err.text);
        weir_text_clear(&record);
        nest(&record, WEIR_CHANGE_DEPTH_MAX + 1, maps);
        cr_expect(
            eq(int, flatten(weir_bytes(record.data, record.len), PLAIN, &got, &err), WEIR_TOO_BIG));
        weir_text_fini(&record);
        weir_text_fini(&got);
    }
}

/* Wherever a record is cut, it is refused, and nothing beyond the cut is read. */
Test(flatten, refuses_a_cut_at_every_byte)
{
    const char *record = RECORD(
        "MODIFY", ",\"NewImage\":{\"a\":{\"S\":\"\\u00e9\\ud83d\\ude00 and a text of more "
                  "than one vector of sixty-four bytes, to its end\"},\"b\":{\"N\":\"-12.5e3\"},"
                  "\"c\":{\"B\":\"aGVsbG8=\"},\"d\":{\"BOOL\":false},\"e\":{\"NULL\":true},"
                  "\"f\":{\"SS\":[\"b\",\"a\"]},\"g\":{\"NS\":[\"2\",\"1\"]},"
                  "\"h\":{\"L\":[{\"M\":{\"i\":{\"BS\":[\"QQ==\"]}}},{\"L\":[]}]}}" OLD);
    size_t len = strlen(record);
    struct weir_text got = {0};
    struct weir_error err = {0};
    struct weir_flatten_options options = {.with_old = true};
    cr_assert(eq(int, flatten(weir_bytes(record, len), options, &got, &err), WEIR_OK), "%s",
              err.text);
    for (size_t cut = 0; cut < len; cut++) {
        for (int portable = 0; portable < 2; portable++) {
            options.portable = portable;
            cr_expect(eq(int, flatten(weir_bytes(record, cut), options, &got, &err), WEIR_INVALID),
                      "cut at byte %zu", cut);
            unsigned long at;
            cr_expect(eq(int, sscanf(err.text, "byte %lu: ", &at), 1), "%s", err.text);
            cr_expect(at <= cut, "cut at byte %zu: %s", cut, err.text);
        }
    }
    weir_text_fini(&got);
}

/* The largest items, both images, fit the bound, and come out whole. */
Test(flatten, takes_the_largest_items)
{
    struct weir_text record = {0}, got = {0};
    weir_text_puts(&record,
                   "{\"eventName\":\"MODIFY\",\"dynamodb\":{\"ApproximateCreationDateTime\":"
                   "1,\"Keys\":{}");
    for (int old = 0; old < 2; old++) {
        weir_text_puts(&record, old ? ",\"OldImage\":{" : ",\"NewImage\":{");
        for (int i = 0; i < 4000; i++)
            weir_text_printf(&record, "%s\"event_name\":{\"S\":\"%0100d\"}", i ? "," : "", i);
        weir_text_puts(&record, "}");
    }
    weir_text_puts(&record, "}}");
    cr_expect(eq(int,
                 flatten(weir_bytes(record.data, record.len), WITH(.with_old = true), &got, NULL),
                 WEIR_OK));
    cr_expect(got.len > 8000 * 110);
    cr_expect(eq(chr, got.data[got.len - 1], '\n'));
    weir_text_fini(&record);
    weir_text_fini(&got);
}

/* Without the room that the bound asks for nothing is tried; a text grows by itself, and keeps what
 * it had when a record is refused. */
Test(flatten, needs_room_for_the_bound)
{
    struct weir_bytes record = weir_bytes_of(INSERT("\"a\":{\"S\":\"x\"}"));
    struct weir_flatten_options options = {0};
    size_t bound = weir_flatten_bound(record.len, &options), len = 7;
    uint8_t *out = malloc(bound);
    cr_expect(eq(int, weir_flatten(record, &options, out, bound - 1, &len, NULL), WEIR_TOO_BIG));
    cr_expect(eq(sz, len, 7));
    free(out);

    struct weir_text text = {0};
    for (int i = 0; i < 3; i++) {
        cr_expect(eq(int, weir_flatten_append(record, &options, &text, NULL), WEIR_OK));
        cr_expect(eq(int, weir_flatten_append(weir_bytes(record.data, 99), &options, &text, NULL),
                     WEIR_INVALID));
    }
    cr_expect_str_eq(text.data,
                     START ",\"a\":\"x\"}\n" START ",\"a\":\"x\"}\n" START ",\"a\":\"x\"}\n");
    weir_text_fini(&text);
    options.seq = weir_bytes("", SIZE_MAX / 2);
    cr_expect(eq(sz, weir_flatten_bound(record.len, &options), SIZE_MAX));
}
