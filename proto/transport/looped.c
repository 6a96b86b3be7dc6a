/* Connections on a loop's own epoll, speaking the same bytes as stream.c.
 *
 *   listen -> accept -> our greeting, the peer's -> accepted
 *     readable -> read, take messages out -> on_message for each     on the loop
 *     send -> written at once by whoever sends; what the socket does not take, by the loop
 *
 * No thread but the loop's and the sender's has a part in a message: that is what it is for. The
 * streams of NNG hand each completed operation to a thread of a pool, which costs more than the
 * operation where messages are few.
 *
 * `sending` says who writes: the holder alone looks at what is queued from the front. Where the
 * socket is full the holder sets `blocked` and the loop is the holder. The end comes on the loop
 * when the connection is closed and nobody else writes:
 *
 *   closed by anyone -> the writer notices -> sent(CANCELLED) for the rest -> on_closed -> the last
 * reference frees */
#include "base/assert.h"
#include "transport/conn.h"
#include "transport/sp.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    IOVS_MAX = 64,
    CALL_BYTES = 1024 * 1024, /* no further message joins a call that has so much */
    OWN_BYTES = 1024 * 1024,  /* after so much a sender leaves the rest to the loop */
    READS_MAX = 8,            /* of one connection before others have their turn */
    ACCEPTS_MAX = 64,
    BACKLOG = 1024,
    HANDSHAKES_MAX = 4096, /* of one listener; more are turned away */
    HANDSHAKE_MS = 5000,
    ACCEPT_RETRY_US = 100 * 1000, /* after the machine had no descriptor or memory for another */
    WAIT_BYTES =
        64 * 1024, /* of a message: with more missing the loop sleeps until much is there */
};

struct looped_listener {
    struct weir_loop *loop;
    struct weir_transport_options options; /* without the strings */
    weir_accepted accepted;
    void *arg;
    int fd;
    bool is_ipc;
    char path[sizeof((struct sockaddr_un *)0)->sun_path]; /* to be removed; may be empty */
    struct weir_task start_task, close_task;

    /* loop only */
    struct weir_watch watch;
    struct weir_timer retry;
    struct weir_list handshakes; /* of looped_conn */
    size_t handshake_count;

    pthread_mutex_t mtx;
    pthread_cond_t changed;
    bool is_done; /* under mtx: what was asked of the loop */
};

struct looped_conn {
    struct weir_conn base;
    struct weir_loop *loop;
    int fd;
    struct weir_task task; /* looks at what changed; holds a reference while queued */

    /* loop only */
    struct weir_watch watch;
    struct weir_timer timer; /* the handshake's deadline */
    struct weir_sp sp;
    struct looped_listener *listener; /* until open */
    struct weir_list node;            /* in listener->handshakes */
    int low_water;                    /* as the socket has it */
    bool ended;

    pthread_mutex_t mtx;
    /* under mtx */
    bool sending, blocked;
    bool paused;  /* on_message said so */
    bool resumed; /* nobody may know yet that it is paused */
    bool closed;
    enum weir_status why;
    struct weir_list queue; /* of weir_send; the writer alone takes from it */
    uint64_t head_bytes;    /* of the first, prefix included, that are out */
};

static struct looped_conn *
looped_of(struct weir_conn *c)
{
    return WEIR_CONTAINER(c, struct looped_conn, base);
}

/* Any thread. */
static void
wake(struct looped_conn *c)
{
    weir_conn_hold(&c->base);
    if (!weir_loop_post(c->loop, &c->task))
        weir_conn_drop(&c->base);
}

/* under mtx */
static void
close_locked(struct looped_conn *c, enum weir_status why)
{
    if (c->closed)
        return;
    c->closed = true;
    c->why = why;
    shutdown(c->fd, SHUT_RDWR);
    wake(c);
}

static void
close_conn(struct looped_conn *c, enum weir_status why)
{
    pthread_mutex_lock(&c->mtx);
    close_locked(c, why);
    pthread_mutex_unlock(&c->mtx);
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

/* ---- writing ---- */

struct call {
    struct iovec iov[IOVS_MAX];
    uint8_t prefix[IOVS_MAX][WEIR_SP_PREFIX_BYTES_MAX];
    size_t count;
    uint64_t bytes;
};

static void
add(struct call *call, const uint8_t *data, size_t len, uint64_t *skip)
{
    if (*skip >= len) {
        *skip -= len;
        return;
    }
    len -= *skip;
    call->iov[call->count++] = (struct iovec){(void *)(uintptr_t)(data + *skip), len};
    call->bytes += len;
    *skip = 0;
}

/* under mtx: what is queued, from the first byte on that is not out. */
static void
gather(const struct looped_conn *c, struct call *call)
{
    uint64_t skip = c->head_bytes;
    size_t messages = 0;
    call->count = 0;
    call->bytes = 0;
    WEIR_LIST_FOR_EACH (node, &c->queue) {
        const struct weir_send *s = WEIR_CONTAINER(node, struct weir_send, node);
        if (call->count + s->count + 1 > IOVS_MAX || call->bytes >= CALL_BYTES)
            break;
        uint8_t *prefix = call->prefix[messages++];
        add(call, prefix, weir_sp_prefix(c->sp.is_ipc, weir_send_bytes(s), prefix), &skip);
        for (uint32_t i = 0; i < s->count; i++) {
            struct weir_bytes piece = weir_slice_bytes(s->piece[i]);
            add(call, piece.data, piece.len, &skip);
        }
    }
}

/* under mtx: moves the messages that are out as a whole to `done`. */
static void
advance(struct looped_conn *c, uint64_t bytes, struct weir_list *done)
{
    size_t prefix = c->sp.is_ipc ? 9 : 8;
    atomic_fetch_sub_explicit(&c->base.queued_bytes, bytes, memory_order_relaxed);
    c->head_bytes += bytes;
    while (!weir_list_is_empty(&c->queue)) {
        struct weir_list *node = c->queue.next;
        uint64_t all = weir_send_bytes(WEIR_CONTAINER(node, struct weir_send, node)) + prefix;
        if (c->head_bytes < all)
            return;
        c->head_bytes -= all;
        weir_list_remove(node);
        weir_list_push_back(done, node);
    }
    WEIR_ASSERT(c->head_bytes == 0);
}

/* under mtx: the loop writes on when the socket takes more. */
static void
leave_to_loop(struct looped_conn *c)
{
    c->blocked = true;
    wake(c);
}

/* Under mtx, with `sending` up and ours; gives mtx back between calls and has it at the end. */
static void
write_queue(struct looped_conn *c)
{
    uint64_t written = 0;
    struct weir_list done;
    weir_list_init(&done);
    while (!c->closed && !weir_list_is_empty(&c->queue)) {
        if (written >= OWN_BYTES) {
            leave_to_loop(c);
            return;
        }
        struct call call;
        gather(c, &call);
        pthread_mutex_unlock(&c->mtx);
        struct msghdr message = {.msg_iov = call.iov, .msg_iovlen = call.count};
        ssize_t n = sendmsg(c->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        int error = errno;
        pthread_mutex_lock(&c->mtx);
        if (n < 0 && error == EINTR)
            continue;
        if (n < 0 && error == EAGAIN) {
            leave_to_loop(c);
            return;
        }
        if (n < 0) {
            bool is_gone = error == EPIPE || error == ECONNRESET;
            close_locked(c, is_gone ? WEIR_UNAVAILABLE : weir_status_from_errno(error));
            break;
        }
        written += (uint64_t)n;
        advance(c, (uint64_t)n, &done);
        if (!weir_list_is_empty(&done)) {
            /* Before more is written, so that `sent` keeps the order of the messages. */
            pthread_mutex_unlock(&c->mtx);
            return_sends(&done, WEIR_OK);
            pthread_mutex_lock(&c->mtx);
        } else if ((uint64_t)n < call.bytes) {
            leave_to_loop(c);
            return;
        }
    }
    c->sending = false;
    if (c->closed)
        wake(c);
}

static void
looped_send(struct weir_conn *base, struct weir_send *s)
{
    struct looped_conn *c = looped_of(base);
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
        weir_conn_hold(base); /* a `sent` may let the caller's go */
        c->sending = true;
        write_queue(c);
        pthread_mutex_unlock(&c->mtx);
        weir_conn_drop(base);
        return;
    }
    pthread_mutex_unlock(&c->mtx);
}

/* ---- the loop's part ---- */

static void
leave_handshakes(struct looped_conn *c)
{
    weir_timer_stop(c->loop, &c->timer);
    weir_list_remove(&c->node);
    c->listener->handshake_count--;
    c->listener = NULL;
}

static void
end(struct looped_conn *c)
{
    bool was_open = !c->listener;
    c->ended = true;
    weir_watch_stop(c->loop, &c->watch);
    if (c->listener)
        leave_handshakes(c);
    close(c->fd);
    c->fd = -1;
    return_sends(&c->queue, WEIR_CANCELLED);
    atomic_store(&c->base.queued_bytes, 0);
    if (was_open && c->base.events.on_closed)
        c->base.events.on_closed(c->base.arg, &c->base, c->why);
    weir_conn_drop(&c->base);
}

/* The rest of a large message comes in many segments: better one long sleep than many short ones.
 * The kernel caps it by what its buffer can hold, and wakes for the end of the stream at once. */
static void
sleep_for_much(struct looped_conn *c)
{
    int wanted = weir_sp_missing(&c->sp) >= WAIT_BYTES ? WAIT_BYTES : 1;
    if (wanted == c->low_water || c->sp.is_ipc)
        return;
    if (!setsockopt(c->fd, SOL_SOCKET, SO_RCVLOWAT, &wanted, sizeof wanted))
        c->low_water = wanted;
}

/* Listens for what is wanted, or ends. With a reference of the caller's. */
static void
settle(struct looped_conn *c)
{
    if (c->ended)
        return;
    pthread_mutex_lock(&c->mtx);
    bool is_time = c->closed && (!c->sending || c->blocked);
    uint32_t events = 0;
    if (!c->closed && !c->paused)
        events |= EPOLLIN;
    if (!c->closed && c->blocked)
        events |= EPOLLOUT;
    pthread_mutex_unlock(&c->mtx);
    if (is_time) {
        end(c);
        return;
    }
    if (events & EPOLLIN)
        sleep_for_much(c);
    enum weir_status st = weir_watch_change(c->loop, &c->watch, events);
    if (st)
        close_conn(c, st);
}

/* Makes the connection known. */
static void
open_conn(struct looped_conn *c)
{
    struct looped_listener *l = c->listener;
    leave_handshakes(c);
    weir_conn_ref(&c->base); /* the callee's */
    l->accepted(l->arg, &c->base);
}

/* Gives one message away; false when no more may come for now. */
static bool
deliver(struct looped_conn *c, struct weir_buf *message)
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
    c->paused = !more && !c->resumed;
    bool goes_on = !c->closed && !c->paused;
    pthread_mutex_unlock(&c->mtx);
    return goes_on;
}

/* Takes apart what was read; false when nothing more may be read for now. */
static bool
take_messages(struct looped_conn *c)
{
    enum weir_status st = WEIR_OK;
    if (!c->sp.greeted) {
        st = weir_sp_greet(&c->sp);
        if (st == WEIR_OK)
            open_conn(c);
    }
    while (!st) {
        struct weir_buf *message;
        st = weir_sp_next(&c->sp, atomic_load(&c->base.message_max), &message);
        if (!st && !deliver(c, message))
            return false;
    }
    if (st == WEIR_AGAIN)
        return true;
    close_conn(c, st);
    return false;
}

static void
read_some(struct looped_conn *c)
{
    for (int i = 0; i < READS_MAX; i++) {
        struct weir_sp_room room[2];
        struct iovec iov[2];
        size_t space = 0;
        unsigned count = weir_sp_room(&c->sp, room);
        for (unsigned k = 0; k < count; k++) {
            iov[k] = (struct iovec){room[k].data, room[k].len};
            space += room[k].len;
        }
        ssize_t n = readv(c->fd, iov, (int)count);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) {
            bool is_gone = n == 0 || errno == ECONNRESET || errno == EPIPE;
            close_conn(c, is_gone ? WEIR_UNAVAILABLE : weir_status_from_errno(errno));
            return;
        }
        weir_sp_filled(&c->sp, (size_t)n);
        if (!take_messages(c))
            return;
        if ((size_t)n < space)
            return;
    }
}

/* Writes on where the loop is the writer. */
static void
write_on(struct looped_conn *c)
{
    pthread_mutex_lock(&c->mtx);
    if (c->blocked && !c->closed) {
        c->blocked = false;
        write_queue(c);
    }
    pthread_mutex_unlock(&c->mtx);
}

static void
on_ready(struct weir_watch *watch, uint32_t events)
{
    struct looped_conn *c = WEIR_CONTAINER(watch, struct looped_conn, watch);
    weir_conn_hold(&c->base);
    if (events & EPOLLOUT)
        write_on(c);
    if (events & (EPOLLIN | EPOLLERR | EPOLLHUP))
        read_some(c);
    settle(c);
    weir_conn_drop(&c->base);
}

/* The loop was woken: closed, blocked, or resumed. */
static void
on_task(struct weir_task *task)
{
    struct looped_conn *c = WEIR_CONTAINER(task, struct looped_conn, task);
    pthread_mutex_lock(&c->mtx);
    bool resumes = c->paused && c->resumed && !c->closed;
    if (resumes)
        c->paused = false;
    pthread_mutex_unlock(&c->mtx);
    if (resumes && !c->ended)
        take_messages(c);
    settle(c);
    weir_conn_drop(&c->base);
}

static void
on_timer(struct weir_timer *timer)
{
    close_conn(WEIR_CONTAINER(timer, struct looped_conn, timer), WEIR_TIMEOUT);
}

/* ---- from other threads ---- */

static void
looped_start(struct weir_conn *base)
{
    struct looped_conn *c = looped_of(base);
    pthread_mutex_lock(&c->mtx);
    c->resumed = true;
    if (c->paused)
        wake(c);
    pthread_mutex_unlock(&c->mtx);
}

static void
looped_close(struct weir_conn *base, enum weir_status why)
{
    close_conn(looped_of(base), why);
}

static void
looped_free(struct weir_conn *base)
{
    struct looped_conn *c = looped_of(base);
    WEIR_ASSERT(c->ended);
    weir_sp_fini(&c->sp);
    pthread_mutex_destroy(&c->mtx);
    free(c);
}

/* ---- accepting ---- */

static const struct weir_conn_ops looped_ops = {looped_start, looped_send, looped_close,
                                                looped_free};

static void
name_peer(int fd, bool is_ipc, char *out, size_t size)
{
    char host[INET6_ADDRSTRLEN], port[8];
    struct sockaddr_storage address;
    socklen_t len = sizeof address;
    struct ucred who;
    socklen_t who_len = sizeof who;
    if (is_ipc) {
        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &who_len))
            snprintf(out, size, "ipc");
        else
            snprintf(out, size, "ipc pid %d uid %u", (int)who.pid, (unsigned)who.uid);
    } else if (getpeername(fd, (struct sockaddr *)&address, &len) ||
               getnameinfo((struct sockaddr *)&address, len, host, sizeof host, port, sizeof port,
                           NI_NUMERICHOST | NI_NUMERICSERV)) {
        snprintf(out, size, "tcp");
    } else {
        bool is_v6 = address.ss_family == AF_INET6;
        snprintf(out, size, is_v6 ? "tcp [%s]:%s" : "tcp %s:%s", host, port);
    }
}

/* Takes `fd`, also on failure. */
static void
take_socket(struct looped_listener *l, int fd)
{
    struct looped_conn *c = NULL;
    int on = 1;
    if (!l->is_ipc)
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    /* The socket is new, so it takes eight bytes. */
    bool greeted = l->handshake_count < HANDSHAKES_MAX &&
                   send(fd, weir_sp_greeting, sizeof weir_sp_greeting,
                        MSG_NOSIGNAL | MSG_DONTWAIT) == sizeof weir_sp_greeting;
    if (greeted)
        c = calloc(1, sizeof *c);
    if (!c) {
        close(fd);
        return;
    }
    weir_conn_init(&c->base, &looped_ops, &l->options);
    pthread_mutex_init(&c->mtx, NULL);
    weir_list_init(&c->queue);
    c->loop = l->loop;
    c->fd = fd;
    c->task.run = on_task;
    c->watch.ready = on_ready;
    c->timer.run = on_timer;
    c->sp.is_ipc = l->is_ipc;
    c->low_water = 1;
    c->listener = l;
    name_peer(fd, l->is_ipc, c->base.peer, sizeof c->base.peer);
    weir_list_push_back(&l->handshakes, &c->node);
    l->handshake_count++;
    weir_timer_start(l->loop, &c->timer, (uint64_t)l->options.handshake_ms * 1000);
    enum weir_status st = weir_watch_start(l->loop, &c->watch, fd, EPOLLIN);
    if (st)
        close_conn(c, st);
}

static void
on_acceptable(struct weir_watch *watch, uint32_t)
{
    struct looped_listener *l = WEIR_CONTAINER(watch, struct looped_listener, watch);
    for (int i = 0; i < ACCEPTS_MAX; i++) {
        int fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            take_socket(l, fd);
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
            (void)!weir_watch_change(l->loop, &l->watch, 0);
            weir_timer_start(l->loop, &l->retry, ACCEPT_RETRY_US);
            return;
        } else if (errno != EINTR && errno != ECONNABORTED) {
            return;
        }
    }
}

static void
on_retry(struct weir_timer *timer)
{
    struct looped_listener *l = WEIR_CONTAINER(timer, struct looped_listener, retry);
    if (weir_watch_change(l->loop, &l->watch, EPOLLIN))
        weir_timer_start(l->loop, &l->retry, ACCEPT_RETRY_US);
}

/* ---- listening ---- */

static void
say_done(struct looped_listener *l)
{
    pthread_mutex_lock(&l->mtx);
    l->is_done = true;
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->mtx);
}

static void
run_start(struct weir_task *task)
{
    struct looped_listener *l = WEIR_CONTAINER(task, struct looped_listener, start_task);
    if (weir_watch_start(l->loop, &l->watch, l->fd, EPOLLIN))
        weir_timer_start(l->loop, &l->retry, ACCEPT_RETRY_US);
    say_done(l);
}

static void
run_close(struct weir_task *task)
{
    struct looped_listener *l = WEIR_CONTAINER(task, struct looped_listener, close_task);
    weir_watch_stop(l->loop, &l->watch);
    weir_timer_stop(l->loop, &l->retry);
    while (!weir_list_is_empty(&l->handshakes)) {
        struct looped_conn *c = WEIR_CONTAINER(l->handshakes.next, struct looped_conn, node);
        close_conn(c, WEIR_CANCELLED);
        settle(c);
    }
    say_done(l);
}

/* Has the loop do it, and waits. */
static void
run_on_loop(struct looped_listener *l, struct weir_task *task)
{
    if (weir_loop_is_current(l->loop)) {
        task->run(task);
        return;
    }
    pthread_mutex_lock(&l->mtx);
    l->is_done = false;
    weir_loop_post(l->loop, task);
    while (!l->is_done)
        pthread_cond_wait(&l->changed, &l->mtx);
    pthread_mutex_unlock(&l->mtx);
}

static enum weir_status
bind_to(int fd, const struct sockaddr *address, socklen_t len)
{
    if (bind(fd, address, len) || listen(fd, BACKLOG))
        return errno == EADDRINUSE ? WEIR_BUSY : weir_status_from_errno(errno);
    return WEIR_OK;
}

/* A socket file that nobody answers on was left behind by a process that is gone. */
static bool
is_left_behind(const struct sockaddr_un *address, socklen_t len)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool is_refused =
        fd >= 0 && connect(fd, (const struct sockaddr *)address, len) && errno == ECONNREFUSED;
    if (fd >= 0)
        close(fd);
    return is_refused;
}

static enum weir_status
listen_ipc(struct looped_listener *l, const char *name, bool is_abstract, struct weir_error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t at = is_abstract, len = strlen(name);
    if (at + len >= sizeof address.sun_path)
        return weir_fail(err, WEIR_TOO_BIG, "the path is too long for a socket");
    memcpy(address.sun_path + at, name, len);
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + at + len + !is_abstract);
    l->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (l->fd < 0)
        return weir_fail(err, weir_status_from_errno(errno), "%s", strerror(errno));
    enum weir_status st = bind_to(l->fd, (struct sockaddr *)&address, size);
    if (st == WEIR_BUSY && !is_abstract && is_left_behind(&address, size)) {
        unlink(name);
        st = bind_to(l->fd, (struct sockaddr *)&address, size);
    }
    if (!st && !is_abstract)
        memcpy(l->path, address.sun_path, sizeof l->path);
    return st ? weir_fail(err, st, "%s", weir_status_text(st)) : WEIR_OK;
}

/* "HOST:PORT", "[HOST]:PORT"; no host or '*': all addresses. */
static bool
split(const char *text, char host[WEIR_URL_BYTES_MAX], char port[8])
{
    const char *colon = strrchr(text, ':');
    if (!colon || strlen(colon + 1) > 7 || !colon[1])
        return false;
    snprintf(port, 8, "%s", colon + 1);
    size_t len = (size_t)(colon - text);
    if (len >= 2 && text[0] == '[' && text[len - 1] == ']') {
        text++;
        len -= 2;
    }
    snprintf(host, WEIR_URL_BYTES_MAX, "%.*s", (int)len, text);
    return true;
}

static enum weir_status
listen_tcp(struct looped_listener *l, const char *text, char *url_out, struct weir_error *err)
{
    char host[WEIR_URL_BYTES_MAX], port[8];
    if (!split(text, host, port))
        return weir_fail(err, WEIR_INVALID, "no HOST:PORT");
    bool is_any = !host[0] || strcmp(host, "*") == 0;
    struct addrinfo *found, hints = {.ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM};
    int rv = getaddrinfo(is_any ? NULL : host, port, &hints, &found);
    if (rv)
        return weir_fail(err, WEIR_INVALID, "%s", gai_strerror(rv));
    enum weir_status st = WEIR_OK;
    int on = 1;
    l->fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (l->fd < 0 || setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on))
        st = weir_status_from_errno(errno);
    if (!st)
        st = bind_to(l->fd, found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
    if (st)
        return weir_fail(err, st, "%s", weir_status_text(st));

    struct sockaddr_storage real;
    socklen_t len = sizeof real;
    if (strcmp(port, "0") == 0 && !getsockname(l->fd, (struct sockaddr *)&real, &len)) {
        in_port_t chosen = real.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&real)->sin6_port
                                                      : ((struct sockaddr_in *)&real)->sin_port;
        snprintf(url_out, WEIR_URL_BYTES_MAX, "tcp://%.*s:%u", (int)(strrchr(text, ':') - text),
                 text, ntohs(chosen));
    }
    return WEIR_OK;
}

static void
listener_free(struct looped_listener *l)
{
    if (l->fd >= 0)
        close(l->fd);
    if (l->path[0])
        unlink(l->path);
    pthread_cond_destroy(&l->changed);
    pthread_mutex_destroy(&l->mtx);
    free(l);
}

enum weir_status
weir_looped_listen(const char *url, const struct weir_transport_options *options,
                   weir_accepted accepted, void *arg, void **out, char *url_out,
                   struct weir_error *err)
{
    struct looped_listener *l = calloc(1, sizeof *l);
    if (!l)
        return weir_fail(err, WEIR_NO_MEMORY, "no memory to listen on '%s'", url);
    const char *tcp = weir_url_rest(url, "tcp"), *ipc = weir_url_rest(url, "ipc"),
               *abstract = weir_url_rest(url, "abstract");
    *l = (struct looped_listener){.loop = options->loop,
                                  .options = *options,
                                  .accepted = accepted,
                                  .arg = arg,
                                  .fd = -1,
                                  .is_ipc = !tcp,
                                  .start_task.run = run_start,
                                  .close_task.run = run_close,
                                  .watch.ready = on_acceptable,
                                  .retry.run = on_retry};
    l->options.tls_certificate = l->options.tls_key = l->options.tls_ca = NULL;
    if (!l->options.handshake_ms)
        l->options.handshake_ms = HANDSHAKE_MS;
    pthread_mutex_init(&l->mtx, NULL);
    pthread_cond_init(&l->changed, NULL);
    weir_list_init(&l->handshakes);

    enum weir_status st =
        tcp ? listen_tcp(l, tcp, url_out, err) : listen_ipc(l, ipc ? ipc : abstract, !ipc, err);
    if (st) {
        listener_free(l);
        return weir_fail_in(err, st, "cannot listen on '%s'", url);
    }
    run_on_loop(l, &l->start_task);
    *out = l;
    return WEIR_OK;
}

void
weir_looped_listener_close(void *listener)
{
    struct looped_listener *l = listener;
    run_on_loop(l, &l->close_task);
    listener_free(l);
}
