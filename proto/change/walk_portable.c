/* The walk for every machine. */
#define WALK weir_change_walk_portable
#include "change/walk.h"
