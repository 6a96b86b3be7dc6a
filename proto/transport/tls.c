#include "transport/tls.h"
#include "transport/conn.h"
#include "transport/nng_status.h"
#include <errno.h>
#include <nng/supplemental/tls/tls.h>
#include <stdio.h>
#include <stdlib.h>

enum { PEM_BYTES_MAX = 1024 * 1024 };
static const char system_ca[] = "/etc/ssl/certs/ca-certificates.crt";

/* The whole file as text, the caller's to free. */
static enum weir_status
read_pem(const char *path, char **out, struct weir_error *err)
{
    FILE *f = fopen(path, "re");
    if (!f)
        return weir_fail(err, weir_status_from_errno(errno), "cannot read '%s': %s", path,
                         strerror(errno));
    enum weir_status st = WEIR_OK;
    char *text = malloc(PEM_BYTES_MAX + 1);
    size_t len = text ? fread(text, 1, PEM_BYTES_MAX + 1, f) : 0;
    if (!text)
        st = weir_fail(err, WEIR_NO_MEMORY, "no memory for '%s'", path);
    else if (ferror(f))
        st = weir_fail(err, WEIR_IO, "cannot read '%s'", path);
    else if (len > PEM_BYTES_MAX)
        st = weir_fail(err, WEIR_TOO_BIG, "'%s' has over %d bytes", path, PEM_BYTES_MAX);
    fclose(f);
    if (st) {
        free(text);
        return st;
    }
    text[len] = 0;
    *out = text;
    return WEIR_OK;
}

static enum weir_status
fail_config(struct weir_error *err, int rv)
{
    return weir_fail(err, weir_status_from_nng(rv), "cannot set TLS up: %s", nng_strerror(rv));
}

static enum weir_status
set_own_certificate(nng_tls_config *config, const char *certificate, const char *key,
                    struct weir_error *err)
{
    char *cert_pem = NULL, *key_pem = NULL;
    enum weir_status st = read_pem(certificate, &cert_pem, err);
    if (!st)
        st = read_pem(key, &key_pem, err);
    if (!st) {
        int rv = nng_tls_config_own_cert(config, cert_pem, key_pem, NULL);
        if (rv)
            st = weir_fail(err, WEIR_INVALID, "'%s' and '%s' are no certificate and its key: %s",
                           certificate, key, nng_strerror(rv));
    }
    if (key_pem)
        explicit_bzero(key_pem, strlen(key_pem));
    free(cert_pem);
    free(key_pem);
    return st;
}

static enum weir_status
set_trust(nng_tls_config *config, const char *ca, struct weir_error *err)
{
    char *pem;
    enum weir_status st = read_pem(ca, &pem, err);
    if (st)
        return st;
    int rv = nng_tls_config_ca_chain(config, pem, NULL);
    if (rv)
        st = weir_fail(err, WEIR_INVALID, "'%s' holds no certificates: %s", ca, nng_strerror(rv));
    free(pem);
    return st;
}

enum weir_status
weir_tls_listener(nng_stream_listener *l, const struct weir_transport_options *options,
                  struct weir_error *err)
{
    if (!options->tls_certificate || !options->tls_key)
        return weir_fail(err, WEIR_INVALID, "tls+tcp needs a certificate and a key");
    nng_tls_config *config;
    int rv = nng_tls_config_alloc(&config, NNG_TLS_MODE_SERVER);
    if (rv)
        return fail_config(err, rv);
    enum weir_status st =
        set_own_certificate(config, options->tls_certificate, options->tls_key, err);
    if (!st) {
        rv = nng_tls_config_auth_mode(config, NNG_TLS_AUTH_MODE_NONE);
        if (!rv)
            rv = nng_stream_listener_set_ptr(l, NNG_OPT_TLS_CONFIG, config);
        if (rv)
            st = fail_config(err, rv);
    }
    nng_tls_config_free(config); /* the listener holds its own reference */
    return st;
}

/* "host" of "tls+tcp://host:port" and "tls+tcp://[host]:port". */
static void
host_of(const char *url, char *out, size_t size)
{
    const char *host = weir_url_rest(url, "tls+tcp");
    const char *end = strrchr(host, ':');
    if (!end)
        end = host + strlen(host);
    if (*host == '[' && end > host && end[-1] == ']') {
        host++;
        end--;
    }
    snprintf(out, size, "%.*s", (int)(end - host), host);
}

enum weir_status
weir_tls_dialer(nng_stream_dialer *d, const char *url, const struct weir_transport_options *options,
                struct weir_error *err)
{
    char host[WEIR_URL_BYTES_MAX];
    host_of(url, host, sizeof host);
    nng_tls_config *config;
    int rv = nng_tls_config_alloc(&config, NNG_TLS_MODE_CLIENT);
    if (rv)
        return fail_config(err, rv);
    enum weir_status st = WEIR_OK;
    if (!options->tls_insecure)
        st = set_trust(config, options->tls_ca ? options->tls_ca : system_ca, err);
    if (!st) {
        rv = nng_tls_config_server_name(config, host);
        if (!rv)
            rv = nng_tls_config_auth_mode(config, options->tls_insecure
                                                      ? NNG_TLS_AUTH_MODE_NONE
                                                      : NNG_TLS_AUTH_MODE_REQUIRED);
        if (!rv)
            rv = nng_stream_dialer_set_ptr(d, NNG_OPT_TLS_CONFIG, config);
        if (rv)
            st = fail_config(err, rv);
    }
    nng_tls_config_free(config);
    return st;
}
