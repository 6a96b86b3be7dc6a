/* The table of producers, by itself. */
#include "log/producers.h"
#include <criterion/criterion.h>
#include <stdlib.h>

static void
begin(struct weir_producers **p, weir_u128 id, uint64_t number, uint64_t offset)
{
    cr_assert(!weir_producers_begin(p, id, number, offset, 1000 + offset, 0));
}

/* New, next, duplicate, skipped; one that is not known begins with 1. */
Test(producers, tells_new_from_old)
{
    struct weir_producers *p = NULL;
    struct weir_producer_place place;
    cr_expect(weir_producers_check(p, 5, 77, 0, &place) == WEIR_INVALID && place.number == 0);
    for (uint64_t n = 1; n < 87; n++) {
        cr_expect(!weir_producers_check(p, 5, n, 0, &place));
        begin(&p, 5, n, 2 * n);
        weir_producers_durable(p, 5, n);
    }
    cr_expect(weir_producers_check(p, 5, 88, 0, &place) == WEIR_INVALID && place.number == 86);
    cr_expect(weir_producers_check(p, 5, 84, 0, &place) == WEIR_DUPLICATE);
    cr_expect(place.offset == 168 && place.at_ms == 1168);
    cr_expect(weir_producers_check(p, 5, 82, 0, &place) == WEIR_DUPLICATE && place.offset == 164);
    cr_expect(weir_producers_check(p, 5, 81, 0, &place) == WEIR_DUPLICATE && place.offset == 0);
    cr_expect(weir_producers_check(p, 5, 87, 1173, &place) == WEIR_INVALID, "forgotten");
    cr_expect(!weir_producers_check(p, 5, 1, 1173, &place));
    uint64_t last;
    cr_expect(!weir_producers_last(p, 5, 1172, &last) && last == 86);
    cr_expect(weir_producers_last(p, 5, 1173, &last) == WEIR_NOT_FOUND);
    weir_producers_free(p);
}

/* What failed is as if it had never been asked. */
Test(producers, takes_back_what_failed)
{
    struct weir_producers *p = NULL;
    struct weir_producer_place place;
    uint64_t number;
    begin(&p, 5, 1, 10);
    weir_producers_durable(p, 5, 1);
    for (uint64_t n = 2; n < 9; n++)
        begin(&p, 5, n, 10 * n);
    begin(&p, 6, 1, 100);
    cr_expect(!weir_producers_last(p, 5, 0, &number) && number == 1);
    cr_expect(weir_producers_last(p, 6, 0, &number) == WEIR_NOT_FOUND);
    for (uint64_t n = 2; n < 9; n++)
        weir_producers_undo(p, 5, n);
    weir_producers_undo(p, 6, 1);
    cr_expect(!weir_producers_last(p, 5, 0, &number) && number == 1);
    cr_expect(!weir_producers_check(p, 5, 2, 0, &place));
    cr_expect(!weir_producers_check(p, 6, 1, 0, &place));
    cr_expect(weir_producers_count(p) == 1);
    weir_producers_free(p);
}

/* Past the limit the one silent for longest goes. */
Test(producers, forgets_the_longest_silent)
{
    struct weir_producers *p = NULL;
    uint64_t number;
    for (uint64_t i = 0; i < WEIR_PRODUCERS_PER_SHARD_MAX; i++) {
        begin(&p, i + 1, 1, i);
        weir_producers_durable(p, i + 1, 1);
    }
    begin(&p, 1, 2, 9000);
    weir_producers_durable(p, 1, 2);
    for (uint64_t i = 0; i < 100; i++)
        begin(&p, 100000 + i, 1, i);
    cr_expect(weir_producers_count(p) == WEIR_PRODUCERS_PER_SHARD_MAX);
    cr_expect(!weir_producers_last(p, 1, 0, &number) && number == 2);
    for (uint64_t i = 2; i < 102; i++)
        cr_expect(weir_producers_last(p, i, 0, &number) == WEIR_NOT_FOUND);
    cr_expect(!weir_producers_last(p, 102, 0, &number));
    weir_producers_expire(p, UINT64_MAX);
    cr_expect(weir_producers_count(p) == 100, "those in flight stay");
    weir_producers_free(p);
}

/* A footer keeps what is durable, and nothing else. */
Test(producers, comes_back_from_a_footer)
{
    struct weir_producers *p = NULL, *q = NULL;
    static struct weir_disk_producer rows[8];
    struct weir_producer_place place;
    for (uint64_t n = 0; n < 7; n++) {
        begin(&p, 5, n, 10 * n);
        if (n < 5)
            weir_producers_durable(p, 5, n);
    }
    begin(&p, 6, 1, 100);
    cr_assert(weir_producers_encode(p, rows) == 1);
    cr_assert(!weir_producers_decode(&q, &rows[0]));
    cr_expect(weir_producers_check(q, 5, 4, 0, &place) == WEIR_DUPLICATE && place.offset == 40);
    cr_expect(weir_producers_check(q, 5, 2, 0, &place) == WEIR_DUPLICATE && place.offset == 20);
    cr_expect(weir_producers_check(q, 5, 1, 0, &place) == WEIR_DUPLICATE && place.offset == 0);
    cr_expect(!weir_producers_check(q, 5, 5, 0, &place));
    weir_producers_free(p);
    weir_producers_free(q);
}
