/* An error with its story: each layer says in front where it was, so that the text reads like a
 * path to the fault: "cannot open stream 'orders': cannot read 'journal-0/00000003.seg':
 * input/output error". Lower case, subject in quotes, no full stop.
 *
 * A NULL `err` is allowed everywhere: the status alone is returned. One thread at a time. */
#pragma once
#include "base/status.h"

struct weir_error {
    enum weir_status status;
    char text[488]; /* cut at the end with "…" when longer */
};

/* Sets status and text, and returns the status, for `return weir_fail(err, WEIR_INVALID, "…")`. */
[[gnu::format(printf, 3, 4)]] enum weir_status weir_fail(struct weir_error *err,
                                                         enum weir_status st, const char *fmt, ...);
/* Puts "text: " in front of what is there and returns err's status (or `st` when err is NULL or
 * empty). */
[[gnu::format(printf, 3, 4)]] enum weir_status
weir_fail_in(struct weir_error *err, enum weir_status st, const char *fmt, ...);
