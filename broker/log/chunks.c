#include "log/chunks.h"
#include "base/assert.h"
#include "base/list.h"
#include "base/map.h"
#include <pthread.h>
#include <stdlib.h>

struct chunk {
    struct weir_list node; /* least recently used first */
    uint64_t key;
    uint32_t count;
    struct weir_entry entries[];
};

struct weir_chunks {
    pthread_mutex_t mtx;
    /* shared, under mtx */
    struct weir_map map;
    struct weir_list used;
    uint64_t bytes, bytes_max;
};

static uint64_t
key_of(uint32_t segment, uint32_t chunk)
{
    return (uint64_t)segment << 32 | chunk;
}

static uint64_t
chunk_bytes(const struct chunk *k)
{
    return sizeof *k + k->count * sizeof k->entries[0];
}

enum weir_status
weir_chunks_new(uint64_t bytes_max, struct weir_chunks **out)
{
    struct weir_chunks *c = calloc(1, sizeof *c);
    if (!c)
        return WEIR_NO_MEMORY;
    pthread_mutex_init(&c->mtx, NULL);
    weir_map_init(&c->map, 0);
    weir_list_init(&c->used);
    c->bytes_max = bytes_max;
    *out = c;
    return WEIR_OK;
}

static void
drop(struct weir_chunks *c, struct chunk *k)
{
    weir_list_remove(&k->node);
    (void)weir_map_take(&c->map, k->key);
    c->bytes -= chunk_bytes(k);
    free(k);
}

void
weir_chunks_free(struct weir_chunks *c)
{
    if (!c)
        return;
    WEIR_LIST_FOR_EACH_SAFE (node, &c->used) {
        drop(c, WEIR_CONTAINER(node, struct chunk, node));
    }
    weir_map_fini(&c->map);
    pthread_mutex_destroy(&c->mtx);
    free(c);
}

void
weir_chunks_forget(struct weir_chunks *c, uint32_t segment)
{
    pthread_mutex_lock(&c->mtx);
    WEIR_LIST_FOR_EACH_SAFE (node, &c->used) {
        struct chunk *k = WEIR_CONTAINER(node, struct chunk, node);
        if (k->key >> 32 == segment)
            drop(c, k);
    }
    pthread_mutex_unlock(&c->mtx);
}

static enum weir_status
load(struct weir_journal *j, const struct weir_footer_ref *f, uint32_t number, struct chunk **out)
{
    uint32_t first = number * WEIR_CHUNK_ENTRIES;
    uint32_t count =
        f->entries - first < WEIR_CHUNK_ENTRIES ? f->entries - first : WEIR_CHUNK_ENTRIES;
    size_t len = count * sizeof(struct weir_disk_entry), got = 0;
    struct weir_disk_entry *disk = malloc(len);
    struct chunk *k = malloc(sizeof *k + count * sizeof k->entries[0]);
    enum weir_status st = WEIR_NO_MEMORY;
    if (!disk || !k)
        goto done;
    st = j->ops->read(j, (struct weir_position){f->segment, f->at + (uint64_t)first * sizeof *disk},
                      disk, len, &got);
    if (st)
        goto done;
    const weir_le64 *hashes = (const void *)f->hashes->data;
    if (got != len || weir_chunk_hash(disk, len) != weir_get64(hashes[number])) {
        st = WEIR_DAMAGED;
        goto done;
    }
    *k = (struct chunk){.key = key_of(f->segment, number), .count = count};
    for (uint32_t i = 0; i < count; i++)
        weir_entry_decode(&disk[i], &k->entries[i]);
    *out = k;
    k = NULL;
done:
    free(k);
    free(disk);
    return st;
}

/* Entries [from, from + count) of one chunk. */
static enum weir_status
get_piece(struct weir_chunks *c, struct weir_journal *j, const struct weir_footer_ref *f,
          uint32_t number, uint32_t from, uint32_t count, struct weir_entry *out)
{
    uint64_t key = key_of(f->segment, number);
    pthread_mutex_lock(&c->mtx);
    struct chunk *k = weir_map_get(&c->map, key);
    if (!k) {
        pthread_mutex_unlock(&c->mtx);
        struct chunk *loaded;
        enum weir_status st = load(j, f, number, &loaded);
        if (st)
            return st;
        pthread_mutex_lock(&c->mtx);
        k = weir_map_get(&c->map, key);
        if (k) {
            free(loaded); /* another thread was faster */
        } else if (weir_map_put(&c->map, key, loaded)) {
            pthread_mutex_unlock(&c->mtx);
            free(loaded);
            return WEIR_NO_MEMORY;
        } else {
            k = loaded;
            c->bytes += chunk_bytes(k);
            weir_list_push_back(&c->used, &k->node);
        }
    }
    weir_list_remove(&k->node);
    weir_list_push_back(&c->used, &k->node);
    WEIR_ASSERT(from + count <= k->count);
    memcpy(out, k->entries + from, count * sizeof *out);
    while (c->bytes > c->bytes_max && c->used.next != &k->node)
        drop(c, WEIR_CONTAINER(c->used.next, struct chunk, node));
    pthread_mutex_unlock(&c->mtx);
    return WEIR_OK;
}

enum weir_status
weir_chunks_get(struct weir_chunks *c, struct weir_journal *j, const struct weir_footer_ref *f,
                uint32_t first, uint32_t count, struct weir_entry *out)
{
    WEIR_ASSERT(first <= f->entries && count <= f->entries - first);
    while (count) {
        uint32_t number = first / WEIR_CHUNK_ENTRIES, from = first % WEIR_CHUNK_ENTRIES;
        uint32_t piece = WEIR_CHUNK_ENTRIES - from < count ? WEIR_CHUNK_ENTRIES - from : count;
        enum weir_status st = get_piece(c, j, f, number, from, piece, out);
        if (st)
            return st;
        first += piece;
        count -= piece;
        out += piece;
    }
    return WEIR_OK;
}

enum weir_status
weir_chunks_search(struct weir_chunks *c, struct weir_journal *j, const struct weir_footer_ref *f,
                   uint32_t first, uint32_t count, bool by_time, uint64_t wanted,
                   uint32_t *number_out)
{
    uint32_t low = first, high = first + count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        struct weir_entry e;
        enum weir_status st = weir_chunks_get(c, j, f, middle, 1, &e);
        if (st)
            return st;
        bool before = by_time ? e.at_ms < wanted : e.offset + e.count <= wanted;
        if (before)
            low = middle + 1;
        else
            high = middle;
    }
    *number_out = low;
    return WEIR_OK;
}
