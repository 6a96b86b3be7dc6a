/* Where objects go: a directory (the embedded default) or S3-compatible storage.
 *
 * An object is published whole or not at all, under a name that is decided before. Publishing the
 * same bytes under the same name twice is one object.
 *
 * Threads: one at a time per destination. Calls block. */
#pragma once
#include "base/error.h"
#include "sys/fs.h"

struct weir_destination;

struct weir_object {
    const char *name;             /* "orders/2026/11/28/09/orders-….ndjson" */
    const char *content_type;     /* "application/x-ndjson" */
    const char *content_encoding; /* "gzip" or NULL */
    const char *sha256;           /* 64 hex digits, of the file's bytes */
    const char *md5;              /* 32 hex digits, likewise */
    uint64_t size;
};

struct weir_destination_ops {
    /* Publishes the file `part` of `fs` (complete, synced). OK: it is there for good, also when it
     * had been there with the same bytes. EXISTS: the name is taken by other bytes. UNAVAILABLE,
     * TIMEOUT, IO, NO_SPACE, THROTTLED: try again. DENIED, NOT_FOUND: the destination refuses us or
     * is not there; somebody must act. */
    enum weir_status (*publish)(struct weir_destination *d, struct weir_fs *fs, const char *part,
                                const struct weir_object *object, struct weir_error *err);
    /* OK: an object of that name and size is there. NOT_FOUND, or as above. */
    enum weir_status (*look)(struct weir_destination *d, const struct weir_object *object,
                             struct weir_error *err);
    void (*close)(struct weir_destination *d);
};

struct weir_destination {
    const struct weir_destination_ops *ops;
};

static inline void
weir_destination_close(struct weir_destination *d)
{
    if (d)
        d->ops->close(d);
}

/* Objects become files below the root of `fs`, which is kept; names may contain '/'. Parts must be
 * in the same `fs`: publishing is a rename. */
enum weir_status weir_destination_directory(struct weir_fs *fs, struct weir_destination **out);

struct weir_s3_options {
    const char *endpoint; /* "https://s3.eu-central-1.amazonaws.com", "http://127.0.0.1:4568" */
    const char *bucket;
    const char *region;        /* NULL: us-east-1 */
    const char *access_key;    /* NULL: $AWS_ACCESS_KEY_ID */
    const char *secret_key;    /* NULL: $AWS_SECRET_ACCESS_KEY */
    const char *session_token; /* NULL: $AWS_SESSION_TOKEN, where the key comes from there too */
    const char *ca_file;       /* PEM, NULL: the system's */
    bool virtual_host;         /* bucket in the host name; else in the path */
    bool no_conditional;       /* the store has no If-None-Match: same name, same bytes will do */
    uint32_t timeout_ms;       /* without progress, 0: 30,000 */
};
/* INVALID: a setting is missing or wrong; the text says which. */
enum weir_status weir_destination_s3(const struct weir_s3_options *options,
                                     struct weir_destination **out, struct weir_error *err);
