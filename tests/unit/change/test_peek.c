#include "change/change.h"
#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#define IMAGE                                                                                    \
    "{\"orderId\":{\"S\":\"o\\u002d1\"},\"total\":{\"N\":\"22.38\"},\"photo\":{\"B\":\"QQ==\"}," \
    "\"gift\":{\"BOOL\":true},\"note\":{\"NULL\":true},\"items\":{\"L\":[{\"M\":{\"orderId\":"   \
    "{\"S\":\"inner\"}}}]},\"tags\":{\"SS\":[\"a\",\"b\"]},\"caf\\u00e9\":{\"S\":\"\"}}"
#define RECORD                                                                               \
    "{\"eventID\":\"e-1\",\"eventName\":\"MODIFY\",\"userIdentity\":{\"type\":\"Service\"}," \
    "\"tableName\":\"Orders\",\"dynamodb\":{\"ApproximateCreationDateTime\":1475576340123,"  \
    "\"Keys\":{\"orderId\":{\"S\":\"o-1\"}},\"NewImage\":" IMAGE ",\"SizeBytes\":1}}"

/* A peek finds all that a record says about itself. */
Test(change, peeks_at_a_record)
{
    struct weir_change_info info;
    cr_assert(eq(int, weir_change_peek(weir_bytes_of(RECORD), &info, NULL), WEIR_OK));
    cr_expect(eq(int, info.event, WEIR_CHANGE_MODIFY));
    cr_expect_str_eq(weir_change_event_name(info.event), "MODIFY");
    cr_expect(eq(u64, info.created_at_ms, 1475576340123));
    cr_expect(eq(u64, info.created_at_us, 1475576340123000));
    cr_expect(not(info.microseconds));
    cr_expect(weir_bytes_is(info.table, "Orders"));
    cr_expect(weir_bytes_is(info.event_id, "e-1"));
    cr_expect(weir_bytes_is(info.keys, "{\"orderId\":{\"S\":\"o-1\"}}"));
    cr_expect(weir_bytes_is(info.new_image, IMAGE));
    cr_expect(info.old_image.data == NULL);
}

/* The unit of the time is the one that the record states. */
Test(change, reads_microseconds)
{
    struct weir_change_info info;
    struct weir_bytes record =
        weir_bytes_of("{\"eventName\":\"REMOVE\",\"dynamodb\":{\"Keys\":{},"
                      "\"ApproximateCreationDateTimePrecision\":\"MICROSECOND\","
                      "\"ApproximateCreationDateTime\":1475576340123456,\"OldImage\":{}}}");
    cr_assert(eq(int, weir_change_peek(record, &info, NULL), WEIR_OK));
    cr_expect(info.microseconds);
    cr_expect(eq(u64, info.created_at_us, 1475576340123456));
    cr_expect(eq(u64, info.created_at_ms, 1475576340123));
    cr_expect(info.table.data == NULL);
    cr_expect(info.event_id.data == NULL);
    cr_expect(weir_bytes_is(info.old_image, "{}"));
}

/* A record that is none is told apart with byte and reason, and leaves the result alone. */
Test(change, refuses_what_is_no_record)
{
    struct weir_change_info info = {.created_at_ms = 7};
    struct weir_error err = {0};
    cr_expect(eq(int, weir_change_peek(weir_bytes_of("{\"a\":1}"), &info, &err), WEIR_INVALID));
    cr_expect_str_eq(err.text, "byte 0: no eventName");
    cr_expect(eq(int, weir_change_peek(weir_bytes_of("{\"a\":?}"), &info, &err), WEIR_INVALID));
    cr_expect_str_eq(err.text, "byte 5: expected a value");
    cr_expect(eq(int, weir_change_peek(weir_bytes_of("{\"a\xff\":?}"), &info, &err), WEIR_INVALID));
    cr_expect_str_eq(err.text, "byte 3: not UTF-8");
    cr_expect(eq(u64, info.created_at_ms, 7));
}

static void
expect_text(const char *name, const char *want)
{
    struct weir_change_attribute attribute;
    struct weir_text text = {0};
    cr_assert(eq(int, weir_change_attribute(weir_bytes_of(IMAGE), weir_bytes_of(name), &attribute),
                 WEIR_OK),
              "%s", name);
    cr_expect(eq(int, weir_change_attribute_text(&attribute, &text), WEIR_OK));
    cr_expect_str_eq(text.data ? text.data : "", want);
    weir_text_fini(&text);
}

/* An attribute is found by its name, at the top of the image only, and read as text. */
Test(change, finds_attributes_by_name)
{
    expect_text("orderId", "o-1");
    expect_text("total", "22.38");
    expect_text("photo", "QQ==");
    expect_text("gift", "true");
    expect_text("note", "null");
    expect_text("items", "[{\"M\":{\"orderId\":{\"S\":\"inner\"}}}]");
    expect_text("tags", "[\"a\",\"b\"]");
    expect_text("caf\xc3\xa9", "");
    struct weir_change_attribute attribute;
    cr_expect(eq(int,
                 weir_change_attribute(weir_bytes_of(IMAGE), weir_bytes_of("absent"), &attribute),
                 WEIR_NOT_FOUND));
}

/* The walk gives every attribute once, in order, with its type. */
Test(change, walks_the_attributes)
{
    static const enum weir_change_type types[] = {WEIR_CHANGE_S,    WEIR_CHANGE_N,    WEIR_CHANGE_B,
                                                  WEIR_CHANGE_BOOL, WEIR_CHANGE_NULL, WEIR_CHANGE_L,
                                                  WEIR_CHANGE_SS,   WEIR_CHANGE_S};
    struct weir_change_attributes walk;
    struct weir_change_attribute attribute;
    size_t count = 0;
    weir_change_attributes_init(&walk, weir_bytes_of(IMAGE));
    while (weir_change_attributes_next(&walk, &attribute) == WEIR_OK) {
        cr_assert(count < sizeof types / sizeof types[0]);
        cr_expect(eq(int, attribute.type, types[count]));
        count++;
    }
    cr_expect(eq(sz, count, sizeof types / sizeof types[0]));
    cr_expect(eq(int, weir_change_attributes_next(&walk, &attribute), WEIR_END));
}

/* Bytes that are no image end the walk, for good. */
Test(change, refuses_what_is_no_image)
{
    static const char *const bad[] = {"",
                                      "[]",
                                      "{",
                                      "{\"a\":1}",
                                      "{\"a\":{}}",
                                      "{\"a\":{\"X\":1}}",
                                      "{\"a\":{\"S\":1}}",
                                      "{\"a\":{\"NULL\":false}}",
                                      "{\"a\":{\"S\":\"x\",\"N\":\"1\"}}",
                                      "{} {}"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct weir_change_attributes walk;
        struct weir_change_attribute attribute;
        weir_change_attributes_init(&walk, weir_bytes_of(bad[i]));
        cr_expect(eq(int, weir_change_attributes_next(&walk, &attribute), WEIR_INVALID), "%s",
                  bad[i]);
        cr_expect(eq(int, weir_change_attributes_next(&walk, &attribute), WEIR_INVALID), "%s",
                  bad[i]);
    }
}
