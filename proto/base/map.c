/* Linear probing over a power of two of slots.
 *
 *   slots   | key, value | empty | key, gone | key, value | ...     value NULL is empty
 *   texts   | data, len  |       |           | data, len  | ...     only in a map of texts
 *
 * A value that is taken leaves a "gone" mark, so that walks may take and probes go on; marks with
 * nothing behind them are wiped at once, the rest when the map is laid out anew. `used` counts
 * values and marks and stays below three quarters of the slots. In a map of texts a slot's key is
 * the text's hash. */
#include "base/map.h"
#include "base/assert.h"
#include <stdlib.h>

struct weir_map_slot {
    uint64_t key;
    void *value;
};

#define CAPACITY_MIN 16

static const char gone_mark;
#define GONE ((void *)(uintptr_t)&gone_mark)

static uint64_t
mix(uint64_t x)
{
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdu;
    x ^= x >> 33;
    x *= 0xc4ceb9fe1a85ec53u;
    return x ^ x >> 33;
}

static inline uint64_t
rotl(uint64_t x, int by)
{
    return x << by | x >> (64 - by);
}

#define SIP_ROUND                                                                  \
    do {                                                                           \
        a += b, c += d, b = rotl(b, 13) ^ a, d = rotl(d, 16) ^ c, a = rotl(a, 32); \
        c += b, a += d, b = rotl(b, 17) ^ c, d = rotl(d, 21) ^ a, c = rotl(c, 32); \
    } while (0)

/* SipHash-1-3: who picks the texts but not the seed cannot make them collide. */
static uint64_t
hash_text(struct weir_bytes text, uint64_t seed)
{
    uint64_t k0 = seed, k1 = mix(seed ^ 0x9e3779b97f4a7c15u);
    uint64_t a = k0 ^ 0x736f6d6570736575u, b = k1 ^ 0x646f72616e646f6du;
    uint64_t c = k0 ^ 0x6c7967656e657261u, d = k1 ^ 0x7465646279746573u;
    size_t at = 0;
    uint64_t word;
    for (; at + 8 <= text.len; at += 8) {
        memcpy(&word, text.data + at, 8);
        d ^= word;
        SIP_ROUND;
        a ^= word;
    }
    word = (uint64_t)text.len << 56;
    for (size_t i = 0; at + i < text.len; i++)
        word |= (uint64_t)text.data[at + i] << 8 * i;
    d ^= word;
    SIP_ROUND;
    a ^= word;
    c ^= 0xff;
    SIP_ROUND;
    SIP_ROUND;
    SIP_ROUND;
    return a ^ b ^ c ^ d;
}

static struct weir_bytes *
texts_of(const struct weir_map *map)
{
    return (struct weir_bytes *)(void *)(map->slots + map->capacity);
}

static size_t
home(const struct weir_map *map, uint64_t key)
{
    return mix(key ^ map->seed) & (map->capacity - 1);
}

static size_t
after(const struct weir_map *map, size_t i)
{
    return (i + 1) & (map->capacity - 1);
}

/* The slot of the key, or NULL. `text` is NULL in a map of numbers. */
static struct weir_map_slot *
find(const struct weir_map *map, uint64_t key, const struct weir_bytes *text)
{
    if (!map->slots)
        return NULL;
    for (size_t i = home(map, key); map->slots[i].value; i = after(map, i)) {
        struct weir_map_slot *slot = &map->slots[i];
        if (slot->key == key && slot->value != GONE &&
            (!text || weir_bytes_equal(texts_of(map)[i], *text)))
            return slot;
    }
    return NULL;
}

static void
place(struct weir_map *map, uint64_t key, const struct weir_bytes *text, void *value)
{
    size_t i = home(map, key);
    while (map->slots[i].value && map->slots[i].value != GONE)
        i = after(map, i);
    if (!map->slots[i].value)
        map->used++;
    map->slots[i] = (struct weir_map_slot){key, value};
    if (text)
        texts_of(map)[i] = *text;
    map->count++;
}

/* Room for one more: lays the map out anew without its marks, twice as large if it is half full. */
static enum weir_status
reserve(struct weir_map *map, bool of_texts)
{
    if (map->slots && (map->used + 1) * 4 <= map->capacity * 3)
        return WEIR_OK;
    struct weir_map next = {.seed = map->seed};
    next.capacity = !map->slots                       ? CAPACITY_MIN
                    : map->count * 2 >= map->capacity ? map->capacity * 2
                                                      : map->capacity;
    size_t each = sizeof *next.slots + (of_texts ? sizeof(struct weir_bytes) : 0);
    next.slots = calloc(next.capacity, each);
    if (!next.slots)
        return WEIR_NO_MEMORY;
    for (size_t i = 0; map->slots && i < map->capacity; i++) {
        struct weir_map_slot *slot = &map->slots[i];
        if (slot->value && slot->value != GONE)
            place(&next, slot->key, of_texts ? &texts_of(map)[i] : NULL, slot->value);
    }
    free(map->slots);
    *map = next;
    return WEIR_OK;
}

static enum weir_status
put(struct weir_map *map, uint64_t key, const struct weir_bytes *text, void *value)
{
    WEIR_ASSERT(value);
    if (find(map, key, text))
        return WEIR_EXISTS;
    enum weir_status st = reserve(map, text != NULL);
    if (st)
        return st;
    place(map, key, text, value);
    return WEIR_OK;
}

static void *
take(struct weir_map *map, struct weir_map_slot *slot)
{
    if (!slot)
        return NULL;
    void *value = slot->value;
    slot->value = GONE;
    map->count--;
    size_t i = (size_t)(slot - map->slots);
    if (map->slots[after(map, i)].value)
        return value;
    for (; map->slots[i].value == GONE; i = (i - 1) & (map->capacity - 1)) {
        map->slots[i].value = NULL;
        map->used--;
    }
    return value;
}

void
weir_map_init(struct weir_map *map, uint64_t seed)
{
    *map = (struct weir_map){.seed = seed};
}

void
weir_map_fini(struct weir_map *map)
{
    free(map->slots);
    *map = (struct weir_map){.seed = map->seed};
}

void *
weir_map_get(const struct weir_map *map, uint64_t key)
{
    struct weir_map_slot *slot = find(map, key, NULL);
    return slot ? slot->value : NULL;
}

enum weir_status
weir_map_put(struct weir_map *map, uint64_t key, void *value)
{
    return put(map, key, NULL, value);
}

void *
weir_map_take(struct weir_map *map, uint64_t key)
{
    return take(map, find(map, key, NULL));
}

void *
weir_map_next(const struct weir_map *map, size_t *cursor)
{
    while (*cursor < map->capacity) {
        void *value = map->slots[(*cursor)++].value;
        if (value && value != GONE)
            return value;
    }
    return NULL;
}

void *
weir_map_get_text(const struct weir_map *map, struct weir_bytes key)
{
    struct weir_map_slot *slot = find(map, hash_text(key, map->seed), &key);
    return slot ? slot->value : NULL;
}

enum weir_status
weir_map_put_text(struct weir_map *map, struct weir_bytes key, void *value)
{
    return put(map, hash_text(key, map->seed), &key, value);
}

void *
weir_map_take_text(struct weir_map *map, struct weir_bytes key)
{
    return take(map, find(map, hash_text(key, map->seed), &key));
}
