#include "base/status.h"
#include "base/assert.h"
#include <errno.h>
#include <stddef.h>

static const struct {
    const char *name, *text;
    bool retryable;
} table[] = {
    [WEIR_OK] = {"OK", "done", false},
    [WEIR_AGAIN] = {"AGAIN", "busy, try again later", true},
    [WEIR_TOO_BIG] = {"TOO_BIG", "over the limit", false},
    [WEIR_INVALID] = {"INVALID", "not of the form asked for", false},
    [WEIR_NOT_FOUND] = {"NOT_FOUND", "not found", false},
    [WEIR_EXISTS] = {"EXISTS", "exists already", false},
    [WEIR_DENIED] = {"DENIED", "not allowed", false},
    [WEIR_FENCED] = {"FENCED", "a newer owner has taken over", false},
    [WEIR_MOVED] = {"MOVED", "closed or served elsewhere", false},
    [WEIR_TRIMMED] = {"TRIMMED", "no longer kept", false},
    [WEIR_DAMAGED] = {"DAMAGED", "damaged", false},
    [WEIR_IO] = {"IO", "input/output error", false},
    [WEIR_NO_SPACE] = {"NO_SPACE", "no space left", true},
    [WEIR_NO_MEMORY] = {"NO_MEMORY", "out of memory", true},
    [WEIR_TIMEOUT] = {"TIMEOUT", "timed out", true},
    [WEIR_UNAVAILABLE] = {"UNAVAILABLE", "unavailable", true},
    [WEIR_UNKNOWN] = {"UNKNOWN", "outcome unknown", false},
    [WEIR_UNSUPPORTED] = {"UNSUPPORTED", "not supported", false},
    [WEIR_BUSY] = {"BUSY", "in use", true},
    [WEIR_CANCELLED] = {"CANCELLED", "cancelled", false},
    [WEIR_END] = {"END", "no more", false},
    [WEIR_DUPLICATE] = {"DUPLICATE", "stored already", false},
    [WEIR_EXPIRED] = {"EXPIRED", "expired", false},
    [WEIR_THROTTLED] = {"THROTTLED", "over the rate allowed", true},
};
static_assert(sizeof table / sizeof *table == WEIR_STATUS_COUNT, "every status has its row");

const char *
weir_status_text(enum weir_status st)
{
    return (unsigned)st < WEIR_STATUS_COUNT ? table[st].text : "unknown status";
}

const char *
weir_status_name(enum weir_status st)
{
    return (unsigned)st < WEIR_STATUS_COUNT ? table[st].name : "STATUS_99";
}

bool
weir_status_retryable(enum weir_status st)
{
    return (unsigned)st < WEIR_STATUS_COUNT && table[st].retryable;
}

enum weir_status
weir_status_from_errno(int err)
{
    switch (err) {
    case 0:
        return WEIR_OK;
    case ENOSPC:
    case EDQUOT:
        return WEIR_NO_SPACE;
    case ENOENT:
        return WEIR_NOT_FOUND;
    case EEXIST:
    case ENOTEMPTY:
        return WEIR_EXISTS;
    case EACCES:
    case EPERM:
    case EROFS:
        return WEIR_DENIED;
    case ENOMEM:
        return WEIR_NO_MEMORY;
    case EAGAIN:
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
        return WEIR_AGAIN;
    case EINVAL:
    case ENAMETOOLONG:
    case ENOTDIR:
    case EISDIR:
    case ELOOP:
        return WEIR_INVALID;
    case EFBIG:
    case EOVERFLOW:
    case E2BIG:
    case EMSGSIZE:
        return WEIR_TOO_BIG;
    case EBUSY:
    case EADDRINUSE:
    case ETXTBSY:
        return WEIR_BUSY;
    case ETIMEDOUT:
        return WEIR_TIMEOUT;
    case ECONNREFUSED:
    case ECONNRESET:
    case ECONNABORTED:
    case ENETDOWN:
    case ENETUNREACH:
    case EHOSTUNREACH:
    case EPIPE:
        return WEIR_UNAVAILABLE;
    case ECANCELED:
        return WEIR_CANCELLED;
    case ENOSYS:
    case EOPNOTSUPP:
    case EXDEV:
        return WEIR_UNSUPPORTED;
    default:
        return WEIR_IO;
    }
}
