/* A history of orders, made by the project: customers order, pay, change their minds; parcels are
 * packed, shipped and delivered; cancelled orders expire. It comes out as the change records that
 * the orders' table would have written to a Kinesis data stream (DynamoDB's JSON form), oldest
 * first, with all ten attribute types in it. The same seed and count give the same bytes.
 *
 * One thread at a time. */
#pragma once
#include "base/bytes.h"
#include "base/status.h"

struct weir_orders;

struct weir_order_change {
    const char *key;        /* the order's id */
    struct weir_bytes json; /* one change record, no newline; valid until the next call */
    uint64_t at_ms;         /* when it happened, as the record says */
    bool is_shipped;        /* the change that made the status "shipped" */
    bool is_insert, is_remove;
    uint32_t units; /* of an insert: units ordered */
};

#define WEIR_ORDERS_START_MS 1740816000000ull /* 2025-03-01T08:00:00Z */

enum weir_status weir_orders_new(uint64_t seed, uint32_t count, struct weir_orders **out);
void weir_orders_free(struct weir_orders *o);
/* Changes in all. */
uint32_t weir_orders_change_count(const struct weir_orders *o);
/* END after the last. */
enum weir_status weir_orders_next(struct weir_orders *o, struct weir_order_change *out);
