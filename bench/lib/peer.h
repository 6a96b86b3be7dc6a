/* The peer: NATS JetStream, Debian's nats-server with a file store and its default, lazy sync,
 * through NATS's own C client. Where either is missing, weir_peer_open returns NULL and says so.
 *
 * Threads: one, besides the client library's own. */
#pragma once
#include "bench/bench.h"
#include "bench/process.h"

struct weir_peer;

struct weir_peer *weir_peer_open(const struct weir_bench *b);
void weir_peer_close(struct weir_peer *p); /* NULL is allowed */
const struct weir_child *weir_peer_child(const struct weir_peer *p);

/* As fast as it goes, asynchronously, at most `pending_max` messages not yet acknowledged, for so
 * many seconds, until all are; into a fresh stream. Messages a second. */
double weir_peer_publish(struct weir_peer *p, size_t message_bytes, unsigned pending_max,
                         double seconds);

/* `count` push consumers (no acks, new messages only), a connection each; then messages at `rate`
 * a second, or as fast as the slowest consumer follows (rate 0). */
struct weir_peer_fanout {
    double published, delivered; /* messages */
    double cpu_s;                /* of the server, meanwhile */
    double seconds;
};
void weir_peer_fan_out(struct weir_peer *p, unsigned count, size_t message_bytes, double rate,
                       double seconds, struct weir_peer_fanout *out);
