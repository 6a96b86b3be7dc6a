/* Frames: the messages of the native protocol.
 *
 * A frame is the body of one SP message (proto/transport): this header, then what the kind says.
 * One connection carries many channels: a channel is one producer on one shard or one subscription
 * on one shard. The low 8 bits of a channel name the owner loop that serves it, so the broker hands
 * a frame to its owner without a look-up.
 *
 *   client                                   broker
 *     HELLO (Hello)              ----------->
 *                                <-----------  WELCOME (Welcome), or REFUSE (Refusal) and close
 *     CALL n (Request)           ----------->
 *                                <-----------  REPLY n (Reply)
 *     PRODUCE channel, number    ----------->  one batch
 *                                <-----------  ACK channel, number, status, offset, at_ms
 *     CREDIT channel, bytes, frames -------->
 *                                <-----------  DATA channel, epoch, number: batches as stored
 *                                <-----------  HEARTBEAT channel: position and lag without data
 *                                <-----------  GAP channel: offsets that are gone, and why
 *                                <-----------  END channel: the shard is closed and drained
 * (EndOfShard)
 *                                <-----------  STOPPED channel: the broker ended it, and why
 *     PING / PONG                <---------->  both ways, every few seconds
 *                                <-----------  DRAIN: going away, finish and reconnect elsewhere
 *     BYE                        ----------->
 *
 * All integers little-endian. */
#pragma once
#include "base/bytes.h"
#include "base/le.h"
#include "base/limits.h"
#include "base/status.h"

#define WEIR_WIRE_VERSION 1

enum weir_frame_kind {
    WEIR_FRAME_HELLO = 1,
    WEIR_FRAME_WELCOME = 2,
    WEIR_FRAME_REFUSE = 3,
    WEIR_FRAME_CALL = 4,
    WEIR_FRAME_REPLY = 5,
    WEIR_FRAME_PRODUCE = 6,
    WEIR_FRAME_ACK = 7,
    WEIR_FRAME_CREDIT = 8,
    WEIR_FRAME_DATA = 9,
    WEIR_FRAME_HEARTBEAT = 10,
    WEIR_FRAME_GAP = 11,
    WEIR_FRAME_END = 12,
    WEIR_FRAME_STOPPED = 13,
    WEIR_FRAME_PING = 14,
    WEIR_FRAME_PONG = 15,
    WEIR_FRAME_DRAIN = 16,
    WEIR_FRAME_BYE = 17,
    WEIR_FRAME_KINDS
};

/* The header of every frame; what the last four fields mean depends on the kind. A field that a
 * kind does not use is 0.
 *
 *   off  size  field     PRODUCE    ACK       CREDIT       DATA/HEARTBEAT         GAP END/STOPPED
 *     0     1  kind
 *     1     1  status    -          status    -            -                      why        -/why
 *     2     2  reserved  0
 *     4     4  channel   channel    channel   channel      channel                channel channel
 *     8     8  number    number     number    frames (add) running number of the subscription's
 * frames 16     8  offset    -          offset    bytes (add)  next offset after this  first end
 * offset 24     8  value     -          at_ms     -            tail: shard's next     limit      -
 *    32     4  epoch     -          -         -            epoch of the subscription
 *    36     4  lag_ms    -          -         -            now - arrival of the     -          -
 *                                                          next unsent batch, 0 at the tip
 *
 * CALL/REPLY: number is the call's. HELLO, WELCOME, REFUSE, CALL, REPLY, END carry a protobuf
 * message behind the header; PRODUCE one batch; DATA one or more whole batches. PING carries in
 * `value` what PONG returns. */
struct weir_frame_header {
    uint8_t kind;
    uint8_t status;
    weir_le16 reserved;
    weir_le32 channel;
    weir_le64 number;
    weir_le64 offset;
    weir_le64 value;
    weir_le32 epoch;
    weir_le32 lag_ms;
};
static_assert(sizeof(struct weir_frame_header) == 40);

struct weir_frame {
    enum weir_frame_kind kind;
    enum weir_status status;
    uint32_t channel, epoch, lag_ms;
    uint64_t number, offset, value;
    struct weir_bytes body; /* view into the message */
};

/* Takes a message apart and checks it: known kind, reserved 0, known status, a body only where the
 * kind has one and within the kind's limits. INVALID, TOO_BIG, UNSUPPORTED (unknown kind). */
enum weir_status weir_frame_decode(struct weir_bytes message, struct weir_frame *out);
/* Writes the header (40 bytes); the body goes behind it. */
void weir_frame_encode(const struct weir_frame *frame, struct weir_frame_header *out);
/* Bytes that may stand behind the header of this kind. */
size_t weir_frame_body_max(enum weir_frame_kind kind);
static inline uint32_t
weir_channel_make(uint32_t serial, uint32_t owner)
{
    return serial << 8 | owner;
}
static inline uint32_t
weir_channel_owner(uint32_t channel)
{
    return channel & 0xff;
}
