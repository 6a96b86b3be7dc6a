/* Criterion keeps what its workers share at a random address between 0x200000000000 and
 * 0x7f0000000000; ThreadSanitizer allows a program few of those and fails the mapping (Criterion's
 * issue 274). Criterion draws the address with rand_r, 16 MiB apart: this one draws from the part
 * that the sanitizer leaves to programs, 0x550000000000 to 0x568000000000. Linked into tests with
 * that sanitizer alone; nothing of ours calls rand_r. */
#include <stdlib.h>

const char *__tsan_default_suppressions(void);

int
rand_r(unsigned *seed)
{
    *seed = *seed * 1103515245 + 12345;
    return (int)(0x350000 + (*seed >> 8) % 0x18000);
}

/* NNG counts references to its dialers with atomics that the sanitizer does not see, and destroys
 * their mutex on its reaper's thread after the last. */
const char *
__tsan_default_suppressions(void)
{
    return "race:pthread_mutex_destroy\n";
}
