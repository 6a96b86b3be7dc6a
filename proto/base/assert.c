#include "base/assert.h"
#include <stdio.h>
#include <stdlib.h>

void
weir_assert_failed(const char *what, const char *file, int line)
{
    fprintf(stderr, "%s:%d: assertion failed: %s\n", file, line, what);
    abort();
}
