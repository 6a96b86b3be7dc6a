#include "base/buffer.h"
#include "base/limits.h"
#include "sys/loop.h"
#include <criterion/criterion.h>
#include <stdlib.h>

/* Any size is served, aligned, with at least the room asked for. */
Test(buffer, has_the_room_asked_for)
{
    static const size_t sizes[] = {0,     1,      4096,    4097,    6144,    65536,
                                   65537, 260000, 1048576, 1048577, 13000000};
    size_t live, pooled;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct weir_buf *buf = weir_buf_new(sizes[i]);
        cr_assert(buf);
        cr_expect_geq(buf->capacity, sizes[i]);
        cr_expect_leq(buf->capacity, sizes[i] * 3 / 2 + 4096);
        cr_expect_eq((uintptr_t)buf->data % 64, 0);
        cr_expect_eq(buf->len, 0);
        memset(buf->data, 1, buf->capacity);
        weir_buf_unref(buf);
    }
    weir_buf_unref(NULL);
    weir_buf_usage(&live, &pooled);
    cr_expect_eq(live, 0);
    cr_expect_null(weir_buf_new(SIZE_MAX - 100));
}

/* A buffer lives until the last reference goes. */
Test(buffer, lives_until_the_last_unref)
{
    size_t live, pooled;
    struct weir_buf *buf = weir_buf_copy(weir_bytes_of("text"));
    cr_expect(weir_bytes_is(weir_buf_bytes(buf), "text"));
    cr_expect(weir_buf_is_sole(buf));
    cr_expect_eq(weir_buf_ref(buf), buf);
    cr_expect_not(weir_buf_is_sole(buf));
    weir_buf_unref(buf);
    cr_expect(weir_buf_is_sole(buf));
    weir_buf_usage(&live, &pooled);
    cr_expect_eq(live, buf->capacity);
    struct weir_slice slice = {buf, 1, 2};
    cr_expect(weir_bytes_is(weir_slice_bytes(slice), "ex"));
    weir_buf_unref(buf);
    weir_buf_usage(&live, &pooled);
    cr_expect_eq(live, 0);
}

static void
count_free(void *arg, uint8_t *data)
{
    (void)data;
    ++*(int *)arg;
}

/* Wrapped memory goes back to its owner, once. */
Test(buffer, gives_wrapped_memory_back)
{
    int freed = 0;
    uint8_t bytes[] = "mine";
    struct weir_buf *buf = weir_buf_wrap(bytes, 4, count_free, &freed);
    cr_expect_eq(buf->data, bytes);
    weir_buf_unref(weir_buf_ref(buf));
    cr_expect_eq(freed, 0);
    weir_buf_unref(buf);
    cr_expect_eq(freed, 1);
    weir_buf_unref(weir_buf_wrap(bytes, 4, NULL, NULL));
}

/* Skipped bytes are out of view, and back when the memory is used again. */
Test(buffer, skips_its_first_bytes)
{
    struct weir_buf *buf = weir_buf_copy(weir_bytes_of("headbody"));
    size_t capacity = buf->capacity, live, pooled;
    weir_buf_skip(buf, 4);
    cr_expect(weir_bytes_is(weir_buf_bytes(buf), "body"));
    cr_expect_eq(buf->capacity, capacity - 4);
    weir_buf_unref(buf);
    weir_buf_usage(&live, &pooled);
    cr_expect_eq(live, 0);
    buf = weir_buf_new(capacity);
    cr_expect_eq(buf->capacity, capacity);
    cr_expect_eq((uintptr_t)buf->data % 64, 0);
    weir_buf_unref(buf);
}

/* What the pool keeps is bounded, and trim gives it back. */
Test(buffer, pool_is_bounded)
{
    enum { COUNT = 100 };
    struct weir_buf *bufs[COUNT];
    size_t live, pooled;
    for (int i = 0; i < COUNT; i++)
        bufs[i] = weir_buf_new(WEIR_MIB);
    for (int i = 0; i < COUNT; i++)
        weir_buf_unref(bufs[i]);
    weir_buf_usage(&live, &pooled);
    cr_expect_eq(live, 0);
    cr_expect_leq(pooled, 64 * WEIR_MIB);
    weir_buf_trim();
    weir_buf_usage(&live, &pooled);
    cr_expect_eq(pooled, 0);
}

enum { SHARERS = 4, ROUNDS = 4000 };

struct sharer {
    struct weir_buf *shared;
    unsigned wrong;
};

static void
share(void *arg)
{
    struct sharer *sharer = arg;
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct weir_buf *own = weir_buf_new(1 + i % 9 * 3000);
        own->data[0] = (uint8_t)i;
        weir_buf_ref(sharer->shared);
        sharer->wrong += sharer->shared->data[0] != 's';
        sharer->wrong += own->data[0] != (uint8_t)i || !weir_buf_is_sole(own);
        weir_buf_unref(own);
        weir_buf_unref(sharer->shared);
    }
    weir_buf_unref(sharer->shared);
}

/* Threads share one buffer and take others from the pool at the same time. */
Test(buffer, is_shared_by_threads)
{
    struct sharer sharers[SHARERS] = {0};
    struct weir_thread *threads[SHARERS];
    size_t live, pooled;
    struct weir_buf *shared = weir_buf_copy(weir_bytes_of("shared"));
    for (int i = 0; i < SHARERS; i++) {
        sharers[i].shared = weir_buf_ref(shared);
        cr_assert_eq(weir_thread_start("sharer", share, &sharers[i], &threads[i]), WEIR_OK);
    }
    weir_buf_unref(shared);
    for (int i = 0; i < SHARERS; i++) {
        weir_thread_join(threads[i]);
        cr_expect_eq(sharers[i].wrong, 0u);
    }
    weir_buf_usage(&live, &pooled);
    cr_expect_eq(live, 0);
}
