/* The measurements behind ADR 1: one journal that interleaves its shards, against a file set per
 * shard, over nothing but POSIX. Both sides write the same batches into files written beforehand,
 * take turns, and report medians (and the spread) over the rounds.
 *
 *   ingest     4 MiB in flight, groups of at most 1 MiB, an acknowledgement after fdatasync
 *   paced      1,000 batches of 4 KiB a second arrive by themselves
 *   replay     all batches of one shard, in order, each checked; from the disk and from memory
 *   recovery   footers of sealed segments, then the unsealed eighth walked batch by batch
 *   retention  half of the data expires for most shards and stays for the others
 *
 * The file set comes twice: synced file after file, and by eight threads.
 *
 * usage: bench_spike_journal [--dir DIR] [--rounds N] [--seconds S] */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define KIB ((size_t)1024)
#define MIB (1024 * KIB)
#define TOTAL                                                                           \
    (256 * MIB) /* what replay, recovery and retention work on, and the files of ingest \
                 */
#define SEGMENT (32 * MIB)
#define SEGMENTS (TOTAL / SEGMENT)
#define GROUP (1 * MIB)
#define WINDOW (4 * MIB)
#define SHARDS_MAX 1000
#define SYNCERS 8
#define ROUNDS_MAX 15
#define PACED_PER_SECOND 1000
#define PACED_BYTES (4 * KIB)
#define MAGIC 0x7265697765697277u

struct header {
    uint64_t magic, check, number;
    uint32_t shard, len; /* with the header */
};

/* One entry of the journal's index, in memory and in footers. */
struct place {
    uint64_t at; /* in the journal as a whole */
    uint32_t shard, len;
};

static void
die(const char *what)
{
    fprintf(stderr, "spike_journal: cannot %s: %s\n", what, strerror(errno));
    exit(2);
}

static void *
must(void *memory)
{
    if (!memory)
        die("allocate");
    return memory;
}

static uint64_t
now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Cheap and the same for both sides: it stands for XXH3. */
static uint64_t
check_of(const uint8_t *bytes, size_t len)
{
    uint64_t lanes[4] = {1, 2, 3, 4}, word;
    for (size_t at = 0; at + 32 <= len; at += 32) {
        for (size_t i = 0; i < 4; i++) {
            memcpy(&word, bytes + at + 8 * i, 8);
            lanes[i] = (lanes[i] ^ word) * 0x9e3779b97f4a7c15u;
        }
    }
    return lanes[0] ^ lanes[1] << 1 ^ lanes[2] << 2 ^ lanes[3] << 3;
}

static uint64_t
draw(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* A finished batch of `len` bytes at `out`. */
static void
make_batch(uint8_t *out, uint32_t shard, uint64_t number, size_t len)
{
    struct header header = {MAGIC, 0, number, shard, (uint32_t)len};
    memcpy(out + sizeof header, &number, sizeof number);
    header.check = check_of(out + sizeof header, len - sizeof header);
    memcpy(out, &header, sizeof header);
}

static bool
is_batch(const uint8_t *bytes, size_t len)
{
    struct header header;
    if (len < sizeof header)
        return false;
    memcpy(&header, bytes, sizeof header);
    return header.magic == MAGIC && header.len <= len && header.len >= sizeof header &&
           header.check == check_of(bytes + sizeof header, header.len - sizeof header);
}

/* What all shards' batches have in a run of so many shards. */
static size_t
batch_bytes(unsigned shards)
{
    return shards == 1 ? 256 * KIB : shards <= 64 ? 64 * KIB : 4 * KIB;
}

static int
open_file(const char *dir, const char *kind, unsigned number, int flags)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s-%04u", dir, kind, number);
    int fd = open(path, flags | O_CLOEXEC, 0600);
    if (fd < 0)
        die("open a file");
    return fd;
}

static void
remove_file(const char *dir, const char *kind, unsigned number)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s-%04u", dir, kind, number);
    if (unlink(path))
        die("remove a file");
}

static void
write_all(int fd, const uint8_t *bytes, size_t len, uint64_t at)
{
    while (len > 0) {
        ssize_t n = pwrite(fd, bytes, len, (off_t)at);
        if (n <= 0)
            die("write");
        bytes += n;
        at += (size_t)n;
        len -= (size_t)n;
    }
}

static void
read_all(int fd, uint8_t *bytes, size_t len, uint64_t at)
{
    while (len > 0) {
        ssize_t n = pread(fd, bytes, len, (off_t)at);
        if (n <= 0)
            die("read");
        bytes += n;
        at += (size_t)n;
        len -= (size_t)n;
    }
}

static void
sync_file(int fd)
{
    if (fdatasync(fd))
        die("sync");
}

static void
sync_directory(const char *dir)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd))
        die("sync the directory");
    close(fd);
}

/* Zeros up to `size`, on the disk. */
static void
prewrite(int fd, size_t size)
{
    uint8_t *zeros = must(calloc(1, MIB));
    for (size_t at = 0; at < size; at += MIB)
        write_all(fd, zeros, size - at < MIB ? size - at : MIB, at);
    sync_file(fd);
    free(zeros);
}

/* ---- a layout: files that are there, and where the next byte of each goes ---- */

struct layout {
    const char *dir, *kind;
    unsigned count; /* files */
    size_t size;    /* of each */
    int fds[SHARDS_MAX];
    uint64_t at[SHARDS_MAX];
};

static void
layout_open(struct layout *l, const char *dir, const char *kind, unsigned count, size_t size)
{
    *l = (struct layout){.dir = dir, .kind = kind, .count = count, .size = size};
    for (unsigned i = 0; i < count; i++) {
        l->fds[i] = open_file(dir, kind, i, O_RDWR | O_CREAT);
        prewrite(l->fds[i], size);
    }
    sync_directory(dir);
}

static void
layout_close(struct layout *l)
{
    for (unsigned i = 0; i < l->count; i++) {
        close(l->fds[i]);
        remove_file(l->dir, l->kind, i);
    }
}

static void
forget_cached(const struct layout *l)
{
    for (unsigned i = 0; i < l->count; i++)
        posix_fadvise(l->fds[i], 0, 0, POSIX_FADV_DONTNEED);
}

struct figure {
    double values[ROUNDS_MAX];
    unsigned count;
};

static void
add(struct figure *f, double value)
{
    f->values[f->count++] = value;
}

static int
by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void
print_figure(const char *what, const char *side, unsigned shards, struct figure *f,
             const char *unit)
{
    qsort(f->values, f->count, sizeof *f->values, by_value);
    printf("%-22s %-12s %5u shards  %10.2f %-5s (%.2f to %.2f)\n", what, side, shards,
           f->values[f->count / 2], unit, f->values[0], f->values[f->count - 1]);
    fflush(stdout);
}

struct latencies {
    uint64_t *ns;
    size_t count, capacity;
};

static void
add_latency(struct latencies *l, uint64_t ns)
{
    if (l->count == l->capacity) {
        l->capacity = l->capacity ? 2 * l->capacity : 4096;
        l->ns = must(realloc(l->ns, l->capacity * sizeof *l->ns));
    }
    l->ns[l->count++] = ns;
}

static int
by_ns(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static double
percentile_ms(struct latencies *l, unsigned percent)
{
    if (!l->count)
        return 0;
    qsort(l->ns, l->count, sizeof *l->ns, by_ns);
    size_t at = l->count * percent / 100;
    return (double)l->ns[at < l->count ? at : l->count - 1] / 1e6;
}

struct pending {
    uint32_t shard;
    uint64_t since_ns;
};

/* The file set's helpers: each syncs every SYNCERS-th of the touched files. */
struct syncers {
    pthread_t threads[SYNCERS];
    pthread_barrier_t begin, end;
    const int *fds;
    uint64_t *done_ns;
    unsigned count;
    bool stop;
};

struct syncer {
    struct syncers *all;
    unsigned index;
};

static void *
syncer_main(void *arg)
{
    struct syncer self = *(struct syncer *)arg;
    struct syncers *s = self.all;
    free(arg);
    for (;;) {
        pthread_barrier_wait(&s->begin);
        if (s->stop)
            return NULL;
        for (unsigned i = self.index; i < s->count; i += SYNCERS) {
            sync_file(s->fds[i]);
            s->done_ns[i] = now_ns();
        }
        pthread_barrier_wait(&s->end);
    }
}

static void
syncers_start(struct syncers *s)
{
    *s = (struct syncers){0};
    pthread_barrier_init(&s->begin, NULL, SYNCERS + 1);
    pthread_barrier_init(&s->end, NULL, SYNCERS + 1);
    for (unsigned i = 0; i < SYNCERS; i++) {
        struct syncer *self = must(malloc(sizeof *self));
        *self = (struct syncer){s, i};
        if (pthread_create(&s->threads[i], NULL, syncer_main, self))
            die("start a thread");
    }
}

static void
syncers_stop(struct syncers *s)
{
    s->stop = true;
    pthread_barrier_wait(&s->begin);
    for (unsigned i = 0; i < SYNCERS; i++)
        pthread_join(s->threads[i], NULL);
    pthread_barrier_destroy(&s->begin);
    pthread_barrier_destroy(&s->end);
}

enum side { JOURNAL, SET, SET_PARALLEL, SIDES };
static const char *const side_names[] = {"journal", "set", "set x8"};

struct committer {
    enum side side;
    struct layout *layout;
    struct syncers *syncers;
    uint8_t *bytes; /* room for a group */
    uint64_t number;
    struct latencies *acks;
};

static uint64_t
place_in_file(struct layout *l, unsigned file, size_t len)
{
    if (l->at[file] + len > l->size)
        l->at[file] = 0;
    uint64_t at = l->at[file];
    l->at[file] += len;
    return at;
}

/* The journal's group: one write, one sync. Segments follow each other and are used again. */
static void
commit_journal(struct committer *c, const struct pending *group, size_t count, size_t len)
{
    struct layout *l = c->layout;
    unsigned segment = (unsigned)(l->at[SHARDS_MAX - 1] % l->count);
    if (l->at[segment] + count * len > l->size) {
        l->at[SHARDS_MAX - 1]++;
        segment = (segment + 1) % l->count;
        l->at[segment] = 0;
    }
    for (size_t i = 0; i < count; i++)
        make_batch(c->bytes + i * len, group[i].shard, c->number++, len);
    write_all(l->fds[segment], c->bytes, count * len, l->at[segment]);
    l->at[segment] += count * len;
    sync_file(l->fds[segment]);
    uint64_t now = now_ns();
    for (size_t i = 0; i < count; i++)
        add_latency(c->acks, now - group[i].since_ns);
}

/* The set's group: a write per batch, then a sync per touched file; each is acknowledged when its
 * own file is on disk. Writing is started for all before the first sync waits. */
static void
commit_set(struct committer *c, const struct pending *group, size_t count, size_t len)
{
    struct layout *l = c->layout;
    int fds[GROUP / PACED_BYTES];
    uint64_t done_ns[GROUP / PACED_BYTES];
    uint32_t touched[GROUP / PACED_BYTES];
    unsigned files = 0;
    for (size_t i = 0; i < count; i++) {
        unsigned file = group[i].shard;
        uint64_t at = place_in_file(l, file, len);
        make_batch(c->bytes, group[i].shard, c->number++, len);
        write_all(l->fds[file], c->bytes, len, at);
        unsigned k = 0;
        while (k < files && touched[k] != file)
            k++;
        if (k == files) {
            touched[files] = file;
            fds[files++] = l->fds[file];
        }
    }
    if (files > 1) {
        for (unsigned k = 0; k < files; k++)
            sync_file_range(fds[k], 0, 0, SYNC_FILE_RANGE_WRITE);
    }
    if (c->side == SET_PARALLEL && files > 1) {
        c->syncers->fds = fds;
        c->syncers->done_ns = done_ns;
        c->syncers->count = files;
        pthread_barrier_wait(&c->syncers->begin);
        pthread_barrier_wait(&c->syncers->end);
    } else {
        for (unsigned k = 0; k < files; k++) {
            sync_file(fds[k]);
            done_ns[k] = now_ns();
        }
    }
    for (size_t i = 0; i < count; i++) {
        unsigned k = 0;
        while (touched[k] != group[i].shard)
            k++;
        add_latency(c->acks, done_ns[k] - group[i].since_ns);
    }
}

static void
commit(struct committer *c, const struct pending *group, size_t count, size_t len)
{
    if (c->side == JOURNAL)
        commit_journal(c, group, count, len);
    else
        commit_set(c, group, count, len);
}

/* Closed loop: whatever is acknowledged is sent anew at once. Returns MB/s. */
static double
run_ingest(struct committer *c, unsigned shards, double seconds)
{
    size_t len = batch_bytes(shards), in_flight = WINDOW / len, per_group = GROUP / len;
    if (shards > 16 && in_flight > shards)
        in_flight = shards;
    struct pending *queue = must(calloc(in_flight, sizeof *queue));
    uint64_t begin = now_ns(), end = begin + (uint64_t)(seconds * 1e9), bytes = 0;
    for (size_t i = 0; i < in_flight; i++)
        queue[i] = (struct pending){(uint32_t)(i % shards), begin};
    for (size_t at = 0; now_ns() < end;) {
        size_t count = per_group < in_flight - at ? per_group : in_flight - at;
        commit(c, queue + at, count, len);
        uint64_t now = now_ns();
        for (size_t i = 0; i < count; i++)
            queue[at + i].since_ns = now;
        bytes += count * len;
        at = (at + count) % in_flight;
    }
    double took = (double)(now_ns() - begin) / 1e9;
    free(queue);
    return (double)bytes / 1e6 / took;
}

/* Open loop: arrivals at random moments, whether we keep up or not; the queue is what has arrived.
 */
static void
run_paced(struct committer *c, unsigned shards, double seconds)
{
    size_t arrivals = (size_t)(seconds * PACED_PER_SECOND), next = 0;
    struct pending *all = must(calloc(arrivals, sizeof *all));
    uint64_t begin = now_ns(), at = begin, state = 7;
    for (size_t i = 0; i < arrivals; i++) {
        at += draw(&state) % (2 * 1000000000u / PACED_PER_SECOND);
        all[i] = (struct pending){(uint32_t)(draw(&state) % shards), at};
    }
    while (next < arrivals) {
        uint64_t now = now_ns();
        if (all[next].since_ns > now) {
            struct timespec wait = {0, (long)(all[next].since_ns - now)};
            nanosleep(&wait, NULL);
            continue;
        }
        size_t count = 1;
        while (next + count < arrivals && count < GROUP / PACED_BYTES &&
               all[next + count].since_ns <= now)
            count++;
        commit(c, all + next, count, PACED_BYTES);
        next += count;
    }
    free(all);
}

/* What a write of 64 KiB and its fdatasync cost by themselves, now. */
static double
sync_floor_ms(const struct layout *l, uint8_t *bytes)
{
    struct latencies syncs = {0};
    for (unsigned i = 0; i < 100; i++) {
        uint64_t begin = now_ns();
        write_all(l->fds[0], bytes, 64 * KIB, i * 64 * KIB);
        sync_file(l->fds[0]);
        add_latency(&syncs, now_ns() - begin);
    }
    double p50 = percentile_ms(&syncs, 50);
    free(syncs.ns);
    return p50;
}

static void
measure_commits(const char *dir, unsigned shards, unsigned rounds, double seconds)
{
    static struct layout layouts[2];
    struct figure rate[SIDES] = {0}, p50[SIDES] = {0}, p99[SIDES] = {0};
    struct figure paced50[SIDES] = {0}, paced99[SIDES] = {0}, floor = {0};
    struct syncers syncers;
    uint8_t *bytes = must(malloc(GROUP));
    uint64_t state = 1;
    for (size_t i = 0; i < GROUP; i += 8) {
        uint64_t word = draw(&state);
        memcpy(bytes + i, &word, 8);
    }
    size_t file = TOTAL / shards / MIB * MIB;
    layout_open(&layouts[0], dir, "journal", SEGMENTS, SEGMENT);
    layout_open(&layouts[1], dir, "set", shards, file > 512 * KIB ? file : 512 * KIB);
    syncers_start(&syncers);
    for (unsigned round = 0; round < rounds; round++) {
        add(&floor, sync_floor_ms(&layouts[0], bytes));
        for (unsigned turn = 0; turn < SIDES; turn++) {
            enum side side = (enum side)((turn + round) % SIDES);
            struct latencies acks = {0};
            struct committer c = {side, &layouts[side != JOURNAL], &syncers, bytes, 0, &acks};
            add(&rate[side], run_ingest(&c, shards, seconds));
            add(&p50[side], percentile_ms(&acks, 50));
            add(&p99[side], percentile_ms(&acks, 99));
            acks.count = 0;
            run_paced(&c, shards, seconds);
            add(&paced50[side], percentile_ms(&acks, 50));
            add(&paced99[side], percentile_ms(&acks, 99));
            free(acks.ns);
        }
    }
    syncers_stop(&syncers);
    layout_close(&layouts[0]);
    layout_close(&layouts[1]);
    free(bytes);
    print_figure("64 KiB sync floor p50", "one file", shards, &floor, "ms");
    for (int side = 0; side < SIDES; side++)
        print_figure("ingest", side_names[side], shards, &rate[side], "MB/s");
    for (int side = 0; side < SIDES; side++) {
        print_figure("ingest ack p50", side_names[side], shards, &p50[side], "ms");
        print_figure("ingest ack p99", side_names[side], shards, &p99[side], "ms");
    }
    for (int side = 0; side < SIDES; side++) {
        print_figure("paced ack p50", side_names[side], shards, &paced50[side], "ms");
        print_figure("paced ack p99", side_names[side], shards, &paced99[side], "ms");
    }
}

/* ---- a filled disk: TOTAL bytes, the shards in turn ---- */

struct filled {
    unsigned shards;
    size_t len, per_segment; /* bytes of a batch; batches of a segment */
    struct layout journal, set;
    struct place *index;
    size_t batches;
};

static void
fill(struct filled *f, const char *dir, unsigned shards)
{
    *f = (struct filled){.shards = shards, .len = batch_bytes(shards)};
    f->per_segment = SEGMENT / f->len;
    f->batches = f->per_segment * SEGMENTS;
    f->index = must(calloc(f->batches, sizeof *f->index));
    size_t each = (f->batches + shards - 1) / shards * f->len;
    layout_open(&f->journal, dir, "journal", SEGMENTS, SEGMENT);
    layout_open(&f->set, dir, "set", shards, each);
    uint8_t *bytes = must(calloc(1, SEGMENT));
    for (size_t s = 0; s < SEGMENTS; s++) {
        for (size_t i = 0; i < f->per_segment; i++) {
            size_t number = s * f->per_segment + i;
            uint32_t shard = (uint32_t)(number % shards);
            uint8_t *batch = bytes + i * f->len;
            make_batch(batch, shard, number, f->len);
            f->index[number] = (struct place){number * f->len, shard, (uint32_t)f->len};
            write_all(f->set.fds[shard], batch, f->len, f->set.at[shard]);
            f->set.at[shard] += f->len;
        }
        write_all(f->journal.fds[s], bytes, SEGMENT, 0);
        /* The footer stands in a file of its own here, so that segments stay whole. */
        int footer = open_file(dir, "footer", (unsigned)s, O_RDWR | O_CREAT);
        write_all(footer, (const uint8_t *)(f->index + s * f->per_segment),
                  f->per_segment * sizeof *f->index, 0);
        sync_file(footer);
        close(footer);
    }
    for (size_t s = 0; s < SEGMENTS; s++)
        sync_file(f->journal.fds[s]);
    for (unsigned i = 0; i < shards; i++)
        sync_file(f->set.fds[i]);
    free(bytes);
}

static void
fill_end(struct filled *f)
{
    for (unsigned s = 0; s < SEGMENTS; s++)
        remove_file(f->journal.dir, "footer", s);
    layout_close(&f->journal);
    layout_close(&f->set);
    free(f->index);
}

/* Reads a shard's batches by the index, neighbours together; where they are on the disk, it asks
 * for the next 2 MiB of them ahead. */
static size_t
replay_journal(const struct filled *f, uint32_t shard, bool on_disk, uint8_t *bytes)
{
    size_t total = 0, asked = shard, ahead = 2 * MIB / f->len * f->shards;
    for (size_t number = shard; number < f->batches;) {
        for (; on_disk && asked < f->batches && asked <= number + ahead; asked += f->shards)
            posix_fadvise(f->journal.fds[f->index[asked].at / SEGMENT],
                          (off_t)(f->index[asked].at % SEGMENT), (off_t)f->len,
                          POSIX_FADV_WILLNEED);
        size_t len = 0, first = number;
        do {
            len += f->len;
            number += f->shards;
        } while (f->shards == 1 && len < MIB && number % f->per_segment);
        read_all(f->journal.fds[f->index[first].at / SEGMENT], bytes, len,
                 f->index[first].at % SEGMENT);
        for (size_t at = 0; at < len; at += f->len) {
            if (!is_batch(bytes + at, f->len))
                die("believe a batch of the journal");
        }
        total += len;
    }
    return total;
}

static size_t
replay_set(const struct filled *f, uint32_t shard, uint8_t *bytes)
{
    size_t size = (size_t)f->set.at[shard];
    for (size_t at = 0; at < size;) {
        size_t len = size - at < MIB ? size - at : MIB;
        read_all(f->set.fds[shard], bytes, len, at);
        for (size_t k = 0; k < len; k += f->len) {
            if (!is_batch(bytes + k, f->len))
                die("believe a batch of the set");
        }
        at += len;
    }
    return size;
}

static double
replay_rate(const struct filled *f, bool of_journal, bool on_disk, uint8_t *bytes)
{
    unsigned readers = f->shards < 16 ? f->shards : 16;
    size_t total = 0;
    uint64_t begin = now_ns();
    for (unsigned i = 0; i < readers; i++) {
        uint32_t shard = (uint32_t)(i * (f->shards / readers));
        total +=
            of_journal ? replay_journal(f, shard, on_disk, bytes) : replay_set(f, shard, bytes);
    }
    return (double)total / 1e6 / ((double)(now_ns() - begin) / 1e9);
}

static size_t
walk(int fd, uint8_t *bytes, uint64_t from, uint64_t to, size_t batch)
{
    size_t found = 0;
    for (uint64_t at = from; at < to;) {
        size_t len = to - at < MIB ? (size_t)(to - at) : MIB;
        read_all(fd, bytes, len, at);
        for (size_t k = 0; k < len; k += batch)
            found += is_batch(bytes + k, batch);
        at += len;
    }
    return found;
}

static double
recover_journal(const struct filled *f, uint8_t *bytes)
{
    uint64_t begin = now_ns();
    size_t *counts = must(calloc(f->shards, sizeof *counts));
    struct place *index = must(malloc(f->batches * sizeof *index));
    for (unsigned s = 0; s + 1 < SEGMENTS; s++) {
        struct place *part = index + s * f->per_segment;
        int fd = open_file(f->journal.dir, "footer", s, O_RDONLY);
        read_all(fd, (uint8_t *)part, f->per_segment * sizeof *part, 0);
        close(fd);
        for (size_t i = 0; i < f->per_segment; i++)
            counts[part[i].shard]++;
    }
    int fd = open_file(f->journal.dir, "journal", SEGMENTS - 1, O_RDONLY);
    if (walk(fd, bytes, 0, SEGMENT, f->len) != f->per_segment)
        die("recover the journal");
    close(fd);
    free(index);
    free(counts);
    return (double)(now_ns() - begin) / 1e6;
}

static double
recover_set(const struct filled *f, uint8_t *bytes)
{
    uint64_t begin = now_ns();
    for (unsigned i = 0; i < f->shards; i++) {
        int fd = open_file(f->set.dir, "set", i, O_RDONLY);
        struct stat about;
        if (fstat(fd, &about))
            die("stat a file");
        uint64_t end = f->set.at[i];
        uint64_t from = (end - end / SEGMENTS) / f->len * f->len;
        if (walk(fd, bytes, from, end, f->len) != (end - from) / f->len)
            die("recover a shard");
        close(fd);
    }
    return (double)(now_ns() - begin) / 1e6;
}

static void
measure_reads(const char *dir, unsigned shards, unsigned rounds)
{
    static struct filled f;
    struct figure cold[2] = {0}, warm[2] = {0}, recovery[2] = {0};
    uint8_t *bytes = must(malloc(MIB + 256 * KIB));
    fill(&f, dir, shards);
    for (unsigned round = 0; round < rounds; round++) {
        for (unsigned turn = 0; turn < 2; turn++) {
            bool of_journal = (turn + round) % 2 == 0;
            forget_cached(of_journal ? &f.journal : &f.set);
            add(&cold[!of_journal], replay_rate(&f, of_journal, true, bytes));
            add(&warm[!of_journal], replay_rate(&f, of_journal, false, bytes));
            forget_cached(of_journal ? &f.journal : &f.set);
            add(&recovery[!of_journal],
                of_journal ? recover_journal(&f, bytes) : recover_set(&f, bytes));
        }
    }
    fill_end(&f);
    free(bytes);
    for (int side = 0; side < 2; side++) {
        print_figure("replay from disk", side_names[side], shards, &cold[side], "MB/s");
        print_figure("replay from memory", side_names[side], shards, &warm[side], "MB/s");
        print_figure("recovery", side_names[side], shards, &recovery[side], "ms");
    }
}

/* In the older half of the segments, every `keep`-th shard's batches are live, the others expired.
 */
struct retention {
    struct figure copy, copied_bytes, punch, whole, set;
};

/* Live batches go to the journal's end in groups, then the old segments go. */
static double
copy_forward(const struct filled *f, unsigned keep, int target, size_t *copied, uint8_t *bytes)
{
    uint64_t begin = now_ns();
    size_t group = 0, at = 0;
    for (size_t number = 0; number < f->batches / 2; number++) {
        const struct place *place = &f->index[number];
        if (place->shard % keep)
            continue;
        read_all(f->journal.fds[place->at / SEGMENT], bytes + group, f->len, place->at % SEGMENT);
        if (!is_batch(bytes + group, f->len))
            die("believe a live batch");
        group += f->len;
        if (group == GROUP) {
            write_all(target, bytes, group, at);
            sync_file(target);
            at += group;
            group = 0;
        }
    }
    if (group) {
        write_all(target, bytes, group, at);
        sync_file(target);
        at += group;
    }
    for (unsigned s = 0; s < SEGMENTS / 2; s++)
        remove_file(f->journal.dir, "journal", s);
    sync_directory(f->journal.dir);
    *copied = at;
    return (double)(now_ns() - begin) / 1e6;
}

static double
punch_holes(const struct filled *f, unsigned keep)
{
    uint64_t begin = now_ns();
    for (size_t number = 0; number < f->batches / 2;) {
        size_t first = number, in_segment = number / f->per_segment;
        while (number < f->batches / 2 && number / f->per_segment == in_segment &&
               f->index[number].shard % keep)
            number++;
        if (number == first) {
            number++;
            continue;
        }
        if (fallocate(f->journal.fds[in_segment], FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                      (off_t)(f->index[first].at % SEGMENT), (off_t)((number - first) * f->len)))
            die("punch a hole");
    }
    for (unsigned s = 0; s < SEGMENTS / 2; s++)
        sync_file(f->journal.fds[s]);
    return (double)(now_ns() - begin) / 1e6;
}

static double
remove_whole(const struct filled *f)
{
    uint64_t begin = now_ns();
    for (unsigned s = 0; s < SEGMENTS / 2; s++)
        remove_file(f->journal.dir, "journal", s);
    sync_directory(f->journal.dir);
    return (double)(now_ns() - begin) / 1e6;
}

/* A shard's expired half is one file of its set. */
static double
remove_from_set(const struct filled *f, unsigned keep)
{
    for (unsigned i = 0; i < f->shards; i++) {
        int fd = open_file(f->set.dir, "expired", i, O_RDWR | O_CREAT);
        prewrite(fd, TOTAL / f->shards / 2);
        close(fd);
    }
    sync_directory(f->set.dir);
    uint64_t begin = now_ns();
    for (unsigned i = 0; i < f->shards; i++) {
        if (i % keep)
            remove_file(f->set.dir, "expired", i);
    }
    sync_directory(f->set.dir);
    double took = (double)(now_ns() - begin) / 1e6;
    for (unsigned i = 0; i < f->shards; i += keep)
        remove_file(f->set.dir, "expired", i);
    return took;
}

/* Puts the removed or punched segments back. */
static void
restore_old(struct filled *f)
{
    uint8_t *bytes = must(calloc(1, SEGMENT));
    for (unsigned s = 0; s < SEGMENTS / 2; s++) {
        close(f->journal.fds[s]);
        f->journal.fds[s] = open_file(f->journal.dir, "journal", s, O_RDWR | O_CREAT | O_TRUNC);
        for (size_t i = 0; i < f->per_segment; i++) {
            size_t number = s * f->per_segment + i;
            make_batch(bytes + i * f->len, f->index[number].shard, number, f->len);
        }
        write_all(f->journal.fds[s], bytes, SEGMENT, 0);
        sync_file(f->journal.fds[s]);
    }
    sync_directory(f->journal.dir);
    free(bytes);
}

static void
measure_retention(const char *dir, unsigned shards, unsigned keep, unsigned rounds)
{
    static struct filled f;
    struct retention r = {0};
    uint8_t *bytes = must(malloc(GROUP));
    size_t copied = 0;
    fill(&f, dir, shards);
    for (unsigned round = 0; round < rounds; round++) {
        int target = open_file(dir, "target", 0, O_RDWR | O_CREAT);
        prewrite(target, TOTAL / 2);
        add(&r.copy, copy_forward(&f, keep, target, &copied, bytes));
        add(&r.copied_bytes, (double)copied / 1e6);
        close(target);
        remove_file(dir, "target", 0);
        restore_old(&f);
        add(&r.punch, punch_holes(&f, keep));
        restore_old(&f);
        add(&r.whole, remove_whole(&f));
        restore_old(&f);
        add(&r.set, remove_from_set(&f, keep));
    }
    fill_end(&f);
    free(bytes);
    printf("retention: %zu MiB older half, 1 of %u shards keeps its data\n", TOTAL / 2 / MIB, keep);
    print_figure("copy forward", "journal", shards, &r.copy, "ms");
    print_figure("copied", "journal", shards, &r.copied_bytes, "MB");
    print_figure("punch holes", "journal", shards, &r.punch, "ms");
    print_figure("delete, equal ages", "journal", shards, &r.whole, "ms");
    print_figure("delete", "set", shards, &r.set, "ms");
}

int
main(int argc, char **argv)
{
    static const unsigned shards[] = {1, 64, 1000};
    const char *dir = NULL;
    char temporary[] = "spike-journal-XXXXXX";
    unsigned rounds = 5;
    double seconds = 1;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--dir") == 0)
            dir = argv[i + 1];
        else if (strcmp(argv[i], "--rounds") == 0)
            rounds = (unsigned)strtoul(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--seconds") == 0)
            seconds = strtod(argv[i + 1], NULL);
    }
    if (rounds < 1 || rounds > ROUNDS_MAX || !(seconds > 0)) {
        fprintf(stderr, "usage: bench_spike_journal [--dir DIR] [--rounds 1..%d] [--seconds S]\n",
                ROUNDS_MAX);
        return 2;
    }
    if (!dir)
        dir = mkdtemp(temporary);
    if (!dir)
        die("make a directory");
    for (unsigned i = 0; i < 3; i++)
        measure_commits(dir, shards[i], rounds, seconds);
    for (unsigned i = 0; i < 3; i++)
        measure_reads(dir, shards[i], rounds);
    measure_retention(dir, 64, 8, rounds);
    measure_retention(dir, 64, 2, rounds);
    if (dir == temporary)
        rmdir(dir);
    return 0;
}
