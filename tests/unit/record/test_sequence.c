#include "record/sequence.h"
#include <criterion/criterion.h>
#include <criterion/new/assert.h>

static enum weir_status
parse(const char *text, struct weir_sequence *out)
{
    return weir_sequence_parse(weir_bytes_of(text), out);
}

static void
expect_same(struct weir_sequence a, struct weir_sequence b)
{
    cr_expect(eq(u64, a.shard_created_s, b.shard_created_s));
    cr_expect(eq(u32, a.shard_index, b.shard_index));
    cr_expect(eq(u64, a.offset, b.offset));
    cr_expect(eq(u64, a.at_s, b.at_s));
}

/* Numbers that AWS itself gave out (its developer guides) have our layout, both ways. The second of
 * the record in the Lambda guide is told beside it: 1545084650.987. */
Test(sequence, reads_and_writes_the_numbers_of_aws)
{
    static const struct {
        const char *text;
        struct weir_sequence fields;
    } samples[] = {
        {"49590338271490256608559692538361571095921575989136588898",
         {1542776258, 6, 0x67648a17, 1545084650}},
        {"49590338271490256608559692540925702759324208523137515618",
         {1542776258, 6, 0x67649260, 1545084709}},
        {"49543463076548007577105092703039560359975228518395019266",
         {1411403981, 0, 0x157d, 1411431220}},
        {"49543463076570308322303623326179887152428262250726293522",
         {1411403981, 1, 0x157c, 1411431220}},
    };
    for (size_t i = 0; i < sizeof samples / sizeof *samples; i++) {
        struct weir_sequence s;
        char text[WEIR_SEQUENCE_DIGITS + 1];
        cr_assert(eq(int, parse(samples[i].text, &s), WEIR_OK), "%s", samples[i].text);
        expect_same(s, samples[i].fields);
        weir_sequence_format(&samples[i].fields, text);
        cr_expect(eq(str, text, (char *)samples[i].text));
    }
}

/* Taking apart gives what was put together, at both ends of every field. */
Test(sequence, returns_every_extreme_of_its_fields)
{
    for (unsigned mask = 0; mask < 16; mask++) {
        struct weir_sequence s = {
            .shard_created_s = mask & 1 ? (1ull << 36) - 1 : 0,
            .shard_index = mask & 2 ? INT32_MAX : 0,
            .offset = mask & 4 ? WEIR_SEQUENCE_OFFSET_END : 0,
            .at_s = mask & 8 ? (1ull << 36) - 1 : 0,
        };
        char text[WEIR_SEQUENCE_DIGITS + 1];
        struct weir_sequence back;
        weir_sequence_format(&s, text);
        cr_expect(eq(sz, strlen(text), WEIR_SEQUENCE_DIGITS));
        cr_assert(eq(int, parse(text, &back), WEIR_OK), "%s", text);
        expect_same(back, s);
    }
}

/* Order as text is order of offsets within a shard, whatever the times say. */
Test(sequence, sorts_as_text_by_offset)
{
    struct weir_sequence s = {.shard_created_s = 1760000000, .shard_index = 17, .at_s = 1770000000};
    char before[WEIR_SEQUENCE_DIGITS + 1], after[WEIR_SEQUENCE_DIGITS + 1];
    weir_sequence_format(&s, before);
    for (int bit = 0; bit < 63; bit++) {
        s.offset = 1ull << bit;
        s.at_s -= 1000;
        weir_sequence_format(&s, after);
        cr_expect(strcmp(before, after) < 0, "bit %d", bit);
        memcpy(before, after, sizeof before);
    }
}

/* What is not exactly of the layout is refused: length, digits, the fixed digits, the nibble. */
Test(sequence, refuses_what_is_not_of_the_layout)
{
    struct weir_sequence s = {0};
    static const char *const bad[] = {
        "",
        "0",
        "4959033827149025660855969253836157109592157598913658889",
        "495903382714902566085596925383615710959215759891365888980",
        "4959033827149025660855969253836157109592157598913658889x",
        " 959033827149025660855969253836157109592157598913658889",
        /* another low digit, another nibble, the low byte behind the offset, a version 1 number */
        "49590338271490256608559692538361571095921575989136588899",
        "99999999999999999999999999999999999999999999999999999999",
        "00000000000000000000000000000000000000000000000000000000",
        "21269319989653637946712965403778482177",
        /* shard index 0x8b789181 */
        "49579844037727333356165064238440708846556371693205002258",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_expect(eq(int, parse(bad[i], &s), WEIR_INVALID), "'%s'", bad[i]);
}

/* Shard ids are "shardId-" and 12 digits. */
Test(shard_id, is_written_with_twelve_digits)
{
    char text[WEIR_SHARD_ID_LEN + 1];
    weir_shard_id_format(7, text);
    cr_expect(strcmp(text, "shardId-000000000007") == 0);
    weir_shard_id_format(INT32_MAX, text);
    cr_expect(strcmp(text, "shardId-002147483647") == 0);
}

/* Any NAME-N, -N or N up to 2147483647 is taken, as AWS takes it; nothing else. */
Test(shard_id, is_read_in_the_forms_that_aws_reads)
{
    static const struct {
        const char *text;
        uint32_t index;
    } good[] = {{"shardId-000000000007", 7},
                {"NAME-7", 7},
                {"-7", 7},
                {"7", 7},
                {"0", 0},
                {"shardId-2147483647", INT32_MAX},
                {"00000000000000000000000012", 12}};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        uint32_t index = 99;
        cr_expect(weir_shard_id_parse(weir_bytes_of(good[i].text), &index) == WEIR_OK, "%s",
                  good[i].text);
        cr_expect(eq(u32, index, good[i].index), "%s", good[i].text);
    }
    static const char *const bad[] = {"",
                                      "-",
                                      "shardId-",
                                      "shardId",
                                      "a-7-8",
                                      "7 ",
                                      "0x7",
                                      "shardId-2147483648",
                                      "99999999999999999999999",
                                      "shardId--7"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        uint32_t index = 99;
        cr_expect(weir_shard_id_parse(weir_bytes_of(bad[i]), &index) == WEIR_INVALID, "%s", bad[i]);
        cr_expect(eq(u32, index, 99));
    }
}
