/* Connections inside the process: a pair of ends, each with an inbox.
 *
 *   send: the message goes into the other end's inbox -> schedule the other end
 *   turn of an end: accepted or dialed, once -> a message out of the inbox, copied; sent;
 * on_message
 *                   -> … -> when the pair is closed: sent(CANCELLED) for the rest, on_closed, once
 *
 * Turns of one end never overlap. They run as tasks of the loop that the options name, so that a
 * stepped test decides when; without a loop, as callbacks of an NNG operation that is begun and
 * finished at once, which borrows NNG's threads.
 *
 * Messages are copied, as a network would: who receives may write to what it gets, and limits hold
 * here as anywhere. */
#include "base/assert.h"
#include "transport/conn.h"
#include <nng/nng.h>
#include <stdio.h>
#include <stdlib.h>

struct pair;

struct end {
    struct weir_conn base;
    struct pair *pair;
    struct end *other;
    struct weir_loop *loop; /* or NULL */
    struct weir_task task;
    nng_aio *aio;                     /* where there is no loop */
    struct inproc_listener *listener; /* of the accepting end; turns only */
    weir_dialed dialed;               /* of the dialing end */
    void *dialed_arg;

    /* under pair->mtx */
    struct weir_list inbox; /* of weir_send, the other end's */
    bool scheduled;         /* a turn is queued or running */
    bool work;              /* there is something to do since that turn began to look */
    bool open;              /* the user knows it */
    bool returning;         /* a message is out of the inbox, `sent` has not been told */
    bool paused, resumed, ended;
    enum weir_status why;
};

struct pair {
    pthread_mutex_t mtx;
    atomic_uint refs; /* of ends */
    bool closed;      /* under mtx */
    struct end end[2];
};

struct inproc_listener {
    char name[WEIR_URL_BYTES_MAX];
    struct weir_transport_options options; /* without the strings */
    weir_accepted accepted;
    void *arg;
    struct weir_list node; /* in names */

    pthread_mutex_t mtx;
    pthread_cond_t idle;
    /* under mtx */
    unsigned refs; /* ends not accepted yet, and the owner */
    unsigned accepting;
    bool closed;
};

/* The names of this process, as the machine has one set of ports. */
static pthread_mutex_t names_mtx = PTHREAD_MUTEX_INITIALIZER;
static struct weir_list names = {&names, &names}; /* of inproc_listener, under names_mtx */

static struct end *
end_of(struct weir_conn *c)
{
    return WEIR_CONTAINER(c, struct end, base);
}

/* ---- turns ---- */

/* under pair->mtx */
static void
schedule(struct end *e)
{
    e->work = true;
    if (e->scheduled || e->ended)
        return;
    e->scheduled = true;
    weir_conn_hold(&e->base); /* the turn's */
    if (e->loop)
        weir_loop_post(e->loop, &e->task);
    else if (nng_aio_begin(e->aio))
        nng_aio_finish(e->aio, 0);
}

static void
listener_unref(struct inproc_listener *l)
{
    pthread_mutex_lock(&l->mtx);
    unsigned left = --l->refs;
    pthread_mutex_unlock(&l->mtx);
    if (left)
        return;
    pthread_cond_destroy(&l->idle);
    pthread_mutex_destroy(&l->mtx);
    free(l);
}

static void
accept_end(struct end *e)
{
    struct inproc_listener *l = e->listener;
    e->listener = NULL;
    pthread_mutex_lock(&l->mtx);
    bool closed = l->closed;
    l->accepting += !closed;
    pthread_mutex_unlock(&l->mtx);
    if (closed) {
        weir_conn_close(&e->base);
        weir_conn_unref(&e->base); /* what would have been the callee's */
    } else {
        l->accepted(l->arg, &e->base);
        pthread_mutex_lock(&l->mtx);
        l->accepting--;
        pthread_cond_broadcast(&l->idle);
        pthread_mutex_unlock(&l->mtx);
    }
    listener_unref(l);
}

/* Tells the user of this end that it is there. */
static void
open_end(struct end *e)
{
    if (e->listener)
        accept_end(e);
    else
        e->dialed(e->dialed_arg, &e->base, WEIR_OK);
}

static struct weir_buf *
copy_message(const struct weir_send *s, uint64_t bytes)
{
    struct weir_buf *m = weir_buf_new((size_t)bytes + !bytes);
    if (!m)
        return NULL;
    m->len = 0;
    for (uint32_t i = 0; i < s->count; i++) {
        struct weir_bytes piece = weir_slice_bytes(s->piece[i]);
        if (piece.len)
            memcpy(m->data + m->len, piece.data, piece.len);
        m->len += piece.len;
    }
    return m;
}

static void
inproc_close(struct weir_conn *base, enum weir_status why)
{
    struct end *e = end_of(base);
    pthread_mutex_lock(&e->pair->mtx);
    if (!e->pair->closed) {
        e->pair->closed = true;
        e->why = why;
        e->other->why = WEIR_UNAVAILABLE;
        schedule(e);
        schedule(e->other);
    }
    pthread_mutex_unlock(&e->pair->mtx);
}

/* Gives one message to the user; returns it to its sender first, as a network would. */
static void
deliver(struct end *e, struct weir_send *s)
{
    uint64_t bytes = weir_send_bytes(s);
    bool fits = bytes <= atomic_load(&e->base.message_max);
    struct weir_buf *m = fits ? copy_message(s, bytes) : NULL;
    atomic_fetch_sub_explicit(&e->other->base.queued_bytes, bytes, memory_order_relaxed);
    s->sent(s, m ? WEIR_OK : WEIR_CANCELLED);
    pthread_mutex_lock(&e->pair->mtx);
    e->returning = false;
    if (e->pair->closed)
        schedule(e->other); /* its end has waited for this */
    pthread_mutex_unlock(&e->pair->mtx);
    if (!m) {
        inproc_close(&e->base, fits ? WEIR_NO_MEMORY : WEIR_TOO_BIG);
        return;
    }
    bool more = true;
    if (e->base.events.on_message)
        more = e->base.events.on_message(e->base.arg, &e->base, m);
    else
        weir_buf_unref(m);
    pthread_mutex_lock(&e->pair->mtx);
    e->paused = !more && !e->resumed;
    pthread_mutex_unlock(&e->pair->mtx);
}

static void
end_end(struct end *e, struct weir_list *unread)
{
    struct weir_list *node;
    while ((node = weir_list_pop_front(unread))) {
        struct weir_send *s = WEIR_CONTAINER(node, struct weir_send, node);
        s->sent(s, WEIR_CANCELLED);
    }
    if (e->base.events.on_closed)
        e->base.events.on_closed(e->base.arg, &e->base, e->why);
    weir_conn_drop(&e->base); /* the pair's own */
}

/* Does the next thing there is to do; false when there is none. */
static bool
step(struct end *e)
{
    struct weir_list *node = NULL, rest;
    weir_list_init(&rest);
    pthread_mutex_lock(&e->pair->mtx);
    bool opens = !e->open;
    bool ends = !opens && e->pair->closed && !e->ended && !e->other->returning;
    e->open = true;
    if (ends) {
        e->ended = true;
        atomic_store(&e->base.queued_bytes, 0);
        while ((node = weir_list_pop_front(&e->other->inbox)))
            weir_list_push_back(&rest, node);
    } else if (!opens && !e->pair->closed && !e->paused) {
        node = weir_list_pop_front(&e->inbox);
        e->returning = node != NULL;
        e->resumed = false;
    }
    pthread_mutex_unlock(&e->pair->mtx);

    if (opens)
        open_end(e);
    else if (ends)
        end_end(e, &rest);
    else if (node)
        deliver(e, WEIR_CONTAINER(node, struct weir_send, node));
    return opens || ends || node;
}

static void
turn(struct end *e)
{
    bool goes_on = true;
    while (goes_on) {
        pthread_mutex_lock(&e->pair->mtx);
        e->work = false;
        pthread_mutex_unlock(&e->pair->mtx);
        while (step(e))
            ;
        pthread_mutex_lock(&e->pair->mtx);
        goes_on = e->work && !e->ended;
        e->scheduled = goes_on;
        pthread_mutex_unlock(&e->pair->mtx);
    }
    weir_conn_drop(&e->base); /* the turn's */
}

static void
turn_as_task(struct weir_task *task)
{
    turn(WEIR_CONTAINER(task, struct end, task));
}

static void
turn_as_callback(void *arg)
{
    turn(arg);
}

/* ---- the calls ---- */

static void
inproc_start(struct weir_conn *base)
{
    struct end *e = end_of(base);
    pthread_mutex_lock(&e->pair->mtx);
    if (e->paused) {
        e->paused = false;
        schedule(e);
    } else {
        e->resumed = true;
    }
    pthread_mutex_unlock(&e->pair->mtx);
}

static void
inproc_send(struct weir_conn *base, struct weir_send *s)
{
    struct end *e = end_of(base);
    uint64_t bytes = weir_send_bytes(s);
    pthread_mutex_lock(&e->pair->mtx);
    bool closed = e->pair->closed;
    if (!closed) {
        weir_list_push_back(&e->other->inbox, &s->node);
        atomic_fetch_add_explicit(&base->queued_bytes, bytes, memory_order_relaxed);
        schedule(e->other);
    }
    pthread_mutex_unlock(&e->pair->mtx);
    if (closed)
        s->sent(s, WEIR_CANCELLED);
}

static void
pair_unref(struct pair *p)
{
    if (atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (int i = 0; i < 2; i++)
        if (p->end[i].aio)
            nng_aio_reap(p->end[i].aio); /* this may be a callback of it */
    pthread_mutex_destroy(&p->mtx);
    free(p);
}

static void
inproc_free(struct weir_conn *base)
{
    pair_unref(end_of(base)->pair);
}

static const struct weir_conn_ops inproc_ops = {inproc_start, inproc_send, inproc_close,
                                                inproc_free};

/* ---- listening and dialing ---- */

static struct weir_transport_options
own_options(const struct weir_transport_options *options)
{
    struct weir_transport_options own = *options;
    own.tls_certificate = own.tls_key = own.tls_ca = NULL;
    return own;
}

/* under names_mtx */
static struct inproc_listener *
find(const char *name)
{
    WEIR_LIST_FOR_EACH (node, &names) {
        struct inproc_listener *l = WEIR_CONTAINER(node, struct inproc_listener, node);
        if (strcmp(l->name, name) == 0)
            return l;
    }
    return NULL;
}

enum weir_status
weir_inproc_listen(const char *url, const struct weir_transport_options *options,
                   weir_accepted accepted, void *arg, void **out, struct weir_error *err)
{
    struct inproc_listener *l = calloc(1, sizeof *l);
    if (!l)
        return weir_fail(err, WEIR_NO_MEMORY, "no memory to listen on '%s'", url);
    snprintf(l->name, sizeof l->name, "%s", url);
    l->options = own_options(options);
    l->accepted = accepted;
    l->arg = arg;
    l->refs = 1;

    pthread_mutex_lock(&names_mtx);
    bool is_taken = find(url) != NULL;
    if (!is_taken)
        weir_list_push_back(&names, &l->node);
    pthread_mutex_unlock(&names_mtx);
    if (is_taken) {
        free(l);
        return weir_fail(err, WEIR_BUSY, "cannot listen on '%s': the name is in use", url);
    }
    pthread_mutex_init(&l->mtx, NULL);
    pthread_cond_init(&l->idle, NULL);
    *out = l;
    return WEIR_OK;
}

void
weir_inproc_listener_close(void *listener)
{
    struct inproc_listener *l = listener;
    pthread_mutex_lock(&names_mtx);
    weir_list_remove(&l->node);
    pthread_mutex_unlock(&names_mtx);

    pthread_mutex_lock(&l->mtx);
    l->closed = true;
    while (l->accepting)
        pthread_cond_wait(&l->idle, &l->mtx);
    pthread_mutex_unlock(&l->mtx);
    listener_unref(l);
}

static bool
end_init(struct pair *p, int index, struct weir_loop *loop,
         const struct weir_transport_options *options, const char *url)
{
    struct end *e = &p->end[index];
    weir_conn_init(&e->base, &inproc_ops, options);
    snprintf(e->base.peer, sizeof e->base.peer, "inproc %.100s", weir_url_rest(url, "inproc"));
    e->pair = p;
    e->other = &p->end[1 - index];
    e->loop = loop;
    e->task.run = turn_as_task;
    weir_list_init(&e->inbox);
    return loop || nng_aio_alloc(&e->aio, turn_as_callback, e) == 0;
}

enum weir_status
weir_inproc_dial(const char *url, const struct weir_transport_options *options, weir_dialed dialed,
                 void *arg, struct weir_error *err)
{
    pthread_mutex_lock(&names_mtx);
    struct inproc_listener *l = find(url);
    if (l) {
        pthread_mutex_lock(&l->mtx);
        l->refs++;
        pthread_mutex_unlock(&l->mtx);
    }
    pthread_mutex_unlock(&names_mtx);
    if (!l)
        return weir_fail(err, WEIR_UNAVAILABLE, "nobody listens on '%s'", url);

    struct weir_loop *loop = options->loop ? options->loop : l->options.loop;
    struct pair *p = calloc(1, sizeof *p);
    if (!p || !end_init(p, 0, loop, options, url) ||
        !end_init(p, 1, l->options.loop, &l->options, url)) {
        if (p)
            nng_aio_free(p->end[0].aio);
        free(p);
        listener_unref(l);
        return weir_fail(err, WEIR_NO_MEMORY, "no memory to dial '%s'", url);
    }
    pthread_mutex_init(&p->mtx, NULL);
    atomic_init(&p->refs, 2);
    weir_conn_ref(&p->end[0].base); /* what `dialed` and `accepted` hand out */
    weir_conn_ref(&p->end[1].base);
    p->end[0].dialed = dialed;
    p->end[0].dialed_arg = arg;
    p->end[1].listener = l;

    pthread_mutex_lock(&p->mtx);
    schedule(
        &p->end[1]); /* the broker's end first: it is ready when the dialer's first words come */
    schedule(&p->end[0]);
    pthread_mutex_unlock(&p->mtx);
    return WEIR_OK;
}
