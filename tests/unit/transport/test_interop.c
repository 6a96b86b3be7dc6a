/* NNG's own PAIR0 sockets as peers, in both roles. */
#include "harness.h"
#include <nng/nng.h>
#include <nng/protocol/pair0/pair.h>
#include <nng/supplemental/tls/tls.h>

#define NNG(call) cr_assert(eq(int, (call), 0), "%s", #call)

static const char *
file_in_world(const char *name)
{
    static char paths[2][128];
    static int turn;
    char *path = paths[turn++ % 2];
    snprintf(path, sizeof paths[0], "%s/%s", world->directory, name);
    return path;
}

/* A certificate of its own for localhost, signed by itself. */
static void
make_certificate(void)
{
    char command[512];
    snprintf(command, sizeof command,
             "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
             "-subj /CN=localhost -addext subjectAltName=DNS:localhost "
             "-keyout %s -out %s 2>/dev/null",
             file_in_world("key.pem"), file_in_world("cert.pem"));
    cr_assert(system(command) == 0, "openssl made no certificate");
    world->options.tls_certificate = strdup(file_in_world("cert.pem"));
    world->options.tls_key = strdup(file_in_world("key.pem"));
    world->options.tls_ca = world->options.tls_certificate;
}

static void
free_certificate(void)
{
    free((void *)(uintptr_t)world->options.tls_certificate);
    free((void *)(uintptr_t)world->options.tls_key);
}

static nng_socket
pair0(void)
{
    nng_socket s;
    NNG(nng_pair0_open(&s));
    NNG(nng_socket_set_ms(s, NNG_OPT_RECVTIMEO, WAIT_S * 1000));
    NNG(nng_socket_set_ms(s, NNG_OPT_SENDTIMEO, WAIT_S * 1000));
    return s;
}

static nng_tls_config *
tls_config(nng_tls_mode mode)
{
    nng_tls_config *config;
    NNG(nng_tls_config_alloc(&config, mode));
    if (mode == NNG_TLS_MODE_CLIENT) {
        NNG(nng_tls_config_ca_file(config, world->options.tls_ca));
        NNG(nng_tls_config_server_name(config, "localhost"));
    } else {
        FILE *f = fopen(file_in_world("both.pem"), "w");
        char line[256];
        const char *const parts[] = {world->options.tls_certificate, world->options.tls_key};
        for (int i = 0; i < 2; i++) {
            FILE *in = fopen(parts[i], "r");
            while (fgets(line, sizeof line, in))
                fputs(line, f);
            fclose(in);
        }
        fclose(f);
        NNG(nng_tls_config_cert_key_file(config, file_in_world("both.pem"), NULL));
        unlink(file_in_world("both.pem"));
    }
    return config;
}

static const size_t sizes[] = {0, 1, 100, 2047, 65536, 300000, 1 << 20, 3 << 20, 17};
enum { SIZES = sizeof sizes / sizeof *sizes };

static void
exchange(struct end *ours, nng_socket theirs)
{
    for (size_t i = 0; i < SIZES; i++) {
        send_message(ours, i, sizes[i], 1 + i % 7);
        nng_msg *m;
        NNG(nng_recvmsg(theirs, &m, 0));
        cr_assert(eq(sz, nng_msg_len(m), sizes[i]));
        const uint8_t *body = nng_msg_body(m);
        for (size_t k = 0; k < sizes[i]; k++)
            if (body[k] != pattern(i, k))
                cr_assert(body[k] == pattern(i, k), "byte %zu of %zu", k, sizes[i]);
        NNG(nng_sendmsg(theirs, m, 0));
        expect_message(ours, i, i, sizes[i]);
    }
}

/* A PAIR0 socket dials our listener: the form in which any NNG program is a client. */
static void
serve_nng(const char *scheme)
{
    struct world w;
    world_init(&w);
    bool is_tls = strcmp(scheme, "tls+tcp") == 0;
    if (is_tls)
        make_certificate();
    world_listen(scheme);
    nng_socket s = pair0();
    nng_dialer d;
    NNG(nng_dialer_create(&d, s, w.url));
    if (is_tls) {
        nng_tls_config *config = tls_config(NNG_TLS_MODE_CLIENT);
        NNG(nng_dialer_set_ptr(d, NNG_OPT_TLS_CONFIG, config));
        nng_tls_config_free(config);
    }
    NNG(nng_dialer_start(d, 0));
    WAIT_UNTIL(w.server.conn != NULL);
    exchange(&w.server, s);
    nng_close(s);
    WAIT_UNTIL(w.server.closed);
    cr_expect(eq(int, w.server.why, WEIR_UNAVAILABLE));
    if (is_tls)
        free_certificate();
    world_fini();
}

Test(interop, serves_a_pair0_socket_over_tcp)
{
    serve_nng("tcp");
}

Test(interop, serves_a_pair0_socket_over_ipc)
{
    serve_nng("ipc");
}

Test(interop, serves_a_pair0_socket_on_a_loop)
{
    serve_nng("loop+tcp");
}

Test(interop, serves_a_pair0_socket_on_a_loop_over_ipc)
{
    serve_nng("loop+ipc");
}

Test(interop, serves_a_pair0_socket_over_tls)
{
    serve_nng("tls+tcp");
}

/* We dial a PAIR0 socket's listener. */
static void
dial_nng(const char *scheme)
{
    struct world w;
    world_init(&w);
    bool is_tls = strcmp(scheme, "tls+tcp") == 0;
    if (is_tls)
        make_certificate();
    nng_socket s = pair0();
    nng_listener l;
    NNG(nng_listener_create(&l, s, fresh_url(scheme)));
    if (is_tls) {
        nng_tls_config *config = tls_config(NNG_TLS_MODE_SERVER);
        NNG(nng_listener_set_ptr(l, NNG_OPT_TLS_CONFIG, config));
        nng_tls_config_free(config);
    }
    NNG(nng_listener_start(l, 0));
    if (strcmp(scheme, "ipc") == 0) {
        snprintf(w.url, sizeof w.url, "%s", fresh_url(scheme));
    } else {
        nng_sockaddr sa;
        NNG(nng_listener_get_addr(l, NNG_OPT_LOCADDR, &sa));
        unsigned port = sa.s_family == NNG_AF_INET6 ? sa.s_in6.sa_port : sa.s_in.sa_port;
        snprintf(w.url, sizeof w.url, "%s://localhost:%u", scheme,
                 (unsigned)(port >> 8 | (port & 0xff) << 8));
    }
    world_dial();
    WAIT_UNTIL(w.client.dialed);
    cr_assert(eq(int, w.client.dial_status, WEIR_OK));
    exchange(&w.client, s);
    nng_close(s);
    WAIT_UNTIL(w.client.closed);
    if (is_tls)
        free_certificate();
    world_fini();
}

Test(interop, dials_a_pair0_socket_over_tcp)
{
    dial_nng("tcp");
}

Test(interop, dials_a_pair0_socket_over_ipc)
{
    dial_nng("ipc");
}

Test(interop, dials_a_pair0_socket_over_tls)
{
    dial_nng("tls+tcp");
}

/* Our own ends over TLS: messages, and a close that the peer hears of. */
Test(tls, carries_messages_both_ways)
{
    struct world w;
    world_init(&w);
    make_certificate();
    world_connect("tls+tcp");
    for (size_t i = 0; i < SIZES; i++) {
        send_message(&w.client, i, sizes[i], 7);
        send_message(&w.server, i, sizes[i], 1);
    }
    for (size_t i = 0; i < SIZES; i++) {
        expect_message(&w.server, i, i, sizes[i]);
        expect_message(&w.client, i, i, sizes[i]);
    }
    weir_conn_close(w.client.conn);
    WAIT_UNTIL(w.server.closed);
    free_certificate();
    world_fini();
}

/* A server whose certificate nobody we trust has signed is not talked to, unless asked to. */
Test(tls, checks_the_server_unless_told_not_to)
{
    struct world w;
    world_init(&w);
    make_certificate();
    world_listen("tls+tcp");
    const char *own = w.options.tls_ca;
    w.options.tls_ca = NULL; /* the system's */
    world_dial();
    WAIT_UNTIL(w.client.dialed);
    cr_expect(w.client.dial_status != WEIR_OK);
    cr_expect(w.client.conn == NULL);

    w.client.dialed = false;
    w.options.tls_insecure = true;
    world_dial();
    WAIT_UNTIL(w.client.dialed && w.server.conn);
    cr_expect(eq(int, w.client.dial_status, WEIR_OK));
    w.options.tls_ca = own;
    free_certificate();
    world_fini();
}

/* Files that are missing or hold something else are named. */
Test(tls, names_the_file_that_is_wrong)
{
    struct world w;
    world_init(&w);
    struct weir_listener *l;
    struct weir_error err = {0};
    w.options.tls_certificate = "/nowhere/cert.pem";
    w.options.tls_key = "/dev/null";
    cr_expect(eq(
        int,
        weir_listen(&w.sys, "tls+tcp://localhost:0", &w.options, on_accepted, NULL, &l, NULL, &err),
        WEIR_NOT_FOUND));
    cr_expect(strstr(err.text, "/nowhere/cert.pem") != NULL, "%s", err.text);
    w.options.tls_certificate = "/dev/null";
    cr_expect(eq(
        int,
        weir_listen(&w.sys, "tls+tcp://localhost:0", &w.options, on_accepted, NULL, &l, NULL, &err),
        WEIR_INVALID));
    world_fini();
}
