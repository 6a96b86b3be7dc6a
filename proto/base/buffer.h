/* A counted block of bytes that many subscribers share.
 *
 * Whoever holds the only reference may write; once a second one exists the bytes are immutable.
 * References are counted atomically: any thread may ref and unref. The memory comes from a pool of
 * size classes per process (4 KiB to 1 MiB) or, above that, from the allocator. */
#pragma once
#include "base/bytes.h"
#include "base/status.h"
#include <stdatomic.h>

struct weir_buf {
    atomic_uint refs;
    uint32_t klass;  /* pool class; private */
    size_t capacity; /* bytes at data */
    size_t len;      /* bytes in use; set by the writer before it shares */
    uint8_t *data;   /* 64-byte aligned, until skip */
    void (*free_fn)(void *arg, uint8_t *data); /* for wrapped memory, else NULL */
    void *free_arg;
};

/* At least `capacity` bytes, not zeroed; one reference, the caller's. NULL when out of memory. */
struct weir_buf *weir_buf_new(size_t capacity);
/* Wraps memory of another owner; `free_fn` (or NULL) is called once with it after the last unref,
 * on the thread that let go last. */
struct weir_buf *weir_buf_wrap(uint8_t *data, size_t len, void (*free_fn)(void *arg, uint8_t *data),
                               void *arg);
/* A new buffer with a copy of the bytes. */
struct weir_buf *weir_buf_copy(struct weir_bytes bytes);
struct weir_buf *weir_buf_ref(struct weir_buf *buf);
/* NULL is allowed. */
void weir_buf_unref(struct weir_buf *buf);
/* True when the caller holds the only reference. */
bool weir_buf_is_sole(const struct weir_buf *buf);
/* Leaves the first `count` bytes out: `data` is that much further on, so that what lies behind a
 * header becomes a buffer of its own without a copy. The sole holder's, not of wrapped memory. */
void weir_buf_skip(struct weir_buf *buf, size_t count);
static inline struct weir_bytes
weir_buf_bytes(const struct weir_buf *buf)
{
    return weir_bytes(buf->data, buf->len);
}
/* Bytes that all live buffers of this process hold, and that the pool keeps for reuse. */
void weir_buf_usage(size_t *live_bytes, size_t *pooled_bytes);
/* Gives the pool's unused memory back. */
void weir_buf_trim(void);

/* A piece of a shared buffer. Owns one reference where a header says so. */
struct weir_slice {
    struct weir_buf *buf;
    size_t off, len;
};
static inline struct weir_bytes
weir_slice_bytes(struct weir_slice s)
{
    return weir_bytes(s.buf->data + s.off, s.len);
}
