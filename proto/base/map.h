/* Hash maps: u64 to pointer, and text to pointer. Open addressing, grow only by doubling, no
 * allocation on lookup. Values are never NULL; the map does not own them. Text keys are borrowed:
 * they must live inside the value. One thread at a time. */
#pragma once
#include "base/bytes.h"
#include "base/status.h"

struct weir_map_slot;
struct weir_map {
    struct weir_map_slot *slots;
    size_t capacity, count, used;
    uint64_t seed; /* against chosen keys */
};

void weir_map_init(struct weir_map *map, uint64_t seed);
void weir_map_fini(struct weir_map *map);
void *weir_map_get(const struct weir_map *map, uint64_t key);
/* EXISTS when the key is there; NO_MEMORY. */
enum weir_status weir_map_put(struct weir_map *map, uint64_t key, void *value);
/* What was there, or NULL. */
void *weir_map_take(struct weir_map *map, uint64_t key);
/* Walks all values: start with *cursor = 0; NULL at the end. The current value may be taken out
 * during the walk, nothing may be put. */
void *weir_map_next(const struct weir_map *map, size_t *cursor);

/* The same with text keys (borrowed from the value). */
void *weir_map_get_text(const struct weir_map *map, struct weir_bytes key);
enum weir_status weir_map_put_text(struct weir_map *map, struct weir_bytes key, void *value);
void *weir_map_take_text(struct weir_map *map, struct weir_bytes key);
