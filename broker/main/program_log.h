/* The program's own log: lines on standard error, as text or as JSON.
 *
 *   2026-11-28T09:00:00.123Z info    ready address=tcp://127.0.0.1:7070
 *   {"time":"2026-11-28T09:00:00.123Z","level":"info","message":"ready","address":"tcp://…"}
 *
 * A line is one write, so lines of threads do not mix. Any thread. */
#pragma once
#include "sys/clock.h"
#include <stdatomic.h>
#include <stddef.h>

/* As syslog's. */
enum weir_level { WEIR_ERROR = 3, WEIR_WARNING = 4, WEIR_INFO = 6, WEIR_DEBUG = 7 };
enum weir_log_format { WEIR_FORMAT_TEXT, WEIR_FORMAT_JSON };

struct weir_program_log {
    struct weir_clock *clock;
    int fd;
    _Atomic int level, format; /* enum weir_level, enum weir_log_format */
};

struct weir_log_field {
    const char *name, *value;
};

/* Severities above log->level are left out. */
void weir_program_log_write(struct weir_program_log *log, int level, const char *message,
                            const struct weir_log_field *fields, size_t count);
[[gnu::format(printf, 3, 4)]] void weir_program_log_printf(struct weir_program_log *log, int level,
                                                           const char *fmt, ...);
