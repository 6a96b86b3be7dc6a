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
 *                                <-----------  END channel: closed and drained (EndOfShard)
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

/* The header of every frame; what the fields behind the channel mean depends on the kind. A field
 * that a kind does not use is 0.
 *
 *   off  size  field
 *     0     1  kind      enum weir_frame_kind
 *     1     1  status    ACK, GAP, STOPPED: enum weir_status, why
 *     2     2  reserved  0
 *     4     4  channel
 *     8     8  number
 *    16     8  offset
 *    24     8  value
 *    32     4  epoch     DATA, HEARTBEAT: of the subscription
 *    36     4  lag_ms    DATA, HEARTBEAT: now - arrival of the next unsent batch, 0 at the tip
 *
 *   kind            number                 offset                  value
 *   CALL, REPLY     the call's             -                       -
 *   PRODUCE         the batch's            -                       -
 *   ACK             the batch's            of its first record     arrival, ms
 *   CREDIT          frames to add          bytes to add            -
 *   DATA            running, from 1        next after this frame   tail: the shard's next offset
 *   HEARTBEAT       the last DATA's        next that will come     tail
 *   GAP             -                      first that is gone      first that is there again
 *   END, STOPPED    -                      end: next that would come -
 *   PING, PONG      -                      -                       PONG returns PING's
 *
 * PRODUCE: each is answered by exactly one ACK. A batch that is stored already is answered
 * DUPLICATE before anything else is asked. After a refusal the batches behind it on the channel are
 * refused too (their number skips one: INVALID), and the producer sends again from the refused one.
 * An OpenProducer on a closed shard is granted, so that a retry is answered DUPLICATE or MOVED.
 *
 * DATA: number is 1 in the first of a subscription and grows by 1; HEARTBEAT repeats the last. The
 * REPLY that made a channel comes before the channel's first frame.
 *
 * HELLO, WELCOME, REFUSE, CALL, REPLY, END carry a protobuf message behind the header; PRODUCE one
 * batch; DATA one or more whole batches. */
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
