/* Partition keys out of lines. */
#include "../../../consumers/weir/key.h"
#include <criterion/criterion.h>

static void
expect_path(const char *line, const char *path, enum weir_status st, const char *key)
{
    struct weir_text out = {0};
    struct weir_error err = {0};
    cr_expect_eq(key_from_path(weir_bytes_of(line), path, &out, &err), st, "%s at %s: %s", line,
                 path, err.text);
    if (!st)
        cr_expect_str_eq(out.data, key);
    weir_text_fini(&out);
}

/* A path ends at a text, a number, a DynamoDB value, or something whose text is the key. */
Test(key, follows_paths)
{
    expect_path("{\"id\":\"a\"}", "id", WEIR_OK, "a");
    expect_path("{\"id\":12}", "id", WEIR_OK, "12");
    expect_path("{\"a\":{\"b\":{\"S\":\"x\\u0041\"}}}", "a.b", WEIR_OK, "xA");
    expect_path("{\"a\":{\"b\":{\"N\":\"1.50\"}}}", "a.b", WEIR_OK, "1.50");
    expect_path("{\"x\":1,\"a\":[1, 2]}", "a", WEIR_OK, "[1, 2]");
    expect_path("{\"a\":{\"p\":1,\"q\":2}}", "a", WEIR_OK, "{\"p\":1,\"q\":2}");
}

/* What has no key says so, and what is no JSON to its last byte is refused. */
Test(key, refuses_lines_without_a_key)
{
    expect_path("{\"id\":\"a\"}", "no", WEIR_NOT_FOUND, NULL);
    expect_path("{\"id\":\"a\"}", "id.deeper", WEIR_NOT_FOUND, NULL);
    expect_path("{\"id\":\"\"}", "id", WEIR_INVALID, NULL);
    expect_path("{\"id\":\"a\"", "id", WEIR_INVALID, NULL);
    expect_path("{\"id\":\"a\"} x", "id", WEIR_INVALID, NULL);
    expect_path("", "id", WEIR_INVALID, NULL);
}

/* Changes of one item have one key, whatever the order of its key attributes. */
Test(key, hashes_the_keys_of_a_change)
{
    struct weir_text a = {0}, b = {0}, c = {0};
    const char *one =
        "{\"eventName\":\"INSERT\",\"dynamodb\":{\"Keys\":{\"p\":{\"S\":\"1\"},\"s\":{\"N\":"
        "\"2\"}}}}";
    const char *two = "{\"dynamodb\":{\"Keys\":{\"s\":{\"N\":\"2\"},\"p\":{\"S\":\"1\"}},\"x\":1}}";
    const char *other = "{\"dynamodb\":{\"Keys\":{\"s\":{\"N\":\"3\"},\"p\":{\"S\":\"1\"}}}}";
    cr_assert_eq(key_from_change(weir_bytes_of(one), &a, NULL), WEIR_OK);
    cr_assert_eq(key_from_change(weir_bytes_of(two), &b, NULL), WEIR_OK);
    cr_assert_eq(key_from_change(weir_bytes_of(other), &c, NULL), WEIR_OK);
    cr_expect_eq(a.len, 32);
    cr_expect_str_eq(a.data, b.data);
    cr_expect_str_neq(a.data, c.data);
    cr_expect_eq(key_from_change(weir_bytes_of("{\"dynamodb\":{}}"), &a, NULL), WEIR_NOT_FOUND);
    cr_expect_eq(key_from_change(weir_bytes_of("{\"dynamodb\":{\"Keys\":{}}}"), &a, NULL),
                 WEIR_INVALID);
    weir_text_fini(&a);
    weir_text_fini(&b);
    weir_text_fini(&c);
}
