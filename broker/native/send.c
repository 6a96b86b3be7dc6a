#include "native/inside.h"
#include <stdlib.h>

/* Frames that are kept for reuse, per loop. */
#define KEEP_MAX 1024

static void
on_sent(struct weir_send *send, enum weir_status st)
{
    struct outgoing *out = WEIR_CONTAINER(send, struct outgoing, send);
    struct peer *p = out->peer;
    struct outlet *outlet = out->outlet;
    uint64_t release = out->release;
    for (uint32_t i = 0; i < send->count; i++)
        if (send->piece[i].buf != out->head)
            weir_buf_unref(send->piece[i].buf);
    atomic_fetch_sub_explicit(&p->unsent_bytes, out->bytes, memory_order_relaxed);
    if (!st)
        atomic_store_explicit(&p->progress_us, weir_mono_us(p->native->sys->clock),
                              memory_order_relaxed);
    out->peer = NULL;
    if (atomic_load_explicit(&outlet->count, memory_order_relaxed) > KEEP_MAX) {
        atomic_fetch_sub_explicit(&outlet->count, 1, memory_order_relaxed);
        weir_buf_unref(out->head);
        free(out);
    } else {
        struct outgoing *top = atomic_load_explicit(&outlet->returned, memory_order_relaxed);
        do
            out->next = top;
        while (!atomic_compare_exchange_weak_explicit(&outlet->returned, &top, out,
                                                      memory_order_release, memory_order_relaxed));
    }
    if (release)
        peer_release(p, release);
    peer_unref(p);
}

static struct outgoing *
outgoing_get(struct outlet *outlet)
{
    if (!outlet->free)
        outlet->free = atomic_exchange_explicit(&outlet->returned, NULL, memory_order_acquire);
    struct outgoing *out = outlet->free;
    if (out) {
        outlet->free = out->next;
        return out;
    }
    out = calloc(1, sizeof *out);
    if (!out)
        return NULL;
    out->head = weir_buf_wrap((uint8_t *)&out->header, sizeof out->header, NULL, NULL);
    if (!out->head) {
        free(out);
        return NULL;
    }
    out->outlet = outlet;
    out->send.sent = on_sent;
    atomic_fetch_add_explicit(&outlet->count, 1, memory_order_relaxed);
    return out;
}

/* Nobody may make us hold more than the limit: one that does not fetch what it asked for is let go.
 */
static void
send(struct peer *p, struct outgoing *out, uint64_t bytes)
{
    struct weir_native *n = p->native;
    out->peer = peer_ref(p);
    out->bytes = bytes + sizeof *out;
    uint64_t before = atomic_fetch_add_explicit(&p->unsent_bytes, out->bytes, memory_order_relaxed);
    if (before == 0)
        atomic_store_explicit(&p->progress_us, weir_mono_us(n->sys->clock), memory_order_relaxed);
    weir_conn_send(p->conn, &out->send);
    if (before + bytes > n->options.send_queue_bytes_max)
        peer_break(p, "it does not fetch the %llu bytes that were sent to it",
                   (unsigned long long)before);
}

/* Without memory for a frame the connection cannot go on: the client connects anew and asks again.
 */
static void
no_memory(struct peer *p, uint64_t release)
{
    peer_break(p, "no memory for a frame");
    if (release)
        peer_release(p, release);
}

void
peer_send(struct peer *p, struct outlet *outlet, const struct weir_frame *frame,
          const struct weir_slice *pieces, uint32_t count, uint64_t release)
{
    WEIR_ASSERT(count < WEIR_SEND_PIECES_MAX);
    struct outgoing *out = outgoing_get(outlet);
    if (!out) {
        no_memory(p, release);
        return;
    }
    weir_frame_encode(frame, &out->header);
    uint64_t bytes = sizeof out->header;
    out->send.count = count + 1;
    out->send.piece[0] = (struct weir_slice){out->head, 0, sizeof out->header};
    for (uint32_t i = 0; i < count; i++) {
        weir_buf_ref(pieces[i].buf);
        out->send.piece[i + 1] = pieces[i];
        bytes += pieces[i].len;
    }
    out->release = release;
    send(p, out, bytes);
}

bool
peer_send_message(struct peer *p, struct outlet *outlet, const struct weir_frame *frame,
                  const ProtobufCMessage *message, uint64_t release)
{
    struct weir_buf *buf;
    if (weir_message_frame(frame, message, &buf))
        return false;
    struct outgoing *out = outgoing_get(outlet);
    if (!out) {
        weir_buf_unref(buf);
        return false;
    }
    out->send.count = 1;
    out->send.piece[0] = (struct weir_slice){buf, 0, buf->len};
    out->release = release;
    send(p, out, buf->len);
    return true;
}

static void
free_all(struct outgoing *out)
{
    while (out) {
        struct outgoing *next = out->next;
        weir_buf_unref(out->head);
        free(out);
        out = next;
    }
}

void
outlet_fini(struct outlet *outlet)
{
    free_all(outlet->free);
    free_all(atomic_exchange(&outlet->returned, NULL));
    outlet->free = NULL;
}
