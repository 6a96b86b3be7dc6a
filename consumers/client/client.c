/* The connection.
 *
 * 1. weir_client_open makes a loop with a thread and dials.
 * 2. HELLO, WELCOME: both know the version, the limits and how often the other is heard.
 * 3. Frames that arrive are put into the link's inbox by the transport's thread and taken apart on
 * the loop: replies go to their calls, the rest to their channels.
 * 4. When the connection is lost, members are told, bound calls fail, the others wait; after a
 * back-off it is made again.
 *
 * A link is one attempt with one connection. It outlives the client where the transport still holds
 * it (a dial cannot be taken back), so the client lets go of it under the link's lock. */
#include "client/client.h"
#include "base/assert.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum {
    INBOX_BYTES_MAX = 64 * 1024 * 1024, /* beyond, the transport reads no more until we caught up */
    HANDSHAKE_MS = 10000,
    REDIAL_BASE_US = 50 * 1000,
    REDIAL_LIMIT_US = 5 * 1000 * 1000,
    DRAIN_US = 10 * 1000 * 1000,
    HEARTBEAT_DEFAULT_MS = 5000,
};

struct weir_link {
    atomic_uint refs;
    struct weir_sys sys;
    pthread_mutex_t mtx;

    /* shared, under mtx */
    struct weir_client *client; /* NULL: it let go */
    struct weir_conn *conn;
    struct weir_buf **inbox;
    size_t count, capacity, bytes;
    bool paused, dialed, closed;
    enum weir_status why;
};

static void
link_unref(struct weir_link *link)
{
    if (atomic_fetch_sub_explicit(&link->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (size_t i = 0; i < link->count; i++)
        weir_buf_unref(link->inbox[i]);
    free(link->inbox);
    pthread_mutex_destroy(&link->mtx);
    free(link);
}

/* With link->mtx, so that the client cannot let go and be freed in between. */
static void
link_wake(struct weir_link *link)
{
    if (link->client)
        weir_loop_post(link->client->loop, &link->client->link_task);
}

static bool
link_keep(struct weir_link *link, struct weir_buf *message)
{
    if (link->count == link->capacity) {
        size_t capacity = link->capacity ? 2 * link->capacity : 64;
        struct weir_buf **inbox = realloc(link->inbox, capacity * sizeof(struct weir_buf *));
        if (!inbox)
            return false;
        link->inbox = inbox;
        link->capacity = capacity;
    }
    link->inbox[link->count++] = message;
    link->bytes += message->len;
    return true;
}

static bool
on_message(void *arg, struct weir_conn *conn, struct weir_buf *message)
{
    struct weir_link *link = arg;
    pthread_mutex_lock(&link->mtx);
    bool kept = link->client && !link->closed && link_keep(link, message);
    bool go_on = link->bytes < INBOX_BYTES_MAX;
    link->paused = kept && !go_on;
    if (kept)
        link_wake(link);
    pthread_mutex_unlock(&link->mtx);
    if (!kept) {
        weir_buf_unref(message);
        weir_conn_close(conn);
        return true;
    }
    return go_on;
}

static void
on_closed(void *arg, struct weir_conn *conn, enum weir_status why)
{
    struct weir_link *link = arg;
    pthread_mutex_lock(&link->mtx);
    link->closed = true;
    link->why = why;
    link->conn = NULL;
    link_wake(link);
    pthread_mutex_unlock(&link->mtx);
    weir_conn_unref(conn);
    link_unref(link);
}

static void
on_dialed(void *arg, struct weir_conn *conn, enum weir_status st)
{
    static const struct weir_conn_events events = {on_message, on_closed};
    struct weir_link *link = arg;
    if (st == WEIR_OK) {
        weir_conn_ref(conn); /* for the use below: on_closed may come at once */
        weir_conn_set_events(conn, &events, link);
    }
    pthread_mutex_lock(&link->mtx);
    link->dialed = true;
    if (st) {
        link->closed = true;
        link->why = st;
    } else if (!link->closed) {
        link->conn = conn;
    }
    bool wanted = link->client != NULL;
    link_wake(link);
    pthread_mutex_unlock(&link->mtx);
    if (st) {
        link_unref(link);
        return;
    }
    if (!wanted)
        weir_conn_close(conn);
    weir_conn_unref(conn);
}

/* A reference to the connection, or NULL: not there yet, or closed. */
static struct weir_conn *
link_conn(struct weir_link *link)
{
    pthread_mutex_lock(&link->mtx);
    struct weir_conn *conn = link->conn ? weir_conn_ref(link->conn) : NULL;
    pthread_mutex_unlock(&link->mtx);
    return conn;
}

/* ---- sending ---- */

struct outgoing {
    struct weir_send send;
    struct weir_buf *head, *body;
};

static void
on_sent(struct weir_send *send, enum weir_status st)
{
    (void)st; /* a connection that failed says so through on_closed */
    struct outgoing *out = WEIR_CONTAINER(send, struct outgoing, send);
    weir_buf_unref(out->head);
    weir_buf_unref(out->body);
    free(out);
}

/* Takes both references. */
static bool
send_pieces(struct weir_client *c, struct weir_buf *head, struct weir_buf *body)
{
    struct outgoing *out = calloc(1, sizeof *out);
    if (!out || !head) {
        free(out);
        weir_buf_unref(head);
        weir_buf_unref(body);
        weir_client_drop(c, "out of memory");
        return false;
    }
    out->head = head;
    out->body = body;
    out->send.sent = on_sent;
    out->send.piece[out->send.count++] = (struct weir_slice){head, 0, head->len};
    if (body)
        out->send.piece[out->send.count++] = (struct weir_slice){body, 0, body->len};

    struct weir_conn *conn = link_conn(c->link);
    if (!conn) { /* closed, and we shall hear of it */
        on_sent(&out->send, WEIR_CANCELLED);
        return true;
    }
    weir_conn_send(conn, &out->send);
    weir_conn_unref(conn);
    return true;
}

bool
weir_client_send(struct weir_client *c, const struct weir_frame *head, struct weir_buf *body)
{
    if (c->state < WEIR_CLIENT_GREETING)
        return false;
    struct weir_buf *buf = weir_buf_new(sizeof(struct weir_frame_header));
    if (buf) {
        struct weir_frame_header h;
        weir_frame_encode(head, &h);
        memcpy(buf->data, &h, sizeof h);
        buf->len = sizeof h;
    }
    return send_pieces(c, buf, body ? weir_buf_ref(body) : NULL);
}

/* ---- the state of the connection ---- */

uint64_t
weir_backoff_us(struct weir_client *c, uint32_t failures, uint64_t base_us, uint64_t limit_us)
{
    uint64_t span = base_us << (failures < 16 ? failures : 16);
    if (span > limit_us)
        span = limit_us;
    return span / 2 + weir_random_below(&c->random, span / 2 + 1);
}

static void
let_link_go(struct weir_client *c)
{
    struct weir_link *link = c->link;
    if (!link)
        return;
    c->link = NULL;
    pthread_mutex_lock(&link->mtx);
    link->client = NULL;
    pthread_mutex_unlock(&link->mtx);
    struct weir_conn *conn = link_conn(link);
    if (conn) {
        weir_conn_close(conn);
        weir_conn_unref(conn);
    }
    link_unref(link);
}

static void
finish_call(struct weir_call *call, enum weir_status st, Weir__Reply *reply, const char *text)
{
    weir_call_cancel(call);
    call->done(call, st, reply, text);
}

/* Calls of the lost connection: the bound ones fail, those whose outcome matters are UNKNOWN, the
 * others wait for the next one. */
static void
unsend_calls(struct weir_client *c, const char *why)
{
    char text[512];
    struct weir_list failed;
    weir_list_init(&failed);
    WEIR_LIST_FOR_EACH_SAFE (node, &c->calls) {
        struct weir_call *call = WEIR_CONTAINER(node, struct weir_call, node);
        if (call->mode == WEIR_CALL_BOUND || (call->mode == WEIR_CALL_ONCE && call->sent)) {
            weir_list_remove(node);
            weir_list_push_back(&failed, node);
        } else if (call->sent) {
            weir_map_take(&c->calls_sent, call->number);
            call->sent = false;
        }
    }
    for (struct weir_list *node; !weir_list_is_empty(&failed);) {
        node = failed.next;
        struct weir_call *call = WEIR_CONTAINER(node, struct weir_call, node);
        bool once = call->mode == WEIR_CALL_ONCE;
        snprintf(text, sizeof text, "connection lost before the answer came: %s", why);
        finish_call(call, once ? WEIR_UNKNOWN : WEIR_UNAVAILABLE, NULL, text);
    }
}

static void
go_down(struct weir_client *c, const char *why)
{
    bool was_up = c->state == WEIR_CLIENT_UP;
    let_link_go(c);
    c->state = WEIR_CLIENT_DOWN;
    c->draining = false;
    c->unanswered = 0;
    weir_timer_stop(c->loop, &c->heartbeat);

    pthread_mutex_lock(&c->mtx);
    c->is_up = false;
    snprintf(c->why, sizeof c->why, "%s", why);
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->mtx);

    if (was_up) {
        /* The broker's channels are gone; members find theirs closed. */
        weir_map_fini(&c->channels);
        weir_map_init(&c->channels, c->sys.seed);
        WEIR_LIST_FOR_EACH (node, &c->members) {
            struct weir_member *m = WEIR_CONTAINER(node, struct weir_member, node);
            m->down(m, why);
        }
        unsend_calls(c, why);
        if (c->on_connection && !c->closing)
            c->on_connection(c->arg, false, why);
    }
    if (!c->closing)
        weir_timer_start(c->loop, &c->redial,
                         weir_backoff_us(c, c->failures++, REDIAL_BASE_US, REDIAL_LIMIT_US));
}

void
weir_client_drop(struct weir_client *c, const char *why)
{
    /* Not at once: callers stand in the middle of something. The transport tells on_closed. */
    if (!c->link)
        return;
    if (!c->dropped[0])
        snprintf(c->dropped, sizeof c->dropped, "%s", why);
    struct weir_conn *conn = link_conn(c->link);
    if (conn) {
        weir_conn_close(conn);
        weir_conn_unref(conn);
    }
}

static void
dial(struct weir_client *c)
{
    struct weir_link *link = calloc(1, sizeof *link);
    if (!link) {
        go_down(c, "out of memory");
        return;
    }
    atomic_init(&link->refs, 2); /* ours and the transport's */
    link->sys = c->sys;
    link->client = c;
    pthread_mutex_init(&link->mtx, NULL);
    c->link = link;
    c->state = WEIR_CLIENT_DIALING;
    c->dropped[0] = 0;

    struct weir_transport_options options = {
        .message_bytes_max = WEIR_FRAME_BYTES_MAX,
        .first_message_bytes_max = WEIR_HELLO_BYTES_MAX,
        .handshake_ms = HANDSHAKE_MS,
        .tls_ca = c->tls_ca,
        .tls_insecure = c->tls_insecure,
    };
    struct weir_error err = {};
    enum weir_status st = weir_dial(&link->sys, c->url, &options, on_dialed, link, &err);
    if (st) {
        link_unref(link); /* the transport's */
        pthread_mutex_lock(&c->mtx);
        if (st == WEIR_INVALID || st == WEIR_UNSUPPORTED)
            c->refused = st;
        pthread_mutex_unlock(&c->mtx);
        go_down(c, err.text[0] ? err.text : weir_status_text(st));
    }
}

static void
on_redial(struct weir_timer *timer)
{
    dial(WEIR_CONTAINER(timer, struct weir_client, redial));
}

static void
say_hello(struct weir_client *c)
{
    c->state = WEIR_CLIENT_GREETING;
    Weir__Hello hello = WEIR__HELLO__INIT;
    hello.version = hello.version_min = WEIR_WIRE_VERSION;
    hello.client = c->name;
    struct weir_frame head = {.kind = WEIR_FRAME_HELLO};
    struct weir_buf *buf = NULL;
    if (weir_message_frame(&head, &hello.base, &buf))
        buf = NULL;
    send_pieces(c, buf, NULL);
    c->heard_us = weir_loop_now_us(c->loop);
    c->heartbeat_us = HEARTBEAT_DEFAULT_MS * 1000;
    c->dead_after_us = HANDSHAKE_MS * 1000;
    weir_timer_start(c->loop, &c->heartbeat, c->heartbeat_us);
}

static void
on_heartbeat(struct weir_timer *timer)
{
    struct weir_client *c = WEIR_CONTAINER(timer, struct weir_client, heartbeat);
    uint64_t now = weir_loop_now_us(c->loop);
    weir_timer_start(c->loop, &c->heartbeat, c->heartbeat_us);
    if (now - c->heard_us >= c->dead_after_us) {
        weir_client_drop(c, "the broker is silent");
        return;
    }
    bool is_quiet = !c->unanswered && !c->calls_sent.count;
    if (c->draining && (now >= c->drain_until_us || is_quiet)) {
        weir_client_drop(c, "the broker is going away");
        return;
    }
    if (c->state == WEIR_CLIENT_UP) {
        struct weir_frame ping = {.kind = WEIR_FRAME_PING, .value = now};
        weir_client_send(c, &ping, NULL);
    }
}

static void
send_call(struct weir_client *c, struct weir_call *call)
{
    call->sent = true;
    if (weir_map_put(&c->calls_sent, call->number, call)) {
        weir_client_drop(c, "out of memory");
        return;
    }
    send_pieces(c, weir_buf_ref(call->frame), NULL);
}

static void
welcome(struct weir_client *c, const struct weir_frame *f)
{
    ProtobufCMessage *message = NULL;
    if (c->state != WEIR_CLIENT_GREETING ||
        weir_message_unpack(&weir__welcome__descriptor, f->body, &message)) {
        weir_client_drop(c, "the broker's welcome is not understood");
        return;
    }
    Weir__Welcome *w = (Weir__Welcome *)message;
    if (w->version != WEIR_WIRE_VERSION) {
        weir_message_free(message);
        weir_client_drop(c, "the broker speaks another version");
        return;
    }
    c->state = WEIR_CLIENT_UP;
    c->failures = 0;
    c->frame_bytes_max = w->frame_bytes_max ? w->frame_bytes_max : WEIR_FRAME_BYTES_MAX;
    c->heartbeat_us = (w->heartbeat_ms ? w->heartbeat_ms : HEARTBEAT_DEFAULT_MS) * UINT64_C(1000);
    c->dead_after_us = w->dead_after_ms * UINT64_C(1000);
    if (c->dead_after_us < 2 * c->heartbeat_us)
        c->dead_after_us = 3 * c->heartbeat_us;
    weir_timer_start(c->loop, &c->heartbeat, c->heartbeat_us);

    struct weir_conn *conn = link_conn(c->link);
    if (conn) {
        weir_conn_set_limit(conn);
        weir_conn_unref(conn);
    }

    pthread_mutex_lock(&c->mtx);
    c->is_up = true;
    c->why[0] = 0;
    snprintf(c->broker, sizeof c->broker, "%s", w->broker);
    snprintf(c->data_id, sizeof c->data_id, "%s", w->data_id);
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->mtx);
    weir_message_free(message);

    if (c->on_connection)
        c->on_connection(c->arg, true, c->broker);
    WEIR_LIST_FOR_EACH (node, &c->calls) {
        struct weir_call *call = WEIR_CONTAINER(node, struct weir_call, node);
        if (!call->sent)
            send_call(c, call);
    }
    WEIR_LIST_FOR_EACH (node, &c->members) {
        struct weir_member *m = WEIR_CONTAINER(node, struct weir_member, node);
        m->up(m);
    }
}

static void
refuse(struct weir_client *c, const struct weir_frame *f)
{
    ProtobufCMessage *message = NULL;
    enum weir_status st = WEIR_DENIED;
    char text[200] = "the broker refused the connection";
    if (weir_message_unpack(&weir__refusal__descriptor, f->body, &message) == WEIR_OK) {
        Weir__Refusal *r = (Weir__Refusal *)message;
        if (r->status && r->status < WEIR_STATUS_COUNT)
            st = r->status;
        snprintf(text, sizeof text, "%s", r->text && r->text[0] ? r->text : weir_status_text(st));
        weir_message_free(message);
    }
    pthread_mutex_lock(&c->mtx);
    if (!weir_status_retryable(st))
        c->refused = st;
    pthread_mutex_unlock(&c->mtx);
    weir_client_drop(c, text);
}

static void
reply(struct weir_client *c, const struct weir_frame *f)
{
    struct weir_call *call = weir_map_get(&c->calls_sent, f->number);
    if (!call)
        return; /* timed out or cancelled meanwhile */
    ProtobufCMessage *message = NULL;
    enum weir_status st = weir_message_unpack(&weir__reply__descriptor, f->body, &message);
    if (st) {
        finish_call(call, st, NULL, "the broker's answer is not understood");
        return;
    }
    Weir__Reply *r = (Weir__Reply *)message;
    st = r->status < WEIR_STATUS_COUNT ? r->status : WEIR_INVALID;
    finish_call(call, st, r, r->text && r->text[0] ? r->text : weir_status_text(st));
}

static void
take_frame(struct weir_client *c, struct weir_buf *message)
{
    struct weir_frame f;
    if (weir_frame_decode(weir_buf_bytes(message), &f)) {
        weir_client_drop(c, "the broker sent a malformed frame");
        return;
    }
    if (c->state != WEIR_CLIENT_UP && f.kind != WEIR_FRAME_WELCOME && f.kind != WEIR_FRAME_REFUSE) {
        weir_client_drop(c, "the broker did not say welcome");
        return;
    }
    struct weir_channel *channel;
    struct weir_frame pong = {.kind = WEIR_FRAME_PONG, .value = f.value};
    switch (f.kind) {
    case WEIR_FRAME_WELCOME:
        welcome(c, &f);
        break;
    case WEIR_FRAME_REFUSE:
        refuse(c, &f);
        break;
    case WEIR_FRAME_REPLY:
        reply(c, &f);
        break;
    case WEIR_FRAME_ACK:
        if (c->unanswered)
            c->unanswered--;
        [[fallthrough]];
    case WEIR_FRAME_DATA:
    case WEIR_FRAME_HEARTBEAT:
    case WEIR_FRAME_GAP:
    case WEIR_FRAME_END:
    case WEIR_FRAME_STOPPED:
        channel = weir_map_get(&c->channels, f.channel);
        if (channel) /* else one that we closed */
            channel->frame(channel, &f, message);
        break;
    case WEIR_FRAME_PING:
        weir_client_send(c, &pong, NULL);
        break;
    case WEIR_FRAME_DRAIN:
        if (!c->draining) {
            c->draining = true;
            c->drain_until_us = weir_loop_now_us(c->loop) + DRAIN_US;
            weir_timer_start(c->loop, &c->heartbeat, 100 * 1000);
        }
        break;
    default: /* PONG; what only a client sends is ignored */
        break;
    }
}

static void
on_link(struct weir_task *task)
{
    struct weir_client *c = WEIR_CONTAINER(task, struct weir_client, link_task);
    struct weir_link *link = c->link;
    if (!link)
        return;
    pthread_mutex_lock(&link->mtx);
    struct weir_buf **inbox = link->inbox;
    size_t count = link->count;
    struct weir_conn *resume = link->paused && link->conn ? weir_conn_ref(link->conn) : NULL;
    bool dialed = link->dialed && !link->closed, closed = link->closed;
    enum weir_status why = link->why;
    link->inbox = NULL;
    link->count = link->capacity = link->bytes = 0;
    link->paused = false;
    pthread_mutex_unlock(&link->mtx);

    if (dialed && c->state == WEIR_CLIENT_DIALING)
        say_hello(c);
    if (count)
        c->heard_us = weir_loop_now_us(c->loop);
    for (size_t i = 0; i < count; i++) {
        if (c->link == link)
            take_frame(c, inbox[i]);
        weir_buf_unref(inbox[i]);
    }
    free(inbox);
    if (resume) {
        weir_conn_resume(resume);
        weir_conn_unref(resume);
    }
    if (closed && c->link == link) {
        char text[sizeof c->dropped];
        snprintf(text, sizeof text, "%s", c->dropped[0] ? c->dropped : weir_status_text(why));
        go_down(c, text);
    }
}

bool
weir_channel_open(struct weir_client *c, struct weir_channel *channel, uint32_t id)
{
    if (weir_map_put(&c->channels, id, channel)) {
        weir_client_drop(c, "the broker gave a channel twice");
        return false;
    }
    channel->id = id;
    return true;
}

struct farewell {
    struct weir_call call;
};

static void
on_farewell(struct weir_call *call, enum weir_status st, Weir__Reply *r, const char *text)
{
    (void)st, (void)text;
    if (r)
        weir_message_free(&r->base);
    free(WEIR_CONTAINER(call, struct farewell, call));
}

void
weir_channel_close(struct weir_client *c, struct weir_channel *channel, bool tell)
{
    if (!channel->id)
        return;
    if (weir_map_get(&c->channels, channel->id) == channel) {
        weir_map_take(&c->channels, channel->id);
        struct farewell *farewell =
            tell && weir_client_is_up(c) ? calloc(1, sizeof *farewell) : NULL;
        if (farewell) {
            Weir__CloseChannel op = WEIR__CLOSE_CHANNEL__INIT;
            Weir__Request request = WEIR__REQUEST__INIT;
            op.channel = channel->id;
            request.op_case = WEIR__REQUEST__OP_CLOSE_CHANNEL;
            request.close_channel = &op;
            farewell->call.mode = WEIR_CALL_BOUND;
            farewell->call.done = on_farewell;
            weir_call_start(c, &farewell->call, &request, WEIR_CALL_TIMEOUT_MS);
        }
    }
    channel->id = 0;
}

void
weir_member_add(struct weir_client *c, struct weir_member *member)
{
    weir_list_push_back(&c->members, &member->node);
    if (c->state == WEIR_CLIENT_UP)
        member->up(member);
}

void
weir_member_remove(struct weir_member *member)
{
    weir_list_remove(&member->node);
}

/* ---- calls ---- */

static void
on_call_timer(struct weir_timer *timer)
{
    struct weir_call *call = WEIR_CONTAINER(timer, struct weir_call, timer);
    struct weir_client *c = call->client;
    char text[640];
    enum weir_status st;
    if (!call->frame) {
        finish_call(call, WEIR_NO_MEMORY, NULL, "no memory for the request");
        return;
    }
    if (call->sent) {
        st = call->mode == WEIR_CALL_ONCE ? WEIR_UNKNOWN : WEIR_TIMEOUT;
        snprintf(text, sizeof text, "no answer from the broker at '%s' in time", c->url);
    } else {
        st = WEIR_UNAVAILABLE;
        pthread_mutex_lock(&c->mtx);
        snprintf(text, sizeof text, "no connection to the broker at '%s'%s%s", c->url,
                 c->why[0] ? ": " : "", c->why);
        pthread_mutex_unlock(&c->mtx);
    }
    finish_call(call, st, NULL, text);
}

void
weir_call_start(struct weir_client *c, struct weir_call *call, Weir__Request *request,
                uint64_t timeout_ms)
{
    WEIR_ASSERT(!weir_call_is_running(call));
    call->client = c;
    call->number = c->next_call++;
    call->sent = false;
    call->frame = NULL;
    call->timer = (struct weir_timer){.run = on_call_timer};
    weir_list_push_back(&c->calls, &call->node);
    bool up = weir_client_is_up(c);
    struct weir_frame head = {.kind = WEIR_FRAME_CALL, .number = call->number};
    if (weir_message_frame(&head, &request->base, &call->frame) ||
        (call->mode == WEIR_CALL_BOUND && !up))
        timeout_ms = 0;
    weir_timer_start(c->loop, &call->timer, timeout_ms * 1000);
    if (up && call->frame)
        send_call(c, call);
}

void
weir_call_cancel(struct weir_call *call)
{
    if (!weir_call_is_running(call))
        return;
    struct weir_client *c = call->client;
    weir_list_remove(&call->node);
    weir_timer_stop(c->loop, &call->timer);
    if (call->sent)
        weir_map_take(&c->calls_sent, call->number);
    weir_buf_unref(call->frame);
    call->frame = NULL;
    call->sent = false;
}

struct waiting_call {
    struct weir_call call;
    struct weir_task task;
    struct weir_client *client;
    Weir__Request *request;
    pthread_mutex_t mtx;
    pthread_cond_t cond;
    bool done;
    enum weir_status st;
    Weir__Reply *reply;
    struct weir_error *err;
};

static void
waiting_call_done(struct weir_call *call, enum weir_status st, Weir__Reply *r, const char *text)
{
    struct waiting_call *w = WEIR_CONTAINER(call, struct waiting_call, call);
    pthread_mutex_lock(&w->mtx);
    w->st = st;
    w->reply = r;
    if (st)
        w->st = weir_fail(w->err, st, "%s", text);
    w->done = true;
    pthread_cond_signal(&w->cond);
    pthread_mutex_unlock(&w->mtx);
}

static void
waiting_call_start(struct weir_task *task)
{
    struct waiting_call *w = WEIR_CONTAINER(task, struct waiting_call, task);
    weir_call_start(w->client, &w->call, w->request, WEIR_CALL_TIMEOUT_MS);
}

enum weir_status
weir_call_wait(struct weir_client *c, Weir__Request *request, enum weir_call_mode mode,
               Weir__Reply **reply_out, struct weir_error *err)
{
    if (weir_loop_is_current(c->loop))
        return weir_fail(err, WEIR_INVALID, "a call that waits was made inside a callback");
    struct waiting_call w = {
        .call = {.mode = mode, .done = waiting_call_done},
        .task = {.run = waiting_call_start},
        .client = c,
        .request = request,
        .err = err,
    };
    pthread_mutex_init(&w.mtx, NULL);
    weir_cond_init(&w.cond);
    weir_loop_post(c->loop, &w.task);
    pthread_mutex_lock(&w.mtx);
    while (!w.done)
        pthread_cond_wait(&w.cond, &w.mtx);
    pthread_mutex_unlock(&w.mtx);
    pthread_mutex_destroy(&w.mtx);
    pthread_cond_destroy(&w.cond);
    if (reply_out && w.st == WEIR_OK)
        *reply_out = w.reply;
    else if (w.reply)
        weir_message_free(&w.reply->base);
    return w.st;
}

/* ---- any thread ---- */

struct run {
    struct weir_task task;
    void (*fn)(void *arg);
    void *arg;
    pthread_mutex_t mtx;
    pthread_cond_t cond;
    bool done;
};

static void
on_run(struct weir_task *task)
{
    struct run *run = WEIR_CONTAINER(task, struct run, task);
    run->fn(run->arg);
    pthread_mutex_lock(&run->mtx);
    run->done = true;
    pthread_cond_signal(&run->cond);
    pthread_mutex_unlock(&run->mtx);
}

void
weir_client_run(struct weir_client *c, void (*fn)(void *arg), void *arg)
{
    if (weir_loop_is_current(c->loop)) {
        fn(arg);
        return;
    }
    struct run run = {.task = {.run = on_run}, .fn = fn, .arg = arg};
    pthread_mutex_init(&run.mtx, NULL);
    weir_cond_init(&run.cond);
    weir_loop_post(c->loop, &run.task);
    pthread_mutex_lock(&run.mtx);
    while (!run.done)
        pthread_cond_wait(&run.cond, &run.mtx);
    pthread_mutex_unlock(&run.mtx);
    pthread_mutex_destroy(&run.mtx);
    pthread_cond_destroy(&run.cond);
}

void
weir_cond_init(pthread_cond_t *cond)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(cond, &attr);
    pthread_condattr_destroy(&attr);
}

uint64_t
weir_deadline_us(struct weir_client *c, int64_t timeout_ms)
{
    uint64_t now = weir_mono_us(c->sys.clock);
    if (timeout_ms < 0 || (uint64_t)timeout_ms > (UINT64_MAX - now) / 1000)
        return UINT64_MAX;
    return now + (uint64_t)timeout_ms * 1000;
}

bool
weir_cond_wait(struct weir_client *c, pthread_cond_t *cond, pthread_mutex_t *mtx,
               uint64_t deadline_us)
{
    if (deadline_us == UINT64_MAX) {
        pthread_cond_wait(cond, mtx);
        return true;
    }
    if (weir_mono_us(c->sys.clock) >= deadline_us)
        return false;
    struct timespec at = {.tv_sec = (time_t)(deadline_us / 1000000),
                          .tv_nsec = (long)(deadline_us % 1000000) * 1000};
    return pthread_cond_timedwait(cond, mtx, &at) != ETIMEDOUT;
}

static void
start(void *arg)
{
    struct weir_client *c = arg;
    dial(c);
}

static void
say_goodbye(void *arg)
{
    struct weir_client *c = arg;
    c->closing = true;
    weir_timer_stop(c->loop, &c->redial);
    if (c->state == WEIR_CLIENT_UP) {
        struct weir_frame bye = {.kind = WEIR_FRAME_BYE};
        weir_client_send(c, &bye, NULL);
    }
    go_down(c, "closed");
    for (struct weir_list *node; !weir_list_is_empty(&c->calls);) {
        node = c->calls.next;
        finish_call(WEIR_CONTAINER(node, struct weir_call, node), WEIR_CANCELLED, NULL, "closed");
    }
}

static enum weir_status
wait_for_broker(struct weir_client *c, int64_t timeout_ms, struct weir_error *err)
{
    uint64_t deadline = weir_deadline_us(c, timeout_ms);
    pthread_mutex_lock(&c->mtx);
    while (!c->is_up && !c->refused && weir_cond_wait(c, &c->changed, &c->mtx, deadline))
        ;
    enum weir_status st = c->is_up ? WEIR_OK : c->refused ? c->refused : WEIR_UNAVAILABLE;
    if (st)
        st = weir_fail(err, st, "cannot connect to the broker at '%s'%s%s", c->url,
                       c->why[0] ? ": " : "", c->why);
    pthread_mutex_unlock(&c->mtx);
    return st;
}

enum weir_status
weir_client_open(const struct weir_client_options *options, struct weir_client **out,
                 struct weir_error *err)
{
    static const struct weir_client_options defaults;
    if (!options)
        options = &defaults;
    const char *url = options->url ? options->url : getenv("WEIR_BROKER");
    const char *name = options->name ? options->name : program_invocation_short_name;
    if (!url || !url[0])
        url = WEIR_URL_DEFAULT;
    struct weir_client *c = calloc(1, sizeof *c);
    if (!c)
        return weir_fail(err, WEIR_NO_MEMORY, "no memory for a client");
    if (strlen(url) >= sizeof c->url) {
        free(c);
        return weir_fail(err, WEIR_INVALID, "the broker's URL is too long");
    }
    snprintf(c->url, sizeof c->url, "%s", url);
    snprintf(c->name, sizeof c->name, "%.*s", (int)sizeof c->name - 1, name);
    c->tls_insecure = options->tls_insecure;
    c->on_connection = options->on_connection;
    c->arg = options->arg;
    c->sys = (struct weir_sys){.clock = weir_clock_system(), .threads = true};
    weir_random_bytes(&c->sys.seed, sizeof c->sys.seed);
    weir_random_init(&c->random, c->sys.seed);
    c->link_task.run = on_link;
    c->redial.run = on_redial;
    c->heartbeat.run = on_heartbeat;
    c->next_call = 1;
    weir_list_init(&c->calls);
    weir_list_init(&c->members);
    weir_map_init(&c->calls_sent, c->sys.seed);
    weir_map_init(&c->channels, c->sys.seed);
    pthread_mutex_init(&c->mtx, NULL);
    weir_cond_init(&c->changed);

    enum weir_status st = WEIR_OK;
    if (options->tls_ca && !(c->tls_ca = strdup(options->tls_ca)))
        st = weir_fail(err, WEIR_NO_MEMORY, "no memory for a client");
    if (!st)
        st = weir_loop_new(c->sys.clock, "weir-client", &c->loop);
    if (!st)
        st = weir_loop_start(c->loop);
    if (st) {
        st = weir_fail(err, st, "cannot start the client's thread: %s", weir_status_text(st));
        goto done;
    }
    weir_client_run(c, start, c);
    if (options->connect_timeout_ms >= 0)
        st = wait_for_broker(c, options->connect_timeout_ms ? options->connect_timeout_ms : 5000,
                             err);
    if (st)
        goto done;
    *out = c;
    c = NULL; /* the caller's now */
done:
    weir_client_close(c);
    return st;
}

void
weir_client_close(struct weir_client *c)
{
    if (!c)
        return;
    if (c->loop) {
        weir_client_run(c, say_goodbye, c);
        weir_loop_stop(c->loop);
        weir_loop_free(c->loop);
    }
    weir_map_fini(&c->calls_sent);
    weir_map_fini(&c->channels);
    pthread_mutex_destroy(&c->mtx);
    pthread_cond_destroy(&c->changed);
    free(c->tls_ca);
    free(c);
}

const char *
weir_client_broker(struct weir_client *c)
{
    /* The text handed out stays as it is as long as the broker does. */
    pthread_mutex_lock(&c->mtx);
    if (strcmp(c->broker_out, c->broker) != 0)
        memcpy(c->broker_out, c->broker, sizeof c->broker_out);
    pthread_mutex_unlock(&c->mtx);
    return c->broker_out;
}

const char *
weir_version(void)
{
    return WEIR_VERSION;
}
