#include "record/batch.h"
#include "base/assert.h"
#include "base/text.h"
#include "record/checksum.h"
#include <lz4.h>
#include <stdlib.h>

enum {
    HEADER = sizeof(struct weir_batch_header),
    HASHED = offsetof(struct weir_batch_header, header_hash),
    STATE_BODY = sizeof(weir_le64),
    RECORD_MIN = sizeof(struct weir_record_header) + 1,
};
static_assert(HASHED == 144);
static_assert(offsetof(struct weir_batch_header, body_hash) == 112);
static_assert(offsetof(struct weir_batch_header, producer) == 56);

/* ---- sealing ---- */

weir_u128
weir_batch_seal(uint8_t *batch, const struct weir_batch_seal *seal)
{
    struct weir_batch_header h;
    memcpy(&h, batch, sizeof h);
    WEIR_ASSERT(weir_get32(h.magic) == WEIR_BATCH_MAGIC);
    h.stream = weir_put64(seal->stream);
    h.shard = weir_put64(seal->shard);
    h.offset = weir_put64(seal->offset);
    h.at_ms = weir_put64(seal->at_ms);
    h.epoch = weir_put32(seal->epoch);
    h.flags = seal->flags;
    h.previous = weir_put128(seal->previous);
    weir_u128 hash = weir_checksum(weir_bytes(&h, HASHED));
    h.header_hash = weir_put128(hash);
    memcpy(batch, &h, sizeof h);
    return hash;
}

uint64_t
weir_batch_trimmed_before(const uint8_t *batch)
{
    weir_le64 v;
    memcpy(&v, batch + HEADER, sizeof v);
    return weir_get64(v);
}

/* ---- checks ---- */

static struct weir_batch_info
info_of(const struct weir_batch_header *h)
{
    return (struct weir_batch_info){
        .size = weir_get32(h->size),
        .count = weir_get32(h->count),
        .raw_size = weir_get32(h->raw_size),
        .epoch = weir_get32(h->epoch),
        .codec = h->codec,
        .flags = h->flags,
        .stream = weir_get64(h->stream),
        .shard = weir_get64(h->shard),
        .offset = weir_get64(h->offset),
        .at_ms = weir_get64(h->at_ms),
        .number = weir_get64(h->number),
        .producer = weir_get128(h->producer),
        .hash_low = weir_get128(h->hash_low),
        .hash_high = weir_get128(h->hash_high),
        .body_hash = weir_get128(h->body_hash),
        .previous = weir_get128(h->previous),
        .header_hash = weir_get128(h->header_hash),
    };
}

/* Do the numbers of the header agree with each other? */
static bool
is_consistent(const struct weir_batch_info *i)
{
    uint32_t body = i->size - HEADER;
    if (i->hash_low > i->hash_high || i->codec > WEIR_CODEC_LZ4)
        return false;
    if (i->codec == WEIR_CODEC_NONE && body != i->raw_size)
        return false;
    if (i->flags == WEIR_BATCH_STATE)
        return i->count == 0 && i->codec == WEIR_CODEC_NONE && body == STATE_BODY;
    return i->flags == 0 && i->count > 0 && body > 0 &&
           i->raw_size >= (uint64_t)i->count * RECORD_MIN && i->offset <= UINT64_MAX - i->count;
}

enum weir_status
weir_batch_peek(struct weir_bytes bytes, struct weir_batch_info *out)
{
    weir_le32 magic = weir_put32(WEIR_BATCH_MAGIC);
    size_t there = bytes.len < sizeof magic ? bytes.len : sizeof magic;
    if (there && memcmp(bytes.data, &magic, there) != 0)
        return WEIR_INVALID;
    if (bytes.len < HEADER)
        return WEIR_END;

    struct weir_batch_header h;
    memcpy(&h, bytes.data, sizeof h);
    struct weir_batch_info info = info_of(&h);
    if (info.size > WEIR_BATCH_BYTES_MAX || info.raw_size > WEIR_BATCH_BODY_RAW_MAX ||
        info.count > WEIR_BATCH_RECORDS_MAX)
        return WEIR_TOO_BIG;
    if (info.size < HEADER || weir_get16(h.reserved) != 0 || !is_consistent(&info))
        return WEIR_INVALID;
    if (bytes.len < info.size)
        return WEIR_END;
    *out = info;
    return WEIR_OK;
}

enum weir_status
weir_batch_check_header(struct weir_bytes bytes, struct weir_batch_info *out)
{
    struct weir_batch_info info;
    enum weir_status st = weir_batch_peek(bytes, &info);
    if (st)
        return st;
    if (weir_checksum(weir_bytes(bytes.data, HASHED)) != info.header_hash)
        return WEIR_DAMAGED;
    *out = info;
    return WEIR_OK;
}

static struct weir_bytes
body_of(struct weir_bytes batch, const struct weir_batch_info *info)
{
    return weir_bytes(batch.data + HEADER, info->size - HEADER);
}

enum weir_status
weir_batch_check(struct weir_bytes bytes, struct weir_batch_info *out)
{
    struct weir_batch_info info;
    enum weir_status st = weir_batch_check_header(bytes, &info);
    if (st)
        return st;
    if (weir_checksum(body_of(bytes, &info)) != info.body_hash)
        return WEIR_DAMAGED;
    *out = info;
    return WEIR_OK;
}

/* ---- records ---- */

void
weir_scratch_fini(struct weir_scratch *s)
{
    free(s->data);
    *s = (struct weir_scratch){0};
}

static enum weir_status
scratch_reserve(struct weir_scratch *s, size_t size)
{
    if (size <= s->capacity)
        return WEIR_OK;
    size_t capacity = s->capacity ? s->capacity : 64 * WEIR_KIB;
    while (capacity < size)
        capacity *= 2;
    uint8_t *data = malloc(capacity);
    if (!data)
        return WEIR_NO_MEMORY;
    free(s->data); /* what was in it is not worth a copy */
    s->data = data;
    s->capacity = capacity;
    return WEIR_OK;
}

/* The records' bytes: the body itself, or decompressed into `scratch`, never more than raw_size. */
static enum weir_status
raw_of(struct weir_bytes batch, const struct weir_batch_info *info, struct weir_scratch *scratch,
       struct weir_bytes *out)
{
    struct weir_bytes body = body_of(batch, info);
    if (info->codec == WEIR_CODEC_NONE) {
        *out = body;
        return WEIR_OK;
    }
    enum weir_status st = scratch_reserve(scratch, info->raw_size);
    if (st)
        return st;
    int size = LZ4_decompress_safe((const char *)body.data, (char *)scratch->data, (int)body.len,
                                   (int)info->raw_size);
    if (size < 0 || (uint32_t)size != info->raw_size)
        return WEIR_INVALID;
    *out = weir_bytes(scratch->data, info->raw_size);
    return WEIR_OK;
}

enum weir_status
weir_batch_reader_init(struct weir_batch_reader *r, struct weir_bytes batch,
                       struct weir_scratch *scratch)
{
    struct weir_batch_info info;
    enum weir_status st = weir_batch_peek(batch, &info);
    if (st)
        return st;
    struct weir_bytes raw = {0};
    if (info.count) {
        st = raw_of(batch, &info, scratch, &raw);
        if (st)
            return st;
    }
    *r = (struct weir_batch_reader){
        .rest = raw, .left = info.count, .offset = info.offset, .next_offset = info.offset};
    return WEIR_OK;
}

static struct weir_bytes
take(struct weir_bytes *from, size_t len)
{
    struct weir_bytes head = weir_bytes(from->data, len);
    from->data += len;
    from->len -= len;
    return head;
}

enum weir_status
weir_batch_reader_next(struct weir_batch_reader *r, struct weir_record *out)
{
    if (!r->left)
        return r->rest.len ? WEIR_INVALID : WEIR_END;

    struct weir_record_header h;
    struct weir_bytes rest = r->rest;
    if (rest.len < sizeof h)
        return WEIR_INVALID;
    memcpy(&h, take(&rest, sizeof h).data, sizeof h);
    uint32_t data_size = weir_get32(h.data_size);
    uint32_t key_size = weir_get16(h.key_size);
    size_t explicit_len = h.flags & WEIR_RECORD_EXPLICIT_HASH ? sizeof(weir_le128) : 0;
    if (data_size > WEIR_RECORD_BYTES_MAX || key_size == 0 || key_size > WEIR_KEY_BYTES_MAX ||
        h.flags & ~WEIR_RECORD_EXPLICIT_HASH || h.reserved != 0 ||
        rest.len < explicit_len + key_size + data_size)
        return WEIR_INVALID;

    struct weir_record record = {.has_explicit_hash = explicit_len != 0};
    if (record.has_explicit_hash) {
        weir_le128 hash;
        memcpy(&hash, take(&rest, sizeof hash).data, sizeof hash);
        record.explicit_hash = weir_get128(hash);
    }
    record.key = take(&rest, key_size);
    record.data = take(&rest, data_size);
    r->rest = rest;
    r->left--;
    r->offset = r->next_offset++;
    *out = record;
    return WEIR_OK;
}

static enum weir_status
admit_record(const struct weir_record *record, const struct weir_batch_info *info, uint32_t index,
             size_t record_max, struct weir_error *err)
{
    if (record->data.len + record->key.len > record_max)
        return weir_fail(err, WEIR_TOO_BIG, "record %u has %zu bytes, the limit is %zu", index,
                         record->data.len + record->key.len, record_max);
    if (!weir_utf8_is_valid(record->key))
        return weir_fail(err, WEIR_INVALID, "the key of record %u is not UTF-8", index);
    if (record->key.len > WEIR_KEY_CHARACTERS_MAX &&
        weir_utf8_count(record->key) > WEIR_KEY_CHARACTERS_MAX)
        return weir_fail(err, WEIR_INVALID, "the key of record %u has over %d characters", index,
                         WEIR_KEY_CHARACTERS_MAX);
    if (record->has_explicit_hash &&
        (record->explicit_hash < info->hash_low || record->explicit_hash > info->hash_high))
        return weir_fail(err, WEIR_INVALID, "the hash key of record %u is outside the batch's",
                         index);
    return WEIR_OK;
}

enum weir_status
weir_batch_admit(struct weir_bytes batch, size_t record_max, struct weir_scratch *scratch,
                 struct weir_batch_info *out, struct weir_error *err)
{
    struct weir_batch_info info;
    enum weir_status st = weir_batch_peek(batch, &info);
    if (st == WEIR_TOO_BIG)
        return weir_fail(err, st, "the batch is over the limits of size or count");
    if (st || info.size != batch.len || info.flags != 0)
        return weir_fail(err, WEIR_INVALID, "not a batch");
    if (weir_checksum(body_of(batch, &info)) != info.body_hash)
        return weir_fail(err, WEIR_DAMAGED, "the batch's checksum does not hold");

    struct weir_batch_reader reader;
    st = weir_batch_reader_init(&reader, batch, scratch);
    if (st == WEIR_NO_MEMORY)
        return weir_fail(err, st, "no memory for a batch of %u bytes", info.raw_size);
    if (st)
        return weir_fail(err, WEIR_INVALID, "the batch does not decompress to its size");
    for (uint32_t i = 0; i < info.count; i++) {
        struct weir_record record;
        st = weir_batch_reader_next(&reader, &record);
        if (st)
            return weir_fail(err, WEIR_INVALID, "record %u does not fit its batch", i);
        st = admit_record(&record, &info, i, record_max, err);
        if (st)
            return st;
    }
    if (reader.rest.len)
        return weir_fail(err, WEIR_INVALID, "%zu bytes after the last record", reader.rest.len);
    *out = info;
    return WEIR_OK;
}
