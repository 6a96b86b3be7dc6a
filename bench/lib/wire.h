/* The transport's floor: the same byte mover without a broker, to bench_other, a second process.
 *
 *   echo   each message is answered with one of 40 bytes, as a batch is with its ack
 *   send   asked once, the other end sends its whole memory as messages, as fast as they go */
#pragma once
#include "bench/bench.h"
#include "bench/process.h"

struct weir_wire;

/* `message_bytes`: of what is echoed, or of each message sent; `total_bytes` of a send in all. */
struct weir_wire *weir_wire_open(const struct weir_bench *b, size_t message_bytes,
                                 uint64_t total_bytes);
void weir_wire_close(struct weir_wire *w);
/* One message there and its answer back. */
void weir_wire_echo(struct weir_wire *w);
/* MB/s of one send. */
double weir_wire_receive(struct weir_wire *w);
