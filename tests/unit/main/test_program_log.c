#include "main/program_log.h"
#include <criterion/criterion.h>
#include <string.h>
#include <unistd.h>

static struct weir_clock_manual manual;
static struct weir_program_log log_;
static int read_end;
static char line[4096];

static void
setup(void)
{
    int fds[2];
    cr_assert_eq(pipe(fds), 0);
    read_end = fds[0];
    weir_clock_manual_init(&manual, 1764320000123);
    log_ = (struct weir_program_log){.clock = &manual.clock, .fd = fds[1], .level = WEIR_INFO};
}

static void
teardown(void)
{
    close(log_.fd);
    close(read_end);
}

TestSuite(program_log, .init = setup, .fini = teardown);

static const char *
next_line(void)
{
    ssize_t n = read(read_end, line, sizeof line - 1);
    cr_assert_gt(n, 0);
    line[n] = '\0';
    return line;
}

/* A line has time, level, message and fields; a value with blanks is quoted. */
Test(program_log, writes_text)
{
    struct weir_log_field fields[] = {{"peer", "tcp 127.0.0.1:1"}, {"count", "3"}};
    weir_program_log_write(&log_, WEIR_WARNING, "connection closed", fields, 2);
    cr_assert_str_eq(next_line(), "2025-11-28T08:53:20.123Z warning connection closed "
                                  "peer=\"tcp 127.0.0.1:1\" count=3\n");
}

/* JSON lines stay JSON whatever is logged. */
Test(program_log, writes_json)
{
    log_.format = WEIR_FORMAT_JSON;
    struct weir_log_field fields[] = {{"peer", "a\"b\n"}};
    weir_program_log_write(&log_, WEIR_ERROR, "bad \x01 byte", fields, 1);
    cr_assert_str_eq(next_line(),
                     "{\"time\":\"2025-11-28T08:53:20.123Z\",\"level\":\"error\",\"message\":"
                     "\"bad \\u0001 byte\",\"peer\":\"a\\\"b\\n\"}\n");
}

/* What a peer sends cannot forge a line. */
Test(program_log, keeps_one_message_on_one_line)
{
    struct weir_log_field fields[] = {{"name", "a b\n2025 error forged"}};
    weir_program_log_write(&log_, WEIR_INFO, "first\nsecond\x1b[31m", fields, 1);
    const char *text = next_line();
    cr_assert_eq(strchr(text, '\n'), text + strlen(text) - 1);
    cr_assert_null(strchr(text, '\x1b'));
}

/* Messages below the level are left out. */
Test(program_log, keeps_its_level)
{
    weir_program_log_printf(&log_, WEIR_DEBUG, "detail");
    weir_program_log_printf(&log_, WEIR_INFO, "shown %d", 1);
    cr_assert_str_eq(next_line(), "2025-11-28T08:53:20.123Z info    shown 1\n");
}
