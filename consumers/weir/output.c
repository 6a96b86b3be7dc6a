/* Output helpers: JSON documents, numbers for people, progress, signals. */
#include "command.h"
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

void
output_begin(struct output *o)
{
    *o = (struct output){0};
    weir_json_writer_init(&o->json, &o->text);
}

enum weir_exit
output_emit(struct output *o)
{
    enum weir_exit st = EXIT_DONE;
    if (weir_json_writer_status(&o->json) || !o->text.data ||
        fwrite(o->text.data, 1, o->text.len, stdout) != o->text.len || putchar('\n') == EOF) {
        complain(NULL, "cannot write to standard output");
        st = EXIT_REFUSED;
    }
    weir_text_fini(&o->text);
    return st;
}

void
member_text(struct output *o, const char *name, const char *value)
{
    weir_json_write_name(&o->json, name);
    weir_json_write_text_or_null(&o->json, value);
}

void
member_u64(struct output *o, const char *name, uint64_t value)
{
    weir_json_write_name(&o->json, name);
    weir_json_write_u64(&o->json, value);
}

void
member_bool(struct output *o, const char *name, bool value)
{
    weir_json_write_name(&o->json, name);
    weir_json_write_bool(&o->json, value);
}

void
member_moment(struct output *o, const char *name, uint64_t at_ms)
{
    member_text(o, name, at_ms ? moment_text(at_ms) : NULL);
}

/* Four pieces of text in turn, so that one printf may hold several. */
static char *
next_text(void)
{
    static char text[4][32];
    static unsigned turn;
    return text[turn++ % 4];
}

const char *
moment_text(uint64_t at_ms)
{
    if (!at_ms)
        return "-";
    char *t = next_text();
    weir_format_moment(at_ms, t);
    return t;
}

const char *
size_text(uint64_t bytes)
{
    char *t = next_text();
    weir_format_size(bytes, t);
    return t;
}

const char *
duration_text(uint64_t ms)
{
    char *t = next_text();
    weir_format_duration(ms, t);
    return t;
}

const char *
count_text(uint64_t n)
{
    char digits[24], *t = next_text(), *p = t;
    int len = snprintf(digits, sizeof digits, "%lu", (unsigned long)n);
    for (int i = 0; i < len; i++) {
        if (i && (len - i) % 3 == 0)
            *p++ = ',';
        *p++ = digits[i];
    }
    *p = '\0';
    return t;
}

void
progress_begin(struct progress *p, const struct args *a)
{
    *p = (struct progress){
        .on = !a->quiet && (isatty(STDERR_FILENO) || args_has(a, "progress")),
        .started_ms = now_ms(),
    };
}

bool
progress_due(struct progress *p)
{
    uint64_t now = p->on ? now_ms() : 0;
    if (!p->on || now - p->shown_ms < 250)
        return false;
    p->shown_ms = now;
    return true;
}

void
progress_show(struct progress *p, const char *fmt, ...)
{
    if (!p->on)
        return;
    bool terminal = isatty(STDERR_FILENO);
    va_list list;
    va_start(list, fmt);
    fputs(terminal ? "\r\033[K" : "", stderr);
    vfprintf(stderr, fmt, list);
    fputs(terminal ? "" : "\n", stderr);
    va_end(list);
}

void
progress_end(struct progress *p)
{
    if (p->on && isatty(STDERR_FILENO))
        fputs("\n", stderr);
}

static volatile sig_atomic_t stop_signal;

static void
on_signal(int number)
{
    if (stop_signal)
        _exit(128 + number);
    stop_signal = number;
}

void
stop_on_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

bool
stopped(void)
{
    return stop_signal != 0;
}
