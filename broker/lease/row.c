#include "row.h"
#include "base/text.h"
#include "stream/stream.h"
#include <stdio.h>

#define FORM 1

static const char prefix[] = "lease/";

size_t
weir_lease_key(uint64_t stream, struct weir_bytes consumer, uint32_t shard,
               char out[WEIR_LEASE_KEY_MAX])
{
    return (size_t)snprintf(out, WEIR_LEASE_KEY_MAX, "%s%016llx/%.*s/%08x", prefix,
                            (unsigned long long)stream, (int)consumer.len,
                            (const char *)consumer.data, shard);
}

size_t
weir_lease_row_encode(const struct weir_checkpoint_row *row, struct weir_lease_row_bytes *out)
{
    size_t owner_len = strlen(row->owner);
    out->head = (struct weir_disk_lease){
        .form = FORM,
        .flags = (uint8_t)((row->set ? WEIR_LEASE_SET : 0) |
                           (row->shard_end ? WEIR_LEASE_SHARD_END : 0)),
        .owner_len = weir_put16((uint16_t)owner_len),
        .offset = weir_put64(row->offset),
        .epoch = weir_put64(row->epoch),
        .updated_ms = weir_put64(row->updated_ms),
    };
    memcpy(out->owner, row->owner, owner_len);
    return sizeof out->head + owner_len;
}

/* "lease/" 16 digits "/" name "/" 8 digits */
static enum weir_status
decode_key(const char *key, struct weir_checkpoint_row *out)
{
    const size_t at = sizeof prefix - 1, name_at = at + 17, tail = 9;
    size_t len = strlen(key);
    uint8_t stream[8], shard[4];
    if (len < name_at + 1 + tail || len > name_at + WEIR_CONSUMER_NAME_MAX + tail ||
        strncmp(key, prefix, at) != 0 || key[at + 16] != '/' || key[len - tail] != '/' ||
        weir_hex_decode(weir_bytes(key + at, 16), stream, 8) ||
        weir_hex_decode(weir_bytes(key + len - 8, 8), shard, 4))
        return WEIR_DAMAGED;
    struct weir_bytes name = weir_bytes(key + name_at, len - tail - name_at);
    if (!weir_stream_name_is_valid(name))
        return WEIR_DAMAGED;
    out->stream = weir_load_be64(stream);
    out->shard = weir_load_be32(shard);
    memcpy(out->consumer, name.data, name.len);
    return WEIR_OK;
}

enum weir_status
weir_lease_row_decode(const char *key, struct weir_bytes value, struct weir_checkpoint_row *out)
{
    struct weir_disk_lease d;
    if (value.len < 1)
        return WEIR_DAMAGED;
    if (value.data[0] != FORM)
        return value.data[0] > FORM ? WEIR_UNSUPPORTED : WEIR_DAMAGED;
    if (value.len < sizeof d)
        return WEIR_DAMAGED;
    memcpy(&d, value.data, sizeof d);
    struct weir_checkpoint_row row = {
        .offset = weir_get64(d.offset),
        .epoch = weir_get64(d.epoch),
        .updated_ms = weir_get64(d.updated_ms),
        .set = d.flags & WEIR_LEASE_SET,
        .shard_end = d.flags & WEIR_LEASE_SHARD_END,
    };
    size_t owner_len = weir_get16(d.owner_len);
    struct weir_bytes owner = weir_bytes(value.data + sizeof d, value.len - sizeof d);
    if (owner.len != owner_len || owner_len > WEIR_CONSUMER_NAME_MAX ||
        memchr(owner.data, 0, owner_len) || d.flags > (WEIR_LEASE_SET | WEIR_LEASE_SHARD_END) ||
        weir_get32(d.zero) != 0 || row.epoch == 0 || (row.shard_end && !row.set))
        return WEIR_DAMAGED;
    memcpy(row.owner, owner.data, owner_len);
    enum weir_status st = decode_key(key, &row);
    if (st)
        return st;
    *out = row;
    return WEIR_OK;
}
