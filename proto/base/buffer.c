/* Where buffers come from and go to.
 *
 *   new:   a stripe of the size class --empty--> the other stripes --empty--> the allocator
 *   unref: a stripe of the size class --pool full--> the allocator
 *
 * A stripe is a stack behind a flag. A thread that finds the flag taken goes on to the next stripe
 * and in the end to the allocator: nobody ever waits for anybody. The header lies in front of the
 * bytes, in the same allocation. */
#include "base/buffer.h"
#include "base/assert.h"
#include "base/limits.h"
#include <stdlib.h>

/* 4, 6, 8, 12, 16, ... 768, 1024 KiB. */
#define CLASSES 17
#define STRIPES 4
#define KLASS_LARGE 100
#define KLASS_WRAPPED 101
#define HEADER 64

static_assert(sizeof(struct weir_buf) <= HEADER, "the header must leave the bytes aligned");

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WATCHED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define WATCHED 1
#endif

#if defined(WATCHED)
/* Memory that is kept hides its misuse from the sanitizer. */
#define KEEP_BYTES_MAX 0
#else
#define KEEP_BYTES_MAX (64 * WEIR_MIB)
#endif

struct stripe {
    _Alignas(64) atomic_flag taken;
    struct weir_buf *top[CLASSES]; /* under taken; linked through free_arg */
};

/* Shared by all threads of the process: buffers travel between every two of them. */
static struct stripe stripes[STRIPES];
static _Alignas(64) atomic_size_t live_total;
static _Alignas(64) atomic_size_t pooled_total;

static size_t
class_bytes(unsigned klass)
{
    return (klass % 2 ? 6 * WEIR_KIB : 4 * WEIR_KIB) << klass / 2;
}

static unsigned
class_of(size_t capacity)
{
    unsigned klass = 0;
    while (klass < CLASSES && class_bytes(klass) < capacity)
        klass++;
    return klass < CLASSES ? klass : KLASS_LARGE;
}

/* Threads start at different stripes: the address of a thread's own variable tells them apart. */
static unsigned
first_stripe(void)
{
    static _Thread_local char here;
    return (unsigned)((uintptr_t)&here >> 12) % STRIPES;
}

static struct stripe *
try_stripe(unsigned index)
{
    struct stripe *stripe = &stripes[index % STRIPES];
    return atomic_flag_test_and_set_explicit(&stripe->taken, memory_order_acquire) ? NULL : stripe;
}

static void
leave_stripe(struct stripe *stripe)
{
    atomic_flag_clear_explicit(&stripe->taken, memory_order_release);
}

static struct weir_buf *
pool_get(unsigned klass)
{
    unsigned first = first_stripe();
    for (unsigned i = 0; i < STRIPES; i++) {
        struct stripe *stripe = try_stripe(first + i);
        if (!stripe)
            continue;
        struct weir_buf *buf = stripe->top[klass];
        if (buf)
            stripe->top[klass] = buf->free_arg;
        leave_stripe(stripe);
        if (buf) {
            atomic_fetch_sub_explicit(&pooled_total, buf->capacity, memory_order_relaxed);
            return buf;
        }
    }
    return NULL;
}

static bool
pool_put(struct weir_buf *buf)
{
    size_t before = atomic_fetch_add_explicit(&pooled_total, buf->capacity, memory_order_relaxed);
    if (before + buf->capacity <= KEEP_BYTES_MAX) {
        unsigned first = first_stripe();
        for (unsigned i = 0; i < STRIPES; i++) {
            struct stripe *stripe = try_stripe(first + i);
            if (!stripe)
                continue;
            buf->free_arg = stripe->top[buf->klass];
            stripe->top[buf->klass] = buf;
            leave_stripe(stripe);
            return true;
        }
    }
    atomic_fetch_sub_explicit(&pooled_total, buf->capacity, memory_order_relaxed);
    return false;
}

static struct weir_buf *
start(struct weir_buf *buf)
{
    buf->len = 0;
    buf->free_fn = NULL;
    buf->free_arg = NULL;
    atomic_store_explicit(&buf->refs, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&live_total, buf->capacity, memory_order_relaxed);
    return buf;
}

struct weir_buf *
weir_buf_new(size_t capacity)
{
    unsigned klass = class_of(capacity);
    if (klass == KLASS_LARGE) {
        if (capacity > SIZE_MAX / 2)
            return NULL;
        capacity = (capacity + HEADER - 1) / HEADER * HEADER;
    } else {
        struct weir_buf *kept = pool_get(klass);
        if (kept)
            return start(kept);
        capacity = class_bytes(klass);
    }
    struct weir_buf *buf = aligned_alloc(HEADER, HEADER + capacity);
    if (!buf)
        return NULL;
    *buf = (struct weir_buf){.klass = klass, .capacity = capacity};
    buf->data = (uint8_t *)buf + HEADER;
    return start(buf);
}

struct weir_buf *
weir_buf_wrap(uint8_t *data, size_t len, void (*free_fn)(void *arg, uint8_t *data), void *arg)
{
    struct weir_buf *buf = aligned_alloc(HEADER, HEADER);
    if (!buf)
        return NULL;
    *buf = (struct weir_buf){.klass = KLASS_WRAPPED, .capacity = len, .data = data};
    start(buf);
    buf->len = len;
    buf->free_fn = free_fn;
    buf->free_arg = arg;
    return buf;
}

struct weir_buf *
weir_buf_copy(struct weir_bytes bytes)
{
    struct weir_buf *buf = weir_buf_new(bytes.len);
    if (!buf)
        return NULL;
    if (bytes.len)
        memcpy(buf->data, bytes.data, bytes.len);
    buf->len = bytes.len;
    return buf;
}

struct weir_buf *
weir_buf_ref(struct weir_buf *buf)
{
    unsigned before = atomic_fetch_add_explicit(&buf->refs, 1, memory_order_relaxed);
    WEIR_ASSERT(before > 0 && before < UINT32_MAX);
    return buf;
}

void
weir_buf_unref(struct weir_buf *buf)
{
    if (!buf)
        return;
    unsigned before = atomic_fetch_sub_explicit(&buf->refs, 1, memory_order_acq_rel);
    WEIR_ASSERT(before > 0);
    if (before > 1)
        return;
    if (buf->klass != KLASS_WRAPPED) {
        /* What skip left out is there again. */
        size_t skipped = (size_t)(buf->data - ((uint8_t *)buf + HEADER));
        buf->data -= skipped;
        buf->capacity += skipped;
    }
    atomic_fetch_sub_explicit(&live_total, buf->capacity, memory_order_relaxed);
    if (buf->klass < CLASSES && pool_put(buf))
        return;
    if (buf->free_fn)
        buf->free_fn(buf->free_arg, buf->data);
    free(buf);
}

bool
weir_buf_is_sole(const struct weir_buf *buf)
{
    return atomic_load_explicit(&buf->refs, memory_order_acquire) == 1;
}

void
weir_buf_skip(struct weir_buf *buf, size_t count)
{
    WEIR_ASSERT(weir_buf_is_sole(buf));
    WEIR_ASSERT(buf->klass != KLASS_WRAPPED);
    WEIR_ASSERT(count <= buf->len);
    buf->data += count;
    buf->len -= count;
    buf->capacity -= count;
}

void
weir_buf_usage(size_t *live_bytes, size_t *pooled_bytes)
{
    *live_bytes = atomic_load_explicit(&live_total, memory_order_relaxed);
    *pooled_bytes = atomic_load_explicit(&pooled_total, memory_order_relaxed);
}

void
weir_buf_trim(void)
{
    for (unsigned klass = 0; klass < CLASSES; klass++) {
        struct weir_buf *buf;
        while ((buf = pool_get(klass)))
            free(buf);
    }
}
