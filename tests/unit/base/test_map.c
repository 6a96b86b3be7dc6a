#include "base/map.h"
#include "sys/random.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#define OK(call) cr_assert_eq((call), WEIR_OK, "%s", #call)

/* A key is there once, until it is taken. */
Test(map, keeps_one_value_per_key)
{
    struct weir_map map;
    int a, b;
    weir_map_init(&map, 1);
    cr_expect_null(weir_map_get(&map, 0));
    cr_expect_null(weir_map_take(&map, 0));
    OK(weir_map_put(&map, 0, &a));
    OK(weir_map_put(&map, UINT64_MAX, &b));
    cr_expect_eq(weir_map_put(&map, 0, &b), WEIR_EXISTS);
    cr_expect_eq(weir_map_get(&map, 0), &a);
    cr_expect_eq(weir_map_take(&map, 0), &a);
    cr_expect_null(weir_map_get(&map, 0));
    cr_expect_eq(weir_map_get(&map, UINT64_MAX), &b);
    cr_expect_eq(map.count, 1);
    weir_map_fini(&map);
}

/* Against an array, for any puts and takes; a walk sees every value once. */
Test(map, agrees_with_an_array)
{
    enum { KEYS = 700 };
    void *expected[KEYS] = {0};
    static char values[KEYS];
    uint64_t seed;
    weir_random_bytes(&seed, sizeof seed);
    struct weir_random r;
    weir_random_init(&r, seed);
    struct weir_map map;
    weir_map_init(&map, seed);
    for (int round = 0; round < 60000; round++) {
        uint64_t key = weir_random_below(&r, KEYS);
        if (weir_random_below(&r, 2)) {
            cr_assert_eq(weir_map_put(&map, key << 32, &values[key]),
                         expected[key] ? WEIR_EXISTS : WEIR_OK, "seed %lu", seed);
            expected[key] = &values[key];
        } else {
            cr_assert_eq(weir_map_take(&map, key << 32), expected[key], "seed %lu", seed);
            expected[key] = NULL;
        }
        if (round % 1000)
            continue;
        size_t cursor = 0, walked = 0, there = 0;
        for (char *value; (value = weir_map_next(&map, &cursor)); walked++)
            cr_assert_eq(expected[value - values], value, "seed %lu", seed);
        for (size_t i = 0; i < KEYS; i++)
            there += expected[i] != NULL;
        cr_assert_eq(walked, there, "seed %lu", seed);
        cr_assert_eq(map.count, there, "seed %lu", seed);
    }
    /* Coming and going does not make it grow. */
    cr_expect_leq(map.capacity, 2048);
    weir_map_fini(&map);
}

/* During a walk the current value may be taken: the walk still sees all others. */
Test(map, values_may_be_taken_during_a_walk)
{
    struct weir_map map;
    static char values[1000];
    weir_map_init(&map, 3);
    for (uint64_t i = 0; i < 1000; i++)
        OK(weir_map_put(&map, i, &values[i]));
    size_t cursor = 0, seen = 0;
    for (char *value; (value = weir_map_next(&map, &cursor)); seen++) {
        if (seen % 3)
            cr_assert_eq(weir_map_take(&map, (uint64_t)(value - values)), value);
    }
    cr_expect_eq(seen, 1000);
    cr_expect_eq(map.count, 334);
    weir_map_fini(&map);
}

struct named {
    char name[40];
};

/* Texts are compared by their bytes, however they look alike. */
Test(map, keeps_texts)
{
    struct weir_map map;
    struct named *named = calloc(3000, sizeof *named);
    weir_map_init(&map, 4);
    for (int i = 0; i < 3000; i++) {
        snprintf(named[i].name, sizeof named[i].name, "%.*s%d", i % 20, "stream-with-a-long-name",
                 i);
        OK(weir_map_put_text(&map, weir_bytes_of(named[i].name), &named[i]));
        cr_assert_eq(weir_map_put_text(&map, weir_bytes_of(named[i].name), &named[0]), WEIR_EXISTS);
    }
    for (int i = 0; i < 3000; i++) {
        cr_assert_eq(weir_map_get_text(&map, weir_bytes_of(named[i].name)), &named[i]);
        if (i % 2)
            cr_assert_eq(weir_map_take_text(&map, weir_bytes_of(named[i].name)), &named[i]);
    }
    cr_expect_null(weir_map_get_text(&map, weir_bytes_of("")));
    cr_expect_null(weir_map_get_text(&map, weir_bytes_of("1")));
    cr_expect_eq(weir_map_get_text(&map, weir_bytes_of("0")), &named[0]);
    cr_expect_eq(map.count, 1500);
    weir_map_fini(&map);
    free(named);
}
