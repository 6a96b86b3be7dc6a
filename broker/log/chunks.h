/* Entries of sealed segments, loaded from their footers in chunks and kept while they are in use.
 * Any thread; one short lock. */
#pragma once
#include "base/buffer.h"
#include "log/format.h"
#include "log/journal.h"

struct weir_chunks;

/* A sealed segment's entries, as a reader on another thread needs to know them. */
struct weir_footer_ref {
    uint32_t segment;
    uint32_t entries;        /* count */
    uint64_t at;             /* position of the first */
    struct weir_buf *hashes; /* of the chunks; borrowed */
};

enum weir_status weir_chunks_new(uint64_t bytes_max, struct weir_chunks **out);
void weir_chunks_free(struct weir_chunks *c);
/* Copies the entries [first, first + count) to out. DAMAGED: a chunk's checksum does not hold;
 * NOT_FOUND: the segment is gone; IO, NO_MEMORY. */
enum weir_status weir_chunks_get(struct weir_chunks *c, struct weir_journal *j,
                                 const struct weir_footer_ref *f, uint32_t first, uint32_t count,
                                 struct weir_entry *out);
/* Among [first, first + count): the first entry that ends behind `offset`, or, `by_time`, that
 * arrived at or after it; first + count if none. */
enum weir_status weir_chunks_search(struct weir_chunks *c, struct weir_journal *j,
                                    const struct weir_footer_ref *f, uint32_t first, uint32_t count,
                                    bool by_time, uint64_t wanted, uint32_t *number_out);
/* The segment goes: its file's name may come back with other contents. */
void weir_chunks_forget(struct weir_chunks *c, uint32_t segment);
