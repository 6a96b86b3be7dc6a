/* Random numbers: from the kernel for identifiers and keys, from a seed for everything that a test
 * must be able to repeat. */
#pragma once
#include "base/u128.h"

struct weir_random {
    uint64_t s[4]; /* xoshiro256**; never for secrets */
};
void weir_random_init(struct weir_random *r, uint64_t seed);
uint64_t weir_random_u64(struct weir_random *r);
/* Evenly below `limit` (> 0). */
uint64_t weir_random_below(struct weir_random *r, uint64_t limit);

/* getrandom(2): secrets, identifiers, seeds. Aborts where the kernel has none. Any thread. */
void weir_random_bytes(void *out, size_t len);
weir_u128 weir_random_id(void);
