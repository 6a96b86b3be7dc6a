/* Byte movers: connections that carry whole messages, over NNG streams that speak the SP wire form
 * of PAIR0 (tcp, ipc, tls+tcp), or inside the process (inproc). Any nng_pair0 socket is a peer.
 *
 *   tcp://127.0.0.1:7070   ipc:///run/weir.sock   abstract://name   tls+tcp://host:7071
 * inproc://name
 *
 * On the wire: both sides send 00 'S' 'P' 00 00 10 00 00, then messages of a big-endian u64 length
 * and the body; over ipc each message has one byte 01 before the length. A peer that is no PAIR0,
 * sends a length over the limit, or does not finish the handshake in time is closed.
 *
 * Threads: callbacks come on a thread of the transport (inproc: on the caller's loop task) and must
 * only hand over: take the buffer, post, return. A connection's callbacks never overlap. send and
 * close may be called from any thread. The object lives until both close was called and on_closed
 * has returned. */
#pragma once
#include "base/buffer.h"
#include "base/error.h"
#include "base/list.h"
#include "sys/sys.h"

struct weir_conn;
struct weir_listener;

#define WEIR_SEND_PIECES_MAX 7 /* with the length prefix NNG's eight */

/* One message to send: pieces of shared buffers, in order. Owned by the transport from send until
 * `sent`, which comes exactly once, also when the connection dies first. */
struct weir_send {
    uint32_t count;
    struct weir_slice piece[WEIR_SEND_PIECES_MAX]; /* references are the caller's: let go in sent */
    void (*sent)(struct weir_send *s, enum weir_status st);
    struct weir_list node; /* private */
    uint8_t prefix[9];     /* private */
    uint8_t prefix_len;    /* private */
};

struct weir_conn_events {
    /* A whole message; `message` is the callee's reference to let go. Until weir_conn_resume is
     * owed (return false) no further message is read: back-pressure. */
    bool (*on_message)(void *arg, struct weir_conn *conn, struct weir_buf *message);
    /* The end, once: nothing comes after it. */
    void (*on_closed)(void *arg, struct weir_conn *conn, enum weir_status why);
};

struct weir_transport_options {
    uint64_t message_bytes_max;       /* after set_limit; the connection is closed above it */
    uint64_t first_message_bytes_max; /* limit until weir_conn_set_limit lifts it */
    uint32_t handshake_ms;
    const char *tls_certificate, *tls_key, *tls_ca; /* PEM files, for tls+tcp */
    bool tls_insecure;                              /* client: do not check the server */
};

/* `accepted` comes per connection, after the handshake, and must set events before it returns. */
typedef void (*weir_accepted)(void *arg, struct weir_conn *conn);

/* `url_out` (may be NULL, 256 bytes) gets the real address: port 0 is filled in. BUSY: in use. */
enum weir_status weir_listen(struct weir_sys *sys, const char *url,
                             const struct weir_transport_options *options, weir_accepted accepted,
                             void *arg, struct weir_listener **out, char *url_out,
                             struct weir_error *err);
/* Takes no more; connections go on. NULL is allowed. Waits for accepts in flight. */
void weir_listener_close(struct weir_listener *listener);

/* `dialed` comes once, on a transport thread: OK with a conn whose events it must set, or why not.
 * The returned handle may be cancelled; freed by itself after `dialed`. */
typedef void (*weir_dialed)(void *arg, struct weir_conn *conn, enum weir_status st);
enum weir_status weir_dial(struct weir_sys *sys, const char *url,
                           const struct weir_transport_options *options, weir_dialed dialed,
                           void *arg, struct weir_error *err);

void weir_conn_set_events(struct weir_conn *conn, const struct weir_conn_events *events, void *arg);
/* Raises the message limit to message_bytes_max, after the peer said who it is. */
void weir_conn_set_limit(struct weir_conn *conn);
/* Reads on after on_message returned false. Any thread; may come before that return has happened
 * (who the message was posted to can be faster): then reading goes on at once. */
void weir_conn_resume(struct weir_conn *conn);
/* Queues a message behind those queued before. Never fails: `sent` tells. */
void weir_conn_send(struct weir_conn *conn, struct weir_send *send);
/* Bytes queued and not yet taken by the network; and the moment the oldest of them was queued. */
uint64_t weir_conn_queued_bytes(const struct weir_conn *conn);
/* Closes now; queued sends come back CANCELLED. Any thread, any number of times, also from
 * callbacks. */
void weir_conn_close(struct weir_conn *conn);
/* Lets the caller's handle go (the one from accepted or dialed); closes if still open. */
void weir_conn_unref(struct weir_conn *conn);
struct weir_conn *weir_conn_ref(struct weir_conn *conn);
/* "tcp 127.0.0.1:41234" or "ipc pid 4711 uid 0": for logs. */
const char *weir_conn_peer(const struct weir_conn *conn);
