/* Between loop.c and pool.c. */
#pragma once
#include "sys/loop.h"

/* The loop runs the job's work itself, before its next task. From the loop's thread. */
void weir_loop_run_inline(struct weir_loop *loop, struct weir_job *job);
/* Posts the job's `done`. Any thread. */
void weir_loop_post_done(struct weir_job *job);
