/* The one seam to the world: what `main` hands in. Tests hand in a memory disk and their own clock.
 */
#pragma once
#include "sys/clock.h"
#include "sys/fs.h"
#include "sys/loop.h"
#include "sys/random.h"

struct weir_sys {
    struct weir_fs *fs; /* the data directory */
    struct weir_clock *clock;
    struct weir_pool *pool; /* blocking reads and other work off the owner threads */
    bool threads;           /* false: no thread is started, everything is stepped */
    uint64_t seed;          /* for hash seeds and jitter */
};
