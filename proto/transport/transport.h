/* Byte movers: connections that carry whole messages in the SP wire form of PAIR0, over NNG streams
 * (tcp, ipc, abstract, tls+tcp) or a loop's own sockets, or inside the process (inproc). Any
 * nng_pair0 socket is a peer.
 *
 *   tcp://127.0.0.1:7070   ipc:///run/weir.sock   abstract://name   tls+tcp://host:7071
 *   inproc://name
 *
 * On the wire: both sides send 00 'S' 'P' 00 00 10 00 00, then messages of a big-endian u64 length
 * and the body; over ipc and abstract each message has one byte 01 before the length. A peer that
 * is no PAIR0, announces a length over the limit, or does not finish the handshake in time is
 * closed.
 *
 * Threads: callbacks come on a thread of the transport, or where the options name a loop on that
 * loop; they must only hand over: take the buffer, post, return. on_message and on_closed of a
 * connection never overlap and are never called from inside send, resume or close; `sent` may come
 * beside them, and from inside a send. send, resume, set_limit, close, ref and unref may be called
 * from any thread and from callbacks.
 *
 * Life: who gets a connection from `accepted` or `dialed` holds one reference. on_closed comes
 * once, after every queued `sent`, whoever closed; nothing comes after it. A connection that was
 * let go is closed. */
#pragma once
#include "base/buffer.h"
#include "base/error.h"
#include "base/list.h"
#include "sys/sys.h"

struct weir_conn;
struct weir_listener;

#define WEIR_SEND_PIECES_MAX 7 /* with the length prefix NNG's eight */

#define WEIR_URL_BYTES_MAX 256 /* with the NUL */

/* One message to send: pieces of shared buffers, in order. Owned by the transport from send until
 * `sent`, which comes exactly once, also when the connection dies first. */
struct weir_send {
    uint32_t count;
    struct weir_slice piece[WEIR_SEND_PIECES_MAX]; /* references are the caller's: let go in sent */
    void (*sent)(struct weir_send *s, enum weir_status st);
    struct weir_list node; /* private */
};

struct weir_conn_events {
    /* A whole message; `message` is the callee's reference to let go. Until weir_conn_resume is
     * owed (return false) no further message is read: back-pressure. */
    bool (*on_message)(void *arg, struct weir_conn *conn, struct weir_buf *message);
    /* The end, once: nothing comes after it. CANCELLED: weir_conn_close; UNAVAILABLE: the peer
     * went; INVALID, TOO_BIG: the peer broke the rules; else what the network said. */
    void (*on_closed)(void *arg, struct weir_conn *conn, enum weir_status why);
};

struct weir_transport_options {
    uint64_t message_bytes_max;       /* after set_limit; the connection is closed above it */
    uint64_t first_message_bytes_max; /* limit until weir_conn_set_limit lifts it */
    uint32_t handshake_ms; /* from connect to the peer's greeting, TLS included; 0: 5,000 */
    const char *tls_certificate, *tls_key, *tls_ca; /* PEM files, for tls+tcp */
    bool tls_insecure;                              /* client: do not check the server */
    /* Callbacks run on this loop, which outlives the listener and its connections. inproc: as
     * tasks. A listener on tcp, ipc or abstract: the loop, which has a thread, reads and writes the
     * sockets itself. NULL: on a thread of the transport (NNG's, but for inproc); for an inproc
     * dialer, where the listener's run. */
    struct weir_loop *loop;
};

/* `accepted` comes per connection, after the handshake, and must set events before it returns. The
 * connection is the callee's reference. */
typedef void (*weir_accepted)(void *arg, struct weir_conn *conn);

/* `options` and their strings are borrowed for the call. `url_out` (may be NULL,
 * WEIR_URL_BYTES_MAX) gets the real address: port 0 is filled in. BUSY: in use. */
enum weir_status weir_listen(struct weir_sys *sys, const char *url,
                             const struct weir_transport_options *options, weir_accepted accepted,
                             void *arg, struct weir_listener **out, char *url_out,
                             struct weir_error *err);
/* Takes no more and gives up handshakes that are not done; connections go on. Waits for an
 * `accepted` that is running, so never from within one. NULL is allowed. */
void weir_listener_close(struct weir_listener *listener);

/* `dialed` comes once where this returned OK, and within handshake_ms: OK with a conn whose events
 * it must set, or NULL and why not. UNAVAILABLE at once: nobody listens on that inproc name. */
typedef void (*weir_dialed)(void *arg, struct weir_conn *conn, enum weir_status st);
enum weir_status weir_dial(struct weir_sys *sys, const char *url,
                           const struct weir_transport_options *options, weir_dialed dialed,
                           void *arg, struct weir_error *err);

void weir_conn_set_events(struct weir_conn *conn, const struct weir_conn_events *events, void *arg);
/* Raises the message limit to message_bytes_max, after the peer said who it is. */
void weir_conn_set_limit(struct weir_conn *conn);
/* Reads on after on_message returned false: once for each false, also from another thread before
 * that on_message has returned. */
void weir_conn_resume(struct weir_conn *conn);
/* Queues a message behind those queued before. Never fails: `sent` tells. On a connection that is
 * closed already `sent` comes with CANCELLED before this returns. */
void weir_conn_send(struct weir_conn *conn, struct weir_send *send);
/* Bytes queued and not yet taken by the network. */
uint64_t weir_conn_queued_bytes(const struct weir_conn *conn);
/* Closes now; queued sends come back CANCELLED. Any number of times. What the network has taken
 * still arrives, unless the peer sends on: who has a last word to say lets the peer close. */
void weir_conn_close(struct weir_conn *conn);
/* Lets the caller's handle go (the one from accepted or dialed); closes if still open. */
void weir_conn_unref(struct weir_conn *conn);
struct weir_conn *weir_conn_ref(struct weir_conn *conn);
/* "tcp 127.0.0.1:41234", "ipc pid 4711 uid 0", "inproc name": for logs. Lives as the connection. */
const char *weir_conn_peer(const struct weir_conn *conn);
