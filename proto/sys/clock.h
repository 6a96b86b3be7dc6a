/* Time as an interface: what behind it reads the clock gives the same result for the same times. */
#pragma once
#include <stdint.h>

struct weir_clock {
    uint64_t (*wall_ms)(struct weir_clock *clock); /* since 1970, may jump */
    uint64_t (*mono_us)(struct weir_clock *clock); /* never goes back */
};

static inline uint64_t
weir_now_ms(struct weir_clock *clock)
{
    return clock->wall_ms(clock);
}

static inline uint64_t
weir_mono_us(struct weir_clock *clock)
{
    return clock->mono_us(clock);
}

/* The machine's clocks: CLOCK_REALTIME and CLOCK_MONOTONIC. Static, any thread. */
struct weir_clock *weir_clock_system(void);

/* A clock that the test owns. mono_us follows wall_ms's steps forward. Any thread may read. */
struct weir_clock_manual {
    struct weir_clock clock;
    _Atomic uint64_t wall, mono;
};
void weir_clock_manual_init(struct weir_clock_manual *c, uint64_t wall_ms);
void weir_clock_manual_advance(struct weir_clock_manual *c, uint64_t ms);
/* Sets the wall clock alone, also backwards. */
void weir_clock_manual_set_wall(struct weir_clock_manual *c, uint64_t wall_ms);
