/* One data frame out of a run of batches.
 *
 * A frame has at most WEIR_DELIVERY_SLICES_MAX pieces, so that a door can send it with one system
 * call and without a look at it. Batches that lie side by side in one buffer are one piece; many
 * small ones are copied together once, and the copy is shared like any other buffer. One thread. */
#pragma once
#include "fanout/fanout.h"

/* What is copied together at most; also what is gathered at the tip before it is sent. */
#define WEIR_FRAME_GATHER_MAX (256 * WEIR_KIB)

struct weir_frame_limit {
    uint64_t bytes;  /* aim of one frame; one batch may be larger */
    uint64_t credit; /* one batch may be larger where `force` */
    bool force;
    uint64_t until_offset, until_ms; /* no batch that starts there; 0: none */
};

struct weir_frame_cut {
    uint32_t to;                   /* index of the first batch that is not in it */
    bool until;                    /* `until` keeps out the batch `to` */
    struct weir_delivery delivery; /* tail and lag_ms are the caller's to fill in */
    struct weir_slice piece[WEIR_DELIVERY_SLICES_MAX];
    struct weir_buf *gathered; /* private */
};

/* Cuts a frame from batch `from` on. delivery.count 0: nothing fits (or `until`). The slices are
 * borrowed from the run, or from the cut itself: let go with weir_frame_cut_fini. */
void weir_frame_cut(const struct weir_run *run, uint32_t from, const struct weir_frame_limit *limit,
                    struct weir_frame_cut *out);
void weir_frame_cut_fini(struct weir_frame_cut *cut);
