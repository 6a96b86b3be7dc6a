/* libweir and the real weir-broker: what a program that links the library is promised, also when
 * the broker is killed and started again underneath. */
#include "client/weir.h"
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { DEADLINE_MS = 100000, KEYS = 23 };

#define OK(call)                                                                    \
    do {                                                                            \
        error.text[0] = 0;                                                          \
        enum weir_status ok_st = (call);                                            \
        cr_assert(ok_st == WEIR_OK, "%s:%d: %s: %s: %s", __FILE__, __LINE__, #call, \
                  weir_status_name(ok_st), error.text);                             \
    } while (0)

static struct weir_error error;
static char directory[64], url[128];
static pid_t broker;

static void
start_broker(void)
{
    char program[512], data[128], listen[160], ready_fd[] = "--ready-fd=9", owners[] = "--owners=2",
                                               segment[] = "--segment-size=4MiB",
                                               prewrite[] = "--prewrite=0", text[256];
    const char *bin = getenv("WEIR_BIN_DIR");
    snprintf(program, sizeof program, "%s/weir-broker", bin ? bin : "build/release/bin");
    snprintf(data, sizeof data, "--data=%s/data", directory);
    snprintf(listen, sizeof listen, "--listen=%s", url);
    char *argv[] = {program, data, listen, ready_fd, owners, segment, prewrite, NULL};
    int ready[2];
    cr_assert(pipe2(ready, O_CLOEXEC) == 0);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ready[1], 9);
    posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
    cr_assert(posix_spawn(&broker, program, &actions, NULL, argv, environ) == 0, "%s", program);
    posix_spawn_file_actions_destroy(&actions);
    close(ready[1]);
    struct pollfd p = {.fd = ready[0], .events = POLLIN};
    cr_assert(poll(&p, 1, DEADLINE_MS) == 1 && read(ready[0], text, sizeof text) > 0,
              "the broker is not ready");
    close(ready[0]);
}

static void
stop_broker(int with)
{
    kill(broker, with);
    waitpid(broker, NULL, 0);
    broker = 0;
}

static void
setup(void)
{
    snprintf(directory, sizeof directory, "/tmp/weir-libweir-XXXXXX");
    cr_assert(mkdtemp(directory) != NULL);
    snprintf(url, sizeof url, "ipc://%s/s", directory);
    start_broker();
}

static void
teardown(void)
{
    if (broker)
        stop_broker(SIGKILL);
    char command[100];
    snprintf(command, sizeof command, "rm -rf %s", directory);
    cr_assert(system(command) == 0);
}

TestSuite(libweir, .init = setup, .fini = teardown, .timeout = 280);

static struct weir_client *
connect_client(void)
{
    struct weir_client *c = NULL;
    OK(weir_client_open(
        &(struct weir_client_options){.url = url, .connect_timeout_ms = DEADLINE_MS}, &c, &error));
    return c;
}

static void
create(struct weir_client *c, uint32_t shards)
{
    OK(weir_create_stream(c, &(struct weir_stream_options){.name = "orders", .shard_count = shards},
                          &error));
}

static struct weir_producer *
produce(struct weir_client *c, struct weir_producer_options o)
{
    struct weir_producer *p = NULL;
    o.stream = "orders";
    OK(weir_producer_open(c, &o, &p, &error));
    return p;
}

static void
put_number(struct weir_producer *p, unsigned number)
{
    char key[16], data[64];
    int key_len = snprintf(key, sizeof key, "key-%u", number % KEYS);
    int len = snprintf(data, sizeof data, "%u of order %u, and some text", number, number % KEYS);
    OK(weir_put(p, key, (size_t)key_len, data, (size_t)len, (void *)(size_t)number, DEADLINE_MS));
}

/* What was read: each number once, per key in order. */
struct reader {
    unsigned count, last[KEYS];
    unsigned char seen[200000];
    unsigned shard_ends, connections;
};

static void
read_event(struct reader *r, struct weir_event *e)
{
    struct weir_event_record record;
    r->shard_ends += e->kind == WEIR_EVENT_SHARD_END;
    r->connections += e->kind == WEIR_EVENT_CONNECTION;
    cr_assert(e->kind != WEIR_EVENT_GAP);
    while (weir_event_next(e, &record)) {
        unsigned number = (unsigned)strtoul((const char *)record.data, NULL, 10);
        cr_assert(r->seen[number] == 0, "%u came twice", number);
        cr_assert(number > r->last[number % KEYS], "%u came after %u", number,
                  r->last[number % KEYS]);
        r->seen[number] = 1;
        r->last[number % KEYS] = number;
        r->count++;
    }
}

static void
read_until(struct weir_subscription *s, struct reader *r, unsigned count)
{
    while (r->count < count) {
        struct weir_event *e;
        OK(weir_poll(s, DEADLINE_MS, &e, &error));
        read_event(r, e);
        weir_event_free(e);
    }
}

static struct weir_subscription *
subscribe(struct weir_client *c, struct weir_subscribe_options o)
{
    struct weir_subscription *s = NULL;
    o.stream = "orders";
    OK(weir_subscribe(c, &o, &s, &error));
    return s;
}

static struct reader *
read_all(struct weir_client *c, struct weir_subscribe_options o)
{
    struct reader *r = calloc(1, sizeof *r);
    o.until_tail = true;
    struct weir_subscription *s = subscribe(c, o);
    for (;;) {
        struct weir_event *e;
        enum weir_status st = weir_poll(s, DEADLINE_MS, &e, &error);
        if (st == WEIR_END)
            break;
        cr_assert(st == WEIR_OK, "%s: %s", weir_status_name(st), error.text);
        read_event(r, e);
        weir_event_free(e);
    }
    weir_subscription_close(s);
    return r;
}

/* The broker is killed several times while a producer puts and a subscription reads: each record is
 * stored once and comes once, in order per key, and both go on by themselves. */
Test(libweir, survives_kills_of_the_broker)
{
    enum { RECORDS = 30000, KILLS = 4 };
    struct weir_client *c = connect_client(), *c2 = connect_client();
    create(c, 3);
    struct weir_producer *p = produce(c, (struct weir_producer_options){.batch_bytes = 4096});
    struct weir_subscription *s =
        subscribe(c2, (struct weir_subscribe_options){.from = {.kind = WEIR_FROM_OLDEST}});
    struct reader *r = calloc(1, sizeof *r);
    for (unsigned i = 1; i <= RECORDS; i++) {
        put_number(p, i);
        if (i % (RECORDS / KILLS) == RECORDS / KILLS / 2) {
            read_until(s, r, i / 4);
            stop_broker(SIGKILL);
            put_number(p, ++i);
            start_broker();
        }
    }
    OK(weir_producer_flush(p, DEADLINE_MS, &error));
    read_until(s, r, RECORDS);
    cr_expect(r->connections > 0);
    struct reader *again =
        read_all(c, (struct weir_subscribe_options){.from = {.kind = WEIR_FROM_OLDEST}});
    cr_expect(eq(u32, again->count, RECORDS));
    free(again);
    free(r);
    weir_subscription_close(s);
    weir_producer_close(p);
    weir_client_close(c2);
    weir_client_close(c);
}

/* A draining broker (SIGTERM) loses nothing either. */
Test(libweir, survives_a_restart)
{
    enum { RECORDS = 5000 };
    struct weir_client *c = connect_client();
    create(c, 2);
    struct weir_producer *p = produce(c, (struct weir_producer_options){.batch_bytes = 4096});
    for (unsigned i = 1; i <= RECORDS; i++) {
        put_number(p, i);
        if (i % 2000 == 1000) {
            stop_broker(SIGTERM);
            start_broker();
        }
    }
    OK(weir_producer_flush(p, DEADLINE_MS, &error));
    struct reader *r =
        read_all(c, (struct weir_subscribe_options){.from = {.kind = WEIR_FROM_OLDEST}});
    cr_expect(eq(u32, r->count, RECORDS));
    free(r);
    weir_producer_close(p);
    weir_client_close(c);
}

/* Shards are split and merged while a producer puts and a subscription reads: order per key holds
 * on both sides, nothing is missing. */
Test(libweir, follows_splits_and_merges)
{
    enum { RECORDS = 20000 };
    struct weir_client *c = connect_client();
    create(c, 1);
    struct weir_producer *p = produce(c, (struct weir_producer_options){.batch_bytes = 2048});
    struct weir_subscription *s =
        subscribe(c, (struct weir_subscribe_options){.from = {.kind = WEIR_FROM_OLDEST}});
    struct reader *r = calloc(1, sizeof *r);
    for (unsigned i = 1; i <= RECORDS; i++) {
        put_number(p, i);
        if (i == 4000)
            OK(weir_split_shard(c, "orders", 0, NULL, &error)); /* 1, 2 */
        if (i == 8000)
            OK(weir_split_shard(c, "orders", 1, NULL, &error)); /* 3, 4 */
        if (i == 12000)
            OK(weir_merge_shards(c, "orders", 4, 2, &error)); /* 5 */
        if (i == 16000)
            OK(weir_update_shard_count(c, "orders", 4, &error));
        if (i % 1000 == 0)
            read_until(s, r, i / 2);
    }
    OK(weir_producer_flush(p, DEADLINE_MS, &error));
    read_until(s, r, RECORDS);
    cr_expect(r->shard_ends >= 5);
    struct weir_stream_description *d;
    OK(weir_describe_stream(c, "orders", &d, &error));
    cr_expect(eq(u32, d->open_shards, 4));
    weir_stream_description_free(d);
    struct reader *again =
        read_all(c, (struct weir_subscribe_options){.from = {.kind = WEIR_FROM_OLDEST}});
    cr_expect(eq(u32, again->count, RECORDS));
    free(again);
    free(r);
    weir_subscription_close(s);
    weir_producer_close(p);
    weir_client_close(c);
}

/* A consumer that stops and comes back reads on where its checkpoints are, also after the broker
 * was killed; an older owner of them is refused. */
Test(libweir, resumes_from_checkpoints)
{
    enum { RECORDS = 3000 };
    struct weir_client *c = connect_client();
    create(c, 2);
    struct weir_producer *p = produce(c, (struct weir_producer_options){.batch_bytes = 1024});
    for (unsigned i = 1; i <= RECORDS; i++)
        put_number(p, i);
    OK(weir_producer_flush(p, DEADLINE_MS, &error));

    struct weir_subscribe_options o = {
        .consumer = "mailer",
        .take_checkpoint = true,
        .from = {.kind = WEIR_FROM_CHECKPOINT, .otherwise = WEIR_FROM_OLDEST},
    };
    struct reader *r = calloc(1, sizeof *r);
    struct weir_subscription *s = subscribe(c, o);
    for (unsigned i = 0; i < 10; i++) {
        struct weir_event *e;
        OK(weir_poll(s, DEADLINE_MS, &e, &error));
        read_event(r, e);
        if (e->kind == WEIR_EVENT_RECORDS)
            OK(weir_checkpoint(s, e->shard, e->limit, &error));
        weir_event_free(e);
    }
    stop_broker(SIGKILL);
    start_broker();
    struct weir_subscription *next = subscribe(c, o);
    read_until(next, r, RECORDS);

    enum weir_status st;
    uint32_t shard = 0;
    uint64_t position = 0;
    while (weir_subscription_position(s, shard, &position))
        shard++;
    st = weir_checkpoint(s, shard, position, &error);
    cr_expect(st == WEIR_FENCED, "%s", weir_status_name(st));
    weir_subscription_close(s);
    weir_subscription_close(next);
    weir_producer_close(p);
    weir_client_close(c);
    free(r);
}

static void
count_names(void *arg, const char *name)
{
    *(unsigned *)arg += strcmp(name, "orders") == 0;
}

static void
count_stats(void *arg, const char *name, double value, const char *unit, const char *help)
{
    (void)value;
    *(unsigned *)arg += name[0] && unit && help[0];
}

static void
count_consumers(void *arg, const struct weir_consumer_info *info)
{
    *(unsigned *)arg += strcmp(info->name, "watcher") == 0 && info->connected;
}

static void
check_position(void *arg, uint32_t shard, uint64_t offset, uint64_t oldest, uint64_t tail)
{
    (void)shard;
    *(unsigned *)arg += offset == 0 && oldest == 0 && tail == 100;
}

/* What an operator asks is answered. */
Test(libweir, answers_questions)
{
    struct weir_client *c = connect_client();
    unsigned n = 0;
    create(c, 1);
    cr_expect(weir_create_stream(c, &(struct weir_stream_options){.name = "orders"}, &error) ==
              WEIR_EXISTS);
    struct weir_producer *p = produce(c, (struct weir_producer_options){});
    for (unsigned i = 1; i <= 100; i++)
        put_number(p, i);
    OK(weir_producer_flush(p, DEADLINE_MS, &error));
    OK(weir_list_streams(c, count_names, &n, &error));
    cr_expect(eq(u32, n, 1));
    OK(weir_get_stats(c, "", count_stats, &n, &error));
    cr_expect(n > 5);
    n = 0;
    OK(weir_resolve(c, "orders", &(struct weir_from){.kind = WEIR_FROM_OLDEST}, NULL,
                    check_position, &n, &error));
    cr_expect(eq(u32, n, 1));
    struct reader *r = calloc(1, sizeof *r);
    struct weir_subscription *s =
        subscribe(c, (struct weir_subscribe_options){.consumer = "watcher",
                                                     .from = {.kind = WEIR_FROM_OLDEST}});
    read_until(s, r, 100);
    n = 0;
    OK(weir_list_consumers(c, "orders", count_consumers, &n, &error));
    cr_expect(eq(u32, n, 1));
    OK(weir_set_retention(c, "orders", 48 * 3600 * 1000ull, 0, &error));
    OK(weir_delete_stream(c, "orders", &error));
    struct weir_event *e;
    enum weir_status st;
    while ((st = weir_poll(s, DEADLINE_MS, &e, &error)) == WEIR_OK)
        weir_event_free(e);
    cr_expect(st == WEIR_NOT_FOUND, "%s", weir_status_name(st));
    weir_subscription_close(s);
    weir_producer_close(p);
    weir_client_close(c);
    free(r);
}

/* A sequence number of a record is a place to begin; a moment is one too, and one to end at. */
Test(libweir, begins_and_ends_where_asked)
{
    struct weir_client *c = connect_client();
    create(c, 1);
    struct weir_producer *p = produce(c, (struct weir_producer_options){.batch_bytes = 1024});
    for (unsigned i = 1; i <= 500; i++)
        put_number(p, i);
    OK(weir_producer_flush(p, DEADLINE_MS, &error));

    struct weir_subscription *s =
        subscribe(c, (struct weir_subscribe_options){.from = {.kind = WEIR_FROM_OLDEST}});
    struct weir_event *e = NULL;
    struct weir_event_record record = {};
    char sequence[57];
    while (record.offset != 123) {
        if (!e || !weir_event_next(e, &record)) {
            weir_event_free(e);
            OK(weir_poll(s, DEADLINE_MS, &e, &error));
        }
    }
    uint64_t at_ms = record.at_ms;
    OK(weir_sequence_of(s, record.shard, record.offset, record.at_ms, sequence));
    weir_event_free(e);
    weir_subscription_close(s);

    s = subscribe(
        c, (struct weir_subscribe_options){
               .from = {.kind = WEIR_FROM_SEQUENCE, .sequence = sequence}, .until_tail = true});
    OK(weir_poll(s, DEADLINE_MS, &e, &error));
    cr_expect(e->kind == WEIR_EVENT_RECORDS && e->first == 123);
    weir_event_free(e);
    weir_subscription_close(s);

    /* Before the first arrival there is nothing; the stream is older than that. */
    s = subscribe(c, (struct weir_subscribe_options){.from = {.kind = WEIR_FROM_OLDEST},
                                                     .until_ms = at_ms + 1});
    uint64_t limit = 0;
    enum weir_status st;
    while ((st = weir_poll(s, DEADLINE_MS, &e, &error)) == WEIR_OK) {
        if (e->kind == WEIR_EVENT_RECORDS)
            limit = e->limit;
        weir_event_free(e);
    }
    cr_expect(st == WEIR_END, "%s: %s", weir_status_name(st), error.text);
    cr_expect(limit > 123, "%lu", (unsigned long)limit);
    weir_subscription_close(s);

    struct reader *r = read_all(
        c, (struct weir_subscribe_options){.from = {.kind = WEIR_FROM_TIME, .at_ms = at_ms}});
    cr_expect(r->count >= 500 - 123, "%u", r->count);
    free(r);
    weir_producer_close(p);
    weir_client_close(c);
}
