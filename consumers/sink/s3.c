/* Objects in S3-compatible storage: one conditional PUT each, over libcurl, signed by proto/sigv4.
 *
 * If-None-Match: * makes the store refuse a name that is taken (412); then a HEAD tells whether the
 * object there is ours (size, and ETag where it is an MD5). A store that knows no conditional PUT
 * answers 501: from then on objects are put without it, which is right too, since a name stands for
 * the same bytes always. */
#include "base/list.h"
#include "base/text.h"
#include "sigv4/sigv4.h"
#include "sink/destination.h"
#include "sys/clock.h"
#include <ctype.h>
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>

#define HEADERS_MAX 10
#define EMPTY_SHA256 "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

struct s3 {
    struct weir_destination base;
    CURL *curl;
    char scheme[8], host[256], authority[320], bucket[64], region[64], ca_file[512];
    char *access_key, *secret_key, *session_token;
    bool virtual_host, conditional;
    uint32_t timeout_ms;
};

/* One request and what came back of it. */
struct exchange {
    struct s3 *s3;
    struct weir_fs *fs;
    struct weir_file *file;
    uint64_t at, size;
    enum weir_status read_status;
    long status;
    uint64_t length;
    char etag[128], answer[2048];
    size_t answer_len;
};

static size_t
on_read(char *out, size_t one, size_t count, void *arg)
{
    struct exchange *x = arg;
    size_t got = 0, want = one * count;
    if (want > x->size - x->at)
        want = (size_t)(x->size - x->at);
    x->read_status = weir_file_pread(x->file, out, want, x->at, &got);
    if (x->read_status || got != want)
        return CURL_READFUNC_ABORT;
    x->at += got;
    return got;
}

static int
on_seek(void *arg, curl_off_t offset, int origin)
{
    struct exchange *x = arg;
    if (origin != SEEK_SET || offset < 0)
        return CURL_SEEKFUNC_FAIL;
    x->at = (uint64_t)offset;
    return CURL_SEEKFUNC_OK;
}

static size_t
on_answer(char *data, size_t one, size_t count, void *arg)
{
    struct exchange *x = arg;
    size_t len = one * count, room = sizeof x->answer - 1 - x->answer_len;
    size_t n = len < room ? len : room;
    memcpy(x->answer + x->answer_len, data, n);
    x->answer_len += n;
    x->answer[x->answer_len] = '\0';
    return len;
}

static size_t
on_header(char *data, size_t one, size_t count, void *arg)
{
    struct exchange *x = arg;
    size_t len = one * count;
    if (len > 5 && strncasecmp(data, "etag:", 5) == 0) {
        size_t n = 0;
        for (size_t i = 5; i < len && n < sizeof x->etag - 1; i++)
            if (isalnum((unsigned char)data[i]) || data[i] == '-')
                x->etag[n++] = data[i];
        x->etag[n] = '\0';
    } else if (len > 15 && strncasecmp(data, "content-length:", 15) == 0) {
        x->length = strtoull(data + 15, NULL, 10);
    }
    return len;
}

/* What the store says in <Message>, or its <Code>. */
static void
store_message(const struct exchange *x, char *out, size_t size)
{
    static const char *const tags[][2] = {{"<Message>", "</Message>"}, {"<Code>", "</Code>"}};
    for (int i = 0; i < 2; i++) {
        const char *begin = strstr(x->answer, tags[i][0]);
        const char *end = begin ? strstr(begin, tags[i][1]) : NULL;
        if (end) {
            begin += strlen(tags[i][0]);
            snprintf(out, size, "%.*s", (int)(end - begin), begin);
            return;
        }
    }
    snprintf(out, size, "HTTP status %ld", x->status);
}

static enum weir_status
status_of(long http)
{
    if (http >= 200 && http < 300)
        return WEIR_OK;
    switch (http) {
    case 401:
    case 403:
        return WEIR_DENIED;
    case 404:
        return WEIR_NOT_FOUND;
    case 412:
        return WEIR_EXISTS;
    case 429:
    case 503:
        return WEIR_THROTTLED;
    case 501:
        return WEIR_UNSUPPORTED;
    case 408:
    case 409:
        return WEIR_UNAVAILABLE;
    default:
        return http >= 500 ? WEIR_UNAVAILABLE : WEIR_INVALID;
    }
}

static enum weir_status
build_headers(struct s3 *s3, const char *method, const char *path, const struct weir_object *object,
              bool put, bool conditional, struct curl_slist **out)
{
    struct weir_sigv4_pair h[HEADERS_MAX];
    struct weir_text authorization = {0}, line = {0};
    char date[17], md5_base64[32] = "";
    size_t count = 0;
    struct weir_sigv4_request r = {
        .method = method,
        .path = path,
        .payload_sha256 = put ? object->sha256 : EMPTY_SHA256,
        .region = s3->region,
        .service = "s3",
        .at_ms = weir_now_ms(weir_clock_system()),
    };
    weir_sigv4_date(r.at_ms, date);
    h[count++] = (struct weir_sigv4_pair){"host", s3->authority};
    h[count++] = (struct weir_sigv4_pair){"x-amz-date", date};
    h[count++] = (struct weir_sigv4_pair){"x-amz-content-sha256", r.payload_sha256};
    if (s3->session_token)
        h[count++] = (struct weir_sigv4_pair){"x-amz-security-token", s3->session_token};
    if (put) {
        uint8_t md5[16];
        if (!weir_hex_decode(weir_bytes_of(object->md5), md5, 16))
            md5_base64[weir_base64_encode(weir_bytes(md5, 16), md5_base64)] = '\0';
        h[count++] = (struct weir_sigv4_pair){"content-type", object->content_type};
        h[count++] = (struct weir_sigv4_pair){"content-md5", md5_base64};
        if (object->content_encoding)
            h[count++] = (struct weir_sigv4_pair){"content-encoding", object->content_encoding};
    }
    r.headers = h;
    r.header_count = count;
    enum weir_status st = weir_sigv4_sign(
        &r, &(struct weir_sigv4_credentials){s3->access_key, s3->secret_key}, &authorization);
    if (st)
        goto done;
    struct curl_slist *list = NULL;
    for (size_t i = 0; i < count; i++) {
        weir_text_clear(&line);
        weir_text_printf(&line, "%s: %s", h[i].name, h[i].value);
        list = curl_slist_append(list, line.data);
    }
    weir_text_clear(&line);
    weir_text_printf(&line, "authorization: %s", authorization.data);
    list = curl_slist_append(list, line.data);
    list = curl_slist_append(list, "expect:");
    if (conditional)
        list = curl_slist_append(list, "if-none-match: *");
    *out = list;
done:
    weir_text_fini(&authorization);
    weir_text_fini(&line);
    return st;
}

static enum weir_status
exchange(struct exchange *x, const char *method, const struct weir_object *object, bool conditional,
         struct weir_error *err)
{
    struct s3 *s3 = x->s3;
    struct weir_text path = {0}, url = {0};
    struct curl_slist *headers = NULL;
    bool put = strcmp(method, "PUT") == 0;
    if (!s3->virtual_host)
        weir_text_printf(&path, "/%s", s3->bucket);
    weir_text_printf(&path, "/%s", object->name);
    weir_text_printf(&url, "%s://%s", s3->scheme, s3->authority);
    if (path.data)
        weir_sigv4_encode(&url, weir_bytes(path.data, path.len), true);
    enum weir_status st = path.failed || url.failed ? WEIR_NO_MEMORY
                                                    : build_headers(s3, method, path.data, object,
                                                                    put, conditional, &headers);
    if (st) {
        st = weir_fail(err, st, "cannot sign a request: %s", weir_status_text(st));
        goto done;
    }
    curl_easy_reset(s3->curl);
    curl_easy_setopt(s3->curl, CURLOPT_URL, url.data);
    curl_easy_setopt(s3->curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(s3->curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(s3->curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(s3->curl, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(s3->curl, CURLOPT_CONNECTTIMEOUT_MS, (long)s3->timeout_ms);
    curl_easy_setopt(s3->curl, CURLOPT_LOW_SPEED_LIMIT, 1024L);
    curl_easy_setopt(s3->curl, CURLOPT_LOW_SPEED_TIME, (long)(s3->timeout_ms + 999) / 1000);
    curl_easy_setopt(s3->curl, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(s3->curl, CURLOPT_HEADERDATA, x);
    curl_easy_setopt(s3->curl, CURLOPT_WRITEFUNCTION, on_answer);
    curl_easy_setopt(s3->curl, CURLOPT_WRITEDATA, x);
    if (s3->ca_file[0])
        curl_easy_setopt(s3->curl, CURLOPT_CAINFO, s3->ca_file);
    if (put) {
        curl_easy_setopt(s3->curl, CURLOPT_UPLOAD, 1L);
        curl_easy_setopt(s3->curl, CURLOPT_INFILESIZE_LARGE, (curl_off_t)object->size);
        curl_easy_setopt(s3->curl, CURLOPT_READFUNCTION, on_read);
        curl_easy_setopt(s3->curl, CURLOPT_READDATA, x);
        curl_easy_setopt(s3->curl, CURLOPT_SEEKFUNCTION, on_seek);
        curl_easy_setopt(s3->curl, CURLOPT_SEEKDATA, x);
    } else {
        curl_easy_setopt(s3->curl, CURLOPT_NOBODY, 1L);
    }
    CURLcode code = curl_easy_perform(s3->curl);
    if (x->read_status) {
        st = weir_fail(err, x->read_status, "cannot read a part: %s",
                       weir_status_text(x->read_status));
    } else if (code != CURLE_OK) {
        st = weir_fail(err, code == CURLE_OPERATION_TIMEDOUT ? WEIR_TIMEOUT : WEIR_UNAVAILABLE,
                       "cannot reach '%s': %s", s3->authority, curl_easy_strerror(code));
    } else {
        char message[512];
        curl_easy_getinfo(s3->curl, CURLINFO_RESPONSE_CODE, &x->status);
        st = status_of(x->status);
        store_message(x, message, sizeof message);
        if (st)
            st = weir_fail(err, st, "'%s' refuses '%s': %s", s3->authority, object->name, message);
    }
done:
    curl_slist_free_all(headers);
    weir_text_fini(&path);
    weir_text_fini(&url);
    return st;
}

static bool
is_md5(const char *etag)
{
    size_t n = 0;
    while (isxdigit((unsigned char)etag[n]))
        n++;
    return n == 32 && !etag[n];
}

static enum weir_status
look(struct weir_destination *base, const struct weir_object *object, struct weir_error *err)
{
    struct exchange x = {.s3 = WEIR_CONTAINER(base, struct s3, base)};
    enum weir_status st = exchange(&x, "HEAD", object, false, err);
    if (st)
        return st;
    if (x.length != object->size || (is_md5(x.etag) && strcasecmp(x.etag, object->md5) != 0))
        return weir_fail(err, WEIR_EXISTS, "'%s' is there with other contents", object->name);
    return WEIR_OK;
}

static enum weir_status
put(struct s3 *s3, struct weir_fs *fs, const char *part, const struct weir_object *object,
    struct weir_error *err)
{
    struct exchange x = {.s3 = s3, .fs = fs, .size = object->size};
    enum weir_status st = weir_fs_open(fs, part, WEIR_OPEN_READ, &x.file);
    if (st)
        return weir_fail(err, st, "cannot open '%s': %s", part, weir_status_text(st));
    st = exchange(&x, "PUT", object, s3->conditional, err);
    weir_file_close(x.file);
    return st;
}

static enum weir_status
publish(struct weir_destination *base, struct weir_fs *fs, const char *part,
        const struct weir_object *object, struct weir_error *err)
{
    struct s3 *s3 = WEIR_CONTAINER(base, struct s3, base);
    enum weir_status st = put(s3, fs, part, object, err);
    if (st == WEIR_UNSUPPORTED && s3->conditional) {
        s3->conditional = false;
        st = put(s3, fs, part, object, err);
    }
    /* Taken: by us, when an answer was lost; else somebody else's bytes are there. */
    return st == WEIR_EXISTS ? look(base, object, err) : st;
}

static void
close_s3(struct weir_destination *base)
{
    struct s3 *s3 = WEIR_CONTAINER(base, struct s3, base);
    if (s3->curl)
        curl_easy_cleanup(s3->curl);
    if (s3->secret_key)
        explicit_bzero(s3->secret_key, strlen(s3->secret_key));
    free(s3->access_key);
    free(s3->secret_key);
    free(s3->session_token);
    free(s3);
}

static const struct weir_destination_ops ops = {publish, look, close_s3};

static bool
bucket_is_valid(const char *bucket)
{
    size_t len = strlen(bucket);
    if (len < 3 || len > 63)
        return false;
    for (const char *p = bucket; *p; p++)
        if (!islower((unsigned char)*p) && !isdigit((unsigned char)*p) && *p != '-' && *p != '.')
            return false;
    return true;
}

static enum weir_status
take_endpoint(struct s3 *s3, const char *endpoint, struct weir_error *err)
{
    const char *rest = NULL;
    if (strncmp(endpoint, "http://", 7) == 0)
        rest = endpoint + 7;
    else if (strncmp(endpoint, "https://", 8) == 0)
        rest = endpoint + 8;
    size_t len = rest ? strcspn(rest, "/") : 0;
    if (!len || len >= sizeof s3->host || (rest[len] && rest[len + 1]))
        return weir_fail(err, WEIR_INVALID, "the endpoint '%s' is not http(s)://HOST[:PORT]",
                         endpoint);
    snprintf(s3->scheme, sizeof s3->scheme, "%.*s", (int)(rest - endpoint - 3), endpoint);
    snprintf(s3->host, sizeof s3->host, "%.*s", (int)len, rest);
    snprintf(s3->authority, sizeof s3->authority, "%s%s%s", s3->virtual_host ? s3->bucket : "",
             s3->virtual_host ? "." : "", s3->host);
    return WEIR_OK;
}

static char *
setting(const char *given, const char *variable)
{
    const char *value = given ? given : getenv(variable);
    return value && value[0] ? strdup(value) : NULL;
}

enum weir_status
weir_destination_s3(const struct weir_s3_options *o, struct weir_destination **out,
                    struct weir_error *err)
{
    struct s3 *s3 = calloc(1, sizeof *s3);
    if (!s3)
        return weir_fail(err, WEIR_NO_MEMORY, "out of memory");
    enum weir_status st = WEIR_INVALID;
    s3->base.ops = &ops;
    s3->virtual_host = o->virtual_host;
    s3->conditional = !o->no_conditional;
    s3->timeout_ms = o->timeout_ms ? o->timeout_ms : 30000;
    if (!o->bucket || !bucket_is_valid(o->bucket)) {
        st = weir_fail(err, st, "'%s' is not a bucket's name", o->bucket ? o->bucket : "");
        goto done;
    }
    snprintf(s3->bucket, sizeof s3->bucket, "%s", o->bucket);
    snprintf(s3->region, sizeof s3->region, "%s", o->region ? o->region : "us-east-1");
    snprintf(s3->ca_file, sizeof s3->ca_file, "%s", o->ca_file ? o->ca_file : "");
    st = take_endpoint(s3, o->endpoint ? o->endpoint : "https://s3.amazonaws.com", err);
    if (st)
        goto done;
    s3->access_key = setting(o->access_key, "AWS_ACCESS_KEY_ID");
    s3->secret_key = setting(o->secret_key, "AWS_SECRET_ACCESS_KEY");
    s3->session_token =
        o->access_key && !o->session_token ? NULL : setting(o->session_token, "AWS_SESSION_TOKEN");
    if (!s3->access_key || !s3->secret_key) {
        st = weir_fail(err, WEIR_INVALID,
                       "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY");
        goto done;
    }
    s3->curl = curl_easy_init();
    if (!s3->curl) {
        st = weir_fail(err, WEIR_NO_MEMORY, "out of memory");
        goto done;
    }
    *out = &s3->base;
    s3 = NULL;
    st = WEIR_OK;
done:
    if (s3)
        close_s3(&s3->base);
    return st;
}
