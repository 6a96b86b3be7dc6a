/* Connections over NNG streams.
 *
 *   accept or dial -> send our greeting -> receive the peer's -> accepted or dialed
 *     receive -> take messages out -> on_message for each -> receive …
 *     send: what is queued, as many messages as one call can carry -> sent for each -> send …
 *
 * Each direction has one NNG operation under way at most; `receiving` and `sending` say who goes
 * on: the holder of the flag, in the callback of the operation or on the way to starting it.
 * Operations are started and the stream is closed under mtx, so none is started on a closed stream,
 * and closing ends those under way. The end comes when the connection is closed and both flags are
 * down:
 *
 *   closed by anyone -> operations under way come back -> both flags down -> sent(CANCELLED) for
 * the rest -> on_closed -> the last reference frees
 *
 * NNG runs callbacks on its own threads, never inside the call that starts an operation. A callback
 * that has nothing to wait for (a paused connection is closed or resumed) is reached by beginning
 * and finishing the operation ourselves: kick(). */
#include "base/assert.h"
#include "base/checked.h"
#include "transport/conn.h"
#include "transport/nng_status.h"
#include "transport/sp.h"
#include "transport/tls.h"
#include <arpa/inet.h>
#include <nng/nng.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    IOV_MAX_NNG = 8,
    STAGE_BYTES = 16 * 1024,  /* prefixes and small messages of one send call */
    SMALL_BYTES = 2 * 1024,   /* messages up to here are copied to the stage */
    CALL_BYTES = 1024 * 1024, /* no further message joins a call that has so much */
    HANDSHAKES_MAX = 4096,    /* of one listener; more are turned away */
    HANDSHAKE_MS = 5000,
    ACCEPT_RETRY_MS = 100, /* after the machine had no descriptor or memory for another */
    TLS_WATCH_MS = 1000,
    DRAIN_MS = 200,
};
static_assert(WEIR_SEND_PIECES_MAX + 1 == IOV_MAX_NNG, "a message fits into one call");

struct stream_listener {
    nng_stream_listener *nng;
    nng_aio *aio;
    struct weir_transport_options options; /* without the strings */
    weir_accepted accepted;
    void *arg;
    bool is_ipc, is_tls;
    bool retrying; /* the operation under way is a pause; callback only */

    pthread_mutex_t mtx;
    pthread_cond_t idle;
    /* under mtx */
    bool closed;
    struct weir_list handshakes; /* of stream_conn */
    size_t handshake_count;
    size_t accepting; /* callbacks that run */
};

struct stream_dial {
    nng_stream_dialer *nng;
    nng_aio *aio;
    struct weir_transport_options options; /* without the strings */
    weir_dialed dialed;
    void *arg;
    bool is_ipc, is_tls;
    struct weir_clock *clock;
    uint64_t until_us;
};

struct stream_conn {
    struct weir_conn base;
    nng_stream *stream;
    nng_aio *recv_aio, *send_aio;
    nng_aio *timer; /* the handshake's deadline, then the watch over TLS; holds a reference */
    bool is_tls;

    /* whoever receives */
    struct weir_sp sp;
    struct stream_listener *listener; /* until open */
    struct stream_dial *dial;         /* until open */
    struct weir_list node;            /* in listener->handshakes */
    enum weir_status gone;            /* the peer hung up; what it left is being read */

    pthread_mutex_t mtx;
    /* under mtx */
    bool receiving, sending;
    bool kicked;  /* the receiving operation is a kick */
    bool open;    /* the user knows it */
    bool paused;  /* on_message said so */
    bool resumed; /* before on_message came back to say so */
    bool closed, ended;
    enum weir_status why;
    struct weir_list queue, flight; /* of weir_send */
    struct weir_buf *stage;
    nng_iov iov[IOV_MAX_NNG];
    unsigned iov_at, iov_count;
};

static struct stream_conn *
stream_of(struct weir_conn *c)
{
    return WEIR_CONTAINER(c, struct stream_conn, base);
}

static void on_sent(void *arg);
static void on_received(void *arg);

/* ---- the end ---- */

/* under mtx */
static void
close_locked(struct stream_conn *c, enum weir_status why)
{
    if (c->closed)
        return;
    c->closed = true;
    c->why = why;
    nng_stream_close(c->stream);
}

/* under mtx: has the receiving callback run without waiting for the network. */
static void
kick(struct stream_conn *c)
{
    c->receiving = true;
    c->kicked = true;
    if (nng_aio_begin(c->recv_aio))
        nng_aio_finish(c->recv_aio, 0);
}

/* ---- the timer ---- */

/* NNG 1.5.2 forgets operations on a TLS stream whose socket failed while none was under way: they
 * never come back, and their time-outs neither. The socket knows: it has no peer any more. */
static bool
tls_is_gone(const struct stream_conn *c)
{
    nng_sockaddr sa;
    return c->is_tls && nng_stream_get_addr(c->stream, NNG_OPT_REMADDR, &sa) != 0;
}

static void
on_timer(void *arg)
{
    struct stream_conn *c = arg;
    bool is_over = nng_aio_result(c->timer) != 0; /* cancelled */
    pthread_mutex_lock(&c->mtx);
    if (!is_over && !c->closed) {
        if (!c->open)
            close_locked(c, WEIR_TIMEOUT);
        else if (tls_is_gone(c))
            close_locked(c, WEIR_UNAVAILABLE);
    }
    bool goes_on = !is_over && !c->closed && c->is_tls;
    if (goes_on)
        nng_sleep_aio(TLS_WATCH_MS, c->timer);
    if (c->closed && !c->receiving && !c->sending && !c->ended)
        kick(c);
    pthread_mutex_unlock(&c->mtx);
    if (!goes_on)
        weir_conn_drop(&c->base);
}

static void
leave_handshakes(struct stream_listener *l, struct stream_conn *c)
{
    weir_list_remove(&c->node);
    l->handshake_count--;
    pthread_cond_broadcast(&l->idle);
}

static void
dial_free(struct stream_dial *d)
{
    nng_stream_dialer_free(d->nng);
    nng_aio_reap(d->aio);
    free(d);
}

static void
return_sends(struct weir_list *sends, enum weir_status st)
{
    struct weir_list *node;
    while ((node = weir_list_pop_front(sends))) {
        struct weir_send *s = WEIR_CONTAINER(node, struct weir_send, node);
        s->sent(s, st);
    }
}

/* Tells whoever must know that the connection is over. */
static void
end(struct stream_conn *c)
{
    nng_aio_cancel(c->timer);
    return_sends(&c->flight, WEIR_CANCELLED);
    return_sends(&c->queue, WEIR_CANCELLED);
    atomic_store(&c->base.queued_bytes, 0);
    if (c->open) {
        if (c->base.events.on_closed)
            c->base.events.on_closed(c->base.arg, &c->base, c->why);
    } else if (c->dial) {
        c->dial->dialed(c->dial->arg, NULL, c->why);
        dial_free(c->dial);
    } else if (c->listener) {
        struct stream_listener *l = c->listener;
        pthread_mutex_lock(&l->mtx);
        leave_handshakes(l, c);
        pthread_mutex_unlock(&l->mtx);
    }
    weir_conn_drop(&c->base);
}

/* under mtx, which it gives back: the end, if it is time. */
static void
settle(struct stream_conn *c)
{
    bool is_time = c->closed && !c->receiving && !c->sending && !c->ended;
    if (is_time)
        c->ended = true;
    pthread_mutex_unlock(&c->mtx);
    if (is_time)
        end(c);
}

static void
stream_close(struct weir_conn *base, enum weir_status why)
{
    struct stream_conn *c = stream_of(base);
    pthread_mutex_lock(&c->mtx);
    close_locked(c, why);
    if (!c->receiving && !c->sending && !c->ended)
        kick(c);
    pthread_mutex_unlock(&c->mtx);
}

static void
stream_free(struct weir_conn *base)
{
    struct stream_conn *c = stream_of(base);
    pthread_mutex_lock(&c->mtx);
    bool ended = c->ended;
    pthread_mutex_unlock(&c->mtx);
    WEIR_ASSERT(ended);
    /* This may run in a callback of either operation: NNG's reaper waits for it, we do not. */
    nng_stream_free(c->stream);
    nng_aio_reap(c->recv_aio);
    nng_aio_reap(c->send_aio);
    nng_aio_reap(c->timer);
    weir_sp_fini(&c->sp);
    weir_buf_unref(c->stage);
    pthread_mutex_destroy(&c->mtx);
    free(c);
}

/* ---- sending ---- */

/* under mtx */
static void
put_iov(struct stream_conn *c, const uint8_t *data, size_t len)
{
    WEIR_ASSERT(c->iov_count < IOV_MAX_NNG);
    c->iov[c->iov_count++] = (nng_iov){.iov_buf = (void *)(uintptr_t)data, .iov_len = len};
}

static bool
ends_with_stage(const struct stream_conn *c)
{
    return c->iov_count &&
           (uint8_t *)c->iov[c->iov_count - 1].iov_buf + c->iov[c->iov_count - 1].iov_len ==
               c->stage->data + c->stage->len;
}

static void
put_stage(struct stream_conn *c, const uint8_t *data, size_t len)
{
    WEIR_ASSERT(len <= STAGE_BYTES - c->stage->len);
    if (ends_with_stage(c))
        c->iov[c->iov_count - 1].iov_len += len;
    else
        put_iov(c, c->stage->data + c->stage->len, len);
    if (len)
        memcpy(c->stage->data + c->stage->len, data, len);
    c->stage->len += len;
}

/* under mtx: lays the message behind those of this call; false when it does not fit. */
static bool
load(struct stream_conn *c, const struct weir_send *s)
{
    uint8_t prefix[WEIR_SP_PREFIX_BYTES_MAX];
    uint64_t bytes = weir_send_bytes(s);
    size_t prefix_len = weir_sp_prefix(c->sp.is_ipc, bytes, prefix);
    bool is_small = bytes <= SMALL_BYTES;
    unsigned iovs = (ends_with_stage(c) ? 0 : 1) + (is_small ? 0 : s->count);
    size_t staged = prefix_len + (is_small ? (size_t)bytes : 0);
    if (iovs > IOV_MAX_NNG - c->iov_count || staged > STAGE_BYTES - c->stage->len)
        return false;

    put_stage(c, prefix, prefix_len);
    for (uint32_t i = 0; i < s->count; i++) {
        struct weir_bytes piece = weir_slice_bytes(s->piece[i]);
        if (is_small)
            put_stage(c, piece.data, piece.len);
        else if (piece.len)
            put_iov(c, piece.data, piece.len);
    }
    return true;
}

/* under mtx */
static void
submit_iov(struct stream_conn *c)
{
    int rv = nng_aio_set_iov(c->send_aio, c->iov_count - c->iov_at, &c->iov[c->iov_at]);
    WEIR_ASSERT(rv == 0); /* eight entries are within an operation, nothing is allocated */
    nng_stream_send(c->stream, c->send_aio);
}

/* under mtx, with `sending` up: sends what is queued; false when there is nothing. */
static bool
send_queue(struct stream_conn *c)
{
    if (c->closed || weir_list_is_empty(&c->queue))
        return false;
    if (!c->stage) {
        c->stage = weir_buf_new(STAGE_BYTES);
        if (!c->stage) {
            close_locked(c, WEIR_NO_MEMORY);
            return false;
        }
    }
    c->stage->len = 0;
    c->iov_at = c->iov_count = 0;
    uint64_t bytes = 0;
    while (!weir_list_is_empty(&c->queue) && bytes < CALL_BYTES) {
        struct weir_list *node = c->queue.next;
        const struct weir_send *s = WEIR_CONTAINER(node, struct weir_send, node);
        if (!load(c, s))
            break;
        bytes += weir_send_bytes(s);
        weir_list_remove(node);
        weir_list_push_back(&c->flight, node);
    }
    WEIR_ASSERT(!weir_list_is_empty(&c->flight));
    submit_iov(c);
    return true;
}

static void
stream_send(struct weir_conn *base, struct weir_send *s)
{
    struct stream_conn *c = stream_of(base);
    uint64_t bytes = weir_send_bytes(s) + (c->sp.is_ipc ? 9 : 8);
    pthread_mutex_lock(&c->mtx);
    if (c->closed) {
        pthread_mutex_unlock(&c->mtx);
        s->sent(s, WEIR_CANCELLED);
        return;
    }
    weir_list_push_back(&c->queue, &s->node);
    atomic_fetch_add_explicit(&base->queued_bytes, bytes, memory_order_relaxed);
    if (!c->sending) {
        c->sending = send_queue(c);
        if (c->closed && !c->sending && !c->receiving)
            kick(c); /* it had no memory */
    }
    pthread_mutex_unlock(&c->mtx);
}

/* under mtx: passes over bytes that the network took; true when all of the call is out. */
static bool
advance(struct stream_conn *c, size_t taken)
{
    if (c->open)
        atomic_fetch_sub_explicit(&c->base.queued_bytes, taken, memory_order_relaxed);
    while (c->iov_at < c->iov_count && taken >= c->iov[c->iov_at].iov_len)
        taken -= c->iov[c->iov_at++].iov_len;
    if (c->iov_at == c->iov_count) {
        WEIR_ASSERT(taken == 0);
        return true;
    }
    c->iov[c->iov_at].iov_buf = (uint8_t *)c->iov[c->iov_at].iov_buf + taken;
    c->iov[c->iov_at].iov_len -= taken;
    return false;
}

static void receive(struct stream_conn *c);

static void
on_sent(void *arg)
{
    struct stream_conn *c = arg;
    int rv = nng_aio_result(c->send_aio);
    struct weir_list done;
    weir_list_init(&done);

    pthread_mutex_lock(&c->mtx);
    if (rv) {
        close_locked(c, weir_status_from_nng(rv));
    } else if (!advance(c, nng_aio_count(c->send_aio))) {
        if (!c->closed) {
            submit_iov(c);
            pthread_mutex_unlock(&c->mtx);
            return;
        }
    } else {
        struct weir_list *node;
        while ((node = weir_list_pop_front(&c->flight)))
            weir_list_push_back(&done, node);
    }
    if (!c->open) { /* it was our greeting */
        c->sending = false;
        if (!c->closed) {
            c->receiving = true;
            receive(c);
        }
        settle(c);
        return;
    }
    pthread_mutex_unlock(&c->mtx);
    /* Before more is sent, so that `sent` keeps the order of the messages. */
    return_sends(&done, WEIR_OK);

    pthread_mutex_lock(&c->mtx);
    c->sending = send_queue(c);
    if (!c->sending) {
        weir_buf_unref(c->stage);
        c->stage = NULL;
    }
    settle(c);
}

/* ---- receiving ---- */

/* under mtx, with `receiving` up */
static void
receive(struct stream_conn *c)
{
    struct weir_sp_room room[2];
    nng_iov iov[2];
    unsigned count = weir_sp_room(&c->sp, room);
    for (unsigned i = 0; i < count; i++)
        iov[i] = (nng_iov){.iov_buf = room[i].data, .iov_len = room[i].len};
    int rv = nng_aio_set_iov(c->recv_aio, count, iov);
    WEIR_ASSERT(rv == 0);

    nng_aio_set_timeout(c->recv_aio, c->gone ? DRAIN_MS : NNG_DURATION_INFINITE);
    nng_stream_recv(c->stream, c->recv_aio);
}

/* Lowers `receiving` and closes. */
static void
stop_receiving(struct stream_conn *c, enum weir_status why)
{
    pthread_mutex_lock(&c->mtx);
    c->receiving = false;
    close_locked(c, why);
    settle(c);
}

/* The peer hung up. NNG answers so as soon as it hears of it, though bytes that came before may lie
 * in the socket: over ipc a last message and its end arrive together. They are read first. */
static bool
read_what_is_left(struct stream_conn *c, int rv)
{
    bool hung_up = rv == NNG_ECONNSHUT || rv == NNG_ECLOSED;
    pthread_mutex_lock(&c->mtx);
    bool reads = hung_up && c->open && !c->closed && !c->gone && !c->is_tls;
    if (reads) {
        c->gone = weir_status_from_nng(rv);
        receive(c);
    }
    pthread_mutex_unlock(&c->mtx);
    return reads;
}

/* Makes the connection known; false when its listener has closed meanwhile. */
static bool
open_conn(struct stream_conn *c)
{
    struct stream_listener *l = c->listener;
    struct stream_dial *d = c->dial;
    if (l) {
        pthread_mutex_lock(&l->mtx);
        bool closed = l->closed;
        if (!closed) {
            leave_handshakes(l, c);
            l->accepting++;
        }
        pthread_mutex_unlock(&l->mtx);
        if (closed)
            return false;
    }
    pthread_mutex_lock(&c->mtx);
    c->open = true;
    pthread_mutex_unlock(&c->mtx);
    if (!c->is_tls)
        nng_aio_cancel(c->timer);
    c->listener = NULL;
    c->dial = NULL;

    weir_conn_ref(&c->base); /* the callee's */
    if (d) {
        d->dialed(d->arg, &c->base, WEIR_OK);
        dial_free(d);
    } else {
        l->accepted(l->arg, &c->base);
        pthread_mutex_lock(&l->mtx);
        l->accepting--;
        pthread_cond_broadcast(&l->idle);
        pthread_mutex_unlock(&l->mtx);
    }
    return true;
}

/* Gives one message away; false when the callee wants no more for now or the connection is closed,
 * and `receiving` is down. */
static bool
deliver(struct stream_conn *c, struct weir_buf *message)
{
    pthread_mutex_lock(&c->mtx);
    c->resumed = false;
    bool closed = c->closed;
    pthread_mutex_unlock(&c->mtx);
    bool more = true;
    if (closed || !c->base.events.on_message)
        weir_buf_unref(message);
    else
        more = c->base.events.on_message(c->base.arg, &c->base, message);

    pthread_mutex_lock(&c->mtx);
    bool stop = c->closed || (!more && !c->resumed);
    if (stop) {
        c->receiving = false;
        c->paused = !c->closed;
        settle(c);
        return false;
    }
    pthread_mutex_unlock(&c->mtx);
    return true;
}

static void
on_received(void *arg)
{
    struct stream_conn *c = arg;
    pthread_mutex_lock(&c->mtx);
    bool kicked = c->kicked;
    c->kicked = false;
    if (kicked && c->closed) {
        c->receiving = false;
        settle(c);
        return;
    }
    pthread_mutex_unlock(&c->mtx);
    if (!kicked) {
        int rv = nng_aio_result(c->recv_aio);
        if (rv) {
            if (!read_what_is_left(c, rv))
                stop_receiving(c, c->gone ? c->gone : weir_status_from_nng(rv));
            return;
        }
        weir_sp_filled(&c->sp, nng_aio_count(c->recv_aio));
    }

    enum weir_status st = WEIR_OK;
    if (!c->sp.greeted) {
        st = weir_sp_greet(&c->sp);
        if (st == WEIR_OK && !open_conn(c))
            st = WEIR_CANCELLED;
    }
    while (!st) {
        struct weir_buf *message;
        st = weir_sp_next(&c->sp, atomic_load(&c->base.message_max), &message);
        if (!st && !deliver(c, message))
            return;
    }
    if (st != WEIR_AGAIN) {
        stop_receiving(c, st);
        return;
    }
    pthread_mutex_lock(&c->mtx);
    if (c->closed)
        c->receiving = false;
    else
        receive(c);
    settle(c);
}

static void
stream_start(struct weir_conn *base)
{
    struct stream_conn *c = stream_of(base);
    pthread_mutex_lock(&c->mtx);
    if (c->paused && !c->closed) {
        c->paused = false;
        kick(c);
    } else {
        c->resumed = true;
    }
    pthread_mutex_unlock(&c->mtx);
}

/* ---- beginning ---- */

static const struct weir_conn_ops stream_ops = {stream_start, stream_send, stream_close,
                                                stream_free};

static void
name_ipc_peer(nng_stream *stream, char *out, size_t size)
{
    uint64_t pid = 0, uid = 0;
    bool known = nng_stream_get_uint64(stream, NNG_OPT_IPC_PEER_PID, &pid) == 0 &&
                 nng_stream_get_uint64(stream, NNG_OPT_IPC_PEER_UID, &uid) == 0;
    if (known)
        snprintf(out, size, "ipc pid %llu uid %llu", (unsigned long long)pid,
                 (unsigned long long)uid);
    else
        snprintf(out, size, "ipc");
}

static void
name_peer(nng_stream *stream, bool is_ipc, char *out, size_t size)
{
    char text[INET6_ADDRSTRLEN] = "";
    nng_sockaddr sa;
    if (is_ipc) {
        name_ipc_peer(stream, out, size);
    } else if (nng_stream_get_addr(stream, NNG_OPT_REMADDR, &sa) != 0) {
        snprintf(out, size, "tcp");
    } else if (sa.s_family == NNG_AF_INET) {
        inet_ntop(AF_INET, &sa.s_in.sa_addr, text, sizeof text);
        snprintf(out, size, "tcp %s:%u", text, ntohs(sa.s_in.sa_port));
    } else if (sa.s_family == NNG_AF_INET6) {
        inet_ntop(AF_INET6, sa.s_in6.sa_addr, text, sizeof text);
        snprintf(out, size, "tcp [%s]:%u", text, ntohs(sa.s_in6.sa_port));
    }
}

/* Takes `stream`, also on failure. */
static enum weir_status
conn_new(nng_stream *stream, bool is_ipc, bool is_tls, const struct weir_transport_options *options,
         struct stream_conn **out)
{
    struct stream_conn *c = calloc(1, sizeof *c);
    if (!c || nng_aio_alloc(&c->recv_aio, on_received, c) != 0 ||
        nng_aio_alloc(&c->send_aio, on_sent, c) != 0 ||
        nng_aio_alloc(&c->timer, on_timer, c) != 0) {
        if (c) {
            nng_aio_free(c->recv_aio);
            nng_aio_free(c->send_aio);
        }
        free(c);
        nng_stream_free(stream);
        return WEIR_NO_MEMORY;
    }
    weir_conn_init(&c->base, &stream_ops, options);
    pthread_mutex_init(&c->mtx, NULL);
    weir_list_init(&c->queue);
    weir_list_init(&c->flight);
    c->stream = stream;
    c->is_tls = is_tls;
    c->sending = true; /* until our greeting is out */
    c->sp.is_ipc = is_ipc;
    name_peer(stream, is_ipc, c->base.peer, sizeof c->base.peer);
    *out = c;
    return WEIR_OK;
}

/* Sends our greeting; the rest follows from callbacks. */
static void
begin_handshake(struct stream_conn *c, uint64_t within_ms)
{
    pthread_mutex_lock(&c->mtx);
    if (c->closed) { /* with its listener */
        c->sending = false;
        settle(c);
        return;
    }
    weir_conn_hold(&c->base); /* the timer's */
    nng_sleep_aio((nng_duration)within_ms, c->timer);
    put_iov(c, weir_sp_greeting, sizeof weir_sp_greeting);
    submit_iov(c);
    pthread_mutex_unlock(&c->mtx);
}

static struct weir_transport_options
own_options(const struct weir_transport_options *options)
{
    struct weir_transport_options own = *options;
    own.tls_certificate = own.tls_key = own.tls_ca = NULL;
    if (!own.handshake_ms)
        own.handshake_ms = HANDSHAKE_MS;
    return own;
}

static bool
url_is_ipc(const char *url)
{
    return weir_url_rest(url, "ipc") || weir_url_rest(url, "abstract");
}

/* ---- listening ---- */

static void
accept_next(struct stream_listener *l, bool after_a_pause)
{
    pthread_mutex_lock(&l->mtx);
    l->retrying = after_a_pause;
    if (!l->closed) {
        if (after_a_pause)
            nng_sleep_aio(ACCEPT_RETRY_MS, l->aio);
        else
            nng_stream_listener_accept(l->nng, l->aio);
    }
    pthread_mutex_unlock(&l->mtx);
}

static void
take_stream(struct stream_listener *l, nng_stream *stream)
{
    struct stream_conn *c;
    if (conn_new(stream, l->is_ipc, l->is_tls, &l->options, &c))
        return;
    pthread_mutex_lock(&l->mtx);
    bool refused = l->closed || l->handshake_count == HANDSHAKES_MAX;
    if (!refused) {
        c->listener = l;
        weir_list_push_back(&l->handshakes, &c->node);
        l->handshake_count++;
    }
    pthread_mutex_unlock(&l->mtx);
    if (refused) {
        c->ended = true;
        weir_conn_drop(&c->base);
        return;
    }
    begin_handshake(c, l->options.handshake_ms);
}

static void
on_accepted(void *arg)
{
    struct stream_listener *l = arg;
    int rv = nng_aio_result(l->aio);
    if (rv == NNG_ECLOSED || rv == NNG_ECANCELED)
        return;
    bool had_pause = l->retrying;
    if (rv == 0 && !had_pause)
        take_stream(l, nng_aio_get_output(l->aio, 0));
    bool is_short = rv == NNG_ENOFILES || rv == NNG_ENOMEM;
    accept_next(l, is_short && !had_pause);
}

/* Fills in the port that the kernel chose. */
static void
real_address(nng_stream_listener *nng, const char *url, char *out)
{
    snprintf(out, WEIR_URL_BYTES_MAX, "%s", url);
    const char *colon = strrchr(url, ':');
    nng_sockaddr sa;
    int port = 0;
    if (url_is_ipc(url) || !colon || strcmp(colon, ":0") != 0)
        return;
    if (nng_stream_listener_get_int(nng, NNG_OPT_TCP_BOUND_PORT, &port) != 0 &&
        nng_stream_listener_get_addr(nng, NNG_OPT_LOCADDR, &sa) == 0)
        port = ntohs(sa.s_family == NNG_AF_INET6 ? sa.s_in6.sa_port : sa.s_in.sa_port);
    snprintf(out, WEIR_URL_BYTES_MAX, "%.*s:%d", (int)(colon - url), url, port);
}

static void
listener_free(struct stream_listener *l)
{
    nng_stream_listener_free(l->nng);
    nng_aio_free(l->aio);
    pthread_cond_destroy(&l->idle);
    pthread_mutex_destroy(&l->mtx);
    free(l);
}

enum weir_status
weir_stream_listen(const char *url, const struct weir_transport_options *options,
                   weir_accepted accepted, void *arg, void **out, char *url_out,
                   struct weir_error *err)
{
    struct stream_listener *l = calloc(1, sizeof *l);
    if (!l)
        return weir_fail(err, WEIR_NO_MEMORY, "no memory to listen on '%s'", url);
    *l = (struct stream_listener){.options = own_options(options),
                                  .accepted = accepted,
                                  .arg = arg,
                                  .is_ipc = url_is_ipc(url),
                                  .is_tls = weir_url_rest(url, "tls+tcp") != NULL};
    pthread_mutex_init(&l->mtx, NULL);
    pthread_cond_init(&l->idle, NULL);
    weir_list_init(&l->handshakes);

    enum weir_status st;
    int rv = nng_aio_alloc(&l->aio, on_accepted, l);
    if (!rv)
        rv = nng_stream_listener_alloc(&l->nng, url);
    if (!rv && l->is_tls) {
        st = weir_tls_listener(l->nng, options, err);
        if (st)
            goto failed;
    }
    if (!rv && !l->is_ipc) /* not every kind of stream knows it; then it is on or does not apply */
        (void)nng_stream_listener_set_bool(l->nng, NNG_OPT_TCP_NODELAY, true);
    if (!rv)
        rv = nng_stream_listener_listen(l->nng);
    if (rv) {
        st = weir_fail(err, weir_status_from_nng(rv), "cannot listen on '%s': %s", url,
                       nng_strerror(rv));
        goto failed;
    }
    real_address(l->nng, url, url_out);
    accept_next(l, false);
    *out = l;
    return WEIR_OK;

failed:
    listener_free(l);
    return st;
}

void
weir_stream_listener_close(void *listener)
{
    struct stream_listener *l = listener;
    pthread_mutex_lock(&l->mtx);
    l->closed = true;
    pthread_mutex_unlock(&l->mtx);
    nng_stream_listener_close(l->nng);
    nng_aio_stop(l->aio);

    pthread_mutex_lock(&l->mtx);
    WEIR_LIST_FOR_EACH (node, &l->handshakes)
        stream_close(&WEIR_CONTAINER(node, struct stream_conn, node)->base, WEIR_CANCELLED);
    while (l->accepting || l->handshake_count)
        pthread_cond_wait(&l->idle, &l->mtx);
    pthread_mutex_unlock(&l->mtx);
    listener_free(l);
}

/* ---- dialing ---- */

static void
on_dialed(void *arg)
{
    struct stream_dial *d = arg;
    struct stream_conn *c = NULL;
    int rv = nng_aio_result(d->aio);
    enum weir_status st = weir_status_from_nng(rv);
    if (!rv)
        st = conn_new(nng_aio_get_output(d->aio, 0), d->is_ipc, d->is_tls, &d->options, &c);
    if (st) {
        d->dialed(d->arg, NULL, st);
        dial_free(d);
        return;
    }
    uint64_t left_us = 0;
    (void)!weir_sub_u64(d->until_us, weir_mono_us(d->clock), &left_us);
    c->dial = d;
    begin_handshake(c, left_us / 1000);
}

enum weir_status
weir_stream_dial(struct weir_sys *sys, const char *url,
                 const struct weir_transport_options *options, weir_dialed dialed, void *arg,
                 struct weir_error *err)
{
    struct stream_dial *d = calloc(1, sizeof *d);
    if (!d)
        return weir_fail(err, WEIR_NO_MEMORY, "no memory to dial '%s'", url);
    *d = (struct stream_dial){.clock = sys->clock,
                              .options = own_options(options),
                              .dialed = dialed,
                              .arg = arg,
                              .is_ipc = url_is_ipc(url),
                              .is_tls = weir_url_rest(url, "tls+tcp") != NULL};
    enum weir_status st;
    int rv = nng_aio_alloc(&d->aio, on_dialed, d);
    if (!rv)
        rv = nng_stream_dialer_alloc(&d->nng, url);
    if (rv) {
        st =
            weir_fail(err, weir_status_from_nng(rv), "cannot dial '%s': %s", url, nng_strerror(rv));
        goto failed;
    }
    if (d->is_tls) {
        st = weir_tls_dialer(d->nng, url, options, err);
        if (st)
            goto failed;
    }
    if (!d->is_ipc)
        (void)nng_stream_dialer_set_bool(d->nng, NNG_OPT_TCP_NODELAY, true);
    d->until_us = weir_mono_us(sys->clock) + d->options.handshake_ms * UINT64_C(1000);
    nng_aio_set_timeout(d->aio, (nng_duration)d->options.handshake_ms);
    nng_stream_dialer_dial(d->nng, d->aio);
    return WEIR_OK;

failed:
    nng_stream_dialer_free(d->nng);
    nng_aio_free(d->aio);
    free(d);
    return st;
}
