/* One connection.
 *
 *   accepted ──> PEER_GREETING ──HELLO is good: WELCOME──> PEER_LIVE ──> PEER_CLOSED
 *                     └── 5 s without HELLO, or a bad one: REFUSE ──────────^
 *
 * Frames come on a thread of the transport, which looks at the header and hands over: what has a
 * channel to the owner that the channel names, the rest to the control loop. A frame's bytes are
 * held until it is done with; over the limit the connection is not read until some are released. An
 * answer that the client does not fetch counts as not done with, so questions without end cannot
 * fill memory.
 *
 * A refused client closes by itself: closing first could lose it the reason. It has until its HELLO
 * was due. Nothing is read behind HELLO until it was answered, so all that comes later finds a peer
 * that is known. */
#include "native/inside.h"
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define HEARTBEAT_MS_MIN 100
#define HEARTBEAT_MS_MAX 60000
/* Intakes that a peer keeps for reuse. */
#define KEEP_MAX 256

/* ---- life ---- */

struct peer *
peer_ref(struct peer *p)
{
    atomic_fetch_add_explicit(&p->refs, 1, memory_order_relaxed);
    return p;
}

static void
free_intakes(struct intake *in)
{
    while (in) {
        struct intake *next = in->next;
        free(in);
        in = next;
    }
}

static void
run_free(struct weir_task *task)
{
    struct peer *p = WEIR_CONTAINER(task, struct peer, free_task);
    struct weir_native *n = p->native;
    weir_conn_unref(p->conn);
    free_intakes(p->free);
    free_intakes(atomic_load(&p->returned));
    free(p);
    pthread_mutex_lock(&n->mtx);
    n->alive--;
    pthread_cond_broadcast(&n->changed);
    pthread_mutex_unlock(&n->mtx);
}

void
peer_unref(struct peer *p)
{
    if (atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) > 1)
        return;
    p->free_task.run = run_free;
    weir_loop_post(p->native->loop, &p->free_task);
}

void
peer_break(struct peer *p, const char *fmt, ...)
{
    if (atomic_exchange(&p->broke, true))
        return;
    char text[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    weir_service_log(p->native->service, 4, "closing the connection of %s: %s",
                     weir_conn_peer(p->conn), text);
    weir_conn_close(p->conn);
}

/* ---- intake ---- */

static struct intake *
intake_get(struct peer *p)
{
    if (!p->free)
        p->free = atomic_exchange_explicit(&p->returned, NULL, memory_order_acquire);
    struct intake *in = p->free;
    if (in) {
        p->free = in->next;
        return in;
    }
    in = calloc(1, sizeof *in);
    if (in)
        atomic_fetch_add_explicit(&p->intakes, 1, memory_order_relaxed);
    return in;
}

void
intake_return(struct intake *in)
{
    struct peer *p = in->peer;
    weir_buf_unref(in->message);
    in->message = NULL;
    if (atomic_load_explicit(&p->intakes, memory_order_relaxed) > KEEP_MAX) {
        atomic_fetch_sub_explicit(&p->intakes, 1, memory_order_relaxed);
        free(in);
        peer_unref(p);
        return;
    }
    struct intake *top = atomic_load_explicit(&p->returned, memory_order_relaxed);
    do
        in->next = top;
    while (!atomic_compare_exchange_weak_explicit(&p->returned, &top, in, memory_order_release,
                                                  memory_order_relaxed));
    peer_unref(p);
}

void
peer_release(struct peer *p, uint64_t bytes)
{
    uint64_t before = atomic_fetch_sub(&p->held_bytes, bytes);
    WEIR_ASSERT(before >= bytes);
    if (before - bytes <= p->native->options.intake_bytes_max / 2 &&
        atomic_exchange(&p->paused, false))
        weir_conn_resume(p->conn);
}

/* Holds the bytes; false where the peer is to be read no further for now. */
static bool
hold(struct peer *p, uint64_t bytes, bool pause)
{
    uint64_t limit = p->native->options.intake_bytes_max;
    uint64_t now = atomic_fetch_add(&p->held_bytes, bytes) + bytes;
    if (now <= limit && !pause)
        return true;
    atomic_store(&p->paused, true);
    return false;
}

/* Pausing and releasing cross: whoever takes the mark back reads on. */
static bool
still_paused(struct peer *p)
{
    if (atomic_load(&p->held_bytes) > p->native->options.intake_bytes_max / 2)
        return true;
    return !atomic_exchange(&p->paused, false);
}

static void run_control(struct weir_task *task);

/* Where a frame goes; NULL: the peer was broken. */
static struct weir_loop *
route(struct peer *p, struct intake *in)
{
    struct weir_native *n = p->native;
    uint32_t owner;
    switch (in->frame.kind) {
    case WEIR_FRAME_HELLO:
    case WEIR_FRAME_CALL:
    case WEIR_FRAME_PING:
        in->task.run = run_control;
        return n->loop;
    case WEIR_FRAME_PRODUCE:
    case WEIR_FRAME_CREDIT:
        owner = weir_channel_owner(in->frame.channel);
        if (owner >= n->owner_count) {
            peer_break(p, "channel %" PRIu32 " was never opened", in->frame.channel);
            return NULL;
        }
        in->task.run = channel_frame;
        return n->owners[owner].owner->loop;
    default:
        peer_break(p, "a frame of kind %d is not a client's", (int)in->frame.kind);
        return NULL;
    }
}

static bool
on_message(void *arg, struct weir_conn *conn, struct weir_buf *message)
{
    struct peer *p = arg;
    struct weir_frame frame;
    (void)conn;
    atomic_store_explicit(&p->heard_us, weir_mono_us(p->native->sys->clock), memory_order_relaxed);
    enum weir_status st = weir_frame_decode(weir_buf_bytes(message), &frame);
    bool first = !p->greeted;
    p->greeted = true;
    if (st)
        peer_break(p, "a frame of %zu bytes is %s", message->len, weir_status_text(st));
    else if (first != (frame.kind == WEIR_FRAME_HELLO))
        peer_break(p, first ? "its first frame is not HELLO" : "it says HELLO twice");
    else if (frame.kind == WEIR_FRAME_BYE)
        weir_conn_close(p->conn);
    else if (frame.kind != WEIR_FRAME_PONG)
        goto hand_over;
    weir_buf_unref(message);
    return st == WEIR_OK && frame.kind == WEIR_FRAME_PONG;

hand_over:;
    struct intake *in = intake_get(p);
    if (!in) {
        peer_break(p, "no memory for a frame");
        weir_buf_unref(message);
        return false;
    }
    in->peer = peer_ref(p);
    in->message = message;
    in->frame = frame;
    in->held = message->len + INTAKE_OVERHEAD;
    if (frame.kind == WEIR_FRAME_CALL)
        in->held = message->len * CALL_BYTES_FACTOR + CALL_OVERHEAD;
    in->channel = NULL;
    struct weir_loop *loop = route(p, in);
    if (!loop) {
        intake_return(in);
        return false;
    }
    /* Behind HELLO nothing is read until the control loop says so. */
    bool go_on = hold(p, in->held, first);
    weir_loop_post(loop, &in->task); /* `in` is not ours any more */
    return first ? false : go_on || !still_paused(p);
}

/* ---- the control loop's part ---- */

/* The connection stays in PEER_GREETING: its timer ends it, if the client does not. */
static void
refuse(struct peer *p, enum weir_status st, const char *text)
{
    Weir__Refusal refusal = WEIR__REFUSAL__INIT;
    refusal.status = st;
    refusal.text = (char *)(uintptr_t)text;
    struct weir_frame frame = {.kind = WEIR_FRAME_REFUSE};
    weir_service_log(p->native->service, 5, "refusing %s: %s", weir_conn_peer(p->conn), text);
    atomic_store(&p->broke, true);
    if (!peer_send_message(p, &p->native->outlet, &frame, &refusal.base, 0))
        weir_conn_close(p->conn);
}

static void
welcome(struct peer *p, uint32_t version)
{
    struct weir_native *n = p->native;
    Weir__Welcome w = WEIR__WELCOME__INIT;
    w.version = version;
    w.broker = n->broker;
    w.frame_bytes_max = n->options.frame_bytes_max;
    w.heartbeat_ms = p->heartbeat_ms;
    w.dead_after_ms = p->dead_after_ms;
    w.now_ms = weir_loop_now_ms(n->loop);
    w.data_id = (char *)(uintptr_t)weir_service_data_id(n->service);
    struct weir_frame frame = {.kind = WEIR_FRAME_WELCOME};
    if (!peer_send_message(p, &n->outlet, &frame, &w.base, 0))
        peer_break(p, "no memory for a frame");
}

static void
on_hello(struct peer *p, const struct weir_frame *frame)
{
    struct weir_native *n = p->native;
    ProtobufCMessage *message;
    enum weir_status st = weir_message_unpack(&weir__hello__descriptor, frame->body, &message);
    if (st) {
        peer_break(p, "its HELLO is %s", weir_status_text(st));
        return;
    }
    const Weir__Hello *hello = (const Weir__Hello *)message;
    uint32_t version = hello->version < WEIR_WIRE_VERSION ? hello->version : WEIR_WIRE_VERSION;
    uint32_t asked = hello->heartbeat_ms ? hello->heartbeat_ms : n->options.heartbeat_ms;
    snprintf(p->client, sizeof p->client, "%s", hello->client ? hello->client : "");
    char text[128];
    if (version < 1 || version < hello->version_min) {
        snprintf(text, sizeof text,
                 "the client speaks wire versions %" PRIu32 " to %" PRIu32 ", the broker 1 to %d",
                 hello->version_min, hello->version, WEIR_WIRE_VERSION);
        weir_message_free(message);
        refuse(p, WEIR_UNSUPPORTED, text);
        return;
    }
    weir_message_free(message);
    p->heartbeat_ms = asked < HEARTBEAT_MS_MIN   ? HEARTBEAT_MS_MIN
                      : asked > HEARTBEAT_MS_MAX ? HEARTBEAT_MS_MAX
                                                 : asked;
    p->dead_after_ms = n->options.dead_after_ms;
    if (p->dead_after_ms < 3 * p->heartbeat_ms)
        p->dead_after_ms = 3 * p->heartbeat_ms;
    p->state = PEER_LIVE;
    weir_timer_start(n->loop, &p->timer, (uint64_t)p->heartbeat_ms * 1000);
    weir_service_log(n->service, 7, "%s is '%s'", weir_conn_peer(p->conn), p->client);
    weir_conn_set_limit(p->conn);
    welcome(p, version);
    atomic_store(&p->paused, false);
    weir_conn_resume(p->conn);
}

static void
run_control(struct weir_task *task)
{
    struct intake *in = WEIR_CONTAINER(task, struct intake, task);
    struct peer *p = in->peer;
    uint64_t held = in->held;
    if (p->state == PEER_CLOSED || atomic_load(&p->broke)) {
        peer_release(p, held);
    } else if (in->frame.kind == WEIR_FRAME_HELLO) {
        on_hello(p, &in->frame);
        peer_release(p, held);
    } else if (in->frame.kind == WEIR_FRAME_PING) {
        struct weir_frame pong = {.kind = WEIR_FRAME_PONG, .value = in->frame.value};
        peer_send(p, &p->native->outlet, &pong, NULL, 0, held);
    } else {
        call_begin(p, &in->frame, held);
    }
    intake_return(in);
}

static void
on_timer(struct weir_timer *timer)
{
    struct peer *p = WEIR_CONTAINER(timer, struct peer, timer);
    struct weir_native *n = p->native;
    uint64_t now_us = weir_mono_us(n->sys->clock);
    uint64_t heard_us = atomic_load_explicit(&p->heard_us, memory_order_relaxed);
    uint64_t progress_us = atomic_load_explicit(&p->progress_us, memory_order_relaxed);
    uint64_t silent_us = now_us > heard_us ? now_us - heard_us : 0;
    uint64_t blocked_us = now_us > progress_us ? now_us - progress_us : 0;
    if (atomic_load(&p->broke)) {
        weir_conn_close(p->conn); /* it did not fetch its refusal */
        return;
    }
    if (p->state == PEER_GREETING) {
        peer_break(p, "no HELLO within %" PRIu32 " ms", n->options.hello_ms);
        return;
    }
    /* One that we do not read cannot be heard. */
    if (silent_us >= (uint64_t)p->dead_after_ms * 1000 && !atomic_load(&p->paused)) {
        peer_break(p, "nothing heard for %" PRIu64 " ms", silent_us / 1000);
        return;
    }
    if (atomic_load_explicit(&p->unsent_bytes, memory_order_relaxed) &&
        blocked_us >= (uint64_t)n->options.blocked_ms * 1000) {
        peer_break(p, "it fetched nothing for %" PRIu64 " ms", blocked_us / 1000);
        return;
    }
    /* A peer that fetches nothing does not need more pings. */
    if (blocked_us < 2000 * (uint64_t)p->heartbeat_ms ||
        !atomic_load_explicit(&p->unsent_bytes, memory_order_relaxed)) {
        struct weir_frame ping = {.kind = WEIR_FRAME_PING, .value = now_us};
        peer_send(p, &n->outlet, &ping, NULL, 0, 0);
    }
    weir_timer_start(n->loop, &p->timer, (uint64_t)p->heartbeat_ms * 1000);
}

static void
run_closed(struct weir_task *task)
{
    struct peer *p = WEIR_CONTAINER(task, struct peer, closed_task);
    struct weir_native *n = p->native;
    p->state = PEER_CLOSED;
    weir_timer_stop(n->loop, &p->timer);
    weir_list_remove(&p->node);
    atomic_fetch_sub(&n->connected, 1);
    weir_metric_add(n->metrics, WEIR_METRIC_CONNECTIONS, -1);
    weir_metric_add(n->metrics, WEIR_METRIC_CONNECTIONS_REFUSED, atomic_load(&p->broke));
    weir_service_log(n->service, 7, "%s is gone: %s", weir_conn_peer(p->conn),
                     weir_status_text(p->why));
    for (uint32_t i = 0; i < n->owner_count; i++) {
        peer_ref(p);
        p->at[i].close_task.run = channels_close;
        weir_loop_post(n->owners[i].owner->loop, &p->at[i].close_task);
    }
    peer_unref(p); /* the connection's */
}

static void
on_closed(void *arg, struct weir_conn *conn, enum weir_status why)
{
    struct peer *p = arg;
    (void)conn;
    p->why = why;
    p->closed_task.run = run_closed;
    weir_loop_post(p->native->loop, &p->closed_task);
}

static void
run_accept(struct weir_task *task)
{
    struct peer *p = WEIR_CONTAINER(task, struct peer, accept_task);
    struct weir_native *n = p->native;
    weir_list_push_back(&n->peers, &p->node);
    uint32_t connected = atomic_fetch_add(&n->connected, 1) + 1;
    weir_metric_add(n->metrics, WEIR_METRIC_CONNECTIONS, 1);
    weir_metric_add(n->metrics, WEIR_METRIC_CONNECTIONS_ACCEPTED, 1);
    weir_timer_start(n->loop, &p->timer, (uint64_t)n->options.hello_ms * 1000);
    if (n->closing || connected > 2 * n->options.connections_max)
        weir_conn_close(p->conn);
    else if (n->draining)
        refuse(p, WEIR_UNAVAILABLE, "the broker is shutting down");
    else if (connected > n->options.connections_max)
        refuse(p, WEIR_AGAIN, "the broker has as many connections as it may have");
}

static bool
drop_message(void *arg, struct weir_conn *conn, struct weir_buf *message)
{
    (void)arg;
    (void)conn;
    weir_buf_unref(message);
    return false;
}

static void
ignore_closed(void *arg, struct weir_conn *conn, enum weir_status why)
{
    (void)arg;
    (void)conn;
    (void)why;
}

void
peer_accepted(void *arg, struct weir_conn *conn)
{
    static const struct weir_conn_events events = {on_message, on_closed};
    static const struct weir_conn_events nobody = {drop_message, ignore_closed};
    struct weir_native *n = arg;
    struct peer *p = calloc(1, sizeof *p + n->owner_count * sizeof p->at[0]);
    if (!p) {
        weir_conn_set_events(conn, &nobody, NULL);
        weir_conn_unref(conn);
        return;
    }
    p->native = n;
    p->conn = conn;
    p->id = atomic_fetch_add(&n->next_peer, 1);
    atomic_init(&p->refs, 1);
    uint64_t now_us = weir_mono_us(n->sys->clock);
    atomic_init(&p->heard_us, now_us);
    atomic_init(&p->progress_us, now_us);
    p->timer.run = on_timer;
    for (uint32_t i = 0; i < n->owner_count; i++) {
        p->at[i].peer = p;
        p->at[i].owner = &n->owners[i];
        weir_list_init(&p->at[i].channels);
    }
    pthread_mutex_lock(&n->mtx);
    n->alive++;
    pthread_mutex_unlock(&n->mtx);
    p->accept_task.run = run_accept;
    weir_loop_post(n->loop, &p->accept_task);
    weir_conn_set_events(conn, &events, p);
}
