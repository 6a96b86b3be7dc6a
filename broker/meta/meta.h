/* The metadata table: small rows with versions, changed all or nothing, durable when the answer comes.
 *
 * Rows are (key, value, version). Keys are texts with parts ("stream/orders", "shard/17/3"); values are
 * bytes that their owners define. A commit is a list of puts and deletes with the versions they expect;
 * one that does not hold refuses the whole commit. This is what a distributed store can offer too
 * (get, compare-and-set, list), so nothing above knows SQL.
 *
 * The embedded engine is SQLite (WAL, synchronous FULL) behind a VFS on sys->fs. One writer groups
 * the commits that wait into one transaction.
 *
 * Threads: open, close and scan before the loops run or after; commit from one loop, the control loop;
 * done comes on it. */
#pragma once
#include "base/error.h"
#include "sys/sys.h"

struct weir_meta;

/* `path` below sys->fs, e.g. "meta.db". DAMAGED: the file is not sound. UNSUPPORTED: written by a newer
 * version. Migrates older schemas. */
enum weir_status weir_meta_open(struct weir_sys *sys, struct weir_loop *loop, const char *path,
                                struct weir_meta **out, struct weir_error *err);
/* Finishes what was committed. NULL is allowed. */
void weir_meta_close(struct weir_meta *meta);

/* Calls each for all rows whose key starts with `prefix`, in key order. Blocking. Returns the first
 * status of `each` that is not OK. */
enum weir_status weir_meta_scan(struct weir_meta *meta, const char *prefix,
                                enum weir_status (*each)(void *arg, const char *key,
                                                         struct weir_bytes value, uint64_t version),
                                void *arg, struct weir_error *err);

#define WEIR_META_ANY UINT64_MAX /* any version, also none */
#define WEIR_META_KEY_MAX 512
#define WEIR_META_VALUE_MAX (1024 * 1024)

struct weir_meta_op {
    char *key;                 /* copied by add */
    uint8_t *value;            /* NULL: delete */
    size_t value_len;
    uint64_t expect;           /* version it must have; 0: it must not exist; WEIR_META_ANY */
};

struct weir_meta_commit {
    /* OK: durable. FENCED: a version did not hold (failed_op says which), nothing was changed. IO,
     * NO_SPACE: nothing was changed. UNKNOWN: only a restart tells; the table takes no more. */
    void (*done)(struct weir_meta_commit *c, enum weir_status st);
    size_t failed_op;
    /* private; zero before the first add */
    struct weir_meta_op *ops;
    size_t count, capacity;
    bool no_memory;
    enum weir_status st;
    struct weir_list node;
};
/* Adds an operation; keys and values are copied. A failed allocation is reported by done. Each put makes
 * the row's version one more than it was. */
void weir_meta_put(struct weir_meta_commit *c, const char *key, struct weir_bytes value,
                   uint64_t expect);
void weir_meta_delete(struct weir_meta_commit *c, const char *key, uint64_t expect);
/* Queues it; `c` is the caller's again in done, where its operations are freed already. Commits are
 * applied in the order of these calls. */
void weir_meta_commit(struct weir_meta *meta, struct weir_meta_commit *c);
