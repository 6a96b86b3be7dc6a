/* Batches: what peek, check and admit believe, the reader must be able to walk. The first byte says
 * how much of the header is made right, so that the fuzzer gets past magic, sizes and checksums. */
#include "base/assert.h"
#include "record/batch.h"
#include "record/checksum.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { HEADER = sizeof(struct weir_batch_header) };
enum { FIX_MAGIC = 1, FIX_SIZE = 2, FIX_RAW_SIZE = 4, FIX_BROKER = 8, SEAL = 16 };

static void
repair(uint8_t *batch, size_t len, unsigned fix)
{
    struct weir_batch_header h;
    memcpy(&h, batch, sizeof h);
    if (fix & FIX_MAGIC)
        h.magic = weir_put32(WEIR_BATCH_MAGIC);
    if (fix & FIX_SIZE)
        h.size = weir_put32((uint32_t)len);
    if (fix & FIX_RAW_SIZE)
        h.raw_size = weir_put32((uint32_t)(len - HEADER));
    if (fix & FIX_BROKER) {
        h.flags = 0;
        h.offset = weir_put64(0);
        h.reserved = weir_put16(0);
    }
    uint32_t claimed = weir_get32(h.size);
    size_t body = claimed >= HEADER && claimed <= len ? claimed - HEADER : len - HEADER;
    h.body_hash = weir_put128(weir_checksum(weir_bytes(batch + HEADER, body)));
    memcpy(batch, &h, sizeof h);
    if (fix & SEAL && weir_get32(h.magic) == WEIR_BATCH_MAGIC) {
        struct weir_batch_seal seal = {
            .stream = 1, .shard = 2, .offset = weir_get64(h.offset), .flags = h.flags};
        weir_batch_seal(batch, &seal);
    }
}

static size_t
walk(struct weir_bytes batch, struct weir_scratch *scratch, enum weir_status *last)
{
    struct weir_batch_reader reader;
    struct weir_record record;
    size_t count = 0;
    *last = weir_batch_reader_init(&reader, batch, scratch);
    if (*last)
        return 0;
    uint64_t sum = 0;
    while (!(*last = weir_batch_reader_next(&reader, &record))) {
        count++;
        WEIR_ASSERT(record.key.len > 0);
        sum += record.key.data[record.key.len - 1];
        if (record.data.len)
            sum += record.data.data[record.data.len - 1];
    }
    return count + (sum == UINT64_MAX);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    unsigned fix = *data++;
    size--;
    uint8_t *copy = malloc(size + 1);
    WEIR_ASSERT(copy);
    memcpy(copy, data, size);
    if (fix && size >= HEADER)
        repair(copy, size, fix);

    struct weir_bytes batch = weir_bytes(copy, size);
    struct weir_scratch scratch = {0};
    struct weir_batch_info info;
    struct weir_error err = {0};
    enum weir_status last;
    if (!weir_batch_peek(batch, &info)) {
        WEIR_ASSERT(info.size <= size);
        WEIR_ASSERT(info.count <= WEIR_BATCH_RECORDS_MAX);
        (void)!weir_batch_check_header(batch, &info);
        if (!weir_batch_check(batch, &info) && info.flags == WEIR_BATCH_STATE)
            (void)weir_batch_trimmed_before(copy);
        size_t walked = walk(batch, &scratch, &last);
        WEIR_ASSERT(walked <= info.count);
    }
    if (!weir_batch_admit(batch, 1 << 20, &scratch, &info, &err)) {
        size_t walked = walk(batch, &scratch, &last);
        WEIR_ASSERT(walked == info.count);
        WEIR_ASSERT(last == WEIR_END);
    } else {
        WEIR_ASSERT(err.text[0]);
    }
    WEIR_ASSERT(scratch.capacity <= 2 * WEIR_BATCH_BODY_RAW_MAX);
    weir_scratch_fini(&scratch);
    free(copy);
    return 0;
}
