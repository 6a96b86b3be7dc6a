#include "bench/bench.h"
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>

static void
print_usage(const char *name, const struct weir_bench_option *options, size_t count)
{
    fprintf(stderr, "usage: bench_%s --dir DIR --bin DIR [--rounds N] [--seconds S] [--smoke]",
            name);
    for (size_t i = 0; i < count; i++)
        fprintf(stderr, " [%s N]", options[i].flag);
    fputc('\n', stderr);
    for (size_t i = 0; i < count; i++)
        fprintf(stderr, "  %s N  %s (%g)\n", options[i].flag, options[i].help, *options[i].value);
    exit(2);
}

static bool
read_number(const char *text, double least, double most, double *out)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= least && value <= most))
        return false;
    *out = value;
    return true;
}

static bool
read_option(const char *flag, const char *text, const struct weir_bench_option *options,
            size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!strcmp(flag, options[i].flag))
            return read_number(text, 0, 1e9, options[i].value);
    return false;
}

void
weir_bench_begin(struct weir_bench *b, const char *name, int argc, char **argv, unsigned rounds,
                 double seconds, const struct weir_bench_option *options, size_t option_count)
{
    *b = (struct weir_bench){.name = name, .rounds = rounds, .seconds = seconds};
    const char *directory = NULL, *bin = NULL;
    for (int i = 1; i < argc; i++) {
        const char *flag = argv[i], *value = argv[i + 1];
        double number = 0;
        if (!strcmp(flag, "--smoke")) {
            b->smoke = true;
            continue;
        }
        bool good = value != NULL;
        if (!good)
            ;
        else if (!strcmp(flag, "--dir"))
            directory = value;
        else if (!strcmp(flag, "--bin"))
            bin = value;
        else if (!strcmp(flag, "--rounds") &&
                 (good = read_number(value, 1, WEIR_SERIES_MAX, &number)))
            b->rounds = (unsigned)number;
        else if (!strcmp(flag, "--seconds"))
            good = read_number(value, 0.01, 3600, &b->seconds);
        else if (good)
            good = read_option(flag, value, options, option_count);
        if (!good)
            print_usage(name, options, option_count);
        i++;
    }
    if (!directory || !bin)
        print_usage(name, options, option_count);
    if (b->smoke) {
        b->rounds = 1;
        b->seconds = 0.1;
    }
    if (!realpath(directory, b->directory))
        weir_bench_die("cannot use '%s': %s", directory, strerror(errno));
    snprintf(b->broker, sizeof b->broker, "%s/weir-broker", bin);
    snprintf(b->other, sizeof b->other, "%s/../bench/bench_other", bin);
    /* Sleeps of the load generators end when they are due, not 50 us later. */
    prctl(PR_SET_TIMERSLACK, 1000, 0, 0, 0);
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("%s: %u rounds\n", name, b->rounds);
}

static void
judge(struct weir_bench *b, double figure, const char *unit, double goal, bool met)
{
    const char *verdict = b->smoke ? "not judged" : met ? "met" : "short";
    int digits = fabs(figure) >= 100 ? 0 : fabs(figure) >= 10 ? 1 : fabs(figure) >= 1 ? 2 : 3;
    printf("bench %s: %.*f %s, goal %g: %s\n", b->name, digits, figure, unit, goal, verdict);
    b->is_short |= !met && !b->smoke;
}

void
weir_bench_at_least(struct weir_bench *b, double figure, const char *unit, double goal)
{
    judge(b, figure, unit, goal, figure >= goal);
}

void
weir_bench_at_most(struct weir_bench *b, double figure, const char *unit, double goal)
{
    judge(b, figure, unit, goal, figure <= goal);
}

int
weir_bench_end(struct weir_bench *b)
{
    return b->is_short ? 3 : 0;
}

void
weir_bench_path(const struct weir_bench *b, const char *name, char out[PATH_MAX])
{
    if (snprintf(out, PATH_MAX, "%s/%s", b->directory, name) >= PATH_MAX)
        weir_bench_die("cannot use '%s': the path is too long", b->directory);
}

void
weir_bench_die(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fflush(stdout);
    fputs("bench: ", stderr);
    vfprintf(stderr, fmt, args);
    fputc('\n', stderr);
    va_end(args);
    _Exit(1);
}

uint64_t
weir_bench_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void
weir_bench_sleep_until_ns(uint64_t moment_ns)
{
    struct timespec moment = {.tv_sec = (time_t)(moment_ns / 1000000000u),
                              .tv_nsec = (long)(moment_ns % 1000000000u)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &moment, NULL) == EINTR)
        ;
}

void
weir_bench_noise(void *out, size_t len, uint64_t seed)
{
    uint8_t *p = out;
    for (size_t at = 0; at < len; at += 8) {
        uint64_t z = seed += 0x9e3779b97f4a7c15u;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        z ^= z >> 31;
        memcpy(p + at, &z, len - at < 8 ? len - at : 8);
    }
}

/* ---- series ---- */

void
weir_series_add(struct weir_series *s, double value)
{
    if (s->count < WEIR_SERIES_MAX)
        s->value[s->count++] = value;
}

static int
compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double
weir_series_median(const struct weir_series *s)
{
    if (s->count == 0)
        return 0;
    double sorted[WEIR_SERIES_MAX];
    memcpy(sorted, s->value, s->count * sizeof *sorted);
    qsort(sorted, s->count, sizeof *sorted, compare);
    unsigned middle = s->count / 2;
    return s->count % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

double
weir_series_least(const struct weir_series *s)
{
    double least = s->count ? s->value[0] : 0;
    for (unsigned i = 1; i < s->count; i++)
        least = fmin(least, s->value[i]);
    return least;
}

double
weir_series_most(const struct weir_series *s)
{
    double most = s->count ? s->value[0] : 0;
    for (unsigned i = 1; i < s->count; i++)
        most = fmax(most, s->value[i]);
    return most;
}

double
weir_series_ratio(const struct weir_series *a, const struct weir_series *b)
{
    struct weir_series ratios = {0};
    for (unsigned i = 0; i < a->count && i < b->count; i++)
        weir_series_add(&ratios, a->value[i] / b->value[i]);
    return weir_series_median(&ratios);
}

void
weir_series_print(const char *what, const struct weir_series *s, const char *unit)
{
    double most = weir_series_most(s);
    int digits = most >= 1000 ? 0 : most >= 10 ? 1 : 3;
    printf("  %-44s %10.*f %s (%.*f to %.*f)\n", what, digits, weir_series_median(s), unit, digits,
           weir_series_least(s), digits, most);
}
