/* The command line, as tables: commands, their options, help, man page and completion come from
 * here.
 *
 * One thread. Results go to standard output, the rest to standard error. */
#pragma once
#include "base/error.h"
#include "base/text.h"
#include "client/weir.h"
#include "json/writer.h"
#include <stdio.h>

/* Exit statuses, stated in the help. */
enum weir_exit {
    EXIT_DONE = 0,
    EXIT_REFUSED = 1, /* by the broker, or the work failed */
    EXIT_USAGE = 2,
    EXIT_NO_BROKER = 3,
    EXIT_DIFFERENT = 4, /* verify found damage; compare found a difference */
};

enum option_type { FLAG, TEXT, NUMBER, SIZE, DURATION, MOMENT, WHERE };

struct option {
    const char *name; /* without the dashes */
    enum option_type type;
    const char *argument; /* how help names its value; NULL for flags */
    const char *fallback; /* default as help says it, or NULL */
    const char *help;
};

#define OPTIONS_MAX 24
#define OPERANDS_MAX 4

struct args;
struct command {
    const char *name, *operands; /* "SHARD ADJACENT"; "[X]" is optional, "…" repeats */
    const char *group, *summary; /* one line */
    const char *about;           /* paragraphs for the man page; may be NULL */
    const struct option *options;
    enum weir_exit (*run)(struct args *a);
};
extern const struct command commands[];
extern const size_t command_count;
extern const struct option global_options[];

struct args {
    const struct command *command;
    const char *program, *broker;
    bool json, quiet;
    const char *operand[OPERANDS_MAX];
    size_t operand_count;
    const char *value[OPTIONS_MAX]; /* by place in command->options; "" for a flag that is set */
};

/* ---- values; a bad one ends the program's work with USAGE through args_bad ---- */
bool args_has(const struct args *a, const char *name);
const char *args_text(const struct args *a, const char *name, const char *fallback);
/* False: a message was printed, return EXIT_USAGE. `*out` keeps its value where the option is
 * absent. */
bool args_number(const struct args *a, const char *name, uint64_t max, uint64_t *out);
bool args_size(const struct args *a, const char *name, uint64_t *out);
bool args_duration(const struct args *a, const char *name, uint64_t *out);
bool args_moment(const struct args *a, const char *name, uint64_t *out);
/* oldest, latest, checkpoint, offset N ("offset:N"), a sequence number, or a moment. */
bool args_where(const struct args *a, const char *name, struct weir_from *out);
/* A shard by index or id ("3", "shardId-000000000003"). */
bool parse_shard(const char *text, uint32_t *out);
uint64_t now_ms(void);

/* "weir put: cannot …": to standard error. */
[[gnu::format(printf, 2, 3)]] void complain(const struct args *a, const char *fmt, ...);
[[gnu::format(printf, 2, 3)]] enum weir_exit bad_usage(const struct args *a, const char *fmt, ...);
/* Prints err and gives the exit status that goes with it. */
enum weir_exit failed(const struct args *a, const struct weir_error *err);

/* Connects to a->broker; on failure prints why and returns NULL. */
struct weir_client *connect_or_complain(const struct args *a);

/* ---- output ---- */
/* A JSON document or line, flushed by emit. */
struct output {
    struct weir_text text;
    struct weir_json_writer json;
};
void output_begin(struct output *o);
/* Writes what was collected to standard output with a newline. REFUSED when that fails. */
enum weir_exit output_emit(struct output *o);
void member_text(struct output *o, const char *name, const char *value);
void member_u64(struct output *o, const char *name, uint64_t value);
void member_bool(struct output *o, const char *name, bool value);
void member_moment(struct output *o, const char *name, uint64_t at_ms); /* 0: null */
/* "2026-11-28T09:00:00.123Z" or "-". Static storage, four in turn. */
const char *moment_text(uint64_t at_ms);
const char *size_text(uint64_t bytes);
const char *duration_text(uint64_t ms);
const char *count_text(uint64_t n); /* 12,345 */

/* A progress line on standard error, at most four times a second, only where that is a terminal or
 * `--progress` was given. */
struct progress {
    bool on;
    uint64_t started_ms, shown_ms;
};
void progress_begin(struct progress *p, const struct args *a);
bool progress_due(struct progress *p);
[[gnu::format(printf, 2, 3)]] void progress_show(struct progress *p, const char *fmt, ...);
void progress_end(struct progress *p);

/* Set by SIGINT and SIGTERM once stop_on_signals() was called: long commands end in order. */
void stop_on_signals(void);
bool stopped(void);

/* ---- documents made from the table ---- */
void print_usage(FILE *to);
void print_command_help(FILE *to, const struct command *c);
void print_man_page(FILE *to);
bool print_completion(FILE *to, const char *shell);

/* ---- the commands, by file ---- */
#define COMMAND(name)                          \
    enum weir_exit run_##name(struct args *a); \
    extern const struct option options_##name[];
COMMAND(list)
COMMAND(create)
COMMAND(describe)
COMMAND(delete)
COMMAND(retention)
COMMAND(split) COMMAND(merge) COMMAND(update_shard_count) COMMAND(put) COMMAND(tail)
    COMMAND(subscribe) COMMAND(replay) COMMAND(consumers) COMMAND(checkpoint) COMMAND(export)
        COMMAND(flatten) COMMAND(verify) COMMAND(inspect) COMMAND(bench) COMMAND(stats)
            COMMAND(completion) COMMAND(man) COMMAND(help) COMMAND(orders)
#undef COMMAND
