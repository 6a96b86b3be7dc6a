#include "transport/transport.h"
#include "base/assert.h"
#include "transport/conn.h"
#include <stdio.h>
#include <stdlib.h>

struct weir_listener {
    void (*close)(void *of_kind);
    void *of_kind;
};

static const char *const schemes[] = {"tcp", "ipc", "abstract", "tls+tcp"};

const char *
weir_url_rest(const char *url, const char *scheme)
{
    size_t len = strlen(scheme);
    return strncmp(url, scheme, len) == 0 && strncmp(url + len, "://", 3) == 0 ? url + len + 3
                                                                               : NULL;
}

static enum weir_status
check_url(const char *url, bool *is_inproc_out, struct weir_error *err)
{
    const char *rest = weir_url_rest(url, "inproc");
    *is_inproc_out = rest != NULL;
    for (size_t i = 0; !rest && i < sizeof schemes / sizeof *schemes; i++)
        rest = weir_url_rest(url, schemes[i]);
    if (!rest || !*rest)
        return weir_fail(err, WEIR_INVALID,
                         "'%.200s' is none of tcp://, ipc://, abstract://, tls+tcp://, inproc://",
                         url);
    if (strlen(url) >= WEIR_URL_BYTES_MAX)
        return weir_fail(err, WEIR_TOO_BIG, "the address is longer than %d bytes",
                         WEIR_URL_BYTES_MAX - 1);
    return WEIR_OK;
}

enum weir_status
weir_listen(struct weir_sys *sys, const char *url, const struct weir_transport_options *options,
            weir_accepted accepted, void *arg, struct weir_listener **out, char *url_out,
            struct weir_error *err)
{
    (void)sys; /* the network is NNG's; a listener needs no clock of ours */
    bool is_inproc;
    enum weir_status st = check_url(url, &is_inproc, err);
    if (st)
        return st;
    struct weir_listener *l = calloc(1, sizeof *l);
    if (!l)
        return weir_fail(err, WEIR_NO_MEMORY, "no memory to listen on '%s'", url);
    char real[WEIR_URL_BYTES_MAX];
    snprintf(real, sizeof real, "%s", url);
    if (is_inproc) {
        l->close = weir_inproc_listener_close;
        st = weir_inproc_listen(url, options, accepted, arg, &l->of_kind, err);
    } else if (options->loop && !weir_url_rest(url, "tls+tcp") && !strchr(url, '%')) {
        l->close = weir_looped_listener_close;
        st = weir_looped_listen(url, options, accepted, arg, &l->of_kind, real, err);
    } else {
        l->close = weir_stream_listener_close;
        st = weir_stream_listen(url, options, accepted, arg, &l->of_kind, real, err);
    }
    if (st) {
        free(l);
        return st;
    }
    if (url_out)
        memcpy(url_out, real, sizeof real);
    *out = l;
    return WEIR_OK;
}

void
weir_listener_close(struct weir_listener *l)
{
    if (!l)
        return;
    l->close(l->of_kind);
    free(l);
}

enum weir_status
weir_dial(struct weir_sys *sys, const char *url, const struct weir_transport_options *options,
          weir_dialed dialed, void *arg, struct weir_error *err)
{
    bool is_inproc;
    enum weir_status st = check_url(url, &is_inproc, err);
    if (st)
        return st;
    return is_inproc ? weir_inproc_dial(url, options, dialed, arg, err)
                     : weir_stream_dial(sys, url, options, dialed, arg, err);
}

/* ---- connections ---- */

void
weir_conn_init(struct weir_conn *c, const struct weir_conn_ops *ops,
               const struct weir_transport_options *options)
{
    c->ops = ops;
    atomic_init(&c->users, 0);
    atomic_init(&c->refs, 1);
    atomic_init(&c->message_max, options->first_message_bytes_max);
    c->message_max_later = options->message_bytes_max;
    atomic_init(&c->queued_bytes, 0);
}

uint64_t
weir_send_bytes(const struct weir_send *s)
{
    WEIR_ASSERT(s->count <= WEIR_SEND_PIECES_MAX);
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < s->count; i++)
        bytes += s->piece[i].len;
    return bytes;
}

void
weir_conn_set_events(struct weir_conn *c, const struct weir_conn_events *events, void *arg)
{
    c->events = *events;
    c->arg = arg;
}

void
weir_conn_set_limit(struct weir_conn *c)
{
    atomic_store(&c->message_max, c->message_max_later);
}

void
weir_conn_resume(struct weir_conn *c)
{
    c->ops->start(c);
}

void
weir_conn_send(struct weir_conn *c, struct weir_send *send)
{
    c->ops->send(c, send);
}

uint64_t
weir_conn_queued_bytes(const struct weir_conn *c)
{
    return atomic_load_explicit(&c->queued_bytes, memory_order_relaxed);
}

void
weir_conn_close(struct weir_conn *c)
{
    c->ops->close(c, WEIR_CANCELLED);
}

void
weir_conn_hold(struct weir_conn *c)
{
    atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
}

void
weir_conn_drop(struct weir_conn *c)
{
    if (atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) == 1)
        c->ops->free(c);
}

struct weir_conn *
weir_conn_ref(struct weir_conn *c)
{
    /* A callback may take a reference though all others are gone: it runs, so the memory is there.
     */
    if (atomic_fetch_add_explicit(&c->users, 1, memory_order_relaxed) == 0)
        weir_conn_hold(c);
    return c;
}

void
weir_conn_unref(struct weir_conn *c)
{
    if (!c || atomic_fetch_sub_explicit(&c->users, 1, memory_order_acq_rel) != 1)
        return;
    c->ops->close(c, WEIR_CANCELLED);
    weir_conn_drop(c);
}

const char *
weir_conn_peer(const struct weir_conn *c)
{
    return c->peer;
}
