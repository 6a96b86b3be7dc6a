/* An assertion is about us; a status is about the world. Checked in release builds too. */
#pragma once
#include <assert.h>

[[gnu::noreturn]] void weir_assert_failed(const char *what, const char *file, int line);

#define WEIR_ASSERT(condition)                                  \
    do {                                                        \
        if (__builtin_expect(!(condition), 0))                  \
            weir_assert_failed(#condition, __FILE__, __LINE__); \
    } while (0)
