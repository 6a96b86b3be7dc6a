#include "base/limits.h"
#include "transport/sp.h"
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdlib.h>

/* Gives the stream `len` bytes from `bytes`, at most what it has room for; returns how many. */
static size_t
give(struct weir_sp *sp, const uint8_t *bytes, size_t len)
{
    struct weir_sp_room room[2];
    unsigned count = weir_sp_room(sp, room);
    size_t given = 0;
    for (unsigned i = 0; i < count && given < len; i++) {
        size_t n = room[i].len < len - given ? room[i].len : len - given;
        memcpy(room[i].data, bytes + given, n);
        given += n;
    }
    weir_sp_filled(sp, given);
    return given;
}

static size_t
drain(struct weir_sp *sp)
{
    struct weir_buf *m;
    size_t count = 0;
    enum weir_status st;
    while (!(st = weir_sp_next(sp, 16 * WEIR_MIB, &m))) {
        count++;
        weir_buf_unref(m);
    }
    cr_assert(eq(int, st, WEIR_AGAIN));
    return count;
}

static size_t
live_bytes(void)
{
    size_t live, pooled;
    weir_buf_usage(&live, &pooled);
    return live;
}

/* The stage grows while bytes come in bulk and is gone with the first quiet read: a connection that
 * was busy once holds nothing. */
Test(sp, an_idle_stream_holds_nothing)
{
    enum { MANY = 20000, EACH = 8 + 100 };
    struct weir_sp sp = {0};
    uint8_t *bytes = calloc(MANY, EACH);
    for (size_t i = 0; i < MANY; i++)
        bytes[i * EACH + 7] = 100;
    give(&sp, weir_sp_greeting, WEIR_SP_GREETING_BYTES);
    cr_expect(eq(sz, drain(&sp), 0));

    size_t messages = 0, most = 0;
    for (size_t at = 0; at < MANY * EACH;) {
        size_t n = give(&sp, bytes + at, MANY * EACH - at);
        most = n > most ? n : most;
        at += n;
        messages += drain(&sp);
    }
    cr_expect(eq(sz, messages, MANY));
    cr_expect(most > 200 * WEIR_KIB, "a busy stream fetched %zu bytes at most", most);
    cr_expect(live_bytes() > 200 * WEIR_KIB);

    give(&sp, bytes, EACH);
    cr_expect(eq(sz, drain(&sp), 1));
    struct weir_sp_room room[2];
    weir_sp_room(&sp, room);
    cr_expect(eq(sz, live_bytes(), 0));
    weir_sp_fini(&sp);
    free(bytes);
}

/* A length that is claimed takes no more memory than a usual frame; then memory follows the bytes.
 */
Test(sp, memory_follows_bytes_not_claims)
{
    struct weir_sp sp = {0};
    give(&sp, weir_sp_greeting, WEIR_SP_GREETING_BYTES);
    cr_expect(eq(sz, drain(&sp), 0));
    uint8_t prefix[WEIR_SP_PREFIX_BYTES_MAX];
    size_t len = 16 * WEIR_MIB;
    cr_assert(eq(sz, give(&sp, prefix, weir_sp_prefix(false, len, prefix)), 8));
    cr_expect(eq(sz, drain(&sp), 0));
    cr_expect(live_bytes() <= WEIR_MIB, "%zu bytes for a claim", live_bytes());

    uint8_t *bytes = calloc(1, WEIR_MIB);
    size_t came = 0, messages = 0;
    while (!messages) {
        came += give(&sp, bytes, len - came < WEIR_MIB ? len - came : WEIR_MIB);
        messages = drain(&sp);
        cr_assert(live_bytes() <= 5 * came + 2 * WEIR_MIB, "%zu bytes held for %zu", live_bytes(),
                  came);
    }
    cr_expect(eq(sz, came, len));
    weir_sp_fini(&sp);
    free(bytes);
}

/* Without its marks a stream is refused at once: greeting, ipc's 01, a length over the limit. */
Test(sp, refuses_what_is_not_a_stream)
{
    struct weir_buf *m;
    struct weir_sp sp = {0};
    give(&sp, (const uint8_t *)"\0X", 2);
    cr_expect(eq(int, weir_sp_next(&sp, 100, &m), WEIR_INVALID));
    weir_sp_fini(&sp);

    sp = (struct weir_sp){.is_ipc = true};
    give(&sp, (const uint8_t *)"\0SP\0\0\x10\0\0\2", 9);
    cr_expect(eq(int, weir_sp_next(&sp, 100, &m), WEIR_INVALID));
    weir_sp_fini(&sp);

    sp = (struct weir_sp){0};
    give(&sp, (const uint8_t *)"\0SP\0\0\x10\0\0\0\0\0\0\0\0\0\x65", 16);
    cr_expect(eq(int, weir_sp_next(&sp, 100, &m), WEIR_TOO_BIG));
    weir_sp_fini(&sp);
}
