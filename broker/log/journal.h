/* The journal engine's table: what a log asks of the thing that keeps bytes. The local engine
 * (journal_local.c) is the embedded default; another one on a distributed store comes later, so
 * nothing above knows paths, inodes or memory maps.
 *
 * A journal is a row of numbered segments. Bytes are appended in groups at named positions, one
 * group in flight; each group carries the writer's epoch, and an engine refuses an older epoch's
 * (FENCED). What the bytes mean (headers, groups, footers) is the log's business (format.h).
 *
 * Threads: calls may block; they are made before the owner's loop runs, from the committer, or from
 * pool threads, never from an owner. append, sync and roll: one thread at a time. read, seal, trim
 * and prepare may run beside them. */
#pragma once
#include "base/error.h"
#include "base/status.h"
#include "sys/sys.h"
#include <sys/uio.h>

struct weir_journal;

struct weir_position {
    uint64_t segment;
    uint64_t byte;
};

struct weir_journal_caps {
    uint64_t segment_bytes_max;
    uint64_t group_bytes_max;
    uint32_t alignment; /* of group positions */
    bool fences;        /* refuses an older epoch by itself */
};

struct weir_journal_ops {
    void (*caps)(struct weir_journal *j, struct weir_journal_caps *out);
    /* From now on only appends of `epoch` are taken; OK means no older one can land any more. */
    enum weir_status (*fence)(struct weir_journal *j, uint32_t epoch);
    /* Calls `each` for all segments that may hold data, in the order of their numbers; a status
     * other than OK ends it and is returned. */
    enum weir_status (*list)(struct weir_journal *j,
                             enum weir_status (*each)(void *arg, uint64_t segment), void *arg);
    /* Bytes of the whole segment, with what was prepared ahead. NOT_FOUND. */
    enum weir_status (*size)(struct weir_journal *j, uint64_t segment, uint64_t *bytes_out);
    /* The next append comes at `at`, into a segment that exists. Segments behind it hold nothing.
     */
    enum weir_status (*resume)(struct weir_journal *j, struct weir_position at);
    /* Opens a segment for appending at byte 0, without anything that an earlier try left there; the
     * one before takes no more. */
    enum weir_status (*roll)(struct weir_journal *j, uint64_t segment);
    /* All of it or nothing that recovery would believe. OK (durable when `sync`); FENCED; NO_SPACE;
     * IO; UNKNOWN: find out by reading. After a failure the segment takes no more appends: roll. */
    enum weir_status (*append)(struct weir_journal *j, struct weir_position at,
                               const struct iovec *iov, int count, bool sync);
    /* What was appended is durable. A failure is as append's. */
    enum weir_status (*sync)(struct weir_journal *j);
    /* Fewer bytes only at the segment's end. NOT_FOUND: it was trimmed. */
    enum weir_status (*read)(struct weir_journal *j, struct weir_position at, void *buf, size_t len,
                             size_t *read_out);
    /* A hint that this will be read soon. */
    void (*advise)(struct weir_journal *j, struct weir_position at, uint64_t len);
    /* Puts the footer behind the last group of a segment that takes no more, so that it ends there.
     * The last piece is written when the others are durable: where it holds, they do. */
    enum weir_status (*seal)(struct weir_journal *j, struct weir_position end,
                             const struct iovec *iov, int count);
    /* Removes (or recycles) a whole segment; the caller recorded the boundary before. */
    enum weir_status (*trim)(struct weir_journal *j, uint64_t segment);
    /* Notes: one row of bytes beside the segments, that the log may need at its next start. Not
     * synced: after a crash an end of it may be missing or wrong, or all of it. note() adds to its
     * end; notes_read() gives all of it (*bytes_out is the caller's; NOT_FOUND); notes_replace()
     * makes it anew. One call at a time, also beside all others. */
    enum weir_status (*note)(struct weir_journal *j, const struct iovec *iov, int count);
    enum weir_status (*notes_read)(struct weir_journal *j, uint8_t **bytes_out, size_t *len_out);
    enum weir_status (*notes_replace)(struct weir_journal *j, const struct iovec *iov, int count);
    /* A piece of the work that is better done ahead of the writer. OK: there may be more; END: not
     * at present. NULL where there is none. One call at a time. */
    enum weir_status (*prepare)(struct weir_journal *j);
    /* Bytes that can be appended without asking for more room. */
    uint64_t (*ready_bytes)(struct weir_journal *j);
    void (*close)(struct weir_journal *j);
};

struct weir_journal {
    const struct weir_journal_ops *ops;
};

/* The local engine: files `00000001.seg` and so on in `directory` (made if missing).
 * `prewrite_bytes`: zeros written and synced ahead of the writer; 0: none. */
enum weir_status weir_journal_local(struct weir_fs *fs, const char *directory,
                                    uint64_t segment_bytes, uint64_t prewrite_bytes,
                                    struct weir_journal **out, struct weir_error *err);
