/* The frame of a benchmark: its options, its rounds, and the lines it ends with.
 *
 *     begin ─> rounds, the sides in turns ─> series: median and spread ─> goals ─> end
 *
 * A benchmark is a program; it runs in a directory of its own on a real disk, which bench/run makes
 * and removes. Trouble ends it at once with exit status 1; children die with it (process.h).
 *
 * Threads: one, but for the clock. */
#pragma once
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct weir_bench {
    const char *name;
    char directory[PATH_MAX]; /* for files of all kinds */
    char broker[PATH_MAX];    /* weir-broker */
    char other[PATH_MAX];     /* the other end of a bare connection (wire.h) */
    unsigned rounds;
    double seconds; /* of one turn */
    bool smoke;     /* everything small, nothing judged */
    bool is_short;  /* private: a goal was missed */
};

/* A number that a benchmark takes beside --rounds and --seconds. */
struct weir_bench_option {
    const char *flag; /* "--gib" */
    const char *help;
    double *value; /* the default, and what the command line says */
};

/* Reads the command line: --dir DIR, --bin DIR (as bench/run gives them), --rounds, --seconds,
 * --smoke and `options`. `rounds` and `seconds` are the defaults. Ends the program with status 2 on
 * wrong usage. */
void weir_bench_begin(struct weir_bench *b, const char *name, int argc, char **argv,
                      unsigned rounds, double seconds, const struct weir_bench_option *options,
                      size_t option_count);
/* Prints a closing line, "bench NAME: FIGURE UNIT, goal GOAL: met|short". */
void weir_bench_at_least(struct weir_bench *b, double figure, const char *unit, double goal);
void weir_bench_at_most(struct weir_bench *b, double figure, const char *unit, double goal);
/* The exit status: 0, or 3 where a goal was missed. */
int weir_bench_end(struct weir_bench *b);
/* A path in the benchmark's directory; static storage is not used: `out` has PATH_MAX bytes. */
void weir_bench_path(const struct weir_bench *b, const char *name, char out[PATH_MAX]);

/* "bench: cannot …" on standard error, and exit status 1. */
[[gnu::noreturn, gnu::format(printf, 1, 2)]] void weir_bench_die(const char *fmt, ...);
/* Monotonic. */
uint64_t weir_bench_now_ns(void);
void weir_bench_sleep_until_ns(uint64_t moment_ns);
/* Incompressible, the same for the same seed. */
void weir_bench_noise(void *out, size_t len, uint64_t seed);

/* ---- one figure over the rounds ---- */

#define WEIR_SERIES_MAX 64

struct weir_series {
    double value[WEIR_SERIES_MAX]; /* in the order of the rounds */
    unsigned count;
};

void weir_series_add(struct weir_series *s, double value);
double weir_series_median(const struct weir_series *s);
double weir_series_least(const struct weir_series *s);
double weir_series_most(const struct weir_series *s);
/* Median of a[i] / b[i]: both sides of a round met the same machine. */
double weir_series_ratio(const struct weir_series *a, const struct weir_series *b);
/* "  what          median unit   (least to most)" */
void weir_series_print(const char *what, const struct weir_series *s, const char *unit);
