#include "fanout/wheel.h"
#include "sys/random.h"
#include <criterion/criterion.h>

enum { COUNT = 300 };
struct item {
    struct weir_list node;
    uint64_t due_us;
    bool out;
};

/* Nothing comes before its moment, nothing more than a slot and a step after it, everything once.
 */
Test(wheel, hands_out_each_node_once_and_in_time)
{
    static struct weir_wheel w;
    static struct item items[COUNT];
    struct weir_random random;
    weir_random_init(&random, 7);
    uint64_t now = 123456789;
    weir_wheel_init(&w, now);
    for (int i = 0; i < COUNT; i++) {
        items[i].due_us = now + weir_random_below(&random, 60000000);
        weir_wheel_put(&w, &items[i].node, items[i].due_us);
    }
    int left = COUNT;
    while (left > 0) {
        uint64_t next = weir_wheel_next_us(&w);
        cr_assert_neq(next, UINT64_MAX);
        cr_assert_geq(next, now);
        now = next;
        struct weir_list due;
        weir_list_init(&due);
        weir_wheel_take_due(&w, now, &due);
        cr_assert(!weir_list_is_empty(&due), "the announced moment has something");
        for (struct weir_list *node; (node = weir_list_pop_front(&due)); left--) {
            struct item *item = WEIR_CONTAINER(node, struct item, node);
            cr_assert(!item->out);
            item->out = true;
            cr_assert_geq(now, item->due_us);
            cr_assert_lt(now - item->due_us, 2u << WEIR_WHEEL_SHIFT);
        }
    }
    cr_assert_eq(weir_wheel_next_us(&w), UINT64_MAX);
}

/* A node that was taken out by its owner is not handed out, and its slot announces nothing. */
Test(wheel, forgets_what_was_removed)
{
    static struct weir_wheel w;
    struct weir_list node = {0}, due;
    weir_list_init(&due);
    weir_wheel_init(&w, 0);
    weir_wheel_put(&w, &node, 500000);
    weir_list_remove(&node);
    cr_assert_eq(weir_wheel_next_us(&w), UINT64_MAX);
    weir_wheel_take_due(&w, 10000000, &due);
    cr_assert(weir_list_is_empty(&due));
}

/* A loop that was held up for hours still hands everything out, once around the wheel. */
Test(wheel, survives_a_long_pause)
{
    static struct weir_wheel w;
    struct weir_list node = {0}, far = {0}, due;
    weir_list_init(&due);
    weir_wheel_init(&w, 0);
    weir_wheel_put(&w, &node, 1000);
    weir_wheel_put(&w, &far, 3600000000);
    weir_wheel_take_due(&w, 7200000000, &due);
    cr_assert_eq(weir_list_pop_front(&due), &node);
    cr_assert_eq(weir_list_pop_front(&due), &far);
    weir_wheel_put(&w, &node, 7200000000);
    cr_assert_leq(weir_wheel_next_us(&w), 7200000000 + (2u << WEIR_WHEEL_SHIFT));
}
