/* The walk over a change record: one pass that checks all of it and, when a line is wanted, writes
 * that line on the way. Included once by each walk_*.c, which names the function in WALK and is
 * compiled for the machine it is for (json/scan.h).
 *
 *   record()    the members of the record; finds name, time, table, id, and the images
 *     image()   the attributes of an image: checked only, or copied to the line without their types
 *     ...
 *     finish()  what could not be written on the way, because members came in another order
 *
 * Positions are pointers into the record. A function takes the position it starts at and returns
 * the one behind what it read, or NULL after it noted the failure in w. Nothing beyond w->end is
 * read. Writing needs no checks: weir_flatten_bound() says why the line fits.
 *
 * A record is read from the left, but its line starts with what may stand anywhere. When an image
 * is met and all that stands before it in the line is known, it is written at once; this is so for
 * every record that DynamoDB makes. Else the image is only checked, and finish() writes it. */
#include "base/assert.h"
#include "change/walk_impl.h"
#include "json/escape.h"
#include "json/reader.h"
#include "json/scan.h"

static_assert(WEIR_CHANGE_DEPTH_MAX < 64, "image() keeps one bit per level, and one for the image");

#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)
#define FAIL(w, at, reason) weir_change_walk_fail(w, WEIR_INVALID, at, reason)

/* What happens to an image. */
enum mode {
    CHECK,     /* looked at */
    WRITE,     /* copied to the line */
    WRITE_OLD, /* copied, with "old_" before the names */
};

static inline uint64_t
load64(const uint8_t *p)
{
    uint64_t x;
    memcpy(&x, p, 8);
    return x;
}

static inline uint32_t
load32(const uint8_t *p)
{
    uint32_t x;
    memcpy(&x, p, 4);
    return x;
}

/* Up to eight characters as the number that load64() makes of them. */
#define TEXT1(a) ((uint64_t)(uint8_t)(a))
#define TEXT4(a, b, c, d) (TEXT1(a) | TEXT1(b) << 8 | TEXT1(c) << 16 | TEXT1(d) << 24)
#define TEXT8(a, b, c, d, e, f, g, h) (TEXT4(a, b, c, d) | TEXT4(e, f, g, h) << 32)

[[gnu::noinline]] static const uint8_t *
more_blanks(const uint8_t *p, const uint8_t *end)
{
    while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t'))
        p++;
    return p;
}

static inline const uint8_t *
blanks(const uint8_t *p, const uint8_t *end)
{
    return LIKELY(p<end && * p> ' ') ? p : more_blanks(p, end);
}

/* Passes the character `c`, with blanks before it. */
static inline const uint8_t *
expect(struct walk *w, const uint8_t *p, char c, const char *reason)
{
    if (LIKELY(p < w->end && *p == (uint8_t)c))
        return p + 1;
    p = more_blanks(p, w->end);
    if (p < w->end && *p == (uint8_t)c)
        return p + 1;
    return FAIL(w, p, reason);
}

/* Strings */

/* The rest of a string from its first special at q on: escapes, and what is wrong. Its plain
 * beginning stands in the line already when one is written; then w->out is behind that. */
[[gnu::noinline]] static const uint8_t *
string_rest(struct walk *w, const uint8_t *q, bool write)
{
    for (;;) {
        if (q == w->end)
            return FAIL(w, q, "string does not end");
        if (*q == '"')
            break;
        if (*q != '\\')
            return FAIL(w, q, "control character in a string");
        uint32_t code;
        const char *reason;
        const uint8_t *at;
        size_t len = weir_json_escape_read(q, w->end, &code, &reason, &at);
        if (len == 0)
            return FAIL(w, at, reason);
        q += len;
        w->escaped = true;
        if (write)
            w->out += weir_json_escape_write(code, w->out);
        const uint8_t *from = q;
        q = write ? weir_scan_copy(q, w->end, w->out) : weir_scan_string(q, w->end);
        if (write)
            w->out += q - from;
    }
    if (write)
        *w->out++ = '"';
    return q + 1;
}

/* The string whose first quote is at p. */
[[gnu::always_inline]] static inline const uint8_t *
string(struct walk *w, const uint8_t *p, uint8_t **o, const bool write)
{
    const uint8_t *from = p + 1;
    if (!write) {
        const uint8_t *q = weir_scan_string(from, w->end);
        return LIKELY(q < w->end && *q == '"') ? q + 1 : string_rest(w, q, false);
    }
    (*o)[0] = '"';
    const uint8_t *q = weir_scan_copy(from, w->end, *o + 1);
    *o += 1 + (q - from);
    if (LIKELY(q < w->end && *q == '"')) {
        *(*o)++ = '"';
        return q + 1;
    }
    w->out = *o;
    q = string_rest(w, q, true);
    *o = w->out;
    return q;
}

/* What stands between the quotes of a string that string() passed. */
static inline struct weir_bytes
between(const uint8_t *first_quote, const uint8_t *behind)
{
    return weir_bytes(first_quote + 1, (size_t)(behind - first_quote - 2));
}

/* Any JSON */

/* One value of any kind and depth that no one reads. */
[[gnu::noinline]] static const uint8_t *
any_value(struct walk *w, const uint8_t *p)
{
    uint64_t objects = 0; /* bit 0: the innermost container is an object */
    unsigned depth = 0;
    uint8_t *none = NULL;
    for (;;) {
        p = blanks(p, w->end);
        if (p == w->end)
            return FAIL(w, p, "");
        if (*p == '{' || *p == '[') {
            bool object = *p == '{';
            if (depth == 64)
                return weir_change_walk_fail(w, WEIR_TOO_BIG, p, "nested too deep");
            p = blanks(p + 1, w->end);
            if (p < w->end && *p == (object ? '}' : ']')) {
                p++;
            } else {
                depth++;
                objects = objects << 1 | object;
                if (!object)
                    continue;
                goto name;
            }
        } else if (*p == '"') {
            p = string(w, p, &none, false);
            if (!p)
                return NULL;
        } else if (*p == '-' || (*p >= '0' && *p <= '9')) {
            const uint8_t *stop = weir_json_number_end(p, w->end);
            if (stop == p)
                return FAIL(w, p, "bad number");
            p = stop;
        } else if (w->end - p >= 4 && load32(p) == TEXT4('n', 'u', 'l', 'l')) {
            p += 4;
        } else if (w->end - p >= 4 && load32(p) == TEXT4('t', 'r', 'u', 'e')) {
            p += 4;
        } else if (w->end - p >= 5 && memcmp(p, "false", 5) == 0) {
            p += 5;
        } else {
            return FAIL(w, p, "expected a value");
        }

        for (;;) {
            if (depth == 0)
                return p;
            p = blanks(p, w->end);
            if (p == w->end)
                return FAIL(w, p, "");
            if (*p == ',')
                break;
            if (*p != (objects & 1 ? '}' : ']'))
                return FAIL(w, p, objects & 1 ? "expected ',' or '}'" : "expected ',' or ']'");
            p++;
            depth--;
            objects >>= 1;
        }
        p++;
        if (!(objects & 1))
            continue;
    name:
        p = blanks(p, w->end);
        if (p == w->end || *p != '"')
            return FAIL(w, p, "expected a name in quotes");
        p = string(w, p, &none, false);
        p = p ? expect(w, p, ':', "expected ':'") : NULL;
        if (!p)
            return NULL;
    }
}

/* Attribute values */

/* The type of a value that does not look as DynamoDB writes it: blanks, escapes, or a fault. */
[[gnu::noinline]] static const uint8_t *
type_spelled(struct walk *w, const uint8_t *p, enum weir_change_type *type)
{
    static const char *const names[] = {"S", "N", "B", "BOOL", "NULL", "L", "M", "SS", "NS", "BS"};
    uint8_t *none = NULL;
    p = expect(w, p, '{', "expected an attribute value, as in {\"S\":\"…\"}");
    p = p ? blanks(p, w->end) : NULL;
    if (!p)
        return NULL;
    const uint8_t *name = p;
    if (p == w->end || *p != '"')
        return FAIL(w, p, "expected the type of an attribute");
    p = string(w, p, &none, false);
    if (!p)
        return NULL;
    size_t i = 0;
    while (i < sizeof names / sizeof names[0] &&
           !weir_json_text_equal(between(name, p), weir_bytes_of(names[i])))
        i++;
    if (i == sizeof names / sizeof names[0])
        return FAIL(w, name, "attribute type is none of S, N, B, BOOL, NULL, L, M, SS, NS, BS");
    p = expect(w, p, ':', "expected ':'");
    p = p ? blanks(p, w->end) : NULL;
    if (!p)
        return NULL;
    static const uint8_t starts[] = {'"', '"', '"', 0, 't', '[', '{', '[', '[', '['};
    if (p == w->end || (starts[i] && *p != starts[i]))
        return FAIL(w, p, "value does not fit its attribute type");
    *type = (enum weir_change_type)i;
    return p;
}

/* The opening of an attribute value at p: its type, and the position of what is in it. */
[[gnu::always_inline]] static inline const uint8_t *
type_of(struct walk *w, const uint8_t *p, enum weir_change_type *type)
{
    if (UNLIKELY(w->end - p < 9))
        return type_spelled(w, p, type);
    uint64_t x = load64(p);
    if (LIKELY((x & 0xffff00ffff) == TEXT8('{', '"', 0, '"', ':', 0, 0, 0))) {
        uint8_t letter = (uint8_t)(x >> 16), start = (uint8_t)(x >> 40);
        if (LIKELY(letter == 'S' && start == '"'))
            *type = WEIR_CHANGE_S;
        else if (LIKELY(letter == 'N' && start == '"'))
            *type = WEIR_CHANGE_N;
        else if (letter == 'M' && start == '{')
            *type = WEIR_CHANGE_M;
        else if (letter == 'L' && start == '[')
            *type = WEIR_CHANGE_L;
        else if (letter == 'B' && start == '"')
            *type = WEIR_CHANGE_B;
        else
            return type_spelled(w, p, type);
        return p + 5;
    }
    if (x == TEXT8('{', '"', 'B', 'O', 'O', 'L', '"', ':') && (p[8] == 't' || p[8] == 'f')) {
        *type = WEIR_CHANGE_BOOL;
        return p + 8;
    }
    if (x == TEXT8('{', '"', 'N', 'U', 'L', 'L', '"', ':') && p[8] == 't') {
        *type = WEIR_CHANGE_NULL;
        return p + 8;
    }
    if ((x & 0xffffffff00ffff) == TEXT8('{', '"', 0, 'S', '"', ':', '[', 0)) {
        uint8_t letter = (uint8_t)(x >> 16);
        *type = letter == 'S' ? WEIR_CHANGE_SS : letter == 'N' ? WEIR_CHANGE_NS : WEIR_CHANGE_BS;
        if (letter == 'S' || letter == 'N' || letter == 'B')
            return p + 6;
    }
    return type_spelled(w, p, type);
}

/* A number's text into the line: as a number, or in quotes where a double would lose digits. */
static inline uint8_t *
put_number_text(const struct walk *w, uint8_t *o, struct weir_bytes text)
{
    bool quoted = UNLIKELY(w->options->numbers_as_text) && text.len > 15 &&
                  weir_change_significant_digits(text) > 15;
    if (quoted)
        *o++ = '"';
    memcpy(o, text.data, text.len);
    o += text.len;
    if (quoted)
        *o++ = '"';
    return o;
}

/* A number written with escapes, or wrong. */
[[gnu::noinline]] static const uint8_t *
number_spelled(struct walk *w, const uint8_t *p, bool write)
{
    uint8_t plain[WEIR_CHANGE_NUMBER_MAX], *none = NULL;
    const uint8_t *behind = string(w, p, &none, false);
    if (!behind)
        return NULL;
    struct weir_bytes text = between(p, behind);
    if (text.len > sizeof plain)
        return FAIL(w, p, "number too long");
    text = weir_bytes(plain, weir_json_unescape(text, plain));
    const char *fault = weir_change_number_fault(text);
    if (fault)
        return FAIL(w, p, fault);
    if (write)
        w->out = put_number_text(w, w->out, text);
    return behind;
}

/* The number in the string at p. */
[[gnu::always_inline]] static inline const uint8_t *
number(struct walk *w, const uint8_t *p, uint8_t **o, const bool write)
{
    /* Digits with one point at most are the rule; all else goes the long way. */
    const uint8_t *first = p + 1, *q = first, *end = w->end;
    q += q < end && *q == '-';
    const uint8_t *digits = q;
    while (q < end && (uint8_t)(*q - '0') <= 9)
        q++;
    bool plain = q > digits && (*digits != '0' || q == digits + 1);
    if (q < end && *q == '.') {
        const uint8_t *point = q++;
        while (q < end && (uint8_t)(*q - '0') <= 9)
            q++;
        plain &= q > point + 1;
    }
    if (LIKELY(plain && q < end && *q == '"' && q - first <= 32)) {
        if (!write)
            return q + 1;
        struct weir_bytes text = weir_bytes(first, (size_t)(q - first));
        if (LIKELY(!w->options->numbers_as_text && end - first >= 32)) {
            memcpy(*o, first, 32);
            *o += text.len;
        } else {
            *o = put_number_text(w, *o, text);
        }
        return q + 1;
    }
    w->out = *o;
    q = number_spelled(w, p, write);
    *o = w->out;
    return q;
}

[[gnu::noinline]] static const uint8_t *
binary(struct walk *w, const uint8_t *p, bool write)
{
    const uint8_t *behind = string(w, p, &w->out, write);
    if (!behind)
        return NULL;
    if (!weir_change_base64_is_valid(between(p, behind)))
        return FAIL(w, p, "not base64");
    return behind;
}

static const uint8_t *
member(struct walk *w, const uint8_t *p, enum weir_change_type set, bool write)
{
    if (p == w->end || *p != '"')
        return FAIL(w, p, "expected a string in the set");
    if (set == WEIR_CHANGE_BS)
        return binary(w, p, write);
    if (set == WEIR_CHANGE_NS)
        return write ? number(w, p, &w->out, true) : number(w, p, &w->out, false);
    return write ? string(w, p, &w->out, true) : string(w, p, &w->out, false);
}

/* The array of a set; p is at its bracket. */
[[gnu::noinline]] static const uint8_t *
members(struct walk *w, const uint8_t *p, enum weir_change_type set, bool write)
{
    const uint8_t *from = p;
    p = blanks(p + 1, w->end);
    if (p < w->end && *p == ']')
        return FAIL(w, p, "empty set");
    if (write)
        *w->out++ = '[';
    uint8_t *first = w->out;
    struct weir_bytes before = {0};
    bool sorted = true;
    size_t count = 0;
    for (;;) {
        uint8_t *o = w->out;
        p = member(w, p, set, write);
        if (!p)
            return NULL;
        count++;
        if (write) {
            struct weir_bytes now = weir_bytes(o, (size_t)(w->out - o));
            if (sorted && count > 1)
                sorted = weir_change_member_compare(set, before, now) <= 0;
            before = now;
        }
        p = blanks(p, w->end);
        if (p == w->end || *p != ',')
            break;
        if (write)
            *w->out++ = ',';
        p = blanks(p + 1, w->end);
    }
    p = expect(w, p, ']', "expected ',' or ']'");
    if (!p || !write)
        return p;
    if (!sorted && weir_change_set_sort(set, first, (size_t)(w->out - first), count))
        return weir_change_walk_fail(w, WEIR_NO_MEMORY, from, "no memory to sort a set");
    *w->out++ = ']';
    return p;
}

/* The name at p and its colon. */
[[gnu::always_inline]] static inline const uint8_t *
name(struct walk *w, const uint8_t *p, uint8_t **o, const enum mode mode, bool outermost)
{
    if (UNLIKELY(p == w->end || *p != '"'))
        return FAIL(w, p, "expected a name in quotes");
    uint8_t *from = *o;
    if (mode == WRITE_OLD && outermost)
        *o += 4;
    p = string(w, p, o, mode != CHECK);
    p = LIKELY(p != NULL) ? expect(w, p, ':', "expected ':'") : NULL;
    if (mode == CHECK || UNLIKELY(!p))
        return p;
    if (outermost && mode == WRITE_OLD) {
        memcpy(from, "\"old_", 5);
    } else if (outermost && *o - from >= 6) {
        uint32_t x = load32(from + 1);
        if (UNLIKELY(x == TEXT4('e', 'v', 'e', 'n') || x == TEXT4('a', 't', 't', 'r') ||
                     x == TEXT4('o', 'l', 'd', '_') || from[1] == '_')) {
            size_t len = (size_t)(*o - from) - 2;
            if (weir_change_name_is_reserved(weir_bytes(from + 1, len), w->options->with_old)) {
                memmove(from + 6, from + 1, len + 1);
                memcpy(from + 1, "attr_", 5);
                *o += 5;
            }
        }
    }
    *(*o)++ = ':';
    return p;
}

/* A value that holds no other: what is between its type and its last brace. */
[[gnu::always_inline]] static inline const uint8_t *
scalar(struct walk *w, const uint8_t *p, uint8_t **o, enum weir_change_type type, const bool write)
{
    if (LIKELY(type == WEIR_CHANGE_S))
        return string(w, p, o, write);
    if (LIKELY(type == WEIR_CHANGE_N))
        return number(w, p, o, write);
    if (type == WEIR_CHANGE_BOOL || type == WEIR_CHANGE_NULL) {
        size_t left = (size_t)(w->end - p);
        size_t len = left >= 4 && load32(p) == TEXT4('t', 'r', 'u', 'e') ? 4
                     : left >= 5 && memcmp(p, "false", 5) == 0           ? 5
                                                                         : 0;
        if (UNLIKELY(len == 0 || (type == WEIR_CHANGE_NULL && len == 5)))
            return FAIL(w, p, "value does not fit its attribute type");
        if (write) {
            memcpy(*o, type == WEIR_CHANGE_NULL ? "null " : len == 4 ? "true " : "false", 5);
            *o += len;
        }
        return p + len;
    }
    w->out = *o;
    p = type == WEIR_CHANGE_B ? binary(w, p, write) : members(w, p, type, write);
    *o = w->out;
    return p;
}

/* The image whose brace is at p. Its attributes go to the line, a comma before each. */
[[gnu::always_inline]] static inline const uint8_t *
image(struct walk *w, const uint8_t *p, const enum mode mode)
{
    const bool write = mode != CHECK;
    uint8_t *o = w->out;
    uint64_t maps = 1; /* bit 0: the innermost container is a map; the image is one */
    unsigned depth = 0;

    p = blanks(p + 1, w->end);
    if (p < w->end && *p == '}')
        return p + 1;
    if (write)
        *o++ = ',';
    for (;;) {
        /* A value, with its name when it is in a map. */
        if (LIKELY(maps & 1)) {
            p = name(w, p, &o, mode, depth == 0);
            if (UNLIKELY(!p))
                return NULL;
        }
        enum weir_change_type type;
        p = type_of(w, p, &type);
        if (UNLIKELY(!p))
            return NULL;
        if (type == WEIR_CHANGE_M || type == WEIR_CHANGE_L) {
            bool map = type == WEIR_CHANGE_M;
            if (write)
                *o++ = map ? '{' : '[';
            if (depth == WEIR_CHANGE_DEPTH_MAX)
                return weir_change_walk_fail(w, WEIR_TOO_BIG, p, "nested too deep");
            p = blanks(p + 1, w->end);
            depth++;
            maps = maps << 1 | map;
            if (UNLIKELY(p == w->end))
                return FAIL(w, p, "");
            if (*p != (map ? '}' : ']'))
                continue;
        } else {
            p = scalar(w, p, &o, type, write);
            p = LIKELY(p != NULL) ? expect(w, p, '}', "expected '}' after an attribute value") : p;
            if (UNLIKELY(!p))
                return NULL;
        }

        /* What follows it: another one, or the end of what it is in, of what that is in, … */
        for (;;) {
            p = blanks(p, w->end);
            if (UNLIKELY(p == w->end))
                return FAIL(w, p, "");
            if (*p == ',')
                break;
            bool map = maps & 1;
            if (UNLIKELY(*p != (map ? '}' : ']')))
                return FAIL(w, p, map ? "expected ',' or '}'" : "expected ',' or ']'");
            p++;
            if (depth == 0) {
                w->out = o;
                return p;
            }
            if (write)
                *o++ = map ? '}' : ']';
            depth--;
            maps >>= 1;
            p = expect(w, p, '}', "expected '}' after an attribute value");
            if (UNLIKELY(!p))
                return NULL;
        }
        if (write)
            *o++ = ',';
        p = blanks(p + 1, w->end);
    }
}

[[gnu::noinline]] static const uint8_t *
image_checked(struct walk *w, const uint8_t *p)
{
    return image(w, p, CHECK);
}

[[gnu::noinline]] static const uint8_t *
image_written(struct walk *w, const uint8_t *p)
{
    return image(w, p, WRITE);
}

[[gnu::noinline]] static const uint8_t *
image_written_as_old(struct walk *w, const uint8_t *p)
{
    return image(w, p, WRITE_OLD);
}

/* The line */

/* The image that the attributes of the line come from, when it is there. */
static enum walk_image
wanted_image(const struct walk *w)
{
    if (w->info.event != WEIR_CHANGE_REMOVE)
        return WALK_NEW;
    return w->options->remove_old_image ? WALK_OLD : WALK_KEYS;
}

/* The record's time in the unit it states. False: not between 1970 and 9999. */
static bool
settle_time(struct walk *w)
{
    uint64_t unit_us = w->info.microseconds ? 1 : 1000;
    if (w->created_at > WALK_TIME_MAX_US / unit_us)
        return false;
    w->info.created_at_us = w->created_at * unit_us;
    w->info.created_at_ms = w->info.created_at_us / 1000;
    return true;
}

/* Whether all that stands before the attributes is known. Should the unit of the time come later,
 * the line is written again. */
static bool
header_is_ready(struct walk *w)
{
    unsigned needs = EVENT_NAME | CREATED_AT;
    needs |= w->options->event_id ? EVENT_ID : 0;
    needs |= w->options->table ? TABLE : 0;
    return (w->seen & needs) == needs && settle_time(w);
}

static const uint8_t *
image_member(struct walk *w, const uint8_t *p, enum walk_image which)
{
    const uint8_t *from = p;
    if (*p != '{')
        return FAIL(w, p, "expected an object of attributes");
    if (!w->options) {
        p = image_checked(w, p);
    } else if (!w->has_source && header_is_ready(w) && which == wanted_image(w)) {
        weir_change_write_header(w);
        w->has_source = true;
        p = image_written(w, p);
    } else if (w->has_source && which == WALK_OLD && w->options->with_old) {
        w->has_old = true;
        p = image_written_as_old(w, p);
    } else {
        p = image_checked(w, p);
    }
    if (p)
        w->images[which] = weir_bytes(from, (size_t)(p - from));
    return p;
}

/* Everything is read: writes what of the line is not written yet. */
static bool
finish(struct walk *w)
{
    static const struct {
        unsigned field;
        const char *reason;
    } required[] = {
        {EVENT_NAME, "no eventName"},
        {DYNAMODB, "no dynamodb"},
        {CREATED_AT, "no ApproximateCreationDateTime"},
        {KEYS, "no Keys"},
    };
    for (size_t i = 0; i < sizeof required / sizeof required[0]; i++)
        if (!(w->seen & required[i].field))
            return FAIL(w, w->begin, required[i].reason);
    if (!settle_time(w))
        return FAIL(w, w->created_at_at, "ApproximateCreationDateTime is beyond the year 9999");
    w->info.keys = w->images[WALK_KEYS];
    w->info.new_image = w->images[WALK_NEW];
    w->info.old_image = w->images[WALK_OLD];
    if (!w->options)
        return true;

    enum walk_image source = wanted_image(w);
    if (!w->images[source].data)
        source = WALK_KEYS;
    if (!w->has_source || w->is_stale) {
        w->out = w->out_begin;
        w->has_old = false;
        weir_change_write_header(w);
        if (!image_written(w, w->images[source].data))
            return false;
    }
    if (w->options->with_old && source != WALK_OLD && !w->has_old && w->images[WALK_OLD].data &&
        !image_written_as_old(w, w->images[WALK_OLD].data))
        return false;
    memcpy(w->out, "}\n", 2);
    w->out += 2;
    return true;
}

/* The record */

/* Whether the string that was passed last, `raw` between its quotes, says `text`. */
[[gnu::always_inline]] static inline bool
says(const struct walk *w, struct weir_bytes raw, const char *text)
{
    size_t len = __builtin_strlen(text);
    if (UNLIKELY(w->escaped))
        return weir_json_text_equal(raw, weir_bytes(text, len));
    return raw.len == len && memcmp(raw.data, text, len) == 0;
}

static unsigned
outer_field(const struct walk *w, struct weir_bytes name)
{
    return says(w, name, "eventName")   ? EVENT_NAME
           : says(w, name, "eventID")   ? EVENT_ID
           : says(w, name, "tableName") ? TABLE
           : says(w, name, "dynamodb")  ? DYNAMODB
                                        : 0;
}

static unsigned
inner_field(const struct walk *w, struct weir_bytes name)
{
    return says(w, name, "NewImage")                               ? NEW_IMAGE
           : says(w, name, "OldImage")                             ? OLD_IMAGE
           : says(w, name, "Keys")                                 ? KEYS
           : says(w, name, "ApproximateCreationDateTime")          ? CREATED_AT
           : says(w, name, "ApproximateCreationDateTimePrecision") ? PRECISION
                                                                   : 0;
}

static const uint8_t *
text_member(struct walk *w, const uint8_t *p, struct weir_bytes *out)
{
    uint8_t *none = NULL;
    const uint8_t *from = p;
    if (*p != '"')
        return FAIL(w, p, "expected a string");
    w->escaped = false;
    p = string(w, p, &none, false);
    if (p)
        *out = between(from, p);
    return p;
}

static const uint8_t *
event_name(struct walk *w, const uint8_t *p)
{
    const uint8_t *from = p;
    struct weir_bytes text;
    p = text_member(w, p, &text);
    if (!p)
        return NULL;
    if (says(w, text, "MODIFY"))
        w->info.event = WEIR_CHANGE_MODIFY;
    else if (says(w, text, "INSERT"))
        w->info.event = WEIR_CHANGE_INSERT;
    else if (says(w, text, "REMOVE"))
        w->info.event = WEIR_CHANGE_REMOVE;
    else
        return FAIL(w, from, "eventName is none of INSERT, MODIFY, REMOVE");
    return p;
}

static const uint8_t *
created_at(struct walk *w, const uint8_t *p)
{
    const uint8_t *from = p, *stop = weir_json_number_end(p, w->end);
    uint64_t v = 0;
    for (; p < stop; p++) {
        if (*p < '0' || *p > '9' || v > WALK_TIME_MAX_US)
            break;
        v = v * 10 + (*p - '0');
    }
    if (p == from || p < stop)
        return FAIL(w, from, "ApproximateCreationDateTime is no integer of our time");
    w->created_at = v;
    w->created_at_at = from;
    return p;
}

static const uint8_t *
precision(struct walk *w, const uint8_t *p)
{
    const uint8_t *from = p;
    struct weir_bytes text;
    p = text_member(w, p, &text);
    if (!p)
        return NULL;
    if (says(w, text, "MICROSECOND"))
        w->info.microseconds = true;
    else if (!says(w, text, "MILLISECOND"))
        return FAIL(w, from, "precision is neither MILLISECOND nor MICROSECOND");
    w->is_stale = w->has_source && w->info.microseconds;
    return p;
}

static const uint8_t *members_of_record(struct walk *w, const uint8_t *p, bool in_dynamodb);

static const uint8_t *
known_member(struct walk *w, const uint8_t *p, unsigned field)
{
    switch (field) {
    case EVENT_NAME:
        return event_name(w, p);
    case EVENT_ID:
        return text_member(w, p, &w->info.event_id);
    case TABLE:
        return text_member(w, p, &w->info.table);
    case DYNAMODB:
        return *p == '{' ? members_of_record(w, p, true) : FAIL(w, p, "expected an object");
    case CREATED_AT:
        return created_at(w, p);
    case PRECISION:
        return precision(w, p);
    case KEYS:
        return image_member(w, p, WALK_KEYS);
    case NEW_IMAGE:
        return image_member(w, p, WALK_NEW);
    default:
        return image_member(w, p, WALK_OLD);
    }
}

/* The object at p: the record, or what is in its "dynamodb". */
static const uint8_t *
members_of_record(struct walk *w, const uint8_t *p, bool in_dynamodb)
{
    uint8_t *none = NULL;
    p = blanks(p + 1, w->end);
    if (p < w->end && *p == '}')
        return p + 1;
    for (;;) {
        const uint8_t *from = p;
        if (p == w->end || *p != '"')
            return FAIL(w, p, "expected a name in quotes");
        w->escaped = false;
        p = string(w, p, &none, false);
        if (!p)
            return NULL;
        struct weir_bytes name = between(from, p);
        unsigned field = in_dynamodb ? inner_field(w, name) : outer_field(w, name);
        if (w->seen & field)
            return FAIL(w, from, "member occurs twice");
        p = expect(w, p, ':', "expected ':'");
        if (!p)
            return NULL;
        p = blanks(p, w->end);
        if (p == w->end)
            return FAIL(w, p, "");
        p = field ? known_member(w, p, field) : any_value(w, p);
        if (!p)
            return NULL;
        w->seen |= field;
        p = blanks(p, w->end);
        if (p < w->end && *p == '}')
            return p + 1;
        p = expect(w, p, ',', "expected ',' or '}'");
        if (!p)
            return NULL;
        p = blanks(p, w->end);
    }
}

static bool
record(struct walk *w)
{
    const uint8_t *p = blanks(w->begin, w->end);
    if (p == w->end || *p != '{')
        return FAIL(w, p, "expected an object");
    p = members_of_record(w, p, false);
    if (!p)
        return false;
    p = blanks(p, w->end);
    if (p < w->end)
        return FAIL(w, p, "text after the record");
    return finish(w);
}

bool
WALK(struct walk *w)
{
    bool done = record(w);
    /* Bytes above 0x7f only pass inside strings, so whether they are UTF-8 can be asked at the end;
     * but where they are not, they come first as the cause. */
    size_t bad_at = weir_json_utf8_bad_at(weir_bytes(w->begin, (size_t)(w->end - w->begin)));
    if (bad_at != SIZE_MAX && (done || w->begin + bad_at <= w->at))
        return FAIL(w, w->begin + bad_at, "not UTF-8");
    return done;
}
