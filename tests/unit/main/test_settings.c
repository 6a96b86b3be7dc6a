#include "main/settings.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define OK(call) cr_assert_eq((call), WEIR_OK, "%s: %s", #call, err.text)

static struct weir_error err;
static struct weir_settings s;
static struct weir_command_line line;
static char path[] = "/tmp/weir-settings-XXXXXX";

static void
setup(void)
{
    int fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    close(fd);
}

static void
teardown(void)
{
    unlink(path);
    weir_settings_fini(&s);
}

TestSuite(settings, .init = setup, .fini = teardown);

static void
write_file(const char *text)
{
    FILE *f = fopen(path, "w");
    cr_assert(f);
    fputs(text, f);
    fclose(f);
}

static enum weir_status
load(const char *const *argv, const char *const *environment)
{
    int argc = 0;
    while (argv[argc])
        argc++;
    weir_settings_fini(&s);
    memset(&err, 0, sizeof err);
    enum weir_status st = weir_command_line_read(argc, argv, environment, &line, &err);
    return st ? st : weir_settings_load(&line, &s, &err);
}

static enum weir_status
load_file(const char *text)
{
    char flag[64];
    write_file(text);
    snprintf(flag, sizeof flag, "--config=%s", path);
    return load((const char *[]){"weir-broker", flag, NULL}, (const char *[]){NULL});
}

/* Each default lies within its own range, and can be said in each of the three ways. */
Test(settings, has_defaults_that_are_valid)
{
    OK(load((const char *[]){"weir-broker", NULL}, (const char *[]){NULL}));
    cr_assert_str_eq(weir_setting_text(&s, WEIR_SETTING_DATA), "weir-data");
    cr_assert_eq(s.url_count, 1);
    cr_assert_str_eq(s.url[0], "tcp://127.0.0.1:7070");
    cr_assert_eq(weir_setting_number(&s, WEIR_SETTING_DURABILITY), 0);
    cr_assert_eq(weir_setting_number(&s, WEIR_SETTING_HEARTBEAT), 5000);
}

/* Flags go before the environment, that before the file, that before the default. */
Test(settings, keeps_the_order_of_sources)
{
    char flag[64];
    write_file("group-size: 128KiB\nqueue-size: 2MiB\ncache-size: 3MiB\n");
    snprintf(flag, sizeof flag, "--config=%s", path);
    const char *environment[] = {"WEIR_QUEUE_SIZE=4MiB", "WEIR_CACHE_SIZE=5MiB",
                                 "WEIR_BROKER=unrelated", NULL};
    OK(load((const char *[]){"weir-broker", flag, "--cache-size=6MiB", NULL}, environment));
    cr_assert_eq(weir_setting_number(&s, WEIR_SETTING_GROUP_SIZE), 128 << 10);
    cr_assert_eq(weir_setting_number(&s, WEIR_SETTING_QUEUE_SIZE), 4 << 20);
    cr_assert_eq(weir_setting_number(&s, WEIR_SETTING_CACHE_SIZE), 6 << 20);
    cr_assert_eq(weir_setting_number(&s, WEIR_SETTING_SEGMENT_SIZE), 128 << 20);
    cr_assert(strstr(s.value[WEIR_SETTING_GROUP_SIZE].from, "line 1"));
    cr_assert_str_eq(s.value[WEIR_SETTING_QUEUE_SIZE].from, "environment");
    cr_assert_str_eq(s.value[WEIR_SETTING_CACHE_SIZE].from, "flag");
}

/* The file can be named in the environment; under systemd the data has its place. */
Test(settings, finds_file_and_state_directory_in_the_environment)
{
    char config[64];
    write_file("log-level: debug\n");
    snprintf(config, sizeof config, "WEIR_CONFIG=%s", path);
    OK(load((const char *[]){"weir-broker", NULL},
            (const char *[]){config, "STATE_DIRECTORY=/var/lib/weir:/var/lib/other", NULL}));
    cr_assert_str_eq(weir_setting_text(&s, WEIR_SETTING_LOG_LEVEL), "debug");
    cr_assert_str_eq(weir_setting_text(&s, WEIR_SETTING_DATA), "/var/lib/weir");
    OK(load((const char *[]){"weir-broker", "--data=/x", NULL},
            (const char *[]){"STATE_DIRECTORY=/var/lib/weir", NULL}));
    cr_assert_str_eq(weir_setting_text(&s, WEIR_SETTING_DATA), "/x");
}

/* Every number at both ends of its range is taken, and one step outside is not. */
Test(settings, checks_every_range)
{
    for (int i = 0; i < WEIR_SETTING_COUNT; i++) {
        enum weir_setting_id id = (enum weir_setting_id)i;
        const struct weir_setting_about *a = &weir_setting_about[id];
        if (a->kind == WEIR_KIND_PATH || a->kind == WEIR_KIND_URLS)
            continue;
        OK(load((const char *[]){"weir-broker", NULL}, (const char *[]){NULL}));
        if (a->kind == WEIR_KIND_CHOICE) {
            cr_assert_eq(weir_settings_set(&s, id, weir_bytes_of("no-such-word"), "test", &err),
                         WEIR_INVALID);
            cr_assert_eq(weir_settings_set(&s, id, weir_bytes_of(""), "test", &err), WEIR_INVALID);
            continue;
        }
        OK(weir_settings_set(&s, id, weir_bytes_of(a->least), "test", &err));
        uint64_t least = weir_setting_number(&s, id);
        OK(weir_settings_set(&s, id, weir_bytes_of(a->most), "test", &err));
        uint64_t most = weir_setting_number(&s, id);
        cr_assert_lt(least, most);
        const char *unit = a->kind == WEIR_KIND_DURATION ? "ms" : "";
        char text[40];
        snprintf(text, sizeof text, "%lu%s", (unsigned long)most + 1, unit);
        cr_assert_eq(weir_settings_set(&s, id, weir_bytes_of(text), "test", &err), WEIR_TOO_BIG,
                     "%s", a->name);
        cr_assert(strstr(err.text, a->name) && strstr(err.text, a->most));
        if (least > 0) {
            snprintf(text, sizeof text, "%lu%s", (unsigned long)least - 1, unit);
            cr_assert_eq(weir_settings_set(&s, id, weir_bytes_of(text), "test", &err), WEIR_TOO_BIG,
                         "%s", a->name);
        }
        cr_assert_eq(weir_settings_set(&s, id, weir_bytes_of("many"), "test", &err), WEIR_INVALID);
        cr_assert_eq(weir_setting_number(&s, id), most, "a refused value changes nothing");
    }
}

static const struct {
    const char *text;
    const char *says; /* NULL: fine */
} files[] = {
    {"", NULL},
    {"# only a comment\n", NULL},
    {"---\nlog-level: info\n...\n", NULL},
    {"listen:\n  - tcp://127.0.0.1:0\n  - ipc:///tmp/x\n", NULL},
    {"listen: tcp://127.0.0.1:0\n", NULL},
    {"data: \"/with: colon\"\n", NULL},
    {"log-level: info\n\nsegmentsize: 1MiB\n", "line 3: unknown setting 'segmentsize'"},
    {"log-level: loud\n", "line 1: 'log-level' must be error, warning, info or debug, not 'loud'"},
    {"\nsegment-size: 12\n", "line 2: 'segment-size' must be 1MiB to 1GiB, not '12'"},
    {"segment-size: big\n", "line 1: 'segment-size' must be a size such as 512KiB, not 'big'"},
    {"heartbeat: 5\n", "line 1: 'heartbeat' must be a length of time such as 5s, not '5'"},
    {"workers: 4\nworkers: 5\n", "line 2: 'workers' stands here a second time"},
    {"workers:\n", "line 1: 'workers' has no value"},
    {"workers:\n  a: 1\n", "line 2: 'workers' must be one value"},
    {"workers: [1, 2]\n", "line 1: 'workers' must be one value"},
    {"listen: [[a]]\n", "line 1: 'listen' must be a list of texts"},
    {"listen: [\"tcp://a,tcp://b\"]\n", "must be a list of texts"},
    {"listen: [http://127.0.0.1]\n", "line 1: 'listen' must be addresses such as"},
    {"listen: []\n", "'listen' must be addresses such as"},
    {"workers: &a 4\n", "line 1: 'workers' must be one value"},
    {"workers: !!str 4\n", "line 1: 'workers' must be one value"},
    {"- workers\n", "line 1: must be lines of 'name: value'"},
    {"workers\n", "line 1: must be lines of 'name: value'"},
    {"workers: 4\n---\nworkers: 5\n", "line 2: a second document"},
    {"workers: 4\n}\n", "line 2: "},
    {"workers: \"4\n", "line "},
    {"data: \"\\x00\"\n", "has a NUL in it"},
    {"tls-key: key.pem\n", "'tls-certificate' and 'tls-key' are needed both"},
    {"listen: tls+tcp://0.0.0.0:1\n", "'tls-certificate' and 'tls-key' are needed both"},
    {"segment-size: 1MiB\nprewrite: 17MiB\n", "'prewrite' must be at most 16 times"},
    {"data: \"\"\n", "'data' must name a directory"},
};

/* A file is strict: what is wrong is named with its line. */
Test(settings, names_the_line_of_a_mistake)
{
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        enum weir_status st = load_file(files[i].text);
        if (!files[i].says) {
            cr_assert_eq(st, WEIR_OK, "%s: %s", files[i].text, err.text);
            continue;
        }
        cr_assert(st == WEIR_INVALID || st == WEIR_TOO_BIG, "%s", files[i].text);
        cr_assert(strstr(err.text, files[i].says), "%s: '%s' and not '%s'", files[i].text, err.text,
                  files[i].says);
    }
}

/* Cut anywhere, the file is taken or refused, and nothing leaks or crashes. */
Test(settings, survives_a_cut_file)
{
    const char *whole = "# settings\nlisten: [\"tcp://127.0.0.1:0\", ipc:///tmp/x]\nworkers: 4\n"
                        "data: \"/a\\u00e9 b\"\n";
    for (size_t len = 0; len <= strlen(whole); len++) {
        char text[200];
        snprintf(text, sizeof text, "%.*s", (int)len, whole);
        enum weir_status st = load_file(text);
        cr_assert_eq(st != WEIR_OK, err.text[0] != '\0');
    }
    cr_assert_eq(load((const char *[]){"weir-broker", "--config=/no/such/file", NULL},
                      (const char *[]){NULL}),
                 WEIR_NOT_FOUND);
    cr_assert(strstr(err.text, "/no/such/file"));
}

/* Wrong flags are refused by name. */
Test(settings, refuses_wrong_flags)
{
    static const char *const wrong[] = {"--segmentsize=1", "--workers",    "workers=1", "-x",
                                        "--ready-fd=x",    "--workers=no", "--help=1"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        cr_assert_neq(load((const char *[]){"weir-broker", wrong[i], NULL}, (const char *[]){NULL}),
                      WEIR_OK, "%s", wrong[i]);
        cr_assert_neq(err.text[0], '\0');
    }
    cr_assert_neq(
        load((const char *[]){"weir-broker", NULL}, (const char *[]){"WEIR_WORKERS=none", NULL}),
        WEIR_OK);
    cr_assert(strstr(err.text, "environment"));
}

/* What --print-config prints gives the same settings again. */
Test(settings, prints_a_file_that_reads_back)
{
    OK(load((const char *[]){"weir-broker", "--listen=tcp://127.0.0.1:0,ipc:///tmp/a b",
                             "--workers=7", "--data=/a \"quoted\" \\ path: # no comment",
                             "--heartbeat=1500ms", "--durability=interval", NULL},
            (const char *[]){NULL}));
    struct weir_text first = {0}, second = {0};
    weir_settings_print(&s, &first);
    struct weir_settings before = s;
    memset(&s, 0, sizeof s);
    OK(load_file(first.data));
    for (int i = 0; i < WEIR_SETTING_COUNT; i++) {
        cr_assert_str_eq(s.value[i].text, before.value[i].text);
        cr_assert_eq(s.value[i].number, before.value[i].number);
        cr_assert(strstr(first.data, weir_setting_about[i].name));
    }
    weir_settings_fini(&before);
    weir_text_fini(&first);
    weir_text_fini(&second);
}

/* --help and the manual page know every setting with its range and default, in all three spellings.
 */
Test(settings, are_all_documented)
{
    struct weir_text help = {0};
    weir_settings_print_help(&help);
    char page_path[512];
    const char *source = getenv("WEIR_SOURCE_DIR");
    snprintf(page_path, sizeof page_path, "%s/docs/man/weir-broker.1", source ? source : ".");
    FILE *f = fopen(page_path, "r");
    cr_assert(f, "%s", page_path);
    static char page[64 << 10];
    page[fread(page, 1, sizeof page - 1, f)] = '\0';
    fclose(f);
    /* The page's "\-" is a minus. */
    char *to = page;
    for (const char *from = page; *from; from++)
        if (from[0] != '\\' || from[1] != '-')
            *to++ = *from;
    *to = '\0';

    for (int i = 0; i < WEIR_SETTING_COUNT; i++) {
        enum weir_setting_id id = (enum weir_setting_id)i;
        const struct weir_setting_about *a = &weir_setting_about[id];
        char entry[512], range[96];
        weir_setting_range(id, range);
        snprintf(entry, sizeof entry, "--%s=", a->name);
        cr_assert(strstr(help.data, entry), "%s", entry);
        snprintf(entry, sizeof entry, ".B --%s=", a->name);
        const char *at = strstr(page, entry);
        cr_assert(at, "the manual page lacks '%s'", entry);
        snprintf(entry, sizeof entry, "(%s%sdefault %s%s)\n", range, range[0] ? "; " : "",
                 a->initial[0] ? a->initial : "none", a->reloadable ? "; changed by SIGHUP" : "");
        const char *end = strstr(at, ".TP");
        const char *found = strstr(at, entry);
        cr_assert(found && (!end || found < end), "the manual page lacks '%s' at '%s'", entry,
                  a->name);
    }
    weir_text_fini(&help);
}
