/* Integers in files and on the wire. The types have no alignment and no byte order of the machine,
 * so a struct made of them has no padding and can be laid over bytes. */
#pragma once
#include <assert.h>
#include <stdint.h>
#include <string.h>

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "weir_le* assume a little-endian machine");

#define WEIR_LE_TYPE(bits)                                       \
    typedef struct {                                             \
        uint8_t b[bits / 8];                                     \
    } weir_le##bits;                                             \
    static inline uint##bits##_t weir_get##bits(weir_le##bits v) \
    {                                                            \
        uint##bits##_t x;                                        \
        memcpy(&x, v.b, sizeof x);                               \
        return x;                                                \
    }                                                            \
    static inline weir_le##bits weir_put##bits(uint##bits##_t x) \
    {                                                            \
        weir_le##bits v;                                         \
        memcpy(v.b, &x, sizeof x);                               \
        return v;                                                \
    }
WEIR_LE_TYPE(16)
WEIR_LE_TYPE(32)
WEIR_LE_TYPE(64)
#undef WEIR_LE_TYPE

/* A 128-bit number, least significant half first. */
typedef struct {
    weir_le64 low, high;
} weir_le128;

static inline unsigned __int128
weir_get128(weir_le128 v)
{
    return (unsigned __int128)weir_get64(v.high) << 64 | weir_get64(v.low);
}

static inline weir_le128
weir_put128(unsigned __int128 x)
{
    return (weir_le128){weir_put64((uint64_t)x), weir_put64((uint64_t)(x >> 64))};
}

static inline uint64_t
weir_load_be64(const void *p)
{
    uint64_t x;
    memcpy(&x, p, 8);
    return __builtin_bswap64(x);
}

static inline void
weir_store_be64(void *p, uint64_t x)
{
    x = __builtin_bswap64(x);
    memcpy(p, &x, 8);
}

static inline uint32_t
weir_load_be32(const void *p)
{
    uint32_t x;
    memcpy(&x, p, 4);
    return __builtin_bswap32(x);
}

static inline void
weir_store_be32(void *p, uint32_t x)
{
    x = __builtin_bswap32(x);
    memcpy(p, &x, 4);
}
