#include "main/program_log.h"
#include "base/text.h"
#include "json/writer.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

static const char *
level_name(int level)
{
    return level <= WEIR_ERROR     ? "error"
           : level <= WEIR_WARNING ? "warning"
           : level <= WEIR_INFO    ? "info"
                                   : "debug";
}

/* Control characters would forge lines. */
static void
put_clean(struct weir_text *line, const char *text)
{
    for (const char *c = text; *c; c++) {
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            weir_text_printf(line, "\\x%02x", (unsigned char)*c);
        else
            weir_text_append(line, weir_bytes(c, 1));
    }
}

static void
put_value(struct weir_text *line, const char *value)
{
    bool quoted = !*value || strpbrk(value, " \"=");
    if (!quoted) {
        put_clean(line, value);
        return;
    }
    weir_text_puts(line, "\"");
    weir_json_escape_append(line, weir_bytes_of(value));
    weir_text_puts(line, "\"");
}

static void
put_text(struct weir_text *line, const char *now, int level, const char *message,
         const struct weir_log_field *fields, size_t count)
{
    weir_text_printf(line, "%s %-7s ", now, level_name(level));
    put_clean(line, message);
    for (size_t i = 0; i < count; i++) {
        weir_text_printf(line, " %s=", fields[i].name);
        put_value(line, fields[i].value);
    }
}

static void
put_json(struct weir_text *line, const char *now, int level, const char *message,
         const struct weir_log_field *fields, size_t count)
{
    struct weir_json_writer w;
    weir_json_writer_init(&w, line);
    weir_json_begin_object(&w);
    weir_json_write_name(&w, "time");
    weir_json_write_text(&w, now);
    weir_json_write_name(&w, "level");
    weir_json_write_text(&w, level_name(level));
    weir_json_write_name(&w, "message");
    weir_json_write_text(&w, message);
    for (size_t i = 0; i < count; i++) {
        weir_json_write_name(&w, fields[i].name);
        weir_json_write_text(&w, fields[i].value);
    }
    weir_json_end_object(&w);
}

void
weir_program_log_write(struct weir_program_log *log, int level, const char *message,
                       const struct weir_log_field *fields, size_t count)
{
    if (level > atomic_load_explicit(&log->level, memory_order_relaxed))
        return;
    char now[25];
    weir_format_moment(weir_now_ms(log->clock), now);
    struct weir_text line = {0};
    if (atomic_load_explicit(&log->format, memory_order_relaxed) == WEIR_FORMAT_JSON)
        put_json(&line, now, level, message, fields, count);
    else
        put_text(&line, now, level, message, fields, count);
    weir_text_puts(&line, "\n");
    /* What cannot be logged cannot be said anywhere else. */
    if (!line.failed)
        while (write(log->fd, line.data, line.len) < 0 && errno == EINTR)
            ;
    weir_text_fini(&line);
}

void
weir_program_log_printf(struct weir_program_log *log, int level, const char *fmt, ...)
{
    char message[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(message, sizeof message, fmt, args);
    va_end(args);
    weir_program_log_write(log, level, message, NULL, 0);
}
