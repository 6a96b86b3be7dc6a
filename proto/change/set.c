/* Sets have no order, lines must have one. Rare, and mostly small or in order already: the walk
 * comes here only for a set that is not. */
#include "base/assert.h"
#include "change/walk_impl.h"
#include "json/escape.h"
#include <stdlib.h>

/* A decimal number, taken apart: 0.DIGITS x 10^exponent, DIGITS without zeros at either end. */
struct decimal {
    bool negative;
    int64_t exponent;
    struct weir_bytes digits; /* with the point somewhere in it; empty for zero */
};

static struct decimal
take_apart(struct weir_bytes text)
{
    struct decimal d = {0};
    const uint8_t *p = text.data, *end = p + text.len;
    if (p < end && *p == '-') {
        d.negative = true;
        p++;
    }
    int64_t whole = 0; /* digits before the point, from the first that counts */
    int64_t zeros = 0; /* zeros after the point, before the first that counts */
    bool point = false;
    const uint8_t *first = NULL, *last = NULL;
    for (; p < end && *p != 'e' && *p != 'E'; p++) {
        if (*p == '.') {
            point = true;
            continue;
        }
        if (*p != '0') {
            first = first ? first : p;
            last = p;
        }
        if (!point)
            whole += first != NULL;
        else
            zeros += first == NULL;
    }
    if (!first) {
        d.negative = false; /* -0 is 0 */
        return d;
    }
    d.digits = weir_bytes(first, (size_t)(last + 1 - first));
    int64_t exponent = 0;
    if (p < end) {
        p++;
        bool minus = *p == '-';
        if (*p == '-' || *p == '+')
            p++;
        for (; p < end; p++)
            exponent = exponent * 10 + (*p - '0');
        exponent = minus ? -exponent : exponent;
    }
    d.exponent = exponent + (whole ? whole : -zeros);
    return d;
}

static int
digits_compare(struct weir_bytes a, struct weir_bytes b)
{
    size_t i = 0, j = 0;
    for (;;) {
        if (i < a.len && a.data[i] == '.')
            i++;
        if (j < b.len && b.data[j] == '.')
            j++;
        if (i == a.len || j == b.len)
            return (i < a.len) - (j < b.len);
        if (a.data[i] != b.data[j])
            return a.data[i] < b.data[j] ? -1 : 1;
        i++;
        j++;
    }
}

static int
bytes_compare(struct weir_bytes a, struct weir_bytes b)
{
    size_t len = a.len < b.len ? a.len : b.len;
    int order = len ? memcmp(a.data, b.data, len) : 0;
    return order ? order : (a.len > b.len) - (a.len < b.len);
}

static int
number_compare(struct weir_bytes a, struct weir_bytes b)
{
    struct decimal x = take_apart(a), y = take_apart(b);
    int sign_x = x.digits.len ? (x.negative ? -1 : 1) : 0;
    int sign_y = y.digits.len ? (y.negative ? -1 : 1) : 0;
    if (sign_x != sign_y)
        return sign_x < sign_y ? -1 : 1;
    int order = 0;
    if (x.exponent != y.exponent)
        order = x.exponent < y.exponent ? -1 : 1;
    else
        order = digits_compare(x.digits, y.digits);
    if (order)
        return sign_x < 0 ? -order : order;
    return bytes_compare(a, b);
}

/* The first byte of the UTF-8 of the character at *p, which moves behind what was looked at. Only
 * escapes are looked at as a whole; they stand for ASCII. */
static uint8_t
first_byte(const uint8_t **p, const uint8_t *end)
{
    if (**p != '\\')
        return *(*p)++;
    uint32_t code = 0;
    const char *reason;
    const uint8_t *at;
    size_t len = weir_json_escape_read(*p, end, &code, &reason, &at);
    WEIR_ASSERT(len != 0);
    *p += len;
    return (uint8_t)code;
}

static int
text_compare(struct weir_bytes a, struct weir_bytes b)
{
    const uint8_t *p = a.data, *p_end = p + a.len, *q = b.data, *q_end = q + b.len;
    while (p < p_end && q < q_end) {
        uint8_t x = first_byte(&p, p_end), y = first_byte(&q, q_end);
        if (x != y)
            return x < y ? -1 : 1;
    }
    return (p < p_end) - (q < q_end);
}

static struct weir_bytes
without_quotes(struct weir_bytes member)
{
    if (member.data[0] == '"')
        return weir_bytes(member.data + 1, member.len - 2);
    return member;
}

int
weir_change_member_compare(enum weir_change_type set, struct weir_bytes a, struct weir_bytes b)
{
    a = without_quotes(a);
    b = without_quotes(b);
    switch (set) {
    case WEIR_CHANGE_SS:
        return text_compare(a, b);
    case WEIR_CHANGE_NS:
        return number_compare(a, b);
    default:
        return bytes_compare(a, b);
    }
}

static int
compare_text(const void *a, const void *b)
{
    return weir_change_member_compare(WEIR_CHANGE_SS, *(const struct weir_bytes *)a,
                                      *(const struct weir_bytes *)b);
}

static int
compare_numbers(const void *a, const void *b)
{
    return weir_change_member_compare(WEIR_CHANGE_NS, *(const struct weir_bytes *)a,
                                      *(const struct weir_bytes *)b);
}

static int
compare_binaries(const void *a, const void *b)
{
    return weir_change_member_compare(WEIR_CHANGE_BS, *(const struct weir_bytes *)a,
                                      *(const struct weir_bytes *)b);
}

static const uint8_t *
member_end(const uint8_t *p, const uint8_t *end)
{
    bool quoted = *p == '"';
    for (p++; p < end; p++) {
        if (quoted && *p == '\\')
            p++;
        else if (quoted && *p == '"')
            return p + 1;
        else if (!quoted && *p == ',')
            break;
    }
    return p;
}

static void
split(const uint8_t *members, size_t len, struct weir_bytes *out, size_t count)
{
    const uint8_t *p = members, *end = members + len;
    for (size_t i = 0; i < count; i++) {
        const uint8_t *stop = member_end(p, end);
        out[i] = weir_bytes(p, (size_t)(stop - p));
        p = stop + 1;
    }
    WEIR_ASSERT(p == end + 1);
}

static void
sort_with(enum weir_change_type set, uint8_t *members, size_t len, size_t count, uint8_t *copy,
          struct weir_bytes *views)
{
    memcpy(copy, members, len);
    split(copy, len, views, count);
    qsort(views, count, sizeof *views,
          set == WEIR_CHANGE_SS   ? compare_text
          : set == WEIR_CHANGE_NS ? compare_numbers
                                  : compare_binaries);
    uint8_t *o = members;
    for (size_t i = 0; i < count; i++) {
        memcpy(o, views[i].data, views[i].len);
        o += views[i].len;
        if (i + 1 < count)
            *o++ = ',';
    }
    WEIR_ASSERT(o == members + len);
}

enum weir_status
weir_change_set_sort(enum weir_change_type set, uint8_t *members, size_t len, size_t count)
{
    struct weir_bytes few[32];
    uint8_t small[2048];
    if (count <= 32 && len <= sizeof small) {
        sort_with(set, members, len, count, small, few);
        return WEIR_OK;
    }
    uint8_t *copy = malloc(len);
    struct weir_bytes *views = calloc(count, sizeof *views);
    if (copy && views)
        sort_with(set, members, len, count, copy, views);
    bool done = copy && views;
    free(copy);
    free(views);
    return done ? WEIR_OK : WEIR_NO_MEMORY;
}
