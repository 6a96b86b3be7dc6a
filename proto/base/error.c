#include "base/error.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define ELLIPSIS "\xe2\x80\xa6"

/* Ends a text that did not fit with "…", not in the middle of a character. */
static void
cut(char *text, size_t size)
{
    size_t at = size - sizeof ELLIPSIS;
    while (at > 0 && ((unsigned char)text[at] & 0xc0) == 0x80)
        at--;
    memcpy(text + at, ELLIPSIS, sizeof ELLIPSIS);
}

[[gnu::format(printf, 3, 0)]] static void
set(char *text, size_t size, const char *fmt, va_list args)
{
    int n = vsnprintf(text, size, fmt, args);
    if (n < 0)
        text[0] = '\0';
    else if ((size_t)n >= size)
        cut(text, size);
}

enum weir_status
weir_fail(struct weir_error *err, enum weir_status st, const char *fmt, ...)
{
    if (!err)
        return st;
    /* The arguments may point into the old text. */
    char text[sizeof err->text];
    va_list args;
    va_start(args, fmt);
    set(text, sizeof text, fmt, args);
    va_end(args);
    memcpy(err->text, text, sizeof text);
    err->status = st;
    return st;
}

enum weir_status
weir_fail_in(struct weir_error *err, enum weir_status st, const char *fmt, ...)
{
    if (!err)
        return st;
    char text[2 * sizeof err->text];
    va_list args;
    va_start(args, fmt);
    set(text, sizeof err->text, fmt, args);
    va_end(args);

    const char *inner = err->text;
    if (err->status == WEIR_OK) {
        err->status = st;
        inner = weir_status_text(st);
    }
    size_t len = strlen(text), inner_len = strlen(inner);
    memcpy(text + len, ": ", 2);
    memcpy(text + len + 2, inner, inner_len + 1);
    len += 2 + inner_len;
    if (len >= sizeof err->text) {
        cut(text, sizeof err->text);
        len = strlen(text);
    }
    memcpy(err->text, text, len + 1);
    return err->status;
}
