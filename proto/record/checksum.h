/* XXH3-128, in the widest vector form the machine has: the checksum of batches and files. Not for
 * secrets. Any thread. */
#pragma once
#include "base/u128.h"

weir_u128 weir_checksum(struct weir_bytes bytes);
