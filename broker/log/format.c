/* Encoders and decoders of format.h. A decoder believes a checksum first and numbers never: whoever
 * can write a block can also write a checksum. */
#include "log/format.h"
#include "base/assert.h"
#include <xxhash.h>

weir_u128
weir_disk_hash(const void *data, size_t len)
{
    XXH128_hash_t h = XXH3_128bits(data, len);
    return (weir_u128)h.high64 << 64 | h.low64;
}

uint64_t
weir_chunk_hash(const void *data, size_t len)
{
    return XXH3_64bits(data, len);
}

void
weir_segment_encode(const struct weir_segment_info *s, struct weir_disk_segment *out)
{
    *out = (struct weir_disk_segment){
        .magic = weir_put64(WEIR_SEGMENT_MAGIC),
        .version = weir_put32(WEIR_DISK_VERSION),
        .journal = weir_put32(s->journal),
        .journal_id = weir_put128(s->journal_id),
        .segment = weir_put64(s->segment),
        .created_ms = weir_put64(s->created_ms),
        .previous_end = weir_put64(s->previous_end),
        .previous_hash = weir_put128(s->previous_hash),
        .group = weir_put64(s->group),
        .epoch = weir_put32(s->epoch),
    };
    out->checksum = weir_put128(weir_disk_hash(out, offsetof(struct weir_disk_segment, checksum)));
}

enum weir_status
weir_segment_decode(struct weir_bytes block, struct weir_segment_info *out)
{
    if (block.len < WEIR_DISK_BLOCK)
        return WEIR_INVALID;
    const struct weir_disk_segment *d = (const void *)block.data;
    if (weir_get64(d->magic) != WEIR_SEGMENT_MAGIC)
        return WEIR_INVALID;
    if (weir_get128(d->checksum) != weir_disk_hash(d, offsetof(struct weir_disk_segment, checksum)))
        return WEIR_INVALID;
    if (weir_get32(d->version) != WEIR_DISK_VERSION)
        return WEIR_UNSUPPORTED;

    struct weir_segment_info s = {
        .version = weir_get32(d->version),
        .journal = weir_get32(d->journal),
        .epoch = weir_get32(d->epoch),
        .journal_id = weir_get128(d->journal_id),
        .previous_hash = weir_get128(d->previous_hash),
        .segment = weir_get64(d->segment),
        .created_ms = weir_get64(d->created_ms),
        .previous_end = weir_get64(d->previous_end),
        .group = weir_get64(d->group),
    };
    if (s.segment == 0 || s.previous_end % WEIR_DISK_BLOCK != 0 || s.previous_end > UINT32_MAX)
        return WEIR_INVALID;
    *out = s;
    return WEIR_OK;
}

void
weir_group_encode(struct weir_group_info *g, struct weir_disk_group *out)
{
    *out = (struct weir_disk_group){
        .magic = weir_put64(WEIR_GROUP_MAGIC),
        .journal_id = weir_put128(g->journal_id),
        .segment = weir_put64(g->segment),
        .position = weir_put64(g->position),
        .synced = weir_put64(g->synced),
        .number = weir_put64(g->number),
        .previous = weir_put128(g->previous),
        .length = weir_put32(g->length),
        .count = weir_put32(g->count),
        .epoch = weir_put32(g->epoch),
        .flags = weir_put32(g->flags),
        .table_hash = weir_put128(g->table_hash),
    };
    g->header_hash = weir_disk_hash(out, offsetof(struct weir_disk_group, header_hash));
    out->header_hash = weir_put128(g->header_hash);
}

enum weir_status
weir_group_decode(struct weir_bytes head, struct weir_group_info *out)
{
    if (head.len < sizeof(struct weir_disk_group))
        return WEIR_INVALID;
    const struct weir_disk_group *d = (const void *)head.data;
    if (weir_get64(d->magic) != WEIR_GROUP_MAGIC)
        return WEIR_INVALID;
    weir_u128 hash = weir_disk_hash(d, offsetof(struct weir_disk_group, header_hash));
    if (weir_get128(d->header_hash) != hash)
        return WEIR_INVALID;

    struct weir_group_info g = {
        .journal_id = weir_get128(d->journal_id),
        .previous = weir_get128(d->previous),
        .table_hash = weir_get128(d->table_hash),
        .header_hash = hash,
        .segment = weir_get64(d->segment),
        .position = weir_get64(d->position),
        .synced = weir_get64(d->synced),
        .number = weir_get64(d->number),
        .length = weir_get32(d->length),
        .count = weir_get32(d->count),
        .epoch = weir_get32(d->epoch),
        .flags = weir_get32(d->flags),
    };
    /* Each batch takes its header and its row at least. */
    uint64_t least = sizeof *d + g.count * (uint64_t)(sizeof(struct weir_batch_header) +
                                                      sizeof(struct weir_disk_row));
    if (g.count > WEIR_GROUP_BATCHES_MAX || g.length > WEIR_GROUP_DISK_MAX || g.length < least ||
        g.position % WEIR_DISK_BLOCK != 0 || g.position < WEIR_DISK_BLOCK ||
        g.position > WEIR_SEGMENT_BYTES_MAX + WEIR_GROUP_DISK_MAX || g.synced > g.position)
        return WEIR_INVALID;
    *out = g;
    return WEIR_OK;
}

void
weir_row_encode(const struct weir_row_info *r, struct weir_disk_row *out)
{
    *out = (struct weir_disk_row){
        .shard = weir_put64(r->shard),
        .offset = weir_put64(r->offset),
        .size = weir_put32(r->size),
        .count = weir_put32(r->count),
        .hash = weir_put128(r->hash),
    };
}

void
weir_row_decode(const struct weir_disk_row *d, struct weir_row_info *out)
{
    *out = (struct weir_row_info){
        .shard = weir_get64(d->shard),
        .offset = weir_get64(d->offset),
        .size = weir_get32(d->size),
        .count = weir_get32(d->count),
        .hash = weir_get128(d->hash),
    };
}

bool
weir_group_table_holds(const struct weir_group_info *g, struct weir_bytes group)
{
    if (group.len < g->length)
        return false;
    uint32_t table = weir_group_table(g);
    if (weir_disk_hash(group.data + table, g->length - table) != g->table_hash)
        return false;
    const struct weir_disk_row *rows = (const void *)(group.data + table);
    uint64_t sum = sizeof(struct weir_disk_group);
    for (uint32_t i = 0; i < g->count; i++) {
        uint32_t size = weir_get32(rows[i].size);
        if (size < sizeof(struct weir_batch_header))
            return false;
        sum += size;
    }
    return sum == table;
}

void
weir_entry_encode(const struct weir_entry *e, struct weir_disk_entry *out)
{
    *out = (struct weir_disk_entry){
        .offset = weir_put64(e->offset),
        .at_ms = weir_put64(e->at_ms),
        .position = weir_put32(e->position),
        .size = weir_put32(e->size),
        .count = weir_put32(e->count),
        .hash = weir_put64(e->hash),
    };
}

void
weir_entry_decode(const struct weir_disk_entry *d, struct weir_entry *out)
{
    *out = (struct weir_entry){
        .offset = weir_get64(d->offset),
        .at_ms = weir_get64(d->at_ms),
        .hash = weir_get64(d->hash),
        .position = weir_get32(d->position),
        .size = weir_get32(d->size),
        .count = weir_get32(d->count),
    };
}

void
weir_trailer_encode(const struct weir_trailer_info *t, struct weir_disk_trailer *out)
{
    *out = (struct weir_disk_trailer){
        .magic = weir_put64(WEIR_TRAILER_MAGIC),
        .version = weir_put32(WEIR_DISK_VERSION),
        .journal = weir_put32(t->journal),
        .journal_id = weir_put128(t->journal_id),
        .segment = weir_put64(t->segment),
        .end = weir_put64(t->end),
        .last_hash = weir_put128(t->last_hash),
        .group = weir_put64(t->group),
        .first_at_ms = weir_put64(t->first_at_ms),
        .last_at_ms = weir_put64(t->last_at_ms),
        .directory = weir_put64(t->directory),
        .directory_size = weir_put32(t->directory_size),
        .entries = weir_put32(t->entries),
        .runs = weir_put32(t->runs),
        .states = weir_put32(t->states),
        .producers = weir_put32(t->producers),
        .epoch = weir_put32(t->epoch),
        .damaged = weir_put32(t->damaged),
        .directory_hash = weir_put128(t->directory_hash),
    };
    out->checksum = weir_put128(weir_disk_hash(out, offsetof(struct weir_disk_trailer, checksum)));
}

/* Bytes that the directory's parts take together. */
static uint64_t
directory_bytes(const struct weir_trailer_info *t)
{
    return (uint64_t)weir_chunks_of(t->entries) * sizeof(weir_le64) +
           (uint64_t)t->runs * sizeof(struct weir_disk_run) +
           (uint64_t)t->states * sizeof(struct weir_disk_state) +
           (uint64_t)t->producers * sizeof(struct weir_disk_producer);
}

enum weir_status
weir_trailer_decode(struct weir_bytes block, uint64_t file_bytes, struct weir_trailer_info *out)
{
    if (block.len < WEIR_DISK_BLOCK)
        return WEIR_INVALID;
    const struct weir_disk_trailer *d = (const void *)block.data;
    if (weir_get64(d->magic) != WEIR_TRAILER_MAGIC)
        return WEIR_INVALID;
    if (weir_get128(d->checksum) != weir_disk_hash(d, offsetof(struct weir_disk_trailer, checksum)))
        return WEIR_INVALID;
    if (weir_get32(d->version) != WEIR_DISK_VERSION)
        return WEIR_UNSUPPORTED;

    struct weir_trailer_info t = {
        .version = weir_get32(d->version),
        .journal = weir_get32(d->journal),
        .epoch = weir_get32(d->epoch),
        .damaged = weir_get32(d->damaged),
        .directory_size = weir_get32(d->directory_size),
        .entries = weir_get32(d->entries),
        .runs = weir_get32(d->runs),
        .states = weir_get32(d->states),
        .producers = weir_get32(d->producers),
        .journal_id = weir_get128(d->journal_id),
        .last_hash = weir_get128(d->last_hash),
        .directory_hash = weir_get128(d->directory_hash),
        .segment = weir_get64(d->segment),
        .end = weir_get64(d->end),
        .group = weir_get64(d->group),
        .first_at_ms = weir_get64(d->first_at_ms),
        .last_at_ms = weir_get64(d->last_at_ms),
        .directory = weir_get64(d->directory),
    };
    if (t.segment == 0 || t.end < WEIR_DISK_BLOCK || t.end > file_bytes ||
        t.directory > file_bytes || t.entries > UINT32_MAX - WEIR_CHUNK_ENTRIES)
        return WEIR_INVALID;
    if (t.directory != t.end + (uint64_t)t.entries * sizeof(struct weir_disk_entry) ||
        t.directory_size != directory_bytes(&t) || t.directory_size > file_bytes - t.directory)
        return WEIR_INVALID;
    *out = t;
    return WEIR_OK;
}

static bool
runs_hold(const struct weir_trailer_info *t, const struct weir_disk_run *runs)
{
    uint64_t shard = 0;
    for (uint32_t i = 0; i < t->runs; i++) {
        uint32_t entry = weir_get32(runs[i].entry), count = weir_get32(runs[i].count);
        if (count == 0 || entry > t->entries || count > t->entries - entry)
            return false;
        if (weir_get64(runs[i].first) >= weir_get64(runs[i].limit))
            return false;
        if (weir_get64(runs[i].shard) < shard)
            return false;
        shard = weir_get64(runs[i].shard);
    }
    return true;
}

static bool
states_hold(const struct weir_trailer_info *t, const struct weir_disk_state *states)
{
    uint64_t shard = 0;
    for (uint32_t i = 0; i < t->states; i++) {
        uint32_t producer = weir_get32(states[i].producer), count = weir_get32(states[i].count);
        if (producer > t->producers || count > t->producers - producer)
            return false;
        if (weir_get64(states[i].trimmed_before) > weir_get64(states[i].next))
            return false;
        if (i > 0 && weir_get64(states[i].shard) <= shard)
            return false;
        shard = weir_get64(states[i].shard);
    }
    return true;
}

enum weir_status
weir_directory_decode(const struct weir_trailer_info *t, struct weir_bytes bytes,
                      struct weir_directory *out)
{
    if (bytes.len != t->directory_size || t->directory_size != directory_bytes(t))
        return WEIR_INVALID;
    if (weir_disk_hash(bytes.data, bytes.len) != t->directory_hash)
        return WEIR_DAMAGED;

    struct weir_directory d;
    const uint8_t *p = bytes.data;
    d.chunks = (const void *)p;
    p += weir_chunks_of(t->entries) * sizeof(weir_le64);
    d.runs = (const void *)p;
    p += t->runs * sizeof(struct weir_disk_run);
    d.states = (const void *)p;
    p += t->states * sizeof(struct weir_disk_state);
    d.producers = (const void *)p;
    for (uint32_t i = 0; i < t->producers; i++)
        if (weir_get32(d.producers[i].count) > WEIR_PRODUCER_RECENT)
            return WEIR_INVALID;
    if (!runs_hold(t, d.runs) || !states_hold(t, d.states))
        return WEIR_INVALID;
    *out = d;
    return WEIR_OK;
}
