#include "sys/random.h"
#include "base/assert.h"
#include <errno.h>
#include <sys/random.h>

static uint64_t
rotl(uint64_t x, int by)
{
    return x << by | x >> (64 - by);
}

void
weir_random_init(struct weir_random *r, uint64_t seed)
{
    /* splitmix64, as the authors of xoshiro advise: no seed gives the state of all zeros. */
    for (int i = 0; i < 4; i++) {
        uint64_t z = seed += 0x9e3779b97f4a7c15u;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        r->s[i] = z ^ z >> 31;
    }
}

uint64_t
weir_random_u64(struct weir_random *r)
{
    uint64_t *s = r->s;
    uint64_t result = rotl(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return result;
}

uint64_t
weir_random_below(struct weir_random *r, uint64_t limit)
{
    WEIR_ASSERT(limit > 0);
    /* The values below 2^64 mod limit would make the small results more likely. */
    uint64_t uneven = -limit % limit, x;
    do
        x = weir_random_u64(r);
    while (x < uneven);
    return x % limit;
}

void
weir_random_bytes(void *out, size_t len)
{
    for (uint8_t *at = out; len > 0;) {
        ssize_t n = getrandom(at, len, 0);
        if (n < 0 && errno == EINTR)
            continue;
        WEIR_ASSERT(n > 0);
        at += n;
        len -= (size_t)n;
    }
}

weir_u128
weir_random_id(void)
{
    weir_u128 id;
    weir_random_bytes(&id, sizeof id);
    return id;
}
