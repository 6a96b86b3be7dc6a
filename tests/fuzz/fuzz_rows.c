/* The rows of catalog and checkpoints: a byte that picks the kind, the key, a zero, the value. What
 * decodes encodes to the same key and bytes. */
#include "base/assert.h"
#include "lease/row.h"
#include "stream/row.h"
#include <stdlib.h>
#include <strings.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
expect_same(const char *key, const char *key_again, struct weir_bytes value,
            struct weir_bytes again)
{
    /* Hex digits are read in both cases and written in one. */
    WEIR_ASSERT(strcasecmp(key, key_again) == 0);
    WEIR_ASSERT(weir_bytes_equal(value, again));
}

static void
check_stream(const char *key, struct weir_bytes value)
{
    struct weir_stream s;
    struct weir_disk_stream row;
    char again[WEIR_ROW_KEY_MAX];
    if (weir_row_stream_decode(key, value, &s))
        return;
    weir_row_stream_key(s.name, again);
    weir_row_stream_encode(&s, &row);
    expect_same(key, again, value, weir_bytes(&row, sizeof row));
}

static void
check_shard(const char *key, struct weir_bytes value)
{
    uint64_t stream;
    struct weir_shard shard;
    struct weir_disk_shard row;
    char again[WEIR_ROW_KEY_MAX];
    if (weir_row_shard_decode(key, value, &stream, &shard))
        return;
    weir_row_shard_key(stream, shard.index, again);
    weir_row_shard_encode(&shard, &row);
    expect_same(key, again, value, weir_bytes(&row, sizeof row));
}

static void
check_lease(const char *key, struct weir_bytes value)
{
    struct weir_checkpoint_row lease;
    struct weir_lease_row_bytes row;
    char again[WEIR_LEASE_KEY_MAX];
    if (weir_lease_row_decode(key, value, &lease))
        return;
    weir_lease_key(lease.stream, weir_bytes_of(lease.consumer), lease.shard, again);
    expect_same(key, again, value, weir_bytes(&row, weir_lease_row_encode(&lease, &row)));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *end = size > 1 ? memchr(data + 1, 0, size - 1) : NULL;
    if (!end)
        return 0;
    const char *key = (const char *)data + 1;
    struct weir_bytes value = weir_bytes(end + 1, size - (size_t)(end + 1 - data));
    uint64_t a, b;
    switch (data[0] % 4) {
    case 0:
        check_stream(key, value);
        break;
    case 1:
        check_shard(key, value);
        break;
    case 2:
        check_lease(key, value);
        break;
    default:
        (void)!weir_row_numbers_decode(value, &a, &b);
    }
    return 0;
}
