/* How fast change records become flat lines, on one core.
 *
 * Each round runs every contender once over the same records, so that a busy moment of the machine
 * hits all; the median of the rounds counts. Time is this thread's CPU time. A record is taken from
 * one piece of memory and its line written to a buffer that is reused, as an exporter does.
 *
 *   flatten    ours
 *   portable   ours without vector instructions
 *   with old   ours, with the attributes of both images
 *   simdjson   its DOM parse alone, nothing written (when it is installed)
 *   memcpy     the floor: the records copied
 *
 * Ends with "bench flatten: FIGURE GB/s, goal 1.2: met|short"; exit status 0 or 3, 1 on trouble.
 * Usage: bench_flatten [ROUNDS] */
#include "change/flatten.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define GOAL 1.2
#define ROUNDS_DEFAULT 15
#define ROUNDS_MAX 1000
#define OUT_BYTES (WEIR_BENCH_RECORD_MAX + 4096)
#define WEIR_BENCH_RECORD_MAX (1 << 20)

/* From flatten_simdjson.cpp, when there is a simdjson. */
[[gnu::weak]] void *weir_bench_simdjson_new(void);
[[gnu::weak]] size_t weir_bench_simdjson_parse(void *parser, const uint8_t *json, size_t len,
                                               size_t capacity);
[[gnu::weak]] void weir_bench_simdjson_free(void *parser);

struct records {
    uint8_t *data; /* all of them, and room behind the last that a parser may look at */
    size_t len;
    struct weir_bytes *lines;
    size_t count;
};

#define READ_AHEAD 64

static void
grow(struct records *r, struct weir_text *text)
{
    r->len = text->len;
    r->data = (uint8_t *)text->data;
    size_t capacity = 0;
    for (size_t i = 0; i < r->len; i++)
        capacity += r->data[i] == '\n';
    r->lines = calloc(capacity + 1, sizeof *r->lines);
    const uint8_t *p = r->data, *end = p + r->len;
    while (p < end) {
        const uint8_t *stop = memchr(p, '\n', (size_t)(end - p));
        stop = stop ? stop : end;
        if (stop > p)
            r->lines[r->count++] = weir_bytes(p, (size_t)(stop - p));
        p = stop + 1;
    }
}

static bool
read_data(struct weir_text *text, const char *path)
{
    char command[1200];
    snprintf(command, sizeof command, "xz -dc '%s' 2>/dev/null", path);
    FILE *pipe = popen(command, "r");
    if (!pipe)
        return false;
    static char piece[1 << 16];
    size_t n;
    while ((n = fread(piece, 1, sizeof piece, pipe)) > 0)
        weir_text_append(text, weir_bytes(piece, n));
    return pclose(pipe) == 0 && text->len > 0;
}

static uint64_t
draw(uint64_t *seed, uint64_t below)
{
    *seed = *seed * 6364136223846793005 + 1442695040888963407;
    return (*seed >> 33) % below;
}

static void
make_image(struct weir_text *text, uint64_t seed, const char *status)
{
    weir_text_printf(text,
                     "{\"orderId\":{\"S\":\"%016llx%016llx\"},\"customerId\":{\"S\":\"%016llx\"},"
                     "\"status\":{\"S\":\"%s\"},\"total\":{\"N\":\"%llu.%02llu\"},"
                     "\"items\":{\"L\":[",
                     (unsigned long long)seed, (unsigned long long)seed * 31,
                     (unsigned long long)seed * 17, status, (unsigned long long)draw(&seed, 900),
                     (unsigned long long)draw(&seed, 100));
    uint64_t items = 1 + draw(&seed, 3);
    for (uint64_t i = 0; i < items; i++)
        weir_text_printf(text,
                         "%s{\"M\":{\"productId\":{\"S\":\"%016llx%016llx\"},"
                         "\"quantity\":{\"N\":\"%llu\"},\"unitPrice\":{\"N\":\"%llu.%02llu\"}}}",
                         i ? "," : "", (unsigned long long)seed, (unsigned long long)seed * 7,
                         (unsigned long long)(1 + draw(&seed, 4)),
                         (unsigned long long)draw(&seed, 300),
                         (unsigned long long)draw(&seed, 100));
    weir_text_puts(text, "]},\"paymentTypes\":{\"SS\":[\"credit_card\"]},"
                         "\"gift\":{\"BOOL\":false},\"deliveredAt\":{\"NULL\":true}}");
}

static void
make_data(struct weir_text *text)
{
    uint64_t seed = 1;
    for (unsigned i = 0; i < 40000; i++) {
        uint64_t order = draw(&seed, UINT32_MAX);
        bool insert = i % 4 == 0;
        weir_text_printf(
            text,
            "{\"awsRegion\":\"us-east-1\",\"eventID\":\"%08x-51c6-574e-9507-96e9867d629d\","
            "\"eventName\":\"%s\",\"userIdentity\":null,\"recordFormat\":"
            "\"application/json\",\"tableName\":\"Orders\",\"dynamodb\":{"
            "\"ApproximateCreationDateTime\":%llu,\"Keys\":{\"orderId\":{\"S\":\"%llx\"}},"
            "\"NewImage\":",
            i, insert ? "INSERT" : "MODIFY", 1473023700000ull + i, (unsigned long long)order);
        make_image(text, order, insert ? "created" : "shipped");
        if (!insert) {
            weir_text_puts(text, ",\"OldImage\":");
            make_image(text, order, "created");
        }
        weir_text_puts(text, ",\"SizeBytes\":804},\"eventSource\":\"aws:dynamodb\"}\n");
    }
}

static double
cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

struct contender {
    const char *name;
    bool (*run)(const struct records *r, const struct weir_flatten_options *options, uint8_t *out);
    struct weir_flatten_options options;
    double rates[ROUNDS_MAX]; /* GB of input per second */
};

static bool
run_flatten(const struct records *r, const struct weir_flatten_options *options, uint8_t *out)
{
    struct weir_error err;
    size_t len;
    for (size_t i = 0; i < r->count; i++) {
        if (weir_flatten(r->lines[i], options, out, OUT_BYTES, &len, &err)) {
            fprintf(stderr, "record %zu: %s\n", i, err.text);
            return false;
        }
    }
    return true;
}

static bool
run_simdjson(const struct records *r, const struct weir_flatten_options *, uint8_t *)
{
    void *parser = weir_bench_simdjson_new();
    bool good = true;
    for (size_t i = 0; i < r->count && good; i++) {
        size_t behind = (size_t)(r->data + r->len + READ_AHEAD - r->lines[i].data);
        good = weir_bench_simdjson_parse(parser, r->lines[i].data, r->lines[i].len, behind);
    }
    weir_bench_simdjson_free(parser);
    return good;
}

static bool
run_memcpy(const struct records *r, const struct weir_flatten_options *, uint8_t *out)
{
    for (size_t i = 0; i < r->count; i++) {
        memcpy(out, r->lines[i].data, r->lines[i].len);
        /* The copy is wanted, whatever the optimizer thinks of it. */
        __asm__ volatile("" : : "r"(out) : "memory");
    }
    return true;
}

static int
compare_rates(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static bool
run_rounds(struct contender *contenders, size_t count, const struct records *r, size_t rounds)
{
    uint8_t *out = malloc(OUT_BYTES);
    bool good = out != NULL;
    for (size_t round = 0; round < rounds; round++) {
        for (size_t c = 0; c < count && good; c++) {
            double before = cpu_seconds();
            good = contenders[c].run(r, &contenders[c].options, out);
            contenders[c].rates[round] = (double)r->len / 1e9 / (cpu_seconds() - before);
        }
    }
    free(out);
    return good;
}

int
main(int argc, char **argv)
{
    static struct contender contenders[] = {
        {.name = "flatten", .run = run_flatten},
        {.name = "portable", .run = run_flatten, .options = {.portable = true}},
        {.name = "with old", .run = run_flatten, .options = {.with_old = true}},
        {.name = "memcpy", .run = run_memcpy},
        {.name = "simdjson", .run = run_simdjson},
    };
    size_t count = sizeof contenders / sizeof contenders[0];
    if (!weir_bench_simdjson_new)
        count--;
    size_t rounds = argc > 1 ? strtoul(argv[1], NULL, 10) : ROUNDS_DEFAULT;
    if (rounds == 0 || rounds > ROUNDS_MAX) {
        fprintf(stderr, "usage: bench_flatten [ROUNDS], 1 to %d\n", ROUNDS_MAX);
        return 2;
    }

    const char *source = getenv("WEIR_SOURCE_DIR");
    char path[1024];
    snprintf(path, sizeof path, "%s/../shared/data/order-changes.ndjson.xz",
             source ? source : WEIR_BENCH_SOURCE_DIR);
    struct weir_text text = {0};
    struct records r = {0};
    bool real = read_data(&text, path);
    if (!real) {
        weir_text_clear(&text);
        make_data(&text);
    }
    if (!weir_text_reserve(&text, READ_AHEAD))
        return 1;
    memset(text.data + text.len, 0, READ_AHEAD);
    grow(&r, &text);
    printf("%zu %s change records, %.1f MB, %zu rounds in turns; GB of input per CPU-second\n",
           r.count, real ? "real" : "generated", (double)r.len / 1e6, rounds);

    if (!run_rounds(contenders, count, &r, rounds))
        return 1;
    for (size_t c = 0; c < count; c++) {
        qsort(contenders[c].rates, rounds, sizeof(double), compare_rates);
        printf("  %-9s %6.2f median, %.2f to %.2f\n", contenders[c].name,
               contenders[c].rates[rounds / 2], contenders[c].rates[0],
               contenders[c].rates[rounds - 1]);
    }
    if (!weir_bench_simdjson_new)
        printf("  simdjson  not there (libsimdjson-dev and a C++ compiler)\n");
    double figure = contenders[0].rates[rounds / 2];
    printf("bench flatten: %.2f GB/s, goal %.1f: %s\n", figure, GOAL,
           figure >= GOAL ? "met" : "short");
    free(r.lines);
    weir_text_fini(&text);
    return figure >= GOAL ? 0 : 3;
}
