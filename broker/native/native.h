/* The native door: frames (wire/frame.h) over the transport, translated into the service's
 * operations.
 *
 *   transport thread                       control loop                      owner loop
 *   HELLO, CALL ─────────── post ───────> operations ── channel ──────────> table of channels
 *   PRODUCE, CREDIT ─────── post, by the channel's owner ─────────────────> ingest, fan-out
 *                                 REPLY <── send ──                 ACK, DATA <── send ──
 *
 * A connection that breaks the protocol is closed, and the reason is a line in the log. What one
 * connection can make the broker hold is bounded: bytes taken from it and not yet done with (beyond
 * that it is not read), bytes it does not fetch (beyond that it is closed), channels, and time.
 *
 * Threads: open, drain and close from one thread that is no loop. Everything else is inside. */
#pragma once
#include "service/service.h"
#include "transport/transport.h"

struct weir_native;

/* Zeros are the defaults named here. */
struct weir_native_options {
    const char *const *urls;     /* listen on each */
    size_t url_count;            /* 1 to 16 */
    const char *tls_certificate; /* PEM files, for tls+tcp */
    const char *tls_key;
    const char *broker;        /* for WELCOME: "weir-broker 0.1.0" */
    uint32_t connections_max;  /* 1,000 */
    uint32_t channels_max;     /* of one connection: 20,000 */
    uint32_t heartbeat_ms;     /* 5,000; a client may ask for 100 to 60,000 */
    uint32_t dead_after_ms;    /* nothing heard for so long: closed; 15,000 */
    uint32_t hello_ms;         /* from connect to HELLO: 5,000 */
    uint32_t blocked_ms;       /* what was sent is not fetched at all for so long: closed; 60,000 */
    uint64_t frame_bytes_max;  /* WEIR_FRAME_BYTES_MAX */
    uint64_t window_bytes;     /* of a producer, not yet acknowledged: 32 MiB */
    uint64_t intake_bytes_max; /* taken from a connection, not yet done with: 64 MiB */
    uint64_t send_queue_bytes_max; /* sent to a connection, not yet fetched: 1.25 GiB; credit bounds
                                      it */
};

/* Listens. BUSY: an address is in use. */
enum weir_status weir_native_open(struct weir_service *service,
                                  const struct weir_native_options *options,
                                  struct weir_native **out, struct weir_error *err);
/* The real addresses, in the order of the urls (port 0 filled in); valid until close. */
size_t weir_native_address_count(const struct weir_native *n);
const char *weir_native_address(const struct weir_native *n, size_t index);
/* Takes no new connections and tells those that are there to go (DRAIN). */
void weir_native_drain(struct weir_native *n);
/* How many are connected; any thread. */
uint32_t weir_native_connections(const struct weir_native *n);
/* Closes all connections and waits until nothing of them is left. Before weir_service_close. NULL
 * is allowed. */
void weir_native_close(struct weir_native *n);
