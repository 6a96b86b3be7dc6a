#include "main/daemon.h"
#include <stdio.h>
#include <unistd.h>

static int
usage_error(const struct weir_error *err)
{
    fprintf(stderr, "weir-broker: %s\n", err->text);
    return WEIR_EXIT_USAGE;
}

static int
print(struct weir_text *text)
{
    bool written = !text->failed && fwrite(text->data, 1, text->len, stdout) == text->len &&
                   fflush(stdout) == 0;
    weir_text_fini(text);
    return written ? 0 : WEIR_EXIT_FAILED;
}

int
main(int argc, char **argv)
{
    struct weir_command_line line;
    struct weir_settings settings = {0};
    struct weir_error err = {0};
    struct weir_text text = {0};
    if (weir_command_line_read(argc, (const char *const *)argv, (const char *const *)environ, &line,
                               &err))
        return usage_error(&err);
    if (line.action == WEIR_ACTION_HELP) {
        weir_settings_print_help(&text);
        return print(&text);
    }
    if (line.action == WEIR_ACTION_VERSION) {
        weir_text_puts(&text, "weir-broker " WEIR_VERSION "\n");
        return print(&text);
    }
    if (weir_settings_load(&line, &settings, &err))
        return usage_error(&err);

    int status = 0;
    if (line.action == WEIR_ACTION_PRINT_CONFIG) {
        weir_settings_print(&settings, &text);
        status = print(&text);
    } else if (line.action == WEIR_ACTION_RUN) {
        struct weir_program_log log = {.clock = weir_clock_system(), .fd = STDERR_FILENO};
        weir_daemon_apply_log(&settings, &log);
        status = weir_daemon_run(&line, &settings, &log);
    }
    weir_settings_fini(&settings);
    return status;
}
