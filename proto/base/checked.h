/* Arithmetic on lengths and numbers from outside: false means overflow, and *out is untouched. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WEIR_CHECKED(name, type, builtin)                            \
    [[nodiscard]] static inline bool name(type a, type b, type *out) \
    {                                                                \
        type r;                                                      \
        if (builtin(a, b, &r))                                       \
            return false;                                            \
        *out = r;                                                    \
        return true;                                                 \
    }
WEIR_CHECKED(weir_add_size, size_t, __builtin_add_overflow)
WEIR_CHECKED(weir_mul_size, size_t, __builtin_mul_overflow)
WEIR_CHECKED(weir_add_u64, uint64_t, __builtin_add_overflow)
WEIR_CHECKED(weir_sub_u64, uint64_t, __builtin_sub_overflow)
WEIR_CHECKED(weir_mul_u64, uint64_t, __builtin_mul_overflow)
#undef WEIR_CHECKED
