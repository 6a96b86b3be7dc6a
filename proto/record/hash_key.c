#include "record/hash_key.h"

/* The ring's hash is MD5 by Kinesis's definition; nothing here is about security. The plain MD5
 * call is the one form of it in libcrypto that needs neither a context per thread nor a fetched
 * algorithm, works where a policy has switched MD5 off for EVP, and is the quickest. */
#define OPENSSL_API_COMPAT 0x10100000L
#include "base/assert.h"
#include "base/le.h"
#include <openssl/md5.h>

static_assert(MD5_DIGEST_LENGTH == 16);

weir_u128
weir_hash_key(struct weir_bytes partition_key)
{
    uint8_t digest[MD5_DIGEST_LENGTH];
    MD5(partition_key.data, partition_key.len, digest);
    return (weir_u128)weir_load_be64(digest) << 64 | weir_load_be64(digest + 8);
}

struct weir_hash_range
weir_hash_range_of(uint32_t index, uint32_t count)
{
    WEIR_ASSERT(index < count);
    if (count == 1)
        return (struct weir_hash_range){0, WEIR_U128_MAX};
    /* floor(2^128 / count), where 2^128 itself does not fit */
    weir_u128 width = WEIR_U128_MAX / count + (WEIR_U128_MAX % count == count - 1);
    weir_u128 low = width * index;
    return (struct weir_hash_range){
        .low = low,
        .high = index == count - 1 ? WEIR_U128_MAX : low + width - 1,
    };
}
