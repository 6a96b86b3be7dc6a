#include "fanout/frame.h"
#include <criterion/criterion.h>

/* `count` batches of `size` bytes and 10 records each; each in a buffer of its own, or all in one.
 */
static void
fill(struct weir_run *run, uint32_t count, size_t size, bool together)
{
    memset(run, 0, sizeof *run);
    struct weir_buf *all = together ? weir_buf_new(count * size) : NULL;
    for (uint32_t i = 0; i < count; i++) {
        struct weir_buf *buf = together ? all : weir_buf_new(size);
        size_t off = together ? i * size : 0;
        memset(buf->data + off, 'a' + (int)(i % 26), size);
        buf->len = off + size;
        run->batch[i].slice = (struct weir_slice){together ? weir_buf_ref(buf) : buf, off, size};
        run->batch[i].first = 100 + 10 * i;
        run->batch[i].records = 10;
        run->batch[i].at_ms = 1000 + i;
        run->bytes += size;
    }
    weir_buf_unref(all);
    run->count = count;
    run->first = 100;
    run->limit = 100 + 10 * count;
}

static void
clear(struct weir_run *run)
{
    for (uint32_t i = 0; i < run->count; i++)
        weir_buf_unref(run->batch[i].slice.buf);
}

static const struct weir_frame_limit any = {.bytes = UINT64_MAX, .credit = UINT64_MAX};

/* A few batches go out as they lie: the same buffers, nothing copied. */
Test(frame, shares_the_buffers_of_a_few_batches)
{
    static struct weir_run run;
    struct weir_frame_cut cut;
    fill(&run, 4, 1000, false);
    weir_frame_cut(&run, 1, &any, &cut);
    cr_assert_eq(cut.to, 4);
    cr_assert_eq(cut.delivery.count, 3);
    cr_assert_eq(cut.delivery.batch[0].buf, run.batch[1].slice.buf);
    cr_assert_eq(cut.delivery.first, 110);
    cr_assert_eq(cut.delivery.next, 140);
    cr_assert_eq(cut.delivery.records, 30);
    cr_assert_eq(cut.delivery.bytes, 3000);
    weir_frame_cut_fini(&cut);
    clear(&run);
}

/* Batches side by side in one buffer are one piece, however many. */
Test(frame, joins_neighbours)
{
    static struct weir_run run;
    struct weir_frame_cut cut;
    fill(&run, 60, 1000, true);
    weir_frame_cut(&run, 0, &any, &cut);
    cr_assert_eq(cut.to, 60);
    cr_assert_eq(cut.delivery.count, 1);
    cr_assert_eq(cut.delivery.batch[0].buf, run.batch[0].slice.buf);
    cr_assert_eq(cut.delivery.batch[0].len, 60000);
    weir_frame_cut_fini(&cut);
    clear(&run);
}

/* Many small batches of buffers of their own are copied together, in order. */
Test(frame, gathers_many_small_batches)
{
    static struct weir_run run;
    struct weir_frame_cut cut;
    fill(&run, 60, 1000, false);
    weir_frame_cut(&run, 0, &any, &cut);
    cr_assert_eq(cut.to, 60);
    cr_assert_eq(cut.delivery.count, 1);
    struct weir_bytes bytes = weir_slice_bytes(cut.delivery.batch[0]);
    cr_assert_eq(bytes.len, 60000);
    for (uint32_t i = 0; i < 60; i++)
        cr_assert_eq(bytes.data[i * 1000 + 999], 'a' + i % 26);
    weir_frame_cut_fini(&cut);
    clear(&run);
}

/* Large ones are never copied: the frame ends with its pieces. */
Test(frame, does_not_copy_large_batches)
{
    static struct weir_run run;
    struct weir_frame_cut cut;
    fill(&run, 10, 100000, false);
    weir_frame_cut(&run, 0, &any, &cut);
    cr_assert_eq(cut.to, WEIR_DELIVERY_SLICES_MAX);
    cr_assert_eq(cut.delivery.count, WEIR_DELIVERY_SLICES_MAX);
    cr_assert_null(cut.gathered);
    weir_frame_cut_fini(&cut);
    clear(&run);
}

/* The aim is not passed, but for one batch that is larger alone. */
Test(frame, keeps_its_aim)
{
    static struct weir_run run;
    struct weir_frame_cut cut;
    fill(&run, 5, 1000, false);
    struct weir_frame_limit limit = {.bytes = 2999, .credit = UINT64_MAX};
    weir_frame_cut(&run, 0, &limit, &cut);
    cr_assert_eq(cut.to, 2);
    limit.bytes = 10;
    weir_frame_cut(&run, 0, &limit, &cut);
    cr_assert_eq(cut.to, 1);
    clear(&run);
}

/* Credit is never passed, but for one batch by force. */
Test(frame, keeps_the_credit)
{
    static struct weir_run run;
    struct weir_frame_cut cut;
    fill(&run, 5, 1000, false);
    struct weir_frame_limit limit = {.bytes = UINT64_MAX, .credit = 3000};
    weir_frame_cut(&run, 0, &limit, &cut);
    cr_assert_eq(cut.to, 3);
    limit.credit = 999;
    weir_frame_cut(&run, 0, &limit, &cut);
    cr_assert_eq(cut.delivery.count, 0);
    cr_assert(!cut.until);
    limit.force = true;
    weir_frame_cut(&run, 0, &limit, &cut);
    cr_assert_eq(cut.to, 1);
    clear(&run);
}

/* No batch that starts at or after `until` goes out, by offset or by time. */
Test(frame, ends_before_until)
{
    static struct weir_run run;
    struct weir_frame_cut cut;
    fill(&run, 5, 1000, false);
    struct weir_frame_limit limit = any;
    limit.until_offset = 121;
    weir_frame_cut(&run, 0, &limit, &cut);
    cr_assert_eq(cut.to, 3); /* the third starts at 120 */
    cr_assert(cut.until);
    limit.until_offset = 100;
    weir_frame_cut(&run, 0, &limit, &cut);
    cr_assert_eq(cut.delivery.count, 0);
    cr_assert(cut.until);
    limit.until_offset = 0;
    limit.until_ms = 1002;
    weir_frame_cut(&run, 0, &limit, &cut);
    cr_assert_eq(cut.to, 2);
    clear(&run);
}
