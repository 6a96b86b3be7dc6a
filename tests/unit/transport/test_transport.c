#include "harness.h"
#include <arpa/inet.h>
#include <errno.h>
#include <sys/socket.h>
#include <sys/un.h>

static const char *const schemes[] = {"tcp",      "ipc",      "abstract",     "inproc",
                                      "loop+tcp", "loop+ipc", "loop+abstract"};
static const char *const kinds[] = {"tcp", "ipc", "loop+tcp", "loop+ipc"};
#define KINDS (sizeof kinds / sizeof *kinds)
#define FOR_EACH_SCHEME(scheme)                                      \
    for (size_t i_ = 0; i_ < sizeof schemes / sizeof *schemes; i_++) \
        for (const char *scheme = schemes[i_]; scheme; scheme = NULL)

/* Messages of every size, in one piece or in seven, arrive whole and in order, both ways. */
Test(transport, carries_messages_both_ways)
{
    static const size_t sizes[] = {0,      1,      7,     100,     503,     504,      505,
                                   2048,   2049,   16383, 16384,   16385,   65536,    524287,
                                   524288, 524289, 40,    1 << 20, 3000000, 16 << 20, 12};
    FOR_EACH_SCHEME(scheme)
    {
        struct world w;
        world_init(&w);
        world_connect(scheme);
        size_t n = sizeof sizes / sizeof *sizes;
        for (size_t i = 0; i < n; i++) {
            send_message(&w.client, i, sizes[i], i % 2 ? 1 : 7);
            send_message(&w.server, i, sizes[n - 1 - i], i % 2 ? 7 : 1);
        }
        for (size_t i = 0; i < n; i++) {
            expect_message(&w.server, i, i, sizes[i]);
            expect_message(&w.client, i, i, sizes[n - 1 - i]);
        }
        WAIT_UNTIL(w.client.sent == n && w.server.sent == n);
        cr_expect(eq(u64, weir_conn_queued_bytes(w.client.conn), 0));
        world_fini();
    }
}

/* Many small messages, far more than one call carries, keep their order. */
Test(transport, keeps_the_order_of_many_small_messages)
{
    enum { MANY = 20000 };
    FOR_EACH_SCHEME(scheme)
    {
        struct world w;
        world_init(&w);
        world_connect(scheme);
        for (size_t i = 0; i < MANY; i++)
            send_message(&w.client, i, i % 300, 1 + i % 3);
        WAIT_UNTIL(w.server.count == MANY);
        for (size_t i = 0; i < MANY; i++)
            expect_message(&w.server, i, i, i % 300);
        world_fini();
    }
}

/* Until it is lifted, the first limit holds; then the other one. Whoever sends more is closed. */
Test(transport, closes_a_peer_that_sends_too_much)
{
    FOR_EACH_SCHEME(scheme)
    {
        struct world w;
        world_init(&w);
        w.options.first_message_bytes_max = 1000;
        w.options.message_bytes_max = 100000;
        world_connect(scheme);
        send_message(&w.client, 0, 1000, 1);
        expect_message(&w.server, 0, 0, 1000);
        weir_conn_set_limit(w.server.conn);
        send_message(&w.client, 1, 100000, 1);
        expect_message(&w.server, 1, 1, 100000);
        send_message(&w.client, 2, 100001, 1);
        WAIT_UNTIL(w.server.closed && w.client.closed);
        cr_expect(eq(int, w.server.why, WEIR_TOO_BIG));
        cr_expect(eq(sz, w.server.count, 2));
        world_fini();

        world_init(&w);
        w.options.first_message_bytes_max = 1000;
        world_connect(scheme);
        send_message(&w.server, 0, 1001, 1);
        WAIT_UNTIL(w.client.closed);
        cr_expect(eq(int, w.client.why, WEIR_TOO_BIG));
        world_fini();
    }
}

/* Who says false gets nothing more until it resumes, the sender's queue tells, and nothing is lost.
 */
Test(transport, holds_back_until_resumed)
{
    enum { MANY = 200, BYTES = 100000 };
    FOR_EACH_SCHEME(scheme)
    {
        struct world w;
        world_init(&w);
        w.server.holds = true;
        world_connect(scheme);
        for (size_t i = 0; i < MANY; i++)
            send_message(&w.client, i, BYTES, 1);
        for (size_t i = 0; i < MANY; i++) {
            WAIT_UNTIL(w.server.count == i + 1);
            if (i == MANY / 2)
                cr_expect(weir_conn_queued_bytes(w.client.conn) > 0);
            weir_conn_resume(w.server.conn);
        }
        for (size_t i = 0; i < MANY; i++)
            expect_message(&w.server, i, i, BYTES);
        WAIT_UNTIL(w.client.sent == MANY);
        cr_expect(eq(u64, weir_conn_queued_bytes(w.client.conn), 0));
        world_fini();
    }
}

/* A close in the middle of sending gives every send back, once, before the end is told. */
Test(transport, close_gives_every_send_back)
{
    enum { MANY = 300 };
    FOR_EACH_SCHEME(scheme)
    {
        struct world w;
        world_init(&w);
        w.server.holds = true;
        world_connect(scheme);
        for (size_t i = 0; i < MANY; i++)
            send_message(&w.client, i, 100000, 2);
        weir_conn_close(w.client.conn);
        WAIT_UNTIL(w.client.closed);
        cr_expect(eq(int, w.client.why, WEIR_CANCELLED));
        cr_expect(eq(sz, w.client.sent + w.client.cancelled, MANY));
        cr_expect(w.client.cancelled > 0);
        world_fini();
    }
}

/* A send on a closed connection comes back as well. */
Test(transport, send_after_close_comes_back)
{
    FOR_EACH_SCHEME(scheme)
    {
        struct world w;
        world_init(&w);
        world_connect(scheme);
        weir_conn_close(w.client.conn);
        weir_conn_close(w.client.conn);
        send_message(&w.client, 0, 10, 1);
        WAIT_UNTIL(w.client.cancelled == 1 && w.client.closed);
        w.client.after_closed = 0; /* this one may be */
        world_fini();
    }
}

/* A connection may be closed from within its own on_message; nothing follows. */
Test(transport, may_be_closed_from_a_callback)
{
    FOR_EACH_SCHEME(scheme)
    {
        struct world w;
        world_init(&w);
        w.server.closes = true;
        world_connect(scheme);
        for (size_t i = 0; i < 100; i++)
            send_message(&w.client, i, 100, 1);
        WAIT_UNTIL(w.server.closed && w.client.closed);
        cr_expect(eq(sz, w.server.count, 1));
        cr_expect(eq(int, w.server.why, WEIR_CANCELLED));
        cr_expect(eq(int, w.client.why, WEIR_UNAVAILABLE));
        w.client.after_closed = 0; /* sends on the closed connection came back, as they must */
        world_fini();
    }
}

/* A last word before the close is heard: what `sent` has confirmed arrives, then the end. */
Test(transport, last_words_arrive)
{
    FOR_EACH_SCHEME(scheme)
    {
        for (int round = 0; round < 20; round++) {
            struct world w;
            world_init(&w);
            world_connect(scheme);
            for (size_t i = 0; i < 5; i++)
                send_message(&w.server, i, 5000, 1);
            WAIT_UNTIL(w.server.sent == 5);
            weir_conn_close(w.server.conn);
            WAIT_UNTIL(w.client.closed);
            cr_assert(eq(sz, w.client.count, 5), "%s, round %d", scheme, round);
            world_fini();
        }
    }
}

/* Letting the only reference go closes the connection. */
Test(transport, a_connection_that_is_let_go_is_closed)
{
    FOR_EACH_SCHEME(scheme)
    {
        struct world w;
        world_init(&w);
        world_connect(scheme);
        struct weir_conn *conn = w.server.conn;
        w.server.conn = NULL;
        weir_conn_unref(conn);
        WAIT_UNTIL(w.server.closed && w.client.closed);
        world_fini();
    }
}

/* Where nobody listens the dial says so. */
Test(transport, dialing_nobody_is_unavailable)
{
    struct world w;
    world_init(&w);
    world_listen("tcp");
    weir_listener_close(w.listener);
    w.listener = NULL;
    world_dial();
    WAIT_UNTIL(w.client.dialed);
    cr_expect(eq(int, w.client.dial_status, WEIR_UNAVAILABLE));

    w.client.dialed = false;
    snprintf(w.url, sizeof w.url, "ipc://%s/nobody", w.directory);
    world_dial();
    WAIT_UNTIL(w.client.dialed);
    cr_expect(eq(int, w.client.dial_status, WEIR_UNAVAILABLE));

    cr_expect(eq(int, weir_dial(&w.sys, "inproc://nobody", &w.options, on_dialed, NULL, NULL),
                 WEIR_UNAVAILABLE));
    world_fini();
}

/* An address that is in use, or none at all, is refused with its name. */
Test(transport, refuses_addresses_that_are_in_use_or_none)
{
    FOR_EACH_SCHEME(scheme)
    {
        struct world w;
        world_init(&w);
        world_listen(scheme);
        struct weir_listener *second = NULL;
        struct weir_error err = {0};
        w.options.loop = w.loop;
        enum weir_status st =
            weir_listen(&w.sys, w.url, &w.options, on_accepted, NULL, &second, NULL, &err);
        cr_expect(eq(int, st, WEIR_BUSY), "%s", err.text);
        cr_expect(strstr(err.text, w.url) != NULL, "%s", err.text);
        world_fini();
    }
    struct world w;
    world_init(&w);
    world_listen("loop+tcp");
    const char *const bad[] = {
        "", "tcp", "tcp://", "http://127.0.0.1:1", "tcp:/x", "tcp://1.2.3.4:x", "ws://127.0.0.1:1"};
    for (size_t i = 0; i < 2 * (sizeof bad / sizeof *bad); i++) {
        struct weir_listener *l;
        struct weir_error err = {0};
        w.options.loop = i % 2 ? w.loop : NULL;
        cr_expect(weir_listen(&w.sys, bad[i / 2], &w.options, on_accepted, NULL, &l, NULL, &err) !=
                      WEIR_OK,
                  "%s", bad[i / 2]);
        cr_expect(err.text[0] != 0);
    }
    world_fini();
}

/* Logs can name the peer. */
Test(transport, names_its_peers)
{
    static const struct {
        const char *scheme, *starts;
    } cases[] = {{"tcp", "tcp 127.0.0.1:"},
                 {"ipc", "ipc pid "},
                 {"inproc", "inproc weir-test-"},
                 {"loop+tcp", "tcp 127.0.0.1:"},
                 {"loop+ipc", "ipc pid "}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct world w;
        world_init(&w);
        world_connect(cases[i].scheme);
        const char *peer = weir_conn_peer(w.server.conn);
        cr_expect(strncmp(peer, cases[i].starts, strlen(cases[i].starts)) == 0, "'%s'", peer);
        world_fini();
    }
}

/* ---- peers that are none ---- */

static int
raw_connect(void)
{
    int fd;
    int rv;
    if (strncmp(world->url, "ipc://", 6) == 0) {
        struct sockaddr_un sa = {.sun_family = AF_UNIX};
        strncpy(sa.sun_path, world->url + 6, sizeof sa.sun_path - 1);
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        rv = connect(fd, (struct sockaddr *)&sa, sizeof sa);
    } else {
        struct sockaddr_in sa = {.sin_family = AF_INET,
                                 .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                 .sin_port = htons((uint16_t)atoi(strrchr(world->url, ':') + 1))};
        fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        rv = connect(fd, (struct sockaddr *)&sa, sizeof sa);
    }
    cr_assert(rv == 0, "connect: %s", strerror(errno));
    struct timeval limit = {.tv_sec = WAIT_S};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    return fd;
}

/* Reads until the other side hangs up; true when it did. */
static bool
hangs_up(int fd)
{
    uint8_t bytes[4096];
    ssize_t n;
    while ((n = recv(fd, bytes, sizeof bytes, 0)) > 0)
        ;
    return n == 0 || errno == ECONNRESET;
}

/* Whoever does not greet as PAIR0 does is closed, and the next peer is served. */
Test(transport, turns_away_what_is_no_pair0_peer)
{
    static const struct {
        const char *what, *bytes;
        size_t len;
    } peers[] = {
        {"http", "GET / HTTP/1.1\r\n\r\n", 18},     {"one wrong byte", "X", 1},
        {"PAIR1", "\0SP\0\0\x11\0\0", 8},           {"REQ", "\0SP\0\0\x30\0\0", 8},
        {"a reserved byte", "\0SP\0\0\x10\0\1", 8}, {"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01", 8},
    };
    for (size_t k = 0; k < KINDS; k++) {
        struct world w;
        world_init(&w);
        world_listen(kinds[k]);
        for (size_t i = 0; i < sizeof peers / sizeof *peers; i++) {
            int fd = raw_connect();
            cr_assert(send(fd, peers[i].bytes, peers[i].len, MSG_NOSIGNAL) > 0);
            cr_expect(hangs_up(fd), "%s", peers[i].what);
            close(fd);
        }
        cr_expect(eq(sz, w.accepted, 0));
        world_dial();
        WAIT_UNTIL(w.server.conn && w.client.conn);
        send_message(&w.client, 1, 100, 1);
        expect_message(&w.server, 0, 1, 100);
        world_fini();
    }
}

/* Who says nothing, or stops in the middle, is closed when its time is over. */
Test(transport, turns_away_silent_peers)
{
    for (int k = 0; k < 2; k++) {
        struct world w;
        world_init(&w);
        w.options.handshake_ms = 50;
        world_listen(k ? "loop+tcp" : "tcp");
        int silent = raw_connect(), half = raw_connect();
        cr_assert(send(half, "\0SP\0", 4, MSG_NOSIGNAL) == 4);
        cr_expect(hangs_up(silent));
        cr_expect(hangs_up(half));
        close(silent);
        close(half);
        cr_expect(eq(sz, w.accepted, 0));
        world_fini();
    }
}

/* A dial to a listener that never greets ends with TIMEOUT. */
Test(transport, dial_gives_up_on_a_silent_listener)
{
    struct world w;
    world_init(&w);
    w.options.handshake_ms = 50;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof sa;
    cr_assert(bind(fd, (struct sockaddr *)&sa, sizeof sa) == 0 && listen(fd, 1) == 0 &&
              getsockname(fd, (struct sockaddr *)&sa, &len) == 0);
    snprintf(w.url, sizeof w.url, "tcp://127.0.0.1:%d", ntohs(sa.sin_port));
    world_dial();
    WAIT_UNTIL(w.client.dialed);
    cr_expect(eq(int, w.client.dial_status, WEIR_TIMEOUT));
    close(fd);
    world_fini();
}

/* Closing a listener ends the handshakes that it has begun. */
Test(transport, closing_a_listener_ends_its_handshakes)
{
    for (int k = 0; k < 2; k++) {
        struct world w;
        world_init(&w);
        world_listen(k ? "loop+ipc" : "ipc");
        int fd = raw_connect();
        uint8_t greeting[8];
        cr_assert(recv(fd, greeting, sizeof greeting, MSG_WAITALL) == 8);
        weir_listener_close(w.listener);
        w.listener = NULL;
        cr_expect(hangs_up(fd));
        close(fd);
        world_fini();
    }
}

/* Over ipc a message that does not begin with 01 ends the connection. */
Test(transport, refuses_other_kinds_of_ipc_messages)
{
    for (int k = 0; k < 2; k++) {
        struct world w;
        world_init(&w);
        world_listen(k ? "loop+ipc" : "ipc");
        int fd = raw_connect();
        cr_assert(send(fd, "\0SP\0\0\x10\0\0\2\0\0\0\0\0\0\0\1x", 18, MSG_NOSIGNAL) == 18);
        cr_expect(hangs_up(fd));
        close(fd);
        WAIT_UNTIL(w.server.closed);
        cr_expect(eq(int, w.server.why, WEIR_INVALID));
        world_fini();
    }
}

/* A claim of many bytes takes no memory before they come. */
Test(transport, a_claim_takes_no_memory)
{
    for (int k = 0; k < 2; k++) {
        struct world w;
        world_init(&w);
        world_listen(k ? "loop+tcp" : "tcp");
        int fd[64];
        for (int i = 0; i < 64; i++) {
            fd[i] = raw_connect();
            cr_assert(send(fd[i], "\0SP\0\0\x10\0\0\0\0\0\0\1\0\0\0some", 20, MSG_NOSIGNAL) == 20);
        }
        WAIT_UNTIL(w.accepted == 64);
        size_t live, pooled;
        weir_buf_usage(&live, &pooled);
        cr_expect(live <= 64 * (size_t)600 * 1024, "%zu bytes for 64 claims of 16 MiB", live);
        for (int i = 0; i < 64; i++)
            close(fd[i]);
        WAIT_UNTIL(w.ended == 64);
        w.server.after_closed = 0; /* 64 connections share this end */
        world_fini();
    }
}

/* Ten thousand peers that come and go, at every stage of the handshake, leave nothing behind. */
Test(transport, survives_churn, .timeout = 300)
{
    enum { MANY = 10000 };
    for (size_t k = 0; k < KINDS; k++) {
        struct world w;
        world_init(&w);
        world_listen(kinds[k]);
        size_t greeted = 0;
        for (int i = 0; i < MANY / 2; i++) {
            int fd = raw_connect();
            if (i % 4 == 1)
                (void)!send(fd, "\0SP", 3, MSG_NOSIGNAL);
            if (i % 4 == 2)
                (void)!send(fd, "garbage!", 8, MSG_NOSIGNAL);
            if (i % 4 == 3) { /* all the way, so that it is accepted */
                uint8_t greeting[8];
                cr_assert(send(fd, "\0SP\0\0\x10\0\0", 8, MSG_NOSIGNAL) == 8);
                cr_assert(recv(fd, greeting, 8, MSG_WAITALL) == 8);
                greeted++;
                WAIT_UNTIL(w.accepted == greeted);
            }
            close(fd);
        }
        WAIT_UNTIL(w.ended == greeted);
        world_dial();
        WAIT_UNTIL(w.client.conn != NULL && w.accepted == greeted + 1);
        size_t live, pooled;
        weir_buf_usage(&live, &pooled);
        cr_expect(live < 1 << 20, "%zu bytes are held", live);
        weir_conn_close(w.client.conn);
        WAIT_UNTIL(w.ended == greeted + 2);
        w.server.after_closed = w.client.after_closed = 0; /* many shared this end */
        world_fini();
    }
}

/* ---- stepped ---- */

/* With a loop given, nothing happens between steps and everything happens in them. */
Test(inproc, runs_in_the_loops_that_the_test_steps)
{
    struct world w;
    world_init(&w);
    w.sys.threads = false;
    struct weir_loop *server, *client;
    OK(weir_loop_new(weir_clock_system(), "server", &server));
    OK(weir_loop_new(weir_clock_system(), "client", &client));
    w.options.loop = server;
    world_listen("inproc");
    w.options.loop = client;
    world_dial();
    cr_expect(w.client.dialed == false && w.server.conn == NULL);
    weir_loop_step(server, 100);
    cr_expect(w.client.dialed == false && w.server.conn != NULL);
    weir_loop_step(client, 100);
    cr_expect(w.client.dialed == true);

    send_message(&w.client, 0, 10, 2);
    send_message(&w.client, 1, 20, 1);
    cr_expect(eq(sz, w.server.count, 0));
    cr_expect(eq(u64, weir_conn_queued_bytes(w.client.conn), 30));
    w.server.holds = true;
    weir_loop_step(server, 100);
    cr_expect(eq(sz, w.server.count, 1));
    cr_expect(eq(sz, w.client.sent, 1));
    weir_loop_step(server, 100);
    cr_expect(eq(sz, w.server.count, 1), "held back");
    weir_conn_resume(w.server.conn);
    cr_expect(eq(sz, w.server.count, 1), "not from inside resume");
    weir_loop_step(server, 100);
    cr_expect(eq(sz, w.server.count, 2));
    expect_message(&w.server, 1, 1, 20);

    weir_conn_close(w.server.conn);
    cr_expect(w.server.closed == false && w.client.closed == false);
    weir_loop_step(server, 100);
    weir_loop_step(client, 100);
    cr_expect(w.server.closed && w.client.closed);
    world_fini();
    weir_loop_stop(server);
    weir_loop_stop(client);
    weir_loop_free(server);
    weir_loop_free(client);
}
