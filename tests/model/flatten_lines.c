/* Flattens change records, one a line, from standard input to standard output: what the model is
 * compared with. The options are those of flatten_model.py, and --portable. A record that is
 * refused ends it with status 1 and the reason. */
#include "change/flatten.h"
#include <stdio.h>
#include <stdlib.h>

static bool
take_option(struct weir_flatten_options *o, const char *name, const char *value, bool *took_value)
{
    const struct {
        const char *name;
        bool *flag;
    } flags[] = {
        {"--event-time-ms", &o->event_time_ms}, {"--numbers-as-text", &o->numbers_as_text},
        {"--with-old", &o->with_old},           {"--remove-old-image", &o->remove_old_image},
        {"--event-id", &o->event_id},           {"--table", &o->table},
        {"--portable", &o->portable},
    };
    *took_value = false;
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
        if (strcmp(name, flags[i].name) == 0) {
            *flags[i].flag = true;
            return true;
        }
    }
    if (!value)
        return false;
    *took_value = true;
    if (strcmp(name, "--seq") == 0)
        o->seq = weir_bytes_of(value);
    else if (strcmp(name, "--shard") == 0)
        o->shard = weir_bytes_of(value);
    else
        return false;
    return true;
}

static int
flatten_lines(const struct weir_flatten_options *options)
{
    struct weir_text line = {0};
    struct weir_error err = {0};
    char *record = NULL;
    size_t capacity = 0;
    ssize_t len;
    int status = 0;
    for (size_t number = 1; status == 0 && (len = getline(&record, &capacity, stdin)) > 0;
         number++) {
        weir_text_clear(&line);
        if (weir_flatten_append(weir_bytes(record, (size_t)len), options, &line, &err)) {
            fprintf(stderr, "line %zu: %s\n", number, err.text);
            status = 1;
        } else if (fwrite(line.data, 1, line.len, stdout) != line.len) {
            status = 1;
        }
    }
    free(record);
    weir_text_fini(&line);
    return fflush(stdout) ? 1 : status;
}

int
main(int argc, char **argv)
{
    struct weir_flatten_options options = {0};
    for (int i = 1; i < argc; i++) {
        bool took_value;
        if (!take_option(&options, argv[i], i + 1 < argc ? argv[i + 1] : NULL, &took_value)) {
            fprintf(stderr, "unknown option '%s'\n", argv[i]);
            return 2;
        }
        i += took_value;
    }
    return flatten_lines(&options);
}
