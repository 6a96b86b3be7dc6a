#include "wire/frame.h"
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdlib.h>

static enum weir_status
decode(const struct weir_frame_header *h, size_t body_len, struct weir_frame *out)
{
    uint8_t *message = calloc(1, sizeof *h + body_len);
    memcpy(message, h, sizeof *h);
    enum weir_status st = weir_frame_decode(weir_bytes(message, sizeof *h + body_len), out);
    free(message);
    return st;
}

static enum weir_status
decode_kind(int kind, size_t body_len)
{
    struct weir_frame_header h = {.kind = (uint8_t)kind};
    struct weir_frame frame;
    return decode(&h, body_len, &frame);
}

/* Every field comes back as it was written. */
Test(frame, returns_every_field)
{
    struct weir_frame frame = {
        .kind = WEIR_FRAME_ACK,
        .status = WEIR_DUPLICATE,
        .channel = 0x01020304,
        .number = 0x1112131415161718,
        .offset = 0x2122232425262728,
        .value = 0x3132333435363738,
        .epoch = 0x41424344,
        .lag_ms = 0x51525354,
    };
    struct weir_frame_header h;
    struct weir_frame back;
    weir_frame_encode(&frame, &h);
    cr_assert(eq(int, decode(&h, 0, &back), WEIR_OK));
    cr_expect(back.kind == frame.kind && back.status == frame.status);
    cr_expect(back.channel == frame.channel && back.epoch == frame.epoch);
    cr_expect(back.number == frame.number && back.offset == frame.offset);
    cr_expect(back.value == frame.value && back.lag_ms == frame.lag_ms);
    cr_expect(eq(sz, back.body.len, 0));
}

/* A body stands only behind the kinds that have one, and within that kind's limits. */
Test(frame, keeps_bodies_to_their_kinds)
{
    static const int without[] = {WEIR_FRAME_ACK,     WEIR_FRAME_CREDIT, WEIR_FRAME_HEARTBEAT,
                                  WEIR_FRAME_GAP,     WEIR_FRAME_PING,   WEIR_FRAME_PONG,
                                  WEIR_FRAME_STOPPED, WEIR_FRAME_DRAIN,  WEIR_FRAME_BYE};
    for (size_t i = 0; i < sizeof without / sizeof *without; i++) {
        cr_expect(eq(int, decode_kind(without[i], 0), WEIR_OK), "kind %d", without[i]);
        cr_expect(eq(int, decode_kind(without[i], 1), WEIR_INVALID), "kind %d", without[i]);
    }
    static const struct {
        int kind;
        size_t min, max;
    } with[] = {{WEIR_FRAME_HELLO, 0, 4056},
                {WEIR_FRAME_WELCOME, 0, 4056},
                {WEIR_FRAME_REFUSE, 0, 4056},
                {WEIR_FRAME_CALL, 0, WEIR_CONTROL_BYTES_MAX},
                {WEIR_FRAME_REPLY, 0, WEIR_CONTROL_BYTES_MAX},
                {WEIR_FRAME_END, 0, WEIR_CONTROL_BYTES_MAX},
                {WEIR_FRAME_PRODUCE, 160, WEIR_BATCH_BYTES_MAX},
                {WEIR_FRAME_DATA, 160, WEIR_FRAME_BYTES_MAX - 40}};
    for (size_t i = 0; i < sizeof with / sizeof *with; i++) {
        cr_expect(eq(int, decode_kind(with[i].kind, with[i].min), WEIR_OK), "%d", with[i].kind);
        cr_expect(eq(int, decode_kind(with[i].kind, with[i].max), WEIR_OK), "%d", with[i].kind);
        cr_expect(eq(int, decode_kind(with[i].kind, with[i].max + 1), WEIR_TOO_BIG));
        if (with[i].min)
            cr_expect(eq(int, decode_kind(with[i].kind, with[i].min - 1), WEIR_INVALID));
    }
}

/* Unknown kinds are told apart from bad bytes: a newer peer may send them. */
Test(frame, names_unknown_kinds)
{
    for (int kind = 0; kind < 256; kind++)
        if (kind == 0 || kind >= WEIR_FRAME_KINDS)
            cr_expect(eq(int, decode_kind(kind, 0), WEIR_UNSUPPORTED), "kind %d", kind);
}

/* Short messages, unknown statuses and a used reserved field are refused. */
Test(frame, refuses_what_is_not_a_frame)
{
    struct weir_frame_header h = {.kind = WEIR_FRAME_PING};
    struct weir_frame frame;
    for (size_t len = 0; len < sizeof h; len++)
        cr_expect(eq(int, weir_frame_decode(weir_bytes(&h, len), &frame), WEIR_INVALID));
    h.status = WEIR_STATUS_COUNT;
    cr_expect(eq(int, decode(&h, 0, &frame), WEIR_INVALID));
    h.status = 0;
    h.reserved = weir_put16(256);
    cr_expect(eq(int, decode(&h, 0, &frame), WEIR_INVALID));
}

/* A channel names the loop that serves it. */
Test(channel, names_its_owner)
{
    uint32_t channel = weir_channel_make(0xabcdef, 63);
    cr_expect(eq(u32, weir_channel_owner(channel), 63));
    cr_expect(eq(u32, channel >> 8, 0xabcdef));
}
