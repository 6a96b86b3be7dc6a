/* Options and operands, by the tables. Long options only: --name VALUE or --name=VALUE; "--" ends
 * them. Global options may stand anywhere. */
#include "command.h"
#include "record/sequence.h"
#include "sys/clock.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static const struct option *
find_option(const struct option *options, const char *name, size_t len, size_t *index_out)
{
    for (size_t i = 0; options[i].name; i++)
        if (strlen(options[i].name) == len && memcmp(options[i].name, name, len) == 0) {
            *index_out = i;
            return &options[i];
        }
    return NULL;
}

static bool
find_value(const struct args *a, const char *name, const char **out)
{
    size_t index;
    if (!find_option(a->command->options, name, strlen(name), &index) || !a->value[index])
        return false;
    *out = a->value[index];
    return true;
}

bool
args_has(const struct args *a, const char *name)
{
    const char *ignored;
    return find_value(a, name, &ignored);
}

const char *
args_text(const struct args *a, const char *name, const char *fallback)
{
    const char *text;
    return find_value(a, name, &text) ? text : fallback;
}

bool
args_number(const struct args *a, const char *name, uint64_t max, uint64_t *out)
{
    const char *text;
    uint64_t v;
    if (!find_value(a, name, &text))
        return true;
    if (weir_parse_u64(weir_bytes_of(text), &v) || v > max) {
        bad_usage(a, "--%s '%s' is not a number from 0 to %lu", name, text, (unsigned long)max);
        return false;
    }
    *out = v;
    return true;
}

bool
args_size(const struct args *a, const char *name, uint64_t *out)
{
    const char *text;
    if (!find_value(a, name, &text) || !weir_parse_size(weir_bytes_of(text), out))
        return true;
    bad_usage(a, "--%s '%s' is not a size (512, 64KiB, 10MiB)", name, text);
    return false;
}

bool
args_duration(const struct args *a, const char *name, uint64_t *out)
{
    const char *text;
    if (!find_value(a, name, &text) || !weir_parse_duration(weir_bytes_of(text), out))
        return true;
    bad_usage(a, "--%s '%s' is not a length of time (250ms, 10s, 5m, 24h, 7d)", name, text);
    return false;
}

bool
args_moment(const struct args *a, const char *name, uint64_t *out)
{
    const char *text;
    if (!find_value(a, name, &text) || !weir_parse_moment(weir_bytes_of(text), now_ms(), out))
        return true;
    bad_usage(a, "--%s '%s' is not a moment (2026-11-28T09:00:00Z, @1764320000, -1h)", name, text);
    return false;
}

bool
args_where(const struct args *a, const char *name, struct weir_from *out)
{
    const char *text;
    if (!find_value(a, name, &text))
        return true;
    struct weir_from from = {0};
    struct weir_sequence sequence;
    if (strcmp(text, "oldest") == 0)
        from.kind = WEIR_FROM_OLDEST;
    else if (strcmp(text, "latest") == 0)
        from.kind = WEIR_FROM_LATEST;
    else if (strcmp(text, "checkpoint") == 0)
        from.kind = WEIR_FROM_CHECKPOINT;
    else if (strncmp(text, "offset:", 7) == 0 &&
             !weir_parse_u64(weir_bytes_of(text + 7), &from.offset))
        from.kind = WEIR_FROM_OFFSET;
    else if (!weir_sequence_parse(weir_bytes_of(text), &sequence)) {
        from.kind = WEIR_FROM_SEQUENCE;
        from.sequence = text;
    } else if (!weir_parse_moment(weir_bytes_of(text), now_ms(), &from.at_ms))
        from.kind = WEIR_FROM_TIME;
    else {
        bad_usage(a,
                  "--%s '%s' is not oldest, latest, checkpoint, offset:N, a sequence number or a "
                  "moment",
                  name, text);
        return false;
    }
    *out = from;
    return true;
}

bool
parse_shard(const char *text, uint32_t *out)
{
    return !weir_shard_id_parse(weir_bytes_of(text), out);
}

uint64_t
now_ms(void)
{
    return weir_now_ms(weir_clock_system());
}

static void
say(const struct args *a, const char *fmt, va_list list)
{
    fprintf(stderr, "weir");
    if (a && a->command)
        fprintf(stderr, " %s", a->command->name);
    fprintf(stderr, ": ");
    vfprintf(stderr, fmt, list);
    fprintf(stderr, "\n");
}

void
complain(const struct args *a, const char *fmt, ...)
{
    va_list list;
    va_start(list, fmt);
    say(a, fmt, list);
    va_end(list);
}

enum weir_exit
bad_usage(const struct args *a, const char *fmt, ...)
{
    va_list list;
    va_start(list, fmt);
    say(a, fmt, list);
    va_end(list);
    return EXIT_USAGE;
}

enum weir_exit
failed(const struct args *a, const struct weir_error *err)
{
    complain(a, "%s", err->text[0] ? err->text : weir_status_text(err->status));
    return err->status == WEIR_UNAVAILABLE ? EXIT_NO_BROKER : EXIT_REFUSED;
}

struct weir_client *
connect_or_complain(const struct args *a)
{
    struct weir_client *client = NULL;
    struct weir_error err = {0};
    struct weir_client_options options = {.url = a->broker, .name = "weir"};
    if (weir_client_open(&options, &client, &err)) {
        failed(a, &err);
        return NULL;
    }
    return client;
}

/* ---- main ---- */

static size_t
count_operands(const char *pattern, size_t *required_out)
{
    size_t count = 0, required = 0;
    for (const char *p = pattern; *p;) {
        size_t len = strcspn(p, " ");
        count++;
        required += *p != '[';
        p += len + (p[len] == ' ');
    }
    *required_out = required;
    return count;
}

static bool
take_option(struct args *a, const char *text, char **argv, int argc, int *i, bool *help,
            bool *version)
{
    const char *name = text + 2;
    size_t len = strcspn(name, "="), index;
    const char *value = name[len] == '=' ? name + len + 1 : NULL;
    bool global = true;
    const struct option *option = find_option(global_options, name, len, &index);
    if (!option && a->command) {
        option = find_option(a->command->options, name, len, &index);
        global = false;
    }
    if (!option) {
        bad_usage(a, "no option '--%.*s'%s", (int)len, name,
                  a->command ? "" : " (a command's options stand behind its name)");
        return false;
    }
    if (option->type == FLAG && value) {
        bad_usage(a, "'--%s' takes no value", option->name);
        return false;
    }
    if (option->type != FLAG && !value) {
        if (*i + 1 >= argc) {
            bad_usage(a, "'--%s' wants %s", option->name, option->argument);
            return false;
        }
        value = argv[++*i];
    }
    if (!global)
        a->value[index] = value ? value : "";
    else if (strcmp(option->name, "broker") == 0)
        a->broker = value;
    else if (strcmp(option->name, "json") == 0)
        a->json = true;
    else if (strcmp(option->name, "quiet") == 0)
        a->quiet = true;
    else if (strcmp(option->name, "version") == 0)
        *version = true;
    else
        *help = true;
    return true;
}

static const struct command *
find_command(const char *name)
{
    for (size_t i = 0; i < command_count; i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

enum weir_exit
run_help(struct args *a)
{
    if (a->operand_count == 0) {
        print_usage(stdout);
        return EXIT_DONE;
    }
    const struct command *c = find_command(a->operand[0]);
    if (!c)
        return bad_usage(a, "no command '%s'", a->operand[0]);
    print_command_help(stdout, c);
    return EXIT_DONE;
}

enum weir_exit
run_man(struct args *a)
{
    (void)a;
    print_man_page(stdout);
    return EXIT_DONE;
}

enum weir_exit
run_completion(struct args *a)
{
    if (!print_completion(stdout, a->operand[0]))
        return bad_usage(a, "no completion for '%s': bash, zsh or fish", a->operand[0]);
    return EXIT_DONE;
}

int
main(int argc, char **argv)
{
    struct args a = {.program = argv[0], .broker = getenv("WEIR_BROKER")};
    bool help = false, version = false, options_over = false;
    for (int i = 1; i < argc; i++) {
        const char *text = argv[i];
        if (!options_over && strcmp(text, "--") == 0) {
            options_over = true;
        } else if (!options_over && strncmp(text, "--", 2) == 0) {
            if (!take_option(&a, text, argv, argc, &i, &help, &version))
                return EXIT_USAGE;
        } else if (!options_over && text[0] == '-' && text[1] == 'h' && !text[2]) {
            help = true;
        } else if (!a.command) {
            a.command = find_command(text);
            if (!a.command)
                return bad_usage(&a, "no command '%s'; 'weir help' lists them", text);
        } else if (a.operand_count == OPERANDS_MAX) {
            return bad_usage(&a, "too many operands at '%s'", text);
        } else {
            a.operand[a.operand_count++] = text;
        }
    }
    if (version) {
        printf("weir %s\n", weir_version());
        return EXIT_DONE;
    }
    if (!a.command) {
        print_usage(help ? stdout : stderr);
        return help ? EXIT_DONE : EXIT_USAGE;
    }
    if (help) {
        print_command_help(stdout, a.command);
        return EXIT_DONE;
    }
    size_t required, count = count_operands(a.command->operands, &required);
    if (a.operand_count < required || a.operand_count > count)
        return bad_usage(&a, "usage: weir %s%s%s", a.command->name, count ? " " : "",
                         a.command->operands);
    enum weir_exit st = a.command->run(&a);
    if (fflush(stdout) && st == EXIT_DONE) {
        complain(&a, "cannot write to standard output");
        st = EXIT_REFUSED;
    }
    return st;
}
