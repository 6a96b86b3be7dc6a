#include "base/text.h"
#include "base/assert.h"
#include "base/checked.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define MOMENT_MAX_MS 253402300799999u /* 9999-12-31T23:59:59.999Z */
#define DAY_MS 86400000u

/* Room for `more` bytes and the NUL. */
bool
weir_text_reserve(struct weir_text *t, size_t more)
{
    size_t need;
    if (t->failed)
        return false;
    if (!weir_add_size(t->len, more, &need) || !weir_add_size(need, 1, &need)) {
        t->failed = true;
        return false;
    }
    if (need <= t->capacity)
        return true;
    size_t capacity = t->capacity < SIZE_MAX / 2 ? t->capacity * 2 : need;
    if (capacity < 64)
        capacity = 64;
    if (capacity < need)
        capacity = need;
    char *data = realloc(t->data, capacity);
    if (!data) {
        t->failed = true;
        return false;
    }
    t->data = data;
    t->capacity = capacity;
    return true;
}

void
weir_text_append(struct weir_text *t, struct weir_bytes bytes)
{
    if (!weir_text_reserve(t, bytes.len))
        return;
    if (bytes.len)
        memcpy(t->data + t->len, bytes.data, bytes.len);
    t->len += bytes.len;
    t->data[t->len] = '\0';
}

void
weir_text_puts(struct weir_text *t, const char *text)
{
    weir_text_append(t, weir_bytes_of(text));
}

void
weir_text_printf(struct weir_text *t, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    if (n < 0) {
        t->failed = true;
        return;
    }
    if (!weir_text_reserve(t, (size_t)n))
        return;
    va_start(args, fmt);
    vsnprintf(t->data + t->len, (size_t)n + 1, fmt, args);
    va_end(args);
    t->len += (size_t)n;
}

void
weir_text_clear(struct weir_text *t)
{
    t->len = 0;
    t->failed = false;
    if (t->data)
        t->data[0] = '\0';
}

void
weir_text_fini(struct weir_text *t)
{
    free(t->data);
    *t = (struct weir_text){0};
}

static bool
is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

/* Digits in front of the text. */
static size_t
digits(struct weir_bytes text)
{
    size_t n = 0;
    while (n < text.len && is_digit(text.data[n]))
        n++;
    return n;
}

static struct weir_bytes
from(struct weir_bytes text, size_t off)
{
    return weir_bytes(text.data + off, text.len - off);
}

enum weir_status
weir_parse_u64(struct weir_bytes text, uint64_t *out)
{
    if (text.len == 0 || digits(text) != text.len)
        return WEIR_INVALID;
    uint64_t v = 0;
    for (size_t i = 0; i < text.len; i++) {
        if (!weir_mul_u64(v, 10, &v) || !weir_add_u64(v, text.data[i] - (uint64_t)'0', &v))
            return WEIR_TOO_BIG;
    }
    *out = v;
    return WEIR_OK;
}

struct unit {
    const char *name;
    uint64_t factor;
};

/* A whole number and one of the units, without a blank between. */
static enum weir_status
parse_with_unit(struct weir_bytes text, const struct unit *units, size_t count, uint64_t *out)
{
    size_t n = digits(text);
    uint64_t v;
    enum weir_status st = weir_parse_u64(weir_bytes(text.data, n), &v);
    if (st == WEIR_INVALID)
        return st;
    for (size_t i = 0; i < count; i++) {
        if (!weir_bytes_is(from(text, n), units[i].name))
            continue;
        if (st || !weir_mul_u64(v, units[i].factor, &v))
            return WEIR_TOO_BIG;
        *out = v;
        return WEIR_OK;
    }
    return WEIR_INVALID;
}

static const struct unit size_units[] = {
    {"", 1},
    {"B", 1},
    {"KiB", 1u << 10},
    {"MiB", 1u << 20},
    {"GiB", 1u << 30},
    {"TiB", 1ull << 40},
    {"kB", 1000},
    {"MB", 1000000},
    {"GB", 1000000000},
    {"TB", 1000000000000},
};

static const struct unit duration_units[] = {
    {"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", DAY_MS},
};

enum weir_status
weir_parse_size(struct weir_bytes text, uint64_t *bytes_out)
{
    return parse_with_unit(text, size_units, sizeof size_units / sizeof *size_units, bytes_out);
}

enum weir_status
weir_parse_duration(struct weir_bytes text, uint64_t *ms_out)
{
    return parse_with_unit(text, duration_units, sizeof duration_units / sizeof *duration_units,
                           ms_out);
}

/* Exactly `n` digits at `off`. */
static bool
number_at(struct weir_bytes text, size_t off, size_t n, unsigned *out)
{
    if (text.len < off + n)
        return false;
    unsigned v = 0;
    for (size_t i = off; i < off + n; i++) {
        if (!is_digit(text.data[i]))
            return false;
        v = v * 10 + (text.data[i] - (unsigned)'0');
    }
    *out = v;
    return true;
}

/* ".123": the bytes it takes, 0 when there is none; milliseconds are cut, not rounded. False for a
 * point without digits. */
static bool
fraction(struct weir_bytes text, size_t *taken, unsigned *ms)
{
    *taken = 0;
    *ms = 0;
    if (text.len == 0 || text.data[0] != '.')
        return true;
    size_t n = digits(from(text, 1));
    if (n == 0)
        return false;
    unsigned scale = 100;
    for (size_t i = 1; i <= n && scale; i++, scale /= 10)
        *ms += (text.data[i] - (unsigned)'0') * scale;
    *taken = 1 + n;
    return true;
}

/* Days since 1970-01-01 of a day of the Gregorian calendar: years start in March, so that the day
 * that comes and goes is the last one. */
static int64_t
days_of(unsigned year, unsigned month, unsigned day)
{
    int64_t y = (int64_t)year - (month <= 2);
    int64_t era = y / 400, year_of_era = y % 400;
    int64_t day_of_year = (153 * ((int64_t)month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year -
           719468;
}

static void
date_of(int64_t days, unsigned *year, unsigned *month, unsigned *day)
{
    int64_t z = days + 719468;
    int64_t era = z / 146097, day_of_era = z % 146097;
    int64_t year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t m = (5 * day_of_year + 2) / 153;
    *day = (unsigned)(day_of_year - (153 * m + 2) / 5 + 1);
    *month = (unsigned)(m < 10 ? m + 3 : m - 9);
    *year = (unsigned)(year_of_era + era * 400 + (*month <= 2));
}

static bool
is_day(unsigned year, unsigned month, unsigned day)
{
    static const uint8_t lengths[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    if (month < 1 || month > 12 || day < 1)
        return false;
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return day <= lengths[month - 1] + (unsigned)(month == 2 && leap);
}

/* "Z", "+02:00": minutes east of Greenwich. */
static bool
zone(struct weir_bytes text, int64_t *minutes)
{
    if (weir_bytes_is(text, "Z") || weir_bytes_is(text, "z")) {
        *minutes = 0;
        return true;
    }
    unsigned hour, minute;
    if (text.len != 6 || (text.data[0] != '+' && text.data[0] != '-') || text.data[3] != ':' ||
        !number_at(text, 1, 2, &hour) || !number_at(text, 4, 2, &minute) || hour > 23 ||
        minute > 59)
        return false;
    *minutes = (int64_t)(hour * 60 + minute) * (text.data[0] == '-' ? -1 : 1);
    return true;
}

static enum weir_status
parse_rfc3339(struct weir_bytes text, uint64_t *at_ms_out)
{
    unsigned year, month, day, hour, minute, second, ms;
    size_t taken;
    int64_t east;
    if (!number_at(text, 0, 4, &year) || !number_at(text, 5, 2, &month) ||
        !number_at(text, 8, 2, &day) || !number_at(text, 11, 2, &hour) ||
        !number_at(text, 14, 2, &minute) || !number_at(text, 17, 2, &second))
        return WEIR_INVALID;
    const uint8_t *c = text.data;
    if (c[4] != '-' || c[7] != '-' || (c[10] != 'T' && c[10] != 't') || c[13] != ':' ||
        c[16] != ':' || !is_day(year, month, day) || hour > 23 || minute > 59 || second > 60)
        return WEIR_INVALID;
    if (!fraction(from(text, 19), &taken, &ms) || !zone(from(text, 19 + taken), &east))
        return WEIR_INVALID;
    /* A leap second is the first moment of the next minute. */
    int64_t seconds =
        days_of(year, month, day) * 86400 + hour * 3600 + minute * 60 + second - east * 60;
    int64_t at_ms = seconds * 1000 + ms;
    if (at_ms < 0 || at_ms > (int64_t)MOMENT_MAX_MS)
        return WEIR_INVALID;
    *at_ms_out = (uint64_t)at_ms;
    return WEIR_OK;
}

static enum weir_status
parse_epoch(struct weir_bytes text, uint64_t *at_ms_out)
{
    size_t n = digits(text), taken;
    unsigned ms;
    if (!fraction(from(text, n), &taken, &ms) || n + taken != text.len)
        return WEIR_INVALID;
    uint64_t at_ms;
    enum weir_status st = weir_parse_u64(weir_bytes(text.data, n), &at_ms);
    if (st)
        return st;
    if (!weir_mul_u64(at_ms, 1000, &at_ms) || !weir_add_u64(at_ms, ms, &at_ms) ||
        at_ms > MOMENT_MAX_MS)
        return WEIR_TOO_BIG;
    *at_ms_out = at_ms;
    return WEIR_OK;
}

enum weir_status
weir_parse_moment(struct weir_bytes text, uint64_t now_ms, uint64_t *at_ms_out)
{
    if (text.len == 0)
        return WEIR_INVALID;
    if (text.data[0] == '@')
        return parse_epoch(from(text, 1), at_ms_out);
    if (text.data[0] != '-')
        return parse_rfc3339(text, at_ms_out);
    uint64_t before_ms;
    enum weir_status st = weir_parse_duration(from(text, 1), &before_ms);
    if (st)
        return st;
    *at_ms_out = before_ms < now_ms ? now_ms - before_ms : 0;
    return WEIR_OK;
}

/* `v` in `n` digits. */
static void
put_number(char *out, unsigned n, unsigned v)
{
    while (n--) {
        out[n] = (char)('0' + v % 10);
        v /= 10;
    }
}

void
weir_format_moment(uint64_t at_ms, char out[25])
{
    if (at_ms > MOMENT_MAX_MS)
        at_ms = MOMENT_MAX_MS;
    unsigned year, month, day, in_day = (unsigned)(at_ms % DAY_MS);
    date_of((int64_t)(at_ms / DAY_MS), &year, &month, &day);
    memcpy(out, "0000-00-00T00:00:00.000Z", 25);
    put_number(out, 4, year);
    put_number(out + 5, 2, month);
    put_number(out + 8, 2, day);
    put_number(out + 11, 2, in_day / 3600000);
    put_number(out + 14, 2, in_day / 60000 % 60);
    put_number(out + 17, 2, in_day / 1000 % 60);
    put_number(out + 20, 3, in_day % 1000);
}

void
weir_format_size(uint64_t bytes, char out[24])
{
    static const char *const names[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    unsigned unit = 0;
    uint64_t tenths = 0;
    while (unit < 6 && bytes >> 10 * (unit + 1))
        unit++;
    for (;; unit++) {
        unsigned __int128 scaled = (unsigned __int128)bytes * 10;
        tenths = (uint64_t)((scaled + (((uint64_t)1 << 10 * unit) >> 1)) >> 10 * unit);
        /* 1023.96 of a unit is 1 of the next. */
        if (tenths < 10240 || unit == 6)
            break;
    }
    if (tenths % 10)
        snprintf(out, 24, "%llu.%llu %s", (unsigned long long)tenths / 10,
                 (unsigned long long)tenths % 10, names[unit]);
    else
        snprintf(out, 24, "%llu %s", (unsigned long long)tenths / 10, names[unit]);
}

void
weir_format_duration(uint64_t ms, char out[24])
{
    static const struct unit parts[] = {
        {"d", DAY_MS}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1},
    };
    unsigned i = 0;
    while (i < 4 && ms < parts[i].factor)
        i++;
    unsigned long long major = ms / parts[i].factor, minor = 0;
    if (i < 4)
        minor = ms % parts[i].factor / parts[i + 1].factor;
    /* The compiler does not see that the largest one, "213503982334 d 23 h", fits. */
    char text[64] = {0};
    if (minor)
        snprintf(text, sizeof text, "%llu %s %llu %s", major, parts[i].name, minor,
                 parts[i + 1].name);
    else
        snprintf(text, sizeof text, "%llu %s", major, parts[i].name);
    memcpy(out, text, 23);
    out[23] = '\0';
}

void
weir_hex_encode(struct weir_bytes bytes, char *out)
{
    static const char hex[] = "0123456789abcdef";
    for (size_t i = 0; i < bytes.len; i++) {
        *out++ = hex[bytes.data[i] >> 4];
        *out++ = hex[bytes.data[i] & 15];
    }
    *out = '\0';
}

static int
hex_value(uint8_t c)
{
    if (is_digit(c))
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

enum weir_status
weir_hex_decode(struct weir_bytes text, uint8_t *out, size_t len)
{
    if (text.len % 2 || text.len / 2 != len)
        return WEIR_INVALID;
    for (size_t i = 0; i < text.len; i++) {
        if (hex_value(text.data[i]) < 0)
            return WEIR_INVALID;
    }
    for (size_t i = 0; i < len; i++)
        out[i] = (uint8_t)(hex_value(text.data[2 * i]) << 4 | hex_value(text.data[2 * i + 1]));
    return WEIR_OK;
}
