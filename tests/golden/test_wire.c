#include "base/text.h"
#include "record/batch.h"
#include "record/hash_key.h"
#include "record/sequence.h"
#include "wire/message.h"
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#define OK(call) cr_assert(eq(int, (call), WEIR_OK), "%s", #call)

struct file {
    uint8_t data[65536];
    size_t len;
};

static void
read_file(const char *name, struct file *out)
{
    const char *root = getenv("WEIR_SOURCE_DIR");
    char path[512];
    snprintf(path, sizeof path, "%s/%s", root ? root : ".", name);
    FILE *f = fopen(path, "r");
    cr_assert(f != NULL, "cannot open '%s'", path);
    out->len = fread(out->data, 1, sizeof out->data - 1, f);
    out->data[out->len] = 0;
    fclose(f);
}

static void
golden(const char *name, struct file *out)
{
    char path[128];
    snprintf(path, sizeof path, "tests/golden/%s", name);
    read_file(path, out);
}

static void
expect_golden(const char *name, const void *data, size_t len)
{
    static struct file f;
    golden(name, &f);
    cr_expect(weir_bytes_equal(weir_bytes(f.data, f.len), weir_bytes(data, len)), "%s", name);
}

/* ---- what is made today is what was made then ---- */

static const struct weir_batch_seal the_seal = {
    .stream = 7, .shard = 9, .offset = 1000, .at_ms = 1764320000123, .epoch = 3};

static struct weir_buf *
make_batch(void)
{
    struct weir_batch_builder *b;
    struct weir_buf *batch;
    struct weir_record first = {.key = weir_bytes_of("order-17"), .data = weir_bytes_of("paid")};
    struct weir_record second = {
        .key = weir_bytes_of("k"), .has_explicit_hash = true, .explicit_hash = (weir_u128)1 << 127};
    weir_u128 producer = (weir_u128)0x0f0e0d0c0b0a0908 << 64 | 0x0706050403020100;
    OK(weir_batch_builder_new(65536, &b));
    OK(weir_batch_builder_add(b, &first, weir_hash_key(first.key)));
    OK(weir_batch_builder_add(b, &second, second.explicit_hash));
    OK(weir_batch_builder_finish(b, WEIR_CODEC_NONE, producer, 1, &batch));
    weir_batch_builder_free(b);
    return batch;
}

/* Frames and batches of version 1 have these bytes, for ever. */
Test(golden, frames_and_batches_are_made_as_ever)
{
    uint8_t message[1024];
    struct weir_frame produce = {.kind = WEIR_FRAME_PRODUCE, .channel = 256, .number = 1};
    struct weir_buf *batch = make_batch();
    weir_frame_encode(&produce, (struct weir_frame_header *)message);
    memcpy(message + sizeof(struct weir_frame_header), batch->data, batch->len);
    expect_golden("produce-v1.bin", message, sizeof(struct weir_frame_header) + batch->len);

    weir_batch_seal(batch->data, &the_seal);
    expect_golden("batch-v1.bin", batch->data, batch->len);
    weir_buf_unref(batch);

    struct weir_frame ack = {.kind = WEIR_FRAME_ACK,
                             .channel = 256,
                             .number = 1,
                             .offset = the_seal.offset,
                             .value = the_seal.at_ms};
    struct weir_frame_header header;
    weir_frame_encode(&ack, &header);
    expect_golden("ack-v1.bin", &header, sizeof header);

    Weir__Hello hello = WEIR__HELLO__INIT;
    hello.version = hello.version_min = 1;
    hello.client = (char[]){"demo"};
    struct weir_buf *buf;
    OK(weir_message_frame(&(struct weir_frame){.kind = WEIR_FRAME_HELLO}, &hello.base, &buf));
    expect_golden("hello-v1.bin", buf->data, buf->len);
    weir_buf_unref(buf);
}

/* Sequence numbers given out once are given out again. */
Test(golden, sequence_numbers_are_made_as_ever)
{
    struct weir_sequence s = {.shard_created_s = 1764320000, .offset = 1000, .at_s = 1764320000};
    char text[WEIR_SEQUENCE_DIGITS + 2];
    weir_sequence_format(&s, text);
    strcat(text, "\n");
    expect_golden("sequence-v1.txt", text, strlen(text));
}

/* ---- what was made then can be read today ---- */

/* A compressed batch that is stored somewhere is read, record by record. */
Test(golden, compressed_batches_can_be_read)
{
    static struct file f;
    golden("batch-lz4-v1.bin", &f);
    struct weir_batch_info info;
    OK(weir_batch_check(weir_bytes(f.data, f.len), &info));
    cr_expect(info.codec == WEIR_CODEC_LZ4 && info.count == 40 && info.offset == 2000);
    cr_expect(info.previous == 5);

    struct weir_scratch scratch = {0};
    struct weir_batch_reader reader;
    struct weir_record r;
    OK(weir_batch_reader_init(&reader, weir_bytes(f.data, f.len), &scratch));
    for (unsigned i = 0; i < 40; i++) {
        char key[16], data[64];
        snprintf(key, sizeof key, "order-%u", i);
        snprintf(data, sizeof data, "{\"order\":%u,\"status\":\"created\"}", i);
        OK(weir_batch_reader_next(&reader, &r));
        cr_expect(weir_bytes_is(r.key, key) && weir_bytes_is(r.data, data), "record %u", i);
    }
    cr_expect(eq(int, weir_batch_reader_next(&reader, &r), WEIR_END));
    weir_scratch_fini(&scratch);
}

/* So is a shard's state. */
Test(golden, state_batches_can_be_read)
{
    static struct file f;
    golden("batch-state-v1.bin", &f);
    struct weir_batch_info info;
    OK(weir_batch_check(weir_bytes(f.data, f.len), &info));
    cr_expect(info.flags == WEIR_BATCH_STATE && info.count == 0 && info.offset == 2040);
    cr_expect(eq(u64, weir_batch_trimmed_before(f.data), 77));
}

/* ---- the documentation ---- */

/* The two-digit numbers at the start of a line, up to what is no such number. */
static void
read_hex_line(const char *line, struct file *out)
{
    while (isxdigit((unsigned char)line[0]) && isxdigit((unsigned char)line[1]) &&
           (line[2] == ' ' || line[2] == '\n')) {
        OK(weir_hex_decode(weir_bytes(line, 2), &out->data[out->len++], 1));
        line += 2;
        while (*line == ' ')
            line++;
    }
}

/* The examples in docs/wire.md are the golden files, byte by byte. */
Test(golden, the_documentation_shows_these_bytes)
{
    static struct file doc, block;
    read_file("docs/wire.md", &doc);
    char name[64] = "";
    unsigned blocks = 0;
    for (char *line = (char *)doc.data; line && *line; line = strchr(line, '\n') + 1) {
        if (sscanf(line, "```hex %63s", name) == 1) {
            block.len = 0;
        } else if (name[0] && strncmp(line, "```", 3) == 0) {
            expect_golden(name, block.data, block.len);
            name[0] = 0;
            blocks++;
        } else if (name[0]) {
            read_hex_line(line, &block);
        }
    }
    cr_expect(eq(u32, blocks, 4));
}
