/* A timer wheel: one timer for the heartbeats of all subscriptions of an owner.
 *
 *   slot   0   1   2  …                 1023        one slot is 65.536 ms, the wheel 67 s
 *            [a]─[b]   [c]                           lists of nodes; a bit per slot that may have
 * some
 *
 * A node is put by its moment, rounded up to the next slot, and is handed out once. Moments further
 * away than the wheel come earlier: whoever puts them looks again. One thread. */
#pragma once
#include "base/list.h"
#include <stdint.h>

enum { WEIR_WHEEL_SLOTS = 1024, WEIR_WHEEL_SHIFT = 16 };

struct weir_wheel {
    uint64_t tick; /* slots up to this one were handed out */
    struct weir_list slot[WEIR_WHEEL_SLOTS];
    uint64_t used[WEIR_WHEEL_SLOTS / 64];
};

void weir_wheel_init(struct weir_wheel *w, uint64_t now_us);
/* A node that is in the wheel moves. It may be taken out by weir_list_remove at any time. */
void weir_wheel_put(struct weir_wheel *w, struct weir_list *node, uint64_t due_us);
/* Moves to `out` (appends) all nodes that are due. */
void weir_wheel_take_due(struct weir_wheel *w, uint64_t now_us, struct weir_list *out);
/* The moment of the next node; UINT64_MAX: none. */
uint64_t weir_wheel_next_us(struct weir_wheel *w);
