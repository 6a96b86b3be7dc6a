#include "wire/frame.h"
#include "base/assert.h"

enum { HEADER = sizeof(struct weir_frame_header), BATCH_HEADER = 160 };

/* What stands behind the header of each kind. A protobuf message of defaults alone has no bytes, so
 * a message may be empty; a batch may not. */
static const struct {
    size_t body_min, body_max;
} kinds[WEIR_FRAME_KINDS] = {
    [WEIR_FRAME_HELLO] = {0, WEIR_HELLO_BYTES_MAX - HEADER},
    [WEIR_FRAME_WELCOME] = {0, WEIR_HELLO_BYTES_MAX - HEADER},
    [WEIR_FRAME_REFUSE] = {0, WEIR_HELLO_BYTES_MAX - HEADER},
    [WEIR_FRAME_CALL] = {0, WEIR_CONTROL_BYTES_MAX},
    [WEIR_FRAME_REPLY] = {0, WEIR_CONTROL_BYTES_MAX},
    [WEIR_FRAME_PRODUCE] = {BATCH_HEADER, WEIR_BATCH_BYTES_MAX},
    [WEIR_FRAME_ACK] = {0, 0},
    [WEIR_FRAME_CREDIT] = {0, 0},
    [WEIR_FRAME_DATA] = {BATCH_HEADER, WEIR_FRAME_BYTES_MAX - HEADER},
    [WEIR_FRAME_HEARTBEAT] = {0, 0},
    [WEIR_FRAME_GAP] = {0, 0},
    [WEIR_FRAME_END] = {0, WEIR_CONTROL_BYTES_MAX},
    [WEIR_FRAME_STOPPED] = {0, 0},
    [WEIR_FRAME_PING] = {0, 0},
    [WEIR_FRAME_PONG] = {0, 0},
    [WEIR_FRAME_DRAIN] = {0, 0},
    [WEIR_FRAME_BYE] = {0, 0},
};

enum weir_status
weir_frame_decode(struct weir_bytes message, struct weir_frame *out)
{
    struct weir_frame_header h;
    if (message.len < sizeof h)
        return WEIR_INVALID;
    memcpy(&h, message.data, sizeof h);
    if (weir_get16(h.reserved) != 0 || h.status >= WEIR_STATUS_COUNT)
        return WEIR_INVALID;
    if (h.kind == 0 || h.kind >= WEIR_FRAME_KINDS)
        return WEIR_UNSUPPORTED;
    struct weir_bytes body = weir_bytes(message.data + sizeof h, message.len - sizeof h);
    if (body.len > kinds[h.kind].body_max)
        return kinds[h.kind].body_max ? WEIR_TOO_BIG : WEIR_INVALID;
    if (body.len < kinds[h.kind].body_min)
        return WEIR_INVALID;

    *out = (struct weir_frame){
        .kind = h.kind,
        .status = h.status,
        .channel = weir_get32(h.channel),
        .epoch = weir_get32(h.epoch),
        .lag_ms = weir_get32(h.lag_ms),
        .number = weir_get64(h.number),
        .offset = weir_get64(h.offset),
        .value = weir_get64(h.value),
        .body = body,
    };
    return WEIR_OK;
}

void
weir_frame_encode(const struct weir_frame *frame, struct weir_frame_header *out)
{
    WEIR_ASSERT(frame->kind > 0 && frame->kind < WEIR_FRAME_KINDS);
    *out = (struct weir_frame_header){
        .kind = (uint8_t)frame->kind,
        .status = (uint8_t)frame->status,
        .channel = weir_put32(frame->channel),
        .number = weir_put64(frame->number),
        .offset = weir_put64(frame->offset),
        .value = weir_put64(frame->value),
        .epoch = weir_put32(frame->epoch),
        .lag_ms = weir_put32(frame->lag_ms),
    };
}

size_t
weir_frame_body_max(enum weir_frame_kind kind)
{
    WEIR_ASSERT(kind > 0 && kind < WEIR_FRAME_KINDS);
    return kinds[kind].body_max;
}
