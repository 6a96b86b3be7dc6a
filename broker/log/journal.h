/* The journal engine's table: what a log asks of the thing that keeps bytes. The local engine
 * (journal_local.c) is the embedded default; another one on a distributed store comes later, so
 * nothing above knows paths, inodes or memory maps.
 *
 * A journal is a row of numbered segments. Bytes are appended in groups at named positions, one group
 * in flight; each group carries the writer's epoch, and an engine refuses an older epoch's (FENCED).
 * Calls that may block are made from the committer or from pool threads, never from an owner. */
#pragma once
#include "base/error.h"
#include "base/status.h"
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

struct weir_segment_stat {
    uint64_t segment;
    uint64_t bytes;     /* written */
    bool sealed;
};

struct weir_journal_ops {
    void (*caps)(struct weir_journal *j, struct weir_journal_caps *out);
    /* From now on only appends of `epoch` are taken; OK means no older one can land any more. */
    enum weir_status (*fence)(struct weir_journal *j, uint32_t epoch);
    /* All of it or nothing that recovery would believe. OK (durable when `sync`); FENCED; AGAIN; FULL is
     * WEIR_TOO_BIG: roll; NO_SPACE; IO; UNKNOWN: find out by reading. */
    enum weir_status (*append)(struct weir_journal *j, struct weir_position at,
                               const struct iovec *iov, int count, bool sync);
    enum weir_status (*sync)(struct weir_journal *j);
    enum weir_status (*read)(struct weir_journal *j, struct weir_position at, void *buf, size_t len,
                             size_t *read_out);
    /* Opens the next segment for appending; the old one takes no more. */
    enum weir_status (*roll)(struct weir_journal *j, uint64_t segment);
    /* Stores the footer behind the last group of a rolled segment. */
    enum weir_status (*seal)(struct weir_journal *j, uint64_t segment, uint64_t end,
                             const struct iovec *iov, int count);
    /* Removes (or recycles) a whole segment; the caller recorded the boundary before. */
    enum weir_status (*trim)(struct weir_journal *j, uint64_t segment);
    enum weir_status (*list)(struct weir_journal *j,
                             void (*each)(void *arg, const struct weir_segment_stat *s), void *arg);
    void (*close)(struct weir_journal *j);
};

struct weir_journal {
    const struct weir_journal_ops *ops;
};
