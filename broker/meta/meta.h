/* The metadata table: small rows with versions, changed all or nothing, durable when the answer
 * comes.
 *
 * Rows are (key, value, version). Keys are texts with parts ("stream/orders", "shard/17/3"); values
 * are bytes that their owners define. A commit is a list of puts and deletes with the versions they
 * expect; one that does not hold refuses the whole commit. This is what a distributed store can
 * offer too (get, compare-and-set, list), so nothing above knows SQL.
 *
 * The embedded engine is SQLite (WAL, synchronous FULL) behind a VFS on sys->fs. One writer groups
 * the commits that wait into one transaction.
 *
 * Every row carries a checksum of its key, value and version, and the file is checked when it is
 * opened: what was damaged is refused, not made anew.
 *
 * Threads: open, close, scan and commit_now before the loop runs or after; commit from that loop,
 * the control loop; done comes on it. Blocking work is done on sys->pool, one job at a time. */
#pragma once
#include "base/error.h"
#include "sys/sys.h"

struct weir_meta;

/* `path` below sys->fs, e.g. "meta.db"; made if it is not there. Whoever opens it holds the lock of
 * the data directory. DAMAGED: the file is not sound. UNSUPPORTED: written by a newer version.
 * Migrates older schemas. */
enum weir_status weir_meta_open(struct weir_sys *sys, struct weir_loop *loop, const char *path,
                                struct weir_meta **out, struct weir_error *err);
/* Finishes what was committed. The loop is not running (stopped, or stepped). NULL is allowed. */
void weir_meta_close(struct weir_meta *meta);

/* Calls each for all rows whose key starts with `prefix`, in key order; key and value are borrowed
 * for the call. Blocking; no commit may be in flight. Returns the first status of `each` that is
 * not OK. DAMAGED: a row is not sound. */
enum weir_status weir_meta_scan(struct weir_meta *meta, const char *prefix,
                                enum weir_status (*each)(void *arg, const char *key,
                                                         struct weir_bytes value, uint64_t version),
                                void *arg, struct weir_error *err);

#define WEIR_META_ANY UINT64_MAX /* any version, also none */
#define WEIR_META_KEY_MAX 512
#define WEIR_META_VALUE_MAX (1024 * 1024)

struct weir_meta_op {
    char *key; /* one block with the value */
    size_t key_len;
    uint8_t *value; /* NULL: delete */
    size_t value_len;
    uint64_t expect; /* version it must have; 0: it must not exist; WEIR_META_ANY */
};

struct weir_meta_commit {
    /* OK: durable. FENCED: a version did not hold (failed_op says which). UNKNOWN: only a restart
     * tells; the table takes no more, and answers UNAVAILABLE from now on. Anything else (IO,
     * NO_SPACE, NO_MEMORY, TOO_BIG, DAMAGED, UNAVAILABLE): nothing was changed. */
    void (*done)(struct weir_meta_commit *c, enum weir_status st);
    size_t failed_op;
    /* private; zero before the first add */
    struct weir_meta_op *ops;
    size_t count, capacity;
    enum weir_status st; /* so far: NO_MEMORY, TOO_BIG by an add */
    struct weir_list node;
};
/* Adds an operation; keys and values are copied. A failed allocation, or a key or value over its
 * limit, is reported by done. Each put makes the row's version one more than it was; the first
 * is 1. Deleting what is not there is allowed with expect 0 and ANY. */
void weir_meta_put(struct weir_meta_commit *c, const char *key, struct weir_bytes value,
                   uint64_t expect);
void weir_meta_delete(struct weir_meta_commit *c, const char *key, uint64_t expect);
/* Queues it; `c` is the caller's again in done, where its operations are freed already. Commits are
 * applied and answered in the order of these calls; done never comes before the call returned. A
 * commit of no operations changes nothing and keeps its place in the order. */
void weir_meta_commit(struct weir_meta *meta, struct weir_meta_commit *c);
/* The same, blocking, for start-up: the answer is returned, done is not called. */
enum weir_status weir_meta_commit_now(struct weir_meta *meta, struct weir_meta_commit *c,
                                      struct weir_error *err);

/* The story of the last commit or checkpoint of the file that failed, for the program's log; status
 * OK when none did. On the loop. */
const struct weir_error *weir_meta_fault(const struct weir_meta *meta);
