#include "bench/wire.h"
#include "transport/transport.h"
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct weir_wire {
    struct weir_sys sys;
    struct weir_child other;
    struct weir_send send;
    struct weir_buf *message;
    uint64_t total_bytes;

    /* shared, under mtx */
    pthread_mutex_t mtx;
    pthread_cond_t changed;
    struct weir_conn *conn;
    bool dialed, closed, is_sending;
    uint64_t answers, bytes;
};

static bool
on_message(void *arg, struct weir_conn *, struct weir_buf *message)
{
    struct weir_wire *w = arg;
    pthread_mutex_lock(&w->mtx);
    w->answers++;
    w->bytes += message->len;
    if (w->total_bytes == 0 || w->bytes >= w->total_bytes)
        pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->mtx);
    weir_buf_unref(message);
    return true;
}

static void
on_closed(void *arg, struct weir_conn *, enum weir_status)
{
    struct weir_wire *w = arg;
    pthread_mutex_lock(&w->mtx);
    w->closed = true;
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->mtx);
}

static void
on_dialed(void *arg, struct weir_conn *conn, enum weir_status st)
{
    static const struct weir_conn_events events = {on_message, on_closed};
    struct weir_wire *w = arg;
    if (st == WEIR_OK) {
        weir_conn_set_limit(conn);
        weir_conn_set_events(conn, &events, w);
    }
    pthread_mutex_lock(&w->mtx);
    w->conn = conn;
    w->dialed = true;
    w->closed = st != WEIR_OK;
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->mtx);
}

static void
on_sent(struct weir_send *send, enum weir_status)
{
    struct weir_wire *w = WEIR_CONTAINER(send, struct weir_wire, send);
    pthread_mutex_lock(&w->mtx);
    w->is_sending = false;
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->mtx);
}

struct weir_wire *
weir_wire_open(const struct weir_bench *b, size_t message_bytes, uint64_t total_bytes)
{
    struct weir_wire *w = calloc(1, sizeof *w);
    if (!w || !(w->message = weir_buf_new(message_bytes)))
        weir_bench_die("out of memory");
    weir_bench_noise(w->message->data, message_bytes, 2);
    w->message->len = message_bytes;
    w->total_bytes = total_bytes - total_bytes % message_bytes;
    w->sys = (struct weir_sys){.clock = weir_clock_system(), .threads = true};
    pthread_mutex_init(&w->mtx, NULL);
    pthread_cond_init(&w->changed, NULL);

    char url[256], log[PATH_MAX], size[32], total[32];
    weir_bench_path(b, "other.log", log);
    snprintf(size, sizeof size, "%zu", message_bytes);
    snprintf(total, sizeof total, "%llu", (unsigned long long)total_bytes);
    const char *argv[] = {b->other, size, total, NULL};
    weir_child_start(argv, "", log, &w->other);
    weir_child_wait_ready(&w->other, url, sizeof url);

    struct weir_transport_options options = {
        .message_bytes_max = 64 << 20, .first_message_bytes_max = 64 << 20, .handshake_ms = 5000};
    struct weir_error err = {0};
    if (weir_dial(&w->sys, url, &options, on_dialed, w, &err))
        weir_bench_die("cannot dial '%s': %s", url, err.text);
    pthread_mutex_lock(&w->mtx);
    while (!w->dialed)
        pthread_cond_wait(&w->changed, &w->mtx);
    pthread_mutex_unlock(&w->mtx);
    if (w->closed)
        weir_bench_die("cannot dial '%s'", url);
    return w;
}

void
weir_wire_close(struct weir_wire *w)
{
    weir_conn_close(w->conn);
    pthread_mutex_lock(&w->mtx);
    while (!w->closed)
        pthread_cond_wait(&w->changed, &w->mtx);
    pthread_mutex_unlock(&w->mtx);
    weir_conn_unref(w->conn);
    weir_child_end(&w->other, SIGKILL);
    weir_buf_unref(w->message);
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->mtx);
    free(w);
}

/* Sends one message and waits until `answers` or `bytes` of the other end are complete. */
static void
ask(struct weir_wire *w)
{
    pthread_mutex_lock(&w->mtx);
    while (w->is_sending && !w->closed)
        pthread_cond_wait(&w->changed, &w->mtx);
    uint64_t answers = w->answers + 1;
    w->bytes = 0;
    w->is_sending = true;
    pthread_mutex_unlock(&w->mtx);

    w->send = (struct weir_send){
        .count = 1, .piece = {{w->message, 0, w->message->len}}, .sent = on_sent};
    weir_conn_send(w->conn, &w->send);

    pthread_mutex_lock(&w->mtx);
    while (!w->closed && (w->total_bytes ? w->bytes < w->total_bytes : w->answers < answers))
        pthread_cond_wait(&w->changed, &w->mtx);
    if (w->closed)
        weir_bench_die("the bare connection broke");
    pthread_mutex_unlock(&w->mtx);
}

void
weir_wire_echo(struct weir_wire *w)
{
    ask(w);
}

double
weir_wire_receive(struct weir_wire *w)
{
    uint64_t start_ns = weir_bench_now_ns();
    ask(w);
    return (double)w->total_bytes * 1e3 / (double)(weir_bench_now_ns() - start_ns);
}
