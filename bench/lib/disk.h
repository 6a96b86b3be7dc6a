/* The disk's floor: a bare loop of pwrite and fdatasync into a file written beforehand. */
#pragma once
#include "bench/bench.h"
#include "bench/histogram.h"

struct weir_disk {
    int file;
    size_t size; /* written beforehand; the loop goes around in it */
    uint64_t at;
    uint8_t *block;
    size_t block_bytes;
};

void weir_disk_open(const struct weir_bench *b, size_t size, size_t block_bytes,
                    struct weir_disk *out);
void weir_disk_close(struct weir_disk *d);
/* One block, on disk when it returns. */
void weir_disk_write(struct weir_disk *d);
/* MB/s of blocks, for so many seconds. */
double weir_disk_flat_out(struct weir_disk *d, double seconds);
