/* What a call that can fail answers. The names are the wire's too (proto/wire), so numbers are
 * fixed: append, never renumber. */
#pragma once
#include <stdbool.h>

enum [[nodiscard]] weir_status{
    WEIR_OK = 0,
    WEIR_AGAIN = 1,   /* a bounded queue, pool or credit is used up; try again later */
    WEIR_TOO_BIG = 2, /* over a limit of limits.h or of the stream */
    WEIR_INVALID = 3, /* the bytes or arguments are not of the form asked for */
    WEIR_NOT_FOUND = 4,
    WEIR_EXISTS = 5,
    WEIR_DENIED = 6,
    WEIR_FENCED = 7,    /* a newer epoch owns this; the caller's is stale */
    WEIR_MOVED = 8,     /* the shard is closed, or another owner's: look the topology up again */
    WEIR_TRIMMED = 9,   /* the position is gone; the oldest that is there comes with it */
    WEIR_DAMAGED = 10,  /* checksum or chain does not hold; the gap's range comes with it */
    WEIR_IO = 11,       /* the disk or network said no */
    WEIR_NO_SPACE = 12, /* retryable: returns by itself when there is space */
    WEIR_NO_MEMORY = 13,
    WEIR_TIMEOUT = 14,
    WEIR_UNAVAILABLE = 15, /* draining, starting, or the peer is gone: retryable */
    WEIR_UNKNOWN = 16,     /* the outcome of a write is not known: find out by reading */
    WEIR_UNSUPPORTED = 17,
    WEIR_BUSY = 18, /* in use: a locked directory, a stream not ACTIVE, a taken consumer */
    WEIR_CANCELLED = 19,
    WEIR_END = 20,       /* no more: end of file, of shard, of list */
    WEIR_DUPLICATE = 21, /* already stored; where it is comes with it */
    WEIR_EXPIRED = 22,
    WEIR_THROTTLED = 23, /* a limits profile said no */
    WEIR_STATUS_COUNT};

/* "no space left", lower case, static. */
const char *weir_status_text(enum weir_status st);
/* "NO_SPACE": the name without prefix, static; "STATUS_99" never occurs for known numbers. */
const char *weir_status_name(enum weir_status st);
/* From errno: ENOSPC and EDQUOT are NO_SPACE, ENOENT NOT_FOUND, and so on; the rest IO. */
enum weir_status weir_status_from_errno(int err);
/* True where the same call may succeed later without anyone changing its arguments. */
bool weir_status_retryable(enum weir_status st);
