/* Any bytes as the file of settings: they are taken or refused with a reason. */
#include "base/assert.h"
#include "main/settings.h"
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int fd = memfd_create("config", MFD_CLOEXEC);
    WEIR_ASSERT(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    char flag[64];
    snprintf(flag, sizeof flag, "--config=/proc/self/fd/%d", fd);
    struct weir_command_line line;
    struct weir_settings settings;
    struct weir_error err = {0};
    enum weir_status st = weir_command_line_read(2, (const char *[]){"weir-broker", flag, NULL},
                                                 (const char *[]){NULL}, &line, &err);
    WEIR_ASSERT(!st);
    if (weir_settings_load(&line, &settings, &err)) {
        WEIR_ASSERT(err.text[0]);
    } else {
        struct weir_text text = {0};
        weir_settings_print(&settings, &text);
        WEIR_ASSERT(!text.failed && text.len > 0);
        weir_text_fini(&text);
        weir_settings_fini(&settings);
    }
    close(fd);
    return 0;
}
