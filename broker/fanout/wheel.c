#include "fanout/wheel.h"
#include <assert.h>
#include <string.h>

static_assert(WEIR_WHEEL_SLOTS % 64 == 0, "whole words of bits");

void
weir_wheel_init(struct weir_wheel *w, uint64_t now_us)
{
    memset(w, 0, sizeof *w);
    w->tick = now_us >> WEIR_WHEEL_SHIFT;
    for (size_t i = 0; i < WEIR_WHEEL_SLOTS; i++)
        weir_list_init(&w->slot[i]);
}

void
weir_wheel_put(struct weir_wheel *w, struct weir_list *node, uint64_t due_us)
{
    uint64_t tick = (due_us >> WEIR_WHEEL_SHIFT) + 1;
    if (tick <= w->tick)
        tick = w->tick + 1;
    if (tick >= w->tick + WEIR_WHEEL_SLOTS)
        tick = w->tick + WEIR_WHEEL_SLOTS - 1;
    size_t index = tick % WEIR_WHEEL_SLOTS;
    weir_list_remove(node);
    weir_list_push_back(&w->slot[index], node);
    w->used[index / 64] |= 1ull << index % 64;
}

void
weir_wheel_take_due(struct weir_wheel *w, uint64_t now_us, struct weir_list *out)
{
    uint64_t now = now_us >> WEIR_WHEEL_SHIFT;
    /* Once around is all there is, however long nobody came. */
    uint64_t last = now < w->tick + WEIR_WHEEL_SLOTS ? now : w->tick + WEIR_WHEEL_SLOTS - 1;
    for (uint64_t tick = w->tick + 1; tick <= last; tick++) {
        size_t index = tick % WEIR_WHEEL_SLOTS;
        if (!(w->used[index / 64] & 1ull << index % 64))
            continue;
        for (struct weir_list *node; (node = weir_list_pop_front(&w->slot[index]));)
            weir_list_push_back(out, node);
        w->used[index / 64] &= ~(1ull << index % 64);
    }
    if (now > w->tick)
        w->tick = now;
}

uint64_t
weir_wheel_next_us(struct weir_wheel *w)
{
    for (uint64_t tick = w->tick + 1; tick < w->tick + WEIR_WHEEL_SLOTS;) {
        size_t index = tick % WEIR_WHEEL_SLOTS;
        uint64_t word = w->used[index / 64] >> index % 64;
        if (!word) {
            tick += 64 - index % 64;
            continue;
        }
        unsigned skip = (unsigned)__builtin_ctzll(word);
        tick += skip;
        index += skip;
        if (!weir_list_is_empty(&w->slot[index]))
            return tick << WEIR_WHEEL_SHIFT;
        w->used[index / 64] &= ~(1ull << index % 64);
    }
    return UINT64_MAX;
}
