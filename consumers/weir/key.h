/* Partition keys out of JSON lines. */
#pragma once
#include "base/error.h"
#include "base/text.h"

/* The key that `path` ("dynamodb.Keys.orderId") leads to, into `out`. A string or number is the key
 * as it is; {"S":"x"} and its like give x; another object or array gives its text as it stands.
 * NOT_FOUND: no such member; INVALID: the line is not JSON; TOO_BIG: over 256 characters. */
enum weir_status key_from_path(struct weir_bytes line, const char *path, struct weir_text *out,
                               struct weir_error *err);
/* A change record's key: 32 hex digits of a hash over its Keys, the same for all records of one
 * item whatever the order of its key attributes. */
enum weir_status key_from_change(struct weir_bytes line, struct weir_text *out,
                                 struct weir_error *err);
