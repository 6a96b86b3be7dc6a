#include "json/reader.h"
#include "base/assert.h"
#include "json/escape.h"

/* What may come next. */
enum expects {
    A_VALUE,
    A_NAME,         /* after a comma in an object */
    A_NAME_OR_END,  /* after { */
    A_VALUE_OR_END, /* after [ */
    A_COMMA_OR_END, /* after a value inside a container */
    THE_END,        /* after the value */
    NOTHING,        /* after END or ERROR */
};

void
weir_json_reader_init(struct weir_json_reader *r, struct weir_bytes bytes, unsigned depth_max)
{
    WEIR_ASSERT(depth_max <= WEIR_JSON_DEPTH_MAX);
    *r = (struct weir_json_reader){
        .expects = A_VALUE,
        .depth_max = depth_max,
        .begin = bytes.data,
        .p = bytes.data,
        .end = bytes.data + bytes.len,
        .bad_utf8_at = weir_json_utf8_bad_at(bytes),
        .scan = weir_json_scan_best(),
    };
}

static enum weir_json_token
fail_at(struct weir_json_reader *r, const uint8_t *at, const char *reason, enum weir_status st)
{
    size_t offset = (size_t)(at - r->begin);
    /* Bytes that are no text are the first cause of whatever they break. */
    if (r->bad_utf8_at <= offset) {
        offset = r->bad_utf8_at;
        reason = "not UTF-8";
        st = WEIR_INVALID;
    }
    r->at = offset;
    r->reason = reason;
    r->status = st;
    r->expects = NOTHING;
    return r->token = WEIR_JSON_ERROR;
}

static enum weir_json_token
fail(struct weir_json_reader *r, const char *reason)
{
    return fail_at(r, r->p, r->p < r->end ? reason : "text ends too early", WEIR_INVALID);
}

static bool
in_array(const struct weir_json_reader *r)
{
    unsigned top = r->depth - 1;
    return r->is_array[top / 64] >> top % 64 & 1;
}

static enum weir_json_token
give(struct weir_json_reader *r, enum weir_json_token token, const uint8_t *from)
{
    r->at = (size_t)(from - r->begin);
    r->text = weir_bytes(from, (size_t)(r->p - from));
    r->escaped = false;
    return r->token = token;
}

static enum weir_json_token
after_value(struct weir_json_reader *r, enum weir_json_token token, const uint8_t *from)
{
    r->expects = r->depth ? A_COMMA_OR_END : THE_END;
    return give(r, token, from);
}

static void
skip_blanks(struct weir_json_reader *r)
{
    while (r->p < r->end && (*r->p == ' ' || *r->p == '\n' || *r->p == '\r' || *r->p == '\t'))
        r->p++;
}

static enum weir_json_token
open_container(struct weir_json_reader *r, bool array)
{
    if (r->depth == r->depth_max)
        return fail_at(r, r->p, "nested too deep", WEIR_TOO_BIG);
    uint64_t bit = (uint64_t)1 << r->depth % 64;
    uint64_t *word = &r->is_array[r->depth / 64];
    *word = array ? *word | bit : *word & ~bit;
    r->depth++;
    r->expects = array ? A_VALUE_OR_END : A_NAME_OR_END;
    const uint8_t *from = r->p++;
    return give(r, array ? WEIR_JSON_ARRAY : WEIR_JSON_OBJECT, from);
}

static enum weir_json_token
close_container(struct weir_json_reader *r)
{
    enum weir_json_token token = in_array(r) ? WEIR_JSON_ARRAY_END : WEIR_JSON_OBJECT_END;
    r->depth--;
    const uint8_t *from = r->p++;
    return after_value(r, token, from);
}

/* The string whose first quote is at r->p; on success r->p is behind the last one. */
static enum weir_json_token
string(struct weir_json_reader *r, enum weir_json_token token)
{
    const uint8_t *from = r->p, *p = from + 1;
    bool escaped = false;
    for (;;) {
        p = r->scan(p, r->end);
        if (p == r->end)
            return fail_at(r, p, "string does not end", WEIR_INVALID);
        if (*p == '"')
            break;
        if (*p != '\\')
            return fail_at(r, p, "control character in a string", WEIR_INVALID);
        uint32_t code;
        const char *reason;
        const uint8_t *at;
        size_t len = weir_json_escape_read(p, r->end, &code, &reason, &at);
        if (len == 0)
            return fail_at(r, at, reason, WEIR_INVALID);
        p += len;
        escaped = true;
    }
    if (r->bad_utf8_at < (size_t)(p - r->begin))
        return fail_at(r, p, "", WEIR_INVALID);
    r->p = p + 1;
    r->at = (size_t)(from - r->begin);
    r->text = weir_bytes(from + 1, (size_t)(p - from - 1));
    r->escaped = escaped;
    return r->token = token;
}

static const uint8_t *
digits_end(const uint8_t *p, const uint8_t *end)
{
    while (p < end && *p >= '0' && *p <= '9')
        p++;
    return p;
}

const uint8_t *
weir_json_number_end(const uint8_t *p, const uint8_t *end)
{
    const uint8_t *start = p, *from;
    if (p < end && *p == '-')
        p++;
    from = p;
    p = p < end && *p == '0' ? p + 1 : digits_end(p, end);
    if (p == from)
        return start;
    if (p < end && *p == '.') {
        from = p + 1;
        p = digits_end(from, end);
        if (p == from)
            return start;
    }
    if (p < end && (*p == 'e' || *p == 'E')) {
        p++;
        if (p < end && (*p == '+' || *p == '-'))
            p++;
        from = p;
        p = digits_end(from, end);
        if (p == from)
            return start;
    }
    return p;
}

static enum weir_json_token
number(struct weir_json_reader *r)
{
    const uint8_t *from = r->p, *p = weir_json_number_end(from, r->end);
    /* What goes on like a number is a bad number, not a number and something else. */
    if (p == from || (p < r->end && ((*p >= '0' && *p <= '9') || *p == '.' || *p == '-')))
        return fail_at(r, from, "bad number", WEIR_INVALID);
    r->p = p;
    return after_value(r, WEIR_JSON_NUMBER, from);
}

static enum weir_json_token
word(struct weir_json_reader *r, const char *text, enum weir_json_token token)
{
    size_t len = strlen(text);
    if ((size_t)(r->end - r->p) < len || memcmp(r->p, text, len) != 0)
        return fail_at(r, r->p, "expected a value", WEIR_INVALID);
    const uint8_t *from = r->p;
    r->p += len;
    return after_value(r, token, from);
}

static enum weir_json_token
value(struct weir_json_reader *r)
{
    switch (*r->p) {
    case '{':
        return open_container(r, false);
    case '[':
        return open_container(r, true);
    case '"':
        if (string(r, WEIR_JSON_STRING) == WEIR_JSON_STRING)
            r->expects = r->depth ? A_COMMA_OR_END : THE_END;
        return r->token;
    case 't':
        return word(r, "true", WEIR_JSON_TRUE);
    case 'f':
        return word(r, "false", WEIR_JSON_FALSE);
    case 'n':
        return word(r, "null", WEIR_JSON_NULL);
    case '-':
    case '0' ... '9':
        return number(r);
    default:
        return fail(r, "expected a value");
    }
}

static enum weir_json_token
name(struct weir_json_reader *r)
{
    if (*r->p != '"')
        return fail(r, "expected a name in quotes");
    if (string(r, WEIR_JSON_NAME) != WEIR_JSON_NAME)
        return r->token;
    skip_blanks(r);
    if (r->p == r->end || *r->p != ':')
        return fail(r, "expected ':'");
    r->p++;
    r->expects = A_VALUE;
    return r->token;
}

static enum weir_json_token
comma_or_end(struct weir_json_reader *r)
{
    bool array = in_array(r);
    if (*r->p == (array ? ']' : '}'))
        return close_container(r);
    if (*r->p != ',')
        return fail(r, array ? "expected ',' or ']'" : "expected ',' or '}'");
    r->p++;
    skip_blanks(r);
    if (r->p == r->end)
        return fail(r, "");
    return array ? value(r) : name(r);
}

enum weir_json_token
weir_json_next(struct weir_json_reader *r)
{
    if (r->expects == NOTHING)
        return r->token;
    skip_blanks(r);
    if (r->expects == THE_END) {
        if (r->p < r->end)
            return fail(r, "text after the end");
        r->expects = NOTHING;
        return give(r, WEIR_JSON_END, r->p);
    }
    if (r->p == r->end)
        return fail(r, "");
    switch ((enum expects)r->expects) {
    case A_NAME_OR_END:
        if (*r->p == '}')
            return close_container(r);
        return name(r);
    case A_NAME:
        return name(r);
    case A_VALUE_OR_END:
        if (*r->p == ']')
            return close_container(r);
        return value(r);
    case A_COMMA_OR_END:
        return comma_or_end(r);
    default:
        return value(r);
    }
}

bool
weir_json_skip(struct weir_json_reader *r)
{
    if (r->token == WEIR_JSON_NAME)
        weir_json_next(r);
    size_t from = r->at;
    if (r->token == WEIR_JSON_OBJECT || r->token == WEIR_JSON_ARRAY) {
        unsigned outside = r->depth - 1;
        while (r->token != WEIR_JSON_ERROR && r->depth > outside)
            weir_json_next(r);
    }
    if (r->token == WEIR_JSON_ERROR)
        return false;
    r->at = from;
    r->text = weir_bytes(r->begin + from, (size_t)(r->p - r->begin) - from);
    return true;
}

enum weir_status
weir_json_fail(const struct weir_json_reader *r, struct weir_error *err, const char *wanted)
{
    if (r->token == WEIR_JSON_ERROR)
        return weir_fail(err, r->status, "byte %zu: %s", r->at, r->reason);
    return weir_fail(err, WEIR_INVALID, "byte %zu: %s", r->at, wanted);
}

/* The character at *p of accepted text, which moves behind it. */
static size_t
character(const uint8_t **p, const uint8_t *end, uint8_t out[4])
{
    if (**p != '\\') {
        out[0] = *(*p)++;
        return 1;
    }
    uint32_t code = 0;
    const char *reason;
    const uint8_t *at;
    size_t len = weir_json_escape_read(*p, end, &code, &reason, &at);
    WEIR_ASSERT(len != 0);
    *p += len;
    return weir_json_utf8_write(code, out);
}

bool
weir_json_text_equal(struct weir_bytes raw, struct weir_bytes plain)
{
    if (raw.len == 0 || !memchr(raw.data, '\\', raw.len))
        return weir_bytes_equal(raw, plain);
    const uint8_t *p = raw.data, *end = p + raw.len;
    size_t at = 0;
    while (p < end) {
        uint8_t piece[4];
        size_t len = character(&p, end, piece);
        if (plain.len - at < len || memcmp(plain.data + at, piece, len) != 0)
            return false;
        at += len;
    }
    return at == plain.len;
}

bool
weir_json_is(const struct weir_json_reader *r, const char *text)
{
    if (r->token != WEIR_JSON_NAME && r->token != WEIR_JSON_STRING)
        return false;
    return r->escaped ? weir_json_text_equal(r->text, weir_bytes_of(text))
                      : weir_bytes_is(r->text, text);
}

size_t
weir_json_unescape(struct weir_bytes raw, uint8_t *out)
{
    const uint8_t *p = raw.data, *end = p + raw.len;
    size_t len = 0;
    while (p < end) {
        const uint8_t *stop = memchr(p, '\\', (size_t)(end - p));
        size_t plain = (size_t)((stop ? stop : end) - p);
        memmove(out + len, p, plain);
        len += plain;
        p += plain;
        if (stop) {
            uint8_t piece[4];
            size_t piece_len = character(&p, end, piece);
            memcpy(out + len, piece, piece_len);
            len += piece_len;
        }
    }
    return len;
}

enum weir_status
weir_json_append(const struct weir_json_reader *r, struct weir_text *out)
{
    const uint8_t *p = r->text.data, *end = p + r->text.len;
    if (!r->escaped) {
        weir_text_append(out, r->text);
        p = end;
    }
    while (p < end) {
        const uint8_t *stop = memchr(p, '\\', (size_t)(end - p));
        weir_text_append(out, weir_bytes(p, (size_t)((stop ? stop : end) - p)));
        p = stop ? stop : end;
        if (stop) {
            uint8_t piece[4];
            size_t len = character(&p, end, piece);
            weir_text_append(out, weir_bytes(piece, len));
        }
    }
    return out->failed ? WEIR_NO_MEMORY : WEIR_OK;
}

enum weir_status
weir_json_u64(const struct weir_json_reader *r, uint64_t *out)
{
    if (r->token != WEIR_JSON_NUMBER)
        return WEIR_INVALID;
    uint64_t v = 0;
    for (size_t i = 0; i < r->text.len; i++) {
        uint8_t c = r->text.data[i];
        if (c < '0' || c > '9')
            return WEIR_INVALID;
        if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, c - '0', &v))
            return WEIR_TOO_BIG;
    }
    *out = v;
    return WEIR_OK;
}

enum weir_status
weir_json_i64(const struct weir_json_reader *r, int64_t *out)
{
    if (r->token != WEIR_JSON_NUMBER)
        return WEIR_INVALID;
    bool negative = r->text.data[0] == '-';
    int64_t v = 0;
    for (size_t i = negative; i < r->text.len; i++) {
        uint8_t c = r->text.data[i];
        if (c < '0' || c > '9')
            return WEIR_INVALID;
        int64_t digit = negative ? -(c - '0') : c - '0';
        if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, digit, &v))
            return WEIR_TOO_BIG;
    }
    *out = v;
    return WEIR_OK;
}
