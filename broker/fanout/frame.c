#include "fanout/frame.h"
#include "base/assert.h"

static bool
is_beside(struct weir_slice a, struct weir_slice b)
{
    return a.buf == b.buf && a.off + a.len == b.off;
}

/* The first batch that is not in the frame, and how many pieces it makes. */
static uint32_t
choose(const struct weir_run *run, uint32_t from, const struct weir_frame_limit *limit,
       bool may_gather, struct weir_frame_cut *cut, uint32_t *pieces_out)
{
    uint32_t to = from, pieces = 0;
    uint64_t bytes = 0;
    for (; to < run->count; to++) {
        cut->until = (limit->until_offset && run->batch[to].first >= limit->until_offset) ||
                     (limit->until_ms && run->batch[to].at_ms >= limit->until_ms);
        if (cut->until)
            break;
        uint64_t total = bytes + run->batch[to].slice.len;
        if (to > from && total > limit->bytes)
            break;
        if (total > limit->credit && !(to == from && limit->force))
            break;
        bool beside = to > from && is_beside(run->batch[to - 1].slice, run->batch[to].slice);
        uint32_t more = pieces + (beside ? 0 : 1);
        if (more > WEIR_DELIVERY_SLICES_MAX && (!may_gather || total > WEIR_FRAME_GATHER_MAX))
            break;
        pieces = more;
        bytes = total;
    }
    *pieces_out = pieces;
    cut->delivery.bytes = bytes;
    return to;
}

static bool
gather(const struct weir_run *run, uint32_t from, struct weir_frame_cut *cut)
{
    struct weir_buf *buf = weir_buf_new(cut->delivery.bytes);
    if (!buf)
        return false;
    for (uint32_t i = from; i < cut->to; i++) {
        struct weir_bytes bytes = weir_slice_bytes(run->batch[i].slice);
        memcpy(buf->data + buf->len, bytes.data, bytes.len);
        buf->len += bytes.len;
    }
    cut->gathered = buf;
    cut->piece[0] = (struct weir_slice){buf, 0, buf->len};
    cut->delivery.count = 1;
    return true;
}

static void
share(const struct weir_run *run, uint32_t from, struct weir_frame_cut *cut)
{
    uint32_t count = 0;
    for (uint32_t i = from; i < cut->to; i++) {
        struct weir_slice slice = run->batch[i].slice;
        if (i > from && is_beside(run->batch[i - 1].slice, slice)) {
            cut->piece[count - 1].len += slice.len;
            continue;
        }
        WEIR_ASSERT(count < WEIR_DELIVERY_SLICES_MAX);
        cut->piece[count++] = slice;
    }
    cut->delivery.count = count;
}

void
weir_frame_cut(const struct weir_run *run, uint32_t from, const struct weir_frame_limit *limit,
               struct weir_frame_cut *cut)
{
    uint32_t pieces;
    cut->gathered = NULL;
    cut->delivery = (struct weir_delivery){.batch = cut->piece};
    cut->to = choose(run, from, limit, true, cut, &pieces);
    if (cut->to == from)
        return;
    if (pieces > WEIR_DELIVERY_SLICES_MAX && !gather(run, from, cut))
        cut->to = choose(run, from, limit, false, cut, &pieces);
    if (!cut->gathered)
        share(run, from, cut);

    struct weir_delivery *d = &cut->delivery;
    d->first = run->batch[from].first;
    d->next = run->batch[cut->to - 1].first + run->batch[cut->to - 1].records;
    for (uint32_t i = from; i < cut->to; i++)
        d->records += run->batch[i].records;
}

void
weir_frame_cut_fini(struct weir_frame_cut *cut)
{
    weir_buf_unref(cut->gathered);
    cut->gathered = NULL;
}
