#include "service/inside.h"

int
service_shown(struct weir_bytes text, size_t max)
{
    if (text.len <= max)
        return (int)text.len;
    while (max > 0 && (text.data[max] & 0xc0) == 0x80)
        max--;
    return (int)max;
}

const struct weir_stream *
service_find_stream(struct weir_call *call, struct weir_bytes name)
{
    const struct weir_stream *stream = weir_catalog_find(call->service->catalog, name);
    if (stream && stream->state != WEIR_STATE_DELETING)
        return stream;
    service_refuse(call, WEIR_NOT_FOUND, "stream '%.*s' not found",
                   service_shown(name, WEIR_STREAM_NAME_MAX), (const char *)name.data);
    return NULL;
}

const struct weir_shard *
service_find_shard(struct weir_call *call, const struct weir_stream *stream, uint32_t index)
{
    if (index < stream->shard_count && !stream->shards[index].expired)
        return &stream->shards[index];
    service_refuse(call, WEIR_NOT_FOUND, "shard %u of stream '%s' not found", index, stream->name);
    return NULL;
}

bool
service_check_consumer(struct weir_call *call, struct weir_bytes consumer)
{
    bool good = consumer.len >= 1 && consumer.len <= WEIR_CONSUMER_NAME_MAX;
    for (size_t i = 0; good && i < consumer.len; i++) {
        uint8_t c = consumer.data[i];
        good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '_' || c == '.' || c == '-';
    }
    if (!good)
        service_refuse(call, WEIR_INVALID, "a consumer's name has 1 to %d of [a-zA-Z0-9_.-]",
                       WEIR_CONSUMER_NAME_MAX);
    return good;
}

bool
service_check_change(struct weir_call *call)
{
    if (!call->service->draining)
        return true;
    service_refuse(call, WEIR_UNAVAILABLE, "the broker is shutting down");
    return false;
}
