#include "sys/clock.h"
#include "base/assert.h"
#include <stdatomic.h>
#include <time.h>

static uint64_t
read_clock(clockid_t id, uint64_t per_second)
{
    struct timespec now;
    WEIR_ASSERT(clock_gettime(id, &now) == 0);
    return (uint64_t)now.tv_sec * per_second + (uint64_t)now.tv_nsec / (1000000000u / per_second);
}

static uint64_t
system_wall_ms(struct weir_clock *clock)
{
    (void)clock;
    return read_clock(CLOCK_REALTIME, 1000);
}

static uint64_t
system_mono_us(struct weir_clock *clock)
{
    (void)clock;
    return read_clock(CLOCK_MONOTONIC, 1000000);
}

struct weir_clock *
weir_clock_system(void)
{
    static struct weir_clock clock = {system_wall_ms, system_mono_us};
    return &clock;
}

static uint64_t
manual_wall_ms(struct weir_clock *clock)
{
    return atomic_load(&((struct weir_clock_manual *)clock)->wall);
}

static uint64_t
manual_mono_us(struct weir_clock *clock)
{
    return atomic_load(&((struct weir_clock_manual *)clock)->mono);
}

void
weir_clock_manual_init(struct weir_clock_manual *c, uint64_t wall_ms)
{
    c->clock = (struct weir_clock){manual_wall_ms, manual_mono_us};
    atomic_init(&c->wall, wall_ms);
    atomic_init(&c->mono, 0);
}

void
weir_clock_manual_advance(struct weir_clock_manual *c, uint64_t ms)
{
    atomic_fetch_add(&c->wall, ms);
    atomic_fetch_add(&c->mono, ms * 1000);
}

void
weir_clock_manual_set_wall(struct weir_clock_manual *c, uint64_t wall_ms)
{
    atomic_store(&c->wall, wall_ms);
}
