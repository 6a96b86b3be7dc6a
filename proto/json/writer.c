#include "json/writer.h"
#include "base/assert.h"
#include "json/escape.h"
#include "json/scan.h"
#include <math.h>

void
weir_json_writer_init(struct weir_json_writer *w, struct weir_text *out)
{
    *w = (struct weir_json_writer){.out = out};
}

enum weir_status
weir_json_writer_status(const struct weir_json_writer *w)
{
    WEIR_ASSERT(w->depth == 0);
    return w->out->failed ? WEIR_NO_MEMORY : WEIR_OK;
}

void
weir_json_end_line(struct weir_json_writer *w)
{
    WEIR_ASSERT(w->depth == 0);
    weir_text_append(w->out, weir_bytes("\n", 1));
    w->comma = false;
}

/* What stands between the value before and this one. */
static void
separate(struct weir_json_writer *w)
{
    if (w->comma)
        weir_text_append(w->out, weir_bytes(",", 1));
    w->comma = true;
}

static void
begin(struct weir_json_writer *w, const char *bracket)
{
    separate(w);
    weir_text_append(w->out, weir_bytes(bracket, 1));
    w->depth++;
    w->comma = false;
}

static void
end(struct weir_json_writer *w, const char *bracket)
{
    WEIR_ASSERT(w->depth > 0);
    weir_text_append(w->out, weir_bytes(bracket, 1));
    w->depth--;
    w->comma = true;
}

void
weir_json_begin_object(struct weir_json_writer *w)
{
    begin(w, "{");
}

void
weir_json_end_object(struct weir_json_writer *w)
{
    end(w, "}");
}

void
weir_json_begin_array(struct weir_json_writer *w)
{
    begin(w, "[");
}

void
weir_json_end_array(struct weir_json_writer *w)
{
    end(w, "]");
}

static void
append_bad_utf8(struct weir_text *out, struct weir_bytes text)
{
    while (text.len > 0) {
        size_t bad = weir_json_utf8_bad_at(text);
        size_t good = bad < text.len ? bad : text.len;
        weir_json_escape_append(out, weir_bytes(text.data, good));
        text.data += good;
        text.len -= good;
        if (text.len > 0) {
            weir_text_append(out, weir_bytes("\xef\xbf\xbd", 3));
            text.data++;
            text.len--;
        }
    }
}

void
weir_json_escape_append(struct weir_text *out, struct weir_bytes text)
{
    if (text.len == 0)
        return;
    if (weir_json_utf8_bad_at(text) != SIZE_MAX) {
        append_bad_utf8(out, text);
        return;
    }
    weir_scan_fn *scan = weir_json_scan_best();
    const uint8_t *p = text.data, *stop_at = p + text.len;
    while (p < stop_at) {
        const uint8_t *special = scan(p, stop_at);
        weir_text_append(out, weir_bytes(p, (size_t)(special - p)));
        p = special;
        if (p < stop_at) {
            uint8_t escaped[WEIR_JSON_ESCAPED_MAX];
            size_t len = weir_json_escape_write(*p++, escaped);
            weir_text_append(out, weir_bytes(escaped, len));
        }
    }
}

void
weir_json_write_string(struct weir_json_writer *w, struct weir_bytes text)
{
    separate(w);
    weir_text_append(w->out, weir_bytes("\"", 1));
    weir_json_escape_append(w->out, text);
    weir_text_append(w->out, weir_bytes("\"", 1));
}

void
weir_json_write_text(struct weir_json_writer *w, const char *text)
{
    weir_json_write_string(w, weir_bytes_of(text));
}

void
weir_json_write_text_or_null(struct weir_json_writer *w, const char *text)
{
    if (text)
        weir_json_write_text(w, text);
    else
        weir_json_write_null(w);
}

void
weir_json_write_name_bytes(struct weir_json_writer *w, struct weir_bytes name)
{
    WEIR_ASSERT(w->depth > 0);
    weir_json_write_string(w, name);
    weir_text_append(w->out, weir_bytes(":", 1));
    w->comma = false;
}

void
weir_json_write_name(struct weir_json_writer *w, const char *name)
{
    weir_json_write_name_bytes(w, weir_bytes_of(name));
}

void
weir_json_write_base64(struct weir_json_writer *w, struct weir_bytes bytes)
{
    separate(w);
    weir_text_append(w->out, weir_bytes("\"", 1));
    /* Pieces of a multiple of three bytes need no padding between them. */
    char piece[4096];
    while (bytes.len > 0) {
        size_t len = bytes.len < 3072 ? bytes.len : 3072;
        weir_text_append(w->out,
                         weir_bytes(piece, weir_base64_encode(weir_bytes(bytes.data, len), piece)));
        bytes.data += len;
        bytes.len -= len;
    }
    weir_text_append(w->out, weir_bytes("\"", 1));
}

void
weir_json_write_u64(struct weir_json_writer *w, uint64_t v)
{
    char digits[20];
    size_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + v % 10);
        v /= 10;
    } while (v);
    weir_json_write_raw(w, weir_bytes(digits + at, sizeof digits - at));
}

void
weir_json_write_i64(struct weir_json_writer *w, int64_t v)
{
    separate(w);
    weir_text_printf(w->out, "%lld", (long long)v);
}

void
weir_json_write_bool(struct weir_json_writer *w, bool v)
{
    weir_json_write_raw(w, weir_bytes_of(v ? "true" : "false"));
}

void
weir_json_write_null(struct weir_json_writer *w)
{
    weir_json_write_raw(w, weir_bytes_of("null"));
}

void
weir_json_write_double(struct weir_json_writer *w, double v, int decimals)
{
    WEIR_ASSERT(decimals >= 0 && decimals <= 9);
    if (!isfinite(v)) {
        weir_json_write_null(w);
        return;
    }
    separate(w);
    weir_text_printf(w->out, "%.*f", decimals, v);
}

void
weir_json_write_seconds(struct weir_json_writer *w, uint64_t at_ms)
{
    separate(w);
    weir_text_printf(w->out, "%llu.%03u", (unsigned long long)(at_ms / 1000),
                     (unsigned)(at_ms % 1000));
}

void
weir_json_write_raw(struct weir_json_writer *w, struct weir_bytes json)
{
    separate(w);
    weir_text_append(w->out, json);
}
