/* The other end of a bare connection, for floors (bench/lib/wire.h).
 *
 * usage: bench_other MESSAGE_BYTES TOTAL_BYTES READY_FD
 *
 * Listens on a loopback port and writes its address to READY_FD. With TOTAL_BYTES 0 each message is
 * answered with 40 bytes; else the first message asks for TOTAL_BYTES, which go out as messages of
 * 40 and MESSAGE_BYTES - 40 bytes (a frame's header and its batches), each from its own place in
 * memory, at most WINDOW of them under way. */
#include "bench/bench.h"
#include "transport/transport.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HEADER_BYTES 40
#define WINDOW 32

struct other;

struct slot {
    struct weir_send send;
    struct other *other;
};

struct other {
    struct weir_conn *conn;
    struct weir_buf *header, *memory;
    size_t message_bytes;
    uint64_t total_bytes;
    _Atomic uint64_t at; /* in memory; beyond the end: nothing more to send */
    size_t echoes;
    struct slot slot[WINDOW];
};

/* Fills the slot with the next message; false at the end. */
static bool
send_next(struct slot *slot)
{
    struct other *o = slot->other;
    size_t body = o->message_bytes - HEADER_BYTES;
    uint64_t at = atomic_fetch_add(&o->at, body);
    if (at + body > o->memory->len)
        return false;
    slot->send.count = 2;
    slot->send.piece[0] = (struct weir_slice){o->header, 0, HEADER_BYTES};
    slot->send.piece[1] = (struct weir_slice){o->memory, at, body};
    weir_conn_send(o->conn, &slot->send);
    return true;
}

static void
on_sent(struct weir_send *send, enum weir_status st)
{
    struct slot *slot = WEIR_CONTAINER(send, struct slot, send);
    if (st == WEIR_OK && slot->other->total_bytes)
        send_next(slot);
}

static bool
on_message(void *arg, struct weir_conn *conn, struct weir_buf *message)
{
    struct other *o = arg;
    weir_buf_unref(message);
    o->conn = conn;
    if (o->total_bytes == 0) {
        /* The next message may come before the transport has let go of this answer. */
        struct weir_send *send = &o->slot[o->echoes++ % WINDOW].send;
        send->count = 1;
        send->piece[0] = (struct weir_slice){o->header, 0, HEADER_BYTES};
        weir_conn_send(conn, send);
        return true;
    }
    atomic_store(&o->at, 0);
    for (size_t i = 0; i < WINDOW && send_next(&o->slot[i]); i++)
        ;
    return true;
}

static void
on_closed(void *, struct weir_conn *, enum weir_status)
{
}

static void
on_accepted(void *arg, struct weir_conn *conn)
{
    static const struct weir_conn_events events = {on_message, on_closed};
    weir_conn_set_limit(conn);
    weir_conn_set_events(conn, &events, arg);
}

int
main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: bench_other MESSAGE_BYTES TOTAL_BYTES READY_FD\n");
        return 2;
    }
    static struct other other;
    other.message_bytes = strtoul(argv[1], NULL, 10);
    other.total_bytes = strtoull(argv[2], NULL, 10);
    other.header = weir_buf_new(HEADER_BYTES);
    if (other.message_bytes <= HEADER_BYTES || !other.header)
        return 2;
    memset(other.header->data, 0, HEADER_BYTES);
    other.header->len = HEADER_BYTES;
    if (other.total_bytes) {
        uint64_t messages = other.total_bytes / other.message_bytes;
        size_t len = messages * (other.message_bytes - HEADER_BYTES);
        uint8_t *memory = malloc(len);
        if (!memory || !(other.memory = weir_buf_wrap(memory, len, NULL, NULL)))
            weir_bench_die("out of memory");
        weir_bench_noise(memory, len, 3);
    }
    for (size_t i = 0; i < WINDOW; i++)
        other.slot[i] = (struct slot){.send.sent = on_sent, .other = &other};

    struct weir_sys sys = {.clock = weir_clock_system(), .threads = true};
    struct weir_transport_options options = {
        .message_bytes_max = 64 << 20, .first_message_bytes_max = 64 << 20, .handshake_ms = 5000};
    struct weir_listener *listener;
    struct weir_error err = {0};
    char url[256];
    if (weir_listen(&sys, "tcp://127.0.0.1:0", &options, on_accepted, &other, &listener, url, &err))
        weir_bench_die("cannot listen: %s", err.text);
    dprintf(atoi(argv[3]), "%s\n", url);
    pause(); /* until the benchmark ends us */
    return 0;
}
