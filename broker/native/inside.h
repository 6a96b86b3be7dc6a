/* What the native door's files share. Nothing outside this directory includes it.
 *
 *   peer      one connection            control loop, and what is marked
 *   intake    one frame on its way in   pooled per peer
 *   outgoing  one frame on its way out  pooled per loop
 *   called    one CALL being answered   control loop
 *   channel   one producer or subscription, on its owner's loop
 *
 * A peer lives as long as anything refers to it: its connection, intakes, outgoings, calls,
 * channels. */
#pragma once
#include "base/assert.h"
#include "base/map.h"
#include "native/native.h"
#include "wire/message.h"
#include <pthread.h>

struct peer;
struct channel;
struct called;

/* ---- send.c ---- */

/* Frames that a loop sends; they come back from the transport's threads. */
struct outlet {
    struct outgoing *free;               /* the loop only */
    _Atomic(struct outgoing *) returned; /* any thread pushes, the loop takes all */
    atomic_uint count;                   /* that exist */
};
struct outgoing {
    struct weir_send send;
    struct outlet *outlet;
    struct outgoing *next;
    struct peer *peer;
    struct weir_buf *head; /* wraps `header` for as long as this exists */
    struct weir_frame_header header;
    uint64_t bytes;
    uint64_t release; /* of the peer's held bytes, once it is sent */
};

/* A frame of a header and `count` pieces, whose buffers are ref'd. */
void peer_send(struct peer *p, struct outlet *outlet, const struct weir_frame *frame,
               const struct weir_slice *pieces, uint32_t count, uint64_t release);
/* The same with a message; false where it is too big or there is no memory, then nothing is sent.
 */
bool peer_send_message(struct peer *p, struct outlet *outlet, const struct weir_frame *frame,
                       const ProtobufCMessage *message, uint64_t release);
void outlet_fini(struct outlet *outlet);

/* ---- native.c ---- */

struct native_owner {
    struct weir_native *native;
    struct weir_owner *owner;
    /* the owner's loop only */
    struct outlet outlet;
    struct weir_map channels; /* by channel_key */
};

#define NATIVE_URLS_MAX 16

struct weir_native {
    struct weir_service *service;
    struct weir_sys *sys;
    struct weir_loop *loop; /* control */
    struct weir_loop *io;   /* serves the sockets; NULL where there are no threads */
    struct weir_metrics *metrics;
    struct weir_native_options options;
    char broker[64];
    struct weir_listener *listeners[NATIVE_URLS_MAX];
    char addresses[NATIVE_URLS_MAX][256];
    size_t listener_count;
    struct native_owner *owners;
    uint32_t owner_count;

    /* control loop only */
    struct outlet outlet;
    struct weir_list peers;
    bool draining, closing;
    struct weir_task drain_task, close_task;

    /* shared */
    _Atomic uint32_t next_peer, next_epoch;
    _Atomic uint32_t connected;

    /* shared, under mtx */
    pthread_mutex_t mtx;
    pthread_cond_t changed;
    size_t alive; /* peers whose memory is there */
    bool closed;  /* the control loop is done with us, but for them */
};

/* ---- peer.c ---- */

struct intake {
    struct weir_task task;
    struct peer *peer;
    struct intake *next;
    struct weir_buf *message;
    struct weir_frame frame;
    uint64_t held;
    struct channel *channel;
    struct weir_produce produce;
};
/* What an intake or an answer that waits to be fetched counts beside its bytes. */
#define INTAKE_OVERHEAD 512
/* A call counts what its operation and its answer may take, until the answer is fetched: a thousand
 * shards described, or a position in each shard that it names. */
#define CALL_OVERHEAD (128 * WEIR_KIB)
#define CALL_BYTES_FACTOR 64

enum peer_state { PEER_GREETING, PEER_LIVE, PEER_CLOSED };

struct peer_at_owner {
    struct peer *peer;
    struct native_owner *owner;
    struct weir_task close_task;
    /* the owner's loop only */
    struct weir_list channels;
    bool gone;
};

struct peer {
    struct weir_native *native;
    struct weir_conn *conn;
    uint32_t id;
    atomic_uint refs;

    /* transport callbacks only */
    bool greeted; /* its first frame came */
    struct intake *free;

    /* shared */
    _Atomic(struct intake *) returned;
    atomic_uint intakes;         /* that exist */
    _Atomic uint64_t held_bytes; /* taken from it and not yet done with */
    atomic_bool paused;          /* it is not read */
    _Atomic uint64_t heard_us, progress_us;
    _Atomic uint64_t unsent_bytes;
    _Atomic uint32_t channels;
    atomic_bool broke; /* closed for what it did */

    /* control loop only */
    struct weir_list node;
    enum peer_state state;
    enum weir_status why;
    uint32_t heartbeat_ms, dead_after_ms, serial;
    struct weir_timer timer;
    struct weir_task accept_task, closed_task, free_task;
    char client[WEIR_CONSUMER_NAME_MAX + 1];

    struct peer_at_owner at[];
};

void peer_accepted(void *arg, struct weir_conn *conn);
struct peer *peer_ref(struct peer *p);
void peer_unref(struct peer *p);
/* Closes the connection of one that broke the protocol, and says so. Any thread. */
[[gnu::format(printf, 2, 3)]] void peer_break(struct peer *p, const char *fmt, ...);
/* Bytes are done with; reads on where it was paused for them. Any thread. */
void peer_release(struct peer *p, uint64_t bytes);
void intake_return(struct intake *in);

/* ---- calls.c ---- */

/* A CALL on the control loop; takes nothing of the intake. */
void call_begin(struct peer *p, const struct weir_frame *frame, uint64_t held);
/* Answers; the call is gone. From the loop of the outlet. */
void called_reply(struct called *c, struct outlet *outlet, Weir__Reply *reply);
[[gnu::format(printf, 5, 6)]] void called_fail(struct called *c, struct outlet *outlet,
                                               enum weir_status st, uint64_t offset,
                                               const char *fmt, ...);

/* ---- channel.c ---- */

enum channel_kind { CHANNEL_PRODUCER, CHANNEL_SUBSCRIPTION };

struct channel {
    struct weir_list node; /* peer->at[owner].channels */
    struct weir_task task;
    struct peer *peer;
    struct native_owner *owner;
    struct called *called; /* that opens it, until it is answered */
    enum channel_kind kind;
    uint32_t id;
    uint32_t refs; /* the table's, and batches in flight */
    bool open;
    uint64_t stream, shard;
    /* producer */
    weir_u128 producer;
    uint64_t record_bytes_max, in_flight;
    bool told; /* a refusal of it is in the log */
    /* subscription */
    struct weir_sub_config config;
    char consumer[WEIR_CONSUMER_NAME_MAX + 1];
    struct weir_sub *sub;
    uint32_t epoch;
    uint64_t number; /* of the last DATA */
    bool from_checkpoint;
};

/* On the control loop: a channel of the peer, not yet known to its owner. NULL: too many (TOO_BIG),
 * NO_MEMORY. */
struct channel *channel_new(struct peer *p, enum channel_kind kind, uint32_t owner,
                            enum weir_status *why);
/* Makes it known to its owner, which answers `called`. */
void channel_open(struct channel *ch, struct called *called);
/* On the owner's loop. */
bool channel_close_id(struct native_owner *o, struct peer *p, uint32_t id);
void channel_frame(struct weir_task *task);  /* a PRODUCE or CREDIT intake */
void channels_close(struct weir_task *task); /* all of a peer at an owner */
