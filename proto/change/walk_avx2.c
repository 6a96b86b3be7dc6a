/* The walk with AVX2; called only after weir_json_has_avx2(). */
#define WALK weir_change_walk_avx2
#include "change/walk.h"
