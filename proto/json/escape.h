/* One character of a JSON string, with and without its escape. Any thread. */
#pragma once
#include "base/bytes.h"

/* The longest escaped form of one character that we write: \u001f. */
#define WEIR_JSON_ESCAPED_MAX 6

/* Reads the escape that starts with the backslash at p: how many bytes it takes (2, 6, or 12 for a
 * surrogate pair), and the character it stands for. 0 when it is none, with the reason (static) and
 * the byte at fault. A surrogate without its other half is an error: no UTF-8 can hold it. */
size_t weir_json_escape_read(const uint8_t *p, const uint8_t *end, uint32_t *code_out,
                             const char **reason_out, const uint8_t **at_out);
/* A character as UTF-8: 1 to 4 bytes. */
size_t weir_json_utf8_write(uint32_t code, uint8_t out[4]);
/* A character as it stands inside quotes: escaped where JSON demands it (quote, backslash, below
 * 0x20; the short form where there is one, else lower-case hex), UTF-8 otherwise. */
size_t weir_json_escape_write(uint32_t code, uint8_t out[WEIR_JSON_ESCAPED_MAX]);
