/* AWS Signature Version 4 (AWS General Reference, "Signature Version 4 signing process"): one code
 * for signing requests of ours and, later, for checking those of others.
 *
 * Nothing is allocated beyond one text; secrets are wiped from the stack. Any thread. */
#pragma once
#include "base/bytes.h"
#include "base/status.h"
#include "base/text.h"

struct weir_sigv4_pair {
    const char *name;  /* header: lower case; query: as it is, not encoded */
    const char *value; /* header: as sent; query: not encoded */
};

struct weir_sigv4_request {
    const char *method;
    const char *path;                    /* not encoded: "/bucket/a b" */
    const struct weir_sigv4_pair *query; /* in any order */
    size_t query_count;
    const struct weir_sigv4_pair *headers; /* those to sign, in any order; "host" must be there */
    size_t header_count;
    const char *payload_sha256; /* 64 hex digits, or "UNSIGNED-PAYLOAD" */
    const char *region, *service;
    uint64_t at_ms;
};

struct weir_sigv4_credentials {
    const char *access_key, *secret_key;
};

/* "20130524T000000Z" (17 bytes with the NUL): the value of x-amz-date. */
void weir_sigv4_date(uint64_t at_ms, char out[17]);
/* SHA-256 as 64 hex digits and a NUL. */
void weir_sha256_hex(struct weir_bytes bytes, char out[65]);
/* Percent-encodes all but letters, digits and -._~ ('/' too where `keep_slash`). */
void weir_sigv4_encode(struct weir_text *out, struct weir_bytes text, bool keep_slash);
/* Appends the path or the query ("a=1&b=") as they must stand in the request line. */
void weir_sigv4_query(struct weir_text *out, const struct weir_sigv4_request *r);

/* The canonical request, for tests and error texts. NO_MEMORY. */
enum weir_status weir_sigv4_canonical(const struct weir_sigv4_request *r, struct weir_text *out);
/* Appends the value of the Authorization header. NO_MEMORY; INVALID without a host header. */
enum weir_status weir_sigv4_sign(const struct weir_sigv4_request *r,
                                 const struct weir_sigv4_credentials *credentials,
                                 struct weir_text *out);
