#include "sys/clock.h"
#include "sys/random.h"
#include <criterion/criterion.h>

/* A seed gives the numbers of xoshiro256** after splitmix64, on every machine and in every release:
 * tests are repeated by their seed. */
Test(random, a_seed_gives_these_numbers)
{
    struct weir_random r, again;
    weir_random_init(&r, 0);
    weir_random_init(&again, 0);
    cr_expect_eq(weir_random_u64(&r), 0x99ec5f36cb75f2b4u);
    cr_expect_eq(weir_random_u64(&r), 0xbf6e1f784956452au);
    cr_expect_eq(weir_random_u64(&again), 0x99ec5f36cb75f2b4u);
}

/* Numbers below a limit are below it, and all of them come. */
Test(random, stays_below_its_limit)
{
    struct weir_random r;
    unsigned seen[7] = {0};
    weir_random_init(&r, 5);
    for (int i = 0; i < 7000; i++)
        seen[weir_random_below(&r, 7)]++;
    for (int i = 0; i < 7; i++)
        cr_expect(seen[i] > 800 && seen[i] < 1200, "%d: %u", i, seen[i]);
    cr_expect_eq(weir_random_below(&r, 1), 0);
    cr_expect_lt(weir_random_below(&r, UINT64_MAX), UINT64_MAX);
}

/* Identifiers from the kernel differ. */
Test(random, identifiers_differ)
{
    cr_expect(weir_random_id() != weir_random_id());
}

/* A test's clock moves when it is told to; setting the wall back leaves monotonic time alone. */
Test(clock, belongs_to_the_test)
{
    struct weir_clock_manual c;
    weir_clock_manual_init(&c, 1000);
    weir_clock_manual_advance(&c, 5);
    cr_expect_eq(weir_now_ms(&c.clock), 1005);
    cr_expect_eq(weir_mono_us(&c.clock), 5000);
    weir_clock_manual_set_wall(&c, 10);
    cr_expect_eq(weir_now_ms(&c.clock), 10);
    cr_expect_eq(weir_mono_us(&c.clock), 5000);
}

/* The machine's monotonic clock never goes back, and its wall clock is past 2020. */
Test(clock, of_the_machine_goes_on)
{
    struct weir_clock *c = weir_clock_system();
    uint64_t before = weir_mono_us(c);
    for (int i = 0; i < 1000; i++) {
        uint64_t now = weir_mono_us(c);
        cr_assert_geq(now, before);
        before = now;
    }
    cr_expect_gt(weir_now_ms(c), 1577836800000u);
}
