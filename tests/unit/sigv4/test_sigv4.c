/* Signatures as AWS publishes them: Amazon S3 API Reference, "Examples: Signature Calculations". */
#include "sigv4/sigv4.h"
#include <criterion/criterion.h>

#define EMPTY "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define AT_MS 1369353600000ull /* 2013-05-24T00:00:00Z */

static void
expect_signature(struct weir_sigv4_request *r, const char *signature)
{
    static const struct weir_sigv4_credentials credentials = {
        "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"};
    struct weir_text out = {0};
    r->region = "us-east-1";
    r->service = "s3";
    r->at_ms = AT_MS;
    cr_assert_eq(weir_sigv4_sign(r, &credentials, &out), WEIR_OK);
    cr_expect(strstr(out.data, signature) != NULL, "%s", out.data);
    weir_text_fini(&out);
}

/* A GET with a Range header. */
Test(sigv4, signs_a_get)
{
    struct weir_sigv4_pair headers[] = {{"host", "examplebucket.s3.amazonaws.com"},
                                        {"range", "bytes=0-9"},
                                        {"x-amz-content-sha256", EMPTY},
                                        {"x-amz-date", "20130524T000000Z"}};
    struct weir_sigv4_request r = {.method = "GET",
                                   .path = "/test.txt",
                                   .headers = headers,
                                   .header_count = 4,
                                   .payload_sha256 = EMPTY};
    expect_signature(&r, "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
}

/* A PUT with a body and a '$' in its name; the order in which headers are given does not matter. */
Test(sigv4, signs_a_put)
{
    char hash[65];
    weir_sha256_hex(weir_bytes_of("Welcome to Amazon S3."), hash);
    struct weir_sigv4_pair headers[] = {{"x-amz-storage-class", "REDUCED_REDUNDANCY"},
                                        {"x-amz-date", "20130524T000000Z"},
                                        {"x-amz-content-sha256", hash},
                                        {"host", "examplebucket.s3.amazonaws.com"},
                                        {"date", "Fri, 24 May 2013 00:00:00 GMT"}};
    struct weir_sigv4_request r = {.method = "PUT",
                                   .path = "/test$file.text",
                                   .headers = headers,
                                   .header_count = 5,
                                   .payload_sha256 = hash};
    expect_signature(&r, "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");
}

/* Queries: one without a value, and two that must be sorted. */
Test(sigv4, signs_queries)
{
    struct weir_sigv4_pair headers[] = {{"host", "examplebucket.s3.amazonaws.com"},
                                        {"x-amz-content-sha256", EMPTY},
                                        {"x-amz-date", "20130524T000000Z"}};
    struct weir_sigv4_pair lifecycle[] = {{"lifecycle", ""}};
    struct weir_sigv4_pair list[] = {{"prefix", "J"}, {"max-keys", "2"}};
    struct weir_sigv4_request r = {.method = "GET",
                                   .path = "/",
                                   .query = lifecycle,
                                   .query_count = 1,
                                   .headers = headers,
                                   .header_count = 3,
                                   .payload_sha256 = EMPTY};
    expect_signature(&r, "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
    r.query = list;
    r.query_count = 2;
    expect_signature(&r, "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
}

/* A request that names no host is not signed: the signature would be good for any. */
Test(sigv4, wants_a_host)
{
    struct weir_sigv4_credentials credentials = {"a", "b"};
    struct weir_sigv4_request r = {.method = "GET",
                                   .path = "/",
                                   .payload_sha256 = EMPTY,
                                   .region = "r",
                                   .service = "s3",
                                   .at_ms = AT_MS};
    struct weir_text out = {0};
    cr_expect_eq(weir_sigv4_sign(&r, &credentials, &out), WEIR_INVALID);
    weir_text_fini(&out);
}
