/* The exporter: change records of a stream's shards into flat NDJSON objects, each change in
 * exactly one line of exactly one object, whatever is killed at whatever moment.
 *
 * Per shard:
 *
 *   records ──flatten──> part file ──size, time, end──> boundary [first, limit) decided:
 *      1  the part is completed and synced; its size and hashes are known
 *      2  the boundary is written to the boundary log and synced     <- the decision
 *      3  the object is published under the name that follows from the boundary
 *      4  `done` is logged, the part removed, the checkpoint at the broker moved to `limit`
 *
 * After a crash: before 2 nothing happened, reading starts again at `first`. After 2 the part is
 * there and whole (else the object is looked for, and where there is none the boundary is taken
 * back): step 3 is done again, with the same name and bytes. The boundary log, not the checkpoint,
 * is the truth.
 *
 * Records that are no change records go to an error object of the same boundary, as lines with the
 * raw data, where it stood, and why.
 *
 * The exporter knows shards, records and files. It does not know brokers: source.h feeds it.
 *
 * Threads: one. Calls block for as long as files and the destination take. */
#pragma once
#include "change/flatten.h"
#include "sink/destination.h"
#include "sys/sys.h"

struct weir_exporter;

struct weir_exporter_options {
    struct weir_sys *sys; /* sys->fs holds the state and the parts */
    const char *state;    /* directory below sys->fs, e.g. ".weir-export" */
    const char *stream;
    uint64_t stream_created_ms;           /* tells a stream from a later one of the same name */
    struct weir_destination *destination; /* kept */
    const char *prefix;                   /* of names, "" for none: "orders/" */
    const char *error_prefix;             /* NULL: "errors/" */
    uint64_t size_bytes;  /* close an object at this many bytes of lines: 64 KiB to 1 GiB */
    uint64_t interval_ms; /* or this long after its first record */
    bool gzip;
    struct weir_flatten_options flatten; /* seq and shard are filled in where asked for below */
    bool with_sequence, with_shard;
};

struct weir_exporter_numbers {
    uint64_t records, lines, errors, objects, error_objects, bytes_in, bytes_out, waiting;
    uint64_t gaps, gap_records, resumed, taken_back;
};

/* BUSY: another exporter has this state. Finishes what a crash left (publishes decided boundaries):
 * the destination's statuses mean try again later. DAMAGED: the boundary log is not sound. */
enum weir_status weir_exporter_open(const struct weir_exporter_options *options,
                                    struct weir_exporter **out, struct weir_error *err);
/* Parts that are not decided are left and will be made again. NULL is allowed. */
void weir_exporter_close(struct weir_exporter *e);

/* Where reading starts in a shard: the boundary log's word, else NOT_FOUND (the checkpoint's, or
 * where the user wants). */
enum weir_status weir_exporter_position(const struct weir_exporter *e, uint32_t shard,
                                        uint64_t *offset_out);
/* From now on the shard's export begins at `offset`, also after a restart; one that has begun is
 * left alone. The first record of a shard does the same. */
enum weir_status weir_exporter_start(struct weir_exporter *e, uint32_t shard, uint64_t offset,
                                     struct weir_error *err);
/* Calls each for every shard that the boundary log knows. */
void weir_exporter_each(const struct weir_exporter *e,
                        void (*each)(void *arg, uint32_t shard, uint64_t offset, bool ended),
                        void *arg);

struct weir_export_record {
    uint32_t shard;
    uint64_t offset, at_ms;
    const char *sequence; /* 56 digits */
    struct weir_bytes key, data;
};
/* Records of a shard come in order, without holes (INVALID) except after weir_exporter_gap. One
 * that lies before the shard's position is passed over. IO, NO_SPACE: nothing was taken, try again.
 */
enum weir_status weir_exporter_put(struct weir_exporter *e, const struct weir_export_record *record,
                                   struct weir_error *err);
/* Offsets up to `limit` are gone: the present object ends before them, and the gap is logged. */
enum weir_status weir_exporter_gap(struct weir_exporter *e, uint32_t shard, uint64_t first,
                                   uint64_t limit, struct weir_error *err);
/* The shard is closed and read to its end. */
enum weir_status weir_exporter_end(struct weir_exporter *e, uint32_t shard, struct weir_error *err);

/* Closes and publishes what is due by size or time (all: everything that has a record). For each
 * object that is there for good `published` is called, once per shard and boundary, before it
 * returns: the place for a checkpoint. A status of the destination leaves the boundary decided:
 * call again. */
enum weir_status weir_exporter_flush(struct weir_exporter *e, bool all,
                                     void (*published)(void *arg, uint32_t shard, uint64_t limit,
                                                       bool ended, const char *name),
                                     void *arg, struct weir_error *err);
/* Milliseconds until something is due by time, UINT64_MAX for nothing. */
uint64_t weir_exporter_due_ms(const struct weir_exporter *e);
/* Bytes of lines that wait in parts. */
void weir_exporter_get_numbers(const struct weir_exporter *e, struct weir_exporter_numbers *out);
