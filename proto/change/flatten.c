#include "change/flatten.h"
#include "base/checked.h"
#include "change/walk_impl.h"
#include "json/escape.h"
#include "json/scan.h"

size_t
weir_flatten_bound(size_t record_len, const struct weir_flatten_options *options)
{
    /* No attribute grows: its type costs at least six bytes ({"N": and }), its name gets at most
     * five ("attr_"). Every byte of the record is written once at most. */
    size_t bound = record_len, extra;
    if (!weir_add_size(options->seq.len, options->shard.len, &extra) ||
        !weir_mul_size(extra, WEIR_JSON_ESCAPED_MAX, &extra) ||
        !weir_add_size(bound, extra, &bound) ||
        !weir_add_size(bound, WALK_HEADER_MAX + 2 * WEIR_SCAN_SLACK, &bound))
        return SIZE_MAX;
    return bound;
}

enum weir_status
weir_flatten(struct weir_bytes record, const struct weir_flatten_options *options, uint8_t *out,
             size_t capacity, size_t *len_out, struct weir_error *err)
{
    size_t bound = weir_flatten_bound(record.len, options);
    if (capacity < bound)
        return weir_fail(err, WEIR_TOO_BIG, "a line of up to %zu bytes does not fit into %zu",
                         bound, capacity);
    struct walk w = {
        .begin = record.data,
        .end = record.data + record.len,
        .options = options,
        .out_begin = out,
        .out = out,
    };
    bool vectors = !options->portable && weir_json_has_avx2();
    if (!(vectors ? weir_change_walk_avx2(&w) : weir_change_walk_portable(&w)))
        return weir_change_walk_error(&w, err);
    *len_out = (size_t)(w.out - out);
    return WEIR_OK;
}

enum weir_status
weir_flatten_append(struct weir_bytes record, const struct weir_flatten_options *options,
                    struct weir_text *out, struct weir_error *err)
{
    size_t bound = weir_flatten_bound(record.len, options), len;
    if (!weir_text_reserve(out, bound))
        return weir_fail(err, WEIR_NO_MEMORY, "no memory for a line of up to %zu bytes", bound);
    enum weir_status st =
        weir_flatten(record, options, (uint8_t *)out->data + out->len, bound, &len, err);
    if (st == WEIR_OK)
        out->len += len;
    out->data[out->len] = '\0';
    return st;
}

/* The header */

static uint8_t *
put(uint8_t *o, const char *text)
{
    size_t len = strlen(text);
    memcpy(o, text, len);
    return o + len;
}

static uint8_t *
put_digits(uint8_t *o, uint64_t v, int digits)
{
    for (int i = digits - 1; i >= 0; i--) {
        o[i] = (uint8_t)('0' + v % 10);
        v /= 10;
    }
    return o + digits;
}

static uint8_t *
put_number(uint8_t *o, uint64_t v)
{
    int digits = 1;
    for (uint64_t rest = v; rest >= 10; rest /= 10)
        digits++;
    return put_digits(o, v, digits);
}

/* "2016-10-04T10:19:00.000" and three digits more for microseconds. */
static uint8_t *
put_time(uint8_t *o, const struct weir_change_info *info)
{
    uint64_t seconds = info->created_at_us / 1000000, fraction = info->created_at_us % 1000000;
    /* Days to a date by the calendar that starts its years in March, so that leap days are last. */
    uint64_t days = seconds / 86400 + 719468, second = seconds % 86400;
    uint64_t era = days / 146097, day = days % 146097;
    uint64_t year = (day - day / 1460 + day / 36524 - day / 146096) / 365;
    day -= 365 * year + year / 4 - year / 100;
    uint64_t month = (5 * day + 2) / 153;
    day -= (153 * month + 2) / 5;
    month = month < 10 ? month + 3 : month - 9;
    year += era * 400 + (month <= 2);

    o = put_digits(o, year, 4);
    *o++ = '-';
    o = put_digits(o, month, 2);
    *o++ = '-';
    o = put_digits(o, day + 1, 2);
    *o++ = 'T';
    o = put_digits(o, second / 3600, 2);
    *o++ = ':';
    o = put_digits(o, second / 60 % 60, 2);
    *o++ = ':';
    o = put_digits(o, second % 60, 2);
    *o++ = '.';
    return info->microseconds ? put_digits(o, fraction, 6) : put_digits(o, fraction / 1000, 3);
}

/* Plain text between quotes. */
static uint8_t *
put_text(uint8_t *o, struct weir_bytes text)
{
    *o++ = '"';
    for (size_t i = 0; i < text.len; i++) {
        if (weir_scan_is_special(text.data[i]))
            o += weir_json_escape_write(text.data[i], o);
        else
            *o++ = text.data[i];
    }
    *o++ = '"';
    return o;
}

/* Text as it stands in the record, written our way. */
static uint8_t *
put_raw(uint8_t *o, struct weir_bytes raw)
{
    if (!raw.data)
        return put(o, "null");
    const uint8_t *p = raw.data, *end = p + raw.len;
    *o++ = '"';
    while (p < end) {
        uint32_t code = 0;
        const char *reason;
        const uint8_t *at;
        if (*p != '\\') {
            *o++ = *p++;
            continue;
        }
        p += weir_json_escape_read(p, end, &code, &reason, &at);
        o += weir_json_escape_write(code, o);
    }
    *o++ = '"';
    return o;
}

void
weir_change_write_header(struct walk *w)
{
    const struct weir_flatten_options *options = w->options;
    uint8_t *o = w->out;
    o = put(o, "{\"event_name\":\"");
    o = put(o, weir_change_event_name(w->info.event));
    o = put(o, "\",\"event_time\":\"");
    o = put_time(o, &w->info);
    o = put(o, "Z\"");
    if (options->event_time_ms) {
        o = put(o, ",\"event_time_ms\":");
        o = put_number(o, w->info.created_at_ms);
    }
    if (options->seq.data) {
        o = put(o, ",\"_seq\":");
        o = put_text(o, options->seq);
    }
    if (options->shard.data) {
        o = put(o, ",\"_shard\":");
        o = put_text(o, options->shard);
    }
    if (options->event_id) {
        o = put(o, ",\"_event_id\":");
        o = put_raw(o, w->info.event_id);
    }
    if (options->table) {
        o = put(o, ",\"_table\":");
        o = put_raw(o, w->info.table);
    }
    w->out = o;
}

bool
weir_change_name_is_reserved(struct weir_bytes name, bool with_old)
{
    static const char *const own[] = {"event_name", "event_time", "event_time_ms", "_seq",
                                      "_shard",     "_event_id",  "_table"};
    while (name.len >= 5 && memcmp(name.data, "attr_", 5) == 0) {
        name.data += 5;
        name.len -= 5;
    }
    if (with_old && name.len >= 4 && memcmp(name.data, "old_", 4) == 0)
        return true;
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++)
        if (weir_bytes_is(name, own[i]))
            return true;
    return false;
}
