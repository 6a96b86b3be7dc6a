#include "bench/disk.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void
write_at(int file, const uint8_t *bytes, size_t len, uint64_t at)
{
    while (len > 0) {
        ssize_t n = pwrite(file, bytes, len, (off_t)at);
        if (n <= 0)
            weir_bench_die("cannot write the floor's file: %s", strerror(errno));
        bytes += n;
        len -= (size_t)n;
        at += (uint64_t)n;
    }
}

void
weir_disk_open(const struct weir_bench *b, size_t size, size_t block_bytes, struct weir_disk *out)
{
    char path[PATH_MAX];
    weir_bench_path(b, "floor", path);
    *out = (struct weir_disk){.size = size - size % block_bytes, .block_bytes = block_bytes};
    out->file = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    out->block = malloc(block_bytes);
    if (out->file < 0 || !out->block)
        weir_bench_die("cannot make '%s': %s", path, strerror(errno));
    weir_bench_noise(out->block, block_bytes, 1);
    for (uint64_t at = 0; at < out->size; at += block_bytes)
        write_at(out->file, out->block, block_bytes, at);
    if (fsync(out->file))
        weir_bench_die("cannot sync '%s': %s", path, strerror(errno));
    unlink(path);
}

void
weir_disk_close(struct weir_disk *d)
{
    close(d->file);
    free(d->block);
}

void
weir_disk_write(struct weir_disk *d)
{
    write_at(d->file, d->block, d->block_bytes, d->at);
    if (fdatasync(d->file))
        weir_bench_die("cannot sync the floor's file: %s", strerror(errno));
    d->at = (d->at + d->block_bytes) % d->size;
}

double
weir_disk_flat_out(struct weir_disk *d, double seconds)
{
    uint64_t start_ns = weir_bench_now_ns(), now_ns = start_ns, bytes = 0;
    do {
        weir_disk_write(d);
        bytes += d->block_bytes;
        now_ns = weir_bench_now_ns();
    } while ((double)(now_ns - start_ns) < seconds * 1e9);
    return (double)bytes * 1e3 / (double)(now_ns - start_ns);
}
