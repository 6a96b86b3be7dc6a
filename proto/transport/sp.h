/* The SP byte stream of a PAIR0 peer, taken apart into messages. A pure state machine: the owner
 * asks where the next bytes go (weir_sp_room), puts them there, says how many (weir_sp_filled), and
 * takes messages out until there are none (weir_sp_next).
 *
 *   00 'S' 'P' 00 00 10 00 00 | [01] length, 8 bytes big-endian | body | [01] length | body | …
 *                               the 01 over ipc only
 *
 * Small messages are copied out of a stage that many of them are received into at once; the rest of
 * a large one is received straight into its own buffer. Memory follows bytes that came, not lengths
 * that were claimed. Private to this module; one thread at a time. */
#pragma once
#include "base/buffer.h"

#define WEIR_SP_GREETING_BYTES 8
extern const uint8_t weir_sp_greeting[WEIR_SP_GREETING_BYTES];
#define WEIR_SP_PREFIX_BYTES_MAX 9

/* Writes what stands before a message on the wire; returns 8 or 9. */
size_t weir_sp_prefix(bool is_ipc, uint64_t len, uint8_t out[WEIR_SP_PREFIX_BYTES_MAX]);

struct weir_sp {
    bool is_ipc, greeted;
    uint8_t level, next_level; /* of the stage: its size follows what comes at a time */
    size_t at, end;            /* what the stage holds */
    struct weir_buf *large;    /* the stage above level 0, where it is `small` */
    struct weir_buf *message;  /* that is being received */
    uint64_t message_len;      /* as claimed */
    uint8_t small[512];
};

struct weir_sp_room {
    uint8_t *data;
    size_t len;
};

/* Zeroed, with is_ipc set, is a stream that has not begun. */
void weir_sp_fini(struct weir_sp *sp);
/* One or two places, to be filled in order. Returns how many. */
unsigned weir_sp_room(struct weir_sp *sp, struct weir_sp_room out[2]);
void weir_sp_filled(struct weir_sp *sp, size_t len);
/* Bytes of the message under way that have not come; 0 between messages. */
static inline uint64_t
weir_sp_missing(const struct weir_sp *sp)
{
    return sp->message ? sp->message_len - sp->message->len : 0;
}
/* Whether the peer has said that it is PAIR0: OK, AGAIN, INVALID. Before the first message. */
enum weir_status weir_sp_greet(struct weir_sp *sp);
/* A whole message, the caller's reference. AGAIN: more bytes are needed. INVALID: not PAIR0 or not
 * SP. TOO_BIG: the peer announced more than `max`. NO_MEMORY. After an error the stream is useless.
 */
enum weir_status weir_sp_next(struct weir_sp *sp, uint64_t max, struct weir_buf **out);
