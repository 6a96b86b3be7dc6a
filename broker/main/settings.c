#include "main/settings.h"
#include "base/assert.h"
#include "base/checked.h"
#include "json/writer.h"
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct weir_setting_about weir_setting_about[WEIR_SETTING_COUNT] = {
#define X(id, name, kind, least, most, initial, reloadable, help) \
    [WEIR_SETTING_##id] = {name, WEIR_KIND_##kind, least, most, initial, reloadable, help},
    WEIR_SETTINGS(X)
#undef X
};

static const char *const kind_form[] = {
    [WEIR_KIND_PATH] = "PATH", [WEIR_KIND_URLS] = "URL,...",  [WEIR_KIND_COUNT] = "N",
    [WEIR_KIND_SIZE] = "SIZE", [WEIR_KIND_DURATION] = "TIME", [WEIR_KIND_CHOICE] = "WORD",
};
static const char *const kind_text[] = {
    [WEIR_KIND_COUNT] = "a number",
    [WEIR_KIND_SIZE] = "a size such as 512KiB",
    [WEIR_KIND_DURATION] = "a length of time such as 5s",
};
static const char *const schemes[] = {"tcp://", "tls+tcp://", "ipc://", "abstract://"};

enum weir_setting_id
weir_setting_find(struct weir_bytes name)
{
    int id = 0;
    while (id < WEIR_SETTING_COUNT && !weir_bytes_is(name, weir_setting_about[id].name))
        id++;
    return (enum weir_setting_id)id;
}

void
weir_setting_environment(enum weir_setting_id id, char out[64])
{
    snprintf(out, 64, "WEIR_%s", weir_setting_about[id].name);
    for (char *c = out; *c; c++)
        *c = *c == '-' ? '_' : (char)toupper((unsigned char)*c);
}

void
weir_setting_range(enum weir_setting_id id, char out[96])
{
    const struct weir_setting_about *a = &weir_setting_about[id];
    out[0] = '\0';
    if (a->kind != WEIR_KIND_CHOICE) {
        if (a->least)
            snprintf(out, 96, "%s to %s", a->least, a->most);
        return;
    }
    size_t len = 0;
    for (const char *c = a->least; *c && len < 90; c++) {
        if (*c == '|')
            len += (size_t)snprintf(out + len, 96 - len, strchr(c + 1, '|') ? ", " : " or ");
        else
            out[len++] = *c;
    }
    out[len] = '\0';
}

static enum weir_status
parse(enum weir_setting_kind kind, struct weir_bytes text, uint64_t *out)
{
    switch (kind) {
    case WEIR_KIND_COUNT:
        return weir_parse_u64(text, out);
    case WEIR_KIND_SIZE:
        return weir_parse_size(text, out);
    case WEIR_KIND_DURATION:
        return weir_parse_duration(text, out);
    case WEIR_KIND_PATH:
    case WEIR_KIND_URLS:
    case WEIR_KIND_CHOICE:
        break;
    }
    return WEIR_INVALID;
}

static uint64_t
parse_known(enum weir_setting_kind kind, const char *text)
{
    uint64_t number;
    enum weir_status st = parse(kind, weir_bytes_of(text), &number);
    WEIR_ASSERT(!st);
    return number;
}

static bool
find_word(const char *words, struct weir_bytes word, uint64_t *index_out)
{
    for (uint64_t index = 0;; index++) {
        size_t len = strcspn(words, "|");
        if (weir_bytes_equal(weir_bytes(words, len), word)) {
            *index_out = index;
            return true;
        }
        if (!words[len])
            return false;
        words += len + 1;
    }
}

static enum weir_status
set_number(struct weir_settings *s, enum weir_setting_id id, struct weir_bytes value,
           const char *from, struct weir_error *err)
{
    const struct weir_setting_about *a = &weir_setting_about[id];
    uint64_t number;
    enum weir_status st = parse(a->kind, value, &number);
    if (st == WEIR_INVALID)
        return weir_fail(err, st, "%s: '%s' must be %s, not '%.*s'", from, a->name,
                         kind_text[a->kind], (int)value.len, (const char *)value.data);
    if (st || number < parse_known(a->kind, a->least) || number > parse_known(a->kind, a->most))
        return weir_fail(err, WEIR_TOO_BIG, "%s: '%s' must be %s to %s, not '%.*s'", from, a->name,
                         a->least, a->most, (int)value.len, (const char *)value.data);
    s->value[id].number = number;
    return WEIR_OK;
}

static bool
has_scheme(const char *url)
{
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++)
        if (!strncmp(url, schemes[i], strlen(schemes[i])))
            return url[strlen(schemes[i])] != '\0';
    return false;
}

static enum weir_status
set_urls(struct weir_settings *s, const char *name, const char *text, const char *from,
         struct weir_error *err)
{
    char *copy = strdup(text);
    if (!copy)
        return weir_fail(err, WEIR_NO_MEMORY, "%s: '%s': out of memory", from, name);
    free(s->url_text);
    s->url_text = copy;
    s->url_count = 0;
    for (char *url; (url = strsep(&copy, ","));) {
        url += strspn(url, " ");
        size_t len = strlen(url);
        while (len > 0 && url[len - 1] == ' ')
            url[--len] = '\0';
        if (!has_scheme(url) || len > 250)
            return weir_fail(err, WEIR_INVALID,
                             "%s: '%s' must be addresses such as tcp://127.0.0.1:7070, not '%s'",
                             from, name, url);
        if (s->url_count == WEIR_SETTING_URLS_MAX)
            return weir_fail(err, WEIR_TOO_BIG, "%s: '%s' has more than %d addresses", from, name,
                             WEIR_SETTING_URLS_MAX);
        s->url[s->url_count++] = url;
    }
    return WEIR_OK;
}

enum weir_status
weir_settings_set(struct weir_settings *s, enum weir_setting_id id, struct weir_bytes value,
                  const char *from, struct weir_error *err)
{
    const struct weir_setting_about *a = &weir_setting_about[id];
    if (value.len > 0 && memchr(value.data, 0, value.len))
        return weir_fail(err, WEIR_INVALID, "%s: '%s' has a NUL in it", from, a->name);
    char *text = strndup((const char *)value.data, value.len);
    if (!text)
        return weir_fail(err, WEIR_NO_MEMORY, "%s: '%s': out of memory", from, a->name);

    enum weir_status st = WEIR_OK;
    switch (a->kind) {
    case WEIR_KIND_PATH:
        break;
    case WEIR_KIND_URLS:
        st = set_urls(s, a->name, text, from, err);
        break;
    case WEIR_KIND_CHOICE:
        if (!find_word(a->least, value, &s->value[id].number)) {
            char range[96];
            weir_setting_range(id, range);
            st = weir_fail(err, WEIR_INVALID, "%s: '%s' must be %s, not '%s'", from, a->name, range,
                           text);
        }
        break;
    case WEIR_KIND_COUNT:
    case WEIR_KIND_SIZE:
    case WEIR_KIND_DURATION:
        st = set_number(s, id, value, from, err);
        break;
    }
    if (st) {
        free(text);
        return st;
    }
    free(s->value[id].text);
    s->value[id].text = text;
    snprintf(s->value[id].from, sizeof s->value[id].from, "%s", from);
    return WEIR_OK;
}

const char *
weir_setting_text(const struct weir_settings *s, enum weir_setting_id id)
{
    return s->value[id].text;
}

uint64_t
weir_setting_number(const struct weir_settings *s, enum weir_setting_id id)
{
    WEIR_ASSERT(weir_setting_about[id].kind >= WEIR_KIND_COUNT);
    return s->value[id].number;
}

void
weir_settings_fini(struct weir_settings *s)
{
    for (int id = 0; id < WEIR_SETTING_COUNT; id++)
        free(s->value[id].text);
    free(s->url_text);
    memset(s, 0, sizeof *s);
}

/* ---- command line and environment ---- */

/* The value behind the '=' of "--name=value", or NULL where it is another flag. */
static const char *
flag_value(const char *argument, const char *name)
{
    size_t len = strlen(name);
    if (strncmp(argument, "--", 2) || strncmp(argument + 2, name, len) || argument[2 + len] != '=')
        return NULL;
    return argument + 3 + len;
}

static enum weir_status
read_argument(struct weir_command_line *line, const char *argument, struct weir_error *err)
{
    static const struct {
        const char *flag;
        enum weir_action action;
    } actions[] = {
        {"--help", WEIR_ACTION_HELP},
        {"-h", WEIR_ACTION_HELP},
        {"--version", WEIR_ACTION_VERSION},
        {"--print-config", WEIR_ACTION_PRINT_CONFIG},
        {"--check-config", WEIR_ACTION_CHECK_CONFIG},
    };
    for (size_t i = 0; i < sizeof actions / sizeof *actions; i++)
        if (!strcmp(argument, actions[i].flag)) {
            line->action = actions[i].action;
            return WEIR_OK;
        }
    const char *value;
    if ((value = flag_value(argument, "config"))) {
        line->config = value;
        return WEIR_OK;
    }
    if ((value = flag_value(argument, "ready-file"))) {
        line->ready_file = value;
        return WEIR_OK;
    }
    if ((value = flag_value(argument, "ready-fd"))) {
        uint64_t fd;
        if (weir_parse_u64(weir_bytes_of(value), &fd) || fd > 1000000)
            return weir_fail(err, WEIR_INVALID, "'--ready-fd' must be a descriptor, not '%s'",
                             value);
        line->ready_fd = (int)fd;
        return WEIR_OK;
    }
    if (strncmp(argument, "--", 2))
        return weir_fail(err, WEIR_INVALID, "'%s' is no flag; see --help", argument);
    size_t len = strcspn(argument + 2, "=");
    if (weir_setting_find(weir_bytes(argument + 2, len)) == WEIR_SETTING_COUNT)
        return weir_fail(err, WEIR_INVALID, "unknown flag '%s'; see --help", argument);
    if (!argument[2 + len])
        return weir_fail(err, WEIR_INVALID, "flag '%s' needs a value: %s=VALUE", argument,
                         argument);
    return WEIR_OK;
}

enum weir_status
weir_command_line_read(int argc, const char *const *argv, const char *const *environment,
                       struct weir_command_line *out, struct weir_error *err)
{
    struct weir_command_line line = {
        .ready_fd = -1, .argc = argc, .argv = argv, .environment = environment};
    for (const char *const *e = environment; e && *e; e++)
        if (!strncmp(*e, "WEIR_CONFIG=", 12) && (*e)[12])
            line.config = *e + 12;
    for (int i = 1; i < argc; i++) {
        enum weir_status st = read_argument(&line, argv[i], err);
        if (st)
            return st;
    }
    *out = line;
    return WEIR_OK;
}

static const char *
environment_value(const char *const *environment, const char *name)
{
    size_t len = strlen(name);
    for (const char *const *e = environment; e && *e; e++)
        if (!strncmp(*e, name, len) && (*e)[len] == '=')
            return *e + len + 1;
    return NULL;
}

static enum weir_status
read_environment(struct weir_settings *s, const char *const *environment, struct weir_error *err)
{
    for (int id = 0; id < WEIR_SETTING_COUNT; id++) {
        char name[64];
        weir_setting_environment((enum weir_setting_id)id, name);
        const char *value = environment_value(environment, name);
        if (!value)
            continue;
        enum weir_status st = weir_settings_set(s, (enum weir_setting_id)id, weir_bytes_of(value),
                                                "environment", err);
        if (st)
            return st;
    }
    return WEIR_OK;
}

static enum weir_status
read_flags(struct weir_settings *s, const struct weir_command_line *line, struct weir_error *err)
{
    for (int i = 1; i < line->argc; i++)
        for (int id = 0; id < WEIR_SETTING_COUNT; id++) {
            const char *value = flag_value(line->argv[i], weir_setting_about[id].name);
            if (!value)
                continue;
            enum weir_status st =
                weir_settings_set(s, (enum weir_setting_id)id, weir_bytes_of(value), "flag", err);
            if (st)
                return st;
        }
    return WEIR_OK;
}

/* What one setting alone cannot know. */
static enum weir_status
check_together(const struct weir_settings *s, struct weir_error *err)
{
    bool tls = false;
    for (size_t i = 0; i < s->url_count; i++)
        tls |= !strncmp(s->url[i], "tls+tcp://", 10);
    bool certificate = weir_setting_text(s, WEIR_SETTING_TLS_CERTIFICATE)[0] != '\0';
    bool key = weir_setting_text(s, WEIR_SETTING_TLS_KEY)[0] != '\0';
    if (certificate != key || (tls && !key))
        return weir_fail(err, WEIR_INVALID,
                         "'tls-certificate' and 'tls-key' are needed both for a tls+tcp address");
    if (weir_setting_number(s, WEIR_SETTING_PREWRITE) >
        16 * weir_setting_number(s, WEIR_SETTING_SEGMENT_SIZE))
        return weir_fail(err, WEIR_INVALID, "'prewrite' must be at most 16 times 'segment-size'");
    if (weir_setting_number(s, WEIR_SETTING_GROUP_SIZE) >
        weir_setting_number(s, WEIR_SETTING_SEGMENT_SIZE))
        return weir_fail(err, WEIR_INVALID, "'group-size' must be at most 'segment-size'");
    if (!weir_setting_text(s, WEIR_SETTING_DATA)[0])
        return weir_fail(err, WEIR_INVALID, "'data' must name a directory");
    return WEIR_OK;
}

enum weir_status
weir_settings_load(const struct weir_command_line *line, struct weir_settings *out,
                   struct weir_error *err)
{
    struct weir_settings *s = calloc(1, sizeof *s);
    if (!s)
        return weir_fail(err, WEIR_NO_MEMORY, "out of memory");
    enum weir_status st = WEIR_OK;
    for (int id = 0; id < WEIR_SETTING_COUNT && !st; id++)
        st = weir_settings_set(s, (enum weir_setting_id)id,
                               weir_bytes_of(weir_setting_about[id].initial), "default", err);
    const char *state = environment_value(line->environment, "STATE_DIRECTORY");
    if (!st && state && state[0])
        st = weir_settings_set(s, WEIR_SETTING_DATA, weir_bytes(state, strcspn(state, ":")),
                               "systemd", err);
    if (!st && line->config)
        st = weir_settings_read_file(s, line->config, err);
    if (!st)
        st = read_environment(s, line->environment, err);
    if (!st)
        st = read_flags(s, line, err);
    if (!st)
        st = check_together(s, err);
    if (st)
        weir_settings_fini(s);
    else
        *out = *s; /* the caller's now */
    free(s);
    return st;
}

/* ---- what people read ---- */

static void
print_wrapped(struct weir_text *out, const char *prefix, const char *text, size_t width)
{
    while (*text) {
        size_t len = strlen(text);
        if (len > width) {
            len = width;
            while (len > 0 && text[len] != ' ')
                len--;
            WEIR_ASSERT(len > 0);
        }
        weir_text_printf(out, "%s%.*s\n", prefix, (int)len, text);
        text += len;
        text += strspn(text, " ");
    }
}

static void
print_quoted(struct weir_text *out, const char *text)
{
    weir_text_puts(out, "\"");
    weir_json_escape_append(out, weir_bytes_of(text));
    weir_text_puts(out, "\"");
}

void
weir_settings_print(const struct weir_settings *s, struct weir_text *out)
{
    for (int id = 0; id < WEIR_SETTING_COUNT; id++) {
        const struct weir_setting_about *a = &weir_setting_about[id];
        char range[96];
        weir_setting_range((enum weir_setting_id)id, range);
        if (id > 0)
            weir_text_puts(out, "\n");
        print_wrapped(out, "# ", a->help, 96);
        weir_text_printf(out, "# %s%sdefault %s; here from %s%s\n", range, range[0] ? "; " : "",
                         a->initial[0] ? a->initial : "none", s->value[id].from,
                         a->reloadable ? "; SIGHUP changes it" : "");
        weir_text_printf(out, "%s:", a->name);
        if (a->kind == WEIR_KIND_URLS) {
            for (size_t i = 0; i < s->url_count; i++) {
                weir_text_puts(out, "\n  - ");
                print_quoted(out, s->url[i]);
            }
        } else {
            weir_text_puts(out, " ");
            if (a->kind == WEIR_KIND_PATH)
                print_quoted(out, s->value[id].text);
            else
                weir_text_puts(out, s->value[id].text);
        }
        weir_text_puts(out, "\n");
    }
}

void
weir_settings_print_help(struct weir_text *out)
{
    weir_text_puts(out,
                   "usage: weir-broker [--config=FILE] [--SETTING=VALUE...]\n"
                   "\n"
                   "  --config=FILE         settings as YAML, \"name: value\" (or WEIR_CONFIG)\n"
                   "  --check-config        check all settings, say what is wrong, and exit\n"
                   "  --print-config        print the settings in effect as such a file, and exit\n"
                   "  --ready-fd=N          write the addresses to this descriptor when ready\n"
                   "  --ready-file=PATH     write the addresses to this file when ready\n"
                   "  --version, --help\n"
                   "\n"
                   "Settings: a flag goes before the environment (WEIR_SEGMENT_SIZE), that before "
                   "the file\n");
    for (int id = 0; id < WEIR_SETTING_COUNT; id++) {
        const struct weir_setting_about *a = &weir_setting_about[id];
        char range[96];
        weir_setting_range((enum weir_setting_id)id, range);
        weir_text_printf(out, "  --%s=%s\n", a->name, kind_form[a->kind]);
        print_wrapped(out, "                        ", a->help, 72);
        weir_text_printf(out, "                        %s%sdefault %s\n", range,
                         range[0] ? "; " : "", a->initial[0] ? a->initial : "none");
    }
    weir_text_puts(out, "\n"
                        "Signals: SIGTERM and SIGINT drain and exit (a second one exits at once); "
                        "SIGHUP reads the\nsettings again.\n"
                        "\n"
                        "Exit status: 0 stopped as asked, 1 failed, 2 wrong usage or settings, "
                        "3 the data directory\nis in use, 4 stopped before everything was "
                        "drained.\n");
}
