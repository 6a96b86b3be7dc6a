/* Numbers, sizes, lengths of time and moments as people write them. */
#pragma once
#include "base/bytes.h"
#include "base/status.h"

/* A growing text; zeroed is empty. `data` is NUL-terminated when not NULL. After a failed
 * allocation `failed` is set and appends do nothing. */
struct weir_text {
    char *data;
    size_t len, capacity;
    bool failed;
};
/* Room for `more` bytes beyond len, for writing there directly; false when out of memory. */
bool weir_text_reserve(struct weir_text *t, size_t more);
void weir_text_append(struct weir_text *t, struct weir_bytes bytes);
void weir_text_puts(struct weir_text *t, const char *text);
[[gnu::format(printf, 2, 3)]] void weir_text_printf(struct weir_text *t, const char *fmt, ...);
void weir_text_clear(struct weir_text *t); /* keeps the memory */
void weir_text_fini(struct weir_text *t);

/* Decimal u64: digits only. INVALID, or TOO_BIG on overflow. */
enum weir_status weir_parse_u64(struct weir_bytes text, uint64_t *out);
/* "64KiB", "10MiB", "1GiB", "512" (bytes), "1kB", "5MB". */
enum weir_status weir_parse_size(struct weir_bytes text, uint64_t *bytes_out);
/* "250ms", "10s", "5m", "24h", "7d", "365d"; a bare number is refused. Milliseconds out. */
enum weir_status weir_parse_duration(struct weir_bytes text, uint64_t *ms_out);
/* A moment: RFC 3339 ("2026-11-28T09:00:00.123Z", offsets allowed), "@1764320000" or
 * "@1764320000.123" (seconds since 1970), or a length of time before `now_ms` ("-1h", "-30s").
 * Milliseconds since 1970 out. */
enum weir_status weir_parse_moment(struct weir_bytes text, uint64_t now_ms, uint64_t *at_ms_out);
/* "2026-11-28T09:00:00.123Z": 24 characters and a NUL. Years 1970 to 9999. */
void weir_format_moment(uint64_t at_ms, char out[25]);
/* "1.5 GiB", "312 B"; "3 d 4 h", "250 ms". */
void weir_format_size(uint64_t bytes, char out[24]);
void weir_format_duration(uint64_t ms, char out[24]);

void weir_hex_encode(struct weir_bytes bytes, char *out); /* 2 x len characters and a NUL */
/* Exactly 2 x len lower- or upper-case digits. */
enum weir_status weir_hex_decode(struct weir_bytes text, uint8_t *out, size_t len);

/* Base64 with padding (RFC 4648), strict: no blanks, canonical trailing bits. AVX2 where there.
 * Encode writes 4 * ceil(len / 3) characters, no NUL. Decode answers INVALID and says the length
 * otherwise; `out` holds 3 * (text.len / 4) bytes at least, and up to 32 bytes beyond that length
 * are NOT touched. */
size_t weir_base64_encode(struct weir_bytes bytes, char *out);
enum weir_status weir_base64_decode(struct weir_bytes text, uint8_t *out, size_t *len_out);

/* True when the bytes are UTF-8 as RFC 3629 defines it (no surrogates, no overlong forms). */
bool weir_utf8_is_valid(struct weir_bytes text);
/* Code points in valid UTF-8. */
size_t weir_utf8_count(struct weir_bytes text);
