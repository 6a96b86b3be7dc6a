/* The offline look at a data directory: does every byte hold, and what is in there?
 *
 * Nothing is changed or repaired. Knows the log's files (docs/format.md); does not know streams'
 * names or the catalog.
 *
 * Threads: one thread at a time; the callbacks come on the calling thread. */
#pragma once
#include "base/error.h"
#include "base/status.h"
#include "base/text.h"
#include "sys/fs.h"

enum weir_fsck_severity {
    WEIR_FSCK_NOTE,   /* normal after a crash: a torn end, an unfinished footer */
    WEIR_FSCK_DAMAGE, /* bytes that were written are not there as they were */
};

struct weir_fsck_finding {
    enum weir_fsck_severity severity;
    const char *file; /* below the data directory; borrowed for the call */
    uint64_t position;
    uint64_t bytes; /* how far the bad area goes, 0 where it cannot be told */
    bool has_shard; /* the next four are known */
    uint64_t stream, shard;
    uint64_t first, limit; /* offsets that cannot be read */
    const char *reason;    /* "batch body does not match its hash" */
};

struct weir_fsck_totals {
    uint64_t journals, segments, sealed_segments, shards;
    uint64_t groups, batches, state_batches, records;
    uint64_t bytes;        /* of segment files, as far as they are in use */
    uint64_t record_bytes; /* data and keys, decompressed */
    uint64_t torn_bytes;
    uint64_t damaged, notes; /* findings */
};

struct weir_fsck_callbacks {
    void (*finding)(void *arg, const struct weir_fsck_finding *finding); /* NULL is allowed */
    /* About every 16 MiB and at the end of each file. NULL is allowed. */
    void (*progress)(void *arg, const char *file, uint64_t bytes_done, uint64_t bytes_total);
    void *arg;
};

struct weir_fsck_options {
    /* Read although a broker holds the directory: what it writes meanwhile may look torn. */
    bool even_if_locked;
};

/* Walks every journal of the data directory that `fs` is opened on: headers, groups, batches (both
 * hashes, decompression, the records' form), each shard's chain, footers against contents. OK: all
 * holds (notes allowed). DAMAGED: at least one finding of that severity. BUSY: a broker holds the
 * directory; *holder_pid_out (0 if unknown) says which. NOT_FOUND: no journal there. IO, NO_MEMORY.
 */
enum weir_status weir_fsck_verify(struct weir_fs *fs, const struct weir_fsck_options *options,
                                  const struct weir_fsck_callbacks *callbacks,
                                  struct weir_fsck_totals *totals, int64_t *holder_pid_out,
                                  struct weir_error *err);

struct weir_fsck_inspect_options {
    bool json;      /* one JSON object a line, else text for people */
    bool records;   /* keys and sizes of the records, with the first bytes of their data */
    bool footer;    /* the footer's directory */
    bool has_shard; /* only this one's batches */
    uint64_t shard;
    uint64_t position;   /* start at the first group at or after it */
    uint64_t groups_max; /* 0: all */
};

/* Prints a segment file readably, piece by piece, through `print` (borrowed, whole lines; a status
 * other than OK stops and is returned). Bad places are printed where they are. INVALID: not a
 * segment file at all. NOT_FOUND, IO, NO_MEMORY. */
enum weir_status weir_fsck_inspect(struct weir_fs *fs, const char *path,
                                   const struct weir_fsck_inspect_options *options,
                                   enum weir_status (*print)(void *arg, struct weir_bytes text),
                                   void *arg, struct weir_error *err);
