/* The boundary log: the decisions of an export, one line each, synced before they are acted on.
 *
 *   16 hex digits of XXH3-64 of the rest | ' ' | a JSON object | '\n'
 *
 *   {"stream":NAME,"created_ms":N}                       first line: what this is the export of
 *   {"decided":SHARD,"first":N,"limit":N,"objects":[{…}]}  these objects will hold these offsets
 *   {"done":SHARD,"limit":N}                             they are there for good
 *   {"back":SHARD,"first":N}                             taken back: nothing was published
 *   {"gap":SHARD,"first":N,"limit":N}                    the offsets were gone before they were
 * read
 *   {"ended":SHARD}                                      the closed shard was exported to its end
 *
 * A line that is cut at the end was never acted on and is dropped; a bad line before good ones is
 * damage. Opening rewrites the log to what still matters.
 *
 * Threads: one. */
#pragma once
#include "base/error.h"
#include "base/map.h"
#include "sys/fs.h"

#define WEIR_BOUNDARY_OBJECTS 2 /* lines, errors */

struct weir_boundary_object {
    char name[1024]; /* empty: there is none */
    uint64_t size;
    char sha256[65], md5[33];
};

struct weir_boundary_shard {
    uint32_t shard;
    bool pending, ended;
    uint64_t position;     /* next offset: all before it is done (or gone) */
    uint64_t first, limit; /* of the pending one; first == position, or beyond it after a gap */
    struct weir_boundary_object object[WEIR_BOUNDARY_OBJECTS];
};

struct weir_boundaries;

/* Reads `path`, or begins it. INVALID: it is the export of another stream (or one made anew under
 * the same name). DAMAGED. */
enum weir_status weir_boundaries_open(struct weir_fs *fs, const char *directory, const char *stream,
                                      uint64_t created_ms, struct weir_boundaries **out,
                                      struct weir_error *err);
void weir_boundaries_close(struct weir_boundaries *b);

/* NULL: not known. Valid until close. */
struct weir_boundary_shard *weir_boundaries_find(const struct weir_boundaries *b, uint32_t shard);
/* In no order: start with *cursor = 0. */
struct weir_boundary_shard *weir_boundaries_next(const struct weir_boundaries *b, size_t *cursor);

/* Each is durable when it returns OK; after a failure nothing has changed here, and on disk what
 * remains of the attempt is not believed. */
enum weir_status weir_boundaries_decide(struct weir_boundaries *b, uint32_t shard, uint64_t first,
                                        uint64_t limit, const struct weir_boundary_object *objects);
enum weir_status weir_boundaries_done(struct weir_boundaries *b, uint32_t shard);
enum weir_status weir_boundaries_take_back(struct weir_boundaries *b, uint32_t shard);
enum weir_status weir_boundaries_gap(struct weir_boundaries *b, uint32_t shard, uint64_t first,
                                     uint64_t limit);
enum weir_status weir_boundaries_end(struct weir_boundaries *b, uint32_t shard);
