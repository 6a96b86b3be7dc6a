/* The look at SQLite's log. A first byte of odd value: what follows is the file as it is. Even:
 * what follows are frames of 32 bytes, which the target seals into a log of small pages, all but
 * those whose first byte says no. A log that was found good is good when it is looked at again, and
 * is not cut twice. */
#include "base/assert.h"
#include "base/le.h"
#include "meta/wal.h"
#include "sys/memfs.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { PAGE = 512, FRAME = 24 + PAGE, SEED = 32, FRAMES_MAX = 64 };

static void
sum_on(uint32_t sum[2], const uint8_t *data, size_t len)
{
    for (size_t i = 0; i < len; i += 8) {
        sum[0] += weir_load_be32(data + i) + sum[1];
        sum[1] += weir_load_be32(data + i + 4) + sum[0];
    }
}

static void
store_sum(uint8_t *at, const uint32_t sum[2])
{
    weir_store_be32(at, sum[0]);
    weir_store_be32(at + 4, sum[1]);
}

static size_t
seal(const uint8_t *data, size_t size, uint8_t *out)
{
    uint32_t sum[2] = {0};
    weir_store_be32(out, 0x377f0683);
    weir_store_be32(out + 4, 3007000);
    weir_store_be32(out + 8, PAGE);
    sum_on(sum, out, 24);
    store_sum(out + 24, sum);
    size_t len = 32;
    for (size_t i = 0; (i + 1) * SEED <= size && i < FRAMES_MAX; i++, len += FRAME) {
        const uint8_t *seed = data + i * SEED;
        uint8_t *frame = out + len;
        frame[7] = seed[1] & 1; /* a commit */
        frame[15] = seed[1] == 0xff;
        memcpy(frame + 24, seed + 2, SEED - 2);
        sum_on(sum, frame, 8);
        sum_on(sum, frame + 24, PAGE);
        store_sum(frame + 16, sum);
        if (seed[0] == 0xee)
            frame[24] ^= 1;
    }
    return len;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    uint8_t *sealed = calloc(1, 32 + (size_t)FRAMES_MAX * FRAME);
    WEIR_ASSERT(sealed);
    size_t len = size - 1;
    const uint8_t *bytes = data + 1;
    if (data[0] % 2 == 0) {
        len = seal(bytes, len, sealed);
        bytes = sealed;
    }

    struct weir_memfs *disk = weir_memfs_new();
    struct weir_fs *fs = weir_memfs_fs(disk);
    struct weir_file *f;
    WEIR_ASSERT(weir_fs_open(fs, "log", WEIR_OPEN_WRITE | WEIR_OPEN_CREATE, &f) == WEIR_OK);
    WEIR_ASSERT(weir_file_pwrite(f, bytes, len, 0) == WEIR_OK);
    weir_file_close(f);

    enum weir_status st = weir_meta_wal_check(fs, "log", NULL);
    WEIR_ASSERT(st == WEIR_OK || st == WEIR_DAMAGED);
    uint64_t first, second;
    WEIR_ASSERT(weir_memfs_size(disk, "log", &first) == WEIR_OK);
    WEIR_ASSERT(st == WEIR_OK || first == len);
    WEIR_ASSERT(weir_meta_wal_check(fs, "log", NULL) == st);
    WEIR_ASSERT(weir_memfs_size(disk, "log", &second) == WEIR_OK);
    WEIR_ASSERT(first == second);
    weir_memfs_free(disk);
    free(sealed);
    return 0;
}
