/* The settings of the broker: one table. The file's reader, the environment, the flags, the range
 * checks,
 * --help, --print-config and the manual page all come from it.
 *
 *   flags --name=value  >  environment WEIR_NAME  >  file, name: value  >  default
 *
 * A setting says its name, kind, range, default, help, and whether SIGHUP can change it. Threads:
 * one. */
#pragma once
#include "base/error.h"
#include "base/text.h"

enum weir_setting_kind {
    WEIR_KIND_PATH,     /* any text */
    WEIR_KIND_URLS,     /* one or more, separated by commas; a list in the file */
    WEIR_KIND_COUNT,    /* 0, 1, 2, … */
    WEIR_KIND_SIZE,     /* 512, 64KiB, 1GiB */
    WEIR_KIND_DURATION, /* 250ms, 5s, 24h, 7d */
    WEIR_KIND_CHOICE,   /* one of the words in `least`, separated by | */
};

#define WEIR_SETTING_URLS_MAX 16

#define WEIR_SETTINGS(X)                                                                           \
    /* id, name, kind, least, most, default, reloadable, help */                                   \
    X(DATA, "data", PATH, NULL, NULL, "weir-data", false,                                          \
      "directory of all data; made if it is missing (under systemd: its state directory)")         \
    X(LISTEN, "listen", URLS, NULL, NULL, "tcp://127.0.0.1:7070", false,                           \
      "addresses of the native door: tcp://HOST:PORT, tls+tcp://HOST:PORT, ipc:///PATH, "          \
      "abstract://NAME; port 0 lets the system choose")                                            \
    X(TLS_CERTIFICATE, "tls-certificate", PATH, NULL, NULL, "", false,                             \
      "PEM file with the certificate chain for tls+tcp addresses")                                 \
    X(TLS_KEY, "tls-key", PATH, NULL, NULL, "", false,                                             \
      "PEM file with the private key for tls+tcp addresses")                                       \
    X(OWNERS, "owners", COUNT, "0", "64", "0", false,                                              \
      "threads that own shards, each with a journal of its own; fixed when the data directory is " \
      "made; 0: one per processor")                                                                \
    X(WORKERS, "workers", COUNT, "1", "64", "4", false,                                            \
      "threads for reads from disk and for metadata")                                              \
    X(SEGMENT_SIZE, "segment-size", SIZE, "1MiB", "1GiB", "128MiB", false,                         \
      "size of one journal file; space of old data comes back in such pieces")                     \
    X(PREWRITE, "prewrite", SIZE, "0", "1GiB", "32MiB", false,                                     \
      "how far journal files are written with zeros ahead of the data, which halves the time of "  \
      "a sync; at most 16 segments")                                                               \
    X(GROUP_SIZE, "group-size", SIZE, "64KiB", "16MiB", "1MiB", false, "most bytes of one commit") \
    X(QUEUE_SIZE, "queue-size", SIZE, "1MiB", "4GiB", "64MiB", false,                              \
      "bytes taken and not yet on disk, per owner; beyond it producers are asked to wait")         \
    X(CACHE_SIZE, "cache-size", SIZE, "0", "64GiB", "64MiB", false,                                \
      "latest batches kept in memory for subscribers that are not far behind, per owner")          \
    X(DURABILITY, "durability", CHOICE, "sync|interval", NULL, "sync", false,                      \
      "sync: acknowledged means on disk; interval: acknowledged means written, and on disk "       \
      "within durability-interval - a power cut loses acknowledged records")                       \
    X(DURABILITY_INTERVAL, "durability-interval", DURATION, "1ms", "60s", "50ms", false,           \
      "longest time between two syncs with durability interval")                                   \
    X(PRODUCER_EXPIRY, "producer-expiry", DURATION, "1m", "365d", "24h", false,                    \
      "how long a producer's last number is known, so that a retry is not stored twice")           \
    X(DEFAULT_RETENTION, "default-retention", DURATION, "1h", "3650d", "24h", false,               \
      "how long records are kept in streams that do not say it themselves")                        \
    X(MAX_CONNECTIONS, "max-connections", COUNT, "1", "20000", "4096", false,                      \
      "client connections at the same time")                                                       \
    X(HEARTBEAT, "heartbeat", DURATION, "100ms", "60s", "5s", false,                               \
      "how often client and broker show each other that they are there; a peer that is not heard " \
      "for three times as long is gone")                                                           \
    X(DRAIN_TIMEOUT, "drain-timeout", DURATION, "100ms", "10m", "10s", true,                       \
      "longest time from SIGTERM to the exit")                                                     \
    X(LOG_FORMAT, "log-format", CHOICE, "text|json", NULL, "text", true,                           \
      "form of the lines on standard error")                                                       \
    X(LOG_LEVEL, "log-level", CHOICE, "error|warning|info|debug", NULL, "info", true,              \
      "the least severe message that is written")

enum weir_setting_id {
#define X(id, name, kind, least, most, initial, reloadable, help) WEIR_SETTING_##id,
    WEIR_SETTINGS(X)
#undef X
        WEIR_SETTING_COUNT
};

struct weir_setting_about {
    const char *name;
    enum weir_setting_kind kind;
    const char *least, *most; /* as people write them; NULL: no range */
    const char *initial;
    bool reloadable;
    const char *help;
};
extern const struct weir_setting_about weir_setting_about[WEIR_SETTING_COUNT];

struct weir_settings {
    struct {
        char *text;      /* as it was written; NULL: the default */
        uint64_t number; /* count, bytes, milliseconds, or index of the word */
        char from[300];  /* "default", "environment", "flag", "'weir.yaml' line 3" */
    } value[WEIR_SETTING_COUNT];
    char *url_text;
    const char *url[WEIR_SETTING_URLS_MAX];
    size_t url_count;
};

/* What is asked for on the command line besides settings. */
enum weir_action {
    WEIR_ACTION_RUN,
    WEIR_ACTION_HELP,
    WEIR_ACTION_VERSION,
    WEIR_ACTION_PRINT_CONFIG,
    WEIR_ACTION_CHECK_CONFIG,
};
struct weir_command_line {
    enum weir_action action;
    const char *config;     /* file; NULL: none */
    const char *ready_file; /* gets the addresses, one per line, when the broker is ready */
    int ready_fd;           /* the same; -1: none */
    int argc;
    const char *const *argv; /* borrowed */
    const char *const *environment;
};
/* Looks at all of it but the settings' values. INVALID. */
enum weir_status weir_command_line_read(int argc, const char *const *argv,
                                        const char *const *environment,
                                        struct weir_command_line *out, struct weir_error *err);

/* Everything that `line` names: file, environment and flags, checked. `s` is set on success alone,
 * and the caller's to fini. INVALID, TOO_BIG (a range), NOT_FOUND (the file), NO_MEMORY, IO. */
enum weir_status weir_settings_load(const struct weir_command_line *line, struct weir_settings *s,
                                    struct weir_error *err);
void weir_settings_fini(struct weir_settings *s); /* zeroed is allowed */

/* `from` says where the value stands, for errors and for --print-config. */
enum weir_status weir_settings_set(struct weir_settings *s, enum weir_setting_id id,
                                   struct weir_bytes value, const char *from,
                                   struct weir_error *err);
/* WEIR_SETTING_COUNT: there is none of that name. */
enum weir_setting_id weir_setting_find(struct weir_bytes name);
const char *weir_setting_text(const struct weir_settings *s, enum weir_setting_id id);
uint64_t weir_setting_number(const struct weir_settings *s, enum weir_setting_id id);
/* "WEIR_SEGMENT_SIZE" */
void weir_setting_environment(enum weir_setting_id id, char out[64]);
/* "1MiB to 1GiB", "sync or interval"; empty where all is allowed. */
void weir_setting_range(enum weir_setting_id id, char out[96]);

/* Reads the file's settings (config.c). */
enum weir_status weir_settings_read_file(struct weir_settings *s, const char *path,
                                         struct weir_error *err);

/* A file that gives these settings again, each with its help. */
void weir_settings_print(const struct weir_settings *s, struct weir_text *out);
void weir_settings_print_help(struct weir_text *out);
