/* Method, path, sorted query, sorted headers and the payload's hash make the canonical request; its
 * hash, the date and the scope make the string to sign; a chain of four HMACs makes the key. */
#include "sigv4/sigv4.h"
#include "base/assert.h"
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define PAIRS_MAX 64

void
weir_sigv4_date(uint64_t at_ms, char out[17])
{
    time_t at = (time_t)(at_ms / 1000);
    struct tm tm;
    gmtime_r(&at, &tm);
    size_t len = strftime(out, 17, "%Y%m%dT%H%M%SZ", &tm);
    WEIR_ASSERT(len == 16);
}

void
weir_sha256_hex(struct weir_bytes bytes, char out[65])
{
    uint8_t hash[32];
    unsigned len = sizeof hash;
    int ok = EVP_Digest(bytes.data, bytes.len, hash, &len, EVP_sha256(), NULL);
    WEIR_ASSERT(ok == 1);
    weir_hex_encode(weir_bytes(hash, sizeof hash), out);
}

void
weir_sigv4_encode(struct weir_text *out, struct weir_bytes text, bool keep_slash)
{
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.data[i];
        bool plain = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
                     c == '-' || c == '.' || c == '_' || c == '~' || (keep_slash && c == '/');
        if (plain)
            weir_text_append(out, weir_bytes(&c, 1));
        else
            weir_text_printf(out, "%%%02X", c);
    }
}

static int
by_name(const void *a, const void *b)
{
    const struct weir_sigv4_pair *x = a, *y = b;
    int order = strcmp(x->name, y->name);
    return order ? order : strcmp(x->value, y->value);
}

static size_t
sorted(const struct weir_sigv4_pair *pairs, size_t count, struct weir_sigv4_pair out[PAIRS_MAX])
{
    WEIR_ASSERT(count <= PAIRS_MAX);
    if (count)
        memcpy(out, pairs, count * sizeof *pairs);
    qsort(out, count, sizeof *out, by_name);
    return count;
}

void
weir_sigv4_query(struct weir_text *out, const struct weir_sigv4_request *r)
{
    struct weir_sigv4_pair pairs[PAIRS_MAX];
    size_t count = sorted(r->query, r->query_count, pairs);
    for (size_t i = 0; i < count; i++) {
        weir_text_puts(out, i ? "&" : "");
        weir_sigv4_encode(out, weir_bytes_of(pairs[i].name), false);
        weir_text_puts(out, "=");
        weir_sigv4_encode(out, weir_bytes_of(pairs[i].value), false);
    }
}

/* Blanks around the value go, and runs of them inside become one. */
static void
append_header_value(struct weir_text *out, const char *value)
{
    while (*value == ' ')
        value++;
    for (; *value; value++) {
        if (*value == ' ' && (value[1] == ' ' || !value[1]))
            continue;
        weir_text_append(out, weir_bytes(value, 1));
    }
}

static void
append_signed_headers(struct weir_text *out, const struct weir_sigv4_pair *pairs, size_t count)
{
    for (size_t i = 0; i < count; i++)
        weir_text_printf(out, "%s%s", i ? ";" : "", pairs[i].name);
}

enum weir_status
weir_sigv4_canonical(const struct weir_sigv4_request *r, struct weir_text *out)
{
    struct weir_sigv4_pair pairs[PAIRS_MAX];
    size_t count = sorted(r->headers, r->header_count, pairs);
    weir_text_printf(out, "%s\n", r->method);
    weir_sigv4_encode(out, weir_bytes_of(r->path), true);
    weir_text_puts(out, "\n");
    weir_sigv4_query(out, r);
    weir_text_puts(out, "\n");
    for (size_t i = 0; i < count; i++) {
        weir_text_printf(out, "%s:", pairs[i].name);
        append_header_value(out, pairs[i].value);
        weir_text_puts(out, "\n");
    }
    weir_text_puts(out, "\n");
    append_signed_headers(out, pairs, count);
    weir_text_printf(out, "\n%s", r->payload_sha256);
    return out->failed ? WEIR_NO_MEMORY : WEIR_OK;
}

static void
hmac(const uint8_t *key, size_t key_len, const char *text, uint8_t out[32])
{
    unsigned len = 32;
    const uint8_t *ok =
        HMAC(EVP_sha256(), key, (int)key_len, (const uint8_t *)text, strlen(text), out, &len);
    WEIR_ASSERT(ok != NULL);
}

static void
sign_text(const struct weir_sigv4_request *r, const char *secret, const char *date,
          const char *text, char out[65])
{
    struct weir_text first = {0};
    uint8_t key[32], next[32];
    char day[9];
    memcpy(day, date, 8);
    day[8] = '\0';
    weir_text_printf(&first, "AWS4%s", secret);
    hmac((const uint8_t *)(first.data ? first.data : ""), first.len, day, key);
    hmac(key, sizeof key, r->region, next);
    hmac(next, sizeof next, r->service, key);
    hmac(key, sizeof key, "aws4_request", next);
    hmac(next, sizeof next, text, key);
    weir_hex_encode(weir_bytes(key, sizeof key), out);
    OPENSSL_cleanse(key, sizeof key);
    OPENSSL_cleanse(next, sizeof next);
    if (first.data)
        OPENSSL_cleanse(first.data, first.len);
    weir_text_fini(&first);
}

enum weir_status
weir_sigv4_sign(const struct weir_sigv4_request *r,
                const struct weir_sigv4_credentials *credentials, struct weir_text *out)
{
    bool has_host = false;
    for (size_t i = 0; i < r->header_count; i++)
        has_host |= strcmp(r->headers[i].name, "host") == 0;
    if (!has_host)
        return WEIR_INVALID;

    struct weir_text text = {0};
    char date[17], hash[65], signature[65];
    enum weir_status st = weir_sigv4_canonical(r, &text);
    if (st)
        goto done;
    weir_sigv4_date(r->at_ms, date);
    weir_sha256_hex(weir_bytes(text.data, text.len), hash);
    weir_text_clear(&text);
    weir_text_printf(&text, "AWS4-HMAC-SHA256\n%s\n%.8s/%s/%s/aws4_request\n%s", date, date,
                     r->region, r->service, hash);
    if (text.failed) {
        st = WEIR_NO_MEMORY;
        goto done;
    }
    sign_text(r, credentials->secret_key, date, text.data, signature);

    struct weir_sigv4_pair pairs[PAIRS_MAX];
    size_t count = sorted(r->headers, r->header_count, pairs);
    weir_text_printf(out, "AWS4-HMAC-SHA256 Credential=%s/%.8s/%s/%s/aws4_request,SignedHeaders=",
                     credentials->access_key, date, r->region, r->service);
    append_signed_headers(out, pairs, count);
    weir_text_printf(out, ",Signature=%s", signature);
    if (out->failed)
        st = WEIR_NO_MEMORY;
done:
    weir_text_fini(&text);
    return st;
}
