/* What catalog.c (looking up, opening) and change.c (changes) share.
 *
 *   names     | entry | entry | entry |            sorted; an entry is a name and its queue
 *   entry     stream (visible: it is there) -> shards by index -> ring: open shards by range
 *   numbers   stream number -> entry */
#pragma once
#include "base/map.h"
#include "stream/stream.h"

struct weir_entry {
    struct weir_stream stream;
    bool visible;
    uint64_t row_version; /* 0: no row */
    uint32_t *ring;
    uint32_t shard_capacity, ring_capacity;
    uint32_t listed;        /* shards that are not expired */
    struct weir_list plans; /* the first is on its way */
    char name[WEIR_STREAM_NAME_MAX + 1];
};

struct weir_catalog {
    struct weir_meta *meta;
    struct weir_clock *clock;
    struct weir_entry **names;
    size_t name_count, name_capacity, visible_count;
    struct weir_map numbers;
    uint64_t next_stream, next_shard;
    uint64_t shard_total; /* not expired, of all streams, with those that are being made */
    char id[33];
};

struct weir_entry *weir_catalog_entry(const struct weir_catalog *c, struct weir_bytes name);
/* The entry of the name, made if need be. NULL: no memory. */
struct weir_entry *weir_entry_ensure(struct weir_catalog *c, struct weir_bytes name);
/* Takes the entry out and frees it. */
void weir_entry_forget(struct weir_catalog *c, struct weir_entry *e);
/* Frees shards and ring; the name and its queue stay. */
void weir_entry_drop_stream(struct weir_entry *e);
/* Room for so many more shards and open shards; false: no memory. */
bool weir_entry_reserve(struct weir_entry *e, uint32_t shards, uint32_t open);
