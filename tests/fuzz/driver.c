/* Runs a fuzz target without libFuzzer: first every file of the corpus, then a short loop of seeded
 * mutations of them. WEIR_FUZZ_SEED repeats a run; WEIR_FUZZ_RUNS and WEIR_FUZZ_CPU_MS (0: no
 * limit) make it longer. An input that crashes is left in WEIR_FUZZ_CRASH, if that names a file. */
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define INPUT_MAX ((size_t)64 * 1024)
#define RUNS_DEFAULT 20000
#define CPU_MS_DEFAULT 2000

struct input {
    uint8_t *data;
    size_t len;
};

struct corpus {
    struct input *inputs;
    size_t count, capacity;
};

struct dice {
    uint64_t state;
};

static void *
must(void *memory)
{
    if (!memory) {
        fprintf(stderr, "fuzz: out of memory\n");
        exit(2);
    }
    return memory;
}

/* splitmix64 */
static uint64_t
roll(struct dice *dice)
{
    uint64_t z = dice->state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static size_t
below(struct dice *dice, size_t limit)
{
    return limit ? (size_t)(roll(dice) % limit) : 0;
}

/* The target gets a block of exactly the input's size, so that a sanitizer sees one byte too far.
 */
static void
run(const uint8_t *data, size_t len)
{
    const char *crash = getenv("WEIR_FUZZ_CRASH");
    if (crash) {
        FILE *file = fopen(crash, "wb");
        if (file) {
            fwrite(data, 1, len, file);
            fclose(file);
        }
    }
    uint8_t *copy = must(malloc(len ? len : 1));
    memcpy(copy, data, len);
    LLVMFuzzerTestOneInput(copy, len);
    free(copy);
}

static void
load(struct corpus *corpus, const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        return;
    uint8_t *data = must(malloc(INPUT_MAX));
    size_t len = fread(data, 1, INPUT_MAX, file);
    fclose(file);
    if (corpus->count == corpus->capacity) {
        corpus->capacity = corpus->capacity ? 2 * corpus->capacity : 64;
        corpus->inputs = must(realloc(corpus->inputs, corpus->capacity * sizeof *corpus->inputs));
    }
    corpus->inputs[corpus->count++] = (struct input){data, len};
}

/* Names in a fixed order, so that the seed alone decides the run. A path that is not there is an
 * empty corpus. */
static void
load_all(struct corpus *corpus, const char *path)
{
    struct stat st;
    if (stat(path, &st))
        return;
    if (!S_ISDIR(st.st_mode)) {
        load(corpus, path);
        return;
    }
    struct dirent **entries;
    int count = scandir(path, &entries, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        char name[4096];
        snprintf(name, sizeof name, "%s/%s", path, entries[i]->d_name);
        if (!stat(name, &st) && S_ISREG(st.st_mode))
            load(corpus, name);
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
}

static void
insert(uint8_t *data, size_t *len, size_t at, const uint8_t *bytes, size_t count)
{
    if (count > INPUT_MAX - *len)
        count = INPUT_MAX - *len;
    memmove(data + at + count, data + at, *len - at);
    memcpy(data + at, bytes, count);
    *len += count;
}

static void
mutate(struct dice *dice, const struct corpus *corpus, uint8_t *data, size_t *len)
{
    static const uint64_t edges[] = {0,          1,          0x7f,       0x80,
                                     0xff,       0x7fff,     0x8000,     0xffff,
                                     0x7fffffff, 0x80000000, 0xffffffff, UINT64_MAX};
    size_t at = below(dice, *len);
    switch (below(dice, 9)) {
    case 0: /* flip a bit */
        if (*len)
            data[at] ^= (uint8_t)(1u << below(dice, 8));
        break;
    case 1: /* another byte */
        if (*len)
            data[at] = (uint8_t)roll(dice);
        break;
    case 2: /* cut the end */
        *len = at;
        break;
    case 3: { /* take a piece out */
        size_t count = below(dice, *len - at + 1);
        memmove(data + at, data + at + count, *len - at - count);
        *len -= count;
        break;
    }
    case 4: { /* repeat a piece */
        uint8_t piece[256];
        size_t count = below(dice, *len - at + 1);
        if (count > sizeof piece)
            count = sizeof piece;
        memcpy(piece, data + at, count);
        insert(data, len, at, piece, count);
        break;
    }
    case 5: { /* random bytes in between */
        uint8_t bytes[32];
        size_t count = 1 + below(dice, sizeof bytes);
        for (size_t i = 0; i < count; i++)
            bytes[i] = (uint8_t)roll(dice);
        insert(data, len, at, bytes, count);
        break;
    }
    case 6: { /* a number at the edge of its type */
        uint64_t edge = edges[below(dice, sizeof edges / sizeof *edges)];
        size_t width = (size_t)1 << below(dice, 4);
        if (*len >= width)
            memcpy(data + below(dice, *len - width + 1), &edge, width);
        break;
    }
    case 7: { /* the head of this, the tail of another */
        if (!corpus->count)
            break;
        const struct input *other = &corpus->inputs[below(dice, corpus->count)];
        size_t from = below(dice, other->len + 1);
        *len = at;
        insert(data, len, at, other->data + from, other->len - from);
        break;
    }
    default: /* swap two bytes */
        if (*len) {
            size_t with = below(dice, *len);
            uint8_t byte = data[at];
            data[at] = data[with];
            data[with] = byte;
        }
    }
}

static uint64_t
setting(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 0) : otherwise;
}

static uint64_t
cpu_ms(void)
{
    struct timespec used;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return (uint64_t)used.tv_sec * 1000 + (uint64_t)used.tv_nsec / 1000000;
}

int
main(int argc, char **argv)
{
    uint64_t seed = 0;
    if (getrandom(&seed, sizeof seed, 0) != sizeof seed)
        seed = (uint64_t)getpid();
    seed = setting("WEIR_FUZZ_SEED", seed);
    /* Before anything runs: the target may not come back. */
    printf("seed %" PRIu64 "\n", seed);
    fflush(stdout);

    struct corpus corpus = {0};
    for (int i = 1; i < argc; i++)
        load_all(&corpus, argv[i]);
    for (size_t i = 0; i < corpus.count; i++)
        run(corpus.inputs[i].data, corpus.inputs[i].len);

    struct dice dice = {seed};
    uint64_t runs = setting("WEIR_FUZZ_RUNS", RUNS_DEFAULT), done = 0;
    uint64_t limit_ms = setting("WEIR_FUZZ_CPU_MS", CPU_MS_DEFAULT), begin_ms = cpu_ms();
    uint8_t *data = must(malloc(INPUT_MAX));
    for (; done < runs && (!limit_ms || cpu_ms() - begin_ms < limit_ms); done++) {
        size_t len = 0;
        if (corpus.count) {
            const struct input *input = &corpus.inputs[below(&dice, corpus.count)];
            memcpy(data, input->data, input->len);
            len = input->len;
        }
        for (size_t n = 1 + below(&dice, 6); n > 0; n--)
            mutate(&dice, &corpus, data, &len);
        run(data, len);
    }
    printf("%zu files, %" PRIu64 " mutations\n", corpus.count, done);

    free(data);
    for (size_t i = 0; i < corpus.count; i++)
        free(corpus.inputs[i].data);
    free(corpus.inputs);
    return 0;
}
