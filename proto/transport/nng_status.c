#include "transport/nng_status.h"
#include <nng/nng.h>

enum weir_status
weir_status_from_nng(int rv)
{
    if (rv & NNG_ESYSERR)
        return weir_status_from_errno(rv & ~NNG_ESYSERR);
    switch (rv) {
    case 0:
        return WEIR_OK;
    case NNG_ECLOSED:
    case NNG_ECONNSHUT:
    case NNG_ECONNRESET:
    case NNG_ECONNABORTED:
    case NNG_ECONNREFUSED:
    case NNG_EUNREACHABLE:
    case NNG_ENOENT: /* an ipc path that is not there */
    case NNG_EAGAIN: /* an ipc listener whose backlog is full */
        return WEIR_UNAVAILABLE;
    case NNG_ENOMEM:
        return WEIR_NO_MEMORY;
    case NNG_ENOFILES:
        return WEIR_AGAIN;
    case NNG_ETIMEDOUT:
        return WEIR_TIMEOUT;
    case NNG_ECANCELED:
        return WEIR_CANCELLED;
    case NNG_EADDRINUSE:
    case NNG_EBUSY:
        return WEIR_BUSY;
    case NNG_EINVAL:
    case NNG_EADDRINVAL:
        return WEIR_INVALID;
    case NNG_EPERM:
    case NNG_ECRYPTO:
    case NNG_EPEERAUTH:
        return WEIR_DENIED;
    case NNG_ENOTSUP:
    case NNG_ENOARG:
        return WEIR_UNSUPPORTED;
    default:
        return WEIR_IO;
    }
}
