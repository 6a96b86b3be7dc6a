/* Two ends of a connection for tests: what came, kept in order, and waits on events with a generous
 * deadline. Everything that a callback touches is under one mutex. */
#pragma once
#include "transport/transport.h"
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define OK(call) cr_assert(eq(int, (call), WEIR_OK), "%s", #call)
#define WAIT_S 60

struct end {
    struct weir_conn *conn;
    struct weir_buf **message;
    size_t count, capacity, taken;
    size_t bytes;
    size_t sent, cancelled; /* sends that came back */
    bool holds;             /* on_message says false */
    bool drops;             /* messages are counted, not kept */
    bool closes;            /* on_message closes the connection */
    bool closed, dialed;
    size_t after_closed; /* callbacks that came too late */
    enum weir_status why, dial_status;
};

struct world {
    pthread_mutex_t mtx;
    pthread_cond_t changed;
    struct weir_sys sys;
    struct weir_transport_options options;
    struct weir_listener *listener;
    struct weir_loop *loop; /* of the listener, where it has one */
    char url[WEIR_URL_BYTES_MAX];
    char directory[64];
    struct end client, server;
    size_t accepted, ended;
};

static struct world *world; /* of the one test in this process */

static inline struct end *
end_of(const struct weir_conn *conn)
{
    return conn == world->client.conn ? &world->client : &world->server;
}

#define WAIT_UNTIL(condition)                                                  \
    do {                                                                       \
        struct timespec until;                                                 \
        clock_gettime(CLOCK_REALTIME, &until);                                 \
        until.tv_sec += WAIT_S;                                                \
        pthread_mutex_lock(&world->mtx);                                       \
        int rv = 0;                                                            \
        while (!(condition) && rv == 0)                                        \
            rv = pthread_cond_timedwait(&world->changed, &world->mtx, &until); \
        pthread_mutex_unlock(&world->mtx);                                     \
        cr_assert(rv == 0, "%s did not come", #condition);                     \
    } while (0)

static bool
on_message(void *arg, struct weir_conn *conn, struct weir_buf *message)
{
    struct end *e = arg;
    pthread_mutex_lock(&world->mtx);
    e->after_closed += e->closed;
    if (!e->drops && e->count == e->capacity) {
        e->capacity = 2 * e->capacity + 64;
        e->message = realloc(e->message, e->capacity * sizeof *e->message);
    }
    e->bytes += message->len;
    if (e->drops)
        weir_buf_unref(message);
    else
        e->message[e->count] = message;
    e->count++;
    bool more = !e->holds;
    bool closes = e->closes;
    pthread_cond_broadcast(&world->changed);
    pthread_mutex_unlock(&world->mtx);
    if (closes)
        weir_conn_close(conn);
    return more;
}

static void
on_closed(void *arg, struct weir_conn *conn, enum weir_status why)
{
    (void)conn;
    struct end *e = arg;
    pthread_mutex_lock(&world->mtx);
    e->after_closed += e->closed;
    e->closed = true;
    e->why = why;
    world->ended++;
    pthread_cond_broadcast(&world->changed);
    pthread_mutex_unlock(&world->mtx);
}

static const struct weir_conn_events events = {on_message, on_closed};

static void
on_accepted(void *arg, struct weir_conn *conn)
{
    (void)arg;
    pthread_mutex_lock(&world->mtx);
    world->accepted++;
    bool is_second = world->server.conn != NULL;
    if (!is_second)
        world->server.conn = conn;
    pthread_cond_broadcast(&world->changed);
    pthread_mutex_unlock(&world->mtx);
    weir_conn_set_events(conn, &events, &world->server);
    if (is_second)
        weir_conn_unref(conn);
}

static void
on_dialed(void *arg, struct weir_conn *conn, enum weir_status st)
{
    (void)arg;
    if (conn)
        weir_conn_set_events(conn, &events, &world->client);
    pthread_mutex_lock(&world->mtx);
    world->client.conn = conn;
    world->client.dialed = true;
    world->client.dial_status = st;
    pthread_cond_broadcast(&world->changed);
    pthread_mutex_unlock(&world->mtx);
}

static void
world_init(struct world *w)
{
    *w = (struct world){
        .sys = {.clock = weir_clock_system(), .threads = true},
        .options = {.message_bytes_max = 16 << 20,
                    .first_message_bytes_max = 16 << 20,
                    .handshake_ms = 30000},
    };
    pthread_mutex_init(&w->mtx, NULL);
    pthread_cond_init(&w->changed, NULL);
    snprintf(w->directory, sizeof w->directory, "/tmp/weir-test-XXXXXX");
    cr_assert(mkdtemp(w->directory) != NULL);
    world = w;
}

/* A URL to listen on, of the scheme. */
static const char *
fresh_url(const char *scheme)
{
    static char url[WEIR_URL_BYTES_MAX];
    if (strcmp(scheme, "tcp") == 0)
        snprintf(url, sizeof url, "tcp://127.0.0.1:0");
    else if (strcmp(scheme, "tls+tcp") == 0)
        snprintf(url, sizeof url, "tls+tcp://localhost:0");
    else if (strcmp(scheme, "ipc") == 0)
        snprintf(url, sizeof url, "ipc://%s/socket", world->directory);
    else
        snprintf(url, sizeof url, "%s://weir-test-%d", scheme, (int)getpid());
    return url;
}

/* "loop+SCHEME": on a loop of the listener's own. */
static void
world_listen(const char *scheme)
{
    struct weir_error err = {0};
    struct weir_transport_options options = world->options;
    if (strncmp(scheme, "loop+", 5) == 0) {
        scheme += 5;
        OK(weir_loop_new(world->sys.clock, "io", &world->loop));
        OK(weir_loop_start(world->loop));
        options.loop = world->loop;
    }
    enum weir_status st = weir_listen(&world->sys, fresh_url(scheme), &options, on_accepted, NULL,
                                      &world->listener, world->url, &err);
    cr_assert(eq(int, st, WEIR_OK), "%s", err.text);
}

static void
world_dial(void)
{
    struct weir_error err = {0};
    enum weir_status st =
        weir_dial(&world->sys, world->url, &world->options, on_dialed, NULL, &err);
    cr_assert(eq(int, st, WEIR_OK), "%s", err.text);
}

/* Listens and connects; both ends are there afterwards. */
static inline void
world_connect(const char *scheme)
{
    world_listen(scheme);
    world_dial();
    WAIT_UNTIL(world->client.dialed && (world->client.dial_status || world->server.conn));
    cr_assert(eq(int, world->client.dial_status, WEIR_OK));
}

static void
end_fini(struct end *e)
{
    if (e->conn) {
        weir_conn_close(e->conn);
        WAIT_UNTIL(e->closed);
        weir_conn_unref(e->conn);
    }
    for (size_t i = 0; !e->drops && i < e->count; i++)
        weir_buf_unref(e->message[i]);
    free(e->message);
    cr_expect(eq(sz, e->after_closed, 0), "nothing comes after the end");
}

static void
world_fini(void)
{
    weir_listener_close(world->listener);
    end_fini(&world->client);
    end_fini(&world->server);
    if (world->loop)
        weir_loop_stop(world->loop);
    weir_loop_free(world->loop);
    char path[128];
    const char *const files[] = {"socket", "cert.pem", "key.pem"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(path, sizeof path, "%s/%s", world->directory, files[i]);
        unlink(path);
    }
    rmdir(world->directory);
}

/* ---- sending ---- */

struct test_send {
    struct weir_send send;
    struct end *from;
};

static void
on_sent(struct weir_send *s, enum weir_status st)
{
    struct test_send *t = (struct test_send *)s;
    for (uint32_t i = 0; i < s->count; i++)
        weir_buf_unref(s->piece[i].buf);
    pthread_mutex_lock(&world->mtx);
    t->from->after_closed += t->from->closed;
    if (st)
        t->from->cancelled++;
    else
        t->from->sent++;
    pthread_cond_broadcast(&world->changed);
    pthread_mutex_unlock(&world->mtx);
    free(t);
}

/* Bytes that tell where they belong. */
static uint8_t
pattern(size_t number, size_t i)
{
    return (uint8_t)(number * 131 + i + (i >> 8) * 7);
}

/* Sends message `number` of `len` bytes in `pieces` pieces. */
static void
send_message(struct end *from, size_t number, size_t len, unsigned pieces)
{
    struct weir_buf *buf = weir_buf_new(len + !len);
    for (size_t i = 0; i < len; i++)
        buf->data[i] = pattern(number, i);
    buf->len = len;
    struct test_send *t = calloc(1, sizeof *t);
    *t = (struct test_send){.send = {.count = pieces, .sent = on_sent}, .from = from};
    for (unsigned p = 0; p < pieces; p++) {
        size_t off = len * p / pieces, end = len * (p + 1) / pieces;
        t->send.piece[p] = (struct weir_slice){weir_buf_ref(buf), off, end - off};
    }
    weir_buf_unref(buf);
    weir_conn_send(from->conn, &t->send);
}

static inline void
expect_message(struct end *at, size_t index, size_t number, size_t len)
{
    WAIT_UNTIL(at->count > index || at->closed);
    pthread_mutex_lock(&world->mtx);
    const struct weir_buf *m = at->count > index ? at->message[index] : NULL;
    pthread_mutex_unlock(&world->mtx);
    cr_assert(m != NULL, "message %zu of %zu bytes", index, len);
    cr_assert(eq(sz, m->len, len));
    for (size_t i = 0; i < len; i++)
        if (m->data[i] != pattern(number, i))
            cr_assert(m->data[i] == pattern(number, i), "byte %zu of message %zu", i, index);
}
