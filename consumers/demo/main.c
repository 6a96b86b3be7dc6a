/* weir-demo: the main job in under a minute.
 *
 *   1  start weir-broker on DIRECTORY/broker, make the stream "orders" with four shards
 *   2  start three consumers: shipping notifications, a per-product view, the NDJSON export
 *   3  feed a history of orders, about twelve seconds long
 *   4  kill -9 the view in the middle, start it again: it goes on at its checkpoint
 *   5  wait until all have everything, stop them
 *   6  replay the first hour of the history beside all this
 *   7  compare what each got with what was fed; stop the broker; verify every checksum
 *
 * Exit status: 0 all adds up, 1 something does not (what is said), 2 wrong usage. */
#include "base/text.h"
#include "change/change.h"
#include "client/weir.h"
#include "demo/orders.h"
#include "demo/roles.h"
#include "sys/clock.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define FEED_MS 12000
#define WAIT_MS 30000 /* for anything that should take moments */

struct demo {
    char directory[2048], bin[2048], url[256];
    uint32_t orders;
    bool terminal, failed;
    pid_t broker, notifier, view, export;
    struct weir_client *client;
    uint64_t fed, total, shipped, inserts, units, first_hour, history_ms;
    uint64_t started_ms, shown_ms;
    unsigned shown_lines;
    char note[160];
    struct {
        uint64_t done, lag;
    } consumer[3];
};
static const char *const consumer_names[3] = {"shipping-notifications", "product-view",
                                              "orders-export"};

static uint64_t
now_ms(void)
{
    return weir_mono_us(weir_clock_system()) / 1000;
}

static void
rest(unsigned ms)
{
    struct timespec t = {ms / 1000, (long)(ms % 1000) * 1000000};
    nanosleep(&t, NULL);
}

[[gnu::format(printf, 2, 3)]] static void
say(struct demo *d, const char *fmt, ...)
{
    if (d->terminal && d->shown_lines)
        printf("\033[%uA\033[J", d->shown_lines);
    d->shown_lines = 0;
    va_list list;
    va_start(list, fmt);
    vprintf(fmt, list);
    va_end(list);
    putchar('\n');
    fflush(stdout);
}

/* ---- processes ---- */

static pid_t
start(struct demo *d, const char *log, const char *const argv[])
{
    pid_t pid = fork();
    if (pid)
        return pid;
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", d->directory, log);
    int out = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    int in = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (out >= 0 && in >= 0) {
        dup2(in, 0);
        dup2(out, 1);
        dup2(out, 2);
        execv(argv[0], (char *const *)(uintptr_t)argv);
    }
    _exit(127);
}

/* Ends a child by signal and waits for it; its exit status, or -1. */
static int
end(pid_t *pid, int number)
{
    int status = 0;
    if (*pid <= 0)
        return 0;
    kill(*pid, number);
    for (uint64_t deadline = now_ms() + WAIT_MS; waitpid(*pid, &status, WNOHANG) == 0; rest(5))
        if (now_ms() > deadline) {
            kill(*pid, SIGKILL);
            waitpid(*pid, &status, 0);
            break;
        }
    *pid = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static bool
start_broker(struct demo *d)
{
    char bin[4096], data[4096], ready[4096], readied[4160];
    snprintf(bin, sizeof bin, "%s/weir-broker", d->bin);
    snprintf(data, sizeof data, "--data=%s/broker", d->directory);
    snprintf(ready, sizeof ready, "%s/broker.addresses", d->directory);
    snprintf(readied, sizeof readied, "--ready-file=%s", ready);
    const char *argv[] = {bin, data, "--listen=tcp://127.0.0.1:0", readied, NULL};
    remove(ready);
    d->broker = start(d, "broker.log", argv);
    for (uint64_t deadline = now_ms() + WAIT_MS; now_ms() < deadline; rest(10)) {
        FILE *f = fopen(ready, "r");
        bool got = f && fgets(d->url, sizeof d->url, f) && strchr(d->url, '\n');
        if (f)
            fclose(f);
        if (got) {
            *strchr(d->url, '\n') = '\0';
            return true;
        }
        if (waitpid(d->broker, NULL, WNOHANG) == d->broker) {
            d->broker = 0;
            break;
        }
    }
    say(d, "the broker does not start: see %s/broker.log", d->directory);
    return false;
}

static void
start_notifier(struct demo *d)
{
    const char *argv[] = {"/proc/self/exe", "--role", "notifier", d->url, d->directory, NULL};
    d->notifier = start(d, "notifier.log", argv);
}

static void
start_view(struct demo *d)
{
    const char *argv[] = {"/proc/self/exe", "--role", "view", d->url, d->directory, NULL};
    d->view = start(d, "view.log", argv);
}

static void
start_export(struct demo *d)
{
    char bin[4096], to[4096];
    snprintf(bin, sizeof bin, "%s/weir", d->bin);
    snprintf(to, sizeof to, "%s/export", d->directory);
    const char *argv[] = {
        bin,      "--broker",        d->url,     "export",     "orders", "--to",   to,
        "--name", consumer_names[2], "--follow", "--interval", "2s",     "--size", "4MiB",
        NULL};
    d->export = start(d, "export.log", argv);
}

/* ---- progress ---- */

static void
take_consumer(void *arg, const struct weir_consumer_info *c)
{
    struct demo *d = arg;
    for (int i = 0; i < 3; i++)
        if (strcmp(c->name, consumer_names[i]) == 0) {
            d->consumer[i].done += c->has_checkpoint ? c->checkpoint : 0;
            d->consumer[i].lag += c->tail - (c->has_checkpoint ? c->checkpoint : 0);
        }
}

static void
look(struct demo *d)
{
    memset(d->consumer, 0, sizeof d->consumer);
    (void)!weir_list_consumers(d->client, "orders", take_consumer, d, NULL);
}

static void
bar(uint64_t done, uint64_t total)
{
    for (unsigned i = 0; i < 30; i++)
        fputs(total && done * 30 / total > i ? "#" : ".", stdout);
}

static void
show(struct demo *d)
{
    uint64_t now = now_ms();
    if (now - d->shown_ms < (d->terminal ? 150 : 3000))
        return;
    d->shown_ms = now;
    look(d);
    char moment[25];
    weir_format_moment(d->history_ms, moment);
    if (!d->terminal) {
        printf("  fed %lu of %lu changes (history at %.16s); notifications %lu, view %lu, export "
               "%lu\n",
               (unsigned long)d->fed, (unsigned long)d->total, moment,
               (unsigned long)d->consumer[0].done, (unsigned long)d->consumer[1].done,
               (unsigned long)d->consumer[2].done);
        fflush(stdout);
        return;
    }
    if (d->shown_lines)
        printf("\033[%uA\033[J", d->shown_lines);
    printf("  %-24s", "orders table");
    bar(d->fed, d->total);
    printf(" %6lu changes  history at %.16s\n", (unsigned long)d->fed, moment);
    for (int i = 0; i < 3; i++) {
        printf("  %-24s", consumer_names[i]);
        bar(d->consumer[i].done, d->total);
        printf(" %6lu done\n", (unsigned long)d->consumer[i].done);
    }
    printf("  %s\n", d->note);
    d->shown_lines = 5;
    fflush(stdout);
}

/* ---- the steps ---- */

static void
act(struct demo *d)
{
    uint64_t percent = d->fed * 100 / d->total;
    if (percent >= 40 && percent < 60 && d->view > 0) {
        end(&d->view, SIGKILL);
        snprintf(d->note, sizeof d->note, "kill -9 of product-view at change %lu",
                 (unsigned long)d->fed);
        if (!d->terminal)
            say(d, "  %s", d->note);
    } else if (percent >= 60 && d->view == 0) {
        start_view(d);
        snprintf(d->note, sizeof d->note,
                 "product-view started again at change %lu: it goes on at its checkpoint",
                 (unsigned long)d->fed);
        if (!d->terminal)
            say(d, "  %s", d->note);
    }
}

static bool
feed(struct demo *d)
{
    struct weir_orders *orders = NULL;
    struct weir_producer *producer = NULL;
    struct weir_error err = {0};
    struct weir_order_change change;
    bool ok = false;
    if (weir_orders_new(1, d->orders, &orders) ||
        weir_producer_open(d->client, &(struct weir_producer_options){.stream = "orders"},
                           &producer, &err))
        goto done;
    d->total = weir_orders_change_count(orders);
    uint64_t started = now_ms();
    while (!weir_orders_next(orders, &change)) {
        if (weir_put(producer, change.key, strlen(change.key), change.json.data, change.json.len,
                     NULL, WAIT_MS)) {
            (void)!weir_fail(&err, WEIR_TIMEOUT, "the broker takes no more");
            goto done;
        }
        d->fed++;
        d->shipped += change.is_shipped;
        d->inserts += change.is_insert;
        d->units += change.units;
        d->history_ms = change.at_ms;
        d->first_hour += change.at_ms < WEIR_ORDERS_START_MS + 3600000;
        act(d);
        show(d);
        while (now_ms() < started + d->fed * FEED_MS / d->total) {
            rest(2);
            show(d);
        }
    }
    ok = weir_producer_flush(producer, WAIT_MS, &err) == WEIR_OK;
done:
    if (!ok)
        say(d, "feeding failed: %s", err.text);
    weir_producer_close(producer);
    weir_orders_free(orders);
    return ok;
}

static bool
wait_for_consumers(struct demo *d)
{
    for (uint64_t deadline = now_ms() + WAIT_MS; now_ms() < deadline; rest(50)) {
        show(d);
        look(d);
        bool all = true;
        for (int i = 0; i < 3; i++)
            all &= d->consumer[i].done == d->fed && d->consumer[i].lag == 0;
        if (all)
            return true;
    }
    for (int i = 0; i < 3; i++)
        if (d->consumer[i].done != d->fed)
            say(d, "%s has %lu of %lu changes: see its log in %s", consumer_names[i],
                (unsigned long)d->consumer[i].done, (unsigned long)d->fed, d->directory);
    return false;
}

/* Reads from the oldest record on, beside everybody else, and counts the changes of the history's
 * first hour. No checkpoint is read or moved. */
static uint64_t
replay_first_hour(struct demo *d)
{
    struct weir_subscription *sub;
    struct weir_error err = {0};
    uint64_t count = 0;
    struct weir_subscribe_options o = {
        .stream = "orders", .from = {.kind = WEIR_FROM_OLDEST}, .until_tail = true};
    if (weir_subscribe(d->client, &o, &sub, &err)) {
        say(d, "replay: %s", err.text);
        return 0;
    }
    struct weir_event *event;
    while (weir_poll(sub, WAIT_MS, &event, &err) == WEIR_OK) {
        struct weir_event_record record;
        while (weir_event_next(event, &record)) {
            struct weir_change_info info;
            if (!weir_change_peek(weir_bytes(record.data, record.data_len), &info, NULL) &&
                info.created_at_ms < WEIR_ORDERS_START_MS + 3600000)
                count++;
        }
        weir_event_free(event);
    }
    weir_subscription_close(sub);
    return count;
}

static uint64_t
count_lines(const char *path)
{
    uint64_t lines = 0;
    FILE *f = fopen(path, "r");
    for (int c; f && (c = getc(f)) != EOF;)
        lines += c == '\n';
    if (f)
        fclose(f);
    return lines;
}

/* Lines of all *.ndjson files below a directory. */
static uint64_t
count_exported(const char *path, uint64_t *objects)
{
    uint64_t lines = 0;
    DIR *dir = opendir(path);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        char below[4096];
        size_t len = strlen(e->d_name);
        if (e->d_name[0] == '.')
            continue;
        if (snprintf(below, sizeof below, "%s/%s", path, e->d_name) >= (int)sizeof below)
            continue;
        if (e->d_type == DT_DIR) {
            lines += count_exported(below, objects);
        } else if (len > 7 && strcmp(e->d_name + len - 7, ".ndjson") == 0) {
            lines += count_lines(below);
            ++*objects;
        }
    }
    if (dir)
        closedir(dir);
    return lines;
}

static uint64_t
sum_products(const char *path, size_t *products)
{
    uint64_t sum = 0;
    char line[256];
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f)) {
        unsigned long units;
        if (sscanf(line, "product\t%*s\t%lu", &units) == 1) {
            sum += units;
            ++*products;
        }
    }
    if (f)
        fclose(f);
    return sum;
}

static void
compare(struct demo *d, const char *what, uint64_t got, uint64_t expected, const char *unit)
{
    bool same = got == expected;
    say(d, "  %-24s %8lu of %lu %s%s", what, (unsigned long)got, (unsigned long)expected, unit,
        same ? "" : "   <-- DIFFERENT");
    d->failed |= !same;
}

static void
compare_all(struct demo *d, uint64_t replayed)
{
    char path[4096], unit[64];
    uint64_t objects = 0;
    size_t products = 0;
    say(d, "what each got, and what was fed:");
    snprintf(path, sizeof path, "%s/notifications.txt", d->directory);
    compare(d, consumer_names[0], count_lines(path), d->shipped, "shipments, one line each");
    snprintf(path, sizeof path, "%s/products.tsv", d->directory);
    uint64_t units = sum_products(path, &products);
    snprintf(unit, sizeof unit, "units of %zu products, through a kill -9", products);
    compare(d, consumer_names[1], units, d->units, unit);
    snprintf(path, sizeof path, "%s/export", d->directory);
    uint64_t lines = count_exported(path, &objects);
    snprintf(unit, sizeof unit, "lines in %lu objects", (unsigned long)objects);
    compare(d, consumer_names[2], lines, d->fed, unit);
    compare(d, "replay of the first hour", replayed, d->first_hour, "changes");
}

static bool
verify(struct demo *d)
{
    char bin[4096], data[4096];
    snprintf(bin, sizeof bin, "%s/weir", d->bin);
    snprintf(data, sizeof data, "%s/broker", d->directory);
    const char *argv[] = {bin, "verify", data, NULL};
    pid_t pid = start(d, "verify.log", argv);
    int status = 0;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void
run(struct demo *d)
{
    struct weir_error err = {0};
    if (!start_broker(d)) {
        d->failed = true;
        return;
    }
    if (weir_client_open(&(struct weir_client_options){.url = d->url, .name = "weir-demo"},
                         &d->client, &err) ||
        weir_create_stream(
            d->client, &(struct weir_stream_options){.name = "orders", .shard_count = 4}, &err)) {
        say(d, "%s", err.text);
        d->failed = true;
        return;
    }
    say(d, "broker at %s, data in %s/broker", d->url, d->directory);
    say(d, "stream 'orders' with 4 shards; three consumers side by side; feeding %u orders",
        d->orders);
    start_notifier(d);
    start_view(d);
    start_export(d);
    if (!feed(d) || !wait_for_consumers(d))
        d->failed = true;
    d->failed |= end(&d->notifier, SIGTERM) != 0;
    d->failed |= end(&d->view, SIGTERM) != 0;
    d->failed |= end(&d->export, SIGTERM) != 0;
    uint64_t replayed = replay_first_hour(d);
    compare_all(d, replayed);
}

static bool
prepare(struct demo *d)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/.weir-demo", d->directory);
    if (mkdir(d->directory, 0755) && errno == EEXIST && access(path, F_OK)) {
        fprintf(stderr,
                "weir-demo: '%s' is there and was not made by weir-demo; name another with "
                "--data\n",
                d->directory);
        return false;
    }
    if (access(path, F_OK) == 0) {
        const char *argv[] = {"/bin/rm", "-rf", d->directory, NULL};
        pid_t pid = fork();
        if (pid == 0) {
            execv(argv[0], (char *const *)(uintptr_t)argv);
            _exit(127);
        }
        waitpid(pid, NULL, 0);
        mkdir(d->directory, 0755);
    }
    FILE *f = fopen(path, "w");
    if (!f) {
        fprintf(stderr, "weir-demo: cannot write to '%s': %s\n", d->directory, strerror(errno));
        return false;
    }
    fclose(f);
    return realpath(d->directory, path) && strlen(path) < sizeof d->directory - 64 &&
           strcpy(d->directory, path);
}

int
main(int argc, char **argv)
{
    struct demo d = {.orders = 3000, .directory = "demo-data", .terminal = isatty(STDOUT_FILENO)};
    if (argc == 5 && strcmp(argv[1], "--role") == 0)
        return strcmp(argv[2], "view") == 0 ? run_view(argv[3], argv[4])
                                            : run_notifier(argv[3], argv[4]);
    for (int i = 1; i < argc; i += 2) {
        uint64_t n;
        if (i + 1 < argc && strcmp(argv[i], "--data") == 0 && strlen(argv[i + 1]) < 1900) {
            snprintf(d.directory, sizeof d.directory, "%s", argv[i + 1]);
        } else if (i + 1 < argc && strcmp(argv[i], "--orders") == 0 &&
                   !weir_parse_u64(weir_bytes_of(argv[i + 1]), &n) && n && n <= 100000) {
            d.orders = (uint32_t)n;
        } else {
            fprintf(stderr, "usage: weir-demo [--data DIRECTORY] [--orders N]\n");
            return 2;
        }
    }
    ssize_t len = readlink("/proc/self/exe", d.bin, sizeof d.bin - 1);
    if (len <= 0 || !prepare(&d))
        return 1;
    *strrchr(d.bin, '/') = '\0';
    d.started_ms = now_ms();
    run(&d);
    end(&d.notifier, SIGTERM);
    end(&d.view, SIGTERM);
    end(&d.export, SIGTERM);
    weir_client_close(d.client);
    if (d.broker > 0 && end(&d.broker, SIGTERM) != 0) {
        say(&d, "the broker did not stop in order: see %s/broker.log", d.directory);
        d.failed = true;
    }
    if (!d.failed && !verify(&d)) {
        say(&d, "weir verify found damage: see %s/verify.log", d.directory);
        d.failed = true;
    }
    uint64_t took = now_ms() - d.started_ms;
    if (d.failed)
        say(&d, "demo FAILED after %lu.%lu s; logs in %s", (unsigned long)took / 1000,
            (unsigned long)took / 100 % 10, d.directory);
    else
        say(&d,
            "everything adds up, every checksum holds: %lu.%lu s; look around in %s "
            "(notifications.txt, products.tsv, export/)",
            (unsigned long)took / 1000, (unsigned long)took / 100 % 10, d.directory);
    return d.failed;
}
