/* What a connection is to transport.c: a kind of byte mover behind the public calls. Private to
 * this module. */
#pragma once
#include "transport/transport.h"
#include <pthread.h>

struct weir_conn_ops {
    void (*start)(struct weir_conn *c); /* reads on, after resume or set_events */
    void (*send)(struct weir_conn *c, struct weir_send *s);
    void (*close)(struct weir_conn *c, enum weir_status why);
    void (*free)(struct weir_conn *c); /* after the last reference, on any thread */
};

struct weir_conn {
    const struct weir_conn_ops *ops;
    atomic_uint users; /* references outside this module; together they hold one of `refs` */
    atomic_uint refs;
    _Atomic uint64_t message_max;
    uint64_t message_max_later; /* what set_limit raises it to */
    _Atomic uint64_t queued_bytes;
    struct weir_conn_events events; /* set before the first callback */
    void *arg;
    char peer[128];
};

void weir_conn_init(struct weir_conn *c, const struct weir_conn_ops *ops,
                    const struct weir_transport_options *options);

/* References of this module: they keep the memory, not the connection. */
void weir_conn_hold(struct weir_conn *c);
void weir_conn_drop(struct weir_conn *c);

/* Bytes of a message. */
uint64_t weir_send_bytes(const struct weir_send *s);

/* What stands behind "scheme://" of a URL that begins with `scheme`, else NULL. */
const char *weir_url_rest(const char *url, const char *scheme);

enum weir_status weir_stream_listen(const char *url, const struct weir_transport_options *options,
                                    weir_accepted accepted, void *arg, void **out, char *url_out,
                                    struct weir_error *err);
void weir_stream_listener_close(void *listener);
enum weir_status weir_stream_dial(struct weir_sys *sys, const char *url,
                                  const struct weir_transport_options *options, weir_dialed dialed,
                                  void *arg, struct weir_error *err);

/* For options->loop, which runs on a thread of its own: tcp, ipc and abstract. */
enum weir_status weir_looped_listen(const char *url, const struct weir_transport_options *options,
                                    weir_accepted accepted, void *arg, void **out, char *url_out,
                                    struct weir_error *err);
void weir_looped_listener_close(void *listener);

enum weir_status weir_inproc_listen(const char *url, const struct weir_transport_options *options,
                                    weir_accepted accepted, void *arg, void **out,
                                    struct weir_error *err);
void weir_inproc_listener_close(void *listener);
enum weir_status weir_inproc_dial(const char *url, const struct weir_transport_options *options,
                                  weir_dialed dialed, void *arg, struct weir_error *err);
