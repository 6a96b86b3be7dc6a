/* Counts of durations, fine enough for ratios: buckets are less than 0.8 % wide.
 *
 * Threads: one at a time. */
#pragma once
#include <stdint.h>

#define WEIR_HISTOGRAM_BUCKETS (58 * 128)

struct weir_histogram {
    uint64_t count;
    uint64_t bucket[WEIR_HISTOGRAM_BUCKETS];
};

void weir_histogram_add(struct weir_histogram *h, uint64_t value_ns);
void weir_histogram_merge(struct weir_histogram *into, const struct weir_histogram *from);
/* The value that `share` (0 to 1) of all stay at or below, in ns; 0 where there are none. */
double weir_histogram_at(const struct weir_histogram *h, double share);
