/* The witness: puts records whose every acknowledgement it writes down at once, and reads a stream
 * back to hold the broker to them.
 *
 *     witness produce --broker URL --stream S --acks FILE [--name P] [--keys N] [--size BYTES]
 *                     [--count N] [--rate N] [--retry-ms N] [--in-flight N]
 *     witness check   --broker URL --stream S [--gaps] [ACKS...]
 *     witness follow  --broker URL --stream S [--name CONSUMER] [--until N] [--silent]
 *
 * A record's key is NAME-K; its data begins with its running number within the key, and the rest
 * follows from the two, so that every byte can be checked. An acknowledgement is a line, written
 * with one write(2) in the callback: what is in the file was acknowledged, whoever was killed when.
 *
 *     A KEY NUMBER SHARD OFFSET      stored there
 *     D KEY NUMBER                   stored before (a duplicate whose place is no longer known)
 *     F KEY NUMBER STATUS            not stored; with UNKNOWN: perhaps
 *
 * check promises: every acknowledged record is there, once, where it was said to be; refused ones
 * are not there; the others at most once; keys are in order through splits and merges; offsets
 * are dense in each shard. With --gaps the broker may report gaps, and what lies in them is
 * excused. It prints one line of JSON.
 *
 * follow checks the same of a live subscription, but for the acknowledgements, and prints its count
 * after each event; SIGTERM or --until ends it.
 *
 * Exit status: 0 all holds, 1 a promise is broken, 2 wrong usage, 3 the broker cannot be reached or
 * refuses. */
#include "client/weir.h"
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { HOLDS, BROKEN, USAGE, NO_BROKER };
enum { NUMBER_DIGITS = 12, SIZE_MAX_BYTES = 4 << 20, SHARDS_MAX = 4096, SAID_MAX = 20 };

struct options {
    const char *broker, *stream, *acks, *name;
    uint64_t keys, size, count, rate, retry_ms, in_flight, until;
    bool gaps, silent;
};

static volatile sig_atomic_t told_to_stop;

static void
on_signal(int signo)
{
    told_to_stop = signo;
}

static uint64_t
mono_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void
pause_ms(uint64_t ms)
{
    struct timespec t = {(time_t)(ms / 1000), (long)(ms % 1000) * 1000000};
    nanosleep(&t, NULL);
}

/* ---- what a record holds ---- */

static uint64_t
next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

static uint64_t
seed_of(const char *key, size_t len, uint64_t number)
{
    uint64_t hash = 1469598103934665603;
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ (uint8_t)key[i]) * 1099511628211;
    return hash ^ number * 0xd6e8feb86659fd93;
}

/* Everything behind the number follows from the seed: half of it compresses, half does not. */
static void
fill(char *data, size_t len, uint64_t seed)
{
    uint64_t state = seed;
    for (size_t i = 0; i < len;) {
        uint64_t r = next_random(&state);
        size_t piece = len - i < 16 ? len - i : 16;
        memset(data + i, 'a' + (int)(r % 26), piece);
        memcpy(data + i, &r, piece < 8 ? piece : 8);
        i += piece;
    }
}

static size_t
make_data(char *data, const char *key, uint64_t number, uint64_t size)
{
    uint64_t seed = seed_of(key, strlen(key), number);
    size_t len = NUMBER_DIGITS + (size_t)(size / 2 + seed % (size + 1));
    char digits[NUMBER_DIGITS + 9];
    snprintf(digits, sizeof digits, "%0*lu", NUMBER_DIGITS, (unsigned long)number);
    memcpy(data, digits, NUMBER_DIGITS);
    fill(data + NUMBER_DIGITS, len - NUMBER_DIGITS, seed);
    return len;
}

/* ---- produce ---- */

struct producing {
    const struct options *o;
    int fd;
    _Atomic uint64_t acked, failed;
};

static void *
tag_of(uint64_t key, uint64_t number)
{
    return (void *)(uintptr_t)(key << 40 | number);
}

static void
on_ack(void *arg, const struct weir_ack *ack)
{
    struct producing *p = arg;
    unsigned long tag = (unsigned long)(uintptr_t)ack->tag;
    unsigned long key = tag >> 40, number = tag & ((1ul << 40) - 1);
    char line[320];
    int len;
    if (ack->status == WEIR_OK)
        len = snprintf(line, sizeof line, "A %s-%lu %lu %u %lu\n", p->o->name, key, number,
                       ack->shard, (unsigned long)ack->offset);
    else if (ack->status == WEIR_DUPLICATE)
        len = snprintf(line, sizeof line, "D %s-%lu %lu\n", p->o->name, key, number);
    else
        len = snprintf(line, sizeof line, "F %s-%lu %lu %s\n", p->o->name, key, number,
                       weir_status_name(ack->status));
    if (write(p->fd, line, (size_t)len) != len) {
        perror("witness: cannot write down an acknowledgement");
        _exit(BROKEN);
    }
    if (ack->status == WEIR_OK || ack->status == WEIR_DUPLICATE)
        atomic_fetch_add(&p->acked, 1);
    else if (atomic_fetch_add(&p->failed, 1) == 0)
        fprintf(stderr, "witness: %s-%lu %lu: %s (%s)\n", p->o->name, key, number,
                ack->text ? ack->text : "", weir_status_name(ack->status));
}

static int
complain(const char *what, const struct weir_error *err)
{
    fprintf(stderr, "witness: %s: %s\n", what,
            err->text[0] ? err->text : weir_status_text(err->status));
    return NO_BROKER;
}

static void
on_connection(void *arg, bool connected, const char *text)
{
    (void)arg;
    fprintf(stderr, "witness: %s: %s\n", connected ? "connected" : "connection lost",
            text ? text : "");
}

static int
open_client(const struct options *o, struct weir_client **out)
{
    struct weir_error err = {0};
    struct weir_client_options c = {
        .url = o->broker,
        .name = "witness",
        .connect_timeout_ms = 30000,
        .on_connection = on_connection,
    };
    return weir_client_open(&c, out, &err) ? complain("cannot connect", &err) : HOLDS;
}

static int
put_all(struct producing *p, struct weir_producer *producer)
{
    const struct options *o = p->o;
    char *data = malloc(NUMBER_DIGITS + SIZE_MAX_BYTES * 2), key[160];
    uint64_t started = mono_ms(), n = 0, choose = seed_of(o->name, strlen(o->name), 0);
    uint64_t *number = calloc(o->keys, sizeof *number);
    if (!data || !number)
        return BROKEN;
    while (!told_to_stop && (!o->count || n < o->count)) {
        if (o->rate && n * 1000 / o->rate > mono_ms() - started) {
            pause_ms(1);
            continue;
        }
        uint64_t k = next_random(&choose) % o->keys;
        int key_len = snprintf(key, sizeof key, "%s-%lu", o->name, (unsigned long)k);
        size_t len = make_data(data, key, number[k], o->size);
        enum weir_status st;
        do
            st = weir_put(producer, key, (size_t)key_len, data, len, tag_of(k, number[k]), 200);
        while (st == WEIR_AGAIN && !told_to_stop);
        if (st == WEIR_AGAIN)
            break;
        if (st) {
            fprintf(stderr, "witness: cannot put: %s\n", weir_status_text(st));
            return BROKEN;
        }
        number[k]++;
        n++;
    }
    free(number);
    free(data);
    return HOLDS;
}

static int
produce(const struct options *o)
{
    struct producing p = {.o = o};
    struct weir_client *client = NULL;
    struct weir_producer *producer = NULL;
    struct weir_error err = {0};
    int exit = open_client(o, &client);
    if (exit)
        return exit;
    p.fd = open(o->acks, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (p.fd < 0) {
        perror(o->acks);
        return USAGE;
    }
    struct weir_producer_options options = {
        .stream = o->stream,
        .batch_bytes = 32 << 10,
        .retry_ms = o->retry_ms,
        .batches_in_flight = (uint32_t)o->in_flight,
        .on_ack = on_ack,
        .arg = &p,
    };
    if (weir_producer_open(client, &options, &producer, &err)) {
        exit = complain("cannot open a producer", &err);
        goto done;
    }
    exit = put_all(&p, producer);
    if (!exit && weir_producer_flush(producer, -1, &err)) {
        fprintf(stderr, "witness: flush: %s\n", err.text);
        exit = BROKEN;
    }
    struct weir_producer_numbers numbers;
    weir_producer_get_numbers(producer, &numbers);
    printf("{\"put\":%lu,\"acked\":%lu,\"failed\":%lu,\"retries\":%lu}\n",
           (unsigned long)numbers.records_put, (unsigned long)atomic_load(&p.acked),
           (unsigned long)atomic_load(&p.failed), (unsigned long)numbers.retries);
    if (atomic_load(&p.acked) + atomic_load(&p.failed) != numbers.records_put) {
        fprintf(stderr, "witness: %lu records put, but %lu answers\n",
                (unsigned long)numbers.records_put,
                (unsigned long)(atomic_load(&p.acked) + atomic_load(&p.failed)));
        exit = BROKEN;
    }
done:
    weir_producer_close(producer);
    weir_client_close(client);
    close(p.fd);
    return exit;
}

/* ---- the stream as it was read ---- */

struct place {
    uint32_t shard; /* UINT32_MAX: not there */
    uint64_t offset;
};

struct key {
    struct key *next;
    uint64_t count;      /* of places */
    uint64_t following;  /* at least this is the next number */
    struct place *place; /* by number */
    char name[160];
};

struct gap {
    uint32_t shard;
    uint64_t first, limit;
};

struct reading {
    struct key *keys[4096];
    uint64_t next[SHARDS_MAX];
    bool seen[SHARDS_MAX];
    struct gap gap[1024];
    size_t gap_count;
    uint64_t records, lost, faults, reconnects;
    bool gaps_allowed, keep_places;
};

[[gnu::format(printf, 2, 3)]] static void
fault(struct reading *r, const char *fmt, ...)
{
    if (r->faults++ >= SAID_MAX)
        return;
    va_list list;
    va_start(list, fmt);
    fprintf(stderr, "witness: BROKEN: ");
    vfprintf(stderr, fmt, list);
    fprintf(stderr, "\n");
    va_end(list);
}

static struct key *
find_key(struct reading *r, const char *name, size_t len, bool make)
{
    struct key **at = &r->keys[seed_of(name, len, 0) % 4096];
    for (; *at; at = &(*at)->next)
        if (strlen((*at)->name) == len && memcmp((*at)->name, name, len) == 0)
            return *at;
    if (!make || len >= sizeof(*at)->name)
        return NULL;
    *at = calloc(1, sizeof **at);
    if (*at)
        memcpy((*at)->name, name, len);
    return *at;
}

static bool
note_place(struct key *k, uint64_t number, uint32_t shard, uint64_t offset)
{
    if (number >= k->count) {
        uint64_t count = number * 2 + 16;
        struct place *more = realloc(k->place, count * sizeof *more);
        if (!more)
            return false;
        for (uint64_t i = k->count; i < count; i++)
            more[i].shard = UINT32_MAX;
        k->place = more;
        k->count = count;
    }
    k->place[number] = (struct place){shard, offset};
    return true;
}

static bool
is_there(const struct key *k, uint64_t number)
{
    return k && number < k->count && k->place[number].shard != UINT32_MAX;
}

static void
check_record(struct reading *r, const struct weir_event_record *rec)
{
    char digits[NUMBER_DIGITS + 1] = "", *end;
    r->records++;
    if (rec->shard >= SHARDS_MAX || rec->data_len < NUMBER_DIGITS) {
        fault(r, "shard %u offset %lu: not a record of ours", rec->shard,
              (unsigned long)rec->offset);
        return;
    }
    if (rec->offset != r->next[rec->shard])
        fault(r, "shard %u: offset %lu comes where %lu is next", rec->shard,
              (unsigned long)rec->offset, (unsigned long)r->next[rec->shard]);
    r->next[rec->shard] = rec->offset + 1;

    memcpy(digits, rec->data, NUMBER_DIGITS);
    uint64_t number = strtoul(digits, &end, 10);
    size_t rest = rec->data_len - NUMBER_DIGITS;
    char *want = malloc(rest + 1);
    if (!want)
        abort();
    fill(want, rest, seed_of((const char *)rec->key, rec->key_len, number));
    if (*end || memcmp(want, rec->data + NUMBER_DIGITS, rest) != 0)
        fault(r, "shard %u offset %lu: the data is not what was put", rec->shard,
              (unsigned long)rec->offset);
    free(want);

    struct key *k = find_key(r, (const char *)rec->key, rec->key_len, true);
    if (!k) {
        fault(r, "shard %u offset %lu: a strange key", rec->shard, (unsigned long)rec->offset);
        return;
    }
    if (r->keep_places && is_there(k, number))
        fault(r, "%s %lu is there twice: shard %u offset %lu and shard %u offset %lu", k->name,
              (unsigned long)number, k->place[number].shard, (unsigned long)k->place[number].offset,
              rec->shard, (unsigned long)rec->offset);
    else if (number < k->following)
        fault(r, "%s %lu comes after %lu (shard %u offset %lu)", k->name, (unsigned long)number,
              (unsigned long)k->following - 1, rec->shard, (unsigned long)rec->offset);
    k->following = number + 1;
    if (r->keep_places && !note_place(k, number, rec->shard, rec->offset))
        abort();
}

static void
check_gap(struct reading *r, const struct weir_event *e)
{
    if (!r->gaps_allowed)
        fault(r, "shard %u: offsets %lu to %lu are gone (%s)", e->shard, (unsigned long)e->first,
              (unsigned long)e->limit, weir_status_text(e->why));
    if (e->shard >= SHARDS_MAX)
        return;
    if (e->limit < e->first || e->first < r->next[e->shard])
        fault(r, "shard %u: a gap from %lu to %lu where %lu is next", e->shard,
              (unsigned long)e->first, (unsigned long)e->limit, (unsigned long)r->next[e->shard]);
    if (r->gap_count < sizeof r->gap / sizeof *r->gap)
        r->gap[r->gap_count++] = (struct gap){e->shard, r->next[e->shard], e->limit};
    r->lost += e->limit - r->next[e->shard];
    r->next[e->shard] = e->limit;
}

static void
check_event(struct reading *r, struct weir_event *e)
{
    struct weir_event_record rec;
    uint64_t before = r->records;
    switch (e->kind) {
    case WEIR_EVENT_RECORDS:
        while (weir_event_next(e, &rec))
            check_record(r, &rec);
        if (r->records - before != e->records)
            fault(r, "shard %u: %u records announced, %lu there", e->shard, e->records,
                  (unsigned long)(r->records - before));
        break;
    case WEIR_EVENT_GAP:
        check_gap(r, e);
        break;
    case WEIR_EVENT_FENCED:
        fault(r, "shard %u: fenced", e->shard);
        break;
    case WEIR_EVENT_CONNECTION:
        r->reconnects += e->connected;
        break;
    case WEIR_EVENT_PROGRESS:
    case WEIR_EVENT_SHARD_END:
        break;
    }
}

static void
free_reading(struct reading *r)
{
    for (size_t i = 0; i < 4096; i++)
        for (struct key *k = r->keys[i], *next; k; k = next) {
            next = k->next;
            free(k->place);
            free(k);
        }
    free(r);
}

/* ---- check ---- */

static bool
is_in_gap(const struct reading *r, uint32_t shard, uint64_t offset)
{
    for (size_t i = 0; i < r->gap_count; i++)
        if (r->gap[i].shard == shard && offset >= r->gap[i].first && offset < r->gap[i].limit)
            return true;
    return false;
}

/* Holds one line of an acknowledgement file against the stream. */
static void
check_line(struct reading *r, const char *line, uint64_t *acked, uint64_t *excused)
{
    char kind, name[160], status[32] = "";
    unsigned long number, offset = 0;
    unsigned shard = 0;
    if (sscanf(line, "%c %159s %lu", &kind, name, &number) != 3) {
        fault(r, "a line I did not write: %s", line);
        return;
    }
    const struct key *k = find_key(r, name, strlen(name), false);
    if (kind == 'F') {
        (void)!sscanf(line, "%*c %*s %*u %31s", status);
        if (strcmp(status, "UNKNOWN") != 0 && is_there(k, number))
            fault(r, "%s %lu was refused (%s), but is there", name, number, status);
        return;
    }
    ++*acked;
    if (kind == 'D') {
        if (!is_there(k, number) && r->lost == 0)
            fault(r, "%s %lu was acknowledged, but is not there", name, number);
        return;
    }
    if (sscanf(line, "%*c %*s %*u %u %lu", &shard, &offset) != 2) {
        fault(r, "a line I did not write: %s", line);
    } else if (!is_there(k, number)) {
        if (is_in_gap(r, shard, offset))
            ++*excused;
        else
            fault(r, "%s %lu was acknowledged at shard %u offset %lu, but is not there", name,
                  number, shard, offset);
    } else if (k->place[number].shard != shard || k->place[number].offset != offset) {
        fault(r, "%s %lu was acknowledged at shard %u offset %lu, but is at shard %u offset %lu",
              name, number, shard, offset, k->place[number].shard,
              (unsigned long)k->place[number].offset);
    }
}

static int
read_to_tail(const struct options *o, struct reading *r)
{
    struct weir_client *client = NULL;
    struct weir_subscription *sub = NULL;
    struct weir_error err = {0};
    int exit = open_client(o, &client);
    if (exit)
        return exit;
    struct weir_subscribe_options s = {
        .stream = o->stream,
        .from = {.kind = WEIR_FROM_OLDEST},
        .until_tail = true,
    };
    enum weir_status st = weir_subscribe(client, &s, &sub, &err);
    uint64_t last_ms = mono_ms();
    while (!st) {
        struct weir_event *event;
        st = weir_poll(sub, 1000, &event, &err);
        if (!st) {
            last_ms = mono_ms();
            check_event(r, event);
            weir_event_free(event);
        } else if (st == WEIR_TIMEOUT && mono_ms() - last_ms < 60000) {
            st = WEIR_OK;
        }
    }
    if (st == WEIR_TIMEOUT) {
        fault(r, "nothing came for a minute, after %lu records", (unsigned long)r->records);
        exit = BROKEN;
    } else if (st != WEIR_END) {
        exit = complain("cannot read the stream", &err);
    }
    weir_subscription_close(sub);
    weir_client_close(client);
    return exit;
}

static int
check(const struct options *o, char **files)
{
    struct reading *r = calloc(1, sizeof *r);
    uint64_t acked = 0, excused = 0;
    char line[512];
    if (!r)
        return BROKEN;
    r->keep_places = true;
    r->gaps_allowed = o->gaps;
    int exit = read_to_tail(o, r);
    for (; *files && !exit; files++) {
        FILE *in = fopen(*files, "r");
        if (!in) {
            perror(*files);
            exit = USAGE;
            break;
        }
        while (fgets(line, sizeof line, in))
            if (strchr(line, '\n')) /* else the writer was killed in the middle */
                check_line(r, line, &acked, &excused);
        fclose(in);
    }
    printf("{\"records\":%lu,\"acked\":%lu,\"gaps\":%zu,\"lost\":%lu,\"excused\":%lu,"
           "\"faults\":%lu}\n",
           (unsigned long)r->records, (unsigned long)acked, r->gap_count, (unsigned long)r->lost,
           (unsigned long)excused, (unsigned long)r->faults);
    if (!exit && r->faults)
        exit = BROKEN;
    free_reading(r);
    return exit;
}

/* ---- follow ---- */

static int
follow(const struct options *o)
{
    struct weir_client *client = NULL;
    struct weir_subscription *sub = NULL;
    struct weir_error err = {0};
    struct reading *r = calloc(1, sizeof *r);
    if (!r)
        return BROKEN;
    int exit = open_client(o, &client);
    if (exit)
        goto done;
    struct weir_subscribe_options s = {
        .stream = o->stream,
        .consumer = o->name,
        .from = {.kind = WEIR_FROM_OLDEST},
    };
    enum weir_status st = weir_subscribe(client, &s, &sub, &err);
    while (!st && !told_to_stop && (!o->until || r->records < o->until)) {
        struct weir_event *event;
        st = weir_poll(sub, 100, &event, &err);
        if (st == WEIR_TIMEOUT) {
            st = WEIR_OK;
            continue;
        }
        if (st)
            break;
        check_event(r, event);
        weir_event_free(event);
        if (!o->silent) {
            printf("%lu\n", (unsigned long)r->records);
            fflush(stdout);
        }
    }
    if (st)
        exit = complain("cannot read the stream", &err);
    printf("{\"records\":%lu,\"reconnects\":%lu,\"faults\":%lu}\n", (unsigned long)r->records,
           (unsigned long)r->reconnects, (unsigned long)r->faults);
    if (!exit && r->faults)
        exit = BROKEN;
done:
    weir_subscription_close(sub);
    weir_client_close(client);
    free_reading(r);
    return exit;
}

/* ---- main ---- */

static bool
parse(int argc, char **argv, struct options *o)
{
    enum {
        BROKER,
        STREAM,
        ACKS,
        NAME,
        KEYS,
        SIZE,
        COUNT,
        RATE,
        RETRY,
        IN_FLIGHT,
        UNTIL,
        GAPS,
        SILENT
    };
    static const struct option names[] = {
        {"broker", 1, NULL, BROKER},  {"stream", 1, NULL, STREAM},
        {"acks", 1, NULL, ACKS},      {"name", 1, NULL, NAME},
        {"keys", 1, NULL, KEYS},      {"size", 1, NULL, SIZE},
        {"count", 1, NULL, COUNT},    {"rate", 1, NULL, RATE},
        {"retry-ms", 1, NULL, RETRY}, {"in-flight", 1, NULL, IN_FLIGHT},
        {"until", 1, NULL, UNTIL},    {"gaps", 0, NULL, GAPS},
        {"silent", 0, NULL, SILENT},  {0},
    };
    const char **text[] = {&o->broker, &o->stream, &o->acks, &o->name};
    uint64_t *number[] = {&o->keys,     &o->size,      &o->count, &o->rate,
                          &o->retry_ms, &o->in_flight, &o->until};
    int option;
    while ((option = getopt_long(argc, argv, "", names, NULL)) >= 0) {
        if (option == '?')
            return false;
        if (option <= NAME)
            *text[option] = optarg;
        else if (option <= UNTIL)
            *number[option - KEYS] = strtoul(optarg, NULL, 10);
        else if (option == GAPS)
            o->gaps = true;
        else
            o->silent = true;
    }
    return o->broker && o->stream && o->keys && o->size <= SIZE_MAX_BYTES;
}

int
main(int argc, char **argv)
{
    struct options o = {.keys = 100, .size = 300};
    const char *verb = argc > 1 ? argv[1] : "";
    if (argc < 2 || !parse(argc - 1, argv + 1, &o)) {
        fprintf(stderr, "usage: witness produce|check|follow --broker URL --stream S ...\n");
        return USAGE;
    }
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    if (strcmp(verb, "check") == 0)
        return check(&o, argv + 1 + optind);
    if (strcmp(verb, "follow") == 0)
        return follow(&o);
    if (strcmp(verb, "produce") != 0 || !o.acks)
        return USAGE;
    if (!o.name)
        o.name = "p";
    return produce(&o);
}
