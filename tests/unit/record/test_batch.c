#include "base/text.h"
#include "record/batch.h"
#include "record/checksum.h"
#include "record/hash_key.h"
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>

#define OK(call) cr_assert(eq(int, (call), WEIR_OK), "%s", #call)

static struct weir_record
record_of(const char *key, const char *data)
{
    return (struct weir_record){.key = weir_bytes_of(key), .data = weir_bytes_of(data)};
}

static enum weir_status
add(struct weir_batch_builder *b, const struct weir_record *r)
{
    return weir_batch_builder_add(b, r,
                                  r->has_explicit_hash ? r->explicit_hash : weir_hash_key(r->key));
}

static struct weir_batch_builder *
builder(size_t raw_max)
{
    struct weir_batch_builder *b;
    OK(weir_batch_builder_new(raw_max, &b));
    return b;
}

static struct weir_buf *
finish(struct weir_batch_builder *b, enum weir_codec codec)
{
    struct weir_buf *batch;
    OK(weir_batch_builder_finish(b, codec, 7, 1, &batch));
    return batch;
}

/* n records of 100 bytes that compress well. */
static struct weir_buf *
sample(uint32_t n, enum weir_codec codec)
{
    struct weir_batch_builder *b = builder(1 * WEIR_MIB);
    for (uint32_t i = 0; i < n; i++) {
        char key[32], data[101];
        snprintf(key, sizeof key, "key-%u", i % 10);
        snprintf(data, sizeof data, "%0100u", i);
        struct weir_record r = record_of(key, data);
        OK(add(b, &r));
    }
    struct weir_buf *batch = finish(b, codec);
    weir_batch_builder_free(b);
    return batch;
}

static weir_u128
seal(struct weir_buf *batch, uint64_t offset, weir_u128 previous)
{
    struct weir_batch_seal s = {
        .stream = 3, .shard = 5, .offset = offset, .at_ms = 1000, .epoch = 2, .previous = previous};
    return weir_batch_seal(batch->data, &s);
}

static enum weir_status
admit(struct weir_bytes batch, size_t record_max)
{
    struct weir_scratch scratch = {0};
    struct weir_batch_info info;
    struct weir_error err = {0};
    enum weir_status st = weir_batch_admit(batch, record_max, &scratch, &info, &err);
    if (st)
        cr_expect(err.text[0] != 0, "a refusal has a reason");
    weir_scratch_fini(&scratch);
    return st;
}

/* Changes the batch's header or body and makes body_hash right again, as a hostile producer would.
 */
static void
rehash(struct weir_buf *batch)
{
    struct weir_batch_header h;
    memcpy(&h, batch->data, sizeof h);
    h.body_hash =
        weir_put128(weir_checksum(weir_bytes(batch->data + sizeof h, batch->len - sizeof h)));
    memcpy(batch->data, &h, sizeof h);
}

/* What was added comes back, in order and with its offsets, plain and compressed. */
Test(batch, returns_the_records_that_were_added)
{
    for (enum weir_codec codec = WEIR_CODEC_NONE; codec <= WEIR_CODEC_LZ4; codec++) {
        struct weir_buf *batch = sample(1000, codec);
        seal(batch, 500, 0);
        struct weir_batch_info info;
        OK(weir_batch_check(weir_buf_bytes(batch), &info));
        cr_expect(eq(int, info.codec, codec));
        cr_expect(eq(u32, info.count, 1000));
        cr_expect(eq(u64, info.offset, 500));
        cr_expect(info.producer == 7 && info.number == 1);

        struct weir_scratch scratch = {0};
        struct weir_batch_reader reader;
        struct weir_record r;
        OK(weir_batch_reader_init(&reader, weir_buf_bytes(batch), &scratch));
        for (uint32_t i = 0; i < 1000; i++) {
            char data[101];
            snprintf(data, sizeof data, "%0100u", i);
            OK(weir_batch_reader_next(&reader, &r));
            cr_assert(weir_bytes_is(r.data, data), "record %u", i);
            cr_assert(eq(u64, reader.offset, 500 + i));
        }
        cr_expect(eq(int, weir_batch_reader_next(&reader, &r), WEIR_END));
        weir_scratch_fini(&scratch);
        weir_buf_unref(batch);
    }
}

/* Explicit hash keys, empty data and keys of several bytes per character survive. */
Test(batch, keeps_explicit_hashes_empty_data_and_wide_keys)
{
    struct weir_batch_builder *b = builder(4096);
    struct weir_record with = record_of("straße-日本-🚚", "");
    with.has_explicit_hash = true;
    with.explicit_hash = WEIR_U128_MAX - 1;
    struct weir_record without = record_of("b", "x");
    OK(add(b, &with));
    OK(add(b, &without));
    struct weir_buf *batch = finish(b, WEIR_CODEC_NONE);
    OK(admit(weir_buf_bytes(batch), 1024));

    struct weir_batch_reader reader;
    struct weir_record r;
    OK(weir_batch_reader_init(&reader, weir_buf_bytes(batch), NULL));
    OK(weir_batch_reader_next(&reader, &r));
    cr_expect(weir_bytes_equal(r.key, with.key));
    cr_expect(eq(sz, r.data.len, 0));
    cr_expect(r.has_explicit_hash && r.explicit_hash == WEIR_U128_MAX - 1);
    OK(weir_batch_reader_next(&reader, &r));
    cr_expect(r.has_explicit_hash == false);
    cr_expect(eq(int, weir_batch_reader_next(&reader, &r), WEIR_END));
    weir_buf_unref(batch);
    weir_batch_builder_free(b);
}

/* The header names the least and the greatest hash key of the records. */
Test(batch, bounds_the_hash_keys)
{
    struct weir_batch_builder *b = builder(4096);
    struct weir_record r = record_of("k", "v");
    for (int i = 0; i < 3; i++)
        OK(weir_batch_builder_add(b, &r, (weir_u128[]){50, 7, 90}[i]));
    struct weir_buf *batch = finish(b, WEIR_CODEC_NONE);
    struct weir_batch_info info;
    OK(weir_batch_peek(weir_buf_bytes(batch), &info));
    cr_expect(info.hash_low == 7 && info.hash_high == 90);
    weir_buf_unref(batch);
    weir_batch_builder_free(b);
}

/* Bytes that do not compress stay as they are. */
Test(batch, leaves_what_does_not_compress)
{
    struct weir_batch_builder *b = builder(1 * WEIR_MIB);
    uint8_t noise[4096];
    uint64_t x = 88172645463325252ull;
    for (size_t i = 0; i < sizeof noise; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        noise[i] = (uint8_t)x;
    }
    struct weir_record r = {.key = weir_bytes_of("k"), .data = weir_bytes(noise, sizeof noise)};
    OK(add(b, &r));
    struct weir_buf *batch = finish(b, WEIR_CODEC_LZ4);
    struct weir_batch_info info;
    OK(weir_batch_peek(weir_buf_bytes(batch), &info));
    cr_expect(eq(int, info.codec, WEIR_CODEC_NONE));
    OK(admit(weir_buf_bytes(batch), WEIR_RECORD_BYTES_MAX));
    weir_buf_unref(batch);
    weir_batch_builder_free(b);
}

/* A builder says AGAIN when it is full, and starts afresh after finish, with either codec. */
Test(builder, is_full_at_its_size_and_empty_after_finish)
{
    struct weir_batch_builder *b = builder(1000);
    struct weir_record r = record_of("k", "0123456789");
    for (int round = 0; round < 4; round++) {
        uint32_t n = 0;
        while (!add(b, &r))
            n++;
        cr_expect(eq(u32, n, 1000 / 19));
        cr_expect(eq(int, add(b, &r), WEIR_AGAIN));
        cr_expect(eq(u32, weir_batch_builder_count(b), n));
        struct weir_buf *batch = finish(b, round % 2 ? WEIR_CODEC_LZ4 : WEIR_CODEC_NONE);
        OK(admit(weir_buf_bytes(batch), 1000));
        weir_buf_unref(batch);
        cr_expect(eq(u32, weir_batch_builder_count(b), 0));
        cr_expect(eq(sz, weir_batch_builder_raw_size(b), 0));
        struct weir_buf *none;
        cr_expect(eq(int, weir_batch_builder_finish(b, WEIR_CODEC_NONE, 0, 0, &none), WEIR_END));
    }
    weir_batch_builder_free(b);
}

/* A batch has 65,535 records at most. */
Test(builder, is_full_at_its_count)
{
    struct weir_batch_builder *b = builder(WEIR_BATCH_BODY_RAW_MAX);
    struct weir_record r = record_of("k", "");
    for (uint32_t i = 0; i < WEIR_BATCH_RECORDS_MAX; i++)
        OK(weir_batch_builder_add(b, &r, 1));
    cr_expect(eq(int, weir_batch_builder_add(b, &r, 1), WEIR_AGAIN));
    struct weir_buf *batch = finish(b, WEIR_CODEC_LZ4);
    OK(admit(weir_buf_bytes(batch), 1));
    weir_buf_unref(batch);
    weir_batch_builder_free(b);
}

/* The largest record fits alone into a builder of any size; one byte more never fits. */
Test(builder, takes_the_largest_record_alone)
{
    struct weir_batch_builder *b = builder(1000);
    uint8_t *data = calloc(1, WEIR_RECORD_BYTES_MAX);
    struct weir_record r = {.key = weir_bytes_of("k"),
                            .data = weir_bytes(data, WEIR_RECORD_BYTES_MAX - 1)};
    OK(add(b, &r));
    cr_expect(eq(int, add(b, &r), WEIR_AGAIN));
    struct weir_buf *batch = finish(b, WEIR_CODEC_LZ4);
    OK(admit(weir_buf_bytes(batch), WEIR_RECORD_BYTES_MAX));
    cr_expect(eq(int, admit(weir_buf_bytes(batch), WEIR_RECORD_BYTES_MAX - 1), WEIR_TOO_BIG));
    weir_buf_unref(batch);
    r.data.len++;
    cr_expect(eq(int, add(b, &r), WEIR_TOO_BIG));
    free(data);
    weir_batch_builder_free(b);
}

/* Keys are UTF-8 of 1 to 256 characters. */
Test(builder, refuses_keys_that_kinesis_refuses)
{
    struct weir_batch_builder *b = builder(1 * WEIR_MIB);
    char wide[257 * 4 + 1];
    for (int i = 0; i < 257; i++)
        memcpy(wide + 4 * i, "🚚", 4);
    struct weir_record r = {.key = weir_bytes(wide, 256 * 4)};
    OK(add(b, &r));
    r.key.len = 257 * 4;
    cr_expect(eq(int, add(b, &r), WEIR_INVALID));
    memset(wide, 'a', sizeof wide);
    r.key.len = 256;
    OK(add(b, &r));
    r.key.len = 257;
    cr_expect(eq(int, add(b, &r), WEIR_INVALID));
    r.key.len = 0;
    cr_expect(eq(int, add(b, &r), WEIR_INVALID));
    r.key = weir_bytes("\xff", 1);
    cr_expect(eq(int, add(b, &r), WEIR_INVALID));
    weir_batch_builder_free(b);
}

/* Every bit of a sealed batch is covered: flip any one and check says so. */
Test(batch, check_sees_every_flipped_bit)
{
    struct weir_buf *batch = sample(3, WEIR_CODEC_NONE);
    seal(batch, 1, 99);
    struct weir_batch_info info;
    OK(weir_batch_check(weir_buf_bytes(batch), &info));
    for (size_t bit = 0; bit < 8 * batch->len; bit++) {
        batch->data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        cr_assert(weir_batch_check(weir_buf_bytes(batch), &info) != WEIR_OK, "bit %zu", bit);
        batch->data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    OK(weir_batch_check(weir_buf_bytes(batch), &info));
    weir_buf_unref(batch);
}

/* The seal binds a batch to stream, shard, offset, time, epoch, flags and to the batch before it.
 */
Test(batch, seal_depends_on_everything_it_binds)
{
    struct weir_buf *batch = sample(1, WEIR_CODEC_NONE);
    struct weir_batch_seal s = {1, 2, 3, 4, 5, 0, 6};
    struct weir_batch_seal other[] = {
        {9, 2, 3, 4, 5, 0, 6}, {1, 9, 3, 4, 5, 0, 6}, {1, 2, 9, 4, 5, 0, 6}, {1, 2, 3, 9, 5, 0, 6},
        {1, 2, 3, 4, 9, 0, 6}, {1, 2, 3, 4, 5, 1, 6}, {1, 2, 3, 4, 5, 0, 9}};
    weir_u128 hash = weir_batch_seal(batch->data, &s);
    for (size_t i = 0; i < sizeof other / sizeof *other; i++)
        cr_expect(weir_batch_seal(batch->data, &other[i]) != hash, "field %zu", i);
    cr_expect(weir_batch_seal(batch->data, &s) == hash);
    struct weir_batch_info info;
    OK(weir_batch_check(weir_buf_bytes(batch), &info));
    cr_expect(info.header_hash == hash && info.previous == 6 && info.epoch == 5);
    weir_buf_unref(batch);
}

/* A batch that is cut anywhere asks for more bytes; none of its starts is taken for something else.
 */
Test(batch, peek_wants_more_at_every_cut)
{
    struct weir_buf *batch = sample(2, WEIR_CODEC_NONE);
    struct weir_batch_info info;
    for (size_t len = 0; len < batch->len; len++)
        cr_assert(eq(int, weir_batch_peek(weir_bytes(batch->data, len), &info), WEIR_END),
                  "%zu bytes", len);
    OK(weir_batch_peek(weir_buf_bytes(batch), &info));
    batch->data[0] ^= 1;
    for (size_t len = 1; len <= batch->len; len++)
        cr_assert(eq(int, weir_batch_peek(weir_bytes(batch->data, len), &info), WEIR_INVALID));
    weir_buf_unref(batch);
}

struct damage {
    const char *what;
    size_t at;
    uint64_t value;
    size_t size;
    enum weir_status expected;
};

static void
expect_refused(enum weir_codec codec, const struct damage *d)
{
    struct weir_buf *batch = sample(100, codec);
    memcpy(batch->data + d->at, &d->value, d->size);
    rehash(batch);
    cr_expect(eq(int, admit(weir_buf_bytes(batch), WEIR_RECORD_BYTES_MAX), d->expected), "%s",
              d->what);
    weir_buf_unref(batch);
}

/* A producer may lie in each field, with a good checksum: admission refuses and names the kind. */
Test(batch, admit_refuses_every_lie)
{
    static const struct damage plain[] = {
        {"magic", 0, 0, 4, WEIR_INVALID},
        {"size below a header", 4, 100, 4, WEIR_INVALID},
        {"size over the limit", 4, WEIR_BATCH_BYTES_MAX + 1, 4, WEIR_TOO_BIG},
        {"count 0", 40, 0, 4, WEIR_INVALID},
        {"one record fewer", 40, 99, 4, WEIR_INVALID},
        {"one record more", 40, 101, 4, WEIR_INVALID},
        {"count over the limit", 40, 65536, 4, WEIR_TOO_BIG},
        {"raw size unlike the body", 44, 5, 4, WEIR_INVALID},
        {"raw size over the limit", 44, WEIR_BATCH_BODY_RAW_MAX + 1, 4, WEIR_TOO_BIG},
        {"codec", 52, 2, 1, WEIR_INVALID},
        {"state flag", 53, WEIR_BATCH_STATE, 1, WEIR_INVALID},
        {"unknown flag", 53, 2, 1, WEIR_INVALID},
        {"reserved", 54, 1, 2, WEIR_INVALID},
        {"hash_low over hash_high", 95, 0xff, 1, WEIR_INVALID},
        {"data size of a record", 160, 101, 4, WEIR_INVALID},
        {"huge data size", 160, 0xffffffff, 4, WEIR_INVALID},
        {"no key", 164, 0, 2, WEIR_INVALID},
        {"huge key", 164, 0xffff, 2, WEIR_INVALID},
        {"unknown record flag", 166, 2, 1, WEIR_INVALID},
        {"reserved byte of a record", 167, 1, 1, WEIR_INVALID},
        {"key is not UTF-8", 168, 0xff, 1, WEIR_INVALID},
    };
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        expect_refused(WEIR_CODEC_NONE, &plain[i]);

    static const struct damage packed[] = {
        {"raw size too small", 44, 5000, 4, WEIR_INVALID},
        {"raw size too large", 44, WEIR_BATCH_BODY_RAW_MAX, 4, WEIR_INVALID},
        {"codec", 52, 0, 1, WEIR_INVALID},
        {"compressed bytes", 161, ~0ull, 8, WEIR_INVALID},
    };
    for (size_t i = 0; i < sizeof packed / sizeof *packed; i++)
        expect_refused(WEIR_CODEC_LZ4, &packed[i]);
}

/* A batch from outside is exactly one batch: no byte missing, none behind it, and a right checksum.
 */
Test(batch, admit_wants_exactly_one_whole_batch)
{
    struct weir_buf *batch = sample(10, WEIR_CODEC_LZ4);
    uint8_t longer[4096] = {0};
    cr_assert(batch->len < sizeof longer);
    memcpy(longer, batch->data, batch->len);
    cr_expect(eq(int, admit(weir_bytes(longer, batch->len + 1), 1000), WEIR_INVALID));
    cr_expect(eq(int, admit(weir_bytes(longer, batch->len - 1), 1000), WEIR_INVALID));
    longer[batch->len - 1] ^= 1;
    cr_expect(eq(int, admit(weir_bytes(longer, batch->len), 1000), WEIR_DAMAGED));
    weir_buf_unref(batch);
}

/* Decompression never writes more than the declared size, and the scratch stays within the limit.
 */
Test(batch, decompression_is_bounded)
{
    struct weir_buf *batch = sample(2000, WEIR_CODEC_LZ4);
    struct weir_scratch scratch = {0};
    struct weir_batch_info info;
    OK(weir_batch_admit(weir_buf_bytes(batch), 1000, &scratch, &info, NULL));
    cr_expect(scratch.capacity < 2 * (size_t)info.raw_size);
    weir_scratch_fini(&scratch);

    weir_le32 small = weir_put32(2000 * 9);
    memcpy(batch->data + 44, &small, 4);
    cr_expect(eq(int, weir_batch_admit(weir_buf_bytes(batch), 1000, &scratch, &info, NULL),
                 WEIR_INVALID));
    cr_expect(eq(sz, scratch.capacity, 64 * WEIR_KIB));
    weir_scratch_fini(&scratch);
    weir_buf_unref(batch);
}

/* A state batch carries where the shard begins and no records. */
Test(batch, state_carries_the_trim_boundary)
{
    struct weir_buf *batch;
    OK(weir_batch_new_state(0x123456789abcdef0, &batch));
    struct weir_batch_seal s = {
        .stream = 1, .shard = 2, .offset = 40, .flags = WEIR_BATCH_STATE, .previous = 8};
    weir_batch_seal(batch->data, &s);
    struct weir_batch_info info;
    OK(weir_batch_check(weir_buf_bytes(batch), &info));
    cr_expect(eq(u32, info.count, 0));
    cr_expect(eq(u64, weir_batch_trimmed_before(batch->data), 0x123456789abcdef0));

    struct weir_batch_reader reader;
    struct weir_record r;
    OK(weir_batch_reader_init(&reader, weir_buf_bytes(batch), NULL));
    cr_expect(eq(int, weir_batch_reader_next(&reader, &r), WEIR_END));
    cr_expect(eq(int, admit(weir_buf_bytes(batch), 1000), WEIR_INVALID), "never from outside");
    weir_buf_unref(batch);
}

/* The builder's memory is one block: finishing an uncompressed batch hands it over, and nothing
 * that was made stays alive once it is let go. */
Test(builder, leaves_no_buffers_behind)
{
    size_t before, after, pooled;
    weir_buf_usage(&before, &pooled);
    struct weir_batch_builder *b = builder(200 * WEIR_KIB);
    for (int round = 0; round < 10; round++) {
        struct weir_record r = record_of("k", "some data that repeats, some data that repeats");
        while (!add(b, &r))
            ;
        weir_buf_unref(finish(b, round % 2 ? WEIR_CODEC_LZ4 : WEIR_CODEC_NONE));
    }
    weir_batch_builder_free(b);
    weir_buf_usage(&after, &pooled);
    cr_expect(eq(sz, after, before));
}
