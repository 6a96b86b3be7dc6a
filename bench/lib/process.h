/* Child processes: started, watched, and gone when the benchmark is.
 *
 * The kernel kills a child when the benchmark's first thread ends, however it ends, so start them
 * from that thread. */
#pragma once
#include <stdint.h>
#include <sys/types.h>

struct weir_child {
    pid_t pid;
    int ready; /* the child's --ready-fd writes here; -1: none */
};

/* Starts argv[0] (looked up in PATH). With `ready_flag` ("--ready-fd=") the child gets that flag
 * with a descriptor, as its last argument. Its output goes to `log_path`. */
void weir_child_start(const char *const *argv, const char *ready_flag, const char *log_path,
                      struct weir_child *out);
/* What the child says on its ready descriptor, up to the first newline; dies when the child ends
 * first or says nothing within 60 s. */
void weir_child_wait_ready(struct weir_child *child, char *line, size_t size);
/* Sends `signal` and waits for the end, up to 30 s; then SIGKILL. */
void weir_child_end(struct weir_child *child, int signal);
/* CPU seconds of all its threads so far, user and system. */
double weir_child_cpu_s(const struct weir_child *child);
/* Resident memory now, in bytes. */
uint64_t weir_child_rss(const struct weir_child *child);
