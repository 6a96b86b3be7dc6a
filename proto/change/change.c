#include "change/change.h"
#include "base/assert.h"
#include "change/walk_impl.h"
#include "json/escape.h"

const char *
weir_change_event_name(enum weir_change_event event)
{
    static const char *const names[] = {"INSERT", "MODIFY", "REMOVE"};
    return names[event];
}

const uint8_t *
weir_change_walk_fail(struct walk *w, enum weir_status st, const uint8_t *at, const char *reason)
{
    w->status = st;
    w->at = at;
    w->reason = at == w->end && st == WEIR_INVALID ? "record ends too early" : reason;
    return NULL;
}

enum weir_status
weir_change_walk_error(const struct walk *w, struct weir_error *err)
{
    return weir_fail(err, w->status, "byte %zu: %s", (size_t)(w->at - w->begin), w->reason);
}

enum weir_status
weir_change_peek(struct weir_bytes record, struct weir_change_info *info_out,
                 struct weir_error *err)
{
    struct walk w = {.begin = record.data, .end = record.data + record.len};
    bool done = weir_json_has_avx2() ? weir_change_walk_avx2(&w) : weir_change_walk_portable(&w);
    if (!done)
        return weir_change_walk_error(&w, err);
    *info_out = w.info;
    return WEIR_OK;
}

/* Attribute values */

static const char *const type_names[] = {
    [WEIR_CHANGE_S] = "S",       [WEIR_CHANGE_N] = "N",       [WEIR_CHANGE_B] = "B",
    [WEIR_CHANGE_BOOL] = "BOOL", [WEIR_CHANGE_NULL] = "NULL", [WEIR_CHANGE_L] = "L",
    [WEIR_CHANGE_M] = "M",       [WEIR_CHANGE_SS] = "SS",     [WEIR_CHANGE_NS] = "NS",
    [WEIR_CHANGE_BS] = "BS",
};

static bool
type_from_name(const struct weir_json_reader *r, enum weir_change_type *out)
{
    for (size_t i = 0; i < sizeof type_names / sizeof type_names[0]; i++) {
        if (weir_json_is(r, type_names[i])) {
            *out = (enum weir_change_type)i;
            return true;
        }
    }
    return false;
}

/* Whether the value at the reader's token is of the JSON kind that the type is written as. */
static bool
token_fits(enum weir_json_token token, enum weir_change_type type)
{
    switch (type) {
    case WEIR_CHANGE_S:
    case WEIR_CHANGE_N:
    case WEIR_CHANGE_B:
        return token == WEIR_JSON_STRING;
    case WEIR_CHANGE_BOOL:
        return token == WEIR_JSON_TRUE || token == WEIR_JSON_FALSE;
    case WEIR_CHANGE_NULL:
        return token == WEIR_JSON_TRUE;
    case WEIR_CHANGE_M:
        return token == WEIR_JSON_OBJECT;
    default:
        return token == WEIR_JSON_ARRAY;
    }
}

void
weir_change_attributes_init(struct weir_change_attributes *walk, struct weir_bytes image)
{
    weir_json_reader_init(&walk->reader, image, 2 * WEIR_CHANGE_DEPTH_MAX + 3);
    weir_json_next(&walk->reader);
}

static enum weir_status
refuse(struct weir_json_reader *r)
{
    enum weir_status st = r->token == WEIR_JSON_ERROR ? r->status : WEIR_INVALID;
    /* An empty text is an error for good. */
    weir_json_reader_init(r, weir_bytes(r->begin, 0), 0);
    weir_json_next(r);
    return st;
}

enum weir_status
weir_change_attributes_next(struct weir_change_attributes *walk, struct weir_change_attribute *out)
{
    struct weir_json_reader *r = &walk->reader;
    struct weir_change_attribute found = {0};
    if (r->token == WEIR_JSON_END)
        return WEIR_END;
    if (r->token == WEIR_JSON_ERROR || r->depth == 0)
        return refuse(r);
    if (weir_json_next(r) == WEIR_JSON_OBJECT_END)
        return weir_json_next(r) == WEIR_JSON_END ? WEIR_END : refuse(r);
    if (r->token != WEIR_JSON_NAME)
        return refuse(r);
    found.name = r->text;
    if (weir_json_next(r) != WEIR_JSON_OBJECT || weir_json_next(r) != WEIR_JSON_NAME ||
        !type_from_name(r, &found.type))
        return refuse(r);
    if (!token_fits(weir_json_next(r), found.type))
        return refuse(r);
    if ((r->token == WEIR_JSON_OBJECT || r->token == WEIR_JSON_ARRAY) && !weir_json_skip(r))
        return refuse(r);
    found.value = r->text;
    if (weir_json_next(r) != WEIR_JSON_OBJECT_END)
        return refuse(r);
    *out = found;
    return WEIR_OK;
}

enum weir_status
weir_change_attribute(struct weir_bytes image, struct weir_bytes name,
                      struct weir_change_attribute *out)
{
    struct weir_change_attributes walk;
    struct weir_change_attribute found;
    enum weir_status st;
    weir_change_attributes_init(&walk, image);
    while ((st = weir_change_attributes_next(&walk, &found)) == WEIR_OK) {
        if (weir_json_text_equal(found.name, name)) {
            *out = found;
            return WEIR_OK;
        }
    }
    return st == WEIR_END ? WEIR_NOT_FOUND : st;
}

enum weir_status
weir_change_attribute_text(const struct weir_change_attribute *attribute, struct weir_text *out)
{
    if (attribute->type == WEIR_CHANGE_NULL) {
        weir_text_puts(out, "null");
        return out->failed ? WEIR_NO_MEMORY : WEIR_OK;
    }
    bool is_text = attribute->type == WEIR_CHANGE_S || attribute->type == WEIR_CHANGE_N ||
                   attribute->type == WEIR_CHANGE_B;
    const struct weir_json_reader r = {
        .token = WEIR_JSON_STRING,
        .text = attribute->value,
        .escaped = is_text && attribute->value.len > 0 &&
                   memchr(attribute->value.data, '\\', attribute->value.len),
    };
    return weir_json_append(&r, out);
}

/* Checks that the walk leaves to straight code */

/* The characters of raw text one by one; escapes count as what they stand for. -1 at the end. */
static int32_t
next_character(const uint8_t **p, const uint8_t *end)
{
    if (*p == end)
        return -1;
    if (**p != '\\')
        return *(*p)++;
    uint32_t code = 0;
    const char *reason;
    const uint8_t *at;
    size_t len = weir_json_escape_read(*p, end, &code, &reason, &at);
    WEIR_ASSERT(len != 0);
    *p += len;
    return (int32_t)code;
}

static bool
is_base64(int32_t c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '+' ||
           c == '/';
}

bool
weir_change_base64_is_valid(struct weir_bytes raw)
{
    const uint8_t *p = raw.data, *end = p + raw.len;
    size_t count = 0, padding = 0;
    int32_t c;
    while ((c = next_character(&p, end)) >= 0) {
        if (c == '=')
            padding++;
        else if (padding || !is_base64(c))
            return false;
        count++;
    }
    return count % 4 == 0 && padding <= 2;
}

const char *
weir_change_number_fault(struct weir_bytes text)
{
    const uint8_t *end = text.data + text.len;
    if (text.len > WEIR_CHANGE_NUMBER_MAX)
        return "number too long";
    if (text.len == 0 || weir_json_number_end(text.data, end) != end)
        return "not a number";
    for (const uint8_t *p = text.data; p < end; p++)
        if ((*p | 0x20) == 'e') {
            p += p[1] == '-' || p[1] == '+';
            return end - p - 1 > 5 ? "exponent out of range" : NULL;
        }
    return NULL;
}

size_t
weir_change_significant_digits(struct weir_bytes number)
{
    size_t count = 0, zeros = 0;
    for (size_t i = 0; i < number.len; i++) {
        uint8_t c = number.data[i];
        if (c == 'e' || c == 'E')
            break;
        if (c < '0' || c > '9')
            continue;
        if (c == '0') {
            zeros += count > 0;
            continue;
        }
        count += zeros + 1;
        zeros = 0;
    }
    return count;
}
