#include "base/checked.h"
#include "base/error.h"
#include "base/le.h"
#include "base/limits.h"
#include "base/list.h"
#include "base/status.h"
#include "base/u128.h"
#include <criterion/criterion.h>
#include <errno.h>

/* Every status has a name and a text of its own. */
Test(status, has_names_and_texts)
{
    for (int i = 0; i < WEIR_STATUS_COUNT; i++) {
        for (int k = 0; k < i; k++) {
            cr_expect_str_neq(weir_status_name((enum weir_status)i),
                              weir_status_name((enum weir_status)k));
            cr_expect_str_neq(weir_status_text((enum weir_status)i),
                              weir_status_text((enum weir_status)k));
        }
    }
    cr_expect_str_eq(weir_status_name(WEIR_NO_SPACE), "NO_SPACE");
    cr_expect_str_eq(weir_status_text(WEIR_NO_SPACE), "no space left");
    cr_expect_str_eq(weir_status_text((enum weir_status)99), "unknown status");
}

/* A full disk is told apart from a broken one. */
Test(status, comes_from_errno)
{
    cr_expect_eq(weir_status_from_errno(0), WEIR_OK);
    cr_expect_eq(weir_status_from_errno(ENOSPC), WEIR_NO_SPACE);
    cr_expect_eq(weir_status_from_errno(EDQUOT), WEIR_NO_SPACE);
    cr_expect_eq(weir_status_from_errno(EIO), WEIR_IO);
    cr_expect_eq(weir_status_from_errno(ENOENT), WEIR_NOT_FOUND);
    cr_expect_eq(weir_status_from_errno(EBADF), WEIR_IO);
    cr_expect(weir_status_retryable(WEIR_NO_SPACE));
    cr_expect_not(weir_status_retryable(WEIR_UNKNOWN));
    cr_expect_not(weir_status_retryable(WEIR_OK));
}

/* Each layer puts in front where it was. */
Test(error, reads_like_a_path_to_the_fault)
{
    struct weir_error err = {0};
    cr_expect_eq(weir_fail(&err, WEIR_IO, "cannot read '%s'", "a"), WEIR_IO);
    cr_expect_eq(weir_fail_in(&err, WEIR_INVALID, "cannot open stream '%s'", "s"), WEIR_IO);
    cr_expect_str_eq(err.text, "cannot open stream 's': cannot read 'a'");
    cr_expect_eq(err.status, WEIR_IO);
    cr_expect_eq(weir_fail(&err, WEIR_INVALID, "again: %s", err.text), WEIR_INVALID);
    cr_expect_str_eq(err.text, "again: cannot open stream 's': cannot read 'a'");

    struct weir_error empty = {0};
    cr_expect_eq(weir_fail_in(&empty, WEIR_NO_SPACE, "cannot write"), WEIR_NO_SPACE);
    cr_expect_str_eq(empty.text, "cannot write: no space left");
    cr_expect_eq(weir_fail(NULL, WEIR_IO, "x"), WEIR_IO);
    cr_expect_eq(weir_fail_in(NULL, WEIR_IO, "x"), WEIR_IO);
}

/* A text that is too long ends with an ellipsis, between two characters, whatever its length. */
Test(error, is_cut_between_characters)
{
    for (int len = 460; len < 500; len++) {
        struct weir_error err = {0};
        char name[512] = {0};
        for (int i = 0; i + 2 <= len; i += 2)
            memcpy(name + i, "\xc3\xa4", 2);
        if (len % 2)
            name[len - 1] = 'a';
        (void)!weir_fail(&err, WEIR_IO, "%s", name);
        size_t n = strlen(err.text);
        if (len < (int)sizeof err.text) {
            cr_expect_str_eq(err.text, name);
            continue;
        }
        cr_expect_lt(n, sizeof err.text);
        cr_expect_str_eq(err.text + n - 3, "\xe2\x80\xa6");
        cr_expect_eq((unsigned char)err.text[n - 4], 0xa4, "length %d", len);
        (void)!weir_fail_in(&err, WEIR_IO, "in front");
        cr_expect_lt(strlen(err.text), sizeof err.text);
    }
}

/* Overflow is told, and leaves the result alone. */
Test(checked, tells_overflow)
{
    uint64_t out = 7;
    cr_expect_not(weir_add_u64(UINT64_MAX, 1, &out));
    cr_expect_not(weir_mul_u64(UINT64_MAX, 2, &out));
    cr_expect_not(weir_sub_u64(1, 2, &out));
    cr_expect_eq(out, 7);
    cr_expect(weir_add_u64(UINT64_MAX - 1, 1, &out));
    cr_expect_eq(out, UINT64_MAX);
}

/* Numbers on disk are little-endian at any address. */
Test(le, is_little_endian)
{
    weir_le64 v = weir_put64(0x0102030405060708u);
    cr_expect_arr_eq(v.b, "\x08\x07\x06\x05\x04\x03\x02\x01", 8);
    cr_expect_eq(weir_get64(v), 0x0102030405060708u);
    weir_u128 wide = (weir_u128)1 << 100 | 5;
    cr_expect(weir_get128(weir_put128(wide)) == wide);
    uint8_t bytes[9];
    weir_store_be64(bytes + 1, 0x0102030405060708u);
    cr_expect_arr_eq(bytes + 1, "\1\2\3\4\5\6\7\10", 8);
    cr_expect_eq(weir_load_be64(bytes + 1), 0x0102030405060708u);
    weir_store_be32(bytes + 1, 0x01020304u);
    cr_expect_eq(weir_load_be32(bytes + 1), 0x01020304u);
}

/* A list keeps its order and lets go of any node. */
Test(list, keeps_its_order)
{
    struct weir_list head, nodes[4] = {0};
    weir_list_init(&head);
    cr_expect_null(weir_list_pop_front(&head));
    for (int i = 0; i < 3; i++)
        weir_list_push_back(&head, &nodes[i]);
    weir_list_push_front(&head, &nodes[3]);
    weir_list_remove(&nodes[1]);
    weir_list_remove(&nodes[1]);
    cr_expect_not(weir_list_is_linked(&nodes[1]));
    cr_expect_eq(weir_list_pop_front(&head), &nodes[3]);
    cr_expect_eq(weir_list_pop_front(&head), &nodes[0]);
    WEIR_LIST_FOR_EACH_SAFE (node, &head)
        weir_list_remove(node);
    cr_expect(weir_list_is_empty(&head));
}

static void
expect_u128(const char *text, weir_u128 v)
{
    weir_u128 got = 0;
    char out[WEIR_U128_DIGITS_MAX + 1];
    cr_expect_eq(weir_u128_parse(weir_bytes_of(text), &got), WEIR_OK, "%s", text);
    cr_expect(got == v, "%s", text);
    cr_expect_eq(weir_u128_format(v, out), strlen(text));
    cr_expect_str_eq(out, text);
}

/* 128-bit numbers are written and read in full, around the joints of 64 bits and 19 digits too. */
Test(u128, is_written_and_read)
{
    expect_u128("0", 0);
    expect_u128("9", 9);
    expect_u128("9999999999999999999", 9999999999999999999u);
    expect_u128("10000000000000000000", 10000000000000000000u);
    expect_u128("18446744073709551616", (weir_u128)1 << 64);
    expect_u128("100000000000000000000000000000000000000",
                (weir_u128)10000000000000000000u * 10000000000000000000u);
    expect_u128("340282366920938463463374607431768211455", WEIR_U128_MAX);
}

/* What is no number, or too large a one, is refused and leaves the result alone. */
Test(u128, refuses_the_rest)
{
    static const char *const bad[] = {"", "00", "01", "-1", "+1", " 1", "1 ", "1x", "0x10"};
    weir_u128 v = 7;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_expect_eq(weir_u128_parse(weir_bytes_of(bad[i]), &v), WEIR_INVALID, "%s", bad[i]);
    cr_expect_eq(weir_u128_parse(weir_bytes_of("340282366920938463463374607431768211456"), &v),
                 WEIR_TOO_BIG);
    cr_expect_eq(weir_u128_parse(weir_bytes_of("99999999999999999999999999999999999999999999"), &v),
                 WEIR_TOO_BIG);
    cr_expect(v == 7);
}
