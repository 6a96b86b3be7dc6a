/* NNG's errors in our words. Private to this module. */
#pragma once
#include "base/status.h"

enum weir_status weir_status_from_nng(int rv);
