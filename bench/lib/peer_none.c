#include "bench/peer.h"
#include <stdio.h>

struct weir_peer *
weir_peer_open(const struct weir_bench *)
{
    printf("  NATS: left out, its client library was not there when this was built "
           "(libnats-dev)\n");
    return NULL;
}

void
weir_peer_close(struct weir_peer *)
{
}

const struct weir_child *
weir_peer_child(const struct weir_peer *)
{
    return NULL;
}

double
weir_peer_publish(struct weir_peer *, size_t, unsigned, double)
{
    weir_bench_die("there is no peer");
}

void
weir_peer_fan_out(struct weir_peer *, unsigned, size_t, double, double, struct weir_peer_fanout *)
{
    weir_bench_die("there is no peer");
}
