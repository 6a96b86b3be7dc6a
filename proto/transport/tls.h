/* TLS for stream listeners and dialers: who we are, whom we trust. Private to this module. */
#pragma once
#include "transport/transport.h"
#include <nng/nng.h>

enum weir_status weir_tls_listener(nng_stream_listener *l,
                                   const struct weir_transport_options *options,
                                   struct weir_error *err);
enum weir_status weir_tls_dialer(nng_stream_dialer *d, const char *url,
                                 const struct weir_transport_options *options,
                                 struct weir_error *err);
