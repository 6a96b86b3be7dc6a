/* Records are laid one after another behind room for the header, in the block that becomes the
 * batch if it stays uncompressed. */
#include "base/assert.h"
#include "base/checked.h"
#include "base/text.h"
#include "record/batch.h"
#include "record/checksum.h"
#include <lz4.h>
#include <stdlib.h>

struct weir_batch_builder {
    size_t raw_max;
    struct weir_buf *block; /* NULL while empty; len counts header and records */
    uint32_t count;
    weir_u128 hash_low, hash_high;
    void *lz4; /* the compressor's state, made once */
};

enum { HEADER = sizeof(struct weir_batch_header), FIRST_BLOCK = 16 * 1024 };

static_assert(WEIR_BATCH_BODY_RAW_MAX < LZ4_MAX_INPUT_SIZE, "one call compresses a body");
static_assert(HEADER + WEIR_BATCH_BODY_RAW_MAX <= WEIR_BATCH_BYTES_MAX,
              "the largest body must fit uncompressed");

enum weir_status
weir_batch_builder_new(size_t raw_max, struct weir_batch_builder **out)
{
    struct weir_batch_builder *b = calloc(1, sizeof *b);
    if (!b)
        return WEIR_NO_MEMORY;
    b->raw_max = raw_max < WEIR_BATCH_BODY_RAW_MAX ? raw_max : WEIR_BATCH_BODY_RAW_MAX;
    b->lz4 = malloc((size_t)LZ4_sizeofState());
    if (!b->lz4) {
        free(b);
        return WEIR_NO_MEMORY;
    }
    *out = b;
    return WEIR_OK;
}

void
weir_batch_builder_free(struct weir_batch_builder *b)
{
    if (!b)
        return;
    weir_buf_unref(b->block);
    free(b->lz4);
    free(b);
}

uint32_t
weir_batch_builder_count(const struct weir_batch_builder *b)
{
    return b->count;
}

size_t
weir_batch_builder_raw_size(const struct weir_batch_builder *b)
{
    return b->block ? b->block->len - HEADER : 0;
}

/* Room for `more` bytes behind what is there. */
static enum weir_status
reserve(struct weir_batch_builder *b, size_t more)
{
    size_t used = b->block ? b->block->len : HEADER;
    size_t need = used + more;
    if (b->block && need <= b->block->capacity)
        return WEIR_OK;
    size_t capacity = b->block ? 2 * b->block->capacity : FIRST_BLOCK;
    if (capacity > HEADER + b->raw_max)
        capacity = HEADER + b->raw_max;
    struct weir_buf *block = weir_buf_new(need > capacity ? need : capacity);
    if (!block)
        return WEIR_NO_MEMORY;
    if (b->block)
        memcpy(block->data, b->block->data, used);
    block->len = used;
    weir_buf_unref(b->block);
    b->block = block;
    return WEIR_OK;
}

static bool
key_is_valid(struct weir_bytes key)
{
    return key.len > 0 && key.len <= WEIR_KEY_BYTES_MAX && weir_utf8_is_valid(key) &&
           (key.len <= WEIR_KEY_CHARACTERS_MAX || weir_utf8_count(key) <= WEIR_KEY_CHARACTERS_MAX);
}

static uint8_t *
put(uint8_t *at, const void *data, size_t len)
{
    if (len)
        memcpy(at, data, len);
    return at + len;
}

enum weir_status
weir_batch_builder_add(struct weir_batch_builder *b, const struct weir_record *record,
                       weir_u128 hash)
{
    if (!key_is_valid(record->key))
        return WEIR_INVALID;
    if (record->data.len > WEIR_RECORD_BYTES_MAX ||
        record->data.len + record->key.len > WEIR_RECORD_BYTES_MAX)
        return WEIR_TOO_BIG;

    struct weir_record_header h = {
        .data_size = weir_put32((uint32_t)record->data.len),
        .key_size = weir_put16((uint16_t)record->key.len),
        .flags = record->has_explicit_hash ? WEIR_RECORD_EXPLICIT_HASH : 0,
    };
    weir_le128 explicit = weir_put128(record->explicit_hash);
    size_t explicit_len = record->has_explicit_hash ? sizeof explicit : 0;
    size_t size = sizeof h + explicit_len + record->key.len + record->data.len;

    bool is_full =
        b->count == WEIR_BATCH_RECORDS_MAX || weir_batch_builder_raw_size(b) + size > b->raw_max;
    if (b->count && is_full)
        return WEIR_AGAIN;
    enum weir_status st = reserve(b, size);
    if (st)
        return st;

    uint8_t *at = b->block->data + b->block->len;
    at = put(at, &h, sizeof h);
    at = put(at, &explicit, explicit_len);
    at = put(at, record->key.data, record->key.len);
    put(at, record->data.data, record->data.len);
    b->block->len += size;
    if (!b->count || hash < b->hash_low)
        b->hash_low = hash;
    if (!b->count || hash > b->hash_high)
        b->hash_high = hash;
    b->count++;
    return WEIR_OK;
}

/* The records compressed, behind room for the header; NULL where that does not save 1/16 or there
 * is no memory for it. */
static struct weir_buf *
compress(struct weir_batch_builder *b)
{
    const uint8_t *raw = b->block->data + HEADER;
    size_t raw_size = weir_batch_builder_raw_size(b);
    size_t most = raw_size - raw_size / 16 - 1;
    struct weir_buf *packed = weir_buf_new(HEADER + most);
    if (!packed)
        return NULL;
    int size = LZ4_compress_fast_extState(b->lz4, (const char *)raw, (char *)packed->data + HEADER,
                                          (int)raw_size, (int)most, 1);
    if (size <= 0) {
        weir_buf_unref(packed);
        return NULL;
    }
    packed->len = HEADER + (size_t)size;

    /* Batches wait in windows and queues: hold what they need, not what they might have needed. */
    if (packed->len <= packed->capacity / 2) {
        struct weir_buf *fitting = weir_buf_copy(weir_buf_bytes(packed));
        if (fitting) {
            weir_buf_unref(packed);
            packed = fitting;
        }
    }
    return packed;
}

enum weir_status
weir_batch_builder_finish(struct weir_batch_builder *b, enum weir_codec codec, weir_u128 producer,
                          uint64_t number, struct weir_buf **out)
{
    if (!b->count)
        return WEIR_END;
    struct weir_buf *batch = codec == WEIR_CODEC_LZ4 ? compress(b) : NULL;
    struct weir_batch_header h = {
        .magic = weir_put32(WEIR_BATCH_MAGIC),
        .count = weir_put32(b->count),
        .raw_size = weir_put32((uint32_t)weir_batch_builder_raw_size(b)),
        .codec = batch ? WEIR_CODEC_LZ4 : WEIR_CODEC_NONE,
        .producer = weir_put128(producer),
        .number = weir_put64(number),
        .hash_low = weir_put128(b->hash_low),
        .hash_high = weir_put128(b->hash_high),
    };
    if (!batch) {
        batch = b->block;
        b->block = NULL; /* the caller's now */
    }
    h.size = weir_put32((uint32_t)batch->len);
    struct weir_bytes body = weir_bytes(batch->data + HEADER, batch->len - HEADER);
    h.body_hash = weir_put128(weir_checksum(body));
    memcpy(batch->data, &h, sizeof h);

    b->count = 0;
    if (b->block && b->block->capacity > HEADER + b->raw_max + b->raw_max / 2) {
        weir_buf_unref(b->block); /* grown for one large record */
        b->block = NULL;
    }
    if (b->block)
        b->block->len = HEADER;
    *out = batch;
    return WEIR_OK;
}

enum weir_status
weir_batch_new_state(uint64_t trimmed_before, struct weir_buf **out)
{
    weir_le64 body = weir_put64(trimmed_before);
    struct weir_buf *batch = weir_buf_new(HEADER + sizeof body);
    if (!batch)
        return WEIR_NO_MEMORY;
    struct weir_batch_header h = {
        .magic = weir_put32(WEIR_BATCH_MAGIC),
        .size = weir_put32(HEADER + sizeof body),
        .raw_size = weir_put32(sizeof body),
        .flags = WEIR_BATCH_STATE,
        .hash_high = weir_put128(WEIR_U128_MAX),
        .body_hash = weir_put128(weir_checksum(weir_bytes(&body, sizeof body))),
    };
    memcpy(batch->data, &h, sizeof h);
    memcpy(batch->data + HEADER, &body, sizeof body);
    batch->len = HEADER + sizeof body;
    *out = batch;
    return WEIR_OK;
}
