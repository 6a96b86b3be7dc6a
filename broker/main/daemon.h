/* The broker as a process: opens everything in order, says when it is ready, waits for signals,
 * drains, and closes everything in the opposite order.
 *
 *   settings ─> data directory ─> service (locks, recovers) ─> native door (listens) ─> ready
 *   SIGTERM, SIGINT ─> door and service drain ─> all taken is on disk, peers have left ─> closed,
 * exit SIGHUP ─> settings are read again; what can be changed is, the rest is named
 *
 * Threads: the process's first thread, which runs no loop. */
#pragma once
#include "main/program_log.h"
#include "main/settings.h"

enum weir_exit {
    WEIR_EXIT_STOPPED = 0,
    WEIR_EXIT_FAILED = 1,
    WEIR_EXIT_USAGE = 2,
    WEIR_EXIT_IN_USE = 3,
    WEIR_EXIT_FORCED = 4,
};

/* Runs until a signal ends it. `settings` is replaced by what a reload brings. */
enum weir_exit weir_daemon_run(const struct weir_command_line *line, struct weir_settings *settings,
                               struct weir_program_log *log);
/* Level and format of the log as the settings say. */
void weir_daemon_apply_log(const struct weir_settings *settings, struct weir_program_log *log);
