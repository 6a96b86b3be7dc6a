#include "json/escape.h"

static int
hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The four digits of \uXXXX at p, or -1. */
static int32_t
hex_four(const uint8_t *p, const uint8_t *end)
{
    if (end - p < 6 || p[0] != '\\' || p[1] != 'u')
        return -1;
    int32_t unit = 0;
    for (int i = 2; i < 6; i++) {
        int digit = hex_digit(p[i]);
        if (digit < 0)
            return -1;
        unit = unit << 4 | digit;
    }
    return unit;
}

static int
short_escape(uint8_t c)
{
    switch (c) {
    case '"':
    case '\\':
    case '/':
        return c;
    case 'b':
        return '\b';
    case 'f':
        return '\f';
    case 'n':
        return '\n';
    case 'r':
        return '\r';
    case 't':
        return '\t';
    default:
        return -1;
    }
}

size_t
weir_json_escape_read(const uint8_t *p, const uint8_t *end, uint32_t *code_out,
                      const char **reason_out, const uint8_t **at_out)
{
    *at_out = p;
    if (end - p < 2) {
        *at_out = end;
        *reason_out = "string does not end";
        return 0;
    }
    if (p[1] != 'u') {
        int c = short_escape(p[1]);
        if (c < 0) {
            *reason_out = "no such escape";
            return 0;
        }
        *code_out = (uint32_t)c;
        return 2;
    }
    int32_t unit = hex_four(p, end);
    if (unit < 0) {
        *reason_out = "\\u without four hexadecimal digits";
        return 0;
    }
    if (unit < 0xd800 || unit > 0xdfff) {
        *code_out = (uint32_t)unit;
        return 6;
    }
    int32_t low = unit < 0xdc00 ? hex_four(p + 6, end) : -1;
    if (low < 0xdc00 || low > 0xdfff) {
        *reason_out = "half of a surrogate pair";
        return 0;
    }
    *code_out = 0x10000 + ((uint32_t)(unit - 0xd800) << 10 | (uint32_t)(low - 0xdc00));
    return 12;
}

size_t
weir_json_utf8_write(uint32_t code, uint8_t out[4])
{
    if (code < 0x80) {
        out[0] = (uint8_t)code;
        return 1;
    }
    size_t len = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    static const uint8_t lead[5] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = len - 1; i > 0; i--) {
        out[i] = (uint8_t)(0x80 | (code & 0x3f));
        code >>= 6;
    }
    out[0] = (uint8_t)(lead[len] | code);
    return len;
}

size_t
weir_json_escape_write(uint32_t code, uint8_t out[WEIR_JSON_ESCAPED_MAX])
{
    static const char letters[0x20] = {
        ['\b'] = 'b', ['\f'] = 'f', ['\n'] = 'n', ['\r'] = 'r', ['\t'] = 't'};
    if (code != '"' && code != '\\' && code >= 0x20)
        return weir_json_utf8_write(code, out);
    out[0] = '\\';
    if (code >= 0x20) {
        out[1] = (uint8_t)code;
        return 2;
    }
    if (letters[code]) {
        out[1] = (uint8_t)letters[code];
        return 2;
    }
    memcpy(out + 1, "u00", 3);
    out[4] = (uint8_t)('0' + (code >> 4));
    out[5] = (uint8_t) "0123456789abcdef"[code & 0xf];
    return 6;
}
