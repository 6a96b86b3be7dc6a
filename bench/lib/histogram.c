#include "bench/histogram.h"
#include <math.h>

/* Values below 128 have a bucket each; above, each power of two has 128 of equal width. */
static unsigned
bucket_of(uint64_t value)
{
    if (value < 128)
        return (unsigned)value;
    unsigned shift = 63 - (unsigned)__builtin_clzll(value) - 7;
    return (shift + 1) * 128 + (unsigned)((value >> shift) & 127);
}

static double
middle_of(unsigned bucket)
{
    if (bucket < 128)
        return bucket;
    unsigned shift = bucket / 128 - 1;
    return ldexp(128.0 + bucket % 128 + 0.5, (int)shift);
}

void
weir_histogram_add(struct weir_histogram *h, uint64_t value_ns)
{
    h->bucket[bucket_of(value_ns)]++;
    h->count++;
}

void
weir_histogram_merge(struct weir_histogram *into, const struct weir_histogram *from)
{
    for (unsigned i = 0; i < WEIR_HISTOGRAM_BUCKETS; i++)
        into->bucket[i] += from->bucket[i];
    into->count += from->count;
}

double
weir_histogram_at(const struct weir_histogram *h, double share)
{
    uint64_t wanted = (uint64_t)ceil(share * (double)h->count), seen = 0;
    for (unsigned i = 0; i < WEIR_HISTOGRAM_BUCKETS && h->count; i++) {
        seen += h->bucket[i];
        if (seen >= wanted)
            return middle_of(i);
    }
    return 0;
}
