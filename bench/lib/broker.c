#include "bench/broker.h"
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#define FLAGS_MAX 16

void
weir_bench_broker_start(const struct weir_bench *b, const char *data, const char *const *flags,
                        struct weir_bench_broker *out)
{
    char directory[PATH_MAX], log[PATH_MAX], data_flag[PATH_MAX + 16];
    weir_bench_path(b, data, directory);
    weir_bench_path(b, "broker.log", log);
    snprintf(data_flag, sizeof data_flag, "--data=%s", directory);

    const char *argv[FLAGS_MAX + 5] = {b->broker, data_flag, "--listen=tcp://127.0.0.1:0",
                                       "--log-level=warning"};
    for (size_t i = 0; flags && flags[i] && i < FLAGS_MAX; i++)
        argv[4 + i] = flags[i];
    uint64_t start_ns = weir_bench_now_ns();
    weir_child_start(argv, "--ready-fd=", log, &out->child);
    weir_child_wait_ready(&out->child, out->url, sizeof out->url);
    out->ready_ms = (double)(weir_bench_now_ns() - start_ns) / 1e6;
}

void
weir_bench_broker_stop(struct weir_bench_broker *broker)
{
    weir_child_end(&broker->child, SIGTERM);
}

void
weir_bench_broker_kill(struct weir_bench_broker *broker)
{
    weir_child_end(&broker->child, SIGKILL);
}

void
weir_bench_broker_describe(const char *const *flags)
{
    printf("broker settings:");
    for (size_t i = 0; flags && flags[i]; i++)
        printf(" %s", flags[i]);
    printf("%s\n", flags && flags[0] ? "; the rest default" : " default");
}

static int
remove_entry(const char *path, const struct stat *, int, struct FTW *)
{
    return remove(path);
}

void
weir_bench_remove(const struct weir_bench *b, const char *name)
{
    char path[PATH_MAX];
    weir_bench_path(b, name, path);
    nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

void
weir_bench_wait_idle(const struct weir_child *child)
{
    double before = weir_child_cpu_s(child);
    for (int i = 0; i < 20; i++) {
        weir_bench_sleep_until_ns(weir_bench_now_ns() + 1000000000u);
        double after = weir_child_cpu_s(child);
        if (after - before < 0.01)
            return;
        before = after;
    }
}
