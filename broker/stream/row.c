#include "row.h"
#include "base/text.h"
#include <stdio.h>

#define FORM 1
#define NONE 0xffffffffu

bool
weir_stream_name_is_valid(struct weir_bytes name)
{
    if (name.len < 1 || name.len > WEIR_STREAM_NAME_MAX)
        return false;
    for (size_t i = 0; i < name.len; i++) {
        uint8_t c = name.data[i];
        bool alnum = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!alnum && c != '_' && c != '.' && c != '-')
            return false;
    }
    return true;
}

void
weir_row_stream_key(const char *name, char out[WEIR_ROW_KEY_MAX])
{
    snprintf(out, WEIR_ROW_KEY_MAX, "stream/%s", name);
}

void
weir_row_shard_key(uint64_t stream, uint32_t index, char out[WEIR_ROW_KEY_MAX])
{
    snprintf(out, WEIR_ROW_KEY_MAX, "shard/%016llx/%08x", (unsigned long long)stream, index);
}

void
weir_row_stream_encode(const struct weir_stream *s, struct weir_disk_stream *out)
{
    *out = (struct weir_disk_stream){
        .form = FORM,
        .deleting = s->state == WEIR_STATE_DELETING,
        .shard_count = weir_put32(s->shard_count),
        .number = weir_put64(s->number),
        .created_ms = weir_put64(s->created_ms),
        .retention_ms = weir_put64(s->retention_ms),
        .retention_bytes = weir_put64(s->retention_bytes),
        .record_bytes_max = weir_put64(s->record_bytes_max),
        .version = weir_put64(s->version),
    };
}

void
weir_row_shard_encode(const struct weir_shard *shard, struct weir_disk_shard *out)
{
    *out = (struct weir_disk_shard){
        .form = FORM,
        .expired = shard->expired,
        .parent = weir_put32((uint32_t)shard->parent),
        .adjacent_parent = weir_put32((uint32_t)shard->adjacent_parent),
        .child = {weir_put32((uint32_t)shard->child[0]), weir_put32((uint32_t)shard->child[1])},
        .number = weir_put64(shard->number),
        .low = weir_put128(shard->range.low),
        .high = weir_put128(shard->range.high),
        .created_ms = weir_put64(shard->created_ms),
        .closed_ms = weir_put64(shard->closed_ms),
        .end = weir_put64(shard->end),
    };
}

/* The value as `size` bytes of this form. */
static enum weir_status
take(struct weir_bytes value, void *out, size_t size)
{
    if (value.len < 1)
        return WEIR_DAMAGED;
    if (value.data[0] != FORM)
        return value.data[0] > FORM ? WEIR_UNSUPPORTED : WEIR_DAMAGED;
    if (value.len != size)
        return WEIR_DAMAGED;
    memcpy(out, value.data, size);
    return WEIR_OK;
}

enum weir_status
weir_row_stream_decode(const char *key, struct weir_bytes value, struct weir_stream *out)
{
    struct weir_disk_stream d;
    enum weir_status st = take(value, &d, sizeof d);
    if (st)
        return st;
    const char prefix[] = "stream/";
    if (strncmp(key, prefix, sizeof prefix - 1) != 0)
        return WEIR_DAMAGED;
    struct weir_bytes name = weir_bytes_of(key + sizeof prefix - 1);
    if (!weir_stream_name_is_valid(name) || d.deleting > 1 || weir_get16(d.zero) != 0)
        return WEIR_DAMAGED;
    struct weir_stream s = {
        .number = weir_get64(d.number),
        .state = d.deleting ? WEIR_STATE_DELETING : WEIR_STATE_ACTIVE,
        .created_ms = weir_get64(d.created_ms),
        .retention_ms = weir_get64(d.retention_ms),
        .retention_bytes = weir_get64(d.retention_bytes),
        .record_bytes_max = weir_get64(d.record_bytes_max),
        .version = weir_get64(d.version),
        .shard_count = weir_get32(d.shard_count),
    };
    memcpy(s.name, name.data, name.len);
    if (s.number == 0 || s.shard_count == 0 || s.shard_count > INT32_MAX ||
        s.record_bytes_max == 0 || s.record_bytes_max > WEIR_RECORD_BYTES_MAX ||
        s.retention_ms < WEIR_RETENTION_MS_MIN || s.retention_ms > WEIR_RETENTION_MS_MAX)
        return WEIR_DAMAGED;
    *out = s;
    return WEIR_OK;
}

static bool
is_index_or_none(weir_le32 v)
{
    return weir_get32(v) == NONE || weir_get32(v) <= INT32_MAX;
}

enum weir_status
weir_row_shard_decode(const char *key, struct weir_bytes value, uint64_t *stream_out,
                      struct weir_shard *out)
{
    struct weir_disk_shard d;
    enum weir_status st = take(value, &d, sizeof d);
    if (st)
        return st;
    const char prefix[] = "shard/";
    const size_t at = sizeof prefix - 1;
    uint8_t stream[8], index[4];
    if (strlen(key) != at + 16 + 1 + 8 || strncmp(key, prefix, at) != 0 || key[at + 16] != '/' ||
        weir_hex_decode(weir_bytes(key + at, 16), stream, 8) ||
        weir_hex_decode(weir_bytes(key + at + 17, 8), index, 4))
        return WEIR_DAMAGED;
    if (d.expired > 1 || weir_get16(d.zero) != 0 || !is_index_or_none(d.parent) ||
        !is_index_or_none(d.adjacent_parent) || !is_index_or_none(d.child[0]) ||
        !is_index_or_none(d.child[1]))
        return WEIR_DAMAGED;
    struct weir_shard shard = {
        .number = weir_get64(d.number),
        .index = weir_load_be32(index),
        .range = {weir_get128(d.low), weir_get128(d.high)},
        .parent = (int32_t)weir_get32(d.parent),
        .adjacent_parent = (int32_t)weir_get32(d.adjacent_parent),
        .child = {(int32_t)weir_get32(d.child[0]), (int32_t)weir_get32(d.child[1])},
        .created_ms = weir_get64(d.created_ms),
        .closed_ms = weir_get64(d.closed_ms),
        .end = weir_get64(d.end),
        .expired = d.expired,
    };
    if (shard.number == 0 || shard.range.low > shard.range.high ||
        (shard.expired && !shard.closed_ms) || (shard.end && !shard.closed_ms) ||
        !shard.closed_ms != (shard.child[0] < 0))
        return WEIR_DAMAGED;
    *stream_out = weir_load_be64(stream);
    *out = shard;
    return WEIR_OK;
}

enum weir_status
weir_row_numbers_decode(struct weir_bytes value, uint64_t *next_stream_out,
                        uint64_t *next_shard_out)
{
    struct weir_disk_numbers d;
    enum weir_status st = take(value, &d, sizeof d);
    if (st)
        return st;
    if (weir_get64(d.next_stream) == 0 || weir_get64(d.next_shard) == 0)
        return WEIR_DAMAGED;
    *next_stream_out = weir_get64(d.next_stream);
    *next_shard_out = weir_get64(d.next_shard);
    return WEIR_OK;
}
