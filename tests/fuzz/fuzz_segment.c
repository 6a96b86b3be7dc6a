/* Segment files of any bytes: the decoders of header, group, table, directory and trailer, the walk
 * and the printer. The target seals checksums itself where the input asks for it, so that what is
 * behind them is reached.
 *
 * Input: one byte of choices, then the file. */
#include "base/assert.h"
#include "base/list.h"
#include "fsck/fsck.h"
#include "log/producers.h"
#include "log/walk.h"
#include "sys/memfs.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct target {
    struct weir_walk walk;
    struct weir_bytes file;
    uint64_t batches;
};

static enum weir_status
on_read(struct weir_walk *w, void *buf, size_t len, uint64_t at, size_t *read_out)
{
    const struct target *t = WEIR_CONTAINER(w, struct target, walk);
    size_t left = at < t->file.len ? t->file.len - (size_t)at : 0;
    *read_out = left < len ? left : len;
    if (*read_out)
        memcpy(buf, t->file.data + at, *read_out);
    return WEIR_OK;
}

/* What the walk calls a batch holds, and lies within the file. */
static enum weir_status
on_batch(struct weir_walk *w, uint64_t position, struct weir_bytes batch,
         const struct weir_batch_info *info)
{
    struct target *t = WEIR_CONTAINER(w, struct target, walk);
    struct weir_batch_info again;
    WEIR_ASSERT(position + batch.len <= t->file.len && batch.len == info->size);
    WEIR_ASSERT(!weir_batch_check(batch, &again) && again.header_hash == info->header_hash);
    WEIR_ASSERT(!memcmp(batch.data, t->file.data + position, batch.len));
    t->batches++;
    return WEIR_OK;
}

static enum weir_status
on_bad(struct weir_walk *w, const struct weir_walk_bad *bad)
{
    (void)w;
    WEIR_ASSERT(bad->reason);
    return WEIR_OK;
}

static enum weir_status
on_print(void *arg, struct weir_bytes text)
{
    (void)arg;
    WEIR_ASSERT(text.len && text.data[text.len - 1] == '\n');
    return WEIR_OK;
}

/* Makes the batch at `at` hold, whatever its fields say; returns its end. */
static size_t
seal_batch(uint8_t *file, size_t at, size_t limit)
{
    struct weir_batch_header *h = (void *)(file + at);
    if (limit - at < sizeof *h)
        return limit;
    size_t size = weir_get32(h->size);
    if (size < sizeof *h || size > limit - at)
        return limit;
    h->body_hash = weir_put128(weir_disk_hash(file + at + sizeof *h, size - sizeof *h));
    h->header_hash =
        weir_put128(weir_disk_hash(h, offsetof(struct weir_batch_header, header_hash)));
    return at + size;
}

/* Makes every group hold that says how long it is. */
static void
seal_groups(uint8_t *file, size_t size)
{
    weir_u128 previous = 0;
    for (size_t at = WEIR_DISK_BLOCK; size - at >= sizeof(struct weir_disk_group);) {
        struct weir_disk_group *d = (void *)(file + at);
        size_t length = weir_get32(d->length), count = weir_get32(d->count) % 64;
        if (length < sizeof *d || length > size - at)
            break;
        if (count * sizeof(struct weir_disk_row) > length - sizeof *d)
            count = 0;
        size_t table = length - count * sizeof(struct weir_disk_row), p = sizeof *d;
        struct weir_disk_row *rows = (void *)(file + at + table);
        for (size_t i = 0; i < count && p < table; i++) {
            struct weir_batch_header *h = (void *)(file + at + p);
            size_t end = seal_batch(file + at, p, table);
            if (table - p >= sizeof *h)
                rows[i] =
                    (struct weir_disk_row){h->shard, h->offset, h->size, h->count, h->header_hash};
            p = end;
        }
        d->magic = weir_put64(WEIR_GROUP_MAGIC);
        d->position = weir_put64(at);
        d->previous = weir_put128(previous);
        d->table_hash = weir_put128(weir_disk_hash(rows, length - table));
        previous = weir_disk_hash(d, offsetof(struct weir_disk_group, header_hash));
        d->header_hash = weir_put128(previous);
        at += weir_group_disk_bytes((uint32_t)length);
        if (at > size)
            break;
    }
}

static void
seal_blocks(uint8_t *file, size_t size)
{
    struct weir_disk_segment *header = (void *)file;
    struct weir_disk_trailer *trailer = (void *)(file + size - sizeof *trailer);
    header->magic = weir_put64(WEIR_SEGMENT_MAGIC);
    header->version = weir_put32(WEIR_DISK_VERSION);
    header->checksum =
        weir_put128(weir_disk_hash(header, offsetof(struct weir_disk_segment, checksum)));
    uint64_t at = weir_get64(trailer->directory), len = weir_get32(trailer->directory_size);
    if (at <= size && len <= size - at)
        trailer->directory_hash = weir_put128(weir_disk_hash(file + at, len));
    trailer->magic = weir_put64(WEIR_TRAILER_MAGIC);
    trailer->version = weir_put32(WEIR_DISK_VERSION);
    trailer->checksum =
        weir_put128(weir_disk_hash(trailer, offsetof(struct weir_disk_trailer, checksum)));
}

static void
decode_footer(struct weir_bytes file)
{
    struct weir_trailer_info t;
    struct weir_directory d;
    struct weir_bytes block = weir_bytes(file.data + file.len - WEIR_DISK_BLOCK, WEIR_DISK_BLOCK);
    if (weir_trailer_decode(block, file.len, &t))
        return;
    WEIR_ASSERT(t.end <= t.directory && t.directory + t.directory_size <= file.len);
    if (weir_directory_decode(&t, weir_bytes(file.data + t.directory, t.directory_size), &d))
        return;
    for (uint32_t i = 0; i < t.runs; i++)
        WEIR_ASSERT(weir_get32(d.runs[i].entry) + weir_get32(d.runs[i].count) <= t.entries);
    for (uint32_t i = 0; i < t.states; i++)
        WEIR_ASSERT(weir_get32(d.states[i].producer) + weir_get32(d.states[i].count) <=
                    t.producers);
    for (uint32_t i = 0; i < t.producers; i++) {
        struct weir_producers *p = NULL;
        WEIR_ASSERT(!weir_producers_decode(&p, &d.producers[i]));
        weir_producers_free(p);
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 + 2 * WEIR_DISK_BLOCK || size > 256 * WEIR_KIB)
        return 0;
    uint8_t choice = data[0];
    size_t len = size - 1;
    uint8_t *file = malloc(len);
    WEIR_ASSERT(file);
    memcpy(file, data + 1, len);
    if (choice & 1)
        seal_groups(file, len);
    if (choice & 2)
        seal_blocks(file, len);

    struct weir_segment_info header = {0};
    enum weir_status st = weir_segment_decode(weir_bytes(file, WEIR_DISK_BLOCK), &header);
    decode_footer(weir_bytes(file, len));
    struct target t = {
        .walk =
            {
                .read = on_read,
                .batch = on_batch,
                .bad = on_bad,
                .journal_id_known = !st,
                .journal_id = header.journal_id,
                .segment = st ? 1 : header.segment,
                .limit = choice & 4 ? len / 512 * 512 : UINT64_MAX,
                .scan_bytes = UINT64_MAX,
            },
        .file = weir_bytes(file, len),
    };
    WEIR_ASSERT(!weir_walk_run(&t.walk));
    WEIR_ASSERT(t.walk.batches == t.batches);
    weir_walk_fini(&t.walk);

    /* The same through a disk: printer and verifier. */
    struct weir_memfs *disk = weir_memfs_new();
    struct weir_fs *fs = weir_memfs_fs(disk);
    struct weir_file *f;
    struct weir_fsck_totals totals;
    WEIR_ASSERT(!weir_fs_mkdir(fs, "journal-0"));
    WEIR_ASSERT(
        !weir_fs_open(fs, "journal-0/00000001.seg", WEIR_OPEN_WRITE | WEIR_OPEN_CREATE, &f));
    WEIR_ASSERT(!weir_file_pwrite(f, file, len, 0));
    weir_file_close(f);
    struct weir_fsck_inspect_options options = {
        .json = choice & 8, .records = true, .footer = true};
    (void)!weir_fsck_inspect(fs, "journal-0/00000001.seg", &options, on_print, NULL, NULL);
    (void)!weir_fsck_verify(fs, NULL, NULL, &totals, NULL, NULL);
    weir_memfs_free(disk);
    free(file);
    return 0;
}
