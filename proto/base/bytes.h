/* A view of bytes that somebody else owns. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct weir_bytes {
    const uint8_t *data;
    size_t len;
};

static inline struct weir_bytes
weir_bytes(const void *data, size_t len)
{
    return (struct weir_bytes){data, len};
}

static inline struct weir_bytes
weir_bytes_of(const char *text)
{
    return (struct weir_bytes){(const uint8_t *)text, strlen(text)};
}

static inline bool
weir_bytes_equal(struct weir_bytes a, struct weir_bytes b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

static inline bool
weir_bytes_is(struct weir_bytes a, const char *text)
{
    return weir_bytes_equal(a, weir_bytes_of(text));
}
