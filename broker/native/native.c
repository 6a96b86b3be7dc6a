#include "native/native.h"
#include "native/inside.h"
#include <stdio.h>
#include <stdlib.h>

static void
set_default(uint32_t *value, uint32_t otherwise)
{
    if (!*value)
        *value = otherwise;
}

static void
set_default64(uint64_t *value, uint64_t otherwise)
{
    if (!*value)
        *value = otherwise;
}

static enum weir_status
check(struct weir_native_options *o, struct weir_error *err)
{
    set_default(&o->connections_max, 1000);
    set_default(&o->channels_max, WEIR_CHANNELS_PER_CONNECTION_MAX);
    set_default(&o->heartbeat_ms, 5000);
    set_default(&o->dead_after_ms, 15000);
    set_default(&o->hello_ms, 5000);
    set_default(&o->blocked_ms, 60000);
    set_default64(&o->frame_bytes_max, WEIR_FRAME_BYTES_MAX);
    set_default64(&o->window_bytes, 32 * WEIR_MIB);
    set_default64(&o->intake_bytes_max, 64 * WEIR_MIB);
    set_default64(&o->send_queue_bytes_max, 1280 * WEIR_MIB);
    if (o->url_count < 1 || o->url_count > NATIVE_URLS_MAX)
        return weir_fail(err, WEIR_INVALID, "1 to %d addresses to listen on", NATIVE_URLS_MAX);
    if (o->connections_max > WEIR_CONNECTIONS_MAX)
        return weir_fail(err, WEIR_INVALID, "at most %d connections", WEIR_CONNECTIONS_MAX);
    if (o->channels_max > WEIR_CHANNELS_PER_CONNECTION_MAX)
        return weir_fail(err, WEIR_INVALID, "at most %d channels of one connection",
                         WEIR_CHANNELS_PER_CONNECTION_MAX);
    if (o->frame_bytes_max > WEIR_FRAME_BYTES_MAX || o->frame_bytes_max < 64 * WEIR_KIB)
        return weir_fail(err, WEIR_INVALID, "a frame's limit is 64 KiB to 16 MiB");
    return WEIR_OK;
}

static enum weir_status
make_owners(struct weir_native *n)
{
    n->owner_count = weir_service_owner_count(n->service);
    n->owners = calloc(n->owner_count, sizeof *n->owners);
    if (!n->owners)
        return WEIR_NO_MEMORY;
    for (uint32_t i = 0; i < n->owner_count; i++) {
        n->owners[i].native = n;
        n->owners[i].owner = weir_service_owner(n->service, i);
        weir_map_init(&n->owners[i].channels, n->sys->seed);
    }
    return WEIR_OK;
}

static enum weir_status
start_io(struct weir_native *n)
{
    if (!n->sys->threads)
        return WEIR_OK;
    enum weir_status st = weir_loop_new(n->sys->clock, "weir-io", &n->io);
    if (!st)
        st = weir_loop_start(n->io);
    return st;
}

static enum weir_status
listen_all(struct weir_native *n, const char *const *urls, struct weir_error *err)
{
    struct weir_transport_options transport = {
        .message_bytes_max = n->options.frame_bytes_max,
        .first_message_bytes_max = WEIR_HELLO_BYTES_MAX,
        .handshake_ms = n->options.hello_ms,
        .tls_certificate = n->options.tls_certificate,
        .tls_key = n->options.tls_key,
        .loop = n->io ? n->io : n->loop,
    };
    for (size_t i = 0; i < n->options.url_count; i++) {
        enum weir_status st = weir_listen(n->sys, urls[i], &transport, peer_accepted, n,
                                          &n->listeners[i], n->addresses[i], err);
        if (st)
            return weir_fail_in(err, st, "cannot listen on '%s'", urls[i]);
        n->listener_count = i + 1;
    }
    return WEIR_OK;
}

enum weir_status
weir_native_open(struct weir_service *service, const struct weir_native_options *options,
                 struct weir_native **out, struct weir_error *err)
{
    struct weir_native *n = calloc(1, sizeof *n);
    if (!n)
        return weir_fail(err, WEIR_NO_MEMORY, "no memory");
    n->service = service;
    n->sys = weir_service_sys(service);
    n->loop = weir_service_loop(service);
    n->metrics = weir_service_metrics(service);
    n->options = *options;
    n->options.urls = NULL; /* borrowed for the call */
    snprintf(n->broker, sizeof n->broker, "%s", options->broker ? options->broker : "weir-broker");
    weir_list_init(&n->peers);
    pthread_mutex_init(&n->mtx, NULL);
    pthread_cond_init(&n->changed, NULL);

    enum weir_status st = check(&n->options, err);
    if (st)
        goto done;
    st = make_owners(n);
    if (st) {
        (void)!weir_fail(err, st, "no memory");
        goto done;
    }
    st = start_io(n);
    if (st) {
        (void)!weir_fail(err, st, "cannot start a thread");
        goto done;
    }
    st = listen_all(n, options->urls, err);
    if (st)
        goto done;

    *out = n;
    n = NULL; /* the caller's now */
done:
    weir_native_close(n);
    return st;
}

size_t
weir_native_address_count(const struct weir_native *n)
{
    return n->listener_count;
}

const char *
weir_native_address(const struct weir_native *n, size_t index)
{
    WEIR_ASSERT(index < n->listener_count);
    return n->addresses[index];
}

uint32_t
weir_native_connections(const struct weir_native *n)
{
    return atomic_load(&n->connected);
}

static void
stop_listening(struct weir_native *n)
{
    for (size_t i = 0; i < n->listener_count; i++) {
        weir_listener_close(n->listeners[i]);
        n->listeners[i] = NULL;
    }
}

static void
run_drain(struct weir_task *task)
{
    struct weir_native *n = WEIR_CONTAINER(task, struct weir_native, drain_task);
    n->draining = true;
    WEIR_LIST_FOR_EACH (node, &n->peers) {
        struct peer *p = WEIR_CONTAINER(node, struct peer, node);
        struct weir_frame frame = {.kind = WEIR_FRAME_DRAIN};
        if (p->state == PEER_LIVE)
            peer_send(p, &n->outlet, &frame, NULL, 0, 0);
    }
}

void
weir_native_drain(struct weir_native *n)
{
    stop_listening(n);
    n->drain_task.run = run_drain;
    weir_loop_post(n->loop, &n->drain_task);
}

static void
run_close(struct weir_task *task)
{
    struct weir_native *n = WEIR_CONTAINER(task, struct weir_native, close_task);
    n->closing = true;
    WEIR_LIST_FOR_EACH_SAFE (node, &n->peers)
        weir_conn_close(WEIR_CONTAINER(node, struct peer, node)->conn);
    pthread_mutex_lock(&n->mtx);
    n->closed = true;
    pthread_cond_broadcast(&n->changed);
    pthread_mutex_unlock(&n->mtx);
}

/* Under mtx. */
static bool
is_over(const struct weir_native *n)
{
    return n->closed && n->alive == 0;
}

static void
close_peers(struct weir_native *n)
{
    n->close_task.run = run_close;
    weir_loop_post(n->loop, &n->close_task);
    pthread_mutex_lock(&n->mtx);
    while (!is_over(n)) {
        if (n->sys->threads) {
            pthread_cond_wait(&n->changed, &n->mtx);
            continue;
        }
        pthread_mutex_unlock(&n->mtx);
        weir_service_step(n->service);
        pthread_mutex_lock(&n->mtx);
    }
    pthread_mutex_unlock(&n->mtx);
}

void
weir_native_close(struct weir_native *n)
{
    if (!n)
        return;
    stop_listening(n);
    if (n->owners)
        close_peers(n);
    if (n->io)
        weir_loop_stop(n->io);
    weir_loop_free(n->io);
    for (uint32_t i = 0; n->owners && i < n->owner_count; i++) {
        WEIR_ASSERT(n->owners[i].channels.count == 0);
        weir_map_fini(&n->owners[i].channels);
        outlet_fini(&n->owners[i].outlet);
    }
    outlet_fini(&n->outlet);
    pthread_mutex_destroy(&n->mtx);
    pthread_cond_destroy(&n->changed);
    free(n->owners);
    free(n);
}
