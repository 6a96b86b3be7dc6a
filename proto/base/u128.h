/* 128-bit unsigned numbers: hash keys, sequence numbers, identifiers. */
#pragma once
#include "base/bytes.h"
#include "base/status.h"

typedef unsigned __int128 weir_u128;

#define WEIR_U128_MAX (~(weir_u128)0)
#define WEIR_U128_DIGITS_MAX 39

/* Decimal digits without leading zeros into `out` (40 bytes), NUL-terminated; returns their count.
 */
size_t weir_u128_format(weir_u128 v, char out[WEIR_U128_DIGITS_MAX + 1]);
/* Decimal digits only, no sign, no blanks, no leading zero except "0" itself: else INVALID.
 * Over 2^128-1: TOO_BIG. */
enum weir_status weir_u128_parse(struct weir_bytes text, weir_u128 *out);
