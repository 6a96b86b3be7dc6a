/* A checkpoint's row in the metadata table, byte by byte.
 *
 *   lease/STREAM/CONSUMER/SHARD    number of the stream as 16 hex digits, index of the shard as 8
 */
#pragma once
#include "base/le.h"
#include "lease/lease.h"

#define WEIR_LEASE_KEY_MAX 168

enum { WEIR_LEASE_SET = 1, WEIR_LEASE_SHARD_END = 2 };

/* Then the owner's name. All integers are little-endian. `form` is 1; a reader that finds another
 * does not guess. */
struct weir_disk_lease {
    uint8_t form;
    uint8_t flags; /* WEIR_LEASE_... */
    weir_le16 owner_len;
    weir_le32 zero;
    weir_le64 offset;
    weir_le64 epoch; /* at least 1 */
    weir_le64 updated_ms;
};
static_assert(sizeof(struct weir_disk_lease) == 32);

struct weir_lease_row_bytes {
    struct weir_disk_lease head;
    char owner[WEIR_CONSUMER_NAME_MAX];
};

/* Returns its length. */
size_t weir_lease_key(uint64_t stream, struct weir_bytes consumer, uint32_t shard,
                      char out[WEIR_LEASE_KEY_MAX]);
/* Returns how many bytes of `out` are the value. */
size_t weir_lease_row_encode(const struct weir_checkpoint_row *row,
                             struct weir_lease_row_bytes *out);
/* DAMAGED: not of this form. UNSUPPORTED: of a newer one. */
enum weir_status weir_lease_row_decode(const char *key, struct weir_bytes value,
                                       struct weir_checkpoint_row *out);
